# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The builder of webdataset shards, for which a damaged text or JSON member is None."""

from collections.abc import Callable
from functools import partial

from datasets.packaged_modules.webdataset.webdataset import WebDataset


def decode_or_none(decode: Callable[[bytes], object], content: bytes) -> object:
    """What a member of a shard holds; None where it is damaged, which counts as missing."""
    try:
        return decode(content)
    except ValueError:
        return None


class TolerantWebDataset(WebDataset):
    """
    The builder `webdataset` of `datasets`, which would end with an error at the first member that it cannot decode.

    `datasets` replaces functions such as `open` in the module of a builder, so this one holds nothing else.
    """

    DECODERS = {extension: partial(decode_or_none, decode) for extension, decode in WebDataset.DECODERS.items()}

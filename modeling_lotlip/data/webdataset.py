# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
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

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Webdataset shards. `datasets` replaces functions such as `open` in a builder's module: here is nothing else."""

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
    """The builder `webdataset` of `datasets`, which would end at the first member that it cannot decode."""

    DECODERS = {extension: partial(decode_or_none, decode) for extension, decode in WebDataset.DECODERS.items()}

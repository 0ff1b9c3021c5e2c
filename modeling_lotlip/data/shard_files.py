# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Webdataset shards on this machine are read: damaged members are no end of a run, and JSON keeps its types."""

import json
import os
import re
import tarfile
from collections.abc import Iterable
from itertools import islice

from datasets import DatasetBuilder, Features, Image, Json, Value
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from transformers.utils import logging

from ..utils.terminal import without_stop


logger = logging.get_logger(__name__)

TEXT_ENDINGS = ("txt", "text", "transcript")
JSON_ENDINGS = ("json", "jsn")
# A member's name: the key of its sample, and the column
MEMBER_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
# How many members of the first shard say which columns there are
NUM_MEMBERS = 1000


def decode_text(content: bytes) -> str | None:
    """Decodes a text in a shard. One that is not UTF-8 becomes none, with a warning."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        logger.warning_once(f"A text in a shard is not UTF-8, and is read as none: {without_stop(error)}.")
        return None


def decode_json(content: bytes) -> object:
    """Decodes a JSON value in a shard. A damaged one becomes none, with a warning."""
    try:
        return json.loads(content)
    except ValueError as error:
        logger.warning_once(f"A JSON file in a shard is damaged, and is read as none: {without_stop(error)}.")
        return None


class Shards(WebDataset):
    """Reads shards as `datasets` does, but for texts and JSON that are damaged."""

    DECODERS = {
        **WebDataset.DECODERS,
        **dict.fromkeys(TEXT_ENDINGS, decode_text),
        **dict.fromkeys(JSON_ENDINGS, decode_json),
    }


def get_column_type(column: str) -> Image | Json | Value | None:
    """
    Returns the type of what members with an ending such as `jpg`, `txt` or `caption.json` hold; None for other
    endings.
    """
    ending = column.rpartition(".")[2].lower()
    if ending in WebDataset.IMAGE_EXTENSIONS:
        return Image()
    if ending in TEXT_ENDINGS:
        return Value("string")
    if ending in JSON_ENDINGS:
        return Json()
    if ending == "cls":  # the index of a class
        return Value("int64")
    return None


def list_columns(shard: str) -> list[str]:
    """Lists the endings of the members at the beginning of a shard, in their order."""
    with tarfile.open(shard, "r|") as tar:
        names = [member.name for member in islice(tar, NUM_MEMBERS) if member.isfile()]
    matches = map(MEMBER_NAME.fullmatch, names)
    return list(dict.fromkeys(match[2] for match in matches if match is not None))


def open_shards(builder: DatasetBuilder, shards: list[str]) -> DatasetBuilder:
    """
    Finds what reads shards with images, texts and JSON on this machine: `datasets` takes the types of the first five
    samples for those of all, and makes the JSON value "007" a 7.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`, which is returned where the shards have members of other types.
        shards (`list[str]`):
            The paths of the shards.
    """
    types = {}
    for column in list_columns(shards[0]):
        types[column] = get_column_type(column)
    if not types or None in types.values():
        return builder
    features = Features({**types, "__key__": Value("string"), "__url__": Value("string")})
    return Shards(data_files=builder.config.data_files, features=features)


def check_shards(files: Iterable[str]) -> None:
    """Raises a `ValueError` if a local shard was cut off: `datasets` does not ask for the two blocks at the end."""
    for shard in files:
        if shard.endswith(".tar") and os.path.isfile(shard):
            with open(shard, "rb") as file:
                file.seek(max(0, os.path.getsize(shard) - 1024))
                if file.read() != bytes(1024):
                    raise ValueError(f"The shard {shard} was cut off: write it anew, or leave it out.")

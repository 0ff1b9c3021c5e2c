# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The options by which `datasets` reads files: a card next to them may set some (`sep`, `filters`, `drop_labels`), and so
do the endings of files.
"""

from functools import cache
from pathlib import Path
from typing import Any

import datasets
from datasets import BuilderConfig, DatasetBuilder

from ..utils.files import hash_bytes


# The modules of this folder that say what becomes of the content of a file
READER_MODULES = (
    "caption_files.py",
    "json_columns.py",
    "json_files.py",
    "label_names.py",
    "row_files.py",
    "shard_files.py",
)


def find_options(builder: DatasetBuilder) -> dict[str, Any]:
    """
    Finds the options of what reads files that are not the defaults, without those that say which files are read, and
    without the types of columns. Whoever makes another builder for the same files must give them to it.
    """
    defaults = builder.BUILDER_CONFIG_CLASS()
    others = {*vars(BuilderConfig()), "features"}
    options = {}
    for name, default in vars(defaults).items():
        value = getattr(builder.config, name)
        if name not in others and value != default:
            options[name] = value
    return options


@cache
def hash_readers() -> str:
    """
    Hashes the source of what reads files here, as `datasets` does with its own readers, and its version. The hash is
    in the name of whatever is kept of files: another version may read equal files otherwise.
    """
    sources = [Path(__file__).with_name(name).read_bytes() for name in READER_MODULES]
    return hash_bytes(b"".join([datasets.__version__.encode(), *sources]))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The options by which `datasets` reads files: a card next to them may set some (`sep`, `filters`, `drop_labels`), and so
do the endings of files.
"""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import datasets
from datasets import BuilderConfig, DatasetBuilder, DatasetInfo
from datasets.data_files import DataFilesDict

from ..utils.files import hash_bytes


# The modules of this folder that say what becomes of the content of a file
READER_MODULES = (
    "caption_files.py",
    "files_elsewhere.py",
    "json_columns.py",
    "json_files.py",
    "label_names.py",
    "metadata_files.py",
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


def make_other_reader(
    reader_class: type[DatasetBuilder],
    builder: DatasetBuilder,
    info: DatasetInfo,
    data_files: DataFilesDict | None = None,
    columns: Collection[str] = (),
) -> DatasetBuilder:
    """
    Makes another reader of the files of a builder. Its rows lie in the cache where `datasets` looks for them offline.

    Args:
        reader_class (`type`):
            What reads them.
        builder (`DatasetBuilder`):
            That of `datasets`.
        info (`DatasetInfo`):
            What is known of the dataset: its types, where a card says them.
        data_files (`DataFilesDict`, *optional*):
            The files by split. Default: those of the builder.
        columns (`Collection[str]`, *optional*):
            Those that are used, where the others may be read as something else. Default: all.
    """
    info = info.copy()
    info.description = ""
    made = reader_class(
        base_path=builder.base_path,
        dataset_name=builder.dataset_name,
        config_name=builder.config.name,
        config_id=builder.config_id,
        repo_id=builder.repo_id,
        token=builder.token,
        storage_options=builder.storage_options,
        data_files=data_files or builder.config.data_files,
        info=info,
        # the first changes with the files of a dataset of the Hub
        hash=hash_bytes(f"{builder.hash} {hash_readers()} {sorted(columns)}".encode()),
        **find_options(builder),
    )
    made.info.builder_name = builder.info.builder_name
    return made

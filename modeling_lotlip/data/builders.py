# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What `datasets` builds rows with: the builder that the data arguments name, with its files and options."""

import json
import os
from tempfile import TemporaryDirectory

from datasets import DatasetBuilder, Features, load_dataset_builder
from datasets.data_files import DataFilesDict, resolve_pattern
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from fsspec.implementations.local import LocalFileSystem
from transformers.utils import logging

from ..utils.keys import to_key
from ..utils.terminal import without_stop
from .arguments import SourceArguments, find_folder, is_folder_of_data
from .folder import (
    add_images,
    as_patterns,
    divide_files,
    find_files_about_images,
    find_image_files,
    has_card_with_splits,
    has_metadata,
    is_table_file,
    list_files,
    scan_folder,
    sign_files,
    warn_of_images_of_other_endings,
)
from .hub_files import divide_hub_files, name_commits
from .images import IMAGE_EXTENSIONS
from .options import find_options
from .row_files import find_separator
from .rows import Rows
from .shard_files import OtherShards
from .slices import resolve_split


logger = logging.get_logger(__name__)


def build(builder: DatasetBuilder, split: str, streaming: bool) -> Rows:
    """Reads the rows of a builder."""
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare()
    if isinstance(builder, OtherShards):
        builder.warn_of_missing()
    return builder.as_dataset(split)


def make_builder(
    source: SourceArguments,
    split: str,
    key_column: str | None = None,
) -> tuple[DatasetBuilder, str]:
    """Finds what reads a dataset of the Hub or files, and the name of the split that it has."""
    folder = find_local_folder(source)
    is_named = is_folder_of_data(source) or source.data_dir is not None
    image_files = None
    if folder is not None and (is_folder_of_data(source) or source.dataset_name == "imagefolder"):
        image_files = find_image_files(folder)
    try:
        builder = load_builder(source, split, image_files, key_column)
        check_patterns(builder, source)
        if source.data_files is None and builder.repo_id is not None:
            divide_hub_files(builder)
        elif is_named and folder is not None and not image_files and not has_card_with_splits(folder):
            files = list_files(builder, "all")
            divide_files(builder, {file: to_key(os.path.relpath(file, folder)) for file in files})
    except (OSError, ValueError) as error:
        cause = " ".join(without_stop(error).split())
        if "Config name is missing" in cause:  # where a card has several and no default
            raise ValueError(f"{cause}. Name one by --dataset_config_name.") from error
        raise ValueError(f"{describe_source(source)} cannot be loaded: {cause}. Check these arguments.") from error
    if isinstance(builder, ImageFolder):
        # `datasets` would leave out what phones write, without a word
        builder.EXTENSIONS = sorted(IMAGE_EXTENSIONS)
        if folder is not None and has_card_with_splits(folder) and not has_metadata(builder):
            warn_of_images_of_other_endings(LocalFileSystem(), os.path.abspath(folder))
    if not image_files and folder is not None and is_named and not has_card_with_splits(folder):
        warn_of_files_without_split(builder, folder)
    splits = [str(name) for name in builder.config.data_files or builder.info.splits or ()]
    return builder, resolve_split(split, splits, describe_source(source))


def find_local_folder(source: SourceArguments) -> str | None:
    """Finds the folder on this machine that is read; None if files are named, or it is elsewhere."""
    folder = find_folder(source) or "."
    if source.data_files is not None or not os.path.isdir(folder):
        return None
    return folder


def check_patterns(builder: DatasetBuilder, source: SourceArguments) -> None:
    """Raises a `FileNotFoundError` for a pattern that no file matches: of several `datasets` passes over it."""
    folder = find_folder(source)
    if all(map(os.path.isfile, list_files(builder, "all"))):
        for pattern in as_patterns(source.data_files or [], folder):
            resolve_pattern(pattern, os.path.abspath(folder))


def load_builder(
    source: SourceArguments,
    split: str,
    image_files: DataFilesDict | None,
    key_column: str | None,
) -> DatasetBuilder:
    """
    Finds what of `datasets` reads image files in a folder, if there are any, or else what the arguments name.

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The split that is read. All are taken for it if it is not there.
        image_files (`DataFilesDict`, *optional*):
            The image files in a folder.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
    """
    if image_files:
        is_folder = source.dataset_name != "imagefolder"
        if is_folder and source.dataset_config_name not in (None, "default"):
            raise ValueError(f"no card there has a configuration {source.dataset_config_name!r}: leave it out")
        return load_dataset_builder("imagefolder", source.dataset_config_name, data_files=image_files)
    data_files = source.data_files
    if data_files is not None:
        data_files = name_commits(as_patterns(data_files, find_folder(source)))
    named = (source.dataset_name, source.dataset_config_name, source.data_dir, data_files)
    builder = load_dataset_builder(*named)
    of_card = find_options(builder)
    if isinstance(builder, ImageFolder) and data_files is not None and source.dataset_name != "imagefolder":
        base_path = os.path.abspath(find_folder(source)) if builder.repo_id is None else builder.base_path
        add_images(builder, {"train": data_files}, base_path)
    options = {}
    if builder.info.builder_name == "csv":
        # where NA and None are words, and 007 is not 7
        converters = {} if key_column is None else {key_column: str}
        options = {"keep_default_na": False, "na_values": [""], "converters": converters, **of_card}
        if "sep" not in options and "delimiter" not in options:
            # other splits may be separated otherwise
            has_split = split in builder.config.data_files
            options["sep"] = find_separator(list_files(builder, split if has_split else "all"))
    signed = None
    if builder.config.data_files:
        signed = sign_files(builder.config.data_files)
    if signed is not None:
        name = builder.info.builder_name
        features = find_features(builder, named)
        return load_dataset_builder(name, data_files=signed, features=features, **of_card | options)
    if options:  # of CSV
        builder = load_dataset_builder(*named, **options)
        builder.config.features = find_features(builder, named)
    return builder


def find_features(builder: DatasetBuilder, named: tuple) -> Features | None:
    """
    Finds the types that a card says; None if it does not, or `datasets` does not read them there.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`. Its types may be from its cache, where the files were read before.
        named (`tuple`):
            What names it.
    """
    features = getattr(builder.config, "features", None)
    if features is not None:
        return features
    if builder.info.features is None or builder.info.builder_name == "imagefolder":
        return None
    with TemporaryDirectory() as empty_cache:
        return load_dataset_builder(*named, cache_dir=empty_cache).info.features


def describe_source(source: SourceArguments) -> str:
    """Describes the arguments that name a dataset, as they are typed."""
    given = {
        "dataset_name": source.dataset_name,
        "dataset_config_name": source.dataset_config_name,
        "data_dir": source.data_dir,
        "data_files": " ".join(source.data_files or []),
    }
    typed = [f"--{name} {value}" for name, value in given.items() if value]
    return f"`{' '.join(typed)}`"


def is_one_object(path: str) -> bool:
    """Returns whether a file is JSON, but no list of rows and no row in each line: settings, or results."""
    if os.path.splitext(path)[1] != ".json":
        return False
    with open(path, "rb") as file:
        if file.read(1) == b"[":
            return False
        file.seek(0)
        try:
            json.loads(file.readline())
        except ValueError:
            return True  # over several lines
        return not file.readline().strip()


def warn_of_files_without_split(builder: DatasetBuilder, folder: str) -> None:
    """
    Says which files of a folder are in none of the splits that `datasets` finds in their names, and which files of
    rows it does not read since most others have another ending.
    """
    used = set(map(os.path.realpath, list_files(builder, "all")))
    endings = {os.path.splitext(file)[1] for file in used}
    files = []
    of_other_endings = []
    names = scan_folder(folder).files
    about_images = find_files_about_images(names)
    for name in names:
        path = os.path.join(folder, name)
        if os.path.splitext(name)[1] in endings:
            files.append(path)
        elif is_table_file(name) and name not in about_images and not is_one_object(path):
            of_other_endings.append(path)
    unused = [file for file in files if os.path.realpath(file) not in used]
    if unused:
        logger.warning_once(
            f"{len(unused)} of {len(files)} files of {folder} are left out, as {unused[0]!r}: "
            "words in the names of the others make these the splits "
            f"{', '.join(map(str, builder.config.data_files))}. Name files with `--data_files`."
        )
    if of_other_endings:
        logger.warning_once(
            f"{len(of_other_endings)} files of {folder} are left out, as {of_other_endings[0]!r}: "
            f"those with the ending {' or '.join(sorted(endings))} are read. Give all the same "
            "ending, in lower case, or name the files to read with `--data_files`."
        )

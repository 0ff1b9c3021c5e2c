# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Folders of images, with the files of metadata beside them."""

import os
from collections.abc import Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetBuilder, DatasetInfo, Features, Image, IterableDataset, List, Value
from datasets.data_files import DataFilesDict
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

from .arguments import SourceArguments
from .builders import build
from .folder import (
    find_ending,
    is_image_file,
    list_files,
    list_images,
    list_members,
    list_other_splits,
    select_split,
    sign_files,
    split_archive,
)
from .images import IMAGE_EXTENSIONS, undecoded
from .json_columns import find_json_columns
from .json_files import find_decimal_columns, find_metadata_dates, replace_times_of
from .label_names import find_differing_labels
from .metadata_files import FILE_NAMES, FolderTexts
from .options import find_options, hash_readers
from .row_files import check_csv_files, find_csv_types, read_parquet_schema, unify_parquet_types
from .rows import Rows, are_of_one_repository, find_key


logger = logging.get_logger(__name__)

FILE_NAME_COLUMN = "file_name"  # of the images in a folder
NUM_ROWS_AT_ONCE = 10_000


def open_metadata(builder: ImageFolder, split: str) -> ImageFolder:
    """
    Finds what reads the rows that the metadata of a folder of images names. In `metadata.csv` each column has one type
    in all rows of all splits, in others in all rows of the split.

    Args:
        builder (`ImageFolder`):
            That of `datasets`.
        split (`str`):
            The split that is read.

    Raises:
        `ValueError`: if a column has several types.
    """
    # the rows are what metadata names: the names of other files may be no addresses
    files_by_split = DataFilesDict()
    for name, split_files in builder.config.data_files.items():
        files_by_split[name] = [file for file in split_files if not is_image_file(file)]
    signed = sign_files(files_by_split)
    if signed is not None:
        builder.config.data_files = signed
    check_metadata_types(list_metadata(builder, list_files(builder, split)))
    options = find_options(builder)
    data_files = select_split(builder.config.data_files, split)
    reader = make_folder_reader(data_files, builder.config.features, options)
    other_tables = [list_csv_metadata(builder, files) for files in list_other_splits(builder, split)]
    find_types = partial(check_csv_files, options={})
    features = find_csv_types(list_csv_metadata(builder, list_files(builder, split)), other_tables, find_types)
    if features is None or builder.config.features is not None or builder.config.filters is not None:
        return reader
    names_of_files = [name for name in features if name.endswith(FILE_NAMES)]
    if names_of_files != [FILE_NAME_COLUMN]:  # of several images in a row `datasets` makes other columns
        return reader
    del features[FILE_NAME_COLUMN]
    features = Features({builder.BASE_COLUMN_NAME: Image(), **features})
    return make_folder_reader(data_files, features, options)


def check_metadata_types(files: list[str]) -> None:
    """
    Checks that a column of metadata has one type, and labels the same names. `datasets` takes those of one file, and
    makes the text "007" a 7.

    Raises:
        `ValueError`: if one has several; names it.
    """
    of_json = [file for file in files if find_ending(file) == ".jsonl"]
    mixed = find_json_columns(of_json).mixed
    if mixed:
        raise ValueError(
            f"{', '.join(of_json)}: the column {mixed[0]!r} holds values of several types: write "
            "those of one type in all rows, such as lists, or texts."
        )
    of_parquet = [file for file in files if find_ending(file) == ".parquet"]
    if of_parquet and unify_parquet_types(of_parquet) is not None:
        raise ValueError(f"{', '.join(of_parquet)} have other types than each other: write all with the same.")
    differing = find_differing_labels(of_parquet, read_parquet_schema)
    if differing:
        raise ValueError(
            f"{', '.join(of_parquet)}: the labels in the column {min(differing)!r} are numbers to which these files "
            "give other names than each other: write all with the same names of classes, or labels as texts."
        )


def make_folder_reader(
    files: DataFilesDict, features: Features | None, options: dict[str, Any], date_columns: Iterable[str] = ()
) -> FolderTexts:
    """
    Makes what reads a folder of images with metadata.

    Args:
        files (`DataFilesDict`):
            The files of metadata by split.
        features (`Features`, *optional*):
            The types of the columns, where they are known.
        options (`dict[str, Any]`):
            How they are read, where that is not the default.
        date_columns (`Iterable[str]`, *optional*):
            The columns with texts that are written like dates.
    """
    builder = FolderTexts(data_files=files, features=features, hash=hash_readers(), **options)
    builder.EXTENSIONS = sorted(IMAGE_EXTENSIONS)
    builder.info.builder_name = "imagefolder"
    builder.date_columns = frozenset(date_columns)
    return builder


def list_metadata(builder: DatasetBuilder, files: list[str]) -> list[str]:
    """
    Lists the files of metadata among those that a builder reads as a folder of images, also in zip archives on this
    machine; none for other builders.
    """
    if builder.info.builder_name != "imagefolder" or builder.config.drop_metadata:
        return []
    names = builder.config.metadata_filenames or ImageFolder.METADATA_FILENAMES
    metadata = []
    for file in files:
        if os.path.basename(file) in names:
            metadata.append(file)
        elif file.lower().endswith(".zip") and os.path.isfile(file):
            members = list_members(file)
            metadata += [member for member in members if os.path.basename(split_archive(member)[1]) in names]
    return metadata


def list_csv_metadata(builder: DatasetBuilder, files: list[str]) -> list[str]:
    """Lists the files `metadata.csv` among those that a builder reads as a folder of images."""
    return [file for file in list_metadata(builder, files) if find_ending(file) == ".csv"]


def is_image_folder(builder: DatasetBuilder) -> bool:
    """Returns whether a builder reads a folder of images on this machine."""
    return isinstance(builder, ImageFolder) and all(map(os.path.isfile, list_files(builder, "all")))


def is_plain_image_folder(builder: DatasetBuilder) -> bool:
    """Returns whether a builder reads all image files on this machine that it names, without metadata and archives."""
    if not is_image_folder(builder) or builder.config.filters is not None:
        return False
    return all(map(is_image_file, list_files(builder, "all")))


def read_image_folder(builder: ImageFolder, split: str) -> Dataset:
    """
    Makes rows of the images of a plain folder: `datasets` reads `a::b.jpg` and `$HOME.jpg` as addresses and variables.
    As there, folders are labels if there are several and all are equally deep, unless a card says whether they are.
    """
    all_files = list_files(builder, "all")
    files = list_files(builder, split)
    labels = sorted({os.path.basename(os.path.dirname(file)) for file in all_files})
    depths = {file.count(os.sep) for file in all_files}
    features = Features({builder.BASE_COLUMN_NAME: Image()})
    columns = {builder.BASE_COLUMN_NAME: files}
    are_labels = len(labels) > 1 and len(depths) == 1
    if builder.config.drop_labels is not None:
        are_labels = not builder.config.drop_labels
    if are_labels:
        features["label"] = ClassLabel(names=labels)
        columns["label"] = [os.path.basename(os.path.dirname(file)) for file in files]
    info = DatasetInfo(features=features, builder_name=builder.info.builder_name)
    return Dataset.from_dict(columns, features=features, info=info)


def to_stream(rows: Dataset) -> IterableDataset:
    """Makes a stream of rows, which knows by which builder they were read as these do."""
    stream = rows.to_iterable_dataset()
    stream.info.builder_name = rows.info.builder_name
    return stream


def read_metadata_as_text(builder: ImageFolder, split: str, rows: Rows, key_column: str | None) -> Rows:
    """
    Reads the rows of a folder of images again if its metadata has a column of keys, where 007 is not 7, or texts that
    are written like dates, or decimals where there are whole numbers at the beginning.

    Args:
        builder (`ImageFolder`):
            What has read the rows.
        split (`str`):
            The split that they are.
        rows (`Dataset` or `IterableDataset`):
            The rows, which are returned where there are neither.
        key_column (`str`, *optional*):
            The column of keys.
    """
    dates = set()
    metadata = list_metadata(builder, list_files(builder, "all"))
    if builder.config.filters is None:  # by which rows are missing
        dates = find_metadata_dates(rows.features, metadata)
    numbers = {name for name, feature in rows.features.items() if feature == Value("int64")}
    decimals = set()
    if numbers and builder.config.features is None:
        decimals = numbers & find_decimal_columns(file for file in metadata if find_ending(file) == ".jsonl")
    has_keys = isinstance(rows.features.get(key_column), Value)
    if not dates and not decimals and not has_keys:
        return rows
    features = replace_times_of(rows.features)
    for name in decimals:
        features[name] = Value("float64")
    if has_keys:
        features[key_column] = Value("string")
    options = find_options(builder)
    builder = make_folder_reader(builder.config.data_files, features, options, dates)
    return build(builder, split, isinstance(rows, IterableDataset))


def with_file_names(dataset: Rows, source: SourceArguments, files: list[str], metadata: list[str]) -> Rows:
    """
    Adds the `file_name` to rows of a folder of images; warns of what its metadata leaves out.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        source (`SourceArguments`):
            The data arguments.
        files (`list[str]`):
            The files of the folder.
        metadata (`list[str]`):
            Those of metadata among them.
    """
    column = source.image_column
    if not is_folder_of_images(dataset, column):
        return dataset
    are_here = all(map(os.path.isfile, files))
    if not are_here:
        warn_of_images_in_no_row(dataset, files)
    elif metadata:
        warn_of_images_without_metadata(find_image_paths(dataset), files)
    if FILE_NAME_COLUMN in dataset.features or not (are_here or are_of_one_repository(files, source)):
        return dataset
    if isinstance(dataset, IterableDataset):
        return with_file_names_of_stream(dataset, source)
    images = [row[column] for row in undecoded(dataset, column).select_columns(column)]
    names = [find_key({column: image}, source) for image in images]
    return dataset.add_column(FILE_NAME_COLUMN, names)


def is_folder_of_images(dataset: Rows, column: str) -> bool:
    """Whether rows are of a folder of images, and a column has these."""
    return dataset.info.builder_name == "imagefolder" and isinstance(dataset.features.get(column), Image)


def with_file_names_of_stream(dataset: IterableDataset, source: SourceArguments) -> IterableDataset:
    """Adds the `file_name` to streamed rows of a folder of images."""

    def add_name(row: dict) -> dict:
        return {FILE_NAME_COLUMN: find_key(row, source)}

    features = Features({**dataset.features, FILE_NAME_COLUMN: Value("string")})
    return undecoded(dataset, source.image_column).decode(False).map(add_name).cast(features)


def find_image_paths(dataset: Rows) -> set[str]:
    """Finds the paths of the images in all columns of rows."""
    columns = []
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            columns.append(name)
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            columns.append(name)
            dataset = dataset.cast_column(name, List(Image(decode=False)))
    dataset = dataset.select_columns(columns)
    paths = set()
    if isinstance(dataset, IterableDataset):
        for row in dataset:
            for images in row.values():
                for image in images if isinstance(images, list) else [images]:
                    if image is not None:
                        paths.add(image["path"])
        return paths - {None}
    for table in dataset.with_format("arrow").iter(batch_size=NUM_ROWS_AT_ONCE):
        for name in columns:
            images = table[name]
            if pa.types.is_list(images.type):
                images = pc.list_flatten(images)
            paths.update(pc.struct_field(images, "path").to_pylist())
    return paths - {None}


def warn_of_images_without_metadata(named: set[str], files: list[str]) -> None:
    """
    Says which images of a folder, also in archives, no metadata names.

    Args:
        named (`set[str]`):
            The paths of those that it names.
        files (`list[str]`):
            The files of the folder.
    """
    used = {path if path.startswith("zip://") else os.path.abspath(path) for path in named}
    unused = sorted(set(list_images(files)) - used)
    if unused:
        logger.warning_once(
            f"{len(unused)} images are left out, as {unused[0]!r}: they are in no line of metadata that is read."
        )


def warn_of_images_in_no_row(dataset: Rows, files: list[str]) -> None:
    """
    Says how many images of a folder elsewhere no metadata names. Of a stream it is not known before its end.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        files (`list[str]`):
            The files of the folder. Only those of the Hub have their names after a download.
    """
    if isinstance(dataset, IterableDataset):
        return
    named = find_image_paths(dataset)
    members = set()
    for archive in {split_archive(path)[0] for path in named if path.startswith("zip://")}:
        members.update(member for member in list_members(archive) if is_image_file(split_archive(member)[1]))
    num_images = len(members)
    num_used = len(members & named)
    if all(file.startswith("hf://") for file in files):
        num_images += sum(map(is_image_file, files))
        num_used += sum(map(os.path.isfile, named))
    if num_images > num_used:
        logger.warning_once(
            f"{num_images - num_used} of {num_images} images are left out: they are in no line of metadata that is "
            "read."
        )


def find_file_names(dataset: Rows) -> str | None:
    """Finds the column of the names of images if [`load_split`] has read a folder of them; else None."""
    if dataset.info.builder_name == "imagefolder" and FILE_NAME_COLUMN in (dataset.features or {}):
        return FILE_NAME_COLUMN
    return None

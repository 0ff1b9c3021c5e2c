# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The column of images: where it is, what its values are, and paths in it."""

import os
from collections.abc import Mapping
from itertools import groupby

import numpy as np
from datasets import (
    Array2D,
    Array3D,
    DatasetBuilder,
    Features,
    Image,
    IterableDataset,
    Json,
    LargeList,
    List,
    Value,
    concatenate_datasets,
)
from datasets.data_files import DataFilesDict
from datasets.features.features import FeatureType
from transformers.utils import logging

from .builders import build
from .folder import list_files, sign_files
from .images import to_local_path, undecoded
from .json_files import JsonTexts
from .label_names import ParquetLabels
from .options import find_options
from .row_files import check_json_column
from .rows import Rows, check_columns, get_columns


logger = logging.get_logger(__name__)

# The types of values that are paths or contents of images
IMAGE_TYPES = ("string", "large_string", "binary", "large_binary", "null")


def find_images(rows: Rows, builder: DatasetBuilder, split: str, image_column: str) -> Rows:
    """
    Finds the images that rows of files name: relative paths begin in the folder of their file if there is such a file.

    Args:
        rows (`Dataset` or `IterableDataset`):
            The rows, which are returned where they hold no paths.
        builder (`DatasetBuilder`):
            What has read them. It reads the rows of each folder anew if there are several.
        split (`str`):
            The split that they are.
        image_column (`str`):
            The column of images.

    Raises:
        `ValueError`: if files are in several folders on this machine, and others elsewhere.
    """
    files = list_files(builder, split)
    local = [file for file in files if os.path.isfile(file)]
    column_type = rows.features.get(image_column)
    if isinstance(column_type, Json):
        check_json_column(local, image_column)
    is_text = getattr(column_type, "dtype", None) in ("string", "large_string")
    if isinstance(column_type, dict):
        check_image_type(column_type, image_column)
    # a card may say that they are images, or they may stand beside contents
    may_have_paths = isinstance(column_type, (Image, dict))
    are_paths = is_text or (may_have_paths and holds_paths(rows, image_column))
    if not local or not are_paths:
        return rows
    folders = {os.path.dirname(file) for file in local}
    if len(folders) == 1:
        return join_image_paths(rows, image_column, folders.pop())
    if len(local) < len(files):
        raise ValueError(
            f"Files in several folders, as {local[0]}, and files from elsewhere are no single "
            "dataset: put those on this machine into one folder."
        )
    parts = []
    # in the order of the files, which is that of the rows
    for folder, folder_files in groupby(files, os.path.dirname):
        part = open_part(builder, list(folder_files), rows.features)
        of_folder = build(part, "train", isinstance(rows, IterableDataset))
        parts.append(join_image_paths(of_folder, image_column, folder))
    return concatenate_datasets(parts)


def holds_paths(rows: Rows, column: str) -> bool:
    """
    Returns whether an image in a column of images, or of dictionaries, is a path without content. Of a stream, of
    which all images would have to be read, the first one says so.
    """
    images = undecoded(rows.select_columns(column), column)
    if isinstance(images, IterableDataset):
        found = (row[column] for row in images)
        first = next((image for image in found if image and (image["bytes"] or image["path"])), None)
        return first is not None and first["bytes"] is None
    for table in images.with_format("arrow").iter(batch_size=1000):
        for part in table[column].chunks:  # contents are not copied, and paths read only where one may be missing
            contents = part.field("bytes")
            if contents.null_count > 0 and part.field("path").filter(contents.is_null()).drop_null():
                return True
    return False


def open_part(builder: DatasetBuilder, files: list[str], features: Features) -> DatasetBuilder:
    """
    Makes what reads some files of a builder, as a split `train`, with the types of all its files.

    Args:
        builder (`DatasetBuilder`):
            What reads CSV, JSON or parquet on this machine: see [`check_files`].
        files (`list[str]`):
            The files.
        features (`Features`):
            The types of all rows.
    """
    data_files = sign_files(DataFilesDict({"train": files}))
    options = find_options(builder)
    part = type(builder)(data_files=data_files, features=features, hash=builder.hash, **options)
    if isinstance(part, (JsonTexts, ParquetLabels)):
        part.read_as(builder, files)
    return part


def join_image_paths(rows: Rows, column: str, folder: str) -> Rows:
    """
    Lets relative paths of images begin in a folder if there is such a file; see also
    [`to_local_path`].
    """

    def join(row: dict) -> dict:
        image = row[column]
        if image is None or image["bytes"] is not None or not image["path"]:
            return {column: image}
        given = to_local_path(image["path"])
        path = os.path.join(folder, given)
        is_elsewhere = "://" in given or os.path.isfile(given)
        if is_elsewhere and not os.path.isfile(path):
            return {column: {**image, "path": given}}
        return {column: {**image, "path": path}}

    rows = undecoded(rows, column)
    if isinstance(rows, IterableDataset):
        # JSON as it is written: of the text "007" `datasets` would make a 7 after the map
        return rows.decode(False).map(join).cast(rows.features)
    # not from the cache: the files may have come meanwhile
    return rows.map(join, load_from_cache_file=False, desc="Finding images")


def cast_images(rows: Rows, column: str) -> Rows:
    """Makes a column one of images. Raises a `ValueError` if it is not there, or holds something else."""
    columns = get_columns(rows)
    check_columns(columns, image_column=column)
    if column not in columns:
        raise ValueError(
            f"`--image_column {column}` is in a dictionary, where no images are read: write them in their own column."
        )
    warn_of_other_images(rows.features or {}, column)
    column_type = (rows.features or {}).get(column)  # a stream may not say it
    if column_type is not None:
        check_image_type(column_type, column)
        if isinstance(column_type, (Array3D, LargeList, List)):
            check_pixels(rows, column)
    if column_type == Image():
        return rows
    if rows.features is None:
        rows = concatenate_datasets([rows])  # which finds out the types
    return rows.cast_column(column, Image())


def warn_of_other_images(features: Mapping[str, FeatureType], column: str) -> None:
    """Warns of images in shards whose names have another ending than those of a column."""
    others = [name for name, found in features.items() if isinstance(found, Image) and name != column]
    if "__key__" in features and others:
        logger.warning_once(
            f"Shards have images that end in .{', .'.join(others)}, which `--image_column {column}` "
            "does not read: where a sample has one image, give all the same ending."
        )


def check_image_type(found: FeatureType, column: str) -> None:
    """
    Raises a `ValueError` if a column of images has a type that is none, such as lists of numbers, which `datasets`
    would read as one row of pixels.
    """
    is_image = isinstance(found, (Array2D, Array3D, Image))
    if isinstance(found, Value):
        is_image = found.dtype in IMAGE_TYPES
    elif isinstance(found, (LargeList, List)):
        is_image = isinstance(found.feature, (LargeList, List))  # rows and columns of pixels
        if getattr(found.feature, "dtype", None) in ("string", "large_string"):
            raise ValueError(
                f"`--image_column {column}` holds lists of texts: write one path for each image, and "
                "JSON as JSON lines or a list of rows, not as an object of columns."
            )
    elif isinstance(found, dict):
        content = found.get("bytes", Value("null"))
        is_image = {"bytes", "path"} & found.keys() and getattr(content, "dtype", None) in IMAGE_TYPES
    if not is_image:
        raise ValueError(
            f"`--image_column {column}` holds {found}, which is no image: write the path of a file "
            "as a string, or its content as binary."
        )


def check_pixels(rows: Rows, column: str) -> None:
    """
    Raises a `ValueError` if the first image of a column of pixels in color is not of height x width x channels, from
    0 to 255. One of channels x height x width would be read as an image of a few pixels in height if it has as few in
    width, and 256 as 0.
    """
    pixels = next((row[column] for row in rows.select_columns(column) if row[column] is not None), [])
    try:
        pixels = np.asarray(pixels)
    except ValueError:  # of rows of several lengths; who reads them says so
        return
    if pixels.ndim != 3:
        return
    if pixels.shape[0] in (3, 4) or pixels.shape[2] not in (2, 3, 4):
        raise ValueError(
            f"`--image_column {column}` holds pixels of the shape {pixels.shape}: write height x "
            "width x channels, of 3 or 4 channels and more than 4 pixels in height, or better the "
            "content of image files."
        )
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(
            f"`--image_column {column}` holds pixels from {pixels.min()} to {pixels.max()}: write "
            "whole numbers from 0 to 255, or better the content of image files."
        )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a resumed run compares of its data: names and captions, but no folders and times."""

import json
import math
import os

import xxhash
from datasets import Dataset, Image, IterableDataset

from ..data.builders import make_builder
from ..data.caption_files import REJECTED_COLUMN
from ..data.folder import is_image_file, list_files
from ..data.hub_files import HUB_ADDRESS, find_content_of_hub_file
from ..data.images import UnreadableImageError, find_image_path, read_file, undecoded
from ..data.reader import RowReader
from ..table.fingerprint import ReadArchives
from .arguments import TrainArguments


# Rows of a dataset whose texts are compared, at most, and how many are read at once
MAX_COMPARED_ROWS = 10_000_000
ROWS_PER_BLOCK = 1000
# Rows whose images are compared, spread evenly
NUM_COMPARED_IMAGES = 64


def describe_contents(
    args: TrainArguments, split: str, dataset: Dataset | IterableDataset, reader: RowReader
) -> dict[str, int | str]:
    """
    Describes the training or evaluation data: of a stream its files, else its texts and a sample of
    its images; and caption files.

    Args:
        args (`TrainArguments`): The arguments that name the data.
        split (`str`): The split that it is.
        dataset (`Dataset` or `IterableDataset`): The rows.
        reader (`RowReader`): What reads them.

    Returns:
        `dict`: counts and hashes by name.
    """
    if isinstance(dataset, Dataset):
        images = [name for name in reader.columns if isinstance(dataset.features[name], Image)]
        if reader.image_column not in images:  # as a column of paths, which becomes one of images
            images.append(reader.image_column)
        texts = [name for name in reader.columns if name not in images]
        described = {"texts": hash_texts(dataset, texts), "images": hash_some_images(dataset, images)}
    else:
        described = describe_stream(args, split)
    if reader.caption_files is not None:
        rows = reader.caption_files.rows
        described["num_rows_of_caption_files"] = len(rows)
        # not of the images that they were made of, which change no sample
        read = [reader.caption_files.key_column, *reader.caption_files.caption_columns, REJECTED_COLUMN]
        described["caption_files"] = hash_texts(rows, [name for name in rows.column_names if name in read])
    return described


def describe_stream(args: TrainArguments, split: str) -> dict[str, int | str]:
    """
    Describes the files of a stream: their count, the bytes of those on this machine (but of images,
    which may be millions), a hash of their names in the folder that they have in common, and one of what the Hub
    knows the contents of its files by.
    """
    files = []
    for part in split.split("+"):
        builder, split_of_part = make_builder(args, part)
        files += list_files(builder, split_of_part)
    folder = os.path.dirname(os.path.commonprefix(files))
    names = [file.removeprefix(folder) for file in files]
    files_of_rows = [file for file in files if not is_image_file(file)]
    contents = [find_content_of_hub_file(file) for file in files_of_rows if HUB_ADDRESS.fullmatch(file)]
    described = {
        "num_files": len(files),
        "num_bytes": sum(map(os.path.getsize, filter(os.path.isfile, files_of_rows))),
        "file_names": xxhash.xxh3_64_hexdigest(json.dumps(names).encode()),
    }
    if contents:
        described["contents"] = xxhash.xxh3_64_hexdigest(json.dumps(contents).encode())
    return described


def hash_texts(rows: Dataset, columns: list[str]) -> str:
    """
    Hashes the values of all rows, or of blocks of rows that are spread evenly where there are more
    than `MAX_COMPARED_ROWS`. A million rows, with 300 MB of captions, take one to two seconds, ten
    of them in random order.

    Args:
        rows (`Dataset`): All rows.
        columns (`list[str]`): The columns that count, none of images.
    """
    if not columns:  # of shuffled rows without columns `datasets` can read none
        return xxhash.xxh3_64().hexdigest()
    rows = rows.select_columns(columns).with_format("arrow")
    num_blocks = math.ceil(len(rows) / ROWS_PER_BLOCK)
    num_compared = min(num_blocks, math.ceil(MAX_COMPARED_ROWS / ROWS_PER_BLOCK))
    hashed = xxhash.xxh3_64()
    for index in range(num_compared):
        first = index * num_blocks // num_compared * ROWS_PER_BLOCK
        block = rows[first : first + ROWS_PER_BLOCK].to_pydict()
        hashed.update(json.dumps(block, default=str).encode())
    return hashed.hexdigest()


def hash_some_images(rows: Dataset, columns: list[str]) -> str:
    """
    Hashes the names of the image files of some rows that are spread evenly, and their contents where these are in the
    data or on this machine.

    Args:
        rows (`Dataset`): All rows.
        columns (`list[str]`): The columns of images.
    """
    rows = rows.select_columns(columns)
    for column in columns:
        rows = undecoded(rows, column)
    num_compared = min(NUM_COMPARED_IMAGES, len(rows))
    archives = ReadArchives()
    hashed = xxhash.xxh3_64()
    for index in range(num_compared):
        row = rows[index * len(rows) // num_compared]
        for column in columns:
            image = row[column] or {}
            name = os.path.basename(image.get("path") or "")
            hashed.update(json.dumps(name).encode())
            hashed.update(read_content(image, archives))
    return hashed.hexdigest()


def read_content(image: dict, archives: ReadArchives) -> bytes:
    """
    Reads what tells an undecoded image from others of its name: its content, in an archive on this machine its
    checksum; nothing if it is elsewhere, or not there.
    """
    path = find_image_path(image)
    if image.get("bytes") is None and not os.path.isfile(path):
        return json.dumps(archives.find_checksum(path)).encode()
    try:
        return read_file(image)
    except UnreadableImageError:
        return b""

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a resumed run compares of its data: names and captions, but no folders and times."""

import json
import os

import xxhash
from datasets import Dataset, IterableDataset

from ..data.builders import make_builder
from ..data.folder import is_image_file, list_files
from ..data.images import undecoded
from ..data.reader import RowReader
from .arguments import TrainArguments


# Rows of a dataset that are compared, spread evenly
NUM_COMPARED = 64


def describe_contents(
    args: TrainArguments, dataset: Dataset | IterableDataset, reader: RowReader
) -> dict[str, int | str]:
    """
    Describes the training data: of a stream its files, else a sample of its rows; and one of caption files.

    Args:
        args (`TrainArguments`): The arguments that name the data.
        dataset (`Dataset` or `IterableDataset`): The rows.
        reader (`RowReader`): What reads them.

    Returns:
        `dict`: counts and hashes by name.
    """
    if isinstance(dataset, Dataset):
        described = {"rows": hash_some_rows(dataset, reader.columns, reader.image_column)}
    else:
        described = describe_stream(args)
    if reader.caption_files is not None:
        rows = reader.caption_files.rows
        described["num_rows_of_caption_files"] = len(rows)
        described["caption_files"] = hash_some_rows(rows, rows.column_names)
    return described


def describe_stream(args: TrainArguments) -> dict[str, int | str]:
    """
    Describes the files of a stream: their count, the bytes of those on this machine (but of images, which may
    be millions), and a hash of their names in the folder that they have in common.
    """
    files = []
    for part in args.train_split.split("+"):
        builder, split = make_builder(args, part)
        files += list_files(builder, split)
    folder = os.path.dirname(os.path.commonprefix(files))
    names = [file.removeprefix(folder) for file in files]
    files_of_rows = [file for file in files if not is_image_file(file) and os.path.isfile(file)]
    return {
        "num_files": len(files),
        "num_bytes": sum(map(os.path.getsize, files_of_rows)),
        "file_names": xxhash.xxh3_64_hexdigest(json.dumps(names).encode()),
    }


def hash_some_rows(rows: Dataset, columns: list[str], image_column: str | None = None) -> str:
    """
    Hashes the values of some rows that are spread evenly; of an image the name of its file alone.

    Args:
        rows (`Dataset`): All rows.
        columns (`list[str]`): The columns that count.
        image_column (`str`, *optional*): The one of images among them.
    """
    rows = rows.select_columns(columns)
    if image_column is not None:
        rows = undecoded(rows, image_column)
    num_compared = min(NUM_COMPARED, len(rows))
    hashed = xxhash.xxh3_64()
    for index in range(num_compared):
        row = rows[index * len(rows) // num_compared]
        if image_column is not None:
            image = row[image_column] or {}
            row[image_column] = os.path.basename(image.get("path") or "")
        hashed.update(json.dumps(row, default=str).encode())
    return hashed.hexdigest()

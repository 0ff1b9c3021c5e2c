# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Rows that have the image of another row, counted and told."""

from collections import Counter

import pyarrow.compute as pc
from datasets import Dataset
from transformers.utils import logging

from ..utils.files import hash_bytes
from .images import undecoded
from .rows import Rows


logger = logging.get_logger(__name__)

# Contents of images that are compared to find out whether rows have the same one
MAX_COMPARED = 20_000
# Rows whose names are compared
MAX_LISTED = 2_000_000


def count_repeated_images(dataset: Rows, image_column: str) -> int:
    """
    Counts the rows whose image is that of an earlier row, by the paths of files. Where contents are in the
    data, those of the same name and length are compared, unless they are more than `MAX_COMPARED`. None are counted
    in a stream, nor in data of more than `MAX_LISTED` rows, whose names would take gigabytes.
    """
    if not isinstance(dataset, Dataset) or len(dataset) > MAX_LISTED:
        return 0
    images = undecoded(dataset.select_columns(image_column), image_column)
    keys = []
    for table in images.with_format("arrow").iter(batch_size=1000):
        for chunk in table[image_column].chunks:  # of which no content is read here
            paths = pc.struct_field(chunk, "path").to_pylist()
            lengths = pc.binary_length(pc.struct_field(chunk, "bytes")).to_pylist()
            keys += zip(paths, lengths)
    counts = Counter(keys)
    found = []
    compared = []
    for row, (path, length) in enumerate(keys):
        if counts[path, length] > 1 and length is not None:
            compared.append(row)
        elif counts[path, length] > 1 and path is not None:
            found.append(path)
    if len(compared) <= MAX_COMPARED:
        found += [hash_bytes(images[row][image_column]["bytes"]) for row in compared]
    return len(found) - len(set(found))


def warn_of_repeated_images(dataset: Rows, image_column: str, what: str) -> None:
    """
    Warns of rows with the same image, as in files with a row for each caption, unless streamed.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        image_column (`str`):
            The column of the images.
        what (`str`):
            What messages call the rows, such as `"training"`.
    """
    num_repeated = count_repeated_images(dataset, image_column)
    if num_repeated > 0:
        logger.warning(
            f"{num_repeated} of {len(dataset)} {what} rows have the image of another row, whose captions "
            "count as wrong for them. Write one row for each image, with a list of its captions."
        )


def warn_of_images_counted_again(dataset: Rows, image_column: str) -> None:
    """Warns of rows with the same image where each row counts as an image, unless streamed."""
    num_repeated = count_repeated_images(dataset, image_column)
    if num_repeated > 0:
        logger.warning(
            f"{num_repeated} of {len(dataset)} rows have the image of another row, and each counts as an image. Write "
            "one row for each image, with a list of its captions."
        )

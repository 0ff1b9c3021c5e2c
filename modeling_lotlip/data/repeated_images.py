# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Rows that have the image of another row, counted and told."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasets import Dataset
from transformers.utils import logging

from ..utils.terminal import progress_bar
from .images import undecoded
from .rows import Rows


logger = logging.get_logger(__name__)

NUM_READ_AT_ONCE = 1000
# Of a content, from its beginning and its end: few images that have these, name and length in common are different
NUM_BYTES_OF_ENDS = 4096


def count_repeated_images(dataset: Rows, image_column: str) -> int:
    """
    Counts the rows whose image is that of an earlier row: files by their paths, and what is in the
    data by name and content. Contents are read as far as needed: those of the same name, length and
    ends are compared whole. None are counted in a stream.
    """
    if not isinstance(dataset, Dataset):
        return 0
    images = undecoded(dataset.select_columns(image_column), image_column)
    hashes = hash_names(images, image_column)
    rows = np.flatnonzero(hashes)
    hashes = hashes[rows]
    for hash_one in (hash_ends, xxhash.xxh3_64_intdigest):
        is_repeated = find_repeated(hashes)
        rows = rows[is_repeated]
        hashes = hash_contents(images, image_column, rows, hashes[is_repeated], hash_one)
    return len(hashes) - len(np.unique(hashes))


def find_repeated(hashes: np.ndarray) -> np.ndarray:
    """Finds the hashes that are there several times. Returns an array of their shape, bool."""
    _, indices, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return counts[indices] > 1


def hash_names(images: Dataset, image_column: str) -> np.ndarray:
    """
    Hashes the paths of images, with the lengths of contents that are in the data, of which none is
    read. Returns an array of shape `(rows,)`, uint64, 0 where there is no image.
    """
    hashes = np.zeros(len(images), dtype=np.uint64)
    row = 0
    for table in images.with_format("arrow").iter(batch_size=NUM_READ_AT_ONCE):
        for chunk in table[image_column].chunks:
            paths = pc.struct_field(chunk, "path").to_pylist()
            lengths = pc.binary_length(pc.struct_field(chunk, "bytes")).to_pylist()
            for path, length in zip(paths, lengths):
                if path is not None or length is not None:
                    hashes[row] = xxhash.xxh3_64_intdigest(f"{path} {length}".encode())
                row += 1
    return hashes


def hash_contents(
    images: Dataset,
    image_column: str,
    rows: np.ndarray,
    names: np.ndarray,
    hash_one: Callable[[pa.Buffer], int],
) -> np.ndarray:
    """
    Hashes the contents of images in the data, with what is known of them; images in files keep what
    is known.

    Args:
        images (`Dataset`): The undecoded images of all rows.
        image_column (`str`): Their column.
        rows (`np.ndarray` of shape `(hashed,)`): The indices of the rows that are hashed, in ascending order.
        names (`np.ndarray` of shape `(hashed,)`): What is known of these, uint64.
        hash_one (`Callable`): Hashes a content to 64 bits.

    Returns:
        `np.ndarray` of shape `(hashed,)`: the hashes, uint64.
    """
    hashes = names.copy()
    contents = read_contents(images, image_column, rows)
    with progress_bar(desc="Looking for repeated images", total=len(rows), unit=" images", delay=1) as progress:
        for index, content in enumerate(contents):
            if content is not None:
                hashes[index] ^= np.uint64(hash_one(content))
            progress.update()
    return hashes


def read_contents(images: Dataset, image_column: str, rows: np.ndarray) -> Iterator[pa.Buffer | None]:
    """
    Yields the contents of rows, where they lie, by an array of their indices in ascending order, of
    shape `(read,)`; None where an image is in a file.
    """
    start = 0
    if len(rows) == 0:
        return
    for table in images.with_format("arrow").iter(batch_size=NUM_READ_AT_ONCE):
        for chunk in table[image_column].chunks:
            contents = pc.struct_field(chunk, "bytes")
            first, last = np.searchsorted(rows, [start, start + len(chunk)])
            for row in rows[first:last]:
                yield contents[int(row) - start].as_buffer()
            start += len(chunk)


def hash_ends(content: pa.Buffer) -> int:
    """Hashes the beginning and the end of a content to 64 bits."""
    content = memoryview(content)
    digest = xxhash.xxh3_64(content[:NUM_BYTES_OF_ENDS])
    digest.update(content[-NUM_BYTES_OF_ENDS:])
    return digest.intdigest()


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
            f"{num_repeated} of {len(dataset)} {what} rows have the image of another row, whose "
            "captions count as wrong for them. Write one row for each image, with a list of its "
            "captions."
        )


def warn_of_images_counted_again(dataset: Rows, image_column: str) -> None:
    """Warns of rows with the same image where each row counts as an image, unless streamed."""
    num_repeated = count_repeated_images(dataset, image_column)
    if num_repeated > 0:
        logger.warning(
            f"{num_repeated} of {len(dataset)} rows have the image of another row, and each counts "
            "as an image. Write one row for each image, with a list of its captions."
        )

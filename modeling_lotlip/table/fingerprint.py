# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A hash of the rows that a table is made of."""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..data.images import undecoded
from ..data.rows import find_column
from ..utils.files import hash_bytes


NUM_HASHED_AT_ONCE = 1000
# Of each image in the data, from its beginning and its end: two images of the same length have others
NUM_HASHED_BYTES = 4096


def hash_rows(dataset: Dataset, settings: dict[str, Any]) -> str:
    """
    Hashes the values of the columns that a table is made of, by whichever version of this package or of `datasets`
    they were read. Of images in the data their lengths, first and last bytes are hashed; of image
    files, whose signatures the table keeps, nothing.

    Args:
        dataset (`Dataset`):
            The rows.
        settings (`dict`):
            What [`reader_settings`] collects: `columns`, by what they hold, and `key_column`.

    Returns:
        `str`: the hash.
    """
    image_column = settings["columns"]["image"]
    names = set()
    for name in (settings["key_column"], *settings["columns"].values()):
        if name is not None:
            names.add(find_column(dataset.column_names, name))
    dataset = dataset.select_columns(sorted(names))
    if image_column is not None:
        dataset = undecoded(dataset, image_column)
    digest = hashlib.blake2b(digest_size=16)
    for rows in dataset.with_format("arrow").iter(batch_size=NUM_HASHED_AT_ONCE):
        if image_column is not None:
            rows = shorten_images(rows, image_column)
        # the values: the memory of equal ones may differ
        digest.update(repr(rows.to_pydict()).encode())
    return digest.hexdigest()


def shorten_images(rows: pa.Table, image_column: str) -> pa.Table:
    """Puts the lengths of images, and hashes of their first and last bytes, in the place of a column of these."""
    lengths = []
    starts = []
    ends = []
    for chunk in rows[image_column].chunks:  # of which no content is read that is not hashed
        content = pc.struct_field(chunk, "bytes")
        lengths += pc.binary_length(content).to_pylist()
        starts += pc.binary_slice(content, 0, NUM_HASHED_BYTES).to_pylist()
        ends += pc.binary_slice(content, -NUM_HASHED_BYTES).to_pylist()
    hashes = [hash_bytes((start or b"") + (end or b"")) for start, end in zip(starts, ends)]
    rows = rows.drop_columns(image_column)
    return rows.append_column("lengths", pa.array(lengths)).append_column("hashes", pa.array(hashes))

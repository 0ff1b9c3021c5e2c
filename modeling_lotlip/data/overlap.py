# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Whether a model is evaluated on what it was trained on."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from .arguments import SourceArguments
from .images import undecoded
from .loading import list_data_files


# So many images are looked for, spread evenly over the data
NUM_COMPARED = 1000


def find_known_images(dataset: Dataset, known: Dataset, image_column: str) -> tuple[int, int]:
    """
    How many images of a data set another one has too: the same files, or files with the same bytes. Of a large data
    set 1,000 images are looked for, and of the other one only the files of the same sizes are read.

    Returns:
        `tuple[int, int]`: the number of images that were found, and of those that were looked for.
    """
    dataset, known = (undecoded(rows.select_columns(image_column), image_column) for rows in (dataset, known))
    num_compared = min(len(dataset), NUM_COMPARED)
    files = dataset.select([place * len(dataset) // num_compared for place in range(num_compared)])[image_column][:]
    keys = [identify(file) for file in files]
    sizes = pa.array({len(file["bytes"]) for file in files if file and file["bytes"] is not None}, pa.int64())
    paths = pa.array({file["path"] for file in files if file and file["bytes"] is None}, pa.string())

    stored = known.data.column(image_column)
    stored_bytes, stored_paths = (pc.struct_field(stored, name) for name in ("bytes", "path"))
    has_size = pc.is_in(pc.binary_length(stored_bytes).cast(pa.int64()), value_set=sizes)
    has_path = pc.and_(pc.is_null(stored_bytes), pc.is_in(stored_paths.cast(pa.string()), value_set=paths))
    is_candidate = pc.or_(has_size, has_path).to_numpy()
    if known._indices is not None:  # of a selection, the rows in the order of which are those of the data set
        is_candidate = is_candidate[known._indices.column(0).to_numpy()]
    candidates = known.select(np.flatnonzero(is_candidate))
    found = {identify(file) for batch in candidates.iter(batch_size=100) for file in batch[image_column]}
    return sum(key is not None and key in found for key in keys), num_compared


def identify(file: dict | None) -> bytes | str | None:
    """A hash of the bytes of an undecoded image, or the path of its file."""
    if file is None or file["bytes"] is None:
        return None if file is None else file["path"]
    return hashlib.sha1(file["bytes"], usedforsecurity=False).digest()


def find_known_files(source: SourceArguments, split: str, known: SourceArguments, known_split: str) -> tuple[int, int]:
    """How many files of a data set another one has too, of how many: for streams, whose rows are not read."""
    files, known_files = list_data_files(source, split), list_data_files(known, known_split)
    return len(files & known_files), len(files)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Embeddings for other tools."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ..encoder.arguments import KINDS
from ..utils.output_folder import atomic_write
from .storage import EmbeddingTable


# The columns other than that of embeddings
NAMES = ("key", "kind", "position")


def export_embeddings(table: EmbeddingTable, path: Path) -> int:
    """
    Writes all embeddings, which are in memory at once, as `.parquet` (columns `key`, `kind`, `position`, `embedding`)
    or `.npz` (arrays of these names), in the order of the dataset. A symbolic link stays one: its file is written.
    Returns how many there are.
    """
    columns = ["row", *NAMES, "embedding"]
    with table.as_os_error():
        rows = table.table.search().where(table.condition(None)).select(columns).to_arrow()
    rows = rows.append_column("order", pc.index_in(rows["kind"], pa.array(KINDS)))
    rows = rows.sort_by([(name, "ascending") for name in ("row", "key", "order", "position")])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path.resolve()) as partial:
        if path.suffix == ".npz":
            write_arrays(partial, rows, table.dim)
        else:
            parquet.write_table(rows.select([*NAMES, "embedding"]).replace_schema_metadata(), partial)
    return len(rows)


def write_arrays(path: Path, rows: pa.Table, dim: int) -> None:
    """Writes the columns of rows as arrays of NumPy, the embedding of shape `(rows, dim)`."""
    arrays = {name: np.array(rows[name].to_pylist()) for name in NAMES}
    values = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    with open(path, "wb") as file:
        np.savez(file, embedding=values.reshape(len(rows), dim), **arrays)

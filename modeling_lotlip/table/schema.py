# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The columns of a table of embeddings, and its vectors as tensors."""

import json

import numpy as np
import pyarrow as pa
import torch


# What is known of a file without reading it: see `sign_file`
SIGNATURE = ("size", "modified", "changed")

COLUMNS = {
    "key": pa.string(),  # of the image: the path of a file, a column of a dataset, or the number of the row
    "kind": pa.string(),  # "image", "short" or "long"
    "position": pa.int32(),  # of a caption in its column
    "row": pa.int64(),  # of a dataset
    "truncated": pa.bool_(),  # whether a caption is longer than the limit
    "size": pa.int64(),  # of the file, in bytes
    "modified": pa.timestamp("ns"),  # UTC
    "changed": pa.timestamp("ns"),  # UTC: when the entry of the file was changed, by a new name as well
    "hash": pa.string(),  # of the file's bytes, BLAKE2b with 16 bytes
    "width": pa.int32(),
    "height": pa.int32(),
    "taken": pa.timestamp("s"),  # as the camera's clock said
    "problem": pa.string(),  # why the image cannot be read; then there is no embedding
    "tried_with": pa.string(),  # what could not read it; null if its content is not the cause
}
# Columns that tables of earlier versions lack
NEW_COLUMNS = ("changed", "tried_with")


def make_schema(dim: int, dtype: str, settings: dict, notes: dict) -> pa.Schema:
    """
    Makes the schema of a table.

    Args:
        dim (`int`):
            The dimension of the embeddings.
        dtype (`str`):
            In which they are stored, `"float16"` or `"float32"`.
        settings (`dict`):
            What the embeddings depend on.
        notes (`dict`):
            What else is known of them.

    Returns:
        `pa.Schema`: the columns, with settings and notes as metadata.
    """
    element_type = {"float16": pa.float16(), "float32": pa.float32()}[dtype]
    columns = {**COLUMNS, "embedding": pa.list_(element_type, dim)}
    return pa.schema(columns, metadata={"settings": json.dumps(settings), "notes": json.dumps(notes)})


def to_vectors(column: pa.Array | pa.ChunkedArray) -> torch.Tensor:
    """Converts a column of embeddings without nulls to a matrix of shape `(rows, dim)`, normalized, in float32."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    vectors = torch.from_numpy(values).reshape(-1, column.type.list_size)
    return torch.nn.functional.normalize(vectors, dim=-1)


def to_column(embeddings: list[torch.Tensor | None], column_type: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    """Converts embeddings of shape `(dim,)`, of which some are None, to a column in which these are null."""
    nothing = torch.zeros(column_type.list_size, dtype=torch.float32)
    vectors = [nothing if embedding is None else embedding.float() for embedding in embeddings]
    values = torch.stack(vectors).numpy().astype(column_type.value_type.to_pandas_dtype())
    is_null = pa.array([embedding is None for embedding in embeddings])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), column_type.list_size, mask=is_null)

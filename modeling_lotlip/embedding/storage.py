# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Embeddings on disk: how `embed_dataset.py` stores them, and how they are read again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch


STORAGE_DTYPES = ("float32", "float16", "int8", "binary")


def to_storage(embeds: torch.Tensor, storage_dtype: str) -> np.ndarray:
    """
    Embeddings as they are stored: in a floating-point type; as `"int8"`, each vector scaled so that its own largest
    entry becomes 127; or as `"binary"`, a bit for each sign, eight to a byte.

    Args:
        embeds (`torch.Tensor` of shape `(num_embeds, dim)`):
            Embeddings.
        storage_dtype (`str`):
            One of `STORAGE_DTYPES`.

    Returns:
        `np.ndarray` of shape `(num_embeds, dim)`, or for `"binary"` `(num_embeds, dim // 8)`.

    Raises:
        `ValueError`: if `dim` is no multiple of 8 for `"binary"`, or an embedding holds what `"int8"` and `"binary"`
        have no number for: NaN or infinity.

    Example:

    ```python
    >>> import torch
    >>> embeds = torch.tensor([[0.5, -0.1, 0.5, 0.3, -0.3, 0.1, 0.5, -0.2]])
    >>> to_storage(embeds, "int8").tolist()
    [[127, -25, 127, 76, -76, 25, 127, -51]]
    >>> [f"{byte:08b}" for byte in to_storage(embeds, "binary")[0]]
    ['10110110']
    ```"""
    if storage_dtype in ("float32", "float16"):
        return embeds.to(getattr(torch, storage_dtype)).numpy()
    if storage_dtype not in STORAGE_DTYPES:
        raise ValueError(f"`storage_dtype` must be one of {STORAGE_DTYPES}, got {storage_dtype!r}.")
    if storage_dtype == "binary" and embeds.shape[1] % 8 != 0:
        raise ValueError(
            f"`--storage_dtype binary` packs eight signs into a byte, so that the dimension must be a multiple of 8; "
            f"this model's is {embeds.shape[1]}. Choose int8."
        )
    if not embeds.isfinite().all():
        row = int((~embeds.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(
            f"`embeds[{row}]` holds NaN or infinity, which cannot be stored as {storage_dtype}: check the model, or "
            "compute in a wider `--dtype`."
        )
    if storage_dtype == "binary":
        return np.packbits((embeds > 0).numpy(), axis=1)
    embeds = embeds.float()
    largest = embeds.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (embeds / largest * 127).round().to(torch.int8).numpy()


def from_storage(values: np.ndarray, storage_dtype: str) -> torch.Tensor:
    """
    Embeddings out of what [`to_storage`] gave, in float32 and of length 1.

    Args:
        values (`np.ndarray` of shape `(num_embeds, width)`):
            What is stored.
        storage_dtype (`str`):
            One of `STORAGE_DTYPES`.

    Returns:
        `torch.Tensor` of shape `(num_embeds, dim)`

    Example:

    ```python
    >>> import torch
    >>> embeds = torch.nn.functional.normalize(torch.randn(3, 64, generator=torch.manual_seed(0)), dim=-1)
    >>> for storage_dtype in ("int8", "binary"):
    ...     stored = from_storage(to_storage(embeds, storage_dtype), storage_dtype)
    ...     print(storage_dtype, f"{(stored * embeds).sum(dim=-1).mean():.1f}")
    int8 1.0
    binary 0.8
    ```"""
    if storage_dtype == "binary":
        signs = torch.from_numpy(np.unpackbits(values, axis=1))
        return (2 * signs.float() - 1) / signs.shape[1] ** 0.5
    embeds = torch.from_numpy(values.astype(np.float32))
    return embeds if storage_dtype == "float32" else torch.nn.functional.normalize(embeds, dim=-1)


def open_shards(folder: Path) -> pyarrow.dataset.Dataset:
    """
    The shards of a folder as one table on disk, in the order of the data.

    Raises:
        `ValueError`: if there are none.
    """
    paths = sorted(str(path) for path in folder.glob("embeddings-*.parquet"))
    if not paths:
        raise ValueError(f"{folder} holds no embeddings: make them with `embed_dataset.py --output_dir {folder}`.")
    return pyarrow.dataset.dataset(paths, format="parquet")


def read_embeddings(folder: Path, kind: str, batch_size: int = 4096) -> Iterator[torch.Tensor]:
    """
    Reads the embeddings of one kind in a folder of `embed_dataset.py`, part by part and in the order of the data.

    Args:
        folder (`Path`):
            Its `--output_dir`.
        kind (`str`):
            `"image"`, `"short"` or `"long"`.
        batch_size (`int`, *optional*, defaults to 4096):
            Rows of any kind that are read at once, so the most in a part.

    Yields:
        `torch.Tensor` of shape `(num_rows, dim)`: embeddings of length 1 in float32, in whatever form they are stored.
    """
    for shard in open_shards(folder).get_fragments():
        storage_dtype = storage_dtype_of(shard.physical_schema)
        of_kind = pyarrow.dataset.field("kind") == kind
        for batch in shard.to_batches(columns=["embedding"], filter=of_kind, batch_size=batch_size):
            if batch.num_rows > 0:
                yield from_storage(stored_values(batch["embedding"]), storage_dtype)


def storage_dtype_of(schema: pa.Schema) -> str:
    """The `--storage_dtype` of a shard, from its own metadata; those without any hold floating-point numbers."""
    if schema.metadata is not None and b"storage_dtype" in schema.metadata:
        return schema.metadata[b"storage_dtype"].decode()
    return {pa.float32(): "float32", pa.float16(): "float16"}[schema.field("embedding").type.value_type]


def stored_values(column: pa.FixedSizeListArray) -> np.ndarray:
    """A column `embedding` as a matrix (rows, width)."""
    return column.flatten().to_numpy().reshape(len(column), -1)

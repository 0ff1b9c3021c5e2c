# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The vectors of a small table in memory, for programs that answer many searches: one matrix product finds the nearest of
many queries at once. What is on disk decides: each search compares its version with that in memory. After a change the
table itself answers until a thread has read the vectors again, so that no search waits for it.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import torch

from ..utils.terminal import without_stop
from .schema import to_vectors
from .storage import EmbeddingTable


logger = logging.getLogger(__name__)

# What may go wrong with files and memory; that there is none left is a RuntimeError of torch
PROBLEMS = (OSError, RuntimeError, MemoryError)
# Of all vectors of a table, as they are stored; in memory they are in float32
MAX_BYTES = 256 * 2**20
# Queries that are compared at once: each needs a similarity to every vector
QUERIES_AT_ONCE = 32


@dataclass(frozen=True)
class Candidates:
    """
    Rows of a table that may be the nearest ones to a query, in any order.

    Args:
        keys (`list[str]`):
            The keys of the images.
        positions (`list[int]`):
            The positions of captions in their column.
        embeds (`torch.Tensor` of shape `(rows, dim)`):
            The normalized embeddings, in float32.
    """

    keys: list[str]
    positions: list[int]
    embeds: torch.Tensor


@dataclass(frozen=True)
class HeldVectors:
    """
    All embeddings of a kind, as they were at a version of the table.

    Args:
        version (`tuple[int, int]`):
            The version: see [`EmbeddingTable.version`].
        rows ([`Candidates`], *optional*):
            The embeddings; None if the table is too large, or they could not be read.
    """

    version: tuple[int, int]
    rows: Candidates | None

    def find(self, queries: torch.Tensor, count: int) -> list[Candidates]:
        """
        Finds the rows that are most similar to each query, up to the rounding of float32.

        Args:
            queries (`torch.Tensor` of shape `(queries, dim)`):
                Normalized embeddings, in float32.
            count (`int`):
                How many rows are needed.
        """
        count = min(count, len(self.rows.keys))
        found = []
        for part in queries.split(QUERIES_AT_ONCE):
            similarities = part @ self.rows.embeds.T
            for indices in similarities.topk(count, dim=1, sorted=False).indices:
                keys = [self.rows.keys[index] for index in indices.tolist()]
                positions = [self.rows.positions[index] for index in indices.tolist()]
                found.append(Candidates(keys, positions, self.rows.embeds[indices]))
        return found


class VectorMemory:
    """
    Holds the vectors of a table, by their kinds. Several threads may use it.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        max_bytes (`int`, *optional*):
            The max size of its vectors, as they are stored. Those of a larger table are not held.
    """

    def __init__(self, table: EmbeddingTable, max_bytes: int = MAX_BYTES):
        self.table = table
        self.max_bytes = max_bytes
        self.held: dict[str, HeldVectors] = {}
        self.reading: dict[str, Future] = {}
        self.lock = Lock()
        self.reader = ThreadPoolExecutor(max_workers=1)

    def get(self, kind: str) -> HeldVectors | None:
        """Returns the vectors of a kind as they are now; None if they are not held, and a thread begins to read."""
        version = self.table.version
        held = self.held.get(kind)
        if held is not None and held.version == version:
            return held if held.rows is not None else None
        with self.lock:
            last = self.reading.get(kind)
            if last is None or last.done():
                self.reading[kind] = self.reader.submit(self.read, kind)
        return None

    def read(self, kind: str) -> None:
        """
        Reads the vectors of a kind from the table, unless it is too large. A problem is warned of, and what could not
        be read is read again only when the table has another version.
        """
        version = self.table.version  # what is written meanwhile makes it another one
        self.table.check_is_same()
        bytes_of_row = self.table.schema.field("embedding").type.value_type.byte_width * self.table.dim
        rows = None
        try:
            if self.table.count(None) * bytes_of_row <= self.max_bytes:
                rows = self.read_rows(kind)
        except PROBLEMS as error:
            logger.warning(
                f"Embeddings of kind {kind} are not held in memory until the table changes, and each "
                f"search reads the disk: {without_stop(error)}."
            )
        self.held[kind] = HeldVectors(version, rows)

    def read_rows(self, kind: str) -> Candidates:
        """Reads all embeddings of a kind."""
        keys = []
        positions = []
        parts = [torch.empty(0, self.table.dim, dtype=torch.float32)]
        for batch in self.table.read(["key", "position", "embedding"], self.table.condition(kind)):
            keys += batch["key"].to_pylist()
            positions += batch["position"].to_pylist()
            parts.append(to_vectors(batch["embedding"]))
        return Candidates(keys, positions, torch.cat(parts))


def keep_in_memory(table: EmbeddingTable, max_bytes: int = MAX_BYTES) -> None:
    """
    Lets searches of all embeddings in a table be answered from memory, as long as it is small.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        max_bytes (`int`, *optional*):
            The max size of its vectors, as they are stored.
    """
    table.memory = VectorMemory(table, max_bytes)

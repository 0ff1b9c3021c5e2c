# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is measured of the embeddings in a table and kept with it, by named fields."""

import json
from dataclasses import asdict, dataclass, field

from .storage import EmbeddingTable


@dataclass(frozen=True)
class ApproximateSearch:
    """
    How embeddings are searched.

    Args:
        num_cells (`int`, *optional*):
            The cells of the vector index that are searched. None: all embeddings are compared, without the index.
        num_candidates (`int`, *optional*):
            The candidates for each result that are compared exactly.
        recall (`float`, *optional*, defaults to 1):
            The fraction of the exact best that is found.
    """

    num_cells: int | None = None
    num_candidates: int | None = None
    recall: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Whether every embedding is compared."""
        return self.num_cells is None


EXACT_SEARCH = ApproximateSearch()


@dataclass(frozen=True)
class Measurements:
    """
    What is measured of the embeddings of one kind.

    Args:
        score_threshold (`float`):
            Results of a text that are less similar are weak: texts that fit no image come as near.
        copy_threshold (`float`):
            Images that are at least as similar to each other are copies, or of one burst.
        num_rows (`int`):
            How many embeddings there were.
        search ([`ApproximateSearch`], *optional*):
            How all embeddings are searched.
        filtered_search ([`ApproximateSearch`], *optional*):
            How those are searched that a filter leaves, if these are many.
        sample (`dict[str, str | None]`, *optional*):
            Keys of some of the embeddings with the hashes of their files, by which is seen how many are still there.
    """

    score_threshold: float
    copy_threshold: float
    num_rows: int
    search: ApproximateSearch = EXACT_SEARCH
    filtered_search: ApproximateSearch = EXACT_SEARCH
    sample: dict[str, str | None] = field(default_factory=dict)


def read_measurements(table: EmbeddingTable, kind: str = "image") -> Measurements | None:
    """Reads what is measured of a kind; None before that, and where an earlier version has measured it otherwise."""
    values = read_all(table).get(kind)
    if not isinstance(values, dict):
        return None
    searches = {name: ApproximateSearch(**values[name]) for name in ("search", "filtered_search")}
    return Measurements(**values | searches)


def write_measurements(table: EmbeddingTable, kind: str, measured: Measurements) -> None:
    """Keeps what is measured of a kind with the table."""
    metadata = {"measured": json.dumps(read_all(table) | {kind: asdict(measured)})}
    with table.as_os_error():
        table.table.update_field_metadata({"path": "embedding", "metadata": metadata})


def read_all(table: EmbeddingTable) -> dict[str, dict]:
    """Reads what is measured, by the kind of embeddings."""
    metadata = table.schema.field("embedding").metadata or {}
    return json.loads(metadata.get(b"measured", b"{}"))

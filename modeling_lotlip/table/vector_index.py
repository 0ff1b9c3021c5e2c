# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search in a table. From `NUM_EXACT` embeddings on a vector index selects candidates, which are compared exactly. Its
parameters are the smallest that reach `MIN_RECALL`, with images and with texts as queries. Under a filter all of its
cells are searched: what a folder has may lie in cells that are far from the query.
"""

from dataclasses import dataclass

import pyarrow as pa
import torch
from lancedb.index import Bitmap, BTree, IvfRq

from ..encoder.arguments import KINDS
from ..utils.integers import check_integer
from .conditions import in_folder
from .measurements import EXACT_SEARCH, ApproximateSearch, read_measurements
from .memory import Candidates
from .schema import to_vectors
from .storage import EmbeddingTable


# From this number of embeddings on the search is approximate
NUM_EXACT = 50_000
# The fraction of the exact first `RECALL_K` that the approximate search has to find
MIN_RECALL = 0.98
RECALL_K = 10
# More than an index has
ALL_CELLS = 10_000
# Cells that are searched, and candidates for each result that are compared exactly, in the order they are tried
INDEX_PARAMETERS = ((20, 2), (40, 2), (80, 2), (160, 2), (320, 2), (640, 4), (ALL_CELLS, 8))
FILTER_PARAMETERS = ((ALL_CELLS, 2), (ALL_CELLS, 8), (ALL_CELLS, 32))
# Filters that the recall is measured with: folders with many images
NUM_FILTERS = 3
# From this number of queries at once on memory is faster than an index: together they read all vectors only once
MIN_TOGETHER = 4
# Rows that are compared at once
ROWS_AT_ONCE = 10_000


@dataclass
class Found:
    """
    What a search has found, the most similar first.

    Args:
        keys (`list[str]`):
            The keys of the images.
        positions (`list[int]`):
            The positions of captions in their column.
        similarities (`torch.Tensor` of shape `(found,)`):
            The cosine similarities with the query, in float32.
        embeds (`torch.Tensor` of shape `(found, dim)`):
            The normalized embeddings, in float32.
    """

    keys: list[str]
    positions: list[int]
    similarities: torch.Tensor
    embeds: torch.Tensor

    def take(self, indices: list[int]) -> "Found":
        """Takes some of them, in this order."""
        keys = [self.keys[index] for index in indices]
        positions = [self.positions[index] for index in indices]
        return Found(keys, positions, self.similarities[indices], self.embeds[indices])


@dataclass
class Queries:
    """
    Queries that the recall is measured with.

    Args:
        embeds (`torch.Tensor` of shape `(queries, dim)`):
            Their normalized embeddings: texts, and images of the table after them.
        own_ids (`list[int | None]`):
            The row id of each image, which does not count among its results; None of texts.
    """

    embeds: torch.Tensor
    own_ids: list[int | None]


@dataclass
class Neighbors:
    """
    What is most similar to queries, by exact search.

    Args:
        similarities (`torch.Tensor` of shape `(queries, k)`):
            The similarities, in float32, the largest first.
        ids (`torch.Tensor` of shape `(queries, k)`):
            The row ids, in int64.
        num_rows (`int`):
            How many embeddings were compared.
    """

    similarities: torch.Tensor
    ids: torch.Tensor
    num_rows: int


def plan_search(
    table: EmbeddingTable,
    kind: str = "image",
    where: str | None = None,
) -> ApproximateSearch:
    """
    Says how a search will be done, under a filter or without one, and which recall was measured of that: exactly, as
    long as nothing is measured, and where a filter leaves fewer than `NUM_EXACT`.
    """
    measured = read_measurements(table, kind)
    if measured is None:
        return EXACT_SEARCH
    if where is None:
        return measured.search
    if table.count(kind, where) < NUM_EXACT:
        return EXACT_SEARCH
    return measured.filtered_search


def describe_recall(table: EmbeddingTable, kind: str = "image", where: str | None = None) -> str:
    """Says how a search is, in words that go on "1 image in a place"; nothing if it is exact."""
    plan = plan_search(table, kind, where)
    if plan.is_exact:
        return ""
    return (
        f", searched approximately: {plan.recall:.1%} of the first {RECALL_K} are those of exact search, for texts "
        "and images as queries"
    )


def search(
    table: EmbeddingTable,
    query: torch.Tensor,
    k: int,
    kind: str = "image",
    where: str | None = None,
) -> Found:
    """
    Finds the embeddings that are most similar to a query.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        query (`torch.Tensor` of shape `(dim,)`):
            A normalized embedding.
        k (`int`):
            The max number of results.
        kind (`str`, *optional*, defaults to `"image"`):
            The kind of embeddings: `"image"`, `"short"` or `"long"`.
        where (`str`, *optional*):
            An SQL condition that holds for all results.

    Returns:
        [`Found`]: the results. Their similarities are exact, however they were found.

    Raises:
        `OSError`: if a part of the table cannot be read.
        `ValueError`: if there is no such query, result or kind.
    """
    return search_many(table, query[None], k, kind, where)[0]


def search_many(
    table: EmbeddingTable,
    queries: torch.Tensor,
    k: int,
    kind: str = "image",
    where: str | None = None,
) -> list[Found]:
    """
    Finds the embeddings that are most similar to each of several queries: see [`search`]. Where the table is held in
    memory and there is no condition, all queries are compared there at once. Fewer than `MIN_TOGETHER` queries go to
    the vector index instead, if the table has one: it is faster for them.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        queries (`torch.Tensor` of shape `(queries, dim)`):
            Normalized embeddings.
        k (`int`):
            The max number of results of each.
        kind (`str`, *optional*, defaults to `"image"`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition that holds for all results.

    Returns:
        `list[Found]`: the results of each query.

    Raises:
        `OSError`: if a part of the table cannot be read, or it was made anew otherwise.
        `ValueError`: if there are no such queries, results or kind.
    """
    check_search(table, queries, k, kind)
    plan = plan_search(table, kind, where)
    held = None
    if table.memory is not None and where is None and (plan.is_exact or len(queries) >= MIN_TOGETHER):
        held = table.memory.get(kind)
    if held is not None:
        candidates = held.find(queries.float().cpu(), 2 * k + 10)  # as many as of `make_query`
    else:
        table.check_is_same()
        candidates = [read_candidates(table, query, k, kind, where, plan) for query in queries]
    return [rank(rows, query, k) for rows, query in zip(candidates, queries)]


def check_search(table: EmbeddingTable, queries: torch.Tensor, k: int, kind: str) -> None:
    """
    Checks what is searched for: see [`search_many`].

    Args:
        table ([`EmbeddingTable`]):
            The table.
        queries (`torch.Tensor` of shape `(queries, dim)`):
            The queries.
        k (`int`):
            The max number of results of each.
        kind (`str`):
            The kind of embeddings.

    Raises:
        `ValueError`: if nothing is similar to a query, or there is no such number or kind.
    """
    check_integer("k", k, 1)
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    if queries.dim() != 2 or queries.shape[1] != table.dim:
        raise ValueError(
            f"A query must be of shape ({table.dim},), as the embeddings in {table.folder}, got "
            f"{tuple(queries.shape[1:])}: embed it by the model of the table."
        )
    has_direction = queries.isfinite().all(dim=1) & (queries != 0).any(dim=1)
    if not has_direction.all():
        index = int((~has_direction).nonzero()[0])
        raise ValueError(f"Query {index} holds NaN or infinity, or is all zeros: look for NaN in the model's weights.")


def read_candidates(
    table: EmbeddingTable,
    query: torch.Tensor,
    k: int,
    kind: str,
    where: str | None,
    plan: ApproximateSearch,
) -> Candidates:
    """
    Reads the rows that LanceDB finds: see [`make_query`]. Where the cells of the index that are searched hold fewer
    than are needed, all rows are compared: fewer results than `k` mean that there are no more.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        query (`torch.Tensor` of shape `(dim,)`):
            A normalized embedding.
        k (`int`):
            How many results are needed.
        kind (`str`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition that holds for them.
        plan ([`ApproximateSearch`]):
            How to search.
    """
    columns = ["key", "position", "embedding", "_distance"]
    nearest = make_query(table, query, k, kind, where, plan)
    with table.as_os_error():
        rows = nearest.select(columns).to_arrow()
        # not by `maximum_nprobes(0)`: with it LanceDB 0.40 searches nearly all cells for every query
        if len(rows) < k and not plan.is_exact:
            nearest = make_query(table, query, k, kind, where, EXACT_SEARCH)
            rows = nearest.select(columns).to_arrow()
    return Candidates(rows["key"].to_pylist(), rows["position"].to_pylist(), to_vectors(rows["embedding"]))


def rank(rows: Candidates, query: torch.Tensor, k: int) -> Found:
    """
    Ranks candidates by their exact similarity to a query, equal ones by their keys.

    Args:
        rows ([`Candidates`]):
            More rows than are needed, in any order.
        query (`torch.Tensor` of shape `(dim,)`):
            A normalized embedding.
        k (`int`):
            The max number of results.
    """
    # in float64 those of equal vectors are equal, whatever stands beside them
    similarities = (rows.embeds.double() @ query.double().cpu()).float()
    found = Found(rows.keys, rows.positions, similarities, rows.embeds)
    values = similarities.tolist()
    order = sorted(range(len(values)), key=lambda index: (-values[index], found.keys[index], found.positions[index]))
    return found.take(order[:k])


def make_query(
    table: EmbeddingTable,
    query: torch.Tensor,
    k: int,
    kind: str,
    where: str | None,
    plan: ApproximateSearch,
):
    """
    Makes the query of LanceDB, for more than `k` results: equal ones are sorted by their keys afterward, and rounding
    may exchange others. Embeddings that are null are never found.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        query (`torch.Tensor` of shape `(dim,)`):
            A normalized embedding.
        k (`int`):
            How many results are needed.
        kind (`str`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition, which the results meet.
        plan ([`ApproximateSearch`]):
            How to search.

    Returns:
        A query of LanceDB, of which columns can be selected.
    """
    nearest = table.table.search(query.float().cpu().numpy()).distance_type("cosine").limit(2 * k + 10)
    if where is not None or table.settings.get("kinds") != [kind]:
        nearest = nearest.where(table.condition(kind, where), prefilter=True)
    if plan.is_exact:
        return nearest.bypass_vector_index()
    return nearest.nprobes(plan.num_cells).refine_factor(plan.num_candidates)


def needs_index(table: EmbeddingTable) -> bool:
    """Returns whether a table has so many embeddings that comparing all of them takes too long."""
    return table.count(None) >= NUM_EXACT


def has_index(table: EmbeddingTable) -> bool:
    """Returns whether a table has a vector index."""
    with table.as_os_error():
        return any(index.columns == ["embedding"] for index in table.table.list_indices())


def build_index(table: EmbeddingTable) -> None:
    """
    Makes the indices of embeddings, keys and kinds. With fewer than 4 bits for each dimension texts find too few
    images.
    """
    config = IvfRq(distance_type="cosine", num_bits=4)
    with table.as_os_error():
        table.table.create_index("embedding", config=config, replace=True)
        table.table.create_index("key", config=BTree(), replace=True)
        if table.settings.get("kinds") != ["image"]:
            table.table.create_index("kind", config=Bitmap(), replace=True)


def find_neighbors(
    table: EmbeddingTable, queries: torch.Tensor, kind: str = "image", where: str | None = None
) -> Neighbors:
    """
    Compares queries with all embeddings of a kind, a part of the table at a time.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        queries (`torch.Tensor` of shape `(queries, dim)`):
            Normalized embeddings, in float32.
        kind (`str`, *optional*, defaults to `"image"`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition that holds for them.

    Returns:
        [`Neighbors`]: the `RECALL_K + 1` most similar of each query, or as many as there are.
    """
    found = Neighbors(torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64), 0)
    rows = table.table.search().where(table.condition(kind, where)).select(["embedding"]).with_row_id(True)
    with table.as_os_error():
        for batch in rows.to_batches(ROWS_AT_ONCE):
            vectors = to_vectors(batch["embedding"])
            new_ids = torch.from_numpy(batch["_rowid"].to_numpy().astype("int64"))
            similarities = torch.cat([found.similarities, queries @ vectors.t()], dim=1)
            ids = torch.cat([found.ids, new_ids.expand(len(queries), -1)], dim=1)
            top = similarities.topk(min(RECALL_K + 1, similarities.shape[1]), dim=1)
            found = Neighbors(top.values, ids.gather(1, top.indices), found.num_rows + len(vectors))
    return found


def sample_rows(table: EmbeddingTable, kind: str, count: int) -> pa.Table:
    """
    Samples at most `count` embeddings of a kind at random, always the same ones. Returns the columns `_rowid`, `key`,
    `hash` and `embedding`.
    """
    ids = table.table.search().where(table.condition(kind)).select(["row"]).with_row_id(True).to_arrow()["_rowid"]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    chosen = ids.take(pa.array(order[:count].sort().values.numpy())).to_pylist()
    rows = table.table.take_row_ids(chosen).select(["key", "hash", "embedding"]).to_arrow()
    return rows.append_column("_rowid", pa.array(chosen, pa.int64()))


def measure_recall(
    table: EmbeddingTable,
    queries: Queries,
    neighbors: Neighbors,
    kind: str,
    where: str | None,
    plan: ApproximateSearch,
) -> float:
    """
    Measures the fraction of the exact first `RECALL_K` that a search finds.

    Args:
        table ([`EmbeddingTable`]):
            The table, with an index.
        queries ([`Queries`]):
            What is searched for.
        neighbors ([`Neighbors`]):
            What exact search finds.
        kind (`str`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition, which the results meet.
        plan ([`ApproximateSearch`]):
            How to search.

    Returns:
        `float`: the lower one of the mean of texts and the mean of images as queries.
    """
    fractions = {"texts": [], "images": []}
    for query, own_id, exact in zip(queries.embeds, queries.own_ids, neighbors.ids.tolist()):
        rows = make_query(table, query, RECALL_K, kind, where, plan).select(["_distance"]).with_row_id(True).to_arrow()
        expected = [row_id for row_id in exact if row_id != own_id][:RECALL_K]
        found = [row_id for row_id in rows["_rowid"].to_pylist() if row_id != own_id][:RECALL_K]
        modality = "texts" if own_id is None else "images"
        fractions[modality].append(len({*expected} & {*found}) / max(1, len(expected)))
    return min(sum(values) / len(values) for values in fractions.values() if values)


def choose_search(
    table: EmbeddingTable, queries: Queries, neighbors: Neighbors, kind: str = "image"
) -> ApproximateSearch:
    """
    Chooses how to search without a filter.

    Args:
        table ([`EmbeddingTable`]):
            The table, with an index.
        queries ([`Queries`]):
            What is searched for.
        neighbors ([`Neighbors`]):
            What exact search finds.
        kind (`str`, *optional*, defaults to `"image"`):
            The kind of embeddings.

    Returns:
        [`ApproximateSearch`]: the smallest parameters of the index that find enough, or else the largest.
    """
    for num_cells, num_candidates in INDEX_PARAMETERS:
        plan = ApproximateSearch(num_cells, num_candidates)
        recall = measure_recall(table, queries, neighbors, kind, None, plan)
        if recall >= MIN_RECALL:
            break
    return ApproximateSearch(num_cells, num_candidates, recall)


def choose_filtered_search(
    table: EmbeddingTable,
    queries: Queries,
    kind: str = "image",
) -> ApproximateSearch:
    """
    Chooses how to search under filters: with the fewest candidates that find enough in each of the folders with many
    images, and in all images, as in a filter by days. Exactly, if no count of candidates does.
    """
    conditions = [None, *list_large_folders(table, kind)]
    neighbors = [find_neighbors(table, queries.embeds, kind, condition) for condition in conditions]
    for num_cells, num_candidates in FILTER_PARAMETERS:
        plan = ApproximateSearch(num_cells, num_candidates)
        recall = 1.0
        for condition, exact in zip(conditions, neighbors):
            recall = min(recall, measure_recall(table, queries, exact, kind, condition, plan))
        if recall >= MIN_RECALL:
            return ApproximateSearch(num_cells, num_candidates, recall)
    return EXACT_SEARCH


def list_large_folders(table: EmbeddingTable, kind: str = "image") -> list[str]:
    """Lists the conditions of the `NUM_FILTERS` folders with the most images, at least `NUM_EXACT`, but not all."""
    counts = table.count_folders()
    num_images = len(table)
    large = [folder for folder, count in counts.items() if NUM_EXACT <= count < num_images]
    large.sort(key=lambda folder: -counts[folder])
    return [in_folder(folder) for folder in large[:NUM_FILTERS]]

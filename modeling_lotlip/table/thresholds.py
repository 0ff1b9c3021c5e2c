# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a table is measured for: when a result is weak, when two images are copies, and what the index finds."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import torch

from ..encoder.arguments import KINDS
from .measurements import EXACT_SEARCH, Measurements, read_measurements, write_measurements
from .schema import to_vectors
from .storage import EmbeddingTable, one_of
from .vector_index import (
    MIN_RECALL,
    Neighbors,
    Queries,
    build_index,
    choose_filtered_search,
    choose_search,
    find_neighbors,
    has_index,
    needs_index,
    sample_rows,
)


# Images that thresholds are measured with, and that the recall is, without a filter and with filters
NUM_SAMPLED = 500
NUM_MEASURED = 200
NUM_FILTER_MEASURED = 50
# Embeddings by which is seen how many are still there
NUM_REMEMBERED = 100
# The score threshold is the median of the best similarities of background texts, plus this times their lower spread
SPREADS = 1.5
# Copies are nearer than this fraction of the distance to the nearest other image, at this quantile of images
COPY_DISTANCE = 0.15
COPY_QUANTILE = 0.75
# The fraction of new embeddings after which thresholds are measured again, and what an index finds: if the new ones
# resemble each other, many of them are in the same few cells
MUCH_NEW = 0.1
MUCH_NEW_IN_INDEX = 0.01
# Older versions of the table are dropped; a younger one may still be read by another program
KEPT_VERSIONS = timedelta(minutes=10)


def maintain(table: EmbeddingTable, embed_background: Callable[[], torch.Tensor]) -> None:
    """
    Does what is due after writing. Small files are merged. After many new rows thresholds and recall are measured.
    Many rows get a vector index, which is made anew if it does not find enough any more.

    Args:
        table ([`EmbeddingTable`]):
            The table, to which this program alone writes.
        embed_background (`Callable[[], torch.Tensor]`):
            Computes the normalized embeddings of shape `(num_texts, dim)` of texts that fit no image, if they are
            needed.
    """
    with table.as_os_error():
        table.table.optimize(cleanup_older_than=KEPT_VERSIONS)
    due = list_due_kinds(table)
    if not due:
        return
    is_new = needs_index(table) and not has_index(table)
    if is_new:
        build_index(table)
    background = embed_background().float().cpu()
    recalls = [measure(table, kind, background).search.recall for kind in due]
    # an index that is new would find no more if it were made again
    if min(recalls) < MIN_RECALL and not is_new:
        build_index(table)
        for kind in due:
            measure(table, kind, background)


def list_due_kinds(table: EmbeddingTable) -> list[str]:
    """Lists the kinds of which thresholds and recall are to be measured."""
    is_large = needs_index(table)
    due = []
    for kind in table.settings.get("kinds", KINDS):
        num_rows = table.count(kind)
        measured = read_measurements(table, kind)
        if num_rows == 0:
            continue
        is_index_due = is_large and (measured is None or measured.search.is_exact)
        if measured is None or is_index_due or has_changed_much(table, kind, measured, num_rows):
            due.append(kind)
    return due


def has_other_count(measured: Measurements, num_rows: int, much_new: float = MUCH_NEW) -> bool:
    """Whether there are many more or fewer embeddings, by a fraction, than when they were measured."""
    return abs(num_rows - measured.num_rows) > much_new * measured.num_rows


def has_changed_much(table: EmbeddingTable, kind: str, measured: Measurements, num_rows: int) -> bool:
    """
    Returns whether many embeddings of a kind are new or gone since they were measured.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        kind (`str`):
            The kind.
        measured ([`Measurements`]):
            What was measured.
        num_rows (`int`):
            How many embeddings there are now.

    Returns:
        `bool`: by their count, and by what is left of a sample: all may be others, and as many.
    """
    much_new = MUCH_NEW
    if not measured.search.is_exact:
        much_new = MUCH_NEW_IN_INDEX
    if has_other_count(measured, num_rows, much_new):
        return True
    if not measured.sample:
        return False
    where = table.condition(kind, one_of("key", list(measured.sample)))
    left = set()
    for batch in table.read(["key", "hash"], where):
        left.update(zip(batch["key"].to_pylist(), batch["hash"].to_pylist()))
    num_gone = len(measured.sample.items() - left)
    return num_gone > much_new * len(measured.sample)


def measure(table: EmbeddingTable, kind: str, background: torch.Tensor) -> Measurements:
    """
    Measures thresholds and recall, and keeps them with the table. The recall is measured with the texts and with
    images as queries.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        kind (`str`):
            The kind of embeddings.
        background (`torch.Tensor` of shape `(num_texts, dim)`):
            The normalized embeddings of texts that fit no image.

    Returns:
        [`Measurements`]: what was measured.
    """
    rows = sample_rows(table, kind, NUM_SAMPLED)
    queries = make_queries(rows, background)
    neighbors = find_neighbors(table, queries.embeds, kind)
    search = EXACT_SEARCH
    filtered_search = EXACT_SEARCH
    if has_index(table):
        indices = thin_out(queries, len(background), NUM_MEASURED)
        few = Neighbors(neighbors.similarities[indices], neighbors.ids[indices], neighbors.num_rows)
        search = choose_search(table, take_queries(queries, indices), few, kind)
        indices = thin_out(queries, len(background), NUM_FILTER_MEASURED)
        filtered_search = choose_filtered_search(table, take_queries(queries, indices), kind)
    measured = replace(
        find_thresholds(neighbors, len(background)),
        search=search,
        filtered_search=filtered_search,
        sample=remember(rows["key"].to_pylist(), rows["hash"].to_pylist()),
    )
    write_measurements(table, kind, measured)
    return measured


def measure_for_now(table: EmbeddingTable, kind: str, background: torch.Tensor) -> Measurements:
    """
    Measures the thresholds of a table to which another program writes, as [`measure`] will when that has ended.
    Nothing is kept with the table.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        kind (`str`):
            The kind of embeddings.
        background (`torch.Tensor` of shape `(num_texts, dim)`):
            The normalized embeddings of texts that fit no image.

    Returns:
        [`Measurements`]: the thresholds of the embeddings that are there now.
    """
    table = table.freeze()  # the ids of rows become others when the program merges files
    queries = make_queries(sample_rows(table, kind, NUM_SAMPLED), background)
    return find_thresholds(find_neighbors(table, queries.embeds, kind), len(background))


def make_queries(rows: pa.Table, background: torch.Tensor) -> Queries:
    """Makes queries of background embeddings of shape `(num_texts, dim)`, and of sampled rows after them."""
    return Queries(
        embeds=torch.cat([background, to_vectors(rows["embedding"])]),
        own_ids=[None] * len(background) + rows["_rowid"].to_pylist(),
    )


def find_thresholds(neighbors: Neighbors, num_texts: int) -> Measurements:
    """Finds the thresholds from the neighbors of the queries of [`make_queries`], the first of which are texts."""
    return Measurements(
        score_threshold=find_score_threshold(neighbors.similarities[:num_texts, 0]),
        copy_threshold=find_copy_threshold(neighbors.similarities[num_texts:]),
        num_rows=neighbors.num_rows,
    )


def thin_out(queries: Queries, num_texts: int, max_images: int) -> list[int]:
    """Chooses the indices of all texts, and of at most `max_images` images, which come after them."""
    num_images = len(queries.embeds) - num_texts
    step = max(1, -(-num_images // max_images))
    return [*range(num_texts), *range(num_texts, len(queries.embeds), step)]


def take_queries(queries: Queries, indices: list[int]) -> Queries:
    """Takes the queries with some indices."""
    return Queries(queries.embeds[indices], [queries.own_ids[index] for index in indices])


def find_score_threshold(best: torch.Tensor) -> float:
    """
    Finds the similarity under which results are weak, from the best similarity of each background text, of shape
    `(num_texts,)`: their median plus `SPREADS` times its distance to their weaker sixth. The stronger half does not
    count: some texts may fit an image after all.
    """
    sixth, median = torch.quantile(best, torch.tensor([1 / 6, 1 / 2], dtype=best.dtype)).tolist()
    return median + SPREADS * (median - sixth)


def find_copy_threshold(similarities: torch.Tensor) -> float:
    """
    Finds the similarity from which on images are copies, from those of shape `(images, k)` of images with the most
    similar ones, the first of which is the image itself.
    """
    # the second column, or the only one where there is a single image
    nearest_other = similarities[:, :2][:, -1]
    distance = torch.quantile(1 - nearest_other, COPY_QUANTILE).clamp(min=0).item()
    return 1 - COPY_DISTANCE * distance


def remember(keys: list[str], hashes: list[str | None]) -> dict[str, str | None]:
    """Chooses keys with their hashes, evenly: all, or from `NUM_REMEMBERED` to twice as many."""
    step = max(1, len(keys) // NUM_REMEMBERED)
    return dict(list(zip(keys, hashes))[::step])

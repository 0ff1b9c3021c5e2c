# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images that are nearly the same, as one result of a search."""

import torch

from .measurements import Measurements
from .memory import Candidates
from .storage import EmbeddingTable
from .vector_index import Found, rank, search


# Similarities that differ by less may be of equal vectors, computed in another order
ROUNDING = 1e-6
# Copies that are looked for at first
NUM_COPIES = 50
# Rows that are compared at least: of these a copy is found however many other images lie before it. Reading as many
# takes little longer than reading a few
MIN_COMPARED = 100


def search_groups(
    table: EmbeddingTable,
    query: torch.Tensor,
    k: int,
    kind: str = "image",
    where: str | None = None,
    measured: Measurements | None = None,
) -> list[Found]:
    """
    Searches as [`search`] does, but embeddings that are nearly the same are one result. All identical copies are
    found; all that are only nearly the same, where one of them is among the first 100, or the first `2 * k`.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        query (`torch.Tensor` of shape `(dim,)`):
            A normalized embedding.
        k (`int`):
            The max number of results.
        kind (`str`, *optional*, defaults to `"image"`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition that holds for all results.
        measured ([`Measurements`], *optional*):
            Says how similar copies are. Without it they are identical.

    Returns:
        `list[Found]`: the results, each with its copies after it.
    """
    threshold = 1.0
    if measured is not None:
        threshold = measured.copy_threshold
    limit = max(2 * k, MIN_COMPARED)
    while True:
        found = search(table, query, limit, kind, where)
        groups = group_copies(found.embeds, threshold, k)
        has_all = len(found.keys) < limit
        if len(groups) == k or has_all:
            break
        limit *= 2
    results = []
    seen = set()
    for indices in groups:
        group = found.take(indices)
        # identical copies, as similar to the query as the last one found, may lie beyond the limit
        is_cut = group.similarities[0] - found.similarities[-1] <= ROUNDING
        if not has_all and (is_cut or len(group.keys) > 1):
            near = search_copies(table, group.embeds[0], threshold, kind, where)
            group = rank(Candidates(near.keys, near.positions, near.embeds), query, len(near.keys))
        # what is a copy of two results belongs to the first
        rows = list(zip(group.keys, group.positions))
        unseen = [index for index, row in enumerate(rows) if row not in seen]
        seen.update(rows)
        if unseen:  # an image may have been deleted between both searches
            results.append(group.take(unseen))
    return results


def search_copies(
    table: EmbeddingTable,
    embedding: torch.Tensor,
    threshold: float,
    kind: str = "image",
    where: str | None = None,
) -> Found:
    """
    Finds everything that is as similar to an embedding as a threshold.

    Args:
        table ([`EmbeddingTable`]):
            The table.
        embedding (`torch.Tensor` of shape `(dim,)`):
            A normalized embedding.
        threshold (`float`):
            The min similarity.
        kind (`str`, *optional*, defaults to `"image"`):
            The kind of embeddings.
        where (`str`, *optional*):
            An SQL condition that holds for them.

    Returns:
        [`Found`]: the embeddings, the most similar first.
    """
    limit = NUM_COPIES
    while True:
        near = search(table, embedding, limit, kind, where)
        is_copy = near.similarities >= threshold - ROUNDING
        if len(near.keys) < limit or not is_copy[-1]:
            return near.take(is_copy.nonzero()[:, 0].tolist())
        limit *= 4


def group_copies(embeds: torch.Tensor, threshold: float, k: int) -> list[list[int]]:
    """
    Groups embeddings of shape `(rows, dim)`. Returns the indices of the rows of at most `k` groups; all of a group are
    at least as similar to its first one as the threshold.
    """
    groups = []
    is_free = torch.ones(len(embeds), dtype=torch.bool)
    while len(groups) < k and is_free.any():
        first = int(is_free.int().argmax())
        is_copy = is_free & (embeds @ embeds[first] >= threshold - ROUNDING)
        is_copy[first] = True
        groups.append(is_copy.nonzero()[:, 0].tolist())
        is_free &= ~is_copy
    return groups

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Exact search in embeddings, with one part of them in memory at a time."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..sub_captions import join_sub_captions, split_sub_captions
from .batches import embed_corpus, prefetch, tokenize_and_count
from .store import check_model, open_shards, read_embeddings


def top_k(similarities: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` largest values of each row, or all of fewer, and their columns; of equal ones the first."""
    values, columns = similarities.topk(min(k + 1, similarities.shape[1]), dim=1)
    if values.shape[1] > k:
        # `topk` takes any of equals: where it left one of them out, the row is sorted
        is_cut = values[:, k - 1] == values[:, k]
        if is_cut.any():
            in_order = similarities[is_cut].sort(dim=1, descending=True, stable=True)
            values[is_cut], columns[is_cut] = (result[:, : k + 1] for result in in_order)
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], columns.gather(1, order)[:, :k]


@torch.no_grad()
def search(queries: torch.Tensor, corpus: Iterable[torch.Tensor], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Exact search: the `k` most similar embeddings of a corpus, of which one part at a time is in memory.

    Similarities are float32 sums. Where two are the same number, the lower position comes first; the sums of equal
    vectors in different parts may differ in their last bit.

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`):
            Normalised embeddings. The similarities are computed on their device.
        corpus (`Iterable[torch.Tensor]` of parts of shape `(num_rows, dim)`):
            Normalised embeddings, in parts of any sizes.
        k (`int`):
            How many to find.

    Returns:
        `(torch.Tensor, torch.Tensor)` of shape `(num_queries, k)`: similarities in float32, the highest first, and
        positions in the corpus, int64, counted through all parts.

    Raises:
        `ValueError`: if the corpus has fewer than `k` embeddings, one of another dimension, or NaN.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.embedding.search import search

    >>> corpus = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 1.0]])
    >>> similarities, positions = search(torch.tensor([[0.0, 1.0]]), corpus.split(3), k=3)
    >>> positions
    tensor([[1, 3, 2]])
    >>> similarities
    tensor([[1.0000, 1.0000, 0.8000]])
    ```"""
    from ..metrics import similarity_blocks  # imports evaluate: only where it is used

    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    queries = queries.float()
    similarities = queries.new_full((len(queries), k), -torch.inf)
    positions = torch.full((len(queries), k), -1, device=queries.device)
    num_rows = 0
    for part in corpus:
        if part.ndim != 2 or part.shape[1] != queries.shape[1]:
            raise ValueError(
                f"`queries` are {queries.shape[1]} wide, but a part of `corpus` has the shape {tuple(part.shape)}: "
                "both must come from the same embedding space."
            )
        part = part.to(queries.device, torch.float32)
        for rows, columns, block in similarity_blocks(queries, part):
            values, places = top_k(block, k)
            if values[:, 0].isnan().any():  # which sorts before all numbers
                raise ValueError(
                    f"`queries` or `corpus` holds NaN, in the latter at a position from {num_rows + columns.start} "
                    f"to {num_rows + columns.stop - 1}: embed again, in a wider dtype."
                )
            # what was found before has the lower positions, and a stable sort leaves it before its equals
            values = torch.cat((similarities[rows], values), dim=1)
            places = torch.cat((positions[rows], places + (num_rows + columns.start)), dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            similarities[rows], positions[rows] = values[:, :k], places.gather(1, order)[:, :k]
        num_rows += len(part)
    if num_rows < k:
        raise ValueError(f"`k` is {k}, but `corpus` has {num_rows} embeddings: lower `k`.")
    return similarities, positions


def recall_at_k(found: torch.Tensor, exact: torch.Tensor) -> float:
    """
    The share of the exact results that was found, in whatever order. (One equal to the last of them, found in its
    place, does not count.)

    Args:
        found (`torch.Tensor` of shape `(num_queries, k)`):
            Positions.
        exact (`torch.Tensor` of shape `(num_queries, k)`):
            The positions of exact search.

    Example:

    ```python
    >>> import torch
    >>> recall_at_k(torch.tensor([[0, 1], [5, 7]]), torch.tensor([[1, 0], [7, 6]]))
    0.75
    ```"""
    return (exact[:, :, None] == found[:, None, :]).any(dim=2).double().mean().item()


def look_up(folder: Path, kind: str, positions: torch.Tensor) -> list[list[dict]]:
    """The `id` and `index` of what is at each position among the embeddings of a kind."""
    of_kind = pyarrow.dataset.field("kind") == kind
    shards = open_shards(folder).scanner(columns=["id", "index"], filter=of_kind)
    rows = iter(shards.take(pa.array(positions.flatten().numpy())).to_pylist())
    return [[next(rows) for _ in found] for found in positions]


def check_collection(folder: Path, kind: str, k: int) -> None:
    """
    Refuses a search for more than there is in a folder.

    Raises:
        `ValueError`: if it holds fewer than `k` embeddings of a kind.
    """
    num_rows = open_shards(folder).count_rows(filter=pyarrow.dataset.field("kind") == kind)
    if num_rows == 0:
        raise ValueError(
            f"`--embeddings_dir {folder}` holds no embeddings of `--kind {kind}`: search for another kind, or embed "
            "the data with it."
        )
    if not 1 <= k <= num_rows:
        raise ValueError(
            f"`--k {k}` must be from 1 to {num_rows}, the embeddings of `--kind {kind}` in `--embeddings_dir "
            f"{folder}`."
        )


def search_folder(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    queries: list[str],
    kind: str = "image",
    k: int = 5,
    max_length: int | None = None,
    model_name_or_path: str = "the model",
) -> dict:
    """
    Searches in a folder of `lotlip embed`: the nearest images, or captions, of texts.

    Args:
        folder (`Path`):
            The folder.
        model (`PreTrainedModel`):
            The dual encoder that the embeddings are of.
        processor (`ProcessorMixin`):
            Its processor.
        queries (`list[str]`):
            Texts; those of several sentences are split and joined as long captions are.
        kind (`str`, *optional*, defaults to `"image"`):
            What to search for: `"image"`, `"short"` or `"long"`.
        k (`int`, *optional*, defaults to 5):
            How many results for each query.
        max_length (`int`, *optional*):
            Truncate queries at this many tokens. Default: the tokenizer's limit.
        model_name_or_path (`str`, *optional*):
            How messages call the model.

    Returns:
        `dict`: `kind`, `k`, and for each of the `queries` whether it was `truncated`, and its `results`: `rank`,
        `similarity`, and the `id` and `index` of what was found. [`format_hits`] shows them.

    Raises:
        `ValueError`: if a query is blank, there are fewer than `k` embeddings of the kind, or they are of another
            model.
    """
    if not queries or not all(query.strip() for query in queries):
        raise ValueError("There is no query, or a blank one: give texts to search with.")
    check_collection(folder, kind, k)
    splitter = check_model(folder, model, model_name_or_path).get("sub_caption_splitter", "paper")
    # texts of several sentences as long captions are embedded
    sub_captions = [split_sub_captions(query, splitter) for query in queries]
    texts = [join_sub_captions(parts) if len(parts) > 1 else query for query, parts in zip(queries, sub_captions)]
    truncated = tokenize_and_count(processor, texts, max_length)[1]
    embeds = embed_corpus(model, processor, texts, max_length=max_length).to(model.device)

    results = {"kind": kind, "k": k}
    similarities, positions = search(embeds, prefetch(read_embeddings(folder, kind), depth=2), k)
    results["queries"] = [
        {"query": query, "truncated": is_truncated, "results": list_hits(scores, rows)}
        for query, is_truncated, scores, rows in zip(
            queries, truncated, similarities.tolist(), look_up(folder, kind, positions.cpu())
        )
    ]
    return results


def list_hits(similarities: list[float], rows: list[dict]) -> list[dict]:
    """What was found for a query, with ranks from 1."""
    found = enumerate(zip(similarities, rows), start=1)
    return [{"rank": rank, "similarity": similarity, **row} for rank, (similarity, row) in found]


def format_query(answer: dict) -> list[str]:
    """The lines above the results of a query."""
    lines = [answer["query"] + (" (truncated)" if answer["truncated"] else "")]
    if answer.get("unknown_words"):
        lines.append(f"      The model does not know: {', '.join(answer['unknown_words'])}.")
    return lines


def format_hits(results: dict) -> str:
    """The results of [`search_folder`], a line each."""
    lines = []
    for query in results["queries"]:
        lines += format_query(query)
        lines += ["{rank:5} {similarity:8.4f}   id {id}   index {index}".format(**hit) for hit in query["results"]]
    return "\n".join(lines)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Search in embeddings: exact, with one part of them in memory at a time, or by an index of faiss."""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import torch
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin

from ..metrics import similarity_blocks
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
                    f"to {num_rows + columns.stop - 1}: embed anew, in a wider dtype."
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


def check_faiss_factory(string_factory: str, dim: int) -> None:
    """
    Refuses what faiss does not know before anything is embedded for it.

    Raises:
        `ImportError`: if faiss is not installed.
        `ValueError`: if it has no such index of vectors of that dimension.
    """
    if importlib.util.find_spec("faiss") is None:
        raise ImportError("`--faiss_factory` needs faiss: `pip install faiss-cpu`, or leave it out to search exactly.")
    import faiss

    try:
        faiss.index_factory(dim, string_factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(
            f"faiss knows no index `--faiss_factory {string_factory}` of vectors of dimension {dim}: {error}"
        ) from error


def build_faiss_index(corpus: Iterable[torch.Tensor], string_factory: str) -> Dataset:
    """
    A faiss index of inner products, `"embedding"` of a data set of positions, in memory.

    Args:
        corpus (`Iterable[torch.Tensor]` of parts of shape `(num_rows, dim)`):
            Normalised embeddings, in parts of any sizes.
        string_factory (`str`):
            The kind of index, for `faiss.index_factory`.

    Raises:
        `ImportError`: if faiss is not installed.
        `ValueError`: if faiss cannot make such an index.
    """
    vectors = torch.cat(list(corpus)).numpy()
    check_faiss_factory(string_factory, vectors.shape[1])
    import faiss

    if sys.platform == "darwin":
        faiss.omp_set_num_threads(1)  # there torch and faiss each bring an LLVM OpenMP, whose threads crash each other
    dataset = Dataset.from_dict({"position": range(len(vectors))})
    try:
        dataset.add_faiss_index_from_external_arrays(
            vectors,
            index_name="embedding",
            string_factory=string_factory,
            metric_type=faiss.METRIC_INNER_PRODUCT,
            train_size=len(vectors),  # faiss draws from them as many as it needs, if any
        )
    except RuntimeError as error:
        raise ValueError(
            f"faiss cannot make the index `--faiss_factory {string_factory}` of {len(vectors)} vectors of dimension "
            f"{vectors.shape[1]}: {error}"
        ) from error
    return dataset


def query_faiss_index(index: Dataset, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Searches in an index of [`build_faiss_index`].

    Returns:
        `(torch.Tensor, torch.Tensor)` of shape `(num_queries, k)`: similarities as the index computes them, the
        highest first, and positions in the corpus; -1 where the index found fewer than `k`.
    """
    similarities, positions = index.search_batch("embedding", queries.cpu().numpy(), k)
    return torch.from_numpy(similarities), torch.from_numpy(positions)


def search_faiss(
    queries: torch.Tensor, corpus: Iterable[torch.Tensor], k: int, string_factory: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Builds an index with [`build_faiss_index`] and searches in it with [`query_faiss_index`]."""
    return query_faiss_index(build_faiss_index(corpus, string_factory), queries, k)


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


def look_up(folder: Path, kind: str, positions: torch.Tensor) -> list[list[dict | None]]:
    """The `id` and `index` of what is at each position among the embeddings of a kind; None at -1."""
    of_kind = pyarrow.dataset.field("kind") == kind
    shards = open_shards(folder).scanner(columns=["id", "index"], filter=of_kind)
    rows = iter(shards.take(pa.array(positions[positions >= 0].numpy())).to_pylist())
    return [[next(rows) if position >= 0 else None for position in found] for found in positions.tolist()]


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
    faiss_factory: str | None = None,
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
        faiss_factory (`str`, *optional*):
            Search with this index of faiss, in the words of its factory, and measure it against exact search.
        max_length (`int`, *optional*):
            Truncate queries at this many tokens. Default: the tokenizer's limit.
        model_name_or_path (`str`, *optional*):
            How messages call the model.

    Returns:
        `dict`: `kind`, `k`, `index` (`"exact"` or `"faiss"`), with faiss `faiss_factory` and `recall_against_exact`,
        and for each of the `queries` whether it was `truncated`, and its `results`: `rank`, `similarity`, and the `id`
        and `index` of what was found. [`format_hits`] shows them.

    Raises:
        `ValueError`: if a query is blank, there are fewer than `k` embeddings of the kind, or they are of another
            model.
        `ImportError`: if faiss is needed and not installed.
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

    def read_corpus() -> Iterable[torch.Tensor]:
        return prefetch(read_embeddings(folder, kind), depth=2)

    results = {"kind": kind, "k": k, "index": "exact"}
    similarities, positions = search(embeds, read_corpus(), k)
    if faiss_factory is not None:
        exact = positions.cpu()
        similarities, positions = search_faiss(embeds, read_corpus(), k, faiss_factory)
        results |= {"index": "faiss", "faiss_factory": faiss_factory}
        results["recall_against_exact"] = recall_at_k(positions, exact)
    results["queries"] = [
        {"query": query, "truncated": is_truncated, "results": list_hits(scores, rows)}
        for query, is_truncated, scores, rows in zip(
            queries, truncated, similarities.tolist(), look_up(folder, kind, positions.cpu())
        )
    ]
    return results


def list_hits(similarities: list[float], rows: list[dict | None]) -> list[dict]:
    """What was found for a query, with ranks from 1; an approximate index may find fewer than it was asked for."""
    found = [(similarity, row) for similarity, row in zip(similarities, rows) if row is not None]
    return [{"rank": rank, "similarity": score, **row} for rank, (score, row) in enumerate(found, start=1)]


def format_hits(results: dict) -> str:
    """The results of [`search_folder`], or others of this form with a `path` for each hit, a line each."""
    lines = []
    if "recall_against_exact" in results:
        lines.append("{faiss_factory}: recall@{k} {recall_against_exact:.3f} against exact search".format(**results))
    for query in results["queries"]:
        lines.append(query["query"] + (" (truncated)" if query["truncated"] else ""))
        if query.get("unknown_words"):
            lines.append(f"      The model does not know: {', '.join(query['unknown_words'])}.")
        for hit in query["results"]:
            found = hit.get("path") or "id {id}   index {index}".format(**hit)
            lines.append("{rank:5} {similarity:8.4f}   ".format(**hit) + found)
    return "\n".join(lines)

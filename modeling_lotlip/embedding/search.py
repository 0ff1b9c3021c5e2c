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
"""
Search over the embeddings that `embed_dataset.py` saved: the nearest images, or captions, of texts.

    python examples/search_embeddings.py --model_name_or_path outputs/demo --embeddings_dir outputs/embeddings \
        --queries "a red boat" "a green car on grass"
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..data.arguments import HelpFormatter
from ..files import write_json
from ..metrics import similarity_blocks
from ..sub_captions import join_sub_captions, split_sub_captions
from .arguments import add_evaluation_arguments
from .batches import embed_corpus, prefetch, tokenize_and_count
from .models import hash_weights, load_model
from .storage import open_shards, read_embeddings


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
        raise ImportError("`--index faiss` needs faiss: `pip install faiss-cpu`, or search with `--index exact`.")
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


def check_model(args: argparse.Namespace, model: PreTrainedModel) -> dict:
    """
    The settings that the embeddings in the folder were made with.

    Raises:
        `ValueError`: if they are of another model.
    """
    path = args.embeddings_dir / "settings.json"
    if not path.exists():
        raise ValueError(f"{path} is missing, which says of which model the embeddings are: embed the data anew.")
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings["weights"] != hash_weights(model):
        raise ValueError(
            f"`--embeddings_dir {args.embeddings_dir}` holds embeddings of other weights than `--model_name_or_path "
            f"{args.model_name_or_path}` has in {args.dtype}: name the model that made them, and its `--dtype "
            f"{settings['dtype']}`, or embed the data anew."
        )
    return settings


def read_queries(args: argparse.Namespace) -> list[str]:
    """The queries of `--queries`, then those of `--queries_file`, whose blank lines are left out."""
    queries = list(args.queries)
    if args.queries_file is not None:
        lines = args.queries_file.read_text(encoding="utf-8").splitlines()
        queries += [line.strip() for line in lines if line.strip()]
    if not queries or not all(query.strip() for query in queries):
        raise ValueError("There is no query, or a blank one: name texts with `--queries` or `--queries_file`.")
    return queries


def look_up(folder: Path, kind: str, positions: torch.Tensor) -> list[list[dict | None]]:
    """The `id` and `index` of what is at each position among the embeddings of a kind; None at -1."""
    of_kind = pyarrow.dataset.field("kind") == kind
    shards = open_shards(folder).scanner(columns=["id", "index"], filter=of_kind)
    rows = iter(shards.take(pa.array(positions[positions >= 0].numpy())).to_pylist())
    return [[next(rows) if position >= 0 else None for position in found] for found in positions.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser)
    parser.add_argument("--embeddings_dir", type=Path, required=True, help="The folder that embed_dataset.py made.")
    parser.add_argument("--queries", nargs="+", default=[], help="Texts to search with.")
    parser.add_argument("--queries_file", type=Path, help="A file of more of them, one in a line.")
    parser.add_argument("--kind", default="image", choices=["image", "short", "long"], help="What to search for.")
    parser.add_argument("--k", type=int, default=5, help="How many results for each query.")
    parser.add_argument("--index", default="exact", choices=["exact", "faiss"], help="How to search.")
    parser.add_argument("--faiss_factory", default="HNSW32", help="The faiss index, in the words of its factory.")
    args = parser.parse_args()

    queries = read_queries(args)
    num_rows = open_shards(args.embeddings_dir).count_rows(filter=pyarrow.dataset.field("kind") == args.kind)
    if num_rows == 0:
        raise ValueError(
            f"`--embeddings_dir {args.embeddings_dir}` holds no embeddings of `--kind {args.kind}`: search for "
            "another kind, or embed the data with it."
        )
    if not 1 <= args.k <= num_rows:
        raise ValueError(
            f"`--k {args.k}` must be from 1 to {num_rows}, the embeddings of `--kind {args.kind}` in "
            f"`--embeddings_dir {args.embeddings_dir}`."
        )
    model, processor = load_model(args.model_name_or_path, args)
    splitter = check_model(args, model).get("sub_caption_splitter", "paper")
    # texts of several sentences as `embed_dataset.py` embeds long captions
    sub_captions = [split_sub_captions(query, splitter) for query in queries]
    texts = [join_sub_captions(parts) if len(parts) > 1 else query for query, parts in zip(queries, sub_captions)]
    truncated = tokenize_and_count(processor, texts, args.max_length)[1]
    embeds = embed_corpus(model, processor, texts, max_length=args.max_length).to(model.device)

    def corpus() -> Iterable[torch.Tensor]:
        return prefetch(read_embeddings(args.embeddings_dir, args.kind), depth=2)

    similarities, positions = search(embeds, corpus(), args.k)
    results = {"kind": args.kind, "index": args.index}
    if args.index == "faiss":
        exact = positions.cpu()
        similarities, positions = search_faiss(embeds, corpus(), args.k, args.faiss_factory)
        results |= {"faiss_factory": args.faiss_factory, "recall_against_exact": recall_at_k(positions, exact)}
        print(f"{args.faiss_factory}: recall@{args.k} {results['recall_against_exact']:.3f} against exact search")

    results["queries"] = []
    rows = look_up(args.embeddings_dir, args.kind, positions.cpu())
    for query, is_truncated, scores, found in zip(queries, truncated, similarities.tolist(), rows):
        hits = [
            {"rank": rank, "similarity": score, **row}
            for rank, (score, row) in enumerate(zip(scores, found), start=1)
            if row is not None
        ]
        results["queries"].append({"query": query, "truncated": is_truncated, "results": hits})
        print(query + (" (truncated)" if is_truncated else ""))
        for hit in hits:
            print("{rank:5} {similarity:8.4f}   id {id}   index {index}".format(**hit))
    if args.output_file is not None:
        write_json(args.output_file, results)


if __name__ == "__main__":
    main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Whether a search of pictures finds more if it also looks for the words of the query in captions that are stored beside
them.

    python examples/paper/captions.py --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM \
        --data_dirs LAMPS FLAGS

Each data directory is an `imagefolder` with a short and a long caption for each picture, of which the split `train` is
trained on and all others are searched. Both towers are frozen, and a small network between them is trained with
several seeds. A query is a text that was written of a picture, but not the one that is stored beside it:

- other half: half of the sentences of the long caption, drawn at random, are stored, and the others are the query.
- long, short stored: the long caption without the sentence that holds the short one is the query.
- short, long stored: the other way round.

"words" ranks by BM25 of LanceDB's full-text index alone. It is joined to the similarity by reciprocal rank fusion, or
by a sum of both, standardised over the pictures, the words with a weight. MRR is the mean reciprocal rank of the right
picture, in per cent; its gain over the similarity is with the interval of a paired bootstrap over the queries.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import lancedb
import pyarrow as pa
import torch
from lancedb.index import FTS
from lancedb.query import MatchQuery
from torch.nn.functional import normalize

from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import (
    Captioned,
    ImageTower,
    TowerArguments,
    bootstrap,
    crop,
    embed_texts,
    join_sentences,
    rank,
    read_captioned,
    train_head,
)
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results


# The constant of reciprocal rank fusion (Cormack et al., 2009), and what words weigh in a sum
FUSION, WEIGHTS = 60, (1.0, 0.5, 0.25)
# So many letters of a short caption are looked for in the sentences of the long one
NUM_LETTERS = 25


@dataclass
class CaptionsArguments(Arguments):
    """What is searched."""

    data_dirs: list[str] = argument(help="Folders of captioned pictures.")


class Pair(NamedTuple):
    """What is stored beside a picture, and the query by which it is to be found."""

    picture: int
    stored: str
    query: str


def make_pairs(pictures: list[Captioned]) -> dict[str, list[Pair]]:
    """
    For each kind of query the pairs, of all pictures that have enough sentences.

    Example:

    ```python
    >>> from PIL import Image
    >>> from examples.paper.captions import make_pairs
    >>> from modeling_lotlip.benchmarking.frozen_towers import Captioned

    >>> lamp = Captioned(Image.new("RGB", (8, 8)), "A lion.", ["Red clay", "A lion on a rock"])
    >>> make_pairs([lamp])["long, short stored"]
    [Pair(picture=0, stored='A lion.', query='Red clay.')]
    ```"""
    generator = random.Random(0)
    pairs = {"other half": [], "long, short stored": [], "short, long stored": []}
    for number, picture in enumerate(pictures):
        is_stored = set(generator.sample(range(len(picture.sentences)), len(picture.sentences) // 2))
        halves = [], []
        for place, sentence in enumerate(picture.sentences):
            halves[place not in is_stored].append(sentence)
        if all(halves):
            pairs["other half"].append(Pair(number, *map(join_sentences, halves)))
        start = picture.short.rstrip(".")[:NUM_LETTERS]
        others = [sentence for sentence in picture.sentences if start not in sentence]
        if others:
            long = join_sentences(others)
            pairs["long, short stored"].append(Pair(number, picture.short, long))
            pairs["short, long stored"].append(Pair(number, long, picture.short))
    return pairs


def score_words(stored: list[str], queries: list[str]) -> torch.Tensor:
    """
    BM25 of each query and each stored text (queries, stored); 0 where they have no word in common.

    Example:

    ```python
    >>> from examples.paper.captions import score_words

    >>> score_words(["a red boat", "a house by the sea"], ["boats", "nothing"]).gt(0)
    tensor([[ True, False],
            [False, False]])
    ```"""
    rows = pa.table({"number": list(range(len(stored))), "caption": stored})
    table = lancedb.connect("memory://").create_table("captions", rows)
    table.create_index("caption", config=FTS())
    scores = torch.zeros(len(queries), len(stored))
    for row, query in enumerate(queries):
        found = table.search(MatchQuery(query, "caption"), query_type="fts").limit(len(stored)).to_arrow()
        scores[row, found["number"].to_pylist()] = torch.tensor(found["_score"].to_pylist())
    return scores


def standardise(scores: torch.Tensor) -> torch.Tensor:
    """Over the pictures; all 0 where all are equal."""
    return (scores - scores.mean(dim=-1, keepdim=True)) / scores.std(dim=-1, keepdim=True).clamp(min=1e-6)


def reciprocal_rank(scores: torch.Tensor) -> torch.Tensor:
    """What each picture contributes to reciprocal rank fusion; nothing where there is no score."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    ranks = order.argsort(dim=-1) + 1
    return torch.where(scores == 0, 0, 1 / (FUSION + ranks))


def join_scores(similarities: torch.Tensor, words: torch.Tensor) -> dict[str, torch.Tensor]:
    """By name the scores of each way to search (seeds, queries, pictures)."""
    words = words.expand_as(similarities)
    joined = {"similarity": similarities, "words": words}
    joined["rank fusion"] = reciprocal_rank(similarities) + reciprocal_rank(words)
    for weight in WEIGHTS:
        joined[f"sum, words x {weight:g}"] = standardise(similarities) + weight * standardise(words)
    return joined


def compare(title: str, kind: str, similarities: torch.Tensor, words: torch.Tensor) -> list[dict]:
    """A row for each way to search."""
    rows, first = [], None
    for name, scores in join_scores(similarities, words).items():
        ranks = rank(scores)
        reciprocal = (1 / ranks).mean(dim=0)
        first = reciprocal if first is None else first
        gains = 100 * (reciprocal - first)
        row = {"pictures": title, "query": kind, "num_pictures": len(words), "search": name}
        row |= {f"recall@{k}": 100 * (ranks <= k).float().mean().item() for k in (1, 10)}
        row |= {"mrr": 100 * reciprocal.mean().item(), "gain": gains.mean().item(), "interval": bootstrap(gains)}
        rows.append(row)
    return rows


def format_table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    cells = []
    for row in rows:
        gain = (
            ""
            if row["search"] == "similarity"
            else "{:+.1f} ({:+.1f} to {:+.1f})".format(row["gain"], *row["interval"])
        )
        numbers = [f"{row[name]:.1f}" for name in ("recall@1", "recall@10", "mrr")]
        cells.append([row["pictures"], row["query"], row["search"], *numbers, gain])
    return format_markdown(["pictures", "query", "search by", "R@1", "R@10", "MRR", "gain in MRR"], cells)


def main() -> None:
    searched, args, output = parse((CaptionsArguments, TowerArguments, OutputArguments), description=__doc__)
    folders = {Path(data_dir).name: read_captioned(data_dir) for data_dir in searched.data_dirs}
    trained = [picture for of_folder, _ in folders.values() for picture in of_folder]
    pairs = {title: make_pairs(pictures) for title, (_, pictures) in folders.items()}
    queries = sorted({pair.query for kinds in pairs.values() for kind in kinds.values() for pair in kind})
    tower, generator = ImageTower(args), random.Random(0)

    def embed(pictures: list[Captioned]) -> torch.Tensor:
        return tower.embed([crop(picture.picture, args.image_size) for picture in pictures])

    images = embed(trained)
    mean = images.mean(dim=0)
    kinds = [[picture.short for picture in trained], [join_sentences(picture.sentences) for picture in trained]]
    kinds += [[generator.choice(picture.sentences) for picture in trained] for _ in range(2)]
    features = embed_texts(args, [text for kind in kinds for text in kind] + queries)
    of_texts, of_queries = features.split([len(kinds) * len(trained), len(queries)])
    images = normalize(images - mean, dim=-1)
    of_texts = of_texts.reshape(len(kinds), len(trained), -1)
    heads = [train_head(of_texts, images, args.steps, seed) for seed in range(args.seeds)]
    with torch.inference_mode():
        embeds = torch.stack([normalize(head(of_queries), dim=-1) for head in heads])
    places = {query: place for place, query in enumerate(queries)}
    rows = []
    for title, (_, pictures) in folders.items():
        found = normalize(embed(pictures) - mean, dim=-1)
        for kind, of_kind in pairs[title].items():
            own = found[[pair.picture for pair in of_kind]]
            similarities = embeds[:, [places[pair.query] for pair in of_kind]] @ own.T
            words = score_words([pair.stored for pair in of_kind], [pair.query for pair in of_kind])
            rows += compare(title, kind, similarities, words)
    table = format_table(rows)
    print(table)
    if output.output_file is not None:
        write_results(output.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    with exit_on_error("captions.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Three ways to search: by one embedding of a picture, by those of all its tokens, and by all tokens of what the first
finds first; and how many tokens of a picture are needed.

    python examples/paper/token_search.py --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM \
        --data_dirs LAMPS

Two networks are trained between the same frozen towers, on the same pictures and texts: one for the mean of the tokens
of a text, one for each token. All data sets are one collection. Tokens are merged as the mean of patches that lie side
by side, or of patches that are alike (hierarchical clustering; needs sentence-transformers from version 6 on). Times
and sizes are those of indices with random vectors.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from lancedb.expr import col
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import (
    Captioned,
    ImageTower,
    TowerArguments,
    bootstrap,
    crop,
    embed_text_tokens,
    join_sentences,
    rank,
    read_captioned,
    train_head,
)
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results
from modeling_lotlip.modeling_token_wise_lotlip import token_similarities
from modeling_lotlip.search.index import Index, to_vectors
from modeling_lotlip.terminal import progress_bar


KINDS = ("short", "long")
# Of a text so many tokens are trained on, the first ones
NUM_TRAINED = 96
SINGLE, TOKENS, BOTH = "one embedding", "all tokens", "one embedding, then the tokens of the first {}"


@dataclass
class TokenSearchArguments(TowerArguments, OutputArguments):
    """What is trained and searched."""

    data_dirs: list[Path] = argument([], "Folders of imagefolder data sets with captions and long_captions.")
    train_scenes: int = argument(512, "Drawn scenes to train on.", least=2)
    eval_scenes: int = argument(512, "Drawn scenes to search.", least=2)
    width: int = argument(128, "Of the embeddings of tokens.", least=2)
    token_batch_size: int = argument(64, "Pictures in a step of the training that compares tokens.", least=2)
    num_first: list[int] = argument([20, 100], "How many of the first results are compared by tokens.")
    num_timed: int = argument(2_000, "Pictures in the indices that are timed.", least=10)
    num_text_tokens: int = argument(80, "Tokens of a text that is timed.", least=1)


class Features(NamedTuple):
    """
    What the frozen towers give.

    Args:
        names (`list[str]`):
            The data set of each picture.
        images (`torch.Tensor` of shape `(num_pictures, num_tokens, dim)`):
            All tokens of the pictures, the class token first.
        texts (`dict[str, list[torch.Tensor]]`):
            By kind the tokens (length, dim) of the text of each picture.
    """

    names: list[str]
    images: torch.Tensor
    texts: dict[str, list[torch.Tensor]]


def read_data(args: TokenSearchArguments) -> list[list[tuple[str, Captioned]]]:
    """Pictures to train on and to search, each with the name of its data set."""
    parts = []
    for series, num in ((0, args.train_scenes), (7, args.eval_scenes)):
        scenes = [make_scene(series, number) for number in range(num)]
        parts.append([("scenes", Captioned(s.draw(), s.caption, [s.caption, *s.sub_captions])) for s in scenes])
    for folder in args.data_dirs:
        for part, rows in zip(parts, read_captioned(str(folder))):
            part += [(folder.name, row) for row in rows]
    return parts


def embed(args: TokenSearchArguments, tower: ImageTower, rows: list[tuple[str, Captioned]]) -> Features:
    """The features of some pictures."""
    images = tower.compute([crop(row.picture, args.image_size) for _, row in rows], lambda states: states)
    texts = {"short": [row.short for _, row in rows], "long": [join_sentences(row.sentences) for _, row in rows]}
    return Features(
        [name for name, _ in rows],
        torch.stack(images),
        {kind: embed_text_tokens(args, own) for kind, own in texts.items()},
    )


def pool(images: torch.Tensor) -> torch.Tensor:
    """One feature of each picture, from all its tokens: the class token and the mean of the others."""
    return torch.cat((images[:, 0], images[:, 1:].mean(dim=1)), dim=1)


def mean_tokens(texts: list[torch.Tensor]) -> torch.Tensor:
    """One feature of each text."""
    return normalize(torch.stack([tokens.mean(dim=0) for tokens in texts]), dim=-1)


class TokenHeads(nn.Module):
    """Tokens of frozen towers to normalised embeddings that are compared with each other."""

    def __init__(self, text_dim: int, image_dim: int, width: int):
        super().__init__()
        hidden = nn.Sequential(nn.Dropout(0.2), nn.Linear(text_dim, 512), nn.GELU(), nn.Dropout(0.2))
        self.text, self.image = hidden.append(nn.Linear(512, width)), nn.Linear(image_dim, width, bias=False)
        self.scale = nn.Parameter(torch.tensor(20.0).log())

    def embed_texts(self, texts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (texts, length, width), and which are no padding."""
        tokens = pad_sequence(texts, batch_first=True)
        is_token = torch.arange(tokens.shape[1]) < torch.tensor([len(text) for text in texts])[:, None]
        return normalize(self.text(tokens), dim=-1), is_token

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (images, num_tokens, width)."""
        return normalize(self.image(images), dim=-1)


def train_token_heads(features: Features, args: TokenSearchArguments, seed: int) -> TokenHeads:
    """Trains by the contrastive loss of FILIP; of the texts of a picture one is drawn in each step."""
    torch.manual_seed(seed)
    heads = TokenHeads(features.texts["long"][0].shape[1], features.images.shape[2], args.width)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3, weight_decay=0.1)
    num = min(args.token_batch_size, len(features.images))
    for _ in progress_bar(range(args.steps), desc=f"Tokens, seed {seed}", leave=False):
        rows = torch.randperm(len(features.images))[:num]
        kinds = torch.randint(len(KINDS), (num,)).tolist()
        texts = [features.texts[KINDS[kind]][row][:NUM_TRAINED] for kind, row in zip(kinds, rows.tolist())]
        embeds, is_token = heads.embed_texts(texts)
        both = token_similarities(heads.embed_images(features.images[rows]), embeds, is_token)
        to_text, to_image = (heads.scale.exp() * similarities for similarities in both)
        labels = torch.arange(num)
        loss = cross_entropy(to_text, labels) + cross_entropy(to_image.T, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heads.eval()


@torch.inference_mode()
def compare_tokens(images: torch.Tensor, texts: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    """Similarities (texts, images) by tokens, a few texts at a time."""
    parts = zip(texts.split(4), is_token.split(4))
    return torch.cat([token_similarities(images, some, mask)[1].T for some, mask in parts])


def rerank(single: torch.Tensor, tokens: torch.Tensor, num_first: int) -> torch.Tensor:
    """
    Scores that put the first results of one way in the order of another one, before all others.

    Args:
        single, tokens (`torch.Tensor` of shape `(num_texts, num_images)`):
            Cosine similarities, by which the first are found, and put in order.
        num_first (`int`):
            How many.

    ```python
    >>> import torch
    >>> from examples.paper.token_search import rerank

    >>> single, tokens = torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0.1, 0.2, 0.9]])
    >>> rerank(single, tokens, 2).argsort(descending=True)
    tensor([[1, 0, 2]])
    ```"""
    first = single.topk(min(num_first, single.shape[1]), dim=1).indices
    return single.scatter(1, first, tokens.gather(1, first) + 2)  # above any cosine


def merge_neighbours(images: torch.Tensor, num: int) -> torch.Tensor:
    """The class token and so many means of patches that lie side by side, normalised: (images, 1 + num, width)."""
    side = round((images.shape[1] - 1) ** 0.5)
    patches = images[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    rows = 2 ** (num.bit_length() // 2)
    merged = adaptive_avg_pool2d(patches, (rows, num // rows)).flatten(2).transpose(1, 2)
    return normalize(torch.cat((images[:, :1], merged), dim=1), dim=-1)


def merge_alike(images: torch.Tensor, num: int) -> torch.Tensor:
    """The class token and so many means of patches that are alike, normalised: (images, 1 + num, width)."""
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    pooling = HierarchicalTokenPooling((images.shape[1] - 1) / num)
    return torch.stack(pooling.pool(list(images)))


MERGES: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {"neighbours": merge_neighbours}
if importlib.util.find_spec("sentence_transformers") is not None:
    MERGES["alike"] = merge_alike


def search_all_ways(args: TokenSearchArguments, train: Features, searched: Features, seed: int) -> dict[tuple, dict]:
    """By the way and the tokens kept of a picture, and by kind of text, the similarities (texts, images)."""
    mean = pool(train.images).mean(dim=0)
    trained, all_images = (normalize(pool(own.images) - mean, dim=-1) for own in (train, searched))
    texts = torch.stack([mean_tokens(train.texts[kind]) for kind in KINDS])
    head = train_head(texts, trained, args.steps, seed)
    heads = train_token_heads(train, args, seed)
    found = {}
    with torch.inference_mode():
        tokens = heads.embed_images(searched.images)
        num_patches = tokens.shape[1] - 1
        budgets = [num for num in (32, 16, 8, 4, 1) if num < num_patches]
        merged = {(name, num): merge(tokens, num) for name, merge in MERGES.items() for num in budgets}
        for kind in KINDS:
            single = normalize(head(mean_tokens(searched.texts[kind])), dim=-1) @ all_images.T
            texts = heads.embed_texts(searched.texts[kind])
            by_tokens = compare_tokens(tokens, *texts)
            ways = {(SINGLE, None): single, (TOKENS, 1 + num_patches): by_tokens}
            for num in args.num_first:
                ways[BOTH.format(num), 1 + num_patches] = rerank(single, by_tokens, num)
            for (name, num), kept in merged.items():
                ways[f"merged, {name}", 1 + num] = compare_tokens(kept, *texts)
            for way, similarities in ways.items():
                found.setdefault(way, {})[kind] = similarities
    return found


def list_rows(ranks: dict[tuple, dict[str, torch.Tensor]], names: list[str]) -> list[dict]:
    """
    A row for each data set, kind of text and way, from the ranks (seeds, texts). The gain is in the mean reciprocal
    rank, over one embedding, with the interval of a bootstrap over the texts.
    """
    rows = []
    for name in dict.fromkeys(names):
        own = torch.tensor([each == name for each in names])
        for kind in KINDS:
            base = (1 / ranks[SINGLE, None][kind][:, own]).mean(dim=0)
            for (way, num_tokens), of_kind in ranks.items():
                places = of_kind[kind][:, own]
                reciprocal = (1 / places).mean(dim=0)
                row = {"pictures": name, "texts": kind, "way": way, "tokens": num_tokens}
                row |= {f"R@{k}": 100 * (places <= k).double().mean().item() for k in (1, 10)}
                gains = 100 * (reciprocal - base)
                low, high = bootstrap(gains)
                row |= {"MRR": 100 * reciprocal.mean().item(), "gain": gains.mean().item(), "from": low, "to": high}
                rows.append(row)
    return rows


def draw(num: int, *shape: int) -> torch.Tensor:
    """Random normalised vectors."""
    return normalize(torch.randn(num, *shape), dim=-1)


def fill(folder: Path, num: int, num_tokens: int | None, width: int) -> Index:
    """An index of random vectors, one or several of each picture."""
    index = Index.make(folder, width, {}, of_tokens=num_tokens is not None)
    for start in range(0, num, 100):
        shape = (min(100, num - start), width) if num_tokens is None else (min(100, num - start), num_tokens, width)
        index.write([{"name": f"{start + row:07}", "embedding": x} for row, x in enumerate(draw(*shape))])
    index.tidy()
    return index


def search_first(single: Index, tokens: Index, query: torch.Tensor, text: torch.Tensor, num: int) -> list[str]:
    """The ten first by tokens of the first by one embedding."""
    names = single.search(query, num).names
    rows = tokens.table.search().where(col("name").isin(names)).select(["name", "embedding"]).to_arrow()
    is_token = torch.ones(1, len(text), dtype=torch.bool)
    similarities = token_similarities(to_vectors(rows["embedding"]), text[None], is_token)[1][:, 0]
    return [rows["name"][place].as_py() for place in similarities.topk(min(10, num)).indices.tolist()]


def time_ways(args: TokenSearchArguments, num_tokens: int, width: int) -> list[dict]:
    """A row for each way: the median milliseconds of a search, and the MB that its embeddings take on disk."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        single = fill(Path(folder) / "single", args.num_timed, None, width)
        tokens = fill(Path(folder) / "tokens", args.num_timed, num_tokens, args.width)
        queries, texts = draw(5, width), draw(5, args.num_text_tokens, args.width)
        ways = {SINGLE: lambda query, text: single.search(query, 10)}
        for num in args.num_first:
            ways[BOTH.format(num)] = lambda query, text, num=num: search_first(single, tokens, query, text, num)
        ways[TOKENS] = lambda query, text: tokens.search(text, 10)
        sizes = [2 * args.num_timed * values / 2**20 for values in (width, num_tokens * args.width)]  # in float16
        rows = []
        for name, search in ways.items():
            search(queries[0], texts[0])
            seconds = []
            for query, text in zip(queries, texts):
                begin = time.perf_counter()
                search(query, text)
                seconds.append(time.perf_counter() - begin)
            size = {SINGLE: sizes[0], TOKENS: sizes[1]}.get(name, sum(sizes))
            rows.append({"way": name, "ms": 1000 * statistics.median(seconds), "MB": size})
    return rows


def format_rows(rows: list[dict]) -> str:
    """The quality of each way, in per cent."""
    titles = ["pictures", "texts", "way", "tokens", "R@1", "R@10", "MRR", "gain in MRR"]
    cells = []
    for row in rows:
        numbers = [f"{row[name]:.1f}" for name in ("R@1", "R@10", "MRR")]
        gain = "" if row["way"] == SINGLE else f"{row['gain']:+.1f} ({row['from']:+.1f} to {row['to']:+.1f})"
        cells.append([row["pictures"], row["texts"], row["way"], str(row["tokens"] or ""), *numbers, gain])
    return format_markdown(titles, cells)


def format_times(times: list[dict]) -> str:
    """The time and the size of each way."""
    cells = [[row["way"], f"{row['ms']:.0f}", f"{row['MB']:.0f}"] for row in times]
    return format_markdown(["way", "ms", "MB on disk"], cells)


def main() -> None:
    (args,) = parse((TokenSearchArguments,), description=__doc__)
    tower = ImageTower(args)
    train, searched = (embed(args, tower, rows) for rows in read_data(args))
    ranks = {}
    for seed in range(args.seeds):
        for way, of_kind in search_all_ways(args, train, searched, seed).items():
            for kind, similarities in of_kind.items():
                ranks.setdefault(way, {}).setdefault(kind, []).append(rank(similarities))
    ranks = {way: {kind: torch.stack(places) for kind, places in of_kind.items()} for way, of_kind in ranks.items()}
    rows = list_rows(ranks, searched.names)
    times = time_ways(args, searched.images.shape[1], 2 * searched.images.shape[2])
    about = f"{args.num_timed:,} pictures of {searched.images.shape[1]} tokens, texts of {args.num_text_tokens}"
    page = f"{format_rows(rows)}\n\n{about}:\n\n{format_times(times)}"
    print(page)
    if args.output_file is not None:
        write_results(args.output_file, {"rows": rows, "times": times}, page, rows)


if __name__ == "__main__":
    with exit_on_error("token_search.py"):
        main()

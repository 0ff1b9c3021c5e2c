# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Whether a search could tick the sentences of a description that are true of a picture it has found.

    python examples/paper/sentences.py --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM \
        --data_dirs LAMPS FLAGS

Each data directory is an `imagefolder` with long captions, of which the split `train` is trained on and all others are
searched; drawn scenes are added. Both towers are frozen, and a small network between them is trained with several
seeds. Each collection is searched by itself, and all of them together.

A sentence gets a tick where its judgement says at least 0.9: the share of other pictures, or texts, that score lower.
Two things are counted:

- exchanged: in the description of a picture half of the sentences, drawn at random, are exchanged for sentences of
  other pictures of its kind, and all are judged for that picture. AUC is how often a true sentence is judged higher
  than a false one. Its gain over the judgement by the whole collection is with the interval of a bootstrap over the
  pictures.
- first 8: the sentences of the whole description are judged for the first eight results.

Of a scene it is known which sentences are true. Of another picture those of its own description count as true, so that
some ticks that count as wrong may be right.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import (
    ImageTower,
    Picture,
    TowerArguments,
    crop,
    embed_texts,
    join_sentences,
    read_captioned,
    train_head,
)
from modeling_lotlip.data.scenes import (
    COUNT_TEMPLATES,
    FRAME_TEMPLATES,
    FRAMES,
    GROUND_TEMPLATES,
    GROUNDS,
    LIGHT_TEMPLATES,
    LIGHTS,
    NUMBERS,
    Scene,
    make_scene,
)
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results


# From this share of lower scores on a sentence gets a tick
TICK = 0.9
# How many pictures are near, how many results are judged, and how many sentences of captions others are compared with
NUM_NEAR, NUM_RESULTS, NUM_OTHERS = 32, 8, 500
# Sentences of an image that are trained on, beside its captions
NUM_TRAINED = 4
# The judgement that the others are compared with
FIRST = "whole collection"
NEGATION = "It is not true that {}."

# What a sentence says: of which kind it is, and the value
STATEMENTS = {
    template.format(**{kind: value}): (kind, value)
    for kind, templates, values in (
        ("ground", GROUND_TEMPLATES, GROUNDS),
        ("light", LIGHT_TEMPLATES, LIGHTS),
        ("frame", FRAME_TEMPLATES, FRAMES),
        ("count", COUNT_TEMPLATES, NUMBERS.values()),
    )
    for template in templates
    for value in values
}


@dataclass
class SentencesArguments(TowerArguments):
    """What is searched."""

    data_dirs: list[str] = argument([], "Folders of captioned pictures.")
    scenes: int = argument(256, "Drawn scenes to train on.", least=8)
    searched_scenes: int = argument(64, "Drawn scenes to search.", least=8)
    draws: int = argument(500, "Draws of the bootstrap.", least=10)


class Described(NamedTuple):
    """A picture, its description, and the scene that it shows if it is a drawn one."""

    picture: Picture
    short: str
    sentences: list[str]
    kind: str
    scene: Scene | None = None


def is_true_of_scene(sentence: str, scene: Scene) -> tuple[str, bool]:
    """
    The kind of a sub-caption of any scene, and whether it is true of this one.

    ```python
    >>> from modeling_lotlip.data.scenes import make_scene
    >>> from examples.paper.sentences import is_true_of_scene

    >>> scene = make_scene(seed=0, index=0)
    >>> [is_true_of_scene(sentence, scene)[1] for sentence in scene.sub_captions] == [True] * len(scene.sub_captions)
    True
    ```"""
    if sentence not in STATEMENTS:
        words = set(sentence.split())
        return "thing", any({thing.size, thing.colour, thing.kind, thing.place} <= words for thing in scene.others)
    kind, value = STATEMENTS[sentence]
    own = NUMBERS[len(scene.others)] if kind == "count" else getattr(scene, kind)
    return kind, own == value


def is_true(sentence: str, described: Described) -> bool:
    """Whether a sentence is true of a picture, as far as is known: see above."""
    if described.scene is not None:
        return is_true_of_scene(sentence, described.scene)[1]
    return sentence in described.sentences


def draw_scenes(series: int, number: int) -> list[Described]:
    """So many scenes of a series."""
    scenes = [make_scene(series, index) for index in range(number)]
    return [Described(scene.draw(), scene.caption, list(scene.sub_captions), "scenes", scene) for scene in scenes]


def exchange(described: Described, others: list[Described], generator: random.Random) -> tuple[list[str], list[bool]]:
    """The sentences of a picture, half of them exchanged for those of other pictures, and which of them are true."""
    false = [
        sentence for other in others for sentence in other.sentences if sentence and not is_true(sentence, described)
    ]
    truths = [generator.random() < 0.5 for _ in described.sentences]
    drawn = iter(generator.sample(sorted(set(false)), len(truths)))
    return [own if truth else next(drawn) for own, truth in zip(described.sentences, truths)], truths


def lower_share(scores: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """
    The share of other scores that are lower.

    Args:
        scores (`torch.Tensor` of shape `(num_pictures, num_sentences)`):
            Those that are judged.
        others (`torch.Tensor` of shape `(num_others, num_pictures or 1, num_sentences)`):
            Those that they are compared with.

    Example:

    ```python
    >>> import torch
    >>> from examples.paper.sentences import lower_share

    >>> lower_share(torch.tensor([[0.4], [0.2]]), torch.tensor([[[0.1]], [[0.3]]]))
    tensor([[1.0000],
            [0.5000]])
    ```"""
    return (others < scores - 1e-6).float().mean(dim=0)


def area_under_curve(scores: torch.Tensor, truths: torch.Tensor) -> float:
    """
    How often a true one has a higher score than a false one, in per cent; equals count half.

    Example:

    ```python
    >>> import torch
    >>> from examples.paper.sentences import area_under_curve

    >>> area_under_curve(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False]))
    87.5
    ```"""
    false = scores[~truths].sort().values
    lower, not_higher = (torch.searchsorted(false, scores[truths], right=right) for right in (False, True))
    return 50 * (lower + not_higher).double().mean().item() / len(false)


class Judge:
    """
    The judgements of sentences in a collection by one trained network.

    Args:
        embed (`Callable[[list[str]], torch.Tensor]`):
            Texts to embeddings (texts, dim), normalised.
        images (`torch.Tensor` of shape `(num_pictures, dim)`):
            The pictures of the collection.
        others (`list[str]`):
            Sentences of other captions.
    """

    def __init__(self, embed: Callable[[list[str]], torch.Tensor], images: torch.Tensor, others: list[str]):
        self.embed, self.images = embed, images
        scores = images @ embed(others).T
        self.other_scores = (scores - scores.mean(dim=0)) / scores.std(dim=0)
        similarities = images @ images.T
        similarities.fill_diagonal_(-torch.inf)
        self.near = similarities.topk(min(NUM_NEAR, len(images) - 1), dim=1).indices

    def find(self, sentences: list[str]) -> list[int]:
        """The first results for a description."""
        (text,) = self.embed([join_sentences(sentences)])
        return (self.images @ text).topk(min(NUM_RESULTS, len(self.images))).indices.tolist()

    def judge(self, sentences: list[str], pictures: list[int]) -> dict[str, torch.Tensor]:
        """By the name of a judgement what it says of some pictures and each sentence (pictures, sentences)."""
        alone = self.embed(sentences)
        rests = self.embed(
            [join_sentences(sentences[:place] + sentences[place + 1 :]) for place in range(len(sentences))]
        )
        lost = self.embed([join_sentences(sentences)]) - rests
        against = alone - self.embed([NEGATION.format(sentence) for sentence in sentences])
        scores, lost, against = (self.images @ directions.T for directions in (alone, lost, against))
        own, collection = scores[pictures], scores[:, None]
        standardised = (scores - scores.mean(dim=0)) / scores.std(dim=0)
        first = (self.images @ rests.T).topk(min(NUM_NEAR, len(self.images)), dim=0).indices
        judged = {
            FIRST: lower_share(own, collection),
            "whole collection, left out": lower_share(lost[pictures], lost[:, None]),
            "whole collection, less the negation": lower_share(against[pictures], against[:, None]),
            "near pictures": lower_share(own, scores[self.near[pictures]].transpose(0, 1)),
            "first results of the rest": lower_share(own, scores.gather(0, first)[:, None]),
            "other sentences": lower_share(
                standardised[pictures], self.other_scores[pictures].T[:, :, None].expand(-1, -1, len(sentences))
            ),
        }
        judged["collection and near pictures"] = torch.minimum(judged[FIRST], judged["near pictures"])
        return judged | {"similarity": own}


def count_ticks(judged: torch.Tensor, truths: torch.Tensor) -> dict[str, float]:
    """
    In per cent how many sentences get a tick, and how many ticks are right (None without any).

    Example:

    ```python
    >>> import torch
    >>> from examples.paper.sentences import count_ticks

    >>> count_ticks(torch.tensor([0.95, 0.92, 0.5, 0.1]), torch.tensor([True, False, True, False]))
    {'ticked': 50.0, 'right': 50.0}
    ```"""
    ticked = judged >= TICK
    right = 100 * truths[ticked].double().mean().item() if ticked.any() else None
    return {"ticked": 100 * ticked.double().mean().item(), "right": right}


def measure(
    title: str,
    collection: list[Described],
    exchanged: list[tuple[list[str], list[bool]]],
    judges: list[Judge],
    draws: int,
) -> list[dict]:
    """A row for each judgement."""
    pairs = {"exchanged": [], "found": []}  # of each judge, of each picture: the judgements, and the truths
    for judge in judges:
        of_exchanged, of_found = [], []
        for number, described in enumerate(collection):
            sentences, truths = exchanged[number]
            if len(sentences) < 2:
                continue
            of_exchanged.append((judge.judge(sentences, [number]), torch.tensor([truths])))
            results = judge.find(described.sentences)
            true = [[is_true(sentence, collection[result]) for sentence in described.sentences] for result in results]
            of_found.append((judge.judge(described.sentences, results), torch.tensor(true)))
        pairs["exchanged"].append(of_exchanged)
        pairs["found"].append(of_found)
    num_pictures = len(pairs["exchanged"][0])
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(num_pictures, (draws, num_pictures), generator=generator).tolist()

    def mean_area(name: str, pictures: list[int]) -> float:
        areas = []
        for of_judge in pairs["exchanged"]:
            judged = torch.cat([of_judge[picture][0][name].flatten() for picture in pictures])
            areas.append(area_under_curve(judged, torch.cat([of_judge[picture][1].flatten() for picture in pictures])))
        return sum(areas) / len(areas)

    rows, firsts = [], [mean_area(FIRST, sample) for sample in samples]
    for name in pairs["exchanged"][0][0][0]:
        row = {"collection": title, "judgement": name, "auc": mean_area(name, list(range(num_pictures)))}
        gains = torch.tensor([mean_area(name, sample) for sample in samples]) - torch.tensor(firsts)
        row["gain"] = row["auc"] - (rows[0]["auc"] if rows else row["auc"])
        row["interval"] = torch.quantile(gains, torch.tensor([0.025, 0.975])).tolist()
        for kind, of_judges in pairs.items():
            of_all = [pair for of_judge in of_judges for pair in of_judge]
            judged, truths = (
                torch.cat(parts) for parts in zip(*((found[name].flatten(), true.flatten()) for found, true in of_all))
            )
            row[f"{kind}_true"] = 100 * truths.double().mean().item()
            ticks = {"ticked": None, "right": None} if name == "similarity" else count_ticks(judged, truths)
            row |= {f"{kind}_{key}": value for key, value in ticks.items()}
        rows.append(row)
    return rows


def format_table(rows: list[dict]) -> str:
    """The rows as Markdown."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    cells = []
    for row in rows:
        gain = (
            "" if row["judgement"] == FIRST else "{:+.1f} ({:+.1f} to {:+.1f})".format(row["gain"], *row["interval"])
        )
        own = [number(row[f"{kind}_{key}"]) for kind in ("exchanged", "found") for key in ("true", "ticked", "right")]
        cells.append([row["collection"], row["judgement"], *own[:3], number(row["auc"]), gain, *own[3:]])
    titles = ["pictures", "judged by", "exchanged: true", "ticked", "right", "AUC", "gain in AUC"]
    return format_markdown([*titles, "first 8: true", "ticked", "right"], cells)


def make_judges(
    trained: list[Described],
    searched: list[Described],
    exchanged: list[tuple[list[str], list[bool]]],
    args: SentencesArguments,
) -> Callable[[list[int]], list[Judge]]:
    """What makes the judges of a collection, given the numbers of its pictures among all that are searched."""
    generator, tower = random.Random(0), ImageTower(args)
    images, found = (
        tower.embed([crop(described.picture, args.image_size) for described in part]) for part in (trained, searched)
    )
    mean = images.mean(dim=0)
    images, found = normalize(images - mean, dim=-1), normalize(found - mean, dim=-1)
    kinds = [
        [described.short for described in trained],
        [join_sentences(described.sentences) for described in trained],
    ]
    kinds += [[generator.choice(described.sentences) for described in trained] for _ in range(NUM_TRAINED)]
    others = generator.sample(sorted(set(kinds[2])), min(NUM_OTHERS, len(set(kinds[2]))))
    texts = {text for kind in kinds for text in kind}
    for sentences in [part for part, _ in exchanged] + [described.sentences for described in searched]:
        texts |= {join_sentences(sentences), *sentences, *(NEGATION.format(sentence) for sentence in sentences)}
        texts |= {join_sentences(sentences[:place] + sentences[place + 1 :]) for place in range(len(sentences))}
    texts = sorted(texts)
    features = embed_texts(args, texts)
    places = {text: place for place, text in enumerate(texts)}

    def look_up(wanted: list[str]) -> torch.Tensor:
        return features[[places[text] for text in wanted]]

    of_texts = torch.stack([look_up(kind) for kind in kinds])
    heads = [train_head(of_texts, images, args.steps, seed) for seed in range(args.seeds)]

    def embed_by(head: nn.Module) -> Callable[[list[str]], torch.Tensor]:
        with torch.inference_mode():
            embeds = normalize(head(features), dim=-1)
        return lambda wanted: embeds[[places[text] for text in wanted]]

    embeds = [embed_by(head) for head in heads]
    return lambda numbers: [Judge(embed, found[numbers], others) for embed in embeds]


def main() -> None:
    args, output = parse((SentencesArguments, OutputArguments), description=__doc__)
    trained, searched = draw_scenes(0, args.scenes), draw_scenes(3, args.searched_scenes)
    for data_dir in args.data_dirs:
        for described, captioned in zip((trained, searched), read_captioned(data_dir)):
            described += [Described(*picture, Path(data_dir).name) for picture in captioned]
    generator = random.Random(0)
    kinds = {described.kind: [] for described in searched}
    for described in searched:
        kinds[described.kind].append(described)
    exchanged = [exchange(described, kinds[described.kind], generator) for described in searched]
    make = make_judges(trained, searched, exchanged, args)
    numbers = {kind: [number for number, described in enumerate(searched) if described.kind == kind] for kind in kinds}
    if len(kinds) > 1:
        numbers["all together"] = list(range(len(searched)))
    rows = []
    for title, own in numbers.items():
        collection, texts = ([values[number] for number in own] for values in (searched, exchanged))
        rows += measure(title, collection, texts, make(own), args.draws)
    table = format_table(rows)
    print(table)
    if output.output_file is not None:
        write_results(output.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    with exit_on_error("sentences.py"):
        main()

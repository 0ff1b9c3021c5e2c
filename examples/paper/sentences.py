# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
How often the ticks of the search page are right: measured on drawn scenes, of which the answers are known.

    python examples/paper/sentences.py --model_name_or_path outputs/demo

Each long caption is a query over all scenes, and of every sentence it is known which scenes it is true of. The table
has the share of ticks that are right and that of true ones which get a tick, beside the share of true ones among all,
and how often a scene of which a sentence is true has a higher score than one of which it is not (AUC).
"""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

import torch
from transformers import PreTrainedModel, ProcessorMixin

from modeling_lotlip.arguments import Arguments, argument, parse
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
from modeling_lotlip.embedding.arguments import ModelArguments, OutputArguments
from modeling_lotlip.embedding.batches import embed_images
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.files import format_markdown, write_results
from modeling_lotlip.search.arguments import SENTENCE_SCORES
from modeling_lotlip.search.index import Index
from modeling_lotlip.search.query import SATISFIED, embed_query, search_index
from modeling_lotlip.terminal import progress_bar


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
class SentencesArguments(Arguments):
    """What is searched, and for what."""

    num_scenes: int = argument(512, "How many scenes are searched.", least=2)
    num_queries: int = argument(64, "How many of their captions are queries.", least=1)
    seed: int = argument(3, "The series of scenes; 0 is that of the training.")

    def __post_init__(self):
        super().__post_init__()
        if self.num_queries > self.num_scenes:
            raise ValueError(f"--num_queries must be at most --num_scenes {self.num_scenes}, got {self.num_queries}.")


def is_true(sentence: str, scene: Scene) -> tuple[str, bool]:
    """
    The kind of a sub-caption of any scene, and whether it is true of this one.

    ```python
    >>> from modeling_lotlip.data.scenes import make_scene
    >>> from examples.paper.sentences import is_true

    >>> scene = make_scene(seed=0, index=0)
    >>> [is_true(sentence, scene)[1] for sentence in scene.sub_captions] == [True] * len(scene.sub_captions)
    True
    ```"""
    if sentence not in STATEMENTS:
        words = set(sentence.split())
        return "thing", any({thing.size, thing.colour, thing.kind, thing.place} <= words for thing in scene.others)
    kind, value = STATEMENTS[sentence]
    own = NUMBERS[len(scene.others)] if kind == "count" else getattr(scene, kind)
    return kind, own == value


def measure_ticks(fits: torch.Tensor, truths: torch.Tensor) -> dict[str, float]:
    """
    How right the ticks of sentences are.

    Args:
        fits (`torch.Tensor` of shape `(num_sentences, num_scenes)`):
            The share of scenes that a scene fits the sentence better than. From `SATISFIED` on it gets a tick.
        truths (`torch.Tensor` of shape `(num_sentences, num_scenes)`):
            Whether the sentence is true of the scene: of some, and not of others.

    Returns:
        `dict[str, float]`: in per cent the ticks that are right (`precision`), the true ones that get a tick
        (`recall`), the `true` ones among all, and how often a scene of which a sentence is true has a higher score
        than one of which it is not (`auc`).

    ```python
    >>> import torch
    >>> from examples.paper.sentences import measure_ticks

    >>> measure_ticks(torch.tensor([[0.95, 0.5, 0.2, 0.1]]), torch.tensor([[True, True, False, False]]))
    {'precision': 100.0, 'recall': 50.0, 'true': 50.0, 'auc': 100.0}
    ```"""
    ticked = fits >= SATISFIED
    higher = [(own[is_so][:, None] > own[~is_so]).float().mean().item() for own, is_so in zip(fits, truths)]
    return {
        "precision": 100 * truths[ticked].float().mean().item(),
        "recall": 100 * ticked[truths].float().mean().item(),
        "true": 100 * truths.float().mean().item(),
        "auc": 100 * fmean(higher),
    }


def evaluate_score(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    index: Index,
    scenes: list[Scene],
    num_queries: int,
    score: str,
    max_length: int | None = None,
) -> dict[str, dict[str, float]]:
    """For each kind of sentence what [`measure_ticks`] returns."""
    fits, truths = defaultdict(list), defaultdict(list)
    for scene in progress_bar(scenes[:num_queries], desc=score, unit=" queries"):
        query = embed_query(model, processor, scene.long_caption, None, score, max_length)
        results = search_index(index, query, len(scenes))
        for place, sentence in enumerate(scene.sub_captions):
            judged = [is_true(sentence, scenes[int(result.name)]) for result in results]
            kind = judged[0][0]
            truth = torch.tensor([is_so for _, is_so in judged])
            if not truth.all() and results[0].fits[place] is not None:
                fits[kind].append(torch.tensor([result.fits[place] for result in results]))
                truths[kind].append(truth)
    return {kind: measure_ticks(torch.stack(fits[kind]), torch.stack(truths[kind])) for kind in sorted(fits)}


def format_table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results of every score as Markdown."""
    titles = ["score", "sentences", "true, per cent", "ticks that are right", "true ones ticked", "AUC"]
    columns = ("true", "precision", "recall", "auc")
    return format_markdown(
        titles,
        [
            [f"`{score}`", kind, *(f"{row[column]:.1f}" for column in columns)]
            for score, table in results.items()
            for kind, row in table.items()
        ],
    )


def main() -> None:
    args, named, output = parse((SentencesArguments, ModelArguments, OutputArguments), description=__doc__)
    model, processor = load_model(named.model_name_or_path, named)
    scenes = [make_scene(args.seed, number) for number in range(args.num_scenes)]
    embeds = []
    for start in range(0, len(scenes), named.batch_size):
        images = [scene.draw() for scene in scenes[start : start + named.batch_size]]
        embeds.append(embed_images(model, dict(processor.image_processor(images, return_tensors="pt"))))
    index = Index.of_embeddings([str(number) for number in range(len(scenes))], torch.cat(embeds))
    results = {
        score: evaluate_score(model, processor, index, scenes, args.num_queries, score, named.max_length)
        for score in SENTENCE_SCORES
    }
    print(format_table(results))
    if output.output_file is not None:
        rows = [
            {"score": score, "kind": kind, **row} for score, table in results.items() for kind, row in table.items()
        ]
        write_results(output.output_file, results, format_table(results), rows)


if __name__ == "__main__":
    main()

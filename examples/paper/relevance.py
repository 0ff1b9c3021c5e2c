# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
How often relevance is where it should be: measured on drawn scenes, of which the answers are known.

    python examples/paper/relevance.py --model_name_or_path outputs/demo --output_file outputs/relevance.json

Over the image, the pointing game (Zhang et al., 2018, https://arxiv.org/abs/1608.00507): a text describes one of
two things in a picture; it is a hit if the most relevant patch overlaps the box of that thing. Chance is a patch drawn
evenly. A map that shows things whatever the text would also hit more often: so hits on the other thing are counted
too.

- `large`: two large things stand in two quarters of a picture; the text is a short caption, "a photo of a red boat".
- `small`: a scene as in training; the text is the sentence of its long caption on one of the small things, "a small
  red ball is in the southwest", as what it adds to the embedding of the caption.

Over the text: the colour of a small thing is exchanged for another in its sentence of the long caption; it is a hit
if, among the sentences of the things in the scene, the false one has the least relevance.
"""

import math
import random
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

import torch
from transformers import PreTrainedModel, ProcessorMixin

from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.data.scenes import COLOURS, IMAGE_SIZE, SALIENT_SHAPES, SALIENT_SIDES, Scene, Thing, make_scene
from modeling_lotlip.embedding.arguments import ModelArguments, OutputArguments
from modeling_lotlip.embedding.batches import embed_corpus, embed_images, tokenize
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.evaluation.relevance import PATCH_METHODS, patch_relevance, sub_caption_numbers, token_relevance
from modeling_lotlip.evaluation.text_changes import swap_word
from modeling_lotlip.files import write_results
from modeling_lotlip.sub_captions import join_sub_captions
from modeling_lotlip.terminal import progress_bar


# Left and top of large things
QUARTERS = [(4, 4), (35, 4), (4, 35), (35, 35)]


@dataclass
class RelevanceArguments(Arguments):
    """What is played."""

    num_scenes: int = argument(300, "How many scenes.", least=1)
    seed: int = argument(2, "The series of scenes; 0 is that of the training.")
    methods: list[str] = argument(list(PATCH_METHODS), "Of relevance over the image.", choices=tuple(PATCH_METHODS))


def find_sentence(scene: Scene, thing: Thing) -> int:
    """The place of the sentence on one of the other things in the long caption of its scene."""
    (place,) = (
        place
        for place, sub_caption in enumerate(scene.sub_captions)
        if f"{thing.size} {thing.colour} {thing.kind}" in sub_caption
    )
    return place


def cover_patches(box: tuple[int, int, int, int], rows: int, columns: int) -> torch.Tensor:
    """
    Which patches of a square picture have a part of a box, given in pixels of a scene: (rows, columns)

    ```python
    >>> from examples.paper.relevance import cover_patches

    >>> cover_patches((0, 32, 16, 40), rows=4, columns=4).nonzero().tolist()
    [[2, 0]]
    ```"""
    left, top, right, bottom = (side / IMAGE_SIZE for side in box)
    y, x = torch.arange(rows)[:, None] / rows, torch.arange(columns)[None] / columns
    return (x < right) & (x + 1 / columns > left) & (y < bottom) & (y + 1 / rows > top)


def wilson_interval(num_hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """
    The confidence interval of a share, in per cent (Wilson, 1927).

    ```python
    >>> from examples.paper.relevance import wilson_interval

    >>> [round(bound, 1) for bound in wilson_interval(5, 10)]
    [23.7, 76.3]
    ```"""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = num_hits / count
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return tuple(100 * (middle + sign * half) / (1 + z**2 / count) for sign in (-1, 1))


def count_hits(hits: list[bool], chance: float, **others: float) -> dict[str, float]:
    """Hits in per cent with their interval of 95 per cent, beside chance in per cent."""
    low, high = wilson_interval(sum(hits), len(hits))
    return {"hits": 100 * fmean(hits), "low": low, "high": high, "chance": chance, **others}


def draw_small(num_scenes: int, seed: int) -> list[tuple[Scene, Thing, Thing]]:
    """Scenes of a series, each with two of its small things."""
    generator = random.Random(f"small things {seed}")
    scenes = [make_scene(seed, index) for index in range(num_scenes)]
    return [(scene, *generator.sample(scene.others, 2)) for scene in scenes]


def draw_large(num_scenes: int, seed: int) -> list[tuple[Scene, Thing, Thing]]:
    """Scenes of nothing but two large things of different colours, in two quarters; the first one is the salient."""
    generator = random.Random(f"large things {seed}")
    drawn = []
    for index in range(num_scenes):
        pairs = zip(generator.sample(list(SALIENT_SHAPES), 2), generator.sample(list(COLOURS), 2))
        side, quarters = generator.choice(SALIENT_SIDES), generator.sample(QUARTERS, 2)
        one, other = (
            Thing(kind, colour, (x, y, x + side, y + side)) for (kind, colour), (x, y) in zip(pairs, quarters)
        )
        drawn.append((replace(make_scene(seed, index), salient=one, others=(other,)), one, other))
    return drawn


def embed_in_context(
    model: PreTrainedModel, processor: ProcessorMixin, drawn: list[tuple[Scene, Thing, Thing]]
) -> torch.Tensor:
    """What the sentence of the first thing adds to the embedding of the long caption of each scene: (scenes, dim)"""
    whole, without = [], []
    for scene, thing, _ in drawn:
        sub_captions = [text.capitalize() for text in scene.sub_captions]
        whole.append(join_sub_captions(sub_captions))
        del sub_captions[find_sentence(scene, thing)]
        without.append(join_sub_captions(sub_captions))
    return embed_corpus(model, processor, whole) - embed_corpus(model, processor, without)


def play_pointing_game(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    drawn: list[tuple[Scene, Thing, Thing]],
    text_embeds: torch.Tensor,
    method: str,
    batch_size: int,
) -> dict[str, float]:
    """
    The pointing game over scenes.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `attn_implementation="eager"`.
        processor (`ProcessorMixin`):
            Its processor.
        drawn (`list[tuple[Scene, Thing, Thing]]`):
            Scenes, each with the thing that the text describes and another one.
        text_embeds (`torch.Tensor` of shape `(len(drawn), dim)`):
            What the text of each stands for in the space of embeddings.
        method (`str`):
            A key of `PATCH_METHODS`.
        batch_size (`int`):
            Scenes in a batch.

    Returns:
        `dict[str, float]`: in per cent the `hits` with their confidence interval from `low` to `high`, `chance`, and
        how often the other thing is hit (`other`).
    """
    hits, others, chances = [], [], []
    for start in progress_bar(range(0, len(drawn), batch_size), desc=method, unit=" batches"):
        batch = drawn[start : start + batch_size]
        images = processor.image_processor([scene.draw() for scene, _, _ in batch], return_tensors="pt")
        texts = text_embeds[start : start + batch_size, None]
        maps = patch_relevance(model, images["pixel_values"], texts, method).squeeze(1)
        for (_, thing, other), relevance in zip(batch, maps):
            own, another = (cover_patches(each.box, *relevance.shape) for each in (thing, other))
            most_relevant = relevance.argmax()
            hits.append(own.flatten()[most_relevant].item())
            others.append(another.flatten()[most_relevant].item())
            chances.append(own.float().mean().item())
    return count_hits(hits, chance=100 * fmean(chances), other=100 * fmean(others))


def find_false_sentences(
    model: PreTrainedModel, processor: ProcessorMixin, drawn: list[tuple[Scene, Thing, Thing]], seed: int
) -> dict[str, dict[str, float]]:
    """
    How often the sentence of a thing whose colour is false has the least relevance among the sentences of things.

    Returns:
        `dict[str, dict[str, float]]`: as [`play_pointing_game`], for `gradient_input` ([`token_relevance`] of its
        tokens), `sentence_alone` (similarity of the sentence without the others) and `leave_one_out` (what the
        similarity of the text loses without the sentence).
    """
    generator = random.Random(f"colours {seed}")
    hits = {"gradient_input": [], "sentence_alone": [], "leave_one_out": []}
    chances = []
    for scene, thing, _ in progress_bar(drawn, desc="false sentences", unit=" scenes"):
        false = find_sentence(scene, thing)
        sub_captions = list(scene.sub_captions)
        sub_captions[false : false + 1] = swap_word([sub_captions[false]], generator, [list(COLOURS)])
        sub_captions = [sub_caption.capitalize() for sub_caption in sub_captions]
        candidates = [find_sentence(scene, other) for other in scene.others]
        image = embed_images(model, dict(processor.image_processor([scene.draw()], return_tensors="pt")))
        inputs = tokenize(processor, [join_sub_captions(sub_captions)])
        by_token = token_relevance(model, inputs, image)[0].tolist()
        numbers = sub_caption_numbers(inputs["input_ids"][0].tolist(), processor.tokenizer)
        without = [join_sub_captions([*sub_captions[:place], *sub_captions[place + 1 :]]) for place in candidates]
        scores = {
            "gradient_input": [sum(v for v, n in zip(by_token, numbers) if n == place) for place in candidates],
            "sentence_alone": embed_corpus(model, processor, [sub_captions[place] for place in candidates]) @ image[0],
            "leave_one_out": -(embed_corpus(model, processor, without) @ image[0]),
        }
        for name, values in scores.items():
            hits[name].append(candidates[torch.as_tensor(values).argmin()] == false)
        chances.append(1 / len(candidates))
    return {name: count_hits(own, chance=100 * fmean(chances)) for name, own in hits.items()}


def format_tables(results: dict) -> str:
    """The results as Markdown."""
    lines = [
        f"Over the image: the most relevant patch is on the thing of the text, {results['num_scenes']} scenes.",
        "",
        "| things | method | hits, per cent | 95 % | chance | on the other thing |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for game, rows in results["over_image"].items():
        lines += [f"| {game} | `{name}` | {format_hits(row)} | {row['other']:.1f} |" for name, row in rows.items()]
    lines += [
        "",
        "Over the text: the sentence with the false colour is the least relevant of those of things.",
        "",
        "| method | hits, per cent | 95 % | chance |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| `{name}` | {format_hits(row)} |" for name, row in results["over_text"].items()]
    return "\n".join(lines)


def format_hits(row: dict[str, float]) -> str:
    """Three cells of a table."""
    return f"{row['hits']:.1f} | {row['low']:.1f} to {row['high']:.1f} | {row['chance']:.1f}"


def measure_relevance(
    model: PreTrainedModel, processor: ProcessorMixin, args: RelevanceArguments, batch_size: int
) -> dict:
    """Plays every game with every method; see [`play_pointing_game`] and [`find_false_sentences`]."""
    large, small = draw_large(args.num_scenes, args.seed), draw_small(args.num_scenes, args.seed)
    games = {
        "large": (large, embed_corpus(model, processor, [scene.caption for scene, _, _ in large])),
        "small": (small, embed_in_context(model, processor, small)),
    }
    over_image = {
        name: {method: play_pointing_game(model, processor, *game, method, batch_size) for method in args.methods}
        for name, game in games.items()
    }
    over_text = find_false_sentences(model, processor, small, args.seed)
    return {"num_scenes": args.num_scenes, "seed": args.seed, "over_image": over_image, "over_text": over_text}


def main() -> None:
    args, named, output = parse((RelevanceArguments, ModelArguments, OutputArguments), description=__doc__)
    model, processor = load_model(named.model_name_or_path, named)
    model.set_attn_implementation("eager")
    if named.max_length is not None:
        processor.tokenizer.model_max_length = named.max_length

    # a method that this model does not know is no reason to wait
    one = draw_large(1, args.seed), embed_corpus(model, processor, ["a photo"])
    for method in args.methods:
        try:
            play_pointing_game(model, processor, *one, method, batch_size=1)
        except ValueError as error:
            raise SystemExit(f"relevance.py: error: --methods {method}: {error}") from error
    results = {"model": named.model_name_or_path, **measure_relevance(model, processor, args, named.batch_size)}
    tables = format_tables(results)
    print(tables)
    if output.output_file is not None:
        for path in {output.output_file, output.output_file.with_suffix(".md")}:
            write_results(path, results, tables)


if __name__ == "__main__":
    with exit_on_error("relevance.py"):
        main()

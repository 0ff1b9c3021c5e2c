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
What of a long text a dual encoder uses: retrieval against the number of tokens that are kept and the place of the
sentence that matters, and how much embeddings and retrieval change when sentences are permuted, dropped or falsified.

    python examples/text_sensitivity.py --model_name_or_path outputs/demo --output_file outputs/text_sensitivity.json
    python examples/text_sensitivity.py --model_name_or_path MODEL OTHER_MODEL \
        --output_file outputs/text_sensitivity.json --dataset_name imagefolder --data_dir my_photos --eval_split test

Every image counts with its first long caption. Beside the JSON file stand the tables (`.md`) and a plot (`.png`).
"""

import argparse
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import HelpFormatter, add_data_arguments, add_side_file_arguments
from ..data.captions import CaptionReader
from ..data.loading import get_columns, load_split
from ..embedding.arguments import add_evaluation_arguments, check_output_file
from ..embedding.batches import TEXTS_PER_CHUNK, embed_corpus, embed_texts, tokenize_and_count
from ..embedding.families import in_trained_case, padding_of
from ..embedding.models import distinct_names, load_model
from ..files import write_json
from ..metrics import metrics_of_ranks, retrieval_ranks
from ..sub_captions import join_sub_captions, split_sub_captions
from .retrieval import Embedded, embed_dataset


logger = logging.getLogger(__name__)

NUM_TOKENS = (8, 16, 32, 48, 64, 77, 96, 128, 192, 256)
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)

# The basic colour terms of English (Berlin & Kay, 1969), and the other spelling of one of them
COLOURS = "black white red green yellow blue brown purple pink orange gray grey".split()
COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)

# How a statement is negated: the first rule that fits
NEGATIONS = (
    (re.compile(r"\b(is|are|was|were|can|could|will|would)\b", re.IGNORECASE), r"\1 not"),
    (re.compile(r"\b(has|have|had|shows?|features?|wears?|holds?)( an?| the|)\b", re.IGNORECASE), r"\1 no"),
    (re.compile(r"^(an?|the)\b", re.IGNORECASE), "no"),
)


# ---------------------------------------------------------------------------------------------------------------------
# Changed texts: each takes the sub-captions of a text and a generator, and returns others, or None where it cannot


def permute(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """The sentences in another order."""
    if len(set(sub_captions)) < 2:
        return None
    permuted = sub_captions
    while permuted == sub_captions:
        permuted = generator.sample(sub_captions, len(sub_captions))
    return permuted


def drop_first(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    return sub_captions[1:] or None


def drop_another(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """One sentence less, not the first one: what dropping the first is compared with."""
    if len(sub_captions) < 2:
        return None
    place = generator.randrange(1, len(sub_captions))
    return sub_captions[:place] + sub_captions[place + 1 :]


def drop_last(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    return sub_captions[:-1] or None


def negate(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """
    One statement, drawn of those that can be, turned into its negation by a rule of `NEGATIONS`.

    ```python
    >>> import random
    >>> from modeling_lotlip.evaluation.sensitivity import negate

    >>> [negate([text], random.Random(0)) for text in ("The boat is red", "It has a mast", "A tree nearby", "Sea")]
    [['The boat is not red'], ['It has no mast'], ['no tree nearby'], None]
    ```"""
    for place in generator.sample(range(len(sub_captions)), len(sub_captions)):
        for pattern, negated in NEGATIONS:
            changed, count = pattern.subn(negated, sub_captions[place], count=1)
            if count > 0:
                return sub_captions[:place] + [changed] + sub_captions[place + 1 :]
    return None


def swap_colour(sub_captions: list[str], generator: random.Random, colours: list[str] = COLOURS) -> list[str] | None:
    """
    One colour, drawn of those that are named, exchanged for another one of `colours`.

    ```python
    >>> import random
    >>> from modeling_lotlip.evaluation.sensitivity import swap_colour

    >>> swap_colour(["A boat", "The red car"], random.Random(0), ["red", "blue"])
    ['A boat', 'The blue car']
    ```"""
    named = [(place, match) for place, text in enumerate(sub_captions) for match in COLOUR.finditer(text)]
    if not named:
        return None
    place, match = generator.choice(named)
    others = [colour for colour in colours if colour != match[0].lower()]
    if not others:
        return None
    text = sub_captions[place]
    changed = text[: match.start()] + generator.choice(others) + text[match.end() :]
    return sub_captions[:place] + [changed] + sub_captions[place + 1 :]


CHANGES: dict[str, Callable[[list[str], random.Random], list[str] | None]] = {
    "sentences permuted": permute,
    "first sentence dropped": drop_first,
    "another sentence dropped": drop_another,
    "last sentence dropped": drop_last,
    "one statement negated": negate,
    "one colour swapped": swap_colour,
}


# ---------------------------------------------------------------------------------------------------------------------


class LongTexts(NamedTuple):
    """
    The long caption of each image.

    Args:
        sub_captions (`list[list[str]]`):
            The sub-captions of each.
        image_embeds (`torch.Tensor` of shape `(num_texts, dim)`):
            The normalised embeddings of the images.
    """

    sub_captions: list[list[str]]
    image_embeds: torch.Tensor

    @property
    def texts(self) -> list[str]:
        return [join_sub_captions(parts) for parts in self.sub_captions]

    def select(self, places: list[int]) -> "LongTexts":
        return LongTexts([self.sub_captions[place] for place in places], self.image_embeds[places])


def first_long_captions(embedded: Embedded) -> LongTexts:
    """
    The images of an embedded data set that have a long caption, each with its first one.

    Raises:
        `ValueError`: if there are fewer than two.
    """
    texts = embedded.texts["long"]
    first = dict(reversed(list(zip(texts["images"], texts["captions"]))))  # it comes last, and stays
    images = sorted(first)
    if len(images) < 2:
        raise ValueError(
            f"{len(images)} images have a long caption: retrieval takes at least two. See the data arguments."
        )
    return LongTexts(
        sub_captions=[split_sub_captions(first[image]) for image in images],
        image_embeds=torch.cat(embedded.image_embeds)[images],
    )


def embed_first_tokens(
    model: PreTrainedModel, processor: ProcessorMixin, texts: list[str], num_tokens: int
) -> torch.Tensor:
    """Normalised embeddings (texts, dim) of the first `num_tokens` tokens of texts, special ones included."""
    if padding_of(processor) != "max_length":
        return embed_corpus(model, processor, texts, max_length=num_tokens)
    # such a model knows texts of its full length only: what is cut off becomes padding
    embeds = []
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        part = in_trained_case(processor, texts[start : start + TEXTS_PER_CHUNK])
        tokens = processor.tokenizer(part, truncation=True, max_length=num_tokens)
        limit = processor.tokenizer.model_max_length
        embeds.append(embed_texts(model, processor.tokenizer.pad(tokens, "max_length", limit, return_tensors="pt")))
    return torch.cat(embeds)


def recalls(image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> dict[str, float]:
    """Recall at 1 in both directions, in per cent, where text and image of the same place belong together."""
    results = metrics_of_ranks(*retrieval_ranks(image_embeds, text_embeds, torch.arange(len(text_embeds))))
    return {name: results[name] for name in ("i2t_recall@1", "t2i_recall@1")}


def measure_lengths(
    model: PreTrainedModel, processor: ProcessorMixin, texts: LongTexts, num_tokens: list[int]
) -> list[dict]:
    """Recall with the first tokens of each text, for the numbers of tokens up to the limit of the model and at it."""
    limit = processor.tokenizer.model_max_length
    rows = []
    for number in sorted({min(number, limit) for number in num_tokens}):
        embeds = embed_first_tokens(model, processor, texts.texts, number)
        rows.append({"num_tokens": number, **recalls(texts.image_embeds, embeds)})
    return rows


def sentences_that_matter(model: PreTrainedModel, processor: ProcessorMixin, texts: LongTexts) -> list[int]:
    """The place of the sentence of each text without which its similarity with the own image falls most."""
    without = [
        join_sub_captions(parts[:place] + parts[place + 1 :])
        for parts in texts.sub_captions
        for place in range(len(parts))
    ]
    embeds = embed_corpus(model, processor, without).split([len(parts) for parts in texts.sub_captions])
    return [(own @ image).argmin().item() for own, image in zip(embeds, texts.image_embeds)]


def measure_positions(model: PreTrainedModel, processor: ProcessorMixin, texts: LongTexts) -> dict:
    """
    Recall with the sentence that matters most at different places of the text.

    Returns:
        `dict`: `num_texts`, those of more than one sentence; the recalls `without` the sentence, and at every one of
        `positions`, from 0 (first) to 1 (last).
    """
    texts = texts.select([place for place, parts in enumerate(texts.sub_captions) if len(parts) > 1])
    if len(texts.sub_captions) < 2:
        raise ValueError(f"{len(texts.sub_captions)} texts have more than one sentence: at least two must.")
    places = sentences_that_matter(model, processor, texts)
    split = [(parts[place], parts[:place] + parts[place + 1 :]) for parts, place in zip(texts.sub_captions, places)]

    def measure(moved: list[list[str]]) -> dict[str, float]:
        return recalls(
            texts.image_embeds, embed_corpus(model, processor, [join_sub_captions(parts) for parts in moved])
        )

    rows = []
    for position in POSITIONS:
        moved = []
        for sentence, others in split:
            place = round(position * len(others))
            moved.append([*others[:place], sentence, *others[place:]])
        rows.append({"position": position, **measure(moved)})
    return {"num_texts": len(split), "without": measure([others for _, others in split]), "positions": rows}


def measure_changes(model: PreTrainedModel, processor: ProcessorMixin, texts: LongTexts, seed: int) -> list[dict]:
    """
    What each of `CHANGES` does to the texts that it can be done to.

    Returns:
        `list[dict]`: for every change the number of texts, the mean cosine similarity (`similarity`) of their
        embeddings before and after, the recalls at 1 in per cent `before` and `after` among the images of these
        texts, and in how many per cent the own image is nearer to the text as it was (`prefers_original`; equals count
        half).
    """
    named = {match[0].lower() for text in texts.texts for match in COLOUR.finditer(text)}
    before = embed_corpus(model, processor, texts.texts)
    rows = []
    for name, change in CHANGES.items():
        generator = random.Random(f"{name} {seed}")
        options = {"colours": sorted(named)} if change is swap_colour else {}
        changed = [change(parts, generator, **options) for parts in texts.sub_captions]
        places = [place for place, parts in enumerate(changed) if parts is not None]
        if len(places) < 2:
            logger.warning(f"{name}: possible in {len(places)} of {len(changed)} texts, not measured.")
            continue
        images, own = texts.image_embeds[places], before[places]
        after = embed_corpus(model, processor, [join_sub_captions(changed[place]) for place in places])
        lost = (images * own).sum(dim=-1) - (images * after).sum(dim=-1)
        is_equal = lost.abs() < 1e-6
        rows.append(
            {
                "change": name,
                "num_texts": len(places),
                "similarity": (own * after).sum(dim=-1).mean().item(),
                "before": recalls(images, own),
                "after": recalls(images, after),
                "prefers_original": 100 * torch.where(is_equal, 0.5, (lost > 0).float()).mean().item(),
            }
        )
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Tables and pictures


def format_tables(results: list[dict]) -> str:
    """The results of every model as Markdown."""
    lines = [
        "Changed texts: cosine similarity of a text's embedding before and after the change, recall at 1 in per cent "
        "before and after it, and how often (per cent, chance is 50) the image is nearer to the text as it was.",
        "",
        "| model | change | texts | similarity | T2I before | T2I after | I2T before | I2T after | original nearer |",
        "| --- |" + " --- |" * 8,
    ]
    for result in results:
        for row in result["changes"]:
            values = [f"{row[time][f'{way}_recall@1']:.1f}" for way in ("t2i", "i2t") for time in ("before", "after")]
            columns = [result["model"], row["change"], str(row["num_texts"]), f"{row['similarity']:.3f}", *values]
            lines.append(f"| {' | '.join([*columns, format(row['prefers_original'], '.1f')])} |")
    lines += ["", "Tokens kept:", "", "| model | tokens | T2I R@1 | I2T R@1 |", "| --- | --- | --- | --- |"]
    for result in results:
        lines += [f"| {result['model']} | {format_recalls(row['num_tokens'], row)} |" for row in result["lengths"]]
        if result["num_truncated"] > 0:
            told = f"{result['num_truncated']} of {result['num_texts']} texts are longer"
            lines.append(f"| {result['model']} | ({told}) | | |")
    lines += [
        "",
        "Place of the sentence that matters most, from 0 (first) to 1 (last):",
        "",
        "| model | place | T2I R@1 | I2T R@1 |",
        "| --- | --- | --- | --- |",
    ]
    for result in results:
        moved = result["moved"]
        lines.append(f"| {result['model']} | {format_recalls('without it', moved['without'])} |")
        lines += [f"| {result['model']} | {format_recalls(row['position'], row)} |" for row in moved["positions"]]
    return "\n".join(lines)


def format_recalls(name: object, row: dict[str, float]) -> str:
    return f"{name} | {row['t2i_recall@1']:.1f} | {row['i2t_recall@1']:.1f}"


def plot_results(results: list[dict], path: Path) -> None:
    """Draws text-to-image recall against the number of tokens and against the place of the sentence that matters."""
    # not at the top: the table does not need it
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # dollars in a name are dollars
    models = [result["model"] for result in results]
    names = dict(zip(models, distinct_names(models)))
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    lengths, positions = figure.subplots(1, 2)
    for index, result in enumerate(results):
        colour, moved = f"C{index}", result["moved"]
        for axes, rows, x in (
            (lengths, result["lengths"], "num_tokens"),
            (positions, moved["positions"], "position"),
        ):
            recall = [row["t2i_recall@1"] for row in rows]
            style = {"marker": "os^Dv"[index % 5], "color": colour, "alpha": 0.8}  # seen where they coincide, too
            axes.plot([row[x] for row in rows], recall, label=names[result["model"]], **style)
        positions.axhline(moved["without"]["t2i_recall@1"], color=colour, linestyle=":", linewidth=1.2)
    lengths.set(xlabel="tokens kept", ylabel="text-to-image R@1, per cent", ylim=(0, 103))
    positions.set(xlabel="place of the sentence that matters most", ylim=(0, 103))
    positions.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
    for axes in (lengths, positions):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    positions.set_title("dotted: without the sentence", fontsize=9)
    lengths.legend(frameon=False)
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser, are_several_models=True)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    parser.add_argument("--num_tokens", type=int, nargs="+", default=NUM_TOKENS, help="Numbers of tokens to keep.")
    parser.add_argument("--seed", type=int, default=0, help="Of the draws of sentences and colours.")
    args = parser.parse_args()
    if min(args.num_tokens) < 3:
        parser.error(f"--num_tokens {min(args.num_tokens)} leaves no word between the special tokens: from 3 on.")
    check_output_file(parser, args.output_file)
    args.text_embedding = "cls"

    state = PartialState(cpu=args.device == "cpu")
    if state.num_processes > 1:
        parser.error("This script runs in one process: start it with `python`.")
    dataset = load_split(args, args.eval_split, args.max_eval_samples)
    reader = CaptionReader(get_columns(dataset), args, args, args.image_column)
    results = []
    for name in dict.fromkeys(args.model_name_or_path):
        model_args = argparse.Namespace(**(vars(args) | {"model_name_or_path": name}))
        model, processor = load_model(model_args.model_name_or_path, model_args)
        if args.max_length is not None:
            processor.tokenizer.model_max_length = args.max_length
        texts = first_long_captions(embed_dataset(model, processor, dataset, reader, model_args, state))
        results.append(
            {
                "model": name,
                "max_length": processor.tokenizer.model_max_length,
                "num_texts": len(texts.sub_captions),
                "num_truncated": sum(tokenize_and_count(processor, texts.texts, None)[1]),
                "changes": measure_changes(model, processor, texts, args.seed),
                "lengths": measure_lengths(model, processor, texts, args.num_tokens),
                "moved": measure_positions(model, processor, texts),
            }
        )
    tables = format_tables(results)
    print(tables)
    if args.output_file is not None:
        write_json(args.output_file, {"dataset": args.dataset_name or "scenes", "seed": args.seed, "models": results})
        args.output_file.with_suffix(".md").write_text(tables + "\n", encoding="utf-8")
        plot_results(results, args.output_file.with_suffix(".png"))


if __name__ == "__main__":
    main()

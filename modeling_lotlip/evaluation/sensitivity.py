# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What of a long text a dual encoder uses: retrieval against the number of tokens that are kept and the place of the
sentence that matters, and how much embeddings and retrieval change when the text does.
"""

import logging
import random
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..embedding.batches import TEXTS_PER_CHUNK, embed_corpus, embed_texts, tokenize_and_count
from ..embedding.families import get_padding, in_trained_case
from ..files import format_markdown
from ..metrics import metrics_of_ranks, retrieval_ranks
from ..sub_captions import join_sub_captions, split_sub_captions
from .retrieval import EmbeddedDataset
from .text_changes import list_changes


logger = logging.getLogger(__name__)

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


class LongTexts(NamedTuple):
    """The sub-captions of the long caption of each image, and the images' normalised embeddings (num_texts, dim)."""

    sub_captions: list[list[str]]
    image_embeds: torch.Tensor

    @property
    def texts(self) -> list[str]:
        return [join_sub_captions(parts) for parts in self.sub_captions]

    def select(self, places: list[int]) -> "LongTexts":
        return LongTexts([self.sub_captions[place] for place in places], self.image_embeds[places])


def select_first_long_captions(embedded: EmbeddedDataset, splitter: str = "paper") -> LongTexts:
    """
    The images of an embedded data set that have a long caption, each with its first one.

    Raises:
        `ValueError`: if there are fewer than two.
    """
    first = {}
    if "long" in embedded.captions:
        captions = embedded.captions["long"]
        first = dict(reversed(list(zip(captions.images.tolist(), captions.texts))))  # it comes last, and stays
    images = sorted(first)
    if len(images) < 2:
        raise ValueError(
            f"{len(images)} images have a long caption: retrieval takes at least two. See the data arguments."
        )
    return LongTexts(
        sub_captions=[split_sub_captions(first[image], splitter) for image in images],
        image_embeds=embedded.image_embeds[images],
    )


def embed_first_tokens(
    model: PreTrainedModel, processor: ProcessorMixin, texts: list[str], num_tokens: int
) -> torch.Tensor:
    """Normalised embeddings (texts, dim) of the first `num_tokens` tokens of texts, special ones included."""
    if get_padding(processor) != "max_length":
        return embed_corpus(model, processor, texts, max_length=num_tokens)
    # such a model knows texts of its full length only: what is cut off becomes padding
    embeds = []
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        part = in_trained_case(processor, texts[start : start + TEXTS_PER_CHUNK])
        tokens = processor.tokenizer(part, truncation=True, max_length=num_tokens)
        limit = processor.tokenizer.model_max_length
        embeds.append(embed_texts(model, processor.tokenizer.pad(tokens, "max_length", limit, return_tensors="pt")))
    return torch.cat(embeds)


def compute_recalls(image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> dict[str, float]:
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
        rows.append({"num_tokens": number, **compute_recalls(texts.image_embeds, embeds)})
    return rows


def find_sentences_that_matter(model: PreTrainedModel, processor: ProcessorMixin, texts: LongTexts) -> list[int]:
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
    places = find_sentences_that_matter(model, processor, texts)
    split = [(parts[place], parts[:place] + parts[place + 1 :]) for parts, place in zip(texts.sub_captions, places)]

    rows = []
    for position in POSITIONS:
        moved = []
        for sentence, others in split:
            place = round(position * len(others))
            moved.append([*others[:place], sentence, *others[place:]])
        rows.append({"position": position, **measure_parts(model, processor, texts.image_embeds, moved)})
    without = measure_parts(model, processor, texts.image_embeds, [others for _, others in split])
    return {"num_texts": len(split), "without": without, "positions": rows}


def measure_parts(
    model: PreTrainedModel, processor: ProcessorMixin, image_embeds: torch.Tensor, parts: list[list[str]]
) -> dict[str, float]:
    """Recall of images with texts that are given by their sub-captions."""
    return compute_recalls(image_embeds, embed_corpus(model, processor, [join_sub_captions(text) for text in parts]))


def measure_changes(model: PreTrainedModel, processor: ProcessorMixin, texts: LongTexts, seed: int) -> list[dict]:
    """
    What each change does to the texts that it can be done to.

    Returns:
        `list[dict]`: for every change the number of texts, the mean cosine similarity (`similarity`) of their
        embeddings before and after, the recalls at 1 in per cent `before` and `after` among the images of these
        texts, and in how many per cent the own image is nearer to the text as it was (`prefers_original`; equals count
        half).
    """
    before = embed_corpus(model, processor, texts.texts)
    rows = []
    for name, change in list_changes(texts.sub_captions).items():
        generator = random.Random(f"{name} {seed}")
        changed = [change(parts, generator) for parts in texts.sub_captions]
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
                "before": compute_recalls(images, own),
                "after": compute_recalls(images, after),
                "prefers_original": 100 * torch.where(is_equal, 0.5, (lost > 0).float()).mean().item(),
            }
        )
    return rows


def measure_sensitivity(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    embedded: EmbeddedDataset,
    num_tokens: list[int],
    seed: int = 0,
    splitter: str = "paper",
) -> dict:
    """
    What of long texts a dual encoder uses, from a data set that it embedded: every image counts with its first long
    caption. `num_tokens` are the numbers of tokens to keep, up to the tokenizer's `model_max_length`; `seed` draws
    sentences and colours.

    Returns:
        `dict`: `max_length`, `num_texts`, of which `num_truncated` are longer than it, `changes`
        ([`measure_changes`]), `lengths` ([`measure_lengths`]) and `moved` ([`measure_positions`]).
    """
    texts = select_first_long_captions(embedded, splitter)
    return {
        "max_length": processor.tokenizer.model_max_length,
        "num_texts": len(texts.sub_captions),
        "num_truncated": sum(tokenize_and_count(processor, texts.texts, None)[1]),
        "changes": measure_changes(model, processor, texts, seed),
        "lengths": measure_lengths(model, processor, texts, num_tokens),
        "moved": measure_positions(model, processor, texts),
    }


def flatten_results(results: list[dict]) -> list[dict]:
    """The results of every model as rows with the recalls of one change, one number of tokens or one place each."""
    flat = []
    for result in results:
        rows = []
        for row in result["changes"]:
            changed = {f"{time}_{name}": value for time in ("before", "after") for name, value in row[time].items()}
            rows.append({name: value for name, value in row.items() if name not in ("before", "after")} | changed)
        rows += result["lengths"]
        rows += [{"position": "without", **result["moved"]["without"]}, *result["moved"]["positions"]]
        flat += [{"model": result["model"], **row} for row in rows]
    return flat


def format_tables(results: list[dict]) -> str:
    """The results of every model as Markdown: changes, numbers of tokens, places of the sentence that matters."""
    changes, lengths, positions = [], [], []
    for row in flatten_results(results):
        if "change" in row:
            names = [f"{time}_{way}_recall@1" for way in ("t2i", "i2t") for time in ("before", "after")]
            values = [f"{row['similarity']:.3f}", *(f"{row[name]:.1f}" for name in (*names, "prefers_original"))]
            changes.append([row["model"], row["change"], str(row["num_texts"]), *values])
        else:
            recalls = [f"{row['t2i_recall@1']:.1f}", f"{row['i2t_recall@1']:.1f}"]
            rows, name = (lengths, "num_tokens") if "num_tokens" in row else (positions, "position")
            rows.append([row["model"], str(row[name]), *recalls])
    truncated = [
        f"Longer than the limit of {result['model']}: {result['num_truncated']} of {result['num_texts']} texts."
        for result in results
        if result["num_truncated"] > 0
    ]
    titles = "model change texts similarity".split()
    titles += ["T2I before", "T2I after", "I2T before", "I2T after", "original nearer"]
    return "\n\n".join(
        [
            "Changed texts: cosine similarity of a text's embedding before and after the change, recall at 1 in per "
            "cent before and after it, and how often (chance: 50) the image is nearer to the text as it was.",
            format_markdown(titles, changes),
            "Tokens kept:",
            format_markdown(["model", "tokens", "T2I R@1", "I2T R@1"], lengths),
            *truncated,
            "Place of the sentence that matters most, from 0 (first) to 1 (last):",
            format_markdown(["model", "place", "T2I R@1", "I2T R@1"], positions),
        ]
    )

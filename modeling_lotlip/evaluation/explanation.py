# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What one model does with a text and an image: everything that the pictures and the page of it show."""

import bisect
import itertools
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..embedding.batches import embed_corpus, embed_images, tokenize
from ..embedding.families import in_trained_case
from ..embedding.features import prepare_images
from ..embedding.models import distinct_names
from ..sub_captions import join_sub_captions, split_sub_captions
from .relevance import (
    patch_relevance,
    seen_picture,
    sub_caption_directions,
    sub_caption_numbers,
    token_attention,
    token_relevance,
)


class Explanation(NamedTuple):
    """
    What one model does with a text and an image.

    Args:
        name (`str`):
            The model.
        tokens (`list[str]`):
            The tokens of the text.
        numbers (`list[int | None]`):
            The sub-caption that each token belongs to, None for what stands before and behind them.
        over_text (`dict[str, list[float]]`):
            By title a number for each token: not negative where it is attention.
        sub_captions (`list[str]`):
            The sub-captions.
        picture (`Image.Image`, *optional*):
            The part of the image that the model sees.
        similarities (`list[float]`, *optional*):
            The cosine similarity of the image with the whole text, then what each sub-caption adds to it.
        over_image (`torch.Tensor` of shape `(1 + read_sub_captions, rows, columns)`, *optional*):
            The relevance of each patch for these.
    """

    name: str
    tokens: list[str]
    numbers: list[int | None]
    over_text: dict[str, list[float]]
    sub_captions: list[str]
    picture: Image.Image | None = None
    similarities: list[float] | None = None
    over_image: torch.Tensor | None = None

    @property
    def num_unread(self) -> int:
        """How many sub-captions are beyond the model's limit."""
        return len(self.sub_captions) - len({*self.numbers} - {None})

    def sum_by_sub_caption(self, values: list[float]) -> list[float]:
        """What the tokens of each sub-caption have together; 0 for one that was truncated away."""
        sums = [0.0] * len(self.sub_captions)
        for number, value in zip(self.numbers, values):
            if number is not None:
                sums[number] += value
        return sums

    def begins_word(self, place: int) -> bool:
        """Whether a space stands before a token, by the marks of its tokenizer."""
        token = self.tokens[place]
        if any(token.startswith(("\u2581", "\u0120")) for token in self.tokens):
            return token.startswith(("\u2581", "\u0120"))
        if any(token.endswith("</w>") for token in self.tokens):
            return place > 0 and self.tokens[place - 1].endswith("</w>")
        return not token.startswith("##")

    def format_similarity(self, place: int) -> str:
        """The similarity with the whole text (place 0), or what a sub-caption adds to it, with its sign."""
        similarity = round(self.similarities[place], 2) + 0.0  # no -0.00
        return f"{similarity:{'+' if place > 0 else ''}.2f}"


def explain(
    name: str,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    text: str,
    image: Image.Image | None = None,
    method: str = "grad_cam",
    max_length: int | None = None,
    splitter: str = "paper",
) -> Explanation:
    """
    Explains what a model does with a text and an image, by the methods of `evaluation/relevance.py`.

    Args:
        name (`str`):
            What to call the model.
        model (`PreTrainedModel`):
            A dual encoder with `attn_implementation="eager"`.
        processor (`ProcessorMixin`):
            Its processor.
        text (`str`):
            A text of at least one sub-caption.
        image (`Image.Image`, *optional*):
            An image. Without one the text alone is explained.
        method (`str`, *optional*, defaults to `"grad_cam"`):
            How relevance of patches is computed, a key of `PATCH_METHODS`.
        max_length (`int`, *optional*):
            Truncate the text at this many tokens.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Raises:
        `ValueError`: if the text is empty, or the model cannot be explained by this method.
    """
    sub_captions = split_sub_captions(text, splitter)
    if not sub_captions:
        raise ValueError("`--text` is empty: there is nothing to look at.")
    whole = join_sub_captions(sub_captions)
    inputs = tokenize(processor, [whole], max_length)
    image_inputs = image_embeds = None
    if image is not None:
        image_inputs = prepare_images(processor, [image])
        image_embeds = embed_images(model, image_inputs)
    explanation = Explanation(
        name=name,
        tokens=processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist()),
        numbers=number_tokens(processor, inputs["input_ids"][0].tolist(), sub_captions),
        over_text=explain_text(model, inputs, image_embeds),
        sub_captions=sub_captions,
    )
    if image is None:
        return explanation
    read = sub_captions[: 1 + max(number for number in explanation.numbers if number is not None)]
    text_embeds = torch.cat(
        [
            embed_corpus(model, processor, [whole], max_length=max_length),
            sub_caption_directions(model, processor, read, max_length),
        ]
    )
    return explanation._replace(
        picture=seen_picture(processor, image_inputs["pixel_values"][0]),
        similarities=(text_embeds @ image_embeds[0]).tolist(),
        over_image=patch_relevance(model, image_inputs["pixel_values"], text_embeds[None], method)[0],
    )


def explain_text(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], image_embeds: torch.Tensor | None
) -> dict[str, list[float]]:
    """By title a number for each token of one text: what is attended to (LoTLIP only), and what is depended on."""
    over_text = {}
    if hasattr(model.config.get_text_config(), "num_corner_tokens"):
        rows = token_attention(model, inputs)["rollout"][0]
        titles = ["[CLS]", *(f"corner {number}" for number in range(1, len(rows)))]
        over_text = {f"{title} attends to": row.tolist() for title, row in zip(titles, rows)}
    title = "length of the embedding" if image_embeds is None else "similarity with the image"
    over_text[f"{title} depends on"] = token_relevance(model, inputs, image_embeds)[0].tolist()
    return over_text


def number_tokens(processor: ProcessorMixin, input_ids: list[int], sub_captions: list[str]) -> list[int | None]:
    """
    The sub-caption of each token: by the full stops between them, or where the tokenizer drops these (SigLIP) by the
    lengths of beginnings of the text.
    """
    numbers = sub_caption_numbers(input_ids, processor.tokenizer)
    if not any(numbers):
        beginnings = [join_sub_captions(sub_captions[: end + 1]) for end in range(len(sub_captions))]
        beginnings = in_trained_case(processor, beginnings)
        tokens = processor.tokenizer(beginnings, add_special_tokens=False, truncation=False, verbose=False)
        ends, places = [len(ids) for ids in tokens["input_ids"]], itertools.count()
        numbers = [None if number is None else bisect.bisect_right(ends, next(places)) for number in numbers]
    return [None if number is None else min(number, len(sub_captions) - 1) for number in numbers]


def name_models(explanations: list[Explanation]) -> dict[str, str]:
    """What each model is called in pictures, by its name."""
    names = [explanation.name for explanation in explanations]
    return dict(zip(names, distinct_names(names)))


def describe_unread(explanations: list[Explanation]) -> str:
    """What of the text is beyond a model's limit, or unknown to it, in words."""
    names = name_models(explanations)
    parts = [
        f"Beyond the limit of {names[explanation.name]}, sub-captions: {explanation.num_unread}."
        for explanation in explanations
        if explanation.num_unread > 0
    ]
    if any("[UNK]" in explanation.tokens for explanation in explanations):
        parts.append("[UNK]: a word that the vocabulary lacks.")
    return " ".join(parts)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a model does with a text and an image, and a page of it, from `templates/visualize.html`, that needs no other
file.
"""

import base64
import bisect
import io
from typing import NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..encoder.dual_encoder import DualEncoder
from ..encoder.preprocessing import Preprocessing
from ..utils.sub_captions import join_sub_captions, split_sub_captions
from .relevance import denormalize, heat_map, patch_relevance, sub_caption_directions, token_relevance


class Explanation(NamedTuple):
    """
    What one model does with a text and perhaps an image, of which it sees `image`. By token: its sub-caption
    (`numbers`, None for special tokens around the text) and how much it contributes to the similarity, or without an
    image to the length of the embedding (`over_text`). The cosine similarity of the image with the whole text, then
    what each sub-caption adds to it (`similarities`), and the relevance of each patch for these, of shape
    `(1 + read_sub_captions, rows, columns)` (`over_image`).
    """

    name: str
    tokens: list[str]
    numbers: list[int | None]
    over_text: list[float]
    sub_captions: list[str]
    image: Image.Image | None = None
    similarities: list[float] | None = None
    over_image: torch.Tensor | None = None

    @property
    def num_read(self) -> int:
        """How many sub-captions are within the model's limit, the last one perhaps in part."""
        return 1 + max((number for number in self.numbers if number is not None), default=-1)

    def begins_word(self, place: int) -> bool:
        """Whether a space stands before a token, by the marks of its tokenizer."""
        token = self.tokens[place]
        if any(token.startswith(("\u2581", "\u0120")) for token in self.tokens):
            return token.startswith(("\u2581", "\u0120"))
        if any(token.endswith("</w>") for token in self.tokens):
            return place > 0 and self.tokens[place - 1].endswith("</w>")
        return not token.startswith("##")


def explain(
    encoder: DualEncoder,
    text: str,
    image: Image.Image | None = None,
    splitter: str = "paper",
) -> Explanation:
    """
    Explains what a dual encoder does with a text of at least one sub-caption, and with an image if there is one, by
    the methods of `evaluation/relevance.py`.

    Raises:
        `ValueError`: if the text is empty, or the towers of the model cannot be explained.
    """
    sub_captions = split_sub_captions(text, splitter)
    if not sub_captions:
        raise ValueError("`--text` is empty: there is nothing to look at.")
    whole = join_sub_captions(sub_captions)
    inputs = encoder.preprocessing.tokenize([whole]).inputs
    input_ids = inputs["input_ids"][0].tolist()
    image_inputs, image_embeds = None, None
    if image is not None:
        image_inputs = encoder.preprocessing.prepare_images([image])
        image_embeds = encoder.embed_images(image_inputs)
    explanation = Explanation(
        name=encoder.name,
        tokens=encoder.processor.tokenizer.convert_ids_to_tokens(input_ids),
        numbers=number_tokens(encoder.preprocessing, input_ids, sub_captions),
        over_text=token_relevance(encoder, inputs, image_embeds)[0].tolist(),
        sub_captions=sub_captions,
    )
    if image is None:
        return explanation
    read = sub_captions[: explanation.num_read]
    text_embeds = torch.cat(
        [
            encoder.encode_text([whole], convert_to_tensor=True),
            sub_caption_directions(encoder, read),
        ]
    )
    return explanation._replace(
        image=denormalize(encoder.processor, image_inputs["pixel_values"][0]),
        similarities=(text_embeds @ image_embeds[0]).tolist(),
        over_image=patch_relevance(encoder.model, image_inputs["pixel_values"], text_embeds[None])[0],
    )


def number_tokens(preprocessing: Preprocessing, input_ids: list[int], sub_captions: list[str]) -> list[int | None]:
    """
    The sub-caption of each token of a text, perhaps truncated, by the numbers of tokens of the text's beginnings; None
    for special tokens around the text. The full stop, or `[SEP]`, between two belongs to the first one.
    """
    beginnings = [join_sub_captions(sub_captions[:end]) for end in range(1, len(sub_captions) + 1)]
    beginnings = [f"{beginning}." for beginning in beginnings[:-1]] + beginnings[-1:]
    tokens = preprocessing.tokenize_whole(beginnings, add_special_tokens=False)
    ends = [len(ids) for ids in tokens]
    text = tokens[-1]
    start = input_ids.index(text[0])
    numbers: list[int | None] = [None] * len(input_ids)
    for place, (token, expected) in enumerate(zip(input_ids[start:], text)):
        if token != expected:
            break
        numbers[start + place] = bisect.bisect_right(ends, place)
    return numbers


def render_page(explanations: list[Explanation]) -> str:
    """The explanations of several models as one page of HTML."""
    loader = PackageLoader(__package__.partition(".")[0])
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    models = [
        {
            "name": explanation.name,
            "num_unread": len(explanation.sub_captions) - explanation.num_read,
            "has_unknown": "[UNK]" in explanation.tokens,
            "lines": lay_out_text(explanation),
            "maps": lay_out_maps(explanation) if explanation.image is not None else [],
        }
        for explanation in explanations
    ]
    return Environment(loader=loader, **options).get_template("visualize.html").render(models=models)


def lay_out_text(explanation: Explanation) -> list[dict]:
    """
    The tokens of a text, shaded; each sub-caption in a line with what its tokens have together, in % of the sum
    of all without sign. `[CLS]`, which may stand out far, has a line of its own and no part in the scale.
    """
    values, numbers = explanation.over_text, explanation.numbers
    largest = max((abs(value) for value, number in zip(values, numbers) if number is not None), default=0.0)
    total, lines = sum(map(abs, values)), []
    for number in (None, *range(len(explanation.sub_captions))):
        places = [place for place, of_token in enumerate(numbers) if of_token == number]
        places = [place for place in places if number is not None or place == 0]
        share = sum(values[place] for place in places) / total if total > 0 else 0.0
        lines.append(
            {
                "tokens": [lay_out_token(explanation, place, values[place], largest) for place in places],
                "unread": explanation.sub_captions[number] if number is not None and not places else "",
                "share": f"{100 * share:.1f} %",
            }
        )
    return [line for line in lines if line["tokens"] or line["unread"]]


def lay_out_token(explanation: Explanation, place: int, value: float, largest: float) -> dict:
    """A token, its number, and its colour: red for what counts for, blue for what counts against."""
    colour = "214 48 38" if value > 0 else "33 102 191"
    alpha = 0.85 * min(1.0, abs(value) / largest) if largest > 0 else 0.0
    return {
        # without its marks of where words begin, continue or end
        "text": explanation.tokens[place].removeprefix("##").removesuffix("</w>").lstrip("\u2581\u0120"),
        "begins_word": explanation.begins_word(place),
        "value": f"{value:.4g}",
        "background": f"rgb({colour} / {alpha:.2f})",
    }


def lay_out_maps(explanation: Explanation) -> list[dict]:
    """The image, and its heat maps for the whole text and, on one scale, for each sub-caption that is read."""
    maps = [{"source": encode_png(explanation.image), "title": "The image", "similarity": ""}]
    whole, *parts = explanation.over_image
    titles = ["The whole text", *explanation.sub_captions]
    for place, (title, relevance) in enumerate(zip(titles, explanation.over_image)):
        largest = (whole if place == 0 else torch.stack(parts)).max().item()
        similarity = round(explanation.similarities[place], 2) + 0.0  # no -0.00
        maps.append(
            {
                "source": encode_png(heat_map(explanation.image, relevance, largest)),
                "title": title,
                "similarity": f"{similarity:{'+' if place > 0 else ''}.2f}",
            }
        )
    return maps


def encode_png(image: Image.Image) -> str:
    """An image as the address of itself, for a page that needs no other file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

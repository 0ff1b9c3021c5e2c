# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a model does with a text and an image, and a page of it, from `templates/visualize.html`, that needs no other
file.
"""

import base64
import bisect
import io
import logging
from typing import NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..encoder.contract import has_own_method
from ..encoder.dual_encoder import DualEncoder
from ..encoder.preprocessing import Preprocessing
from ..utils.sub_captions import join_sub_captions, split_sub_captions
from .relevance import denormalize, heat_map, patch_relevance, sub_caption_directions, token_relevance


logger = logging.getLogger(__name__)


class Explanation(NamedTuple):
    """
    Says what one model does with a text and perhaps an image.

    Attributes:
        name (`str`): The model.
        tokens (`list[str]`): The tokens of the text.
        sub_caption_indices (`list[int | None]`): The index of the sub-caption of each token, None for special tokens
            around the text.
        over_text (`list[float]`): How much each token contributes to the similarity with the image, or without an
            image to the length of the embedding.
        sub_captions (`list[str]`): The sub-captions of the text.
        image (`Image.Image`, *optional*): What the model sees of the image.
        similarities (`list[float]`, *optional*): The cosine similarity of the image with the whole text, then what
            each sub-caption adds to it.
        over_image (`torch.Tensor` of shape `(1 + read_sub_captions, rows, columns)`, *optional*): The relevance of
            each patch for these similarities.
    """

    name: str
    tokens: list[str]
    sub_caption_indices: list[int | None]
    over_text: list[float]
    sub_captions: list[str]
    image: Image.Image | None = None
    similarities: list[float] | None = None
    over_image: torch.Tensor | None = None

    @property
    def num_read(self) -> int:
        """How many sub-captions are within the model's limit, the last one perhaps in part."""
        read = [index for index in self.sub_caption_indices if index is not None]
        return 1 + max(read, default=-1)

    def begins_word(self, index: int) -> bool:
        """Returns whether a space stands before a token, by the marks of its tokenizer."""
        token = self.tokens[index]
        if any(token.startswith(("\u2581", "\u0120")) for token in self.tokens):
            return token.startswith(("\u2581", "\u0120"))
        if any(token.endswith("</w>") for token in self.tokens):
            return index > 0 and self.tokens[index - 1].endswith("</w>")
        return not token.startswith("##")


def explain(
    encoder: DualEncoder,
    text: str,
    image: Image.Image | None = None,
    splitter: str = "paper",
    is_long: bool | None = None,
) -> Explanation:
    """
    Explains what a dual encoder does with a text of at least one sub-caption, and with an image if there is one, by
    the methods of `evaluation/relevance.py`.

    Args:
        encoder ([`DualEncoder`]):
            The dual encoder.
        text (`str`):
            The text.
        image (`Image.Image`, *optional*):
            The image that it is compared with.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How the text is split into sub-captions: see [`split_sub_captions`].
        is_long (`bool`, *optional*):
            Whether the text is read as a long caption, as evaluation does: split, and embedded as
            [`DualEncoder.encode_text`] says. A short one is read as it is. Default: whether it has several
            sub-captions.

    Raises:
        `ValueError`: if the text is empty, or the towers of the model cannot be explained.
    """
    sub_captions = split_sub_captions(text, splitter)
    if not sub_captions:
        raise ValueError("`--text` is empty: there is nothing to look at.")
    if is_long is None:
        is_long = len(sub_captions) > 1
    if not is_long:
        sub_captions = [text]
    whole = join_sub_captions(sub_captions)
    inputs = encoder.preprocessing.tokenize([whole]).inputs
    input_ids = inputs["input_ids"][0].tolist()
    image_inputs = None
    image_embeds = None
    if image is not None:
        image_inputs = encoder.preprocessing.prepare_images([image])
        image_embeds = encoder.embed_images(image_inputs)
    explanation = Explanation(
        name=encoder.name,
        tokens=encoder.preprocessing.tokenizer.convert_ids_to_tokens(input_ids),
        sub_caption_indices=find_sub_caption_indices(encoder.preprocessing, input_ids, sub_captions),
        over_text=token_relevance(encoder, inputs, image_embeds, is_long)[0].tolist(),
        sub_captions=sub_captions,
    )
    if image is None:
        return explanation
    read = sub_captions[: explanation.num_read]
    whole_embeds = encoder.encode_text([whole], convert_to_tensor=True, is_long=is_long)
    text_embeds = torch.cat([whole_embeds, sub_caption_directions(encoder, read, is_long)])
    over_image = None
    if has_own_method(type(encoder.model), "embed_images"):
        logger.warning(f"{encoder.name} has an `embed_images` of its own: no heat maps of it are drawn.")
    else:
        over_image = patch_relevance(encoder.model, image_inputs["pixel_values"], text_embeds[None])[0]
    return explanation._replace(
        image=denormalize(encoder.processor, image_inputs["pixel_values"][0]),
        similarities=(text_embeds @ image_embeds[0]).tolist(),
        over_image=over_image,
    )


def find_sub_caption_indices(
    preprocessing: Preprocessing,
    input_ids: list[int],
    sub_captions: list[str],
) -> list[int | None]:
    """
    Finds the index of the sub-caption of each token of a text, perhaps truncated; None for special tokens around the
    text. The full stop, or `[SEP]`, between two sub-captions belongs to the first one.

    Raises:
        `ValueError`: if the text has no token.
    """
    # A sub-caption ends where the text's beginning up to it does, in tokens: alone it may have others
    beginnings = []
    for end in range(1, len(sub_captions)):
        beginnings.append(f"{join_sub_captions(sub_captions[:end])}.")
    beginnings.append(join_sub_captions(sub_captions))
    tokens = preprocessing.tokenize_whole(beginnings, add_special_tokens=False)
    ends = [len(ids) for ids in tokens]
    text = tokens[-1]
    if not text:
        raise ValueError("`--text` has nothing that the tokenizer of the model reads: write words.")
    # a prompt before the text may have the same words
    start = max(range(len(input_ids)), key=lambda start: count_equal(input_ids[start:], text))
    sub_caption_indices: list[int | None] = [None] * len(input_ids)
    for position in range(count_equal(input_ids[start:], text)):
        sub_caption_indices[start + position] = bisect.bisect_right(ends, position)
    return sub_caption_indices


def count_equal(input_ids: list[int], expected: list[int]) -> int:
    """Returns how many of the first tokens are those that are expected."""
    count = 0
    for token, expected_token in zip(input_ids, expected):
        if token != expected_token:
            break
        count += 1
    return count


def render_page(explanations: list[Explanation]) -> str:
    """Renders the explanations of several models as one page of HTML."""
    loader = PackageLoader(__package__.partition(".")[0])
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    models = [
        {
            "name": explanation.name,
            "num_unread": len(explanation.sub_captions) - explanation.num_read,
            "has_unknown": "[UNK]" in explanation.tokens,
            "lines": lay_out_text(explanation),
            "maps": lay_out_maps(explanation) if explanation.over_image is not None else [],
        }
        for explanation in explanations
    ]
    return Environment(loader=loader, **options).get_template("visualize.html").render(models=models)


def lay_out_text(explanation: Explanation) -> list[dict]:
    """
    Lays out the tokens of a text, shaded; each sub-caption in a line with what its tokens have together, in % of the
    sum of all without sign. `[CLS]`, which may stand out far, has a line of its own and no part in the scale.
    """
    values = explanation.over_text
    total = sum(map(abs, values))
    shaded = [abs(value) for value, index in zip(values, explanation.sub_caption_indices) if index is not None]
    largest = max(shaded, default=0.0)

    lines = []
    if explanation.sub_caption_indices and explanation.sub_caption_indices[0] is None:
        lines.append(lay_out_line(explanation, [0], largest, total))
    for sub_caption_index, sub_caption in enumerate(explanation.sub_captions):
        tokens = []
        for token, index in enumerate(explanation.sub_caption_indices):
            if index == sub_caption_index:
                tokens.append(token)
        line = lay_out_line(explanation, tokens, largest, total)
        if not tokens:
            line["unread"] = sub_caption
        lines.append(line)
    return lines


def lay_out_line(explanation: Explanation, indices: list[int], largest: float, total: float) -> dict:
    """
    Lays out the tokens of a sub-caption.

    Args:
        explanation ([`Explanation`]): That of the text.
        indices (`list[int]`): The tokens.
        largest (`float`): The contribution of a token, without sign, that has the darkest shade.
        total (`float`): The sum of all contributions without sign, of which the line has a fraction.
    """
    fraction = 0.0
    if total > 0:
        fraction = sum(explanation.over_text[index] for index in indices) / total
    return {
        "tokens": [lay_out_token(explanation, index, largest) for index in indices],
        "unread": "",
        "fraction": f"{100 * fraction:.1f} %",
    }


def lay_out_token(explanation: Explanation, index: int, largest: float) -> dict:
    """Lays out a token, its contribution, and its color: red for what counts for, blue for what counts against."""
    value = explanation.over_text[index]
    color = "214 48 38" if value > 0 else "33 102 191"
    alpha = 0.0
    if largest > 0:
        alpha = 0.85 * min(1.0, abs(value) / largest)
    return {
        # without its marks of where words begin, continue or end
        "text": explanation.tokens[index].removeprefix("##").removesuffix("</w>").lstrip("\u2581\u0120"),
        "begins_word": explanation.begins_word(index),
        "value": f"{value:.4g}",
        "background": f"rgb({color} / {alpha:.2f})",
    }


def lay_out_maps(explanation: Explanation) -> list[dict]:
    """
    Lays out the image, and its heat maps for the whole text and, on one scale, for each sub-caption that is read.
    """
    whole, *parts = explanation.over_image
    similarity, *changes = explanation.similarities
    # + 0.0 makes 0.00 of -0.00
    maps = [
        {"source": encode_png(explanation.image), "title": "The image", "similarity": ""},
        {
            "source": encode_png(heat_map(explanation.image, whole, whole.max().item())),
            "title": "The whole text",
            "similarity": f"{round(similarity, 2) + 0.0:.2f}",
        },
    ]
    largest = max((part.max().item() for part in parts), default=0.0)
    for sub_caption, relevance, change in zip(explanation.sub_captions, parts, changes):
        maps.append(
            {
                "source": encode_png(heat_map(explanation.image, relevance, largest)),
                "title": sub_caption,
                "similarity": f"{round(change, 2) + 0.0:+.2f}",
            }
        )
    return maps


def encode_png(image: Image.Image) -> str:
    """Writes an image as the address of itself, for a page that needs no other file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Explanations as a page of HTML that needs no other file, from `templates/visualize.html`."""

import base64
import io

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from .explanation import Explanation, describe_unread
from .maps import draw_heat_map, find_largest, shade
from .relevance import display_token


def render_page(explanations: list[Explanation], method: str) -> str:
    """
    Everything that was found out about a text and an image as one page of HTML.

    Args:
        explanations (`list[Explanation]`):
            That of each model.
        method (`str`):
            How the relevance of patches was computed, a key of `PATCH_METHODS`.
    """
    environment = Environment(
        loader=PackageLoader(__package__.partition(".")[0]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    models = [
        {
            "name": explanation.name,
            "texts": [lay_out_lines(explanation, *row) for row in explanation.over_text.items()],
            "maps": lay_out_maps(explanation) if explanation.picture is not None else [],
        }
        for explanation in explanations
    ]
    template = environment.get_template("visualize.html")
    return template.render(models=models, method=method, unread=describe_unread(explanations))


def lay_out_lines(explanation: Explanation, title: str, values: list[float]) -> dict:
    """The tokens of a text, shaded; each sub-caption in a line with what its tokens have together, in per cent."""
    largest, sums = find_largest(explanation, values), explanation.sum_by_sub_caption(values)
    is_attention = title.endswith("attends to")
    total = 1.0 if is_attention else sum(map(abs, values))
    lines = {None: {"tokens": [], "unread": "", "value": values[0]}}
    lines |= {number: {"tokens": [], "unread": "", "value": value} for number, value in enumerate(sums)}
    for place, (number, value) in enumerate(zip(explanation.numbers, values)):
        if number is not None or place == 0:
            lines[number]["tokens"].append(lay_out_token(explanation, place, value, largest))
    for number, line in lines.items():
        line["share"] = f"{100 * line['value'] / total:.1f} %" if total > 0 else ""
        if not line["tokens"] and number is not None:
            line["unread"] = explanation.sub_captions[number]
    rest = 100 * (total - sum(values)) if is_attention else 0.0
    return {
        "title": title,
        "lines": [line for line in lines.values() if line["tokens"] or line["unread"]],
        "rest": f"{rest:.1f} %" if rest > 0.05 else "",
    }


def lay_out_token(explanation: Explanation, place: int, value: float, largest: float) -> dict:
    """A token, its number and its colour."""
    *colour, alpha = shade(value, largest)
    red, green, blue = (round(255 * part) for part in colour)
    return {
        "text": display_token(explanation.tokens[place]),
        "begins_word": explanation.begins_word(place),
        "value": f"{value:.4g}",
        "background": f"rgb({red} {green} {blue} / {alpha:.2f})",
    }


def lay_out_maps(explanation: Explanation) -> list[dict]:
    """The picture, and its heat maps for the whole text and for each sub-caption that is read."""
    maps = [{"source": encode_png(explanation.picture), "title": "The image", "similarity": ""}]
    titles = ["The whole text", *explanation.sub_captions][: len(explanation.over_image)]
    for place, title in enumerate(titles):
        source = encode_png(draw_heat_map(explanation, place))
        maps.append({"source": source, "title": title, "similarity": explanation.format_similarity(place)})
    return maps


def encode_png(picture: Image.Image) -> str:
    """A picture as the address of itself, for a page that needs no other file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

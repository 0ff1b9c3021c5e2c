# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of explanations: the tokens of a text, shaded, and heat maps over an image, of models side by side."""

import textwrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from .explanation import Explanation, describe_unread, name_models
from .relevance import display_token, heat_map


# Tokens in a line of a picture take this many characters at most
LINE_WIDTH = 46
PANELS_PER_ROW = 6
# A dollar in a text or a name is no beginning of a formula
PLAIN_TEXT = {"text.parse_math": False}

ABOUT_TEXT = "Attends to: attention rollout. Depends on: gradient times input, red for, blue against."


def shade(value: float, largest: float) -> tuple[float, float, float, float]:
    """Red for what counts for, blue for what counts against, the more opaque the more: red, green, blue, alpha"""
    colour = (0.84, 0.19, 0.15) if value > 0 else (0.13, 0.40, 0.75)
    return *colour, 0.85 * min(1.0, abs(value) / largest) if largest > 0 else 0.0


def find_largest(explanation: Explanation, values: list[float]) -> float:
    """The largest value of a token that is shown, `[CLS]` apart, which may stand out far."""
    return max((abs(value) for value, number in zip(values, explanation.numbers) if number is not None), default=0.0)


def lay_out_tokens(explanation: Explanation) -> list[tuple[int | None, list[tuple[int, int]]]]:
    """
    Lays the tokens out in lines, every sub-caption from a new line on.

    Returns:
        `list[tuple[int | None, list[tuple[int, int]]]]`: for each line its sub-caption, and the column and the
        place of each of its tokens. What is around the text is left out, but for `[CLS]`.
    """
    lines, column, previous = [], 0, None
    for place, (token, number) in enumerate(zip(explanation.tokens, explanation.numbers)):
        if number is None and place > 0:
            continue
        width = len(display_token(token))
        column += explanation.begins_word(place)
        if not lines or number != previous or column + width > LINE_WIDTH:
            lines.append((number, []))
            column = 0
        lines[-1][1].append((column, place))
        column, previous = column + width, number
    return lines


@rc_context(PLAIN_TEXT)
def draw_text(explanations: list[Explanation]) -> Figure:
    """The tokens of each model, shaded by each of its rows over the text, with a bar for each sub-caption."""
    panels = []
    for explanation in explanations:
        rows = list(explanation.over_text.items())
        panels += [(explanation, rows[start : start + 2]) for start in range(0, len(rows), 2)]
    heights = [len(lay_out_tokens(explanation)) + 2.2 for explanation, _ in panels]
    height = 0.16 * sum(heights) + 0.2
    figure = Figure(figsize=(7, height))
    figure.subplots_adjust(0.01, 0.2 / height, 0.99, 0.99, wspace=0.02, hspace=0)
    grid = figure.subplots(len(panels), 2, squeeze=False, height_ratios=heights)
    figure.text(0.01, 0.01, f"{ABOUT_TEXT} {describe_unread(explanations)}".strip(), fontsize=6, color="0.35")
    names = name_models(explanations)
    for (explanation, rows), row_of_axes in zip(panels, grid):
        for axes in row_of_axes:
            axes.set_axis_off()
        for axes, (title, values) in zip(row_of_axes, rows):
            name = f"{names[explanation.name]}: " if len(explanations) > 1 else ""
            draw_tokens(axes, explanation, name + title, values)
    return figure


def draw_tokens(axes: Axes, explanation: Explanation, title: str, values: list[float]) -> None:
    """Draws the tokens of one text, shaded by `values`, and the sum of each sub-caption as a bar beside its line."""
    lines, largest = lay_out_tokens(explanation), find_largest(explanation, values)
    sums = explanation.sum_by_sub_caption(values)
    longest = max(map(abs, sums))
    axes.set(xlim=(0, LINE_WIDTH + 12), ylim=(len(lines), -1.6))
    axes.text(0, -0.3, title, fontsize=7.5, va="bottom")
    shown = set()
    for y, (number, tokens) in enumerate(lines):
        for column, place in tokens:
            token = display_token(explanation.tokens[place])
            axes.add_patch(Rectangle((column, y), len(token), 0.95, color=shade(values[place], largest), linewidth=0))
            # each in its place, whatever the width of the font
            axes.text(
                column + len(token) / 2, y + 0.5, token, fontsize=5, family="monospace", va="center", ha="center"
            )
        if number is not None and number not in shown:
            shown.add(number)
            width = 11 * sums[number] / longest if longest > 0 else 0
            axes.add_patch(
                Rectangle((LINE_WIDTH + 1, y + 0.15), abs(width), 0.65, color=shade(sums[number], abs(sums[number])))
            )


def draw_heat_map(explanation: Explanation, place: int) -> Image.Image:
    """The heat map of the whole text (place 0), or of a sub-caption, on one scale with those of the others."""
    maps = explanation.over_image[:1] if place == 0 else explanation.over_image[1:]
    return heat_map(explanation.picture, explanation.over_image[place], maps.max().item())


@rc_context(PLAIN_TEXT)
def draw_image(explanations: list[Explanation], method: str) -> Figure:
    """
    The picture, and its heat maps for the whole text and for each sub-caption that is read; every model in a row of
    its own.
    """
    num_read = max(len(explanation.over_image) for explanation in explanations) - 1
    titles = ["the image", "the whole text", *explanations[0].sub_captions[:num_read]]
    names = name_models(explanations)
    num_blocks = -(-len(titles) // PANELS_PER_ROW)
    columns, rows = min(len(titles), PANELS_PER_ROW), num_blocks * len(explanations)
    figure = Figure(figsize=(1.75 * columns, 1.75 * rows + 0.6 * num_blocks), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    about = f"Relevance of patches by {method}, red where it speaks for the text; sub-captions on one scale."
    figure.supxlabel(f"{about} {describe_unread(explanations)}".strip(), fontsize=6, color="0.35")
    for axes in grid.flat:
        axes.set_axis_off()
    for panel, title in enumerate(titles):
        block, column = divmod(panel, PANELS_PER_ROW)
        for index, explanation in enumerate(explanations):
            axes = grid[block * len(explanations) + index, column]
            if index == 0:
                axes.set_title("\n".join(textwrap.wrap(title, 26, max_lines=3, placeholder=" ...")), fontsize=7)
            name = names[explanation.name] if len(explanations) > 1 else ""
            if panel == 0:
                axes.imshow(explanation.picture)
            elif panel <= len(explanation.over_image):
                axes.imshow(draw_heat_map(explanation, panel - 1))
                name += f" {explanation.format_similarity(panel - 1)}"
            else:
                name += " (beyond its limit)"
            axes.text(0.5, -0.04, name, fontsize=7, va="top", ha="center", transform=axes.transAxes)
    return figure

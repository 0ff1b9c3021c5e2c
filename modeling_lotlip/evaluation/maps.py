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
Pictures of what a dual encoder does: what it attends to in a text, which tokens and sentences its similarity with an
image depends on, and which places of the image each sentence is found in, for one model or several side by side.

    python examples/visualize.py --model_name_or_path outputs/demo --output_dir outputs/visualize
    python examples/visualize.py --model_name_or_path MODEL OTHER_MODEL --output_dir outputs/visualize \
        --image photo.jpg --text "A red boat. The sea is calm."

Without an image it takes a row of the data, `--row`, with its first long caption. The folder gets `text.png` and
`image.png`, and both with every number in `visualize.html`, a page that needs no other file. The methods are those of
`inference/relevance.py`.
"""

import argparse
import base64
import bisect
import html
import io
import itertools
import textwrap
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import HelpFormatter, add_data_arguments, add_side_file_arguments
from ..data.captions import CaptionReader
from ..data.images import UnreadableImageError, read_image, undecoded
from ..data.loading import get_columns, load_split
from ..embedding.arguments import add_evaluation_arguments
from ..embedding.batches import embed_corpus, embed_images, tokenize
from ..embedding.families import in_trained_case
from ..embedding.models import distinct_names, load_model
from ..sub_captions import join_sub_captions, split_sub_captions
from .relevance import (
    PATCH_METHODS,
    display_token,
    heat_map,
    patch_relevance,
    seen_picture,
    sub_caption_directions,
    sub_caption_numbers,
    token_attention,
    token_relevance,
)


rcParams["text.parse_math"] = False  # dollars in a text are dollars

# Tokens in a line of a picture take this many characters at most
LINE_WIDTH = 46
PANELS_PER_ROW = 6


ABOUT_TEXT = "Attends to: attention rollout. Depends on: gradient times input, red for, blue against."


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


def number_by_length(
    processor: ProcessorMixin, sub_captions: list[str], numbers: list[int | None]
) -> list[int | None]:
    """The sub-caption of each token where the tokenizer drops full stops (SigLIP): by the lengths of beginnings."""
    beginnings = [join_sub_captions(sub_captions[: end + 1]) for end in range(len(sub_captions))]
    beginnings = in_trained_case(processor, beginnings)
    tokens = processor.tokenizer(beginnings, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    ends, places = [len(ids) for ids in tokens], itertools.count()
    return [None if number is None else bisect.bisect_right(ends, next(places)) for number in numbers]


def explain(
    name: str,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    text: str,
    image: Image.Image | None,
    method: str,
    max_length: int | None = None,
) -> Explanation:
    """
    Explains what a model does with a text and an image.

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
            An image. Without one it is the text alone that is explained.
        method (`str`):
            How relevance of patches is computed, a key of `PATCH_METHODS`.
        max_length (`int`, *optional*):
            Truncate the text at this many tokens.

    Raises:
        `ValueError`: if the text is empty.
    """
    sub_captions = split_sub_captions(text)
    if not sub_captions:
        raise ValueError("The text is empty: there is nothing to look at.")
    whole = join_sub_captions(sub_captions)
    inputs = tokenize(processor, [whole], max_length)
    image_embeds = image_inputs = None
    if image is not None:
        image_inputs = dict(processor.image_processor([image], return_tensors="pt"))
        image_embeds = embed_images(model, image_inputs)

    over_text = {}
    if hasattr(model.config.get_text_config(), "num_corner_tokens"):
        rows = token_attention(model, inputs)["rollout"][0]
        titles = ["[CLS]", *(f"corner {number}" for number in range(1, len(rows)))]
        over_text = {f"{title} attends to": row.tolist() for title, row in zip(titles, rows)}
    title = "length of the embedding" if image is None else "similarity with the image"
    over_text[f"{title} depends on"] = token_relevance(model, inputs, image_embeds)[0].tolist()

    input_ids = inputs["input_ids"][0].tolist()
    numbers = sub_caption_numbers(input_ids, processor.tokenizer)
    if not any(numbers):
        numbers = number_by_length(processor, sub_captions, numbers)
    explanation = Explanation(
        name=name,
        tokens=processor.tokenizer.convert_ids_to_tokens(input_ids),
        numbers=[None if number is None else min(number, len(sub_captions) - 1) for number in numbers],
        over_text=over_text,
        sub_captions=sub_captions,
    )
    if image is None:
        return explanation
    num_read = 1 + max(number for number in explanation.numbers if number is not None)
    text_embeds = torch.cat(
        [
            embed_corpus(model, processor, [whole], max_length=max_length),
            sub_caption_directions(model, processor, sub_captions[:num_read], max_length),
        ]
    )
    return explanation._replace(
        picture=seen_picture(processor, image_inputs["pixel_values"][0]),
        similarities=(text_embeds @ image_embeds[0]).tolist(),
        over_image=patch_relevance(model, image_inputs["pixel_values"], text_embeds[None], method)[0],
    )


def sum_by_sub_caption(explanation: Explanation, values: list[float]) -> list[float]:
    """What the tokens of each sub-caption have together; 0 for one that was truncated away."""
    sums = [0.0] * len(explanation.sub_captions)
    for number, value in zip(explanation.numbers, values):
        if number is not None:
            sums[number] += value
    return sums


def lines_of_tokens(explanation: Explanation) -> list[tuple[int | None, list[tuple[int, int]]]]:
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
        column += begins_word(explanation.tokens, place)
        if not lines or number != previous or column + width > LINE_WIDTH:
            lines.append((number, []))
            column = 0
        lines[-1][1].append((column, place))
        column, previous = column + width, number
    return lines


def begins_word(tokens: list[str], place: int) -> bool:
    """Whether a space stands before a token, by the marks of its tokenizer."""
    token = tokens[place]
    if any(token.startswith(("\u2581", "\u0120")) for token in tokens):
        return token.startswith(("\u2581", "\u0120"))
    if any(token.endswith("</w>") for token in tokens):
        return place > 0 and tokens[place - 1].endswith("</w>")
    return not token.startswith("##")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def shade(value: float, largest: float) -> tuple[float, float, float, float]:
    """Red for what counts for, blue for what counts against, the more opaque the more: red, green, blue, alpha"""
    colour = (0.84, 0.19, 0.15) if value > 0 else (0.13, 0.40, 0.75)
    return *colour, 0.85 * min(1.0, abs(value) / largest) if largest > 0 else 0.0


def largest_of(explanation: Explanation, values: list[float]) -> float:
    """The largest value of a token that is shown, `[CLS]` apart, which may stand out far."""
    return max((abs(value) for value, number in zip(values, explanation.numbers) if number is not None), default=0.0)


def draw_text(explanations: list[Explanation]) -> Figure:
    """The tokens of each model, shaded by each of its rows over the text, with a bar for each sub-caption."""
    panels = []
    for explanation in explanations:
        rows = list(explanation.over_text.items())
        panels += [(explanation, rows[start : start + 2]) for start in range(0, len(rows), 2)]
    heights = [len(lines_of_tokens(explanation)) + 2.2 for explanation, _ in panels]
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


def draw_tokens(axes, explanation: Explanation, title: str, values: list[float]) -> None:
    lines, largest = lines_of_tokens(explanation), largest_of(explanation, values)
    sums = sum_by_sub_caption(explanation, values)
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


def format_similarity(explanation: Explanation, place: int) -> str:
    """The similarity of the image with the whole text (place 0), or what a sub-caption adds to it, with its sign."""
    similarity = round(explanation.similarities[place], 2) + 0.0  # no -0.00
    return f"{similarity:{'+' if place > 0 else ''}.2f}"


def draw_heat_map(explanation: Explanation, place: int) -> Image.Image:
    """The heat map of the whole text (place 0), or of a sub-caption, on one scale with those of the others."""
    maps = explanation.over_image[:1] if place == 0 else explanation.over_image[1:]
    return heat_map(explanation.picture, explanation.over_image[place], maps.max().item())


def name_models(explanations: list[Explanation]) -> dict[str, str]:
    """What each model is called in pictures, by its name."""
    names = [explanation.name for explanation in explanations]
    return dict(zip(names, distinct_names(names)))


def describe_unread(explanations: list[Explanation]) -> str:
    """What of the text is beyond a model's limit, or unknown to it, in words."""
    parts = []
    for explanation in explanations:
        num_unread = len(explanation.sub_captions) - len({*explanation.numbers} - {None})
        if num_unread > 0:
            parts.append(
                f"Beyond the limit of {name_models(explanations)[explanation.name]}, sub-captions: {num_unread}."
            )
    if any("[UNK]" in explanation.tokens for explanation in explanations):
        parts.append("[UNK]: a word that the vocabulary lacks.")
    return " ".join(parts)


def draw_image(explanations: list[Explanation], method: str) -> Figure:
    """
    The picture, and its heat maps for the whole text and for each sub-caption that is read; every model in a row of
    its own.
    """
    num_read = max(len(explanation.over_image) for explanation in explanations) - 1
    titles, names = (
        ["the image", "the whole text", *explanations[0].sub_captions[:num_read]],
        name_models(explanations),
    )
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
                name += f" {format_similarity(explanation, panel - 1)}"
            else:
                name += " (beyond its limit)"
            axes.text(0.5, -0.04, name, fontsize=7, va="top", ha="center", transform=axes.transAxes)
    return figure


def encode_png(picture: Image.Image) -> str:
    """A picture as the address of itself, for a page that needs no other file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h2 {{ margin-top: 2.5rem; overflow-wrap: anywhere; }}
h3 {{ font-size: 1rem; margin-bottom: 0.3rem; }}
.line {{ display: flex; gap: 1rem; align-items: baseline; }}
.line > :first-child {{ flex: 1; }}
.line > :last-child {{ width: 5rem; text-align: right; font-variant-numeric: tabular-nums; color: #555; }}
.maps {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
img {{ width: 100%; }}
figcaption {{ font-size: 0.85rem; line-height: 1.3; }}
.note {{ color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="note">{note}</p>
{body}
</body>
</html>
"""


def html_of_tokens(explanation: Explanation, title: str, values: list[float]) -> str:
    """The tokens of a text, shaded; each sub-caption in a line with what its tokens have together, in per cent."""
    largest, sums = largest_of(explanation, values), sum_by_sub_caption(explanation, values)
    is_attention = title.endswith("attends to")
    total = 1.0 if is_attention else sum(map(abs, values))
    lines = {number: [] for number in (None, *range(len(explanation.sub_captions)))}
    for place, (token, number, value) in enumerate(zip(explanation.tokens, explanation.numbers, values)):
        if number is None and place > 0:
            continue
        *colour, alpha = shade(value, largest)
        red, green, blue = (round(255 * part) for part in colour)
        space = " " if begins_word(explanation.tokens, place) else ""
        lines[number].append(
            f'{space}<span style="background: rgb({red} {green} {blue} / {alpha:.2f})" title="{value:.4g}">'
            f"{html.escape(display_token(token))}</span>"
        )
    parts = [f"<h3>{html.escape(title)}</h3>"]
    for number, spans in lines.items():
        if not spans and number is not None:
            spans = [f'<span class="note">{html.escape(explanation.sub_captions[number])} (beyond the limit)</span>']
        own = values[0] if number is None else sums[number]
        if spans:
            share = f"{100 * own / total:.1f} %" if total > 0 else ""
            parts.append(f'<div class="line"><span>{"".join(spans)}</span><span>{share}</span></div>')
    rest = 100 * (total - sum(values))
    if is_attention and rest > 0.05:
        note = '<span class="note">the corner token itself, and [SEP]s at the end</span>'
        parts.append(f'<div class="line">{note}<span>{rest:.1f} %</span></div>')
    return "\n".join(parts)


def format_page(explanations: list[Explanation], method: str) -> str:
    """All of it as a page of HTML that needs no other file."""
    body = []
    for explanation in explanations:
        body.append(f"<h2>{html.escape(explanation.name)}</h2>")
        body += [html_of_tokens(explanation, title, values) for title, values in explanation.over_text.items()]
        if explanation.picture is not None:
            figures = [
                f'<figure><img alt="" src="{encode_png(explanation.picture)}"><figcaption>The image</figcaption>'
            ]
            titles = ["The whole text", *explanation.sub_captions][: len(explanation.over_image)]
            for place, title in enumerate(titles):
                source = encode_png(draw_heat_map(explanation, place))
                figures.append(
                    f'<figure><img alt="" src="{source}"><figcaption>{html.escape(title)} '
                    f'<span class="note">{format_similarity(explanation, place)}</span></figcaption>'
                )
            body.append(f'<h3>Over the image</h3>\n<div class="maps">{"</figure>".join(figures)}</figure></div>')
    note = (
        "What is attended to: the rollout of the attention of all layers. What something depends on: gradient times "
        "input, red for, blue against; the numbers are shares of the whole, counted without sign. "
        f"Over the image: the relevance of patches ({method}) for the text and for what each sentence adds to it, the "
        "sentences on one scale. Below each picture stands the cosine similarity, or what the sentence adds to it. "
        f"{describe_unread(explanations)}"
    ).strip()
    return PAGE.format(title="What the model looks at", note=html.escape(note), body="\n".join(body))


# ---------------------------------------------------------------------------------------------------------------------


def read_input(args: argparse.Namespace) -> tuple[str, Image.Image | None]:
    """The text and the image of the arguments, or of a row of the data."""
    if args.text is not None:
        image = None if args.image is None else read_image({"path": str(args.image), "bytes": None})
        return args.text, image
    dataset = undecoded(load_split(args, args.eval_split, args.row + 1), args.image_column)
    rows = list(dataset.skip(args.row))
    if not rows:
        raise ValueError(f"`--row {args.row}` is beyond the split {args.eval_split!r}.")
    reader = CaptionReader(get_columns(dataset), args, args, args.image_column)
    captions = reader.long_captions(rows[0]) + reader.short_captions(rows[0])
    if not captions:
        raise ValueError(f"`--row {args.row}` has no caption.")
    return captions[0], read_image(rows[0][args.image_column])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser, are_several_models=True)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    parser.add_argument("--output_dir", type=Path, required=True, help="Where the pictures and the page go.")
    parser.add_argument("--text", help="A text; without it `--row` of the data.")
    parser.add_argument("--image", type=Path, help="An image file to the text.")
    parser.add_argument("--row", type=int, default=0, help="The row of the data, from 0 on.")
    parser.add_argument(
        "--method", default=next(iter(PATCH_METHODS)), choices=PATCH_METHODS, help="Of relevance over the image."
    )
    args = parser.parse_args()
    if args.output_file is not None:
        parser.error("--output_file is not for this script, which writes several files: name an --output_dir.")
    if args.image is not None and args.text is None:
        parser.error(f"--image {args.image} needs a --text to look for.")
    if args.row < 0:
        parser.error(f"--row must be 0 or more, got {args.row}.")

    try:
        text, image = read_input(args)
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except UnreadableImageError as error:
        parser.error(f"--image {args.image} cannot be read as an image: {error}" if args.image else str(error))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not split_sub_captions(text):
        parser.error("--text is empty: there is nothing to look at.")
    explanations = []
    for name in dict.fromkeys(args.model_name_or_path):
        model, processor = load_model(name, args)
        model.set_attn_implementation("eager")
        explanations.append(explain(name, model, processor, text, image, args.method, args.max_length))
    draw_text(explanations).savefig(args.output_dir / "text.png", dpi=150)
    if image is not None:
        draw_image(explanations, args.method).savefig(args.output_dir / "image.png", dpi=150)
    (args.output_dir / "visualize.html").write_text(format_page(explanations, args.method), encoding="utf-8")
    print(f"The pictures and visualize.html are in {args.output_dir}.")


if __name__ == "__main__":
    main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A page of what a dual encoder does: which tokens and sentences of a text its similarity with an image depends on, and
where in the image each sentence is found, for one model or several.

    lotlip visualize --model outputs/demo --output_dir outputs/visualize
    lotlip visualize --model MODEL OTHER_MODEL --output_dir outputs/visualize \\
        --image photo.jpg --text "A red boat. The sea is calm."

Without a text it takes a row of the data, `--row`, with its first long caption. It writes `visualize.html`, which
needs no other file.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.arguments import CaptionArguments, CaptionFileArguments, SourceArguments
from ..encoder.arguments import LoadingArguments, ModelNames
from ..utils.arguments import Arguments, argument, refuse_given


if TYPE_CHECKING:
    from PIL import Image


@dataclass
class VisualizeArguments(Arguments):
    """What is looked at, and where the page goes."""

    output_dir: Path = argument(help="Where the page goes.")
    text: str | None = argument(None, "The text. Default: the long caption of --row.")
    image: Path | None = argument(None, "The image file that --text is compared with.", requires="text")
    eval_split: str = argument("test", "The split of --row.", excludes=("text",))
    row: int = argument(0, "The row of the data, from 0 on.", least=0, excludes=("text",))


ARGUMENTS = (
    VisualizeArguments,
    ModelNames,
    LoadingArguments,
    SourceArguments,
    CaptionArguments,
    CaptionFileArguments,
)


def run(
    visualize: VisualizeArguments,
    models: ModelNames,
    loading: LoadingArguments,
    dataset: SourceArguments,
    captions: CaptionArguments,
    caption_files: CaptionFileArguments,
) -> None:
    """
    Writes a page of what each model does with a text and an image.

    Args:
        visualize ([`VisualizeArguments`]): What is looked at, and where the page goes.
        models ([`ModelNames`]): The dual encoders.
        loading ([`LoadingArguments`]): How they run.
        dataset ([`SourceArguments`]): The dataset.
        captions ([`CaptionArguments`]): The columns of the captions.
        caption_files ([`CaptionFileArguments`]): Files of further captions.
    """
    from ..encoder.dual_encoder import find_models, load_encoder
    from ..evaluation.explanation import explain, render_page
    from ..utils.files import write_text
    from ..utils.sub_captions import split_sub_captions

    if visualize.text is None:
        text, is_long, image = read_text_and_image(
            visualize.row, visualize.eval_split, dataset, captions, caption_files
        )
    else:
        case = "with --text"
        refuse_given(dataset, [field.name for field in fields(dataset)], case)
        refuse_given(captions, ("caption_column", "long_captions_column"), case)
        refuse_given(caption_files, [field.name for field in fields(caption_files)], case)
        text = visualize.text.strip()
        image = read_image_file(visualize.image)
        is_long = None  # if it has several sub-captions
    if not split_sub_captions(text, captions.sub_caption_splitter):
        raise ValueError("--text is empty: there is nothing to look at.")
    names = find_models(models.model_name_or_path)
    visualize.output_dir.mkdir(parents=True, exist_ok=True)

    explanations = []
    for name in names:
        encoder = load_encoder(name, loading)
        encoder.check_single_embeddings()
        explanations.append(explain(encoder, text, image, captions.sub_caption_splitter, is_long))
    page = render_page(explanations)
    path = visualize.output_dir / "visualize.html"
    write_text(path, page)
    print(f"The page is {path}.")


def read_image_file(path: Path | None) -> "Image.Image | None":
    """Reads the image in a file, if one is named. Raises a `ValueError` if it cannot be read."""
    from ..data.images import UnreadableImageError, read_image

    if path is None:
        return None
    try:
        return read_image({"path": str(path), "bytes": None})
    except UnreadableImageError as error:
        raise ValueError(f"--image {path} cannot be read as an image: {error}") from error


def read_text_and_image(
    row: int,
    split: str,
    dataset: SourceArguments,
    captions: CaptionArguments,
    caption_files: CaptionFileArguments,
) -> "tuple[str, bool, Image.Image]":
    """
    Reads the first caption of a row, a long one if there is any, whether it is one, and the image.

    Args:
        row (`int`): The index of the row.
        split (`str`): The split that it is in.
        dataset ([`SourceArguments`]): The dataset.
        captions ([`CaptionArguments`]): The columns of the captions.
        caption_files ([`CaptionFileArguments`]): Files of further captions.

    Raises:
        `ValueError`: if there is no such row, or it has no caption or no image that can be read.
    """
    from datasets import Dataset

    from ..data.images import UnreadableImageError, read_image, undecoded
    from ..data.loading import load_split
    from ..data.reader import RowReader
    from ..utils.sub_captions import split_sub_captions
    from ..utils.terminal import without_stop

    data = load_split(dataset, split, row + 1, key_column=caption_files.image_key_column)
    data = undecoded(data, dataset.image_column)
    rows = []
    if not isinstance(data, Dataset) or row < len(data):
        rows = list(data.skip(row))
    if not rows:
        raise ValueError(f"--row {row} is beyond the split {split!r}.")
    reader = RowReader.of(data, captions, caption_files, dataset.image_column)
    # not those of full stops alone
    long = [text for text in reader.long_captions(rows[0]) if split_sub_captions(text, reader.splitter)]
    short = [text for text in reader.short_captions(rows[0]) if split_sub_captions(text, reader.splitter)]
    texts = long + short
    if not texts:
        raise ValueError(f"--row {row} has no caption.")
    try:
        image = read_image(rows[0][dataset.image_column])
    except UnreadableImageError as error:
        raise ValueError(
            f"The image of --row {row} cannot be read: {without_stop(error)}. Choose another --row."
        ) from error
    return texts[0], bool(long), image

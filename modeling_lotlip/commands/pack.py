# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Writes images and their captions, also those in caption files, as webdataset shards, which training streams.

    lotlip pack --output_dir shards --dataset_name my_photos \\
        --caption_files "captions/*.parquet" --file_key_column sha256 --key_column image
    lotlip train --dataset_name webdataset --data_files "shards/*.tar" --streaming \\
        --image_column jpg --caption_column caption.json --long_captions_column long_captions.json ...
"""

from dataclasses import dataclass
from pathlib import Path

from ..data.arguments import (
    CaptionArguments,
    CaptionColumnArguments,
    CaptionFileArguments,
    SourceArguments,
    TrainSplitArguments,
)
from ..utils.arguments import Arguments, argument


@dataclass
class PackArguments(Arguments):
    """The shards."""

    output_dir: Path = argument(help="The folder of the shards.")
    shard_size: int = argument(1000, "Images in a shard.", least=1)
    image_format: str = argument(
        "jpg",
        "The format of the images: files in it are kept byte by byte, others are converted.",
        choices=("jpg", "png", "webp"),
    )


@dataclass
class PackCaptionFileArguments(CaptionFileArguments):
    """Long captions in separate files, and the keys of images, which shards have with and without such files."""

    key_column: str | None = argument(
        None,
        "The column of the images' keys, such as `__key__` or `json.url` of shards. The image column itself: the "
        "SHA-256 of the image file. Default: with --caption_files the name of --file_key_column; in the shards "
        "`__key__` of shards, else the path of the image, else its SHA-256.",
    )


ARGUMENTS = (PackArguments, SourceArguments, TrainSplitArguments, CaptionColumnArguments, PackCaptionFileArguments)


def run(
    pack: PackArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    columns: CaptionColumnArguments,
    caption_files: PackCaptionFileArguments,
) -> None:
    """
    Packs a dataset into shards, and says what they hold.

    Args:
        pack ([`PackArguments`]): The shards.
        source ([`SourceArguments`]): The dataset.
        split ([`TrainSplitArguments`]): What of it is read.
        columns ([`CaptionColumnArguments`]): The columns of the captions.
        caption_files ([`PackCaptionFileArguments`]): Files of further captions.
    """
    from ..data.loading import load_split
    from ..data.reader import RowReader
    from ..data.rows import check_columns, check_fields, get_columns
    from ..data.shards import write_shards
    from ..utils.terminal import printable

    dataset = load_split(source, split.train_split, split.max_train_samples, key_column=caption_files.image_key_column)
    check_columns(get_columns(dataset), key_column=caption_files.key_column)
    check_fields(dataset, key_column=caption_files.key_column)
    captions = CaptionArguments(columns.caption_column, columns.long_captions_column)
    reader = RowReader.of(dataset, captions, caption_files, source.image_column)
    reader.report_keys(dataset)
    how = (pack.output_dir, caption_files.key_column, pack.image_format, pack.shard_size)
    counts = write_shards(dataset, reader, source, *how)
    print(f"{pack.output_dir}: {printable(str(counts.rows))}")
    if counts.num_converted:
        print(f"{counts.num_converted} images were converted to {pack.image_format}.")
    if counts.num_of_known_path:
        print(f"{counts.num_of_known_path} images have the path of another image, and their SHA-256 as key.")
    if counts.num_without_key:
        column = caption_files.key_column
        print(f"{counts.num_without_key} images have no `--key_column {column}`, and their SHA-256 as key.")

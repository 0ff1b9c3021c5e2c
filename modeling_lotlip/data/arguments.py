# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments that name a dataset and its columns."""

import os
from dataclasses import dataclass

from ..utils.arguments import Arguments, argument, refuse_given
from ..utils.sub_captions import SPLITTERS


# What reads a file of rows, by its ending
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
# What reads files, which --data_dir or --data_files name
BUILDER_NAMES = ("imagefolder", "webdataset", *dict.fromkeys(BUILDERS.values()))


@dataclass
class SourceArguments(Arguments):
    """Where rows with images come from: without `dataset_name` the built-in dataset of drawn scenes."""

    _argument_group_name = "data"

    dataset_name: str | None = argument(
        None,
        "A Hub id, a builder such as `imagefolder` or `webdataset`, or a local folder or file "
        "(.csv, .json, .jsonl, .parquet, .tsv). Default: drawn scenes.",
        compared_on_resume=True,
    )
    dataset_config_name: str | None = argument(
        None, "The configuration of the dataset, if it has several.", compared_on_resume=True
    )
    data_dir: str | None = argument(None, "The folder of the data, for a builder.")
    data_files: list[str] | None = argument(None, "The files of the data, for a builder.")
    streaming: bool = argument(
        False,
        "Read the data while it is used, without a copy on disk. Nothing then says that rows have the same image.",
    )
    split_seed: int | None = argument(
        None,
        "Shuffle the rows with this seed before a slice such as train[:90%] is taken. Default: no shuffling.",
        least=0,
        excludes=("streaming",),
        compared_on_resume=True,
    )
    image_column: str = argument(
        "image",
        "The column of the images (or their paths).",
        compared_on_resume=True,
    )

    def __post_init__(self):
        name = self.dataset_name or ""
        builder = BUILDERS.get(os.path.splitext(name)[1].lower())
        if builder is not None and os.path.isfile(name):
            refuse_given(self, ("data_dir", "data_files"), f"on the file {name}")
            self.dataset_name = builder
            self.data_files = [name]
        super().__post_init__()

    @property
    def dataset_title(self) -> str | None:
        """What results and cards call the dataset: a builder such as `json` by what it reads; None of drawn scenes."""
        return self.name_files(self.data_files)

    def name_files(self, data_files: list[str] | None) -> str | None:
        """Returns what results and cards call the dataset, as [`dataset_title`], with these files as its own."""
        if self.dataset_name not in BUILDER_NAMES:
            return self.dataset_name
        if not data_files:
            return self.data_dir or self.dataset_name
        title = os.path.basename(data_files[0])
        if len(data_files) > 1:
            title += f" and {len(data_files) - 1} more"
        return title

    @property
    def data_file_names(self) -> list[str]:
        """`data_files` in their order, without the folder that they have in common."""
        files = [os.path.abspath(file) for file in self.data_files or []]
        folder = os.path.dirname(os.path.commonprefix(files))
        return [os.path.relpath(file, folder) for file in files]


@dataclass
class DatasetArguments(SourceArguments):
    """A dataset with images, and how it is read."""

    dataloader_num_workers: int = argument(0, "Processes that decode and tokenize.", least=0)


@dataclass
class CaptionColumnArguments(Arguments):
    """The columns of captions."""

    _argument_group_name = "captions"

    caption_column: str = argument(
        "caption",
        "The column of short captions, strings or lists (one is sampled in training, all count in "
        "evaluation). With an empty name ('') none is read.",
        compared_on_resume=True,
    )
    long_captions_column: str = argument(
        "long_captions",
        "The column of long captions, strings or lists. With an empty name ('') none is read.",
        compared_on_resume=True,
    )


@dataclass
class CaptionArguments(CaptionColumnArguments):
    """The captions of a dataset, and how long ones are split."""

    sub_caption_splitter: str = argument(
        "paper",
        "Where a long caption is split: at every full stop and line break as in the paper, or where a sentence ends.",
        choices=tuple(SPLITTERS),
        compared_on_resume=True,
    )


@dataclass
class CaptionFileArguments(Arguments):
    """Long captions in separate files."""

    _argument_group_name = "caption files"

    caption_files: list[str] | None = argument(
        None, "Parquet, JSON lines, CSV or TSV files with a key and captions.", compared_on_resume=True
    )
    file_key_column: str = argument(
        "key",
        "The column of keys in --caption_files.",
        requires="caption_files",
        compared_on_resume=True,
    )
    file_caption_columns: list[str] = argument(
        ["caption"],
        "The columns of captions in --caption_files.",
        requires="caption_files",
        compared_on_resume=True,
    )
    key_column: str | None = argument(
        None,
        "The column of the images' keys, such as `__key__` or `json.url` of shards. The image "
        "column itself: the SHA-256 of the image file. Default: the name of --file_key_column.",
        requires="caption_files",
        compared_on_resume=True,
    )

    @property
    def image_key_column(self) -> str:
        """The column of the dataset that has the keys of images."""
        return self.key_column or self.file_key_column


@dataclass
class EvaluationSplitArguments(Arguments):
    """The part of a dataset that is evaluated, embedded or searched."""

    _argument_group_name = "data"

    eval_split: str = argument("test", "The split that is read; a file has `train` only.")
    max_eval_samples: int | None = argument(None, "Use the first N images.", least=1)


@dataclass
class TrainSplitArguments(Arguments):
    """The part of a dataset that is trained on or captioned."""

    _argument_group_name = "data"

    train_split: str = argument("train", "The split to train on.", compared_on_resume=True)
    max_train_samples: int | None = argument(None, "Use the first N images.", least=1)


def describe_split(split: str, max_samples: int | None, split_seed: int | None) -> str:
    """
    Says which rows of a dataset results are of, for model cards.

    Args:
        split (`str`): The name of a split, or a slice, or several.
        max_samples (`int`, *optional*): Of which the first rows alone are used.
        split_seed (`int`, *optional*): By which the rows were shuffled before: it chooses those of a part.
    """
    notes = []
    if split_seed is not None and ("[" in split or max_samples is not None):
        notes.append(f"shuffled with seed {split_seed}")
    if max_samples is not None:
        notes.append(f"at most the first {max_samples} rows")
    if not notes:
        return split
    return f"{split} ({', '.join(notes)})"


def is_folder_of_data(source: SourceArguments) -> bool:
    """Returns whether `dataset_name` is a folder on this machine, not one that is called as what reads files."""
    is_builder = source.dataset_name in BUILDER_NAMES
    if is_builder and (source.data_files or source.data_dir):
        return False
    return os.path.isdir(source.dataset_name or "")


def find_folder(source: SourceArguments) -> str:
    """Finds the folder on this machine in which relative `data_files` are; "" for the working directory."""
    folder = source.data_dir or ""
    if is_folder_of_data(source):
        return os.path.join(source.dataset_name, folder)
    return folder

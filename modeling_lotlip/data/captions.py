# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The captions of an image: those in the columns of its row, and those in side files, found by a key of the image."""

from collections.abc import Iterable

import numpy as np
from datasets import Dataset, IterableDataset
from transformers.utils import logging

from ..sub_captions import split_sub_captions
from .arguments import CaptionArguments, SideFileArguments
from .rows import find_column, read_captions, read_key
from .side_captions import NUM_EXAMPLES, REJECTED_COLUMN, SideCaptions, hash_keys, list_examples


logger = logging.get_logger(__name__)


def find_caption_columns(
    captions: CaptionArguments, columns: Iterable[str], is_one_needed: bool = True
) -> tuple[str | None, str | None]:
    """
    The columns of short and of long captions, None for the one that the data set lacks, or whose name is empty.

    Raises:
        `ValueError`: if it has neither, but needs one, or lacks one that was named and is not the default.
    """
    short = captions.caption_column if captions.caption_column in columns else None
    long = captions.long_captions_column if captions.long_captions_column in columns else None
    if short is None and long is None and is_one_needed:
        raise ValueError(
            f"Neither `--caption_column {captions.caption_column}` nor `--long_captions_column "
            f"{captions.long_captions_column}` is a column of the data set, which has {list(columns)}."
        )
    for name, column in (("caption_column", short), ("long_captions_column", long)):
        named = getattr(captions, name)
        if column is None and named not in ("", getattr(CaptionArguments, name)):
            raise ValueError(
                f"`--{name} {named}` is no column of the data set, which has {list(columns)}: name one, or leave it "
                "out with an empty name."
            )
    return short, long


def open_side_captions(side_files: SideFileArguments) -> SideCaptions:
    """
    The captions in side files. A warning tells once how many of them rules reject.

    Raises:
        `ValueError`: if there are none that are not rejected.
    """
    captions = SideCaptions(side_files.side_files, side_files.side_key_column, side_files.side_caption_columns)
    files = " ".join(side_files.side_files)
    told = (
        f"{captions.num_rejected} of {len(captions.rows)} rows of `--side_files {files}` are left out: rules reject "
        f"them (column {REJECTED_COLUMN!r})."
    )
    if len(captions.hashes) == 0:
        raise ValueError(f"{told} Of the others none has a caption with a key: there is nothing to read.")
    if captions.num_rejected > 0:
        logger.warning_once(told)
    return captions


class CaptionReader:
    """
    Reads the short and the long captions of a row.

    Args:
        columns (`Iterable[str]`):
            The columns of the data set.
        captions (`CaptionArguments`):
            The columns of captions, and how long ones are split.
        side_files (`SideFileArguments`, *optional*):
            Files with further long captions.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of the images, whose files can be the keys of side files.

    Attributes:
        columns (`list[str]`):
            The columns that are read, that of the images only if their files are the keys.

    Raises:
        `ValueError`: if there are captions of neither kind, none in the side files, or no key for these.

    Example:

    ```python
    >>> from modeling_lotlip.data.arguments import CaptionArguments
    >>> from modeling_lotlip.data.captions import CaptionReader

    >>> reader = CaptionReader(["image", "caption", "long_captions"], CaptionArguments())
    >>> row = {"caption": "a boat", "long_captions": ["A boat. It is red."]}
    >>> reader.short_captions(row), reader.long_captions(row), reader.sub_captions("A boat. It is red.")
    (['a boat'], ['A boat. It is red.'], ['A boat', 'It is red'])
    ```"""

    def __init__(
        self,
        columns: Iterable[str],
        captions: CaptionArguments,
        side_files: SideFileArguments | None = None,
        image_column: str = "image",
    ):
        side_files = side_files or SideFileArguments()
        columns = list(columns)
        self.image_column = image_column
        self.sub_caption_splitter = captions.sub_caption_splitter
        self.sub_captions("")  # says at once what is not installed
        are_side_files = side_files.side_files is not None
        self.short_column, self.long_column = find_caption_columns(captions, columns, is_one_needed=not are_side_files)
        self.columns = [column for column in (self.short_column, self.long_column) if column is not None]
        self.key_column, self.side_captions = None, None
        if are_side_files:
            self.key_column = side_files.key_column or side_files.side_key_column
            column = find_column(columns, self.key_column)
            if column is None:
                raise ValueError(
                    f"`--key_column {self.key_column}` is no column of the data set, which has {columns}: name the "
                    "one whose values stand in the `--side_key_column` of `--side_files`."
                )
            self.columns = list(dict.fromkeys([*self.columns, column]))
            self.side_captions = open_side_captions(side_files)

    @property
    def has_long_captions(self) -> bool:
        return self.long_column is not None or self.side_captions is not None

    def short_captions(self, row: dict) -> list[str]:
        return read_captions(row, self.short_column)

    def long_captions(self, row: dict) -> list[str]:
        return self.match_long_captions(row)[0]

    def sub_captions(self, text: str) -> list[str]:
        """The sub-captions of a long caption, split as the data arguments say."""
        return split_sub_captions(text, self.sub_caption_splitter)

    def match_long_captions(self, row: dict) -> tuple[list[str], str | None]:
        """The long captions of a row, and its key if there are side files and it has no captions there."""
        captions = read_captions(row, self.long_column)
        if self.side_captions is None:
            return captions, None
        key = read_key(row, self.key_column)
        beside = self.side_captions[key] if key is not None else []
        return captions + beside, None if beside else str(key)

    def report_keys(self, dataset: Dataset | IterableDataset) -> None:
        """
        Says how many images have captions in the side files, and how many rows of these belong to no image. Of a
        stream, and where the keys are hashes of the image files, [`UnmatchedKeys`] tells while they are read.

        Raises:
            `ValueError`: if no image has any.
        """
        if self.side_captions is None or self.key_column == self.image_column or isinstance(dataset, IterableDataset):
            return
        column = find_column(dataset.column_names, self.key_column)
        hashes, unmatched, num_unmatched = [], [], 0
        for batch in dataset.select_columns(column).iter(batch_size=10_000):
            keys = [read_key({column: value}, self.key_column) for value in batch[column]]
            are_there = self.side_captions.contains(keys)
            hashes.append(hash_keys(keys))
            num_unmatched += int((~are_there).sum())
            if len(unmatched) < NUM_EXAMPLES:
                unmatched += [key for key, is_there in zip(keys, are_there) if not is_there]
        is_unused = ~np.isin(self.side_captions.hashes, np.concatenate(hashes))
        unused = [self.side_captions.get_key(place) for place in np.flatnonzero(is_unused)[:NUM_EXAMPLES]]
        told = (
            f"{num_unmatched} of {len(dataset)} images have no captions in `--side_files`{list_examples(unmatched)}; "
            f"{is_unused.sum()} of {len(is_unused)} rows there belong to none of the images{list_examples(unused)}."
        )
        if num_unmatched == len(dataset):
            raise ValueError(f"{told} Name the right `--key_column` and `--side_key_column`.")
        logger.warning(told)

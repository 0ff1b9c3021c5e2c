# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The one reader of rows: a row becomes an image, texts, a label and a key, and what is left out is counted."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from datasets import Dataset, Image, IterableDataset
from torch.utils.data import get_worker_info
from transformers.utils import logging

from ..utils.sub_captions import mark_sub_captions, split_sub_captions
from ..utils.texts import is_invisible
from .arguments import CaptionArguments, CaptionFileArguments
from .caption_files import (
    IMAGE_HASH_COLUMN,
    NO_KEY,
    NUM_EXAMPLES,
    REJECTED_COLUMN,
    CaptionFiles,
    hash_keys,
    list_examples,
)
from .images import Resizing, is_address, read_file, read_image, undecoded
from .rows import (
    check_blanks,
    check_columns,
    check_fields,
    find_column,
    get_columns,
    list_captions,
    look_up,
    may_be_key,
    name_row,
    read_captions,
    read_key,
)


logger = logging.get_logger(__name__)

# Of the names of columns, from 0 to 1: `captions` and `long_captions` have 0.76
MIN_SIMILARITY = 0.85

# In place of the key of an image whose file, of which it is the hash, cannot be read
UNREADABLE = "an image that cannot be read"

# Images that are compared with those of the captions of their keys, before all are read
NUM_COMPARED = 50

# Rows whose captions are left out since they are no texts; with more of them the column is refused
MAX_BAD_ROWS = 20


class RowInfo(NamedTuple):
    """What a row is known by."""

    row_index: Any  # in the dataset
    key: Any  # of its image; without a column of keys the index of the row
    label: Any = None
    file_facts: Any = None  # of the file of its image, by column of a table, such as its size
    unmatched_key: str | None = None  # by which caption files have no captions


class Item(NamedTuple):
    """An image or a text of a row."""

    row_key: Any  # what the row is known by: a `RowInfo`, or what the caller of a `RowCollator` chose
    kind: str  # "image", or any other word for a text: "short" or "long"
    # the upright RGB image, which is dropped when it is preprocessed, or the text
    content: PIL.Image.Image | str | None = None
    index: int = 0  # which it is of its kind in the row
    truncated: bool = False
    is_unknown: bool = False  # whether it is a text of which the tokenizer knows no word


def warn_of_similar_columns(captions: CaptionArguments, columns: list[str]) -> None:
    """Warns of a column whose name is nearly that of captions which are not there, as `long_caption`."""
    named = {
        "caption_column": captions.caption_column,
        "long_captions_column": captions.long_captions_column,
    }
    for argument, name in named.items():
        if find_column(columns, name) is not None:
            continue
        for similar in get_close_matches(name, columns, n=1, cutoff=MIN_SIMILARITY):
            if similar not in named.values():
                logger.warning_once(
                    f"The column {similar!r} is not read: there is no column {name!r}. If it has "
                    f"these captions, give `--{argument} {similar}`."
                )


def find_columns(columns: list[str], names: Iterable[str | None]) -> list[str]:
    """Finds the columns that hold what names such as `json.url` name, each once; None names nothing."""
    found = [find_column(columns, name) for name in names if name is not None]
    return list(dict.fromkeys(name for name in found if name is not None))


class RowReader:
    """
    Reads the image, the captions, the label and the key of a row of a dataset.

    Args:
        columns (`Iterable[str]`):
            The columns of the dataset.
        captions (`CaptionArguments`, *optional*):
            The columns of captions, and how long ones are split. Without it no captions are read.
        caption_files (`CaptionFileArguments`, *optional*):
            Files with further long captions.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of images, which come undecoded. Without it no images are read.
        label_column (`str`, *optional*):
            The column of labels.
        key_column (`str`, *optional*):
            The column of keys: integers, strings, or images, known by the SHA-256 of their files.
        resizing (`Resizing`, *optional*):
            How the image processor resizes: see [`read_image`].

    Raises:
        `ValueError`: if a column is not there, or there are no captions at all.
    """

    def __init__(
        self,
        columns: Iterable[str],
        captions: CaptionArguments | None = None,
        caption_files: CaptionFileArguments | None = None,
        image_column: str | None = "image",
        label_column: str | None = None,
        key_column: str | None = None,
        resizing: Resizing | None = None,
    ):
        columns = list(columns)
        self.image_column = image_column
        self.label_column = label_column
        self.key_column = key_column
        self.resizing = resizing
        self.short_column = None
        self.long_column = None
        self.splitter = "paper"
        self.file_key_column = None
        self.caption_files = None
        self.is_other_image_said = False
        self.num_compared_files = 0
        self.num_bad_rows = 0
        self.last_bad_row = None
        has_caption_files = caption_files is not None and caption_files.caption_files is not None
        if captions is not None:
            self.splitter = captions.sub_caption_splitter
            split_sub_captions("", self.splitter)  # says at once what is not installed
            self.find_caption_columns(captions, columns, is_one_needed=not has_caption_files)
        if has_caption_files:
            self.file_key_column = caption_files.image_key_column
            check_columns(columns, key_column=self.file_key_column)
            self.caption_files = CaptionFiles(
                caption_files.caption_files, caption_files.file_key_column, caption_files.file_caption_columns
            )
            self.caption_files.check()
        if REJECTED_COLUMN in columns and captions is not None:
            logger.warning_once(
                f"The dataset has the column {REJECTED_COLUMN!r}: captions that rules reject are "
                "read too, since it is `--caption_files` that leaves them out. Drop their rows if "
                "you do not want them."
            )
        check_columns(columns, label_column=label_column, key_column=key_column)
        text_columns = [self.short_column, self.long_column, self.file_key_column]
        self.text_columns = find_columns(columns, text_columns)
        other_columns = [image_column, label_column, key_column]
        self.columns = find_columns(columns, [*text_columns, *other_columns])

    @classmethod
    def of(cls, dataset: Dataset | IterableDataset, *args: Any, **options: Any) -> "RowReader":
        """
        Makes the reader of a dataset, with its columns and further arguments of the class.

        Raises:
            `ValueError`: if a column, or a field of one, is not there, or there are no captions at all.
        """
        reader = cls(get_columns(dataset), *args, **options)
        check_fields(
            dataset,
            caption_column=reader.short_column,
            long_captions_column=reader.long_column,
            key_column=reader.key_column or reader.file_key_column,
        )
        return reader

    def find_caption_columns(
        self,
        captions: CaptionArguments,
        columns: list[str],
        is_one_needed: bool,
    ) -> None:
        """Notes the columns of captions that are there. Raises a `ValueError` if a named one, or both, are not."""
        check_blanks(columns, "caption_column", captions.caption_column)
        check_blanks(columns, "long_captions_column", captions.long_captions_column)
        if find_column(columns, captions.caption_column) is not None:
            self.short_column = captions.caption_column
        if find_column(columns, captions.long_captions_column) is not None:
            self.long_column = captions.long_captions_column
        if self.short_column is None and self.long_column is None and is_one_needed:
            raise ValueError(
                f"Neither `--caption_column {captions.caption_column}` nor `--long_captions_column "
                f"{captions.long_captions_column}` is a column of the dataset, which has {columns}."
            )
        warn_of_similar_columns(captions, columns)
        # a default that is not there is none
        if captions.caption_column not in ("", CaptionArguments.caption_column):
            check_columns(columns, caption_column=captions.caption_column)
        if captions.long_captions_column not in ("", CaptionArguments.long_captions_column):
            check_columns(columns, long_captions_column=captions.long_captions_column)

    def __call__(self, row_index: Any, row: dict) -> Iterator[Item]:
        """
        Reads the image and the texts of the row with a `row_index`, sub-captions of long ones marked. The index of a
        caption is its position in the column, blank ones counted; captions of caption files follow.

        Raises:
            `UnreadableImageError`: if there is no image.
            `ValueError`: if keys, or the captions of many rows, are something else.
        """
        image = None
        if self.image_column is not None:
            row = {**row, self.image_column: {"bytes": read_file(row[self.image_column]), "path": None}}
            image = self.read_image(row)
        key = self.read_key(row_index, row)
        captions_in_files, unmatched_key = self.read_captions_in_files(row_index, row)
        info = RowInfo(row_index, key, row.get(self.label_column), unmatched_key=unmatched_key)
        if image is not None:
            yield Item(info, "image", image)
        yield from self.read_texts(info, row, captions_in_files)

    def read_texts(self, info: RowInfo, row: dict, captions_in_files: list[str]) -> Iterator[Item]:
        """
        Reads the texts of a row, as a call of the reader does.

        Args:
            info ([`RowInfo`]): What the row is known by.
            row (`dict`): The row.
            captions_in_files (`list[str]`): Its captions in caption files.
        """
        row_index = info.row_index
        short_captions = self.leave_out_bad(row_index, row, lambda: list_captions(row, self.short_column))
        for index, text in enumerate(short_captions):
            if not is_invisible(text):
                yield Item(info, "short", text, index)
        long_captions = self.leave_out_bad(row_index, row, lambda: list_captions(row, self.long_column))
        for index, text in enumerate(join_long_captions(long_captions, captions_in_files)):
            marked = mark_sub_captions(text, self.splitter)
            if marked and not is_invisible(text):
                yield Item(info, "long", marked, index)

    def leave_out_bad(self, row_index: Any, row: dict, read: Callable[[], list[str]]) -> list[str]:
        """
        Reads captions of a row. One whose captions are no texts is named and has none: see [`note_bad_row`].
        """
        try:
            return read()
        except ValueError as error:
            self.note_bad_row(row_index, row, error)
            return []

    def read_all_captions(self, row_index: Any, row: dict) -> tuple[list[str], list[str], str | None]:
        """
        Reads the short and the long captions of a row that are not blank, and its key if caption files have none for
        it. Captions that are no texts are left out, the others are not: see [`leave_out_bad`].
        """
        short_captions = self.leave_out_bad(row_index, row, lambda: read_captions(row, self.short_column))
        long_captions = self.leave_out_bad(row_index, row, lambda: read_captions(row, self.long_column))
        captions_in_files, unmatched_key = self.read_captions_in_files(row_index, row)
        return short_captions, join_long_captions(long_captions, captions_in_files), unmatched_key

    def read_captions_in_files(self, row_index: Any, row: dict) -> tuple[list[str], str | None]:
        """Reads what [`captions_in_files`] returns. A row whose key is none is named: see [`note_bad_row`]."""
        try:
            return self.captions_in_files(row)
        except ValueError as error:
            self.note_bad_row(row_index, row, error)
            return [], None

    def note_bad_row(self, row_index: Any, row: dict, error: ValueError) -> None:
        """
        Names a row whose captions are no texts. After `MAX_BAD_ROWS` of them it is the column that is wrong, and the
        error is raised.
        """
        if row_index != self.last_bad_row:  # it may have several cells that are bad
            self.num_bad_rows += 1
            self.last_bad_row = row_index
        if self.num_bad_rows > MAX_BAD_ROWS:
            raise error
        logger.warning(f"The captions of {name_row(row, row_index)} are left out: {error}")

    def read_image(self, row: dict) -> PIL.Image.Image:
        """Reads the image of a row, upright in RGB. Raises an `UnreadableImageError` if there is none."""
        return read_image(row.get(self.image_column), resizing=self.resizing)

    def read_key(self, row_index: Any, row: dict) -> Any:
        """Reads the key of a row, without a column of keys its index. Raises a `ValueError` if there is none."""
        if self.key_column is None:
            return row_index
        value = look_up(row, self.key_column)
        key = None
        if may_be_key(value):
            key = read_key(row, self.key_column)
        if key is None:
            raise ValueError(
                f"`--key_column {self.key_column}` must hold integers or strings; row {row_index} has {value!r}."
            )
        return key

    @property
    def has_long_captions(self) -> bool:
        """Whether there is a column of long captions, or caption files."""
        return self.long_column is not None or self.caption_files is not None

    def short_captions(self, row: dict) -> list[str]:
        """Returns the short captions of a row that are not blank."""
        return read_captions(row, self.short_column)

    def long_captions(self, row: dict) -> list[str]:
        """Returns the long captions of a row that are not blank, those of caption files after those of the column."""
        return self.match_long_captions(row)[0]

    def match_long_captions(self, row: dict) -> tuple[list[str], str | None]:
        """Returns the long captions of a row, and its key if there are caption files and it has no captions there."""
        file_captions, unmatched = self.captions_in_files(row)
        return join_long_captions(read_captions(row, self.long_column), file_captions), unmatched

    def captions_in_files(self, row: dict) -> tuple[list[str], str | None]:
        """
        Returns the captions of a row in caption files, and its key if there are such files and it has none there. The
        key is `UNREADABLE` if it is the hash of an image that cannot be read.
        """
        if self.caption_files is None:
            return [], None
        key = read_key(row, self.file_key_column)
        captions = []
        if key is not None:
            captions = self.caption_files[key]
        if captions:
            self.warn_of_other_image(row, key)
            return captions, None
        if key is None and self.file_key_column == self.image_column:
            return [], UNREADABLE
        return [], str(key)

    def warn_of_other_image(self, row: dict, key: str) -> None:
        """
        Warns once of an image that is not the one that the captions of its key were made of. Of images in files the
        first `NUM_COMPARED` are looked at.
        """
        image = row.get(self.image_column)
        if self.is_other_image_said or not isinstance(image, dict) or not self.caption_files.knows_images:
            return
        if self.file_key_column == self.image_column or not is_first_process():
            return
        if image.get("bytes") is None:
            self.num_compared_files += 1
            if self.num_compared_files > NUM_COMPARED:
                return
        image_hash = self.hash_image(row)
        if image_hash is not None and self.caption_files.is_of_other_image(key, image_hash):
            self.is_other_image_said = True
            logger.warning(
                f"The image with the key {key!r} is not the one that its captions in `--caption_files` were made of, "
                f"by the hash in {IMAGE_HASH_COLUMN!r}. That is right if the file was written anew since; else other "
                "images have the same keys, and captions of others."
            )

    def hash_image(self, row: dict) -> str | None:
        """Returns the SHA-256 of the image of a row; None if it is elsewhere, or cannot be read."""
        image = row[self.image_column]
        if image is not None and image.get("bytes") is None and is_address(image.get("path") or ""):
            return None
        return read_key(row, self.image_column)

    def compare_images(self, dataset: Dataset, hashes: np.ndarray, what: str) -> None:
        """
        Reads some images, and warns if they are not those that the captions of their keys were made of, or if one key
        has several images.

        Args:
            dataset (`Dataset`): The rows.
            hashes (`np.ndarray` of shape `(rows,)`): The hashes of their keys, uint64.
            what (`str`): What messages call the images.
        """
        if not isinstance(dataset.features.get(self.image_column), Image):
            return
        images = undecoded(dataset, self.image_column)
        is_matched = self.caption_files.has(hashes) & (hashes != NO_KEY)
        compared = []
        if self.caption_files.knows_images:
            compared = sample_evenly(np.flatnonzero(is_matched))
        others = []
        for index in compared:
            row = images[int(index)]
            key = read_key(row, self.file_key_column)
            image_hash = self.hash_image(row)
            if image_hash is not None and self.caption_files.is_of_other_image(key, image_hash):
                others.append(key)
        if others:
            self.is_other_image_said = True
            logger.warning(
                f"Of {len(compared)} {what} that were looked at, {len(others)} are not those that the captions with "
                f"their keys were made of, by the hashes in {IMAGE_HASH_COLUMN!r}{list_examples(others)}. That is "
                "right if their files were written anew since; else they get captions of other images."
            )
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        first = first[inverse]  # for each row the first one with its key
        repeated = np.flatnonzero((first != np.arange(len(hashes))) & is_matched)
        compared = sample_evenly(repeated)
        others = []
        for index in compared:
            row = images[int(index)]
            image_hashes = {self.hash_image(row), self.hash_image(images[int(first[index])])}
            if len(image_hashes - {None}) > 1:
                others.append(read_key(row, self.file_key_column))
        if others:
            logger.warning(
                f"{len(repeated)} of {len(dataset)} {what} have the key of an earlier one. Of {len(compared)} of them "
                f"{len(others)} are other images{list_examples(others)}: each gets all captions of its key."
            )

    def knows_keys(self, dataset: Dataset | IterableDataset) -> bool:
        """Whether there are caption files, and the keys of all images are known without reading these."""
        is_known = self.file_key_column != self.image_column and isinstance(dataset, Dataset)
        return self.caption_files is not None and is_known

    def check_counts(self, counts: "RowCounts", dataset: Dataset | IterableDataset, what: str = "images") -> None:
        """
        Raises a `ValueError` if none of the images that were read has captions in the caption files, if
        [`report_keys`] could not.

        Args:
            counts ([`RowCounts`]): The counts of the images.
            dataset (`Dataset` or `IterableDataset`): The rows.
            what (`str`, *optional*, defaults to `"images"`): What messages call the images.
        """
        if self.caption_files is not None and not self.knows_keys(dataset):
            counts.check_matched(what)

    def report_counts(self, counts: "RowCounts", dataset: Dataset | IterableDataset, what: str = "images") -> None:
        """
        Warns how many of the images that were read have no captions in the caption files, if [`report_keys`] could
        not.

        Args:
            counts ([`RowCounts`]): The counts of the images.
            dataset (`Dataset` or `IterableDataset`): The rows.
            what (`str`, *optional*, defaults to `"images"`): What messages call the images.
        """
        if self.caption_files is None or self.knows_keys(dataset):
            return
        if counts.num_unmatched > 0:
            logger.warning_once(f"Of {counts.num_rows} {what}{counts.name_unmatched()}")

    def report_keys(self, dataset: Dataset | IterableDataset, what: str = "images") -> None:
        """
        Warns how many images have no captions in the caption files, and how many rows of these belong to no image; of
        a stream, and of hashes, [`report_counts`] says the former. `what` the images are called. Raises a `ValueError`
        if no image has captions.
        """
        if not self.knows_keys(dataset):
            return
        files = self.caption_files
        unmatched = []
        hashes = []
        column = find_column(dataset.column_names, self.file_key_column)
        for batch in dataset.select_columns(column).iter(batch_size=10_000):
            keys = [read_key({column: value}, self.file_key_column) for value in batch[column]]
            hashes.append(hash_keys(keys))
            unmatched += [keys[index] for index in np.flatnonzero(~files.has(hashes[-1]))]
        counts = RowCounts(len(dataset), num_unmatched=len(unmatched), examples={"unmatched": unmatched})
        counts.check_matched(what)
        if unmatched:
            logger.warning(f"Of {len(dataset)} {what}{counts.name_unmatched()}")
        hashes = np.concatenate(hashes)
        self.compare_images(dataset, hashes, what)
        unused = np.sort(files.row_indices[~np.isin(files.hashes, hashes)])
        if len(unused):
            keys = [files.rows[int(index)][files.key_column] for index in unused[:NUM_EXAMPLES]]
            logger.warning(
                f"{len(unused)} of {len(files.hashes)} rows of `--caption_files` belong to none of the "
                f"{len(dataset)} {what}{list_examples(keys)}."
            )


def join_long_captions(captions: list[str], captions_in_files: list[str]) -> list[str]:
    """Joins the captions of a row and those of caption files for it, without those of the files that the row has."""
    return captions + [text for text in captions_in_files if text not in captions]


def is_first_process() -> bool:
    """Whether this is the first of several processes, and of those that read for it: warnings come from it alone."""
    worker = get_worker_info()
    return os.environ.get("RANK", "0") == "0" and (worker is None or worker.id == 0)


def sample_evenly(indices: np.ndarray) -> np.ndarray:
    """Samples at most `NUM_COMPARED` of some indices, int64 of shape `(indices,)`, from the first to the last."""
    if len(indices) <= NUM_COMPARED:
        return indices
    return indices[np.linspace(0, len(indices) - 1, NUM_COMPARED).astype(int)]


@dataclass
class RowCounts:
    """Counts of rows, used or left out for a reason; those of processes, and of starts of a run, add up."""

    num_rows: int = 0  # that were read
    left_out: dict[str, int] = field(default_factory=Counter)  # by the reason
    num_unmatched: int = 0  # that have no captions in the caption files, used or not
    # the names of a few rows that were left out, by the reason, and under "unmatched" a few keys
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def num_used(self) -> int:
        """The number of rows that are used."""
        return self.num_rows - sum(self.left_out.values())

    def count(self, name: str, reason: str | None = None, unmatched: str | None = None) -> None:
        """Counts a row: its name in messages, why it is left out, and its key if caption files have none for it."""
        self.num_rows += 1
        if reason is not None:
            self.left_out[reason] += 1
            self.note(reason, [name])
        if unmatched is not None:
            self.num_unmatched += 1
            self.note("unmatched", [unmatched])

    def note(self, reason: str, names: list[str]) -> None:
        """Keeps the first few names of rows, each once, as examples of a reason."""
        known = self.examples.get(reason, [])
        self.examples[reason] = list(dict.fromkeys([*known, *names]))[:NUM_EXAMPLES]

    def __add__(self, other: "RowCounts") -> "RowCounts":
        total = RowCounts(
            self.num_rows + other.num_rows,
            Counter(self.left_out) + Counter(other.left_out),
            self.num_unmatched + other.num_unmatched,
            dict(self.examples),
        )
        for reason, names in other.examples.items():
            total.note(reason, names)
        return total

    def state_dict(self) -> dict:
        """Returns the arguments of equal counts, for JSON."""
        return vars(self) | {"left_out": dict(self.left_out)}

    def check_matched(self, what: str = "images") -> None:
        """Raises a `ValueError` if no row has captions in the caption files."""
        if self.num_unmatched == self.num_rows > 0:
            raise ValueError(
                f"Of {self.num_rows} {what}{self.name_unmatched()} Name the right `--key_column` and "
                "`--file_key_column`, or caption files that have these images."
            )

    def name_unmatched(self) -> str:
        """Writes a message on the rows without captions in the caption files."""
        examples = list_examples(self.examples.get("unmatched", []))
        return f" {self.num_unmatched} have no captions in `--caption_files`{examples}."

    def __str__(self) -> str:
        parts = []
        for reason, count in self.left_out.items():
            parts.append(f"{count}, {reason}{list_examples(self.examples.get(reason, []))}")
        text = f"{self.num_used} of {self.num_rows} rows are used"
        if parts:
            text += f"; left out: {'; '.join(parts)}"
        text += "."
        if self.num_unmatched > 0:
            text += self.name_unmatched()
        return text

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The one reader of rows: a row becomes an image, texts, a label and a key, and what is left out is counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from PIL import Image
from transformers.utils import logging

from ..sub_captions import mark_sub_captions, split_sub_captions
from .arguments import CaptionArguments, CaptionFileArguments
from .caption_files import NUM_EXAMPLES, CaptionFiles, hash_keys, list_examples
from .images import Resizing, read_file, read_image
from .rows import check_columns, find_column, look_up, number_captions, read_captions, read_key


logger = logging.get_logger(__name__)


class RowInfo(NamedTuple):
    """
    What a row is known by: its number in the data set, the key of its image (without a column of keys the number), its
    label, and what `describe` of [`RowReader`] says of its image file.
    """

    number: Any
    key: str | int
    label: Any = None
    about: Any = None


class Item(NamedTuple):
    """
    An image or a text of a row.

    Args:
        row (`Any`):
            What the row is known by: a [`RowInfo`].
        kind (`str`):
            `"image"`, or any other word for a text: `"short"` or `"long"`.
        content (`Image` or `str`, *optional*):
            The upright RGB image or the text. Of images it is dropped when they have been preprocessed.
        index (`int`, *optional*, defaults to 0):
            Which it is of its kind in the row.
        truncated (`bool`, *optional*, defaults to `False`):
            Whether the text was truncated.
    """

    row: Any
    kind: str
    content: Image.Image | str | None = None
    index: int = 0
    truncated: bool = False


class RowReader:
    """
    Reads the image, the short and the long captions, the label and the key of a row.

    Args:
        columns (`Iterable[str]`):
            The columns of the data set.
        captions (`CaptionArguments`, *optional*):
            The columns of captions, and how long ones are split. Default: no captions are read.
        caption_files (`CaptionFileArguments`, *optional*):
            Files with further long captions, which are found by a key of the image.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of the images, undecoded. None: no images are read.
        label_column (`str`, *optional*):
            The column of the labels.
        key_column (`str`, *optional*):
            The column of the keys, integers or strings; that of the images for the SHA-256 of their files. Default:
            the key of a row is its number.
        resizing ([`Resizing`], *optional*):
            By which large JPEGs are decoded at a fraction of their size: see [`read_image`].
        describe (`Callable[[bytes], Any]`, *optional*):
            What to note of an image file, such as its size and date.

    Attributes:
        columns (`list[str]`):
            The columns that are read.
        text_columns (`list[str]`):
            Those of them that the captions need; the images' only if these are known by their hashes.

    Raises:
        `ValueError`: if a column is not there, there are captions of neither kind, or none in the caption files.

    Example:

    ```python
    >>> from modeling_lotlip.data.arguments import CaptionArguments
    >>> from modeling_lotlip.data.images import undecoded
    >>> from modeling_lotlip.data.reader import RowReader
    >>> from modeling_lotlip.data.scenes import load_scenes

    >>> scenes = undecoded(load_scenes(1), "image")
    >>> reader = RowReader(scenes.column_names, CaptionArguments())
    >>> reader.short_captions(scenes[0]), reader.read_image(scenes[0]).size
    (['a photo of a red boat'], (64, 64))
    >>> [(item.kind, item.index, item.row.number) for item in reader(0, scenes[0])]
    [('image', 0, 0), ('short', 0, 0), ('long', 0, 0)]
    ```"""

    def __init__(
        self,
        columns: Iterable[str],
        captions: CaptionArguments | None = None,
        caption_files: CaptionFileArguments | None = None,
        image_column: str | None = "image",
        label_column: str | None = None,
        key_column: str | None = None,
        resizing: Resizing | None = None,
        describe: Callable[[bytes], Any] | None = None,
    ):
        columns = list(columns)
        self.image_column, self.label_column, self.key_column = image_column, label_column, key_column
        self.resizing, self.describe = resizing, describe
        self.short_column, self.long_column, self.splitter = None, None, "paper"
        self.file_key_column, self.caption_files = None, None
        has_caption_files = caption_files is not None and caption_files.caption_files is not None
        if captions is not None:
            self.splitter = captions.sub_caption_splitter
            self.sub_captions("")  # says at once what is not installed
            self.find_caption_columns(captions, columns, is_one_needed=not has_caption_files)
        if has_caption_files:
            self.file_key_column = caption_files.image_key_column
            if find_column(columns, self.file_key_column) is None:
                raise ValueError(
                    f"`--key_column {self.file_key_column}` is no column of the data set, which has {columns}: name "
                    "the one whose values stand in the `--file_key_column` of `--caption_files`."
                )
            self.caption_files = CaptionFiles(
                caption_files.caption_files, caption_files.file_key_column, caption_files.file_caption_columns
            )
            self.caption_files.check()
        check_columns(columns, label_column=label_column, key_column=key_column)

        def find(*names: str | None) -> list[str]:
            found = (find_column(columns, name) for name in names if name is not None)
            return list(dict.fromkeys(name for name in found if name is not None))

        self.text_columns = find(self.short_column, self.long_column, self.file_key_column)
        self.columns = find(*self.text_columns, image_column, label_column, key_column)

    def find_caption_columns(self, captions: CaptionArguments, columns: list[str], is_one_needed: bool) -> None:
        """Notes the columns of captions that are there. Raises a `ValueError` if a named one, or both, are not."""
        named = {"caption_column": captions.caption_column, "long_captions_column": captions.long_captions_column}
        found = {name: column for name, column in named.items() if find_column(columns, column) is not None}
        if not found and is_one_needed:
            told = " nor ".join(f"`--{name} {column}`" for name, column in named.items())
            raise ValueError(f"Neither {told} is a column of the data set, which has {columns}.")
        for name in named.keys() - found.keys():
            if named[name] not in ("", getattr(CaptionArguments, name)):
                raise ValueError(
                    f"`--{name} {named[name]}` is no column of the data set, which has {columns}: name one, or leave "
                    "it out with an empty name."
                )
        self.short_column, self.long_column = map(found.get, named)

    def __call__(self, number: Any, row: dict) -> Iterator[Item]:
        """
        The image and the texts of a row, sub-captions of long ones marked: see [`mark_sub_captions`]. The index of a
        caption is its position in the column, blank ones counted; captions of caption files follow. A long caption
        without any word between its full stops is left out like a blank one.

        Args:
            number (`Any`):
                The number of the row.
            row (`dict`):
                The row, its image undecoded.

        Raises:
            `UnreadableImageError`: if there is no image or it cannot be read.
            `ValueError`: if the column of the captions, or of the keys, holds something else.
        """
        about = image = None
        if self.image_column is not None:
            content = read_file(row[self.image_column])
            row = {**row, self.image_column: {"bytes": content, "path": None}}
            about = None if self.describe is None else self.describe(content)
            image = self.read_image(row)
        label = None if self.label_column is None else row[self.label_column]
        info = RowInfo(number, self.read_key(number, row), label, about)
        if image is not None:
            yield Item(info, "image", image)
        for index, text in number_captions(row, self.short_column):
            yield Item(info, "short", text, index)
        long_captions = number_captions(row, self.long_column)
        values = look_up(row, self.long_column) if self.long_column is not None else []
        num_places = len(values) if isinstance(values, (list, tuple)) else len(long_captions)
        long_captions += enumerate(self.match_long_captions(row)[0][len(long_captions) :], num_places)
        for index, text in long_captions:
            if marked := mark_sub_captions(text, self.splitter):
                yield Item(info, "long", marked, index)

    def read_image(self, row: dict) -> Image.Image:
        """The image of a row, upright in RGB. Raises an `UnreadableImageError` if there is none."""
        return read_image(row.get(self.image_column), resizing=self.resizing)

    def read_key(self, number: Any, row: dict) -> str | int:
        """The key of a row. Raises a `ValueError` if it is neither an integer nor a string."""
        if self.key_column is None:
            return number
        key = row.get(self.key_column)
        key = read_key(row, self.key_column) if key in (None, "") or isinstance(key, dict) else key
        if not isinstance(key, (int, str)):
            raise ValueError(
                f"`--key_column {self.key_column}` must hold integers or strings; row {number} has {key!r}."
            )
        return key

    @property
    def has_long_captions(self) -> bool:
        return self.long_column is not None or self.caption_files is not None

    def short_captions(self, row: dict) -> list[str]:
        return read_captions(row, self.short_column)

    def long_captions(self, row: dict) -> list[str]:
        return self.match_long_captions(row)[0]

    def match_long_captions(self, row: dict) -> tuple[list[str], str | None]:
        """The long captions of a row, and its key if there are caption files and it has no captions there."""
        captions = read_captions(row, self.long_column)
        if self.caption_files is None:
            return captions, None
        key = read_key(row, self.file_key_column)
        beside = self.caption_files[key] if key is not None else []
        return captions + beside, None if beside else str(key)

    def sub_captions(self, text: str) -> list[str]:
        """The sub-captions of a long caption, split as the data arguments say."""
        return split_sub_captions(text, self.splitter)

    def report_keys(self, dataset: Dataset | IterableDataset) -> None:
        """
        Says how many images have captions in the caption files, and how many rows of these belong to no image. Of a
        stream, and where the keys are hashes of the image files, [`RowCounts`] tell when they have been read.

        Raises:
            `ValueError`: if no image has any.
        """
        is_known = self.file_key_column != self.image_column and not isinstance(dataset, IterableDataset)
        if self.caption_files is None or not is_known:
            return
        column = find_column(dataset.column_names, self.file_key_column)
        hashes, unmatched, num_unmatched = [], [], 0
        for batch in dataset.select_columns(column).iter(batch_size=10_000):
            keys = [read_key({column: value}, self.file_key_column) for value in batch[column]]
            hashes.append(hash_keys(keys))
            lacking = np.flatnonzero(~np.isin(hashes[-1], self.caption_files.hashes))
            num_unmatched += len(lacking)
            unmatched += [keys[place] for place in lacking[:NUM_EXAMPLES]]
        is_unused = ~np.isin(self.caption_files.hashes, np.concatenate(hashes))
        unused = [self.caption_files.get_key(place) for place in np.flatnonzero(is_unused)[:NUM_EXAMPLES]]
        message = (
            f"{num_unmatched} of {len(dataset)} images lack captions in `--caption_files`{list_examples(unmatched)}; "
            f"{is_unused.sum()} of {len(is_unused)} rows there belong to none of the images{list_examples(unused)}."
        )
        if num_unmatched == len(dataset):
            raise ValueError(f"{message} Name the right `--key_column` and `--file_key_column`.")
        logger.warning(message)


@dataclass
class RowCounts:
    """
    What became of rows: each was used, or left out for a reason. The counts of several processes and of several
    starts of a run add up.

    Args:
        num_rows (`int`, *optional*, defaults to 0):
            Rows that were read.
        left_out (`dict[str, int]`, *optional*):
            Rows that were left out, by the reason.
        num_unmatched (`int`, *optional*, defaults to 0):
            Rows that have no captions in the caption files, used or not.
        examples (`dict[str, list[str]]`, *optional*):
            The names of a few rows that were left out, by the reason, and under `"unmatched"` a few keys.
    """

    num_rows: int = 0
    left_out: dict[str, int] = field(default_factory=Counter)
    num_unmatched: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def num_used(self) -> int:
        return self.num_rows - sum(self.left_out.values())

    def count(self, name: str, reason: str | None = None, unmatched: str | None = None) -> None:
        """
        Counts a row: what messages call it, why it is left out if it is, and its key if it has no captions in the
        caption files.
        """
        self.num_rows += 1
        if reason is not None:
            self.left_out[reason] += 1
            self.note(reason, [name])
        if unmatched is not None:
            self.num_unmatched += 1
            self.note("unmatched", [unmatched])

    def note(self, reason: str, names: list[str]) -> None:
        self.examples[reason] = list(dict.fromkeys(self.examples.get(reason, []) + names))[:NUM_EXAMPLES]

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

    def sum_over_processes(self) -> "RowCounts":
        """The counts of all processes as one. Every process must call this."""
        return sum(gather_object([self]), start=RowCounts())

    def state_dict(self) -> dict:
        """The arguments of equal counts, for JSON."""
        return vars(self) | {"left_out": dict(self.left_out)}

    def check_matched(self) -> None:
        """Raises a `ValueError` if no row has captions in the caption files."""
        if self.num_unmatched == self.num_rows > 0:
            raise ValueError(
                f"None of {self.num_rows} images has captions in `--caption_files`"
                f"{list_examples(self.examples['unmatched'])}. Name the right `--key_column` and `--file_key_column`."
            )

    def __str__(self) -> str:
        parts = [f"{count}, {why}{list_examples(self.examples.get(why, []))}" for why, count in self.left_out.items()]
        message = f"{self.num_used} of {self.num_rows} rows are used"
        message += f"; left out: {'; '.join(parts)}." if parts else "."
        if self.num_unmatched:
            examples = list_examples(self.examples.get("unmatched", []))
            message += f" {self.num_unmatched} have no captions in `--caption_files`{examples}."
        return message

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Functions of users that make columns of captions from rows of another form: `--row_reader NAME` of a plugin."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import xxhash
from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher

from ..utils.plugins import Registry
from .images import undecoded
from .rows import name_row


class RowReaders(Registry[Callable[[dict], dict]]):
    """Holds functions that read rows by name."""

    def check(self, name: str, item: Callable[[dict], dict]) -> None:
        """Raises a `ValueError` for what is no function."""
        if not callable(item):
            raise ValueError(f"The row reader `{name}` is a {type(item).__name__}: give a function.")


# By name, functions that take a row without its image, and return columns that are added to it
ROW_READERS = RowReaders("row reader")


@dataclass
class RowFunction:
    """
    Calls a function of a user with rows without their image, and returns what it makes, a column for each key.

    Args:
        name (`str`): Its name in [`ROW_READERS`].
        function (`Callable`): The function.
        image_column (`str`): The column of images.
        columns (`set[str]`, *optional*): The columns that it has made of earlier rows.
    """

    name: str
    function: Callable[[dict], dict]
    image_column: str
    columns: set[str] | None = None

    def __call__(self, row: dict, row_index: int | None = None) -> dict:
        """
        Raises a `ValueError` for a row of which the function makes no columns, since `datasets` would leave it as it
        is, or others than of earlier rows, of which some would be lost.
        """
        texts = {column: value for column, value in row.items() if column != self.image_column}
        made = self.function(texts)
        if not isinstance(made, Mapping) or not made:
            raise ValueError(
                f"`--row_reader {self.name}` returns {made!r} for {name_row(row, row_index)}, {reprlib.repr(texts)}: "
                'return a dictionary, with the same columns for every row, and "" or [] in a column of captions '
                "where there is none."
            )
        if self.columns is None:
            self.columns = set(made)
        if made.keys() != self.columns:
            raise ValueError(
                f"`--row_reader {self.name}` returns the columns {sorted(made)} for {name_row(row, row_index)}, "
                f"{reprlib.repr(texts)}, and {sorted(self.columns)} for earlier rows: return the same for every row, "
                'with "" or [] where there is no caption.'
            )
        return made


def read_rows(
    rows: Dataset | IterableDataset,
    name: str | None,
    image_column: str,
) -> Dataset | IterableDataset:
    """
    Adds the columns that a function makes of each row; those of the same names are replaced.

    Args:
        rows (`Dataset` or `IterableDataset`): The rows.
        name (`str`, *optional*): The name of the function in [`ROW_READERS`]; the rows stay as they are without.
        image_column (`str`): The column of images, which the function does not get.

    Raises:
        `ValueError`: if there is no such function, or it makes no columns of a row, or others than of those before.
    """
    if name is None:
        return rows
    if name not in ROW_READERS:
        known = ", ".join(ROW_READERS) or "none"
        raise ValueError(f"`--row_reader {name}` is not registered, but {known}: name its file with `--plugin`.")
    function = ROW_READERS[name]
    read = RowFunction(name, function, image_column)
    if isinstance(rows, IterableDataset):
        return undecoded(rows, image_column).map(read)  # else each image is decoded once more, and a broken one fails
    texts = rows.remove_columns([image_column] if image_column in rows.column_names else [])
    # made anew by each run: the function may read files and variables, which nothing shows
    fingerprint = Hasher.hash((texts._fingerprint, name, uuid4().hex))
    made = texts.map(
        read,
        with_indices=True,
        remove_columns=texts.column_names,
        new_fingerprint=fingerprint,
        desc=f"Reading rows by {name}",
    )
    made = name_by_content(made)
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)


def name_by_content(rows: Dataset) -> Dataset:
    """
    Names the file that rows were just written to by what is in it. Equal rows of several runs, or processes, are kept
    once, and no file is written over that one of them still reads. Rows in memory have none.
    """
    if not rows.cache_files:
        return rows
    digest = xxhash.xxh3_128()
    for table in rows.with_format("arrow").iter(batch_size=1000):
        for batch in table.to_batches():
            digest.update(batch.serialize())
    written = Path(rows.cache_files[0]["filename"])
    named = written.with_name(f"rows-{digest.hexdigest()}.arrow")
    try:
        if named.exists():
            written.unlink()
        else:
            written.rename(named)
    except PermissionError:  # Windows lets nobody move a file that is open
        return rows
    return Dataset.from_file(str(named))

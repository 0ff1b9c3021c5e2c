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
from huggingface_hub.constants import HF_HOME

from ..utils.plugins import Registry
from .images import undecoded
from .rows import name_row


# Of the columns that functions have made
FOLDER = Path(HF_HOME, "lotlip", "row_readers")


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
    if not texts.column_names:
        raise ValueError(f"`--row_reader {name}` gets no images, and the rows have nothing but these: leave it out.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    # made anew by each run: the function may read files and variables, which nothing shows
    written = FOLDER / f"{uuid4().hex}.arrow"
    made = texts.map(
        read,
        with_indices=True,
        remove_columns=texts.column_names,
        cache_file_name=str(written),
        new_fingerprint=written.stem,  # else the function would be hashed
        desc=f"Reading rows by {name}",
    )
    if written.exists():  # else there are no rows
        made = name_by_content(made, written)
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)


def name_by_content(rows: Dataset, written: Path) -> Dataset:
    """
    Names a file by the rows that were written to it. Equal ones of several runs, or processes, are kept once and have
    the same fingerprint, and no file is written over that one of them still reads.

    Args:
        rows (`Dataset`): The rows.
        written (`Path`): The file.
    """
    digest = xxhash.xxh3_128(rows.data.schema.remove_metadata().serialize())
    digest.update(repr(rows.features).encode())
    for table in rows.with_format("arrow").iter(batch_size=1000):
        for batch in table.to_batches():
            digest.update(batch.serialize())
    fingerprint = digest.hexdigest()
    named = FOLDER / f"{fingerprint}.arrow"
    try:
        if named.exists():
            written.unlink()
        else:
            written.replace(named)
        rows = Dataset.from_file(str(named))
    except PermissionError:  # Windows lets nobody move a file that is open
        pass
    return Dataset(rows.data, info=rows.info, fingerprint=fingerprint)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Functions of users that make columns of captions from rows of another form: `--row_reader NAME` of a plugin."""

import inspect
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher

from ..utils.plugins import Registry
from ..utils.user_files import map_user_files
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


def read_source(name: str) -> str:
    """
    Reads the source of a function of [`ROW_READERS`], of its whole file if it is in one, of the plugin that has
    registered it, and of all modules of users that these import: see [`map_user_files`].
    """
    function = ROW_READERS[name]
    while isinstance(function, partial):
        function = function.func
    module = inspect.getmodule(function)
    file = getattr(module, "__file__", None)
    sources = []
    if file is None:
        sources.append(inspect.getsource(function))
    else:
        sources.append(Path(file).read_text(encoding="utf-8"))
    modules = [module]
    if name in ROW_READERS.registered_by:
        modules.append(sys.modules.get(ROW_READERS.registered_by[name].name))
    for path in sorted(map_user_files(module for module in modules if module is not None)):
        sources.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(sources)


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
    # a changed source is noticed, which a function that is imported by its name does not show
    fingerprint = Hasher.hash((texts._fingerprint, name, read_source(name)))
    made = texts.map(
        read,
        with_indices=True,
        remove_columns=texts.column_names,
        new_fingerprint=fingerprint,
        load_from_cache_file=False,  # the function may read files and variables, which its source does not show
        desc=f"Reading rows by {name}",
    )
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)

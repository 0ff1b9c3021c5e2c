# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Functions of users that make columns of captions from rows of another form: `--row_reader NAME` of a plugin."""

import inspect
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher


# By name, functions that take a row without its image, and return columns that are added to it
ROW_READERS: dict[str, Callable[[dict], dict]] = {}


def read_source(function: Callable) -> str:
    """Reads the source of the file that a function is in, since it may call others there; without a file its own."""
    file = getattr(inspect.getmodule(function), "__file__", None)
    if file is None:
        return inspect.getsource(function)
    return Path(file).read_text(encoding="utf-8")


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
        `ValueError`: if there is no such function.
    """
    if name is None:
        return rows
    if name not in ROW_READERS:
        known = ", ".join(ROW_READERS) or "none"
        raise ValueError(f"`--row_reader {name}` is not registered, but {known}: name its file with `--plugin`.")
    function = ROW_READERS[name]
    if isinstance(rows, IterableDataset):
        return rows.map(function)
    texts = rows.remove_columns([image_column] if image_column in rows.column_names else [])
    # a changed source is noticed, which a function that is imported by its name does not show
    fingerprint = Hasher.hash((texts._fingerprint, name, read_source(function)))
    made = texts.map(
        function, remove_columns=texts.column_names, new_fingerprint=fingerprint, desc=f"Reading rows by {name}"
    )
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Functions of users that make columns of captions from rows of another form: `--row_reader NAME` of a plugin."""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import xxhash
from datasets import Dataset, Features, IterableDataset, Json, List, Value, concatenate_datasets
from datasets.features.features import FeatureType
from huggingface_hub.constants import HF_HOME

from ..utils.plugins import Registry
from ..utils.terminal import progress_bar
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
        kinds (`dict[str, set[str]]`, *optional*): What it has made of earlier rows, by the column: see
            [`find_value_kind`].
    """

    name: str
    function: Callable[[dict], dict]
    image_column: str
    kinds: dict[str, set[str]] | None = None

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
        if self.kinds is None:
            self.kinds = {column: set() for column in made}
        if made.keys() != self.kinds.keys():
            raise ValueError(
                f"`--row_reader {self.name}` returns the columns {sorted(made)} for {name_row(row, row_index)}, "
                f"{reprlib.repr(texts)}, and {sorted(self.kinds)} for earlier rows: return the same for every row, "
                'with "" or [] where there is no caption.'
            )
        columns = {}
        for column, value in made.items():
            columns[column] = to_plain_value(value)
            self.kinds[column].add(find_value_kind(columns[column]))
        return columns


@dataclass
class ColumnWriter:
    """
    Gives `datasets` some of the columns that a function makes of a row, as values of their types.

    Args:
        read ([`RowFunction`]): The function.
        types (`dict[str, FeatureType | None]`): The types of the columns: see [`choose_type`].
    """

    read: RowFunction
    types: dict[str, FeatureType | None]

    def __call__(self, row: dict, row_index: int) -> dict:
        """Returns the values of a row, by the column. Raises a `ValueError` if one is of no kind that was seen."""
        made = self.read(row, row_index)
        for column, column_type in self.types.items():
            if column_type is not None and choose_type(self.read.kinds[column]) != column_type:
                raise ValueError(
                    f"`--row_reader {self.read.name}` returns {reprlib.repr(made[column])} as {column!r} for "
                    f"{name_row(row, row_index)} when it reads it once more, and something of another kind before: "
                    "let it return the same for the same row."
                )
        return {column: to_written_value(made[column], column_type) for column, column_type in self.types.items()}


def to_plain_value(value: object) -> object:
    """Returns a value without the arrays and numbers of numpy."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def is_nan(value: object) -> bool:
    """Returns whether this is `nan`, as pandas writes what is not there."""
    return isinstance(value, float) and math.isnan(value)


def is_json(value: object) -> bool:
    """Returns whether a value can be written as JSON, and is the same when it is read."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_json(item) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_json(item) for item in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str)


def find_value_kind(value: object) -> str:
    """
    Returns what a value is: `"text"`, `"texts"` or `"list"` for a list of texts or of none, `"bool"`, `"int"`,
    `"float"`, `"nan"`, `"none"`, `"json"` for what else JSON holds, and else `"other"`.
    """
    if value is None:
        return "none"
    if isinstance(value, str):
        return "text"
    if is_nan(value):
        return "nan"
    if not is_json(value):
        return "other"
    if isinstance(value, (bool, int, float)):
        return type(value).__name__
    if isinstance(value, (list, tuple)):
        kinds = {type(item) for item in value if item is not None}
        if not kinds:
            return "list"
        if all(issubclass(kind, str) for kind in kinds):
            return "texts"
    return "json"


def choose_type(kinds: set[str]) -> FeatureType | None:
    """Chooses a type that holds all values of some kinds; `None` if `datasets` has to find it."""
    kinds = kinds - {"none"}
    if "other" in kinds:
        return None
    if "float" in kinds and kinds <= {"float", "nan"}:
        return Value("float64")
    kinds = kinds - {"nan"}
    if kinds <= {"text"}:
        return Value("string")
    if kinds <= {"texts", "list"}:
        return List(Value("string"))
    if kinds == {"int"}:
        return Value("int64")
    if kinds == {"bool"}:
        return Value("bool")
    return Json()


def to_written_value(value: object, column_type: FeatureType | None) -> object:
    """Returns a value as `datasets` takes it for a column of a type."""
    if column_type is None or column_type == Value("float64"):
        return value
    if value is None or is_nan(value):
        return None
    # as JSON, since of the text "007" `datasets` would make a 7
    return json.dumps(value) if isinstance(column_type, Json) else value


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
    if len(texts) == 0:
        return rows
    made = make_typed_columns(texts, read)
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)


def make_typed_columns(texts: Dataset, read: RowFunction) -> Dataset:
    """
    Makes the columns of a function from rows, of which there must be one. They are read twice: at first for the types
    of the columns, of which `datasets` would know those of the first 1,000 rows, and then to be written.

    Args:
        texts (`Dataset`): The rows, without their images.
        read ([`RowFunction`]): The function.
    """
    rows = progress_bar(texts, desc=f"Reading rows by {read.name}", unit=" rows", delay=1)
    for row_index, row in enumerate(rows):
        read(row, row_index)
    types = {column: choose_type(kinds) for column, kinds in read.kinds.items()}
    types.pop(read.image_column, None)  # paths, contents, or both
    known = {column: column_type for column, column_type in types.items() if column_type is not None}
    others = {column: None for column in read.kinds if column not in known}
    parts = []
    if known:
        parts.append(write_columns(texts, ColumnWriter(read, known), Features(known)))
    if others:
        parts.append(write_columns(texts, ColumnWriter(read, others)))
    return concatenate_datasets(parts, axis=1).select_columns(list(read.kinds))


def write_columns(texts: Dataset, write: ColumnWriter, features: Features | None = None) -> Dataset:
    """
    Writes columns that a function makes of rows to a file, which is named by its content.

    Args:
        texts (`Dataset`): The rows, without their images.
        write ([`ColumnWriter`]): What makes the columns.
        features (`Features`, *optional*): Their types. Default: those of the first 1,000 rows.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    # made anew by each run: the function may read files and variables, which nothing shows
    written = FOLDER / f"{uuid4().hex}.arrow"
    made = texts.map(
        write,
        with_indices=True,
        remove_columns=texts.column_names,
        cache_file_name=str(written),
        new_fingerprint=written.stem,  # else the function would be hashed
        features=features,
        desc=f"Writing columns of {write.read.name}",
    )
    return name_by_content(made, written)


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

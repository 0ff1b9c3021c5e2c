# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Functions of users that make columns of captions from rows of another form: `--row_reader NAME` of a plugin."""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import xxhash
from datasets import Dataset, Features, IterableDataset, Json, List, Value, concatenate_datasets
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
        features (`Features`, *optional*): The types that the columns are written in, if they are known.
        kinds (`dict[str, set[str]]`, *optional*): What it has made of earlier rows, by the column: see
            [`find_value_kind`].
    """

    name: str
    function: Callable[[dict], dict]
    image_column: str
    features: Features | None = None
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
            value = to_plain_value(value)
            kind = find_value_kind(value)
            if kind is not None:
                self.kinds[column].add(kind)
            is_json = self.features is not None and isinstance(self.features[column], Json)
            # of the text "007" `datasets` would make a 7
            columns[column] = json.dumps(value) if is_json and kind == "text" else value
        return columns

    @property
    def mixed_columns(self) -> set[str]:
        """The columns that have values of several kinds."""
        return {column for column, kinds in (self.kinds or {}).items() if len(kinds) > 1}

    def choose_features(self) -> Features:
        """Chooses types that hold all that it has made: JSON but for texts alone, and lists of texts alone."""
        features = {}
        for column, kinds in (self.kinds or {}).items():
            if kinds == {"text"}:
                features[column] = Value("string")
            elif kinds == {"texts"} or not kinds:
                features[column] = List(Value("string"))
            else:
                features[column] = Json()
        return Features(features)


def to_plain_value(value: object) -> object:
    """Returns a value without arrays of numpy, and `None` for `nan`, as pandas writes what is not there."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def find_value_kind(value: object) -> str | None:
    """
    Returns `"text"`, `"texts"` for a list of them, or `"other"`; `None` for what stands for nothing: `None`, an empty
    list or one of these.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return "text"
    if not isinstance(value, (list, tuple)):
        return "other"
    kind = None
    for item in value:
        if isinstance(item, str):
            kind = "texts"
        elif item is not None:
            return "other"
    return kind


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
    made = make_typed_columns(texts, read)
    kept = [column for column in rows.column_names if column not in made.column_names]
    return concatenate_datasets([rows.select_columns(kept), made], axis=1)


def make_typed_columns(texts: Dataset, read: RowFunction) -> Dataset:
    """
    Makes the columns of a function from rows. `datasets` knows the type of a column by the first 1,000 rows: if those
    have nothing, and later ones do, or some have texts and others lists, all are made once more, by types that hold
    all of them.

    Args:
        texts (`Dataset`): The rows, without their images.
        read ([`RowFunction`]): The function.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    # made anew by each run: the function may read files and variables, which nothing shows
    written = FOLDER / f"{uuid4().hex}.arrow"
    features = None
    try:
        made = write_columns(texts, read, written)
    except (TypeError, pa.ArrowException):
        made = None
    if made is None:
        for row_index, row in enumerate(texts):  # also those after it
            read(row, row_index)
        features = read.choose_features()
    elif read.mixed_columns:
        features = Features(made.features | dict.fromkeys(read.mixed_columns, Json()))
        with suppress(PermissionError):  # Windows deletes no file that is open
            written.unlink(missing_ok=True)
    if features is not None:
        written = FOLDER / f"{uuid4().hex}.arrow"
        made = write_columns(texts, replace(read, features=features), written)
    if written.exists():  # else there are no rows
        made = name_by_content(made, written)
    return made


def write_columns(texts: Dataset, read: RowFunction, written: Path) -> Dataset:
    """
    Writes the columns that a function makes of rows to a file.

    Args:
        texts (`Dataset`): The rows, without their images.
        read ([`RowFunction`]): The function, perhaps with the types of the columns.
        written (`Path`): The file, which is not there where there are no rows.
    """
    return texts.map(
        read,
        with_indices=True,
        remove_columns=texts.column_names,
        cache_file_name=str(written),
        new_fingerprint=written.stem,  # else the function would be hashed
        features=read.features,
        desc=f"Reading rows by {read.name}",
    )


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

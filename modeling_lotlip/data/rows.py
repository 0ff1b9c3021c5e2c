# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Rows of a dataset, and what one holds: captions, and the key and the address of its image."""

import ast
import hashlib
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from itertools import islice
from types import NoneType
from typing import Any

from datasets import Dataset, Image, IterableDataset, Json, Value
from datasets.config import DOWNLOADED_DATASETS_PATH
from transformers.utils import logging

from ..utils.keys import to_key
from ..utils.texts import is_invisible
from .arguments import SourceArguments, find_folder
from .images import UnreadableImageError, read_file, unformatted


logger = logging.get_logger(__name__)

Rows = Dataset | IterableDataset
# In which fields of JSON are looked for
NUM_ROWS_WITH_FIELDS = 10_000
NUM_ROWS_OF_STREAM = 100
# Where img2dataset and the large collections have addresses
URL_COLUMNS = ("url", "json.url", "URL", "image_url")
# The address of a file of a dataset of the Hub, or its path after a download, with the commit in it
PATH_IN_REPOSITORY = re.compile(
    r"(hf://datasets/(?P<address>[^/@]+/[^/@]+)(@[^/]+)?/|datasets--(?P<cached>[^/\\]+)[/\\]snapshots[/\\][^/\\]+[/\\])(?P<path>.+)"
)
REPOSITORY_ADDRESS = re.compile(r"hf://datasets/([^/@]+/[^/@]+)")
# What databases and pandas write for no value
MISSING_WORDS = ("NULL", "null", "\\N", "nan", "NaN", "None", "N/A", "n/a", "NA", "<NA>")
# How exports of databases write line breaks; no word such as \neq goes on after it
WRITTEN_LINE_BREAK = re.compile(r"\\[nr](?![a-z])")


def get_columns(dataset: Rows) -> list[str]:
    """Returns the columns, if need be those of the first row of a stream. Raises a `ValueError` if there is none."""
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if not columns:
        raise ValueError("The dataset has no rows: name other data or another split.")
    return columns


def look_up(row: dict, column: str) -> object:
    """Finds the value of a row in a column, where dots lead into dictionaries (`json.url`)."""
    value = row.get(column)
    if value is not None or "." not in column:
        return value
    value = row
    for name in column.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def list_captions(row: dict, column: str | None) -> list[str]:
    """
    Lists the captions in one column, a string or a list, blank ones too. Raises a `ValueError` if it holds something
    else.
    """
    found = None
    if column is not None:
        found = look_up(row, column)
    captions = list(found) if isinstance(found, (list, tuple)) else [found]
    if any(isinstance(caption, bytes) for caption in captions):
        raise ValueError(
            f"The column {column!r} must hold strings or lists of strings, got bytes, {found!r}: in "
            "shards texts must have names that end in .txt."
        )
    if not all(caption is None or isinstance(caption, str) for caption in captions):
        raise ValueError(f"The column {column!r} must hold strings or lists of strings, got {found!r}.")
    if any(is_list_as_text(caption or "") for caption in captions):
        raise ValueError(f"The column {column!r} holds lists as text, as CSV files do: write them as JSON lines.")
    return [caption or "" for caption in captions]


def is_list_as_text(text: str) -> bool:
    """
    Whether a text is a list, tuple or set of texts, missing values and the like, as pandas, JSON, NumPy and PostgreSQL
    write it into a cell of a CSV file, such as `('a boat', nan)`.
    """
    text = text.strip()
    if not text.startswith(("[", "(", "{")) or not text.endswith(("]", ")", "}")):
        return False
    try:
        value = ast.literal_eval(re.sub(r"(?i)\b(nan|null)\b", "None", text))
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):  # an ordinary text
        return False
    may_be_captions = (str, NoneType, list, tuple, dict)
    return isinstance(value, (list, tuple, set)) and all(isinstance(item, may_be_captions) for item in value)


def read_captions(row: dict, column: str | None) -> list[str]:
    """Reads the captions of [`list_captions`] that are not blank. Warns once of marks of databases."""
    captions = [caption for caption in list_captions(row, column) if not is_invisible(caption)]
    for caption in captions:
        if caption.strip() in MISSING_WORDS:
            logger.warning_once(
                f"The column {column!r} holds {caption.strip()!r}, which is read as a caption: leave such cells empty "
                "if they have none."
            )
        if WRITTEN_LINE_BREAK.search(caption):
            logger.warning_once(
                f"The column {column!r} holds line breaks as a backslash and a letter, as exports of databases write "
                "them: they are read as these, and end no sub-caption. Write line breaks, in quoted cells."
            )
    return captions


def find_column(columns: Iterable[str], name: str) -> str | None:
    """Finds the column that holds what a name such as `url` or `json.url` names; None if there is none."""
    columns = set(columns)
    for column in (name, name.split(".")[0]):
        if column in columns:
            return column
    return None


def check_columns(columns: Iterable[str], **named: str | None) -> None:
    """Raises a `ValueError` if an argument, such as `key_column`, names a column that is not there."""
    columns = list(columns)
    for argument, name in named.items():
        if name is None or find_column(columns, name) is not None:
            continue
        check_blanks(columns, argument, name)
        if "__key__" in columns and any(column.endswith(f".{name}") for column in columns):
            raise ValueError(
                f"`--{argument} {name}` is not a column of the dataset, which has {columns}: in "
                "shards a column is all that follows the first dot of a name. Name that, or write "
                "keys without dots."
            )
        if re.search(r"[;\t|]", "".join(columns)):
            raise ValueError(
                f"`--{argument} {name}` is not a column of the dataset, which has {columns}: separate cells by commas."
            )
        raise ValueError(f"`--{argument} {name}` is not a column of the dataset, which has {columns}: name one.")


def check_fields(dataset: Rows, **named: str | None) -> None:
    """
    Checks that an argument such as `key_column` names a field that is there, where dots lead into dictionaries. Of
    JSON the first rows say which it has, until one has the field; where there are more, a warning says that none of
    these has it. Of rows that a function of the user transforms nothing is checked.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        named:
            The names by argument. What is no name with dots, or in no column, is left to [`check_columns`].

    Raises:
        `ValueError`: if a field is not there.
    """
    columns = get_columns(dataset)
    for argument, name in named.items():
        column = find_column(columns, name or "")
        if column is not None and column != name:
            check_field(dataset, column, argument, name)


def check_field(dataset: Rows, column: str, argument: str, name: str) -> None:
    """
    Checks that a field of a column is there: see [`check_fields`].

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        column (`str`):
            The column.
        argument (`str`):
            The argument that names the field, without dashes.
        name (`str`):
            The name, which begins with that of the column.
    """
    if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
        return
    path = name.removeprefix(f"{column}.").split(".")
    held = (dataset.features or {}).get(column)
    if isinstance(held, Image):
        held = {"bytes": None, "path": None}  # as an undecoded one
    is_there = has_field(held, path)
    num_read = NUM_ROWS_OF_STREAM
    if isinstance(dataset, Dataset):
        num_read = min(NUM_ROWS_WITH_FIELDS, len(dataset))
    is_known = is_there is not None or (isinstance(dataset, Dataset) and num_read == len(dataset))
    if is_there is None:
        rows = unformatted(dataset).select_columns(column).take(num_read)
        is_there, held, num_read = find_in_rows(rows, column, path)
    if is_there is not False:
        return
    found = reprlib.repr(held)
    if isinstance(held, dict):
        found = f"the fields {list(held)}"
    if is_known:
        raise ValueError(
            f"`--{argument} {name}` is not there: the column {column!r} holds {found}: name a field, or a column, "
            "that is there."
        )
    logger.warning_once(
        f"`--{argument} {name}` is in none of the first {num_read} rows: the column {column!r} holds "
        f"{found}. If that is a slip, name a field, or a column, that is there."
    )


def has_field(held: object, path: list[str]) -> bool | None:
    """
    Whether a value has the field that names lead to, each in the dictionary of the one before, or a type of columns
    has. None if there is nothing on the way, or JSON whose fields only its values know.
    """
    for name in path:
        if held is None or held == Value("null") or isinstance(held, Json):
            return None
        if not isinstance(held, dict) or name not in held:
            return False
        held = held[name]
    return True


def find_in_rows(rows: Rows, column: str, path: list[str]) -> tuple[bool | None, object, int]:
    """
    Finds out whether a row has a field of a column: see [`has_field`]. None if the rows have nothing there. Beside it
    are the first value in the column that has no such field, and how many rows were read.
    """
    first = None
    num_read = 0
    for row in rows:
        num_read += 1
        is_there = has_field(row.get(column), path)
        if is_there:
            return True, None, num_read
        if is_there is False and first is None:
            first = row[column]
    if first is None:
        return None, None, num_read
    return False, first, num_read


def check_blanks(columns: list[str], argument: str, name: str) -> None:
    """
    Raises a `ValueError` if a column has the name of an argument but for blanks around it.

    Args:
        columns (`list[str]`):
            The columns.
        argument (`str`):
            The argument, without dashes.
        name (`str`):
            Its value.
    """
    for column in columns:
        if column.strip() == name and name not in columns:
            raise ValueError(
                f"`--{argument} {name}` is not a column of the dataset, which has {column!r} with "
                "blanks: take them away in the header of the file."
            )


def may_be_key(value: object) -> bool:
    """Whether a value is written in one way only: floats, lists and dates are not."""
    return not isinstance(value, (list, float)) and not hasattr(value, "isoformat")


def decode_key(value: bytes, column: str) -> str:
    """Reads a key that is stored as bytes. Raises a `ValueError` if they are no text."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The column of keys, {column}, must hold integers or strings, but has bytes that are no "
            f"text in UTF-8, {value[:20]!r}: write strings there, or name another column."
        ) from error


def read_key(row: dict, column: str) -> str | None:
    """
    Reads the key of an image: what [`look_up`] finds, or of an undecoded image the SHA-256 of its
    file. Raises a `ValueError` if it may be none: see [`may_be_key`].
    """
    value = look_up(row, column)
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        try:
            return hashlib.sha256(read_file(value)).hexdigest()
        except UnreadableImageError:
            return None  # who then reads the image says why it cannot be read
    if isinstance(value, bytes):  # as of a file in a shard whose ending `datasets` does not know
        value = decode_key(value, column)
    if not may_be_key(value):
        raise ValueError(
            f"The column of keys, {column}, must hold integers or strings, but has {value!r}: "
            "write strings there, or name another column."
        )
    if value is None or value == "":
        return None
    return str(value)


def find_key(row: dict, source: SourceArguments, key_column: str | None = None) -> str | None:
    """
    Finds the key of an image without reading its file: of `key_column`, or the `__key__` of a shard, or the path in
    the folder or the repository of the data, which may be moved. None where the SHA-256 of the file is the key, as of
    a download, whose path is known to this machine alone.
    """
    if key_column is not None:
        if key_column == source.image_column:
            return None
        return read_key(row, key_column)
    if row.get("__key__") is not None:
        return row["__key__"]
    path = (row[source.image_column] or {}).get("path")
    if not path:
        return path
    file = to_path_in_archive(path)
    in_repository = PATH_IN_REPOSITORY.search(file)
    if in_repository is not None:
        repository = in_repository["address"] or in_repository["cached"].replace("--", "/")
        named = find_named_repositories(source)
        if repository == source.dataset_name or named == {repository}:
            return to_key(in_repository["path"])
        if repository in named:  # and others, which may have the same paths
            return None
    folder = find_folder(source)
    folders = [folder]
    folders += [os.path.dirname(os.path.abspath(os.path.join(folder, file))) for file in source.data_files or []]
    for folder in filter(None, folders):
        for base in (os.path.abspath(folder), os.path.realpath(folder)):
            # Windows does not distinguish upper and lower case, for instance of a drive's letter
            if os.path.normcase(file).startswith(os.path.normcase(base + os.sep)):
                return to_key(os.path.relpath(file, base))
    if os.path.normcase(file).startswith(os.path.normcase(os.path.join(DOWNLOADED_DATASETS_PATH, ""))):
        return None
    return path


def find_named_repositories(source: SourceArguments) -> set[str]:
    """Finds the repositories of the Hub whose files the data arguments name."""
    addresses = map(REPOSITORY_ADDRESS.match, source.data_files or [])
    return {address[1] for address in addresses if address is not None}


def are_of_one_repository(files: list[str], source: SourceArguments) -> bool:
    """
    Whether files are of one repository of the Hub that the data arguments name, in which their paths are the keys:
    see [`find_key`].
    """
    addresses = [REPOSITORY_ADDRESS.match(file) for file in files]
    if None in addresses:
        return False
    repositories = {address[1] for address in addresses}
    if repositories == {source.dataset_name}:
        return True
    return len(repositories) == 1 and repositories == find_named_repositories(source)


def to_path_in_archive(path: str) -> str:
    """Writes the address of an image in a zip archive, `zip://a.png::photos.zip`, as a path, `photos.zip/a.png`."""
    if not path.startswith("zip://"):
        return path
    name, _, archive = path.removeprefix("zip://").rpartition("::")
    return os.path.join(archive, name)


def read_url(row: dict) -> str | None:
    """Reads the address that an image comes from, where the dataset knows it."""
    for column in URL_COLUMNS:
        url = look_up(row, column)
        if isinstance(url, str) and url != "":
            return url
    return None


def name_row(row: dict, row_index: int | None = None) -> str:
    """Names a row in messages: by the key of a shard, by the file of its image, or by its index."""
    names = [row.get("__key__"), row.get("file_name")]
    for value in row.values():
        if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
            names.append(value["path"])
    for name in names:
        if name:
            return name
    return "a row" if row_index is None else f"row {row_index}"


def batched(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Puts rows into lists of a size, the last one of what is left."""
    iterator = iter(rows)
    batch = list(islice(iterator, size))
    while batch:
        yield batch
        batch = list(islice(iterator, size))

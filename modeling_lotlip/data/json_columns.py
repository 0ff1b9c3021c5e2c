# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is in the columns of JSON files on this machine, of which pyarrow and `datasets` would make something else."""

import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub.constants import HF_HOME
from pyarrow.json import ReadOptions, read_json
from transformers.utils import logging

from ..utils.files import hash_bytes
from ..utils.output_folder import atomic_write
from ..utils.terminal import without_stop
from .folder import sign, split_archive
from .options import hash_readers
from .row_files import begins_as_list, iterate_json_rows, open_text


logger = logging.get_logger(__name__)

# What pyarrow takes for a time, and perhaps more: "2020-01-01", "2020-01-01T10:20:30Z"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[ T][\d:.+-]+Z?)?")
# Of JSON lines that are read at a time
BYTES_AT_ONCE = 2**23
# What is found in fewer bytes is found as fast again
MIN_KEPT_BYTES = 2**24


class JsonColumns(NamedTuple):
    """
    Columns of JSON files, by what they hold. Each is a list of names in their order, `with_values` also of what is
    inside of columns: `size.width` in a dictionary, and `captions[]` in a list.
    """

    with_dates: list[str]  # a text that is written like a date
    with_values: list[str]  # something else than null
    mixed: list[str]  # values of several types; whole numbers and others are one


class ColumnNotes:
    """Notes what is in the columns of JSON files, row by row, or in the tables that pyarrow makes of many rows."""

    def __init__(self):
        self.with_dates = set()
        # by the name of the column, and the names and 0 (of a list) that lead to the value
        self.types = defaultdict(set)

    def add_row(self, row: object) -> None:
        """Adds the values of a row, a dictionary or nothing but a text."""
        if not isinstance(row, dict):
            row = {"text": row}  # as `datasets` calls it
        for name, value in row.items():
            self.add_value(value, (name,))
            if name not in self.with_dates and holds_date(value):
                self.with_dates.add(name)

    def add_value(self, value: object, path: tuple[str | int, ...]) -> None:
        """Adds the type of a value and of those inside of it, at the path that leads to it."""
        if value is None:
            return
        self.types[path].add(float if type(value) is int else type(value))
        if isinstance(value, list):
            for item in value:
                self.add_value(item, (*path, 0))
        elif isinstance(value, dict):
            for name, item in value.items():
                self.add_value(item, (*path, name))

    def add_table(self, table: pa.Table) -> None:
        """Adds the values of many rows, each column of which has one type."""
        for name in table.column_names:
            for chunk in table[name].chunks:
                self.add_array(chunk, (name,))

    def add_array(self, values: pa.Array, path: tuple[str | int, ...]) -> None:
        """Adds the type of an array and of those inside of it, at the path that leads to it."""
        if pa.types.is_null(values.type):
            return
        if pa.types.is_list(values.type):
            self.types[path].add(list)
            self.add_array(values.flatten(), (*path, 0))
        elif pa.types.is_struct(values.type):
            self.types[path].add(dict)
            for index, field in enumerate(values.type):
                self.add_array(values.field(index), (*path, field.name))
        elif pa.types.is_boolean(values.type):
            self.types[path].add(bool)
        elif pa.types.is_timestamp(values.type):
            self.types[path].add(str)
            self.with_dates.add(path[0])
        elif pa.types.is_string(values.type):
            self.types[path].add(str)
            if path[0] not in self.with_dates and has_date(values):
                self.with_dates.add(path[0])
        else:
            self.types[path].add(float)

    def finish(self) -> JsonColumns:
        """Says what was found in all rows."""
        return JsonColumns(
            with_dates=sorted(self.with_dates),
            with_values=sorted(map(write_path, self.types)),
            mixed=sorted({path[0] for path, found in self.types.items() if len(found) > 1}),
        )


def write_path(path: tuple[str | int, ...]) -> str:
    """Writes the path to a value, such as `sizes[].width`."""
    text = path[0]
    for step in path[1:]:
        text += "[]" if step == 0 else f".{step}"
    return text


def find_empty_parts(column_type: pa.DataType, path: str) -> Iterator[str]:
    """Finds the paths in a type, see [`write_path`], at which there has been no value yet."""
    if pa.types.is_null(column_type):
        yield path
    elif pa.types.is_list(column_type):
        yield from find_empty_parts(column_type.value_type, f"{path}[]")
    elif pa.types.is_struct(column_type):
        for field in column_type:
            yield from find_empty_parts(field.type, f"{path}.{field.name}")


def holds_date(value: object) -> bool:
    """Whether a value of JSON is a text that is written like a date, or holds one."""
    if isinstance(value, str):
        return DATE.fullmatch(value) is not None
    if isinstance(value, dict):
        return any(map(holds_date, value.values()))
    return isinstance(value, list) and any(map(holds_date, value))


def has_date(texts: pa.Array) -> bool:
    """Whether one of many texts is written like a date."""
    return pc.any(pc.match_substring_regex(texts, f"^(?:{DATE.pattern})$")).as_py() or False


def find_json_columns(files: Iterable[str]) -> JsonColumns:
    """
    Finds what is in the columns of JSON files, in all rows. What is found in large files is kept on this machine until
    one of them changes: each process would look for it, and each run.

    Raises:
        `ValueError`: if a file is not UTF-8, or cannot be read.
    """
    files = list(files)
    signatures = []
    num_bytes = 0
    for file in files:
        archive, name = split_archive(file)
        status = os.stat(archive)
        signatures.append([os.path.abspath(archive), name, *sign(status)])
        num_bytes += status.st_size
    if num_bytes < MIN_KEPT_BYTES:
        return read_json_columns(files)
    name = hash_bytes(json.dumps(signatures).encode())
    path = Path(HF_HOME, "lotlip", "json_columns", f"{name}-{hash_readers()}.json")
    if path.exists():
        return JsonColumns(**json.loads(path.read_text(encoding="utf-8")))
    columns = read_json_columns(files)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(columns._asdict()), encoding="utf-8")
    except OSError as error:  # a stream needs nothing but the files
        logger.warning_once(
            f"What is found in JSON files cannot be kept, and is looked for by each run: {without_stop(error)}."
        )
    return columns


def read_json_columns(files: Iterable[str]) -> JsonColumns:
    """
    Reads JSON files to find what is in their columns: see [`find_json_columns`]. pyarrow does so many times faster
    than Python, but reads no rows of a list, nor a column of several types.
    """
    notes = ColumnNotes()
    for file in files:
        if is_json_list(file):
            for _, row in iterate_json_rows(file):
                notes.add_row(row)
            continue
        for lines in iterate_lines(file):
            table = read_table(lines)
            if table is not None:
                notes.add_table(table)
            elif not add_lines(notes, lines):
                break  # who reads the rows after this says so
    return notes.finish()


def is_json_list(path: str) -> bool:
    """Whether a JSON file is a list, and not JSON lines."""
    with open_text(path) as file:
        return begins_as_list(file)


def iterate_lines(path: str) -> Iterator[bytes]:
    """Reads JSON lines, many at a time. Raises a `ValueError` if they are not UTF-8."""
    with open_text(path) as file:
        content = file.buffer
        while lines := content.read(BYTES_AT_ONCE):
            lines += content.readline()
            lines.decode()
            yield lines


def read_table(lines: bytes) -> pa.Table | None:
    """
    Reads JSON lines by pyarrow, if it can and each row is a line. All are one block: of several, in each of which a
    column has one type, it would make texts.
    """
    try:
        table = read_json(io.BytesIO(lines), ReadOptions(use_threads=False, block_size=len(lines)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    num_lines = lines.count(b"\n") + (not lines.endswith(b"\n"))
    return table if len(table) == num_lines else None


def add_lines(notes: ColumnNotes, lines: bytes) -> bool:
    """Adds the rows of JSON lines one by one. Returns whether all of them are JSON."""
    for line in io.StringIO(lines.decode("utf-8-sig"), newline=""):
        if line.strip():
            try:
                notes.add_row(json.loads(line))
            except json.JSONDecodeError:
                return False
    return True

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checks of files of rows: what the libraries that read them would take for something else, or drop, is an error."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from datasets import DatasetBuilder, Features, Value
from datasets.packaged_modules.csv.csv import Csv
from pyarrow import parquet

from ..utils.terminal import without_stop
from .folder import list_files, list_other_splits, select_split, split_archive
from .options import find_options, hash_readers
from .rows import look_up


# The functions that open text files, by the endings of compressed ones
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# Endings of archives, which `datasets` extracts by itself
ARCHIVES = (".zip", ".tar", ".zst", ".lz4", ".7z", ".rar")
# The options of `datasets` that say where cells of a CSV file begin and end, by their names in Python's `csv`
CSV_FORMAT = {
    "sep": "delimiter",
    "quotechar": "quotechar",
    "doublequote": "doublequote",
    "escapechar": "escapechar",
    "skipinitialspace": "skipinitialspace",
    "quoting": "quoting",
}
# Further ones by which a row keeps its cells; of others, such as `skiprows`, the rows are not checked
OTHER_CSV_OPTIONS = (
    "delimiter",
    "names",
    "column_names",
    "usecols",
    "converters",
    "true_values",
    "false_values",
    "na_values",
    "keep_default_na",
    "na_filter",
    "thousands",
    "decimal",
    "date_format",
    "float_precision",
    "engine",
    "chunksize",
    "memory_map",
)
# Options by which a cell is read as what is written in it, or as missing
PLAIN_CSV_OPTIONS = (*CSV_FORMAT, "converters", "keep_default_na", "na_values")
# Cells that are numbers. 007 is a text, and so is what has more digits than a float keeps.
INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,14})", re.ASCII)
NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)
# A cell that is quoted, but after a blank, so that the marks are read as a part of the text
BLANK_BEFORE_QUOTES = re.compile(r' +".*" *', re.DOTALL)
# The beginning of a quoted cell that is read with its marks, in the line as it is written
BLANK_BEFORE_MARK = r'(?:^|{separator}) +"(?!")'
# The options of `datasets` by which rows of JSON are elsewhere in a file, or it is not UTF-8
OTHER_JSON_OPTIONS = ("encoding", "encoding_errors", "field")
# Of a cell of a CSV file; the default of Python is too small for lists of captions
MAX_CELL_LENGTH = 2**31 - 1


def check_row_files(
    builder: str,
    paths: Iterable[str],
    key_column: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """
    Checks CSV and JSON files before they are read.

    Args:
        builder (`str`):
            The name of what reads them: `"csv"`, `"json"`, or another, whose files are not checked.
        paths (`Iterable[str]`):
            Files on this machine. Those in archives, which `datasets` extracts by itself, are not checked.
        key_column (`str`, *optional*):
            The column of keys; dots lead into dictionaries.
        options (`Mapping[str, Any]`, *optional*):
            How they are read, where that is not the default: see [`find_options`].

    Raises:
        `ValueError`: if rows would be read as something else, or dropped, or a file is not UTF-8; names the file.
    """
    paths = [path for path in paths if not path.lower().endswith(ARCHIVES)]
    options = options or {}
    if builder == "csv" and are_csv_rows_checked(options):
        check_csv_files(paths, options)
    elif builder == "json" and options.keys().isdisjoint(OTHER_JSON_OPTIONS):
        for path in paths:
            check_json_names(path)
        if key_column is not None:
            check_json_column(paths, key_column)


@contextmanager
def open_text(path: str) -> Iterator[IO[str]]:
    """
    Opens a text file in UTF-8, which may be compressed, or in a zip archive (see [`split_archive`]), and have a
    byte-order mark. What is damaged is named.
    """
    opener = OPENERS.get(Path(path).suffix.lower(), open)
    archive, name = split_archive(path)
    try:
        if name:
            with zipfile.ZipFile(archive) as opened, opened.open(name) as content:
                yield io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        else:
            with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: save it as UTF-8.") from error
    except (EOFError, OSError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {without_stop(error)}.") from error


def are_csv_rows_checked(options: Mapping[str, Any]) -> bool:
    """Whether the rows of CSV files that are read with some options can be checked before."""
    separator = options.get("sep", ",")
    # else it is a pattern, or to be guessed
    is_character = isinstance(separator, str) and len(separator) == 1
    return is_character and options.keys() <= {*CSV_FORMAT, *OTHER_CSV_OPTIONS}


def are_csv_cells_plain(options: Mapping[str, Any]) -> bool:
    """Whether the cells of CSV files that are read with some options are what is written in them, or missing."""
    is_empty_missing = options.get("keep_default_na") is False and options.get("na_values") == [""]
    return is_empty_missing and options.keys() <= set(PLAIN_CSV_OPTIONS)


def has_archives(files: Iterable[str]) -> bool:
    """Whether some files are archives, which `datasets` extracts by itself."""
    return any(file.lower().endswith(ARCHIVES) for file in files)


class CsvColumns:
    """
    The columns of CSV files, with the types of their cells.

    Args:
        names (`list[str]`):
            The names of the columns.
    """

    def __init__(self, names: list[str]):
        self.names = names
        # of the columns that hold nothing but numbers and empty cells, so far
        self.of_numbers = set(range(len(names)))
        self.of_decimals = set()
        self.with_empty_cells = set()
        self.with_cells = set()

    def add(self, row: list[str]) -> None:
        """Notes what the cells of a row are, in columns that may be numbers."""
        for index in self.of_numbers.copy():
            cell = row[index]
            if cell == "":
                self.with_empty_cells.add(index)
                continue
            self.with_cells.add(index)
            number = cell.strip(" ")  # as pandas reads it
            if INTEGER.fullmatch(number):
                continue
            self.of_decimals.add(index)
            if not NUMBER.fullmatch(number):
                self.of_numbers.discard(index)

    def find_type(self, index: int) -> Value:
        """Finds the type that all cells of a column have, `"null"` if all are empty."""
        if index not in self.with_cells:
            return Value("null")
        if index not in self.of_numbers:
            return Value("string")
        if index in self.of_decimals or index in self.with_empty_cells:
            return Value("float64")
        return Value("int64")

    def make_features(self) -> Features:
        """Makes the types of the columns, by the names that pandas gives them."""
        features = {}
        for index, name in enumerate(self.names):
            features[name or f"Unnamed: {index}"] = self.find_type(index)
        return Features(features)


def check_csv_files(paths: list[str], options: Mapping[str, Any]) -> Features | None:
    """
    Checks that CSV files have the same columns, and rows of as many fields: see [`check_csv`].

    Returns:
        `Features`, *optional*: the types of all cells of a column, None without files: see [`find_csv_types`].

    Raises:
        `ValueError`: if that is not so; names the file.
    """
    columns = None
    for path in paths:
        of_file = check_csv(path, options, columns)
        if columns is None:
            columns = of_file
        if of_file.names != columns.names and "usecols" not in options:
            raise ValueError(
                f"{path} has the columns {of_file.names}, but {paths[0]} has {columns.names}: write "
                "all files with the same columns in the same order."
            )
    return None if columns is None else columns.make_features()


def find_csv_types(
    files: list[str], other_splits: Iterable[list[str]], find_types: Callable[[list[str]], Features | None]
) -> Features | None:
    """
    Finds the types of the columns of CSV files, which are those of all splits, so that these fit together. `datasets`
    would find out the types of each 10,000 rows by themselves, and make the text "1.50" of some of them "1.5".

    Args:
        files (`list[str]`):
            The files of a split.
        other_splits (`Iterable[list[str]]`):
            The files of each other one, which may have other columns. Those that cannot be read say nothing.
        find_types (`Callable`):
            Finds the types of the columns in some files, `"null"` of empty ones, such as [`check_csv_files`].

    Returns:
        `Features`, *optional*: the types of the columns of the split, None without files.

    Raises:
        `ValueError`: if the files of the split are not in order: see [`check_csv_files`].
    """
    types = find_types(files)
    if types is None:
        return None
    empty = {name for name, found in types.items() if found == Value("null")}
    for other_files in other_splits:
        if all(found == Value("string") for found in types.values()):
            break  # whatever the others hold
        try:
            other_types = find_types(other_files) or {}
        except (OSError, ValueError):  # which is said when that split is read
            continue
        for name in types.keys() & other_types.keys():
            types[name] = join_types(types[name], other_types[name])
    for name in empty:
        # of whole numbers pandas has no missing ones
        types[name] = Value("float64") if types[name].dtype in ("int64", "float64") else Value("string")
    return types


def join_csv_types(types_of_files: Iterable[Features]) -> Features:
    """Finds the types of columns in all of some CSV files: of one that is empty in all, texts."""
    joined = Features()
    for types in types_of_files:
        for name, found in types.items():
            joined[name] = join_types(joined.get(name, found), found)
    for name, found in joined.items():
        if found == Value("null"):
            joined[name] = Value("string")
    return joined


def join_types(one: Value, other: Value) -> Value:
    """Finds the type of the cells of a column that have one type in some files, and another one in others."""
    if one == other or other == Value("null"):
        return one
    if one == Value("null"):
        return other
    if {one.dtype, other.dtype} == {"int64", "float64"}:
        return Value("float64")
    return Value("string")


def open_csv(builder: DatasetBuilder, split: str, key_column: str | None) -> DatasetBuilder:
    """
    Checks CSV files on this machine, and finds what reads them: each column has one type in all rows of all splits.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`. Where a card says types, or how cells are read, the same reads the split.
        split (`str`):
            The split that is read.
        key_column (`str`, *optional*):
            A column that is read as text.

    Raises:
        `ValueError`: if a row has another number of fields than the header: see [`check_csv_files`].
    """
    files = list_files(builder, split)
    options = find_options(builder)
    data_files = select_split(builder.config.data_files, split)
    of_card = builder.config.features
    reader = Csv(data_files=data_files, features=of_card, hash=hash_readers(), **options)
    if has_archives(files) or not are_csv_rows_checked(options):
        check_row_files("csv", files, key_column, options)
        return reader
    find_types = partial(check_csv_files, options=options)
    features = find_csv_types(files, list_other_splits(builder, split), find_types)
    if of_card is not None or not are_csv_cells_plain(options):
        return reader
    if key_column in features:
        features[key_column] = Value("string")
    options.pop("converters", None)  # what it is for is in the types
    return Csv(data_files=data_files, features=features, hash=hash_readers(), **options)


def find_separator(files: Iterable[str]) -> str:
    """
    Finds what separates the cells of CSV files by their endings, a comma or in `.tsv` a tab.

    Raises:
        `ValueError`: if there are both.
    """
    files = list(files)
    with_tabs = [file for file in files if strip_compression(file).lower().endswith(".tsv")]
    if not with_tabs:
        return ","
    others = [file for file in files if file not in with_tabs]
    if others:
        raise ValueError(
            f"{with_tabs[0]} and {others[0]} are read as one table, but cells are separated by tabs "
            "in .tsv and by commas in .csv: write all files with the same ending."
        )
    return "\t"


def strip_compression(path: str) -> str:
    """Removes the ending of a compressed file from its name: see `OPENERS`."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in OPENERS else path


def find_csv_texts(path: str) -> Features:
    """Reads the header of a CSV file. Returns the types of columns of texts."""
    with open_text(path) as file:
        for row in csv.reader(file, delimiter=find_separator([path])):
            if "".join(row).strip():
                return Features({name or f"Unnamed: {index}": Value("string") for index, name in enumerate(row)})
    raise ValueError(f"{path} is empty: write a header and rows.")


def check_csv(path: str, options: Mapping[str, Any], columns: CsvColumns | None = None) -> CsvColumns:
    """
    Checks that each row of a CSV file has as many fields as the header, and each column a name of its own: with one
    field more pandas takes the first one for an index, with fewer it makes up empty ones.

    Args:
        path (`str`):
            The file.
        options (`Mapping[str, Any]`):
            How it is read, where that is not the default.
        columns ([`CsvColumns`], *optional*):
            Those of files before it, whose types it adds to if it has the same columns.

    Returns:
        [`CsvColumns`]: the columns.

    Raises:
        `ValueError`: if that is not so; names the file and the line.
    """
    with open_text(path) as file:
        return check_csv_lines(path, file, options, columns)


def check_csv_lines(
    path: str, file: Iterable[str], options: Mapping[str, Any], columns: CsvColumns | None = None
) -> CsvColumns:
    """
    Checks the lines of a CSV file that is open: see [`check_csv`].

    Args:
        path (`str`):
            The file, for errors.
        file (`Iterable[str]`):
            Its lines.
        options (`Mapping[str, Any]`):
            How it is read, where that is not the default.
        columns ([`CsvColumns`], *optional*):
            Those of files before it.
    """
    cells = {CSV_FORMAT[name]: value for name, value in options.items() if name in CSV_FORMAT}
    limit = csv.field_size_limit(MAX_CELL_LENGTH)
    try:
        lines = []
        reader = csv.reader(keep_lines(file, lines), strict=True, **cells)
        return check_csv_rows(path, reader, lines, options.get("names"), columns)
    finally:
        csv.field_size_limit(limit)


def check_csv_content(path: str, content: bytes) -> Features:
    """
    Checks the content of a CSV file in UTF-8, which may be elsewhere, and finds the types of its columns: see
    [`check_csv_files`].
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: save it as UTF-8.") from error
    return check_csv_lines(path, io.StringIO(text, newline=""), {}).make_features()


def keep_lines(file: Iterable[str], lines: list[str]) -> Iterator[str]:
    """Yields the lines of a file, and adds each to a list."""
    for line in file:
        lines.append(line)
        yield line


def check_csv_rows(
    path: str,
    reader: Iterator[list[str]],
    lines: list[str],
    header: list[str] | None,
    columns: CsvColumns | None,
) -> CsvColumns:
    """
    Checks the rows that a `csv.reader` reads from a file: see [`check_csv`].

    Args:
        path (`str`):
            The file.
        reader (`Iterator[list[str]]`):
            Reads its rows.
        lines (`list[str]`):
            Gets the lines that the reader reads, and is cleared after each row.
        header (`list[str]`, *optional*):
            The names of columns. Default: the first row.
        columns ([`CsvColumns`], *optional*):
            Those of files before it.
    """
    first_line = 1
    of_file = None if header is None else CsvColumns(header)
    try:
        for row in reader:
            is_blank = len(row) <= 1 and not "".join(row).strip(" \t")
            if is_blank:
                if row and of_file is not None and len(of_file.names) == 1:
                    of_file.add(row)  # of a single column, pandas reads an empty cell in quotation marks
            elif header is None:
                header = row
                check_header(path, header, reader.dialect)
                of_file = CsvColumns(header)
                if columns is not None and columns.names == header:
                    of_file = columns
            else:
                check_cells(path, row, first_line, "".join(lines), reader.dialect, len(header))
                of_file.add(row)
            first_line = reader.line_num + 1
            lines.clear()
    except csv.Error as error:
        raise ValueError(
            f"{path} cannot be read at line {first_line}: {without_stop(error)}. Quote cells whole, "
            "and double the quotation marks in them."
        ) from error
    return of_file or CsvColumns([])


def check_header(path: str, header: list[str], dialect: csv.Dialect) -> None:
    """Raises a `ValueError` if two columns have one name, or a file with tabs has commas in their place."""
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise ValueError(f"{path} has several columns named {repeated[0]!r}: give each its own name.")
    if len(header) == 1 and "," in header[0] and dialect.delimiter == "\t":
        raise ValueError(
            f"{path} has no tab but commas in its header: separate the cells of .tsv by tabs, or name the file .csv."
        )


def check_cells(path: str, row: list[str], line: int, text: str, dialect: csv.Dialect, num_columns: int) -> None:
    """
    Checks the cells of a row of a CSV file.

    Args:
        path (`str`):
            The file.
        row (`list[str]`):
            The cells.
        line (`int`):
            Where the row begins.
        text (`str`):
            The lines of the row as they are written.
        dialect (`csv.Dialect`):
            How cells are separated and quoted.
        num_columns (`int`):
            How many cells there should be.

    Raises:
        `ValueError`: if there are more or fewer, or quotation marks are read otherwise than they are meant.
    """
    if len(row) != num_columns:
        raise ValueError(
            f"{path} has {len(row)} fields in line {line}, but {num_columns} in its header. "
            f"Separate cells by {dialect.delimiter!r}, and quote those that have some."
        )
    # it begins with a mark that is a part of the text, and holds all up to the next one at the end of a cell
    if dialect.delimiter == "\t" and any("\t" in cell and "\n" in cell for cell in row):
        raise ValueError(
            f"{path} has a cell in line {line} with a tab that goes on in the next line: also in "
            ".tsv, quotation marks hold a cell together. Quote cells that begin with one whole, and "
            "double the marks in them."
        )
    if has_mark_after_blank(row, text, dialect):
        raise ValueError(
            f"{path} has a blank before a quotation mark in line {line}, by which the mark is a "
            f"part of the text: write nothing between {dialect.delimiter!r} and the mark."
        )


def has_mark_after_blank(row: list[str], text: str, dialect: csv.Dialect) -> bool:
    """
    Returns whether a cell has a blank before its quotation marks, which become a part of the text by it.

    Args:
        row (`list[str]`):
            The cells of a row.
        text (`str`):
            The lines of the row as they are written: in a cell that is quoted whole, marks inside are doubled.
        dialect (`csv.Dialect`):
            How cells are separated and quoted.
    """
    if dialect.quotechar != '"' or dialect.quoting == csv.QUOTE_NONE:
        return False
    if not any(cell.startswith(" ") and BLANK_BEFORE_QUOTES.fullmatch(cell) for cell in row):
        return False
    return re.search(BLANK_BEFORE_MARK.format(separator=re.escape(dialect.delimiter)), text) is not None


class RepeatedNameError(ValueError):
    """A JSON object has a name twice."""


def refuse_repeated_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Makes a dictionary of the names and values of a JSON object. Raises a `RepeatedNameError` if one is repeated."""
    row = {}
    for name, value in pairs:
        if name in row:
            raise RepeatedNameError(name)
        row[name] = value
    return row


def begins_as_list(file: IO[str]) -> bool:
    """Whether the JSON in an open file is a list of rows, and not lines. The file stays at its beginning."""
    first = file.read(1)
    while first.isspace():
        first = file.read(1)
    file.seek(0)
    return first == "["


def iterate_json_rows(path: str, pattern: re.Pattern | None = None) -> Iterator[tuple[str, object]]:
    """
    Reads the rows of a JSON or JSON lines file, each with where it is. Ends at what is no JSON.

    Args:
        path (`str`):
            The file.
        pattern (`re.Pattern`, *optional*):
            Lines without it are passed over, and lists without it in any row.
    """
    with open_text(path) as file:
        try:
            if begins_as_list(file):
                text = file.read()
                rows = json.loads(text) if pattern is None or pattern.search(text) else []
                for index, row in enumerate(rows):
                    yield f"row {index} of {path}", row
                return
            for number, line in enumerate(file, start=1):
                is_passed_over = pattern is not None and pattern.search(line) is None
                if line.strip() and not is_passed_over:
                    yield f"line {number} of {path}", json.loads(line)
        except json.JSONDecodeError:  # who reads the rows after this says so
            return


def check_json_names(path: str) -> None:
    """
    Checks that no row of a JSON list has a name twice, of which `datasets` would drop the first value. In JSON lines
    it does so itself.

    Raises:
        `ValueError`: if one has; names the file.
    """
    with open_text(path) as file:
        if not begins_as_list(file):
            return
        try:
            json.load(file, object_pairs_hook=refuse_repeated_names)
        except json.JSONDecodeError:  # who reads the rows after this says so
            pass
        except RepeatedNameError as error:
            raise ValueError(
                f"{path} has a row with several values of {str(error)!r}: give each its own name."
            ) from error


def check_json_column(paths: Iterable[str], column: str) -> None:
    """
    Checks that the values of a column in JSON files, such as keys, are all texts or all numbers: of both `datasets`
    makes numbers, and "007" becomes 7.

    Args:
        paths (`Iterable[str]`):
            JSON or JSON lines files.
        column (`str`):
            The name of the column; dots lead into dictionaries.

    Raises:
        `ValueError`: if there are both; names a row of each.
    """
    text = None
    number = None
    for path in paths:
        for where, row in iterate_json_rows(path):
            if not isinstance(row, dict):
                continue
            value = look_up(row, column)
            if text is None and isinstance(value, str):
                text = f"{value!r} in {where}"
            if number is None and isinstance(value, (int, float)):
                number = f"{value!r} in {where}"
            if text is not None and number is not None:
                raise ValueError(
                    f"The column {column!r} holds texts and numbers: {text}, {number}. Write all of them as texts."
                )


def read_parquet_schema(path: str) -> pa.Schema:
    """Reads the schema of a parquet file, which may be in a zip archive: see [`split_archive`]."""
    archive, name = split_archive(path)
    if not name:
        return parquet.read_schema(path)
    with zipfile.ZipFile(archive) as opened, opened.open(name) as content:
        return parquet.read_schema(content)


def unify_parquet_types(paths: list[str]) -> Features | None:
    """
    Finds the types of columns that hold for all parquet files: where a file has no value at all in a column, or lacks
    it, the others say the type. `datasets` would cast all files to the types of the first, and make "007" a 7.

    Returns:
        `Features`, *optional*: None where the files have the same types.

    Raises:
        `ValueError`: if two files have different types; names the file and the column.
    """
    first = read_parquet_schema(paths[0])
    schema = first
    for path in paths[1:]:
        other = read_parquet_schema(path)
        if other.remove_metadata() == schema.remove_metadata():
            continue
        try:
            schema = pa.unify_schemas([schema, other], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(
                f"{path} has other types than the files before it: "
                f"{without_stop(str(error).removeprefix('Unable to merge: '))}. Write all files with "
                "the same types."
            ) from error
    if schema.remove_metadata() == first.remove_metadata():
        return None
    return Features.from_arrow_schema(schema)

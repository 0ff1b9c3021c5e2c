# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
JSON files on this machine are read with the values that are written: "2020-01-01" is a text, and so is "007" in a
column that has numbers or lists in other rows.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from datasets import DatasetBuilder, DownloadManager, Features, SplitGenerator
from datasets import Json as JsonValue
from datasets.features.features import generate_from_arrow_type
from datasets.packaged_modules.json.json import Json
from datasets.table import CastError

from ..utils.files import hash_bytes
from ..utils.terminal import without_stop
from .folder import find_ending, select_split
from .json_columns import find_empty_parts, find_json_columns
from .options import find_options, hash_readers
from .row_files import ARCHIVES, OTHER_JSON_OPTIONS, has_archives, iterate_json_rows, open_text


# How the names of columns of metadata end that name images
FILE_NAMES = ("file_name", "file_names")


class NamedJson(Json):
    """Reads JSON and JSON lines as `datasets` does, but an error names the file."""

    def _generate_tables(
        self, base_files: list, files_iterables: list, original_files: list, allow_full_read: bool = True
    ) -> Iterator[tuple[Any, pa.Table]]:
        begun = []
        followed = []
        for files, original_file in zip(files_iterables, original_files):
            followed.append(note_begin(files, original_file, begun))
        tables = super()._generate_tables(base_files, followed, original_files, allow_full_read)
        try:
            yield from self.restore_values(tables, original_files)
        except UnicodeDecodeError:  # who catches this says which file it is
            raise
        except CastError as error:
            new = sorted(set(error.table_column_names) - set(error.requested_column_names))
            raise ValueError(
                f"{begun[-1]} has the columns {new}, which the rows before do not have: write all "
                "rows with the same columns."
            ) from error
        except (pa.ArrowException, TypeError, ValueError) as error:
            blank_line = None
            if "Expected object or value" in str(error):
                blank_line = find_blank_line(begun[-1])
            if blank_line is not None:
                raise ValueError(
                    f"{begun[-1]} has nothing in line {blank_line}, which `datasets` cannot read "
                    "where a column has several types: delete the line."
                ) from error
            if has_something_before_list(begun[-1]):
                raise ValueError(
                    f"{begun[-1]}: {without_stop(error)}. A byte-order mark or blanks stand before its [, after which "
                    "`datasets` does not read every list: save it without."
                ) from error
            raise ValueError(f"{begun[-1]}: {without_stop(error)}.") from error

    def restore_values(self, tables: Iterator, original_files: list) -> Iterator[tuple[Any, pa.Table]]:
        """Yields the tables that pyarrow has made of files; another class changes their values."""
        return tables


class JsonTexts(NamedJson):
    """
    Reads JSON and JSON lines as `datasets` does, but for columns with texts that are written like dates, of which
    pyarrow makes times where there is nothing else in a part of a file, and for columns whose values have several
    types: `datasets` makes the text "007" a 7 there.
    """

    date_columns: frozenset[str] = frozenset()
    mixed_columns: frozenset[str] = frozenset()
    # those in which the columns of both are looked for, unless the rows are in the cache
    local_files: tuple[str, ...] = ()
    # whether a file may lack columns that a later one has, as it may lack those of an earlier one
    may_lack_columns: bool = False

    def read_as(self, whole: "JsonTexts", files: list[str]) -> None:
        """Lets this read its files, which are some of those of another reader, with its types, as that one does."""
        self.local_files = tuple(files)
        self.may_lack_columns = whole.may_lack_columns
        features = self.config.features  # the other one has looked for nothing if its rows were in the cache
        self.mixed_columns = frozenset(name for name in features if isinstance(features[name], JsonValue))

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        found = find_json_columns(self.local_files)
        self.date_columns |= set(found.with_dates)
        of_card = self.config.features
        if of_card is not None:  # where it says that they are times, they are
            self.date_columns -= {name for name, field in named_types(of_card) if has_time(field)}
            return super()._split_generators(dl_manager)
        self.mixed_columns |= set(found.mixed)
        self.info.features = None  # those in the cache do not say of which columns the first values come later
        splits = super()._split_generators(dl_manager)
        may_differ = self.mixed_columns or len(self.local_files) > 1
        if may_differ and self.info.features is None:  # nothing of a list has been read yet
            _, first = next(iter(self._generate_tables(**splits[0].gen_kwargs)))
            self.info.features = Features.from_arrow_schema(first.schema)
        if self.may_lack_columns and len(self.local_files) > 1:
            self.info.features = self.find_features_of_files(splits[0])
        with_values = set(found.with_values)
        for name, column_type in named_types(self.info.features or Features()):
            if not with_values.isdisjoint(find_empty_parts(column_type, name)):  # whose first value comes later
                self.info.features[name] = JsonValue()
                self.mixed_columns |= {name}
        return splits

    def find_features_of_files(self, split: SplitGenerator) -> Features:
        """Finds the types of the columns of all files of a split, each by its first rows."""
        self.info.features = None  # to which rows would be cast
        schemas = []
        for index in range(len(split.gen_kwargs["files_iterables"])):
            of_file = {name: values[index : index + 1] for name, values in split.gen_kwargs.items()}
            for _, table in islice(self._generate_tables(**of_file), 1):
                schemas.append(table.schema)
        features = Features.from_arrow_schema(unify_fields(schemas))
        for name, feature in Features.from_arrow_schema(schemas[0]).items():
            is_known = not list(find_empty_parts(schemas[0].field(name).type, name))
            if is_known:  # that of the first file holds, as of files without a lack
                features[name] = feature
        return features

    def restore_values(self, tables: Iterator, original_files: list) -> Iterator[tuple[Any, pa.Table]]:
        """Puts the values of some columns, as they are written, into tables that pyarrow has made."""
        if not self.date_columns and not self.mixed_columns:
            yield from tables
            return
        rows = iterate_rows(original_files)
        for key, table in tables:
            of_table = list(islice(rows, len(table)))
            if len(of_table) != len(table):
                raise ValueError(
                    f"{original_files} hold dates, or a column of several types, and rows of several "
                    "lines: write JSON lines."
                )
            table = restore_texts(table, of_table, self.date_columns - self.mixed_columns)
            yield key, restore_mixed(table, of_table, self.mixed_columns)


def unify_fields(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Unifies the types of columns in several files; the first one stays where two have nothing in common."""
    fields = {}
    for schema in schemas:
        for field in schema:
            first = fields.setdefault(field.name, field.type)
            common = find_common_type(first, field.type)
            if common is None:  # dates in one file, words in another
                common = find_common_type(replace_times(first), replace_times(field.type))
            if common is not None:
                fields[field.name] = common
    return pa.schema(fields.items())


def find_common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Finds the type that can hold the values of two, such as that of decimals for whole numbers, if there is one."""
    schemas = [pa.schema({"column": one}), pa.schema({"column": other})]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def find_blank_line(file: str) -> int | None:
    """Finds the first blank line of a file on this machine, counted from 1."""
    if "://" in file:
        return None
    with open_text(file) as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                return number
    return None


def has_something_before_list(file: str) -> bool:
    """Whether a file on this machine is a JSON list that does not begin with its bracket."""
    if "://" in file:
        return False
    with open(file, "rb") as opened:
        beginning = opened.read(100)
    bracket = beginning.removeprefix(BOM_UTF8).lstrip()
    return bracket.startswith(b"[") and bracket != beginning


def note_begin(files: Iterable[str], name: str, begun: list[str]) -> Iterator[str]:
    """Yields what is read of a file, which may have several parts, and adds its name to a list first."""
    for file in files:
        begun.append(name)
        yield file


def iterate_rows(files: Iterable[str]) -> Iterator[object]:
    """Reads the rows of JSON files, one after another."""
    for file in files:
        for _, row in iterate_json_rows(file):
            yield row


def get_value(row: object, name: str) -> object:
    """Returns the value of a row in a column: of a dictionary, or the row itself, which is nothing but a text."""
    return row.get(name) if isinstance(row, dict) else row


def restore_texts(table: pa.Table, rows: list, columns: Iterable[str]) -> pa.Table:
    """
    Puts the values of rows into some columns of the table that pyarrow has made of them.

    Args:
        table (`pa.Table`):
            The table.
        rows (`list`):
            The rows as they are written: dictionaries, or nothing but texts.
        columns (`Iterable[str]`):
            The columns in which there are dates.

    Returns:
        `pa.Table`: the table, with texts in place of times.
    """
    for name in sorted(set(columns) & set(table.column_names)):
        index = table.column_names.index(name)
        column_type = table.schema.field(name).type
        if isinstance(column_type, pa.BaseExtensionType):  # dictionaries of other names: texts already
            continue
        values = [get_value(row, name) for row in rows]
        table = table.set_column(index, name, pa.array(values, replace_times(column_type)))
    return table


def restore_mixed(table: pa.Table, rows: list, columns: Iterable[str]) -> pa.Table:
    """
    Puts the values of rows as JSON into the columns with several types of a table. The texts "007" and "[1]" would
    be taken for JSON themselves.

    Args:
        table (`pa.Table`):
            The table.
        rows (`list`):
            The rows as they are written: dictionaries, or nothing but texts.
        columns (`Iterable[str]`):
            The columns.
    """
    for name in sorted(set(columns) & set(table.column_names)):
        texts = []
        for row in rows:
            value = get_value(row, name)
            texts.append(None if value is None else json.dumps(value))
        values = pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def replace_times(column_type: pa.DataType) -> pa.DataType:
    """Replaces times in a type, also inside of lists and dictionaries, by texts."""
    if pa.types.is_timestamp(column_type):
        return pa.string()
    if pa.types.is_list(column_type):
        return pa.list_(replace_times(column_type.value_type))
    if pa.types.is_struct(column_type):
        return pa.struct([(field.name, replace_times(field.type)) for field in column_type])
    return column_type


def replace_times_of(features: Features) -> Features:
    """Replaces times in the types of columns by texts."""
    replaced = {}
    for name, feature in features.items():
        replaced[name] = feature
        column_type = features.arrow_schema.field(name).type
        if has_time(column_type):
            replaced[name] = generate_from_arrow_type(replace_times(column_type))
    return Features(replaced)


def has_time(column_type: pa.DataType) -> bool:
    """Whether there are times in a type, also inside of lists and dictionaries."""
    return replace_times(column_type) != column_type


def open_json(
    builder: DatasetBuilder, files: list[str], split: str = "train", other_files: Iterable[str] = ()
) -> DatasetBuilder:
    """
    Finds what reads JSON files on this machine, with the types of the split. `datasets` would take those of the
    first split, and make the text "007" a 7.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`.
        files (`list[str]`):
            The paths of the files. In archives, which `datasets` extracts by itself, dates stay times, and so they do
            where a card says that rows are elsewhere in a file.
        split (`str`, *optional*, defaults to `"train"`):
            The split that they are.
        other_files (`Iterable[str]`, *optional*):
            Those of splits that are read with this one: what holds several types in all of them is read as it is
            written in each.
    """
    data_files = select_split(builder.config.data_files, split)
    options = find_options(builder)
    if has_archives(files) or options.keys() & OTHER_JSON_OPTIONS:
        return Json(data_files=data_files, features=builder.config.features, hash=hash_readers(), **options)
    mixed = []
    key = hash_readers()
    others = [file for file in other_files if not file.lower().endswith(ARCHIVES)]
    if others and builder.config.features is None:
        mixed = find_json_columns([*files, *others]).mixed
    if mixed:  # in the cache the rows may have other types without the other files
        key = hash_bytes(json.dumps([key, mixed]).encode())
    reader = JsonTexts(data_files=data_files, features=builder.config.features, hash=key, **options)
    reader.local_files = tuple(files)
    reader.mixed_columns = frozenset(mixed)
    return reader


def find_doubtful_column(files: list[str], column: str | None, options: dict[str, Any]) -> str | None:
    """
    Returns a column of JSON files if it may hold texts and numbers: see [`check_json_column`], which reads all rows
    once more. None for others.

    Args:
        files (`list[str]`):
            Files on this machine.
        column (`str`, *optional*):
            The name of the column; dots lead into dictionaries.
        options (`dict[str, Any]`):
            How they are read, where that is not the default.
    """
    if column is None or options.keys() & OTHER_JSON_OPTIONS:
        return None
    rows = [file for file in files if not file.lower().endswith(ARCHIVES)]
    is_mixed = any(f"{column}.".startswith(f"{name}.") for name in find_json_columns(rows).mixed)
    return column if is_mixed else None


def find_metadata_dates(features: Features, files: Iterable[str]) -> set[str]:
    """
    Finds the columns of files `metadata.jsonl` in which a text is written like a date, and which `datasets` reads with
    some types.
    """
    of_json = [file for file in files if find_ending(file) == ".jsonl"]
    return features.keys() & find_json_columns(of_json).with_dates


def named_types(features: Features) -> list[tuple[str, pa.DataType]]:
    """Lists the names of columns with their types."""
    return [(field.name, field.type) for field in features.arrow_schema]


def find_decimal_columns(files: Iterable[str]) -> set[str]:
    """Finds the columns of JSON files with a number that is not whole, or is written so."""
    columns = set()
    for file in files:
        for _, row in iterate_json_rows(file):
            if isinstance(row, dict):
                columns.update(name for name, value in row.items() if isinstance(value, float))
    return columns

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
JSON files on this machine are read: what is written like a date is the text that it is, and a column may hold texts in
some rows and lists in others.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
from datasets import DatasetBuilder, DownloadManager, Features, SplitGenerator
from datasets import Json as JsonValue
from datasets.features.features import generate_from_arrow_type
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.json.json import Json
from datasets.table import CastError

from ..utils.terminal import without_stop
from .folder import list_files
from .options import find_options
from .row_files import ARCHIVES, OTHER_JSON_OPTIONS, iterate_json_rows


# What pyarrow takes for a time, and perhaps more: "2020-01-01", "2020-01-01T10:20:30Z"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[ T][\d:.+-]+Z?)?")
QUOTED_DATE = re.compile(f'"{DATE.pattern}"')
# `datasets` finds the types of as many bytes of JSON lines at a time
CHUNK_SIZE = 10 << 20
JSON_TYPES = {"str", "list", "dict", "float", "bool"}


class JsonTexts(Json):
    """
    Reads JSON and JSON lines as `datasets` does, but for columns with texts that are written like dates, of which
    pyarrow makes times where there is nothing else in a part of a file, and for columns whose values have several
    types: `datasets` knows those of the first part of a file, and makes JSON in texts of a later part with others. An
    error names the file.
    """

    date_columns: frozenset[str] = frozenset()
    # those in which columns with values of several types are looked for, unless the rows are in the cache
    local_files: tuple[str, ...] = ()

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        splits = super()._split_generators(dl_manager)
        mixed_columns = find_mixed_columns(self.local_files)
        if mixed_columns and self.info.features is None:  # nothing of a list has been read yet
            _, first = next(iter(super()._generate_tables(**splits[0].gen_kwargs)))
            self.info.features = Features.from_arrow_schema(first.schema)
        for name in mixed_columns:
            if name in self.info.features:
                self.info.features[name] = JsonValue()
        return splits

    def _generate_tables(
        self, base_files: list, files_iterables: list, original_files: list, allow_full_read: bool = True
    ) -> Iterator[tuple[Any, pa.Table]]:
        begun = []
        followed = []
        for files, original_file in zip(files_iterables, original_files):
            followed.append(note_begin(files, original_file, begun))
        tables = super()._generate_tables(base_files, followed, original_files, allow_full_read)
        if self.date_columns:
            tables = self.restore_dates(tables, original_files)
        try:
            yield from tables
        except UnicodeDecodeError:  # who catches this says which file it is
            raise
        except CastError as error:
            new = sorted(set(error.table_column_names) - set(error.requested_column_names))
            raise ValueError(
                f"{begun[-1]} has the columns {new}, which the rows before do not have: write all rows with the same "
                "columns."
            ) from error
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ValueError(f"{begun[-1]}: {without_stop(error)}.") from error

    def restore_dates(self, tables: Iterator, original_files: list) -> Iterator[tuple[Any, pa.Table]]:
        """Puts the texts that are written like dates into the tables that pyarrow has made of some files."""
        rows = iterate_rows(original_files)
        for key, table in tables:
            of_table = list(islice(rows, len(table)))
            if len(of_table) != len(table):
                raise ValueError(f"{original_files} hold dates, and other rows than lines: write JSON lines.")
            yield key, restore_texts(table, of_table, self.date_columns)


class FolderTexts(ImageFolder):
    """Reads a folder of images with `metadata.jsonl` as `datasets` does, but for the same columns there."""

    date_columns: frozenset[str] = frozenset()

    def _generate_examples(
        self, files: list, metadata_files: list, add_metadata: bool, add_labels: bool
    ) -> Iterator[tuple[Any, dict]]:
        examples = super()._generate_examples(files, metadata_files, add_metadata, add_labels)
        if not self.date_columns:
            yield from examples
            return
        rows = iterate_rows(names[-1] for names in metadata_files)
        for (key, example), row in zip(examples, rows, strict=True):
            for name in self.date_columns & example.keys():
                example[name] = row.get(name)
            yield key, example


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
        if isinstance(column_type, pa.BaseExtensionType):  # of values of several types, which are texts already
            continue
        values = [row.get(name) if isinstance(row, dict) else row for row in rows]
        table = table.set_column(index, name, pa.array(values, replace_times(column_type)))
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


def open_json(builder: DatasetBuilder, files: list[str]) -> DatasetBuilder:
    """
    Finds what reads JSON files on this machine.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`.
        files (`list[str]`):
            The paths of the files. In archives, which `datasets` extracts by itself, dates stay times, and so they do
            where a card says that rows are elsewhere in a file.
    """
    options = find_options(builder)
    if any(file.lower().endswith(ARCHIVES) for file in files) or options.keys() & OTHER_JSON_OPTIONS:
        return builder
    columns = set()
    for file in files:
        columns |= find_date_columns(file)
    features = builder.config.features or builder.info.features
    reader = JsonTexts(data_files=builder.config.data_files, features=features, **options)
    if features is None:  # the types are those of all splits
        reader.local_files = tuple(filter(os.path.isfile, list_files(builder, "all")))
    else:  # where a card says that they are times, they are
        columns -= {name for name, field in named_types(features) if has_time(field)}
    reader.date_columns = frozenset(columns)
    return reader


def open_remote_json(builder: DatasetBuilder) -> DatasetBuilder:
    """
    Makes what reads a stream of JSON files that are elsewhere. It does as the builder of `datasets`, but an error
    names the file. Dates, for which the files would be read twice, stay times.
    """
    return JsonTexts(
        base_path=builder.base_path,
        dataset_name=builder.dataset_name,
        repo_id=builder.repo_id,
        token=builder.token,
        storage_options=builder.storage_options,
        data_files=builder.config.data_files,
        features=builder.config.features or builder.info.features,
        **find_options(builder),
    )


def find_failure_in_json(builder: DatasetBuilder, split: str) -> str | None:
    """
    Finds why JSON files cannot be read that are elsewhere, and which of them: as a stream, once more, since a download
    has another name. None if they can be read so, or cannot be reached.
    """
    try:
        for _ in open_remote_json(builder).as_streaming_dataset(split).with_format("arrow"):
            pass
    except ValueError as error:
        return str(error)
    except OSError:  # the first failure is the one to tell
        return None
    return None


def find_metadata_dates(features: Features, files: Iterable[str]) -> set[str]:
    """
    Finds the columns of files `metadata.jsonl` in which a text is written like a date, and which `datasets` reads with
    some types.
    """
    columns = set()
    for file in files:
        if file.endswith(".jsonl"):
            columns |= find_date_columns(file)
    return columns & features.keys()


def named_types(features: Features) -> list[tuple[str, pa.DataType]]:
    """Lists the names of columns with their types."""
    return [(field.name, field.type) for field in features.arrow_schema]


def find_date_columns(file: str) -> set[str]:
    """Finds the columns of a JSON file in which a text is written like a date."""
    columns = set()
    for _, row in iterate_json_rows(file, QUOTED_DATE):
        if not isinstance(row, dict):
            row = {"text": row}  # as `datasets` calls it
        columns |= {name for name, value in row.items() if name not in columns and holds_date(value)}
    return columns


def holds_date(value: object) -> bool:
    """Whether a value of JSON is a text that is written like a date, or holds one."""
    if isinstance(value, str):
        return DATE.fullmatch(value) is not None
    if isinstance(value, dict):
        return any(map(holds_date, value.values()))
    return isinstance(value, list) and any(map(holds_date, value))


def find_mixed_columns(files: Sequence[str]) -> set[str]:
    """
    Finds the columns of JSON files that hold texts and lists, or whose values in one file have several types. Of a
    single part of a file, `datasets` finds that out itself, and none are returned.
    """
    is_compressed = any(not file.lower().endswith((".json", ".jsonl")) for file in files)
    if len(files) == 1 and not is_compressed and os.path.getsize(files[0]) <= CHUNK_SIZE:
        return set()
    mixed = set()
    of_all_files = defaultdict(set)
    for file in files:
        types = find_json_types(file)
        for name in types:
            of_all_files[name] |= types[name]
            num_types = len(types[name] & JSON_TYPES)
            num_types_in_lists = len(types[name] - JSON_TYPES)
            if num_types > 1 or num_types_in_lists > 1 or {"str", "list"} <= of_all_files[name]:
                mixed.add(name)
    return mixed


def find_json_types(file: str) -> dict[str, set[str]]:
    """Finds the types of values in each column of a JSON file, with those in lists ("list of str")."""
    types = defaultdict(set)
    for _, row in iterate_json_rows(file):
        if not isinstance(row, dict):
            continue
        for name, value in row.items():
            types[name].add(name_json_type(value))
            if isinstance(value, list):
                types[name].update(f"list of {name_json_type(item)}" for item in value)
    for found in types.values():
        found -= {"null", "list of null"}
    return types


def name_json_type(value: object) -> str:
    """Names the type of a value of JSON; whole numbers and others are one."""
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool):
        return "float"
    return type(value).__name__

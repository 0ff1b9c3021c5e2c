# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Labels that are numbers, in parquet and Arrow files that give these different names: `datasets` would read all with the
names of the first file.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, DatasetBuilder, Features, Value
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.parquet.parquet import Parquet
from pyarrow import parquet

from .folder import select_split
from .options import find_options, hash_readers
from .row_files import unify_parquet_types


def read_arrow_schema(path: str) -> pa.Schema:
    """Reads the schema of an Arrow file, a stream or one with random access."""
    with pa.memory_map(path) as opened:
        try:
            return pa.ipc.open_stream(opened).schema
        except pa.ArrowInvalid:
            opened.seek(0)
            return pa.ipc.open_file(opened).schema


class ParquetLabels(Parquet):
    """Reads parquet files as `datasets` does, but labels of some columns as the texts that each file names them by."""

    label_columns: frozenset[str] = frozenset()

    def read_as(self, whole: "ParquetLabels", files: list[str]) -> None:
        """Lets this read its files, which are some of those of another reader, with its types, as that one does."""
        self.label_columns = whole.label_columns

    def _generate_tables(self, files: list[str], **options: Any) -> Iterator[tuple[Any, pa.Table]]:
        tables = super()._generate_tables(files, **options)
        yield from name_labels(tables, files, self.label_columns, parquet.read_schema)


class ArrowLabels(Arrow):
    """Reads Arrow files as `datasets` does, but labels of some columns as the texts that each file names them by."""

    label_columns: frozenset[str] = frozenset()

    def _generate_tables(self, files: list[str]) -> Iterator[tuple[Any, pa.Table]]:
        tables = super()._generate_tables(files)
        yield from name_labels(tables, files, self.label_columns, read_arrow_schema)


def name_labels(
    tables: Iterator[tuple[Any, pa.Table]],
    files: list[str],
    columns: frozenset[str],
    read_schema: Callable[[str], pa.Schema],
) -> Iterator[tuple[Any, pa.Table]]:
    """
    Puts the names of labels into tables in which these are numbers, written as texts.

    Args:
        tables (`Iterator[tuple]`):
            The tables of some files, by keys of `datasets`.
        files (`list[str]`):
            The files.
        columns (`frozenset[str]`):
            The columns of labels.
        read_schema (`Callable[[str], pyarrow.Schema]`):
            Reads the schema of a file.
    """
    names = {}
    file_index = None
    for key, table in tables:
        if key.original_shard_id != file_index:
            file_index = key.original_shard_id
            names = find_label_names(read_schema(files[file_index]))
        for column in sorted(columns & names.keys() & set(table.column_names)):
            numbers = table[column].cast(pa.int64())
            numbers = pc.if_else(pc.less(numbers, 0), None, numbers)  # -1 is no label
            texts = pa.array(names[column], pa.string()).take(numbers)
            table = table.set_column(table.column_names.index(column), table.schema.field(column), texts)
        yield key, table


def find_label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Finds the names of the labels in a file by their columns."""
    names = {}
    for column, feature in Features.from_arrow_schema(schema).items():
        if isinstance(feature, ClassLabel):
            names[column] = feature.names
    return names


def find_differing_labels(paths: list[str], read_schema: Callable[[str], pa.Schema]) -> frozenset[str]:
    """
    Finds the columns whose labels are numbers that mean one class in one file, and another in another, or stand beside
    texts of another file.

    Args:
        paths (`list[str]`):
            The files.
        read_schema (`Callable[[str], pyarrow.Schema]`):
            Reads the schema of one.

    Raises:
        `ValueError`: if it is not known what the numbers in such a column mean in a further file, which has no names.
    """
    schemas = {path: read_schema(path) for path in paths}
    first_names = {}
    differing = set()
    for schema in schemas.values():
        for column, names in find_label_names(schema).items():
            if names != first_names.setdefault(column, names):
                differing.add(column)
    for schema in schemas.values():
        for column in first_names.keys() & set(schema.names):
            column_type = schema.field(column).type
            if pa.types.is_string(column_type) or pa.types.is_large_string(column_type):
                differing.add(column)
    for path, schema in schemas.items():
        without_names = differing.intersection(schema.names) - find_label_names(schema).keys()
        for column in sorted(without_names):
            if pa.types.is_integer(schema.field(column).type):
                raise ValueError(
                    f"The labels in the column {column!r} are numbers in {path}, whose names other files "
                    "do not agree on: write all files with the same names of classes, or labels as texts."
                )
    return frozenset(differing)


def open_parquet(builder: DatasetBuilder, files: list[str], split: str) -> ParquetLabels:
    """Finds what reads parquet files on this machine, with the types of the split, and the labels that each names."""
    features = builder.config.features or unify_parquet_types(files)
    return open_labels(ParquetLabels, builder, files, split, features, parquet.read_schema)


def open_arrow(builder: DatasetBuilder, files: list[str], split: str) -> ArrowLabels:
    """Finds what reads Arrow files on this machine, with the types of the split, and the labels that each names."""
    return open_labels(ArrowLabels, builder, files, split, builder.config.features, read_arrow_schema)


def open_labels(
    reader_class: type[ParquetLabels] | type[ArrowLabels],
    builder: DatasetBuilder,
    files: list[str],
    split: str,
    features: Features | None,
    read_schema: Callable[[str], pa.Schema],
) -> ParquetLabels | ArrowLabels:
    """
    Finds what reads the files of a split alone: `datasets` would read all splits with the types of the first one.

    Args:
        reader_class (`type`):
            What reads them.
        builder (`DatasetBuilder`):
            What `datasets` reads them by.
        files (`list[str]`):
            The files of the split.
        split (`str`):
            The split.
        features (`Features`, *optional*):
            The types of the columns. None for those of `datasets`.
        read_schema (`Callable[[str], pyarrow.Schema]`):
            Reads the schema of a file.
    """
    columns = find_differing_labels(files, read_schema)
    if columns:
        features = replace_by_texts(features or Features.from_arrow_schema(read_schema(files[0])), columns)
    reader = reader_class(
        data_files=select_split(builder.config.data_files, split),
        features=features,
        hash=hash_readers(),
        **find_options(builder),
    )
    reader.label_columns = columns
    return reader


def replace_by_texts(features: Features, columns: frozenset[str]) -> Features:
    """Makes the types of columns, some of which hold texts."""
    replaced = dict(features)
    for column in columns:
        replaced[column] = Value("string")
    return Features(replaced)

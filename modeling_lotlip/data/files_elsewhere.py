# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files elsewhere: `datasets` reads them, but what it would take for something else is an error."""

import bz2
import csv
import io
import lzma
import zlib
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import (
    ClassLabel,
    DatasetBuilder,
    DownloadConfig,
    DownloadManager,
    Features,
    Json,
    LargeList,
    List,
    SplitGenerator,
    Value,
)
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.features.features import FeatureType
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.utils.file_utils import xopen

from ..utils.terminal import without_stop
from .folder import list_files, list_other_splits, select_split, sign_files
from .images import is_address
from .json_files import NamedJson
from .options import find_options, make_other_reader
from .row_files import (
    CSV_FORMAT,
    INTEGER,
    MAX_CELL_LENGTH,
    NUMBER,
    CsvColumns,
    are_csv_cells_plain,
    are_csv_rows_checked,
    check_header,
    find_csv_types,
    open_csv,
)
from .rows import Rows, look_up


# Of a CSV file, among which are the header and rows. A block of .bz2 has at most 900,000 bytes.
NUM_FIRST_BYTES = 2**20
# What decompresses files, by the bytes that they begin with
DECOMPRESSORS = {
    b"\x1f\x8b": partial(zlib.decompressobj, wbits=zlib.MAX_WBITS | 16),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
}


def open_binary(path: str, config: DownloadConfig | None = None, **options: Any) -> IO[bytes]:
    """
    Opens a file on this machine, whatever its name, or at an address.

    Args:
        path (`str`):
            Its path or address, which may lead into an archive.
        config (`DownloadConfig`, *optional*):
            How it is read from elsewhere.
        options:
            Further options of `fsspec` for this.
    """
    if is_address(path):
        return xopen(path, "rb", download_config=config, **options)
    # `open` may be that of `datasets` here, which takes names with `::` for addresses
    return io.open(path, "rb")  # noqa: UP020


def check_cast(
    schema: pa.Schema, features: Features | None, file: str | None = None, columns: Collection[str] | None = None
) -> None:
    """
    Checks that rows mean the same after `datasets` has cast them to the types of rows before: it makes numbers of
    texts, and keeps the numbers of labels, whatever their names.

    Args:
        schema (`pa.Schema`):
            The types of the columns in some rows.
        features (`Features`, *optional*):
            Those that they are cast to.
        file (`str`, *optional*):
            The name of the file, for an error.
        columns (`Collection[str]`, *optional*):
            Those that are used. Default: all.

    Raises:
        `ValueError`: if they do not; names the column.
    """
    of_file = "" if file is None else f"{file}: "
    for name, own, feature in pair_columns(schema, features):
        if columns is not None and name not in columns:
            continue
        if any(is_text_type(own_type) and is_number_type(new_type) for own_type, new_type in pair_types(own, feature)):
            raise ValueError(
                f"{of_file}the column {name!r} holds texts, but is read as numbers, as in rows before or in a card: "
                'the text "007" would be 7. Write values of one type in all rows and files.'
            )
        are_labels = isinstance(own, ClassLabel) and isinstance(feature, ClassLabel)
        if are_labels and own.names != feature.names:
            raise ValueError(
                f"{of_file}the labels in the column {name!r} have other names than in rows before or in a card: write "
                "all files with the same names of classes, or labels as texts."
            )


def check_dates(schema: pa.Schema, features: Features | None, file: str | None = None) -> None:
    """
    Checks that texts in JSON that are written like dates are not read as times in a column of texts: see
    [`check_cast`]. Where all are dates, they are times.

    Args:
        schema (`pa.Schema`):
            The types of the columns in some rows.
        features (`Features`, *optional*):
            Those that they are cast to.
        file (`str`, *optional*):
            The name of the file, for an error.

    Raises:
        `ValueError`: if some are; names the column.
    """
    of_file = "" if file is None else f"{file}: "
    for name, own, feature in pair_columns(schema, features):
        if any(is_date_type(own_type) and is_text_type(new_type) for own_type, new_type in pair_types(own, feature)):
            raise ValueError(
                f"{of_file}the column {name!r} holds texts that are written like dates, and would be read as times: "
                "download the files."
            )


def pair_columns(schema: pa.Schema, features: Features | None) -> Iterator[tuple[str, FeatureType, FeatureType]]:
    """Pairs the types of the columns in some rows with those that they are cast to, and gives their names."""
    own = Features.from_arrow_schema(schema)
    for name, feature in (features or {}).items():
        if name in own:
            yield name, own[name], feature


def pair_types(own: FeatureType, feature: FeatureType) -> Iterator[tuple[Value, Value]]:
    """Pairs the types of values, also inside of lists and dictionaries, with those that they are cast to."""
    if isinstance(own, dict) and isinstance(feature, dict):
        for name in own.keys() & feature.keys():
            yield from pair_types(own[name], feature[name])
    elif isinstance(own, (List, LargeList)) and isinstance(feature, (List, LargeList)):
        yield from pair_types(own.feature, feature.feature)
    elif isinstance(own, Value) and isinstance(feature, Value):
        yield own, feature


def is_text_type(feature: Value) -> bool:
    """Whether values of a type are texts."""
    return feature.dtype.endswith(("string", "string_view"))


def is_date_type(feature: Value) -> bool:
    """Whether values of a type are times, such as pyarrow makes of texts in JSON that are written like dates."""
    return feature.dtype.startswith("timestamp")


def is_number_type(feature: Value) -> bool:
    """Whether values of a type are numbers, or true and false."""
    is_of_type = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(is_of(feature.pa_type) for is_of in is_of_type)


def read_beginning(file: str, config: DownloadConfig) -> tuple[bytes, bool]:
    """
    Reads the beginning of a file elsewhere, decompressed if its first bytes are those of such a file, and whether that
    is all of it.
    """
    with open_binary(file, config, block_size=0) as opened:
        beginning = b""
        while len(beginning) < NUM_FIRST_BYTES:  # a read gives what has come so far
            content = opened.read(NUM_FIRST_BYTES - len(beginning))
            if not content:
                break
            beginning += content
    is_whole = len(beginning) < NUM_FIRST_BYTES
    if beginning.startswith(b"PK\x03\x04"):  # `datasets` reads the files in the archive
        return b"", is_whole
    for first_bytes, make_decompressor in DECOMPRESSORS.items():
        if beginning.startswith(first_bytes):
            parts = []
            while beginning.startswith(first_bytes):  # such a file may have several parts
                decompressor = make_decompressor()
                parts.append(decompressor.decompress(beginning))
                beginning = decompressor.unused_data
            return b"".join(parts), is_whole
    return beginning, is_whole


def read_first_rows(builder: DatasetBuilder, file: str) -> list[list[str]]:
    """
    Reads the rows at the beginning of a CSV file elsewhere, the header among them, but blank ones. There are none in
    an archive, or where the options are such that it is not known what a row is.

    Args:
        builder (`DatasetBuilder`):
            What reads the file.
        file (`str`):
            The file.

    Raises:
        `OSError`, `EOFError`, `csv.Error`, `lzma.LZMAError`, `zlib.error`: if it cannot be read.
        `ValueError`: if two columns have one name.
    """
    options = find_options(builder)
    if options.get("names") is not None or not are_csv_rows_checked(options):
        return []
    config = DownloadConfig(token=builder.token, storage_options=builder.storage_options)
    beginning, is_whole = read_beginning(file, config)
    cells = {CSV_FORMAT[name]: value for name, value in options.items() if name in CSV_FORMAT}
    text = io.StringIO(beginning.decode("utf-8-sig", errors="replace"), newline="")
    limit = csv.field_size_limit(MAX_CELL_LENGTH)
    try:
        reader = csv.reader(text, **cells)
        rows = list(reader)
    finally:
        csv.field_size_limit(limit)
    if not is_whole:
        del rows[-1:]
    rows = [row for row in rows if len(row) > 1 or "".join(row).strip(" \t")]
    if rows:
        check_header(file, rows[0], reader.dialect)
    return rows


def check_first_rows(builder: DatasetBuilder, files: Iterable[str]) -> None:
    """
    Checks that the first row of CSV files elsewhere has no more fields than the header: pandas would take its first
    field, and those of all rows, for an index.

    Args:
        builder (`DatasetBuilder`):
            What reads them.
        files (`Iterable[str]`):
            The files. Those that cannot be opened are passed over: who reads them says why.

    Raises:
        `ValueError`: if it has, or two columns have one name; names the file.
    """
    for file in files:
        try:
            rows = read_first_rows(builder, file)
        except (EOFError, OSError, csv.Error, lzma.LZMAError, zlib.error):
            continue
        if len(rows) > 1:
            check_length(file, rows[1], rows[0])


def check_length(file: str, row: list[str], header: list[str]) -> None:
    """Raises a `ValueError` if a row of a CSV file has more fields than the header."""
    if len(row) > len(header):
        raise ValueError(f"A row of {file} has more fields than the header: quote such cells.")


def find_types_of_first_rows(files: Iterable[str], builder: DatasetBuilder) -> Features | None:
    """
    Finds the types of the columns in the beginnings of CSV files elsewhere, as [`check_csv_files`] does in whole ones
    on this machine.

    Args:
        files (`Iterable[str]`):
            The files.
        builder (`DatasetBuilder`):
            What reads them.

    Returns:
        `Features`, *optional*: the types; None where it is not known what a row is.

    Raises:
        `ValueError`: if the files have other columns than each other, a row has another number of fields, or one is
            damaged.
    """
    columns = None
    for file in files:
        try:
            rows = read_first_rows(builder, file)
        except (EOFError, csv.Error, lzma.LZMAError, zlib.error) as error:
            raise ValueError(f"{file} cannot be read: {without_stop(error)}.") from error
        if not rows:
            return None
        if columns is None:
            first = file
            columns = CsvColumns(rows[0])
        if rows[0] != columns.names:
            raise ValueError(
                f"{file} has the columns {rows[0]}, but {first} has {columns.names}: write all files with the same "
                "columns in the same order."
            )
        for row in rows[1:]:
            check_length(file, row, rows[0])
            if len(row) < len(columns.names):
                raise ValueError(f"A row of {file} has fewer fields than the header, {row}: write all of them.")
            columns.add(row)
    return None if columns is None else columns.make_features()


class JsonElsewhere(NamedJson):
    """Reads JSON files elsewhere as `datasets` does, but refuses texts in a column of numbers."""

    used_columns: Collection[str] | None = None  # all
    has_types: bool = True

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        splits = super()._split_generators(dl_manager)
        if self.info.features is None and dl_manager.is_streaming:  # of a list nothing has been read yet
            self.has_types = False
        elif self.info.features is None:
            _, first = next(iter(self._generate_tables(**splits[0].gen_kwargs)))
            self.info.features = Features.from_arrow_schema(first.schema)
        return splits

    def restore_values(self, tables: Iterator, original_files: list) -> Iterator[tuple[Any, pa.Table]]:
        """
        Yields the tables of files. Raises a `ValueError` for values of several types in a stream of lists, which has
        no types: texts could not be told from JSON.
        """
        for key, table in tables:
            for field in table.schema:
                if not self.has_types and isinstance(field.type, pa.JsonType):
                    raise ValueError(f"the column {field.name!r} holds values of several types: write JSON lines")
            yield key, table

    def _cast_table(self, pa_table: pa.Table, **options: Any) -> pa.Table:
        check_cast(pa_table.schema, self.info.features, columns=self.used_columns)
        check_dates(pa_table.schema, self.info.features)
        return super()._cast_table(pa_table, **options)


class CsvElsewhere(Csv):
    """
    Reads a stream of CSV files elsewhere, of which each column has the type that it has in their first rows:
    `datasets` would find out that of each 10,000 rows by themselves. Where a card says the types, it reads them.
    """

    other_splits: list[list[str]] = []  # their files
    types: Features | None = None

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        files = list_files(self, "all")
        if self.config.features is None and are_csv_cells_plain(find_options(self)):
            find_types = partial(find_types_of_first_rows, builder=self)
            self.types = find_csv_types(files, self.other_splits, find_types)
        else:
            check_first_rows(self, files)
        if self.types is not None:
            for name in self.types.keys() & set(self.config.converters or ()):  # of keys, which are texts
                self.types[name] = Value("string")
            self.config.converters = None
            self.config.features = Features(dict.fromkeys(self.types, Value("string")))  # as they are written
            self.info.features = self.types
        return super()._split_generators(dl_manager)

    def _cast_table(self, pa_table: pa.Table) -> pa.Table:
        table = super()._cast_table(pa_table)
        if self.types is None:
            return table
        columns = []
        for field in self.types.arrow_schema:
            cells = table[field.name].cast(pa.string())  # of a header alone they have no type
            if field.type != pa.string():
                cells = read_numbers(cells, field)
            columns.append(cells)
        return pa.table(columns, schema=self.types.arrow_schema)


def read_numbers(cells: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """
    Reads cells of a CSV file as the numbers that they are in the first rows.

    Args:
        cells (`pa.ChunkedArray`):
            The cells, as texts.
        field (`pa.Field`):
            The column, of whole numbers or decimals.

    Raises:
        `ValueError`: if they are something else, as `007` is.
    """
    pattern = INTEGER if pa.types.is_integer(field.type) else NUMBER
    cells = pc.utf8_trim(cells, " ")  # as pandas reads them
    is_number = pc.fill_null(pc.match_substring_regex(cells, f"^(?:{pattern.pattern})$"), True)
    others = cells.filter(pc.invert(is_number))
    if len(others) > 0:
        raise ValueError(
            f"The column {field.name!r} holds {field.type} in the first rows, and later {others[0].as_py()!r}: write "
            "values of one type, or leave out `--streaming`."
        )
    return pc.replace_substring_regex(cells, r"^\+", "").cast(field.type)


class ParquetElsewhere(Parquet):
    """Reads parquet files elsewhere as `datasets` does, but refuses texts in a column of numbers."""

    used_columns: Collection[str] | None = None  # all

    def _cast_table(self, pa_table: pa.Table) -> pa.Table:
        check_cast(pa_table.schema, self.info.features, columns=self.used_columns)
        return super()._cast_table(pa_table)


READERS_ELSEWHERE = {"csv": CsvElsewhere, "json": JsonElsewhere, "parquet": ParquetElsewhere}


def open_elsewhere(builder: DatasetBuilder, split: str, key_column: str | None, is_stream: bool) -> DatasetBuilder:
    """
    Makes what reads CSV, JSON or parquet files elsewhere. CSV is downloaded and read as files here are, but for a
    stream. Dates in JSON, for which the files would be read twice, stay times.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`.
        split (`str`):
            The split that is read.
        key_column (`str`, *optional*):
            A column that is read as text.
        is_stream (`bool`):
            Whether they are read while they are used: then the types are those of the split.
    """
    name = builder.info.builder_name
    if name == "csv" and not is_stream:
        return open_downloaded_csv(builder, split, key_column)
    reader_class = READERS_ELSEWHERE[name]
    if not is_stream:
        return make_other_reader(reader_class, builder, builder.info)
    reader = make_other_reader(reader_class, builder, builder.info, select_split(builder.config.data_files, split))
    reader.info.features = builder.config.features or builder.info.features  # not those of all splits in the cache
    if name == "csv":
        reader.config.features = builder.config.features
        reader.info.features = builder.config.features
        reader.other_splits = list_other_splits(builder, split)
    return reader


def open_downloaded_csv(builder: DatasetBuilder, split: str, key_column: str | None) -> DatasetBuilder:
    """
    Downloads CSV files, and finds what reads them: see [`open_csv`].

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`.
        split (`str`):
            The split that is read.
        key_column (`str`, *optional*):
            A column that is read as text.

    Raises:
        `ValueError`: if a row has another number of fields than the header; names the file.
    """
    config = DownloadConfig(token=builder.token, storage_options=builder.storage_options)
    manager = DownloadManager(builder.dataset_name, download_config=config, base_path=builder.base_path)
    addresses = {}
    downloaded = DataFilesDict()
    for name, files in builder.config.data_files.items():
        paths = manager.download_and_extract(list(files))
        addresses.update(zip(paths, files))
        downloaded[str(name)] = DataFilesList(paths, [])
    builder.config.data_files = sign_files(downloaded)
    try:
        return open_csv(builder, split, key_column)
    except ValueError as error:
        message = str(error)
        for path, address in addresses.items():
            message = message.replace(path, address)
        raise ValueError(message) from error


def check_key_column(rows: Rows, key_column: str) -> None:
    """
    Checks that keys of JSON elsewhere are read as they are written: of texts among numbers `datasets` makes numbers.

    Args:
        rows (`Dataset` or `IterableDataset`):
            The rows.
        key_column (`str`):
            The column of keys; dots lead into dictionaries.

    Raises:
        `ValueError`: if they are not.
    """
    # streams of lists have no types, and values of one
    if rows.features is not None and isinstance(look_up(rows.features, key_column), Json):
        raise ValueError(
            f"The column {key_column!r} holds texts and numbers, and the text '007' would be read as 7: write all "
            "as texts."
        )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What reads folders of images with the files of metadata in them, on this machine and elsewhere."""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pandas as pd
import pyarrow as pa
from datasets import DatasetBuilder, DownloadConfig, DownloadManager, Features, SplitGenerator, Value
from datasets.features.features import require_decoding, require_storage_cast
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

from ..utils.files import hash_bytes
from ..utils.terminal import without_stop
from .files_elsewhere import check_cast, check_dates, open_binary
from .folder import find_ending
from .json_files import iterate_rows, replace_times, unify_fields
from .options import find_options, hash_readers
from .row_files import check_csv_content, join_csv_types


logger = logging.get_logger(__name__)

# How the names of columns of metadata end that name images
FILE_NAMES = ("file_name", "file_names")


class FolderTexts(ImageFolder):
    """
    Reads a folder of images with metadata as `datasets` does, but for the same columns in `metadata.jsonl`, and for
    several files of metadata: `datasets` reads these in an order that each process has anew, and takes the columns of
    one of them, and those of the first 10 MiB of `metadata.jsonl`. Where the first list of a block begins with null,
    pyarrow moves the values of all its lists (https://github.com/apache/arrow/issues/51305): it is read otherwise. In
    `metadata.csv` NA and None are words, each row has as many fields as the header, and a column has one type.
    """

    date_columns: frozenset[str] = frozenset()
    # of metadata.csv, where no types are given
    key_column: str | None = None
    is_other: bool = False  # in archives or elsewhere

    def _split_generators(self, dl_manager: DownloadManager) -> list[SplitGenerator]:
        self.csv_types = {}
        splits = super()._split_generators(dl_manager)
        metadata_files = []
        for split in splits:
            split.gen_kwargs["metadata_files"] = sort_metadata(**split.gen_kwargs)
            metadata_files += split.gen_kwargs["metadata_files"]
        if self.config.features is not None or not splits[0].gen_kwargs["add_metadata"]:
            return splits
        endings = {find_ending(names[0] or names[-1]) for names in metadata_files}  # one
        if endings == {".csv"} and self.config.filters is None:
            self.info.features = self.find_csv_types(metadata_files)
        elif len(metadata_files) > 1 or endings == {".jsonl"}:
            self.info.features = self.find_types(metadata_files)
        return splits

    def _read_metadata(self, metadata_file: str, metadata_ext: str = "") -> Iterator[pa.Table]:
        if metadata_ext == ".csv" and self.config.filters is None:
            yield self.read_csv(metadata_file)
            return
        if metadata_ext == ".csv":
            self.warn_of_lost_words(metadata_file)
        num_rows = 0
        for table in super()._read_metadata(metadata_file, metadata_ext):
            check_cast(table.schema, self.info.features, metadata_file)
            if self.is_other and metadata_ext == ".jsonl":  # which is not read again for dates
                check_dates(table.schema, self.info.features, metadata_file)
            if metadata_ext == ".jsonl" and not is_whole(table):
                if is_elsewhere(metadata_file) or self.config.filters is not None:
                    raise ValueError(
                        f"{metadata_file} has lists that begin with null, of which pyarrow moves the values to other "
                        "rows: leave null out of the lists."
                    )
                rows = islice(iterate_rows([metadata_file]), num_rows, num_rows + len(table))
                schema = pa.schema([(field.name, replace_times(field.type)) for field in table.schema])
                table = pa.Table.from_pylist(list(rows), schema=schema)
            num_rows += len(table)
            yield table

    def read_content(self, file: str) -> bytes:
        """Reads a file `metadata.csv`, which may be elsewhere or in an archive, and checks its rows once."""
        config = DownloadConfig(token=self.token, storage_options=self.storage_options)
        with open_binary(file, config) as opened:
            content = opened.read()
        if file not in self.csv_types:
            self.csv_types[file] = check_csv_content(file, content)
        return content

    def read_csv(self, file: str) -> pa.Table:
        """
        Reads a file `metadata.csv` with the types that are given, or else as texts: see [`find_csv_types`].

        Args:
            file (`str`):
                The file, which may be elsewhere or in an archive.

        Raises:
            `ValueError`: if a row has another number of fields than the header, or a value is none of its type.
        """
        content = self.read_content(file)
        features = self.config.features
        schema = None
        if features is None:
            features = Features(dict.fromkeys(self.csv_types[file], Value("string")))
            schema = features.arrow_schema
        types = {}
        for field, feature in zip(features.arrow_schema, features.values()):
            # labels may be written by their names
            types[field.name] = object if require_storage_cast(feature) else field.type.to_pandas_dtype()
        try:
            table = pd.read_csv(io.BytesIO(content), dtype=types, keep_default_na=False, na_values=[""])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {without_stop(error)}.") from error
        return pa.Table.from_pandas(table, schema, preserve_index=False)

    def warn_of_lost_words(self, file: str) -> None:
        """Says which words of a file `metadata.csv`, such as NA, are read as missing: with filters they still are."""
        content = self.read_content(file)
        words = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, na_values=[""])
        lost = words[pd.read_csv(io.BytesIO(content), dtype=str).isna()].stack().dropna().tolist()
        if lost:
            logger.warning_once(
                f"{len(lost)} cells of {file}, as {lost[0]!r}, are read as missing, since a card filters the rows: "
                "write metadata.jsonl in its place, where they are texts."
            )

    def find_csv_types(self, metadata_files: list[tuple]) -> Features:
        """Finds the types of the columns of all files `metadata.csv`: `datasets` has found texts and images."""
        for names in metadata_files:
            if names[-1] not in self.csv_types:
                self.read_content(names[-1])
        found = join_csv_types(self.csv_types.values())
        features = Features(self.info.features)
        for name in features.keys() & found.keys():
            features[name] = Value("string") if name == self.key_column else found[name]
        return features

    def find_types(self, metadata_files: list[tuple]) -> Features:
        """
        Finds the types of the columns of all files of metadata: in all rows if they are on this machine, else in the
        first ones. `datasets` has found those of one file, and images.
        """
        schemas = []
        for names in metadata_files:
            tables = self._read_metadata(names[-1], find_ending(names[0] or names[-1]))
            if is_elsewhere(names[-1]):  # else all would be downloaded twice
                tables = islice(tables, 1)
            for table in tables:
                schemas.append(table.schema)
        of_one = self.info.features
        of_all = Features.from_arrow_schema(unify_fields(schemas))
        features = {name: feature for name, feature in of_one.items() if name not in of_all}
        for name, feature in of_all.items():
            is_same = name in of_one and of_one.arrow_schema.field(name).type == of_all.arrow_schema.field(name).type
            # labels with names, and images in lists or dictionaries
            if is_same or (name in of_one and require_decoding(of_one[name])):
                features[name] = of_one[name]
            elif name in of_one or not name.endswith(FILE_NAMES):
                features[name] = feature
        return Features(features)

    def _generate_examples(
        self, files: list, metadata_files: list, add_metadata: bool, add_labels: bool
    ) -> Iterator[tuple[Any, dict]]:
        examples = super()._generate_examples(files, metadata_files, add_metadata, add_labels)
        if add_metadata and self.config.features is None:
            examples = self.check_names(examples, metadata_files)
        if not self.date_columns:
            yield from examples
            return
        rows = iterate_rows(names[-1] for names in metadata_files)
        for (key, example), row in zip(examples, rows, strict=True):
            for name in self.date_columns & example.keys():
                example[name] = row.get(name)
            yield key, example

    def check_names(self, examples: Iterable[tuple], metadata_files: list[tuple]) -> Iterator[tuple[Any, dict]]:
        """Raises a `ValueError` for a row with a column that was not found before, and would be lost."""
        for key, example in examples:
            for name in example.keys() - self.info.features.keys():
                if not name.endswith(FILE_NAMES):
                    raise ValueError(
                        f"{metadata_files[key.original_shard_id][-1]} has the column {name!r}, but none of the rows "
                        "at its beginning has: write all rows with the same columns."
                    )
            yield key, example


def sort_metadata(files: Iterable[tuple], metadata_files: Iterable[tuple], **options: bool) -> tuple[tuple, ...]:
    """
    Sorts the files of metadata in a folder by the names that they, or their archives, had before a download.

    Args:
        files (`Iterable[tuple]`):
            The images and archives of the folder, as `datasets` lists them: of an archive its address, and where it
            is now.
        metadata_files (`Iterable[tuple]`):
            The address of each, None in an archive, where its archive is now, and where it is now.
        options:
            What else `datasets` knows of the folder.
    """
    archives = {folder: archive for archive, folder, _ in files if folder is not None}

    def get_names(names: tuple) -> tuple[str, str]:
        address, folder, file = names
        return str(address or archives[folder]), str(file)

    return tuple(sorted(metadata_files, key=get_names))


def is_whole(table: pa.Table) -> bool:
    """Whether all columns of a table have as many values as they say."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def is_elsewhere(path: str) -> bool:
    """Whether a file, which may be in an archive, is not on this machine."""
    return "://" in path.rpartition("::")[2]


def open_other_folder(builder: DatasetBuilder, key_column: str | None) -> FolderTexts:
    """
    Makes what reads images in archives or elsewhere, and their metadata in the order of its files.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
    """
    reader = FolderTexts(
        base_path=builder.base_path,
        dataset_name=builder.dataset_name,
        repo_id=builder.repo_id,
        token=builder.token,
        storage_options=builder.storage_options,
        data_files=builder.config.data_files,
        features=builder.config.features,
        hash=hash_bytes(f"{hash_readers()} {key_column}".encode()),
        **find_options(builder),
    )
    reader.EXTENSIONS = builder.EXTENSIONS
    reader.key_column = key_column
    reader.is_other = True
    # else `datasets` decodes a stream of the Hub at once, also where its images are asked for as files
    reader.config.decode_num_threads = 0
    reader.info.builder_name = builder.info.builder_name
    return reader

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions in files of their own, found by a key of the image."""

import os
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.constants import HF_HOME
from transformers.utils import logging

from ..utils.output_folder import atomic_write, warn_of_unfinished
from .arguments import BUILDERS
from .files_elsewhere import JsonElsewhere, ParquetElsewhere, check_first_rows
from .folder import as_patterns, describe_failure, list_files, sign_files
from .hub_files import name_commits
from .images import is_address, to_local_path
from .json_files import open_json
from .options import hash_readers, make_other_reader
from .row_files import check_row_files, find_csv_texts, find_separator, unify_parquet_types
from .rows import read_captions


logger = logging.get_logger(__name__)

REJECTED_COLUMN = "rejected_by"
# The SHA-256 of the file of the image that a caption was made of
IMAGE_HASH_COLUMN = "sha256"
NUM_EXAMPLES = 5  # of keys, in messages
BLANK_TEXT = r'\s*(?:null|"(?:\s|\\[nrt])*")\s*'
BLANK_JSON = rf"^(?:{BLANK_TEXT}|\s*\[\s*\]\s*|\s*\[{BLANK_TEXT}(?:,{BLANK_TEXT})*\]\s*)$"


def hash_keys(keys: list) -> np.ndarray:
    """
    Hashes keys to 64 bits, the same in every process and run; the hashes of None and of the empty string are equal.
    Returns an array of shape `(keys,)`, uint64.
    """
    texts = []
    for key in keys:
        texts.append("" if key is None else str(key))
    return pd.util.hash_array(np.array(texts, dtype=object), categorize=False)


# The hash of no key
NO_KEY = hash_keys([None])[0]


def is_blank(values: pa.ChunkedArray) -> np.ndarray:
    """Finds the values that are null, a blank text or a list of these. Returns an array of shape `(values,)`, bool."""
    if isinstance(values.type, pa.BaseExtensionType):  # JSON, of a column with texts and lists
        is_empty = pc.match_substring_regex(values.cast(pa.large_string()), BLANK_JSON)
    elif is_list_type(values.type):
        return is_blank_list(values)
    else:
        is_empty = pc.equal(pc.utf8_trim_whitespace(values.cast(pa.large_string())), "")
    return pc.fill_null(is_empty, True).to_numpy()


def is_list_type(column_type: pa.DataType) -> bool:
    """Whether a type is that of lists, of any length or all of one."""
    types = pa.types
    return types.is_list(column_type) or types.is_large_list(column_type) or types.is_fixed_size_list(column_type)


def is_blank_list(values: pa.ChunkedArray) -> np.ndarray:
    """
    Finds the lists that are null, or hold nothing but null and blank texts: see [`is_blank`]. Returns an array of
    shape `(values,)`, bool.
    """
    found = []
    for chunk in values.chunks:
        has_text = np.zeros(len(chunk), dtype=bool)
        items = pc.list_flatten(chunk)
        if pa.types.is_nested(items.type):  # which are no captions: who reads them says so
            is_text = np.ones(len(items), dtype=bool)
        else:
            is_text = ~is_blank(pa.chunked_array([items]))
        has_text[pc.list_parent_indices(chunk).to_numpy()[is_text]] = True
        found.append(~has_text)
    return np.concatenate([np.empty(0, dtype=bool), *found])


class CaptionFiles:
    """
    Captions in Parquet, JSON lines, CSV or TSV files by key, which may have several rows. The files are read once,
    into the cache of `datasets`; in memory is nothing but what is looked up, by a sorted index of the keys' hashes
    that is kept on disk. Rows without any caption are left out, and those whose column `rejected_by` names a rule.

    Args:
        files (`list[str]`):
            The files, or patterns of their names.
        key_column (`str`):
            The column of keys.
        caption_columns (`list[str]`):
            The columns of captions.

    Raises:
        `ValueError`: if the files have other endings, cannot be read, or lack a column.
    """

    def __init__(self, files: list[str], key_column: str, caption_columns: list[str]):
        self.files = files
        self.key_column = key_column
        self.caption_columns = caption_columns
        rows = self._load_rows()
        missing = [name for name in (key_column, *caption_columns) if name not in rows.column_names]
        if missing and self.builder == "json" and len(rows) == 1:
            raise ValueError(
                f"`--caption_files {' '.join(self.files)}` hold one row, without the column {missing[0]!r}: "
                'write a row for each image, as {"key": "a.jpg", "captions": ["A boat."]}, and name the '
                "columns with `--file_key_column` and `--file_caption_columns`."
            )
        if missing:
            raise ValueError(
                f"`--caption_files` have no column {missing[0]!r} but {rows.column_names}: name "
                "theirs with `--file_key_column` and `--file_caption_columns`."
            )
        columns = [key_column, *caption_columns]
        if REJECTED_COLUMN in rows.column_names:
            columns.append(REJECTED_COLUMN)
        # of `lotlip recaption`: other programs have columns of this name too, with hashes of something else
        self.knows_images = {IMAGE_HASH_COLUMN, "captioner"} <= set(rows.column_names)
        if self.knows_images:
            columns.append(IMAGE_HASH_COLUMN)
        self.rows = rows.select_columns(list(dict.fromkeys(columns)))
        path = Path(HF_HOME, "lotlip", "caption_files", f"{self.rows._fingerprint}-{hash_readers()}.npy")
        if not path.exists():
            check_row_files(self.builder, self._list_local_files(), key_column, {"sep": self.separator})
            self._check_key_type()
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as partial, open(partial, "wb") as file:
                np.save(file, self._make_index())
        index = np.load(path, mmap_mode="r")
        self.hashes, self.row_indices = index[:2]
        if self.knows_images:
            self.image_hashes = index[2]

    @property
    def builder(self) -> str:
        """The name of what reads the files. Raises a `ValueError` if they have several endings, or unknown ones."""
        suffixes = {Path(file.lower().removesuffix(".gz")).suffix for file in self.files}
        if len(suffixes) > 1 or not suffixes <= BUILDERS.keys():
            raise ValueError(f"`--caption_files` must all end in one of {[*BUILDERS]}, got {self.files}.")
        return BUILDERS[suffixes.pop()]

    @property
    def separator(self) -> str:
        """What separates the cells of the files, if they are CSV."""
        return find_separator(self.files)

    def _list_local_files(self) -> list[str]:
        """The files on this machine that the patterns name, in the order in which `datasets` reads them."""
        found = []
        for pattern in self.files:
            found += [pattern] if os.path.isfile(pattern) else sorted(glob(pattern, recursive=True))
        return found

    def _check_patterns(self) -> None:
        """Raises a `ValueError` for a pattern that no file matches: of several `datasets` passes over it."""
        for pattern in self.files:
            is_elsewhere = "://" in pattern
            if not is_elsewhere and not os.path.isfile(pattern) and not glob(pattern, recursive=True):
                raise ValueError(f"`--caption_files {pattern}` cannot be read: there is no such file.")

    def _load_rows(self) -> Dataset:
        """Reads all columns of the files, into the cache of `datasets` or from there."""
        builder = self.builder
        self._check_patterns()
        local = self._list_local_files()
        used_columns = [self.key_column, *self.caption_columns, REJECTED_COLUMN, IMAGE_HASH_COLUMN]
        if local and any(is_address(to_local_path(file)) for file in self.files):
            raise ValueError(
                f"`--caption_files {' '.join(self.files)}` are on this machine and elsewhere, and would be read in "
                "different ways: download those from elsewhere."
            )
        options = {}
        if builder == "csv":  # where 000123 and NA are texts
            options = {"keep_default_na": False, "na_values": [""], "sep": self.separator}
        try:
            if builder == "csv" and local:
                options["features"] = find_csv_texts(local[0])
            elif builder == "csv":
                options["converters"] = dict.fromkeys(used_columns, str)
            if builder == "parquet" and local:
                options = {"features": unify_parquet_types(local)}
            files = name_commits(as_patterns(self.files))
            reader = load_dataset_builder(builder, data_files=files, **options)
            signed = sign_files(reader.config.data_files)
            if signed is not None:
                reader = load_dataset_builder(builder, data_files=signed, **options)
            if builder == "json" and local:
                reader = open_json(reader, local)
                reader.may_lack_columns = True  # `rejected_by`, say
            elif builder == "json":
                reader = make_other_reader(JsonElsewhere, reader, reader.info, columns=used_columns)
                reader.used_columns = used_columns
            elif builder == "parquet" and not local:
                reader = make_other_reader(ParquetElsewhere, reader, reader.info, columns=used_columns)
                reader.used_columns = used_columns
            if builder == "csv" and not local:
                check_first_rows(reader, list_files(reader, "train"))
            reader.download_and_prepare()
            return reader.as_dataset("train")
        except (DatasetGenerationError, OSError, StopIteration, TypeError, ValueError) as error:
            # says which file it is
            check_row_files(builder, local, self.key_column, {"sep": self.separator})
            raise ValueError(
                f"`--caption_files {' '.join(self.files)}` cannot be read: {describe_failure(error, local)}"
            ) from error

    def _check_key_type(self) -> None:
        """Raises a `ValueError` if the keys are neither texts nor integers."""
        key_type = getattr(self.rows.features[self.key_column], "dtype", None)
        if key_type not in ("string", "large_string") and not str(key_type).startswith(("int", "uint")):
            raise ValueError(
                f"The keys in the column {self.key_column!r} of `--caption_files` are read as "
                f"{key_type}, but must be strings or integers: write them as strings, and leave no "
                "row without one."
            )

    def check(self) -> None:
        """Warns once how many rows are left out. Raises a `ValueError` if all are."""
        warn_of_unfinished(Path(name) for name in self._list_local_files())
        num_rows = len(self.rows)
        num_left_out = num_rows - len(self.hashes)
        num_rejected = int(self._is_rejected().sum())
        left_out = (
            f"{num_left_out} of {num_rows} rows of `--caption_files {' '.join(self.files)}` are "
            f"left out: {num_rejected} that rules reject ({REJECTED_COLUMN!r}), "
            f"{num_left_out - num_rejected} without a key or a caption."
        )
        if len(self.hashes) == 0:
            raise ValueError(f"{left_out} There is nothing to read.")
        if num_left_out > 0:
            logger.warning_once(left_out)
        self._warn_of_several_images()

    def _warn_of_several_images(self) -> None:
        """Warns once of keys whose captions were made of several images, where these are known."""
        if not self.knows_images:
            return
        is_known = self.image_hashes != NO_KEY  # a row without an image may stand between others
        keys = self.hashes[is_known]
        images = self.image_hashes[is_known]
        found = np.flatnonzero((keys[1:] == keys[:-1]) & (images[1:] != images[:-1]))
        if len(found) == 0:
            return
        _, first = np.unique(keys[found], return_index=True)
        examples = []
        for index in np.sort(self.row_indices[is_known][found[first]])[:NUM_EXAMPLES]:
            examples.append(self.rows[int(index)][self.key_column])
        logger.warning_once(
            f"{len(first)} keys of `--caption_files` have captions of several images{list_examples(examples)}, by the "
            f"hashes in {IMAGE_HASH_COLUMN!r}: an image gets all captions of its key. Join them by `--file_key_column "
            f"{IMAGE_HASH_COLUMN}` and the column of images if their files are as they were."
        )

    def __reduce__(self):
        # pickled, the index would be read into memory
        return CaptionFiles, (self.files, self.key_column, self.caption_columns)

    def _is_rejected(self) -> np.ndarray:
        """Which rows a rule rejects: those whose `rejected_by` is neither null nor empty, nor false or 0."""
        if REJECTED_COLUMN not in self.rows.column_names:
            return np.zeros(len(self.rows), dtype=bool)
        values = self.rows.data.column(REJECTED_COLUMN)
        is_rejected = ~is_blank(values)
        if not pa.types.is_nested(values.type):
            texts = values.cast(pa.large_string())  # in quotes where they are JSON
            is_false = pc.match_substring_regex(texts, r'^\s*"?(?:false|0(?:\.0)?)"?\s*$', ignore_case=True)
            is_rejected &= ~pc.fill_null(is_false, False).to_numpy()
        return is_rejected

    def _make_index(self) -> np.ndarray:
        """
        Finds the hashes of the keys of the rows with captions in ascending order, the indices of the rows, and, where
        images are known, hashes that stand for these, `NO_KEY` for none: (2, rows) or (3, rows).
        """
        keys = self.rows.select_columns(self.key_column)
        batches = [hash_keys(batch[self.key_column]) for batch in keys.iter(batch_size=10_000)]
        hashes = np.concatenate([np.empty(0, dtype=np.uint64), *batches])
        has_no_key = hashes == NO_KEY
        has_no_caption = np.ones(len(self.rows), dtype=bool)
        for name in self.caption_columns:
            has_no_caption &= is_blank(self.rows.data.column(name))
        kept = np.flatnonzero(~(self._is_rejected() | has_no_key | has_no_caption))
        order = kept[np.argsort(hashes[kept], kind="stable")]
        index = [hashes[order], order.astype(np.uint64)]
        if self.knows_images:
            images = self.rows.select_columns(IMAGE_HASH_COLUMN)
            batches = [hash_keys(batch[IMAGE_HASH_COLUMN]) for batch in images.iter(batch_size=10_000)]
            index.append(np.concatenate([np.empty(0, dtype=np.uint64), *batches])[order])
        return np.stack(index)

    def has(self, hashes: np.ndarray) -> np.ndarray:
        """Finds the keys that have captions, by their hashes. Returns an array of the shape of these, bool."""
        indices = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return self.hashes[indices] == hashes

    def _find_range(self, key: str) -> slice:
        """Finds where a key is in the index."""
        hashed = hash_keys([key])[0]
        return slice(np.searchsorted(self.hashes, hashed, "left"), np.searchsorted(self.hashes, hashed, "right"))

    def find_rows(self, key: str) -> list[dict]:
        """Finds the rows of a key, none if it is not there."""
        rows = [self.rows[int(index)] for index in self.row_indices[self._find_range(key)]]
        # another key may have the same hash
        return [row for row in rows if str(row[self.key_column]) == key]

    def is_of_other_image(self, key: str, image_hash: str) -> bool:
        """
        Says whether the captions of a key, in files that know their images, were made of others than the one with
        this SHA-256; false where that of none is known.
        """
        known = self.image_hashes[self._find_range(key)]
        known = known[known != NO_KEY]
        return len(known) > 0 and hash_keys([image_hash])[0] not in known

    def __getitem__(self, key: str) -> list[str]:
        """The captions of a key, each once, none if it is not there: copies of an image may be captioned alike."""
        captions = []
        for row in self.find_rows(key):
            for column in self.caption_columns:
                try:
                    captions += read_captions(row, column)
                except ValueError as error:
                    raise ValueError(
                        f"`--caption_files {' '.join(self.files)}` hold no captions at the key {key!r}: {error}"
                    ) from error
        return list(dict.fromkeys(captions))


def list_examples(keys: list) -> str:
    """Lists some keys, in brackets; nothing where there are none."""
    if not keys:
        return ""
    return f" (such as {', '.join(map(repr, keys[:NUM_EXAMPLES]))})"

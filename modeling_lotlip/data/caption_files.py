# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions in files beside the images, found by a key of the image."""

from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.constants import HF_HOME
from transformers.utils import logging

from ..output_folder import atomic_write, warn_of_unfinished
from .arguments import BUILDERS
from .folder import describe_failure
from .rows import read_captions


logger = logging.get_logger(__name__)

REJECTED_COLUMN = "rejected_by"
NUM_EXAMPLES = 5  # of keys, in messages


def hash_keys(keys: list) -> np.ndarray:
    """Hashes of 64 bits, the same in every process and run; those of None and of the empty string are equal."""
    return pd.util.hash_array(np.array(["" if key is None else str(key) for key in keys], object), categorize=False)


def is_rejected(rows: Dataset) -> np.ndarray:
    """Which rows a rule rejects: those whose `rejected_by` is neither null nor empty."""
    rules = rows.data.column(REJECTED_COLUMN).cast(pa.string())
    return pc.fill_null(pc.not_equal(rules, ""), False).to_numpy()


def is_blank(captions: pa.ChunkedArray) -> np.ndarray:
    """Which captions are null, a blank text or an empty list."""
    if pa.types.is_string(captions.type) or pa.types.is_large_string(captions.type):
        is_empty = pc.equal(pc.utf8_trim_whitespace(captions), "")
    elif pa.types.is_list(captions.type) or pa.types.is_large_list(captions.type):
        is_empty = pc.equal(pc.list_value_length(captions), 0)
    else:
        is_empty = captions.is_null()
    return pc.fill_null(is_empty, True).to_numpy()


class CaptionFiles:
    """
    Captions in files, found by key. The files are read once, into the cache of `datasets`; in memory is nothing but
    what is looked up, by a sorted index of the keys' hashes that is kept on disk. Rows without any caption are left
    out, and those whose column `rejected_by` is set, which names the rule that rejects their caption.

    Args:
        files (`list[str]`):
            Parquet, JSON lines or CSV files, or patterns of such.
        key_column (`str`):
            Their column of keys. A key may have several rows.
        caption_columns (`list[str]`):
            Their columns of captions, strings or lists of strings.
        cache_dir (`str`, *optional*):
            Where they are read into. By default the cache of `datasets`.

    Raises:
        `ValueError`: if the files are of another kind, or lack a column.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from modeling_lotlip.data.caption_files import CaptionFiles

    >>> rows = {"url": ["x.org/1", "x.org/2"], "llava": ["A boat. It is red.", None], "blip": ["One boat.", "A car."]}
    >>> _ = Dataset.from_dict(rows).to_json("long.jsonl")
    >>> captions = CaptionFiles(["long.jsonl"], "url", ["llava", "blip"])
    >>> captions["x.org/1"], captions["x.org/2"], captions["x.org/3"]
    (['A boat. It is red.', 'One boat.'], ['A car.'], [])
    ```"""

    def __init__(self, files: list[str], key_column: str, caption_columns: list[str], cache_dir: str | None = None):
        self.arguments = (files, key_column, caption_columns, cache_dir)
        suffixes = {Path(file.lower().removesuffix(".gz")).suffix for file in files}
        if len(suffixes) > 1 or not suffixes <= BUILDERS.keys():
            raise ValueError(f"`--caption_files` must all be of one of the kinds {[*BUILDERS]}, got {files}.")
        builder = BUILDERS[suffixes.pop()]
        options = {"converters": {key_column: str}} if builder == "csv" else {}  # 000123 is not 123
        try:
            rows = load_dataset(builder, data_files=files, split="train", cache_dir=cache_dir, **options)
        except (DatasetGenerationError, FileNotFoundError, UnicodeDecodeError, StopIteration) as error:
            cause = describe_failure(error, (name for pattern in files for name in glob(pattern)))
            raise ValueError(f"`--caption_files {' '.join(files)}` cannot be read: {cause}") from error
        missing = [name for name in (key_column, *caption_columns) if name not in rows.column_names]
        if missing:
            raise ValueError(
                f"`--caption_files` have no column {missing[0]!r} but {rows.column_names}: name theirs with "
                "`--file_key_column` and `--file_caption_columns`."
            )
        key_type = getattr(rows.features[key_column], "dtype", None)
        if key_type not in ("string", "large_string") and not str(key_type).startswith(("int", "uint")):
            raise ValueError(
                f"The keys in the column {key_column!r} of `--caption_files` are read as {key_type}, but must be "
                "strings or integers: write them as strings, and leave no row without one."
            )
        rejected = [REJECTED_COLUMN] if REJECTED_COLUMN in rows.column_names else []
        self.rows = rows.select_columns(list(dict.fromkeys([key_column, *caption_columns, *rejected])))
        self.key_column, self.caption_columns = key_column, caption_columns
        folder = Path(HF_HOME) / "lotlip" / "caption_files" if cache_dir is None else Path(cache_dir)
        path = folder / f"{self.rows._fingerprint}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as partial, open(partial, "wb") as file:
                np.save(file, self._make_index())
        self.hashes, self.places = np.load(path, mmap_mode="r")

    def check(self) -> None:
        """Warns once how many rows are left out. Raises a `ValueError` if all are."""
        files = self.arguments[0]
        warn_of_unfinished(Path(name) for pattern in files for name in glob(pattern))
        num_rejected = int(is_rejected(self.rows).sum()) if REJECTED_COLUMN in self.rows.column_names else 0
        num_left_out = len(self.rows) - len(self.hashes)
        reasons = {f"that rules reject (column {REJECTED_COLUMN!r})": num_rejected}
        reasons["without a key or a caption"] = num_left_out - num_rejected
        message = f"{num_left_out} of {len(self.rows)} rows of `--caption_files {' '.join(files)}` are left out: "
        message += ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count) + "."
        if len(self.hashes) == 0:
            raise ValueError(f"{message} There is nothing to read.")
        if num_left_out:
            logger.warning_once(message)

    def __reduce__(self):
        # a worker maps the files too: pickled, the index would be read into memory
        return CaptionFiles, self.arguments

    def _make_index(self) -> np.ndarray:
        """The hashes of the keys of the rows with captions in ascending order, and their places, (2, rows)."""
        keys = self.rows.select_columns(self.key_column)
        batches = [hash_keys(batch[self.key_column]) for batch in keys.iter(batch_size=10_000)]
        hashes = np.concatenate([np.empty(0, dtype=np.uint64), *batches])
        is_key = hashes != hash_keys([None])
        is_key &= ~np.logical_and.reduce([is_blank(self.rows.data.column(name)) for name in self.caption_columns])
        if REJECTED_COLUMN in self.rows.column_names:
            is_key &= ~is_rejected(self.rows)
        places = np.flatnonzero(is_key)
        order = places[np.argsort(hashes[places], kind="stable")]
        return np.stack([hashes[order], order.astype(np.uint64)])

    def find_rows(self, key: str) -> list[dict]:
        """The rows of a key, none if it is not there."""
        hashed = hash_keys([key])
        first, last = (np.searchsorted(self.hashes, hashed, side)[0] for side in ("left", "right"))
        rows = (self.rows[int(place)] for place in self.places[first:last])
        return [row for row in rows if str(row[self.key_column]) == key]  # another key may have the same hash

    def __getitem__(self, key: str) -> list[str]:
        """The captions of a key, none if it is not there."""
        rows = self.find_rows(key)
        return [text for row in rows for column in self.caption_columns for text in read_captions(row, column)]

    def get_key(self, place: int) -> str:
        """The key at a place of the index."""
        return self.rows[int(self.places[place])][self.key_column]


def list_examples(keys: list) -> str:
    """Some keys, in brackets."""
    return f" (such as {', '.join(map(repr, keys[:NUM_EXAMPLES]))})" if keys else ""

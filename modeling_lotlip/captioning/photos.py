# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The images to caption: their keys, files and hashes, and each key once."""

import hashlib
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.images import UnreadableImageError, read_file, read_image, undecoded
from ..data.rows import find_column, find_key, read_url
from .known_keys import KnownKeys


KEYS_PER_BATCH = 10_000


class Photo(NamedTuple):
    """An image to caption, as its file (if there is none, why), and what to ask of it."""

    key: str
    url: str | None
    sha256: str | None
    content: bytes | None
    error: str | None
    prompt: str = ""

    def decode(self) -> Image.Image:
        """
        The image, upright in RGB.

        Raises:
            `UnreadableImageError`: if there is none, with the cause.
        """
        if self.error is not None:
            raise UnreadableImageError(self.error)
        try:
            return read_image({"bytes": self.content, "path": None})
        except UnreadableImageError as error:
            raise UnreadableImageError(f"the image cannot be read: {error}") from error


def falls_to(state: PartialState, key: str) -> bool:
    """
    Whether an image is captioned by this process. The hash of its key says so: one key never falls to two processes,
    and the processes of the next run may be more or fewer.
    """
    return zlib.crc32(key.encode()) % state.num_processes == state.process_index


class Photos:
    """
    The images of a data set that fall to this process.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set.
        source (`SourceArguments`):
            Where it comes from, and its column of images.
        key_column (`str`, *optional*):
            Its column of keys: see [`find_key`].
        state (`PartialState`):
            The processes.
        known (`KnownKeys`):
            The keys that have a record. Those that are read are added.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        source: SourceArguments,
        key_column: str | None,
        state: PartialState,
        known: KnownKeys,
    ):
        self.dataset = undecoded(dataset, source.image_column)
        self.source = source
        self.key_column = key_column
        self.state = state
        self.known = known
        self.num_repeated, self.num_unnamed, self.turn = 0, 0, 0

    def read(self, captioner: str) -> Iterator[Photo]:
        """
        Reads the images whose keys have no record by a captioner. Of the others nothing but the key is read, except
        where the data set is a stream.

        Raises:
            `ValueError`: if two different images have the same key.
        """
        self.num_repeated, self.num_unnamed = 0, 0
        self.turn += 1
        for number, (key, row) in enumerate(self.iterate_keys()):
            photo = None
            if key is None:
                photo = self.read_row(None, number, row)
                key = photo.key
            if not falls_to(self.state, key):
                continue
            self.num_unnamed += photo is not None and self.key_column not in (None, self.source.image_column)
            if not self.known.meet(key, self.turn):
                photo = photo or self.read_row(key, number, row)
                if not self.known.has_digest(key, photo.sha256):
                    raise ValueError(
                        f"Two different images have the key {key!r}, the second in row {number}: their captions could "
                        "not be told apart. Name a column of unique keys with `--key_column`, or the image column, "
                        f"`--key_column {self.source.image_column}`, for the SHA-256 of the file, and a new "
                        "`--output_dir`."
                    )
                self.num_repeated += 1
                continue
            if not self.known.is_done(key, captioner):
                photo = photo or self.read_row(key, number, row)
                self.known.note_digest(key, photo.sha256)
                yield photo

    def iterate_keys(self) -> Iterator[tuple[str | None, dict | None]]:
        """The keys of all rows: see [`find_key`]. Those of a stream with the rows, which come with them."""
        if isinstance(self.dataset, IterableDataset):
            for row in self.dataset:
                yield find_key(row, self.source, self.key_column), row
        elif self.key_column is not None:
            column = find_column(self.dataset.column_names, self.key_column)
            for rows in self.dataset.select_columns(column).iter(KEYS_PER_BATCH):
                for value in rows[column]:
                    yield find_key({column: value}, self.source, self.key_column), None
        else:
            columns = [name for name in ("__key__", self.source.image_column) if name in self.dataset.column_names]
            for table in self.dataset.select_columns(columns).with_format("arrow").iter(KEYS_PER_BATCH):
                # the paths alone: what a file holds is not looked at
                paths = pc.struct_field(table[self.source.image_column], "path").to_pylist()
                names = table["__key__"].to_pylist() if "__key__" in columns else [None] * len(paths)
                for name, path in zip(names, paths):
                    row = {"__key__": name, self.source.image_column: {"path": path}}
                    yield find_key(row, self.source), None

    def read_row(self, key: str | None, number: int, row: dict | None) -> Photo:
        """The image of a row. Without key it is known by its hash; a row without an image then by its number."""
        content = error = None
        row = self.dataset[number] if row is None else row
        try:
            content = read_file(row[self.source.image_column])
        except UnreadableImageError as unreadable:
            error = str(unreadable)
        sha256 = None if content is None else hashlib.sha256(content).hexdigest()
        return Photo(key or sha256 or f"row {number}", read_url(row), sha256, content, error)

    def describe_keys(self) -> list[str]:
        """What there is to say of the keys that were read last."""
        lines = []
        if self.num_repeated:
            lines.append(f"{self.num_repeated} rows repeat an image, which is captioned once.")
        if self.num_unnamed:
            lines.append(
                f"{self.num_unnamed} images have no `--key_column {self.key_column}`, and their SHA-256 as key."
            )
        return lines

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The images to caption: their keys, files and hashes, and each key once."""

import hashlib
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.images import UnreadableImageError, read_file, read_image, undecoded
from ..data.rows import find_key, read_url


class ImageFile(NamedTuple):
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


def is_in_share(state: PartialState, key: str) -> bool:
    """
    Whether an image is captioned by this process. The hash of its key says so: one key never falls to two processes,
    and the processes of the next run may be more or fewer.
    """
    return zlib.crc32(key.encode()) % state.num_processes == state.process_index


def read_files(
    dataset: Dataset | IterableDataset,
    source: SourceArguments,
    key_column: str | None,
    captioner: str,
    state: PartialState,
    connection: sqlite3.Connection,
    counts: Counter,
    retry_failed: bool = False,
) -> Iterator[ImageFile]:
    """
    Reads the images of a data set that fall to this process and have no record by a captioner; with `retry_failed` a
    record without a caption counts as none. The keys that this pass meets go into a temporary table of `connection`,
    a new one of [`open_database`]; what there is to say of rows is counted.

    Raises:
        `ValueError`: if two different images have the same key.
    """
    has_record = "SELECT 1 FROM records WHERE key = ? AND captioner = ?" + " AND error IS NULL" * retry_failed
    connection.execute("CREATE TEMP TABLE seen (key TEXT PRIMARY KEY, sha256 TEXT) WITHOUT ROWID")
    for number, row in enumerate(undecoded(dataset, source.image_column)):
        key, image = find_key(row, source, key_column), None
        if key is None:
            image = read_row(row, source, f"row {number}", key)
            key = image.key
            if key_column not in (None, source.image_column) and is_in_share(state, key):
                counts[f"images have no `--key_column {key_column}`, and their SHA-256 as key"] += 1
        key = key.encode("utf-8", "backslashreplace").decode()  # a file name may be no UTF-8
        if not is_in_share(state, key):
            continue
        if connection.execute("INSERT INTO seen VALUES (?, NULL) ON CONFLICT DO NOTHING", (key,)).rowcount == 0:
            image = image or read_row(row, source, f"row {number}", key)
            if find_sha256(connection, key) != image.sha256:
                raise ValueError(
                    f"Two different images have the key {key!r}, the second in row {number}: their captions could "
                    "not be told apart. Name a column of unique keys with `--key_column`, or the image column, "
                    f"`--key_column {source.image_column}`, for the SHA-256 of the file, and a new `--output_dir`."
                )
            counts["rows repeat an image, which is captioned once"] += 1
        elif connection.execute(has_record, (key, captioner)).fetchone() is None:
            image = image or read_row(row, source, f"row {number}", key)
            connection.execute("UPDATE seen SET sha256 = ? WHERE key = ?", (image.sha256, key))
            yield image


def find_sha256(connection: sqlite3.Connection, key: str) -> str | None:
    """The hash of the image of a key, as it was met or recorded."""
    query = "SELECT sha256 FROM seen WHERE key = :key UNION SELECT sha256 FROM records WHERE key = :key"
    return max((sha256 for (sha256,) in connection.execute(query, {"key": key}) if sha256), default=None)


def read_row(row: dict, source: SourceArguments, name: str, key: str | None) -> ImageFile:
    """The image of a row. Without key it is known by its hash; a row without an image then by its name."""
    content = error = None
    try:
        content = read_file(row[source.image_column])
    except UnreadableImageError as unreadable:
        error = str(unreadable)
    sha256 = None if content is None else hashlib.sha256(content).hexdigest()
    return ImageFile(key or sha256 or name, read_url(row), sha256, content, error)

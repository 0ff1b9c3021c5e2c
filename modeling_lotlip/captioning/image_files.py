# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The images to caption: their keys, files and hashes, and each key once."""

import hashlib
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.images import UnreadableImageError, find_file_on_disk, read_file, read_image, undecoded
from ..data.rows import find_key, read_url
from ..encoder.batches import sign_file
from .records import OTHER_IMAGE


class ImageFile(NamedTuple):
    """
    Holds an image to caption.

    Args:
        key (`str`):
            Its key, which no other image has.
        url (`str`, *optional*):
            Its address, if the dataset has one.
        sha256 (`str`, *optional*):
            Of its file, in hexadecimal digits.
        content (`bytes`, *optional*):
            Its file, None if there is none.
        error (`str`, *optional*):
            Why there is no file.
        prompt (`str`, *optional*, defaults to `""`):
            What to ask of it.
        signature (`dict[str, int | str]`, *optional*):
            What is known of a local file without reading it, before it was read: see [`sign_file`].
    """

    key: str
    url: str | None
    sha256: str | None
    content: bytes | None
    error: str | None
    prompt: str = ""
    signature: dict[str, int | str] | None = None

    def decode(self) -> Image.Image:
        """
        Decodes the image, upright in RGB.

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
    Says whether an image is captioned by this process. The hash of its key decides: one key never falls to two
    processes, and the next run may have more processes or fewer.
    """
    return zlib.crc32(key.encode()) % state.num_processes == state.process_index


def read_image_files(
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
    Reads the images of a dataset that fall to this process and have no record by a captioner, or one of another image
    that had their key. To see whether they are others now, local files are read unless their signature is as it was;
    files that are elsewhere are not read for that.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The dataset.
        source (`SourceArguments`):
            The name of its image column.
        key_column (`str`, *optional*):
            The column of the images' keys; see [`find_key`].
        captioner (`str`):
            The captioner whose records count.
        state (`PartialState`):
            Which process this is, of how many.
        connection (`sqlite3.Connection`):
            A new one of [`open_database`]. The keys that this pass meets go into a temporary table of it.
        counts (`Counter`):
            Counts rows by what is to be said of them, in words that follow their count.
        retry_failed (`bool`, *optional*, defaults to `False`):
            Whether a record without a caption counts as none.

    Returns:
        `Iterator[ImageFile]`: the images, without a prompt.

    Raises:
        `ValueError`: if two different images have the same key.
    """
    find_record = "SELECT sha256 FROM records WHERE key = ? AND captioner = ?"
    find_record += f" AND rejected_by IS NOT '{OTHER_IMAGE}'"
    if retry_failed:
        find_record += " AND error IS NULL"
    connection.execute("CREATE TEMP TABLE seen (key TEXT PRIMARY KEY, sha256 TEXT) WITHOUT ROWID")
    for index, row in enumerate(undecoded(dataset, source.image_column)):
        key = find_key(row, source, key_column)
        image = None
        if key is None:
            image = read_row_image(row, source, f"row {index}", key)
            key = image.key
            if key_column not in (None, source.image_column) and is_in_share(state, key):
                counts[f"images have no `--key_column {key_column}`, and their SHA-256 as key"] += 1
        key = key.encode("utf-8", "backslashreplace").decode()  # a file name may be no UTF-8
        if not is_in_share(state, key):
            continue
        is_new = connection.execute("INSERT INTO seen VALUES (?, NULL) ON CONFLICT DO NOTHING", (key,)).rowcount == 1
        if not is_new:
            image = image or read_row_image(row, source, f"row {index}", key)
            check_is_repeated(connection, key, image.sha256, f"row {index}", source)
            counts["rows repeat an image, which is captioned once"] += 1
            continue
        record = connection.execute(find_record, (key, captioner)).fetchone()
        sha256 = None
        if record is not None and image is None:
            sha256 = find_hash_of_unchanged(connection, key, row[source.image_column])
        if sha256 is None and (record is None or is_at_hand(row[source.image_column])):
            image = image or read_row_image(row, source, f"row {index}", key)
            sha256 = image.sha256
        if sha256 is not None:
            connection.execute("UPDATE seen SET sha256 = ? WHERE key = ?", (sha256, key))
        if record is not None and is_other(sha256, record[0]):
            counts["images took the place of others, and are captioned anew"] += 1
            record = None
        if record is None:
            yield image or read_row_image(row, source, f"row {index}", key)


def check_is_repeated(
    connection: sqlite3.Connection, key: str, sha256: str | None, name: str, source: SourceArguments
) -> None:
    """
    Checks that a row with a key that was met before repeats its image.

    Args:
        connection (`sqlite3.Connection`):
            That of [`read_image_files`].
        key (`str`):
            The key.
        sha256 (`str`, *optional*):
            Of the image of the row.
        name (`str`):
            What messages call the row.
        source (`SourceArguments`):
            The name of the image column.

    Raises:
        `ValueError`: if it is of another image.
    """
    if find_sha256(connection, key) != sha256:
        raise ValueError(
            f"Two different images have the key {key!r}, the second in {name}: it would not be known "
            "which caption is whose. Name a column of unique keys with `--key_column`, or the image "
            f"column, `--key_column {source.image_column}`, for the SHA-256 of the file, and a new "
            "`--output_dir`."
        )


def find_hash_of_unchanged(connection: sqlite3.Connection, key: str, image: dict | None) -> str | None:
    """Finds the SHA-256 of a local file that has the signature with which it was read; None if it is to be read."""
    signature = sign_image(image)
    if signature is None:
        return None
    query = (
        "SELECT sha256 FROM image_files WHERE (key, path, size, modified, changed) = "
        "(:key, :path, :size, :modified, :changed)"
    )
    known = connection.execute(query, {"key": key, **signature}).fetchone()
    if known is None:
        return None
    return known[0]


def sign_image(image: dict | None) -> dict[str, int | str] | None:
    """
    Describes the local file of an undecoded image, or its archive, without reading it: see [`sign_file`]. Its path is
    there too, since an archive has several images. None if it is in none.
    """
    if image is None or image.get("bytes") is not None:
        return None
    file = find_file_on_disk(image.get("path") or "")
    if file is None:
        return None
    path = image["path"].encode("utf-8", "backslashreplace").decode()  # a file name may be no UTF-8
    return {"path": path, **sign_file(os.stat(file))}


def is_at_hand(image: dict | None) -> bool:
    """Says whether the file of an undecoded image is read without asking another machine."""
    if image is None:
        return False
    return image.get("bytes") is not None or find_file_on_disk(image.get("path") or "") is not None


def is_other(sha256: str | None, recorded: str | None) -> bool:
    """Says whether an image is another one than that of a record, by their hashes; not if one of them is not known."""
    return sha256 is not None and recorded is not None and sha256 != recorded


def find_sha256(connection: sqlite3.Connection, key: str) -> str | None:
    """Finds the hash of the image of a key, as it was met; else as it was recorded."""
    (met,) = connection.execute("SELECT sha256 FROM seen WHERE key = ?", (key,)).fetchone()
    if met is not None:
        return met
    (recorded,) = connection.execute("SELECT max(sha256) FROM records WHERE key = ?", (key,)).fetchone()
    return recorded


def read_row_image(row: dict, source: SourceArguments, name: str, key: str | None) -> ImageFile:
    """
    Reads the image of a row.

    Args:
        row (`dict`):
            A row of the dataset, with its image undecoded.
        source (`SourceArguments`):
            The name of the image column.
        name (`str`):
            The key of a row that has neither a key nor an image.
        key (`str`, *optional*):
            The key of the image. By default the hash of its file.

    Returns:
        `ImageFile`: the image, or why there is none.
    """
    signature = sign_image(row[source.image_column])  # before it is read: a later change is seen
    try:
        content = read_file(row[source.image_column])
    except UnreadableImageError as error:
        return ImageFile(key or name, read_url(row), None, None, str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    return ImageFile(key or sha256, read_url(row), sha256, content, None, signature=signature)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The images to caption: their keys, files and hashes, and each key once."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.images import UnreadableImageError, read_file, read_image, undecoded
from ..data.rows import find_column, find_key, read_url
from .records import SeenKeys


KEYS_PER_BATCH = 10_000


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


def falls_to(state: PartialState, key: str) -> bool:
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
    seen: SeenKeys,
    counts: Counter,
) -> Iterator[ImageFile]:
    """
    Reads the images of a data set that fall to this process and have no record by a captioner. Of the others nothing
    but the key is read, except where the data set is a stream.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set.
        source (`SourceArguments`):
            Where it comes from, and its column of images.
        key_column (`str`, *optional*):
            Its column of keys: see [`find_key`].
        captioner (`str`):
            The name of the captioner.
        state (`PartialState`):
            The processes.
        seen (`SeenKeys`):
            A new one: the keys that this pass meets, and which have a record.
        counts (`Counter`):
            Gets the rows with something to say of, by what it is.

    Raises:
        `ValueError`: if two different images have the same key.
    """
    dataset = undecoded(dataset, source.image_column)
    for number, (key, row) in enumerate(iterate_keys(dataset, source, key_column)):
        image = None
        if key is None:
            image = read_row(dataset, source, None, number, row)
            key = image.key
        if not falls_to(state, key):
            continue
        if image is not None and key_column not in (None, source.image_column):
            counts[f"images have no `--key_column {key_column}`, and their SHA-256 as key"] += 1
        if not seen.add(key):
            image = image or read_row(dataset, source, key, number, row)
            if seen.find_sha256(key) != image.sha256:
                raise ValueError(
                    f"Two different images have the key {key!r}, the second in row {number}: their captions could "
                    "not be told apart. Name a column of unique keys with `--key_column`, or the image column, "
                    f"`--key_column {source.image_column}`, for the SHA-256 of the file, and a new `--output_dir`."
                )
            counts["rows repeat an image, which is captioned once"] += 1
        elif not seen.has_record(key, captioner):
            image = image or read_row(dataset, source, key, number, row)
            seen.set_sha256(key, image.sha256)
            yield image


def iterate_keys(
    dataset: Dataset | IterableDataset, source: SourceArguments, key_column: str | None
) -> Iterator[tuple[str | None, dict | None]]:
    """The keys of all rows: see [`find_key`]. Those of a stream with the rows, which come with them."""
    if isinstance(dataset, IterableDataset):
        for row in dataset:
            yield escape(find_key(row, source, key_column)), row
    elif key_column is not None:
        column = find_column(dataset.column_names, key_column)
        for rows in dataset.select_columns(column).iter(KEYS_PER_BATCH):
            for value in rows[column]:
                yield escape(find_key({column: value}, source, key_column)), None
    else:
        columns = [name for name in ("__key__", source.image_column) if name in dataset.column_names]
        for table in dataset.select_columns(columns).with_format("arrow").iter(KEYS_PER_BATCH):
            # the paths alone: what a file holds is not looked at
            paths = pc.struct_field(table[source.image_column], "path").to_pylist()
            names = table["__key__"].to_pylist() if "__key__" in columns else [None] * len(paths)
            for name, path in zip(names, paths):
                yield escape(find_key({"__key__": name, source.image_column: {"path": path}}, source)), None


def escape(key: str | None) -> str | None:
    """A key as text: the bytes of a file name that is not UTF-8 are written as `\\udce9`."""
    return key and key.encode("utf-8", "backslashreplace").decode()


def read_row(dataset: Dataset, source: SourceArguments, key: str | None, number: int, row: dict | None) -> ImageFile:
    """The image of a row. Without key it is known by its hash; a row without an image then by its number."""
    content = error = None
    row = dataset[number] if row is None else row
    try:
        content = read_file(row[source.image_column])
    except UnreadableImageError as unreadable:
        error = str(unreadable)
    sha256 = None if content is None else hashlib.sha256(content).hexdigest()
    return ImageFile(key or sha256 or f"row {number}", read_url(row), sha256, content, error)

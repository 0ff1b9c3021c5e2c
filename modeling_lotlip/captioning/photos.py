# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The images to caption: their keys, files and hashes, and each key once."""

import hashlib
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.images import UnreadableImageError, read_file, read_image, undecoded
from ..data.rows import find_key, read_url


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
        digests (`dict[str, str | None]`):
            The SHA-256 of images with a record, by key. Those that are read are added.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        source: SourceArguments,
        key_column: str | None,
        state: PartialState,
        digests: dict[str, str | None],
    ):
        self.dataset = undecoded(dataset, source.image_column)
        self.source = source
        self.key_column = key_column
        self.state = state
        self.digests = digests
        self.num_repeated, self.num_unnamed = 0, 0

    def read(self, done: set[str]) -> Iterator[Photo]:
        """
        Reads the images whose keys are not `done`.

        Raises:
            `ValueError`: if two different images have the same key.
        """
        seen = set()
        self.num_repeated, self.num_unnamed = 0, 0
        for number, row in enumerate(self.dataset):
            key, photo = find_key(row, self.source, self.key_column), None
            if key is None:
                photo = self.read_row(None, number, row)
                key = photo.key
            if not falls_to(self.state, key):
                continue
            self.num_unnamed += photo is not None and self.key_column not in (None, self.source.image_column)
            if key in seen:
                photo = photo or self.read_row(key, number, row)
                if photo.sha256 != self.digests.get(key):
                    raise ValueError(
                        f"Two different images have the key {key!r}, the second in row {number}: their captions could "
                        "not be told apart. Name a column of unique keys with `--key_column`, or the image column, "
                        f"`--key_column {self.source.image_column}`, for the SHA-256 of the file, and a new "
                        "`--output_dir`."
                    )
                self.num_repeated += 1
                continue
            seen.add(key)
            if key not in done:
                photo = photo or self.read_row(key, number, row)
                self.digests[key] = photo.sha256
                yield photo

    def read_row(self, key: str | None, number: int, row: dict) -> Photo:
        """The image of a row. Without key it is known by its hash; a row without an image then by its number."""
        content = error = None
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

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The images to caption: their keys, files and hashes, and each key once."""

import argparse
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from fsspec import open as open_file
from PIL import Image

from ..data.images import UnreadableImageError, read_image, undecoded
from ..data.loading import columns_of
from ..data.side_captions import key_of


# Where img2dataset and the large collections keep the address of an image.
URL_COLUMNS = ("url", "json.url", "URL", "image_url")


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
            # without the address of the buffer, so that equal causes are equal
            cause = re.sub(r" <_io\.BytesIO[^>]*>", "", str(error))
            raise UnreadableImageError(f"the image cannot be read: {cause}") from error


def read_file(file: dict | None) -> tuple[bytes | None, str | None]:
    """The bytes of an undecoded image, or what is wrong."""
    file = file or {}
    if file.get("bytes") is not None:
        return file["bytes"], None
    if file.get("path") is None:
        return None, "there is no image"
    try:
        with open_file(file["path"], "rb") as opened:
            return opened.read(), None
    except (OSError, ValueError) as error:
        return None, f"the file cannot be read: {error}"


def short_path(path: str, folder: str | None) -> str:
    """The path of an image as its key: inside the folder of the data relative to it, so that this may be moved."""
    bases = [] if folder is None else [os.path.abspath(folder), os.path.realpath(folder)]
    return next((os.path.relpath(path, base) for base in bases if path.startswith(base + os.sep)), path)


def name_of(row: dict, args: argparse.Namespace) -> str | None:
    """The key of an image without its file being read; None where the SHA-256 of the file is the key."""
    if args.key_column is not None:
        return None if args.key_column == args.image_column else key_of(row, args.key_column)
    if row.get("__key__") is not None:
        return row["__key__"]
    path = (row[args.image_column] or {}).get("path")
    return None if path is None else short_path(path, args.data_dir or args.dataset_name)


def check_key_column(dataset: Dataset | IterableDataset, column: str | None) -> None:
    """
    Raises:
        `ValueError`: if `--key_column` names no column.
    """
    columns = columns_of(dataset)
    if column is not None and column not in columns and column.split(".")[0] not in columns:
        raise ValueError(f"`--key_column {column}` is no column of the data set, which has {columns}: name one.")


def url_of(row: dict) -> str | None:
    """The address that an image comes from, where the data set knows it."""
    return next((url for url in (key_of(row, column) for column in URL_COLUMNS) if url is not None), None)


class Photos:
    """
    The images of a data set that fall to this process: those whose key it has by a hash, so that one key never falls
    to two processes, and the processes of the next run may be more or fewer.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set.
        args (`argparse.Namespace`):
            The data arguments, and `key_column`.
        state (`PartialState`):
            The processes.
        digests (`dict[str, str | None]`):
            The SHA-256 of images with a record, by key. Those that are read are added.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        args: argparse.Namespace,
        state: PartialState,
        digests: dict[str, str | None],
    ):
        self.dataset = undecoded(dataset, args.image_column)
        self.args = args
        self.state = state
        self.digests = digests
        self.num_repeated, self.num_unnamed = 0, 0

    def falls_here(self, key: str) -> bool:
        return zlib.crc32(key.encode()) % self.state.num_processes == self.state.process_index

    def read(self, done: set[str]) -> Iterator[Photo]:
        """
        Reads the images whose keys are not `done`.

        Raises:
            `ValueError`: if two different images have the same key.
        """
        seen = set()
        self.num_repeated, self.num_unnamed = 0, 0
        for number, row in enumerate(self.dataset):
            key, photo = name_of(row, self.args), None
            if key is None:
                photo = self.read_row(None, number, row)
                key = photo.key
            if not self.falls_here(key):
                continue
            self.num_unnamed += photo is not None and self.args.key_column not in (None, self.args.image_column)
            if key in seen:
                photo = photo or self.read_row(key, number, row)
                if photo.sha256 != self.digests.get(key):
                    raise ValueError(
                        f"Two different images have the key {key!r}, the second in row {number}: their captions could "
                        "not be told apart. Name a column of unique keys with `--key_column`, or the image column, "
                        f"`--key_column {self.args.image_column}`, for the SHA-256 of the file, and a new "
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
        content, error = read_file(row[self.args.image_column])
        sha256 = None if content is None else hashlib.sha256(content).hexdigest()
        return Photo(key or sha256 or f"row {number}", url_of(row), sha256, content, error)

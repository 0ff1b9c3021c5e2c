# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A hash of the rows that a table is made of."""

import hashlib
import os
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasets import Dataset

from ..data.folder import split_archive
from ..data.images import is_address, to_local_path, undecoded
from ..data.rows import find_column
from ..utils.terminal import progress_bar


NUM_HASHED_AT_ONCE = 1000


def hash_rows(dataset: Dataset, settings: dict[str, Any]) -> str:
    """
    Hashes the values of the columns that a table is made of, by whichever version of this package
    or of `datasets` they were read. Of images in the data their contents are hashed, of others
    their addresses, and in archives on this machine the checksums that these have; of image files,
    whose signatures the table keeps, that there is one.

    Args:
        dataset (`Dataset`):
            The rows.
        settings (`dict`):
            What [`reader_settings`] collects: `columns`, by what they hold, and `key_column`.

    Returns:
        `str`: the hash.
    """
    image_column = settings["columns"]["image"]
    names = set()
    for name in (settings["key_column"], *settings["columns"].values()):
        if name is not None:
            names.add(find_column(dataset.column_names, name))
    dataset = dataset.select_columns(sorted(names))
    if image_column is not None:
        dataset = undecoded(dataset, image_column)
    archives = ReadArchives()
    digest = hashlib.blake2b(digest_size=16)
    with progress_bar(desc="Comparing", total=len(dataset), unit=" rows", delay=1) as progress:
        for rows in dataset.with_format("arrow").iter(batch_size=NUM_HASHED_AT_ONCE):
            if image_column is not None:
                digest.update(repr(describe_images(rows[image_column], archives)).encode())
                rows = rows.drop_columns(image_column)
            # the values: the memory of equal ones may differ
            digest.update(repr(rows.to_pydict()).encode())
            progress.update(len(rows))
    return digest.hexdigest()


class ReadArchives:
    """
    The members of the zip archives on this machine that were asked for, by the paths of these. Each archive is read
    once, in whichever order the images of several come.
    """

    def __init__(self):
        self.members: dict[str, dict[str, tuple[int, int]]] = {}

    def find_checksum(self, address: str) -> tuple[int, int] | None:
        """Finds the CRC-32 and the size of an image by its address, `zip://NAME::ARCHIVE`; None if it has another."""
        path, name = split_archive(address)
        if not name or not os.path.isfile(path):
            return None
        if path not in self.members:
            with zipfile.ZipFile(path) as archive:
                self.members[path] = {member.filename: (member.CRC, member.file_size) for member in archive.infolist()}
        return self.members[path].get(name)


def describe_images(images: pa.ChunkedArray, archives: ReadArchives) -> list[tuple[str | None, str | None]]:
    """
    Describes images by what tells them from others: the hashes of contents in the data, the addresses of others.

    Args:
        images (`pa.ChunkedArray`): The undecoded images of some rows.
        archives ([`ReadArchives`]): Finds the checksums of images in archives.
    """
    described = []
    for chunk in images.chunks:
        contents = pc.struct_field(chunk, "bytes")
        paths = pc.struct_field(chunk, "path").to_pylist()
        for content, path in zip(contents, paths):
            content_hash = None
            address = None
            if content.is_valid:
                content_hash = xxhash.xxh3_128_hexdigest(content.as_buffer())
            elif not path:
                address = ""  # no image, which a file may become
            elif is_address(to_local_path(path)):
                address = describe_address(path, archives)
            described.append((content_hash, address))
    return described


def describe_address(address: str, archives: ReadArchives) -> str:
    """Describes an image by its address; in an archive on this machine, which may be moved, by name and checksum."""
    checksum = archives.find_checksum(address)
    if checksum is None:
        return address
    _, name = split_archive(address)
    return f"{name} {checksum}"

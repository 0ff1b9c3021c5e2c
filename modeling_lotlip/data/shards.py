# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images and their captions, those in caption files too, are written as webdataset shards."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, IterableDataset

from ..utils.output_folder import OutputFolder, atomic_write
from ..utils.terminal import progress_bar
from .arguments import SourceArguments
from .images import UnreadableImageError, open_image, read_file, read_image, undecoded
from .reader import RowCounts, RowReader
from .rows import batched, find_key, name_row, read_url


FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
SHARD_NAME = re.compile(r"\d{5,}\.tar")
QUALITY = 95  # of images that are written anew


class PackedRow(NamedTuple):
    """
    Holds what is written of a row.

    Attributes:
        members (`dict[str, bytes]`): The members of the sample, by their extensions.
        key (`str`): The key of the image.
        sha256 (`str`): Of the file of the image.
        is_converted (`bool`): Whether the image had to be converted.
    """

    members: dict[str, bytes]
    key: str
    sha256: str
    is_converted: bool


@dataclass
class PackCounts:
    """Counts what was packed."""

    rows: RowCounts = field(default_factory=RowCounts)  # that were written or left out
    num_converted: int = 0  # images
    # rows whose key is the SHA-256 of the file: without one in the column of keys, or whose path another image has
    num_without_key: int = 0
    num_of_known_path: int = 0


def list_packed_captions(row: dict, reader: RowReader) -> tuple[dict[str, list[str]], str | None]:
    """
    Lists the captions of a row by the column that they become, and its key if caption files have none for it. Where it
    has no such caption there is a blank one: `datasets` knows the type of a column by its first rows, and an empty
    list has none.
    """
    captions = {}
    unmatched_key = None
    if reader.short_column is not None:
        captions["caption"] = reader.short_captions(row) or [""]
    if reader.has_long_captions:
        long_captions, unmatched_key = reader.match_long_captions(row)
        captions["long_captions"] = long_captions or [""]
    return captions, unmatched_key


def pack_row(
    row: dict,
    image_column: str,
    captions: dict[str, list[str]],
    key: str | None,
    image_format: str,
) -> PackedRow:
    """
    Makes the members of a shard's sample. All samples have the same members, by which `datasets` knows their types.

    Args:
        row (`dict`):
            The row of a dataset, its image undecoded.
        image_column (`str`):
            The column of the image.
        captions (`dict[str, list[str]]`):
            Its captions, by the column that they become.
        key (`str`, *optional*):
            The key of the image. Default: the SHA-256 of its file.
        image_format (`str`):
            One of `FORMATS`.

    Returns:
        [`PackedRow`]: the members and what is known of the image.

    Raises:
        `UnreadableImageError`: without image.
    """
    content = read_file(row[image_column])
    image = read_image({"bytes": content, "path": None})
    sha256 = hashlib.sha256(content).hexdigest()
    is_converted = open_image(content).format != FORMATS[image_format]
    if is_converted:
        buffer = io.BytesIO()
        image.save(buffer, FORMATS[image_format], quality=QUALITY)
        content = buffer.getvalue()
    key = key or sha256
    metadata = {"key": key, "url": read_url(row) or "", "sha256": sha256, **captions}
    members = {image_format: content, "json": json.dumps(metadata).encode()}
    for name, texts in captions.items():
        members[f"{name}.json"] = json.dumps(texts).encode()
    return PackedRow(members, key, sha256, is_converted)


def write_tar(path: Path, samples: list[dict[str, bytes]], first_index: int) -> None:
    """Writes a shard; its samples are counted on from `first_index`, and no other shards have their keys."""
    with tarfile.open(path, "w") as tar:
        for index, members in enumerate(samples, start=first_index):
            digest = hashlib.sha256(b"".join(members.values())).hexdigest()
            key = f"{index:09d}-{digest[:8]}"  # a key of the data may have dots and slashes
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


class Packer:
    """
    Packs rows, and counts them in `counts`.

    Args:
        reader (`RowReader`):
            Reads their captions.
        source (`SourceArguments`):
            The arguments that name the dataset.
        key_column (`str`, *optional*):
            The column of keys.
        image_format (`str`, *optional*, defaults to `"jpg"`):
            One of `FORMATS`.
    """

    def __init__(
        self,
        reader: RowReader,
        source: SourceArguments,
        key_column: str | None = None,
        image_format: str = "jpg",
    ):
        self.reader = reader
        self.source = source
        self.key_column = key_column
        self.image_format = image_format
        self.counts = PackCounts()
        self.hashes = {}  # of image files, by their keys

    def pack(self, rows: Iterable[dict]) -> Iterator[dict[str, bytes]]:
        """
        Makes the members of each row's sample, by their extensions, but of rows that cannot be
        used. Raises a `ValueError` if two different images have the same key.
        """
        counts = self.counts
        for row_index, row in enumerate(rows):
            name = name_row(row, row_index)
            key = find_key(row, self.source, self.key_column)
            try:
                captions, unmatched_key = list_packed_captions(row, self.reader)
            except ValueError as error:
                counts.rows.count(name, str(error))
                continue
            if not any(any(texts) for texts in captions.values()):
                counts.rows.count(name, "it has no caption", unmatched_key)
                continue
            try:
                packed = pack_row(row, self.reader.image_column, captions, key, self.image_format)
            except UnreadableImageError as error:
                counts.rows.count(name, f"the image cannot be read: {error}", unmatched_key)
                continue
            has_known_key = self.hashes.setdefault(packed.key, packed.sha256) != packed.sha256
            if has_known_key and self.key_column is not None:
                raise ValueError(
                    f"Two different images have the key {packed.key!r}, the second in row "
                    f"{row_index}: it would not be known which caption is whose. Name a column of "
                    "unique keys with `--key_column`, or the image column, `--key_column "
                    f"{self.source.image_column}`, for the SHA-256 of the file."
                )
            if has_known_key:
                packed = pack_row(row, self.reader.image_column, captions, None, self.image_format)
                counts.num_of_known_path += 1
            counts.rows.count(name, unmatched=unmatched_key)
            if packed.is_converted:
                counts.num_converted += 1
            if key is None and self.key_column not in (None, self.source.image_column):
                counts.num_without_key += 1
            yield packed.members


def write_shards(
    dataset: Dataset | IterableDataset,
    reader: RowReader,
    source: SourceArguments,
    output_dir: Path,
    key_column: str | None = None,
    image_format: str = "jpg",
    shard_size: int = 1000,
) -> PackCounts:
    """
    Writes the images and captions of a dataset as shards, by the keys of [`find_key`].

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        reader (`RowReader`):
            Reads their captions.
        source (`SourceArguments`):
            The arguments that name the dataset.
        output_dir (`Path`):
            The folder of the shards.
        key_column (`str`, *optional*):
            The column of keys.
        image_format (`str`, *optional*, defaults to `"jpg"`):
            One of `FORMATS`. Files in it are kept byte by byte, others converted.
        shard_size (`int`, *optional*, defaults to 1000):
            The samples in a shard.

    Returns:
        [`PackCounts`]: what was packed.

    Raises:
        `ValueError`: if there are no captions, two different images have the same key, another run writes there, or
            the folder has shards.
    """
    packer = Packer(reader, source, key_column, image_format)
    with OutputFolder(output_dir, content="shards") as folder:
        earlier = list(output_dir.glob("*.tar"))
        if earlier and not folder.is_unfinished:
            raise ValueError(f"`--output_dir {output_dir}` holds shards: delete them, or name another folder.")
        others = sorted(shard.name for shard in earlier if not SHARD_NAME.fullmatch(shard.name))
        if others:
            raise ValueError(
                f"`--output_dir {output_dir}` holds {others[0]}, which is not of this command: move it "
                "away, or name another folder."
            )
        for shard in earlier:  # of a run that was killed: all are written anew
            shard.unlink()
        rows = progress_bar(undecoded(dataset, source.image_column), desc="Packing", unit=" images")
        for shard_index, samples in enumerate(batched(packer.pack(rows), shard_size)):
            with atomic_write(output_dir / f"{shard_index:05d}.tar") as partial:
                write_tar(partial, samples, shard_index * shard_size)
        counts = packer.counts
        if counts.rows.num_used == 0:
            raise ValueError(
                f"There is nothing to pack: {counts.rows} Name the right columns, keys and `--caption_files`."
            )
    # those in columns are packed where caption files have none
    reader.report_counts(counts.rows, dataset)
    return counts

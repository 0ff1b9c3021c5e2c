# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images and their captions, those in caption files too, are written as webdataset shards."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

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


def pack_row(
    row: dict,
    reader: RowReader,
    key: str | None,
    image_format: str,
) -> tuple[dict[str, bytes], bool]:
    """
    Makes the members of a shard's sample. All samples have the same members, by which `datasets` knows their types.

    Args:
        row (`dict`):
            The row of a dataset, its image undecoded.
        reader (`RowReader`):
            Reads its captions.
        key (`str`, *optional*):
            The key of the image. Default: the SHA-256 of its file.
        image_format (`str`):
            One of `FORMATS`.

    Returns:
        `tuple[dict[str, bytes], bool]`: the members by their extensions, and whether the image had to be converted.

    Raises:
        `UnreadableImageError`: without image.
        `ValueError`: without caption.
    """
    captions = {}
    if reader.short_column is not None:
        captions["caption"] = reader.short_captions(row) or [""]
    if reader.has_long_captions:
        captions["long_captions"] = reader.long_captions(row) or [""]
    if not any(any(texts) for texts in captions.values()):
        raise ValueError("it has no caption")
    content = read_file(row[reader.image_column])
    image = read_image({"bytes": content, "path": None})
    sha256 = hashlib.sha256(content).hexdigest()
    is_converted = open_image(content).format != FORMATS[image_format]
    if is_converted:
        buffer = io.BytesIO()
        image.save(buffer, FORMATS[image_format], quality=QUALITY)
        content = buffer.getvalue()
    metadata = {"key": key or sha256, "url": read_url(row) or "", "sha256": sha256, **captions}
    members = {image_format: content, "json": json.dumps(metadata).encode()}
    for name, texts in captions.items():
        members[f"{name}.json"] = json.dumps(texts).encode()
    return members, is_converted


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


def write_shards(
    dataset: Dataset | IterableDataset,
    reader: RowReader,
    source: SourceArguments,
    output_dir: Path,
    key_column: str | None = None,
    image_format: str = "jpg",
    shard_size: int = 1000,
) -> tuple[RowCounts, int]:
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
        `tuple[RowCounts, int]`: which rows were written, and how many images were converted.

    Raises:
        `ValueError`: if there are no captions, another run writes there, or the folder has shards.
    """
    counts = RowCounts()
    num_converted = 0

    def pack(rows: Iterable[dict]) -> Iterator[dict[str, bytes]]:
        nonlocal num_converted
        for row_index, row in enumerate(rows):
            try:
                key = find_key(row, source, key_column)
                members, is_converted = pack_row(row, reader, key, image_format)
            except UnreadableImageError as error:
                counts.count(name_row(row, row_index), f"the image cannot be read: {error}")
            except ValueError as error:
                counts.count(name_row(row, row_index), str(error))
            else:
                counts.count(name_row(row, row_index))
                if is_converted:
                    num_converted += 1
                yield members

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
        for shard_index, samples in enumerate(batched(pack(rows), shard_size)):
            with atomic_write(output_dir / f"{shard_index:05d}.tar") as partial:
                write_tar(partial, samples, shard_index * shard_size)
        if counts.num_used == 0:
            raise ValueError(f"There is nothing to pack: {counts} Name the right columns, keys and `--caption_files`.")
    return counts, num_converted

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images and their captions, those in caption files too, are written as webdataset shards."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import PIL.Image
from datasets import Dataset, IterableDataset

from ..output_folder import OutputFolder, read_stored
from ..terminal import progress_bar
from .arguments import SourceArguments
from .images import UnreadableImageError, read_file, read_image, undecoded
from .reader import RowReader
from .rows import batched, find_key, read_url


FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
QUALITY = 95  # of images that are written anew


def convert_image(content: bytes, image_format: str) -> tuple[bytes, bool]:
    """
    An image file in one of `FORMATS`, as it is where it has it, and whether it had to be written anew, upright in RGB.

    Raises:
        `UnreadableImageError`: if the file is no image.
    """
    image = read_image({"bytes": content, "path": None})
    if PIL.Image.open(io.BytesIO(content)).format == FORMATS[image_format]:
        return content, False
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[image_format], quality=QUALITY)
    return buffer.getvalue(), True


class SamplePacker:
    """
    Makes the members of a shard's sample of a row, and counts the rows by what became of them.

    Args:
        source (`SourceArguments`):
            The data arguments.
        reader (`RowReader`):
            Reads the captions of a row.
        key_column (`str`, *optional*):
            The column of the images' keys.
        image_format (`str`, *optional*, defaults to `"jpg"`):
            One of `FORMATS`. A column has one format: files in this one are kept byte by byte, others converted.
    """

    def __init__(
        self, source: SourceArguments, reader: RowReader, key_column: str | None = None, image_format: str = "jpg"
    ):
        self.source, self.reader, self.key_column, self.image_format = source, reader, key_column, image_format
        self.counts = Counter()

    def pack_row(self, row: dict) -> dict[str, bytes] | None:
        """
        The members of a sample by their extensions, None where there is no image or no caption. `datasets` takes the
        types of a shard from its first samples: all have the same members, and blank text, which training skips, for
        what is not there.
        """
        short, long = self.reader.short_captions(row), self.reader.long_captions(row)
        if not short and not long:
            self.counts["without a caption were left out"] += 1
            return None
        try:
            content = read_file(row[self.source.image_column])
            image, is_new = convert_image(content, self.image_format)
        except UnreadableImageError:
            self.counts["with an image that cannot be read were left out"] += 1
            return None
        self.counts[f"were not in the format {self.image_format} and converted"] += is_new
        self.counts["packed"] += 1
        sha256 = hashlib.sha256(content).hexdigest()
        key = find_key(row, self.source, self.key_column) or sha256
        captions = {}
        if self.reader.short_column is not None:
            captions["caption"] = short or [""]
        if self.reader.has_long_captions:
            captions["long_captions"] = long or [""]
        members = {"json": {"key": key, "url": read_url(row) or "", "sha256": sha256, **captions}}
        members |= {f"{name}.json": texts for name, texts in captions.items()}
        return {self.image_format: image} | {name: json.dumps(value).encode() for name, value in members.items()}

    def pack_rows(self, rows: Iterable[dict]) -> Iterator[dict[str, bytes]]:
        """The members of the samples of all rows that have an image and a caption."""
        return (members for members in map(self.pack_row, rows) if members is not None)


def write_tar(path: Path, samples: list[dict[str, bytes]], first_number: int) -> None:
    """Writes a shard; its samples are numbered on from `first_number`."""
    with tarfile.open(path, "w") as tar:
        for number, members in enumerate(samples, start=first_number):
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{number:09d}.{extension}")  # a key of the data may have dots and slashes
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def refuse_shards(output_dir: Path, is_unfinished: bool) -> None:
    """Raises a `ValueError` if there are shards in a folder, but for those of a run that was killed."""
    if any(output_dir.glob("*.tar")) and not is_unfinished:
        raise ValueError(f"`--output_dir {output_dir}` holds shards: delete them, or name another folder.")


def write_shards(
    dataset: Dataset | IterableDataset, packer: SamplePacker, output_dir: Path, shard_size: int = 1000
) -> Counter:
    """
    Writes the images and captions of a data set as shards.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set.
        packer (`SamplePacker`):
            Makes the samples.
        output_dir (`Path`):
            The folder of the shards.
        shard_size (`int`, *optional*, defaults to 1000):
            Samples in a shard.

    Returns:
        `Counter`: the number of rows by what became of them; `"packed"` are in the shards.

    Raises:
        `ValueError`: if there is no caption, another run writes to the folder, or it holds shards.
    """
    refuse_shards(output_dir, bool((read_stored(output_dir) or {}).get("run")))
    with OutputFolder(output_dir, content="shards") as folder:
        refuse_shards(output_dir, folder.is_unfinished)
        for shard in output_dir.glob("*.tar"):  # of a run that was killed: all are written anew
            shard.unlink()
        rows = progress_bar(undecoded(dataset, packer.source.image_column), desc="Packing", unit=" images")
        for number, samples in enumerate(batched(packer.pack_rows(rows), shard_size)):
            with folder.write(f"{number:05d}.tar") as partial:
                write_tar(partial, samples, number * shard_size)
        if not packer.counts["packed"]:
            reasons = {reason: number for reason, number in packer.counts.items() if number}
            raise ValueError(
                f"There is nothing to pack: {reasons}. Name the right columns, keys and `--caption_files`."
            )
    return packer.counts

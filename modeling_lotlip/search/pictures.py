# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a collection: those of a folder, or of the rows of a data set."""

import base64
import hashlib
import io
import os
import stat
from collections import Counter
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path, PurePath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute
from datasets import Dataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.images import (
    IMAGE_ERRORS,
    IMAGE_EXTENSIONS,
    Resizing,
    open_image,
    read_date,
    read_file,
    read_image,
    undecoded,
)
from ..data.loading import compute_fingerprint, find_file_names, load_split
from ..embedding.rows import Item
from ..embedding.store import read_settings
from .arguments import PageArguments


ORIENTATION = 0x0112  # the tag of EXIF that says how a picture is turned


class Stamp(NamedTuple):
    """
    What changes when a picture does: size and time of its file, or what says so of the row of a data set.

    Args:
        size (`int`, *optional*):
            Of the file, in bytes.
        modified (`int`, *optional*):
            When it was written, in nanoseconds since 1970.
        row (`str`, *optional*):
            The fingerprint of the data set and the number of the row, if the picture has no file of its own.
    """

    size: int | None = None
    modified: int | None = None
    row: str | None = None


def make_stamp(status: os.stat_result) -> Stamp:
    """That of a file."""
    return Stamp(status.st_size, status.st_mtime_ns)


def describe_file(content: bytes) -> dict[str, str | int | datetime | None]:
    """
    What the index notes of a picture's file: its `hash`, and `width`, `height` and when it was `taken` as far as it
    says.
    """
    facts = {"hash": hashlib.blake2b(content, digest_size=16).hexdigest()}
    try:
        image = open_image(content)
        exif = image.getexif()
        is_turned = exif.get(ORIENTATION) in (5, 6, 7, 8)
        facts["width"], facts["height"] = image.size[::-1] if is_turned else image.size
        facts["taken"] = read_date(exif)
    except IMAGE_ERRORS:
        pass
    return facts


class PictureFolder:
    """
    The pictures in a folder and all folders in it, named by their paths from there. Hidden files are left out, and
    links to folders are not followed.

    Args:
        folder (`Path`):
            The folder.
        exact_decoding (`bool`, *optional*, defaults to `False`):
            Decode JPEGs at their full size for the model, large ones too.

    Attributes:
        place (`str`):
            Where the pictures are, in words for whoever searches.

    Raises:
        `ValueError`: if there is no such folder.
    """

    def __init__(self, folder: Path, exact_decoding: bool = False):
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: name the folder of your pictures.")
        self.folder, self.exact_decoding = folder, exact_decoding
        self.place = str(folder)
        self.others, self.closed_folders = Counter(), set()

    @property
    def source(self) -> str:
        """By which the index of the folder is found again."""
        return str(self.folder.resolve())

    def scan(self) -> dict[str, Stamp]:
        """
        By name a stamp that changes when the file does. `others` then counts by their kind what is left out, and
        `closed_folders` has the folders that may not be read.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"The folder {self.folder} is not there any more. What was indexed is kept.")
        stamps, self.others, self.closed_folders = {}, Counter(), set()

        def note_closed(error: OSError) -> None:
            self.closed_folders.add(os.path.relpath(error.filename, self.folder))

        for parent, folders, files in os.walk(self.folder, onerror=note_closed):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            self.others["linked folder"] += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
            for file in sorted(file for file in files if not file.startswith(".")):
                path = os.path.join(parent, file)
                ending = os.path.splitext(file)[1].lower()
                if ending not in IMAGE_EXTENSIONS:
                    self.others[os.fsencode(ending).decode(errors="replace") or "without an ending"] += 1
                    continue
                try:
                    os.path.relpath(path, self.folder).encode()
                    status = os.stat(path)
                except UnicodeEncodeError:
                    self.others["with a name that is not UTF-8"] += 1
                    continue
                except PermissionError:  # its folder may be listed, and no more
                    self.closed_folders.add(os.path.relpath(parent, self.folder))
                    continue
                except OSError:  # a link to nowhere, or just deleted
                    self.others["without a file behind it"] += 1
                    continue
                if not stat.S_ISREG(status.st_mode):  # reading from a pipe may never end
                    self.others["that is a pipe or device"] += 1
                    continue
                stamps[os.path.relpath(path, self.folder)] = make_stamp(status)
        self.others = +self.others  # without those of which there is none
        return stamps

    def is_out_of_reach(self, name: str) -> bool:
        """Whether a picture is in a folder that could not be read, so that nobody knows whether it is still there."""
        return any(str(folder) in self.closed_folders for folder in PurePath(name).parents)

    def stamp(self, name: str) -> Stamp:
        """That of one file. Raises an `OSError` if it is gone."""
        return make_stamp(os.stat(self.folder / name))

    def read_file(self, name: str) -> bytes:
        """The file of a picture. Raises an `UnreadableImageError` if it cannot be read."""
        return read_file({"path": str(self.folder / name), "bytes": None})

    def read(self, name: str, max_side: int | None = None, resizing: Resizing | None = None) -> Image.Image:
        """The picture of a name, made smaller or read as a model needs it: see `read_image`."""
        return read_image({"bytes": self.read_file(name)}, max_side, None if self.exact_decoding else resizing)


class PictureRows:
    """
    The pictures of a data set, named by the numbers of their rows or by a column.

    Args:
        dataset (`Dataset`):
            The data set.
        image_column (`str`):
            The column of the pictures.
        id_column (`str`, *optional*):
            The column of their names.
        place (`str`, *optional*, defaults to `"the data set"`):
            Where the pictures are, in words for whoever searches.
        source (`dict`, *optional*):
            The arguments that name the data set, by which its index is found again.
        exact_decoding (`bool`, *optional*, defaults to `False`):
            Decode JPEGs at their full size for the model, large ones too.

    Raises:
        `ValueError`: if the data set is streamed, so that no row can be shown.
    """

    others, closed_folders = Counter(), frozenset()

    def __init__(
        self,
        dataset: Dataset,
        image_column: str,
        id_column: str | None = None,
        place: str = "the data set",
        source: dict | None = None,
        exact_decoding: bool = False,
    ):
        if not isinstance(dataset, Dataset):
            raise ValueError("Rows of streamed data cannot be shown: load the data set without streaming.")
        self.place, self.source, self.exact_decoding = place, source or {}, exact_decoding
        self.fingerprint = compute_fingerprint(dataset)
        names = range(len(dataset)) if id_column is None else dataset[id_column]
        self.rows = {str(name): row for row, name in enumerate(names)}
        self.dataset = undecoded(dataset.select_columns(image_column), image_column)
        self.image_column = image_column

    def scan(self) -> dict[str, Stamp]:
        """By name a stamp: that of the file, or of the whole data set if that holds the pictures itself."""
        paths = []
        for table in self.dataset.with_format("arrow").iter(batch_size=1000):
            column = table[self.image_column].combine_chunks()
            paths += pa.compute.if_else(column.field("bytes").is_null(), column.field("path"), None).to_pylist()
        return {name: self.stamp_of_row(row, paths[row]) for name, row in self.rows.items()}

    def stamp_of_row(self, row: int, path: str | None) -> Stamp:
        """That of a file of its own, or of the row as it is in the data set."""
        return make_stamp(os.stat(path)) if path and os.path.exists(path) else Stamp(row=f"{self.fingerprint} {row}")

    def is_out_of_reach(self, name: str) -> bool:
        """No row is."""
        return False

    def stamp(self, name: str) -> Stamp:
        """That of one row."""
        row = self.rows[name]
        file = self.dataset[row][self.image_column] or {"bytes": None, "path": None}
        return self.stamp_of_row(row, file["path"] if file["bytes"] is None else None)

    def read_file(self, name: str) -> bytes:
        """The file of a picture. Raises an `UnreadableImageError` if it cannot be read."""
        return read_file(self.dataset[self.rows[name]][self.image_column])

    def read(self, name: str, max_side: int | None = None, resizing: Resizing | None = None) -> Image.Image:
        """The picture of a name, made smaller or read as a model needs it: see `read_image`."""
        return read_image({"bytes": self.read_file(name)}, max_side, None if self.exact_decoding else resizing)


@dataclass
class PictureReader:
    """
    What is in a row of [`RowCollator`]: the picture of a name, known by that and what [`describe_file`] says.

    Args:
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        resizing ([`Resizing`], *optional*):
            By which large JPEGs are decoded at a fraction of their size, unless the collection is decoded exactly.
    """

    pictures: PictureFolder | PictureRows
    resizing: Resizing | None = None

    def __call__(self, name: str, _: None) -> list[Item]:
        content = self.pictures.read_file(name)
        image = read_image({"bytes": content}, resizing=None if self.pictures.exact_decoding else self.resizing)
        return [Item((name, describe_file(content)), "image", image)]


def open_pictures(collection: PageArguments) -> PictureFolder | PictureRows:
    """
    The pictures of a folder, of a folder of `lotlip embed`, of a data set, or else the drawn scenes.

    Raises:
        `ValueError`: if they are not there.
    """
    if collection.photos is not None:
        return PictureFolder(Path(collection.photos), collection.exact_decoding)
    if collection.embeddings_dir is not None:
        return open_embedded_pictures(collection.embeddings_dir)
    dataset = SourceArguments(
        dataset_name=collection.dataset_name,
        dataset_config_name=collection.dataset_config_name,
        data_dir=collection.data_dir,
        data_files=collection.data_files,
        image_column=collection.image_column or "image",
    )
    # a folder of one's own has no other split; the drawn scenes have a small one
    split = collection.eval_split or ("test" if collection.dataset_name is None else "train")
    rows = load_split(dataset, split, collection.max_eval_samples)
    source = asdict(dataset) | {"eval_split": split, "max_eval_samples": collection.max_eval_samples}
    names, place = find_file_names(rows), collection.dataset_name or "the drawn scenes"
    return PictureRows(rows, dataset.image_column, names, place, source, collection.exact_decoding)


def open_embedded_pictures(embeddings_dir: Path) -> PictureFolder | PictureRows:
    """
    The pictures whose embeddings are in a folder of `lotlip embed`, or in that of an index; either notes where they
    come from.

    Raises:
        `ValueError`: if it is no such folder.
    """
    settings = read_settings(embeddings_dir)
    source = settings.get("source", settings)  # an index keeps it apart
    if isinstance(source, str):
        if "://" in source:
            raise ValueError(
                f"{embeddings_dir} is of pictures in {source}, which the page cannot show: use `lotlip search`."
            )
        return PictureFolder(Path(source))
    names = {field.name for field in fields(SourceArguments)}
    dataset = SourceArguments(**{name: value for name, value in source.items() if name in names})
    rows = load_split(dataset, source["eval_split"], source["max_eval_samples"])
    ids = find_file_names(rows) if "source" in settings else settings["id_column"]
    return PictureRows(rows, dataset.image_column, ids, str(embeddings_dir))


def describe_others(pictures: PictureFolder | PictureRows) -> list[str]:
    """Sentences on what else is in a folder, as of the last scan."""
    lines = []
    if pictures.others:
        others = ", ".join(f"{number:,} {ending}" for ending, number in pictures.others.most_common())
        lines.append(f"Other files, left out: {others}.")
    if pictures.closed_folders:
        lines.append(f"Folders that may not be read: {', '.join(sorted(pictures.closed_folders))}.")
    return lines


def encode_picture(image: Image.Image) -> str:
    """A picture as the address of itself: a small one as PNG, which the page shows with its pixels as squares."""
    buffer = io.BytesIO()
    kind = "png" if max(image.size) < 128 else "jpeg"
    image.save(buffer, format=kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

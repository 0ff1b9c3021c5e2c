# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a collection: those of a folder, or of the rows of a data set."""

import base64
import io
import os
from collections import Counter
from pathlib import Path, PurePath

from datasets import Dataset
from PIL import Image

from ..data.arguments import SourceArguments
from ..data.folder import is_image_file, scan_folder
from ..data.images import Resizing, read_image, undecoded
from ..data.loading import compute_fingerprint, find_file_names
from ..data.reader import RowInfo
from ..embedding.store import load_named_data, name_data
from ..embedding.table import EmbeddingTable
from .arguments import PageArguments


def sign(status: os.stat_result) -> dict[str, int]:
    """The signature of a file, which changes when the file does."""
    return {"size": status.st_size, "modified": status.st_mtime_ns}


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
        self.others, self.closed_folders, self.empty_folders = Counter(), set(), set()

    @property
    def settings(self) -> dict[str, str | bool]:
        """What its embeddings depend on, beside the model."""
        return {"source": str(self.folder.resolve()), "exact_decoding": self.exact_decoding}

    def scan(self) -> dict[str, dict[str, int]]:
        """
        By name the signature of the file. `others` then counts by their kind what is left out, `closed_folders` has
        the folders that may not be read, and `empty_folders` those with nothing in them.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"The folder {self.folder} is not there any more. What was indexed is kept.")
        found, signatures = scan_folder(self.folder), {}
        self.others, self.closed_folders, self.empty_folders = found[1:]
        for name, status in found.files.items():
            if is_image_file(name):
                signatures[name] = sign(status)
            else:
                self.others[os.path.splitext(name)[1].lower() or "without an ending"] += 1
        return signatures

    def is_out_of_reach(self, name: str) -> bool:
        """
        Whether an image is in a folder that could not be read, or has become empty as that of a disk that is not
        mounted: nobody knows whether the image is still there.
        """
        folders = self.closed_folders | self.empty_folders
        return any(str(folder) in folders for folder in PurePath(name).parents)

    def signature(self, name: str) -> dict[str, int]:
        """That of one file. Raises an `OSError` if it is gone."""
        return sign(os.stat(self.folder / name))

    def row(self, name: str) -> tuple[RowInfo, dict]:
        """An image as a row of a data set."""
        return RowInfo(None, name), {"image": {"path": str(self.folder / name), "bytes": None}}

    def read(self, name: str, max_side: int | None = None, resizing: Resizing | None = None) -> Image.Image:
        """The image of a name, made smaller or read as a model needs it: see `read_image`."""
        return read_image(self.row(name)[1]["image"], max_side, None if self.exact_decoding else resizing)


class PictureRows:
    """
    The images of a data set.

    Args:
        dataset (`Dataset`):
            The data set.
        image_column (`str`):
            The column of the images.
        rows (`dict[str, int]`):
            The rows of the images by their names.
        place (`str`, *optional*, defaults to `"the data set"`):
            Where the images are, in words for whoever searches.
        settings (`dict`, *optional*):
            What its embeddings depend on, beside the model.
        exact_decoding (`bool`, *optional*, defaults to `False`):
            Decode JPEGs at their full size for the model, large ones too.
    """

    others, closed_folders, empty_folders = Counter(), frozenset(), frozenset()

    def __init__(
        self,
        dataset: Dataset,
        image_column: str,
        rows: dict[str, int],
        place: str = "the data set",
        settings: dict | None = None,
        exact_decoding: bool = False,
    ):
        self.place, self.settings, self.exact_decoding, self.rows = place, settings or {}, exact_decoding, rows
        self.dataset = undecoded(dataset.select_columns(image_column), image_column)
        self.image_column = image_column

    def scan(self) -> dict[str, dict]:
        """All names. The rows have no signatures: changed data has another table."""
        return {name: {} for name in self.rows}

    def is_out_of_reach(self, name: str) -> bool:
        """No row is."""
        return False

    def signature(self, name: str) -> dict:
        """None of a row."""
        return {}

    def row(self, name: str) -> tuple[RowInfo, dict]:
        """The row of an image."""
        number = self.rows[name]
        return RowInfo(number, name), {"image": self.dataset[number][self.image_column]}

    def read(self, name: str, max_side: int | None = None, resizing: Resizing | None = None) -> Image.Image:
        """The image of a name, made smaller or read as a model needs it: see `read_image`."""
        return read_image(self.row(name)[1]["image"], max_side, None if self.exact_decoding else resizing)


def open_pictures(collection: PageArguments) -> PictureFolder | PictureRows:
    """
    The images of a folder, of a table, of a data set, or else the drawn scenes.

    Raises:
        `ValueError`: if they are not there.
    """
    if collection.photos is not None:
        return PictureFolder(Path(collection.photos), collection.exact_decoding)
    if collection.embeddings_dir is not None:
        return open_embedded_pictures(EmbeddingTable(collection.embeddings_dir))
    dataset = SourceArguments(
        dataset_name=collection.dataset_name,
        dataset_config_name=collection.dataset_config_name,
        data_dir=collection.data_dir,
        data_files=collection.data_files,
        image_column=collection.image_column or "image",
    )
    # a folder of one's own has no other split; the drawn scenes have a small one
    split = collection.eval_split or ("test" if collection.dataset_name is None else "train")
    source = name_data(dataset, split, collection.max_eval_samples)
    rows = load_named_data(source)
    column = find_file_names(rows)
    names = [str(name) for name in (range(len(rows)) if column is None else rows[column])]
    settings = {"source": source, "data": compute_fingerprint(rows, dataset.image_column)}
    settings |= {"exact_decoding": collection.exact_decoding}
    place = collection.dataset_name or "the drawn scenes"
    options = (place, settings, collection.exact_decoding)
    return PictureRows(rows, dataset.image_column, {name: row for row, name in enumerate(names)}, *options)


def open_embedded_pictures(table: EmbeddingTable) -> PictureFolder | PictureRows:
    """
    The images whose embeddings are in a table.

    Raises:
        `ValueError`: if it has none, or they are not there or have changed.
    """
    source, folder = table.settings.get("source"), table.folder
    if isinstance(source, str):
        if "://" in source:
            raise ValueError(f"{folder} is of images in {source}, which the page cannot show: use `lotlip search`.")
        return PictureFolder(Path(source), table.settings["exact_decoding"])
    if "image" not in table.settings["kinds"] or source["streaming"]:
        why = "embeddings of streamed data" if source["streaming"] else "no embeddings of images"
        raise ValueError(f"{folder} holds {why}: the page has no images to show.")
    rows = load_named_data(source)
    fingerprint = compute_fingerprint(rows, source["image_column"])
    table.check_settings({"data": fingerprint}, "the data has changed, so embed it again to another folder")
    keys = {}
    for batch in table.read(["key", "row"], table.condition()):
        keys |= zip(batch["key"].to_pylist(), batch["row"].to_pylist())
    return PictureRows(rows, source["image_column"], keys, str(folder))


def describe_others(pictures: PictureFolder | PictureRows) -> list[str]:
    """Sentences on what else is in a folder, as of the last scan."""
    lines = []
    if pictures.others:
        others = ", ".join(f"{number:,} {ending}" for ending, number in pictures.others.most_common())
        lines.append(f"Other files, left out: {others}.")
    if pictures.closed_folders:
        lines.append(f"Folders that may not be read: {', '.join(sorted(pictures.closed_folders))}.")
    if pictures.empty_folders:
        named = ", ".join(sorted(pictures.empty_folders))
        lines.append(f"Empty folders, of which images of before are kept: {named}.")
    return lines


def encode_picture(image: Image.Image) -> str:
    """A picture as the address of itself: a small one as PNG, which the page shows with its pixels as squares."""
    buffer = io.BytesIO()
    kind = "png" if max(image.size) < 128 else "jpeg"
    image.save(buffer, format=kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

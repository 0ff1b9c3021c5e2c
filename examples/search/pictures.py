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
"""The pictures of a collection: those of a folder, or of the rows of a data set."""

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
from data.loading import UnreadableImageError, fingerprint_of, load_split, read_image, undecoded
from datasets import Dataset
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from PIL import Image


def stamp_of(path: str) -> str:
    """What changes when a file does."""
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


class PictureFolder:
    """
    The pictures in a folder and all folders in it, named by their paths from there. Hidden files are left out.

    Args:
        folder (`Path`):
            The folder.

    Raises:
        `ValueError`: if there is no such folder.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise ValueError(f"`--images {folder}` is no folder: name the folder of your pictures.")
        self.folder = folder
        self.others = Counter()

    def scan(self) -> dict[str, str]:
        """By name a stamp that changes when the file does. `others` then counts the other files by their endings."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"The folder {self.folder} is not there any more. What was indexed is kept.")
        stamps, self.others = {}, Counter()
        for parent, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(file for file in files if not file.startswith(".")):
                path = os.path.join(parent, file)
                ending = os.path.splitext(file)[1].lower()
                if ending not in ImageFolder.EXTENSIONS:
                    self.others[ending or "without an ending"] += 1
                    continue
                try:
                    stamps[os.path.relpath(path, self.folder)] = stamp_of(path)
                except FileNotFoundError:  # a link to nowhere, or just deleted
                    self.others["without a file behind it"] += 1
        return stamps

    def read(self, name: str) -> Image.Image:
        """The picture of a name. Raises an `UnreadableImageError` if it cannot be read."""
        return read_image({"path": str(self.folder / name), "bytes": None})


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

    Raises:
        `ValueError`: if the data set is streamed, so that no row can be shown.
    """

    others = Counter()

    def __init__(self, dataset: Dataset, image_column: str, id_column: str | None = None):
        if not isinstance(dataset, Dataset):
            raise ValueError("Rows of streamed data cannot be shown: leave out `--streaming`.")
        self.fingerprint = fingerprint_of(dataset)
        names = range(len(dataset)) if id_column is None else dataset[id_column]
        self.rows = {str(name): row for row, name in enumerate(names)}
        self.dataset = undecoded(dataset.select_columns(image_column), image_column)
        self.image_column = image_column

    def scan(self) -> dict[str, str]:
        """By name a stamp: that of the file, or of the whole data set if that holds the pictures itself."""
        paths = []
        for table in self.dataset.with_format("arrow").iter(batch_size=1000):
            column = table[self.image_column].combine_chunks()
            paths += pa.compute.if_else(column.field("bytes").is_null(), column.field("path"), None).to_pylist()
        return {
            name: stamp_of(paths[row]) if paths[row] and os.path.exists(paths[row]) else f"{self.fingerprint} {row}"
            for name, row in self.rows.items()
        }

    def read(self, name: str) -> Image.Image:
        """The picture of a name. Raises an `UnreadableImageError` if it cannot be read."""
        file = self.dataset[self.rows[name]][self.image_column]
        if file is None:
            raise UnreadableImageError("there is none")
        return read_image(file)


def pictures_of(args: argparse.Namespace) -> PictureFolder | PictureRows:
    """The pictures that the arguments name."""
    if args.images is not None:
        return PictureFolder(args.images)
    id_column = None
    if args.embeddings_dir is not None:
        settings = json.loads((args.embeddings_dir / "settings.json").read_text(encoding="utf-8"))
        args = argparse.Namespace(**(vars(args) | settings))
        id_column = args.id_column
    return PictureRows(load_split(args, args.eval_split, args.max_eval_samples), args.image_column, id_column)

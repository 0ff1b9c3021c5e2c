# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The files of a local folder of images, and which split each belongs to."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

from .images import IMAGE_EXTENSIONS


logger = logging.get_logger(__name__)

TABLE_ENDINGS = (".parquet", ".arrow", ".csv", ".jsonl", ".json", ".tar")
# Top-level folders of these names are splits if every image is in one of them
SPLIT_FOLDERS = ("train", "validation", "val", "test")


class FolderScan(NamedTuple):
    """
    What is in a folder and the folders in it: the files by their paths relative to it, in the order of their names;
    how many could not be used, by the reason; and the folders that may not be read, and those with nothing in them.
    Hidden files are passed over, and links to folders are not followed.
    """

    files: dict[str, os.stat_result]
    left_out: Counter
    closed_folders: set[str]
    empty_folders: set[str]


def scan_folder(folder: str | Path) -> FolderScan:
    """Lists a folder."""
    scan = FolderScan({}, Counter(), set(), set())
    for parent, folders, names in os.walk(
        folder, onerror=lambda error: scan.closed_folders.add(os.path.relpath(error.filename, folder))
    ):
        if not folders and not names and parent != str(folder):
            scan.empty_folders.add(os.path.relpath(parent, folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        if linked:
            scan.left_out["in a linked folder"] += linked
        for file in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, file)
            name = os.path.relpath(path, folder)
            try:
                name.encode()
                status = os.stat(path)
            except UnicodeEncodeError:
                scan.left_out["with a name that is not UTF-8"] += 1
            except PermissionError:  # its folder may be listed, and no more
                scan.closed_folders.add(os.path.relpath(parent, folder))
            except OSError:  # a link to nowhere, or just deleted
                scan.left_out["without a file behind it"] += 1
            else:
                if stat.S_ISREG(status.st_mode):  # reading from a pipe may never end
                    scan.files[name] = status
                else:
                    scan.left_out["that is a pipe or device"] += 1
    return scan


def is_image_file(name: str) -> bool:
    """Whether a file is an image by its ending."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def find_image_files(folder: str | Path) -> DataFilesDict:
    """
    The files of a folder that `datasets` reads as images, by split: images, metadata and zip archives. By itself it
    takes words in names, such as those of `train_station.png` and `beach_test.png`, for splits, and leaves out all
    other files. Here top-level folders `train`, `validation`, `val` and `test` are splits if everything is in them;
    else all files are one split. What is left out, or is no split but looks like one, is said in a warning.

    Returns:
        `DataFilesDict`: absolute paths by split; empty if the folder is none of images, because there are none, its
            card says which file is in which split, or there are more tables and shards than images.
    """
    cards = [Path(folder, name) for name in ("README.md", ".huggingface.yaml")]
    if any(re.search(r"(?m)^configs:", card.read_text("utf-8", "replace")) for card in cards if card.is_file()):
        return DataFilesDict()
    scan = scan_folder(folder)
    names = [
        name for name in scan.files if is_image_file(name) or name.lower().endswith(".zip") or is_metadata_file(name)
    ]
    num_images = sum(not is_metadata_file(name) for name in names)
    num_tables = sum(
        name.lower().endswith(TABLE_ENDINGS) and not is_metadata_file(name) and not is_image_file(Path(name).stem)
        for name in scan.files
    )
    if num_images <= num_tables:
        return DataFilesDict()
    left_out = [f"{count} {reason}" for reason, count in scan.left_out.items()]
    left_out += [f"the folder {name!r}, which may not be read" for name in sorted(scan.closed_folders)]
    if left_out:
        logger.warning_once(f"Of {folder} files are left out: {', '.join(left_out)}.")
    parts = {name: Path(name).parts[0] if os.sep in name else None for name in names}
    splits = [split for split in SPLIT_FOLDERS if split in parts.values()]
    outside = [name for name in names if parts[name] not in splits]
    if splits and outside:
        logger.warning_once(
            f"All images of {folder} are one split, since {outside[0]!r} is outside of {' and '.join(splits)}. Move "
            f"all into folders called {', '.join(SPLIT_FOLDERS)}, or name files with `--data_files`."
        )
    files = {split: [name for name in names if parts[name] == split] for split in splits}
    if outside:
        files = {"train": names}
    root = os.path.abspath(folder)
    return DataFilesDict(
        {
            split: DataFilesList(
                [os.path.join(root, name) for name in chosen],
                [(str(scan.files[name].st_mtime_ns),) for name in chosen],
            )
            for split, chosen in files.items()
        }
    )


def describe_failure(error: Exception, files: Iterable[str]) -> str:
    """Why `datasets` could not read some files; of text that is not UTF-8 which file it is."""
    cause = error.__cause__ or error
    if isinstance(cause, UnicodeDecodeError):
        for file in files:
            if file.lower().endswith((".csv", ".json", ".jsonl", ".txt")) and os.path.isfile(file):
                try:
                    with open(file, encoding="utf-8") as opened:
                        while opened.read(2**20):
                            pass
                except UnicodeDecodeError:
                    return f"{file} is not UTF-8: save it as UTF-8."
    return str(cause) or "there are no rows."


def is_metadata_file(name: str) -> bool:
    """Whether a file says what the images of a folder are called, and more about them."""
    return os.path.basename(name) in ImageFolder.METADATA_FILENAMES

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
from pandas.errors import ParserError
from transformers.utils import logging

from .images import IMAGE_EXTENSIONS, SAFE_EXTENSIONS


logger = logging.get_logger(__name__)

TABLE_ENDINGS = (".parquet", ".arrow", ".csv", ".jsonl", ".json", ".tar")
SPLIT_FOLDERS = ("train", "validation", "val", "test")  # which are splits if every image is in one of them


class FolderScan(NamedTuple):
    """What is in a folder and its subfolders, by relative paths. What is hidden and linked folders are passed over."""

    files: dict[str, os.stat_result]  # in the order of their names
    left_out: Counter  # how many could not be used, by the reason
    closed_folders: set[str]  # that may not be read
    empty_folders: set[str]


def scan_folder(folder: str | Path) -> FolderScan:
    """Lists a folder."""
    scan = FolderScan({}, Counter(), set(), set())
    for parent, folders, names in os.walk(
        folder, onerror=lambda error: scan.closed_folders.add(os.path.relpath(error.filename, folder))
    ):
        if not folders and not names and parent != str(folder):
            scan.empty_folders.add(os.path.relpath(parent, folder))
        hidden = [name for name in folders + names if name.startswith(".")]
        scan.left_out.update("hidden" for name in hidden if name in folders or is_image_file(name))
        folders[:] = sorted(set(folders) - set(hidden))
        scan.left_out.update("in a linked folder" for name in folders if os.path.islink(os.path.join(parent, name)))
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


def is_indexed_file(name: str) -> bool:
    """Whether a file is an image that an index has, by its ending: one in a format that is safe to read."""
    return os.path.splitext(name)[1].lower() in SAFE_EXTENSIONS


def find_image_files(folder: str | Path) -> DataFilesDict:
    """
    The absolute paths of images, metadata and zip archives in a folder, by split: `SPLIT_FOLDERS` if everything is in
    them, else one, whatever words are in names; a warning says what is left out. There are none where the card says
    which file is in which split, or there are not more images than tables.
    """
    cards = [Path(folder, name) for name in ("README.md", ".huggingface.yaml")]
    if any(re.search(r"(?m)^configs:", card.read_text("utf-8", "replace")) for card in cards if card.is_file()):
        return DataFilesDict()
    scan = scan_folder(folder)
    metadata = [name for name in scan.files if os.path.basename(name) in ImageFolder.METADATA_FILENAMES]
    images = [name for name in scan.files if is_image_file(name) or name.lower().endswith(".zip")]
    tables = [name for name in scan.files if name.lower().endswith(TABLE_ENDINGS) and name not in metadata]
    if len(images) <= sum(not is_image_file(Path(name).stem) for name in tables):  # a.jpg.json is about an image
        return DataFilesDict()
    left_out = [f"{count} {reason}" for reason, count in scan.left_out.items() if reason != "hidden"]
    left_out += [f"the folder {name!r}, which may not be read" for name in sorted(scan.closed_folders)]
    if left_out:
        logger.warning_once(f"Of {folder} files are left out: {', '.join(left_out)}.")
    chosen = {*images, *metadata}
    names = [name for name in scan.files if name in chosen]
    tops = {name: name.split(os.sep)[0] if os.sep in name else "" for name in names}
    splits = {split: [name for name in names if tops[name] == split] for split in SPLIT_FOLDERS}
    splits = {split: of_split for split, of_split in splits.items() if of_split}
    outside = [name for name in names if tops[name] not in splits]
    if splits and outside:
        logger.warning_once(
            f"All images of {folder} are one split, since {outside[0]!r} is outside of {' and '.join(splits)}. Move "
            f"all into folders called {', '.join(SPLIT_FOLDERS)}, or name files with `--data_files`."
        )
    root, files = os.path.abspath(folder), {}
    for split, of_split in {"train": names}.items() if outside else splits.items():
        times = [(str(scan.files[name].st_mtime_ns),) for name in of_split]
        files[split] = DataFilesList([os.path.join(root, name) for name in of_split], times)
    return DataFilesDict(files)


def describe_failure(error: Exception, files: Iterable[str]) -> str:
    """Why `datasets` could not read some files; of text that is not UTF-8 which file it is."""
    cause = error.__cause__ or error
    if isinstance(cause, UnicodeDecodeError):
        for file in files:
            if file.lower().endswith((".csv", ".json", ".jsonl", ".txt")) and os.path.isfile(file):
                try:
                    Path(file).read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    return f"{file} is not UTF-8: save it as UTF-8."
    if isinstance(cause, ParserError):
        return f"{cause}. Separate cells by commas, and quote those that have some."
    return str(cause) or "there are no rows."

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The files of a local folder of images, and which split each belongs to."""

import glob
import os
import re
import stat
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from datasets import DatasetBuilder, DownloadConfig
from datasets.data_files import SPLIT_KEYWORDS, DataFilesDict, DataFilesList
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from fsspec import AbstractFileSystem
from pandas.errors import ParserError
from transformers.utils import logging

from ..utils.keys import join_key, to_key
from ..utils.output_folder import SETTINGS_FILE, holds_model
from ..utils.terminal import without_stop
from .images import IMAGE_EXTENSIONS, SAFE_EXTENSIONS


logger = logging.get_logger(__name__)

TABLE_ENDINGS = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".json", ".tar")
TEXT_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".txt")
# JSON files that hold no rows: what `datasets` and the commands write beside those that do
FILES_WITHOUT_ROWS = ("dataset_info.json", "dataset_infos.json", "state.json", SETTINGS_FILE)
# What `lotlip interpolate` draws beside a model
CURVE_FILE = "interpolation.png"
# Folders that are splits if every image is in one of them
SPLIT_FOLDERS = ("train", "validation", "val", "test")
# Of folders and archives that may be splits, too
WORDS_BESIDE_SPLITS = ("data", "images", "img", "set", "split", "zip")


class FolderScan(NamedTuple):
    """
    The files in a folder and its subfolders, by relative paths with `/` between their parts. Hidden files and linked
    folders are left out.
    """

    files: dict[str, os.stat_result]  # in the order of their names
    left_out: Counter  # how many could not be used, by the reason
    closed_folders: set[str]  # that may not be read
    empty_folders: set[str]


def scan_folder(folder: str | Path) -> FolderScan:
    """
    Lists the files in a folder and its subfolders. An output folder may lie in that of the images: the curve
    and the JSON of a saved model are no data.
    """
    scan = FolderScan({}, Counter(), set(), set())
    model_folders = set()

    def note_closed_folder(error: OSError) -> None:
        scan.closed_folders.add(to_key(os.path.relpath(error.filename, folder)))

    for parent, folders, names in os.walk(folder, onerror=note_closed_folder):
        if not folders and not names and parent != str(folder):
            scan.empty_folders.add(to_key(os.path.relpath(parent, folder)))
        hidden = [name for name in folders + names if name.startswith(".")]
        scan.left_out.update("hidden" for name in hidden if name in folders or is_image_file(name))
        # the walk goes on in these
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                scan.left_out["in a linked folder"] += 1
        is_of_run = SETTINGS_FILE in names and holds_model(Path(parent))
        if is_of_run or os.path.dirname(parent) in model_folders:
            model_folders.add(parent)
            written = [name for name in names if is_written_by_a_run(name)]
            scan.left_out.update("of a saved model" for name in written if is_image_file(name))
            names = set(names).difference(written)
        for name in sorted(names):
            if not name.startswith("."):
                scan_file(os.path.join(parent, name), folder, scan)
    return scan


def scan_file(path: str, folder: str | Path, scan: FolderScan) -> None:
    """Notes a file in a folder, or why it is left out."""
    name = to_key(os.path.relpath(path, folder))
    try:
        name.encode()
        status = os.stat(path)
    except UnicodeEncodeError:
        scan.left_out["with a name that is not UTF-8"] += 1
    except PermissionError:  # its folder may be listed, and no more
        scan.closed_folders.add(to_key(os.path.relpath(os.path.dirname(path), folder)))
    except OSError:  # a link to nowhere, or just deleted
        scan.left_out["linked to no file"] += 1
    else:
        if stat.S_ISREG(status.st_mode):  # reading from a pipe may never end
            scan.files[name] = status
        else:
            scan.left_out["that is a pipe or device"] += 1


def is_written_by_a_run(name: str) -> bool:
    """Returns whether a name in the folder of a model is the curve or one of the results of a run, no caption's."""
    if name == CURVE_FILE:
        return True
    return name.endswith((".json", ".jsonl")) and name not in ImageFolder.METADATA_FILENAMES


def is_image_file(name: str) -> bool:
    """Returns whether a file is an image by its ending."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def is_table_file(name: str) -> bool:
    """Returns whether a file may hold rows by its ending, in upper case, too."""
    if os.path.basename(name) in FILES_WITHOUT_ROWS:
        return False
    return name.lower().removesuffix(".gz").endswith(TABLE_ENDINGS)


def is_indexed_file(name: str) -> bool:
    """Returns whether a file is an image that an index has, by its ending: one in a format that is safe to read."""
    return os.path.splitext(name)[1].lower() in SAFE_EXTENSIONS


def as_patterns(files: Iterable[str], folder: str = "") -> list[str]:
    """
    Writes the names of files in a folder as patterns that only they match: brackets in a name are no pattern. What is
    no file stays as it is.
    """
    return [glob.escape(name) if os.path.isfile(os.path.join(folder, name)) else name for name in files]


def check_for_variables(file: str) -> None:
    """Raises a `ValueError` if `datasets` reads another file, but for images: of `$HOME.jsonl` `root.jsonl`."""
    if not is_image_file(file) and os.path.expandvars(file) != file:
        raise ValueError(f"`datasets` takes a part of the name {file} for an environment variable: rename it")


def check_archives(files: Iterable[str]) -> None:
    """Raises a `ValueError` if a zip archive on this machine was cut off or is none; names it."""
    for file in files:
        check_for_variables(file)
        if file.lower().endswith(".zip") and os.path.isfile(file) and not zipfile.is_zipfile(file):
            raise ValueError(f"The archive {file} was cut off, or is no zip file: write it anew, or leave it out.")


def list_images(files: Iterable[str]) -> list[str]:
    """Lists the images among files on this machine, and those in zip archives by the names that `datasets` has."""
    images = []
    for file in files:
        if is_image_file(file):
            images.append(os.path.abspath(file))
        elif file.lower().endswith(".zip"):
            images += [member for member in list_members(file) if is_image_file(split_archive(member)[1])]
    return images


def list_members(archive: str) -> list[str]:
    """Lists the files in a zip archive, but hidden ones, by the names that `datasets` has: see [`split_archive`]."""
    status = os.stat(archive)
    return [f"zip://{name}::{archive}" for name in list_names(archive, status.st_size, status.st_mtime_ns)]


@lru_cache(maxsize=100)
def list_names(archive: str, size: int, time: int) -> tuple[str, ...]:
    """
    Lists the names of the files in a zip archive, but hidden ones. It is asked for often, and 100,000 take a second.

    Args:
        archive (`str`): The archive.
        size (`int`): Its bytes, by which another one of this name is known.
        time (`int`): When it was written, in nanoseconds.
    """
    with zipfile.ZipFile(archive) as opened:
        return tuple(name for name in opened.namelist() if not is_hidden(name))


def split_archive(path: str) -> tuple[str, str]:
    """
    Splits the name of a file in a zip archive, `zip://a/metadata.csv::photos.zip`, into those of the archive and the
    file in it, which is empty for a file that is in none.
    """
    if not path.startswith("zip://"):
        return path, ""
    name, _, archive = path.removeprefix("zip://").rpartition("::")
    return archive, name


def find_ending(path: str) -> str:
    """Finds the ending of the name of a file, which may be in a zip archive."""
    archive, name = split_archive(path)
    return os.path.splitext(name or archive)[1]


def is_hidden(name: str) -> bool:
    """Whether a file in an archive, or a folder that it is in, is hidden, as `datasets` says it."""
    return any(part.startswith((".", "__")) for part in name.split("/"))


def find_files_about_images(names: Iterable[str]) -> set[str]:
    """
    Finds the JSON files that phones and exports leave next to images, each about one of them: `IMG_1.json`,
    `IMG_1.jpg.json` and `IMG_1.jpg.supplemental-metadata.json` for `IMG_1.jpg`.
    """
    names = list(names)
    stems = {os.path.splitext(name)[0].lower() for name in names if is_image_file(name)}
    found = set()
    for name in names:
        folder, _, file = name.lower().rpartition("/")
        parts = file.split(".")
        beginnings = [f"{folder}/{'.'.join(parts[:end])}".lstrip("/") for end in range(1, len(parts))]
        if parts[-1] == "json" and not stems.isdisjoint(beginnings):
            found.add(name)
    return found


def find_image_files(folder: str | Path) -> DataFilesDict:
    """
    Finds the images, metadata and zip archives in a folder: absolute paths by split, which are `SPLIT_FOLDERS` if
    everything is in them, else one, whatever words are in names. A warning says what is left out. There are none where
    the card says which file is in which split, or there are not more images than files of rows.
    """
    if has_card_with_splits(folder):
        return DataFilesDict()
    scan = scan_folder(folder)
    metadata = [name for name in scan.files if os.path.basename(name) in ImageFolder.METADATA_FILENAMES]
    images = [name for name in scan.files if is_image_file(name) or name.lower().endswith(".zip")]
    about_images = find_files_about_images(scan.files)
    tables = [name for name in scan.files if name.lower().endswith(TABLE_ENDINGS)]
    tables = [name for name in tables if name not in metadata and name not in about_images]
    if len(images) <= len(tables):
        return DataFilesDict()
    warn_of_left_out(folder, scan, tables)
    chosen = {*images, *metadata}
    names = [name for name in scan.files if name in chosen]
    root = os.path.abspath(folder)
    files = {}
    for split, split_names in divide_into_splits(folder, names).items():
        signatures = [sign(scan.files[name]) for name in split_names]
        files[split] = DataFilesList([join_key(root, name) for name in split_names], signatures)
    return DataFilesDict(files)


def sign(status: os.stat_result) -> tuple[str, str, str]:
    """Writes by what `datasets` knows a file: its size, and the times of its content and its entry."""
    return str(status.st_size), str(status.st_mtime_ns), str(status.st_ctime_ns)


def sign_files(files: DataFilesDict) -> DataFilesDict | None:
    """
    Signs the files of each split (see [`sign`]), since `datasets` knows a file by the time of its content alone, and
    so takes another content of equal time for what it has in its cache. A file that several patterns name is there
    once: `datasets` would read its rows again. Returns None if one is not on this machine.

    Raises:
        `ValueError`: if `datasets` would read another file: see [`check_for_variables`].
    """
    signed = {}
    for split, names in files.items():
        if not all(map(os.path.isfile, names)):
            return None
        names = {os.path.abspath(name): name for name in names}.values()
        for name in names:
            check_for_variables(name)
        signed[str(split)] = DataFilesList(list(names), [sign(os.stat(name)) for name in names])
    return DataFilesDict(signed)


def list_files(builder: DatasetBuilder, split: str) -> list[str]:
    """Lists the files of a split, or of all."""
    files = builder.config.data_files or {}
    splits = list(files) if split == "all" else [split]
    found = []
    for name in splits:
        found += map(str, files.get(name, []))
    return found


def list_other_splits(builder: DatasetBuilder, split: str) -> list[list[str]]:
    """Lists the files of each of the other splits; of none if all are asked for."""
    if split == "all":
        return []
    return [list_files(builder, name) for name in builder.config.data_files if name != split]


def select_split(files: DataFilesDict, split: str) -> DataFilesDict:
    """Selects the files of a split, or of all, so that `datasets` builds no other."""
    if split == "all":
        return files
    return DataFilesDict({split: files[split]})


def warn_of_left_out(folder: str | Path, scan: FolderScan, tables: list[str]) -> None:
    """Says which files of a folder of images are left out, among them files of rows."""
    left_out = [f"{count} {reason}" for reason, count in scan.left_out.items() if reason != "hidden"]
    if tables:
        left_out.append(f"{len(tables)} with rows that are no metadata.jsonl, as {tables[0]!r}")
    left_out += [f"the folder {name!r}, which may not be read" for name in sorted(scan.closed_folders)]
    if left_out:
        logger.warning_once(f"Of {folder} files are left out: {', '.join(left_out)}.")


def has_card_with_splits(folder: str | Path) -> bool:
    """Returns whether the card of a dataset in a folder says which file is in which split."""
    for name in ("README.md", ".huggingface.yaml"):
        card = Path(folder, name)
        if card.is_file() and re.search(r"(?m)^configs:", card.read_text("utf-8", "replace")):
            return True
    return False


def divide_into_splits(folder: str | Path, names: list[str]) -> dict[str, list[str]]:
    """Divides the names of files, relative to a folder, into `SPLIT_FOLDERS`, or puts all into the split `train`."""
    splits = {}
    for split in SPLIT_FOLDERS:
        in_split = [name for name in names if name.startswith(f"{split}/")]
        if in_split:
            splits[split] = in_split
    inside = set().union(*splits.values())
    outside = [name for name in names if name not in inside]
    if not outside:
        return splits
    if splits:
        logger.warning_once(
            f"All images of {folder} are one split, since {outside[0]!r} is outside of "
            f"{' and '.join(splits)}. Move all into folders called {', '.join(SPLIT_FOLDERS)}, or "
            "name files with `--data_files`."
        )
        return {"train": names}
    named = find_folders_like_splits(names)
    if len(named) > 1:
        logger.warning_once(
            f"All images of {folder} are the split train, those in "
            f"{' and '.join(map(repr, named.values()))} too. Move them into folders called "
            f"{', '.join(SPLIT_FOLDERS)}, or name files with `--data_files`."
        )
    return {"train": names}


def divide_files(builder: DatasetBuilder, names: dict[str, str]) -> None:
    """
    Puts each file into its split, once: `datasets` puts `train_test/train-0.parquet` into both, and lists those with a
    word of a split in several parts of the path several times. A warning says which stay in several.

    Args:
        builder (`DatasetBuilder`):
            What reads the files, which are changed.
        names (`dict[str, str]`):
            The path of each in the folder or the repository.
    """
    data_files = builder.config.data_files or DataFilesDict()
    splits = {}
    for split, files in data_files.items():
        for file in files:
            splits.setdefault(file, []).append(str(split))
    splits = {file: choose_splits(names[file], named) for file, named in splits.items()}
    divided = DataFilesDict()
    for split, files in data_files.items():
        of_split = [file for file in dict.fromkeys(files) if str(split) in splits[file]]
        if of_split:
            divided[split] = DataFilesList(of_split, files.origin_metadata)
    if divided != data_files:
        builder.config.data_files = divided
        builder.info.splits = None  # how many rows they have
    shared = [file for file, named in splits.items() if len(named) > 1]
    if shared:
        logger.warning_once(
            f"{len(shared)} files are in several splits, as {shared[0]!r} in {' and '.join(splits[shared[0]])}, after "
            "the words in their paths: name the files of a split with `--data_files`."
        )


def add_images(builder: ImageFolder, patterns: dict[str, list[str]], base_path: str) -> None:
    """
    Adds the images to the files of a folder that `datasets` leaves out without a word, since it does not know their
    endings, as `.heic` and `.Jpg`.

    Args:
        builder (`ImageFolder`):
            What reads the files, which are changed.
        patterns (`dict[str, list[str]]`):
            The patterns of the names of files by split.
        base_path (`str`):
            The folder or repository that they are relative to.
    """
    config = DownloadConfig(token=builder.token)
    all_files = DataFilesDict.from_patterns(patterns, base_path=base_path, download_config=config)
    files_by_split = DataFilesDict()
    for split, files in all_files.items():
        known = {*builder.config.data_files.get(split, ())}
        kept = [file for file in files if file in known or is_image_file(file)]
        if kept:
            files_by_split[split] = DataFilesList(kept, files.origin_metadata)
    builder.config.data_files = files_by_split


def has_metadata(builder: ImageFolder) -> bool:
    """Whether files of metadata, which may name any image, are among those of a folder."""
    return any(os.path.basename(file) in ImageFolder.METADATA_FILENAMES for file in list_files(builder, "all"))


def warn_of_images_of_other_endings(system: AbstractFileSystem, folder: str) -> None:
    """
    Says which images `datasets` leaves out of a folder whose card says which files are in which split: see
    [`add_images`].

    Args:
        system (`AbstractFileSystem`):
            Where the folder is: on this machine, or on the Hub.
        folder (`str`):
            The folder.
    """
    known = {*ImageFolder.EXTENSIONS, *(ending.upper() for ending in ImageFolder.EXTENSIONS)}
    names = [path.removeprefix(f"{folder}/") for path in system.find(folder)]
    images = [name for name in names if is_image_file(name) and not is_hidden(name)]
    left_out = [name for name in images if os.path.splitext(name)[1] not in known]
    if left_out:
        logger.warning_once(
            f"{len(left_out)} images of {folder}, as {left_out[0]!r}, are in no split of its card, since `datasets` "
            "does not know their endings. Name files with `--data_files`."
        )


def choose_splits(name: str, splits: list[str]) -> list[str]:
    """
    Chooses among the splits of a file the one that it is called after, unless it is an image, or the outermost folder
    of its path is; else the one of which the outermost part has a word, but of no other. All where there is none.
    """
    if len(set(splits)) == 1:
        return splits[:1]
    parts = [os.path.splitext(part)[0] for part in name.split("/")]
    called_after = [find_split_of_name(part) for part in parts]
    if not is_image_file(name) and called_after[-1] in splits:
        return [called_after[-1]]
    for split in called_after:
        if split in splits:
            return [split]
    for part in parts:
        words = {split for split, _ in list_split_words(part)}.intersection(splits)
        if len(words) == 1:
            return list(words)
    return splits


def find_folders_like_splits(names: list[str]) -> dict[str, str]:
    """
    Finds the folders of files, and archives, that are called as splits are, such as `Training`, `images/val2017` or
    `test.zip`, or alike but for the word of a split, such as `coco_train` and `coco_val`: by the split the first one.
    """
    folders = sorted({name if name.lower().endswith(".zip") else os.path.dirname(name) for name in names})
    found = {}
    alike = defaultdict(dict)
    for folder in folders:
        for name in folder.split("/"):
            split = find_split_of_name(name)
            if split is not None:
                found.setdefault(split, folder)
            for split, rest in list_split_words(name):
                alike[rest].setdefault(split, folder)
    for by_split in alike.values():
        if len(by_split) > 1:
            for split, folder in by_split.items():
                found.setdefault(split, folder)
    return found


def list_split_words(name: str) -> list[tuple[str, str]]:
    """Lists the splits that words in the name of a folder are called after, each with the name without the word."""
    found = []
    for word in re.finditer(r"[^\W\d_]+", name.lower()):
        for split, keywords in SPLIT_KEYWORDS.items():
            if word.group() in keywords:
                found.append((str(split), f"{name[: word.start()]}/{name[word.end() :]}".lower()))
    return found


def find_split_of_name(name: str) -> str | None:
    """
    Finds the split that a folder is called after, as `val2017` and `test_set` are. `test tube` is a class: its name
    has a word of its own.
    """
    words = set(re.split(r"[\W\d_]+", name.lower())) - {"", *WORDS_BESIDE_SPLITS}
    if len(words) != 1:
        return None
    word = words.pop()
    for split, keywords in SPLIT_KEYWORDS.items():
        if word in keywords or (word.removesuffix("s") in keywords and word != "trains"):  # which may be a class
            return str(split)
    return None


def describe_failure(error: Exception, files: Iterable[str]) -> str:
    """Says why `datasets` could not read some files; of text that is not UTF-8 which file it is."""
    if isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UnicodeDecodeError):
        for file in files:
            if file.lower().endswith(TEXT_ENDINGS) and os.path.isfile(file) and not is_utf8(file):
                return f"{file} is not UTF-8: save it as UTF-8."
    if isinstance(error, ParserError):
        return f"{without_stop(error)}. Separate cells by commas (in .tsv by tabs), and quote cells with some."
    if "must be present as dictionary key in metadata" in str(error):
        return (
            "metadata has no column file_name, which names the image of each row. In metadata.csv separate cells by "
            "commas."
        )
    if "JSON parse error: Column(" in str(error):  # in metadata.jsonl
        return f"{without_stop(error)}. Write values of one type in all rows of a column, such as lists."
    return str(error) or "there are no rows."


def is_utf8(file: str) -> bool:
    """Returns whether a text file is UTF-8."""
    try:
        Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True

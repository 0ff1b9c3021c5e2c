# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Hashes of files, text files that are read, and results as JSON, CSV and parquet."""

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyarrow import parquet

from .output_folder import atomic_write


# Bytes of a file that are hashed at a time
BYTES_AT_ONCE = 2**20


def hash_bytes(content: bytes) -> str:
    """Hashes the content of a file with BLAKE2b, 16 bytes as hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def hash_file(path: Path) -> str:
    """Hashes a file as [`hash_bytes`] its content, without having all of it in memory."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while part := file.read(BYTES_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


def is_gone(path: str | Path) -> bool:
    """Returns whether there is no file of a path: one in a folder that may not be opened may be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_same_path(path: str | Path, other: str | Path) -> bool:
    """
    Returns whether two paths are of the same file or folder, also on a disk that does not distinguish capitals
    or accents (macOS, Windows).
    """
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return Path(path).resolve() == Path(other).resolve()


def are_one_file(name: str, other: str, folder: Path) -> bool:
    """
    Returns whether two names of files are one on the disk of a folder, which need not be there yet: those of macOS
    and Windows do not distinguish capitals or accents.
    """
    on_disk = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    with TemporaryDirectory(dir=on_disk) as probe:
        (Path(probe) / name).touch()
        return (Path(probe) / other).exists()


def read_lines(path: Path, argument: str, are_numbered: bool = False) -> list[str]:
    """
    Reads the lines of a text file, stripped; blank ones and a byte-order mark are left out.

    Args:
        path (`Path`): The file.
        argument (`str`): What names it, for messages.
        are_numbered (`bool`, *optional*, defaults to `False`):
            Whether lines are known by their numbers, so that a blank one before others is an error.

    Raises:
        `ValueError`: if it cannot be read, or is not UTF-8, or has such a line.
    """
    try:
        # a text may have other line breaks, as U+2028
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"--{argument} {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--{argument} {path} is not UTF-8, at byte {error.start}: save it as UTF-8.") from error
    kept = [line.strip() for line in lines if line.strip()]
    if are_numbered:
        for number, line in enumerate(lines[: len(kept)], start=1):
            if not line.strip():
                raise ValueError(f"--{argument} {path} has nothing in line {number}: fill it in.")
    return kept


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, results: dict) -> None:
    """Writes results to a JSON file."""
    write_text(path, json.dumps(results, indent=2) + "\n")


def write_csv(path: Path, rows: list[dict]) -> None:
    """Writes rows to a CSV file; what a row lacks is left empty, a list is JSON."""
    names = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names))
    writer.writeheader()
    for row in rows:
        cells = {}
        for name, cell in row.items():
            cells[name] = json.dumps(cell) if isinstance(cell, (list, dict)) else cell
        writer.writerow(cells)
    write_text(path, text.getvalue())


def public_name(name: str) -> str:
    """Returns a Hub id as it is, and of a folder its name, without the folders of this machine."""
    if Path(name).exists():
        return Path(name).resolve().name
    return name


def write_results(path: Path, results: dict, table: str, rows: list[dict] | None = None) -> None:
    """
    Writes results in the form that the ending of the file names. A symbolic link stays one: its
    file is written.

    Args:
        path (`Path`):
            A file that ends in `.json`, `.csv` or `.md`.
        results (`dict`):
            What becomes JSON.
        table (`str`):
            What becomes Markdown.
        rows (`list[dict]`, *optional*):
            What becomes CSV. Default: the results as one row.

    Raises:
        `ValueError`: if it has another ending.
    """
    file = path.resolve()
    if path.suffix == ".json":
        write_json(file, results)
    elif path.suffix == ".csv":
        write_csv(file, [results] if rows is None else rows)
    elif path.suffix == ".md":
        write_text(file, table.rstrip("\n") + "\n")
    else:
        raise ValueError(f"--output_file {path} must end in .json, .csv or .md.")


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a parquet file."""
    with atomic_write(path) as partial:
        parquet.write_table(table, partial)

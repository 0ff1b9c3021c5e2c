# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A benchmark, what its annotation files say, and readers of the formats that they come in."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


# A long list is decoded while it is read, in pieces of so many characters; no row has more than `MAX_ROW_LENGTH`.
PIECE_LENGTH = 2**20
MAX_ROW_LENGTH = 2**24


@dataclass
class Annotations:
    """
    What the annotation files of a benchmark say.

    Args:
        rows (`list[dict]`):
            A row for each image: `file_name`, the image's path in the benchmark's folder, and `caption`,
            `long_captions` or `label`.
        missing (`list[str]`, *optional*):
            The annotation files that are not there, as paths in the benchmark's folder.
        class_names (`list[str]`, *optional*):
            The names of the classes, in the order of the labels.
    """

    rows: list[dict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    class_names: list[str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark as it is published. Each file of this folder ends with its own, or several, as `BENCHMARKS`.

    Args:
        name (`str`):
            Its name.
        read (`Callable[[Path], Annotations]`):
            Reads its annotations from a folder.
        num_images (`int`):
            The published number of images.
        num_texts (`int`):
            The published number of texts, 0 for classification.
        layout (`str`):
            The files in its folder.
        source (`str`):
            How to get them.
        task (`str`, *optional*, defaults to `"retrieval"`):
            `"retrieval"` or `"classification"`.
        aliases (`tuple[str, ...]`, *optional*):
            Other names that the same data goes by.

    Example:

    ```python
    >>> from modeling_lotlip.data.published import get_benchmark

    >>> get_benchmark("urban1k").how_to_get()  # doctest: +ELLIPSIS
    "'urban1k' is read from ..."
    ```"""

    name: str
    read: Callable[[Path], Annotations]
    num_images: int
    num_texts: int
    layout: str
    source: str
    task: str = "retrieval"
    aliases: tuple[str, ...] = ()

    def how_to_get(self) -> str:
        """Which files it is read from, and where they come from."""
        return f"{self.name!r} is read from {self.layout}. To get them: {self.source}."


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` is damaged: {error}. Get it again.") from error


def read_json(path: Path) -> dict | list:
    """
    Reads a JSON file.

    Raises:
        `ValueError`: if it is damaged.
    """
    with naming(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """
    Reads a file with a JSON object on each line, as pairs of where it stands and the object.

    Raises:
        `ValueError`: if it is damaged.
    """
    with naming(path), open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                with naming(where):
                    yield where, json.loads(line)


def read_json_list(path: Path) -> Iterator[tuple[str, dict]]:
    """
    Reads the JSON objects of one long list while they are asked for, as pairs of where each stands and the object.

    Raises:
        `ValueError`: if it is no list, or is damaged before its end is reached.
    """
    decoder, separator = json.JSONDecoder(), re.compile(r"[\s,]*")
    with naming(path), open(path, encoding="utf-8") as file:
        piece = file.read(PIECE_LENGTH).lstrip()
        if not piece.startswith("["):
            raise ValueError(f"`{path}` must hold a list of JSON objects, but starts with {piece[:20]!r}.")
        number, place = 0, 1
        while True:
            place = separator.match(piece, place).end()
            if piece.startswith("]", place):
                return
            try:
                row, place = decoder.raw_decode(piece, place)
            except json.JSONDecodeError as error:  # most often as the row goes on in the next piece
                more = file.read(PIECE_LENGTH)
                if not more or len(piece) - place > MAX_ROW_LENGTH:
                    raise ValueError(f"`{path}` is damaged in row {number}: {error.msg}. Get it again.") from error
                piece, place = piece[place:] + more, 0
                continue
            yield f"{path}, row {number}", row
            number += 1


def get_text(row: dict, name: str, where: str, is_empty_allowed: bool = False) -> str:
    """
    The string in a field of an annotation.

    Args:
        row (`dict`):
            The annotation.
        name (`str`):
            The field.
        where (`str`):
            Where the annotation stands, for the message.
        is_empty_allowed (`bool`, *optional*, defaults to `False`):
            Whether the string may be empty or blank.

    Raises:
        `ValueError`: if there is none.
    """
    text = row.get(name) if isinstance(row, dict) else None
    if not isinstance(text, str) or not (text.strip() or is_empty_allowed):
        raise ValueError(f"{where}: {name!r} must hold a text, but it is {text!r}. The file is damaged: get it again.")
    return text

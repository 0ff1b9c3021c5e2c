# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of `lotlip search` and `lotlip app`, and which images of a collection are searched."""

import os
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path, PurePath
from typing import NamedTuple

from ..encoder.arguments import AUTO, BACKENDS, DEFAULT_MODEL, KINDS, PRECISIONS, ModelArguments
from ..table.conditions import in_folder
from ..utils.addresses import is_loopback
from ..utils.arguments import Arguments, argument, refuse_given
from ..utils.keys import list_spellings
from ..utils.texts import is_invisible


MIN_PASSWORD_LENGTH = 8


class Filter(NamedTuple):
    """Which images are searched: in a folder and all folders in it, taken on two days or between them."""

    folder: str | None = None
    taken_from: date | None = None
    taken_to: date | None = None

    @classmethod
    def parse(
        cls,
        folder: str | None = None,
        taken_from: str | None = None,
        taken_to: str | None = None,
    ) -> "Filter":
        """
        Makes a filter of texts; a blank one filters nothing. Raises a `ValueError` if one of the days is none, or the
        last comes before the first.
        """
        first = parse_day("taken_from", taken_from)
        last = parse_day("taken_to", taken_to)
        if first is not None and last is not None and first > last:
            raise ValueError(f"`taken_from` {first} is after `taken_to` {last}: exchange them.")
        if folder is None or not folder.strip():
            return cls(None, first, last)
        path = PurePath(folder)  # a name may begin or end with blanks
        if path == PurePath():  # all folders
            return cls(None, first, last)
        return cls(path.as_posix(), first, last)

    @property
    def condition(self) -> str | None:
        """Writes the SQL condition of an [`EmbeddingTable`]; None if all images are searched."""
        parts = []
        if self.folder is not None:
            in_folders = [in_folder(name) for name in list_spellings(self.folder)]
            parts.append(f"({' OR '.join(in_folders)})")
        if self.taken_from is not None:
            parts.append(f"taken >= timestamp '{self.taken_from} 00:00:00'")
        if self.taken_to is not None:
            parts.append(f"taken <= timestamp '{self.taken_to} 23:59:59'")
        return " AND ".join(parts) or None

    @property
    def condition_of_undated(self) -> str | None:
        """Writes the SQL condition of images that are left out as their date is not known; None if no day is asked."""
        if self.taken_from is None and self.taken_to is None:
            return None
        in_folders = Filter(self.folder).condition
        if in_folders is None:
            return "taken IS NULL"
        return f"{in_folders} AND taken IS NULL"

    def __str__(self) -> str:
        """Describes the filter in words that follow "images"."""
        words = []
        if self.folder is not None:
            words.append(f"in the folder {self.folder}")
        if self.taken_from is not None or self.taken_to is not None:
            words.append("taken")
        if self.taken_from is not None:
            words.append(f"from {self.taken_from}")
        if self.taken_to is not None:
            words.append(f"to {self.taken_to}")
        return " ".join(words)


def parse_day(name: str, text: str | None) -> date | None:
    """Reads a day, a blank text as none. Raises a `ValueError`, which gives its `name`, if it is no day."""
    text = (text or "").strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"`{name}` {text} is no date: write year, month and day, as in 2024-05-31.") from error


ALL_IMAGES = Filter()


@dataclass
class SearchModelArguments(ModelArguments):
    """A dual encoder to search with, and how it is run."""

    model_name_or_path: str | None = argument(
        None,
        "A Hub id or a folder of a dual encoder. Default: the model that made --embeddings_dir; else "
        f"{DEFAULT_MODEL}.",
        aliases=("--model",),
        metavar="MODEL",
    )
    dtype: str = argument(
        AUTO,
        "The precision of the computation. Default: that of the embeddings that are there; else auto, the fastest "
        "here that is close to float32, measured once.",
        choices=PRECISIONS,
    )
    backend: str = argument(
        AUTO,
        "What computes. Default: as --dtype.",
        choices=BACKENDS,
    )
    batch_size: int = argument(
        64,
        "Images in a batch, for each process.",
        least=1,
        excludes=("embeddings_dir",),
    )


@dataclass
class IndexArguments(Arguments):
    """The images that are searched."""

    _argument_group_name = "search"

    photos: str | None = argument(
        None, "A folder of images, with all folders in it.", positional=True, metavar="PHOTOS"
    )
    embeddings_dir: Path | None = argument(
        None,
        "Search the embeddings in a folder, of `lotlip embed` or of an earlier search, as they are.",
        aliases=("--embeddings",),
        metavar="DIR",
    )
    index_dir: Path | None = argument(
        None,
        "Where indices of images are kept. Default: `assets/lotlip/search` in the cache of the Hub.",
        excludes=("embeddings_dir",),
    )

    @property
    def is_search(self) -> bool:
        """Whether something is searched."""
        return True

    def __post_init__(self):
        super().__post_init__()
        if self.is_search and self.embeddings_dir is None and self.photos is None:
            raise ValueError("there is nothing to search in: name a folder of PHOTOS, or one of --embeddings_dir.")


@dataclass
class SearchArguments(IndexArguments):
    """What is searched for."""

    texts: list[str] = argument([], "Descriptions of what to find.", positional=True, metavar="TEXT")
    texts_file: Path | None = argument(
        None,
        "A file with further descriptions, one on each line.",
        metavar="FILE",
    )
    k: int = argument(5, "How many results to print for each description.", least=1, most=10**9)
    folder: str | None = argument(
        None, "Search the images in this folder of the collection, and in all folders in it."
    )
    taken_from: str | None = argument(
        None,
        "Search images taken on this day or later.",
        metavar="YYYY-MM-DD",
    )
    taken_to: str | None = argument(
        None,
        "Search images taken on this day or before.",
        metavar="YYYY-MM-DD",
    )
    all_copies: bool = argument(
        False,
        "Show images that are nearly the same one by one, not as one result.",
    )
    kind: str = argument("image", "What to search for.", choices=KINDS, requires="embeddings_dir")
    forget: str | None = argument(
        None,
        "Search nothing, but delete the indices of a folder of images, which may be gone; with --model those of one "
        "model. Your images stay.",
        metavar="FOLDER",
        excludes=("embeddings_dir",),
    )

    @property
    def is_search(self) -> bool:
        """Whether images are searched, and no index is deleted."""
        return self.forget is None

    def __post_init__(self):
        if self.embeddings_dir is not None and self.photos is not None:
            has_others = bool(self.texts) or self.texts_file is not None
            if has_others and os.path.isdir(self.photos):
                raise ValueError(
                    f"name one collection, not PHOTOS ({self.photos}) and --embeddings_dir {self.embeddings_dir}; "
                    "if that is a TEXT, put it behind the others, or into the --texts_file."
                )
            # the parser takes the first word for PHOTOS, which are not named then: it is a TEXT as well
            self.texts = [self.photos, *self.texts]
            self.photos = None
        super().__post_init__()
        self.chosen = Filter.parse(self.folder, self.taken_from, self.taken_to)
        if not self.is_search:
            if self.photos is not None or self.texts:
                raise ValueError(f"--forget {self.forget} searches nothing: leave out PHOTOS and TEXT.")
            names = {field.name for field in fields(self)} - {"forget", "index_dir"}
            refuse_given(self, names, "with --forget")
            return
        if not self.texts and self.texts_file is None:
            raise ValueError("there is nothing to search for: add a TEXT, or name a file of them by --texts_file.")
        if any(is_invisible(text) for text in self.texts):
            raise ValueError("a TEXT is blank: describe what to find.")


@dataclass
class PageArguments(IndexArguments):
    """The page, and who reaches it."""

    k: int = argument(12, "How many images to show.", least=1, most=10**9)
    port: int = argument(7860, "The port to listen at.", least=1, most=65535)
    host: str = argument(
        "127.0.0.1",
        "The address to listen at. `0.0.0.0`: all who reach this machine see the page.",
    )
    no_browser: bool = argument(False, "Do not open the page in a browser.")
    share: bool = argument(False, "Also make a public address, through Gradio's servers.")
    auth_file: Path | None = argument(
        None, "A file with a line USER:PASSWORD for each user, which only you can read.", metavar="FILE"
    )
    without_password: bool = argument(
        False,
        "No password: anyone can search the page, with --share or --host.",
        excludes=("auth_file",),
    )

    @property
    def is_shared(self) -> bool:
        """Whether others than the users of this machine reach the page."""
        return self.share or not is_loopback(self.host)

    def __post_init__(self):
        super().__post_init__()
        if self.photos is not None and self.embeddings_dir is not None:
            raise ValueError("name one collection, not both PHOTOS and --embeddings_dir.")
        if self.is_shared and self.auth_file is None and not self.without_password:
            option = f"--host {self.host}"
            if self.share:
                option = "--share"
            raise ValueError(
                f"{option} shows the images to all who find the page: name users in an --auth_file, or let in "
                "everyone by --without_password."
            )


def read_logins(path: Path) -> list[tuple[str, str]]:
    """
    Reads a file with a line `USER:PASSWORD` for each user. Raises a `ValueError` if other users of this machine can
    read it, a line is no such one, or no user is named.
    """
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ValueError(f"--auth_file {path} can be read by others: `chmod 600 {path}`.")
    logins = {}
    text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a byte-order mark
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        user, _, password = line.partition(":")
        user = user.strip()
        if not user or len(password) < MIN_PASSWORD_LENGTH or user in logins:
            raise ValueError(
                f"--auth_file {path}, line {number}: write USER:PASSWORD, each user once, with at least "
                f"{MIN_PASSWORD_LENGTH} characters of password."
            )
        logins[user] = password
    if not logins:
        raise ValueError(f"--auth_file {path} names no user: write a line USER:PASSWORD for each.")
    return list(logins.items())

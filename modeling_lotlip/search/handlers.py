# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Answers to the search page: HTML for its parts, by the macros of `page.html`."""

import base64
import io
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache
from importlib import resources
from threading import Lock
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..data.images import (
    IMAGE_ERRORS,
    SAFE_FORMATS,
    Resizing,
    UnreadableImageError,
    open_image,
    read_file,
    read_image,
)
from ..encoder.batches import sign_file
from ..utils.terminal import without_stop
from .arguments import ALL_IMAGES, Filter
from .query import Query, QueryError, draw_heat_map
from .searcher import Searcher, count


THUMBNAIL_SIDE = 480  # pixels of the longer side of an image among results
LARGE_SIDE = 1600  # and of one alone
NUM_THUMBNAILS = 2000  # that are kept, some 20 kB each
NUM_COPIES = 100  # that are shown of an image
# Of an uploaded image: a small file may hold them, and all other visitors wait while they are decoded
MAX_PIXELS = 50_000_000
# Of what a visitor writes: far more than a model reads
MAX_CHARACTERS = 20_000
# One half of a UTF-16 pair, which JSON can hold alone and UTF-8 cannot
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
# What may go wrong with files, the model and memory
PROBLEMS = (MemoryError, OSError, RuntimeError, ValueError)
# What stands where results will be
HINT = "Describe an image, in one sentence or many, or choose an image. The most similar images appear here."
HEAT_MAP_NOTE = "Red: where the model finds it, in the part that it sees."
NOT_THERE = "This image is not in the collection any more. Search again."


def read_resource(name: str) -> str:
    """Reads a file of this folder, such as `page.css`."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def load_macros() -> object:
    """Loads the macros of `page.html`, which escape whatever is filled in."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(read_resource("page.html")).module


def render(macro: str, **values: object) -> str:
    """Fills a macro of `page.html`: HTML."""
    fill = getattr(load_macros(), macro)
    return str(fill(**values))


def encode_image(image: Image.Image) -> str:
    """Writes an image as a data URL: a small one as PNG, which the page shows with its pixels as squares."""
    buffer = io.BytesIO()
    image_format = "jpeg"
    if max(image.size) < 128:
        image_format = "png"
    image.save(buffer, format=image_format, quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{image_format};base64,{data}"


def check_text(text: str) -> None:
    """Raises a `QueryError` if a text is longer than a visitor may ask for, or is none."""
    if len(text) > MAX_CHARACTERS:
        raise QueryError(f"This text has {len(text):,} characters: the max is {MAX_CHARACTERS:,}.")
    if HALF_CHARACTER.search(text):
        raise QueryError("This text holds half of a character, which no file of text can hold: write it anew.")


def read_field(request: object, name: str, expected_type: type = str) -> Any:
    """Reads a field of a request of `page.js`. Raises a `QueryError` if it is not there: something else has asked."""
    if not isinstance(request, dict) or not isinstance(request.get(name), expected_type):
        raise QueryError(f"The request has no {name}.")
    return request[name]


class Updater:
    """Updates the index of a searcher in a thread, if it has a folder."""

    def __init__(self, searcher: Searcher):
        self.searcher = searcher
        self.executor = ThreadPoolExecutor(1)
        self.start_lock = Lock()
        self.last: Future | None = None  # update
        self.num_done = 0  # images of this update
        self.num_total = 0
        self.is_stopped = False

    @property
    def is_running(self) -> bool:
        """Whether an update has begun and not ended."""
        return self.last is not None and not self.last.done()

    def start(self) -> None:
        """Begins an update, unless one is running."""
        with self.start_lock:  # of several pages that are opened at once one begins
            if self.searcher.folder is not None and not self.is_running:
                self.num_done = 0
                self.num_total = 0
                self.last = self.executor.submit(self.searcher.update, self.report)

    def report(self, num_done: int, num_total: int) -> None:
        """Notes how far an update is. Raises a `RuntimeError`, which ends it, after [`stop`]."""
        self.num_done = num_done
        self.num_total = num_total
        if self.is_stopped:
            raise RuntimeError("The update was stopped.")

    def stop(self) -> None:
        """Ends an update that is running; what it has embedded is kept."""
        self.is_stopped = True
        self.executor.shutdown()


class Asked(NamedTuple):
    """A search of a visitor: a query, which images were searched, and how many results are shown."""

    query: Query
    chosen: Filter
    k: int


class Handlers:
    """
    Answers several visitors of the page at once.

    Args:
        searcher (`Searcher`):
            The collection.
        read (`Callable[[str], dict]`):
            Returns the undecoded image of a key.
        k (`int`):
            How many results are shown at first, and how many further ones each time.
    """

    def __init__(self, searcher: Searcher, read: Callable[[str], dict], k: int):
        self.searcher = searcher
        self.read = read
        self.k = k
        self.updater = Updater(searcher)
        self.encoded = lru_cache(NUM_THUMBNAILS)(self.encode)
        # one image of a visitor is decoded at a time, which may take half a gigabyte
        self.upload_lock = Lock()

    def encode(self, key: str, signature: tuple[int, ...]) -> str:
        """Makes a thumbnail. The file's signature is there for the cache: one that has changed gets a new one."""
        return encode_image(read_image(self.read(key), THUMBNAIL_SIDE))

    def thumbnail(self, key: str) -> str | None:
        """Returns the data URL of an image, made smaller; None if it has changed or cannot be read any more."""
        try:
            path = self.read(key)["path"]
            signature = ()
            if path and os.path.isfile(path):
                signature = tuple(sign_file(os.stat(path)).values())
            return self.encoded(key, signature)
        except (OSError, UnreadableImageError):
            return None

    def read_known(
        self,
        key: str,
        max_side: int | None = None,
        resizing: Resizing | None = None,
    ) -> Image.Image:
        """Reads an image of the collection. Raises a `QueryError` if there is none of the key."""
        if self.searcher.table.embedding(key) is None:
            raise QueryError(NOT_THERE)
        try:
            return read_image(self.read(key), max_side, resizing)
        except UnreadableImageError as error:
            raise QueryError("This image has changed or cannot be read any more: rescan the folder.") from error

    def read_upload(self, path: str) -> Image.Image:
        """Reads the image of a visitor. Raises a `QueryError` if the file holds none, or one of too many pixels."""
        try:
            content = read_file({"path": path, "bytes": None})
            image = open_image(content, SAFE_FORMATS)
            # of a JPEG, as cameras make them, a fraction is decoded
            if image.format != "JPEG" and image.width * image.height > MAX_PIXELS:
                raise QueryError(
                    f"This image has {image.width} x {image.height} pixels, the max is {MAX_PIXELS:,}: "
                    "make it smaller."
                )
            with self.upload_lock:
                return read_image({"bytes": content}, resizing=self.searcher.resizing, formats=SAFE_FORMATS)
        except IMAGE_ERRORS as error:
            if isinstance(error, QueryError):
                raise
            raise QueryError(
                f"This file is not an image that can be read: {without_stop(error)}. Choose another one."
            ) from error

    def search(
        self,
        text: str | None,
        image_path: str | None,
        folder: str | None,
        taken_from: str,
        taken_to: str,
    ) -> tuple[str, Asked]:
        """
        Searches for a description, an image or both.

        Args:
            text (`str`, *optional*):
                The description.
            image_path (`str`, *optional*):
                The file of an image that was uploaded.
            folder (`str`, *optional*):
                The folder that is searched: see [`Filter.parse`]. An empty text is no filter.
            taken_from (`str`):
                The first day of the images that are searched, or an empty text.
            taken_to (`str`):
                The last day, or an empty text.

        Returns:
            `tuple[str, Asked]`: the first results as HTML, and what [`more`] of them needs.

        Raises:
            `QueryError`: if there is nothing to search for, or nothing to search in.
            `ValueError`: if the filter names no folder or day.
        """
        text = text or ""
        check_text(text)
        check_text(folder or "")
        chosen = Filter.parse(folder, taken_from, taken_to)
        image = None
        if image_path is not None:
            image = self.read_upload(image_path)
        if self.updater.is_running and len(self.searcher.table) == 0:
            raise QueryError("The first images are still being indexed. Try again in a moment.")
        self.searcher.count(chosen)  # raises if nothing is left to search in
        query = self.searcher.embed(text, image)
        return self.show(Asked(query, chosen, self.k))

    def similar(self, name: str) -> tuple[str, Asked]:
        """Searches for the images that are most similar to one of the collection."""
        if not isinstance(name, str):
            raise QueryError("The request has no name.")
        embedding = self.searcher.table.embedding(name)
        if embedding is None:
            raise QueryError(NOT_THERE)
        return self.show(Asked(Query(embedding), ALL_IMAGES, self.k))

    def more(self, asked: Asked) -> tuple[str, Asked]:
        """Shows as many further results below those that are shown."""
        if not isinstance(asked, Asked):
            raise QueryError("There are no results yet: search first.")
        return self.show(asked._replace(k=asked.k + self.k))

    def show(self, asked: Asked) -> tuple[str, Asked]:
        """Searches again, and makes HTML of the results."""
        results = self.searcher.search(asked.query, asked.k + 1, asked.chosen)
        html = render(
            "results",
            query=asked.query,
            chosen=asked.chosen,
            results=results[: asked.k],
            has_more=len(results) > asked.k,
            is_first=asked.k == self.k,
            num_images=count(self.searcher.count(asked.chosen), "image"),
            left_out=" ".join(self.searcher.describe_undated(asked.chosen, "image")),
            thumbnail=self.thumbnail,
            time=time.time_ns(),
        )
        return html, asked

    def copies(self, request: dict) -> dict[str, str]:
        """Shows images that are nearly the same as a result. Raises a `QueryError` if none is there any more."""
        names = read_field(request, "names", list)
        if not all(isinstance(name, str) for name in names):
            raise QueryError("The request has a name that is no text.")
        first = names[:NUM_COPIES]
        known = [name for name in first if self.searcher.table.embedding(name) is not None]
        if not known:
            raise QueryError(NOT_THERE)
        html = render(
            "copies",
            names=known,
            num_more=len(names) - len(first),
            num_gone=len(first) - len(known),
            thumbnail=self.thumbnail,
        )
        return {"html": html}

    def enlarge(self, request: dict) -> dict[str, str]:
        """Shows an image large."""
        image = self.read_known(read_field(request, "name"), LARGE_SIDE)
        return {"source": encode_image(image)}

    def heat_map(self, request: dict) -> dict[str, str]:
        """Shows where in an image a sentence is found."""
        key = read_field(request, "name")
        sentence = read_field(request, "sentence")
        check_text(sentence)
        searcher = self.searcher
        image = self.read_known(key, resizing=searcher.resizing)
        with searcher.encoder.lock:
            image = draw_heat_map(searcher.encoder, image, sentence)
        return {"source": encode_image(image), "message": HEAT_MAP_NOTE}

    def start(self) -> tuple[str, int]:
        """Shows the first images of the collection, where results will be. Returns their number, too."""
        table = self.searcher.table
        names = []
        for rows in table.read(["key"], table.condition()):
            names += rows["key"].to_pylist()
            if len(names) >= self.k:
                break
        names = names[: self.k]
        num_images = count(len(table), "image")
        html = render("start", names=names, num_images=num_images, hint=HINT, thumbnail=self.thumbnail)
        return html, len(names)

    def status(self) -> str:
        """Says what is indexed, or how far that is, and what is left out."""
        update = self.updater.last
        if update is not None and not update.done():
            return self.show_progress()
        table = self.searcher.table
        if update is None and self.searcher.folder is not None and len(table) == 0:
            return self.show_progress()  # the page, when it is opened, looks for images first
        line, *notes = self.searcher.describe()
        alert = ""
        failure = None
        if update is not None:
            failure = update.exception()
        if failure is not None:
            alert = (
                f"The images in {self.searcher.source} could not be indexed: {str(failure) or type(failure).__name__}"
            )
            line = ""
            if len(table):
                line = f"{count(len(table), 'image')} indexed before can be searched."
        return render("status", alert=alert, line=line, notes=notes, unreadable=sorted(table.unreadable))

    def follow(self) -> tuple[str, bool]:
        """
        Returns the status, and whether an update is running, so that the page has to ask again.

        The update is looked at before the status is made: if it ends in between, the page asks once more than it has
        to. The other way round it would show the update as running, and never ask again.
        """
        is_running = self.updater.is_running
        return self.status(), is_running

    def show_progress(self) -> str:
        """Says how far an update is, and what can be searched meanwhile."""
        updater = self.updater
        num_images = len(self.searcher.table)
        line = "Looking ..."
        if updater.num_total:
            line = f"Indexing: {updater.num_done:,} of {count(updater.num_total, 'file')}"
        if num_images:
            line += f" ({count(num_images, 'image')} can be searched)"
        return render("progress", line=line, fraction=updater.num_done / max(1, updater.num_total))

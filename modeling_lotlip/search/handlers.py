# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the search page asks for: HTML for its parts, by the macros of `page.html`."""

import base64
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache
from importlib import resources
from threading import Lock
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..data.images import SAFE_FORMATS, Resizing, UnreadableImageError, read_image
from .arguments import ALL_IMAGES, Filter
from .query import Query, QueryError, draw_heat_map
from .searcher import Searcher, count


# The longer side in pixels of an image among results, and of one alone
THUMBNAIL_SIDE, LARGE_SIDE = 480, 1600
NUM_THUMBNAILS = 2000  # that are kept, some 20 kB each
NUM_COPIES = 100  # that are shown of an image
# Of what a visitor writes: far more than a model reads
MAX_CHARACTERS = 20_000
# What may go wrong with files, the model and memory
PROBLEMS = (MemoryError, OSError, RuntimeError, ValueError)
# What stands where results will be
HINT = "Describe an image, in one sentence or many, or choose an image. The most similar images appear here."
HEAT_MAP_NOTE = "Red: where the model finds it, in the part that it sees."
NOT_THERE = "This image is not in the collection any more. Search again."


def read_resource(name: str) -> str:
    """A file beside this one, such as `page.css`."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def load_macros() -> object:
    """The macros of `page.html`, which escape whatever is filled in."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(read_resource("page.html")).module


def render(macro: str, **values: object) -> str:
    """The HTML of a macro of `page.html`."""
    return str(getattr(load_macros(), macro)(**values))


def encode_image(image: Image.Image) -> str:
    """An image as a data URL: a small one as PNG, which the page shows with its pixels as squares."""
    buffer = io.BytesIO()
    kind = "png" if max(image.size) < 128 else "jpeg"
    image.save(buffer, format=kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def check_length(text: str) -> None:
    """Raises a `QueryError` if a text is longer than a visitor may ask for."""
    if len(text) > MAX_CHARACTERS:
        raise QueryError(f"This text has {len(text):,} characters: the most are {MAX_CHARACTERS:,}.")


def read_field(asked: object, name: str, kind: type = str) -> Any:
    """A field of what `page.js` asks for. Raises a `QueryError` if it is not there: something else has asked."""
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, kind):
        raise QueryError(f"The request has no {name}.")
    return value


class Updater:
    """Updates the index of a searcher in a thread, if it has a folder."""

    def __init__(self, searcher: Searcher):
        self.searcher, self.executor, self.start_lock = searcher, ThreadPoolExecutor(1), Lock()
        self.last: Future | None = None  # update
        self.done, self.total, self.is_stopped = 0, 0, False

    @property
    def is_running(self) -> bool:
        return self.last is not None and not self.last.done()

    def start(self) -> None:
        """Begins an update, unless one is running."""
        with self.start_lock:  # of several pages that are opened at once one begins
            if self.searcher.folder is not None and not self.is_running:
                self.done = self.total = 0
                self.last = self.executor.submit(self.searcher.update, self.report)

    def report(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.is_stopped:
            raise RuntimeError("The update was stopped.")

    def stop(self) -> None:
        """Ends an update that is running; what it has embedded is kept."""
        self.is_stopped = True
        self.executor.shutdown()


class Asked(NamedTuple):
    """What a visitor sees the results of: a query, which images were searched, and how many results are shown."""

    query: Query
    chosen: Filter
    k: int


class Handlers:
    """What the page asks for, for several visitors at once: `k` images of a collection, each by `read` of its key."""

    def __init__(self, searcher: Searcher, read: Callable[[str], dict], k: int):
        self.searcher, self.read, self.k, self.updater = searcher, read, k, Updater(searcher)
        self.encoded = lru_cache(NUM_THUMBNAILS)(self.encode)
        self.upload_lock = Lock()  # one image of a visitor is decoded at a time, which may take half a gigabyte

    def encode(self, key: str, modified: int) -> str:
        """A thumbnail; the time of its file makes a changed one another entry of the cache."""
        return encode_image(read_image(self.read(key), THUMBNAIL_SIDE))

    def thumbnail(self, key: str) -> str | None:
        """The data URL of an image, made smaller; None if it has changed or cannot be read any more."""
        try:
            path = self.read(key)["path"]
            return self.encoded(key, os.stat(path).st_mtime_ns if path and os.path.isfile(path) else 0)
        except (OSError, UnreadableImageError):
            return None

    def read_known(self, key: str, max_side: int | None = None, resizing: Resizing | None = None) -> Image.Image:
        """An image of the collection. Raises a `QueryError` if there is none of the key."""
        if self.searcher.table.embedding(key) is None:
            raise QueryError(NOT_THERE)
        try:
            return read_image(self.read(key), max_side, resizing)
        except UnreadableImageError as error:
            raise QueryError("This image has changed or cannot be read any more: rescan the folder.") from error

    def read_upload(self, path: str) -> Image.Image:
        """The image of a visitor. Raises a `QueryError` if there is none in the file."""
        try:
            with self.upload_lock:
                file = {"path": path, "bytes": None}
                return read_image(file, resizing=self.searcher.resizing, formats=SAFE_FORMATS)
        except UnreadableImageError as error:
            reason = str(error).rstrip(".")
            raise QueryError(f"This file is not an image that can be read: {reason}. Choose another one.") from error

    def search(
        self, text: str, image_path: str | None, folder: str | None, taken_from: str, taken_to: str
    ) -> tuple[str, Asked]:
        """The first results of a description, an image or both, and what is needed for more of them."""
        chosen = Filter.parse(folder, taken_from, taken_to)
        check_length(text)
        image = None if image_path is None else self.read_upload(image_path)
        if self.updater.is_running and len(self.searcher.table) == 0:
            raise QueryError("The first images are still being indexed. Try again in a moment.")
        self.searcher.count(chosen)
        return self.show(Asked(self.searcher.embed(text, image), chosen, self.k))

    def similar(self, name: str) -> tuple[str, Asked]:
        """The images that are most similar to one of the collection."""
        embedding = self.searcher.table.embedding(name)
        if embedding is None:
            raise QueryError(NOT_THERE)
        return self.show(Asked(Query(embedding), ALL_IMAGES, self.k))

    def more(self, asked: Asked) -> tuple[str, Asked]:
        """As many further results below those that are shown."""
        return self.show(asked._replace(k=asked.k + self.k))

    def show(self, asked: Asked) -> tuple[str, Asked]:
        results = self.searcher.search(asked.query, asked.k + 1, asked.chosen)
        values = {"results": results[: asked.k], "has_more": len(results) > asked.k, "is_first": asked.k == self.k}
        values |= {"num_images": count(self.searcher.count(asked.chosen), "image"), "time": time.time_ns()}
        return render("results", query=asked.query, chosen=asked.chosen, thumbnail=self.thumbnail, **values), asked

    def copies(self, asked: dict) -> dict[str, str]:
        keys, table = list(map(str, read_field(asked, "names", list))), self.searcher.table
        known = [key for key in keys[:NUM_COPIES] if table.embedding(key) is not None]
        if not known:
            raise QueryError(NOT_THERE)
        num_more = max(0, len(keys) - NUM_COPIES)
        return {"html": render("copies", names=known, num_more=num_more, thumbnail=self.thumbnail)}

    def enlarge(self, asked: dict) -> dict[str, str]:
        return {"source": encode_image(self.read_known(read_field(asked, "name"), LARGE_SIDE))}

    def heat_map(self, asked: dict) -> dict[str, str]:
        key, sentence, searcher = read_field(asked, "name"), read_field(asked, "sentence"), self.searcher
        check_length(sentence)
        image = self.read_known(key, resizing=searcher.resizing)
        with searcher.lock:
            image = draw_heat_map(searcher.encoder, image, sentence)
        return {"source": encode_image(image), "message": HEAT_MAP_NOTE}

    def start(self) -> tuple[str, int]:
        """What stands where results will be: the first images of the collection, and their number."""
        table = self.searcher.table
        rows = next(table.read(["key"], table.condition()), None)
        names, options = [] if rows is None else rows["key"].to_pylist()[: self.k], {"thumbnail": self.thumbnail}
        return render("start", names=names, num_images=count(len(table), "image"), hint=HINT, **options), len(names)

    def status(self) -> str:
        """What is indexed, or how far that is, and what is left out."""
        table, updater, update = self.searcher.table, self.updater, self.updater.last
        images = count(len(table), "image")
        if update is not None and not update.done():
            line = f"Indexing: {updater.done:,} of {count(updater.total, 'image')}" if updater.total else "Looking ..."
            line += f" ({images} can be searched)" if len(table) else ""
            return render("progress", line=line, share=updater.done / max(1, updater.total))
        alert, (line, *notes) = "", self.searcher.describe()
        if update is not None and (problem := update.exception()) is not None:
            problem = str(problem) or type(problem).__name__
            alert = f"The images in {self.searcher.place} could not be indexed: {problem}"
            line = f"{images} indexed before can be searched." if len(table) else ""
        return render("status", alert=alert, line=line, notes=notes, unreadable=sorted(table.unreadable))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A model and a collection, for several visitors at once. `page.py` makes a page of it."""

import secrets
import time
from collections import OrderedDict
from functools import lru_cache
from threading import Lock, Thread
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import Resizing, UnreadableImageError
from ..embedding.table import EmbeddingTable
from ..terminal import progress_bar
from .filters import EVERYTHING, Filter
from .pictures import PictureFolder, PictureRows, encode_picture
from .query import Query, QueryError, Result, draw_heat_map, embed_query, read_query_image, search_table
from .update import Changes, update_table
from .zero_shot import Label, classify_image


# Of a picture among results, and of one alone: the longer side in pixels
PICTURE_SIDE, WINDOW_SIDE = 480, 1600
# So many pictures are kept as they are shown, some 20 kB each
NUM_THUMBNAILS = 2000
# So many queries are remembered, of which more results can be asked for
NUM_QUERIES = 1000
# Results of a query that can be asked for
MAX_SHOWN = 5_000
# Of what a visitor writes: far more than a model reads
MAX_CHARACTERS = 20_000

# What may go wrong with files, the model and memory, whoever is at fault
PROBLEMS = (MemoryError, OSError, RuntimeError, ValueError)


def check_length(*texts: str) -> None:
    """Raises a `QueryError` if a text is longer than a visitor may ask for."""
    for text in texts:
        if len(text) > MAX_CHARACTERS:
            raise QueryError(f"This text has {len(text):,} characters: the most are {MAX_CHARACTERS:,}.")


class Status(NamedTuple):
    """
    What a searcher does.

    Args:
        is_updating (`bool`):
            Whether it works on the index.
        done, total (`int`):
            So many of so many pictures are indexed then.
        problem (`str`, *optional*):
            What went wrong before.
        is_speeding_up (`bool`, *optional*, defaults to `False`):
            Whether all are, and the search in them is made fast.
    """

    is_updating: bool
    done: int
    total: int
    problem: str | None
    is_speeding_up: bool = False


class Answer(NamedTuple):
    """
    What was found, from a rank on.

    Args:
        query (`Query`):
            What was searched for.
        those ([`Filter`]):
            Which pictures were searched.
        results (`list[Result]`):
            What was found.
        key (`str`):
            By which more of it can be asked for.
        has_more (`bool`):
            Whether there is more.
    """

    query: Query
    those: Filter
    results: list[Result]
    key: str
    has_more: bool


class Searcher:
    """
    A model and a collection, for several visitors at once: updates run in a thread of their own, and searches use what
    is indexed then.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        table (`EmbeddingTable`):
            Its embeddings: see [`find_table`].
        is_kept (`bool`, *optional*, defaults to `True`):
            Whether the table is to be kept up to date.
        splitter (`str`, *optional*, defaults to `"sentences"`):
            How the sentences of a query are split: see [`split_sub_captions`].
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures in a batch of an update.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        pictures: PictureFolder | PictureRows,
        table: EmbeddingTable,
        *,
        is_kept: bool = True,
        splitter: str = "sentences",
        max_length: int | None = None,
        batch_size: int = 64,
    ):
        self.model, self.processor, self.pictures, self.table = model, processor, pictures, table
        self.is_kept, self.batch_size = is_kept, batch_size
        self.resizing = None if pictures.exact_decoding else Resizing.of(processor.image_processor)
        self.splitter, self.max_length = splitter, max_length
        self.changes = Changes(0, 0, 0)
        self.model_lock, self.update_lock, self.start_lock = Lock(), Lock(), Lock()
        self.upload_lock = Lock()  # one picture of a visitor is decoded at a time, which may take half a gigabyte
        self.status = Status(False, 0, 0, None)
        self.last_look = float("-inf")
        self.is_stopped = False
        self.thread = None
        self.encoded = lru_cache(NUM_THUMBNAILS)(self.encode)
        self.asked, self.asked_lock = OrderedDict(), Lock()

    def update(self) -> None:
        """Makes the index that of the collection as it is now, with a progress bar in the terminal."""
        with self.update_lock, progress_bar(desc="Indexing", unit=" pictures", delay=1) as progress:

            def report(done: int, total: int) -> bool:
                self.status = Status(True, done, total, None)
                progress.total = total
                progress.update(done - progress.n)
                return self.is_stopped

            def announce() -> None:
                self.status = self.status._replace(is_speeding_up=True)

            self.status, problem = Status(True, 0, 0, None), None
            try:
                self.changes = Changes(0, 0, 0)
                self.changes = update_table(
                    self.table,
                    self.pictures,
                    self.model,
                    self.processor,
                    self.batch_size,
                    report,
                    announce,
                    self.model_lock,
                    num_workers=None,
                )
            except PROBLEMS as error:  # the page says it
                problem = str(error) or type(error).__name__
            finally:
                self.last_look = time.monotonic()
                self.status = self.status._replace(is_updating=False, problem=problem)

    def start_update(self, min_seconds_ago: float = 0) -> None:
        """
        Begins an update, unless one is running, the last one ended less than some seconds ago, or the embeddings were
        made elsewhere.
        """
        with self.start_lock:  # of several pages that are opened at once one begins
            is_running = self.thread is not None and self.thread.is_alive()
            is_recent = time.monotonic() - self.last_look < min_seconds_ago
            if self.is_kept and not is_running and not is_recent:
                self.status = Status(True, 0, 0, None)
                self.thread = Thread(target=self.update, daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """Ends an update that is running; what it has embedded is kept."""
        self.is_stopped = True
        if self.thread is not None:
            self.thread.join()

    def thumbnail(self, name: str) -> str | None:
        """The address of a picture of the index, made smaller; None where it cannot be read any more."""
        try:
            return self.encoded(name, frozenset(self.pictures.signature(name).items()), PICTURE_SIDE)
        except (OSError, UnreadableImageError):
            return None

    def encode(self, name: str, signature: frozenset, max_side: int) -> str:
        """The address of an image; the signature makes a changed file another entry of the cache."""
        return encode_picture(self.pictures.read(name, max_side))

    def enlarge(self, name: str) -> str:
        """The address of a picture of the collection as large as a window."""
        return encode_picture(self.read(name, WINDOW_SIDE))

    def read(self, name: str, max_side: int | None = None, resizing: Resizing | None = None) -> Image.Image:
        """A picture of the collection. Raises a `QueryError` if there is none of the name."""
        if name not in self.table:
            raise QueryError("This picture is not in the collection any more. Search again.")
        try:
            return self.pictures.read(name, max_side, resizing)
        except UnreadableImageError as error:
            raise QueryError("This picture cannot be read any more.") from error

    def read_upload(self, path: str | None, resizing: Resizing | None = None) -> Image.Image | None:
        """The picture that a visitor chose, if there is one."""
        if path is None:
            return None
        with self.upload_lock:
            return read_query_image(path, resizing)

    def search(self, text: str, image_path: str | None, k: int, those: Filter = EVERYTHING) -> Answer:
        """The first results. Raises a `QueryError` if there is nothing to search for, or to search in."""
        check_length(text)
        image = self.read_upload(image_path, self.resizing)
        if len(self.table) == 0:
            if self.status.is_updating:
                raise QueryError("The first pictures are still being indexed. Try again in a moment.")
            raise QueryError("Nothing is indexed yet: put pictures into the folder, then look for changes.")
        if those != EVERYTHING and self.table.count(where=those.condition) == 0:
            raise QueryError(f"There are no pictures {those}: choose another folder or other days.")
        with self.model_lock:
            query = embed_query(
                self.model,
                self.processor,
                text,
                image,
                self.max_length,
                self.splitter,
            )
        return self.answer(query, those, k)

    def answer(self, query: Query, those: Filter, k: int) -> Answer:
        """The first results of a query, which is remembered."""
        key = secrets.token_urlsafe(16)
        with self.asked_lock:
            self.asked[key] = query, those
            if len(self.asked) > NUM_QUERIES:
                self.asked.popitem(last=False)
        return self.find(key, query, those, 0, k)

    def more(self, key: str, start: int, k: int) -> Answer:
        """The results of a query after so many. Raises a `QueryError` if it is not remembered any more."""
        if not 0 <= start <= min(len(self.table), MAX_SHOWN):
            raise QueryError("There are no more results.")
        with self.asked_lock:
            if key not in self.asked:
                raise QueryError("This search is too long ago. Search again.")
            self.asked.move_to_end(key)
            query, those = self.asked[key]
        return self.find(key, query, those, start, k)

    def find(self, key: str, query: Query, those: Filter, start: int, k: int) -> Answer:
        """So many results after the first ones."""
        results = search_table(self.table, query, start + k + 1, those)
        return Answer(query, those, results[start : start + k], key, len(results) > start + k)

    def browse(self, k: int) -> list[str]:
        """The first images of the collection."""
        rows = next(self.table.read(["key"], self.table.condition()), None)
        return [] if rows is None else rows["key"].to_pylist()[:k]

    def similar(self, name: str, k: int) -> Answer:
        """The pictures that are most similar to one of the collection, itself first."""
        embedding = self.table.embedding(name)
        if embedding is None:
            raise QueryError("This picture is not in the collection any more. Search again.")
        return self.answer(Query(embedding, [], torch.empty(0, 0)), EVERYTHING, k)

    def heat_map(self, name: str, sentence: str) -> Image.Image:
        """Where in a picture of the collection a sentence is found."""
        check_length(sentence)
        image = self.read(name, resizing=self.resizing)
        with self.model_lock:
            return draw_heat_map(self.model, self.processor, image, sentence, self.max_length)

    def classify(self, image_path: str | None, labels: str, template: str) -> list[Label]:
        """Raises a `QueryError` if there is something missing."""
        check_length(labels, template)
        image = self.read_upload(image_path)
        with self.model_lock:
            return classify_image(self.model, self.processor, image, labels, template, self.max_length)

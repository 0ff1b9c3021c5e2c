# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A model and a collection of images, as the command and the page search it."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import Resizing
from ..embedding.models import load_model
from ..embedding.table import EmbeddingTable
from ..terminal import progress_bar
from .arguments import IndexArguments, SearchModelArguments
from .filters import ALL_IMAGES, Filter
from .index import Changes, find_table, open_table, update_table
from .query import Query, QueryError, Result, choose_splitter, embed_query, search_table


class Searcher:
    """
    A model and a collection of images. Several threads may use it at once.

    Args:
        model (`PreTrainedModel`), processor (`ProcessorMixin`):
            A dual encoder and its processor.
        table (`EmbeddingTable`):
            The embeddings of the collection.
        folder (`Path`, *optional*):
            The folder that the table is the index of: see [`find_table`]. Default: the table is searched as it is.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch of an update.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        table: EmbeddingTable,
        folder: Path | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
    ):
        self.model, self.processor, self.table, self.folder = model, processor, table, folder
        self.max_length, self.batch_size = max_length, batch_size
        source = table.settings.get("source")
        self.place = str(folder or (source if isinstance(source, str) else table.folder))
        self.splitter = table.settings.get("sub_caption_splitter") or choose_splitter()
        self.resizing = None if table.settings.get("exact_decoding") else Resizing.of(processor.image_processor)
        self.lock = Lock()  # the model computes for one thread at a time
        self.changes = Changes()

    def update(self, report: Callable[[int, int], object] = lambda done, total: None, wait: bool = False) -> Changes:
        """
        Makes the index that of its folder as it is now, with a progress bar: see [`update_table`]. The `changes` of
        the last update are kept.
        """
        with progress_bar(desc="Indexing", unit=" images", delay=1) as progress:

            def show(done: int, total: int) -> None:
                progress.total = total
                progress.update(done - progress.n)
                report(done, total)

            self.changes = Changes()
            collection, options = (self.table, self.folder, self.model, self.processor), {"lock": self.lock}
            self.changes = update_table(*collection, self.batch_size, show, num_workers=None, wait=wait, **options)
        return self.changes

    def embed(self, text: str, image: Image.Image | None = None) -> Query:
        """A description, an image or both as a query: see [`embed_query`]."""
        with self.lock:
            return embed_query(self.model, self.processor, text, image, self.max_length, self.splitter)

    def search(self, query: Query, k: int = 5, chosen: Filter = ALL_IMAGES, **options: object) -> list[Result]:
        """The results of a query, the most similar first: see [`search_table`]."""
        return search_table(self.table, query, k, chosen, **options)

    def count(self, chosen: Filter = ALL_IMAGES, kind: str = "image") -> int:
        """
        How many images or captions are searched.

        Raises:
            `QueryError`: if there is none.
        """
        num = self.table.count(kind, chosen.condition)
        if num == 0 and chosen != ALL_IMAGES:
            told = f"The folders in the collection: {', '.join(self.table.folders[:20]) or 'none'}"
            if chosen.folder is None:
                num_dated = self.table.count(kind, "taken IS NOT NULL")
                told = f"Images with a date in the collection: {num_dated:,} of {self.table.count(kind):,}"
            raise QueryError(f"There are no images {chosen}. {told}.")
        if num == 0 and self.folder is None:
            raise QueryError(f"{self.table.folder} holds no embeddings of kind {kind}: search for another --kind.")
        if num == 0:
            raise QueryError(f"There is no image in {self.place}. Put images into it, such as JPEG, PNG or WebP.")
        return num

    def describe(self) -> list[str]:
        """Sentences on what is searched, what the last update has changed, and which other files there are."""
        lines = [f"{count(len(self.table), 'image')} in {self.place}{self.table.describe_search()}."]
        changes = [f"{number:,} {name}" for name, number in zip(Changes._fields, self.changes[:3]) if number]
        lines += [f"Updated: {', '.join(changes)}."] if changes else []
        return lines + self.changes.left_out


def count(number: int, what: str) -> str:
    """Such as "1 image" or "1,200 images"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def open_searcher(index: IndexArguments, arguments: SearchModelArguments) -> Searcher:
    """
    The model and the collection that arguments name.

    Raises:
        `ValueError`: if they are not there, or the embeddings are of another model.
    """
    folder = None if index.photos is None else Path(index.photos)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name the folder of your images.")
    table = open_table(index.embeddings_dir, arguments)
    model, processor = load_model(arguments.model_name_or_path, arguments)
    if folder is not None:
        table = find_table(folder, model, processor, index.index_dir)
    else:
        table.check_model(model, processor)
    return Searcher(model, processor, table, folder, arguments.max_length, arguments.batch_size)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A model and a collection of images, as the command and the page search it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ..data.reader import RowInfo
from ..data.rows import batched
from ..encoder.batches import EmbeddedBatch, RowCollator, TableReader, collate_rows, embed_rows
from ..encoder.dual_encoder import DualEncoder, load_encoder
from ..table.embed import describe_missing, embed_background, write_batches
from ..table.storage import EmbeddingTable
from ..utils.sub_captions import mark_query, split_sub_captions
from ..utils.terminal import progress_bar
from .arguments import ALL_IMAGES, Filter, IndexArguments, SearchModelArguments
from .index import Changes, compare, find_table, open_table
from .query import Query, QueryError, count_read_words, find_unknown_words


class Result(NamedTuple):
    """An image or caption that was found."""

    key: str  # of the image
    position: int  # of a caption, in its column; 0 for an image
    similarity: float  # the cosine similarity with the query
    is_below_threshold: bool = False  # no more similar than what texts find that fit no image: see `Measurements`
    sentence_similarities: list[float] = []  # the cosine similarity with each sentence of the query alone
    copies: list["Result"] = []  # images that are nearly the same, and less similar to the query


class Searcher:
    """
    A dual encoder and a table of embeddings, which is searched as it is, or is the index of a `folder` and follows its
    files: see [`find_table`]. Several threads may use it at once.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        table: EmbeddingTable,
        folder: Path | None = None,
        batch_size: int = 64,
    ):
        self.encoder = encoder
        self.table = table
        self.folder = folder
        self.batch_size = batch_size
        source = table.settings.get("source")
        self.place = str(folder or (source if isinstance(source, str) else table.folder))
        self.resizing = encoder.preprocessing.resizing
        self.changes = Changes()  # of the last update

    def update(self, report: Callable[[int, int], object] = lambda done, total: None, wait: bool = False) -> Changes:
        """
        Makes the index that of its folder as it is now: see [`compare`]. Whatever ends an update, an error of `report`
        or Ctrl-C, what was embedded until then is kept. If another program updates the index, this one may `wait`.
        """
        self.changes = Changes()
        with self.table.writing(wait, "index_dir"), progress_bar(desc="Indexing", unit=" images", delay=1) as progress:
            pending, obsolete, changes = compare(self.table, self.folder)
            self.table.delete(obsolete)
            images = (
                (RowInfo(None, name, about=about), {"image": {"path": str(self.folder / name), "bytes": None}})
                for name, about in sorted(pending.items())
            )

            def follow(results: Iterator[EmbeddedBatch]) -> Iterator[list[EmbeddedBatch]]:
                done, progress.total = 0, len(pending)
                report(done, len(pending))
                for part in results:
                    yield [part]
                    num = len(part.entries) + len(part.unreadable)
                    done += num
                    progress.update(num)
                    report(done, len(pending))

            reader = TableReader(["image"], resizing=self.resizing)
            collate = RowCollator(self.encoder.preprocessing, reader)
            batches = collate_rows(collate, batched(images, self.batch_size), None)
            results = embed_rows(self.encoder, batches, num_prefetched=2)
            with closing(results):
                write_batches(follow(results), self.table.append)
            self.table.maintain(self.embed_background)
        self.changes = changes
        return changes

    def embed_background(self) -> torch.Tensor:
        """Returns the normalized embeddings, of shape `(texts, dim)`, of texts that fit no image."""
        return embed_background(self.encoder)

    def embed(self, text: str, image: Image.Image | None = None) -> Query:
        """
        A description, an image or both as a query: the mean of both normalised embeddings, normalised. Several
        sentences are joined, as long captions in evaluation. Raises a `QueryError` if the model knows nothing of it.
        """
        preprocessing = self.encoder.preprocessing
        sentences = split_sub_captions(text, self.table.splitter)
        embeds = []
        query = Query(torch.empty(0))
        if sentences:
            unknown_words = find_unknown_words(preprocessing, text)
            whole = mark_query(text, self.table.splitter)
            embeds.append(self.encoder.embed_texts(preprocessing.tokenize([whole]).inputs)[0])
            words = whole.split()
            alone = self.encoder.encode_text(sentences, convert_to_tensor=True)
            num_read = count_read_words(preprocessing, words)
            query = Query(embeds[0], words, num_read, unknown_words, sentences, alone, is_text=image is None)
        if image is not None:
            embeds.append(self.encoder.embed_images(preprocessing.prepare_images([image]))[0])
        if not embeds:
            raise QueryError("There is nothing to search for yet: describe an image, choose one, or both.")
        return query._replace(embedding=torch.nn.functional.normalize(torch.stack(embeds).mean(dim=0), dim=0))

    def search(
        self, query: Query, k: int = 5, chosen: Filter = ALL_IMAGES, kind: str = "image", all_copies: bool = False
    ) -> list[Result]:
        """At most `k` results, the most similar first; images that are nearly the same are one, or separate ones."""
        if all_copies:
            found = self.table.search(query.embedding, k, kind, chosen.condition)
            groups = [found.take([place]) for place in range(len(found.keys))]
        else:
            groups = self.table.search_groups(query.embedding, k, kind, chosen.condition)
        measured, results = self.table.measured(kind), []
        threshold = measured.score_threshold if query.is_text and measured is not None else -1.0
        for group in groups:
            first, *copies = map(Result, group.keys, group.positions, group.similarities.tolist())
            alone = (query.sentence_embeds @ group.embeds[0]).tolist() if query.sentences else []
            first = first._replace(is_below_threshold=first.similarity < threshold, copies=copies)
            results.append(first._replace(sentence_similarities=alone))
        return results

    def count(self, chosen: Filter = ALL_IMAGES, kind: str = "image") -> int:
        """How many images or captions are searched. Raises a `QueryError` if there is none."""
        num = self.table.count(kind, chosen.condition)
        if num == 0 and chosen != ALL_IMAGES:
            folders, num_dated = ", ".join(self.table.folders[:20]), self.table.count(kind, "taken IS NOT NULL")
            cause = f"The collection has {num_dated:,} images with a date, and the folders: {folders or 'none'}"
            raise QueryError(f"There are no images {chosen}. {cause}.")
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
        return lines + (self.changes.left_out if self.folder is not None else describe_missing(self.table))


def count(number: int, what: str) -> str:
    """Such as "1 image" or "1,200 images"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def open_searcher(index: IndexArguments, arguments: SearchModelArguments) -> Searcher:
    """The model and the collection that arguments name. Raises a `ValueError` if they are not there, or differ."""
    folder = None if index.photos is None else Path(index.photos)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name the folder of your images.")
    table = open_table(index.embeddings_dir, arguments)
    encoder = load_encoder(arguments.model_name_or_path, arguments)
    encoder.check_single_embeddings()
    if folder is not None:
        table = find_table(folder, encoder, index.index_dir)
    else:
        table.check_model(encoder)
    return Searcher(encoder, table, folder, arguments.batch_size)

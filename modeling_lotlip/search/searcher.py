# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A dual encoder and a collection of images, as the command and the page search it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ..data.images import SAFE_FORMATS
from ..data.reader import RowInfo
from ..data.rows import batched
from ..encoder.batches import EmbeddedBatch, RowCollator, TableReader, collate_rows, embed_rows
from ..encoder.dual_encoder import DualEncoder
from ..table.copies import search_groups
from ..table.embed import describe_missing, embed_background, load_encoder_of_table, write_batches
from ..table.measurements import Measurements, read_measurements
from ..table.reuse import Source, copy_rows, find_sources, list_tables_of_same_model
from ..table.storage import EmbeddingTable
from ..table.thresholds import has_other_count, maintain, measure_for_now
from ..table.vector_index import describe_recall, search
from ..utils.files import is_gone
from ..utils.integers import check_integer
from ..utils.sub_captions import mark_query, split_sub_captions
from ..utils.terminal import announce, printable, progress_bar
from ..utils.texts import is_unicode
from .arguments import ALL_IMAGES, Filter, IndexArguments, SearchModelArguments
from .index import (
    Changes,
    Comparison,
    check_folder_exists,
    compare,
    describe_orphans,
    find_table,
    load_encoder_of_folder,
    open_table,
)
from .query import Query, QueryError, count_read_words, find_unknown_words


logger = logging.getLogger(__name__)

# How far an update is: images that are done, and all
Report = Callable[[int, int], object]


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
    A dual encoder and a table of embeddings, which is searched as it is, or is the index of a folder and follows its
    files. Several threads may use it at once.

    Args:
        encoder ([`DualEncoder`]):
            Embeds the queries, and the images of the folder.
        table ([`EmbeddingTable`]):
            What is searched.
        folder (`Path`, *optional*):
            The folder of images whose index the table is: see [`find_table`].
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        table: EmbeddingTable,
        folder: Path | None = None,
        batch_size: int = 64,
    ):
        check_integer("batch_size", batch_size, 1)
        self.encoder = encoder
        self.table = table
        self.folder = folder
        self.batch_size = batch_size
        self.source = str(folder or table.folder)
        if folder is None and isinstance(table.settings.get("source"), str):
            self.source = table.settings["source"]
        self.resizing = encoder.preprocessing.resizing
        self.changes = Changes()  # of the last update
        self.background: torch.Tensor | None = None
        self.measured_for_now: dict[str, Measurements] = {}

    def update(self, report: Report = lambda done, total: None, wait: bool = False) -> Changes:
        """
        Makes the index that of its folder as it is now. Files whose content was embedded before, under another name or
        in another folder, keep their embeddings. Whatever ends an update, an error of `report` or Ctrl-C, what was
        embedded until then is kept.

        Args:
            report (`Callable[[int, int], object]`, *optional*):
                Is called with how many images are embedded and how many are to be.
            wait (`bool`, *optional*, defaults to `False`):
                Whether to wait for another program that updates the index.

        Returns:
            [`Changes`]: what was changed.

        Raises:
            `FolderInUseError`: if another program updates the index.
            `FileNotFoundError`: if the folder, or all images in it, are gone.
        """
        self.changes = Changes()
        with self.table.writing(wait, "index_dir"):
            unreadable_before = self.table.unreadable.keys()
            self.table.add_missing_columns()
            found = compare(self.table, self.folder)
            sources = self.find_embeddings(found, report)
            written = copy_rows(self.table, sources, found.signatures)
            pending = {key: signature for key, signature in found.signatures.items() if key not in written}
            moved_away = {
                source.key
                for source in sources.values()
                if source.table is self.table and is_gone(self.folder / source.key)
            }
            # of changed and retried files the old rows go, before the new ones are written
            self.table.delete([*found.gone, *moved_away, *(pending.keys() - found.new.keys())])
            self.embed_files(pending, report)
            check_folder_exists(self.folder)  # else what it had is now counted as images that cannot be read
            maintain(self.table, self.embed_background)
        own = {key: source.key for key, source in sources.items() if source.table is self.table}
        moved = {key for key in written if own.get(key) != key}
        moved_from = {own[key] for key in moved & found.new.keys() & own.keys()}
        unreadable = self.table.unreadable.keys()
        embedded = pending.keys() - unreadable
        self.changes = Changes(
            new=len(embedded & found.new.keys()),
            moved=len(moved),
            changed=len(embedded - found.new.keys()),
            unreadable=len((pending.keys() & unreadable) - found.retried.keys()),
            deleted=len(set(found.gone) - moved_from - unreadable_before),
            left_out=found.left_out,
        )
        return self.changes

    def find_embeddings(self, found: Comparison, report: Report) -> dict[str, Source]:
        """Finds the embeddings of new and changed files whose content this index has, or another one of the model."""
        files = {**found.changed, **found.new}
        tables = [self.table]
        if found.new:
            tables += list_tables_of_same_model(self.table)
        with progress_bar(desc="Comparing", unit=" files", delay=1) as progress:

            def follow() -> None:
                progress.update()
                report(0, 0)  # it is not known yet what is to be embedded, but a report may end the update

            sizes = {name: signature["size"] for name, signature in sorted(files.items())}
            return find_sources(tables, self.folder, sizes, follow)

    def embed_files(self, pending: dict[str, dict[str, int]], report: Report) -> None:
        """Embeds files, of which the signatures are given, and writes what is embedded as it comes."""
        rows = []
        for name, signature in sorted(pending.items()):
            image = {"path": str(self.folder / name), "bytes": None}
            rows.append((RowInfo(None, name, file_facts=signature), {"image": image}))
        reader = TableReader(["image"], formats=SAFE_FORMATS, resizing=self.resizing)
        collate = RowCollator(self.encoder.preprocessing, reader)
        batches = collate_rows(collate, batched(rows, self.batch_size), None)
        results = embed_rows(self.encoder, batches, num_prefetched=2)
        progress = progress_bar(total=len(pending), desc="Indexing", unit=" files", delay=1)
        with progress, closing(results):

            def follow() -> Iterator[list[EmbeddedBatch]]:
                done = 0
                report(done, len(pending))
                for part in results:
                    yield [part]
                    count = len(part.entries) + len(part.unreadable)
                    done += count
                    progress.update(count)
                    report(done, len(pending))

            write_batches(follow(), self.table.append, self.encoder.model)

    def embed_background(self) -> torch.Tensor:
        """Computes the normalized embeddings, of shape `(texts, dim)`, by which the index is measured."""
        return embed_background(self.encoder)

    def embed(self, text: str, image: Image.Image | None = None) -> Query:
        """
        Embeds a description, an image or both as a query: the mean of both normalized embeddings, normalized. Several
        sentences are joined, as long captions in evaluation. Raises a `QueryError` if it is no Unicode text, or the
        model knows nothing of it.
        """
        if not is_unicode(text):
            raise QueryError(
                "The text is not in the encoding of this terminal, or no Unicode text: write it in UTF-8."
            )
        sentences = split_sub_captions(text, self.table.splitter)
        query = Query(torch.empty(0))  # of an image alone, which has no words; the embedding comes below
        embeds = []
        if sentences:
            query = self.embed_text(text, sentences, is_alone=image is None)
            embeds.append(query.embedding)
        if image is not None:
            inputs = self.encoder.preprocessing.prepare_images([image])
            embeds.append(self.encoder.embed_images(inputs)[0])
        if not embeds:
            raise QueryError("There is nothing to search for yet: describe an image, choose one, or both.")
        mean = torch.stack(embeds).mean(dim=0)
        return query._replace(embedding=torch.nn.functional.normalize(mean, dim=0))

    def embed_text(self, text: str, sentences: list[str], is_alone: bool) -> Query:
        """Embeds a description, without an image if it `is_alone`."""
        preprocessing = self.encoder.preprocessing
        unknown_words = find_unknown_words(preprocessing, text)
        whole = mark_query(text, self.table.splitter)
        (embedding,) = self.encoder.embed_texts(preprocessing.tokenize([whole]).inputs)
        num_read = count_read_words(preprocessing, whole.split())
        alone = self.encoder.encode_text(sentences, convert_to_tensor=True)
        return Query(embedding, whole.split(), num_read, unknown_words, sentences, alone, is_alone)

    def search(
        self,
        query: Query,
        k: int = 5,
        chosen: Filter = ALL_IMAGES,
        kind: str = "image",
        all_copies: bool = False,
    ) -> list[Result]:
        """
        Finds what is most similar to a query.

        Args:
            query ([`Query`]):
                What is searched for.
            k (`int`, *optional*, defaults to 5):
                The max number of results.
            chosen ([`Filter`], *optional*):
                Which images are searched. Default: all.
            kind (`str`, *optional*, defaults to `"image"`):
                What is searched: `"image"`, `"short"` or `"long"`.
            all_copies (`bool`, *optional*, defaults to `False`):
                Whether images that are nearly the same are separate results.

        Returns:
            `list[Result]`: the results, the most similar first.
        """
        check_integer("k", k, 1)
        measured = self.find_measurements(kind)
        if all_copies:
            found = search(self.table, query.embedding, k, kind, chosen.condition)
            groups = [found.take([index]) for index in range(len(found.keys))]
        else:
            groups = search_groups(self.table, query.embedding, k, kind, chosen.condition, measured)
        threshold = -1.0
        if query.is_text and measured is not None:
            threshold = measured.score_threshold
        results = []
        for group in groups:
            first, *copies = map(Result, group.keys, group.positions, group.similarities.tolist())
            alone = []
            if query.sentences:
                alone = (query.sentence_embeds @ group.embeds[0]).tolist()
            is_weak = first.similarity < threshold
            results.append(first._replace(is_below_threshold=is_weak, copies=copies, sentence_similarities=alone))
        return results

    def find_measurements(self, kind: str) -> Measurements | None:
        """
        Finds what is measured of a kind; None if there are no embeddings. Where a program still writes the first ones,
        nothing is: then those that are there are measured now, and again when many more have come.
        """
        measured = read_measurements(self.table, kind)
        if measured is not None:
            return measured
        num_rows = self.table.count(kind)
        if num_rows == 0:
            return None
        measured = self.measured_for_now.get(kind)
        if measured is None or has_other_count(measured, num_rows):
            if self.background is None:
                self.background = self.embed_background().float().cpu()
            measured = measure_for_now(self.table, kind, self.background)
            self.measured_for_now[kind] = measured
        return measured

    def count(self, chosen: Filter = ALL_IMAGES, kind: str = "image") -> int:
        """Counts the images or captions that are searched. Raises a `QueryError` if there is none."""
        num = self.table.count(kind, chosen.condition)
        if num == 0 and chosen != ALL_IMAGES:
            folders = ", ".join(self.table.folders[:20]) or "none"
            num_dated = self.table.count(kind, "taken IS NOT NULL")
            raise QueryError(
                f"There are no {name_kind(kind)}s {chosen}. The collection has "
                f"{count(num_dated, name_kind(kind))} with a date, and the folders: {folders}."
            )
        if num == 0 and self.folder is None:
            raise QueryError(f"{self.table.folder} holds no embeddings of kind {kind}: search for another --kind.")
        if num == 0:
            raise QueryError(f"There is no image in {self.source}. Put images into it, such as JPEG, PNG or WebP.")
        return num

    def describe(self, chosen: Filter = ALL_IMAGES, kind: str = "image") -> list[str]:
        """
        Describes what is searched, and how well, what the last update has changed, and which other files there are, in
        sentences.
        """
        searched = count(self.table.count(kind), name_kind(kind))
        if chosen == ALL_IMAGES:
            lines = [f"{searched} in {self.source}{describe_recall(self.table, kind)}."]
        else:
            num = self.table.count(kind, chosen.condition)
            recall = describe_recall(self.table, kind, chosen.condition)
            verb = "is" if num == 1 else "are"
            lines = [f"{searched} in {self.source}, of which {num:,} {verb} {chosen}{recall}."]
        lines += self.describe_undated(chosen, kind)
        changes = [
            f"{number:,} {what}"
            for number, what in (
                (self.changes.new, "new"),
                (self.changes.moved, "moved or copied"),
                (self.changes.changed, "changed"),
                (self.changes.unreadable, "that cannot be read"),
                (self.changes.deleted, "deleted"),
            )
            if number > 0
        ]
        if changes:
            lines.append(f"Updated: {', '.join(changes)}.")
        if self.folder is not None:
            return lines + self.changes.left_out
        return lines + describe_missing(self.table)

    def count_undated(self, chosen: Filter, kind: str = "image") -> int:
        """Counts the images or captions that a filter of days leaves out as their date is not known."""
        if chosen.condition_of_undated is None:
            return 0
        return self.table.count(kind, chosen.condition_of_undated)

    def describe_undated(self, chosen: Filter, kind: str) -> list[str]:
        """Describes in a sentence what a filter of days leaves out as its date is not known, if there is any."""
        num_undated = self.count_undated(chosen, kind)
        if num_undated == 0:
            return []
        return [f"Left out, {count(num_undated, name_kind(kind))} without a date that is known."]


def name_kind(kind: str) -> str:
    """Names one of what is searched: an image, or a short or a long caption."""
    if kind == "image":
        return kind
    return f"{kind} caption"


def count(number: int, what: str) -> str:
    """Writes a number of things, such as "1 image" or "1,200 images"."""
    if number == 1:
        return f"{number:,} {what}"
    return f"{number:,} {what}s"


def open_searcher(index: IndexArguments, arguments: SearchModelArguments) -> Searcher:
    """
    Opens the model and the collection that arguments name, and warns of indices whose folder is gone. Raises a
    `ValueError` if they are not there, or differ.
    """
    folder = None
    if index.photos is not None:
        folder = Path(index.photos)
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: name the folder of your images.")
    table = open_table(index.embeddings_dir, arguments)
    if folder is None:
        encoder = load_encoder_of_table(table, arguments.model_name_or_path, arguments)
    else:
        encoder = load_encoder_of_folder(folder, arguments, index.index_dir)
        encoder.check_single_embeddings()
    announce(f"Computing in {encoder.computation}")
    if folder is not None:
        table = find_table(folder, encoder, index.index_dir)
        for line in describe_orphans(index.index_dir):
            logger.warning(printable(line))
    return Searcher(encoder, table, folder, arguments.batch_size)

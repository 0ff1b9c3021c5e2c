# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Brings the index of a collection up to date."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import Resizing
from ..embedding.rows import EmbeddedItems, RowCollator, embed_rows
from ..embedding.workers import Workers
from .index import LOCK, Index
from .pictures import PictureFolder, PictureReader, PictureRows, Stamp
from .query import embed_background


logger = logging.getLogger(__name__)

# So many pictures are written at once, or fewer after so many seconds: what a killed run loses at most. With the
# embeddings of all tokens they take a hundred times the memory
WRITE_SIZE, WRITE_SIZE_OF_TOKENS, WRITE_SECONDS = 512, 64, 30


class Changes(NamedTuple):
    """How many pictures an update embedded for the first time or again, and dropped."""

    new: int
    changed: int
    deleted: int


def update_index(
    index: Index,
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch_size: int = 64,
    report: Callable[[int, int], bool | None] = lambda done, total: None,
    announce: Callable[[], None] = lambda: None,
    lock: AbstractContextManager | None = None,
    num_workers: int | None = 0,
) -> Changes:
    """
    Makes an index that of a collection as it is now: what is new is embedded, what is gone dropped, and what has
    changed embedded again. What cannot be read is remembered, and tried again when its file changes. What is out of
    reach is kept as it was, and so is everything if there is no picture any more: a disk that is not mounted is an
    empty folder. Whatever ends an update, an error or Ctrl-C, what was embedded until then stays.

    Args:
        index ([`Index`]):
            That of the collection by the model: see [`find_index`].
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures in a batch.
        report (`Callable[[int, int], bool | None]`, *optional*):
            Called with how many pictures are done and how many there are to do; what it returns, if true, stops the
            update with the pictures so far.
        announce (`Callable[[], None]`, *optional*):
            Called when all is done but [`Index.speed_up`], where that is due.
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode, None for as many as fit the machine: see [`Workers`].

    Returns:
        `Changes`: what has changed.

    Raises:
        `OSError`: if another program is making this index, the collection is not there any more, or the index cannot
            be written.
        `ValueError`: if the model's embeddings are not finite.
    """
    try:
        writing = FileLock(index.folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError("another program is indexing them. Look for changes when it is done.") from error
    with writing:
        drop_files_of_before(index.folder)
        pending, changes = prune_index(index, pictures)
        read_row = PictureReader(pictures, Resizing.of(processor.image_processor))
        with Workers(RowCollator(processor, read_row), num_workers) as workers:
            is_stopped = embed_pictures(
                index, pending, model, processor, workers, batch_size, report, lock or nullcontext()
            )
        if any(changes):
            index.tidy()
        if index.are_levels_due and not is_stopped:
            with lock or nullcontext():
                background = embed_background(model, processor)
            index.measure_levels(background)
        if index.is_due and not is_stopped:
            announce()
            index.speed_up()
    return changes


def drop_files_of_before(folder: Path) -> None:
    """Deletes what earlier versions of this program left in the folder of an index, which is rebuilt."""
    old = [path for name in ("embeddings-*.parquet", "pictures-*.json") for path in folder.glob(name)]
    if old:
        logger.warning(f"The index in {folder} is of an earlier version of this program: it is rebuilt.")
        for path in old:
            path.unlink()


def prune_index(index: Index, pictures: PictureFolder | PictureRows) -> tuple[dict[str, Stamp], Changes]:
    """
    Drops pictures that are no longer there, and returns those that are to be embedded with their stamps, and what
    changes.
    """
    pending = pictures.scan()
    is_there, num_stored, num_changed, gone = bool(pending), 0, 0, []
    for name, stamp in index.read_stamps():
        num_stored += 1
        if name not in pending:
            if not pictures.is_out_of_reach(name):
                gone.append(name)
        elif pending[name] == stamp:
            del pending[name]
        else:
            num_changed += 1
    if num_stored and num_stored == len(gone) and not is_there:
        raise FileNotFoundError(
            f"there is no picture any more. The {num_stored:,} that were indexed are kept; to forget them, delete "
            f"{index.folder}."
        )
    index.delete(gone)
    return pending, Changes(len(pending) - num_changed, num_changed, len(gone))


def embed_pictures(
    index: Index,
    pending: dict[str, Stamp],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    workers: Workers,
    batch_size: int,
    report: Callable[[int, int], bool | None],
    lock: AbstractContextManager,
) -> bool:
    """Adds pictures, given with their stamps, to an index: see [`update_index`]. Whether it was stopped."""
    names, num_done = sorted(pending), 0
    if report(0, len(names)):
        return True
    batches = ([(name, None) for name in names[row : row + batch_size]] for row in range(0, len(names), batch_size))
    write_size = WRITE_SIZE_OF_TOKENS if index.of_tokens else WRITE_SIZE
    rows, written_at = [], time.monotonic()
    with closing(embed_rows(model, processor, workers.map(batches), num_prefetched=2, lock=lock)) as results:
        try:
            for part in results:
                rows += make_rows(part, pending)
                num_done += len(part.items) + len(part.unreadable)
                if report(num_done, len(names)):
                    return True
                if len(rows) >= write_size or time.monotonic() - written_at >= WRITE_SECONDS:
                    written, rows = rows, []
                    index.write(written)
                    written_at = time.monotonic()
        finally:  # whatever ends it, what is embedded stays
            if rows:
                index.write(rows)
    return False


def make_rows(embedded: EmbeddedItems, stamps: dict[str, Stamp]) -> list[dict]:
    """
    The rows of an index, of pictures that are embedded and of those that cannot be read.

    Raises:
        `ValueError`: if an embedding is not finite.
    """
    rows = []
    for item, embedding in zip(embedded.items, embedded.embeds if embedded.items else []):
        name, facts = item.row
        if not embedding.isfinite().all():
            raise ValueError(f"The model's embedding of {name} holds NaN or infinity: choose a wider --dtype.")
        rows.append({"name": name, "embedding": embedding, **facts})
    rows += [{"name": name, "problem": problem} for name, problem in embedded.unreadable]
    return [row | stamps[row["name"]]._asdict() for row in rows]

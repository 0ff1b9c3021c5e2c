# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Brings the embeddings of a collection up to date."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import NamedTuple

from datasets.fingerprint import Hasher
from huggingface_hub import cached_assets_path
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import Resizing
from ..data.rows import batched
from ..embedding.arguments import DEFAULT_MODEL
from ..embedding.batches import Batch, embed_texts, tokenize
from ..embedding.rows import RowCollator, embed_rows
from ..embedding.store import TableReader, embed_background, note_model, write_results
from ..embedding.table import EmbeddingTable, model_settings
from ..embedding.workers import Workers
from .arguments import SearchModelArguments
from .pictures import PictureFolder, PictureRows


class Changes(NamedTuple):
    """How many images an update embedded for the first time or again, and dropped."""

    new: int
    changed: int
    deleted: int


def find_table(
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    index_dir: Path | None = None,
) -> EmbeddingTable:
    """
    The table of a collection and a model, which is made if there is none.

    Args:
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        index_dir (`Path`, *optional*):
            The folder of all tables. Default: `assets/lotlip/search` in the cache of the Hub.
    """
    settings = model_settings(model, processor) | {"kinds": ["image"]} | pictures.settings
    name = f"{Path(pictures.place).resolve().name}-{Hasher.hash(settings)}"
    folder = cached_assets_path("lotlip", "search", name) if index_dir is None else index_dir / name
    dim = embed_texts(model, tokenize(processor, ["a"])).shape[-1]
    return EmbeddingTable.create(folder, dim, settings, note_model(model), dtype="float16")


def open_table(folder: Path | None, arguments: SearchModelArguments) -> EmbeddingTable | None:
    """
    The table in a folder, if one is named. Arguments of the model that are not given become those of its embeddings,
    or the defaults.

    Raises:
        `ValueError`: if there is no table, or it does not say its model.
    """
    table = None if folder is None else EmbeddingTable(folder)
    noted = {} if table is None else table.settings | table.notes
    name = arguments.model_name_or_path or noted.get("model_name_or_path", DEFAULT_MODEL if table is None else None)
    if name is None:
        raise ValueError(f"`--embeddings_dir {folder}` does not say which model made it: name that by --model.")
    arguments.model_name_or_path, arguments.dtype = name, arguments.dtype or noted.get("dtype", "float32")
    arguments.backend = arguments.backend or noted.get("backend", "torch")
    arguments.truncate_dim = arguments.truncate_dim or noted.get("truncate_dim")
    arguments.max_length = arguments.max_length or noted.get("max_length")
    return table


def update_table(
    table: EmbeddingTable,
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch_size: int = 64,
    report: Callable[[int, int], bool | None] = lambda done, total: None,
    announce: Callable[[], None] = lambda: None,
    lock: AbstractContextManager | None = None,
    num_workers: int | None = 0,
    wait: bool = False,
) -> Changes:
    """
    Makes a table that of a collection as it is now: what is new is embedded, what is gone dropped, and what has
    changed embedded again. What cannot be read is remembered, and tried again when its file changes. What is out of
    reach is kept as it was, and so is everything if there is no image any more: a disk that is not mounted is an
    empty folder. Whatever ends an update, an error or Ctrl-C, what was embedded until then stays.

    Args:
        table ([`EmbeddingTable`]):
            That of the collection and the model: see [`find_table`].
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
        report (`Callable[[int, int], bool | None]`, *optional*):
            Called with how many images are done and how many there are to do; what it returns, if true, stops the
            update with the images so far.
        announce (`Callable[[], None]`, *optional*):
            Called before the search is made fast, where that is due.
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode, None for as many as fit the machine: see [`Workers`].
        wait (`bool`, *optional*, defaults to `False`):
            Whether to wait for another program that updates the table.

    Returns:
        `Changes`: what has changed.

    Raises:
        `FolderInUseError`: if another program updates the table.
        `OSError`: if the collection is not there any more, or the table cannot be written.
        `ValueError`: if the model's embeddings are not finite.
    """
    lock, is_stopped = lock or nullcontext(), False
    with table.writing(wait, "index_dir"):
        pending, changed, gone = compare(table, pictures)
        table.delete(gone)
        names, num_done = sorted(pending), 0
        rows = ((info._replace(about=pending[info.key]), row) for info, row in map(pictures.row, names))

        def write(rows: list[dict]) -> None:
            for is_old, put in ((False, table.append), (True, table.upsert)):
                if some := [row for row in rows if (row["key"] in changed) == is_old]:
                    put(some)

        def follow(results: Iterator[Batch]) -> Iterator[list[Batch]]:
            nonlocal is_stopped, num_done
            is_stopped = bool(report(0, len(names)))
            while not is_stopped and (part := next(results, None)) is not None:
                yield [part]
                num_done += len(part.entries) + len(part.unreadable)
                is_stopped = bool(report(num_done, len(names)))

        resizing = None if pictures.exact_decoding else Resizing.of(processor.image_processor)
        reader = TableReader(["image"], resizing=resizing)
        with Workers(RowCollator(processor, reader), num_workers) as workers:
            results = embed_rows(model, processor, workers.map(batched(rows, batch_size)), num_prefetched=2, lock=lock)
            with closing(results):
                write_results(follow(results), write)

        def embed() -> object:
            with lock:
                return embed_background(model, processor)

        if not is_stopped:
            table.maintain(embed, announce)
    return Changes(len(pending) - len(changed), len(changed), len(gone))


def compare(
    table: EmbeddingTable, pictures: PictureFolder | PictureRows
) -> tuple[dict[str, dict], set[str], list[str]]:
    """
    The images that are to be embedded, with their file signatures; those of them that are in the table; and those in
    the table that are to be dropped.
    """
    pending, num_stored, changed, gone = pictures.scan(), 0, set(), []
    is_empty = not pending
    for key, signature in table.read_signatures():
        num_stored += 1
        if key not in pending:
            if not pictures.is_out_of_reach(key):
                gone.append(key)
        elif pending[key] == signature:
            del pending[key]
        else:
            changed.add(key)
    if is_empty and num_stored and num_stored == len(gone):
        raise FileNotFoundError(
            f"there is no image any more. The {num_stored:,} that were indexed are kept; to forget them, delete "
            f"{table.folder}."
        )
    return pending, changed, gone

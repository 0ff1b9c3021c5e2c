# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""An index of a collection: embeddings on disk that follow its files."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from filelock import FileLock, Timeout
from huggingface_hub import cached_assets_path
from pyarrow import parquet
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import Resizing
from ..embedding.batches import embed_texts, tokenize
from ..embedding.models import hash_weights
from ..embedding.rows import EmbeddedItems, RowCollator, embed_rows
from ..embedding.search import build_faiss_index
from ..embedding.store import open_shards, read_embeddings, read_stored_values, write_shard
from ..embedding.workers import Workers
from ..files import write_json, write_table
from .pictures import PictureFolder, PictureReader, PictureRows


# Pictures in a file of an index: what a stopped run loses at most
SHARD_SIZE = 512
# Of a larger collection so many pictures, drawn at random, stand for all where a sentence is judged
NUM_REFERENCES = 20_000


@dataclass(frozen=True)
class Index:
    """
    The embeddings of a collection.

    Args:
        names (`list[str]`):
            The pictures.
        embeds (`torch.Tensor` of shape `(num_pictures, dim)`):
            Their normalised embeddings.
        unreadable (`dict[str, str]`, *optional*):
            By name what is wrong with pictures that cannot be read.
        faiss (`Dataset`, *optional*):
            An approximate index of the embeddings.
    """

    names: list[str]
    embeds: torch.Tensor
    unreadable: dict[str, str] = field(default_factory=dict)
    faiss: Dataset | None = None

    def with_faiss(self, string_factory: str) -> "Index":
        """The same with an approximate index. Raises a `ValueError` where faiss cannot make it of so few pictures."""
        return replace(self, faiss=build_faiss_index([self.embeds], string_factory) if self.names else None)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The row of each picture."""
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def references(self) -> torch.Tensor:
        """The embeddings of all pictures, or of `NUM_REFERENCES` that are drawn, always the same."""
        if len(self.names) <= NUM_REFERENCES:
            return self.embeds
        drawn = torch.randperm(len(self.names), generator=torch.Generator().manual_seed(0))[:NUM_REFERENCES]
        return self.embeds[drawn]


EMPTY = Index([], torch.empty(0, 0))


class Changes(NamedTuple):
    """How many pictures an update embedded for the first time or again, and dropped."""

    new: int
    changed: int
    deleted: int


def load_embeddings(folder: Path) -> Index:
    """
    The images in a folder of `lotlip embed`.

    Raises:
        `ValueError`: if there are none.
    """
    shards = open_shards(folder).to_table(columns=["id"], filter=pa.compute.field("kind") == "image")
    if len(shards) == 0:
        raise ValueError(f"--embeddings_dir {folder} holds no embeddings of images: make them without `--only texts`.")
    return Index([str(name) for name in shards["id"].to_pylist()], torch.cat(list(read_embeddings(folder, "image"))))


def find_index(
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    index_dir: Path | None = None,
) -> Path:
    """
    The folder of the index of a collection by a model, which may have to be made: it notes there which it is of.

    Args:
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        index_dir (`Path`, *optional*):
            The folder of all indices. Default: `assets/lotlip/search` in the cache of the Hub.
    """
    settings = {
        "source": pictures.source,
        "weights": hash_weights(model),
        "processor": Hasher.hash(processor),
        "dtype": str(model.dtype).removeprefix("torch."),
        "exact_decoding": pictures.exact_decoding,
    }
    name = f"{Path(pictures.place).resolve().name}-{Hasher.hash(settings)}"
    folder = cached_assets_path("lotlip", "search", name) if index_dir is None else index_dir / name
    write_json(folder / "settings.json", settings)
    return folder


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """A shard of embeddings, and the list of what it is of."""
    return folder / f"embeddings-{number:06d}.parquet", folder / f"pictures-{number:06d}.json"


def read_lists(folder: Path) -> dict[int, dict[str, list]]:
    """By the number of each shard, and by the name of each picture in it, its stamp and what is wrong with it."""
    lists = {}
    for number in sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("embeddings-*.parquet")):
        with suppress(FileNotFoundError):  # dropped meanwhile by another program
            lists[number] = json.loads(shard_paths(folder, number)[1].read_text(encoding="utf-8"))
    return lists


def read_state(folder: Path) -> list[tuple[str, int, int]]:
    """What changes when the index in a folder does, whoever has changed it."""
    state = []
    for path in sorted([*folder.glob("embeddings-*.parquet"), *folder.glob("pictures-*.json")]):
        with suppress(FileNotFoundError):  # dropped meanwhile by another program
            status = path.stat()
            state.append((path.name, status.st_size, status.st_mtime_ns))
    return state


def drop_stale(folder: Path, stamps: dict[str, str]) -> Changes:
    """
    Drops pictures that are no longer there, have changed or stand there twice, from an index on disk.

    A run that is stopped in between loses nothing: the list of a shard is written first, and embeddings that it does
    not list are dropped as well.
    """
    changed, deleted, seen = 0, 0, set()
    for number, listed in read_lists(folder).items():
        path, list_path = shard_paths(folder, number)
        listed_once = {name: record for name, record in listed.items() if name not in seen}
        kept = {name: record for name, record in listed_once.items() if stamps.get(name) == record[0]}
        seen |= kept.keys()
        changed += sum(name in stamps and name not in kept for name in listed_once)
        deleted += sum(name not in stamps for name in listed_once)
        if len(kept) < len(listed):
            write_json(list_path, kept)
        is_kept = [name in kept for name in parquet.read_table(path, columns=["id"])["id"].to_pylist()]
        if not kept:
            path.unlink()
            list_path.unlink()
        elif not all(is_kept):
            write_table(path, parquet.read_table(path).filter(pa.array(is_kept)))
    return Changes(0, changed, deleted)


def update_index(
    folder: Path,
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch_size: int = 64,
    report: Callable[[int, int], bool | None] = lambda done, total: None,
    lock: AbstractContextManager | None = None,
    num_workers: int | None = 0,
) -> Changes:
    """
    Makes an index on disk that of a collection as it is now: what is new is embedded, what is gone dropped, and what
    has changed embedded again. What cannot be read is remembered, and tried again when its file changes. What is out
    of reach is kept as it was, and so is everything if there is no picture any more: a disk that is not mounted is an
    empty folder. Whatever ends an update, an error or Ctrl-C, what was embedded until then stays.

    The folder is one of `lotlip embed`, with a list of pictures beside each file. It must be of one model.

    Args:
        folder (`Path`):
            Where the index is, or will be: see [`find_index`].
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
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode, None for as many as fit the machine: see [`Workers`].

    Returns:
        `Changes`: what has changed. [`load_index`] reads the index.

    Raises:
        `OSError`: if another program is making this index, or the collection is not there any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        writing = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError("another program is indexing them. Look for changes when it is done.") from error
    with writing:
        pending, changes = prune_index(folder, pictures)
        read_row = PictureReader(pictures, Resizing.of(processor.image_processor))
        with Workers(RowCollator(processor, read_row), num_workers) as workers:
            embed_pictures(folder, pending, model, processor, workers, batch_size, report, lock or nullcontext())
    return changes


def prune_index(folder: Path, pictures: PictureFolder | PictureRows) -> tuple[dict[str, str], Changes]:
    """Drops what is not as it was, and returns the pictures to be embedded with their stamps, and what changes."""
    stamps = pictures.scan()
    listed = {name: record for lists in read_lists(folder).values() for name, record in lists.items()}
    stamps |= {name: stamp for name, (stamp, _) in listed.items() if pictures.is_out_of_reach(name)}
    if listed and not stamps:
        raise FileNotFoundError(
            f"there is no picture any more. The {len(listed):,} that were indexed are kept; to forget them, delete "
            f"{folder}."
        )
    changes = drop_stale(folder, stamps)
    kept = {name for lists in read_lists(folder).values() for name in lists}
    pending = {name: stamps[name] for name in sorted(stamps.keys() - kept)}
    return pending, changes._replace(new=len(pending) - changes.changed)


def embed_pictures(
    folder: Path,
    pending: dict[str, str],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    workers: Workers,
    batch_size: int,
    report: Callable[[int, int], bool | None],
    lock: AbstractContextManager,
) -> None:
    """Adds shards of pictures, given with their stamps, to an index: see [`update_index`]."""
    names, first = list(pending), max(read_lists(folder), default=-1) + 1
    with lock:
        dim = embed_texts(model, tokenize(processor, ["a"])).shape[-1]
    if report(0, len(names)):
        return
    shards = {name: first + place // SHARD_SIZE for place, name in enumerate(names)}
    rows = ([(name, None) for name in of_shard] for _, of_shard in groupby(names, key=shards.get))
    batches = (of_shard[row : row + batch_size] for of_shard in rows for row in range(0, len(of_shard), batch_size))
    results = embed_rows(model, processor, workers.map(batches), group=shards.get, num_prefetched=2, lock=lock)
    num_done = 0
    with closing(results):
        for number, parts in groupby(results, key=lambda part: part.group):
            embedded = []
            try:
                for part in parts:
                    embedded.append(part)
                    num_done += len(part.items) + len(part.unreadable)
                    if report(num_done, len(names)):
                        return
            finally:  # whatever ends it, what is embedded stays
                write_pictures(folder, number, embedded, pending, dim)


def write_pictures(folder: Path, number: int, embedded: list[EmbeddedItems], stamps: dict[str, str], dim: int) -> None:
    """Writes a shard of an index and its list, if there is anything to write."""
    path, list_path = shard_paths(folder, number)
    items = [item for part in embedded for item in part.items]
    names = [item.row for item in items]
    wrong = {name: error for part in embedded for name, error in part.unreadable}
    if names or wrong:
        write_json(list_path, {name: [stamps[name], wrong.get(name)] for name in [*names, *wrong]})
        embeds = [part.embeds for part in embedded if part.embeds is not None]
        write_shard(path, names, items, torch.cat([torch.empty(0, dim), *embeds]))


def load_index(folder: Path) -> Index:
    """What [`update_index`] left in a folder."""
    lists = read_lists(folder)
    if not lists:
        return EMPTY
    unreadable = {name: error for listed in lists.values() for name, (_, error) in listed.items() if error is not None}
    names, embeds = [], []
    for number in lists:
        with suppress(FileNotFoundError):  # dropped meanwhile by another program
            # a file is replaced as a whole: its names and embeddings are of one reading
            table = parquet.read_table(shard_paths(folder, number)[0], columns=["id", "embedding"])
            if len(table) > 0:
                names += table["id"].to_pylist()
                embeds.append(torch.tensor(read_stored_values(table["embedding"].combine_chunks())))
    return Index(names, torch.cat(embeds) if embeds else torch.empty(0, 0), unreadable)

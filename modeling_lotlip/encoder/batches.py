# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From rows to embeddings: a [`RowCollator`] prepares rows, [`collate_rows`] does so in several processes, and
[`embed_rows`] embeds what they have prepared. What a table of embeddings stores of a file besides its embedding is
read here too, by a [`TableReader`]: a new fact is a key of [`describe_file`] and a column of `table/schema.py`.
"""

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, groupby, islice
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar

import torch.distributed
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image

from ..data.arguments import CaptionArguments
from ..data.images import (
    IMAGE_ERRORS,
    UnreadableImageError,
    find_image_path,
    find_upright_size,
    open_image,
    read_date,
    read_file,
    read_image,
)
from ..data.loading import split_by_process
from ..data.reader import Item, RowInfo, RowReader
from ..data.rows import batched, name_row
from ..utils.files import hash_bytes
from ..utils.signals import leave_signals_to_the_main_process
from ..utils.terminal import printable, without_stop
from .lengths import partition_by_length
from .preprocessing import Preprocessing


logger = logging.getLogger(__name__)

# Batches of texts in a window, inside which they are sorted by length: the more, the less padding
BATCHES_PER_WINDOW = 64
# Batches that are made ahead of the model
PREFETCHED_BATCHES = 8
# Batches of rows that each worker has before it
BATCHES_PER_WORKER = 2
# The max number of tokens of a batch of texts, padding included
TOKENS_PER_BATCH = 2048
# What a table can store: a time, and a side of an image in pixels
MAX_NANOSECONDS = 2**63 - 1
MAX_SIDE = 2**31 - 1
# What image processors raise at an image that they cannot bring to their size: one too thin, say
PREPROCESSING_ERRORS = (MemoryError, RuntimeError, ValueError)

# What a caller knows an image, a text or a row by: a row of a dataset, a position in a list, a future
T = TypeVar("T")

# A row and what it is known by
KeyedRow = tuple[Any, Any]


@dataclass(frozen=True)
class Unreadable(Generic[T]):
    """
    A row whose image cannot be read, and is left out.

    Args:
        key (`T`): What the caller knows the row by.
        name (`str`): How messages call it.
        problem (`str`): What is wrong with its image.
        is_final (`bool`): Whether the content of its file is the cause: see `UnreadableImageError`.
    """

    key: T
    name: str
    problem: str
    is_final: bool = True


@dataclass
class Batch(Generic[T]):
    """
    Images or texts that the model computes at once.

    Args:
        entries (`list[T]`): What the caller knows each of them by.
        inputs (`dict[str, torch.Tensor]`): The inputs of the model, of shapes `(entries, ...)`.
        modality (`str`): `"image"`, `"long"` for long captions, any other word for other texts.
    """

    entries: list[T]
    inputs: dict[str, torch.Tensor]
    modality: str


@dataclass
class PreparedRows(Generic[T]):
    """
    Rows as the inputs of the model: images, which may be none, and texts, padded together.

    Args:
        key (`T`): What the caller knows the first row by.
        images (`Batch[T]`): The images.
        texts (`list[Batch[T]]`): The texts, long captions apart from others.
        unreadable (`list[Unreadable[T]]`): Rows whose images are left out.
    """

    key: T
    images: Batch[T]
    texts: list[Batch[T]]
    unreadable: list[Unreadable[T]] = field(default_factory=list)


@dataclass
class EmbeddedBatch(Generic[T]):
    """
    Images or texts with their embeddings.

    Args:
        entries (`list[T]`): What the caller knows each of them by.
        embeds (`torch.Tensor`, *optional*): Normalized embeddings of shape `(entries, dim)` in float32, on the CPU;
            `None` without entries.
        unreadable (`list[Unreadable[T]]`): Rows whose images are left out.
        group (`Any`): The group of rows that all of it belongs to: see [`embed_rows`].
    """

    entries: list[T]
    embeds: torch.Tensor | None
    unreadable: list[Unreadable[T]]
    group: Any = None


def sorted_batches(
    window: list[tuple[T, dict[str, torch.Tensor]]],
    preprocessing: Preprocessing,
    tokens_per_batch: int,
    modality: str = "text",
) -> Iterator[Batch[T]]:
    """
    Yields batches of texts of like length, the longest first.

    Args:
        window (`list[tuple[T, dict[str, torch.Tensor]]]`):
            What each text is known by, and its inputs of shape `(length,)` without padding.
        preprocessing ([`Preprocessing`]):
            Pads them.
        tokens_per_batch (`int`):
            The max number of tokens of a batch, padding included.
        modality (`str`, *optional*, defaults to `"text"`):
            That of all texts: see [`Batch`].
    """
    lengths = [len(inputs["input_ids"]) for _, inputs in window]
    # a call costs as much as a full batch: as few batches as there can be
    for indices in partition_by_length(lengths, tokens_per_batch, tokens_per_batch):
        entries = [window[index][0] for index in indices]
        inputs = preprocessing.pad([window[index][1] for index in indices])
        yield Batch(entries, inputs, modality)


class TextWindows(Generic[T]):
    """
    Gathers texts, long captions apart from others, and gives them back in batches of like length.

    Args:
        preprocessing ([`Preprocessing`]): Pads them.
        tokens_per_batch (`int`): The max number of tokens of a batch, padding included.
    """

    def __init__(self, preprocessing: Preprocessing, tokens_per_batch: int):
        self.preprocessing = preprocessing
        self.tokens_per_batch = tokens_per_batch
        self.windows: dict[str, list[tuple[T, dict[str, torch.Tensor]]]] = {}

    def add(self, batch: Batch[T]) -> Iterator[Batch[T]]:
        """Adds padded texts, and yields the batches of a window that is full by now."""
        name = "long" if batch.modality == "long" else "text"
        window = self.windows.setdefault(name, [])
        window += zip(batch.entries, self.preprocessing.unpad(batch.inputs), strict=True)
        num_tokens = sum(len(inputs["input_ids"]) for _, inputs in window)
        if num_tokens >= BATCHES_PER_WINDOW * self.tokens_per_batch:
            yield from sorted_batches(self.windows.pop(name), self.preprocessing, self.tokens_per_batch, name)

    def finish(self) -> Iterator[Batch[T]]:
        """Yields the batches of all texts that are left."""
        for name, window in self.windows.items():
            yield from sorted_batches(window, self.preprocessing, self.tokens_per_batch, name)
        self.windows = {}


def sort_texts(
    batches: Iterable[Batch[T]], preprocessing: Preprocessing, tokens_per_batch: int = TOKENS_PER_BATCH
) -> Iterator[Batch[T]]:
    """Yields batches of padded texts anew, in batches of like length with at most `tokens_per_batch` tokens."""
    windows = TextWindows(preprocessing, tokens_per_batch)
    for batch in batches:
        yield from windows.add(batch)
    yield from windows.finish()


def prefetch(items: Iterator[T], depth: int = PREFETCHED_BATCHES) -> Iterator[T]:
    """Yields the items of an iterator, which a thread fetches up to `depth` ahead."""
    done = object()
    with ThreadPoolExecutor(max_workers=1) as executor:
        pending = deque(executor.submit(next, items, done) for _ in range(depth))
        try:
            while True:
                item = pending.popleft().result()
                if item is done:
                    return
                pending.append(executor.submit(next, items, done))
                yield item
        finally:  # a caller that stops early waits for one item, not for all that are ahead
            executor.shutdown(cancel_futures=True)


class TableReader(RowReader):
    """
    Reads rows that are known by a [`RowInfo`]. Its `file_facts` are extended by what [`describe_file`] says of the
    image.

    Args:
        columns (`Iterable[str]`):
            The columns of the dataset.
        captions (`CaptionArguments`, *optional*):
            Which columns have captions. None are read by default.
        formats (`tuple[str, ...]`, *optional*):
            The formats of images that are read: see [`read_image`].
        options:
            Further arguments of [`RowReader`].
    """

    def __init__(
        self,
        columns: Iterable[str],
        captions: CaptionArguments | None = None,
        formats: tuple[str, ...] | None = None,
        **options: Any,
    ):
        super().__init__(columns, captions, **options)
        self.formats = formats

    def __call__(self, info: RowInfo, row: dict) -> Iterator[Item]:
        """Yields the image and the texts of a row. The image is read from its file, if it is in one."""
        file_facts = dict(info.file_facts or {})
        if self.image_column is not None:
            image = row[self.image_column] or {}
            path = find_image_path(image)
            if image.get("bytes") is None and os.path.isfile(path):
                # an earlier signature is kept: if the file has changed since, the next update of the table sees it
                file_facts = sign_file(os.stat(path)) | file_facts
            content = read_file(image, self.formats)
            # the file is read once: hash, facts and pixels are of the same content
            row = {**row, self.image_column: {"bytes": content, "path": None}}
            file_facts |= describe_file(content, self.formats)
        for item in super().__call__(info.row_index, row):
            yield item._replace(row_key=info._replace(file_facts=file_facts))

    def read_image(self, row: dict) -> Image.Image:
        """Reads the image of a row, upright in RGB. Raises an `UnreadableImageError` if there is none."""
        return read_image(row.get(self.image_column), resizing=self.resizing, formats=self.formats)


def sign_file(status: os.stat_result) -> dict[str, int]:
    """
    Describes a file without reading it: its `size`, when it was `modified`, and when its entry was `changed`, which
    renaming it does too. A table that has the same of a file takes it for unchanged. Times are nanoseconds since 1970,
    as far as a table can store them: from 1678 to 2261.
    """
    return {
        "size": status.st_size,
        "modified": min(max(status.st_mtime_ns, -MAX_NANOSECONDS), MAX_NANOSECONDS),
        "changed": min(max(status.st_ctime_ns, -MAX_NANOSECONDS), MAX_NANOSECONDS),
    }


def describe_file(content: bytes, formats: tuple[str, ...] | None = None) -> dict[str, str | int | datetime | None]:
    """
    Describes the file of an image, as far as it says so: its `hash`, `width` and `height` of the upright image, and
    when it was `taken`. Formats that are not read have the hash alone: see [`read_image`]. The keys are names of
    columns of a table (`table/schema.py`), which must be able to store the values.
    """
    facts = {"hash": hash_bytes(content)}
    # what is known before an error is kept; `read_image` names the problem
    with suppress(*IMAGE_ERRORS):
        image = open_image(content, formats)
        width, height = find_upright_size(image)
        if max(width, height) <= MAX_SIDE:
            facts |= {"width": width, "height": height}
        facts["taken"] = read_date(image.getexif())
    return facts


class RowCollator:
    """
    Reads, preprocesses and tokenizes what is in rows.

    Args:
        preprocessing ([`Preprocessing`]):
            Makes the inputs of the model.
        read_row (`Callable`):
            Gives the items of a row by what it is known by and the row, or raises an `UnreadableImageError`.
        read_texts (`Callable`, *optional*):
            Gives the texts of a row whose image cannot be read. Default: none of them is kept.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        read_row: Callable[[Any, Any], Iterable[Item]],
        read_texts: Callable[[Any, Any], Iterable[Item]] | None = None,
    ):
        self.preprocessing = preprocessing
        self.read_row = read_row
        self.read_texts = read_texts

    def __call__(self, rows: list[KeyedRow]) -> PreparedRows:
        """Returns the inputs of the model for some rows, and which images cannot be read."""
        items, unreadable = self.read_rows(rows)
        try:
            images = self.prepare_images(items)
        except UnreadableImageError:
            # one of them cannot be preprocessed: which one is found by preprocessing each alone
            items, unreadable = self.read_rows(rows, check=self.prepare_images)
            images = self.prepare_images(items)
        return PreparedRows(rows[0][0], images, list(self.prepare_texts(items)), unreadable)

    def read_rows(
        self, rows: list[KeyedRow], check: Callable[[list[Item]], object] = lambda items: None
    ) -> tuple[list[Item], list[Unreadable]]:
        """Returns the items of rows, and the rows that cannot be read or do not pass a check of their items."""
        items: list[Item] = []
        unreadable: list[Unreadable] = []
        for key, row in rows:
            try:
                read = list(self.read_row(key, row))
                check(read)
            except UnreadableImageError as error:
                unreadable.append(Unreadable(key, name_item(key, row), str(error), error.is_final))
                read = [] if self.read_texts is None else list(self.read_texts(key, row))
            items += read
        return items, unreadable

    def prepare_images(self, items: list[Item]) -> Batch[Item]:
        """Returns the images among items. Raises an `UnreadableImageError` if one cannot be preprocessed."""
        images = [item for item in items if item.kind == "image"]
        inputs = {}
        if images:
            try:
                inputs = self.preprocessing.prepare_images([image.content for image in images])
            except PREPROCESSING_ERRORS as error:
                # errors of torch that say so of the memory are a RuntimeError
                raise UnreadableImageError(str(error), is_final=isinstance(error, ValueError)) from error
        return Batch([image._replace(content=None) for image in images], inputs, "image")

    def prepare_texts(self, items: list[Item]) -> Iterator[Batch[Item]]:
        """Yields the texts among items, long captions apart from others."""
        texts = [item for item in items if item.kind != "image"]
        for modality, part in (
            ("text", [item for item in texts if item.kind != "long"]),
            ("long", [item for item in texts if item.kind == "long"]),
        ):
            if part:
                inputs, truncated = self.preprocessing.tokenize([item.content for item in part])
                unknown = self.preprocessing.find_unknown(inputs["input_ids"])
                entries = []
                for item, is_cut, is_unknown in zip(part, truncated, unknown):
                    entries.append(item._replace(truncated=is_cut, is_unknown=is_unknown))
                yield Batch(entries, inputs, modality)


def name_item(key: Any, row: Any) -> str:
    """Returns how messages call a row: by [`name_row`] if it is one of a dataset, otherwise by its key."""
    if isinstance(row, dict):
        # the key is a `RowInfo`, or else the index of the row itself
        return name_row(row, getattr(key, "row_index", key))
    return str(getattr(key, "key", key))


def batch_rows(
    dataset: Dataset | IterableDataset,
    batch_size: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> Iterator[list[tuple[int, dict]]]:
    """
    Batches the rows of a process, with their indices. Of a stream, the rows of each process are counted from 0 on.

    Args:
        dataset (`Dataset` or `IterableDataset`): The rows of all processes.
        batch_size (`int`): How many rows are in a batch; the last one may have fewer.
        process_index (`int`, *optional*, defaults to 0): The process.
        num_processes (`int`, *optional*, defaults to 1): The count of processes.
    """
    if isinstance(dataset, Dataset):
        start = len(dataset) * process_index // num_processes
        stop = len(dataset) * (process_index + 1) // num_processes
        rows = ((index, dataset[index]) for index in range(start, stop))
    else:
        rows = enumerate(split_by_process(dataset, process_index, num_processes))
    return batched(rows, batch_size)


def gather_to_main(part: Any) -> list[Any]:
    """Gathers what each process has, in their order, for the main one alone: the others get an empty list."""
    state = PartialState()
    if state.num_processes == 1:
        return [part]
    parts = [None] * state.num_processes if state.is_main_process else None
    torch.distributed.gather_object(part, parts)
    return parts or []


def count_workers() -> int:
    """
    Returns how many workers a process has: one for each core, 8 at most. Several processes on this machine share the
    cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def collate_rows(
    collate: RowCollator, batches: Iterable[list[KeyedRow]], num_workers: int | None = 0
) -> Iterator[PreparedRows]:
    """
    Yields what a collator makes of batches of rows, in their order. Errors of the collator are raised as they are.

    Args:
        collate ([`RowCollator`]):
            Prepares a batch of rows.
        batches (`Iterable[list[KeyedRow]]`):
            The rows, which are read in this process.
        num_workers (`int`, *optional*, defaults to 0):
            The number of processes that prepare them, some batches ahead; `None`: see [`count_workers`]. A single
            batch is prepared in this process.

    Raises:
        `RuntimeError`: if a process ends.
    """
    if num_workers is None:
        num_workers = count_workers()
    # two batches are taken out to see whether there is more than one: for a single one no process is started
    batches = iter(batches)
    first = list(islice(batches, 2))
    batches = chain(first, batches)
    if num_workers == 0 or len(first) < 2:
        yield from map(collate, batches)
        return
    executor = ProcessPoolExecutor(
        num_workers, mp_context=start_method(), initializer=set_up_worker, initargs=(collate,)
    )
    try:
        pending = deque(
            executor.submit(collate_in_worker, batch) for batch in islice(batches, BATCHES_PER_WORKER * num_workers)
        )
        while pending:
            prepared = pending.popleft().result()
            for batch in islice(batches, 1):
                pending.append(executor.submit(collate_in_worker, batch))
            yield prepared
    except BrokenProcessPool as error:
        raise RuntimeError(
            "A process that decodes images has ended: is an image damaged, or too large for the memory? In a script, "
            'the call must stand under `if __name__ == "__main__":`, since each process runs the script.'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def start_method() -> multiprocessing.context.BaseContext:
    """Returns how workers are started. They are not forked: this process has threads, and a fork may hang on them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # once for all, and without LanceDB, which takes a second
    return context


# In a worker: what prepares its rows, sent once when it starts
_collate_in_this_worker: RowCollator | None = None


def set_up_worker(collate: RowCollator) -> None:
    """Does what a worker does first. It gives way to the model, which waits for it only when it has to."""
    global _collate_in_this_worker
    _collate_in_this_worker = collate
    torch.set_num_threads(1)
    leave_signals_to_the_main_process(0)
    Thread(target=end_with_the_main_process, daemon=True).start()
    if hasattr(os, "nice"):  # Windows has none
        os.nice(10)


def collate_in_worker(rows: list[KeyedRow]) -> PreparedRows:
    """Prepares a batch of rows by what [`set_up_worker`] was given."""
    return _collate_in_this_worker(rows)


def end_with_the_main_process() -> None:
    """Waits until the process that this worker works for is gone, and ends the worker: the fork server does not."""
    multiprocessing.parent_process().join()
    os._exit(1)


class BatchEncoder(Protocol):
    """What [`embed_rows`] asks of a `DualEncoder`, which is built on this file."""

    preprocessing: Preprocessing

    def embed(self, batch: Batch) -> torch.Tensor:
        """Returns normalized embeddings of shape `(entries, dim)`, in float32 on the CPU."""


def embed_rows(
    encoder: BatchEncoder,
    prepared: Iterable[PreparedRows],
    tokens_per_batch: int = TOKENS_PER_BATCH,
    group: Callable[[Any], Any] = lambda key: None,
    num_prefetched: int = PREFETCHED_BATCHES,
) -> Iterator[EmbeddedBatch]:
    """
    Embeds prepared rows, while a thread makes the next batches: images as they come, texts in batches of like length.

    Args:
        encoder ([`BatchEncoder`]):
            Embeds them: a `DualEncoder`.
        prepared (`Iterable[PreparedRows]`):
            What a [`RowCollator`] returns.
        tokens_per_batch (`int`, *optional*, defaults to 2048):
            The max number of tokens in a batch of texts.
        group (`Callable`, *optional*):
            Tells the group of rows by the key of the first of them. Texts are sorted within a group: when the next
            one begins, this one is complete. Each group has a batch, which may be empty. Default: one group.
        num_prefetched (`int`, *optional*, defaults to 8):
            The number of batches that are made ahead.
    """

    def make_batches() -> Iterator[tuple[Batch, list[Unreadable], Any]]:
        for group_name, parts in groupby(prepared, key=lambda part: group(part.key)):
            windows = TextWindows(encoder.preprocessing, tokens_per_batch)
            for part in parts:
                yield part.images, part.unreadable, group_name
                for batch in part.texts:
                    for made in windows.add(batch):
                        yield made, [], group_name
            for made in windows.finish():
                yield made, [], group_name

    for batch, unreadable, group_name in prefetch(make_batches(), depth=num_prefetched):
        # without entries where rows have no images, or none that can be read; these are still to be named
        embeds = encoder.embed(batch) if batch.entries else None
        yield EmbeddedBatch(batch.entries, embeds, unreadable, group_name)


def warn_of_unreadable(unreadable: Sequence[Unreadable]) -> None:
    """Logs a warning for each row that was left out."""
    for row in unreadable:
        line = f"The image of {row.name} cannot be read and is left out: {without_stop(row.problem)}."
        logger.warning(printable(line))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Batches of rows made in other processes, which an image may kill: then it is left out, and named."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from itertools import chain, islice
from threading import Thread
from typing import Any

import torch

from ..data.loading import leave_signals_to_the_main_process
from .batches import Batch
from .rows import PreparedRows, RowCollator, Unreadable, name_item


# Batches that each process has made, or makes, ahead
BATCHES_PER_WORKER = 2
KILLED = "decoding it ended the process: is it damaged, or too large for the memory?"

# In a worker: what makes the batches
_collate: RowCollator | None = None


def count_workers() -> int:
    """One for each core, 8 at most; of several processes on this machine each has its share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


class Workers:
    """
    Processes that make batches of rows, as [`RowCollator`] does. They start when the first batch is asked for, and end
    with the context. A row whose image ends its process is left out, like one whose image cannot be read.

    Args:
        collate ([`RowCollator`]):
            What makes a batch of rows. It is sent to the processes, so that its `read_row` must be picklable.
        num_workers (`int`, *optional*):
            How many processes. 0: batches are made in the thread that asks for them. Default: see [`count_workers`].

    Raises:
        `RuntimeError`: if no process can be started.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
    >>> from modeling_lotlip.embedding.rows import Item, RowCollator
    >>> from modeling_lotlip.embedding.workers import Workers

    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer())
    >>> collate = RowCollator(processor, lambda name, row: [Item(name, "caption", row)])
    >>> with Workers(collate, num_workers=0) as workers:
    ...     for prepared in workers.map([[("first", "a red boat")], [("second", "a house"), ("third", "a car")]]):
    ...         print([item.row for item in prepared.texts.entries])
    ['first']
    ['second', 'third']
    ```"""

    def __init__(self, collate: RowCollator, num_workers: int | None = None):
        self.collate, self.num_workers = collate, count_workers() if num_workers is None else num_workers
        self.executor = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> ProcessPoolExecutor:
        """New processes. They are no forks: this one has threads, and a fork may hang on what they hold."""
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if has_server else "spawn")
        if has_server:
            context.set_forkserver_preload([__name__])  # imports it once for all
        return ProcessPoolExecutor(self.num_workers, context, set_up_worker, (self.collate,))

    def stop(self) -> None:
        """Ends the processes after the batches that they are at."""
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)
            self.executor = None

    def submit(self, rows: list[tuple[Any, Any]]) -> Future:
        if self.executor is None:
            self.executor = self.start()
        try:
            return self.executor.submit(collate_in_worker, rows)
        except BrokenExecutor as error:  # it broke after the last result
            future = Future()
            future.set_exception(error)
            return future

    def map(self, batches: Iterable[list[tuple[Any, Any]]]) -> Iterator[PreparedRows]:
        """
        What the collator makes of batches of rows, in their order, some batches ahead. A single batch is made in this
        process: others take longer to start.

        Args:
            batches (`Iterable[list[tuple[Any, Any]]]`):
                Lists of pairs of a key and a row. They are read in this process.
        """
        batches = iter(batches)
        first = list(islice(batches, 2))
        if self.num_workers == 0 or (self.executor is None and len(first) < 2):
            yield from map(self.collate, chain(first, batches))
            return
        batches, pending = chain(first, batches), deque()
        while True:
            while len(pending) < BATCHES_PER_WORKER * self.num_workers and (rows := next(batches, None)) is not None:
                pending.append((rows, self.submit(rows)))
            if not pending:
                return
            rows, future = pending.popleft()
            try:
                prepared = [future.result()]
            except BrokenExecutor:
                # whichever batch ended its process took the others with it: this one is made row by row, then they
                self.stop()
                self.check_start()
                prepared = [self.make_alone(row) for row in rows]
                pending = deque((rows, self.submit(rows) if is_lost(old) else old) for rows, old in pending)
            yield from map(as_tensors, prepared)

    def check_start(self) -> None:
        """Raises a `RuntimeError` if a process ends without an image."""
        try:
            self.submit([]).result()
        except BrokenExecutor as error:
            raise RuntimeError(
                "The processes that decode images end as soon as they start. In a script of your own, call this "
                'inside `if __name__ == "__main__":`, or with `num_workers=0`.'
            ) from error

    def make_alone(self, row: tuple[Any, Any]) -> PreparedRows:
        """What the collator makes of one row; if the process ends it is left out."""
        try:
            return self.submit([row]).result()
        except BrokenExecutor:
            self.stop()
            return PreparedRows(row[0], Batch([], {}), Batch([], {}), [Unreadable(row[0], name_item(*row), KILLED)])


def is_lost(future: Future) -> bool:
    """Whether a batch has to be made again: it was not done when the processes ended."""
    return not future.done() or future.cancelled() or future.exception() is not None


def set_up_worker(collate: RowCollator) -> None:
    """What a worker does first. It gives way to the model, which waits for it only when it has to."""
    global _collate
    _collate = collate
    leave_signals_to_the_main_process(0)
    Thread(target=end_with_the_main_process, daemon=True).start()
    torch.set_num_threads(1)
    if hasattr(os, "nice"):  # Windows has none
        os.nice(10)


def end_with_the_main_process() -> None:
    """Ends a worker when the process that it works for is gone, however that ended."""
    multiprocessing.parent_process().join()
    os._exit(1)


def collate_in_worker(rows: list[tuple[Any, Any]]) -> PreparedRows | None:
    """A batch with arrays instead of tensors, for which there may be too little shared memory."""
    return with_inputs(_collate(rows), torch.Tensor.numpy) if rows else None


def as_tensors(prepared: PreparedRows) -> PreparedRows:
    """A batch of a worker as the model takes it."""
    return with_inputs(prepared, torch.from_numpy)


def with_inputs(prepared: PreparedRows, convert: Callable) -> PreparedRows:
    """The same with all inputs of the model converted."""

    def converted(batch: Batch) -> Batch:
        return batch._replace(inputs={name: convert(values) for name, values in batch.inputs.items()})

    return prepared._replace(images=converted(prepared.images), texts=converted(prepared.texts))

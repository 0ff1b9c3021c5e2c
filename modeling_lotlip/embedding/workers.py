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

import torch

from ..data.loading import leave_signals_to_the_main_process
from .batches import Batch, Unreadable
from .rows import KeyedRow, PreparedRows, RowCollator, name_item


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
    Processes that make batches of rows, until the context ends. A row whose image ends its process is left out, like
    one whose image cannot be read.

    Args:
        collate ([`RowCollator`]):
            What makes a batch of rows. It is sent to the processes, so that its `read_row` must be picklable.
        num_workers (`int`, *optional*):
            How many processes. 0: batches are made in the thread that asks for them. Default: see [`count_workers`].

    Example:

    ```python
    >>> from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
    >>> from modeling_lotlip.embedding.rows import Item, RowCollator
    >>> from modeling_lotlip.embedding.workers import Workers

    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer())
    >>> collate = RowCollator(processor, lambda name, row: [Item(name, "caption", row)])
    >>> with Workers(collate, num_workers=0) as workers:
    ...     for first, (_, texts) in workers.map([[("a", "a red boat")], [("b", "a house"), ("c", "a car")]]):
    ...         print(first, len(texts.entries))
    a 1
    b 2
    ```"""

    def __init__(self, collate: RowCollator, num_workers: int | None = None):
        self.collate, self.num_workers = collate, count_workers() if num_workers is None else num_workers
        self.executor = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    def start(self) -> None:
        """New processes. They are no forks: this one has threads, and a fork may hang on what they hold."""
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if has_server else "spawn")
        if has_server:
            context.set_forkserver_preload([__name__])  # imports it once for all
        self.executor = ProcessPoolExecutor(self.num_workers, context, set_up_worker, (self.collate,))
        try:
            self.executor.submit(int).result()
        except BrokenExecutor as error:
            raise RuntimeError(
                "The processes that decode images end as soon as they start. In a script of your own, call this "
                'inside `if __name__ == "__main__":`, or with `num_workers=0`.'
            ) from error

    def submit(self, rows: list[KeyedRow]) -> Future:
        try:
            return self.executor.submit(collate_in_worker, rows)
        except BrokenExecutor as error:  # it broke after the last result
            future = Future()
            future.set_exception(error)
            return future

    def map(self, batches: Iterable[list[KeyedRow]]) -> Iterator[PreparedRows]:
        """
        What the collator makes of batches of rows, in their order, some batches ahead. A single batch is made in this
        process: others take longer to start.

        Args:
            batches (`Iterable[list[KeyedRow]]`):
                Lists of pairs of a key and a row. They are read in this process.

        Raises:
            `RuntimeError`: if no process can be started.
        """
        batches = iter(batches)
        first = list(islice(batches, 2))
        if self.num_workers == 0 or (self.executor is None and len(first) < 2):
            yield from map(self.collate, chain(first, batches))
            return
        if self.executor is None:
            self.start()
        batches, pending = chain(first, batches), deque()
        while True:
            while len(pending) < BATCHES_PER_WORKER * self.num_workers and (rows := next(batches, None)) is not None:
                pending.append((rows, self.submit(rows)))
            if not pending:
                return
            rows, future = pending.popleft()
            try:
                made = [future.result()]
            except BrokenExecutor:
                # whichever batch ended its process took the others with it: this one is made row by row, then they
                self.start()
                made = [self.make_alone(row) for row in rows]
                pending = deque((rows, self.submit(rows) if is_lost(old) else old) for rows, old in pending)
            yield from (with_inputs(prepared, torch.from_numpy) for prepared in made)

    def make_alone(self, row: KeyedRow) -> PreparedRows:
        """What the collator makes of one row; if the process ends it is left out."""
        try:
            return self.submit([row]).result()
        except BrokenExecutor:
            self.start()
            return row[0], [Batch([], {}, unreadable=[Unreadable(row[0], name_item(*row), KILLED)])]


def is_lost(future: Future) -> bool:
    """Whether a batch has to be made again: it was not done when the processes ended."""
    return not future.done() or isinstance(future.exception(), BrokenExecutor)


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


def collate_in_worker(rows: list[KeyedRow]) -> PreparedRows:
    """A batch with arrays instead of tensors, for which there may be too little shared memory."""
    return with_inputs(_collate(rows), torch.Tensor.numpy)


def with_inputs(prepared: PreparedRows, convert: Callable) -> PreparedRows:
    """The same with all inputs of the model converted."""
    first, batches = prepared
    converted = [{name: convert(values) for name, values in batch.inputs.items()} for batch in batches]
    return first, [batch._replace(inputs=inputs) for batch, inputs in zip(batches, converted)]

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""In which order a training reads its samples, and which process reads which."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

from accelerate import Accelerator
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

from .processes import fail_together, gather_max


class SampleKey(NamedTuple):
    """
    What a sampler asks the dataset for: a sample of a row.

    Args:
        epoch (`int`): The epoch, which its captions and its crop depend on.
        index (`int`): The index of its row.
        is_padding (`bool`): Whether it only fills a batch up: it is read as a black image without captions.
        row (`dict`, *optional*): The row itself, of a stream.
    """

    epoch: int
    index: int
    is_padding: bool = False
    row: dict | None = None


@dataclass
class BatchSampler:
    """
    This process's part of every global batch of an epoch, as keys of samples, of a permutation seeded with (seed,
    epoch). Where the last batch does not divide, some processes get a row of padding.

    Args:
        num_samples (`int`): How many samples there are.
        batch_size (`int`): The number of samples of a batch of one process.
        seed (`int`): The seed of the order.
        process_index (`int`): Which process this is.
        num_processes (`int`): The number of processes.
        epoch (`int`): The epoch.
        first_batch (`int`): The batch that a resumed run begins with.
    """

    num_samples: int
    batch_size: int
    seed: int
    process_index: int
    num_processes: int
    epoch: int = 0
    first_batch: int = 0

    def __len__(self) -> int:
        return math.ceil(self.num_samples / (self.batch_size * self.num_processes))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = list(range(self.num_samples))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        size = self.batch_size * self.num_processes
        for start in range(self.first_batch * size, len(order), size):
            indices = order[start : start + size]
            num_rows = math.ceil(len(indices) / self.num_processes)
            own = indices[self.process_index :: self.num_processes]
            keys = [SampleKey(self.epoch, index) for index in own]
            yield keys + [SampleKey(self.epoch, indices[0], is_padding=True)] * (num_rows - len(own))


@dataclass
class StreamBatchSampler:
    """
    This process's part of every global batch of an epoch of a shuffled stream, as keys that hold the row, its image
    undecoded. The processes divide the shards if their number is a multiple of that of the processes, otherwise the
    rows. A process at the end of its part gives rows of padding until the last process is there.

    Args:
        stream (`IterableDataset`): The shuffled rows, with undecoded images.
        batch_size (`int`): The number of samples of a batch of one process.
        accelerator (`Accelerator`): The processes.
        epoch (`int`): The epoch.
        first_batch (`int`): The batch that a resumed run begins with.
    """

    stream: IterableDataset
    batch_size: int
    accelerator: Accelerator
    epoch: int = 0
    first_batch: int = 0

    def __iter__(self) -> Iterator[list[SampleKey]]:
        keys = self.read_keys()
        for batch in count():
            with fail_together(self.accelerator):
                own = list(islice(keys, self.batch_size))
            (size,) = gather_max([len(own)], self.accelerator)
            if size == 0 and batch == 0:
                raise ValueError("The stream of the training data is empty: name another split, or other files.")
            if size == 0:
                return
            if batch >= self.first_batch:  # those before are read again, for the order to be that of a whole epoch
                yield own + [SampleKey(self.epoch, 0, is_padding=True)] * (size - len(own))

    def read_keys(self) -> Iterator[SampleKey]:
        """Reads the rows of this process, with their indices among those of all processes."""
        first = self.accelerator.process_index
        step = self.accelerator.num_processes
        part = split_dataset_by_node(self.stream, first, step)
        part.set_epoch(self.epoch)
        for index, row in enumerate(part):
            yield SampleKey(self.epoch, first + step * index, row=row)

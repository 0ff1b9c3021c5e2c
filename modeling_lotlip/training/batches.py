# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The order of the samples of an epoch, and the share of each process in every batch."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from accelerate import Accelerator
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

from .processes import fail_together, largest


@dataclass
class BatchSampler:
    """
    This process's part of every global batch of an epoch, as keys (epoch, index, is_padding).

    The order is a permutation seeded with (seed, epoch), cut into batches for all processes together. The last batch
    may be smaller: where it does not divide, some processes get a row of padding, an image that lacks all captions.
    """

    num_samples: int
    batch_size: int
    seed: int
    process_index: int
    num_processes: int
    epoch: int = 0
    first_batch: int = 0

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.num_processes

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.global_batch_size)

    def __iter__(self) -> Iterator[list[tuple]]:
        order = list(range(self.num_samples))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        for start in range(self.first_batch * self.global_batch_size, len(order), self.global_batch_size):
            indices = order[start : start + self.global_batch_size]
            num_rows = math.ceil(len(indices) / self.num_processes)
            own = indices[self.process_index :: self.num_processes]
            keys = [(self.epoch, index, False) for index in own]
            yield keys + [(self.epoch, indices[0], True)] * (num_rows - len(own))


@dataclass
class StreamBatchSampler:
    """
    The same of an epoch of a shuffled stream, as keys (epoch, index, is_padding, row).

    The stream is shared out over the processes, by shards where their number divides, else by rows. Rows are read here
    and decoded by the workers, whose number hence changes nothing. A process at the end of its share returns rows of
    padding until the last process is there.
    """

    stream: IterableDataset
    batch_size: int
    accelerator: Accelerator
    epoch: int = 0
    first_batch: int = 0

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.accelerator.num_processes

    def __iter__(self) -> Iterator[list[tuple]]:
        # the number of a row among those of all processes
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        share = split_dataset_by_node(self.stream, first, step)
        share.set_epoch(self.epoch)
        rows = ((self.epoch, first + step * place, False, row) for place, row in enumerate(share))
        for batch in count():
            with fail_together(self.accelerator):
                own = list(islice(rows, self.batch_size))
            size = largest(len(own), self.accelerator)
            if size == 0 and batch == 0:
                raise ValueError("The stream of the training data is empty: name another split, or other files.")
            if size == 0:
                return
            if batch >= self.first_batch:  # those before are read again, for the order to be that of a whole epoch
                yield own + [(self.epoch, 0, True, None)] * (size - len(own))

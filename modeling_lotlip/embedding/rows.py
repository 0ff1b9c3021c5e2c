# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The one way from rows to embeddings: images are read, bad ones skipped and named, texts sorted into batches of like
length, and the next batches made while the model computes.

A function says what is in a row, [`RowCollator`] makes batches of it, [`embed_rows`] embeds them:

```python
>>> from torch.utils.data import DataLoader
>>> from modeling_lotlip import LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor, LotlipTokenizer
>>> from modeling_lotlip.data.images import read_image, undecoded
>>> from modeling_lotlip.data.scenes import load_scenes
>>> from modeling_lotlip.embedding.rows import Item, NumberedRows, RowCollator, embed_rows, warn_of_unreadable

>>> def read_row(number, row):
...     yield Item(number, "image", read_image(row["image"]))
...     yield Item(number, "caption", row["caption"])

>>> one_layer = {"num_hidden_layers": 1}
>>> model = LotlipModel(LotlipConfig(text_config=one_layer, vision_config=one_layer)).eval()
>>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer())
>>> rows = NumberedRows(undecoded(load_scenes(4), "image"))
>>> loader = DataLoader(rows, batch_size=4, collate_fn=RowCollator(processor, read_row))
>>> for embedded in embed_rows(model, processor, loader):
...     warn_of_unreadable(embedded.unreadable)
...     print([(item.row, item.kind) for item in embedded.items], embedded.embeds.shape)
[(0, 'image'), (1, 'image'), (2, 'image'), (3, 'image')] torch.Size([4, 768])
[(0, 'caption'), (1, 'caption'), (2, 'caption'), (3, 'caption')] torch.Size([4, 768])
```

Rows need not be of a data set: whatever [`RowCollator`] is called with is a list of pairs of a key and something that
`read_row` understands, such as `[(name, None), ...]` for files.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.distributed
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader, get_worker_info
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import UnreadableImageError, name_row
from ..data.loading import leave_signals_to_the_main_process, split_by_process
from ..data.reader import Item
from ..terminal import printable
from .batches import PREFETCHED_BATCHES, Batch, embed_images, embed_texts, make_batches, prefetch, tokenize_and_count
from .features import prepare_images


logger = logging.getLogger(__name__)

# What image processors raise at an image that they cannot bring to their size: one too thin, say
PREPROCESSING_ERRORS = (MemoryError, RuntimeError, ValueError)


class Unreadable(NamedTuple):
    """
    A row that is left out.

    Args:
        key (`Any`):
            What the caller knows it by.
        name (`str`):
            How messages call it.
        problem (`str`):
            What is wrong with its image.
    """

    key: Any
    name: str
    problem: str


class PreparedRows(NamedTuple):
    """
    What [`RowCollator`] makes of some rows.

    Args:
        first (`Any`):
            The key of the first row.
        images, texts (`Batch`):
            What is in the rows; either may be empty.
        unreadable (`list[Unreadable]`):
            The rows that are left out.
    """

    first: Any
    images: Batch
    texts: Batch
    unreadable: list[Unreadable]


class EmbeddedItems(NamedTuple):
    """
    A result of [`embed_rows`].

    Args:
        group (`Any`):
            The group of rows that all of it belongs to.
        items (`list[Item]`):
            Images or texts of several rows.
        embeds (`torch.Tensor` of shape `(len(items), dim)`, *optional*):
            Their normalised embeddings in float32, of all tokens (len(items), tokens, dim); None without items.
        num_tokens (`int`):
            Of texts.
        unreadable (`list[Unreadable]`):
            The rows that were left out.
    """

    group: Any
    items: list[Item]
    embeds: torch.Tensor | None
    num_tokens: int
    unreadable: list[Unreadable]


class NumberedRows(torch.utils.data.Dataset):
    """
    The rows of a data set with their numbers, in the share of one of several processes.

    Args:
        dataset (`Dataset`):
            The data set.
        process_index, num_processes (`int`, *optional*, defaults to 0 and 1):
            Which share.
    """

    def __init__(self, dataset: Dataset, process_index: int = 0, num_processes: int = 1):
        self.dataset = dataset
        bounds = [len(dataset) * process // num_processes for process in (process_index, process_index + 1)]
        self.numbers = range(*bounds)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[int, dict]:
        return self.numbers[index], self.dataset[self.numbers[index]]


class NumberedStream(torch.utils.data.IterableDataset):
    """The rows of a stream with a number of each, which is its own in all workers of a data loader."""

    def __init__(self, stream: IterableDataset):
        self.stream = stream

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for place, row in enumerate(self.stream):
            yield first + step * place, row


# The key of a row, the row itself, and what is in it
ReadRow = tuple[Any, Any, list[Item]]


class RowCollator:
    """
    Reads, preprocesses and tokenizes what is in rows, in the workers of a data loader. A row whose image cannot be
    read is left out with its texts.

    Args:
        processor (`ProcessorMixin`):
            The model's processor.
        read_row (`Callable[[Any, Any], Iterable[Item]]`):
            The items of a key and a row. It raises an `UnreadableImageError` if the image cannot be read.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens. Default: the tokenizer's limit.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        read_row: Callable[[Any, Any], Iterable[Item]],
        max_length: int | None = None,
    ):
        self.processor = processor
        self.read_row = read_row
        self.max_length = max_length

    def __call__(self, rows: list[tuple[Any, Any]]) -> PreparedRows:
        read, unreadable = [], []
        for key, row in rows:
            try:
                read.append((key, row, list(self.read_row(key, row))))
            except UnreadableImageError as error:
                unreadable.append(Unreadable(key, name_item(key, row), str(error)))
        try:
            images = self.prepare_images(list_items(read))
        except PREPROCESSING_ERRORS:
            read, bad = self.drop_bad_images(read)
            unreadable += bad
            images = self.prepare_images(list_items(read))
        return PreparedRows(rows[0][0], images, self.prepare_texts(list_items(read)), unreadable)

    def prepare_images(self, items: list[Item]) -> Batch:
        """A batch of the images among items."""
        images = [item for item in items if item.kind == "image"]
        if not images:
            return Batch([], {})
        inputs = prepare_images(self.processor, [image.content for image in images])
        return Batch([image._replace(content=None) for image in images], inputs)

    def prepare_texts(self, items: list[Item]) -> Batch:
        """A batch of the texts among items."""
        texts = [item for item in items if item.kind != "image"]
        if not texts:
            return Batch([], {})
        tokens, truncated = tokenize_and_count(self.processor, [text.content for text in texts], self.max_length)
        return Batch([text._replace(truncated=is_cut) for text, is_cut in zip(texts, truncated)], tokens)

    def drop_bad_images(self, read: list[ReadRow]) -> tuple[list[ReadRow], list[Unreadable]]:
        """The rows whose images can be preprocessed, and the others."""
        good, bad = [], []
        for key, row, items in read:
            try:
                self.prepare_images(items)
                good.append((key, row, items))
            except PREPROCESSING_ERRORS as error:
                bad.append(Unreadable(key, name_item(key, row), str(error)))
        return good, bad


def list_items(read: list[ReadRow]) -> list[Item]:
    """All items of some rows."""
    return [item for _, _, items in read for item in items]


def name_item(key: Any, row: Any) -> str:
    """How messages call a row: see `name_row`; where it is none of a data set its key is the name."""
    return name_row(row, getattr(key, "number", key)) if isinstance(row, dict) else str(getattr(key, "key", key))


def load_rows(
    dataset: Dataset | IterableDataset,
    collator: RowCollator,
    batch_size: int = 64,
    num_workers: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
) -> DataLoader:
    """
    A loader of the rows of a data set, for [`embed_rows`].

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set, with undecoded images.
        collator ([`RowCollator`]):
            What it makes of the rows.
        batch_size (`int`, *optional*, defaults to 64):
            Rows that are prepared together.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that prepare them.
        process_index, num_processes (`int`, *optional*, defaults to 0 and 1):
            Of several processes each loads a share.
    """
    if isinstance(dataset, Dataset):
        rows = NumberedRows(dataset, process_index, num_processes)
    else:
        rows = NumberedStream(split_by_process(dataset, process_index, num_processes))
    return DataLoader(
        rows,
        batch_size=batch_size,
        collate_fn=collator,
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state, and with it a training, alone
    )


def gather_to_main(share: Any) -> list[Any]:
    """
    What each process has, in the order of the processes, for the main one alone: the others get an empty list, and
    need no memory for it.

    Args:
        share (`Any`):
            What this process has.
    """
    state = PartialState()
    if state.num_processes == 1:
        return [share]
    shares = [None] * state.num_processes if state.is_main_process else None
    torch.distributed.gather_object(share, shares)
    return shares or []


def embed_rows(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prepared: Iterable[PreparedRows],
    tokens_per_batch: int = 2048,
    group: Callable[[Any], Any] = lambda key: None,
    num_prefetched: int = PREFETCHED_BATCHES,
    lock: AbstractContextManager | None = None,
) -> Iterator[EmbeddedItems]:
    """
    Embeds rows, while a thread prepares the next ones.

    Args:
        model (`PreTrainedModel`):
            A dual encoder, in evaluation mode.
        processor (`ProcessorMixin`):
            Its processor.
        prepared (`Iterable[PreparedRows]`):
            A [`DataLoader`] with a [`RowCollator`], or any iterable of what that returns.
        tokens_per_batch (`int`, *optional*, defaults to 2048):
            The most tokens in a batch of texts, padding included.
        group (`Callable[[Any], Any]`, *optional*):
            The group of a row, by its key. Rows of a group follow each other, and [`RowCollator`] was not called with
            rows of several. Texts are sorted within a group: when the next one begins, this one is complete. Each
            group has a result, be it an empty one. Default: all rows are one group.
        num_prefetched (`int`, *optional*):
            So many batches are made ahead of the model.
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.

    Yields:
        [`EmbeddedItems`]: the images of rows as they come, texts in batches of like length.
    """

    prepared = groupby(prepared, key=lambda rows: group(rows.first))
    batches = (
        (key, batch)
        for key, parts in prepared
        for batch in make_batches(list_batches(parts), processor, tokens_per_batch)
    )
    for key, batch in prefetch(batches, depth=num_prefetched):
        embeds = None
        with lock or nullcontext():
            if "pixel_values" in batch.inputs:
                embeds = embed_images(model, batch.inputs)
            elif batch.entries:
                embeds = embed_texts(model, batch.inputs)
        yield EmbeddedItems(key, batch.entries, embeds, batch.num_tokens, batch.unreadable)


def list_batches(parts: Iterable[PreparedRows]) -> Iterator[Batch]:
    """The batches of some rows: for each part one of images, be it empty, and one of texts if there are any."""
    for part in parts:
        yield part.images._replace(unreadable=part.unreadable)
        if part.texts.entries:
            yield part.texts


def warn_of_unreadable(unreadable: list[Unreadable]) -> None:
    """Logs a warning for each row that was left out."""
    for _, name, problem in unreadable:
        logger.warning(printable(f"The image of {name} cannot be read and is left out: {problem.rstrip('.')}."))

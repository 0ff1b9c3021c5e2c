# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From rows to embeddings: images are read, bad ones left out and named, texts sorted into batches of like length, and
the next batches made while the model computes.

A function says what is in a row, [`RowCollator`] makes batches of it, [`embed_rows`] embeds them.
[`Workers`] makes the batches in other processes. Rows need not be of a data set: [`RowCollator`] takes lists of pairs
of a key and anything that `read_row` understands.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any

import torch.distributed
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import UnreadableImageError
from ..data.loading import split_by_process
from ..data.reader import Item
from ..data.rows import batched, name_row
from ..terminal import printable
from .batches import PREFETCHED_BATCHES, Batch, Unreadable, embed_batch, make_batches, prefetch, tokenize_and_count
from .features import prepare_images


logger = logging.getLogger(__name__)

# What image processors raise at an image that they cannot bring to their size: one too thin, say
PREPROCESSING_ERRORS = (MemoryError, RuntimeError, ValueError)

# A row by its key, and the key and the batches of rows: images, which may be none, and texts if there are any
KeyedRow = tuple[Any, Any]
PreparedRows = tuple[Any, list[Batch]]


class RowCollator:
    """
    Reads, preprocesses and tokenizes what is in rows. Of a row whose image cannot be read only the texts that
    `read_texts` finds are kept.

    Args:
        processor (`ProcessorMixin`):
            The model's processor.
        read_row (`Callable[[Any, Any], Iterable[Item]]`):
            The items of a key and a row. It raises an `UnreadableImageError` if the image cannot be read.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens. Default: the tokenizer's limit.
        read_texts (`Callable[[Any, Any], Iterable[Item]]`, *optional*):
            The texts of a key and a row whose image cannot be read. Default: none.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        read_row: Callable[[Any, Any], Iterable[Item]],
        max_length: int | None = None,
        read_texts: Callable[[Any, Any], Iterable[Item]] | None = None,
    ):
        self.processor, self.read_row, self.max_length, self.read_texts = processor, read_row, max_length, read_texts

    def __call__(self, rows: list[KeyedRow]) -> PreparedRows:
        read, unreadable = [], []
        for key, row in rows:
            try:
                read.append((key, row, list(self.read_row(key, row))))
            except UnreadableImageError as error:
                unreadable.append(Unreadable(key, name_item(key, row), str(error)))
                read.append((key, row, list(self.read_texts(key, row)) if self.read_texts else []))
        try:
            images = self.prepare_images(read)
        except PREPROCESSING_ERRORS:  # of one of them
            every, read = read, []
            for key, row, items in every:
                try:
                    self.prepare_images([(key, row, items)])
                    read.append((key, row, items))
                except PREPROCESSING_ERRORS as error:
                    unreadable.append(Unreadable(key, name_item(key, row), str(error)))
                    read.append((key, row, list(self.read_texts(key, row)) if self.read_texts else []))
            images = self.prepare_images(read)
        batches = [images._replace(unreadable=unreadable)]
        if texts := [item for *_, items in read for item in items if item.kind != "image"]:
            tokens, truncated = tokenize_and_count(self.processor, [text.content for text in texts], self.max_length)
            entries = [text._replace(truncated=is_truncated) for text, is_truncated in zip(texts, truncated)]
            batches.append(Batch(entries, tokens))
        return rows[0][0], batches

    def prepare_images(self, read: list[tuple[Any, Any, list[Item]]]) -> Batch:
        images = [item for *_, items in read for item in items if item.kind == "image"]
        inputs = prepare_images(self.processor, [image.content for image in images]) if images else {}
        return Batch([image._replace(content=None) for image in images], inputs)


def name_item(key: Any, row: Any) -> str:
    """How messages call a row: see `name_row`; where it is none of a data set its key is the name."""
    return name_row(row, getattr(key, "number", key)) if isinstance(row, dict) else str(getattr(key, "key", key))


def batch_rows(
    dataset: Dataset | IterableDataset, batch_size: int, process_index: int = 0, num_processes: int = 1
) -> Iterator[list[tuple[int, dict]]]:
    """
    The rows of a data set with their numbers, in lists of `batch_size`: the share of one of several processes. Of a
    stream each share is numbered from 0.
    """
    if isinstance(dataset, Dataset):
        bounds = (len(dataset) * process // num_processes for process in (process_index, process_index + 1))
        rows = ((number, dataset[number]) for number in range(*bounds))
    else:
        rows = enumerate(split_by_process(dataset, process_index, num_processes))
    return batched(rows, batch_size)


def gather_to_main(share: Any) -> list[Any]:
    """What each process has, in their order, for the main one alone: the others get an empty list."""
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
) -> Iterator[Batch]:
    """
    Embeds rows, while a thread prepares the next ones.

    Args:
        model (`PreTrainedModel`):
            A dual encoder, in evaluation mode.
        processor (`ProcessorMixin`):
            Its processor.
        prepared (`Iterable[PreparedRows]`):
            What a [`RowCollator`] returns.
        tokens_per_batch (`int`, *optional*, defaults to 2048):
            The most tokens in a batch of texts, padding included.
        group (`Callable[[Any], Any]`, *optional*):
            The group of a row, by its key. Rows of a group follow each other, and [`RowCollator`] was not called with
            rows of several. Texts are sorted within a group: when the next one begins, this one is complete. Each
            group has a batch, which may be empty. Default: all rows are one group.
        num_prefetched (`int`, *optional*):
            Batches that are made ahead of the model.
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.

    Yields:
        [`Batch`]: images as they come, texts in batches of like length, with `embeds` and `group`.
    """
    groups = groupby(prepared, key=lambda part: group(part[0]))
    batches = (
        batch._replace(group=key)
        for key, parts in groups
        for batch in make_batches((batch for _, made in parts for batch in made), processor, tokens_per_batch)
    )
    for batch in prefetch(batches, depth=num_prefetched):
        with lock or nullcontext():
            embeds = embed_batch(model, batch) if batch.entries else None
        yield batch._replace(inputs={}, embeds=embeds)


def warn_of_unreadable(unreadable: Iterable[Unreadable]) -> None:
    """Logs a warning for each row that was left out."""
    for _, name, problem in unreadable:
        logger.warning(printable(f"The image of {name} cannot be read and is left out: {problem.rstrip('.')}."))

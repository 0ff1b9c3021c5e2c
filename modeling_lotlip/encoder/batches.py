# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""From rows to embeddings: [`RowCollator`] and [`collate_rows`] read batches of rows, [`embed_rows`] embeds them."""

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from itertools import chain, groupby, islice
from threading import Thread
from typing import Any, NamedTuple

import torch.distributed
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from PIL import Image
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProcessorMixin
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from ..data.arguments import CaptionArguments
from ..data.images import IMAGE_ERRORS, UnreadableImageError, open_image, read_date, read_file, read_image
from ..data.loading import split_by_process
from ..data.reader import Item, RowInfo, RowReader
from ..data.rows import batched, name_row
from ..utils.files import hash_bytes
from ..utils.signals import leave_signals_to_the_main_process
from ..utils.terminal import printable
from .features import get_padding, image_features, in_trained_case, is_token_wise, prepare_images, text_features
from .lengths import group_by_length
from .models import check_single_embeddings


logger = logging.getLogger(__name__)

# Batches of texts in a window, inside which they are sorted by length: the more, the less padding
BATCHES_PER_WINDOW = 64
# Batches that are made ahead of the model
PREFETCHED_BATCHES = 8
TEXTS_PER_CHUNK = 256
ORIENTATION = 0x0112  # the tag of EXIF that says how an image is turned
# What a table can store: a time, and a side of an image in pixels
MAX_NANOSECONDS = 2**63 - 1
MAX_SIDE = 2**31 - 1
# What image processors raise at an image that they cannot bring to their size: one too thin, say
PREPROCESSING_ERRORS = (MemoryError, RuntimeError, ValueError)

# A row by its key, and the key and the batches of rows: images, which may be none, and texts if there are any
KeyedRow = tuple[Any, Any]
PreparedRows = tuple[Any, list["Batch"]]


def tokenize(
    processor: ProcessorMixin, texts: list[str], max_length: int | None = None, verbose: bool = True
) -> dict[str, torch.Tensor]:
    """
    Tokenizes texts as the model was trained on them, truncated at `max_length` tokens or the tokenizer's
    `model_max_length`; `verbose`: LoTLIP's tokenizer says so.
    """
    return processor.tokenizer(
        in_trained_case(processor, texts),
        padding=get_padding(processor),
        truncation=True,
        max_length=max_length,
        verbose=verbose,
        return_tensors="pt",
    )


def normalize(features: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Features (..., dim) as embeddings: normalised, and before that cut to `truncate_dim` if the model has one."""
    features = features[..., : getattr(model, "truncate_dim", None)].float()
    return torch.nn.functional.normalize(features, dim=-1).cpu()


@torch.inference_mode()
def embed_texts(model: PreTrainedModel, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """Normalised embeddings (texts, dim) in float32; of all tokens, zero at padding, if the model compares these."""
    tokens = {name: tensor.to(model.device) for name, tensor in tokens.items()}
    if is_token_wise(model):
        return model.get_text_token_embeds(**tokens).cpu()
    return normalize(text_features(model, tokens), model)


@torch.inference_mode()
def embed_images(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Normalised embeddings (images, dim) in float32 from what [`prepare_images`] returns: see [`embed_texts`]."""
    dtypes = {name: model.dtype if tensor.is_floating_point() else None for name, tensor in inputs.items()}
    inputs = {name: tensor.to(model.device, dtypes[name]) for name, tensor in inputs.items()}
    if is_token_wise(model):
        return model.get_image_token_embeds(**inputs).cpu()
    return normalize(image_features(model, inputs), model)


class Unreadable(NamedTuple):
    """A row that is left out."""

    key: Any  # what the caller knows it by
    name: str  # how messages call it
    problem: str  # what is wrong with its image
    is_final: bool = True  # whether the content of its file is the cause: see `UnreadableImageError`


class Batch(NamedTuple):
    """What the model computes at once."""

    entries: list  # what the caller knows each image or text by
    inputs: dict[str, torch.Tensor]  # of the model
    unreadable: Sequence[Unreadable] = ()  # rows that are left out
    embeds: torch.Tensor | None = None  # (entries, dim), normalised, in float32, once they are computed
    group: Any = None  # of rows, that all of it belongs to: see `embed_rows`


def tokenize_and_count(
    processor: ProcessorMixin, texts: list[str], max_length: int | None, verbose: bool = True
) -> tuple[dict[str, torch.Tensor], list[bool]]:
    """Tokens of texts, padded, and which texts were truncated."""
    tokens = tokenize(processor, texts, max_length, verbose)
    if tokens.encodings is not None:
        return dict(tokens), [bool(encoding.overflowing) for encoding in tokens.encodings]
    whole = processor.tokenizer(in_trained_case(processor, texts), truncation=False, verbose=False)["input_ids"]
    return dict(tokens), [len(ids) > tokens["input_ids"].shape[1] for ids in whole]


def sorted_batches(window: list[tuple], processor: ProcessorMixin, tokens_per_batch: int) -> Iterator[Batch]:
    """Batches of texts, given as pairs of entry and unpadded tokens: the longest first, of like length together."""
    lengths = [len(tokens["input_ids"]) for _, tokens in window]
    for places in group_by_length(lengths, tokens_per_batch, tokens_per_batch):  # as few batches as there can be
        entries, tokens = zip(*(window[place] for place in places))
        inputs = pad_without_fast_tokenizer_warning(processor.tokenizer, list(tokens), return_tensors="pt")
        yield Batch(list(entries), dict(inputs))


def make_batches(batches: Iterable[Batch], processor: ProcessorMixin, tokens_per_batch: int) -> Iterator[Batch]:
    """Batches of images as they come, and of padded texts anew, sorted by length inside a window."""
    window = []
    for batch in batches:
        if "input_ids" not in batch.inputs:
            yield batch
            continue
        mask = torch.ones_like(batch.inputs["input_ids"])
        if get_padding(processor) != "max_length":  # else padding is part of the text
            mask = batch.inputs.get("attention_mask", mask)
        mask = mask.bool()
        for text, entry in enumerate(batch.entries):
            window.append((entry, {name: values[text, mask[text]] for name, values in batch.inputs.items()}))
        if sum(len(tokens["input_ids"]) for _, tokens in window) >= BATCHES_PER_WINDOW * tokens_per_batch:
            yield from sorted_batches(window, processor, tokens_per_batch)
            window = []
    yield from sorted_batches(window, processor, tokens_per_batch)


def prefetch(items: Iterator, depth: int = PREFETCHED_BATCHES) -> Iterator:
    """The items of an iterator, which a thread fetches up to `depth` ahead."""
    done = object()
    with ThreadPoolExecutor(max_workers=1) as executor:
        pending = deque(executor.submit(next, items, done) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not done:
                pending.append(executor.submit(next, items, done))
                yield item
        finally:  # a caller that stops early waits for one item, not for all that are ahead
            executor.shutdown(cancel_futures=True)


def embed_batch(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The normalised embeddings of a batch in float32: see [`embed_images`] and [`embed_texts`]."""
    return (embed_images if "pixel_values" in batch.inputs else embed_texts)(model, batch.inputs)


class TableReader(RowReader):
    """
    Reads rows that are known by a [`RowInfo`], whose `about` is extended by what [`describe_file`] says of the image.

    Args:
        columns (`Iterable[str]`):
            The columns of the data set.
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
        about = dict(info.about or {})
        if self.image_column is not None:
            image = row[self.image_column] or {}
            if image.get("bytes") is None and os.path.isfile(image.get("path") or ""):
                about = sign_file(os.stat(image["path"])) | about
            content = read_file(image, self.formats)
            row = {**row, self.image_column: {"bytes": content, "path": None}}
            about |= describe_file(content, self.formats)
        for item in super().__call__(info.number, row):
            yield item._replace(row=info._replace(about=about))

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
    when it was `taken`. Formats that are not read have the hash alone: see [`read_image`].
    """
    facts = {"hash": hash_bytes(content)}
    try:
        image = open_image(content, formats)
        exif = image.getexif()
        width, height = image.size
        if exif.get(ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        if max(width, height) <= MAX_SIDE:
            facts |= {"width": width, "height": height}
        facts["taken"] = read_date(exif)
    except IMAGE_ERRORS:
        pass
    return facts


class RowCollator:
    """
    Reads, preprocesses and tokenizes what is in rows. `read_row` gives the items of a key and a row, or raises an
    `UnreadableImageError`; then only the texts that `read_texts` finds are kept.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        read_row: Callable[[Any, Any], Iterable[Item]],
        max_length: int | None = None,
        read_texts: Callable[[Any, Any], Iterable[Item]] | None = None,
    ):
        self.processor, self.read_row, self.max_length, self.read_texts = processor, read_row, max_length, read_texts

    def __call__(self, rows: list[KeyedRow], one_by_one: bool = False) -> PreparedRows:
        items, unreadable = [], []
        for key, row in rows:
            try:
                read = list(self.read_row(key, row))
                if one_by_one:
                    self.prepare_images(read)
            except UnreadableImageError as error:
                unreadable.append(Unreadable(key, name_item(key, row), str(error), error.is_final))
                read = list(self.read_texts(key, row)) if self.read_texts else []
            items += read
        try:
            batches = [self.prepare_images(items)._replace(unreadable=unreadable)]
        except UnreadableImageError:
            if one_by_one:
                raise
            return self(rows, one_by_one=True)  # finds which image it is
        if texts := [item for item in items if item.kind != "image"]:
            tokens, truncated = tokenize_and_count(self.processor, [text.content for text in texts], self.max_length)
            entries = [text._replace(truncated=is_truncated) for text, is_truncated in zip(texts, truncated)]
            batches.append(Batch(entries, tokens))
        return rows[0][0], batches

    def prepare_images(self, items: list[Item]) -> Batch:
        images = [item for item in items if item.kind == "image"]
        try:
            inputs = prepare_images(self.processor, [image.content for image in images]) if images else {}
        except PREPROCESSING_ERRORS as error:
            # errors of torch that say so of the memory are a RuntimeError
            raise UnreadableImageError(str(error), is_final=isinstance(error, ValueError)) from error
        return Batch([image._replace(content=None) for image in images], inputs)


def name_item(key: Any, row: Any) -> str:
    """How messages call a row: see `name_row`; where it is none of a data set its key is the name."""
    return name_row(row, getattr(key, "number", key)) if isinstance(row, dict) else str(getattr(key, "key", key))


def batch_rows(
    dataset: Dataset | IterableDataset, batch_size: int, process_index: int = 0, num_processes: int = 1
) -> Iterator[list[tuple[int, dict]]]:
    """The share of a process of numbered rows, in lists of `batch_size`. Of a stream each share begins at 0."""
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


def count_workers() -> int:
    """One for each core, 8 at most; of several processes on this machine each has its share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


class Collated:
    """What a data loader asks for rows: batches, or the error that they cause."""

    def __init__(self, collate: RowCollator):
        self.collate = collate

    def __getitem__(self, rows: list[KeyedRow]) -> PreparedRows | Exception:
        try:
            return self.collate(rows)
        except (LookupError, OSError, RuntimeError, ValueError) as error:  # the loader would make a traceback of it
            return error


def collate_rows(
    collate: RowCollator, batches: Iterable[list[KeyedRow]], num_workers: int | None = 0
) -> Iterator[PreparedRows]:
    """
    What a collator makes of batches of rows, in their order, some batches ahead, in `num_workers` processes (None: see
    [`count_workers`]); a single batch in this one. Raises a `RuntimeError` if a process ends.
    """
    num_workers, batches = count_workers() if num_workers is None else num_workers, iter(batches)
    first = list(islice(batches, 2))
    batches = chain(first, batches)
    if num_workers == 0 or len(first) < 2:
        yield from map(collate, batches)
        return
    # no forks: this process has threads, and a fork may hang on what they hold
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload([__name__])  # once for all, and without LanceDB, which takes a second
    loader = DataLoader(
        Collated(collate),
        batch_size=None,
        sampler=batches,  # rows are what it takes for indices
        num_workers=num_workers,
        collate_fn=as_it_is,
        multiprocessing_context=context,
        worker_init_fn=set_up_worker,
        generator=torch.Generator(),  # or it draws from that of all
    )
    try:
        for made in loader:
            if isinstance(made, Exception):
                raise made
            yield made
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise RuntimeError(
            f"A process that decodes images has ended: is an image damaged, or too large for the memory? ({error})"
        ) from error


def as_it_is(made: PreparedRows | Exception) -> PreparedRows | Exception:
    return made


def set_up_worker(worker: int) -> None:
    """What a worker does first. It gives way to the model, which waits for it only when it has to."""
    leave_signals_to_the_main_process(worker)
    Thread(target=end_with_the_main_process, daemon=True).start()
    if hasattr(os, "nice"):  # Windows has none
        os.nice(10)


def end_with_the_main_process() -> None:
    """Ends a worker of a fork server, which its process does not, when the process that it works for is gone."""
    multiprocessing.parent_process().join()
    os._exit(1)


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
    Embeds what a [`RowCollator`] returns, while a thread prepares the next `num_prefetched` batches: images as they
    come, texts in batches of like length with at most `tokens_per_batch` tokens. `lock` is entered while the model
    computes. Texts are sorted within a `group` of rows, which a key tells: when the next one begins, this one is
    complete. Each group has a batch, which may be empty. Default: all rows are one group.
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
    for row in unreadable:
        problem = row.problem.rstrip(".")
        logger.warning(printable(f"The image of {row.name} cannot be read and is left out: {problem}."))


def embed_corpus(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    tokens_per_batch: int = 2048,
    max_length: int | None = None,
) -> torch.Tensor:
    """
    Normalised embeddings (num_texts, dim) of texts in float32, in their order, computed in batches of like length. A
    text is truncated at `max_length` tokens or the tokenizer's `model_max_length`. Raises a `ValueError` if there are
    no texts, or the model compares tokens.
    """
    if not texts:
        raise ValueError("`texts` is empty: give at least one text.")
    check_single_embeddings(model)
    parts = batched(enumerate(texts), TEXTS_PER_CHUNK)
    collate = RowCollator(processor, lambda place, text: [Item(place, "text", text)], max_length)
    embeds, num_truncated = None, 0
    for batch in embed_rows(model, processor, map(collate, parts), tokens_per_batch):
        if batch.entries:
            embeds = batch.embeds.new_empty(len(texts), batch.embeds.shape[1]) if embeds is None else embeds
            embeds[[item.row for item in batch.entries]] = batch.embeds
            num_truncated += sum(item.truncated for item in batch.entries)
    if num_truncated > 0:
        logger.warning(f"{num_truncated} of {len(texts)} texts were truncated.")
    return embeds

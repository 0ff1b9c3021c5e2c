# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Embeds the images and captions of a data set into a table; a run that was stopped goes on where it was."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from copy import copy
from glob import glob
from importlib import resources
from itertools import groupby
from operator import attrgetter
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher

from ..data.arguments import CaptionArguments, SourceArguments
from ..data.images import undecoded
from ..data.loading import compute_fingerprint, find_file_names, get_columns, load_split, make_builder
from ..data.reader import RowInfo, RowReader
from ..data.rows import find_column
from ..encoder.arguments import KINDS, StoreArguments
from ..encoder.batches import (
    EmbeddedBatch,
    RowCollator,
    TableReader,
    collate_rows,
    embed_rows,
    warn_of_unreadable,
)
from ..encoder.dual_encoder import DualEncoder
from ..utils.output_folder import describe_unfinished
from ..utils.terminal import progress_bar
from .storage import EmbeddingTable


# Rows whose captions are sorted by length together
GROUP_SIZE = 1024
# Rows of the table that are written at once, or fewer after these seconds
WRITE_SIZE, WRITE_SECONDS = 512, 30


def embed_to_table(
    encoder: DualEncoder,
    dataset: Dataset | IterableDataset,
    store: StoreArguments,
    captions: CaptionArguments | None = None,
    image_column: str = "image",
    batch_size: int = 64,
    source: dict[str, Any] | None = None,
    notes: dict[str, Any] | None = None,
) -> EmbeddingTable:
    """
    Embeds the images and captions of a data set into a table, or resumes a stopped run. Images that cannot be read are
    left out and named. Several processes share the rows. `source` names the data and is compared when the run is
    resumed, `notes` are kept with the table. Raises a `ValueError` if the folder holds embeddings with other settings,
    another run writes to it, a column is not there, or two rows have the same key.
    """
    state, is_streamed = PartialState(), not isinstance(dataset, Dataset)
    captions = None if store.only == "images" else captions or CaptionArguments()
    image_column = None if store.only == "texts" else image_column
    reader = TableReader(
        get_columns(dataset),
        captions,
        image_column=image_column,
        key_column=store.key_column or find_file_names(dataset),
        resizing=encoder.preprocessing.resizing,
    )
    columns = {"image": image_column, "short": reader.short_column, "long": reader.long_column}
    settings = encoder.settings() | {"source": source, "key_column": reader.key_column}
    settings |= {"columns": columns, "kinds": [kind for kind in KINDS if columns[kind] is not None]}
    settings |= {"sub_caption_splitter": reader.splitter, "max_length": encoder.max_length}
    settings |= {"data": None if is_streamed else compute_fingerprint(dataset, image_column)}
    if not is_streamed and reader.key_column is not None:
        for _ in check_keys(dataset.select_columns([find_column(dataset.column_names, reader.key_column)]), reader):
            pass
    notes = (notes or {}) | {"num_rows": None if is_streamed else len(dataset)}
    if state.is_main_process:
        EmbeddingTable.create(store.output_dir, encoder.dim, settings, notes, store.storage_dtype)
    state.wait_for_everyone()
    table = EmbeddingTable(store.output_dir)
    with table.writing() if state.is_main_process else nullcontext():
        dataset = dataset.select_columns(reader.columns)
        if image_column is not None:
            dataset = undecoded(dataset, image_column)
        # one process embeds and writes the rows of a group together
        group_size, done = batch_size if store.only == "images" else GROUP_SIZE, table.rows_done()

        def is_due(number: int) -> bool:
            return number // group_size % state.num_processes == state.process_index and number not in done

        if is_streamed:
            due, total = (row for row in check_keys(dataset, reader) if is_due(row[0])), None
        else:
            numbers = [number for number in range(len(dataset)) if is_due(number)]
            due, total = ((number, dataset[number]) for number in numbers), len(numbers)
        batches = (
            [(RowInfo(number, str(reader.read_key(number, row))), row) for number, row in batch]
            for _, batch in groupby(due, lambda row: (row[0] // group_size, row[0] % group_size // batch_size))
        )
        read_texts = copy(reader)
        read_texts.image_column = None
        collate = RowCollator(encoder.preprocessing, reader, read_texts)
        prepared = collate_rows(collate, batches, store.dataloader_num_workers)
        results = embed_rows(encoder, prepared, store.tokens_per_batch, group=lambda info: info.number // group_size)
        with closing(show_progress(results, total, disable=not state.is_local_main_process)) as results:
            write_batches((list(parts) for _, parts in groupby(results, attrgetter("group"))), table.append)
        state.wait_for_everyone()
        if state.is_main_process:
            table.maintain(lambda: embed_background(encoder))
    return table


def check_keys(rows: Iterable[dict], reader: RowReader) -> Iterator[tuple[int, dict]]:
    """The rows with their numbers. Raises a `ValueError` if a key is no string or integer, or two rows have it."""
    numbers = {}
    for number, row in enumerate(rows):
        if reader.key_column is not None:
            key = reader.read_key(number, row)
            if (other := numbers.setdefault(hash(str(key)), number)) != number:
                raise ValueError(
                    f"`--key_column {reader.key_column}` must be different in all rows: rows {other} and {number} "
                    f"have {key!r}. Name another column."
                )
        yield number, row


def name_data(source: SourceArguments, split: str, max_samples: int | None) -> dict[str, Any]:
    """The arguments that name rows, for [`load_named_data`], with absolute paths, and the hash of a stream's files."""

    def resolve(path: str | None) -> str | None:
        return os.path.abspath(path) if path and "://" not in path and glob(path, recursive=True) else path

    named = vars(source) | {"dataset_name": resolve(source.dataset_name), "data_dir": resolve(source.data_dir)}
    named |= {"data_files": source.data_files and [resolve(path) for path in source.data_files]}
    return named | {"eval_split": split, "max_eval_samples": max_samples, "files": hash_files(source, split)}


def hash_files(source: SourceArguments, split: str) -> str | None:
    """A hash of the names and times of the files of a split that is streamed."""
    if not source.streaming or source.dataset_name is None:
        return None
    builders = (make_builder(source, part) for part in split.split("+"))
    return Hasher.hash([(builder.config.data_files or {}).get(name) for builder, name in builders])


def load_named_data(named: dict[str, Any], **options: Any) -> Dataset | IterableDataset:
    """The rows that [`name_data`] names, with options of [`load_split`]."""
    source = {name: value for name, value in named.items() if name not in ("eval_split", "max_eval_samples", "files")}
    return load_split(SourceArguments(**source), named["eval_split"], named["max_eval_samples"], **options)


def embed_background(encoder: DualEncoder) -> torch.Tensor:
    """
    Returns the normalized embeddings, of shape `(texts, dim)`, of texts that fit no image, by which a table is
    measured.
    """
    texts = resources.files(__package__).joinpath("background_texts.txt").read_text(encoding="utf-8")
    return encoder.encode_text(texts.splitlines(), convert_to_tensor=True)


def note_model(encoder: DualEncoder) -> dict[str, str | None]:
    """Returns by what a model is found again, also from another folder, and its revision on the Hub."""
    name = encoder.name
    if os.path.exists(name):
        name = os.path.abspath(name)
    return {"model_name_or_path": name, "revision": encoder.revision}


def to_rows(batch: EmbeddedBatch) -> list[dict]:
    """The rows of a table of what is embedded, and of images that cannot be read. Refuses what is not finite."""
    rows = []
    for item, embedding in zip(batch.entries, batch.embeds if batch.entries else ()):
        if not embedding.isfinite().all():
            raise ValueError(f"The model's embedding of {item.row.key} holds NaN or infinity: choose a wider --dtype.")
        found = {"kind": item.kind, "position": item.index, "truncated": item.truncated, "embedding": embedding}
        rows.append({"key": item.row.key, "row": item.row.number, **item.row.about, **found})
    for row in batch.unreadable:
        info = row.key
        rows.append({"key": info.key, "row": info.number, **(info.about or {}), "problem": row.problem})
    return rows


def write_batches(groups: Iterable[list[EmbeddedBatch]], write: Callable[[list[dict]], None]) -> None:
    """
    Writes what is embedded, in parts of `WRITE_SIZE` rows or `WRITE_SECONDS`. Whatever ends it, an error or Ctrl-C,
    the groups that are complete are written.
    """
    rows, written_at = [], time.monotonic()
    try:
        for group in groups:
            rows += [row for batch in group for row in to_rows(batch)]
            if len(rows) >= WRITE_SIZE or time.monotonic() - written_at >= WRITE_SECONDS:
                written, rows = rows, []
                write(written)
                written_at = time.monotonic()
    finally:
        if rows:
            write(rows)


def show_progress(batches: Iterator[EmbeddedBatch], total: int | None, disable: bool) -> Iterator[EmbeddedBatch]:
    """The batches, with a bar of the rows that are done; rows that are left out are named."""
    seen = set()
    with progress_bar(total=total, desc="Embedding", unit=" rows", disable=disable or total == 0) as progress:
        for batch in batches:
            warn_of_unreadable(batch.unreadable)
            new = {item.row.number for item in batch.entries} | {row.key.number for row in batch.unreadable}
            progress.update(len(new - seen))
            seen |= new
            yield batch


def describe_missing(table: EmbeddingTable) -> list[str]:
    """A sentence on a table that a run has not completed, or nothing."""
    if (unfinished := describe_unfinished(table.folder)) is None:
        return []
    num_rows, expected = len(table.rows_done() - {None}), table.notes.get("num_rows")
    state = f"{num_rows:,} of {expected:,} rows are embedded." if expected else "Not all rows are embedded."
    return [] if num_rows == expected else [f"{unfinished} {state}"]

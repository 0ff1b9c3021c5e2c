# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Embeds the images and captions of a dataset into a table; a run that was stopped goes on where it was."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from glob import glob
from importlib import resources
from itertools import groupby, islice, zip_longest
from operator import attrgetter
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher
from torch import nn

from ..data.arguments import CaptionArguments, SourceArguments, is_folder_of_data
from ..data.builders import make_builder
from ..data.folder import is_image_file
from ..data.image_folder import find_file_names
from ..data.images import find_image_path, name_readers, undecoded, unformatted
from ..data.loading import load_split
from ..data.reader import RowInfo, RowReader
from ..data.rows import batched, find_column
from ..encoder.arguments import AUTO, KINDS, InferenceArguments, StoreArguments
from ..encoder.batches import (
    EmbeddedBatch,
    RowCollator,
    TableReader,
    collate_rows,
    embed_rows,
    sign_file,
    warn_of_unreadable,
)
from ..encoder.dual_encoder import DualEncoder, load_encoder
from ..encoder.finite import check_finite_batch
from ..utils.files import hash_file
from ..utils.output_folder import describe_unfinished
from ..utils.terminal import progress_bar
from .fingerprint import hash_rows
from .storage import EmbeddingTable
from .thresholds import maintain


logger = logging.getLogger(__name__)

# More than a background text has, which is of 20 words at most
MAX_BACKGROUND_TOKENS = 64
# Rows whose captions are sorted by length together
GROUP_SIZE = 1024
# Files whose signatures are compared at once
NUM_FILES_AT_ONCE = 1_000
# Rows of the table that are written at once, or fewer after these seconds
WRITE_SIZE = 512
WRITE_SECONDS = 30


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
    Embeds the images and captions of a dataset into a table, or resumes a stopped run. Images that cannot be read are
    left out and named; a later run tries those again whose content is not the cause. Several processes share the rows.

    Args:
        encoder ([`DualEncoder`]):
            Embeds them.
        dataset (`Dataset` or `IterableDataset`):
            The rows, with undecoded images or decoded ones.
        store ([`StoreArguments`]):
            The table, and what is stored there.
        captions ([`CaptionArguments`], *optional*):
            Which columns have captions.
        image_column (`str`, *optional*, defaults to `"image"`):
            Which column has images.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
        source (`dict`, *optional*):
            What the data are, which is compared when the run is resumed: see [`name_data`].
        notes (`dict`, *optional*):
            What else is kept with the table.

    Returns:
        [`EmbeddingTable`]: the table.

    Raises:
        `ValueError`: if the folder holds embeddings with other settings, another run writes to it, a column is not
            there, or two rows have the same key.
    """
    state = PartialState()
    dataset = unformatted(dataset)
    reader = make_reader(dataset, encoder, store, captions, image_column)
    settings = {
        **encoder.settings(),
        "source": source,
        **reader_settings(reader),
        "data": None,
    }
    num_rows = None
    if isinstance(dataset, Dataset):
        num_rows = len(dataset)
        settings["data"] = hash_rows(dataset, settings)
        check_all_keys(dataset, reader)
    if state.is_main_process:
        all_notes = (notes or {}) | {"num_rows": num_rows}
        EmbeddingTable.create(store.output_dir, encoder.dim, settings, all_notes, store.storage_dtype)
    state.wait_for_everyone()
    table = EmbeddingTable(store.output_dir)
    if num_rows is None and source is None and not table.is_empty and state.is_main_process:
        logger.warning(
            f"Nothing says whether this stream has the rows that {table.folder} holds: name what it reads by `source`."
        )
    replaced = set()
    if isinstance(dataset, Dataset) and reader.image_column is not None:
        replaced = check_files_of_rows(dataset, reader.image_column, table)
    elif state.is_main_process and reader.image_column is not None:
        replaced = find_replaced_files(dataset, reader.image_column, table)
    with table.writing() if state.is_main_process else nullcontext():
        if state.is_main_process:
            table.add_missing_columns()
            table.delete_rows_to_try_again(replaced)
        state.wait_for_everyone()
        group_size = GROUP_SIZE
        if store.only == "images":
            group_size = batch_size
        due = find_due_rows(dataset, reader, group_size, table)
        batches = make_batches_of_rows(due.rows, reader, group_size, batch_size)
        text_reader = copy(reader)  # of rows whose image cannot be read
        text_reader.image_column = None
        collate = RowCollator(encoder.preprocessing, reader, text_reader)
        prepared = collate_rows(collate, batches, store.dataloader_num_workers)

        def find_group(info: RowInfo) -> int:
            return info.row_index // group_size

        results = embed_rows(encoder, prepared, store.tokens_per_batch, group=find_group)
        is_hidden = not state.is_local_main_process
        with closing(show_progress(results, encoder, due.count, is_hidden)) as results:
            groups = groupby(results, attrgetter("group"))
            write_batches((list(parts) for _, parts in groups), table.append, encoder.model)
        state.wait_for_everyone()
        if state.is_main_process:
            maintain(table, lambda: embed_background(encoder))
    return table


def make_reader(
    dataset: Dataset | IterableDataset,
    encoder: DualEncoder,
    store: StoreArguments,
    captions: CaptionArguments | None,
    image_column: str,
) -> TableReader:
    """
    Makes the reader of what is stored of a dataset.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        encoder ([`DualEncoder`]):
            What embeds them.
        store ([`StoreArguments`]):
            What is stored.
        captions ([`CaptionArguments`], *optional*):
            The columns of captions.
        image_column (`str`):
            The column of images.

    Returns:
        [`TableReader`]: the reader.
    """
    captions = captions or CaptionArguments()
    if store.only == "images":
        captions = None
    if store.only == "texts":
        image_column = None
    return TableReader.of(
        dataset,
        captions,
        image_column=image_column,
        key_column=store.key_column or find_unique_names(dataset),
        resizing=encoder.preprocessing.resizing,
    )


def find_unique_names(dataset: Dataset | IterableDataset) -> str | None:
    """
    Finds the column of the names of images in a folder of them. None where several rows name one image, as those of
    metadata may: a warning says that rows are known by their indices. Of a stream it is not known before its end.
    """
    column = find_file_names(dataset)
    if column is None or not isinstance(dataset, Dataset):
        return column
    names = [name for name in dataset[column][:] if name is not None]
    if len(set(names)) == len(names):
        return column
    logger.warning(
        f"{len(names)} rows name {len(set(names))} images, and so the keys are the indices of the rows. Where they "
        "shall be paths, write a row for each image, with a list of captions."
    )
    return None


def reader_settings(reader: TableReader) -> dict[str, Any]:
    """Collects what of a reader embeddings depend on."""
    columns = {"image": reader.image_column, "short": reader.short_column, "long": reader.long_column}
    return {
        "key_column": reader.key_column,
        "columns": columns,
        "kinds": [kind for kind in KINDS if columns[kind] is not None],
        "sub_caption_splitter": reader.splitter,
    }


@dataclass
class DueRows:
    """
    The rows that a process has to embed.

    Args:
        rows (`Iterable[tuple[int, dict]]`):
            The rows with their indices.
        count (`int`, *optional*):
            How many there are; None of a stream.
    """

    rows: Iterable[tuple[int, dict]]
    count: int | None


def find_due_rows(
    dataset: Dataset | IterableDataset,
    reader: TableReader,
    group_size: int,
    table: EmbeddingTable,
) -> DueRows:
    """
    Finds the rows that this process has to embed.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            All rows.
        reader ([`TableReader`]):
            Reads them.
        group_size (`int`):
            Rows in a group, all of which one process embeds and writes together.
        table ([`EmbeddingTable`]):
            What is embedded.

    Returns:
        [`DueRows`]: the rows, with undecoded images.
    """
    state = PartialState()
    done = table.rows_done()
    dataset = dataset.select_columns(reader.columns)
    if reader.image_column is not None:
        dataset = undecoded(dataset, reader.image_column)

    def is_due(row_index: int) -> bool:
        return row_index // group_size % state.num_processes == state.process_index and row_index not in done

    if not isinstance(dataset, Dataset):
        rows = check_files_of_stream(check_keys(dataset, reader), reader, table)
        return DueRows((row for row in rows if is_due(row[0])), None)
    indices = [row_index for row_index in range(len(dataset)) if is_due(row_index)]
    return DueRows(((row_index, dataset[row_index]) for row_index in indices), len(indices))


def check_files_of_rows(dataset: Dataset, image_column: str, table: EmbeddingTable) -> set[int]:
    """
    Checks that the image files of rows have the content that was embedded, whatever their times and rights.

    Args:
        dataset (`Dataset`):
            The rows.
        image_column (`str`):
            The column of images.
        table ([`EmbeddingTable`]):
            What is embedded.

    Returns:
        `set[int]`: the rows whose file could not be read, and is another one since.

    Raises:
        `ValueError`: if the content of a file has changed since it was embedded.
    """
    images = undecoded(dataset.select_columns(image_column), image_column)
    embedded = find_files_with_other_signatures(images, image_column, table, table.condition())
    missing = []
    for part in batched(embedded, NUM_FILES_AT_ONCE):
        hashes = table.read_hashes([row_index for row_index, _ in part])
        for row_index, path in part:
            if os.path.isfile(path):
                check_content(table, path, hashes.get(row_index))
            else:
                missing.append(path)
    if missing:
        logger.warning(
            f"{len(missing)} of the image files that were embedded are not there any more, as "
            f"{missing[0]}: their embeddings stay in {table.folder}."
        )
    unreadable = find_files_with_other_signatures(images, image_column, table, "problem IS NOT NULL")
    return {row_index for row_index, path in unreadable if os.path.isfile(path)}


def find_files_with_other_signatures(
    images: Dataset, image_column: str, table: EmbeddingTable, where: str
) -> Iterator[tuple[int, str]]:
    """
    Yields the indices and paths of image files that have another signature than in a table, or are not there.

    Args:
        images (`Dataset`):
            The undecoded images of all rows.
        image_column (`str`):
            Their column.
        table ([`EmbeddingTable`]):
            What is embedded.
        where (`str`):
            The condition of the rows of the table.
    """
    signatures = table.read_signatures(where, by="row")
    of_files = ((row_index, stored) for row_index, stored in signatures if stored)
    for part in batched(of_files, NUM_FILES_AT_ONCE):
        indices = [row_index for row_index, _ in part]
        for (row_index, stored), image in zip(part, images[indices][image_column]):
            path = find_image_path(image)
            if not os.path.isfile(path) or sign_file(os.stat(path)) != stored:
                yield row_index, path


def find_replaced_files(stream: IterableDataset, image_column: str, table: EmbeddingTable) -> set[int]:
    """
    Finds the rows of a stream whose image file could not be read, and is another one since. The stream is read up to
    the last one that could not be read.
    """
    signatures = table.read_signatures("problem IS NOT NULL", by="row")
    unreadable = {row_index: stored for row_index, stored in signatures if stored}
    images = undecoded(stream.select_columns(image_column), image_column)
    replaced = set()
    for row_index, row in enumerate(islice(images, max(unreadable, default=-1) + 1)):
        path = find_image_path(row[image_column])
        is_there = row_index in unreadable and os.path.isfile(path)
        if is_there and sign_file(os.stat(path)) != unreadable[row_index]:
            replaced.add(row_index)
    return replaced


def check_files_of_stream(
    rows: Iterable[tuple[int, dict]], reader: TableReader, table: EmbeddingTable
) -> Iterator[tuple[int, dict]]:
    """
    Passes on the rows of a stream with their indices. The image files that it names are not in the settings of its
    table: [`hash_rows`] needs all rows.

    Raises:
        `ValueError`: if the content of a file has changed since it was embedded.
    """
    stored = {}
    if reader.image_column is not None:
        stored = {key: signature for key, signature in table.read_signatures(table.condition()) if signature}
    for row_index, row in rows:
        if stored:
            path = find_image_path(row[reader.image_column])
            key = str(reader.read_key(row_index, row))
            if key in stored and os.path.isfile(path) and stored[key] != sign_file(os.stat(path)):
                check_content(table, path, table.read_hash(key))
        yield row_index, row


def check_content(table: EmbeddingTable, path: str, stored_hash: str | None) -> None:
    """
    Raises a `ValueError` if the content of an image file is not that which was embedded.

    Args:
        table ([`EmbeddingTable`]):
            What is embedded.
        path (`str`):
            The file.
        stored_hash (`str`, *optional*):
            The hash of what was embedded.
    """
    if hash_file(path) != stored_hash:
        raise ValueError(
            f"The data have changed since {table.folder} was made, as {path}: name another folder, or delete it."
        )


def make_batches_of_rows(
    rows: Iterable[tuple[int, dict]], reader: TableReader, group_size: int, batch_size: int
) -> Iterator[list[tuple[RowInfo, dict]]]:
    """
    Makes batches of rows, none of which has rows of two groups.

    Args:
        rows (`Iterable[tuple[int, dict]]`):
            The rows with their indices.
        reader ([`TableReader`]):
            Reads their keys.
        group_size (`int`):
            The number of rows of a group.
        batch_size (`int`):
            The max number of rows of a batch.

    Returns:
        `Iterator[list[tuple[RowInfo, dict]]]`: the rows with what they are known by.
    """

    def find_batch(row: tuple[int, dict]) -> tuple[int, int]:
        row_index = row[0]
        return row_index // group_size, row_index % group_size // batch_size

    for _, batch in groupby(rows, find_batch):
        yield [(make_row_info(row_index, row, reader), row) for row_index, row in batch]


def make_row_info(row_index: int, row: dict, reader: RowReader) -> RowInfo:
    """Makes what a row is known by, with the signature of its image file, also if that cannot be read."""
    signature = None
    if reader.image_column is not None:
        image = row[reader.image_column] or {}
        path = find_image_path(image)
        if image.get("bytes") is None and os.path.isfile(path):
            signature = sign_file(os.stat(path))
    return RowInfo(row_index, str(reader.read_key(row_index, row)), file_facts=signature)


def check_all_keys(dataset: Dataset, reader: RowReader) -> None:
    """Checks the keys of all rows, if there is a column of them: see [`check_keys`]."""
    if reader.key_column is not None:
        column = find_column(dataset.column_names, reader.key_column)
        keys = dataset.select_columns([column])
        if column == reader.image_column:
            keys = undecoded(keys, column)
        for _ in check_keys(keys, reader):
            pass


def check_keys(rows: Iterable[dict], reader: RowReader) -> Iterator[tuple[int, dict]]:
    """
    Numbers the rows. Raises a `ValueError` if a key is no string or integer, or two rows have it.
    """
    indices = {}
    for row_index, row in enumerate(rows):
        if reader.key_column is not None:
            key = reader.read_key(row_index, row)
            other = indices.setdefault(hash(str(key)), row_index)
            if other != row_index:
                raise ValueError(
                    f"`--key_column {reader.key_column}` must be different in all rows: rows {other} "
                    f"and {row_index} have {key!r}. Name another column."
                )
        yield row_index, row


def name_data(source: SourceArguments, split: str, max_samples: int | None) -> dict[str, Any]:
    """
    Collects the arguments that name rows, for [`load_named_data`], with absolute paths, and the hash of a stream's
    files.
    """
    named = vars(source) | {"eval_split": split, "max_eval_samples": max_samples, "files": hash_files(source, split)}
    if is_folder_of_data(source):  # in which the others are
        named["dataset_name"] = os.path.abspath(source.dataset_name)
        return named
    if "/" in (source.dataset_name or ""):  # of the Hub, in whose repository the others are
        return named
    named["data_dir"] = make_absolute(source.data_dir)
    if source.data_files and not source.data_dir:
        named["data_files"] = [make_absolute(path) for path in source.data_files]
    return named


def make_absolute(path: str | None) -> str | None:
    """Makes the path of a file or a folder absolute, or a pattern of such; the name of a dataset stays as it is."""
    if not path or "://" in path:
        return path
    # not by the pattern alone, which a name such as "photos [2024]" is as well
    if os.path.exists(path) or glob(path, recursive=True):
        return os.path.abspath(path)
    return path


def hash_files(source: SourceArguments, split: str) -> str | None:
    """
    Hashes the names of the files of a split that is streamed, and the times of those that are no images, whose content
    is compared: see [`check_files_of_stream`].
    """
    if not source.streaming or source.dataset_name is None:
        return None
    builders = (make_builder(source, part) for part in split.split("+"))
    hasher = Hasher()
    for builder, name in builders:
        files = builder.config.data_files or {}
        names = [name] if name in files else list(files)  # of "all" all splits
        for part in names:
            for file, signature in zip_longest(files[part], files[part].origin_metadata):
                is_image = file is not None and is_image_file(file)
                hasher.update((file, None if is_image else signature))
    return hasher.hexdigest()


def load_named_data(named: dict[str, Any], **options: Any) -> Dataset | IterableDataset:
    """Loads the rows that [`name_data`] names, with options of [`load_split`]."""
    others = ("eval_split", "max_eval_samples", "files")
    source = SourceArguments(**{name: value for name, value in named.items() if name not in others})
    return load_split(source, named["eval_split"], named["max_eval_samples"], **options)


def embed_background(encoder: DualEncoder) -> torch.Tensor:
    """
    Computes the normalized embeddings, of shape `(num_texts, dim)`, of texts that fit no image, by which a table is
    measured.
    """
    texts = resources.files(__package__).joinpath("background_texts.txt").read_text(encoding="utf-8")
    # Whole, whatever `--max_length` of this run is: a table is shared by runs with others
    own_limit = encoder.preprocessing.tokenizer.model_max_length
    limit = max(encoder.max_length, min(own_limit, MAX_BACKGROUND_TOKENS))
    # not by `encode_text`, which counts the truncated ones: they are no texts of the user
    return encoder.embed_texts(encoder.preprocessing.tokenize(texts.splitlines(), limit).inputs)


def note_model(encoder: DualEncoder) -> dict[str, str | None]:
    """Notes by which name a model is found again, also from another folder, and its revision on the Hub."""
    return {"model_name_or_path": find_lasting_name(encoder.name), "revision": encoder.revision}


def find_lasting_name(name: str) -> str:
    """Returns by which name a model is found again, also from another folder."""
    if os.path.exists(name):
        return os.path.abspath(name)
    return name


def load_encoder_of_table(table: EmbeddingTable, name: str, arguments: InferenceArguments) -> DualEncoder:
    """
    Loads the model of a table, computed as the table was where the arguments leave it open.

    Args:
        table ([`EmbeddingTable`]): The table.
        name (`str`): A Hub id or a folder.
        arguments ([`InferenceArguments`]): How it runs. What is `auto` or not given is set to what the table was made
            with.

    Raises:
        `ValueError`: if it is another model, or cannot be computed here as the table was.
    """
    is_open = AUTO in (arguments.backend, arguments.dtype)
    complete_computation(table, arguments)
    if arguments.max_length is None:
        arguments.max_length = table.settings.get("max_length")
    if arguments.truncate_dim is None:
        arguments.truncate_dim = table.settings.get("truncate_dim")
    if is_open and arguments.backend == "openvino" and arguments.device is None:
        arguments.device = "cpu"  # also where there is a GPU: the vectors are of this backend
    try:
        encoder = load_encoder(name, arguments)
        encoder.check_single_embeddings()
    except ImportError as error:
        if not is_open:
            raise
        raise ValueError(
            f"{table.folder} was computed in {table.computation}, which cannot be done here: {error} "
            "Or make it anew, in another folder: `lotlip embed --output_dir FOLDER`, or of images "
            "`lotlip search PHOTOS`."
        ) from error
    table.check_model(encoder)
    return encoder


def complete_computation(table: EmbeddingTable, arguments: InferenceArguments) -> None:
    """
    Sets a backend and a precision that are `auto` to those of a table. Raises a `ValueError` if the other one, which
    was given, does not go with it.
    """
    made = table.computation
    backend = arguments.backend
    if backend == AUTO:
        backend = made.backend
    dtype = arguments.dtype
    if dtype == AUTO:
        dtype = made.dtype
    try:
        replace(arguments, backend=backend, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{table.folder} was computed in {made}: {error}") from error
    arguments.backend = backend
    arguments.dtype = dtype


def to_rows(batch: EmbeddedBatch, model: nn.Module) -> list[dict]:
    """
    Makes the rows of a table of what a model embedded, and of images that cannot be read. Raises a `ValueError` if an
    embedding is not finite.
    """
    check_finite_batch(batch, model, lambda item: str(item.row_key.key))
    rows = []
    for index, item in enumerate(batch.entries):
        embedding = batch.embeds[index]
        rows.append(
            {
                "key": item.row_key.key,
                "row": item.row_key.row_index,
                **item.row_key.file_facts,
                "kind": item.kind,
                "position": item.index,
                "truncated": item.truncated,
                "embedding": embedding,
            }
        )
    for bad in batch.unreadable:
        row = {"key": bad.key.key, "row": bad.key.row_index, **(bad.key.file_facts or {}), "problem": bad.problem}
        if bad.is_final:
            row["tried_with"] = name_readers()
        rows.append(row)
    return rows


def write_batches(
    groups: Iterable[list[EmbeddedBatch]], write: Callable[[list[dict]], None], model: nn.Module
) -> None:
    """
    Writes what a model embedded, in parts of `WRITE_SIZE` rows or `WRITE_SECONDS`. Whatever ends it, an error or
    Ctrl-C, the groups that are complete are written.
    """
    rows = []
    written_at = time.monotonic()
    try:
        for group in groups:
            # all of a group at once: a row with a part of its embeddings in the table counts as done
            rows_of_group = []
            for batch in group:
                rows_of_group += to_rows(batch, model)
            rows += rows_of_group
            is_due = len(rows) >= WRITE_SIZE or time.monotonic() - written_at >= WRITE_SECONDS
            if rows and is_due:  # a group may have no rows yet
                # an error of writing must not make the end write them once more
                written = rows
                rows = []
                write(written)
                written_at = time.monotonic()
    finally:
        if rows:
            write(rows)


def show_progress(
    batches: Iterator[EmbeddedBatch],
    encoder: DualEncoder,
    total: int | None,
    disable: bool,
) -> Iterator[EmbeddedBatch]:
    """
    Yields the batches, with a bar of the rows that are done. Rows that are left out are named.

    Texts of which the tokenizer knows no word are counted.

    Args:
        batches (`Iterator[EmbeddedBatch]`): What is embedded.
        encoder ([`DualEncoder`]): What embeds it.
        total (`int`, *optional*): The number of rows, if it is known.
        disable (`bool`): Whether to show no bar.
    """
    seen = set()
    num_texts = 0
    num_unknown = 0
    disable = disable or total == 0
    with progress_bar(total=total, desc="Embedding", unit=" rows", disable=disable) as progress:
        for batch in batches:
            warn_of_unreadable(batch.unreadable)
            new = {item.row_key.row_index for item in batch.entries}
            new.update(row.key.row_index for row in batch.unreadable)
            progress.update(len(new - seen))
            seen |= new
            num_texts += sum(item.kind != "image" for item in batch.entries)
            num_unknown += sum(item.is_unknown for item in batch.entries)
            yield batch
    encoder.warn_of_unknown(num_unknown, num_texts)


def describe_missing(table: EmbeddingTable) -> list[str]:
    """Describes a table that a run has not completed, in a sentence; nothing if it has."""
    unfinished = describe_unfinished(table.folder)
    expected = table.notes.get("num_rows")
    if unfinished is None:
        # of a run that an error ended before it wrote anything only the table is there, which notes its rows
        if expected is not None and expected > 0 and table.is_empty:
            return [f"{table.folder} is not complete: no row is embedded. The same command completes it."]
        return []
    num_rows = len(table.rows_done() - {None})
    if expected is None:
        return [f"{unfinished} Not all rows are embedded."]
    if num_rows == expected:
        return []
    return [f"{unfinished} {num_rows:,} of {expected:,} rows are embedded."]

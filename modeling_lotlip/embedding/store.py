# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings of images and captions in a folder of parquet files: how they are stored, written and read again.

A file holds the same number of rows of a data set each, and has its name when it is complete, so that a stopped run
resumes where it stopped. `settings.json` beside them says what they are of.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from pyarrow import parquet
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import CaptionArguments
from ..data.images import Resizing, read_image, undecoded
from ..data.loading import compute_fingerprint, find_file_names, read_first_row
from ..data.reader import find_caption_columns
from ..data.rows import read_captions
from ..files import refuse_other_settings, write_json, write_table
from ..sub_captions import join_sub_captions, split_sub_captions
from ..terminal import progress_bar
from .arguments import KINDS, STORAGE_DTYPES, StoreArguments
from .batches import embed_texts, tokenize
from .models import dtype_name, get_truncate_dim, hash_processor, hash_weights
from .rows import EmbeddedItems, Item, RowCollator, embed_rows, warn_of_unreadable
from .workers import Workers


def to_storage(embeds: torch.Tensor, storage_dtype: str) -> np.ndarray:
    """
    Embeddings as they are stored: in a floating-point type; as `"int8"`, each vector scaled so that its own largest
    entry becomes 127; or as `"binary"`, a bit for each sign, eight to a byte.

    Args:
        embeds (`torch.Tensor` of shape `(num_embeds, dim)`):
            Embeddings.
        storage_dtype (`str`):
            One of `STORAGE_DTYPES`.

    Returns:
        `np.ndarray` of shape `(num_embeds, dim)`, or for `"binary"` `(num_embeds, dim // 8)`.

    Raises:
        `ValueError`: if `dim` is no multiple of 8 for `"binary"`, or an embedding holds what `"int8"` and `"binary"`
        have no number for: NaN or infinity.

    Example:

    ```python
    >>> import torch
    >>> embeds = torch.tensor([[0.5, -0.1, 0.5, 0.3, -0.3, 0.1, 0.5, -0.2]])
    >>> to_storage(embeds, "int8").tolist()
    [[127, -25, 127, 76, -76, 25, 127, -51]]
    >>> [f"{byte:08b}" for byte in to_storage(embeds, "binary")[0]]
    ['10110110']
    ```"""
    if storage_dtype in ("float32", "float16"):
        return embeds.to(getattr(torch, storage_dtype)).numpy()
    if storage_dtype not in STORAGE_DTYPES:
        raise ValueError(f"`storage_dtype` must be one of {STORAGE_DTYPES}, got {storage_dtype!r}.")
    if storage_dtype == "binary" and embeds.shape[1] % 8 != 0:
        raise ValueError(
            f"`--storage_dtype binary` packs eight signs into a byte, so that the dimension must be a multiple of 8; "
            f"this model's is {embeds.shape[1]}. Choose int8."
        )
    if not embeds.isfinite().all():
        row = int((~embeds.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(
            f"`embeds[{row}]` holds NaN or infinity, which cannot be stored as {storage_dtype}: check the model, or "
            "compute in a wider `--dtype`."
        )
    if storage_dtype == "binary":
        return np.packbits((embeds > 0).numpy(), axis=1)
    embeds = embeds.float()
    largest = embeds.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (embeds / largest * 127).round().to(torch.int8).numpy()


def from_storage(values: np.ndarray, storage_dtype: str) -> torch.Tensor:
    """
    Embeddings out of what [`to_storage`] gave, in float32 and of length 1.

    Args:
        values (`np.ndarray` of shape `(num_embeds, width)`):
            What is stored.
        storage_dtype (`str`):
            One of `STORAGE_DTYPES`.

    Returns:
        `torch.Tensor` of shape `(num_embeds, dim)`

    Example:

    ```python
    >>> import torch
    >>> embeds = torch.nn.functional.normalize(torch.randn(3, 64, generator=torch.manual_seed(0)), dim=-1)
    >>> for storage_dtype in ("int8", "binary"):
    ...     stored = from_storage(to_storage(embeds, storage_dtype), storage_dtype)
    ...     print(storage_dtype, f"{(stored * embeds).sum(dim=-1).mean():.1f}")
    int8 1.0
    binary 0.8
    ```"""
    if storage_dtype == "binary":
        signs = torch.from_numpy(np.unpackbits(values, axis=1))
        return (2 * signs.float() - 1) / signs.shape[1] ** 0.5
    embeds = torch.from_numpy(values.astype(np.float32))
    return embeds if storage_dtype == "float32" else torch.nn.functional.normalize(embeds, dim=-1)


def open_shards(folder: Path) -> pyarrow.dataset.Dataset:
    """
    The shards of a folder as one table on disk, in the order of the data.

    Raises:
        `ValueError`: if there are none.
    """
    paths = sorted(str(path) for path in folder.glob("embeddings-*.parquet"))
    if not paths:
        raise ValueError(f"{folder} holds no embeddings: make them with `lotlip embed --output_dir {folder}`.")
    return pyarrow.dataset.dataset(paths, format="parquet")


def read_embeddings(folder: Path, kind: str, batch_size: int = 4096) -> Iterator[torch.Tensor]:
    """
    Reads the embeddings of one kind in a folder of `lotlip embed`, part by part and in the order of the data.

    Args:
        folder (`Path`):
            The folder.
        kind (`str`):
            `"image"`, `"short"` or `"long"`.
        batch_size (`int`, *optional*, defaults to 4096):
            Rows of any kind that are read at once, so the most in a part.

    Yields:
        `torch.Tensor` of shape `(num_rows, dim)`: embeddings of length 1 in float32, in whatever form they are stored.
    """
    for shard in open_shards(folder).get_fragments():
        storage_dtype = read_storage_dtype(shard.physical_schema)
        of_kind = pyarrow.dataset.field("kind") == kind
        for batch in shard.to_batches(columns=["embedding"], filter=of_kind, batch_size=batch_size):
            if batch.num_rows > 0:
                yield from_storage(read_stored_values(batch["embedding"]), storage_dtype)


def read_storage_dtype(schema: pa.Schema) -> str:
    """The `--storage_dtype` of a shard, from its own metadata; those without any hold floating-point numbers."""
    if schema.metadata is not None and b"storage_dtype" in schema.metadata:
        return schema.metadata[b"storage_dtype"].decode()
    return {pa.float32(): "float32", pa.float16(): "float16"}[schema.field("embedding").type.value_type]


def read_stored_values(column: pa.FixedSizeListArray) -> np.ndarray:
    """A column `embedding` as a matrix (rows, width)."""
    return column.flatten().to_numpy().reshape(len(column), -1)


def write_shard(
    path: Path,
    ids: list[int | str],
    items: list[Item],
    embeds: torch.Tensor,
    storage_dtype: str = "float32",
    id_type: type = str,
    unreadable: list[tuple[str, str]] | None = None,
) -> None:
    """
    Writes a file of embeddings, whole or not at all.

    Args:
        path (`Path`):
            The file.
        ids (`list[int | str]`):
            What the rows are known by, one for each item.
        items (`list[Item]`):
            What was embedded.
        embeds (`torch.Tensor` of shape `(len(items), dim)`):
            Normalised.
        storage_dtype (`str`, *optional*, defaults to `"float32"`):
            One of `STORAGE_DTYPES`.
        id_type (`type`, *optional*, defaults to `str`):
            `int` or `str`.
        unreadable (`list[tuple[str, str]]`, *optional*):
            The names of rows that were left out, and what is wrong with their images.
    """
    values = to_storage(embeds, storage_dtype)
    columns = {
        "id": pa.array(ids, pa.int64() if id_type is int else pa.string()),
        "kind": pa.array([item.kind for item in items], pa.string()),
        "index": pa.array([item.index for item in items], pa.int32()),
        "truncated": pa.array([item.truncated for item in items], pa.bool_()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]),
    }
    metadata = {"storage_dtype": storage_dtype, "unreadable": json.dumps(unreadable or [])}
    write_table(path, pa.table(columns).replace_schema_metadata(metadata))


@dataclass
class StoreReader:
    """
    Reads the image and the texts of a row. The index of a caption is that in its column, blank ones counted.

    Args:
        columns (`dict[str, str]`):
            The column of each kind that is embedded.
        id_column (`str`, *optional*):
            The column of what a row is known by. Default: its number.
        sub_caption_splitter (`str`, *optional*, defaults to `"paper"`):
            How long captions are split into sub-captions, which are joined again.
        resizing ([`Resizing`], *optional*):
            By which large JPEGs are decoded at a fraction of their size: see [`read_image`].
    """

    columns: dict[str, str]
    id_column: str | None = None
    sub_caption_splitter: str = "paper"
    resizing: Resizing | None = None

    def __call__(self, number: int, row: dict) -> Iterator[Item]:
        key = (number, self.read_id(number, row))
        if "image" in self.columns:
            yield Item(key, "image", read_image(row[self.columns["image"]], resizing=self.resizing))
        for kind in ("short", "long"):
            values = row[self.columns[kind]] if kind in self.columns else []
            for index, value in enumerate(values if isinstance(values, (list, tuple)) else [values]):
                for text in read_captions({"caption": value}, "caption"):
                    if kind == "long":
                        text = join_sub_captions(split_sub_captions(text, self.sub_caption_splitter))
                    if text:
                        yield Item(key, kind, text, index)

    def read_id(self, number: int, row: dict) -> int | str:
        identifier = number if self.id_column is None else row[self.id_column]
        if not isinstance(identifier, (int, str)):
            raise ValueError(
                f"`--id_column {self.id_column}` must hold integers or strings; row {number} has {identifier!r}."
            )
        return identifier


def embed_to_folder(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    store: StoreArguments,
    captions: CaptionArguments | None = None,
    image_column: str = "image",
    batch_size: int = 64,
    max_length: int | None = None,
    num_workers: int | None = 0,
    source: dict[str, Any] | None = None,
) -> dict[str, int]:
    """
    Embeds the images and captions of a data set into a folder, or resumes a stopped run. Rows whose images cannot be
    read are skipped, and named. Several processes share the files.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`.
        processor (`ProcessorMixin`):
            Its processor.
        dataset (`Dataset` or `IterableDataset`):
            The images and captions. What [`load_split`] reads of a folder of pictures is known by the names of its
            files, other rows by their numbers, if there is no `store.id_column`.
        store (`StoreArguments`):
            The folder, and what is stored there.
        captions (`CaptionArguments`, *optional*):
            The columns of captions. Default: `"caption"` and `"long_captions"`.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of the images.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch, for each process.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens. Default: the tokenizer's limit.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode and tokenize, None for as many as fit the machine: see [`Workers`].
        source (`dict[str, Any]`, *optional*):
            Where the data comes from, to be noted beside the embeddings.

    Returns:
        `dict[str, int]`: the numbers of `"image"`, `"short"` and `"long"` embeddings in the folder, of `"truncated"`
        texts and of `"unreadable"` images.

    Raises:
        `ValueError`: if the folder holds embeddings with other settings, or a column is not there.
    """
    captions, state = captions or CaptionArguments(), PartialState()
    store = replace(store, id_column=store.id_column or find_file_names(dataset))
    if state.is_main_process:
        settings = dict(source or {})
        settings |= {"dtype": dtype_name(model), "max_length": max_length, "truncate_dim": get_truncate_dim(model)}
        settings |= {name: getattr(store, name) for name in ("id_column", "only", "storage_dtype", "shard_size")}
        settings |= vars(captions) | {"image_column": image_column, "exact_decoding": store.exact_decoding}
        settings |= {"weights": hash_weights(model), "processor": hash_processor(processor), "data": "streamed"}
        if isinstance(dataset, Dataset):
            settings["data"] = compute_fingerprint(dataset, None if store.only == "texts" else image_column)
        check_settings(store.output_dir, settings)
    state.wait_for_everyone()

    if store.only != "texts":
        dataset = undecoded(dataset, image_column)
    first_row = read_first_row(dataset)
    reader = StoreReader(
        find_columns(store, captions, image_column, first_row),
        store.id_column,
        captions.sub_caption_splitter,
        None if store.exact_decoding else Resizing.of(processor.image_processor),
    )
    id_type = str if store.id_column is not None and isinstance(first_row[store.id_column], str) else int
    dataset = dataset.select_columns(list({*reader.columns.values(), store.id_column} - {None}))
    dim = embed_texts(model, tokenize(processor, ["a"])).shape[1]
    to_storage(torch.empty(0, dim), store.storage_dtype)  # what cannot be stored is refused before it is computed
    due = DueRows(dataset, store.output_dir, store.shard_size, state.process_index, state.num_processes)
    with Workers(RowCollator(processor, reader, max_length), num_workers) as workers:
        results = embed_rows(
            model,
            processor,
            workers.map(due.read(batch_size)),
            store.tokens_per_batch,
            group=lambda number: number // store.shard_size,
        )
        with closing(show_progress(results, due.count(), disable=not state.is_local_main_process)) as results:
            for shard, parts in groupby(results, key=lambda part: part.group):
                path = store.output_dir / f"embeddings-{shard:06d}.parquet"
                write_results_of_shard(path, list(parts), dim, store.storage_dtype, id_type)
    state.wait_for_everyone()
    return count_embeddings(store.output_dir)


def find_columns(
    store: StoreArguments, captions: CaptionArguments, image_column: str, columns: Iterable[str]
) -> dict[str, str]:
    """
    The column of each kind that is embedded.

    Raises:
        `ValueError`: if there is no column of captions, or no `id_column`.
    """
    found = {} if store.only == "texts" else {"image": image_column}
    if store.only != "images":
        short_and_long = zip(("short", "long"), find_caption_columns(captions, columns))
        found |= {kind: column for kind, column in short_and_long if column is not None}
    if store.id_column is not None and store.id_column not in columns:
        raise ValueError(f"`--id_column {store.id_column}` is no column of the data set, which has {list(columns)}.")
    return found


def check_settings(folder: Path, settings: dict) -> None:
    """
    Notes in a folder what its embeddings depend on, or compares with what an earlier run noted.

    Raises:
        `ValueError`: if they are of another model, other data or other settings.
    """
    path = folder / "settings.json"
    if not list(folder.glob("embeddings-*.parquet")):
        return write_json(path, settings)
    # of folders that do not say
    earlier = {"sub_caption_splitter": "paper", "exact_decoding": True, "truncate_dim": None}
    earlier |= json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # the same weights may lie in another place
    compared = {name: value for name, value in settings.items() if name != "model_name_or_path"}
    refuse_other_settings(earlier, compared, folder, "embeddings")


class DueRows:
    """
    The rows of a data set that one process has yet to embed: those in its share of the files that are not there.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set.
        folder (`Path`):
            The folder of the files.
        shard_size (`int`):
            Rows in a file, whoever makes it.
        process_index, num_processes (`int`):
            Which process.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        folder: Path,
        shard_size: int,
        process_index: int,
        num_processes: int,
    ):
        self.dataset = dataset
        self.shard_size = shard_size
        self.process_index = process_index
        self.num_processes = num_processes
        self.done = {int(path.stem.rpartition("-")[2]) for path in folder.glob("embeddings-*.parquet")}

    def is_due(self, number: int) -> bool:
        shard = number // self.shard_size
        return shard % self.num_processes == self.process_index and shard not in self.done

    def count(self) -> int | None:
        """How many there are, if that is known before they are read."""
        return sum(map(self.is_due, range(len(self.dataset)))) if isinstance(self.dataset, Dataset) else None

    def read(self, batch_size: int) -> Iterator[list[tuple[int, dict]]]:
        """The rows, numbered, in lists of up to `batch_size` of one file. Of a stream all rows are read."""
        if isinstance(self.dataset, IterableDataset):
            rows = (row for row in enumerate(self.dataset) if self.is_due(row[0]))
        else:
            rows = ((number, self.dataset[number]) for number in range(len(self.dataset)) if self.is_due(number))
        size = self.shard_size
        for _, batch in groupby(rows, key=lambda row: (row[0] // size, row[0] % size // batch_size)):
            yield list(batch)


def show_progress(results: Iterator[EmbeddedItems], total: int | None, disable: bool) -> Iterator[EmbeddedItems]:
    """The results, with a bar of the rows that are done; skipped rows are reported."""
    num_items, num_tokens, start, seen = 0, 0, time.perf_counter(), set()
    with progress_bar(total=total, desc="Embedding", unit=" rows", disable=disable) as progress:
        for result in results:
            warn_of_unreadable(result.unreadable)
            num_items, num_tokens = num_items + len(result.items), num_tokens + result.num_tokens
            seconds = time.perf_counter() - start
            progress.set_postfix_str(
                f"{num_items / seconds:.1f} items/s, {num_tokens / seconds:.0f} tokens/s", refresh=False
            )
            new = {item.row[0] for item in result.items} - seen
            progress.update(len(new) + len(result.unreadable))
            seen |= new
            yield result


def write_results_of_shard(
    path: Path, results: list[EmbeddedItems], dim: int, storage_dtype: str, id_type: type
) -> None:
    """Writes the results of one file's rows, in the order of the rows."""
    items = [item for result in results for item in result.items]
    embeds = torch.cat([torch.empty(0, dim), *(result.embeds for result in results if result.items)])
    order = sorted(range(len(items)), key=lambda place: sort_key(items[place]))
    items = [items[place] for place in order]
    unreadable = [row for result in results for row in result.unreadable]
    write_shard(path, [item.row[1] for item in items], items, embeds[order], storage_dtype, id_type, unreadable)


def sort_key(item: Item) -> tuple[int, int, int]:
    """By which embeddings stand in a file: row, image before short captions before long ones, place in its column."""
    return item.row[0], KINDS.index(item.kind), item.index


def count_embeddings(folder: Path) -> dict[str, int]:
    """Counts the embeddings of each kind, the truncated texts and the unreadable images in a folder."""
    counts = Counter()
    for path in folder.glob("embeddings-*.parquet"):
        table = parquet.read_table(path, columns=["kind", "truncated"])
        counts.update(table["kind"].to_pylist())
        counts["truncated"] += sum(table["truncated"].to_pylist())
        counts["unreadable"] += len(json.loads((table.schema.metadata or {}).get(b"unreadable", b"[]")))
    return {kind: counts[kind] for kind in (*KINDS, "truncated", "unreadable")}


def read_settings(folder: Path) -> dict:
    """
    What a folder of `lotlip embed` notes of its embeddings.

    Raises:
        `ValueError`: if it notes nothing.
    """
    path = folder / "settings.json"
    if not path.exists():
        if not folder.is_dir() or not list(folder.glob("embeddings-*.parquet")):
            raise ValueError(f"--embeddings_dir {folder} is no folder of `lotlip embed`.")
        raise ValueError(f"{path} is missing, which names the model of the embeddings: embed the data again.")
    return json.loads(path.read_text(encoding="utf-8"))


def check_model(folder: Path, model: PreTrainedModel, model_name_or_path: str) -> dict:
    """
    The settings that the embeddings in a folder were made with.

    Raises:
        `ValueError`: if they are of another model.
    """
    settings = read_settings(folder)
    if settings["weights"] != hash_weights(model):
        raise ValueError(
            f"`--embeddings_dir {folder}` holds embeddings of other weights than `--model_name_or_path "
            f"{model_name_or_path}` has in {dtype_name(model)}: name the model that made them, "
            f"and its `--dtype {settings['dtype']}`, or embed the data again."
        )
    stored, asked = settings.get("truncate_dim"), get_truncate_dim(model)
    if stored != asked:
        remedy = f"leave out `--truncate_dim {asked}`" if stored is None else f"give `--truncate_dim {stored}`"
        length = "whole embeddings" if stored is None else f"the first {stored} numbers of embeddings"
        raise ValueError(f"`--embeddings_dir {folder}` holds {length}: {remedy}, or embed the data again.")
    return settings

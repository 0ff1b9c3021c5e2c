# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Embeddings of the images and captions of a data set, in parquet files; a stopped run goes on where it was.

    python examples/embed_dataset.py --model_name_or_path outputs/demo --output_dir outputs/embeddings
    python examples/embed_dataset.py --model_name_or_path MODEL --output_dir OUT --dataset_name NAME --only texts
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from accelerate import PartialState
from datasets import Dataset, Image, IterableDataset
from datasets.fingerprint import Hasher
from pyarrow import parquet
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import HelpFormatter, add_data_arguments
from ..data.captions import find_caption_columns
from ..data.images import undecoded
from ..data.loading import compute_fingerprint, load_split
from ..data.rows import read_captions
from ..files import refuse_other_settings, write_json, write_table
from ..sub_captions import join_sub_captions, split_sub_captions
from .arguments import add_evaluation_arguments
from .batches import Batch, embed_batch, embed_texts, make_batches, prefetch, tokenize, tokenize_and_count
from .models import hash_weights, load_model
from .storage import STORAGE_DTYPES, to_storage


class Entry(NamedTuple):
    """An embedding to be: the row and the place in it, which give the order, and what is written beside it."""

    row: int
    place: int
    id: int | str
    kind: str
    index: int
    truncated: bool


class Preparation(torch.utils.data.Dataset):
    """Decodes rows, which are handed to it in the place of indices, and collates them, in the workers of a loader."""

    def __init__(self, processor: ProcessorMixin, args: argparse.Namespace, columns: dict[str, str]):
        self.processor = processor
        self.args = args
        self.columns = columns

    def __getitem__(self, numbered_row: tuple[int, dict]) -> tuple[int, dict]:
        number, row = numbered_row
        if "image" in self.columns:
            column = self.columns["image"]
            if row[column] is None:
                raise ValueError(f"Row {number} has no image (column {column!r}): drop it, or embed `--only texts`.")
            try:
                row = {**row, column: Image().decode_example(row[column])}
            except (OSError, ValueError) as error:
                raise ValueError(f"The image of row {number} (column {column!r}) cannot be read: {error}") from error
        return number, row

    def entries(self, number: int, row: dict) -> Iterator[tuple[Entry, Any]]:
        """The images and texts of a row; an index of a caption is that in its column, blank ones counted."""
        identifier = number if self.args.id_column is None else row[self.args.id_column]
        if not isinstance(identifier, (int, str)):
            raise ValueError(
                f"`--id_column {self.args.id_column}` must hold integers or strings; row {number} has {identifier!r}."
            )
        place = 0
        for kind, column in self.columns.items():
            values = row[column] if isinstance(row[column], (list, tuple)) else [row[column]]
            for index, value in enumerate(values):
                for item in [value] if kind == "image" else read_captions({column: value}, column):
                    if kind == "long":
                        item = join_sub_captions(split_sub_captions(item, self.args.sub_caption_splitter))
                        if not item:
                            continue
                    yield Entry(number, place, identifier, kind, index, False), item
                    place += 1

    def collate(self, rows: list[tuple[int, dict]]) -> tuple[int, list[Batch]]:
        """Rows of one shard to its number, a batch of their images, and one of their texts."""
        items = [item for number, row in rows for item in self.entries(number, row)]
        images = [(entry, picture) for entry, picture in items if entry.kind == "image"]
        texts = [(entry, caption) for entry, caption in items if entry.kind != "image"]
        batches = []
        if images:
            entries, pictures = zip(*images)
            batches.append(Batch(entries, dict(self.processor.image_processor(pictures, return_tensors="pt"))))
        if texts:
            entries, captions = zip(*texts)
            tokens, truncated = tokenize_and_count(self.processor, list(captions), self.args.max_length)
            batches.append(Batch([entry._replace(truncated=cut) for entry, cut in zip(entries, truncated)], tokens))
        return rows[0][0] // self.args.shard_size, batches


def write_shard(
    path: Path, entries: list[Entry], embeds: torch.Tensor, id_type: pa.DataType, storage_dtype: str
) -> None:
    """Writes a shard in the order of its entries, whole or not at all."""
    order = sorted(range(len(entries)), key=entries.__getitem__)
    entries = [entries[position] for position in order]
    values = to_storage(embeds[order], storage_dtype)
    columns = {
        "id": pa.array([entry.id for entry in entries], id_type),
        "kind": pa.array([entry.kind for entry in entries], pa.string()),
        "index": pa.array([entry.index for entry in entries], pa.int32()),
        "truncated": pa.array([entry.truncated for entry in entries], pa.bool_()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]),
    }
    write_table(path, pa.table(columns).replace_schema_metadata({"storage_dtype": storage_dtype}))


class Shards:
    """The files of a run: each holds `shard_size` rows, whoever made it, and has its name when it is complete."""

    def __init__(self, args: argparse.Namespace, state: PartialState):
        self.args = args
        self.state = state
        self.done = {int(path.stem.rpartition("-")[2]) for path in args.output_dir.glob("embeddings-*.parquet")}

    def is_due(self, row: int) -> bool:
        """Whether a row is in a shard that this process has yet to make."""
        shard = row // self.args.shard_size
        return shard % self.state.num_processes == self.state.process_index and shard not in self.done

    def read(self, dataset: Dataset | IterableDataset) -> Iterator[list[tuple[int, dict]]]:
        """The rows that are due, numbered, in lists of up to `batch_size` of a shard. Of a stream all are read."""
        if isinstance(dataset, IterableDataset):
            rows = (row for row in enumerate(dataset) if self.is_due(row[0]))
        else:
            rows = ((number, dataset[number]) for number in range(len(dataset)) if self.is_due(number))
        size, batch_size = self.args.shard_size, self.args.batch_size
        for _, chunk in groupby(rows, key=lambda row: (row[0] // size, row[0] % size // batch_size)):
            yield list(chunk)

    def path(self, shard: int) -> Path:
        return self.args.output_dir / f"embeddings-{shard:06d}.parquet"


def check_settings(
    args: argparse.Namespace, model: PreTrainedModel, processor: ProcessorMixin, dataset: Dataset | IterableDataset
) -> None:
    """
    Notes in the output folder what its embeddings depend on, or compares with what an earlier run noted.

    Raises:
        `ValueError`: if they are of another model, other data or other settings.
    """
    names = "dataset_name dataset_config_name data_dir data_files eval_split max_eval_samples id_column image_column"
    names += " caption_column long_captions_column sub_caption_splitter only max_length dtype storage_dtype shard_size"
    settings = {name: getattr(args, name) for name in names.split()}
    settings |= {
        "weights": hash_weights(model),
        "processor": Hasher.hash(processor),
        "data": "streamed",
    }
    if isinstance(dataset, Dataset):
        settings["data"] = compute_fingerprint(dataset, None if args.only == "texts" else args.image_column)
    path = args.output_dir / "settings.json"
    if not list(args.output_dir.glob("embeddings-*.parquet")):
        return write_json(path, settings)
    earlier = {"sub_caption_splitter": "paper"}  # of folders that do not say
    earlier |= json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    refuse_other_settings(earlier, settings, args.output_dir, "embeddings")


def summarize(output_dir: Path) -> dict[str, int]:
    """Counts the embeddings of each kind and the truncated texts in the shards of a folder."""
    counts = Counter()
    for path in output_dir.glob("embeddings-*.parquet"):
        table = parquet.read_table(path, columns=["kind", "truncated"])
        counts.update(table["kind"].to_pylist())
        counts["truncated"] += sum(table["truncated"].to_pylist())
    return {kind: counts[kind] for kind in ("image", "short", "long", "truncated")}


def embed_shards(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    args: argparse.Namespace,
    state: PartialState,
) -> None:
    """
    Embeds the rows that this process has yet to embed, and writes them.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`.
        processor (`ProcessorMixin`):
            Its processor.
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        args (`argparse.Namespace`):
            The arguments of this script.
        state (`PartialState`):
            The processes.
    """
    columns = {}
    if args.only != "texts":
        columns["image"] = args.image_column
        dataset = undecoded(dataset, args.image_column)  # `Preparation` decodes
    first_row = next(iter(dataset))
    if args.only != "images":
        short_and_long = zip(("short", "long"), find_caption_columns(args, first_row))
        columns |= {kind: column for kind, column in short_and_long if column is not None}
    if args.id_column is not None and args.id_column not in first_row:
        raise ValueError(f"`--id_column {args.id_column}` is no column of the data set, which has {list(first_row)}.")
    is_named = args.id_column is not None and isinstance(first_row[args.id_column], str)
    dataset = dataset.select_columns(list({*columns.values(), args.id_column} - {None}))
    preparation = Preparation(processor, args, columns)
    shards = Shards(args, state)
    loader = DataLoader(
        preparation,
        batch_sampler=shards.read(dataset),
        collate_fn=preparation.collate,
        num_workers=args.dataloader_num_workers,
    )

    def work(prepared: Iterator[tuple[int, list[Batch]]]) -> Iterator[Batch | int]:
        """The batches of each shard, and after them its number."""
        for shard, parts in groupby(prepared, key=itemgetter(0)):
            batches = (batch for _, part in parts for batch in part)
            yield from make_batches(batches, processor, args.tokens_per_batch)
            yield shard

    dim = embed_texts(model, tokenize(processor, ["a"])).shape[1]
    to_storage(torch.empty(0, dim), args.storage_dtype)  # what cannot be stored is refused before it is computed
    entries, embeds, num_items, num_tokens, start = [], [], 0, 0, time.perf_counter()
    total = sum(map(shards.is_due, range(len(dataset)))) if isinstance(dataset, Dataset) else None
    with tqdm(total=total, desc="Embedding", unit=" rows", disable=not state.is_local_main_process) as progress:
        for item in prefetch(work(iter(loader))):
            if isinstance(item, Batch):
                entries.extend(item.entries)
                embeds.append(embed_batch(model, item))
                num_items, num_tokens = num_items + len(item.entries), num_tokens + item.num_tokens
                seconds = time.perf_counter() - start
                progress.set_postfix_str(f"{num_items / seconds:.1f} items/s, {num_tokens / seconds:.0f} tokens/s")
                progress.update(sum(entry.place == 0 for entry in item.entries))
            else:
                id_type = pa.string() if is_named else pa.int64()
                shard_embeds = torch.cat([torch.empty(0, dim), *embeds])
                write_shard(shards.path(item), entries, shard_embeds, id_type, args.storage_dtype)
                entries, embeds = [], []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the parquet files.")
    parser.add_argument("--storage_dtype", default="float32", choices=STORAGE_DTYPES, help="How a number is stored.")
    parser.add_argument("--id_column", help="A column of strings or integers; by default rows are numbered from 0.")
    parser.add_argument("--only", choices=["texts", "images"], help="Leave the others out.")
    parser.add_argument("--tokens_per_batch", type=int, default=2048, help="The most tokens in a batch of texts.")
    parser.add_argument("--shard_size", type=int, default=1024, help="Rows in a file; a stopped file is begun anew.")
    args = parser.parse_args()
    for name in ("batch_size", "tokens_per_batch", "shard_size"):
        if getattr(args, name) < 1:
            parser.error(f"`--{name} {getattr(args, name)}` must be at least 1.")

    # a process that is ready early waits for the last one
    state = PartialState(cpu=args.device == "cpu", timeout=timedelta(days=7))
    dataset = load_split(args, args.eval_split, args.max_eval_samples, with_images=args.only != "texts")
    model, processor = load_model(args.model_name_or_path, args)
    if state.is_main_process:
        check_settings(args, model, processor, dataset)
    state.wait_for_everyone()
    embed_shards(model, processor, dataset, args, state)
    state.wait_for_everyone()
    if state.is_main_process:
        counts = summarize(args.output_dir)
        print(
            f"{args.output_dir} holds {counts['image']} images, {counts['short']} short and {counts['long']} long "
            f"captions; {counts['truncated']} captions were truncated."
        )
        if args.output_file is not None:
            write_json(args.output_file, counts)


if __name__ == "__main__":
    main()

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
"""The data arguments that all examples share, and the data set they name."""

import argparse
import os
import signal
from collections.abc import Callable
from functools import partial

from datasets import (
    Dataset,
    DatasetDict,
    Image,
    IterableDataset,
    ReadInstruction,
    interleave_datasets,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.distributed import split_dataset_by_node
from datasets.fingerprint import Hasher

from .images import undecoded
from .scenes import load_scenes


# Of the embedded data set; a gallery of 256 images for long texts, of about half as many for the distinct short ones.
NUM_TRAIN_SCENES = 8192
NUM_EVAL_SCENES = 256


def load_split(
    args: argparse.Namespace,
    split: str,
    max_samples: int | None = None,
    with_images: bool = True,
    weights: list[float] | None = None,
    seed: int = 0,
) -> Dataset | IterableDataset:
    """
    Loads one split of the data set that the data arguments name.

    Args:
        args (`argparse.Namespace`):
            The data arguments.
        split (`str`):
            The split, such as `"train"`, or a slice of one, such as `"train[:100]"`.
        max_samples (`int`, *optional*):
            Keep the first so many rows.
        with_images (`bool`, *optional*, defaults to `True`):
            Whether the images are needed.
        weights (`list[float]`, *optional*):
            How often a row comes from each of `args.data_files`, which are then sources of their own. The data ends
            when the rows of every source have come, those of smaller ones several times.
        seed (`int`, *optional*, defaults to 0):
            Of the draws of sources.

    Raises:
        `ValueError`: if the split or the image column is not there, or the split is empty.
    """
    if args.dataset_name is None and (args.data_dir is not None or args.data_files is not None):
        raise ValueError(
            "`--data_dir` and `--data_files` need `--dataset_name`, the builder that reads them: `imagefolder`, "
            "`webdataset`, `json`, ..."
        )
    if args.dataset_name is None:
        name = split.split("[")[0]
        if name not in ("train", "test"):
            raise ValueError(f"The drawn scenes have the splits 'train' and 'test', not {split!r}.")
        num_scenes = NUM_TRAIN_SCENES if name == "train" else NUM_EVAL_SCENES
        if split == name and max_samples is not None:
            num_scenes = min(max_samples, num_scenes)
        dataset = take_slice(load_scenes(num_scenes, seed=int(name == "test")), name, split)
    elif is_saved_to_disk(args.dataset_name) and (args.data_files is not None or args.data_dir is not None):
        raise ValueError(
            f"`--dataset_name {args.dataset_name}` was saved with `save_to_disk` and is all there is: leave out "
            "`--data_files` and `--data_dir`."
        )
    elif is_saved_to_disk(args.dataset_name):
        dataset, name = load_from_disk(args.dataset_name), split.split("[")[0]
        if isinstance(dataset, DatasetDict):
            if name not in dataset:
                raise ValueError(f"`--dataset_name {args.dataset_name}` has no split {name!r} but {list(dataset)}.")
            dataset = dataset[name]
        dataset = take_slice(dataset, name, split)
    else:
        if args.dataset_name == "webdataset":
            prepare_webdataset(args, split.split("[")[0])
        sources = [args.data_files] if weights is None else args.data_files
        loaded = [
            load_dataset(
                args.dataset_name,
                args.dataset_config_name,
                data_dir=args.data_dir,
                data_files=data_files,
                split=split,
                streaming=args.streaming,
            )
            for data_files in sources
        ]
        dataset = loaded[0] if weights is None else mix(loaded, weights, seed)

    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError(f"The split {split!r} is empty.")
    if with_images:
        columns = get_columns(dataset)
        if args.image_column not in columns:
            raise ValueError(
                f"`--image_column {args.image_column}` is no column of split {split!r}, which has {columns}: name one."
            )
        if not isinstance(dataset.features[args.image_column] if dataset.features else None, Image):
            dataset = dataset.cast_column(args.image_column, Image())
    if max_samples is not None:
        dataset = dataset.take(max_samples)
    return dataset


def is_saved_to_disk(name: str) -> bool:
    return os.path.isdir(name) and bool({"state.json", "dataset_dict.json"} & set(os.listdir(name)))


def prepare_webdataset(args: argparse.Namespace, split: str) -> None:
    """
    Makes `datasets` read webdataset shards with nothing left out in silence: a local shard that was cut off, of which
    it would read what there is, is an error, and a text or JSON member that cannot be decoded is None.

    Raises:
        `ValueError`: if shards were cut off.
    """
    builder = load_dataset_builder("webdataset", data_dir=args.data_dir, data_files=args.data_files)
    shards = [str(file) for file in builder.config.data_files.get(split, []) if str(file).endswith(".tar")]
    cut_off = [shard for shard in shards if os.path.isfile(shard) and not ends_as_a_tar(shard)]
    if cut_off:
        raise ValueError(
            f"{len(cut_off)} of {len(shards)} shards lack the end of a tar file, such as {cut_off[0]}: they were cut "
            "off. Write them anew, or leave them out of `--data_files`."
        )
    decoders = type(builder).DECODERS
    for extension, decode in decoders.items():
        if not isinstance(decode, partial):
            decoders[extension] = partial(decode_or_none, decode)


def ends_as_a_tar(path: str) -> bool:
    """Whether a file ends with the two empty blocks that every tar file ends with."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        return size >= 1024 and not any(file.read())


def decode_or_none(decode: Callable[[bytes], object], content: bytes) -> object:
    """What a member of a shard holds; None where it is damaged, which counts as missing."""
    try:
        return decode(content)
    except ValueError:
        return None


def mix(sources: list[Dataset] | list[IterableDataset], weights: list[float], seed: int) -> Dataset | IterableDataset:
    """Rows of several sources, drawn in proportion to their weights until every row of every source has come."""
    probabilities = [weight / sum(weights) for weight in weights]
    return interleave_datasets(sources, probabilities, seed, stopping_strategy="all_exhausted")


def compute_fingerprint(dataset: Dataset, image_column: str | None = None) -> str:
    """
    A hash of the rows of a data set and of its images: of those in files of their own their sizes and times too, which
    the fingerprint of `datasets` does not know.
    """
    hasher = Hasher()
    hasher.update(dataset._fingerprint)
    if image_column is not None:
        images = undecoded(dataset.select_columns(image_column), image_column)
        for table in images.with_format("arrow").iter(batch_size=1000):
            column = table[image_column].combine_chunks()
            is_file = column.field("bytes").is_null()
            for path in column.field("path").filter(is_file).drop_null().to_pylist():
                if os.path.exists(path):
                    status = os.stat(path)
                    hasher.update((path, status.st_size, status.st_mtime_ns))
    return hasher.hexdigest()


def get_columns(dataset: Dataset | IterableDataset) -> list[str]:
    """The names of the columns; of a stream that does not know them, those of its first row."""
    return dataset.column_names if dataset.column_names is not None else list(next(iter(dataset)))


def take_slice(dataset: Dataset, name: str, split: str) -> Dataset:
    """The part of a whole split that a specification such as `"train[:90%]"` names."""
    (part,) = ReadInstruction.from_spec(split).to_absolute({name: len(dataset)})
    start, stop = part.from_ or 0, len(dataset) if part.to is None else part.to
    if start >= stop:
        raise ValueError(f"The split {split!r} is empty: there are {len(dataset)} rows.")
    return dataset if (start, stop) == (0, len(dataset)) else dataset.select(range(start, stop))


def split_by_process(
    dataset: Dataset | IterableDataset, process_index: int, num_processes: int
) -> Dataset | IterableDataset:
    """The rows of one process; none for the last ones where there are fewer rows than processes."""
    if isinstance(dataset, Dataset) and len(dataset) < num_processes:
        return dataset.select(range(process_index, min(process_index + 1, len(dataset))))
    return split_dataset_by_node(dataset, rank=process_index, world_size=num_processes)


def leave_signals_to_the_main_process(worker: int) -> None:
    """In a data worker: signals to the process group pass it by, and it ends with the process that it works for."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if hasattr(os, "setpgid"):  # Windows has no process groups
        os.setpgid(0, 0)

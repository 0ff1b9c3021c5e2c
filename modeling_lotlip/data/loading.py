# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The data set that the data arguments name: its splits, its columns and the rows of each process."""

import os
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from datasets import (
    Array2D,
    Array3D,
    ClassLabel,
    Dataset,
    DatasetBuilder,
    DatasetDict,
    DatasetInfo,
    Features,
    Image,
    IterableDataset,
    Json,
    LargeList,
    List,
    ReadInstruction,
    Value,
    concatenate_datasets,
    interleave_datasets,
    load_dataset_builder,
    load_from_disk,
)
from datasets.data_files import resolve_pattern
from datasets.distributed import split_dataset_by_node
from datasets.exceptions import DatasetGenerationError
from datasets.features.features import FeatureType
from datasets.fingerprint import Hasher
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.parquet.parquet import Parquet
from transformers.utils import logging

from ..utils.arguments import refuse_given
from ..utils.output_folder import warn_of_unfinished
from .arguments import BUILDERS, SourceArguments
from .folder import describe_failure, find_image_files, is_image_file, scan_folder
from .images import IMAGE_EXTENSIONS, undecoded
from .row_files import check_json_column, check_row_files, unify_parquet_types
from .rows import check_columns, find_key
from .scenes import load_scenes
from .shard_files import check_shards, open_shards


logger = logging.get_logger(__name__)

Rows = Dataset | IterableDataset
FILE_NAME_COLUMN = "file_name"  # of the images in a folder
# The types of values that are paths or contents of images
IMAGE_TYPES = ("string", "large_string", "binary", "large_binary", "null")
INDEX_COLUMN = "__index_level_0__"  # what becomes of an index of pandas
# Of the embedded data set; a gallery of 256 images for long texts, of about half as many for the distinct short ones.
NUM_SCENES = {"train": 8192, "test": 256}


def load_split(
    source: SourceArguments,
    split: str,
    max_samples: int | None = None,
    with_images: bool = True,
    weights: list[float] | None = None,
    seed: int = 0,
    key_column: str | None = None,
) -> Rows:
    """
    Loads a split of the data set that the data arguments name, or a slice such as `"train[:100]"`, or several with `+`
    between them; the only split is taken whatever its name is. With `weights`, how often a row comes from each of
    `source.data_files`, the data ends when every row has come. The `key_column` of CSV files is read as text. A
    relative path of an image is one in the folder of the file that names it, or else in the working directory. Raises
    a `ValueError` if the data set, the split or the image column is not there, or the split is empty.
    """
    if weights is not None:
        sources = [replace(source, data_files=[file]) for file in source.data_files]
        parts = [load_split(part, split, None, with_images, key_column=key_column) for part in sources]
        probabilities = [weight / sum(weights) for weight in weights]
        rows = interleave_datasets(parts, probabilities, seed, stopping_strategy="all_exhausted")
    else:
        parts = [load_part(source, part, max_samples, with_images, key_column) for part in split.split("+")]
        rows = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    if isinstance(rows, Dataset) and len(rows) == 0:
        raise ValueError(f"The split {split!r} is empty.")
    if with_images:
        check_columns(get_columns(rows), image_column=source.image_column)
        image_type = (rows.features or {}).get(source.image_column, Image())
        check_image_type(image_type, source.image_column)
        if image_type != Image() or rows.features is None:
            rows = rows.cast_column(source.image_column, Image())
    if max_samples is None or isinstance(rows, Dataset):
        return rows if max_samples is None else rows.take(max_samples)
    return concatenate_datasets([rows.take(max_samples)], axis=1)  # one shard: the same in any number of processes


def check_image_type(found: FeatureType, column: str) -> None:
    """
    Raises a `ValueError` if a column of images has a type that is none, such as lists of numbers, which `datasets`
    would read as one row of pixels.
    """
    is_image = isinstance(found, (Array2D, Array3D, Image))
    if isinstance(found, Value):
        is_image = found.dtype in IMAGE_TYPES
    elif isinstance(found, (LargeList, List)):
        is_image = isinstance(found.feature, (LargeList, List))  # rows and columns of pixels
    elif isinstance(found, dict):
        content = found.get("bytes", Value("null"))
        is_image = {"bytes", "path"} & found.keys() and getattr(content, "dtype", None) in IMAGE_TYPES
    if not is_image:
        raise ValueError(
            f"`--image_column {column}` holds {found}, which is no image: write the path of a file as a string, or "
            "its content as binary."
        )


def load_part(
    source: SourceArguments, split: str, max_samples: int | None, with_images: bool, key_column: str | None
) -> Rows:
    """The first rows of a split, or of a slice of one; their description says which: see [`count_shared_rows`]."""
    name, bracket, part = split.partition("[")
    if source.dataset_name is None:
        most = None if bracket or source.split_seed is not None else max_samples
        name, rows = load_scene_split(source, name, most)
    elif any(Path(source.dataset_name, file).is_file() for file in ("state.json", "dataset_dict.json")):
        name, rows = load_saved_split(source, name)
    else:
        name, rows = load_built_split(source, name, with_images, key_column)
    if source.split_seed is not None:
        order = list(range(len(rows)))
        random.Random(source.split_seed).shuffle(order)
        rows = rows.select(order, keep_in_memory=True)
    start, stop = 0, sys.maxsize if isinstance(rows, IterableDataset) else len(rows)
    if bracket and isinstance(rows, IterableDataset):
        raise ValueError(f"`--streaming` takes no slice such as {split!r}: leave out one of them.")
    if bracket:
        (part,) = ReadInstruction.from_spec(name + bracket + part).to_absolute({name: stop})
        start, stop = part.from_ or 0, stop if part.to is None else part.to
        if start >= stop:
            raise ValueError(f"The split {split!r} is empty: there are {len(rows)} rows.")
        rows = rows.select(range(start, stop))
    rows.info.description = f"{name} {start} {min(stop, start + (max_samples or stop))}"
    return rows


def count_shared_rows(dataset: Rows, other: Rows) -> int:
    """How many rows two splits or slices of one data set have in common, `sys.maxsize` for equal streams."""
    described = [[line.split() for line in rows.info.description.split("\n\n")] for rows in (dataset, other)]
    parts, others = [[(name, int(start), int(stop)) for name, start, stop in lines] for lines in described]
    pairs = [(part, also) for part in parts for also in others if part[0] == also[0]]
    return sum(max(0, min(part[2], also[2]) - max(part[1], also[1])) for part, also in pairs)


def load_scene_split(source: SourceArguments, split: str, max_samples: int | None) -> tuple[str, Dataset]:
    """A split of the embedded data set, and its name."""
    why = "has no effect on the drawn scenes: leave it out, or name what reads it with --dataset_name."
    refuse_given(source, ("dataset_config_name", "data_dir", "data_files", "streaming"), why)
    split = resolve_split(split, list(NUM_SCENES), "The data set of drawn scenes")
    return split, load_scenes(min(max_samples or NUM_SCENES[split], NUM_SCENES[split]), seed=int(split == "test"))


def load_saved_split(source: SourceArguments, split: str) -> tuple[str, Dataset]:
    """A split of what `save_to_disk` has written, and its name; a single data set there goes by any name."""
    name = f"`--dataset_name {source.dataset_name}`"
    why = f"has no effect on {name}, which was saved with `save_to_disk`: leave it out."
    refuse_given(source, ("dataset_config_name", "data_dir", "data_files", "streaming"), why)
    rows = load_from_disk(source.dataset_name)
    if isinstance(rows, DatasetDict):
        split = resolve_split(split, list(rows), name)
        rows = rows[split]
    return split, rows


def load_built_split(
    source: SourceArguments, split: str, with_images: bool, key_column: str | None
) -> tuple[str, Rows]:
    """A split of a data set of the Hub, or of files that a builder of `datasets` reads, and its name."""
    builder, split = make_builder(source, split, key_column)
    files = list_files(builder, split)
    warn_of_unfinished(map(Path, files))
    folders = sorted({os.path.dirname(file) for file in files if os.path.isfile(file)})
    may_have_paths = with_images and folders and builder.info.builder_name in BUILDERS.values()
    if is_plain_image_folder(builder):
        return split, with_file_names(list_images(builder, split, source.streaming), source, files)
    try:
        builder = check_files(builder, files, key_column)
        rows = build(builder, split, source.streaming)
        if is_image_folder(builder) and isinstance(rows.features.get(key_column), Value):
            features = Features({**rows.features, key_column: Value("string")})  # 007 is not 7
            builder = ImageFolder(data_files=builder.config.data_files, features=features)
            builder.EXTENSIONS = sorted(IMAGE_EXTENSIONS)
            rows = build(builder, split, source.streaming)
        if may_have_paths and rows.features is None:
            rows = concatenate_datasets([rows])  # which finds out the types
    except (DatasetGenerationError, ValueError, StopIteration) as error:  # the last where a file is empty
        raise ValueError(f"{describe_source(source)} cannot be read: {describe_failure(error, files)}") from error
    column_type = getattr(rows.features.get(source.image_column), "dtype", None) if may_have_paths else None
    check_index_column(rows, files)
    if with_images and isinstance(rows.features.get(source.image_column), Json):
        check_json_column([file for file in files if os.path.isfile(file)], source.image_column)
    if column_type not in ("string", "large_string"):
        return split, with_file_names(rows, source, files)
    if len(folders) == 1:
        return split, join_image_paths(rows, source.image_column, folders[0])
    of_folders = [[file for file in files if os.path.dirname(file) == folder] for folder in folders]
    sources = [replace(source, data_dir=None, data_files=part) for part in of_folders]
    parts = [load_built_split(part, "train", with_images, key_column)[1] for part in sources]
    return split, concatenate_datasets(parts)


def is_image_folder(builder: DatasetBuilder) -> bool:
    """Whether a builder reads a folder of images on this machine."""
    return isinstance(builder, ImageFolder) and all(map(os.path.isfile, list_files(builder, "all")))


def is_plain_image_folder(builder: DatasetBuilder) -> bool:
    """Whether a builder reads image files on this machine, without metadata and archives."""
    return is_image_folder(builder) and all(map(is_image_file, list_files(builder, "all")))


def list_images(builder: ImageFolder, split: str, streaming: bool) -> Rows:
    """
    The images of a plain folder: `datasets` reads `a::b.jpg` and `$HOME.jpg` as addresses and variables. As there,
    folders are labels if there are several and all are equally deep.
    """
    all_files = list_files(builder, "all")
    files = all_files if split == "all" else list_files(builder, split)
    labels = sorted({os.path.basename(os.path.dirname(file)) for file in all_files})
    depths = {file.count(os.sep) for file in all_files}
    features = Features({builder.BASE_COLUMN_NAME: Image()})
    columns = {builder.BASE_COLUMN_NAME: files}
    if len(labels) > 1 and len(depths) == 1:
        features["label"] = ClassLabel(names=labels)
        columns["label"] = [os.path.basename(os.path.dirname(file)) for file in files]
    info = DatasetInfo(features=features, builder_name=builder.info.builder_name)
    rows = Dataset.from_dict(columns, features=features, info=info)
    return rows.to_iterable_dataset() if streaming else rows


def check_files(builder: DatasetBuilder, files: list[str], key_column: str | None) -> DatasetBuilder:
    """
    Checks files on this machine before they are read. Returns what reads them: for parquet files of which some have no
    value in a column, and others have, another builder.

    Raises:
        `ValueError`: if a shard was cut off, rows would be read as something else, or types differ.
    """
    local = [file for file in files if os.path.isfile(file)]
    name = builder.info.builder_name
    check_shards(local)
    metadata = []
    if name == "imagefolder":
        metadata = [file for file in local if os.path.basename(file) in ImageFolder.METADATA_FILENAMES]
    check_row_files(name, local, key_column)
    check_row_files("csv", [file for file in metadata if file.endswith(".csv")])
    if name == "parquet" and len(local) == len(files) > 1:
        features = unify_parquet_types(files)
        if features is not None:
            return Parquet(data_files=builder.config.data_files, features=features)
    if name == "webdataset" and len(local) == len(files) > 0:
        return open_shards(builder, files)
    if metadata and is_image_folder(builder):
        # their rows are what metadata names: the names of other files may be no addresses
        builder.config.data_files = {
            split: [file for file in names if not is_image_file(file)]
            for split, names in builder.config.data_files.items()
        }
    return builder


def check_index_column(rows: Rows, files: list[str]) -> None:
    """Raises a `ValueError` if pandas took a column of a CSV file elsewhere than on this machine for an index."""
    is_checked = rows.info.builder_name != "csv" or all(map(os.path.isfile, files))
    if not is_checked and INDEX_COLUMN in (rows.features or {}):
        raise ValueError(f"A row of {', '.join(files)} has more fields than the header: quote cells with commas.")


def build(builder: DatasetBuilder, split: str, streaming: bool) -> Rows:
    """The rows of a builder."""
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare()
    return builder.as_dataset(split)


def join_image_paths(rows: Rows, column: str, folder: str) -> Rows:
    """The rows of files in a folder; relative paths of images begin there if there is such a file."""

    def join(row: dict) -> dict:
        given = (row[column] or {"path": ""})["path"]
        path = os.path.join(folder, given)
        if given and not os.path.isfile(path):
            is_elsewhere = "://" in given or os.path.isfile(given)
            path = given if is_elsewhere else path
        return {column: row[column] | {"path": path} if given else row[column]}

    rows = undecoded(rows, column)
    if isinstance(rows, IterableDataset):
        return rows.map(join).cast(rows.features)
    return rows.map(join, load_from_cache_file=False, desc="Finding images")  # the files may have come meanwhile


def with_file_names(dataset: Rows, source: SourceArguments, files: list[str]) -> Rows:
    """The rows of a folder of images, unless streamed with their `file_name`; tells what its metadata leaves out."""
    column = source.image_column
    metadata = [file for file in files if os.path.basename(file) in ImageFolder.METADATA_FILENAMES]
    is_folder = dataset.info.builder_name == "imagefolder" and all(map(os.path.isfile, files))
    is_named = isinstance(dataset, IterableDataset) or FILE_NAME_COLUMN in dataset.features
    if not is_folder or (is_named and not metadata) or not isinstance(dataset.features.get(column), Image):
        return dataset
    images = [row[column] for row in undecoded(dataset, column).select_columns(column)]
    used = {os.path.abspath(image["path"]) for image in images if image is not None}
    unused = sorted({file for file in files if metadata and is_image_file(file)} - used)
    if unused:
        logger.warning_once(f"{len(unused)} images are left out, as {unused[0]!r}: they are in no line of metadata.")
    for file in (file for file in metadata if file.endswith(".csv")):
        words = pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""])
        lost = words[pd.read_csv(file, dtype=str).isna()].stack().dropna().tolist()
        if lost:
            cause = f"{len(lost)} cells of {file}, as {lost[0]!r}, are read as missing"
            logger.warning_once(f"{cause}: write metadata.jsonl in its place, where they are texts.")
    names = [find_key({column: image}, source) for image in images]
    return dataset if is_named else dataset.add_column(FILE_NAME_COLUMN, names)


def find_file_names(dataset: Rows) -> str | None:
    """The column of the names of images if [`load_split`] has read a folder of them; else None."""
    is_folder = dataset.info.builder_name == "imagefolder" and FILE_NAME_COLUMN in (dataset.features or {})
    return FILE_NAME_COLUMN if is_folder else None


def make_builder(source: SourceArguments, split: str, key_column: str | None = None) -> tuple[DatasetBuilder, str]:
    """What reads a data set of the Hub or files, and the split that it has."""
    name, config_name = source.dataset_name, source.dataset_config_name
    is_builder = name in ("imagefolder", "webdataset", *BUILDERS.values()) and (source.data_files or source.data_dir)
    is_folder = os.path.isdir(name) and not is_builder
    folder = os.path.join(name, source.data_dir or "") if is_folder else source.data_dir or "."
    is_local = source.data_files is None and os.path.isdir(folder)
    files = find_image_files(folder) if is_local and (is_folder or name == "imagefolder") else None
    try:
        if files:
            builder = load_dataset_builder("imagefolder", config_name, data_files=files)
        else:
            load = partial(load_dataset_builder, name, config_name, source.data_dir, source.data_files)
            if (builder := load()).info.builder_name == "csv":  # where NA and None are words, and 007 is not 7
                converters = {} if key_column is None else {key_column: str}
                builder = load(keep_default_na=False, na_values=[""], converters=converters)
        if all(map(os.path.isfile, list_files(builder, "all"))):
            for pattern in source.data_files or []:  # of several `datasets` passes over one that no file matches
                resolve_pattern(pattern, os.path.abspath(folder))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{describe_source(source)} cannot be loaded: {str(error).rstrip('.')}. Check these arguments."
        ) from error
    if isinstance(builder, ImageFolder):
        builder.EXTENSIONS = sorted(IMAGE_EXTENSIONS)  # `datasets` would leave out what phones write, without a word
    if not files and is_local and (is_folder or source.data_dir is not None):
        warn_of_files_without_split(builder, folder)
    splits = [str(name) for name in builder.config.data_files or builder.info.splits or ()]
    return builder, resolve_split(split, splits, describe_source(source))


def warn_of_files_without_split(builder: DatasetBuilder, folder: str) -> None:
    """Says which files of a folder are in none of the splits that `datasets` finds in their names."""
    used = set(map(os.path.realpath, list_files(builder, "all")))
    endings = {os.path.splitext(file)[1] for file in used}
    there = [os.path.join(folder, name) for name in scan_folder(folder).files if os.path.splitext(name)[1] in endings]
    unused = [file for file in there if os.path.realpath(file) not in used]
    if unused:
        logger.warning_once(
            f"{len(unused)} of {len(there)} files of {folder} are left out, as {unused[0]!r}: words in the names "
            f"of the others make these the splits {', '.join(map(str, builder.config.data_files))}. Name files with "
            "`--data_files`."
        )


def list_files(builder: DatasetBuilder, split: str) -> list[str]:
    """The files of a split, or of all."""
    files = builder.config.data_files or {}
    return [str(file) for name in (files if split == "all" else [split]) for file in files.get(name, [])]


def describe_source(source: SourceArguments) -> str:
    """The arguments that name a data set, as they are typed."""
    given = {name: getattr(source, name) for name in ("dataset_name", "dataset_config_name", "data_dir")}
    given["data_files"] = " ".join(source.data_files or [])
    return f"`{' '.join(f'--{name} {value}' for name, value in given.items() if value)}`"


def resolve_split(split: str, splits: list[str], name: str) -> str:
    """The split that is asked for; with a warning the only one. Raises a `ValueError` if there are several others."""
    if not splits or split in (*splits, "all"):
        return split
    if len(splits) > 1:
        raise ValueError(f"{name} has no split {split!r} but {', '.join(map(repr, splits))}: name one of these.")
    logger.warning_once(f"{name} has no split {split!r}: its only one, {splits[0]!r}, is taken.")
    return splits[0]


def compute_fingerprint(dataset: Dataset, image_column: str | None = None) -> str:
    """A hash of rows, and of the sizes and times of their image files, which that of `datasets` does not know."""
    hasher = Hasher()
    hasher.update(dataset._fingerprint)
    if image_column is not None:
        images = undecoded(dataset.select_columns(image_column), image_column)
        for table in images.with_format("arrow").iter(batch_size=1000):
            column = table[image_column].combine_chunks()
            for path in column.field("path").filter(column.field("bytes").is_null()).drop_null().to_pylist():
                if os.path.exists(path):
                    status = os.stat(path)
                    hasher.update((path, status.st_size, status.st_mtime_ns))
    return hasher.hexdigest()


def get_columns(dataset: Rows) -> list[str]:
    """The columns, if need be those of the first row of a stream. Raises a `ValueError` if there is none."""
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if not columns:
        raise ValueError("The data set has no rows: name other data or another split.")
    return columns


def split_by_process(dataset: Rows, process_index: int, num_processes: int) -> Rows:
    """The rows of one process; none for the last ones where there are fewer rows than processes."""
    if isinstance(dataset, Dataset) and len(dataset) < num_processes:
        return dataset.select([process_index] if process_index < len(dataset) else [])
    return split_dataset_by_node(dataset, rank=process_index, world_size=num_processes)

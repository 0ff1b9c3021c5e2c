# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The dataset that the data arguments name: its splits, its columns and the rows of each process."""

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from datasets import (
    Array2D,
    Array3D,
    ClassLabel,
    Dataset,
    DatasetBuilder,
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
)
from datasets.data_files import DataFilesDict, resolve_pattern
from datasets.distributed import split_dataset_by_node
from datasets.exceptions import DatasetGenerationError
from datasets.features.features import FeatureType, generate_from_arrow_type, require_decoding
from datasets.fingerprint import Hasher
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.parquet.parquet import Parquet
from transformers.utils import logging

from ..utils.arguments import refuse_given
from ..utils.files import hash_bytes
from ..utils.output_folder import warn_of_unfinished
from ..utils.terminal import without_stop
from .arguments import BUILDER_NAMES, BUILDERS, SourceArguments
from .folder import (
    as_patterns,
    check_archives,
    describe_failure,
    find_files_about_images,
    find_image_files,
    has_card_with_splits,
    is_image_file,
    is_table_file,
    list_files,
    list_images,
    list_other_splits,
    scan_folder,
    select_split,
    sign_files,
)
from .images import IMAGE_EXTENSIONS, undecoded
from .json_columns import find_json_columns
from .json_files import (
    FolderTexts,
    JsonTexts,
    find_common_type,
    find_decimal_columns,
    find_doubtful_column,
    find_failure_in_json,
    find_metadata_dates,
    open_json,
    open_other_folder,
    open_remote_json,
    replace_times_of,
)
from .options import find_options, hash_readers
from .row_files import (
    are_csv_rows_checked,
    check_json_column,
    check_row_files,
    find_csv_types,
    find_separator,
    open_csv,
    unify_parquet_types,
)
from .rows import check_columns, find_key
from .scenes import load_scenes
from .shard_files import Shards, check_shards, open_shards


logger = logging.get_logger(__name__)

# What reads files whose content, or names, the cache of `datasets` has
SIGNED_BUILDERS = ("csv", "imagefolder", "json", "parquet", "text", "webdataset")

Rows = Dataset | IterableDataset
FILE_NAME_COLUMN = "file_name"  # of the images in a folder
# The types of values that are paths or contents of images
IMAGE_TYPES = ("string", "large_string", "binary", "large_binary", "null")
# Contents of images that are compared to find out whether rows have the same one
MAX_COMPARED = 20_000
# Rows whose names are compared
MAX_LISTED = 2_000_000
INDEX_COLUMN = "__index_level_0__"  # what becomes of an index of pandas
# Of drawn scenes. The gallery has 256 images for long texts, and about half as many for distinct short ones.
NUM_SCENES = {"train": 8192, "test": 256}


class Slice(NamedTuple):
    """The rows of a split from one index up to another; of a stream up to `sys.maxsize`."""

    split: str  # of all splits together "all"
    start: int
    stop: int


# Splits


def load_split(
    source: SourceArguments,
    split: str,
    max_samples: int | None = None,
    with_images: bool = True,
    weights: list[float] | None = None,
    seed: int = 0,
    key_column: str | None = None,
    may_repeat: bool = False,
) -> Rows:
    """
    Loads a split of the dataset that the data arguments name. A relative path of an image is one in the folder of the
    file that names it, or else in the working directory.

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The name of a split, or a slice such as `"train[:100]"`, or several with `+` between them. The only split
            is taken whatever its name is.
        max_samples (`int`, *optional*):
            Use the first rows only.
        with_images (`bool`, *optional*, defaults to `True`):
            Whether there must be a column of images.
        weights (`list[float]`, *optional*):
            How often a row comes from each of `source.data_files`. The data ends when every row has come.
        seed (`int`, *optional*, defaults to 0):
            The seed of the order of the files with `weights`.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
        may_repeat (`bool`, *optional*, defaults to `False`):
            Whether several slices may have rows in common: see [`check_repeated_rows`].

    Returns:
        `Dataset` or `IterableDataset`: the rows, a stream where the data arguments ask for one.

    Raises:
        `ValueError`: if the dataset, the split or the image column is not there, rows would be read as something
            else, the split is empty, or rows come several times.
    """
    if weights is not None:
        rows = interleave_files(source, split, with_images, weights, seed, key_column, may_repeat)
        return finish_split(rows, source, split, max_samples, with_images)
    rows, _ = load_slices(source, split, max_samples, with_images, key_column, may_repeat)
    return rows


def load_slices(
    source: SourceArguments,
    split: str,
    max_samples: int | None = None,
    with_images: bool = True,
    key_column: str | None = None,
    may_repeat: bool = False,
) -> tuple[Rows, list[Slice]]:
    """
    Loads the same as [`load_split`], and says which slices it is made of: see [`count_shared_rows`].

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The name of a split, or a slice, or several: see [`load_split`].
        max_samples (`int`, *optional*):
            Use the first rows only.
        with_images (`bool`, *optional*, defaults to `True`):
            Whether there must be a column of images.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
        may_repeat (`bool`, *optional*, defaults to `False`):
            Whether several slices may have rows in common: see [`check_repeated_rows`].
    """
    parts = []
    slices = []
    specs = split.split("+")
    joined = {spec.partition("[")[0] for spec in specs}
    for spec in specs:
        rows, part_slice = load_part(source, spec, max_samples, with_images, key_column, joined)
        parts.append(rows)
        slices.append(part_slice)
    names = {part_slice.split for part_slice in slices}
    if "all" in names and len(names) > 1:
        raise ValueError(f"The split {split!r} names others beside 'all', which has their rows: leave them out.")
    if max_samples is not None:
        slices = take_first(slices, max_samples)
    check_repeated_rows(split, slices, may_repeat)
    rows = join_splits(parts, split) if len(parts) > 1 else parts[0]
    return finish_split(rows, source, split, max_samples, with_images), slices


def join_splits(parts: list[Rows], split: str) -> Rows:
    """
    Puts the rows of several splits one after another, each column with a type that holds the values of all.

    Args:
        parts (`list[Dataset or IterableDataset]`):
            The rows of each.
        split (`str`):
            The names of the splits, for an error.

    Raises:
        `ValueError`: if there is no such type.
    """
    builder_name = parts[0].info.builder_name
    parts = list(parts)
    for index, part in enumerate(parts):
        if part.features is None:
            parts[index] = concatenate_datasets([part])  # which finds out the types
    types = {}
    for part in parts:
        for name, feature in part.features.items():
            first = types.setdefault(name, feature)
            types[name] = find_common_feature(first, feature)
            if types[name] is None:
                raise ValueError(
                    f"The splits {split!r} have columns of other types than each other: {name!r} is {first} in one "
                    f"and {feature} in another. Write their files with the same types."
                )
    same = []
    for part in parts:
        for name, feature in part.features.items():
            if feature != types[name]:
                part = part.cast_column(name, types[name])
        same.append(part)
    rows = concatenate_datasets(same)
    rows.info.builder_name = builder_name  # which the library drops
    return rows


def find_common_feature(one: FeatureType, other: FeatureType) -> FeatureType | None:
    """Finds the type that can hold the values of two columns, if there is one; none for images and dictionaries."""
    if one == other or other == Value("null"):
        return one
    if one == Value("null"):
        return other
    if require_decoding(one) or require_decoding(other):
        return None
    one_type, other_type = Features({"one": one, "other": other}).arrow_schema.types
    if one_type == other_type:  # labels that have names in one alone
        return None
    common = find_common_type(one_type, other_type)
    return None if common is None else generate_from_arrow_type(common)


def finish_split(rows: Rows, source: SourceArguments, split: str, max_samples: int | None, with_images: bool) -> Rows:
    """
    Casts the images of the rows of a split, and takes the first ones.

    Args:
        rows (`Dataset` or `IterableDataset`):
            The rows.
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The name of the split, for an error.
        max_samples (`int`, *optional*):
            Use the first rows only.
        with_images (`bool`):
            Whether there must be a column of images.
    """
    if isinstance(rows, Dataset) and len(rows) == 0:
        raise ValueError(f"The split {split!r} is empty.")
    if with_images:
        rows = cast_images(rows, source.image_column)
    if max_samples is None:
        return rows
    if isinstance(rows, Dataset):
        return rows.take(max_samples)
    # one shard: the same rows in any number of processes
    return concatenate_datasets([rows.take(max_samples)], axis=1)


def interleave_files(
    source: SourceArguments,
    split: str,
    with_images: bool,
    weights: list[float],
    seed: int,
    key_column: str | None,
    may_repeat: bool,
) -> Rows:
    """
    Mixes the rows of several files.

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The name of a split, or a slice, or several: see [`load_split`].
        with_images (`bool`):
            Whether there must be a column of images.
        weights (`list[float]`):
            How often a row comes from each of `source.data_files`.
        seed (`int`):
            The seed of the order.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
        may_repeat (`bool`):
            Whether several slices may have rows in common: see [`check_repeated_rows`].
    """
    parts = []
    for file in source.data_files:
        part = replace(source, data_files=[file])
        rows = load_split(part, split, with_images=with_images, key_column=key_column, may_repeat=may_repeat)
        parts.append(rows)
    probabilities = [weight / sum(weights) for weight in weights]
    return interleave_datasets(parts, probabilities, seed, stopping_strategy="all_exhausted")


def load_part(
    source: SourceArguments,
    split: str,
    max_samples: int | None,
    with_images: bool,
    key_column: str | None,
    joined: Collection[str],
) -> tuple[Rows, Slice]:
    """
    Loads a split, or a slice of one, and says which.

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The name of a single split, or a slice of one such as `"train[:100]"`.
        max_samples (`int`, *optional*):
            How many rows are used in the end. All may be loaded.
        with_images (`bool`):
            Whether there must be a column of images.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
        joined (`Collection[str]`):
            The names of all splits that it is joined with, and its own.
    """
    name, bracket, part = split.partition("[")
    if source.dataset_name is None:
        are_all_needed = bracket or source.split_seed is not None
        name, rows = load_scene_split(source, name, None if are_all_needed else max_samples)
    elif any(Path(source.dataset_name, file).is_file() for file in ("state.json", "dataset_dict.json")):
        name, rows = load_saved_split(source, name)
    else:
        name, rows = load_built_split(source, name, with_images, key_column, joined)
    if source.split_seed is not None:
        order = list(range(len(rows)))
        random.Random(source.split_seed).shuffle(order)
        rows = rows.select(order, keep_in_memory=True)
    start = 0
    stop = sys.maxsize if isinstance(rows, IterableDataset) else len(rows)
    if bracket:
        start, stop = resolve_slice(split, name + bracket + part, rows)
        rows = rows.select(range(start, stop))
    return rows, Slice(name, start, stop)


def resolve_slice(split: str, spec: str, rows: Rows) -> tuple[int, int]:
    """Finds the first and the last index, not included, of a slice of rows such as `"train[:90%]"`, the `spec`."""
    if isinstance(rows, IterableDataset):
        raise ValueError(f"`--streaming` takes no slice such as {split!r}: leave out one of them.")
    name = spec.partition("[")[0]
    (instruction,) = ReadInstruction.from_spec(spec).to_absolute({name: len(rows)})
    start = instruction.from_ or 0
    stop = len(rows) if instruction.to is None else instruction.to
    if start >= stop:
        raise ValueError(f"The split {split!r} is empty: there are {len(rows)} rows.")
    return start, stop


def take_first(slices: list[Slice], num_rows: int) -> list[Slice]:
    """Shortens slices to those that hold the first rows of all together; a stream may have fewer than it could."""
    taken = []
    num_left = num_rows
    for part in slices:
        stop = min(part.stop, part.start + num_left)
        if stop > part.start:
            taken.append(part._replace(stop=stop))
        if part.stop != sys.maxsize:
            num_left -= stop - part.start
    return taken


def check_repeated_rows(split: str, slices: list[Slice], may_repeat: bool) -> None:
    """
    Raises a `ValueError` if a row is in several slices of a dataset, which `datasets` gives several times.

    Args:
        split (`str`):
            The slices as they are named.
        slices (`list[Slice]`):
            The slices.
        may_repeat (`bool`):
            Whether there is a warning in place of the error, since who trains may want that.
    """
    num_repeated = count_repeated_rows(slices)
    if num_repeated == 0:
        return
    number = "All" if num_repeated >= sys.maxsize else num_repeated
    if may_repeat:
        logger.warning(f"{number} rows of the split {split!r} come again: each counts as often as it is named.")
        return
    raise ValueError(
        f"{number} rows of the split {split!r} come again, and would count several times: name each row once, as in "
        "'train[:50%]+train[50%:]'."
    )


def count_repeated_rows(slices: list[Slice]) -> int:
    """Counts how often a row of slices of one dataset comes again, `sys.maxsize` or more for equal streams."""
    num_repeated = 0
    last_split = None
    seen_until = 0
    for part in sorted(slices):
        if part.split != last_split:
            last_split = part.split
            seen_until = 0
        num_repeated += max(0, min(part.stop, seen_until) - part.start)
        seen_until = max(seen_until, part.stop)
    return num_repeated


def count_shared_rows(slices: list[Slice], others: list[Slice]) -> int:
    """
    Counts the rows that slices of one dataset have in common, `sys.maxsize` for equal streams; of a part of all
    splits together and another split, how many these may be.
    """
    num_shared = 0
    for one in slices:
        for two in others:
            if one.split == two.split:
                num_shared += max(0, min(one.stop, two.stop) - max(one.start, two.start))
            elif "all" in (one.split, two.split):
                num_shared += min(one.stop - one.start, two.stop - two.start)
    return num_shared


def resolve_split(split: str, splits: list[str], name: str) -> str:
    """Finds the split that is asked for, with a warning the only one. Raises a `ValueError` if there are others."""
    if not splits or split in (*splits, "all"):
        return split
    if len(splits) > 1:
        raise ValueError(f"{name} has no split {split!r} but {', '.join(map(repr, splits))}: name one of these.")
    if split.partition("[")[0] not in ("train", "validation", "test"):  # which are asked for by default
        raise ValueError(f"{name} has no split {split!r} but {splits[0]!r}: name this one.")
    logger.warning_once(f"{name} has no split {split!r}: its only one, {splits[0]!r}, is taken.")
    return splits[0]


def load_scene_split(
    source: SourceArguments,
    split: str,
    max_samples: int | None,
) -> tuple[str, Dataset]:
    """Loads a split of the dataset of drawn scenes. Returns its name, too."""
    refuse_given(
        source,
        ("dataset_config_name", "data_dir", "data_files", "streaming"),
        "on the drawn scenes",
        remedy="leave it out, or name what reads it with --dataset_name",
    )
    split = resolve_split(split, list(NUM_SCENES), "The dataset of drawn scenes")
    if split == "all":
        parts = [load_scene_split(source, name, max_samples)[1] for name in NUM_SCENES]
        return split, concatenate_datasets(parts)
    num_scenes = NUM_SCENES[split]
    if max_samples is not None:
        num_scenes = min(num_scenes, max_samples)
    return split, load_scenes(num_scenes, seed=int(split == "test"))


def load_saved_split(source: SourceArguments, split: str) -> tuple[str, Dataset]:
    """
    Loads a split of what `save_to_disk` has written; a single dataset there goes by any name. Returns its name, too.
    """
    name = f"`--dataset_name {source.dataset_name}`"
    refuse_given(
        source,
        ("dataset_config_name", "data_dir", "data_files", "streaming"),
        f"on {name}, which was saved with `save_to_disk`",
    )
    folder = Path(source.dataset_name)
    splits = Path(folder, "dataset_dict.json")
    if not splits.is_file():
        return split, load_saved_rows(folder, name)
    splits = json.loads(splits.read_text(encoding="utf-8"))["splits"]
    split = resolve_split(split, splits, name)
    if split in splits:
        return split, load_saved_rows(folder / split, f"The split {split!r} of {name}")
    filled = [folder / other for other in splits if has_saved_rows(folder / other)]
    return split, concatenate_datasets([load_saved_rows(part, name) for part in filled or [folder / splits[0]]])


def has_saved_rows(folder: Path) -> bool:
    """Returns whether what `save_to_disk` has written into a folder has rows: an empty split has no files of them."""
    return bool(json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"])


def load_saved_rows(folder: Path, name: str) -> Dataset:
    """Loads what `save_to_disk` has written into a folder. Raises a `ValueError` with its name if it has no rows."""
    if not has_saved_rows(folder):  # `datasets` would fail to join its files
        raise ValueError(f"{name} cannot be read, since it has no rows: name other data or another split.")
    return Dataset.load_from_disk(folder)


# What `datasets` builds


def load_built_split(
    source: SourceArguments, split: str, with_images: bool, key_column: str | None, joined: Collection[str]
) -> tuple[str, Rows]:
    """
    Loads a split of a dataset of the Hub, or of files that a builder of `datasets` reads. Returns its name, too.

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The name of a single split.
        with_images (`bool`):
            Whether there must be a column of images.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
        joined (`Collection[str]`):
            The names of all splits that it is joined with, and its own.
    """
    builder, split = make_builder(source, split, key_column)
    files = list_files(builder, split)
    warn_of_unfinished(map(Path, files))
    if is_plain_image_folder(builder):
        rows = read_image_folder(builder, split, source.streaming)
        return split, with_file_names(rows, source, files, [])
    are_rows = builder.info.builder_name in BUILDERS.values()
    try:
        builder = check_files(builder, split, key_column, source.streaming, joined)
        rows = build(builder, split, source.streaming)
        if is_image_folder(builder):
            rows = read_metadata_as_text(builder, split, rows, key_column)
        may_have_paths = with_images and are_rows and any(map(os.path.isfile, files))
        if may_have_paths and rows.features is None:
            rows = concatenate_datasets([rows])  # which finds out the types
    except (DatasetGenerationError, ValueError, StopIteration) as error:  # the last where a file is empty
        failure = None
        is_elsewhere = not all(map(os.path.isfile, files))
        # else no row is to blame, and nothing is read again
        may_be_content = not isinstance(error.__cause__, OSError)
        if builder.info.builder_name == "json" and is_elsewhere and may_be_content:
            failure = find_failure_in_json(builder, split)
        failure = failure or describe_failure(error, files)
        raise ValueError(f"{describe_source(source)} cannot be read: {failure}") from error
    check_index_column(builder, rows, files)
    if not may_have_paths:
        return split, with_file_names(rows, source, files, list_metadata(builder, files))
    return split, find_images(rows, builder, split, source.image_column)


def build(builder: DatasetBuilder, split: str, streaming: bool) -> Rows:
    """Reads the rows of a builder."""
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare()
    if isinstance(builder, Shards):
        builder.warn_of_damaged_members()
    return builder.as_dataset(split)


def make_builder(
    source: SourceArguments,
    split: str,
    key_column: str | None = None,
) -> tuple[DatasetBuilder, str]:
    """Finds what reads a dataset of the Hub or files, and the name of the split that it has."""
    folder = find_local_folder(source)
    image_files = None
    if folder is not None and (is_folder_of_data(source) or source.dataset_name == "imagefolder"):
        image_files = find_image_files(folder)
    try:
        builder = load_builder(source, split, image_files, key_column)
        check_patterns(builder, source)
    except (OSError, ValueError) as error:
        cause = " ".join(without_stop(error).split())
        if "Config name is missing" in cause:  # where a card has several and no default
            raise ValueError(f"{cause}. Name one by --dataset_config_name.") from error
        raise ValueError(f"{describe_source(source)} cannot be loaded: {cause}. Check these arguments.") from error
    if isinstance(builder, ImageFolder):
        # `datasets` would leave out what phones write, without a word
        builder.EXTENSIONS = sorted(IMAGE_EXTENSIONS)
    is_named = is_folder_of_data(source) or source.data_dir is not None
    if not image_files and folder is not None and is_named and not has_card_with_splits(folder):
        warn_of_files_without_split(builder, folder)
    splits = [str(name) for name in builder.config.data_files or builder.info.splits or ()]
    return builder, resolve_split(split, splits, describe_source(source))


def is_folder_of_data(source: SourceArguments) -> bool:
    """Returns whether `dataset_name` is a folder on this machine, not one that is called as what reads files."""
    is_builder = source.dataset_name in BUILDER_NAMES
    if is_builder and (source.data_files or source.data_dir):
        return False
    return os.path.isdir(source.dataset_name)


def find_local_folder(source: SourceArguments) -> str | None:
    """Finds the folder on this machine that is read; None if files are named, or it is elsewhere."""
    folder = source.data_dir or "."
    if is_folder_of_data(source):
        folder = os.path.join(source.dataset_name, source.data_dir or "")
    if source.data_files is not None or not os.path.isdir(folder):
        return None
    return folder


def check_patterns(builder: DatasetBuilder, source: SourceArguments) -> None:
    """Raises a `FileNotFoundError` for a pattern that no file matches: of several `datasets` passes over it."""
    folder = source.data_dir or "."
    if is_folder_of_data(source):
        folder = os.path.join(source.dataset_name, folder)
    if all(map(os.path.isfile, list_files(builder, "all"))):
        for pattern in as_patterns(source.data_files or [], folder):
            resolve_pattern(pattern, os.path.abspath(folder))


def load_builder(
    source: SourceArguments,
    split: str,
    image_files: DataFilesDict | None,
    key_column: str | None,
) -> DatasetBuilder:
    """
    Finds what of `datasets` reads image files in a folder, if there are any, or else what the arguments name.

    Args:
        source (`SourceArguments`):
            The data arguments.
        split (`str`):
            The split that is read. All are taken for it if it is not there.
        image_files (`DataFilesDict`, *optional*):
            The image files in a folder.
        key_column (`str`, *optional*):
            A column of keys, which is read as text.
    """
    if image_files:
        is_folder = source.dataset_name != "imagefolder"
        if is_folder and source.dataset_config_name not in (None, "default"):
            raise ValueError(f"no card there has a configuration {source.dataset_config_name!r}: leave it out")
        return load_dataset_builder("imagefolder", source.dataset_config_name, data_files=image_files)
    data_files = source.data_files
    if data_files is not None:
        folder = os.path.join(source.dataset_name if is_folder_of_data(source) else "", source.data_dir or "")
        data_files = as_patterns(data_files, folder)
    named = (source.dataset_name, source.dataset_config_name, source.data_dir, data_files)
    builder = load_dataset_builder(*named)
    of_card = find_options(builder)
    options = {}
    if builder.info.builder_name == "csv":
        # where NA and None are words, and 007 is not 7
        converters = {} if key_column is None else {key_column: str}
        options = {"keep_default_na": False, "na_values": [""], "converters": converters, **of_card}
        if "sep" not in options and "delimiter" not in options:
            # other splits may be separated otherwise
            has_split = split in builder.config.data_files
            options["sep"] = find_separator(list_files(builder, split if has_split else "all"))
    signed = None
    if builder.info.builder_name in SIGNED_BUILDERS and builder.config.data_files:
        signed = sign_files(builder.config.data_files)
    if signed is not None:
        name = builder.info.builder_name
        features = find_features(builder, named)
        return load_dataset_builder(name, data_files=signed, features=features, **of_card | options)
    return load_dataset_builder(*named, **options) if options else builder


def find_features(builder: DatasetBuilder, named: tuple) -> Features | None:
    """
    Finds the types that a card says; None if it does not, or `datasets` does not read them there.

    Args:
        builder (`DatasetBuilder`):
            That of `datasets`. Its types may be from its cache, where the files were read before.
        named (`tuple`):
            What names it.
    """
    features = getattr(builder.config, "features", None)
    if features is not None:
        return features
    if builder.info.features is None or builder.info.builder_name == "imagefolder":
        return None
    with TemporaryDirectory() as empty_cache:
        return load_dataset_builder(*named, cache_dir=empty_cache).info.features


def describe_source(source: SourceArguments) -> str:
    """Describes the arguments that name a dataset, as they are typed."""
    given = {
        "dataset_name": source.dataset_name,
        "dataset_config_name": source.dataset_config_name,
        "data_dir": source.data_dir,
        "data_files": " ".join(source.data_files or []),
    }
    typed = [f"--{name} {value}" for name, value in given.items() if value]
    return f"`{' '.join(typed)}`"


def is_one_object(path: str) -> bool:
    """Returns whether a file is JSON, but no list of rows and no row in each line: settings, or results."""
    if os.path.splitext(path)[1] != ".json":
        return False
    with open(path, "rb") as file:
        if file.read(1) == b"[":
            return False
        file.seek(0)
        try:
            json.loads(file.readline())
        except ValueError:
            return True  # over several lines
        return not file.readline().strip()


def warn_of_files_without_split(builder: DatasetBuilder, folder: str) -> None:
    """
    Says which files of a folder are in none of the splits that `datasets` finds in their names, and which files of
    rows it does not read since most others have another ending.
    """
    used = set(map(os.path.realpath, list_files(builder, "all")))
    endings = {os.path.splitext(file)[1] for file in used}
    files = []
    of_other_endings = []
    names = scan_folder(folder).files
    about_images = find_files_about_images(names)
    for name in names:
        path = os.path.join(folder, name)
        if os.path.splitext(name)[1] in endings:
            files.append(path)
        elif is_table_file(name) and name not in about_images and not is_one_object(path):
            of_other_endings.append(path)
    unused = [file for file in files if os.path.realpath(file) not in used]
    if unused:
        logger.warning_once(
            f"{len(unused)} of {len(files)} files of {folder} are left out, as {unused[0]!r}: "
            "words in the names of the others make these the splits "
            f"{', '.join(map(str, builder.config.data_files))}. Name files with `--data_files`."
        )
    if of_other_endings:
        logger.warning_once(
            f"{len(of_other_endings)} files of {folder} are left out, as {of_other_endings[0]!r}: those with the "
            f"ending {' or '.join(sorted(endings))} are read. Give all the same ending, in lower case, or name the "
            "files to read with `--data_files`."
        )


# Files before they are read


def check_files(
    builder: DatasetBuilder,
    split: str,
    key_column: str | None,
    is_stream: bool = False,
    joined: Collection[str] = (),
) -> DatasetBuilder:
    """
    Checks the files of a split on this machine before they are read.

    Args:
        builder (`DatasetBuilder`): What reads them.
        split (`str`): The split, some or all of whose files may be elsewhere.
        key_column (`str`, *optional*): A column of keys, which is read as text.
        is_stream (`bool`, *optional*, defaults to `False`): Whether they are read while they are used.
        joined (`Collection[str]`, *optional*): The splits whose rows are joined with these.

    Returns:
        `DatasetBuilder`: what reads them, another one for CSV, JSON, parquet and shards on this machine, for a stream
            of JSON from elsewhere, and for folders of images.

    Raises:
        `ValueError`: if a shard was cut off, rows would be read as something else, or types differ.
    """
    files = list_files(builder, split)
    local = [file for file in files if os.path.isfile(file)]
    are_all_local = len(local) == len(files) > 0
    name = builder.info.builder_name
    check_shards(local)
    check_archives(local)
    options = find_options(builder)
    if name == "csv" and are_all_local:
        return open_csv(builder, split, key_column)
    checked_column = key_column
    if name == "json":
        checked_column = find_doubtful_column(local, key_column, options)
    check_row_files(name, local, checked_column, options)
    if name == "parquet" and are_all_local:
        # each split alone: `datasets` would read all with the types of the first one
        data_files = select_split(builder.config.data_files, split)
        features = builder.config.features or unify_parquet_types(files)
        return Parquet(data_files=data_files, features=features, hash=hash_readers(), **options)
    if name == "arrow" and are_all_local:
        data_files = select_split(builder.config.data_files, split)
        return Arrow(data_files=data_files, features=builder.config.features, hash=builder.hash, **options)
    if name == "webdataset" and are_all_local:
        return open_shards(builder, split)
    if name == "json" and are_all_local:
        other_files = []
        for other in sorted({*joined} - {split}):
            other_files += filter(os.path.isfile, list_files(builder, other))
        return open_json(builder, files, split, other_files)
    if name == "json" and is_stream:
        return open_remote_json(builder, split)
    metadata = list_metadata(builder, local)
    if metadata and is_image_folder(builder):
        return open_metadata(builder, split)
    if isinstance(builder, ImageFolder):  # in archives or elsewhere, with metadata or without
        return open_other_folder(builder)
    return builder


def open_metadata(builder: ImageFolder, split: str) -> ImageFolder:
    """
    Finds what reads the rows that the metadata of a folder of images names. In `metadata.csv` each column has one type
    in all rows of all splits, in others in all rows of the split.

    Args:
        builder (`ImageFolder`):
            That of `datasets`.
        split (`str`):
            The split that is read.

    Raises:
        `ValueError`: if a column has several types.
    """
    # the rows are what metadata names: the names of other files may be no addresses
    files_by_split = DataFilesDict()
    for name, split_files in builder.config.data_files.items():
        files_by_split[name] = [file for file in split_files if not is_image_file(file)]
    signed = sign_files(files_by_split)
    if signed is not None:
        builder.config.data_files = signed
    check_metadata_types(list_metadata(builder, list_files(builder, split)))
    options = find_options(builder)
    data_files = select_split(builder.config.data_files, split)
    reader = make_folder_reader(data_files, builder.config.features, options)
    other_tables = [list_csv_metadata(builder, files) for files in list_other_splits(builder, split)]
    features = find_csv_types(list_csv_metadata(builder, list_files(builder, split)), other_tables, {})
    if features is None or builder.config.features is not None or builder.config.filters is not None:
        return reader
    names_of_files = [name for name in features if name.endswith(("file_name", "file_names"))]
    if names_of_files != [FILE_NAME_COLUMN]:  # of several images in a row `datasets` makes other columns
        return reader
    del features[FILE_NAME_COLUMN]
    features = Features({builder.BASE_COLUMN_NAME: Image(), **features})
    return make_folder_reader(data_files, features, options)


def check_metadata_types(files: list[str]) -> None:
    """
    Checks that a column of metadata has one type. `datasets` takes that of one file, and makes the text "007" a 7.

    Raises:
        `ValueError`: if one has several; names it.
    """
    of_json = [file for file in files if file.endswith(".jsonl")]
    mixed = find_json_columns(of_json).mixed
    if mixed:
        raise ValueError(
            f"{', '.join(of_json)}: the column {mixed[0]!r} holds values of several types: write those of one "
            "type in all rows, such as lists, or texts."
        )
    of_parquet = [file for file in files if file.endswith(".parquet")]
    if of_parquet and unify_parquet_types(of_parquet) is not None:
        raise ValueError(f"{', '.join(of_parquet)} have other types than each other: write all with the same.")


def make_folder_reader(
    files: DataFilesDict, features: Features | None, options: dict[str, Any], date_columns: Iterable[str] = ()
) -> FolderTexts:
    """
    Makes what reads a folder of images with metadata.

    Args:
        files (`DataFilesDict`):
            The files of metadata by split.
        features (`Features`, *optional*):
            The types of the columns, where they are known.
        options (`dict[str, Any]`):
            How they are read, where that is not the default.
        date_columns (`Iterable[str]`, *optional*):
            The columns with texts that are written like dates.
    """
    builder = FolderTexts(data_files=files, features=features, hash=hash_readers(), **options)
    builder.EXTENSIONS = sorted(IMAGE_EXTENSIONS)
    builder.info.builder_name = "imagefolder"
    builder.date_columns = frozenset(date_columns)
    return builder


def list_metadata(builder: DatasetBuilder, files: list[str]) -> list[str]:
    """Lists the files of metadata among those that a builder reads as a folder of images; none for other builders."""
    if builder.info.builder_name != "imagefolder" or builder.config.drop_metadata:
        return []
    names = builder.config.metadata_filenames or ImageFolder.METADATA_FILENAMES
    return [file for file in files if os.path.basename(file) in names]


def list_csv_metadata(builder: DatasetBuilder, files: list[str]) -> list[str]:
    """Lists the files `metadata.csv` among those that a builder reads as a folder of images."""
    return [file for file in list_metadata(builder, files) if file.endswith(".csv")]


def check_index_column(builder: DatasetBuilder, rows: Rows, files: list[str]) -> None:
    """Raises a `ValueError` if pandas took a column of a CSV file that could not be checked before for an index."""
    if builder.info.builder_name != "csv" or builder.config.index_col is not None:
        return
    if are_csv_rows_checked(find_options(builder)) and all(map(os.path.isfile, files)):
        return
    features = rows.features
    if features is None:
        features = concatenate_datasets([rows]).features  # which finds out the types
    if INDEX_COLUMN in (features or {}):
        raise ValueError(f"A row of {', '.join(files)} has more fields than the header: quote such cells.")


# Folders of images


def is_image_folder(builder: DatasetBuilder) -> bool:
    """Returns whether a builder reads a folder of images on this machine."""
    return isinstance(builder, ImageFolder) and all(map(os.path.isfile, list_files(builder, "all")))


def is_plain_image_folder(builder: DatasetBuilder) -> bool:
    """Returns whether a builder reads all image files on this machine that it names, without metadata and archives."""
    if not is_image_folder(builder) or builder.config.filters is not None:
        return False
    return all(map(is_image_file, list_files(builder, "all")))


def read_image_folder(builder: ImageFolder, split: str, streaming: bool) -> Rows:
    """
    Makes rows of the images of a plain folder: `datasets` reads `a::b.jpg` and `$HOME.jpg` as addresses and variables.
    As there, folders are labels if there are several and all are equally deep, unless a card says whether they are.
    """
    all_files = list_files(builder, "all")
    files = list_files(builder, split)
    labels = sorted({os.path.basename(os.path.dirname(file)) for file in all_files})
    depths = {file.count(os.sep) for file in all_files}
    features = Features({builder.BASE_COLUMN_NAME: Image()})
    columns = {builder.BASE_COLUMN_NAME: files}
    are_labels = len(labels) > 1 and len(depths) == 1
    if builder.config.drop_labels is not None:
        are_labels = not builder.config.drop_labels
    if are_labels:
        features["label"] = ClassLabel(names=labels)
        columns["label"] = [os.path.basename(os.path.dirname(file)) for file in files]
    info = DatasetInfo(features=features, builder_name=builder.info.builder_name)
    rows = Dataset.from_dict(columns, features=features, info=info)
    if streaming:
        return rows.to_iterable_dataset()
    return rows


def read_metadata_as_text(builder: ImageFolder, split: str, rows: Rows, key_column: str | None) -> Rows:
    """
    Reads the rows of a folder of images again if its metadata has a column of keys, where 007 is not 7, or texts that
    are written like dates, or decimals where there are whole numbers at the beginning.

    Args:
        builder (`ImageFolder`):
            What has read the rows.
        split (`str`):
            The split that they are.
        rows (`Dataset` or `IterableDataset`):
            The rows, which are returned where there are neither.
        key_column (`str`, *optional*):
            The column of keys.
    """
    dates = set()
    metadata = list_metadata(builder, list_files(builder, "all"))
    if builder.config.filters is None:  # by which rows are missing
        dates = find_metadata_dates(rows.features, metadata)
    numbers = {name for name, feature in rows.features.items() if feature == Value("int64")}
    decimals = set()
    if numbers and builder.config.features is None:
        decimals = numbers & find_decimal_columns(file for file in metadata if file.endswith(".jsonl"))
    has_keys = isinstance(rows.features.get(key_column), Value)
    if not dates and not decimals and not has_keys:
        return rows
    features = replace_times_of(rows.features)
    for name in decimals:
        features[name] = Value("float64")
    if has_keys:
        features[key_column] = Value("string")
    options = find_options(builder)
    builder = make_folder_reader(builder.config.data_files, features, options, dates)
    return build(builder, split, isinstance(rows, IterableDataset))


def with_file_names(dataset: Rows, source: SourceArguments, files: list[str], metadata: list[str]) -> Rows:
    """
    Adds the `file_name` to rows of a folder of images, unless streamed; warns of what its metadata leaves out.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        source (`SourceArguments`):
            The data arguments.
        files (`list[str]`):
            The files of the folder.
        metadata (`list[str]`):
            Those of metadata among them.
    """
    column = source.image_column
    if dataset.info.builder_name != "imagefolder" or not all(map(os.path.isfile, files)):
        return dataset
    if not isinstance(dataset.features.get(column), Image):
        return dataset
    is_named = isinstance(dataset, IterableDataset) or FILE_NAME_COLUMN in dataset.features
    # archives may hold metadata of their own
    may_leave_out = bool(metadata) or any(file.lower().endswith(".zip") for file in files)
    if is_named and not may_leave_out:
        return dataset
    images = [row[column] for row in undecoded(dataset, column).select_columns(column)]
    if may_leave_out:
        warn_of_images_without_metadata(images, files)
        warn_of_lost_words([file for file in metadata if file.endswith(".csv")])
    if is_named:
        return dataset
    names = [find_key({column: image}, source) for image in images]
    return dataset.add_column(FILE_NAME_COLUMN, names)


def warn_of_images_without_metadata(images: list[dict | None], files: list[str]) -> None:
    """Says which images of a folder, also in archives, are none of the undecoded ones that its metadata names."""
    paths = [image["path"] for image in images if image is not None]
    used = {path if path.startswith("zip://") else os.path.abspath(path) for path in paths}
    unused = sorted(set(list_images(files)) - used)
    if unused:
        logger.warning_once(
            f"{len(unused)} images are left out, as {unused[0]!r}: they are in no line of metadata that is read."
        )


def warn_of_lost_words(files: list[str]) -> None:
    """Says which words of files `metadata.csv`, such as NA, `datasets` reads as missing."""
    for file in files:
        words = pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""])
        lost = words[pd.read_csv(file, dtype=str).isna()].stack().dropna().tolist()
        if lost:
            logger.warning_once(
                f"{len(lost)} cells of {file}, as {lost[0]!r}, are read as missing: write "
                "metadata.jsonl in its place, where they are texts."
            )


def find_file_names(dataset: Rows) -> str | None:
    """Finds the column of the names of images if [`load_split`] has read a folder of them; else None."""
    if dataset.info.builder_name == "imagefolder" and FILE_NAME_COLUMN in (dataset.features or {}):
        return FILE_NAME_COLUMN
    return None


# The column of images


def find_images(rows: Rows, builder: DatasetBuilder, split: str, image_column: str) -> Rows:
    """
    Finds the images that rows of files name: relative paths begin in the folder of their file if there is such a file.

    Args:
        rows (`Dataset` or `IterableDataset`):
            The rows, which are returned where they hold no paths.
        builder (`DatasetBuilder`):
            What has read them. It reads the rows of each folder anew if there are several.
        split (`str`):
            The split that they are.
        image_column (`str`):
            The column of images.

    Raises:
        `ValueError`: if files are in several folders on this machine, and others elsewhere.
    """
    files = list_files(builder, split)
    local = [file for file in files if os.path.isfile(file)]
    column_type = rows.features.get(image_column)
    if isinstance(column_type, Json):
        check_json_column(local, image_column)
    if not local or getattr(column_type, "dtype", None) not in ("string", "large_string"):
        return rows
    folders = {os.path.dirname(file) for file in local}
    if len(folders) == 1:
        return join_image_paths(rows, image_column, folders.pop())
    if len(local) < len(files):
        raise ValueError(
            f"Files in several folders, as {local[0]}, and files from elsewhere are no single dataset: put those on "
            "this machine into one folder."
        )
    parts = []
    # in the order of the files, which is that of the rows
    for folder, folder_files in groupby(files, os.path.dirname):
        part = open_part(builder, list(folder_files), rows.features)
        of_folder = build(part, "train", isinstance(rows, IterableDataset))
        parts.append(join_image_paths(of_folder, image_column, folder))
    return concatenate_datasets(parts)


def open_part(builder: DatasetBuilder, files: list[str], features: Features) -> DatasetBuilder:
    """
    Makes what reads some files of a builder, as a split `train`, with the types of all its files.

    Args:
        builder (`DatasetBuilder`):
            What reads CSV, JSON or parquet on this machine: see [`check_files`].
        files (`list[str]`):
            The files.
        features (`Features`):
            The types of all rows.
    """
    data_files = sign_files(DataFilesDict({"train": files}))
    options = find_options(builder)
    part = type(builder)(data_files=data_files, features=features, hash=builder.hash, **options)
    if isinstance(part, JsonTexts):
        part.local_files = tuple(files)
        of_json = [name for name, feature in features.items() if isinstance(feature, Json)]
        part.mixed_columns = frozenset(of_json)
    return part


def join_image_paths(rows: Rows, column: str, folder: str) -> Rows:
    """Lets relative paths of images begin in a folder if there is such a file."""

    def join(row: dict) -> dict:
        image = row[column]
        if image is None or not image["path"]:
            return {column: image}
        given = image["path"]
        path = os.path.join(folder, given)
        is_elsewhere = "://" in given or os.path.isfile(given)
        if is_elsewhere and not os.path.isfile(path):
            return {column: image}
        return {column: {**image, "path": path}}

    rows = undecoded(rows, column)
    if isinstance(rows, IterableDataset):
        # JSON as it is written: of the text "007" `datasets` would make a 7 after the map
        return rows.decode(False).map(join).cast(rows.features)
    # not from the cache: the files may have come meanwhile
    return rows.map(join, load_from_cache_file=False, desc="Finding images")


def cast_images(rows: Rows, column: str) -> Rows:
    """Makes a column one of images. Raises a `ValueError` if it is not there, or holds something else."""
    check_columns(get_columns(rows), image_column=column)
    warn_of_other_images(rows.features or {}, column)
    column_type = (rows.features or {}).get(column)  # a stream may not say it
    if column_type is not None:
        check_image_type(column_type, column)
        if isinstance(column_type, (Array3D, LargeList, List)):
            check_pixels(rows, column)
    if column_type == Image():
        return rows
    return rows.cast_column(column, Image())


def warn_of_other_images(features: Mapping[str, FeatureType], column: str) -> None:
    """Warns of images in shards whose names have another ending than those of a column."""
    others = [name for name, found in features.items() if isinstance(found, Image) and name != column]
    if "__key__" in features and others:
        logger.warning_once(
            f"Shards have images that end in .{', .'.join(others)}, which `--image_column {column}` does not read: "
            "where a sample has one image, give all the same ending."
        )


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
        if getattr(found.feature, "dtype", None) in ("string", "large_string"):
            raise ValueError(
                f"`--image_column {column}` holds lists of texts: write one path for each image, and JSON as JSON "
                "lines or a list of rows, not as an object of columns."
            )
    elif isinstance(found, dict):
        content = found.get("bytes", Value("null"))
        is_image = {"bytes", "path"} & found.keys() and getattr(content, "dtype", None) in IMAGE_TYPES
    if not is_image:
        raise ValueError(
            f"`--image_column {column}` holds {found}, which is no image: write the path of a file "
            "as a string, or its content as binary."
        )


def check_pixels(rows: Rows, column: str) -> None:
    """
    Raises a `ValueError` if the first image of a column of pixels in color is not of height x width x channels, from
    0 to 255. One of channels x height x width would be read as an image of a few pixels in height if it has as few in
    width, and 256 as 0.
    """
    pixels = next((row[column] for row in rows.select_columns(column) if row[column] is not None), [])
    try:
        pixels = np.asarray(pixels)
    except ValueError:  # of rows of several lengths; who reads them says so
        return
    if pixels.ndim != 3:
        return
    if pixels.shape[0] in (3, 4) or pixels.shape[2] not in (2, 3, 4):
        raise ValueError(
            f"`--image_column {column}` holds pixels of the shape {pixels.shape}: write height x width x channels, of "
            "3 or 4 channels and more than 4 pixels in height, or better the content of image files."
        )
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(
            f"`--image_column {column}` holds pixels from {pixels.min()} to {pixels.max()}: write whole numbers "
            "from 0 to 255, or better the content of image files."
        )


# Rows


def compute_fingerprint(dataset: Dataset, image_column: str) -> str:
    """Hashes rows, and the sizes and times of their image files, which the hash of `datasets` does not know."""
    hasher = Hasher()
    hasher.update(dataset._fingerprint)
    images = undecoded(dataset.select_columns(image_column), image_column)
    for table in images.with_format("arrow").iter(batch_size=1000):
        column = table[image_column].combine_chunks()
        paths = column.field("path").filter(column.field("bytes").is_null()).drop_null()
        for path in paths.to_pylist():
            if os.path.exists(path):
                status = os.stat(path)
                hasher.update((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return hasher.hexdigest()


def count_repeated_images(dataset: Rows, image_column: str) -> int:
    """
    Counts the rows whose image is that of an earlier row, by the paths of files. Where contents are in the
    data, those of the same name and length are compared, unless they are more than `MAX_COMPARED`. None are counted
    in a stream, nor in data of more than `MAX_LISTED` rows, whose names would take gigabytes.
    """
    if not isinstance(dataset, Dataset) or len(dataset) > MAX_LISTED:
        return 0
    images = undecoded(dataset.select_columns(image_column), image_column)
    keys = []
    for table in images.with_format("arrow").iter(batch_size=1000):
        for chunk in table[image_column].chunks:  # of which no content is read here
            paths = pc.struct_field(chunk, "path").to_pylist()
            lengths = pc.binary_length(pc.struct_field(chunk, "bytes")).to_pylist()
            keys += zip(paths, lengths)
    counts = Counter(keys)
    found = []
    compared = []
    for row, (path, length) in enumerate(keys):
        if counts[path, length] > 1 and length is not None:
            compared.append(row)
        elif counts[path, length] > 1 and path is not None:
            found.append(path)
    if len(compared) <= MAX_COMPARED:
        found += [hash_bytes(images[row][image_column]["bytes"]) for row in compared]
    return len(found) - len(set(found))


def warn_of_repeated_images(dataset: Rows, image_column: str, what: str) -> None:
    """
    Warns of rows with the same image, as in files with a row for each caption, unless streamed.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The rows.
        image_column (`str`):
            The column of the images.
        what (`str`):
            What messages call the rows, such as `"training"`.
    """
    num_repeated = count_repeated_images(dataset, image_column)
    if num_repeated > 0:
        logger.warning(
            f"{num_repeated} of {len(dataset)} {what} rows have the image of another row, whose captions "
            "count as wrong for them. Write one row for each image, with a list of its captions."
        )


def warn_of_images_counted_again(dataset: Rows, image_column: str) -> None:
    """Warns of rows with the same image where each row counts as an image, unless streamed."""
    num_repeated = count_repeated_images(dataset, image_column)
    if num_repeated > 0:
        logger.warning(
            f"{num_repeated} of {len(dataset)} rows have the image of another row, and each counts as an image. Write "
            "one row for each image, with a list of its captions."
        )


def get_columns(dataset: Rows) -> list[str]:
    """Returns the columns, if need be those of the first row of a stream. Raises a `ValueError` if there is none."""
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if not columns:
        raise ValueError("The dataset has no rows: name other data or another split.")
    return columns


def split_by_process(dataset: Rows, process_index: int, num_processes: int) -> Rows:
    """Selects the rows of one process; none for the last ones where there are fewer rows than processes."""
    if isinstance(dataset, Dataset) and len(dataset) < num_processes:
        return dataset.select([process_index] if process_index < len(dataset) else [])
    return split_dataset_by_node(dataset, rank=process_index, world_size=num_processes)

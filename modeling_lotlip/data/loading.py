# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The dataset that the data arguments name: its splits, and the rows of each process."""

import json
import os
import random
import sys
from collections.abc import Collection
from pathlib import Path

from datasets import (
    Dataset,
    DatasetBuilder,
    Features,
    IterableDataset,
    Value,
    concatenate_datasets,
)
from datasets.distributed import split_dataset_by_node
from datasets.exceptions import DatasetGenerationError
from datasets.features.features import FeatureType, generate_from_arrow_type, require_decoding
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

from ..utils.arguments import refuse_given
from ..utils.output_folder import warn_of_unfinished
from .arguments import BUILDERS, SourceArguments
from .builders import build, describe_source, make_builder
from .files_elsewhere import READERS_ELSEWHERE, JsonElsewhere, check_first_rows, check_key_column, open_elsewhere
from .folder import check_archives, describe_failure, list_files
from .image_column import cast_images, find_images
from .image_folder import (
    is_image_folder,
    is_plain_image_folder,
    list_metadata,
    open_metadata,
    read_image_folder,
    read_metadata_as_text,
    to_stream,
    with_file_names,
)
from .images import unformatted
from .json_files import find_common_type, find_doubtful_column, open_json
from .label_names import open_arrow, open_parquet
from .metadata_files import open_other_folder
from .options import find_options
from .row_files import (
    are_csv_rows_checked,
    check_row_files,
    has_archives,
    open_csv,
)
from .rows import Rows
from .scenes import load_scenes
from .shard_files import check_shards, open_shards
from .slices import Slice, check_repeated_rows, resolve_slice, resolve_split, take_first


logger = logging.get_logger(__name__)

INDEX_COLUMN = "__index_level_0__"  # what becomes of an index of pandas
# Of drawn scenes. The gallery has 256 images for long texts, and about half as many for distinct short ones.
NUM_SCENES = {"train": 8192, "test": 256}


def load_split(
    source: SourceArguments,
    split: str,
    max_samples: int | None = None,
    with_images: bool = True,
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
                    f"The splits {split!r} have columns of other types than each other: {name!r} is "
                    f"{first} in one and {feature} in another. Write their files with the same types."
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


def finish_split(
    rows: Rows, source: SourceArguments, split: str, max_samples: int | None, with_images: bool = True
) -> Rows:
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
        with_images (`bool`, *optional*, defaults to `True`):
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
    """
    Loads what `save_to_disk` has written into a folder, without the format that it was saved with. Raises a
    `ValueError` with its name if it has no rows.
    """
    if not has_saved_rows(folder):  # `datasets` would fail to join its files
        raise ValueError(f"{name} cannot be read, since it has no rows: name other data or another split.")
    return unformatted(Dataset.load_from_disk(folder))


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
        rows = with_file_names(read_image_folder(builder, split), source, files, [])
        return split, to_stream(rows) if source.streaming else rows
    are_rows = builder.info.builder_name in BUILDERS.values()
    try:
        builder = check_files(builder, split, key_column, source.streaming, joined)
        rows = build(builder, split, source.streaming)
        if is_image_folder(builder):
            rows = read_metadata_as_text(builder, split, rows, key_column)
        if isinstance(builder, JsonElsewhere) and key_column is not None:
            check_key_column(rows, key_column)
        may_have_paths = with_images and are_rows and any(map(os.path.isfile, files))
        if may_have_paths and rows.features is None:
            rows = concatenate_datasets([rows])  # which finds out the types
    except (DatasetGenerationError, ValueError, StopIteration) as error:  # the last where a file is empty
        failure = describe_failure(error, files)
        raise ValueError(f"{describe_source(source)} cannot be read: {failure}") from error
    check_index_column(builder, rows, files)
    if not may_have_paths:
        return split, with_file_names(rows, source, files, list_metadata(builder, files))
    return split, find_images(rows, builder, split, source.image_column)


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
        `DatasetBuilder`: what reads them, another one for CSV on this machine, for JSON, parquet and shards, and for
            folders of images.

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
    if name == "csv" and not is_stream:  # before they are downloaded; a stream is checked with its types
        check_first_rows(builder, files)
    checked_column = key_column
    if name == "json":
        checked_column = find_doubtful_column(local, key_column, options)
    check_row_files(name, local, checked_column, options)
    if name == "parquet" and are_all_local:
        return open_parquet(builder, files, split)
    if name == "arrow" and are_all_local:
        return open_arrow(builder, files, split)
    if name == "webdataset":
        return open_shards(builder, split, are_all_local)
    if name == "json" and are_all_local:
        other_files = []
        for other in sorted({*joined} - {split}):
            other_files += filter(os.path.isfile, list_files(builder, other))
        return open_json(builder, files, split, other_files)
    # offline there may be rows in the cache alone; CSV in archives is read by `datasets`
    is_archived_csv = name == "csv" and has_archives(files)
    if name in READERS_ELSEWHERE and files and not is_archived_csv:
        return open_elsewhere(builder, split, key_column, is_stream)
    metadata = list_metadata(builder, local)
    if metadata and is_image_folder(builder):
        return open_metadata(builder, split)
    if isinstance(builder, ImageFolder):  # in archives or elsewhere, with metadata or without
        return open_other_folder(builder, key_column)
    return builder


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


def split_by_process(dataset: Rows, process_index: int, num_processes: int) -> Rows:
    """Selects the rows of one process; none for the last ones where there are fewer rows than processes."""
    if isinstance(dataset, Dataset) and len(dataset) < num_processes:
        return dataset.select([process_index] if process_index < len(dataset) else [])
    return split_dataset_by_node(dataset, rank=process_index, world_size=num_processes)

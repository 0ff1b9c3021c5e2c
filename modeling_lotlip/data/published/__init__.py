# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The benchmarks of the paper, read from the files that their publishers ship.

    from modeling_lotlip.data.published import load_benchmark

    dataset = load_benchmark("iiw", "path/to/iiw")

A file of this folder is a benchmark: another one is another file, which ends with its `BENCHMARKS`.
"""

import difflib
import importlib
import logging
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from .annotations import Benchmark


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 5  # of missing files, in messages

BENCHMARKS = {
    benchmark.name: benchmark
    for module in pkgutil.iter_modules(__path__)
    for benchmark in getattr(importlib.import_module(f"{__name__}.{module.name}"), "BENCHMARKS", ())
}


def get_benchmark(name: str) -> Benchmark:
    """
    The benchmark of a name, in letters of any case.

    Args:
        name (`str`):
            A key of `BENCHMARKS`, or one of their aliases.

    Raises:
        `ValueError`: if there is none.

    Example:

    ```python
    >>> from modeling_lotlip.data.published import get_benchmark

    >>> get_benchmark("MSCOCO").num_texts
    25000
    ```"""
    for benchmark in BENCHMARKS.values():
        if name.lower() in (benchmark.name, *benchmark.aliases):
            return benchmark
    close = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"There is no benchmark {name!r}, but {', '.join(BENCHMARKS)}.{hint}")


def load_benchmark(name: str, data_dir: str | Path, text_only: bool = False, allow_partial: bool = False) -> "Dataset":
    """
    Reads a benchmark from a folder with the files that its publishers ship. Images stay where they are.

    Args:
        name (`str`):
            The name of the benchmark: see `BENCHMARKS`.
        data_dir (`str` or `Path`):
            Its folder.
        text_only (`bool`, *optional*, defaults to `False`):
            Read the annotations only. The images need not be there.
        allow_partial (`bool`, *optional*, defaults to `False`):
            Take what is there of a benchmark whose files are not all there, or which has another size than published.

    Returns:
        `Dataset`: a row for each image, with `file_name` (its path in the folder), `image` unless `text_only`, and
        `long_captions` (a string), `caption` (a list of strings) or `label`. Long captions are as published: it is the
        evaluation that splits them into sub-captions and joins them again.

    Raises:
        `FileNotFoundError`: if files are missing: lists some, and says where to get them.
        `ValueError`: if the annotations are damaged, or the size is not the published one.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from modeling_lotlip.data.published import load_benchmark

    >>> Path("urban1k/caption").mkdir(parents=True)
    >>> _ = Path("urban1k/caption/1.txt").write_text("A red car stands at a kerb.")
    >>> load_benchmark("urban1k", "urban1k", text_only=True, allow_partial=True)["long_captions"][:]
    ['A red car stands at a kerb.']
    ```"""
    benchmark, data_dir = get_benchmark(name), Path(data_dir)
    if text_only and benchmark.task == "classification":
        raise ValueError(f"`--text_only` leaves nothing of the benchmark {benchmark.name!r}, which has no texts.")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`--data_dir {data_dir}` is no folder. {benchmark.how_to_get()}")

    annotations = benchmark.read(data_dir)
    if annotations.missing:
        message = (
            f"{describe(annotations.missing)} of the annotation files of {benchmark.name!r} are not in `{data_dir}`"
        )
        if not annotations.rows or not allow_partial:
            raise FileNotFoundError(f"{message}. {benchmark.how_to_get()}")
        logger.warning(f"{message}.")
    check_size(benchmark, annotations.rows, data_dir, allow_partial)

    rows = annotations.rows
    if not text_only:
        rows = with_images(benchmark, rows, data_dir, allow_partial)
    if len(rows) < benchmark.num_images:
        logger.warning(f"{benchmark.name!r} is partial: {len(rows)} of {benchmark.num_images} images.")
    return to_dataset(rows, annotations.class_names, None if text_only else data_dir)


def describe(missing: list[str]) -> str:
    """How many files are missing, and which come first, as the beginning of a sentence."""
    names = ", ".join(missing[:NUM_EXAMPLES]) + (", ..." if len(missing) > NUM_EXAMPLES else "")
    return f"{len(missing)} ({names})"


def check_size(benchmark: Benchmark, rows: list[dict], data_dir: Path, allow_partial: bool) -> None:
    """
    Compares the size of the annotations to the published one.

    Raises:
        `ValueError`: if they differ, and that is not allowed, or nothing is there.
    """
    num_texts = sum(len(row["caption"]) if "caption" in row else "long_captions" in row for row in rows)
    size, published = (len(rows), num_texts), (benchmark.num_images, benchmark.num_texts)
    if size == published or (rows and allow_partial):
        return
    raise ValueError(
        f"The annotations of {benchmark.name!r} in `{data_dir}` are of {size[0]} images and {size[1]} texts, but "
        f"{published[0]} and {published[1]} are published. {benchmark.how_to_get()} To use them as they are, set "
        "`--allow_partial`."
    )


def with_images(benchmark: Benchmark, rows: list[dict], data_dir: Path, allow_partial: bool) -> list[dict]:
    """
    The rows whose image is there.

    Raises:
        `FileNotFoundError`: if images are missing, and that is not allowed, or none is there.
    """
    is_there = [(data_dir / row["file_name"]).is_file() for row in rows]
    missing = [row["file_name"] for row, is_image in zip(rows, is_there) if not is_image]
    if not missing:
        return rows
    message = f"{describe(missing)} of the {len(rows)} images of {benchmark.name!r} are not in `{data_dir}`"
    if len(missing) == len(rows) or not allow_partial:
        remedies = "To use the other images, set `--allow_partial`; to do without images, `--text_only`."
        raise FileNotFoundError(f"{message}. {benchmark.how_to_get()} {remedies}")
    logger.warning(f"{message}, and are left out.")
    return [row for row, is_image in zip(rows, is_there) if is_image]


def to_dataset(rows: list[dict], class_names: list[str] | None, image_dir: Path | None) -> "Dataset":
    """The rows as a data set, with a column of images if there is a folder of them."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    features = {
        "file_name": Value("string"),
        "image": Image(),
        "caption": List(Value("string")),
        "long_captions": Value("string"),
        "label": ClassLabel(names=class_names) if class_names is not None else None,
    }
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if image_dir is not None:
        columns["image"] = [str(image_dir / name) for name in columns["file_name"]]
    return Dataset.from_dict(columns, features=Features({name: features[name] for name in columns}))


__all__ = ["BENCHMARKS", "Benchmark", "get_benchmark", "load_benchmark"]

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
The benchmarks of the paper, read from the files that their publishers ship.

    from data.benchmarks import load_benchmark

    dataset = load_benchmark("iiw", "path/to/iiw")
"""

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, List, Value

from .annotations import Annotations
from .dci import read_dci
from .docci import read_docci
from .iiw import read_iiw
from .imagenet import read_imagenet
from .karpathy import read_karpathy
from .sharegpt4v import read_sharegpt4v
from .urban1k import read_urban1k


logger = logging.getLogger(__name__)

NUM_EXAMPLES = 5  # of missing files, in messages


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark as it is published.

    Args:
        name (`str`):
            Its name.
        read (`Callable[[Path], Annotations]`):
            Reads its annotations from a folder.
        num_images (`int`):
            The published number of images.
        num_texts (`int`):
            The published number of texts, 0 for classification.
        layout (`str`):
            The files in its folder.
        source (`str`):
            How to get them.
        task (`str`, *optional*, defaults to `"retrieval"`):
            `"retrieval"` or `"classification"`.
    """

    name: str
    read: Callable[[Path], Annotations]
    num_images: int
    num_texts: int
    layout: str
    source: str
    task: str = "retrieval"


SHAREGPT4V_LAYOUT = "share-captioner_coco_lcs_sam_1246k_1107.json, sam/images/sa_*.jpg"
SHAREGPT4V_SOURCE = (
    "the captions from https://huggingface.co/datasets/Lin-Chen/ShareGPT4V, the images that they name from SA-1B "
    "(https://ai.meta.com/datasets/segment-anything-downloads)"
)
KARPATHY_SOURCE = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "dci",
            read_dci,
            num_images=7805,
            num_texts=7805,
            layout=(
                "densely_captioned_images/splits.json, densely_captioned_images/annotations/*.json, "
                "densely_captioned_images/photos/*.jpg"
            ),
            source=(
                "https://dl.fbaipublicfiles.com/densely_captioned_images/dci.tar.gz, and the images of SA-1B's "
                "sa_000138.tar (https://ai.meta.com/datasets/segment-anything-downloads) in photos/"
            ),
        ),
        Benchmark(
            "iiw",
            read_iiw,
            num_images=612,
            num_texts=612,
            layout=(
                "DCI_Test/data.jsonl with images in dci/, DOCCI_Test/data.jsonl with images in docci/, "
                "IIW-400/data.jsonl with images in docci_aar/"
            ),
            source=(
                "the annotations from https://github.com/google/imageinwords/tree/main/datasets, the images from DCI "
                "and from docci_images.tar.gz and docci_images_aar.tar.gz of https://google.github.io/docci"
            ),
        ),
        Benchmark(
            "sharegpt4v-1k",
            partial(read_sharegpt4v, num_rows=1000),
            num_images=1000,
            num_texts=1000,
            layout=SHAREGPT4V_LAYOUT,
            source=SHAREGPT4V_SOURCE,
        ),
        Benchmark(
            "sharegpt4v-10k",
            partial(read_sharegpt4v, num_rows=10_000),
            num_images=10_000,
            num_texts=10_000,
            layout=SHAREGPT4V_LAYOUT,
            source=SHAREGPT4V_SOURCE,
        ),
        Benchmark(
            "urban1k",
            read_urban1k,
            num_images=1000,
            num_texts=1000,
            layout="image/*.jpg, caption/*.txt",
            source="https://huggingface.co/datasets/BeichenZhang/Urban1k",
        ),
        Benchmark(
            "docci",
            read_docci,
            num_images=5000,
            num_texts=5000,
            layout="docci_descriptions.jsonlines, images/test_*.jpg",
            source="docci_descriptions.jsonlines and docci_images.tar.gz of https://google.github.io/docci",
        ),
        Benchmark(
            "coco",
            partial(read_karpathy, annotation_file="dataset_coco.json"),
            num_images=5000,
            num_texts=25_000,
            layout="dataset_coco.json, val2014/COCO_val2014_*.jpg",
            source=f"{KARPATHY_SOURCE}, the images from http://images.cocodataset.org/zips/val2014.zip",
        ),
        Benchmark(
            "flickr30k",
            partial(read_karpathy, annotation_file="dataset_flickr30k.json", image_folder="flickr30k-images"),
            num_images=1000,
            num_texts=5000,
            layout="dataset_flickr30k.json, flickr30k-images/*.jpg",
            source=f"{KARPATHY_SOURCE}, the images from https://shannon.cs.illinois.edu/DenotationGraph",
        ),
        Benchmark(
            "imagenet",
            read_imagenet,
            num_images=50_000,
            num_texts=0,
            layout=(
                "val/n*/*.JPEG, or val/ILSVRC2012_val_*.JPEG with LOC_val_solution.csv or with "
                "ILSVRC2012_devkit_t12/data/{ILSVRC2012_validation_ground_truth.txt,meta.mat}; for the names of the "
                "classes LOC_synset_mapping.txt or meta.mat"
            ),
            source=(
                "https://www.image-net.org/download.php, or "
                "https://www.kaggle.com/c/imagenet-object-localization-challenge"
            ),
            task="classification",
        ),
    )
}
# Other names that the same data goes by
ALIASES = {"mscoco": "coco", "flickr30k-1k": "flickr30k", "imagenet-1k": "imagenet", "imagenet1k": "imagenet"}


def get_benchmark(name: str) -> Benchmark:
    """
    The benchmark of a name, in letters of any case.

    Args:
        name (`str`):
            A key of `BENCHMARKS`, or of `ALIASES`.

    Raises:
        `ValueError`: if there is none.

    Example:

    ```python
    >>> from modeling_lotlip.data.published import get_benchmark

    >>> get_benchmark("MSCOCO").num_texts
    25000
    ```"""
    key = name.lower()
    key = ALIASES.get(key, key)
    if key not in BENCHMARKS:
        close = difflib.get_close_matches(key, BENCHMARKS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no benchmark {name!r}, but {', '.join(BENCHMARKS)}.{hint}")
    return BENCHMARKS[key]


def load_benchmark(name: str, data_dir: str | Path, text_only: bool = False, allow_partial: bool = False) -> Dataset:
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
    """
    benchmark, data_dir = get_benchmark(name), Path(data_dir)
    if text_only and benchmark.task == "classification":
        raise ValueError(f"`text_only` leaves nothing of the benchmark {benchmark.name!r}, which has no texts.")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`data_dir` {str(data_dir)!r} is no folder. {how_to_get(benchmark)}")

    annotations = benchmark.read(data_dir)
    if annotations.missing:
        message = (
            f"{describe(annotations.missing)} of the annotation files of {benchmark.name!r} are not in `{data_dir}`"
        )
        if not annotations.rows or not allow_partial:
            raise FileNotFoundError(f"{message}. {how_to_get(benchmark)}")
        logger.warning(f"{message}.")
    check_size(benchmark, annotations.rows, data_dir, allow_partial)

    rows = annotations.rows
    if not text_only:
        rows = with_images(benchmark, rows, data_dir, allow_partial)
    if len(rows) < benchmark.num_images:
        logger.warning(f"{benchmark.name!r} is partial: {len(rows)} of {benchmark.num_images} images.")
    return to_dataset(rows, annotations.class_names, None if text_only else data_dir)


def how_to_get(benchmark: Benchmark) -> str:
    """Which files a benchmark is read from, and where they come from."""
    return f"{benchmark.name!r} is read from {benchmark.layout}. To get them: {benchmark.source}."


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
        f"{published[0]} and {published[1]} are published. {how_to_get(benchmark)} To use them as they are, set "
        "`allow_partial`."
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
        remedies = "To use the other images, set `allow_partial`; to do without images, `text_only`."
        raise FileNotFoundError(f"{message}. {how_to_get(benchmark)} {remedies}")
    logger.warning(f"{message}, and are left out.")
    return [row for row, is_image in zip(rows, is_there) if is_image]


def to_dataset(rows: list[dict], class_names: list[str] | None, image_dir: Path | None) -> Dataset:
    """The rows as a data set, with a column of images if there is a folder of them."""
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

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The retrieval benchmarks of the paper, and two more, read from the files that their publishers ship."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path

from datasets import Dataset, Image
from transformers.utils import logging

from .caption_files import list_examples


logger = logging.get_logger(__name__)

# The path of an image in the folder of its benchmark, and its long text or its short ones
Row = tuple[str, str | list[str]]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as it is published."""

    # by patterns of the names of files, what makes rows of their text
    files: dict[str, Callable[[str, Path], Iterable[Row]]]
    num_images: int
    num_texts: int
    source: str  # all files of its folder, and where they come from


def get_benchmark(name: str) -> Benchmark:
    """Finds the benchmark of a name. Raises a `ValueError` if there is none."""
    if name not in BENCHMARKS:
        raise ValueError(f"There is no benchmark {name!r}: name one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def load_benchmark(
    name: str,
    data_dir: str | Path,
    text_only: bool = False,
    allow_partial: bool = False,
) -> Dataset:
    """
    Reads a benchmark from a folder with the files that its publishers ship.

    Args:
        name (`str`):
            The name of the benchmark.
        data_dir (`str` or `Path`):
            The folder.
        text_only (`bool`, *optional*, defaults to `False`):
            Whether images are left out, and need not be there.
        allow_partial (`bool`, *optional*, defaults to `False`):
            Whether it may have another size than published, or lack images.

    Returns:
        `Dataset`: a row for each image, with `file_name` (its path in the folder), `image` unless `text_only`, and
            `long_captions` (a string, as published) or `caption` (a list of strings).

    Raises:
        `FileNotFoundError`: if images or the folder are missing.
        `ValueError`: if annotations are damaged, or the size is not the published one.
    """
    benchmark = get_benchmark(name)
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`--data_dir {data_dir}` is no folder. It is read from {benchmark.source}.")
    rows = list(read_benchmark_files(data_dir, benchmark.files))
    num_texts = count_texts(rows)
    size = (len(rows), num_texts)
    if size != (benchmark.num_images, benchmark.num_texts) and not (rows and allow_partial):
        raise ValueError(
            f"The annotations of {name!r} in `{data_dir}` are of {len(rows)} images and "
            f"{num_texts} texts, but {benchmark.num_images} and {benchmark.num_texts} are "
            f"published. It is read from {benchmark.source}. To use them as they are, set "
            "`--allow_partial`."
        )
    if not text_only:
        rows = select_with_images(rows, name, data_dir, allow_partial)
    warn_of_other_size(rows, name)
    files = [file for file, _ in rows]
    texts = [text for _, text in rows]
    text_column = "long_captions" if isinstance(texts[0], str) else "caption"
    dataset = Dataset.from_dict({"file_name": files, text_column: texts})
    if text_only:
        return dataset
    dataset = dataset.add_column("image", [str(data_dir / file) for file in files])
    return dataset.cast_column("image", Image())


def count_texts(rows: list[Row]) -> int:
    """Counts the texts of rows."""
    num_texts = 0
    for _, texts in rows:
        num_texts += 1 if isinstance(texts, str) else len(texts)
    return num_texts


def warn_of_other_size(rows: list[Row], name: str) -> None:
    """Warns if there are more or fewer rows or texts than are published of a benchmark."""
    benchmark = get_benchmark(name)
    num_texts = count_texts(rows)
    if len(rows) < benchmark.num_images:
        logger.warning(f"{name!r} is partial: {len(rows)} of {benchmark.num_images} images.")
    elif (len(rows), num_texts) != (benchmark.num_images, benchmark.num_texts):
        logger.warning(
            f"{name!r} is not as published: {len(rows)} images and {num_texts} texts, not "
            f"{benchmark.num_images} and {benchmark.num_texts}."
        )


def select_with_images(rows: list[Row], name: str, data_dir: Path, allow_partial: bool) -> list[Row]:
    """
    Selects the rows of a benchmark whose images are in its folder.

    Args:
        rows (`list[Row]`):
            The rows of the benchmark.
        name (`str`):
            The name of the benchmark.
        data_dir (`Path`):
            The folder of the benchmark.
        allow_partial (`bool`):
            Whether images may be missing, though not all; a warning names some.

    Raises:
        `FileNotFoundError`: if they may not.
    """
    kept = [row for row in rows if (data_dir / row[0]).is_file()]
    missing = [row[0] for row in rows if not (data_dir / row[0]).is_file()]
    if missing and not (kept and allow_partial):
        raise FileNotFoundError(
            f"{len(missing)} of the {len(rows)} images of {name!r} are not in "
            f"`{data_dir}`{list_examples(missing)}. It is read from {get_benchmark(name).source}. "
            "To use the other images, set `--allow_partial`; to do without images, `--text_only`."
        )
    if missing:
        logger.warning(
            f"{len(missing)} of the {len(rows)} images of {name!r} are not in "
            f"`{data_dir}`{list_examples(missing)}, and are left out."
        )
    return kept


def read_benchmark_files(data_dir: Path, files: dict[str, Callable[[str, Path], Iterable]]) -> Iterator:
    """Reads the rows of files, but for hidden ones, as of macOS. Raises a `ValueError` that names a damaged file."""
    for pattern, parse in files.items():
        for path in sorted(data_dir.glob(pattern)):
            if path.name.startswith("."):
                continue
            try:
                yield from list(parse(path.read_text(encoding="utf-8-sig"), path))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise ValueError(f"`{path}` is damaged: {error!r}. Get it again.") from error


def get_text(row: dict, name: str) -> str:
    """Reads the text in a field. Raises a `ValueError` if there is none."""
    if not isinstance(row[name], str) or not row[name].strip():
        raise ValueError(f"{name!r} must hold a text, not {row[name]!r}")
    return row[name]


@cache
def list_dci(folder: Path) -> set[str]:
    """Lists the names of the annotation files of all splits."""
    return set(read_benchmark_files(folder, {"splits.json": parse_dci_splits}))


def parse_dci_splits(text: str, path: Path) -> Iterator[str]:
    """Reads the names of annotation files from a file that lists those of each split."""
    for names in json.loads(text).values():
        yield from names


def parse_dci(text: str, path: Path) -> Iterator[Row]:
    """
    Reads Densely Captioned Images (Urbanek et al., 2023, https://arxiv.org/abs/2312.08578): short and extra captions.
    """
    if path.name in list_dci(path.parents[1]):
        row = json.loads(text)
        texts = "\n".join([row["short_caption"], row["extra_caption"]])
        yield f"densely_captioned_images/photos/{row['image']}", texts


def parse_iiw(text: str, path: Path, images: str) -> Iterator[Row]:
    """
    Reads ImageInWords (Garg et al., 2024, https://arxiv.org/abs/2405.02793), the three sets written by humans. An
    image that is not there is the file with `train` in its name where the annotations say `test`: so some of IIW-400
    are published.
    """
    folder = path.parents[1] / images
    lines = text.split("\n")  # captions may have other line breaks
    for row in map(json.loads, filter(str.strip, lines)):
        image = (row.get("image") or row["image/key"]).removesuffix(".jpg") + ".jpg"
        other = image.replace("test", "train")
        if not (folder / image).is_file() and (folder / other).is_file():
            image = other
        yield f"{images}/{image}", get_text(row, "IIW")


def parse_sharegpt4v(text: str, path: Path, num_rows: int) -> Iterator[Row]:
    """
    Reads ShareGPT4V (Chen et al., 2023, https://arxiv.org/abs/2311.12793): answers about its first images of SA-1B.
    """
    rows = (row for row in json.loads(text) if re.match(r"sam/|(.*/)?sa_\d+\.jpg$", row["image"]))
    for row in islice(rows, num_rows):
        yield row["image"], get_text(row["conversations"][1], "value")


def parse_urban1k(text: str, path: Path) -> Iterator[Row]:
    """Reads Urban1k (Zhang et al., 2024, https://arxiv.org/abs/2403.15378): a text is the first line of its file."""
    yield f"image/{path.stem}.jpg", get_text({"first line": text.partition("\n")[0]}, "first line")


def parse_karpathy(text: str, path: Path, images: str | None = None) -> Iterator[Row]:
    """
    Reads MSCOCO or Flickr30k, the test split of Karpathy and Fei-Fei (2015, https://arxiv.org/abs/1412.2306): of each
    image the first five captions. Images are in a folder, or where the file says.
    """
    for row in json.loads(text)["images"]:
        if row["split"] == "test":
            captions = [get_text(sentence, "raw") for sentence in row["sentences"][:5]]
            yield f"{images or row['filepath']}/{row['filename']}", captions


KARPATHY = "of https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
SA_1B = "https://ai.meta.com/datasets/segment-anything-downloads"
IIW_FILES = {"DCI_Test/data.jsonl": "dci", "DOCCI_Test/data.jsonl": "docci", "IIW-400/data.jsonl": "docci_aar"}

BENCHMARKS = {
    "coco": Benchmark(
        {"dataset_coco.json": parse_karpathy},
        5000,
        25_000,
        f"dataset_coco.json {KARPATHY}, and val2014/*.jpg of http://images.cocodataset.org/zips/val2014.zip",
    ),
    "dci": Benchmark(
        {"densely_captioned_images/annotations/*.json": parse_dci},
        7805,
        7805,
        "densely_captioned_images/splits.json and annotations/*.json there of "
        "https://dl.fbaipublicfiles.com/densely_captioned_images/dci.tar.gz, and photos/*.jpg "
        f"there, which are sa_000138.tar of {SA_1B}",
    ),
    "flickr30k": Benchmark(
        {"dataset_flickr30k.json": partial(parse_karpathy, images="flickr30k-images")},
        1000,
        5000,
        f"dataset_flickr30k.json {KARPATHY}, and flickr30k-images/*.jpg of "
        "https://shannon.cs.illinois.edu/DenotationGraph",
    ),
    "iiw": Benchmark(
        {name: partial(parse_iiw, images=images) for name, images in IIW_FILES.items()},
        612,
        612,
        f"{', '.join(IIW_FILES)} of https://github.com/google/imageinwords/tree/main/datasets, and "
        "the images in dci/ (of DCI), docci/ and docci_aar/ (of https://google.github.io/docci)",
    ),
    **{
        name: Benchmark(
            {"*.json": partial(parse_sharegpt4v, num_rows=number)},
            number,
            number,
            "share-captioner_coco_lcs_sam_1246k_1107.json, or another single JSON file, of "
            f"https://huggingface.co/datasets/Lin-Chen/ShareGPT4V, and sam/images/*.jpg of {SA_1B}",
        )
        for name, number in {"sharegpt4v-1k": 1000, "sharegpt4v-10k": 10_000}.items()
    },
    "urban1k": Benchmark(
        {"caption/*.txt": parse_urban1k},
        1000,
        1000,
        "image/*.jpg and caption/*.txt of https://huggingface.co/datasets/BeichenZhang/Urban1k",
    ),
}

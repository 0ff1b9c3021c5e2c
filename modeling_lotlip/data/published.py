# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The benchmarks of the paper, and a few more, read from the files that their publishers ship.

    from modeling_lotlip.data.published import load_benchmark

    dataset = load_benchmark("iiw", "path/to/iiw")

A benchmark is an entry of `BENCHMARKS`: its annotation files, and functions that make rows of the text of one.
"""

import csv
import difflib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 5  # of missing images, in messages


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark as it is published.

    Args:
        read (`Callable[[Path], Iterable[dict]]`):
            Reads the annotations in a folder: a row for each image with `file_name`, the path of the image in the
            folder, and `caption` (a list), `long_captions` (a string) or `label`.
        num_images, num_texts (`int`):
            The published numbers; no texts for classification.
        layout, source (`str`):
            The files in its folder, and how to get them.
        read_class_names (`Callable[[Path], list[str]]`, *optional*):
            The classes in the order of the labels, for classification.
    """

    name: str
    read: Callable[[Path], Iterable[dict]]
    num_images: int
    num_texts: int
    layout: str
    source: str
    read_class_names: Callable[[Path], list[str]] | None = None

    @property
    def task(self) -> str:
        """`"retrieval"` or `"classification"`."""
        return "retrieval" if self.read_class_names is None else "classification"

    def how_to_get(self) -> str:
        """Which files it is read from, and where they come from."""
        return f"{self.name!r} is read from {self.layout}. To get them: {self.source}."


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of a name. Raises a `ValueError` if there is none."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
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
        `long_captions` (a string, as published), `caption` (a list of strings) or `label`.

    Raises:
        `FileNotFoundError`: if images or the folder are missing: lists some, and says where to get them.
        `ValueError`: if annotations are damaged, or the size is not the published one.

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
        raise ValueError(f"`--benchmark {name}` has no texts: name another one.")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`--data_dir {data_dir}` is no folder. {benchmark.how_to_get()}")
    rows = list(benchmark.read(data_dir))
    num_texts = sum(len(row["caption"]) if "caption" in row else "long_captions" in row for row in rows)
    size, published = (len(rows), num_texts), (benchmark.num_images, benchmark.num_texts)
    if size != published and not (rows and allow_partial):
        raise ValueError(
            f"The annotations of {name!r} in `{data_dir}` are of {size[0]} images and {size[1]} texts, but "
            f"{published[0]} and {published[1]} are published. {benchmark.how_to_get()} To use them as they are, set "
            "`--allow_partial`."
        )
    missing = [] if text_only else [row for row in rows if not (data_dir / row["file_name"]).is_file()]
    if missing:
        names = ", ".join(row["file_name"] for row in missing[:NUM_EXAMPLES])
        names += ", ..." if len(missing) > NUM_EXAMPLES else ""
        message = f"{len(missing)} ({names}) of the {len(rows)} images of {name!r} are not in `{data_dir}`"
        if len(missing) == len(rows) or not allow_partial:
            remedies = "To use the other images, set `--allow_partial`; to do without images, `--text_only`."
            raise FileNotFoundError(f"{message}. {benchmark.how_to_get()} {remedies}")
        logger.warning(f"{message}, and are left out.")
        rows = [row for row in rows if (data_dir / row["file_name"]).is_file()]
    if len(rows) < benchmark.num_images:
        logger.warning(f"{name!r} is partial: {len(rows)} of {benchmark.num_images} images.")

    from datasets import ClassLabel, Dataset, Features, Image, List, Value  # not at the top: `--help` needs the names

    features = {"file_name": Value("string"), "long_captions": Value("string"), "caption": List(Value("string"))}
    if benchmark.read_class_names is not None:
        features["label"] = ClassLabel(names=benchmark.read_class_names(data_dir))
    columns = {column: [row[column] for row in rows] for column in rows[0]}
    if not text_only:
        features["image"] = Image()
        columns["image"] = [str(data_dir / file_name) for file_name in columns["file_name"]]
    return Dataset.from_dict(columns, features=Features({column: features[column] for column in columns}))


# Rows of the text of an annotation file: each function gets the text and the path of the file


def read_files(data_dir: Path, files: dict[str, Callable[[str, Path], Iterable[dict]]]) -> Iterator[dict]:
    """The rows of annotation files, by patterns of their names. Hidden files, as of macOS, are passed over."""
    for pattern, parse in files.items():
        for path in sorted(path for path in data_dir.glob(pattern) if not path.name.startswith(".")):
            yield from parse_file(path, parse)


def parse_file(path: Path, parse: Callable[[str, Path], Iterable[dict]]) -> list[dict]:
    """The rows of a file. Raises a `ValueError` that names it if it is damaged."""
    try:
        return list(parse(path.read_text(encoding="utf-8-sig"), path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"`{path}` is damaged: {error!r}. Get it again.") from error


def get_text(row: dict, name: str) -> str:
    """The text in a field. Raises a `ValueError` if there is none."""
    if not isinstance(row[name], str) or not row[name].strip():
        raise ValueError(f"{name!r} must hold a text, not {row[name]!r}")
    return row[name]


def read_dci(data_dir: Path) -> Iterator[dict]:
    """
    Densely Captioned Images (Urbanek et al., 2023, https://arxiv.org/abs/2312.08578), all splits: a text is the short
    caption, a line break, and the extra caption. Either may be blank.
    """

    def parse_annotation(text: str, path: Path) -> Iterator[dict]:
        row = json.loads(text)
        texts = "\n".join([row["short_caption"], row["extra_caption"]])
        yield {"file_name": f"{path.parts[-3]}/photos/{row['image']}", "long_captions": texts}

    folder = data_dir / "densely_captioned_images"
    for name in read_files(folder, {"splits.json": lambda text, _: sum(json.loads(text).values(), [])}):
        yield from read_files(folder, {f"annotations/{name}": parse_annotation})


def parse_iiw(text: str, path: Path, images: str) -> Iterator[dict]:
    """
    ImageInWords (Garg et al., 2024, https://arxiv.org/abs/2405.02793), the three sets written by humans. They name the
    image in `image` or in `image/key`, some without `.jpg`. An image that is not there is taken from the file with
    `train` in its name where the annotations say `test`: so some of IIW-400 are published.
    """
    renamed, folder = [], path.parents[1] / images
    for row in map(json.loads, filter(str.strip, text.split("\n"))):
        image = row.get("image") or row["image/key"]
        image = image if image.endswith(".jpg") else f"{image}.jpg"
        other = image.replace("test", "train")
        if not (folder / image).is_file() and (folder / other).is_file():
            renamed.append(other)
            image = other
        yield {"file_name": f"{images}/{image}", "long_captions": get_text(row, "IIW")}
    if renamed:
        logger.warning(
            f"{len(renamed)} images of 'iiw' have `train` in their names where the annotations say `test`, such as "
            f"{renamed[0]}: they are taken."
        )


def parse_sharegpt4v(text: str, path: Path, num_rows: int) -> Iterator[dict]:
    """
    ShareGPT4V (Chen et al., 2023, https://arxiv.org/abs/2311.12793): the answers about its first images of SA-1B.
    """
    rows = (row for row in json.loads(text) if re.match(r"sam/|(.*/)?sa_\d+\.jpg$", row["image"]))
    for row in islice(rows, num_rows):
        yield {"file_name": row["image"], "long_captions": get_text(row["conversations"][1], "value")}


def parse_urban1k(text: str, path: Path) -> Iterator[dict]:
    """Urban1k (Zhang et al., 2024, https://arxiv.org/abs/2403.15378): a text is the first line of its file."""
    row = {"first line": text.partition("\n")[0]}
    yield {"file_name": f"image/{path.stem}.jpg", "long_captions": get_text(row, "first line")}


def parse_docci(text: str, path: Path) -> Iterator[dict]:
    """
    Descriptions of Connected and Contrasting Images (Onoe et al., 2024, https://arxiv.org/abs/2404.19753): the test
    split without the small set for qualitative comparisons.
    """
    for row in map(json.loads, filter(str.strip, text.split("\n"))):
        if row["split"] == "test" and not row["example_id"].startswith("qual"):
            yield {"file_name": f"images/{row['image_file']}", "long_captions": get_text(row, "description")}


def parse_karpathy(text: str, path: Path, images: str | None = None) -> Iterator[dict]:
    """
    MSCOCO or Flickr30k, the test split of Karpathy and Fei-Fei (2015, https://arxiv.org/abs/1412.2306): of each image
    the first five captions. The images are in the folder `images`, or where the file says.
    """
    for row in json.loads(text)["images"]:
        if row["split"] == "test":
            captions = [get_text(sentence, "raw") for sentence in row["sentences"][:5]]
            yield {"file_name": f"{images or row['filepath']}/{row['filename']}", "caption": captions}


def parse_xtd10(text: str, path: Path) -> Iterator[dict]:
    """
    XTD10 (Aggarwal and Kale, 2020, https://arxiv.org/abs/2012.05107): one caption of each image in a language, line by
    line.
    """
    images = (path.parents[1] / "XTD10" / "test_image_names.txt").read_text(encoding="utf-8")
    for image, caption in zip(images.splitlines(), text.splitlines(), strict=True):
        yield {"file_name": f"images/{image.strip()}", "caption": [get_text({"caption": caption.strip()}, "caption")]}


# The folders of the captions of XTD10, by the languages' codes in the names of the files
XTD10_FOLDERS = dict.fromkeys(("en", "es", "it", "ko", "pl", "ru", "tr", "zh"), "XTD10")
XTD10_FOLDERS |= {"de": "MIC", "fr": "MIC", "jp": "STAIR"}


# ImageNet

IMAGENET_FOLDERS = ("val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", ".")
SOLUTION_FILE, MAPPING_FILE = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


def list_imagenet(data_dir: Path) -> list[tuple[str, str]]:
    """The images of ImageNet with their WordNet ids, by the folders of the classes, or by Kaggle's solution."""
    for folder in (data_dir / name for name in IMAGENET_FOLDERS):
        images = [
            path for path in folder.glob("n*/*") if re.search(r"/n\d{8}/[^.].*\.jpe?g$", f"{path}", re.IGNORECASE)
        ]
        if images:
            return sorted((image.relative_to(data_dir).as_posix(), image.parent.name) for image in images)
        if images := list(folder.glob("ILSVRC2012_val_*.JPEG")):
            names = {image.stem: image.relative_to(data_dir).as_posix() for image in images}
            return sorted((names[name], label) for name, label in read_solution(data_dir).items() if name in names)
    return []


def read_solution(data_dir: Path) -> dict[str, str]:
    """The WordNet ids of Kaggle's images, which stand before the boxes of their objects."""

    def parse(text: str, path: Path) -> list[dict]:
        rows = csv.DictReader(text.splitlines())
        return [{row["ImageId"]: re.match(r"n\d{8}", row["PredictionString"]).group() for row in rows}]

    return parse_file(data_dir / SOLUTION_FILE, parse)[0] if (data_dir / SOLUTION_FILE).is_file() else {}


def read_synonyms(data_dir: Path) -> dict[str, str]:
    """The synonyms that name each class, with commas between them, by WordNet id; the id where no file has them."""

    def parse(text: str, path: Path) -> list[dict]:
        return [dict(sorted(line.strip().split(maxsplit=1) for line in text.splitlines() if line.strip()))]

    if (data_dir / MAPPING_FILE).is_file():
        return parse_file(data_dir / MAPPING_FILE, parse)[0]
    return {wordnet_id: wordnet_id for wordnet_id in sorted({label for _, label in list_imagenet(data_dir)})}


def read_imagenet(data_dir: Path) -> Iterator[dict]:
    """
    ImageNet-1k (Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575), the validation split. Labels count the
    WordNet ids in their order.
    """
    labels = {wordnet_id: label for label, wordnet_id in enumerate(read_synonyms(data_dir))}
    for name, wordnet_id in list_imagenet(data_dir):
        if wordnet_id not in labels:
            raise ValueError(
                f"The class {wordnet_id} of `{data_dir / name}` is not in {MAPPING_FILE}: get that again."
            )
        yield {"file_name": name, "label": labels[wordnet_id]}


def name_classes(data_dir: Path) -> list[str]:
    """
    The first synonym of each class; all of them where two classes have the same first one, and the WordNet id beside
    them where they have all in common.
    """
    synonyms = read_synonyms(data_dir)
    if not (data_dir / MAPPING_FILE).is_file():
        logger.warning(
            f"The {len(synonyms)} classes of ImageNet bear their WordNet ids, as {MAPPING_FILE} is not in "
            f"`{data_dir}`: put it there, or name the classes with `--class_names_file`."
        )
    first_names = [names.split(",")[0].strip() for names in synonyms.values()]
    count_first, count_all = Counter(first_names), Counter(synonyms.values())
    return [
        first if count_first[first] == 1 else names if count_all[names] == 1 else f"{names} ({wordnet_id})"
        for first, (wordnet_id, names) in zip(first_names, synonyms.items())
    ]


KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
XTD10_SOURCE = (
    "https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10, the images that it names from "
    "http://images.cocodataset.org/zips/train2014.zip and val2014.zip"
)
SA_1B = "(https://ai.meta.com/datasets/segment-anything-downloads)"
IIW_FILES = {"DCI_Test/data.jsonl": "dci", "DOCCI_Test/data.jsonl": "docci", "IIW-400/data.jsonl": "docci_aar"}

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "coco",
            partial(read_files, files={"dataset_coco.json": parse_karpathy}),
            5000,
            25_000,
            "dataset_coco.json, val2014/COCO_val2014_*.jpg",
            f"{KARPATHY}, the images from http://images.cocodataset.org/zips/val2014.zip",
        ),
        Benchmark(
            "dci",
            read_dci,
            7805,
            7805,
            "densely_captioned_images/splits.json, densely_captioned_images/annotations/*.json, "
            "densely_captioned_images/photos/*.jpg",
            "https://dl.fbaipublicfiles.com/densely_captioned_images/dci.tar.gz, and the images of SA-1B's "
            f"sa_000138.tar {SA_1B} in photos/",
        ),
        Benchmark(
            "docci",
            partial(read_files, files={"docci_descriptions.jsonlines": parse_docci}),
            5000,
            5000,
            "docci_descriptions.jsonlines, images/test_*.jpg",
            "docci_descriptions.jsonlines and docci_images.tar.gz of https://google.github.io/docci",
        ),
        Benchmark(
            "flickr30k",
            partial(read_files, files={"dataset_flickr30k.json": partial(parse_karpathy, images="flickr30k-images")}),
            1000,
            5000,
            "dataset_flickr30k.json, flickr30k-images/*.jpg",
            f"{KARPATHY}, the images from https://shannon.cs.illinois.edu/DenotationGraph",
        ),
        Benchmark(
            "iiw",
            partial(read_files, files={name: partial(parse_iiw, images=images) for name, images in IIW_FILES.items()}),
            612,
            612,
            ", ".join(f"{name} with images in {images}/" for name, images in IIW_FILES.items()),
            "the annotations from https://github.com/google/imageinwords/tree/main/datasets, the images from DCI "
            "and from docci_images.tar.gz and docci_images_aar.tar.gz of https://google.github.io/docci",
        ),
        Benchmark(
            "imagenet",
            read_imagenet,
            50_000,
            0,
            f"val/n*/*.JPEG, or val/ILSVRC2012_val_*.JPEG with {SOLUTION_FILE}; for the names of the classes "
            f"{MAPPING_FILE}",
            "https://www.kaggle.com/c/imagenet-object-localization-challenge, or "
            "https://www.image-net.org/download.php",
            read_class_names=name_classes,
        ),
        *(
            Benchmark(
                name,
                partial(read_files, files={"*.json": partial(parse_sharegpt4v, num_rows=number)}),
                number,
                number,
                "share-captioner_coco_lcs_sam_1246k_1107.json or another single JSON file, sam/images/sa_*.jpg",
                "the captions from https://huggingface.co/datasets/Lin-Chen/ShareGPT4V, the images that they name "
                f"from SA-1B {SA_1B}",
            )
            for name, number in {"sharegpt4v-1k": 1000, "sharegpt4v-10k": 10_000}.items()
        ),
        Benchmark(
            "urban1k",
            partial(read_files, files={"caption/*.txt": parse_urban1k}),
            1000,
            1000,
            "image/*.jpg, caption/*.txt",
            "https://huggingface.co/datasets/BeichenZhang/Urban1k",
        ),
        *(
            Benchmark(
                f"xtd10-{language}",
                partial(read_files, files={f"{folder}/test_1kcaptions_{language}.txt": parse_xtd10}),
                1000,
                1000,
                f"XTD10/test_image_names.txt, {folder}/test_1kcaptions_{language}.txt, images/COCO_*.jpg",
                XTD10_SOURCE,
            )
            for language, folder in XTD10_FOLDERS.items()
        ),
    )
}

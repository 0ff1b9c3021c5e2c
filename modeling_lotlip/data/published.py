# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The benchmarks of the paper, and a few more, read from the files that their publishers ship.

    from modeling_lotlip.data.published import load_benchmark

    dataset = load_benchmark("iiw", "path/to/iiw")

A benchmark is a function that reads its annotations, and an entry of `BENCHMARKS`.
"""

import csv
import difflib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 5  # of missing files, in messages

# A long list is decoded while it is read, in pieces of this many characters; no row has more than the second number
PIECE_LENGTH = 2**20
MAX_ROW_LENGTH = 2**24


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark as it is published.

    Args:
        name (`str`):
            Its name.
        read (`Callable[[Path, list[str]], Iterator[dict]]`):
            Reads its annotations from a folder: a row for each image with `file_name`, the path of the image in the
            folder, and `caption` (a list), `long_captions` (a string) or `label`. Annotation files that are not there
            are appended to the list.
        num_images (`int`), num_texts (`int`):
            The published numbers; no texts for classification.
        layout (`str`):
            The files in its folder.
        source (`str`):
            How to get them.
        read_class_names (`Callable[[Path], list[str]]`, *optional*):
            The classes in the order of the labels, for classification.
        aliases (`tuple[str, ...]`, *optional*):
            Other names that the same data goes by.
    """

    name: str
    read: Callable[[Path, list[str]], Iterator[dict]]
    num_images: int
    num_texts: int
    layout: str
    source: str
    read_class_names: Callable[[Path], list[str]] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """`"retrieval"` or `"classification"`."""
        return "retrieval" if self.read_class_names is None else "classification"

    def how_to_get(self) -> str:
        """Which files it is read from, and where they come from."""
        return f"{self.name!r} is read from {self.layout}. To get them: {self.source}."


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
    benchmark, data_dir, missing = get_benchmark(name), Path(data_dir), []
    if text_only and benchmark.task == "classification":
        raise ValueError(f"`--text_only` leaves nothing of the benchmark {benchmark.name!r}, which has no texts.")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`--data_dir {data_dir}` is no folder. {benchmark.how_to_get()}")

    rows = list(benchmark.read(data_dir, missing))
    if missing:
        message = f"{list_names(missing)} of the annotation files of {benchmark.name!r} are not in `{data_dir}`"
        if not rows or not allow_partial:
            raise FileNotFoundError(f"{message}. {benchmark.how_to_get()}")
        logger.warning(f"{message}.")
    check_size(benchmark, rows, data_dir, allow_partial)
    if not text_only:
        rows = with_images(benchmark, rows, data_dir, allow_partial)
    if len(rows) < benchmark.num_images:
        logger.warning(f"{benchmark.name!r} is partial: {len(rows)} of {benchmark.num_images} images.")
    class_names = None if benchmark.read_class_names is None else benchmark.read_class_names(data_dir)
    return to_dataset(rows, class_names, None if text_only else data_dir)


def list_names(names: list[str]) -> str:
    """How many files there are, and which come first."""
    return f"{len(names)} ({', '.join(names[:NUM_EXAMPLES])}{', ...' if len(names) > NUM_EXAMPLES else ''})"


def check_size(benchmark: Benchmark, rows: list[dict], data_dir: Path, allow_partial: bool) -> None:
    """Raises a `ValueError` if the size is not the published one, and that is not allowed, or nothing is there."""
    num_texts = sum(len(row["caption"]) if "caption" in row else "long_captions" in row for row in rows)
    size, published = (len(rows), num_texts), (benchmark.num_images, benchmark.num_texts)
    if size != published and not (rows and allow_partial):
        raise ValueError(
            f"The annotations of {benchmark.name!r} in `{data_dir}` are of {size[0]} images and {size[1]} texts, but "
            f"{published[0]} and {published[1]} are published. {benchmark.how_to_get()} To use them as they are, set "
            "`--allow_partial`."
        )


def with_images(benchmark: Benchmark, rows: list[dict], data_dir: Path, allow_partial: bool) -> list[dict]:
    """
    The rows whose image is there. Raises a `FileNotFoundError` if images are missing, and that is not allowed, or none
    is there.
    """
    missing = [row["file_name"] for row in rows if not (data_dir / row["file_name"]).is_file()]
    if not missing:
        return rows
    message = f"{list_names(missing)} of the {len(rows)} images of {benchmark.name!r} are not in `{data_dir}`"
    if len(missing) == len(rows) or not allow_partial:
        remedies = "To use the other images, set `--allow_partial`; to do without images, `--text_only`."
        raise FileNotFoundError(f"{message}. {benchmark.how_to_get()} {remedies}")
    logger.warning(f"{message}, and are left out.")
    return [row for row in rows if row["file_name"] not in set(missing)]


def to_dataset(rows: list[dict], class_names: list[str] | None, image_dir: Path | None) -> "Dataset":
    """The rows as a data set, with a column of images if there is a folder of them."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value  # not at the top: `--help` needs the names

    features = {"file_name": Value("string"), "image": Image(), "long_captions": Value("string")}
    features |= {"caption": List(Value("string")), "label": class_names and ClassLabel(names=class_names)}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if image_dir is not None:
        columns["image"] = [str(image_dir / name) for name in columns["file_name"]]
    return Dataset.from_dict(columns, features=Features({name: features[name] for name in columns}))


# Files and fields


@contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` is damaged: {error}. Get it again.") from error


def is_there(data_dir: Path, name: str, missing: list[str]) -> bool:
    """Whether an annotation file is there; else it is noted."""
    if not (data_dir / name).is_file():
        missing.append(name)
    return (data_dir / name).is_file()


def read_text(path: Path) -> str:
    with named(path):
        return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> dict | list:
    with named(path):
        return json.loads(read_text(path))


def read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """The JSON objects of a file with one on each line, as pairs of where it stands and the object."""
    with named(path), open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                with named(where):
                    yield where, json.loads(line)


def read_json_list(path: Path) -> Iterator[tuple[str, dict]]:
    """The JSON objects of one long list while they are asked for, as pairs of where each stands and the object."""
    decoder, separator = json.JSONDecoder(), re.compile(r"[\s,]*")
    with named(path), open(path, encoding="utf-8-sig") as file:
        piece = file.read(PIECE_LENGTH).lstrip()
        if not piece.startswith("["):
            raise ValueError(f"`{path}` must hold a list of JSON objects, but starts with {piece[:20]!r}.")
        number, place = 0, 1
        while True:
            place = separator.match(piece, place).end()
            if piece.startswith("]", place):
                return
            try:
                row, place = decoder.raw_decode(piece, place)
            except json.JSONDecodeError as error:  # most often as the row goes on in the next piece
                more = file.read(PIECE_LENGTH)
                if not more or len(piece) - place > MAX_ROW_LENGTH:
                    raise ValueError(f"`{path}` is damaged in row {number}: {error.msg}. Get it again.") from error
                piece, place = piece[place:] + more, 0
                continue
            yield f"{path}, row {number}", row
            number += 1


def get_text(row: dict, name: str, where: str, is_empty_allowed: bool = False) -> str:
    """The string in a field of an annotation. Raises a `ValueError` that says where there is none."""
    text = row.get(name) if isinstance(row, dict) else None
    if not isinstance(text, str) or not (text.strip() or is_empty_allowed):
        raise ValueError(f"{where}: {name!r} must hold a text, but it is {text!r}. The file is damaged: get it again.")
    return text


# Long captions


def read_dci(data_dir: Path, missing: list[str]) -> Iterator[dict]:
    """
    Densely Captioned Images (Urbanek et al., 2023, https://arxiv.org/abs/2312.08578), all splits: a text is the short
    caption, a line break, and the extra caption. Either may be blank.
    """
    folder = "densely_captioned_images"
    if not is_there(data_dir, f"{folder}/splits.json", missing):
        return
    splits = read_json(data_dir / folder / "splits.json")
    if not isinstance(splits, dict) or not all(isinstance(names, list) for names in splits.values()):
        raise ValueError(f"`{data_dir / folder}/splits.json` must hold a list of files for each split: get it again.")
    for file in (f"{folder}/annotations/{name}" for names in splits.values() for name in names):
        if is_there(data_dir, file, missing):
            row, where = read_json(data_dir / file), str(data_dir / file)
            texts = (get_text(row, name, where, is_empty_allowed=True) for name in ("short_caption", "extra_caption"))
            image = get_text(row, "image", where)
            yield {"file_name": f"{folder}/photos/{image}", "long_captions": "\n".join(texts)}


def read_iiw(data_dir: Path, missing: list[str]) -> Iterator[dict]:
    """
    ImageInWords (Garg et al., 2024, https://arxiv.org/abs/2405.02793), the three sets written by humans. They name the
    image in `image` or in `image/key`, some without `.jpg`. An image that is not there is taken from the file with
    `train` in its name where the annotations say `test`: so some of IIW-400 are published.
    """
    renamed = []
    for name, folder in {"DCI_Test": "dci", "DOCCI_Test": "docci", "IIW-400": "docci_aar"}.items():
        if not is_there(data_dir, f"{name}/data.jsonl", missing):
            continue
        for where, row in read_json_lines(data_dir / name / "data.jsonl"):
            image = get_text(row, "image" if "image" in row else "image/key", where)
            image = image if image.endswith(".jpg") else f"{image}.jpg"
            other = image.replace("test", "train")
            if not (data_dir / folder / image).is_file() and (data_dir / folder / other).is_file():
                renamed.append(other)
                image = other
            yield {"file_name": f"{folder}/{image}", "long_captions": get_text(row, "IIW", where)}
    if renamed:
        logger.warning(
            f"{len(renamed)} images of 'iiw' have `train` in their names where the annotations say `test`, such as "
            f"{renamed[0]}: they are taken."
        )


SHAREGPT4V_FILE = "share-captioner_coco_lcs_sam_1246k_1107.json"


def read_sharegpt4v(data_dir: Path, missing: list[str], num_rows: int) -> Iterator[dict]:
    """
    ShareGPT4V (Chen et al., 2023, https://arxiv.org/abs/2311.12793), its first rows with images of SA-1B: from the
    published file, or another JSON file that is there alone.
    """
    others = [file for file in data_dir.glob("*.json") if not file.name.startswith(".")]
    name = others[0].name if len(others) == 1 else SHAREGPT4V_FILE
    if is_there(data_dir, name, missing):
        yield from islice(read_turns(data_dir / name), num_rows)


def read_turns(path: Path) -> Iterator[dict]:
    """The answers about images of SA-1B in a file of conversations."""
    for where, row in read_json_list(path):
        image = get_text(row, "image", where)
        if re.match(r"sam/|(.*/)?sa_\d+\.jpg$", image):
            turns = row.get("conversations")
            if not isinstance(turns, list) or len(turns) < 2:
                raise ValueError(f"{where}: 'conversations' must hold a question and an answer, but it is {turns!r}.")
            yield {"file_name": image, "long_captions": get_text(turns[1], "value", f"{where}, conversations[1]")}


def read_urban1k(data_dir: Path, missing: list[str]) -> Iterator[dict]:
    """
    Urban1k (Zhang et al., 2024, https://arxiv.org/abs/2403.15378): the first line of each caption file, the image of
    that name.
    """
    # the archive holds hidden files of the system that it was made on
    files = sorted(file for file in (data_dir / "caption").glob("*.txt") if not file.name.startswith("."))
    missing += [] if files else ["caption/*.txt"]
    for file in files:
        row = {"first line": read_text(file).partition("\n")[0]}
        yield {"file_name": f"image/{file.stem}.jpg", "long_captions": get_text(row, "first line", str(file))}


def read_docci(data_dir: Path, missing: list[str]) -> Iterator[dict]:
    """
    Descriptions of Connected and Contrasting Images (Onoe et al., 2024, https://arxiv.org/abs/2404.19753): the test
    split without the small set for qualitative comparisons.
    """
    if not is_there(data_dir, "docci_descriptions.jsonlines", missing):
        return
    for where, row in read_json_lines(data_dir / "docci_descriptions.jsonlines"):
        is_qualitative = get_text(row, "example_id", where).startswith("qual")
        if get_text(row, "split", where) == "test" and not is_qualitative:
            file_name = f"images/{get_text(row, 'image_file', where)}"
            yield {"file_name": file_name, "long_captions": get_text(row, "description", where)}


# Short captions


def read_karpathy(data_dir: Path, missing: list[str], file: str, folder: str | None = None) -> Iterator[dict]:
    """
    MSCOCO or Flickr30k, the test split of Karpathy and Fei-Fei (2015, https://arxiv.org/abs/1412.2306): of each image
    the first five captions. The images are in `folder`, or where the file says.
    """
    if not is_there(data_dir, file, missing):
        return
    content = read_json(data_dir / file)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(f"`{data_dir / file}` must hold a list 'images', but it does not: get it again.")
    for number, row in enumerate(images):
        where = f"{data_dir / file}, image {number}"
        if get_text(row, "split", where) != "test":
            continue
        sentences = row.get("sentences")
        if not isinstance(sentences, list) or not sentences:
            raise ValueError(f"{where}: 'sentences' must hold captions, but it is {sentences!r}: get the file again.")
        parent = get_text(row, "filepath", where) if folder is None else folder
        yield {
            "file_name": f"{parent}/{get_text(row, 'filename', where)}",
            "caption": [get_text(sentence, "raw", where) for sentence in sentences[:5]],
        }


# The folders of the captions of XTD10, by the languages' codes in the names of the files
XTD10_FOLDERS = dict.fromkeys(("en", "es", "it", "ko", "pl", "ru", "tr", "zh"), "XTD10")
XTD10_FOLDERS |= {"de": "MIC", "fr": "MIC", "jp": "STAIR"}


def read_xtd10(data_dir: Path, missing: list[str], language: str) -> Iterator[dict]:
    """
    XTD10 (Aggarwal and Kale, 2020, https://arxiv.org/abs/2012.05107): one caption of each image in a language, line by
    line.
    """
    files = "XTD10/test_image_names.txt", f"{XTD10_FOLDERS[language]}/test_1kcaptions_{language}.txt"
    if sum(is_there(data_dir, file, missing) for file in files) < len(files):
        return
    images, captions = (read_text(data_dir / file).splitlines() for file in files)
    if len(images) != len(captions):
        raise ValueError(
            f"`{data_dir / files[1]}` has {len(captions)} captions, but `{data_dir / files[0]}` {len(images)} images. "
            "One of them is damaged: get them again."
        )
    for number, (image, caption) in enumerate(zip(images, captions), start=1):
        row, where = {"image": image.strip(), "caption": caption.strip()}, f"{data_dir / files[1]}, line {number}"
        yield {"file_name": f"images/{get_text(row, 'image', where)}", "caption": [get_text(row, "caption", where)]}


# Classes

IMAGENET_FOLDERS = ("val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", ".")
SOLUTION_FILE, MAPPING_FILE = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
NUM_CLASSES = 1000
WORDNET_ID = re.compile(r"n\d{8}")


def list_imagenet(data_dir: Path) -> list[tuple[str, str]]:
    """The images of ImageNet with their WordNet ids, by the folders of the classes, or by Kaggle's solution."""
    for folder in IMAGENET_FOLDERS:
        labelled = sorted(
            (image.relative_to(data_dir).as_posix(), image.parent.name)
            for image in (data_dir / folder).glob("n*/*")
            if WORDNET_ID.fullmatch(image.parent.name)
            and image.suffix.lower() in (".jpeg", ".jpg")
            and not image.name.startswith(".")
        )
        if labelled:
            return labelled
    path = data_dir / SOLUTION_FILE
    if not path.is_file():
        return []
    folders = (name for name in IMAGENET_FOLDERS if any((data_dir / name).glob("ILSVRC2012_val_*")))
    folder, labelled = Path(next(folders, IMAGENET_FOLDERS[0])), []
    for number, row in enumerate(csv.DictReader(read_text(path).splitlines()), start=2):
        # the id stands before the boxes of its objects
        name, solution = row.get("ImageId"), (row.get("PredictionString") or "").split()
        if not name or not solution or WORDNET_ID.fullmatch(solution[0]) is None:
            raise ValueError(f"{path}, line {number}: an ImageId and a WordNet id must stand there, got {row}.")
        labelled.append(((folder / f"{name}.JPEG").as_posix(), solution[0]))
    return sorted(labelled)


def read_synonyms(data_dir: Path) -> dict[str, str]:
    """The synonyms that name each class, with commas between them, by WordNet id; the id where no file has them."""
    path = data_dir / MAPPING_FILE
    if not path.is_file():
        return {wordnet_id: wordnet_id for wordnet_id in sorted({label for _, label in list_imagenet(data_dir)})}
    pairs = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    damaged = [pair for pair in pairs if len(pair) != 2 or WORDNET_ID.fullmatch(pair[0]) is None]
    if damaged:
        raise ValueError(f"`{path}` must hold WordNet ids and names, got {damaged[0]}.")
    return {wordnet_id: names.strip() for wordnet_id, names in sorted(pairs)}


def read_imagenet(data_dir: Path, missing: list[str]) -> Iterator[dict]:
    """
    ImageNet-1k (Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575), the validation split. Labels count the
    WordNet ids in their order.
    """
    labelled, synonyms = list_imagenet(data_dir), read_synonyms(data_dir)
    missing += [] if labelled else [f"{IMAGENET_FOLDERS[0]}/n*/*.JPEG", SOLUTION_FILE]
    if labelled and not (data_dir / MAPPING_FILE).is_file():
        logger.warning(
            f"The classes of ImageNet bear their WordNet ids, as {MAPPING_FILE} is not in `{data_dir}`: put it there, "
            "or name the classes with `--class_names_file`."
        )
        if len(synonyms) != NUM_CLASSES:
            logger.warning(f"{len(synonyms)} of {NUM_CLASSES} classes are there, and labels count no others.")
    labels = {wordnet_id: label for label, wordnet_id in enumerate(synonyms)}
    unknown = sorted({wordnet_id for _, wordnet_id in labelled} - labels.keys())
    if unknown:
        raise ValueError(f"The classes {unknown[:5]} of images in `{data_dir}` are not among those that are named.")
    for name, wordnet_id in labelled:
        yield {"file_name": name, "label": labels[wordnet_id]}


def name_classes(data_dir: Path) -> list[str]:
    """
    The first synonym of each class; all of them where two classes have the same first one, and the WordNet id beside
    them where they have all in common.
    """
    synonyms = read_synonyms(data_dir)
    first_names = {wordnet_id: names.split(",")[0].strip() for wordnet_id, names in synonyms.items()}
    count_first, count_all = Counter(first_names.values()), Counter(synonyms.values())
    return [
        first_names[wordnet_id]
        if count_first[first_names[wordnet_id]] == 1
        else (names if count_all[names] == 1 else f"{names} ({wordnet_id})")
        for wordnet_id, names in synonyms.items()
    ]


KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
XTD10_SOURCE = (
    "https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10, the images that it names from "
    "http://images.cocodataset.org/zips/train2014.zip and val2014.zip"
)
SA_1B = "(https://ai.meta.com/datasets/segment-anything-downloads)"

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "coco",
            partial(read_karpathy, file="dataset_coco.json"),
            5000,
            25_000,
            "dataset_coco.json, val2014/COCO_val2014_*.jpg",
            f"{KARPATHY}, the images from http://images.cocodataset.org/zips/val2014.zip",
            aliases=("mscoco",),
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
            read_docci,
            5000,
            5000,
            "docci_descriptions.jsonlines, images/test_*.jpg",
            "docci_descriptions.jsonlines and docci_images.tar.gz of https://google.github.io/docci",
        ),
        Benchmark(
            "flickr30k",
            partial(read_karpathy, file="dataset_flickr30k.json", folder="flickr30k-images"),
            1000,
            5000,
            "dataset_flickr30k.json, flickr30k-images/*.jpg",
            f"{KARPATHY}, the images from https://shannon.cs.illinois.edu/DenotationGraph",
            aliases=("flickr30k-1k",),
        ),
        Benchmark(
            "iiw",
            read_iiw,
            612,
            612,
            "DCI_Test/data.jsonl with images in dci/, DOCCI_Test/data.jsonl with images in docci/, "
            "IIW-400/data.jsonl with images in docci_aar/",
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
            aliases=("imagenet-1k", "imagenet1k"),
        ),
        *(
            Benchmark(
                name,
                partial(read_sharegpt4v, num_rows=number),
                number,
                number,
                f"{SHAREGPT4V_FILE}, sam/images/sa_*.jpg",
                "the captions from https://huggingface.co/datasets/Lin-Chen/ShareGPT4V, the images that they name "
                f"from SA-1B {SA_1B}",
            )
            for name, number in {"sharegpt4v-1k": 1000, "sharegpt4v-10k": 10_000}.items()
        ),
        Benchmark(
            "urban1k",
            read_urban1k,
            1000,
            1000,
            "image/*.jpg, caption/*.txt",
            "https://huggingface.co/datasets/BeichenZhang/Urban1k",
        ),
        *(
            Benchmark(
                f"xtd10-{language}",
                partial(read_xtd10, language=language),
                1000,
                1000,
                f"XTD10/test_image_names.txt, {folder}/test_1kcaptions_{language}.txt, images/COCO_*.jpg",
                XTD10_SOURCE,
            )
            for language, folder in XTD10_FOLDERS.items()
        ),
    )
}

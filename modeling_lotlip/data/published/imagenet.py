# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1k (Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575): the validation split."""

import csv
import logging
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from .annotations import Annotations, Benchmark


logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", ".")
SOLUTION_FILE = "LOC_val_solution.csv"
MAPPING_FILE = "LOC_synset_mapping.txt"
DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH_FILE = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
META_FILE = f"{DEVKIT}/meta.mat"

NUM_CLASSES = 1000
WORDNET_ID = re.compile(r"n\d{8}")


def read_imagenet(data_dir: Path) -> Annotations:
    """
    Reads the labels from the images' folders, one for each class, or, where the images lie in one folder, from the
    solution that Kaggle ships, or from the development kit. Labels count the WordNet ids in their order.
    """
    folder = next((name for name in IMAGE_FOLDERS if has_images(data_dir / name)), IMAGE_FOLDERS[0])
    labelled = read_class_folders(data_dir / folder)
    if not labelled and (data_dir / SOLUTION_FILE).is_file():
        labelled = read_solution(data_dir / SOLUTION_FILE)
    elif not labelled and (data_dir / GROUND_TRUTH_FILE).is_file():
        if not (data_dir / META_FILE).is_file():
            return Annotations(missing=[META_FILE])
        labelled = read_ground_truth(data_dir / GROUND_TRUTH_FILE, data_dir / META_FILE)
    if not labelled:
        return Annotations(missing=[f"{folder}/n*/*.JPEG", SOLUTION_FILE, GROUND_TRUTH_FILE])

    synonyms = read_synonyms(data_dir)
    if synonyms is None:
        synonyms = {wordnet_id: wordnet_id for _, wordnet_id in labelled}
        logger.warning(
            f"The classes of ImageNet bear their WordNet ids, as neither {MAPPING_FILE} nor {META_FILE} is in "
            f"`{data_dir}`: put one there, or name the classes with `--class_names_file`."
        )
        if len(synonyms) != NUM_CLASSES:
            logger.warning(f"{len(synonyms)} of {NUM_CLASSES} classes are there, and labels count no others.")
    labels = {wordnet_id: label for label, wordnet_id in enumerate(sorted(synonyms))}
    unknown = sorted({wordnet_id for _, wordnet_id in labelled} - labels.keys())
    if unknown:
        raise ValueError(f"The classes {unknown[:5]} of images in `{data_dir}` are not among those that are named.")
    return Annotations(
        rows=[
            {"file_name": str(PurePosixPath(folder) / name), "label": labels[wordnet_id]}
            for name, wordnet_id in labelled
        ],
        class_names=name_classes({wordnet_id: synonyms[wordnet_id] for wordnet_id in labels}),
    )


def has_images(folder: Path) -> bool:
    """Whether a folder holds validation images, or folders of classes."""
    return any(folder.glob("ILSVRC2012_val_*")) or any(WORDNET_ID.fullmatch(path.name) for path in folder.glob("n*"))


def read_class_folders(folder: Path) -> list[tuple[str, str]]:
    """The images in folders that bear a WordNet id, and the ids."""
    class_folders = sorted(path for path in folder.glob("n*") if WORDNET_ID.fullmatch(path.name) and path.is_dir())
    return [
        (f"{class_folder.name}/{image.name}", class_folder.name)
        for class_folder in class_folders
        for image in sorted(class_folder.iterdir())
        if image.suffix.lower() in (".jpeg", ".jpg") and not image.name.startswith(".")
    ]


def read_solution(path: Path) -> list[tuple[str, str]]:
    """The images and WordNet ids of Kaggle's solution, where each id stands before the boxes of its objects."""
    labelled = []
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            name, solution = row.get("ImageId"), (row.get("PredictionString") or "").split()
            if not name or not solution or WORDNET_ID.fullmatch(solution[0]) is None:
                raise ValueError(f"{path}, line {number}: an ImageId and a WordNet id must stand there, got {row}.")
            labelled.append((f"{name}.JPEG", solution[0]))
    return sorted(labelled)


def read_meta(path: Path) -> list[dict]:
    """
    The classes in the development kit: `ILSVRC2012_ID`, `WNID` and `words` of each.

    Raises:
        `ImportError`: without SciPy, which reads MATLAB's files.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"`{path}` is a MATLAB file, and SciPy, which reads it, is not installed: `pip install scipy`, or put "
            f"Kaggle's {SOLUTION_FILE} and {MAPPING_FILE} into the folder."
        ) from error
    synsets = loadmat(path, simplify_cells=True)["synsets"]
    # those with higher numbers are groups of classes
    return [synset for synset in synsets if synset["ILSVRC2012_ID"] <= NUM_CLASSES]


def read_ground_truth(path: Path, meta_file: Path) -> list[tuple[str, str]]:
    """The images and WordNet ids of the development kit, which numbers the classes in an order of its own."""
    wordnet_ids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in read_meta(meta_file)}
    labelled = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split(), start=1):
        if not line.isdecimal() or int(line) not in wordnet_ids:
            raise ValueError(f"{path}, line {number}: the number of a class must stand there, got {line!r}.")
        labelled.append((f"ILSVRC2012_val_{number:08d}.JPEG", wordnet_ids[int(line)]))
    return labelled


def read_synonyms(data_dir: Path) -> dict[str, str] | None:
    """The synonyms that name each class, with commas between them, by WordNet id; None where no file has them."""
    if (data_dir / MAPPING_FILE).is_file():
        lines = (data_dir / MAPPING_FILE).read_text(encoding="utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        damaged = [pair for pair in pairs if len(pair) != 2 or WORDNET_ID.fullmatch(pair[0]) is None]
        if damaged:
            raise ValueError(f"`{data_dir / MAPPING_FILE}` must hold WordNet ids and names, got {damaged[0]}.")
        return {wordnet_id: names.strip() for wordnet_id, names in pairs}
    if (data_dir / META_FILE).is_file():
        return {str(synset["WNID"]): str(synset["words"]) for synset in read_meta(data_dir / META_FILE)}
    return None


def name_classes(synonyms: dict[str, str]) -> list[str]:
    """
    The first synonym of each class; all of them where two classes have the same first one, and the WordNet id beside
    them where they have all in common.

    Example:

    ```python
    >>> from modeling_lotlip.data.published.imagenet import name_classes

    >>> name_classes({"n01": "tench, Tinca tinca", "n02": "crane", "n03": "crane", "n04": "bib", "n05": "bib, tucker"})
    ['tench', 'crane (n02)', 'crane (n03)', 'bib', 'bib, tucker']
    ```"""
    first_names = {wordnet_id: names.split(",")[0].strip() for wordnet_id, names in synonyms.items()}
    count_first, count_all = Counter(first_names.values()), Counter(synonyms.values())
    class_names = []
    for wordnet_id, names in synonyms.items():
        if count_first[first_names[wordnet_id]] == 1:
            class_names.append(first_names[wordnet_id])
        else:
            class_names.append(names if count_all[names] == 1 else f"{names} ({wordnet_id})")
    return class_names


BENCHMARKS = (
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
        aliases=("imagenet-1k", "imagenet1k"),
    ),
)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Zero-shot classification: every class is embedded once, from its name in one or several prompt templates, and an image
belongs to the class that is most similar to it.
"""

import logging
from collections import Counter
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import ClassLabel, Dataset, IterableDataset, Json, LargeList, List

from ..data.images import unformatted
from ..data.reader import RowReader
from ..encoder.dual_encoder import DualEncoder, evaluation_mode
from ..metrics import TOLERANCE, RetrievalRanks, check_finite
from ..utils.files import read_lines
from ..utils.markdown import format_markdown
from .retrieval import embed_dataset


logger = logging.getLogger(__name__)

MAX_K = 5  # of the top-k accuracies the largest k
NUM_CONFUSED = 10  # pairs of classes that are listed
IMAGES_PER_BLOCK = 4096  # whose similarities are computed at once


def read_class_names(
    labels: object | None,
    class_names: list[str] | None = None,
    class_names_file: Path | None = None,
) -> list[str]:
    """
    Reads the names of the classes: as they are given, from a file with a name on each line, or from the feature of
    the labels' column.

    Raises:
        `ValueError`: if there are none, the file cannot be read, or the dataset has another number of classes, or the
            same in another order.
    """
    if class_names is None and class_names_file is not None:
        class_names = read_lines(class_names_file, "class_names_file", are_numbered=True)
    elif class_names is None and isinstance(labels, ClassLabel):
        class_names = [name.replace("_", " ") for name in labels.names]
    elif class_names is None:
        raise ValueError("The dataset does not name its classes: give `--class_names` or `--class_names_file`.")
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        logger.warning(f"The class names {repeated} are there more than once: images of one are taken for the other.")
    if isinstance(labels, ClassLabel) and len(class_names) != labels.num_classes:
        raise ValueError(
            f"{len(class_names)} class names were given with `--class_names` or "
            f"`--class_names_file`, but the dataset has {labels.num_classes} classes: name each, in "
            f"the order of {labels.names[:5]}..."
        )
    if isinstance(labels, ClassLabel):
        given = list(map(normalize_class_name, class_names))
        own = list(map(normalize_class_name, labels.names))
        if given != own and sorted(given) == sorted(own):
            raise ValueError(
                f"The class names {class_names[:5]}... are those of the dataset, but in another "
                "order, in which each image would have another class: name them in the order of "
                f"{labels.names[:5]}..., or none."
            )
        if given != own:
            warn_of_numbers_in_order_of_texts(labels.names, class_names)
    return class_names


def warn_of_numbers_in_order_of_texts(labels: list[str], class_names: list[str]) -> None:
    """Says which name the label 10 gets that stands before the label 2, as folders are sorted by their names."""
    if not all(label.isdecimal() for label in labels):
        return
    for label, of_same_place, name in zip(labels, sorted(labels, key=int), class_names):
        if label != of_same_place:
            logger.warning(
                f"The labels are in the order {', '.join(labels[:5])}..., and the class names are taken to be, too: "
                f"{name!r} is the label {label}, not {of_same_place}. If the names are in the order of numbers, write "
                "them in that of the labels, or give all labels as many digits, as 01 and 10."
            )
            return


def normalize_class_name(name: str) -> str:
    """Writes the name of a class so that two names of one class are equal."""
    return name.replace("_", " ").strip().casefold()


def resolve_numbers(
    labels: list[int | str],
    feature: object | None,
    class_names: list[str],
    all_labels: list[int | str] | None = None,
) -> list[int | str]:
    """
    Finds out what labels that are numbers say. Where all are names of classes, as "5" and "7" are that a CSV file
    holds, they are names; else, and of a column that has its own names, they are indices.

    Args:
        labels (`list[int | str]`):
            Labels.
        feature (`object`, *optional*):
            The type of their column, None if it is not known.
        class_names (`list[str]`):
            The names of the classes.
        all_labels (`list[int | str]`, *optional*):
            All labels of the column, of which the first may be a part. Default: these.

    Returns:
        `list[int | str]`: the labels, as names where they are such.
    """
    if isinstance(feature, ClassLabel):
        return labels
    all_names = set(map(str, labels if all_labels is None else all_labels))
    if not all_names <= set(class_names):
        return labels
    return [str(label) for label in labels]


def find_class(label: int | str, class_names: list[str]) -> int:
    """
    Returns the class of a label, an index or a name.

    Raises:
        `ValueError`: if there is no such class.
    """
    if isinstance(label, str) and label in class_names:
        return class_names.index(label)
    if isinstance(label, int) and 0 <= label < len(class_names):
        return label
    raise ValueError(f"The label {label!r} is none of the {len(class_names)} classes: {class_names[:10]}...")


def find_row(dataset: Dataset, column: str, value: int | str | None) -> int:
    """Finds the index of the first row with a value in a column, which has one."""
    return dataset[column][:].index(value)


def check_labels(dataset: Dataset, label_column: str, class_names: list[str]) -> None:
    """
    Checks that each label is one of the classes. Warns of labels that seem to be counted from 1.

    Raises:
        `ValueError`: if one is none of the classes, or there is none or several for an image; names the row.
    """
    feature = dataset.features[label_column]
    if isinstance(feature, (LargeList, List)):
        raise ValueError(f"`--label_column {label_column}` holds lists: write one label for each image.")
    if isinstance(feature, dict):
        raise ValueError(f"`--label_column {label_column}` holds dictionaries: write one label for each image.")
    if isinstance(feature, Json):
        raise ValueError(
            f"`--label_column {label_column}` holds values of several types: write all labels as "
            "numbers, or all as texts."
        )
    values = dataset.unique(label_column)
    if None in values:
        row = find_row(dataset, label_column, None)
        raise ValueError(f"Row {row} of {len(dataset)} has no label: write one, or leave the row out.")
    labels = resolve_numbers(values, feature, class_names)
    for value, label in zip(values, labels):
        try:
            find_class(label, class_names)
        except ValueError as error:
            raise ValueError(f"Row {find_row(dataset, label_column, value)} of {len(dataset)}: {error}") from error
    are_indices = all(isinstance(label, int) for label in labels)
    if are_indices and min(labels) == 1 and not isinstance(feature, ClassLabel):
        logger.warning(
            f"No image has the label 0, which is {class_names[0]!r}. If the labels are counted from 1, "
            "each is taken for the next one: count them from 0, or write names."
        )


def classify(
    image_embeds: torch.Tensor,
    labels: list[int | str],
    class_embeds: torch.Tensor,
    class_names: list[str],
) -> dict:
    """
    Takes every image for the class whose embedding is most similar to its own. Ties are fair, as in
    [`~modeling_lotlip.metrics.ImageTextRetrieval`]: an accuracy is the one to be expected when equal classes are
    ordered at random.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`):
            Normalized.
        labels (`list[int | str]`):
            The class of each image, as an index or a name.
        class_embeds (`torch.Tensor` of shape `(classes, dim)`):
            Normalized.
        class_names (`list[str]`):
            The names of the classes.

    Returns:
        `dict`: `num_images`, `num_classes`, the accuracies `top1` and `top5` in %, and `most_confused`, the
        pairs of classes that are confused most; an image whose own class ties for the first is not confused.

    Raises:
        `ValueError`: if an embedding holds NaN or infinity, or a label is none of the classes.
    """
    check_finite(image_embeds, "image_embeds")
    check_finite(class_embeds, "class_embeds")
    if len(class_names) <= MAX_K:
        logger.warning_once(
            f"There are {len(class_names)} classes, and so each is among the first {MAX_K}, whatever "
            f"the model: look at `top1` alone, or name more than {MAX_K}."
        )
    # true and false are the indices 1 and 0
    labels = torch.tensor([find_class(label, class_names) for label in labels], dtype=torch.int64)
    better = []
    equal = []
    predictions = []
    for embeds, own_classes in zip(image_embeds.split(IMAGES_PER_BLOCK), labels.split(IMAGES_PER_BLOCK)):
        similarities = (embeds @ class_embeds.t()).cpu()
        own = similarities.gather(1, own_classes[:, None])
        num_better = (similarities > own + TOLERANCE).sum(dim=1)
        better.append(num_better)
        equal.append((similarities >= own - TOLERANCE).sum(dim=1) - num_better)
        predictions.append(torch.where(num_better == 0, own_classes, similarities.argmax(dim=1)))
    predictions = torch.cat(predictions)
    ranks = RetrievalRanks(torch.cat(better), torch.cat(equal), torch.ones_like(labels))
    return {
        "num_images": len(labels),
        "num_classes": len(class_names),
        "top1": 100 * ranks.hits(1).mean().item(),
        "top5": 100 * ranks.hits(MAX_K).mean().item(),
        "most_confused": list_confused(labels.tolist(), predictions.tolist(), class_names),
    }


def list_confused(labels: list[int], predictions: list[int], class_names: list[str]) -> list[dict]:
    """Lists the pairs of classes that are confused most, each with how often it is."""
    wrong = Counter()
    for label, prediction in zip(labels, predictions):
        if label != prediction:
            wrong[label, prediction] += 1
    pairs = []
    for (label, prediction), count in wrong.most_common(NUM_CONFUSED):
        pairs.append({"class": class_names[label], "taken_for": class_names[prediction], "count": count})
    return pairs


def evaluate_zero_shot(
    encoder: DualEncoder,
    dataset: Dataset | IterableDataset,
    class_names: list[str],
    templates: list[str],
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 64,
    num_workers: int = 0,
) -> dict:
    """
    Classifies the images of a dataset by the names of classes alone. Every process embeds its part; the main one has
    the results, the others get empty ones.

    Args:
        encoder ([`DualEncoder`]):
            Embeds the images and the names of the classes.
        dataset (`Dataset` or `IterableDataset`):
            The images and labels.
        class_names (`list[str]`):
            The names of the classes.
        templates (`list[str]`):
            Prompts with `{}` for the class name.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of the images.
        label_column (`str`, *optional*, defaults to `"label"`):
            The column of the labels.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch, for each process.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode images.

    Returns:
        `dict`: what [`classify`] returns, and `num_unreadable_images` if there are such.

    Raises:
        `ValueError`: if a label is none of the classes, or no image can be read.
    """
    dataset = unformatted(dataset)
    columns = [image_column, label_column]
    reader = RowReader(columns, image_column=image_column, label_column=label_column)
    all_labels = None
    if isinstance(dataset, Dataset):  # before the work
        check_labels(dataset, label_column, class_names)
        all_labels = dataset.unique(label_column)  # also those of images that cannot be read
    embedded = embed_dataset(encoder, dataset, reader, batch_size, num_workers=num_workers)
    if not PartialState().is_main_process:
        return {}
    with evaluation_mode(encoder.model):
        class_embeds = encoder.embed_classes(class_names, templates)
    feature = (dataset.features or {}).get(label_column)
    labels = resolve_numbers(embedded.labels, feature, class_names, all_labels)
    results = classify(embedded.image_embeds, labels, class_embeds, class_names)
    if embedded.num_unreadable > 0:
        results["num_unreadable_images"] = embedded.num_unreadable
    return results


def format_classification(*rows: dict) -> str:
    """
    Formats the results of [`evaluate_zero_shot`] as a Markdown table, and the classes confused most below it; several
    models by their names.
    """
    are_named = len(rows) > 1
    titles = ["images", "classes", "top-1", "top-5"]
    if are_named:
        titles.insert(0, "model")
    lines = []
    parts = []
    for row in rows:
        cells = [str(row["num_images"]), str(row["num_classes"]), f"{row['top1']:.1f}", f"{row['top5']:.1f}"]
        pairs = [f"{pair['count']} x {pair['class']} taken for {pair['taken_for']}" for pair in row["most_confused"]]
        if are_named:
            cells.insert(0, row["model"])
        lines.append(cells)
        if pairs and are_named:
            pairs.insert(0, f"{row['model']}:")
        if pairs:
            parts.append("\n".join(pairs))
    return "\n\n".join([format_markdown(titles, lines), *parts])

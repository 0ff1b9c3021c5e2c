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
from accelerate.utils import gather_object
from datasets import ClassLabel, Dataset, IterableDataset
from datasets.features.features import FeatureType
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import undecoded
from ..data.reader import RowReader
from ..embedding.batches import embed_texts, tokenize
from ..embedding.models import evaluation_mode
from ..embedding.rows import RowCollator, embed_rows, gather_to_main, load_rows, warn_of_unreadable
from ..files import format_markdown, read_lines
from ..terminal import progress_bar
from .arguments import check_templates


logger = logging.getLogger(__name__)


def read_class_names(
    labels: FeatureType | None, class_names: list[str] | None = None, class_names_file: Path | None = None
) -> list[str]:
    """
    The names of the classes: as they are given, from a file with a name on each line, or from the feature of the
    labels' column.

    Raises:
        `ValueError`: if there are none, the file cannot be read, or the data set has another number of classes.
    """
    if class_names is None and class_names_file is not None:
        class_names = read_lines(class_names_file, "class_names_file")
    elif class_names is None and isinstance(labels, ClassLabel):
        class_names = [name.replace("_", " ") for name in labels.names]
    elif class_names is None:
        raise ValueError(
            "The data set does not name its classes: name them with `--class_names` or `--class_names_file`."
        )
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        logger.warning(f"The class names {repeated} are there more than once: images of one are taken for the other.")
    if isinstance(labels, ClassLabel) and len(class_names) != labels.num_classes:
        raise ValueError(
            f"{len(class_names)} class names were given with `--class_names` or `--class_names_file`, but the data "
            f"set has {labels.num_classes} classes: name each, in the order of {labels.names[:5]}..."
        )
    return class_names


def find_class(label: int | str, class_names: list[str]) -> int:
    """
    The class of a label, an index or a name.

    Raises:
        `ValueError`: if there is no such class.
    """
    if isinstance(label, str) and label in class_names:
        return class_names.index(label)
    if isinstance(label, int) and 0 <= label < len(class_names):
        return label
    raise ValueError(f"The label {label!r} is none of the {len(class_names)} classes: {class_names[:10]}...")


def embed_classes(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    class_names: list[str],
    templates: list[str],
    batch_size: int,
    max_length: int | None = None,
) -> torch.Tensor:
    """
    Class embeddings (classes, dim): the mean of the normalised embeddings of a name in each template, normalised again
    (Radford et al., 2021, https://arxiv.org/abs/2103.00020, section 3.1.4).
    """
    check_templates(templates)
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    with evaluation_mode(model):
        embeds = [
            embed_texts(model, tokenize(processor, prompts[start : start + batch_size], max_length))
            for start in range(0, len(prompts), batch_size)
        ]
    embeds = torch.cat(embeds).unflatten(0, (len(class_names), len(templates))).mean(dim=1)
    return torch.nn.functional.normalize(embeds, dim=-1)


def summarize(predictions: torch.Tensor, labels: torch.Tensor, class_names: list[str], num_pairs: int = 10) -> dict:
    """
    Accuracies in per cent and the pairs of classes confused most, from the most similar classes of each image
    (images, k), best first, and its class (images,).
    """
    is_hit = predictions == labels[:, None]
    wrong = [pair for pair in zip(labels.tolist(), predictions[:, 0].tolist()) if pair[0] != pair[1]]
    return {
        "num_images": len(labels),
        "num_classes": len(class_names),
        "top1": 100 * is_hit[:, 0].float().mean().item(),
        "top5": 100 * is_hit[:, :5].any(dim=-1).float().mean().item(),
        "most_confused": [
            {"class": class_names[label], "taken_for": class_names[prediction], "count": count}
            for (label, prediction), count in Counter(wrong).most_common(num_pairs)
        ],
    }


def classify(
    image_embeds: torch.Tensor, labels: list[int | str], class_embeds: torch.Tensor, class_names: list[str]
) -> dict:
    """
    Takes every image, by its normalised embedding (images, dim), for the class whose embedding (classes, dim) is most
    similar; labels are indices or names. Returns what [`summarize`] returns.
    """
    labels = torch.tensor([find_class(label, class_names) for label in labels])
    k = min(5, len(class_names))
    predictions = [(embeds @ class_embeds.t()).topk(k).indices for embeds in image_embeds.split(4096)]
    return summarize(torch.cat(predictions), labels, class_names)


def evaluate_zero_shot(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    class_names: list[str],
    templates: list[str],
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 64,
    max_length: int | None = None,
    num_workers: int = 0,
) -> dict:
    """
    Zero-shot classification of a data set. Every process classifies its share; the main one has the results, the
    others get empty ones.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`.
        processor (`ProcessorMixin`):
            Its processor.
        dataset (`Dataset` or `IterableDataset`):
            The images and labels.
        class_names (`list[str]`):
            The names of the classes.
        templates (`list[str]`):
            Prompts with `{}` for the class name.
        image_column, label_column (`str`, *optional*, defaults to `"image"` and `"label"`):
            The columns of the data set.
        batch_size (`int`, *optional*, defaults to 64):
            Images or prompts in a batch, for each process.
        max_length (`int`, *optional*):
            Truncate prompts at this many tokens. Default: the tokenizer's limit.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode images.

    Returns:
        `dict`: what [`summarize`] returns, and `num_unreadable_images` if there are such.

    Raises:
        `ValueError`: if a label is none of the classes, or no image can be read.
    """
    state = PartialState()
    reader = RowReader([image_column, label_column], image_column=image_column, label_column=label_column)
    collator = RowCollator(processor, reader)
    dataset = undecoded(dataset, image_column)
    loader = load_rows(dataset, collator, batch_size, num_workers, state.process_index, state.num_processes)
    class_embeds = embed_classes(model, processor, class_names, templates, batch_size, max_length)
    image_embeds, labels, num_unreadable = [], [], 0
    total = len(loader.dataset) if isinstance(dataset, Dataset) else None
    progress = progress_bar(desc="Classifying", total=total, unit=" images", disable=not state.is_main_process)
    with evaluation_mode(model), progress:
        for result in embed_rows(model, processor, loader, num_prefetched=2):
            warn_of_unreadable(result.unreadable)
            num_unreadable += len(result.unreadable)
            if result.items:
                image_embeds.append(result.embeds)
                labels += [find_class(item.row.label, class_names) for item in result.items]
            progress.update(len(result.items))
    if not any(gather_object([len(labels)])):
        raise ValueError("No image of the evaluation data can be read.")
    shares = gather_to_main((image_embeds, labels, num_unreadable))
    if not state.is_main_process:
        return {}
    image_embeds, labels, num_unreadable = zip(*shares)
    image_embeds = torch.cat([part for parts in image_embeds for part in parts])
    results = classify(image_embeds, [label for part in labels for label in part], class_embeds, class_names)
    return results | ({"num_unreadable_images": sum(num_unreadable)} if any(num_unreadable) else {})


def format_classification(*rows: dict) -> str:
    """
    The results of [`evaluate_zero_shot`] as a Markdown table, and the classes confused most below it; several models
    by their names.
    """
    titles, lines, parts = ["images", "classes", "top-1", "top-5"], [], []
    for row in rows:
        cells = [str(row["num_images"]), str(row["num_classes"]), f"{row['top1']:.1f}", f"{row['top5']:.1f}"]
        lines.append([row["model"], *cells] if len(rows) > 1 else cells)
        pairs = ["{count} x {class} taken for {taken_for}".format(**pair) for pair in row["most_confused"]]
        if pairs:
            parts.append("\n".join([f"{row['model']}:", *pairs] if len(rows) > 1 else pairs))
    table = format_markdown(["model", *titles] if len(rows) > 1 else titles, lines)
    return "\n\n".join([table, *parts])

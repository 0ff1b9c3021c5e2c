# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a mixture finds on rows that were held back, in two halves: one to choose the best by, one to report it on."""

import logging
from dataclasses import dataclass, field

import torch
from accelerate import PartialState
from datasets import Dataset

from ..data.images import make_noise_image
from ..data.loading import load_split
from ..data.reader import RowReader
from ..data.repeated_images import warn_of_repeated_images
from ..data.rows import get_columns
from ..encoder.dual_encoder import DualEncoder, evaluation_mode
from ..evaluation.classification import check_labels, classify, read_class_names, resolve_numbers
from ..evaluation.retrieval import ImageEmbeddingCache, embed_dataset, measure_retrieval
from .arguments import InterpolateArguments


logger = logging.getLogger(__name__)

# Two rows in each half; with one an image is always found
MIN_ROWS = 4
# Rows of a half of which one text counts a point or more
FEW_ROWS = 100
# The halves are the same in each run
SEED_OF_HALVES = 0

# What mixtures are compared by
LONG_SCORE = "long_mean_recall"
KEPT_SCORES = ("short_mean_recall", "zero_shot_top1")


@dataclass
class Half:
    """
    Holds half of the rows that were held back.

    Args:
        rows (`Dataset`): The rows.
        image_cache ([`ImageEmbeddingCache`], *optional*): The embeddings of its images, if all mixtures have the same.
    """

    rows: Dataset
    image_cache: ImageEmbeddingCache | None = None


@dataclass
class HeldBackData:
    """
    Holds the rows that mixtures are measured on.

    Args:
        chosen_on ([`Half`]): The half on which the best is chosen.
        reported_on ([`Half`]): The half on which it is reported.
        reader ([`RowReader`]): Reads rows of both.
        class_names (`list[str]`): The classes, none if labels are not named.
        labels (`list[int | str]`): The different labels of both halves.
    """

    chosen_on: Half
    reported_on: Half
    reader: RowReader
    class_names: list[str] = field(default_factory=list)
    labels: list[int | str] = field(default_factory=list)

    @property
    def halves(self) -> dict[str, Half]:
        """Returns both halves by name."""
        return {"chosen_on": self.chosen_on, "reported_on": self.reported_on}


def load_held_back(args: InterpolateArguments) -> HeldBackData:
    """
    Loads the rows of `--eval_split` and halves them at random, in each run alike.

    Raises:
        `ValueError`: if there are too few rows, no long captions, neither short captions nor labels, or a label is
            none of the classes.
    """
    rows = load_split(args, args.eval_split, args.max_eval_samples, key_column=args.image_key_column)
    if len(rows) < MIN_ROWS:
        raise ValueError(
            f"`--eval_split {args.eval_split}` has {len(rows)} rows, but a mixture is chosen on one "
            f"half of them and reported on the other: hold back at least {MIN_ROWS}, better hundreds."
        )
    columns = get_columns(rows)
    if args.label_column is not None and args.label_column not in columns:
        raise ValueError(f"`--label_column {args.label_column}` is not a column of the dataset, which has {columns}.")
    reader = RowReader.of(rows, args, args, args.image_column, label_column=args.label_column)
    if not reader.has_long_captions:
        raise ValueError(
            f"There are no long captions in `--eval_split {args.eval_split}`, by which the best "
            "mixture is chosen: name their column, --long_captions_column, or --caption_files."
        )
    if reader.short_column is None and args.label_column is None:
        raise ValueError(
            f"There are no short captions in `--eval_split {args.eval_split}`, and no labels, by "
            "which a loss would be seen: name --caption_column or --label_column."
        )
    class_names = []
    labels = []
    if args.label_column is not None:
        feature = rows.features[args.label_column]
        class_names = read_class_names(feature, args.class_names, args.class_names_file)
        check_labels(rows, args.label_column, class_names)
        labels = rows.unique(args.label_column)
    if PartialState().is_main_process:
        reader.report_keys(rows)
        warn_of_repeated_images(rows, args.image_column, "held-back")
    shuffled = rows.shuffle(seed=SEED_OF_HALVES)
    middle = len(rows) // 2
    if middle < FEW_ROWS:
        logger.warning(
            f"Half of the rows are {middle}, of which one text counts {100 / middle:.1f} points of "
            "recall at 1: what is chosen by so few is uncertain. Hold back hundreds."
        )
    first = shuffled.select(range(middle))
    second = shuffled.select(range(middle, len(rows)))
    return HeldBackData(Half(first), Half(second), reader, class_names, labels)


def has_same_images(start: DualEncoder, end: DualEncoder) -> bool:
    """
    Returns whether two models, each with its own image processor, embed images alike, bit by bit, as after a training
    with a frozen image tower: tried on images of noise, a wide and a high one, since processors may see other parts of
    these.
    """
    for height, width in ((64, 96), (96, 64)):
        probe = make_noise_image(height, width)
        embeds_of_start = start.embed_images(start.preprocessing.prepare_images([probe]))
        embeds_of_end = end.embed_images(end.preprocessing.prepare_images([probe]))
        if not torch.equal(embeds_of_start, embeds_of_end):
            return False
    return True


def check_measured(start: dict[str, dict[str, float]]) -> None:
    """
    Raises a `ValueError` if a half has none of what mixtures are compared by: captions of few rows may all be in the
    other half, or of images that cannot be read.

    Args:
        start (`dict[str, dict[str, float]]`): What [`measure_halves`] returned of the first model.
    """
    for results in start.values():
        if LONG_SCORE not in results:
            raise ValueError(
                "In one half of the rows of `--eval_split` no image has a long caption, by which "
                "the best mixture is chosen, or reported: hold back more rows with long captions."
            )
    short_score, class_score = KEPT_SCORES
    have_short_captions = {short_score in results for results in start.values()}
    if have_short_captions == {True} or (have_short_captions == {False} and class_score in start["chosen_on"]):
        return
    raise ValueError(
        "In one half of the rows of `--eval_split`, or in both, no image has a short caption, by "
        "which a loss would be seen: hold back more rows with short captions, or none and name "
        "`--label_column`."
    )


def keep_image_embeddings(data: HeldBackData) -> None:
    """Makes the first measurement embed the images, and later ones take its embeddings."""
    for half in data.halves.values():
        half.image_cache = ImageEmbeddingCache()


def measure_half(
    encoder: DualEncoder,
    half: Half,
    data: HeldBackData,
    args: InterpolateArguments,
) -> dict[str, float]:
    """
    Measures retrieval of short and long captions on half of the rows, and zero-shot classification.

    Args:
        encoder ([`DualEncoder`]): The model, or a mixture.
        half ([`Half`]): The rows.
        data ([`HeldBackData`]): What reads them.
        args ([`InterpolateArguments`]): How they are embedded.

    Returns:
        `dict[str, float]`: what [`measure_retrieval`] returns, `zero_shot_top1` and `zero_shot_top5` in %; empty but
        on the main process.
    """
    embedded = embed_dataset(
        encoder,
        half.rows,
        data.reader,
        args.batch_size,
        num_workers=args.dataloader_num_workers,
        image_cache=half.image_cache,
    )
    if not PartialState().is_main_process:
        return {}
    # a drawn scene has the short caption of others
    are_distinct = args.dataset_name is None
    results = measure_retrieval(embedded, distinct_short_captions=are_distinct, device=encoder.device)
    if data.class_names:
        with evaluation_mode(encoder.model):
            class_embeds = encoder.embed_classes(data.class_names, args.templates)
        feature = half.rows.features[args.label_column]
        labels = resolve_numbers(embedded.labels, feature, data.class_names, data.labels)
        found = classify(embedded.image_embeds, labels, class_embeds, data.class_names)
        results["zero_shot_top1"] = found["top1"]
        results["zero_shot_top5"] = found["top5"]
    return results


def measure_halves(
    encoder: DualEncoder,
    data: HeldBackData,
    args: InterpolateArguments,
) -> dict[str, dict[str, float]]:
    """
    Measures a model, or a mixture, on both halves of the rows.

    Args:
        encoder ([`DualEncoder`]): The model, or a mixture.
        data ([`HeldBackData`]): The rows.
        args ([`InterpolateArguments`]): How they are embedded.

    Returns:
        `dict[str, dict[str, float]]`: the results of [`measure_half`] as `"chosen_on"` and `"reported_on"`.
    """
    return {name: measure_half(encoder, half, data, args) for name, half in data.halves.items()}

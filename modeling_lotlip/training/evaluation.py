# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a model while it is trained."""

import logging
from dataclasses import dataclass, field, replace

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import ClassLabel, Dataset, IterableDataset

from .. import LotlipModel, LotlipProcessor
from ..data.loading import get_columns, load_split
from ..data.overlap import find_known_files, find_known_images
from ..data.reader import RowReader
from ..embedding.token_wise import is_token_wise
from ..evaluation.classification import classify, embed_classes, read_class_names
from ..evaluation.retrieval import embed_dataset, format_table, measure_retrieval
from .arguments import TrainArguments
from .objectives import OBJECTIVES


logger = logging.getLogger(__name__)

# The largest share of images that are trained on, with which results still choose the best model
MAX_TRAINED_ON = 0.01


@dataclass
class EvaluationData:
    """What a training is evaluated on."""

    dataset: Dataset | IterableDataset
    reader: RowReader
    class_names: list[str] | None = None  # of its images, if they have labels
    share_trained_on: float = 0.0  # of its images, that the training data has too
    known_images: dict = field(default_factory=dict)  # what a frozen image tower gave for them: see `embed_dataset`


def load_evaluation_data(args: TrainArguments) -> EvaluationData:
    """
    The evaluation data of a training.

    Raises:
        `ValueError`: if a column that is named is not there, or `--metric_for_best_model` cannot be measured.
    """
    is_named = args.label_column != TrainArguments.label_column or args.class_names or args.class_names_file
    if is_named and OBJECTIVES[args.objective].model_class == "LotlipTokenWiseModel":
        raise ValueError(
            f"`--objective {args.objective}` trains no single embedding of a class: leave out `--label_column`, "
            "`--class_names` and `--class_names_file`."
        )
    args = with_eval_files(args)
    dataset = load_split(args, args.eval_split, args.max_eval_samples, key_column=args.image_key_column)
    columns = get_columns(dataset)
    reader = RowReader(columns, args, args, args.image_column)
    class_names = None
    if args.label_column in columns:
        labels = dataset.features[args.label_column] if dataset.features else None
        if args.class_names or args.class_names_file or isinstance(labels, ClassLabel):
            class_names = read_class_names(labels, args.class_names, args.class_names_file)
    kinds = {"short": reader.short_column, "long": reader.has_long_captions, "zero": class_names}
    kind = (args.metric_for_best_model or "").split("_")[0]
    if kind and not kinds[kind]:
        raise ValueError(
            f"`--metric_for_best_model {args.metric_for_best_model}` cannot be measured: the evaluation data has no "
            f"{'class labels' if kind == 'zero' else f'{kind} captions'}."
        )
    if is_named and args.label_column not in columns:
        raise ValueError(
            f"`--label_column {args.label_column}` is no column of the evaluation data, which has {columns}: name one."
        )
    if is_named and class_names is None:
        raise ValueError(
            f"`--label_column {args.label_column}` does not name its classes: name them with `--class_names` or "
            "`--class_names_file`."
        )
    if class_names is not None:
        reader.label_column = args.label_column
    return EvaluationData(dataset, reader, class_names)


def with_eval_files(args: TrainArguments) -> TrainArguments:
    """The arguments, with the files of the evaluation data as those of the data."""
    return replace(args, data_files=args.eval_data_files or args.data_files, data_weights=None)


def check_overlap(args: TrainArguments, dataset: Dataset | IterableDataset, data: EvaluationData) -> None:
    """
    Measures which share of the evaluation data is trained on, and warns where there is some: the results say little
    about other images. Every process must call this.

    Args:
        args (`TrainArguments`):
            The arguments of the training.
        dataset (`Dataset` or `IterableDataset`):
            The training data.
        data (`EvaluationData`):
            The evaluation data, which gets the share. Of streams it is that of the files.

    Raises:
        `ValueError`: if `--metric_for_best_model` would be measured on it.
    """
    found = [0, 1]
    if PartialState().is_main_process:
        if args.streaming:
            found = find_known_files(with_eval_files(args), args.eval_split, args, args.train_split)
        else:
            found = find_known_images(data.dataset, dataset, args.image_column)
    num_found, num_compared = broadcast_object_list([*found])
    data.share_trained_on = num_found / num_compared
    if num_found == 0:
        return
    kind = "files" if args.streaming else "images"
    remedy = (
        "other `--eval_data_files` or another `--eval_split`"
        if args.streaming
        else 'another `--eval_split`, or parts such as `--train_split "train[:90%]" --eval_split "train[90%:]" '
        "--split_seed 0`"
    )
    told = f"{num_found} of {num_compared} {kind} of the evaluation data are trained on too"
    if args.metric_for_best_model is not None and data.share_trained_on > MAX_TRAINED_ON:
        raise ValueError(
            f"`--metric_for_best_model {args.metric_for_best_model}` would keep the model that knows the training "
            f"data best: {told}. Give {remedy}."
        )
    if PartialState().is_main_process:
        logger.warning(f"{told}: the results say little about other images. Give {remedy}.")


def evaluate_model(
    model: LotlipModel | None,
    processor: LotlipProcessor,
    data: EvaluationData,
    args: TrainArguments,
    is_alone: bool = False,
) -> dict[str, float]:
    """
    Retrieval, and zero-shot classification where there are classes, with the keys `short_...`, `long_...` and
    `zero_shot_...`; `share_trained_on` where images are trained on. Every process embeds its share, or the main
    one all if it has the model alone (`is_alone`); it has the results, the others get none.
    """
    if is_alone and not PartialState().is_main_process:
        return {}
    batch_size = args.per_device_eval_batch_size
    projection = getattr(model, "visual_projection", None)
    is_trained = not args.freeze_vision_model or (
        projection is not None and any(True for _ in projection.parameters())
    )
    embedded = embed_dataset(
        model,
        processor,
        data.dataset,
        data.reader,
        batch_size=batch_size,
        num_workers=args.dataloader_num_workers,
        is_alone=is_alone,
        known_images=None if is_trained else data.known_images,
    )
    if not PartialState().is_main_process:
        return {}
    # a drawn scene has the short caption of others
    results = measure_retrieval(embedded, distinct_short_captions=args.dataset_name is None, device=model.device)
    if data.class_names is not None and not is_token_wise(model):
        class_embeds = embed_classes(model, processor, data.class_names, args.templates, batch_size)
        classified = classify(embedded.image_embeds, embedded.labels, class_embeds, data.class_names)
        results |= {f"zero_shot_{name}": classified[name] for name in ("top1", "top5")}
    if data.share_trained_on > 0:
        results["share_trained_on"] = data.share_trained_on
    return results


def format_results(results: dict[str, float]) -> str:
    """The results of [`evaluate_model`] for people."""
    text = format_table(results)
    if "zero_shot_top1" in results:
        text += "\nzero-shot top-1 {zero_shot_top1:.1f}, top-5 {zero_shot_top5:.1f}".format(**results)
    return text

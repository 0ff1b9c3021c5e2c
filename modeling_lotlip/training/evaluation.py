# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a model while it is trained."""

from dataclasses import dataclass, field, replace

from accelerate import PartialState
from datasets import ClassLabel, Dataset, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin

from ..data.loading import get_columns, load_split
from ..data.reader import RowReader
from ..embedding.token_wise import is_token_wise
from ..evaluation.classification import classify, embed_classes, read_class_names
from ..evaluation.retrieval import embed_dataset, format_table, measure_retrieval
from .arguments import TrainArguments
from .objectives import OBJECTIVES


@dataclass
class EvaluationData:
    """What a training is evaluated on."""

    dataset: Dataset | IterableDataset
    reader: RowReader
    class_names: list[str] | None = None  # of its images, if they have labels
    known_images: dict = field(default_factory=dict)  # what a frozen image tower gave for them: see `embed_dataset`


def load_evaluation_data(args: TrainArguments) -> EvaluationData:
    """
    The evaluation data of a training.

    Raises:
        `ValueError`: if a column that is named is not there, or `--metric_for_best_model` cannot be measured.
    """
    source = replace(args, data_files=args.eval_data_files or args.data_files, data_weights=None)
    dataset = load_split(source, args.eval_split, args.max_eval_samples, key_column=args.image_key_column)
    columns, features = get_columns(dataset), dataset.features or {}
    labels, class_names = features.get(args.label_column), None
    is_named = args.label_column != TrainArguments.label_column or args.class_names or args.class_names_file
    # an objective without a single embedding of a class is not measured on classes
    has_classes = OBJECTIVES[args.objective].model_class != "LotlipTokenWiseModel"
    has_classes &= bool(is_named) or isinstance(labels, ClassLabel)
    label_column = args.label_column if has_classes else None
    reader = RowReader(columns, args, args, args.image_column, label_column)
    if has_classes:
        class_names = read_class_names(labels, args.class_names, args.class_names_file)
    kinds = {"short": reader.short_column, "long": reader.has_long_captions, "zero": class_names}
    kind = (args.metric_for_best_model or "").split("_")[0]
    if kind and not kinds[kind]:
        raise ValueError(
            f"`--metric_for_best_model {args.metric_for_best_model}` cannot be measured: the evaluation data has no "
            f"{'class labels' if kind == 'zero' else f'{kind} captions'}."
        )
    return EvaluationData(dataset, reader, class_names)


def evaluate_model(
    model: PreTrainedModel | None,
    processor: ProcessorMixin,
    data: EvaluationData,
    args: TrainArguments,
    is_alone: bool = False,
) -> dict[str, float]:
    """
    Retrieval, and zero-shot classification where there are classes, with the keys `short_...`, `long_...` and
    `zero_shot_...`. Every process embeds its share, or the main one all if it has the model alone (`is_alone`); it has
    the results, the others get none.
    """
    if is_alone and not PartialState().is_main_process:
        return {}
    batch_size = args.per_device_eval_batch_size
    projection = getattr(model, "visual_projection", None)
    has_projection = projection is not None and any(True for _ in projection.parameters())
    embedded = embed_dataset(
        model,
        processor,
        data.dataset,
        data.reader,
        batch_size=batch_size,
        num_workers=args.dataloader_num_workers,
        is_alone=is_alone,
        known_images=data.known_images if args.freeze_vision_model and not has_projection else None,
    )
    if not PartialState().is_main_process:
        return {}
    # a drawn scene has the short caption of others
    results = measure_retrieval(embedded, distinct_short_captions=args.dataset_name is None, device=model.device)
    if data.class_names is not None and not is_token_wise(model):
        class_embeds = embed_classes(model, processor, data.class_names, args.templates, batch_size)
        classified = classify(embedded.image_embeds, embedded.labels, class_embeds, data.class_names)
        results |= {f"zero_shot_{name}": classified[name] for name in ("top1", "top5")}
    return results


def format_results(results: dict[str, float]) -> str:
    """The results of [`evaluate_model`] for people."""
    text = format_table(results)
    if "zero_shot_top1" in results:
        text += "\nzero-shot top-1 {zero_shot_top1:.1f}, top-5 {zero_shot_top5:.1f}".format(**results)
    return text

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a model while it is trained."""

from dataclasses import dataclass, field, replace

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin

from ..data.loading import get_columns, load_split
from ..data.reader import RowReader
from ..evaluation.retrieval import embed_dataset, measure_retrieval
from .arguments import TrainArguments


@dataclass
class EvaluationData:
    """What a training is evaluated on."""

    dataset: Dataset | IterableDataset
    reader: RowReader
    known_images: dict = field(default_factory=dict)  # what a frozen image tower gave for them: see `embed_dataset`


def load_evaluation_data(args: TrainArguments) -> EvaluationData:
    """
    The evaluation data of a training.

    Raises:
        `ValueError`: if a column that is named is not there, or `--metric_for_best_model` cannot be measured.
    """
    source = replace(args, data_files=args.eval_data_files or args.data_files, data_weights=None)
    dataset = load_split(source, args.eval_split, args.max_eval_samples, key_column=args.image_key_column)
    reader = RowReader(get_columns(dataset), args, args, args.image_column)
    kind = (args.metric_for_best_model or "").split("_")[0]
    if kind and not {"short": reader.short_column, "long": reader.has_long_captions}[kind]:
        raise ValueError(
            f"`--metric_for_best_model {args.metric_for_best_model}` cannot be measured: the evaluation data has no "
            f"{kind} captions."
        )
    return EvaluationData(dataset, reader)


def evaluate_model(
    model: PreTrainedModel | None,
    processor: ProcessorMixin,
    data: EvaluationData,
    args: TrainArguments,
    is_alone: bool = False,
) -> dict[str, float]:
    """
    Retrieval, with the keys `short_...` and `long_...`. Every process embeds its share, or the main one all if it has
    the model alone (`is_alone`); it has the results, the others get none.
    """
    if is_alone and not PartialState().is_main_process:
        return {}
    projection = getattr(model, "visual_projection", None)
    has_projection = projection is not None and any(True for _ in projection.parameters())
    embedded = embed_dataset(
        model,
        processor,
        data.dataset,
        data.reader,
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
        is_alone=is_alone,
        known_images=data.known_images if args.freeze_vision_model and not has_projection else None,
    )
    if not PartialState().is_main_process:
        return {}
    # a drawn scene has the short caption of others
    return measure_retrieval(embedded, distinct_short_captions=args.dataset_name is None, device=model.device)

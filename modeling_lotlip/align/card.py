# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What `lotlip align` writes: the model as the sentence-transformers library saves it, its card and its results."""

import tempfile
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from sentence_transformers import SentenceTransformer

from ..data.arguments import describe_split
from ..encoder.loading import find_file
from ..hub import (
    CARD_FILE,
    SENTENCE_TRANSFORMERS_MODULES,
    find_replaced_file,
    format_metrics,
    format_settings,
    replace_model,
    write_eval_results,
)
from ..utils.files import is_same_path, public_name, write_json, write_text
from ..utils.markdown import format_markdown
from ..utils.output_folder import PARTIAL_OF_ALL
from .arguments import AlignArguments
from .features import Features
from .heads import TrainedHeads


RESULTS_FILE = "eval_results.json"
TEMPLATE = Path(__file__).parent / "model_card.md"
UNKNOWN_LICENSE = "not known"


def check_model_dir(args: AlignArguments) -> None:
    """Raises a `ValueError` for a folder that holds files of a model, or one that the run reads."""
    for name in ("text_model_name_or_path", "vision_model_name_or_path", "dataset_name", "data_dir"):
        value = getattr(args, name)
        if value is not None and is_same_path(value, args.output_dir):
            raise ValueError(f"`--output_dir {args.output_dir}` is what `--{name}` reads: name another.")
    replaced = find_replaced_file(args.output_dir)
    if replaced is not None and not args.overwrite_output_dir:
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {replaced}, which the model would replace: name "
            "another, or add `--overwrite_output_dir`."
        )


def describe_alignment(
    args: AlignArguments,
    model: SentenceTransformer,
    features: Features,
    trained_heads: TrainedHeads,
) -> dict[str, object]:
    """
    Returns the settings of a run and what it counted, for the card.

    Args:
        args ([`AlignArguments`]): What was asked for.
        model (`SentenceTransformer`): The model.
        features ([`Features`]): What the heads were trained on.
        trained_heads ([`TrainedHeads`]): The heads.
    """
    settings = {
        "head": args.head,
        "keep": args.keep,
        "captions": " ".join(args.captions),
        "text_prompt": model.prompts.get(model.default_prompt_name) or None,
        "max_length": model.max_seq_length,
        "train_split": args.train_split,
        "split_seed": args.split_seed,
        "num_train_epochs": trained_heads.num_epochs,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        "images": len(features.images),
    }
    if args.caption_files is not None:
        settings["caption_files"] = ", ".join(Path(file).name for file in args.caption_files)
    settings |= features.counts
    return {name: value for name, value in settings.items() if value is not None}


def find_license(name: str) -> str:
    """Returns the license that the card of a model names, by the Hub's identifier, or that it is not known."""
    try:
        file = find_file(name, CARD_FILE)
        if file is None:
            return UNKNOWN_LICENSE
        return ModelCard.load(file).data.get("license") or UNKNOWN_LICENSE
    except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return UNKNOWN_LICENSE


def write_card(
    folder: Path,
    args: AlignArguments,
    settings: dict[str, object],
    results: dict[str, float],
) -> None:
    """
    Writes the model card of a folder, and the results on a dataset of the Hub as the Hub reads them.

    Args:
        folder (`Path`): The folder of the model.
        args ([`AlignArguments`]): What was asked for.
        settings (`dict[str, object]`): What [`describe_alignment`] gives.
        results (`dict[str, float]`): The results on `eval_split`.
    """
    dataset = public_name(args.dataset_title or "drawn scenes")
    split = describe_split(args.eval_split, args.max_eval_samples, args.split_seed)
    names = {"texts": args.text_model_name_or_path, "images": args.vision_model_name_or_path}
    rows = [[role, public_name(name), find_license(name)] for role, name in names.items()]
    card = ModelCard.from_template(
        ModelCardData(
            license="other",
            library_name="sentence-transformers",
            base_model=[name for name in names.values() if not Path(name).exists()] or None,
            pipeline_tag="sentence-similarity",
            tags=["lotlip", "image-text-retrieval", "long-text", "sentence-transformers"],
        ),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=args.output_dir.resolve().name,
        towers=format_markdown(["reads", "encoder", "license"], rows),
        dataset=dataset,
        dataset_split=split,
        settings=format_settings(settings),
        results=format_metrics(results),
        keep=args.keep,
        max_length=settings.get("max_length"),
    )
    write_text(folder / CARD_FILE, card.content)
    write_eval_results(folder, results, dataset, split)


def save_aligned(
    args: AlignArguments, model: SentenceTransformer, settings: dict[str, object], results: dict[str, float]
) -> None:
    """
    Saves a model with all that belongs to it, in place of an earlier one when all files are complete.

    Args:
        args ([`AlignArguments`]): What was asked for.
        model (`SentenceTransformer`): The model.
        settings (`dict[str, object]`): What [`describe_alignment`] gives.
        results (`dict[str, float]`): The results on `eval_split`.

    Raises:
        `OSError`: if it cannot be written.
    """
    folder = args.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(suffix=PARTIAL_OF_ALL, dir=folder) as partial:
        model.save_pretrained(partial, create_model_card=False)
        write_json(Path(partial, RESULTS_FILE), results)
        write_card(Path(partial), args, settings, results)
        replace_model(Path(partial), folder, last=SENTENCE_TRANSFORMERS_MODULES)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What `lotlip align` writes: the model whole, with its code, its card and its results."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoProcessor, ProcessorMixin
from transformers.utils import CONFIG_NAME

from ..data.arguments import describe_split
from ..encoder.preprocessing import Preprocessing
from ..hub import (
    CARD_FILE,
    find_replaced_file,
    format_metrics,
    format_settings,
    replace_model,
    save_processor,
    write_eval_results,
    write_sentence_transformers_files,
)
from ..modeling_aligned_lotlip import LotlipAlignedModel
from ..utils.files import is_same_path, public_name, write_json, write_text
from ..utils.markdown import format_markdown
from ..utils.output_folder import PARTIAL_OF_ALL
from .arguments import AlignArguments
from .features import Features
from .heads import TrainedHeads
from .towers import ImageTower, TextTower, make_processor


RESULTS_FILE = "eval_results.json"
TEMPLATE = Path(__file__).parent / "model_card.md"
UNKNOWN_LICENSE = "not known"
# By which it is seen whether a saved tokenizer still reads as before
CHECKED_TEXTS = (
    "A red boat lies at a pier. The sea is calm.",
    "Caf\u00e9, 3.5 m\u00b2, \u5bbf \u0646\u0645",
)
# The min cosine of a feature of the saved model to that of the tower: devices round in other ways
MIN_COSINE = 0.999


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
    features: Features,
    trained_heads: TrainedHeads,
) -> dict[str, object]:
    """Returns the settings of a run and what it counted, for the card."""
    settings = {
        "head": args.head,
        "keep": args.keep,
        "captions": " ".join(args.captions),
        "text_pooling": args.text_pooling,
        "text_prompt": args.text_prompt,
        "image_pooling": args.image_pooling,
        "max_length": args.max_length,
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


def write_card(
    folder: Path,
    args: AlignArguments,
    towers: tuple[TextTower, ImageTower],
    settings: dict[str, object],
    results: dict[str, float],
) -> None:
    """
    Writes the model card of a folder, and the results on a dataset of the Hub as the Hub reads them.

    Args:
        folder (`Path`): The folder of the model.
        args ([`AlignArguments`]): What was asked for.
        towers (`tuple[TextTower, ImageTower]`): The two towers.
        settings (`dict[str, object]`): What [`describe_alignment`] gives.
        results (`dict[str, float]`): The results on `eval_split`.
    """
    dataset = public_name(args.dataset_title or "drawn scenes")
    split = describe_split(args.eval_split, args.max_eval_samples, args.split_seed)
    title = args.output_dir.resolve().name
    rows = []
    for role, tower in zip(("texts", "images"), towers):
        rows.append([role, public_name(tower.name), tower.license or UNKNOWN_LICENSE])
    card = ModelCard.from_template(
        ModelCardData(
            license="other",
            library_name="transformers",
            base_model=[tower.name for tower in towers if not Path(tower.name).exists()] or None,
            pipeline_tag="zero-shot-image-classification",
            tags=["lotlip", "image-text-retrieval", "long-text", "sentence-transformers"],
        ),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=title,
        towers=format_markdown(["reads", "tower", "license"], rows),
        dataset=dataset,
        dataset_split=split,
        settings=format_settings(settings),
        results=format_metrics(results),
        keep=args.keep,
        max_length=towers[0].tokenizer.model_max_length,
    )
    write_text(folder / CARD_FILE, card.content)
    write_eval_results(folder, results, dataset, split)


def save_aligned(
    args: AlignArguments,
    model: LotlipAlignedModel,
    processor: ProcessorMixin,
    towers: tuple[TextTower, ImageTower],
    settings: dict[str, object],
    results: dict[str, float],
) -> None:
    """
    Saves a model with all that belongs to it, in place of an earlier one when all files are complete.

    Args:
        args ([`AlignArguments`]): What was asked for.
        model ([`LotlipAlignedModel`]): The model.
        processor (`ProcessorMixin`): Its processor.
        towers (`tuple[TextTower, ImageTower]`): What it was made from.
        settings (`dict[str, object]`): What [`describe_alignment`] gives.
        results (`dict[str, float]`): The results on `eval_split`.

    Raises:
        `OSError`: if it cannot be written.
    """
    folder = args.output_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(suffix=PARTIAL_OF_ALL, dir=folder) as partial:
            model.save_pretrained(partial)
            save_processor(processor, partial)
            check_saved(Path(partial), model, towers)
            write_json(Path(partial, RESULTS_FILE), results)
            write_card(Path(partial), args, towers, settings, results)
            write_sentence_transformers_files(Path(partial))
            replace_model(Path(partial), folder, last=CONFIG_NAME)
    except (OSError, SafetensorError) as error:
        raise OSError(f"The model cannot be saved in {folder}: {error}") from error


def check_saved(folder: Path, model: LotlipAlignedModel, towers: tuple[TextTower, ImageTower]) -> None:
    """
    Raises a `ValueError` if what was saved does not read as the towers did: another processor, or other features.

    Args:
        folder (`Path`): The folder of the model.
        model ([`LotlipAlignedModel`]): The model that was saved.
        towers (`tuple[TextTower, ImageTower]`): What it was made from.
    """
    text_tower, image_tower = towers
    saved = Preprocessing(AutoProcessor.from_pretrained(folder))
    used = Preprocessing(make_processor(text_tower, image_tower))
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    text_inputs = used.tokenize(CHECKED_TEXTS).inputs
    image_inputs = used.prepare_images([Image.fromarray(noise)])
    saved_text_inputs = saved.tokenize(CHECKED_TEXTS).inputs
    saved_image_inputs = saved.prepare_images([Image.fromarray(noise)])
    if not torch.equal(saved_text_inputs["input_ids"], text_inputs["input_ids"]):
        raise ValueError(
            f"The tokenizer of {text_tower.name} is another one after it was saved: name another text model."
        )
    if not torch.equal(saved_image_inputs["pixel_values"], image_inputs["pixel_values"]):
        raise ValueError(
            f"The image processor of {image_tower.name} is another one after it was saved: name another image model."
        )
    with torch.inference_mode():
        text_features = model.compute_text_features(**text_inputs).pooler_output
        image_features = model.compute_image_features(**image_inputs).pooler_output
    text_cosines = torch.cosine_similarity(text_features, text_tower.compute(text_inputs))
    image_cosines = torch.cosine_similarity(image_features, image_tower.compute(image_inputs))
    if not torch.cat([text_cosines, image_cosines]).min() >= MIN_COSINE:
        raise ValueError(
            f"The model that was saved does not compute what {text_tower.name} and "
            f"{image_tower.name} compute: name other models."
        )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A trained model in its folder, with a card, and on the Hub."""

import shutil
import tempfile
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import get_available_trackers
from huggingface_hub import HfApi
from safetensors import SafetensorError

from .. import LotlipModel, LotlipProcessor
from ..files import write_json
from ..hub import push_folder, write_model_card
from .arguments import TrainArguments


RESULTS_FILE = "eval_results.json"
BEST_FOLDER = "best"

BIASES_OF_SCENES = (
    "It has seen nothing but drawn scenes, and knows no photographs, no people, and few words. It is for trying out "
    "how such models are trained and used, not for use."
)


def public_name(name: str) -> str:
    """What the model card calls a data set or a model: not by its path on this machine."""
    return Path(name).resolve().name if Path(name).exists() else name


def describe_training(args: TrainArguments) -> dict:
    """What the model card says of a training: arguments of [`write_model_card`]."""
    sources = [args.model_name_or_path, args.vision_model_name_or_path, args.text_model_name_or_path]
    sources = [name for name in sources if name is not None]
    dataset = public_name(args.dataset_name) if args.dataset_name else "drawn scenes"
    start = " and ".join(map(public_name, sources)) or "random weights"
    told = {
        "repo_id": args.hub_model_id or args.output_dir.resolve().name,
        "provenance": f"Trained by `lotlip train` on {dataset}, from {start}, with seed {args.seed}.",
        "license": "other",
        "license_note": "The weights are under the terms of the data and the models that they were trained from.",
        "base_model": [name for name in sources if not Path(name).exists()] or None,
        "dataset": dataset,
        "dataset_split": args.eval_split,
        "settings": args.in_model_card() | {"num_processes": PartialState().num_processes},
        "language": args.language if len(args.language) > 1 else args.language[0],
    }
    if not args.dataset_name and not sources:
        told["biases"] = BIASES_OF_SCENES
    return told


def save_model(
    args: TrainArguments,
    folder: Path,
    model: LotlipModel,
    processor: LotlipProcessor,
    results: dict[str, float] | None = None,
    step: int | None = None,
) -> list[str]:
    """
    Saves the trained model with its code, a model card and its results, with the step of these if it is given;
    complete files take the place of earlier ones.

    Returns:
        `list[str]`: the names of the files.

    Raises:
        `OSError`: if it cannot be written, for instance because the disk is full. Earlier files are as they were.
    """
    partial_dir = (args.output_dir if folder == args.output_dir / BEST_FOLDER else folder) / "model.partial"
    shutil.rmtree(partial_dir, ignore_errors=True)
    try:
        model.save_pretrained(partial_dir)
        processor.save_pretrained(partial_dir)
        write_model_card(partial_dir, results=results, **describe_training(args))
        if results is not None:
            write_json(partial_dir / RESULTS_FILE, results if step is None else {"step": step, **results})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial_dir, ignore_errors=True)  # which makes room for what is smaller
        raise OSError(f"The model cannot be saved in {folder}: {error}") from error
    folder.mkdir(exist_ok=True)
    names = [file.name for file in partial_dir.iterdir()]
    for name in names:
        (partial_dir / name).replace(folder / name)
    partial_dir.rmdir()
    return names


def rescue_model(
    args: TrainArguments,
    model: LotlipModel,
    processor: LotlipProcessor,
    results: dict[str, float],
    checkpoint: Path | None,
    error: OSError,
) -> str:
    """
    Saves what it can of a run whose model cannot be saved in the output folder: the results there, the model in the
    folder of the system for temporary files, which is often on another disk. Checkpoints stay as they are.

    Returns:
        `str`: what went wrong, what was saved and what to do.
    """
    told = f"{error}."
    try:
        write_json(args.output_dir / RESULTS_FILE, results)
    except OSError:
        told += f" Its results are: {results}."
    other = tempfile.gettempdir()
    try:
        folder = Path(tempfile.mkdtemp(prefix="lotlip_"))
        save_model(args, folder, model, processor, results)
        return f"{told} It was saved in {folder}: move it from there."
    except OSError:
        told += f" Nor can it in {other}."
    if checkpoint is None:
        return f"{told} There is no checkpoint (`--checkpointing_steps`): the training is lost."
    return f"{told} {checkpoint} is complete: free disk space, then resume (`--resume_from_checkpoint latest`)."


def push_model(args: TrainArguments, names: list[str]) -> str:
    """Uploads the files of the best model, if one is kept, else of the last; gives the address."""
    folder = args.output_dir / BEST_FOLDER if args.metric_for_best_model is not None else args.output_dir
    return push_folder(folder, args.hub_model_id or args.output_dir.resolve().name, allow_patterns=names)


def check_services(args: TrainArguments) -> None:
    """
    Refuses trackers that are not installed, and a repository that cannot be uploaded to, before anything is done.

    Raises:
        `ValueError`: if a tracker is missing.
        `HfHubHTTPError`: if the Hub refuses, for instance because nobody is logged in (`hf auth login`).
    """
    if args.with_tracking:
        installed = [str(tracker) for tracker in get_available_trackers()]
        if not installed or args.report_to not in ("all", *installed):
            raise ValueError(
                f"`--report_to {args.report_to}` is not installed; installed are {installed}. Install a tracker, such "
                "as `pip install tensorboard`."
            )
    if args.push_to_hub and PartialState().is_main_process:
        HfApi().create_repo(args.hub_model_id or args.output_dir.resolve().name, exist_ok=True)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A trained model in its folder, with a card, and on the Hub."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import get_available_trackers
from huggingface_hub import HfApi
from safetensors import SafetensorError
from transformers import PreTrainedModel, ProcessorMixin

from ..files import write_json
from ..hub import push_folder, write_model_card
from ..output_folder import delete
from .arguments import TrainArguments
from .checkpoints import BEST_FOLDER, RESULTS_FILE


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
    described = {
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
        described["biases"] = BIASES_OF_SCENES
    return described


def is_best(results: dict[str, float], metric: str, folder: Path) -> bool:
    """Whether a result is better than that of the model in a folder, or there is none."""
    path = folder / RESULTS_FILE
    best = json.loads(path.read_text(encoding="utf-8")).get(metric) if path.exists() else None
    if best is None:
        return True
    return results[metric] < best if metric.endswith("median_rank") else results[metric] > best


def save_model(
    args: TrainArguments,
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    results: dict[str, float] | None = None,
    step: int | None = None,
) -> list[str]:
    """
    Saves the trained model with its code, a model card and its results, with the step of these if it is given. Its
    files take the place of earlier ones when all of them are complete.

    Returns:
        `list[str]`: the names of the files.

    Raises:
        `OSError`: if it cannot be written, for instance because the disk is full. Earlier files are as they were.
    """
    partial = folder.parent / f"{folder.name}.0.partial" if folder != args.output_dir else folder / "model.0.partial"
    delete(partial)
    try:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        write_model_card(partial, results=results, **describe_training(args))
        if results is not None:
            write_json(partial / RESULTS_FILE, results if step is None else {"step": step, **results})
    except (OSError, SafetensorError) as error:
        delete(partial)
        raise OSError(f"The model cannot be saved in {folder}: {error}") from error
    folder.mkdir(exist_ok=True)
    names = sorted(file.name for file in partial.iterdir())
    for name in names:
        (partial / name).replace(folder / name)
    partial.rmdir()
    return names


def save_model_somewhere(
    args: TrainArguments, model: PreTrainedModel, processor: ProcessorMixin, results: dict[str, float]
) -> list[str]:
    """
    Saves the trained model in the output folder. If that cannot be written, the model goes to the system's folder for
    temporary files, which is often on another disk.

    Raises:
        `OSError`: if it cannot be written to the output folder; the message says where it is.
    """
    try:
        return save_model(args, args.output_dir, model, processor, results)
    except OSError as error:
        with suppress(OSError):
            write_json(args.output_dir / RESULTS_FILE, results)
        folder = Path(tempfile.mkdtemp(prefix="lotlip_"))
        try:
            save_model(args, folder, model, processor, results)
        except OSError:
            remedy = "free disk space and resume from the last checkpoint, if there is one (`--checkpointing_steps`)."
            raise OSError(f"{error}. Nor can it in {folder}: {remedy}") from error
        raise OSError(f"{error}. It was saved in {folder}: move it from there.") from error


def push_model(args: TrainArguments, names: list[str]) -> str:
    """Uploads the files of the best model, if one is kept, else of the last; gives the address."""
    folder = args.output_dir / BEST_FOLDER if args.metric_for_best_model is not None else args.output_dir
    return push_folder(folder, args.hub_model_id or args.output_dir.resolve().name, allow_patterns=names)


def check_trackers(args: TrainArguments) -> None:
    """Raises a `ValueError` if a tracker is not installed."""
    if args.with_tracking:
        installed = [str(tracker) for tracker in get_available_trackers()]
        if not installed or args.report_to not in ("all", *installed):
            raise ValueError(
                f"`--report_to {args.report_to}` is not installed; installed are {installed}. Install a tracker, such "
                "as `pip install tensorboard`."
            )


def check_repository(args: TrainArguments) -> None:
    """Makes the repository to upload to; an `HfHubHTTPError` says why not, such as without `hf auth login`."""
    if args.push_to_hub and PartialState().is_main_process:
        HfApi().create_repo(args.hub_model_id or args.output_dir.resolve().name, exist_ok=True)

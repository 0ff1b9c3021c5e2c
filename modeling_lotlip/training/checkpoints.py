# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training, and the output folder, which holds those of one run."""

import json
import logging
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils.other import load
from safetensors import SafetensorError
from torch import nn

from ..files import write_json
from ..output_folder import LEFT, atomic_write, delete
from .arguments import CheckpointArguments, TrainArguments
from .processes import fail_together


logger = logging.getLogger(__name__)

STATE_FILE, SETTINGS_FILE, RESULTS_FILE = "training_state.json", "training_args.json", "eval_results.json"

# The folders of the best model and of the trackers' files, and in the latter that of these runs
BEST_FOLDER, LOGGING_FOLDER, RUN_NAME = "best", "logs", "lotlip"

# What a training leaves in its output folder: files by their names, folders by a file in them, since others use their
# names too
OWN_FILES = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|eval_results\.json|not_finite\.json|metrics\.jsonl"
)
OWN_FOLDERS = re.compile(rf"checkpoint-\d+|{BEST_FOLDER}")


@dataclass
class TrainingState:
    """Where a run is, and what it has counted: what a checkpoint holds beside what accelerate saves."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated_step: int = -1
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    # of all processes, the states of `RowCounts`: of rows, and of hard negatives
    counts: dict[str, dict] = field(default_factory=dict)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The complete checkpoints in a folder, the oldest first."""
    checkpoints = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in checkpoints if (path / STATE_FILE).exists()), key=get_step)


def get_step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, state: TrainingState, settings: dict, total_limit: int | None = None
) -> None:
    """
    Saves the state of a run in `checkpoint-STEP`, unless it is there already. The folder gets its name when its files
    are complete and on the disk; only then older ones than `total_limit` asks for are deleted. (accelerate's own
    limit deletes them before, and its `register_for_checkpointing` unpickles whatever a file holds.)

    All processes call this, with a `state` that has the counts of all, and the `settings` that a resumed run shares.

    Raises:
        `OSError`: if it cannot be written, for instance because the disk is full. Earlier ones are as they were.
    """
    checkpoint = output_dir / f"checkpoint-{state.step}"
    partial = output_dir / f"checkpoint-{state.step}.0.partial"
    if checkpoint.exists():
        return
    with fail_together(accelerator):
        if accelerator.is_main_process:
            delete(partial)
    with fail_together(accelerator):
        try:
            accelerator.save_state(str(partial))
        except SafetensorError as error:
            raise OSError(f"{checkpoint} cannot be written: {error}") from error
    with fail_together(accelerator):
        if accelerator.is_main_process:
            write_json(partial / STATE_FILE, {"settings": settings, "progress": asdict(state)})
            with atomic_write(checkpoint) as complete:
                partial.rename(complete)
            if total_limit is not None:
                for path in list_checkpoints(output_dir)[:-total_limit]:
                    delete(path)


def read_state(checkpoint: Path, settings: dict) -> TrainingState:
    """
    The state in a checkpoint.

    Raises:
        `ValueError`: if the checkpoint is of a run with other settings.
    """
    saved = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    for name, value in saved["settings"].items():
        if name in settings and value != settings[name]:
            raise ValueError(
                f"{checkpoint} was written with {name} = {value}, this run has {settings[name]}: it would take other "
                "steps. Start it as the first run was started."
            )
    return TrainingState(**saved["progress"])


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> None:
    """
    Loads what `save_checkpoint` saved by accelerate.

    Raises:
        `pickle.UnpicklingError`: if a file holds more than tensors and numbers, such as code.
    """
    accelerator.load_state(str(checkpoint))
    # accelerate skips random states that it cannot read, and the run would resume with others
    load(checkpoint / f"random_states_{accelerator.process_index}.pkl")


def find_checkpoint(args: CheckpointArguments) -> Path | None:
    """
    The checkpoint to resume from; none for `latest` where there is none yet.

    Raises:
        `ValueError`: if there is none where one is named, or later ones beside it.
    """
    if args.resume_from_checkpoint is None:
        return None
    checkpoints = list_checkpoints(args.output_dir)
    if args.resume_from_checkpoint == "latest":
        if not checkpoints:
            logger.warning(f"There is no checkpoint in {args.output_dir} yet: training starts from the beginning.")
        return checkpoints[-1] if checkpoints else None
    checkpoint = Path(args.resume_from_checkpoint)
    if not (checkpoint / STATE_FILE).exists():
        raise ValueError(
            f"`--resume_from_checkpoint {checkpoint}` is no folder of a checkpoint: name `OUTPUT_DIR/checkpoint-N`, "
            "or `latest`."
        )
    if resumes_in_output_dir(args) and get_step(checkpoints[-1]) > get_step(checkpoint):
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {checkpoints[-1].name}, which is later than "
            f"`--resume_from_checkpoint {checkpoint}`: name another `--output_dir`, or move the later ones away."
        )
    return checkpoint


def resumes_in_output_dir(args: CheckpointArguments) -> bool:
    """Whether the run resumes from its own output folder: it neither starts anew nor from a checkpoint elsewhere."""
    named = args.resume_from_checkpoint
    return named == "latest" or (named is not None and Path(named).resolve().parent == args.output_dir.resolve())


def find_leftovers(output_dir: Path) -> list[Path]:
    """What an earlier run left in the output folder: nothing else in it is ever deleted."""

    def is_own(path: Path) -> bool:
        mark = RESULTS_FILE if path.name == BEST_FOLDER else STATE_FILE
        return bool(OWN_FILES.fullmatch(path.name) or LEFT.fullmatch(path.name)) or (
            OWN_FOLDERS.fullmatch(path.name) is not None and (path / mark).exists()
        )

    logs = output_dir / LOGGING_FOLDER / RUN_NAME
    return sorted(filter(is_own, output_dir.glob("*"))) + [logs] * logs.exists()


def check_output_dir(args: TrainArguments) -> None:
    """
    Refuses to mix a run with an earlier one, or to replace what it starts from.

    Raises:
        `ValueError`: if the folder is the model to train further, holds an earlier run that is neither resumed nor
            replaced, or something that the run reads and would delete.
    """
    leftovers = find_leftovers(args.output_dir)
    is_new = not resumes_in_output_dir(args)
    if leftovers and is_new and not args.overwrite_output_dir:
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {leftovers[0].name} of an earlier run. Resume it "
            "(`--resume_from_checkpoint latest`), replace it (`--overwrite_output_dir`), or name another folder."
        )
    output_dir = args.output_dir.resolve()
    deleted = {path.resolve() for path in leftovers if is_new}
    for name, value in vars(args).items():
        if name.endswith(("name_or_path", "_name", "checkpoint", "data_dir")) and value is not None:
            path = Path(value).resolve()
            if path == output_dir or {path, *path.parents} & deleted:
                raise ValueError(
                    f"`--{name} {value}` would be changed by this run in `--output_dir {args.output_dir}`: name "
                    "another folder."
                )


def check_room(args: CheckpointArguments, model: nn.Module) -> None:
    """
    Compares the disk of the output folder with what a run must write to lose nothing: the model twice, since the new
    one replaces the last when it is complete, and, if there are checkpoints, two of them.

    Raises:
        `ValueError`: if there is not room for them.
    """
    total = sum(tensor.nbytes for tensor in model.state_dict().values())
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    num_checkpoints = 0 if args.checkpointing_steps is None else 2
    needed = 2 * total + num_checkpoints * (total + 2 * trained)  # with the two moments of AdamW
    folder = next(path for path in (args.output_dir.absolute(), *args.output_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"`--output_dir {args.output_dir}` has {free / 1e9:.3g} GB left, but the model"
            + f" and {num_checkpoints} checkpoints" * (num_checkpoints > 0)
            + f" need {needed / 1e9:.3g} GB: make room, or name a folder on another disk."
        )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: saving and loading, stopping a run, and what another run may not overwrite."""

import filecmp
import json
import logging
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from accelerate import Accelerator, PartialState
from accelerate.utils.other import load
from torch.optim.lr_scheduler import LRScheduler

from ..files import write_json
from .arguments import CheckpointArguments, TrainArguments
from .saving import BEST_FOLDER, RESULTS_FILE


logger = logging.getLogger(__name__)

STATE_FILE = "training_state.json"
SETTINGS_FILE = "training_args.json"

# The folder of the trackers' files below the output folder, and in it that of the program's runs
LOGGING_FOLDER, RUN_NAME = "logs", "lotlip"


@dataclass
class TrainingState:
    """
    The progress of a run, and the settings that must be the same when it is resumed.

    Args:
        settings (`dict`):
            What must be the same, as it is in this run.
    """

    settings: dict
    epoch: int = 0
    batch: int = 0
    step: int = 0
    saved_step: int = -1
    evaluated_step: int = -1
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    bad_causes: dict[str, int] = field(default_factory=dict)  # of the samples before this start of the run
    best: dict[str, float] = field(default_factory=dict)  # the best result so far, by the name of its metric

    def is_best(self, results: dict[str, float], metric: str | None, folder: Path) -> bool:
        """Whether a result is better than all before, or the model of the best one is not in its folder."""
        if metric is None:
            return False
        result = results[metric]
        if metric in self.best and folder.exists():
            best = self.best[metric]
            is_better = result < best if metric.endswith("median_rank") else result > best
            if not is_better:
                return False
        self.best = {metric: result}
        return True

    def check_settings(self, settings: dict) -> None:
        """Refuses a checkpoint whose run took other steps."""
        for name, value in settings.items():
            if name in self.settings and value != self.settings[name]:
                raise ValueError(
                    f"The checkpoint was written with {name} = {value}, this run has {self.settings[name]}: it would "
                    "take other steps. Start it as the first run was started."
                )

    def load_state_dict(self, state: dict) -> None:
        self.check_settings(state.pop("settings"))
        for name, value in state.items():
            setattr(self, name, value)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints in a folder, the oldest first; torn ones have other names."""
    checkpoints = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in checkpoints if (path / STATE_FILE).exists()), key=get_step)


def get_step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def save_checkpoint(
    accelerator: Accelerator, args: CheckpointArguments, state: TrainingState, scheduler: LRScheduler
) -> None:
    """
    Saves the whole state, with the best model so far, unless this run saved or loaded this step before. The folder
    gets its name only once its files are complete and on the disk; then older ones than `--checkpoints_total_limit`
    asks for are deleted.
    """
    checkpoint_dir = args.output_dir / f"checkpoint-{state.step}"
    partial_dir = args.output_dir / f"checkpoint-{state.step}.partial"
    replaced_dir = args.output_dir / f"checkpoint-{state.step}.replaced"
    if state.step == state.saved_step:
        return
    state.saved_step = state.step
    if accelerator.is_main_process:
        for path in (partial_dir, replaced_dir):  # of a run that was killed here
            shutil.rmtree(path, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial_dir))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if (args.output_dir / BEST_FOLDER).exists():
            link_folder(args.output_dir / BEST_FOLDER, partial_dir / BEST_FOLDER)
        # not through accelerate, which would unpickle it, and with it whatever code it holds
        write_json(partial_dir / STATE_FILE, {"progress": asdict(state), "scheduler": scheduler.state_dict()})
        for file in (path for path in partial_dir.rglob("*") if path.is_file()):
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        if checkpoint_dir.exists():  # of a run that went on from the same checkpoint before
            checkpoint_dir.rename(replaced_dir)
        partial_dir.rename(checkpoint_dir)
        shutil.rmtree(replaced_dir, ignore_errors=True)
        if args.checkpoints_total_limit is not None:
            earlier = [path for path in list_checkpoints(args.output_dir) if get_step(path) <= state.step]
            for path in earlier[: -args.checkpoints_total_limit]:
                shutil.rmtree(path)
    accelerator.wait_for_everyone()


def read_state(checkpoint: Path) -> dict:
    """The progress and the schedule of a checkpoint."""
    return json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, state: TrainingState, scheduler: LRScheduler) -> None:
    """
    Loads what `save_checkpoint` saved.

    Raises:
        `ValueError`: if it is of another run.
        `pickle.UnpicklingError`: if a file holds more than tensors and numbers, such as code.
    """
    saved = read_state(checkpoint)
    state.load_state_dict(saved["progress"])
    accelerator.load_state(str(checkpoint))
    # accelerate skips random states that it cannot read, and the run would resume with others
    load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
    scheduler.load_state_dict(saved["scheduler"])


def find_checkpoint(args: CheckpointArguments) -> Path | None:
    """The checkpoint to resume from; none for `latest` where there is none yet."""
    if args.resume_from_checkpoint is None:
        return None
    if args.resume_from_checkpoint != "latest":
        if not (Path(args.resume_from_checkpoint) / STATE_FILE).exists():
            raise ValueError(
                f"`--resume_from_checkpoint {args.resume_from_checkpoint}` is no folder of a checkpoint: name "
                "`OUTPUT_DIR/checkpoint-N`, or `latest`."
            )
        return Path(args.resume_from_checkpoint)
    checkpoints = list_checkpoints(args.output_dir)
    if not checkpoints:
        logger.warning(f"There is no checkpoint in {args.output_dir} yet: training starts from the beginning.")
        return None
    return checkpoints[-1]


def link_folder(source: Path, target: Path) -> None:
    """A copy of a folder whose files are the same ones on the disk, if its file system can do that."""

    def link(file: str, copy: str) -> None:
        try:
            os.link(file, copy)
        except OSError:  # no hard links here
            shutil.copy2(file, copy)

    shutil.copytree(source, target, copy_function=link)


def set_aside_later_results(output_dir: Path, checkpoint: Path | None) -> None:
    """
    Renames the checkpoints that an earlier run saved after the one from which this run resumes, and a best model that
    was found later: they do not belong to this run.
    """
    step = read_state(checkpoint)["progress"]["step"] if checkpoint is not None else 0
    for path in list_checkpoints(output_dir):
        if get_step(path) > step:
            set_aside(path, step)
    best = output_dir / BEST_FOLDER
    is_own = checkpoint is not None and (is_of_step(best, step) or have_equal_files(best, checkpoint / BEST_FOLDER))
    if best.exists() and not is_own:
        set_aside(best, step)


def set_aside(path: Path, step: int) -> None:
    """Renames what an earlier run left to a name that is not taken."""
    names = (f"{path.name}.abandoned{f'-{number}' if number > 1 else ''}" for number in count(1))
    abandoned = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.rename(abandoned)
    logger.warning(f"{path} is of the run that is left at step {step}: renamed to {abandoned}.")


def is_of_step(best: Path, step: int) -> bool:
    """Whether a best model is that of a step: found by the evaluation that came after the checkpoint."""
    results = best / RESULTS_FILE
    return results.exists() and json.loads(results.read_text(encoding="utf-8")).get("step") == step


def have_equal_files(folder: Path, other: Path) -> bool:
    """Whether two folders have files of the same names and contents."""
    names = [sorted(path.name for path in place.glob("*")) for place in (folder, other)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(folder, other, names[0], shallow=False)[1:])


def find_leftovers(output_dir: Path) -> list[Path]:
    """
    What an earlier run left in the output folder; nothing else in it is ever touched. A name alone that others use too
    does not tell: a checkpoint has the file of its state, a best model that of its results, and of the trackers' files
    only the folder of this program's runs is taken.
    """
    checkpoint = re.compile(r"checkpoint-\d+(?P<unfinished>\.partial|\.replaced|\.abandoned(-\d+)?)?")
    best = re.compile(rf"{BEST_FOLDER}(\.abandoned(-\d+)?)?")
    weights = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
    names = {"model.partial", RESULTS_FILE, "not_finite.json", "metrics.jsonl", "summary.html"}

    def is_own(path: Path) -> bool:
        if match := checkpoint.fullmatch(path.name):
            return match["unfinished"] is not None or (path / STATE_FILE).exists()
        if best.fullmatch(path.name):
            return (path / RESULTS_FILE).exists()
        return path.name in names or weights.fullmatch(path.name) is not None

    logs = output_dir / LOGGING_FOLDER / RUN_NAME
    return sorted(filter(is_own, output_dir.glob("*"))) + [logs] * logs.exists()


def resumes_in_output_dir(args: CheckpointArguments) -> bool:
    """Whether the run resumes from its own output folder: it neither starts anew nor from a checkpoint elsewhere."""
    checkpoint = args.resume_from_checkpoint
    return checkpoint == "latest" or (
        checkpoint is not None and Path(checkpoint).resolve().parent == args.output_dir.resolve()
    )


def check_output_dir(args: TrainArguments) -> None:
    """Refuses to mix this run with an earlier one."""
    if args.model_name_or_path is not None and Path(args.model_name_or_path).resolve() == args.output_dir.resolve():
        raise ValueError(f"`--output_dir {args.output_dir}` is the model to train further: name another folder.")
    leftovers = find_leftovers(args.output_dir)
    if leftovers and not resumes_in_output_dir(args) and not args.overwrite_output_dir:
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {leftovers[0].name} of an earlier run. Resume it "
            "(`--resume_from_checkpoint latest`), replace it (`--overwrite_output_dir`), or name another folder."
        )


def take_output_dir(args: TrainArguments, checkpoint: Path | None) -> None:
    """
    Makes the output folder this run's: what an earlier one left that is replaced is deleted, what it saved after the
    checkpoint to go on from is set aside, the best model of this checkpoint is put in its place, and the arguments are
    written down.
    """
    if not resumes_in_output_dir(args):
        for path in find_leftovers(args.output_dir):
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
    else:
        set_aside_later_results(args.output_dir, checkpoint)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    best = args.output_dir / BEST_FOLDER
    if checkpoint is not None and (checkpoint / BEST_FOLDER).exists() and not best.exists():
        link_folder(checkpoint / BEST_FOLDER, best)
    write_json(args.output_dir / SETTINGS_FILE, args.to_dict() | {"num_processes": PartialState().num_processes})

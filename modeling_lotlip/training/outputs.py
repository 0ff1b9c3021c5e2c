# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training writes to its output folder, that of one run: checkpoints, measurements, models."""

import json
import logging
import re
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils.other import load
from safetensors import SafetensorError
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import describe_split
from ..hub import (
    EVAL_RESULTS_FILE,
    find_replaced_file,
    push_folder,
    replace_model,
    save_processor,
    write_model_card,
)
from ..utils.files import is_same_path, public_name, write_json, write_text
from ..utils.output_folder import LEFT, PARTIAL_OF_ALL, atomic_write, delete, is_being_written, naming_file
from ..utils.terminal import without_stop
from .arguments import TrainArguments
from .batch import CaptionBatch
from .plan import Plan
from .processes import fail_together
from .samples import SampleCounts


logger = logging.getLogger(__name__)

STATE_FILE = "training_state.json"
RESULTS_FILE = "eval_results.json"
METRICS_FILE = "metrics.jsonl"

# The folders of the best model and of the trackers' files, and in the latter that of these runs
BEST_FOLDER = "best"
LOGGING_FOLDER = "logs"
# By which an error of PyTorch is known as that of a file
OF_A_FILE = re.compile("PytorchStreamWriter|inline_container|unexpected pos|writing file")
RUN_NAME = "lotlip"
# The files of a run by their names; its folders are known by a file in them, since others use their names too
MODEL_FILES = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
RUN_FILES = re.compile(rf"{MODEL_FILES.pattern}|eval_results\.json|metrics\.jsonl")

BIASES_OF_SCENES = "It has seen nothing but drawn scenes: it is for trying out how such models are trained and used."


@dataclass(frozen=True)
class BestModel:
    """
    What the best model so far has reached.

    Args:
        step (`int`): Its step.
        results (`dict[str, float]`): What was measured of it.
        data (`dict[str, int | str]`): What it was measured on, as [`describe_contents`] gives it.
        metric (`str`, *optional*): By which it is the best.
    """

    step: int
    results: dict[str, float]
    data: dict[str, int | str]
    metric: str | None = None


@dataclass
class TrainingState:
    """
    Where a run is, and what it has counted: what a checkpoint holds in addition to what accelerate saves.

    Args:
        epoch (`int`): The index of the epoch.
        batch (`int`): How many batches of the epoch are done.
        step (`int`): How many steps of the optimizer are done, those that were skipped included.
        evaluated_step (`int`): The step of the last evaluation, -1 before the first.
        skipped_steps (`int`): How many steps were left out, because their loss or gradients were not finite.
        skipped_in_a_row (`int`): How many of them were the last ones, without a good step between.
        idle_steps (`int`): How many steps had no gradient.
        counts (`SampleCounts`):
            What became of the rows that all processes have read: in a checkpoint all of them, during a run those
            before its last start.
        best (`BestModel`, *optional*): The best model so far, None before the first evaluation.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    evaluated_step: int = -1
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    idle_steps: int = 0
    counts: SampleCounts = field(default_factory=SampleCounts)
    best: BestModel | None = None


# ---- the folder


def check_room(args: TrainArguments, model: torch.nn.Module) -> None:
    """Raises a `ValueError` if the disk has no room for the model twice, and two checkpoints with AdamW's moments."""
    total_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    trained_bytes = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    needed = 2 * total_bytes
    if args.checkpointing_steps is not None:
        needed += 2 * (total_bytes + 2 * trained_bytes)
    # the folder itself may not be there yet ("x" makes it the first of the parents)
    free = shutil.disk_usage(next(path for path in (args.output_dir / "x").absolute().parents if path.exists())).free
    if needed > free:
        raise ValueError(
            f"`--output_dir {args.output_dir}` has {free / 1e9:.3g} GB left, but the model and "
            f"checkpoints need {needed / 1e9:.3g} GB: make room, or name a folder on another disk."
        )


def resumes_in_output_dir(args: TrainArguments) -> bool:
    """
    Returns whether the run resumes from its own output folder: it neither starts anew, as `latest` does where there is
    no checkpoint yet, nor from a checkpoint elsewhere.
    """
    named = args.resume_from_checkpoint
    if named == "latest":
        return bool(list_checkpoints(args.output_dir))
    return named is not None and is_same_path(Path(named).resolve().parent, args.output_dir)


def delete_leftovers(args: TrainArguments, state: TrainingState) -> None:
    """Deletes what an earlier run left in the output folder, or measured after the state that is resumed from."""
    leftovers = find_leftovers(args)
    if leftovers and args.resume_from_checkpoint is not None:
        names = ", ".join(path.name for path in leftovers)
        logger.warning(f"An earlier run left {names} in {args.output_dir} without a checkpoint: this is deleted.")
    for path in leftovers:
        delete(path)
    drop_later_metrics(args.output_dir, state)


def find_leftovers(args: TrainArguments) -> list[Path]:
    """
    Finds what an earlier run left in the output folder, unless it is resumed: nothing else is ever deleted, and no
    unfinished file that another process still writes.
    """
    if resumes_in_output_dir(args):
        return []
    folder = args.output_dir
    files = [path for path in folder.glob("*") if RUN_FILES.fullmatch(path.name)]
    files += [path for path in folder.glob("*") if LEFT.fullmatch(path.name) and not is_being_written(path)]
    best = [path.parent for path in folder.glob(f"{BEST_FOLDER}/{RESULTS_FILE}")]
    others = [*folder.glob(EVAL_RESULTS_FILE), *folder.glob(f"{LOGGING_FOLDER}/{RUN_NAME}")]
    return [*sorted(files), *list_checkpoints(folder), *best, *others]


def check_output_dir(args: TrainArguments) -> None:
    """
    Raises a `ValueError` for a folder that holds an earlier run, files of the same names as a model's, or what the run
    reads and would replace.
    """
    leftovers = find_leftovers(args)
    if args.resume_from_checkpoint == "latest":  # as a job does that is killed, perhaps before its first checkpoint
        check_no_model(args, leftovers)
    elif leftovers and not args.overwrite_output_dir and not list_checkpoints(args.output_dir):
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {leftovers[0].name} of an earlier run, and no "
            "checkpoint to resume it from: `--overwrite_output_dir`, or name another."
        )
    elif leftovers and not args.overwrite_output_dir:
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {leftovers[0].name} of an earlier run. Resume it "
            "(`--resume_from_checkpoint latest`), `--overwrite_output_dir`, or name another."
        )
    replaced = find_replaced_file(args.output_dir)
    if replaced is not None and not args.overwrite_output_dir and not resumes_in_output_dir(args):
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {replaced}, which the model of this run would "
            "replace: `--overwrite_output_dir`, or name another."
        )
    for name, value in vars(args).items():
        if value is None or not name.endswith(("name_or_path", "_name", "checkpoint", "data_dir")):
            continue
        if is_same_path(value, args.output_dir) or any(is_within(value, path) for path in leftovers):
            raise ValueError(
                f"`--{name} {value}` would be changed by this run in `--output_dir {args.output_dir}`: "
                "name another folder."
            )


def check_no_model(args: TrainArguments, leftovers: list[Path]) -> None:
    """Raises a `ValueError` if a finished model is among what an earlier run left, and would be replaced."""
    models = [path for path in leftovers if MODEL_FILES.fullmatch(path.name)]
    if models:
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {models[0].name} of an earlier run, but no "
            "checkpoint to resume it from. To train anew there, give `--overwrite_output_dir` in "
            "place of `--resume_from_checkpoint`; or name another."
        )


def is_within(path: str | Path, folder: Path) -> bool:
    """Returns whether a path is that of a folder, or of something in it."""
    path = Path(path).resolve()
    return any(is_same_path(parent, folder) for parent in (path, *path.parents))


# ---- checkpoints


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Lists the complete checkpoints in a folder, the oldest first."""
    checkpoints = [path.parent for path in output_dir.glob(f"checkpoint-*/{STATE_FILE}")]
    by_step = []
    for path in checkpoints:
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal():  # not of one that is unfinished
            by_step.append((int(step), path))
    return [path for _, path in sorted(by_step)]


def find_checkpoint(args: TrainArguments) -> Path | None:
    """Finds the checkpoint to resume from, none for `latest` where there is none yet; there may be no later ones."""
    if args.resume_from_checkpoint is None:
        return None
    checkpoints = list_checkpoints(args.output_dir)
    if args.resume_from_checkpoint == "latest":
        if not checkpoints:
            logger.warning(f"There is no checkpoint in {args.output_dir} yet: training starts from the beginning.")
            return None
        return checkpoints[-1]
    checkpoint = Path(args.resume_from_checkpoint)
    if not (checkpoint / STATE_FILE).exists():
        raise ValueError(
            f"`--resume_from_checkpoint {checkpoint}` is no folder of a checkpoint: name "
            "`OUTPUT_DIR/checkpoint-N`, or `latest`."
        )
    if not resumes_in_output_dir(args):
        return checkpoint
    if not any(is_same_path(checkpoint, other) for other in checkpoints):
        raise ValueError(
            f"`--resume_from_checkpoint {checkpoint}` has another name than a run gives its "
            "checkpoints: name it `checkpoint-N` again, N the step, or move it to another folder."
        )
    if not is_same_path(checkpoint, checkpoints[-1]):
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {checkpoints[-1].name}, which is later than "
            f"`--resume_from_checkpoint {checkpoint}`: name another `--output_dir`, or move the "
            "later ones away."
        )
    return checkpoint


def check_latest(args: TrainArguments, checkpoint: Path | None) -> None:
    """Raises a `ValueError` if a checkpoint is not the last one of the output folder any more."""
    checkpoints = list_checkpoints(args.output_dir)
    if not checkpoints or not resumes_in_output_dir(args):
        return
    if checkpoint is None or not checkpoints[-1].samefile(checkpoint):
        raise ValueError(
            f"`--output_dir {args.output_dir}` holds {checkpoints[-1].name}, which was not there "
            "when this run began: another run has written it. Start this one again."
        )


def save_checkpoint(
    accelerator: Accelerator,
    output_dir: Path,
    state: TrainingState,
    settings: dict,
    total_limit: int | None = None,
) -> None:
    """
    Saves the state of a run in `checkpoint-STEP`, unless it is there already. The folder gets its name when its files
    are complete, then older ones than `total_limit` are deleted (accelerate's own limit deletes them before, and what
    is registered there is unpickled). All processes call this.

    Args:
        accelerator (`Accelerator`): The processes.
        output_dir (`Path`): The folder of the run.
        state (`TrainingState`): Where it is.
        settings (`dict`): What a resumed run must have in common with it.
        total_limit (`int`, *optional*): The checkpoints that are kept.
    """
    checkpoint = output_dir / f"checkpoint-{state.step}"
    partial = checkpoint.with_name(f"{checkpoint.name}{PARTIAL_OF_ALL}")
    if checkpoint.exists():
        return
    try:
        with fail_together(accelerator):
            write_state(accelerator, partial, checkpoint.name)
        with fail_together(accelerator):
            if accelerator.is_main_process:
                progress = vars(state) | {"counts": state.counts.state_dict()}
                if state.best is not None:
                    progress["best"] = asdict(state.best)
                write_json(partial / STATE_FILE, {"settings": settings, "progress": progress})
                with atomic_write(checkpoint) as complete:
                    partial.rename(complete)
                if total_limit is not None:
                    for path in list_checkpoints(output_dir)[:-total_limit]:
                        delete(path)
    except (OSError, ValueError):
        if accelerator.is_main_process:  # of a full disk it would take what is left
            shutil.rmtree(partial, ignore_errors=True)
        raise


def write_state(accelerator: Accelerator, folder: Path, name: str) -> None:
    """
    Writes the state of all processes to a folder, which messages call by another name. Raises an `OSError`
    that says how much room there is if the files cannot be written.
    """
    try:
        accelerator.save_state(str(folder))
    except (SafetensorError, RuntimeError) as error:
        # PyTorch does not say that a disk is full, but which part of it was writing
        if isinstance(error, RuntimeError) and not OF_A_FILE.search(str(error)):
            raise
        free = shutil.disk_usage(folder.parent).free
        raise OSError(
            f"{folder.parent / name} cannot be written, with {free / 1e6:,.1f} MB left there: {error}"
        ) from error


def read_state(checkpoint: Path, settings: dict) -> TrainingState:
    """Reads the state in a checkpoint. Raises a `ValueError` if its run had other settings."""
    saved = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    settings = json.loads(json.dumps(settings))  # which has no tuples, as the file has none
    for name, value in saved["settings"].items():
        if name == "data" and name in settings and value != settings[name]:
            raise ValueError(
                f"{checkpoint} was written with other data than this run reads: {value}, not "
                f"{settings[name]}. It would go on with other rows: give it the files and captions "
                "of the first run, or train its model further in another `--output_dir`."
            )
        if name == "architecture" and name in settings:
            check_architecture(checkpoint, value, settings[name])
        if name in settings and value != settings[name]:
            raise ValueError(
                f"{checkpoint} was written with {name} = {value}, this run has {settings[name]}: it "
                "would take other steps. Start it as the first run was started."
            )
    progress = saved["progress"]
    progress["counts"] = SampleCounts.from_state_dict(progress["counts"])
    if progress.get("best") is not None:
        progress["best"] = BestModel(**progress["best"])
    return TrainingState(**progress)


def check_architecture(checkpoint: Path, saved: dict, given: dict) -> None:
    """Raises a `ValueError` that names the first field in which a checkpoint's model differs from that of this run."""
    saved = flatten_fields(saved)
    given = flatten_fields(given)
    for name in sorted(saved.keys() | given.keys()):
        if saved.get(name) != given.get(name):
            raise ValueError(
                f"{checkpoint} was written by a model with {name} = "
                f"{saved.get(name, 'its default')}, and that of this run has "
                f"{given.get(name, 'its default')}: give it the model or `--config_name` of the "
                "first run, or train this one in another `--output_dir` from the start."
            )


def flatten_fields(fields: dict, prefix: str = "") -> dict[str, object]:
    """Returns the fields of dictionaries within dictionaries by names such as `config.text_config.hidden_size`."""
    flat = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= flatten_fields(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> None:
    """Loads what accelerate saved. Raises a `pickle.UnpicklingError` if a file holds code."""
    accelerator.load_state(str(checkpoint))
    # accelerate skips random states that it cannot read, and the run would resume with others
    load(checkpoint / f"random_states_{accelerator.process_index}.pkl")


# ---- measurements


def log(values: dict[str, float], step: int, output_dir: Path, accelerator: Accelerator) -> None:
    """
    Writes measurements as a line of `metrics.jsonl` in the output folder, and sends them to the trackers.

    Args:
        values (`dict[str, float]`): The measurements by name.
        step (`int`): The step that they are of.
        output_dir (`Path`): The folder.
        accelerator (`Accelerator`): The processes, of which the main one writes.
    """
    if accelerator.is_main_process:
        path = output_dir / METRICS_FILE
        with naming_file(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
    with naming_file(output_dir / LOGGING_FOLDER):
        accelerator.log(values, step=step)


def read_metrics(path: Path) -> list[dict]:
    """Reads the rows of `metrics.jsonl`; a last line that a killed run left unfinished is passed over."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def drop_later_metrics(output_dir: Path, state: TrainingState) -> None:
    """Drops what an earlier run measured after the state from which this run resumes."""
    rows = read_metrics(output_dir / METRICS_FILE)
    kept = []
    for row in rows:
        # a row without a loss is of an evaluation, repeated if it came after the checkpoint
        last_step = state.step if "loss" in row else state.evaluated_step
        if row["step"] <= last_step:
            kept.append(json.dumps(row) + "\n")
    write_text(output_dir / METRICS_FILE, "".join(kept))


class Throughput:
    """The images and tokens that all processes get through in a second."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Begins to count and to measure the time anew."""
        self.done = torch.zeros(2)  # images, tokens
        self.start = time.perf_counter()

    def count(self, batch: CaptionBatch) -> None:
        """Counts the images of a batch (rows, ...) that have captions, and its tokens."""
        self.done += torch.stack([batch.has_captions.sum(), batch.num_tokens])

    def measure(self, accelerator: Accelerator) -> dict[str, float]:
        """Rates since the last call, which every process must make."""
        rates = (self.done / (time.perf_counter() - self.start)).to(accelerator.device)
        self.restart()
        return dict(zip(("images_per_second", "tokens_per_second"), accelerator.reduce(rates, "sum").tolist()))


# ---- models


def name_repository(args: TrainArguments) -> str:
    """Returns the name of the repository on the Hub: by default that of the output folder."""
    return args.hub_model_id or args.output_dir.resolve().name


def describe_training(args: TrainArguments, plan: Plan) -> dict:
    """Returns what the model card says of a training: arguments of [`write_model_card`]."""

    sources = [args.model_name_or_path, args.vision_model_name_or_path, args.text_model_name_or_path]
    sources = [name for name in sources if name is not None]
    dataset = public_name(args.dataset_title or "drawn scenes")
    evaluated_dataset = public_name(args.name_files(args.eval_data_files or args.data_files) or "drawn scenes")
    start = " and ".join(map(public_name, sources)) or "random weights"
    return {
        "repo_id": name_repository(args),
        "provenance": f"Trained by `lotlip train` on {dataset}, from {start}, with seed {args.seed}.",
        "license_note": "The weights are under the terms of the data and the models that they were trained from.",
        "base_model": [name for name in sources if not Path(name).exists()] or None,
        "dataset": evaluated_dataset,
        "dataset_split": describe_split(args.eval_split, args.max_eval_samples, args.split_seed),
        "settings": plan.in_model_card(args),
        "language": args.language if len(args.language) > 1 else args.language[0],
        "biases": None if args.dataset_name or sources else BIASES_OF_SCENES,
    }


def is_best(results: dict[str, float], metric: str, best: BestModel | None) -> bool:
    """
    Returns whether a result is better than that of the best model so far, or there is none, or fewer images of the
    same data could be read. Raises a `ValueError` if the metric was not measured, since a column of captions may have
    none.
    """
    if metric not in results:
        raise ValueError(
            f"`--metric_for_best_model {metric}` cannot be measured: no readable image of the "
            f"evaluation data has a {metric.split('_')[0]} caption."
        )
    if best is None:
        return True
    sizes = [f"{metric.split('_')[0]}_num_{what}" for what in ("images", "captions")]
    if metric not in best.results or any(best.results.get(size) != results.get(size) for size in sizes):
        return True
    if metric.endswith("median_rank"):
        return results[metric] < best.results[metric]
    return results[metric] > best.results[metric]


def read_best(folder: Path) -> BestModel | None:
    """Reads what the best model in a folder has reached, None if there is none."""
    path = folder / RESULTS_FILE
    if not path.exists():
        return None
    results = json.loads(path.read_text(encoding="utf-8"))
    # one of which these are unknown is compared with none
    step = results.pop("num_steps", 0)
    data = results.pop("evaluation_data", {})
    metric = results.pop("metric_for_best_model", None)
    return BestModel(step, results, data, metric)


def find_best(args: TrainArguments, state: TrainingState, data: dict[str, int | str]) -> BestModel | None:
    """
    Finds the best model so far of a run that resumes: that of the checkpoint, or one that was saved in the output
    folder after it. One that was measured on other data, or is the best by another metric, is not compared with: a
    warning says so, and one says where the best model is in another folder.

    Args:
        args (`TrainArguments`): The arguments.
        state (`TrainingState`): Where the run begins.
        data (`dict[str, int | str]`): What it evaluates on, as [`describe_contents`] gives it.
    """
    metric = args.metric_for_best_model
    folder = args.output_dir / BEST_FOLDER
    saved = None
    if resumes_in_output_dir(args):
        saved = read_best(folder)
    found = [best for best in (saved, state.best) if best is not None]
    comparable = [best for best in found if best.data == data and best.metric == metric]
    if found and not comparable:
        logger.warning(
            "The best model so far was measured on other data than this run evaluates, or is the best by another "
            f"metric than `{metric}`: it is not compared, and the first one that this run evaluates is saved in "
            f"{folder}."
        )
    best = None
    for candidate in comparable:
        if is_best(candidate.results, metric, best):
            best = candidate
    if best is not None and best is not saved:
        logger.warning(
            f"The best model so far, of step {best.step} with {metric} {best.results[metric]:.4g}, "
            f"is not in {folder}, but in the folder of an earlier run: only a better one is saved here."
        )
    return best


def save_model(
    args: TrainArguments,
    plan: Plan,
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    best: BestModel | None = None,
) -> None:
    """
    Saves the trained model with its code, a model card and what it has reached, in place of earlier files when all are
    complete.

    Args:
        args (`TrainArguments`): The arguments of the training.
        plan (`Plan`): What they leave open.
        folder (`Path`): Where to save.
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.
        best (`BestModel`, *optional*): What it has reached, if it is the best one.

    Raises:
        `OSError`: if it cannot be written.
    """
    parent = folder if folder == args.output_dir else folder.parent
    try:
        with tempfile.TemporaryDirectory(suffix=PARTIAL_OF_ALL, dir=parent) as partial:
            model.save_pretrained(partial)
            save_processor(processor, partial)
            results = None
            if best is not None:
                results = {"num_steps": best.step, **best.results}
            save_results(args, plan, Path(partial), results)
            if best is not None:
                about = {"evaluation_data": best.data, "metric_for_best_model": best.metric}
                write_json(Path(partial, RESULTS_FILE), {**results, **about})
            folder.mkdir(exist_ok=True)
            replace_model(Path(partial), folder, last=RESULTS_FILE)
    except (OSError, SafetensorError) as error:
        raise OSError(f"The model cannot be saved in {folder}: {error}") from error


def save_last_model(
    args: TrainArguments,
    plan: Plan,
    model: PreTrainedModel,
    processor: ProcessorMixin,
) -> None:
    """
    Saves it in the output folder. If that fails, in the folder for temporary files, and an `OSError` says so.

    Args:
        args (`TrainArguments`): The arguments of the training.
        plan (`Plan`): What they leave open.
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its processor.
    """
    try:
        delete(args.output_dir / RESULTS_FILE)  # of a run that is lengthened
        delete(args.output_dir / EVAL_RESULTS_FILE)
        save_model(args, plan, args.output_dir, model, processor)
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="lotlip_"))
        save_model(args, plan, folder, model, processor)
        raise OSError(f"{without_stop(error)}. It was saved in {folder}: move it from there.") from error


def save_results(args: TrainArguments, plan: Plan, folder: Path, results: dict | None) -> None:
    """
    Writes results, if there are any, with a saved model, and its model card.

    Args:
        args (`TrainArguments`): The arguments of the training.
        plan (`Plan`): What they leave open.
        folder (`Path`): The folder of the model.
        results (`dict`, *optional*): What was measured.
    """
    if results is not None:
        write_json(folder / RESULTS_FILE, results)
    write_model_card(folder, results=results, **describe_training(args, plan))


def push_model(args: TrainArguments) -> str:
    """
    Uploads the best model, if one is kept, else the last; gives the address. Raises a `ValueError` if the best one is
    in the folder of the run that was resumed.
    """
    folder = args.output_dir
    if args.metric_for_best_model is not None:
        folder = folder / BEST_FOLDER
        if not (folder / RESULTS_FILE).exists():
            raise ValueError(
                f"Nothing is uploaded: no model was better than the best one of an earlier run, which is not in "
                f"{folder}. Upload it from its folder by `lotlip push`."
            )
    return push_folder(folder, name_repository(args))

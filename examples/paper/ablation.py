# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The questions of the paper, answered by trainings: a grid of settings, each trained and evaluated with several seeds.

    python examples/paper/ablation.py --output_dir outputs/ablation --groups corners captions --seeds 0 1 2
    python examples/paper/ablation.py --output_dir outputs/mine --dataset_name imagefolder --data_dir FOLDER \
        --train_split "train[:90%]" --eval_split "train[90%:]" --split_seed 0

Arguments that are not listed below go to `lotlip train`, for every cell. A cell is a setting with a seed; it is run
once, however many groups it is in. If you start the script again, it resumes stopped cells and skips finished ones;
you can name other groups and seeds then. The output folder gets the tables (`results.md`, `.csv`, `.json`), a
picture of each group, and in `cells` the trained models.
"""

import argparse
import fcntl
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch

from modeling_lotlip import LotlipConfig
from modeling_lotlip.arguments import Arguments, argument, exit_on_error
from modeling_lotlip.benchmarking.flops import build_meta_model, count_text_flops
from modeling_lotlip.files import format_markdown, write_csv, write_json, write_text
from modeling_lotlip.signals import StopSignal
from modeling_lotlip.training.checkpoints import SETTINGS_FILE, list_checkpoints
from modeling_lotlip.training.monitoring import METRICS_FILE, read_metrics
from modeling_lotlip.training.saving import RESULTS_FILE


Options = dict[str, int | float | str | bool | tuple[int, ...]]


@dataclass(frozen=True)
class Group:
    """
    Settings that are compared with each other.

    Args:
        question (`str`):
            The title of the table.
        settings (`dict[str, dict]`):
            By name, the arguments of `lotlip train` in which they differ; True for one without a value, a tuple for
            one with several. Equal arguments are the same setting in all groups.
        is_against_flops (`bool`, *optional*, defaults to `False`):
            Whether to show the results against the operations of the text tower for a text of the token limit.
        is_timed (`bool`, *optional*, defaults to `False`):
            Whether to show how many images a second were trained on.
    """

    question: str
    settings: dict[str, Options]
    is_against_flops: bool = False
    is_timed: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# The grid

LOTLIP = {"num_corner_tokens": 2}  # short and long captions, all sub-captions, 126 tokens
NO_CORNERS = {"num_corner_tokens": 0}
SHORT_ONLY = NO_CORNERS | {"num_long_captions": 0}

GROUPS = {
    "corners": Group(
        "Number of corner tokens (the paper's Table 3)",
        {
            "0": NO_CORNERS,
            "1": {"num_corner_tokens": 1},
            "2": LOTLIP,
            "2, no mask": LOTLIP | {"no_corner_attention_mask": True},  # register tokens
            "3": {"num_corner_tokens": 3},
            "4": {"num_corner_tokens": 4},
        },
    ),
    "captions": Group(
        "Captions trained on (the paper's Table 2)",
        {
            "short": SHORT_ONLY,
            "long": NO_CORNERS | {"short_captions": "none"},
            "both": NO_CORNERS,
            "both, corners": LOTLIP,
        },
    ),
    "sub_captions": Group(
        "Sub-captions of a long caption (the paper's Figure 2)",
        {
            "0": SHORT_ONLY,
            **{str(number): LOTLIP | {"num_sub_captions": number} for number in (1, 2, 3, 5)},
            "all": LOTLIP,
        },
    ),
    "max_length": Group(
        "Tokens of a text (the paper's Figure 4)",
        {
            **{str(number): LOTLIP | {"max_length": number} for number in (16, 32, 64, 96)},
            "126": LOTLIP,
        },
        is_against_flops=True,
    ),
    "objectives": Group(
        "Objectives, on short captions alone and on both",
        {
            "CLIP, short": {"objective": "clip"},
            "CLIP, both": {"objective": "clip", "num_long_captions": 1},
            "LaCLIP, one of all": {"objective": "laclip"},
            "SigLIP, short": {"objective": "siglip"},
            "SigLIP, both": {"objective": "siglip", "num_long_captions": 1},
            "FILIP, short": {"objective": "filip"},
            "FILIP, both": {"objective": "filip", "num_long_captions": 1},
            "Long-CLIP": {"objective": "long_clip"},
            "DeBias-CLIP": {"objective": "debias"},
            "LoTLIP": LOTLIP,
        },
    ),
    "hard_negatives": Group(
        "Long captions with a false detail, as further negatives",
        {"0": LOTLIP} | {str(number): LOTLIP | {"hard_negatives": number} for number in (1, 2)},
    ),
    "matryoshka": Group(
        "Embeddings whose first numbers are trained to be embeddings too",
        {"whole": LOTLIP, "64, 32, 16, 8": LOTLIP | {"matryoshka_dims": (64, 32, 16, 8)}},
    ),
    "patch_dropout": Group(
        "Share of an image's patches that training leaves out",
        {"0": LOTLIP} | {str(share): LOTLIP | {"patch_dropout": share} for share in (0.25, 0.5)},
        is_timed=True,
    ),
}

# What the tables and pictures show of `eval_results.json`; results.json has all of it.
METRICS = {
    "long_i2t_recall@1": "long I2T R@1",
    "long_t2i_recall@1": "long T2I R@1",
    "short_i2t_recall@1": "short I2T R@1",
    "short_t2i_recall@1": "short T2I R@1",
    "zero_shot_top1": "zero-shot top-1",
}

TRAINING_PROGRAM = ("-m", "lotlip", "train")
LOG_FILE = "train.log"
NUM_LOG_LINES = 15
POLL_SECONDS = 0.1


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


@dataclass
class AblationArguments(Arguments):
    """
    What is trained, and where.

    Args:
        output_dir (`Path`):
            The folder of cells, tables and pictures.
        groups (`list[str]`):
            What is compared: names of `GROUPS`.
        seeds (`list[int]`):
            The seeds of every setting.
        num_parallel (`int`):
            Cells at a time.
        dry_run (`bool`):
            Whether to print the commands only.
        train_args (`list[str]`):
            Words of the command line of `lotlip train`, for every cell.
    """

    output_dir: Path
    groups: list[str]
    seeds: list[int]
    num_parallel: int = argument(1, least=1)
    dry_run: bool = False
    train_args: list[str] = argument([])

    def __post_init__(self):
        super().__post_init__()
        self.groups, self.seeds = list(dict.fromkeys(self.groups)), list(dict.fromkeys(self.seeds))
        own = {"--seed", "--overwrite_output_dir", "--resume_from_checkpoint"}
        own |= {
            f"--{name}" for group in self.groups for options in GROUPS[group].settings.values() for name in options
        }
        taken = sorted(own & {word.split("=")[0] for word in self.train_args})
        if taken:
            raise ValueError(f"{', '.join(taken)}: this script sets it for every cell. Leave it out.")


# ---------------------------------------------------------------------------------------------------------------------
# Cells


@dataclass(frozen=True)
class Cell:
    """
    A setting with a seed, known by its arguments: `lotlip train` is run once for each.

    Args:
        name (`str`):
            The name of its folder.
        words (`tuple[str, ...]`):
            Its own part of the command line.
    """

    name: str
    words: tuple[str, ...]


def make_cell(options: Options, seed: int) -> Cell:
    """
    The cell of a setting and a seed.

    ```python
    >>> from examples.paper.ablation import make_cell

    >>> cell = make_cell({"num_corner_tokens": 2, "no_corner_attention_mask": True}, seed=1)
    >>> cell.name
    'no_corner_attention_mask,num_corner_tokens=2,seed=1'
    >>> " ".join(cell.words)
    '--no_corner_attention_mask --num_corner_tokens 2 --seed 1'
    >>> make_cell({"matryoshka_dims": (16, 8)}, seed=1).name
    'matryoshka_dims=16-8,seed=1'
    ```"""
    names, words = [], []
    for option, value in [*sorted(options.items()), ("seed", seed)]:
        values = [str(part) for part in (value if isinstance(value, tuple) else (value,)) if part is not True]
        names.append(f"{option}={'-'.join(values)}" if values else option)
        words += [f"--{option}", *values]
    return Cell(",".join(names), tuple(words))


def get_folder(cell: Cell, output_dir: Path) -> Path:
    """Where a cell is trained."""
    return output_dir / "cells" / cell.name


def list_cells(groups: list[str], seeds: list[int]) -> list[Cell]:
    """All cells of some groups, each once; those of the first seed come first, so that early tables are complete."""
    return list(
        dict.fromkeys(
            make_cell(options, seed) for seed in seeds for name in groups for options in GROUPS[name].settings.values()
        )
    )


def build_command(cell: Cell, output_dir: Path, train_args: list[str]) -> list[str]:
    """The command that trains and evaluates a cell, or resumes it if it has a checkpoint."""
    folder = get_folder(cell, output_dir)
    is_resumed = bool(list_checkpoints(folder))
    start = ["--resume_from_checkpoint", "latest"] if is_resumed else ["--overwrite_output_dir"]
    return [sys.executable, *TRAINING_PROGRAM, *train_args, *cell.words, "--output_dir", str(folder), *start]


def build_environment(slot: int, num_parallel: int) -> dict[str, str]:
    """
    The environment of a cell that shares the machine with others: the training script divides the cores by
    `LOCAL_WORLD_SIZE`, and of several GPUs every cell gets one.
    """
    environment = os.environ | {"LOCAL_WORLD_SIZE": str(num_parallel)}
    if torch.cuda.device_count() > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment


class Run:
    """
    The process of a cell, in a group of its own: signals reach it only from here. It holds a lock of its log, which no
    other process that would run the cell gets, also if this one has ended before it.

    Args:
        cell (`Cell`):
            The cell.
        args (`AblationArguments`):
            The arguments of the script.
        slot (`int`):
            Which of the places for parallel cells it takes.

    Raises:
        `BlockingIOError`: if another process runs the cell.
    """

    def __init__(self, cell: Cell, args: AblationArguments, slot: int):
        self.cell, self.slot, self.start = cell, slot, time.monotonic()
        self.folder = get_folder(cell, args.output_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOG_FILE, "a") as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            command = build_command(cell, args.output_dir, args.train_args)
            log.write(f"{shlex.join(command)}\n")
            log.flush()
            self.process = subprocess.Popen(
                command,
                env=build_environment(slot, args.num_parallel),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def describe_failure(self) -> str:
        """How it ended, and the last lines of its log."""
        code = self.process.returncode
        ending = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        path = self.folder / LOG_FILE
        lines = path.read_bytes().decode(errors="replace").rstrip().split("\n")[-NUM_LOG_LINES:]
        end = "\n".join("    " + line.rsplit("\r", 1)[-1] for line in lines)  # of a progress bar, its last state
        return f"{self.cell.name} {ending}. The end of {path}:\n{end}"


def read_results(cell: Cell, output_dir: Path) -> dict[str, float] | None:
    """The results of a cell; None if it is not done."""
    path = get_folder(cell, output_dir) / RESULTS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run_cells(cells: list[Cell], args: AblationArguments) -> tuple[list[str], int]:
    """
    Runs the cells that are not done, `args.num_parallel` at a time.

    A cell that fails does not stop the others. At SIGINT or SIGTERM the running cells end with a checkpoint; at a
    second one they are killed.

    Args:
        cells (`list[Cell]`):
            The cells.
        args (`AblationArguments`):
            The arguments of the script.

    Returns:
        `tuple[list[str], int]`: the names of cells that failed, and the number of the signal, 0 if there was none.
    """
    waiting = deque(cell for cell in cells if read_results(cell, args.output_dir) is None)
    num_done, num_cells = len(cells) - len(waiting), len(cells)
    print(f"{num_cells} cells, {num_done} of them done before.", flush=True)
    failed, running, free = [], [], deque(range(args.num_parallel))
    with StopSignal() as stop:
        try:
            is_stopping = False
            while running or (waiting and not stop.number):
                while waiting and free and not stop.number:
                    cell = waiting.popleft()
                    try:
                        running.append(Run(cell, args, free[0]))
                        free.popleft()
                    except BlockingIOError:
                        failed.append(cell.name)
                        print(f"{cell.name} is being run by another process: left to it.", flush=True)
                if stop.number and not is_stopping:
                    is_stopping = True
                    for run in running:
                        run.signal(signal.SIGTERM)
                time.sleep(POLL_SECONDS)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    free.append(run.slot)
                    results = read_results(run.cell, args.output_dir)
                    if run.process.returncode == 0 and results is not None:
                        num_done += 1
                        seconds = time.monotonic() - run.start
                        told = ", ".join(f"{METRICS[name]} {results[name]:.1f}" for name in METRICS if name in results)
                        print(f"[{num_done}/{num_cells}] {run.cell.name}: {told} ({seconds:.0f} s)", flush=True)
                    elif not is_stopping:
                        failed.append(run.cell.name)
                        print(run.describe_failure(), flush=True)
        finally:
            for run in running:
                run.signal(signal.SIGKILL)
    return failed, stop.number


# ---------------------------------------------------------------------------------------------------------------------
# Tables and pictures


def summarize(values: list[float]) -> dict:
    """
    Mean and deviation of a result over the seeds: the square root of the unbiased variance, None for a single seed.

    ```python
    >>> from examples.paper.ablation import summarize

    >>> summarize([1.0, 2.0, 6.0])
    {'mean': 3.0, 'deviation': 2.6457513110645907, 'values': [1.0, 2.0, 6.0]}
    ```"""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": values}


def count_cell_flops(cell: Cell, output_dir: Path) -> int:
    """Operations of the text tower of a trained model for a text of as many tokens as it takes, without corners."""
    folder = get_folder(cell, output_dir)
    max_length = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["max_length"]
    return count_text_flops(build_meta_model(LotlipConfig.from_pretrained(folder)), max_length)


def measure_speed(cell: Cell, output_dir: Path) -> float:
    """How many images a second a cell was trained on: the median of what it measured."""
    rows = read_metrics(get_folder(cell, output_dir) / METRICS_FILE)
    return statistics.median(row["images_per_second"] for row in rows if "images_per_second" in row)


def collect(groups: list[str], seeds: list[int], output_dir: Path) -> dict[str, dict]:
    """
    The results of the cells that are done.

    Args:
        groups (`list[str]`):
            The groups.
        seeds (`list[int]`):
            The seeds.
        output_dir (`Path`):
            The output folder.

    Returns:
        `dict[str, dict]`: for every group the rows by the names of its settings, each with its `options`, the `seeds`
        that are done, the `text_flops` in a group against them, the `images_per_second` in a timed one, and `results`:
        of each result the `mean`, the `deviation` and the `values` in the order of the seeds.
    """
    tables = {}
    for name in groups:
        tables[name] = {}
        for setting, options in GROUPS[name].settings.items():
            done = {seed: read_results(make_cell(options, seed), output_dir) for seed in seeds}
            done = {seed: results for seed, results in done.items() if results is not None}
            row = {"options": options, "seeds": list(done)}
            if done and GROUPS[name].is_timed:
                row["images_per_second"] = summarize(
                    [measure_speed(make_cell(options, seed), output_dir) for seed in done]
                )
            if done and GROUPS[name].is_against_flops:
                row["text_flops"] = count_cell_flops(make_cell(options, row["seeds"][0]), output_dir)
            metrics = next(iter(done.values()), {})
            row["results"] = {metric: summarize([results[metric] for results in done.values()]) for metric in metrics}
            tables[name][setting] = row
    return tables


def shown_metrics(rows: dict[str, dict]) -> list[str]:
    """Those of `METRICS` that were measured."""
    return [metric for metric in METRICS if any(metric in row["results"] for row in rows.values())]


def format_table(rows: dict[str, dict]) -> str:
    """The rows of a group as a Markdown table: mean ± deviation over the seeds, in per cent."""
    metrics = shown_metrics(rows)
    has_flops = any("text_flops" in row for row in rows.values())
    is_timed = any("images_per_second" in row for row in rows.values())
    titles = ["setting", *(["text tower, MFLOPs"] if has_flops else [])]
    titles += [*(["images a second"] if is_timed else []), *(METRICS[name] for name in metrics), "seeds"]
    lines = []
    for setting, row in rows.items():
        cells = [setting]
        if has_flops:
            cells.append(f"{row['text_flops'] / 1e6:.4g}" if "text_flops" in row else "")
        if is_timed:
            cells.append(format_result(row["images_per_second"]) if "images_per_second" in row else "")
        cells += [format_result(row["results"][name]) if name in row["results"] else "" for name in metrics]
        lines.append([*cells, str(len(row["seeds"]))])
    return format_markdown(titles, lines)


def format_result(result: dict) -> str:
    deviation = "" if result["deviation"] is None else f" ± {result['deviation']:.1f}"
    return f"{result['mean']:.1f}{deviation}"


def list_rows(tables: dict[str, dict]) -> list[dict]:
    """A row of the CSV file for every group, setting and result."""
    return [
        {
            "group": group,
            "setting": setting,
            "result": metric,
            "seeds": len(row["seeds"]),
            "mean": result["mean"],
            "deviation": result["deviation"],
            "text_flops": row.get("text_flops"),
        }
        for group, rows in tables.items()
        for setting, row in rows.items()
        for metric, result in row["results"].items()
    ]


def plot_group(group: Group, rows: dict[str, dict], path: Path) -> None:
    """
    Draws means with their deviations, and the results of every seed as dots; of long captions, of short ones and of
    classification in a picture each.
    """
    # not at the top: a dry run does not need it
    from matplotlib.figure import Figure

    rows = {setting: row for setting, row in rows.items() if row["seeds"]}
    metrics = shown_metrics(rows)
    kinds = list(dict.fromkeys(metric.split("_")[0] for metric in metrics))
    positions, labels = list(range(len(rows))), list(rows)
    if group.is_against_flops:
        positions = [row["text_flops"] / 1e6 for row in rows.values()]
        labels = [f"{setting}\n{mflops:.3g}" for setting, mflops in zip(rows, positions)]
    figure = Figure(figsize=(4.5 * len(kinds), 4), layout="constrained")
    figure.suptitle(group.question)
    for kind, axes in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0]):
        of_kind = [metric for metric in metrics if metric.startswith(kind)]
        for index, metric in enumerate(of_kind):
            shift = 0 if group.is_against_flops else (index - (len(of_kind) - 1) / 2) * 0.15
            drawn = [(x + shift, row["results"][metric]) for x, row in zip(positions, rows.values())]
            xs, results = zip(*drawn)
            bars = axes.errorbar(
                xs,
                [result["mean"] for result in results],
                yerr=[result["deviation"] or 0 for result in results],
                marker="o",
                linestyle="-" if group.is_against_flops else "",
                linewidth=1.2,
                capsize=3,
                label=METRICS[metric],
            )
            dots = [(x, value) for x, result in drawn for value in result["values"]]
            axes.scatter(*zip(*dots), s=9, alpha=0.4, color=bars.lines[0].get_color())
        axes.set_xticks(positions, labels)
        axes.set(ylabel="per cent", xlabel="tokens, and MFLOPs of the text tower" if group.is_against_flops else "")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path)


def write_tables(args: AblationArguments) -> None:
    """Writes tables and pictures of what is done, and prints the tables."""
    tables = collect(args.groups, args.seeds, args.output_dir)
    page = "\n\n".join(f"## {GROUPS[name].question}\n\n{format_table(rows)}" for name, rows in tables.items())
    print(f"\n{page}", flush=True)
    write_text(args.output_dir / "results.md", page + "\n")
    write_csv(args.output_dir / "results.csv", list_rows(tables))
    write_json(args.output_dir / "results.json", {"train_args": args.train_args, "groups": tables})
    for name, rows in tables.items():
        if any(row["seeds"] for row in rows.values()):
            plot_group(GROUPS[name], rows, args.output_dir / f"{name}.png")


# ---------------------------------------------------------------------------------------------------------------------


def parse_args() -> AblationArguments:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="Where cells, tables and pictures go.")
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS, help="What to compare.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="The seeds of every setting.")
    parser.add_argument("--num_parallel", type=int, default=1, help="Cells at a time; they share the cores.")
    parser.add_argument("--dry_run", action="store_true", help="Print the commands of what is not done, run nothing.")
    own, train_args = parser.parse_known_args()
    try:
        return AblationArguments(**vars(own), train_args=train_args)
    except ValueError as error:
        parser.error(str(error))


def check_train_args(args: AblationArguments) -> None:
    """Refuses to mix cells of different training arguments in a folder, and notes those of a new one."""
    path = args.output_dir / "train_args.json"
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier != args.train_args:
            raise ValueError(
                f"The cells in `--output_dir {args.output_dir}` were trained with `{shlex.join(earlier)}`, not with "
                f"`{shlex.join(args.train_args)}`. Give the same arguments, or name another folder."
            )
    elif not args.dry_run:
        write_json(path, args.train_args)


def main() -> None:
    args = parse_args()
    check_train_args(args)
    cells = list_cells(args.groups, args.seeds)
    if args.dry_run:
        for cell in cells:
            if read_results(cell, args.output_dir) is None:
                print(shlex.join(build_command(cell, args.output_dir, args.train_args)))
        return
    failed, stop_number = run_cells(cells, args)
    write_tables(args)
    if stop_number:
        print("Stopped. The same command resumes.", flush=True)
        sys.exit(128 + stop_number)
    if failed:
        sys.exit(f"{len(failed)} of {len(cells)} cells failed: {' '.join(failed)}. The same command tries them again.")


if __name__ == "__main__":
    with exit_on_error("ablation.py"):
        main()

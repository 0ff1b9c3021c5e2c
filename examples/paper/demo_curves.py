# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
How the model of `make demo` learns, seed by seed: recall at 1 on unseen scenes, every so many steps.

    python examples/paper/demo_curves.py --output_dir outputs/curves --output_file docs/measured/demo.json \
        --figure docs/images/demo.svg

Each seed is a run of `examples/train_lotlip.py`, with its defaults or with what stands behind `--`. Started again, the
script skips the seeds that are done with the same options.
"""

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch
from matplotlib.figure import Figure

from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json


EXAMPLE = Path(__file__).parents[1] / "train_lotlip.py"
# How a curve beside it was made
OPTIONS_FILE = "options.json"
CURVES = {"short": "short_t2i_recall@1", "long": "long_t2i_recall@1"}
# What the example prints after an evaluation: `step 500: {'short_t2i_recall@1': 98.4, ...}`
EVALUATION = re.compile(r"^step (\d+): (\{.*\})$", re.MULTILINE)


def parse_args() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--output_dir", type=Path, required=True, help="where the models go")
    parser.add_argument("--output_file", type=Path, required=True, help="where the curves go (JSON)")
    parser.add_argument("--figure", type=Path, help="where the plot goes (SVG or PNG); default: none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--eval_steps", type=int, default=160, help="steps between two points of a curve")
    parser.add_argument("example_arguments", nargs="*", help="of examples/train_lotlip.py, behind --")
    return parser.parse_args()


def run_example(folder: Path, seed: int, args: argparse.Namespace) -> dict:
    """Runs the example with a seed, and returns its curve and its processor time; those kept of a run that ended."""
    kept = folder / "curve.json"
    options_file = folder / OPTIONS_FILE
    options = {"eval_steps": args.eval_steps, "example_arguments": args.example_arguments}
    if kept.exists():
        made = json.loads(options_file.read_text()) if options_file.exists() else None
        if made != options:
            raise ValueError(f"{folder} was made with {made}, not {options}: name another --output_dir.")
        return json.loads(kept.read_text())
    command = [sys.executable, str(EXAMPLE), "--output_dir", str(folder), "--overwrite_output_dir"]
    command += ["--seed", str(seed), "--eval_steps", str(args.eval_steps), *args.example_arguments]
    time_before = os.times()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise ValueError(
            f"The run with --seed {seed} ended with exit status {done.returncode}: see its message above."
        )
    time_after = os.times()
    curve = []
    for step, results in EVALUATION.findall(done.stdout):
        curve.append({"step": int(step), **ast.literal_eval(results)})
    processor_seconds = time_after.children_user - time_before.children_user
    processor_seconds += time_after.children_system - time_before.children_system
    found = {
        "processor_seconds": round(processor_seconds),
        "seconds": round(time_after.elapsed - time_before.elapsed),
        "curve": curve,
    }
    write_json(options_file, options)
    write_json(kept, found)
    return found


def find_commit() -> str:
    """Returns the commit of the checkout that this file lies in, empty without one."""
    command = ["git", "-C", str(EXAMPLE.parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def plot_curves(runs: dict[int, dict], path: Path) -> None:
    """Plots a line for each seed, of short captions on the left and of long ones on the right."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    plots = figure.subplots(1, len(CURVES), sharey=True)
    for axes, (name, metric) in zip(plots, CURVES.items()):
        for seed, run in runs.items():
            steps = [point["step"] for point in run["curve"]]
            recalls = [point[metric] for point in run["curve"]]
            axes.plot(steps, recalls, label=f"seed {seed}", linewidth=1.2)
        axes.set_title(f"{name} captions")
        axes.set_xlabel("step")
        axes.set_ylim(0, 100)
    plots[0].set_ylabel("text-to-image R@1, %")
    plots[-1].legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    args = parse_args()
    runs = {}
    for seed in args.seeds:
        runs[seed] = run_example(args.output_dir / f"seed-{seed}", seed, args)
        last = runs[seed]["curve"][-1]
        print(f"seed {seed}: {last}, {runs[seed]['processor_seconds']} s of processor time", flush=True)
        results = {
            "arguments": args.example_arguments,
            "date": str(date.today()),
            "torch": torch.__version__,
            "commit": find_commit(),
            "runs": [{"seed": seed, **run} for seed, run in runs.items()],
        }
        write_json(args.output_file, results)
    for name, metric in CURVES.items():
        recalls = [run["curve"][-1][metric] for run in runs.values()]
        print(f"{name}: mean {statistics.fmean(recalls):.1f}, lowest {min(recalls):.1f}")
    if args.figure is not None:
        plot_curves(runs, args.figure)


if __name__ == "__main__":
    with exit_on_error("demo_curves.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A training on one page: its results, its curves and its settings, in a single HTML file that needs nothing else.

    python -m modeling_lotlip.training.summary outputs/demo

The training script writes it at the end; this command also shows a run that is still going on, or was stopped.
"""

import io
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ..arguments import Arguments, argument, exit_on_error, parse
from ..output_folder import atomic_write
from .checkpoints import SETTINGS_FILE
from .monitoring import METRICS_FILE, read_metrics
from .saving import RESULTS_FILE


SUMMARY_FILE = "summary.html"

# Titles and the measurements that they are over, each with what is drawn on a logarithmic scale
PLOTS = [
    ("Loss", ["loss"], False),
    ("Loss of each slot", ["loss_*"], False),
    ("Retrieval and zero-shot classification, per cent", ["*_recall@1", "zero_shot_top1"], False),
    ("Effective rank of the embeddings of a batch", ["rank_*"], False),
    ("Spread of the embeddings (0: all the same)", ["spread_*"], False),
    ("Norm of the gradient", ["gradient_norm"], True),
    ("Learning rate", ["learning_rate"], False),
    ("logit_scale", ["logit_scale"], False),
    ("Images and texts per second", ["images_per_second", "texts_per_second"], False),
    ("Tokens per second", ["tokens_per_second"], False),
    ("Share of the time spent in waiting for data", ["data_wait"], False),
    ("Peak memory of the first process, GB", ["memory_gb"], False),
]
TEMPLATES = Environment(loader=PackageLoader("modeling_lotlip"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


@dataclass
class SummaryArguments(Arguments):
    output_dir: Path = argument(help="The output folder of a training.", positional=True)


def plot(title: str, curves: dict[str, list[tuple[int, float]]], is_logarithmic: bool) -> Markup:
    """Curves over the steps, as an SVG element."""
    from matplotlib.figure import Figure  # not at the top: a training needs it at its end only

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points), label=name, linewidth=1.2, marker="." if len(points) < 30 else None)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if is_logarithmic:
        axes.set_yscale("log")
    if len(curves) > 1:
        axes.legend(fontsize=7)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return Markup(file.getvalue()[file.getvalue().index("<svg") :])


def select_curves(rows: list[dict], patterns: list[str]) -> dict[str, list[tuple[int, float]]]:
    """The points (step, value) of every measurement whose name is like one of the patterns."""
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
    return {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}


def write_summary(output_dir: Path) -> Path:
    """
    Writes `summary.html` into the output folder of a training, from the files that it left there.

    Args:
        output_dir (`Path`):
            The output folder.

    Returns:
        `Path`: the page.

    Raises:
        `ValueError`: if there was no training.
    """
    rows = read_metrics(output_dir / METRICS_FILE)
    if not rows:
        raise ValueError(
            f"`{output_dir}` has no measurements of a training in `{METRICS_FILE}`: name its output folder."
        )
    settings = json.loads((output_dir / SETTINGS_FILE).read_text(encoding="utf-8"))
    results_file = output_dir / RESULTS_FILE
    evaluations = [row for row in rows if "zero_shot_top1" in row or any(name.endswith("mean_recall") for name in row)]
    last = evaluations[-1] if evaluations else {}
    if results_file.exists():
        last, state = json.loads(results_file.read_text(encoding="utf-8")), "The training has come to its end"
    else:
        state = "The training has not come to its end"
    measured = [row for row in rows if "loss" in row]
    state += f" at step {rows[-1]['step']}" + (f", with a loss of {measured[-1]['loss']:.4g}" if measured else "")
    if measured:
        state += ". Skipped steps: {skipped_steps}; bad samples: {bad_samples}".format(**measured[-1])
    plots = [
        plot(title, curves, is_logarithmic)
        for title, patterns, is_logarithmic in PLOTS
        if (curves := select_curves(rows, patterns))
    ]
    page = TEMPLATES.get_template("training_summary.html").render(
        title=f"LoTLIP training: {output_dir.name}",
        state=f"{state}.",
        results=last,
        plots=plots,
        settings={name: value for name, value in settings.items() if value is not None},
    )
    path = output_dir / SUMMARY_FILE
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


if __name__ == "__main__":
    (arguments,) = parse((SummaryArguments,), description=__doc__)
    with exit_on_error("modeling_lotlip.training.summary"):
        print(write_summary(arguments.output_dir))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What `lotlip interpolate` gives: a table, a curve, and the best mixture whole, with its card."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib import rc_context
from matplotlib.figure import Figure
from safetensors import SafetensorError
from transformers.utils import CONFIG_NAME

from ..data.arguments import describe_split
from ..encoder.dual_encoder import DualEncoder
from ..hub import (
    INTERPOLATION_CURVE_FILE,
    INTERPOLATION_FILE,
    save_processor,
    write_model_card,
)
from ..utils.files import public_name, write_json
from ..utils.markdown import format_markdown
from ..utils.output_folder import LEFT, LOCK_FILE, PARTIAL_OF_ALL, SETTINGS_FILE, move_files
from .arguments import InterpolateArguments
from .choose import MeasuredMixture, Results
from .measure import LONG_SCORE


RESULTS_FILE = "eval_results.json"

# The scores that are compared, by their titles
SCORES = {"short": "short_mean_recall", "long": LONG_SCORE, "zero-shot": "zero_shot_top1"}
HALVES = {"chosen_on": "to choose", "reported_on": "to report"}
COLORS = {"short": "#5470c6", "long": "#e39124", "zero-shot": "#3a9d6e"}


@dataclass(frozen=True)
class Interpolation:
    """
    Holds all that was measured of two models and their mixtures.

    Args:
        start (`dict[str, dict[str, float]]`): Of the first model as it is, by half: see [`measure_halves`].
        mixtures (`list[MeasuredMixture]`): In the order of their alphas.
        best ([`MeasuredMixture`]): One of them.
        is_stretched (`bool`): Whether the positions of the first model had to be stretched to mix it.
        num_rows (`dict[str, int]`): The rows of each half.
    """

    start: Results
    mixtures: list[MeasuredMixture]
    best: MeasuredMixture
    is_stretched: bool
    num_rows: dict[str, int]

    @property
    def starts_elsewhere(self) -> bool:
        """Returns whether the first model has other scores than the mixture of alpha 0, by the digits of the table."""
        at_zero = self.mixtures[0].results
        for half, results in self.start.items():
            for name in SCORES.values():
                if name in results and f"{results[name]:.1f}" != f"{at_zero[half][name]:.1f}":
                    return True
        return False

    def as_dict(self, args: InterpolateArguments) -> dict:
        """Returns all of it for JSON, with the models and the rule."""
        rows = [{"alpha": mixture.alpha, **mixture.results} for mixture in self.mixtures]
        return {
            "start": public_name(args.start),
            "end": public_name(args.end),
            "max_loss": args.max_loss,
            "best_alpha": self.best.alpha,
            "num_rows": self.num_rows,
            "is_stretched": self.is_stretched,
            "start_results": self.start,
            "mixtures": rows,
        }


def describe_rule(args: InterpolateArguments) -> str:
    """Says in a sentence which mixture is the best."""
    return (
        "The best has the highest mean recall of long captions of all that lose at most "
        f"{args.max_loss:g} points of the mean recall of short captions, and of the accuracy if labels are named, "
        "against START, on the half to choose."
    )


def format_interpolation(interpolation: Interpolation) -> str:
    """Formats the scores of START and of each mixture on both halves as a Markdown table, in %; the best is bold."""
    scores = {}
    for title, name in SCORES.items():
        if name in interpolation.start["chosen_on"]:
            scores[title] = name
    titles = ["alpha"]
    for half in HALVES.values():
        titles += [f"{title}, {half}" for title in scores]
    lines = []
    for name, results in list_rows(interpolation):
        cells = [name]
        for half in HALVES:
            cells += [f"{results[half][score]:.1f}" for score in scores.values()]
        if name == f"{interpolation.best.alpha:g}":
            cells = [f"**{cell}**" for cell in cells]
        lines.append(cells)
    return format_markdown(titles, lines)


def list_rows(interpolation: Interpolation) -> list[tuple[str, Results]]:
    """
    Lists the mixtures with their results by the names of rows; START first, where it was not mixed as it is, or finds
    something else than the mixture of alpha 0, which reads texts and images as END does.
    """
    rows = []
    if interpolation.is_stretched or interpolation.starts_elsewhere:
        rows.append(("START as it is", interpolation.start))
    for mixture in interpolation.mixtures:
        rows.append((f"{mixture.alpha:g}", mixture.results))
    return rows


def plot_interpolation(interpolation: Interpolation, file: Path) -> None:
    """Draws the scores on the half to report by alpha, with that of START as a dashed line, as a PNG file."""
    alphas = [mixture.alpha for mixture in interpolation.mixtures]
    with rc_context({"axes.spines.right": False, "axes.spines.top": False, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for title, name in SCORES.items():
            if name not in interpolation.start["reported_on"]:
                continue
            values = [mixture.results["reported_on"][name] for mixture in interpolation.mixtures]
            axes.plot(alphas, values, marker="o", color=COLORS[title], label=title)
            before = interpolation.start["reported_on"][name]
            axes.axhline(before, color=COLORS[title], linestyle="--", linewidth=0.8)
        axes.axvline(interpolation.best.alpha, color="#6b7280", linestyle=":", label="best")
        axes.set_xlabel("alpha: 0 is START, 1 is END")
        axes.set_ylabel("mean recall, accuracy in %")
        axes.legend(frameon=False)
        figure.savefig(file, format="png", dpi=150)


def check_mixture_dir(folder: Path) -> None:
    """Raises a `ValueError` for a folder that holds files, which are never replaced."""
    if not folder.exists():
        return
    own = (SETTINGS_FILE, LOCK_FILE)  # of a run that was killed, or waits for another
    if any(path.name not in own and not LEFT.fullmatch(path.name) for path in folder.iterdir()):
        raise ValueError(f"`--output_dir {folder}` holds files already: name a new folder.")


def describe_mixture(args: InterpolateArguments, interpolation: Interpolation) -> str:
    """Writes where the weights came from, with all that was measured, in Markdown, for the card."""
    lines = [
        f"Mixed by `lotlip interpolate`: the weights are {1 - interpolation.best.alpha:g} times those of "
        f"`{public_name(args.start)}` (START) and {interpolation.best.alpha:g} times those of "
        f"`{public_name(args.end)}` (END), which a training made of it "
        "([Wortsman et al., 2022](https://huggingface.co/papers/2109.01903)).",
    ]
    if interpolation.is_stretched:
        lines.append("START's table of text positions was stretched first, to as many as END has.")
    elif interpolation.starts_elsewhere:
        lines.append("Mixtures read texts and images as END does, from which START as it is differs.")
    lines += [
        f"{describe_rule(args)} The rows that were held back are halved: {interpolation.num_rows['chosen_on']} to "
        f"choose, {interpolation.num_rows['reported_on']} to report. Mean recall and accuracy in %:",
        format_interpolation(interpolation),
        f"![Scores by alpha]({INTERPOLATION_CURVE_FILE})",
    ]
    return "\n\n".join(lines)


def save_mixture(args: InterpolateArguments, encoder: DualEncoder, interpolation: Interpolation) -> None:
    """
    Saves the best mixture with its processor, its code, its card, the curve and all that was measured: all of it, or
    nothing.

    Args:
        args ([`InterpolateArguments`]): What was asked for.
        encoder ([`DualEncoder`]): The best mixture.
        interpolation ([`Interpolation`]): What was measured.

    Raises:
        `OSError`: if it cannot be written.
    """
    results = interpolation.best.results["reported_on"]
    dataset = public_name(args.dataset_title or "drawn scenes")
    split = describe_split(args.eval_split, args.max_eval_samples, args.split_seed)
    models = dict.fromkeys([args.start, args.end])
    try:
        with TemporaryDirectory(suffix=PARTIAL_OF_ALL, dir=args.output_dir) as folder:
            partial = Path(folder)
            encoder.model.save_pretrained(partial)
            save_processor(encoder.processor, partial)
            write_json(partial / RESULTS_FILE, results)
            write_json(partial / INTERPOLATION_FILE, interpolation.as_dict(args))
            plot_interpolation(interpolation, partial / INTERPOLATION_CURVE_FILE)
            write_model_card(
                partial,
                args.output_dir.resolve().name,
                provenance=describe_mixture(args, interpolation),
                license_note="The weights are under the terms of the data and the models that they were made from.",
                base_model=[name for name in models if not Path(name).exists()] or None,
                results=results,
                dataset=dataset,
                dataset_split=f"{split} (half of it)",
            )
            move_files(partial, args.output_dir, last=CONFIG_NAME)
    except (OSError, SafetensorError) as error:
        raise OSError(f"The model cannot be saved in {args.output_dir}: {error}") from error

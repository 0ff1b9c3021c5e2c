# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
What a model forgets when it learns long texts, and what `--distill_weight` and `lotlip interpolate` save of it.

    python examples/paper/other_models.py --output_dir outputs/other --output_file outputs/other.json
    python examples/paper/near.py --models_dir outputs/other --output_dir outputs/near --output_file outputs/near.json

The first script leaves small models that learned short captions of drawn scenes (`before`), and the same trained
further on both kinds of captions at 126 tokens (`after`). Here each is trained once more with `--distill_weight`
(`distilled`), as long. Weights between `before` and each of the two are measured on one half of 512 unseen scenes
(`interpolated` and `both` are the best), and reported on the other, as all results are. Where short captions are
trained on too, little is forgotten; `--short_loss_weight 0` trains `after` and `distilled` on long captions alone, and
a weight between 0 and 1 gives the long ones more of the loss.

Started again, the script skips what is done with the same options (Linux).
"""

import argparse
import json
import os
import statistics
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import torch

from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.interpolation.arguments import InterpolateArguments
from modeling_lotlip.interpolation.run import interpolate
from modeling_lotlip.training import loop
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json


# The limit of texts that models were trained to
NEW = 126
ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
# How a model beside it was made; other_models.py leaves one, too
OPTIONS_FILE = "options.json"
METRICS = ("short_t2i_recall@1", "short_mean_recall", "zero_shot_top1", "long_t2i_recall@1", "long_mean_recall")


def check_options(folder: Path, options: dict) -> None:
    """Raises a `ValueError` if what is in a folder was made with other options."""
    file = folder / OPTIONS_FILE
    kept = json.loads(file.read_text()) if file.exists() else {}
    for name, value in json.loads(json.dumps(kept | options)).items():
        if name not in kept or name not in options or kept[name] != value:
            raise ValueError(
                f"{folder} was made with {name} = {kept.get(name)!r}, not {options.get(name)!r}: name another "
                "--output_dir."
            )


def train_once_more(folder: Path, options: dict) -> None:
    """Runs `lotlip train` in `folder`, if that is not done."""
    if (folder / "eval_results.json").exists():
        check_options(folder, options)
        return
    process = get_context("fork").Process(target=run_once_more, args=(folder, options))
    process.start()
    process.join()
    write_json(folder / OPTIONS_FILE, options)


def run_once_more(folder: Path, options: dict) -> None:
    """What the command does, in a process whose imports are done."""
    loop.run(TrainArguments(output_dir=folder, overwrite_output_dir=True, **options))


def mix(start: Path, end: Path, folder: Path, options: dict) -> dict:
    """
    Runs `lotlip interpolate` between two models, if that is not done. Returns what it measured.

    Args:
        start (`Path`): The model before.
        end (`Path`): The model after.
        folder (`Path`): Where the mixture goes.
        options (`dict`): The arguments that name the rows to choose and to report on.
    """
    file = folder / "interpolation.json"
    options = options | {"start": str(start), "end": str(end), "alphas": ALPHAS}
    if file.exists():
        check_options(folder, options)
    else:
        process = get_context("fork").Process(target=run_mixing, args=(folder, options))
        process.start()
        process.join()
        write_json(folder / OPTIONS_FILE, options)
    return json.loads(file.read_text())


def run_mixing(folder: Path, options: dict) -> None:
    """What the command does, in a process whose imports are done."""
    interpolate(InterpolateArguments(output_dir=folder, **options))


def measure_model(args: argparse.Namespace, family: str, seed: int, scenes: Path) -> dict[str, dict]:
    """
    Returns the results of a model on unseen scenes, by what was done to it, each with its `alpha`.

    Args:
        args (`argparse.Namespace`): The arguments of the script.
        family (`str`): Which model.
        seed (`int`): That of its training.
        scenes (`Path`): The rows to choose and to report on.
    """
    before = args.models_dir / f"{family}-{seed}" / "start"
    after = args.models_dir / f"{family}-{seed}" / f"tuned-{NEW}"
    own = args.output_dir / f"{family}-{seed}"
    options = json.loads((after / OPTIONS_FILE).read_text())
    if args.short_loss_weight is not None:
        options["short_loss_weight"] = args.short_loss_weight
        own = own / f"short-{args.short_loss_weight:g}"
        after = own / "after"
        train_once_more(after, options)
    held_back = {"dataset_name": str(scenes), "label_column": "label"}
    plain = mix(before, after, own / "near", held_back)
    results = {
        "before": {"alpha": 0.0, **pick(plain["start_results"])},
        "after": take(plain, 1.0),
    }
    if args.distill_weight > 0:
        with_teacher = own / f"distilled-{args.distill_weight:g}"
        train_once_more(with_teacher, options | {"distill_weight": args.distill_weight})
        distilled = mix(before, with_teacher, own / f"{with_teacher.name}-near", held_back)
        results["distilled"] = take(distilled, 1.0)
    results["interpolated"] = take(plain, plain["best_alpha"])
    if args.distill_weight > 0:
        results["both"] = take(distilled, distilled["best_alpha"])
    for name, found in results.items():
        print(own, name, {metric: round(value, 1) for metric, value in found.items()}, flush=True)
    return results


def take(measured: dict, alpha: float) -> dict[str, float]:
    """The results of one mixture, with its `alpha`."""
    for mixture in measured["mixtures"]:
        if mixture["alpha"] == alpha:
            return {"alpha": alpha, **pick(mixture)}
    raise ValueError(f"alpha {alpha} was not measured: it is none of those of `lotlip interpolate`.")


def pick(results: dict) -> dict[str, float]:
    """The metrics of this script on the half of the rows that was not chosen on."""
    reported = results["reported_on"]
    return {name: reported[name] for name in METRICS if name in reported}


def list_results(found: dict[str, list[dict[str, dict]]]) -> list[dict]:
    """Returns a row for each model and what was done to it, with a value for each seed."""
    rows = []
    for family, runs in found.items():
        for way in runs[0]:
            row = {"model": family, "trained": way}
            for name in runs[0][way]:
                row[name] = [run[way][name] for run in runs]
            rows.append(row)
    return rows


def parse_args() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--output_dir", type=Path, required=True, help="Where the models go.")
    parser.add_argument("--output_file", type=Path, required=True, help="Where the results go (JSON).")
    parser.add_argument("--models_dir", type=Path, required=True, help="What other_models.py left.")
    parser.add_argument("--families", nargs="+", default=["CLIP", "SigLIP", "LoTLIP"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="SigLIP has the first alone.")
    parser.add_argument("--num_held_back", type=int, default=512, help="Drawn scenes to choose and to report on.")
    parser.add_argument("--distill_weight", type=float, default=1.0, help="0: `distilled` and `both` are left out.")
    parser.add_argument(
        "--short_loss_weight",
        type=float,
        help="Train the models after anew, with this weight of short captions: with 0 they learn long ones alone.",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    scenes = args.output_dir / f"scenes-{args.num_held_back}"
    if not scenes.exists():
        load_scenes(args.num_held_back, seed=1).save_to_disk(scenes)
    found = {family: [] for family in args.families}
    for seed in args.seeds:
        for family in args.families:
            if family == "SigLIP" and seed != args.seeds[0]:
                continue
            found[family].append(measure_model(args, family, seed, scenes))
            rows = list_results({name: runs for name, runs in found.items() if runs})
            results = {
                "data": "drawn scenes",
                "seeds": args.seeds[: len(found[args.families[0]])],
                "distill_weight": args.distill_weight,
                "short_loss_weight": args.short_loss_weight,
                "date": str(date.today()),
                "torch": torch.__version__,
                "recalls": rows,
            }
            write_json(args.output_file, results)
    for row in rows:
        means = [f"{name} {statistics.fmean(row[name]):.1f}" for name in METRICS if name in row]
        print(row["model"], row["trained"], *means)


if __name__ == "__main__":
    with exit_on_error("near.py"):
        main()

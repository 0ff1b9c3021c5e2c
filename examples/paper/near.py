# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
What a model forgets when it learns long texts, and what `--distill_weight` and `lotlip interpolate` save of it.

    python examples/paper/near.py --output_dir outputs/near --output_file outputs/near.json \
        --vision_model_name_or_path outputs/demo
    python examples/paper/near.py --output_dir outputs/near_lamps --output_file outputs/near_lamps.json \
        --data_dir LAMPS --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM

The image tower is frozen: on drawn scenes that of `make demo`. A small text tower is trained from scratch for it on
short captions of at most 16 tokens: this is `before`. Then it is trained on both kinds of captions at 126 tokens, once
plainly (`after`), and once with `--distill_weight` (`distilled`). Weights between `before` and each of the two are
measured on one half of 512 unseen scenes (`interpolated` and `both` are the best), and reported on the other, as all
results are. It is done with the loss of LoTLIP and its corner tokens, and with those of CLIP and of SigLIP.

On a folder of captioned images (`train`, `validation`, `test`) the same is done with two pretrained towers, of the
second the last layer alone; `validation` and `test` are held back. Started again, the script skips what is done.
"""

import argparse
import json
import os
import statistics
import subprocess
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


OLD = 16
NEW = 126
ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
METRICS = ("short_t2i_recall@1", "short_mean_recall", "zero_shot_top1", "long_t2i_recall@1", "long_mean_recall")


def train(folder: Path, options: dict) -> None:
    """Runs `lotlip train` on short and long captions, in `folder`, if that is not done."""
    if (folder / "eval_results.json").exists():
        return
    process = get_context("fork").Process(target=run_training, args=(folder, options))
    process.start()
    process.join()


def run_training(folder: Path, options: dict) -> None:
    """What the command does, in a process whose imports are done."""
    loop.run(TrainArguments(output_dir=folder, overwrite_output_dir=True, **options))


def mix(start: Path, end: Path, options: dict) -> dict:
    """Runs `lotlip interpolate` between two models, if that is not done. Returns what it measured."""
    folder = end.parent / f"{end.name}-near"
    file = folder / "interpolation.json"
    if not file.exists():
        models = {"start": str(start), "end": str(end), "alphas": ALPHAS}
        process = get_context("fork").Process(target=run_mixing, args=(folder, options | models))
        process.start()
        process.join()
    return json.loads(file.read_text())


def run_mixing(folder: Path, options: dict) -> None:
    """What the command does, in a process whose imports are done."""
    interpolate(InterpolateArguments(output_dir=folder, **options))


def run_scenes(args: argparse.Namespace, objective: str, seed: int) -> dict[str, dict]:
    """Returns the results of a model on unseen scenes, by what was done to it."""
    scenes = args.output_dir / "scenes"
    if not scenes.exists():
        load_scenes(args.num_held_back, seed=1).save_to_disk(scenes)
    start = {"learning_rate": 2e-3, "max_train_samples": args.max_train_samples}
    tuned = {"learning_rate": args.learning_rate, "max_train_samples": args.max_train_samples}
    return tune(args, objective, seed, start, tuned, {"dataset_name": str(scenes), "label_column": "label"})


def run_folder(args: argparse.Namespace, objective: str, seed: int) -> dict[str, dict]:
    """Returns the results of two pretrained towers on what is held back of a folder, by what was done to them."""
    data = {"dataset_name": "imagefolder", "data_dir": args.data_dir}
    lower_layers = [f"text_model.layers.{layer}" for layer in range(args.num_frozen_layers)]
    frozen = {"freeze": ["text_model.embeddings.word_embeddings", *lower_layers]}
    start = data | frozen | {"learning_rate": 1e-3, "image_size": 224}
    start["text_model_name_or_path"] = args.text_model_name_or_path
    tuned = data | frozen | {"learning_rate": args.learning_rate}
    return tune(args, objective, seed, start, tuned, data | {"eval_split": "validation+test"})


def tune(
    args: argparse.Namespace, objective: str, seed: int, start: dict, tuned: dict, held_back: dict
) -> dict[str, dict]:
    """
    Trains a model on short captions, then on both kinds, plainly and with its start as a teacher, and mixes weights.

    Args:
        args (`argparse.Namespace`): Those of the script.
        objective (`str`): The loss.
        seed (`int`): The seed of both trainings.
        start (`dict`): Further arguments of the first training.
        tuned (`dict`): Further arguments of the second.
        held_back (`dict`): The arguments that name the rows to choose and to report on.

    Returns:
        `dict[str, dict]`: the results by what was done, each with its `alpha`.
    """
    own = args.output_dir / f"{objective}-{seed}"
    common = {
        "objective": objective,
        "seed": seed,
        "cache_image_features": True,
        "image_features_dir": args.output_dir / "features",
        "per_device_train_batch_size": 64,
        "max_eval_samples": 16,
        "eval_steps": args.steps,
    }
    of_start = {
        "vision_model_name_or_path": args.vision_model_name_or_path,
        "max_length": OLD,
        "num_long_captions": 0,
        "max_train_steps": args.start_steps,
    }
    train(own / "before", common | of_start | start)
    of_tuned = {
        "model_name_or_path": str(own / "before"),
        "max_length": NEW,
        "num_long_captions": 1,
        "max_train_steps": args.steps,
    }
    distilled = own / f"distilled-{args.distill_weight:g}"
    train(own / "after", common | of_tuned | tuned)
    train(distilled, common | of_tuned | tuned | {"distill_weight": args.distill_weight})
    plain = mix(own / "before", own / "after", held_back)
    with_teacher = mix(own / "before", distilled, held_back)
    results = {
        "before": {"alpha": 0.0, **pick(plain["start_results"])},
        "after": take(plain, 1.0),
        "distilled": take(with_teacher, 1.0),
        "interpolated": take(plain, plain["best_alpha"]),
        "both": take(with_teacher, with_teacher["best_alpha"]),
    }
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


def find_commit() -> str:
    """The commit of the checkout that this file lies in, empty without one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def list_recalls(found: dict[str, list[dict[str, dict]]]) -> list[dict]:
    """Returns a row for each model and what was done to it, with a value for each seed."""
    rows = []
    for objective, runs in found.items():
        for way in runs[0]:
            row = {"model": objective, "trained": way}
            for name in runs[0][way]:
                row[name] = [run[way][name] for run in runs]
            rows.append(row)
    return rows


def parse_args() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--output_dir", type=Path, required=True, help="Where the models go.")
    parser.add_argument("--output_file", type=Path, required=True, help="Where the results go (JSON).")
    parser.add_argument("--vision_model_name_or_path", required=True, help="The image tower, which is frozen.")
    parser.add_argument("--objectives", nargs="+", default=["lotlip", "clip", "siglip"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--start_steps", type=int, default=150, help="Of the training on short captions.")
    parser.add_argument("--steps", type=int, default=200, help="Of the training on both kinds of captions.")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Of the same training.")
    parser.add_argument("--distill_weight", type=float, default=1.0)
    parser.add_argument("--max_train_samples", type=int, default=4096, help="Drawn scenes to train on.")
    parser.add_argument("--num_held_back", type=int, default=512, help="Drawn scenes to choose and to report on.")
    parser.add_argument("--data_dir", help="A folder of captioned images. Default: drawn scenes.")
    parser.add_argument("--text_model_name_or_path", help="With it, a pretrained text tower.")
    parser.add_argument("--num_frozen_layers", type=int, default=5, help="Layers of this tower that stay as they are.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run = run_scenes if args.data_dir is None else run_folder
    found = {objective: [] for objective in args.objectives}
    for seed in args.seeds:
        for objective in args.objectives:
            found[objective].append(run(args, objective, seed))
            rows = list_recalls({name: runs for name, runs in found.items() if runs})
            results = {
                "data": "drawn scenes" if args.data_dir is None else Path(args.data_dir).name,
                "seeds": args.seeds[: len(found[args.objectives[0]])],
                "steps": args.steps,
                "distill_weight": args.distill_weight,
                "date": str(date.today()),
                "torch": torch.__version__,
                "commit": find_commit(),
                "recalls": rows,
            }
            write_json(args.output_file, results)
    for row in rows:
        means = [f"{name} {statistics.fmean(row[name]):.1f}" for name in METRICS if name in row]
        print(row["model"], row["trained"], *means)


if __name__ == "__main__":
    with exit_on_error("near.py"):
        main()

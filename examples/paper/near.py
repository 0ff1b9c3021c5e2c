# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
What a model forgets when it learns long texts, and what `--distill_weight` and `lotlip interpolate` save of it.

    python examples/paper/near.py --output_dir outputs/near --output_file outputs/near.json

On drawn scenes a small CLIP, SigLIP and LoTLIP are trained from scratch, alike, on short captions of at most 16
tokens: this is `before`. Then each is trained on both kinds of captions at 126 tokens, once plainly (`after`), and
once with `--distill_weight` (`distilled`). Weights between `before` and each of the two are measured on one half of
512 unseen scenes (`interpolated` and `both` are the best), and reported on the other, as all results are.

Started again, the script skips what is done.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from modeling_lotlip import LotlipConfig
from modeling_lotlip.data.scenes import load_scenes, make_scene
from modeling_lotlip.interpolation.arguments import InterpolateArguments
from modeling_lotlip.interpolation.run import interpolate
from modeling_lotlip.training import loop
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json


OLD = 16
NEW = 126
# As the demo's
TOWER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.1,
}
ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
IMAGES = TOWER | {"image_size": 64, "patch_size": 16}
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


def save_new(family: str, folder: Path, seed: int) -> None:
    """A small model with random weights for texts of 16 tokens, as transformers saves it."""
    torch.manual_seed(seed)
    texts = []
    for index in range(1024):
        scene = make_scene(0, index)
        texts += [scene.caption, scene.long_caption]
    tokenizer = CLIPTokenizer().train_new_from_iterator(texts, 1000)
    tokenizer.model_max_length = OLD
    text = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": OLD}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        text[name] = getattr(tokenizer, name)
    if family == "CLIP":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=IMAGES, projection_dim=128))
        processor = CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=64), tokenizer)
    else:
        model = SiglipModel(SiglipConfig(text_config=text | {"projection_size": 128}, vision_config=IMAGES))
        model.logit_scale.data.fill_(math.log(10))  # as its paper starts
        model.logit_bias.data.fill_(-10)
        processor = SiglipProcessor(SiglipImageProcessor(size={"height": 64, "width": 64}), tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_new_lotlip(folder: Path) -> None:
    """The configuration of a LoTLIP of the same size."""
    text = TOWER | {"max_position_embeddings": OLD + 2, "projection_dim": 128}
    text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    LotlipConfig(text_config=text, vision_config=IMAGES, projection_dim=128).save_pretrained(folder)


def run_scenes(args: argparse.Namespace, family: str, seed: int) -> dict[str, dict]:
    """Returns the results of a model on unseen scenes, by what was done to it."""
    own = args.output_dir / f"{family}-{seed}"
    common = {
        "seed": seed,
        "per_device_train_batch_size": 64,
        "max_train_samples": args.max_train_samples,
        "max_eval_samples": args.num_held_back // 2,
        "eval_steps": args.steps,
    }
    start = {"max_length": OLD, "num_long_captions": 0, "learning_rate": 1e-3, "max_train_steps": args.steps // 2}
    if family == "LoTLIP":
        save_new_lotlip(own / "new")
        start["config_name"] = str(own / "new")
    else:
        save_new(family, own / "new", seed)
        start["model_name_or_path"] = str(own / "new")
        start["freeze_vision_model"] = False
    train(own / "before", common | start)
    tuned = common | {
        "model_name_or_path": str(own / "before"),
        "freeze_vision_model": False,
        "learning_rate": args.learning_rate,
        "max_length": NEW,
        "max_train_steps": args.steps,
    }
    scenes = args.output_dir / "scenes"
    if not scenes.exists():
        load_scenes(args.num_held_back, seed=1).save_to_disk(scenes)
    return tune(own, tuned, args.distill_weight, {"dataset_name": str(scenes), "label_column": "label"})


def tune(own: Path, options: dict, distill_weight: float, held_back: dict) -> dict[str, dict]:
    """
    Trains the model in `own / "before"` on both kinds of captions, plainly and with its start as a teacher, and mixes
    the weights.

    Args:
        own (`Path`): The folder of the family and seed.
        options (`dict`): The arguments of the training.
        distill_weight (`float`): The weight of the teacher.
        held_back (`dict`): The arguments that name the rows to choose and to report on.

    Returns:
        `dict[str, dict]`: the results by what was done, each with its `alpha`.
    """
    distilled = own / f"distilled-{distill_weight:g}"
    train(own / "after", options)
    train(distilled, options | {"distill_weight": distill_weight})
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
    parser.add_argument("--families", nargs="+", default=["CLIP", "SigLIP", "LoTLIP"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--steps",
        type=int,
        default=1000,
        help="Of the training on both kinds of captions; half of them before, on short ones.",
    )
    parser.add_argument("--max_train_samples", type=int, default=8192, help="Drawn scenes to train on.")
    parser.add_argument("--num_held_back", type=int, default=512, help="Drawn scenes to choose and to report on.")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Of the same training.")
    parser.add_argument("--distill_weight", type=float, default=1.0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {family: [] for family in args.families}
    for seed in args.seeds:
        for family in args.families:
            found[family].append(run_scenes(args, family, seed))
            rows = list_recalls({name: runs for name, runs in found.items() if runs})
            results = {
                "data": "drawn scenes",
                "seeds": args.seeds[: len(found[args.families[0]])],
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

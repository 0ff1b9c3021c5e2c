# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
What `lotlip train` on long captions brings a model that people have, and what it costs on short ones.

    python examples/paper/other_models.py --output_dir outputs/other --output_file outputs/other.json
    python examples/paper/other_models.py --output_dir outputs/lamps --output_file outputs/lamps.json \
        --data_dir LAMPS --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM

On drawn scenes a small CLIP, SigLIP and LoTLIP are trained from scratch, alike, on short captions of at most 16 tokens
and then on both kinds, at the old limit and at 126 tokens. None has dropout, and all have the `initializer_range` of
the demo: with BERT's 0.02 the small text tower of LoTLIP starts collapsed. CLIP and SigLIP, whose weights are sampled
by formulas of their own, hardly read it. The recalls are kept every `--eval_steps` steps: a curve shows who has ended.

On a folder of captioned images (`train` and `test`) two towers are joined, as a `VisionTextDualEncoderModel` and as a
LoTLIP, and trained alike with a frozen image tower.
Started again, the script skips what is done with the same options (Linux).
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
    AutoImageProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
)

from modeling_lotlip import LotlipConfig
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training import loop
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json


OLD = 16
NEW = 126
VOCABULARY_SIZE = 1000
OPTIONS_FILE = "options.json"
# As the demo's
TOWER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.1,
}
IMAGES = TOWER | {"image_size": 64, "patch_size": 16}
METRICS = ("long_t2i_recall@1", "long_i2t_recall@1", "short_t2i_recall@1", "short_i2t_recall@1")


def train(folder: Path, options: dict) -> dict:
    """
    Runs `lotlip train` on short and long captions, in `folder`, if that is not done. Returns its last results, and the
    `curve`, those of every evaluation with their `step`.
    """
    results = folder / "eval_results.json"
    options_file = folder / OPTIONS_FILE
    if results.exists():
        made = json.loads(options_file.read_text()) if options_file.exists() else None
        if made != options:
            raise ValueError(f"{folder} was made with {made}, not {options}: name another --output_dir.")
    else:
        process = get_context("fork").Process(target=run_training, args=(folder, options))
        process.start()
        process.join()
        write_json(options_file, options)  # by which near.py trains once more
    measured = json.loads(results.read_text())
    print(folder, {name: round(measured[name], 1) for name in METRICS}, flush=True)
    curve = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if METRICS[0] in row:
            curve.append({name: row[name] for name in ("step", *METRICS)})
    return {"curve": curve, **{name: measured[name] for name in METRICS}}


def run_training(folder: Path, options: dict) -> None:
    """What the command does, in a process whose imports are done."""
    loop.run(TrainArguments(output_dir=folder, overwrite_output_dir=True, **options))


def save_new(family: str, folder: Path, seed: int) -> None:
    """A small model with random weights for texts of 16 tokens, as transformers saves it."""
    torch.manual_seed(seed)
    rows = load_scenes(1024)
    texts = [*rows["caption"], *(text for own in rows["long_captions"] for text in own)]
    tokenizer = CLIPTokenizer().train_new_from_iterator(texts, VOCABULARY_SIZE)
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
    text["vocab_size"] = VOCABULARY_SIZE  # as the others have; more if the words of the captions are more
    text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    LotlipConfig(text_config=text, vision_config=IMAGES, projection_dim=128).save_pretrained(folder)


def run_scenes(args: argparse.Namespace, family: str, seed: int) -> dict[str, dict]:
    """Returns the results of a model, by how it was trained, on 256 unseen scenes."""
    own = args.output_dir / f"{family}-{seed}"
    common = {
        "seed": seed,
        "per_device_train_batch_size": 64,
        "max_train_samples": args.max_train_samples,
        "max_eval_samples": args.max_eval_samples,
        "eval_steps": args.eval_steps,
        # as the demo: each plateau has to be left before the rate falls
        "learning_rate": 2e-3,
        "lr_scheduler_type": "warmup_stable_decay",
        "decay_steps": 0.25,
    }
    start = {
        "max_length": OLD,
        "num_long_captions": 0,
        "max_train_steps": max(1, args.steps // 3),
    }
    if family == "LoTLIP":
        save_new_lotlip(own / "new")
        start["config_name"] = str(own / "new")
    else:
        save_new(family, own / "new", seed)
        start["model_name_or_path"] = str(own / "new")
        start["freeze_vision_model"] = False
    results = {"before": train(own / "start", common | start)}
    for limit in args.limits:
        tuned = {
            "model_name_or_path": str(own / "start"),
            "freeze_vision_model": False,
            "max_length": limit,
            "max_train_steps": args.steps,
        }
        results[f"both kinds, {limit} tokens"] = train(own / f"tuned-{limit}", common | tuned)
    return results


def run_folder(args: argparse.Namespace, family: str, seed: int) -> dict[str, dict]:
    """Returns the results of two joined towers on the test split of a folder, by how they were trained."""
    own = args.output_dir / f"{family}-{seed}"
    data = {
        "dataset_name": "imagefolder",
        "data_dir": args.data_dir,
        "seed": seed,
        "cache_image_features": True,
        "image_features_dir": str(args.output_dir / "features"),
        "per_device_train_batch_size": 64,
        "learning_rate": 1e-4,
        "max_train_steps": max(1, args.steps // 3),
        "eval_steps": args.eval_steps,
    }
    start = {"max_length": OLD, "num_long_captions": 0}
    torch.manual_seed(seed)
    if family == "LoTLIP":
        start["vision_model_name_or_path"] = args.vision_model_name_or_path
        start["text_model_name_or_path"] = args.text_model_name_or_path
        start["image_size"] = 224
    else:
        save_joined_towers(args, own / "new")
        start["model_name_or_path"] = str(own / "new")
    results = {"before": train(own / "start", data | start)}
    for limit in args.limits:
        tuned = {"model_name_or_path": str(own / "start"), "max_length": limit}
        results[f"both kinds, {limit} tokens"] = train(own / f"tuned-{limit}", data | tuned)
    return results


def save_joined_towers(args: argparse.Namespace, folder: Path) -> None:
    """Saves two towers as a `VisionTextDualEncoderModel` with new projections."""
    towers = (args.vision_model_name_or_path, args.text_model_name_or_path)
    model = VisionTextDualEncoderModel.from_vision_text_pretrained(*towers)
    image_processor = AutoImageProcessor.from_pretrained(args.vision_model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(args.text_model_name_or_path)
    model.save_pretrained(folder)
    VisionTextDualEncoderProcessor(image_processor, tokenizer).save_pretrained(folder)


def find_commit() -> str:
    """Returns the commit of the checkout that this file lies in, empty without one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def parse_args() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--output_dir", type=Path, required=True, help="Where the models go.")
    parser.add_argument("--output_file", type=Path, required=True, help="Where the results go (JSON).")
    parser.add_argument("--families", nargs="+", help="Default: CLIP SigLIP LoTLIP, or those of two towers.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="SigLIP has the first alone.")
    parser.add_argument(
        "--steps",
        type=int,
        default=1600,
        help="Of the training on both kinds of captions of scenes; all other trainings have a third of them.",
    )
    parser.add_argument(
        "--limits",
        type=int,
        nargs="+",
        default=[OLD, NEW],
        help="Of the texts, in tokens, to train on both kinds with.",
    )
    parser.add_argument("--eval_steps", type=int, default=200, help="Steps between two points of a curve.")
    parser.add_argument("--max_train_samples", type=int, default=8192, help="Drawn scenes to train on.")
    parser.add_argument("--max_eval_samples", type=int, default=256, help="Scenes, unseen, to evaluate on.")
    parser.add_argument("--data_dir", help="A folder of captioned images. Default: drawn scenes.")
    parser.add_argument("--vision_model_name_or_path", help="Its image tower.")
    parser.add_argument("--text_model_name_or_path", help="Its text tower.")
    args = parser.parse_args()
    if args.families is None and args.data_dir is None:
        args.families = ["CLIP", "SigLIP", "LoTLIP"]
    elif args.families is None:
        args.families = ["VisionTextDualEncoder", "LoTLIP"]
    return args


def list_recalls(found: dict[str, list[dict[str, dict]]]) -> list[dict]:
    """Returns a row for each model and way of training, with the recalls and the curves of its seeds."""
    rows = []
    for family, runs in found.items():
        for way in runs[0]:
            row = {"model": family, "trained": way}
            for name in METRICS:
                row[name] = [run[way][name] for run in runs]
            row["curves"] = [run[way]["curve"] for run in runs]
            rows.append(row)
    return rows


def main() -> None:
    args = parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run = run_scenes if args.data_dir is None else run_folder
    found = {family: [] for family in args.families}
    for seed in args.seeds:
        for family in args.families:
            if family == "SigLIP" and seed != args.seeds[0]:
                continue
            found[family].append(run(args, family, seed))
            results = {
                "data": "drawn scenes" if args.data_dir is None else Path(args.data_dir).name,
                "seeds": args.seeds[: len(found[args.families[0]])],
                "steps": args.steps,
                "date": str(date.today()),
                "torch": torch.__version__,
                "commit": find_commit(),
                "recalls": list_recalls({family: runs for family, runs in found.items() if runs}),
            }
            write_json(args.output_file, results)
    for row in results["recalls"]:
        print(row["model"], row["trained"], *(f"{statistics.fmean(row[name]):.1f}" for name in METRICS))


if __name__ == "__main__":
    with exit_on_error("other_models.py"):
        main()

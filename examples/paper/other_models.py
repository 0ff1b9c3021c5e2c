# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What `lotlip train` on long captions brings a model that people have, and what it costs on short ones.

    python examples/paper/other_models.py --output_dir outputs/other --output_file outputs/other.json
    python examples/paper/other_models.py --output_dir outputs/lamps --output_file outputs/lamps.json \
        --data_dir LAMPS --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM

On drawn scenes a small CLIP, SigLIP and LoTLIP are trained from scratch, alike, on short captions of at most 16 tokens
and then on both kinds, at the old limit and at 126 tokens. On a folder of captioned images (`train` and `test`) two
towers are joined, as a `VisionTextDualEncoderModel` and as a LoTLIP, and trained alike with a frozen image tower.
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


OLD, NEW = 16, 126
TOWER = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
IMAGES = TOWER | {"image_size": 64, "patch_size": 8}
METRICS = ("long_t2i_recall@1", "long_i2t_recall@1", "short_t2i_recall@1", "short_i2t_recall@1")


def train(folder: Path, options: dict) -> dict[str, float]:
    """Results of `lotlip train` on short and long captions, in `folder`; those that are there if it is done."""
    results = folder / "eval_results.json"
    if not results.exists():
        process = get_context("fork").Process(target=run_training, args=(folder, options))
        process.start()
        process.join()
    measured = json.loads(results.read_text())
    print(folder, {name: round(measured[name], 1) for name in METRICS}, flush=True)
    return {name: measured[name] for name in METRICS}


def run_training(folder: Path, options: dict) -> None:
    """What the command does, in a process whose imports are done."""
    loop.run(TrainArguments(output_dir=folder, overwrite_output_dir=True, **options))


def save_new(family: str, folder: Path, seed: int) -> None:
    """A small model with random weights for texts of 16 tokens, as transformers saves it."""
    torch.manual_seed(seed)
    rows = load_scenes(1024)
    texts = [*rows["caption"], *(text for own in rows["long_captions"] for text in own)]
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
    LotlipConfig(text_config=text, vision_config=IMAGES, projection_dim=128).save_pretrained(folder)


def run_scenes(output_dir: Path, seed: int, steps: int) -> dict[str, dict[str, dict[str, float]]]:
    """Results of each model, by how it was trained, on 256 unseen scenes."""
    found = {}
    for family in ("CLIP", "SigLIP", "LoTLIP"):
        own = output_dir / f"{family}-{seed}"
        common = {"seed": seed, "per_device_train_batch_size": 64, "max_train_samples": 8192, "max_eval_samples": 256}
        start = {"max_length": OLD, "num_long_captions": 0, "learning_rate": 1e-3, "max_train_steps": steps // 2}
        if family == "LoTLIP":
            save_new_lotlip(own / "new")
            start["config_name"] = str(own / "new")
        else:
            save_new(family, own / "new", seed)
            start |= {"model_name_or_path": str(own / "new"), "freeze_vision_model": False}
        results = {"before": train(own / "start", common | start)}
        tuned = {"model_name_or_path": str(own / "start"), "freeze_vision_model": False, "learning_rate": 1e-3}
        for limit in (OLD, NEW):
            options = common | tuned | {"max_length": limit, "max_train_steps": steps}
            results[f"both kinds, {limit} tokens"] = train(own / f"tuned-{limit}", options)
        found[family] = results
    return found


def run_folder(args: argparse.Namespace, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Results of two joined towers on the test split of a folder: trained on short captions, then on both kinds."""
    towers = {"vision_model_name_or_path": args.vision_model_name_or_path}
    towers["text_model_name_or_path"] = args.text_model_name_or_path
    data = {"dataset_name": "imagefolder", "data_dir": args.data_dir, "seed": seed, "cache_image_features": True}
    data |= {"image_features_dir": args.output_dir / "features", "per_device_train_batch_size": 64}
    found = {}
    for family in ("VisionTextDualEncoder", "LoTLIP"):
        own = args.output_dir / f"{family}-{seed}"
        start = {"max_length": OLD, "num_long_captions": 0, "learning_rate": 1e-4, "max_train_steps": args.steps // 2}
        torch.manual_seed(seed)
        if family == "LoTLIP":
            start |= towers | {"image_size": 224}
        else:
            model = VisionTextDualEncoderModel.from_vision_text_pretrained(*towers.values())
            processors = (AutoImageProcessor.from_pretrained(args.vision_model_name_or_path),)
            processors += (AutoTokenizer.from_pretrained(args.text_model_name_or_path),)
            model.save_pretrained(own / "new")
            VisionTextDualEncoderProcessor(*processors).save_pretrained(own / "new")
            start["model_name_or_path"] = str(own / "new")
        results = {"before": train(own / "start", data | start)}
        for limit in (OLD, NEW):
            options = {"model_name_or_path": str(own / "start"), "max_length": limit, "learning_rate": 1e-4}
            options["max_train_steps"] = args.steps // 2
            results[f"both kinds, {limit} tokens"] = train(own / f"tuned-{limit}", data | options)
        found[family] = results
    return found


def find_commit() -> str:
    """The commit of the checkout that this file lies in, empty without one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="Where the models go.")
    parser.add_argument("--output_file", type=Path, required=True, help="Where the results go (JSON).")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--steps",
        type=int,
        default=1000,
        help="Of the training on both kinds of captions; half of them before, on short ones.",
    )
    parser.add_argument("--data_dir", help="A folder of captioned images. Default: drawn scenes.")
    parser.add_argument("--vision_model_name_or_path", help="Its image tower.")
    parser.add_argument("--text_model_name_or_path", help="Its text tower.")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs = []
    for seed in args.seeds:
        runs.append(run_folder(args, seed) if args.data_dir else run_scenes(args.output_dir, seed, args.steps))
        rows = [
            {
                "model": family,
                "trained": way,
                **{name: [run[family][way][name] for run in runs] for name in METRICS},
            }
            for family, ways in runs[0].items()
            for way in ways
        ]
        where = {
            "data": Path(args.data_dir).name if args.data_dir else "drawn scenes",
            "seeds": args.seeds[: len(runs)],
        }
        where |= {"steps": args.steps, "date": str(date.today()), "torch": torch.__version__, "commit": find_commit()}
        write_json(args.output_file, where | {"recalls": rows})
    for row in rows:
        print(row["model"], row["trained"], *(f"{statistics.fmean(row[name]):.1f}" for name in METRICS))


if __name__ == "__main__":
    with exit_on_error("other_models.py"):
        main()

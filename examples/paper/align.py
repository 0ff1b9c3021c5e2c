# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[align]"]
# ///
"""
Which heads join two frozen towers best, on which texts, and how many pairs they need: each setting with several seeds.

    python examples/paper/align.py --output_file align.json --data lamps=LAMPS flags=FLAGS \
        --text_model MINILM --vision_model DINOV2

Each folder of `--data` is an `imagefolder` with the splits `train` and `test`, `caption` and `long_captions`. All
settings take the same number of epochs, but for the one that chooses it on images held out of the training split.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import torch

from modeling_lotlip.align.features import FeatureComputer, Features, find_features_dir
from modeling_lotlip.align.heads import HeadSettings, measure_rank, train_heads
from modeling_lotlip.align.towers import load_image_tower, load_text_tower
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.loading import get_columns, load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import format_markdown, write_json


# What differs from the defaults of `HeadSettings`; `pooling` and `pairs` change the features instead
SETTINGS = {
    "default": {},
    "linear heads": {"head": "linear"},
    "twice as wide": {"hidden_dim": 1024, "projection_dim": 512},
    "[CLS] alone": {"pooling": "cls"},
    "mean of patches alone": {"pooling": "mean"},
    "short captions alone": {"captions": ("short",)},
    "long captions alone": {"captions": ("long",)},
    "short and long, no sentences": {"captions": ("short", "long")},
    "keep text": {"keep": "text"},
    "keep text, linear": {"keep": "text", "head": "linear"},
    "keep image": {"keep": "image"},
    "50 pairs": {"pairs": 50},
    "100 pairs": {"pairs": 100},
    "200 pairs": {"pairs": 200},
}
CHOSEN = "epochs chosen"
METRICS = ("short_mrr", "short_recall@10", "long_mrr", "long_recall@10", "seconds")


def change_features(features: Features, pooling: str, pairs: int | None, seed: int, is_training: bool) -> Features:
    """
    Returns features of another pooling, and of some images only.

    Args:
        features ([`Features`]): Those of `[CLS]` and mean, one after another.
        pooling (`str`): `"cls"`, `"mean"` or `"cls_mean"`.
        pairs (`int`, *optional*): The number of images that are trained on. Default: all.
        seed (`int`): By which these are sampled.
        is_training (`bool`): Whether the features are trained on.
    """
    if is_training and pairs is not None:
        order = torch.randperm(len(features.images), generator=torch.Generator().manual_seed(seed))
        features = features.select(order[:pairs].sort().values)
    dim = features.images.shape[1] // 2
    columns = {"cls": slice(0, dim), "mean": slice(dim, None), "cls_mean": slice(None)}
    return dataclasses.replace(features, images=features.images[:, columns[pooling]])


def measure_recall(heads: torch.nn.Module, features: Features, modality: int, k: int) -> float:
    """
    Returns how many captions of a modality, in %, find their image among the first `k`.

    Args:
        heads (`torch.nn.Module`): Heads that are trained.
        features ([`Features`]): Images and captions, `(images, dim)` and `(texts, dim)`.
        modality (`int`): 0 for short captions, 1 for long ones.
        k (`int`): How many images are looked at.
    """
    rows = features.captions[features.captions[:, 2] == modality]
    with torch.inference_mode():
        similarities = heads.embed("text", features.texts[rows[:, 1]]) @ heads.embed("image", features.images).t()
    own = similarities.gather(1, rows[:, :1])
    return 100 * ((similarities > own).sum(dim=1) < k).float().mean().item()


def measure_head(training: Features, test: Features, settings: HeadSettings) -> dict[str, float]:
    """Trains heads, and returns what they find on the test split and the seconds of a processor that it took."""
    start = time.process_time()
    trained = train_heads(training, settings)
    seconds = time.process_time() - start
    return {
        "short_mrr": 100 * measure_rank(trained.heads, test, ("short",)),
        "short_recall@10": measure_recall(trained.heads, test, 0, 10),
        "long_mrr": 100 * measure_rank(trained.heads, test, ("long",)),
        "long_recall@10": measure_recall(trained.heads, test, 1, 10),
        "seconds": seconds,
        "epochs": trained.num_epochs,
    }


def load_features(args: argparse.Namespace) -> dict[str, dict[str, Features]]:
    """Returns the features of both splits of each data set, and how long they took, where they were not there."""
    text_tower = load_text_tower(args.text_model)
    image_tower = load_image_tower(args.vision_model, "cls_mean")
    computer = FeatureComputer(text_tower, image_tower, args.features_dir)
    found = {}
    for item in args.data:
        name, _, folder = item.partition("=")
        found[name] = {}
        for split in ("train", "test"):
            dataset = load_split(SourceArguments(dataset_name="imagefolder", data_dir=folder), split)
            reader = RowReader(get_columns(dataset), CaptionArguments())
            found[name][split] = computer.compute(dataset, reader)
    return found


def as_text(rows: list[dict]) -> str:
    """Returns the mean and the standard deviation over the seeds of each setting, as a table in Markdown."""
    lines = []
    for name in dict.fromkeys((row["data"], row["setting"]) for row in rows):
        of_name = [row for row in rows if (row["data"], row["setting"]) == name]
        cells = list(name)
        for metric in METRICS:
            values = [row[metric] for row in of_name]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {deviation:.1f}")
        lines.append(cells)
    return format_markdown(["data", "setting", *METRICS], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_file", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--text_model", required=True)
    parser.add_argument("--vision_model", required=True)
    parser.add_argument("--features_dir", type=Path, default=find_features_dir())
    parser.add_argument("--num_train_epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=[*SETTINGS, CHOSEN])
    args = parser.parse_args()
    rows = []
    for name, splits in load_features(args).items():
        for setting in args.settings:
            options = dict(SETTINGS.get(setting, {}))
            pooling = options.pop("pooling", "cls_mean")
            pairs = options.pop("pairs", None)
            if pairs is not None and pairs >= len(splits["train"].images):
                continue
            for seed in args.seeds:
                num_epochs = None if setting == CHOSEN else args.num_train_epochs
                settings = HeadSettings(**options, num_epochs=num_epochs, seed=seed)
                training = change_features(splits["train"], pooling, pairs, seed, is_training=True)
                test = change_features(splits["test"], pooling, pairs, seed, is_training=False)
                rows.append({"data": name, "setting": setting, "seed": seed} | measure_head(training, test, settings))
                print(rows[-1], flush=True)
                write_json(args.output_file, {"num_train_epochs": args.num_train_epochs, "rows": rows})
    print(as_text(rows))


if __name__ == "__main__":
    with exit_on_error("align.py"):
        main()

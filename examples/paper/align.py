# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[align]"]
# ///
"""
Which heads join two frozen towers best, on which texts, and how many pairs they need: each setting with several seeds.

    python examples/paper/align.py --output_file align.json --data lamps=LAMPS flags=FLAGS scenes= \
        --together lamps flags --text_model MINILM --vision_model DINOV2

Each folder of `--data` is an `imagefolder` with the splits `train` and `test`, `caption` and `long_captions`; without
a folder it is drawn scenes. `--together` trains on several of them at once, too, and finds each by itself. All
settings take the same number of epochs, but for the one that chooses it on images held out of the training split.
Images are found by the rules of `lotlip evaluate`.

`--num_train_epochs` takes several numbers. `--measure_commands` runs `lotlip align` on each folder instead, each
setting in a process of its own, the first one without any features, and measures its time and memory (Linux, macOS).
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from modeling_lotlip.align.features import MODALITIES, FeatureComputer, Features, find_features_dir
from modeling_lotlip.align.heads import HeadSettings, train_heads
from modeling_lotlip.align.run import embed_features
from modeling_lotlip.align.towers import load_image_tower, load_text_tower
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.loading import get_columns, load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.evaluation.retrieval import rank_captions
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json
from modeling_lotlip.utils.markdown import format_markdown


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
METRICS = (
    "short_mrr",
    "short_recall@1",
    "short_recall@10",
    "long_mrr",
    "long_recall@1",
    "long_recall@10",
    "seconds",
)
# What `lotlip align` is run with by `--measure_commands`, after the first run
COMMANDS = {
    "features and mlp heads": [],
    "mlp heads": [],
    "linear heads": ["--head", "linear"],
    "keep text": ["--keep", "text"],
    "keep image": ["--keep", "image"],
}


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


def measure_heads(heads: torch.nn.Module, test: Features, is_scenes: bool) -> dict[str, float]:
    """
    Returns what heads find on a test split, in %.

    Args:
        heads (`torch.nn.Module`): Heads that are trained.
        test ([`Features`]): Images and captions.
        is_scenes (`bool`): Whether they are drawn scenes, of which several have the same short caption.
    """
    embedded = embed_features(heads, test)
    measured = {}
    for modality, captions in embedded.captions.items():
        grouping = "distinct" if is_scenes and modality == "short" else "group"
        ranks = rank_captions(embedded.image_embeds, captions, grouping).text_to_image
        measured[f"{modality}_mrr"] = 100 * (1 / ranks.expected_rank()).mean().item()
        for k in (1, 10):
            measured[f"{modality}_recall@{k}"] = 100 * ranks.hits(k).mean().item()
    return measured


def measure_setting(data_set: "DataSet", setting: str, seed: int, num_train_epochs: int) -> list[dict]:
    """
    Trains heads, and returns what they find of each test split, and the seconds of a processor that the training took.

    Args:
        data_set ([`DataSet`]): The features.
        setting (`str`): One of `SETTINGS`, or `CHOSEN`.
        seed (`int`): The seed of heads, order and samples.
        num_train_epochs (`int`): The passes over the images, where they are not chosen.
    """
    options = dict(SETTINGS.get(setting, {}))
    pooling = options.pop("pooling", "cls_mean")
    pairs = options.pop("pairs", None)
    if pairs is not None and pairs >= len(data_set.training.images):
        return []
    num_epochs = None if setting == CHOSEN else num_train_epochs
    training = change_features(data_set.training, pooling, pairs, seed, is_training=True)
    start = time.process_time()
    trained_heads = train_heads(training, HeadSettings(**options, num_epochs=num_epochs, seed=seed))
    seconds = time.process_time() - start
    rows = []
    for name, test in data_set.tests.items():
        test = change_features(test, pooling, pairs, seed, is_training=False)
        row = {"trained_on": data_set.name, "data": name, "setting": setting, "seed": seed}
        row |= measure_heads(trained_heads.heads, test, is_scenes=name in data_set.scenes)
        row |= {"seconds": seconds, "epochs": trained_heads.num_epochs}
        rows.append(row)
    return rows


@dataclasses.dataclass
class DataSet:
    """
    The features of a data set to train on, of those whose images are to be found, by their names, and which of these
    are drawn scenes.
    """

    name: str
    training: Features
    tests: dict[str, Features]
    scenes: set[str] = dataclasses.field(default_factory=set)


def load_features(args: argparse.Namespace) -> tuple[list[DataSet], list[dict]]:
    """Returns the features of all data sets, and of each split how long they took."""
    text_tower = load_text_tower(args.text_model)
    image_tower = load_image_tower(args.vision_model, "cls_mean")
    computer = FeatureComputer(text_tower, image_tower, args.features_dir)
    data_sets = {}
    costs = []
    for item in args.data:
        name, _, folder = item.partition("=")
        source = SourceArguments()
        if folder:
            source = SourceArguments(dataset_name="imagefolder", data_dir=folder)
        splits = {}
        for split, num_scenes in (("train", args.num_scenes), ("test", args.num_unseen_scenes)):
            dataset = load_split(source, split, None if folder else num_scenes)
            reader = RowReader(get_columns(dataset), CaptionArguments())
            start = time.process_time()
            modalities = MODALITIES if split == "train" else ("short", "long")
            splits[split] = computer.compute(dataset, reader, modalities)
            costs.append(
                {
                    "data": name,
                    "split": split,
                    "images": len(dataset),
                    "texts": len(splits[split].contents),
                    "seconds": time.process_time() - start,
                }
            )
            print(costs[-1], flush=True)
        scenes = set() if folder else {name}
        data_sets[name] = DataSet(name, splits["train"], {name: splits["test"]}, scenes)
    if args.together:
        parts = [data_sets[name] for name in args.together]
        name = " and ".join(args.together)
        training = join_features([part.training for part in parts])
        tests = {part.name: part.tests[part.name] for part in parts}
        scenes = set().union(*[part.scenes for part in parts])
        data_sets[name] = DataSet(name, training, tests, scenes)
    return list(data_sets.values()), costs


def join_features(parts: list[Features]) -> Features:
    """Returns the features of several data sets as those of one, of which a text that two of them have counts once."""
    contents = list(dict.fromkeys(itertools.chain.from_iterable(part.contents for part in parts)))
    indices = {text: index for index, text in enumerate(contents)}
    texts = torch.empty(len(contents), parts[0].texts.shape[1])
    captions = []
    num_images = 0
    for part in parts:
        new_indices = torch.tensor([indices[text] for text in part.contents])
        texts[new_indices] = part.texts
        rows = part.captions.clone()
        rows[:, 0] += num_images
        rows[:, 1] = new_indices[rows[:, 1]]
        captions.append(rows)
        num_images += len(part.images)
    images = torch.cat([part.images for part in parts])
    return Features(images, texts, torch.cat(captions), contents=contents)


def as_text(rows: list[dict]) -> str:
    """Returns the mean and the standard deviation over the seeds of each setting, as a table in Markdown."""
    lines = []
    groups = {}
    for row in rows:
        # an `epochs` that was chosen differs between seeds
        epochs = "" if row["setting"] == CHOSEN else str(row["epochs"])
        groups.setdefault((row["trained_on"], row["data"], row["setting"], epochs), []).append(row)
    for name, seeds in groups.items():
        cells = list(name)
        for metric in METRICS:
            values = [row[metric] for row in seeds]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {deviation:.1f}")
        lines.append(cells)
    return format_markdown(["trained on", "data", "setting", "epochs", *METRICS], lines)


def measure_command(command: list[str]) -> dict[str, float]:
    """Runs a command, and returns the seconds of a processor that it took and its max memory."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise ValueError(f"{' '.join(command)} ended with status {process.returncode}.")
    # kilobytes, but bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": usage.ru_utime + usage.ru_stime, "peak_memory_mb": usage.ru_maxrss * unit / 1e6}


def measure_commands(args: argparse.Namespace) -> list[dict]:
    """Returns the time and the memory of `lotlip align` on each folder, by setting, the first with all features."""
    rows = []
    for item in args.data:
        name, _, folder = item.partition("=")
        source = []
        if folder:
            source = ["--dataset_name", "imagefolder", "--data_dir", folder]
        with tempfile.TemporaryDirectory() as scratch:
            for setting, options in COMMANDS.items():
                command = [sys.executable, "-m", "lotlip", "align", "--output_dir", f"{scratch}/{setting}"]
                command += ["--text_model", args.text_model, "--vision_model", args.vision_model]
                command += ["--features_dir", f"{scratch}/features", *source, *options]
                rows.append({"data": name, "setting": setting} | measure_command(command))
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_file", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--text_model", required=True)
    parser.add_argument("--vision_model", required=True)
    parser.add_argument("--features_dir", type=Path, default=find_features_dir())
    parser.add_argument("--num_train_epochs", type=int, nargs="+", default=[40])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=[*SETTINGS, CHOSEN])
    parser.add_argument(
        "--together", nargs="*", default=[], metavar="NAME", help="Data sets to train on at once, too."
    )
    parser.add_argument("--num_scenes", type=int, default=512, help="Drawn scenes to train on.")
    parser.add_argument("--num_unseen_scenes", type=int, default=256, help="Drawn scenes to find.")
    parser.add_argument("--measure_commands", action="store_true", help="Measure time and memory of `lotlip align`.")
    args = parser.parse_args()
    if args.measure_commands:
        write_json(args.output_file, {"commands": measure_commands(args)})
        return
    data_sets, costs = load_features(args)
    rows = []
    for data_set, setting, num_epochs, seed in itertools.product(
        data_sets, args.settings, args.num_train_epochs, args.seeds
    ):
        if setting == CHOSEN and num_epochs != args.num_train_epochs[0]:
            continue
        found = measure_setting(data_set, setting, seed, num_epochs)
        rows += found
        print(*found, sep="\n", flush=True)
        write_json(args.output_file, {"features": costs, "rows": rows})
    print(as_text(rows))


if __name__ == "__main__":
    with exit_on_error("align.py"):
        main()

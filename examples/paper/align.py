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
settings take the same number of epochs, but for those that choose it on images held out of the training split.
`--pairs` trains each setting on some of the images, too. Images are found by the rules of `lotlip evaluate`.

Each measurement is written to the output file at once, beside those of earlier runs of the same towers and data. What
is there is not measured again.

`--measure_commands` runs `lotlip align` on each folder instead, each setting in a process of its own, the first one
without any features, and measures its time and memory (Linux, macOS). `--measure_training` runs `lotlip train` from
the same two towers, and finds the same images.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from modeling_lotlip.align.features import MODALITIES, FeatureComputer, Features, find_features_dir
from modeling_lotlip.align.heads import HeadSettings, train_heads
from modeling_lotlip.align.run import embed_features
from modeling_lotlip.align.towers import load_text_model, load_vision_model
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.rows import get_columns
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.evaluation.retrieval import EmbeddedDataset, embed_dataset, rank_captions
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json
from modeling_lotlip.utils.markdown import format_markdown


# What differs from the defaults of `HeadSettings`; `pooling` changes the features instead
SETTINGS = {
    "mlp heads": {"head": "mlp"},
    "linear heads": {"head": "linear"},
    "mlp heads, epochs chosen": {"head": "mlp", "num_epochs": None},
    "linear heads, epochs chosen": {"head": "linear", "num_epochs": None},
    "mlp heads, twice as wide": {"head": "mlp", "hidden_dim": 1024, "projection_dim": 512},
    "[CLS] alone": {"pooling": "cls"},
    "mean of patches alone": {"pooling": "mean"},
    "short captions alone": {"captions": ("short",)},
    "long captions alone": {"captions": ("long",)},
    "short and long, no sentences": {"captions": ("short", "long")},
    "keep text, mlp head": {"keep": "text", "head": "mlp"},
    "keep text, linear head": {"keep": "text", "head": "linear"},
    "keep image, mlp head": {"keep": "image", "head": "mlp"},
    "keep image, linear head": {"keep": "image", "head": "linear"},
}
METRICS = (
    "short_mrr",
    "short_recall@1",
    "short_recall@10",
    "long_mrr",
    "long_recall@1",
    "long_recall@10",
    "seconds",
)
# What `lotlip align` is run with by `--measure_commands`, the first time without features
COMMANDS = {
    "features and linear heads": ["--head", "linear"],
    "linear heads": ["--head", "linear"],
    "mlp heads": ["--head", "mlp"],
    "keep text, linear head": ["--head", "linear", "--keep", "text"],
    "keep image, linear head": ["--head", "linear", "--keep", "image"],
}
# What `lotlip train` is run with by `--measure_training`, as in docs/research/training_captions.md: the long caption
# has three of four parts of the loss, and of a text tower of six layers the last one is trained
TRAINING = ["--num_corner_tokens", "0", "--long_loss_weight", "3", "--learning_rate", "1e-3"]
TRAINING += ["--per_device_train_batch_size", "64", "--cache_image_features"]
LAST_LAYER = ["--freeze", "text_model.embeddings", *[f"text_model.layers.{layer}" for layer in range(5)]]
NUM_STEPS = 30
# Runs a command in between, as a small process: the max memory of a process begins with that of the one that starts it
MEASURER = """
import json, os, subprocess, sys

process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
with open(sys.argv[1], "w") as file:
    json.dump([process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss], file)
"""


def sample_images(features: Features, num_images: int, seed: int) -> Features:
    """Returns the features of some images, sampled by a seed."""
    order = torch.randperm(len(features.images), generator=torch.Generator().manual_seed(seed))
    return features.select(order[:num_images].sort().values)


def pool(features: Features, pooling: str) -> Features:
    """Returns features of another pooling, of those of `[CLS]` and mean, one after another."""
    dim = features.images.shape[1] // 2
    columns = {"cls": slice(0, dim), "mean": slice(dim, None), "cls_mean": slice(None)}
    return dataclasses.replace(features, images=features.images[:, columns[pooling]])


def measure_found(embedded: EmbeddedDataset, is_scenes: bool) -> dict[str, float]:
    """
    Returns how well texts find their images, in %.

    Args:
        embedded ([`EmbeddedDataset`]): Images and captions.
        is_scenes (`bool`): Whether they are drawn scenes, of which several have the same short caption.
    """
    measured = {}
    for modality, captions in embedded.captions.items():
        grouping = "distinct" if is_scenes and modality == "short" else "group"
        ranks = rank_captions(embedded.image_embeds, captions, grouping).text_to_image
        measured[f"{modality}_mrr"] = 100 * (1 / ranks.expected_rank()).mean().item()
        for k in (1, 10):
            measured[f"{modality}_recall@{k}"] = 100 * ranks.hits(k).mean().item()
    return measured


def measure_setting(
    dataset: "FeatureDataset", setting: str, pairs: int | None, seed: int, num_train_epochs: int
) -> list[dict]:
    """
    Trains heads, and returns what they find of each test split, and the seconds of a processor that the training took.

    Args:
        dataset ([`FeatureDataset`]): The features.
        setting (`str`): One of `SETTINGS`.
        pairs (`int`, *optional*): The number of images that are trained on. Default: all.
        seed (`int`): The seed of heads, order and samples.
        num_train_epochs (`int`): The passes over the images, where they are not chosen.
    """
    options = {"num_epochs": num_train_epochs} | SETTINGS[setting]
    pooling = options.pop("pooling", "cls_mean")
    training = pool(dataset.training, pooling)
    if pairs is not None:
        training = sample_images(training, pairs, seed)
    start = time.process_time()
    trained_heads = train_heads(training, HeadSettings(**options, seed=seed))
    seconds = time.process_time() - start
    rows = []
    for name, test in dataset.tests.items():
        embedded = embed_features(trained_heads.heads, pool(test, pooling))
        row = {"trained_on": dataset.name, "data": name, "setting": setting, "pairs": len(training.images)}
        row |= {"seed": seed, "epochs": trained_heads.num_epochs}
        row |= measure_found(embedded, is_scenes=name in dataset.scenes)
        row |= {"seconds": seconds}
        rows.append(row)
    return rows


@dataclasses.dataclass
class FeatureDataset:
    """
    The features of a dataset to train on, of those whose images are to be found, by their names, and which of these
    are drawn scenes.
    """

    name: str
    training: Features
    tests: dict[str, Features]
    scenes: set[str] = dataclasses.field(default_factory=set)


def load_features(args: argparse.Namespace) -> tuple[list[FeatureDataset], list[dict]]:
    """Returns the features of all datasets, and how many images and texts each split has."""
    text_model = load_text_model(args.text_model)
    vision_model = load_vision_model(args.vision_model)
    computer = FeatureComputer(text_model, vision_model, args.features_dir)
    datasets = {}
    sizes = []
    for item in args.data:
        name, source, _ = list_source(item, args)
        is_scenes = source.dataset_name is None
        splits = {}
        for split, num_scenes in (("train", args.num_scenes), ("test", args.num_unseen_scenes)):
            dataset = load_split(source, split, num_scenes if is_scenes else None)
            reader = RowReader(get_columns(dataset), CaptionArguments())
            modalities = MODALITIES if split == "train" else ("short", "long")
            features = computer.compute(dataset, reader, modalities)
            splits[split] = features
            num_texts = len(features.contents)
            sizes.append({"data": name, "split": split, "images": len(features.images), "texts": num_texts})
        scenes = {name} if is_scenes else set()
        datasets[name] = FeatureDataset(name, splits["train"], {name: splits["test"]}, scenes)
    if args.together:
        parts = [datasets[name] for name in args.together]
        name = " and ".join(args.together)
        training = join_features([part.training for part in parts])
        tests = {part.name: part.tests[part.name] for part in parts}
        scenes = set().union(*[part.scenes for part in parts])
        datasets[name] = FeatureDataset(name, training, tests, scenes)
    return list(datasets.values()), sizes


def join_features(parts: list[Features]) -> Features:
    """Returns the features of several datasets as those of one, of which a text that two of them have counts once."""
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
        epochs = "chosen" if is_chosen(row["setting"]) else str(row["epochs"])
        name = (row["trained_on"], row["data"], str(row["pairs"]), row["setting"], epochs)
        groups.setdefault(name, []).append(row)
    for name, seeds in groups.items():
        cells = [*name, str(len(seeds))]
        for metric in METRICS:
            values = [row[metric] for row in seeds]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {deviation:.1f}")
        lines.append(cells)
    return format_markdown(["trained on", "data", "pairs", "setting", "epochs", "seeds", *METRICS], lines)


def is_chosen(setting: str) -> bool:
    """Returns whether a setting chooses its number of epochs."""
    return SETTINGS[setting].get("num_epochs", 0) is None


def measure_command(command: list[str]) -> dict[str, float]:
    """Runs a command, and returns the seconds of a processor that it took and its max memory."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "usage.json")
        subprocess.run([sys.executable, "-c", MEASURER, str(file), *command], check=True)
        status, seconds, max_memory = json.loads(file.read_text())
    if status != 0:
        raise ValueError(f"{' '.join(command)} ended with status {status}.")
    # kilobytes, but bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "peak_memory_mb": max_memory * unit / 1e6}


def list_source(name_and_folder: str, args: argparse.Namespace) -> tuple[str, SourceArguments, list[str]]:
    """Returns the name of a dataset, what reads it here, and what reads it in a command."""
    name, _, folder = name_and_folder.partition("=")
    if folder:
        source = SourceArguments(dataset_name="imagefolder", data_dir=folder)
        return name, source, ["--dataset_name", "imagefolder", "--data_dir", folder]
    numbers = ["--max_train_samples", str(args.num_scenes), "--max_eval_samples", str(args.num_unseen_scenes)]
    return name, SourceArguments(), numbers


def measure_commands(args: argparse.Namespace, results: dict) -> None:
    """Measures the time and the memory of `lotlip align` on each folder, by setting, the first with all features."""
    for item in args.data:
        name, _, words = list_source(item, args)
        results["commands"] = [row for row in results.get("commands", []) if row["data"] != name]
        with tempfile.TemporaryDirectory() as scratch:
            for setting, options in COMMANDS.items():
                command = [sys.executable, "-m", "lotlip", "align", "--output_dir", f"{scratch}/{setting}"]
                command += ["--text_model", args.text_model, "--vision_model", args.vision_model]
                command += ["--features_dir", f"{scratch}/features", *words, *options]
                row = {"data": name, "setting": setting} | measure_command(command)
                results["commands"].append(row)
                write_json(args.output_file, results)


def measure_training(args: argparse.Namespace, results: dict) -> None:
    """
    Trains by `lotlip train` on each folder, and measures what the model finds, and the time and the memory of the
    command. A run of one step computes the features of images before.
    """
    for item in args.data:
        name, source, words = list_source(item, args)
        results["training"] = [row for row in results.get("training", []) if row["data"] != name]
        dataset = load_split(source, "test", None if source.dataset_name else args.num_unseen_scenes)
        reader = RowReader(get_columns(dataset), CaptionArguments())
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "lotlip", "train", *TRAINING, *words]
            command += ["--text_model_name_or_path", args.text_model, *LAST_LAYER]
            command += ["--vision_model_name_or_path", args.vision_model, "--image_size", str(args.image_size)]
            command += ["--image_features_dir", f"{scratch}/features"]
            measure_command([*command, "--output_dir", f"{scratch}/features_of_images", "--max_train_steps", "1"])
            for seed in args.seeds:
                folder = f"{scratch}/{seed}"
                steps = ["--max_train_steps", str(NUM_STEPS), "--seed", str(seed)]
                cost = measure_command([*command, "--output_dir", folder, *steps])
                embedded = embed_dataset(load_encoder(folder), dataset, reader)
                row = {"data": name, "setting": "lotlip train", "seed": seed}
                row |= measure_found(embedded, is_scenes=source.dataset_name is None) | cost
                results["training"].append(row)
                write_json(args.output_file, results)


def measure_all_heads(args: argparse.Namespace, results: dict) -> None:
    """Trains heads by all settings that are not in the results yet, and measures what they find."""
    datasets, sizes = load_features(args)
    names = {size["data"] for size in sizes}
    results["sizes"] = [size for size in results.get("sizes", []) if size["data"] not in names] + sizes
    results.setdefault("rows", [])
    done = {identify(row) for row in results["rows"]}
    for seed, dataset, pairs, setting, num_epochs in itertools.product(
        args.seeds, datasets, [None, *args.pairs], args.settings, args.num_train_epochs
    ):
        num_images = len(dataset.training.images)
        if pairs is not None and pairs >= num_images:
            continue
        wanted = {"trained_on": dataset.name, "setting": setting, "pairs": pairs or num_images}
        wanted |= {"seed": seed, "epochs": num_epochs}
        if identify(wanted) in done:
            continue
        done.add(identify(wanted))
        results["rows"] += measure_setting(dataset, setting, pairs, seed, num_epochs)
        write_json(args.output_file, results)
    print(as_text(results["rows"]))


def identify(row: dict) -> tuple:
    """Returns what the heads of a row are known by; a number of epochs that is chosen differs between seeds."""
    epochs = None if is_chosen(row["setting"]) else row["epochs"]
    return row["trained_on"], row["setting"], row["pairs"], row["seed"], epochs


def read_results(file: Path) -> dict:
    """Returns what earlier runs have measured."""
    if not file.exists():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))


def name_source(path: str) -> str:
    """Names a Hub id, or a folder by its last two parts, which say nothing of the machine."""
    return "/".join(Path(path).absolute().parts[-2:])


def note_options(args: argparse.Namespace, results: dict) -> None:
    """
    Notes in results what they are measured of. Raises a `ValueError` if they were measured of something else, or it
    is not known of what.
    """
    wanted = {"text_model": name_source(args.text_model), "vision_model": name_source(args.vision_model)}
    for item in args.data:
        name, _, folder = item.partition("=")
        if folder:
            wanted[f"data {name}"] = name_source(folder)
        else:
            wanted[f"data {name}"] = f"{args.num_scenes} drawn scenes, and {args.num_unseen_scenes} unseen"
    noted = results.setdefault("options", {})
    if not noted and results.keys() & {"rows", "commands", "training"}:
        raise ValueError(
            f"`--output_file {args.output_file}` does not say of which towers and data its results are: name another."
        )
    for name, value in wanted.items():
        if noted.setdefault(name, value) != value:
            raise ValueError(
                f"`--output_file {args.output_file}` has results of {name} = {noted[name]}, not {value}: name another."
            )


def describe_run() -> dict[str, str]:
    """Returns when and by what results are made."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return {"date": str(date.today()), "torch": torch.__version__, "commit": commit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_file", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--text_model", required=True)
    parser.add_argument("--vision_model", required=True)
    parser.add_argument("--features_dir", type=Path, default=find_features_dir())
    parser.add_argument("--num_train_epochs", type=int, nargs="+", default=[40])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--pairs", type=int, nargs="*", default=[], help="Numbers of images to train on, beside all.")
    parser.add_argument("--together", nargs="*", default=[], metavar="NAME", help="Datasets to train on at once, too.")
    parser.add_argument("--num_scenes", type=int, default=512, help="Drawn scenes to train on.")
    parser.add_argument("--num_unseen_scenes", type=int, default=256, help="Drawn scenes to find.")
    parser.add_argument("--image_size", type=int, default=224, help="Pixels of a side in `lotlip train`.")
    parser.add_argument("--measure_commands", action="store_true", help="Measure time and memory of `lotlip align`.")
    parser.add_argument("--measure_training", action="store_true", help="Measure `lotlip train` of the same towers.")
    args = parser.parse_args()
    results = read_results(args.output_file)
    note_options(args, results)
    results["made"] = describe_run()
    if args.measure_commands:
        measure_commands(args, results)
    elif args.measure_training:
        measure_training(args, results)
    else:
        measure_all_heads(args, results)


if __name__ == "__main__":
    with exit_on_error("align.py"):
        main()

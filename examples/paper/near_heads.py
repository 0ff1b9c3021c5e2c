# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[align]"]
# ///
"""
What heads on two frozen pretrained towers forget when they learn long texts of one collection of photographs, and what
a teacher and weights between before and after save of it. Minutes on a core.

    python examples/paper/near_heads.py --output_file near_heads.json --learned LAMPS --known FLAGS \
        --text_model MINILM --vision_model DINOV2

Before, the heads know all captions of one collection, and short ones of another. Then they are trained on the short
and long captions of the latter alone: plainly, and with the squared error against their start on images and short
captions, which `lotlip train --distill_weight` adds to the loss. Mixtures are chosen on `validation` of the learned
collection and on half of `test` of the known one, and reported on `test` and on the other half.
"""

import argparse
import copy
import dataclasses
import statistics
from pathlib import Path

import torch
from torch import nn

from modeling_lotlip.align.features import MODALITIES, FeatureComputer, Features, find_features_dir
from modeling_lotlip.align.heads import CaptionSampler, Heads, HeadSettings, compute_loss, train_heads
from modeling_lotlip.align.towers import load_text_model, load_vision_model
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.rows import get_columns
from modeling_lotlip.interpolation.weights import mix_weights
from modeling_lotlip.metrics import retrieval_metrics
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import write_json
from modeling_lotlip.utils.markdown import format_markdown


ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
LEARNED = ("short", "long")
# The points that what is kept may lose, as of `lotlip interpolate`
MAX_LOSS = 0.5
SCORES = ("short", "known", "long")


@dataclasses.dataclass
class Data:
    """
    The features of both collections.

    Args:
        start (`Features`): What heads are trained on before: all of the known one, short captions of the other.
        learned (`Features`): What they are trained on then.
        halves (`dict[str, tuple[Features, Features]]`): To choose and to report: the learned and the known collection.
    """

    start: Features
    learned: Features
    halves: dict[str, tuple[Features, Features]]


def load_collections(args: argparse.Namespace) -> Data:
    """Returns the features of both collections, from files where they are there."""
    text_model = load_text_model(args.text_model)
    vision_model = load_vision_model(args.vision_model)
    computer = FeatureComputer(text_model, vision_model, args.features_dir)

    def load(folder: str, split: str) -> Features:
        dataset = load_split(SourceArguments(dataset_name="imagefolder", data_dir=folder), split)
        reader = RowReader(get_columns(dataset), CaptionArguments())
        return computer.compute(dataset, reader)

    learned = load(args.learned, "train")
    known = load(args.known, "test")
    order = torch.randperm(len(known.images), generator=torch.Generator().manual_seed(0))
    middle = len(order) // 2
    first = known.select(order[:middle].sort().values)
    second = known.select(order[middle:].sort().values)
    return Data(
        start=join(load(args.known, "train"), keep_captions(learned, "short")),
        learned=learned,
        halves={
            "chosen_on": (load(args.learned, "validation"), first),
            "reported_on": (load(args.learned, "test"), second),
        },
    )


def keep_captions(features: Features, modality: str) -> Features:
    """Returns features with the captions of one modality alone."""
    is_kept = features.captions[:, 2] == MODALITIES.index(modality)
    return dataclasses.replace(features, captions=features.captions[is_kept])


def join(first: Features, second: Features) -> Features:
    """Returns the features of two datasets as of one."""
    shifted = second.captions.clone()
    shifted[:, 0] += len(first.images)
    shifted[:, 1] += len(first.texts)
    return Features(
        torch.cat([first.images, second.images]),
        torch.cat([first.texts, second.texts]),
        torch.cat([first.captions, shifted]),
    )


def train_further(start: Heads, features: Features, args: argparse.Namespace, seed: int, weight: float) -> Heads:
    """
    Returns a copy of heads that was trained further on short and long captions.

    Args:
        start ([`Heads`]): The heads, in evaluation mode, which stay as they are.
        features ([`Features`]): The images and captions.
        args (`argparse.Namespace`): Those of the script.
        seed (`int`): That of captions and dropout.
        weight (`float`): The weight of the squared error against the start, 0 for none.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    heads = copy.deepcopy(start).train()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=args.learning_rate, weight_decay=0.1)
    samplers = [CaptionSampler(features, modality) for modality in LEARNED]
    images = torch.arange(len(features.images))
    for _ in range(args.num_train_epochs):
        loss = compute_loss(heads, features, images, samplers, generator, "cpu")
        if weight > 0:
            has_caption, texts = samplers[0].sample(images, generator)
            loss = loss + weight * measure_distance(heads, start, "image", features.images)
            loss = loss + weight * measure_distance(heads, start, "text", features.texts[texts])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return heads.eval()


def measure_distance(heads: nn.Module, start: nn.Module, side: str, features: torch.Tensor) -> torch.Tensor:
    """
    Returns the mean squared error of embeddings against those of the start.

    Args:
        heads ([`Heads`]): The heads in training.
        start ([`Heads`]): Those before.
        side (`str`): `"text"` or `"image"`.
        features (`torch.Tensor` of shape `(rows, dim)`): What is embedded.

    Returns:
        `torch.Tensor`: a scalar.
    """
    with torch.no_grad():
        expected = start.embed(side, features)
    return (heads.embed(side, features) - expected).square().sum(dim=-1).mean()


@torch.no_grad()
def find_recall(heads: Heads, features: Features, modality: str) -> float:
    """Returns the mean recall, at 1, 5 and 10 in both directions, of the captions of a modality, in %."""
    rows = features.captions[features.captions[:, 2] == MODALITIES.index(modality)]
    images = heads.embed("image", features.images)
    texts = heads.embed("text", features.texts[rows[:, 1]])
    return retrieval_metrics(images, texts, rows[:, 0])["mean_recall"]


def measure_halves(heads: Heads, data: Data) -> dict[str, dict[str, float]]:
    """Returns the scores of heads on both halves: short and long captions, and those of the known collection."""
    results = {}
    for half, (learned, known) in data.halves.items():
        results[half] = {
            "short": find_recall(heads, learned, "short"),
            "known": find_recall(heads, known, "long"),
            "long": find_recall(heads, learned, "long"),
        }
    return results


def measure_mixtures(start: Heads, end: Heads, data: Data) -> list[dict]:
    """Returns what each mixture finds on both halves, with its `alpha`, from the start to the end."""
    mixtures = []
    mixed = copy.deepcopy(start)
    for alpha in [0.0, *ALPHAS, 1.0]:
        mixed.load_state_dict(mix_weights(start.state_dict(), end.state_dict(), alpha))
        mixtures.append({"alpha": alpha, **measure_halves(mixed, data)})
    return mixtures


def choose(mixtures: list[dict]) -> dict:
    """Returns the best mixture by the rule of `lotlip interpolate`."""
    before = mixtures[0]["chosen_on"]
    best = mixtures[0]
    for mixture in mixtures:
        found = mixture["chosen_on"]
        loss = max(before[name] - found[name] for name in ("short", "known"))
        if loss <= MAX_LOSS and found["long"] > best["chosen_on"]["long"]:
            best = mixture
    return best


def run_seed(args: argparse.Namespace, data: Data, seed: int) -> list[dict]:
    """Returns a row for each thing that was done to the heads of a seed."""
    settings = HeadSettings(head="mlp", num_epochs=args.num_train_epochs, seed=seed)
    start = train_heads(data.start, settings).heads
    rows = [{"done": "before", "seed": seed, "alpha": 0.0, **measure_halves(start, data)["reported_on"]}]
    for weight in (0.0, *args.distill_weights):
        end = train_further(start, data.learned, args, seed, weight)
        name = "after" if weight == 0 else f"distilled, weight {weight:g}"
        rows.append({"done": name, "seed": seed, "alpha": 1.0, **measure_halves(end, data)["reported_on"]})
        mixtures = measure_mixtures(start, end, data)
        best = choose(mixtures)
        row = {"done": f"{name}, interpolated", "seed": seed, "alpha": best["alpha"], **best["reported_on"]}
        row["curve"] = [{"alpha": mixture["alpha"], **mixture["reported_on"]} for mixture in mixtures]
        rows.append(row)
    return rows


def format_rows(rows: list[dict]) -> str:
    """Returns the mean and the standard deviation over the seeds of each thing that was done, as a Markdown table."""
    lines = []
    for done in dict.fromkeys(row["done"] for row in rows):
        of_done = [row for row in rows if row["done"] == done]
        cells = [done]
        for name in ("alpha", *SCORES):
            values = [row[name] for row in of_done]
            digits = 2 if name == "alpha" else 1
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}")
        lines.append(cells)
    return format_markdown(["", "alpha", *SCORES], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_file", type=Path, required=True)
    parser.add_argument("--learned", required=True, help="An imagefolder with `train`, `validation` and `test`.")
    parser.add_argument("--known", required=True, help="An imagefolder with `train` and `test`.")
    parser.add_argument("--text_model", required=True)
    parser.add_argument("--vision_model", required=True)
    parser.add_argument("--features_dir", type=Path, default=find_features_dir())
    parser.add_argument("--num_train_epochs", type=int, default=40)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--distill_weights", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    data = load_collections(args)
    rows = []
    for seed in args.seeds:
        rows += run_seed(args, data, seed)
        write_json(args.output_file, {"num_train_epochs": args.num_train_epochs, "rows": rows})
    print(format_rows(rows))


if __name__ == "__main__":
    with exit_on_error("near_heads.py"):
        main()

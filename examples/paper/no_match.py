# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Can a search say that nothing fits? Measured with texts whose pictures are not in the collection.

    python examples/paper/no_match.py --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM \
        --data_dirs LAMPS FLAGS

Both towers are frozen, and a small network between them is trained on the training splits of all data sets, several
times from different seeds. A collection is half of the other pictures of a data set. Then there are texts with a right
answer (their own picture comes first), texts of the half that is left out (near), and texts of the other data sets
(far). Drawn scenes are always one of the data sets.

The first table says how often a right answer has a higher value than the first result of a text without one (AUC, 50
is chance), for several values. The others have the share of right answers that are kept and of the others that are
held back: by a flat similarity, and by the line of the search, which lies above what texts find that fit no picture.
Each is chosen on one data set, so that it keeps 95 in 100 of its right answers, and told on all.
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from datasets import concatenate_datasets, load_dataset
from matplotlib import pyplot as plt
from torch import nn

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import ImageTower, TowerArguments, crop, embed_texts, train_head
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results
from modeling_lotlip.search.index import LINE, measure_tops


# Of the right answers of the data set where a threshold is chosen so many are kept
KEPT = 0.95
SCENES = "scenes"


@dataclass
class NoMatchArguments(TowerArguments, OutputArguments):
    """What is measured."""

    data_dirs: list[Path] = argument([], "Folders of imagefolder data sets with captions and long_captions.")
    train_scenes: int = argument(512, "Drawn scenes to train on.", least=8)
    eval_scenes: int = argument(256, "Drawn scenes to search.", least=8)
    splits: int = argument(4, "How many times the pictures of a data set are halved, for each seed.", least=1)
    plot_file: Path | None = argument(None, "A PNG of the curves.")


@dataclass
class Features:
    """
    Of the pictures of a data set, and of their texts by kind, from the towers.

    Args:
        images (`torch.Tensor` of shape `(num_pictures, dim)`):
            Of the pictures.
        texts (`dict[str, torch.Tensor]`):
            `"short"` and `"long"`, each (num_pictures, text_dim).
    """

    images: torch.Tensor
    texts: dict[str, torch.Tensor]


def read_data(args: NoMatchArguments) -> dict[str, list[tuple[list, dict[str, list[str]]]]]:
    """By name the pictures and texts of each data set to train on, and those to search."""
    drawn = []
    for series, num in ((0, args.train_scenes), (7, args.eval_scenes)):
        scenes = [make_scene(series, number) for number in range(num)]
        long = [f"{scene.caption}. {scene.long_caption}" for scene in scenes]
        drawn.append(([scene.draw() for scene in scenes], {"short": [s.caption for s in scenes], "long": long}))
    data = {SCENES: drawn}
    for folder in args.data_dirs:
        rows = load_dataset("imagefolder", data_dir=str(folder))
        parts = (rows.pop("train"), concatenate_datasets(list(rows.values())))
        data[folder.name] = []
        for part in parts:
            long = [texts[0] for texts in part["long_captions"]]
            pictures = [picture.convert("RGB") for picture in part["image"]]
            data[folder.name].append((pictures, {"short": part["caption"], "long": long}))
    return data


def read_background() -> list[str]:
    """The texts that the search knows its line by."""
    file = resources.files("modeling_lotlip.search").joinpath("background_texts.txt")
    return file.read_text(encoding="utf-8").splitlines()


def compute_values(texts: torch.Tensor, pictures: torch.Tensor, background: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    By name what could say whether the first result of a text fits it, the higher the better: (num_texts,)

    Args:
        texts (`torch.Tensor` of shape `(num_texts, dim)`):
            The queries.
        pictures (`torch.Tensor` of shape `(num_pictures, dim)`):
            The collection.
        background (`torch.Tensor` of shape `(num_background, dim)`):
            Texts that fit no picture.
    """
    scores, usual = texts @ pictures.T, background @ pictures.T
    mean, std = scores.mean(dim=1, keepdim=True), scores.std(dim=1, keepdim=True)
    of_pictures = (scores - usual.mean(dim=0)) / usual.std(dim=0)
    of_both = (of_pictures - of_pictures.mean(dim=1, keepdim=True)) / of_pictures.std(dim=1, keepdim=True)
    centred = [nn.functional.normalize(x, dim=-1) for x in (texts - background.mean(0), pictures - pictures.mean(0))]
    ordered = scores.sort(dim=1, descending=True).values
    median, spread = measure_tops(usual.amax(dim=1))
    values = {
        "similarity": scores,
        "above the background (the line)": (scores - median) / spread,
        "standardised over the collection": (scores - mean) / std,
        "standardised over the background, for each picture": of_pictures,
        "standardised over both": of_both,
        "cosine of centred embeddings": centred[0] @ centred[1].T,
        "before the next nine": ordered[:, :1] - ordered[:, 1:10].mean(dim=1, keepdim=True),
    }
    return {name: value.amax(dim=1) for name, value in values.items()}


def measure_auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """
    How often the first are higher than the second; equal is half.

    ```python
    >>> import torch
    >>> from examples.paper.no_match import measure_auc

    >>> measure_auc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))
    0.875
    ```"""
    differences = positive[:, None] - negative[None]
    return ((differences > 0).double() + 0.5 * (differences == 0).double()).mean().item()


def map_texts(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Features of texts to normalised embeddings."""
    return nn.functional.normalize(head(features), dim=-1)


def measure(args: NoMatchArguments, data: dict[str, list[Features]], background: torch.Tensor) -> dict:
    """By collection, kind of texts, value and group (`right`, `near`, `far`) a tensor of all its values."""
    train = [parts[0] for parts in data.values()]
    mean = torch.cat([features.images for features in train]).mean(dim=0)
    images = nn.functional.normalize(torch.cat([features.images for features in train]) - mean, dim=-1)
    texts = torch.stack([torch.cat([features.texts[kind] for features in train]) for kind in ("short", "long")])
    pictures = {name: nn.functional.normalize(parts[1].images - mean, dim=-1) for name, parts in data.items()}
    found = {}
    for seed in range(args.seeds):
        head = train_head(texts, images, args.steps, seed)
        with torch.inference_mode():
            usual = map_texts(head, background)
            queries = {
                kind: {name: map_texts(head, parts[1].texts[kind]) for name, parts in data.items()}
                for kind in ("short", "long")
            }
        for kind, of_kind in queries.items():
            for name, own in of_kind.items():
                far = [others for other, others in of_kind.items() if other != name]
                for split in range(args.splits):
                    generator = torch.Generator().manual_seed(1000 * seed + split)
                    there, away = torch.randperm(len(own), generator=generator).chunk(2)
                    collection = pictures[name][there]
                    is_right = (own[there] @ collection.T).argmax(dim=1) == torch.arange(len(there))
                    groups = {"right": own[there][is_right], "near": own[away]}
                    groups |= {"far": torch.cat(far)} if far else {}
                    for group, embeds in groups.items():
                        for value, numbers in compute_values(embeds, collection, usual).items():
                            of_value = found.setdefault((name, kind), {}).setdefault(value, {})
                            of_value.setdefault(group, []).append(numbers)
    return {
        key: {value: {group: torch.cat(parts) for group, parts in groups.items()} for value, groups in values.items()}
        for key, values in found.items()
    }


def list_auc(found: dict) -> list[dict]:
    """A row for each collection, kind of texts and value."""
    rows = []
    for (name, kind), values in found.items():
        for value, groups in values.items():
            row = {"collection": name, "texts": kind, "value": value}
            for group in ("near", "far"):
                if group in groups and len(groups["right"]):
                    row[group] = 100 * measure_auc(groups["right"], groups[group])
            rows.append(row)
    return rows


def share_above(values: torch.Tensor, threshold: float) -> float:
    """In per cent."""
    return 100 * (values >= threshold).double().mean().item()


def list_transfers(found: dict, kind: str = "long") -> list[dict]:
    """
    A row for each collection on which a threshold is chosen, so that it keeps `KEPT` of its right answers, and each
    one on which it is tested.
    """
    rows = []
    for value in ("similarity", "above the background (the line)"):
        for (chosen_on, chosen_kind), values in found.items():
            right = values[value]["right"]
            if chosen_kind != kind or not len(right):
                continue
            threshold = torch.quantile(right, 1 - KEPT).item()
            for (name, other_kind), others in found.items():
                groups = others[value]
                row = {"value": value, "chosen_on": chosen_on, "threshold": threshold, "collection": name}
                row |= {"texts": other_kind, "kept": share_above(groups["right"], threshold)}
                rows.append(
                    row
                    | {
                        f"{group}_held_back": 100 - share_above(groups[group], threshold)
                        for group in ("near", "far")
                        if group in groups
                    }
                )
    return rows


def list_curve(found: dict, value: str = "above the background (the line)") -> list[dict]:
    """For lines of several heights what is kept and held back."""
    rows = []
    for (name, kind), values in found.items():
        for height in torch.arange(-2, 6.5, 0.5).tolist():
            row = {
                "collection": name,
                "texts": kind,
                "line": height,
                "kept": share_above(values[value]["right"], height),
            }
            for group in ("near", "far"):
                if group in values[value]:
                    row[f"{group}_held_back"] = 100 - share_above(values[value][group], height)
            rows.append(row)
    return rows


def plot_curves(curve: list[dict], path: Path, kind: str = "long") -> None:
    """Right answers kept over others held back, by lines of all heights; a dot for that of the search."""
    rows = [row for row in curve if row["texts"] == kind]
    collections = list(dict.fromkeys(row["collection"] for row in rows))
    figure, axes = plt.subplots(1, len(collections), figsize=(3.6 * len(collections), 3.6), squeeze=False, sharey=True)
    for axis, name in zip(axes[0], collections):
        for group, colour in (("near", "tab:orange"), ("far", "tab:blue")):
            points = {
                row["line"]: (row[f"{group}_held_back"], row["kept"])
                for row in rows
                if row["collection"] == name and f"{group}_held_back" in row
            }
            if points:
                axis.plot(*zip(*points.values()), color=colour, label=group)
                axis.plot(*points[LINE], "o", color=colour)
        axis.plot([0, 100], [100, 0], ":", color="gray", label="chance")
        axis.set(title=name, xlabel="wrong answers held back (%)", xlim=(-2, 102), ylim=(-2, 102))
    axes[0][0].set_ylabel("right answers kept (%)")
    axes[0][0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def format_rows(rows: list[dict]) -> str:
    """A Markdown table; what a row lacks is left empty."""
    titles = list(dict.fromkeys(name for row in rows for name in row))
    cells = [
        [f"{row[name]:.1f}" if isinstance(row.get(name), float) else str(row.get(name, "")) for name in titles]
        for row in rows
    ]
    return format_markdown([title.replace("_", " ") for title in titles], cells)


def main() -> None:
    (args,) = parse((NoMatchArguments,), description=__doc__)
    tower = ImageTower(args)
    data = {}
    for name, parts in read_data(args).items():
        data[name] = [
            Features(
                tower.embed([crop(picture, args.image_size) for picture in pictures]),
                {kind: embed_texts(args, of_kind) for kind, of_kind in texts.items()},
            )
            for pictures, texts in parts
        ]
    found = measure(args, data, embed_texts(args, read_background()))
    results = {"auc": list_auc(found), "transfers": list_transfers(found), "curve": list_curve(found)}
    table = "\n\n".join(map(format_rows, results.values()))
    print(table)
    if args.plot_file is not None:
        plot_curves(results["curve"], args.plot_file)
    if args.output_file is not None:
        write_results(args.output_file, results, table, results["curve"])


if __name__ == "__main__":
    with exit_on_error("no_match.py"):
        main()

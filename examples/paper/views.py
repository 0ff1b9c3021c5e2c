# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a search should see of a picture that is no square: its middle, all of it, or several parts.

    python examples/paper/views.py --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM
    python examples/paper/views.py --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM \
        --dataset_name imagefolder --data_dir PHOTOS

Both towers are frozen. A small network that maps texts to images is trained on square crops, several times from
different seeds, and then searches pictures in each view. Without a data set these are drawn scenes on a wide canvas:
a text describes one that stands anywhere in it, and the rest is filled with another scene. "cost" is the number of
patches, that of the crop being 1. The intervals are of a paired bootstrap over the texts: what a view finds more than
the crop, in 95 of 100 draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import torch
from torch import nn

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import (
    BICUBIC,
    ImageTower,
    Picture,
    TowerArguments,
    bootstrap,
    crop,
    embed_texts,
    rank,
    train_head,
)
from modeling_lotlip.data.arguments import CaptionColumnArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results


@dataclass
class ViewsArguments(TowerArguments):
    """What is compared."""

    train_split: str = argument("train", "The split of the data set that is trained on.")
    eval_split: list[str] = argument(["test"], "The splits of the data set that are searched.")
    aspects: list[float] = argument([1.5, 2.0], "Width by height of the drawn pictures.", least=1)
    scenes: int = argument(512, "Drawn scenes to train on.", least=8)
    wide_scenes: int = argument(128, "Drawn pictures to search.", least=8)


def keep_aspect(picture: Picture, side: int, patch: int) -> Picture:
    """The whole picture in nearly its own aspect, with no more patches than the square has."""
    patches = side // patch
    columns = min(patches**2, max(1, round(patches * (picture.width / picture.height) ** 0.5)))
    return picture.resize((patch * columns, patch * (patches**2 // columns)), BICUBIC)


def make_views(side: int, patch: int) -> dict[str, Callable[[Picture], list[Picture]]]:
    """By name what the image tower sees of a picture; of several parts the most similar one counts."""
    smaller = patch * round(side / patch / 2**0.5)
    return {
        "crop": lambda picture: [crop(picture, side)],
        "whole, own aspect": lambda picture: [keep_aspect(picture, side, patch)],
        "whole, squeezed": lambda picture: [picture.resize((side, side), BICUBIC)],
        "2 crops, smaller": lambda picture: [crop(picture, smaller, place) for place in (0, 1)],
        "2 crops": lambda picture: [crop(picture, side, place) for place in (0, 1)],
    }


@dataclass
class Collection:
    """
    Pictures to search, and the texts of each kind, one for each picture.

    Args:
        title (`str`):
            What they are.
        pictures (`list[Picture]`):
            What is searched.
        queries (`dict[str, list[str]]`):
            By kind the texts that describe the pictures, in their order.
    """

    title: str
    pictures: list[Picture]
    queries: dict[str, list[str]]


def draw_wide(aspect: float, number: int) -> Picture:
    """A scene somewhere on a wide canvas, and another one where it is not."""
    scene, other = make_scene(7, number).draw(), make_scene(8, number).draw()
    side = scene.width
    width = round(aspect * side)
    left = round((width - side) * ((number * 0.618) % 1))
    canvas = PIL.Image.new("RGB", (width, side))
    canvas.paste(other, (left - side, 0))
    canvas.paste(other, (left + side, 0))
    canvas.paste(scene, (left, 0))
    return canvas


def describe(number: int, series: int) -> str:
    """The short and the long caption of a scene."""
    scene = make_scene(series, number)
    return f"{scene.caption}. {scene.long_caption}"


def draw_collections(args: ViewsArguments) -> tuple[Collection, list[Collection]]:
    """Square scenes to train on, and wide ones of each aspect to search."""
    numbers = range(args.scenes)
    train = [make_scene(0, number).draw() for number in numbers]
    train = Collection("square scenes", train, {"long": [describe(number, 0) for number in numbers]})
    numbers = range(args.wide_scenes)
    queries = {"long": [describe(number, 7) for number in numbers]}
    return train, [
        Collection(f"scenes {aspect:g}:1", [draw_wide(aspect, number) for number in numbers], queries)
        for aspect in args.aspects
    ]


def read_collection(splits: list[str], source: SourceArguments, columns: CaptionColumnArguments) -> Collection:
    """Splits of a data set. Of several captions of a kind the first one counts."""
    pictures, queries = [], {"short": [], "long": []}
    for split in splits:
        rows = load_split(source, split)
        pictures += [image.convert("RGB") for image in rows[source.image_column]]
        for kind, column in (("short", columns.caption_column), ("long", columns.long_captions_column)):
            queries[kind] += [value if isinstance(value, str) else value[0] for value in rows[column]]
    return Collection(Path(source.data_dir or source.dataset_name).name, pictures, queries)


def embed_views(
    collection: Collection, tower: ImageTower, args: ViewsArguments
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """For each view the features (pictures, parts, dim), and the patches of a picture, those of the crop being 1."""
    features, costs = {}, {}
    for name, view in make_views(args.image_size, tower.patch).items():
        seen = [view(picture) for picture in collection.pictures]
        features[name] = tower.embed(sum(seen, [])).reshape(len(seen), len(seen[0]), -1)
        costs[name] = sum(part.width * part.height for parts in seen for part in parts) / args.image_size**2
        costs[name] /= len(seen)
    return features, costs


def compare(
    collection: Collection, heads: list[nn.Module], mean: torch.Tensor, tower: ImageTower, args: ViewsArguments
) -> list[dict]:
    """A row for each kind of text and each view."""
    features, costs = embed_views(collection, tower, args)
    rows = []
    for kind, queries in collection.queries.items():
        texts = embed_texts(args, queries)
        with torch.inference_mode():
            texts = torch.stack([nn.functional.normalize(head(texts), dim=-1) for head in heads])
        reciprocal = {}
        for name, images in features.items():
            images = nn.functional.normalize(images - mean, dim=-1)
            ranks = rank(torch.einsum("std,pvd->stpv", texts, images).amax(dim=-1))
            reciprocal[name] = (1 / ranks).mean(dim=0)
            gains = 100 * (reciprocal[name] - reciprocal["crop"])
            row = {"collection": collection.title, "texts": kind, "view": name, "cost": costs[name]}
            row |= {f"recall@{k}": 100 * (ranks <= k).float().mean().item() for k in (1, 10)}
            row |= {"mrr": 100 * reciprocal[name].mean().item(), "gain": gains.mean().item()}
            rows.append(row | {"interval": bootstrap(gains)})
    return rows


def main() -> None:
    groups = (ViewsArguments, SourceArguments, CaptionColumnArguments, OutputArguments)
    args, source, columns, output = parse(groups, description=__doc__)
    if source.dataset_name is None:
        train, collections = draw_collections(args)
    else:
        train = read_collection([args.train_split], source, columns)
        collections = [read_collection(args.eval_split, source, columns)]
    tower = ImageTower(args)
    images = tower.embed([crop(picture, args.image_size) for picture in train.pictures])
    mean = images.mean(dim=0)
    images = nn.functional.normalize(images - mean, dim=-1)
    texts = torch.stack([embed_texts(args, texts) for texts in train.queries.values()])
    heads = [train_head(texts, images, args.steps, seed) for seed in range(args.seeds)]
    rows = [row for collection in collections for row in compare(collection, heads, mean, tower, args)]
    cells = [
        [
            *(row[name] for name in ("collection", "texts", "view")),
            f"{row['cost']:.2f}",
            *(f"{row[name]:.1f}" for name in ("recall@1", "recall@10", "mrr")),
            "{:+.1f} ({:+.1f} to {:+.1f})".format(row["gain"], *row["interval"]),
        ]
        for row in rows
    ]
    table = format_markdown(["pictures", "texts", "view", "cost", "R@1", "R@10", "MRR", "gain in MRR"], cells)
    print(table)
    if output.output_file is not None:
        write_results(output.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    with exit_on_error("views.py"):
        main()

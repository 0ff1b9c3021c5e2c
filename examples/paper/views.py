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
from torchvision.transforms.v2.functional import pil_to_tensor
from transformers import AutoModel, AutoTokenizer
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_lotlip.arguments import argument, parse
from modeling_lotlip.data.arguments import CaptionColumnArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results
from modeling_lotlip.terminal import progress_bar


Picture = PIL.Image.Image
BICUBIC = PIL.Image.Resampling.BICUBIC


@dataclass
class ViewsArguments(OutputArguments):
    """What is compared."""

    vision_model_name_or_path: str = argument("facebook/dinov2-small", "An image tower with interpolated positions.")
    text_model_name_or_path: str = argument("sentence-transformers/all-MiniLM-L6-v2", "A BERT for sentences.")
    image_size: int = argument(112, "The side of the crop in pixels.", least=14)
    train_split: str = argument("train", "The split of the data set that is trained on.")
    eval_split: list[str] = argument(["test"], "The splits of the data set that are searched.")
    aspects: list[float] = argument([1.5, 2.0], "Width by height of the drawn pictures.", least=1)
    scenes: int = argument(512, "Drawn scenes to train on.", least=8)
    wide_scenes: int = argument(128, "Drawn pictures to search.", least=8)
    seeds: int = argument(5, "Trainings.", least=1)
    steps: int = argument(400, "Steps of a training.", least=1)
    dtype: str = argument("bfloat16", "What the towers compute in.", choices=("float32", "bfloat16"))
    batch_size: int = argument(32, "Pictures or texts in a batch.", least=1)


def crop(picture: Picture, side: int, place: float = 0.5) -> Picture:
    """A square of the whole height, or width, at a place from 0 (left or top) to 1."""
    short = min(picture.size)
    left, top = (round(place * (length - short)) for length in picture.size)
    return picture.crop((left, top, left + short, top + short)).resize((side, side), BICUBIC)


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


class ImageTower:
    """A frozen tower: pictures of several sizes to features."""

    def __init__(self, args: ViewsArguments):
        self.model = AutoModel.from_pretrained(args.vision_model_name_or_path, dtype=args.dtype).eval()
        self.patch, self.batch_size = self.model.config.patch_size, args.batch_size
        self.mean, self.std = (
            torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )

    @torch.inference_mode()
    def embed(self, pictures: list[Picture]) -> torch.Tensor:
        """Features (pictures, dim): the class token and the mean of the patches."""
        features = [None] * len(pictures)
        for size in {picture.size for picture in pictures}:
            places = [place for place, picture in enumerate(pictures) if picture.size == size]
            for start in progress_bar(
                range(0, len(places), self.batch_size), desc=f"{size[0]} x {size[1]}", leave=False
            ):
                of_batch = places[start : start + self.batch_size]
                pixels = torch.stack([pil_to_tensor(pictures[place]) for place in of_batch]).float() / 255
                hidden = self.model(((pixels - self.mean) / self.std).to(self.model.dtype)).last_hidden_state.float()
                for place, states in zip(of_batch, hidden):
                    features[place] = torch.cat((states[0], states[1:].mean(dim=0)))
        return torch.stack(features)


@torch.inference_mode()
def embed_texts(args: ViewsArguments, texts: list[str]) -> torch.Tensor:
    """Features (texts, dim): the mean of the tokens, normalised."""
    tokenizer = AutoTokenizer.from_pretrained(args.text_model_name_or_path)
    model = AutoModel.from_pretrained(args.text_model_name_or_path).eval()
    features = []
    for start in progress_bar(range(0, len(texts), args.batch_size), desc="Texts", leave=False):
        batch = texts[start : start + args.batch_size]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask = tokens["attention_mask"][:, :, None]
        features.append((model(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1))
    return nn.functional.normalize(torch.cat(features), dim=-1)


def train_head(texts: torch.Tensor, images: torch.Tensor, steps: int, seed: int) -> nn.Module:
    """Maps texts to the images that they describe. Of the texts of an image, (texts, images, dim), one is drawn."""
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(texts.shape[-1], 512), nn.GELU(), nn.Dropout(0.2))
    head.append(nn.Linear(512, images.shape[1]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.1)
    labels, rows = torch.arange(min(256, len(images))), torch.arange(len(images))
    for _ in range(steps):
        rows = torch.randperm(len(images))[: len(labels)]
        embeds = head(texts[torch.randint(len(texts), (len(rows),)), rows])
        logits = 20 * nn.functional.normalize(embeds, dim=-1) @ images[rows].T
        loss = nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


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
    """All that is said of a scene."""
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


def rank(similarities: torch.Tensor) -> torch.Tensor:
    """The rank from 1 of the right picture of each text, which has its number; equals share their mean rank."""
    own = similarities.diagonal(dim1=-2, dim2=-1)[..., None]
    return 1 + (similarities > own).sum(dim=-1) + ((similarities == own).sum(dim=-1) - 1) / 2


def bootstrap(gains: torch.Tensor, draws: int = 10_000) -> tuple[float, float]:
    """Between what the mean of the gains of texts is in 95 of 100 draws."""
    generator = torch.Generator().manual_seed(0)
    means = gains[torch.randint(len(gains), (draws, len(gains)), generator=generator)].mean(dim=1)
    return tuple(torch.quantile(means, torch.tensor([0.025, 0.975])).tolist())


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
    args, source, columns = parse((ViewsArguments, SourceArguments, CaptionColumnArguments), description=__doc__)
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
    if args.output_file is not None:
        write_results(args.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    main()

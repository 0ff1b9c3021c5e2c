# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
How near copies of a picture are to it, and how near other pictures are.

    python examples/paper/copies.py --vision_model_name_or_path DINOV2 --data_dirs LAMPS FLAGS

Of each data set, the drawn scenes among them, so many pictures are copied in four ways. The table has the share of
copies that are found, and the share of pictures to which another one would be taken for a copy. It compares one cosine
similarity for all, a share of the mean distance of two pictures of a collection, and a share of the distance to the
nearest other picture (that of the search). The last collection is all of them together.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import concatenate_datasets, load_dataset
from PIL import Image, ImageEnhance
from torch import nn

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.benchmarking.frozen_towers import BICUBIC, ImageTower, Picture, TowerArguments, crop
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import OutputArguments
from modeling_lotlip.files import format_markdown, write_results
from modeling_lotlip.search.index import COPY_DISTANCE, COPY_QUANTILE


@dataclass
class CopiesArguments(TowerArguments, OutputArguments):
    """What is measured."""

    data_dirs: list[Path] = argument([], "Folders of imagefolder data sets.")
    num_pictures: int = argument(200, "Pictures of each, the first ones.", least=4)


def compress(picture: Picture) -> Picture:
    """A JPEG of quality 60."""
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=60)
    return Image.open(buffer).convert("RGB")


def halve(picture: Picture) -> Picture:
    """Half as wide and high."""
    return picture.resize((picture.width // 2, picture.height // 2), BICUBIC)


def trim(picture: Picture) -> Picture:
    """Without 4 per cent on the left and above, and 2 per cent on the right and below."""
    width, height = picture.size
    return picture.crop((round(0.04 * width), round(0.04 * height), round(0.98 * width), round(0.98 * height)))


def brighten(picture: Picture) -> Picture:
    """A fifth brighter."""
    return ImageEnhance.Brightness(picture).enhance(1.2)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "JPEG": compress,
    "half size": halve,
    "brighter": brighten,
    "trimmed": trim,
}


def find_thresholds(similarities: torch.Tensor) -> dict[str, float]:
    """
    By name the cosine similarities from which on two pictures would be copies.

    Args:
        similarities (`torch.Tensor` of shape `(num_pictures, num_pictures)`):
            Of different pictures; those with themselves are left out.

    ```python
    >>> import torch
    >>> from examples.paper.copies import find_thresholds

    >>> thresholds = find_thresholds(torch.tensor([[1.0, 0.2], [0.2, 1.0]]))
    >>> round(thresholds["0.25 of the nearest"], 2)
    0.8
    ```"""
    others = similarities[~torch.eye(len(similarities), dtype=torch.bool)].reshape(len(similarities), -1)
    nearest = torch.quantile(1 - others.amax(dim=1), COPY_QUANTILE)
    thresholds = {f"cosine {cosine}": cosine for cosine in (0.95, 0.98, 0.99)}
    thresholds |= {f"{share} of the mean": 1 - share * (1 - others.mean()).item() for share in (0.05, 0.1)}
    shares = sorted({COPY_DISTANCE, 0.25, 0.4})
    return thresholds | {f"{share} of the nearest": 1 - share * nearest.item() for share in shares}


def compare(name: str, own: torch.Tensor, copies: dict[str, torch.Tensor]) -> list[dict]:
    """A row for each threshold, from normalised embeddings (pictures, dim)."""
    similarities = own @ own.T
    others = (similarities - 2 * torch.eye(len(own))).amax(dim=1)
    rows = []
    for way, threshold in find_thresholds(similarities).items():
        row = {"pictures": name, "together": way, "cosine": threshold}
        for kind, embeds in copies.items():
            row[kind] = 100 * ((own * embeds).sum(dim=1) >= threshold).double().mean().item()
        rows.append(row | {"other pictures": 100 * (others >= threshold).double().mean().item()})
    return rows


def read_pictures(args: CopiesArguments) -> dict[str, list[Picture]]:
    """By name the pictures of each data set."""
    pictures = {"scenes": [make_scene(7, number).draw() for number in range(args.num_pictures)]}
    for folder in args.data_dirs:
        rows = concatenate_datasets(list(load_dataset("imagefolder", data_dir=str(folder)).values()))
        some = rows.select(range(min(len(rows), args.num_pictures)))["image"]
        pictures[folder.name] = [picture.convert("RGB") for picture in some]
    return pictures


def main() -> None:
    (args,) = parse((CopiesArguments,), description=__doc__)
    tower, rows, every = ImageTower(args), [], []

    def embed(pictures: list[Picture]) -> torch.Tensor:
        return nn.functional.normalize(tower.embed([crop(picture, args.image_size) for picture in pictures]), dim=-1)

    for name, pictures in read_pictures(args).items():
        own = embed(pictures)
        copies = {kind: embed([change(picture) for picture in pictures]) for kind, change in COPIES.items()}
        rows += compare(name, own, copies)
        every.append((own, copies))
    if len(every) > 1:
        together = {kind: torch.cat([copies[kind] for _, copies in every]) for kind in COPIES}
        rows += compare("all", torch.cat([own for own, _ in every]), together)
    kinds = [*COPIES, "other pictures"]
    cells = [
        [row["pictures"], row["together"], f"{row['cosine']:.3f}", *(f"{row[kind]:.1f}" for kind in kinds)]
        for row in rows
    ]
    table = format_markdown(["pictures", "together", "cosine", *kinds], cells)
    print(table)
    if args.output_file is not None:
        write_results(args.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    with exit_on_error("copies.py"):
        main()

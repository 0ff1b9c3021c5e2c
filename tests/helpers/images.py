"""Folders of images, and data sets of which some images are other files."""

from collections.abc import Iterable
from pathlib import Path

import PIL.Image
from datasets import Dataset, Image


NO_IMAGE = {"bytes": b"no image", "path": "torn.png"}


def save_images(folder: Path, images: Iterable[PIL.Image.Image]) -> Path:
    """Writes images as `0.png`, `1.png` and so on to a folder, which it makes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    return folder


def replace_values(dataset: Dataset, changes: dict[int, dict]) -> Dataset:
    """A data set whose rows of these numbers have other values, such as a file that is no image."""
    rows = dataset.cast_column("image", Image(decode=False)).to_list()
    for number, values in changes.items():
        rows[number] |= values
    return Dataset.from_list(rows, features=dataset.features)

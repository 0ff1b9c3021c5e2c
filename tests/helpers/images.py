"""Folders of images, and datasets of which some images are other files."""

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
    """A dataset whose rows of these numbers have other values, such as a file that is no image."""
    rows = dataset.cast_column("image", Image(decode=False)).to_list()
    for number, values in changes.items():
        rows[number] |= values
    return Dataset.from_list(rows, features=dataset.features)


def refuse_to_open(monkeypatch, ending: str) -> None:
    """Makes reading files with an ending fail, as without the permission or with a bad disk."""

    def open_or_refuse(path, *arguments):
        if str(path).endswith(ending):
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *arguments)

    monkeypatch.setattr("modeling_lotlip.data.images.open", open_or_refuse, raising=False)

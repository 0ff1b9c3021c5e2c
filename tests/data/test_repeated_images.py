"""Rows that have the image of another row."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Image

from modeling_lotlip.data.repeated_images import count_repeated_images, warn_of_repeated_images


@pytest.mark.parametrize("is_in_the_data", [False, True])
def test_rows_with_the_image_of_another_row_are_counted_and_warned_of(tmp_path, caplog, is_in_the_data):
    files = []
    for name, color in (("a.png", "red"), ("b.png", "blue"), ("c.png", "lime")):
        PIL.Image.new("RGB", (8, 8), color).save(tmp_path / name)
        files.append({"path": str(tmp_path / name), "bytes": None})
    if is_in_the_data:
        files = [{"path": "image.png", "bytes": Path(file["path"]).read_bytes()} for file in files]
    first, second, third = files
    rows = [first, second, first, None, first, third, None]
    dataset = Dataset.from_list([{"image": file} for file in rows]).cast_column("image", Image())
    assert count_repeated_images(dataset, "image") == 2
    warn_of_repeated_images(dataset, "image", "evaluation")
    assert "2 of 7 evaluation rows have the image of another row" in caplog.text
    assert count_repeated_images(dataset.select([5, 1, 0, 3]), "image") == 0


def make_contents(contents: list[bytes]) -> Dataset:
    """Rows with images in the data, without names."""
    rows = [{"image": {"path": None, "bytes": content}} for content in contents]
    return Dataset.from_list(rows).cast_column("image", Image())


def test_contents_of_large_data_are_compared_too():
    contents = [f"{index:09d}".encode() for index in range(5000)]
    assert count_repeated_images(make_contents(contents * 5), "image") == 20_000


def test_contents_that_differ_in_the_middle_alone_are_no_repeated_ones():
    content = np.zeros(20_000, dtype=np.uint8)
    other = content.copy()
    other[10_000] = 1
    images = [content.tobytes(), other.tobytes(), content.tobytes()]
    assert count_repeated_images(make_contents(images), "image") == 1


def test_contents_are_compared_in_the_order_of_selected_rows():
    images = make_contents([b"a", b"b", b"a", b"cc"])
    assert count_repeated_images(images.select([3, 2, 1]), "image") == 0
    assert count_repeated_images(images.select([3, 2, 0]), "image") == 1

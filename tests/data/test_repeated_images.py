"""Rows that have the image of another row."""

from pathlib import Path

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

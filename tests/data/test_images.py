"""The one way to read an image out of a file."""

import io
import zipfile

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Features, Image

from modeling_lotlip.data.images import (
    UnreadableImageError,
    name_row,
    read_file,
    read_image,
    undecoded,
)


def encode(image: PIL.Image.Image, kind: str = "png", **options) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def test_any_mode_becomes_rgb():
    transparent = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    transparent.putpixel((1, 0), (9, 9, 9, 0))
    image = read_image(encode(transparent))
    assert image.mode == "RGB" and list(image.getdata()) == [(255, 0, 0), (255, 255, 255)]
    assert list(read_image(encode(PIL.Image.new("L", (1, 1), 7))).getdata()) == [(7, 7, 7)]
    # 16 bits are scaled, not clipped
    deep = PIL.Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    assert [pixel[0] for pixel in read_image(encode(deep)).getdata()] == [0, 128, 255]


def test_images_are_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    image = PIL.Image.new("RGB", (3, 2), "blue")
    image.putpixel((0, 0), (255, 0, 0))
    turned = read_image(encode(image, exif=exif))
    assert turned.size == (2, 3) and turned.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_large_images_are_made_smaller(kind):
    image = PIL.Image.linear_gradient("L").resize((400, 200)).convert("RGB")
    small = read_image(encode(image, kind), max_side=50)
    assert small.size == (50, 25)
    difference = np.asarray(small, dtype=int) - np.asarray(image.resize((50, 25)), dtype=int)
    assert np.abs(difference).max() < 10
    assert read_image(encode(image, kind), max_side=400).size == read_image(encode(image, kind)).size == (400, 200)


def test_files_are_read_from_wherever_they_are(tmp_path):
    image = PIL.Image.new("RGB", (2, 2), "red")
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", content)
    for path in (str(tmp_path / "a.png"), f"zip://b.png::{tmp_path}/a.zip"):
        assert read_file({"bytes": None, "path": path}) == content
        assert read_image({"bytes": None, "path": path}).size == (2, 2)
    assert read_file({"bytes": b"x", "path": "nothing.png"}) == b"x"


def test_causes_are_told_without_addresses_of_the_memory(tmp_path):
    whole = encode(PIL.Image.effect_noise((60, 60), 90).convert("RGB"))["bytes"]
    for file, cause in {
        "none": (None, "there is no image"),
        "empty": ({"bytes": None, "path": None}, "there is no image"),
        "missing": ({"bytes": None, "path": str(tmp_path / "a.png")}, "the file cannot be read: .*a.png"),
        "text": ({"bytes": b"text", "path": None}, "^cannot identify image file$"),
        "cut off": ({"bytes": whole[:900], "path": None}, "^The image is damaged or cut off: "),
    }.values():
        with pytest.raises(UnreadableImageError, match=cause) as raised:
            read_image(file)
        assert "0x" not in str(raised.value)


def test_names_of_rows():
    file = {"bytes": b"content", "path": None}
    assert name_row({"image": file, "__key__": "007"}) == "007"
    assert name_row({"image": file | {"path": "b.png"}}) == "b.png"
    assert name_row({"file_name": "c.png", "image": file}, 5) == "c.png"
    assert name_row({"image": file}, 5) == "row 5" and name_row({"image": None}) == "a row"


def test_undecoded_images_are_files():
    dataset = Dataset.from_dict({"image": [encode(PIL.Image.new("RGB", (2, 2)))]}, features=Features(image=Image()))
    for data in (dataset, dataset.to_iterable_dataset()):
        (row,) = undecoded(data, "image")
        assert row["image"]["bytes"].startswith(b"\x89PNG")

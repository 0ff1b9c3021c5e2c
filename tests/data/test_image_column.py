"""The column of images: where it is, what its values are, and paths in it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from datasets import Array3D, Dataset, Features, Image, List, Value
from pyarrow import parquet

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.image_column import check_image_type
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.loading import load_split
from tests.helpers.data_files import write_images


both_ways = pytest.mark.parametrize("streaming", [False, True])


@both_ways
def test_the_image_column_may_have_any_name(tmp_path, streaming):
    write_images(tmp_path, ["a.png"])
    rows = {"picture": str(tmp_path / "a.png"), "caption": "a boat"}
    (tmp_path / "rows.json").write_text(json.dumps(rows) + "\n")
    source = SourceArguments(str(tmp_path / "rows.json"), streaming=streaming, image_column="picture")
    assert next(iter(load_split(source, "train")))["picture"].size == (4, 3)  # a path becomes an image
    assert list(load_split(source, "train", with_images=False)) == [rows]
    expected = r"`--image_column image` is not a column of the dataset, which has \['picture', 'caption'\]"
    with pytest.raises(ValueError, match=expected):
        load_split(replace(source, image_column="image"), "train")


@both_ways
def test_images_in_dictionaries_are_refused(tmp_path, streaming):
    (tmp_path / "rows.json").write_text(json.dumps({"meta": {"image": "a.png"}}) + "\n")
    source = SourceArguments(str(tmp_path / "rows.json"), streaming=streaming, image_column="meta.image")
    with pytest.raises(ValueError, match="`--image_column meta.image` is in a dictionary, where no images are read"):
        load_split(source, "train")


@both_ways
def test_files_that_are_written_as_addresses_are_files(tmp_path, streaming):
    write_images(tmp_path, ["a.png"])
    path = tmp_path / "a.png"
    (tmp_path / "rows.json").write_text(json.dumps({"image": path.as_uri()}) + "\n")
    rows = load_split(SourceArguments(str(tmp_path / "rows.json"), streaming=streaming), "train")
    (row,) = undecoded(rows, "image")
    assert Path(row["image"]["path"]) == path


@both_ways
@pytest.mark.parametrize(
    "values",
    [
        pa.array([[137, 80, 78, 71]], pa.list_(pa.uint8())),
        pa.array([[137, 80, 78, 71]], pa.list_(pa.uint8(), 4)),
        pa.array([{"bytes": [137, 80], "path": "a.png"}]),
        pa.array([3]),
        pa.array([1.5]),
    ],
    ids=["list", "list of a fixed size", "list in a struct", "integer", "float"],
)
def test_columns_of_numbers_are_no_images(tmp_path, values, streaming):
    """Lists of bytes, which hold an image file, `datasets` would read as one row of pixels."""
    parquet.write_table(pa.table({"image": values}), tmp_path / "rows.parquet")
    source = SourceArguments(str(tmp_path / "rows.parquet"), streaming=streaming)
    with pytest.raises(ValueError, match="`--image_column image` holds .*, which is no image: write the path"):
        load_split(source, "train")


@both_ways
@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary()])
def test_columns_of_bytes_are_images(tmp_path, type_, streaming):
    write_images(tmp_path, ["a.png"])
    values = pa.array([(tmp_path / "a.png").read_bytes()], type_)
    parquet.write_table(pa.table({"image": values}), tmp_path / "rows.parquet")
    (row,) = load_split(SourceArguments(str(tmp_path / "rows.parquet"), streaming=streaming), "train")
    assert row["image"].size == (4, 3)


@both_ways
def test_lists_of_rows_of_pixels_are_images(tmp_path, streaming):
    parquet.write_table(pa.table({"image": [[[[1, 2, 3], [4, 5, 6]]]]}), tmp_path / "rows.parquet")
    (row,) = load_split(SourceArguments(str(tmp_path / "rows.parquet"), streaming=streaming), "train")
    assert row["image"].size == (2, 1)


@both_ways
@pytest.mark.parametrize("shape", [(3, 6, 4), (3, 6, 3), (3, 6, 8), (4, 6, 3), (1, 6, 8), (6, 8, 1)])
@pytest.mark.parametrize("is_typed", [False, True])
def test_pixels_whose_channels_are_not_last_are_refused(tmp_path, shape, is_typed, streaming):
    features = Features({"image": Array3D(shape, "uint8")}) if is_typed else None
    pixels = np.zeros(shape, dtype=np.uint8).tolist()
    Dataset.from_dict({"image": [None, pixels]}, features).to_parquet(tmp_path / "rows.parquet")
    source = SourceArguments(str(tmp_path / "rows.parquet"), streaming=streaming)
    with pytest.raises(ValueError, match=rf"pixels of the shape \({shape[0]}, .*height x width x channels"):
        load_split(source, "train")


@pytest.mark.parametrize("value", [0.5, 256, -1])
def test_pixels_in_color_are_whole_numbers_of_8_bits(tmp_path, value):
    pixels = np.full((6, 8, 3), value).tolist()
    Dataset.from_dict({"image": [pixels]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=f"pixels from {value} to {value}: write whole numbers from 0 to 255"):
        load_split(SourceArguments(str(tmp_path / "rows.parquet")), "train")


@both_ways
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_relative_paths_of_images_begin_at_their_file_or_else_here(tmp_path, monkeypatch, kind, streaming):
    """Two files name `a.png`, each beside it; the working directory has another `a.png`, and one that only it has."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["one/a.png", "two/a.png", "a.png", "here.png"], start=1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PIL.Image.new("RGB", (number, 1)).save(name)
    files = [f"one/rows.{kind}", f"two/rows.{kind}"]
    for file in files:
        rows = Dataset.from_dict({"image": ["a.png", "here.png"]})
        getattr(rows, f"to_{kind}")(file)
    source = SourceArguments(kind, data_files=files, streaming=streaming)
    (tmp_path / kind).mkdir()  # called as what reads the files
    assert [row["image"].width for row in load_split(source, "train")] == [1, 4, 2, 4]
    (tmp_path / "two/a.png").unlink()
    (tmp_path / "a.png").unlink()
    rows = list(undecoded(load_split(source, "train"), "image"))
    assert rows[2]["image"]["path"].endswith("two/a.png")
    if not streaming:  # what comes later is found, whatever is in the cache
        PIL.Image.new("RGB", (9, 1)).save("one/here.png")
        assert [row["image"].width for row in load_split(source, "train[:2]")] == [1, 9]
    if kind == "csv":
        Path(files[0]).write_text("image;caption\na.png;A.\n")
        with pytest.raises(ValueError, match="'image;caption'.*: separate cells by commas"):
            load_split(replace(source, data_files=files[:1]), "train")


CARD = """---
configs:
- config_name: default
  data_files: train.{kind}
dataset_info:
  features:
  - {{name: image, dtype: image}}
---
"""


@pytest.fixture
def images_of_two_folders(tmp_path, monkeypatch):
    """An `a.png` in the working directory, of one pixel, and in the folder `data`, of two."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for number, name in enumerate(["a.png", "data/a.png"], start=1):
        PIL.Image.new("RGB", (number, 1)).save(name)


def open_widths(source: SourceArguments) -> list[int | None]:
    images = [row["image"] for row in load_split(source, "train")]
    return [None if image is None else image.width for image in images]


@both_ways
@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_relative_paths_that_a_card_calls_images_begin_at_their_file(images_of_two_folders, kind, streaming):
    Path("data/README.md").write_text(CARD.format(kind=kind))
    rows = Dataset.from_dict({"image": [None, "a.png", str(Path("a.png").absolute())]})
    getattr(rows, f"to_{kind}")(f"data/train.{kind}")
    assert open_widths(SourceArguments("data", streaming=streaming)) == [None, 2, 1]


@both_ways
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_relative_paths_in_dictionaries_begin_at_their_file(images_of_two_folders, kind, streaming):
    rows = Dataset.from_dict({"image": [None, {"bytes": None, "path": "a.png"}]})
    getattr(rows, f"to_{kind}")(f"data/train.{kind}")
    assert open_widths(SourceArguments(f"data/train.{kind}", streaming=streaming)) == [None, 2]


def test_a_relative_path_after_contents_begins_at_its_file(images_of_two_folders):
    content = Path("data/a.png").read_bytes()
    images = [{"bytes": None, "path": None}, {"bytes": content, "path": "b.png"}, {"bytes": None, "path": "a.png"}]
    Dataset.from_dict({"image": images}).to_parquet("data/train.parquet")
    rows = load_split(SourceArguments("data/train.parquet"), "train")
    read = [row["image"] for row in undecoded(rows, "image")]
    assert [image["bytes"] for image in read[1:]] == [content, None]
    assert Path(read[2]["path"]).resolve() == Path("data/a.png").resolve()


@both_ways
def test_a_content_is_read_wherever_its_name_points_to(images_of_two_folders, streaming):
    content = {"bytes": Path("a.png").read_bytes(), "path": "a.png"}
    Path("a.png").unlink()  # else `datasets` would not keep the content
    rows = Dataset.from_dict({"image": [content]}, Features({"image": Image()}))
    rows.to_parquet("data/train.parquet")
    assert open_widths(SourceArguments("data/train.parquet", streaming=streaming)) == [1]


@pytest.mark.parametrize(
    "found",
    [Image(), Value("string"), Value("large_binary"), {"bytes": Value("binary"), "path": Value("string")}],
    ids=str,
)
def test_a_column_of_paths_or_content_is_one_of_images(found):
    check_image_type(found, "image")


@pytest.mark.parametrize(
    "found",
    [Value("int64"), List(Value("uint8")), {"bytes": List(Value("uint8"))}, {"caption": Value("string")}],
    ids=str,
)
def test_a_column_of_something_else_is_none_of_images(found):
    with pytest.raises(ValueError, match="`--image_column image` holds .*, which is no image"):
        check_image_type(found, "image")


def test_lists_of_paths_are_no_images():
    with pytest.raises(ValueError, match="`--image_column image` holds lists of texts: write one path for each image"):
        check_image_type(List(Value("string")), "image")

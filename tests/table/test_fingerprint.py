"""The hash of the rows that a table is made of: it knows what is in them, and nothing of how they were read."""

import io
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Image, concatenate_datasets

from modeling_lotlip.table.fingerprint import hash_rows


COLUMNS = {"image": "image", "short": "caption", "long": "json.texts"}
SETTINGS = {"columns": COLUMNS, "key_column": None}


def encode_bitmap(color: int, size: int = 8) -> bytes:
    """A file whose length depends on its size alone."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (size, size), (color, 0, 0)).save(buffer, "BMP")
    return buffer.getvalue()


def make_rows(count: int = 2500) -> list[dict]:
    rows = []
    for index in range(count):
        image = {"bytes": encode_bitmap(index % 5), "path": f"{index}.bmp"}
        texts = {"texts": [f"A boat. {index}", "B."]}
        rows.append({"image": image, "caption": f"a {index}", "json": texts, "other": index})
    rows[7]["caption"] = None
    return rows


def make_dataset(rows: list[dict]) -> Dataset:
    return Dataset.from_list(rows).cast_column("image", Image())


ROWS = make_rows()
HASH = hash_rows(make_dataset(ROWS), SETTINGS)


def test_rows_that_were_read_otherwise_have_the_same_hash(tmp_path):
    parts = concatenate_datasets([make_dataset(ROWS[:13]), make_dataset(ROWS[13:])])
    assert hash_rows(parts, SETTINGS) == HASH
    make_dataset(ROWS).save_to_disk(tmp_path / "saved", num_shards=3)
    assert hash_rows(Dataset.load_from_disk(tmp_path / "saved"), SETTINGS) == HASH
    shuffled = make_dataset(ROWS[::-1]).select(range(len(ROWS) - 1, -1, -1))
    assert hash_rows(shuffled, SETTINGS) == HASH


def test_columns_that_are_not_read_change_nothing():
    assert hash_rows(make_dataset([row | {"other": 0} for row in ROWS]), SETTINGS) == HASH


@pytest.mark.parametrize(
    "change",
    [
        {"caption": "another"},
        {"caption": None},
        {"json": {"texts": ["A boat. 1300 B."]}},
        {"image": {"bytes": encode_bitmap(77), "path": "1300.bmp"}},
        {"image": {"bytes": encode_bitmap(0, 9), "path": "1300.bmp"}},
        {"image": {"bytes": None, "path": "1300.bmp"}},
    ],
    ids=["text", "no text", "list", "image of the same length", "image of another length", "no image"],
)
def test_a_change_of_a_row_is_seen(change):
    rows = list(ROWS)
    rows[1300] = rows[1300] | change
    assert hash_rows(make_dataset(rows), SETTINGS) != HASH


@pytest.mark.parametrize("file_format", ["BMP", "TIFF"])
def test_a_change_in_the_middle_of_an_image_without_compression_is_seen(file_format):
    hashes = set()
    for color in ("white", "red"):
        image = PIL.Image.new("RGB", (128, 128), "black")
        image.paste(color, (0, 50, 128, 78))
        buffer = io.BytesIO()
        image.save(buffer, file_format)
        row = ROWS[0] | {"image": {"bytes": buffer.getvalue(), "path": None}}
        hashes.add(hash_rows(make_dataset([row]), SETTINGS))
    assert len(hashes) == 2


def test_the_order_of_rows_and_their_count_are_seen():
    assert hash_rows(make_dataset(ROWS[1:] + ROWS[:1]), SETTINGS) != HASH
    assert hash_rows(make_dataset(ROWS[:-1]), SETTINGS) != HASH


def test_the_key_is_seen():
    settings = SETTINGS | {"key_column": "other"}
    rows = [*ROWS[:-1], ROWS[-1] | {"other": 0}]
    assert hash_rows(make_dataset(ROWS), settings) != hash_rows(make_dataset(rows), settings)


@pytest.mark.parametrize("name", ["hashes", "addresses"])
def test_columns_of_any_name_are_seen(name):
    """Also of a name that what is hashed of images might have."""
    settings = {"columns": {"image": "image", "short": name, "long": None}, "key_column": None}
    image = {"bytes": encode_bitmap(0), "path": None}
    hashes = set()
    for text in ("a boat", "a car"):
        hashes.add(hash_rows(make_dataset([{"image": image, name: text}]), settings))
    assert len(hashes) == 2


def hash_images(*paths: str | Path | None) -> str:
    """The hash of rows that name nothing but the files or addresses of images, or None."""
    settings = {"columns": {"image": "image", "short": None, "long": None}, "key_column": None}
    rows = Dataset.from_dict({"image": [None if path is None else str(path) for path in paths]})
    return hash_rows(rows.cast_column("image", Image()), settings)


def test_images_in_files_are_left_to_their_signatures(tmp_path):
    for name in ("a.png", "b.png"):
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert hash_images(*files) == hash_images(*files[::-1])


def test_an_image_that_is_taken_away_or_added_is_seen(tmp_path):
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    file = tmp_path / "a.png"
    assert hash_images(file, file) != hash_images(file, None)
    assert hash_images(None, file) != hash_images(file, None)


def test_addresses_of_images_are_seen():
    addresses = ("https://example.com/a.png", "https://example.com/b.png")
    assert hash_images(*addresses) == hash_images(*addresses)
    assert hash_images(*addresses) != hash_images(*addresses[::-1])
    archives = [f"zip://a.png::{address}" for address in ("https://example.com/a.zip", "s3://b/b.zip")]
    assert hash_images(archives[0]) != hash_images(archives[1])


def write_archive(path: Path, **colors: int) -> Path:
    """Writes an archive of images by their names, of one length but for their names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, color in colors.items():
            archive.writestr(f"{name}.bmp", encode_bitmap(color))
    return path


def test_an_archive_with_other_images_of_the_same_names_is_seen(tmp_path):
    archive = write_archive(tmp_path / "images.zip", a=1, b=2)
    addresses = [f"zip://{name}.bmp::{archive}" for name in "ab"]
    before = hash_images(*addresses)
    write_archive(archive, b=2, a=1)  # anew, in another order
    assert hash_images(*addresses) == before
    write_archive(archive, a=2, b=1)
    assert hash_images(*addresses) != before


def test_each_archive_is_read_once_where_images_of_several_alternate(tmp_path, monkeypatch):
    read = []

    class NotedArchive(zipfile.ZipFile):
        def __init__(self, path: str):
            read.append(path)
            super().__init__(path)

    archives = [write_archive(tmp_path / f"{name}.zip", a=1, b=2, c=3) for name in ("first", "second")]
    addresses = [f"zip://{name}.bmp::{archive}" for name in "abc" for archive in archives]
    monkeypatch.setattr("modeling_lotlip.table.fingerprint.zipfile.ZipFile", NotedArchive)
    hash_images(*addresses)
    assert read == list(map(str, archives))


def test_an_archive_may_be_moved(tmp_path):
    archive = write_archive(tmp_path / "images.zip", a=1)
    before = hash_images(f"zip://a.bmp::{archive}")
    moved = archive.rename(tmp_path / "moved.zip")
    assert hash_images(f"zip://a.bmp::{moved}") == before

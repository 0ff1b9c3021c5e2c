"""Other data than those of the run that is resumed are noticed; a copy elsewhere is the same."""

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import PIL.Image
import pytest
from datasets import Dataset, Image, concatenate_datasets

from modeling_lotlip.training import contents
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.contents import hash_some_images, hash_texts
from modeling_lotlip.training.prepare import load_evaluation_data, load_training_data
from tests.helpers.data_files import write_images, write_lines, write_shard


def describe(**options: object) -> dict:
    options = {"output_dir": "run", "eval_split": "train", "per_device_train_batch_size": 2} | options
    return load_training_data(TrainArguments(**options), num_processes=1).contents


def make_image_folder(folder: Path, captions: list[str]) -> Path:
    names = [f"{index}.png" for index in range(len(captions))]
    write_images(folder, names)
    rows = [{"file_name": name, "caption": caption} for name, caption in zip(names, captions)]
    write_lines(folder / "metadata.jsonl", rows)
    return folder


def make_shard(path: Path) -> None:
    write_shard(path, *({f"{index}.png": b"", f"{index}.txt": b"a boat"} for index in range(3)))


def test_captions_that_were_rewritten_are_other_data(tmp_path):
    first = make_image_folder(tmp_path / "first", ["one", "two", "three"])
    rotated = make_image_folder(tmp_path / "rotated", ["two", "three", "one"])
    assert describe(dataset_name=str(rotated)) != describe(dataset_name=str(first))


def test_a_copy_of_later_times_is_the_same_data(tmp_path):
    first = make_image_folder(tmp_path / "first", ["one", "two", "three"])
    copied = tmp_path / "elsewhere" / "copy"
    shutil.copytree(first, copied)
    for file in copied.iterdir():
        os.utime(file, (1, 1))
    assert describe(dataset_name=str(copied)) == describe(dataset_name=str(first))


def test_caption_files_that_were_rewritten_are_other_data(tmp_path):
    folder = make_image_folder(tmp_path / "images", ["one", "two", "three"])
    found = []
    for text in ("first", "second"):
        rows = [{"key": f"{index}.png", "caption": f"{text} {index}"} for index in range(3)]
        files = [write_lines(tmp_path / "captions.jsonl", rows)]
        found.append(describe(dataset_name=str(folder), caption_files=files, key_column="file_name"))
    assert found[0]["texts"] == found[1]["texts"]
    assert found[0] != found[1]


def test_the_hashes_of_images_in_caption_files_are_no_data(tmp_path):
    folder = make_image_folder(tmp_path / "images", ["one", "two"])
    found = []
    for digest in ("a", "b"):
        row = {"caption": "A boat.", "sha256": digest, "captioner": "c"}
        files = [write_lines(tmp_path / "captions.jsonl", [row | {"key": "0.png"}, row | {"key": "1.png"}])]
        found.append(describe(dataset_name=str(folder), caption_files=files, key_column="file_name"))
    assert found[0] == found[1]


def test_shuffled_images_without_texts_of_their_own_are_described(tmp_path):
    folder = tmp_path / "images"
    write_images(folder, ["0.png", "1.png"])
    digest = hashlib.sha256((folder / "0.png").read_bytes()).hexdigest()
    captions = write_lines(tmp_path / "captions.jsonl", [{"sha256": digest, "caption": "A boat."}])
    keys = {"file_key_column": "sha256", "key_column": "image"}
    options = {"dataset_name": str(folder), "caption_files": [captions], "split_seed": 0, **keys}
    found = [describe(**options)]
    write_images(folder, ["2.png"])
    found.append(describe(**options))
    assert found[0] != found[1]


@pytest.mark.parametrize("changed", [0, 999, 1000, 1700, 2499])
def test_every_row_counts(changed):
    captions = [str(index) for index in range(2500)]
    before = Dataset.from_dict({"caption": captions})
    captions[changed] = "another"
    after = Dataset.from_dict({"caption": captions})
    assert hash_texts(after, ["caption"]) != hash_texts(before, ["caption"])


def test_rows_are_the_same_in_whatever_files_they_lie():
    rows = Dataset.from_dict({"caption": [str(index) for index in range(30)]})
    parts = [rows.select(range(20)), rows.select(range(20, 30))]
    reordered = rows.select(list(reversed(range(30)))).select(list(reversed(range(30))))
    expected = hash_texts(rows, ["caption"])
    assert hash_texts(concatenate_datasets(parts), ["caption"]) == expected
    assert hash_texts(reordered, ["caption"]) == expected


@pytest.mark.parametrize(("changed", "is_noticed"), [(0, True), (3, False), (5, True)])
def test_of_very_many_rows_blocks_are_compared(monkeypatch, changed, is_noticed):
    monkeypatch.setattr(contents, "ROWS_PER_BLOCK", 2)
    monkeypatch.setattr(contents, "MAX_COMPARED_ROWS", 4)
    captions = [str(index) for index in range(7)]
    before = Dataset.from_dict({"caption": captions})
    captions[changed] = "another"
    after = Dataset.from_dict({"caption": captions})
    assert (hash_texts(after, ["caption"]) != hash_texts(before, ["caption"])) == is_noticed


def make_embedded_images(*colors: int) -> Dataset:
    images = []
    for color in colors:
        file = io.BytesIO()
        PIL.Image.new("L", (4, 4), color).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    return Dataset.from_dict({"image": images}).cast_column("image", Image())


def test_images_that_are_in_the_dataset_count():
    before = hash_some_images(make_embedded_images(1, 2, 3), ["image"])
    assert hash_some_images(make_embedded_images(1, 2, 3), ["image"]) == before
    assert hash_some_images(make_embedded_images(1, 2, 4), ["image"]) != before


@pytest.mark.parametrize("kind", ["file", "archive", "missing"])
def test_images_of_the_same_names_count_by_what_is_in_them(tmp_path, kind):
    hashes = []
    for color in (1, 1, 2):
        write_images(tmp_path, ["a.png"])
        PIL.Image.new("L", (4, 4), color).save(tmp_path / "a.png")
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.write(tmp_path / "a.png", "a.png")
        paths = {
            "file": str(tmp_path / "a.png"),
            "archive": f"zip://a.png::{tmp_path / 'photos.zip'}",
            "missing": str(tmp_path / "b.png"),
        }
        rows = Dataset.from_dict({"image": [paths[kind]]}).cast_column("image", Image())
        hashes.append(hash_some_images(rows, ["image"]))
    assert hashes[0] == hashes[1]
    assert (hashes[0] == hashes[2]) == (kind == "missing")


def test_a_shard_that_was_added_to_a_stream_is_other_data(tmp_path):
    options = {"dataset_name": "webdataset", "streaming": True, "max_train_steps": 1, "image_column": "png"}
    options |= {"caption_column": "txt", "data_files": [str(tmp_path / "*.tar")]}
    make_shard(tmp_path / "0.tar")
    before = describe(**options)
    copied = tmp_path / "elsewhere"
    copied.mkdir()
    shutil.copy(tmp_path / "0.tar", copied / "0.tar")
    assert describe(**options | {"data_files": [str(copied / "*.tar")]}) == before
    make_shard(tmp_path / "1.tar")
    added = describe(**options)
    assert added["num_files"] == 2
    assert added["num_bytes"] == 2 * before["num_bytes"]
    (tmp_path / "1.tar").rename(tmp_path / "2.tar")
    assert describe(**options)["file_names"] != added["file_names"]


@pytest.mark.parametrize("options", [{}, {"streaming": True, "max_train_steps": 1}])
def test_evaluation_data_is_known_by_its_split_and_its_size(tmp_path, options):
    for name, text in (("train", "a boat"), ("test", "a car")):
        write_lines(tmp_path / f"{name}.jsonl", [{"image": "a.png", "caption": f"{text} {row}"} for row in range(3)])
    options = {"output_dir": "run", "dataset_name": str(tmp_path), **options}
    options["metric_for_best_model"] = "short_mean_recall"
    found = []
    for more in ({"eval_split": "test"}, {"eval_split": "train"}, {"eval_split": "test", "max_eval_samples": 2}):
        found.append(load_evaluation_data(TrainArguments(**options, **more)).contents)
    assert found[1] != found[0]
    assert found[2] != found[0]


def test_a_folder_of_data_is_compared_by_what_is_in_it(tmp_path):
    args = TrainArguments(output_dir="run", dataset_name="webdataset", data_dir=str(tmp_path))
    assert args.compared_on_resume()["data_dir"] is None


def test_a_folder_in_a_repository_is_compared_by_its_name():
    args = TrainArguments(output_dir="run", dataset_name="org/photos", data_dir="part/one")
    assert args.compared_on_resume()["data_dir"] == "part/one"

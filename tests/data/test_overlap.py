"""Images that are in two data sets: found by their files or their bytes, whatever slices, selections and orders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, Image, concatenate_datasets

from modeling_lotlip.data import overlap
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.overlap import find_known_files, find_known_images
from modeling_lotlip.data.scenes import load_scenes


def write_pictures(folder: Path, num_pictures: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    with open(folder / "metadata.jsonl", "w") as file:
        for number, scene in enumerate(load_scenes(num_pictures, seed)):
            scene["image"].save(folder / f"{number}.png")
            file.write(json.dumps({"file_name": f"{number}.png", "caption": scene["caption"]}) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["bytes", "files"])
def test_the_rows_of_slices_and_selections_are_told_apart(tmp_path, kind):
    if kind == "bytes":
        rows = load_scenes(30, seed=4)
    else:
        pictures = write_pictures(tmp_path / "pictures", 30, seed=4)
        rows = load_split(SourceArguments(dataset_name="imagefolder", data_dir=str(pictures)), "train")
    first, last = rows.select(range(20)), rows.select(range(15, 30))
    assert find_known_images(last, first, "image") == (5, 15)
    assert find_known_images(last, rows.select(range(15)), "image") == (0, 15)
    # of an order of its own, of which rows are left out, and of several tables
    odd = rows.select([27, 3, 1, 29, 15])
    assert find_known_images(last, odd, "image") == (3, 15) and find_known_images(odd, first, "image") == (3, 5)
    joined = concatenate_datasets([rows.select(range(2)), load_scenes(3, seed=5).select_columns(["image"]), odd])
    assert find_known_images(last, joined, "image") == (3, 15)


def test_images_that_are_not_there_are_no_overlap():
    files = [{"bytes": None, "path": None}, None, {"bytes": b"abc", "path": "a"}, {"bytes": b"abd", "path": "a"}]
    rows = Dataset.from_list([{"image": file} for file in files]).cast_column("image", Image(decode=False))
    assert find_known_images(rows, rows.select([0, 1, 2]), "image") == (1, 4)


def test_of_many_images_some_are_looked_for_all_over_the_data(monkeypatch):
    monkeypatch.setattr(overlap, "NUM_COMPARED", 10)
    rows = load_scenes(100, seed=6)
    assert find_known_images(rows, rows.select(range(50, 100)), "image") == (5, 10)


def test_streams_are_compared_by_their_files(tmp_path):
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"{number}.parquet"))
        load_scenes(2, seed=number).to_parquet(files[-1])
    source = SourceArguments(dataset_name="parquet", data_files=files, streaming=True)
    assert find_known_files(source, "train", replace(source, data_files=files[:1]), "train") == (1, 3)
    assert find_known_files(replace(source, data_files=files[2:]), "test", source, "train") == (1, 1), "the only split"
    other = shutil.copytree(write_pictures(tmp_path / "a" / "train", 2, seed=1), tmp_path / "a" / "test")
    folder = SourceArguments(dataset_name="imagefolder", data_dir=str(other.parent), streaming=True)
    assert find_known_files(folder, "test", folder, "train")[0] == 0
    assert (
        find_known_files(folder, "all", folder, "train")
        == (3, 6)
        == find_known_files(folder, "train+test", folder, "train")
    )


def test_slices_of_a_seed_have_the_whole_in_another_order(tmp_path):
    rows = [{"number": number} for number in range(40)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    saved = SourceArguments(dataset_name=str(tmp_path / "saved"), split_seed=3)
    built = SourceArguments(dataset_name="json", data_files=[str(tmp_path / "rows.jsonl")], split_seed=3)
    before = sorted(path.name for path in (tmp_path / "saved").iterdir())
    for source in (saved, built):
        first, last, whole = (
            load_split(source, split, with_images=False)["number"][:]
            for split in ("train[:75%]", "train[75%:]", "train")
        )
        assert first + last == whole and sorted(whole) == list(range(40)) and whole != sorted(whole)
        assert len(last) == 10 and load_split(source, "train", 5, with_images=False)["number"][:] == whole[:5]
        other = load_split(replace(source, split_seed=4), "train", with_images=False)["number"][:]
        assert other != whole
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == before, "nothing is written there"
    scenes = SourceArguments(split_seed=1)
    assert find_known_images(load_split(scenes, "test[:50%]"), load_split(scenes, "test[50%:]"), "image") == (0, 128)
    parts = load_split(built, "train[:10%]+train[90%:]", with_images=False)["number"][:]
    whole = load_split(built, "train", with_images=False)["number"][:]
    assert parts == whole[:4] + whole[-4:]
    with pytest.raises(ValueError, match="--split_seed excludes --streaming: leave out one"):
        SourceArguments(dataset_name="json", streaming=True, split_seed=0)

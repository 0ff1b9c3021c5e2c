"""Which files of a folder are images, and what their names mean: nothing but names."""

import json
import os
from collections import Counter

import PIL.Image
import pytest

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.folder import choose_splits, find_files_about_images, find_image_files, scan_folder
from modeling_lotlip.data.images import read_image, undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.utils.output_folder import OutputFolder
from tests.helpers.data_files import read_numbers, write_json


both_ways = pytest.mark.parametrize("streaming", [False, True])

# To libraries these are URLs, archives, patterns, variables and home folders
NAMES = ["file:a.png", "a::b.png", "a.png", "http:b.png", "zip:c.png", "hf:d.png", "$HOME.png", "[0].png", "a*.png"]
NAMES += [" e.png", "p%20q.png", "#f.png", "s?t.png", "dir::x/g.png", "dir:/h.png", "~/i.png"]


def write_images(folder) -> dict[str, int]:
    """Images of different widths; the width of each by its name."""
    widths = {name: width for width, name in enumerate(NAMES, start=1)}
    for name, width in widths.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (width, 1)).save(folder / name)
    return widths


def read_widths(folder, source: SourceArguments) -> dict[str, int]:
    widths = {}
    for row in undecoded(load_split(source, "train"), "image"):
        name = row["image"]["path"].removeprefix(f"{folder}/")
        widths[name] = read_image(row["image"]).width
    return widths


@both_ways
@pytest.mark.parametrize("top", ["photos", "with::colons", "file:x", "$HOME"])
def test_names_of_files_are_no_addresses(tmp_path, top, streaming):
    folder = tmp_path / top
    widths = write_images(folder)
    assert read_widths(folder, SourceArguments(str(folder), streaming=streaming)) == widths


@both_ways
def test_names_in_metadata_are_no_addresses(tmp_path, streaming):
    widths = write_images(tmp_path)
    lines = [json.dumps({"file_name": name, "caption": "A boat."}) for name in widths]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert read_widths(tmp_path, SourceArguments(str(tmp_path), streaming=streaming)) == widths


@both_ways
def test_names_in_json_lines_are_no_addresses(tmp_path, streaming):
    widths = write_images(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"image": name}) for name in widths))
    assert read_widths(tmp_path, SourceArguments(str(file), streaming=streaming)) == widths


@pytest.mark.parametrize("name", ["$HOME.jsonl", "rows-${HOME}.csv"])
def test_a_file_in_place_of_which_another_one_would_be_read_is_refused(tmp_path, name):
    (tmp_path / name).write_text("caption\nA boat.\n")
    with pytest.raises(ValueError, match=r"HOME.*for an environment variable: rename it"):
        load_split(SourceArguments(str(tmp_path / name)), "train", with_images=False)


BAD_LINES = {
    "no file": {"file_name": None, "caption": "A boat."},
    "a file that is not there": {"file_name": "none.png", "caption": "A boat."},
    "no caption": {"file_name": "0.png"},
}


@both_ways
@pytest.mark.parametrize("position", [0, 2])
@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_of_metadata_leaves_the_others_as_they_are(tmp_path, bad, position, streaming):
    good = [{"file_name": f"{index}.png", "caption": f"Boat {index}."} for index in range(2)]
    for line in good:
        PIL.Image.new("RGB", (4, 3)).save(tmp_path / line["file_name"])
    lines = [*good[:position], BAD_LINES[bad], *good[position:]]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = SourceArguments(str(tmp_path), streaming=streaming)
    rows = list(undecoded(load_split(source, "train"), "image"))
    del rows[position]
    found = [(row["image"]["path"], row["caption"]) for row in rows]
    assert found == [(str(tmp_path / line["file_name"]), line["caption"]) for line in good]


@pytest.mark.parametrize(
    "name", ["IMG_1.json", "IMG_1.JPG.json", "img_1.jpg.supplemental-metadata.json", "IMG_1.jpg.supp.json"]
)
def test_files_about_images_are_no_rows(tmp_path, name):
    """As phones and exports leave them, one beside each photograph."""
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "IMG_1.JPG")
    (tmp_path / name).write_text('{"title": "IMG_1"}')
    assert len(load_split(SourceArguments(str(tmp_path)), "train")) == 1


@pytest.mark.parametrize(
    "name", ["rows.json", "IMG_1.jsonl", "IMG_1.csv", "IMG_1.parquet", "more/IMG_1.json", "IMG_10.json"]
)
def test_other_files_are_rows(name):
    assert find_files_about_images(["IMG_1.jpg", name]) == set()


def test_files_of_rows_that_are_not_read_are_warned_of(tmp_path, caplog):
    for name in ("a.png", "b.png"):
        PIL.Image.new("RGB", (4, 3)).save(tmp_path / name)
    (tmp_path / "captions.csv").write_text("image,caption\na.png,A boat.\n")
    assert len(find_image_files(tmp_path)["train"]) == 2
    assert "files are left out: 1 with rows that are no metadata.jsonl, as 'captions.csv'" in caplog.text


def use_backslashes(monkeypatch) -> None:
    """Makes relative paths look as on Windows."""
    relative_path = os.path.relpath
    monkeypatch.setattr(os, "sep", "\\")
    monkeypatch.setattr(os.path, "relpath", lambda *args: relative_path(*args).replace("/", "\\"))


@pytest.mark.parametrize(
    ("names", "is_warned_of"),
    [
        (["Train/0.png", "Test/0.png"], True),
        (["images/train2017/0.png", "images/val2017/a/0.png"], True),
        (["training_set/0.png", "evaluation/0.png", "other.png"], True),
        (["train.zip", "test.zip"], True),
        (["images/Training-data.2/a/0.png", "images/tests/a/0.png"], True),
        (["train/0.png", "test/0.png"], False),
        (["Train 1/0.png", "Train 2/0.png"], False),
        (["trains/0.png", "testimony/0.png"], False),
        (["test tube/0.png", "train/0.png", "dog/0.png"], False),
        (["coco_train/0.png", "coco_val/0.png"], True),
        (["train_v2/0.png", "test_v2/0.png"], True),
        (["trains/0.png", "tests/0.png"], False),
        (["dev board/0.png", "training shoes/0.png"], False),
        (["train_station/0.png", "pressure-test/0.png"], False),
    ],
)
def test_folders_that_are_called_nearly_as_splits_are_warned_of(tmp_path, caplog, names, is_warned_of):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    find_image_files(tmp_path)
    assert ("are the split train, those in" in caplog.text) == is_warned_of


def test_names_have_slashes_on_windows(tmp_path, monkeypatch):
    (tmp_path / "more" / "new").mkdir(parents=True)
    (tmp_path / "more" / "empty").mkdir()
    (tmp_path / "more" / "new" / "3.jpg").write_bytes(b"")
    use_backslashes(monkeypatch)
    scan = scan_folder(tmp_path)
    assert list(scan.files) == ["more/new/3.jpg"]
    assert scan.empty_folders == {"more/empty"}


def test_splits_are_found_on_windows(tmp_path, monkeypatch):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.png").write_bytes(b"")
    use_backslashes(monkeypatch)
    files = find_image_files(tmp_path)
    assert Counter({split: len(names) for split, names in files.items()}) == {"train": 1, "test": 1}


@pytest.mark.parametrize("content", ["a training", "an aligned model", "a mixture"])
def test_what_a_run_wrote_beside_images_is_no_data(tmp_path, content):
    """The curve would be an image, of a class of its own, and the JSON be more files of rows than images."""
    names = ["red/a.png", "blue/b.png", "near/holidays/c.png", "near/holidays/metadata.jsonl"]
    names.append("near/my_interpolation.png")
    written = ["near/interpolation.png", "near/config.json", "near/checkpoint-8/state.json"]
    for name in names + written:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with OutputFolder(tmp_path / "near", content=content):
        pass
    scan = scan_folder(tmp_path)
    assert sorted(scan.files) == sorted(names)
    assert scan.left_out == {"of a saved model": 1}


@pytest.mark.parametrize(("num_images", "num_read"), [(1, 0), (2, 2)])
def test_more_images_than_tables_are_a_folder_of_images(tmp_path, num_images, num_read):
    for index in range(num_images):
        PIL.Image.new("RGB", (4, 3)).save(tmp_path / f"{index}.png")
    (tmp_path / "rows.csv").write_text("image,caption\n0.png,A boat.\n")
    assert sum(map(len, find_image_files(tmp_path).values())) == num_read


def test_hidden_files_and_folders_are_counted_and_empty_ones_known(tmp_path):
    for name in ("a/1.png", ".trash/2.png", "a/.3.png", "a/.notes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b").mkdir()
    scan = scan_folder(tmp_path)
    assert list(scan.files) == ["a/1.png"]
    assert scan.left_out == {"hidden": 2}
    assert scan.empty_folders == {"b"}
    (tmp_path / "c").mkdir()
    assert scan_folder(tmp_path / "c").empty_folders == set(), "that is asked for is no folder in it"


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("test/train_station/0.png", ["test"]),
        ("train_station/test/0.png", ["test"]),
        ("test/train/0.png", ["test"]),
        ("test/train.png", ["test"]),
        ("my_train_set/test/0.png", ["test"]),
        ("places_test/train_station/0.png", ["test"]),
        ("test_v2/x_train.png", ["test"]),
        ("training_data/test.parquet", ["test"]),
        ("train_test_split/test.parquet", ["test"]),
        ("train_test/test-00000-of-00001.parquet", ["test"]),
        ("train_test/part-0.jsonl", ["train", "test"]),
        ("train-minus-test.jsonl", ["train", "test"]),
    ],
)
def test_the_split_is_what_a_part_of_the_path_is_called_after(name, chosen):
    assert choose_splits(name, ["train", "test"]) == chosen


@pytest.mark.parametrize("streaming", [False, True])
def test_tables_in_a_folder_of_two_splits_are_each_in_one(tmp_path, streaming):
    (tmp_path / "train_test").mkdir()
    write_json(tmp_path / "train_test" / "train-0.jsonl", range(4))
    write_json(tmp_path / "train_test" / "test-0.jsonl", range(4, 6))
    source = SourceArguments(str(tmp_path), streaming=streaming)
    assert read_numbers(source, "train") == [0, 1, 2, 3]
    assert read_numbers(source, "test") == [4, 5]


def test_files_that_stay_in_several_splits_are_named(tmp_path, caplog):
    for name in ("train-minus-test", "test"):
        write_json(tmp_path / f"{name}.jsonl", range(2))
    read_numbers(SourceArguments(str(tmp_path)), "train")
    told = f"1 files are in several splits, as '{tmp_path}/train-minus-test.jsonl' in train and test, after the words"
    assert told in caplog.text

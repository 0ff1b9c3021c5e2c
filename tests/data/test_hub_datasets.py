"""Datasets of the Hub: read from a server, and offline out of the cache."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import PIL.Image
import pytest

from tests.common import python_environment
from tests.helpers.data_files import write_images, write_lines, write_shard
from tests.helpers.hub_server import hub_server


NUM_ROWS = 6
PHONE_IMAGES = ["cat/0.jpg", "cat/1.HEIC", "dog/2.avif", "dog/3.Jpg"]
IDS = [f"00{index}" for index in range(NUM_ROWS)]

# What is read: a dataset, as rows or a stream, and its column of images, of which the sizes are printed, or of texts;
# or what a training knows the contents of a stream by
CASES = [
    ("org/shards", "rows", "png"),
    ("org/shards", "stream", "png"),
    ("org/cut", "rows", "png"),
    ("org/lines", "rows", "id"),
    ("org/table", "rows", "id"),
    ("org/folder", "rows", "image"),
    ("org/folder", "stream", "image"),
    ("org/folder", "rows", "id"),
    ("org/folder", "stream", "id"),
    ("org/classes", "rows", "image"),
    ("org/classes", "stream", "image"),
    ("org/carded", "rows", "image"),
    ("org/versions", "rows", "image"),
    ("org/vehicles", "rows", "image"),
    ("org/outside", "rows", "image"),
    ("org/folder", "rows", "file_name"),
    ("org/folder", "stream", "file_name"),
    ("org/classes", "rows", "file_name"),
    ("org/classes", "stream", "file_name"),
    ("org/phone", "rows", "file_name"),
    ("org/phone", "stream", "file_name"),
    ("org/phone-card", "rows", "file_name"),
    ("hf://datasets/org/lines/train.jsonl", "rows", "id"),
    ("org/sheet", "stream", "image"),
    ("org/sheet", "rows", "id"),
    ("org/lines", "contents", "id"),
    ("org/table", "contents", "id"),
    ("hf://datasets/org/lines/train.jsonl", "captions", "id"),
    ("org/typed", "rows", "note"),
    ("org/typed", "stream", "note"),
    ("org/splits", "rows", "note"),
    ("org/splits", "stream", "note"),
]
# After a commit that changes the lines, adds a column to the sheet, and a card to the table
LATER_CASES = [
    ("hf://datasets/org/lines/train.jsonl", "rows", "id"),
    ("hf://datasets/org/lines/train.jsonl", "captions", "id"),
    ("org/sheet", "stream", "note"),
    ("org/lines", "contents", "id"),
    ("org/table", "contents", "id"),
]
OFFLINE_CASES = [("org/shards", "rows", "png"), ("org/lines", "rows", "id"), ("org/table", "rows", "id")]

# For each case prints a line, of what is read or of the error, and one before its warnings
READ = """
import io, json, sys

import PIL.Image
from datasets.exceptions import NonMatchingSplitsSizesError

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.image_folder import find_file_names
from modeling_lotlip.data.images import read_file, undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.contents import describe_stream


def read(name, way, column):
    if way == "captions":
        return CaptionFiles([name], "id", ["caption"])["001"]
    if way == "contents":
        args = TrainArguments(output_dir="run", dataset_name=name, streaming=True, max_train_steps=1)
        return describe_stream(args, "train")["contents"]
    source = SourceArguments(name, streaming=way == "stream")
    if name.startswith("hf://"):
        source = SourceArguments("json", data_files=[name])
    if column == "file_name":
        rows = load_split(source, "train")
        return [row[find_file_names(rows)] for row in rows]
    source.image_column = column
    if column in ("id", "note"):
        rows = load_split(source, "train", with_images=False, key_column="id")
        return [row[column] for row in rows]
    rows = undecoded(load_split(source, "train"), column)
    return [PIL.Image.open(io.BytesIO(read_file(row[column]))).size for row in rows]


for case in json.loads(sys.argv[1]):
    print("== a case", file=sys.stderr, flush=True)
    try:
        print(json.dumps(read(*case)), flush=True)
    except NonMatchingSplitsSizesError as error:
        print(json.dumps(repr(error)), flush=True)
"""


class Read(NamedTuple):
    """What was read in a case, or the error, and what was said."""

    values: list | str
    warnings: str


def write_card(repo: Path, num_rows: int) -> None:
    """Writes a card that says how many rows there are."""
    split = f"{{name: train, num_bytes: 1, num_examples: {num_rows}}}"
    (repo / "README.md").write_text(f"---\ndataset_info:\n  splits: [{split}]\n---\n")


def write_shards(root: Path) -> None:
    """Writes shards of images of 4 x 3, and the same with a card that says more."""
    write_images(root, ["image.png"])
    content = (root / "image.png").read_bytes()
    for name, num_rows in (("shards", NUM_ROWS), ("cut", NUM_ROWS + 1)):
        repo = root / "org" / name
        repo.mkdir(parents=True)
        write_card(repo, num_rows)
        samples = [{f"{index}.png": content, f"{index}.txt": b"A boat."} for index in range(NUM_ROWS)]
        write_shard(repo / "train.tar", *samples)


def write_rows(root: Path) -> None:
    """Writes ids, in JSON lines, parquet and the metadata of a folder, which has an image of 4 x 3 more."""
    rows = [{"id": row_id, "caption": "A boat."} for row_id in IDS]
    for name in ("lines", "table"):
        (root / "org" / name).mkdir(parents=True)
    write_lines(root / "org" / "lines" / "train.jsonl", rows)
    pd.DataFrame(rows).to_parquet(root / "org" / "table" / "train.parquet")
    write_sheet(root, {"id": "007", "image": "hf://datasets/org/classes/train/beach/0.png"})
    (root / "org" / "splits").mkdir()
    (root / "org" / "splits" / "train.csv").write_text("id,note\n001,2.50\n")
    (root / "org" / "splits" / "test.csv").write_text("id,note,more\n002,x,1\n")
    (root / "org" / "typed").mkdir()
    (root / "org" / "typed" / "train.csv").write_text("id,note\n001,7\n")
    features = "[{name: id, dtype: string}, {name: note, dtype: string}]"
    (root / "org" / "typed" / "README.md").write_text(f"---\ndataset_info:\n  features: {features}\n---\n")
    folder = root / "org" / "folder"
    write_images(folder, [f"{index}.png" for index in range(NUM_ROWS + 1)])
    lines = [f"{index}.png,{row_id}\n" for index, row_id in enumerate(IDS)]
    (folder / "metadata.csv").write_text("".join(["file_name,id\n", *lines]))


def write_sheet(root: Path, row: dict[str, str]) -> None:
    """Writes a row of CSV."""
    (root / "org" / "sheet").mkdir(exist_ok=True)
    pd.DataFrame([row]).to_csv(root / "org" / "sheet" / "train.csv", index=False)


def write_classes(root: Path) -> None:
    """Writes folders of classes, one of which is called as a split is, with images of 4 x 3 to train on."""
    for name in ("classes", "carded", "v1"):
        repo = root / "org" / name
        write_images(repo, [f"train/{folder}/{index}.png" for folder in ("beach", "train_station") for index in "01"])
        for folder in ("beach", "train_station"):
            (repo / "test" / folder).mkdir(parents=True)
            PIL.Image.new("RGB", (9, 9)).save(repo / "test" / folder / "0.png")
    card = '---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: "**/*.png"}\n---\n'
    (root / "org" / "carded" / "README.md").write_text(card)
    (root / "org" / "versions").mkdir()
    (root / "org" / "v1").rename(root / "org" / "versions" / "v1")
    card = "---\nconfigs:\n- config_name: default\n  data_dir: v1\n---\n"
    (root / "org" / "versions" / "README.md").write_text(card)
    write_images(root / "org" / "outside", ["train/0.png", "test/0.png"])
    (root / "org" / "outside" / "metadata.csv").write_text("file_name,label\ntrain/0.png,cat\ntest/0.png,dog\n")
    names = [f"train/{name}" for name in PHONE_IMAGES] + ["test/4.jpg", "test/5.heic"]
    for name in ("phone", "phone-card"):
        for file in names:
            write_images(root / "org" / name, [f"{file}.png"])
            (root / "org" / name / f"{file}.png").rename(root / "org" / name / file)
    card = '---\nconfigs:\n- config_name: default\n  data_files: "train/**"\n---\n'
    (root / "org" / "phone-card" / "README.md").write_text(card)
    names = ["sea boat.png", "red train.png", "car.png", "train/__other__/0.png", "__MACOSX/0.png"]
    write_images(root / "org" / "vehicles", names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The repositories, and a folder with another image of each name, in which they are read."""
    folder = tmp_path_factory.mktemp("datasets")
    write_shards(folder / "repositories")
    write_rows(folder / "repositories")
    write_classes(folder / "repositories")
    (folder / "here").mkdir()
    for index in range(NUM_ROWS):
        PIL.Image.new("RGB", (9, 9)).save(folder / "here" / f"{index}.png")
    return folder


def read_cases(folder: Path, cases: list[tuple], **environment: object) -> dict[tuple, Read]:
    """Reads datasets in a process of its own, whose cache stays for the next one."""
    environment = python_environment(HF_HOME=folder / "home", **environment)
    command = [sys.executable, "-c", READ, json.dumps(cases)]
    process = subprocess.run(command, env=environment, cwd=folder / "here", capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    values = map(json.loads, process.stdout.splitlines())
    warnings = process.stderr.split("== a case\n")[1:]
    return {case: Read(*found) for case, *found in zip(cases, values, warnings, strict=True)}


@pytest.fixture(scope="module")
def online(folder):
    """What is read from a server."""
    with hub_server(folder / "repositories") as server:
        cases = read_cases(folder, CASES, HF_ENDPOINT=server.url, HF_HUB_OFFLINE=0)
    assert server.unknown_routes == []
    return cases


@pytest.fixture(scope="module")
def offline(folder, online):
    """What is read after that without a server."""
    return read_cases(folder, OFFLINE_CASES, HF_HUB_OFFLINE=1)


@pytest.fixture(scope="module")
def later(folder, offline):
    """What is read from a server after a commit, with what was read before in the cache."""
    root = folder / "repositories"
    rows = [{"id": row_id, "caption": "A car."} for row_id in reversed(IDS)]
    write_lines(root / "org" / "lines" / "train.jsonl", rows)
    write_sheet(root, {"id": "007", "image": "hf://datasets/org/classes/train/beach/0.png", "note": "later"})
    write_card(root / "org" / "table", NUM_ROWS)
    with hub_server(root) as server:
        return read_cases(folder, LATER_CASES, HF_ENDPOINT=server.url, HF_HUB_OFFLINE=0)


@pytest.mark.parametrize("way", ["rows", "stream"])
def test_shards_of_the_hub_are_read(online, way):
    assert online["org/shards", way, "png"].values == NUM_ROWS * [[4, 3]]


def test_fewer_samples_than_a_card_says_are_an_error(online):
    assert online["org/cut", "rows", "png"].values.startswith("NonMatchingSplitsSizesError")


@pytest.mark.parametrize("name", ["org/lines", "org/table"])
def test_rows_of_the_hub_are_read(online, name):
    assert online[name, "rows", "id"].values == IDS


@pytest.mark.parametrize("case", OFFLINE_CASES)
def test_what_was_read_is_read_again_offline(online, offline, case):
    assert offline[case].values == online[case].values


def test_an_address_of_the_hub_is_that_of_the_present_commit(online, later):
    case = ("hf://datasets/org/lines/train.jsonl", "rows", "id")
    assert online[case].values == IDS
    assert later[case].values == IDS[::-1]
    case = ("hf://datasets/org/lines/train.jsonl", "captions", "id")
    assert online[case].values == ["A boat."]
    assert later[case].values == ["A car."]


def test_a_stream_of_csv_has_the_columns_of_its_file(online, later):
    """And not those of the rows in the cache."""
    assert online["org/sheet", "stream", "image"].values == [[4, 3]]
    assert online["org/sheet", "rows", "id"].values == ["007"]
    assert later["org/sheet", "stream", "note"].values == ["later"]


@pytest.mark.parametrize("way", ["rows", "stream"])
def test_a_card_says_the_types_of_csv(online, way):
    assert online["org/typed", way, "note"].values == ["7"]


@pytest.mark.parametrize("way", ["rows", "stream"])
def test_a_column_of_csv_has_one_type_in_all_splits(online, way):
    assert online["org/splits", way, "note"].values == ["2.50"]


@pytest.mark.parametrize(("name", "is_same"), [("org/lines", False), ("org/table", True)])
def test_a_training_on_a_stream_knows_the_files_by_their_contents(online, later, name, is_same):
    case = (name, "contents", "id")
    assert (later[case].values == online[case].values) == is_same


@pytest.mark.parametrize(("column", "expected"), [("image", NUM_ROWS * [[4, 3]]), ("id", IDS)])
@pytest.mark.parametrize("way", ["rows", "stream"])
def test_a_folder_of_the_hub_is_read(online, way, column, expected):
    case = online["org/folder", way, column]
    assert case.values == expected
    # of a stream it is not known before its end
    is_told = way == "rows" and column == "image"
    assert ("1 of 7 images are left out: they are in no line of metadata" in case.warnings) == is_told


@pytest.mark.parametrize("way", ["rows", "stream"])
def test_a_class_that_is_called_as_a_split_is_no_split(online, way):
    case = online["org/classes", way, "image"]
    assert case.values == 4 * [[4, 3]]
    assert "left out" not in case.warnings


def test_a_card_may_say_the_folder_alone(online):
    case = online["org/versions", "rows", "image"]
    assert case.values == 4 * [[4, 3]]
    assert "left out" not in case.warnings


def test_a_card_says_which_files_are_in_a_split(online):
    case = online["org/carded", "rows", "image"]
    assert sorted(case.values) == 4 * [[4, 3]] + 2 * [[9, 9]]


def test_metadata_in_no_split_is_named(online):
    case = online["org/outside", "rows", "image"]
    assert case.values == [[4, 3]]
    told = "1 files of org/outside are left out, as 'hf://datasets/org/outside@"
    assert told in case.warnings
    assert "/metadata.csv': those of each split with the ending .png are read" in case.warnings


@pytest.mark.parametrize("way", ["rows", "stream"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/folder", [f"{index}.png" for index in range(NUM_ROWS)]),
        ("org/classes", [f"train/{name}/{index}.png" for name in ("beach", "train_station") for index in "01"]),
        ("org/phone", [f"train/{name}" for name in PHONE_IMAGES]),
    ],
)
def test_images_of_a_folder_of_the_hub_have_their_paths(online, name, way, expected):
    """Those of phones among them, whose endings `datasets` does not know."""
    case = online[name, way, "file_name"]
    assert sorted(case.values) == expected
    assert "`datasets` does not know" not in case.warnings


def test_images_that_a_card_does_not_list_are_named(online):
    case = online["org/phone-card", "rows", "file_name"]
    assert case.values == ["train/cat/0.jpg"]
    assert "4 images of datasets/org/phone-card@" in case.warnings
    assert ", as 'test/5.heic', are in no split of its card, since `datasets`" in case.warnings


def test_files_in_no_split_are_named(online):
    case = online["org/vehicles", "rows", "image"]
    assert case.values == [[4, 3]]
    assert "2 of 3 files of org/vehicles are left out, as 'hf://datasets/org/vehicles@" in case.warnings
    assert "words in the names of the others make these the splits train. Name files" in case.warnings
    assert "1 files of org/vehicles are left out, as 'hf://datasets/org/vehicles@" in case.warnings
    assert "/train/__other__/0.png': `datasets` passes over names that begin with __" in case.warnings

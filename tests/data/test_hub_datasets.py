"""Datasets of the Hub: read from a server, and offline out of the cache."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import PIL.Image
import pytest

from tests.common import python_environment
from tests.helpers.data_files import write_images, write_lines, write_shard
from tests.helpers.hub_server import hub_server


NUM_ROWS = 6
IDS = [f"00{index}" for index in range(NUM_ROWS)]

# Prints the sizes of the images of all rows, or without a column of images their keys
READ = """
import io, json, sys

import PIL.Image

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import read_file, undecoded
from modeling_lotlip.data.loading import load_split

name, way, column = sys.argv[1:]
source = SourceArguments(name, image_column=column, streaming=way == "stream")
if column == "id":
    rows = load_split(source, "train", with_images=False, key_column="id")
    print(json.dumps([row["id"] for row in rows]))
else:
    rows = undecoded(load_split(source, "train"), column)
    print(json.dumps([PIL.Image.open(io.BytesIO(read_file(row[column]))).size for row in rows]))
"""


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
    """Writes ids, in JSON lines, parquet and the metadata of a folder of images of 4 x 3."""
    rows = [{"id": row_id} for row_id in IDS]
    for name in ("lines", "table"):
        (root / "org" / name).mkdir(parents=True)
    write_lines(root / "org" / "lines" / "train.jsonl", rows)
    pd.DataFrame(rows).to_parquet(root / "org" / "table" / "train.parquet")
    folder = root / "org" / "folder"
    write_images(folder, [f"{index}.png" for index in range(NUM_ROWS + 1)])
    lines = [f"{index}.png,{row_id}\n" for index, row_id in enumerate(IDS)]
    (folder / "metadata.csv").write_text("".join(["file_name,id\n", *lines]))


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """
    Returns what reads a dataset in a process of its own, in a folder with another image of each name. The cache is
    empty at first.
    """
    folder = tmp_path_factory.mktemp("datasets")
    write_shards(folder / "repositories")
    write_rows(folder / "repositories")
    (folder / "here").mkdir()
    for index in range(NUM_ROWS):
        PIL.Image.new("RGB", (9, 9)).save(folder / "here" / f"{index}.png")

    with hub_server(folder / "repositories") as server:

        def read_in_process(name: str, way: str, column: str) -> subprocess.CompletedProcess:
            environment = python_environment(
                HF_ENDPOINT=server.url, HF_HOME=folder / "home", HF_HUB_OFFLINE=int(way == "offline")
            )
            command = [sys.executable, "-c", READ, name, way, column]
            return subprocess.run(command, env=environment, cwd=folder / "here", capture_output=True, text=True)

        yield read_in_process
    assert server.unknown_routes == []


@pytest.mark.parametrize("ways", [["stream"], ["rows", "offline"]], ids=["a stream", "rows, and again offline"])
def test_shards_of_the_hub_are_read(read, ways):
    for way in ways:
        process = read("org/shards", way, "png")
        assert process.returncode == 0, process.stderr
        assert json.loads(process.stdout) == NUM_ROWS * [[4, 3]]


def test_fewer_samples_than_a_card_says_are_an_error(read):
    process = read("org/cut", "rows", "png")
    assert process.returncode == 1
    assert "NonMatchingSplitsSizesError" in process.stderr


@pytest.mark.parametrize("name", ["lines", "table"])
def test_rows_of_the_hub_are_read_again_offline(read, name):
    for way in ("rows", "offline"):
        process = read(f"org/{name}", way, "id")
        assert process.returncode == 0, process.stderr
        assert json.loads(process.stdout) == IDS


@pytest.mark.parametrize(("column", "expected"), [("image", NUM_ROWS * [[4, 3]]), ("id", IDS)])
@pytest.mark.parametrize("way", ["stream", "rows"])
def test_a_folder_of_the_hub_is_read(read, way, column, expected):
    process = read("org/folder", way, column)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == expected
    # of a stream it is not known before its end
    is_told = way == "rows" and column == "image"
    assert ("1 of 7 images are left out: they are in no line of metadata" in process.stderr) == is_told

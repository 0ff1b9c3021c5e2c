"""`embed_on_ray.py` on this machine: the index is that of `lotlip search`, also where a worker is killed."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from examples.embed_on_ray import open_store, to_table_row
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.table.measurements import read_measurements
from modeling_lotlip.table.storage import EmbeddingTable, is_table
from tests.conftest import ROOT, python_environment
from tests.helpers.commands import run_command


NUM_PICTURES = 120


def find_workers(run: subprocess.Popen) -> list[psutil.Process]:
    """The processes of a run that have the model."""
    children = psutil.Process(run.pid).children(recursive=True)
    return [child for child in children if "MapWorker" in child.name()]


def read_rows(table: EmbeddingTable, columns: list[str]) -> dict[str, dict]:
    """The rows of a table by their keys."""
    rows = {}
    for part in table.read(columns):
        rows |= {row["key"]: row for row in part.to_pylist()}
    return rows


@pytest.mark.pages
def test_no_picture_is_lost_or_twice_where_a_worker_is_killed(model_dir, tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for number in range(NUM_PICTURES):
        folder = photos
        if number % 3 == 0:
            folder = photos / "more"
        # so large that a worker is at work for seconds
        large = make_scene(5, number).draw().resize((2000, 2000))
        large.save(folder / f"{number}.png", compress_level=1)
    (photos / "more" / "loop").symlink_to(photos)
    for name in ("broken.png", "notes.txt", os.fsdecode(b"not_utf8_\xff.png")):
        (photos / name).write_bytes(b"no picture")
    script = [sys.executable, str(ROOT / "examples" / "embed_on_ray.py"), "--photos", str(photos)]
    script += ["--output_dir", str(tmp_path / "index"), "--model", str(model_dir), "--batch_size", "4"]
    environment = python_environment(RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION=0.02)
    with open(tmp_path / "output.txt", "w") as output:
        run = subprocess.Popen(script, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            index = None
            while index is None or len(index) == 0:
                assert run.poll() is None, (tmp_path / "output.txt").read_text()
                if is_table(tmp_path / "index"):
                    index = EmbeddingTable(tmp_path / "index")
                time.sleep(0.02)
            workers = find_workers(run)
            os.kill(workers[0].pid, signal.SIGKILL)
            assert len(workers) == 2
            assert 0 < len(index) < NUM_PICTURES
            assert run.wait(120) == 0, (tmp_path / "output.txt").read_text()
        finally:
            run.kill()
    names = [name for name, _ in index.read_signatures()]
    assert len(names) == len(set(names)) == NUM_PICTURES + 1
    assert len(index) == NUM_PICTURES
    assert index.unreadable.keys() == {"broken.png"}

    texts = ["a red boat", "a house. the ground is sand."]
    query = (*texts, "--model", model_dir, "--k", 9, "--all_copies")
    exact = ("--backend", "torch", "--dtype", "float32")
    found = run_command("search", tmp_path / "ray.json", "--embeddings", tmp_path / "index", *query)
    expected = run_command("search", tmp_path / "own.json", photos, *query, *exact, "--index_dir", tmp_path / "own")
    for one, other in zip(found["queries"], expected["queries"], strict=True):
        paths = [result["path"] for result in one["results"]]
        assert paths == [result["path"] for result in other["results"]]
    (own_index,) = (tmp_path / "own").iterdir()
    table = EmbeddingTable(own_index)
    columns = ["key", "size", "hash", "width", "height", "taken"]
    assert read_rows(index, columns) == read_rows(table, columns)
    assert index.settings["source"] == str(photos)
    assert read_measurements(index) == read_measurements(table)


def test_a_url_is_read_as_a_folder(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "1.png").write_bytes(b"content")
    filesystem, path, source = open_store(f"file://{tmp_path}/")
    assert path == str(tmp_path)
    assert source == f"file://{tmp_path}"
    with filesystem.open_input_stream(f"{path}/more/1.png") as file:
        assert file.read() == b"content"
    row = {"key": f"{path}/more/1.png", "size": 7, "problem": "cut off", "embedding": None}
    assert to_table_row(row, path) == {"key": "more/1.png", "size": 7, "problem": "cut off"}
    for wrong in (f"file://{tmp_path}/none", f"file://{tmp_path}/more/1.png", "nothing://bucket"):
        with pytest.raises(ValueError):
            open_store(wrong)

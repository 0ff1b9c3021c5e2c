"""Batches made in other processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_lotlip import LotlipProcessor
from modeling_lotlip.data.images import UnreadableImageError
from modeling_lotlip.embedding.rows import Item, RowCollator, warn_of_unreadable
from modeling_lotlip.embedding.workers import Workers, count_workers
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def processor(model_dir) -> LotlipProcessor:
    return LotlipProcessor.from_pretrained(model_dir)


def read_row(name: str, grey: int) -> list[Item]:
    """An image of one grey. Some cannot be read, some end the process that decodes them."""
    if name.startswith("torn"):
        raise UnreadableImageError("it is torn")
    if name.startswith("wrong"):
        raise LookupError(f"no column {name}")
    if name.startswith("bomb") and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return [Item(name, "image", Image.new("RGB", (40, 40), (grey, grey, grey))), Item(name, "text", "a red boat")]


def make_batches(names: list[str], size: int = 3) -> list[list]:
    rows = [(name, grey) for grey, name in enumerate(names)]
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def test_batches_are_those_of_one_process_in_their_order(processor):
    names = [f"torn {number}" if number in (4, 12) else f"image {number}" for number in range(20)]
    collate = RowCollator(processor, read_row)
    with Workers(collate, num_workers=2) as workers:
        made = list(workers.map(make_batches(names)))
        again = list(workers.map(make_batches(names[:5])))
    expected = [collate(rows) for rows in make_batches(names)]
    assert len(made) == len(expected) == 7 and len(again) == 2
    for (first, batches), (expected_first, others) in zip(made, expected):
        assert first == expected_first and len(batches) == len(others) == 2
        for batch, other in zip(batches, others):
            assert batch.entries == other.entries and list(batch.unreadable) == list(other.unreadable)
            assert batch.inputs.keys() == other.inputs.keys()
            assert all(torch.equal(batch.inputs[name], other.inputs[name]) for name in other.inputs)


def test_an_image_that_ends_its_process_is_left_out_and_named(processor, caplog):
    names = [f"bomb {number}" if number in (5, 15, 16) else f"image {number}" for number in range(20)]
    with Workers(RowCollator(processor, read_row), num_workers=2) as workers:
        made = list(workers.map(make_batches(names)))
    images = [batches[0] for _, batches in made]
    assert [item.row for batch in images for item in batch.entries] == [name for name in names if "image" in name]
    greys = torch.cat([batch.inputs["pixel_values"][:, 0, 0, 0] for batch in images if batch.entries])
    assert torch.equal(greys.sort().values, greys) and len(greys.unique()) == 17
    warn_of_unreadable([row for batch in images for row in batch.unreadable])
    assert caplog.text.count("decoding it ended the process") == 3
    assert "The image of bomb 15 cannot be read" in caplog.text


def test_errors_of_a_worker_come_through(processor):
    with Workers(RowCollator(processor, read_row), num_workers=1) as workers:
        made = workers.map(make_batches(["image", "image", "image", "wrong", "image"]))
        assert len(next(made)[1][0].entries) == 3
        with pytest.raises(LookupError, match="no column wrong"):
            next(made)


SCRIPT = """
import multiprocessing, os, time
from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
from modeling_lotlip.embedding.rows import RowCollator
from modeling_lotlip.embedding.workers import Workers
from tests.embedding.test_workers import read_row

if {guard}:
    processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer(vocab={{
        "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}}))
    with Workers(RowCollator(processor, read_row), num_workers=2) as workers:
        made = workers.map([[("image", 1)]] * 9)
        next(made)
        ready = set()
        while len(ready) < 2:
            ready.add(workers.executor.submit(os.getpid).result())
        print(*workers.executor._processes, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def run_script(tmp_path):
    """Starts a script that has two workers, in a process group of its own."""

    def run(guard: str) -> subprocess.Popen:
        (tmp_path / "script.py").write_text(SCRIPT.format(guard=guard))
        return subprocess.Popen(
            [sys.executable, tmp_path / "script.py"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return run


def test_workers_end_with_the_program(run_script):
    process = run_script("__name__ == '__main__'")
    pids = process.stdout.readline().split()
    assert len(pids) == 2
    os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in process.communicate()[1]
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives the program"
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    """Whether there is such a process, and no zombie of it."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_script_without_a_guard_is_told_of_it(run_script):
    _, stderr = run_script("True").communicate()
    assert 'call this inside `if __name__ == "__main__":`, or with `num_workers=0`' in stderr.splitlines()[-1]


def test_processes_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert count_workers() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert count_workers() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert count_workers() == 1

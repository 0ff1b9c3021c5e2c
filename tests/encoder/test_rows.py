"""The one way from rows to embeddings."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, Features, Image, IterableDataset, Value
from PIL import Image as PILImage

from modeling_lotlip.data.images import UnreadableImageError, read_image, undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.batches import (
    Item,
    RowCollator,
    batch_rows,
    collate_rows,
    count_workers,
    embed_rows,
    prefetch,
)
from modeling_lotlip.encoder.preprocessing import Preprocessing
from tests.conftest import SERVER, WORDS
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Eleven rows with a text of another length each; the images of 2, 3 and 7 cannot be read."""
    scenes = undecoded(load_scenes(11, seed=2), "image")
    images = list(scenes["image"])
    images[2] = {"bytes": b"no image", "path": "bad.png"}
    images[3] = {"bytes": b"no image", "path": "bad.png"}
    images[7] = None
    texts = [" ".join(WORDS[: 1 + number]) for number in range(11)]
    features = Features(image=Image(decode=False), text=Value("string"))
    return Dataset.from_dict({"image": images, "text": texts}, features=features)


def read_row(number: int, row: dict):
    yield Item(number, "image", read_image(row["image"]))
    yield Item(number, "text", row["text"], index=1)


def test_an_image_that_cannot_be_preprocessed_is_left_out(encoder):
    """One pixel high and very wide it is scaled to a width that no memory holds."""
    image_processor = encoder.processor.image_processor
    images = {
        "good": PILImage.new("RGB", (40, 50)),
        "thin": PILImage.new("RGB", (100_000, 1)),
        "torn": None,
    }

    def read_image(name: str, _: None) -> list[Item]:
        if images[name] is None:
            raise UnreadableImageError("it is torn")
        return [Item(name, "image", images[name])]

    def preprocess(images, return_tensors):
        if any(image.height == 1 for image in images):
            raise ValueError("too thin")
        return image_processor(images, return_tensors=return_tensors)

    processor = SimpleNamespace(image_processor=preprocess, tokenizer=encoder.processor.tokenizer)
    collator = RowCollator(Preprocessing(processor), read_image)
    results = list(embed_rows(encoder, [collator([(name, None) for name in images])]))
    (embedded,) = [result for result in results if result.entries]
    assert [item.row_key for item in embedded.entries] == ["good"]
    assert embedded.embeds.shape == (1, 32)
    unreadable = []
    for result in results:
        unreadable += [(row.key, row.problem) for row in result.unreadable]
    assert unreadable == [("thin", "too thin"), ("torn", "it is torn")]


def test_a_group_is_complete_when_the_next_one_begins(encoder, rows):
    collator = RowCollator(encoder.preprocessing, read_row)
    prepared = []
    for batch in ([0, 1], [2, 3], [4], [5, 6, 7]):
        prepared.append(collator([(number, rows[number]) for number in batch]))
    # rows 2 and 3 are a group of their own, of which nothing is left
    groups = [0, 0, 1, 1, 2, 2, 2, 2]
    results = list(embed_rows(encoder, prepared, group=groups.__getitem__))
    order = [result.group for result in results]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}, "a group without a result"
    found = {0: set(), 1: set(), 2: set()}
    for result in results:
        found[result.group].update(item.row_key for item in result.entries)
    assert found == {0: {0, 1}, 1: set(), 2: {4, 5, 6}}


def read_parts(rows: Dataset | IterableDataset, num_processes: int) -> list[tuple]:
    """The rows of all processes, one process after the other."""
    numbered = []
    for process in range(num_processes):
        for batch in batch_rows(rows, 2, process, num_processes):
            numbered += batch
    return numbered


@pytest.mark.parametrize("num_processes", [1, 3, 13])
def test_each_row_is_read_by_one_process(rows, num_processes):
    numbered = read_parts(rows, num_processes)
    assert [number for number, _ in numbered] == list(range(11))
    assert [row["text"] for _, row in numbered] == rows["text"][:]


def test_each_row_of_a_stream_is_read_by_one_process(rows):
    stream = rows.to_iterable_dataset(num_shards=3)
    texts = [row["text"] for _, row in read_parts(stream, num_processes=3)]
    assert sorted(texts) == sorted(rows["text"])


def read_gray(name: str, gray: int) -> list[Item]:
    """An image of one gray and a text. Some end the process that decodes them, or are no image."""
    if name == "torn":
        raise UnreadableImageError("it is torn")
    if name == "wrong":
        raise LookupError("no column wrong")
    if name == "bomb" and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    image = PILImage.new("RGB", (40, 40), (gray, gray, gray))
    return [Item(name, "image", image), Item(name, "text", "a red boat")]


def cut(names: list[str]) -> list[list]:
    rows = [(name, gray) for gray, name in enumerate(names)]
    return [rows[start : start + 3] for start in range(0, len(rows), 3)]


@pytest.mark.processes
def test_batches_of_other_processes_are_those_of_one_in_their_order(encoder):
    names = [f"image {number}" for number in range(20)]
    names[4] = "torn"
    names[12] = "torn"
    batches = cut(names)
    collate = RowCollator(encoder.preprocessing, read_gray)
    state = torch.get_rng_state()
    made = list(collate_rows(collate, batches, num_workers=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(made) == 7
    for prepared, expected in zip(made, map(collate, batches)):
        assert prepared.key == expected.key
        assert prepared.unreadable == expected.unreadable
        assert len(prepared.texts) == 1
        pairs = [(prepared.images, expected.images), *zip(prepared.texts, expected.texts, strict=True)]
        for batch, other in pairs:
            assert batch.entries == other.entries
            assert batch.inputs.keys() == other.inputs.keys()
            for name, tensor in other.inputs.items():
                assert torch.equal(batch.inputs[name], tensor)


@pytest.mark.processes
@pytest.mark.parametrize(
    "name, error, message",
    [
        ("wrong", LookupError, "^no column wrong$"),
        ("bomb", RuntimeError, '^A process that decodes images has ended: .* under `if __name__ == "__main__":`'),
    ],
)
def test_errors_of_a_worker_come_through(encoder, name, error, message):
    collate = RowCollator(encoder.preprocessing, read_gray)
    batches = cut(["image", "image", "image", name])
    with pytest.raises(error, match=message):
        list(collate_rows(collate, batches, num_workers=1))


def read_text(*_: object) -> list[Item]:
    return [Item(0, "text", "a")]


def send_pids_of_workers(preprocessing: Preprocessing, connection: Connection) -> None:
    made = collate_rows(RowCollator(preprocessing, read_text), [[("a", None)]] * 20, 2)
    next(made)
    connection.send({worker.pid for worker in multiprocessing.active_children()})
    time.sleep(600)


@pytest.mark.processes
def test_workers_end_with_the_program(encoder):
    ours, theirs = SERVER.Pipe()
    program = SERVER.Process(target=send_pids_of_workers, args=(encoder.preprocessing, theirs))
    program.start()
    pids = ours.recv()
    assert len(pids) == 2
    assert all(map(is_running, pids))
    program.kill()
    program.join()
    wait_until(lambda: not any(map(is_running, pids)), lambda: "a worker outlives the program")


def is_running(pid: int) -> bool:
    """Whether there is such a process, and no zombie of it."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("num_items", [0, 1, 3, 20])
def test_what_is_fetched_ahead_comes_whole_and_in_order(num_items):
    assert list(prefetch(iter(range(num_items)), depth=3)) == list(range(num_items))


def test_no_more_is_fetched_ahead_than_the_depth():
    fetched = []

    def fetch():
        for item in range(20):
            fetched.append(item)
            yield item

    items = prefetch(fetch(), depth=3)
    assert next(items) == 0
    items.close()
    assert len(fetched) <= 4


@pytest.mark.parametrize("num_processes, expected", [(None, 8), ("4", 3), ("16", 1)])
def test_processes_of_a_machine_share_its_cores(monkeypatch, num_processes, expected):
    monkeypatch.undo()
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    if num_processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", num_processes)
    assert count_workers() == expected

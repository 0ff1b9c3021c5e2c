"""`lotlip recaption`: mistakes in a line, and a run that is killed and told to end."""

import hashlib
import multiprocessing
import signal
import time
from pathlib import Path

import pytest

import lotlip
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.captioners import (
    find_free_port,
    list_shards,
    of_folder,
    read_records,
    run_as,
    save_captioner,
    stop_later,
)
from tests.helpers.commands import read_error


# Processes of their own that need not import torch again
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.helpers.captioners", "modeling_lotlip.captioning.local"])


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> str:
    return save_captioner("llava", tmp_path_factory.mktemp("captioner") / "llava")


def command_line(folder: Path, *captioners: str, **options: object) -> list[str]:
    argv = ["recaption", "--output_dir", str(folder), "--device", "cpu", "--captioner", *captioners]
    for name, value in ({"max_new_tokens": 12, "without_rules": "all"} | options).items():
        values = [] if value is True else value if isinstance(value, list) else [value]
        argv += [f"--{name}", *map(str, values)]
    return argv


@pytest.fixture
def photos(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    load_scenes(1, seed=21)[0]["image"].save(tmp_path / "photos" / "0.png")
    return tmp_path / "photos"


def test_what_is_wrong_with_data_is_told(photos, llava, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for options, message in (
        (
            {**of_folder(photos), "key_column": "address"},
            "`--key_column address` is no column of the data set",
        ),
        ({**of_folder(photos), "device": "tpu9"}, "`--device tpu9` cannot be used"),
        (of_folder(tmp_path / "empty"), str(tmp_path / "empty")),
    ):
        assert message in read_error(capsys, *command_line(tmp_path / "out", llava, **options))
    assert not (tmp_path / "out").exists(), "nothing is left of a run that captioned nothing"


def test_a_missing_extra_is_named(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    argv = command_line(tmp_path / "out", "model", **of_folder(photos), endpoint="http://127.0.0.1:9/v1")
    assert read_error(capsys, *argv).endswith('`--endpoint` needs openai: `pip install "lotlip[endpoint]"`.')


def test_a_run_of_two_processes_that_is_killed_is_continued_by_one(tmp_path, llava):
    out, port = tmp_path / "out", find_free_port()
    options = {"max_train_samples": 48, "batch_size": 2, "shard_size": 4}
    argv = command_line(out, llava, **options)
    processes = [SERVER.Process(target=run_as, args=(argv, rank, 2, port)) for rank in range(2)]
    for process in processes:
        process.start()
    while len(list_shards(out)) < 3:
        assert all(process.is_alive() for process in processes)
        time.sleep(0.005)
    for process in processes:
        process.kill()
        process.join(timeout=60)
        assert process.exitcode == -signal.SIGKILL
    num_rows = len(read_records(out))
    (out / "captions-000099.parquet.12345.partial").write_bytes(b"torn")
    stop_later(out)
    assert lotlip.main(argv) == 128 + signal.SIGTERM and num_rows < len(read_records(out)) < 48
    assert lotlip.main(argv) == 0

    digests = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(load_scenes(48), "image")]
    assert sorted(row["key"] for row in read_records(out)) == sorted(digests)
    assert not list(out.glob("*.partial"))

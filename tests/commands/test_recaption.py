"""`lotlip recaption`: mistakes in a line, a run that is killed and told to end, and captions in shards."""

import hashlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lotlip
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
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
def caption(tmp_path) -> Callable[..., list[dict]]:
    """Runs the command in this process, and returns the rows that its folder then holds."""

    def run(name: str, *captioners: str, **options: object) -> list[dict]:
        assert lotlip.main(command_line(tmp_path / name, *captioners, **options)) == 0
        return read_records(tmp_path / name)

    return run


@pytest.fixture
def fail(tmp_path, capsys) -> Callable[..., str]:
    """Runs the command in this process, and returns the line that says what is wrong."""

    def run(*captioners: str, **options: object) -> str:
        capsys.readouterr()
        try:
            status = lotlip.main(command_line(tmp_path / "out", *captioners, **options))
        except SystemExit as exit:
            status = exit.code
        output = capsys.readouterr()
        assert status == 2 and "Traceback" not in output.err and "holds captions" not in output.out
        *_, line = output.err.splitlines()
        assert line.startswith("lotlip recaption: error: ")
        return line

    return run


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    load_scenes(1, seed=21)[0]["image"].save(folder / "0.png")
    return folder


def test_wrong_arguments(fail, llava):
    assert "`--captioner` is given twice" in fail(llava, llava)
    line = fail("model", endpoint="localhost:8000/v1")
    assert line.endswith("--endpoint localhost:8000/v1 must begin with http:// or https://.")
    assert "--max_image_size has no effect without --endpoint" in fail(llava, max_image_size=9)


def test_what_is_wrong_with_data_and_models(fail, photos, llava, tmp_path):
    line = fail("lava", **of_folder(photos))
    assert "`--captioner lava` cannot be loaded. It must be one of instructblip, llava, " in line
    assert "`--captioner " in fail(str(photos), **of_folder(photos))
    assert "--prompts_file nothing.txt cannot be read" in fail(llava, prompts_file="nothing.txt")
    line = fail(llava, **of_folder(photos), key_column="address")
    assert "`--key_column address` is no column of the data set, which has ['image', 'file_name']" in line
    assert "`--device tpu9` cannot be used" in fail(llava, **of_folder(photos), device="tpu9")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in fail(llava, **of_folder(tmp_path / "empty"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no picture")
    fail(llava, **of_folder(tmp_path / "texts"))
    assert not (tmp_path / "out").exists(), "nothing is left of a run that captioned nothing"


def test_a_missing_extra_is_named(fail, photos, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = fail("model", **of_folder(photos), endpoint="http://127.0.0.1:9/v1")
    assert line.endswith('`--endpoint` needs openai: `pip install "lotlip[endpoint]"`.')


def test_a_run_of_two_processes_that_is_killed_is_continued_by_one(caption, tmp_path, llava):
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
    rows = caption("out", llava, **options)

    digests = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(load_scenes(48), "image")]
    assert sorted(row["key"] for row in rows) == sorted(digests)
    assert not list(out.glob("*.partial"))


def test_captions_are_packed_beside_their_images(caption, llava, photos, tmp_path):
    """By the hash of the image file, those that failed apart; and training reads the shards as a stream."""
    load_scenes(2, seed=25)[1]["image"].save(photos / "1.png")
    (photos / "broken.png").write_bytes(b"nothing")
    other = save_captioner("llava_next", tmp_path / "llava_next")
    rows = [row for row in caption("captions", llava, other, **of_folder(photos)) if row["caption"]]
    (photos / "broken.png").unlink()
    options = {"output_dir": tmp_path / "shards", "image_format": "png", "key_column": "image", **of_folder(photos)}
    options |= {"caption_files": tmp_path / "captions" / "*.parquet", "file_key_column": "sha256"}
    argv = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    assert lotlip.main(["pack", *argv]) == 0
    source = {"dataset_name": "webdataset", "data_files": [str(tmp_path / "shards" / "*.tar")], "streaming": True}
    packed = load_split(SourceArguments(**source, image_column="png"), "train")
    columns = CaptionArguments(long_captions_column="long_captions.json")
    reader = RowReader(packed.column_names, columns, image_column="png")
    found = {row["json"]["sha256"]: sorted(reader.long_captions(row)) for row in packed}
    expected = {row["sha256"]: [] for row in rows}
    for row in rows:
        expected[row["sha256"]] += [row["caption"]]
    assert len(found) == 2 and found == {digest: sorted(texts) for digest, texts in expected.items()}

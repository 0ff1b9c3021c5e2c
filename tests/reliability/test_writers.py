"""Every command that writes: stopped by a signal, then started twice at once, it leaves everything whole."""

import os
import re
import shlex
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from modeling_lotlip.commands.search import WEAK
from modeling_lotlip.data.scenes import load_scenes
from tests.conftest import SERVER, tiny_config
from tests.helpers.caption_files import SCHEMA, make_rows
from tests.helpers.chat_server import serve
from tests.helpers.images import save_images
from tests.reliability.commands import run_quietly
from tests.reliability.kills import TIME_LIMIT


# What each writes to `out`, in the folder of [`workspace`]. The others write as `evaluate` and `filter` do.
WRITERS = {
    "train": "--config_name config --output_dir out --max_train_samples 16 --max_eval_samples 8 --max_train_steps 2 "
    "--per_device_train_batch_size 8 --checkpointing_steps 1 --resume_from_checkpoint latest",
    "embed": "--model model --output_dir out --max_eval_samples 8 --output_file out/vectors.npz --device cpu",
    "search": "photos boat --k 8 --all_copies --model model --index_dir out --device cpu --backend torch "
    "--dtype float32",
    "recaption": "--captioner a --endpoint URL --output_dir out --dataset_name photos",
    "filter": "--captions captions.parquet --output_dir out",
    "evaluate": "--model model --max_eval_samples 8 --output_file out/results.json --device cpu",
    "pack": "--output_dir out --dataset_name scenes --shard_size 1",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@pytest.fixture(scope="module")
def workspace(model_dir, tmp_path_factory):
    """What the commands read, and the address of a server of captions."""
    folder = tmp_path_factory.mktemp("workspace")
    scenes = load_scenes(8)
    save_images(folder / "photos", scenes["image"])
    scenes.save_to_disk(folder / "scenes")
    tiny_config().save_pretrained(folder / "config")
    parquet.write_table(pa.Table.from_pylist(make_rows(), SCHEMA), folder / "captions.parquet")
    (folder / "model").symlink_to(model_dir)
    with serve({}) as server:
        yield folder, server.url


def run_in(folder: Path, log: str, argv: list[str]) -> None:
    os.chdir(folder)
    run_quietly(folder / log, argv, has_workers=False)


@pytest.mark.processes
@pytest.mark.parametrize("name", WRITERS)
def test_a_command_that_is_stopped_and_started_twice_at_once(name, workspace, tmp_path):
    folder, url = workspace
    for item in folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    argv = [name, *shlex.split(WRITERS[name].replace("URL", url))]
    processes = [SERVER.Process(target=run_in, args=(tmp_path, f"{log}.log", argv)) for log in range(3)]
    number = SIGNALS[list(WRITERS).index(name) % len(SIGNALS)]
    processes[0].start()
    while processes[0].is_alive() and not list(tmp_path.glob("out*")):
        time.sleep(0.001)
    if processes[0].is_alive():
        os.kill(processes[0].pid, number)
    processes[0].join(TIME_LIMIT)
    for process in processes[1:]:
        process.start()
    for process in processes[1:]:
        process.join(TIME_LIMIT)
    logs = [(tmp_path / f"{log}.log").read_text() for log in range(3)]
    assert not any("Traceback" in log for log in logs), logs
    # it may have ended before the signal came
    assert processes[0].exitcode in (0, -number, 128 + number), logs[0]
    for process, log in zip(processes[1:], logs[1:]):
        refusal = f"lotlip {name}: error: .* (is written by|holds shards|another run has written it)"
        is_refused = re.match(refusal, log.splitlines()[-1])
        assert process.exitcode == 0 or (process.exitcode == 2 and is_refused), log
    have_ended = [process.exitcode == 0 for process in processes]
    if name == "search":
        answers = [re.findall(rf"^ +(?:\d|{WEAK}).*", log, re.MULTILINE) for log in logs[1:]]
        assert all(have_ended[1:]), "one waits"
        assert len([line for line in answers[0] if WEAK not in line]) == 8, "one waits"
        assert answers[0] == answers[1], "one waits"
    assert any(have_ended)
    left = [path.name for path in (tmp_path / "out").rglob("*")]
    assert left
    assert ".lock" not in left or not any(file.endswith(("-partial", "-replaced")) for file in left)

"""What may happen to a run, provoked in real ones: nothing is lost, and nothing hangs."""

import errno
import io
import json
import math
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Process
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from datasets import Dataset
from safetensors.torch import load_file

from modeling_lotlip import LotlipModel
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training import loop, outputs, prepare, step
from modeling_lotlip.training.order import BatchSampler
from modeling_lotlip.training.outputs import list_checkpoints, read_metrics
from modeling_lotlip.utils.addresses import listen
from tests.conftest import SERVER, assert_same_weights, torchrun, training_argv
from tests.helpers.waiting import wait_until
from tests.reliability.commands import run_quietly
from tests.test_convert import RunsCode


# as long as no machine takes to load the program and make a step
TIME_LIMIT = 120


def start(argv: list[str], **environment: str) -> tuple[Process, subprocess.Popen]:
    """A training in a process group of its own, and what reads its output until it and its data workers have ended."""
    pipe = Path(tempfile.mkdtemp()) / "output"
    os.mkfifo(pipe)
    process = SERVER.Process(target=run_quietly, args=(pipe, argv[2:], True), kwargs=environment)
    process.start()
    return process, subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)


def finish(process: Process, output: subprocess.Popen) -> str:
    """Waits for the end of both; what was said."""
    errors, _ = output.communicate(timeout=TIME_LIMIT)
    process.join()
    return errors


def wait_for(process: Process, condition: Callable[[], bool]) -> None:
    """Waits until a condition holds, or the process has ended."""
    wait_until(lambda: condition() or not process.is_alive(), lambda: "the run goes on", pause=0.001)


@pytest.mark.processes
def test_a_signal_ends_a_run_with_a_checkpoint(train, tmp_path):
    options = {"max_train_steps": 24, "eval_steps": 100, "max_eval_samples": 2, "checkpointing_steps": 3}
    process, output = start(training_argv(tmp_path, "stopped", **options, dataloader_num_workers=2))
    stopped = tmp_path / "stopped"
    wait_for(process, lambda: bool(list_checkpoints(stopped)))
    os.killpg(process.pid, signal.SIGINT)  # its data workers have groups of their own
    errors = finish(process, output)
    assert process.exitcode == 130, errors
    step = int(list_checkpoints(stopped)[-1].name.split("-")[1])
    assert step < 24
    assert f"Stopped by SIGINT after step {step}" in errors
    assert not (stopped / "model.safetensors").exists()
    resumed = train("stopped", **options, resume_from_checkpoint="latest")
    assert_same_weights(resumed, train("whole", **options))


def test_a_signal_during_an_evaluation_ends_a_run_after_it(train, tmp_path, monkeypatch, caplog):
    def embed(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    original = loop.embed_dataset
    monkeypatch.setattr(loop, "embed_dataset", embed)
    with pytest.raises(SystemExit) as end:
        train("stopped", max_train_steps=40, eval_steps=2, max_eval_samples=2)
    assert end.value.code == 143
    assert "Stopped by SIGTERM after step 2" in caplog.text
    assert [path.name for path in list_checkpoints(tmp_path / "stopped")] == ["checkpoint-2"]
    saved = json.loads((tmp_path / "stopped" / "checkpoint-2" / "training_state.json").read_text())
    num_rows = saved["progress"]["counts"]["rows"]["num_rows"]
    assert num_rows == 2 * 8, "not the batch before which it was stopped, which the resumed run counts"


def test_a_run_whose_output_nobody_reads_any_more_goes_on(train, monkeypatch, caplog):
    """As behind `| head`, which ends after some lines."""
    output = io.StringIO()

    def write(text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(output, "write", write)
    monkeypatch.setattr(sys, "stdout", output)
    folder = train("run", max_train_steps=4, eval_steps=2, max_eval_samples=2)
    evaluations = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" not in row]
    assert [row["step"] for row in evaluations] == [2, 4]
    assert (folder / "eval_results.json").exists()
    assert caplog.text.count("Nobody reads standard output any more: see metrics.jsonl") == 2


@pytest.mark.processes
def test_a_full_disk_leaves_the_last_checkpoint_whole(train, tmp_path):
    options = {"max_train_steps": 30, "checkpointing_steps": 1, "eval_steps": 100}
    full = tmp_path / "full"
    argv = training_argv(tmp_path, "full", **options, checkpoints_total_limit=1, resume_from_checkpoint="latest")
    process, output = start(argv)
    wait_for(process, lambda: bool(list_checkpoints(full)))
    # the largest file that may be written is smaller than the weights
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    errors = finish(process, output)
    assert process.exitcode == 2
    assert "File too large" in errors.splitlines()[-1]
    assert 1 <= len(list_checkpoints(full)) <= 2, "the last whole one is kept"
    resumed = train("full", **options, resume_from_checkpoint="latest")
    assert_same_weights(resumed, train("whole", **options))


def test_a_model_that_cannot_be_saved_is_saved_elsewhere_and_leaves_the_earlier_one(train, tmp_path, monkeypatch):
    def save(model: LotlipModel, partial: str, **kwargs) -> None:
        if folder in Path(partial).parents:
            Path(partial, "model.safetensors").write_bytes(b"torn")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(model, partial, **kwargs)

    options = {"checkpointing_steps": 2, "max_eval_samples": 2}
    original = LotlipModel.save_pretrained
    folder = train("run", **options, max_train_steps=2)
    before = load_file(folder / "model.safetensors")["text_projection.weight"]
    monkeypatch.setattr(LotlipModel, "save_pretrained", save)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="No space left on device. It was saved in .*lotlip_.*: move it from there"):
        train("run", **options, max_train_steps=4, resume_from_checkpoint="latest")
    assert torch.equal(load_file(folder / "model.safetensors")["text_projection.weight"], before)
    assert not list(folder.glob("*-partial"))
    assert (folder / "checkpoint-4").exists()
    (rescued,) = tmp_path.glob("lotlip_*")
    weights, saved = (load_file(path / "model.safetensors") for path in (rescued, folder / "checkpoint-4"))
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in weights.items())


def test_a_model_is_saved_elsewhere_if_its_folder_cannot_be_changed(train, tmp_path, monkeypatch):
    """A disk with an error becomes one that can only be read."""

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(outputs, "delete", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="Read-only file system.* It was saved in .*lotlip_.*: move it"):
        train("run", max_train_steps=1, max_eval_samples=2)
    (rescued,) = tmp_path.glob("lotlip_*")
    assert (rescued / "model.safetensors").exists()


def test_the_last_checkpoints_are_kept(train, tmp_path):
    folder = train("limited", checkpointing_steps=2, checkpoints_total_limit=2, max_train_steps=9)
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-6", "checkpoint-8"]


def test_the_last_epoch_is_saved(train):
    # 6 batches an epoch
    folder = train("run", max_train_steps=None, num_train_epochs=2, checkpointing_steps="epoch")
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-6", "checkpoint-12"]
    longer = {"num_train_epochs": 3, "resume_from_checkpoint": "latest"}
    train("run", max_train_steps=None, checkpointing_steps="epoch", **longer)
    assert [path.name for path in list_checkpoints(folder)][2:] == ["checkpoint-18"]


def test_only_what_a_training_wrote_is_deleted(train, tmp_path):
    folder = tmp_path / "run"
    own = ["logs/slurm-17.out", "best/picture.txt", "checkpoint-500/trainer_state.json", "model_of_mine.safetensors"]
    for name in own:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    train("run", max_train_steps=2, checkpointing_steps=2, with_tracking=True, report_to="tensorboard")
    events = list((folder / "logs" / "lotlip").rglob("events*"))
    assert events
    assert (folder / "checkpoint-2").exists()
    train("run", max_train_steps=1, overwrite_output_dir=True)
    assert all((folder / name).read_text() == "precious" for name in own)
    assert not (folder / "checkpoint-2").exists()
    assert not (folder / "logs" / "lotlip").exists()


def test_a_step_that_is_not_finite_is_skipped(train, monkeypatch, caplog):
    calls = []

    def loss_with_a_hole(*args, **kwargs):
        calls.append(args)
        found = original(*args, **kwargs)
        return replace(found, loss=found.loss * float("nan")) if len(calls) == 3 else found

    original = step.global_loss
    monkeypatch.setattr(step, "global_loss", loss_with_a_hole)
    train("hole", max_train_steps=6)
    assert len(calls) == 6
    assert caplog.text.count("is skipped") == 1
    assert "Step 3 is skipped" in caplog.text


@pytest.mark.processes
def test_too_many_steps_that_are_not_finite_end_a_run_and_its_data_workers(tmp_path):
    options = {"checkpointing_steps": 1, "eval_steps": 100, "max_train_steps": 40, "dataloader_num_workers": 1}
    process, output = start(training_argv(tmp_path, "broken", learning_rate=1e30, warmup_steps=0, **options))
    errors = finish(process, output)
    told = "10 steps in a row had a loss or gradients that are not finite"
    assert process.exitcode == 2
    assert told in errors.splitlines()[-1]
    checkpoints = list_checkpoints(tmp_path / "broken")
    assert checkpoints
    for path in checkpoints:
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())
    assert not (tmp_path / "broken" / "model.safetensors").exists()


def test_a_loss_that_is_never_finite_is_not_the_fault_of_the_learning_rate(train, monkeypatch):
    def loss_without_a_number(*args, **kwargs):
        found = original(*args, **kwargs)
        return replace(found, loss=found.loss * float("nan"))

    original = step.global_loss
    monkeypatch.setattr(step, "global_loss", loss_without_a_number)
    with pytest.raises(ValueError, match="The first 10 steps had a loss .* before any weight was"):
        train("run", max_train_steps=20, max_eval_samples=2)


@pytest.mark.processes
def test_a_process_whose_peer_died_ends(tmp_path):
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    argv = training_argv(tmp_path, "two", max_train_steps=2000, checkpointing_steps=1, ddp_timeout=30)
    environment = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    (process, output), (peer, output_of_peer) = (start(argv, **rank) for rank in ranks)
    wait_for(process, lambda: bool(list_checkpoints(tmp_path / "two")))
    os.killpg(peer.pid, signal.SIGKILL)
    finish(peer, output_of_peer)
    errors = finish(process, output)
    assert process.exitcode not in (0, None)
    assert "peer" in errors or "timed out" in errors.lower()


@pytest.mark.processes
@pytest.mark.parametrize("fails_at", ["data", "checkpoint"])
def test_what_fails_in_one_process_ends_all_and_the_cause_stands_last(tmp_path, fails_at):
    """The second process cannot read its images, or the first one cannot write: the other ends too, at once."""
    script = tmp_path / "fail.py"
    script.write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"  # torchrun's, when the other has ended: each ends by itself
        "import lotlip\n"
        "from modeling_lotlip.training import outputs, samples\n"
        "def fail(*args, **kwargs): raise OSError('a broken disk')\n"
        "if sys.argv[1] == 'data' and os.environ['RANK'] == '1': samples.CaptionedImages.__getitem__ = fail\n"
        "if sys.argv[1] == 'checkpoint' and os.environ['RANK'] == '0': outputs.atomic_write = fail\n"
        "status = lotlip.main(sys.argv[4:])\n"
        "os.write(2, f'\\nprocess {os.environ[\"RANK\"]} ends with {status}\\n'.encode())\n"  # in one piece
        "sys.exit(status)\n"
    )
    argv = training_argv(tmp_path, "two", max_train_steps=200, checkpointing_steps=2, max_eval_samples=2)
    done = torchrun(tmp_path, 2, script, fails_at, *argv)
    assert done.returncode != 0
    assert {f"process {rank} ends with 2" for rank in range(2)} <= set(done.stderr.splitlines())
    assert "lotlip train: error: a broken disk" in [line for line in done.stderr.splitlines() if line.strip("= ")][-1]


@pytest.mark.parametrize(
    "kind, told", [("DEEPSPEED", "DeepSpeed is not supported"), ("FSDP", "FSDP version 1 is not")]
)
def test_ways_to_train_that_are_not_supported_are_refused(train, monkeypatch, kind, told):
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[kind])
    with pytest.raises(ValueError, match=told):
        train("run")


@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_a_checkpoint_that_would_run_code_is_refused(train, tmp_path, name):
    checkpoint = train("first", max_train_steps=2, checkpointing_steps=2) / "checkpoint-2"
    copied = shutil.copytree(checkpoint, tmp_path / "copied")
    assert (copied / name).exists()
    torch.save({"state": RunsCode(tmp_path / "ran")}, copied / name)
    with pytest.raises(pickle.UnpicklingError):
        train("second", resume_from_checkpoint=copied)
    assert not (tmp_path / "ran").exists()
    assert not list(copied.glob("custom_checkpoint_*")), "accelerate unpickles these whatever they hold"


def test_a_resumed_run_whose_rest_has_no_caption_files_goes_on(train, tmp_path):
    """What is left of the epoch may hold none of the images with captions: the whole epoch is judged."""
    scenes = load_scenes(16, seed=3).remove_columns("long_captions")
    scenes.add_column("key", [str(number) for number in range(16)]).save_to_disk(tmp_path / "data")
    first = next(iter(BatchSampler(16, 8, seed=0, process_index=0, num_processes=1)))
    rows = [{"key": str(number), "caption": "A boat. It is red."} for _, number, _, _ in first]  # of that batch alone
    Dataset.from_list(rows).to_json(tmp_path / "side.jsonl")
    options = {"dataset_name": tmp_path / "data", "eval_split": "train", "caption_files": tmp_path / "side.jsonl"}
    options |= {"max_train_samples": None, "max_train_steps": 2, "max_eval_samples": 4, "checkpointing_steps": 1}
    folder = train("run", **options)
    shutil.rmtree(folder / "checkpoint-2")
    train("run", **options | {"max_train_steps": 3}, resume_from_checkpoint="latest")


@pytest.mark.parametrize(
    ("options", "file", "message"),
    [
        ({}, "model.safetensors", "holds model.safetensors of an earlier run"),
        (
            {"resume_from_checkpoint": "latest"},
            "checkpoint-9/training_state.json",
            "holds checkpoint-9, which was not there",
        ),
    ],
)
def test_what_another_run_wrote_stays(train, tmp_path, monkeypatch, options, file, message):
    """Two commands at once: one ends while the other still loads its data."""

    def load(*args):
        written.parent.mkdir(parents=True)
        written.write_text("precious")
        return original(*args)

    written = tmp_path / "run" / file
    original = prepare.load_data
    monkeypatch.setattr(prepare, "load_data", load)
    with pytest.raises(ValueError, match=message):
        train("run", max_train_steps=1, max_eval_samples=2, **options)
    assert written.read_text() == "precious"
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_finished_model_without_a_checkpoint_is_not_trained_anew(train):
    folder = train("run", max_train_steps=1, max_eval_samples=2)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds model.safetensors of an earlier run, but no checkpoint to resume it"):
        train("run", max_train_steps=2, seed=5, max_eval_samples=2, resume_from_checkpoint="latest")
    assert (folder / "model.safetensors").read_bytes() == before


def test_what_a_run_left_before_its_first_checkpoint_is_not_taken_for_that_of_the_next(train, caplog):
    options = {"max_train_steps": 2, "eval_steps": 1, "max_eval_samples": 2}
    options["metric_for_best_model"] = "long_mean_recall"
    folder = train("run", **options)
    for path in folder.iterdir():  # as if it had been killed before its end
        if path.is_file() and path.name != "metrics.jsonl":
            path.unlink()
    results_file = folder / "best" / "eval_results.json"
    best_of_before = json.loads(results_file.read_text()) | {"long_mean_recall": 1000, "num_steps": 9}
    results_file.write_text(json.dumps(best_of_before))
    train("run", **options, resume_from_checkpoint="latest")
    assert json.loads(results_file.read_text())["num_steps"] in (1, 2)
    assert f"An earlier run left metrics.jsonl, best in {folder}" in caplog.text


@pytest.mark.parametrize("name", ["best", "tokenizer", "."])
def test_what_a_run_starts_from_is_not_replaced(train, tmp_path, name):
    folder = train("run", max_train_steps=1)
    shutil.copytree(folder, folder / "best", ignore=shutil.ignore_patterns("best"))
    shutil.copytree(folder, folder / "tokenizer", ignore=shutil.ignore_patterns("best", "tokenizer"))
    argument = {"tokenizer_name": folder / name} if name == "tokenizer" else {"model_name_or_path": folder / name}
    options = {"overwrite_output_dir": True, "max_train_steps": 1} | argument
    if name == "tokenizer":  # which is none of the files that a run deletes
        train("run", **options)
    else:
        with pytest.raises(ValueError, match="would be changed by this run in `--output_dir"):
            train("run", **options, config_name=None)
        with pytest.raises(ValueError, match="`--data_dir .*` would be changed by this run"):
            train("run", dataset_name="imagefolder", data_dir=folder / name, overwrite_output_dir=True)
    assert (folder / name / "model.safetensors").exists()


def test_a_finished_run_that_is_lengthened_goes_on_at_the_rate_of_the_new_schedule(train):
    options = {"checkpointing_steps": 4, "logging_steps": 1, "max_eval_samples": 2, "warmup_steps": 0}
    folder = train("run", **options, max_train_steps=4)
    weights = load_file(folder / "model.safetensors")["text_projection.weight"]
    longer = options | {"max_train_steps": 8, "lr_scheduler_type": "cosine"}
    train("run", **longer, resume_from_checkpoint="latest", eval_steps=100)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["step"] == 5 and "loss" in row]
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-3 * (1 + math.cos(math.pi * 4 / 8)) / 2])
    # the first step after the old end, whose rate was 0 there
    train("other", **options, max_train_steps=5, resume_from_checkpoint=folder / "checkpoint-4")
    after = load_file(folder.parent / "other" / "model.safetensors")["text_projection.weight"]
    assert not torch.equal(weights, after)

"""The example of a training: on scenes and on a folder, in one process and in two, resumed, and what it leaves."""

import json
import re
import shutil
import stat
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, pipeline

from examples import train_lotlip
from examples.draw_scenes import draw_scenes
from modeling_lotlip.data.scenes import load_scenes
from tests.conftest import ROOT, assert_same_weights, forget_accelerator, torchrun
from tests.helpers.dual_encoders import save_family
from tests.test_convert import VOCAB_DIR, original_checkpoint, original_towers


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the example in this process on few scenes; returns its output folder."""

    def run(name: str, *arguments: object) -> Path:
        small = ["--max_train_samples", 40, "--max_eval_samples", 16, "--per_device_train_batch_size", 8]
        argv = ["train_lotlip.py", "--output_dir", tmp_path / name, *small, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        forget_accelerator()
        train_lotlip.main()
        return tmp_path / name

    return run


def test_a_resumed_run_is_the_uninterrupted_one_and_its_model_is_like_any_other(run, tmp_path):
    # 5 batches an epoch: step 3 is in the middle of the first
    whole = run("whole", "--max_train_steps", 7, "--checkpointing_steps", 3, "--eval_steps", 4)
    shutil.copytree(whole / "checkpoint-3", tmp_path / "stopped" / "checkpoint-3")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (whole / "checkpoint-3").iterdir()}
    assert modes == {stat.S_IMODE((whole / "config.json").stat().st_mode)}, "others may read a checkpoint as the model"
    stopped = run("stopped", "--max_train_steps", 7, "--resume_from_checkpoint", "latest", "--eval_steps", 4)
    assert_same_weights(stopped, whole)
    results = json.loads((whole / "eval_results.json").read_text())
    assert results["long_num_images"] == 16 and {"short_t2i_recall@1", "long_i2t_recall@10"} <= results.keys()
    with torch.no_grad():
        inputs = AutoProcessor.from_pretrained(whole)(
            text=["a red boat"], images=load_scenes(1)["image"][0], return_tensors="pt"
        )
        assert AutoModel.from_pretrained(whole)(**inputs).logits_per_image.shape == (1, 1)
    classify = pipeline("zero-shot-image-classification", model=str(whole))
    assert len(classify(load_scenes(1)["image"][0], candidate_labels=["boat", "car"])) == 2
    resume = ["--resume_from_checkpoint", "latest"]
    for wrong in ([], ["--overwrite_output_dir", *resume]):
        with pytest.raises(SystemExit):
            run("whole", *wrong)
    settings = json.loads((whole / "checkpoint-6" / "settings.json").read_text())
    assert {"image_column", "long_captions_column", "decay_steps"} <= settings.keys()
    wrong = {"learning_rate": 1.0, "warmup_steps": 2.0, "caption_column": "long_captions"}
    for name, value in wrong.items():
        with pytest.raises(SystemExit, match=f"{name} was .* in .*checkpoint-6, not {value}: give the same"):
            run("whole", f"--{name}", value, "--max_train_steps", 7, *resume)
    with pytest.raises(SystemExit, match="40 images are less than a batch"):
        run("small", "--per_device_train_batch_size", 64)
    save_family("siglip", tmp_path / "siglip")
    with pytest.raises(SystemExit, match="siglip is a SiglipModel, and this script takes a LoTLIP or"):
        run("siglip_further", "--model_name_or_path", tmp_path / "siglip")


def test_a_finished_model_without_checkpoints_is_not_replaced_by_the_latest(run, tmp_path, capsys):
    (tmp_path / "killed").mkdir()
    latest = ["--resume_from_checkpoint", "latest", "--max_train_steps", 1]
    folder = run("killed", *latest)
    before = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with pytest.raises(SystemExit):
        run("killed", *latest)
    assert "killed holds a model, and no checkpoint to resume: name another" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_a_checkpoint_that_was_not_complete_is_none(run, tmp_path, monkeypatch):
    def fail(self, folder: str) -> None:
        Path(folder).mkdir(parents=True)
        raise OSError("no room left")

    run("stopped", "--max_train_steps", 2, "--checkpointing_steps", 2)
    resume = ["--max_train_steps", 4, "--checkpointing_steps", 3, "--resume_from_checkpoint", "latest"]
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no room left"):
        patched.setattr(train_lotlip.Accelerator, "save_state", fail)
        run("stopped", *resume)
    folder = run("stopped", *resume)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_a_model_in_the_layout_of_the_original_is_trained_further(run, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    words = tmp_path / "cache" / "models--google-bert--bert-base-uncased"
    (words / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (words / "refs").mkdir()
    (words / "refs" / "main").write_text("a" * 40)
    shutil.copy(VOCAB_DIR / "vocab.txt", words / "snapshots" / ("a" * 40))
    original = tmp_path / "original"
    original.mkdir()
    torch.save(original_checkpoint(*original_towers(num_words=30522)), original / "model.pt")
    folder = run("further", "--model_name_or_path", original, "--max_train_steps", 1)
    assert AutoModel.from_pretrained(folder).config.text_config.vocab_size == 30522


def test_a_model_with_the_tokenizer_of_a_shorter_one_is_trained_at_its_own_limit(family_folders):
    args = Namespace(model_name_or_path=str(family_folders("long_clip")))
    model, processor = train_lotlip.load_model(args, rows=None, reader=None)
    samples = train_lotlip.CaptionedImages([], None, processor, seed=0, keep_in_memory=False)
    assert len(samples.tokenize("boat " * 300)["input_ids"]) == 248
    assert train_lotlip.DualEncoder(model, processor).max_length == 248


def test_a_run_of_one_step_has_no_warm_up():
    assert train_lotlip.count_steps(0.05, 1) == 0
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(SystemExit, match="--warmup_steps 1 is the whole run of 1 steps: give fewer"):
        train_lotlip.make_scheduler(optimizer, 1, Namespace(warmup_steps=1, decay_steps=0.3))


def test_it_learns_and_trains_a_model_further_in_bfloat16(run):
    first = run("first", "--max_train_steps", 15, "--learning_rate", 0.003)
    further = run("further", "--max_train_steps", 2, "--model_name_or_path", first, "--mixed_precision", "bf16")
    weights = [load_file(folder / "model.safetensors")["text_projection.weight"] for folder in (first, further)]
    assert weights[1].dtype == torch.float32 and 0 < (weights[1] - weights[0]).abs().max() < 1e-3


def test_a_norm_of_0_does_not_clip_gradients(run):
    folders = [run(f"norm-{norm}", "--max_train_steps", 2, "--max_grad_norm", norm) for norm in (0, 1e9)]
    assert_same_weights(*folders)


@pytest.mark.parametrize(
    ("argument", "value", "least"), [("max_train_steps", 0, 1), ("max_eval_samples", 0, 1), ("max_grad_norm", -1.0, 0)]
)
def test_numbers_that_are_too_small_are_refused(run, capsys, argument, value, least):
    with pytest.raises(SystemExit):
        run("wrong", f"--{argument}", value)
    assert f"--{argument} must be at least {least}, got {value}" in capsys.readouterr().err


@pytest.mark.processes
def test_two_processes_train_on_a_folder(tmp_path):
    images = tmp_path / "images"
    draw_scenes(images, 50, seed=3)
    script = ROOT / "examples" / "train_lotlip.py"
    arguments = ["--dataset_name", "imagefolder", "--data_dir", images, "--per_device_train_batch_size", 8]
    arguments += ["--output_dir", tmp_path / "two", "--max_train_steps", 3, "--eval_steps", 2]
    done = torchrun(tmp_path, 2, script, *arguments, ACCELERATE_USE_CPU="false", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^step (\d+): ", done.stdout, re.MULTILINE) == ["2", "3"]
    results = json.loads((tmp_path / "two" / "eval_results.json").read_text())
    assert results["short_num_images"] == 5, "a tenth is held back"


def test_it_takes_thirteen_names_of_the_package_at_most():
    source = Path(train_lotlip.__file__).read_text()
    imported = re.findall(r"^from modeling_lotlip\S* import (.+)$", source, re.MULTILINE)
    assert 4 < len(", ".join(imported).split(", ")) <= 13

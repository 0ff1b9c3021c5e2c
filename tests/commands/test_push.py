"""`lotlip push`, over HTTP on loopback; what is uploaded is in tests/test_hub.py."""

import json
import shutil

import pytest
from huggingface_hub import constants

from modeling_lotlip.hub import find_model_files
from tests.helpers.commands import read_error
from tests.helpers.hub_server import hub_server


def test_a_push_without_a_login_is_an_error_that_names_the_command(model_dir, tmp_path, monkeypatch, capsys):
    with hub_server(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert "hf auth login" in read_error(capsys, "push", model_dir, "org/mine")
        assert not (hub.root / "org").exists()


def test_a_hub_that_cannot_be_reached_is_one_line(model_dir, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "The Hub cannot be reached for `org/mine`: " in read_error(capsys, "push", model_dir, "org/mine")


def test_results_go_with_the_model_and_checkpoints_do_not(model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "run")
    expected = {*find_model_files(folder), "eval_results.json"}
    for name in ("eval_results.json", "metrics.jsonl", "checkpoint-3/model.safetensors", "best/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert {*find_model_files(folder)} == expected


def test_a_model_that_needs_a_folder_of_this_machine_is_not_pushed(tmp_path, capsys):
    tower = {"name": str(tmp_path / "text"), "revision": None, "hash": "1"}
    config = {"model_type": "lotlip_aligned", "towers": {"text_model": tower}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"loads a tower from {tmp_path / 'text'}" in read_error(capsys, "push", tmp_path, "org/mine")


@pytest.mark.parametrize("name", ["spiece.model", "vocab.txt", "merges.txt"])
def test_the_files_of_a_tokenizer_in_python_go_with_the_model(name, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "run")
    (folder / name).write_text("words")
    assert name in find_model_files(folder)

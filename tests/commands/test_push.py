"""`lotlip push`: a model's files and nothing else, over HTTP on loopback."""

import pytest
from huggingface_hub import constants

import lotlip
from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.hub import push_folder, write_model_card
from tests.helpers.hub_server import hub_server


@pytest.fixture
def folder(model_dir, tmp_path):
    """A model with card and code, and beside it what a training leaves."""
    folder = tmp_path / "run"
    model, processor = (cls.from_pretrained(model_dir) for cls in (LotlipModel, LotlipProcessor))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_model_card(folder, "org/mine", provenance="Mine.")
    (folder / "eval_results.json").write_text("{}")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server(tmp_path / "hub") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def pushed(hub, name: str) -> set[str]:
    return {path.relative_to(hub.root / name).as_posix() for path in (hub.root / name).rglob("*") if path.is_file()}


def test_the_files_of_the_model_and_no_others(folder, hub, capsys):
    model_files = {path.name for path in folder.iterdir()}
    for path in ("checkpoint-3/model.safetensors", "logs/events.1", "best/README.md", ".cache/README.md"):
        (folder / path).parent.mkdir()
        (folder / path).write_text("mine")
    for name in ("metrics.jsonl", "secrets.txt", "train.py"):
        (folder / name).write_text("mine")
    assert lotlip.main(["push", str(folder), "org/mine"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/org/mine"
    assert pushed(hub, "org/mine") == model_files

    push_folder(folder, "org/named", allow_patterns=["config.json", "README.md"])
    assert pushed(hub, "org/named") == {"config.json", "README.md"}


def test_nobody_is_logged_in(folder, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert lotlip.main(["push", str(folder), "org/mine"]) == 2
    output = capsys.readouterr()
    assert "hf auth login" in output.err and output.err.count("\n") == 1 and output.out == ""
    assert not (hub.root / "org").exists()


def test_no_model_is_no_upload(tmp_path, hub, capsys):
    assert lotlip.main(["push", str(tmp_path), "org/mine"]) == 2
    assert "name a folder that a model was saved in" in capsys.readouterr().err
    assert not hub.requests

"""`lotlip push`, over HTTP on loopback; what is uploaded is in tests/test_hub.py."""

import json
import shutil

import pytest
from huggingface_hub import constants

from modeling_lotlip.hub import find_model_files, push_folder, write_model_card
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
    assert "refused" in read_error(capsys, "push", model_dir, "org/mine")


def test_results_go_with_the_model_and_checkpoints_do_not(model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "run")
    expected = {*find_model_files(folder), "eval_results.json"}
    for name in ("eval_results.json", "metrics.jsonl", "checkpoint-3/model.safetensors", "best/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert {*find_model_files(folder)} == expected


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server that is the Hub of this process."""
    with hub_server(tmp_path / "hub") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def test_what_a_repository_has_of_an_earlier_model_is_deleted(hub, model_dir, tmp_path):
    earlier = shutil.copytree(model_dir, tmp_path / "earlier")
    (earlier / "model.safetensors").rename(earlier / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"logit_scale": "model-00001-of-00001.safetensors"}}
    (earlier / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("eval_results.json", "interpolation.json", ".eval_results/lotlip.yaml", "vocab.txt"):
        (earlier / name).parent.mkdir(exist_ok=True)
        (earlier / name).write_text("{}")
    push_folder(earlier, "org/mine")
    pushed = hub.root / "org" / "mine"
    (pushed / "notes.md").write_text("of somebody")
    (pushed / "2024_results").mkdir()
    (pushed / "2024_results" / "notes.md").write_text("of somebody")
    of_modules = ("1_Pooling/config.json", "2_Dense/model.safetensors")
    of_adapters = ("adapter_config.json", "adapter_model.safetensors")
    for name in (*of_modules, *of_adapters, "config_sentence_transformers.json"):
        (pushed / name).parent.mkdir(exist_ok=True)
        (pushed / name).write_text("{}")
    assert (pushed / ".eval_results" / "lotlip.yaml").exists()
    (model_dir / "README.md").unlink(missing_ok=True)

    push_folder(model_dir, "org/mine")

    names = {file.relative_to(pushed).as_posix() for file in pushed.rglob("*") if file.is_file()}
    assert names == {*find_model_files(model_dir), "notes.md", "2024_results/notes.md", "README.md"}
    assert hub.unknown_routes == []


def test_the_card_names_the_repository_and_stays_as_it_is_in_the_folder(hub, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "photos")
    write_model_card(folder, "photos")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for name in ("org/mine", "org/other"):
        push_folder(folder, name)
        pushed = (hub.root / name / "README.md").read_text(encoding="utf-8")
        assert pushed == card.replace('"photos"', f'"{name}"')
    assert (folder / "README.md").read_text(encoding="utf-8") == card


def test_what_an_upload_does_not_replace_stays(hub, model_dir, tmp_path):
    push_folder(model_dir, "org/mine")
    pushed = hub.root / "org" / "mine"
    (pushed / "model-large").mkdir()
    (pushed / "model-large" / "model.safetensors").write_text("of another model")
    (pushed / "eval_results.json").write_text("{}")
    before = {file.relative_to(pushed).as_posix() for file in pushed.rglob("*") if file.is_file()}
    (tmp_path / "card").mkdir()
    shutil.copy(model_dir / "config.json", tmp_path / "card")
    (tmp_path / "card" / "README.md").write_text("# Mended")
    push_folder(tmp_path / "card", "org/mine")
    after = {file.relative_to(pushed).as_posix() for file in pushed.rglob("*") if file.is_file()}
    assert after == before | {"README.md"}
    push_folder(model_dir, "org/mine")
    assert (pushed / "model-large" / "model.safetensors").exists()
    assert not (pushed / "eval_results.json").exists()


def test_files_that_are_named_are_uploaded_and_none_is_deleted(hub, model_dir):
    push_folder(model_dir, "org/mine")
    names = {file.name for file in (hub.root / "org" / "mine").iterdir()}
    push_folder(model_dir, "org/mine", allow_patterns=["config.json"])
    assert {file.name for file in (hub.root / "org" / "mine").iterdir()} == names


def test_code_of_any_name_goes_with_the_model(model_dir, tmp_path):
    """That of the configuration, of a part of it and of the tokenizer, and what it imports."""
    folder = shutil.copytree(model_dir, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "pooled.PooledModel", "AutoConfig": "org/a--elsewhere.Config"}
    config["text_config"]["auto_map"] = {"AutoModel": "tower.Tower"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer_config = {"auto_map": {"AutoTokenizer": [None, "words.Words"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (folder / "pooled.py").write_text("from .layers import Layer\n")
    (folder / "layers.py").write_text("from .pooled import PooledModel\nfrom .nowhere import Nothing\n")
    for name in ("tower.py", "words.py", "elsewhere.py", "notes.py"):
        (folder / name).write_text("")
    code = {name for name in find_model_files(folder) if name.endswith(".py")}
    own = {file.name for file in folder.glob("*_lotlip.py")}
    assert code - own == {"pooled.py", "layers.py", "tower.py", "words.py"}


@pytest.mark.parametrize("name", ["spiece.model", "vocab.txt", "merges.txt"])
def test_the_files_of_a_tokenizer_in_python_go_with_the_model(name, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "run")
    (folder / name).write_text("words")
    assert name in find_model_files(folder)

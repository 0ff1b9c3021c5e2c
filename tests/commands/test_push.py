"""`lotlip push`: a model's files and nothing else, over HTTP on loopback."""

from huggingface_hub import constants

import lotlip
from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.hub import write_model_card
from tests.helpers.commands import read_error
from tests.helpers.hub_server import hub_server


def test_the_files_of_the_model_and_no_others(model_dir, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    for cls in (LotlipModel, LotlipProcessor):
        cls.from_pretrained(model_dir).save_pretrained(folder)
    write_model_card(folder, "org/mine", provenance="Mine.")
    model_files = {path.name for path in folder.iterdir()} | {"eval_results.json"}
    # what a training leaves
    for name in ("checkpoint-3/model.safetensors", "logs/events.1", "best/README.md", ".cache/README.md"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("mine")
    for name in ("eval_results.json", "metrics.jsonl", "secrets.txt", "train.py"):
        (folder / name).write_text("{}")
    with hub_server(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert "hf auth login" in read_error(capsys, "push", folder, "org/mine")
        assert not (hub.root / "org").exists()

        monkeypatch.setenv("HF_TOKEN", hub.token)
        assert lotlip.main(["push", str(folder), "org/mine"]) == 0
        assert capsys.readouterr().out.strip() == f"{hub.url}/org/mine"
        pushed = hub.root / "org/mine"
        assert {str(path.relative_to(pushed)) for path in pushed.rglob("*") if path.is_file()} == model_files

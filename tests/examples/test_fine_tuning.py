"""The recipes of docs/fine_tuning.md, where they could go wrong: adapters saved and merged."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from examples import train_with_trainer
from modeling_lotlip import LotlipModel
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.dual_encoder import MAX_LOGIT_SCALE


def run_example(monkeypatch, folder: Path, model_dir: Path, learning_rate: float, *options: object) -> Path:
    """Runs the script in this process on a few scenes; gives its output folder."""
    argv = ["train_with_trainer", "--model", model_dir, "--output_dir", folder / "out", "--max_train_samples", 20]
    argv += ["--max_steps", 2, "--per_device_train_batch_size", 4, "--use_cpu", *options]
    argv += ["--learning_rate", learning_rate]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    train_with_trainer.main()
    return folder / "out"


def test_the_script_with_trainer(monkeypatch, tmp_path, model_dir):
    """A learning rate that throws `logit_scale` out of its bounds, were it not clamped."""
    folder = run_example(monkeypatch, tmp_path, model_dir, 10.0)
    before, after = LotlipModel.from_pretrained(model_dir), AutoModel.from_pretrained(folder / "model")
    assert not torch.equal(before.text_projection.weight, after.text_projection.weight)
    corners = [model.text_model.embeddings.corner_tokens for model in (before, after)]
    assert not torch.equal(*corners), "long captions train the corner tokens"
    assert after.logit_scale.item() in (0.0, pytest.approx(MAX_LOGIT_SCALE))


def test_the_script_with_lora(monkeypatch, tmp_path, model_dir, capsys):
    folder = run_example(monkeypatch, tmp_path, model_dir, 0.01, "--lora_rank", 4)
    assert "trainable params" in capsys.readouterr().out
    before, after = LotlipModel.from_pretrained(model_dir), AutoModel.from_pretrained(folder / "model")
    changed = {
        name for name, weight in after.state_dict().items() if not torch.equal(weight, before.state_dict()[name])
    }
    assert "text_projection.weight" in changed and "text_model.layers.1.mlp.fc2.weight" in changed
    assert all(
        name.startswith(("text_model.layers.", "text_projection.")) and name.endswith("weight") for name in changed
    )
    adapted = PeftModel.from_pretrained(before, folder / "adapter").merge_and_unload().state_dict()
    for name, weight in after.state_dict().items():
        torch.testing.assert_close(adapted[name], weight)


def test_few_rows_are_evaluated_and_too_few_an_error(monkeypatch, tmp_path, model_dir, capsys):
    run_example(monkeypatch, tmp_path, model_dir, 0.01)
    assert "eval_loss" in capsys.readouterr().out, "two rows are held back, a batch has four"
    with pytest.raises(ValueError, match="18 images are less than a batch: lower"):
        run_example(monkeypatch, tmp_path, model_dir, 0.01, "--per_device_train_batch_size", 64)


@pytest.mark.parametrize("name", ["train_with_trainer", "train_sentence_transformers"])
def test_a_column_that_is_not_there_is_one_line(monkeypatch, tmp_path, model_dir, name):
    load_scenes(4).remove_columns("long_captions").save_to_disk(tmp_path / "short")
    argv = [name, "--model", model_dir, "--output_dir", tmp_path / "out", "--dataset_name", tmp_path / "short"]
    argv += ["--long_captions_column", "texts"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(ValueError, match="`--long_captions_column texts` is no column of the data set"):
        importlib.import_module(f"examples.{name}").main()

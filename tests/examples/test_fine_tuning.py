"""The recipes of docs/training.md, where they could go wrong: adapters saved and merged."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModel, TrainingArguments

from examples.train_sentence_transformers import build_evaluator
from examples.train_with_trainer import FineTuningTrainer
from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.contract import MAX_LOGIT_SCALE
from tests.conftest import ROOT, torchrun


@pytest.fixture
def run_example(monkeypatch, tmp_path, model_dir):
    """Runs a script in this process on a few scenes; gives its output folder."""

    def run(name: str, *options: object) -> Path:
        argv = [name, "--model", model_dir, "--output_dir", tmp_path / "out", "--max_train_samples", 20, "--use_cpu"]
        argv += ["--max_steps", 2, "--per_device_train_batch_size", 4, *options]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        importlib.import_module(f"examples.{name}").main()
        return tmp_path / "out"

    return run


def test_the_script_with_trainer(run_example, model_dir, capsys):
    """A learning rate that throws `logit_scale` out of its bounds, were it not clamped."""
    with pytest.raises(ValueError, match="18 images are less than a batch: lower"):
        run_example("train_with_trainer", "--per_device_train_batch_size", 64)
    folder = run_example("train_with_trainer", "--learning_rate", 10)
    assert "eval_loss" in capsys.readouterr().out, "two rows are held back, a batch has four"
    before = LotlipModel.from_pretrained(model_dir)
    after = AutoModel.from_pretrained(folder / "model")
    assert not torch.equal(before.text_projection.weight, after.text_projection.weight)
    corners = [model.text_model.embeddings.corner_tokens for model in (before, after)]
    assert not torch.equal(*corners), "long captions train the corner tokens"
    assert after.logit_scale.item() in (0.0, pytest.approx(MAX_LOGIT_SCALE))


@pytest.mark.processes
def test_images_that_are_less_than_a_batch_of_all_processes_are_refused(model_dir, tmp_path):
    """Each process would have no batch: trained nothing, and a model all the same."""
    script = ROOT / "examples" / "train_with_trainer.py"
    arguments = ["--model", model_dir, "--output_dir", tmp_path / "out", "--max_train_samples", 20, "--use_cpu"]
    arguments += ["--max_steps", 1, "--per_device_train_batch_size", 10]
    done = torchrun(tmp_path, 2, script, *arguments, CUDA_VISIBLE_DEVICES="")
    assert done.returncode != 0
    assert "18 images are less than a batch: lower --per_device_train_batch_size" in done.stderr
    assert not (tmp_path / "out" / "model").exists()


def test_all_images_that_are_held_back_are_evaluated_on(tmp_path):
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=2, dataloader_drop_last=True, use_cpu=True)
    rows = Dataset.from_dict({"number": [1, 2, 3, 4, 5]})
    trainer = FineTuningTrainer(torch.nn.Linear(1, 1), arguments, eval_dataset=rows, data_collator=list)
    batches = [[row["number"] for row in batch] for batch in trainer.get_eval_dataloader()]
    assert batches == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("options", "folders"),
    [((), ("checkpoint-2", "model")), (("--lora_rank", 4), ("checkpoint-2", "adapter", "model"))],
    ids=["all weights", "lora"],
)
def test_whatever_trainer_saves_has_its_processor(run_example, options, folders):
    output_dir = run_example("train_with_trainer", *options)
    for name in folders:
        processor = LotlipProcessor.from_pretrained(output_dir / name)
        assert processor.tokenizer("a red boat")["input_ids"][0] == processor.tokenizer.cls_token_id


def test_the_script_with_lora(run_example, model_dir, capsys):
    folder = run_example("train_with_trainer", "--learning_rate", 0.01, "--lora_rank", 4)
    assert "trainable params" in capsys.readouterr().out
    before = LotlipModel.from_pretrained(model_dir)
    after = AutoModel.from_pretrained(folder / "model")
    changed = {
        name for name, weight in after.state_dict().items() if not torch.equal(weight, before.state_dict()[name])
    }
    assert "text_projection.weight" in changed
    assert "text_model.layers.1.mlp.fc2.weight" in changed
    assert all(
        name.startswith(("text_model.layers.", "text_projection.")) and name.endswith("weight") for name in changed
    )
    adapted = PeftModel.from_pretrained(before, folder / "adapter").merge_and_unload().state_dict()
    for name, weight in after.state_dict().items():
        torch.testing.assert_close(adapted[name], weight)


def test_the_script_with_sentence_transformers(run_example, model_dir, capsys):
    folder = run_example("train_sentence_transformers", "--learning_rate", 0.01)
    assert "recall@10: " in capsys.readouterr().out
    trained = LotlipModel.from_pretrained(folder / "model").text_projection.weight
    assert not torch.allclose(trained, LotlipModel.from_pretrained(model_dir).text_projection.weight, atol=1e-3)
    assert (folder / "model" / "modeling_lotlip.py").exists()


def test_each_caption_finds_any_of_its_images():
    scenes = load_scenes(3)
    pairs = Dataset.from_dict({"image": scenes["image"], "caption": ["a boat", "a house", "a boat"]})
    evaluator = build_evaluator(pairs)
    assert evaluator.queries == ["a boat", "a house"]
    assert evaluator.relevant_docs == {"a boat": {"0", "2"}, "a house": {"1"}}


@pytest.mark.parametrize("name", ["train_with_trainer", "train_sentence_transformers"])
def test_a_column_that_is_not_there_is_one_line(run_example, tmp_path, name):
    load_scenes(4).remove_columns("long_captions").save_to_disk(tmp_path / "short")
    named = ["--long_captions_column", "texts"]
    for options, cause in (
        (named, "texts` is not a column of"),
        ([], "4 images with captions are too few to evaluate"),
    ):
        with pytest.raises(ValueError, match=cause):
            run_example(name, "--dataset_name", tmp_path / "short", *options)

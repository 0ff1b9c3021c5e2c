"""The recipes of docs/fine_tuning.md, where they could go wrong: adapters saved and merged, other text towers."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizer,
)

from examples import train_with_trainer
from modeling_lotlip import LotlipModel, LotlipTokenizer
from modeling_lotlip.convert_lotlip_to_hf import load_towers
from modeling_lotlip.data.scenes import load_scenes
from tests.conftest import WORDS


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def test_a_multilingual_bert_is_a_text_tower(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"Лодка лод ##ка море синее . 船 海".split()]
    vocab = {word: index for index, word in enumerate(words)}
    bert = BertModel(BertConfig(**SMALL, vocab_size=len(vocab))).eval()
    bert.save_pretrained(tmp_path)
    BertTokenizer(vocab=vocab, do_lower_case=False).save_pretrained(tmp_path)

    tokenizer = LotlipTokenizer.from_pretrained(tmp_path)
    # cased, Chinese characters one by one, a separator at the full stop with a space behind it
    expected = ["Лодка", "[SEP]", "лод", "##ка", "船", "海", "[UNK]", "море", "."]
    assert tokenizer.tokenize("Лодка. лодка 船海。море.") == expected
    assert tokenizer.model_max_length == 126

    model = load_towers(text_model_name_or_path=tmp_path, text_num_corner_tokens=0, vision_num_hidden_layers=1)
    tokens = tokenizer(["Лодка. море синее", "a red boat"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model.text_model(**tokens).pooler_output, bert(**tokens).pooler_output)


def run_example(monkeypatch, folder: Path, model_dir: Path, *options: object) -> Path:
    """Runs the script in this process on a few scenes; gives its output folder."""
    argv = ["train_with_trainer", "--model", model_dir, "--output_dir", folder / "out", "--max_train_samples", 20]
    argv += ["--max_steps", 2, "--per_device_train_batch_size", 4, "--learning_rate", 0.01, "--use_cpu", *options]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    train_with_trainer.main()
    return folder / "out"


def test_the_script_with_trainer(monkeypatch, tmp_path, model_dir):
    folder = run_example(monkeypatch, tmp_path, model_dir)
    before, after = LotlipModel.from_pretrained(model_dir), AutoModel.from_pretrained(folder / "model")
    assert not torch.equal(before.text_projection.weight, after.text_projection.weight)
    corners = [model.text_model.embeddings.corner_tokens for model in (before, after)]
    assert not torch.equal(*corners), "long captions train the corner tokens"


def test_the_script_with_lora(monkeypatch, tmp_path, model_dir, capsys):
    folder = run_example(monkeypatch, tmp_path, model_dir, "--lora_rank", 4)
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


@pytest.mark.parametrize("name", ["train_with_trainer", "train_sentence_transformers"])
def test_a_column_that_is_not_there_is_one_line(monkeypatch, tmp_path, model_dir, name):
    load_scenes(4).remove_columns("long_captions").save_to_disk(tmp_path / "short")
    argv = [name, "--model", model_dir, "--output_dir", tmp_path / "out", "--dataset_name", tmp_path / "short"]
    argv += ["--long_captions_column", "texts"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(ValueError, match="`--long_captions_column texts` is no column of the data set"):
        importlib.import_module(f"examples.{name}").main()

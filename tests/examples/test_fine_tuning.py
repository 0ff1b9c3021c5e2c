"""The recipes of docs/fine_tuning.md, where they could go wrong: adapters saved and merged, other text towers."""

import importlib
import random
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    ModernBertConfig,
    ModernBertModel,
    Trainer,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipProcessor, LotlipTokenizer
from modeling_lotlip.convert_lotlip_to_hf import load_towers
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.collator import CaptionCollator, with_captions
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.positions import stretch_positions
from tests.conftest import WORDS


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def test_lora_is_trained_saved_loaded_and_merged(model_dir, tmp_path):
    processor = LotlipProcessor.from_pretrained(model_dir)
    reader = RowReader(["image", "caption", "long_captions"], CaptionArguments())
    scenes, collate = with_captions(load_scenes(8, seed=4), reader), CaptionCollator(processor, reader)

    base = LotlipModel.from_pretrained(model_dir)
    lora = LoraConfig(r=4, target_modules=r"text_model\..*\.(q_proj|fc1)", modules_to_save=["text_projection"])
    tuned = get_peft_model(base, lora)
    arguments = TrainingArguments(
        tmp_path / "trainer",
        max_steps=3,
        learning_rate=0.01,
        per_device_train_batch_size=8,
        remove_unused_columns=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(tuned, arguments, train_dataset=scenes, eval_dataset=scenes, data_collator=collate)
    trainer.train()
    assert 0 < trainer.evaluate()["eval_loss"] < 10
    tuned.save_pretrained(tmp_path / "adapter")

    def embed(model):
        with torch.no_grad():
            outputs = model.eval()(**{**collate(scenes), "return_loss": False})
        return outputs.text_embeds, outputs.image_embeds

    text_embeds, image_embeds = embed(tuned)
    texts_before, images_before = embed(LotlipModel.from_pretrained(model_dir))
    assert (text_embeds - texts_before).abs().max() > 1e-3 and torch.equal(image_embeds, images_before)

    loaded = PeftModel.from_pretrained(LotlipModel.from_pretrained(model_dir), tmp_path / "adapter")
    assert torch.equal(embed(loaded)[0], text_embeds)
    loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(embed(AutoModel.from_pretrained(tmp_path / "merged"))[0], text_embeds)


def test_a_multilingual_bert_is_a_text_tower(tmp_path):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        "Лодка",
        "лод",
        "##ка",
        "море",
        "синее",
        ".",
        "船",
        "海",
    ]
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


@pytest.mark.parametrize(
    "config, model_class",
    [
        (ModernBertConfig(**SMALL, vocab_size=64, pad_token_id=0), ModernBertModel),
        (XLMRobertaConfig(**SMALL, vocab_size=64), XLMRobertaModel),
    ],
)
def test_what_is_no_bert_is_refused(config, model_class, tmp_path):
    model_class(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is of type '{config.model_type}', but the text tower takes"):
        load_towers(text_model_name_or_path=tmp_path)


def test_a_stretched_table_learns_what_lies_beyond_the_old_one():
    """The last words of texts say the colour: they are read only where there are positions for them."""
    torch.manual_seed(0)
    vocab = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = LotlipTokenizer(vocab=vocab)
    colours, fillers = ["red", "green", "blue", "yellow"], ["a", "the", "ground", "is", "sand", "sea", "tree", "house"]
    tower = {**SMALL, "num_hidden_layers": 2, "projection_dim": 32, "hidden_dropout_prob": 0.0}
    text = {**tower, "vocab_size": len(vocab), "max_position_embeddings": 40, "attention_probs_dropout_prob": 0.0}
    vision = {**SMALL, "image_size": 8, "patch_size": 8}
    image_embeds = torch.nn.functional.normalize(torch.randn(4, 32), dim=-1)  # of a frozen tower

    def draw(num_texts: int, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        generator = random.Random(seed)
        beginnings = [". ".join(" ".join(generator.choices(fillers, k=7)) for _ in range(6)) for _ in range(num_texts)]
        texts = [f"{start}. a {colours[i % 4]} boat" for i, start in enumerate(beginnings)]
        limit = model.config.text_config.max_position_embeddings - 2
        return tokenizer(texts, padding=True, max_length=limit, truncation=True, return_tensors="pt"), torch.arange(
            num_texts
        ) % 4

    accuracies = []
    for is_stretched in (False, True):
        torch.manual_seed(0)
        model = LotlipModel(LotlipConfig(text_config=text, vision_config=vision, projection_dim=32))
        if is_stretched:
            stretch_positions(model, 80)
        optimizer = torch.optim.AdamW([*model.text_model.parameters(), *model.text_projection.parameters()], 3e-3)
        for step in range(150):
            tokens, labels = draw(16, step)
            features = model.get_text_features(**tokens).pooler_output
            logits = 10 * torch.nn.functional.normalize(features, dim=-1) @ image_embeds.t()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
        tokens, labels = draw(64, seed=1000)
        with torch.no_grad():
            guesses = (model.eval().get_text_features(**tokens).pooler_output @ image_embeds.t()).argmax(dim=1)
        accuracies.append((guesses == labels).float().mean().item())
    assert accuracies[0] < 0.5 and accuracies[1] > 0.95


def run_example(monkeypatch, name: str, folder: Path, model_dir: Path) -> Path:
    """Runs a script in this process on a few scenes; gives its output folder."""
    argv = [name, "--model", model_dir, "--output_dir", folder / name, "--max_train_samples", 20, "--max_steps", 2]
    argv += ["--per_device_train_batch_size", 4, "--learning_rate", 0.01, "--use_cpu"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    importlib.import_module(f"examples.{name}").main()
    return folder / name


def test_the_script_with_trainer(monkeypatch, tmp_path, model_dir):
    folder = run_example(monkeypatch, "train_with_trainer", tmp_path, model_dir)
    before, after = LotlipModel.from_pretrained(model_dir), AutoModel.from_pretrained(folder / "model")
    assert not torch.equal(before.text_projection.weight, after.text_projection.weight)
    corners = [model.text_model.embeddings.corner_tokens for model in (before, after)]
    assert not torch.equal(*corners), "long captions train the corner tokens"


def test_the_script_with_lora(monkeypatch, tmp_path, model_dir, capsys):
    folder = run_example(monkeypatch, "fine_tune_lora", tmp_path, model_dir)
    assert "trainable params" in capsys.readouterr().out
    before, after = LotlipModel.from_pretrained(model_dir), AutoModel.from_pretrained(folder / "merged")
    changed = {
        name for name, weight in after.state_dict().items() if not torch.equal(weight, before.state_dict()[name])
    }
    assert "text_projection.weight" in changed and "text_model.layers.1.mlp.fc2.weight" in changed
    assert all(
        name.startswith(("text_model.layers.", "text_projection.")) and name.endswith("weight") for name in changed
    )
    assert sum(path.stat().st_size for path in (folder / "adapter").iterdir()) > 0


@pytest.mark.parametrize("name", ["train_with_trainer", "fine_tune_lora", "train_sentence_transformers"])
def test_a_column_that_is_not_there_is_one_line(monkeypatch, tmp_path, model_dir, name):
    load_scenes(4).remove_columns("long_captions").save_to_disk(tmp_path / "short")
    argv = [name, "--model", model_dir, "--output_dir", tmp_path / "out", "--dataset_name", tmp_path / "short"]
    argv += ["--long_captions_column", "texts"]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(ValueError, match="`--long_captions_column texts` is no column of the data set"):
        importlib.import_module(f"examples.{name}").main()

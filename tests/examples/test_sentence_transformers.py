"""A saved model as one of sentence-transformers: its embeddings, evaluators, training, and saving again."""

import itertools
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.nn.functional import cross_entropy, normalize

from examples import train_sentence_transformers
from modeling_lotlip import LotlipModel, LotlipProcessor


TEXTS = ["a red boat. the sea is blue", "a house", "the ground is sand. a tree. a green car"]


@pytest.fixture(scope="module")
def folder(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentence_transformer")
    LotlipModel.from_pretrained(model_dir).save_pretrained(folder)
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(folder)
    return folder


@pytest.fixture
def sentence_transformer(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def features(folder):
    """A function that gives the normalised features of the model itself."""
    model, processor = LotlipModel.from_pretrained(folder), LotlipProcessor.from_pretrained(folder)

    @torch.no_grad()
    def compute(text=None, images=None, **kwargs):
        get = model.get_image_features if text is None else model.get_text_features
        inputs = processor(text=text, images=images, return_tensors="pt", **kwargs)
        return normalize(get(**inputs).pooler_output, dim=-1)

    return compute


def test_texts_images_and_files_have_the_features_of_the_model(sentence_transformer, features, tmp_path):
    images = [Image.linear_gradient("L").crop((0, 0, 256, 60 * index)) for index in range(1, 4)]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for image, path in zip(images, paths):
        image.save(path)

    torch.testing.assert_close(sentence_transformer.encode(TEXTS, convert_to_tensor=True), features(text=TEXTS))
    expected = features(images=images)
    for given in (images, [str(path) for path in paths]):
        torch.testing.assert_close(sentence_transformer.encode(given, convert_to_tensor=True), expected)
    # one text at a time, without padding
    alone = sentence_transformer.encode(TEXTS, batch_size=1, convert_to_tensor=True)
    torch.testing.assert_close(alone, features(text=TEXTS), atol=1e-5, rtol=0)
    assert sentence_transformer.get_embedding_dimension() == 32
    similarity = sentence_transformer.similarity(alone, expected)
    torch.testing.assert_close(similarity, alone @ expected.t())


def test_prompts_and_the_limit_are_those_of_the_text(sentence_transformer, features, caplog):
    prompted = sentence_transformer.encode(TEXTS, prompt="a photo of ", convert_to_tensor=True)
    torch.testing.assert_close(prompted, features(text=[f"a photo of {text}" for text in TEXTS]))

    assert sentence_transformer.max_seq_length == 126
    text = "a red boat. the sea is blue. " * 30
    logging.getLogger("transformers").addHandler(caplog.handler)
    embeds = sentence_transformer.encode(text, convert_to_tensor=True)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "1 of 1 texts are longer than 126 tokens" in caplog.text, "nothing is cut off in silence"
    torch.testing.assert_close(embeds, features(text=[text], truncation=True)[0])

    sentence_transformer.max_seq_length = 8
    short = sentence_transformer.encode(text, convert_to_tensor=True)
    torch.testing.assert_close(short, features(text=[text], truncation=True, max_length=8)[0])
    assert not torch.allclose(short, embeds)


@pytest.fixture
def pairs():
    """Images in two colours, and what they are called."""
    rows = []
    for left, right in itertools.permutations(["red", "green", "blue", "yellow"], 2):
        image = Image.new("RGB", (48, 32), left)
        image.paste(right, (24, 0, 48, 32))
        rows.append({"image": image, "caption": f"a {left} boat. the sea is {right}"})
    return Dataset.from_list(rows)


def test_training_is_that_of_the_model(folder, pairs, tmp_path):
    model = LotlipModel.from_pretrained(folder)
    for module in (model.config.text_config, model.config.vision_config):
        module.hidden_dropout_prob = module.attention_probs_dropout_prob = 0.0
    processor = LotlipProcessor.from_pretrained(folder)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    trained = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        tmp_path / "trained",
        max_steps=3,
        per_device_train_batch_size=len(pairs),
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    loss = MultipleNegativesRankingLoss(trained)
    SentenceTransformerTrainer(model=trained, args=arguments, train_dataset=pairs, loss=loss).train()

    model = LotlipModel.from_pretrained(tmp_path / "model")
    inputs = processor(text=list(pairs["caption"]), images=list(pairs["image"]), return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    for _ in range(3):
        outputs = model(**inputs)
        cross_entropy(20 * outputs.image_embeds @ outputs.text_embeds.t(), torch.arange(len(pairs))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        outputs = model(**inputs)
    given = trained.encode(list(pairs["caption"]), convert_to_tensor=True)
    torch.testing.assert_close(given, outputs.text_embeds, atol=1e-3, rtol=0)
    given = trained.encode(list(pairs["image"]), convert_to_tensor=True)
    torch.testing.assert_close(given, outputs.image_embeds, atol=1e-3, rtol=0)


def test_example(folder, tmp_path, monkeypatch, capsys):
    options = {"model": folder, "output_dir": tmp_path, "max_train_samples": 20, "max_steps": 2}
    options |= {"per_device_train_batch_size": 4, "learning_rate": 0.01}
    argv = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["train_sentence_transformers.py", *argv, "--use_cpu"])
    train_sentence_transformers.main()
    assert "recall@10: " in capsys.readouterr().out
    trained = LotlipModel.from_pretrained(tmp_path / "model").text_projection.weight
    assert not torch.allclose(trained, LotlipModel.from_pretrained(folder).text_projection.weight, atol=1e-3)
    assert (tmp_path / "model" / "modeling_lotlip.py").exists()


WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_lotlip"] = None  # as if it were not installed
import numpy as np
from sentence_transformers import SentenceTransformer
folder, results, *texts = sys.argv[1:]
np.save(results, SentenceTransformer(folder, device="cpu", trust_remote_code=True).encode(texts))
"""


def test_saved_by_sentence_transformers_with_its_code(sentence_transformer, tmp_path):
    expected = sentence_transformer.encode(TEXTS)
    sentence_transformer.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert (loaded.encode(TEXTS) == expected).all()

    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, tmp_path, tmp_path / "embeds.npy", *TEXTS]
    subprocess.run(command, check=True)
    assert (np.load(tmp_path / "embeds.npy") == expected).all()

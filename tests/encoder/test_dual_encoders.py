"""Every family of dual encoders through the evaluation: the same numbers as calling the model by hand."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.batches import embed_corpus, embed_images, embed_texts, tokenize, tokenize_and_count
from modeling_lotlip.encoder.models import hash_processor, load_model
from tests.conftest import WORDS, build_lotlip
from tests.helpers.commands import run_command
from tests.helpers.dual_encoders import FAMILIES, IMAGES, LONG, SHORT, brute_force, flatten


def load(folder, max_length=None):
    return load_model(str(folder), LoadingArguments(device="cpu", max_length=max_length))


@pytest.mark.parametrize("name", FAMILIES)
def test_same_numbers_as_by_hand(name, family_folders, noise_dir, tmp_path):
    family, folder = FAMILIES[name], family_folders(name)
    arguments = ("--model_name_or_path", folder, "--dataset_name", noise_dir, "--batch_size", 4)
    results = run_command("evaluate", tmp_path / "results.json", *arguments)
    assert results["max_length"] == family.limit

    hand, hand_processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    model, processor = load(folder)
    images = dict(hand_processor.image_processor(IMAGES, return_tensors="pt"))
    for kind, captions in (("short", SHORT), ("long", LONG)):
        texts, owners = flatten(captions)
        inputs = hand_processor(
            text=texts, images=IMAGES, return_tensors="pt", max_length=family.limit, **family.text_kwargs
        )
        with torch.no_grad():
            outputs = hand(**inputs)
        for metric, value in brute_force(outputs.logits_per_text.numpy(), owners).items():
            assert results[f"{kind}_{metric}"] == pytest.approx(value), (kind, metric)

        lengths = [len(hand_processor.tokenizer(text, truncation=False)["input_ids"]) for text in texts]
        assert results[f"{kind}_truncated"] == pytest.approx(np.mean(np.array(lengths) > family.limit))
        assert results[f"{kind}_truncated"] < 1 and (kind == "short" or results[f"{kind}_truncated"] > 0)

        expected = torch.nn.functional.normalize(outputs.text_embeds, dim=-1)
        texts_alone = torch.cat([embed_texts(model, tokenize(processor, [text])) for text in texts])
        for embeds in (
            embed_texts(model, tokenize(processor, texts)),
            texts_alone,
            embed_corpus(model, processor, texts, tokens_per_batch=200),
        ):
            torch.testing.assert_close(embeds, expected, rtol=0, atol=2e-5)
        expected = torch.nn.functional.normalize(outputs.image_embeds, dim=-1)
        torch.testing.assert_close(embed_images(model, images), expected, rtol=0, atol=2e-5)
    # the model tells these images and texts apart, or all of this would say little
    assert (expected @ expected.t()).fill_diagonal_(0).max() < 1 - 1e-4
    assert (texts_alone @ texts_alone.t()).fill_diagonal_(0).max() < 1 - 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_limits(name, family_folders, caplog):
    family, folder = FAMILIES[name], family_folders(name)
    model, processor = load(folder)
    whole = AutoProcessor.from_pretrained(folder).tokenizer(LONG[-1][0], truncation=False)["input_ids"]
    tokens, truncated = tokenize_and_count(processor, [*LONG[-1], "a red boat"], None)
    assert truncated == [True, False] and len(whole) > family.limit
    # cut off there, and the last token is the one that ends a text
    assert tokens["input_ids"][0].tolist() == [*whole[: family.limit - 1], whole[-1]]
    embed_corpus(model, processor, LONG[-1])
    assert "1 of 1 texts were truncated" in caplog.text

    tokens, truncated = tokenize_and_count(processor, ["a red boat", *LONG[-1]], 9)
    assert tokens["input_ids"].shape == (2, 9) and truncated == [False, True]

    model, processor = load(folder, max_length=family.num_positions)
    text = " ".join(WORDS * 40)
    tokens = tokenize(processor, [text], family.num_positions)
    assert tokens["input_ids"].shape == (1, family.num_positions)
    assert embed_texts(model, tokens).isfinite().all()
    beyond = rf"--max_length {family.num_positions + 1}. is beyond the {family.num_positions} tokens"
    with pytest.raises(ValueError, match=beyond):
        load(folder, max_length=family.num_positions + 1)


@pytest.mark.parametrize("name", ["lotlip", "clip"])
def test_a_processor_is_the_same_one_offline_and_after_a_call(name, family_folders, monkeypatch):
    """Else an index would not be found again."""
    hashes = set()
    for is_offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
        _, processor = load(family_folders(name))
        hashes.add(hash_processor(processor))
        tokenize(processor, ["a red boat"], 7)
    assert hashes == {hash_processor(processor)}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("siglip")])
def test_siglip_reads_lower_case(name, family_folders):
    model, processor = load(family_folders(name))
    shouted = [text.upper() for text in SHORT[3]]
    embeds, expected = (embed_texts(model, tokenize(processor, texts)) for texts in (shouted, SHORT[3]))
    torch.testing.assert_close(embeds, expected, rtol=0, atol=0)


def test_text_tower_with_fewer_positions_than_its_tokenizer(tmp_path):
    model, processor = build_lotlip(max_position_embeddings=32)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, processor = load(tmp_path)
    tokens, truncated = tokenize_and_count(processor, LONG[-1], None)
    assert tokens["input_ids"].shape == (1, 30) and truncated == [True]
    embed_texts(model, tokens)


def test_no_dual_encoder(tmp_path, family_folders):
    AutoModel.from_pretrained(family_folders("vit_bert")).text_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it is a BertModel, no dual encoder"):
        load(tmp_path)

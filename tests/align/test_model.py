"""The model of two towers and heads: what it computes, and how it is saved and loaded."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from modeling_lotlip import DualEncoder, LotlipAlignedModel
from modeling_lotlip.align.towers import join_towers, make_processor, refer_to
from modeling_lotlip.modeling_aligned_lotlip import make_head, pool_image, pool_text


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
        "from transformers import AutoModel; import torch, sys; "
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "features = model.get_text_features(torch.tensor([[2, 5, 8, 9, 3]])).pooler_output; "
        "print('modeling_lotlip' in sys.modules, *features[0, :3].tolist())"
    )
    command = [sys.executable, "-I", "-c", program, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    with torch.inference_mode():
        expected = model.get_text_features(torch.tensor([[2, 5, 8, 9, 3]])).pooler_output[0, :3]
    assert output[0] == "False"
    np.testing.assert_allclose([float(value) for value in output[1:]], expected.numpy(), atol=1e-6)


def test_towers_by_reference_are_loaded_from_where_they_are(text_tower, image_tower, tmp_path):
    model = join_towers(text_tower, image_tower, 64, 128)
    model.config.towers = refer_to(text_tower, image_tower)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert not [name for name in saved if name.startswith(("text_model.", "vision_model."))]
    state = AutoModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


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


STATES = torch.arange(12.0).reshape(1, 4, 3)


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
    pooled = pool_text(outputs, torch.tensor([mask]), pooling)
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

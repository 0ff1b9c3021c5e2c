"""Towers initialized from BERT, ViT, DINOv2 and timm: the sources' own outputs, or a refusal that says why."""

import json
from collections.abc import Callable

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

from modeling_lotlip.convert_lotlip_to_hf import load_towers
from tests.conftest import TINY_TOWER
from tests.test_modeling_lotlip import assert_close


SMALL_TEXT = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 50}
NEW_TEXT = {"text_config": SMALL_TEXT}
TOWER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


def randomized(model):
    """Every weight random, so that no bias, scale or position is at the value that it starts with."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save(path, model):
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    config = BertConfig(**TOWER, vocab_size=99, max_position_embeddings=48, layer_norm_eps=1e-5)
    model = randomized(BertModel(config))
    return model, save(tmp_path_factory.mktemp("bert"), model)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    model = randomized(ViTModel(ViTConfig(**TOWER, image_size=32, patch_size=8)))
    return model, save(tmp_path_factory.mktemp("vit"), model)


def new_dinov2(**kwargs):
    config = {**TOWER, "image_size": 28, "patch_size": 7, "layerscale_value": 0.5, **kwargs}
    del config["intermediate_size"]
    return randomized(Dinov2Model(Dinov2Config(**config)))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    model = new_dinov2(mlp_ratio=2)
    return model, save(tmp_path_factory.mktemp("dinov2"), model)


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(0)
    attention_mask = (torch.arange(9)[None] < torch.tensor([[9], [5], [2]])).long()
    return {"input_ids": torch.randint(1, 99, (3, 9), generator=generator), "attention_mask": attention_mask}


def images(height, width=None):
    return torch.randn(2, 3, height, width or height, generator=torch.Generator().manual_seed(0))


def test_bert_and_vit_in_one_call(bert, vit, texts):
    model = load_towers(vit[1], bert[1], text_config={"num_corner_tokens": 0})
    assert not model.training
    with torch.no_grad():
        expected = bert[0](**texts)
        outputs = model.text_model(**texts)
        assert_close(outputs.last_hidden_state, expected.last_hidden_state)
        assert_close(outputs.pooler_output, expected.pooler_output)
        for height, width in ((32, 32), (24, 48)):
            options = {"interpolate_pos_encoding": (height, width) != (32, 32)}
            expected = vit[0](images(height, width), **options).last_hidden_state
            outputs = model.get_image_features(images(height, width), **options)
            assert_close(outputs.last_hidden_state, expected)
            assert_close(outputs.pooler_output, expected[:, 0])
    assert model.config.projection_dim == 64
    assert model.config.vision_config.projection_dim is None


def test_dinov2(dinov2):
    """Layer scales are folded into the linear layers; the positions are resampled for another image size."""
    source, path = dinov2
    with torch.no_grad():
        for size in (28, 42):
            model = load_towers(path, vision_config={"image_size": size}, **NEW_TEXT)
            assert model.config.vision_config.image_size == size
            expected = source(images(size)).last_hidden_state
            outputs = model.get_image_features(images(size))
            assert_close(outputs.last_hidden_state, expected)
            assert_close(outputs.pooler_output, expected[:, 0])
        wide = model.get_image_features(images(28, 56), interpolate_pos_encoding=True)
        assert wide.last_hidden_state.shape == (2, 1 + 4 * 8, 64)


def save_timm(path, architecture="vit_tiny_patch16_224", pretrained_cfg=None, **model_args):
    """A folder as timm pushes it to the Hub, or, without `pretrained_cfg`, as transformers saves it."""
    if architecture.startswith("vit_"):
        small = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4}
        model_args = small | model_args
    model = randomized(timm.create_model(architecture, num_classes=3, **model_args))
    config = {"architecture": architecture, "num_classes": 3, "label_names": list("abc")}
    if pretrained_cfg:
        config["pretrained_cfg"] = pretrained_cfg
    else:
        config["model_type"] = "timm_wrapper"
    path.mkdir(exist_ok=True)
    save_file(model.state_dict(), path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({**config, "model_args": model_args}))
    return model, str(path)


@pytest.mark.parametrize("model_args", [{}, {"init_values": 0.5, "mlp_ratio": 3}])
def test_a_tower_of_timm_gives_the_outputs_of_its_source(tmp_path, model_args):
    """Four heads of 16 units: shapes alone would say one of 64."""
    source, path = save_timm(tmp_path, **model_args)
    model = load_towers(path, **NEW_TEXT)
    assert model.config.vision_config.num_attention_heads == 4
    with torch.no_grad():
        expected = source.forward_features(images(32))
        outputs = model.get_image_features(images(32))
    assert_close(outputs.last_hidden_state, expected)
    assert_close(outputs.pooler_output, expected[:, 0])


def dinov2_with_swiglu(path):
    return save(path, new_dinov2(use_swiglu_ffn=True))


def dinov2_with_registers(path):
    fields = {name: TOWER[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    config = Dinov2WithRegistersConfig(**fields, image_size=28, patch_size=7)
    return save(path, Dinov2WithRegistersModel(config))


def timm_with(**model_args) -> Callable:
    return lambda path: save_timm(path, **model_args)[1]


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (dinov2_with_swiglu, "no SwiGLU"),
        (dinov2_with_registers, "of type 'dinov2_with_registers'"),
        (timm_with(reg_tokens=4), "pos_embed .* reg_token"),
        (timm_with(qkv_bias=False), r"blocks.0.attn.qkv.bias none instead of"),
        (timm_with(qk_norm=True), "q_norm.bias .* instead of none"),
        (timm_with(global_pool="avg"), "fc_norm.bias .* instead of none.*norm.weight none instead of"),
        (lambda path: save_timm(path, "resnet18", in_chans=3)[1], "no VisionTransformer"),
        (timm_with(act_layer="gelu_tanh"), "the exact GELU"),
        (timm_with(architecture="vit_small_patch16_18x2_224"), "with plain blocks"),
    ],
)
def test_image_towers_that_do_not_fit(tmp_path, build, match):
    with pytest.raises(ValueError, match=match):
        load_towers(build(tmp_path), **NEW_TEXT)


def test_text_towers_that_do_not_fit(tmp_path):
    path = save(tmp_path, RobertaModel(RobertaConfig(**TOWER, vocab_size=99)))
    with pytest.raises(ValueError, match="of type 'roberta': the tower takes bert"):
        load_towers(text_model_name_or_path=path)


def test_a_text_tower_whose_tokens_see_those_before_them_alone_does_not_fit(tmp_path):
    path = save(tmp_path, BertModel(BertConfig(**TOWER, vocab_size=99, is_decoder=True)))
    with pytest.raises(ValueError, match="is a decoder, in which a token sees those before it alone"):
        load_towers(text_model_name_or_path=path)


def test_fields_that_are_given_replace_those_of_the_towers(bert, vit):
    text_config = {"num_corner_tokens": 4, "hidden_dropout_prob": 0.3}
    model = load_towers(vit[1], bert[1], {"projection_dim": 24}, text_config)
    assert model.text_model.embeddings.corner_tokens.shape == (4, 64)
    assert model.text_model.layers[0].dropout.p == 0.3
    assert model.text_projection.weight.shape == model.visual_projection.weight.shape == (24, 64)

    with pytest.raises(ValueError, match="`text_config.projection_dim` is 24, `projection_dim` is 64"):
        load_towers(vit[1], bert[1], text_config={"projection_dim": 24})


def test_one_tower_may_be_new(bert, vit):
    small = {**TINY_TOWER, "num_hidden_layers": 1}
    model = load_towers(vit[1], text_config=small | {"vocab_size": 50})
    assert model.text_projection.weight.shape == (64, 32)
    model = load_towers(text_model_name_or_path=bert[1], vision_config=small)
    assert model.text_projection.weight.shape == (32, 64)
    assert model.config.projection_dim == 32

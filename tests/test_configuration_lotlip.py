"""The configurations: defaults, sub-configurations, saving, and widths that cannot meet."""

import json

import pytest
from transformers import AutoConfig, BertConfig, ViTConfig

from modeling_lotlip.configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig


def shared_fields(config, other):
    names = set(config.to_dict()) & set(other.to_dict()) - {"model_type", "architectures", "transformers_version"}
    return {name for name in names if getattr(config, name) == getattr(other, name)}, names


def test_defaults_are_those_of_bert_and_vit():
    for config, other, changed in (
        (LotlipTextConfig(), BertConfig(), set()),
        (LotlipVisionConfig(), ViTConfig(), {"layer_norm_eps"}),
    ):
        equal, names = shared_fields(config, other)
        assert names - equal == changed
        assert {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"} <= names
    config = LotlipConfig()
    assert config.text_config.num_corner_tokens == 2 and config.text_config.corner_attention_mask is True
    assert config.text_config.vocab_size == 30522
    assert config.vision_config.layer_norm_eps == 1e-6 and config.vision_config.projection_dim is None
    assert (config.projection_dim, config.logit_scale_init_value) == (768, 2.6592)


SMALL_TEXT = {"hidden_size": 24, "num_attention_heads": 3, "projection_dim": 64, "num_corner_tokens": 3}
SMALL_VISION = {"hidden_size": 64, "num_attention_heads": 4, "image_size": [32, 48]}


@pytest.mark.parametrize(
    ("text", "vision", "projection_dim"),
    [
        (SMALL_TEXT, SMALL_VISION, 64),
        (LotlipTextConfig(**SMALL_TEXT), LotlipVisionConfig(**SMALL_VISION), 64),
        (SMALL_TEXT, {"hidden_size": 36, "projection_dim": 64}, 64),
        ({"num_corner_tokens": 0}, None, 768),
        (None, {"hidden_size": 60, "projection_dim": 768}, 768),
    ],
)
def test_sub_configurations_in_any_form_survive_saving(tmp_path, text, vision, projection_dim):
    config = LotlipConfig(text_config=text, vision_config=vision, projection_dim=projection_dim)
    assert isinstance(config.text_config, LotlipTextConfig)
    assert isinstance(config.vision_config, LotlipVisionConfig)
    for field, given in (("text_config", text), ("vision_config", vision)):
        if isinstance(given, dict):
            assert {name: getattr(getattr(config, field), name) for name in given} == given

    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "lotlip"
    for loaded in (LotlipConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is LotlipConfig and loaded.to_diff_dict() == config.to_diff_dict()
    for tower_class, tower in ((LotlipTextConfig, config.text_config), (LotlipVisionConfig, config.vision_config)):
        assert tower_class.from_pretrained(tmp_path).to_diff_dict() == tower.to_diff_dict()


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"text_config": {"projection_dim": 512}}, ("512", "768")),
        ({"projection_dim": 512}, ("512", "768")),
        ({"vision_config": {"hidden_size": 384}}, ("384", "768")),
        ({"vision_config": {"projection_dim": 512}}, ("512", "768")),
        ({"text_config": {"projection_dim": 384}, "projection_dim": 384}, ("768", "384")),
    ],
)
def test_widths_that_cannot_meet(fields, numbers):
    with pytest.raises(ValueError) as raised:
        LotlipConfig(**fields)
    assert all(number in str(raised.value) for number in numbers)


@pytest.mark.parametrize("num_corner_tokens", [-1, 512])
def test_corner_tokens_need_positions(num_corner_tokens):
    with pytest.raises(ValueError, match=rf"`num_corner_tokens` \({num_corner_tokens}\).*\(512\)"):
        LotlipTextConfig(num_corner_tokens=num_corner_tokens)

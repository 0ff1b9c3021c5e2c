"""The configurations: defaults, and widths that cannot meet."""

import pytest
from transformers import BertConfig, ViTConfig

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
    assert config.text_config.num_corner_tokens == 2
    assert config.text_config.corner_attention_mask is True
    assert config.text_config.vocab_size == 30522
    assert config.vision_config.layer_norm_eps == 1e-6
    assert config.vision_config.projection_dim is None
    assert (config.projection_dim, config.logit_scale_init_value) == (768, 2.6592)


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

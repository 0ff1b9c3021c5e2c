"""Operations and parameters of the towers, by the formulas."""

import json
import sys

import pytest

from examples.paper import flops
from modeling_lotlip import LotlipModel
from tests.conftest import tiny_config


def encoder_flops(length: int, hidden_size: int, intermediate_size: int, num_layers: int) -> int:
    """Of a sequence: queries, keys, values and output; similarities and weighted sums; the two feed-forward layers."""
    per_token = 4 * hidden_size**2 + 2 * length * hidden_size + 2 * hidden_size * intermediate_size
    return 2 * length * num_layers * per_token


@pytest.mark.parametrize("num_corner_tokens, is_masked", [(0, True), (3, True), (3, False)])
def test_flops_of_a_text_tower_are_those_that_torch_counts(num_corner_tokens, is_masked):
    config = tiny_config(num_corner_tokens=num_corner_tokens, corner_attention_mask=is_masked)
    model = flops.build_meta_model(config)
    for length in (1, 7, 30):
        for output_corner_tokens in (False, True):
            # without the mask the text reads the corners, which are then always computed
            num_corners = num_corner_tokens if output_corner_tokens or not is_masked else 0
            heads = 2 * 2 * 32 * 32 * (1 + num_corners)  # pooler and projection, of [CLS] and the corners
            expected = encoder_flops(length + num_corners, 32, 64, num_layers=2) + heads
            assert flops.count_text_flops(model, length, output_corner_tokens) == expected
    limit = config.text_config.max_position_embeddings - num_corner_tokens
    assert flops.count_text_flops(model, limit) > 0
    with pytest.raises(ValueError, match=f"1 to {limit} tokens"):
        flops.count_text_flops(model, limit + 1)


@pytest.mark.parametrize("image_projection", [None, 32])
def test_image_tower_and_parameters(image_projection):
    config = tiny_config()
    config.vision_config.projection_dim = image_projection
    towers = flops.measure_towers(config, [8])
    projection = 32 * 32 if image_projection else 0
    patches = 2 * 4 * (3 * 16 * 16) * 32
    assert towers["image"]["flops"] == encoder_flops(5, 32, 64, num_layers=2) + patches + 2 * projection
    model = LotlipModel(config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert towers["image"]["parameters"] + towers["text"]["parameters"] + model.logit_scale.numel() == num_parameters
    assert towers["text"]["corner_parameters"] == model.text_model.embeddings.corner_tokens.numel()


def test_the_script_prints_and_writes_what_it_counts(tmp_path, capsys, monkeypatch):
    tiny_config().save_pretrained(tmp_path / "config")
    options = ["--config_name", tmp_path / "config", "--lengths", 8, 60, "--output_file", tmp_path / "flops.json"]
    monkeypatch.setattr(sys, "argv", ["flops.py", *map(str, options)])
    flops.main()
    towers = flops.measure_towers(tiny_config(), [8, 60])
    number = towers["text"]["captions"][1]["flops"]
    assert f"| a caption of 60 tokens | {number / 1e9:.4g} |" in capsys.readouterr().out
    written = json.loads((tmp_path / "flops.json").read_text())
    assert {name: written[name] for name in towers} == towers

"""The model that compares all tokens of a text with all of an image: what it answers, and that it stays itself."""

import json

import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForZeroShotImageClassification

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipTokenWiseModel
from modeling_lotlip.modeling_token_wise_lotlip import token_similarities
from tests.conftest import tiny_config


TEXTS = torch.tensor([[5, 9, 12, 33], [5, 21, 0, 0], [5, 7, 8, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])


def token_wise_config() -> LotlipConfig:
    config = tiny_config(num_corner_tokens=0, initializer_range=0.2)
    config.token_wise = True
    return config


@pytest.fixture
def model() -> LotlipTokenWiseModel:
    torch.manual_seed(0)
    return LotlipTokenWiseModel(token_wise_config()).eval()


@torch.inference_mode()
def test_logits_are_mean_similarities_of_each_token_with_the_most_similar(model):
    pixel_values = torch.randn(2, 3, 32, 32)
    outputs = model(input_ids=TEXTS, attention_mask=MASK, pixel_values=pixel_values)
    assert outputs.logits_per_image.shape == (2, 3) and outputs.logits_per_text.shape == (3, 2)
    assert outputs.text_embeds.shape == (3, 4, 32) and outputs.image_embeds.shape == (2, 5, 32)
    for row, image in enumerate(pixel_values):
        states = model.vision_model(image[None]).last_hidden_state[0]
        image_tokens = normalize(model.visual_projection(states), dim=-1)
        for column, (ids, mask) in enumerate(zip(TEXTS, MASK)):
            states = model.text_model(ids[None, : mask.sum()]).last_hidden_state[0]
            text_tokens = normalize(model.text_projection(model.text_model.pooler(states)), dim=-1)
            similarities = model.logit_scale.exp() * image_tokens @ text_tokens.t()
            expected = similarities.amax(dim=1).mean(), similarities.amax(dim=0).mean()
            ours = outputs.logits_per_image[row, column], outputs.logits_per_text[column, row]
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_logits_under_autocast_are_those_of_float32(model):
    pixel_values = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(input_ids=TEXTS, attention_mask=MASK, pixel_values=pixel_values)
    to_text, to_image = token_similarities(outputs.image_embeds, outputs.text_embeds, MASK.bool())
    assert outputs.logits_per_image.dtype == outputs.text_embeds.dtype == torch.float32
    torch.testing.assert_close(outputs.logits_per_image, model.logit_scale.exp() * to_text)
    torch.testing.assert_close(outputs.logits_per_text, model.logit_scale.exp() * to_image.t())
    halves = outputs.image_embeds.bfloat16(), outputs.text_embeds.bfloat16()
    similarities = token_similarities(*halves, MASK.bool())
    for found, expected in zip(similarities, token_similarities(*(half.float() for half in halves), MASK.bool())):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_bias_is_added_to_the_logits(model):
    inputs = {"input_ids": TEXTS, "attention_mask": MASK, "pixel_values": torch.randn(2, 3, 32, 32)}
    plain = model(**inputs)
    model.logit_bias = torch.nn.Parameter(torch.tensor(-3.0))
    biased = model(**inputs)
    for name in ("logits_per_image", "logits_per_text"):
        torch.testing.assert_close(biased[name], plain[name] - 3)


def test_short_and_long_captions_in_training(model):
    model.train()
    pixel_values = torch.randn(3, 3, 32, 32)
    long = {
        "input_ids": torch.stack([TEXTS, TEXTS.flip(0)], dim=1),
        "attention_mask": torch.stack([MASK, MASK.flip(0)], 1),
    }
    short = {"short_input_ids": TEXTS[:, :2], "short_attention_mask": MASK[:, :2]}
    torch.manual_seed(0)
    outputs = model(pixel_values=pixel_values, **long, **short)
    assert outputs.logits_per_image is None and outputs.text_embeds.shape == (3, 3, 4, 32)
    assert not outputs.text_embeds[:, 0, 2:].any(), "the short ones are padded to the length of the long ones"
    is_token = outputs.text_embeds[:, 1].norm(dim=-1)
    torch.testing.assert_close(is_token, MASK.float())

    torch.manual_seed(0)
    kept = outputs.vision_model_output.pooler_output
    again = model.eval()(vision_pooler_output=kept, **long, **short)
    torch.testing.assert_close(again.image_embeds, outputs.image_embeds)
    assert again.logits_per_text.shape == (3, 3), "of the short captions"


def test_an_absent_text_is_zero(model):
    mask = MASK.clone()
    mask[1] = 0
    embeds = model.get_text_token_embeds(TEXTS, mask)
    assert embeds.isfinite().all() and not embeds[1].any() and embeds[0].any()


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForZeroShotImageClassification])
def test_it_is_loaded_as_itself(model, auto_class, tmp_path):
    model.save_pretrained(tmp_path / "token_wise")
    LotlipModel(tiny_config()).save_pretrained(tmp_path / "plain")
    loaded = auto_class.from_pretrained(tmp_path / "token_wise")
    assert type(loaded) is LotlipTokenWiseModel and type(auto_class.from_config(model.config)) is LotlipTokenWiseModel
    assert type(auto_class.from_pretrained(tmp_path / "plain")) is LotlipModel
    assert type(auto_class.from_config(tiny_config())) is LotlipModel
    inputs = {"input_ids": TEXTS, "pixel_values": torch.ones(1, 3, 32, 32)}
    torch.testing.assert_close(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)

    with pytest.raises(ValueError, match="`LotlipModel` does not fit .*its model is `LotlipTokenWiseModel`"):
        LotlipModel.from_pretrained(tmp_path / "token_wise")
    with pytest.raises(ValueError, match="`LotlipTokenWiseModel` does not fit .*its model is `LotlipModel`"):
        LotlipTokenWiseModel.from_pretrained(tmp_path / "plain")


def test_a_folder_with_the_older_field_is_token_wise(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["token_wise"]
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"similarity": "token_wise", "architectures": ["LotlipModel"]})
    )
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is LotlipTokenWiseModel
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="`LotlipModel` does not fit .*its model is `LotlipTokenWiseModel`"):
        LotlipModel.from_pretrained(tmp_path)
    assert "similarity" not in loaded.config.to_dict() and loaded.config.architectures == ["LotlipTokenWiseModel"]


def test_it_has_no_single_embedding_and_no_corners(model):
    for call in (model.get_text_features, model.get_image_features):
        with pytest.raises(ValueError, match="no single embedding"):
            call(TEXTS)
    config = tiny_config(num_corner_tokens=2)
    config.token_wise = True
    with pytest.raises(ValueError, match="2 corner tokens.*--num_corner_tokens 0"):
        LotlipTokenWiseModel(config)

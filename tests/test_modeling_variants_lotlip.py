"""The model that compares all tokens of a text with all of an image: what it answers, and that it stays itself."""

import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForZeroShotImageClassification

from modeling_lotlip import (
    LotlipConfig,
    LotlipModel,
    LotlipSigmoidConfig,
    LotlipSigmoidModel,
    LotlipTokenWiseConfig,
    LotlipTokenWiseModel,
)
from modeling_lotlip.modeling_variants_lotlip import late_interaction
from tests.conftest import tiny_config


TEXTS = torch.tensor([[5, 9, 12, 33], [5, 21, 0, 0], [5, 7, 8, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])


@pytest.fixture
def model() -> LotlipTokenWiseModel:
    torch.manual_seed(0)
    return LotlipTokenWiseModel(tiny_config(LotlipTokenWiseConfig, num_corner_tokens=0, initializer_range=0.2)).eval()


@torch.inference_mode()
def test_logits_are_mean_similarities_of_each_token_with_the_most_similar(model):
    pixel_values = torch.randn(2, 3, 32, 32)
    outputs = model(input_ids=TEXTS, attention_mask=MASK, pixel_values=pixel_values)
    assert outputs.logits_per_image.shape == (2, 3)
    assert outputs.logits_per_text.shape == (3, 2)
    assert outputs.text_embeds.shape == (3, 4, 32)
    assert outputs.image_embeds.shape == (2, 5, 32)
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
    assert outputs.logits_per_image.dtype == outputs.text_embeds.dtype == torch.float32
    to_text = late_interaction(outputs.image_embeds, outputs.text_embeds)
    torch.testing.assert_close(outputs.logits_per_image, model.logit_scale.exp() * to_text)


@torch.inference_mode()
def test_a_bias_is_added_to_the_logits(tmp_path):
    torch.manual_seed(0)
    model = LotlipSigmoidModel(tiny_config(LotlipSigmoidConfig)).eval()
    assert model.logit_scale.exp().item() == pytest.approx(10)
    assert model.logit_bias.item() == -10
    model.logit_bias.fill_(-3.0)
    inputs = {"input_ids": TEXTS, "attention_mask": MASK, "pixel_values": torch.randn(2, 3, 32, 32)}
    plain = LotlipModel.forward(model, **inputs)
    biased = model(**inputs)
    for name in ("logits_per_image", "logits_per_text"):
        torch.testing.assert_close(biased[name], plain[name] - 3)
    model.save_pretrained(tmp_path)
    for auto_class in (AutoModel, AutoModelForZeroShotImageClassification):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is LotlipSigmoidModel
        assert torch.equal(loaded(**inputs)[0], biased[0])


@pytest.mark.parametrize("config_class", [LotlipConfig, LotlipSigmoidConfig, LotlipTokenWiseConfig])
def test_tuples_that_the_configuration_asks_for_hold_the_same(config_class):
    torch.manual_seed(0)
    model = AutoModel.from_config(tiny_config(config_class, num_corner_tokens=0)).eval()
    inputs = {"input_ids": torch.tensor([[2, 7, 3]]), "pixel_values": torch.randn(2, 3, 32, 32)}
    with torch.no_grad():
        expected = model(**inputs)
        model.config.return_dict = False
        logits_per_image, logits_per_text, *_ = model(**inputs)
    torch.testing.assert_close(logits_per_image, expected.logits_per_image)
    torch.testing.assert_close(logits_per_text, expected.logits_per_text)


@pytest.mark.parametrize("config_class", [LotlipSigmoidConfig, LotlipTokenWiseConfig])
def test_a_loss_that_is_not_the_models_is_refused(config_class):
    model = AutoModel.from_config(tiny_config(config_class, num_corner_tokens=0))
    with pytest.raises(ValueError, match="the loss of this model is `modeling_lotlip.losses"):
        model(input_ids=TEXTS[:2], pixel_values=torch.randn(2, 3, 32, 32), return_loss=True)


def test_an_absent_text_is_zero(model):
    mask = MASK.clone()
    mask[1] = 0
    embeds = model.get_text_token_embeds(TEXTS, mask)
    assert embeds.isfinite().all()
    assert not embeds[1].any()
    assert embeds[0].any()


def test_an_absent_text_has_logits_of_zero_both_ways(model):
    mask = MASK.clone()
    mask[1] = 0
    outputs = model(input_ids=TEXTS, attention_mask=mask, pixel_values=torch.randn(2, 3, 32, 32))
    assert outputs.logits_per_image[:, 1].tolist() == [0, 0]
    assert outputs.logits_per_text[1].tolist() == [0, 0]
    assert (outputs.logits_per_image[:, 0] != 0).all()


def test_images_of_another_size_have_their_positions_interpolated(model):
    pixel_values = torch.randn(2, 3, 64, 64)
    outputs = model(input_ids=TEXTS, pixel_values=pixel_values, interpolate_pos_encoding=True)
    expected = model.get_image_token_embeds(pixel_values, interpolate_pos_encoding=True)
    assert torch.equal(outputs.image_embeds, expected)


def test_it_has_no_single_embedding_and_no_corners(model):
    for call in (model.get_text_features, model.get_image_features, model.embed_images, model.embed_captions):
        with pytest.raises(ValueError, match="no single embedding"):
            call(TEXTS)
    config = tiny_config(LotlipTokenWiseConfig, num_corner_tokens=2)
    with pytest.raises(ValueError, match="2 corner tokens.*--num_corner_tokens 0"):
        LotlipTokenWiseModel(config)

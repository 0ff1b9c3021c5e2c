"""Relevance over texts and images, on cases whose answer is known."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.batches import embed_corpus, tokenize
from modeling_lotlip.evaluation.relevance import (
    denormalize,
    heat_map,
    patch_relevance,
    sub_caption_directions,
    token_relevance,
)
from modeling_lotlip.sub_captions import join_sub_captions


TEXT = "A red boat. The ground is sand. A green tree"


class LinearEncoder(nn.Module):
    """A text tower that adds up embeddings of tokens."""

    def __init__(self):
        super().__init__()
        self.words, self.device = nn.Embedding(9, 6), torch.device("cpu")
        self.text_model = SimpleNamespace(get_input_embeddings=lambda: self.words)

    def get_text_features(self, input_ids):
        return SimpleNamespace(pooler_output=self.words(input_ids).sum(dim=1))


def test_token_relevance_is_complete_and_right(loaded):
    torch.manual_seed(0)
    linear = LinearEncoder()
    input_ids = torch.tensor([[1, 2, 3, 3], [4, 5, 6, 7]])
    length = linear.get_text_features(input_ids).pooler_output.norm(dim=-1)
    relevance = token_relevance(linear, {"input_ids": input_ids})
    assert torch.allclose(relevance.sum(dim=-1), length) and relevance[0, 2] == relevance[0, 3]
    assert linear.words.weight.grad is None

    # against a small step along a word embedding
    model, processor = loaded
    model.double().set_attn_implementation("sdpa")  # "eager" rounds the attention to float32
    inputs, image = tokenize(processor, [TEXT]), nn.functional.normalize(torch.randn(1, 32, dtype=torch.float64))
    relevance = token_relevance(model, inputs, image)
    embeds = model.text_model.get_input_embeddings()(inputs["input_ids"])

    def similarity(scale):
        changed = embeds.clone()
        changed[:, 3] *= scale
        features = model.get_text_features(inputs_embeds=changed, attention_mask=inputs["attention_mask"])
        return nn.functional.cosine_similarity(features.pooler_output, image).item()

    assert relevance[0, 3].item() == pytest.approx((similarity(1 + 1e-5) - similarity(1 - 1e-5)) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("model_class", [CLIPModel, SiglipModel])
def test_other_dual_encoders(model_class):
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config_class = CLIPConfig if model_class is CLIPModel else SiglipConfig
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = config_class(
        text_config={**tower, "vocab_size": 64, "projection_dim": 32, **special},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    model = model_class._from_config(config).eval()
    images, texts = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32)
    relevance = patch_relevance(model, images, texts)
    assert relevance.shape == (2, 3, 4, 4) and relevance.isfinite().all() and (relevance != 0).any()
    # an image does not depend on those beside it
    alone = patch_relevance(model, images[1:], texts[1:, 2:])
    assert torch.allclose(alone[0, 0], relevance[1, 2], atol=1e-5)
    assert token_relevance(model, {"input_ids": torch.tensor([[1, 5, 2]])}).shape == (1, 3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_grad_cam_is_that_of_the_equations(loaded):
    """Weights: the mean gradient over the patches; the map: their sum with the activations, where it is positive."""
    model, _ = loaded
    images, texts = torch.randn(1, 3, 32, 32), torch.randn(1, 2, 32)
    outputs = model.get_image_features(images.clone().requires_grad_(), output_hidden_states=True)
    states = outputs.hidden_states[-2]
    for text, found in zip(texts[0], patch_relevance(model, images, texts)[0]):
        similarity = nn.functional.normalize(outputs.pooler_output, dim=-1)[0] @ text
        (gradient,) = torch.autograd.grad(similarity, states, retain_graph=True)
        expected = (states[0, 1:] @ gradient[0, 1:].mean(dim=0)).clamp(min=0).reshape(found.shape)
        assert torch.allclose(found, expected, atol=1e-6) and (found > 0).any()


def test_what_a_sub_caption_adds(loaded):
    model, processor = loaded
    parts = TEXT.split(". ")
    directions = sub_caption_directions(model, processor, parts)
    whole, without = embed_corpus(model, processor, [TEXT, join_sub_captions([parts[0], parts[2]])])
    assert torch.allclose(directions[1], whole - without, atol=1e-6)
    assert (sub_caption_directions(model, processor, parts, max_length=6)[2].abs() < 1e-6).all(), "beyond the limit"
    assert sub_caption_directions(model, processor, parts[:1]).shape == (1, 32)


def test_what_the_model_sees(loaded):
    _, processor = loaded
    picture = make_scene(seed=1, index=0).draw().resize((32, 32))
    pixel_values = processor.image_processor([picture], return_tensors="pt")["pixel_values"]
    seen = denormalize(processor, pixel_values[0])
    assert seen.tobytes() == picture.tobytes()


def test_a_heat_map_shows_what_speaks_for_the_text_on_the_scale_that_is_asked_for():
    picture = Image.new("RGB", (224, 224), (90, 90, 90))
    relevance = torch.tensor([[1.0, -1.0], [0.5, 0.0]])

    def middles(drawn: Image.Image) -> list[tuple[int, int, int]]:
        return [drawn.getpixel((x, y)) for y in (56, 168) for x in (56, 168)]

    for_text, against, half, nothing = middles(heat_map(picture, relevance))
    assert against == nothing and len(set(nothing)) == 1, "grey, where nothing speaks for it"
    redness = [colour[0] - colour[2] for colour in (for_text, half, nothing)]
    assert redness[0] > 0 and redness[1] > 0 and for_text != half
    # twice the scale: the largest one looks like the half of before
    assert middles(heat_map(picture, relevance, largest=2.0))[0] == pytest.approx(half, abs=12)

"""The text tower, its conversion and the loss are those of the original, on the small reference that comes along."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from modeling_lotlip import LotlipModel
from modeling_lotlip.convert_lotlip_to_hf import config_from_checkpoint, from_theirs, to_theirs
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.modeling_lotlip import LotlipCaptionEmbeddings, image_text_contrastive_loss
from tests.test_modeling_lotlip import assert_close, without_corner_positions


FOLDER = Path(__file__).parent
NUM_WORDS = 30522
NUM_CORNERS = 2


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    with np.load(FOLDER / "reference.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return {name: x.long() if x.dtype == torch.int16 else x for name, x in arrays.items()}


@pytest.fixture(scope="module")
def checkpoint(arrays) -> dict[str, torch.Tensor]:
    """The reference's text tower beside an image tower that is small and new."""
    table = torch.zeros(NUM_WORDS + NUM_CORNERS, arrays["words"].shape[1])
    table[arrays["word_rows"]] = arrays["words"]
    text = {name.removeprefix("weights/"): x for name, x in arrays.items() if name.startswith("weights/")}
    trunk = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=192, depth=1, num_heads=3, num_classes=0
    )
    vision = {f"visual.trunk.{name}": x for name, x in trunk.state_dict().items()}
    return text | vision | {"text.transformer.embeddings.word_embeddings.weight": table}


@pytest.fixture(scope="module")
def build(checkpoint):
    def build(attn_implementation: str) -> LotlipModel:
        open_clip_config = json.loads((FOLDER / "open_clip_config.json").read_text())
        open_clip_config["vision_cfg"] = {}
        config = config_from_checkpoint(checkpoint, open_clip_config, NUM_WORDS)
        model = LotlipModel(config).eval()
        model.load_state_dict(from_theirs(config, checkpoint, "lotlip").state_dict())
        model.set_attn_implementation(attn_implementation)
        return model

    return build


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "flex_attention"])
@torch.no_grad()
def test_texts_are_embedded_as_by_the_original(arrays, build, attn_implementation):
    model = build(attn_implementation)
    ids, mask = (
        without_corner_positions(arrays[f"expected/{name}_128"]) for name in ("input_ids", "attention_mask_2d")
    )
    outputs = model.get_text_features(ids, mask, output_corner_tokens=True)
    features = arrays["expected/text_cls_and_corner_features"]
    assert_close(outputs.pooler_output, features[:, 0])
    assert_close(outputs.corner_pooler_output, features[:, 1:])
    assert_close(model.get_text_features(ids, mask).pooler_output, arrays["expected/text_cls_features"])
    for row, states in enumerate(arrays["expected/text_last_hidden_state_first2"]):
        length = int(arrays["expected/attention_mask_2d_128"][row].sum())
        assert_close(outputs.corner_hidden_states[row], states[1:3])
        assert_close(outputs.last_hidden_state[row, 0], states[0])
        assert_close(outputs.last_hidden_state[row, 1 : length - 2], states[3:length])
    short = without_corner_positions(arrays["expected/input_ids_32"])
    assert_close(model.get_text_features(short, short != 0).pooler_output, arrays["expected/text_cls_features_len32"])

    image_embeds, text_embeds = (
        torch.nn.functional.normalize(x, dim=-1)
        for x in (arrays["expected/image_features"], outputs.pooler_output[:6])
    )
    logits = model.logit_scale.exp() * image_embeds @ text_embeds.t()
    assert_close(logits, arrays["expected/logits_per_image_7_images_first_6_texts"])


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_the_loss_and_its_gradients_are_those_of_the_original(arrays, build, attn_implementation):
    model = build(attn_implementation)
    values = json.loads((FOLDER / "loss.json").read_text())
    ids = without_corner_positions(arrays["loss/input_ids"])
    outputs = model(ids, torch.randn(4, 3, 32, 32), (ids != 0).long())
    assert_close(outputs.text_embeds, arrays["loss/text_features"])

    def blockwise(images, texts, logit_scale):
        # the short caption, then of each long one `[CLS]` and two corner tokens
        of_long = texts[:, 1:].unflatten(1, (-1, 3))
        present = torch.ones(texts.shape[0], of_long.shape[1], dtype=torch.bool)
        captions = LotlipCaptionEmbeddings(
            short=texts[:, 0],
            short_mask=present[:, 0],
            long=of_long[:, :, 0],
            long_mask=present,
            corners=of_long[:, :, 1:],
        )
        return global_loss(contrastive_loss, images, captions, logit_scale=logit_scale).loss

    for loss_function in (image_text_contrastive_loss, blockwise):
        images, texts = (arrays[f"loss/{kind}_features"].clone().requires_grad_() for kind in ("image", "text"))
        loss = loss_function(images, texts, model.logit_scale.exp())
        loss.backward()
        assert loss.item() == pytest.approx(values["total_loss"], abs=1e-5)
        assert_close(images.grad, arrays["loss/image_features_grad"])
        assert_close(texts.grad, arrays["loss/text_features_grad"])


def test_the_way_back_gives_the_tensors_of_the_original(checkpoint, build):
    back = to_theirs(build("sdpa").state_dict(), "lotlip")
    assert back.keys() == checkpoint.keys()
    assert all(torch.equal(back[name], checkpoint[name]) for name in back)

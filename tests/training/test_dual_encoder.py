"""Dual encoders of transformers in the module that training wraps."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, BertConfig, VisionTextDualEncoderConfig, ViTConfig

from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.objectives import choose_objective
from modeling_lotlip.training.step import train_step


TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TEXT = TOWER | {"vocab_size": 40, "max_position_embeddings": 12}
IMAGE = TOWER | {"image_size": 16, "patch_size": 8}


def make_model(model_type: str) -> ContrastiveModel:
    torch.manual_seed(0)
    if model_type == "vision-text-dual-encoder":
        towers = ViTConfig(**IMAGE), BertConfig(**TEXT)
        config = VisionTextDualEncoderConfig.from_vision_text_configs(*towers, projection_dim=24)
    else:
        options = {"projection_size": 16} if "siglip" in model_type else {"eos_token_id": 39, "projection_dim": 24}
        image = IMAGE | {"num_patches": 4} if model_type == "siglip2" else IMAGE
        config = AutoConfig.for_model(model_type, text_config=TEXT | options, vision_config=image)
    model = AutoModel.from_config(config, dtype=torch.float32).eval()
    return ContrastiveModel(model)


def make_batch(model_type: str) -> dict[str, torch.Tensor]:
    batch = {"pixel_values": torch.randn(6, 3, 16, 16)}
    if model_type == "siglip2":
        batch = {"pixel_values": torch.randn(6, 4, 192), "pixel_attention_mask": torch.ones(6, 4, dtype=torch.long)}
        batch["spatial_shapes"] = torch.tensor([[2, 2]] * 6)
    for prefix, shape in (("short_", (6,)), ("", (6, 2))):
        mask = torch.arange(12) < torch.randint(3, 13, (*shape, 1))
        batch[f"{prefix}input_ids"] = torch.randint(3, 39, (*shape, 12)) * mask
        batch[f"{prefix}attention_mask"] = mask.long()
    batch["attention_mask"][2, 1] = 0
    return batch


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("model_type", ["clip", "metaclip_2", "siglip", "siglip2", "vision-text-dual-encoder"])
def test_embeddings_are_the_models_and_the_gradient_cache_is_the_whole_batch(model_type, is_frozen):
    model, batch = make_model(model_type), make_batch(model_type)
    model.model.vision_model.requires_grad_(not is_frozen)
    images = {name: values for name, values in batch.items() if name.startswith(("pixel_", "spatial_"))}
    with torch.no_grad():
        embeds = model(**batch)
        expected = model.model.get_image_features(**images).pooler_output
        torch.testing.assert_close(embeds.image_embeds, normalize(expected, dim=-1))
        mask = {} if "siglip" in model_type else {"attention_mask": batch["short_attention_mask"]}
        expected = model.model.get_text_features(batch["short_input_ids"], **mask).pooler_output
        torch.testing.assert_close(embeds.text_embeds[:, 0], normalize(expected, dim=-1))
    assert not embeds.text_embeds[2, 2].any() and embeds.text_embeds[:, 1].any(dim=1).all(), "one is absent"

    results = []
    for tokens_per_chunk in (None, 30):
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=1000)  # the gradients are kept
        trained = copy.deepcopy(model)
        objective = choose_objective("lotlip", has_bias="logit_bias" in model.scalars)
        optimizer = torch.optim.SGD(trained.parameters())
        loss = train_step(trained, batch, optimizer, objective, accelerator, tokens_per_chunk=tokens_per_chunk).loss
        gradients = {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}
        results.append((loss.loss.detach(), gradients))
    torch.testing.assert_close(*[loss for loss, _ in results], rtol=1e-5, atol=1e-6)
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-6)


def test_a_model_without_the_parts_is_refused():
    with pytest.raises(ValueError, match="`BertModel` cannot be trained: it has no `get_text_features`"):
        ContrastiveModel(AutoModel.from_config(BertConfig(**TEXT)))

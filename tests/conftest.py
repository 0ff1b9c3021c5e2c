"""The reference data, which lies beside the repository where it is at hand, and the reference's tiny model."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from modeling_lotlip.configuration_lotlip import LotlipConfig
from modeling_lotlip.modeling_lotlip import LotlipModel, LotlipTextModel
from modeling_lotlip.weights_lotlip import (
    BERT_NAMES,
    TIMM_NAMES,
    convert_names,
    split_qkv,
    text_config_from_shapes,
    vision_config_from_shapes,
)


SHARED = Path(__file__).resolve().parents[1].parent / "shared"

# the models of the tests are too small to share out
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference():
    """Outputs of the original implementation on its tiny checkpoint."""
    tiny = SHARED / "reference" / "tiny"
    if not tiny.exists():
        pytest.skip("the reference data is not beside the repository")
    return SimpleNamespace(
        checkpoint=torch.load(tiny / "model.pt", weights_only=True),
        architecture=json.loads((tiny / "open_clip_config.json").read_text()),
        expected=load_file(tiny / "expected.safetensors"),
        pixel_values=load_file(tiny / "pixel_values.safetensors")["pixel_values"],
        loss=load_file(tiny / "loss.safetensors"),
        loss_values=json.loads((tiny / "loss.json").read_text()),
    )


@pytest.fixture(scope="session")
def build_reference_model(reference):
    """A function that gives the reference's tiny model anew, with any attention backend."""

    def of(prefix):
        return {name.removeprefix(prefix): x for name, x in reference.checkpoint.items() if name.startswith(prefix)}

    text, vision = of("text.transformer."), split_qkv(of("visual.trunk."))
    num_corner_tokens = reference.architecture["text_cfg"]["num_corner_token"]
    config = LotlipConfig(
        text_config={
            **text_config_from_shapes(
                text, num_corner_tokens, num_attention_heads=reference.architecture["text_cfg"]["num_attention_heads"]
            ),
            "projection_dim": reference.architecture["embed_dim"],
        },
        vision_config=vision_config_from_shapes(vision),
        projection_dim=reference.architecture["embed_dim"],
    )
    words = text["embeddings.word_embeddings.weight"]
    text["embeddings.word_embeddings.weight"] = words[:-num_corner_tokens]

    model = LotlipModel(config)
    model.vision_model.load_state_dict(convert_names(vision, model.vision_model, TIMM_NAMES, "model.pt"))
    without_corners = LotlipTextModel(copy.deepcopy(config.text_config))
    without_corners.embeddings.corner_tokens = None
    weights = convert_names(text, without_corners, BERT_NAMES, "model.pt")
    model.text_model.load_state_dict({**weights, "embeddings.corner_tokens": words[-num_corner_tokens:]})
    model.text_projection.load_state_dict({"weight": reference.checkpoint["text.proj.weight"]})
    with torch.no_grad():
        model.logit_scale.copy_(reference.checkpoint["logit_scale"])

    def build(attn_implementation="sdpa"):
        copied = copy.deepcopy(model).eval()
        copied.set_attn_implementation(attn_implementation)
        return copied

    return build

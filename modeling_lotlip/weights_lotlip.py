# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Weights of other models for the towers of LoTLIP: names, fused tensors, layer scales, architectures from shapes."""

import math
import re

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PreTrainedConfig

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .loading_lotlip import find_pretrained


# Each table turns a name of ours into theirs, by replacing the parts in this order.
BERT_NAMES = [
    ("embeddings.layer_norm.", "embeddings.LayerNorm."),
    ("layers.", "encoder.layer."),
    (".self_attn.q_proj.", ".attention.self.query."),
    (".self_attn.k_proj.", ".attention.self.key."),
    (".self_attn.v_proj.", ".attention.self.value."),
    (".self_attn.out_proj.", ".attention.output.dense."),
    (".layer_norm1.", ".attention.output.LayerNorm."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".layer_norm2.", ".output.LayerNorm."),
]
VIT_NAMES = [
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.patch_embedding.", "embeddings.patch_embeddings.projection."),
    (".self_attn.out_proj.", ".attention.o_proj."),
    (".self_attn.", ".attention."),
    (".layer_norm1.", ".layernorm_before."),
    (".layer_norm2.", ".layernorm_after."),
    ("post_layernorm.", "layernorm."),
]
DINOV2_NAMES = [
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.patch_embedding.", "embeddings.patch_embeddings.projection."),
    ("layers.", "encoder.layer."),
    (".self_attn.out_proj.", ".attention.o_proj."),
    (".self_attn.", ".attention."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    ("post_layernorm.", "layernorm."),
]
TIMM_NAMES = [
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("layers.", "blocks."),
    (".self_attn.out_proj.", ".attn.proj."),
    (".self_attn.", ".attn."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    ("post_layernorm.", "norm."),
]


def convert_names(state_dict: dict[str, torch.Tensor], module: nn.Module, names: list[tuple[str, str]], source: str):
    """
    Picks the weights of `module` out of a state dict with other names.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            Their weights. Every tensor must be used.
        module (`nn.Module`):
            The module of ours that they are for; only names and shapes are read, so it may be on the meta device.
        names (`list[tuple[str, str]]`):
            One of the tables of this file.
        source (`str`):
            What `state_dict` is, for the error message.

    Returns:
        `dict[str, torch.Tensor]`: the weights under our names.

    Raises:
        `ValueError`: lists tensors that are missing, surplus or of another shape.
    """
    their_names = {}
    for name in module.state_dict():
        their_names[name] = name
        for ours_part, their_part in names:
            their_names[name] = their_names[name].replace(ours_part, their_part)
    expected = {their_names[name]: tensor for name, tensor in module.state_dict().items()}
    check_tensors(state_dict, expected, f"The weights of {source} do not fit {type(module).__name__}.")
    return {name: state_dict[their_name] for name, their_name in their_names.items()}


def check_tensors(state_dict: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], complaint: str):
    """
    Compares the names and shapes of two state dicts.

    Raises:
        `ValueError`: begins with `complaint`, and lists the tensors that are missing, surplus or of another shape.
    """
    missing = [name for name in expected if name not in state_dict]
    surplus = [name for name in state_dict if name not in expected]
    misshaped = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    if missing or misshaped or surplus:
        raise ValueError(
            complaint
            + (f" Missing: {', '.join(missing)}." if missing else "")
            + (f" Of another shape: {', '.join(misshaped)}." if misshaped else "")
            + (f" Surplus: {', '.join(surplus)}." if surplus else "")
        )


def split_qkv(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Splits timm's `attn.qkv` of (3 * width, ...) into `attn.q_proj`, `attn.k_proj` and `attn.v_proj`."""
    split = {}
    for name, tensor in state_dict.items():
        if ".attn.qkv." not in name:
            split[name] = tensor
            continue
        if len(tensor) % 3 != 0:
            raise ValueError(f"`{name}` has {len(tensor)} rows, which is no multiple of 3: not query, key and value.")
        for projection, part in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3)):
            split[name.replace(".qkv.", f".{projection}.")] = part
    return split


def fold_layer_scale(state_dict: dict[str, torch.Tensor], scales: dict[str, str]) -> dict[str, torch.Tensor]:
    """
    Multiplies layer scales (Touvron et al., 2021, https://arxiv.org/abs/2103.17239, equation 4) into the linear layers
    before them: diag(s) (W x + b) = (diag(s) W) x + diag(s) b, equal to rounding.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            The weights.
        scales (`dict[str, str]`):
            End of the name of a scale, and the linear layer in the same block that it follows.
    """
    folded = dict(state_dict)
    for name, scale in state_dict.items():
        for scale_name, linear_name in scales.items():
            if name.endswith(scale_name):
                linear = name.removesuffix(scale_name) + linear_name
                folded[f"{linear}.weight"] = folded[f"{linear}.weight"] * scale[:, None]
                folded[f"{linear}.bias"] = folded[f"{linear}.bias"] * scale
                del folded[name]
    return folded


def text_config_from_shapes(
    state_dict: dict[str, torch.Tensor],
    num_corner_tokens: int,
    prefix: str = "",
    num_attention_heads: int | None = None,
) -> dict:
    """
    Reads the architecture off the weights of a BERT, whose names begin with `prefix`; 64 units to a head unless
    `num_attention_heads` is given. What has no shape keeps BERT's default.
    """
    tables = [f"{prefix}embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")]
    fc1 = f"{prefix}encoder.layer.0.intermediate.dense.weight"
    _require(state_dict, *((name, 2) for name in (*tables, fc1)))
    words, positions, token_types = (state_dict[name] for name in tables)
    hidden_size = words.shape[1]
    return {
        "vocab_size": len(words) - num_corner_tokens,
        "hidden_size": hidden_size,
        "num_hidden_layers": _count_layers(state_dict, rf"{re.escape(prefix)}encoder\.layer\.(\d+)\."),
        "num_attention_heads": num_attention_heads or _count_heads(hidden_size),
        "intermediate_size": len(state_dict[fc1]),
        "max_position_embeddings": len(positions),
        "type_vocab_size": len(token_types),
        "num_corner_tokens": num_corner_tokens,
    }


def vision_config_from_shapes(
    state_dict: dict[str, torch.Tensor], prefix: str = "", num_attention_heads: int | None = None
) -> dict:
    """
    Reads the architecture off the weights of a timm ViT, whose names begin with `prefix`; 64 units to a head unless
    `num_attention_heads` is given.
    """
    names = [f"{prefix}{name}" for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")]
    _require(state_dict, *zip(names, (3, 4, 2)))
    positions, patches, fc1 = (state_dict[name] for name in names)
    hidden_size, num_channels, *patch_size = patches.shape
    grid_size = math.isqrt(positions.shape[1] - 1)
    if grid_size**2 != positions.shape[1] - 1 or patch_size[0] != patch_size[1]:
        raise ValueError(
            f"`{names[0]}` {tuple(positions.shape)} and patches of {patch_size} are not a class token and a square of "
            "square patches."
        )
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": _count_layers(state_dict, rf"{re.escape(prefix)}blocks\.(\d+)\."),
        "num_attention_heads": num_attention_heads or _count_heads(hidden_size),
        "intermediate_size": len(fc1),
        "image_size": grid_size * patch_size[0],
        "patch_size": patch_size[0],
        "num_channels": num_channels,
        "qkv_bias": any(
            name.startswith(prefix) and name.endswith(("attn.qkv.bias", "attn.q_proj.bias")) for name in state_dict
        ),
    }


def _require(state_dict: dict[str, torch.Tensor], *dimensions: tuple[str, int]):
    missing = [name for name, _ in dimensions if name not in state_dict]
    if missing:
        raise ValueError(f"The weights lack {', '.join(missing)}: not of the expected architecture.")
    for name, number in dimensions:
        if state_dict[name].dim() != number:
            raise ValueError(f"`{name}` has the shape {tuple(state_dict[name].shape)}, but needs {number} dimensions.")


def _count_layers(state_dict: dict[str, torch.Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for match in (re.match(pattern, name) for name in state_dict) if match)


def _count_heads(hidden_size: int) -> int:
    if hidden_size % 64 != 0:
        raise ValueError(
            f"The width {hidden_size} is no multiple of 64, so the number of heads cannot be read off the shapes. "
            "Give the architecture in a configuration file."
        )
    return hidden_size // 64


def load_text_tower(name_or_path: str, **config_overrides) -> tuple[LotlipTextConfig, dict[str, torch.Tensor]]:
    """
    Configuration and weights of a text tower from a BERT checkpoint of transformers.

    Args:
        name_or_path (`str`):
            A Hub id or a folder.
        config_overrides:
            Fields of [`LotlipTextConfig`], such as `num_corner_tokens`.

    Returns:
        The configuration, and the weights under our names: all but the corner tokens.

    Raises:
        `ValueError`: if the checkpoint is no BERT encoder.
    """
    bert_config = AutoConfig.from_pretrained(name_or_path)
    if bert_config.model_type != "bert" or bert_config.is_decoder:
        raise ValueError(
            f"`text_model_name_or_path={name_or_path!r}` is of type {bert_config.model_type!r}, but the text tower "
            "takes the weights of a BERT encoder (`model_type='bert'`, `is_decoder=False`)."
        )
    config = _shared_fields(LotlipTextConfig, bert_config, **config_overrides)
    state_dict = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).state_dict()
    return config, _convert(state_dict, config, BERT_NAMES, name_or_path)


def load_vision_tower(name_or_path: str, **config_overrides) -> tuple[LotlipVisionConfig, dict[str, torch.Tensor]]:
    """
    Configuration and weights of an image tower, from a ViT or DINOv2 of transformers, a ViT of timm, or a LoTLIP.

    Args:
        name_or_path (`str`):
            A Hub id or a folder.
        config_overrides:
            Fields of [`LotlipVisionConfig`]. With another `image_size` the table of positions is resampled.

    Returns:
        The configuration, and the weights under our names.

    Raises:
        `ValueError`: if the architecture does not fit (registers, SwiGLU, another pooling, ...).
    """
    from .modeling_lotlip import LotlipVisionEmbeddings, LotlipVisionModel

    their_config = AutoConfig.from_pretrained(find_pretrained(name_or_path))
    if their_config.model_type == "timm_wrapper":
        vit = _load_timm_vit(name_or_path)
        state_dict = fold_layer_scale(split_qkv(vit.state_dict()), {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"})
        names = TIMM_NAMES
        fields = vision_config_from_shapes(state_dict, num_attention_heads=vit.blocks[0].attn.num_heads)
        config = LotlipVisionConfig(**fields, layer_norm_eps=vit.norm.eps)
    elif their_config.model_type in ("vit", "dinov2"):
        if getattr(their_config, "use_swiglu_ffn", False):
            raise ValueError(
                f"`vision_model_name_or_path={name_or_path!r}` has SwiGLU layers, but the image tower is a ViT with "
                "plain ones. Take a DINOv2 of size small, base or large."
            )
        state_dict = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).state_dict()
        state_dict = fold_layer_scale(
            state_dict,
            {"layer_scale1.lambda1": "attention.o_proj", "layer_scale2.lambda1": "mlp.fc2"},
        )
        # a pooler and a mask token serve tasks of their own
        state_dict = {
            name: tensor
            for name, tensor in state_dict.items()
            if not re.match(r"pooler\.|embeddings\.mask_token", name)
        }
        names = VIT_NAMES if their_config.model_type == "vit" else DINOV2_NAMES
        intermediate_size = state_dict[
            f"{'layers' if names is VIT_NAMES else 'encoder.layer'}.0.mlp.fc1.weight"
        ].shape[0]
        config = _shared_fields(LotlipVisionConfig, their_config, intermediate_size=intermediate_size)
    elif their_config.model_type in (LotlipConfig.model_type, LotlipVisionConfig.model_type):
        config = getattr(their_config, "vision_config", their_config)
        config = _shared_fields(LotlipVisionConfig, config)
        state_dict = LotlipVisionModel.from_pretrained(name_or_path, config=config, dtype=torch.float32).state_dict()
        names = []
    else:
        raise ValueError(
            f"`vision_model_name_or_path={name_or_path!r}` is of type {their_config.model_type!r}, but the image "
            "tower takes the weights of a ViT or DINOv2 (without registers) of transformers, of a ViT of timm, or of "
            "another LoTLIP."
        )
    state_dict = _convert(state_dict, config, names, name_or_path)

    trained_config, config = config, LotlipVisionConfig(**{**config.to_dict(), **config_overrides})
    if trained_config.image_size != config.image_size:
        embeddings = LotlipVisionEmbeddings(trained_config)
        embeddings.position_embeddings = nn.Parameter(state_dict["embeddings.position_embeddings"])
        height, width = LotlipVisionEmbeddings(config).image_size
        with torch.no_grad():
            state_dict["embeddings.position_embeddings"] = embeddings.interpolate_pos_encoding(height, width)
    return config, state_dict


def _shared_fields(config_class: type[PreTrainedConfig], their_config: PreTrainedConfig, **overrides):
    """A configuration of ours with those of their fields that describe the same thing."""
    ours = set(config_class().to_dict()) - set(PreTrainedConfig().to_dict()) - {"model_type", "projection_dim"}
    fields = {name: value for name, value in their_config.to_dict().items() if name in ours}
    return config_class(**{**fields, **overrides})


def _convert(state_dict: dict[str, torch.Tensor], config: PreTrainedConfig, names: list[tuple[str, str]], source: str):
    from .modeling_lotlip import LotlipTextModel, LotlipVisionModel

    is_text = config.model_type == LotlipTextConfig.model_type
    with torch.device("meta"):
        tower = LotlipTextModel(config) if is_text else LotlipVisionModel(config)
    if is_text:
        tower.embeddings.corner_tokens = None  # no BERT has them
    return convert_names(state_dict, tower, names, source)


def _load_timm_vit(name_or_path: str) -> nn.Module:
    """timm's own model, which tells what no tensor does: the number of heads, the activation, the pooling."""
    # by name, since an import of timm would make it a requirement of the remote code
    vit = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).timm_model
    if type(vit).__name__ != "VisionTransformer" or vit.global_pool != "token" or vit.num_prefix_tokens != 1:
        raise ValueError(
            f"`vision_model_name_or_path={name_or_path!r}` is a {type(vit).__name__} of timm with "
            f"`global_pool={getattr(vit, 'global_pool', None)!r}` and {getattr(vit, 'num_prefix_tokens', 0)} tokens "
            "beside the patches, but the image tower takes the weights of a VisionTransformer with "
            "`global_pool='token'` and a class token alone (no registers)."
        )
    points = torch.linspace(-3, 3, 7)
    activation = vit.blocks[0].mlp.act
    if not torch.allclose(activation(points), nn.functional.gelu(points)):
        raise ValueError(
            f"`vision_model_name_or_path={name_or_path!r}` has the activation {type(activation).__name__}, but the "
            "image tower takes the weights of a ViT with the exact GELU."
        )
    return vit

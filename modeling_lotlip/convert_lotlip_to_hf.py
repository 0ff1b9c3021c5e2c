# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of the original code (a fork of open_clip) to transformers, and back; towers from other checkpoints; and
the original's layout by its name.

    python -m modeling_lotlip.convert_lotlip_to_hf --checkpoint_path model.pt --output_dir LoTLIP-ViT-B-16
    python -m modeling_lotlip.convert_lotlip_to_hf --checkpoint_path LoTLIP-ViT-B-16 --to_original model.pt
"""

import argparse
import json
import math
import os
import pickle
import re
import shutil
import struct
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import torch
from huggingface_hub import _CACHED_NO_EXIST, constants, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, validate_repo_id
from huggingface_hub.utils.sha import sha_fileobj
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .hub import push_folder, write_model_card
from .hub_lotlip import find_pretrained
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel, LotlipTextModel, LotlipVisionModel
from .output_folder import atomic_write
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer


logger = logging.get_logger(__name__)

DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
CHECKPOINT_NAME, OPEN_CLIP_CONFIG_NAME = "model.pt", "open_clip_config.json"
# More rows of the word table than the tokenizer has words are corner tokens: of this many at most, unless said
MAX_CORNER_TOKENS = 16
# One more when a conversion gives other files than before: what lies in the Hub's cache is then not used any more
FORMAT = 2

# What safetensors and torch raise for a file that is damaged or not theirs, which depends on where the damage is
DAMAGED_FILE_ERRORS = (EOFError, LookupError, OSError, RuntimeError, SafetensorError, UnicodeDecodeError)
DAMAGED_FILE_ERRORS += (pickle.UnpicklingError, struct.error, zipfile.BadZipFile)

# Each table turns a name of ours into theirs, by replacing the parts in this order
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
ATTENTION_NAMES = [(".self_attn.out_proj.", ".attention.o_proj."), (".self_attn.", ".attention.")]
VIT_NAMES = [(".layer_norm1.", ".layernorm_before."), (".layer_norm2.", ".layernorm_after."), *ATTENTION_NAMES]
VIT_NAMES += [("post_layernorm.", "layernorm.")]
DINOV2_NAMES = [("layers.", "encoder.layer."), (".layer_norm1.", ".norm1."), (".layer_norm2.", ".norm2.")]
DINOV2_NAMES += [*ATTENTION_NAMES, ("post_layernorm.", "layernorm.")]
TIMM_NAMES = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layers.", "blocks."),
    (".layer_norm1.", ".norm1."),
    (".self_attn.out_proj.", ".attn.proj."),
    (".self_attn.", ".attn."),
    (".layer_norm2.", ".norm2."),
    ("post_layernorm.", "norm."),
]
# Our prefix, theirs, and the names behind it, in the order of the original's state dict
PARTS = [
    ("logit_scale", "logit_scale", []),
    ("vision_model.", "visual.trunk.", TIMM_NAMES),
    ("visual_projection.", "visual.head.proj.", []),
    ("text_model.", "text.transformer.", BERT_NAMES),
    ("text_projection.", "text.proj.", []),
]
WORD_TABLE = "text.transformer.embeddings.word_embeddings.weight"
CORNER_TABLE = "text.transformer.embeddings.corner_tokens"
POSITION_IDS = "text.transformer.embeddings.position_ids"
IMAGE_HEAD = "visual.head.proj.weight"

# Fields of open_clip_config.json and ours
VISION_FIELDS = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
VISION_FIELDS |= {name: name for name in ("patch_size", "image_size", "layer_norm_eps")}
TEXT_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
TEXT_FIELDS += ("max_position_embeddings", "type_vocab_size", "layer_norm_eps")
TEXT_FIELDS = {name: name for name in TEXT_FIELDS}
# The values for which our model computes what the original does. A missing setting is inferred from the tensors.
SUPPORTED_SETTINGS = {
    "vision_cfg": {
        "timm_pool": ["token"],
        "timm_proj": ["none", "linear", "", None],
        "timm_proj_bias": [False],
        "act": ["gelu", "gelu (exact)"],
    },
    "text_cfg": {
        "hf_pooler_type": ["cls_pooler"],
        "hf_proj_type": ["linear"],
        "hidden_act": ["gelu"],
        "position_embedding_type": ["absolute"],
    },
    "preprocess_cfg": {"mode": ["RGB"], "interpolation": ["bicubic"], "resize_mode": ["shortest"]},
}
# Settings read elsewhere in this file, and those that do not change what a given checkpoint computes
OTHER_SETTINGS = {
    "vision_cfg": "mlp_ratio timm_model_name timm_model_pretrained checkpoint_path timm_drop timm_drop_path "
    "patch_dropout output_tokens",
    "text_cfg": "context_length num_corner_token vocab_size hf_model_name hf_model_pretrained hf_tokenizer_name "
    "checkpoint_path output_tokens",
    # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here: CLIP's, by its own writer
    "preprocess_cfg": "size mean std fill_color",
}


def their_name(name: str, names: list[tuple[str, str]]) -> str:
    """Their name of one of our tensors, by one of the tables."""
    for ours, theirs in names:
        name = name.replace(ours, theirs)
    return name


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
    faults = {"Missing": missing, "Of another shape": misshaped, "Surplus": surplus}
    if any(faults.values()):
        raise ValueError(" ".join([complaint, *(f"{kind}: {', '.join(x)}." for kind, x in faults.items() if x)]))


def convert_names(state_dict: dict[str, torch.Tensor], module: nn.Module, names: list[tuple[str, str]], source: str):
    """
    The weights of `module`, which may be on the meta device, out of those of `source` with other names: a dictionary.

    Raises:
        `ValueError`: lists tensors that are missing, surplus or of another shape: all must be used.
    """
    their_names = {name: their_name(name, names) for name in module.state_dict()}
    expected = {their_names[name]: tensor for name, tensor in module.state_dict().items()}
    check_tensors(state_dict, expected, f"The weights of {source} do not fit {type(module).__name__}.")
    return {name: state_dict[their_name] for name, their_name in their_names.items()}


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
    before them, equal to rounding. `scales` has the end of a scale's name, and the linear layer that it follows.
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
    words, positions, token_types, fc1 = _require(state_dict, dict.fromkeys([*tables, fc1], 2))
    return {
        "vocab_size": len(words) - num_corner_tokens,
        "hidden_size": words.shape[1],
        "num_hidden_layers": _count_layers(state_dict, rf"{re.escape(prefix)}encoder\.layer\.(\d+)\."),
        "num_attention_heads": num_attention_heads or _count_heads(words.shape[1]),
        "intermediate_size": len(fc1),
        "max_position_embeddings": len(positions),
        "type_vocab_size": len(token_types),
        "num_corner_tokens": num_corner_tokens,
    }


def vision_config_from_shapes(
    state_dict: dict[str, torch.Tensor], prefix: str = "", num_attention_heads: int | None = None
) -> dict:
    """The same of a timm ViT."""
    names = {f"{prefix}pos_embed": 3, f"{prefix}patch_embed.proj.weight": 4, f"{prefix}blocks.0.mlp.fc1.weight": 2}
    positions, patches, fc1 = _require(state_dict, names)
    hidden_size, num_channels, *patch_size = patches.shape
    grid_size = math.isqrt(positions.shape[1] - 1)
    if grid_size**2 != positions.shape[1] - 1 or patch_size[0] != patch_size[1]:
        raise ValueError(
            f"`{prefix}pos_embed` {tuple(positions.shape)} and patches of {patch_size} are not a class token and a "
            "square of square patches."
        )
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": _count_layers(state_dict, rf"{re.escape(prefix)}blocks\.(\d+)\."),
        "num_attention_heads": num_attention_heads or _count_heads(hidden_size),
        "intermediate_size": len(fc1),
        "image_size": grid_size * patch_size[0],
        "patch_size": patch_size[0],
        "num_channels": num_channels,
    }


def _require(state_dict: dict[str, torch.Tensor], dimensions: dict[str, int]) -> list[torch.Tensor]:
    missing = [name for name in dimensions if name not in state_dict]
    if missing:
        raise ValueError(f"The weights lack {', '.join(missing)}: not of the expected architecture.")
    for name, number in dimensions.items():
        if state_dict[name].dim() != number:
            raise ValueError(f"`{name}` has the shape {tuple(state_dict[name].shape)}, but needs {number} dimensions.")
    return [state_dict[name] for name in dimensions]


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
    Configuration and weights (all but the corner tokens) of a text tower from a BERT of transformers, with other
    fields of [`LotlipTextConfig`] in `config_overrides`.

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
    with torch.device("meta"):
        tower = LotlipTextModel(config)
    tower.embeddings.corner_tokens = None  # no BERT has them
    return config, convert_names(state_dict, tower, BERT_NAMES, name_or_path)


def load_vision_tower(name_or_path: str, **config_overrides) -> tuple[LotlipVisionConfig, dict[str, torch.Tensor]]:
    """
    Configuration and weights of an image tower, from a ViT or DINOv2 of transformers (layer scales are folded into the
    linear layers), a ViT of timm, or a LoTLIP, with other fields of [`LotlipVisionConfig`] in `config_overrides`: with
    another `image_size` the table of positions is resampled.

    Raises:
        `ValueError`: if the architecture does not fit (registers, SwiGLU, another pooling, ...).
    """
    theirs = AutoConfig.from_pretrained(find_pretrained(name_or_path))
    source = f"`vision_model_name_or_path={name_or_path!r}`"
    if theirs.model_type == "timm_wrapper":
        vit = _load_timm_vit(name_or_path, source)
        state_dict = fold_layer_scale(split_qkv(vit.state_dict()), {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"})
        fields = vision_config_from_shapes(state_dict, num_attention_heads=vit.blocks[0].attn.num_heads)
        config, names = LotlipVisionConfig(**fields, layer_norm_eps=vit.norm.eps), TIMM_NAMES
    elif theirs.model_type in ("vit", "dinov2"):
        if getattr(theirs, "use_swiglu_ffn", False):
            raise ValueError(
                f"{source} has SwiGLU layers, but the image tower is a ViT with plain ones. Take a DINOv2 of size "
                "small, base or large."
            )
        state_dict = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).state_dict()
        scales = {"layer_scale1.lambda1": "attention.o_proj", "layer_scale2.lambda1": "mlp.fc2"}
        # a pooler and a mask token serve other tasks
        others = re.compile(r"pooler\.|embeddings\.mask_token")
        state_dict = {n: x for n, x in fold_layer_scale(state_dict, scales).items() if not others.match(n)}
        names = VIT_NAMES if theirs.model_type == "vit" else DINOV2_NAMES
        intermediate_size = len(state_dict[their_name("layers.0.mlp.fc1.weight", names)])
        config = _shared_fields(LotlipVisionConfig, theirs, intermediate_size=intermediate_size)
    elif theirs.model_type.startswith("lotlip") and theirs.model_type != LotlipTextConfig.model_type:
        config = _shared_fields(LotlipVisionConfig, getattr(theirs, "vision_config", theirs))
        state_dict = LotlipVisionModel.from_pretrained(name_or_path, config=config, dtype=torch.float32).state_dict()
        names = []
    else:
        raise ValueError(
            f"{source} is of type {theirs.model_type!r}, but the image tower takes the weights of a ViT or DINOv2 "
            "(without registers) of transformers, of a ViT of timm, or of another LoTLIP."
        )
    with torch.device("meta"):
        tower = LotlipVisionModel(config)
    for name, tensor in tower.state_dict().items():  # queries, keys and values without a bias have a bias of zero
        if re.search(r"[qkv]_proj\.bias$", name):
            state_dict.setdefault(their_name(name, names), torch.zeros(tensor.shape))
    state_dict = convert_names(state_dict, tower, names, name_or_path)

    trained, config = config, LotlipVisionConfig(**{**config.to_dict(), **config_overrides})
    if trained.image_size != config.image_size:
        embeddings = LotlipVisionModel(LotlipVisionConfig(**{**trained.to_dict(), "num_hidden_layers": 0})).embeddings
        embeddings.position_embeddings = nn.Parameter(state_dict["embeddings.position_embeddings"])
        height, width = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
        patches = torch.empty(1, 1 + height // config.patch_size * (width // config.patch_size), config.hidden_size)
        with torch.no_grad():
            positions = embeddings.interpolate_pos_encoding(patches, height, width)
        state_dict["embeddings.position_embeddings"] = positions
    return config, state_dict


def load_towers(
    vision_model_name_or_path: str | None = None,
    text_model_name_or_path: str | None = None,
    model_class: type[LotlipModel] = LotlipModel,
    **fields,
) -> LotlipModel:
    """
    A model whose towers come from pretrained ones, as in the paper; corner tokens and projections are new. It is in
    evaluation mode.

    Give the image tower the pixels that it was trained on: the `image_mean` and `image_std` of its image processor.

    Args:
        vision_model_name_or_path (`str`, *optional*):
            What `load_vision_tower` takes. Without it the image tower is new.
        text_model_name_or_path (`str`, *optional*):
            What `load_text_tower` takes. Without it the text tower is new.
        model_class (`type`, *optional*, defaults to `LotlipModel`):
            The class of the model, this one or a variant of it.
        fields:
            Fields of the configurations: those of the image tower with the prefix `vision_`, those of the text tower
            with `text_`, those of the model as they are. Without `projection_dim` texts are projected to the width of
            the image tower.

    Raises:
        `ValueError`: if a checkpoint is of an architecture that does not fit, or a field is unknown.

    Example:

    ```python
    >>> import tempfile
    >>> from transformers import BertConfig, BertModel, ViTConfig, ViTModel
    >>> from modeling_lotlip.convert_lotlip_to_hf import load_towers

    >>> # in place of `google-bert/bert-base-uncased` and `google/vit-base-patch16-224-in21k`
    >>> bert, vit = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> BertModel(BertConfig(num_hidden_layers=1)).save_pretrained(bert)
    >>> ViTModel(ViTConfig(num_hidden_layers=1)).save_pretrained(vit)

    >>> load_towers(vit, bert, text_num_corner_tokens=4).config.projection_dim
    768
    ```"""
    text_fields = {name[5:]: fields.pop(name) for name in list(fields) if name.startswith("text_")}
    vision_fields = {name[7:]: fields.pop(name) for name in list(fields) if name.startswith("vision_")}
    config_class = model_class.config_class
    parts = ((text_fields, LotlipTextConfig), (vision_fields, LotlipVisionConfig), (fields, config_class))
    for given, part in parts:
        unknown = sorted(set(given) - set(part.__dataclass_fields__))
        if unknown:
            raise ValueError(f"{unknown} are no fields of {part.__name__}. Mind the prefixes `text_` and `vision_`.")
    vision_config, vision_weights = LotlipVisionConfig(**vision_fields), None
    if vision_model_name_or_path is not None:
        vision_config, vision_weights = load_vision_tower(vision_model_name_or_path, **vision_fields)
    text_config, text_weights = LotlipTextConfig(**text_fields), None
    if text_model_name_or_path is not None:
        text_config, text_weights = load_text_tower(text_model_name_or_path, **text_fields)

    projection_dim = fields.setdefault("projection_dim", vision_config.projection_dim or vision_config.hidden_size)
    if vision_config.projection_dim is None and projection_dim != vision_config.hidden_size:
        vision_config.projection_dim = projection_dim
    if "projection_dim" not in text_fields:
        text_config.projection_dim = projection_dim
    model = model_class(config_class(text_config=text_config, vision_config=vision_config, **fields))
    if vision_weights is not None:
        model.vision_model.load_state_dict(vision_weights)
    if text_weights is not None:
        model.text_model.load_state_dict(text_weights, strict=False)  # no BERT has corner tokens
    return model.eval()


def _shared_fields(config_class: type[PreTrainedConfig], their_config: PreTrainedConfig, **overrides):
    """A configuration of ours with those of their fields that describe the same thing."""
    ours = set(config_class().to_dict()) - set(PreTrainedConfig().to_dict()) - {"model_type", "projection_dim"}
    fields = {name: value for name, value in their_config.to_dict().items() if name in ours}
    return config_class(**{**fields, **overrides})


def _load_timm_vit(name_or_path: str, source: str) -> nn.Module:
    """timm's own model, which tells what no tensor does: the number of heads, the activation, the pooling."""
    vit = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).timm_model
    if type(vit).__name__ != "VisionTransformer" or vit.global_pool != "token" or vit.num_prefix_tokens != 1:
        raise ValueError(
            f"{source} is a {type(vit).__name__} of timm with `global_pool={getattr(vit, 'global_pool', None)!r}` and "
            f"{getattr(vit, 'num_prefix_tokens', 0)} tokens beside the patches, but the image tower takes the weights "
            "of a VisionTransformer with `global_pool='token'` and a class token alone (no registers)."
        )
    points, activation = torch.linspace(-3, 3, 7), vit.blocks[0].mlp.act
    if not torch.allclose(activation(points), nn.functional.gelu(points)):
        raise ValueError(
            f"{source} has the activation {type(activation).__name__}, but the image tower takes the weights of a ViT "
            "with the exact GELU."
        )
    return vit


def load_checkpoint(checkpoint_path: str | Path) -> dict[str, torch.Tensor]:
    """
    Loads the state dict of an original checkpoint, without running code.

    Args:
        checkpoint_path (`str` or `Path`):
            A file of `torch.save`, or a `.safetensors` file. The state dict may sit under `state_dict`, and its names
            may begin with `module.`. BERT's buffer `position_ids`, which just counts, is left out.

    Raises:
        `ValueError`: if the file is damaged, holds anything but tensors and plain values, or is no state dict.
    """
    if not Path(checkpoint_path).is_file():
        raise FileNotFoundError(f"There is no file `{checkpoint_path}`.")
    try:
        if Path(checkpoint_path).suffix == ".safetensors":
            checkpoint = load_file(checkpoint_path)
        else:
            # torch does not look at the checksums in its archives
            if zipfile.is_zipfile(checkpoint_path) and zipfile.ZipFile(checkpoint_path).testzip() is not None:
                raise zipfile.BadZipFile(f"wrong checksum in {checkpoint_path}")
            checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    except DAMAGED_FILE_ERRORS as error:
        raise ValueError(
            f"`{checkpoint_path}` was refused: it is damaged, or holds more than tensors and plain values. No code in "
            "it was run."
        ) from error

    if isinstance(checkpoint, dict) and "state_dict" in checkpoint:
        checkpoint = checkpoint["state_dict"]
    if not isinstance(checkpoint, dict) or not all(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        raise ValueError(
            f"`{checkpoint_path}` holds no state dict: expected names and tensors, at the top or under `state_dict`."
        )
    names = {name.removeprefix("module.") for name in checkpoint}
    if len(names) < len(checkpoint):
        raise ValueError(f"`{checkpoint_path}` holds tensors both with and without the prefix `module.`.")
    checkpoint = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}

    position_ids = checkpoint.pop(POSITION_IDS, None)
    if position_ids is not None and position_ids.flatten().tolist() != list(range(position_ids.numel())):
        raise ValueError(f"`{POSITION_IDS}` is not 0, 1, 2, ...: the model counts positions otherwise than BERT does.")
    return checkpoint


def load_open_clip_config(config_path: str | Path | None) -> dict:
    """
    Loads `open_clip_config.json`: the model's settings, with or without open_clip's `preprocess_cfg` beside them.

    Returns:
        `dict`: `embed_dim` (if given), `vision_cfg`, `text_cfg` and `preprocess_cfg`; the latter three are empty
        where the file has none, and all of them without a file.

    Raises:
        `ValueError`: if it has settings that the model does not support.
    """
    content = json.loads(Path(config_path).read_text(encoding="utf-8")) if config_path is not None else {}
    # on the Hub, open_clip puts the model's settings under `model_cfg`
    config = {"preprocess_cfg": content.get("preprocess_cfg", {}), **content.get("model_cfg", content)}
    for part, supported in SUPPORTED_SETTINGS.items():
        settings = config.setdefault(part, {})
        for name, values in supported.items():
            if name in settings and settings[name] not in values:
                raise ValueError(
                    f"`{part}.{name}` is {settings[name]!r} in `{config_path}`, but LoTLIP supports only "
                    f"{' or '.join(repr(value) for value in values)}."
                )
        fields = {"vision_cfg": VISION_FIELDS, "text_cfg": TEXT_FIELDS}.get(part, {})
        unknown = sorted(set(settings) - set(supported) - set(fields) - set(OTHER_SETTINGS[part].split()))
        if unknown:
            logger.warning(f"Settings of `{part}` in `{config_path}` that are unknown and ignored: {unknown}.")
    return config


def config_from_checkpoint(
    checkpoint: dict[str, torch.Tensor], open_clip_config: dict, vocab_size: int
) -> LotlipConfig:
    """
    The configuration of an original checkpoint.

    Args:
        checkpoint (`dict[str, torch.Tensor]`):
            The state dict; only names and shapes are read.
        open_clip_config (`dict`):
            From `load_open_clip_config`. What it leaves out is read off the shapes.
        vocab_size (`int`):
            Number of the tokenizer's words. All other rows of the word table are corner tokens.

    Raises:
        `ValueError`: if word table, tokenizer and `num_corner_token` contradict each other, or the tensors are not
        those of the architecture.
    """
    vision_cfg, text_cfg = open_clip_config["vision_cfg"], open_clip_config["text_cfg"]
    vision_config = vision_config_from_shapes(
        checkpoint, prefix="visual.trunk.", num_attention_heads=vision_cfg.get("heads")
    )
    text_config = text_config_from_shapes(
        checkpoint,
        num_corner_tokens=0,
        prefix="text.transformer.",
        num_attention_heads=text_cfg.get("num_attention_heads"),
    )

    num_rows = text_config["vocab_size"]
    num_corner_tokens = text_cfg.get("num_corner_token", num_rows - vocab_size)
    if num_corner_tokens > MAX_CORNER_TOKENS and "num_corner_token" not in text_cfg:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, {num_corner_tokens} more than the tokenizer has words: too many for "
            f"corner tokens, of which no configuration names more than {MAX_CORNER_TOKENS}. Give the checkpoint's own "
            "`--tokenizer_path`, or the `num_corner_token` in its `open_clip_config.json`."
        )
    if num_corner_tokens < 0 or num_rows != vocab_size + num_corner_tokens:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, but the tokenizer has {vocab_size} words"
            + (f" and `num_corner_token` is {num_corner_tokens}" if "num_corner_token" in text_cfg else "")
            + ". The rows must be the words and the corner tokens: give the checkpoint's own `--tokenizer_path`."
        )
    if text_cfg.get("vocab_size", num_rows) not in (num_rows, vocab_size):
        raise ValueError(
            f"`text_cfg.vocab_size` is {text_cfg['vocab_size']}, but `{WORD_TABLE}` has {num_rows} rows, of which "
            f"{num_corner_tokens} are corner tokens."
        )
    text_config |= {"vocab_size": vocab_size, "num_corner_tokens": num_corner_tokens}

    vision_config |= {ours: vision_cfg[theirs] for theirs, ours in VISION_FIELDS.items() if theirs in vision_cfg}
    text_config |= {ours: text_cfg[theirs] for theirs, ours in TEXT_FIELDS.items() if theirs in text_cfg}
    if "mlp_ratio" in vision_cfg:
        vision_config["intermediate_size"] = int(vision_config["hidden_size"] * vision_cfg["mlp_ratio"])
    if isinstance(vision_config["image_size"], list):
        height, width = vision_config["image_size"]
        if height != width:
            raise ValueError(f"`vision_cfg.image_size` is {[height, width]}, but only square images are supported.")
        vision_config["image_size"] = height

    projection_dim = vision_config["hidden_size"]
    if IMAGE_HEAD in checkpoint:
        projection_dim = vision_config["projection_dim"] = len(checkpoint[IMAGE_HEAD])
    projection_dim = text_config["projection_dim"] = open_clip_config.get("embed_dim", projection_dim)
    config = LotlipConfig(text_config=text_config, vision_config=vision_config, projection_dim=projection_dim)
    for tower in (config.text_config, config.vision_config):
        if tower.num_hidden_layers > len(checkpoint):  # a model of so many might never be built
            raise ValueError(
                f"The configuration has {tower.num_hidden_layers} layers, the checkpoint {len(checkpoint)} tensors."
            )
    return config


def meta_model(config: LotlipConfig) -> LotlipModel:
    """A model without storage: names and shapes only."""
    with torch.device("meta"):
        return LotlipModel(config)


def original_name(name: str) -> str:
    """The original's name of one of our tensors."""
    for ours, theirs, names in PARTS:
        if name.startswith(ours):
            return theirs + their_name(name.removeprefix(ours), names)
    raise ValueError(f"`{name}` is no tensor of a LotlipModel.")


def _place_in_tower(name: str) -> tuple[int, int]:
    """By which tensors are sorted as in the original: that of the layer, and of the part in it."""
    match = re.match(r"(vision|text)_model\.layers\.(\d+)\.(.*)\.", name)
    if match is None:
        return (10**9 if re.match(r"(vision|text)_model\.(post|pooler)", name) else -1), 0
    attention = [f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj")]
    order = [*attention, "layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2"]
    if match[1] == "vision":
        order = ["layer_norm1", *attention, "layer_norm2", "mlp.fc1", "mlp.fc2"]
    return int(match[2]), order.index(match[3])


def state_dict_to_original(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    The original's state dict from one of [`LotlipModel`]: the inverse of `state_dict_from_original`.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            In the order of the model.

    Returns:
        `dict[str, torch.Tensor]`: in the order of the original.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.convert_lotlip_to_hf import state_dict_to_original

    >>> original = state_dict_to_original(LotlipModel(LotlipConfig()).state_dict())
    >>> original["text.transformer.embeddings.word_embeddings.weight"].shape
    torch.Size([30524, 768])
    ```"""
    renamed = {}
    for prefix, _, _ in PARTS:
        for name in sorted(filter(lambda name: name.startswith(prefix), state_dict), key=_place_in_tower):
            renamed[original_name(name)] = state_dict[name]

    original = {}
    for name, tensor in renamed.items():
        if ".attn.q_proj." in name:
            parts = [renamed[name.replace("q_proj", projection)] for projection in ("q_proj", "k_proj", "v_proj")]
            original[name.replace("q_proj", "qkv")] = torch.cat(parts)
        elif name == WORD_TABLE and CORNER_TABLE in renamed:
            original[name] = torch.cat([tensor, renamed[CORNER_TABLE]])
        elif name != CORNER_TABLE and ".attn.k_proj." not in name and ".attn.v_proj." not in name:
            original[name] = tensor
    return original


def state_dict_from_original(checkpoint: dict[str, torch.Tensor], config: LotlipConfig) -> dict[str, torch.Tensor]:
    """
    The state dict of [`LotlipModel`] from an original one.

    Args:
        checkpoint (`dict[str, torch.Tensor]`):
            From `load_checkpoint`. The last rows of its word table are the corner tokens.
        config ([`LotlipConfig`]):
            From `config_from_checkpoint`.

    Raises:
        `ValueError`: lists the tensors that are missing, surplus or of another shape.
    """
    ours = meta_model(config).state_dict()
    check_tensors(checkpoint, state_dict_to_original(ours), "The checkpoint's tensors are not those of LoTLIP.")

    words, corners = checkpoint[WORD_TABLE].tensor_split([config.text_config.vocab_size])
    theirs = split_qkv(checkpoint) | {WORD_TABLE: words, CORNER_TABLE: corners}
    return {name: theirs[original_name(name)].contiguous() for name in ours}


def load_tokenizer(tokenizer_path: str, **hub_options) -> LotlipTokenizer:
    """
    The tokenizer from any folder or Hub id with BERT's `vocab.txt` or `tokenizer.json`.

    Args:
        tokenizer_path (`str`):
            The folder or Hub id.
        hub_options:
            `cache_dir`, `local_files_only` and `token`, as in `from_pretrained`.

    Raises:
        `ValueError`: if there is neither, or the Hub cannot be reached.
    """
    for file in ("vocab.txt", "tokenizer.json"):
        try:
            cached_file(tokenizer_path, file, **hub_options)
            break
        except OSError as error:
            reason = error
    else:
        raise ValueError(
            f"The words come from `{tokenizer_path}`, and neither `vocab.txt` nor `tokenizer.json` can be had there: "
            f"{reason} `--tokenizer_path` of the conversion names another folder or Hub id with one of them."
        ) from reason
    bert = LotlipTokenizer.from_pretrained(tokenizer_path, **hub_options)
    # its words and normalization only
    return LotlipTokenizer(
        vocab=bert.get_vocab(),
        do_lower_case=bert.do_lower_case,
        tokenize_chinese_chars=bert.tokenize_chinese_chars,
        strip_accents=bert.strip_accents,
        **{name: str(token) for name, token in bert.special_tokens_map.items()},
    )


def load_converted(folder: str | Path) -> dict[str, torch.Tensor]:
    """The weights in a converted folder as they are on disk, in the order of the model."""
    config = LotlipConfig.from_pretrained(folder)
    index = Path(folder) / SAFE_WEIGHTS_INDEX_NAME
    files = {SAFE_WEIGHTS_NAME}
    if index.is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    state_dict = {}
    for file in files:
        state_dict |= load_file(Path(folder) / file)

    ours = meta_model(config).state_dict()
    check_tensors(state_dict, ours, f"The weights in `{folder}` are not those of its configuration.")
    return {name: state_dict[name] for name in ours}


def convert_checkpoint(
    checkpoint_path: str | Path,
    output_dir: str | Path,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    repo_id: str | None = None,
    **hub_options,
) -> Path:
    """
    Converts an original checkpoint to a folder. If anything fails, there is no folder.

    Args:
        checkpoint_path (`str` or `Path`):
            The original checkpoint.
        output_dir (`str` or `Path`):
            The folder; it must not exist, or be empty.
        config_path (`str` or `Path`, *optional*):
            Its `open_clip_config.json`, by default the one beside it. Without one the architecture is read off the
            shapes, 64 units to a head.
        tokenizer_path (`str`, *optional*, defaults to `"google-bert/bert-base-uncased"`):
            Folder or Hub id with BERT's `vocab.txt` or `tokenizer.json`.
        repo_id (`str`, *optional*):
            Name for the examples of the model card; the name of the folder if not given.
        hub_options:
            `cache_dir`, `local_files_only` and `token`, as in `from_pretrained`, for a tokenizer on the Hub.

    Returns:
        `Path`: the folder.

    Raises:
        `ValueError`: if the checkpoint is damaged, unsafe or of another architecture.
        `FileExistsError`: if the folder has files already.

    Example:

    ```python
    >>> from modeling_lotlip.convert_lotlip_to_hf import convert_checkpoint

    >>> convert_checkpoint("model.pt", "LoTLIP-ViT-B-16", "open_clip_config.json")  # doctest: +SKIP
    ```"""
    output_dir = Path(output_dir).absolute()
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"`{output_dir}` exists and is not an empty folder. Give another `--output_dir`.")

    beside = Path(checkpoint_path).with_name(OPEN_CLIP_CONFIG_NAME)
    open_clip_config = load_open_clip_config(beside if config_path is None and beside.is_file() else config_path)
    checkpoint = load_checkpoint(checkpoint_path)
    tokenizer = load_tokenizer(tokenizer_path, **hub_options)
    config = config_from_checkpoint(checkpoint, open_clip_config, vocab_size=len(tokenizer))
    state_dict = state_dict_from_original(checkpoint, config)

    max_positions = config.text_config.max_position_embeddings
    context_length = open_clip_config["text_cfg"].get("context_length", min(128, max_positions))
    if context_length > max_positions:
        raise ValueError(
            f"`text_cfg.context_length` is {context_length}, but the model has {max_positions} positions."
        )
    tokenizer.model_max_length = context_length - config.text_config.num_corner_tokens

    image_size = config.vision_config.image_size
    image_processor = LotlipImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )

    model = meta_model(config)
    model.load_state_dict(state_dict, assign=True)
    with open(checkpoint_path, "rb") as file:
        sha256 = sha_fileobj(file).hex()

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output_dir) as folder:
        folder.mkdir()
        model.save_pretrained(folder)
        LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
        write_model_card(
            folder,
            repo_id=repo_id or output_dir.name,
            provenance=(
                f"Converted from the checkpoint `{Path(checkpoint_path).name}` (SHA-256 `{sha256}`) of the original "
                "[LoTLIP code](https://github.com/wuw2019/LoTLIP) by `modeling_lotlip.convert_lotlip_to_hf`; the "
                "numbers are the same bit by bit. Its authors published such checkpoints as "
                "[LoTLIP-ViT-B-16-100M](https://huggingface.co/weiwu-ww/LoTLIP-ViT-B-16-100M) and "
                "[LoTLIP-ViT-B-32-100M](https://huggingface.co/weiwu-ww/LoTLIP-ViT-B-32-100M), trained on 100 million "
                "images with long captions."
            ),
            language="en",
            license="cc-by-4.0",
            license_note=(
                "The weights published by the authors of LoTLIP are under Creative Commons Attribution 4.0 "
                "(CC BY 4.0); weights that others trained are under the terms of these."
            ),
        )
    return output_dir


def write_original(folder: str | Path, to_original: str | Path):
    """
    Writes the weights of a folder with a [`LotlipModel`] as a plain open_clip state dict, with `torch.save`, and
    beside it the `open_clip_config.json` with which it is read back as the same model.

    Names, order, dtypes and every bit are those of the checkpoint that the folder was converted from. Its wrapping
    (`state_dict`, `module.`) and the buffer `position_ids`, which just counts, do not come back.

    Args:
        folder (`str` or `Path`):
            The folder of the model.
        to_original (`str` or `Path`):
            The file to write.

    Raises:
        `FileExistsError`: if the file exists already, or another configuration beside it.
        `ValueError`: if the weights are not those of a [`LotlipModel`], or the original cannot express the model.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.convert_lotlip_to_hf import write_original

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> model.save_pretrained("lotlip-tiny")
    >>> write_original("lotlip-tiny", "lotlip-tiny-original/model.pt")
    ```"""
    to_original = Path(to_original).absolute()
    config_file = to_original.with_name(OPEN_CLIP_CONFIG_NAME)
    _check_original_file(to_original)
    content = json.dumps(open_clip_config_of(folder), indent=2) + "\n"
    if config_file.exists() and config_file.read_text(encoding="utf-8") != content:
        raise FileExistsError(f"`{config_file}` is there, of another model: name a file in another folder.")
    state_dict = state_dict_to_original(load_converted(folder))
    to_original.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(to_original) as file, atomic_write(config_file) as beside:
        torch.save(state_dict, file)
        beside.write_text(content, encoding="utf-8")


def open_clip_config_of(folder: str | Path) -> dict:
    """
    The `open_clip_config.json` of a folder that a [`LotlipModel`] was saved in.

    Raises:
        `ValueError`: names what the original cannot express.
    """
    config = AutoConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    wanted = {
        "model_type": (config.model_type, LotlipConfig.model_type),
        "text_config.corner_attention_mask": (text.corner_attention_mask or text.num_corner_tokens == 0, True),
        "text_config.hidden_act": (text.hidden_act, "gelu"),
        "vision_config.hidden_act": (vision.hidden_act, "gelu"),
        "vision_config.image_size is square": (isinstance(vision.image_size, int), True),
        "vision_config.patch_size is square": (isinstance(vision.patch_size, int), True),
    }
    context_length = min(128, text.max_position_embeddings)
    if (Path(folder) / "processor_config.json").is_file():
        processor = LotlipProcessor.from_pretrained(folder)
        images, square = processor.image_processor, {"height": vision.image_size, "width": vision.image_size}
        context_length = min(
            processor.tokenizer.model_max_length + text.num_corner_tokens, text.max_position_embeddings
        )
        for name, value in {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}.items():
            given = getattr(images, name)
            wanted[name] = (list(given) if isinstance(given, (list, tuple)) else given, value)
        wanted["size"] = ({k: v for k, v in dict(images.size).items() if v}, {"shortest_edge": vision.image_size})
        wanted["crop_size"] = ({k: v for k, v in dict(images.crop_size).items() if v}, square)
    others = [f"`{name}` = {value!r}, not {needed!r}" for name, (value, needed) in wanted.items() if value != needed]
    if others:
        raise ValueError(f"The original cannot express the model in `{folder}`: {'; '.join(others)}.")
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            **{theirs: getattr(vision, ours) for theirs, ours in VISION_FIELDS.items()},
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "timm_pool": "token",
            "timm_proj": "none" if vision.projection_dim is None else "linear",
            "act": "gelu",
        },
        "text_cfg": {
            **{theirs: getattr(text, ours) for theirs, ours in TEXT_FIELDS.items()},
            "context_length": context_length,
            "vocab_size": text.vocab_size + text.num_corner_tokens,
            "num_corner_token": text.num_corner_tokens,
            "hf_model_name": DEFAULT_TOKENIZER,
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
        },
    }


def _check_original_file(to_original: Path):
    if to_original.exists():
        raise FileExistsError(f"`{to_original}` exists already. Give another file as `--to_original`.")
    if to_original.suffix == ".safetensors":
        raise ValueError(
            f"`--to_original {to_original}` is written by `torch.save`, like the original: name it `.pt`, say."
        )


def convert(
    checkpoint_path: str | Path,
    output_dir: str | Path | None = None,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    to_original: str | Path | None = None,
    card_name: str | None = None,
) -> list[Path]:
    """
    Converts a checkpoint to a folder, a folder (or a checkpoint) to the original's state dict, or both.

    Args:
        checkpoint_path (`str` or `Path`):
            The original checkpoint, or a converted folder.
        output_dir (`str` or `Path`, *optional*):
            The folder to write.
        config_path (`str` or `Path`, *optional*):
            Its `open_clip_config.json`, as in [`convert_checkpoint`].
        tokenizer_path (`str`, *optional*):
            The BERT whose vocabulary the texts were read with, as in [`convert_checkpoint`].
        to_original (`str` or `Path`, *optional*):
            The file for the original's state dict.
        card_name (`str`, *optional*):
            Name for the examples of the model card; the name of the folder if not given.

    Returns:
        `list[Path]`: what was written.

    Raises:
        `ValueError`: if there is nothing to write, or a folder is to be converted again.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor, LotlipTokenizer
    >>> from modeling_lotlip.convert_lotlip_to_hf import convert

    >>> vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    >>> one_layer = {"num_hidden_layers": 1}
    >>> config = LotlipConfig(text_config={"vocab_size": 5, **one_layer}, vision_config=one_layer)
    >>> LotlipModel(config).save_pretrained("lotlip-small")
    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer(vocab=vocab))
    >>> _ = processor.save_pretrained("lotlip-small")
    >>> convert("lotlip-small", to_original="small.pt")
    [PosixPath('small.pt')]
    ```"""
    is_converted = Path(checkpoint_path).is_dir()
    if is_converted and (to_original is None or output_dir is not None):
        raise ValueError(
            f"`{checkpoint_path}` is a folder, which is converted already: give `--to_original`, and no output folder."
        )
    if output_dir is None and to_original is None:
        raise ValueError("Give an output folder, or `--to_original` for the way back.")
    if to_original is not None:
        _check_original_file(Path(to_original).absolute())
    written = []
    with tempfile.TemporaryDirectory() as temporary_dir:
        folder = checkpoint_path
        if not is_converted:
            folder = output_dir or Path(temporary_dir) / "converted"
            convert_checkpoint(checkpoint_path, folder, config_path, tokenizer_path, card_name)
        if output_dir is not None:
            written.append(Path(output_dir))
        if to_original is not None:
            write_original(folder, to_original)
            written.append(Path(to_original))
    return written


def find_original(
    name_or_path: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
) -> tuple[Path, Path | None] | None:
    """
    The checkpoint of a repository or a folder in the original's layout, and its `open_clip_config.json` if there is
    one. What is on the Hub is downloaded to its cache.

    Args:
        name_or_path (`str` or `PathLike`):
            A Hub id or a folder. The other arguments are those of `from_pretrained`.

    Returns:
        The two files; `None` if this is no such repository or folder, or (offline) it is not in the cache.

    Raises:
        `OSError`: if the Hub has no such repository or cannot be reached.

    Example:

    ```python
    >>> from modeling_lotlip.convert_lotlip_to_hf import find_original

    >>> checkpoint, config = find_original("weiwu-ww/LoTLIP-ViT-B-16-100M")  # doctest: +SKIP
    ```"""
    if os.path.isdir(name_or_path):
        checkpoint, config = Path(name_or_path, CHECKPOINT_NAME), Path(name_or_path, OPEN_CLIP_CONFIG_NAME)
        if not checkpoint.is_file() or _is_ours(Path(name_or_path, CONFIG_NAME)):
            return None
        return checkpoint, config if config.is_file() else None
    name = str(name_or_path)
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None

    def find_cached(file: str, commit: str | None = revision):
        return try_to_load_from_cache(name, file, cache_dir=cache_dir, revision=commit)

    checkpoint = find_cached(CHECKPOINT_NAME)
    if _is_ours(find_cached(CONFIG_NAME)):
        return None  # without asking the Hub
    if local_files_only or is_offline_mode():
        config = find_cached(OPEN_CLIP_CONFIG_NAME)
        if not isinstance(checkpoint, str):
            return None
        return Path(checkpoint), Path(config) if isinstance(config, str) else None

    options = {"cache_dir": cache_dir, "token": token}
    if not isinstance(checkpoint, str):
        try:
            if _is_ours(cached_file(name, CONFIG_NAME, revision=revision, **options)):
                return None
        except OSError:
            if not _repository_folder(name, cache_dir).is_dir():
                raise
            return None  # another file of it may be all that is asked for
    options["force_download"] = force_download
    checkpoint = cached_file(
        name, CHECKPOINT_NAME, revision=revision, _raise_exceptions_for_missing_entries=False, **options
    )
    if checkpoint is None:
        return None
    commit = Path(checkpoint).parent.name
    try:
        config = cached_file(name, OPEN_CLIP_CONFIG_NAME, revision=commit, **options)
    except OSError:
        # without its configuration a checkpoint might be converted wrongly
        if find_cached(OPEN_CLIP_CONFIG_NAME, commit) is not _CACHED_NO_EXIST:
            raise
        config = None
    return Path(checkpoint), None if config is None else Path(config)


def _is_ours(config_file: object) -> bool:
    """
    Whether this is the `config.json` of a model in our layout, or of another model: any but one that transformers' own
    LoTLIP reads, which names no code, and has weights with the original's names beside it.
    """
    if not isinstance(config_file, (str, Path)) or not os.path.isfile(config_file):
        return False
    try:
        config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    except ValueError:  # which transformers tells better
        return True
    return not isinstance(config, dict) or config.get("model_type") != "lotlip" or "auto_map" in config


def find_converted(
    name_or_path: str | os.PathLike | None,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str | os.PathLike | None:
    """
    The folder that a checkpoint in the original's layout is converted to, as
    [`modeling_lotlip.hub_lotlip.find_pretrained`] says.

    Example:

    ```python
    >>> from modeling_lotlip.convert_lotlip_to_hf import find_converted

    >>> folder = find_converted("weiwu-ww/LoTLIP-ViT-B-16-100M")  # doctest: +SKIP
    ```"""
    if name_or_path is None:
        return None
    options = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    original = find_original(name_or_path, force_download=force_download, revision=revision, **options)
    if original is None:
        return name_or_path

    checkpoint, config = original
    if os.path.isdir(name_or_path):
        name = Path(name_or_path).resolve().name
        base = _repository_folder(f"converted/{name}", cache_dir)
        # a file by this name may become another one
        stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in original if file]
        key = sha256(repr((FORMAT, stamps)).encode()).hexdigest()
    else:
        name = str(name_or_path).split("/")[-1]
        base = _repository_folder(name_or_path, cache_dir) / "converted" / f"v{FORMAT}"
        key = checkpoint.parent.name  # the commit
    # the layout of the Hub's cache, whose tools look for `snapshots`
    folder = base / "snapshots" / key
    if folder.is_dir() and not force_download:
        return str(folder)
    try:
        _convert_whole(folder, checkpoint, config, name, again=force_download, **options)
    except ValueError as error:
        raise ValueError(f"`{name_or_path}` is in the original's layout and cannot be converted: {error}") from error
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"`{name_or_path}` is in the original's layout and cannot be converted to a folder in `{base}`: {error}. "
            "Where there is no room name another cache, by `HF_HUB_CACHE` or `cache_dir`."
        ) from error
    return str(folder)


def _convert_whole(folder: Path, checkpoint: Path, config: Path | None, name: str, again: bool, **hub_options):
    """Converts to a folder that is there whole or not at all, in one process of those that want it."""
    base = folder.parents[1]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(base / ".lock"):
        if folder.is_dir() and not again:
            return
        logger.warning(f"`{name}` is in the original's layout: converting it, once, to `{folder}`.")
        incomplete = base / "incomplete"
        if incomplete.exists():  # of a process that was killed
            shutil.rmtree(incomplete)
        try:
            convert_checkpoint(checkpoint, incomplete / name, config, repo_id=name, **hub_options)
            if folder.is_dir():
                folder.rename(incomplete / "former")
            (incomplete / name).rename(folder)
        finally:
            shutil.rmtree(incomplete, ignore_errors=True)


def _repository_folder(name: str | os.PathLike, cache_dir: str | os.PathLike | None) -> Path:
    """Where the Hub's cache has a repository."""
    return Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=str(name), repo_type="model")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m modeling_lotlip.convert_lotlip_to_hf",
        description="Convert a checkpoint of the original LoTLIP code to a folder for transformers, or back.",
    )
    parser.add_argument(
        "--checkpoint_path",
        type=Path,
        required=True,
        help="The original checkpoint (of torch.save, or .safetensors). With --to_original also a converted folder.",
    )
    parser.add_argument("--output_dir", type=Path, help="The folder to write: it must not exist, or be empty.")
    parser.add_argument(
        "--config_path",
        type=Path,
        help="The checkpoint's open_clip_config.json. Default: the architecture is read off the tensor shapes, 64 "
        "units to a head.",
    )
    parser.add_argument(
        "--tokenizer_path",
        default=DEFAULT_TOKENIZER,
        help="Folder or Hub id with BERT's vocab.txt or tokenizer.json. Default: %(default)s.",
    )
    parser.add_argument("--push_to_hub", metavar="NAME", help="Also upload the folder to this repository of the Hub.")
    parser.add_argument(
        "--to_original",
        type=Path,
        metavar="FILE",
        help="Write the weights as a state dict of the original code, equal to the checkpoint bit by bit.",
    )
    args = parser.parse_args()

    if args.push_to_hub is not None and args.output_dir is None:
        parser.error("--push_to_hub uploads the folder that is converted: give --output_dir")
    try:
        for path in convert(
            args.checkpoint_path,
            args.output_dir,
            config_path=args.config_path,
            tokenizer_path=args.tokenizer_path,
            to_original=args.to_original,
            card_name=args.push_to_hub,
        ):
            print(f"Wrote {path}")
        if args.push_to_hub is not None:
            print(f"Uploaded to {push_folder(args.output_dir, args.push_to_hub)}")
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")


__all__ = ["convert", "convert_checkpoint", "load_towers", "state_dict_to_original", "write_original"]


if __name__ == "__main__":
    main()

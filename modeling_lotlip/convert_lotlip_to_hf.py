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
import struct
import sys
import tempfile
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import torch
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock
from huggingface_hub.utils.sha import sha_fileobj
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .hub import write_model_card
from .hub_lotlip import find_pretrained
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel, LotlipTextModel, LotlipVisionModel
from .output_folder import atomic_write, delete
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer


logger = logging.get_logger(__name__)

DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
TOKENIZER_FILES = ["vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
CHECKPOINT_NAME, OPEN_CLIP_CONFIG_NAME = "model.pt", "open_clip_config.json"
# By which a name is that of a file, also of one that is not there
CHECKPOINT_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")
# A name of a repository, and not a path such as `./folder`
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# More rows of the word table than the tokenizer has words are corner tokens: of this many at most, unless said
MAX_CORNER_TOKENS = 16
# One more when a conversion gives other files than before: what lies in the Hub's cache is then not used any more
FORMAT = 3

# What reading a damaged file raises, which depends on where the damage is
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
# Our prefix, theirs, and the names behind it
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
# The settings for which our model computes what the original does; one that is missing is read off the tensors
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
    # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here
    "preprocess_cfg": {"mode": ["RGB"], "interpolation": ["bicubic"], "resize_mode": ["shortest"]},
}


def their_name(name: str, names: list[tuple[str, str]]) -> str:
    """Their name of one of our tensors, by one of the tables."""
    for ours, theirs in names:
        name = name.replace(ours, theirs)
    return name


def original_name(name: str) -> str:
    """The original's name of one of our tensors."""
    ours, theirs, names = next(part for part in PARTS if name.startswith(part[0]))
    return theirs + their_name(name.removeprefix(ours), names)


def check_tensors(state_dict: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], complaint: str):
    """Raises a `ValueError` that lists the tensors that are missing, surplus or of another shape."""
    faults = {
        "Missing": [name for name in expected if name not in state_dict],
        "Of another shape": [
            f"{name} {tuple(state_dict[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state_dict and state_dict[name].shape != tensor.shape
        ],
        "Surplus": [name for name in state_dict if name not in expected],
    }
    if any(faults.values()):
        raise ValueError(" ".join([complaint, *(f"{kind}: {', '.join(x)}." for kind, x in faults.items() if x)]))


def load_renamed(module: nn.Module, state_dict: dict[str, torch.Tensor], names: list[tuple[str, str]], source: str):
    """Gives the weights of `source`, all of which must fit, to a tower on the meta device."""
    ours = module.state_dict()
    expected = {their_name(name, names): tensor for name, tensor in ours.items()}
    check_tensors(state_dict, expected, f"The weights of {source} do not fit {type(module).__name__}.")
    module.load_state_dict({name: state_dict[their_name(name, names)] for name in ours}, assign=True)


def split_qkv(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Splits timm's `attn.qkv` of (3 * width, ...) into `attn.q_proj`, `attn.k_proj` and `attn.v_proj`."""
    split = {}
    for name, tensor in state_dict.items():
        if ".attn.qkv." in name:
            projections = [name.replace(".qkv.", f".{part}_proj.") for part in "qkv"]
            split |= dict(zip(projections, tensor.chunk(3)))
        else:
            split[name] = tensor
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


def _read_tower(state_dict: dict[str, torch.Tensor], width: str, layer: str, num_heads: int | None) -> dict:
    """What both towers read off the shapes; `layer` is the first linear layer of the first MLP."""
    hidden_size, pattern = state_dict[width].shape[-1], re.compile(re.escape(layer.split(".0.")[0]) + r"\.(\d+)\.")
    if num_heads is None and hidden_size % 64 != 0:
        raise ValueError(
            f"The width {hidden_size} is no multiple of 64, so the number of heads cannot be read off the shapes. "
            "Give the architecture in a configuration file."
        )
    if num_heads is None and hidden_size != 768:  # that of all released checkpoints
        logger.warning(f"No configuration tells the heads of `{width}`: {hidden_size // 64} are assumed.")
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": 1 + max(int(match[1]) for match in map(pattern.match, state_dict) if match),
        "num_attention_heads": num_heads or hidden_size // 64,
        "intermediate_size": len(state_dict[layer]),
    }


def _read_timm(state_dict: dict[str, torch.Tensor], prefix: str = "", num_heads: int | None = None) -> dict:
    """Fields of [`LotlipVisionConfig`] from the shapes of a timm ViT, whose names begin with `prefix`."""
    positions, patches = (state_dict[f"{prefix}{name}"].shape for name in ("pos_embed", "patch_embed.proj.weight"))
    grid_size = math.isqrt(positions[1] - 1)
    if grid_size**2 != positions[1] - 1 or patches[2] != patches[3]:
        raise ValueError(
            f"`{prefix}pos_embed` {tuple(positions)} and patches of {tuple(patches[2:])} are not a class token and a "
            "square of square patches."
        )
    fields = _read_tower(state_dict, f"{prefix}pos_embed", f"{prefix}blocks.0.mlp.fc1.weight", num_heads)
    return fields | {"image_size": grid_size * patches[2], "patch_size": patches[2], "num_channels": patches[1]}


def load_text_tower(name_or_path: str, **config_overrides) -> LotlipTextModel:
    """A text tower with the weights of a BERT of transformers, but without corner tokens; with other fields."""
    theirs = AutoConfig.from_pretrained(name_or_path)
    if theirs.model_type != "bert" or theirs.is_decoder:
        raise ValueError(
            f"`text_model_name_or_path={name_or_path!r}` is of type {theirs.model_type!r}, but the text tower takes "
            "the weights of a BERT encoder (`model_type='bert'`, `is_decoder=False`)."
        )
    state_dict = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).state_dict()
    with torch.device("meta"):
        tower = LotlipTextModel(_shared_fields(LotlipTextConfig, theirs, **config_overrides))
    tower.embeddings.corner_tokens = None
    load_renamed(tower, state_dict, BERT_NAMES, name_or_path)
    return tower


def load_vision_tower(name_or_path: str, **config_overrides) -> LotlipVisionModel:
    """
    An image tower with the weights of a ViT or DINOv2 of transformers (layer scales are folded into the linear
    layers), of a ViT of timm, or of a LoTLIP; with other fields: for an `image_size` the positions are resampled.
    """
    theirs = AutoConfig.from_pretrained(find_pretrained(name_or_path))
    source = f"`vision_model_name_or_path={name_or_path!r}`"
    if theirs.model_type == "timm_wrapper":
        vit, points = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).timm_model, torch.linspace(-3, 3, 7)
        is_vit = type(vit).__name__ == "VisionTransformer"
        if not is_vit or not torch.allclose(vit.blocks[0].mlp.act(points), nn.functional.gelu(points)):
            raise ValueError(
                f"{source} is a {type(vit).__name__} of timm, but the image tower takes the weights of a "
                "VisionTransformer with the exact GELU as activation."
            )
        state_dict = fold_layer_scale(split_qkv(vit.state_dict()), {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"})
        fields = _read_timm(state_dict, num_heads=vit.blocks[0].attn.num_heads)
        config, names = LotlipVisionConfig(**fields, layer_norm_eps=vit.blocks[0].norm1.eps), TIMM_NAMES
    elif theirs.model_type in ("vit", "dinov2") and not getattr(theirs, "use_swiglu_ffn", False):
        state_dict = AutoModel.from_pretrained(name_or_path, dtype=torch.float32).state_dict()
        scales = {"layer_scale1.lambda1": "attention.o_proj", "layer_scale2.lambda1": "mlp.fc2"}
        # a pooler and a mask token serve other tasks
        others = re.compile(r"pooler\.|embeddings\.mask_token")
        state_dict = {n: x for n, x in fold_layer_scale(state_dict, scales).items() if not others.match(n)}
        names = VIT_NAMES if theirs.model_type == "vit" else DINOV2_NAMES
        width = getattr(theirs, "intermediate_size", None) or int(theirs.hidden_size * theirs.mlp_ratio)
        config = _shared_fields(LotlipVisionConfig, theirs, intermediate_size=width)
    elif theirs.model_type.startswith("lotlip") and theirs.model_type != LotlipTextConfig.model_type:
        config, names = _shared_fields(LotlipVisionConfig, getattr(theirs, "vision_config", theirs)), []
        state_dict = LotlipVisionModel.from_pretrained(name_or_path, config=config, dtype=torch.float32).state_dict()
    else:
        raise ValueError(
            f"{source} is of type {theirs.model_type!r}, but the image tower takes the weights of a ViT or DINOv2 "
            "(without registers or SwiGLU) of transformers, of a ViT of timm, or of another LoTLIP."
        )
    with torch.device("meta"):
        tower = LotlipVisionModel(config)
        changed = LotlipVisionModel(LotlipVisionConfig(**{**config.to_dict(), **config_overrides}))
    for name, tensor in tower.state_dict().items():  # queries, keys and values without a bias have a bias of zero
        if re.search(r"[qkv]_proj\.bias$", name):
            state_dict.setdefault(their_name(name, names), torch.zeros(tensor.shape))
    load_renamed(tower, state_dict, names, name_or_path)

    size = changed.config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    patches = torch.empty(1, changed.embeddings.position_embeddings.shape[1], config.hidden_size)
    with torch.no_grad():
        positions = tower.embeddings.interpolate_pos_encoding(patches, height, width)
    changed.load_state_dict(tower.state_dict() | {"embeddings.position_embeddings": positions}, assign=True)
    return changed


def load_towers(
    vision_model_name_or_path: str | None = None,
    text_model_name_or_path: str | None = None,
    model_class: type[LotlipModel] = LotlipModel,
    **fields,
) -> LotlipModel:
    """
    A model whose towers come from pretrained ones, as in the paper; corner tokens and projections are new. It is in
    evaluation mode. Give the image tower the pixels that it was trained on: the mean and std of its image processor.

    Args:
        vision_model_name_or_path (`str`, *optional*):
            A ViT or DINOv2 of transformers, a ViT of timm, or a LoTLIP. Without it the image tower is new.
        text_model_name_or_path (`str`, *optional*):
            A BERT of transformers. Without it the text tower is new.
        model_class (`type`, *optional*, defaults to `LotlipModel`):
            The class of the model, this one or a variant of it.
        fields:
            Fields of the configurations: those of the image tower with the prefix `vision_`, those of the text tower
            with `text_`, those of the model as they are. Without `projection_dim` texts are projected to the width of
            the image tower.

    Raises:
        `ValueError`: if a checkpoint is of an architecture that does not fit.

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
    parts = ((text_fields, LotlipTextConfig), (vision_fields, LotlipVisionConfig), (fields, model_class.config_class))
    unknown = [name for given, part in parts for name in given if name not in part.__dataclass_fields__]
    if unknown:
        raise ValueError(f"There are no fields {unknown} of configurations. Mind the prefixes `text_` and `vision_`.")
    vision_tower = vision_model_name_or_path and load_vision_tower(vision_model_name_or_path, **vision_fields)
    text_tower = text_model_name_or_path and load_text_tower(text_model_name_or_path, **text_fields)
    vision_config = vision_tower.config if vision_tower else LotlipVisionConfig(**vision_fields)
    text_config = text_tower.config if text_tower else LotlipTextConfig(**text_fields)

    projection_dim = fields.setdefault("projection_dim", vision_config.projection_dim or vision_config.hidden_size)
    if vision_config.projection_dim is None and projection_dim != vision_config.hidden_size:
        vision_config.projection_dim = projection_dim
    if "projection_dim" not in text_fields:
        text_config.projection_dim = projection_dim
    model = model_class(model_class.config_class(text_config=text_config, vision_config=vision_config, **fields))
    for part, tower in ((model.vision_model, vision_tower), (model.text_model, text_tower)):
        if tower:
            part.load_state_dict(tower.state_dict(), strict=False)  # the corner tokens are new
    return model.eval()


def _shared_fields(config_class: type[PreTrainedConfig], their_config: PreTrainedConfig, **overrides):
    """A configuration of ours with those of their fields that describe the same thing."""
    ours = set(config_class().to_dict()) - set(PreTrainedConfig().to_dict()) - {"model_type", "projection_dim"}
    fields = {name: value for name, value in their_config.to_dict().items() if name in ours}
    return config_class(**{**fields, **overrides})


def load_checkpoint(checkpoint_path: str | Path) -> dict[str, torch.Tensor]:
    """
    The state dict of an original checkpoint, loaded without running code: of `torch.save` or `.safetensors`, at the
    top or under `state_dict`, with or without the prefix `module.`; without the buffer `position_ids`, which counts.
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
    if len({name.removeprefix("module.") for name in checkpoint}) < len(checkpoint):
        raise ValueError(f"`{checkpoint_path}` holds tensors both with and without the prefix `module.`.")
    checkpoint = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
    checkpoint.pop(POSITION_IDS, None)
    return checkpoint


def load_open_clip_config(config_path: str | Path | None) -> dict:
    """The settings of a file: `embed_dim` (if given), `vision_cfg`, `text_cfg` and `preprocess_cfg`."""
    content = json.loads(Path(config_path).read_text(encoding="utf-8")) if config_path is not None else {}
    # on the Hub, open_clip puts the model's settings under `model_cfg`
    config = {"preprocess_cfg": content.get("preprocess_cfg", {}), **content.get("model_cfg", content)}
    for part, supported in SUPPORTED_SETTINGS.items():
        for name, value in config.setdefault(part, {}).items():
            if name in supported and value not in supported[name]:
                raise ValueError(
                    f"`{part}.{name}` is {value!r} in `{config_path}`, but LoTLIP supports only "
                    f"{' or '.join(map(repr, supported[name]))}."
                )
    return config


def config_from_checkpoint(
    checkpoint: dict[str, torch.Tensor], open_clip_config: dict, vocab_size: int
) -> LotlipConfig:
    """
    The configuration of an original checkpoint, from `load_open_clip_config` and, for what that leaves out, from the
    shapes. The rows of the word table beyond the tokenizer's `vocab_size` are the corner tokens.
    """
    vision_cfg, text_cfg = open_clip_config["vision_cfg"], open_clip_config["text_cfg"]
    try:
        vision_fields = _read_timm(checkpoint, "visual.trunk.", vision_cfg.get("heads"))
        layer = "text.transformer.encoder.layer.0.intermediate.dense.weight"
        text_fields = _read_tower(checkpoint, WORD_TABLE, layer, text_cfg.get("num_attention_heads")) | {
            "max_position_embeddings": len(checkpoint["text.transformer.embeddings.position_embeddings.weight"]),
            "type_vocab_size": len(checkpoint["text.transformer.embeddings.token_type_embeddings.weight"]),
        }
    except KeyError as error:
        raise ValueError(f"The checkpoint lacks the tensor {error}: it is not of the original LoTLIP.") from error

    num_rows = len(checkpoint[WORD_TABLE])
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
    text_fields |= {name: text_cfg[name] for name in TEXT_FIELDS if name in text_cfg}
    vision_fields |= {ours: vision_cfg[theirs] for theirs, ours in VISION_FIELDS.items() if theirs in vision_cfg}
    if "mlp_ratio" in vision_cfg:
        vision_fields["intermediate_size"] = int(vision_fields["hidden_size"] * vision_cfg["mlp_ratio"])
    if not isinstance(vision_fields["image_size"], int):
        raise ValueError(f"`vision_cfg.image_size` is {vision_fields['image_size']}, but images must be square.")

    image_dim = vision_fields["hidden_size"]
    if IMAGE_HEAD in checkpoint:
        image_dim = vision_fields["projection_dim"] = len(checkpoint[IMAGE_HEAD])
    dim = open_clip_config.get("embed_dim", image_dim)
    text_fields |= {"vocab_size": vocab_size, "num_corner_tokens": num_corner_tokens, "projection_dim": dim}
    return LotlipConfig(text_config=text_fields, vision_config=vision_fields, projection_dim=dim)


def meta_model(config: LotlipConfig) -> LotlipModel:
    """A model without storage: names and shapes only."""
    with torch.device("meta"):
        return LotlipModel(config)


def state_dict_to_original(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original's state dict from one of [`LotlipModel`]."""
    renamed = {original_name(name): tensor for name, tensor in state_dict.items()}
    original = {}
    for name, tensor in renamed.items():
        if ".attn.q_proj." in name:
            parts = [renamed[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            original[name.replace("q_proj", "qkv")] = torch.cat(parts)
        elif name == WORD_TABLE and CORNER_TABLE in renamed:
            original[name] = torch.cat([tensor, renamed[CORNER_TABLE]])
        elif name != CORNER_TABLE and not re.search(r"\.attn\.[kv]_proj\.", name):
            original[name] = tensor
    return original


def state_dict_from_original(checkpoint: dict[str, torch.Tensor], config: LotlipConfig) -> dict[str, torch.Tensor]:
    """The state dict of [`LotlipModel`] from an original one: the inverse of `state_dict_to_original`."""
    ours = meta_model(config).state_dict()
    check_tensors(checkpoint, state_dict_to_original(ours), "The checkpoint's tensors are not those of LoTLIP.")
    words, corners = checkpoint[WORD_TABLE].tensor_split([config.text_config.vocab_size])
    theirs = split_qkv(checkpoint) | {WORD_TABLE: words, CORNER_TABLE: corners}
    return {name: theirs[original_name(name)].contiguous() for name in ours}


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
        `ValueError`: if the checkpoint is damaged, unsafe or of another architecture, or there are no words.
        `FileExistsError`: if the folder has files already.

    Example:

    ```python
    >>> from modeling_lotlip.convert_lotlip_to_hf import convert_checkpoint

    >>> convert_checkpoint("model.pt", "LoTLIP-ViT-B-16", "open_clip_config.json")  # doctest: +SKIP
    ```"""
    output_dir = Path(output_dir).absolute()
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"`{output_dir}` is not an empty folder: name another folder or an empty one.")
    beside = Path(checkpoint_path).with_name(OPEN_CLIP_CONFIG_NAME)
    open_clip_config = load_open_clip_config(beside if config_path is None and beside.is_file() else config_path)
    checkpoint = load_checkpoint(checkpoint_path)
    # all but the number of words is judged before the words are fetched
    num_words = len(checkpoint.get(WORD_TABLE, ())) - open_clip_config["text_cfg"].get("num_corner_token", 0)
    state_dict_from_original(checkpoint, config_from_checkpoint(checkpoint, open_clip_config, num_words))
    try:
        bert = LotlipTokenizer.from_pretrained(_fetch_words(tokenizer_path, **hub_options))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"The words of `{tokenizer_path}` are not in the cache and cannot be fetched. With a folder that has "
            "BERT's `vocab.txt`: `lotlip convert ORIGINAL DIR --tokenizer_path FOLDER`."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The words of `{tokenizer_path}` cannot be read: {error} Name another folder or Hub id with BERT's "
            "`vocab.txt` or `tokenizer.json` by `lotlip convert ORIGINAL DIR --tokenizer_path FOLDER`."
        ) from error
    # its words and normalization only
    normalization = {
        name: getattr(bert, name) for name in ("do_lower_case", "tokenize_chinese_chars", "strip_accents")
    }
    tokens = {name: str(token) for name, token in bert.special_tokens_map.items()}
    tokenizer = LotlipTokenizer(vocab=bert.get_vocab(), **normalization, **tokens)
    config = config_from_checkpoint(checkpoint, open_clip_config, vocab_size=len(tokenizer))

    max_positions = config.text_config.max_position_embeddings
    context_length = open_clip_config["text_cfg"].get("context_length", min(128, max_positions))
    if context_length > max_positions:
        raise ValueError(f"`text_cfg.context_length` is {context_length}, more than the {max_positions} positions.")
    tokenizer.model_max_length = context_length - config.text_config.num_corner_tokens
    size = config.vision_config.image_size
    images = LotlipImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    model = meta_model(config)
    model.load_state_dict(state_dict_from_original(checkpoint, config), assign=True)
    with open(checkpoint_path, "rb") as file:
        digest = sha_fileobj(file).hex()

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output_dir) as folder:
        model.save_pretrained(folder)
        LotlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
        write_model_card(
            folder,
            repo_id=repo_id or output_dir.name,
            provenance=(
                f"Converted from the checkpoint `{Path(checkpoint_path).name}` (SHA-256 `{digest}`) of the original "
                "[LoTLIP code](https://github.com/wuw2019/LoTLIP); the numbers are the same bit by bit. Its authors "
                "published such checkpoints, trained on 100 million images with long captions, as "
                "[weiwu-ww/LoTLIP-ViT-B-16-100M](https://huggingface.co/weiwu-ww/LoTLIP-ViT-B-16-100M) and `-B-32-`."
            ),
            language="en",
            license="cc-by-4.0",
            license_note=(
                "The weights published by the authors of LoTLIP are under Creative Commons Attribution 4.0 "
                "(CC BY 4.0); weights that others trained are under the terms of these."
            ),
        )
    return output_dir


def _fetch_words(tokenizer_path: str, **hub_options) -> str:
    """The folder of a tokenizer, of the Hub's cache for a Hub id: asked for at once, and not file by file."""
    if os.path.isdir(tokenizer_path):
        return tokenizer_path
    return snapshot_download(tokenizer_path, allow_patterns=TOKENIZER_FILES, **hub_options)


def write_original(folder: str | Path, to_original: str | Path):
    """
    Writes the weights of a folder with a [`LotlipModel`] as a plain open_clip state dict, with `torch.save`, and
    beside it the `open_clip_config.json` with which it is read back as the same model. Names, dtypes and every bit are
    those of the checkpoint that the folder was converted from.

    Args:
        folder (`str` or `Path`):
            The folder of the model.
        to_original (`str` or `Path`):
            The file to write.

    Raises:
        `FileExistsError`: if the file exists already, or another configuration beside it.
        `ValueError`: if the original cannot express the model; names why.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.convert_lotlip_to_hf import write_original

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> model.save_pretrained("lotlip-tiny")
    >>> write_original("lotlip-tiny", "lotlip-tiny-original/model.pt")
    ```"""
    folder, to_original = Path(folder), Path(to_original).absolute()
    config_file = to_original.with_name(OPEN_CLIP_CONFIG_NAME)
    if to_original.exists() or to_original.suffix == ".safetensors":
        raise FileExistsError(f"`{to_original}` exists already, or is no name for `torch.save`: give another.")
    config = AutoConfig.from_pretrained(folder)
    content = json.dumps(_open_clip_config_of(config, folder), indent=2) + "\n"
    if config_file.exists() and config_file.read_text(encoding="utf-8") != content:
        raise FileExistsError(f"`{config_file}` is there, of another model: name a file in another folder.")

    index, state_dict = folder / SAFE_WEIGHTS_INDEX_NAME, {}
    is_sharded = index.is_file() and not (folder / SAFE_WEIGHTS_NAME).is_file()
    files = json.loads(index.read_text())["weight_map"].values() if is_sharded else [SAFE_WEIGHTS_NAME]
    for file in set(files):
        state_dict |= load_file(folder / file)
    complaint = f"The weights in `{folder}` are not those of its configuration."
    check_tensors(state_dict, meta_model(config).state_dict(), complaint)
    to_original.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(to_original) as file, atomic_write(config_file) as beside:
        torch.save(state_dict_to_original(state_dict), file)
        beside.write_text(content, encoding="utf-8")


def _open_clip_config_of(config: PreTrainedConfig, folder: Path) -> dict:
    """The `open_clip_config.json` of a folder that a [`LotlipModel`] was saved in, unless the original has none."""
    if config.model_type != LotlipConfig.model_type:
        raise ValueError(f"The original cannot express the model in `{folder}`: `model_type` = {config.model_type!r}.")
    text, vision = config.text_config, config.vision_config
    wanted = {
        "text_config.corner_attention_mask": (text.corner_attention_mask or text.num_corner_tokens == 0, True),
        "text_config.hidden_act": (text.hidden_act, "gelu"),
        "vision_config.hidden_act": (vision.hidden_act, "gelu"),
        "vision_config.image_size is square": (isinstance(vision.image_size, int), True),
        "vision_config.patch_size is square": (isinstance(vision.patch_size, int), True),
    }
    context_length = min(128, text.max_position_embeddings)
    if (folder / "processor_config.json").is_file():
        processor = LotlipProcessor.from_pretrained(folder)
        images, square = processor.image_processor, {"height": vision.image_size, "width": vision.image_size}
        max_length = processor.tokenizer.model_max_length + text.num_corner_tokens
        context_length = min(max_length, text.max_position_embeddings)
        wanted |= {name: (list(getattr(images, name)), [0.5] * 3) for name in ("image_mean", "image_std")}
        wanted["resample"] = (images.resample, 3)
        for name, value in (("size", {"shortest_edge": vision.image_size}), ("crop_size", square)):
            wanted[name] = ({k: v for k, v in dict(getattr(images, name)).items() if v}, value)
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
            **{name: getattr(text, name) for name in TEXT_FIELDS},
            "context_length": context_length,
            "vocab_size": text.vocab_size + text.num_corner_tokens,
            "num_corner_token": text.num_corner_tokens,
            "hf_model_name": DEFAULT_TOKENIZER,
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
        },
    }


def convert(
    checkpoint_path: str | Path,
    output_dir: str | Path | None = None,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    to_original: str | Path | None = None,
) -> list[Path]:
    """
    Converts a checkpoint (a file, or a repository of the Hub or a folder in the original's layout) to a folder, which
    by default is named as the repository; a folder (or a checkpoint) to the original's state dict; or both. Returns
    what was written.
    """
    is_file = os.path.isfile(checkpoint_path) or Path(checkpoint_path).suffix in CHECKPOINT_SUFFIXES
    if not is_file and not os.path.isdir(checkpoint_path) and not REPOSITORY.fullmatch(str(checkpoint_path)):
        raise FileNotFoundError(f"There is no folder `{checkpoint_path}`, and a repository is named `org/name`.")
    original = None if is_file else find_original(checkpoint_path)
    if original is not None:
        if output_dir is None and to_original is None:
            output_dir = Path(checkpoint_path).resolve().name
        checkpoint_path, config_path = original[0], config_path or original[1]
    elif not is_file and (to_original is None or output_dir is not None or not os.path.isdir(checkpoint_path)):
        raise ValueError(
            f"`{checkpoint_path}` is not in the original's layout: it has no `{CHECKPOINT_NAME}`, or has a "
            f"`{CONFIG_NAME}` too, with which a model loads by its name; for the way back give `--to_original` alone."
        )
    elif output_dir is None and to_original is None:
        raise ValueError("Give an output folder, or `--to_original` for the way back.")
    with tempfile.TemporaryDirectory() as temporary_dir:
        folder = checkpoint_path
        if is_file or original is not None:
            folder = output_dir or Path(temporary_dir, "converted")
            convert_checkpoint(checkpoint_path, folder, config_path, tokenizer_path)
        if to_original is not None:
            write_original(folder, to_original)
    return [Path(path) for path in (output_dir, to_original) if path is not None]


def find_original(
    name_or_path: str | os.PathLike, cache_dir: str | os.PathLike | None = None, revision: str | None = None, **options
) -> tuple[Path, Path | None] | None:
    """
    The checkpoint of a repository or a folder in the original's layout, and its `open_clip_config.json` if there is
    one, downloaded to the Hub's cache; None if this is no such repository or folder, or (offline) not in the cache.
    The arguments are those of `from_pretrained`.
    """
    name, place = str(name_or_path), {"cache_dir": cache_dir, "revision": revision}
    options |= {**place, "_raise_exceptions_for_missing_entries": False}
    is_folder = os.path.isdir(name)
    try:
        config_file = None if is_folder else try_to_load_from_cache(name, CONFIG_NAME, **place)
    except ValueError:  # no name of a repository
        return None
    if not isinstance(config_file, str):  # else without asking the Hub
        config_file = cached_file(name, CONFIG_NAME, **options)
    if config_file is not None:
        content = Path(config_file).read_text(encoding="utf-8")
        # transformers' own LoTLIP, whose configuration names no code, reads weights with the original's names
        if '"auto_map"' in content or not re.search(r'"model_type": *"lotlip"', content):
            return None
    files = [cached_file(name, file, **options) for file in (CHECKPOINT_NAME, OPEN_CLIP_CONFIG_NAME)]
    return None if files[0] is None else (Path(files[0]), Path(files[1]) if files[1] else None)


def find_converted(name_or_path: str | os.PathLike, cache_dir=None, force_download: bool = False, **options):
    """What [`modeling_lotlip.hub_lotlip.find_pretrained`] says."""
    original = find_original(name_or_path, cache_dir, force_download=force_download, **options)
    if original is None:
        return name_or_path
    checkpoint, config = original
    name = Path(name_or_path).resolve().name
    is_folder = os.path.isdir(name_or_path)
    # a file by this name may become another one
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in original if file]
    key = sha256(repr((FORMAT, stamps)).encode()).hexdigest() if is_folder else checkpoint.parent.name  # the commit
    repository = repo_folder_name(repo_id=f"converted/{name}" if is_folder else str(name_or_path), repo_type="model")
    # the layout of the Hub's cache, whose tools look for `snapshots`
    base = Path(cache_dir or constants.HF_HUB_CACHE, repository, "" if is_folder else f"converted/v{FORMAT}")
    folder = base / "snapshots" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(base / ".lock"):
            for left in folder.parent.glob("*.partial"):  # of a process that was killed
                delete(left)
            if force_download:
                delete(folder)
            if not folder.is_dir():
                logger.warning(f"`{name}` is in the original's layout: converting it, once, to `{folder}`.")
                hub_options = {key: options[key] for key in ("local_files_only", "token") if key in options}
                convert_checkpoint(checkpoint, folder, config, repo_id=name, cache_dir=cache_dir, **hub_options)
    except ValueError as error:
        raise ValueError(f"`{name_or_path}` is in the original's layout and cannot be converted: {error}") from error
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"`{name_or_path}` is in the original's layout and cannot be converted to `{folder}`: {error}. Where "
            "there is no room name another cache, by `HF_HUB_CACHE` or `cache_dir`."
        ) from error
    finally:
        if not any(folder.parent.glob("*")):  # a conversion that failed leaves nothing
            with suppress(OSError):
                (base / ".lock").unlink(missing_ok=True)
                for empty in (folder.parent, base, base.parent)[: 2 if is_folder else 3]:
                    empty.rmdir()
    return str(folder)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m modeling_lotlip.convert_lotlip_to_hf", description="The same as `lotlip convert`."
    )
    parser.add_argument("--checkpoint_path", required=True, help="The original checkpoint, or a converted folder.")
    parser.add_argument("--output_dir", help="The folder to write: it must not exist, or be empty.")
    parser.add_argument("--config_path", help="The checkpoint's open_clip_config.json, by default the one beside it.")
    parser.add_argument("--tokenizer_path", default=DEFAULT_TOKENIZER, help="Default: %(default)s.")
    parser.add_argument("--to_original", metavar="FILE", help="Write a state dict of the original code.")
    try:
        for path in convert(**vars(parser.parse_args())):
            print(f"Wrote {path}")
    except (OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: error: {error}")


__all__ = ["convert_checkpoint", "load_towers", "write_original"]


if __name__ == "__main__":
    main()

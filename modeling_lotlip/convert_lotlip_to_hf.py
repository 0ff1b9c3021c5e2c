# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of the original code (a fork of open_clip) to transformers, and back; towers from other checkpoints.

    python -m modeling_lotlip.convert_lotlip_to_hf --checkpoint_path model.pt --output_dir LoTLIP-ViT-B-16
    python -m modeling_lotlip.convert_lotlip_to_hf --checkpoint_path LoTLIP-ViT-B-16 --to_original model.pt
"""

import json
import math
import os
import pickle
import struct
import zipfile
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file, is_timm_available, logging

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .hub import OF_THE_ORIGINAL, find_model_files, write_model_card
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer
from .utils.integers import check_integer
from .utils.output_folder import PARTIAL, atomic_write, delete
from .utils.terminal import without_stop


logger = logging.get_logger(__name__)

DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
# Of its words in their order, each with a line break after it, as in its `vocab.txt`
DEFAULT_WORDS_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
DEFAULT_CONTEXT_LENGTH = 128
CHECKPOINT_NAME = "model.pt"
OPEN_CLIP_CONFIG_NAME = "open_clip_config.json"
# Of rows of the word table beyond the words of the tokenizer, unless the settings give the number
MAX_CORNER_TOKENS = 16
# Fields that follow from no tensor; the last three matter in training alone
PASSED_ON = ("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
# Which one depends on where the file is damaged, or on what else it holds
DAMAGED_FILE_ERRORS = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
# Fields by which a model computes nothing, and parts whose own fields are compared
UNNEEDED_FIELDS = ("logit_scale_init_value", "bos_token_id", "eos_token_id", "text_config", "vision_config")
FORMAT = 5  # one more when a conversion gives other files than before, which lie in the Hub's cache

# Parts of our names and those of the towers of these types, None where they are equal. Tensors of ours that have one
# name there are rows of one tensor, in the order of this table.
TYPES = ("bert", "timm_wrapper", "vit", "dinov2")
NAMES = [
    ("embeddings.word_embeddings.weight", None, None, None, None),
    ("embeddings.corner_tokens", "embeddings.word_embeddings.weight", None, None, None),
    ("embeddings.layer_norm.", "embeddings.LayerNorm.", None, None, None),
    ("embeddings.cls_token", None, "cls_token", None, None),
    ("embeddings.position_embeddings", None, "pos_embed", None, None),
    ("embeddings.patch_embeddings.projection.", None, "patch_embed.proj.", None, None),
    (".self_attn.q_proj.", ".attention.self.query.", ".attn.qkv.", ".attention.q_proj.", ".attention.q_proj."),
    (".self_attn.k_proj.", ".attention.self.key.", ".attn.qkv.", ".attention.k_proj.", ".attention.k_proj."),
    (".self_attn.v_proj.", ".attention.self.value.", ".attn.qkv.", ".attention.v_proj.", ".attention.v_proj."),
    (".self_attn.out_proj.", ".attention.output.dense.", ".attn.proj.", ".attention.o_proj.", ".attention.o_proj."),
    (".layer_norm1.", ".attention.output.LayerNorm.", ".norm1.", ".layernorm_before.", ".norm1."),
    (".mlp.fc1.", ".intermediate.dense.", None, None, None),
    (".mlp.fc2.", ".output.dense.", None, None, None),
    (".layer_norm2.", ".output.LayerNorm.", ".norm2.", ".layernorm_after.", ".norm2."),
    ("layers.", "encoder.layer.", "blocks.", None, "encoder.layer."),
    ("post_layernorm.", None, "norm.", "layernorm.", "layernorm."),
    # the original has a BERT, a ViT of timm and their projections
    ("text_model.", "text.transformer.", None, None, None),
    ("text_projection.", "text.proj.", None, None, None),
    ("vision_model.", None, "visual.trunk.", None, None),
    ("visual_projection.", None, "visual.head.proj.", None, None),
]
WORD_TABLE = "text.transformer.embeddings.word_embeddings.weight"
# Layer scales, and the linear layers that they follow
LAYER_SCALES = {".layer_scale1.lambda1": ".attention.o_proj", ".layer_scale2.lambda1": ".mlp.fc2"}
LAYER_SCALES |= {".ls1.gamma": ".attn.proj", ".ls2.gamma": ".mlp.fc2"}
# What timm calls a ViT of this width, with so many layers and attention heads, and the patches and images of each
TIMM_SIZES = {
    (192, 12, 3): "tiny",
    (384, 12, 6): "small",
    (768, 12, 12): "base",
    (1024, 24, 16): "large",
    (1280, 32, 16): "huge",
}
TIMM_PATCHES_AND_IMAGES = {
    "tiny": ("patch16_224", "patch16_384"),
    "small": ("patch8_224", "patch16_224", "patch16_384", "patch32_224", "patch32_384"),
    "base": ("patch8_224", "patch16_224", "patch16_384", "patch32_224", "patch32_384"),
    "large": ("patch14_224", "patch16_224", "patch16_384", "patch32_224", "patch32_384"),
    "huge": ("patch14_224",),
}
# Other values that these settings of the original may have: which projection there is follows from the tensors
SYNONYMS = {"timm_proj": ["none", "linear", "", None], "act": ["gelu", "gelu (exact)"]}


def rename(name: str, model_type: str) -> str:
    """Renames one of our tensors to what it is called in a tower of another type, or in the original (`"lotlip"`)."""
    if model_type == "lotlip" and name.startswith("vis"):
        model_type = "timm_wrapper"
    elif model_type == "lotlip":
        model_type = "bert"
    column = 1 + TYPES.index(model_type)
    for row in NAMES:
        name = name.replace(row[0], row[column] or row[0])
    return name


def row_of(name: str) -> int:
    """Returns the index of the first row of `NAMES` that one of our names has a part of; -1 if there is none."""
    for index, row in enumerate(NAMES):
        if row[0] in name:
            return index
    return -1


def group_names(ours: dict[str, torch.Tensor], model_type: str) -> dict[str, list[str]]:
    """Groups the names of our tensors, of any shape, by the names of the tensors of theirs whose rows they are."""
    groups = {}
    for name in sorted(ours, key=row_of):
        groups.setdefault(rename(name, model_type), []).append(name)
    return groups


def to_theirs(ours: dict[str, torch.Tensor], model_type: str) -> dict[str, torch.Tensor]:
    """Renames our tensors to theirs. Those that are one tensor there become so, of shape `(rows of all, ...)`."""
    theirs = {}
    for name, group in group_names(ours, model_type).items():
        if len(group) == 1:
            theirs[name] = ours[group[0]]
        else:
            theirs[name] = torch.cat([ours[part] for part in group])
    return theirs


def from_theirs(
    config: PreTrainedConfig,
    theirs: dict[str, torch.Tensor],
    model_type: str,
) -> PreTrainedModel:
    """
    Makes a model of our architecture with their tensors, to be saved. Raises a `ValueError` that lists which are
    missing, which are too many and which have another shape.
    """
    model = AutoModel.from_config(config)
    ours = model.state_dict()
    given = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in to_theirs(ours, model_type).items()}
    faults = [
        f"{name} {given.get(name, 'none')} instead of {expected.get(name, 'none')}"
        for name in sorted(expected | given)
        if expected.get(name) != given.get(name)
    ]
    if faults:
        raise ValueError(f"The tensors are not those of a {type(model).__name__}: {'; '.join(faults)}.")
    for name, group in group_names(ours, model_type).items():
        if len(group) == 1:  # a scalar has no rows to split
            ours[group[0]] = theirs[name]
            continue
        num_rows = [len(ours[part]) for part in group]
        ours |= dict(zip(group, theirs[name].split(num_rows)))
    model.load_state_dict(ours, assign=True)
    return model.eval()


# Towers of other checkpoints


def ask_timm_for_heads(model_name: str, hidden_size: int) -> int | None:
    """
    Asks timm how many attention heads its ViT of this name has; `None` where timm is not installed, or knows no ViT
    of this name. A `ValueError` if that has another width than the checkpoint.
    """
    if not is_timm_available():
        return None
    import timm
    from timm.models.vision_transformer import Block, VisionTransformer

    if not timm.is_model(model_name):
        return None
    model = timm.create_model(model_name)
    if not isinstance(model, VisionTransformer) or not isinstance(model.blocks[0], Block):
        return None
    if model.embed_dim != hidden_size:
        raise ValueError(
            f"`vision_cfg.timm_model_name` is {model_name!r}, which has width {model.embed_dim}, "
            f"but the checkpoint's image tower has {hidden_size}: give the "
            f"`{OPEN_CLIP_CONFIG_NAME}` of this checkpoint."
        )
    return model.blocks[0].attn.num_heads


def guess_heads(layers: str, hidden_size: int) -> int:
    """Guesses the attention heads of a tower by its width, as no tensor shows them: each has a width of 64."""
    if hidden_size % 64 != 0:
        raise ValueError(
            f"No configuration gives the number of attention heads of `{layers}`, and its width "
            f"{hidden_size} is no multiple of 64: give an `{OPEN_CLIP_CONFIG_NAME}` with "
            "`vision_cfg.heads` and `text_cfg.num_attention_heads` (`--config_path`)."
        )
    num_heads = hidden_size // 64
    logger.warning(
        f"No configuration gives the number of attention heads of `{layers}`: {num_heads} are "
        f"assumed, each of width 64. If it is another, give an `{OPEN_CLIP_CONFIG_NAME}` with "
        "`vision_cfg.heads` and `text_cfg.num_attention_heads` (`--config_path`)."
    )
    return num_heads


def read_tower(
    state_dict: dict[str, torch.Tensor], layers: str, mlp: str, settings: dict, num_heads: int | None
) -> dict:
    """
    Reads the fields of either tower's configuration from the shapes of its tensors, or from settings.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            The tensors.
        layers (`str`):
            What the names of those of layers begin with.
        mlp (`str`):
            The name of the first linear layer of a layer's MLP.
        settings (`dict`):
            What no shape shows: `PASSED_ON`, and what timm calls a ViT of these attention heads.
        num_heads (`int`, *optional*):
            The number of attention heads, where the settings give it.
    """
    intermediate_size, hidden_size = state_dict[f"{layers}0.{mlp}.weight"].shape
    in_layers = [name.removeprefix(layers) for name in state_dict if name.startswith(layers)]
    indices = {name.split(".")[0] for name in in_layers}
    if num_heads is None and "timm_model_name" in settings:
        num_heads = ask_timm_for_heads(settings["timm_model_name"], hidden_size)
    if num_heads is None:
        num_heads = guess_heads(layers, hidden_size)
    fields = {
        "hidden_size": hidden_size,
        "num_hidden_layers": len(indices),
        "num_attention_heads": num_heads,
        "intermediate_size": intermediate_size,
    }
    for name in PASSED_ON:
        if name in settings:
            fields[name] = settings[name]
    return fields


def read_timm(state_dict: dict[str, torch.Tensor], prefix: str, settings: dict) -> dict:
    """
    Reads the fields of a configuration from a ViT of timm, whose names begin with `prefix`: from its positions, of
    shape `(1, 1 + patches, width)`, its patch embedding and the shapes of its layers.
    """
    num_positions = state_dict[f"{prefix}pos_embed"].shape[1]
    _, num_channels, patch_size, _ = state_dict[f"{prefix}patch_embed.proj.weight"].shape
    fields = read_tower(state_dict, f"{prefix}blocks.", "mlp.fc1", settings, settings.get("heads"))
    fields["image_size"] = math.isqrt(num_positions - 1) * patch_size
    fields["patch_size"] = patch_size
    fields["num_channels"] = num_channels
    return fields


def fold_layer_scales(state_dict: dict[str, torch.Tensor]) -> None:
    """Multiplies layer scales, of shape `(width,)`, into the linear layers before them, and takes them out."""
    for scale, linear in LAYER_SCALES.items():
        layers = [name.removesuffix(scale) for name in state_dict if name.endswith(scale)]
        for layer in layers:
            factor = state_dict.pop(f"{layer}{scale}")
            weight = f"{layer}{linear}.weight"
            bias = f"{layer}{linear}.bias"
            state_dict[weight] = state_dict[weight] * factor[:, None]
            state_dict[bias] = state_dict[bias] * factor


def read_timm_model(name_or_path: str, model: nn.Module) -> dict:
    """Reads the fields of a configuration from a model of timm. Raises a `ValueError` if it is no plain ViT."""
    # other blocks have other modules, or the same ones in another order (ResPostBlock)
    is_plain_vit = type(model).__name__ == "VisionTransformer" and type(model.blocks[0]).__name__ == "Block"
    if is_plain_vit:
        points = torch.linspace(-3, 3, 7)
        is_plain_vit = torch.allclose(model.blocks[0].mlp.act(points), nn.functional.gelu(points))
    if not is_plain_vit:
        raise ValueError(f"`{name_or_path}` is no VisionTransformer of timm with plain blocks and the exact GELU.")
    block = model.blocks[0]
    settings = {"heads": block.attn.num_heads, "layer_norm_eps": block.norm1.eps}
    return read_timm(model.state_dict(), "", settings)


def load_tower(name_or_path: str, types: tuple[str, ...]) -> PreTrainedModel:
    """Loads a tower of one of these types, without corner tokens."""
    theirs = AutoConfig.from_pretrained(name_or_path)
    model_type = theirs.model_type
    if model_type not in types or getattr(theirs, "use_swiglu_ffn", False):
        raise ValueError(
            f"`{name_or_path}` is of type {model_type!r}: the tower takes {' or '.join(types)}, no SwiGLU."
        )
    if getattr(theirs, "is_decoder", False):
        raise ValueError(
            f"`{name_or_path}` is a decoder, in which a token sees those before it alone: name an encoder, "
            "without `is_decoder` in its `config.json`."
        )
    model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    if model_type == "timm_wrapper":
        model = model.timm_model
        fields = read_timm_model(name_or_path, model)
    else:
        names = LotlipTextConfig.__annotations__ | LotlipVisionConfig.__annotations__
        fields = {name: value for name, value in theirs.to_dict().items() if name in names}
    state_dict = model.state_dict()
    fold_layer_scales(state_dict)
    if model_type == "bert":
        return from_theirs(LotlipTextConfig(**fields, num_corner_tokens=0), state_dict, model_type)
    if model_type == "dinov2":
        fields["intermediate_size"] = int(theirs.hidden_size * theirs.mlp_ratio)
    # a pooler and a mask token serve other tasks
    needed = {}
    for name, tensor in state_dict.items():
        if not name.startswith(("pooler.", "embeddings.mask_token")):
            needed[name] = tensor
    return from_theirs(LotlipVisionConfig(**fields), needed, model_type)


def load_towers(
    vision_model_name_or_path: str | None = None,
    text_model_name_or_path: str | None = None,
    vision_config: dict | None = None,
    text_config: dict | None = None,
) -> LotlipModel:
    """
    Makes a model whose towers come from pretrained ones, as in the paper, in evaluation mode; corner tokens and
    projections are new. Layer scales (Touvron et al., 2021, https://arxiv.org/abs/2103.17239, equation 4) are
    multiplied into the linear layers before them. Give the image tower the pixels of its image processor, with its
    mean and std.

    Args:
        vision_model_name_or_path (`str`, *optional*):
            A ViT or DINOv2 of transformers, or a ViT of timm. Without it the image tower is new.
        text_model_name_or_path (`str`, *optional*):
            A BERT of transformers. Without it the text tower is new.
        vision_config (`dict`, *optional*):
            Fields that are to be others than those of the tower. Positions are resampled for an `image_size`.
        text_config (`dict`, *optional*):
            The same of the text tower.

    Raises:
        `ValueError`: if a tower is of an architecture that does not fit.

    Example:

    ```python
    >>> from modeling_lotlip.convert_lotlip_to_hf import load_towers

    >>> load_towers("google/vit-base-patch16-224", "google-bert/bert-base-uncased")  # doctest: +SKIP
    ```"""
    vision_fields = {}
    if vision_model_name_or_path:
        vision = load_tower(vision_model_name_or_path, TYPES[1:])
        vision_fields = vision.config.to_dict()
    text_fields = {}
    if text_model_name_or_path:
        text = load_tower(text_model_name_or_path, TYPES[:1])
        text_fields = text.config.to_dict()

    vision_config = LotlipVisionConfig(**vision_fields | (vision_config or {}))
    projection_dim = vision_config.projection_dim or vision_config.hidden_size
    text_fields["num_corner_tokens"] = LotlipTextConfig.num_corner_tokens
    text_fields["projection_dim"] = projection_dim
    text_config = LotlipTextConfig(**text_fields | (text_config or {}))
    config = LotlipConfig(
        text_config=text_config,
        vision_config=vision_config,
        projection_dim=projection_dim,
    )
    model = LotlipModel(config).eval()

    if vision_model_name_or_path:
        ours = model.vision_model.embeddings
        state_dict = vision.state_dict()
        state_dict["embeddings.position_embeddings"] = vision.embeddings.interpolate_pos_encoding(
            ours.position_embeddings, *ours.image_size
        )
        model.vision_model.load_state_dict(state_dict)
    if text_model_name_or_path:
        state_dict = text.state_dict()
        for name, tensor in model.text_model.state_dict().items():
            if "corner_tokens" in name:
                state_dict[name] = tensor
        model.text_model.load_state_dict(state_dict)
    return model


# Checkpoints of the original


def load_original_checkpoint(checkpoint_path: str | Path) -> dict[str, torch.Tensor]:
    """Loads the tensors of a file of `torch.save`, of any shape, at the top or under `state_dict`; runs no code."""
    try:
        # torch does not look at the checksums in its archives
        if zipfile.is_zipfile(checkpoint_path):
            with zipfile.ZipFile(checkpoint_path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile("wrong checksum")
        checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        checkpoint = checkpoint.get("state_dict", checkpoint)
        state_dict = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
        broken = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    except PermissionError:
        raise
    except DAMAGED_FILE_ERRORS as error:
        raise ValueError(
            f"`{checkpoint_path}` was refused: it is damaged, or no state dict of `torch.save`. No code was run."
        ) from error
    if broken:
        raise ValueError(f"`{broken[0]}` in `{checkpoint_path}` has values that are NaN or infinite.")
    state_dict.pop("text.transformer.embeddings.position_ids", None)  # a buffer that counts
    return state_dict


def open_clip_config_of(config: LotlipConfig) -> dict:
    """Writes the settings with which the original computes what our model does."""
    text = config.text_config
    vision = config.vision_config
    vision_cfg = {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        "patch_size": vision.patch_size,
        "image_size": vision.image_size,
        "timm_pool": "token",
        "timm_proj": "none",
        "timm_proj_bias": False,
        "act": vision.hidden_act,
    }
    if vision.projection_dim is not None:
        vision_cfg["timm_proj"] = "linear"
    text_cfg = {
        "hidden_size": text.hidden_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "intermediate_size": text.intermediate_size,
        "hidden_act": text.hidden_act,
        "max_position_embeddings": text.max_position_embeddings,
        "type_vocab_size": text.type_vocab_size,
        "num_corner_token": text.num_corner_tokens,
        "hf_pooler_type": "cls_pooler",
        "hf_proj_type": "linear",
    }
    for name in PASSED_ON:
        vision_cfg[name] = getattr(vision, name)
        text_cfg[name] = getattr(text, name)
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
        # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here
        "preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "shortest"},
    }


def check_settings(config: LotlipConfig, settings: dict) -> None:
    """Raises a `ValueError` for a setting of the original with which it would compute something else."""
    ours = open_clip_config_of(config)
    for part in ("vision_cfg", "text_cfg", "preprocess_cfg"):
        given = settings.get(part, {})
        for name, value in ours[part].items():
            if name in given and given[name] not in SYNONYMS.get(name, [value]):
                raise ValueError(
                    f"`{part}.{name}` is {given[name]!r}, but the original's LoTLIP needs {value!r} there."
                )


def count_corner_tokens(num_rows: int, vocab_size: int, num_corner_tokens: int | None) -> int:
    """Counts the rows of the word table after the words; a `ValueError` if the settings give another number."""
    if num_corner_tokens is not None and num_rows != vocab_size + num_corner_tokens:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, but the tokenizer has {vocab_size} words and "
            f"`num_corner_token` is {num_corner_tokens}: give the checkpoint's own "
            "`--tokenizer_path`."
        )
    if not 0 <= num_rows - vocab_size <= MAX_CORNER_TOKENS and num_corner_tokens is None:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, but the tokenizer has {vocab_size} words, and "
            f"after the words there may be 0 to {MAX_CORNER_TOKENS} corner tokens: give the "
            "checkpoint's own `--tokenizer_path`."
        )
    return num_rows - vocab_size


def config_from_checkpoint(
    checkpoint: dict[str, torch.Tensor],
    settings: dict,
    vocab_size: int,
) -> LotlipConfig:
    """
    Reads the configuration of a checkpoint of the original from the shapes of its tensors.

    Args:
        checkpoint (`dict[str, torch.Tensor]`):
            The tensors; the word table is of shape `(words + corner tokens, width)`.
        settings (`dict`):
            The content of an `open_clip_config.json`, for what no shape shows; empty if there is none.
        vocab_size (`int`):
            The number of words, without corner tokens.

    Raises:
        `ValueError`: if a tensor is missing, or a setting is none of the original's LoTLIP.
    """
    text_cfg = settings.get("text_cfg", {})
    embeddings = "text.transformer.embeddings."
    try:
        vision = read_timm(checkpoint, "visual.trunk.", settings.get("vision_cfg", {}))
        # `heads` in `text_cfg` are those of open_clip's own text tower, which is not BERT
        num_heads = text_cfg.get("num_attention_heads")
        text = read_tower(checkpoint, "text.transformer.encoder.layer.", "intermediate.dense", text_cfg, num_heads)
        text["max_position_embeddings"] = len(checkpoint[f"{embeddings}position_embeddings.weight"])
        text["type_vocab_size"] = len(checkpoint[f"{embeddings}token_type_embeddings.weight"])
        num_rows = len(checkpoint[WORD_TABLE])
    except KeyError as error:
        raise ValueError(f"The checkpoint lacks the tensor {error}: it is not of the original LoTLIP.") from error

    dim = vision["hidden_size"]
    if "visual.head.proj.weight" in checkpoint:
        dim = len(checkpoint["visual.head.proj.weight"])
        vision["projection_dim"] = dim
    text["vocab_size"] = vocab_size
    given_corner_tokens = text_cfg.get("num_corner_token")
    text["num_corner_tokens"] = count_corner_tokens(num_rows, vocab_size, given_corner_tokens)
    text["projection_dim"] = dim
    try:
        config = LotlipConfig(text_config=text, vision_config=vision, projection_dim=dim)
    except StrictDataclassError as error:  # of a setting of another type
        raise ValueError(f"The settings of the checkpoint cannot be used: {error}") from error
    check_settings(config, settings)
    return config


def check_is_empty(folder: Path) -> None:
    """Raises a `FileExistsError` if a path is there and no empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"`{folder}` is not an empty folder: name another folder or an empty one.")


def load_settings(config_path: str | Path | None) -> dict:
    """Loads the content of an `open_clip_config.json`; nothing where none is given."""
    if config_path is None:
        return {}
    try:
        settings = json.loads(Path(config_path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"The settings in `{config_path}` are no JSON: {without_stop(error)}. Mend the file, or "
            "give another `--config_path`."
        ) from error
    if isinstance(settings, dict) and isinstance(settings.get("model_cfg"), dict):
        settings |= settings["model_cfg"]  # where open_clip puts them on the Hub
    parts = ("text_cfg", "vision_cfg", "preprocess_cfg")
    if not isinstance(settings, dict) or not any(part in settings for part in parts):
        raise ValueError(
            f"The settings in `{config_path}` have no `text_cfg` and no `vision_cfg`: it is no "
            f"`{OPEN_CLIP_CONFIG_NAME}`. Remove it, or give another `--config_path`."
        )
    for part in parts:
        if not isinstance(settings.get(part, {}), dict):
            raise ValueError(
                f"`{part}` in `{config_path}` is {settings[part]!r}, and no object of settings: mend "
                "the file, or give another `--config_path`."
            )
    return settings


def load_words(tokenizer_path: str, **hub_options) -> LotlipTokenizer:
    """Makes a tokenizer of the words and the normalization of a BERT's, and of nothing else of it."""
    try:
        bert = LotlipTokenizer.from_pretrained(tokenizer_path, **hub_options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No words in `{tokenizer_path}`. Name a BERT's folder by `lotlip convert --tokenizer_path`: {error}"
        ) from error
    special_tokens = {name: str(token) for name, token in bert.special_tokens_map.items()}
    return LotlipTokenizer(
        vocab=bert.get_vocab(),
        do_lower_case=bert.do_lower_case,
        tokenize_chinese_chars=bert.tokenize_chinese_chars,
        strip_accents=bert.strip_accents,
        **special_tokens,
    )


def warn_of_other_words(settings: dict) -> None:
    """Warns if the settings of a checkpoint name another tokenizer than the default one, whose words are taken."""
    text_cfg = settings.get("text_cfg", {})
    name = text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name")
    if not isinstance(name, str) or name.rstrip("/").split("/")[-1] == DEFAULT_TOKENIZER.split("/")[-1]:
        return
    logger.warning(
        f"The settings of the checkpoint name the tokenizer {name!r}, but the words of "
        f"{DEFAULT_TOKENIZER} are taken: if they are others, name a folder with the right ones by "
        "`lotlip convert --tokenizer_path`."
    )


def make_released_image_processor(config: LotlipConfig) -> LotlipImageProcessor:
    """Makes the image processor of the original for images of a configuration's size."""
    size = config.vision_config.image_size
    return LotlipImageProcessor(size=size, crop_size=size)


def convert_checkpoint(
    checkpoint_path: str | Path,
    output_dir: str | Path,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    **hub_options,
) -> Path | None:
    """
    Converts a checkpoint of the original to a folder, which is there as a whole or not at all.

    Args:
        checkpoint_path (`str` or `Path`):
            The file.
        output_dir (`str` or `Path`):
            The folder: a new or an empty one.
        config_path (`str` or `Path`, *optional*):
            A file with the original's settings; by default the `open_clip_config.json` next to the checkpoint, if any.
        tokenizer_path (`str`, *optional*):
            A folder or a repository with the words.
        hub_options (`dict`, *optional*):
            Options of `from_pretrained` for that repository.

    Returns:
        `Path`, *optional*: the file with settings that was read.
    """
    output_dir = Path(output_dir).absolute()
    check_is_empty(output_dir)
    if not config_path:
        found_config = Path(checkpoint_path).with_name(OPEN_CLIP_CONFIG_NAME)
        config_path = None
        if found_config.is_file():
            config_path = found_config
    settings = load_settings(config_path)
    checkpoint = load_original_checkpoint(checkpoint_path)
    tokenizer = load_words(tokenizer_path, **hub_options)
    config = config_from_checkpoint(checkpoint, settings, vocab_size=len(tokenizer))
    if tokenizer_path == DEFAULT_TOKENIZER:
        warn_of_other_words(settings)
    model = from_theirs(config, checkpoint, "lotlip")
    context_length = settings.get("text_cfg", {}).get("context_length", DEFAULT_CONTEXT_LENGTH)
    # at least a token of a text between `[CLS]` and `[SEP]`
    check_integer("text_cfg.context_length", context_length, 3 + config.text_config.num_corner_tokens)
    context_length = min(context_length, config.text_config.max_position_embeddings)
    tokenizer.model_max_length = context_length - config.text_config.num_corner_tokens

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(output_dir) as folder:
            model.save_pretrained(folder)
            LotlipProcessor(make_released_image_processor(config), tokenizer).save_pretrained(folder)
            write_model_card(folder, output_dir.name, **OF_THE_ORIGINAL)
            check_is_empty(output_dir)  # another run may have been faster
    except SafetensorError as error:  # the disk is full, say
        raise OSError(f"`{output_dir}` cannot be written: {error}") from error
    return config_path


def check_all_is_expressed(folder: Path, config: LotlipConfig, way_back: LotlipConfig) -> None:
    """Raises a `ValueError` for fields of a configuration that `way_back`, read of the original, lacks."""
    lost = list_lost_fields(config, way_back)
    lost += list_lost_fields(config.text_config, way_back.text_config, "text_config.")
    lost += list_lost_fields(config.vision_config, way_back.vision_config, "vision_config.")
    if lost:
        raise ValueError(
            f"The original cannot express the model in `{folder}`: {'; '.join(lost)}. If you can do "
            f"without, remove that from a copy of its `{CONFIG_NAME}`."
        )


def list_lost_fields(config: PreTrainedConfig, way_back: PreTrainedConfig, prefix: str = "") -> list[str]:
    """
    Lists the fields of a configuration, with their values, that are others on the way back. Those are compared that
    its class declares: the model reads no others, such as names of labels.
    """
    lost = []
    for name in [*type(way_back).__annotations__, "matryoshka_dims"]:
        if name in UNNEEDED_FIELDS:
            continue
        value = getattr(config, name, None)
        if value != getattr(way_back, name, None):
            lost.append(f"`{prefix}{name}` = {value!r}")
    return lost


def check_image_processor(
    folder: Path,
    config: LotlipConfig,
    image_processor: LotlipImageProcessor,
) -> None:
    """Raises a `ValueError` if images are prepared otherwise than the original does."""
    expected = json.loads(make_released_image_processor(config).to_json_string())
    found = json.loads(image_processor.to_json_string())
    others = []
    for name in sorted((expected | found).keys() - {"auto_map", "image_processor_type"}):
        if found.get(name) != expected.get(name):
            others.append(f"`{name}` = {found.get(name)!r}")
    if others:
        raise ValueError(f"The original cannot express the model in `{folder}`: {'; '.join(others)}.")


def name_timm_model(vision: LotlipVisionConfig) -> str | None:
    """Names the ViT of timm that has the sizes of an image tower; `None` if there is none."""
    size = TIMM_SIZES.get((vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads))
    if size is None or vision.intermediate_size != 4 * vision.hidden_size or vision.num_channels != 3:
        return None
    patch_and_image = f"patch{vision.patch_size}_{vision.image_size}"
    if patch_and_image not in TIMM_PATCHES_AND_IMAGES[size]:
        return None
    return f"vit_{size}_{patch_and_image}"


def has_default_words(tokenizer: LotlipTokenizer) -> bool:
    """Returns whether a tokenizer makes of each text the words of `DEFAULT_TOKENIZER`."""
    # that is in lower case, without accents, and each Chinese character is a word
    is_cleaned_alike = (
        tokenizer.do_lower_case and tokenizer.strip_accents in (None, True) and tokenizer.tokenize_chinese_chars
    )
    # a text that is too long loses its end
    is_cut_alike = tokenizer.truncation_side == "right"
    vocab = tokenizer.get_vocab()
    lines = "".join(f"{word}\n" for word in sorted(vocab, key=vocab.get))
    return is_cleaned_alike and is_cut_alike and sha256(lines.encode()).hexdigest() == DEFAULT_WORDS_SHA256


def name_towers(settings: dict, config: LotlipConfig, tokenizer: LotlipTokenizer | None) -> None:
    """
    Adds the names by which the original makes its image tower and its tokenizer to settings, with a warning for each
    that there is none of.

    Args:
        settings (`dict`):
            What [`open_clip_config_of`] returns.
        config (`LotlipConfig`):
            The configuration.
        tokenizer (`LotlipTokenizer`, *optional*):
            The tokenizer of the model; without one the number of its words says which it is.
    """
    timm_model_name = name_timm_model(config.vision_config)
    if timm_model_name is not None:
        settings["vision_cfg"]["timm_model_name"] = timm_model_name
    else:
        logger.warning(
            f"No ViT of timm has the sizes of the image tower: `{OPEN_CLIP_CONFIG_NAME}` has no "
            "`vision_cfg.timm_model_name`, without which the original does not load it."
        )
    if tokenizer is not None:
        has_words = has_default_words(tokenizer)
    else:
        has_words = config.text_config.vocab_size == LotlipTextConfig.vocab_size
    if has_words:
        settings["text_cfg"]["hf_model_name"] = DEFAULT_TOKENIZER
    else:
        logger.warning(
            f"The vocabulary is not that of {DEFAULT_TOKENIZER}, or texts become other words of it, or lose another "
            f"end: `{OPEN_CLIP_CONFIG_NAME}` has no `text_cfg.hf_model_name`. Write the name of a "
            "repository with a BERT of this tokenizer there for the original, and give its tokenizer "
            "as `--tokenizer_path` on the way back."
        )


def write_original(folder: str | Path, to_original: str | Path) -> None:
    """
    Writes the weights of a folder as the original does, and the settings with which they are read back. Raises a
    `ValueError` for a model that the original cannot express, and a `FileExistsError` rather than writing over a file.
    """
    folder = Path(folder)
    to_original = Path(to_original).absolute()
    if to_original.exists() or to_original.suffix == ".safetensors":
        raise FileExistsError(f"`{to_original}` exists already, or is no name for a `.pt` file: give another name.")
    files = find_model_files(folder)
    config = AutoConfig.from_pretrained(folder)
    has_mask = getattr(config.get_text_config(), "corner_attention_mask", None)
    if config.model_type != LotlipConfig.model_type or not has_mask:
        raise ValueError(
            f"The original cannot express the model in `{folder}`: `model_type` = "
            f"{config.model_type!r}, `corner_attention_mask` = {has_mask}."
        )
    ours = {}
    for file in files:
        if file.endswith(".safetensors"):
            ours |= load_file(folder / file)
    original = to_theirs(ours, "lotlip")
    settings = open_clip_config_of(config)
    # the way back, which raises an error if it is none
    config_of_the_original = config_from_checkpoint(original, settings, config.text_config.vocab_size)
    from_theirs(config_of_the_original, original, "lotlip")
    check_all_is_expressed(folder, config, config_of_the_original)

    context_length = DEFAULT_CONTEXT_LENGTH
    tokenizer = None
    if "processor_config.json" in files:
        processor = LotlipProcessor.from_pretrained(folder)
        tokenizer = processor.tokenizer
        context_length = tokenizer.model_max_length + config.text_config.num_corner_tokens
        check_image_processor(folder, config, processor.image_processor)
    context_length = min(context_length, config.text_config.max_position_embeddings)
    settings["text_cfg"]["context_length"] = context_length
    name_towers(settings, config, tokenizer)
    content = json.dumps(settings, indent=2) + "\n"
    config_file = to_original.with_name(OPEN_CLIP_CONFIG_NAME)
    if config_file.exists() and config_file.read_text(encoding="utf-8") != content:
        raise FileExistsError(f"`{config_file}` is there, of another model: name a file in another folder.")
    to_original.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(to_original) as file, atomic_write(config_file) as partial_config:
            torch.save(original, file)
            partial_config.write_text(content, encoding="utf-8")
    except RuntimeError as error:  # of PyTorch, which does not say that the disk is full
        raise OSError(f"`{to_original}` cannot be written, is the disk full? {error}") from error


def convert(
    checkpoint_path: str | Path,
    output_dir: str | Path | None = None,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    to_original: str | Path | None = None,
) -> list[str]:
    """
    Converts a checkpoint of the original to a folder, a folder to a file of the original, or one after the other.

    Args:
        checkpoint_path (`str` or `Path`):
            A file, or a repository or a folder in the original's layout; for `to_original` alone a saved model.
        output_dir (`str` or `Path`, *optional*):
            The folder to write, by default of the checkpoint's name.
        config_path (`str` or `Path`, *optional*):
            A file with the original's settings, by default the `open_clip_config.json` next to the checkpoint.
        tokenizer_path (`str`, *optional*):
            A folder or a repository with the words.
        to_original (`str` or `Path`, *optional*):
            The file of the original to write.

    Returns:
        `list[str]`: what was written, in words.
    """
    path = Path(checkpoint_path)
    written = []
    if path.suffix == ".pt" and not path.is_file():
        raise FileNotFoundError(f"There is no file `{path}`.")
    if to_original is None or output_dir is not None:
        checkpoint = path
        name = path.stem
        if not path.is_file():
            checkpoint = find_original(checkpoint_path)
            name = path.resolve().name
        if checkpoint is None:
            raise ValueError(
                f"`{path}` has no `{CHECKPOINT_NAME}`, or a `{CONFIG_NAME}` too: for the way back give "
                "`--to_original` alone."
            )
        output_dir = output_dir or name
        settings = convert_checkpoint(checkpoint, output_dir, config_path, tokenizer_path)
        if settings is None:
            written.append(str(output_dir))
        else:
            written.append(f"{output_dir} (settings of {settings})")
    if to_original is not None:
        write_original(output_dir or path, to_original)
        written.append(str(to_original))
    return written


# The original's layout by its name


def find_original(name_or_path: str | os.PathLike, **options) -> Path | None:
    """Finds the checkpoint of a repository or a folder in the original's layout; `None` if it is no such one."""
    find = partial(cached_file, name_or_path, _raise_exceptions_for_missing_entries=False)
    without_asking = options | {"local_files_only": True, "force_download": False}
    if find(CONFIG_NAME, **without_asking) or find(CONFIG_NAME, **options):
        return None
    checkpoint = find(CHECKPOINT_NAME, **options)
    if checkpoint is not None:
        find(OPEN_CLIP_CONFIG_NAME, **options)
    return checkpoint and Path(checkpoint)


def find_converted(name_or_path: str | os.PathLike, cache_dir: str | os.PathLike | None = None, **options):
    """Finds what [`modeling_lotlip.hub_lotlip.find_pretrained`] returns."""
    folder = Path(name_or_path)
    if (folder / "random_states_0.pkl").is_file() and not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"`{name_or_path}` is a checkpoint, for `--resume_from_checkpoint`: name the model, "
            f"which is in `{folder.parent}` once the training has ended."
        )
    checkpoint = find_original(name_or_path, cache_dir=cache_dir, **options)
    if checkpoint is None:
        return name_or_path
    # a file by this name may become another one, also of the same size and time (as archives unpack them), and the
    # Hub's cache links to files by their content
    stamps = []
    for file in (checkpoint, checkpoint.with_name(OPEN_CLIP_CONFIG_NAME)):
        if file.is_file():
            status = file.resolve().stat()
            stamps.append((str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    key = sha256(repr((FORMAT, stamps)).encode()).hexdigest()
    # the layout of the Hub's cache, whose tools look for `snapshots`
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    repository = cache / f"models--converted--{folder.resolve().name}"
    converted = repository / "snapshots" / key
    if converted.is_dir():  # also in a cache that cannot be written
        return str(converted)
    converted.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(repository / ".lock"):
        for left in converted.parent.glob(f"*{PARTIAL}"):  # of a process that was killed
            delete(left)
        if not converted.is_dir():
            logger.warning(f"`{name_or_path}` is in the original's layout: converting it, once, to `{converted}`.")
            hub_options = {name: options[name] for name in ("local_files_only", "token") if name in options}
            convert_checkpoint(checkpoint, converted, cache_dir=cache_dir, **hub_options)
    return str(converted)


def main():
    import tyro

    from .utils.arguments import exit_on_error

    with exit_on_error("convert_lotlip_to_hf"):
        written = tyro.cli(convert, prog="python -m modeling_lotlip.convert_lotlip_to_hf", use_underscores=True)
        for words in written:
            print(f"Wrote {words}")


__all__ = ["load_towers"]


if __name__ == "__main__":
    main()

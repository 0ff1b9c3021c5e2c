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
import re
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import CONFIG_NAME, cached_file, logging

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .hub import find_model_files, write_model_card
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel
from .output_folder import atomic_write, delete
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer


logger = logging.get_logger(__name__)

DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
CHECKPOINT_NAME, OPEN_CLIP_CONFIG_NAME = "model.pt", "open_clip_config.json"
# More rows of the word table than the tokenizer has words are corner tokens: of this many at most, unless said
MAX_CORNER_TOKENS = 16
# One more when a conversion gives other files than before: what lies in the Hub's cache is then not used any more
FORMAT = 4

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
    *((f".self_attn.{part}_proj.", ".attn.qkv.") for part in "qkv"),
    (".layer_norm2.", ".norm2."),
    ("post_layernorm.", "norm."),
]
WORDS, CORNERS = "embeddings.word_embeddings.weight", "embeddings.corner_tokens"
POSITIONS = "embeddings.position_embeddings"
# Our prefix, theirs, and the names behind it
ORIGINAL_NAMES = [
    ("logit_scale", "logit_scale", []),
    ("vision_model.", "visual.trunk.", TIMM_NAMES),
    ("visual_projection.", "visual.head.proj.", []),
    ("text_model.", "text.transformer.", [*BERT_NAMES, (CORNERS, WORDS)]),
    ("text_projection.", "text.proj.", []),
]
WORD_TABLE = f"text.transformer.{WORDS}"
# The order of the tensors of ours that are rows of one of theirs
ROWS = (WORDS, CORNERS, "q_proj", "k_proj", "v_proj")

# Of which types of transformers image towers may be
IMAGE_TOWERS = ("vit", "dinov2", "timm_wrapper")

# Fields of open_clip_config.json and ours, by the table that they stand in
VISION_FIELDS = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
VISION_FIELDS |= {name: name for name in ("patch_size", "image_size", "layer_norm_eps")}
TEXT_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
TEXT_FIELDS += ("max_position_embeddings", "type_vocab_size")
# Other values that these settings of the original may have: the tensors tell which projection there is
SYNONYMS = {"timm_proj": ["none", "linear", "", None], "act": ["gelu", "gelu (exact)"]}
# What of our configurations serves training alone
TRAINING_FIELDS = {"hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "pad_token_id"}
TRAINING_FIELDS |= {"bos_token_id", "eos_token_id"}


def their_name(name: str, names: list[tuple[str, str]]) -> str:
    """Their name of one of our tensors, by one of the tables."""
    for ours, theirs in names:
        name = name.replace(ours, theirs)
    return name


def original_name(name: str) -> str:
    ours, theirs, names = next(part for part in ORIGINAL_NAMES if name.startswith(part[0]))
    return theirs + their_name(name.removeprefix(ours), names)


def in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: next((i for i, part in enumerate(ROWS) if part in name), 0))


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


def to_theirs(ours: dict[str, torch.Tensor], rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """Our tensors by their names: those of one name are rows of one tensor."""
    rows = {}
    for name in in_order(ours):
        rows.setdefault(rename(name), []).append(ours[name])
    return {name: tensors[0] if len(tensors) == 1 else torch.cat(tensors) for name, tensors in rows.items()}


def from_theirs(
    theirs: dict[str, torch.Tensor], like: dict[str, torch.Tensor], rename: Callable[[str], str], complaint: str
) -> dict[str, torch.Tensor]:
    """Their tensors, which must be those that `like` becomes, by our names: the inverse of `to_theirs`."""
    check_tensors(theirs, to_theirs(like, rename), complaint)
    ours, start = {}, Counter()
    for name in in_order(like):
        source, tensor = rename(name), theirs[rename(name)]
        if tensor.shape != like[name].shape:
            tensor = tensor[start[source] : start[source] + len(like[name])].contiguous()
            start[source] += len(tensor)
        ours[name] = tensor
    return ours


def meta_model(config: LotlipConfig) -> LotlipModel:
    """A model without storage: names and shapes only."""
    with torch.device("meta"):
        return LotlipModel(config)


def fold_layer_scales(state_dict: dict[str, torch.Tensor], scales: dict[str, str]):
    """
    Multiplies layer scales (Touvron et al., 2021, https://arxiv.org/abs/2103.17239, equation 4) into the linear layers
    before them, equal to rounding. `scales` has the end of a scale's name, and the linear layer that it follows.
    """
    for name in [name for name in state_dict if name.endswith(tuple(scales))]:
        end = next(end for end in scales if name.endswith(end))
        scale, linear = state_dict.pop(name), name.removesuffix(end) + scales[end]
        state_dict[f"{linear}.weight"] = state_dict[f"{linear}.weight"] * scale[:, None]
        state_dict[f"{linear}.bias"] = state_dict[f"{linear}.bias"] * scale


# Towers of other checkpoints


def _read_tower(state_dict: dict[str, torch.Tensor], width: str, layer: str, num_heads: int | None) -> dict:
    """What both towers read off the shapes; `layer` is the first linear layer of the first MLP."""
    hidden_size, pattern = state_dict[width].shape[-1], re.compile(re.escape(layer.split(".0.")[0]) + r"\.(\d+)\.")
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


def own_fields(config_class: type[PreTrainedConfig]) -> set[str]:
    return config_class.__dataclass_fields__.keys() - PreTrainedConfig.__dataclass_fields__.keys()


def _shared_fields(config_class: type[PreTrainedConfig], theirs: PreTrainedConfig) -> dict:
    """Those of their fields that describe the same thing in ours."""
    ours = own_fields(config_class) - {"projection_dim"}
    return {name: value for name, value in theirs.to_dict().items() if name in ours}


def read_tower(name_or_path: str, kinds: tuple[str, ...]) -> tuple[dict, dict[str, torch.Tensor], list]:
    """
    The fields, tensors and table of names of a BERT, ViT or DINOv2 of transformers, or of a ViT of timm. Layer scales
    are folded into the linear layers.
    """
    theirs = AutoConfig.from_pretrained(name_or_path)
    kind = theirs.model_type
    if kind not in kinds or getattr(theirs, "is_decoder", False) or getattr(theirs, "use_swiglu_ffn", False):
        raise ValueError(
            f"`{name_or_path}` is of type {kind!r}, but the tower takes {' or '.join(map(repr, kinds))}, no decoder, "
            "registers or SwiGLU."
        )
    model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    if kind == "timm_wrapper":
        vit, points = model.timm_model, torch.linspace(-3, 3, 7)
        is_vit = type(vit).__name__ == "VisionTransformer"
        if not is_vit or not torch.allclose(vit.blocks[0].mlp.act(points), nn.functional.gelu(points)):
            raise ValueError(
                f"`{name_or_path}` is a {type(vit).__name__}, not a VisionTransformer with the exact GELU."
            )
        state_dict = vit.state_dict()
        fold_layer_scales(state_dict, {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"})
        fields = _read_timm(state_dict, num_heads=vit.blocks[0].attn.num_heads)
        return fields | {"layer_norm_eps": vit.blocks[0].norm1.eps}, state_dict, TIMM_NAMES
    fields, state_dict = (
        _shared_fields(LotlipTextConfig if kind == "bert" else LotlipVisionConfig, theirs),
        model.state_dict(),
    )
    if kind == "bert":
        return fields, state_dict, BERT_NAMES
    fold_layer_scales(state_dict, {"layer_scale1.lambda1": "attention.o_proj", "layer_scale2.lambda1": "mlp.fc2"})
    # a pooler and a mask token serve other tasks
    state_dict = {n: x for n, x in state_dict.items() if not n.startswith(("pooler.", "embeddings.mask_token"))}
    if kind == "vit":
        return fields, state_dict, VIT_NAMES
    return fields | {"intermediate_size": int(theirs.hidden_size * theirs.mlp_ratio)}, state_dict, DINOV2_NAMES


def adopt(tower: nn.Module, theirs: dict[str, torch.Tensor], names: list[tuple[str, str]], complaint: str):
    """Gives a tower their weights, all of which must fit; image positions are resampled, as DINOv2 does."""
    rename, ours = partial(their_name, names=names), tower.state_dict()
    ours.pop(CORNERS, None)  # they are new
    if POSITIONS in ours and rename(POSITIONS) in theirs:
        positions = theirs[rename(POSITIONS)]
        old, new = (math.isqrt(x.shape[1] - 1) for x in (positions, ours[POSITIONS]))
        grid = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
        theirs = theirs | {rename(POSITIONS): torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)}
    tower.load_state_dict(from_theirs(theirs, ours, rename, complaint), strict=False)


def load_towers(
    vision_model_name_or_path: str | None = None, text_model_name_or_path: str | None = None, **fields
) -> LotlipModel:
    """
    A model whose towers come from pretrained ones, as in the paper; corner tokens and projections are new. It is in
    evaluation mode. Give the image tower the pixels that it was trained on: the mean and std of its image processor.

    Args:
        vision_model_name_or_path (`str`, *optional*):
            A ViT or DINOv2 of transformers, or a ViT of timm. Without it the image tower is new.
        text_model_name_or_path (`str`, *optional*):
            A BERT of transformers. Without it the text tower is new.
        fields:
            Fields of the configurations: those of the image tower with the prefix `vision_` (positions are resampled
            for an `image_size`), those of the text tower with `text_`, those of the model as they are. Without
            `projection_dim` texts are projected to the width of the image tower.

    Raises:
        `ValueError`: if a checkpoint is of an architecture that does not fit.
    """
    text_fields = {name[5:]: fields.pop(name) for name in list(fields) if name.startswith("text_")}
    vision_fields = {name[7:]: fields.pop(name) for name in list(fields) if name.startswith("vision_")}
    parts = ((text_fields, LotlipTextConfig), (vision_fields, LotlipVisionConfig), (fields, LotlipConfig))
    unknown = [name for given, part in parts for name in given if name not in part.__dataclass_fields__]
    if unknown:
        raise ValueError(f"There are no fields {unknown} of configurations. Mind the prefixes `text_` and `vision_`.")
    new = ({}, None, None)
    vision = read_tower(vision_model_name_or_path, IMAGE_TOWERS) if vision_model_name_or_path else new
    text = read_tower(text_model_name_or_path, ("bert",)) if text_model_name_or_path else new
    vision_config = LotlipVisionConfig(**vision[0] | vision_fields)
    projection_dim = fields.setdefault("projection_dim", vision_config.projection_dim or vision_config.hidden_size)
    if vision_config.projection_dim is None and projection_dim != vision_config.hidden_size:
        vision_config.projection_dim = projection_dim
    text_config = LotlipTextConfig(**text[0] | {"projection_dim": projection_dim} | text_fields)
    model = LotlipModel(LotlipConfig(text_config=text_config, vision_config=vision_config, **fields))
    for tower, (_, theirs, names), source in (
        (model.vision_model, vision, vision_model_name_or_path),
        (model.text_model, text, text_model_name_or_path),
    ):
        if theirs is not None:
            adopt(tower, theirs, names, f"The weights of `{source}` do not fit {type(tower).__name__}.")
    return model.eval()


# Checkpoints of the original


def load_checkpoint(checkpoint_path: str | Path) -> dict[str, torch.Tensor]:
    """
    The state dict of an original checkpoint, loaded without running code: of `torch.save` or `.safetensors`, at the
    top or under `state_dict`, with or without the prefix `module.`; without the buffer `position_ids`, which counts.
    """
    try:
        if Path(checkpoint_path).suffix == ".safetensors":
            checkpoint = load_file(checkpoint_path)
        else:
            # torch does not look at the checksums in its archives
            if zipfile.is_zipfile(checkpoint_path) and zipfile.ZipFile(checkpoint_path).testzip() is not None:
                raise zipfile.BadZipFile("wrong checksum")
            checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    except Exception as error:  # which depends on where the damage is
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
    state_dict = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
    if len(state_dict) < len(checkpoint):
        raise ValueError(f"`{checkpoint_path}` holds tensors both with and without the prefix `module.`.")
    for name, tensor in state_dict.items():
        if not tensor.isfinite().all():
            raise ValueError(f"`{name}` in `{checkpoint_path}` has values that are NaN or infinite.")
    state_dict.pop("text.transformer.embeddings.position_ids", None)
    return state_dict


def settings_beside(checkpoint_path: str | Path) -> Path | None:
    """The `open_clip_config.json` in the folder of a checkpoint, if there is one."""
    file = Path(checkpoint_path).with_name(OPEN_CLIP_CONFIG_NAME)
    return file if file.is_file() else None


def load_open_clip_config(config_path: str | Path | None) -> dict:
    """The settings of a file: `embed_dim` (if given), `vision_cfg`, `text_cfg` and `preprocess_cfg`."""
    content = json.loads(Path(config_path).read_text(encoding="utf-8")) if config_path is not None else {}
    # on the Hub, open_clip puts the model's settings under `model_cfg`
    return {"vision_cfg": {}, "text_cfg": {}, **content, **content.get("model_cfg", {})}


def open_clip_config_of(config: LotlipConfig) -> dict:
    """The settings with which the original computes what our model does."""
    text, vision = config.text_config, config.vision_config
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            **{theirs: getattr(vision, ours) for theirs, ours in VISION_FIELDS.items()},
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "timm_pool": "token",
            "timm_proj": "none" if vision.projection_dim is None else "linear",
            "timm_proj_bias": False,
            "act": "gelu",
        },
        "text_cfg": {
            **{name: getattr(text, name) for name in TEXT_FIELDS},
            "vocab_size": text.vocab_size + text.num_corner_tokens,
            "num_corner_token": text.num_corner_tokens,
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
        },
        # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here
        "preprocess_cfg": {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def config_from_checkpoint(
    checkpoint: dict[str, torch.Tensor], open_clip_config: dict, vocab_size: int
) -> LotlipConfig:
    """
    The configuration of an original checkpoint: from the shapes, and from `load_open_clip_config` what these do not
    tell, the heads and epsilons. The rows of the word table beyond the tokenizer's `vocab_size` are the corner tokens.
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
    is_told = "num_corner_token" in text_cfg or num_corner_tokens <= MAX_CORNER_TOKENS
    if num_corner_tokens < 0 or num_rows != vocab_size + num_corner_tokens or not is_told:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, but the tokenizer has {vocab_size} words, and "
            f"`num_corner_token` is {text_cfg.get('num_corner_token', f'not given (at most {MAX_CORNER_TOKENS})')}. "
            "The rows must be the words and the corner tokens: give the checkpoint's own `--tokenizer_path`."
        )
    image_dim = vision_fields["hidden_size"]
    if "visual.head.proj.weight" in checkpoint:
        image_dim = vision_fields["projection_dim"] = len(checkpoint["visual.head.proj.weight"])
    dim = open_clip_config.get("embed_dim", image_dim)
    text_fields |= {"vocab_size": vocab_size, "num_corner_tokens": num_corner_tokens, "projection_dim": dim}
    for fields, settings in ((vision_fields, vision_cfg), (text_fields, text_cfg)):
        if "layer_norm_eps" in settings:
            fields["layer_norm_eps"] = settings["layer_norm_eps"]
    config = LotlipConfig(text_config=text_fields, vision_config=vision_fields, projection_dim=dim)

    for part in ("vision_cfg", "text_cfg", "preprocess_cfg"):
        for name, ours in open_clip_config_of(config)[part].items():
            given = open_clip_config.get(part, {}).get(name, ours)
            if given not in SYNONYMS.get(name, [ours]) and name != "vocab_size":
                raise ValueError(f"`{part}.{name}` of the checkpoint is {given!r}, but LoTLIP needs {ours!r} there.")
    return config


def state_dict_to_original(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original's state dict from one of [`LotlipModel`]."""
    return to_theirs(state_dict, original_name)


def state_dict_from_original(checkpoint: dict[str, torch.Tensor], config: LotlipConfig) -> dict[str, torch.Tensor]:
    """The state dict of [`LotlipModel`] from an original one."""
    complaint = "The checkpoint's tensors are not those of LoTLIP."
    return from_theirs(checkpoint, meta_model(config).state_dict(), original_name, complaint)


def image_processor_of(config: LotlipConfig) -> LotlipImageProcessor:
    size = config.vision_config.image_size
    return LotlipImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def convert_checkpoint(
    checkpoint_path: str | Path,
    output_dir: str | Path,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    repo_id: str | None = None,
    **hub_options,
) -> Path:
    """
    Converts an original checkpoint to a folder, completely or not at all; `repo_id` is for the examples of the card.
    `hub_options` are `cache_dir`, `local_files_only` and `token`, for a tokenizer on the Hub.
    """
    output_dir = Path(output_dir).absolute()
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"`{output_dir}` is not an empty folder: name another folder or an empty one.")
    open_clip_config = load_open_clip_config(config_path or settings_beside(checkpoint_path))
    checkpoint = load_checkpoint(checkpoint_path)
    try:
        bert = LotlipTokenizer.from_pretrained(tokenizer_path, **hub_options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The words of `{tokenizer_path}` cannot be read: {error} Name a folder or Hub id with BERT's `vocab.txt` "
            "or `tokenizer.json` by `lotlip convert ORIGINAL DIR --tokenizer_path FOLDER`."
        ) from error
    # its words and normalization only
    fields = {name: getattr(bert, name) for name in ("do_lower_case", "tokenize_chinese_chars", "strip_accents")}
    fields |= {name: str(token) for name, token in bert.special_tokens_map.items()}
    tokenizer = LotlipTokenizer(vocab=bert.get_vocab(), **fields)
    config = config_from_checkpoint(checkpoint, open_clip_config, vocab_size=len(tokenizer))

    text_config = config.text_config
    context_length = min(open_clip_config["text_cfg"].get("context_length", 128), text_config.max_position_embeddings)
    tokenizer.model_max_length = context_length - text_config.num_corner_tokens
    model = meta_model(config)
    model.load_state_dict(state_dict_from_original(checkpoint, config), assign=True)

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output_dir) as folder:
        model.save_pretrained(folder)
        LotlipProcessor(image_processor_of(config), tokenizer).save_pretrained(folder)
        write_model_card(
            folder,
            repo_id or output_dir.name,
            provenance=f"Converted bit by bit from `{Path(checkpoint_path).name}`, a checkpoint of the [original code]"
            "(https://github.com/wuw2019/LoTLIP).",
            language="en",
            license="cc-by-4.0",
            license_note="The weights that the authors of LoTLIP published are under Creative Commons Attribution 4.0 "
            "(CC BY 4.0); weights that others trained are under the terms of these.",
        )
    return output_dir


def _describe(config: LotlipConfig, images: LotlipImageProcessor) -> dict[str, object]:
    """The settings of a model and its image processor that change the numbers."""
    parts = {"text_config": config.text_config, "vision_config": config.vision_config}
    settings = {
        f"{part}.{name}": getattr(fields, name)
        for part, fields in parts.items()
        for name in sorted(own_fields(type(fields)) - TRAINING_FIELDS)
    }
    images = json.loads(images.to_json_string())
    return settings | {name: x for name, x in images.items() if name not in ("auto_map", "image_processor_type")}


def write_original(folder: str | Path, to_original: str | Path):
    """
    Writes the weights of a folder as a plain open_clip state dict, bit by bit, and beside it the
    `open_clip_config.json` with which it is read back as the same model; or refuses what the original cannot express.
    """
    folder, to_original = Path(folder), Path(to_original).absolute()
    if to_original.exists() or to_original.suffix == ".safetensors":
        raise FileExistsError(f"`{to_original}` exists already, or is no name for `torch.save`: give another.")
    files, config = find_model_files(folder), AutoConfig.from_pretrained(folder)
    complaint = f"The original cannot express the model in `{folder}`: "
    if config.model_type != LotlipConfig.model_type:
        raise ValueError(f"{complaint}`model_type` = {config.model_type!r}.")
    state_dict = {}
    for file in files:
        state_dict |= load_file(folder / file) if file.endswith(".safetensors") else {}
    expected = meta_model(config).state_dict()
    check_tensors(state_dict, expected, f"The weights in `{folder}` are not those of its configuration.")

    original, settings = state_dict_to_original(state_dict), open_clip_config_of(config)
    settings["text_cfg"]["hf_model_name"] = DEFAULT_TOKENIZER
    images, context_length = image_processor_of(config), 128
    if "processor_config.json" in files:
        processor = LotlipProcessor.from_pretrained(folder)
        images = processor.image_processor
        context_length = processor.tokenizer.model_max_length + config.text_config.num_corner_tokens
    settings["text_cfg"]["context_length"] = min(context_length, config.text_config.max_position_embeddings)
    back = config_from_checkpoint(original, settings, config.text_config.vocab_size)
    read_back = _describe(back, image_processor_of(back))
    others = [f"`{name}` = {value!r}" for name, value in _describe(config, images).items() if value != read_back[name]]
    if others:
        raise ValueError(f"{complaint}{'; '.join(others)}.")

    content, config_file = json.dumps(settings, indent=2) + "\n", to_original.with_name(OPEN_CLIP_CONFIG_NAME)
    if config_file.exists() and config_file.read_text(encoding="utf-8") != content:
        raise FileExistsError(f"`{config_file}` is there, of another model: name a file in another folder.")
    to_original.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(to_original) as file, atomic_write(config_file) as beside:
        torch.save(original, file)
        beside.write_text(content, encoding="utf-8")


def convert(
    checkpoint_path: str | Path,
    output_dir: str | Path | None = None,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    to_original: str | Path | None = None,
) -> list[str]:
    """
    Converts a checkpoint (a file, or a repository of the Hub or a folder in the original's layout) to a folder, which
    by default is named as the repository; a folder (or a checkpoint) to the original's state dict; or both. Returns
    what was written, in words.
    """
    is_file = os.path.isfile(checkpoint_path)
    if not is_file and Path(checkpoint_path).suffix in (".bin", ".ckpt", ".pt", ".pth", ".safetensors"):
        raise FileNotFoundError(f"There is no file `{checkpoint_path}`.")
    checkpoint = Path(checkpoint_path) if is_file else find_original(checkpoint_path)
    if checkpoint is None and (to_original is None or output_dir is not None):
        raise ValueError(
            f"`{checkpoint_path}` is not in the original's layout: it has no `{CHECKPOINT_NAME}`, or has a "
            f"`{CONFIG_NAME}` too, with which a model loads by its name; for the way back give `--to_original` alone."
        )
    if output_dir is None and to_original is None:
        if is_file:
            raise ValueError("Give an output folder, or `--to_original` for the way back.")
        output_dir = Path(checkpoint_path).resolve().name
    written = [str(path) for path in (output_dir, to_original) if path is not None]
    with tempfile.TemporaryDirectory() as temporary_dir:
        folder = checkpoint_path
        if checkpoint is not None:
            folder, config_path = output_dir or Path(temporary_dir, "new"), config_path or settings_beside(checkpoint)
            convert_checkpoint(checkpoint, folder, config_path, tokenizer_path)
            written[0] += f" (settings of {config_path})" if config_path else ""
        if to_original is not None:
            write_original(folder, to_original)
    return written


# The original's layout by its name


def find_original(
    name_or_path: str | os.PathLike, cache_dir: str | os.PathLike | None = None, revision: str | None = None, **options
) -> Path | None:
    """
    The checkpoint of a repository or a folder in the original's layout, downloaded to the Hub's cache with its
    `open_clip_config.json`; None if this is no such repository or folder, or (offline) not in the cache. The arguments
    are those of `from_pretrained`.
    """
    name, place = str(name_or_path), {"cache_dir": cache_dir, "revision": revision}
    try:  # without asking the Hub
        if not os.path.isdir(name) and isinstance(try_to_load_from_cache(name, CONFIG_NAME, **place), str):
            return None
    except ValueError:  # no name of a repository, as the library will say
        return None
    options |= {**place, "_raise_exceptions_for_missing_entries": False}
    if cached_file(name, CONFIG_NAME, **options) is not None:
        return None
    checkpoint = cached_file(name, CHECKPOINT_NAME, **options)
    if checkpoint is not None:
        cached_file(name, OPEN_CLIP_CONFIG_NAME, **options)
    return checkpoint and Path(checkpoint)


def find_converted(name_or_path: str | os.PathLike, cache_dir: str | os.PathLike | None = None, **options):
    """What [`modeling_lotlip.hub_lotlip.find_pretrained`] says."""
    checkpoint = find_original(name_or_path, cache_dir, **options)
    if checkpoint is None:
        return name_or_path
    # a file by this name may become another one, and the Hub's cache links to files by their content
    files = [checkpoint.resolve(), *filter(None, [settings_beside(checkpoint)])]
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name, key = Path(name_or_path).resolve().name, sha256(repr((FORMAT, stamps)).encode()).hexdigest()
    # the layout of the Hub's cache, whose tools look for `snapshots`
    repository = Path(cache_dir or constants.HF_HUB_CACHE, f"models--converted--{name}")
    folder = repository / "snapshots" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(repository / ".lock"):
            for left in folder.parent.glob("*.partial"):  # of a process that was killed
                delete(left)
            if not folder.is_dir():
                logger.warning(f"`{name_or_path}` is in the original's layout: converting it, once, to `{folder}`.")
                hub_options = {key: options[key] for key in ("local_files_only", "token") if key in options}
                repo_id = name if os.path.isdir(name_or_path) else str(name_or_path)
                convert_checkpoint(checkpoint, folder, repo_id=repo_id, cache_dir=cache_dir, **hub_options)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"`{name_or_path}` is in the original's layout and cannot be converted: {error}") from error
    return str(folder)


def main():
    import tyro

    try:
        for words in tyro.cli(convert, prog="python -m modeling_lotlip.convert_lotlip_to_hf", use_underscores=True):
            print(f"Wrote {words}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


__all__ = ["load_towers"]


if __name__ == "__main__":
    main()

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
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from operator import attrgetter
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
from .hub import OF_THE_ORIGINAL, find_model_files, write_model_card
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel
from .output_folder import atomic_write, delete
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer


# What reading a file raises that is damaged, which depends on where, or that holds no tensors by their names
DAMAGED_FILE_ERRORS = (AttributeError, EOFError, LookupError, OSError, RuntimeError, SafetensorError, TypeError)
DAMAGED_FILE_ERRORS += (pickle.UnpicklingError, struct.error, UnicodeDecodeError, zipfile.BadZipFile)


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
VIT_NAMES = [(".layer_norm1.", ".layernorm_before."), (".layer_norm2.", ".layernorm_after.")]
DINOV2_NAMES = [("layers.", "encoder.layer."), (".layer_norm1.", ".norm1."), (".layer_norm2.", ".norm2.")]
for _names in (VIT_NAMES, DINOV2_NAMES):
    _names += [(".self_attn.out_proj.", ".attention.o_proj."), (".self_attn.", ".attention.")]
    _names += [("post_layernorm.", "layernorm.")]
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
TOWER_NAMES = {"bert": BERT_NAMES, "vit": VIT_NAMES, "dinov2": DINOV2_NAMES, "timm_wrapper": TIMM_NAMES}
IMAGE_TOWERS = ("vit", "dinov2", "timm_wrapper")
WORDS, CORNERS = "embeddings.word_embeddings.weight", "embeddings.corner_tokens"
POSITIONS = "embeddings.position_embeddings"
# Our prefix, theirs, and the names behind it
ORIGINAL_NAMES = [
    ("vision_model.", "visual.trunk.", TIMM_NAMES),
    ("visual_projection.", "visual.head.proj.", []),
    ("text_model.", "text.transformer.", [*BERT_NAMES, (CORNERS, WORDS)]),
    ("text_projection.", "text.proj.", []),
    ("", "", []),
]
WORD_TABLE = f"text.transformer.{WORDS}"
# The order of the tensors of ours that are rows of one of theirs
ROWS = (WORDS, CORNERS, "q_proj", "k_proj", "v_proj")
# Layer scales, and the linear layers that they follow
LAYER_SCALES = {"layer_scale1.lambda1": "attention.o_proj", "layer_scale2.lambda1": "mlp.fc2"}
LAYER_SCALES |= {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}

# Fields of open_clip_config.json and ours, by the table that they stand in
VISION_FIELDS = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
VISION_FIELDS |= {name: name for name in ("patch_size", "image_size", "layer_norm_eps")}
TEXT_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
TEXT_FIELDS += ("max_position_embeddings", "type_vocab_size")
# Other values that these settings of the original may have: the tensors tell which projection there is
SYNONYMS = {"timm_proj": ["none", "linear", "", None], "act": ["gelu", "gelu (exact)"]}
# Of our settings, those that the original has no choice of
FIXED = {"text_config.hidden_act": "gelu", "vision_config.hidden_act": "gelu"}
FIXED |= {"text_config.corner_attention_mask": True}


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


def to_theirs(ours: dict[str, torch.Tensor], rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """Our tensors by their names: those of one name are rows of one tensor."""
    rows = {}
    for name in in_order(ours):
        rows.setdefault(rename(name), []).append(ours[name])
    return {name: tensors[0] if len(tensors) == 1 else torch.cat(tensors) for name, tensors in rows.items()}


def from_theirs(
    theirs: dict[str, torch.Tensor], like: dict[str, torch.Tensor], rename: Callable[[str], str], complaint: str
) -> dict[str, torch.Tensor]:
    """
    Their tensors by our names, the inverse of `to_theirs`. Raises a `ValueError` that lists all faults unless they are
    those that `like` becomes.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in to_theirs(like, rename).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    others = [name for name in expected if shapes.get(name, expected[name]) != expected[name]]
    faults = {
        "Missing": [name for name in expected if name not in shapes],
        "Of another shape": [f"{name} {shapes[name]} instead of {expected[name]}" for name in others],
        "Surplus": [name for name in shapes if name not in expected],
    }
    if any(faults.values()):
        raise ValueError(" ".join([complaint, *(f"{kind}: {', '.join(x)}." for kind, x in faults.items() if x)]))
    ours, left = {}, dict(theirs)
    for name in in_order(like):
        tensor = left[rename(name)]
        if tensor.shape != like[name].shape:
            tensor, left[rename(name)] = tensor.tensor_split([len(like[name])])
        ours[name] = tensor.contiguous()
    return ours


# Towers of other checkpoints


def _read_tower(state_dict: dict[str, torch.Tensor], width: str, layer: str, settings: dict) -> dict:
    """
    What both towers read off the shapes, and heads and epsilon off `settings`; `layer` is the first linear layer of
    the first MLP.
    """
    hidden_size, pattern = state_dict[width].shape[-1], re.compile(re.escape(layer.split(".0.")[0]) + r"\.(\d+)\.")
    num_heads = settings.get("heads", settings.get("num_attention_heads"))
    if num_heads is None and hidden_size != 768:  # that of all released checkpoints
        logger.warning(f"No configuration tells the heads of `{width}`: {hidden_size // 64} are assumed.")
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": 1 + max(int(match[1]) for match in map(pattern.match, state_dict) if match),
        "num_attention_heads": num_heads or hidden_size // 64,
        "intermediate_size": len(state_dict[layer]),
    } | {name: value for name, value in settings.items() if name == "layer_norm_eps"}


def _read_timm(state_dict: dict[str, torch.Tensor], prefix: str, settings: dict) -> dict:
    """Fields of [`LotlipVisionConfig`] from the shapes of a timm ViT, whose names begin with `prefix`."""
    positions, patches = (state_dict[f"{prefix}{name}"].shape for name in ("pos_embed", "patch_embed.proj.weight"))
    grid_size = math.isqrt(positions[1] - 1)
    if grid_size**2 != positions[1] - 1 or patches[2] != patches[3]:
        raise ValueError(
            f"`{prefix}pos_embed` {tuple(positions)} and patches of {tuple(patches[2:])} are not a class token and a "
            "square of square patches."
        )
    fields = _read_tower(state_dict, f"{prefix}pos_embed", f"{prefix}blocks.0.mlp.fc1.weight", settings)
    return fields | {"image_size": grid_size * patches[2], "patch_size": patches[2], "num_channels": patches[1]}


def read_tower(name_or_path: str, kinds: tuple[str, ...]) -> tuple[dict, dict[str, torch.Tensor], list]:
    """
    The fields, tensors and table of names of a BERT, ViT or DINOv2 of transformers, or of a ViT of timm. Layer scales
    (Touvron et al., 2021, https://arxiv.org/abs/2103.17239, equation 4) are multiplied into the linear layers before
    them, equal to rounding.
    """
    theirs = AutoConfig.from_pretrained(name_or_path)
    kind = theirs.model_type
    if kind not in kinds or getattr(theirs, "is_decoder", False) or getattr(theirs, "use_swiglu_ffn", False):
        raise ValueError(
            f"`{name_or_path}` is of type {kind!r}, but the tower takes {' or '.join(map(repr, kinds))}, no decoder, "
            "registers or SwiGLU."
        )
    model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    model = model.timm_model if kind == "timm_wrapper" else model
    state_dict = model.state_dict()
    for name in [name for name in state_dict if name.endswith(tuple(LAYER_SCALES))]:
        end = next(end for end in LAYER_SCALES if name.endswith(end))
        scale, linear = state_dict.pop(name), name.removesuffix(end) + LAYER_SCALES[end]
        state_dict[f"{linear}.weight"] = state_dict[f"{linear}.weight"] * scale[:, None]
        state_dict[f"{linear}.bias"] = state_dict[f"{linear}.bias"] * scale
    if kind == "timm_wrapper":
        points, is_vit = torch.linspace(-3, 3, 7), type(model).__name__ == "VisionTransformer"
        if not is_vit or not torch.allclose(model.blocks[0].mlp.act(points), nn.functional.gelu(points)):
            message = f"`{name_or_path}` is a {type(model).__name__}, not a VisionTransformer with the exact GELU."
            raise ValueError(message)
        block = model.blocks[0]
        fields = _read_timm(state_dict, "", {"heads": block.attn.num_heads, "layer_norm_eps": block.norm1.eps})
        return fields, state_dict, TIMM_NAMES
    ours = LotlipTextConfig if kind == "bert" else LotlipVisionConfig
    names = ours.__dataclass_fields__.keys() - PreTrainedConfig.__dataclass_fields__.keys() - {"projection_dim"}
    fields = {name: value for name, value in theirs.to_dict().items() if name in names}
    if kind != "bert":  # a pooler and a mask token serve other tasks
        state_dict = {n: x for n, x in state_dict.items() if not n.startswith(("pooler.", "embeddings.mask_token"))}
    if kind == "dinov2":
        fields["intermediate_size"] = int(theirs.hidden_size * theirs.mlp_ratio)
    return fields, state_dict, TOWER_NAMES[kind]


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

    Example:

    ```python
    >>> from modeling_lotlip.convert_lotlip_to_hf import load_towers

    >>> load_towers("google/vit-base-patch16-224", "google-bert/bert-base-uncased")  # doctest: +SKIP
    ```"""
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
        checkpoint = checkpoint.get("state_dict", checkpoint)
        state_dict = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
        broken = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    except DAMAGED_FILE_ERRORS as error:
        raise ValueError(
            f"`{checkpoint_path}` was refused: it is damaged, or holds no state dict (tensors by their names, at the "
            "top or under `state_dict`) or more than that and plain values. No code in it was run."
        ) from error
    if len(state_dict) < len(checkpoint):
        raise ValueError(f"`{checkpoint_path}` holds tensors both with and without the prefix `module.`.")
    if broken:
        raise ValueError(f"`{broken[0]}` in `{checkpoint_path}` has values that are NaN or infinite.")
    state_dict.pop("text.transformer.embeddings.position_ids", None)
    return state_dict


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
            "num_corner_token": text.num_corner_tokens,
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
            "hidden_act": "gelu",
        },
        # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here
        "preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "shortest"},
    }


def config_from_checkpoint(checkpoint: dict[str, torch.Tensor], settings: dict, vocab_size: int) -> LotlipConfig:
    """
    The configuration of an original checkpoint: from the shapes, and from `load_open_clip_config` what these do not
    tell, the heads and epsilons. The rows of the word table beyond the tokenizer's `vocab_size` are the corner tokens.
    """
    vision_cfg, text_cfg = settings["vision_cfg"], settings["text_cfg"]
    embeddings, layer = (
        f"text.transformer.{name}" for name in ("embeddings", "encoder.layer.0.intermediate.dense.weight")
    )
    try:
        vision_fields = _read_timm(checkpoint, "visual.trunk.", vision_cfg)
        text_fields = _read_tower(checkpoint, WORD_TABLE, layer, text_cfg) | {
            "max_position_embeddings": len(checkpoint[f"{embeddings}.position_embeddings.weight"]),
            "type_vocab_size": len(checkpoint[f"{embeddings}.token_type_embeddings.weight"]),
        }
    except KeyError as error:
        raise ValueError(f"The checkpoint lacks the tensor {error}: it is not of the original LoTLIP.") from error

    num_rows = len(checkpoint[WORD_TABLE])
    num_corner_tokens = text_cfg.get("num_corner_token", min(num_rows - vocab_size, MAX_CORNER_TOKENS))
    if num_corner_tokens < 0 or num_rows != vocab_size + num_corner_tokens:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, but the tokenizer has {vocab_size} words, and "
            f"`num_corner_token` is {text_cfg.get('num_corner_token', f'not given (at most {MAX_CORNER_TOKENS})')}. "
            "The rows must be the words and the corner tokens: give the checkpoint's own `--tokenizer_path`."
        )
    image_dim = vision_fields["hidden_size"]
    if "visual.head.proj.weight" in checkpoint:
        image_dim = vision_fields["projection_dim"] = len(checkpoint["visual.head.proj.weight"])
    dim = settings.get("embed_dim", image_dim)
    text_fields |= {"vocab_size": vocab_size, "num_corner_tokens": num_corner_tokens, "projection_dim": dim}
    config = LotlipConfig(text_config=text_fields, vision_config=vision_fields, projection_dim=dim)
    for part in ("vision_cfg", "text_cfg", "preprocess_cfg"):
        for name, ours in open_clip_config_of(config)[part].items():
            given = settings.get(part, {}).get(name, ours)
            if given not in SYNONYMS.get(name, [ours]):
                raise ValueError(f"`{part}.{name}` of the checkpoint is {given!r}, but LoTLIP needs {ours!r} there.")
    return config


def state_dict_to_original(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original's state dict from one of [`LotlipModel`]."""
    return to_theirs(state_dict, original_name)


def state_dict_from_original(checkpoint: dict[str, torch.Tensor], config: LotlipConfig) -> dict[str, torch.Tensor]:
    """The state dict of [`LotlipModel`] from an original one."""
    complaint = "The tensors are not those of a LoTLIP of this configuration."
    with torch.device("meta"):
        like = LotlipModel(config).state_dict()
    return from_theirs(checkpoint, like, original_name, complaint)


def image_processor_of(config: LotlipConfig) -> LotlipImageProcessor:
    size = config.vision_config.image_size
    return LotlipImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def check_is_empty(folder: Path) -> None:
    """Raises a `FileExistsError` if a path is there and no empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"`{folder}` is not an empty folder: name another folder or an empty one.")


def convert_checkpoint(
    checkpoint_path: str | Path,
    output_dir: str | Path,
    config_path: str | Path | None = None,
    tokenizer_path: str = DEFAULT_TOKENIZER,
    **hub_options,
) -> Path | None:
    """
    Converts an original checkpoint to a folder, completely or not at all, with the settings of `config_path` or of the
    `open_clip_config.json` beside it, and returns the path of these. `hub_options` are for a tokenizer on the Hub.
    """
    output_dir, beside = Path(output_dir).absolute(), Path(checkpoint_path).with_name(OPEN_CLIP_CONFIG_NAME)
    check_is_empty(output_dir)
    config_path = config_path or (beside if beside.is_file() else None)
    settings, checkpoint = load_open_clip_config(config_path), load_checkpoint(checkpoint_path)
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
    config = config_from_checkpoint(checkpoint, settings, vocab_size=len(tokenizer))
    context_length = min(settings["text_cfg"].get("context_length", 128), config.text_config.max_position_embeddings)
    tokenizer.model_max_length = context_length - config.text_config.num_corner_tokens
    state_dict = state_dict_from_original(checkpoint, config)
    with torch.device("meta"):
        model = LotlipModel(config)
    model.load_state_dict(state_dict, assign=True)

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output_dir) as folder:
        model.save_pretrained(folder)
        LotlipProcessor(image_processor_of(config), tokenizer).save_pretrained(folder)
        write_model_card(folder, output_dir.name, **OF_THE_ORIGINAL)
        check_is_empty(output_dir)  # another run may have been faster
    return config_path


def write_original(folder: str | Path, to_original: str | Path):
    """
    Writes the weights of a folder as a plain open_clip state dict, bit by bit, and beside it the
    `open_clip_config.json` with which it is read back as the same model; or refuses what the original cannot express.
    """
    folder, to_original = Path(folder), Path(to_original).absolute()
    if to_original.exists():
        raise FileExistsError(f"`{to_original}` exists already: give another name.")
    if to_original.suffix == ".safetensors":
        raise ValueError(f"`{to_original}` is written by `torch.save`: give a name that ends in `.pt`.")
    files, config = find_model_files(folder), AutoConfig.from_pretrained(folder)
    complaint = f"The original cannot express the model in `{folder}`: "
    if config.model_type != LotlipConfig.model_type:
        raise ValueError(f"{complaint}`model_type` = {config.model_type!r}.")
    state_dict = {}
    for file in files:
        state_dict |= load_file(folder / file) if file.endswith(".safetensors") else {}
    original, settings = state_dict_to_original(state_dict), open_clip_config_of(config)
    state_dict_from_original(original, config)
    config_from_checkpoint(original, settings, config.text_config.vocab_size)

    images, context_length = image_processor_of(config), 128
    expected = FIXED | json.loads(images.to_json_string())
    if "processor_config.json" in files:
        processor = LotlipProcessor.from_pretrained(folder)
        images = processor.image_processor
        context_length = processor.tokenizer.model_max_length + config.text_config.num_corner_tokens
    found = {name: attrgetter(name)(config) for name in FIXED} | json.loads(images.to_json_string())
    names = sorted((expected | found).keys() - {"auto_map", "image_processor_type"})
    others = [f"`{name}` = {found.get(name)!r}" for name in names if found.get(name) != expected.get(name)]
    if others:
        raise ValueError(f"{complaint}{'; '.join(others)}.")
    settings["text_cfg"] |= {
        "hf_model_name": DEFAULT_TOKENIZER,
        "context_length": min(context_length, config.text_config.max_position_embeddings),
    }
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
    by default is named as the repository; a folder to the original's state dict; or one after the other. Returns what
    was written, in words.
    """
    is_file, written = os.path.isfile(checkpoint_path), []
    if not is_file and Path(checkpoint_path).suffix in (".bin", ".ckpt", ".pt", ".pth", ".safetensors"):
        raise FileNotFoundError(f"There is no file `{checkpoint_path}`.")
    if to_original is None or output_dir is not None:
        checkpoint = checkpoint_path if is_file else find_original(checkpoint_path)
        if checkpoint is None:
            raise ValueError(
                f"`{checkpoint_path}` is not in the original's layout: it has no `{CHECKPOINT_NAME}`, or has a "
                f"`{CONFIG_NAME}` too, with which a model loads by its name; for the way back give `--to_original` "
                "alone."
            )
        if is_file and output_dir is None:
            raise ValueError("Give an output folder, or `--to_original` for the way back.")
        output_dir = output_dir or Path(checkpoint_path).resolve().name
        settings = convert_checkpoint(checkpoint, output_dir, config_path, tokenizer_path)
        written.append(f"{output_dir} (settings of {settings})" if settings else str(output_dir))
    if to_original is not None:
        write_original(output_dir or checkpoint_path, to_original)
        written.append(str(to_original))
    return written


# The original's layout by its name


def find_original(name_or_path: str | os.PathLike, cache_dir=None, revision=None, **options) -> Path | None:
    """
    The checkpoint of a repository or a folder in the original's layout, downloaded to the Hub's cache with its
    `open_clip_config.json`; None if this is no such repository or folder. Takes the options of `from_pretrained`.
    """
    name, place = str(name_or_path), {"cache_dir": cache_dir, "revision": revision}
    try:  # without asking the Hub
        if not os.path.isdir(name) and isinstance(try_to_load_from_cache(name, CONFIG_NAME, **place), str):
            return None
    except ValueError:  # no name of a repository, as the library will say
        return None
    find = partial(cached_file, name, **place, **options, _raise_exceptions_for_missing_entries=False)
    checkpoint = None if find(CONFIG_NAME) else find(CHECKPOINT_NAME)
    if checkpoint is not None:
        find(OPEN_CLIP_CONFIG_NAME)
    return checkpoint and Path(checkpoint)


def find_converted(name_or_path: str | os.PathLike, cache_dir: str | os.PathLike | None = None, **options):
    """What [`modeling_lotlip.hub_lotlip.find_pretrained`] says."""
    checkpoint = find_original(name_or_path, cache_dir, **options)
    if checkpoint is None:
        return name_or_path
    # a file by this name may become another one, and the Hub's cache links to files by their content
    files = [file.resolve() for file in (checkpoint, checkpoint.with_name(OPEN_CLIP_CONFIG_NAME)) if file.is_file()]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
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
                convert_checkpoint(checkpoint, folder, cache_dir=cache_dir, **hub_options)
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

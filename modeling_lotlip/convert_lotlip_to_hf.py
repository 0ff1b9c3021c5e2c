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
from huggingface_hub.utils import WeakFileLock
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file, logging

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .hub import OF_THE_ORIGINAL, find_model_files, write_model_card
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer
from .utils.output_folder import atomic_write, delete


logger = logging.get_logger(__name__)

DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
CHECKPOINT_NAME, OPEN_CLIP_CONFIG_NAME = "model.pt", "open_clip_config.json"
MAX_CORNER_TOKENS = 16  # of rows of the word table beyond the words of the tokenizer, unless the settings tell them
# Fields that no tensor tells; the last three matter in training alone
PASSED_ON = ("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
# Which one depends on where the file is damaged, or on what else it holds
DAMAGED_FILE_ERRORS = (AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
DAMAGED_FILE_ERRORS += (pickle.UnpicklingError, struct.error, zipfile.BadZipFile)
FORMAT = 4  # one more when a conversion gives other files than before, which lie in the Hub's cache

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
# Other values that these settings of the original may have: the tensors tell which projection there is
SYNONYMS = {"timm_proj": ["none", "linear", "", None], "act": ["gelu", "gelu (exact)"]}


def rename(name: str, model_type: str) -> str:
    """The name that one of our tensors has in a tower of another type, or in the original (`"lotlip"`)."""
    if model_type == "lotlip":
        model_type = "timm_wrapper" if name.startswith("vis") else "bert"
    column = 1 + TYPES.index(model_type)
    for row in NAMES:
        name = name.replace(row[0], row[column] or row[0])
    return name


def group_names(ours: dict[str, torch.Tensor], model_type: str) -> dict[str, list[str]]:
    """The names of their tensors, and of ours that are the rows of each."""
    groups = {}
    for name in sorted(ours, key=lambda name: next((i for i, row in enumerate(NAMES) if row[0] in name), -1)):
        groups.setdefault(rename(name, model_type), []).append(name)
    return groups


def to_theirs(ours: dict[str, torch.Tensor], model_type: str) -> dict[str, torch.Tensor]:
    """Our tensors by their names."""
    return {
        name: ours[group[0]] if len(group) == 1 else torch.cat([ours[each] for each in group])
        for name, group in group_names(ours, model_type).items()
    }


def from_theirs(config: PreTrainedConfig, theirs: dict[str, torch.Tensor], model_type: str) -> PreTrainedModel:
    """A model with their tensors, to be saved. Raises a `ValueError` that lists what does not fit."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    ours, given = model.state_dict(), {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in to_theirs(ours, model_type).items()}
    faults = [
        f"{name} {given.get(name, 'none')} instead of {expected.get(name, 'none')}"
        for name in sorted(expected | given)
        if expected.get(name) != given.get(name)
    ]
    if faults:
        raise ValueError(f"The tensors are not those of a {type(model).__name__}: {'; '.join(faults)}.")
    for name, group in group_names(ours, model_type).items():
        rows = theirs[name].split([len(ours[each]) for each in group]) if len(group) > 1 else [theirs[name]]
        ours |= dict(zip(group, rows))
    model.load_state_dict(ours, assign=True)
    return model.eval()


# Towers of other checkpoints


def read_tower(state_dict: dict[str, torch.Tensor], layers: str, mlp: str, settings: dict) -> dict:
    """What is read off the shapes of either tower, with names that begin with `layers`, or off the settings."""
    intermediate_size, hidden_size = state_dict[f"{layers}0.{mlp}.weight"].shape
    indices = {name.removeprefix(layers).split(".")[0] for name in state_dict if name.startswith(layers)}
    num_heads = settings.get("heads", settings.get("num_attention_heads"))
    if num_heads is None and hidden_size != 768:  # that of all released checkpoints
        logger.warning(f"No configuration tells the heads of `{layers}`: {hidden_size // 64} are assumed.")
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": len(indices),
        "num_attention_heads": num_heads or hidden_size // 64,
        "intermediate_size": intermediate_size,
    } | {name: value for name, value in settings.items() if name in PASSED_ON}


def read_timm(state_dict: dict[str, torch.Tensor], prefix: str, settings: dict) -> dict:
    """The same of a ViT of timm, whose names begin with `prefix`, and the sizes of images and patches."""
    positions, patches = (state_dict[f"{prefix}{name}"].shape for name in ("pos_embed", "patch_embed.proj.weight"))
    grid_size = math.isqrt(positions[1] - 1)
    fields = read_tower(state_dict, f"{prefix}blocks.", "mlp.fc1", settings)
    return fields | {"image_size": grid_size * patches[2], "patch_size": patches[2], "num_channels": patches[1]}


def load_tower(name_or_path: str, types: tuple[str, ...]) -> PreTrainedModel:
    """A tower from one of these types, without corner tokens."""
    theirs = AutoConfig.from_pretrained(name_or_path)
    model_type = theirs.model_type
    if model_type not in types or getattr(theirs, "use_swiglu_ffn", False):
        raise ValueError(
            f"`{name_or_path}` is of type {model_type!r}: the tower takes {' or '.join(types)}, no SwiGLU."
        )
    model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    model = model.timm_model if model_type == "timm_wrapper" else model
    state_dict = model.state_dict()
    for scale, linear in LAYER_SCALES.items():
        for name in [name.removesuffix(scale) for name in state_dict if name.endswith(scale)]:
            factor = state_dict.pop(f"{name}{scale}")
            state_dict[f"{name}{linear}.weight"] = state_dict[f"{name}{linear}.weight"] * factor[:, None]
            state_dict[f"{name}{linear}.bias"] = state_dict[f"{name}{linear}.bias"] * factor
    if model_type == "timm_wrapper":
        points, is_vit = torch.linspace(-3, 3, 7), type(model).__name__ == "VisionTransformer"
        if not is_vit or not torch.allclose(model.blocks[0].mlp.act(points), nn.functional.gelu(points)):
            raise ValueError(f"`{name_or_path}` is no VisionTransformer of timm with the exact GELU.")
        block = model.blocks[0]
        fields = read_timm(state_dict, "", {"heads": block.attn.num_heads, "layer_norm_eps": block.norm1.eps})
    else:
        names = LotlipTextConfig.__annotations__ | LotlipVisionConfig.__annotations__
        fields = {name: value for name, value in theirs.to_dict().items() if name in names}
    if model_type == "bert":
        return from_theirs(LotlipTextConfig(**fields, num_corner_tokens=0), state_dict, model_type)
    if model_type == "dinov2":
        fields["intermediate_size"] = int(theirs.hidden_size * theirs.mlp_ratio)
    # a pooler and a mask token serve other tasks
    state_dict = {n: x for n, x in state_dict.items() if not n.startswith(("pooler.", "embeddings.mask_token"))}
    return from_theirs(LotlipVisionConfig(**fields), state_dict, model_type)


def load_towers(
    vision_model_name_or_path: str | None = None,
    text_model_name_or_path: str | None = None,
    vision_config: dict | None = None,
    text_config: dict | None = None,
) -> LotlipModel:
    """
    A model whose towers come from pretrained ones, as in the paper, in evaluation mode; corner tokens and projections
    are new. Layer scales (Touvron et al., 2021, https://arxiv.org/abs/2103.17239, equation 4) are multiplied into the
    linear layers before them. Give the image tower the pixels of its image processor, with its mean and std.

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
    vision = load_tower(vision_model_name_or_path, TYPES[1:]) if vision_model_name_or_path else None
    text = load_tower(text_model_name_or_path, TYPES[:1]) if text_model_name_or_path else None
    vision_config = LotlipVisionConfig(**(vision.config.to_dict() if vision else {}) | (vision_config or {}))
    projection_dim = vision_config.projection_dim or vision_config.hidden_size
    new = {"num_corner_tokens": LotlipTextConfig.num_corner_tokens, "projection_dim": projection_dim}
    text_config = LotlipTextConfig(**(text.config.to_dict() if text else {}) | new | (text_config or {}))
    config = LotlipConfig(text_config=text_config, vision_config=vision_config, projection_dim=projection_dim)
    model = LotlipModel(config).eval()
    if vision:
        ours = model.vision_model.embeddings
        positions = vision.embeddings.interpolate_pos_encoding(ours.position_embeddings, *ours.image_size)
        model.vision_model.load_state_dict(vision.state_dict() | {"embeddings.position_embeddings": positions})
    if text:
        corners = {name: x for name, x in model.text_model.state_dict().items() if "corner_tokens" in name}
        model.text_model.load_state_dict(text.state_dict() | corners)
    return model


# Checkpoints of the original


def load_checkpoint(checkpoint_path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of `torch.save`, at the top or under `state_dict`, loaded without running code."""
    try:
        # torch does not look at the checksums in its archives
        if zipfile.is_zipfile(checkpoint_path) and zipfile.ZipFile(checkpoint_path).testzip() is not None:
            raise zipfile.BadZipFile("wrong checksum")
        checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        checkpoint = checkpoint.get("state_dict", checkpoint)
        state_dict = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
        broken = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    except DAMAGED_FILE_ERRORS as error:
        message = f"`{checkpoint_path}` was refused: it is damaged, or no state dict of `torch.save`. No code was run."
        raise ValueError(message) from error
    if broken:
        raise ValueError(f"`{broken[0]}` in `{checkpoint_path}` has values that are NaN or infinite.")
    state_dict.pop("text.transformer.embeddings.position_ids", None)  # a buffer that counts
    return state_dict


def open_clip_config_of(config: LotlipConfig) -> dict:
    """The settings with which the original computes what our model does."""
    text, vision = config.text_config, config.vision_config
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    names += ("max_position_embeddings", "type_vocab_size", *PASSED_ON)
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "heads": vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            **{name: getattr(vision, name) for name in ("patch_size", "image_size", *PASSED_ON)},
            "timm_pool": "token",
            "timm_proj": "none" if vision.projection_dim is None else "linear",
            "timm_proj_bias": False,
            "act": vision.hidden_act,
        },
        "text_cfg": {
            **{name: getattr(text, name) for name in names},
            "num_corner_token": text.num_corner_tokens,
            "hf_pooler_type": "cls_pooler",
            "hf_proj_type": "linear",
        },
        # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here
        "preprocess_cfg": {"interpolation": "bicubic", "resize_mode": "shortest"},
    }


def config_from_checkpoint(checkpoint: dict[str, torch.Tensor], settings: dict, vocab_size: int) -> LotlipConfig:
    """The configuration: from the shapes, and from the settings what these do not tell. `vocab_size` counts words."""
    text_cfg, bert = settings.get("text_cfg", {}), "text.transformer."
    try:
        vision = read_timm(checkpoint, "visual.trunk.", settings.get("vision_cfg", {}))
        text = read_tower(checkpoint, f"{bert}encoder.layer.", "intermediate.dense", text_cfg)
        for name, table in (("max_position_embeddings", "position"), ("type_vocab_size", "token_type")):
            text[name] = len(checkpoint[f"{bert}embeddings.{table}_embeddings.weight"])
        num_rows = len(checkpoint[WORD_TABLE])
    except KeyError as error:
        raise ValueError(f"The checkpoint lacks the tensor {error}: it is not of the original LoTLIP.") from error

    num_corner_tokens = text_cfg.get("num_corner_token", min(num_rows - vocab_size, MAX_CORNER_TOKENS))
    if num_corner_tokens < 0 or num_rows != vocab_size + num_corner_tokens:
        raise ValueError(
            f"`{WORD_TABLE}` has {num_rows} rows, but the tokenizer has {vocab_size} words, and "
            f"`num_corner_token` is {text_cfg.get('num_corner_token', f'not given (at most {MAX_CORNER_TOKENS})')}. "
            "The rows must be the words and the corner tokens: give the checkpoint's own `--tokenizer_path`."
        )
    dim = vision["hidden_size"]
    if "visual.head.proj.weight" in checkpoint:
        dim = vision["projection_dim"] = len(checkpoint["visual.head.proj.weight"])
    text |= {"vocab_size": vocab_size, "num_corner_tokens": num_corner_tokens, "projection_dim": dim}
    config = LotlipConfig(text_config=text, vision_config=vision, projection_dim=dim)
    for part in ("vision_cfg", "text_cfg", "preprocess_cfg"):
        for name, ours in open_clip_config_of(config)[part].items():
            given = settings.get(part, {}).get(name, ours)
            if given not in SYNONYMS.get(name, [ours]):
                raise ValueError(f"`{part}.{name}` is {given!r}, but the original's LoTLIP needs {ours!r} there.")
    return config


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
    """Converts a checkpoint to a folder, with the settings of a file, or of the one beside it. Returns the file."""
    output_dir, beside = Path(output_dir).absolute(), Path(checkpoint_path).with_name(OPEN_CLIP_CONFIG_NAME)
    check_is_empty(output_dir)
    config_path = config_path or (beside if beside.is_file() else None)
    settings = json.loads(Path(config_path).read_text(encoding="utf-8")) if config_path is not None else {}
    settings |= settings.get("model_cfg", {})  # where open_clip puts them on the Hub
    if config_path is not None and not settings.keys() & {"text_cfg", "vision_cfg", "preprocess_cfg"}:
        cause = f"`--config_path {config_path}` has no `text_cfg` and no `vision_cfg`"
        raise ValueError(f"{cause}: name an `{OPEN_CLIP_CONFIG_NAME}`, or leave it out.")
    checkpoint = load_checkpoint(checkpoint_path)
    try:
        bert = LotlipTokenizer.from_pretrained(tokenizer_path, **hub_options)
    except (OSError, ValueError) as error:
        message = f"No words in `{tokenizer_path}`. Name a BERT's folder by `lotlip convert --tokenizer_path`: {error}"
        raise ValueError(message) from error
    # its words and normalization only
    fields = {name: getattr(bert, name) for name in ("do_lower_case", "tokenize_chinese_chars", "strip_accents")}
    fields |= {name: str(token) for name, token in bert.special_tokens_map.items()}
    tokenizer = LotlipTokenizer(vocab=bert.get_vocab(), **fields)
    config = config_from_checkpoint(checkpoint, settings, vocab_size=len(tokenizer))
    model = from_theirs(config, checkpoint, "lotlip")
    text_config, context_length = config.text_config, settings.get("text_cfg", {}).get("context_length", 128)
    context_length = min(context_length, text_config.max_position_embeddings)
    tokenizer.model_max_length = context_length - text_config.num_corner_tokens

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output_dir) as folder:
        model.save_pretrained(folder)
        size = config.vision_config.image_size
        LotlipProcessor(LotlipImageProcessor(size=size, crop_size=size), tokenizer).save_pretrained(folder)
        write_model_card(folder, output_dir.name, **OF_THE_ORIGINAL)
        check_is_empty(output_dir)  # another run may have been faster
    return config_path


def write_original(folder: str | Path, to_original: str | Path):
    """Writes the weights of a folder as the original does, and the settings with which they are read back."""
    folder, to_original = Path(folder), Path(to_original).absolute()
    if to_original.exists() or to_original.suffix == ".safetensors":
        raise FileExistsError(f"`{to_original}` exists already, or is no name for a `.pt` file: give another name.")
    files, config = find_model_files(folder), AutoConfig.from_pretrained(folder)
    context_length, complaint = 128, f"The original cannot express the model in `{folder}`: "
    mask = getattr(config.get_text_config(), "corner_attention_mask", None)
    if config.model_type != LotlipConfig.model_type or not mask:
        raise ValueError(f"{complaint}`model_type` = {config.model_type!r}, `corner_attention_mask` = {mask}.")
    shards = [load_file(folder / file) for file in files if file.endswith(".safetensors")]
    original = to_theirs({name: tensor for shard in shards for name, tensor in shard.items()}, "lotlip")
    settings = open_clip_config_of(config)
    from_theirs(config_from_checkpoint(original, settings, config.text_config.vocab_size), original, "lotlip")

    if "processor_config.json" in files:
        processor = LotlipProcessor.from_pretrained(folder)
        context_length = processor.tokenizer.model_max_length + config.text_config.num_corner_tokens
        size = config.vision_config.image_size
        both = (LotlipImageProcessor(size=size, crop_size=size), processor.image_processor)
        expected, found = (json.loads(each.to_json_string()) for each in both)
        names = sorted((expected | found).keys() - {"auto_map", "image_processor_type"})
        others = [f"`{name}` = {found.get(name)!r}" for name in names if found.get(name) != expected.get(name)]
        if others:
            raise ValueError(f"{complaint}{'; '.join(others)}.")
    settings["text_cfg"]["context_length"] = min(context_length, config.text_config.max_position_embeddings)
    settings["text_cfg"]["hf_model_name"] = DEFAULT_TOKENIZER
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
    Converts a checkpoint (a file, or a repository or a folder in the original's layout) to a folder, by default named
    as it is; a folder to a file of the original; or one after the other. Returns what was written, in words.
    """
    path, written = Path(checkpoint_path), []
    if path.suffix == ".pt" and not path.is_file():
        raise FileNotFoundError(f"There is no file `{path}`.")
    if to_original is None or output_dir is not None:
        checkpoint = path if path.is_file() else find_original(checkpoint_path)
        if checkpoint is None:
            message = f"`{path}` has no `{CHECKPOINT_NAME}`, or a `{CONFIG_NAME}` too: for the way back give"
            raise ValueError(f"{message} `--to_original` alone.")
        output_dir = output_dir or (path.stem if path.is_file() else path.resolve().name)
        settings = convert_checkpoint(checkpoint, output_dir, config_path, tokenizer_path)
        written.append(f"{output_dir} (settings of {settings})" if settings else str(output_dir))
    if to_original is not None:
        write_original(output_dir or path, to_original)
        written.append(str(to_original))
    return written


# The original's layout by its name


def find_original(name_or_path: str | os.PathLike, **options) -> Path | None:
    """The checkpoint of a repository or a folder in the original's layout; None if it is no such one."""
    find = partial(cached_file, name_or_path, _raise_exceptions_for_missing_entries=False)
    without_asking = options | {"local_files_only": True, "force_download": False}
    if find(CONFIG_NAME, **without_asking) or find(CONFIG_NAME, **options):
        return None
    checkpoint = find(CHECKPOINT_NAME, **options)
    if checkpoint is not None:
        find(OPEN_CLIP_CONFIG_NAME, **options)
    return checkpoint and Path(checkpoint)


def find_converted(name_or_path: str | os.PathLike, cache_dir: str | os.PathLike | None = None, **options):
    """What [`modeling_lotlip.hub_lotlip.find_pretrained`] says."""
    if Path(name_or_path, "random_states_0.pkl").is_file() and not Path(name_or_path, CONFIG_NAME).is_file():
        parent = Path(name_or_path).parent
        cause = f"`{name_or_path}` is a checkpoint, for `--resume_from_checkpoint`"
        raise ValueError(f"{cause}: name the model, which is in `{parent}` once the training has ended.")
    checkpoint = find_original(name_or_path, cache_dir=cache_dir, **options)
    if checkpoint is None:
        return name_or_path
    # a file by this name may become another one, and the Hub's cache links to files by their content
    files = [file.resolve() for file in (checkpoint, checkpoint.with_name(OPEN_CLIP_CONFIG_NAME)) if file.is_file()]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name, key = Path(name_or_path).resolve().name, sha256(repr((FORMAT, stamps)).encode()).hexdigest()
    # the layout of the Hub's cache, whose tools look for `snapshots`
    repository = Path(cache_dir or constants.HF_HUB_CACHE, f"models--converted--{name}")
    folder = repository / "snapshots" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(repository / ".lock"):
        for left in folder.parent.glob("*.partial"):  # of a process that was killed
            delete(left)
        if not folder.is_dir():
            logger.warning(f"`{name_or_path}` is in the original's layout: converting it, once, to `{folder}`.")
            hub_options = {key: options[key] for key in ("local_files_only", "token") if key in options}
            convert_checkpoint(checkpoint, folder, cache_dir=cache_dir, **hub_options)
    return str(folder)


def main():
    import tyro

    from .utils.arguments import exit_on_error

    with exit_on_error("convert_lotlip_to_hf"):
        for words in tyro.cli(convert, prog="python -m modeling_lotlip.convert_lotlip_to_hf", use_underscores=True):
            print(f"Wrote {words}")


__all__ = ["load_towers"]


if __name__ == "__main__":
    main()

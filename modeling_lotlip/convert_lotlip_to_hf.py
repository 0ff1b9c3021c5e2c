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
"""
Convert LoTLIP checkpoints of the original code (a fork of open_clip) to transformers, and back.

A checkpoint becomes a folder that the Auto classes and `pipeline` load:

    python -m modeling_lotlip.convert_lotlip_to_hf --checkpoint_path model.pt --output_dir LoTLIP-ViT-B-16

and a folder (or a checkpoint) becomes a plain open_clip state dict again, bit by bit:

    python -m modeling_lotlip.convert_lotlip_to_hf --checkpoint_path LoTLIP-ViT-B-16 --to_original model.pt
"""

import argparse
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import torch
from huggingface_hub.utils.sha import sha_fileobj
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging

from .configuration_lotlip import LotlipConfig
from .hub import push_folder, write_model_card
from .image_processing_lotlip import LotlipImageProcessor
from .modeling_lotlip import LotlipModel
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer
from .weights_lotlip import (
    BERT_NAMES,
    TIMM_NAMES,
    check_tensors,
    split_qkv,
    text_config_from_shapes,
    vision_config_from_shapes,
)


logger = logging.get_logger(__name__)

DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
DEFAULT_CONTEXT_LENGTH = 128

# What safetensors and torch raise for a file that is damaged or not theirs, which depends on where the damage is
DAMAGED_FILE_ERRORS = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    UnicodeDecodeError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)

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
VISION_FIELDS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "patch_size": "patch_size",
    "image_size": "image_size",
    "layer_norm_eps": "layer_norm_eps",
    "patch_dropout": "patch_dropout",
}
TEXT_FIELDS = {
    name: name
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
    )
}
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
    "preprocess_cfg": {
        "mode": ["RGB"],
        "interpolation": ["bicubic"],
        "resize_mode": ["shortest"],
    },
}
# Settings read elsewhere in this file, and those that do not change what a given checkpoint computes
OTHER_SETTINGS = {
    "vision_cfg": {
        "mlp_ratio",
        "timm_model_name",
        "timm_model_pretrained",
        "checkpoint_path",
        "timm_drop",
        "timm_drop_path",
        "output_tokens",
    },
    "text_cfg": {
        "context_length",
        "num_corner_token",
        "vocab_size",
        "hf_model_name",
        "hf_model_pretrained",
        "hf_tokenizer_name",
        "checkpoint_path",
        "output_tokens",
    },
    # to a timm tower the original feeds pixels of mean and std 0.5, whatever stands here: CLIP's, by its own writer
    "preprocess_cfg": {"size", "mean", "std", "fill_color"},
}


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
        unknown = sorted(set(settings) - set(supported) - set(fields) - OTHER_SETTINGS[part])
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
            rest = name.removeprefix(ours)
            for ours_part, their_part in names:
                rest = rest.replace(ours_part, their_part)
            return theirs + rest
    raise ValueError(f"`{name}` is no tensor of a LotlipModel.")


def state_dict_to_original(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    The original's state dict from one of [`LotlipModel`]: the inverse of `state_dict_from_original`.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            In the order of the model.

    Returns:
        `dict[str, torch.Tensor]`: in the order of the original.

    Raises:
        `ValueError`: if the model has a `logit_bias`, which the original has not.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.convert_lotlip_to_hf import state_dict_to_original

    >>> original = state_dict_to_original(LotlipModel(LotlipConfig()).state_dict())
    >>> original["text.transformer.embeddings.word_embeddings.weight"].shape
    torch.Size([30524, 768])
    ```"""
    if "logit_bias" in state_dict:
        raise ValueError(
            "The model was trained with a sigmoid loss and has a `logit_bias`, which the original has not: its "
            "similarities would be others there. Keep it as it is."
        )
    renamed = {}
    for prefix, _, _ in PARTS:
        for name, tensor in state_dict.items():
            if name.startswith(prefix):
                renamed[original_name(name)] = tensor

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
            Its `open_clip_config.json`. Without it the architecture is read off the shapes, 64 units to a head.
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

    open_clip_config = load_open_clip_config(config_path)
    checkpoint = load_checkpoint(checkpoint_path)
    tokenizer = load_tokenizer(tokenizer_path, **hub_options)
    config = config_from_checkpoint(checkpoint, open_clip_config, vocab_size=len(tokenizer))
    state_dict = state_dict_from_original(checkpoint, config)

    max_positions = config.text_config.max_position_embeddings
    context_length = open_clip_config["text_cfg"].get("context_length", min(DEFAULT_CONTEXT_LENGTH, max_positions))
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
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}-", dir=output_dir.parent) as temporary_dir:
        folder = Path(temporary_dir) / output_dir.name
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
            license="cc-by-4.0",
            license_note=(
                "The weights published by the authors of LoTLIP are under Creative Commons Attribution 4.0 "
                "(CC BY 4.0); weights that others trained are under the terms of these."
            ),
        )
        if output_dir.exists():
            output_dir.rmdir()
        os.replace(folder, output_dir)
    return output_dir


def write_original(folder: str | Path, to_original: str | Path):
    """
    Writes the weights of a converted folder as a plain open_clip state dict, with `torch.save`.

    Names, order, dtypes and every bit are those of the checkpoint that the folder was converted from. Its wrapping
    (`state_dict`, `module.`) and the buffer `position_ids`, which just counts, do not come back.

    Args:
        folder (`str` or `Path`):
            The converted folder, or one that a [`LotlipModel`] was saved in.
        to_original (`str` or `Path`):
            The file; it must not exist.

    Raises:
        `FileExistsError`: if the file exists already.
        `ValueError`: if the weights are not those of a [`LotlipModel`].

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.convert_lotlip_to_hf import write_original

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> model.save_pretrained("lotlip-tiny")
    >>> write_original("lotlip-tiny", "model.pt")
    ```"""
    to_original = Path(to_original).absolute()
    _check_original_file(to_original)
    state_dict = state_dict_to_original(load_converted(folder))

    to_original.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to_original.name}-", dir=to_original.parent) as temporary_dir:
        file = Path(temporary_dir) / to_original.name
        torch.save(state_dict, file)
        os.replace(file, to_original)


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


__all__ = ["convert", "convert_checkpoint", "state_dict_to_original", "write_original"]


if __name__ == "__main__":
    main()

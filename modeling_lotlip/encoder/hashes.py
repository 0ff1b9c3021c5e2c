# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Hashes by which what is stored knows the model and the processor that it was made with."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import xxhash
from torch import nn
from transformers import (
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.dynamic_module_utils import get_relative_import_files

from ..utils.libraries import is_of_library
from ..utils.plugins import list_sources


# What transformers saves of where a tokenizer was loaded from, whether offline, and of how it was called last
FLEETING_FIELDS = {
    "tokenizer_config.json": (
        "is_local",
        "local_files_only",
        "max_length",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "padding_side",
        "stride",
        "truncation_side",
        "truncation_strategy",
    ),
    "tokenizer.json": ("padding", "truncation"),
}
# What a configuration knows of where a model comes from, of what it was saved by, and of its precision, which the
# weights have themselves
FLEETING_CONFIG_FIELDS = (
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "name_or_path",
    "torch_dtype",
    "transformers_version",
)


def read_code(classes: Iterable[type]) -> list[bytes]:
    """
    Reads the source of classes, and of their base classes, that are of no library: of a plugin with all modules of
    users that it imports, else the file of a module, or a file of a model's code and those that it imports. What was
    typed in, or is in the program itself, has none.
    """
    with_bases = set()
    for cls in classes:
        with_bases.update(cls.__mro__)
    sources = {}
    for cls in with_bases:
        package = cls.__module__.partition(".")[0]
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if file is None or package in ("modeling_lotlip", "__main__") or is_of_library(Path(file)):
            continue
        sources.update(list_sources(Path(file)) or read_files(Path(file), package))
    return [source for _, source in sorted((file.name, source) for file, source in sources.items())]


def read_files(file: Path, package: str) -> dict[Path, bytes]:
    """Reads the file of a module, and, if it is of the code of a model on the Hub, those that it imports."""
    files = [file]
    if package == "transformers_modules":
        # not the whole folder, which transformers fills as files are asked for
        imported = [Path(name) for name in get_relative_import_files(file)]
        files += [path for path in imported if path.is_file()]
    return {path: path.read_bytes() for path in files}


def hash_model(module: nn.Module) -> str:
    """
    Returns a hash of what a module computes with: all parameters and buffers, by their names, dtypes, shapes and
    values, its configuration, if it has one, and code of no library. With other heads it is another model.
    """
    weights = xxhash.xxh3_128()
    for source in read_code(type(part) for part in module.modules()):
        weights.update(source)
    config = getattr(module, "config", None)
    if isinstance(config, PreTrainedConfig):
        weights.update(json.dumps(describe_config(config), sort_keys=True, default=str).encode())
    for name, tensor in module.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def describe_config(config: PreTrainedConfig) -> dict:
    """
    Returns the fields of a configuration, and of those in it, that are not the defaults, without what says how a model
    was loaded and saved. A default that another version of transformers adds changes nothing.
    """
    fields = {}
    for name, value in config.to_diff_dict().items():
        if name in FLEETING_CONFIG_FIELDS:
            continue
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            value = describe_config(part)
        fields[name] = value
    return fields


def describe_architecture(model: PreTrainedModel) -> dict[str, object]:
    """
    Returns what a model computes but for its weights, as JSON has it: its class, its configuration as
    [`describe_config`] gives it, and a hash of code of no library.
    """
    code = xxhash.xxh3_128()
    for source in read_code(type(part) for part in model.modules()):
        code.update(source)
    described = {"class": type(model).__name__, "code": code.hexdigest(), "config": describe_config(model.config)}
    return json.loads(json.dumps(described, default=str))


def hash_processor(processor: ProcessorMixin | PreTrainedTokenizerBase | ImageProcessingMixin) -> str:
    """
    Returns a hash of the files that a processor is saved as, or a tokenizer or an image processor alone, wherever it
    was loaded from and however called. Code that is of no library counts too.
    """
    files = xxhash.xxh3_128()
    parts = [processor, *(getattr(processor, name, None) for name in ("tokenizer", "image_processor"))]
    for source in read_code(type(part) for part in parts):
        files.update(source)
    # in the files the sides are only if the tokenizer was loaded with them, or saved after a call
    tokenizer = getattr(processor, "tokenizer", processor)
    for side in ("padding_side", "truncation_side"):
        value = getattr(tokenizer, side, "right")
        if value != "right":
            files.update(f"{side} {value}".encode())
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if not path.is_file() or path.suffix == ".py":
                continue
            # Windows writes other ends of lines
            content = path.read_bytes().replace(b"\r\n", b"\n")
            fleeting = FLEETING_FIELDS.get(path.name)
            if fleeting is not None:
                fields = json.loads(content)
                kept = {name: fields[name] for name in fields if name not in fleeting}
                content = json.dumps(kept).encode()
            files.update(path.relative_to(folder).as_posix().encode())
            files.update(content)
    return files.hexdigest()

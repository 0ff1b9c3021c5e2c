# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Hashes by which what is stored knows the model and the processor that it was made with."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import xxhash
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin


# What transformers saves of where a tokenizer was loaded from, whether offline, and of how it was called last
FLEETING_FIELDS = {
    "tokenizer_config.json": ("is_local", "local_files_only"),
    "tokenizer.json": ("padding", "truncation"),
}


def hash_weights(module: nn.Module) -> str:
    """Returns a hash of all parameters and buffers of a module: their names, dtypes, shapes and values."""
    weights = xxhash.xxh3_128()
    for name, tensor in module.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def hash_model(model: PreTrainedModel) -> str:
    """Returns a hash of the class, the configuration and the weights of a model, wherever it was loaded from."""
    config = model.config.to_dict()
    fields = {name: value for name, value in config.items() if name not in ("_name_or_path", "dtype")}
    described = f"{type(model).__name__} {fields!r} {hash_weights(model)}"
    return xxhash.xxh3_128(described.encode()).hexdigest()


def hash_processor(processor: ProcessorMixin) -> str:
    """Returns a hash of the files that a processor is saved as, wherever it was loaded from and however called."""
    files = xxhash.xxh3_128()
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if not path.is_file() or path.suffix == ".py":
                continue
            content = path.read_bytes()
            fleeting = FLEETING_FIELDS.get(path.name)
            if fleeting is not None:
                fields = json.loads(content)
                kept = {name: fields[name] for name in fields if name not in fleeting}
                content = json.dumps(kept).encode()
            files.update(path.relative_to(folder).as_posix().encode())
            files.update(content)
    return files.hexdigest()

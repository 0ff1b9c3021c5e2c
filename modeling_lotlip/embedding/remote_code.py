# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Dual encoders whose code comes with them, such as FG-CLIP 2 and jina-clip-v2."""

from pathlib import Path

import torch
from huggingface_hub import load_torch_model, snapshot_download
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    ProcessorMixin,
)


WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")


class PairProcessor(ProcessorMixin):
    """A tokenizer and an image processor of a model that comes without a processor of both."""

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)


def load_with_code(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    Loads a model and its processor, and runs the code that comes with them.

    Args:
        name (`str`):
            A Hub id or a folder.
        dtype (`torch.dtype`):
            The precision of the computation.

    Raises:
        `ValueError`: if the weights of the model are not all there.
    """
    options = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(name, **options)
    # FG-CLIP offers itself as a causal language model only
    auto_map = getattr(config, "auto_map", None) or {}
    is_causal_only = "AutoModelForCausalLM" in auto_map and "AutoModel" not in auto_map
    auto_class = AutoModelForCausalLM if is_causal_only else AutoModel
    folder = Path(name)
    has_own_code = type(config).__module__.startswith("transformers_modules.")
    if has_own_code and not folder.is_dir():
        folder = Path(snapshot_download(name, allow_patterns=WEIGHTS))
    if has_own_code and any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        # Not by `from_pretrained`: code from before transformers 5 draws weights anew after they were loaded, and its
        # tensors that are no parameters stay empty
        model = auto_class.from_config(config, dtype=dtype, **options)
        missing = load_torch_model(model, folder).missing_keys
        if missing:
            raise ValueError(
                f"the weights lack {len(missing)} tensors of {type(model).__name__}, `{missing[0]}` first."
            )
    else:
        model = auto_class.from_pretrained(name, dtype=dtype, **options)
    processor = AutoProcessor.from_pretrained(name, **options)
    if not isinstance(processor, ProcessorMixin):
        image_processor, tokenizer = (
            part.from_pretrained(name, **options) for part in (AutoImageProcessor, AutoTokenizer)
        )
        processor = PairProcessor(image_processor, tokenizer)
        processor.model_type = config.model_type
    return model, processor

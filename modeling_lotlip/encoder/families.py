# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The table of families of dual encoders: how each reads texts and images, where neither its configuration nor its
processor says so. A model of no family here works too, if it has `get_text_features` and `get_image_features`.
"""

from copy import copy, deepcopy
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin


@dataclass(frozen=True)
class Family:
    """
    The traits of a family of dual encoders.

    Args:
        model_types (`tuple[str, ...]`, *optional*):
            The `model_type` of its configurations.
        processor_prefix (`str`, *optional*):
            How the names of its processors' classes begin.
        padding (`bool` or `str`, *optional*):
            The `padding` of texts that it was trained with, where its processor does not say so.
        is_lower_case (`bool`, *optional*, defaults to `False`):
            Whether it was trained on texts in lower case only.
        stale_limit (`int`, *optional*):
            A `model_max_length` of its tokenizers that does not hold where the table of positions is longer.
        has_walk_types (`bool`, *optional*, defaults to `False`):
            Whether it reads short and long texts in two ways, by an argument `walk_type`.
        patch_budgets (`tuple[int, ...]`, *optional*):
            The max numbers of patches that its image processor is called with, by the size of an image.
        compares_tokens (`bool`, *optional*, defaults to `False`):
            Whether it compares all tokens of a text with all of an image, and has no single embedding of either
            (FILIP, Yao et al., 2021, https://arxiv.org/abs/2111.07783).
        attn_implementation (`str`, *optional*):
            The attention that alone computes it right.
    """

    model_types: tuple[str, ...] = ()
    processor_prefix: str | None = None
    padding: bool | str | None = None
    is_lower_case: bool = False
    stale_limit: int | None = None
    has_walk_types: bool = False
    patch_budgets: tuple[int, ...] = ()
    compares_tokens: bool = False
    attn_implementation: str | None = None


FAMILIES = {
    # by others a text without padding is read without the causal mask (transformers 5.24)
    "AIMv2": Family(model_types=("aimv2",), attn_implementation="eager"),
    # Long-CLIP is a CLIP with a longer table of positions, and often a tokenizer with the limit of the original
    "CLIP": Family(model_types=("clip", "clipseg", "longclip", "metaclip_2"), stale_limit=77),
    # https://github.com/360CVGroup/FG-CLIP, and its model cards
    "FG-CLIP 2": Family(
        model_types=("fgclip2",),
        padding="max_length",
        is_lower_case=True,
        has_walk_types=True,
        patch_budgets=(128, 256, 576, 784, 1024),
    ),
    # not all processors and tokenizers of SigLIP and SigLIP 2 do so by themselves
    "SigLIP": Family(processor_prefix="Siglip", padding="max_length", is_lower_case=True),
    "LoTLIP with late interaction": Family(model_types=("lotlip_token_wise",), compares_tokens=True),
}
UNKNOWN_FAMILY = Family()


def find_family(config: PreTrainedConfig | None, processor: ProcessorMixin | None = None) -> Family:
    """
    Returns the family of a model, by its configuration or its processor.

    Args:
        config (`PreTrainedConfig`, *optional*):
            The configuration of the model.
        processor (`ProcessorMixin`, *optional*):
            The processor of the model.
    """
    model_type = getattr(config, "model_type", None)
    processor_name = type(processor).__name__
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
        if family.processor_prefix is not None and processor_name.startswith(family.processor_prefix):
            return family
    return UNKNOWN_FAMILY


def get_text_kwargs(processor: ProcessorMixin) -> dict:
    """
    Returns how a processor calls its tokenizer where nothing else is asked for (ALIGN, SigLIP 2).

    Up to transformers 5.22 its `valid_processor_kwargs` say so, later its `text_kwargs`. What the tokenizer was made
    with goes before both.
    """
    kwargs = {}
    newer = getattr(type(processor), "text_kwargs", None)
    if isinstance(newer, dict):
        kwargs |= newer
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    kwargs |= older.get("text_kwargs", {})
    return {name: processor.tokenizer.init_kwargs.get(name, value) for name, value in kwargs.items()}


def text_lengths(config: PreTrainedConfig, family: Family) -> tuple[int, ...]:
    """Returns the lengths that texts must be padded to, for a model that reads no others (FG-CLIP 2), else none."""
    if not family.has_walk_types:
        return ()
    text_config = config.get_text_config()
    return (text_config.max_position_embeddings, text_config.longtext_len)


def count_positions(model: PreTrainedModel, family: Family) -> int | None:
    """Returns the number of text tokens that there are positions for, `None` where there is no table of them."""
    lengths = text_lengths(model.config, family)
    if lengths:
        return max(lengths)
    config = model.config.get_text_config()
    num_positions = getattr(config, "max_position_embeddings", None)
    if num_positions is None:
        return None
    for name, module in model.named_modules():
        # RoBERTa's positions begin after that of padding
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            num_positions -= module.padding_idx + 1
    return num_positions - getattr(config, "num_corner_tokens", 0)


def with_text_limit(processor: ProcessorMixin, limit: int) -> ProcessorMixin:
    """Returns a processor whose tokenizer has a limit of tokens: the given one, or a copy if it has another limit."""
    if processor.tokenizer.model_max_length == limit:
        return processor
    limited = copy(processor)
    limited.tokenizer = deepcopy(processor.tokenizer)
    limited.tokenizer.model_max_length = limit
    return limited


def find_text_limit(model: PreTrainedModel, processor: ProcessorMixin, family: Family) -> int:
    """Returns the number of tokens of a text that a dual encoder was made to read, special tokens included."""
    limit = processor.tokenizer.model_max_length
    num_positions = count_positions(model, family)
    if num_positions is None:
        return limit
    if limit == family.stale_limit:
        return num_positions
    return min(limit, num_positions, get_text_kwargs(processor).get("max_length", limit))

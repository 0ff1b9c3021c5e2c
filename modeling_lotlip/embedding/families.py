# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What families of dual encoders were trained on, where neither their tokenizers nor their processors name it."""

from dataclasses import dataclass

from transformers import PreTrainedModel, ProcessorMixin


@dataclass(frozen=True)
class Family:
    """How a family reads texts and images."""

    model_types: tuple[str, ...] = ()  # of its models
    processor_prefix: str | None = None  # how the names of its processors' classes begin
    padding: bool | str | None = None  # that it was trained with
    is_lower_case: bool = False  # it knows texts in lower case only
    stale_limit: int | None = None  # of its tokenizers, which does not hold where the position table is longer
    has_walk_types: bool = False  # it reads short and long texts in two ways, by an argument `walk_type`
    patch_budgets: tuple[int, ...] = ()  # that its image processor is called with, by the size of an image


FAMILIES = {
    # Long-CLIP is a CLIP with a longer table, and often a tokenizer with the limit of the original
    "CLIP": Family(model_types=("clip", "clipseg", "metaclip_2"), stale_limit=77),
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
}
OTHER = Family()


def find_family(owner: PreTrainedModel | ProcessorMixin) -> Family:
    """The family of a model or a processor."""
    model_type, name = getattr(getattr(owner, "config", owner), "model_type", None), type(owner).__name__
    for family in FAMILIES.values():
        if model_type in family.model_types or (family.processor_prefix and name.startswith(family.processor_prefix)):
            return family
    return OTHER


def get_text_kwargs(processor: ProcessorMixin) -> dict:
    """
    How a processor calls its tokenizer where nothing else is asked for (ALIGN, SigLIP 2). Up to transformers 5.22 its
    `valid_processor_kwargs` say so; where both do, these go before the attribute of the class. What the tokenizer was
    made with goes before both.
    """
    own = getattr(type(processor), "text_kwargs", None)
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("text_kwargs", {})
    kwargs = {**(own if isinstance(own, dict) else {}), **older}
    return {name: processor.tokenizer.init_kwargs.get(name, value) for name, value in kwargs.items()}


def get_padding(processor: ProcessorMixin) -> bool | str:
    """The `padding` that the model was trained with: to the full length (ALIGN, SigLIP), or to the longest text."""
    return find_family(processor).padding or get_text_kwargs(processor).get("padding", True)


def in_trained_case(processor: ProcessorMixin, texts: list[str]) -> list[str]:
    """Texts in lower case where the model knows no other, else as they are."""
    return [text.lower() for text in texts] if find_family(processor).is_lower_case else texts

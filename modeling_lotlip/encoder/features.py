# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The one place where a dual encoder is called, and what families of them were trained on."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from ..data.images import bound_aspect_ratio


@dataclass(frozen=True)
class Family:
    """How a family reads texts and images, where neither its tokenizers nor its processors say it."""

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


def is_token_wise(model: PreTrainedModel | PreTrainedConfig) -> bool:
    """Whether a model compares tokens, as its configuration says: see [`LotlipTokenWiseModel`]."""
    return getattr(model, "config", model).model_type == "lotlip_token_wise"


def get_text_kwargs(processor: ProcessorMixin) -> dict:
    """
    How a processor calls its tokenizer where nothing else is asked for (ALIGN, SigLIP 2). Up to transformers 5.22 its
    `valid_processor_kwargs` say so. What the tokenizer was made with goes before both.
    """
    newer = getattr(type(processor), "text_kwargs", None)
    older = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("text_kwargs", {})
    kwargs = {**(newer if isinstance(newer, dict) else {}), **older}
    return {name: processor.tokenizer.init_kwargs.get(name, value) for name, value in kwargs.items()}


def get_padding(processor: ProcessorMixin) -> bool | str:
    """The `padding` that the model was trained with: to the full length (ALIGN, SigLIP), or to the longest text."""
    return find_family(processor).padding or get_text_kwargs(processor).get("padding", True)


def in_trained_case(processor: ProcessorMixin, texts: list[str]) -> list[str]:
    """Texts in lower case where the model knows no other, else as they are."""
    return [text.lower() for text in texts] if find_family(processor).is_lower_case else texts


def text_lengths(model: PreTrainedModel) -> tuple[int, ...]:
    """The lengths that texts must be padded to, of a model that reads no others (FG-CLIP 2); else none."""
    config = model.config.get_text_config()
    return (config.max_position_embeddings, config.longtext_len) if find_family(model).has_walk_types else ()


def tower_features(model: PreTrainedModel, kind: str, inputs: dict[str, torch.Tensor], **options) -> torch.Tensor:
    """The features (rows, dim) of the `"text"` or `"image"` tower by PyTorch, whether it returns a tensor or more."""
    outputs = getattr(model, f"get_{kind}_features")(**inputs, **options)
    return outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output


def text_features(model: PreTrainedModel, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """
    Text embeddings (texts, dim), not normalised, by the model's backend unless they need gradients. Of the tokens, the
    `input_ids` (texts, length) are padded as [`get_padding`] says.
    """
    if (backend := getattr(model, "embedding_backend", None)) and not torch.is_grad_enabled():
        return backend.compute("text", tokens)
    if not find_family(model).has_walk_types:
        return tower_features(model, "text", tokens)
    # FG-CLIP 2 reads texts of up to 64 tokens in one way and longer ones in another, padded to one length each
    ids, lengths = tokens["input_ids"], text_lengths(model)
    if ids.shape[1] not in lengths:
        raise ValueError(f"The texts have {ids.shape[1]} tokens: the model reads {lengths[0]} or {lengths[1]}.")
    is_long = (ids != ids[:, -1:])[:, lengths[0] :].any(dim=1)  # what differs from the last is no padding
    embeds = None
    for walk_type, rows, end in (("short", ~is_long, lengths[0]), ("long", is_long, lengths[1])):
        if rows.any():
            part = {name: tensor[rows, :end] for name, tensor in tokens.items()}
            features = tower_features(model, "text", part, walk_type=walk_type)
            embeds = features.new_empty(len(ids), features.shape[1]) if embeds is None else embeds
            embeds[rows] = features
    return embeds


def image_features(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Image embeddings (images, dim), not normalised, from what [`prepare_images`] returns: see [`text_features`]."""
    if (backend := getattr(model, "embedding_backend", None)) and not torch.is_grad_enabled():
        return backend.compute("image", inputs)
    return tower_features(model, "image", inputs)


def prepare_images(processor: ProcessorMixin, images: list[Image.Image], **options) -> dict[str, torch.Tensor]:
    """
    What a dual encoder reads of upright RGB images, of which [`bound_aspect_ratio`] may leave the middle. The options
    are the image processor's, such as `do_resize=False`.
    """
    images = [bound_aspect_ratio(image, processor.image_processor) for image in images]
    budgets = find_family(processor).patch_budgets
    if not budgets:
        return dict(processor.image_processor(images, return_tensors="pt", **options))
    inputs = []
    for image in images:  # each with as many patches as its own size calls for, whatever images are beside it
        num_patches = (image.width // 16) * (image.height // 16)
        budget = next((budget for budget in budgets if num_patches <= budget), budgets[-1])
        inputs.append(processor.image_processor([image], max_num_patches=budget, return_tensors="pt"))
    return {name: pad_sequence([each[name][0] for each in inputs], batch_first=True) for name in inputs[0]}

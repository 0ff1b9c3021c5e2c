# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The one place where a dual encoder is called: what its processor makes of images, and what it returns."""

from collections.abc import Callable

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.utils import ModelOutput

from ..data.images import bound_aspect_ratio
from .families import find_family


def pooled(outputs: torch.Tensor | ModelOutput) -> torch.Tensor:
    """The embeddings (batch, dim) in what `get_text_features` or `get_image_features` returns, a tensor or more."""
    return outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output


def text_features(model: PreTrainedModel, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """
    Text embeddings (texts, dim), not normalised, by the model's backend.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        tokens (`dict[str, torch.Tensor]`):
            What its tokenizer returns: `input_ids` (texts, length), padded as [`get_padding`] says.
    """
    return on_backend(model, "text", torch_text_features, tokens)


def image_features(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Image embeddings (images, dim), not normalised, from what [`prepare_images`] returns, by the model's backend."""
    return on_backend(model, "image", torch_image_features, inputs)


def on_backend(
    model: PreTrainedModel,
    kind: str,
    compute: Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor],
    inputs: dict[str, torch.Tensor],
) -> torch.Tensor:
    """What `compute` gives: by the tower `kind` of the backend that `load_model` put beside the model, or itself."""
    backend = getattr(model, "embedding_backend", None)
    return compute(model, inputs) if backend is None else backend.compute(kind, compute, inputs)


def torch_text_features(model: PreTrainedModel, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """[`text_features`] by PyTorch."""
    if not find_family(model).has_walk_types:
        return pooled(model.get_text_features(**tokens))
    # FG-CLIP 2 reads texts of up to 64 tokens in one way and longer ones in another, padded to one length each
    ids, lengths = tokens["input_ids"], text_lengths(model)
    if ids.shape[1] not in lengths:
        raise ValueError(f"The texts have {ids.shape[1]} tokens: the model reads {lengths[0]} or {lengths[1]}.")
    is_long = (ids != ids[:, -1:])[:, lengths[0] :].any(dim=1)  # what differs from the last is no padding
    embeds = None
    for walk_type, rows, end in (("short", ~is_long, lengths[0]), ("long", is_long, lengths[1])):
        if rows.any():
            part = {name: tensor[rows, :end] for name, tensor in tokens.items()}
            features = pooled(model.get_text_features(**part, walk_type=walk_type))
            embeds = features.new_empty(len(ids), features.shape[1]) if embeds is None else embeds
            embeds[rows] = features
    return embeds


def text_lengths(model: PreTrainedModel) -> tuple[int, ...]:
    """The lengths that texts must be padded to, of a model that reads no others (FG-CLIP 2); else none."""
    config = model.config.get_text_config()
    return (config.max_position_embeddings, config.longtext_len) if find_family(model).has_walk_types else ()


def torch_image_features(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """[`image_features`] by PyTorch."""
    return pooled(model.get_image_features(**inputs))


def prepare_images(processor: ProcessorMixin, images: list[Image.Image], **options) -> dict[str, torch.Tensor]:
    """
    What a dual encoder reads of images.

    Args:
        processor (`ProcessorMixin`):
            The model's processor.
        images (`list[Image]`):
            Upright RGB images, of which [`bound_aspect_ratio`] may leave the middle.
        options:
            Of the image processor, such as `do_resize=False`.
    """
    images = [bound_aspect_ratio(image, processor.image_processor) for image in images]
    budgets = find_family(processor).patch_budgets
    if not budgets:
        return dict(processor.image_processor(images, return_tensors="pt", **options))
    # each image with the patches that its own size calls for, whatever images are beside it
    inputs = [
        processor.image_processor([image], max_num_patches=patch_budget(image, budgets), return_tensors="pt")
        for image in images
    ]
    length = max(each["pixel_values"].shape[1] for each in inputs)

    def padded(name: str) -> torch.Tensor:
        rows = [each[name] for each in inputs]
        if name != "spatial_shapes":
            rows = [torch.cat([row, row.new_zeros(1, length - row.shape[1], *row.shape[2:])], dim=1) for row in rows]
        return torch.cat(rows)

    return {name: padded(name) for name in inputs[0]}


def patch_budget(image: Image.Image, budgets: tuple[int, ...]) -> int:
    """The least of the numbers of patches of 16 pixels that an image does not exceed, or the largest."""
    patches = (image.width // 16) * (image.height // 16)
    return next((budget for budget in budgets if patches <= budget), budgets[-1])

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Operations and parameters of both towers: of the image tower for an image, of the text tower for a caption by its
length, with and without the corner tokens.

torch counts them on the model itself, which is run on the meta device: nothing is computed, and no weights are needed.
Counted are matrix products (a multiplication and an addition are two operations), also those of attention. Without the
corner tokens is how a text is embedded; with them is how a long caption is trained on.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import LotlipConfig, LotlipModel


def build_meta_model(config: LotlipConfig) -> LotlipModel:
    """A model without weights, on the meta device and in evaluation mode, whose attention torch can count."""
    with torch.device("meta"):
        model = LotlipModel(config)
    model.set_attn_implementation("eager")  # the counter does not know every fused kernel
    return model.eval()


def count_flops(run: Callable[[], object]) -> tuple[int, object]:
    """The floating-point operations of a call, and what it returned."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


@torch.no_grad()
def count_image_flops(model: LotlipModel) -> int:
    """
    Operations of the embedding of an image, by a model on the meta device. In training mode patch dropout saves some.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig
    >>> from modeling_lotlip.benchmarking.flops import build_meta_model, count_image_flops

    >>> model = build_meta_model(LotlipConfig(vision_config={"patch_dropout": 0.5}))
    >>> count_image_flops(model), count_image_flops(model.train())
    (35126120448, 17409576960)
    ```"""
    vision_config = model.config.vision_config
    size = model.vision_model.embeddings.image_size
    pixel_values = torch.zeros(1, vision_config.num_channels, *size, device="meta")
    return count_flops(lambda: model.get_image_features(pixel_values))[0]


@torch.no_grad()
def count_text_flops(model: LotlipModel, length: int, output_corner_tokens: bool = False) -> int:
    """
    Operations of the embedding of a caption.

    Args:
        model (`LotlipModel`):
            A model on the meta device.
        length (`int`):
            Tokens of the caption, with `[CLS]` and `[SEP]`, without corner tokens.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether the corner tokens are computed too. Without a corner attention mask they always are.

    Raises:
        `ValueError`: if the text tower has too few positions.

    Example:

    ```python
    >>> from modeling_lotlip.benchmarking.flops import build_meta_model, count_text_flops

    >>> from modeling_lotlip import LotlipConfig

    >>> model = build_meta_model(LotlipConfig())
    >>> count_text_flops(model, 126), count_text_flops(model, 126, output_corner_tokens=True)
    (21991145472, 22354329600)
    ```"""
    text_config = model.config.text_config
    limit = text_config.max_position_embeddings - text_config.num_corner_tokens
    if not 1 <= length <= limit:
        raise ValueError(f"`length` is {length}, but the text tower takes captions of 1 to {limit} tokens.")
    input_ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    return count_flops(lambda: model.get_text_features(input_ids, output_corner_tokens=output_corner_tokens))[0]


def count_parameters(*modules: torch.nn.Module) -> int:
    """The parameters of several modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def measure_towers(config: LotlipConfig, lengths: list[int]) -> dict:
    """
    Operations and parameters of both towers, each with its projection.

    Args:
        config (`LotlipConfig`):
            The model.
        lengths (`list[int]`):
            Lengths of captions in tokens.

    Returns:
        `dict`: under `image` the `flops` of an image and the `parameters` of the tower; under `text` its `parameters`,
        those of the corner tokens among them (`corner_parameters`), and in `captions` for each `length` the `flops`
        without corner tokens and the `flops_with_corner_tokens`.
    """
    model = build_meta_model(config)
    num_corner_tokens = config.text_config.num_corner_tokens
    captions = [
        {
            "length": length,
            "flops": count_text_flops(model, length),
            "flops_with_corner_tokens": count_text_flops(model, length, output_corner_tokens=True),
        }
        for length in lengths
    ]
    return {
        "image": {
            "image_size": list(model.vision_model.embeddings.image_size),
            "flops": count_image_flops(model),
            "parameters": count_parameters(model.vision_model, model.visual_projection),
        },
        "text": {
            "num_corner_tokens": num_corner_tokens,
            "parameters": count_parameters(model.text_model, model.text_projection),
            "corner_parameters": num_corner_tokens * config.text_config.hidden_size,
            "captions": captions,
        },
    }

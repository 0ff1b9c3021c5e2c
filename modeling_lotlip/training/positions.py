# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""More positions for a text tower than it was trained with."""

import torch
from torch import nn

from .. import LotlipModel


def stretch_positions(model: LotlipModel, max_position_embeddings: int, num_kept: int = 20) -> None:
    """
    Stretches the position table of a model's text tower in place, keeping the first positions, which are trained best,
    as they are ("knowledge-preserved stretching" of Zhang et al., 2024, https://arxiv.org/abs/2403.15378, section
    3.2). The others are interpolated linearly, and what is behind the last one extrapolated. Of LoTLIP the corner
    tokens are among the first positions.

    Args:
        model ([`LotlipModel`]):
            The model.
        max_position_embeddings (`int`):
            Positions of the new table, above those of the old one.
        num_kept (`int`, *optional*, defaults to 20):
            Positions that stay as they are.

    Raises:
        `ValueError`: if the table would not grow, or has hardly more positions than are kept.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.training.positions import stretch_positions

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> stretch_positions(model, 2028)
    >>> model.text_model.embeddings.position_embeddings.weight.shape
    torch.Size([2028, 768])
    ```"""
    embeddings = model.text_model.embeddings
    table = embeddings.position_embeddings.weight
    num_old = len(table)
    if max_position_embeddings <= num_old:
        raise ValueError(
            f"`max_position_embeddings={max_position_embeddings}` does not stretch a table of {num_old} positions: "
            "give more."
        )
    if num_old < num_kept + 2:
        raise ValueError(f"A table of {num_old} positions has too few to keep {num_kept} and interpolate the others.")
    factor = (num_old - num_kept) / (max_position_embeddings - num_kept)
    # where the new positions are in the old table
    places = num_kept + factor * torch.arange(max_position_embeddings - num_kept, dtype=torch.float64)
    left = places.floor().long().clamp(max=num_old - 2)
    weight = (places - left)[:, None].to(table.device)
    new = nn.Embedding(max_position_embeddings, table.shape[1], device=table.device, dtype=table.dtype)
    with torch.no_grad():
        new.weight[:num_kept] = table[:num_kept]
        new.weight[num_kept:] = ((1 - weight) * table[left].double() + weight * table[left + 1].double()).to(table)
    new.weight.requires_grad_(table.requires_grad)
    embeddings.position_embeddings = new
    position_ids = torch.arange(max_position_embeddings, device=embeddings.position_ids.device)
    embeddings.position_ids = nn.Buffer(position_ids.expand((1, -1)), persistent=False)
    model.config.text_config.max_position_embeddings = max_position_embeddings

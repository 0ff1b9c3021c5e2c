# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""More positions for a text tower than it was trained with."""

import torch
from transformers import PreTrainedModel

from ..embedding.models import count_positions


def stretch_positions(model: PreTrainedModel, max_length: int) -> None:
    """
    Stretches the position table of a dual encoder's text tower in place, for texts of `max_length` tokens, corners not
    counted. The first 20 positions, which are trained best, stay as they are, of a short table half of it; the others
    are interpolated linearly between these and the last one ("knowledge-preserved stretching" of Zhang et al., 2024,
    https://arxiv.org/abs/2403.15378, section 3.2). None is frozen: training them all keeps what short texts depend on.

    Raises:
        `ValueError`: if the model has no such table, or has that many positions already.
    """
    config, num_positions = model.config.get_text_config(), count_positions(model)
    names = ("position_embedding", "position_embeddings")
    tables = [name for name, _ in model.text_model.named_modules() if name.split(".")[-1] in names]
    if num_positions is None or len(tables) != 1:
        raise ValueError(f"`{type(model).__name__}` has no one table of text positions that can be stretched.")
    if max_length <= num_positions:
        raise ValueError(f"`max_length={max_length}` needs no more than the {num_positions} positions there are.")
    parent, _, name = tables[0].rpartition(".")
    embeddings = model.text_model.get_submodule(parent)
    weights = embeddings.state_dict()
    table = weights[f"{name}.weight"]
    num_old, num_new = len(table), len(table) + max_length - num_positions
    num_kept = min(20, num_old // 2)
    # where the new positions are in the old table
    places = torch.linspace(num_kept, num_old - 1, num_new - num_kept, dtype=torch.float64, device=table.device)
    left = places.long().clamp(max=num_old - 2)
    stretched = torch.lerp(table[left].double(), table[left + 1].double(), (places - left)[:, None]).to(table)
    weights[f"{name}.weight"] = torch.cat([table[:num_kept], stretched])
    config.max_position_embeddings = num_new
    longer = type(embeddings)(config).to(table)  # with all buffers of the new length
    longer.load_state_dict(weights)
    model.text_model.set_submodule(parent, longer.train(embeddings.training))

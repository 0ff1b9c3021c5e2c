# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of CLIP and LoTLIP."""

import torch
from torch.nn.functional import cross_entropy

from .pairs import Pairs, image_logits, in_blocks, text_logits


@in_blocks
def contrastive_loss(pairs: Pairs, all_pairs: Pairs, logit_scale: torch.Tensor) -> torch.Tensor:
    """
    Cross entropies of images among texts and of texts among images (Radford et al., 2021,
    https://arxiv.org/abs/2103.00020, figure 3), in each slot as LoTLIP has it (Wu et al., 2024,
    https://arxiv.org/abs/2410.05249, section 3). Tokens are compared by `late_interaction` (FILIP, Yao et al., 2021,
    https://arxiv.org/abs/2111.07783, section 3.1).

    Args:
        pairs (`Pairs`): The rows whose losses are computed.
        all_pairs (`Pairs`): All rows.
        logit_scale (`torch.Tensor` of shape `()`): Inverse temperature (no logarithm), above 0.

    Returns:
        `torch.Tensor` of shape `(slots, rows)`: of use where a text is present.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, contrastive_loss

    >>> pairs = Pairs.from_embeds(torch.eye(4), short=torch.eye(4))  # of one process
    >>> contrastive_loss(pairs, pairs, torch.tensor(2.0))
    tensor([[0.3408, 0.3408, 0.3408, 0.3408]])
    ```"""
    image_losses = _cross_entropies(image_logits(pairs, all_pairs, logit_scale), pairs)
    text_losses = _cross_entropies(text_logits(pairs, all_pairs, logit_scale), pairs)
    return 0.5 * image_losses + 0.5 * text_losses


def _cross_entropies(logits: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """Of logits (slots, rows, all rows), whose targets are the rows themselves: (slots, rows)."""
    targets = pairs.indices.repeat(len(logits))
    return cross_entropy(logits.flatten(0, 1), targets, reduction="none").unflatten(0, logits.shape[:2])

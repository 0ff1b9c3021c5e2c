# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The sigmoid loss of SigLIP."""

import torch
from torch.nn.functional import softplus

from .pairs import Pairs, image_logits, in_blocks


@in_blocks
def sigmoid_loss(
    pairs: Pairs,
    all_pairs: Pairs,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
) -> torch.Tensor:
    """
    Classifies every pair of an image and a text by itself, as one that belongs together or not (Zhai et al., 2023,
    https://arxiv.org/abs/2303.15343, equation 1). The loss of a row is the sum over all texts of its image.

    Args:
        pairs (`Pairs`): The rows whose losses are computed.
        all_pairs (`Pairs`): All rows.
        logit_scale (`torch.Tensor` of shape `()`): What similarities are multiplied by.
        logit_bias (`torch.Tensor` of shape `()`): What is added to them.

    Returns:
        `torch.Tensor` of shape `(slots, rows)`: of use where a text is present.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, sigmoid_loss

    >>> pairs = Pairs.from_embeds(torch.eye(4), short=torch.eye(4))
    >>> sigmoid_loss(pairs, pairs, torch.tensor(10.0), torch.tensor(-5.0)).mean().round(decimals=4)
    tensor(0.0269)
    ```"""
    logits = image_logits(pairs, all_pairs, logit_scale) + logit_bias
    positive_logits = logits.take_along_dim(pairs.indices[None, :, None], dim=2)[:, :, 0]
    # softplus(x) is -log sigmoid(-x), and softplus(x) - x is -log sigmoid(x)
    return softplus(logits).sum(dim=2) - positive_logits

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of CLIP and LoTLIP."""

import torch

from .pairs import Pairs, Similarities, dot_products, image_logits, row_by_row, text_logits


def contrastive_loss(
    own: Pairs, everyone: Pairs, logit_scale: torch.Tensor, similarities: Similarities = dot_products
) -> torch.Tensor:
    """
    Cross entropies of images among texts and of texts among images (Radford et al., 2021,
    https://arxiv.org/abs/2103.00020, figure 3), in each slot as LoTLIP has it (Wu et al., 2024,
    https://arxiv.org/abs/2410.05249, section 3).

    Args:
        own (`Pairs`):
            The rows whose losses are computed.
        everyone (`Pairs`):
            All rows, which they are compared with.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0.
        similarities (`Callable`, *optional*):
            As for `image_logits`.

    Returns:
        `torch.Tensor` of shape `(slots, own rows)`: of use where a text is present.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, contrastive_loss

    >>> pairs = Pairs(torch.eye(4), torch.eye(4)[:, None])  # in one process own rows are all there are
    >>> contrastive_loss(pairs, pairs, torch.tensor(2.0))
    tensor([[0.3408, 0.3408, 0.3408, 0.3408]])
    ```"""

    def of_rows(rows: Pairs, everyone: Pairs, logit_scale: torch.Tensor) -> torch.Tensor:
        of_images, of_pairs = image_logits(rows, everyone, logit_scale, similarities)
        image_losses = of_images.logsumexp(dim=2) - of_pairs
        of_texts, of_pairs = text_logits(rows, everyone, logit_scale, similarities)
        return 0.5 * image_losses + 0.5 * (of_texts.logsumexp(dim=2) - of_pairs)

    return row_by_row(of_rows, own, everyone, logit_scale)

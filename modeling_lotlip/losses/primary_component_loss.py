# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of Long-CLIP: short captions are compared with what is coarse in images."""

from dataclasses import replace

import torch

from ..utils.integers import check_integer
from .contrastive_loss import contrastive_loss
from .pairs import Pairs


def primary_component_loss(
    pairs: Pairs, all_pairs: Pairs, logit_scale: torch.Tensor, num_components: int = 32
) -> torch.Tensor:
    """
    Computes "primary component matching" (Zhang et al., 2024, https://arxiv.org/abs/2403.15378, section 3.3): the slot
    of short captions is contrasted with image embeddings reduced to the primary components of all rows, which
    are constants; the others with the embeddings as they are. The released code takes the components of each process
    by itself, and smooths the labels.

    Args:
        pairs (`Pairs`): The rows whose losses are computed.
        all_pairs (`Pairs`): All rows.
        logit_scale (`torch.Tensor` of shape `()`): Inverse temperature (no logarithm), above 0.
        num_components (`int`, *optional*, defaults to 32):
            Components that are kept. That many images or fewer are not reduced.

    Returns:
        `torch.Tensor` of shape `(slots, rows)`: of use where a text is present.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, primary_component_loss

    >>> images = torch.tensor([[3.0, 0.0, 0.1], [3.0, 1.0, 0.0], [-2.0, 1.0, 0.1], [1.0, 1.0, 1.0]])
    >>> images = torch.nn.functional.normalize(images, dim=-1)
    >>> pairs = Pairs.from_embeds(images, short=images, long=images[:, None])
    >>> [round(primary_component_loss(pairs, pairs, torch.tensor(5.0), n).mean().item(), 4) for n in (3, 2, 1)]
    [0.422, 0.4436, 0.6056]
    ```"""
    check_integer("num_components", num_components, 1)
    images = all_pairs.images.detach()[all_pairs.present.any(dim=1)]
    has_all_components = num_components >= len(images) - 1
    if has_all_components or not pairs.slots.has_short:
        return contrastive_loss(pairs, all_pairs, logit_scale)
    mean = images.mean(dim=0)  # not finite if some image is not, and so is then the loss
    centered = (images - mean).nan_to_num(0, 0, 0)
    basis = torch.linalg.eigh(centered.t() @ centered).eigenvectors[:, -num_components:]

    def reduce(pairs: Pairs) -> Pairs:
        return replace(pairs.select_short(), images=mean + (pairs.images - mean) @ basis @ basis.t())

    losses = [contrastive_loss(reduce(pairs), reduce(all_pairs), logit_scale)]
    if pairs.slots.num_long > 0:
        losses.append(contrastive_loss(pairs.select_long(), all_pairs.select_long(), logit_scale))
    return torch.cat(losses)

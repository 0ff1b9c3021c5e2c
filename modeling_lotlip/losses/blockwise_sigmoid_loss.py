# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The sigmoid loss of SigLIP, without the similarity matrix and shared out over processes."""

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from .driver import Block, Terms, blockwise_loss


class SigmoidTerms(Terms):
    """Of every image and every text the answer yes or no: do they belong together?"""

    def text_terms(self, logits: list[torch.Tensor], block: Block) -> torch.Tensor:
        answers = logits[0].neg_()
        block.diagonal(answers).neg_()
        return logsigmoid(answers).sum(dim=1)[None]

    def pair_losses(self, image_terms: None, text_terms: torch.Tensor) -> torch.Tensor:
        return -text_terms[0]

    def gradients(self, logits, block, weights, image_terms, text_terms) -> list[torch.Tensor]:
        block.diagonal(logits[0]).neg_()
        gradient = logits[0].sigmoid_().mul_(weights[:, None, block.texts])
        block.diagonal(gradient).neg_()
        return [gradient]


def blockwise_sigmoid_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    present: torch.Tensor | None = None,
    short_groups: torch.Tensor | None = None,
    block_size: int = 2**26,
    gather: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach,
    process_index: int = 0,
    return_slot_losses: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    The loss of SigLIP (Zhai et al., 2023, https://arxiv.org/abs/2303.15343, equation 1): whether an image and a text
    belong together is asked of every pair by itself. The sum over all pairs is divided by the number of images.

    Slots, absent captions, groups and several processes are as in [`blockwise_contrastive_loss`].

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalised image features.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalised text features.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0, the same on every process.
        logit_bias (`torch.Tensor` of shape `()`):
            What is added to the scaled similarities, the same on every process.
        present (`torch.Tensor` of shape `(batch_size, slots)`, *optional*):
            False where an image lacks the caption of that slot.
        short_groups (`torch.Tensor` of shape `(batch_size,)`, *optional*):
            Integers. In the first slot images of the same group are no negatives of each other.
        block_size (`int`, *optional*, defaults to 2**26):
            The most similarities of a block.
        gather (`Callable[[torch.Tensor], torch.Tensor]`, *optional*):
            Gives the rows of all processes from the own ones. By default there is one process.
        process_index (`int`, *optional*, defaults to 0):
            The place of this process in their order.
        return_slot_losses (`bool`, *optional*, defaults to `False`):
            Whether to return the loss of each slot too, of shape `(slots,)` and without gradient.

    Returns:
        `torch.Tensor` of shape `()`: the mean over the slots that have at least two pairs, in float32; 0 if none has.
        With `return_slot_losses` a pair of it and the losses of the slots.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import blockwise_sigmoid_loss

    >>> image_embeds = torch.eye(4)
    >>> text_embeds = image_embeds[:, None]
    >>> round(blockwise_sigmoid_loss(image_embeds, text_embeds, torch.tensor(10.0), torch.tensor(-5.0)).item(), 4)
    0.0269
    ```"""
    return blockwise_loss(
        SigmoidTerms(),
        image_embeds,
        text_embeds,
        logit_scale,
        logit_bias,
        present=present,
        short_groups=short_groups,
        block_size=block_size,
        gather=gather,
        process_index=process_index,
        return_slot_losses=return_slot_losses,
    )

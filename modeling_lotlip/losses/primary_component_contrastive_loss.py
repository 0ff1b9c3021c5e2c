# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of Long-CLIP: short captions are compared with what is coarse in images."""

from collections.abc import Callable

import torch

from .blockwise_contrastive_loss import ContrastiveTerms
from .driver import blockwise_loss


def keep_primary_components(
    embeds: torch.Tensor,
    num_components: int,
    present: torch.Tensor,
    gather: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach,
) -> torch.Tensor:
    """
    Embeddings without what is beside their primary components, which are those of the rows of all processes. The
    components and the mean count as constants: their gradients are left out.

    Args:
        embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Embeddings, in float32.
        num_components (`int`):
            How many components are kept.
        present (`torch.Tensor` of shape `(batch_size,)`):
            The rows that the components are made from.
        gather (`Callable[[torch.Tensor], torch.Tensor]`, *optional*):
            Gives the rows of all processes from the own ones. By default there is one process.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses.primary_component_contrastive_loss import keep_primary_components

    >>> embeds = torch.tensor([[1.0, 0.0, 0.1], [-1.0, 0.0, 0.1], [0.0, 0.2, 0.1], [0.0, -0.2, 0.1]])
    >>> keep_primary_components(embeds, 1, torch.ones(4, dtype=torch.bool)).round(decimals=4).abs()
    tensor([[1.0000, 0.0000, 0.1000],
            [1.0000, 0.0000, 0.1000],
            [0.0000, 0.0000, 0.1000],
            [0.0000, 0.0000, 0.1000]])
    ```"""
    rows = gather(embeds.detach())[gather(present)]
    if num_components >= len(rows) - 1:  # these are all that there are
        return embeds
    mean = rows.mean(dim=0)  # not finite if some row is not, and so is then all that is returned
    centered = (rows - mean).nan_to_num(0, 0, 0)
    components = torch.linalg.eigh(centered.t() @ centered).eigenvectors[:, -num_components:]
    return mean + (embeds - mean) @ components @ components.t()


class PrimaryComponentTerms(ContrastiveTerms):
    """Images (images, 2, dim) have a coarse embedding, for the first slot, and a whole one, for the others."""

    def similarities(self, images: torch.Tensor, texts: torch.Tensor) -> list[torch.Tensor]:
        coarse, whole = images.unbind(dim=1)
        short, long = texts[:, :1].transpose(0, 1), texts[:, 1:].transpose(0, 1)
        return [torch.cat([torch.matmul(coarse, short.mT), torch.matmul(whole, long.mT)])]


def primary_component_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    present: torch.Tensor | None = None,
    short_groups: torch.Tensor | None = None,
    num_components: int = 32,
    gather: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach,
    process_index: int = 0,
    return_slot_losses: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    The loss of Long-CLIP (Zhang et al., 2024, https://arxiv.org/abs/2403.15378, section 3.3, "primary component
    matching"): the first slot, that of short captions, is contrasted with image features reduced to the primary
    components of the batch, the others with the features as they are.

    The components are those of the global batch, whatever the number of processes, and no gradient goes through them;
    the released code takes those of each process by itself, and smooths the labels.

    Slots, absent captions, groups and several processes are as in [`blockwise_contrastive_loss`].

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalised image features.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalised text features.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0, the same on every process.
        present (`torch.Tensor` of shape `(batch_size, slots)`, *optional*):
            False where an image lacks the caption of that slot.
        short_groups (`torch.Tensor` of shape `(batch_size,)`, *optional*):
            Integers. In the first slot images of the same group are no negatives of each other.
        num_components (`int`, *optional*, defaults to 32):
            Components that are kept. So many images or fewer are not reduced.
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
    >>> from modeling_lotlip.losses import primary_component_contrastive_loss

    >>> image_embeds = torch.tensor([[3.0, 0.0, 0.1], [3.0, 1.0, 0.0], [-2.0, 1.0, 0.1], [1.0, 1.0, 1.0]])
    >>> image_embeds = torch.nn.functional.normalize(image_embeds, dim=-1)
    >>> text_embeds = image_embeds[:, None].expand(4, 2, 3)
    >>> inputs = (image_embeds, text_embeds, torch.tensor(5.0))
    >>> [round(primary_component_contrastive_loss(*inputs, num_components=n).item(), 4) for n in (3, 2, 1)]
    [0.422, 0.4436, 0.6056]
    ```"""
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)
    with torch.autocast(image_embeds.device.type, enabled=False):
        image_embeds = image_embeds.float()
        coarse_embeds = keep_primary_components(image_embeds, num_components, present.any(dim=1), gather)
    return blockwise_loss(
        PrimaryComponentTerms(),
        torch.stack([coarse_embeds, image_embeds], dim=1),
        text_embeds,
        logit_scale,
        present=present,
        short_groups=short_groups,
        gather=gather,
        process_index=process_index,
        return_slot_losses=return_slot_losses,
    )

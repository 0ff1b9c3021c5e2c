# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of FILIP: images and texts compared token by token."""

from collections.abc import Callable

import torch
from torch.nn.functional import pad

from ..modeling_variants_lotlip import token_similarities
from .driver import Block, Terms, blockwise_loss, softmax_gradient


class TokenWiseTerms(Terms):
    """Cross entropies of images among texts, and of texts among images by other similarities than those."""

    def similarities(self, images: torch.Tensor, texts: torch.Tensor) -> list[torch.Tensor]:
        flat = texts.flatten(0, 1)
        both = token_similarities(images, flat, (flat != 0).any(dim=-1))
        return [values.unflatten(1, texts.shape[:2]).movedim(2, 0) for values in both]

    def image_terms(self, logits: list[torch.Tensor], block: Block) -> torch.Tensor:
        return torch.stack([logits[0].logsumexp(dim=2), block.diagonal(logits[0])])

    def text_terms(self, logits: list[torch.Tensor], block: Block) -> torch.Tensor:
        return torch.stack([logits[1].logsumexp(dim=1), block.diagonal(logits[1])])

    def pair_losses(self, image_terms: torch.Tensor, text_terms: torch.Tensor) -> torch.Tensor:
        (image_sums, image_logits), (text_sums, text_logits) = image_terms, text_terms
        return 0.5 * (image_sums - image_logits) + 0.5 * (text_sums - text_logits)

    def gradients(self, logits, block, weights, image_terms, text_terms) -> list[torch.Tensor]:
        of_images = softmax_gradient(logits[0], block, weights, image_terms[0], of_images=True)
        return [of_images, softmax_gradient(logits[1], block, weights, text_terms[0], of_images=False)]


def token_wise_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    present: torch.Tensor | None = None,
    short_groups: torch.Tensor | None = None,
    block_size: int = 2**26,
    gather: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach,
    process_index: int = 0,
    return_slot_losses: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    The loss of FILIP (Yao et al., 2021, https://arxiv.org/abs/2111.07783, section 3.1): images are classified among
    texts by the similarity of image to text, texts among images by that of text to image: see `token_similarities`.

    Slots, groups and several processes are as in [`blockwise_contrastive_loss`]. All tokens of all
    processes are exchanged.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, image_length, dim)`):
            Normalised features of all tokens of images.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, text_length, dim)`):
            Normalised features of all tokens of texts. The length may be another one on each process.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0, the same on every process.
        present (`torch.Tensor` of shape `(batch_size, slots, text_length)`, *optional*):
            False where there is no token. A text without any is absent.
        short_groups (`torch.Tensor` of shape `(batch_size,)`, *optional*):
            Integers. In the first slot images of the same group are no negatives of each other.
        block_size (`int`, *optional*, defaults to 2**26):
            The most similarities of tokens in a block, which has an image or a text of all slots at least.
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
    >>> from modeling_lotlip.losses import token_wise_contrastive_loss

    >>> image_embeds = torch.eye(4)[:, None].expand(4, 3, 4)  # three tokens of an image
    >>> text_embeds = torch.eye(4)[:, None, None].expand(4, 1, 2, 4)  # one slot, two tokens of a text
    >>> round(token_wise_contrastive_loss(image_embeds, text_embeds, torch.tensor(2.0)).item(), 4)
    0.3408
    ```"""
    if present is not None:
        text_embeds = text_embeds.masked_fill(~present[..., None], 0)
    length = torch.tensor([text_embeds.shape[2]], device=text_embeds.device)
    text_embeds = pad(text_embeds, (0, 0, 0, int(gather(length).max()) - text_embeds.shape[2]))
    return blockwise_loss(
        TokenWiseTerms(),
        image_embeds,
        text_embeds,
        logit_scale,
        present=(text_embeds != 0).any(dim=-1).any(dim=-1),
        short_groups=short_groups,
        block_size=block_size,
        gather=gather,
        process_index=process_index,
        return_slot_losses=return_slot_losses,
    )

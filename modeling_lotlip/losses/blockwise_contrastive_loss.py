# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of LoTLIP, without the similarity matrix and shared out over processes."""

from collections.abc import Callable

import torch
from torch.nn.functional import pad

from .driver import Block, Terms, blockwise_loss, softmax_gradient


class ContrastiveTerms(Terms):
    """
    Cross entropies of images among texts and of texts among images: of the logits they need no more than the logarithm
    of the sum of exponentials of each image's and each text's, and those of the pairs.
    """

    def image_terms(self, logits: list[torch.Tensor], block: Block) -> torch.Tensor:
        return logits[0].logsumexp(dim=2)[None]

    def text_terms(self, logits: list[torch.Tensor], block: Block) -> torch.Tensor:
        return torch.stack([logits[0].logsumexp(dim=1), block.diagonal(logits[0])])

    def pair_losses(self, image_terms: torch.Tensor, text_terms: torch.Tensor) -> torch.Tensor:
        (image_sums,), (text_sums, pair_logits) = image_terms, text_terms
        return 0.5 * (image_sums - pair_logits) + 0.5 * (text_sums - pair_logits)

    def gradients(self, logits, block, weights, image_terms, text_terms) -> list[torch.Tensor]:
        gradient = softmax_gradient(logits[0], block, weights, image_terms[0], of_images=True)
        return [gradient.add_(softmax_gradient(logits[0], block, weights, text_terms[0], of_images=False))]


def blockwise_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    present: torch.Tensor | None = None,
    short_groups: torch.Tensor | None = None,
    num_hard_negatives: int = 0,
    block_size: int = 2**26,
    gather: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach,
    process_index: int = 0,
    return_slot_losses: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    The loss of LoTLIP (Wu et al., 2024, https://arxiv.org/abs/2410.05249, section 3), equal in value and gradients to
    `image_text_contrastive_loss`, with memory that grows with the batch, not with its square.

    With several processes every one gives its own rows, as many as the others do, and has the loss of all rows, with
    the gradients of that for its own: embeddings are exchanged, and sums of exponentials, but no gradients of
    embeddings. The work is shared out.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalised image features.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalised text features: the short caption's `[CLS]`, then `[CLS]` and the corner tokens of long captions.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0, the same on every process.
        present (`torch.Tensor` of shape `(batch_size, slots)`, *optional*):
            False where an image lacks the caption of that slot: it is then neither positive nor negative there.
        short_groups (`torch.Tensor` of shape `(batch_size,)`, *optional*):
            Integers. In the first slot images of the same group are no negatives of each other, as when they have the
            same short caption.
        num_hard_negatives (`int`, *optional*, defaults to 0):
            Behind the slots of short and long captions, those of the long ones come again so many times: as texts that
            are false of their own image, which is classified among them too (Yuksekgonul et al., 2023,
            https://arxiv.org/abs/2210.01936, who let all images be). They are positives of nothing, and an embedding
            of zeros is none.
        block_size (`int`, *optional*, defaults to 2**26):
            The most similarities of a block, 4 bytes each, of which some copies are needed. A block has a row of all
            slots at least.
        gather (`Callable[[torch.Tensor], torch.Tensor]`, *optional*):
            Gives the rows of all processes, in their order, from the own ones, such as `Accelerator.gather`. By
            default there is one process.
        process_index (`int`, *optional*, defaults to 0):
            The place of this process in that order.
        return_slot_losses (`bool`, *optional*, defaults to `False`):
            Whether to return the loss of each slot too, of shape `(slots,)` and without gradient: not a number where
            the slot has less than two pairs.

    Returns:
        `torch.Tensor` of shape `()`: the mean over the slots that have at least two pairs, in float32; 0 if none has.
        With `return_slot_losses` a pair of it and the losses of the slots.

    Raises:
        `ValueError`: if there are not as many slots as hard negatives would give.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import blockwise_contrastive_loss

    >>> image_embeds = torch.eye(4)
    >>> text_embeds = image_embeds[:, None].expand(4, 3, 4)
    >>> round(blockwise_contrastive_loss(image_embeds, text_embeds, torch.tensor(2.0), block_size=24).item(), 4)
    0.3408
    ```"""
    hard_negatives = None
    if num_hard_negatives > 0:
        num_slots, rest = divmod(text_embeds.shape[1] - 1, 1 + num_hard_negatives)
        if rest > 0:
            raise ValueError(
                f"`num_hard_negatives` is {num_hard_negatives}, but `text_embeds` has {text_embeds.shape[1]} slots: "
                f"the {text_embeds.shape[1] - 1} behind the first must divide by {1 + num_hard_negatives}."
            )
        text_embeds, false_embeds = text_embeds.split([1 + num_slots, num_hard_negatives * num_slots], dim=1)
        # the first slot has none
        hard_negatives = pad(false_embeds.unflatten(1, (num_hard_negatives, num_slots)), (0, 0, 1, 0))
        present = present[:, : 1 + num_slots] if present is not None else None
    return blockwise_loss(
        ContrastiveTerms(),
        image_embeds,
        text_embeds,
        logit_scale,
        hard_negatives=hard_negatives,
        present=present,
        short_groups=short_groups,
        block_size=block_size,
        gather=gather,
        process_index=process_index,
        return_slot_losses=return_slot_losses,
    )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
The contrastive loss of LoTLIP without the similarity matrix, in blocks that are made again in the backward pass, and
shared out over processes: each compares its own images with all texts, and its own texts with all images.
"""

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable

from .comparison import Comparison, gather_rows, losses_of_slots, weigh_pairs


class _SoftmaxComparison(Comparison):
    """The rows of a comparison as logits of softmaxes."""

    def log_sums(self) -> torch.Tensor:
        """Logarithms of the sums of exponentials of each own row, (slots, own rows)."""
        return torch.cat([logits.logsumexp(dim=2) for _, logits in self.blocks()], dim=1)

    def gradients(self, own_sums, other_sums, weights) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The gradients of the own embeddings and of the scale, from the logarithms of sums of the own rows and of all
        rows of the other kind, and the weight of each pair of all processes.
        """
        own_weights = weights[:, self.first_row :][:, : self.own.shape[1]]
        own_gradient, scale_gradient = torch.zeros_like(self.own), torch.zeros_like(self.scale)
        for rows, logits in self.blocks():
            from_own = (logits - own_sums[:, rows, None]).exp() * own_weights[:, rows, None]
            from_others = (logits - other_sums[:, None, :]).exp() * weights[:, None, :]
            logits_gradient = (from_own + from_others) * 0.5
            logits_gradient.diagonal(self.first_row + rows.start, dim1=1, dim2=2).sub_(own_weights[:, rows])
            scale_gradient += (logits_gradient * logits).sum() / self.scale
            gradient = self.scale * torch.matmul(logits_gradient, self.others)
            own_gradient[:, rows] = gradient if len(self.own) > 1 else gradient.sum(dim=0, keepdim=True)
        return own_gradient, scale_gradient


class _BlockwiseContrastiveLoss(torch.autograd.Function):
    """
    The cross entropies need no more of the matrix than the logarithm of the sum of exponentials of each image's and
    each text's row. These are all that is exchanged beside the embeddings: with them, a process has the gradients of
    its own rows.
    """

    @staticmethod
    def _comparisons(images, texts, all_images, all_texts, present, groups, scale, first_row, block_size):
        """Of the own images with all texts, and of the own texts with all images."""
        return (
            _SoftmaxComparison(images, all_texts, scale, present, groups, first_row, block_size),
            _SoftmaxComparison(texts, all_images, scale, present, groups, first_row, block_size),
        )

    @staticmethod
    def forward(ctx, images, texts, scale, present, groups, gather, first_row, block_size):
        images, texts, *_, present, _ = tensors = gather_rows(images, texts, present, groups, gather)
        tensors += (scale,)
        of_images, of_texts = _BlockwiseContrastiveLoss._comparisons(*tensors, first_row, block_size)
        own_logits = scale * (texts * images).sum(dim=2)
        terms = torch.stack([of_images.log_sums(), of_texts.log_sums(), own_logits])
        image_sums, text_sums, own_logits = gather(terms.transpose(0, 2).contiguous()).transpose(0, 2)

        weights = weigh_pairs(present)
        ctx.save_for_backward(*tensors, image_sums, text_sums, weights)
        ctx.gather, ctx.first_row, ctx.block_size = gather, first_row, block_size
        # halved before they are added: the sum of two least numbers is infinite
        parts = (weights * (0.5 * image_sums + 0.5 * text_sums - own_logits)).sum(dim=1)
        slot_losses = losses_of_slots(parts, present)
        ctx.mark_non_differentiable(slot_losses)
        return parts.sum(), slot_losses

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        *tensors, image_sums, text_sums, weights = ctx.saved_tensors
        of_images, of_texts = _BlockwiseContrastiveLoss._comparisons(*tensors, ctx.first_row, ctx.block_size)
        own = slice(ctx.first_row, ctx.first_row + tensors[0].shape[1])
        image_gradient, scale_gradient = of_images.gradients(image_sums[:, own], text_sums, weights)
        text_gradient, _ = of_texts.gradients(text_sums[:, own], image_sums, weights)
        scale_gradient = ctx.gather(scale_gradient[None]).sum()  # the images of all processes are all pairs
        gradients = (image_gradient[0], text_gradient.transpose(0, 1), scale_gradient)
        return *(gradient * one for one in gradients), None, None, None, None, None


def blockwise_contrastive_loss(
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

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import blockwise_contrastive_loss

    >>> image_embeds = torch.eye(4)
    >>> text_embeds = image_embeds[:, None].expand(4, 3, 4)
    >>> round(blockwise_contrastive_loss(image_embeds, text_embeds, torch.tensor(2.0), block_size=24).item(), 4)
    0.3408
    ```"""
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)
    with torch.autocast(image_embeds.device.type, enabled=False):
        loss, slot_losses = _BlockwiseContrastiveLoss.apply(
            image_embeds.float(),
            text_embeds.float(),
            logit_scale.float(),
            present,
            short_groups,
            gather,
            process_index * len(image_embeds),
            block_size,
        )
    return (loss, slot_losses) if return_slot_losses else loss

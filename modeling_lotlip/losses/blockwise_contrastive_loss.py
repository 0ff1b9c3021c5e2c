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
"""The contrastive loss of LoTLIP without the similarity matrix, in blocks that are made again in the backward pass."""

import torch
from torch.autograd.function import once_differentiable


class _BlockwiseContrastiveLoss(torch.autograd.Function):
    """
    The cross entropies need no more of the matrix than the logarithm of the sum of exponentials of each row and each
    column. These are gathered block by block, and kept for the backward pass, which makes the blocks again.
    """

    @staticmethod
    def _blocks(texts, images, scale, pairs, groups, num_rows):
        """Yields some rows of all slots, (slots, rows, batch_size); what is not compared is far below the rest."""
        own = torch.arange(images.shape[0], device=images.device)
        for start in range(0, images.shape[0], num_rows):
            rows = slice(start, start + num_rows)
            logits = scale * torch.matmul(texts[:, rows], images.t())
            compared = pairs[:, rows, None] & pairs[:, None, :]
            if groups is not None:
                compared[0] &= (groups[rows, None] != groups) | (own[rows, None] == own)
            yield rows, logits.masked_fill_(~compared, torch.finfo(logits.dtype).min)

    @staticmethod
    def forward(ctx, images, texts, scale, pairs, groups, num_rows):
        row_sums = torch.empty_like(texts[..., 0])  # logarithms of sums of exponentials, shape = (slots, batch_size)
        column_sums = torch.full_like(row_sums, torch.finfo(row_sums.dtype).min)
        for rows, logits in _BlockwiseContrastiveLoss._blocks(texts, images, scale, pairs, groups, num_rows):
            row_sums[:, rows] = logits.logsumexp(dim=2)
            column_sums = torch.logaddexp(column_sums, logits.logsumexp(dim=1))

        counts = pairs.sum(dim=1)
        is_counted = counts > 1
        # of each pair in the mean over its slot's pairs, and over the slots with at least two
        num_counted = is_counted.sum()
        weights = pairs / (counts.clamp(min=1) * num_counted.clamp(min=1))[:, None] * is_counted[:, None]
        own_logits = scale * (texts * images).sum(dim=2)
        ctx.save_for_backward(images, texts, scale, pairs, groups, row_sums, column_sums, weights)
        ctx.num_rows = num_rows
        # halved before they are added: the sum of two least numbers is infinite
        parts = (weights * (0.5 * row_sums + 0.5 * column_sums - own_logits)).sum(dim=1)
        slot_losses = (parts * num_counted).masked_fill(~is_counted, torch.nan)
        ctx.mark_non_differentiable(slot_losses)
        return parts.sum(), slot_losses

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        images, texts, scale, pairs, groups, row_sums, column_sums, weights = ctx.saved_tensors
        image_gradient, text_gradient = torch.zeros_like(images), torch.empty_like(texts)
        scale_gradient = torch.zeros_like(scale)
        for rows, logits in _BlockwiseContrastiveLoss._blocks(texts, images, scale, pairs, groups, ctx.num_rows):
            from_rows = (logits - row_sums[:, rows, None]).exp() * weights[:, rows, None]
            from_columns = (logits - column_sums[:, None, :]).exp() * weights[:, None, :]
            logits_gradient = (from_rows + from_columns) * (0.5 * gradient)
            logits_gradient.diagonal(rows.start, dim1=1, dim2=2).sub_(weights[:, rows] * gradient)
            scale_gradient += (logits_gradient * logits).sum() / scale
            text_gradient[:, rows] = scale * torch.matmul(logits_gradient, images)
            image_gradient += scale * torch.matmul(logits_gradient.transpose(1, 2), texts[:, rows]).sum(dim=0)
        return image_gradient, text_gradient, scale_gradient, None, None, None


def blockwise_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    present: torch.Tensor | None = None,
    short_groups: torch.Tensor | None = None,
    block_size: int = 4096,
    return_slot_losses: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    The loss of LoTLIP (Wu et al., 2024, https://arxiv.org/abs/2410.05249, section 3), equal in value and gradients to
    `image_text_contrastive_loss`, with memory that grows with the batch, not with its square.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalised image features.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalised text features: the short caption's `[CLS]`, then `[CLS]` and the corner tokens of long captions.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0.
        present (`torch.Tensor` of shape `(batch_size, slots)`, *optional*):
            False where an image lacks the caption of that slot: it is then neither positive nor negative there.
        short_groups (`torch.Tensor` of shape `(batch_size,)`, *optional*):
            Integers. In the first slot images of the same group are no negatives of each other, as when they have the
            same short caption.
        block_size (`int`, *optional*, defaults to 4096):
            The most rows, of all slots together, of a block.
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
    >>> round(blockwise_contrastive_loss(image_embeds, text_embeds, torch.tensor(2.0), block_size=2).item(), 4)
    0.3408
    ```"""
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)
    with torch.autocast(image_embeds.device.type, enabled=False):
        loss, slot_losses = _BlockwiseContrastiveLoss.apply(
            image_embeds.float(),
            text_embeds.transpose(0, 1).float(),
            logit_scale.float(),
            present.t(),
            short_groups,
            max(1, block_size // text_embeds.shape[1]),
        )
    return (loss, slot_losses) if return_slot_losses else loss

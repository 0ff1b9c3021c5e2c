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
"""The sigmoid loss of SigLIP, in blocks and shared out over processes as `blockwise_contrastive_loss` is."""

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from .comparison import Comparison, gather_rows, losses_of_slots, weigh_pairs


class _SigmoidComparison(Comparison):
    """The rows of a comparison as logits of yes or no: own row and other row belong together, or do not."""

    def _signed(self, bias):
        """Yields rows and their logits, negated where row and column do not belong together."""
        for rows, logits in self.blocks():
            logits = logits.add_(bias).neg_()
            logits.diagonal(self.first_row + rows.start, dim1=1, dim2=2).neg_()
            yield rows, logits

    def losses(self, bias, own_weights) -> torch.Tensor:
        """The weighted losses of the own rows of each slot, (slots,)."""
        losses = torch.zeros_like(own_weights[:, 0])
        for rows, logits in self._signed(bias):
            losses -= (logsigmoid(logits).sum(dim=2) * own_weights[:, rows]).sum(dim=1)
        return losses

    def gradients(self, bias, own_weights) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gradients of the own embeddings, and the own rows' parts in those of scale and bias."""
        own_gradient = torch.zeros_like(self.own)
        scale_gradient, bias_gradient = torch.zeros_like(self.scale), torch.zeros_like(bias)
        for rows, logits in self._signed(bias):
            gradients = torch.sigmoid(-logits) * own_weights[:, rows, None]
            gradients.diagonal(self.first_row + rows.start, dim1=1, dim2=2).neg_()
            bias_gradient += gradients.sum()
            gradient = torch.matmul(gradients, self.others)
            scale_gradient += (gradient * self.own[:, rows]).sum()
            gradient = self.scale * gradient
            own_gradient[:, rows] = gradient if len(self.own) > 1 else gradient.sum(dim=0, keepdim=True)
        return own_gradient, scale_gradient, bias_gradient


class _BlockwiseSigmoidLoss(torch.autograd.Function):
    """The loss from the own texts' rows; the gradient of the own images from their rows."""

    @staticmethod
    def forward(ctx, images, texts, scale, bias, present, groups, gather, first_row, block_size):
        tensors = gather_rows(images, texts, present, groups, gather)
        images, texts, all_images, all_texts, present, groups = tensors
        own_weights = weigh_pairs(present)[:, first_row:][:, : images.shape[1]]

        of_texts = _SigmoidComparison(texts, all_images, scale, present, groups, first_row, block_size)
        parts = gather(of_texts.losses(bias, own_weights)[None]).sum(dim=0)
        ctx.save_for_backward(*tensors, scale, bias, own_weights)
        ctx.gather, ctx.first_row, ctx.block_size = gather, first_row, block_size
        slot_losses = losses_of_slots(parts, present)
        ctx.mark_non_differentiable(slot_losses)
        return parts.sum(), slot_losses

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        images, texts, all_images, all_texts, present, groups, scale, bias, own_weights = ctx.saved_tensors
        shared = (scale, present, groups, ctx.first_row, ctx.block_size)
        image_gradient, _, _ = _SigmoidComparison(images, all_texts, *shared).gradients(bias, own_weights)
        text_gradient, *parts = _SigmoidComparison(texts, all_images, *shared).gradients(bias, own_weights)
        scale_gradient, bias_gradient = ctx.gather(torch.stack(parts)[None]).sum(dim=0)
        gradients = (image_gradient[0], text_gradient.transpose(0, 1), scale_gradient, bias_gradient)
        return *(gradient * one for one in gradients), None, None, None, None, None


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

    What is said of slots, absent captions, groups and several processes in [`blockwise_contrastive_loss`] holds here.

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
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)
    with torch.autocast(image_embeds.device.type, enabled=False):
        loss, slot_losses = _BlockwiseSigmoidLoss.apply(
            image_embeds.float(),
            text_embeds.float(),
            logit_scale.float(),
            logit_bias.float(),
            present,
            short_groups,
            gather,
            process_index * len(image_embeds),
            block_size,
        )
    return (loss, slot_losses) if return_slot_losses else loss

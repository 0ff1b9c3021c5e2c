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
The contrastive loss of FILIP: images and texts compared token by token, in blocks that are made again in the backward
pass, and shared out over processes as in `blockwise_contrastive_loss`.
"""

from collections.abc import Callable, Iterator

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ..modeling_token_wise_lotlip import token_similarities
from .comparison import compared_pairs, losses_of_slots, weigh_pairs


class _TokenWiseComparison:
    """
    The own images compared with all texts, or all images with the own texts, block by block of own ones.

    Args:
        images (`torch.Tensor` of shape `(images, image_length, dim)`):
            Own ones or all.
        texts (`torch.Tensor` of shape `(texts, slots, text_length, dim)`):
            All, or own ones; zero where there is no token.
        scale (`torch.Tensor` of shape `()`):
            Inverse temperature.
        present, groups, first_row, block_size:
            As in [`Comparison`].
        is_of_images (`bool`):
            Whether the images are the own ones.
    """

    def __init__(self, images, texts, scale, present, groups, first_row, block_size, is_of_images):
        self.images, self.texts, self.scale, self.is_of_images = images, texts, scale, is_of_images
        self.mask = (texts != 0).any(dim=-1)
        self.present, self.groups, self.first_row = present, groups, first_row
        others = texts if is_of_images else images
        per_row = len(others) * images.shape[1] * texts.shape[1] * texts.shape[2]
        self.num_rows = max(1, block_size // per_row)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yields some own rows, and their embeddings."""
        own = self.images if self.is_of_images else self.texts
        for start in range(0, len(own), self.num_rows):
            rows = slice(start, min(start + self.num_rows, len(own)))
            yield rows, own[rows]

    def logits(self, rows: slice, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (slots, own rows, rows) of image to text and text to image."""
        images, texts, mask = (
            (own, self.texts, self.mask) if self.is_of_images else (self.images, own, self.mask[rows])
        )
        among_all = slice(self.first_row + rows.start, self.first_row + rows.stop)
        compared = compared_pairs(self.present, self.groups, among_all)
        both = []
        for similarities in token_similarities(images, texts.flatten(0, 1), mask.flatten(0, 1)):
            logits = self.scale * similarities.unflatten(1, texts.shape[:2]).movedim(2, 0)  # (slots, images, texts)
            logits = logits if self.is_of_images else logits.mT
            both.append(logits.masked_fill(~compared, torch.finfo(logits.dtype).min))
        return tuple(both)

    def log_sums(self) -> torch.Tensor:
        """
        Of each own row the logarithm of the sum of exponentials, and the logit of its own pair, (2, slots, own rows):
        of images those of image to text, of texts those of text to image.
        """
        parts = []
        for rows, own in self.blocks():
            logits = self.logits(rows, own)[0 if self.is_of_images else 1]
            own_logits = logits.diagonal(self.first_row + rows.start, dim1=1, dim2=2)
            parts.append(torch.stack([logits.logsumexp(dim=2), own_logits]))
        return torch.cat(parts, dim=2)

    def gradients(self, image_sums, text_sums, weights) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of own embeddings and scale, from the logarithms of sums and the weights of all rows."""
        own_gradients, scale_gradient = [], torch.zeros_like(self.scale)
        for rows, own in self.blocks():
            own = own.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.logits(rows, own)
            gradients = []
            for number, (values, sums) in enumerate(zip(logits, (image_sums, text_sums))):
                # a softmax is over what its own query is compared with: along the rows, or across them
                among_all = slice(self.first_row + rows.start, self.first_row + rows.stop)
                is_along_rows = (number == 0) == self.is_of_images
                of_query = (slice(None), among_all, None) if is_along_rows else (slice(None), None, slice(None))
                gradient = (values.detach() - sums[of_query]).exp() * weights[of_query]
                gradient.diagonal(among_all.start, dim1=1, dim2=2).sub_(weights[:, among_all])
                gradients.append(0.5 * gradient)
                scale_gradient += (gradients[-1] * values.detach()).sum() / self.scale
            own_gradients.extend(torch.autograd.grad(logits, own, gradients))
        return torch.cat(own_gradients), scale_gradient


class _TokenWiseContrastiveLoss(torch.autograd.Function):
    """As `_BlockwiseContrastiveLoss`, with a similarity for each direction."""

    @staticmethod
    def _comparisons(images, texts, all_images, all_texts, present, groups, scale, first_row, block_size):
        """Of the own images with all texts, and of the own texts with all images."""
        shared = (scale, present, groups, first_row, block_size)
        return (
            _TokenWiseComparison(images, all_texts, *shared, is_of_images=True),
            _TokenWiseComparison(all_images, texts, *shared, is_of_images=False),
        )

    @staticmethod
    def forward(ctx, images, texts, scale, groups, gather, first_row, block_size):
        ctx.text_length = texts.shape[2]
        length = int(gather(torch.tensor([ctx.text_length], device=texts.device)).max())
        texts = pad(texts, (0, 0, 0, length - ctx.text_length))
        all_texts = gather(texts)
        present = (all_texts != 0).any(dim=-1).any(dim=-1).t()
        groups = gather(groups) if groups is not None else None
        tensors = (images, texts, gather(images), all_texts, present, groups, scale)
        of_images, of_texts = _TokenWiseContrastiveLoss._comparisons(*tensors, first_row, block_size)
        terms = torch.cat([of_images.log_sums(), of_texts.log_sums()])
        image_sums, image_logits, text_sums, text_logits = gather(terms.transpose(0, 2).contiguous()).transpose(0, 2)

        weights = weigh_pairs(present)
        ctx.save_for_backward(*tensors, image_sums, text_sums, weights)
        ctx.gather, ctx.first_row, ctx.block_size = gather, first_row, block_size
        parts = (weights * (0.5 * (image_sums - image_logits) + 0.5 * (text_sums - text_logits))).sum(dim=1)
        slot_losses = losses_of_slots(parts, present)
        ctx.mark_non_differentiable(slot_losses)
        return parts.sum(), slot_losses

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        *tensors, image_sums, text_sums, weights = ctx.saved_tensors
        of_images, of_texts = _TokenWiseContrastiveLoss._comparisons(*tensors, ctx.first_row, ctx.block_size)
        image_gradient, scale_gradient = of_images.gradients(image_sums, text_sums, weights)
        text_gradient, _ = of_texts.gradients(image_sums, text_sums, weights)
        scale_gradient = ctx.gather(scale_gradient[None]).sum()  # the images of all processes are all pairs
        gradients = (image_gradient, text_gradient[:, :, : ctx.text_length], scale_gradient)
        return *(gradient * one for one in gradients), None, None, None, None


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

    What is said of slots, groups and several processes in [`blockwise_contrastive_loss`] holds here. All tokens of all
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
    with torch.autocast(image_embeds.device.type, enabled=False):
        loss, slot_losses = _TokenWiseContrastiveLoss.apply(
            image_embeds.float(),
            text_embeds.float(),
            logit_scale.float(),
            short_groups,
            gather,
            process_index * len(image_embeds),
            block_size,
        )
    return (loss, slot_losses) if return_slot_losses else loss

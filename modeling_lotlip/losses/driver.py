# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the losses share: pairs of images and texts compared block by block, never all at once and made again in the
backward pass; the exchange between processes, of which each compares its own images with all texts and its own texts
with all images; and the mean over the slots.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable


class Block(NamedTuple):
    """Some images and some texts of all processes, one kind of them own ones and the other kind all there are."""

    images: slice
    texts: slice

    @property
    def pairs(self) -> slice:
        """The images that meet their own texts in the block."""
        return slice(max(self.images.start, self.texts.start), min(self.images.stop, self.texts.stop))

    def diagonal(self, matrix: torch.Tensor) -> torch.Tensor:
        """A view (slots, pairs) of what is of these in a matrix (slots, images, texts) of the block."""
        return matrix.diagonal(self.images.start - self.texts.start, dim1=1, dim2=2)


class Terms(ABC):
    """
    What a loss is made of. Logits, and gradients of logits, are lists of tensors (slots, images, texts) of a block:
    one, or one for each direction.
    """

    def similarities(self, images: torch.Tensor, texts: torch.Tensor) -> list[torch.Tensor]:
        """
        The similarities that logits are made of: dot products unless a loss has others. They grow with the length of
        either embedding, and their own values are not needed for their gradients.

        Args:
            images (`torch.Tensor` of shape `(images, ..., dim)`):
                Embeddings.
            texts (`torch.Tensor` of shape `(texts, slots, ..., dim)`):
                Embeddings.
        """
        if len(texts) < len(images):  # in memory by texts, which are summed up for each
            return [torch.matmul(texts.transpose(0, 1), images.mT).mT]
        return [torch.matmul(images, texts.transpose(0, 1).mT)]

    # What the loss needs of the images of a block with all texts, (terms, slots, images): a method like `text_terms`,
    # or nothing
    image_terms: Callable | None = None

    @abstractmethod
    def text_terms(self, logits: list[torch.Tensor], block: Block) -> torch.Tensor:
        """What the loss needs of the texts of a block with all images, (terms, slots, texts)."""

    @abstractmethod
    def pair_losses(self, image_terms: torch.Tensor | None, text_terms: torch.Tensor) -> torch.Tensor:
        """The loss (slots, pairs) of each image with its texts, from the terms of all of them."""

    @abstractmethod
    def gradients(
        self,
        logits: list[torch.Tensor],
        block: Block,
        weights: torch.Tensor,
        image_terms: torch.Tensor | None,
        text_terms: torch.Tensor,
    ) -> list[torch.Tensor]:
        """The gradients of the logits of a block, if the loss is the mean of its pairs with weights (slots, pairs)."""


def softmax_gradient(
    logits: torch.Tensor, block: Block, weights: torch.Tensor, log_sums: torch.Tensor, of_images: bool
) -> torch.Tensor:
    """The gradient of half the cross entropies of images among texts, or of texts among images."""
    rows = (slice(None), block.images, None) if of_images else (slice(None), None, block.texts)
    gradient = (logits - log_sums[rows]).exp_().mul_(0.5 * weights[rows])
    block.diagonal(gradient).sub_(0.5 * weights[:, block.pairs])
    return gradient


class _Comparison:
    """Embeddings of this process compared with those of all processes: see `blockwise_loss` and [`Terms`]."""

    def __init__(self, terms, images, texts, negatives, scale, bias, present, groups, gather, first_row, block_size):
        self.terms, self.scale, self.bias, self.gather, self.first_row = terms, scale, bias, gather, first_row
        self.negatives = negatives
        self.images, self.all_images = images, gather(images)
        self.texts, self.all_texts = texts, gather(texts)
        self.present = gather(present).t()  # shape = (slots, all rows)
        self.groups = gather(groups) if groups is not None else None
        tokens = images.shape[1:-1].numel() * texts.shape[2:-1].numel()  # that are compared for a pair
        self.num_rows = max(1, block_size // (self.present.numel() * tokens))

        counts = self.present.sum(dim=1)
        self.is_counted = counts > 1  # the slots with at least two pairs
        means = self.is_counted / (counts.clamp(min=1) * self.is_counted.sum().clamp(min=1))
        self.weights = self.present * means[:, None]  # of a pair in the loss

    def blocks(self, of_images: bool) -> Iterator[tuple[Block, torch.Tensor]]:
        """Yields blocks of own images or own texts, and their embeddings."""
        embeds, everyone = self.images if of_images else self.texts, slice(0, len(self.all_images))
        for start in range(0, len(embeds), self.num_rows):
            own = embeds[start : start + self.num_rows]
            rows = slice(self.first_row + start, self.first_row + start + len(own))
            yield Block(rows, everyone) if of_images else Block(everyone, rows), own

    def similarities(self, own: torch.Tensor, of_images: bool) -> list[torch.Tensor]:
        """Of some own images with all texts, or of some own texts with all images."""
        return self.terms.similarities(*((own, self.all_texts) if of_images else (self.all_images, own)))

    def logits(self, similarities: list[torch.Tensor], block: Block) -> list[torch.Tensor]:
        """The logits of a block, in the memory of its similarities; what is not compared is far below the rest."""
        compared = self.present[:, block.images, None] & self.present[:, None, block.texts]
        if self.groups is not None:
            compared[0] &= self.groups[block.images, None] != self.groups[block.texts]
            block.diagonal(compared)[0].copy_(self.present[0, block.pairs])
        for values in similarities:
            values.mul_(self.scale)
            if self.bias is not None:
                values.add_(self.bias)
            values.masked_fill_(~compared, torch.finfo(values.dtype).min)
        return similarities

    def negative_logits(self) -> torch.Tensor:
        """Those (slots, own rows, negatives) of own images with their own negatives; far below others if absent."""
        logits = self.scale * torch.einsum("rd,rnsd->srn", self.images, self.negatives)
        is_absent = (self.negatives == 0).all(dim=-1).permute(2, 0, 1)
        return logits.masked_fill_(is_absent, torch.finfo(logits.dtype).min)

    def gather_terms(self, of_images: bool) -> torch.Tensor:
        """The terms (terms, slots, all rows) of the images or of the texts of all processes."""
        function = self.terms.image_terms if of_images else self.terms.text_terms
        parts = [
            function(self.logits(self.similarities(own, of_images), block), block)
            for block, own in self.blocks(of_images)
        ]
        own_terms = torch.cat(parts, dim=2)
        if of_images and self.negatives is not None:
            own_terms = torch.logaddexp(own_terms, self.negative_logits().logsumexp(dim=2))
        return self.gather(own_terms.transpose(0, 2).contiguous()).transpose(0, 2)

    def gradients(self, of_images: bool, *terms: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient of own images or own texts, and what their blocks add to those of scale and bias."""
        own_gradients, scalar_gradients = [], torch.zeros(2, device=self.images.device)
        for block, own in self.blocks(of_images):
            own = own.detach().requires_grad_()
            with torch.enable_grad():
                similarities = self.similarities(own, of_images)
            logits = self.logits([values.detach() for values in similarities], block)
            gradients = self.terms.gradients(logits, block, self.weights, *terms)
            del logits
            if self.bias is not None:
                scalar_gradients[1] += sum(gradient.sum() for gradient in gradients)
            (own_gradient,) = torch.autograd.grad(similarities, own, gradients)
            scalar_gradients[0] += (own_gradient * own.detach()).sum()  # logits grow with both
            own_gradients.append(self.scale * own_gradient)
        return torch.cat(own_gradients), scalar_gradients

    def negative_gradients(self, image_terms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gradients of own images and of their own negatives, and what these add to that of the scale."""
        own_rows = slice(self.first_row, self.first_row + len(self.images))
        shares = (self.negative_logits() - image_terms[0][:, own_rows, None]).exp()
        gradients = 0.5 * self.weights[:, own_rows, None] * shares  # of the logits
        of_images = torch.einsum("srn,rnsd->rd", gradients, self.negatives)
        of_negatives = torch.einsum("srn,rd->rnsd", gradients, self.images)
        return self.scale * of_images, self.scale * of_negatives, (of_images * self.images).sum()


class _BlockwiseLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        comparison = _Comparison(*arguments)
        terms = comparison.terms
        image_terms = comparison.gather_terms(of_images=True) if terms.image_terms is not None else None
        text_terms = comparison.gather_terms(of_images=False)
        ctx.comparison, ctx.terms = comparison, (image_terms, text_terms)

        parts = (comparison.weights * terms.pair_losses(image_terms, text_terms)).sum(dim=1)
        slot_losses = (parts * comparison.is_counted.sum()).masked_fill(~comparison.is_counted, torch.nan)
        ctx.mark_non_differentiable(slot_losses)
        return parts.sum(), slot_losses

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        image_gradient, _ = ctx.comparison.gradients(True, *ctx.terms)
        text_gradient, own_parts = ctx.comparison.gradients(False, *ctx.terms)
        negative_gradient = None
        if ctx.comparison.negatives is not None:
            of_images, of_negatives, of_scale = ctx.comparison.negative_gradients(ctx.terms[0])
            image_gradient += of_images
            negative_gradient = gradient * of_negatives
            own_parts[0] += of_scale
        # the texts of all processes are all pairs
        scale_gradient, bias_gradient = ctx.comparison.gather(own_parts[None]).sum(dim=0)
        bias_gradient = None if ctx.comparison.bias is None else gradient * bias_gradient
        gradients = (gradient * image_gradient, gradient * text_gradient, negative_gradient)
        return None, *gradients, gradient * scale_gradient, bias_gradient, None, None, None, None, None


def blockwise_loss(
    terms: Terms,
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor | None = None,
    hard_negatives: torch.Tensor | None = None,
    present: torch.Tensor | None = None,
    short_groups: torch.Tensor | None = None,
    block_size: int = 2**26,
    gather: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach,
    process_index: int = 0,
    return_slot_losses: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    A loss of images and texts, with memory that grows with the batch, not with its square.

    With several processes every one gives its own rows, as many as the others do, and has the loss of all rows, with
    the gradients of that for its own: embeddings are exchanged, and terms, but no gradients of embeddings. The work is
    shared out.

    Args:
        terms ([`Terms`]):
            What the loss is made of.
        image_embeds (`torch.Tensor` of shape `(batch_size, ..., dim)`):
            Embeddings of images, as the terms take them.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, ..., dim)`):
            Embeddings of texts, as the terms take them.
        logit_scale, logit_bias (`torch.Tensor` of shape `()`):
            What similarities are multiplied by, and what is added to them, if something is.
        hard_negatives (`torch.Tensor` of shape `(batch_size, negatives, slots, dim)`, *optional*):
            Texts that are negatives of the own image alone, zero where one is absent: for a loss whose only image term
            is the logarithm of the sum of exponentials.
        present, short_groups, block_size, gather, process_index, return_slot_losses:
            As in [`blockwise_contrastive_loss`].

    Returns:
        `torch.Tensor` of shape `()`: the mean over the slots that have at least two pairs, in float32; 0 if none has.
        With `return_slot_losses` a pair of it and the losses of the slots.
    """
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)
    with torch.autocast(image_embeds.device.type, enabled=False):
        loss, slot_losses = _BlockwiseLoss.apply(
            terms,
            image_embeds.float(),
            text_embeds.float(),
            hard_negatives.float() if hard_negatives is not None else None,
            logit_scale.float(),
            logit_bias.float() if logit_bias is not None else None,
            present,
            short_groups,
            gather,
            process_index * len(image_embeds),
            block_size,
        )
    return (loss, slot_losses) if return_slot_losses else loss

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A loss of the rows of all processes, as a mean over slots, with what every loss can have, and what it is made of."""

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint

from ..modeling_variants_lotlip import late_interaction


# Similarities in a block, 4 bytes each, of which some copies are needed
BLOCK_SIZE = 2**24

# A logit of what is not compared
LOWEST = torch.finfo(torch.float32).min


class Pairs(NamedTuple):
    """
    Images with their texts, in slots: a text is compared with the images of the texts in the same slot.

    Args:
        images (`torch.Tensor` of shape `(rows, dim)`):
            Normalised embeddings; with late interaction those of all tokens, `(rows, image_length, dim)`.
        texts (`torch.Tensor` of shape `(rows, slots, dim)`):
            Normalised embeddings, or `(rows, slots, text_length, dim)`; zero where an image lacks the text of a slot:
            it is neither positive nor negative there.
        places (`torch.Tensor` of shape `(rows,)`): The place of each row among all rows.
        groups (`torch.Tensor` of shape `(rows,)`, *optional*):
            Integers. In the first slot, images of the same group are no negatives of each other.
        hard_negatives (`torch.Tensor` of shape `(rows, slots, negatives, dim)`, *optional*):
            Texts that are false of the image of their row, and negatives of it alone (Yuksekgonul et al., 2023,
            https://arxiv.org/abs/2210.01936, who compare them with all images); zero where there is none.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs

    >>> Pairs(torch.eye(2), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]), torch.arange(2)).present
    tensor([[ True],
            [False]])
    ```"""

    images: torch.Tensor
    texts: torch.Tensor
    places: torch.Tensor
    groups: torch.Tensor | None = None
    hard_negatives: torch.Tensor | None = None

    @property
    def present(self) -> torch.Tensor:
        """Whether there is a text, (rows, slots)."""
        return (self.texts != 0).flatten(2).any(dim=2)


def map_pairs(function: Callable[[torch.Tensor], torch.Tensor], pairs: Pairs) -> Pairs:
    """Pairs with each tensor changed."""
    return Pairs(*(function(values) if values is not None else None for values in pairs))


def image_logits(pairs: Pairs, all_pairs: Pairs, scale: torch.Tensor) -> torch.Tensor:
    """
    Scaled similarities of images with all texts, and with the hard negatives of each, (slots, rows, all rows +
    negatives), what is not compared far below all others.
    """
    queries, compare = scale * pairs.images, _comparison(pairs)
    logits = _mask(compare(queries[None], all_pairs.texts.transpose(0, 1)), pairs, all_pairs)
    if pairs.hard_negatives is not None:
        of_negatives = compare(queries[:, None, None], pairs.hard_negatives)[:, :, 0]
        of_negatives = of_negatives.masked_fill(~(pairs.hard_negatives != 0).flatten(3).any(dim=3), LOWEST)
        logits = torch.cat([logits, of_negatives.transpose(0, 1)], dim=2)
    return logits


def text_logits(pairs: Pairs, all_pairs: Pairs, scale: torch.Tensor) -> torch.Tensor:
    """As [`image_logits`], of texts with all images, (slots, rows, all rows)."""
    return _mask(_comparison(pairs)(scale * pairs.texts.transpose(0, 1), all_pairs.images[None]), pairs, all_pairs)


def _comparison(pairs: Pairs) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Similarities (..., queries, keys) of queries and keys, (..., number, dim), or (..., number, length, dim)."""
    return late_interaction if pairs.images.dim() == 3 else lambda queries, keys: torch.matmul(queries, keys.mT)


def _mask(logits: torch.Tensor, pairs: Pairs, all_pairs: Pairs) -> torch.Tensor:
    """Logits (slots, rows, all rows) without absent columns, and in the first slot without equals of a row."""
    present = all_pairs.present
    if not present.all():
        logits = logits.masked_fill(~present.t()[:, None], LOWEST)
    if pairs.groups is not None:
        is_equal = (pairs.groups[:, None] == all_pairs.groups) & (pairs.places[:, None] != all_pairs.places)
        if is_equal.any():
            logits = torch.cat([logits[:1].masked_fill(is_equal, LOWEST), logits[1:]])
    return logits


def in_blocks(loss_function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """
    A loss (slots, rows) of some rows, all rows and more, computed for blocks of them and, in the backward pass,
    once more: memory grows with the rows, not with their square.
    """
    compute = partial(
        checkpoint, loss_function, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )

    @wraps(loss_function)
    def of_blocks(pairs: Pairs, all_pairs: Pairs, *arguments, **options) -> torch.Tensor:
        tokens = pairs.images.shape[1:-1].numel() * pairs.texts.shape[2:-1].numel()  # that are compared for a pair
        num_rows = max(1, BLOCK_SIZE // (all_pairs.texts.shape[:2].numel() * tokens))
        starts = range(0, len(pairs.images), num_rows)
        blocks = [map_pairs(lambda values, start=start: values[start : start + num_rows], pairs) for start in starts]
        return torch.cat([compute(block, all_pairs, *arguments, **options) for block in blocks], dim=1)

    return of_blocks


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        gathered = rows.new_empty(dist.get_world_size(), *rows.shape)
        dist.all_gather(list(gathered), rows.contiguous())
        return gathered.flatten(0, 1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        parts = [part.contiguous() for part in gradient.chunk(dist.get_world_size())]
        gradients = torch.empty_like(parts[0])
        dist.reduce_scatter(gradients, parts)
        return gradients


def gather_rows(values: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in their order, with a gradient; every process has as many."""
    return _GatherRows.apply(values) if dist.is_initialized() and dist.get_world_size() > 1 else values


def global_loss(
    loss_function: Callable[..., torch.Tensor],
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    *,
    short_groups: torch.Tensor | None = None,
    num_hard_negatives: int = 0,
    matryoshka_dims: Sequence[int] = (),
    short_weight: float = 1.0,
    long_weight: float = 1.0,
    **arguments: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    A loss of the rows of all processes (`torch.distributed`, if it is initialised), in float32, under autocast too.
    Each process computes the losses of its rows. The gradients of embeddings are those of the sum of the losses of
    all processes, of which data parallelism takes the mean; those of scalars are of the loss itself.

    Args:
        loss_function (`Callable`): A loss of `LOSSES`.
        image_embeds (`torch.Tensor` of shape `(rows, ..., dim)`):
            Normalised embeddings of the images of this process, as many as the others have.
        text_embeds (`torch.Tensor` of shape `(rows, slots, ..., dim)`):
            Normalised embeddings of their texts, zero where one is absent.
        short_groups (`torch.Tensor` of shape `(rows,)`, *optional*):
            The `groups` of [`Pairs`]: integers, equal for images with the same short caption.
        num_hard_negatives (`int`, *optional*, defaults to 0):
            Behind the slots of short and long captions, those of the long ones come again that many times, as texts
            that are false of their image.
        matryoshka_dims (`Sequence[int]`, *optional*):
            The loss is the mean of that of whole embeddings and of those of their first numbers, normalised, for each
            of these numbers of them (Kusupati et al., 2022, https://arxiv.org/abs/2205.13147, equation 1).
        short_weight (`float`, *optional*, defaults to 1.0):
            Weight of the first slot, that of short captions, in the mean.
        long_weight (`float`, *optional*, defaults to 1.0):
            Weight of each of the other slots. The original has a weight for either part too.
        arguments (`torch.Tensor` of one element, or `float`):
            Further arguments of the loss: scalars such as `logit_scale` (no logarithm), and options.

    Returns:
        `(torch.Tensor, torch.Tensor)`, the same on every process: the weighted mean over the slots that have at least
        two pairs, 0 if none has; and the loss of each slot, of shape `(slots,)`, without gradient, NaN where it has no
        two pairs.

    Raises:
        `ValueError`: if embeddings have fewer dimensions, or the weights of slots are not finite, negative or all 0.

    Example:

    ```python
    >>> import torch
    >>> from torch.nn.functional import normalize
    >>> from modeling_lotlip.losses import contrastive_loss, global_loss

    >>> images = normalize(torch.eye(4) + 0.5, dim=-1)
    >>> texts = images[:, None].expand(4, 3, 4)
    >>> global_loss(contrastive_loss, images, texts, logit_scale=torch.tensor(10.0))
    (tensor(0.1017), tensor([0.1017, 0.1017, 0.1017]))
    ```"""
    check_dims(matryoshka_dims, image_embeds.shape[-1])
    check_slot_weights(short_weight, long_weight)
    with torch.autocast(image_embeds.device.type, enabled=False):
        pairs = _make_pairs(image_embeds.float(), text_embeds.float(), short_groups, num_hard_negatives)
        all_pairs = map_pairs(gather_rows, pairs._replace(hard_negatives=None))
        for name in (name for name, value in arguments.items() if isinstance(value, torch.Tensor)):
            arguments[name] = gather_rows(arguments[name].float().reshape(1)).mean()
        counts = all_pairs.present.sum(dim=0)
        weights = pairs.present.t() / counts.clamp(min=1)[:, None]
        parts = []
        for dim in {image_embeds.shape[-1], *matryoshka_dims}:
            losses = loss_function(_cut(pairs, dim), _cut(all_pairs, dim), **arguments)
            parts.append((losses * weights).masked_fill(weights == 0, 0).sum(dim=1))
        slot_losses = gather_rows(torch.stack(parts).mean(dim=0)[None]).sum(dim=0)
        is_counted = counts > 1  # the slots with at least two pairs
        slot_weights = torch.full_like(slot_losses, long_weight)
        slot_weights[0] = short_weight
        slot_weights = slot_weights * is_counted
        weighted = (slot_weights * slot_losses).masked_fill(slot_weights == 0, 0)
        loss = weighted.sum() / slot_weights.sum().clamp(min=torch.finfo(slot_weights.dtype).tiny)
        return loss, slot_losses.detach().masked_fill(~is_counted, torch.nan)


def _make_pairs(
    images: torch.Tensor, texts: torch.Tensor, groups: torch.Tensor | None, num_hard_negatives: int
) -> Pairs:
    """The rows of this process, with the hard negatives apart."""
    rank, hard_negatives = dist.get_rank() if dist.is_initialized() else 0, None
    if num_hard_negatives > 0:
        num_long = (texts.shape[1] - 1) // (1 + num_hard_negatives)
        texts, hard_negatives = texts.split([1 + num_long, num_hard_negatives * num_long], dim=1)
        hard_negatives = hard_negatives.unflatten(1, (num_hard_negatives, num_long)).transpose(1, 2)
        # the first slot has none
        hard_negatives = torch.cat([torch.zeros_like(hard_negatives[:, :1]), hard_negatives], dim=1)
    if texts.dim() == 4 and dist.is_initialized():  # tokens: padded to the longest text of all processes
        length = torch.tensor(texts.shape[2], device=texts.device)
        dist.all_reduce(length, dist.ReduceOp.MAX)
        texts = pad(texts, (0, 0, 0, int(length) - texts.shape[2]))
    places = torch.arange(len(images), device=images.device) + rank * len(images)
    return Pairs(images, texts, places, groups, hard_negatives)


def _cut(pairs: Pairs, dim: int) -> Pairs:
    """Pairs with the first numbers of each embedding, normalised."""
    if dim == pairs.images.shape[-1]:
        return pairs
    cut = map_pairs(lambda values: normalize(values[..., :dim], dim=-1), pairs._replace(places=None, groups=None))
    return cut._replace(places=pairs.places, groups=pairs.groups)


def check_dims(dims: Sequence[int], num_dims: int, argument: str = "matryoshka_dims") -> None:
    """Raises a `ValueError` for a number of dimensions that is not from 1 to `num_dims`."""
    for dim in dims:
        if not 1 <= dim <= num_dims:
            raise ValueError(f"`{argument}` must be from 1 to {num_dims}, the dimensions of an embedding, got {dim}.")


def check_slot_weights(short_weight: float, long_weight: float) -> None:
    """Raises a `ValueError` for weights of slots that are not finite, negative, or both 0."""
    for name, weight in (("short_weight", short_weight), ("long_weight", long_weight)):
        if not 0 <= weight < math.inf:
            raise ValueError(f"`{name}` must be a number from 0 up, got {weight}.")
    if short_weight == long_weight == 0:
        raise ValueError("`short_weight` and `long_weight` are both 0, which leaves no loss: raise one of them.")

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The loss of a batch of all processes: a mean over slots, with what every loss can have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import torch
import torch.distributed as dist
from torch.nn.functional import pad

from ..utils.integers import is_integer
from .pairs import Pairs, Slots


# A loss of `LOSSES`, or one of a user: losses of shape (slots, rows) of rows, all rows and scalars
LossFunction = Callable[..., torch.Tensor]

# A term of a loss: values of shape (rows,) of rows and all rows
Term = Callable[[Pairs, Pairs], torch.Tensor]


@dataclass(frozen=True)
class BatchLoss:
    """
    The loss of a batch, and what it is made of, the same on every process.

    Args:
        loss (`torch.Tensor` of shape `()`): The loss, with a gradient.
        slot_losses (`torch.Tensor` of shape `(slots,)`): That of each slot; NaN where it has fewer than two pairs.
        slots (`Slots`): The names of the slots.
        terms (`dict[str, torch.Tensor]`): Further terms of the loss by their names, before their weights.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import BatchLoss, Slots

    >>> BatchLoss(torch.tensor(1.5), torch.tensor([1.0, 2.0]), Slots(num_long=1)).by_name()
    {'loss_short': 1.0, 'loss_long': 2.0}
    ```"""

    loss: torch.Tensor
    slot_losses: torch.Tensor
    slots: Slots
    terms: dict[str, torch.Tensor] = field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """Returns the loss of each name of a slot that has pairs, and each term, as `loss_short`, `loss_long`, ..."""
        values = {}
        for name, loss in zip(self.slots.names, self.slot_losses.tolist()):
            if isfinite(loss):
                values.setdefault(f"loss_{name}", []).append(loss)
        means = {name: sum(losses) / len(losses) for name, losses in values.items()}
        for name, value in self.terms.items():
            means[f"loss_{name}"] = value.item()
        return means

    def detach(self) -> "BatchLoss":
        """Returns the same numbers, without what their gradients are made of."""
        terms = {name: value.detach() for name, value in self.terms.items()}
        return BatchLoss(self.loss.detach(), self.slot_losses.detach(), self.slots, terms)


def average_losses(losses: Sequence[BatchLoss]) -> dict[str, float]:
    """
    Averages the losses of the batches of a step: `loss`, and those of [`BatchLoss.by_name`]. A slot counts in the
    batches where it has pairs.
    """
    values: dict[str, list[float]] = {}
    for batch_loss in losses:
        values.setdefault("loss", []).append(batch_loss.loss.item())
        for name, value in batch_loss.by_name().items():
            values.setdefault(name, []).append(value)
    return {name: sum(parts) / len(parts) for name, parts in values.items()}


class _GatherRows(torch.autograd.Function):
    """
    Gathers the rows of all processes, with a gradient.

    Every process compares its rows with all rows, so that the gradient of a row is the sum of what all processes find
    for it. A reduce-scatter computes this sum and gives each process that of its own rows. An all-reduce would give
    every process the sums of all rows, of which it needs one part only.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        """Of shape (processes * rows, ...)."""
        gathered = rows.new_empty(dist.get_world_size(), *rows.shape)
        dist.all_gather(list(gathered), rows.contiguous())
        return gathered.flatten(0, 1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        """Of shape (rows, ...): the sum over processes."""
        parts = [part.contiguous() for part in gradient.chunk(dist.get_world_size())]
        gradients = torch.empty_like(parts[0])
        dist.reduce_scatter(gradients, parts)
        return gradients


def gather_rows(values: torch.Tensor) -> torch.Tensor:
    """
    Gathers the rows of all processes in their order, with a gradient: of shape (processes * rows, ...) where every
    process has values of shape (rows, ...).
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    if values.dtype == torch.bool:
        return _GatherRows.apply(values.byte()).bool()
    return _GatherRows.apply(values)


def share_parameter(parameter: torch.Tensor) -> torch.Tensor:
    """
    Returns a parameter, of any shape, that every process holds, as the mean over all of them in float32. Its gradient
    is that of the loss of all rows, on every process.

    The mean has the value of the parameter, which is equal on all processes, and is there for its backward pass, which
    adds what all processes find for it. So the gradient needs no help of data parallelism, and its mean of equal
    gradients changes nothing.
    """
    return gather_rows(parameter.float()[None]).mean(dim=0)


def global_loss(
    loss_function: LossFunction,
    images: torch.Tensor,
    captions: object,
    *,
    short_groups: torch.Tensor | None = None,
    short_weight: float = 1.0,
    long_weight: float = 1.0,
    matryoshka_dims: Sequence[int] = (),
    terms: Mapping[str, tuple[float, Term]] | None = None,
    **arguments: torch.Tensor | float,
) -> BatchLoss:
    """
    Computes a loss of the rows of all processes (`torch.distributed`, if it is initialized), in float32, under
    autocast too. Each process computes the losses of its rows. The gradients of embeddings are those of the sum of the
    losses of all processes, of which data parallelism takes the mean; those of scalars are of the loss itself.

    Args:
        loss_function (`Callable`):
            A loss of `LOSSES`, or one's own: see [`check_loss`].
        images (`torch.Tensor` of shape `(rows, dim)`):
            Normalized embeddings of the images of this process, as many as the others have; with late interaction of
            shape `(rows, length, dim)`.
        captions (`LotlipCaptionEmbeddings`):
            What `embed_captions` gave: `short`, `short_mask`, `long`, `long_mask` and `corners`, each None or a tensor
            that begins with `rows`.
        short_groups (`torch.LongTensor` of shape `(rows,)`, *optional*):
            The `groups` of [`Pairs`]: integers, equal for images with the same short caption.
        short_weight (`float`, *optional*, defaults to 1.0):
            The weight of the slot of short captions.
        long_weight (`float`, *optional*, defaults to 1.0):
            The weight of each slot of long captions, `[CLS]` and each corner token. The loss is the weighted mean.
        matryoshka_dims (`Sequence[int]`, *optional*):
            The loss is the mean of that of whole embeddings and of those of their first dimensions, normalized, for
            each of these dims (Kusupati et al., 2022, https://arxiv.org/abs/2205.13147, equation 1).
        terms (`dict[str, tuple[float, Callable]]`, *optional*):
            By name, a weight and a function of [`Pairs`], those of this process and all, that returns values of shape
            `(rows,)`. Weight times their mean over the images with any text is added to the loss.
        arguments (`torch.Tensor` of one element, or `float`):
            Further arguments of the loss: scalars such as `logit_scale` (no logarithm), and options.

    Returns:
        [`BatchLoss`], whose `loss` is the mean over the slots that have at least two pairs, 0 if none has.

    Raises:
        `ValueError`: if embeddings have fewer dimensions, a weight is negative, or both are 0, or what a loss or a
            term returns is of another shape.

    Example:

    ```python
    >>> import torch
    >>> from torch.nn.functional import normalize
    >>> from modeling_lotlip.losses import contrastive_loss, global_loss
    >>> from modeling_lotlip.modeling_lotlip import LotlipCaptionEmbeddings

    >>> images = normalize(torch.eye(4) + 0.5, dim=-1)
    >>> captions = LotlipCaptionEmbeddings(short=images, long=images[:, None])
    >>> global_loss(contrastive_loss, images, captions, logit_scale=torch.tensor(10.0)).by_name()
    {'loss_short': 0.10167..., 'loss_long': 0.10167...}
    ```"""
    check_dims(matryoshka_dims, images.shape[-1])
    check_weights(short_weight, long_weight)
    with torch.autocast(images.device.type, enabled=False):
        pairs = make_pairs(images, captions, short_groups)
        all_pairs = pairs.map(gather_rows)
        for name, value in arguments.items():
            if isinstance(value, torch.Tensor):
                arguments[name] = share_parameter(value.reshape(()))
        # The loss of a slot is the mean over the images of all processes that have its text. A process adds its rows,
        # each as a fraction of this mean, and the sums of the processes are added up below. Processes may have
        # different numbers of texts in a slot, so that a mean of their means would be another one.
        counts = all_pairs.present.sum(dim=0)
        fractions = pairs.present.t() / counts.clamp(min=1)[:, None]
        parts = []
        for dim in sorted({images.shape[-1], *matryoshka_dims}, reverse=True):
            losses = loss_function(pairs.truncate(dim), all_pairs.truncate(dim), **arguments)
            if losses.shape != fractions.shape:
                raise ValueError(
                    f"The loss is of shape {tuple(losses.shape)}: return one of shape (slots, rows), "
                    f"{tuple(fractions.shape)}."
                )
            # what a loss says of an absent text is dropped, also if it is not finite
            parts.append((losses * fractions).masked_fill(fractions == 0, 0).sum(dim=1))
        slot_losses = gather_rows(torch.stack(parts).mean(dim=0)[None]).sum(dim=0)
        has_pairs = counts > 1
        weights = slot_losses.new_tensor(pairs.slots.weigh(short_weight, long_weight)) * has_pairs
        total_weight = weights.sum()
        # 0 where no slot has two pairs; the smallest weight of all is far above the divisor's bound
        divisor = torch.where(total_weight > 0, total_weight, torch.ones_like(total_weight))
        loss = (weights * slot_losses.masked_fill(~has_pairs, 0)).sum() / divisor
        values = {}
        for name, (weight, term) in (terms or {}).items():
            of_images = term(pairs, all_pairs)
            if of_images.shape != pairs.indices.shape:
                raise ValueError(
                    f"The term `{name}` is of shape {tuple(of_images.shape)}: return a value for each image, of shape "
                    f"(rows,), {tuple(pairs.indices.shape)}."
                )
            value = _mean_over_images(of_images, pairs, all_pairs)
            loss = loss + weight * value
            values[name] = value.detach()
        return BatchLoss(loss, slot_losses.detach().masked_fill(~has_pairs, torch.nan), pairs.slots, values)


def make_pairs(
    images: torch.Tensor,
    captions: object,
    short_groups: torch.Tensor | None = None,
) -> Pairs:
    """
    Returns the rows of this process as [`Pairs`] in float32, with their indices among those of all processes: `images`
    of shape (rows, dim), `captions` with the fields of `LotlipCaptionEmbeddings`.
    """
    names = ("short", "long", "corners", "short_mask", "long_mask")
    pairs = Pairs.from_embeds(images, **{name: getattr(captions, name) for name in names}, groups=short_groups)
    pairs = replace(pairs, images=pairs.images.float(), texts=pairs.texts.float())
    if dist.is_initialized():
        pairs = replace(pairs, indices=pairs.indices + dist.get_rank() * len(images))
        if pairs.texts.dim() == 4:  # tokens: padded to the longest text of all processes
            length = torch.tensor(pairs.texts.shape[2], device=images.device)
            dist.all_reduce(length, dist.ReduceOp.MAX)
            pairs = replace(pairs, texts=pad(pairs.texts, (0, 0, 0, int(length) - pairs.texts.shape[2])))
    return pairs


def _mean_over_images(values: torch.Tensor, pairs: Pairs, all_pairs: Pairs) -> torch.Tensor:
    """The mean of values (rows,) of this process over the images of all processes that have any text."""
    has_text = pairs.present.any(dim=1)
    num_images = all_pairs.present.any(dim=1).sum().clamp(min=1)
    own = values.masked_fill(~has_text, 0).sum() / num_images
    return gather_rows(own[None]).sum()


def check_dims(dims: Sequence[int], num_dims: int, argument: str = "matryoshka_dims") -> None:
    """Raises a `ValueError` for a number of dimensions that is no integer from 1 to `num_dims`."""
    for dim in dims:
        if not is_integer(dim) or not 1 <= dim <= num_dims:
            raise ValueError(f"`{argument}` must be an integer from 1 to {num_dims}, all dimensions, got {dim!r}.")


def check_weights(short_weight: float, long_weight: float) -> None:
    """Raises a `ValueError` for a weight of slots that is negative or not finite, or if both are 0."""
    for name, weight in (("short_weight", short_weight), ("long_weight", long_weight)):
        if not isfinite(weight) or weight < 0:
            raise ValueError(f"`{name}` must be a number from 0 on, got {weight}.")
    if short_weight == 0 and long_weight == 0:
        raise ValueError("`short_weight` and `long_weight` are both 0, so that there is no loss: raise one of them.")

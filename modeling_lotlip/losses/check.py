# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Whether a loss is one that training can use: called by tests, and by who writes a loss."""

from dataclasses import replace

import torch
from torch.autograd.gradcheck import GradcheckError
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import normalize

from ..utils.terminal import without_stop
from .global_loss import LossFunction
from .pairs import BLOCK_SIZE, Pairs


DIM = 6

# Rows of the batch that memory is measured on: all similarities at once would be a little more than a block
NUM_MANY_ROWS = 4200

# By how much of one direction embeddings are brought closer: their cosines then differ by some hundredths, and targets
# that are a softmax of them at a low temperature are not one-hot
COMMON_LENGTH = 5.0


class LargestSavedTensor(saved_tensors_hooks):
    """Notes the number of elements of the largest tensor that autograd keeps for the backward pass."""

    def __init__(self):
        self.numel = 0
        super().__init__(self.note, lambda tensor: tensor)

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        """Takes a tensor of any shape that autograd keeps, and gives it back."""
        self.numel = max(self.numel, tensor.numel())
        return tensor


def draw_pairs(
    num_rows: int,
    num_long: int = 1,
    num_corners: int = 2,
    has_short: bool = True,
    absent: float = 0.0,
    seed: int = 0,
) -> Pairs:
    """
    Makes random pairs in float64 to try a loss on, some with equal short captions.

    Args:
        num_rows (`int`): The number of images.
        num_long (`int`, *optional*, defaults to 1): Long captions of each image.
        num_corners (`int`, *optional*, defaults to 2): Corner tokens of each long caption.
        has_short (`bool`, *optional*, defaults to `True`): Whether there are short captions.
        absent (`float`, *optional*, defaults to 0.0): The fraction of captions that are absent, at random.
        seed (`int`, *optional*, defaults to 0): The random seed.

    Returns:
        `Pairs`: with embeddings of 6 dimensions.
    """
    generator = torch.Generator().manual_seed(seed)

    def sample(*shape: int) -> torch.Tensor:
        """Samples unit vectors of shape (*shape, dim)."""
        return normalize(torch.randn(*shape, DIM, generator=generator, dtype=torch.float64), dim=-1)

    captions = {}
    if has_short:
        mask = torch.rand(num_rows, generator=generator) >= absent
        captions["short_mask"] = mask
        captions["short"] = sample(num_rows).masked_fill(~mask[:, None], 0)
        captions["groups"] = torch.randint(0, max(1, num_rows - 1), (num_rows,), generator=generator)
    if num_long > 0:
        mask = torch.rand(num_rows, num_long, generator=generator) >= absent
        captions["long_mask"] = mask
        captions["long"] = sample(num_rows, num_long).masked_fill(~mask[..., None], 0)
        if num_corners > 0:
            corners = sample(num_rows, num_long, num_corners)
            captions["corners"] = corners.masked_fill(~mask[..., None, None], 0)
    return Pairs.from_embeds(sample(num_rows), **captions)


def check_loss(loss: LossFunction, *, has_constants: bool = False, **arguments: torch.Tensor | float) -> None:
    """
    Checks that a loss is what [`global_loss`] takes: its shape with one to many slots, its gradients in float64
    against differences, that each process can compute the losses of its own rows, whose gradients add up to those of
    all rows, that absent texts, and images without any, count nowhere, and that memory does not grow with the square
    of the batch (see [`in_blocks`]).

    Args:
        loss (`Callable`):
            A function of [`Pairs`] of some rows, and of all rows, and scalars. It returns losses of shape `(slots,
            rows)`; where a text is absent they are of no use.
        has_constants (`bool`, *optional*, defaults to `False`):
            Whether the loss holds something constant that depends on embeddings (`detach`): its gradients are then not
            those of differences, and only have to be finite.
        arguments (`torch.Tensor` of one element, or `float`):
            Further arguments in addition to `logit_scale`, which every loss takes: a `logit_bias`, options.

    Raises:
        `ValueError`: if a loss is not so; the message says in what.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import check_loss, contrastive_loss, sigmoid_loss

    >>> check_loss(contrastive_loss)
    >>> check_loss(sigmoid_loss, logit_bias=torch.tensor(-3.0))
    >>> check_loss(lambda pairs, all_pairs, logit_scale: (logit_scale * pairs.texts @ pairs.images.mean(dim=0)).t())
    Traceback (most recent call last):
    ValueError: The losses of two processes are not those of all rows: compare `pairs` with `all_pairs`.
    ```"""
    arguments = {"logit_scale": torch.tensor(5.0, dtype=torch.float64), **arguments}
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            arguments[name] = value.double()
    check_shape(loss, arguments)
    check_gradients(loss, arguments, has_constants)
    check_processes(loss, arguments)
    check_absent_texts(loss, arguments)
    check_absent_rows(loss, arguments)
    check_memory(loss, arguments)


def check_shape(loss: LossFunction, arguments: dict) -> None:
    """Raises a `ValueError` if a loss is not of shape (slots, rows), whatever texts there are."""
    for num_long, num_corners, has_short in ((0, 0, True), (1, 0, True), (1, 2, True), (2, 2, True), (1, 2, False)):
        pairs = draw_pairs(5, num_long, num_corners, has_short)
        try:
            losses = loss(pairs, pairs, **arguments)
        except (AttributeError, IndexError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"With the slots {', '.join(pairs.slots.names)} the loss cannot be computed: "
                f"{type(error).__name__}: {without_stop(error)}. What `pairs` does not have is None."
            ) from error
        expected = (len(pairs.slots), 5)
        if tuple(losses.shape) != expected:
            raise ValueError(
                f"With the slots {', '.join(pairs.slots.names)} the loss is of shape {tuple(losses.shape)}: return "
                f"one of shape (slots, rows), {expected}."
            )
        if not losses.isfinite().all():
            raise ValueError(f"With the slots {', '.join(pairs.slots.names)} the loss is not finite.")


def check_gradients(loss: LossFunction, arguments: dict, has_constants: bool = False) -> None:
    """Raises a `ValueError` if gradients of a loss are not finite, or not those of differences of its values."""
    drawn = draw_pairs(3)
    for pairs in (drawn, bring_closer(drawn)):
        check_gradients_of_pairs(loss, pairs, arguments, has_constants)


def bring_closer(pairs: Pairs) -> Pairs:
    """Returns pairs whose embeddings are all close to one direction, as those of models often are."""
    common = torch.zeros(DIM, dtype=pairs.images.dtype)
    common[0] = COMMON_LENGTH
    return replace(
        pairs, images=normalize(pairs.images + common, dim=-1), texts=normalize(pairs.texts + common, dim=-1)
    )


def check_gradients_of_pairs(loss: LossFunction, pairs: Pairs, arguments: dict, has_constants: bool) -> None:
    """
    Raises a `ValueError` if gradients of a loss at some pairs are not right: see [`check_gradients`].

    Args:
        loss (`Callable`): See [`check_loss`].
        pairs ([`Pairs`]): What the loss is tried on.
        arguments (`dict`): Those of the loss.
        has_constants (`bool`): Whether gradients only have to be finite.
    """
    names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]

    def compute(images: torch.Tensor, texts: torch.Tensor, *scalars: torch.Tensor) -> torch.Tensor:
        """Losses of shape (slots, rows)."""
        changed = replace(pairs, images=images, texts=texts)
        return loss(changed, changed, **{**arguments, **dict(zip(names, scalars))})

    inputs = [pairs.images, pairs.texts, *(arguments[name] for name in names)]
    inputs = [value.clone().requires_grad_() for value in inputs]
    losses = compute(*inputs)
    if not losses.requires_grad:
        raise ValueError("The loss has no gradient: nothing of it depends on embeddings, but what is detached.")
    gradients = torch.autograd.grad(losses.sum(), inputs, allow_unused=True)
    for gradient in gradients:
        if gradient is not None and not gradient.isfinite().all():
            raise ValueError("The gradients of the loss are not finite.")
    if has_constants:
        return
    try:
        torch.autograd.gradcheck(compute, inputs)
    except GradcheckError as error:
        raise ValueError(
            f"The gradients of the loss are not those of differences in float64: {str(error).splitlines()[0]}"
        ) from error


def check_processes(loss: LossFunction, arguments: dict) -> None:
    """Raises a `ValueError` if losses, or gradients, of two halves of the rows are not those of all of them."""
    drawn = draw_pairs(6, absent=0.2)
    embeds = [drawn.images.clone().requires_grad_(), drawn.texts.clone().requires_grad_()]
    all_pairs = replace(drawn, images=embeds[0], texts=embeds[1])
    whole = loss(all_pairs, all_pairs, **arguments)
    halves = []
    try:
        for rows in (slice(0, 3), slice(3, 6)):
            own = all_pairs.map(lambda values, rows=rows: values[rows])
            halves.append(loss(own, all_pairs, **arguments))
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"The losses of one of two processes cannot be computed: {error}") from error
    together = torch.cat(halves, dim=1)
    present = all_pairs.present.t()
    if together.shape != whole.shape or not torch.allclose(together[present], whole[present]):
        raise ValueError("The losses of two processes are not those of all rows: compare `pairs` with `all_pairs`.")
    expected = torch.autograd.grad(whole[present].sum(), embeds, materialize_grads=True)
    found = torch.autograd.grad(together[present].sum(), embeds, materialize_grads=True)
    for ours, theirs in zip(found, expected):
        if not torch.allclose(ours, theirs):
            raise ValueError(
                "The gradients of two processes do not add up to those of all rows: `all_pairs` needs its gradient, "
                "too, and what is detached must be so for one process and for several."
            )


def check_absent_texts(loss: LossFunction, arguments: dict) -> None:
    """Raises a `ValueError` if an absent text counts: if the losses of others depend on it, or on its embedding."""
    pairs = draw_pairs(6, absent=0.3)
    texts = pairs.texts.clone().requires_grad_()
    images = pairs.images.clone().requires_grad_()
    changed = replace(pairs, images=images, texts=texts)
    losses = loss(changed, changed, **arguments)
    counted = losses[pairs.present.t()]
    if not counted.isfinite().all():
        raise ValueError("The loss of a text that is there is not finite where another is absent.")
    gradient = torch.autograd.grad(counted.sum(), texts, materialize_grads=True)[0]
    if gradient[~pairs.present].any():
        raise ValueError("An absent text has a gradient: mask it by `pairs.present`.")


def check_absent_rows(loss: LossFunction, arguments: dict) -> None:
    """Raises a `ValueError` if images without any text count: if the losses of others are not those without them."""
    drawn = draw_pairs(6)
    kept = torch.tensor([0, 2, 3, 5])
    present = torch.zeros_like(drawn.present).index_fill(0, kept, True)
    pairs = replace(drawn, present=present, texts=drawn.texts.masked_fill(~present[..., None], 0))
    fewer = pairs.map(lambda values: values[kept])
    fewer = replace(fewer, indices=torch.arange(len(kept)))
    found = loss(pairs, pairs, **arguments)[:, kept]
    if not torch.allclose(found, loss(fewer, fewer, **arguments)):
        raise ValueError(
            "The losses of others depend on images without any text: leave out by `all_pairs.present` what is absent, "
            "and do not divide by the number of rows."
        )


def check_memory(loss: LossFunction, arguments: dict) -> None:
    """Raises a `ValueError` if a loss keeps a tensor of all similarities of a large batch."""
    pairs = draw_pairs(NUM_MANY_ROWS, num_long=0)
    images = pairs.images.float().requires_grad_()
    pairs = replace(pairs, images=images, texts=pairs.texts.float())
    single = {}
    for name, value in arguments.items():
        single[name] = value.float() if isinstance(value, torch.Tensor) else value
    saved = LargestSavedTensor()
    with saved:
        loss(pairs, pairs, **single).sum().backward()
    if saved.numel > BLOCK_SIZE:
        raise ValueError(
            f"The loss of {NUM_MANY_ROWS} rows keeps a tensor of {saved.numel} elements for its backward pass, more "
            f"than a block of {BLOCK_SIZE}: decorate it with `modeling_lotlip.losses.in_blocks`."
        )

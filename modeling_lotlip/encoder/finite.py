# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Embeddings that are no numbers, and why: the weights are none, or the precision does not hold what they give."""

from collections.abc import Callable
from itertools import chain

from torch import nn

from ..data.reader import Item
from .batches import EmbeddedBatch


def find_nonfinite_weight(*modules: nn.Module) -> str | None:
    """Returns the name of the first parameter or buffer of modules with NaN or infinity; None if there is none."""
    for module in modules:
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            if not tensor.isfinite().all():
                return name
    return None


def check_finite_batch(batch: EmbeddedBatch, model: nn.Module, describe: Callable[[Item], str]) -> None:
    """
    Checks that the embeddings of a batch are finite.

    Args:
        batch ([`EmbeddedBatch`]):
            Images or texts with their embeddings.
        model (`nn.Module`):
            What computed them.
        describe (`Callable[[Item], str]`):
            What messages call an image or a text.

    Raises:
        `ValueError`: if one is not finite; names it, and the first weight that is not finite either.
    """
    if batch.embeds is None:
        return
    are_finite = batch.embeds.isfinite().flatten(start_dim=1).all(dim=1).tolist()
    for item, is_finite in zip(batch.entries, are_finite):
        if is_finite:
            continue
        weight = find_nonfinite_weight(model)
        if weight is not None:
            raise ValueError(
                f"The model's embedding of {describe(item)} holds NaN or infinity, since its weights "
                f"do, `{weight}` first: load the model anew, or name another."
            )
        raise ValueError(
            f"The model's embedding of {describe(item)} holds NaN or infinity, though its weights are "
            "finite: choose a wider `dtype`."
        )


def check_nonzero_batch(batch: EmbeddedBatch, describe: Callable[[Item], str]) -> None:
    """
    Checks that the embeddings of a batch can be compared: one of zeros, as TIPSv2 has of a text without words, cannot.

    Args:
        batch ([`EmbeddedBatch`]):
            Texts with their embeddings.
        describe (`Callable[[Item], str]`):
            What messages call a text.

    Raises:
        `ValueError`: if one is of zeros; names it.
    """
    for item, is_nonzero in zip(batch.entries, batch.embeds.flatten(start_dim=1).any(dim=1).tolist()):
        if not is_nonzero:
            raise ValueError(f"The model's embedding of {describe(item)} is zero: give a text with words.")

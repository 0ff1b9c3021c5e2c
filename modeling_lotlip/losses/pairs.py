# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images with their texts, and the logits of some of them with all: what losses are made of."""

from collections.abc import Callable
from functools import partial, wraps
from typing import NamedTuple

import torch
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
        places (`torch.Tensor` of shape `(rows,)`):
            The place of each row among all rows.
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


def image_logits(own: Pairs, everyone: Pairs, scale: torch.Tensor) -> torch.Tensor:
    """
    Scaled similarities of own images with all texts, and with the hard negatives of each, (slots, own rows, all rows +
    negatives), what is not compared far below all others.
    """
    queries, compare = scale * own.images, _comparison(own)
    logits = _mask(compare(queries[None], everyone.texts.transpose(0, 1)), own, everyone)
    if own.hard_negatives is not None:
        of_negatives = compare(queries[:, None, None], own.hard_negatives)[:, :, 0]
        of_negatives = of_negatives.masked_fill(~(own.hard_negatives != 0).flatten(3).any(dim=3), LOWEST)
        logits = torch.cat([logits, of_negatives.transpose(0, 1)], dim=2)
    return logits


def text_logits(own: Pairs, everyone: Pairs, scale: torch.Tensor) -> torch.Tensor:
    """As [`image_logits`], of own texts with all images, (slots, own rows, all rows)."""
    return _mask(_comparison(own)(scale * own.texts.transpose(0, 1), everyone.images[None]), own, everyone)


def _comparison(own: Pairs) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Similarities (..., queries, keys) of queries and keys, (..., number, dim), or (..., number, length, dim)."""
    return late_interaction if own.images.dim() == 3 else lambda queries, keys: torch.matmul(queries, keys.mT)


def _mask(logits: torch.Tensor, own: Pairs, everyone: Pairs) -> torch.Tensor:
    """Logits (slots, own rows, all rows) without absent columns, and in the first slot without equals of a row."""
    present = everyone.present
    if not present.all():
        logits = logits.masked_fill(~present.t()[:, None], LOWEST)
    if own.groups is not None:
        is_equal = (own.groups[:, None] == everyone.groups) & (own.places[:, None] != everyone.places)
        logits = torch.cat([logits[:1].masked_fill(is_equal, LOWEST), logits[1:]])
    return logits


def in_blocks(loss_function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """
    A loss (slots, own rows) of own rows, everyone and more, computed for blocks of own rows and, in the backward pass,
    once more: memory grows with the rows, not with their square.
    """
    compute = partial(
        checkpoint, loss_function, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )

    @wraps(loss_function)
    def of_blocks(own: Pairs, everyone: Pairs, *arguments, **options) -> torch.Tensor:
        tokens = own.images.shape[1:-1].numel() * own.texts.shape[2:-1].numel()  # that are compared for a pair
        num_rows = max(1, BLOCK_SIZE // (everyone.texts.shape[:2].numel() * tokens))
        starts = range(0, len(own.images), num_rows)
        blocks = [map_pairs(lambda values, start=start: values[start : start + num_rows], own) for start in starts]
        return torch.cat([compute(block, everyone, *arguments, **options) for block in blocks], dim=1)

    return of_blocks

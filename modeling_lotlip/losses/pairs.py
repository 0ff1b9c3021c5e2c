# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images with their texts, and the logits of some of them with all: what losses are made of."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.checkpoint import checkpoint


Similarities = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

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
        places (`torch.Tensor` of shape `(rows,)`, *optional*):
            The place of each row among all rows, where there are groups.
        groups (`torch.Tensor` of shape `(rows,)`, *optional*):
            Integers. In the first slot, images of the same group are no negatives of each other.
        hard_negatives (`torch.Tensor` of shape `(rows, negatives, slots, dim)`, *optional*):
            Texts that are false of the image of their row, and negatives of it alone (Yuksekgonul et al., 2023,
            https://arxiv.org/abs/2210.01936, who compare them with all images); zero where there is none.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs

    >>> Pairs(torch.eye(2), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])).present
    tensor([[ True],
            [False]])
    ```"""

    images: torch.Tensor
    texts: torch.Tensor
    places: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    hard_negatives: torch.Tensor | None = None

    @property
    def present(self) -> torch.Tensor:
        """Whether there is a text, (rows, slots)."""
        return (self.texts != 0).flatten(2).any(dim=2)


def map_pairs(function: Callable[[torch.Tensor], torch.Tensor], pairs: Pairs) -> Pairs:
    """Pairs with each tensor changed."""
    return Pairs(*(function(values) if values is not None else None for values in pairs))


def dot_products(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Similarities (slots, queries, keys) of queries (queries, slots, dim) and keys (keys, slots, dim)."""
    return torch.matmul(queries.transpose(0, 1), keys.permute(1, 2, 0))


def image_logits(
    own: Pairs, everyone: Pairs, logit_scale: torch.Tensor, similarities: Similarities = dot_products
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logits of own images with all texts, and with the hard negatives of each, (slots, own rows, all rows + negatives),
    what is not compared far below all others; and those of the pairs among them, (slots, own rows).

    Args:
        own, everyone ([`Pairs`]):
            Some rows, and all.
        logit_scale (`torch.Tensor` of shape `()`):
            What similarities are multiplied by.
        similarities (`Callable`, *optional*):
            Gives similarities (slots, queries, keys) of queries (queries, slots, ..., dim) and keys (keys, slots, ...,
            dim), which grow with the length of a query; of images there is one slot. By default dot products.
    """
    queries = logit_scale * own.images[:, None]
    logits = _mask(similarities(queries, everyone.texts), own, everyone)
    if own.hard_negatives is not None:
        of_negatives = torch.vmap(similarities)(queries[:, None], own.hard_negatives)[:, :, 0]
        is_absent = ~(own.hard_negatives != 0).flatten(3).any(dim=3).transpose(1, 2)
        logits = torch.cat([logits, of_negatives.masked_fill(is_absent, LOWEST).transpose(0, 1)], dim=2)
    return logits, _logits_of_pairs(queries, own.texts, similarities)


def text_logits(
    own: Pairs, everyone: Pairs, logit_scale: torch.Tensor, similarities: Similarities = dot_products
) -> tuple[torch.Tensor, torch.Tensor]:
    """As [`image_logits`], of own texts with all images, (slots, own rows, all rows), and of the pairs."""
    queries = logit_scale * own.texts
    logits = _mask(similarities(queries, everyone.images[:, None]), own, everyone)
    return logits, _logits_of_pairs(queries, own.images[:, None], similarities)


def _logits_of_pairs(queries: torch.Tensor, keys: torch.Tensor, similarities: Similarities) -> torch.Tensor:
    """Those (slots, rows) of each query with the key of its row."""
    return torch.vmap(similarities)(queries[:, None], keys[:, None])[:, :, 0, 0].t()


def _mask(logits: torch.Tensor, own: Pairs, everyone: Pairs) -> torch.Tensor:
    """Logits (slots, own rows, all rows) without absent columns, and in the first slot without equals of a row."""
    present = everyone.present
    if not present.all():
        logits = logits.masked_fill(~present.t()[:, None], LOWEST)
    if own.groups is not None:
        is_equal = (own.groups[:, None] == everyone.groups) & (own.places[:, None] != everyone.places)
        logits = torch.cat([logits[:1].masked_fill(is_equal, LOWEST), logits[1:]])
    return logits


def row_by_row(
    function: Callable[..., torch.Tensor], own: Pairs, everyone: Pairs, *scalars: torch.Tensor
) -> torch.Tensor:
    """
    The losses (slots, own rows) that a function gives of some own rows, everyone and scalars, computed for blocks of
    rows and, in the backward pass, once more: memory grows with the rows, not with their square.
    """
    tokens = own.images.shape[1:-1].numel() * own.texts.shape[2:-1].numel()  # that are compared for a pair
    num_rows = max(1, BLOCK_SIZE // (everyone.texts.shape[:2].numel() * tokens))
    starts = range(0, len(own.images), num_rows)
    blocks = [map_pairs(lambda values, start=start: values[start : start + num_rows], own) for start in starts]
    compute = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False, determinism_check="none")
    return torch.cat([compute(block, everyone, *scalars) for block in blocks], dim=1)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images with their texts, and the logits of some of them with all: what losses are made of."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.checkpoint import checkpoint


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
            Normalised embeddings, or `(rows, slots, text_length, dim)`; zero where there is none.
        present (`torch.Tensor` of shape `(rows, slots)`):
            False where an image lacks the text of a slot: it is neither positive nor negative there.
        places (`torch.Tensor` of shape `(rows,)`):
            The place of each row among all rows.
        groups (`torch.Tensor` of shape `(rows,)`, *optional*):
            Integers. In the first slot, images of the same group are no negatives of each other.
        hard_negatives (`torch.Tensor` of shape `(rows, negatives, slots, dim)`, *optional*):
            Texts that are false of the image of their row, and negatives of it alone (Yuksekgonul et al., 2023,
            https://arxiv.org/abs/2210.01936, who compare them with all images); zero where there is none.
    """

    images: torch.Tensor
    texts: torch.Tensor
    present: torch.Tensor
    places: torch.Tensor
    groups: torch.Tensor | None = None
    hard_negatives: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Pairs":
        """The pairs with each tensor changed."""
        return Pairs(*(function(values) if values is not None else None for values in self))


def make_pairs(images: torch.Tensor, texts: torch.Tensor) -> Pairs:
    """
    All pairs of one process.

    Args:
        images (`torch.Tensor` of shape `(rows, dim)`):
            Normalised embeddings.
        texts (`torch.Tensor` of shape `(rows, slots, dim)`):
            Normalised embeddings, zero where a text is absent.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import make_pairs

    >>> make_pairs(torch.eye(2), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])).present
    tensor([[ True],
            [False]])
    ```"""
    return Pairs(images, texts, is_present(texts), torch.arange(len(images), device=images.device))


def is_present(texts: torch.Tensor) -> torch.Tensor:
    """Whether there is a text (rows, slots), in embeddings (rows, slots, ..., dim)."""
    return (texts != 0).flatten(2).any(dim=2)


def dot_products(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Similarities (slots, queries, keys) of queries (queries, slots, dim) and keys (keys, slots, dim)."""
    return torch.matmul(queries.transpose(0, 1), keys.permute(1, 2, 0))


def image_logits(
    own: Pairs,
    everyone: Pairs,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor | None = None,
    similarities: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = dot_products,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logits of own images with all texts, and with the hard negatives of each, (slots, own rows, all rows + negatives),
    what is not compared far below all others; and those of the pairs among them, (slots, own rows).

    Args:
        own, everyone ([`Pairs`]):
            Some rows, and all.
        logit_scale, logit_bias (`torch.Tensor` of shape `()`):
            What similarities are multiplied by, and what is added.
        similarities (`Callable`, *optional*):
            Gives similarities (slots, queries, keys) of queries (queries, slots, ..., dim) and keys (keys, slots, ...,
            dim), which grow with the length of a query; of images there is one slot. By default dot products.
    """
    queries = logit_scale * own.images[:, None]
    logits = _mask(_add(similarities(queries, everyone.texts), logit_bias), own, everyone)
    if own.hard_negatives is not None:
        of_negatives = torch.vmap(similarities)(queries[:, None], own.hard_negatives)[:, :, 0].transpose(0, 1)
        are_there = is_present(own.hard_negatives.flatten(0, 1)).unflatten(0, own.hard_negatives.shape[:2])
        of_negatives = _add(of_negatives, logit_bias).masked_fill(~are_there.permute(2, 0, 1), LOWEST)
        logits = torch.cat([logits, of_negatives], dim=2)
    return logits, _add(_logits_of_pairs(queries, own.texts, similarities), logit_bias)


def text_logits(
    own: Pairs,
    everyone: Pairs,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor | None = None,
    similarities: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = dot_products,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As [`image_logits`], of own texts with all images, (slots, own rows, all rows), and of the pairs."""
    queries = logit_scale * own.texts
    logits = _mask(_add(similarities(queries, everyone.images[:, None]), logit_bias), own, everyone)
    return logits, _add(_logits_of_pairs(queries, own.images[:, None], similarities), logit_bias)


def _add(logits: torch.Tensor, logit_bias: torch.Tensor | None) -> torch.Tensor:
    return logits if logit_bias is None else logits + logit_bias


def _logits_of_pairs(queries: torch.Tensor, keys: torch.Tensor, similarities: Callable) -> torch.Tensor:
    """Those (slots, rows) of each query with the key of its row."""
    return torch.vmap(similarities)(queries[:, None], keys[:, None])[:, :, 0, 0].t()


def _mask(logits: torch.Tensor, own: Pairs, everyone: Pairs) -> torch.Tensor:
    """Logits (slots, own rows, all rows) without absent columns, and in the first slot without equals of a row."""
    if not everyone.present.all():
        logits = logits.masked_fill(~everyone.present.t()[:, None], LOWEST)
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

    Args:
        function (`Callable`):
            Gives losses (slots, rows) of [`Pairs`] of these rows, of those of all rows, and of scalars.
        own, everyone ([`Pairs`]):
            The rows of this process, and of all.
        scalars (`torch.Tensor` of shape `()`):
            Such as `logit_scale`.
    """
    tokens = own.images.shape[1:-1].numel() * own.texts.shape[2:-1].numel()  # that are compared for a pair
    num_rows = max(1, BLOCK_SIZE // (everyone.present.numel() * tokens))
    blocks = [own.map(lambda values, i=i: values[i : i + num_rows]) for i in range(0, len(own.images), num_rows)]
    compute = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False, determinism_check="none")
    return torch.cat([compute(block, everyone, *scalars) for block in blocks], dim=1)

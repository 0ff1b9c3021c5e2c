# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive loss of FILIP: images and texts compared token by token."""

import torch

from .contrastive_loss import contrastive_loss
from .pairs import LOWEST, Pairs, dot_products


def token_wise_loss(own: Pairs, everyone: Pairs, logit_scale: torch.Tensor) -> torch.Tensor:
    """
    Images are classified among texts by the similarity of image to text, texts among images by that of text to image
    (Yao et al., 2021, https://arxiv.org/abs/2111.07783, section 3.1): see `late_interaction`.

    Args:
        own (`Pairs`):
            The rows whose losses are computed, with embeddings of all tokens, zero where a text has none.
        everyone (`Pairs`):
            All rows, which they are compared with.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm), above 0.

    Returns:
        `torch.Tensor` of shape `(slots, own rows)`: of use where a text is present.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, token_wise_loss

    >>> images = torch.eye(4)[:, None].expand(4, 3, 4)  # three tokens of an image
    >>> pairs = Pairs(images, torch.eye(4)[:, None, None].expand(4, 1, 2, 4))  # two tokens of a text
    >>> token_wise_loss(pairs, pairs, torch.tensor(2.0))
    tensor([[0.3408, 0.3408, 0.3408, 0.3408]])
    ```"""
    return contrastive_loss(own, everyone, logit_scale, late_interaction)


def late_interaction(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """
    Similarities (slots, queries, keys) of queries (queries, slots, length, dim) to keys (keys, slots, length, dim):
    the mean over a query's tokens of the dot product with the key's token that is most similar (equations 4 and 5). A
    token of zeros is none. Either may have a single slot.
    """
    products = dot_products(queries.transpose(1, 2).flatten(0, 1), keys.transpose(1, 2).flatten(0, 1))
    products = products.unflatten(2, (len(keys), -1)).unflatten(1, (len(queries), -1))
    of_tokens = products.masked_fill(~_is_token(keys).transpose(0, 1)[:, None, None], LOWEST).amax(dim=4)
    is_token = _is_token(queries).transpose(0, 1)[..., None]  # (slots, queries, length, 1)
    return of_tokens.masked_fill(~is_token, 0).sum(dim=2) / is_token.sum(dim=2).clamp(min=1)


def _is_token(embeds: torch.Tensor) -> torch.Tensor:
    return (embeds != 0).any(dim=-1)

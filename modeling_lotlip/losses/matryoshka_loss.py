# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The loss of embeddings of which the first numbers alone are embeddings too.

Kusupati et al., 2022, Matryoshka Representation Learning, https://arxiv.org/abs/2205.13147.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import normalize


def matryoshka_loss(
    loss_function: Callable[..., torch.Tensor | tuple[torch.Tensor, torch.Tensor]],
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    dims: Sequence[int],
    **arguments: object,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    The mean of a loss of whole embeddings and of the same loss of their first `dim` numbers, normalised, for each of
    the dims: Equation 1 of the paper with equal weights, here for a contrastive loss.

    Args:
        loss_function (`Callable`):
            A loss of this package, such as [`blockwise_contrastive_loss`].
        image_embeds (`torch.Tensor` of shape `(batch_size, ..., dim)`):
            Normalised embeddings of images.
        text_embeds (`torch.Tensor` of shape `(batch_size, ..., dim)`):
            Normalised embeddings of texts; zero where a caption is absent.
        dims (`Sequence[int]`):
            Numbers of dimensions. That of whole embeddings counts once, whether it is among them or not.
        arguments:
            Those of the loss function.

    Returns:
        `torch.Tensor` of shape `()`, or what else the loss function returns: a pair of it and the losses of the slots.

    Raises:
        `ValueError`: if a number of dimensions is not from 1 to that of the embeddings.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import blockwise_contrastive_loss, matryoshka_loss

    >>> images, texts = torch.eye(4), torch.eye(4)[:, None]
    >>> scale = torch.tensor(10.0)
    >>> blockwise_contrastive_loss(images, texts, logit_scale=scale)
    tensor(0.0001)
    >>> matryoshka_loss(blockwise_contrastive_loss, images, texts, [2], logit_scale=scale)
    tensor(0.3467)
    ```"""
    check_dims(dims, image_embeds.shape[-1])
    results = [loss_function(image_embeds, text_embeds, **arguments)]
    for dim in sorted(set(dims) - {image_embeds.shape[-1]}):
        prefixes = (normalize(embeds[..., :dim].float(), dim=-1) for embeds in (image_embeds, text_embeds))
        results.append(loss_function(*prefixes, **arguments))
    if isinstance(results[0], tuple):
        return tuple(torch.stack(parts).mean(dim=0) for parts in zip(*results))
    return torch.stack(results).mean()


def check_dims(dims: Sequence[int], num_dims: int, argument: str = "dims") -> None:
    """
    Refuses numbers of dimensions that embeddings do not have.

    Raises:
        `ValueError`: if one is not from 1 to `num_dims`.
    """
    for dim in dims:
        if not 1 <= dim <= num_dims:
            raise ValueError(f"`{argument}` must be from 1 to {num_dims}, the dimensions of an embedding, got {dim}.")

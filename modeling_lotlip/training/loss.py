# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The loss of a global batch, whose rows are spread over the processes."""

from typing import NamedTuple

import torch
from accelerate import Accelerator

from .. import losses
from .objectives import Objective


class GlobalLoss(NamedTuple):
    """
    The loss over the global batch, the same on every process, and what it is made of.

    Args:
        loss (`torch.Tensor` of shape `()`):
            The loss.
        slot_losses (`torch.Tensor` of shape `(slots,)`):
            That of each slot, not a number where it has no two pairs.
        image_embeds, text_embeds (`torch.Tensor`):
            The embeddings of this process's rows, without gradients.
    """

    loss: torch.Tensor
    slot_losses: torch.Tensor
    image_embeds: torch.Tensor
    text_embeds: torch.Tensor


def global_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    batch: dict[str, torch.Tensor],
    objective: Objective,
    accelerator: Accelerator,
    keep_duplicate_negatives: bool = False,
    **other_scalars: torch.Tensor,
) -> GlobalLoss:
    """
    The loss over the global batch, the same on every process. Each has its gradient for the own rows, multiplied by
    the number of processes because data parallelism averages over them: what reaches the parameters is the gradient of
    the global batch.

    Args:
        image_embeds, text_embeds (`torch.Tensor`):
            The embeddings of this process's rows, as the model outputs them.
        logit_scale (`torch.Tensor` of one element):
            The logarithm of the inverse temperature.
        batch (`dict[str, torch.Tensor]`):
            The inputs of the model, on any device.
        objective (`Objective`):
            The loss.
        accelerator (`Accelerator`):
            The processes.
        keep_duplicate_negatives (`bool`, *optional*, defaults to `False`):
            Whether images with the same short caption are negatives of each other.
        other_scalars (`torch.Tensor` of one element):
            Those of the objective, by name.
    """
    for embeds in (image_embeds, text_embeds):
        if embeds.requires_grad:
            embeds.register_hook(lambda gradient: gradient * accelerator.num_processes)
    loss, slot_losses = losses.matryoshka_loss(
        getattr(losses, objective.loss),
        image_embeds,
        text_embeds,
        objective.matryoshka_dims,
        logit_scale=logit_scale.exp().reshape(()),
        **{name: scalar.reshape(()) for name, scalar in other_scalars.items()},
        **objective.loss_options,
        present=(text_embeds != 0).any(dim=-1),  # the embedding of an absent caption is zero
        short_groups=None if keep_duplicate_negatives else group_short_captions(batch, accelerator),
        gather=accelerator.gather,
        process_index=accelerator.process_index,
        return_slot_losses=True,
    )
    return GlobalLoss(loss, slot_losses, image_embeds.detach(), text_embeds.detach())


def group_short_captions(batch: dict[str, torch.Tensor], accelerator: Accelerator) -> torch.Tensor:
    """A number for each own row (rows,), the same for rows of the global batch whose short captions are the same."""
    short_ids = batch["short_input_ids"] * batch["short_attention_mask"]  # padded with 0 here and across processes
    short_ids = short_ids.to(accelerator.device)
    short_ids = accelerator.gather(accelerator.pad_across_processes(short_ids, dim=1))
    _, groups = short_ids.unique(dim=0, return_inverse=True)
    return groups.unflatten(0, (accelerator.num_processes, -1))[accelerator.process_index]

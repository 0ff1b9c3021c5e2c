# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One step of training: a function of model, batch, objective and processes, with a result."""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import pad_across_processes
from torch import nn

from ..losses import LOSSES, global_loss
from ..losses.global_loss import GlobalLoss, gather_rows
from .dual_encoder import ContrastiveModel, clamp_logit_scale
from .groups import BatchGroups, count_image_tokens
from .objectives import Objective


@dataclass
class StepResult:
    """
    What came of a batch.

    Args:
        loss (`GlobalLoss`):
            Its loss.
        is_update (`bool`):
            Whether the step of the optimizer was due: not before the last batch of an accumulation.
        is_taken (`bool`):
            Whether it was taken: not if loss or gradients are not finite.
        gradient_norm (`float`, *optional*):
            The norm of the gradients before they were clipped.
    """

    loss: GlobalLoss
    is_update: bool = False
    is_taken: bool = False
    gradient_norm: float | None = None


def parameter_groups(model: ContrastiveModel, weight_decay: float) -> list[dict]:
    """Matrices decay; norms, biases, corner tokens, temperature and bias (which are never sharded) do not."""
    scalars = [scalar for scalar in model.scalars.values() if scalar.requires_grad]
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(parameter is scalar for scalar in scalars):
            is_kept = parameter.dim() < 2 or name.endswith("corner_tokens")
            (kept if is_kept else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
        {"params": scalars, "weight_decay": 0.0},
    ]


def batch_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    batch: dict[str, torch.Tensor],
    objective: Objective,
    keep_duplicate_negatives: bool = False,
    **other_scalars: torch.Tensor,
) -> GlobalLoss:
    """
    The loss over the global batch: see [`global_loss`].

    Args:
        image_embeds, text_embeds (`torch.Tensor`):
            The embeddings of this process's rows, as the model outputs them.
        logit_scale (`torch.Tensor` of one element):
            The logarithm of the inverse temperature.
        batch (`dict[str, torch.Tensor]`):
            The inputs of the model, on any device.
        objective (`Objective`):
            The loss.
        keep_duplicate_negatives (`bool`, *optional*, defaults to `False`):
            Whether images with the same short caption are negatives of each other.
        other_scalars (`torch.Tensor` of one element):
            Those of the model, by name.
    """
    groups = None if keep_duplicate_negatives else group_short_captions(batch, image_embeds.device)
    return global_loss(
        LOSSES[objective.loss],
        image_embeds,
        text_embeds,
        short_groups=groups,
        num_hard_negatives=objective.num_hard_negatives,
        matryoshka_dims=objective.matryoshka_dims,
        logit_scale=logit_scale.exp(),
        **other_scalars,
        **objective.loss_options,
    )


def group_short_captions(batch: dict[str, torch.Tensor], device: torch.device) -> torch.Tensor | None:
    """
    A number for each own row (rows,), the same for rows of the global batch whose short captions are the same; none if
    all differ.
    """
    short_ids = batch["short_input_ids"].to(device)
    if batch.get("short_attention_mask") is not None:
        short_ids = short_ids * batch["short_attention_mask"].to(device)  # padded with 0 here and across processes
    _, groups = gather_rows(pad_across_processes(short_ids, dim=1)).unique(dim=0, return_inverse=True)
    if int(groups.max()) == len(groups) - 1:
        return None
    rank = dist.get_rank() if dist.is_initialized() else 0
    return groups[rank * len(short_ids) :][: len(short_ids)]


def train_step(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    accelerator: Accelerator,
    *,
    keep_duplicate_negatives: bool = False,
    tokens_per_chunk: int | None = None,
    max_grad_norm: float = 1.0,
) -> StepResult:
    """
    Adds the gradients of a batch, and takes the step of the optimizer after the last batch of an accumulation.

    Args:
        model (`nn.Module`):
            A [`ContrastiveModel`], as `accelerator.prepare` returned it.
        batch (`dict[str, torch.Tensor]`):
            Its inputs: this process's rows of the global batch, on any device. They are computed in groups of captions
            of like length: see [`BatchGroups`].
        optimizer (`Optimizer`):
            As `accelerator.prepare` returned it.
        objective (`Objective`):
            The loss.
        accelerator (`Accelerator`):
            The processes, the precision and the accumulation.
        keep_duplicate_negatives (`bool`, *optional*, defaults to `False`):
            Whether images with the same short caption are negatives of each other.
        tokens_per_chunk (`int`, *optional*):
            Embed N tokens of captions and images at a time, and again in the backward pass, to save memory.
        max_grad_norm (`float`, *optional*, defaults to 1.0):
            Clip the gradients to this norm; 0: do not.
    """
    with accelerator.accumulate(model):
        loss_function = partial(
            batch_loss,
            batch=batch,
            objective=objective,
            keep_duplicate_negatives=keep_duplicate_negatives,
        )
        unwrapped_model = accelerator.unwrap_model(model)
        groups = BatchGroups(
            batch,
            accelerator,
            tokens_per_chunk,
            count_image_tokens(unwrapped_model.model.config.vision_config, batch),
        )
        embeds = groups.embed(model, accelerator.device, recompute=tokens_per_chunk is not None)
        loss = loss_function(*embeds, **unwrapped_model.scalars)
        accelerator.backward(loss.loss)
        if not accelerator.sync_gradients:
            return StepResult(loss)
        return update(model, optimizer, loss, max_grad_norm, accelerator)


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: GlobalLoss,
    max_grad_norm: float,
    accelerator: Accelerator,
) -> StepResult:
    """Takes the step of the optimizer, unless loss or gradients are not finite."""
    norm = float(accelerator.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf))
    is_taken = math.isfinite(loss.loss.item()) and math.isfinite(norm)
    if is_taken:
        optimizer.step()
        clamp_logit_scale(accelerator.unwrap_model(model).model)
        is_taken = not accelerator.optimizer_step_was_skipped
    elif accelerator.scaler is not None:
        accelerator.scaler.update()  # lowers the scale: clipping has looked for infinite gradients
    optimizer.zero_grad()
    return StepResult(loss, True, is_taken, norm)

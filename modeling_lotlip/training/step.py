# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One step of training: a function of model, batch, loss and processes, with a result."""

import math
from collections.abc import Callable
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
from .objectives import OBJECTIVES


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


def make_loss(
    objective: str, has_bias: bool = False, **options: bool | int | list[int] | None
) -> Callable[..., GlobalLoss]:
    """
    The loss of an objective: [`batch_loss`] of embeddings, batch and scalars alone.

    Args:
        objective (`str`):
            One of `OBJECTIVES`.
        has_bias (`bool`, *optional*, defaults to `False`):
            Whether the model has a bias of its logits: its loss is sigmoid in place of contrastive.
        options:
            Further ones of [`global_loss`], and `keep_duplicate_negatives`.

    Raises:
        `ValueError`: if the loss needs a bias and the model has none, or the other way round.
    """
    name = OBJECTIVES[objective].loss
    if has_bias and name == "contrastive":
        name = "sigmoid"
    if has_bias != (name == "sigmoid"):
        fitting = ("contrastive", "sigmoid") if has_bias else LOSSES.keys() - {"sigmoid"}
        names = ", ".join(other for other in OBJECTIVES if OBJECTIVES[other].loss in fitting)
        kind = "without" if has_bias else "with"
        raise ValueError(f"`--objective {objective}` is for a model {kind} a `logit_bias`: choose one of {names}.")
    return partial(batch_loss, LOSSES[name], **OBJECTIVES[objective].loss_options, **options)


def batch_loss(
    loss_function: Callable[..., torch.Tensor],
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    batch: dict[str, torch.Tensor],
    logit_scale: torch.Tensor,
    keep_duplicate_negatives: bool = False,
    **options: torch.Tensor | int,
) -> GlobalLoss:
    """
    The loss over the global batch: see [`global_loss`].

    Args:
        loss_function (`Callable`):
            A loss of `LOSSES`.
        image_embeds, text_embeds (`torch.Tensor`):
            The embeddings of this process's rows, as the model outputs them.
        batch (`dict[str, torch.Tensor]`):
            The inputs of the model, on any device.
        logit_scale (`torch.Tensor` of one element):
            The logarithm of the inverse temperature.
        keep_duplicate_negatives (`bool`, *optional*, defaults to `False`):
            Whether images with the same short caption are negatives of each other.
        options:
            Further arguments of [`global_loss`], such as `logit_bias`.
    """
    groups = None if keep_duplicate_negatives else group_short_captions(batch, image_embeds.device)
    embeds = image_embeds, text_embeds
    return global_loss(loss_function, *embeds, short_groups=groups, logit_scale=logit_scale.exp(), **options)


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
    loss_function: Callable[..., GlobalLoss],
    accelerator: Accelerator,
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
        loss_function (`Callable`):
            As [`make_loss`] returns it.
        accelerator (`Accelerator`):
            The processes, the precision and the accumulation.
        tokens_per_chunk (`int`, *optional*):
            Embed N tokens of captions and images at a time, and again in the backward pass, to save memory.
        max_grad_norm (`float`, *optional*, defaults to 1.0):
            Clip the gradients to this norm; 0: do not.
    """
    with accelerator.accumulate(model):
        trained = accelerator.unwrap_model(model)
        tokens_per_image = count_image_tokens(trained.model.config.vision_config, batch)
        groups = BatchGroups(batch, accelerator, tokens_per_chunk, tokens_per_image)
        embeds = groups.embed(model, accelerator.device, recompute=tokens_per_chunk is not None)
        loss = loss_function(*embeds, batch, **trained.scalars)
        accelerator.backward(loss.loss)
        if not accelerator.sync_gradients:
            return StepResult(loss)
        norm = float(accelerator.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf))
        is_taken = math.isfinite(loss.loss.item()) and math.isfinite(norm)
        if is_taken:
            optimizer.step()
            clamp_logit_scale(trained.model)
            is_taken = not accelerator.optimizer_step_was_skipped
        elif accelerator.scaler is not None:
            accelerator.scaler.update()  # lowers the scale: clipping has looked for infinite gradients
        optimizer.zero_grad()
        return StepResult(loss, True, is_taken, norm)

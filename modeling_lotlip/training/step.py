# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One step of training: a function of model, batch, loss and processes, with a result."""

import math
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from ..losses import LOSSES, global_loss
from .dual_encoder import ContrastiveModel, clamp_logit_scale
from .groups import Batch, count_image_tokens, embed_batch
from .objectives import OBJECTIVES


class StepResult(NamedTuple):
    """What came of a batch: its losses, as [`global_loss`] gives them, and whether the weights were changed."""

    loss: torch.Tensor
    slot_losses: torch.Tensor
    is_update: bool = False  # whether the step of the optimizer was due: after the last batch of an accumulation
    is_taken: bool = False  # not if loss or gradients are not finite
    gradient_norm: float | None = None  # before they were clipped


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


def make_loss(objective: str, has_bias: bool = False, **options: int | list[int]) -> Callable[..., tuple]:
    """[`global_loss`] with the loss of an objective, sigmoid in place of contrastive for a model with a bias."""
    name = OBJECTIVES[objective].loss
    if has_bias and name == "contrastive":
        name = "sigmoid"
    if has_bias != (name == "sigmoid"):
        kind = "without" if has_bias else "with"
        raise ValueError(f"`--objective {objective}` is for a model {kind} a `logit_bias`: choose another one.")
    return partial(global_loss, LOSSES[name], **options)


def group_short_captions(batch: Batch) -> torch.Tensor:
    """A number for each row (rows,), on every process the same for the same short caption."""
    short_ids = batch["short_input_ids"]
    if batch.get("short_attention_mask") is not None:
        short_ids = short_ids * batch["short_attention_mask"]
    digests = [sha256(ids.tobytes().rstrip(b"\0")).digest() for ids in short_ids.cpu().numpy()]
    return torch.tensor([int.from_bytes(digest[:7], "big") for digest in digests], device=short_ids.device)


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    loss_function: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    accelerator: Accelerator,
    tokens_per_chunk: int | None = None,
    max_grad_norm: float = 1.0,
    keep_duplicate_negatives: bool = False,
) -> StepResult:
    """
    Adds the gradients of a batch, this process's rows on any device, and takes the step of the optimizer after the
    last batch of an accumulation, with gradients clipped to a norm (0: none).

    Model (a [`ContrastiveModel`]) and optimizer are as `accelerator.prepare` returned them, the loss function as
    [`make_loss`]. With `tokens_per_chunk` that many tokens of captions and images are embedded at a time, and again in
    the backward pass, to save memory. Images with the same short caption are no negatives unless they are to be.
    """
    with accelerator.accumulate(model):
        trained = accelerator.unwrap_model(model)
        sizes = {"tokens_per_group": tokens_per_chunk}
        sizes["tokens_per_image"] = count_image_tokens(trained.model.config.vision_config, batch)
        embeds = embed_batch(model, batch, accelerator, recompute=tokens_per_chunk is not None, **sizes)
        groups = None if keep_duplicate_negatives else group_short_captions(batch).to(accelerator.device)
        scalars = trained.scalars | {"logit_scale": trained.model.logit_scale.exp()}
        losses = loss_function(*embeds, short_groups=groups, **scalars)
        accelerator.backward(losses[0])
        if not accelerator.sync_gradients:
            return StepResult(*losses)
        norm = float(accelerator.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf))
        is_taken = math.isfinite(losses[0].item()) and math.isfinite(norm)
        if is_taken:
            optimizer.step()
            clamp_logit_scale(trained.model)
            is_taken = not accelerator.optimizer_step_was_skipped
        elif accelerator.scaler is not None:
            accelerator.scaler.update()  # lowers the scale: clipping has looked for infinite gradients
        optimizer.zero_grad()
        return StepResult(*losses, True, is_taken, norm)

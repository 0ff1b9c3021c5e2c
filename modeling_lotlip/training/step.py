# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One step of training, on a batch in groups of captions of like length, so that little is computed for padding."""

import math
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from itertools import accumulate
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from transformers import PreTrainedConfig

from ..encoder.lengths import group_by_length
from ..losses import LOSSES, global_loss
from .dual_encoder import ContrastiveModel, clamp_logit_scale, concatenate
from .objectives import OBJECTIVES
from .processes import largest


Batch = dict[str, torch.Tensor]

# What a further forward and backward pass costs beside its tokens, in tokens of BERT-base: on a CPU the sum of its
# gradients with those before, on an accelerator the start of its kernels (estimated, not measured).
TOKENS_PER_CALL = {"cpu": 128, "accelerator": 8192}


def count_image_tokens(config: PreTrainedConfig, batch: Batch) -> int:
    """The tokens of each image that a tower of a configuration computes, none where its output is given."""
    if "pixel_values" not in batch:
        return 0
    shape, patch_size = batch["pixel_values"].shape, config.patch_size
    if len(shape) == 3:  # patches (SigLIP 2)
        return shape[1]
    return 1 + shape[-2:].numel() // (patch_size**2 if isinstance(patch_size, int) else math.prod(patch_size))


def split_batch(
    batch: Batch, accelerator: Accelerator, tokens_per_group: int | None = None, tokens_per_image: int = 0
) -> tuple[list[Batch], list[torch.Tensor]]:
    """
    A batch as smaller ones, each padded to its own longest captions; as many on every process, since with sharded
    parameters (FSDP2) all take part in every call. The embedding of a caption does not depend on the image beside it:
    so the captions of each kind are sorted by length, as the second result says, and the images keep their order. A
    group has `tokens_per_group` at most, padding and images included, or a single row.
    """
    num_rows, batch, lengths, orders = len(batch["short_input_ids"]), dict(batch), {}, []
    work = torch.full((num_rows,), tokens_per_image)
    for prefix in ("short_", ""):
        if (input_ids := batch.get(f"{prefix}input_ids")) is not None:
            mask = batch.get(f"{prefix}attention_mask", torch.ones_like(input_ids))
            places = torch.arange(1, input_ids.shape[-1] + 1, device=input_ids.device) * (mask != 0)
            sorted_lengths, order = places.amax(dim=-1).flatten().sort(descending=True, stable=True)
            for name in {f"{prefix}input_ids", f"{prefix}attention_mask"} & batch.keys():
                batch[name] = batch[name].flatten(0, -2)[order].view_as(batch[name])
                lengths[name] = sorted_lengths.view(num_rows, -1)[:, 0].cpu()  # the first of a row is the longest
            work += input_ids.shape[1:-1].numel() * lengths[f"{prefix}input_ids"]
            orders.append(order)

    tokens_per_call = TOKENS_PER_CALL["cpu" if accelerator.device.type == "cpu" else "accelerator"]
    sizes = [len(places) for places in group_by_length(work.tolist(), tokens_per_call, tokens_per_group)]
    for _ in range(largest(len(sizes), accelerator) - len(sizes)):
        most = sizes.index(max(sizes))
        sizes[most : most + 1] = [sizes[most] - sizes[most] // 2, sizes[most] // 2]
    parts = zip(*(values.split(sizes) for values in batch.values()))
    groups = [dict(zip(batch, part)) for part in parts]
    for group, start in zip(groups, accumulate([0, *sizes])):
        group |= {name: group[name][..., : max(1, int(length[start]))] for name, length in lengths.items()}
    return groups, orders


def embed_batch(
    model: nn.Module, batch: Batch, accelerator: Accelerator, recompute: bool = False, **options: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The [`ContrastiveModel`]'s image embeddings and text embeddings of a batch, from a call for each group that
    [`split_batch`], with its options, makes of it; `recompute` is that of the model's forward.
    """
    groups, orders = split_batch(batch, accelerator, **options)
    outputs = [model(**send_to_device(group, accelerator.device), recompute=recompute) for group in groups]
    images, texts = torch.cat([images for images, _ in outputs]), concatenate([texts for _, texts in outputs], dim=0)
    captions = []
    for order, of_kind in zip(orders, (texts[:, :1], texts[:, 1:])):
        by_caption = of_kind.reshape(len(order), -1, *of_kind.shape[2:])
        captions.append(by_caption[order.argsort().to(by_caption.device)].view(of_kind.shape))
    return images, torch.cat(captions, dim=1)


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
    groups = (decayed, weight_decay), (kept, 0.0), (scalars, 0.0)
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups]


def make_loss(objective: str, has_bias: bool = False, **options: int | list[int]) -> Callable[..., tuple]:
    """[`global_loss`] with the loss of an objective, sigmoid in place of contrastive for a model with a bias."""
    name = OBJECTIVES[objective].loss
    name = "sigmoid" if has_bias and name == "contrastive" else name
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
    last batch of an accumulation, with gradients clipped to a norm (0: none). The model (a [`ContrastiveModel`]) and
    the optimizer are prepared by the accelerator. With `tokens_per_chunk` that many tokens of captions and images are
    embedded at a time, and again in the backward pass. Images with the same short caption are no negatives by default.
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

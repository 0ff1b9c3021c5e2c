# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""One step of training."""

import argparse

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from .objectives import OBJECTIVES


def parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict]:
    """Matrices decay; norms, biases, corner tokens and the temperature (which is never sharded) do not."""
    decayed, kept, scalars = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dim() == 0:
            scalars.append(parameter)
        elif parameter.requires_grad:
            is_kept = parameter.dim() < 2 or name.endswith("corner_tokens")
            (kept if is_kept else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
        {"params": scalars, "weight_decay": 0.0},
    ]


def global_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    batch: dict[str, torch.Tensor],
    args: argparse.Namespace,
    accelerator: Accelerator,
    details: dict[str, torch.Tensor] | None = None,
    **other_scalars: torch.Tensor,
) -> torch.Tensor:
    """
    The loss over the global batch, the same on every process. Each has its gradient for the own rows, multiplied by
    the number of processes because data parallelism averages over them: what reaches the parameters is the gradient of
    the global batch. `details` receives what the loss is made of. Other scalars are those of the objective.
    """
    for embeds in (image_embeds, text_embeds):
        if embeds.requires_grad:
            embeds.register_hook(lambda gradient: gradient * accelerator.num_processes)
    scalars = {"logit_scale": logit_scale.exp(), **other_scalars}
    short_groups = None
    if not args.keep_duplicate_negatives:
        short_ids = batch["short_input_ids"] * batch["short_attention_mask"]  # padded with 0 here and across processes
        short_ids = accelerator.gather(accelerator.pad_across_processes(short_ids, dim=1))
        _, groups = short_ids.unique(dim=0, return_inverse=True)
        short_groups = groups.unflatten(0, (accelerator.num_processes, -1))[accelerator.process_index]
    loss, slot_losses = OBJECTIVES[args.objective].loss(
        image_embeds,
        text_embeds,
        **scalars,
        present=(text_embeds != 0).any(dim=-1),  # the embedding of an absent caption is zero
        short_groups=short_groups,
        gather=accelerator.gather,
        process_index=accelerator.process_index,
        return_slot_losses=True,
    )
    if details is not None:
        details["slot_losses"] = slot_losses
        details["image_embeds"], details["text_embeds"] = image_embeds.detach(), text_embeds.detach()
    return loss

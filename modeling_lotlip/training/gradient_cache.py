# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Gradient caching: a contrastive batch as large as one likes in the memory of a chunk.

Gao et al., 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
https://arxiv.org/abs/2101.06983.
"""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states

from ..losses.global_loss import GlobalLoss
from .groups import TEXT_INPUTS, BatchGroups


class RandomState:
    """The state of the random generators of the CPU and of some tensors' devices, to draw the same again."""

    def __init__(self, *tensors: torch.Tensor):
        self.cpu_state = torch.get_rng_state()
        self.devices, self.device_states = get_device_states(*tensors)

    @contextmanager
    def replay(self):
        """Draws as from this state on; after it the generators are where they were before."""
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu_state)
            set_device_states(self.devices, self.device_states)
            yield


def backward_in_chunks(
    model: nn.Module,
    groups: BatchGroups,
    loss_function: Callable[..., GlobalLoss],
    accelerator: Accelerator,
) -> GlobalLoss:
    """
    Accumulates the gradients of a loss over a whole batch, with inputs and activations of one chunk on the device at a
    time: the chunks are encoded without a graph, the loss gives the gradients of all embeddings, and the chunks are
    encoded again, with the same random draws, to take these on to the parameters. A frozen image tower runs once.

    Args:
        model (`nn.Module`):
            A [`ContrastiveModel`], as `accelerator.prepare` returned it.
        groups ([`BatchGroups`]):
            Its inputs, in chunks.
        loss_function (`Callable`):
            Gives a [`GlobalLoss`] of the image embeddings and the text embeddings, as the model outputs them, and of
            its scalar parameters by name, such as `logit_scale`.
        accelerator (`Accelerator`):
            The processes: gradients are exchanged with the last chunk.

    Returns:
        [`GlobalLoss`]: what the function gave.
    """
    trained_scalars = accelerator.unwrap_model(model).scalars

    def encode(chunk: dict[str, torch.Tensor]) -> tuple[RandomState, torch.Tensor, torch.Tensor]:
        """The embeddings of a chunk without a graph; in it the output of a frozen tower replaces the images."""
        inputs = send_to_device(chunk, accelerator.device)
        state = RandomState(*inputs.values())
        with torch.no_grad():
            outputs = model(**inputs)
        if outputs.vision_output is not None:
            device = chunk["short_input_ids"].device
            for name in chunk.keys() - set(TEXT_INPUTS):
                del chunk[name]
            chunk["vision_output"] = outputs.vision_output.to(device)
        return state, outputs.image_embeds.requires_grad_(), outputs.text_embeds.requires_grad_()

    def surrogate_loss(number: int) -> torch.Tensor:
        """Of a chunk: its gradients are those of the loss."""
        outputs = model(**send_to_device(chunks[number], accelerator.device))
        surrogate = (outputs.text_embeds * text_embeds[number].grad).sum()
        if outputs.image_embeds.requires_grad:
            surrogate = surrogate + (outputs.image_embeds * image_embeds[number].grad).sum()
        if number == len(chunks) - 1:
            for name, scalar in trained_scalars.items():
                surrogate = surrogate + (scalar * scalars[name].grad).sum()
        return surrogate

    chunks = list(groups)
    states, image_embeds, text_embeds = zip(*map(encode, chunks))
    scalars = {name: scalar.detach().requires_grad_() for name, scalar in trained_scalars.items()}
    loss = loss_function(*groups.restore(image_embeds, text_embeds), **scalars)
    accelerator.backward(loss.loss)  # to the embeddings

    for number, state in enumerate(states):
        is_last = number == len(chunks) - 1
        with nullcontext() if is_last else accelerator.no_sync(model), state.replay():
            surrogate_loss(number).backward()
    return loss._replace(loss=loss.loss.detach())

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
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states

from .loss import GlobalLoss
from .models import get_scalars, is_vision_frozen


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
    batch: dict[str, torch.Tensor],
    loss_function: Callable[..., GlobalLoss],
    chunk_size: int,
    accelerator: Accelerator,
) -> GlobalLoss:
    """
    Accumulates the gradients of a loss over a whole batch, with the activations of one chunk in memory at a time: the
    chunks are encoded without a graph, the loss gives the gradients of all embeddings, and the chunks are encoded
    again, with the same random draws, to take these on to the parameters. A frozen image tower runs once.

    Args:
        model (`nn.Module`):
            A [`LotlipModel`], as `accelerator.prepare` returned it.
        batch (`dict[str, torch.Tensor]`):
            Its inputs, each with a row for every image.
        loss_function (`Callable`):
            Gives a [`GlobalLoss`] of the image embeddings and the text embeddings, as the model outputs them, and of
            its scalar parameters by name, such as `logit_scale`.
        chunk_size (`int`):
            Images in a chunk.
        accelerator (`Accelerator`):
            The processes: gradients are exchanged with the last chunk.

    Returns:
        [`GlobalLoss`]: what the function gave.
    """
    unwrapped_model = accelerator.unwrap_model(model)
    is_frozen = is_vision_frozen(unwrapped_model)
    num_rows = len(next(iter(batch.values())))
    chunks, states, image_embeds, text_embeds = [], [], [], []
    for start in range(0, num_rows, chunk_size):
        chunk = {name: values[start : start + chunk_size] for name, values in batch.items()}
        states.append(RandomState(*chunk.values()))
        with torch.no_grad():
            outputs = model(**chunk)
        if is_frozen and "pixel_values" in chunk:
            del chunk["pixel_values"]
            chunk["vision_pooler_output"] = outputs.vision_model_output.pooler_output
        chunks.append(chunk)
        image_embeds.append(outputs.image_embeds)
        text_embeds.append(outputs.text_embeds)

    image_embeds, text_embeds = (torch.cat(embeds).requires_grad_() for embeds in (image_embeds, text_embeds))
    scalars = {name: scalar.detach().requires_grad_() for name, scalar in get_scalars(unwrapped_model).items()}
    loss = loss_function(image_embeds, text_embeds, **scalars)
    accelerator.backward(loss.loss)  # to the embeddings

    image_gradients, text_gradients = image_embeds.grad.split(chunk_size), text_embeds.grad.split(chunk_size)
    for number, (chunk, state) in enumerate(zip(chunks, states)):
        is_last = number == len(chunks) - 1
        with nullcontext() if is_last else accelerator.no_sync(model), state.replay():
            outputs = model(**chunk)
            # its gradients are those of the loss
            surrogate = (outputs.text_embeds * text_gradients[number]).sum()
            if outputs.image_embeds.requires_grad:
                surrogate = surrogate + (outputs.image_embeds * image_gradients[number]).sum()
            if is_last:
                for name, scalar in get_scalars(unwrapped_model).items():
                    surrogate = surrogate + scalar * scalars[name].grad
            surrogate.backward()
    return loss._replace(loss=loss.loss.detach())

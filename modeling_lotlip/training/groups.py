# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A batch of a training in groups of like length, so that little is computed for padding."""

import math
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from transformers import PreTrainedConfig

from ..embedding.lengths import group_by_length
from ..embedding.token_wise import pad_and_concatenate


Batch = dict[str, torch.Tensor]

TEXT_INPUTS = ("short_input_ids", "short_attention_mask", "input_ids", "attention_mask")

# What a further forward and backward pass costs beside its tokens, in tokens of BERT-base: on a CPU the sum of its
# gradients with those before, on an accelerator the start of its kernels (estimated, not measured).
TOKENS_PER_CALL = {"cpu": 128, "accelerator": 8192}


def count_tokens(inputs: Batch) -> torch.Tensor:
    """The tokens (texts,) of texts that are padded behind them, 0 of an absent one."""
    input_ids = inputs["input_ids"]
    places = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device).expand_as(input_ids)
    if inputs.get("attention_mask") is not None:
        places = places * (inputs["attention_mask"] != 0)
    return places.amax(dim=1)


def count_image_tokens(config: PreTrainedConfig, batch: Batch) -> int:
    """The tokens of each image that a tower of a configuration computes, none where its output is given."""
    if "pixel_values" not in batch:
        return 0
    pixel_values, patch_size = batch["pixel_values"], config.patch_size
    if pixel_values.dim() == 3:  # patches (SigLIP 2)
        return pixel_values.shape[1]
    patch_sides = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    return 1 + math.prod(side // patch for side, patch in zip(pixel_values.shape[-2:], patch_sides))


class BatchGroups:
    """
    A batch as smaller ones, each padded to its own longest captions: the model is called with one after the other.

    The embedding of a caption does not depend on the image beside it. So the short captions are sorted by length, and
    so are the long ones of all images, each kind for itself; the images keep their order. `restore` brings the
    embeddings of captions back to the rows of their images.

    Args:
        batch (`dict[str, torch.Tensor]`):
            The inputs of a [`ContrastiveModel`].
        accelerator (`Accelerator`):
            The processes. All of them get the same number of groups: with sharded parameters (FSDP2) every call of the
            model is an exchange that all must take part in.
        tokens_per_group (`int`, *optional*):
            The most tokens in a group, padding and images included. A group has one row at least.
        tokens_per_image (`int`, *optional*, defaults to 0):
            The tokens of an image that the image tower computes.

    Example:

    ```python
    >>> import torch
    >>> from accelerate import Accelerator
    >>> from modeling_lotlip.training.groups import BatchGroups

    >>> mask = (torch.arange(20) < torch.tensor([[4], [20], [3]])).long()
    >>> batch = {"short_input_ids": torch.ones(3, 20, dtype=torch.long), "short_attention_mask": mask}
    >>> groups = BatchGroups(batch, Accelerator(cpu=True), tokens_per_group=20)
    >>> [tuple(group["short_input_ids"].shape) for group in groups]
    [(1, 20), (2, 4)]
    ```"""

    def __init__(
        self,
        batch: Batch,
        accelerator: Accelerator,
        tokens_per_group: int | None = None,
        tokens_per_image: int = 0,
    ):
        texts = {name: values for name, values in batch.items() if name in TEXT_INPUTS}
        short = {name.removeprefix("short_"): values for name, values in texts.items() if name.startswith("short_")}
        long = {name: values for name, values in texts.items() if not name.startswith("short_")}
        self.images = {name: values for name, values in batch.items() if name not in TEXT_INPUTS}
        num_rows = len(short["input_ids"])
        self.num_long_captions = long["input_ids"].shape[1] if long else 0

        short_lengths, self.short_order = count_tokens(short).sort(descending=True, stable=True)
        self.short = {name: values[self.short_order] for name, values in short.items()}
        self.short_lengths, self.long_lengths = short_lengths.tolist(), [0] * num_rows
        row_lengths = short_lengths + tokens_per_image
        if long:
            long = {name: values.flatten(0, 1) for name, values in long.items()}
            lengths, self.long_order = count_tokens(long).sort(descending=True, stable=True)
            shape = (num_rows, self.num_long_captions)
            self.long = {name: values[self.long_order].unflatten(0, shape) for name, values in long.items()}
            longest = lengths.unflatten(0, shape)[:, 0]
            self.long_lengths = longest.tolist()
            row_lengths = row_lengths + self.num_long_captions * longest

        tokens_per_call = TOKENS_PER_CALL["cpu" if accelerator.device.type == "cpu" else "accelerator"]
        groups = group_by_length(row_lengths.tolist(), tokens_per_call, tokens_per_group)
        sizes = [len(places) for places in groups]
        own = torch.tensor([len(sizes)], device=accelerator.device)
        num_groups = int(accelerator.gather(own).max())
        while len(sizes) < num_groups:  # as many as the process that has most
            largest = sizes.index(max(sizes))
            sizes[largest : largest + 1] = [sizes[largest] - sizes[largest] // 2, sizes[largest] // 2]
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Batch]:
        """The inputs of each call of the model."""
        start = 0
        for size in self.sizes:
            rows = slice(start, start + size)
            group = {name: values[rows] for name, values in self.images.items()}
            length = max(1, self.short_lengths[start])  # the first is the longest
            group |= {f"short_{name}": values[rows, :length] for name, values in self.short.items()}
            if self.num_long_captions > 0:
                length = max(1, self.long_lengths[start])
                group |= {name: values[rows, :, :length] for name, values in self.long.items()}
            yield group
            start += size

    def embed(
        self, model: nn.Module, device: torch.device, recompute: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The [`ContrastiveModel`]'s image embeddings and text embeddings of the batch, from a call for each group;
        `recompute` is that of its forward.
        """
        outputs = [model(**send_to_device(group, device), recompute=recompute) for group in self]
        text_embeds = pad_and_concatenate([output.text_embeds for output in outputs])
        captions = [text_embeds[:, :1][self.short_order.argsort().to(device)]]
        if self.num_long_captions > 0:  # (rows, captions * slots, dim), or (rows, captions, length, dim) of tokens
            long_embeds = text_embeds[:, 1:].unflatten(1, (self.num_long_captions, -1)).flatten(0, 1)
            long_embeds = long_embeds[self.long_order.argsort().to(device)]
            captions.append(long_embeds.unflatten(0, (-1, self.num_long_captions)).flatten(1, 2))
        return torch.cat([output.image_embeds for output in outputs]), torch.cat(captions, dim=1)

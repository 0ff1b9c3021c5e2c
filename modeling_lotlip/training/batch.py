# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A batch of training by names, and how it is split into groups of captions of like length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate

import torch
from transformers import PreTrainedConfig

from ..encoder.lengths import partition_by_length


# What a further forward and backward pass costs in addition to its tokens, in tokens of BERT-base: on a CPU the sum of
# its gradients with those before, on an accelerator the start of its kernels (estimated, not measured).
TOKENS_PER_CALL = {"cpu": 128, "accelerator": 8192}


@dataclass(frozen=True)
class Texts:
    """
    Captions as tokens, one or more of each image, padded on the side of their tokenizer.

    Args:
        input_ids (`torch.LongTensor` of shape `(rows, length)` or `(rows, captions, length)`): The tokens.
        attention_mask (`torch.LongTensor` of the same shape):
            1 for tokens, and for padding that the model reads too; all 0 for a caption that is absent.
        keeps_padding (`bool`, *optional*, defaults to `False`):
            Whether padding stays also where no caption needs it, for SigLIP, which reads out the last position.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    keeps_padding: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def present(self) -> torch.Tensor:
        """Whether there is a caption, of shape (rows,) or (rows, captions)."""
        return self.attention_mask.bool().any(dim=-1)

    @property
    def lengths(self) -> torch.Tensor:
        """
        The tokens of each caption, and its padding if that is kept, 0 if it is absent, of shape (rows,) or
        (rows, captions).
        """
        if self.keeps_padding:
            return self.present * self.input_ids.shape[-1]
        positions = torch.arange(1, self.input_ids.shape[-1] + 1, device=self.input_ids.device)
        return positions.where(self.attention_mask != 0, 0).amax(dim=-1)

    def to(self, device: torch.device) -> Texts:
        """Returns the captions on a device."""
        mask = self.attention_mask.to(device)
        return replace(self, input_ids=self.input_ids.to(device), attention_mask=mask)

    def select_rows(self, start: int, stop: int) -> Texts:
        """Selects some rows, without the padding that none of them needs."""
        mask = self.attention_mask[start:stop]
        rows = replace(self, input_ids=self.input_ids[start:stop], attention_mask=mask)
        length = max(1, int(rows.lengths.max()))
        return replace(rows, input_ids=rows.input_ids[..., :length], attention_mask=mask[..., :length])

    def sort(self) -> tuple[Texts, torch.Tensor]:
        """
        Returns the captions of all images from the longest to the shortest, and the order, of shape (all captions,).
        """
        order = self.lengths.flatten().argsort(descending=True, stable=True)
        ids = self.input_ids.flatten(0, -2)[order].view_as(self.input_ids)
        mask = self.attention_mask.flatten(0, -2)[order].view_as(self.attention_mask)
        return replace(self, input_ids=ids, attention_mask=mask), order


@dataclass(frozen=True)
class CaptionBatch:
    """
    Images with their captions.

    Args:
        images (`dict[str, torch.Tensor]`):
            What the image processor made of them, `(rows, ...)` each; empty if there are `image_features`.
        short (`Texts`): The short caption of each image, `(rows, length)`.
        long (`Texts`, *optional*): Its long captions, `(rows, captions, length)`.
        image_features (`torch.Tensor` of shape `(rows, ...)`, *optional*):
            What the frozen part of the image side gave of them before: see `image_features.py`.
        start_short (`Texts`, *optional*):
            The short captions, truncated for the model that the training starts from: see `distillation.py`.
    """

    images: dict[str, torch.Tensor]
    short: Texts
    long: Texts | None = None
    image_features: torch.Tensor | None = None
    start_short: Texts | None = None

    def __len__(self) -> int:
        return len(self.short)

    @property
    def texts(self) -> list[Texts]:
        """The captions that there are, short and long."""
        if self.long is None:
            return [self.short]
        return [self.short, self.long]

    @property
    def has_captions(self) -> torch.Tensor:
        """Whether an image has any caption, of shape (rows,)."""
        present = [texts.present.reshape(len(self), -1) for texts in self.texts]
        return torch.cat(present, dim=1).any(dim=1)

    @property
    def num_tokens(self) -> torch.Tensor:
        """The tokens of all captions that the model reads, of shape ()."""
        return torch.stack([texts.attention_mask.sum() for texts in self.texts]).sum()

    def name_captions(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Returns the captions on a device as arguments of `embed_captions`, of shapes (rows, length) and more."""
        short = self.short.to(device)
        named = {"short_input_ids": short.input_ids, "short_attention_mask": short.attention_mask}
        if self.long is not None:
            long = self.long.to(device)
            named |= {"long_input_ids": long.input_ids, "long_attention_mask": long.attention_mask}
        return named

    def group_short_captions(self) -> torch.Tensor:
        """Returns an integer for each row, of shape (rows,), on every process the same for the same short caption."""
        digests = []
        for ids, mask in zip(self.short.input_ids.cpu(), self.short.attention_mask.cpu()):
            # batches of other processes have more padding, on either side
            digests.append(sha256(ids[mask != 0].numpy().tobytes()).digest())
        return torch.tensor([int.from_bytes(digest[:7], "big") for digest in digests])


def count_image_tokens(config: PreTrainedConfig, batch: CaptionBatch) -> int:
    """Counts the tokens of each image that a tower of a configuration computes, none where its output is given."""
    if "pixel_values" not in batch.images:
        return 0
    shape = batch.images["pixel_values"].shape
    if len(shape) == 3:  # patches (SigLIP 2)
        return shape[1]
    patch_size = getattr(config, "patch_size", None) or 32  # of a convolutional tower (ALIGN) the last stride
    patch_area = patch_size**2 if isinstance(patch_size, int) else math.prod(patch_size)
    return 1 + shape[-2:].numel() // patch_area


def split_by_length(
    sorted_batch: CaptionBatch,
    device: torch.device,
    tokens_per_group: int | None,
    tokens_per_image: int,
) -> list[int]:
    """
    Returns the rows of each group of a batch whose captions are sorted by length, from the longest.

    Args:
        sorted_batch (`CaptionBatch`): The batch.
        device (`torch.device`): Where it is computed, which says what a further group costs.
        tokens_per_group (`int`, *optional*): The max number of tokens of a group, padding and images included.
        tokens_per_image (`int`): The tokens of an image.

    Returns:
        `list[int]`: the sizes; a group of a single row may have more tokens.
    """
    work = torch.full((len(sorted_batch),), tokens_per_image)
    for texts in sorted_batch.texts:
        lengths = texts.lengths.view(len(texts), -1)
        work += lengths.shape[1] * lengths[:, 0].cpu()  # the first of a row is the longest
    tokens_per_call = TOKENS_PER_CALL["cpu" if device.type == "cpu" else "accelerator"]
    return [len(rows) for rows in partition_by_length(work.tolist(), tokens_per_call, tokens_per_group)]


def make_as_many(sizes: list[int], count: int) -> list[int]:
    """
    Returns sizes of groups, the largest halved until there are `count`: in data parallelism every process calls the
    model as often as the others. Each has as many rows as the others, and so enough for that many groups.
    """
    sizes = list(sizes)
    while len(sizes) < count:
        index = sizes.index(max(sizes))
        half = sizes[index] // 2
        sizes[index : index + 1] = [sizes[index] - half, half]
    return sizes


def sort_batch(batch: CaptionBatch) -> tuple[CaptionBatch, torch.Tensor, torch.Tensor | None]:
    """
    Returns a batch with its captions of each modality from the longest to the shortest, and both orders: of shape
    (rows,) and (rows * captions,).
    """
    short, short_order = batch.short.sort()
    if batch.long is None:
        return replace(batch, short=short), short_order, None
    long, long_order = batch.long.sort()
    return replace(batch, short=short, long=long), short_order, long_order


def select_groups(batch: CaptionBatch, sizes: list[int]) -> list[CaptionBatch]:
    """Returns a batch in groups of rows, each padded to its own longest captions."""
    groups = []
    for start, stop in zip(accumulate([0, *sizes]), accumulate(sizes)):
        images = {name: values[start:stop] for name, values in batch.images.items()}
        group = CaptionBatch(images, batch.short.select_rows(start, stop))
        if batch.long is not None:
            group = replace(group, long=batch.long.select_rows(start, stop))
        if batch.image_features is not None:
            group = replace(group, image_features=batch.image_features[start:stop])
        groups.append(group)
    return groups

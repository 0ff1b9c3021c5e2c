# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model that a training starts from as a teacher: images and short captions stay where it has them."""

import copy
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from ..losses.global_loss import Term
from ..losses.pairs import Pairs
from .batch import CaptionBatch
from .dual_encoder import ContrastiveModel, ImageSide


@dataclass(frozen=True)
class StartModel:
    """
    A copy of a model before it is changed and trained.

    Args:
        model (`PreTrainedModel`): The copy, frozen.
        max_length (`int`): The tokens of a text that it reads.
    """

    model: PreTrainedModel
    max_length: int

    @classmethod
    def copy(cls, model: PreTrainedModel, max_length: int) -> "StartModel":
        """Returns the copy of a model whose texts have that many tokens at most."""
        return cls(copy.deepcopy(model).eval().requires_grad_(False), max_length)


def distill(
    pairs: Pairs,
    all_pairs: Pairs,
    images: torch.Tensor | None = None,
    short: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Returns the squared error of embeddings against those of a teacher, a term of a loss: see [`global_loss`].

    Args:
        pairs (`Pairs`): The rows of this process.
        all_pairs (`Pairs`): All rows, of no use here.
        images (`torch.Tensor` of shape `(rows, dim)`, *optional*): The teacher's normalized embeddings of images.
        short (`torch.Tensor` of shape `(rows, dim)`, *optional*): Those of short captions.

    Returns:
        `torch.Tensor` of shape `(rows,)`: the sum of both errors; none for a caption that is absent.
    """
    errors = pairs.images.new_zeros(len(pairs.images))
    if images is not None:
        errors = errors + (pairs.images - images).square().sum(dim=-1)
    if short is not None:
        caption_errors = (pairs.short - short).square().sum(dim=-1)
        errors = errors + caption_errors.masked_fill(~pairs.short_mask, 0)
    return errors


class Teacher:
    """
    Embeds images and short captions by the start model. Images whose side is frozen are not embedded: they stay where
    they are anyway.

    Args:
        start (`StartModel`):
            The start model.
        contrastive_model (`ContrastiveModel`):
            The model that is trained. Its `image_side` says whether images are embedded.
        accelerator (`Accelerator`):
            The processes.
    """

    def __init__(self, start: StartModel, contrastive_model: ContrastiveModel, accelerator: Accelerator):
        self.model: nn.Module = ContrastiveModel(start.model).to(accelerator.device).eval()
        self.model.image_side = contrastive_model.image_side
        self.accelerator = accelerator

    @torch.no_grad()
    def embed(self, batch: CaptionBatch, sizes: list[int]) -> dict[str, torch.Tensor]:
        """
        Returns the teacher's embeddings by name, `short` and, unless they are frozen, `images`, of shape (rows, dim).

        Args:
            batch (`CaptionBatch`): The batch, with short captions that were truncated for the start model.
            sizes (`list[int]`): The rows that are embedded at a time.
        """
        parts = {"short": []}
        if self.model.image_side is not ImageSide.FROZEN:
            parts["images"] = []
        device = self.accelerator.device
        for start, stop in zip(accumulate([0, *sizes]), accumulate(sizes)):
            with self.accelerator.autocast():
                texts = batch.start_short.select_rows(start, stop).to(device)
                embeds = self.model.contract.embed_captions(
                    short_input_ids=texts.input_ids, short_attention_mask=texts.attention_mask
                )
                parts["short"].append(embeds.short)
                if "images" in parts:
                    parts["images"].append(self.embed_images(batch, start, stop))
        return {name: torch.cat(values).float() for name, values in parts.items()}

    def embed_images(self, batch: CaptionBatch, start: int, stop: int) -> torch.Tensor:
        """Computes the embeddings of some rows, of shape (stop - start, dim)."""
        device = self.accelerator.device
        if batch.image_features is not None:
            return self.model.embed_features(batch.image_features[start:stop].to(device))
        images = {name: values[start:stop].to(device) for name, values in batch.images.items()}
        return self.model.contract.embed_images(**images)

    def make_term(self, batch: CaptionBatch, sizes: list[int]) -> Term:
        """Makes the term of a batch (rows, ...): [`distill`] with the teacher's embeddings."""
        return partial(distill, **self.embed(batch, sizes))

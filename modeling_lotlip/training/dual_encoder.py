# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Any dual encoder as the one module that training wraps, shards and calls."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, TrainerCallback

from .. import LotlipModel
from ..encoder.contract import Contract, Temperature, find_temperature, get_contract
from ..encoder.families import find_family
from .batch import CaptionBatch


# How far from 1 the length of a normalized embedding may be, by rounding
MAX_ROUNDING = 0.02
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def clamp_logit_scale(model: PreTrainedModel) -> None:
    """Brings the trained temperature of a dual encoder back into its bounds: see [`Temperature.clamp`]."""
    find_temperature(model).clamp(model)


class ClampLogitScaleCallback(TrainerCallback):
    """[`clamp_logit_scale`] in the `Trainer` of transformers, as in the paper's training."""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        """
        Clamps the temperature after a step.

        Args:
            args (`TrainingArguments`): The arguments of the trainer.
            state (`TrainerState`): How far the training is.
            control (`TrainerControl`): What the trainer does next.
            model (`PreTrainedModel`): The model.
        """
        clamp_logit_scale(model)


def check_dual_encoder(model: PreTrainedModel, named: str = "The model") -> None:
    """Raises a `ValueError` if a model lacks a part that training needs."""
    missing = [name for name in ("get_text_features", "vision_model") if not hasattr(model, name)]
    if find_temperature(model) is None:
        missing.append("logit_scale")
    if missing:
        raise ValueError(
            f"{named} cannot be trained: a `{type(model).__name__}` has no `{'`, `'.join(missing)}`. Name a LoTLIP, "
            "CLIP, SigLIP or another dual encoder."
        )
    if find_family(model.config).has_walk_types:
        raise ValueError(
            f"{named} cannot be trained: a `{type(model).__name__}` reads short and long texts in two ways, "
            "which training does not know. Name a LoTLIP, CLIP, SigLIP or another dual encoder."
        )


class ImageSide(Enum):
    """What is trained of what `embed_images` computes."""

    FROZEN = "nothing: embeddings of images never change"
    PROJECTION = "the projection after the image tower alone: outputs of the tower never change"
    TRAINED = "the image tower, or something else"


class BatchEmbeds(NamedTuple):
    """
    The normalized embeddings of a batch by name, in float32: those of images (rows, dim), and the fields of
    `LotlipCaptionEmbeddings`.
    """

    images: torch.Tensor
    short: torch.Tensor
    short_mask: torch.Tensor
    long: torch.Tensor | None
    long_mask: torch.Tensor | None
    corners: torch.Tensor | None


class ContrastiveModel(nn.Module):
    """
    A dual encoder that embeds a batch of images with their captions: any that [`check_dual_encoder`] lets pass. Data
    parallelism and FSDP2 call its forward, which calls `embed_images` and `embed_captions` of the dual encoder, and
    nothing else of it.

    Args:
        model (`PreTrainedModel`):
            The dual encoder.
        loss (`torch.nn.Module`, *optional*):
            The loss, whose parameters, if it has any, are trained too: see [`ObjectiveLoss`].
    """

    def __init__(self, model: PreTrainedModel, loss: nn.Module | None = None):
        super().__init__()
        check_dual_encoder(model)
        self.model = model
        self.loss = loss
        self.temperature: Temperature = find_temperature(model)
        # until `inspect_image_side` has looked
        self.image_side = ImageSide.TRAINED
        self.image_parameters: tuple[str, ...] = ()

    @property
    def contract(self) -> Contract:
        """The two methods of the dual encoder."""
        return get_contract(self.model)

    @property
    def scalar_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of one element, by their names: the temperature, and `logit_bias` if there is one."""
        scalars = {self.temperature.name: getattr(self.model, self.temperature.name)}
        if getattr(self.model, "logit_bias", None) is not None:
            scalars["logit_bias"] = self.model.logit_bias
        return scalars

    @property
    def scalars(self) -> dict[str, torch.Tensor]:
        """What losses take, each a scalar tensor: `logit_scale` (no logarithm), and `logit_bias` if there is one."""
        scalars = {"logit_scale": self.temperature.scale(getattr(self.model, self.temperature.name))}
        if getattr(self.model, "logit_bias", None) is not None:
            scalars["logit_bias"] = self.model.logit_bias
        return scalars

    @property
    def unsharded_parameters(self) -> list[nn.Parameter]:
        """
        The parameters that FSDP2 leaves whole: scalars, which cannot be sharded, and those of the loss, which is
        computed outside of the forward. Every process has the gradient of the whole loss for them.
        """
        loss_parameters = [] if self.loss is None else list(self.loss.parameters())
        return [*self.scalar_parameters.values(), *loss_parameters]

    def clamp_temperature(self) -> None:
        """Brings the temperature back into its bounds, after a step: see [`Temperature.clamp`]."""
        self.temperature.clamp(self.model)

    def train(self, mode: bool = True) -> "ContrastiveModel":
        """
        Switches between training and evaluation. A part that is frozen as a whole stays in evaluation mode: its output
        does not change from step to step. So do batch norms of other families (ALIGN), which keep the statistics of
        the start model: those of a batch would be of the images that are beside one in a group of captions of like
        length.
        """
        super().train(mode)
        if mode:
            for name, module in self.named_modules():
                parameters = list(module.parameters())
                is_frozen = not any(parameter.requires_grad for parameter in parameters)
                is_batch_norm = isinstance(module, BATCH_NORMS) and not isinstance(self.model, LotlipModel)
                if is_batch_norm or (name and parameters and is_frozen):
                    module.eval()
        return self

    def encode_images(self, images: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Computes the part of the image side that training does not change, from what the image processor gave, (rows,
        ...). It is the embeddings (rows, dim), or, if the projection is trained, the output of the image tower before
        it, (rows, width) or (rows, length, width).
        """
        if self.image_side is not ImageSide.PROJECTION:
            return self.contract.embed_images(**images)
        outputs = self.model.vision_model(**images)
        compares_tokens = find_family(self.model.config).compares_tokens
        return outputs.last_hidden_state if compares_tokens else outputs.pooler_output

    def embed_features(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings (rows, dim) of what [`encode_images`] gave, (rows, ...)."""
        if self.image_side is ImageSide.PROJECTION:
            features = self.model.visual_projection(features.to(self.model.dtype))
        return normalize(features.float(), dim=-1)

    def forward(self, batch: CaptionBatch, recompute: bool = False) -> BatchEmbeds:
        """
        Embeds a batch, whose tensors may be on any device: they go to that of the model when they are needed.

        With `recompute` the backward pass computes all that is trained once more, with the same random state, in place
        of keeping its activations (gradient caching, Gao et al., 2021, https://arxiv.org/abs/2101.06983): of a large
        batch that is embedded in parts, the device holds the activations and the pixels of one of them at a time.

        Args:
            batch (`CaptionBatch`): Images with their captions, (rows, ...).
            recompute (`bool`, *optional*, defaults to `False`): Whether the backward pass computes once more.

        Returns:
            [`BatchEmbeds`]: the embeddings by name.
        """
        device = self.model.device

        def embed_images() -> torch.Tensor:
            """Computes embeddings of shape (rows, dim)."""
            images = {name: values.to(device, non_blocking=True) for name, values in batch.images.items()}
            return self.contract.embed_images(**images)

        def embed_captions() -> tuple:
            embeds = self.contract.embed_captions(**batch.name_captions(device))
            return embeds.short, embeds.short_mask, embeds.long, embeds.long_mask, embeds.corners

        if batch.image_features is not None:
            images = self.embed_features(batch.image_features.to(device))
        elif self.image_side is ImageSide.TRAINED and recompute:
            images = compute_again(embed_images, device)
        else:
            images = embed_images()
        captions = compute_again(embed_captions, device) if recompute else embed_captions()
        return BatchEmbeds(images, *captions)


def compute_again(function: Callable[[], object], device: torch.device) -> object:
    """Returns what a function gives, whose activations are not kept, but computed once more in the backward pass."""
    # by its argument `checkpoint` finds the device whose random state it has to keep for dropout
    anchor = torch.empty(0, device=device)
    return checkpoint(lambda _: function(), anchor, use_reentrant=False)


def inspect_image_side(contrastive_model: ContrastiveModel, images: dict[str, torch.Tensor]) -> None:
    """
    Finds out which parameters embeddings of images depend on, and what of them is trained, whatever modules a subclass
    has: those that get a gradient from what the image processor gives, (rows, ...). The model notes it as
    `image_parameters` and `image_side`; its weights and modes stay as they are.
    """
    named = dict(contrastive_model.model.named_parameters())
    is_trained = {name: parameter.requires_grad for name, parameter in named.items()}
    contrastive_model.model.requires_grad_(True)
    try:
        embeds = embed_in_evaluation_mode(contrastive_model, images)
        gradients = torch.autograd.grad(embeds.sum(), list(named.values()), allow_unused=True)
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(is_trained[name])
    reached = [name for name, gradient in zip(named, gradients) if gradient is not None]
    contrastive_model.image_parameters = tuple(reached)
    reached_and_trained = [name for name in reached if is_trained[name]]
    is_projection = all(name.startswith("visual_projection.") for name in reached_and_trained)
    if not reached_and_trained:
        contrastive_model.image_side = ImageSide.FROZEN
    elif is_projection and computes_tower_and_projection(contrastive_model, images):
        contrastive_model.image_side = ImageSide.PROJECTION
    else:
        contrastive_model.image_side = ImageSide.TRAINED


def freeze_unused(contrastive_model: ContrastiveModel, batches: Sequence[CaptionBatch]) -> list[str]:
    """
    Freezes the parameters that no embedding of any batch (rows, ...) depends on, for which data parallelism would
    wait: a pooler that is not read, corner tokens that a subclass leaves out. Returns their names. Raises a
    `ValueError` if an embedding is not normalized.
    """
    scalars = {id(parameter) for parameter in contrastive_model.scalar_parameters.values()}
    named = {}
    for name, parameter in contrastive_model.model.named_parameters():
        if parameter.requires_grad and id(parameter) not in scalars:
            named[name] = parameter
    unused = list(named)
    for batch in batches:
        is_training = contrastive_model.training
        contrastive_model.eval()
        try:
            embeds = contrastive_model(batch)
        finally:
            contrastive_model.train(is_training)
        check_normalized(contrastive_model.model, embeds)
        floats = [values for values in embeds if values is not None and values.is_floating_point()]
        total = sum(values.sum() for values in floats)
        if unused and total.requires_grad:
            gradients = torch.autograd.grad(total, [named[name] for name in unused], allow_unused=True)
            unused = [name for name, gradient in zip(unused, gradients) if gradient is None]
    for name in unused:
        named[name].requires_grad_(False)
    return unused


def check_normalized(model: PreTrainedModel, embeds: BatchEmbeds) -> None:
    """
    Raises a `ValueError` if embeddings by name, of shape (rows, ..., dim), are not of length 1, as losses take
    them: the methods of a model may be a user's. Those of absent captions, and of padding, are zero.
    """
    for name, values in zip(embeds._fields, embeds):
        if values is None or not values.is_floating_point():
            continue
        lengths = values.detach().float().norm(dim=-1)
        wrong = lengths[(lengths > MAX_ROUNDING) & ((lengths - 1).abs() > MAX_ROUNDING)]
        if len(wrong) > 0:
            method = "embed_images" if name == "images" else "embed_captions"
            raise ValueError(
                f"`{method}` of {type(model).__name__} gives `{name}` of length {wrong[0].item():.3g}: "
                "return normalized embeddings, of length 1."
            )


def embed_in_evaluation_mode(contrastive_model: ContrastiveModel, images: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the embeddings (rows, dim) of images (rows, ...), without dropout."""
    is_training = contrastive_model.training
    contrastive_model.eval()
    try:
        return contrastive_model.contract.embed_images(**images)
    finally:
        contrastive_model.train(is_training)


@torch.no_grad()
def computes_tower_and_projection(contrastive_model: ContrastiveModel, images: dict[str, torch.Tensor]) -> bool:
    """
    Returns whether embeddings of images (rows, ...) are those of the image tower after the projection, and no more. A
    blank image would not show what a subclass does with a flipped one, say.
    """
    expected = embed_in_evaluation_mode(contrastive_model, images)
    before = contrastive_model.image_side
    is_training = contrastive_model.training
    contrastive_model.eval()
    contrastive_model.image_side = ImageSide.PROJECTION
    try:
        found = contrastive_model.embed_features(contrastive_model.encode_images(images))
    finally:
        contrastive_model.image_side = before
        contrastive_model.train(is_training)
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5)

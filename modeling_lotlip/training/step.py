# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One step of training, on a batch in groups of captions of like length, so that little is computed for padding."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from accelerate import Accelerator
from torch import nn

from ..losses.global_loss import BatchLoss, Term, check_weights, global_loss, share_parameter
from ..losses.pairs import concatenate
from .batch import CaptionBatch, count_image_tokens, make_as_many, select_groups, sort_batch, split_by_length
from .distillation import Teacher
from .dual_encoder import BatchEmbeds, ContrastiveModel
from .objectives import Objective
from .processes import gather_max


@dataclass(frozen=True)
class LossOptions:
    """
    What every objective can have.

    Args:
        short_weight (`float`, *optional*, defaults to 1.0): The weight of the slot of short captions.
        long_weight (`float`, *optional*, defaults to 1.0): The weight of each slot of long captions.
        matryoshka_dims (`Sequence[int]`, *optional*): The first dimensions that are trained to be embeddings too.
        keep_duplicate_negatives (`bool`, *optional*, defaults to `False`):
            Whether images with the same short caption are negatives of each other.
    """

    short_weight: float = 1.0
    long_weight: float = 1.0
    matryoshka_dims: Sequence[int] = ()
    keep_duplicate_negatives: bool = False

    def __post_init__(self):
        check_weights(self.short_weight, self.long_weight)


class ObjectiveLoss(nn.Module):
    """
    The loss of an objective: [`global_loss`] of it, and the parameters that it may bring.

    Args:
        objective (`Objective`):
            The objective.
        has_bias (`bool`, *optional*, defaults to `False`):
            Whether the model that is trained has a `logit_bias`.
        options (`LossOptions`, *optional*):
            What every objective can have.
        objective_options (`dict`, *optional*):
            Those of this objective: see [`Objective.read_options`].

    Raises:
        `ValueError`: if the objective does not train a model with, or without, a bias.
    """

    def __init__(
        self,
        objective: Objective,
        has_bias: bool = False,
        options: LossOptions | None = None,
        objective_options: Mapping | None = None,
    ):
        super().__init__()
        function = objective.load_loss(has_bias)
        if function is None:
            has_or_not = "has a" if has_bias else "has no"
            raise ValueError(
                f"The model {has_or_not} `logit_bias`, which its `--objective` is not for: choose another."
            )
        self.options = options or LossOptions()
        given = objective.read_options([]) | dict(objective_options or {})
        self.terms: dict[str, tuple[float, Term]] = {}
        for name, term in objective.terms.items():
            self.terms[name] = (given.pop(f"{name}_weight"), term)
        self.module = None
        if inspect.isclass(function):
            self.module = function(**given)
            self.function = self.compute_with_parameters
        else:
            self.function = partial(function, **given)

    def compute_with_parameters(self, *arguments, **scalars) -> torch.Tensor:
        """Returns the losses (slots, rows) of a loss with parameters, each the mean over all processes."""
        parameters = {name: share_parameter(parameter) for name, parameter in self.module.named_parameters()}
        return torch.func.functional_call(self.module, parameters, arguments, scalars)

    def forward(
        self,
        embeds: BatchEmbeds,
        short_groups: torch.Tensor | None = None,
        terms: Mapping[str, tuple[float, Term]] | None = None,
        **scalars: torch.Tensor,
    ) -> BatchLoss:
        """
        The loss of the embeddings of this process, `(rows, ...)`, and those of all others.

        Args:
            embeds (`BatchEmbeds`): The embeddings by name.
            short_groups (`torch.LongTensor` of shape `(rows,)`, *optional*): Equal where short captions are.
            terms (`dict`, *optional*): Terms in addition to those of the objective: see [`global_loss`].
            scalars (`torch.Tensor` of one element): `logit_scale` (no logarithm), and `logit_bias` if there is one.

        Returns:
            [`BatchLoss`]
        """
        return global_loss(
            self.function,
            embeds.images,
            embeds,
            short_groups=None if self.options.keep_duplicate_negatives else short_groups,
            short_weight=self.options.short_weight,
            long_weight=self.options.long_weight,
            matryoshka_dims=self.options.matryoshka_dims,
            terms={**self.terms, **(terms or {})},
            **scalars,
        )


def size_groups(
    contrastive_model: ContrastiveModel,
    batch: CaptionBatch,
    tokens_per_group: int | None = None,
) -> list[int]:
    """Counts the rows of each group that a batch (rows, ...) is embedded in: see [`embed_batch`]."""
    sorted_batch, _, _ = sort_batch(batch)
    tokens_per_image = count_image_tokens(contrastive_model.model.config.vision_config, batch)
    return split_by_length(sorted_batch, contrastive_model.model.device, tokens_per_group, tokens_per_image)


def embed_batch(
    model: nn.Module,
    batch: CaptionBatch,
    sizes: list[int],
    recompute: bool = False,
) -> BatchEmbeds:
    """
    Embeds a batch, with a call for each group of it. The embedding of a caption does not depend on the image or the
    other captions: so the captions of each modality are sorted by length, and each group is padded to its own longest
    ones; images keep their order, and are not beside their own captions in a group.

    Args:
        model (`torch.nn.Module`): A [`ContrastiveModel`], as the accelerator has prepared it.
        batch (`CaptionBatch`): The batch, (rows, ...), on any device.
        sizes (`list[int]`): The rows of each group, as many groups on every process (parallel calls take turns).
        recompute (`bool`, *optional*, defaults to `False`): That of the model's forward.

    Returns:
        [`BatchEmbeds`]: in the order of the batch.
    """
    sorted_batch, short_order, long_order = sort_batch(batch)
    groups = [model(group, recompute=recompute) for group in select_groups(sorted_batch, sizes)]
    if len(groups) == 1:
        joined = groups[0]
    else:
        joined = BatchEmbeds(*(join_parts(parts) for parts in zip(*groups)))
    return BatchEmbeds(
        images=joined.images,
        short=restore_order(joined.short, short_order),
        short_mask=restore_order(joined.short_mask, short_order),
        long=restore_order(joined.long, long_order),
        long_mask=restore_order(joined.long_mask, long_order),
        corners=restore_order(joined.corners, long_order),
    )


def join_parts(parts: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    """
    Joins one field of the embeddings of all groups, (rows, ...). Embeddings of all tokens of a caption are padded with
    zeros to the longest one.
    """
    if parts[0] is None:
        return None
    lengths = {part.shape[-2] for part in parts if part.dim() > 2}
    if len(lengths) < 2:
        return torch.cat(parts)
    if parts[0].dim() == 4:
        return concatenate(list(parts), dim=0)
    # tokens of short captions (rows, length, dim), as if there were several for an image
    return concatenate([part[:, None] for part in parts], dim=0)[:, 0]


def restore_order(values: torch.Tensor | None, order: torch.Tensor | None) -> torch.Tensor | None:
    """
    Returns values (rows, ...) of sorted captions in the order that the captions had before. `order` is what
    [`Texts.sort`] gave, of shape (rows,) or (rows * captions,).
    """
    if values is None:
        return None
    by_caption = values.reshape(len(order), -1)
    return by_caption[order.argsort().to(values.device)].view(values.shape)


@dataclass(frozen=True)
class StepOptions:
    """
    How steps are taken.

    Args:
        tokens_per_group (`int`, *optional*):
            That many tokens of captions and images are embedded at a time, and again in the backward pass:
            `--grad_cache_tokens`.
        max_grad_norm (`float`, *optional*, defaults to 1.0): The norm that gradients are clipped to; 0: none.
        teacher (`Teacher`, *optional*): The start model, near which images and short captions are kept.
        distill_weight (`float`, *optional*, defaults to 0.0): The weight of the error against it.
    """

    tokens_per_group: int | None = None
    max_grad_norm: float = 1.0
    teacher: Teacher | None = None
    distill_weight: float = 0.0


@dataclass(frozen=True)
class StepResult:
    """
    What came of a batch.

    Args:
        loss (`BatchLoss`): Its losses.
        losses (`dict[str, float]`):
            By name the means over the batches of an accumulation: the training loop adds them after an update.
        is_update (`bool`): Whether the step of the optimizer was due: after the last batch of an accumulation.
        is_taken (`bool`): Whether the weights were changed: not if loss or gradients are not finite.
        gradient_norm (`float`, *optional*): That of the gradients before they were clipped.
    """

    loss: BatchLoss
    is_update: bool = False
    is_taken: bool = False
    gradient_norm: float | None = None
    losses: dict[str, float] = field(default_factory=dict)


def parameter_groups(model: ContrastiveModel, weight_decay: float) -> list[dict]:
    """
    Returns the parameters that are trained, in groups of an optimizer: matrices decay; norms, biases and scalars do
    not. Corner tokens, rows of a table, decay as those of words do: the original has them in the table of words.

    Args:
        model (`ContrastiveModel`): The model, not yet prepared by the accelerator.
        weight_decay (`float`): The decay of matrices.

    Returns:
        `list[dict]`: the groups, as an optimizer takes them.
    """
    # apart: they are not sharded (FSDP2), and an optimizer does not mix them with what is
    unsharded = {id(parameter) for parameter in model.unsharded_parameters}
    groups = []
    for is_unsharded in (False, True):
        decayed = []
        undecayed = []
        for parameter in model.parameters():
            if parameter.requires_grad and (id(parameter) in unsharded) is is_unsharded:
                chosen = decayed if parameter.dim() >= 2 else undecayed
                chosen.append(parameter)
        groups.append({"params": decayed, "weight_decay": weight_decay})
        groups.append({"params": undecayed, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def train_step(
    model: nn.Module,
    batch: CaptionBatch,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    options: StepOptions | None = None,
    sizes: list[int] | None = None,
) -> StepResult:
    """
    Adds the gradients of a batch, and takes the step of the optimizer after the last batch of an accumulation.

    Args:
        model (`torch.nn.Module`): A [`ContrastiveModel`] with its loss, as the accelerator has prepared it.
        batch (`CaptionBatch`): The rows of this process, (rows, ...), on any device.
        optimizer (`torch.optim.Optimizer`): The optimizer, as the accelerator has prepared it.
        accelerator (`Accelerator`): The processes.
        options (`StepOptions`, *optional*): How steps are taken.
        sizes (`list[int]`, *optional*): Those of [`size_groups`], of as many groups on every process.

    Returns:
        [`StepResult`]: its losses are the same on every process.
    """
    options = options or StepOptions()
    contrastive_model: ContrastiveModel = accelerator.unwrap_model(model)
    if sizes is None:
        sizes = size_groups(contrastive_model, batch, options.tokens_per_group)
        sizes = make_as_many(sizes, *gather_max([len(sizes)], accelerator))
    with accelerator.accumulate(model):
        embeds = embed_batch(model, batch, sizes, recompute=options.tokens_per_group is not None)
        groups = batch.group_short_captions().to(accelerator.device)
        terms = {}
        if options.teacher is not None:
            terms["distill"] = (options.distill_weight, options.teacher.make_term(batch, sizes))
        loss = contrastive_model.loss(embeds, groups, terms, **contrastive_model.scalars)
        accelerator.backward(loss.loss)
        if not accelerator.sync_gradients:
            return StepResult(loss)
        norm = float(accelerator.clip_grad_norm_(model.parameters(), options.max_grad_norm or math.inf))
        is_taken = math.isfinite(loss.loss.item()) and math.isfinite(norm)
        if is_taken:
            optimizer.step()
            contrastive_model.clamp_temperature()
            is_taken = not accelerator.optimizer_step_was_skipped
        elif accelerator.scaler is not None:
            accelerator.scaler.update()  # lowers the scale: clipping has looked for infinite gradients
        optimizer.zero_grad()
        return StepResult(loss, is_update=True, is_taken=is_taken, gradient_norm=norm)

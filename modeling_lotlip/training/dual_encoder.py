# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Any dual encoder as the one module that training wraps, shards and calls."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, TrainerCallback

from ..encoder.backends import PytorchBackend
from ..encoder.families import find_family


MAX_LOGIT_SCALE = math.log(100)


@torch.no_grad()
def clamp_logit_scale(model: PreTrainedModel) -> None:
    """
    Brings the trained `logit_scale` of a dual encoder back to [0, ln 100], after a step of the optimizer. With a
    `logit_bias` it has no bound: the published SigLIP models learned up to 117.
    """
    if getattr(model, "logit_bias", None) is None and model.logit_scale.requires_grad:
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


class ClampLogitScaleCallback(TrainerCallback):
    """[`clamp_logit_scale`] in the `Trainer` of transformers, as in the paper's training."""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        clamp_logit_scale(model)


def check_dual_encoder(model: PreTrainedModel, named: str = "The model") -> None:
    """Raises a `ValueError` if a model lacks a part that training needs."""
    parts = ("get_text_features", "vision_model", "logit_scale")
    if missing := [name for name in parts if not hasattr(model, name)]:
        cause = f"{named} cannot be trained: a `{type(model).__name__}` has no `{'`, `'.join(missing)}`"
        raise ValueError(f"{cause}. Name a LoTLIP, CLIP, SigLIP or another dual encoder.")


def concatenate(embeds: list[torch.Tensor], dim: int) -> torch.Tensor:
    """Text embeddings as one; of tokens, (rows, slots, length, dim), padded with zeros to the longest."""
    if embeds[0].dim() == 4:
        length = max(part.shape[2] for part in embeds)
        embeds = [pad(part, (0, 0, 0, length - part.shape[2])) for part in embeds]
    return torch.cat(embeds, dim)


class ContrastiveModel(nn.Module):
    """
    A dual encoder that embeds images beside short and long captions, each kind padded to its own length: any that
    [`check_dual_encoder`] lets pass, or a [`LotlipTokenWiseModel`]. Data parallelism and FSDP2 call its forward.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        check_dual_encoder(model)
        self.model = model
        self.family = find_family(model.config)
        self.is_token_wise = self.family.compares_tokens
        self.has_corner_tokens = getattr(model.config.get_text_config(), "num_corner_tokens", 0) > 0

    @property
    def scalars(self) -> dict[str, nn.Parameter]:
        """The parameters of one element that losses take: `logit_scale`, and `logit_bias` if the model has one."""
        named = {name: getattr(self.model, name, None) for name in ("logit_scale", "logit_bias")}
        return {name: scalar for name, scalar in named.items() if scalar is not None}

    @property
    def is_vision_frozen(self) -> bool:
        """Whether no weight of the image tower is trained."""
        return not any(parameter.requires_grad for parameter in self.model.vision_model.parameters())

    def train(self, mode: bool = True) -> "ContrastiveModel":
        """A frozen image tower stays in evaluation mode: its output does not change from step to step."""
        super().train(mode)
        if self.is_vision_frozen:
            self.model.vision_model.eval()
        return self

    def encode_images(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The output of the image tower, before the projection: (rows, width), or (rows, length, width) of tokens."""
        outputs = self.model.vision_model(**inputs)
        return outputs.last_hidden_state if self.is_token_wise else outputs.pooler_output

    def embed_captions(self, input_ids: torch.Tensor, mask: torch.Tensor | None, has_corners: bool) -> torch.Tensor:
        """Normalised embeddings (texts, 1 + corners, dim), or (texts, 1, length, dim) of tokens; zero if absent."""
        if self.is_token_wise:
            return self.model.get_text_token_embeds(input_ids, mask)[:, None]
        tokens, present = {"input_ids": input_ids}, input_ids.new_ones(len(input_ids), 1, dtype=torch.bool)
        if mask is not None:
            present = mask.bool().any(dim=1, keepdim=True)
            # an absent text is computed as if it were there: its result is finite, and dropped below
            tokens["attention_mask"] = mask.masked_fill(~present, 1)
        if has_corners:
            outputs = self.model.get_text_features(**tokens, output_corner_tokens=True)
            embeds = torch.cat([outputs.pooler_output[:, None], outputs.corner_pooler_output], dim=1)
        else:
            embeds = PytorchBackend(self.model, self.family).embed_texts(tokens)[:, None]
        return normalize(embeds.float(), dim=-1).masked_fill(~present[..., None], 0)

    def forward(
        self,
        short_input_ids: torch.Tensor,
        short_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        vision_output: torch.Tensor | None = None,
        recompute: bool = False,
        **image_inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Normalised image embeddings (rows, dim) and text embeddings (rows, slots, dim), in float32; with late
        interaction those of all tokens, (rows, image_length, dim) and (rows, captions, text_length, dim).

        Of each image there is the short caption, (rows, short_length), and perhaps long ones, (rows, captions,
        length); what is absent has a mask of zeros, and zero embeddings. Slots are the short caption, then each long
        one, of LoTLIP followed by its corner tokens. `image_inputs` are those of the image processor, `vision_output`
        what [`encode_images`] gave of them before. With `recompute` the backward pass computes all that is trained
        once more, with the same random draws, in place of keeping its activations (gradient caching, Gao et al., 2021,
        https://arxiv.org/abs/2101.06983): a large batch, called in parts, takes the memory of one of them.
        """

        def run(function: Callable[..., torch.Tensor], *inputs) -> torch.Tensor:
            return checkpoint(function, *inputs, use_reentrant=False) if recompute else function(*inputs)

        if vision_output is None:
            encode = self.encode_images if self.is_vision_frozen else partial(run, self.encode_images)
            vision_output = encode(image_inputs)
        if (projection := getattr(self.model, "visual_projection", None)) is not None:
            vision_output = projection(vision_output.to(self.model.dtype))
        captions = [run(self.embed_captions, short_input_ids, short_attention_mask, False)]
        if input_ids is not None:
            mask = attention_mask.flatten(0, 1) if attention_mask is not None else None
            embeds = run(self.embed_captions, input_ids.flatten(0, 1), mask, self.has_corner_tokens)
            captions.append(embeds.unflatten(0, input_ids.shape[:2]).flatten(1, 2))
        return normalize(vision_output.float(), dim=-1), concatenate(captions, dim=1)

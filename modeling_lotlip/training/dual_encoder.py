# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Any dual encoder as the one module that training wraps, shards and calls."""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..embedding.features import text_features
from ..embedding.token_wise import is_token_wise


MAX_LOGIT_SCALE = math.log(100)


@torch.no_grad()
def clamp_logit_scale(model: PreTrainedModel) -> None:
    """
    Brings the trained `logit_scale` of a dual encoder back to [0, ln 100], after a step of the optimizer. With a
    `logit_bias` it has no bound: the published SigLIP models learned up to 117.
    """
    if getattr(model, "logit_bias", None) is None and model.logit_scale.requires_grad:
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def check_dual_encoder(model: PreTrainedModel, named: str = "The model") -> None:
    """Raises a `ValueError` if a model lacks a part that training needs."""
    parts = ("get_text_features", "vision_model", "logit_scale")
    if missing := [name for name in parts if not hasattr(model, name)]:
        raise ValueError(
            f"{named} cannot be trained: a `{type(model).__name__}` has no `{'`, `'.join(missing)}`. Name a dual "
            "encoder such as LoTLIP, CLIP, SigLIP or a VisionTextDualEncoder."
        )


class Embeddings(NamedTuple):
    """
    What a batch is embedded as, in float32.

    Args:
        image_embeds (`torch.Tensor` of shape `(rows, dim)`):
            Normalised; with late interaction those of all tokens, `(rows, image_length, dim)`.
        text_embeds (`torch.Tensor` of shape `(rows, slots, dim)`):
            Normalised, zero where a caption is absent: the short caption, then each long caption, of LoTLIP followed
            by its corner tokens. With late interaction those of all tokens, `(rows, captions, text_length, dim)`, zero
            at padding.
    """

    image_embeds: torch.Tensor
    text_embeds: torch.Tensor


class ContrastiveModel(nn.Module):
    """
    A dual encoder that embeds images beside short and long captions, each kind padded to its own length. Its forward
    is what data parallelism and sharding (FSDP2) call.

    Args:
        model (`PreTrainedModel`):
            A model with `get_text_features`, a `vision_model`, perhaps a `visual_projection` behind it, and a
            `logit_scale`: LoTLIP, CLIP, SigLIP, SigLIP 2, MetaCLIP 2, [`VisionTextDualEncoderModel`]; or a
            [`LotlipTokenWiseModel`].

    Raises:
        `ValueError`: if the model has no such parts.

    Example:

    ```python
    >>> import torch
    >>> from transformers import CLIPConfig, CLIPModel
    >>> from modeling_lotlip.training.dual_encoder import ContrastiveModel

    >>> layers = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4}
    >>> clip = CLIPModel(CLIPConfig(text_config=layers, vision_config=layers, projection_dim=64))
    >>> short_ids, long_ids = torch.randint(9, (2, 5)), torch.randint(9, (2, 3, 40))
    >>> model = ContrastiveModel(clip)
    >>> embeds = model(pixel_values=torch.randn(2, 3, 224, 224), short_input_ids=short_ids, input_ids=long_ids)
    >>> embeds.text_embeds.shape
    torch.Size([2, 4, 64])
    ```"""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        check_dual_encoder(model)
        self.model = model
        self.is_token_wise = is_token_wise(model)
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

    def encode_images(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The output of the image tower, before the projection: (rows, width), or (rows, length, width) of tokens."""
        outputs = self.model.vision_model(**inputs)
        return outputs.last_hidden_state if self.is_token_wise else outputs.pooler_output

    def project_images(self, vision_output: torch.Tensor) -> torch.Tensor:
        """Normalised embeddings of what [`encode_images`] gives."""
        projection = getattr(self.model, "visual_projection", None)
        if projection is not None:
            vision_output = projection(vision_output.to(self.model.dtype))
        return normalize(vision_output.float(), dim=-1)

    def embed_captions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, with_corners: bool
    ) -> torch.Tensor:
        """Normalised embeddings (texts, 1 + corners, dim), or (texts, length, dim) of tokens; zero if absent."""
        tokens, present = {"input_ids": input_ids}, None
        if attention_mask is not None:
            present = attention_mask.bool().any(dim=1)
            # an absent text is computed as if it were there: its result is finite, and dropped below
            tokens["attention_mask"] = attention_mask.masked_fill(~present[:, None], 1)
        if self.is_token_wise:
            embeds = self.model.get_text_token_embeds(**tokens)
            present = present if attention_mask is None else attention_mask.bool()
        elif with_corners and self.has_corner_tokens:
            outputs = self.model.get_text_features(**tokens, output_corner_tokens=True)
            embeds = torch.cat([outputs.pooler_output[:, None], outputs.corner_pooler_output], dim=1)
        else:
            embeds = text_features(self.model, tokens)[:, None]
        embeds = normalize(embeds.float(), dim=-1)
        if present is not None:
            embeds = embeds.masked_fill(~present.reshape(len(embeds), -1, 1), 0)
        return embeds

    def forward(
        self,
        short_input_ids: torch.Tensor,
        short_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        vision_output: torch.Tensor | None = None,
        recompute: bool = False,
        **image_inputs: torch.Tensor,
    ) -> Embeddings:
        """
        Embeds a batch, or a part of one.

        Args:
            short_input_ids, short_attention_mask (`torch.Tensor` of shape `(rows, short_length)`):
                The short caption of each image. One whose mask is all zero is absent.
            input_ids, attention_mask (`torch.Tensor` of shape `(rows, captions, length)`, *optional*):
                Its long captions.
            vision_output (`torch.Tensor` of shape `(rows, width)`, *optional*):
                What [`encode_images`] gave before, in place of the images.
            recompute (`bool`, *optional*, defaults to `False`):
                Whether the backward pass computes all that is trained once more, with the same random draws, in place
                of keeping its activations: a large batch, called in parts, then takes the memory of one of them
                (gradient caching, Gao et al., 2021, https://arxiv.org/abs/2101.06983).
            image_inputs (`torch.Tensor`):
                What the image processor returns, such as `pixel_values`.
        """
        if vision_output is None and self.is_vision_frozen:
            vision_output, image_inputs = self.encode_images(**image_inputs), {}
        captions = (short_input_ids, short_attention_mask, input_ids, attention_mask)
        if recompute:  # random states are kept of the devices of positional arguments
            return checkpoint(self._embed, *captions, vision_output, image_inputs, use_reentrant=False)
        return self._embed(*captions, vision_output, image_inputs)

    def _embed(
        self,
        short_input_ids: torch.Tensor,
        short_attention_mask: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        vision_output: torch.Tensor | None,
        image_inputs: dict[str, torch.Tensor],
    ) -> Embeddings:
        if vision_output is None:
            vision_output = self.encode_images(**image_inputs)
        image_embeds = self.project_images(vision_output)
        captions = [self.embed_captions(short_input_ids, short_attention_mask, with_corners=False)]
        if self.is_token_wise:
            captions[0] = captions[0][:, None]
        if input_ids is not None:
            mask = attention_mask.flatten(0, 1) if attention_mask is not None else None
            embeds = self.embed_captions(input_ids.flatten(0, 1), mask, with_corners=True)
            embeds = embeds.unflatten(0, input_ids.shape[:2])  # shape = (rows, captions, slots or length, dim)
            captions.append(embeds if self.is_token_wise else embeds.flatten(1, 2))
        if self.is_token_wise:
            length = max(embeds.shape[2] for embeds in captions)
            captions = [pad(embeds, (0, 0, 0, length - embeds.shape[2])) for embeds in captions]
        return Embeddings(image_embeds, torch.cat(captions, dim=1))

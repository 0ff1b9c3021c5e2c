# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The contract of a dual encoder: `embed_images` and `embed_captions`, all that training, evaluation and export call of
it. LoTLIP and its subclasses have the two; other families get them here, from their `get_image_features` and
`get_text_features`. Gradients pass through. A `Backend`, by which a `DualEncoder` embeds, has methods of like names,
but knows no absent captions, and no gradients unless it is PyTorch.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ..modeling_lotlip import LotlipCaptionEmbeddings, LotlipModel
from .backends import PytorchBackend
from .families import find_family


class Contract(Protocol):
    """What a dual encoder can do, whatever its family."""

    def embed_images(self, pixel_values: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """Computes normalized embeddings (batch, dim) in float32 of what the image processor makes of images."""

    def embed_captions(
        self,
        short_input_ids: torch.Tensor | None = None,
        short_attention_mask: torch.Tensor | None = None,
        long_input_ids: torch.Tensor | None = None,
        long_attention_mask: torch.Tensor | None = None,
    ) -> LotlipCaptionEmbeddings:
        """
        Embeds captions. One whose attention mask is all zero is absent.

        Args:
            short_input_ids (`torch.Tensor` of shape `(batch, length)`, *optional*): The short captions.
            short_attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): Their mask.
            long_input_ids (`torch.Tensor` of shape `(batch, captions, length)`, *optional*): The long captions.
            long_attention_mask (`torch.Tensor` of shape `(batch, captions, length)`, *optional*): Their mask.
        """


def get_contract(model: PreTrainedModel) -> Contract:
    """Returns the two methods of a dual encoder: the model itself if it has them, otherwise an adapter."""
    if find_family(model.config).compares_tokens:
        return TokenWiseContract(model)
    if hasattr(model, "embed_images") and hasattr(model, "embed_captions"):
        return model
    return FeatureContract(model)


def has_own_method(model_class: type, name: str) -> bool:
    """Returns whether a class of models has a method such as `embed_images`, by its name, other than LoTLIP's."""
    method = getattr(model_class, name, None)
    return method not in (None, getattr(LotlipModel, name))


class FeatureContract:
    """The contract of a model by its features: see [`get_contract`]."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.backend = PytorchBackend(model, find_family(model.config))

    def embed_images(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings of shape (batch, dim): see [`Contract`]."""
        return normalize(self.backend.embed_images(inputs).float(), dim=-1)

    def embed_captions(
        self,
        short_input_ids: torch.Tensor | None = None,
        short_attention_mask: torch.Tensor | None = None,
        long_input_ids: torch.Tensor | None = None,
        long_attention_mask: torch.Tensor | None = None,
    ) -> LotlipCaptionEmbeddings:
        """
        Embeds captions: see [`Contract`].

        Args:
            short_input_ids (`torch.Tensor` of shape `(batch, length)`, *optional*): The short captions.
            short_attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): Their mask.
            long_input_ids (`torch.Tensor` of shape `(batch, captions, length)`, *optional*): The long captions.
            long_attention_mask (`torch.Tensor` of shape `(batch, captions, length)`, *optional*): Their mask.

        Returns:
            [`LotlipCaptionEmbeddings`]: of the captions that are given.
        """
        embeds = {}
        if short_input_ids is not None:
            embeds["short"], embeds["short_mask"] = self._embed_texts(short_input_ids, short_attention_mask)
        if long_input_ids is not None:
            batch_and_captions = long_input_ids.shape[:2]
            attention_mask = long_attention_mask.flatten(0, 1) if long_attention_mask is not None else None
            features, mask = self._embed_texts(long_input_ids.flatten(0, 1), attention_mask)
            embeds["long"] = features.unflatten(0, batch_and_captions)
            embeds["long_mask"] = mask.unflatten(0, batch_and_captions)
        return LotlipCaptionEmbeddings(**embeds)

    def _embed_texts(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized embeddings (texts, dim), and which of the texts are there, (texts,)."""
        tokens = {"input_ids": input_ids}
        present = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if attention_mask is not None:
            present = attention_mask.bool().any(dim=1)
            # an absent text is computed as if it were there: its result is finite, and dropped below
            tokens["attention_mask"] = attention_mask.masked_fill(~present[:, None], 1)
        embeds = normalize(self.backend.embed_texts(tokens).float(), dim=-1)
        return embeds.masked_fill(~present[:, None], 0), present


class TokenWiseContract(FeatureContract):
    """The same of a model with late interaction, whose embeddings are those of all tokens, (..., length, dim)."""

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeddings of shape (batch, image_length, dim)."""
        return self.model.get_image_token_embeds(pixel_values)

    def _embed_texts(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized embeddings (texts, length, dim), and which of the texts are there, (texts,)."""
        embeds = self.model.get_text_token_embeds(input_ids, attention_mask)
        present = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if attention_mask is not None:
            present = attention_mask.bool().any(dim=1)
        return embeds, present


# ---- the temperature


# What similarities are multiplied by at most: that of CLIP and LoTLIP, and far more than the 160 and 197 of the
# published ALIGN and TIPSv2, whose temperature is no logarithm
MAX_LOGIT_SCALE = math.log(100)
MIN_TEMPERATURE = 0.001


@dataclass(frozen=True)
class Temperature:
    """
    How a dual encoder scales its similarities: by the exponential of a parameter, or divided by it.

    Args:
        name (`str`): The name of the parameter.
        divides (`bool`): Whether similarities are divided by it, as by the `temperature` of ALIGN and TIPSv2.
    """

    name: str
    divides: bool

    def scale(self, parameter: torch.Tensor) -> torch.Tensor:
        """Returns what similarities are multiplied by, of the same shape as the parameter (one element)."""
        return 1 / parameter if self.divides else parameter.exp()

    @torch.no_grad()
    def clamp(self, model: PreTrainedModel) -> None:
        """
        Brings the trained parameter of a model back to where similarities are multiplied by 1 to 100 (1,000 where it
        divides), after a step of the optimizer. With a `logit_bias` it has no bound: the published SigLIP models
        learned up to 117.
        """
        parameter = getattr(model, self.name)
        if getattr(model, "logit_bias", None) is not None or not parameter.requires_grad:
            return
        if self.divides:
            parameter.clamp_(MIN_TEMPERATURE, 1)
        else:
            parameter.clamp_(0, MAX_LOGIT_SCALE)


TEMPERATURES = (Temperature("logit_scale", divides=False), Temperature("temperature", divides=True))


def find_temperature(model: nn.Module) -> Temperature | None:
    """Finds the temperature of a dual encoder; None if it has none."""
    for temperature in TEMPERATURES:
        if isinstance(getattr(model, temperature.name, None), nn.Parameter):
            return temperature
    return None

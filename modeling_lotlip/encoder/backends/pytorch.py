# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Embeddings by PyTorch, on any device."""

import torch
from transformers import PreTrainedModel

from ..families import Family, text_lengths
from .backend import Backend


def pooled_features(outputs: torch.Tensor | object) -> torch.Tensor:
    """
    Returns the features, of shape `(rows, dim)`, of a tower that returns these alone or an output of more. Raises a
    `ValueError` if they are of single tokens (FLAVA).
    """
    features = outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output
    if features.dim() != 2:
        raise ValueError(
            f"The model has features of shape {tuple(features.shape)}, of each token, and no single embedding of a "
            "text or an image: name another dual encoder."
        )
    return features


class PytorchBackend(Backend):
    """
    Computes embeddings by the model itself: LoTLIP and its subclasses by `embed_captions` and `embed_images`, as their
    training does, other families by `get_text_features` and `get_image_features`.

    Args:
        model (`PreTrainedModel`):
            A dual encoder in evaluation mode.
        family ([`Family`]):
            How it reads texts and images.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.encoder.backends import PytorchBackend
    >>> from modeling_lotlip.encoder.families import find_family

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> backend = PytorchBackend(model.eval(), find_family(model.config))
    >>> backend.embed_texts({"input_ids": torch.tensor([[101, 2417, 102]])}).shape
    torch.Size([1, 768])
    ```"""

    name = "torch"

    def __init__(self, model: PreTrainedModel, family: Family):
        self.model = model
        self.family = family

    @property
    def dtype(self) -> str:
        """The dtype of the weights, as `--dtype` names it."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def embed_texts(self, inputs: dict[str, torch.Tensor], is_long: bool = False) -> torch.Tensor:
        """
        Returns embeddings of shape `(texts, dim)`, or `(texts, tokens, dim)` of a model that compares tokens: see
        [`Backend.embed_texts`].
        """
        if self.family.compares_tokens:
            return self.model.get_text_token_embeds(**to_model(inputs, self.model))
        if not hasattr(self.model, "embed_captions"):
            return self.text_features(inputs)
        inputs = to_model(inputs, self.model)
        if is_long:
            captions = {f"long_{name}": tensor[:, None] for name, tensor in inputs.items()}
            return self.model.embed_captions(**captions).long[:, 0]
        captions = {f"short_{name}": tensor for name, tensor in inputs.items()}
        return self.model.embed_captions(**captions).short

    def text_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Returns the features of texts before they are normalized, of shape `(texts, dim)`.

        Args:
            inputs (`dict[str, torch.Tensor]`):
                What [`Preprocessing.tokenize`] makes of texts, on any device, `input_ids` of shape `(texts, length)`.
        """
        inputs = to_model(inputs, self.model)
        if self.family.has_walk_types:
            return self.embed_by_walk_type(inputs)
        return pooled_features(self.model.get_text_features(**inputs))

    def embed_by_walk_type(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Returns the embeddings of FG-CLIP 2, of shape `(texts, dim)`, which reads texts of up to 64 tokens in one way
        and longer ones in another, padded to one length each.
        """
        ids = inputs["input_ids"]
        short_length, long_length = text_lengths(self.model.config, self.family)
        if ids.shape[1] not in (short_length, long_length):
            raise ValueError(
                f"The texts have {ids.shape[1]} tokens, but the model reads {short_length} or {long_length}: pad them "
                "to one of these lengths."
            )
        # what differs from the last token is no padding
        is_long = (ids != ids[:, -1:])[:, short_length:].any(dim=1)
        embeds = None
        for walk_type, rows, length in (("short", ~is_long, short_length), ("long", is_long, long_length)):
            if not rows.any():
                continue
            part = {name: tensor[rows, :length] for name, tensor in inputs.items()}
            features = pooled_features(self.model.get_text_features(**part, walk_type=walk_type))
            if embeds is None:
                embeds = features.new_empty(len(ids), features.shape[1])
            embeds[rows] = features
        return embeds

    def embed_images(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Returns embeddings of shape `(images, dim)`, or `(images, tokens, dim)` of a model that compares tokens: see
        [`Backend.embed_images`].
        """
        inputs = to_model(inputs, self.model)
        if self.family.compares_tokens:
            return self.model.get_image_token_embeds(**inputs)
        if hasattr(self.model, "embed_images"):
            return self.model.embed_images(**inputs)
        return pooled_features(self.model.get_image_features(**inputs))


def to_model(inputs: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Moves inputs, each of any shape `(rows, ...)`, to a model's device, floating-point ones to its precision."""
    moved = {}
    for name, tensor in inputs.items():
        dtype = model.dtype if tensor.is_floating_point() else None
        moved[name] = tensor.to(model.device, dtype)
    return moved

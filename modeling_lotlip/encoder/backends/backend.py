# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What every backend offers."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from ..hashes import hash_model


class Backend(ABC):
    """
    Computes the embeddings of a dual encoder.

    Attributes:
        name (`str`): What `--backend` calls it.
        dtype (`str`): What it computes in, as `--dtype` names it.
        device (`torch.device`): Where it computes.
        min_cosine (`float`): An embedding with a lower cosine to that of PyTorch in float32 is wrong.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.encoder.backends import Backend

    >>> class RandomBackend(Backend):
    ...     name, dtype, device = "random", "float32", torch.device("cpu")
    ...
    ...     def embed_texts(self, inputs, is_long=False):
    ...         return torch.randn(len(inputs["input_ids"]), 8)
    ...
    ...     def embed_images(self, inputs):
    ...         return torch.randn(len(inputs["pixel_values"]), 8)

    >>> RandomBackend().embed_texts({"input_ids": torch.ones(2, 5)}).shape
    torch.Size([2, 8])
    ```"""

    name: str
    dtype: str
    device: torch.device
    min_cosine: float = 0.0

    def hash_weights(self, model: nn.Module) -> str:
        """Returns a hash of the weights of a model that embeddings are computed with: those that it has now."""
        return hash_model(model)

    @abstractmethod
    def embed_texts(self, inputs: dict[str, torch.Tensor], is_long: bool = False) -> torch.Tensor:
        """
        Returns embeddings of shape `(texts, dim)`, not always normalized.

        Args:
            inputs (`dict[str, torch.Tensor]`):
                What `Preprocessing.tokenize` makes of texts, on any device.
            is_long (`bool`, *optional*, defaults to `False`):
                Whether the texts are long captions, which some models embed in another way than short ones.
        """

    @abstractmethod
    def embed_images(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Returns embeddings of shape `(images, dim)`, not always normalized.

        Args:
            inputs (`dict[str, torch.Tensor]`):
                What `Preprocessing.prepare_images` makes of images, on any device.
        """

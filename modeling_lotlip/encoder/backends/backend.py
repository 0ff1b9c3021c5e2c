# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What every backend offers."""

from abc import ABC, abstractmethod

import torch


class Backend(ABC):
    """
    Computes the embeddings of a dual encoder.

    Attributes:
        name (`str`): What `--backend` calls it.
        dtype (`str`): What it computes in, as `--dtype` names it.
        device (`torch.device`): Where it computes.
    """

    name: str
    dtype: str
    device: torch.device

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

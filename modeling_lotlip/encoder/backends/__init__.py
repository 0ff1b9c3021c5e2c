# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What computes embeddings. A further backend is a file here with a subclass of [`Backend`]."""

from .backend import Backend
from .pytorch import PytorchBackend


__all__ = ["Backend", "PytorchBackend"]

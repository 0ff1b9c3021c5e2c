# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Losses of training, on batches that are too large for the model's own, plain loss: `driver` compares and exchanges,
each file gives the terms of one loss. May import the model alone; training uses them.
"""

from .blockwise_contrastive_loss import blockwise_contrastive_loss
from .blockwise_sigmoid_loss import blockwise_sigmoid_loss
from .matryoshka_loss import matryoshka_loss
from .primary_component_contrastive_loss import primary_component_contrastive_loss
from .token_wise_contrastive_loss import token_wise_contrastive_loss


__all__ = [
    "blockwise_contrastive_loss",
    "blockwise_sigmoid_loss",
    "matryoshka_loss",
    "primary_component_contrastive_loss",
    "token_wise_contrastive_loss",
]

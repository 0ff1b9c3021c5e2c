# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Losses of training, each a plain function in the file of its name, differentiated by autograd: [`global_loss`] makes
the loss of a batch of it, and [`check_loss`] says whether it can. A new one is its file, and a line in `LOSSES`.
"""

from .check import check_loss
from .contrastive_loss import contrastive_loss
from .global_loss import BatchLoss, global_loss
from .pairs import Pairs, Slots, image_logits, in_blocks, text_logits
from .primary_component_loss import primary_component_loss
from .sigmoid_loss import sigmoid_loss


LOSSES = {
    "contrastive": contrastive_loss,
    "sigmoid": sigmoid_loss,
    "primary_component": primary_component_loss,
}

__all__ = [
    "LOSSES",
    "BatchLoss",
    "Pairs",
    "Slots",
    "check_loss",
    "contrastive_loss",
    "global_loss",
    "image_logits",
    "in_blocks",
    "primary_component_loss",
    "sigmoid_loss",
    "text_logits",
]

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Losses of training, on batches that are too large for the model's own, plain loss: `driver` compares and exchanges,
each file gives the terms of one loss. May import the model alone; training uses them.
"""

from .blockwise_contrastive_loss import blockwise_contrastive_loss
from .blockwise_sigmoid_loss import blockwise_sigmoid_loss
from .primary_component_contrastive_loss import primary_component_contrastive_loss
from .token_wise_contrastive_loss import token_wise_contrastive_loss


__all__ = [
    "blockwise_contrastive_loss",
    "blockwise_sigmoid_loss",
    "primary_component_contrastive_loss",
    "token_wise_contrastive_loss",
]

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
What a training can be for: LoTLIP, and the systems that the paper compares it with. An objective is a loss, the
scalars that are trained with it, and what of a training is otherwise by default than in LoTLIP.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from .. import LotlipModel, LotlipTokenWiseModel
from ..losses import (
    blockwise_contrastive_loss,
    blockwise_sigmoid_loss,
    primary_component_contrastive_loss,
    token_wise_contrastive_loss,
)


@dataclass(frozen=True)
class Objective:
    """
    An objective of training.

    Args:
        help (`str`):
            What it is, with its source.
        loss (`Callable`):
            A function of image embeddings, text embeddings and scalars, with the further arguments of
            [`blockwise_contrastive_loss`].
        defaults (`dict`):
            Training arguments that it sets unless the user does.
        logit_scale (`float`, *optional*):
            Where the inverse temperature (no logarithm) begins, if not where the model has it.
        logit_bias (`float`, *optional*):
            Where the bias of the logits begins, if the loss has one.
        model_class (`type`, *optional*, defaults to [`LotlipModel`]):
            The class of the models that it trains.
    """

    help: str
    loss: Callable
    defaults: dict = field(default_factory=dict)
    logit_scale: float | None = None
    logit_bias: float | None = None
    model_class: type[LotlipModel] = LotlipModel

    @property
    def is_token_wise(self) -> bool:
        """Whether the loss takes the embeddings of all tokens."""
        return self.model_class.is_token_wise

    def prepare(self, model: LotlipModel) -> None:
        """
        Makes a model ready for training: it gets the scalars that the loss needs, with which it is saved, and without
        which it works.
        """
        with torch.no_grad():
            if self.logit_scale is not None:
                model.logit_scale.fill_(self.logit_scale).log_()
        if self.logit_bias is not None:
            model.register_parameter("logit_bias", nn.Parameter(torch.tensor(self.logit_bias)))


SHORT_CAPTIONS_ONLY = {"num_corner_tokens": 0, "num_long_captions": 0}

OBJECTIVES = {
    "lotlip": Objective(
        "short and long captions, these with corner tokens (Wu et al., 2024, https://arxiv.org/abs/2410.05249)",
        blockwise_contrastive_loss,
    ),
    "clip": Objective(
        "one caption with each image (Radford et al., 2021, https://arxiv.org/abs/2103.00020); LiT with a locked "
        "image tower (Zhai et al., 2022, https://arxiv.org/abs/2111.07991)",
        blockwise_contrastive_loss,
        SHORT_CAPTIONS_ONLY,
    ),
    "laclip": Objective(
        "CLIP with a caption drawn among all, short and long, of an image (Fan et al., 2023, "
        "https://arxiv.org/abs/2305.20088)",
        blockwise_contrastive_loss,
        {**SHORT_CAPTIONS_ONLY, "draw_short_from_all": True},
    ),
    "siglip": Objective(
        "every pair by itself, with a sigmoid and a bias (Zhai et al., 2023, https://arxiv.org/abs/2303.15343)",
        blockwise_sigmoid_loss,
        SHORT_CAPTIONS_ONLY,
        logit_scale=10.0,
        logit_bias=-10.0,
    ),
    "filip": Objective(
        "all tokens of a text with all of an image (Yao et al., 2021, https://arxiv.org/abs/2111.07783)",
        token_wise_contrastive_loss,
        SHORT_CAPTIONS_ONLY,
        model_class=LotlipTokenWiseModel,
    ),
    "long_clip": Objective(
        "short captions with the primary components of images, long ones with images as they are (Zhang et al., 2024, "
        "https://arxiv.org/abs/2403.15378); see also --max_position_embeddings",
        primary_component_contrastive_loss,
        {"num_corner_tokens": 0},
    ),
    "debias": Objective(
        "Long-CLIP with some sub-captions of a long caption, but not the first, a summary, in the place of the short "
        "one (Lavoie et al., 2026, https://arxiv.org/abs/2602.22419)",
        primary_component_contrastive_loss,
        {"num_corner_tokens": 0, "drop_summary": True},
    ),
}


def scalars_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The scalars of a model that its loss takes, by name: `logit_scale`, and what an objective adds."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.dim() == 0}

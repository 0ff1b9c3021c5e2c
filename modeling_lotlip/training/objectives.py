# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a training can be for: LoTLIP, and the systems that the paper compares it with. A new one is an entry here and
its loss in `modeling_lotlip/losses`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Objective:
    """
    An objective of training: a loss, and the defaults that differ from LoTLIP's.

    Args:
        help (`str`):
            What it is, with its source.
        loss (`str`):
            Its name in `modeling_lotlip.losses.LOSSES`.
        loss_options (`dict`, *optional*):
            Further arguments of the loss, of its own.
        num_corner_tokens, num_long_captions, short_captions:
            The defaults of these training arguments.
        model_class (`str`, *optional*, defaults to `"LotlipModel"`):
            The class of `modeling_lotlip` that is trained, with the scalars and embeddings that the loss takes.
        matryoshka_dims (`tuple[int, ...]`, *optional*):
            The loss is also that of the first numbers of each embedding: see [`global_loss`].
        num_hard_negatives (`int`, *optional*, defaults to 0):
            Texts that are false of their own image, behind each long caption.
    """

    help: str
    loss: str
    loss_options: dict = field(default_factory=dict)
    num_corner_tokens: int = 0
    num_long_captions: int = 0
    short_captions: str = "given"
    model_class: str = "LotlipModel"
    matryoshka_dims: tuple[int, ...] = ()
    num_hard_negatives: int = 0


OBJECTIVES = {
    "lotlip": Objective(
        "short and long captions, these with corner tokens (Wu et al., 2024, https://arxiv.org/abs/2410.05249)",
        "contrastive",
        num_corner_tokens=2,
        num_long_captions=1,
    ),
    "clip": Objective(
        "one caption with each image (Radford et al., 2021, https://arxiv.org/abs/2103.00020); LiT with a frozen "
        "image tower (Zhai et al., 2022, https://arxiv.org/abs/2111.07991)",
        "contrastive",
    ),
    "laclip": Objective(
        "CLIP with a caption drawn among all, short and long, of an image (Fan et al., 2023, "
        "https://arxiv.org/abs/2305.20088)",
        "contrastive",
        short_captions="any",
    ),
    "siglip": Objective(
        "every pair by itself, with a sigmoid and a bias (Zhai et al., 2023, https://arxiv.org/abs/2303.15343)",
        "sigmoid",
        model_class="LotlipSigmoidModel",
    ),
    "filip": Objective(
        "all tokens of a text with all of an image (Yao et al., 2021, https://arxiv.org/abs/2111.07783)",
        "token_wise",
        model_class="LotlipTokenWiseModel",
    ),
    "long_clip": Objective(
        "short captions with the primary components of images, long ones with images as they are (Zhang et al., 2024, "
        "https://arxiv.org/abs/2403.15378); see also --max_length",
        "primary_component",
        loss_options={"num_components": 32},
        num_long_captions=1,
    ),
    "debias": Objective(
        "Long-CLIP with some sub-captions of a long caption, but not the first, a summary, instead of the short "
        "one (Lavoie et al., 2026, https://arxiv.org/abs/2602.22419)",
        "primary_component",
        loss_options={"num_components": 32},
        num_long_captions=1,
        short_captions="details",
    ),
}


def choose_objective(
    name: str, matryoshka_dims: Iterable[int] | None = None, hard_negatives: int = 0, has_bias: bool = False
) -> Objective:
    """
    An objective, with what goes with any of them.

    Args:
        name (`str`):
            One of `OBJECTIVES`.
        matryoshka_dims (`Iterable[int]`, *optional*):
            First numbers of each embedding that are trained to be an embedding too.
        hard_negatives (`int`, *optional*, defaults to 0):
            Hard negatives of each long caption.
        has_bias (`bool`, *optional*, defaults to `False`):
            Whether the model has a bias of its logits: it is trained with the sigmoid loss in place of the contrastive
            one.

    Raises:
        `ValueError`: if the loss needs a bias and the model has none, or the other way round.

    Example:

    ```python
    >>> from modeling_lotlip.training.objectives import choose_objective

    >>> choose_objective("clip", [64, 32], has_bias=True).loss
    'sigmoid'
    ```"""
    objective = OBJECTIVES[name]
    if has_bias and objective.loss == "contrastive":
        objective = replace(objective, loss="sigmoid")
    if has_bias != (objective.loss == "sigmoid"):
        losses = ("contrastive", "sigmoid") if has_bias else ("contrastive", "primary_component", "token_wise")
        names = [other for other in OBJECTIVES if OBJECTIVES[other].loss in losses]
        raise ValueError(
            f"`--objective {name}` is for a model {'without' if has_bias else 'with'} a `logit_bias`: choose one of "
            f"{', '.join(names)}."
        )
    return replace(objective, matryoshka_dims=tuple(matryoshka_dims or ()), num_hard_negatives=hard_negatives)

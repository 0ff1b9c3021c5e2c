# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""LoTLIP and what the paper compares it with. A new one is an entry here and its loss in `modeling_lotlip/losses`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """An objective of training: a loss, and the defaults of training arguments that go with it."""

    help: str  # what it is, with its source
    loss: str  # its name in `modeling_lotlip.losses.LOSSES`
    num_corner_tokens: int = 0
    num_long_captions: int = 0
    short_captions: str = "given"
    model_class: str = "LotlipModel"  # that is trained, with the scalars and embeddings that the loss takes


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
        "contrastive",
        model_class="LotlipTokenWiseModel",
    ),
    "long_clip": Objective(
        "short captions with the primary components of images, long ones with images as they are (Zhang et al., 2024, "
        "https://arxiv.org/abs/2403.15378); see also --max_length",
        "primary_component",
        num_long_captions=1,
    ),
    "debias": Objective(
        "Long-CLIP with some sub-captions of a long caption, but not the first, a summary, instead of the short "
        "one (Lavoie et al., 2026, https://arxiv.org/abs/2602.22419)",
        "primary_component",
        num_long_captions=1,
        short_captions="details",
    ),
}

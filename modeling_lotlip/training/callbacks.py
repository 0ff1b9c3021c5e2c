# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Callbacks for the `Trainer` of transformers."""

from transformers import TrainerCallback

from .dual_encoder import clamp_logit_scale


class ClampLogitScaleCallback(TrainerCallback):
    """
    Keeps `logit_scale` of a [`LotlipModel`] within [0, ln 100] while `Trainer` trains it, as the paper's training does
    (Wu et al., 2024, https://arxiv.org/abs/2410.05249); that of a model with a sigmoid loss has no bounds.

    Example:

    ```python
    >>> from transformers import Trainer
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.training.callbacks import ClampLogitScaleCallback

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> trainer = Trainer(model, callbacks=[ClampLogitScaleCallback()])
    ```"""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        clamp_logit_scale(model)


__all__ = ["ClampLogitScaleCallback"]

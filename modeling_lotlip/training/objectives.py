# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
LoTLIP and what the paper compares it with, each an [`Objective`]. A new one is an entry here, or in a plugin. Nothing
here imports torch: a loss or a class of this package is named, as `module:name`, and imported when it is used.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..utils.plugins import Registry


# What is measured as `loss_NAME` by the package itself: the slots, and the error against a teacher
TAKEN_NAMES = ("short", "long", "distill")


@dataclass(frozen=True)
class Objective:
    """
    What is trained: a loss, and the defaults of training arguments that go with it.

    Args:
        help (`str`):
            What it is, with its source.
        loss (`Callable` or `str`):
            A function of [`~modeling_lotlip.losses.Pairs`] of some rows, of all rows, and `logit_scale`, that returns
            losses of shape `(slots, rows)`; or a `torch.nn.Module` class whose `forward` is one, and whose parameters
            are trained too: it is made with the options.
        loss_with_bias (`Callable` or `str`, *optional*):
            The loss in its place for a model that has a `logit_bias`, which it takes as an argument. The same one if
            the loss takes a bias anyway. Default: such a model is refused.
        takes_bias (`bool`, *optional*, defaults to `False`):
            Whether `loss` takes a `logit_bias`: a model without one is refused.
        options (`dict`, *optional*):
            Further arguments of the loss with their defaults: `--objective_options NAME=VALUE` sets them. An option
            `NAME_weight` is the weight of the term `NAME`.
        terms (`dict[str, Callable]`, *optional*):
            What is added to the loss, by name: functions of `Pairs` of some rows, and of all rows, that return values
            of shape `(rows,)`. The names are not those of slots, nor `distill`.
        model_class (`type` or `str`, *optional*):
            The class of the models that are trained: a LoTLIP becomes one. Default: `LotlipModel`.
        num_corner_tokens (`int`, *optional*, defaults to 0):
            `--num_corner_tokens` of a new LoTLIP.
        num_long_captions (`int`, *optional*, defaults to 0):
            The default of `--num_long_captions`.
        short_captions (`str`, *optional*, defaults to `"given"`):
            The default of `--short_captions`.

    Example:

    ```python
    >>> from modeling_lotlip.losses import contrastive_loss
    >>> from modeling_lotlip.training.objectives import OBJECTIVES

    >>> OBJECTIVES["lotlip"].load_loss(has_bias=False) is contrastive_loss
    True
    ```"""

    help: str
    loss: Callable | str
    loss_with_bias: Callable | str | None = None
    takes_bias: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Callable] = field(default_factory=dict)
    model_class: type | str = "modeling_lotlip:LotlipModel"
    num_corner_tokens: int = 0
    num_long_captions: int = 0
    short_captions: str = "given"

    def __post_init__(self):
        for name in self.terms:
            if name in TAKEN_NAMES or name.startswith("corner_"):
                raise ValueError(f"The term `{name}` has a name of the package, `loss_{name}`: rename it.")

    def load_loss(self, has_bias: bool) -> Callable | None:
        """
        Loads the loss for a model with or without a `logit_bias`; None if the objective does not train such a model.
        """
        if has_bias and not self.takes_bias:
            return load_named(self.loss_with_bias)
        if self.takes_bias and not has_bias:
            return None
        return load_named(self.loss)

    def load_model_class(self) -> type:
        """Loads the class of the models that are trained."""
        return load_named(self.model_class)

    def read_options(self, words: list[str]) -> dict[str, Any]:
        """
        Reads all options, those of words such as `weight=0.5` in place of their defaults. Raises a `ValueError` for an
        option that there is not, or is named twice, or a value of another type.
        """
        options = dict(self.options)
        options |= {f"{name}_weight": 1.0 for name in self.terms if f"{name}_weight" not in options}
        named = set()
        for word in words:
            name, equals, value = word.partition("=")
            if name in named:
                raise ValueError(f"--objective_options names {name} twice: leave out one.")
            named.add(name)
            if not equals or name not in options:
                known = ", ".join(options) or "none"
                raise ValueError(
                    f"--objective_options {word} is no NAME=VALUE of an option of the objective: {known}."
                )
            options[name] = read_value(word, value, type(options[name]))
        return options


def read_value(word: str, value: str, value_type: type) -> bool | int | float | str:
    """
    Reads a value in the type of a default. Raises a `ValueError` that names the word `NAME=VALUE` if it is of another.
    """
    if value_type is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"--objective_options {word} must be true or false.")
        return value.lower() == "true"
    if value_type not in (int, float, str):
        raise ValueError(
            f"--objective_options {word} cannot be read: its default is of type {value_type.__name__}. Give the "
            "option a bool, a float, an int or a str as its default."
        )
    try:
        return value_type(value)
    except ValueError:
        raise ValueError(f"--objective_options {word} must be of type {value_type.__name__}.") from None


def load_named(named: object) -> Any:
    """Returns what a string `module:name` names; anything else is returned as it is."""
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)


CONTRASTIVE = "modeling_lotlip.losses:contrastive_loss"
SIGMOID = "modeling_lotlip.losses:sigmoid_loss"


class Objectives(Registry[Objective]):
    """Holds objectives by name. A plugin adds others, and replaces none of this package, which it is compared with."""

    def check(self, name: str, item: Objective) -> None:
        """Raises a `ValueError` for what is no [`Objective`]."""
        if not isinstance(item, Objective):
            raise ValueError(f"The objective `{name}` is a {type(item).__name__}: give an `Objective`.")


PACKAGE_OBJECTIVES = {
    "lotlip": Objective(
        "short and long captions, these with corner tokens (Wu et al., 2024, https://arxiv.org/abs/2410.05249)",
        CONTRASTIVE,
        loss_with_bias=SIGMOID,
        num_corner_tokens=2,
        num_long_captions=1,
    ),
    "clip": Objective(
        "one caption with each image (Radford et al., 2021, https://arxiv.org/abs/2103.00020); LiT with a frozen "
        "image tower (Zhai et al., 2022, https://arxiv.org/abs/2111.07991)",
        CONTRASTIVE,
        loss_with_bias=SIGMOID,
    ),
    "laclip": Objective(
        "CLIP with a caption sampled among all, short and long, of an image (Fan et al., 2023, "
        "https://arxiv.org/abs/2305.20088)",
        CONTRASTIVE,
        loss_with_bias=SIGMOID,
        short_captions="any",
    ),
    "siglip": Objective(
        "every pair by itself, with a sigmoid and a bias (Zhai et al., 2023, https://arxiv.org/abs/2303.15343)",
        SIGMOID,
        takes_bias=True,
        model_class="modeling_lotlip:LotlipSigmoidModel",
    ),
    "filip": Objective(
        "all tokens of a text with all of an image (Yao et al., 2021, https://arxiv.org/abs/2111.07783)",
        CONTRASTIVE,
        model_class="modeling_lotlip:LotlipTokenWiseModel",
    ),
    "long_clip": Objective(
        "short captions with the primary components of images, long ones with images as they are (Zhang et al., 2024, "
        "https://arxiv.org/abs/2403.15378); see also --max_length",
        "modeling_lotlip.losses:primary_component_loss",
        options={"num_components": 32},
        num_long_captions=1,
    ),
}

OBJECTIVES = Objectives("objective", PACKAGE_OBJECTIVES)

# The objectives of this package by name, which no plugin may replace
BUILT_IN_OBJECTIVES = OBJECTIVES.built_in

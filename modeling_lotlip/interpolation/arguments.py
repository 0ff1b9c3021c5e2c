# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments by which the weights of two models are mixed and measured. Imports nothing heavy."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..data.arguments import (
    CaptionArguments,
    CaptionFileArguments,
    DatasetArguments,
    EvaluationSplitArguments,
)
from ..evaluation.arguments import ClassificationArguments
from ..utils.arguments import Arguments, argument, refuse_given
from ..utils.plugins import load_plugin


@dataclass(kw_only=True)
class MixtureArguments(Arguments):
    """The two models, how they are mixed, and which mixture is the best."""

    _argument_group_name = "models"

    start: str = argument(
        help="The model that a training began with: a Hub id or a folder.",
        positional=True,
        metavar="START",
    )
    end: str = argument(
        help="What the training made of it.",
        positional=True,
        metavar="END",
    )
    alphas: list[float] = argument(
        [0.2, 0.4, 0.6, 0.8],
        "How much of END there is in a mixture: its weights are (1 - alpha) START + alpha END. 0 and 1 are measured "
        "in any case.",
        least=0,
        most=1,
        metavar="ALPHA",
    )
    max_loss: float = argument(
        0.5,
        "The points that short captions, and classes if labels are named, may lose against START. Of the mixtures "
        "that lose no more, the one that finds long captions best is saved.",
        least=0,
        metavar="POINTS",
    )
    trust_remote_code: bool = argument(False, "Run the code that comes with the models.")
    plugin: list[Path] = argument([], "Python files of your own that register models.", metavar="FILE")
    device: str | None = argument(
        None,
        "The device, as `cpu` or `cuda:0`. Default: an accelerator if there is one.",
    )
    batch_size: int = argument(64, "Images in a batch.", least=1)

    def __post_init__(self):
        self.plugin = [Path(path) for path in self.plugin]
        for path in self.plugin:
            load_plugin(path)
        super().__post_init__()
        for alpha, following in pairwise(self.all_alphas):
            if f"{alpha:g}" == f"{following:g}":
                raise ValueError(f"--alphas {alpha} and {following} are written as {alpha:g}: leave one out.")

    @property
    def all_alphas(self) -> list[float]:
        """Returns the mixtures that are measured, in order, 0 and 1 among them."""
        return sorted({0.0, *self.alphas, 1.0})


@dataclass
class MixtureClassArguments(ClassificationArguments):
    """The classes by which zero-shot classification is measured, if it is."""

    label_column: str | None = argument(
        None, "The column of class labels: then zero-shot classification is measured too. Default: it is not."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.label_column is None:
            refuse_given(self, ("class_names", "class_names_file", "templates"), "without --label_column")


@dataclass(kw_only=True)
class MixtureOutputArguments(Arguments):
    """Where the best mixture goes."""

    _argument_group_name = "output"

    output_dir: Path = argument(
        help="The folder of the best mixture, with its card, all that was measured and the curve. It must not exist, "
        "or be empty."
    )

    def __post_init__(self):
        super().__post_init__()
        self.output_dir = Path(self.output_dir)


@dataclass(kw_only=True)
class InterpolateArguments(
    MixtureArguments,
    MixtureClassArguments,
    CaptionArguments,
    CaptionFileArguments,
    EvaluationSplitArguments,
    DatasetArguments,
    MixtureOutputArguments,
):
    """All arguments by which the weights of two models are mixed and measured."""

    def __post_init__(self):
        super().__post_init__()
        if self.streaming:
            raise ValueError("--streaming is not for `lotlip interpolate`, which halves the rows: leave it out.")

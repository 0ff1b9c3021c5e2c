# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments by which two encoders are joined. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from ..data.arguments import (
    CaptionArguments,
    CaptionFileArguments,
    DatasetArguments,
    EvaluationSplitArguments,
    TrainSplitArguments,
)
from ..utils.arguments import Arguments, argument, refuse_given
from ..utils.plugins import load_plugin


@dataclass(kw_only=True)
class TowersArguments(Arguments):
    """The two encoders, whose weights do not change."""

    _argument_group_name = "towers"

    text_model_name_or_path: str = argument(
        help="A model of sentence-transformers, or a text encoder of transformers: the mean of its tokens.",
        aliases=("--text_model",),
        metavar="MODEL",
    )
    vision_model_name_or_path: str = argument(
        help="An image encoder of transformers, such as DINOv2 or one of timm; also a model of sentence-transformers.",
        aliases=("--vision_model",),
        metavar="MODEL",
    )
    text_prompt: str | None = argument(
        None,
        "What is put before each text, in training and in every use, such as `query: `. Default: the default prompt "
        "of the text model, if it has one; '' for none.",
        metavar="TEXT",
    )
    max_length: int | None = argument(
        None, "Truncate texts at this many tokens. Default: the text model's limit.", least=3
    )
    device: str | None = argument(
        None,
        "The device, as `cpu` or `cuda:0`. Default: an accelerator if there is one.",
    )
    batch_size: int = argument(32, "Images or texts in a batch of the encoders.", least=1)
    features_dir: Path | None = argument(
        None, "Where features of images and texts are kept for later runs. Default: in the Hub's cache."
    )
    plugin: list[Path] = argument([], "Python files of your own that register models.", metavar="FILE")

    def __post_init__(self):
        for path in self.plugin:
            load_plugin(path)
        super().__post_init__()


@dataclass
class HeadArguments(Arguments):
    """The heads, and how they are trained."""

    _argument_group_name = "heads"

    head: str | None = argument(
        None,
        "What is trained on each side. linear: one layer; mlp: two, with GELU and dropout between. Default: linear; "
        "with --keep text mlp.",
        choices=("linear", "mlp"),
    )
    keep: str | None = argument(
        None,
        "text: train the head of the images alone, into the space of the text model, whose stored embeddings stay "
        "valid. image: the other way round.",
        choices=("text", "image"),
    )
    captions: list[str] = argument(
        ["short", "long", "sub"],
        "Which texts of an image are trained on; sub: the sentences of long captions.",
        choices=("short", "long", "sub"),
    )
    projection_dim: int = argument(256, "Dimensions of an embedding.", least=1, excludes=("keep",))
    num_train_epochs: int | None = argument(
        None, "Passes over the images. Default: chosen on images held out of --train_split.", least=1
    )
    per_device_train_batch_size: int = argument(1024, "Images in a step.", least=2)
    learning_rate: float = argument(1e-3, "The learning rate of AdamW.", above=0)
    weight_decay: float = argument(0.1, "Of matrices only.", least=0)
    dropout: float = argument(0.3, "Of an mlp.", least=0, below=1)
    seed: int = argument(0, "The random seed of weights, order and captions.", least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.head is None:
            if self.keep != "text":
                refuse_given(self, ("dropout",), "with linear heads, the default", remedy="add --head mlp")
            self.head = "linear"
            # into the space of texts, which does not move, a linear layer finds fewer images by long texts
            if self.keep == "text":
                self.head = "mlp"
        if self.head == "linear":
            refuse_given(self, ("dropout",), "with --head linear")


@dataclass(kw_only=True)
class AlignedOutputArguments(Arguments):
    """Where the model goes."""

    _argument_group_name = "output"

    output_dir: Path = argument(help="The folder of the model, its card and its results.")
    overwrite_output_dir: bool = argument(False, "Replace a model there.")

    def __post_init__(self):
        super().__post_init__()
        self.output_dir = Path(self.output_dir)


@dataclass(kw_only=True)
class AlignArguments(
    HeadArguments,
    TowersArguments,
    CaptionFileArguments,
    CaptionArguments,
    TrainSplitArguments,
    EvaluationSplitArguments,
    DatasetArguments,
    AlignedOutputArguments,
):
    """All arguments by which two encoders are joined."""

    def __post_init__(self):
        super().__post_init__()
        if self.streaming:
            raise ValueError("--streaming is not for `lotlip align`, which keeps features of all rows: leave it out.")

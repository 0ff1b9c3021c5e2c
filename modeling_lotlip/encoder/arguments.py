# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of commands that run a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..utils.arguments import DTYPES, Arguments, argument, check_output_file
from ..utils.plugins import load_plugin


# The dtypes of stored embeddings
STORAGE_DTYPES = ("float32", "float16")
# The fastest on this machine that stays close to float32: see `fastest.py`
AUTO = "auto"
# What computes embeddings
BACKENDS = ("torch", "openvino", AUTO)
# What they can be computed in
PRECISIONS = (*DTYPES, "int8", AUTO)
# What is embedded of a dataset: images, short and long captions
KINDS = ("image", "short", "long")

DEFAULT_MODEL = "weiwu-ww/LoTLIP-ViT-B-16-100M"


@dataclass
class LoadingArguments(Arguments):
    """How a dual encoder is loaded."""

    _argument_group_name = "model"

    # of commands that have no such arguments
    backend: ClassVar[str | None] = None
    truncate_dim: ClassVar[int | None] = None

    trust_remote_code: bool = argument(False, "Run the code that comes with the model.")
    plugin: list[Path] = argument([], "Python files of your own that register models.", metavar="FILE")
    dtype: str = argument(
        "float32",
        "The precision of the computation. auto: on a CPU the fastest that is close to float32, measured once; "
        "elsewhere half precision.",
        choices=(*DTYPES, AUTO),
    )
    device: str | None = argument(
        None,
        "The device, as `cpu` or `cuda:0`. Default: an accelerator if there is one.",
    )
    max_length: int | None = argument(
        None,
        "Truncate texts at this many tokens. Default: the model's limit.",
        least=3,
    )

    def __post_init__(self):
        for path in self.plugin:
            load_plugin(path)
        super().__post_init__()
        self.dtype = DTYPES.get(self.dtype, self.dtype)


@dataclass
class InferenceArguments(LoadingArguments):
    """How a dual encoder is run."""

    dtype: str = argument(
        "float32",
        "The precision of the computation. int8 is for a CPU, by OpenVINO. auto: on a CPU the fastest that is "
        "close to float32, measured once; elsewhere half precision.",
        choices=PRECISIONS,
    )
    backend: str | None = argument(
        None,
        "What computes. auto: the fastest here. Default: PyTorch, with --dtype int8 OpenVINO, with auto auto.",
        choices=BACKENDS,
    )
    truncate_dim: int | None = argument(
        None,
        "Keep the first N dimensions of an embedding, of a model that was trained with --matryoshka_dims.",
        least=1,
    )
    batch_size: int = argument(64, "Images in a batch, for each process.", least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.dtype == AUTO and self.backend is None:
            self.backend = AUTO
        # what one of the two alone computes
        if self.dtype == "int8" and self.backend in (None, AUTO):
            self.backend = "openvino"
        if self.dtype == "float16" and self.backend == AUTO:
            self.backend = "torch"
        if (self.dtype, self.backend) in (("float16", "openvino"), ("int8", "torch")):
            raise ValueError(f"--dtype {self.dtype} is not for --backend {self.backend}: leave out one of them.")


@dataclass
class ModelArguments(InferenceArguments):
    """A dual encoder, and how it is run."""

    model_name_or_path: str = argument(
        DEFAULT_MODEL, "A Hub id or a folder of a dual encoder.", aliases=("--model",), metavar="MODEL"
    )


@dataclass
class ModelNames(Arguments):
    """Several dual encoders."""

    _argument_group_name = "model"

    model_name_or_path: list[str] = argument(
        [DEFAULT_MODEL],
        "Hub ids or folders of dual encoders, one or several.",
        aliases=("--model",),
        metavar="MODEL",
    )


@dataclass
class ModelsArguments(InferenceArguments, ModelNames):
    """Several dual encoders, and how they are run."""


@dataclass
class StoreArguments(Arguments):
    """A table of embeddings, and what is stored there."""

    _argument_group_name = "embeddings"

    output_dir: Path = argument(help="The folder of the table.")
    output_file: Path | None = argument(
        None, "Also write the embeddings to one file for other tools: .parquet or .npz.", metavar="FILE"
    )
    storage_dtype: str = argument(
        "float32",
        "The precision in which embeddings are stored.",
        choices=STORAGE_DTYPES,
    )
    key_column: str | None = argument(
        None,
        "A column of strings or integers, different in all rows, by which images and captions are known. The image "
        "column itself: the SHA-256 of the image file. Default: the paths of files in a folder of images, here or of "
        "the Hub; else the indices, from 0, among the rows read.",
    )
    only: str | None = argument(None, "Embed only texts or only images.", choices=("texts", "images"))
    tokens_per_batch: int = argument(2048, "Max tokens in a batch of texts.", least=1)
    dataloader_num_workers: int | None = argument(
        None, "Processes that decode and tokenize. Default: one for each core, 8 at most.", least=0
    )

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file, (".parquet", ".npz"))


@dataclass
class OutputArguments(Arguments):
    """Where results go."""

    _argument_group_name = "results"

    output_file: Path | None = argument(None, "Write the results to this file: .json, .csv or .md.")

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file, (".json", ".csv", ".md"))

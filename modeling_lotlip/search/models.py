# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model that is searched with."""

from pathlib import Path

from ..arguments import refuse_given
from ..embedding.arguments import DEFAULT_MODEL
from ..embedding.store import read_settings
from .arguments import USED_AS_IT_IS, SearchModelArguments


def choose_model(arguments: SearchModelArguments, embeddings_dir: Path | None = None) -> str:
    """
    The model that is named; else the one that made the embeddings of a folder, which notes it, or the default.

    Args:
        arguments (`SearchModelArguments`):
            May name a model.
        embeddings_dir (`Path`, *optional*):
            The folder of `lotlip embed` that is searched, if it is one.

    Raises:
        `ValueError`: if the folder is none or does not say its model, or an argument has no effect on it.
    """
    if embeddings_dir is None:
        return arguments.model_name_or_path or DEFAULT_MODEL
    refuse_given(arguments, ("batch_size",), USED_AS_IT_IS)
    if arguments.model_name_or_path is not None:
        return arguments.model_name_or_path
    name = read_settings(embeddings_dir).get("model_name_or_path")
    if name is None:
        raise ValueError(
            f"`--embeddings_dir {embeddings_dir}` does not say which model made it: name that by --model."
        )
    return name

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of `lotlip serve`."""

from dataclasses import dataclass
from pathlib import Path

from ..utils.arguments import Arguments, argument


@dataclass
class ServingArguments(Arguments):
    """Declares where embeddings are served, and what a request may ask for."""

    _argument_group_name = "server"

    host: str = argument(
        "127.0.0.1",
        "The address to listen at. `0.0.0.0`: all who reach this machine are served.",
    )
    port: int = argument(8000, "The port to listen at. 0: any that is free.", least=0, most=65535)
    max_batch_size: int = argument(256, "The most texts and images in a request.", least=1)
    max_bytes: int = argument(32 * 2**20, "The most bytes of a request.", least=1)
    max_pixels: int = argument(100_000_000, "The most pixels of all images in a request.", least=1)
    embeddings_dir: Path | None = argument(
        None,
        "Also answer `/v1/search` from the table in a folder of `lotlip embed`, of this model.",
        aliases=("--embeddings",),
        metavar="DIR",
    )
    served_model_name: str | None = argument(
        None, "What requests call the model. Default: its name, as it is given here."
    )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Converts a checkpoint of the original LoTLIP code to a folder that the Auto classes and `pipeline` load, and back.

    lotlip convert weiwu-ww/LoTLIP-ViT-B-16-100M
    lotlip convert model.pt my_model
    lotlip convert my_model --to_original back.pt

A repository or a folder in the original's layout holds `model.pt`, with or without `open_clip_config.json`. What comes
back is a plain state dict of open_clip, equal to the checkpoint bit by bit.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ..arguments import Arguments, argument


# By which a name is that of a file, also of one that is not there
CHECKPOINT_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")


@dataclass
class ConvertArguments(Arguments):
    """What is converted, and to what."""

    checkpoint: str = argument(
        help="A repository of the Hub or a folder in the original's layout, or the checkpoint itself (of torch.save, "
        "or .safetensors); with --to_original also a converted folder.",
        positional=True,
        metavar="ID_OR_FILE",
    )
    output_dir: str | None = argument(
        None,
        "The folder to write: it must not exist, or be empty. Default: the last part of the repository's name, in the "
        "current folder.",
        positional=True,
        metavar="DIR",
    )
    config_path: str | None = argument(
        None,
        "The checkpoint's open_clip_config.json. Default: the one beside it in a repository or a folder; without one "
        "the architecture is read off the tensor shapes, 64 units to a head.",
    )
    tokenizer_path: str = argument(
        "google-bert/bert-base-uncased", "Folder or Hub id with BERT's vocab.txt or tokenizer.json."
    )
    to_original: str | None = argument(
        None, "Write the weights to this file as a state dict of the original code.", metavar="FILE"
    )


ARGUMENTS = (ConvertArguments,)


def run(conversion: ConvertArguments) -> None:
    from ..convert_lotlip_to_hf import convert, find_original

    checkpoint, config, output_dir = conversion.checkpoint, conversion.config_path, conversion.output_dir
    is_file = os.path.isfile(checkpoint) or Path(checkpoint).suffix in CHECKPOINT_SUFFIXES
    original = None if is_file else find_original(checkpoint)
    if original is not None:
        if output_dir is None and conversion.to_original is None:
            output_dir = Path(checkpoint).resolve().name
        checkpoint, config = original[0], config or original[1]
    elif not is_file and not Path(checkpoint, "config.json").is_file():
        raise ValueError(
            f"`{checkpoint}` is not in the original's layout: it has no `model.pt`, or has a `config.json` too, with "
            "which a model loads by its name and needs no conversion."
        )
    for path in convert(
        checkpoint,
        output_dir,
        config,
        conversion.tokenizer_path,
        conversion.to_original,
    ):
        print(f"Wrote {path}")

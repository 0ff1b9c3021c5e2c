# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Converts a checkpoint of the original LoTLIP code to a folder that the Auto classes and `pipeline` load, and back.

    lotlip convert model.pt LoTLIP-ViT-B-16
    lotlip convert LoTLIP-ViT-B-16 --to_original model.pt

What comes back is a plain state dict of open_clip, equal to the checkpoint bit by bit.
"""

from dataclasses import dataclass

from ..arguments import Arguments, argument


@dataclass
class ConvertArguments(Arguments):
    """What is converted, and to what."""

    checkpoint: str = argument(
        help="The original checkpoint (of torch.save, or .safetensors); with --to_original also a converted folder.",
        positional=True,
        metavar="FILE_OR_DIR",
    )
    output_dir: str | None = argument(
        None, "The folder to write: it must not exist, or be empty.", positional=True, metavar="DIR"
    )
    config_path: str | None = argument(
        None,
        "The checkpoint's open_clip_config.json. By default the architecture is read off the tensor shapes, 64 units "
        "to a head.",
    )
    tokenizer_path: str = argument(
        "google-bert/bert-base-uncased", "Folder or Hub id with BERT's vocab.txt or tokenizer.json."
    )
    to_original: str | None = argument(
        None, "Write the weights to this file as a state dict of the original code.", metavar="FILE"
    )


ARGUMENTS = (ConvertArguments,)


def run(conversion: ConvertArguments) -> None:
    from ..convert_lotlip_to_hf import convert

    for path in convert(
        conversion.checkpoint,
        conversion.output_dir,
        conversion.config_path,
        conversion.tokenizer_path,
        conversion.to_original,
    ):
        print(f"Wrote {path}")

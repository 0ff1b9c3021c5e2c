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

import logging
from dataclasses import dataclass

from ..utils.arguments import Arguments, argument


logger = logging.getLogger(__name__)


@dataclass
class ConvertArguments(Arguments):
    """What is converted, and to what."""

    checkpoint_path: str = argument(
        help="A repository of the Hub or a folder in the original's layout, or the checkpoint itself (of torch.save); "
        "with --to_original alone a converted folder.",
        positional=True,
        metavar="ID_OR_FILE",
    )
    output_dir: str | None = argument(
        None,
        "The folder to write: it must not exist, or be empty. Default: the last part of the name, without an ending, "
        "in the current folder.",
        positional=True,
        metavar="DIR",
    )
    config_path: str | None = argument(
        None,
        "The checkpoint's open_clip_config.json. Default: that of the repository or folder; without one "
        "the architecture follows from the shapes of the tensors, with heads of 64 units.",
    )
    tokenizer_path: str = argument(
        "google-bert/bert-base-uncased", "Folder or Hub id with BERT's vocab.txt or tokenizer.json."
    )
    to_original: str | None = argument(
        None, "Write the weights to this file as a state dict of the original code.", metavar="FILE"
    )


ARGUMENTS = (ConvertArguments,)


def run(conversion: ConvertArguments) -> None:
    """Converts a checkpoint of the original, or back to one."""
    from ..convert_lotlip_to_hf import convert
    from ..encoder.loading import check_is_read_alike, find_saved_truncate_dim

    if conversion.to_original is not None:
        check_is_read_alike(conversion.checkpoint_path)
        num_dims = find_saved_truncate_dim(conversion.checkpoint_path)
        if num_dims is not None:
            logger.warning(f"The checkpoint gives all dimensions, not the first {num_dims} that the model keeps.")
    for written in convert(**vars(conversion)):
        print(f"Wrote {written}")

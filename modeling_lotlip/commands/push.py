# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Uploads a folder with a model to the Hub, with its model card and code: what `lotlip convert` or a training wrote.

    lotlip push outputs/LoTLIP-ViT-B-16 me/LoTLIP-ViT-B-16

The repository is created if there is none yet. Checkpoints and logs of a training are left out.
"""

from dataclasses import dataclass

from ..utils.arguments import Arguments, argument


@dataclass
class PushArguments(Arguments):
    """What is uploaded, and where to."""

    folder: str = argument(help="The folder of the model.", positional=True, metavar="DIR")
    name: str = argument(
        help="The repository: NAME, in your own namespace, or ORG/NAME.",
        positional=True,
    )


ARGUMENTS = (PushArguments,)


def run(upload: PushArguments) -> None:
    """Uploads a folder of a model, and prints its address."""
    from ..hub import push_folder

    print(push_folder(upload.folder, upload.name))

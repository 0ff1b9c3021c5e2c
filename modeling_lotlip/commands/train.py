# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Contrastive training on images with short and long captions.

    lotlip train --output_dir outputs/mine --dataset_name FOLDER \\
        --vision_model_name_or_path google/vit-base-patch16-224-in21k \\
        --text_model_name_or_path google-bert/bert-base-uncased

Several processes: `accelerate launch -m lotlip train ...`. Without `--dataset_name`: drawn scenes, a small model.
"""

import ctypes
import os
import platform

from ..training.arguments import TrainArguments


ARGUMENTS = (TrainArguments,)


def keep_freed_memory() -> None:
    """
    Lets glibc keep large blocks that are freed, for the next step: it would give each back to the system, which clears
    it again. Nothing happens where the environment has variables `MALLOC_...`.
    """
    trim_threshold, mmap_max = -1, -4  # `M_TRIM_THRESHOLD` and `M_MMAP_MAX` of malloc.h
    if platform.libc_ver()[0] == "glibc" and not any(name.startswith("MALLOC_") for name in os.environ):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)  # never


def run(args: TrainArguments) -> None:
    """Trains a model."""
    from ..training import loop

    keep_freed_memory()
    loop.run(args)

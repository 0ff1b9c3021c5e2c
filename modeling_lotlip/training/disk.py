# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The room on the disk that a training needs, compared with what there is before it begins."""

import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from torch import nn

from .arguments import TrainArguments
from .checkpoints import find_leftovers


logger = logging.getLogger(__name__)


@dataclass
class NeededRoom:
    """
    Bytes that a training writes into its output folder.

    Args:
        model (`int`):
            The model.
        checkpoint (`int`):
            A checkpoint: the model and two states of the optimizer for each trained parameter.
        num_checkpoints (`int`):
            Checkpoints that are there at the same time.
        keeps_best (`bool`):
            Whether the best model is kept.
    """

    model: int
    checkpoint: int
    num_checkpoints: int
    keeps_best: bool

    @property
    def least(self) -> int:
        """Without which the run is lost: the model twice, as it replaces an earlier one whole, and two checkpoints."""
        return 2 * self.model + min(self.num_checkpoints, 2) * self.checkpoint

    @property
    def whole(self) -> int:
        """All that is kept; a checkpoint may have a best model of its own."""
        best = (1 + self.num_checkpoints) * self.model if self.keeps_best else 0
        return 2 * self.model + self.num_checkpoints * self.checkpoint + best


def count_needed_room(args: TrainArguments, model: nn.Module, batches_per_epoch: int | None) -> NeededRoom:
    """
    What a training will write.

    Args:
        args (`TrainArguments`):
            The arguments, with the number of steps.
        model (`nn.Module`):
            The model to train.
        batches_per_epoch (`int`, *optional*):
            Of this process. Not known of a stream, of which one epoch is counted.
    """
    total = sum(tensor.nbytes for tensor in model.state_dict().values())
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    if args.checkpointing_steps is None:
        num_checkpoints = 0
    elif args.checkpointing_steps != "epoch":
        num_checkpoints = args.max_train_steps // int(args.checkpointing_steps)
    elif batches_per_epoch is None:
        num_checkpoints = 1
    else:
        num_checkpoints = math.ceil(args.max_train_steps * args.gradient_accumulation_steps / batches_per_epoch)
    if args.checkpoints_total_limit is not None:  # the oldest is deleted when the new one is whole
        num_checkpoints = min(num_checkpoints, args.checkpoints_total_limit + 1)
    return NeededRoom(total, total + 2 * trained, num_checkpoints, args.metric_for_best_model is not None)


def check_room(args: TrainArguments, needed: NeededRoom) -> None:
    """
    Compares the room that a training needs with that of its output folder, what an earlier run left there included:
    it is replaced, or part of this run.

    Raises:
        `ValueError`: if there is none for the model and the checkpoints without which the run would be lost.
    """
    folder = next(path for path in (args.output_dir.absolute(), *args.output_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free + sum(map(count_bytes, find_leftovers(args.output_dir)))
    has = f"`--output_dir {args.output_dir}` has {free / 1e9:.3g} GB left"
    if needed.least > free:
        num_checkpoints = min(needed.num_checkpoints, 2)
        what = f"model and {num_checkpoints} checkpoints need" if num_checkpoints else "model needs"
        raise ValueError(
            f"{has}, but the {what} {needed.least / 1e9:.3g} GB to be saved: make room, "
            "or name a folder on another disk."
        )
    if needed.whole > free and PartialState().is_main_process:
        logger.warning(
            f"{has}, but the model and {needed.num_checkpoints} checkpoints will need {needed.whole / 1e9:.3g} GB: "
            "the run ends when the disk is full. Make room, or keep fewer checkpoints (`--checkpoints_total_limit`)."
        )


def count_bytes(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())

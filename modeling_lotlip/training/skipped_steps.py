# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss or gradients are not finite: skipped, counted, and too many in a row end the run."""

import logging

from accelerate import Accelerator
from accelerate.utils import gather_object

from ..files import write_json
from .arguments import TrainArguments
from .batches import BatchSampler, StreamBatchSampler
from .checkpoints import TrainingState


logger = logging.getLogger(__name__)


def count_skipped_step(
    state: TrainingState,
    names: list[str],
    sampler: BatchSampler | StreamBatchSampler,
    args: TrainArguments,
    accelerator: Accelerator,
) -> None:
    """
    Counts a step that was skipped.

    Args:
        state (`TrainingState`):
            Where the run is: before the step, behind its last batch.
        names (`list[str]`):
            The names of the samples of the last batch.
        sampler (`BatchSampler` or `StreamBatchSampler`):
            The order of the samples.
        args (`TrainArguments`):
            The arguments of the training.
        accelerator (`Accelerator`):
            The processes.

    Raises:
        `ValueError`: after `--max_skipped_steps` in a row; `not_finite.json` has what was in the last one.
    """
    state.skipped_steps += 1
    state.skipped_in_a_row += 1
    if accelerator.is_main_process:
        logger.warning(f"Step {state.step + 1} is skipped: its loss or gradients are not finite.")
    if state.skipped_in_a_row < args.max_skipped_steps:
        return
    path = args.output_dir / "not_finite.json"
    names = gather_object(names)
    if accelerator.is_main_process:
        told = {"step": state.step + 1, "epoch": state.epoch, "batch": state.batch - 1, "samples": names}
        if isinstance(sampler, BatchSampler):
            first = max(0, state.batch - args.gradient_accumulation_steps)
            told["rows"] = sampler.order()[first * sampler.global_batch_size : state.batch * sampler.global_batch_size]
        write_json(path, told)
    raise ValueError(
        f"{state.skipped_in_a_row} steps in a row had a loss or gradients that are not finite. What was in the last "
        f"one is in {path}. Start again with a lower learning rate, or without those rows."
    )

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The processes that `accelerate launch` or torchrun has started."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from accelerate import PartialState


def join_processes(device: str | None = None, **options: object) -> PartialState:
    """
    Joins this process and those that were started with it, each of which has its part of the work. Where there is no
    accelerator they compute on the CPU, for which accelerate has to be asked: otherwise torchrun's processes know
    nothing of each other, and each does all of the work.

    Args:
        device (`str`, *optional*): The device that was asked for.
        options: Those of `PartialState`, such as `timeout`.

    Returns:
        `PartialState`: the processes; this one alone if it was started alone.
    """
    import torch
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu" or not torch.accelerator.is_available(), **options)


def check_single_process(command: str, state: PartialState) -> None:
    """Raises a `ValueError` if a command that does not share its work was started as several processes."""
    if state.num_processes > 1:
        raise ValueError(f"`lotlip {command}` runs in one process: start it without `accelerate launch` or torchrun.")

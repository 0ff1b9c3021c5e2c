# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a training tell each other: that one of them has failed, or was told to end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


@contextmanager
def fail_together(accelerator: Accelerator) -> Iterator[None]:
    """
    What fails in one process within the block ends all of them, with its message, when all have come to the end of the
    block: otherwise they would wait for it until `--ddp_timeout`. In the block processes must not wait for another.

    Raises:
        `ValueError`: what another process has raised.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    raise_together(failure, accelerator)


def raise_together(failure: Exception | None, accelerator: Accelerator) -> None:
    """Raises this process's failure, or that of another one. Every process must call this."""
    told = [None if failure is None else str(failure) or type(failure).__name__]
    told = gather_object(told) if accelerator.num_processes > 1 else told
    if failure is not None:
        raise failure
    if any(told):
        raise ValueError(next(filter(None, told)))


def next_together(items: Iterator[Any], number: int, accelerator: Accelerator) -> tuple[Any, int]:
    """
    The next item of this process, None behind the last one, and the largest of the numbers that the processes call
    this with. What fails in one process ends all of them. Every process must call this, and have as many items.

    Raises:
        `ValueError`: what another process has raised.
    """
    item, failure = None, None
    try:
        item = next(items, None)
    except Exception as error:
        failure = error
    status = torch.tensor([[number, failure is not None]], device=accelerator.device)
    number, has_failed = accelerator.gather(status).amax(dim=0).tolist()
    if has_failed:
        raise_together(failure, accelerator)
    return item, number

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a training tell each other: that one of them has failed, or a number."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


def largest(number: int, accelerator: Accelerator) -> int:
    """The largest of the numbers that the processes call this with, which all must do."""
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


@contextmanager
def fail_together(accelerator: Accelerator) -> Iterator[None]:
    """
    What fails in one process within the block ends all of them at its end, the others with a `ValueError` of the same
    message: else they would wait for it until `--ddp_timeout`. In the block processes must not wait for another.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    if largest(failure is not None, accelerator):
        messages = [None if failure is None else str(failure) or type(failure).__name__]
        messages = gather_object(messages) if accelerator.num_processes > 1 else messages
        raise failure or ValueError(next(filter(None, messages)))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of a training exchange: that one of them has failed, or a value."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


def gather_max(values: list[int], accelerator: Accelerator) -> list[int]:
    """Gathers the maximum of each of the values that the processes call this with, which all must do."""
    if accelerator.num_processes == 1:
        return values
    gathered = accelerator.gather(torch.tensor([values], device=accelerator.device))
    return gathered.amax(dim=0).tolist()


@contextmanager
def fail_together(accelerator: Accelerator, **values: int) -> Iterator[dict[str, int]]:
    """
    Ends all processes at the end of a block that fails in one of them, the others with a `ValueError` of the same
    message: otherwise they would wait for it until `--ddp_timeout`. In the block no process may wait for another,
    which may have failed before.

    The processes may exchange values on this occasion: what a block leaves in the dictionary that it gets becomes the
    maximum over all processes.
    """
    failure = None
    try:
        yield values
    except Exception as error:
        failure = error
    has_failed, *found = gather_max([int(failure is not None), *values.values()], accelerator)
    if has_failed:
        messages = [None if failure is None else str(failure) or type(failure).__name__]
        if accelerator.num_processes > 1:
            messages = gather_object(messages)
        raise failure or ValueError(next(filter(None, messages)))
    values.update(zip(values, found))

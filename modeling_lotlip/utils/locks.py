# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Locks by which one process at a time makes what all of them use."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout
from huggingface_hub.utils import WeakFileLock


logger = logging.getLogger(__name__)

# After which a process says that it waits for another one
SECONDS_IN_SILENCE = 1.0


@contextmanager
def lock_file(file: Path, message: str | None = None) -> Iterator[None]:
    """Lets one process at a time in, by a file that is made if it is not there. One that waits says `message`."""
    with ExitStack() as lock:
        try:
            lock.enter_context(WeakFileLock(file, timeout=SECONDS_IN_SILENCE))
        except Timeout:
            if message is not None:
                logger.warning(message)
            lock.enter_context(WeakFileLock(file))
        yield

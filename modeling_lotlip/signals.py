# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Signals that tell a run to end, noted for it to end where nothing is lost."""

import os
import signal


class StopSignal:
    """
    Notes SIGTERM and SIGINT, for the run to end after the step that it is in, and says so by `promise`. A second one
    of the same kind ends it at once.
    """

    def __init__(self, promise: str = "The run ends after this step, with a checkpoint."):
        self.number = 0
        self.promise = promise

    def note(self, number: int, frame: object) -> None:
        self.number = number
        # of this kind only: at Ctrl-C torchrun sends SIGTERM behind the terminal's SIGINT
        signal.signal(number, self.handlers[number])
        # past Python's buffer, in which the signal may have found a progress bar at work
        os.write(2, f"{self.promise}\n".encode())

    def is_received(self) -> bool:
        """Whether a signal has come."""
        return self.number != 0

    def __enter__(self) -> "StopSignal":
        self.handlers = {number: signal.signal(number, self.note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def leave_signals_to_the_main_process(worker: int) -> None:
    """In a data worker: signals to the process group pass it by, and it ends with the process that it works for."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if hasattr(os, "setpgid"):  # Windows has no process groups
        os.setpgid(0, 0)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Signals that tell a run to end, noted for it to end where nothing is lost."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class StopSignal:
    """
    Notes SIGTERM, SIGINT and, unless `nohup` ignores it, SIGHUP of a terminal that closes, for the run to end after
    the step that it is in, and says so by `promise`. A second one of the same kind ends it at once.
    """

    def __init__(self, promise: str = "The run ends after this step, with a checkpoint."):
        self.number = 0
        self.promise = promise

    def note(self, number: int, frame: object) -> None:
        """Handles a signal: notes it, and lets a second one of its kind end the run."""
        self.number = number
        # of this kind only: at Ctrl-C torchrun sends SIGTERM after the terminal's SIGINT
        signal.signal(number, self.handlers[number])
        # past Python's buffer, in which the signal may have found a progress bar at work
        with suppress(OSError):  # the terminal is gone
            os.write(2, f"{self.promise}\n".encode())

    def is_received(self) -> bool:
        """Returns whether a signal has come."""
        return self.number != 0

    def __enter__(self) -> "StopSignal":
        numbers = [signal.SIGTERM, signal.SIGINT]
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
            numbers.append(hangup)
        self.handlers = {number: signal.signal(number, self.note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """
    Holds Ctrl-C back inside, and lets it come afterward, also where the code inside raises an error: for code that
    takes any exception in it for an error of its own.
    """
    # Python raises Ctrl-C in no other thread
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        # None: of no Python code
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def leave_signals_to_the_main_process(worker: int) -> None:
    """
    Moves a data worker out of the process group that signals go to: it ends with the process it works for. Windows has
    no such groups: there the worker ignores Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setpgid(0, 0)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

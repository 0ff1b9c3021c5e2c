"""Waits for what another process does, by looks and not by a clock: a busy machine may be slow, and none is timed."""

import time
from collections.abc import Callable


# The pauses in all; a hang is an error in the end
MAX_SECONDS_OF_PAUSES = 600


def wait_until(is_done: Callable[[], bool], describe: Callable[[], str], pause: float = 0.1) -> None:
    """
    Looks again and again until something is done. Raises a `TimeoutError` if it never is.

    Args:
        is_done (`Callable[[], bool]`): Looks.
        describe (`Callable[[], str]`): Says what is there instead, for the error.
        pause (`float`, *optional*, defaults to 0.1): Seconds between two looks.
    """
    for _ in range(round(MAX_SECONDS_OF_PAUSES / pause)):
        if is_done():
            return
        time.sleep(pause)
    raise TimeoutError(describe())

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Arguments that are integers."""

from numbers import Integral


def is_integer(value: object) -> bool:
    """Returns whether a value is an integer, of Python or NumPy; `True`, which Python counts as 1, is none here."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_integer(argument: str, value: object, min_value: int) -> None:
    """Raises a `ValueError` if an argument of a function is no integer, or less than the min value."""
    if not is_integer(value) or value < min_value:
        raise ValueError(f"`{argument}` must be an integer of at least {min_value}, got {value!r}.")

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which pictures of a collection are searched."""

from datetime import date, datetime, time
from pathlib import PurePath
from typing import NamedTuple


class Filter(NamedTuple):
    """
    Which pictures of a collection are searched.

    Args:
        folder (`str`, *optional*):
            Those in a folder of the collection, and all folders in it.
        taken_from, taken_to (`date`, *optional*):
            Those that were taken on these days or between them. A picture that does not say when it was taken is none
            of them.

    Example:

    ```python
    >>> from modeling_lotlip.search.filters import Filter

    >>> Filter(folder="holidays/2024").condition
    "starts_with(key, 'holidays/2024/')"
    ```"""

    folder: str | None = None
    taken_from: date | None = None
    taken_to: date | None = None

    @classmethod
    def read(
        cls,
        folder: str | None = None,
        taken_from: str | None = None,
        taken_to: str | None = None,
        names: tuple[str, str] = ("--taken_from", "--taken_to"),
    ) -> "Filter":
        """
        A filter of what somebody wrote; blank is nothing.

        Args:
            folder (`str`, *optional*):
                The path of a folder in the collection.
            taken_from, taken_to (`str`, *optional*):
                Days such as 2024-05-31.
            names (`tuple[str, str]`, *optional*, defaults to `("--taken_from", "--taken_to")`):
                How messages call the two days.

        Raises:
            `ValueError`: if one is no date, or the first is after the second.

        Example:

        ```python
        >>> from modeling_lotlip.search.filters import Filter

        >>> str(Filter.read(taken_from="2024-05-01", taken_to="2024-05-31"))
        'taken from 2024-05-01 to 2024-05-31'
        ```"""
        days = []
        for text, name in zip((taken_from, taken_to), names):
            text = (text or "").strip()
            try:
                days.append(date.fromisoformat(text) if text else None)
            except ValueError as error:
                raise ValueError(f"{name} {text} is no date: write year, month and day, as in 2024-05-31.") from error
        if None not in days and days[0] > days[1]:
            raise ValueError(f"{names[0]} {days[0]} is after {names[1]} {days[1]}: exchange them.")
        folder = str(PurePath(folder.strip())) if folder and folder.strip() else "."
        return cls(None if folder == "." else folder, *days)

    @property
    def condition(self) -> str | None:
        """The SQL condition of an [`EmbeddingTable`]; None if every image is let through."""
        parts = []
        if self.folder is not None:
            start = str(PurePath(self.folder) / "_")[:-1].replace("'", "''")
            parts.append(f"starts_with(key, '{start}')")
        if self.taken_from is not None:
            parts.append(f"taken >= timestamp '{datetime.combine(self.taken_from, time.min)}'")
        if self.taken_to is not None:
            parts.append(f"taken <= timestamp '{datetime.combine(self.taken_to, time(23, 59, 59))}'")
        return " AND ".join(parts) or None

    def __str__(self) -> str:
        """In words that go on "pictures"."""
        words = [] if self.folder is None else [f"in the folder {self.folder}"]
        words += ["taken"] * (self.taken_from is not None or self.taken_to is not None)
        words += [] if self.taken_from is None else [f"from {self.taken_from}"]
        words += [] if self.taken_to is None else [f"to {self.taken_to}"]
        return " ".join(words)


EVERYTHING = Filter()

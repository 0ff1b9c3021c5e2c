# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which images of a collection are searched."""

from datetime import date
from pathlib import PurePath
from typing import NamedTuple


class Filter(NamedTuple):
    """
    Which images of a collection are searched: images in a `folder` and in all folders in it, and images that were
    taken on two days or between them. An image without a date is left out then.

    Example:

    ```python
    >>> from modeling_lotlip.search.filters import Filter

    >>> chosen = Filter.parse(folder="holidays/2024", taken_to="2024-05-31")
    >>> print(chosen)
    in the folder holidays/2024 taken to 2024-05-31
    >>> chosen.condition
    "starts_with(key, 'holidays/2024/') AND taken <= timestamp '2024-05-31 23:59:59'"
    ```"""

    folder: str | None = None
    taken_from: date | None = None
    taken_to: date | None = None

    @classmethod
    def parse(cls, folder: str | None = None, taken_from: str | None = None, taken_to: str | None = None) -> "Filter":
        """
        A filter of texts, of which a blank one is none. Raises a `ValueError` if one is no date, or the first day is
        after the second.
        """
        days = []
        for name, text in (("taken_from", taken_from), ("taken_to", taken_to)):
            text = (text or "").strip()
            try:
                days.append(date.fromisoformat(text) if text else None)
            except ValueError as error:
                raise ValueError(
                    f"`{name}` {text} is no date: write year, month and day, as in 2024-05-31."
                ) from error
        if None not in days and days[0] > days[1]:
            raise ValueError(f"`taken_from` {days[0]} is after `taken_to` {days[1]}: exchange them.")
        folder = str(PurePath((folder or "").strip()))
        return cls(None if folder == "." else folder, *days)

    @property
    def condition(self) -> str | None:
        """The SQL condition of an [`EmbeddingTable`]; None if all images are searched."""
        parts = []
        if self.folder is not None:
            parts.append("starts_with(key, '{}/')".format(self.folder.rstrip("/").replace("'", "''")))
        if self.taken_from is not None:
            parts.append(f"taken >= timestamp '{self.taken_from} 00:00:00'")
        if self.taken_to is not None:
            parts.append(f"taken <= timestamp '{self.taken_to} 23:59:59'")
        return " AND ".join(parts) or None

    def __str__(self) -> str:
        """In words that follow "images"."""
        days = [f"{name} {day}" for name, day in (("from", self.taken_from), ("to", self.taken_to)) if day is not None]
        words = [] if self.folder is None else [f"in the folder {self.folder}"]
        return " ".join([*words, *(["taken", *days] if days else [])])


ALL_IMAGES = Filter()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Slices of splits, such as `train[:90%]`: which rows they have, and which they share."""

import sys
from typing import NamedTuple

from datasets import IterableDataset, ReadInstruction
from transformers.utils import logging

from .rows import Rows


logger = logging.get_logger(__name__)


class Slice(NamedTuple):
    """The rows of a split from one index up to another; of a stream up to `sys.maxsize`."""

    split: str  # of all splits together "all"
    start: int
    stop: int
    files: tuple[str, ...] = ()  # whose rows the split has, where there are slices of several datasets


def resolve_slice(split: str, spec: str, rows: Rows) -> tuple[int, int]:
    """Finds the first and the last index, not included, of a slice of rows such as `"train[:90%]"`, the `spec`."""
    if isinstance(rows, IterableDataset):
        raise ValueError(f"`--streaming` takes no slice such as {split!r}: leave out one of them.")
    name = spec.partition("[")[0]
    (instruction,) = ReadInstruction.from_spec(spec).to_absolute({name: len(rows)})
    start = instruction.from_ or 0
    stop = len(rows) if instruction.to is None else instruction.to
    if start >= stop:
        raise ValueError(f"The split {split!r} is empty: there are {len(rows)} rows.")
    return start, stop


def take_first(slices: list[Slice], num_rows: int) -> list[Slice]:
    """Shortens slices to those that hold the first rows of all together; a stream may have fewer than it could."""
    taken = []
    num_left = num_rows
    for part in slices:
        stop = min(part.stop, part.start + num_left)
        if stop > part.start:
            taken.append(part._replace(stop=stop))
        if part.stop != sys.maxsize:
            num_left -= stop - part.start
    return taken


def check_repeated_rows(split: str, slices: list[Slice], may_repeat: bool) -> None:
    """
    Raises a `ValueError` if a row is in several slices of a dataset, which `datasets` gives several times.

    Args:
        split (`str`):
            The slices as they are named.
        slices (`list[Slice]`):
            The slices.
        may_repeat (`bool`):
            Whether there is a warning in place of the error, since who trains may want that.
    """
    num_repeated = count_repeated_rows(slices)
    if num_repeated == 0:
        return
    number = "All" if num_repeated >= sys.maxsize else num_repeated
    if may_repeat:
        logger.warning(f"{number} rows of the split {split!r} come again: each counts as often as it is named.")
        return
    raise ValueError(
        f"{number} rows of the split {split!r} come again, and would count several times: name each "
        "row once, as in 'train[:50%]+train[50%:]'."
    )


def count_repeated_rows(slices: list[Slice]) -> int:
    """Counts how often a row of slices of one dataset comes again, `sys.maxsize` or more for equal streams."""
    num_repeated = 0
    last_split = None
    seen_until = 0
    for part in sorted(slices):
        if part.split != last_split:
            last_split = part.split
            seen_until = 0
        num_repeated += max(0, min(part.stop, seen_until) - part.start)
        seen_until = max(seen_until, part.stop)
    return num_repeated


def count_shared_rows(slices: list[Slice], others: list[Slice]) -> int:
    """
    Counts the rows that slices have in common, `sys.maxsize` for equal streams; of a part of all
    splits together and another split, how many these may be. Those of other files have none: see
    [`find_shared_files`].
    """
    num_shared = 0
    for one in slices:
        for two in others:
            if one.files != two.files:
                continue
            if one.split == two.split:
                num_shared += max(0, min(one.stop, two.stop) - max(one.start, two.start))
            elif "all" in (one.split, two.split):
                num_shared += min(one.stop - one.start, two.stop - two.start)
    return num_shared


def find_shared_files(slices: list[Slice], others: list[Slice]) -> list[str]:
    """Finds the files of which it is not known which rows slices share, since they are joined with other files."""
    shared = set()
    for one in slices:
        for two in others:
            if one.files != two.files:
                shared.update(set(one.files) & set(two.files))
    return sorted(shared)


def resolve_split(split: str, splits: list[str], name: str) -> str:
    """Finds the split that is asked for, with a warning the only one. Raises a `ValueError` if there are others."""
    if not splits or split in (*splits, "all"):
        return split
    if len(splits) > 1:
        raise ValueError(f"{name} has no split {split!r} but {', '.join(map(repr, splits))}: name one of these.")
    if split.partition("[")[0] not in ("train", "validation", "test"):  # which are asked for by default
        raise ValueError(f"{name} has no split {split!r} but {splits[0]!r}: name this one.")
    logger.warning_once(f"{name} has no split {split!r}: its only one, {splits[0]!r}, is taken.")
    return splits[0]

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Texts of like length together, so that little is computed for padding: in training and where texts are embedded."""

from collections.abc import Sequence

import numpy as np


def group_by_length(
    lengths: Sequence[int], tokens_per_call: int, tokens_per_group: int | None = None
) -> list[list[int]]:
    """
    Cuts texts into groups, each to be padded to its longest text, so that least is computed: the places of the texts,
    the longest first. A further group is the work of `tokens_per_call`, and has `tokens_per_group` at most, padding
    included (a longer text is a group of its own).
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    descending = np.array([lengths[place] for place in order])
    sizes = np.arange(len(order), 0, -1)

    # the least work for the longest texts, for each number of them, and where the last group of that starts
    work, starts, first = np.zeros(len(order) + 1), [], 0
    for end in range(1, len(order) + 1):
        while (
            tokens_per_group is not None and first < end - 1 and (end - first) * descending[first] > tokens_per_group
        ):
            first += 1
        work_by_start = work[first:end] + sizes[first - end :] * descending[first:end]
        starts.append(first + int(work_by_start.argmin()))
        work[end] = work_by_start.min() + tokens_per_call

    groups, end = [], len(order)
    while end > 0:
        groups.append(order[starts[end - 1] : end])
        end = starts[end - 1]
    return groups[::-1]

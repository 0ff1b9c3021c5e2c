# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Partitions texts into groups of like length, so that little is computed for padding: in training and where texts are
embedded.
"""

from collections.abc import Sequence

import numpy as np


def partition_by_length(
    lengths: Sequence[int],
    tokens_per_call: int,
    tokens_per_group: int | None = None,
) -> list[list[int]]:
    """
    Partitions texts into groups, each padded to its longest text, at minimal cost.

    A group costs its tokens, padding included, and a further `tokens_per_call` for the call of the model. Small groups
    have little padding, large ones make few calls; the cost weighs one against the other.

    The partition is found by a dynamic program over the texts sorted by length, the longest first. Some cheapest
    partition has groups that are contiguous in this order (of two groups that overlap, the one with the longest text
    can take the longer texts of the other for shorter ones, and neither gets longer), so that it is enough to choose
    where groups start. The first text of a group is its longest one, and the cheapest partition of the first `end`
    texts costs

        cost[end] = min over start < end of cost[start] + (end - start) * length[start] + tokens_per_call

    with `cost[0] = 0`, where the last of its groups goes from `start` to `end`. The start that gives the min is noted
    for each `end`; then the groups are read off from the last one to the first. This takes time quadratic in the
    number of texts.

    Args:
        lengths (`Sequence[int]`):
            The number of tokens of each text.
        tokens_per_call (`int`):
            What a call costs besides its tokens, in tokens.
        tokens_per_group (`int`, *optional*):
            The max number of tokens of a group, padding included. A text that is longer is a group of its own.

    Returns:
        `list[list[int]]`: the indices of the texts of each group, the longest texts first.

    Example:

    ```python
    >>> from modeling_lotlip.encoder.lengths import partition_by_length

    >>> partition_by_length([3, 9, 8, 3], tokens_per_call=4)  # 2 * 9 + 2 * 3 tokens, in two calls
    [[1, 2], [0, 3]]
    >>> partition_by_length([3, 9, 8, 3], tokens_per_call=100)  # calls are dear: 4 * 9 tokens, in one
    [[1, 2, 0, 3]]
    ```"""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    sorted_lengths = np.array([lengths[index] for index in order])
    num_texts = len(order)

    costs = np.zeros(num_texts + 1)
    best_starts = []
    min_start = 0
    for end in range(1, num_texts + 1):
        if tokens_per_group is not None:
            # a start that is too early for this end is so for all later ones
            while min_start < end - 1 and (end - min_start) * sorted_lengths[min_start] > tokens_per_group:
                min_start += 1
        group_sizes = np.arange(end - min_start, 0, -1)
        costs_by_start = costs[min_start:end] + group_sizes * sorted_lengths[min_start:end]
        best_starts.append(min_start + int(costs_by_start.argmin()))
        costs[end] = costs_by_start.min() + tokens_per_call

    groups = []
    end = num_texts
    while end > 0:
        start = best_starts[end - 1]
        groups.append(order[start:end])
        end = start
    groups.reverse()
    return groups

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Embeddings of a process compared with those of all processes, block by block: what the losses share."""

from collections.abc import Callable, Iterator

import torch


class Comparison:
    """
    Embeddings of one kind compared with all those of the other kind, block by block. What is of a slot has it as the
    first dimension, which is 1 for images.

    Args:
        own (`torch.Tensor` of shape `(slots or 1, own_rows, dim)`):
            The embeddings of this process.
        others (`torch.Tensor` of shape `(slots or 1, rows, dim)`):
            The embeddings of the other kind, of all processes.
        scale (`torch.Tensor` of shape `()`):
            Inverse temperature.
        present (`torch.Tensor` of shape `(slots, rows)`):
            Which pairs of all processes take part.
        groups (`torch.Tensor` of shape `(rows,)`, *optional*):
            Pairs of the same group are no negatives of each other in the first slot.
        first_row (`int`):
            The number of the first own row among all rows.
        block_size (`int`):
            The most similarities of a block.
    """

    def __init__(self, own, others, scale, present, groups, first_row, block_size):
        self.own, self.others, self.scale = own, others, scale
        self.present, self.groups, self.first_row = present, groups, first_row
        self.num_rows = max(1, block_size // present.numel())  # of a block

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some own rows, and their logits (slots, own rows, rows); what is not compared is far below the rest."""
        for start in range(0, self.own.shape[1], self.num_rows):
            rows = slice(start, min(start + self.num_rows, self.own.shape[1]))
            among_all = slice(self.first_row + rows.start, self.first_row + rows.stop)
            logits = self.scale * torch.matmul(self.own[:, rows], self.others.mT)
            compared = compared_pairs(self.present, self.groups, among_all)
            yield rows, logits.masked_fill_(~compared, torch.finfo(logits.dtype).min)


def compared_pairs(present: torch.Tensor, groups: torch.Tensor | None, rows: slice) -> torch.Tensor:
    """Which of some rows are compared with which of all rows, (slots, len(rows), all rows): see [`Comparison`]."""
    compared = present[:, rows, None] & present[:, None, :]
    if groups is not None:
        compared[0] &= groups[rows, None] != groups
        compared[0].diagonal(rows.start).copy_(present[0, rows])
    return compared


def gather_rows(images, texts, present, groups, gather: Callable) -> tuple[torch.Tensor | None, ...]:
    """
    Own images and texts, those of all processes, the presence of all pairs and their groups, from rows of this
    process; what is of a slot has it as the first dimension, which is 1 for images.
    """
    return (
        images[None],
        texts.transpose(0, 1),
        gather(images)[None],
        gather(texts).transpose(0, 1),
        gather(present).t(),
        gather(groups) if groups is not None else None,
    )


def weigh_pairs(present: torch.Tensor) -> torch.Tensor:
    """The weight (slots, rows) of a pair in the mean over its slot's pairs, and over the slots with at least two."""
    counts = present.sum(dim=1)
    is_counted = counts > 1
    return present / (counts.clamp(min=1) * is_counted.sum().clamp(min=1))[:, None] * is_counted[:, None]


def losses_of_slots(parts: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The loss of each slot (slots,) from its part in the mean, not a number where it has less than two pairs."""
    is_counted = present.sum(dim=1) > 1
    return (parts * is_counted.sum()).masked_fill(~is_counted, torch.nan)

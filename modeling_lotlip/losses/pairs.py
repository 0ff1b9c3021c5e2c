# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a loss reads: images with their texts by name, in slots, and the similarities between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps

import torch
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint

from ..modeling_variants_lotlip import late_interaction
from ..utils.integers import check_integer


# Similarities in a block, 4 bytes each, of which some copies are needed
BLOCK_SIZE = 2**24

# A logit of what is not compared
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Slots:
    """
    Names the slots of an image: what of its texts it is contrasted with. The short caption comes first, then each long
    caption, followed by its corner tokens.

    Args:
        has_short (`bool`, *optional*, defaults to `True`): Whether there is a slot for the short caption.
        num_long (`int`, *optional*, defaults to 0): The number of long captions.
        num_corners (`int`, *optional*, defaults to 0): The number of corner tokens of each long caption.

    Example:

    ```python
    >>> from modeling_lotlip.losses import Slots

    >>> Slots(num_long=1, num_corners=2).names
    ('short', 'long', 'corner_1', 'corner_2')
    ```"""

    has_short: bool = True
    num_long: int = 0
    num_corners: int = 0

    def __post_init__(self):
        check_integer("num_long", self.num_long, 0)
        check_integer("num_corners", self.num_corners, 0)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each slot; those of several long captions have the same names."""
        short = ("short",) if self.has_short else ()
        corners = tuple(f"corner_{index}" for index in range(1, self.num_corners + 1))
        return short + self.num_long * ("long", *corners)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_short(self) -> int:
        """The number of slots of short captions, 0 or 1: those of long ones begin after it."""
        return int(self.has_short)

    def weigh(self, short_weight: float, long_weight: float) -> list[float]:
        """
        Returns the weight of each slot: that of the short caption, and that of long captions and their corner tokens.
        """
        return [short_weight if name == "short" else long_weight for name in self.names]


@dataclass(frozen=True)
class Pairs:
    """
    Images with their texts. A text is compared with the images of all texts in the same slot. Texts are read by name,
    as `pairs.short`, `pairs.long` and `pairs.corners`, or side by side, as `pairs.texts`. With late interaction an
    embedding is that of all tokens, of shape `(length, dim)` in place of `(dim,)`.

    Args:
        images (`torch.Tensor` of shape `(rows, dim)`): Normalized embeddings.
        texts (`torch.Tensor` of shape `(rows, slots, dim)`): Normalized embeddings, zero where a text is absent.
        present (`torch.BoolTensor` of shape `(rows, slots)`):
            Whether there is a text. An absent one is neither positive nor negative in its slot.
        indices (`torch.LongTensor` of shape `(rows,)`): The index of each row among all rows.
        slots (`Slots`): The names of the slots.
        groups (`torch.LongTensor` of shape `(rows,)`, *optional*):
            In the slot of short captions, images of the same group are no negatives of each other.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs

    >>> pairs = Pairs.from_embeds(torch.eye(2), short=torch.eye(2), long=torch.eye(2)[:, None])
    >>> pairs.slots.names, pairs.long.shape
    (('short', 'long'), torch.Size([2, 1, 2]))
    ```"""

    images: torch.Tensor
    texts: torch.Tensor
    present: torch.Tensor
    indices: torch.Tensor
    slots: Slots
    groups: torch.Tensor | None = None

    @classmethod
    def from_embeds(
        cls,
        images: torch.Tensor,
        short: torch.Tensor | None = None,
        long: torch.Tensor | None = None,
        corners: torch.Tensor | None = None,
        short_mask: torch.Tensor | None = None,
        long_mask: torch.Tensor | None = None,
        groups: torch.Tensor | None = None,
    ) -> Pairs:
        """
        Puts embeddings side by side, those of one process.

        Args:
            images (`torch.Tensor` of shape `(rows, dim)`): Normalized embeddings.
            short (`torch.Tensor` of shape `(rows, dim)`, *optional*): Those of short captions.
            long (`torch.Tensor` of shape `(rows, captions, dim)`, *optional*): Those of long captions.
            corners (`torch.Tensor` of shape `(rows, captions, corners, dim)`, *optional*): Those of corner tokens.
            short_mask (`torch.BoolTensor` of shape `(rows,)`, *optional*): Whether there is a short caption.
            long_mask (`torch.BoolTensor` of shape `(rows, captions)`, *optional*): Whether there are long ones.
            groups (`torch.LongTensor` of shape `(rows,)`, *optional*): Equal where short captions are.

        Returns:
            `Pairs`: the rows, with indices from 0.
        """
        texts = []
        present = []
        if short is not None:
            if short_mask is None:
                short_mask = torch.ones(len(short), dtype=torch.bool, device=short.device)
            texts.append(short[:, None])
            present.append(short_mask[:, None])
        num_long = 0
        num_corners = 0
        if long is not None:
            if long_mask is None:
                long_mask = torch.ones(long.shape[:2], dtype=torch.bool, device=long.device)
            num_long = long.shape[1]
            long_slots = long[:, :, None]
            if corners is not None:
                num_corners = corners.shape[2]
                long_slots = torch.cat([long_slots, corners], dim=2)
            texts.append(long_slots.flatten(1, 2))
            present.append(long_mask[:, :, None].expand(-1, -1, 1 + num_corners).flatten(1, 2))
        if not texts:
            raise ValueError("A batch needs texts: give `short`, `long` or both.")
        return cls(
            images=images,
            texts=concatenate(texts, dim=1),
            present=torch.cat(present, dim=1),
            indices=torch.arange(len(images), device=images.device),
            slots=Slots(short is not None, num_long, num_corners),
            groups=groups,
        )

    @property
    def short(self) -> torch.Tensor | None:
        """The short captions, of shape (rows, dim)."""
        if not self.slots.has_short:
            return None
        return self.texts[:, 0]

    @property
    def short_mask(self) -> torch.Tensor | None:
        """Whether there is a short caption, of shape (rows,)."""
        if not self.slots.has_short:
            return None
        return self.present[:, 0]

    @property
    def _by_long_caption(self) -> torch.Tensor:
        """The slots of long captions, of shape (rows, captions, 1 + corners, dim)."""
        sizes = (self.slots.num_long, 1 + self.slots.num_corners)
        return self.texts[:, self.slots.num_short :].unflatten(1, sizes)

    @property
    def long(self) -> torch.Tensor | None:
        """The `[CLS]` of the long captions, of shape (rows, captions, dim)."""
        if self.slots.num_long == 0:
            return None
        return self._by_long_caption[:, :, 0]

    @property
    def long_mask(self) -> torch.Tensor | None:
        """Whether there are long captions, of shape (rows, captions)."""
        if self.slots.num_long == 0:
            return None
        step = 1 + self.slots.num_corners
        return self.present[:, self.slots.num_short :: step]

    @property
    def corners(self) -> torch.Tensor | None:
        """The corner tokens of the long captions, of shape (rows, captions, corners, dim)."""
        if self.slots.num_long == 0 or self.slots.num_corners == 0:
            return None
        return self._by_long_caption[:, :, 1:]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Pairs:
        """Pairs with each tensor, of shape (rows, ...), changed."""
        return replace(
            self,
            images=function(self.images),
            texts=function(self.texts),
            present=function(self.present),
            indices=function(self.indices),
            groups=None if self.groups is None else function(self.groups),
        )

    def select_short(self) -> Pairs:
        """Selects the slot of short captions alone."""
        return replace(self, texts=self.texts[:, :1], present=self.present[:, :1], slots=Slots())

    def select_long(self) -> Pairs:
        """Selects the slots of long captions alone."""
        start = self.slots.num_short
        slots = replace(self.slots, has_short=False)
        return replace(self, texts=self.texts[:, start:], present=self.present[:, start:], slots=slots, groups=None)

    def truncate(self, dim: int) -> Pairs:
        """Pairs with the first `dim` dimensions of each embedding, normalized."""
        if dim == self.images.shape[-1]:
            return self
        images = normalize(self.images[..., :dim], dim=-1)
        texts = normalize(self.texts[..., :dim], dim=-1)
        return replace(self, images=images, texts=texts)


def concatenate(embeds: list[torch.Tensor], dim: int) -> torch.Tensor:
    """
    Concatenates text embeddings of shape (rows, slots, dim). Those of tokens, (rows, slots, length, dim), are padded
    with zeros to the longest.
    """
    if embeds[0].dim() == 4:
        length = max(part.shape[2] for part in embeds)
        embeds = [pad(part, (0, 0, 0, length - part.shape[2])) for part in embeds]
    return torch.cat(embeds, dim)


def image_logits(pairs: Pairs, all_pairs: Pairs, scale: torch.Tensor) -> torch.Tensor:
    """
    Returns the scaled similarities of images with all texts, of shape `(slots, rows, all rows)`. What is not compared
    is far below them.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, image_logits

    >>> images = torch.eye(2)
    >>> pairs = Pairs.from_embeds(images, short=images)
    >>> image_logits(pairs, pairs, torch.tensor(10.0))
    tensor([[[10.,  0.],
             [ 0., 10.]]])
    ```"""
    compare = _comparison(pairs)
    logits = compare((scale * pairs.images)[None], all_pairs.texts.transpose(0, 1))
    return _mask(logits, pairs, all_pairs)


def text_logits(pairs: Pairs, all_pairs: Pairs, scale: torch.Tensor) -> torch.Tensor:
    """
    Returns the scaled similarities of texts with all images, of shape `(slots, rows, all rows)`: see [`image_logits`].

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, text_logits

    >>> images = torch.eye(2)
    >>> pairs = Pairs.from_embeds(images, short=images.flip(0))
    >>> text_logits(pairs, pairs, torch.tensor(10.0))
    tensor([[[ 0., 10.],
             [10.,  0.]]])
    ```"""
    compare = _comparison(pairs)
    logits = compare(scale * pairs.texts.transpose(0, 1), all_pairs.images[None])
    return _mask(logits, pairs, all_pairs)


def _comparison(pairs: Pairs) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Similarities (..., queries, keys) of queries and keys, (..., count, dim), or (..., count, length, dim)."""
    if pairs.images.dim() == 3:
        return late_interaction
    return lambda queries, keys: torch.matmul(queries, keys.mT)


def _mask(logits: torch.Tensor, pairs: Pairs, all_pairs: Pairs) -> torch.Tensor:
    """Logits (slots, rows, all rows) without absent columns, and in the short slot without equals of a row."""
    if not all_pairs.present.all():
        logits = logits.masked_fill(~all_pairs.present.t()[:, None], LOWEST)
    if pairs.groups is not None and pairs.slots.has_short:
        is_same_group = pairs.groups[:, None] == all_pairs.groups
        is_other_row = pairs.indices[:, None] != all_pairs.indices
        is_equal = is_same_group & is_other_row
        if is_equal.any():
            logits = torch.cat([logits[:1].masked_fill(is_equal, LOWEST), logits[1:]])
    return logits


def in_blocks(loss_function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """
    Decorates a loss of shape `(slots, rows)` of some rows, all rows and more: it is computed for blocks of rows and,
    in the backward pass, once more. So memory grows with the number of rows, not with its square.

    A loss compares each row with all rows. In a large batch these similarities, and what their gradient needs of them,
    are more than all else that is kept for the backward pass: 32,768 images with four slots have 4 billion of them, 17
    GB in float32. The losses of a row need the similarities of this row alone. So they are computed for as many rows
    as `BLOCK_SIZE` allows, dropped, and computed again, block by block, when their gradient is asked for: a second
    product of embeddings, which is little compared with the towers.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.losses import Pairs, image_logits, in_blocks

    >>> @in_blocks
    ... def image_loss(pairs, all_pairs, logit_scale):
    ...     logits = image_logits(pairs, all_pairs, logit_scale)
    ...     return -logits.log_softmax(dim=-1)[:, range(len(pairs.indices)), pairs.indices]

    >>> images = torch.eye(2)
    >>> pairs = Pairs.from_embeds(images, short=images)
    >>> image_loss(pairs, pairs, torch.tensor(10.0)).shape
    torch.Size([1, 2])
    ```"""
    # a loss uses no random numbers, whose state would have to be kept and restored for each block
    compute = partial(
        checkpoint, loss_function, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )

    @wraps(loss_function)
    def compute_in_blocks(pairs: Pairs, all_pairs: Pairs, *arguments, **options) -> torch.Tensor:
        """Losses of shape (slots, rows)."""
        tokens_per_image = pairs.images.shape[1:-1].numel()
        tokens_per_text = pairs.texts.shape[2:-1].numel()
        similarities_per_row = all_pairs.texts.shape[:2].numel() * tokens_per_image * tokens_per_text
        num_rows = max(1, BLOCK_SIZE // similarities_per_row)
        losses = []
        for start in range(0, len(pairs.images), num_rows):
            rows = slice(start, start + num_rows)
            block = pairs.map(lambda values, rows=rows: values[rows])
            losses.append(compute(block, all_pairs, *arguments, **options))
        return torch.cat(losses, dim=1)

    return compute_in_blocks

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a captioner answers."""

from typing import NamedTuple


class Answer(NamedTuple):
    """
    Holds what a captioner says of an image, or why it says nothing.

    Args:
        caption (`str`, *optional*):
            What it says, None if it failed.
        num_tokens (`int`, *optional*, defaults to 0):
            The tokens of the caption by the captioner's tokenizer, None if that is not known.
        error (`str`, *optional*):
            Why there is no caption.
        is_cut_off (`bool`, *optional*, defaults to `False`):
            Whether the captioner was stopped at the maximum of tokens.
    """

    caption: str | None
    num_tokens: int | None = 0
    error: str | None = None
    is_cut_off: bool = False

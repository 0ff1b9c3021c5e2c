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
"""Sub-captions: the sentences that a long caption is made of."""

import re


def split_sub_captions(text: str) -> list[str]:
    r"""
    Splits a long caption into sub-captions by the paper's rule (Wu et al., 2024, https://arxiv.org/abs/2410.05249): at
    line breaks, at `"</s>"` and at full stops; parts are stripped, and empty ones dropped.

    Args:
        text (`str`):
            A long caption.

    Returns:
        `list[str]`: the sub-captions in their order.

    Example:

    ```python
    >>> from modeling_lotlip.sub_captions import split_sub_captions

    >>> split_sub_captions("A red boat. It is 3.5 m long.\nThe sea is calm.")
    ['A red boat', 'It is 3', '5 m long', 'The sea is calm']
    ```"""
    parts = (part.strip() for part in re.split(r"\n|</s>|\.", text))
    return [part for part in parts if part]


def join_sub_captions(sub_captions: list[str]) -> str:
    """
    Joins sub-captions with `". "`, which the tokenizer turns into a `[SEP]` behind each of them.

    Args:
        sub_captions (`list[str]`):
            Sub-captions in their order.

    Example:

    ```python
    >>> from modeling_lotlip.sub_captions import join_sub_captions

    >>> join_sub_captions(["A red boat", "The sea is calm"])
    'A red boat. The sea is calm'
    ```"""
    return ". ".join(sub_captions)


def is_enumeration(sub_caption: str) -> bool:
    """
    Whether a sub-caption is only a number in a list, left over where a text is split at its full stop.

    Args:
        sub_caption (`str`):
            A sub-caption.

    Example:

    ```python
    >>> from modeling_lotlip.sub_captions import is_enumeration

    >>> [is_enumeration(part) for part in ("1", "2)", "(3)", "#4", "5 boats")]
    [True, True, True, True, False]
    ```"""
    return re.fullmatch(r"\W*\d+\W*", sub_caption) is not None


__all__ = ["is_enumeration", "join_sub_captions", "split_sub_captions"]

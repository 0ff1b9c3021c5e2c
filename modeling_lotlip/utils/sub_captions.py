# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Sub-captions: the sentences that a long caption is made of."""

import re


SPLITTERS = ("paper", "sentences")


def split_sentences(text: str) -> list[str]:
    r"""
    Splits a text into its sentences by [sentencex](https://github.com/wikimedia/sentencex), which knows decimals and
    English abbreviations; line breaks and `"</s>"` end a sentence, too.

    Args:
        text (`str`):
            A text in English.

    Returns:
        `list[str]`: the sentences in their order, with their punctuation, stripped.

    Example:

    ```python
    >>> from modeling_lotlip.utils.sub_captions import split_sentences

    >>> split_sentences("A red boat. It is 3.5 m long.\nMr. Hill steers it.")
    ['A red boat.', 'It is 3.5 m long.', 'Mr. Hill steers it.']
    ```"""
    import sentencex  # not at the top: the paper's rule does not need it

    parts = []
    for line in re.split(r"\n|</s>", text):
        if line.strip():
            parts += [part.strip() for part in sentencex.segment("en", line)]
    return [part for part in parts if part]


def split_sub_captions(text: str, splitter: str = "paper") -> list[str]:
    r"""
    Splits a long caption into sub-captions.

    By the paper's rule (Wu et al., 2024, https://arxiv.org/abs/2410.05249) they end at line breaks, at `"</s>"` and at
    full stops; parts are stripped, and empty ones dropped. The other splitter takes sentences ([`split_sentences`])
    without their last full stops; a space after a full stop inside a sentence becomes a no-break space, so that the
    tokenizer makes no `[SEP]` of the two.

    Args:
        text (`str`):
            A long caption.
        splitter (`str`, *optional*, defaults to `"paper"`):
            `"paper"`, or `"sentences"`.

    Returns:
        `list[str]`: the sub-captions in their order.

    Raises:
        `ValueError`: if there is no such splitter.

    Example:

    ```python
    >>> from modeling_lotlip.utils.sub_captions import split_sub_captions

    >>> split_sub_captions("A red boat. It is 3.5 m long.\nThe sea is calm.")
    ['A red boat', 'It is 3', '5 m long', 'The sea is calm']
    >>> split_sub_captions("A red boat. It is 3.5 m long.\nThe sea is calm.", splitter="sentences")
    ['A red boat', 'It is 3.5 m long', 'The sea is calm']
    ```"""
    if splitter == "paper":
        parts = re.split(r"\n|</s>|\.", text)
    elif splitter == "sentences":
        parts = [part.rstrip(".").replace(". ", ".\u00a0") for part in split_sentences(text)]
    else:
        raise ValueError(f"`splitter` must be one of {SPLITTERS}, got {splitter!r}.")
    parts = (part.strip() for part in parts)
    return [part for part in parts if part]


def join_sub_captions(sub_captions: list[str]) -> str:
    """
    Joins sub-captions with `". "`, which the tokenizer turns into a `[SEP]` after each of them.

    Args:
        sub_captions (`list[str]`):
            Sub-captions in their order.

    Example:

    ```python
    >>> from modeling_lotlip.utils.sub_captions import join_sub_captions

    >>> join_sub_captions(["A red boat", "The sea is calm"])
    'A red boat. The sea is calm'
    ```"""
    return ". ".join(sub_captions)


def mark_sub_captions(text: str, splitter: str = "paper") -> str:
    """
    Marks the sub-captions of a long caption as evaluation reads it: it is split into sub-captions, which are joined
    with `". "`. Training joins those that it samples, without the numbers of lists: see [`is_enumeration`].

    Args:
        text (`str`):
            A long caption.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How it is split: see [`split_sub_captions`].

    Example:

    ```python
    >>> from modeling_lotlip.utils.sub_captions import mark_sub_captions

    >>> mark_sub_captions("A red boat.The sea is calm.")
    'A red boat. The sea is calm'
    ```"""
    return join_sub_captions(split_sub_captions(text, splitter))


def split_marked(marked: str) -> list[str]:
    """
    Splits a text that [`mark_sub_captions`] gave into the sub-captions that it marked, by either splitter: sentences
    that are found a second time, without their full stops, may be others.

    Args:
        marked (`str`):
            A long caption with marks.

    Example:

    ```python
    >>> from modeling_lotlip.utils.sub_captions import mark_sub_captions, split_marked

    >>> split_marked(mark_sub_captions("“A red boat.\\nThe sea.”", splitter="sentences"))
    ['“A red boat', 'The sea.”']
    ```"""
    return marked.split(". ") if marked else []


def mark_query(text: str, splitter: str) -> str:
    """Marks a text that is searched with: several sentences as [`mark_sub_captions`] does, a single one stays."""
    sub_captions = split_sub_captions(text, splitter)
    if len(sub_captions) > 1:
        return join_sub_captions(sub_captions)
    return text.strip()


def is_enumeration(sub_caption: str) -> bool:
    """
    Says whether a sub-caption is only a number in a list, left over where a text is split at its full stop.

    Args:
        sub_caption (`str`):
            A sub-caption.

    Example:

    ```python
    >>> from modeling_lotlip.utils.sub_captions import is_enumeration

    >>> [is_enumeration(part) for part in ("1", "2)", "(3)", "#4", "5 boats")]
    [True, True, True, True, False]
    ```"""
    return re.fullmatch(r"\W*\d+\W*", sub_caption) is not None


__all__ = [
    "is_enumeration",
    "join_sub_captions",
    "mark_sub_captions",
    "split_marked",
    "split_sentences",
    "split_sub_captions",
]

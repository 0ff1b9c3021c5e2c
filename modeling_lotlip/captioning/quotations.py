# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Quotations in captions: the words of a sign, a poster or a screenshot. They are what the image shows, not what the
captioner says, so rules for captions do not look inside.
"""

import re
from collections.abc import Callable


# A straight mark after a letter or digit opens nothing: it ends a quotation, is an apostrophe or stands for inches.
# A quotation ends before an empty line, so that a mark without its partner does not hide the rest of a caption.
QUOTATION = re.compile(
    r"""
    (?<!\w)"(?:[^"\n]|\n(?!\s*\n))*"
    |“(?:[^”\n]|\n(?!\s*\n))*”
    |„(?:[^“”\n]|\n(?!\s*\n))*[“”]
    |«(?:[^»\n]|\n(?!\s*\n))*»
    |「[^」]*」
    |(?<![\w'])'(?=\S)(?:[^'\n]|(?<=\w)'(?=\w))*'(?!\w)
    |‘(?=\S)(?:[^’\n]|(?<=\w)’(?=\w))*’(?!\w)
    """,
    re.VERBOSE,
)
# One that was cut off reaches to the end of its line.
OPEN_QUOTATION = re.compile(r"""(?:(?<![\w\0])"|[“„«「])[^"”»」\n]*$""", re.MULTILINE)
FILLER = "\0"


def fill(quotation: re.Match) -> str:
    """Fills a quotation, so that positions in the text stay as they are."""
    text = quotation.group()
    return text[0] + FILLER * (len(text) - 2) + text[-1]


def mask_quotations(text: str) -> str:
    """
    Fills the quotations of a text, so that no pattern matches inside.

    Args:
        text (`str`):
            A text.

    Returns:
        `str`: a text of the same length. A quotation keeps its first and last character.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.quotations import mask_quotations

    >>> mask_quotations('A sign reads "No".').replace("\\0", "-")
    'A sign reads "--".'
    ```"""
    masked = QUOTATION.sub(fill, text)
    return OPEN_QUOTATION.sub(lambda quotation: quotation.group()[0] + FILLER * (len(quotation.group()) - 1), masked)


def replace_outside_quotations(
    pattern: re.Pattern,
    text: str,
    replace: Callable[[re.Match], tuple[int, int]],
) -> str:
    """
    Replaces what a pattern finds outside quotations by a part of it.

    Args:
        pattern (`re.Pattern`):
            What is looked for.
        text (`str`):
            A text.
        replace (`Callable[[re.Match], tuple[int, int]]`):
            Given a match, returns the span that stays of it; an empty one removes it.

    Returns:
        `str`: the text with the replacements.
    """
    kept = []
    position = 0
    for match in pattern.finditer(mask_quotations(text)):
        start, end = replace(match)
        kept.append(text[position : match.start()])
        kept.append(text[start:end])
        position = match.end()
    kept.append(text[position:])
    return "".join(kept)


def remove_outside_quotations(pattern: re.Pattern, text: str) -> str:
    """Removes what a pattern finds outside quotations."""
    return replace_outside_quotations(pattern, text, lambda match: (match.start(), match.start()))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Changes of long texts: each takes the sub-captions of a text and a generator, and returns others, or None."""

import random
import re
from collections.abc import Callable
from functools import partial


# The basic colour terms of English (Berlin & Kay, 1969), and the other spelling of one of them
COLOURS = "black white red green yellow blue brown purple pink orange gray grey".split()
COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)

# How a statement is negated: the first rule that fits
NEGATIONS = (
    (re.compile(r"\b(is|are|was|were|can|could|will|would)\b", re.IGNORECASE), r"\1 not"),
    (re.compile(r"\b(has|have|had|shows?|features?|wears?|holds?)( an?| the|)\b", re.IGNORECASE), r"\1 no"),
    (re.compile(r"^(an?|the)\b", re.IGNORECASE), "no"),
)


def permute(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """The sentences in another order."""
    if len(set(sub_captions)) < 2:
        return None
    permuted = sub_captions
    while permuted == sub_captions:
        permuted = generator.sample(sub_captions, len(sub_captions))
    return permuted


def drop_first(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """All sentences but the first one."""
    return sub_captions[1:] or None


def drop_another(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """One sentence less, not the first one: what dropping the first is compared with."""
    if len(sub_captions) < 2:
        return None
    place = generator.randrange(1, len(sub_captions))
    return sub_captions[:place] + sub_captions[place + 1 :]


def drop_last(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """All sentences but the last one."""
    return sub_captions[:-1] or None


def negate(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """
    One statement, drawn of those that can be, turned into its negation by a rule of `NEGATIONS`.

    ```python
    >>> import random
    >>> from modeling_lotlip.evaluation.text_changes import negate

    >>> [negate([text], random.Random(0)) for text in ("The boat is red", "It has a mast", "A tree nearby", "Sea")]
    [['The boat is not red'], ['It has no mast'], ['no tree nearby'], None]
    ```"""
    for place in generator.sample(range(len(sub_captions)), len(sub_captions)):
        for pattern, negated in NEGATIONS:
            changed, count = pattern.subn(negated, sub_captions[place], count=1)
            if count > 0:
                return sub_captions[:place] + [changed] + sub_captions[place + 1 :]
    return None


def swap_colour(sub_captions: list[str], generator: random.Random, colours: list[str] = COLOURS) -> list[str] | None:
    """
    One colour, drawn of those that are named, exchanged for another one of `colours`.

    ```python
    >>> import random
    >>> from modeling_lotlip.evaluation.text_changes import swap_colour

    >>> swap_colour(["A boat", "The red car"], random.Random(0), ["red", "blue"])
    ['A boat', 'The blue car']
    ```"""
    named = [(place, match) for place, text in enumerate(sub_captions) for match in COLOUR.finditer(text)]
    if not named:
        return None
    place, match = generator.choice(named)
    others = [colour for colour in colours if colour != match[0].lower()]
    if not others:
        return None
    text = sub_captions[place]
    changed = text[: match.start()] + generator.choice(others) + text[match.end() :]
    return sub_captions[:place] + [changed] + sub_captions[place + 1 :]


Change = Callable[[list[str], random.Random], list[str] | None]


def list_changes(texts: list[list[str]]) -> dict[str, Change]:
    """
    Every change, by its name.

    Args:
        texts (`list[list[str]]`):
            The sub-captions of all texts: a colour is swapped for another one that they name.
    """
    named = {match[0].lower() for parts in texts for text in parts for match in COLOUR.finditer(text)}
    return {
        "sentences permuted": permute,
        "first sentence dropped": drop_first,
        "another sentence dropped": drop_another,
        "last sentence dropped": drop_last,
        "one statement negated": negate,
        "one colour swapped": partial(swap_colour, colours=sorted(named)),
    }

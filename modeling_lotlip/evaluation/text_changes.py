# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Changes of long texts: each takes the sub-captions of a text and a generator, and returns others, or None."""

import random
import re
from collections.abc import Callable, Sequence
from functools import partial


# The basic colour terms of English (Berlin & Kay, 1969), and the other spelling of one of them
COLOURS = "black white red green yellow blue brown purple pink orange gray grey".split()
NUMBERS = "two three four five six seven eight nine ten eleven twelve".split()

# Words that fit into the same phrases: those of a place, and those of a relation or a size
PLACES = (
    "left right".split(),
    "top bottom".split(),
    "upper lower".split(),
    "front back".split(),
    "horizontal vertical".split(),
    "horizontally vertically".split(),
    "north south east west".split(),
    "northeast northwest southeast southwest".split(),
)
RELATIONS = (
    "above below".split(),
    "over under".split(),
    "inside outside".split(),
    "small large".split(),
    "small big".split(),
    "narrow wide".split(),
    "short long".split(),
    "thin thick".split(),
    "light dark".split(),
)

# How a statement is negated: the first rule that fits
NEGATIONS = (
    (re.compile(r"\b(is|are|was|were|can|could|will|would)\b", re.IGNORECASE), r"\1 not"),
    (re.compile(r"\b(has|have|had|shows?|features?|wears?|holds?)( an?| the|)\b", re.IGNORECASE), r"\1 no"),
    (re.compile(r"^(an?|the)\b", re.IGNORECASE), "no"),
)
# What is negated already, whose negation would be another one
NEGATED = re.compile(r"\b(not|no|never|none|nothing|nobody|neither|nor|without|cannot)\b|n['\u2019]t\b", re.IGNORECASE)


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


def negate(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """
    One statement, drawn of those that can be, turned into its negation by a rule of `NEGATIONS`. What is negated
    already is left alone.

    ```python
    >>> import random
    >>> from modeling_lotlip.evaluation.text_changes import negate

    >>> [negate([text], random.Random(0)) for text in ("The boat is red", "It has a mast", "A tree nearby", "Sea")]
    [['The boat is not red'], ['It has no mast'], ['no tree nearby'], None]
    >>> negate(["The boat is not red"], random.Random(0))
    ```"""
    for place in generator.sample(range(len(sub_captions)), len(sub_captions)):
        if NEGATED.search(sub_captions[place]):
            continue
        for pattern, negated in NEGATIONS:
            changed, count = pattern.subn(negated, sub_captions[place], count=1)
            if count > 0:
                return sub_captions[:place] + [changed] + sub_captions[place + 1 :]
    return None


def swap_word(
    sub_captions: list[str], generator: random.Random, families: Sequence[Sequence[str]]
) -> list[str] | None:
    """One word, drawn of those that are in a family, exchanged for another one of its family."""
    others = {}
    for family in families:
        for word in family:
            others.setdefault(word, {}).update(dict.fromkeys(other for other in family if other != word))
    named = [
        (place, match)
        for place, text in enumerate(sub_captions)
        for match in re.finditer(r"\w+", text)
        if others.get(match[0].lower())
    ]
    if not named:
        return None
    place, match = generator.choice(named)
    text = sub_captions[place]
    changed = text[: match.start()] + generator.choice(list(others[match[0].lower()])) + text[match.end() :]
    return sub_captions[:place] + [changed] + sub_captions[place + 1 :]


def exchange_sentence(sub_captions: list[str], generator: random.Random, sentences: Sequence[str]) -> list[str] | None:
    """One sentence exchanged for one of `sentences` that the text does not have."""
    others = [sentence for sentence in sentences if sentence not in sub_captions]
    if not others or not sub_captions:
        return None
    place = generator.randrange(len(sub_captions))
    return sub_captions[:place] + [generator.choice(others)] + sub_captions[place + 1 :]


Change = Callable[[list[str], random.Random], list[str] | None]


def list_details(colours: Sequence[str] = COLOURS, sentences: Sequence[str] = ()) -> dict[str, Change]:
    """
    The changes that make a detail of a text false, by their names: a colour becomes another one of `colours`, a
    sentence one of `sentences`.
    """
    families = {
        "one colour swapped": [[name for name in colours if name != other] for other in ("grey", "gray")],
        "one number swapped": [NUMBERS],
        "one place swapped": PLACES,
        "one relation or size swapped": RELATIONS,
    }
    changes = {name: partial(swap_word, families=words) for name, words in families.items()}
    return changes | {"one sentence of another text": partial(exchange_sentence, sentences=sentences)}


def list_changes(texts: list[list[str]]) -> dict[str, Change]:
    """
    Every change, by its name. A colour is swapped for another one that the sub-captions of all `texts` name, a
    sentence for one of theirs.
    """
    words = {word.lower() for parts in texts for text in parts for word in re.findall(r"\w+", text)}
    sentences = sorted({text for parts in texts for text in parts})
    return {
        "sentences permuted": permute,
        "first sentence dropped": drop_first,
        "another sentence dropped": drop_another,
        "one statement negated": negate,
        **list_details(sorted(words & set(COLOURS)), sentences),
    }

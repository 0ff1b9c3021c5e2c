# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Changes of long texts: each takes the sub-captions of a text and a generator, and returns others, or None."""

import random
import re
from collections.abc import Callable, Sequence
from functools import partial


# The basic color terms of English (Berlin & Kay, 1969), and the other spelling of one of them
COLORS = "black white red green yellow blue brown purple pink orange gray grey".split()
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
    """Puts the sentences in another order."""
    if len(set(sub_captions)) < 2:
        return None
    permuted = sub_captions
    while permuted == sub_captions:
        permuted = generator.sample(sub_captions, len(sub_captions))
    return permuted


def drop_first(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """Drops the first sentence."""
    return sub_captions[1:] or None


def drop_another(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """Drops one sentence, not the first one: what dropping the first is compared with."""
    if len(sub_captions) < 2:
        return None
    index = generator.randrange(1, len(sub_captions))
    return sub_captions[:index] + sub_captions[index + 1 :]


def negate(sub_captions: list[str], generator: random.Random) -> list[str] | None:
    """
    Turns one statement, sampled of those that can be, into its negation by a rule of `NEGATIONS`. What is negated
    already is left alone.

    ```python
    >>> import random
    >>> from modeling_lotlip.evaluation.text_changes import negate

    >>> [negate([text], random.Random(0)) for text in ("The boat is red", "It has a mast", "A tree nearby", "Sea")]
    [['The boat is not red'], ['It has no mast'], ['no tree nearby'], None]
    >>> negate(["The boat is not red"], random.Random(0))
    ```"""
    for index in generator.sample(range(len(sub_captions)), len(sub_captions)):
        if NEGATED.search(sub_captions[index]):
            continue
        for pattern, negated in NEGATIONS:
            changed, count = pattern.subn(negated, sub_captions[index], count=1)
            if count > 0:
                return replace_sentence(sub_captions, index, changed)
    return None


def replace_sentence(sub_captions: list[str], index: int, sentence: str) -> list[str]:
    """Returns the sentences with another one at an index."""
    return [*sub_captions[:index], sentence, *sub_captions[index + 1 :]]


def swap_word(
    sub_captions: list[str], generator: random.Random, families: Sequence[Sequence[str]]
) -> list[str] | None:
    """Exchanges one word, sampled of those that are in a family, for another one of its family."""
    others = list_others(families)
    named = []
    for index, text in enumerate(sub_captions):
        for match in re.finditer(r"\w+", text):
            if others.get(match[0].lower()):
                named.append((index, match))
    if not named:
        return None
    index, match = generator.choice(named)
    word = generator.choice(others[match[0].lower()])
    text = sub_captions[index]
    return replace_sentence(sub_captions, index, text[: match.start()] + word + text[match.end() :])


def list_others(families: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Lists the other words of the families of each word, which may be in several."""
    others = {}
    for family in families:
        for word in family:
            known = others.setdefault(word, [])
            known += [other for other in family if other != word and other not in known]
    return others


def exchange_sentence(
    sub_captions: list[str],
    generator: random.Random,
    sentences: Sequence[str],
) -> list[str] | None:
    """Exchanges one sentence for one of `sentences` that the text does not have."""
    others = [sentence for sentence in sentences if sentence not in sub_captions]
    if not others or not sub_captions:
        return None
    index = generator.randrange(len(sub_captions))
    return replace_sentence(sub_captions, index, generator.choice(others))


Change = Callable[[list[str], random.Random], list[str] | None]


def list_details(colors: Sequence[str] = COLORS, sentences: Sequence[str] = ()) -> dict[str, Change]:
    """
    Lists the changes that make a detail of a text false, by their names: a color becomes another one of `colors`, a
    sentence one of `sentences`.
    """
    # two families, for one spelling is no other color than the other spelling
    with_gray = [name for name in colors if name != "grey"]
    with_grey = [name for name in colors if name != "gray"]
    families = {
        "one color swapped": [with_gray, with_grey],
        "one number swapped": [NUMBERS],
        "one place swapped": PLACES,
        "one relation or size swapped": RELATIONS,
    }
    changes = {name: partial(swap_word, families=words) for name, words in families.items()}
    return changes | {"one sentence of another text": partial(exchange_sentence, sentences=sentences)}


def list_changes(texts: list[list[str]]) -> dict[str, Change]:
    """
    Lists every change, by its name. A color is swapped for another one that the sub-captions of all `texts` name, a
    sentence for one of theirs.
    """
    sentences = set()
    words = set()
    for sub_captions in texts:
        sentences.update(sub_captions)
    for sentence in sentences:
        words.update(re.findall(r"\w+", sentence.lower()))
    return {
        "sentences permuted": permute,
        "first sentence dropped": drop_first,
        "another sentence dropped": drop_another,
        "one statement negated": negate,
        **list_details(sorted(words & set(COLORS)), sorted(sentences)),
    }

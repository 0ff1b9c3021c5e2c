"""Changes of texts, each by a rule."""

import random
import re

from modeling_lotlip.data.scenes import COLOURS
from modeling_lotlip.evaluation.text_changes import (
    drop_another,
    drop_first,
    drop_last,
    list_changes,
    negate,
    permute,
    swap_colour,
)


def test_changes_of_texts():
    parts = ["A red boat is here", "The sea has a wave", "Sky"]
    for seed in range(5):
        generator = random.Random(seed)
        permuted = permute(parts, generator)
        assert sorted(permuted) == sorted(parts) and permuted != parts
        assert drop_another(parts, generator)[0] == parts[0]
        negated = negate(parts, generator)
        assert negated in (["A red boat is not here", *parts[1:]], [parts[0], "The sea has no wave", "Sky"])
        swapped = swap_colour(parts, generator, list(COLOURS))
        assert swapped[1:] == parts[1:] and re.fullmatch(r"A (?!red)\w+ boat is here", swapped[0])
    assert permute(["A", "A"], generator) is None
    assert swap_colour(["A red boat"], generator, ["red"]) is None
    assert drop_first(["A"], generator) is None and drop_last(["A"], generator) is None
    assert drop_first(parts, generator) == parts[1:] and drop_last(parts, generator) == parts[:-1]


def test_a_colour_is_swapped_for_one_that_the_texts_name():
    texts = [["A red boat"], ["A Mauve car", "Green grass"]]
    changes = list_changes(texts)
    assert list(changes)[-1] == "one colour swapped" and len(changes) == 6
    for seed in range(5):
        assert changes["one colour swapped"](texts[0], random.Random(seed)) == ["A green boat"]

"""What a string must be to be read as a text."""

import pytest

from modeling_lotlip.utils.texts import is_invisible, is_unicode


@pytest.mark.parametrize(("text", "expected"), [("", True), ("Café 日本 😀", True), ("a \ud83d", False)])
def test_half_of_a_surrogate_pair_is_no_text(text, expected):
    assert is_unicode(text) == expected


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\ufeff", "\u00ad \u200d", "\0", "\u3000"])
def test_what_cannot_be_seen_is_no_text(text):
    assert is_invisible(text)
    assert not is_invisible(f"{text}👩\u200d🚀{text}")
    assert not is_invisible(f"{text}.")

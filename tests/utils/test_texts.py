"""What a string must be to be read as a text."""

import pytest

from modeling_lotlip.utils.texts import is_unicode


@pytest.mark.parametrize(("text", "expected"), [("", True), ("Café 日本 😀", True), ("a \ud83d", False)])
def test_half_of_a_surrogate_pair_is_no_text(text, expected):
    assert is_unicode(text) == expected

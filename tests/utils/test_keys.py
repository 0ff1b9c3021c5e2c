"""Keys of images are the same on every system."""

import ntpath
import unicodedata
from types import SimpleNamespace

import pytest

from modeling_lotlip.utils import keys
from modeling_lotlip.utils.keys import join_key, list_spellings, to_key


@pytest.fixture
def windows(monkeypatch):
    """Paths as Windows writes them."""
    monkeypatch.setattr(keys, "os", SimpleNamespace(path=ntpath, sep="\\"))


def test_a_key_has_slashes_on_windows(windows):
    assert to_key(r"more\new\3.jpg") == "more/new/3.jpg"


def test_a_key_keeps_a_backslash_where_it_is_a_letter_of_a_name():
    assert to_key("more/a\\b.jpg") == "more/a\\b.jpg"


def test_a_key_becomes_a_path_of_the_system(windows):
    assert join_key(r"C:\photos", "more/3.jpg") == r"C:\photos\more\3.jpg"


@pytest.mark.parametrize("source", ["s3://bucket/photos", "s3://bucket/photos/"])
def test_a_url_stays_one_on_windows(source, windows):
    assert join_key(source, "more/3.jpg") == "s3://bucket/photos/more/3.jpg"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accented_letter_has_two_spellings(form):
    assert sorted(map(len, list_spellings(unicodedata.normalize(form, "Café")))) == [4, 5]


def test_a_plain_name_has_one_spelling():
    assert list_spellings("photos/2024") == ["photos/2024"]

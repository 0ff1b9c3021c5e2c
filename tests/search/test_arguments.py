"""What is read of the arguments of a search."""

from collections import Counter
from datetime import date

import pytest

from modeling_lotlip.search.arguments import ALL_IMAGES, Filter, PageArguments, SearchArguments
from modeling_lotlip.search.index import Changes, describe_left_out
from modeling_lotlip.search.searcher import count


@pytest.mark.parametrize(
    "written",
    [("", "", ""), (None, None, None), (" ", " ", ""), (".", "", ""), ("./", "", "")],
    ids=["empty", "left out", "blank", "the folder itself", "the folder itself, with a slash"],
)
def test_what_is_blank_or_the_folder_itself_is_no_filter(written):
    chosen = Filter.parse(*written)
    assert chosen == ALL_IMAGES
    assert chosen.condition is None


@pytest.mark.parametrize(
    "folder, expected",
    [
        ("more", "more"),
        ("./more/", "more"),
        ("more/boats", "more/boats"),
        (" a ", " a "),  # a name may begin and end with blanks
    ],
)
def test_a_folder_is_written_in_several_ways(folder, expected):
    assert Filter.parse(folder) == Filter(folder=expected)


def test_days_are_read_without_the_blanks_around_them():
    chosen = Filter.parse(None, " 2024-05-31", "2024-06-01 ")
    assert chosen == Filter(None, date(2024, 5, 31), date(2024, 6, 1))


@pytest.mark.parametrize(
    "first, last, message",
    [
        ("31.5.2024", None, "`taken_from` 31.5.2024 is no date: write year, month and day, as in 2024-05-31."),
        (None, "2024-05-32", "`taken_to` 2024-05-32 is no date: write year, month and day, as in 2024-05-31."),
        ("2024-06-01", "2024-05-31", "`taken_from` 2024-06-01 is after `taken_to` 2024-05-31: exchange them."),
    ],
    ids=["no first day", "no last day", "in the wrong order"],
)
def test_days_that_are_none_or_in_the_wrong_order_are_refused(first, last, message):
    with pytest.raises(ValueError, match=message):
        Filter.parse(None, first, last)


@pytest.mark.parametrize(
    ("chosen", "words", "condition_of_undated"),
    [
        (Filter(), "", None),
        (Filter("more"), "in the folder more", None),
        (Filter(None, date(2024, 5, 1)), "taken from 2024-05-01", "taken IS NULL"),
        (Filter(None, None, date(2024, 5, 1)), "taken to 2024-05-01", "taken IS NULL"),
        (
            Filter("more", date(2024, 5, 1), date(2024, 5, 1)),
            "in the folder more taken from 2024-05-01 to 2024-05-01",
            "(starts_with(key, 'more/')) AND taken IS NULL",
        ),
    ],
    ids=["nothing", "folder", "first day", "last day", "all"],
)
def test_a_filter_is_said_and_knows_the_images_without_a_day(chosen, words, condition_of_undated):
    assert str(chosen) == words
    assert chosen.condition_of_undated == condition_of_undated


def test_one_day_is_a_filter_of_that_whole_day():
    chosen = Filter.parse(None, "2024-05-31", "2024-05-31")
    assert chosen.condition == (
        "taken >= timestamp '2024-05-31 00:00:00' AND taken <= timestamp '2024-05-31 23:59:59'"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "there is nothing to search in"),
        ({"photos": "photos"}, "there is nothing to search for"),
        ({"photos": "photos", "texts": ["a boat", " "]}, "a TEXT is blank"),
        ({"photos": "photos", "forget": "photos"}, "--forget photos searches nothing: leave out"),
        ({"texts": ["a"], "forget": "photos"}, "--forget photos searches nothing: leave out"),
        ({"folder": "more", "forget": "photos"}, "--folder has no effect with --forget: leave it out"),
        ({"k": 3, "forget": "photos"}, "--k has no effect with --forget: leave it out"),
        ({"photos": "photos", "texts": ["a"], "kind": "short"}, "--kind has no effect without"),
        ({"photos": "photos", "texts": ["a"], "kind": "text"}, "--kind must be one of image"),
    ],
)
def test_a_search_without_a_place_or_a_text_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SearchArguments(**options)


def test_with_embeddings_every_word_is_a_text(tmp_path):
    arguments = SearchArguments(photos="a boat", texts=["a car"], embeddings_dir=tmp_path)
    assert arguments.photos is None
    assert arguments.texts == ["a boat", "a car"]
    with pytest.raises(ValueError, match="name one collection, not PHOTOS"):
        SearchArguments(photos=str(tmp_path), texts=["a car"], embeddings_dir=tmp_path)
    assert SearchArguments(forget="photos").is_search is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photos": "photos", "share": True}, "--share shows the images to all who find the page"),
        ({"photos": "photos", "host": "0.0.0.0"}, "--host 0.0.0.0 shows the images to all"),
        ({"photos": "photos", "embeddings_dir": "out"}, "name one collection, not both"),
        ({}, "there is nothing to search in"),
    ],
)
def test_a_page_that_all_may_find_needs_users_or_consent(options, message):
    with pytest.raises(ValueError, match=message):
        PageArguments(**options)


@pytest.mark.parametrize(
    ("options", "is_shared"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"share": True, "without_password": True}, True),
        ({"host": "0.0.0.0", "auth_file": "users"}, True),
    ],
)
def test_a_page_is_shared_beyond_this_machine(options, is_shared):
    assert PageArguments(photos="photos", **options).is_shared == is_shared


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1234, "1,234 images")]
)
def test_images_are_counted_in_words(number, text):
    assert count(number, "image") == text


def test_what_is_left_out_of_an_index_is_said():
    assert describe_left_out(Counter(), set(), set()) == []
    assert describe_left_out(Counter({".txt": 1, ".mp4": 1200}), {"b", "a"}, {"c"}) == [
        "Other files, left out: 1,200 .mp4, 1 .txt.",
        "Folders that may not be read: a, b.",
        "Empty folders, whose indexed images are kept unless moved: c.",
    ]
    assert Changes() == Changes(new=0, moved=0, changed=0, deleted=0, left_out=[])

"""What is read of the arguments of a search."""

from datetime import date

import pytest

from modeling_lotlip.search.arguments import ALL_IMAGES, Filter


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

"""Columns of captions that a function of a user makes from rows of another form."""

import pytest
from datasets import Dataset

from modeling_lotlip.data.row_functions import ROW_READERS, read_rows


TURNS = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A boat. It is red."}]


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    """A reader of conversations, which notes the columns that it gets."""
    columns = set()

    def read_conversations(row: dict) -> dict:
        columns.update(row)
        answers = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
        return {"caption": row["caption"].upper(), "long_captions": answers}

    monkeypatch.setitem(ROW_READERS, "conversations", read_conversations)
    return columns


def make_rows() -> Dataset:
    return Dataset.from_dict({"image": ["a.png"], "caption": ["boat"], "conversations": [TURNS]})


def test_a_function_makes_the_columns_of_captions(reader):
    rows = read_rows(make_rows(), "conversations", "image")
    assert rows[0] == make_rows()[0] | {"caption": "BOAT", "long_captions": ["A boat. It is red."]}
    assert reader == {"caption", "conversations"}, "the image is not read"


def test_a_stream_is_read_by_the_same_function():
    rows = read_rows(make_rows().to_iterable_dataset(), "conversations", "image")
    row = next(iter(rows))
    assert row["caption"] == "BOAT"
    assert row["long_captions"] == ["A boat. It is red."]
    assert row["image"] == "a.png"


def test_rows_stay_as_they_are_without_a_function():
    rows = make_rows()
    assert read_rows(rows, None, "image") is rows


def test_a_function_that_is_not_registered_is_refused():
    with pytest.raises(ValueError, match="`--row_reader nosuch` is not registered, but conversations: name its file"):
        read_rows(make_rows(), "nosuch", "image")

"""A row becomes an image, texts, a label and a key; what goes in is used, or counted as left out."""

import hashlib
import io
import pickle
from datetime import datetime

import PIL.Image
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import logging

from modeling_lotlip.data.arguments import CaptionArguments, CaptionFileArguments
from modeling_lotlip.data.images import UnreadableImageError
from modeling_lotlip.data.reader import MAX_BAD_ROWS, RowCounts, RowInfo, RowReader


COLUMNS = ["image", "caption", "long_captions", "label", "json"]


def png(size: tuple[int, int] = (3, 2)) -> dict:
    buffer = io.BytesIO()
    PIL.Image.new("RGBA", size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def read(reader: RowReader, number: int, row: dict) -> list[tuple]:
    return [(item.kind, item.index, item.content) for item in reader(number, row)]


def test_what_a_row_holds():
    row = {
        "image": png(),
        "caption": [" ", "a boat", None, "a ship"],
        "long_captions": "Red.Blue.",
        "label": 2,
        "json": {"id": "x"},
    }
    reader = RowReader(COLUMNS, CaptionArguments(), label_column="label", key_column="json.id")
    image, *texts = reader(5, row)
    assert image.kind == "image"
    assert (image.content.mode, image.content.size) == ("RGB", (3, 2))
    assert image.content.getpixel((0, 0)) == (255, 255, 255)  # what is transparent is white
    assert image.row_key == RowInfo(5, "x", 2)
    assert all(text.row_key == image.row_key for text in texts)
    facts = [text[1:4] for text in texts]
    assert facts == [("short", "a boat", 1), ("short", "a ship", 3), ("long", "Red. Blue", 0)]
    assert reader.columns == COLUMNS[1:3] + ["image", "label", "json"]
    # in a worker too
    copy = pickle.loads(pickle.dumps(reader))
    assert list(copy(5, row))[1:] == texts

    arguments = CaptionArguments(sub_caption_splitter="sentences")
    without_images = RowReader(COLUMNS, arguments, image_column=None)
    row = {"image": None, "caption": None, "long_captions": ["...", "It is 3.5 m long. Red."]}
    assert read(without_images, 0, row) == [("long", 1, "It is 3.5 m long. Red")]
    assert read(RowReader(["image"]), 0, {"image": png(), "caption": "a boat"})[1:] == []


def read_key(column: str | None) -> str | int:
    """The key of a row with columns of several types."""
    row = {"image": png(), "id": 7, "nothing": None, "day": datetime(2024, 1, 1)}
    (item, *_) = RowReader([*row], key_column=column)(3, row)
    return item.row_key.key


@pytest.mark.parametrize(
    ("column", "key"),
    [(None, 3), ("id", "7"), ("image", hashlib.sha256(png()["bytes"]).hexdigest())],
    ids=["index of the row", "number", "hash of the image"],
)
def test_the_key_of_a_row(column, key):
    assert read_key(column) == key


@pytest.mark.parametrize("column", ["nothing", "day"])
def test_a_key_that_is_no_integer_and_no_text_is_refused(column):
    with pytest.raises(ValueError, match=f"`--key_column {column}` must hold integers or strings; row 3 has"):
        read_key(column)


@pytest.mark.parametrize("argument", ["key_column", "label_column"])
def test_a_column_that_is_not_there_is_refused(argument):
    with pytest.raises(ValueError, match=f"`--{argument} other` is not a column of the dataset, which has"):
        RowReader(["image", "id"], **{argument: "other"})


def test_captions_of_caption_files_follow(tmp_path):
    Dataset.from_list([{"key": "a", "caption": "Beside."}]).to_parquet(tmp_path / "side.parquet")
    files = [str(tmp_path / "side.parquet")]
    caption_files = CaptionFileArguments(caption_files=files, key_column="id")
    reader = RowReader(["id", "long_captions"], CaptionArguments(), caption_files, image_column=None)
    row = {"id": "a", "long_captions": ["First.", ""]}
    assert read(reader, 0, row) == [("long", 0, "First"), ("long", 2, "Beside")]
    assert reader.match_long_captions(row)[1] is None
    assert reader.match_long_captions(row | {"id": "b"}) == (["First."], "b")


@pytest.mark.parametrize(("columns", "is_warned_of"), [(["caption", "rejected_by"], True), (["caption"], False)])
def test_captions_that_rules_reject_are_not_read_in_silence(columns, is_warned_of, caplog):
    RowReader(columns, CaptionArguments(), image_column=None)
    assert ("captions that rules reject are read too" in caplog.text) == is_warned_of


MADE_UP_ROWS = st.tuples(
    st.sampled_from(["good", "no image", "torn"]),
    st.sampled_from(["a boat", " "]),
    st.sampled_from([None, "key"]),  # of no caption in the files
)


@given(st.lists(MADE_UP_ROWS, max_size=30))
def test_what_goes_in_is_used_or_counted(rows):
    reader = RowReader(COLUMNS, CaptionArguments())
    files = {"good": png(), "no image": None, "torn": {"bytes": png()["bytes"][:40], "path": None}}
    parts = [RowCounts(), RowCounts()]
    used = 0
    for number, (file, caption, unmatched) in enumerate(rows):
        row = {"image": files[file], "caption": caption, "long_captions": None}
        counts = parts[number % 2]
        try:
            items = list(reader(number, row))
        except UnreadableImageError:
            counts.count(f"row {number}", "its image cannot be read", unmatched)
            continue
        if len(items) == 1:
            counts.count(f"row {number}", "it has no caption", unmatched)
        else:
            counts.count(f"row {number}", None, unmatched)
            used += 1
    counts = parts[0] + parts[1]
    assert counts.num_used == used
    assert counts.num_used + sum(counts.left_out.values()) == counts.num_rows == len(rows)
    unmatched = [row for row in rows if row[2] is not None]
    unreadable = [row for row in rows if row[0] != "good"]
    assert counts.num_unmatched == len(unmatched)
    assert counts.left_out.get("its image cannot be read", 0) == len(unreadable)
    assert RowCounts(**counts.state_dict()) + RowCounts() == counts
    if rows and len(unmatched) == len(rows):
        with pytest.raises(
            ValueError, match=f"Of {len(rows)} images {len(rows)} have no captions .*'key'.*the right `--key_column`"
        ):
            counts.check_matched()
    else:
        counts.check_matched()


def test_many_rows_whose_captions_are_no_texts_are_an_error():
    reader = RowReader(["caption"], CaptionArguments(), image_column=None)
    for number in range(MAX_BAD_ROWS):
        assert read(reader, number, {"caption": 5}) == []
    with pytest.raises(ValueError, match="The column 'caption' must hold strings or lists of strings, got 5"):
        read(reader, MAX_BAD_ROWS, {"caption": 5})


def test_a_row_with_several_bad_cells_is_one_bad_row():
    reader = RowReader(["caption", "long_captions"], CaptionArguments(), image_column=None)
    for number in range(MAX_BAD_ROWS):
        assert read(reader, number, {"caption": 5, "long_captions": 5}) == []


def test_counts_of_rows_are_said_with_their_reasons_and_examples():
    counts = RowCounts()
    for number in range(7):
        counts.count(f"{number}.png", "it is torn")
    counts.count("good.png")
    counts.count("other.png", unmatched="b")
    assert str(counts) == (
        "2 of 9 rows are used; left out: 7, it is torn (such as '0.png', '1.png', '2.png', '3.png', '4.png'). "
        "1 have no captions in `--caption_files` (such as 'b')."
    )
    assert str(RowCounts(3)) == "3 of 3 rows are used."


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({}, "Neither `--caption_column caption` nor `--long_captions_column"),
        ({"caption_column": "text"}, "`--caption_column text` is not a column"),
        ({"long_captions_column": "text"}, "`--long_captions_column text` is not a column"),
        ({"sub_caption_splitter": "words"}, "--sub_caption_splitter must be one of paper, sentences"),
    ],
)
def test_columns_of_captions_that_are_not_there_are_refused(captions, message):
    columns = ["id"] if not captions else ["caption", "long_captions"]
    with pytest.raises(ValueError, match=message):
        RowReader(columns, CaptionArguments(**captions), image_column=None)


@pytest.mark.parametrize(
    ("captions", "argument"),
    [
        (CaptionArguments(caption_column="about.captoin"), "caption_column"),
        (CaptionArguments(long_captions_column="about.captoin"), "long_captions_column"),
    ],
)
def test_fields_of_captions_that_are_not_there_are_refused(captions, argument):
    rows = Dataset.from_dict({"about": [{"caption": "a boat", "id": 5}], "caption": ["a boat"]})
    with pytest.raises(ValueError, match=f"`--{argument} about.captoin` is not there"):
        RowReader.of(rows, captions, image_column=None)
    with pytest.raises(ValueError, match="`--key_column about.key` is not there"):
        RowReader.of(rows, CaptionArguments(), image_column=None, key_column="about.key")
    reader = RowReader.of(rows, CaptionArguments(caption_column="about.caption"), image_column=None)
    assert reader.short_captions(rows[0]) == ["a boat"]


def test_a_column_of_captions_with_blanks_in_its_name_is_not_passed_over():
    with pytest.raises(ValueError, match="`--caption_column caption` is .* has ' caption' with blanks"):
        RowReader([" caption", "long_captions"], CaptionArguments(), image_column=None)


def test_captions_that_cannot_be_seen_are_none():
    row = {"caption": ["\u200b", "a boat"], "long_captions": ["\ufeff", "Red."]}
    assert read(RowReader([*row], CaptionArguments(), image_column=None), 0, row) == [
        ("short", 1, "a boat"),
        ("long", 1, "Red"),
    ]


def test_a_column_with_an_empty_name_is_not_read():
    row = {"caption": "a boat", "long_captions": "Red."}
    reader = RowReader([*row], CaptionArguments(caption_column=""), image_column=None)
    assert read(reader, 0, row) == [("long", 0, "Red")]
    assert reader.short_captions(row) == []
    reader = RowReader([*row], CaptionArguments(long_captions_column=""), image_column=None)
    assert read(reader, 0, row) == [("short", 0, "a boat")]
    assert not reader.has_long_captions


@pytest.mark.parametrize(
    ("columns", "is_warned"),
    [
        (["image", "caption", "long_caption"], True),
        (["image", "caption", "long_captions", "long_caption"], False),
        (["image", "long_captions", "description"], False),
    ],
)
def test_a_column_with_nearly_the_name_of_captions_is_named(columns, is_warned, caplog):
    logging.get_logger("transformers").warning_once.cache_clear()
    RowReader(columns, CaptionArguments(), image_column="image")
    is_named = "The column 'long_caption' is not read: there is no column 'long_captions'." in caplog.text
    assert is_named == is_warned


def test_a_column_that_is_read_as_other_captions_is_not_named(caplog):
    logging.get_logger("transformers").warning_once.cache_clear()
    RowReader(["image", "long_caption"], CaptionArguments(caption_column="long_caption"), image_column="image")
    assert "is not read" not in caplog.text

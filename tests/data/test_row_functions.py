"""Columns of captions that a function of a user makes from rows of another form."""

import importlib
import math
import pickle
import sys
from datetime import date

import numpy as np
import pytest
from datasets import Dataset, Image, load_from_disk

from modeling_lotlip.data import row_functions
from modeling_lotlip.data.images import undecoded
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


# Their sources, each with a word of its own
MODULES = {
    "reader_of_a_test": (
        "from helper_of_a_test import name\n\ndef read(row):\n    return {{'caption': ('{word}', name())}}\n"
    ),
    "helper_of_a_test": "def name():\n    return '{word}'\n",
}


def make_rows() -> Dataset:
    return Dataset.from_dict({"image": ["a.png"], "caption": ["boat"], "conversations": [TURNS]})


def test_a_function_makes_the_columns_of_captions(reader):
    rows = read_rows(make_rows(), "conversations", "image")
    assert rows[0] == make_rows()[0] | {"caption": "BOAT", "long_captions": ["A boat. It is red."]}
    assert reader == {"caption", "conversations"}, "the image is not read"


@pytest.mark.parametrize("changed", ["reader_of_a_test", "helper_of_a_test"])
def test_what_a_function_calls_is_noticed_when_it_changes(monkeypatch, tmp_path, changed):
    """Also in a module that its file imports. The rows that it made before lie in the cache."""
    monkeypatch.syspath_prepend(tmp_path)
    make_rows().save_to_disk(tmp_path / "rows")
    read = []
    for word in ("red", "blue"):
        words = {"reader_of_a_test": "red", "helper_of_a_test": "red"} | {changed: word}
        for module, own_word in words.items():
            (tmp_path / f"{module}.py").write_text(MODULES[module].format(word=own_word))
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setitem(ROW_READERS, "boats", importlib.import_module("reader_of_a_test").read)
        read.append(read_rows(load_from_disk(tmp_path / "rows"), "boats", "image")[0]["caption"])
    position = list(MODULES).index(changed)
    assert [words[position] for words in read] == ["red", "blue"]


@pytest.mark.parametrize(
    "early, late",
    [
        ("a boat", ["a boat", "a ship"]),
        (["a boat"], "007"),
        ("", ["a boat"]),
        ('"a boat"', []),
        ([], "null"),
        ("007", [None]),
        (None, "007"),
        ([], ["a boat"]),
        ([None], ("a boat", "a ship")),
        (None, []),
        (math.nan, "007"),
        ("007", math.nan),
        (math.nan, ["a boat"]),
        (math.nan, 7.5),
        (["a boat"], np.array(["007"])),
        ("007", 7),
        (7, "007"),
        (7, 7.5),
        (np.int64(7), True),
        (1.5e-12, "a boat"),
        ("007", {"name": "007"}),
        (["007"], [{"name": "a boat"}]),
        (["007", 7], [7]),
        ({"name": "007"}, {"name": 7}),
        ({"name": 7}, {"name": "007"}),
        ({"name": "a boat"}, {"name": "a boat", "more": [1]}),
        (b"a boat", b"\xff"),
        (date(2024, 1, 31), date(2024, 2, 29)),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["one", "late", "alternating"])
def test_values_of_several_kinds_stay_as_they_are(monkeypatch, early, late, order):
    """Also after the 1,000 rows by which `datasets` knows the type of a column."""
    values = {
        "one": [early] + [late] * 1100,
        "late": [early] * 1500 + [late] * 20,
        "alternating": [early, late] * 600,
    }[order]
    monkeypatch.setitem(ROW_READERS, "late", lambda row: {"caption": values[row["index"]], "score": 0.5})
    rows = Dataset.from_dict({"image": ["a.png"] * len(values), "index": range(len(values))})
    read = read_rows(rows, "late", "image")
    has_numbers = {type(early), type(late)} == {float}
    for value, found in zip(values, read["caption"]):
        if isinstance(value, float) and math.isnan(value):
            assert math.isnan(found) if has_numbers else found is None
        else:
            expected = list(value) if isinstance(value, (tuple, np.ndarray)) else value
            assert (found, type(found) is bool) == (expected, type(expected) is bool)
    assert set(read["score"]) == {0.5}


def test_images_of_a_function_are_paths_and_contents(monkeypatch):
    """A column of dictionaries would be JSON otherwise."""
    images = [{"path": "a.png", "bytes": None}, {"path": None, "bytes": b"\xff"}]
    monkeypatch.setitem(ROW_READERS, "images", lambda row: {"image": images[row["index"]], "caption": "a boat"})
    read = read_rows(Dataset.from_dict({"index": [0, 1]}), "images", "image")
    assert read["image"][:] == images


def test_other_values_for_the_same_rows_are_refused(monkeypatch):
    values = ["a boat", "a ship", ["a boat"], ["a ship"]]
    monkeypatch.setitem(ROW_READERS, "other", lambda row: {"caption": values.pop(0)})
    with pytest.raises(ValueError, match="'caption' for row 0 .*once more, and something of another kind"):
        read_rows(Dataset.from_dict({"image": ["a.png", "b.png"], "index": [0, 1]}), "other", "image")


def test_an_error_of_a_function_is_its_own(monkeypatch):
    def fail(row: dict) -> dict:
        return {"caption": "a boat" + row["index"]}

    monkeypatch.setitem(ROW_READERS, "failing", fail)
    rows = Dataset.from_dict({"image": ["a.png"], "index": [1]})
    with pytest.raises(TypeError, match="can only concatenate str"):
        read_rows(rows, "failing", "image")


def test_what_a_function_reads_may_change_from_run_to_run(monkeypatch, tmp_path):
    """As a file of texts. The rows that it made before lie in the cache."""
    monkeypatch.setattr(row_functions, "FOLDER", tmp_path / "made")
    make_rows().save_to_disk(tmp_path / "rows")
    texts = tmp_path / "texts.txt"
    monkeypatch.setitem(ROW_READERS, "boats", lambda row: {"caption": texts.read_text()})
    made = []
    for word in ("red", "blue", "red"):
        texts.write_text(word)
        made.append(read_rows(load_from_disk(tmp_path / "rows"), "boats", "image"))
    # also what another process reads, which has the name of a file alone
    assert [pickle.loads(pickle.dumps(rows))[0]["caption"] for rows in made] == ["red", "blue", "red"]
    assert len(list((tmp_path / "made").iterdir())) == 2
    assert made[0]._fingerprint == made[2]._fingerprint


def test_columns_of_other_names_or_labels_are_other_ones(monkeypatch):
    """Also with the same values."""
    made = []
    for names in (("caption", "other"), ("other", "caption")):
        monkeypatch.setitem(ROW_READERS, "boats", lambda row, names=names: dict(zip(names, ("red", "blue"))))
        made.append(read_rows(make_rows(), "boats", "image"))
    assert [rows[0]["caption"] for rows in made] == ["red", "blue"]
    assert made[0]._fingerprint != made[1]._fingerprint


def test_equal_columns_have_one_fingerprint_whatever_the_rows_are_in(tmp_path):
    """By which features of images are found again."""
    make_rows().save_to_disk(tmp_path / "rows")
    for load in (make_rows, lambda: load_from_disk(tmp_path / "rows")):
        fingerprints = {read_rows(load(), "conversations", "image")._fingerprint for _ in range(2)}
        assert len(fingerprints) == 1


def test_the_files_of_the_rows_stay_where_nothing_is_made(tmp_path):
    make_rows().save_to_disk(tmp_path / "rows")
    none = load_from_disk(tmp_path / "rows").select([])
    assert len(read_rows(none, "conversations", "image")) == 0
    images = load_from_disk(tmp_path / "rows").select_columns("image")
    with pytest.raises(ValueError, match="gets no images, and the rows have nothing but these: leave it out"):
        read_rows(images, "conversations", "image")
    assert load_from_disk(tmp_path / "rows")[0] == make_rows()[0]


def test_a_stream_is_read_by_the_same_function(reader):
    rows = make_rows().cast_column("image", Image()).to_iterable_dataset()
    row = next(iter(undecoded(read_rows(rows, "conversations", "image"), "image")))
    assert row["caption"] == "BOAT"
    assert row["long_captions"] == ["A boat. It is red."]
    assert row["image"] == {"path": "a.png", "bytes": None}  # a file that is not there
    assert reader == {"caption", "conversations"}, "the image is not read"


def test_rows_stay_as_they_are_without_a_function():
    rows = make_rows()
    assert read_rows(rows, None, "image") is rows


def test_a_function_that_is_not_registered_is_refused():
    # other tests may have registered more
    with pytest.raises(ValueError, match="nosuch` is not registered, but .*conversations.*: name its file"):
        read_rows(make_rows(), "nosuch", "image")


@pytest.mark.parametrize("returned", [None, {}, ["boat"]])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_function_that_returns_no_columns_is_refused(monkeypatch, returned, is_stream):
    """The rows have a column of captions already, and would be trained on as they are."""
    monkeypatch.setitem(ROW_READERS, "forgotten", lambda row: returned)
    rows = make_rows().cast_column("image", Image())
    if is_stream:
        rows = rows.to_iterable_dataset()
    with pytest.raises(ValueError, match="`--row_reader forgotten` returns .* for .*'caption': 'boat'.*: return a"):
        list(read_rows(rows, "forgotten", "image"))


@pytest.mark.parametrize("returned, message", [({}, "returns {} for"), ({"long": ""}, r"the columns \['long'\] for")])
@pytest.mark.parametrize("is_stream", [False, True])
def test_the_row_of_which_a_function_makes_no_columns_or_others_is_named(monkeypatch, returned, message, is_stream):
    monkeypatch.setitem(ROW_READERS, "some", lambda row: {"caption": "boat"} if row["text"] else returned)
    rows = Dataset.from_dict({"image": ["a.png", "b.png"], "text": ["boat", ""]}).cast_column("image", Image())
    if is_stream:
        rows = rows.to_iterable_dataset()
    with pytest.raises(ValueError, match=f"{message} {'b.png' if is_stream else 'row 1'}, {{'text': ''}}"):
        list(read_rows(rows, "some", "image"))


def test_what_is_no_function_is_no_reader():
    with pytest.raises(ValueError, match="The row reader `mine` is a dict: give a function"):
        ROW_READERS["mine"] = {"caption": "text"}

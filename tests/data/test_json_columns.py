"""What is in the columns of JSON files is found in all rows, by pyarrow where it reads them, and once."""

import gzip
import json
from pathlib import Path

import pytest

from modeling_lotlip.data import json_columns, json_files, row_files
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.json_columns import find_json_columns, holds_date
from modeling_lotlip.data.loading import load_split


# Values of a column, and the lists of `JsonColumns` that name it
COLUMNS = {
    "texts": (["A boat", "007", None], {"with_values"}),
    "nothing": ([None, None], set()),
    "numbers": ([1, 2.5, None, 10**20], {"with_values"}),
    "truth values": ([True, False], {"with_values"}),
    "lists": ([["A boat"], [], None, [None]], {"with_values"}),
    "dictionaries": ([{"id": 1, "of": None}, {}, {"id": 2.5}], {"with_values"}),
    "texts and numbers": (["A boat", 7], {"with_values", "mixed"}),
    "numbers and truth values": ([1, True], {"with_values", "mixed"}),
    "texts and lists": ([None, "A boat", ["A boat"]], {"with_values", "mixed"}),
    "lists of both": ([["A boat"], [7]], {"with_values", "mixed"}),
    "dictionaries of both": ([{"id": [1]}, {"id": ["007"]}], {"with_values", "mixed"}),
    "dates": (["2020-01-01", "2021-05-06T01:02:03Z"], {"with_dates", "with_values"}),
    "a date among texts": (["A boat", "2020-01-01", None], {"with_dates", "with_values"}),
    "a date in a text": (["of 2020-01-01", "2020-01-01 was a day"], {"with_values"}),
    "a date deep inside": ([{"of": [["A boat"], ["2020-01-01"]]}], {"with_dates", "with_values"}),
    "dates and numbers": (["2020-01-01", 2020], {"with_dates", "with_values", "mixed"}),
}


def write_lines(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def fail(*arguments) -> None:
    raise AssertionError("read again")


@pytest.mark.parametrize("bytes_at_once", [1, 2**20])
@pytest.mark.parametrize("form", ["lines", "list", "compressed"])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_found_by_what_is_in_all_rows(tmp_path, monkeypatch, name, form, bytes_at_once):
    monkeypatch.setattr(json_columns, "BYTES_AT_ONCE", bytes_at_once)
    values, expected = COLUMNS[name]
    rows = [{"number": 1, "value": value} for value in values]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    if form == "list":
        Path(file).write_text(json.dumps(rows))
    elif form == "compressed":
        file += ".gz"
        Path(file).write_bytes(gzip.compress(Path(file).with_suffix("").read_bytes()))
    found = find_json_columns([file])._asdict()
    assert {kind for kind, names in found.items() if "value" in names} == expected
    assert {kind for kind, names in found.items() if "number" in names} == {"with_values"}


def test_files_may_differ_in_what_they_hold(tmp_path):
    first = write_lines(tmp_path / "0.jsonl", [{"a": "A boat", "b": None}])
    second = write_lines(tmp_path / "1.jsonl", [{"a": ["A boat"], "b": "2020-01-01"}])
    found = find_json_columns([first, second])
    assert found == (["b"], ["a", "a[]", "b"], ["a"])


def test_texts_without_a_column_are_the_column_of_datasets(tmp_path):
    file = write_lines(tmp_path / "0.jsonl", ["2020-01-01", "A boat"])
    assert find_json_columns([file]) == (["text"], ["text"], [])


def test_rows_of_several_lines_are_not_looked_into(tmp_path):
    (tmp_path / "0.json").write_text('{"a": 1}\n{"a":\n"007"}\n{"a": []}\n')
    assert find_json_columns([str(tmp_path / "0.json")]).mixed == []


def test_what_is_no_json_ends_the_rows_of_a_file(tmp_path):
    (tmp_path / "0.jsonl").write_text('{"a": 1}\nno JSON\n{"a": "007"}\n')
    assert find_json_columns([str(tmp_path / "0.jsonl")]) == ([], ["a"], [])


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "0.jsonl").write_bytes('{"a": "Ein Käfer"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="0.jsonl is not UTF-8: save it as UTF-8"):
        find_json_columns([str(tmp_path / "0.jsonl")])


def test_rows_of_one_type_are_read_by_pyarrow_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(json_columns, "add_lines", fail)
    file = write_lines(tmp_path / "0.jsonl", [{"caption": "A boat", "long": ["A", "B"], "size": {"width": 1}}] * 9)
    assert find_json_columns([file]).with_values == ["caption", "long", "long[]", "size", "size.width"]


def test_what_is_found_in_large_files_is_kept_until_they_change(tmp_path, monkeypatch):
    monkeypatch.setattr(json_columns, "HF_HOME", tmp_path / "cache")
    monkeypatch.setattr(json_columns, "MIN_KEPT_BYTES", 10)
    file = write_lines(tmp_path / "0.jsonl", [{"a": "2020-01-01"}, {"a": 7}])
    found = find_json_columns([file])
    with monkeypatch.context() as patched:
        patched.setattr(json_columns, "read_json_columns", fail)
        assert find_json_columns([file]) == found
    write_lines(Path(file), [{"a": "2020-01-01"}, {"b": 7}])
    assert find_json_columns([file]) == (["a"], ["a", "b"], [])


def test_what_is_found_in_small_files_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(json_columns, "HF_HOME", tmp_path / "cache")
    find_json_columns([write_lines(tmp_path / "0.jsonl", [{"a": 1}])])
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(json_columns, "HF_HOME", tmp_path / "cache")
    monkeypatch.setattr(json_columns, "MIN_KEPT_BYTES", 0)
    assert find_json_columns([write_lines(tmp_path / "0.jsonl", [{"a": 1}])]).with_values == ["a"]


def test_rows_from_the_cache_are_not_looked_into(tmp_path, monkeypatch):
    source = SourceArguments(write_lines(tmp_path / "0.jsonl", [{"a": "2020-01-01"}, {"a": []}]))
    rows = list(load_split(source, "train", with_images=False))
    monkeypatch.setattr(json_files, "find_json_columns", fail)
    assert list(load_split(source, "train", with_images=False)) == rows


def test_keys_of_one_type_are_not_read_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "check_json_column", fail)
    source = SourceArguments(write_lines(tmp_path / "0.jsonl", [{"key": "a", "b": 1}, {"key": "007", "b": []}]))
    rows = list(load_split(source, "train", with_images=False, key_column="key"))
    assert [row["key"] for row in rows] == ["a", "007"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2020-01-01", True),
        ("2020-01-01T10:20:30+02:00", True),
        ("of 2020-01-01", False),
        ("2020-1-1", False),
        (20200101, False),
        ([["a"], "2020-01-01"], True),
        ({"a": {"b": "2020-01-01"}}, True),
        ([], False),
        ({}, False),
    ],
)
def test_a_date_is_held_as_deep_as_it_is(value, expected):
    assert holds_date(value) == expected

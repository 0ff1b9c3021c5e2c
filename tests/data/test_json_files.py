"""Texts in JSON are the texts that they are: if they are written like dates, and beside lists."""

import datetime
import json
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.loading import load_split


both_ways = pytest.mark.parametrize("streaming", [False, True])
DATES = ["2020-01-01", "2021-05-06 10:20", "2021-05-06T01:02:03Z", "2021-05-06T01:02:03.5+02:00"]
# Values of a column, in one file or several, which all come back as they are
VALUES = {
    "dates": [DATES],
    "dates and words": [["2020-01-01", "A boat"]],
    "dates and numbers in texts": [["2020-01-01", "2020", "007"]],
    "dates and nothing": [[None, "2020-01-01"]],
    "dates before words": [["2020-01-01"], ["A boat"]],
    "words before dates": [["A boat"], ["2020-01-01"]],
    "lists": [[["2020-01-01", "2020-01-02"], []]],
    "dictionaries": [[{"taken": "2020-01-01", "number": 1}]],
}


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@both_ways
@pytest.mark.parametrize("name", VALUES)
def test_dates_in_json_lines_are_texts(tmp_path, name, streaming):
    files = []
    for index, values in enumerate(VALUES[name]):
        rows = [{"number": 1.5, "caption": value} for value in values]
        files.append(write_lines(tmp_path / f"{index}.jsonl", rows))
    rows = load_split(SourceArguments("json", data_files=files, streaming=streaming), "train", with_images=False)
    assert [row["caption"] for row in rows] == [value for values in VALUES[name] for value in values]
    assert {row["number"] for row in rows} == {1.5}


@pytest.mark.parametrize("values", [[[None], ["007", "a boat", "[1]", "1.50"]], [[None, "007"], [["a boat"], "1.50"]]])
def test_a_stream_has_the_same_values_when_the_rows_are_in_the_cache(tmp_path, values):
    files = []
    for index, of_file in enumerate(values):
        rows = [{"number": 1, "caption": value} for value in of_file]
        files.append(write_lines(tmp_path / f"{index}.jsonl", rows))
    expected = [value for of_file in values for value in of_file]
    for streaming in (True, False, True):
        source = SourceArguments("json", data_files=files, streaming=streaming)
        assert [row["caption"] for row in load_split(source, "train", with_images=False)] == expected


@both_ways
@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("values", [["A boat.", ["A dog.", "A cat."]], [["A dog."], "A boat.", None]])
def test_one_file_may_hold_texts_and_another_lists(tmp_path, values, ending, streaming):
    for index, value in enumerate(values):
        rows = [{"number": 1, "caption": value}]
        text = json.dumps(rows[0]) if ending == "jsonl" else json.dumps(rows, indent=1)
        (tmp_path / f"{index}.{ending}").write_text(text)
    source = SourceArguments("json", data_files=[str(tmp_path / f"*.{ending}")], streaming=streaming)
    rows = list(load_split(source, "train", with_images=False))
    assert [row["caption"] for row in rows] == values


@both_ways
@pytest.mark.parametrize(("split", "value"), [("train", "A boat."), ("test", ["A dog.", "A cat."])])
def test_one_split_may_hold_texts_and_another_lists(tmp_path, split, value, streaming):
    write_lines(tmp_path / "train.jsonl", [{"caption": "A boat."}])
    write_lines(tmp_path / "test.jsonl", [{"caption": ["A dog.", "A cat."]}])
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), split, with_images=False)
    assert list(rows) == [{"caption": value}]


@both_ways
@pytest.mark.parametrize("last", [["A dog.", "A cat."], 7, {"text": "A dog."}], ids=str)
def test_texts_stay_as_they_are_in_a_later_part_with_something_else(tmp_path, last, streaming):
    texts = [f"{index} boats. {'A red boat. ' * 400}" for index in range(3000)]
    file = write_lines(tmp_path / "rows.jsonl", [{"caption": value} for value in [*texts, last]])
    rows = load_split(SourceArguments("json", data_files=[file], streaming=streaming), "train", with_images=False)
    assert [row["caption"] for row in rows] == [*texts, last]


# Values of a column, in one file or several, of several types
MIXED_VALUES = {
    "numbers and texts": [[1, "007"]],
    "numbers before texts": [[1, 2.5], ["007", "A boat"]],
    "texts before numbers": [["1.50"], [1]],
    "truth values before numbers": [[True], [5]],
    "truth values before texts": [[True], ["false"]],
    "lists and texts of JSON": [[["A boat"], "12", "[1]", "null", None, '"a"']],
    "lists of both": [[[1]], [["007"]]],
    "dictionaries of both": [[{"id": 1}], [{"id": "007"}]],
    "dates and numbers": [["2020-01-01"], [2020]],
    "nothing before texts": [[None], ["007", "2020-01-01"]],
    "nothing before lists": [[None], [["A boat"]]],
    "nothing": [[None], [None]],
    "empty lists before lists": [[[], None], [["007"], [None]]],
    "empty lists": [[[]], [[]]],
    "dictionaries of nothing before others": [[{"a": None, "b": []}], [{"a": "007", "b": ["A boat"]}]],
}


@both_ways
@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("name", MIXED_VALUES)
def test_values_of_several_types_stay_as_they_are(tmp_path, name, ending, streaming):
    files = []
    for index, values in enumerate(MIXED_VALUES[name]):
        rows = [{"number": 1.5, "taken": "2020-01-01", "value": value} for value in values]
        files.append(str(tmp_path / f"{index}.{ending}"))
        if ending == "jsonl":
            write_lines(Path(files[-1]), rows)
        else:
            Path(files[-1]).write_text(json.dumps(rows))
    rows = list(load_split(SourceArguments("json", data_files=files, streaming=streaming), "train", with_images=False))
    found = [row["value"] for row in rows]
    expected = [value for values in MIXED_VALUES[name] for value in values]
    assert list(map(repr, found)) == list(map(repr, expected))  # True == 1
    assert {row["taken"] for row in rows} == {"2020-01-01"}
    assert {row["number"] for row in rows} == {1.5}


@both_ways
@pytest.mark.parametrize("rows", [[{"text": "2020-01-01"}], ["2020-01-01"]], ids=["rows", "texts"])
def test_dates_in_a_json_list_are_texts(tmp_path, rows, streaming):
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    source = SourceArguments(str(tmp_path / "rows.json"), streaming=streaming)
    assert list(load_split(source, "train", with_images=False)) == [{"text": "2020-01-01"}]


@both_ways
@pytest.mark.parametrize("blank", [" ", "\n", "\r\n  "])
def test_a_json_list_may_begin_with_blanks(tmp_path, blank, streaming):
    rows = [{"id": "007", "text": "2020-01-01", "value": "1.50"}, {"id": "8", "text": "A boat.", "value": "7"}]
    (tmp_path / "rows.json").write_text(blank + json.dumps(rows, indent=1))
    source = SourceArguments(str(tmp_path / "rows.json"), streaming=streaming)
    assert list(load_split(source, "train", with_images=False, key_column="id")) == rows


def test_what_stands_before_a_json_list_is_named(tmp_path):
    """Where it cannot be read: with values of several types, or as the second of several files."""
    (tmp_path / "0.json").write_text(" " + json.dumps([{"value": "A boat."}, {"value": 7}]))
    (tmp_path / "1.json").write_text(json.dumps([{"value": "A boat."}]))
    (tmp_path / "2.json").write_text(json.dumps([{"value": "A boat."}]), encoding="utf-8-sig")
    for names in (["0"], ["1", "2"]):
        source = SourceArguments("json", data_files=[str(tmp_path / f"{name}.json") for name in names])
        with pytest.raises(ValueError, match=rf"{names[-1]}.json: .* or blanks stand before its \["):
            load_split(source, "train", with_images=False)


@both_ways
def test_dates_are_times_where_the_card_says_so(tmp_path, streaming):
    write_lines(tmp_path / "rows.jsonl", [{"taken": "2020-01-01", "caption": "2020-01-02"}])
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: rows.jsonl\n  features:\n"
        "  - name: taken\n    dtype: timestamp[s]\n  - name: caption\n    dtype: string\n"
        "dataset_info:\n  features:\n  - name: taken\n    dtype: timestamp[s]\n  - name: caption\n    dtype: string\n"
        "---\n"
    )
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train", with_images=False)
    assert list(rows) == [{"taken": datetime.datetime(2020, 1, 1), "caption": "2020-01-02"}]


def test_dates_in_caption_files_are_keys_and_captions(tmp_path):
    rows = [{"key": "2020-01-01", "caption": "2021-05-06"}, {"key": "2020-01-02", "caption": "2021-05-07"}]
    captions = CaptionFiles([write_lines(tmp_path / "long.jsonl", rows)], "key", ["caption"])
    assert captions["2020-01-01"] == ["2021-05-06"]
    assert captions["2020-01-02"] == ["2021-05-07"]


@both_ways
@pytest.mark.parametrize("key_column", [None, "id"])
def test_dates_in_metadata_are_texts(tmp_path, key_column, streaming):
    """With a column of keys, which is read as text, or without one."""
    expected = []
    for index, date in enumerate(DATES):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
        expected.append({"id": f"2020-01-0{index + 1}", "caption": date, "long_captions": [date, date]})
    rows = [{"file_name": f"{index}.png", **row} for index, row in enumerate(expected)]
    write_lines(tmp_path / "metadata.jsonl", rows)
    found = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train", key_column=key_column)
    assert [{name: row[name] for name in expected[0]} for row in found] == expected


@both_ways
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"caption": "a"},
            {"caption": "b", "label": 1},
            r"1.jsonl has the columns \['label'\], which the rows before",
        ),
        (
            {"caption": "2020-01-01"},
            {"caption": "b", "label": 1},
            r"1.jsonl has the columns \['label'\], which the rows",
        ),
        ({"number": 1}, {"number": 1.5}, "1.jsonl: .*truncated converting to int64"),
    ],
    ids=["other columns", "other columns with dates", "other types"],
)
def test_a_file_that_does_not_fit_the_others_is_named(tmp_path, first, second, message, streaming):
    files = [write_lines(tmp_path / "0.jsonl", [first]), write_lines(tmp_path / "1.jsonl", [second])]
    source = SourceArguments("json", data_files=files, streaming=streaming)
    with pytest.raises(ValueError, match=message) as error:
        list(load_split(source, "train", with_images=False))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("second", ['{"a": "b"}\n', "no JSON\n"], ids=["other types", "no JSON"])
@both_ways
def test_a_file_from_elsewhere_that_cannot_be_read_is_named(second, streaming, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # else nothing is downloaded, not from memory either
    folder = f"memory://{tmp_path.name}"  # a download is known by its name
    files = {f"{folder}/0.jsonl": '{"a": 1}\n', f"{folder}/1.jsonl": second}
    for name, content in files.items():
        with fsspec.open(name, "w") as file:
            file.write(content)
    source = SourceArguments("json", data_files=[*files], streaming=streaming)
    with pytest.raises(ValueError, match="memory:///?test_a_file_.*/1.jsonl: "):
        list(load_split(source, "train", with_images=False))


@both_ways
def test_a_column_that_a_later_file_of_json_lines_lacks_is_empty_there(tmp_path, streaming):
    first = write_lines(tmp_path / "0.jsonl", [{"a": 1, "b": "c"}])
    files = [first, write_lines(tmp_path / "1.jsonl", [{"a": 2}])]
    source = SourceArguments("json", data_files=files, streaming=streaming)
    rows = list(load_split(source, "train", with_images=False))
    assert rows == [{"a": 1, "b": "c"}, {"a": 2, "b": None}]


def test_dates_of_rows_that_are_no_lines_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": "2020-01-01"}\n{"a":\n"2020-01-02"}\n')
    source = SourceArguments(str(tmp_path / "rows.jsonl"))
    with pytest.raises(ValueError, match="hold dates, .* and rows of several lines: write JSON lines"):
        list(load_split(source, "train", with_images=False))

"""What one row holds: captions, keys and addresses."""

import datetime
import hashlib
import ntpath
from types import SimpleNamespace

import pytest
from datasets import Dataset, Features, Image, IterableDataset, Json, List, Value
from datasets.config import DOWNLOADED_DATASETS_PATH
from transformers.utils import logging

from modeling_lotlip.data import rows
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.rows import (
    are_of_one_repository,
    batched,
    check_columns,
    check_fields,
    find_column,
    find_key,
    read_captions,
    read_key,
    read_url,
)
from modeling_lotlip.utils import keys


def test_captions_are_the_texts_of_a_column_that_are_not_blank():
    assert read_captions({"caption": "a boat"}, "caption") == ["a boat"]
    assert read_captions({"caption": ["a", None, " ", "b"]}, "caption") == ["a", "b"]
    assert read_captions({"caption": ["\u200b", "a\u200b", "\ufeff"]}, "caption") == ["a\u200b"]
    for row, column in [({"caption": None}, "caption"), ({"caption": "a"}, None), ({}, "caption"), ({"a": ""}, "a")]:
        assert read_captions(row, column) == []
    assert read_captions({"json": {"long_captions": ["a."]}}, "json.long_captions") == ["a."]
    for wrong in (3, [3], {"a": "b"}, b"a"):
        with pytest.raises(ValueError, match="'caption' must hold strings"):
            read_captions({"caption": wrong}, "caption")
    lists = [
        """["a", "it's"]""",
        """['a', "it's"]""",
        "['a'\n 'b']",
        "['a']",
        "[]",
        "[nan]",
        "['a', None]",
        "[NULL, 'a']",
        "[['a'], ['b']]",
    ]
    lists += ["('a', 'b')", "('a',)", "(nan,)", "{'a', 'b'}", '{"A red boat.","A boat."}', " [ 'a' ]\n"]
    for wrong in lists:
        with pytest.raises(
            ValueError, match="'caption' holds lists as text, as CSV files do: write them as JSON lines"
        ):
            read_captions({"caption": wrong}, "caption")


@pytest.mark.parametrize(
    "caption",
    [
        "(A boat.)",
        "[A] boat",
        "('a boat')",
        "{'caption': 'a boat'}",
        "{}",
        "[1999, 2000]",
        "('a'",
        "[" * 10_000,
        "(a, b)",
    ],
)
def test_other_texts_in_brackets_are_captions(caption):
    assert read_captions({"caption": caption}, "caption") == [caption]


@pytest.mark.parametrize(
    ("caption", "is_told"),
    [("A boat.\\nA car.", True), ("A boat\\r\\nA car", True), ("A boat.\nA car.", False), ("a \\neq b", False)],
)
def test_line_breaks_as_databases_write_them_are_told(caplog, caption, is_told):
    logging.get_logger("modeling_lotlip.data.rows").warning_once.cache_clear()
    assert read_captions({"caption": caption}, "caption") == [caption]
    assert ("holds line breaks as a backslash and a letter" in caplog.text) == is_told


@pytest.mark.parametrize(
    ("name", "data_files", "is_one"),
    [
        ("org/a", None, True),
        ("org/b", None, False),
        ("imagefolder", ["hf://datasets/org/a/x/*"], True),
        ("imagefolder", ["hf://datasets/org/a/x/*", "hf://datasets/org/b/x/*"], False),
        # of which `datasets` makes one of the above
        ("imagefolder", ["https://huggingface.co/datasets/org/a/resolve/main/x/0.png"], False),
    ],
)
def test_paths_of_the_hub_are_keys_where_the_arguments_name_the_repository(name, data_files, is_one):
    files = [f"hf://datasets/org/a@main/x/{index}.png" for index in range(2)]
    source = SourceArguments(name, data_files=data_files)
    assert are_of_one_repository(files, source) == is_one
    assert not are_of_one_repository([*files, "hf://datasets/org/b@main/x/0.png"], source)
    assert not are_of_one_repository([*files, "https://a.org/0.png"], source)


@pytest.mark.parametrize("word", ["NULL", "\\N", "nan", " N/A "])
def test_words_for_missing_values_are_captions_and_told(caplog, word):
    logging.get_logger("modeling_lotlip.data.rows").warning_once.cache_clear()
    assert read_captions({"caption": ["a null", word]}, "caption") == ["a null", word]
    assert f"The column 'caption' holds {word.strip()!r}, which is read as a caption" in caplog.text
    assert caplog.text.count("which is read") == 1


@pytest.mark.parametrize(
    ("name", "column"), [("url", "url"), ("json.url", "json"), ("a.b", "a.b"), ("b", None), ("a.c", None)]
)
def test_a_column_is_found_by_its_name_or_by_that_of_its_json(name, column):
    assert find_column(["json", "a.b", "url"], name) == column


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("id", "12"),
        ("nothing", None),
        ("other", None),
        ("json.url", "x.org"),
        ("json.more.id", "3"),
        ("json.nothing.id", None),
        ("a.b", "flat"),
    ],
)
def test_a_key_is_the_text_of_a_column_or_of_a_field_of_json(column, key):
    row = {"id": 12, "nothing": None, "json": {"url": "x.org", "more": {"id": 3}}, "a.b": "flat"}
    assert read_key(row, column) == key


def test_the_key_of_an_image_is_the_hash_of_its_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"content")
    expected = hashlib.sha256(b"content").hexdigest()
    assert read_key({"image": {"bytes": b"content", "path": "other.png"}}, "image") == expected
    assert read_key({"image": {"bytes": None, "path": str(tmp_path / "a.png")}}, "image") == expected
    for nothing in (str(tmp_path / "b.png"), None):
        assert read_key({"image": {"bytes": None, "path": nothing}}, "image") is None


def test_keys_without_reading_the_file(tmp_path):
    (tmp_path / "photos").mkdir()
    source = SourceArguments("imagefolder", data_dir=str(tmp_path / "photos"))
    image = {"bytes": None, "path": str(tmp_path / "photos" / "a" / "b.png")}
    assert find_key({"image": image}, source) == "a/b.png"
    assert find_key({"image": image | {"path": "/elsewhere/b.png"}}, source) == "/elsewhere/b.png"
    beside = str(tmp_path / "photos2" / "b.png")
    assert find_key({"image": image | {"path": beside}}, source) == beside
    assert find_key({"image": image, "__key__": "007"}, source) == "007"
    assert find_key({"image": {"bytes": b"a", "path": None}}, source) is None
    assert find_key({"image": None}, source) is None
    assert find_key({"image": image, "__key__": "007", "id": 5}, source, "id") == "5"
    assert find_key({"image": image, "__key__": "007"}, source, "image") is None  # the SHA-256 of the file
    folder = SourceArguments(str(tmp_path / "photos"))
    assert find_key({"image": image}, folder) == "a/b.png"
    json_rows = SourceArguments("json", data_files=[str(tmp_path / "photos" / "rows.json")])
    assert find_key({"image": image}, json_rows) == "a/b.png"
    in_archive = {"bytes": None, "path": f"zip://a/b.png::{tmp_path / 'photos' / 'more.zip'}"}
    assert find_key({"image": in_archive}, folder) == "more.zip/a/b.png"
    elsewhere = {"bytes": None, "path": "zip://a/b.png::https://example.com/more.zip"}
    assert find_key({"image": elsewhere}, folder) == "zip://a/b.png::https://example.com/more.zip"
    # the folder may be named by a link to it
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert find_key({"image": image}, SourceArguments("imagefolder", data_dir=str(tmp_path / "link"))) == "a/b.png"


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({"data_dir": "a"}, "b.png"),
        ({"data_files": ["a/*.png"]}, "a/b.png"),
        ({"data_files": ["../more/*.c"]}, "c.png"),
    ],
)
def test_keys_are_paths_in_the_folder_that_is_read(tmp_path, monkeypatch, named, key):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "photos" / "a" / "b.png"
    if key == "c.png":
        path = tmp_path / "more" / "c.png"
    assert find_key({"image": {"bytes": None, "path": str(path)}}, SourceArguments("photos", **named)) == key


COMMIT = "0123456789" * 4
SNAPSHOT = f"/cache/hub/datasets--org--photos/snapshots/{COMMIT}"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (f"{SNAPSHOT}/train/a b.png", "train/a b.png"),
        (f"zip://b/1.png::{SNAPSHOT}/train.zip", "train.zip/b/1.png"),
        (f"hf://datasets/org/photos@{COMMIT}/train/a b.png", "train/a b.png"),
        ("hf://datasets/org/photos/train/a@b.png", "train/a@b.png"),
        (f"zip://b/1.png::hf://datasets/org/photos@{COMMIT}/train.zip", "train.zip/b/1.png"),
    ],
)
def test_keys_of_the_hub_are_paths_in_the_repository(monkeypatch, path, key):
    monkeypatch.chdir("/")  # where the cache is
    image = {"bytes": None, "path": path}
    assert find_key({"image": image}, SourceArguments("org/photos", data_files=["*.png"])) == key
    address = SourceArguments(
        "imagefolder", data_files=["hf://datasets/org/photos@main/*", "hf://datasets/org/photos/*"]
    )
    assert find_key({"image": image}, address) == key
    # of files of another repository, which rows name
    assert find_key({"image": image}, SourceArguments("org/photo")).endswith(path.rpartition("::")[2])


def test_files_of_several_repositories_have_no_paths_as_keys():
    source = SourceArguments("imagefolder", data_files=["hf://datasets/org/photos/*", "hf://datasets/org/more/*"])
    for path in (f"{SNAPSHOT}/a.png", f"hf://datasets/org/photos@{COMMIT}/a.png"):
        assert find_key({"image": {"bytes": None, "path": path}}, source) is None


def test_a_download_has_no_key_but_its_hash():
    path = f"zip://b/1.png::{DOWNLOADED_DATASETS_PATH}/0123"
    assert find_key({"image": {"bytes": None, "path": path}}, SourceArguments("imagefolder")) is None


def test_keys_on_windows(monkeypatch):
    """Where upper case is not told from lower case, and paths have backslashes; keys have none."""
    as_windows = SimpleNamespace(path=ntpath, sep="\\")
    monkeypatch.setattr(rows, "os", as_windows)
    monkeypatch.setattr(keys, "os", as_windows)
    source = SourceArguments("imagefolder", data_dir=r"c:\Photos")
    image = {"bytes": None, "path": r"C:\photos\more\3.jpg"}
    assert find_key({"image": image}, source) == "more/3.jpg"
    elsewhere = {"bytes": None, "path": r"D:\photos\3.jpg"}
    assert find_key({"image": elsewhere}, source) == r"D:\photos\3.jpg"


def test_a_url_is_found_in_the_column_or_in_json():
    assert read_url({"url": "x.org/1", "URL": "x.org/2"}) == "x.org/1"
    assert read_url({"json": {"url": "x.org/3"}, "URL": None}) == "x.org/3"
    assert read_url({"address": "x.org"}) is None


@pytest.mark.parametrize(("num_rows", "sizes"), [(0, []), (2, [2]), (4, [2, 2]), (5, [2, 2, 1])])
def test_rows_come_in_batches(num_rows, sizes):
    batches = list(batched(iter(range(num_rows)), 2))
    assert [len(batch) for batch in batches] == sizes
    assert sum(batches, []) == list(range(num_rows))


def test_an_empty_text_is_no_key():
    assert read_key({"id": ""}, "id") is None
    assert read_key({"id": 0}, "id") == "0"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["image", "text"], ".*: name one"),
        (["image;text"], ".*: separate cells by commas"),
        (["image", " id"], ".*' id' with blanks: take them away in the header"),
        (["v0.png", "v0.id", "__key__"], ".*: in shards a column is all that follows the first dot"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_what_to_do(columns, message):
    check_columns(columns, key_column=None)
    with pytest.raises(ValueError, match=f"`--key_column id` is not a column of {message}"):
        check_columns(columns, key_column="id")


# By the name of a column its type, the values of two rows, and the fields that are there
FIELDS = {
    "dictionary": ({"text": Value("string"), "more": {"id": Value("int64")}}, [None, {"text": None}], "text more.id"),
    "text": (Value("string"), ["a boat", "a car"], ""),
    "list": (List({"raw": Value("string")}), [[{"raw": "a boat"}], []], ""),
    "JSON": (Json(), [{"id": 1}, {"text": None, "more": {"id": 3}}], "id text more.id"),
    "mixed": (Json(), ["a boat", ["a car"]], ""),
    "nothing": (Value("null"), [None, None], "text more.id"),
    "no JSON": (Json(), [None, None], "text more.id"),
    "image": (Image(), [{"bytes": b"no image", "path": "a.png"}, None], "path"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_not_there_is_refused_and_one_that_is_there_is_not(name, streaming, caplog):
    logging.get_logger("transformers").warning_once.cache_clear()
    column_type, values, there = FIELDS[name]
    rows = Dataset.from_dict({"about": values}, Features({"about": column_type}))
    is_known = not streaming or not isinstance(column_type, Json)
    if streaming:
        rows = rows.to_iterable_dataset()
    for field in there.split():
        check_fields(rows, key_column=f"about.{field}", caption_column="about", long_captions_column=None)
    assert caplog.text == ""
    missing = {"text", "more.id", "raw", "more.name", "text.name"} - set(there.split())
    if name in ("nothing", "no JSON"):  # whose fields nobody knows
        missing = set()
    for field in missing:
        caplog.clear()
        if is_known:
            with pytest.raises(ValueError, match=f"`--key_column about.{field}` is not there: .* 'about' holds"):
                check_fields(rows, key_column=f"about.{field}")
        else:
            check_fields(rows, key_column=f"about.{field}")
            assert f"`--key_column about.{field}` is in none of the first {len(values)} rows" in caplog.text


def test_the_fields_that_are_there_are_named():
    rows = Dataset.from_dict({"json": [{"id": 1, "long_captions": ["a boat."]}]})
    with pytest.raises(ValueError, match=r"'json' holds the fields \['id', 'long_captions'\]: name a field"):
        check_fields(rows, key_column="json.key")


def test_rows_that_a_function_of_the_user_makes_are_not_checked():
    """The stored column is a text, in which there are no fields."""
    rows = Dataset.from_dict({"about": ['{"id": 1}']}).with_transform(lambda batch: batch)
    check_fields(rows, key_column="about.id")


def test_of_many_rows_the_first_ones_are_looked_at(monkeypatch, caplog):
    monkeypatch.setattr("modeling_lotlip.data.rows.NUM_ROWS_WITH_FIELDS", 2)
    logging.get_logger("transformers").warning_once.cache_clear()
    rows = Dataset.from_list([{"about": {"id": 1}}] * 3, Features({"about": Json()}))
    check_fields(rows, key_column="about.key")
    assert "`--key_column about.key` is in none of the first 2 rows" in caplog.text
    with pytest.raises(ValueError, match="`--key_column about.key` is not there"):
        check_fields(rows.take(2), key_column="about.key")


def test_a_stream_without_types_is_checked_by_its_rows(caplog):
    logging.get_logger("transformers").warning_once.cache_clear()
    rows = IterableDataset.from_generator(lambda: iter([{"json": {"id": 1}}] * 101))
    check_fields(rows, key_column="json.id")
    assert caplog.text == ""
    check_fields(rows, key_column="json.key")
    assert "`--key_column json.key` is in none of the first 100 rows" in caplog.text
    check_fields(rows.take(99), key_column="json.key")
    assert "`--key_column json.key` is in none of the first 99 rows" in caplog.text


def test_captions_that_are_bytes_are_those_of_a_member_of_another_ending():
    with pytest.raises(ValueError, match=r"got bytes, b'short': in shards .* end in \.txt"):
        read_captions({"caption": b"short"}, "caption")


@pytest.mark.parametrize("value", [1.0, 1.5, ["a"], datetime.date(2026, 1, 2)])
def test_keys_that_may_be_written_in_several_ways_are_refused(value):
    with pytest.raises(ValueError, match="The column of keys, id, must hold integers or strings, but has"):
        read_key({"id": value}, "id")


def test_keys_of_bytes_are_texts():
    assert read_key({"sku": b"A0"}, "sku") == "A0"
    assert read_key({"sku": b""}, "sku") is None
    with pytest.raises(ValueError, match=r"The column of keys, sku, must hold .* no text in UTF-8, b'\\xff'"):
        read_key({"sku": b"\xff"}, "sku")

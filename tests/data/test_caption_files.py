"""Long captions in files beside the images, joined by key, by URL and by the hash of the image file."""

import gzip
import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Image
from pyarrow import parquet
from transformers.utils import logging

from modeling_lotlip.data import caption_files
from modeling_lotlip.data.arguments import CaptionArguments, CaptionFileArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from tests.helpers.data_files import write_lines


NUM_IMAGES = 24
URLS = [f"https://example.org/{number}.jpg?size=large" for number in range(NUM_IMAGES)]


def open_reader(columns: list[str], **caption_files) -> RowReader:
    return RowReader(columns, CaptionArguments(), CaptionFileArguments(**caption_files))


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    """Scenes whose long captions have gone elsewhere."""
    return load_scenes(NUM_IMAGES, seed=12).add_column("url", URLS)


@pytest.fixture(scope="module")
def digests(scenes) -> list[str]:
    return [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(scenes, "image")]


def write(path: Path, rows: list[dict]) -> str:
    """Rows in two files of the kind that the path's suffix names; the pattern of both."""
    writers = {".parquet": Dataset.to_parquet, ".jsonl": Dataset.to_json, ".csv": Dataset.to_csv}
    for half, part in enumerate((rows[::2], rows[1::2])):
        file = path.with_name(f"{path.stem}{half}{path.suffix}")
        writers[path.suffix](Dataset.from_list(part), file)
    return str(path.with_name(f"{path.stem}*{path.suffix}"))


@pytest.mark.parametrize("suffix, key_column", [(".parquet", "image"), (".jsonl", "url"), (".csv", "url")])
def test_the_join_is_that_of_a_dictionary(scenes, digests, tmp_path, suffix, key_column):
    keys = {"image": digests, "url": URLS}[key_column]
    absent = keys[-4:]
    # two captioners in columns and in rows, absent captions, a key twice, and keys of no image
    rows = []
    expected = {name: [] for name in [*keys, "nobody"]}
    for number, name in enumerate([*keys[:-4], "nobody", keys[5]]):
        row = {"key": name, "llava": None, "blip": f"Second {number}."}
        if number % 3 != 0:
            row["llava"] = f"First {number}. A boat."
            expected[name].append(row["llava"])
        expected[name].append(row["blip"])
        rows.append(row)
    reader = open_reader(
        ["image", "caption", "url"],
        caption_files=[write(tmp_path / f"long{suffix}", rows)],
        file_caption_columns=["llava", "blip"],
        key_column=key_column,
    )
    assert reader.has_long_captions
    assert reader.long_column is None
    for row, name in zip(undecoded(scenes, "image").remove_columns("long_captions"), keys):
        assert sorted(reader.long_captions(row)) == sorted(expected[name])
        _, unmatched = reader.match_long_captions(row)
        if name in absent:
            assert unmatched == name
        else:
            assert unmatched is None


@pytest.fixture
def read_captions(tmp_path):
    """Writes a file and reads its captions."""

    def read(name: str, content: bytes) -> CaptionFiles:
        (tmp_path / name).write_bytes(content)
        return CaptionFiles([str(tmp_path / name)], "key", ["caption"])

    return read


def test_keys_of_csv_files_are_texts(read_captions):
    captions = read_captions("long.csv", b'key,caption\n000000012,"A boat. Red."\n,Nobody\n12,Other\n')
    assert captions["000000012"] == ["A boat. Red."]
    assert captions["12"] == ["Other"]


def test_a_row_without_a_key_is_none_of_the_key_none(read_captions):
    lines = [b'{"key": null, "caption": "of none"}', b'{"key": "None", "caption": "of it"}']
    captions = read_captions("long.jsonl", b"\n".join(lines))
    assert captions["None"] == ["of it"]
    assert captions["zzz"] == []
    assert len(captions.hashes) == 1


def test_a_caption_may_be_a_text_or_a_list_and_a_blank_one_is_left_out(read_captions):
    rows = {"a": "A boat.", "b": ["A dog.", " "], "c": [], "d": "", "e": " \n", "f": None, "g": [" ", None]}
    lines = [json.dumps({"key": key, "caption": caption}) for key, caption in rows.items()]
    captions = read_captions("long.jsonl", "\n".join(lines).encode())
    assert captions["a"] == ["A boat."]
    assert captions["b"] == ["A dog."]
    assert len(captions.hashes) == 2


def test_lists_of_blank_captions_are_left_out(read_captions):
    """In a column of nothing but lists."""
    rows = {"a": ["A dog.", " "], "b": [" ", "\n"], "c": [None], "d": None, "e": ["", "A cat."], "f": []}
    lines = [json.dumps({"key": key, "caption": caption}) for key, caption in rows.items()]
    captions = read_captions("long.jsonl", "\n".join(lines).encode())
    assert captions["a"] == ["A dog."]
    assert captions["e"] == ["A cat."]
    assert len(captions.hashes) == 2


def test_captions_may_be_lists_of_one_length(tmp_path):
    lists = [["A dog.", "A cat."], [" ", None], None, ["", "A boat."]]
    table = {"key": ["a", "b", "c", "d"], "caption": pa.array(lists, pa.list_(pa.string(), 2))}
    parquet.write_table(pa.table(table), tmp_path / "0.parquet")
    captions = CaptionFiles([str(tmp_path / "0.parquet")], "key", ["caption"])
    assert [captions[key] for key in "abcd"] == [["A dog.", "A cat."], [], [], ["A boat."]]
    assert len(captions.hashes) == 2


@pytest.mark.parametrize(
    "values",
    [[False, True, None], ["False", "True", ""], ["false", 1, None], [0, 1, None], [0.0, 0.5, 0]],
    ids=["bool", "text", "mixed", "int", "float"],
)
def test_what_is_marked_as_not_rejected_is_read(read_captions, values):
    rows = []
    for index, value in enumerate(values):
        rows.append({"key": str(index), "caption": "A boat.", "rejected_by": value})
    captions = read_captions("long.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert captions["0"] == ["A boat."]
    assert captions["1"] == []
    assert captions["2"] == ["A boat."]


@pytest.mark.parametrize("order", [["0", "1"], ["1", "0"]])
@pytest.mark.parametrize(("rule", "expected"), [("too_short", []), (None, ["A boat."])])
def test_rules_may_be_in_one_file_alone_whichever_is_first(tmp_path, rule, expected, order):
    write_lines(tmp_path / "0.jsonl", [{"key": "a", "caption": "A boat.", "rejected_by": rule}])
    write_lines(tmp_path / "1.jsonl", [{"key": "b", "caption": "A car."}])
    captions = CaptionFiles([str(tmp_path / f"{name}.jsonl") for name in order], "key", ["caption"])
    assert captions["a"] == expected
    assert captions["b"] == ["A car."]


def test_rules_may_reject_nothing_in_the_first_file(tmp_path):
    """Where the column of rules has no type."""
    first = write_lines(tmp_path / "0.jsonl", [{"key": "a", "caption": "A boat.", "rejected_by": None}])
    second = write_lines(tmp_path / "1.jsonl", [{"key": "b", "caption": "A car.", "rejected_by": "too_short"}])
    captions = CaptionFiles([first, second], "key", ["caption"])
    assert captions["a"] == ["A boat."]
    assert captions["b"] == []


@pytest.mark.parametrize("first", [{"rejected_by": None}, {}])
def test_parquet_files_come_in_the_order_of_their_names(tmp_path, monkeypatch, first):
    """Whatever order a folder lists them in, the columns of all are known."""
    found = [str(tmp_path / "1.parquet"), str(tmp_path / "0.parquet")]
    monkeypatch.setattr(caption_files, "glob", lambda pattern, recursive: found)
    rows = [{"key": "a", "caption": "A boat."} | first, {"key": "b", "caption": "A car.", "rejected_by": "too_short"}]
    for index, row in enumerate(rows):
        Dataset.from_list([row]).to_parquet(tmp_path / f"{index}.parquet")
    captions = CaptionFiles([str(tmp_path / "*.parquet")], "key", ["caption"])
    assert captions["a"] == ["A boat."]
    assert captions["b"] == []


def test_an_object_of_captions_by_key_is_refused(read_captions):
    with pytest.raises(ValueError, match="long.json` hold one row, without the column 'key': write a row for"):
        read_captions("long.json", b'{"a.jpg": "A boat.", "b.jpg": ["A dog.", "A cat."]}')


def test_a_compressed_file_is_read(read_captions):
    captions = read_captions("long.jsonl.gz", gzip.compress(b'{"key": 12, "caption": "of a number"}\n'))
    assert captions["12"] == ["of a number"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.csv", "key,caption\na,für\n".encode("latin-1"), "latin.csv is not UTF-8: save it as UTF-8"),
        ("empty.jsonl", b"", "`--caption_files .*empty.jsonl` cannot be read: there are no rows."),
    ],
)
def test_a_file_that_would_be_read_as_something_else_is_refused(read_captions, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_captions(name, content)


def test_a_column_of_times_is_refused_as_keys(tmp_path):
    times = pa.table({"key": pa.array([0], pa.timestamp("s")), "caption": ["a"]})
    parquet.write_table(times, tmp_path / "times.parquet")
    with pytest.raises(ValueError, match="are read as timestamp"):
        CaptionFiles([str(tmp_path / "times.parquet")], "key", ["caption"])


def test_a_pattern_of_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`--caption_files .*nothing-.*` cannot be read"):
        CaptionFiles([str(tmp_path / "nothing-*.jsonl")], "key", ["caption"])


def test_a_file_that_several_patterns_name_is_read_once(tmp_path):
    path = write_lines(tmp_path / "long.jsonl", [{"key": "a", "caption": "A boat."}])
    assert CaptionFiles([path, str(tmp_path / "*.jsonl")], "key", ["caption"])["a"] == ["A boat."]


def test_each_choice_of_columns_has_an_index_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_files, "HF_HOME", tmp_path / "cache")
    rows = [
        {"key": "a", "url": "x", "llava": "L a.", "blip": None},
        {"key": "b", "url": "y", "llava": "", "blip": "B b."},
    ]
    file = tmp_path / "long.jsonl"
    write_lines(file, rows)

    def read(key_column: str, columns: list[str], keys: str) -> list[list[str]]:
        captions = CaptionFiles([str(file)], key_column, columns)
        return [captions[key] for key in keys]

    for _ in range(2):  # the second time they are served from the index
        assert read("key", ["llava"], "ab") == [["L a."], []]
        assert read("key", ["blip"], "ab") == [[], ["B b."]]
        assert read("url", ["blip"], "xyb") == [[], ["B b."], []]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 3
    file.write_text(json.dumps(rows[1] | {"key": "c"}) + "\n")
    assert read("key", ["blip"], "abc") == [[], [], ["B b."]]


@pytest.mark.parametrize(
    ("name", "row"),
    [("long.csv", 'key,caption\na,"{}"\n'), ("long.jsonl", '{{"key": "a", "caption": "{}"}}\n')],
)
def test_a_file_that_is_replaced_by_one_of_equal_time_is_read_anew(tmp_path, name, row):
    path = tmp_path / name
    found = []
    for caption in ("A boat.", "A cart."):
        path.write_text(row.format(caption))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        found += CaptionFiles([str(path)], "key", ["caption"])["a"]
    assert found == ["A boat.", "A cart."]


@pytest.mark.parametrize(
    ("columns", "key_column", "expected"),
    [
        (["json", "caption"], "json.url", ["caption", "json"]),
        (["key.txt", "caption", "long_captions"], "key.txt", ["caption", "long_captions", "key.txt"]),
        (["image"], "image", ["image"]),
    ],
)
def test_the_columns_that_are_read_are_those_of_texts_and_keys(tmp_path, columns, key_column, expected):
    (tmp_path / "long.jsonl").write_text('{"key": "a", "caption": "of a"}\n')
    reader = open_reader(columns, caption_files=[str(tmp_path / "long.jsonl")], key_column=key_column)
    assert reader.text_columns == expected


def test_keys_with_the_same_hash_are_distinguished(tmp_path, monkeypatch):
    def hash_alike(keys: list[str | None]) -> np.ndarray:
        return np.full(len(keys), keys != [None], dtype=np.uint64)

    rows = [{"key": key, "caption": f"of {key}"} for key in "abc"]
    monkeypatch.setattr(caption_files, "HF_HOME", tmp_path / "cache")
    monkeypatch.setattr(caption_files, "hash_keys", hash_alike)
    captions = CaptionFiles([write(tmp_path / "long.jsonl", rows)], "key", ["caption"])
    assert [captions[key] for key in "abcd"] == [["of a"], ["of b"], ["of c"], []]


def test_images_and_captions_without_a_match_are_counted_and_named(scenes, tmp_path, caplog):
    rows = [{"key": url, "caption": "A boat. A car."} for url in [*URLS[3:], "nobody"]]
    files = [write(tmp_path / "long.jsonl", rows)]
    reader = open_reader(scenes.column_names, caption_files=files, key_column="url")
    reader.report_keys(scenes, "test images")
    assert "Of 24 test images 3 have no captions in `--caption_files`" in caplog.text
    assert f"have no captions in `--caption_files` (such as '{URLS[0]}'" in caplog.text
    assert "1 of 22 rows of `--caption_files` belong to none of the 24 test images" in caplog.text
    assert "belong to none of the 24 test images (such as 'nobody')." in caplog.text
    with pytest.raises(ValueError, match="Of 3 images 3 have no .*right `--key_column`.*files that have these images"):
        reader.report_keys(scenes.select(range(3)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"caption_files": ["long.txt"]}, "must all end in one of"),
        ({"file_key_column": "address", "key_column": "url"}, "no column 'address' but"),
    ],
)
def test_wrong_names_are_errors(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    files = [write(tmp_path / "long.jsonl", [{"key": "a", "caption": "b"}] * 2)]
    with pytest.raises(ValueError, match=message):
        open_reader(["image", "key", "url"], **{"caption_files": files} | changes)


@pytest.mark.parametrize("bad", [5, {"text": "a"}, ["a", 3]], ids=["number", "dictionary", "list with a number"])
def test_a_bad_caption_leaves_the_others_as_they_are(tmp_path, caplog, bad):
    rows = [
        {"key": "a", "caption": "A boat."},
        {"key": "bad", "caption": bad},
        {"key": "b", "caption": "A car."},
    ]
    file = tmp_path / "long.jsonl"
    write_lines(file, rows)
    captions = CaptionFileArguments(caption_files=[str(file)])
    reader = RowReader(["key"], CaptionArguments(), captions, image_column=None)
    first, second, third = (list(reader(index, row)) for index, row in enumerate(rows))
    assert [item.content for item in first] == ["A boat"]
    assert second == []
    assert [item.content for item in third] == ["A car"]
    expected = "captions of row 1 are left out: .*long.jsonl` hold no captions at the key 'bad': "
    assert re.search(expected, caplog.text)


def test_evaluation_reads_caption_files(scenes, tmp_path, encoder):
    whole = evaluate_retrieval(encoder, scenes, CaptionArguments())
    captions = [long_captions[0] for long_captions in scenes["long_captions"]]
    rows = [{"key": url, "caption": caption} for url, caption in zip(URLS, captions)]
    files = CaptionFileArguments([write(tmp_path / "long.parquet", rows)], key_column="url")
    rows = scenes.remove_columns("long_captions")
    assert evaluate_retrieval(encoder, rows, CaptionArguments(), files) == whole
    assert whole["long_num_captions"] == NUM_IMAGES


def test_evaluation_names_the_captions_of_no_image(scenes, tmp_path, encoder, caplog):
    captions = [{"key": url, "caption": "A boat. A car."} for url in [*URLS[1:], "nobody"]]
    files = CaptionFileArguments([write(tmp_path / "long.jsonl", captions)], key_column="url")
    evaluate_retrieval(encoder, scenes.remove_columns("long_captions"), CaptionArguments(), files)
    assert f"Of 24 images 1 have no captions in `--caption_files` (such as '{URLS[0]}')." in caplog.text
    assert "1 of 24 rows of `--caption_files` belong to none of the 24 images (such as 'nobody')." in caplog.text


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_rejected_rows_are_left_out_and_counted_once(scenes, tmp_path, suffix, caplog):
    keys = [*URLS[:6], URLS[0]]
    rejected = [None, "too_short", None, "refusal", None, None, "repetition"]
    rows = []
    for number, (key, rule) in enumerate(zip(keys, rejected)):
        rows.append({"key": key, "caption": f"Of {number}.", "rejected_by": rule})
    files = [write(tmp_path / f"long{suffix}", rows)]
    readers = [open_reader(scenes.column_names, caption_files=files, key_column="url") for _ in range(2)]
    for reader in [*readers, pickle.loads(pickle.dumps(readers[0]))]:
        found = [reader.caption_files[key] for key in URLS[:6]]
        assert found == [["Of 0."], [], ["Of 2."], [], ["Of 4."], ["Of 5."]]
    told = [record.message for record in caplog.records if "are left out" in record.message]
    assert len(told) == 1
    assert told[0].startswith("3 of 7 rows of `--caption_files")
    nothing = write(tmp_path / "none.parquet", [row | {"rejected_by": "too_short"} for row in rows])
    with pytest.raises(ValueError, match="^7 of 7 rows .*: 7 that rules reject .*There is nothing to read"):
        open_reader(["url"], caption_files=[nothing], key_column="url")


def test_rows_without_a_key_or_a_caption_are_counted_apart_from_rejected_ones(tmp_path, caplog):
    rows = [{"key": f"{row}", "caption": "A boat.", "rejected_by": None} for row in range(4)]
    rows[0]["rejected_by"] = "refusal"
    rows[1]["caption"] = " "
    rows[2]["key"] = None
    files = [write(tmp_path / "long.parquet", rows)]
    open_reader(["id"], caption_files=files, key_column="id")
    assert "3 of 4 rows of `--caption_files" in caplog.text
    assert "are left out: 1 that rules reject ('rejected_by'), 2 without a key or a caption." in caplog.text


@pytest.mark.parametrize(
    ("num_keys", "named"), [(0, ""), (1, " (such as 'a')"), (6, " (such as 'a', 'b', 'c', 'd', 'e')")]
)
def test_a_few_examples_are_named(num_keys, named):
    assert caption_files.list_examples(list("abcdef")[:num_keys]) == named


@pytest.mark.parametrize("name", ["b.jsonl", "b*.jsonl"])
def test_each_pattern_of_caption_files_must_name_a_file(tmp_path, name):
    file = write_lines(tmp_path / "a.jsonl", [{"key": "1", "caption": "a boat"}])
    with pytest.raises(
        ValueError, match=f"`--caption_files .*{re.escape(name)}` cannot be read: there is no such file"
    ):
        CaptionFiles([file, str(tmp_path / name)], "key", ["caption"])


def test_whole_numbers_that_another_file_writes_as_decimals_are_the_same_keys(tmp_path):
    first = write_lines(tmp_path / "0.jsonl", [{"key": 1, "caption": "A boat."}])
    second = write_lines(tmp_path / "1.jsonl", [{"key": 2.0, "caption": "A car.", "rejected_by": None}])
    files = CaptionFiles([first, second], "key", ["caption"])
    assert files["1"] == ["A boat."]
    assert files["2"] == ["A car."]


def test_copies_of_an_image_that_were_captioned_alike_have_each_caption_once(tmp_path):
    texts = ["A boat.", "A ship.", "A boat.", None]
    rows = [{"key": "a", "caption": text, "other": "A ship."} for text in texts]
    files = CaptionFiles([write(tmp_path / "long.jsonl", rows)], "key", ["caption", "other"])
    assert files["a"] == ["A boat.", "A ship."]


def test_captions_that_a_row_has_itself_are_not_joined_again(tmp_path):
    rows = [{"key": "a", "caption": text} for text in ("A boat.", "A ship.")]
    files = [write(tmp_path / "long.jsonl", rows)]
    reader = open_reader(["key", "long_captions"], caption_files=files, key_column="key")
    row = {"key": "a", "long_captions": ["A boat.", "A boat.", "A sea."]}
    expected = ["A boat.", "A boat.", "A sea.", "A ship."]
    assert reader.long_captions(row) == expected
    assert reader.read_all_captions(0, row)[1] == expected
    reader.image_column = None
    assert [item.content for item in reader(0, row)] == ["A boat", "A boat", "A sea", "A ship"]


def write_hashed(path: Path, keys: list[str], hashes: list[str]) -> list[str]:
    """Writes captions with the hashes of their images."""
    rows = []
    for key, digest in zip(keys, hashes):
        rows.append({"key": key, "caption": f"A boat. {key}", "sha256": digest, "captioner": "llava"})
    return [write(path, rows)]


@pytest.mark.parametrize(
    ("keys", "image_hashes", "is_said"),
    [
        ("xxy", "abb", True),
        ("xxy", "aab", False),
        ("xxy", ["a", None, "b"], False),
        ("xxx", ["a", "b", None], True),  # the second one is in the other file, and so read at last
        ("xxx", ["a", "a", None], False),
    ],
)
def test_keys_with_captions_of_several_images_are_said(tmp_path, caplog, keys, image_hashes, is_said):
    logging.get_logger("transformers").warning_once.cache_clear()
    files = write_hashed(tmp_path / "long.jsonl", keys, image_hashes)
    CaptionFiles(files, "key", ["caption"]).check()
    said = "1 keys of `--caption_files` have captions of several images (such as 'x')"
    assert (said in caplog.text) == is_said


def test_hashes_of_other_programs_say_nothing_of_images(scenes, tmp_path, caplog):
    """As of img2dataset, whose column has that of the download, which it then resizes."""
    rows = []
    for number, url in enumerate([*URLS, URLS[0]]):
        rows.append({"key": url, "caption": "A boat. A car.", "sha256": f"{number}"})
    files = [write(tmp_path / "long.jsonl", rows)]
    reader = open_reader(scenes.column_names, caption_files=files, key_column="url")
    reader.report_keys(scenes)
    for index, row in enumerate(undecoded(scenes, "image")):
        list(reader(index, row))
    assert caplog.text == ""


@pytest.mark.parametrize("are_in_files", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
def test_images_that_are_not_those_of_captions_are_said(scenes, digests, tmp_path, caplog, is_stream, are_in_files):
    """As where two shards count their samples from 0, and the captions are those of the other one."""
    if are_in_files:
        images = []
        for index, row in enumerate(undecoded(scenes, "image")):
            (tmp_path / f"{index}.png").write_bytes(row["image"]["bytes"])
            images.append(str(tmp_path / f"{index}.png"))
        scenes = Dataset.from_dict({"image": images, "url": scenes["url"]})
        scenes = scenes.cast_column("image", Image())
    for name, shift in (("same", 0), ("other", 1)):
        files = write_hashed(tmp_path / f"{name}.jsonl", URLS, digests[shift:] + digests[:shift])
        reader = open_reader(scenes.column_names, caption_files=files, key_column="url")
        rows = undecoded(scenes, "image")
        if is_stream:
            rows = rows.to_iterable_dataset()
        caplog.clear()
        reader.report_keys(rows)
        for index, row in enumerate(rows):
            list(reader(index, row))
        if name == "same":
            assert caplog.text == ""
        elif is_stream:
            assert caplog.text.count(f"The image with the key {URLS[0]!r} is not the one") == 1
            assert caplog.text.count("is not the one that its captions") == 1
        else:
            assert "Of 24 images that were looked at, 24 are not those" in caplog.text
            assert "is not the one that its captions" not in caplog.text


def test_of_several_processes_the_first_one_says_it(scenes, digests, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RANK", "1")
    files = write_hashed(tmp_path / "long.jsonl", URLS, digests[1:] + digests[:1])
    reader = open_reader(scenes.column_names, caption_files=files, key_column="url")
    for index, row in enumerate(undecoded(scenes, "image")):
        list(reader(index, row))
    assert caplog.text == ""


def test_different_images_with_one_key_are_said(scenes, tmp_path, caplog):
    captions = [{"key": key, "caption": f"A boat. {key}"} for key in "abc"]
    files = [write(tmp_path / "long.jsonl", captions)]
    keys = list("abcab") + ["other"] * 19
    rows = scenes.select_columns("image").add_column("key", keys)
    reader = open_reader(["image", "key"], caption_files=files, key_column="key")
    reader.report_keys(rows.select(range(3)))
    assert "have the key of an earlier one" not in caplog.text
    same_image = rows.select([0, 0, 1, 1])
    reader.report_keys(same_image)
    assert "have the key of an earlier one" not in caplog.text
    reader.report_keys(rows)
    assert "2 of 24 images have the key of an earlier one." in caplog.text
    assert "Of 2 of them 2 are other images (such as 'a', 'b')" in caplog.text

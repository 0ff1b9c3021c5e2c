"""Shards keep the types of their JSON, and a damaged member is no end of a run."""

import io
import json
from pathlib import Path

import PIL.Image
import pytest

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_captions, read_key
from modeling_lotlip.data.shard_files import get_column_type
from tests.helpers.data_files import write_shard


both_ways = pytest.mark.parametrize("streaming", [False, True])


def make_jpeg() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (5, 4)).save(file, "JPEG")
    return file.getvalue()


JPEG = make_jpeg()


def make_sample(key: str, about: object = None) -> dict[str, bytes]:
    return {f"{key}.jpg": JPEG, f"{key}.txt": b"a boat", f"{key}.json": json.dumps(about).encode()}


def open_shard(path: Path, samples: list[dict[str, bytes]]) -> SourceArguments:
    """Writes a shard, and names it as a dataset."""
    write_shard(path, *samples)
    return SourceArguments("webdataset", data_files=[str(path)], image_column="jpg")


def read_rows(source: SourceArguments, streaming: bool) -> dict[str, dict]:
    source.streaming = streaming
    rows = undecoded(load_split(source, "train", key_column="json.id"), "jpg")
    return {row["__key__"]: row for row in rows}


@both_ways
@pytest.mark.parametrize("first", [0, 6])
def test_ids_that_are_texts_are_no_numbers(tmp_path, first, streaming):
    ids = [0, 1, 2, 3, 4, 5, 6]
    ids[first] = "007"
    samples = [make_sample(str(index), {"id": value}) for index, value in enumerate(ids)]
    rows = read_rows(open_shard(tmp_path / "0.tar", samples), streaming)
    assert [read_key(row, "json.id") for row in rows.values()] == [str(value) for value in ids]


BAD_MEMBERS = {
    "json": {"bad.json": b"{"},
    "json of another kind": {"bad.json": b"[1]"},
    "text that is not UTF-8": {"bad.txt": b"\xff\xfe"},
    "image": {"bad.jpg": b"jpeg"},
    "no image": {"bad.jpg": None},
    "no text": {"bad.txt": None},
    "one member more": {"bad.cls": b"3"},
}


@both_ways
@pytest.mark.parametrize("position", [0, 6])
@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_a_bad_sample_leaves_the_others_as_they_are(tmp_path, bad, position, streaming):
    good = [make_sample(str(index), {"id": index, "captions": ["a", "b"]}) for index in range(6)]
    expected = read_rows(open_shard(tmp_path / "0.tar", good), streaming)
    members = make_sample("bad", {"id": 9}) | BAD_MEMBERS[bad]
    members = {name: content for name, content in members.items() if content is not None}
    rows = read_rows(open_shard(tmp_path / "1.tar", [*good[:position], members, *good[position:]]), streaming)
    row = rows.pop("bad")
    for one in (*rows.values(), *expected.values()):
        del one["__url__"]  # the shards have different names
        one.pop("cls", None)
    assert rows == expected
    assert read_captions(row, "txt") == ([] if "bad.txt" in BAD_MEMBERS[bad] else ["a boat"])


def test_damaged_members_are_warned_of(tmp_path, caplog):
    samples = [make_sample("a"), make_sample("b") | {"b.txt": b"a car \xff", "b.json": b'{"a": 1'}]
    read_rows(open_shard(tmp_path / "0.tar", samples), streaming=False)
    assert "A text in a shard is not UTF-8, and is read as none" in caplog.text
    assert "A JSON file in a shard is damaged, and is read as none" in caplog.text


def test_a_member_has_the_type_of_its_ending():
    names = ("jpg", "caption.json", "TXT", "cls", "npy")
    types = [type(get_column_type(name)).__name__ for name in names]
    assert types == ["Image", "Json", "Value", "Value", "NoneType"]

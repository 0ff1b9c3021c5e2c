"""Shards keep the types of their JSON, and a damaged member is no end of a run."""

import bz2
import gzip
import io
import json
import lzma
import re
import subprocess
import tarfile
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import PIL.Image
import pytest
from datasets import Image, Json, Value
from transformers.utils import logging

from modeling_lotlip.data import shard_files
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import read_file, undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_captions, read_key
from modeling_lotlip.data.shard_files import decompress, get_column_type, logger
from tests.helpers.data_files import write_shard


both_ways = pytest.mark.parametrize("streaming", [False, True])


def make_jpeg() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (5, 4)).save(file, "JPEG")
    return file.getvalue()


def make_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(2))
    return file.getvalue()


JPEG = make_jpeg()
NPY = make_array()


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


@pytest.fixture
def write_elsewhere(monkeypatch):
    """Returns what writes a shard on another machine, and names it as a dataset."""
    # else nothing is downloaded, not from memory either
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)

    def write(content: bytes, name: str = "0.tar") -> SourceArguments:
        path = f"/{uuid4().hex}/{name}"  # a download is known by its name
        fsspec.filesystem("memory").pipe_file(path, content)
        return SourceArguments("webdataset", data_files=[f"memory:/{path}"], image_column="jpg")

    return write


@both_ways
@pytest.mark.parametrize("first", [0, 6])
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_ids_that_are_texts_are_no_numbers(tmp_path, write_elsewhere, is_elsewhere, first, streaming):
    ids = [0, 1, 2, 3, 4, 5, 6]
    ids[first] = "007"
    samples = [make_sample(str(index), {"id": value}) for index, value in enumerate(ids)]
    source = open_shard(tmp_path / "0.tar", samples)
    if is_elsewhere:
        source = write_elsewhere((tmp_path / "0.tar").read_bytes())
    rows = read_rows(source, streaming)
    assert [read_key(row, "json.id") for row in rows.values()] == [str(value) for value in ids]


@both_ways
def test_members_of_a_sample_in_several_parts_are_refused(tmp_path, streaming):
    images = [{f"{index}.jpg": JPEG} for index in range(3)]
    texts = [{f"{index}.txt": b"a boat"} for index in range(3)]
    with pytest.raises(ValueError, match="0.tar has the members of the sample 0 in several parts, with others"):
        read_rows(open_shard(tmp_path / "0.tar", images + texts), streaming)


@both_ways
def test_whole_samples_with_the_key_of_another_one_are_read(tmp_path, streaming):
    samples = [make_sample("0"), make_sample("1"), make_sample("0"), {"1.json": b"null"}, {"0.txt": b"a boat"}]
    source = open_shard(tmp_path / "0.tar", samples)
    source.streaming = streaming
    keys = [row["__key__"] for row in load_split(source, "train")]
    assert keys == ["0", "1", "0", "1", "0"]


@both_ways
def test_json_that_is_nothing_but_a_text_is_that_text(tmp_path, streaming):
    texts = ["007", "[1]", "A boat", "null", '"A"']
    samples = [make_sample(str(index), text) for index, text in enumerate(texts)]
    rows = read_rows(open_shard(tmp_path / "0.tar", samples), streaming)
    assert [row["json"] for row in rows.values()] == texts


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


@both_ways
@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ({"b.txt": b"a car \xff"}, "b.txt of .* a text that is not UTF-8"),
        ({"b.json": b"{"}, "b.json of .* damaged JSON"),
    ],
    ids=["text", "JSON"],
)
def test_damaged_members_are_warned_of(tmp_path, caplog, member, problem, streaming):
    read_rows(open_shard(tmp_path / "0.tar", [make_sample("a"), make_sample("b") | member]), streaming)
    assert re.search(f"Damaged texts and JSON in shards are read as none: {problem}", caplog.text)


def test_damaged_members_are_counted_whenever_their_rows_are_read(tmp_path, caplog):
    samples = [make_sample("a"), make_sample("b") | {"b.txt": b"a car \xff", "b.json": b"{"}]
    source = open_shard(tmp_path / "0.tar", samples)
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        logger.warning_once.cache_clear()  # as in another process
        read_rows(source, streaming=False)
        assert "2 texts and JSON files in shards are damaged" in caplog.text


def test_a_member_has_the_type_of_its_ending():
    names = ("jpg", "caption.json", "json.gz", "json.gzip", "TXT", "id", "cls", "npy", "gz", "txt.zip")
    text = Value("string")
    binary = Value("binary")
    expected = [Image(), Json(), Json(), Json(), text, text, Value("int64"), binary, binary, binary]
    assert [get_column_type(name) for name in names] == expected


@both_ways
def test_members_of_other_kinds_change_no_texts(tmp_path, streaming):
    """The first five samples do not say the types of the others."""
    captions = [["a boat", "a ship"]] * 6 + ["a boat", "007", None, []]
    samples = []
    for index, value in enumerate(captions):
        content = json.dumps(value).encode()
        others = {
            f"{index}.npy": NPY,
            f"{index}.id": b"%03d\n" % index,
            f"{index}.more.json.gz": gzip.compress(content),
        }
        samples.append(make_sample(str(index), value) | others)
    rows = read_rows(open_shard(tmp_path / "0.tar", samples), streaming)
    assert [row["json"] for row in rows.values()] == captions
    assert [row["more.json.gz"] for row in rows.values()] == captions
    assert [row["id"] for row in rows.values()] == [f"{index:03}" for index in range(10)]
    assert {row["npy"] for row in rows.values()} == {NPY}


@both_ways
def test_columns_are_those_of_all_shards(tmp_path, streaming):
    """The first one has no long captions."""
    long_caption = {"b.long.txt": b"A boat. It is red."}
    write_shard(tmp_path / "0.tar", make_sample("a"))
    write_shard(tmp_path / "1.tar", make_sample("b") | long_caption)
    source = SourceArguments("webdataset", data_files=[str(tmp_path / "*.tar")], image_column="jpg")
    rows = read_rows(source, streaming)
    assert {key: row["long.txt"] for key, row in rows.items()} == {"a": None, "b": "A boat. It is red."}


def write_shard_splits(
    folder: Path, train: dict[str, bytes], test: dict[str, bytes], streaming: bool
) -> SourceArguments:
    """Writes a folder with a shard of one sample for each split, and names it as a dataset."""
    for split, sample in {"train": train, "test": test}.items():
        (folder / split).mkdir()
        write_shard(folder / split / "0.tar", sample)
    return SourceArguments(str(folder), image_column="jpg", streaming=streaming)


@both_ways
@pytest.mark.parametrize("split", ["train", "test", "train+test"])
def test_columns_are_those_of_the_shards_of_all_splits(tmp_path, split, streaming):
    without = {"b.txt": b"a car", "b.jpg": JPEG}
    source = write_shard_splits(tmp_path, make_sample("a", {"id": "007"}), without, streaming)
    rows = undecoded(load_split(source, split), "jpg")
    abouts = {row["__key__"]: row["json"] for row in rows}
    expected = {"a": {"id": "007"}, "b": None}
    for key, other_split in {"a": "test", "b": "train"}.items():
        if split == other_split:
            del expected[key]
    assert abouts == expected


@both_ways
@pytest.mark.parametrize("split", ["train", "test"])
def test_members_of_other_types_may_be_in_one_split_alone(tmp_path, split, streaming):
    with_array = make_sample("a", {"id": "007"}) | {"a.npy": NPY}
    source = write_shard_splits(tmp_path, with_array, make_sample("b", {"id": "007"}), streaming)
    (row,) = undecoded(load_split(source, split), "jpg")
    assert (row["__key__"], row.get("npy")) == {"train": ("a", NPY), "test": ("b", None)}[split]


@both_ways
@pytest.mark.parametrize("other_members", [False, True])
def test_a_member_that_would_be_lost_is_named(tmp_path, monkeypatch, other_members, streaming):
    monkeypatch.setattr(shard_files, "NUM_MEMBERS", 4)
    monkeypatch.setattr(shard_files, "NUM_MEMBERS_OF_OTHERS", 4)
    samples = [make_sample(str(index)) for index in range(NUM_SAMPLES)]
    if other_members:
        samples = [sample | {f"{index}.npy": NPY} for index, sample in enumerate(samples)]
    write_shard(tmp_path / "0.tar", *samples)
    write_shard(tmp_path / "1.tar", *samples, samples[0] | {"0.long.txt": b"A boat."})
    source = SourceArguments("webdataset", data_files=[str(tmp_path / "*.tar")], image_column="jpg")
    with pytest.raises(ValueError, match=r"The shard .*1\.tar has a member 0\.long\.txt, but .* would be lost"):
        read_rows(source, streaming)


NUM_SAMPLES = 6


def write_six_samples(path: Path) -> bytes:
    """Writes a shard of six samples, and returns its content."""
    return write_shard(path, *(make_sample(str(index)) for index in range(NUM_SAMPLES))).read_bytes()


def damage_header(content: bytes, path: Path, member: int, how: str) -> None:
    """Writes a shard in which the header of a member is damaged."""
    path.write_bytes(content)
    with tarfile.open(path) as tar:
        start = tar.getmembers()[member].offset
    damaged = bytearray(content)
    if how == "one byte":
        damaged[start + 150] ^= 0xFF
    if how == "zeros":
        damaged[start : start + 1024] = bytes(1024)
    path.write_bytes(damaged)


@both_ways
@pytest.mark.parametrize("other_members", [False, True])
@pytest.mark.parametrize("how", ["one byte", "zeros"])
def test_a_damaged_header_is_no_end_of_a_shard(tmp_path, monkeypatch, how, other_members, streaming):
    monkeypatch.setattr(shard_files, "NUM_MEMBERS", 4)  # the damage is in none of these
    samples = [make_sample(str(index)) for index in range(NUM_SAMPLES)]
    damaged = 7
    if other_members:
        samples = [sample | {f"{index}.npy": NPY} for index, sample in enumerate(samples)]
        damaged = 21
    content = write_shard(tmp_path / "0.tar", *samples).read_bytes()
    damage_header(content, tmp_path / "0.tar", damaged, how)
    source = SourceArguments("webdataset", data_files=[str(tmp_path / "0.tar")], image_column="jpg")
    with pytest.raises(
        ValueError, match=r"The shard .*0.tar cannot be read after byte \d+: a member there is damaged"
    ):
        read_rows(source, streaming)


def write_shard_with_a_link(folder: Path, link_type: bytes, name: str) -> SourceArguments:
    """As `tar` writes a folder in which a file is a link to another one, of whatever name."""
    with tarfile.open(folder / "0.tar", "w") as tar:
        for member, content in make_sample("0").items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo(name)
        link.type = link_type
        link.linkname = "0.jpg"
        tar.addfile(link)
    return SourceArguments("webdataset", data_files=[str(folder / "0.tar")], image_column="jpg")


@both_ways
@pytest.mark.parametrize("link_type", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_in_a_shard_is_no_sample_that_is_lost(tmp_path, link_type, streaming):
    source = write_shard_with_a_link(tmp_path, link_type, "1.jpg")
    with pytest.raises(ValueError, match=r"The shard .*0.tar has a link in place of the file 1.jpg.*--hard-deref"):
        read_rows(source, streaming)


@pytest.mark.parametrize("name", ["folder", ".hidden.jpg"])
def test_a_link_in_a_shard_that_is_no_sample_is_passed_over(tmp_path, name):
    source = write_shard_with_a_link(tmp_path, tarfile.SYMTYPE, name)
    assert list(read_rows(source, streaming=False)) == ["0"]


def test_two_shards_in_one_file_are_refused(tmp_path):
    content = write_six_samples(tmp_path / "0.tar")
    (tmp_path / "0.tar").write_bytes(content + content)
    source = SourceArguments("webdataset", data_files=[str(tmp_path / "0.tar")], image_column="jpg")
    with pytest.raises(ValueError, match="or two tar files were put together"):
        read_rows(source, streaming=False)


@both_ways
@pytest.mark.parametrize(
    ("name", "compression"),
    [("0.tar.gz", gzip), ("0.tgz", gzip), ("0.tar.bz2", bz2), ("0.tar.xz", lzma), ("0.tar", gzip)],
)
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_compressed_shard_is_read(tmp_path, write_elsewhere, name, compression, is_elsewhere, streaming):
    content = compression.compress(write_six_samples(tmp_path / "0.tar"))
    (tmp_path / name).write_bytes(content)
    source = SourceArguments("webdataset", data_files=[str(tmp_path / name)], image_column="jpg")
    if is_elsewhere:
        source = write_elsewhere(content, name)
    assert list(read_rows(source, streaming)) == ["0", "1", "2", "3", "4", "5"]


def test_a_compressed_shard_that_was_cut_off_is_named(tmp_path):
    content = gzip.compress(write_six_samples(tmp_path / "0.tar"))
    (tmp_path / "0.tar.gz").write_bytes(content[: len(content) * 2 // 3])
    source = SourceArguments("webdataset", data_files=[str(tmp_path / "0.tar.gz")], image_column="jpg")
    with pytest.raises(ValueError, match=r"The shard .*0.tar.gz cannot be read"):
        read_rows(source, streaming=False)


@both_ways
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_an_image_is_not_the_file_of_its_name_in_the_working_directory(
    tmp_path, monkeypatch, write_elsewhere, is_elsewhere, streaming
):
    content = write_six_samples(tmp_path / "0.tar")
    source = SourceArguments("webdataset", data_files=[str(tmp_path / "0.tar")], image_column="jpg")
    if is_elsewhere:
        source = write_elsewhere(content)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/1.jpg").write_bytes(b"another image")
    monkeypatch.chdir(tmp_path / "here")
    rows = read_rows(source, streaming)
    assert [read_file(row["jpg"]) for row in rows.values()] == NUM_SAMPLES * [JPEG]


DAMAGES = {
    "cut off before a member": "was cut off",
    "cut off in a header": r"cannot be read after byte \d+",
    "cut off in a member": "cannot be read: unexpected end of data",
    "a damaged header": r"cannot be read after byte \d+",
    "two in one": r"cannot be read after byte \d+",
    "compressed and cut off": "cannot be read: Compressed file ended",
    "compressed, and two in one": r"cannot be read after byte \d+",
    "compressed, and a false sum": "cannot be read: CRC check failed .* Write it anew",
}


@both_ways
@pytest.mark.parametrize(("damage", "message"), DAMAGES.items())
def test_a_damaged_shard_elsewhere_is_no_end_of_its_samples(tmp_path, write_elsewhere, damage, message, streaming):
    path = tmp_path / "0.tar"
    content = write_six_samples(path)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-3]  # the image of the last sample
    if damage == "cut off before a member":
        content = content[: last.offset]
    elif damage == "cut off in a header":
        content = content[: last.offset + 100]
    elif damage == "cut off in a member":
        content = content[: last.offset_data + 10]
    elif damage == "a damaged header":
        damage_header(content, path, -3, "one byte")
        content = path.read_bytes()
    elif damage == "compressed and cut off":
        content = gzip.compress(content)[:-20]
    elif damage == "compressed, and a false sum":
        content = gzip.compress(content)
        content = content[:-8] + bytes([content[-8] ^ 0xFF]) + content[-7:]
    elif damage == "compressed, and two in one":
        content = gzip.compress(content + content)
    else:
        content = content + content
    with pytest.raises(ValueError, match=f"The shard memory:///?[0-9a-f]+/shard {message}"):
        read_rows(write_elsewhere(content, "shard"), streaming)  # by its content alone


@both_ways
@pytest.mark.parametrize("content", [b"", b"<html>" + 1000 * b" "])
def test_a_page_in_place_of_a_shard_elsewhere_is_named(write_elsewhere, content, streaming):
    with pytest.raises(ValueError, match=r"The shard memory:.*/shard cannot be read: .*Write it anew"):
        read_rows(write_elsewhere(content, "shard"), streaming)


@both_ways
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_sparse_file_at_the_end_is_read(tmp_path, write_elsewhere, is_elsewhere, streaming):
    (tmp_path / "0.jpg").write_bytes(JPEG)
    with open(tmp_path / "0.txt", "wb") as file:
        file.truncate(2**20)
        file.write(b"A boat.")
    path = tmp_path / "0.tar"
    subprocess.run(["tar", "--sparse", "-cf", path, "0.jpg", "0.txt"], cwd=tmp_path, check=True)
    source = SourceArguments("webdataset", data_files=[str(path)], image_column="jpg")
    if is_elsewhere:
        source = write_elsewhere(path.read_bytes())
    source.streaming = streaming
    (row,) = load_split(source, "train")
    assert row["txt"].strip("\0") == "A boat."


def test_a_name_that_begins_as_a_compressed_file_is_one(tmp_path):
    source = open_shard(tmp_path / "0.tar", [make_sample("BZhang_0")])
    assert list(read_rows(source, streaming=True)) == ["BZhang_0"]


def test_of_a_stream_that_comes_in_small_parts_all_is_read(tmp_path):
    class Parts(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3) if size > 0 else size)

    content = write_six_samples(tmp_path / "0.tar")
    for written in (content, gzip.compress(content), bz2.compress(content)):
        file = decompress(Parts(written))
        with tarfile.open(fileobj=file, mode="r|") as tar:
            names = tar.getnames()
        assert len(names) == 3 * NUM_SAMPLES
        assert b"".join(file.iterate_rest(tar.offset)).strip(b"\0") == b""


@both_ways
def test_members_of_a_sample_elsewhere_in_several_parts_are_refused(tmp_path, write_elsewhere, streaming):
    samples = [make_sample(str(index)) for index in range(NUM_SAMPLES)]
    parts = [{"a.jpg": JPEG}, {"b.jpg": JPEG}, {"a.txt": b"a boat"}, {"b.txt": b"a boat"}]
    source = write_elsewhere(write_shard(tmp_path / "0.tar", *samples, *parts).read_bytes())
    with pytest.raises(ValueError, match="The shard memory:.*0.tar has the members of the sample a in several parts"):
        read_rows(source, streaming)


@both_ways
def test_samples_elsewhere_may_have_many_members(tmp_path, write_elsewhere, streaming):
    texts = {f"0.{number}.txt": b"a boat" for number in range(30)}
    source = write_elsewhere(write_shard(tmp_path / "0.tar", texts | {"0.jpg": JPEG}).read_bytes())
    (row,) = read_rows(source, streaming).values()
    assert read_file(row["jpg"]) == JPEG
    assert [row[f"{number}.txt"] for number in range(30)] == 30 * ["a boat"]


@pytest.mark.parametrize("ways", [[True], [False, False, True]], ids=["a stream", "rows, from the cache, a stream"])
def test_a_member_of_later_samples_elsewhere_is_named(tmp_path, write_elsewhere, ways, caplog):
    samples = [make_sample(str(index)) for index in range(22)]
    samples[21] |= {"21.caption.json": b"{}", "21.more.txt": b"A boat.", "21.__more": b""}
    source = write_elsewhere(write_shard(tmp_path / "0.tar", *samples).read_bytes())
    for streaming in ways:
        caplog.clear()
        logger.warning_once.cache_clear()  # as in another process
        assert len(read_rows(source, streaming)) == 22
        left_out = re.findall(r"left out: \.(\S+), as of 21\.", caplog.text)
        assert left_out == ["caption.json", "more.txt", "__more"]


@both_ways
def test_images_of_another_ending_are_named(tmp_path, streaming, caplog):
    source = open_shard(tmp_path / "0.tar", [make_sample("0"), {"1.jpeg": JPEG, "1.txt": b"a boat"}])
    logging.get_logger("transformers").warning_once.cache_clear()
    assert read_rows(source, streaming)["1"]["jpg"] is None
    assert "Shards have images that end in .jpeg, which `--image_column jpg` does not read" in caplog.text

"""What a table knows of the files of images."""

import os
import struct
from datetime import datetime

import PIL.Image
import pyarrow as pa
import pytest

from modeling_lotlip.data.images import SAFE_FORMATS, UnreadableImageError
from modeling_lotlip.data.reader import RowInfo
from modeling_lotlip.encoder.batches import TableReader, describe_file, sign_file
from modeling_lotlip.table.schema import COLUMNS, SIGNATURE
from modeling_lotlip.utils.files import hash_bytes, hash_file
from tests.helpers import photographs


@pytest.mark.parametrize("seconds", [0, 1_700_000_000, 2**34, -(2**33), 2**40])
def test_every_time_of_a_file_can_be_stored(tmp_path, seconds):
    """Up to the year 36812: some cameras and archives have such."""
    path = tmp_path / "image.png"
    path.write_bytes(b"content")
    try:
        os.utime(path, (seconds, seconds))
    except (OSError, OverflowError):
        status = os.stat_result((0, 0, 0, 0, 0, 0, 7, 0, seconds, 0))
    else:
        status = path.stat()
    signature = sign_file(status)
    for name in SIGNATURE:
        assert pa.array([signature[name]], COLUMNS[name])[0].is_valid


def test_the_signature_of_a_file_changes_with_its_name(tmp_path):
    """On Linux and macOS; on Windows a file has the time at which it was made, which goes with it."""
    path = tmp_path / "image.png"
    path.write_bytes(b"content")
    before = sign_file(path.stat())
    path.rename(tmp_path / "renamed.png")
    after = sign_file((tmp_path / "renamed.png").stat())
    assert after["modified"] == before["modified"]
    assert after["changed"] > before["changed"]


def test_a_file_is_described_as_it_is_seen():
    exif = photographs.turned(6)
    exif[0x0132] = "2024:05:31 12:00:00"
    content = photographs.encode(photographs.make_picture(40, 30), "jpeg", exif=exif)
    facts = {"hash": hash_bytes(content), "width": 30, "height": 40, "taken": datetime(2024, 5, 31, 12)}
    assert describe_file(content) == facts


def test_sides_that_no_table_can_store_are_left_out():
    entries = struct.pack("<2sHIH", b"II", 42, 8, 2)
    entries += struct.pack("<HHII", 256, 4, 1, 2**32 - 1) + struct.pack("<HHII", 257, 4, 1, 2**32 - 1)
    content = entries + bytes(4)
    assert describe_file(content).keys() <= {"hash", "taken"}


def test_of_a_format_that_is_not_read_the_hash_is_known():
    content = photographs.encode(photographs.make_picture(), "ppm")
    assert describe_file(content, SAFE_FORMATS) == {"hash": hash_bytes(content)}


def test_a_file_is_hashed_as_its_content(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.utils.files.BYTES_AT_ONCE", 7)
    (tmp_path / "file").write_bytes(bytes(range(100)))
    assert hash_file(tmp_path / "file") == hash_bytes(bytes(range(100)))


def test_an_image_comes_with_what_is_known_of_its_file(tmp_path):
    path = tmp_path / "image.png"
    PIL.Image.new("RGB", (20, 10)).save(path)
    (item,) = TableReader(["image"])(RowInfo(3, "key"), {"image": {"path": str(path), "bytes": None}})
    assert item.row_key.key == "key"
    assert item.row_key.file_facts.keys() == {*SIGNATURE, "hash", "width", "height", "taken"}
    assert item.row_key.file_facts["size"] == path.stat().st_size
    assert item.content.size == (20, 10)


def test_a_reader_of_some_formats_refuses_the_others():
    image = {"bytes": photographs.encode(photographs.make_picture(), "ppm"), "path": None}
    assert len(list(TableReader(["image"])(RowInfo(0, 0), {"image": image}))) == 1
    with pytest.raises(UnreadableImageError, match="it is none of JPEG"):
        list(TableReader(["image"], formats=SAFE_FORMATS)(RowInfo(0, 0), {"image": image}))

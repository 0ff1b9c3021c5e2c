"""Captions on disk."""

from accelerate import PartialState

from modeling_lotlip.captioning.records import SCHEMA, Records
from tests.helpers.captioners import list_shards, read_records


def make_record(key: str) -> dict:
    return {**dict.fromkeys(SCHEMA.names), "key": key, "captioner": "llava", "caption": f"a caption of {key}"}


def test_no_file_of_an_earlier_run_is_overwritten(tmp_path):
    """The number of the next file is above the highest, also where files before it are gone."""
    records = Records(tmp_path, 1, PartialState(cpu=True))
    for key in "abc":
        records.add(make_record(key))
    list_shards(tmp_path)[0].unlink()  # as `remove_failed` does where all of its rows failed
    records = Records(tmp_path, 1, PartialState(cpu=True))
    assert records.done == {"llava": {"b", "c"}}
    for key in "de":
        records.add(make_record(key))
    assert [path.name for path in list_shards(tmp_path)] == [f"captions-{n:06}-000.parquet" for n in (1, 2, 3, 4)]
    assert [row["key"] for row in read_records(tmp_path)] == ["b", "c", "d", "e"]


def test_files_are_written_when_they_are_full_and_at_the_end(tmp_path):
    records = Records(tmp_path, 2, PartialState(cpu=True))
    records.add(make_record("a"))
    assert list_shards(tmp_path) == []
    records.add(make_record("b"))
    records.add(make_record("c"))
    assert [row["key"] for row in read_records(tmp_path)] == ["a", "b"]
    records.write()
    records.write()
    assert [row["key"] for row in read_records(tmp_path)] == ["a", "b", "c"] and len(list_shards(tmp_path)) == 2

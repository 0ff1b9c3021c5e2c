"""Captions on disk."""

import pytest

from modeling_lotlip.captioning.records import DATABASE, SCHEMA, Records, open_database, summarize
from tests.helpers.captioners import list_shards, read_records


def make_record(key: str, **values: object) -> dict:
    record = {**dict.fromkeys(SCHEMA.names), "key": key, "captioner": "llava", "caption": f"a caption of {key}"}
    return record | {"sha256": 64 * "a", "num_tokens": 4} | values


def add(folder, records: list[dict], shard_size: int = 4) -> None:
    """As a run does that ends by itself."""
    with open_database(folder) as connection:
        table = Records(connection, folder, shard_size)
        for record in records:
            table.add(record)
        table.write()


def test_files_hold_the_rows_in_their_order_whatever_run_added_them(tmp_path):
    for keys in ("abc", "d", "efgh", "i", "ab"):
        add(tmp_path, [make_record(key) for key in keys])
    assert read_records(tmp_path) == [make_record(key) for key in "abcdefghi"]
    assert [path.name for path in list_shards(tmp_path)] == [f"captions-{n:06d}.parquet" for n in range(3)]


def test_full_files_are_written_during_a_run(tmp_path):
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 2)
        for key in "abc":
            records.add(make_record(key))
        assert [row["key"] for row in read_records(tmp_path)] == ["a", "b"]


def test_what_a_killed_run_committed_is_written_by_the_next(tmp_path):
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 100)
        for key in "ab":
            records.add(make_record(key))
        records.commit()
    assert list_shards(tmp_path) == []
    add(tmp_path, [make_record("c")], shard_size=100)
    assert [row["key"] for row in read_records(tmp_path)] == ["a", "b", "c"]


def test_processes_add_to_one_table(tmp_path):
    with open_database(tmp_path) as one, open_database(tmp_path) as other:
        records = [Records(connection, tmp_path, 3) for connection in (one, other)]
        for number, key in enumerate("abcdefgh"):
            records[number % 2].add(make_record(key))
        for each in records:
            each.write()
    assert sorted(row["key"] for row in read_records(tmp_path)) == list("abcdefgh") and len(list_shards(tmp_path)) == 3


def test_a_captioner_has_one_record_of_a_key_the_last(tmp_path):
    failed = {"caption": None, "error": "the server failed"}
    add(tmp_path, [make_record("a", **failed), make_record("b"), make_record("a", captioner="blip", **failed)], 1)
    with open_database(tmp_path) as connection:
        told = "llava: 1 captions, 0 of them rejected by rules, 1 failures (such as 'the server failed'); `--retry"
        assert next(line for line in summarize(connection) if line.startswith("llava")).startswith(told)
    add(tmp_path, [make_record("a")], 1)
    rows = {(row["key"], row["captioner"]): row["error"] for row in read_records(tmp_path)}
    assert rows == {("a", "llava"): None, ("b", "llava"): None, ("a", "blip"): "the server failed"}


def test_half_a_pair_of_surrogates_is_no_end_of_a_run(tmp_path):
    add(tmp_path, [make_record("a", caption="a \ud83d boat \u2028 é")])
    assert read_records(tmp_path)[0]["caption"] == "a ? boat \u2028 é"


def test_a_damaged_table_is_one_line(tmp_path):
    (tmp_path / DATABASE).write_bytes(b"no database " * 100)
    with pytest.raises(OSError, match=f"{tmp_path}/captions.sqlite: file is not a database"):
        add(tmp_path, [])


def test_files_without_their_table_are_not_overwritten(tmp_path):
    add(tmp_path, [make_record("a")])
    (tmp_path / DATABASE).unlink()
    with pytest.raises(ValueError, match=r"holds captions-000000.parquet, but not captions.sqlite"):
        add(tmp_path, [make_record("b")])
    assert read_records(tmp_path) == [make_record("a")]

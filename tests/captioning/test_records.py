"""Captions on disk."""

from types import SimpleNamespace

from accelerate import PartialState

from modeling_lotlip.captioning.photos import falls_to
from modeling_lotlip.captioning.records import (
    SCHEMA,
    Records,
    commit_journals,
    list_journals,
    read_shard,
    remove_failed,
    summarize,
)
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
    assert [records.known.is_done(key, "llava") for key in "abc"] == [False, True, True]
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
    assert list_journals(tmp_path) == []


def test_the_last_file_is_filled_up_by_the_next_run(tmp_path):
    """Not a file for each run, whatever ends it."""
    for keys in ("abc", "d", "efgh", "i"):
        records = Records(tmp_path, 4, PartialState(cpu=True))
        for key in keys:
            records.add(make_record(key))
        records.write()
    assert [[row["key"] for row in read_shard(path, ["key"])] for path in list_shards(tmp_path)] == [
        list("abcd"),
        list("efgh"),
        ["i"],
    ]


def test_a_record_is_on_the_disk_when_it_is_added(tmp_path):
    """A killed run leaves a journal, whose last line may be torn off: what it has is not captioned again."""
    records = Records(tmp_path, 100, PartialState(cpu=True))
    records.add(make_record("a"))
    records.write()
    records = Records(tmp_path, 100, PartialState(cpu=True))
    for key in "bc":
        records.add(make_record(key))
    (journal,) = list_journals(tmp_path)  # all that a killed run leaves
    whole = journal.read_bytes()
    for torn in (b"", b'{"key": "d", "capt', whole.splitlines()[0][:-1]):
        journal.write_bytes(whole + torn)
        commit_journals(tmp_path)
        assert [row["key"] for row in read_records(tmp_path)] == ["a", "b", "c"] and not journal.exists()
        assert read_records(tmp_path)[1] == make_record("b")
    # killed between the two: the shard has the rows, the journal is still there
    journal.write_bytes(whole)
    commit_journals(tmp_path)
    assert [row["key"] for row in read_records(tmp_path)] == ["a", "b", "c"] and not journal.exists()
    journal.write_bytes(whole[:20])
    commit_journals(tmp_path)
    assert len(read_records(tmp_path)) == 3 and not journal.exists()


def test_half_a_pair_of_surrogates_is_no_end_of_a_run(tmp_path):
    records = Records(tmp_path, 100, PartialState(cpu=True))
    records.add(make_record("a") | {"caption": "a \ud83d boat \u2028 é"})
    records.write()
    assert read_records(tmp_path)[0]["caption"] == "a ? boat \u2028 é"


def test_a_process_remembers_the_images_of_its_share_alone(tmp_path):
    records = Records(tmp_path, 5, PartialState(cpu=True))
    digests = {f"{number}.jpg": f"{number:064x}"[::-1] for number in range(20)}
    for key, digest in digests.items():
        records.add({**make_record(key), "sha256": digest})
    states = [SimpleNamespace(num_processes=2, process_index=process_index) for process_index in (0, 1)]
    shares = [Records(tmp_path, 5, state) for state in states]
    for state, records in zip(states, shares):
        own = {key for key in digests if falls_to(state, key)}
        assert {key for key in digests if records.known.is_done(key, "llava")} == own and 0 < len(own) < 20
        assert {key for key in digests if records.known.has_digest(key, digests[key])} == own
        assert len(records.known) == records.known.count("llava") == len(own)
        records.add(make_record("new"))
        records.write()
    *_, first, second = list_shards(tmp_path)
    assert (first.name, second.name) == ("captions-000004-000.parquet", "captions-000004-001.parquet")


def test_failures_of_the_captioners_that_are_named_are_removed(tmp_path):
    records = Records(tmp_path, 3, PartialState(cpu=True))
    failed = {"caption": None, "error": "the server failed"}
    for key in "abc":
        records.add({**make_record(key), **failed})
    records.add(make_record("d"))
    records.add({**make_record("e"), **failed})
    records.add({**make_record("e"), **failed, "captioner": "blip"})
    told = (
        "llava: 1 captions, 0 of them rejected by rules, 4 failures (such as 'the server failed'); `--retry_failed` "
    )
    assert summarize(tmp_path).startswith(told) and len(list_shards(tmp_path)) == 2
    assert remove_failed(tmp_path, ["llava"]) == 4
    assert [(row["key"], row["captioner"]) for row in read_records(tmp_path)] == [("d", "llava"), ("e", "blip")]
    assert len(list_shards(tmp_path)) == 1 and remove_failed(tmp_path, ["llava"]) == 0

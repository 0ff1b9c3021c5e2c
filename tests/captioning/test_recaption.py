"""Captions for a dataset: what is recorded, tried again and refused, and how they are kept."""

import hashlib
import sqlite3
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from datasets import Dataset
from pyarrow import parquet
from tqdm.auto import tqdm

from modeling_lotlip.captioning import recaption
from modeling_lotlip.captioning.answer import Answer
from modeling_lotlip.captioning.arguments import RecaptionArguments, RuleArguments
from modeling_lotlip.captioning.image_files import ImageFile
from modeling_lotlip.captioning.recaption import (
    CaptionerOutcome,
    apply_rules_to_answer,
    count_images,
    record_answers,
    refuse_failures,
)
from modeling_lotlip.captioning.records import (
    DATABASE,
    SCHEMA,
    Records,
    describe_captioner,
    hash_caption,
    open_database,
    summarize,
)
from modeling_lotlip.captioning.rules import RULES
from modeling_lotlip.data.arguments import TrainSplitArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.utils.output_folder import OutputFolder, read_stored, write_stored
from tests.conftest import run_together
from tests.helpers.captioners import hash_photos, list_shards, of_folder, read_records
from tests.helpers.chat_server import serve
from tests.helpers.commands import to_argv


BOAT = "A red boat lies on the beach. The sea is calm."
PROMPTS = [
    "Describe what you see here",
    "Describe in long",
    "what is in the red house on the sand by the sea",
]


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def answer_with(content: str, **fields: str) -> tuple[int, dict]:
    """The status and the body of an answer of the server, with further fields of its only choice."""
    choice = {"message": {"content": content}, **fields}
    return 200, {"choices": [choice]}


def test_draws_of_prompts_depend_on_seed_captioner_and_image_alone():
    prompts = [f"prompt {number}" for number in range(1000)]
    draws = [(0, "a.jpg", "llava"), (0, "a.jpg", "llava"), (1, "a.jpg", "llava"), (0, "b.jpg", "llava")]
    draws += [(0, "a.jpg", "x")]
    first, same, *others = (recaption.sample_prompt(prompts, *draw) for draw in draws)
    assert first == same
    assert len({first, *others}) == 4
    prompts = recaption.read_prompts()
    sampled = {recaption.sample_prompt(prompts, 0, f"{number}.jpg", "llava") for number in range(100)}
    assert len(prompts) == 8
    assert sampled == set(prompts)


def test_prompts_are_the_lines_of_a_file_without_comments(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\n\n  What is there? \nHow many?\n", encoding="utf-8-sig")  # as Windows writes it
    assert recaption.read_prompts(file) == ["What is there?", "How many?"]
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match=f"`--prompts_file {file}` has no prompt: write one in each line."):
        recaption.read_prompts(file)


def test_what_cannot_be_captioned_is_recorded_and_tried_again(caption, photos, llava, tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    good = (photos / "1.png").read_bytes()
    contents = {
        "a.png": good,
        "again.png": good,
        "no image.jpg": b"text",
        "cut.png": good[:300],
        "empty.png": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    rows = {row["key"]: row for row in caption("out", llava, **of_folder(folder))}
    assert rows.keys() == contents.keys()
    assert rows["a.png"]["caption"]
    assert not rows["a.png"]["error"]
    for name in ("no image.jpg", "cut.png", "empty.png"):
        assert rows[name]["caption"] is None
        assert rows[name]["error"].startswith("the image cannot be read: ")
        assert rows[name]["sha256"] == hashlib.sha256(contents[name]).hexdigest()
        assert rows[name]["num_tokens"] == 0
    assert "2 captions, 0 of them rejected by rules, 3 failures" in capsys.readouterr().out

    there = str(folder / "a.png")
    gone = str(tmp_path / "gone.png")
    Dataset.from_dict({"image": [there, gone, None]}).save_to_disk(tmp_path / "gone")
    records = caption("gone_out", llava, dataset_name=str(tmp_path / "gone"))
    errors = {row["key"]: row["error"] for row in records}
    assert errors.keys() == {there, gone, "row 2"}
    assert errors[there] is None
    assert errors["row 2"] == "there is no image"
    assert "No such file" in errors[gone]

    same = caption("out", llava, **of_folder(folder))
    assert same == list(rows.values()), "nothing is done twice"
    (folder / "cut.png").write_bytes((photos / "2.png").read_bytes())
    again = {row["key"]: row for row in caption("out", llava, **of_folder(folder), retry_failed=True)}
    assert len(read_records(tmp_path / "out")) == len(contents)
    assert again["cut.png"]["caption"]
    assert again["empty.png"]["error"]
    assert again["a.png"] == rows["a.png"]


def test_other_settings_are_refused_in_the_same_folder(caption, photos, llava, tmp_path, monkeypatch):
    options = {**of_folder(photos), "prompt": PROMPTS, "without_rules": ["lists"]}
    rows = caption("out", llava, **options)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").symlink_to(photos)
    others = {
        "prompt": ["Other"],
        "max_new_tokens": 3,
        "data_dir": "elsewhere",
        "train_split": "train[:3]",
        "seed": 1,
        "key_column": "image",
        "dtype": "bfloat16",
        "without_rules": ["refusal"],
        "min_words": 7,
    }
    for name, value in others.items():
        with pytest.raises(ValueError, match=f"holds captions with {name}s? = "):
            caption("out", llava, **options | {name: value})
    assert read_records(tmp_path / "out") == rows


def test_rules_mend_and_mark_what_is_written(caption, photos, tmp_path, capsys):
    digests = hash_photos(photos)
    names = sorted(digests)
    answers = dict.fromkeys(names, "The image shows a red boat on the sand. The sea is calm. In the")
    answers[names[1]] = "I'm sorry, but I cannot see the image."
    faults = {digests[name]: [answer_with(answer)] for name, answer in answers.items()}
    with serve(faults) as server:
        rows = caption("out", "model", endpoint=server.url, **of_folder(photos), without_rules=[])
    rejected = {row["key"]: row["caption"] for row in rows if row["rejected_by"]}
    assert rejected == {names[1]: answers[names[1]]}
    others = {row["caption"] for row in rows if row["rejected_by"] is None}
    assert others == {"A red boat on the sand. The sea is calm."}
    assert len(rows) == len(names)
    changed = len(names) - 1
    lines = capsys.readouterr().out.splitlines()
    for rule in ("announcement", "cut_off"):
        assert f"model: {changed} captions of this run were changed by the rule {rule}." in lines
    assert lines[-1] == f"model: {len(names)} captions, 1 of them rejected by rules {{'refusal': 1}}, 0 failures."


@pytest.mark.processes
def test_two_processes_caption_each_image_once(llava, tmp_path):
    argv = to_argv(
        "recaption",
        output_dir=tmp_path / "out",
        captioner=llava,
        max_train_samples=12,
        max_new_tokens=12,
        batch_size=2,
        shard_size=4,
        device="cpu",
    )
    run_together(tmp_path / "log", 2, argv)
    files = [row["image"]["bytes"] for row in undecoded(load_scenes(12), "image")]
    digests = [hashlib.sha256(file).hexdigest() for file in files]
    assert sorted(row["key"] for row in read_records(tmp_path / "out")) == sorted(digests)


def test_answers_that_were_cut_off_or_filtered_are_no_captions(caption, photos, tmp_path):
    answers = [
        ("stop", f"{BOAT} Behind it lies a net", f"{BOAT} Behind it lies a net", None),
        ("length", f"{BOAT} Behind it", BOAT, None),
        ("length", BOAT, BOAT, None),
        ("length", "- A red boat lies on the beach\n- The sea is ca", "- A red boat lies on the beach", None),
        ("length", "A red boat that lies on", "A red boat that lies on", "cut_off"),
        ("content_filter", BOAT, None, None),
    ]
    faults = {}
    expected = {}
    digests = hash_photos(photos)
    for name, (reason, answer, text, rejected_by) in zip(sorted(digests), answers):
        faults[digests[name]] = [answer_with(answer, finish_reason=reason)]
        expected[name] = (text, rejected_by, text is None)
    others = [rule for rule in RULES if rule != "cut_off"]
    with serve(faults) as server:
        rows = caption("out", "model", endpoint=server.url, **of_folder(photos), without_rules=others)
    found = {}
    for row in rows:
        found[row["key"]] = (row["caption"], row["rejected_by"], bool(row["error"]))
    assert found == expected
    (error,) = [row["error"] for row in rows if row["error"]]
    assert "content_filter" in error
    before_rules = {row["caption_before_rules"] for row in rows} - {None}
    assert before_rules == {answers[1][1], answers[3][1]}


@pytest.mark.parametrize("answer", ["", "   ", "\x00", "\ud83d boat", "\n\n", "{}", "x" * 100_000, '"', "<think>"])
def test_an_odd_answer_leaves_the_others_as_they_are(caption, photos, answer):
    """Whether it is recorded as a failure, rejected or kept."""
    digests = hash_photos(photos)
    odd = min(digests)
    options = {**of_folder(photos), "without_rules": [], "prompt": ["a red boat"]}
    with serve({digests[odd]: [answer_with(answer, finish_reason="stop")]}) as server:
        rows = caption("out", "model", endpoint=server.url, **options)
    captions = {row["key"]: row["caption"] for row in rows}
    assert captions.keys() == digests.keys()
    del captions[odd]
    assert captions == {key: f"{digests[key]} of a red boat" for key in captions}


def test_a_run_that_fails_on_every_image_is_an_error(caption, photos, tmp_path):
    options = {**of_folder(photos), "max_retries": 0}
    refusal = (400, {"error": {"message": "too large"}})
    faults = {digest: [refusal] for digest in hash_photos(photos).values()}
    with serve(faults) as server:
        with pytest.raises(ValueError, match="`--captioner model` failed on each of the 6 images of this run"):
            caption("out", "model", endpoint=server.url, **options)
        assert len(read_records(tmp_path / "out")) == 6
        assert read_stored(tmp_path / "out")["run"]
        # nothing is left to do
        caption("out", "model", endpoint=server.url, **options)
        rows = caption("out", "model", endpoint=server.url, **options, retry_failed=True)
    assert all(row["caption"] for row in rows)
    assert read_stored(tmp_path / "out")["run"] is None


def test_images_that_fail_again_leave_a_complete_folder_complete(caption, photos, tmp_path):
    refusal = (400, {"error": {"message": "too large"}})
    digests = hash_photos(photos)
    with serve({digest: [refusal] * 2 for digest in list(digests.values())[:2]}) as server:
        options = {**of_folder(photos), "max_retries": 0, "endpoint": server.url}
        caption("out", "model", **options)
        rows = caption("out", "model", **options, retry_failed=True)
    assert sum(bool(row["error"]) for row in rows) == 2
    assert read_stored(tmp_path / "out")["run"] is None


def test_readers_say_that_a_run_has_not_finished(caption, run, photos, llava, tmp_path, caplog):
    caption("out", llava, **of_folder(photos))
    pattern = str(tmp_path / "out" / "*.parquet")
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path / "out", content="captions"):
        (tmp_path / "out" / "captions.sqlite").touch()
        raise KeyboardInterrupt  # what was committed since is not in the files
    CaptionFiles([pattern], "key", ["caption"]).check()
    run(pattern, "filtered")
    assert caplog.text.count(f"{tmp_path}/out is not complete: process ") == 2


def test_another_captioner_does_not_complete_what_one_was_ended_in(caption, photos, tmp_path):
    with serve({}) as server:
        caption("out", "model", endpoint=server.url, **of_folder(photos))
        stored = read_stored(tmp_path / "out")
        assert stored["run"] is None
        write_stored(tmp_path / "out", stored | {"run": {"parts": {"llava": None}}})
        caption("out", "model", endpoint=server.url, **of_folder(photos))
    assert read_stored(tmp_path / "out")["run"]["parts"] == {"llava": None}


def make_record(key: str, **values: object) -> dict:
    record = dict.fromkeys(SCHEMA.names)
    record |= {"key": key, "captioner": "llava", "caption": f"a caption of {key}"}
    record |= {"sha256": 64 * "a", "num_tokens": 4}
    return record | values


def add(folder, records: list[dict], shard_size: int = 4, is_resumed: bool = False) -> None:
    """As a run does that ends by itself."""
    with open_database(folder) as connection:
        table = Records(connection, folder, shard_size)
        if is_resumed:
            table.find_lost_files()
        for record in records:
            table.add(record)
        table.write()


def without_hash(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(caption="by hand").drop(columns="caption_hash")


@pytest.mark.parametrize(
    "edit",
    [
        lambda rows: rows.assign(caption="by hand"),
        lambda rows: rows.assign(rejected_by="by hand"),
        lambda rows: rows[1:].reset_index(drop=True),
        without_hash,
    ],
    ids=["a caption", "a mark", "a row taken out", "a column taken out"],
)
def test_files_that_somebody_has_edited_are_not_written_over(tmp_path, edit):
    add(tmp_path, [make_record(key) for key in "abcde"])
    files = [tmp_path / "captions-000000.parquet", tmp_path / "captions-000001.parquet"]
    edited = []
    for file in files:
        rows = edit(pd.read_parquet(file))
        rows.to_parquet(file)
        edited.append(rows)

    add(tmp_path, [], is_resumed=True)
    pd.testing.assert_frame_equal(pd.read_parquet(files[0]), edited[0])
    with pytest.raises(ValueError, match="captions-000001.parquet has been changed since it was written"):
        add(tmp_path, [make_record("f")], is_resumed=True)
    pd.testing.assert_frame_equal(pd.read_parquet(files[1]), edited[1])

    # the remedy that the message names
    files[1].rename(tmp_path / "edited")
    add(tmp_path, [make_record("g")], is_resumed=True)
    assert [row["key"] for row in parquet.read_table(files[1]).to_pylist()] == list("efg")


def test_a_folder_of_a_captioner_has_one_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("captioner").mkdir()
    names = ["captioner/", "./captioner", "captioner", "org/captioner"]
    found = [RecaptionArguments(captioner=[name], output_dir=Path("out")).captioner for name in names]
    assert found == [["captioner"], ["captioner"], ["captioner"], ["org/captioner"]]


def test_captions_of_other_weights_are_warned_of(tmp_path, caplog):
    add(tmp_path, [make_record("a", revision="first"), make_record("c", captioner="blip")])
    with open_database(tmp_path) as connection:
        recaption.warn_of_other_revisions(connection, "llava", "first")
        recaption.warn_of_other_revisions(connection, "blip", None)
        assert not caplog.text
        recaption.warn_of_other_revisions(connection, "llava", "second")
        recaption.warn_of_other_revisions(connection, "./llava", "first")
    assert "1 captions are of another revision of llava than second" in caplog.text
    assert "llava has the same revision as ./llava, and 1 captions here" in caplog.text


def test_captions_of_a_server_and_of_a_model_that_runs_here_are_told_apart(tmp_path, caplog):
    """A server has no revision."""
    add(tmp_path, [make_record("a", revision="first"), make_record("b"), make_record("c", revision="1")])
    with open_database(tmp_path) as connection:
        recaption.warn_of_other_revisions(connection, "llava", "first")
        recaption.warn_of_other_revisions(connection, "llava", None)
    assert "2 captions are of another revision of llava than first, and stay" in caplog.text
    assert "2 captions are of another revision of llava than the one on the server" in caplog.text


def test_edits_are_found_before_the_first_image_is_captioned(tmp_path):
    add(tmp_path, [make_record(key) for key in "abcde"])
    files = [ImageFile(key, None, None, None, None) for key in "fg"]
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 4)
        assert list(recaption.check_edits_first(files, records)) == files
        for name in ("captions-000000.parquet", "captions-000001.parquet"):
            pd.read_parquet(tmp_path / name).assign(caption="by hand").to_parquet(tmp_path / name)
        assert list(recaption.check_edits_first([], records)) == []
        # the first file is full, and stays
        with pytest.raises(ValueError, match="captions-000001.parquet has been changed"):
            next(recaption.check_edits_first(files, records))
        connection.execute("UPDATE records SET is_written = 0 WHERE id = 2")
        with pytest.raises(ValueError, match="captions-000000.parquet has been changed"):
            records.check_edits()


def test_a_table_of_another_version_is_refused_at_the_start(tmp_path):
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, key TEXT)")
    connection.close()
    with pytest.raises(ValueError, match="captions.sqlite is of another version of this package"):
        add(tmp_path, [])


def test_files_hold_the_rows_in_their_order_whatever_run_added_them(tmp_path):
    for keys in ("abc", "d", "efgh", "i", "ab"):
        add(tmp_path, [make_record(key) for key in keys])
    assert read_records(tmp_path) == [make_record(key) for key in "abcdefghi"]
    names = [path.name for path in list_shards(tmp_path)]
    assert names == ["captions-000000.parquet", "captions-000001.parquet", "captions-000002.parquet"]


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


def test_a_batch_of_answers_is_kept_once_it_has_come(tmp_path):
    """A captioner that runs here may take minutes for the next one."""
    counts = []

    def answer():
        yield [(ImageFile(key, None, None, None, None), Answer("A boat lies here.")) for key in "abc"]
        with open_database(tmp_path) as reading:
            counts.append(reading.execute("SELECT count(*) FROM records").fetchone())
        yield []

    facts = {"captioner": "llava", "revision": None, "generation_settings": "{}"}
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 100)
        record_answers(answer(), facts, RuleArguments(), records, tqdm(disable=True), Counter())
    assert counts == [(3,)]


@pytest.mark.parametrize("lose", [Path.unlink, cut_off], ids=["deleted", "cut off"])
def test_a_file_that_is_lost_is_written_anew_and_no_other(tmp_path, lose):
    add(tmp_path, [make_record(key) for key in "abcde"], shard_size=2)
    files = list_shards(tmp_path)
    lose(files[1])
    times = [files[number].stat().st_mtime_ns for number in (0, 2)]
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 2)
        records.find_lost_files()
        records.write()
    assert [row["key"] for row in read_records(tmp_path)] == ["a", "b", "c", "d", "e"]
    assert [files[number].stat().st_mtime_ns for number in (0, 2)] == times


def test_a_captioner_has_one_record_of_a_key_the_last(tmp_path):
    failed = {"caption": None, "error": "the server failed"}
    records = [make_record("a", **failed), make_record("b"), make_record("a", captioner="blip", **failed)]
    add(tmp_path, records, shard_size=1)
    with open_database(tmp_path) as connection:
        (line,) = [line for line in summarize(connection) if line.startswith("llava")]
    assert line.startswith("llava: 1 captions, 0 of them rejected by rules, 1 failures")
    assert "failures (such as 'the server failed'); `--retry" in line
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


@pytest.mark.parametrize(
    ("answer", "expected", "changed"),
    [
        (Answer(None, error="gone"), {"error": "gone", "is_cut_off": False}, []),
        (Answer(""), {"error": "the answer is empty"}, []),
        (Answer(BOAT), {"caption": BOAT, "caption_before_rules": None}, []),
        (Answer(f"- {BOAT}"), {"caption": BOAT, "caption_before_rules": f"- {BOAT}"}, ["lists"]),
        (Answer("Boat."), {"caption": "Boat.", "rejected_by": "too_short", "caption_before_rules": None}, []),
        (
            Answer(f"{BOAT} It is", is_cut_off=True),
            {"caption": BOAT, "caption_before_rules": f"{BOAT} It is", "is_cut_off": True},
            ["cut_off"],
        ),
    ],
    ids=["failure", "empty", "good", "mended", "rejected", "cut off"],
)
def test_what_is_recorded_of_an_answer(answer, expected, changed):
    nothing = dict.fromkeys(["caption", "caption_before_rules", "rejected_by", "error"]) | {"is_cut_off": False}
    record, rules = apply_rules_to_answer(answer, RuleArguments())
    assert record.pop("caption_hash") == hash_caption(record["caption"])
    assert record == nothing | expected
    assert rules == changed


def make_outcome(num_images: int, num_failed: int) -> CaptionerOutcome:
    return CaptionerOutcome("llava", num_images, num_failed, "busy." if num_failed else None)


@pytest.mark.parametrize("outcomes", [[(0, 0)], [(2, 1)], [(2, 2), (1, 0)]])
def test_a_run_with_one_good_answer_or_no_image_is_no_failure(outcomes):
    refuse_failures([make_outcome(*outcome) for outcome in outcomes])


def test_a_run_whose_processes_all_failed_is_an_error():
    with pytest.raises(ValueError, match="`--captioner llava` failed on each of the 3 images .*, last: busy"):
        refuse_failures([make_outcome(0, 0), make_outcome(2, 2), make_outcome(1, 1)])


@pytest.mark.parametrize(
    ("dataset", "max_samples", "num_processes", "expected"),
    [
        (Dataset.from_dict({"a": range(5)}), 9, 2, 2),
        (Dataset.from_dict({"a": range(5)}).to_iterable_dataset(), 9, 3, 3),
        (Dataset.from_dict({"a": range(5)}).to_iterable_dataset(), None, 1, None),
    ],
)
def test_a_bar_counts_the_images_of_a_process(dataset, max_samples, num_processes, expected):
    split = TrainSplitArguments(max_train_samples=max_samples)
    assert count_images(dataset, split, SimpleNamespace(num_processes=num_processes)) == expected


def test_a_captioner_is_described_with_its_rejections_and_causes_of_failures():
    assert describe_captioner("a", 3, {}, Counter()) == "a: 3 captions, 0 of them rejected by rules, 0 failures."
    failures = Counter({"first": 4, "second": 3, "third": 2, "fourth": 1})
    assert describe_captioner("a", 9, {"refusal": 2, "too_short": 1}, failures) == (
        "a: 9 captions, 3 of them rejected by rules {'refusal': 2, 'too_short': 1}, 10 failures (such as 'first', "
        "'second', 'third'); `--retry_failed` tries them again."
    )


def test_a_captioner_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="`--captioner` is given twice: a b a"):
        RecaptionArguments(captioner=["a", "b", "a"], output_dir=Path("out"))

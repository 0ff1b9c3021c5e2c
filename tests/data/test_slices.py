"""Slices of splits: which rows they have, and which they share."""

import sys
from dataclasses import replace

import pytest
from datasets import Dataset, DatasetDict

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.loading import load_slices, load_split
from modeling_lotlip.data.slices import Slice, count_shared_rows, resolve_split, take_first
from tests.helpers.data_files import read_numbers, write_captions, write_json


def test_slices_of_a_seed_have_the_whole_in_another_order(tmp_path):
    Dataset.from_dict({"number": range(40)}).save_to_disk(tmp_path / "saved")
    file = write_json(tmp_path / "rows.json", range(40))
    built = SourceArguments("json", data_files=[file], split_seed=3)
    saved = SourceArguments(str(tmp_path / "saved"), split_seed=3)
    before = sorted(path.name for path in (tmp_path / "saved").iterdir())
    for source in (saved, built):
        first = read_numbers(source, "train[:75%]")
        last = read_numbers(source, "train[75%:]")
        whole = read_numbers(source, "train")
        assert first + last == whole
        assert sorted(whole) == list(range(40))
        assert whole != sorted(whole)
        assert len(last) == 10
        assert read_numbers(source, "train", 5) == whole[:5]
        assert read_numbers(replace(source, split_seed=4), "train") != whole
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == before, "nothing is written there"
    assert read_numbers(built, "train[:10%]+train[90%:]") == whole[:4] + whole[-4:]
    _, rows = load_slices(built, "train[:80%]+train[36:]", with_images=False)
    for split, max_rows, num_shared in (("train[70%:]", None, 8), ("test[80%:]", None, 4), ("train[:50%]", 3, 3)):
        _, others = load_slices(built, split, max_rows, with_images=False)
        assert count_shared_rows(rows, others) == num_shared, split
    with pytest.raises(ValueError, match=r"'train\[40:\]' is empty: there are 40 rows"):
        read_numbers(built, "train[40:]")
    with pytest.raises(ValueError, match="--split_seed excludes --streaming: leave out one"):
        SourceArguments(dataset_name="json", streaming=True, split_seed=0)


@pytest.mark.parametrize(
    ("split", "num_repeated"),
    [
        ("train[:3]+train[:3]", 3),
        ("train[:3]+train[:3]+train[:3]", 6),
        ("train[:50%]+train[40%:]", 1),
        ("train[8:]+train[:9]", 1),
        ("train+train[2:4]+train[3:5]", 4),
        ("train+test", 10),  # of which only one is there
        ("train[:5]+train[5:]", 0),
    ],
)
def test_rows_that_are_named_again_are_refused_or_counted(tmp_path, caplog, split, num_repeated):
    source = SourceArguments(write_json(tmp_path / "rows.jsonl", range(10)))
    rows = read_numbers(source, split, may_repeat=True)
    assert len(rows) - len(set(rows)) == num_repeated
    warning = f"{num_repeated} rows of the split {split!r} come again"
    assert (warning in caplog.text) == (num_repeated > 0)
    if num_repeated == 0:
        assert read_numbers(source, split) == rows
    else:
        with pytest.raises(ValueError, match=f"^{num_repeated} rows of the split .*: name each row once"):
            read_numbers(source, split)


def test_rows_that_are_named_again_but_not_used_are_no_error(tmp_path):
    source = SourceArguments(write_json(tmp_path / "rows.jsonl", range(10)))
    assert read_numbers(source, "train[:4]+train[:4]", 4) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="^1 rows of the split"):
        read_numbers(source, "train[:4]+train[:4]", 5)


def test_a_stream_that_is_named_again_is_refused(tmp_path):
    source = SourceArguments(write_json(tmp_path / "rows.jsonl", range(3)), streaming=True)
    with pytest.raises(ValueError, match=r"^All rows of the split 'train\+train' come again"):
        read_numbers(source, "train+train")
    assert read_numbers(source, "train+train", may_repeat=True) == [0, 1, 2, 0, 1, 2]


def test_all_splits_have_the_rows_of_each(tmp_path):
    DatasetDict(
        {"train": Dataset.from_dict({"number": [0, 1]}), "val": Dataset.from_dict({"number": [2]})}
    ).save_to_disk(tmp_path / "saved")
    source = SourceArguments(str(tmp_path / "saved"))
    rows, slices = load_slices(source, "all", with_images=False)
    assert rows["number"][:] == [0, 1, 2]
    _, others = load_slices(source, "val", with_images=False)
    assert count_shared_rows(slices, others) == 1
    with pytest.raises(ValueError, match="names others beside 'all', which has their rows: leave"):
        read_numbers(source, "all+val")


def test_a_misspelled_split_is_no_other_one(tmp_path):
    write_captions(tmp_path, "rows.csv", ["a red boat"])
    with pytest.raises(ValueError, match="has no split 'trian' but 'train': name this one"):
        load_split(SourceArguments(str(tmp_path / "rows.csv")), "trian")


@pytest.mark.parametrize(
    ("split", "splits", "expected"),
    [
        ("val", [], "val"),
        ("all", ["train", "test"], "all"),
        ("test", ["train", "test"], "test"),
        ("validation", ["train"], "train"),
        ("test[:3]", ["train"], "train"),
    ],
)
def test_a_split_is_that_of_its_name_or_the_only_one(split, splits, expected):
    assert resolve_split(split, splits, "It") == expected


@pytest.mark.parametrize(
    ("start", "num_rows", "expected"),
    [
        ([("a", 0, 4), ("a", 6, 9)], 5, [("a", 0, 4), ("a", 6, 7)]),
        ([("a", 0, 4), ("a", 6, 9)], 4, [("a", 0, 4)]),
        ([("a", 0, sys.maxsize), ("b", 0, 9)], 5, [("a", 0, 5), ("b", 0, 5)]),
    ],
    ids=["a part of the second", "the first alone", "a stream of which the length is not known"],
)
def test_the_first_rows_are_those_of_the_first_slices(start, num_rows, expected):
    assert take_first([Slice(*part) for part in start], num_rows) == [Slice(*part) for part in expected]


@pytest.mark.parametrize(
    ("others", "num_shared"),
    [
        ([("a", 3, 9)], 2),
        ([("a", 5, 9)], 0),
        ([("b", 0, 5)], 0),
        ([("a", 0, 1), ("a", 4, 5)], 2),
        ([("all", 0, 100)], 5),
        ([("all", 98, 100)], 2),
    ],
)
def test_rows_that_two_splits_share_are_counted(others, num_shared):
    assert count_shared_rows([Slice("a", 0, 5)], [Slice(*other) for other in others]) == num_shared


@pytest.mark.parametrize("split", ["train[:2]", "train[:50%]", "train[:1]+train[1:2]"])
def test_a_stream_has_no_slices(tmp_path, split):
    source = SourceArguments(write_json(tmp_path / "rows.jsonl", range(4)), streaming=True)
    with pytest.raises(ValueError, match="`--streaming` takes no slice such as 'train"):
        load_split(source, split, with_images=False)

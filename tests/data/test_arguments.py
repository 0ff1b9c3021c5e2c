"""The arguments that name a dataset."""

import pytest

from modeling_lotlip.data.arguments import SourceArguments, describe_split


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        ({}, None),
        ({"dataset_name": "org/photos", "data_dir": "part"}, "org/photos"),
        ({"dataset_name": "photos"}, "photos"),
        ({"dataset_name": "imagefolder", "data_dir": "photos"}, "photos"),
        ({"dataset_name": "webdataset", "data_files": ["shards/*.tar"]}, "*.tar"),
        (
            {"dataset_name": "json", "data_files": ["here/a.jsonl", "here/b.jsonl", "here/c.jsonl"]},
            "a.jsonl and 2 more",
        ),
        ({"dataset_name": "rows.jsonl"}, "rows.jsonl"),
    ],
)
def test_results_name_what_is_read(tmp_path, monkeypatch, arguments, title):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert SourceArguments(**arguments).dataset_title == title


@pytest.mark.parametrize(
    ("split", "max_samples", "split_seed", "expected"),
    [
        ("test", None, None, "test"),
        ("test", 5, None, "test (at most the first 5 rows)"),
        ("test", None, 0, "test"),
        ("test", 5, 0, "test (shuffled with seed 0, at most the first 5 rows)"),
        ("train[90%:]", None, 0, "train[90%:] (shuffled with seed 0)"),
    ],
)
def test_cards_say_which_rows_of_a_split_results_are_of(split, max_samples, split_seed, expected):
    assert describe_split(split, max_samples, split_seed) == expected

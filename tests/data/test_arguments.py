"""The arguments that name a dataset."""

import pytest

from modeling_lotlip.data.arguments import CaptionFileArguments, SourceArguments, describe_split


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


def test_keys_of_images_are_for_caption_files():
    with pytest.raises(
        ValueError, match="--key_column has no effect without --caption_files: add --caption_files, or"
    ):
        CaptionFileArguments(key_column="url")
    assert CaptionFileArguments(["captions.jsonl"], key_column="url").image_key_column == "url"


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

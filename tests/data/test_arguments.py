"""The arguments that name a dataset."""

import pytest

from modeling_lotlip.data.arguments import SourceArguments


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

"""What `--output_file` names is written also where nobody reads what a command prints."""

import io
import sys

import pytest
from PIL import Image

import lotlip
from tests.helpers.commands import to_argv


class UnreadOutput(io.StringIO):
    """A standard output whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError("Broken pipe")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("evaluate", {"max_eval_samples": 4}),
        ("classify", {"max_eval_samples": 4}),
        ("sensitivity", {"max_eval_samples": 4}),
        ("statistics", {"max_eval_samples": 4}),
        ("embed", {"max_eval_samples": 4}),
        ("search", {}),
    ],
)
def test_the_output_file_is_written_where_nobody_reads_the_table(
    command, options, model_dir, vocab_dir, tmp_path, monkeypatch
):
    file = tmp_path / ("out.parquet" if command == "embed" else "out.json")
    words = []
    if command == "statistics":
        options = options | {"tokenizer_path": vocab_dir}
    else:
        options = options | {"model": model_dir, "device": "cpu"}
    if command == "embed":
        options["output_dir"] = tmp_path / "table"
    if command == "search":
        (tmp_path / "photos").mkdir()
        Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / "red.png")
        words = [tmp_path / "photos", "a red boat"]
        options |= {"index_dir": tmp_path / "indices", "backend": "torch", "dtype": "float32"}
    monkeypatch.setattr(sys, "stdout", UnreadOutput())
    status = lotlip.main(to_argv(command, *words, output_file=file, **options))
    monkeypatch.undo()
    assert status != 0
    assert file.stat().st_size > 0

"""What `--output_file` names is written also where nobody reads what a command prints."""

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

import lotlip
from tests.helpers.commands import to_argv


class UnreadOutput(io.StringIO):
    """A standard output whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError("Broken pipe")


@pytest.fixture
def make_line(model_dir, vocab_dir, tmp_path):
    """Makes the command line of a command that writes to a file."""

    def make(command: str, file: Path) -> list[str]:
        options = {"output_file": file}
        words = []
        if command == "statistics":
            options["tokenizer_path"] = vocab_dir
        else:
            options |= {"model": model_dir, "device": "cpu"}
        if command == "embed":
            options["output_dir"] = tmp_path / "table"
        if command == "search":
            (tmp_path / "photos").mkdir()
            Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / "red.png")
            words = [tmp_path / "photos", "a red boat"]
            options |= {"index_dir": tmp_path / "indices", "backend": "torch", "dtype": "float32"}
        else:
            options["max_eval_samples"] = 4
        return to_argv(command, *words, **options)

    return make


@pytest.mark.parametrize("command", ["evaluate", "classify", "sensitivity", "statistics", "embed", "search"])
def test_the_output_file_is_written_where_nobody_reads_the_table(command, make_line, tmp_path, monkeypatch):
    file = tmp_path / ("out.parquet" if command == "embed" else "out.json")
    line = make_line(command, file)
    monkeypatch.setattr(sys, "stdout", UnreadOutput())
    status = lotlip.main(line)
    monkeypatch.undo()
    assert status != 0
    assert file.stat().st_size > 0


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("evaluate", "T2I R@1"),
        ("classify", "top-1"),
        ("sensitivity", "| model"),
        ("statistics", "| scenes"),
        ("search", "photos/red.png"),
    ],
)
def test_results_are_printed_where_the_output_file_cannot_be_written(command, printed, make_line, tmp_path, capsys):
    too_long = tmp_path / f"{'a' * 250}.json"  # with the ending that it has until it is complete
    status = lotlip.main(make_line(command, too_long))
    assert status == 2
    said = capsys.readouterr()
    assert "File name too long" in said.err
    assert printed in said.out

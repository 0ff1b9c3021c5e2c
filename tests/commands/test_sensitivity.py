"""`lotlip sensitivity`: results and tables."""

import csv
import json

import pytest

import lotlip
from tests.helpers.commands import read_error


@pytest.fixture
def run(monkeypatch):
    """Runs the command in this process, on the CPU, and returns its exit status."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return lambda *arguments: lotlip.main(["sensitivity", *map(str, arguments)])


def test_results_and_tables(model_dir, tmp_path, run, capsys):
    path = tmp_path / "new" / "sensitivity.json"
    options = ["--max_eval_samples", 6, "--max_length", 40, "--num_tokens", 8, 200]
    assert run("--model_name_or_path", model_dir, *options, "--output_file", path) == 0
    (result,) = json.loads(path.read_text())["models"]
    assert [row["num_tokens"] for row in result["lengths"]] == [8, 40]
    assert len(result["changes"]) == 9
    assert result["model"] == str(model_dir) and result["num_texts"] == 6 and result["max_length"] == 40
    told = capsys.readouterr().out
    assert "| tokens | T2I R@1 |" in told and f"| {model_dir} | 40 |" in told


def test_results_as_rows(model_dir, tmp_path, run):
    path = tmp_path / "sensitivity.csv"
    options = ["--max_eval_samples", 4, "--num_tokens", 8]
    assert run("--model", model_dir, *options, "--output_file", path) == 0
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["num_tokens"] for row in rows if row["num_tokens"]] == ["8"]
    changed = [row for row in rows if row["change"]]
    assert len(changed) == 9 and all(0 <= float(row["after_t2i_recall@1"]) <= 100 for row in changed)


def test_what_cannot_be_measured_or_written_is_refused_first(model_dir, tmp_path, capsys):
    (tmp_path / "file").touch()
    for wrong, message in (
        (("--output_file", tmp_path / "file" / "out.json"), "cannot be written"),
        (("--output_file", tmp_path / "out.txt"), "must end in .json, .csv or .md"),
        (("--output_file", tmp_path), "must end in .json, .csv or .md"),
        (("--num_tokens", 2), "--num_tokens must be at least 3, got 2"),
    ):
        assert message in read_error(capsys, "sensitivity", "--model", model_dir, *wrong)

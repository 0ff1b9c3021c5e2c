"""`lotlip sensitivity`: results, tables and a plot."""

import json

import pytest
from PIL import Image

import lotlip


@pytest.fixture
def run(monkeypatch):
    """Runs the command in this process, on the CPU, and returns its exit status."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return lambda *arguments: lotlip.main(["sensitivity", *map(str, arguments)])


def test_results_tables_and_plot(model_dir, tmp_path, run, capsys):
    path = tmp_path / "new" / "sensitivity.json"
    options = ["--max_eval_samples", 6, "--max_length", 40, "--num_tokens", 8, 200]
    assert run("--model_name_or_path", model_dir, *options, "--output_file", path) == 0
    (result,) = json.loads(path.read_text())["models"]
    assert [row["num_tokens"] for row in result["lengths"]] == [8, 40]
    assert len(result["changes"]) == 6 and len(result["moved"]["positions"]) == 5
    assert result["model"] == str(model_dir) and result["num_texts"] == 6 and result["max_length"] == 40
    assert path.with_suffix(".md").read_text() == capsys.readouterr().out
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.width > 500


def test_what_cannot_be_measured_or_written_is_refused_first(model_dir, tmp_path, run, capsys):
    (tmp_path / "file").touch()
    assert run("--model", model_dir, "--output_file", tmp_path / "file" / "out.json") == 2
    assert "File exists" in capsys.readouterr().err.splitlines()[-1]
    for wrong, message in (
        (("--output_file", tmp_path / "out.md"), "name it .json"),
        (("--output_file", tmp_path), "name it .json"),
        (("--num_tokens", 2), "--num_tokens must be at least 3, got 2"),
    ):
        with pytest.raises(SystemExit):
            run("--model", model_dir, *wrong)
        assert message in capsys.readouterr().err.splitlines()[-1]

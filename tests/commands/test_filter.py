"""`lotlip filter`: what it prints, and mistakes in a line."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import parquet

import lotlip
from tests.helpers.caption_files import SCHEMA, make_rows


@pytest.fixture
def run(tmp_path, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command on a file of captions; returns its exit status, output and last line of errors."""
    parquet.write_table(pa.Table.from_pylist(make_rows(), SCHEMA), tmp_path / "captions.parquet")

    def run(*arguments: str, captions: str = "captions.parquet") -> tuple[int, str, str]:
        argv = ["filter", "--captions", str(tmp_path / captions), "--output_dir", str(tmp_path / "out"), *arguments]
        try:
            status = lotlip.main(argv)
        except SystemExit as exit:
            status = exit.code
        output = capsys.readouterr()
        return status, output.out, (output.err.splitlines() or [""])[-1]

    return run


def test_what_became_of_the_captions_is_printed(run, tmp_path):
    status, output, _ = run()
    assert status == 0 and (tmp_path / "out" / "captions.parquet").exists()
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert report.startswith(output) and output.startswith("# Captions\n\n| captioner |")
    lines = output.splitlines()
    assert "| blip | 12 | 0 | 10 |" in lines and "| llava | 12 | 1 | 9 |" in lines
    assert "| announcement |  | 0 | 0 | 0 | 9 |" in lines and "| duplicate | 3 | 2 | 0 | 0 | 0 |" in lines
    assert "| of_the_past |  | 0 | 0 | 1 | 0 |" in lines
    assert "### refusal" in report and "### refusal" not in output
    assert "| llava | I cannot see the image. | rejected |" in report.splitlines()


def test_that_nothing_is_kept_is_said(run):
    status, output, _ = run("--rules", "too_short=100", "--report", "--tokenizer_path", "nothing")
    assert status == 0 and output.endswith("No caption is kept: there is nothing to measure, nor to train on.\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--text_model", "bert"], "`--text_model` is for the `--report`"),
        (["--dual_encoder", "clip"], "`--dual_encoder` is for the `--report`"),
        (["--min_image_text_similarity", "0.2"], "`--min_image_text_similarity` needs a `--dual_encoder`"),
        (["--report", "--num_lowest", "0"], "--num_lowest must be at least 1, got 0."),
        (["--rules", "refusal=3"], "`--rules refusal=3`: the rule refusal has no number."),
        (["--without_rule", "dup"], "`--without_rule dup` names no rule"),
        (["--caption_column", "text"], "`--caption_column text` is no column of"),
    ],
)
def test_mistakes(run, arguments, message):
    status, output, error = run(*arguments)
    assert status == 2 and output == ""
    assert error.startswith("lotlip filter: error: ") and message in error


def test_no_files(run, tmp_path):
    status, _, error = run(captions="*.csv")
    assert status == 2 and error == f"lotlip filter: error: `--captions {tmp_path}/*.csv` names no file."
    (tmp_path / "captions.jsonl").write_text('{"caption": "a"}\n{"capt')
    status, _, error = run(captions="captions.jsonl")
    assert status == 2 and error.startswith("lotlip filter: error: Line 2 of ")

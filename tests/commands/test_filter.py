"""`lotlip filter`: what it prints, and mistakes in a line."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import parquet

import lotlip
from modeling_lotlip.data.scenes import load_scenes
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
    lines = output.splitlines()
    assert "| blip | 12 | 0 | 0 | 6 |" in lines and "| llava | 12 | 1 | 0 | 9 |" in lines
    assert "| announcement | 0 | 0 | 0 | 9 |" in lines and "| duplicate | 6 | 0 | 0 | 0 |" in lines
    assert "| of_the_past | 0 | 0 | 1 | 0 |" in lines


def test_that_nothing_is_kept_is_said(run):
    status, output, _ = run("--min_words", "100")
    assert status == 0 and output.endswith("No caption is kept: there is nothing to train on.\n")


def test_captions_that_were_not_compared_are_told(run, tmp_path, model_dir):
    rows = [{**row, "key": str(number % 3)} for number, row in enumerate(make_rows())]
    scenes = load_scenes(2).add_column("key", ["0", "1"])
    scenes.save_to_disk(tmp_path / "scenes")
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "captions.parquet")
    arguments = ["--dual_encoder", str(model_dir), "--dataset_name", str(tmp_path / "scenes")]
    arguments += ["--without_rules", "all"]
    status, output, _ = run(*arguments)
    told = "7 captions were not compared with an image, and are kept; `--reject_unmeasured` rejects them."
    assert status == 0 and output.splitlines()[-1] == told
    arguments += ["--min_image_text_similarity", "-1", "--reject_unmeasured"]
    assert run(*arguments)[1].splitlines()[-1] == "7 captions were not compared with an image, and are rejected."

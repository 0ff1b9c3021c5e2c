"""One good run of commands whose work is tested elsewhere: what they are given, print and write."""

import csv
import dataclasses
import json
import re
from shutil import rmtree

import pyarrow as pa
import pytest
from pyarrow import parquet

import lotlip
from modeling_lotlip.commands.export import ExportArguments
from modeling_lotlip.data.scenes import load_scenes, make_scene
from modeling_lotlip.encoder import fastest
from modeling_lotlip.encoder.fastest import Measured
from modeling_lotlip.encoder.onnx import SUFFIXES
from tests.helpers.caption_files import SCHEMA, make_rows
from tests.helpers.commands import run_command
from tests.helpers.data_files import write_lines


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command in this process, on the CPU, and returns what it prints."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(*argv: object) -> str:
        status = lotlip.main(list(map(str, argv)))
        assert status == 0
        return capsys.readouterr().out

    return run


def test_export_has_the_dtypes_of_the_library():
    (dtype,) = (field for field in dataclasses.fields(ExportArguments) if field.name == "dtype")
    arguments = ExportArguments(output_dir="out", dtype=list(dtype.metadata["choices"]))
    assert arguments.dtype == list(SUFFIXES)


def test_filter_prints_what_became_of_the_captions(run, tmp_path):
    parquet.write_table(pa.Table.from_pylist(make_rows(), SCHEMA), tmp_path / "captions.parquet")
    argv = ["filter", "--captions", tmp_path / "captions.parquet", "--output_dir", tmp_path / "out"]
    lines = run(*argv).splitlines()
    assert (tmp_path / "out" / "captions.parquet").exists()
    assert "| blip | 12 | 0 | 0 | 6 | 0 |" in lines
    assert "| llava | 12 | 1 | 0 | 9 | 1 |" in lines
    assert "| announcement | 0 | 0 | 0 | 9 |" in lines
    assert "| duplicate | 6 | 0 | 0 | 0 |" in lines
    assert "| of_the_past | 0 | 0 | 1 | 0 |" in lines
    printed = run(*argv, "--min_words", 100)
    assert printed.endswith("No caption is kept: there is nothing to train on.\n")


def test_filter_tells_captions_that_were_not_compared(run, tmp_path, model_dir):
    rows = [{**row, "key": str(number % 3)} for number, row in enumerate(make_rows())]
    load_scenes(2).add_column("key", ["0", "1"]).save_to_disk(tmp_path / "scenes")
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "captions.parquet")
    argv = ["filter", "--captions", tmp_path / "captions.parquet", "--output_dir", tmp_path / "out"]
    argv += ["--dual_encoder", model_dir, "--dataset_name", tmp_path / "scenes", "--without_rules", "all"]
    told = "7 captions were not compared with an image, and are kept; `--reject_unmeasured` rejects them."
    printed = run(*argv)
    assert printed.splitlines()[-1] == told
    argv += ["--min_image_text_similarity", -1, "--reject_unmeasured"]
    last_line = run(*argv).splitlines()[-1]
    assert last_line == "7 captions were not compared with an image, and are rejected."


def test_sensitivity_writes_and_prints_tables(model_dir, tmp_path, run):
    argv = ["sensitivity", "--model_name_or_path", model_dir, "--max_eval_samples", 6, "--max_length", 40]
    argv += ["--num_tokens", 8, 200, "--output_file"]
    told = run(*argv, tmp_path / "new" / "sensitivity.json")
    (result,) = json.loads((tmp_path / "new" / "sensitivity.json").read_text())["models"]
    assert [row["num_tokens"] for row in result["lengths"]] == [8, 40]
    assert len(result["changes"]) == 9
    assert result["model"] == str(model_dir)
    assert result["num_texts"] == 6
    assert result["max_length"] == 40
    assert "| tokens | T2I R@1 |" in told
    assert f"| {model_dir} | 40 |" in told

    run(*argv, tmp_path / "sensitivity.csv")
    with open(tmp_path / "sensitivity.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["num_tokens"] for row in rows if row["num_tokens"]] == ["8", "40"]
    changed = [row for row in rows if row["change"]]
    assert len(changed) == 9
    assert all(0 <= float(row["after_t2i_recall@1"]) <= 100 for row in changed)


def test_sensitivity_names_the_captions_of_no_image(model_dir, tmp_path, run, caplog):
    load_scenes(4).add_column("key", list("abcd")).save_to_disk(tmp_path / "scenes")
    rows = [{"key": key, "caption": "A red boat. The ground is sand."} for key in "abcdz"]
    captions = write_lines(tmp_path / "captions.jsonl", rows)
    argv = ["sensitivity", "--model_name_or_path", model_dir, "--dataset_name", tmp_path / "scenes"]
    run(*argv, "--long_captions_column", "", "--caption_files", captions, "--num_tokens", 8)
    assert "1 of 5 rows of `--caption_files` belong to none of the 4 images (such as 'z')." in caplog.text


def test_visualize_writes_a_page_of_several_models(model_dir, tmp_path, run):
    make_scene(seed=1, index=0).draw().save(tmp_path / "scene.png")
    (tmp_path / "other").symlink_to(model_dir)
    text = "<script>alert(1)</script> & a red boat. The ground is sand"
    models = ["--model_name_or_path", model_dir, tmp_path / "other", "--output_dir", tmp_path / "out"]
    run("visualize", *models, "--image", tmp_path / "scene.png", "--text", text, "--max_length", 8)
    page = (tmp_path / "out" / "visualize.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "beyond the limit" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    # the picture, the whole text and the sub-caption that is read
    assert page.count("<h2>") == 2
    assert page.count("<img") == 2 * 3
    assert "sub-captions: 1." in page


@pytest.mark.parametrize(("what", "has_image"), [(["--row", 2], True), (["--text", "A red boat. A tree"], False)])
def test_visualize_a_row_of_the_data_or_a_text_alone(what, has_image, model_dir, tmp_path, run):
    run("visualize", "--model", model_dir, "--output_dir", tmp_path / "a page", *what)
    assert ("<img" in (tmp_path / "a page" / "visualize.html").read_text()) == has_image


# Commands that compute exactly by default, with what they need beside a model
EXACT_COMMANDS = {
    "evaluate": ["--max_eval_samples", 4],
    "classify": ["--max_eval_samples", 4],
    "sensitivity": ["--max_eval_samples", 4, "--num_tokens", 8],
    "embed": ["--max_eval_samples", 4, "--output_dir", "table"],
}


@pytest.fixture
def choices(monkeypatch, tmp_path):
    """The folder of what was measured, in which bfloat16 by PyTorch is the fastest, which is not measured."""

    def measure_all(model, family, sample, computations, towers):
        return [Measured(one, 0.1 if one == fastest.LAST_RESORT else 1.0, 1.0) for one in computations]

    monkeypatch.setattr(fastest, "HF_ASSETS_CACHE", tmp_path / "assets")
    monkeypatch.setattr(fastest, "measure_all", measure_all)
    return tmp_path / "assets" / "lotlip" / "fastest"


@pytest.mark.parametrize("command", EXACT_COMMANDS)
def test_a_command_says_what_auto_gives_and_takes_it(command, model_dir, tmp_path, choices, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run_and_read(*options: object) -> str:
        """Runs the command, and returns what it prints on standard error."""
        rmtree(tmp_path / "table", ignore_errors=True)
        argv = [command, "--device", "cpu", "--model", model_dir, *EXACT_COMMANDS[command], *options]
        status = lotlip.main(list(map(str, argv)))
        assert status == 0
        return capsys.readouterr().err

    before = run_and_read()
    with_auto = run_and_read("--dtype", "auto")
    after = run_and_read()
    assert "`--backend auto --dtype auto` is faster on most" in before
    assert "`--backend auto --dtype auto`" not in with_auto
    assert "would compute in bfloat16 by PyTorch here, 10.0 times as fast" in after
    assert len(list(choices.glob("*.json"))) == 1


@pytest.mark.parametrize("command", ["evaluate", "classify"])
def test_results_say_what_auto_has_chosen(command, model_dir, tmp_path, choices):
    arguments = ["--model", model_dir, *EXACT_COMMANDS[command], "--dtype", "auto"]
    results = run_command(command, tmp_path / "results.json", *arguments)
    assert results["dtype"] == "bfloat16"
    assert results["backend"] == "torch"


def test_visualize_takes_auto(model_dir, tmp_path, choices, run):
    run("visualize", "--model", model_dir, "--output_dir", tmp_path / "page", "--dtype", "auto")
    assert len(list(choices.glob("*.json"))) == 1

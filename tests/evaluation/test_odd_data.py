"""`lotlip statistics` and `lotlip visualize` of odd data: an error of one line, or a count."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

import lotlip
from modeling_lotlip.data.reader import MAX_BAD_ROWS
from tests.helpers.commands import read_error
from tests.helpers.data_files import write_images, write_lines


@pytest.fixture
def rows(tmp_path) -> Path:
    """Rows: one has a caption that is no text, one an image that is none, and two no caption."""
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "broken.png").write_bytes(b"no image")
    lines = [
        {"image": "0.png", "caption": ["a red boat"], "about": {"caption": "a boat"}},
        {"image": "broken.png", "caption": ["a car"], "about": {"caption": "a car"}},
        {"image": "1.png", "caption": None, "about": {"caption": None}},
        {"image": "1.png", "caption": [""], "about": {"caption": ["", None]}},
        {"image": "1.png", "caption": ["sand"], "about": {"caption": 5}},
    ]
    return Path(write_lines(tmp_path / "rows.jsonl", lines))


@pytest.fixture
def no_number_dir(model_dir, tmp_path) -> Path:
    """A model with one weight that is not a number."""
    model = AutoModel.from_pretrained(model_dir)
    with torch.no_grad():
        model.text_projection.weight[0, 0] = torch.nan
    model.save_pretrained(tmp_path / "no_number")
    AutoProcessor.from_pretrained(model_dir).save_pretrained(tmp_path / "no_number")
    return tmp_path / "no_number"


def test_statistics_leave_out_captions_that_are_no_texts(rows, tmp_path, vocab_dir, caplog):
    output = tmp_path / "statistics.json"
    arguments = ["--dataset_name", rows, "--eval_split", "train", "--tokenizer_path", vocab_dir]
    arguments += ["--caption_column", "about.caption", "--output_file", output]
    assert lotlip.main(["statistics", *map(str, arguments)]) == 0
    results = json.loads(output.read_text())
    assert (results["num_images"], results["num_texts"]) == (2, 2)
    assert results["dataset"] == "rows.jsonl"
    assert "The captions of row 4 are left out: The column 'about.caption' must" in caplog.text


def test_statistics_of_a_column_of_numbers_are_refused(tmp_path, vocab_dir, capsys):
    path = write_lines(tmp_path / "rows.jsonl", [{"caption": 5}] * (MAX_BAD_ROWS + 1))
    arguments = ["--dataset_name", path, "--eval_split", "train", "--tokenizer_path", vocab_dir]
    error = read_error(capsys, "statistics", *arguments)
    assert "The column 'caption' must hold strings or lists of strings, got 5" in error


@pytest.mark.parametrize("command", ["statistics", "visualize"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset_name", "empty"], "cannot be loaded"),
        (["--dataset_name", "rows.jsonl", "--eval_split", "validation[9:]"], "is empty: there are 5 rows"),
        (["--dataset_name", "rows.jsonl", "--eval_split", "val"], "has no split 'val' but 'train'"),
        (["--dataset_name", "rows.jsonl", "--caption_column", "text"], "Neither `--caption_column text` nor"),
        (["--dataset_name", "photos"], "Neither `--caption_column caption` nor"),
    ],
    ids=["empty folder", "empty slice", "no split", "no column", "images without captions"],
)
def test_data_that_are_not_there_are_an_error_of_one_line(
    rows, tmp_path, model_dir, vocab_dir, capsys, monkeypatch, command, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    options = ["--tokenizer_path", vocab_dir]
    if command == "visualize":
        options = ["--model", model_dir, "--output_dir", "out"]
    assert message in read_error(capsys, command, *arguments, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (1, "The image of --row 1 cannot be read: "),
        (2, "--row 2 has no caption"),
        (3, "--row 3 has no caption"),
        (4, "The column 'about.caption' must hold strings or lists of strings, got 5"),
        (5, "--row 5 is beyond the split 'train'"),
    ],
)
def test_a_row_that_cannot_be_looked_at_is_named(rows, tmp_path, model_dir, capsys, row, message):
    arguments = ["--dataset_name", rows, "--eval_split", "train", "--caption_column", "about.caption", "--row", row]
    arguments += ["--model", model_dir, "--output_dir", tmp_path / "out"]
    assert message in read_error(capsys, "visualize", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_caption_of_full_stops_alone_is_passed_over(tmp_path, model_dir):
    write_images(tmp_path, ["0.png"])
    row = {"image": "0.png", "caption": "a red boat", "long_captions": ["...", "a blue car. sand."]}
    path = write_lines(tmp_path / "rows.jsonl", [row])
    arguments = ["--dataset_name", path, "--eval_split", "train", "--model", model_dir, "--output_dir", tmp_path]
    assert lotlip.main(["visualize", *map(str, arguments)]) == 0
    assert "a blue car" in (tmp_path / "visualize.html").read_text()


def test_a_text_without_a_token_is_refused(tmp_path, model_dir, capsys):
    arguments = ["--text", "\u200b", "--model", model_dir, "--output_dir", tmp_path]
    error = read_error(capsys, "visualize", *arguments)
    assert "`--text` has nothing that the tokenizer of the model reads" in error


@pytest.mark.parametrize("with_image", [True, False])
def test_a_model_with_nan_is_refused(rows, no_number_dir, tmp_path, capsys, with_image):
    arguments = ["--model", no_number_dir, "--output_dir", tmp_path / "out"]
    if with_image:
        arguments += ["--dataset_name", rows, "--eval_split", "train"]
    else:
        arguments += ["--text", "a red boat. the sea is blue."]
    error = read_error(capsys, "visualize", *arguments)
    assert "NaN" in error
    assert not (tmp_path / "out" / "visualize.html").exists()

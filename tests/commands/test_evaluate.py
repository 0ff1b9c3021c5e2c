"""Mistakes in `lotlip evaluate`, `lotlip classify` and `lotlip embed`: one line that names the remedy."""

import re

import pytest

from modeling_lotlip import LotlipModel
from tests.helpers.commands import read_error


@pytest.mark.parametrize("command", ["evaluate", "classify", "embed"])
def test_a_model_or_a_device_that_cannot_be_used(command, model_dir, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    LotlipModel.from_pretrained(model_dir).text_model.save_pretrained(tmp_path / "tower")
    options = ("--max_eval_samples", 2, *(("--output_dir", tmp_path / "out") if command == "embed" else ()))
    for arguments, message in (
        (("--model", tmp_path / "empty"), "--model_name_or_path .*/empty` cannot be used"),
        (("--model", tmp_path / "tower"), "it is a LotlipTextModel, no dual encoder. Name one of images and texts"),
        (("--model", model_dir, "--device", "tpu9"), "--device tpu9` cannot be used.*name `cpu`"),
        (("--model", model_dir, "--max_length", 511), "--max_length 511` is beyond the 510 tokens"),
        (("--model", model_dir, "--image_column", "picture"), "--image_column picture` is no column"),
        (("--model", model_dir, "--dtype", "float8"), "argument --dtype"),
    ):
        assert re.search(message, read_error(capsys, command, *options, *arguments)), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "classify"])
def test_results_that_could_not_be_written(command, model_dir, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for name, message in (("a.txt", "must end in .json, .csv or .md"), ("file/a.json", "takes no files")):
        assert message in read_error(capsys, command, "--model", model_dir, "--output_file", tmp_path / name)
    path = tmp_path / "folder.json"
    assert "cannot be written" in read_error(capsys, command, "--model", model_dir, "--output_file", path)


def test_captions_that_are_not_there(model_dir, tmp_path, capsys):
    options = ("--model", model_dir, "--caption_column", "x", "--long_captions_column", "y", "--device", "cpu")
    for command, more in (("evaluate", ()), ("embed", ("--output_dir", tmp_path / "out"))):
        message = read_error(capsys, command, "--max_eval_samples", 2, *options, *more)
        assert "Neither `--caption_column x` nor `--long_captions_column y` is a column" in message


@pytest.mark.parametrize("command", ["evaluate", "classify"])
def test_part_of_no_benchmark(command, model_dir, capsys):
    message = read_error(capsys, command, "--model", model_dir, "--allow_partial")
    assert "--allow_partial is for a --benchmark" in message


def test_classes_that_are_named_twice(model_dir, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("boat\n")
    names = ("--class_names", "car", "--class_names_file", tmp_path / "names.txt")
    assert "--class_names_file do not go together" in read_error(capsys, "classify", "--model", model_dir, *names)

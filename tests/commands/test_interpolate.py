"""`lotlip interpolate` from two models to a folder that other commands read."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

import lotlip
from modeling_lotlip import DualEncoder
from tests.helpers.commands import read_error, run_command


@pytest.fixture
def end_dir(model_dir, tmp_path):
    """The small model with other weights."""
    folder = tmp_path / "end"
    shutil.copytree(model_dir, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: 1.1 * tensor for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def words(model_dir, end_dir, tmp_path):
    options = ["--output_dir", tmp_path / "near", "--max_eval_samples", 24, "--device", "cpu"]
    return [str(word) for word in (model_dir, end_dir, *options)]


def test_classes_are_measured_if_labels_are_named(words, tmp_path, capsys):
    assert lotlip.main(["interpolate", *words, "--label_column", "label", "--alphas", "0.3"]) == 0
    output = capsys.readouterr().out
    assert "| alpha | short, to choose | long, to choose | zero-shot, to choose | short, to report |" in output
    assert f"{tmp_path / 'near'} holds the best, of alpha" in output
    results = json.loads((tmp_path / "near" / "eval_results.json").read_text())
    assert 0 <= results["zero_shot_top1"] <= results["zero_shot_top5"]
    assert "zero_shot_top1" in (tmp_path / "near" / "README.md").read_text()


def test_other_commands_read_the_folder(words, tmp_path):
    assert lotlip.main(["interpolate", *words]) == 0
    assert DualEncoder.from_pretrained(tmp_path / "near").dim > 0
    options = ("--model", tmp_path / "near", "--max_eval_samples", 8)
    assert run_command("evaluate", tmp_path / "results.json", *options)["long_num_images"] == 8


def test_dimensions_that_were_saved_with_one_model_alone_are_not_compared_with_all(words, model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "start")
    (tmp_path / "start" / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 2}))
    assert (tmp_path / "start" / "modules.json").exists()
    assert lotlip.main(["interpolate", str(tmp_path / "start"), *words[1:], "--alphas", "0.5"]) == 0
    measured = json.loads((tmp_path / "near" / "interpolation.json").read_text())
    of_alpha_0 = measured["mixtures"][0]
    assert of_alpha_0.pop("alpha") == 0
    assert measured["start_results"] == of_alpha_0


def test_a_folder_with_files_is_left_as_it_is(words, tmp_path, capsys):
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "mine.txt").write_text("mine")
    assert "holds files already: name a new folder" in read_error(capsys, "interpolate", *words)
    assert [path.name for path in (tmp_path / "near").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--alphas", "1.5"], "--alphas must be at most 1, got 1.5"),
        (["--alphas", "nan"], "--alphas must be a finite number, got nan"),
        (["--alphas", "0.5", "0.5000001"], "--alphas 0.5 and 0.5000001 are written as 0.5: leave one"),
        (["--alphas", "0.9999999"], "--alphas 0.9999999 and 1.0 are written as 1: leave one"),
        (["--max_loss", "-1"], "--max_loss must be at least 0"),
        (["--streaming", "--dataset_name", "x"], "--streaming is not for `lotlip interpolate`"),
        (["--long_captions_column", ""], "There are no long captions in `--eval_split test`"),
        (["--caption_column", ""], "There are no short captions in `--eval_split test`, and no labels"),
        (["--label_column", "color"], "`--label_column color` is not a column of the dataset"),
        (["--templates", "a {}"], "--templates has no effect without --label_column"),
        (["--max_eval_samples", "3"], "has 3 rows, but a mixture is chosen on one half"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, tmp_path, capsys, others, message):
    if others[0] == "--max_eval_samples":
        words[words.index("--max_eval_samples") + 1] = others[1]
        others = []
    assert message in read_error(capsys, "interpolate", *words, *others)
    assert not (tmp_path / "near").exists()

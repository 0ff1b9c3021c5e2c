"""The examples of evaluation give what the commands give."""

import json
import sys

import pytest

from examples import evaluate_retrieval, zero_shot_classification
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.commands import run_command


def run(main, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, arguments)])
    main()


def test_retrieval(model_dir, tmp_path, monkeypatch, capsys):
    arguments = ("--model", model_dir, "--max_eval_samples", 30, "--batch_size", 7)
    expected = run_command("evaluate", tmp_path / "results.json", *arguments)
    capsys.readouterr()
    run(evaluate_retrieval.main, monkeypatch, *arguments, "--device", "cpu")
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "30 captions, 30 images"
    printed = {name: float(value) for name, value in map(str.split, lines)}
    assert printed.keys() >= {"t2i_recall@1", "i2t_recall@10", "mean_recall"}
    for name, value in printed.items():
        assert value == pytest.approx(expected[f"long_{name}"], abs=0.051), name


def test_retrieval_says_which_captions_are_missing(model_dir, monkeypatch):
    with pytest.raises(ValueError, match="0 images have a caption"):
        run(evaluate_retrieval.main, monkeypatch, "--model", model_dir, "--long_captions_column", "texts")


def test_zero_shot_classification(model_dir, tmp_path, monkeypatch, capsys):
    """The most likely class of each picture is the one that the command takes it for."""
    scenes = load_scenes(12, seed=1)
    names, templates = ["boat", "red car", "the sea", "sand"], ["a photo of {}", "{}"]
    folder = tmp_path / "photos" / "test"
    folder.mkdir(parents=True)
    rows = []
    for index, scene in enumerate(scenes):
        scene["image"].save(folder / f"{index:02}.png")
        rows.append(json.dumps({"file_name": f"{index:02}.png", "label": index % 4}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    classes = ("--class_names", *names, "--templates", *templates, "--model", model_dir)
    data = ("--dataset_name", "imagefolder", "--data_dir", folder.parent)
    expected = run_command("classify", tmp_path / "results.json", *classes, *data)
    capsys.readouterr()

    pictures = sorted(folder.glob("*.png"))
    run(zero_shot_classification.main, monkeypatch, *pictures, *classes, "--k", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [str(path) for path in pictures]
    taken = [line.split("%")[1].strip() for line in lines[1::2]]
    hits = [taken[index] == names[index % 4] for index in range(12)]
    assert 100 * sum(hits) / 12 == pytest.approx(expected["top1"]) and len(set(taken)) > 1

"""The script on what is forgotten and kept, in miniature."""

import json
import re
import runpy
import sys

import pytest

from tests.conftest import ROOT


WAYS = ["before", "after", "distilled", "interpolated", "both"]


def run_script(monkeypatch, name, *options):
    """Runs a script of the paper's questions, on the CPU."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    runpy.run_path(str(ROOT / "examples" / "paper" / name), run_name="__main__")


def test_every_way_is_measured_on_the_same_rows_and_nothing_is_reused_of_other_options(tmp_path, monkeypatch, capsys):
    models = tmp_path / "models"
    file = tmp_path / "near.json"
    common = ("--families", "CLIP", "--seeds", 3)
    folders = ("--output_dir", models, "--output_file", tmp_path / "models.json")
    small = ("--steps", 2, "--max_train_samples", 128, "--max_eval_samples", 16)
    run_script(monkeypatch, "other_models.py", *folders, *common, *small)
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "other_models.py", *folders, *common, *small, "--eval_steps", 1)
    assert re.search("was made with .*'eval_steps': 200.*, not .*'eval_steps': 1,", capsys.readouterr().err)
    folders = ("--models_dir", models, "--output_dir", tmp_path / "near", "--output_file", file)
    run_script(monkeypatch, "near.py", *folders, *common, "--num_held_back", 16)
    results = json.loads(file.read_text())
    assert results["seeds"] == [3]
    rows = results["recalls"]
    assert [row["trained"] for row in rows] == WAYS
    assert [row["alpha"] for row in rows[:3]] == [[0.0], [1.0], [1.0]]
    assert all(len(row["zero_shot_top1"]) == 1 for row in rows)
    held_back = json.loads((tmp_path / "near" / "CLIP-3" / "near" / "interpolation.json").read_text())
    assert held_back["num_rows"] == {"chosen_on": 8, "reported_on": 8}
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "near.py", *folders, *common, "--num_held_back", 8)
    assert "scenes-8'" in capsys.readouterr().err
    run_script(monkeypatch, "near.py", *folders, *common, "--num_held_back", 16, "--distill_weight", 2)
    for weight in (1, 2):
        mixture = json.loads((tmp_path / "near" / "CLIP-3" / f"distilled-{weight}-near" / "options.json").read_text())
        assert mixture["end"].endswith(f"distilled-{weight}")

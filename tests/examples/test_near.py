"""The script on what is forgotten and kept, in miniature."""

import json
import runpy
import sys

from tests.conftest import ROOT


WAYS = ["before", "after", "distilled", "interpolated", "both"]


def test_every_way_is_measured_on_the_same_rows(tmp_path, monkeypatch):
    file = tmp_path / "near.json"
    options = "--families CLIP --seeds 3 --steps 2 --max_train_samples 128 --num_held_back 16"
    argv = ["near.py", "--output_dir", str(tmp_path), "--output_file", str(file), *options.split()]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    runpy.run_path(str(ROOT / "examples" / "paper" / "near.py"), run_name="__main__")
    results = json.loads(file.read_text())
    assert results["seeds"] == [3]
    rows = results["recalls"]
    assert [row["trained"] for row in rows] == WAYS
    assert [row["alpha"] for row in rows[:3]] == [[0.0], [1.0], [1.0]]
    assert all(len(row["zero_shot_top1"]) == 1 for row in rows)
    held_back = json.loads((tmp_path / "CLIP-3" / "after-near" / "interpolation.json").read_text())
    assert held_back["num_rows"] == {"chosen_on": 8, "reported_on": 8}

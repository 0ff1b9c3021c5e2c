"""Grids of trainings: with a stand-in for the training what may happen to cells, and with the training itself."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from examples.draw_scenes import draw_scenes
from examples.paper import ablation
from examples.paper.ablation import Group, compare, make_cell, summarize
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.utils.arguments import parse
from tests.conftest import ROOT, training_argv
from tests.helpers.data_files import write_images, write_lines


# Behaves as its option says
STAND_IN = """
import argparse, os, signal, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
parser.add_argument("--behavior")
parser.add_argument("--seed", type=int)
parser.add_argument("--overwrite_output_dir", action="store_true")
parser.add_argument("--resume_from_checkpoint")
args, _ = parser.parse_known_args()
if args.behavior == "fail":
    print("10%\\r20%\\r30% of it")
    sys.exit("a reason")
if args.behavior == "wait" and not args.resume_from_checkpoint:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.mkdir(args.output_dir + "/checkpoint-1")))
    open(args.output_dir + "/is_training", "w").close()
    time.sleep(60)
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the script in this process; gives the content of `results.json` and its status."""

    def run(*arguments) -> tuple[dict, object]:
        monkeypatch.setattr(sys, "argv", ["ablation.py", "--output_dir", str(tmp_path / "out"), *map(str, arguments)])
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        status = 0
        try:
            ablation.main()
        except SystemExit as exit:
            status = exit.code
        return json.loads((tmp_path / "out" / "results.json").read_text())["groups"], status

    return run


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(ablation, "TRAINING", [sys.executable, str(script)])
    # the first seed finds its match for one of two texts, the others for both
    monkeypatch.setattr(
        ablation, "evaluate_cell", lambda cell, dataset: {"long_t2i": [1.0, float("seed=0" not in cell.folder.name)]}
    )


def set_behaviors(monkeypatch, *behaviors: str) -> None:
    settings = {behavior: {"behavior": behavior} for behavior in behaviors}
    gains = [(behaviors[-1], behaviors[0])]
    monkeypatch.setattr(ablation, "GROUPS", {"stand_in": Group("A stand-in", settings, gains)})


def test_every_setting_of_the_grid_is_trained_once_per_seed(monkeypatch, tmp_path):
    cells = ablation.list_cells(tmp_path, list(ablation.GROUPS), [0, 1])
    num_settings = sum(len(group.settings) for group in ablation.GROUPS.values())
    assert len(set(cells)) == len({cell.folder for cell in cells}) == len(cells) < 2 * num_settings, "some are shared"
    for group in ablation.GROUPS.values():
        assert {name for pair in group.gains for name in pair} <= set(group.settings)
    for cell in cells[::2]:
        command = ablation.build_command(cell, ["--config_name", "a"])
        monkeypatch.setattr(sys, "argv", command[3:])
        (args,) = parse((TrainArguments,))
        assert args.output_dir == cell.folder
        assert args.config_name == "a"
    assert args.seed in (0, 1)
    assert args.overwrite_output_dir


def test_cells_that_fail(run, stand_in, monkeypatch, tmp_path, capsys):
    set_behaviors(monkeypatch, "fail", "well")
    groups, status = run("--seeds", 0, 4)
    told = capsys.readouterr().out
    assert "behavior=fail,seed=4 ended with status 1" in told
    assert "    a reason\n" in told
    assert "    30% of it\n" in told
    assert "10%" not in told, "of a progress bar its last state"
    assert status.startswith("2 of 4 cells failed")
    rows = groups["stand_in"]["settings"]
    assert [rows[name]["seeds"] for name in ("fail", "well")] == [[], [0, 4]]
    assert rows["well"]["results"]["long_t2i"] == {"mean": 75.0, "deviation": pytest.approx(1250**0.5)}

    groups, status = run("--seeds", 4, 0, 7)
    assert status.startswith("3 of 6")
    assert groups["stand_in"]["settings"]["well"]["seeds"] == [4, 0, 7]
    logs = [tmp_path / "out" / "cells" / f"behavior={name},seed=0" / "train.log" for name in ("well", "fail")]
    starts = [path.read_text().count("stand_in.py ") for path in logs]
    assert starts == [1, 2], "what is done is not done again"


def test_a_cell_that_another_process_runs_is_left_to_it(run, stand_in, monkeypatch, tmp_path, capsys):
    set_behaviors(monkeypatch, "well")
    (tmp_path / "out" / "cells").mkdir(parents=True)
    with FileLock(tmp_path / "out" / "cells" / "behavior=well,seed=0.lock"):
        groups, status = run("--seeds", 0, 1)
    assert groups["stand_in"]["settings"]["well"]["seeds"] == [1]
    assert status == 0
    assert "is being run by another process" in capsys.readouterr().out


def test_other_arguments_are_refused(run, stand_in, monkeypatch, capsys):
    set_behaviors(monkeypatch, "well")
    run("--seeds", 0)
    with pytest.raises(ValueError, match="Give the same arguments, or name another folder"):
        run("--seeds", 0, "--learning_rate", "1e-4")
    for arguments in (["--seed", 3], ["--behavior=well"], ["--resume_from_checkpoint", "latest"]):
        assert run(*arguments)[1] == 2
        assert f"{str(arguments[0]).split('=')[0]}: this script sets it" in capsys.readouterr().err


def test_other_data_are_refused(run, stand_in, monkeypatch, tmp_path):
    set_behaviors(monkeypatch, "well")
    rows = [{"file_name": f"{index}.png", "caption": "A boat."} for index in range(2)]
    for split in ("train", "test"):
        write_images(tmp_path / "data" / split, ["0.png", "1.png"])
        write_lines(tmp_path / "data" / split / "metadata.jsonl", rows)
    options = ["--data_dir", tmp_path / "data", "--seeds"]
    run(*options, 0)
    assert run(*options, 0, 1)[0]["stand_in"]["settings"]["well"]["seeds"] == [0, 1]
    rows[1]["caption"] = "A red boat."
    write_lines(tmp_path / "data" / "train" / "metadata.jsonl", rows)
    with pytest.raises(ValueError, match="were trained on other images or captions"):
        run(*options, 0, 1, 2)


PLUGIN = """
from modeling_lotlip.losses import contrastive_loss
from modeling_lotlip.training.objectives import OBJECTIVES, Objective


def scaled(pairs, all_pairs, logit_scale, factor):
    return factor * contrastive_loss(pairs, all_pairs, logit_scale)


OBJECTIVES["scaled"] = Objective("a factor", scaled, options={"factor": 2.0}, num_corner_tokens=2, num_long_captions=1)
"""


@pytest.fixture
def write_plugin(monkeypatch, tmp_path):
    """A function that writes a plugin; what it registers is gone afterwards."""
    monkeypatch.setattr(ablation, "GROUPS", dict(ablation.GROUPS))
    known = dict(OBJECTIVES)

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    yield write
    for name in set(OBJECTIVES) - set(known):
        del OBJECTIVES[name]


def test_an_objective_of_a_plugin_is_compared_with_lotlip(run, stand_in, write_plugin, tmp_path):
    path = write_plugin("plugin_of_an_objective", PLUGIN)
    groups, status = run("--plugin", path, "--seeds", 0)
    assert status == 0
    settings = groups["plugin_of_an_objective"]["settings"]
    assert {name: row["options"] for name, row in settings.items()} == {
        "LoTLIP": {"num_corner_tokens": 2},
        "scaled": {"objective": "scaled"},
    }
    log = (tmp_path / "out" / "cells" / "objective=scaled,seed=0" / "train.log").read_text()
    assert f"--plugin {path}" in log
    path.write_text(PLUGIN.replace("2.0", "3.0"))
    sys.modules.pop("plugin_of_an_objective")  # as in a program that begins anew
    with pytest.raises(ValueError, match="were trained with another source of `--plugin"):
        run("--plugin", path, "--seeds", 0)


def test_options_go_to_the_cells_whose_objective_has_them(run, stand_in, write_plugin, tmp_path):
    path = write_plugin("plugin_with_options", PLUGIN)
    for factor in (3, 4):
        groups, status = run("--plugin", path, "--seeds", 0, "--objective_options", f"factor={factor}")
        assert status == 0
    settings = groups["plugin_with_options"]["settings"]
    assert settings["LoTLIP"]["options"] == {"num_corner_tokens": 2}
    assert settings["scaled"]["options"] == {"objective": "scaled", "objective_options": ["factor=4"]}
    cells = {folder.name for folder in (tmp_path / "out" / "cells").iterdir() if folder.is_dir()}
    scaled = {f"objective=scaled,objective_options=factor={factor},seed=0" for factor in (3, 4)}
    assert cells == {"num_corner_tokens=2,seed=0"} | scaled, "each value is a cell of its own"


@pytest.mark.parametrize(
    "word, message",
    [
        ("nosuch=1", "--objective_options nosuch=1 is no option of any objective that is compared: leave it out"),
        ("factor=a", "--objective_options factor=a must be of type float"),
        ("factor=1 factor=2", "--objective_options names factor twice: leave out one"),
    ],
)
def test_an_option_that_no_objective_takes_is_refused(run, stand_in, write_plugin, word, message):
    path = write_plugin("plugin_of_" + "".join(filter(str.isalnum, word)), PLUGIN)
    with pytest.raises(ValueError, match=message):
        run("--plugin", path, "--objective_options", *word.split())


def test_options_are_those_of_the_objective_of_all_cells(run, stand_in, write_plugin):
    lengths = {"question": "Lengths", "settings": {"8": {"max_length": 8}}, "gains": []}
    path = write_plugin("plugin_of_all_cells", f"{PLUGIN}\nGROUPS = {{'a': {lengths!r}}}")
    options = ["--objective", "scaled", "--objective_options", "factor=3"]
    groups, _ = run("--plugin", path, "--seeds", 0, *options)
    assert groups["a"]["settings"]["8"]["options"] == {"max_length": 8, "objective_options": ["factor=3"]}


def test_groups_may_come_from_a_plugin(run, stand_in, write_plugin):
    groups = {"lengths": {"question": "Lengths", "settings": {"8": {"max_length": 8}}, "gains": []}}
    path = write_plugin("plugin_of_groups", f"GROUPS = {groups!r}")
    found, status = run("--plugin", path, "--seeds", 0)
    assert status == 0
    assert list(found) == ["lengths"]
    assert found["lengths"]["settings"]["8"]["options"] == {"max_length": 8}


def test_a_plugin_without_anything_to_compare_is_refused(run, stand_in, write_plugin):
    path = write_plugin("plugin_of_nothing", "")
    with pytest.raises(ValueError, match="registers no objective and has no `GROUPS`: add one of them"):
        run("--plugin", path)


def test_tables_are_those_computed_by_hand(monkeypatch, tmp_path, capsys):
    options = {"short": {"max_length": 8}, "long": {"max_length": 20}}
    monkeypatch.setattr(ablation, "GROUPS", {"lengths": Group("Lengths", options, [("long", "short")])})
    # seed 2 of the longer one is not done
    hits = {("short", 0): [0, 1], ("short", 1): [0, 0], ("short", 2): [1, 1], ("long", 0): [1, 1], ("long", 1): [1, 1]}
    for (setting, seed), of_cell in hits.items():
        cell = make_cell(tmp_path / "out", options[setting], seed)
        cell.folder.mkdir(parents=True)
        (cell.folder / "queries.json").write_text(json.dumps({"long_t2i": of_cell, "long_t2i_mrr": of_cell}))
    args = argparse.Namespace(output_dir=tmp_path / "out", groups=["lengths"], seeds=[0, 1, 2])
    ablation.write_tables(args, train_args=[])
    page = (tmp_path / "out" / "results.md").read_text()
    assert page in capsys.readouterr().out
    assert "| short |  | 50.0 ± 50.0 |  |  | 3 |" in page
    assert "| long |  | 100.0 ± 0.0 |  |  | 2 |" in page
    # the gains of the two texts, over the seeds that both have, are 100 and 50
    assert "| long over short | +75.0 (+50.0 to +100.0) |  | +75.0 (+50.0 to +100.0) |  |" in page


def test_gains_are_paired():
    """Both settings differ much between texts, but one always finds what the other finds, and one text more."""
    other = {0: {"long_t2i": [float(text % 2) for text in range(400)]}}
    one = {0: {"long_t2i": [1.0, *other[0]["long_t2i"][1:]]}, 1: {"long_t2i": [0.0] * 400}}
    gain = compare(one, other)["long_t2i"]
    assert gain["gain"] == pytest.approx(0.25)
    assert gain["interval"][0] >= -1e-6
    assert gain["interval"][1] < 1.01
    assert compare({3: one[1]}, other) == {}
    assert summarize({3: one[1]})["long_t2i"] == {"mean": 0.0, "deviation": None}


def test_a_stopped_grid_goes_on(run, stand_in, monkeypatch, tmp_path, capsys):
    """SIGINT while a cell trains reaches the training, and the same command goes on."""
    set_behaviors(monkeypatch, "wait", "well")
    cell = tmp_path / "out" / "cells" / "behavior=wait,seed=0"

    def interrupt():
        while not (cell / "is_training").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    groups, status = run("--seeds", 0)
    assert status == 130
    assert "The same command resumes" in capsys.readouterr().out
    assert (cell / "checkpoint-1").exists()
    assert [row["seeds"] for row in groups["stand_in"]["settings"].values()] == [[], []]

    groups, status = run("--seeds", 0)
    assert status == 0
    assert "--resume_from_checkpoint latest" in (cell / "train.log").read_text()
    assert [row["seeds"] for row in groups["stand_in"]["settings"].values()] == [[0], [0]]


def test_a_cell_is_trained_and_evaluated_on_images(run, monkeypatch, tmp_path):
    """With the training itself, whose evaluation has the same recall."""
    for seed, split in enumerate(("train", "test")):
        draw_scenes(tmp_path / "photos" / split, 12, seed)
    monkeypatch.setattr(ablation, "GROUPS", {"corners": Group("Corners", {"3": {"num_corner_tokens": 3}}, [])})
    # training_argv names the command and the output folder first
    options = training_argv(tmp_path, "out", max_train_steps=2)[5:]
    groups, status = run("--seeds", 0, "--data_dir", tmp_path / "photos", *options)
    cell = tmp_path / "out" / "cells" / "num_corner_tokens=3,seed=0"
    assert status == 0, (cell / "train.log").read_text()
    evaluated = json.loads((cell / "eval_results.json").read_text())
    results = groups["corners"]["settings"]["3"]["results"]
    for name in ("long_i2t", "long_t2i", "short_i2t", "short_t2i"):
        assert results[name]["mean"] == pytest.approx(evaluated[f"{name}_recall@1"])
    assert len(json.loads((cell / "queries.json").read_text())["long_t2i"]) == 12

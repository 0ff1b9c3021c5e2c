"""Grids of trainings: with a stand-in for the training script what may happen to cells, and with the script itself."""

import csv
import fcntl
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from examples.paper import ablation
from examples.paper.ablation import AblationArguments, Group, make_cell
from modeling_lotlip.arguments import parse
from modeling_lotlip.benchmarking.flops import build_meta_model, count_text_flops
from modeling_lotlip.training.arguments import TrainArguments
from tests.conftest import ROOT, tiny_config, training_argv


# Behaves as its option says, and writes the seed as its result.
STAND_IN = """
import argparse, json, os, signal, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir", type=Path)
parser.add_argument("--behaviour")
parser.add_argument("--seed", type=int)
parser.add_argument("--overwrite_output_dir", action="store_true")
parser.add_argument("--resume_from_checkpoint")
args = parser.parse_args()
if args.behaviour == "fail":
    print("10%\\r20%\\r30% of it")
    sys.exit("a reason")
if args.behaviour == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if args.behaviour == "meet":  # waits for the two cells beside it, and would for ever if cells ran alone
    while len(list(args.output_dir.parent.glob("behaviour=meet*/*.log"))) < 2:
        time.sleep(0.01)
results = {"long_t2i_recall@1": float(args.seed), "processes": int(os.environ["LOCAL_WORLD_SIZE"])}
(args.output_dir / "eval_results.json").write_text(json.dumps(results))
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
    monkeypatch.setattr(ablation, "TRAINING_PROGRAM", [str(script)])


def set_behaviours(monkeypatch, *behaviours: str) -> None:
    settings = {behaviour: {"behaviour": behaviour} for behaviour in behaviours}
    monkeypatch.setattr(ablation, "GROUPS", {"stand_in": Group("A stand-in", settings)})


def num_starts(folder: Path) -> int:
    return (folder / "train.log").read_text().count("stand_in.py ")


def test_the_grid(monkeypatch, tmp_path):
    cells = ablation.list_cells(list(ablation.GROUPS), [0, 1])
    num_settings = sum(len(group.settings) for group in ablation.GROUPS.values())
    # both, and both with corners, of the captions; none and all sub-captions; 126 tokens; LoTLIP among the objectives,
    # without hard negatives, with whole embeddings, and with whole images
    shared = 2 + 1 + 1 + 1 + 1 + 1 + 1 + 1
    assert len(set(cells)) == len({cell.name for cell in cells}) == len(cells) == 2 * (num_settings - shared)
    for cell in cells:
        command = ablation.build_command(cell, tmp_path, ["--config_name", "a"])
        monkeypatch.setattr(sys, "argv", command[1:])
        (args,) = parse((TrainArguments,))
        assert args.output_dir == tmp_path / "cells" / cell.name and args.config_name == "a"
    assert args.seed == 1 and args.overwrite_output_dir


def test_cells_that_fail(run, stand_in, monkeypatch, tmp_path, capsys):
    set_behaviours(monkeypatch, "fail", "die", "well")
    groups, status = run("--seeds", 0, 4, "--num_parallel", 2)
    told = capsys.readouterr().out
    assert "behaviour=fail,seed=4 ended with status 1" in told and "    a reason\n" in told
    assert "    30% of it\n" in told and "10%" not in told, "of a progress bar its last state"
    assert "behaviour=die,seed=0 was ended by SIGKILL" in told
    assert status.startswith("4 of 6 cells failed")
    rows = groups["stand_in"]
    assert [rows[name]["seeds"] for name in ("fail", "die", "well")] == [[], [], [0, 4]]
    assert rows["well"]["results"]["long_t2i_recall@1"]["mean"] == 2
    assert rows["well"]["results"]["processes"]["values"] == [2, 2], "cells know how many share the machine"

    set_behaviours(monkeypatch, "fail", "well")
    groups, status = run("--seeds", 4, 0, 7)
    assert status.startswith("3 of 6") and groups["stand_in"]["well"]["seeds"] == [4, 0, 7]
    starts = {seed: num_starts(tmp_path / "out" / "cells" / f"behaviour=well,seed={seed}") for seed in (0, 4, 7)}
    assert starts == {0: 1, 4: 1, 7: 1}, "what is done is not done again"
    assert num_starts(tmp_path / "out" / "cells" / "behaviour=fail,seed=0") == 2


def test_cells_run_at_the_same_time(run, stand_in, monkeypatch):
    set_behaviours(monkeypatch, "meet")
    groups, status = run("--seeds", 0, 1, "--num_parallel", 3)
    assert status == 0 and groups["stand_in"]["meet"]["seeds"] == [0, 1]


def test_a_cell_that_another_process_runs_is_left_to_it(run, stand_in, monkeypatch, tmp_path, capsys):
    set_behaviours(monkeypatch, "well")
    folder = tmp_path / "out" / "cells" / "behaviour=well,seed=0"
    folder.mkdir(parents=True)
    with open(folder / "train.log", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        groups, status = run("--seeds", 0, 1)
    assert groups["stand_in"]["well"]["seeds"] == [1] and status.startswith("1 of 2")
    assert "is being run by another process" in capsys.readouterr().out
    assert run("--seeds", 0)[1] == 0


def test_other_arguments_are_refused(run, stand_in, monkeypatch, capsys):
    set_behaviours(monkeypatch, "well")
    run("--seeds", 0)
    with pytest.raises(ValueError, match="Give the same arguments, or name another folder"):
        run("--seeds", 0, "--learning_rate", "1e-4")
    for arguments in (["--seed", 3], ["--behaviour=well"], ["--resume_from_checkpoint", "latest"]):
        assert run(*arguments)[1] == 2
        assert f"{str(arguments[0]).split('=')[0]}: this script sets it" in capsys.readouterr().err


def test_tables_by_hand(monkeypatch, tmp_path, capsys):
    options = {"short": {"max_length": 8}, "long": {"max_length": 20}}
    groups = {
        "lengths": Group("Lengths", options, is_against_flops=True),
        "same": Group("The same", {"one": {"max_length": 20}}, is_timed=True),
    }
    monkeypatch.setattr(ablation, "GROUPS", groups)
    # seed 2 of the longer one is not done
    recalls = {("short", 0): 10.0, ("short", 1): 14.0, ("short", 2): 24.0, ("long", 0): 50.0, ("long", 1): 53.0}
    for (setting, seed), recall in recalls.items():
        folder = tmp_path / "cells" / make_cell(options[setting], seed).name
        tiny_config().save_pretrained(folder)
        (folder / "training_args.json").write_text(json.dumps(options[setting]))
        results = {"long_t2i_recall@1": recall, "long_num_images": 256}
        (folder / "eval_results.json").write_text(json.dumps(results))
        rows = [{"images_per_second": seed + speed} for speed in (1, 8, 9)] + [{"long_t2i_recall@1": recall}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = AblationArguments(tmp_path, ["lengths", "same"], [0, 1, 2], train_args=["--image_size", "32"])
    ablation.write_tables(args)

    model = build_meta_model(tiny_config())
    mflops = [f"{count_text_flops(model, length) / 1e6:.4g}" for length in (8, 20)]
    # the deviation of 10, 14, 24 is the root of (36 + 4 + 64) / 2, that of 50, 53 of (2.25 + 2.25) / 1
    page = f"""## Lengths

| setting | text tower, MFLOPs | long T2I R@1 | seeds |
| --- | --- | --- | --- |
| short | {mflops[0]} | 16.0 ± 7.2 | 3 |
| long | {mflops[1]} | 51.5 ± 2.1 | 2 |

## The same

| setting | images a second | long T2I R@1 | seeds |
| --- | --- | --- | --- |
| one | 8.5 ± 0.7 | 51.5 ± 2.1 | 2 |
"""
    assert (tmp_path / "results.md").read_text() == page and page in capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["train_args"] == ["--image_size", "32"]
    short = written["groups"]["lengths"]["short"]
    assert short["seeds"] == [0, 1, 2] and short["options"] == {"max_length": 8}
    assert short["results"]["long_t2i_recall@1"] == {
        "mean": 16.0,
        "deviation": pytest.approx(52**0.5),
        "values": [10.0, 14.0, 24.0],
    }
    with open(tmp_path / "results.csv", newline="") as file:
        lines = {(line["group"], line["setting"], line["result"]): line for line in csv.DictReader(file)}
    assert len(lines) == 6
    line = lines["same", "one", "long_t2i_recall@1"]
    assert (line["seeds"], float(line["mean"]), float(line["deviation"])) == ("2", 51.5, pytest.approx(4.5**0.5))
    for name in args.groups:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.convert("L").getextrema() != (255, 255)


def test_a_single_seed_has_no_deviation():
    row = {"seeds": [3], "results": {"zero_shot_top1": ablation.summarize([25.0])}}
    assert ablation.format_table({"one": row}).endswith("| one | 25.0 | 1 |")


def test_a_dry_run_prints_the_commands_of_what_is_not_done(stand_in, monkeypatch, tmp_path, capsys):
    set_behaviours(monkeypatch, "well", "other")
    done = tmp_path / "out" / "cells" / "behaviour=well,seed=0"
    done.mkdir(parents=True)
    (done / "eval_results.json").write_text("{}")
    stopped = tmp_path / "out" / "cells" / "behaviour=other,seed=0" / "checkpoint-7"
    stopped.mkdir(parents=True)
    (stopped / "training_state.json").write_text("{}")
    arguments = f"--output_dir {tmp_path / 'out'} --dry_run --seeds 0 1 --image_size 8"
    monkeypatch.setattr(sys, "argv", ["ablation.py", *arguments.split()])
    ablation.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("--behaviour ")[1].split()[0] for line in lines] == ["other", "well", "other"]
    assert lines[0].endswith("--resume_from_checkpoint latest") and lines[1].endswith("--overwrite_output_dir")
    assert all("--image_size 8" in line for line in lines)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells"], "nothing is written"


def test_a_stopped_grid_goes_on(run, monkeypatch, tmp_path, capsys):
    """With the training script: SIGINT while a cell trains, and the same command again."""
    monkeypatch.setattr(ablation, "GROUPS", {"corners": Group("Corners", {"3": {"num_corner_tokens": 3}})})
    # training_argv names the command and the output folder first
    options = training_argv(tmp_path, "out", logging_steps=1, eval_steps=1000, max_train_steps=80)[5:]
    arguments = ["--seeds", 0, "--num_parallel", 2, *options]
    cell = tmp_path / "out" / "cells" / "num_corner_tokens=3,seed=0"
    has_ended = threading.Event()

    def interrupt() -> None:
        while not (cell / "metrics.jsonl").exists():
            if has_ended.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    groups, status = run(*arguments)
    has_ended.set()
    thread.join()
    assert status == 130 and "The same command resumes" in capsys.readouterr().out
    assert len(list(cell.glob("checkpoint-*"))) == 1 and groups["corners"]["3"]["seeds"] == []

    groups, status = run(*arguments)
    assert status == 0 and "Resuming from" in (cell / "train.log").read_text()
    results = json.loads((cell / "eval_results.json").read_text())
    assert {metric: row["mean"] for metric, row in groups["corners"]["3"]["results"].items()} == pytest.approx(results)
    assert json.loads((cell / "config.json").read_text())["text_config"]["num_corner_tokens"] == 3

"""What the benchmarks share."""

import json

import pytest
import torch
from scaffold import timing
from scaffold.original import build_lotlip
from scaffold.timing import (
    BenchmarkArguments,
    encoder_flops,
    matrix_product_ceiling,
    measure,
    peak_memory,
    report,
    set_up,
    write_results,
)
from torch.utils.flop_counter import FlopCounterMode


def test_operations_are_those_that_torch_counts():
    model = build_lotlip(layers=2, device="cpu")
    model.set_attn_implementation("eager")  # the fused kernel of the CPU is not counted
    input_ids = torch.randint(5, 1000, (3, 50))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.text_model(input_ids)
    pooler = 2 * 3 * 768**2
    assert counter.get_total_flops() - pooler == encoder_flops(3 * 50, 50, num_layers=2)


def test_variants_take_turns_and_the_first_does_not_count():
    calls = []
    seconds = measure({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2, device="cpu")
    assert calls == ["a", "b"] * 3 and [len(times) for times in seconds.values()] == [2, 2]


def test_another_ending_than_that_of_json_is_refused(tmp_path):
    for arguments in (BenchmarkArguments,):
        with pytest.raises(ValueError, match="r.csv must end in .json."):
            arguments(output_file=tmp_path / "r.csv")
        arguments(output_file=tmp_path / "r.json")


def test_ratios_are_those_of_turns():
    """A machine that is slower in one turn is slower for all of them."""
    seconds = {"base": [1.0, 2.0, 9.0], "fast": [0.5, 1.0, 3.0]}
    args = BenchmarkArguments(device="cpu", threads=1)
    table = report("title", seconds, "base", args, ceilings={"base": 10, "fast": 10}, flops={"base": 4, "fast": 5})
    assert table["rows"]["fast"]["ratio"] == 2.0 and table["rows"]["base"]["ratio"] == 1.0
    assert table["rows"]["fast"]["median"] == 1.0 and table["rows"]["fast"]["share_of_ceiling"] == 0.5
    assert table["rows"]["base"]["share_of_ceiling"] == 0.2


def test_the_ceiling_counts_multiplications_and_additions(monkeypatch):
    monkeypatch.setattr(timing, "measure", lambda variants, repeats, device: {name: [2.0] for name in variants})
    assert matrix_product_ceiling("cpu", torch.float32, size=8) == 8**3


def test_threads_and_seed_are_set():
    before, drawn = torch.get_num_threads(), []
    for threads in (2, 1):
        set_up(BenchmarkArguments(device="cpu", threads=threads))
        assert torch.get_num_threads() == threads
        drawn.append(torch.rand(1).item())
    torch.set_num_threads(before)
    assert drawn[0] == drawn[1]


def test_memory_is_in_bytes(capsys):
    assert 5e7 < peak_memory("cpu") < 1e11  # the tests' own process
    args = BenchmarkArguments(device="cpu", threads=1)
    table = report("title", {"base": [1.0]}, "base", args, memory={"base": 2_500_000_000})
    assert "| 2.50 GB |" in capsys.readouterr().out and table["rows"]["base"]["peak_memory"] == 2_500_000_000


def test_results_are_written_with_settings_and_machine(tmp_path):
    args = BenchmarkArguments(device="cpu", threads=1, repeats=2, output_file=tmp_path / "r.json")
    write_results([{"title": "one"}, {"title": "two"}], args)
    written = json.loads(args.output_file.read_text())
    assert [table["title"] for table in written["tables"]] == ["one", "two"]
    assert written["settings"] == {"device": "cpu", "threads": 1, "repeats": 2, "output_file": str(args.output_file)}
    machine = written["machine"]
    assert machine["device"] == "cpu" and machine["threads"] == 1 and machine["torch"] == torch.__version__
    assert machine["processor"] and not machine["processor"].startswith("model name")

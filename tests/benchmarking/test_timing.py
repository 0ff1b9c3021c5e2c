"""What the benchmarks share."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from examples.paper.flops import FlopsArguments
from modeling_lotlip.benchmarking.original import build_lotlip
from modeling_lotlip.benchmarking.timing import BenchmarkArguments, encoder_flops, measure, report


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
    for arguments in (BenchmarkArguments, FlopsArguments):
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

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the benchmarks share: arguments, timing in turns, the machine's ceiling, tables.

`torch.utils.benchmark` measures one statement after the other, so that a machine whose speed drifts favours one of
them; here variants take turns, and ratios are those of turns.
"""

import dataclasses
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from modeling_lotlip.arguments import Arguments, argument, check_output_file
from modeling_lotlip.files import write_json


@dataclass
class BenchmarkArguments(Arguments):
    """The arguments of every benchmark."""

    device: str | None = argument(None, "Such as `cpu` or `cuda`. Default: CUDA if there is one.")
    threads: int = argument(os.cpu_count(), "Threads of the CPU.", least=1)
    repeats: int = argument(5, "Measurements of each variant, after a warm-up.", least=1)
    output_file: Path | None = argument(None, "Write the measurements to this JSON file.")

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file)
        if self.device is None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class TowerBenchmarkArguments(BenchmarkArguments):
    """The arguments of the benchmarks that run the towers."""

    layers: int = argument(12, "Layers of both towers.", least=1)
    dtypes: list[str] = argument(
        ["float32", "bfloat16"], "What is computed in.", choices=("float32", "bfloat16", "float16")
    )


def set_up(args: BenchmarkArguments) -> None:
    """Threads and seed, the same for all benchmarks."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)


def measure(variants: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, list[float]]:
    """
    Seconds of each variant, measured in turns (A B C A B C ...), so that a machine whose speed drifts is fair to all.

    Args:
        variants (`dict[str, Callable]`):
            What to run, by name. Each is run once before, uncounted.
        repeats (`int`):
            Counted runs of each.
        device (`str`):
            The device that they compute on.
    """
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            if repeat > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def matrix_product_ceiling(device: str, dtype: torch.dtype, size: int = 4096, repeats: int = 3) -> float:
    """Floating-point operations per second of a large square matrix product, the most that this machine gives."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = measure({"product": lambda: left @ right}, repeats, device)["product"]
    return 2 * size**3 / statistics.median(seconds)


def encoder_flops(num_tokens: int, length: int, hidden_size: int = 768, num_layers: int = 12) -> int:
    """
    Floating-point operations of a transformer encoder with feed-forward layers four times as wide.

    Args:
        num_tokens (`int`):
            Tokens in all sequences, padding included.
        length (`int`):
            Length of a sequence.
    """
    return num_tokens * num_layers * (24 * hidden_size**2 + 4 * length * hidden_size)


def report(
    title: str,
    seconds: dict[str, list[float]],
    baseline: str,
    args: BenchmarkArguments,
    ceilings: dict[str, float] | None = None,
    flops: dict[str, float] | None = None,
    memory: dict[str, int] | None = None,
) -> dict:
    """
    Prints a table of measurements and returns it.

    Args:
        title (`str`):
            What was done.
        seconds (`dict[str, list[float]]`):
            The result of `measure`.
        baseline (`str`):
            The variant that the ratios are of.
        args (`BenchmarkArguments`):
            The benchmark's arguments.
        ceilings (`dict[str, float]`, *optional*):
            Operations per second that the machine gives at most, for each variant.
        flops (`dict[str, float]`, *optional*):
            Operations of each variant.
        memory (`dict[str, int]`, *optional*):
            The most memory that each variant needs, in bytes.

    Returns:
        `dict`: the median, least and largest seconds of each variant, and the `ratio` of its speed to the baseline's:
        the median over the turns, in which the two were measured one after the other.
    """
    print(f"\n{title} ({args.device}, {args.threads} threads)\n")
    header = "| variant | median | min | max | times the baseline's speed |"
    header += " share of the matrix product's |" if flops else ""
    header += " peak memory |" if memory else ""
    print(header, "|" + " --- |" * (header.count("|") - 1), sep="\n")
    rows = {}
    for name, times in seconds.items():
        ratios = [reference / time for reference, time in zip(seconds[baseline], times)]
        row = {"median": statistics.median(times), "min": min(times), "max": max(times)}
        row["ratio"] = statistics.median(ratios)
        line = "| {name} | {median:.3f} s | {min:.3f} s | {max:.3f} s | {ratio:.2f} |".format(name=name, **row)
        if flops:
            row["share_of_ceiling"] = flops[name] / row["median"] / ceilings[name]
            line += f" {row['share_of_ceiling']:.0%} |"
        if memory:
            row["peak_memory"] = memory[name]
            line += f" {memory[name] / 1e9:.2f} GB |"
        print(line, flush=True)
        rows[name] = row
    return {"title": title, "baseline": baseline, "rows": rows}


def processor_name() -> str:
    """The processor as Linux calls it, or as Python does elsewhere."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory(device: str) -> int:
    """The most memory that this process has had so far on a device, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    if Path("/proc/self/status").exists():  # `ru_maxrss` counts what the process was before it ran this program
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_results(tables: list[dict], args: BenchmarkArguments) -> None:
    """Writes tables, settings and the machine to `--output_file`."""
    if args.output_file is None:
        return
    machine = {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu",
        "threads": args.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    settings = dataclasses.asdict(args) | {"output_file": str(args.output_file)}
    write_json(args.output_file, {"machine": machine, "settings": settings, "tables": tables})

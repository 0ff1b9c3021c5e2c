# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
All that is worth measuring on a GPU, benchmark after benchmark: embedding by dtype, and by attention with and without
corner tokens; a training step in bfloat16 and float16, padded and in groups of like length, with sharded parameters
(FSDP2), and its largest batch; ranks; exact search on the GPU and on the CPU.

    python examples/benchmarks/gpu.py --output_dir results
    python examples/benchmarks/gpu.py --output_dir results --device cpu --layers 1 --size 2

A CPU has no largest batch, and no fast product in float16: there both are left out. `flash_attention_2` is measured if
the package flash-attn is installed. Packed texts are not measured: the model takes a text in each row.

What each benchmark prints is shown as it comes; its measurements go to a JSON file of its own in the folder. One that
fails, for want of memory or of a package, is named at the end; the others are measured all the same.
"""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse


FOLDER = Path(__file__).parent


@dataclass
class GpuArguments(Arguments):
    """What is measured, and how much of it."""

    output_dir: Path = argument(Path("gpu-results"), "Where the measurements go, a JSON file for each benchmark.")
    device: str = argument("cuda", "The device. `cpu` shows that all of it runs.")
    layers: int = argument(12, "Layers of both towers.", least=1)
    size: int = argument(256, "Texts and images in a batch.", least=2)
    rows: int = argument(100_000, "Images, and texts, that are ranked; vectors that are searched.", least=50)
    repeats: int = argument(5, "Measurements of each variant, after a warm-up.", least=1)
    only: list[str] = argument([], "Some of the benchmarks, by their names. Default: all.")

    def __post_init__(self):
        super().__post_init__()
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(
                f"--device {self.device}: PyTorch sees no GPU. `--device cpu --layers 1 --size 2` is a try."
            )
        if unknown := set(self.only) - set(list_benchmarks(self)):
            raise ValueError(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(list_benchmarks(self))}.")


def list_benchmarks(args: GpuArguments) -> dict[str, list]:
    """The arguments of each benchmark, script first, by its name."""
    towers = ["--layers", args.layers]
    batch = ["--texts", args.size, "--images", args.size]
    half = ["bfloat16", *(["float16"] if args.device.startswith("cuda") else [])]
    flash = ["flash_attention_2"] if importlib.util.find_spec("flash_attn") else []
    step = ["train_step.py", *towers, "--dtypes", *half]
    padded_and_in_groups = ["--variants", "bfloat16, cached, padded", "bfloat16, cached"]
    benchmarks = {
        "dtypes": ["embed.py", *towers, *batch, "--dtypes", "float32", *half, "--compile"],
        "attention": ["embed.py", *towers, *batch, "--dtypes", "bfloat16"],
        "corners": ["embed.py", *towers, *batch, "--dtypes", "bfloat16", "--corners"],
        "step": [*step, "--images", args.size, "--share_of_peak"],
        "lengths": [*step, "--images", args.size, "--share_of_peak", "--lengths", "mean_46", *padded_and_in_groups],
        "fsdp": ["fsdp.py", *towers, "--images", args.size],
        "ranks": ["rank.py", "--images", args.rows, "--no_full_matrix"],
        "search": ["search.py", "--num_vectors", args.rows, "--methods", "exact"],
    }
    benchmarks["attention"] += ["--attn_implementation", "sdpa", "eager", *flash]
    benchmarks["corners"] += ["--attn_implementation", "sdpa", "eager", "flex_attention"]
    if args.device.startswith("cuda"):
        benchmarks["largest_batch"] = [*step, "--largest_batch"]
    return benchmarks


def main() -> None:
    (args,) = parse((GpuArguments,), description=__doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, (script, *options) in list_benchmarks(args).items():
        if args.only and name not in args.only:
            continue
        shared = [
            "--device",
            args.device,
            "--repeats",
            args.repeats,
            "--output_file",
            args.output_dir / f"{name}.json",
        ]
        command = [sys.executable, FOLDER / script, *options, *shared]
        print(f"\n# {name}: {' '.join(map(str, [script, *options]))}", flush=True)
        if subprocess.run([str(part) for part in command]).returncode != 0:
            failed.append(name)
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}. What went wrong stands above.")


if __name__ == "__main__":
    with exit_on_error("gpu.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[sentence-transformers]"]
# ///
"""
What is worth measuring on a GPU: embedding by precision and by attention, a training step, ranks.

    python examples/benchmarks/gpu.py --output_dir results
    python examples/benchmarks/gpu.py --output_dir results --device cpu --layers 1 --size 4

`flash_attention_2` is measured if the package flash-attn is installed.

What each benchmark prints is shown as it comes; its measurements go to a JSON file of its own in the folder. One that
fails, for want of memory or of a package, is named at the end; the others are measured all the same.
"""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse


FOLDER = Path(__file__).parent


@dataclass
class GpuArguments(Arguments):
    """What is measured, and how much of it."""

    output_dir: Path = argument(Path("gpu-results"), "Where the measurements go, a JSON file for each benchmark.")
    device: str = argument("cuda", "The device. `cpu` shows that all of it runs.")
    layers: int = argument(12, "Layers of both towers.", least=1)
    size: int = argument(256, "Texts in a batch.", least=4)
    rows: int = argument(100_000, "Images, and texts, that are ranked.", least=50)
    repeats: int = argument(5, "Measurements of each variant, after a warm-up.", least=1)
    only: list[str] = argument([], "Some of the benchmarks, by their names. Default: all.")

    def __post_init__(self):
        super().__post_init__()
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(
                f"--device {self.device}: PyTorch sees no GPU. `--device cpu --layers 1 --size 4` is a try."
            )
        benchmarks = list_benchmarks(self)
        for name in self.only:
            if name not in benchmarks:
                raise ValueError(f"--only {name} is none of {', '.join(benchmarks)}: give some of these.")


def list_benchmarks(args: GpuArguments) -> dict[str, list]:
    """Returns the arguments of each benchmark, script first, by its name."""
    towers = ["--layers", args.layers]
    precisions = ["float32", "bfloat16"]
    if args.device.startswith("cuda"):
        precisions.append("float16")
    attentions = ["sdpa", "eager"]
    if importlib.util.find_spec("flash_attn") is not None:
        attentions.append("flash_attention_2")
    embed = ["embed.py", *towers, "--size", args.size, "--workloads", "short", "long", "images"]
    both = ["--variants", "float32", "bfloat16"]
    return {
        "precisions": [*embed, "--variants", "original", *precisions],
        "attention": [*embed, *both, "--attn_implementation", *attentions],
        "step": ["train_step.py", *towers, "--images", args.size],
        "ranks": ["rank.py", "--images", args.rows, "--no_full_matrix"],
    }


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

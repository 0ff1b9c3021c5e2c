# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
Start-up, each in a fresh process: importing the package, `lotlip search` on
a folder that is indexed, and what `lotlip` answers at once.

    python examples/benchmarks/startup.py
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scaffold import BenchmarkArguments, build_lotlip, build_processor, measure, report, write_results

from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


@dataclass
class StartupArguments(BenchmarkArguments):
    """What is measured."""

    layers: int = argument(12, "Layers of both towers.", least=1)
    images: int = argument(60, "Images of the folder that is searched.", least=1)


# What answers without torch, beside a Python that does nothing: the exit status, and the arguments of Python
ANSWERS = {
    "python -c pass": (0, "-c", "pass"),
    "lotlip --help": (0, "-m", "lotlip", "--help"),
    "lotlip evaluate --help": (0, "-m", "lotlip", "evaluate", "--help"),
    "lotlip evaluate --wrong": (2, "-m", "lotlip", "evaluate", "--wrong"),
}
AT_ONCE = 0.5  # seconds

# What a search imports of others' libraries
LIBRARIES = "import torch, datasets, lancedb; from transformers import CLIPModel, CLIPProcessor"
IMPORTS = {
    "CLIP": ("from transformers import AutoModelForZeroShotImageClassification, CLIPModel, CLIPProcessor"),
    "modeling_lotlip": "from modeling_lotlip import LotlipModel, LotlipProcessor",
}


def answer(status: int, *command: str) -> None:
    """Runs a program of Python, which must end with this exit status and no traceback."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode != status or "Traceback" in done.stderr:
        raise RuntimeError(f"`python {' '.join(command)}` ended with status {done.returncode}: {done.stderr}")


def measure_imports(args: StartupArguments) -> dict:
    """Measures whole processes: importing the package, beside CLIP's classes."""
    variants = {name: partial(answer, 0, "-c", statement) for name, statement in IMPORTS.items()}
    return report("Imports, whole processes", measure(variants, args.repeats, "cpu"), "CLIP", args)


def measure_answers(args: StartupArguments) -> dict:
    """Measures whole processes: what `lotlip` answers without importing torch."""
    variants = {name: partial(answer, *command) for name, command in ANSWERS.items()}
    seconds = measure(variants, args.repeats, "cpu")
    table = report("Answers, whole processes", seconds, "python -c pass", args)
    late = [name for name, row in table["rows"].items() if row["median"] > AT_ONCE]
    if late:
        print(f"\nWithin {AT_ONCE} s: not {', '.join(late)}.")
    else:
        print(f"\nWithin {AT_ONCE} s: all of them.")
    return {**table, "late": late}


def make_collection(folder: Path, args: StartupArguments) -> tuple[str, ...]:
    """Saves a model and images of noise in a folder, and returns the arguments of Python that search in them."""
    words, processor = build_processor(30_522)
    build_lotlip(args.layers, "cpu").save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    images = folder / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for index in range(args.images):
        pixels = generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{index}.png")
    return (
        *("-m", "lotlip", "search", str(images), " ".join(words[:8])),
        *("--model", str(folder / "model")),
        *("--index_dir", str(folder / "index")),
        *("--device", "cpu"),
    )


def measure_search(args: StartupArguments) -> dict:
    """Measures whole processes: `lotlip search` in an indexed folder, beside a Python that imports the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        search = make_collection(Path(folder), args)
        variants = {
            "imports of libraries": partial(answer, 0, "-c", LIBRARIES),
            # the first time, which does not count, makes the index
            "lotlip search": partial(answer, 0, *search),
            "lotlip search, float32": partial(answer, 0, *search, "--backend", "torch", "--dtype", "float32"),
        }
        seconds = measure(variants, args.repeats, "cpu")
    return report(f"Search in {args.images} images, whole processes", seconds, "imports of libraries", args)


def main() -> None:
    (args,) = parse((StartupArguments,), description=__doc__)
    tables = [measure_imports(args), measure_search(args), measure_answers(args)]
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("startup.py"):
        main()

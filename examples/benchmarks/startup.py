# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Start-up, each in a fresh process: importing the package, loading a checkpoint of the released size, `lotlip search` on
a folder that is indexed, and what `lotlip` answers at once.

    python examples/benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scaffold.original import build_lotlip, build_processor
from scaffold.timing import BenchmarkArguments, measure, report, write_results

from modeling_lotlip.arguments import argument, exit_on_error, parse


@dataclass
class StartupArguments(BenchmarkArguments):
    """What is measured."""

    layers: int = argument(12, "Layers of both towers.", least=1)
    pictures: int = argument(60, "Pictures of the folder that is searched.", least=1)


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

# Each prints the seconds of what is measured, and the memory that is then in use beyond what was before: pages of the
# process's own, and with them those of mapped files.
PROGRAM = """
import time
from pathlib import Path
import torch
{before}
def memory():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return [1024 * int(lines[name].split()[0]) for name in ("RssAnon", "VmRSS")]
used, start = memory(), time.perf_counter()
{measured}
seconds = time.perf_counter() - start
{after}
print("MEASURED", seconds, *(now - then for now, then in zip(memory(), used)))
"""

IMPORTS = {
    "CLIP": "from transformers import CLIPModel, CLIPProcessor, AutoModelForZeroShotImageClassification",
    "modeling_lotlip": "import modeling_lotlip",
    "modeling_lotlip, model and processor": "from modeling_lotlip import LotlipModel, LotlipProcessor",
}

# what loading is compared with: the file read into memory, and BERT and ViT built beside it
PLAIN = """
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, ViTConfig, ViTModel
"""
READ_AND_BUILD = """
weights = {{name: tensor.clone() for name, tensor in load_file("{folder}/model.safetensors").items()}}
fields = dict(num_hidden_layers={layers})
towers = BertModel(BertConfig(**fields)), ViTModel(ViTConfig(**fields))
"""
LOAD = 'model = LotlipModel.from_pretrained("{folder}")'
# weights stay in the mapped file until they are used
USE = "sum(float(parameter.sum()) for parameter in model.parameters())"


def run(before: str, measured: str, after: str = "") -> tuple[float, int, int]:
    """Seconds, own and whole memory in bytes of a program in a fresh process."""
    program = PROGRAM.format(before=before, measured=measured, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    _, seconds, own, whole = line.split()
    return float(seconds), int(own), int(whole)


def measure_programs(programs: dict[str, tuple[str, ...]], repeats: int) -> tuple[dict, dict, dict]:
    """Seconds of each program, in turns of which the first does not count, and its own and whole memory."""
    turns = [{name: run(*program) for name, program in programs.items()} for _ in range(repeats + 1)][1:]
    seconds = {name: [turn[name][0] for turn in turns] for name in programs}
    own, whole = ({name: int(statistics.median(turn[name][i] for turn in turns)) for name in programs} for i in (1, 2))
    return seconds, own, whole


def answer(status: int, *command: str) -> None:
    """Runs a program of Python, which must end with this exit status and no traceback."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode != status or "Traceback" in done.stderr:
        raise RuntimeError(f"`python {' '.join(command)}` ended with status {done.returncode}: {done.stderr}")


def measure_imports(args: StartupArguments) -> dict:
    """Importing the package beside CLIP's classes, after torch."""
    seconds, _, _ = measure_programs({name: ("", statement) for name, statement in IMPORTS.items()}, args.repeats)
    return report("Import, after torch", seconds, "CLIP", args)


def measure_loading(args: StartupArguments) -> dict:
    """Loading a checkpoint beside reading its file and building plain towers."""
    with tempfile.TemporaryDirectory() as folder:
        build_lotlip(args.layers, "cpu").save_pretrained(folder)
        size = (Path(folder) / "model.safetensors").stat().st_size
        programs = {
            "file read, plain towers built": (PLAIN, READ_AND_BUILD.format(folder=folder, layers=args.layers)),
            "from_pretrained": (IMPORTS["modeling_lotlip, model and processor"], LOAD.format(folder=folder), USE),
        }
        seconds, own, whole = measure_programs(programs, args.repeats)
    table = report(f"Loading {size / 1e6:.0f} MB", seconds, "file read, plain towers built", args, memory=whole)
    print(
        f"\nOf the memory of from_pretrained {own['from_pretrained'] / 1e6:.0f} MB are its own, the rest is the file."
    )
    return {**table, "file_size": size, "own_memory": own}


def measure_answers(args: StartupArguments) -> dict:
    """Whole processes: what `lotlip` answers without importing torch."""
    variants = {name: partial(answer, *command) for name, command in ANSWERS.items()}
    seconds = measure(variants, args.repeats, "cpu")
    table = report("Answers, whole processes", seconds, "python -c pass", args)
    late = [name for name, row in table["rows"].items() if row["median"] > AT_ONCE]
    print(f"\nWithin {AT_ONCE} s: " + ("all of them." if not late else f"not {', '.join(late)}."))
    return {**table, "late": late}


def make_collection(folder: Path, args: StartupArguments) -> tuple[str, ...]:
    """Saves a model and pictures of noise in a folder. The arguments of Python that search in them."""
    words, processor = build_processor(30_522)
    for part in (build_lotlip(args.layers, "cpu"), processor):
        part.save_pretrained(folder / "model")
    pictures, noise = folder / "pictures", np.random.default_rng(0)
    pictures.mkdir()
    for number in range(args.pictures):
        Image.fromarray(noise.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    options = ("--model", str(folder / "model"), "--index_dir", str(folder / "index"), "--device", "cpu")
    return ("-m", "lotlip", "search", str(pictures), " ".join(words[:8]), *options)


def measure_search(args: StartupArguments) -> dict:
    """Whole processes: `lotlip search` on a folder that is indexed, beside a Python that imports the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        search = make_collection(Path(folder), args)
        variants = {
            "imports of libraries": partial(answer, 0, "-c", LIBRARIES),
            "lotlip search": partial(answer, 0, *search),  # the first time, which does not count, makes the index
        }
        seconds = measure(variants, args.repeats, "cpu")
    return report(f"Search in {args.pictures} pictures, whole processes", seconds, "imports of libraries", args)


def main() -> None:
    (args,) = parse((StartupArguments,), description=__doc__)
    tables = [measure_imports(args), measure_loading(args), measure_search(args), measure_answers(args)]
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("startup.py"):
        main()

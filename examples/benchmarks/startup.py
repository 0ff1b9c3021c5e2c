# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Start-up: importing the package, and loading a checkpoint of the released size, each in a fresh process.

    python examples/benchmarks/startup.py
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from modeling_lotlip.benchmarking.original import build_lotlip
from modeling_lotlip.benchmarking.timing import add_benchmark_arguments, add_model_arguments, report, write_results


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


def measure(programs: dict[str, tuple[str, ...]], repeats: int) -> tuple[dict, dict, dict]:
    """Seconds of each program, in turns of which the first does not count, and its own and whole memory."""
    turns = [{name: run(*program) for name, program in programs.items()} for _ in range(repeats + 1)][1:]
    seconds = {name: [turn[name][0] for turn in turns] for name in programs}
    own, whole = ({name: int(statistics.median(turn[name][i] for turn in turns)) for name in programs} for i in (1, 2))
    return seconds, own, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    add_model_arguments(parser)
    args = parser.parse_args()

    seconds, _, _ = measure({name: ("", statement) for name, statement in IMPORTS.items()}, args.repeats)
    tables = [report("Import, after torch", seconds, "CLIP", args)]

    with tempfile.TemporaryDirectory() as folder:
        build_lotlip(args.layers, "cpu").save_pretrained(folder)
        size = (Path(folder) / "model.safetensors").stat().st_size
        programs = {
            "file read, plain towers built": (PLAIN, READ_AND_BUILD.format(folder=folder, layers=args.layers)),
            "from_pretrained": (IMPORTS["modeling_lotlip, model and processor"], LOAD.format(folder=folder), USE),
        }
        seconds, own, whole = measure(programs, args.repeats)
    title = f"Loading {size / 1e6:.0f} MB"
    table = report(title, seconds, "file read, plain towers built", args, memory=whole)
    print(
        f"\nOf the memory of from_pretrained {own['from_pretrained'] / 1e6:.0f} MB are its own, the rest is the file."
    )
    write_results([*tables, {**table, "file_size": size, "own_memory": own}], args)


if __name__ == "__main__":
    main()

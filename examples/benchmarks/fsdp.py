# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A training step with sharded parameters (FSDP2) against one with whole parameters (DDP): seconds, and memory of a GPU.

    python examples/benchmarks/fsdp.py --images 256
    python examples/benchmarks/fsdp.py --device cpu --processes 2 --layers 2 --images 4

torchrun starts a process for each GPU of this machine, and the variants run one after the other. The image tower is
frozen; each image has one short and one long caption. With one GPU all parameters stay on it: the ratio is then the
cost of sharding without its gain.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from scaffold.original import build_lotlip
from scaffold.timing import (
    BenchmarkArguments,
    measure,
    peak_memory,
    report,
    set_up,
    write_results,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.loss import global_loss
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.step import parameter_groups


@dataclass
class FsdpArguments(BenchmarkArguments):
    """What is measured."""

    layers: int = argument(12, "Layers of both towers.", least=1)
    dtypes: list[str] = argument(["bfloat16"], "What is computed in.", choices=("float32", "bfloat16"))
    images: int = argument(8, "Images in the batch of a process.", least=1)
    short_length: int = argument(15, "Tokens of a short caption.", least=3)
    long_length: int = argument(122, "Tokens of a long caption.", least=3)
    processes: int | None = argument(None, "How many. Default: one for each GPU, or one.", least=1)
    variant: str | None = argument(None, "Measure this one, as one of the processes that torchrun started.")

    def __post_init__(self):
        super().__post_init__()
        if self.processes is None:
            self.processes = torch.cuda.device_count() if self.device.startswith("cuda") else 1


def random_batch(args: FsdpArguments, device: torch.device) -> dict[str, torch.Tensor]:
    """Pixel values, a short and a long caption of each image."""
    batch = {"pixel_values": torch.randn(args.images, 3, 224, 224, device=device)}
    for prefix, shape in (("short_", (args.short_length,)), ("", (1, args.long_length))):
        input_ids = torch.randint(1000, 30000, (args.images, *shape), device=device)
        batch |= {f"{prefix}input_ids": input_ids, f"{prefix}attention_mask": torch.ones_like(input_ids)}
    return batch


def shard(model: ContrastiveModel, dtype: str) -> None:
    """Shards each layer, and what is left, as accelerate does with `examples/configs/fsdp2.yaml`."""
    policy = MixedPrecisionPolicy(param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32)
    for layer in [*model.model.text_model.layers, *model.model.vision_model.layers]:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy, ignored_params={model.model.logit_scale})  # a scalar cannot be sharded


def build_step(args: FsdpArguments, accelerator: Accelerator) -> Callable[[], None]:
    """A step of `--variant` on a batch of this process, with the loss of all processes."""
    dtype, way = args.variant.split(", ")
    model = ContrastiveModel(build_lotlip(args.layers, accelerator.device))
    model.model.vision_model.requires_grad_(False)
    model.train()
    if way == "sharded":  # by torch itself: accelerate shards on GPUs only
        shard(model, dtype)
        prepared = model
    else:
        prepared = accelerator.prepare(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=True)
    batch = random_batch(args, accelerator.device)

    def step() -> None:
        with torch.autocast(accelerator.device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            outputs = prepared(**batch)
            embeds = outputs.image_embeds, outputs.text_embeds
            loss = global_loss(*embeds, model.model.logit_scale, batch, OBJECTIVES["lotlip"], accelerator).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_variant(args: FsdpArguments) -> None:
    """Measures `--variant` in this process, and writes what the first process took, and the most memory of any."""
    accelerator = Accelerator(cpu=args.device == "cpu")
    seconds = measure({args.variant: build_step(args, accelerator)}, args.repeats, args.device)
    peak = torch.tensor([peak_memory(args.device)], device=accelerator.device)
    memory = int(accelerator.gather(peak).max())
    if accelerator.is_main_process:
        write_results([{"seconds": seconds[args.variant], "memory": memory}], args)
    accelerator.end_training()


def launch(variant: str, args: FsdpArguments) -> tuple[list[float], int]:
    """The seconds of the steps of a variant, and the most memory of a process in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        options = ["--variant", variant, "--output_file", str(file)]
        subprocess.run([*torchrun, str(args.processes), *sys.argv, *options], check=True, stdout=subprocess.DEVNULL)
        (table,) = json.loads(file.read_text())["tables"]
    return table["seconds"], table["memory"]


def main() -> None:
    (args,) = parse((FsdpArguments,), description=__doc__)
    set_up(args)
    if args.variant is not None:
        return measure_variant(args)
    title = f"Training step of {args.images} images on each of {args.processes} processes"
    tables = []
    for dtype in args.dtypes:
        names = [f"{dtype}, {way}" for way in ("whole", "sharded")]
        seconds, memory = {}, {}
        for name in names:
            seconds[name], memory[name] = launch(name, args)
        tables.append(report(title, seconds, names[0], args, memory=memory))
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("fsdp.py"):
        main()

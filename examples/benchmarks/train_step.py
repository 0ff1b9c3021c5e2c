# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A training step with a frozen image tower: each image with one short and one long caption, forward, backward, AdamW.

    python examples/benchmarks/train_step.py --images 8
    python examples/benchmarks/train_step.py --layers 2 --batch_sizes 8 32 128
    python examples/benchmarks/train_step.py --device cuda --largest_batch

"cached" trains from the output of the image tower (`--cache_image_features`); "with data" decodes JPEGs, crops and
tokenizes for every step, in `--workers` processes; "in chunks" encodes `--chunk_size` images at a time
(`--grad_cache_chunk_size`). Peak memory is that of a process that runs the variant alone.
"""

import io
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size
from datasets import Dataset, Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop

from modeling_lotlip.arguments import argument, parse
from modeling_lotlip.benchmarking.original import build_lotlip, build_original, build_processor
from modeling_lotlip.benchmarking.timing import (
    TowerBenchmarkArguments,
    measure,
    peak_memory,
    report,
    set_up,
    write_results,
)
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.losses import blockwise_contrastive_loss
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.gradient_cache import backward_in_chunks
from modeling_lotlip.training.loss import GlobalLoss
from modeling_lotlip.training.samples import CaptionedImages, SampleCollator
from modeling_lotlip.training.step import parameter_groups


Batch = dict[str, torch.Tensor]


@dataclass
class StepArguments(TowerBenchmarkArguments):
    """What is measured."""

    images: int = argument(8, "Images in a batch.", least=1)
    short_length: int = argument(15, "Tokens of a short caption.", least=3)
    long_length: int = argument(122, "Tokens of a long caption.", least=3)
    workers: int = argument(1, "Processes that decode and tokenize.", least=0)
    chunk_size: int = argument(4, "Images encoded at a time, in chunks.", least=1)
    variants: list[str] | None = argument(None, "Measure these only, against the first one.")
    batch_sizes: list[int] | None = argument(None, "Measure memory for so many images, and no time.", least=1)
    largest_batch: bool = argument(False, "Find the largest batch that fits (CUDA).")

    def __post_init__(self):
        super().__post_init__()
        if self.largest_batch and not self.device.startswith("cuda"):
            raise ValueError(
                f"--largest_batch needs an accelerator that says when its memory is full, not {self.device}."
            )


def random_batch(args: StepArguments) -> Batch:
    """Pixel values and captions of the lengths asked for."""
    batch = {
        "pixel_values": torch.randn(args.images, 3, 224, 224),
        "short_input_ids": torch.randint(1000, 30000, (args.images, args.short_length)),
        "input_ids": torch.randint(1000, 30000, (args.images, 1, args.long_length)),
    }
    return {name: values.to(args.device) for name, values in batch.items()}


def load_batches(args: StepArguments) -> Iterator[Batch]:
    """Batches without end, as the training script makes them from JPEGs that fill a 224 pixel crop."""
    generator, (words, processor) = random.Random(0), build_processor(30_000)
    rows = {"image": [], "caption": [], "long_captions": []}
    noise = np.random.default_rng(0)
    for _ in range(args.images):
        # noise over a gradient: about as many bytes as a photograph
        pixels = noise.integers(0, 64, (256, 320, 3)) + np.arange(320)[:, None] // 2
        file = io.BytesIO()
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(file, "jpeg", quality=90)
        rows["image"].append({"bytes": file.getvalue(), "path": None})
        rows["caption"].append(" ".join(generator.choices(words, k=args.short_length - 2)))
        rows["long_captions"].append(" ".join(generator.choices(words, k=args.long_length - 2)))
    crop = RandomResizedCrop(224, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC)
    dataset = Dataset.from_dict(rows).cast_column("image", Image())
    reader = CaptionReader(dataset.column_names, CaptionArguments())
    samples = CaptionedImages(dataset, reader, ObjectiveArguments(), crop=crop)
    batches = ([(epoch, index, False) for index in range(args.images)] for epoch in count())
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=SampleCollator(processor, args.long_length),
        num_workers=args.workers,
    )
    for batch, _ in loader:
        yield {name: values.to(args.device) for name, values in batch.items()}


def build_original_step(args: StepArguments) -> Callable[[Batch], None]:
    """All captions padded to the context length in one batch, and the image tower run in every step."""
    text_tower, image_tower = build_original(args.layers, args.device)
    text_tower.train()
    optimizer = torch.optim.AdamW(text_tower.parameters(), lr=1e-5)

    def step(batch: Batch) -> None:
        with torch.no_grad():
            image_embeds = torch.nn.functional.normalize(image_tower(batch["pixel_values"]), dim=-1)
        padding = (0, batch["input_ids"].shape[-1] - batch["short_input_ids"].shape[-1])
        short_input_ids = torch.nn.functional.pad(batch["short_input_ids"], padding)
        input_ids = torch.cat([short_input_ids, batch["input_ids"][:, 0]])
        text_embeds = torch.nn.functional.normalize(text_tower(input_ids, (input_ids > 0).long()), dim=-1)
        short_embeds, long_embeds = text_embeds.chunk(2)
        slots = torch.cat([short_embeds[:, :1], long_embeds], dim=1)
        image_text_contrastive_loss(image_embeds, slots, torch.tensor(14.3, device=args.device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def contrastive_loss(image_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor) -> GlobalLoss:
    """The loss of the training script in one process."""
    loss, slot_losses = blockwise_contrastive_loss(
        image_embeds, text_embeds, logit_scale.exp(), return_slot_losses=True
    )
    return GlobalLoss(loss, slot_losses, image_embeds.detach(), text_embeds.detach())


def build_our_step(args: StepArguments, dtype: str) -> Callable[[Batch], None]:
    """The step of `examples/train_lotlip.py`."""
    model = build_lotlip(args.layers, args.device).train()
    model.vision_model.requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=True)

    accelerator = Accelerator(cpu=args.device == "cpu")

    def step(batch: Batch, chunk_size: int | None = None) -> None:
        with torch.autocast(args.device.split(":")[0], getattr(torch, dtype), enabled=dtype != "float32"):
            if chunk_size is not None:
                backward_in_chunks(model, batch, contrastive_loss, chunk_size, accelerator)
            else:
                loss = model(**batch, return_loss=True).loss
        if chunk_size is None:
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def build_variants(args: StepArguments, names: list[str]) -> dict[str, Callable[[], None]]:
    """A step of each variant by its name."""
    batch = random_batch(args)
    cached = {name: values for name, values in batch.items() if name != "pixel_values"}
    cached["vision_pooler_output"] = torch.randn(args.images, 768, device=args.device)
    steps, variants = {}, {}
    for name in names:
        dtype, _, data = name.partition(", ")
        if dtype not in steps:
            steps[dtype] = build_original_step(args) if dtype == "original" else build_our_step(args, dtype)
        step = steps[dtype]
        if data == "with data":
            variants[name] = partial(step_with_data, step, load_batches(args))
        elif data == "in chunks":
            variants[name] = partial(step, batch, args.chunk_size)
        else:
            variants[name] = partial(step, cached if data == "cached" else batch)
    return variants


def step_with_data(step: Callable[[Batch], None], batches: Iterator[Batch]) -> None:
    """A step on the next batch."""
    step(next(batches))


def measure_memory(name: str, *options: str) -> int:
    """The most memory that a variant needs alone, with further options of this script, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        options = [*options, "--variants", name, "--repeats", "1", "--output_file", str(file)]
        subprocess.run([sys.executable, *sys.argv, *options], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())["tables"][0]["peak_memory"]


def report_memory(args: StepArguments) -> None:
    """Prints and writes the peak memory of batches of several sizes, whole and in chunks."""
    print(f"\n| images | whole | in chunks of {args.chunk_size} |\n| --- | --- | --- |")
    rows = {}
    for images in args.batch_sizes:
        options = ["--images", str(images)]
        whole, in_chunks = (measure_memory(f"float32{data}", *options) for data in ("", ", in chunks"))
        print(f"| {images} | {whole / 1e9:.2f} GB | {in_chunks / 1e9:.2f} GB |", flush=True)
        rows[str(images)] = {"whole": whole, "in_chunks": in_chunks}
    write_results([{"title": "Peak memory by images in a batch", "rows": rows}], args)


def step_once(batch_size: int, args: StepArguments, dtype: str) -> int:
    """One step with so many images, and their number."""
    (step,) = build_variants(replace(args, images=batch_size), [dtype]).values()
    step()
    return batch_size


def find_largest_batch(args: StepArguments) -> None:
    """Prints the most images whose step fits into the memory of the accelerator, to a power of 2."""
    for dtype in args.dtypes:
        largest = find_executable_batch_size(step_once, starting_batch_size=2**16)(args, dtype)
        print(f"{dtype}: {largest} images in a batch")


def main() -> None:
    (args,) = parse((StepArguments,), description=__doc__)
    set_up(args)
    if args.batch_sizes and not args.variants:
        return report_memory(args)
    if args.largest_batch:
        return find_largest_batch(args)

    ours = [f"{dtype}{data}" for dtype in args.dtypes for data in ("", ", with data", ", cached", ", in chunks")]
    names = args.variants or ["original", *ours]
    title = f"Training step of {args.images} images, {args.short_length} and {args.long_length} tokens"
    seconds = measure(build_variants(args, names), args.repeats, args.device)
    memory = None if args.variants else {name: measure_memory(name) for name in names}
    table = report(title, seconds, names[0], args, memory=memory)
    write_results([{**table, "peak_memory": peak_memory(args.device)}], args)


if __name__ == "__main__":
    main()

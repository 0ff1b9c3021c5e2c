# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A training step with a frozen image tower: each image with one short and one long caption, forward, backward, AdamW.

    python examples/benchmarks/train_step.py --images 8
    python examples/benchmarks/train_step.py --lengths mean_46 --images 64 --variants "float32, padded" float32
    python examples/benchmarks/train_step.py --layers 2 --batch_sizes 8 32 128
    python examples/benchmarks/train_step.py --device cuda --largest_batch

"padded" computes all captions of a kind at the length of the longest, not in groups of like length; "cached" trains
from the output of the image tower (`--cache_image_features`); "with data" decodes JPEGs, crops and tokenizes for every
step, in `--workers` processes; "in chunks" encodes `--tokens_per_chunk` tokens at a time (`--grad_cache_tokens`).
float16 is mixed precision with scaled gradients. Peak memory is that of a process that runs the variant alone.
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
from scaffold.original import build_lotlip, build_original, build_processor
from scaffold.scaling import count_operations, count_variants
from scaffold.timing import (
    TowerBenchmarkArguments,
    matrix_product_ceiling,
    measure,
    peak_memory,
    report,
    set_up,
    write_results,
)
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop

from modeling_lotlip import LotlipConfig
from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.losses import blockwise_contrastive_loss
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.gradient_cache import backward_in_chunks
from modeling_lotlip.training.groups import BatchGroups, count_image_tokens
from modeling_lotlip.training.loss import GlobalLoss
from modeling_lotlip.training.samples import CaptionedImages, SampleCollator
from modeling_lotlip.training.step import parameter_groups


Batch = dict[str, torch.Tensor]

# Tokens of short and of long captions, cut at 126: the least, nine deciles and the most. Of the lamps of the J. Paul
# Getty Museum; of ImageInWords, whole or as two consecutive sub-captions (`--num_sub_captions 2`), with the first
# sub-caption as the short one; and made up, with a long tail: 46 tokens on average.
LAMPS_SHORT = [5, 10, 13, 14, 17, 19, 21, 23, 25, 27, 47]
IIW_SHORT = [8, 21, 24, 27, 30, 33, 37, 40, 45, 54, 111]
LENGTHS = {
    "lamps": (LAMPS_SHORT, [24, 56, 64, 71, 78, 84, 91, 98, 109, 125, 126]),
    "iiw": (IIW_SHORT, [60, *[126] * 10]),
    "iiw_2": (IIW_SHORT, [8, 31, 35, 39, 43, 47, 50, 55, 61, 70, 126]),
    "mean_46": (LAMPS_SHORT, [8, 12, 17, 22, 28, 36, 45, 56, 73, 101, 126]),
}


@dataclass
class StepArguments(TowerBenchmarkArguments):
    """What is measured."""

    images: int = argument(8, "Images in a batch.", least=1)
    short_length: int = argument(15, "Tokens of every short caption, unless --lengths is given.", least=3)
    long_length: int = argument(122, "Tokens of every long caption, unless --lengths is given.", least=3)
    lengths: str | None = argument(
        None, "Captions of unequal lengths, as they are in such data.", choices=tuple(LENGTHS)
    )
    workers: int = argument(1, "Processes that decode and tokenize.", least=0)
    tokens_per_chunk: int = argument(1500, "Tokens of captions and images encoded at a time, in chunks.", least=1)
    variants: list[str] | None = argument(None, "Measure these only, against the first one.")
    batch_sizes: list[int] | None = argument(None, "Measure memory instead of time, for batches of N images.", least=1)
    largest_batch: bool = argument(False, "Find the largest batch that fits (CUDA).")
    share_of_peak: bool = argument(False, "Tell the share of the matrix product's speed too.")

    def __post_init__(self):
        super().__post_init__()
        if self.largest_batch and not self.device.startswith("cuda"):
            raise ValueError(
                f"--largest_batch needs an accelerator that says when its memory is full, not {self.device}."
            )


def draw_lengths(args: StepArguments) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of the short and of the long caption of each image: evenly spaced quantiles, in random order."""
    if args.lengths is None:
        return np.full(args.images, args.short_length), np.full(args.images, args.long_length)
    places, generator = (np.arange(args.images) + 0.5) / args.images, np.random.default_rng(0)
    short, long = (np.interp(places, np.linspace(0, 1, 11), deciles).round() for deciles in LENGTHS[args.lengths])
    return generator.permutation(short.astype(int)), generator.permutation(long.astype(int))


def random_batch(args: StepArguments) -> Batch:
    """Pixel values and captions of the lengths asked for."""
    batch = {"pixel_values": torch.randn(args.images, 3, 224, 224)}
    for prefix, lengths in zip(("short_", ""), draw_lengths(args)):
        mask = torch.arange(int(lengths.max())) < torch.from_numpy(lengths)[:, None]
        input_ids = torch.randint(1000, 30000, mask.shape) * mask
        batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"] = input_ids, mask.long()
    for name in ("input_ids", "attention_mask"):
        batch[name] = batch[name][:, None]  # one long caption
    return {name: values.to(args.device) for name, values in batch.items()}


def load_batches(args: StepArguments) -> Iterator[Batch]:
    """Batches without end, as the training script makes them from JPEGs that fill a 224 pixel crop."""
    generator, (words, processor) = random.Random(0), build_processor(30_000)
    rows = {"image": [], "caption": [], "long_captions": []}
    noise = np.random.default_rng(0)
    short_lengths, long_lengths = draw_lengths(args)
    for short_length, long_length in zip(short_lengths, long_lengths):
        # noise over a gradient: about as many bytes as a photograph
        pixels = noise.integers(0, 64, (256, 320, 3)) + np.arange(320)[:, None] // 2
        file = io.BytesIO()
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(file, "jpeg", quality=90)
        rows["image"].append({"bytes": file.getvalue(), "path": None})
        rows["caption"].append(" ".join(generator.choices(words, k=short_length - 2)))
        rows["long_captions"].append(" ".join(generator.choices(words, k=long_length - 2)))
    crop = RandomResizedCrop(224, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC)
    dataset = Dataset.from_dict(rows).cast_column("image", Image())
    reader = RowReader(dataset.column_names, CaptionArguments())
    samples = CaptionedImages(dataset, reader, ObjectiveArguments(), crop=crop)
    batches = ([(epoch, index, False) for index in range(args.images)] for epoch in count())
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=SampleCollator(processor, max_length=int(long_lengths.max())),
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
    """The step of `lotlip train`."""
    model = ContrastiveModel(build_lotlip(args.layers, args.device))
    model.model.vision_model.requires_grad_(False)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=True)

    vision_config = model.model.config.vision_config
    device_type, accelerator = args.device.split(":")[0], Accelerator(cpu=args.device == "cpu")
    # a precision that accelerate is given is that of the whole process: here each variant has its own
    accelerator.scaler = torch.amp.GradScaler(device_type, enabled=dtype == "float16")

    def step(batch: Batch, tokens_per_chunk: int | None = None, is_padded: bool = False) -> None:
        with torch.autocast(device_type, getattr(torch, dtype), enabled=dtype != "float32"):
            groups = BatchGroups(batch, accelerator, tokens_per_chunk, count_image_tokens(vision_config, batch))
            if tokens_per_chunk is not None:
                backward_in_chunks(model, groups, contrastive_loss, accelerator)
            elif is_padded:
                outputs = model(**batch)
                loss = contrastive_loss(outputs.image_embeds, outputs.text_embeds, model.model.logit_scale).loss
            else:
                loss = contrastive_loss(*groups.embed(model, accelerator.device), model.model.logit_scale).loss
        if tokens_per_chunk is None:
            accelerator.backward(loss)
        accelerator.scaler.step(optimizer)
        accelerator.scaler.update()
        optimizer.zero_grad()

    return step


def build_variants(args: StepArguments, names: list[str]) -> dict[str, Callable[[], None]]:
    """A step of each variant by its name."""
    batch = random_batch(args)
    cached = {name: values for name, values in batch.items() if name != "pixel_values"}
    cached["vision_output"] = torch.randn(args.images, 768, device=args.device)
    steps, variants = {}, {}
    for name in names:
        dtype, *options = name.split(", ")
        if dtype not in steps:
            steps[dtype] = build_original_step(args) if dtype == "original" else build_our_step(args, dtype)
        step = steps[dtype]
        if "padded" in options:
            step = partial(step, is_padded=True)
        if "in chunks" in options:
            step = partial(step, tokens_per_chunk=args.tokens_per_chunk)
        if "with data" in options:
            variants[name] = partial(step_with_data, step, load_batches(args))
        else:
            variants[name] = partial(step, cached if "cached" in options else batch)
    return variants


def step_with_data(step: Callable[[Batch], None], batches: Iterator[Batch]) -> None:
    """A step on the next batch."""
    step(next(batches))


def count_tokens(*batches: Batch) -> int:
    """Tokens of captions that calls of the model compute, padding included, corner tokens not."""
    return sum(batch[name].numel() for batch in batches for name in ("short_input_ids", "input_ids"))


def report_tokens(args: StepArguments) -> None:
    """Prints how many tokens groups of like length save."""
    batch = random_batch(args)
    groups = list(BatchGroups(batch, Accelerator(cpu=args.device == "cpu")))
    padded, computed = count_tokens(batch), count_tokens(*groups)
    print(f"\nPadded: {padded:,} tokens; in {len(groups)} groups: {computed:,}, {padded / computed:.2f} times fewer.")


def count_flops(args: StepArguments, names: list[str]) -> dict[str, int]:
    """
    Operations that the step of each variant needs, at the average length of its captions: without padding, and without
    those that chunks compute again.
    """
    fields = {"num_hidden_layers": args.layers}
    config = LotlipConfig(text_config=fields, vision_config=fields)
    lengths = (round(lengths.mean()) for lengths in draw_lengths(args))
    ways = count_variants(count_operations(config, 1, *lengths))
    frozen, cached = ways["frozen image tower"], ways["cached image features"]
    return {name: args.images * (cached if "cached" in name.split(", ") else frozen) for name in names}


def measure_ceilings(args: StepArguments, names: list[str]) -> dict[str, float]:
    """Operations per second of a large matrix product, for each variant in its dtype."""
    dtypes = {name: name.split(", ")[0].replace("original", "float32") for name in names}
    ceilings = {dtype: matrix_product_ceiling(args.device, getattr(torch, dtype)) for dtype in set(dtypes.values())}
    return {name: ceilings[dtype] for name, dtype in dtypes.items()}


def measure_memory(name: str, *options: str) -> int:
    """The most memory that a variant needs alone, with further options of this script, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        options = [*options, "--variants", name, "--repeats", "1", "--output_file", str(file)]
        subprocess.run([sys.executable, *sys.argv, *options], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())["tables"][0]["peak_memory"]


def report_memory(args: StepArguments) -> None:
    """Prints and writes the peak memory of batches of several sizes, whole and in chunks."""
    print(f"\n| images | whole | in chunks of {args.tokens_per_chunk} tokens |\n| --- | --- | --- |")
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
    """Prints and writes the most images whose step fits into the memory of the accelerator, to a tenth of them."""
    rows = {}
    for dtype in args.dtypes:
        rows[dtype] = {"images": find_executable_batch_size(step_once, starting_batch_size=2**16)(args, dtype)}
        print("{}: {images} images in a batch".format(dtype, **rows[dtype]), flush=True)
    write_results([{"title": "The largest batch", "rows": rows}], args)


def main() -> None:
    (args,) = parse((StepArguments,), description=__doc__)
    set_up(args)
    if args.batch_sizes and not args.variants:
        return report_memory(args)
    if args.largest_batch:
        return find_largest_batch(args)

    options = ("", ", padded", ", with data", ", cached", ", cached, padded", ", in chunks")
    names = args.variants or ["original", *(f"{dtype}{option}" for dtype in args.dtypes for option in options)]
    lengths = "{} and {}".format(*(f"{lengths.mean():.0f}" for lengths in draw_lengths(args)))
    title = f"Training step of {args.images} images, {lengths} tokens on average"
    report_tokens(args)
    seconds = measure(build_variants(args, names), args.repeats, args.device)
    memory = None if args.variants else {name: measure_memory(name) for name in names}
    peak, shares = peak_memory(args.device), {}
    if args.share_of_peak:
        shares = {"flops": count_flops(args, names), "ceilings": measure_ceilings(args, names)}
    table = report(title, seconds, names[0], args, memory=memory, **shares)
    write_results([{**table, "peak_memory": peak}], args)


if __name__ == "__main__":
    with exit_on_error("train_step.py"):
        main()

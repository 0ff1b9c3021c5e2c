# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A training step with a frozen image tower: each image with one short and one long caption, forward, backward, AdamW.

    python examples/benchmarks/train_step.py --images 8
    python examples/benchmarks/train_step.py --images 64 --lengths mean_46 --variants "float32, cached"
    python examples/benchmarks/train_step.py --images 128 --layers 2 --variants "float32, in chunks"

"cached" trains from the output of the image tower (`--cache_image_features`); "in chunks" encodes `--tokens_per_chunk`
tokens at a time (`--grad_cache_tokens`). Peak memory is that of the whole process: name one variant to know its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from scaffold import (
    BenchmarkArguments,
    build_lotlip,
    build_original,
    measure,
    peak_memory,
    report,
    set_up,
    write_results,
)

from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.step import make_loss, parameter_groups, train_step
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


Batch = dict[str, torch.Tensor]

# Deciles of the tokens of short and long captions: all alike, or as in a collection with 46 tokens on average
LENGTHS = {
    "equal": ([15] * 11, [122] * 11),
    "mean_46": ([5, 10, 13, 14, 17, 19, 21, 23, 25, 27, 47], [8, 12, 17, 22, 28, 36, 45, 56, 73, 101, 126]),
}


@dataclass
class StepArguments(BenchmarkArguments):
    """What is measured."""

    images: int = argument(8, "Images in a batch.", least=2)
    lengths: str = argument("equal", "The lengths of captions.", choices=tuple(LENGTHS))
    layers: int = argument(12, "Layers of both towers.", least=1)
    tokens_per_chunk: int = argument(1500, "Tokens that are encoded at a time, in chunks.", least=1)
    variants: list[str] = argument(
        ["original", "float32", "float32, cached", "bfloat16", "bfloat16, cached"],
        "A precision each, with `cached` and `in chunks` behind commas; or `original`. The first is the baseline.",
    )


def draw_batch(args: StepArguments) -> Batch:
    """Pixel values and captions of the lengths asked for, in random order."""
    batch = {"pixel_values": torch.randn(args.images, 3, 224, 224)}
    places = torch.linspace(0, 10, args.images).round().long()
    for prefix, deciles in zip(("short_", ""), LENGTHS[args.lengths]):
        lengths = torch.tensor(deciles)[places][torch.randperm(args.images)]
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        input_ids = torch.randint(1000, 30_000, mask.shape) * mask
        batch |= {f"{prefix}input_ids": input_ids, f"{prefix}attention_mask": mask}
    for name in ("input_ids", "attention_mask"):
        batch[name] = batch[name][:, None]  # one long caption
    return {name: values.to(args.device) for name, values in batch.items()}


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


def build_our_step(args: StepArguments, precision: str) -> Callable[..., None]:
    """The step of `lotlip train`."""
    model = ContrastiveModel(build_lotlip(args.layers, args.device))
    model.model.vision_model.requires_grad_(False)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=True)
    # a precision that accelerate is given is that of the whole process: here each variant has one
    accelerator, device_type = Accelerator(cpu=args.device == "cpu"), args.device.split(":")[0]

    def step(batch: Batch, tokens_per_chunk: int | None = None) -> None:
        with torch.autocast(device_type, getattr(torch, precision), enabled=precision != "float32"):
            train_step(model, batch, optimizer, make_loss("lotlip"), accelerator, tokens_per_chunk=tokens_per_chunk)

    return step


def build_variants(args: StepArguments) -> dict[str, Callable[[], None]]:
    """A step of each variant by its name."""
    batch = draw_batch(args)
    cached = {name: values for name, values in batch.items() if name != "pixel_values"}
    cached["vision_output"] = torch.randn(args.images, 768, device=args.device)
    steps, variants = {}, {}
    for name in args.variants:
        precision, *options = name.split(", ")
        if precision not in ("original", "float32", "bfloat16", "float16") or set(options) - {"cached", "in chunks"}:
            raise ValueError(f"--variants: {name!r} is none. See --help.")
        if precision not in steps:
            build = build_original_step if precision == "original" else partial(build_our_step, precision=precision)
            steps[precision] = build(args)
        run = partial(steps[precision], cached if "cached" in options else batch)
        variants[name] = partial(run, tokens_per_chunk=args.tokens_per_chunk) if "in chunks" in options else run
    return variants


def main() -> None:
    (args,) = parse((StepArguments,), description=__doc__)
    set_up(args)
    seconds = measure(build_variants(args), args.repeats, args.device)
    table = report(f"A step of {args.images} images", seconds, args.variants[0], args)
    table["peak_memory"] = peak_memory(args.device)
    print(f"\nPeak memory: {table['peak_memory'] / 1e9:.2f} GB")
    write_results([table], args)


if __name__ == "__main__":
    with exit_on_error("train_step.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
A training step with a frozen image tower: each image with one short and one long caption, forward, backward, AdamW.

    python examples/benchmarks/train_step.py --images 8
    python examples/benchmarks/train_step.py --images 64 --lengths mean_46 --variants "float32, cached"
    python examples/benchmarks/train_step.py --images 128 --layers 2 --variants "float32, in chunks"

"cached" trains from the output of the image tower (`--cache_image_features`); "in chunks" encodes `--tokens_per_chunk`
tokens at a time (`--grad_cache_tokens`). Peak memory is that of the whole process: name one variant to know its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from modeling_lotlip.training.batch import CaptionBatch, Texts
from modeling_lotlip.training.dual_encoder import ContrastiveModel, ImageSide
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.step import ObjectiveLoss, StepOptions, parameter_groups, train_step
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


# Deciles of the tokens of short and long captions: all alike, or as in a collection with 46 tokens on average
LENGTHS = {
    "equal": {"short": [15] * 11, "long": [122] * 11},
    "mean_46": {
        "short": [5, 10, 13, 14, 17, 19, 21, 23, 25, 27, 47],
        "long": [8, 12, 17, 22, 28, 36, 45, 56, 73, 101, 126],
    },
}
PRECISIONS = ("float32", "bfloat16", "float16")
CACHED = "cached"
IN_CHUNKS = "in chunks"
# What the logit scale is before training: the inverse of a temperature of 0.07
LOGIT_SCALE = 14.3


@dataclass
class StepArguments(BenchmarkArguments):
    """What is measured."""

    images: int = argument(8, "Images in a batch.", least=2)
    lengths: str = argument("equal", "The lengths of captions.", choices=tuple(LENGTHS))
    layers: int = argument(12, "Layers of both towers.", least=1)
    tokens_per_chunk: int = argument(
        1500,
        "Tokens that are encoded at a time, in chunks.",
        least=1,
    )
    variants: list[str] = argument(
        ["original", "float32", "float32, cached", "bfloat16", "bfloat16, cached"],
        "A precision each, with `cached` and `in chunks` behind commas; or `original`. The first is the baseline.",
    )

    def __post_init__(self):
        super().__post_init__()
        for name in self.variants:
            precision, *options = name.split(", ")
            if precision not in ("original", *PRECISIONS) or set(options) - {CACHED, IN_CHUNKS}:
                raise ValueError(f"--variants: {name!r} is none. See --help.")


def sample_captions(deciles: list[int], num_captions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random ids and their mask, both of shape `(captions, length)`, of lengths by deciles in random order."""
    indices = torch.linspace(0, 10, num_captions).round().long()
    lengths = torch.tensor(deciles)[indices][torch.randperm(num_captions)]
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    input_ids = torch.randint(1000, 30_000, mask.shape) * mask
    return input_ids, mask


def sample_batch(args: StepArguments) -> CaptionBatch:
    """Returns pixel values, and a short and a long caption of each image, of the lengths that are asked for."""
    pixel_values = torch.randn(args.images, 3, 224, 224)
    deciles = LENGTHS[args.lengths]
    short = Texts(*sample_captions(deciles["short"], args.images)).to(args.device)
    long = Texts(*sample_captions(deciles["long"], args.images)).to(args.device)
    # of shape (images, 1, length): one long caption
    long = Texts(long.input_ids[:, None], long.attention_mask[:, None])
    return CaptionBatch({"pixel_values": pixel_values.to(args.device)}, short, long)


def build_original_step(args: StepArguments) -> Callable[[CaptionBatch], None]:
    """Returns a step with all captions padded to the context length in one batch, and with the image tower."""
    text_tower, image_tower = build_original(args.layers, args.device)
    text_tower.train()
    optimizer = torch.optim.AdamW(text_tower.parameters(), lr=1e-5)

    def step(batch: CaptionBatch) -> None:
        with torch.no_grad():
            image_embeds = torch.nn.functional.normalize(image_tower(batch.images["pixel_values"]), dim=-1)
        padding = (0, batch.long.input_ids.shape[-1] - batch.short.input_ids.shape[-1])
        short_input_ids = torch.nn.functional.pad(batch.short.input_ids, padding)
        input_ids = torch.cat([short_input_ids, batch.long.input_ids[:, 0]])
        text_features = text_tower(input_ids, (input_ids > 0).long())
        text_embeds = torch.nn.functional.normalize(text_features, dim=-1)
        short_embeds, long_embeds = text_embeds.chunk(2)
        slots = torch.cat([short_embeds[:, :1], long_embeds], dim=1)
        logit_scale = torch.tensor(LOGIT_SCALE, device=args.device)
        image_text_contrastive_loss(image_embeds, slots, logit_scale).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def build_our_step(args: StepArguments, precision: str) -> Callable[..., None]:
    """Returns the step of `lotlip train`."""
    model = ContrastiveModel(build_lotlip(args.layers, args.device), ObjectiveLoss(OBJECTIVES["lotlip"]))
    model.model.vision_model.requires_grad_(False)
    model.image_side = ImageSide.FROZEN
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=True)
    # a precision that accelerate is given is that of the whole process: here each variant has one
    accelerator = Accelerator(cpu=args.device == "cpu")
    device_type = args.device.split(":")[0]
    dtype = getattr(torch, precision)

    def step(batch: CaptionBatch, tokens_per_chunk: int | None = None) -> None:
        with torch.autocast(device_type, dtype, enabled=precision != "float32"):
            train_step(model, batch, optimizer, accelerator, StepOptions(tokens_per_chunk))

    return step


def build_variants(args: StepArguments) -> dict[str, Callable[[], None]]:
    """Returns a step of each variant by its name."""
    batch = sample_batch(args)
    features = torch.randn(args.images, 768, device=args.device)
    cached = replace(batch, images={}, image_features=features)
    steps = {}
    variants = {}
    for name in args.variants:
        precision, *options = name.split(", ")
        if precision not in steps:
            if precision == "original":
                steps[precision] = build_original_step(args)
            else:
                steps[precision] = build_our_step(args, precision)
        run = partial(steps[precision], batch)
        if CACHED in options:
            run = partial(steps[precision], cached)
        if IN_CHUNKS in options:
            run = partial(run, tokens_per_chunk=args.tokens_per_chunk)
        variants[name] = run
    return variants


def main() -> None:
    (args,) = parse((StepArguments,), description=__doc__)
    set_up(args)
    seconds = measure(build_variants(args), args.repeats, args.device, args.clock)
    table = report(f"A step of {args.images} images", seconds, args.variants[0], args)
    table["peak_memory"] = peak_memory(args.device)
    print(f"\nPeak memory: {table['peak_memory'] / 1e9:.2f} GB")
    write_results([table], args)


if __name__ == "__main__":
    with exit_on_error("train_step.py"):
        main()

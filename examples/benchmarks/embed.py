# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Texts and images to features, against the way the original computes them.

    python examples/benchmarks/embed.py --texts 32 --images 8 --dtypes float32 bfloat16

The texts of a batch have one length. Without padding and corner tokens they need no attention mask, so that `sdpa` can
take a flash kernel of PyTorch itself. Below each table stands the kernel that it took.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from scaffold.original import build_lotlip, build_original
from scaffold.timing import (
    TowerBenchmarkArguments,
    encoder_flops,
    matrix_product_ceiling,
    measure,
    report,
    set_up,
    write_results,
)

from modeling_lotlip import LotlipModel
from modeling_lotlip.arguments import argument, exit_on_error, parse


@dataclass
class EmbedArguments(TowerBenchmarkArguments):
    """What is measured."""

    texts: int = argument(32, "Texts in a batch.", least=1)
    lengths: list[int] = argument([15, 122], "Tokens of a text, [CLS] and [SEP] too.", least=2)
    images: int = argument(8, "Images in a batch.", least=1)
    attn_implementation: list[str] = argument(["sdpa"], "Such as `sdpa eager flash_attention_2`.")
    corners: bool = argument(False, "Compute the corner tokens of a text too, which flash attention cannot.")
    compile: bool = argument(False, "Measure torch.compile too.")
    profile: bool = argument(False, "Tell the share of matrix products too (CPU).")


def text_features(with_corners: bool, model: LotlipModel, *tokens: torch.Tensor) -> torch.Tensor:
    """The features of texts; those of the corner tokens are computed beside them, and left."""
    return model.get_text_features(*tokens, output_corner_tokens=with_corners).pooler_output


PRODUCTS = ("addmm", "mm", "bmm")  # as torch's profiler calls them


@dataclass
class Towers:
    """
    What is compared.

    Args:
        original (`Callable[..., torch.Tensor]`):
            A tower as the original computes it.
        compute (`Callable[..., torch.Tensor]`):
            The same by one of `models`, which is its first argument.
        models (`dict[str, LotlipModel]`):
            By name, one for each dtype and attention.
    """

    original: Callable[..., torch.Tensor]
    compute: Callable[..., torch.Tensor]
    models: dict[str, LotlipModel]

    def build_variants(self, inputs: tuple[torch.Tensor, ...], with_compiled: bool) -> dict[str, Callable]:
        """The original, and each model, as it is and compiled, on the same inputs."""
        variants, compiled = {"original": partial(self.original, *inputs)}, torch.compile(self.compute)
        for name, model in self.models.items():
            variants[name] = partial(self.compute, model, *inputs)
            if with_compiled:
                variants[f"{name}, compiled"] = partial(compiled, model, *inputs)
        return variants


def build_models(args: EmbedArguments) -> tuple[dict[str, LotlipModel], dict[str, float]]:
    """A model for each dtype and attention, and the operations per second that the machine gives each at most."""
    models, ceilings = {}, {"original": matrix_product_ceiling(args.device, torch.float32)}
    for dtype in args.dtypes:
        ceiling = matrix_product_ceiling(args.device, getattr(torch, dtype))
        for attention in args.attn_implementation:
            name = dtype if len(args.attn_implementation) == 1 else f"{dtype}, {attention}"
            models[name] = build_lotlip(args.layers, args.device, getattr(torch, dtype))
            models[name].set_attn_implementation(attention)
            ceilings[name] = ceilings[f"{name}, compiled"] = ceiling
    return models, ceilings


def find_kernels(variants: dict[str, Callable]) -> dict[str, str]:
    """The kernel that PyTorch chose for the attention of each variant, by torch's profiler; none of an eager one."""
    prefix, kernels = "aten::_scaled_dot_product_", {}
    for name, run in variants.items():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            run()
        found = {event.key.removeprefix(prefix) for event in profile.key_averages() if event.key.startswith(prefix)}
        if found:
            kernels[name] = ", ".join(sorted(found))
            print(f"{name}: {kernels[name]}")
    return kernels


def profile_products(variants: dict[str, Callable]) -> dict[str, float]:
    """The share of the time of each variant that is spent inside matrix products, by torch's profiler."""
    shares = {}
    for name, run in variants.items():
        with torch.profiler.profile() as profile:
            run()
        seconds = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
        shares[name] = sum(seconds.get(f"aten::{product}", 0) for product in PRODUCTS) / sum(seconds.values())
        print(f"{name}: {shares[name]:.0%} inside matrix products")
    return shares


@torch.inference_mode()
def main() -> None:
    (args,) = parse((EmbedArguments,), description=__doc__)
    set_up(args)
    original_text, original_image = build_original(args.layers, args.device)
    models, ceilings = build_models(args)
    text = Towers(original_text, partial(text_features, args.corners), models)
    image = Towers(original_image, lambda model, pixels: model.get_image_features(pixels).pooler_output, models)

    workloads = []
    for length in args.lengths:
        input_ids = torch.randint(1000, 30000, (args.texts, length), device=args.device)
        variants = text.build_variants((input_ids, torch.ones_like(input_ids)), args.compile)
        flops = dict.fromkeys(variants, encoder_flops(args.texts * length, length, num_layers=args.layers))
        flops["original"] = encoder_flops(args.texts * 128, 128, num_layers=args.layers)
        workloads.append((f"{args.texts} texts of {length} tokens", variants, flops))
    variants = image.build_variants((torch.randn(args.images, 3, 224, 224, device=args.device),), args.compile)
    flops = dict.fromkeys(variants, encoder_flops(197 * args.images, 197, num_layers=args.layers))
    workloads.append((f"{args.images} images", variants, flops))

    tables = []
    for title, variants, flops in workloads:
        seconds = measure(variants, args.repeats, args.device)
        tables.append(report(title, seconds, "original", args, ceilings, flops))
        print()
        tables[-1]["attention_kernels"] = find_kernels(variants)
        tables[-1]["share_inside_products"] = profile_products(variants) if args.profile else {}
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("embed.py"):
        main()

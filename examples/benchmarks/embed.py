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
Texts and images to features, against the way the original computes them.

    python examples/benchmarks/embed.py --texts 32 --images 8 --dtypes float32 bfloat16
"""

import argparse

import torch

from modeling_lotlip.benchmarking.original import build_lotlip, build_original
from modeling_lotlip.benchmarking.timing import (
    add_benchmark_arguments,
    add_model_arguments,
    encoder_flops,
    matrix_product_ceiling,
    measure,
    report,
    set_up,
    write_results,
)


PRODUCTS = ("addmm", "mm", "bmm")  # as torch's profiler calls them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--texts", type=int, default=32, help="Texts in a batch.")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[15, 122], help="Tokens of a text, [CLS] and [SEP] too."
    )
    parser.add_argument("--images", type=int, default=8, help="Images in a batch.")
    parser.add_argument(
        "--attn_implementation", nargs="+", default=["sdpa"], help="Such as `sdpa eager flash_attention_2`."
    )
    parser.add_argument("--compile", action="store_true", help="Measure torch.compile too.")
    parser.add_argument("--profile", action="store_true", help="Tell the share of matrix products too (CPU).")
    args = parser.parse_args()
    set_up(args)

    original_text, original_image = build_original(args.layers, args.device)
    models, ceilings = {}, {"original": matrix_product_ceiling(args.device, torch.float32)}
    for dtype in args.dtypes:
        ceiling = matrix_product_ceiling(args.device, getattr(torch, dtype))
        for attention in args.attn_implementation:
            name = dtype if len(args.attn_implementation) == 1 else f"{dtype}, {attention}"
            models[name] = build_lotlip(args.layers, args.device, getattr(torch, dtype))
            models[name].set_attn_implementation(attention)
            ceilings[name] = ceilings[f"{name}, compiled"] = ceiling

    def variants_of(original, compute) -> dict:
        """`original`, and `compute` for each model, as it is and compiled."""
        variants, compiled = {"original": original}, torch.compile(compute)
        for name, model in models.items():
            variants[name] = lambda model=model: compute(model)
            if args.compile:
                variants[f"{name}, compiled"] = lambda model=model: compiled(model)
        return variants

    def report_profile(variants: dict) -> dict[str, float]:
        """The share of the time of each variant that is spent inside matrix products, by torch's profiler."""
        shares = {}
        for name, run in variants.items() if args.profile else ():
            with torch.profiler.profile() as profile:
                run()
            seconds = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
            shares[name] = sum(seconds.get(f"aten::{product}", 0) for product in PRODUCTS) / sum(seconds.values())
            print(f"{name}: {shares[name]:.0%} inside matrix products")
        return shares

    tables = []
    with torch.inference_mode():
        for length in args.lengths:
            input_ids = torch.randint(1000, 30000, (args.texts, length), device=args.device)
            tokens = (input_ids, torch.ones_like(input_ids))
            variants = variants_of(
                lambda tokens=tokens: original_text(*tokens),
                lambda model, tokens=tokens: model.get_text_features(*tokens).pooler_output,
            )
            flops = dict.fromkeys(variants, encoder_flops(args.texts * length, length, num_layers=args.layers))
            flops["original"] = encoder_flops(args.texts * 128, 128, num_layers=args.layers)
            seconds = measure(variants, args.repeats, args.device)
            title = f"{args.texts} texts of {length} tokens"
            tables.append(report(title, seconds, "original", args, ceilings, flops))
            tables[-1]["share_inside_products"] = report_profile(variants)

        pixel_values = torch.randn(args.images, 3, 224, 224, device=args.device)
        variants = variants_of(
            lambda: original_image(pixel_values), lambda model: model.get_image_features(pixel_values).pooler_output
        )
        flops = dict.fromkeys(variants, encoder_flops(197 * args.images, 197, num_layers=args.layers))
        seconds = measure(variants, args.repeats, args.device)
        tables.append(report(f"{args.images} images", seconds, "original", args, ceilings, flops))
        tables[-1]["share_inside_products"] = report_profile(variants)
    write_results(tables, args)


if __name__ == "__main__":
    main()

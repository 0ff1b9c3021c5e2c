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
from benchmark import add_benchmark_arguments, encoder_flops, matrix_product_ceiling, measure, report, write_results
from original import OriginalImageTower, OriginalTextTower
from transformers import BertConfig, ViTConfig

from modeling_lotlip import LotlipConfig, LotlipModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    parser.add_argument("--texts", type=int, default=32, help="Texts in a batch.")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[15, 122], help="Tokens of a text, [CLS] and [SEP] too."
    )
    parser.add_argument("--images", type=int, default=8, help="Images in a batch.")
    parser.add_argument("--layers", type=int, default=12, help="Layers of both towers.")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16", "float16"]
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    layers = {"num_hidden_layers": args.layers}
    original_text = (
        OriginalTextTower(BertConfig(**layers), num_corner_tokens=2, projection_dim=768).to(args.device).eval()
    )
    original_image = OriginalImageTower(ViTConfig(**layers, layer_norm_eps=1e-6)).to(args.device).eval()
    model = LotlipModel(LotlipConfig(text_config=layers, vision_config=layers)).to(args.device).eval()
    models = {dtype: LotlipModel(model.config).to(args.device, getattr(torch, dtype)).eval() for dtype in args.dtypes}
    ceilings = {dtype: matrix_product_ceiling(args.device, getattr(torch, dtype)) for dtype in args.dtypes}
    ceilings["original"] = matrix_product_ceiling(args.device, torch.float32)

    tables = []
    with torch.inference_mode():
        for length in args.lengths:
            input_ids = torch.randint(1000, 30000, (args.texts, length), device=args.device)
            attention_mask = torch.ones_like(input_ids)
            variants = {"original": lambda: original_text(input_ids, attention_mask)}  # noqa: B023
            flops = {"original": encoder_flops(args.texts * 128, 128, num_layers=args.layers)}
            for dtype, ours in models.items():
                variants[dtype] = lambda ours=ours: ours.get_text_features(input_ids, attention_mask)  # noqa: B023
                flops[dtype] = encoder_flops(args.texts * length, length, num_layers=args.layers)
            seconds = measure(variants, args.repeats, args.device)
            title = f"{args.texts} texts of {length} tokens"
            tables.append(report(title, seconds, "original", args, ceilings, flops))

        pixel_values = torch.randn(args.images, 3, 224, 224, device=args.device)
        variants = {"original": lambda: original_image(pixel_values)}
        for dtype, ours in models.items():
            variants[dtype] = lambda ours=ours: ours.get_image_features(pixel_values)
        num_tokens = 197 * args.images
        flops = dict.fromkeys(variants, encoder_flops(num_tokens, 197, num_layers=args.layers))
        seconds = measure(variants, args.repeats, args.device)
        tables.append(report(f"{args.images} images", seconds, "original", args, ceilings, flops))
    write_results(tables, args)


if __name__ == "__main__":
    main()

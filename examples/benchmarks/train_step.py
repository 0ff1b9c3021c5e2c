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
A training step with a locked image tower: each image with one short and one long caption, forward, backward, AdamW.

    python examples/benchmarks/train_step.py --images 8
"""

import argparse

import torch
from benchmark import add_benchmark_arguments, measure, report, write_results
from original import OriginalImageTower, OriginalTextTower
from transformers import BertConfig, ViTConfig

from modeling_lotlip import LotlipConfig, LotlipModel
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss


def original_step(text_tower, image_tower, optimizer, batch) -> None:
    """Both captions padded to the context length in one batch, the image tower run again."""
    with torch.no_grad():
        image_embeds = torch.nn.functional.normalize(image_tower(batch["pixel_values"]), dim=-1)
    length = batch["input_ids"].shape[-1]
    padding = (0, length - batch["short_input_ids"].shape[-1])
    input_ids = torch.cat([torch.nn.functional.pad(batch["short_input_ids"], padding), batch["input_ids"][:, 0]])
    text_embeds = torch.nn.functional.normalize(text_tower(input_ids, (input_ids > 0).long()), dim=-1)
    short_embeds, long_embeds = text_embeds.chunk(2)
    slots = torch.cat([short_embeds[:, :1], long_embeds], dim=1)
    image_text_contrastive_loss(image_embeds, slots, torch.tensor(14.3)).backward()
    optimizer.step()
    optimizer.zero_grad()


def our_step(model, optimizer, batch, device: str, dtype: torch.dtype) -> None:
    """The step of `examples/train_lotlip.py`."""
    with torch.autocast(device.split(":")[0], dtype=dtype, enabled=dtype != torch.float32):
        loss = model(**batch, return_loss=True).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    parser.add_argument("--images", type=int, default=8, help="Images in a batch.")
    parser.add_argument("--short_length", type=int, default=15, help="Tokens of a short caption.")
    parser.add_argument("--long_length", type=int, default=122, help="Tokens of a long caption.")
    parser.add_argument("--layers", type=int, default=12, help="Layers of both towers.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    layers = {"num_hidden_layers": args.layers}
    text_tower = OriginalTextTower(BertConfig(**layers), num_corner_tokens=2, projection_dim=768).to(args.device)
    image_tower = OriginalImageTower(ViTConfig(**layers)).to(args.device).eval()
    model = LotlipModel(LotlipConfig(text_config=layers, vision_config=layers)).to(args.device).train()
    model.vision_model.requires_grad_(False).eval()
    batch = {
        "pixel_values": torch.randn(args.images, 3, 224, 224, device=args.device),
        "short_input_ids": torch.randint(1000, 30000, (args.images, args.short_length), device=args.device),
        "input_ids": torch.randint(1000, 30000, (args.images, 1, args.long_length), device=args.device),
    }
    ours = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    original = torch.optim.AdamW(text_tower.parameters(), lr=1e-5)
    variants = {
        "original": lambda: original_step(text_tower, image_tower, original, batch),
        "float32": lambda: our_step(model, ours, batch, args.device, torch.float32),
        "bfloat16": lambda: our_step(model, ours, batch, args.device, torch.bfloat16),
    }
    title = f"Training step of {args.images} images, {args.short_length} and {args.long_length} tokens"
    seconds = measure(variants, args.repeats, args.device)
    write_results([report(title, seconds, "original", args)], args)


if __name__ == "__main__":
    main()

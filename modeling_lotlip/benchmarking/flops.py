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
Operations and parameters of both towers: of the image tower for an image, of the text tower for a caption by its
length, with and without the corner tokens.

    python examples/flops.py
    python examples/flops.py --config_name outputs/demo --lengths 16 32 64 126 --output_file outputs/flops.json

torch counts them on the model itself, which is run on the meta device: nothing is computed, and no weights are needed.
Counted are matrix products (a multiplication and an addition are two operations), also those of attention. Without the
corner tokens is how a text is embedded; with them is how a long caption is trained on.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import LotlipConfig, LotlipModel
from ..data.arguments import HelpFormatter
from ..files import write_json


LENGTHS = [16, 32, 64, 128, 192, 256]


def build_meta_model(config: LotlipConfig) -> LotlipModel:
    """A model without weights, on the meta device, whose attention torch can count."""
    with torch.device("meta"):
        model = LotlipModel(config)
    model.set_attn_implementation("eager")  # the counter does not know every fused kernel
    return model


def count_flops(run: Callable[[], object]) -> tuple[int, object]:
    """The floating-point operations of a call, and what it returned."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


@torch.no_grad()
def count_image_flops(model: LotlipModel) -> int:
    """Operations of the embedding of an image, by a model on the meta device."""
    vision_config = model.config.vision_config
    size = model.vision_model.embeddings.image_size
    pixel_values = torch.zeros(1, vision_config.num_channels, *size, device="meta")
    return count_flops(lambda: model.get_image_features(pixel_values))[0]


@torch.no_grad()
def count_text_flops(model: LotlipModel, length: int, output_corner_tokens: bool = False) -> int:
    """
    Operations of the embedding of a caption.

    Args:
        model (`LotlipModel`):
            A model on the meta device.
        length (`int`):
            Tokens of the caption, with `[CLS]` and `[SEP]`, without corner tokens.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether the corner tokens are computed too. Without a corner attention mask they always are.

    Raises:
        `ValueError`: if the text tower has too few positions.

    Example:

    ```python
    >>> from modeling_lotlip.benchmarking.flops import build_meta_model, count_text_flops

    >>> from modeling_lotlip import LotlipConfig

    >>> model = build_meta_model(LotlipConfig())
    >>> count_text_flops(model, 126), count_text_flops(model, 126, output_corner_tokens=True)
    (21991145472, 22354329600)
    ```"""
    text_config = model.config.text_config
    limit = text_config.max_position_embeddings - text_config.num_corner_tokens
    if not 1 <= length <= limit:
        raise ValueError(f"`length` is {length}, but the text tower takes captions of 1 to {limit} tokens.")
    input_ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    return count_flops(lambda: model.get_text_features(input_ids, output_corner_tokens=output_corner_tokens))[0]


def count_parameters(*modules: torch.nn.Module) -> int:
    """The parameters of several modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def measure_towers(config: LotlipConfig, lengths: list[int]) -> dict:
    """
    Operations and parameters of both towers, each with its projection.

    Args:
        config (`LotlipConfig`):
            The model.
        lengths (`list[int]`):
            Lengths of captions in tokens.

    Returns:
        `dict`: under `image` the `flops` of an image and the `parameters` of the tower; under `text` its `parameters`,
        those of the corner tokens among them (`corner_parameters`), and in `captions` for each `length` the `flops`
        without corner tokens and the `flops_with_corner_tokens`.
    """
    model = build_meta_model(config)
    num_corner_tokens = config.text_config.num_corner_tokens
    captions = [
        {
            "length": length,
            "flops": count_text_flops(model, length),
            "flops_with_corner_tokens": count_text_flops(model, length, output_corner_tokens=True),
        }
        for length in lengths
    ]
    return {
        "image": {
            "image_size": list(model.vision_model.embeddings.image_size),
            "flops": count_image_flops(model),
            "parameters": count_parameters(model.vision_model, model.visual_projection),
        },
        "text": {
            "num_corner_tokens": num_corner_tokens,
            "parameters": count_parameters(model.text_model, model.text_projection),
            "corner_parameters": num_corner_tokens * config.text_config.hidden_size,
            "captions": captions,
        },
    }


def format_table(towers: dict) -> str:
    """What `measure_towers` found as a Markdown table, in billions of operations and millions of parameters."""
    image, text = towers["image"], towers["text"]
    corners, size = text["num_corner_tokens"], " x ".join(map(str, image["image_size"]))
    parameters = (text["parameters"] - text["corner_parameters"], text["parameters"])
    parameters = " | ".join(f"{number / 1e6:.4f}" for number in parameters)
    lines = [
        f"| input | GFLOPs | with {corners} corner tokens | million parameters | with {corners} corner tokens |",
        "| --- | --- | --- | --- | --- |",
        f"| an image of {size} | {image['flops'] / 1e9:.4g} | | {image['parameters'] / 1e6:.4f} | |",
    ]
    for caption in text["captions"]:
        flops = " | ".join(f"{caption[name] / 1e9:.4g}" for name in ("flops", "flops_with_corner_tokens"))
        lines.append(f"| a caption of {caption['length']} tokens | {flops} | {parameters} |")
    return "\n".join(lines)


def plot_flops(towers: dict, path: Path) -> None:
    """Draws the operations of a caption over its length, beside those of an image."""
    # not at the top: the table does not need it
    from matplotlib.figure import Figure

    captions, corners = towers["text"]["captions"], towers["text"]["num_corner_tokens"]
    lengths = [caption["length"] for caption in captions]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(towers["image"]["flops"] / 1e9, color="black", linestyle="--", linewidth=0.8, label="an image")
    for name, label, marker in (
        ("flops_with_corner_tokens", f"a caption, with {corners} corner tokens", "^"),
        ("flops", "a caption", "o"),
    ):
        axes.plot(lengths, [caption[name] / 1e9 for caption in captions], marker=marker, linewidth=1.2, label=label)
    axes.set(xlabel="tokens of the caption", ylabel="GFLOPs", xticks=lengths, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--config_name",
        "--model_name_or_path",
        help="A model or a configuration, a Hub id or a folder. Default: the size of the released models.",
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=LENGTHS, help="Tokens of a caption, without corner tokens."
    )
    parser.add_argument(
        "--output_file", type=Path, help="Write the counts to this JSON file, and a picture of the same name (.png)."
    )
    args = parser.parse_args()
    config = LotlipConfig.from_pretrained(args.config_name) if args.config_name is not None else LotlipConfig()
    towers = measure_towers(config, args.lengths)
    print(format_table(towers))
    if args.output_file is not None:
        write_json(args.output_file, {"model": args.config_name or "default", **towers})
        plot_flops(towers, args.output_file.with_suffix(".png"))


if __name__ == "__main__":
    main()

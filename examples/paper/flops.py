# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
Operations and parameters of both towers: of the image tower for an image, of the text tower for a caption by its
length, with and without the corner tokens (the paper's Figure 4). Nothing is computed, and no weights are needed.

    python examples/paper/flops.py
    python examples/paper/flops.py --config_name outputs/demo --lengths 16 32 64 126 --output_file outputs/flops.json
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_lotlip import LotlipConfig, LotlipModel
from modeling_lotlip.utils.arguments import Arguments, argument, check_output_file, exit_on_error, parse
from modeling_lotlip.utils.files import write_json


@dataclass
class FlopsArguments(Arguments):
    """What is counted, and where the counts go."""

    config_name: str | None = argument(
        None,
        "A model or a configuration, a Hub id or a folder. Default: the size of the released models.",
        aliases=("--model_name_or_path", "--model"),
    )
    lengths: list[int] = argument(
        [16, 32, 64, 128, 192, 256],
        "Tokens of a caption, without corner tokens.",
        least=1,
    )
    output_file: Path | None = argument(None, "Write the counts to this JSON file.")

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file)


def build_meta_model(config: LotlipConfig) -> LotlipModel:
    """Returns a model without weights, on the meta device and in evaluation mode, whose attention torch can count."""
    with torch.device("meta"):
        model = LotlipModel(config)
    model.set_attn_implementation("eager")  # the counter does not know every fused kernel
    return model.eval()


def count_flops(run: Callable[[], object]) -> tuple[int, object]:
    """Returns the floating-point operations of a call, and what it returned."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


@torch.no_grad()
def count_image_flops(model: LotlipModel) -> int:
    """Counts the operations of the embedding of an image, by a model on the meta device."""
    vision_config = model.config.vision_config
    size = model.vision_model.embeddings.image_size
    pixel_values = torch.zeros(1, vision_config.num_channels, *size, device="meta")
    return count_flops(lambda: model.get_image_features(pixel_values))[0]


@torch.no_grad()
def count_text_flops(model: LotlipModel, length: int, output_corner_tokens: bool = False) -> int:
    """
    Counts the operations of the embedding of a caption.

    Args:
        model (`LotlipModel`):
            A model on the meta device.
        length (`int`):
            Tokens of the caption, with `[CLS]` and `[SEP]`, without corner tokens.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether the corner tokens are computed too. Without a corner attention mask they always are.

    Raises:
        `ValueError`: if the text tower has too few positions.
    """
    text_config = model.config.text_config
    limit = text_config.max_position_embeddings - text_config.num_corner_tokens
    if not 1 <= length <= limit:
        raise ValueError(f"`length` is {length}, but the text tower takes captions of 1 to {limit} tokens.")
    # by its embeddings, whose look-up has no operations: the model looks into token ids for padding, and on the meta
    # device they have no values
    inputs_embeds = torch.zeros(1, length, text_config.hidden_size, device="meta")
    flops, _ = count_flops(
        lambda: model.get_text_features(inputs_embeds=inputs_embeds, output_corner_tokens=output_corner_tokens)
    )
    return flops


def count_parameters(*modules: torch.nn.Module) -> int:
    """Returns the number of parameters of several modules."""
    num_parameters = 0
    for module in modules:
        num_parameters += sum(parameter.numel() for parameter in module.parameters())
    return num_parameters


def measure_towers(config: LotlipConfig, lengths: list[int]) -> dict:
    """
    Counts operations and parameters of both towers, each with its projection.

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
    captions = []
    for length in lengths:
        captions.append(
            {
                "length": length,
                "flops": count_text_flops(model, length),
                "flops_with_corner_tokens": count_text_flops(model, length, output_corner_tokens=True),
            }
        )
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


def format_towers(towers: dict) -> str:
    """Returns what `measure_towers` found as a Markdown table, operations in billions, parameters in millions."""
    image = towers["image"]
    text = towers["text"]
    size = " x ".join(map(str, image["image_size"]))
    num_corners = text["num_corner_tokens"]
    num_parameters = text["parameters"] / 1e6
    num_without_corners = (text["parameters"] - text["corner_parameters"]) / 1e6
    lines = [
        f"| input | GFLOPs | with {num_corners} corner tokens | million parameters "
        f"| with {num_corners} corner tokens |",
        "| --- | --- | --- | --- | --- |",
        f"| an image of {size} | {image['flops'] / 1e9:.4g} | | {image['parameters'] / 1e6:.4f} | |",
    ]
    for caption in text["captions"]:
        lines.append(
            f"| a caption of {caption['length']} tokens | {caption['flops'] / 1e9:.4g} "
            f"| {caption['flops_with_corner_tokens'] / 1e9:.4g} | {num_without_corners:.4f} | {num_parameters:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    (args,) = parse((FlopsArguments,), description=__doc__)
    config = LotlipConfig()
    if args.config_name is not None:
        config = LotlipConfig.from_pretrained(args.config_name)
    towers = measure_towers(config, args.lengths)
    print(format_towers(towers))
    if args.output_file is not None:
        write_json(args.output_file, {"model": args.config_name or "default", **towers})


if __name__ == "__main__":
    with exit_on_error("flops.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Operations and parameters of both towers: of the image tower for an image, of the text tower for a caption by its
length, with and without the corner tokens (the paper's Figure 4). Nothing is computed, and no weights are needed.

    python examples/paper/flops.py
    python examples/paper/flops.py --config_name outputs/demo --lengths 16 32 64 126 --output_file outputs/flops.json
"""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from modeling_lotlip import LotlipConfig
from modeling_lotlip.arguments import Arguments, argument, check_output_file, exit_on_error, parse
from modeling_lotlip.benchmarking.flops import measure_towers
from modeling_lotlip.files import write_json


@dataclass
class FlopsArguments(Arguments):
    """What is counted, and where the counts go."""

    config_name: str | None = argument(
        None,
        "A model or a configuration, a Hub id or a folder. Default: the size of the released models.",
        aliases=("--model_name_or_path", "--model"),
    )
    lengths: list[int] = argument([16, 32, 64, 128, 192, 256], "Tokens of a caption, without corner tokens.", least=1)
    output_file: Path | None = argument(
        None, "Write the counts to this JSON file, and a picture of the same name (.png)."
    )

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file)


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
    (args,) = parse((FlopsArguments,), description=__doc__)
    config = LotlipConfig.from_pretrained(args.config_name) if args.config_name is not None else LotlipConfig()
    towers = measure_towers(config, args.lengths)
    print(format_table(towers))
    if args.output_file is not None:
        write_json(args.output_file, {"model": args.config_name or "default", **towers})
        plot_flops(towers, args.output_file.with_suffix(".png"))


if __name__ == "__main__":
    with exit_on_error("flops.py"):
        main()

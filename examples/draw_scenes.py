# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Draws scenes of the embedded data set into a folder of PNG files, with their captions in `metadata.jsonl`.

    python examples/draw_scenes.py --output_dir outputs/scenes --num_scenes 512
"""

import json
from dataclasses import dataclass
from pathlib import Path

from modeling_lotlip.arguments import Arguments, argument, parse
from modeling_lotlip.data.scenes import make_scene


@dataclass
class DrawArguments(Arguments):
    output_dir: Path = argument(help="A folder that is not there yet.")
    num_scenes: int = argument(512, "How many scenes.", least=1)
    seed: int = argument(3, "The series of scenes; 0 is that of the training.")

    def __post_init__(self):
        super().__post_init__()
        if self.output_dir.exists():
            raise ValueError(f"--output_dir {self.output_dir} is there already: name another folder.")


def draw_scenes(output_dir: Path, num_scenes: int, seed: int) -> None:
    """Draws the first scenes of a series; the folder has its name when it is complete."""
    partial = output_dir.with_name(output_dir.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with open(partial / "metadata.jsonl", "w", encoding="utf-8") as file:
        for index in range(num_scenes):
            scene = make_scene(seed, index)
            scene.draw().save(partial / f"{index:04d}.png")
            row = {"file_name": f"{index:04d}.png", "caption": scene.caption, "long_captions": [scene.long_caption]}
            file.write(json.dumps(row) + "\n")
    partial.rename(output_dir)


def main(args: list[str] | None = None) -> None:
    (arguments,) = parse((DrawArguments,), args, description=__doc__)
    draw_scenes(arguments.output_dir, arguments.num_scenes, arguments.seed)
    print(f"{arguments.num_scenes} pictures are in {arguments.output_dir}.")


if __name__ == "__main__":
    main()

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
Draws scenes of the embedded data set into a folder of PNG files, with their captions in `metadata.jsonl`.

    python examples/draw_scenes.py --output_dir outputs/scenes --num_scenes 512
"""

import argparse
import json
from pathlib import Path

from modeling_lotlip.data.arguments import HelpFormatter
from modeling_lotlip.data.scenes import make_scene


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="A folder that is not there yet.")
    parser.add_argument("--num_scenes", type=int, default=512, help="How many scenes.")
    parser.add_argument("--seed", type=int, default=3, help="The series of scenes; 0 is that of the training.")
    args = parser.parse_args()
    if args.num_scenes < 1:
        parser.error(f"--num_scenes must be at least 1, got {args.num_scenes}.")
    if args.output_dir.exists():
        parser.error(f"--output_dir {args.output_dir} is there already: name another folder.")
    draw_scenes(args.output_dir, args.num_scenes, args.seed)
    print(f"{args.num_scenes} pictures are in {args.output_dir}.")


if __name__ == "__main__":
    main()

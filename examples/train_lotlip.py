# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Contrastive training of LoTLIP on images with short and long captions: `lotlip train`, from a clone.

    accelerate launch examples/train_lotlip.py --output_dir outputs/demo
"""

from modeling_lotlip.arguments import exit_on_error, parse
from modeling_lotlip.training import loop
from modeling_lotlip.training.arguments import TrainArguments


def main() -> None:
    (args,) = parse((TrainArguments,), description=__doc__)
    loop.run(args)


if __name__ == "__main__":
    with exit_on_error("train_lotlip.py"):
        main()

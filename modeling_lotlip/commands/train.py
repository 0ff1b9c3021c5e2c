# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Contrastive training on images with short and long captions.

    lotlip train --output_dir outputs/mine --dataset_name imagefolder --data_dir FOLDER \\
        --vision_model_name_or_path google/vit-base-patch16-224-in21k \\
        --text_model_name_or_path google-bert/bert-base-uncased

Several processes: `accelerate launch -m lotlip train ...`. Without `--dataset_name`: drawn scenes, a small model.
"""

from ..training.arguments import TrainArguments


ARGUMENTS = (TrainArguments,)


def run(args: TrainArguments) -> None:
    from ..training import loop

    loop.run(args)

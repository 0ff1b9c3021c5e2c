# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Joins a text encoder and an image encoder that were trained apart: small heads are trained on their embeddings.

    lotlip align --output_dir outputs/aligned --text_model sentence-transformers/all-MiniLM-L6-v2 \\
        --vision_model facebook/dinov2-small --dataset_name FOLDER --train_split "train[:90%]" \\
        --eval_split "train[90%:]" --split_seed 0
    lotlip app PHOTOS --model outputs/aligned

Embeddings of both encoders are computed once, and kept for later runs with other heads.
"""

from ..align.arguments import AlignArguments


ARGUMENTS = (AlignArguments,)


def run(args: AlignArguments) -> None:
    """Joins two encoders by trained heads, and prints the recalls."""
    import logging

    from ..align.run import align_and_save
    from ..evaluation.retrieval import format_recalls
    from ..utils.terminal import print_tables

    logging.basicConfig(format="%(message)s")
    logging.getLogger("modeling_lotlip").setLevel(logging.INFO)
    results = align_and_save(args)
    print_tables(format_recalls({"model": str(args.output_dir)} | results))
    print(f"\n{args.output_dir} holds the model. Search with it: lotlip app PHOTOS --model {args.output_dir}")

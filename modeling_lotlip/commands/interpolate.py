# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Mixes the weights of a model and of what a training made of it, measures each mixture, and saves the best.

    lotlip interpolate START END --output_dir outputs/near --dataset_name FOLDER \\
        --eval_split "train[90%:]" --split_seed 0
    lotlip interpolate START END --output_dir outputs/near --dataset_name FOLDER \\
        --label_column label --alphas 0.25 0.5 0.75

A model that was trained on long texts has forgotten some of the short ones: between the two it often finds nearly all
long texts, and the short ones as before (Wortsman et al., 2022, https://arxiv.org/abs/2109.01903).

The rows of --eval_split, which END was not trained on, are halved at random. The best mixture has the highest mean
recall of long captions of all that lose at most --max_loss points against START, on the first half: of the mean recall
of short captions and, if labels are named, of the accuracy of zero-shot classification. What it finds is reported on
the second half.
"""

from ..interpolation.arguments import InterpolateArguments


ARGUMENTS = (InterpolateArguments,)


def run(args: InterpolateArguments) -> None:
    """Mixes the weights of two models, saves the best mixture, and prints what each finds."""
    import logging

    from ..interpolation.outputs import format_interpolation
    from ..interpolation.run import interpolate
    from ..utils.terminal import print_tables

    logging.basicConfig(format="%(message)s")
    logging.getLogger("modeling_lotlip").setLevel(logging.INFO)
    interpolation = interpolate(args)
    if interpolation is None:
        return
    print_tables(format_interpolation(interpolation))
    print(f"\n{args.output_dir} holds the best, of alpha {interpolation.best.alpha:g}, with its card and the curve.")

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Which mixture is the best, by what was measured on one half of the rows."""

import logging
from dataclasses import dataclass

from .measure import KEPT_SCORES, LONG_SCORE


logger = logging.getLogger(__name__)

# Of a difference of two scores in %: one that is as large as allowed may come out larger
ROUNDING = 1e-6

Results = dict[str, dict[str, float]]


@dataclass(frozen=True)
class MeasuredMixture:
    """
    Holds what was measured of a mixture.

    Args:
        alpha (`float`): How much of the second model there is in it.
        results (`dict[str, dict[str, float]]`): By half: see [`measure_halves`].
    """

    alpha: float
    results: Results

    def compute_loss(self, start: Results) -> float:
        """Returns the most points that a score of short captions, or of classes, lies below that of the start."""
        losses = []
        for name in KEPT_SCORES:
            if name in start["chosen_on"]:
                losses.append(start["chosen_on"][name] - self.results["chosen_on"][name])
        return max(losses)


def choose_best(mixtures: list[MeasuredMixture], start: Results, max_loss: float) -> MeasuredMixture:
    """
    Chooses the mixture with the highest mean recall of long captions among those that lose at most `max_loss` points;
    of equal ones that with the smallest alpha. If all lose more, it is the one that loses least, with a warning.

    Args:
        mixtures (`list[MeasuredMixture]`): The mixtures, in the order of their alphas.
        start (`dict[str, dict[str, float]]`): What was measured of the model before the training.
        max_loss (`float`): The points that may be lost of the mean recall of short captions, and of the accuracy.
    """
    kept = [mixture for mixture in mixtures if mixture.compute_loss(start) <= max_loss + ROUNDING]
    if not kept:
        best = min(mixtures, key=lambda mixture: mixture.compute_loss(start))
        logger.warning(
            f"Every mixture loses more than `--max_loss {max_loss}`: the one of alpha {best.alpha:g} loses least, "
            f"{best.compute_loss(start):.1f} points."
        )
        return best
    return max(kept, key=lambda mixture: mixture.results["chosen_on"][LONG_SCORE])

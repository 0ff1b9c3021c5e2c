# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the arguments of a training leave open, resolved once when data and model are there."""

import math
from dataclasses import asdict, dataclass

from .arguments import TrainArguments


@dataclass(frozen=True)
class Plan:
    """
    A training as it runs.

    Args:
        mixed_precision (`str`): That of accelerate.
        num_processes (`int`): The number of processes.
        global_batch_size (`int`): The images of a batch, of all processes.
        num_samples (`int`, *optional*): The images of the data; None of a stream.
        max_train_samples (`int`, *optional*): The images of a stream that are asked for.
        max_train_steps (`int`): The steps of the optimizer.
        warmup_steps (`int`): Those of a rising learning rate.
        decay_steps (`int`): The last ones, of a falling rate, with `warmup_stable_decay`.
        max_length (`int`): The tokens of a text, corners not counted.
        matryoshka_dims (`list[int]`, *optional*): The dimensions that are embeddings too.
    """

    mixed_precision: str
    num_processes: int
    global_batch_size: int
    num_samples: int | None
    max_train_samples: int | None
    max_train_steps: int
    warmup_steps: int
    decay_steps: int
    max_length: int
    matryoshka_dims: list[int] | None

    def compared_on_resume(self, args: TrainArguments) -> dict[str, object]:
        """
        Returns what a resumed run must have in common with the first one, to take the same steps. The number of steps
        is not among it, since a run may be lengthened.
        """
        settings = args.compared_on_resume()
        settings["mixed_precision"] = self.mixed_precision
        settings["num_processes"] = self.num_processes
        settings["global_batch_size"] = self.global_batch_size
        settings["max_length"] = self.max_length
        settings["matryoshka_dims"] = self.matryoshka_dims
        if self.num_samples is None:
            settings["max_train_samples"] = self.max_train_samples
        else:
            settings["num_samples"] = self.num_samples
        return settings

    def in_model_card(self, args: TrainArguments) -> dict[str, object]:
        """Returns what the model card lists of a training."""
        listed = args.in_model_card()
        listed["num_processes"] = self.num_processes
        listed["max_train_steps"] = self.max_train_steps
        listed["max_length"] = self.max_length
        listed["mixed_precision"] = self.mixed_precision
        if self.matryoshka_dims:
            listed["matryoshka_dims"] = ", ".join(map(str, self.matryoshka_dims))
        return listed

    def in_trackers(self, args: TrainArguments) -> dict[str, int | float | str]:
        """Returns what trackers log of a run: arguments, and what they leave open."""
        named = vars(args) | asdict(self)
        return {name: value for name, value in named.items() if isinstance(value, (int, float, str))}


def count_part(steps: float, max_train_steps: int) -> int:
    """
    Counts steps that are given as their count, or below 1 as a fraction of all steps, rounded down: the first step of
    a warm-up has a rate of 0, and a run of few steps would learn nothing in it.
    """
    if steps < 1:
        # without the error of the product: 0.29 * 100 is 28.999999999999996
        return math.floor(round(steps * max_train_steps, 6))
    return math.ceil(steps)


def count_steps(args: TrainArguments, batches_per_epoch: int | None) -> tuple[int, int]:
    """Counts the steps of a run, and those of a rising learning rate. Raises a `ValueError` if the latter are more."""
    max_train_steps = args.max_train_steps
    if max_train_steps is None:
        num_batches = batches_per_epoch * args.num_train_epochs
        # rounded up: batches of a further epoch fill the last step, so that no row is left out
        max_train_steps = math.ceil(num_batches / args.gradient_accumulation_steps)
    warmup_steps = count_part(args.warmup_steps, max_train_steps)
    if warmup_steps > max_train_steps:
        raise ValueError(
            f"`--warmup_steps {args.warmup_steps:g}` is longer than the run of {max_train_steps} "
            "steps: give fewer steps, or a fraction of them such as 0.1."
        )
    return max_train_steps, warmup_steps

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is measured of a training while it runs, and written down."""

import json
import math
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process

from ..output_folder import atomic_write
from .checkpoints import TrainingState


METRICS_FILE = "metrics.jsonl"


def name_slots(num_slots: int, num_corner_tokens: int) -> list[str]:
    """
    What is contrasted with the images in each slot: `short`, then `long` for every long caption, or `cls` and
    `corner_1`, ... with corner tokens.

    Example:

    ```python
    >>> from modeling_lotlip.training.monitoring import name_slots

    >>> name_slots(4, num_corner_tokens=2)
    ['short', 'cls', 'corner_1', 'corner_2']
    ```"""
    names = ["cls", *(f"corner_{number}" for number in range(1, num_corner_tokens + 1))]
    if num_corner_tokens == 0:
        names = ["long"]
    return ["short", *(names[slot % len(names)] for slot in range(num_slots - 1))]


def measure_slots(slot_losses: torch.Tensor, num_corner_tokens: int) -> dict[str, float]:
    """
    The loss of each kind of slot.

    Args:
        slot_losses (`torch.Tensor` of shape `(slots,)`):
            The loss of each slot, not a number where it has no two pairs.
        num_corner_tokens (`int`):
            Corner tokens of a long caption.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.training.monitoring import measure_slots

    >>> measure_slots(torch.tensor([1.0, 2.0, 4.0]), num_corner_tokens=0)  # two long captions
    {'loss_short': 1.0, 'loss_long': 3.0}
    ```"""
    losses = {}
    for name, loss in zip(name_slots(len(slot_losses), num_corner_tokens), slot_losses.tolist()):
        if math.isfinite(loss):
            losses.setdefault(f"loss_{name}", []).append(loss)
    return {name: sum(values) / len(values) for name, values in losses.items()}


class Throughput:
    """What a run gets through in a second, all processes together, and which share of its time it waits for data."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Counts from now on."""
        self.counts = dict.fromkeys(("images", "texts", "tokens"), 0)
        self.waited = 0.0
        self.start = self.last = time.perf_counter()

    def count(self, batch: dict[str, torch.Tensor]) -> None:
        """Counts a batch that has just come: what has passed since `end_of_step` was spent in waiting for it."""
        self.waited += time.perf_counter() - self.last
        masks = [batch[name] for name in ("short_attention_mask", "attention_mask") if name in batch]
        has_captions = [mask.flatten(1).any(dim=1) for mask in masks]
        self.counts["images"] += int(torch.stack(has_captions).any(dim=0).sum())  # the others take no part
        self.counts["texts"] += sum(int(mask.any(dim=-1).sum()) for mask in masks)
        self.counts["tokens"] += sum(int(mask.sum()) for mask in masks)

    def end_of_step(self) -> None:
        self.last = time.perf_counter()

    def measure(self, accelerator: Accelerator) -> dict[str, float]:
        """Rates since the last call; every process must call this."""
        elapsed = time.perf_counter() - self.start
        counts = torch.tensor([*self.counts.values(), self.waited / elapsed], device=accelerator.device)
        *counts, waited = accelerator.reduce(counts, "sum").tolist()
        measured = {f"{name}_per_second": count / elapsed for name, count in zip(self.counts, counts)}
        self.restart()
        return measured | {"data_wait": waited / accelerator.num_processes}


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has used so far, in GB: of the accelerator, or of the CPU without one."""
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9
    if device.type == "cpu":
        try:
            import resource
        except ImportError:  # Windows
            return math.nan
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    return torch.get_device_module(device).max_memory_allocated(device) / 1e9


class MetricsFile(GeneralTracker):
    """
    A tracker of accelerate that keeps the measurements of a run in the file `metrics.jsonl` of its output folder: one
    line a step, with evaluations in lines of their own.

    Args:
        output_dir (`Path`):
            The output folder.
    """

    name = "metrics_file"
    requires_logging_directory = False

    def __init__(self, output_dir: Path):
        super().__init__()
        self.path = output_dir / METRICS_FILE

    @property
    def tracker(self) -> Path:
        return self.path

    def store_init_configuration(self, values: dict) -> None:
        """Nothing: the arguments are in a file of their own."""

    @on_main_process
    def log(self, values: dict[str, float], step: int | None = None, **kwargs: object) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def forget_metrics(output_dir: Path, state: TrainingState) -> None:
    """Drops the rows that an earlier run measured after the state from which this run resumes."""
    path = output_dir / METRICS_FILE
    rows = read_metrics(path)
    rows = [row for row in rows if row["step"] <= (state.step if "loss" in row else state.evaluated_step)]
    with atomic_write(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(path: Path) -> list[dict]:
    """What [`MetricsFile`] wrote; a last line that a killed run left unfinished is passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a whole line ends in a line break
    return [json.loads(line) for line in lines]

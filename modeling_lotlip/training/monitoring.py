# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is measured of a training while it runs, and written down."""

import json
import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from ..output_folder import atomic_write
from .checkpoints import TrainingState


METRICS_FILE = "metrics.jsonl"


def measure_slots(slot_losses: torch.Tensor, num_corner_tokens: int) -> dict[str, float]:
    """
    The loss of each kind of slot: of short captions, and of long ones, or of `[CLS]` and each corner token of these.

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
    corners, losses = [f"corner_{number}" for number in range(1, num_corner_tokens + 1)], {}
    names = ["cls", *corners] if corners else ["long"]
    for slot, loss in enumerate(slot_losses.tolist()):
        if math.isfinite(loss):
            name = names[(slot - 1) % len(names)] if slot > 0 else "short"
            losses.setdefault(f"loss_{name}", []).append(loss)
    return {name: sum(values) / len(values) for name, values in losses.items()}


class Throughput:
    """What a run gets through in a second, all processes together, and which share of its time it waits for data."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Counts from now on."""
        self.images, self.tokens, self.waited = 0, 0, 0.0
        self.start = self.last = time.perf_counter()

    def count(self, batch: dict[str, torch.Tensor]) -> None:
        """Counts a batch that has just come: what has passed since `end_of_step` was spent in waiting for it."""
        self.waited += time.perf_counter() - self.last
        masks = [batch[name].flatten(1) for name in ("short_attention_mask", "attention_mask") if name in batch]
        tokens = torch.cat(masks, dim=1).sum(dim=1)
        self.images += int((tokens > 0).sum())  # the others take no part
        self.tokens += int(tokens.sum())

    def end_of_step(self) -> None:
        self.last = time.perf_counter()

    def measure(self, accelerator: Accelerator) -> dict[str, float]:
        """Rates since the last call; every process must call this."""
        elapsed = time.perf_counter() - self.start
        rates = torch.tensor([self.images, self.tokens, self.waited], device=accelerator.device) / elapsed
        images, tokens, waited = accelerator.reduce(rates, "sum").tolist()
        self.restart()
        data_wait = waited / accelerator.num_processes
        return {"images_per_second": images, "tokens_per_second": tokens, "data_wait": data_wait}


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory of an accelerator that this process has used so far, in GB, if it is known."""
    module = torch.get_device_module(device)
    return {"memory_gb": module.max_memory_allocated() / 1e9} if hasattr(module, "max_memory_allocated") else {}


def log(values: dict[str, float], step: int, output_dir: Path, accelerator: Accelerator) -> None:
    """Writes measurements as a line of `metrics.jsonl` in the output folder, and sends them to the trackers."""
    if accelerator.is_main_process:
        with open(output_dir / METRICS_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
    accelerator.log(values, step=step)


def forget_metrics(output_dir: Path, state: TrainingState) -> None:
    """Drops the rows that an earlier run measured after the state from which this run resumes."""
    path = output_dir / METRICS_FILE
    rows = read_metrics(path)
    rows = [row for row in rows if row["step"] <= (state.step if "loss" in row else state.evaluated_step)]
    with atomic_write(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(path: Path) -> list[dict]:
    """The rows of `metrics.jsonl`; a last line that a killed run left unfinished is passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a whole line ends in a line break
    return [json.loads(line) for line in lines]

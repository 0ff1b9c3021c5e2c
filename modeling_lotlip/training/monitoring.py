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

# So many embeddings of a kind are measured. More would tell no more of a collapse, and the time of singular values
# grows with the third power of the number.
NUM_MEASURED = 256


def effective_rank(embeds: torch.Tensor) -> float:
    """
    The number of directions that embeddings take up: the exponential of the entropy of their singular values (Roy and
    Vetterli, 2007; as RankMe a measure of collapse in Garrido et al., 2023, https://arxiv.org/abs/2210.02885, eq. 1).

    Args:
        embeds (`torch.Tensor` of shape `(rows, dim)`):
            Embeddings.

    Returns:
        `float`: from 1 (all on one line) to the smaller of `rows` and `dim`; not a number where some embedding is not.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.training.monitoring import effective_rank

    >>> round(effective_rank(torch.eye(4)), 4), round(effective_rank(torch.ones(4, 4)), 4)
    (4.0, 1.0)
    ```"""
    embeds = embeds.cpu().double()
    if not embeds.isfinite().all():
        return math.nan
    # of the smaller of the two products of the matrix with itself
    product = embeds @ embeds.t() if len(embeds) < embeds.shape[1] else embeds.t() @ embeds
    values = torch.linalg.eigvalsh(product).clamp(min=0).sqrt()
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()


def spread(embeds: torch.Tensor) -> float:
    """
    How far unit vectors are from being one: the root of their mean squared distance from their mean.

    Args:
        embeds (`torch.Tensor` of shape `(rows, dim)`):
            Normalised embeddings.

    Returns:
        `float`: from 0 (all the same) to 1 (the mean is the origin).

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.training.monitoring import spread

    >>> spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), spread(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    (1.0, 0.0)
    ```"""
    return (1 - embeds.cpu().double().mean(dim=0).square().sum()).clamp(min=0).sqrt().item()


def name_slots(num_slots: int, num_corner_tokens: int) -> list[str]:
    """
    What is contrasted with the images in each slot: `short`, then `cls` and `corner_1`, ... of every long caption.

    Example:

    ```python
    >>> from modeling_lotlip.training.monitoring import name_slots

    >>> name_slots(4, num_corner_tokens=2)
    ['short', 'cls', 'corner_1', 'corner_2']
    ```"""
    names = ["cls", *(f"corner_{number}" for number in range(1, num_corner_tokens + 1))]
    return ["short", *(names[slot % len(names)] for slot in range(num_slots - 1))]


def measure_slots(
    slot_losses: torch.Tensor, image_embeds: torch.Tensor, text_embeds: torch.Tensor, num_corner_tokens: int
) -> dict[str, float]:
    """
    The loss, the effective rank and the spread of each kind of slot, and those of the images; rank and spread of the
    first 256 embeddings of each.

    Args:
        slot_losses (`torch.Tensor` of shape `(slots,)`):
            The loss of each slot, not a number where it has no two pairs.
        image_embeds (`torch.Tensor` of shape `(rows, dim)` or `(rows, tokens, dim)`):
            Normalised image features. Of several tokens the first is measured, `[CLS]`.
        text_embeds (`torch.Tensor` of shape `(rows, slots, dim)` or `(rows, slots, tokens, dim)`):
            Normalised text features, zero where a caption is absent.
        num_corner_tokens (`int`):
            Corner tokens of a long caption.
    """
    if image_embeds.dim() == 3:
        image_embeds, text_embeds = image_embeds[:, 0], text_embeds[:, :, 0]
    image_embeds = image_embeds[:NUM_MEASURED]
    measured = {"rank_image": effective_rank(image_embeds), "spread_image": spread(image_embeds)}
    names = name_slots(len(slot_losses), num_corner_tokens)
    for name in dict.fromkeys(names):
        slots = [slot for slot, other in enumerate(names) if other == name and slot_losses[slot].isfinite()]
        if slots:
            embeds = text_embeds[:, slots].flatten(0, 1)
            embeds = embeds[(embeds != 0).any(dim=-1)][:NUM_MEASURED]
            measured[f"loss_{name}"] = slot_losses[slots].mean().item()
            if len(embeds) > 0:
                measured[f"rank_{name}"], measured[f"spread_{name}"] = effective_rank(embeds), spread(embeds)
    return measured


class Throughput:
    """
    What a run gets through in a second, all processes together, and how much of its time it waits for data.

    Args:
        accelerator (`Accelerator`):
            The processes.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
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

    def measure(self) -> dict[str, float]:
        """Rates since the last call; every process must call this."""
        elapsed = time.perf_counter() - self.start
        counts = torch.tensor([*self.counts.values(), self.waited / elapsed], device=self.accelerator.device)
        *counts, waited = self.accelerator.reduce(counts, "sum").tolist()
        measured = {f"{name}_per_second": count / elapsed for name, count in zip(self.counts, counts)}
        measured["data_wait"] = waited / self.accelerator.num_processes
        self.restart()
        return measured


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
    if not path.exists():
        return
    rows = [
        row for row in read_metrics(path) if row["step"] <= (state.step if "loss" in row else state.evaluated_step)
    ]
    with atomic_write(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(path: Path) -> list[dict]:
    """What [`MetricsFile`] wrote; a last line that a killed run left unfinished is passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a whole line ends in a line break
    return [json.loads(line) for line in lines]

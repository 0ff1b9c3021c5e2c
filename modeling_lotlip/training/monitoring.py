# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is measured of a training while it runs."""

import math
import time

import torch
from accelerate import Accelerator


def measure_slots(slot_losses: torch.Tensor, num_corner_tokens: int) -> dict[str, float]:
    """
    The loss of each kind of slot, of the losses (slots,), not a number where a slot has no two pairs: of short
    captions, and of long ones, or of `[CLS]` and each corner token of these.
    """
    corners, losses = [f"corner_{number}" for number in range(1, num_corner_tokens + 1)], {}
    names = ["cls", *corners] if corners else ["long"]
    for slot, loss in enumerate(slot_losses.tolist()):
        if math.isfinite(loss):
            name = names[(slot - 1) % len(names)] if slot > 0 else "short"
            losses.setdefault(f"loss_{name}", []).append(loss)
    return {name: sum(values) / len(values) for name, values in losses.items()}


class Throughput:
    """The images and tokens that all processes get through in a second."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.images, self.tokens, self.start = 0, 0, time.perf_counter()

    def count(self, batch: dict[str, torch.Tensor]) -> None:
        masks = [batch[name].flatten(1) for name in ("short_attention_mask", "attention_mask") if name in batch]
        tokens = torch.cat(masks, dim=1).sum(dim=1)
        self.images += int((tokens > 0).sum())  # the others take no part
        self.tokens += int(tokens.sum())

    def measure(self, accelerator: Accelerator) -> dict[str, float]:
        """Rates since the last call, which every process must make."""
        rates = torch.tensor([self.images, self.tokens]) / (time.perf_counter() - self.start)
        images, tokens = accelerator.reduce(rates.to(accelerator.device), "sum").tolist()
        self.restart()
        return {"images_per_second": images, "tokens_per_second": tokens}

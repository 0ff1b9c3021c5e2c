# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The prompts that captioners are asked with."""

import random
from pathlib import Path


PROMPTS_FILE = Path(__file__).with_name("prompts.txt")


def read_prompts(path: Path | None = None) -> list[str]:
    """
    The prompts in a file, by default those of the package. One stands in each line; blank lines and those that begin
    with `#` are none.

    Raises:
        `ValueError`: if there is no prompt, or the file cannot be read.
    """
    path = path or PROMPTS_FILE
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`--prompts_file {path}` cannot be read: {getattr(error, 'strerror', error)}.") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ValueError(f"`--prompts_file {path}` has no prompt: write one in each line.")
    return prompts


def draw_prompt(prompts: list[str], seed: int, key: str, captioner: str) -> str:
    """The prompt for an image, drawn anew for each captioner, the same in every run and process."""
    return random.Random(f"{seed} {captioner} {key}").choice(prompts)

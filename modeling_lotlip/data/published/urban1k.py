# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Urban1k (Zhang et al., 2024, https://arxiv.org/abs/2403.15378): images of cities, of which many are alike."""

from pathlib import Path

from .annotations import Annotations, Benchmark, get_text, naming


def read_urban1k(data_dir: Path) -> Annotations:
    """Reads the first line of each caption file; the image has the name of the file."""
    # the archive holds hidden files of the system that it was made on
    files = sorted(file for file in (data_dir / "caption").glob("*.txt") if not file.name.startswith("."))
    if not files:
        return Annotations(missing=["caption/*.txt"])
    annotations = Annotations()
    for file in files:
        with naming(file), open(file, encoding="utf-8") as lines:
            row = {"first line": lines.readline().rstrip("\n")}
        text = get_text(row, "first line", str(file))
        annotations.rows.append({"file_name": f"image/{file.stem}.jpg", "long_captions": text})
    return annotations


BENCHMARKS = (
    Benchmark(
        "urban1k",
        read_urban1k,
        num_images=1000,
        num_texts=1000,
        layout="image/*.jpg, caption/*.txt",
        source="https://huggingface.co/datasets/BeichenZhang/Urban1k",
    ),
)

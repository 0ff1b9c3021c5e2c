# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Descriptions of Connected and Contrasting Images (Onoe et al., 2024, https://arxiv.org/abs/2404.19753): its test."""

from pathlib import Path

from .annotations import Annotations, Benchmark, get_text, read_json_lines


ANNOTATION_FILE = "docci_descriptions.jsonlines"


def read_docci(data_dir: Path) -> Annotations:
    """Reads the test split, without the small set for qualitative comparisons."""
    path = data_dir / ANNOTATION_FILE
    if not path.is_file():
        return Annotations(missing=[ANNOTATION_FILE])
    annotations = Annotations()
    for where, row in read_json_lines(path):
        is_qualitative = get_text(row, "example_id", where).startswith("qual")
        if get_text(row, "split", where) == "test" and not is_qualitative:
            annotations.rows.append(
                {
                    "file_name": f"images/{get_text(row, 'image_file', where)}",
                    "long_captions": get_text(row, "description", where),
                }
            )
    return annotations


BENCHMARKS = (
    Benchmark(
        "docci",
        read_docci,
        num_images=5000,
        num_texts=5000,
        layout="docci_descriptions.jsonlines, images/test_*.jpg",
        source="docci_descriptions.jsonlines and docci_images.tar.gz of https://google.github.io/docci",
    ),
)

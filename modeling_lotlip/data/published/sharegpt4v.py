# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""ShareGPT4V (Chen et al., 2023, https://arxiv.org/abs/2311.12793): its first captions of images of SA-1B."""

import re
from functools import partial
from pathlib import Path

from .annotations import Annotations, Benchmark, get_text, read_json_list


ANNOTATION_FILE = "share-captioner_coco_lcs_sam_1246k_1107.json"
SA_1B_IMAGE = re.compile(r"sam/|(.*/)?sa_\d+\.jpg$")


def read_sharegpt4v(data_dir: Path, num_rows: int) -> Annotations:
    """Reads the first rows with images of SA-1B, from the published file or another JSON file that is there alone."""
    path = data_dir / ANNOTATION_FILE
    if not path.is_file():
        others = [file for file in data_dir.glob("*.json") if not file.name.startswith(".")]
        if len(others) != 1:
            return Annotations(missing=[ANNOTATION_FILE])
        (path,) = others

    annotations = Annotations()
    for where, row in read_json_list(path):
        image = get_text(row, "image", where)
        if SA_1B_IMAGE.match(image) is None:
            continue
        turns = row.get("conversations")
        if not isinstance(turns, list) or len(turns) < 2:
            raise ValueError(f"{where}: 'conversations' must hold a question and an answer, but it is {turns!r}.")
        text = get_text(turns[1], "value", f"{where}, conversations[1]")
        annotations.rows.append({"file_name": image, "long_captions": text})
        if len(annotations.rows) == num_rows:
            break
    return annotations


LAYOUT = f"{ANNOTATION_FILE}, sam/images/sa_*.jpg"
SOURCE = (
    "the captions from https://huggingface.co/datasets/Lin-Chen/ShareGPT4V, the images that they name from SA-1B "
    "(https://ai.meta.com/datasets/segment-anything-downloads)"
)

BENCHMARKS = tuple(
    Benchmark(name, partial(read_sharegpt4v, num_rows=number), number, number, LAYOUT, SOURCE)
    for name, number in {"sharegpt4v-1k": 1000, "sharegpt4v-10k": 10_000}.items()
)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""MSCOCO and Flickr30k: the test splits of Karpathy and Fei-Fei (2015, https://arxiv.org/abs/1412.2306)."""

from functools import partial
from pathlib import Path, PurePosixPath

from .annotations import Annotations, Benchmark, get_text, read_json


# Some images of MSCOCO have six or seven captions; the 25,000 of the benchmark are the first five of each.
NUM_CAPTIONS = 5


def read_karpathy(data_dir: Path, annotation_file: str, image_folder: str | None = None) -> Annotations:
    """
    Reads the test split of one of Karpathy's files.

    Args:
        data_dir (`Path`):
            The benchmark's folder.
        annotation_file (`str`):
            The name of the file.
        image_folder (`str`, *optional*):
            The folder of the images; by default the one that the file names for each image.
    """
    path = data_dir / annotation_file
    if not path.is_file():
        return Annotations(missing=[annotation_file])
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(f"`{path}` must hold a list 'images', but it does not. The file is damaged: get it again.")

    annotations = Annotations()
    for number, row in enumerate(images):
        where = f"{path}, image {number}"
        if get_text(row, "split", where) != "test":
            continue
        sentences = row.get("sentences")
        if not isinstance(sentences, list) or not sentences:
            raise ValueError(f"{where}: 'sentences' must hold captions, but it is {sentences!r}: get the file again.")
        folder = get_text(row, "filepath", where) if image_folder is None else image_folder
        annotations.rows.append(
            {
                "file_name": str(PurePosixPath(folder) / get_text(row, "filename", where)),
                "caption": [get_text(sentence, "raw", where) for sentence in sentences[:NUM_CAPTIONS]],
            }
        )
    return annotations


SOURCE = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"

BENCHMARKS = (
    Benchmark(
        "coco",
        partial(read_karpathy, annotation_file="dataset_coco.json"),
        num_images=5000,
        num_texts=25_000,
        layout="dataset_coco.json, val2014/COCO_val2014_*.jpg",
        source=f"{SOURCE}, the images from http://images.cocodataset.org/zips/val2014.zip",
        aliases=("mscoco",),
    ),
    Benchmark(
        "flickr30k",
        partial(read_karpathy, annotation_file="dataset_flickr30k.json", image_folder="flickr30k-images"),
        num_images=1000,
        num_texts=5000,
        layout="dataset_flickr30k.json, flickr30k-images/*.jpg",
        source=f"{SOURCE}, the images from https://shannon.cs.illinois.edu/DenotationGraph",
        aliases=("flickr30k-1k",),
    ),
)

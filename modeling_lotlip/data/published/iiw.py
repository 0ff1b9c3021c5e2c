# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""ImageInWords (Garg et al., 2024, https://arxiv.org/abs/2405.02793): its three sets written by humans."""

import logging
from pathlib import Path, PurePosixPath

from .annotations import Annotations, Benchmark, get_text, read_json_lines


logger = logging.getLogger(__name__)

# The folders of images by those of annotations
IMAGE_FOLDERS = {"DCI_Test": "dci", "DOCCI_Test": "docci", "IIW-400": "docci_aar"}


def read_iiw(data_dir: Path) -> Annotations:
    """
    Reads the three sets, whose annotations name the image in `image` or in `image/key`, some without `.jpg`. An image
    that is not there is taken from the file with `train` in its name where the annotations say `test`: so some of
    IIW-400 are published.
    """
    annotations, renamed = Annotations(), []
    for name, image_folder in IMAGE_FOLDERS.items():
        file = PurePosixPath(name) / "data.jsonl"
        if not (data_dir / file).is_file():
            annotations.missing.append(str(file))
            continue
        for where, row in read_json_lines(data_dir / file):
            image = get_text(row, "image" if "image" in row else "image/key", where)
            image = image if image.endswith(".jpg") else f"{image}.jpg"
            other = image.replace("test", "train")
            if not (data_dir / image_folder / image).is_file() and (data_dir / image_folder / other).is_file():
                renamed.append(other)
                image = other
            annotations.rows.append(
                {
                    "file_name": str(PurePosixPath(image_folder) / image),
                    "long_captions": get_text(row, "IIW", where),
                }
            )
    if renamed:
        logger.warning(
            f"{len(renamed)} images of 'iiw' have `train` in their names where the annotations say `test`, such as "
            f"{renamed[0]}: they are taken."
        )
    return annotations


BENCHMARKS = (
    Benchmark(
        "iiw",
        read_iiw,
        num_images=612,
        num_texts=612,
        layout=(
            "DCI_Test/data.jsonl with images in dci/, DOCCI_Test/data.jsonl with images in docci/, "
            "IIW-400/data.jsonl with images in docci_aar/"
        ),
        source=(
            "the annotations from https://github.com/google/imageinwords/tree/main/datasets, the images from DCI "
            "and from docci_images.tar.gz and docci_images_aar.tar.gz of https://google.github.io/docci"
        ),
    ),
)

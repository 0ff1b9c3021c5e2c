# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Densely Captioned Images (Urbanek et al., 2023, https://arxiv.org/abs/2312.08578): the texts on the whole image."""

from pathlib import Path, PurePosixPath

from .annotations import Annotations, Benchmark, get_text, read_json


FOLDER = PurePosixPath("densely_captioned_images")


def read_dci(data_dir: Path) -> Annotations:
    """
    Reads the annotations of all splits; a text is the short caption, a line break, and the extra caption. Either may
    be blank.
    """
    splits_file = FOLDER / "splits.json"
    if not (data_dir / splits_file).is_file():
        return Annotations(missing=[str(splits_file)])
    splits = read_json(data_dir / splits_file)
    if not isinstance(splits, dict) or not all(isinstance(names, list) for names in splits.values()):
        raise ValueError(f"`{data_dir / splits_file}` must hold a list of file names for each split: get it again.")

    annotations = Annotations()
    for name in (name for names in splits.values() for name in names):
        file = FOLDER / "annotations" / name
        if not (data_dir / file).is_file():
            annotations.missing.append(str(file))
            continue
        row, where = read_json(data_dir / file), str(data_dir / file)
        short_caption, extra_caption = (
            get_text(row, name, where, is_empty_allowed=True) for name in ("short_caption", "extra_caption")
        )
        annotations.rows.append(
            {
                "file_name": str(FOLDER / "photos" / get_text(row, "image", where)),
                "long_captions": f"{short_caption}\n{extra_caption}",
            }
        )
    return annotations


BENCHMARKS = (
    Benchmark(
        "dci",
        read_dci,
        num_images=7805,
        num_texts=7805,
        layout=(
            "densely_captioned_images/splits.json, densely_captioned_images/annotations/*.json, "
            "densely_captioned_images/photos/*.jpg"
        ),
        source=(
            "https://dl.fbaipublicfiles.com/densely_captioned_images/dci.tar.gz, and the images of SA-1B's "
            "sa_000138.tar (https://ai.meta.com/datasets/segment-anything-downloads) in photos/"
        ),
    ),
)

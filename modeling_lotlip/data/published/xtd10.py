# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""XTD10 (Aggarwal and Kale, 2020, https://arxiv.org/abs/2012.05107): captions of MSCOCO in eleven languages."""

from functools import partial
from pathlib import Path

from .annotations import Annotations, Benchmark, get_text, naming


IMAGE_FILE = "XTD10/test_image_names.txt"
# The folders of the captions, by the languages' codes in the names of the files
FOLDERS = {
    **dict.fromkeys(("en", "es", "it", "ko", "pl", "ru", "tr", "zh"), "XTD10"),
    **dict.fromkeys(("de", "fr"), "MIC"),
    "jp": "STAIR",
}


def read_xtd10(data_dir: Path, language: str) -> Annotations:
    """Reads the names of the images and, line by line, one caption of each in a language."""
    caption_file = f"{FOLDERS[language]}/test_1kcaptions_{language}.txt"
    missing = [name for name in (IMAGE_FILE, caption_file) if not (data_dir / name).is_file()]
    if missing:
        return Annotations(missing=missing)
    images, captions = (read_lines(data_dir / name) for name in (IMAGE_FILE, caption_file))
    if len(images) != len(captions):
        raise ValueError(
            f"`{data_dir / caption_file}` has {len(captions)} captions, but `{data_dir / IMAGE_FILE}` {len(images)} "
            "images. One of them is damaged: get them again."
        )
    annotations = Annotations()
    for number, (image, caption) in enumerate(zip(images, captions), start=1):
        row = {"image": image, "caption": caption}
        name, text = (get_text(row, column, f"{data_dir / caption_file}, line {number}") for column in row)
        annotations.rows.append({"file_name": f"images/{name}", "caption": [text]})
    return annotations


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped."""
    with naming(path), open(path, encoding="utf-8") as file:
        return [line.strip() for line in file]


BENCHMARKS = tuple(
    Benchmark(
        f"xtd10-{language}",
        partial(read_xtd10, language=language),
        num_images=1000,
        num_texts=1000,
        layout=f"{IMAGE_FILE}, {folder}/test_1kcaptions_{language}.txt, images/COCO_*.jpg",
        source=(
            "https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10, the images that it names from "
            "http://images.cocodataset.org/zips/train2014.zip and val2014.zip"
        ),
    )
    for language, folder in FOLDERS.items()
)

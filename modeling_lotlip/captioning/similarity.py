# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How similar captions are to their images."""

from array import array
from collections import Counter
from collections.abc import Iterator
from heapq import nsmallest
from pathlib import Path

import numpy as np

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.caption_files import CaptionFiles, hash_keys
from ..data.images import read_image, undecoded
from ..data.loading import get_columns, load_split
from ..data.reader import Item
from ..data.rows import find_column, read_captions, read_key
from ..embedding.arguments import InferenceArguments
from ..embedding.models import load_model
from ..embedding.rows import RowCollator, embed_rows, load_rows, warn_of_unreadable
from ..sub_captions import mark_sub_captions
from ..terminal import progress_bar
from .arguments import FilterArguments, SimilarityArguments
from .report import shorten


BATCHES_PER_GROUP = 16  # of images, among whose texts those of like length share a batch
NUM_LOWEST = 20  # captions that the report shows


def hash_captions(keys: list[str], captions: list[str]) -> np.ndarray:
    """Hashes of 64 bits of captions with the keys of their images."""
    return hash_keys([f"{key}\0{caption}" for key, caption in zip(keys, captions)])


class Similarities:
    """
    The similarities of captions with their images, in 12 bytes each; NaN of those that were not measured.

    Args:
        measured (`Iterator[tuple[str, str, float]]`):
            Keys of images, captions and their similarities.
    """

    def __init__(self, measured: Iterator[tuple[str, str, float]]):
        hashes, scores, self.lowest = array("Q"), array("f"), []
        for key, caption, score in measured:
            hashes.append(int(hash_captions([key], [caption])[0]))
            scores.append(score)
            if score == score:
                entry = {"similarity": score, "key": key, "caption": shorten(caption)}
                self.lowest = nsmallest(NUM_LOWEST, [*self.lowest, entry], key=lambda entry: entry["similarity"])
        order = np.argsort(np.array(hashes, dtype=np.uint64))
        self.hashes, self.scores = np.array(hashes, dtype=np.uint64)[order], np.array(scores, dtype=np.float32)[order]

    def find(self, keys: list[str], captions: list[str]) -> np.ndarray:
        """The similarities of captions, (captions,)."""
        if not captions or not len(self.hashes):
            return np.full(len(captions), np.nan, dtype=np.float32)
        hashes = hash_captions(keys, captions)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, self.scores[places], np.nan)


def measure_similarities(
    files: list[Path],
    columns: FilterArguments,
    similarity: SimilarityArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    inference: InferenceArguments,
) -> Iterator[tuple[str, str, float]]:
    """
    The key, the caption and their cosine similarity of every caption whose image is in a data set.

    Args:
        files (`list[Path]`):
            Files of captions.
        columns (`FilterArguments`):
            Their columns.
        similarity (`SimilarityArguments`):
            The model, and the column of the images' keys.
        source (`SourceArguments`), split (`TrainSplitArguments`):
            The images.
        inference (`InferenceArguments`):
            How the model is run.

    Raises:
        `ValueError`: if there is no such column of keys, or no image has a caption.
    """
    dataset = undecoded(load_split(source, split.train_split, split.max_train_samples), source.image_column)
    names, key_column = get_columns(dataset), similarity.key_column or columns.file_key_column
    if find_column(names, key_column) is None:
        raise ValueError(
            f"`--key_column {key_column}` is no column of the data set, which has {names}: name the one whose values "
            "stand in `--file_key_column` of `--captions`."
        )
    column, counts = columns.caption_column, Counter()
    captions = CaptionFiles([str(file) for file in files], columns.file_key_column, [column], str(files[0].parent))

    def read_row(number: int, row: dict) -> Iterator[Item]:
        counts["rows"] += 1
        key = read_key(row, key_column)
        rows = [] if key is None else captions.find_rows(key)
        texts = dict.fromkeys(text for found in rows for text in read_captions(found, column))
        if texts:  # else the image is not read
            yield Item((number, key, None), "image", read_image(row[source.image_column]))
        for text in texts:
            marked = mark_sub_captions(text, similarity.sub_caption_splitter)
            yield Item((number, key, text), "caption", marked or text)

    model, processor = load_model(similarity.dual_encoder, inference, argument="dual_encoder")
    loader = load_rows(dataset, RowCollator(processor, read_row, inference.max_length), inference.batch_size)
    loader = progress_bar(loader, desc="Images", unit=" batches")
    group_size = BATCHES_PER_GROUP * inference.batch_size
    images, group = {}, None
    for embedded in embed_rows(model, processor, loader, group=lambda number: number // group_size):
        warn_of_unreadable(embedded.unreadable)
        if embedded.group != group:
            group, images = embedded.group, {}
        for item, embed in zip(embedded.items, [] if embedded.embeds is None else embedded.embeds):
            number, key, text = item.row
            if item.kind == "image":
                images[number] = embed
            else:
                counts["captions"] += 1
                yield key, text, float(images[number] @ embed)
    if not counts["captions"]:
        raise ValueError(
            f"None of {counts['rows']} images has a caption in `--captions`: name the right `--key_column` and "
            "`--file_key_column`."
        )

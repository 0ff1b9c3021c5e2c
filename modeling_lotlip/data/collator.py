# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Batches of images and captions for trainers of other libraries, read as training and evaluation read them."""

import random

import torch
from datasets import Dataset
from transformers import ProcessorMixin
from transformers.utils import logging

from ..utils.sub_captions import mark_sub_captions
from .images import bound_aspect_ratio, undecoded
from .reader import RowReader


logger = logging.get_logger(__name__)


def draw_captions(reader: RowReader, row: dict) -> tuple[str, str]:
    """A short and a long caption of a row, drawn with `random`, sub-captions marked; empty where there is none."""
    long = [mark_sub_captions(text, reader.splitter) for text in reader.long_captions(row)]
    return random.choice(reader.short_captions(row) or [""]), random.choice([text for text in long if text] or [""])


def with_captions(dataset: Dataset, reader: RowReader) -> Dataset:
    """The rows with a caption, images undecoded; others are counted. A `ValueError` if there is none, or a stream."""
    if not isinstance(dataset, Dataset):
        raise ValueError("`--streaming` is for `lotlip train`: leave it out.")
    dataset = undecoded(dataset, reader.image_column).select_columns(reader.columns)
    rows = dataset.select_columns(reader.text_columns)
    kept = [number for number, row in enumerate(rows) if any(draw_captions(reader, row))]
    if len(kept) < len(dataset):
        message = f"{len(dataset) - len(kept)} of {len(dataset)} images have no caption"
        if not kept:
            raise ValueError(f"{message}: name the columns with `--caption_column` and `--long_captions_column`.")
        logger.warning(f"{message} and are left out.")
    return dataset.select(kept)


class CaptionCollator:
    """
    Makes rows the inputs of `LotlipModel`: of each the image, and `input_ids` and `attention_mask` (batch, 2, length)
    of a short and a long caption, drawn anew each time; the mask is zero for a caption that is not there. Raises an
    `UnreadableImageError` if an image cannot be read.
    """

    def __init__(self, processor: ProcessorMixin, reader: RowReader):
        self.processor, self.reader = processor, reader

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | bool]:
        texts = [text for row in rows for text in draw_captions(self.reader, row)]
        tokens = self.processor.tokenizer(texts, padding=True, return_tensors="pt")
        is_present = torch.tensor([[bool(text)] for text in texts])
        image_processor = self.processor.image_processor
        images = [bound_aspect_ratio(self.reader.read_image(row), image_processor) for row in rows]
        return {
            "pixel_values": image_processor(images, return_tensors="pt")["pixel_values"],
            "input_ids": tokens["input_ids"].unflatten(0, (len(rows), 2)),
            "attention_mask": (tokens["attention_mask"] * is_present).unflatten(0, (len(rows), 2)),
            "return_loss": True,
        }

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


def draw_captions(reader: RowReader, row: dict, generator: random.Random | None = None) -> tuple[str, str]:
    """
    Samples a short and a long caption of a row, sub-captions marked; empty where there is none. Without a generator
    they are sampled by Python's own.
    """
    choose = random.choice if generator is None else generator.choice
    marked = [mark_sub_captions(text, reader.splitter) for text in reader.long_captions(row)]
    long_captions = [text for text in marked if text]
    short_caption = choose(reader.short_captions(row) or [""])
    return short_caption, choose(long_captions or [""])


def with_captions(dataset: Dataset, reader: RowReader) -> Dataset:
    """
    Selects the rows with a caption, images undecoded; a warning counts the others.

    Raises:
        `ValueError`: if there are none, or the dataset is a stream.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError("`--streaming` is for `lotlip train`: leave it out.")
    dataset = undecoded(dataset, reader.image_column).select_columns(reader.columns)
    rows = dataset.select_columns(reader.text_columns)
    kept = [index for index, row in enumerate(rows) if any(draw_captions(reader, row))]
    if len(dataset) > 0 and not kept:
        raise ValueError(
            f"{len(dataset)} of {len(dataset)} images have no caption: name the columns with "
            "`--caption_column` and `--long_captions_column`."
        )
    if len(kept) < len(dataset):
        logger.warning(f"{len(dataset) - len(kept)} of {len(dataset)} images have no caption and are left out.")
    return dataset.select(kept)


class CaptionCollator:
    """
    Makes rows the inputs of `LotlipModel`: of each the image, a short and a long caption, sampled anew each time.

    Args:
        processor (`ProcessorMixin`):
            The processor of the model.
        reader (`RowReader`):
            Reads the rows.
    """

    def __init__(self, processor: ProcessorMixin, reader: RowReader):
        self.processor = processor
        self.reader = reader

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | bool]:
        """
        Reads and tokenizes rows.

        Returns:
            `dict`: `pixel_values` of shape `(batch, channels, height, width)`, float32; `input_ids` and
                `attention_mask` of shape `(batch, 2, length)`, int64, zero for a caption that is not there; and
                `return_loss`, which is true.

        Raises:
            `UnreadableImageError`: if an image cannot be read.
        """
        texts = []
        for row in rows:
            texts += draw_captions(self.reader, row)
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

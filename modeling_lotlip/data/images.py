# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images out of files: the one way to read one, and what can be wrong with it."""

import io
import re
import struct
import zlib

import PIL.Image
from datasets import Dataset, Image, IterableDataset
from fsspec import open as open_file
from transformers.image_transforms import convert_to_rgb

from ..image_processing_pil_lotlip import to_upright_8_bit


# What Pillow raises at files that are no images, are cut off, or would fill the memory.
IMAGE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    EOFError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)


def undecoded(dataset: Dataset | IterableDataset, image_column: str) -> Dataset | IterableDataset:
    """The same data with image files in the place of images: `read_image` decodes them."""
    return dataset.cast_column(image_column, Image(decode=False))


class UnreadableImageError(ValueError):
    """A file that is no image, is cut off, or would fill the memory."""


def read_image(file: dict, max_side: int | None = None) -> PIL.Image.Image:
    """
    An upright RGB image of 8 bits from an undecoded one of any mode; what is transparent becomes white.

    Args:
        file (`dict`):
            An undecoded image of `datasets`: its `bytes`, or the `path` of its file.
        max_side (`int`, *optional*):
            Make it smaller where a side is longer. A large JPEG is then decoded at a fraction of its size, which is
            much faster.

    Raises:
        `UnreadableImageError`: if there is none in the file.
    """
    try:
        image = PIL.Image.open(io.BytesIO(read_file(file)))
        if max_side is not None:
            image.draft(None, (2 * max_side, 2 * max_side))
        image = PIL.Image.fromarray(convert_to_rgb(to_upright_8_bit(image), return_numpy=True))
        if max_side is not None:
            image.thumbnail((max_side, max_side))
        return image
    except IMAGE_ERRORS as error:
        # without the address of the object, so that equal causes are equal
        raise UnreadableImageError(re.sub(r" `?<[^<>]* at 0x[0-9a-fA-F]+>`?", "", str(error))) from error


def read_file(file: dict | None) -> bytes:
    """
    The bytes of an undecoded image.

    Raises:
        `UnreadableImageError`: if there are none.
    """
    file = file or {}
    if file.get("bytes") is not None:
        return file["bytes"]
    if file.get("path") is None:
        raise UnreadableImageError("there is no image")
    try:
        with open_file(file["path"], "rb") as opened:
            return opened.read()
    except IMAGE_ERRORS as error:
        raise UnreadableImageError(f"the file cannot be read: {error}") from error


def name_row(row: dict, number: int | None = None) -> str:
    """How messages call a row: by the key of a shard, by the file of its image, or by its number."""
    paths = [value["path"] for value in row.values() if isinstance(value, dict) and value.keys() == {"bytes", "path"}]
    name = row.get("__key__") or row.get("file_name") or next(filter(None, paths), None)
    return name or ("a row" if number is None else f"row {number}")

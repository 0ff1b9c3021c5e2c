# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images out of files: the one way to read one, and what can be wrong with it."""

import io
import re
import struct
import zlib
from datetime import datetime, timedelta
from typing import NamedTuple

import PIL.Image
from datasets import Dataset, Image, IterableDataset
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from fsspec import open as open_file
from PIL.ExifTags import Base as ExifTag
from PIL.JpegImagePlugin import JpegImageFile
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import convert_to_rgb

from ..hub_lotlip import MAX_ASPECT_RATIO, ImageMixin, to_upright_8_bit


IMAGE_EXTENSIONS = frozenset(ImageFolder.EXTENSIONS) | {".avif", ".heic", ".heif", ".hif"}  # the endings of files

# What Pillow raises at files that are no images, are cut off, or would fill the memory.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, RuntimeError, EOFError, LookupError, OverflowError)
IMAGE_ERRORS += (MemoryError, struct.error, zlib.error, PIL.Image.DecompressionBombError)

# Of files that others send: for some of the rest Pillow starts other programs
SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
# A JPEG is decoded at no less than this many times the size that the image processor makes of it
DECODING_MARGIN = 3
# What a file of HEVC images, HEIC, says of itself, in the first brands that it names
HEIC = re.compile(rb".{4}ftyp(.{4}){0,14}?(hei[cxms]|hev[cx])", re.DOTALL)
TOO_LARGE = "make it smaller (JPEGs may be larger in search and `lotlip embed`, which decode a fraction of them)"


def undecoded(dataset: Dataset | IterableDataset, image_column: str) -> Dataset | IterableDataset:
    """The same data with image files instead of images: `read_image` decodes them."""
    return dataset.cast_column(image_column, Image(decode=False))


class UnreadableImageError(ValueError):
    """A file that is no image, is cut off, or would fill the memory."""


class Resizing(NamedTuple):
    """How an image processor resizes: the shorter side in pixels after it, or width and height, and the filter."""

    shortest_edge: int | None
    size: tuple[int, int] | None
    resample: PIL.Image.Resampling

    @classmethod
    def of(cls, image_processor: BaseImageProcessor) -> "Resizing | None":
        """That of an image processor; None if it is another one than transformers' own to a fixed size."""
        resizers = (TorchvisionBackend.resize, PilBackend.resize, ImageMixin.resize)
        resample = getattr(image_processor, "resample", None)
        is_known = getattr(type(image_processor), "resize", None) in resizers and isinstance(resample, int)
        if not is_known or not image_processor.do_resize:
            return None
        size = {name: side for name, side in dict(image_processor.size or {}).items() if side is not None}
        if size.keys() == {"shortest_edge"}:
            return cls(size["shortest_edge"], None, PIL.Image.Resampling(resample))
        if size.keys() == {"height", "width"}:
            return cls(None, (size["width"], size["height"]), PIL.Image.Resampling(resample))
        return None

    def target(self, width: int, height: int) -> tuple[int, int]:
        """What becomes of a width and a height, as transformers rounds it."""
        if self.size is not None:
            return self.size
        longest_edge = int(self.shortest_edge * max(width, height) / min(width, height))
        return (self.shortest_edge, longest_edge) if width <= height else (longest_edge, self.shortest_edge)


def read_image(
    file: dict, max_side: int | None = None, resizing: Resizing | None = None, formats: tuple[str, ...] | None = None
) -> PIL.Image.Image:
    """
    An upright RGB image of 8 bits from an undecoded one, the first of several frames; what is transparent becomes
    white. No side is longer than `max_side`. A large JPEG is decoded at a fraction of its size, at least twice
    `max_side`, or `DECODING_MARGIN` times what `resizing` makes of it, which is done here too: two to four times as
    fast, pixels a little different. Only Pillow's `formats` and HEIC are read. Raises an `UnreadableImageError` if it
    cannot be read.
    """
    try:
        image = open_image(read_file(file), formats)
        if max_side is not None:
            image.draft(None, (2 * max_side, 2 * max_side))
        elif resizing is not None and isinstance(image, JpegImageFile):
            image = decode_reduced(image, resizing)
        check_num_pixels(image)
        image = upright_rgb(image)
        if max_side is not None:
            image.thumbnail((max_side, max_side))
        return image
    except IMAGE_ERRORS as error:
        if isinstance(error, UnreadableImageError):
            raise
        # without the address of the object, so that equal causes are equal
        message = re.sub(r" `?<[^<>]* at 0x[0-9a-fA-F]+>`?", "", str(error)) or type(error).__name__
        raise UnreadableImageError(message) from error


def upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns an image turned upright as its EXIF says, in RGB of 8 bits; what is transparent becomes white."""
    return PIL.Image.fromarray(convert_to_rgb(to_upright_8_bit(image), return_numpy=True))


def open_image(content: bytes, formats: tuple[str, ...] | None = None) -> PIL.Image.Image:
    """The image in a file, not decoded yet. A JPEG may have any number of pixels: see [`check_num_pixels`]."""
    file = io.BytesIO(content)
    if content.startswith(b"\xff\xd8\xff"):
        image = JpegImageFile(file)
        if "progressive" in image.info:  # all of it is in memory before the first pixel is
            check_num_pixels(image, 2)
        return image
    if HEIC.match(content):
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise UnreadableImageError('HEIC needs `pip install "lotlip[heic]"`') from error
        return HeifImageFile(file)
    try:
        return PIL.Image.open(file, formats=formats)
    except PIL.UnidentifiedImageError as error:
        if formats is None:
            raise
        raise UnreadableImageError(f"it is none of {', '.join(formats)}") from error
    except PIL.Image.DecompressionBombError as error:
        raise UnreadableImageError(f"{str(error).partition(', could')[0]}: {TOO_LARGE}") from error


def check_num_pixels(image: PIL.Image.Image, allowance: int = 1) -> None:
    """Refuses to decode more pixels than Pillow would, twice `PIL.Image.MAX_IMAGE_PIXELS`, times an allowance."""
    width, height = image.size
    limit = None if PIL.Image.MAX_IMAGE_PIXELS is None else 2 * allowance * PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UnreadableImageError(f"{width} x {height} pixels are more than {limit}: {TOO_LARGE}")


def decode_reduced(image: JpegImageFile, resizing: Resizing) -> PIL.Image.Image:
    """A JPEG decoded at a fraction of its size and resized; not decoded where it is too small or thin for that."""
    size = image.size
    is_turned = image.getexif().get(ExifTag.Orientation) in (5, 6, 7, 8)
    if max(size) > MAX_ASPECT_RATIO * min(size):
        return image
    target = resizing.target(*(size[::-1] if is_turned else size))
    target = target[::-1] if is_turned else target
    # where a side is no multiple of the fraction, the last row or column of pixels is more than the image
    _, box = image.draft(None, (DECODING_MARGIN * target[0], DECODING_MARGIN * target[1]))
    if image.size == size:
        return image
    check_num_pixels(image)
    return image.convert("RGB").resize(target, resizing.resample, box=box)


def bound_aspect_ratio(image: PIL.Image.Image, image_processor: BaseImageProcessor) -> PIL.Image.Image:
    """
    The middle of an image whose long side is more than `MAX_ASPECT_RATIO` times the short one, unless it is resized to
    a fixed size: an image processor that resizes the short side would make gigabytes of 1 x 60,000 pixels.
    """
    resizing = Resizing.of(image_processor)
    if resizing is not None and resizing.size is not None:
        return image
    longest_edge = MAX_ASPECT_RATIO * min(image.size)
    left, top = (max(0, side - longest_edge) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


def read_file(file: dict | None) -> bytes:
    """The bytes of an undecoded image. Raises an `UnreadableImageError` if there are none."""
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


def read_date(exif: PIL.Image.Exif) -> datetime | None:
    """When an image was taken, or else its file was written, by the clock of the camera; None if there is no date."""
    for value in (exif.get_ifd(ExifTag.ExifOffset).get(ExifTag.DateTimeOriginal), exif.get(ExifTag.DateTime)):
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        *date, second = map(int, [*re.findall(r"\d+", text, re.ASCII), 0, 0, 0, 0, 0, 0][:6])
        try:
            return datetime(*date) + timedelta(seconds=second)
        except (ValueError, OverflowError):  # 0000:00:00, say
            continue
    return None

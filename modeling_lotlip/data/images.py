# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images out of files: the one way to read one, and what can be wrong with it."""

import io
import os
import re
import struct
import zipfile
import zlib
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL.Image
from datasets import Dataset, Image, IterableDataset
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from fsspec import open as open_file
from fsspec.core import url_to_fs
from PIL.ExifTags import Base as ExifTag
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from transformers import (
    BeitImageProcessor,
    BeitImageProcessorPil,
    ConvNextImageProcessor,
    ConvNextImageProcessorPil,
    DINOv3ViTImageProcessor,
    EfficientNetImageProcessor,
    EfficientNetImageProcessorPil,
    FlavaImageProcessor,
    FlavaImageProcessorPil,
    LlavaNextImageProcessor,
    LlavaNextImageProcessorPil,
    Owlv2ImageProcessor,
    Owlv2ImageProcessorPil,
    Siglip2ImageProcessor,
    Siglip2ImageProcessorPil,
)
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

from ..hub_lotlip import MAX_ASPECT_RATIO, ImageMixin, to_rgb, to_upright_8_bit


logger = logging.get_logger(__name__)

# The endings of image files
IMAGE_EXTENSIONS = frozenset(ImageFolder.EXTENSIONS) | {".avif", ".heic", ".heif", ".hif"}

# What Pillow raises at files that are no images, are cut off, or would fill the memory
IMAGE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    PIL.Image.DecompressionBombError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

# What lays out the whole of an image in patches or tiles, whose number is limited
PROCESSORS_OF_PATCHES = (
    LlavaNextImageProcessor,
    LlavaNextImageProcessorPil,
    Siglip2ImageProcessor,
    Siglip2ImageProcessorPil,
)

# The formats of uploads and of indexed folders, by their names in Pillow; HEIC is read too
SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
# The endings of files in these formats
SAFE_EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .gif .bmp .tif .tiff .heic .heif .hif".split()
)
# Formats that are never read: Pillow starts other programs for them, or opens what is inside without a check
UNSAFE_FORMATS = frozenset({"EPS", "IPTC", "WMF"})
# Files that are larger are not read: an uncompressed image with as many pixels as may be decoded has about as much
MAX_FILE_BYTES = 2**30
# The bytes by which the format of a file is known, and how many are read at a time after them
FIRST_BYTES = 4096
BYTES_AT_ONCE = 2**24
# A JPEG is decoded at no less than this many times the size that the image processor makes of it
DECODING_MARGIN = 3
# Classes that resize a whole image before all else that depends on its size, and their methods that decide on that: a
# class of one's own may pad or crop an image before
KNOWN_RESIZERS = (
    TorchvisionBackend,
    PilBackend,
    ImageMixin,
    BeitImageProcessor,
    BeitImageProcessorPil,
    DINOv3ViTImageProcessor,
    EfficientNetImageProcessor,
    EfficientNetImageProcessorPil,
    FlavaImageProcessor,
    FlavaImageProcessorPil,
)
RESIZING_METHODS = (
    "__call__",
    "preprocess",
    "_preprocess",
    "_preprocess_image_like_inputs",
    "_prepare_image_like_inputs",
    "process_image",
    "resize",
)
# From this size on, ConvNeXt's image processor squeezes a whole image to a square
CONVNEXT_FIXED_SIZE = 384
# Of the longest edge of an image after it was resized; what is more counts pixels
MAX_EDGE = 10_000
# A date of EXIF, "2020:01:02 03:04:05", and what programs write in its place: a year of four digits first, then month
# and day, perhaps a time of 24 or of 12 hours, fractions of a second and a time zone
DATE = re.compile(
    r"\s*(\d{4})[:/.-]\s?(\d{1,2})[:/.-]\s?(\d{1,2})"
    r"(?:[T\s]\s*(\d{1,2}):\s?(\d{1,2})(?::\s?(\d{1,2})(?:[.,]\d+)?)?\s*(?:(?P<half>[ap])\.?m\.?)?"
    r"\s*(?:Z|[+-]\d{2}:?\d{2})?)?\s*",
    re.ASCII | re.IGNORECASE,
)
# The orientations of EXIF that exchange width and height
TURNED = (5, 6, 7, 8)
# What a file of HEVC images, HEIC, says of itself, in the first brands that it names
HEIC = re.compile(rb".{4}ftyp(.{4}){0,14}?(hei[cxms]|hev[cx])", re.DOTALL)
TOO_LARGE = "make it smaller (JPEGs may be larger in search and `lotlip embed`, which decode a fraction of them)"


def unformatted(dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """
    Gives the same data with all columns, and with the values as they are stored: of a dataset with a format rows hold
    tensors or arrays, or lack columns. A function of the user that transforms rows stays, and a stream is left as it
    is.
    """
    if not isinstance(dataset, Dataset) or dataset.format["type"] == "custom":
        return dataset
    return dataset.with_format(None)


def undecoded(dataset: Dataset | IterableDataset, image_column: str) -> Dataset | IterableDataset:
    """
    Gives the same data with image files instead of images, and without a format: `read_image` decodes them. A stream
    whose columns have no types holds them already: `datasets` decodes by types alone.
    """
    if dataset.features is None:
        return dataset
    return unformatted(dataset).cast_column(image_column, Image(decode=False))


class UnreadableImageError(ValueError):
    """
    A file that is no image, is cut off, or would fill the memory.

    Args:
        message (`str`):
            Why it cannot be read.
        is_final (`bool`, *optional*, defaults to `True`):
            Whether its content is the cause. If it is not, reading it again may succeed: memory was short, say, or
            the file was not open to this user.
    """

    def __init__(self, message: str, is_final: bool = True):
        super().__init__(message)
        self.is_final = is_final


class Resizing(NamedTuple):
    """How an image processor resizes."""

    shortest_edge: int | None  # the shorter side after it, in pixels; None if the size is fixed
    size: tuple[int, int] | None  # width and height after it, in pixels
    resample: PIL.Image.Resampling

    @classmethod
    def of(cls, image_processor: BaseImageProcessor) -> "Resizing | None":
        """Finds how an image processor resizes; None if not by averages to a fixed size, as transformers does."""
        if not is_known_resizer(type(image_processor)) or not image_processor.do_resize:
            return None
        resample = getattr(image_processor, "resample", None)
        # what takes single pixels takes others of a smaller image
        if not isinstance(resample, int) or resample == PIL.Image.Resampling.NEAREST:
            return None
        sides = dict(image_processor.size or {})
        size = {name: side for name, side in sides.items() if side is not None}
        if size.keys() == {"shortest_edge"}:
            return cls(size["shortest_edge"], None, PIL.Image.Resampling(resample))
        if size.keys() == {"height", "width"}:
            return cls(None, (size["width"], size["height"]), PIL.Image.Resampling(resample))
        return None

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Computes the width and height after resizing from those before, rounded as by transformers."""
        if self.size is not None:
            return self.size
        longest_edge = int(self.shortest_edge * max(width, height) / min(width, height))
        if width <= height:
            return self.shortest_edge, longest_edge
        return longest_edge, self.shortest_edge


def is_known_resizer(image_processor_class: type) -> bool:
    """Returns whether all methods that decide how images of a class are resized are those of known classes."""
    for name in RESIZING_METHODS:
        method = getattr(image_processor_class, name, None)
        if method not in [getattr(known, name, None) for known in KNOWN_RESIZERS]:
            return False
    return issubclass(image_processor_class, BaseImageProcessor)


def read_image(
    file: dict,
    max_side: int | None = None,
    resizing: Resizing | None = None,
    formats: tuple[str, ...] | None = None,
) -> PIL.Image.Image:
    """
    Reads an undecoded image as an upright RGB image of 8 bits, of several frames the first; what is transparent
    becomes white. A large JPEG is decoded at a fraction of its size, which is two to four times as fast; pixels are a
    little different.

    Args:
        file (`dict`):
            The `bytes` of a file, or its `path`.
        max_side (`int`, *optional*):
            The longest side in pixels. A JPEG is decoded at no less than twice as many.
        resizing (`Resizing`, *optional*):
            How the image processor resizes: a large JPEG is decoded at no less than `DECODING_MARGIN` times the size
            after it, and resized here.
        formats (`tuple[str, ...]`, *optional*):
            The formats that are read, by their names in Pillow, and HEIC. Default: all but `UNSAFE_FORMATS`.

    Returns:
        `PIL.Image.Image`: the image.

    Raises:
        `UnreadableImageError`: if it cannot be read.
    """
    content = read_file(file, formats)
    try:
        image = open_image(content, formats)
        if max_side is not None:
            image.draft(None, (2 * max_side, 2 * max_side))
        elif resizing is not None and isinstance(image, JpegImageFile):
            image = decode_reduced(image, resizing)
        check_num_pixels(image)
        image = upright_rgb(image)
        if max_side is not None:
            image.thumbnail((max_side, max_side))
        return image
    except UnreadableImageError:
        raise
    except IMAGE_ERRORS as error:
        # without the address of the object, so that equal causes are equal
        message = re.sub(r" `?<[^<>]* at 0x[0-9a-fA-F]+>`?", "", str(error)) or type(error).__name__
        raise UnreadableImageError(message, is_final=is_of_content(error)) from error


def is_of_content(error: Exception) -> bool:
    """Returns whether what Pillow raises at a file is because of its content, not of the memory or the system."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) is None


def name_readers() -> str:
    """Names the versions of what reads images: another one may read a file that this one cannot read."""
    versions = [f"Pillow {PIL.__version__}"]
    with suppress(PackageNotFoundError):
        versions.append(f"pillow-heif {version('pillow-heif')}")
    return ", ".join(versions)


def upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns an image turned upright as its EXIF says, in RGB of 8 bits; what is transparent becomes white."""
    return to_rgb(to_upright_8_bit(image))


def open_image(content: bytes, formats: tuple[str, ...] | None = None) -> PIL.Image.Image:
    """Opens the image in a file without decoding it. A JPEG may have any size: see [`check_num_pixels`]."""
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
            raise UnreadableImageError('HEIC needs `pip install "lotlip[heic]"`', is_final=False) from error
        return HeifImageFile(file)
    try:
        return PIL.Image.open(file, formats=list_formats() if formats is None else formats)
    except PIL.UnidentifiedImageError as error:
        if formats is None:
            raise
        raise UnreadableImageError(f"it is none of {', '.join(formats)}") from error
    except PIL.Image.DecompressionBombError as error:
        raise UnreadableImageError(f"{str(error).partition(', could')[0]}: {TOO_LARGE}") from error


@cache
def list_formats() -> tuple[str, ...]:
    """Lists the formats that Pillow reads without other programs."""
    PIL.Image.init()
    return tuple(name for name in PIL.Image.ID if name not in UNSAFE_FORMATS)


def find_upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Finds the width and height that an image which is not decoded yet has when it is turned as its EXIF says."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # Pillow exchanges them itself, before or after decoding
        width = image.tag_v2[ExifTag.ImageWidth]
        height = image.tag_v2[ExifTag.ImageLength]
    if image.getexif().get(ExifTag.Orientation) in TURNED:
        return height, width
    return width, height


def check_num_pixels(image: PIL.Image.Image, allowance: int = 1) -> None:
    """
    Raises an `UnreadableImageError` for more pixels than Pillow would decode, twice `PIL.Image.MAX_IMAGE_PIXELS`,
    times an allowance.
    """
    if PIL.Image.MAX_IMAGE_PIXELS is None:
        return
    width, height = image.size
    limit = 2 * allowance * PIL.Image.MAX_IMAGE_PIXELS
    if width * height > limit:
        raise UnreadableImageError(f"{width} x {height} pixels are more than {limit}: {TOO_LARGE}")


def decode_reduced(image: JpegImageFile, resizing: Resizing) -> PIL.Image.Image:
    """Decodes a JPEG at a fraction of its size and resizes it; returns it as it is where it is too small or thin."""
    size = image.size
    if max(size) > MAX_ASPECT_RATIO * min(size):
        return image
    width, height = size
    if image.getexif().get(ExifTag.Orientation) in TURNED:
        target_height, target_width = resizing.target(height, width)
    else:
        target_width, target_height = resizing.target(width, height)
    target = (target_width, target_height)
    # where a side is no multiple of the fraction, the last row or column of pixels is more than the image
    _, box = image.draft(None, (DECODING_MARGIN * target_width, DECODING_MARGIN * target_height))
    if image.size == size:
        return image
    check_num_pixels(image)
    return image.convert("RGB").resize(target, resizing.resample, box=box)


def bound_aspect_ratio(image: PIL.Image.Image, image_processor: BaseImageProcessor) -> PIL.Image.Image:
    """
    Crops the middle of an image whose long side is more than `MAX_ASPECT_RATIO` times the short one, if its image
    processor may make gigabytes of 1 x 60,000 pixels. An end that is cut off is as long as whole short sides, which
    become whole pixels. A warning says so where it may change what a model sees: most image processors crop the middle
    themselves.
    """
    short = min(image.size)
    longest_edge = MAX_ASPECT_RATIO * short
    left = max(0, image.width - longest_edge) // 2 // short * short
    top = max(0, image.height - longest_edge) // 2 // short * short
    if (left == 0 and top == 0) or not may_make_it_huge(image_processor):
        return image
    if not getattr(image_processor, "do_center_crop", False):
        logger.warning_once(
            f"Of images whose long side is more than {MAX_ASPECT_RATIO} times the short one "
            f"{type(image_processor).__name__} gets the middle: of all it might make more than the memory holds."
        )
    return image.crop((left, top, image.width - left, image.height - top))


def may_make_it_huge(image_processor: BaseImageProcessor) -> bool:
    """Returns whether an image processor may make a very large image of a long thin one."""
    if not isinstance(image_processor, (TorchvisionBackend, PilBackend)):
        return True  # of others it is not known
    if not image_processor.do_resize or isinstance(image_processor, PROCESSORS_OF_PATCHES):
        return False
    if isinstance(image_processor, (Owlv2ImageProcessor, Owlv2ImageProcessorPil)):
        return True  # it pads an image to a square before
    sides = {name: side for name, side in dict(image_processor.size or {}).items() if side is not None}
    if sides.keys() == {"shortest_edge"} and isinstance(
        image_processor, (ConvNextImageProcessor, ConvNextImageProcessorPil)
    ):
        return sides["shortest_edge"] < CONVNEXT_FIXED_SIZE
    if "longest_edge" in sides:
        return sides["longest_edge"] > MAX_EDGE  # a number of pixels, by which a strip may be refused (Qwen2-VL)
    return sides.keys() not in ({"height", "width"}, {"max_height", "max_width"})


def make_noise_image(height: int, width: int) -> PIL.Image.Image:
    """Makes an image of noise, by which it is seen what models compute: of a blank one all parts are alike."""
    generator = np.random.default_rng(0)
    return PIL.Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def is_address(path: str) -> bool:
    """Returns whether a path is an address. Names of files such as `file:a.jpg` and `a::b.jpg` are none."""
    return "://" in path and not os.path.exists(path)


def to_local_path(path: str) -> str:
    """Makes a path of one that is written as `file://`, so that what has changed there is known; others stay."""
    if path.startswith("file://") and is_address(path):
        return url_to_fs(path)[1]
    return path


def find_image_path(image: dict | None) -> str:
    """Finds the path of an undecoded image on this machine, or its address elsewhere; empty if it has neither."""
    if image is None:
        return ""
    return to_local_path(image.get("path") or "")


def find_file_on_disk(path: str) -> str | None:
    """Finds the file of this machine that an image is in: its own, or an archive (`zip://a.png::photos.zip`)."""
    path = to_local_path(path)
    for name in (path, path.rpartition("::")[2]):
        if os.path.isfile(name):
            return name
    return None


def read_file(file: dict | None, formats: tuple[str, ...] | None = None) -> bytes:
    """
    Reads the bytes of an undecoded image. Raises an `UnreadableImageError` if there are none, there are more than
    `MAX_FILE_BYTES`, or the first ones are those of no file in `formats`; then the others are not read.
    """
    if file is None:
        raise UnreadableImageError("there is no image")
    if file.get("bytes") is not None:
        return file["bytes"]
    path = file.get("path")
    if path is None:
        raise UnreadableImageError("there is no image")
    try:
        with open_file(path, "rb") if is_address(path) else open(path, "rb") as opened:
            start = opened.read(FIRST_BYTES)
            if formats is not None:
                check_start(start, formats)
            return read_rest(opened, start)
    except UnreadableImageError:
        raise
    except IMAGE_ERRORS as error:
        raise UnreadableImageError(f"the file cannot be read: {error}", is_final=False) from error


def check_start(start: bytes, formats: tuple[str, ...]) -> None:
    """Raises an `UnreadableImageError` if a file that begins with some bytes is in none of the formats."""
    PIL.Image.init()
    known = [PIL.Image.OPEN[name] for name in formats if name in PIL.Image.OPEN]
    if not HEIC.match(start) and not any(accepts(start[:16]) for _, accepts in known):
        raise UnreadableImageError(f"it is none of {', '.join(formats)}")


def read_rest(opened: BinaryIO, start: bytes) -> bytes:
    """Reads an open file to its end, after its `start`. Raises an `UnreadableImageError` if it is too large."""
    parts = [start]
    num_bytes = len(start)
    while part := opened.read(BYTES_AT_ONCE):
        parts.append(part)
        num_bytes += len(part)
        if num_bytes > MAX_FILE_BYTES:
            raise UnreadableImageError(f"the file has more than {MAX_FILE_BYTES} bytes: make it smaller")
    return b"".join(parts)


def read_date(exif: PIL.Image.Exif) -> datetime | None:
    """
    Reads when an image was taken, or else digitized, or else its file was written, by the clock of the camera; None if
    there is no date, or it is written in a form that may mean several days, such as `5/6/24`.
    """
    details = exif.get_ifd(ExifTag.ExifOffset)
    taken = details.get(ExifTag.DateTimeOriginal)
    digitized = details.get(ExifTag.DateTimeDigitized)
    written = exif.get(ExifTag.DateTime)
    for value in (taken, digitized, written):
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        found = DATE.fullmatch(text.partition("\0")[0])
        if found is None:
            continue
        year, month, day, hour, minute, second = [int(number or 0) for number in found.groups()[:6]]
        half = (found["half"] or "").lower()
        if half and not 1 <= hour <= 12:
            continue
        if half:
            hour %= 12
        if half == "p":
            hour += 12
        try:
            return datetime(year, month, day, hour, minute) + timedelta(seconds=second)
        except (ValueError, OverflowError):  # 0000:00:00, say
            continue
    return None

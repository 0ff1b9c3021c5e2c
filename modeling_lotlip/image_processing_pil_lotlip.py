# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Image processor class for LoTLIP (PIL backend), and what both backends share."""

import base64
import math
import os
import reprlib
import struct
import zlib
from io import BytesIO
from numbers import Real
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import PIL.Image
import PIL.ImageOps
from huggingface_hub.utils import httpx
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    ImageInput,
    PILImageResampling,
    SizeDict,
    is_pil_image,
    is_valid_image,
)
from transformers.utils import auto_docstring, is_torch_tensor

from .loading_lotlip import LotlipLoadingMixin


if TYPE_CHECKING:
    import torch

# An image in the backend's own form, of shape (..., height, width)
ImageArray = Union[np.ndarray, "torch.Tensor"]

# Beyond this ratio of its sides an image is cut to its middle before it is resized: the center crop sees no more of it
MAX_ASPECT_RATIO = 32

# What Pillow raises for files that are damaged or cut off, which depends on their format
DAMAGED_IMAGE_ERRORS = (EOFError, OSError, RuntimeError, SyntaxError, ValueError, TypeError, OverflowError)
DAMAGED_IMAGE_ERRORS += (struct.error, zlib.error, PIL.Image.DecompressionBombError)


def load_image(source: str | os.PathLike) -> PIL.Image.Image:
    """
    Loads an image as it is, so that neither transparency nor 16-bit depth is lost.

    Args:
        source (`str` or `os.PathLike`):
            Path of a file, URL (`http://` or `https://`), or base64 string.

    Raises:
        `ValueError`: if `source` is none of these, or no intact image.
    """
    source = os.fspath(source)
    if source.startswith(("http://", "https://")):
        file = BytesIO(httpx.get(source, follow_redirects=True, timeout=60).raise_for_status().content)
    elif os.path.isfile(source):
        file = source
    else:
        try:
            encoded = source.rpartition("base64,")[2].replace("\n", "")
            file = BytesIO(base64.b64decode(encoded, validate=True))
        except ValueError as error:
            raise ValueError(
                f"{reprlib.repr(source)} is neither the path of an image file, nor a URL, nor a base64 string."
            ) from error

    try:
        image = PIL.Image.open(file)
        image.load()
    except DAMAGED_IMAGE_ERRORS as error:
        raise ValueError(f"{reprlib.repr(source)} is not an image file, or a damaged one: {error}.") from error
    return image


def scale_16_bit(pixels: np.ndarray) -> np.ndarray:
    """Maps 0..65535 to 0..255, rounded to the nearest."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(
            f"An image with more than 8 bits must have values from 0 to 65535, got {pixels.min()} to {pixels.max()}."
            " Scale it to 8 bits before."
        )
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_upright_8_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Turns a photograph as its EXIF orientation says, and scales 16-bit pixels, which Pillow would clip."""
    try:
        image.load()
        image = PIL.ImageOps.exif_transpose(image)
    except DAMAGED_IMAGE_ERRORS as error:
        raise ValueError(f"The image `{image}` is damaged or cut off: {error}.") from error

    if image.mode in ("La", "RGBa"):  # multiplied by their transparency, which only Pillow knows to undo
        image = image.convert(image.mode.upper())
    if image.mode == "F":
        raise ValueError("An image of floating point pixels (mode `F`) has no known range. Scale it to 8 bits before.")
    if image.mode.startswith("I"):
        image = PIL.Image.fromarray(scale_16_bit(np.array(image)))
    return image


def array_to_8_bit(image: ImageArray) -> ImageArray:
    """
    Brings integer arrays to 8 bits: 1-bit and 16-bit ones are scaled, the others must have values from 0 to 255.

    Raises:
        `ValueError`: if they have not, or hold NaN, infinity or no numbers at all.
    """
    if not is_torch_tensor(image):
        image = np.asarray(image, image.dtype.newbyteorder("="))  # torch knows no other
    dtype = str(image.dtype).removeprefix("torch.")
    if dtype == "uint8":
        return image
    if dtype.startswith(("float", "bfloat")):
        image = image.float() if dtype == "bfloat16" else image  # NumPy has no bfloat16
        if not (image.isfinite() if is_torch_tensor(image) else np.isfinite(image)).all():
            raise ValueError(f"An image of type `{dtype}` and shape {tuple(image.shape)} holds NaN or infinity.")
        return image
    if not dtype.startswith(("bool", "int", "uint")):
        raise ValueError(f"An image must hold real numbers, not `{dtype}`.")

    pixels = image.cpu().numpy() if is_torch_tensor(image) else image
    if dtype == "bool":
        return pixels.astype(np.uint8) * 255
    if dtype == "uint16":
        return scale_16_bit(pixels)
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(
            f"An image of type `{dtype}` must have values from 0 to 255, got {pixels.min()} to {pixels.max()}. Give"
            " 16-bit pixels as `uint16`."
        )
    return pixels.astype(np.uint8)


def crop_to_middle(image: ImageArray, max_ratio: int) -> ImageArray:
    """
    Cuts both ends off an image whose long side is more than `max_ratio` times the short one.

    Resizing the short side of a strip 1 x 60,000 to 224 would take gigabytes, nearly all of it cropped away at once.
    """
    height, width = image.shape[-2:]
    longest_edge = min(height, width) * max_ratio
    top, left = max(height - longest_edge, 0) // 2, max(width - longest_edge, 0) // 2
    return image[..., top : height - top, left : width - left]


def check_size(size: SizeDict, name: str, aspect_ratio: float = 1.0) -> None:
    """
    Refuses a size of images that is not positive, or larger than what Pillow opens without a warning
    (`PIL.Image.MAX_IMAGE_PIXELS`, 89 million pixels), which a damaged configuration may hold.

    Args:
        size (`SizeDict`): The size.
        name (`str`): What the size is called in the error.
        aspect_ratio (`float`, *optional*, defaults to 1.0): The longer side of an image by its shorter one.
    """
    sides = {side: value for side, value in dict(size).items() if value is not None}
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in sides.values()):
        raise ValueError(f"`{name}` must be whole numbers of pixels, got {sides}.")
    if min(sides.values(), default=1) < 1:
        raise ValueError(f"`{name}` must be positive, got {sides}.")

    if "shortest_edge" in sides:
        longest_edge = sides["shortest_edge"] * aspect_ratio
        num_pixels = sides["shortest_edge"] * min(longest_edge, sides.get("longest_edge", longest_edge))
    else:
        num_pixels = math.prod(sides.values())
    if PIL.Image.MAX_IMAGE_PIXELS is not None and num_pixels > PIL.Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"`{name}` {sides} makes an image of {num_pixels:,.0f} pixels, more than `PIL.Image.MAX_IMAGE_PIXELS` "
            f"({PIL.Image.MAX_IMAGE_PIXELS:,})."
        )


class LotlipImageProcessorMixin:
    """What the two backends of the LoTLIP image processor share."""

    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"shortest_edge": 224}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def fetch_images(self, image_url_or_urls: ImageInput | str | os.PathLike | list) -> ImageInput:
        """Loads paths, URLs and base64 strings, and makes grey images of two-dimensional arrays."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if isinstance(image_url_or_urls, (str, os.PathLike)):
            return load_image(image_url_or_urls)
        if not is_valid_image(image_url_or_urls):
            raise TypeError(
                "`images` must be (a list of) PIL images, arrays, tensors, paths or URLs, but there is"
                f" {reprlib.repr(image_url_or_urls)} of type `{type(image_url_or_urls).__name__}`."
            )
        if not is_pil_image(image_url_or_urls) and image_url_or_urls.ndim == 2:
            return image_url_or_urls[None]
        return image_url_or_urls

    def process_image(self, image: ImageInput, *args, **kwargs) -> ImageArray:
        """Turns upright and scales to 8 bits, before anything is converted."""
        image = to_upright_8_bit(image) if is_pil_image(image) else array_to_8_bit(image)
        image = super().process_image(image, *args, **kwargs)
        if 0 in image.shape:
            raise ValueError(f"An image of shape {tuple(image.shape)} has no pixels.")
        return image

    def center_crop(self, image: ImageArray, size: SizeDict, **kwargs) -> ImageArray:
        """Crops as torchvision does: half an odd remainder is rounded half to even, not down."""
        if size.height is None or size.width is None:
            raise ValueError(f"`crop_size` must have the keys `height` and `width`, got {dict(size)}.")

        height, width = image.shape[-2:]
        crop_height, crop_width = min(size.height, height), min(size.width, width)
        top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
        image = image[..., top : top + crop_height, left : left + crop_width]
        # pads an image that is smaller than the crop
        return super().center_crop(image, size, **kwargs)

    def _validate_preprocess_kwargs(self, **kwargs):
        super()._validate_preprocess_kwargs(**kwargs)
        for name, value in kwargs.items():
            if name.startswith("do_") and not isinstance(value, (bool, type(None))):
                raise ValueError(f"`{name}` must be true or false, got {value!r}.")
        resample = kwargs.get("resample")
        # torchvision's names of filters have a value too
        if resample is not None and not hasattr(resample, "value") and resample not in list(PILImageResampling):
            raise ValueError(f"`resample` must be one of Pillow's filters, {list(map(int, PILImageResampling))}.")
        for name in ("size", "crop_size", "pad_size"):
            if kwargs.get(name) is not None:
                check_size(kwargs[name], name)
        for name in ("rescale_factor", "image_mean", "image_std"):
            value = kwargs.get(name)
            values = value if isinstance(value, (list, tuple)) else [value]
            if value is not None and not all(isinstance(number, Real) and math.isfinite(number) for number in values):
                raise ValueError(f"`{name}` must be finite numbers, got {value!r}.")
            if name == "rescale_factor" and value is values:
                raise ValueError(f"`{name}` must be a number, got {value!r}.")
            if name != "image_mean" and 0 in values:
                raise ValueError(f"`{name}` must not be zero, got {value}.")

    def _preprocess(
        self,
        images: list[ImageArray],
        do_resize: bool,
        size: SizeDict,
        do_center_crop: bool,
        crop_size: SizeDict,
        **kwargs: Any,
    ) -> BatchFeature:
        if not images:
            raise ValueError("`images` is an empty list: give at least one image.")
        for name in ("image_mean", "image_std"):
            value = kwargs.get(name)
            for num_channels in {image.shape[0] for image in images}:
                if isinstance(value, (list, tuple)) and len(value) not in (1, num_channels):
                    raise ValueError(
                        f"`{name}` must be a number, or one for each of the {num_channels} channels, got {value!r}."
                    )
        if do_resize and do_center_crop and size.shortest_edge and not size.longest_edge:
            # several times what the center crop can see
            max_ratio = max(MAX_ASPECT_RATIO, 2 * math.ceil(max(dict(crop_size).values()) / size.shortest_edge))
            images = [crop_to_middle(image, max_ratio) for image in images]
        if do_resize:
            for height, width in {tuple(image.shape[-2:]) for image in images}:
                check_size(size, "size", max(height, width) / min(height, width))
        return super()._preprocess(
            images, do_resize=do_resize, size=size, do_center_crop=do_center_crop, crop_size=crop_size, **kwargs
        )


@auto_docstring(
    custom_intro="""
    Constructs a LoTLIP image processor on PIL and NumPy, whose pixel values are the original's to the last bit. It is
    the default only where torchvision is missing; elsewhere ask for it by name, or with
    `AutoImageProcessor.from_pretrained(..., backend="pil")`. [`LotlipImageProcessor`] says what images are accepted.

    Examples:

    ```python
    >>> from PIL import Image
    >>> from modeling_lotlip import LotlipImageProcessorPil

    >>> image_processor = LotlipImageProcessorPil()
    >>> image_processor(Image.new("RGB", (640, 480)), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 224, 224])
    ```
    """
)
class LotlipImageProcessorPil(LotlipLoadingMixin, LotlipImageProcessorMixin, PilBackend):
    pass


LotlipImageProcessorPil.register_for_auto_class()

__all__ = ["LotlipImageProcessorPil"]

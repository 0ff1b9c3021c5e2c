# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the package promises beyond transformers: base classes of the generated files of the model.

This file goes to the Hub with those files, where the rest of the package is not. What needs the rest (checkpoints in
the original's layout, model cards) is registered by the package's `__init__.py`, and is left out where nobody does.
"""

import json
import math
import os
import reprlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from numbers import Real
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from huggingface_hub import get_session
from transformers import configuration_utils, image_processing_backends, modeling_utils
from transformers import tokenization_utils_tokenizers as tokenization_utils
from transformers.image_utils import (
    ChannelDimension,
    ImageInput,
    SizeDict,
    infer_channel_dimension_format,
    is_pil_image,
    is_valid_image,
)
from transformers.tokenization_utils_base import BatchEncoding, TruncationStrategy
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    PaddingStrategy,
    is_torch_tensor,
    logging,
)


logger = logging.get_logger(__name__)

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")

# LoTLIP's context of 128 positions less its two corner tokens, which the model adds itself
DEFAULT_MODEL_MAX_LENGTH = 126
# transformers writes 10 ** 30 where there is no limit
NO_LIMIT = 10**20
OF_ONE_CALL = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of")

# Beyond this ratio of its sides an image is cut to its middle before it is resized: the center crop sees no more of it
MAX_ASPECT_RATIO = 32
# Normalized pixels are below this: white is 2.64 at most by the means and deviations in use
MAX_NORMALIZED = 3
# Files of at most 16 bits that Pillow, or an older one, opens as images of 32 bits
FORMATS_OF_16_BITS = ("JPEG2000", "PNG", "PPM")
# Pixels of 16 bits that are all below this are those of a camera of 8 to 12 bits, and would be black
MIN_BRIGHTEST_OF_16_BITS = 4096
PHOTOMETRIC = 262  # the tag of a TIFF that is 0 where 0 is white
DAMAGED_IMAGE_ERRORS = (
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)


@dataclass
class PackageFunctions:
    """Functions of the package that the code on the Hub comes without: `None` there."""

    find_converted: Callable | None = None
    write_for_readers: Callable | None = None


package_functions = PackageFunctions()


def register_package_functions(find_converted: Callable, write_for_readers: Callable) -> None:
    """
    Registers what the package does beyond the code on the Hub: finds the folder that a checkpoint in the original's
    layout was converted to, and writes model cards.
    """
    package_functions.find_converted = find_converted
    package_functions.write_for_readers = write_for_readers


def find_pretrained(name_or_path: str | os.PathLike | None, **hub_options) -> str | os.PathLike | None:
    """
    Finds what the Auto classes load in place of a name: of a repository or a folder in the original's layout
    (`model.pt`, with or without `open_clip_config.json`) the folder in the Hub's cache that it was converted to, once;
    any other name is returned as it is. `hub_options` are those of `from_pretrained` (`HUB_OPTIONS`).
    """
    if name_or_path is None or package_functions.find_converted is None:
        return name_or_path
    return package_functions.find_converted(name_or_path, **hub_options)


class LoadingMixin:
    """A `from_pretrained` that takes checkpoints in the original's layout, too."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers; the repository or folder may also be in the original's layout (`find_pretrained`)."""
        name = pretrained_model_name_or_path
        hub_options = {option: kwargs[option] for option in HUB_OPTIONS if option in kwargs}
        path = name
        if not kwargs.get("subfolder"):  # the original's layout has none
            path = find_pretrained(name, **hub_options)
        loaded = super().from_pretrained(path, *args, **kwargs)
        if path == name:
            return loaded
        part = loaded
        if isinstance(loaded, tuple):  # with information on how it was loaded
            part = loaded[0]
        # what was asked for, not the folder in the cache: adapters and the like are saved with it
        for named in (part, getattr(part, "config", None)):
            if getattr(named, "name_or_path", None) == path:
                named.name_or_path = str(name)
        return loaded


class PreTrainedConfig(LoadingMixin, configuration_utils.PreTrainedConfig):
    """Raises a `ValueError` for an architecture that cannot be."""

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.architectures = self.architectures or []  # over which the Auto classes go
        # here too, since `@strict` wraps what its own call raises in an error that is no `ValueError`
        self.validate_architecture()


class PreTrainedModel(LoadingMixin, modeling_utils.PreTrainedModel):
    """Saves its code, so that it loads without the package too, a model card, and what sentence-transformers reads."""

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs):
        """As in transformers; and the code for `trust_remote_code=True`, and a model card, unless there is one."""
        auto_classes = ["AutoModel"]
        towers = []
        if self.config.sub_configs:  # a dual encoder
            auto_classes.append("AutoModelForZeroShotImageClassification")
            towers = [self.text_model, self.vision_model]
        # a class remembers one Auto class only, and a configuration the code that it was loaded with
        if type(self).__module__ != "__main__":
            self.config.auto_map = dict.fromkeys(auto_classes, name_code(type(self)))
        for tower in towers:
            if type(tower).__module__ != "__main__":
                tower.config.auto_map = {
                    "AutoConfig": name_code(type(tower.config)),
                    "AutoModel": name_code(type(tower)),
                }
        earlier_index = sign_index(save_directory)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            if sign_index(save_directory) != earlier_index:
                # in parts: the weights of an earlier model would be loaded in place of them
                Path(save_directory, SAFE_WEIGHTS_NAME).unlink(missing_ok=True)
            write_model_extras(save_directory, Path(save_directory).resolve().name)

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args, **kwargs):
        """Uploads a model card that says something instead of transformers' empty one."""
        write_model_extras(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


def sign_index(folder: str | os.PathLike) -> tuple[int, int, int] | None:
    """Returns what tells the index of weights in parts from one that was written later, `None` if there is none."""
    index = Path(folder, SAFE_WEIGHTS_INDEX_NAME)
    if not index.is_file():
        return None
    status = index.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def name_code(part: type) -> str:
    """Returns the name of a class in `auto_map`."""
    return f"{part.__module__.split('.')[-1]}.{part.__name__}"


def write_model_extras(folder: str | os.PathLike, repo_id: str) -> None:
    """Writes what the package adds to a saved model; the code on the Hub writes nothing."""
    if package_functions.write_for_readers is not None:
        package_functions.write_for_readers(Path(folder), repo_id)


def as_list(texts: object) -> object:
    """Makes a list of a column of texts (a NumPy array, a pandas Series, a column of `datasets`); the rest stays."""
    if isinstance(texts, (str, bytes, list, tuple)):
        return texts
    if hasattr(texts, "tolist"):
        return texts.tolist()
    if isinstance(texts, Sequence):
        return list(texts)
    return texts


class TokenizersBackend(LoadingMixin, tokenization_utils.TokenizersBackend):
    """Truncates texts to `model_max_length` by default, keeping the last `[SEP]`, and says so once."""

    def __init__(self, *args, model_max_length: int | float, **kwargs):
        if isinstance(model_max_length, bool) or not isinstance(model_max_length, Real):
            raise ValueError(
                f"`model_max_length` must be a number of tokens, got {model_max_length!r}: give one, "
                f"such as {DEFAULT_MODEL_MAX_LENGTH}, or leave it out."
            )
        if model_max_length >= NO_LIMIT:
            model_max_length = DEFAULT_MODEL_MAX_LENGTH  # "no limit" is none of a model with positions
        # a backend remembers the truncation and padding of the last call, which were not meant for later ones
        chosen = {name: kwargs[name] for name in OF_ONE_CALL if kwargs.get(name) is not None}
        super().__init__(*args, model_max_length=model_max_length, **kwargs)
        for name in OF_ONE_CALL:
            self.init_kwargs.pop(name, None)
        self.init_kwargs |= chosen

    def __call__(self, text=None, *args, **kwargs) -> BatchEncoding:
        """As in transformers; `text` may also be a column: of NumPy, pandas or `datasets`."""
        return super().__call__(as_list(text), *args, **kwargs)

    @classmethod
    def convert_to_native_format(cls, **kwargs) -> dict:
        """Takes BERT's normalizer settings from a `tokenizer.json` if `tokenizer_config.json` does not have them."""
        file = kwargs.get("tokenizer_file")
        if all(kwargs.get(name) is None for name in ("vocab", "vocab_file", "tokenizer_file")):
            raise ValueError(
                "There is neither a `tokenizer.json` nor a `vocab.txt` in "
                f"`{kwargs.get('name_or_path')}`: give the folder or the Hub name of a LoTLIP or "
                "BERT tokenizer."
            )
        if file is not None and os.path.isfile(file):
            content = json.loads(Path(file).read_text(encoding="utf-8"))
            # files of old versions do not name the model
            model_type = content["model"].get("type", "WordPiece")
            if model_type != "WordPiece":
                raise ValueError(f"`{file}` holds a {model_type} tokenizer, but LoTLIP needs BERT's WordPiece.")
            normalizer = content.get("normalizer") or {}
            for step in normalizer.get("normalizers", [normalizer]):
                if step.get("type") == "BertNormalizer":
                    kwargs.setdefault("do_lower_case", step["lowercase"])
                    kwargs.setdefault("tokenize_chinese_chars", step["handle_chinese_chars"])
                    kwargs.setdefault("strip_accents", step.get("strip_accents"))
        kwargs = super().convert_to_native_format(**kwargs)
        if isinstance(kwargs["vocab"], str):
            words = Path(kwargs["vocab"]).read_text(encoding="utf-8").removesuffix("\n").split("\n")
            kwargs["vocab"] = {word: index for index, word in enumerate(words)}
        return kwargs

    @classmethod
    def _from_pretrained(cls, resolved_vocab_files: dict[str, str], *args, **kwargs):
        """Takes a limit from a folder of a LoTLIP tokenizer only: a BERT's 512 says nothing of LoTLIP's context."""
        config_file = resolved_vocab_files.get("tokenizer_config_file")
        config = {}
        if config_file is not None:
            config = json.loads(Path(config_file).read_text(encoding="utf-8"))
        if config.get("tokenizer_class") != cls.__name__:
            kwargs.setdefault("model_max_length", DEFAULT_MODEL_MAX_LENGTH)
            kwargs.setdefault("max_length", None)
        return super()._from_pretrained(resolved_vocab_files, *args, **kwargs)

    def _save_pretrained(self, *args, **kwargs) -> tuple[str, ...]:
        """Saves a `tokenizer.json` that truncates by default too, for runtimes that read nothing else."""
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.model_max_length, direction=self.truncation_side)
        return super()._save_pretrained(*args, **kwargs)

    def _get_padding_truncation_strategies(self, padding=False, truncation=None, max_length=None, **kwargs) -> tuple:
        """Hands a `truncation` that the caller did not choose on to `_encode_plus`, as the strategy `None`."""
        if max_length is None:
            # only a limit of the caller's has to be a multiple: 126 is none of 8
            kwargs["pad_to_multiple_of"] = None
        elif truncation is None:
            kwargs["verbose"] = False  # it would warn that the limit is ignored
        padding_strategy, strategy, max_length, kwargs = super()._get_padding_truncation_strategies(
            padding=padding, truncation=truncation or False, max_length=max_length, **kwargs
        )
        if truncation is None:
            strategy = None
        return padding_strategy, strategy, max_length, kwargs

    def _encode_plus(self, text, text_pair=None, add_special_tokens=True, **kwargs) -> BatchEncoding:
        """Truncates by default; all methods that tokenize pass through here."""
        self._check_texts(text, "text")
        if text_pair is not None:
            self._check_texts(text_pair, "text_pair")
        self._warn_of_padding_on_the_left(**kwargs)
        # the strategy `None` is that of a caller who chose none; a caller may also leave it out
        by_default = kwargs.get("truncation_strategy") is None and "truncation_strategy" in kwargs
        if by_default:
            if kwargs.get("max_length") is None and add_special_tokens:
                kwargs["max_length"] = self.model_max_length
            kwargs["truncation_strategy"] = TruncationStrategy.DO_NOT_TRUNCATE
            if kwargs.get("max_length") is not None:
                kwargs["truncation_strategy"] = TruncationStrategy.LONGEST_FIRST
        encoding = super()._encode_plus(text, text_pair=text_pair, add_special_tokens=add_special_tokens, **kwargs)
        if by_default and kwargs.get("verbose", True) and not kwargs.get("return_overflowing_tokens", False):
            self._warn_of_truncation(encoding, kwargs.get("max_length"))
        return encoding

    def _warn_of_padding_on_the_left(self, padding_strategy=PaddingStrategy.DO_NOT_PAD, padding_side=None, **kwargs):
        """Warns, once, where texts are padded on the left."""
        side = padding_side or self.padding_side
        if side == "left" and padding_strategy != PaddingStrategy.DO_NOT_PAD:
            logger.warning_once(
                "Texts padded on the left have other embeddings: pad on the right (`padding_side='right'`)."
            )

    def _warn_of_truncation(self, encoding: BatchEncoding, max_length: int | None):
        """Warns, once for each tokenizer, of how many texts were truncated."""
        num_truncated = sum(bool(part.overflowing) for part in encoding.encodings)
        if num_truncated == 0 or self.deprecation_warnings.get("truncated-by-default", False):
            return
        self.deprecation_warnings["truncated-by-default"] = True
        logger.warning(
            f"{num_truncated} of {len(encoding.encodings)} texts are longer than {max_length} "
            "tokens and were truncated: raise `max_length` (`--max_length` in commands), or pass "
            "`truncation=True` to truncate without this warning, which comes once."
        )

    def _check_texts(self, texts: object, name: str):
        if isinstance(texts, (list, tuple)):
            for index, item in enumerate(texts):
                self._check_texts(item, f"{name}[{index}]")
        elif not isinstance(texts, str):
            raise ValueError(f"`{name}` is {reprlib.repr(texts)}, but only `str` and lists of `str` can be tokenized.")


def to_upright_8_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """
    Turns a photograph as its EXIF orientation says, and scales 16-bit pixels, which Pillow would clip. Raises a
    `ValueError` for pixels without a known range, and for what is damaged.
    """
    file_format = image.format  # which is lost where the image is turned
    # Pillow inverts such pixels of 8 bits alone
    is_inverted = file_format == "TIFF" and image.mode.startswith("I;16") and image.tag_v2.get(PHOTOMETRIC) == 0
    try:
        image.load()
        image = PIL.ImageOps.exif_transpose(image)
    except DAMAGED_IMAGE_ERRORS as error:
        raise ValueError(f"The image `{image}` is damaged or cut off: {str(error).rstrip('.')}.") from error
    # multiplied by their transparency, which only Pillow knows to undo
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode == "LAB":  # of which Pillow makes RGBA with any transparency
        image = image.convert("RGB")
    if image.mode == "F":
        raise ValueError("An image of floating point pixels (mode `F`) has no known range. Scale it to 8 bits before.")
    if image.mode.startswith("I"):
        gray = integers_to_8_bit(image, file_format)
        return PIL.ImageOps.invert(gray) if is_inverted else gray
    # programs that know of no transparency leave 0 there
    if file_format == "BMP" and image.mode == "RGBA" and image.getextrema()[3] == (0, 0):
        return image.convert("RGB")
    return image


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Makes an RGB image, what is transparent over white: transformers does so from 5.21 on."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    white = PIL.Image.new("RGBA", image.size, "white")
    return PIL.Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def gray_to_rgb(image: np.ndarray, input_data_format: str | None) -> np.ndarray:
    """
    Makes an image of shape `(1, height, width)` or `(height, width, 1)` one of three equal channels, as transformers
    does from 5.21 on. Images of more channels stay.
    """
    if input_data_format is None:
        input_data_format = infer_channel_dimension_format(image, num_channels=(1, 3, 4))
    axis = 0 if input_data_format == ChannelDimension.FIRST else -1
    if image.shape[axis] != 1:
        return image
    return np.repeat(image, 3, axis=axis)


def integers_to_8_bit(image: PIL.Image.Image, file_format: str | None) -> PIL.Image.Image:
    """
    Makes a gray image of 8 bits of one of 16 or 32 bits. In mode `I`, of 32 bits, Pillow opens some files of 16 bits,
    whose range is known; other images of it, from a TIFF or an array, may have 8 bits and no more.
    """
    pixels = np.array(image)
    has_16_bits = image.mode != "I" or file_format in FORMATS_OF_16_BITS
    if not has_16_bits and not 0 <= pixels.min(initial=0) <= pixels.max(initial=0) <= 255:
        raise ValueError(
            f"An image of mode `I`, of 32 bits, must have values from 0 to 255, got {pixels.min()} "
            f"to {pixels.max()}. Give 16-bit pixels as `uint16`, which is mode `I;16`."
        )
    gray = pixels.astype(np.uint8)
    if has_16_bits:
        gray = array_to_8_bit(pixels.astype(np.uint16))
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray[pixels == transparent] = 255
    return PIL.Image.fromarray(gray)


def check_rescale_factor(image: ImageInput, rescale_factor: float) -> None:
    """
    Raises a `ValueError` if pixels of 16 bits, or floats of another range than 0..255, are to be
    multiplied by another factor than 1/255: they are scaled, or rounded and clipped, to 8 bits before.
    """
    if math.isclose(rescale_factor, 1 / 255, rel_tol=1e-6):
        return
    if is_pil_image(image):
        pixel_type = image.mode
        is_of_16_bits = image.mode == "I" and image.format in FORMATS_OF_16_BITS
        has_8_bits = not image.mode.startswith("I;16") and not is_of_16_bits
    else:
        pixel_type = image.dtype
        pixels = as_numpy(image)
        has_8_bits = pixels.dtype != np.uint16
        if pixels.dtype.kind == "f":
            max_value = pixels.max(initial=0)
            has_8_bits = max_value == 0 or 1 < max_value < 256
    if not has_8_bits:
        raise ValueError(
            f"`rescale_factor={rescale_factor:g}` does not fit an image of type `{pixel_type}`, whose pixels "
            "are scaled or rounded to 8 bits before: leave it out, or scale to 0..1 and pass "
            "`do_rescale=False`."
        )


def array_to_8_bit(image: "np.ndarray | torch.Tensor", do_rescale: bool = True) -> "np.ndarray | torch.Tensor":
    """
    Converts an image, of shape `(height, width)` or `(channels, height, width)`, to 8 bits: 1-bit and 16-bit pixels
    are scaled; floats are rounded and clipped, unless they are not to be rescaled.
    """
    pixels = as_numpy(image)
    if pixels.dtype == np.uint8:
        return image
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint16:
        max_value = pixels.max(initial=0)
        if 0 < max_value < MIN_BRIGHTEST_OF_16_BITS:
            raise ValueError(
                f"An image of 16 bits must use them: its values end at {max_value}, as those of 8 to "
                "12 bits do. Scale them to 16 bits, or to 8."
            )
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind not in "iuf" or not np.isfinite(pixels).all():
        raise ValueError(f"An image of type `{image.dtype}` must hold finite real numbers.")
    if pixels.dtype.kind == "f":
        if not do_rescale:
            return pixels.astype(np.float32)
        return round_to_8_bit(pixels, image.dtype)
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= 255:
        raise ValueError(
            f"An image of type `{image.dtype}` must have values from 0 to 255, got {pixels.min()} "
            f"to {pixels.max()}. Give 16-bit pixels as `uint16`."
        )
    return pixels.astype(np.uint8)


def as_numpy(image: "np.ndarray | torch.Tensor") -> np.ndarray:
    """Converts an image of any shape, as an array or a tensor, to an array in the byte order of this machine."""
    if is_torch_tensor(image):
        if image.is_floating_point():
            image = image.float()  # NumPy has no bfloat16
        image = image.cpu()
    pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder("="))  # torch knows no other


def round_to_8_bit(pixels: np.ndarray, dtype: object) -> np.ndarray:
    """
    Rounds pixels in 0..255, of any shape, to 8 bits; those that seem to be in 0..1, or normalized, are
    warned of.
    """
    if pixels.min(initial=0) < 0 and pixels.max(initial=0) < MAX_NORMALIZED:
        logger.warning_once(
            f"An image of type `{dtype}` has values from {pixels.min():.3g} to {pixels.max():.3g}: it "
            "seems to be normalized, and is nearly black where 255 is white. Pass "
            "`do_rescale=False, do_normalize=False` for such images."
        )
    elif 0 < pixels.max(initial=0) <= 1:
        logger.warning_once(
            f"An image of type `{dtype}` has values up to {pixels.max():.3g}: with "
            "`do_rescale=True` 255 is white, so that it is nearly black. Pass `do_rescale=False` "
            "for images in 0..1."
        )
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def cut_to_middle(
    image: "np.ndarray | torch.Tensor", size: dict[str, int], crop_size: dict[str, int]
) -> "np.ndarray | torch.Tensor":
    """
    Cuts off both ends of a strip, of shape `(channels, height, width)`, of which a center crop sees nothing after it
    was resized by its short side; the rest of it would be large. An end is as long as whole short sides: they become
    whole pixels, so that the others stay where they are among these.
    """
    shortest_edge = size.get("shortest_edge")
    if not shortest_edge or size.get("longest_edge"):
        return image
    height, width = image.shape[-2:]
    crop = max(value or 0 for value in crop_size.values())
    max_ratio = max(MAX_ASPECT_RATIO, 2 * math.ceil(crop / shortest_edge))
    short = min(height, width)
    longest = short * max_ratio
    top = max(height - longest, 0) // 2 // short * short
    left = max(width - longest, 0) // 2 // short * short
    return image[..., top : height - top, left : width - left]


class ImageMixin(LoadingMixin):
    """Reads and resizes images in the same way in both backends of the image processor."""

    def fetch_images(self, image_url_or_urls: ImageInput | str | os.PathLike | list) -> ImageInput:
        """Loads paths, URLs and base64 strings, and makes gray images of two-dimensional arrays."""
        image = image_url_or_urls
        if isinstance(image, (list, tuple)):
            return [self.fetch_images(item) for item in image]
        if isinstance(image, (str, os.PathLike)):
            image = os.fspath(image)
            if image.startswith(("http://", "https://")):
                response = get_session().get(image, follow_redirects=True, timeout=60)
                image = BytesIO(response.raise_for_status().content)
            elif not os.path.isfile(image):
                return super().fetch_images(image)
            return PIL.Image.open(image)  # as it is: neither transparency nor depth is lost
        if is_valid_image(image) and not is_pil_image(image) and image.ndim == 2:
            return image[None]
        return super().fetch_images(image)

    def process_image(self, image: ImageInput, *args, do_rescale: bool | None = None, **kwargs):
        """Turns upright and scales to 8 bits, before anything is converted; cuts off both ends of strips."""
        if do_rescale is None:
            do_rescale = self.do_rescale
        if do_rescale:
            check_rescale_factor(image, kwargs.get("rescale_factor") or self.rescale_factor)
        if is_pil_image(image):
            image = to_upright_8_bit(image)
            if kwargs.get("do_convert_rgb"):
                image = to_rgb(image)
        else:
            image = array_to_8_bit(image, do_rescale)
            if kwargs.get("do_convert_rgb"):
                image = gray_to_rgb(image, kwargs.get("input_data_format"))
        image = super().process_image(image, *args, **kwargs)
        # those of the call, which go before those of the processor
        is_resized = kwargs.get("do_resize", self.do_resize)
        if is_resized and kwargs.get("do_center_crop", self.do_center_crop):
            size = kwargs.get("size", self.size)
            return cut_to_middle(image, dict(size), dict(kwargs.get("crop_size", self.crop_size)))
        return image

    def resize(self, image, size: SizeDict, **kwargs):
        """Keeps the range of pixels, beyond which bicubic resampling may go."""
        resized = super().resize(image, size, **kwargs)
        if str(image.dtype).endswith("uint8"):
            return resized
        return resized.clip(min(0, image.min()), max(1, image.max()))

    def to_dict(self) -> dict:
        """Names its own code alone, also where it was loaded with a processor, which names that of both backends."""
        output = super().to_dict()
        if type(self).__module__ != "__main__":
            output["auto_map"] = {"AutoImageProcessor": name_code(type(self))}
        return output


class TorchvisionBackend(ImageMixin, image_processing_backends.TorchvisionBackend):
    """Preprocesses images by torchvision."""


class PilBackend(ImageMixin, image_processing_backends.PilBackend):
    """Preprocesses images by Pillow and NumPy."""


for _base in (PreTrainedConfig, PreTrainedModel, TokenizersBackend, TorchvisionBackend, PilBackend):
    _base.register_for_auto_class()  # and all that inherit from it

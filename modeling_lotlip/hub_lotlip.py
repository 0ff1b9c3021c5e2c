# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the package promises beyond transformers. The generated files of the model take their base classes from here: they
load checkpoints in the original's layout by name, save their code and a card, say what they truncate, and take images
of any depth, orientation and size.
"""

import base64
import json
import math
import os
import re
import reprlib
import struct
import zlib
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from huggingface_hub.utils import httpx
from tokenizers import AddedToken, Tokenizer
from transformers import configuration_utils, image_processing_backends, modeling_utils, processing_utils
from transformers import tokenization_utils_tokenizers as tokenization_utils
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ImageInput, PILImageResampling, SizeDict, is_pil_image, is_valid_image
from transformers.processing_utils import ProcessingKwargs
from transformers.tokenization_utils_base import LARGE_INTEGER, BatchEncoding, TruncationStrategy
from transformers.utils import is_torch_tensor, logging


logger = logging.get_logger(__name__)

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")

# Fields of configurations that count something
POSITIVE_FIELDS = ("vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size", "num_attention_heads")
POSITIVE_FIELDS += ("intermediate_size", "projection_dim", "image_size", "patch_size", "num_channels")

# What sentence-transformers reads: its own modules call the model, and give embeddings of length 1
SENTENCE_TRANSFORMERS_FILES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {
        "modality_config": {
            "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
            "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
        },
        "module_output_name": "sentence_embedding",
        # truncation is left to the tokenizer, which says what it cuts off
        "processing_kwargs": {"text": {"truncation": None}},
    },
}

# LoTLIP's context of 128 positions less its two corner tokens, which the model adds itself
DEFAULT_MODEL_MAX_LENGTH = 126
OF_ONE_CALL = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of")
# More than ten times what the largest vocabularies take; files beyond it are not read
MAX_FILE_BYTES = 100_000_000

# Beyond this ratio of its sides an image is cut to its middle before it is resized: the center crop sees no more of it
MAX_ASPECT_RATIO = 32
# What Pillow raises for files that are damaged or cut off, which depends on their format
DAMAGED_IMAGE_ERRORS = (EOFError, OSError, RuntimeError, SyntaxError, ValueError, TypeError, OverflowError)
DAMAGED_IMAGE_ERRORS += (struct.error, zlib.error, PIL.Image.DecompressionBombError)


def find_pretrained(name_or_path: str | os.PathLike | None, **hub_options) -> str | os.PathLike | None:
    """
    What the Auto classes load in place of a name: of a repository or a folder in the original's layout (`model.pt`,
    with or without `open_clip_config.json`) the folder in the Hub's cache that it was converted to, once; any other
    name is returned as it is. `hub_options` are those of `from_pretrained` (`HUB_OPTIONS`).

    Raises:
        `OSError`: if the Hub has no such repository or cannot be reached, or the conversion cannot be written.
        `ValueError`: if the checkpoint is damaged or of another architecture, or there is no vocabulary.

    Example:

    ```python
    >>> from transformers import AutoModel
    >>> from modeling_lotlip.hub_lotlip import find_pretrained

    >>> model = AutoModel.from_pretrained(find_pretrained("weiwu-ww/LoTLIP-ViT-B-16-100M"))  # doctest: +SKIP
    ```"""
    module = f"{__package__}.convert_lotlip_to_hf"  # by name: the files of a model on the Hub come without it
    if name_or_path is None or find_spec(module) is None:
        return name_or_path
    return import_module(module).find_converted(name_or_path, **hub_options)


class LoadingMixin:
    """A `from_pretrained` that takes checkpoints in the original's layout, too."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers; the repository or folder may also be in the original's layout (`find_pretrained`)."""
        name = pretrained_model_name_or_path
        path = find_pretrained(name, **{option: kwargs[option] for option in HUB_OPTIONS if option in kwargs})
        loaded = super().from_pretrained(path, *args, **kwargs)
        if path != name:
            # what was asked for, not the place in the cache: adapters and the like are saved with it
            part = loaded[0] if isinstance(loaded, tuple) else loaded
            for named in (part, getattr(part, "config", None)):
                if getattr(named, "name_or_path", None) == path:
                    named.name_or_path = str(name)
        return loaded


class PreTrainedConfig(LoadingMixin, configuration_utils.PreTrainedConfig):
    """Checks its fields, in an error that is a `ValueError`."""

    def __post_init__(self, **kwargs):
        dtype = kwargs.get("torch_dtype") if self.dtype is None else self.dtype
        if dtype is not None and not re.fullmatch(r"(torch\.)?(b?float\w*|half|double)", str(dtype)):
            raise ValueError(f"`dtype` ({dtype!r}) must be a floating point type of torch, such as 'float32'.")
        super().__post_init__(**kwargs)
        # by which the Auto classes choose
        self.architectures = self.architectures or []
        # here too, since `@strict` wraps what its own call raises in an error that is no ValueError
        self.validate_architecture()

    def validate_architecture(self):
        """Part of `@strict`-powered validation."""
        super().validate_architecture()
        values = {name: getattr(self, name) for name in POSITIVE_FIELDS if getattr(self, name, None) is not None}
        for name, value in values.items():
            sides = value if isinstance(value, (list, tuple)) else (value, value)
            if len(sides) != 2:
                raise ValueError(f"`{name}` ({value}) must be a number, or a pair for height and width.")
            if min(sides) < 1:
                raise ValueError(f"`{name}` ({value}) must be positive.")
        if getattr(self, "num_hidden_layers", 0) < 0:
            raise ValueError(f"`num_hidden_layers` ({self.num_hidden_layers}) must not be negative.")
        width, heads = values.get("hidden_size", 0), values.get("num_attention_heads", 1)
        if width % heads != 0:
            raise ValueError(f"`hidden_size` ({width}) must be a multiple of `num_attention_heads` ({heads}).")
        if np.less(values.get("image_size", 1), values.get("patch_size", 1)).any():
            raise ValueError(f"`image_size` ({self.image_size}) must not be below `patch_size` ({self.patch_size}).")


class PreTrainedModel(LoadingMixin, modeling_utils.PreTrainedModel):
    """Saves its code, so that it loads without the package too, a model card, and what sentence-transformers reads."""

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs):
        """As in transformers; and the code for `trust_remote_code=True`, and a model card, unless there is one."""
        is_dual_encoder = bool(self.config.sub_configs)
        if type(self).__module__ != "__main__":
            # a class remembers one Auto class only, and a configuration the code that it was loaded with
            auto_classes = ("AutoModel", "AutoModelForZeroShotImageClassification")[: 1 + is_dual_encoder]
            self.config.auto_map = dict.fromkeys(auto_classes, name_code(self))
        towers = (self.text_model, self.vision_model) if is_dual_encoder else ()
        for tower in (tower for tower in towers if type(tower).__module__ != "__main__"):
            tower.config.auto_map = {"AutoConfig": name_code(tower.config), "AutoModel": name_code(tower)}
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            write_for_readers(self, save_directory, Path(save_directory).resolve().name)

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args, **kwargs):
        """Uploads a model card that says something instead of transformers' empty one."""
        write_for_readers(self, working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


def name_code(part: object) -> str:
    """The name of a class in `auto_map`."""
    return f"{type(part).__module__.split('.')[-1]}.{type(part).__name__}"


def write_for_readers(model: PreTrainedModel, folder: str | os.PathLike, repo_id: str):
    """Writes what sentence-transformers reads, and a model card (the package alone does), unless they are there."""
    has_one_embedding = model.config.model_type in ("lotlip", "lotlip_sigmoid")
    for name, content in SENTENCE_TRANSFORMERS_FILES.items() if has_one_embedding else ():
        if not (Path(folder) / name).exists():
            (Path(folder) / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if find_spec(f"{__package__}.hub") is not None:
        import_module(f"{__package__}.hub").write_missing_card(Path(folder), repo_id)


def read_tokenizer_file(path: str) -> dict:
    """The words of a `vocab.txt`, or a `tokenizer.json`, all of it but the words checked."""
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise ValueError(f"`{path}` has {os.path.getsize(path):,} bytes, but may have {MAX_FILE_BYTES:,}.")
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(".txt"):
            return {word: index for index, word in enumerate(text.split("\n")[: -1 if text.endswith("\n") else None])}
        content = json.loads(text)
        model = {"type": "WordPiece", **content["model"]}  # files of old versions do not name the model
        if model["type"] != "WordPiece":
            raise ValueError(f"it holds a {model['type']} tokenizer, but LoTLIP needs BERT's WordPiece")
        Tokenizer.from_str(json.dumps({**content, "model": {**model, "vocab": {}}}))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises nothing narrower; its panics are no `Exception`
        raise ValueError(f"`{path}` is not a file of a WordPiece tokenizer, or damaged: {error}.") from error
    return content


def check_vocab(vocab: object):
    """Ids are whole numbers, each of one word. Repeated lines of a `vocab.txt` leave holes, fewer than words."""
    ids = list(vocab.values()) if isinstance(vocab, dict) else [None]
    if any(type(x) is not int or not 0 <= x < 2 * len(ids) for x in ids) or len(set(ids)) < len(ids):
        raise ValueError("A vocabulary must map words to whole numbers from 0 on, each once and without large gaps.")


class TokenizersBackend(LoadingMixin, tokenization_utils.TokenizersBackend):
    """
    Truncates texts to `model_max_length` by default, keeping the last `[SEP]`, and says so once; `truncation=True`
    truncates without a word. Without special tokens only a `max_length` truncates.
    """

    def __init__(self, *args, model_max_length: int | float, **kwargs):
        for name in ("unk_token", "sep_token", "cls_token", "pad_token", "mask_token"):
            if not isinstance(kwargs[name], (str, AddedToken)) or not str(kwargs[name]):
                raise ValueError(f"`{name}` must be a token, got {kwargs[name]!r}.")
        for name in ("do_lower_case", "tokenize_chinese_chars", "strip_accents"):
            if not isinstance(kwargs[name], bool) and (name, kwargs[name]) != ("strip_accents", None):
                raise ValueError(f"`{name}` must be true or false, got {kwargs[name]!r}.")
        words = self._tokenizer.get_vocab(with_added_tokens=False)
        check_vocab(words)
        if str(kwargs["unk_token"]) not in words:
            raise ValueError(f"The vocabulary of {len(words)} words lacks the `unk_token` {kwargs['unk_token']!r}.")
        if isinstance(model_max_length, (int, float)) and model_max_length >= LARGE_INTEGER:
            model_max_length = DEFAULT_MODEL_MAX_LENGTH  # "no limit" is none of a model with positions
        if not isinstance(model_max_length, int) or model_max_length < 2:
            raise ValueError(
                "`model_max_length` must be a whole number from 2 on, with room for `[CLS]` and `[SEP]`, got "
                f"{model_max_length!r}."
            )
        # a backend remembers the truncation and padding of the last call, which were not meant for later ones
        chosen = {name: kwargs[name] for name in OF_ONE_CALL if kwargs.get(name) is not None}
        super().__init__(*args, model_max_length=model_max_length, **kwargs)
        self.init_kwargs = {name: x for name, x in self.init_kwargs.items() if name not in OF_ONE_CALL} | chosen

    @classmethod
    def convert_to_native_format(cls, **kwargs) -> dict:
        """
        Takes BERT's normalizer settings from a `tokenizer.json` whose `tokenizer_config.json` does not have them.

        Raises:
            `ValueError`: if there is no vocabulary, or a file is damaged, too large, or not of a WordPiece tokenizer.
        """
        file = kwargs.get("tokenizer_file")
        if all(kwargs.get(name) is None for name in ("vocab", "vocab_file", "tokenizer_file")):
            raise ValueError(
                f"There is neither a `tokenizer.json` nor a `vocab.txt` in `{kwargs.get('name_or_path')}`: give the "
                "folder or the Hub name of a LoTLIP or BERT tokenizer."
            )
        if file is not None and os.path.isfile(file):
            normalizer = read_tokenizer_file(file).get("normalizer") or {}
            for step in normalizer.get("normalizers", [normalizer]):
                if step.get("type") == "BertNormalizer":
                    kwargs.setdefault("do_lower_case", step["lowercase"])
                    kwargs.setdefault("tokenize_chinese_chars", step["handle_chinese_chars"])
                    kwargs.setdefault("strip_accents", step.get("strip_accents"))
        kwargs = super().convert_to_native_format(**kwargs)
        vocab = kwargs["vocab"]
        kwargs["vocab"] = vocab = read_tokenizer_file(vocab) if isinstance(vocab, str) else vocab
        check_vocab(vocab)
        return kwargs

    @classmethod
    def _from_pretrained(cls, resolved_vocab_files: dict[str, str], *args, **kwargs):
        """Takes a limit from a folder of a LoTLIP tokenizer only: a BERT's 512 says nothing of LoTLIP's context."""
        for file in ("tokenizer_file", "vocab_file"):
            if resolved_vocab_files.get(file) is not None:
                read_tokenizer_file(resolved_vocab_files[file])
        config_file = resolved_vocab_files.get("tokenizer_config_file")
        config = Path(config_file).read_bytes() if config_file is not None else b""
        if f'"tokenizer_class": "{cls.__name__}"'.encode() not in config:
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
            kwargs["pad_to_multiple_of"] = None  # only a limit of the caller's has to be a multiple: 126 is none of 8
        padding_strategy, strategy, max_length, kwargs = super()._get_padding_truncation_strategies(
            padding=padding, truncation=truncation or False, max_length=max_length, **kwargs
        )
        return padding_strategy, None if truncation is None else strategy, max_length, kwargs

    def _encode_plus(self, text, text_pair=None, add_special_tokens=True, **kwargs) -> BatchEncoding:
        """Truncates by default; all methods that tokenize pass through here."""
        if isinstance(text, (list, tuple)) and len(text) == 0 and not kwargs.get("is_split_into_words", False):
            raise ValueError("`text` is an empty list: give at least one text (the empty string is one).")
        for name, texts in (("text", text), ("text_pair", [] if text_pair is None else text_pair)):
            self._check_texts(texts, name)
        padding, side = kwargs.get("padding_strategy", "do_not_pad"), kwargs.get("padding_side") or self.padding_side
        if side == "left" and padding != "do_not_pad":
            logger.warning_once(
                "Texts are padded on the left, but LoTLIP reads `[CLS]` at the first place: their embeddings are not "
                "those of the texts. Set `tokenizer.padding_side = 'right'`."
            )
        by_default = kwargs.get("truncation_strategy") is None and "truncation_strategy" in kwargs
        if by_default:
            if kwargs.get("max_length") is None and add_special_tokens:
                kwargs["max_length"] = self.model_max_length
            has_limit = kwargs.get("max_length") is not None
            kwargs["truncation_strategy"] = TruncationStrategy("longest_first" if has_limit else "do_not_truncate")
        num_special_tokens = self.num_special_tokens_to_add(text_pair is not None) if add_special_tokens else 0
        if kwargs.get("truncation_strategy", "do_not_truncate") != "do_not_truncate":
            if kwargs["max_length"] < num_special_tokens:
                raise ValueError(
                    f"`max_length={kwargs['max_length']}` leaves no room for the {num_special_tokens} special tokens."
                )
        encoding = super()._encode_plus(text, text_pair=text_pair, add_special_tokens=add_special_tokens, **kwargs)
        if by_default and kwargs.get("verbose", True) and not kwargs.get("return_overflowing_tokens", False):
            self._warn_about_truncation(encoding.encodings, kwargs.get("max_length"), kwargs.get("stride", 0))
        return encoding

    def _check_texts(self, texts: object, name: str):
        if isinstance(texts, (list, tuple)):
            for index, item in enumerate(texts):
                self._check_texts(item, f"{name}[{index}]")
        elif not isinstance(texts, str):
            raise ValueError(
                f"`{name}` is {reprlib.repr(texts)} of type `{type(texts).__name__}`, but only `str` (and lists or "
                "tuples of `str`) can be tokenized. Convert it, or leave it out."
            )

    def _warn_about_truncation(self, encodings: list, max_length: int | None, stride: int):
        """Says once how many texts were truncated, and how long the longest was."""
        truncated = [encoding for encoding in encodings if encoding.overflowing]
        if not truncated or self.deprecation_warnings.get("truncated-by-default", False):
            return
        self.deprecation_warnings["truncated-by-default"] = True
        # of pairs the overflowing pieces are combinations
        single = [encoding for encoding in truncated if encoding.n_sequences == 1]
        # an overflowing piece repeats the special tokens around it, and `stride` tokens of the one before
        lengths = [
            sum(encoding.attention_mask)
            + sum(len(piece) - sum(piece.special_tokens_mask) - stride for piece in encoding.overflowing)
            for encoding in single
        ]
        longest = f" (the longest has {max(lengths)})" if lengths else ""
        logger.warning(
            f"{len(truncated)} of {len(encodings)} texts are longer than {max_length} tokens{longest} and were "
            "truncated. Pass `truncation=True` to truncate without this warning, shorten the texts, or raise "
            "`max_length` (or the tokenizer's `model_max_length`) up to the model's position table less its corner "
            "tokens. Later texts are truncated without a warning."
        )


def load_image(source: str | os.PathLike) -> PIL.Image.Image:
    """
    Loads an image from a file, a URL or a base64 string as it is, so that neither transparency nor depth is lost.

    Raises:
        `ValueError`: if `source` is none of these, or no intact image.
    """
    source = os.fspath(source)
    try:
        if source.startswith(("http://", "https://")):
            file = BytesIO(httpx.get(source, follow_redirects=True, timeout=60).raise_for_status().content)
        elif os.path.isfile(source):
            file = source
        else:
            file = BytesIO(base64.b64decode(source.rpartition("base64,")[2].replace("\n", ""), validate=True))
        image = PIL.Image.open(file)
        image.load()
    except DAMAGED_IMAGE_ERRORS as error:
        raise ValueError(
            f"{reprlib.repr(source)} is not the path of an image, a URL or a base64 string, or is damaged: {error}."
        ) from error
    return image


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
        image = PIL.Image.fromarray(array_to_8_bit(check_range(np.array(image), 65535).astype(np.uint16)))
    return image


def check_range(pixels: np.ndarray, high: int) -> np.ndarray:
    if pixels.dtype.kind not in "iu":
        raise ValueError(f"An image must hold real numbers, not `{pixels.dtype}`.")
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > high:
        raise ValueError(
            f"An image of type `{pixels.dtype}` must have values from 0 to {high}, got {pixels.min()} to "
            f"{pixels.max()}. Give 16-bit pixels as `uint16`."
        )
    return pixels


def array_to_8_bit(image: "np.ndarray | torch.Tensor", do_rescale: bool = True) -> "np.ndarray | torch.Tensor":
    """
    Brings arrays to 8 bits: 1-bit and 16-bit ones are scaled, other integers must be from 0 to 255, and floats (0 to
    255) are rounded and clipped, but left as they are if they are not to be rescaled.
    """
    pixels = image.float() if is_torch_tensor(image) and image.is_floating_point() else image
    pixels = np.asarray(pixels.cpu() if is_torch_tensor(pixels) else pixels)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))  # torch knows no other
    if pixels.dtype == np.uint8:
        return image
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind != "f":
        return check_range(pixels, 255).astype(np.uint8)
    if not np.isfinite(pixels).all():
        raise ValueError(f"An image of type `{image.dtype}` and shape {pixels.shape} holds NaN or infinity.")
    if not do_rescale:
        return pixels.astype(np.float32)
    if 0 < pixels.max(initial=0) <= 1:
        logger.warning_once(
            f"An image of type `{image.dtype}` has values up to {pixels.max():.3g}: with `do_rescale=True` 255 is "
            "white, so that it is nearly black. Pass `do_rescale=False` for images in 0..1."
        )
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def check_size(size: SizeDict, name: str, aspect_ratio: float = 1.0):
    """Refuses a size that is not positive, or of more pixels than Pillow opens, as damaged configurations may hold."""
    sides = {side: value for side, value in dict(size).items() if value is not None}
    if not all(type(value) is int and value > 0 for value in sides.values()):
        raise ValueError(f"`{name}` must be positive whole numbers of pixels, got {sides}.")
    num_pixels, longest_edge = math.prod(sides.values()), sides.get("shortest_edge", 1) * aspect_ratio
    if "shortest_edge" in sides:
        num_pixels = sides["shortest_edge"] * min(longest_edge, sides.get("longest_edge", longest_edge))
    if PIL.Image.MAX_IMAGE_PIXELS is not None and num_pixels > PIL.Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"`{name}` {sides} makes an image of {num_pixels:,.0f} pixels, more than `PIL.Image.MAX_IMAGE_PIXELS` "
            f"({PIL.Image.MAX_IMAGE_PIXELS:,})."
        )


class ImageMixin(LoadingMixin):
    """What the two backends of the image processor share."""

    def fetch_images(self, image_url_or_urls: ImageInput | str | os.PathLike | list) -> ImageInput:
        """Loads paths, URLs and base64 strings, and makes grey images of two-dimensional arrays."""
        image = image_url_or_urls
        if isinstance(image, (list, tuple)):
            return [self.fetch_images(item) for item in image]
        if isinstance(image, (str, os.PathLike)):
            return load_image(image)
        if not is_valid_image(image):
            raise TypeError(
                "`images` must be (a list of) PIL images, arrays, tensors, paths or URLs, but there is "
                f"{reprlib.repr(image)} of type `{type(image).__name__}`."
            )
        return image[None] if not is_pil_image(image) and image.ndim == 2 else image

    def process_image(self, image: ImageInput, *args, do_rescale: bool | None = None, **kwargs):
        """Turns upright and scales to 8 bits, before anything is converted."""
        do_rescale = self.do_rescale if do_rescale is None else do_rescale
        image = to_upright_8_bit(image) if is_pil_image(image) else array_to_8_bit(image, do_rescale)
        image = super().process_image(image, *args, **kwargs)
        if 0 in image.shape:
            raise ValueError(f"An image of shape {tuple(image.shape)} has no pixels.")
        return image

    def resize(self, image, size: SizeDict, **kwargs):
        """Cuts off both ends of strips, and keeps the range of pixels, beyond which bicubic resampling may go."""
        height, width = image.shape[-2:]
        if self.do_center_crop and size.shortest_edge and not size.longest_edge:
            crop = max(value or 0 for value in dict(self.crop_size).values())
            longest = min(height, width) * max(MAX_ASPECT_RATIO, 2 * math.ceil(crop / size.shortest_edge))
            top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
            image = image[..., top : height - top, left : width - left]
        check_size(size, "size", max(image.shape[-2:]) / min(image.shape[-2:]))
        resized = super().resize(image, size, **kwargs)
        return (
            resized if str(image.dtype).endswith("uint8") else resized.clip(min(0, image.min()), max(1, image.max()))
        )

    def _validate_preprocess_kwargs(self, **kwargs):
        super()._validate_preprocess_kwargs(**kwargs)
        for name, value in kwargs.items():
            if name.startswith("do_") and not isinstance(value, (bool, type(None))):
                raise ValueError(f"`{name}` must be true or false, got {value!r}.")
        resample = kwargs.get("resample")  # torchvision's names of filters have a value too
        if resample is not None and not hasattr(resample, "value") and resample not in list(PILImageResampling):
            raise ValueError(f"`resample` must be one of Pillow's filters, {list(map(int, PILImageResampling))}.")
        for name in ("size", "crop_size", "pad_size"):
            if kwargs.get(name) is not None:
                check_size(kwargs[name], name)
        crop_size = kwargs.get("crop_size")
        if crop_size is not None and (crop_size.height is None or crop_size.width is None):
            raise ValueError(f"`crop_size` must have the keys `height` and `width`, got {dict(crop_size)}.")
        for name in ("rescale_factor", "image_mean", "image_std"):
            value = kwargs.get(name)
            numbers = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
            is_listed = name == "rescale_factor" and numbers is not value and isinstance(value, (list, tuple))
            if is_listed or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
                raise ValueError(f"`{name}` must be finite numbers, got {value!r}.")
            if name != "image_mean" and 0 in numbers:
                raise ValueError(f"`{name}` must not be zero, got {value}.")

    def _preprocess(self, images: list, *args, **kwargs) -> BatchFeature:
        if not images:
            raise ValueError("`images` is an empty list: give at least one image.")
        for name in ("image_mean", "image_std"):
            value, channels = kwargs.get(name), {1, *(image.shape[0] for image in images)}
            if isinstance(value, (list, tuple)) and len(value) not in channels:
                raise ValueError(f"`{name}` must be a number, or one for each channel, got {value!r}.")
        return super()._preprocess(images, *args, **kwargs)

    def to_dict(self) -> dict:
        """Names the code of both backends, wherever it is saved."""
        output = super().to_dict()
        # imported here, so that the code of both is saved with either
        from .image_processing_lotlip import LotlipImageProcessor
        from .image_processing_pil_lotlip import LotlipImageProcessorPil

        if type(self) in (LotlipImageProcessor, LotlipImageProcessorPil):
            backends = {"torchvision": LotlipImageProcessor, "pil": LotlipImageProcessorPil}
            names = {name: f"{cls.__module__.split('.')[-1]}.{cls.__name__}" for name, cls in backends.items()}
            output["auto_map"] = {"AutoImageProcessor": names}  # a processor names itself
        return output


class TorchvisionBackend(ImageMixin, image_processing_backends.TorchvisionBackend):
    pass


class PilBackend(ImageMixin, image_processing_backends.PilBackend):
    pass


class ProcessorKwargs(ProcessingKwargs, total=False):
    # for transformers 5.21 and 5.22, which do not know `text_kwargs` of a processor
    _defaults = {"text_kwargs": {"padding": True}}


class ProcessorMixin(LoadingMixin, processing_utils.ProcessorMixin):
    """Leaves truncation to the tokenizer, which says what it cuts off."""

    def __call__(self, images=None, text=None, *args, **kwargs) -> BatchFeature:
        """As in transformers."""
        if "truncation" not in kwargs.get("text_kwargs", {}):
            kwargs.setdefault("truncation", None)
        return super().__call__(images, text, *args, **kwargs)

    def to_dict(self) -> dict:
        """Names its code, also where it was loaded without it."""
        return super().to_dict() | {"auto_map": {"AutoProcessor": name_code(self)}}


if "text_kwargs" not in processing_utils.ProcessorMixin.__annotations__:
    ProcessorMixin.valid_processor_kwargs = ProcessorKwargs


for _base in (PreTrainedConfig, PreTrainedModel, TokenizersBackend, TorchvisionBackend, PilBackend, ProcessorMixin):
    _base.register_for_auto_class()  # and all that inherit from it

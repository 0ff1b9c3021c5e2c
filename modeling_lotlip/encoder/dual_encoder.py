# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""A model and its processor as one object, which embeds images and texts: see [`DualEncoder`]."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import PartialState
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_ERRORS, Resizing, UnreadableImageError, read_image, upright_rgb
from ..data.reader import Item
from ..data.rows import batched
from ..utils.integers import check_integer
from ..utils.terminal import progress_bar
from ..utils.texts import is_unicode
from .arguments import InferenceArguments, LoadingArguments
from .backends import Backend, PytorchBackend
from .batches import TOKENS_PER_BATCH, Batch, PreparedRows, RowCollator, embed_rows
from .contract import find_temperature
from .families import count_positions, find_family, find_text_limit, text_lengths, with_text_limit
from .fastest import EXACT, Computation, choose_half_precision, describe_auto, find_fastest
from .finite import check_finite_batch, check_nonzero_batch
from .loading import (
    LOADING_ERRORS,
    check_device,
    check_is_one_model,
    check_model_is_there,
    find_commit,
    find_saved_truncate_dim,
    is_dual_encoder,
    is_sentence_transformer,
    load_model,
)
from .preprocessing import Preprocessing, warn_of_unknown
from .sentence_transformer import SentenceTransformerModel, load_sentence_transformer


logger = logging.getLogger(__name__)

IMAGES_PER_BATCH = 32
# Texts that are tokenized together, before they are sorted by length into batches
TEXTS_PER_CHUNK = 256
# Two batches are decoded while one is computed
DECODING_THREADS = 2
# An image of Pillow reads its file when it is needed, one thread at a time: the same image may be in a list twice
LOADING_LOCK = RLock()
DEFAULT_TEMPLATES = ("a photo of a {}",)
# The first and the last token of most tokenizers, and one of a text
MIN_TOKENS = 3

ImageLike = str | os.PathLike | bytes | PIL.Image.Image | np.ndarray


class DualEncoder:
    """
    Embeds images and texts into one space, by any dual encoder: LoTLIP, CLIP, SigLIP, ALIGN and others, those whose
    code comes with them, and multimodal models of the sentence-transformers library. Several threads may use one, and
    it can be pickled.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`. It is put into evaluation mode.
        processor (`ProcessorMixin`, *optional*):
            Its processor. Nothing is set on it: where its tokenizer has another limit than the model, a copy is used.
            `None` only where `preprocessing` is given.
        backend ([`Backend`], *optional*):
            What computes the embeddings. Default: PyTorch, by the model itself.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens, special ones included. Default: the limit of the model.
        truncate_dim (`int`, *optional*):
            Keep the first dimensions of an embedding, of a model that was trained for it (Kusupati et al., 2022,
            https://arxiv.org/abs/2205.13147).
        name (`str`, *optional*):
            What messages and tables call the model. Default: what it was loaded from.
        preprocessing (`Preprocessing`, *optional*):
            Makes the inputs of the model. Default: by the processor, as the family of the model was trained.
        revision (`str`, *optional*):
            The commit of the model on the Hub; `None` of a folder.

    Example:

    ```python
    >>> from modeling_lotlip import DualEncoder

    >>> encoder = DualEncoder.from_pretrained("weiwu-ww/LoTLIP-ViT-B-16-100M")  # doctest: +SKIP
    >>> descriptions = ["A red boat lies at a pier. The sea is calm.", "A street at night."]
    >>> texts = encoder.encode_text(descriptions)  # doctest: +SKIP
    >>> images = encoder.encode_image(["boat.jpg"])  # doctest: +SKIP
    >>> print(images @ texts.T)  # doctest: +SKIP
    ```"""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        backend: Backend | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        name: str | None = None,
        preprocessing: Preprocessing | None = None,
        revision: str | None = None,
    ):
        self.model = model.eval()
        self.revision = revision
        self.processor = processor
        self.family = find_family(model.config, processor)
        if self.family.attn_implementation is not None:
            model.set_attn_implementation(self.family.attn_implementation)
        self.name = model.config.name_or_path if name is None else str(name)
        self.backend = PytorchBackend(model, self.family) if backend is None else backend
        if preprocessing is None:
            check_model_and_processor(model, processor)
            limit = find_text_limit(model, processor, self.family)
            # the model's own limit, whatever its tokenizer says; `max_length` goes to `Preprocessing` alone
            processor = self.processor = with_text_limit(processor, limit)
            if max_length is not None:
                self.check_max_length(max_length)
                limit = max_length
            # its own, whatever another encoder with the same processor makes of the tokenizer's
            preprocessing = Preprocessing(processor, self.family, limit)
        self.preprocessing = preprocessing
        self.lock = RLock()  # one computation at a time: it uses all cores
        self.truncate_dim = truncate_dim

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        backend: str = "torch",
        dtype: str = "float32",
        device: str | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> "DualEncoder":
        """
        Loads a dual encoder, ready to embed.

        Args:
            name (`str` or `PathLike`):
                A Hub id or a folder.
            backend (`str`, *optional*, defaults to `"torch"`):
                `"torch"`, `"openvino"`, which is faster on a CPU, or `"auto"`, the fastest of them on this machine.
            dtype (`str`, *optional*, defaults to `"float32"`):
                The precision: `"float32"`, `"float16"`, `"bfloat16"`, `"int8"`, or `"auto"`: on a CPU the fastest
                whose embeddings keep a cosine of 0.998 to float32; on a GPU bfloat16, on MPS float16, which are not
                measured. The choice is measured once, in about a minute, by generated images and texts, which are
                easier and must keep 0.999; it stays in the cache of the Hub.
            device (`str`, *optional*):
                Such as `"cpu"` or `"cuda:0"`. Default: an accelerator if there is one.
            max_length (`int`, *optional*):
                Truncate texts at this many tokens, special ones included. Default: the limit of the model.
            truncate_dim (`int`, *optional*):
                Keep the first dimensions of an embedding, of a model that was trained for it.
            revision (`str`, *optional*):
                A branch, tag or commit on the Hub.
            trust_remote_code (`bool`, *optional*, defaults to `False`):
                Whether to run the code that comes with the model.

        Raises:
            `ValueError`: if the name is of no dual encoder, or it cannot be run so.
            `ImportError`: if the backend is not installed.
        """
        arguments = InferenceArguments(
            dtype=dtype,
            backend=backend,
            device=device,
            max_length=max_length,
            truncate_dim=truncate_dim,
            trust_remote_code=trust_remote_code,
        )
        encoder = load_encoder(str(name), arguments, revision=revision, encoder_class=cls)
        encoder.check_single_embeddings()
        if encoder.computation == EXACT and logger.isEnabledFor(logging.INFO):
            sentence = describe_auto(encoder.model, encoder.processor, truncate_dim)
            if sentence is not None:
                logger.info(sentence)
        return encoder

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = RLock()

    @property
    def device(self) -> torch.device:
        """Where embeddings are computed."""
        return self.backend.device

    @property
    def dtype(self) -> str:
        """What embeddings are computed in, as `--dtype` names it."""
        return self.backend.dtype

    @property
    def computation(self) -> Computation:
        """How embeddings are computed."""
        return Computation(self.backend.name, self.dtype)

    @property
    def max_length(self) -> int:
        """The max number of tokens of a text that is read, special ones included."""
        return self.preprocessing.max_length

    @property
    def truncate_dim(self) -> int | None:
        """How many dimensions of an embedding are kept, `None` for all. It may be set to another number."""
        return self.kept_dim

    @truncate_dim.setter
    def truncate_dim(self, dim: int | None) -> None:
        if dim is not None:
            self.check_truncate_dim(dim)
        self.kept_dim = dim

    @property
    def dim(self) -> int:
        """The number of dimensions of an embedding, after it was cut to `truncate_dim`."""
        return self.whole_dim if self.truncate_dim is None else self.truncate_dim

    @property
    def is_cut(self) -> bool:
        """Whether embeddings are cut to fewer dimensions than the model gives."""
        return self.truncate_dim is not None and self.truncate_dim < self.whole_dim

    @cached_property
    def whole_dim(self) -> int:
        """The number of dimensions of an embedding that is not cut."""
        inputs = self.preprocessing.tokenize(["a"]).inputs
        with self.lock, evaluation_mode(self.model), torch.inference_mode():
            return self.backend.embed_texts(inputs).shape[-1]

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        """The dims that embeddings can be truncated to, as the model was trained."""
        return tuple(getattr(self.model.config, "matryoshka_dims", None) or ())

    def settings(self) -> dict[str, Any]:
        """
        Returns what embeddings of any texts and images depend on. A table stores it, and takes no embeddings of an
        encoder with other settings. The hashes are of code, too, that is of no library.
        """
        has_code = type(self.model).__module__.startswith("transformers_modules")
        return {
            **self.hashes,
            "dtype": self.dtype,
            "backend": self.backend.name,
            "max_length": self.max_length,
            "truncate_dim": self.truncate_dim,
            "revision": self.revision if has_code else None,
        }

    @property
    def hashes(self) -> dict[str, str]:
        """Hashes of the weights that embeddings are computed with, and of the processor."""
        weights_hash = self.backend.hash_weights(self.model)
        return {"weights": weights_hash, "processor": self.preprocessing.hash()}

    def describe(self) -> dict[str, str | int | None]:
        """Returns what results of this encoder depend on, for tables of people."""
        return {
            "model": self.name,
            "revision": self.revision,
            "model_type": self.model.config.model_type,
            "backend": self.backend.name,
            "dtype": self.dtype,
            "truncate_dim": self.truncate_dim,
            "max_length": self.max_length,
        }

    def embed(self, batch: Batch) -> torch.Tensor:
        """Returns the normalized embeddings, of shape `(entries, dim)`, of a batch, in float32 on the CPU."""
        if batch.modality == "image":
            return self.embed_images(batch.inputs)
        return self.embed_texts(batch.inputs, is_long=batch.modality == "long")

    @torch.inference_mode()
    def embed_texts(self, inputs: dict[str, torch.Tensor], is_long: bool = False) -> torch.Tensor:
        """
        Returns normalized embeddings of tokenized texts in float32 on the CPU.

        Args:
            inputs (`dict[str, torch.Tensor]`):
                What `Preprocessing.tokenize` gives, `input_ids` of shape `(texts, length)`.
            is_long (`bool`, *optional*, defaults to `False`):
                Whether they are long captions, which some models embed in another way.

        Returns:
            `torch.Tensor` of shape `(texts, dim)`; of shape `(texts, length, dim)`, zero at padding, if the model
            compares tokens.
        """
        with self.lock, evaluation_mode(self.model):
            return self.normalize(self.backend.embed_texts(inputs, is_long))

    @torch.inference_mode()
    def embed_images(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Returns normalized embeddings of preprocessed images in float32 on the CPU.

        Args:
            inputs (`dict[str, torch.Tensor]`):
                What `Preprocessing.prepare_images` gives, such as `pixel_values` of shape
                `(images, channels, height, width)`.

        Returns:
            `torch.Tensor` of shape `(images, dim)`; of shape `(images, length, dim)` if the model compares tokens.
        """
        with self.lock, evaluation_mode(self.model):
            return self.normalize(self.backend.embed_images(inputs))

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """Returns features of shape `(..., dim)` cut to `truncate_dim`, then normalized, in float32 on the CPU."""
        features = features.float()
        if self.family.compares_tokens:
            return features.cpu()  # the model has normalized them, and padding is zero
        return torch.nn.functional.normalize(features[..., : self.truncate_dim], dim=-1).cpu()

    def encode_text(
        self,
        texts: str | Iterable[str],
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_tensor: bool = False,
        is_long: bool = False,
    ) -> np.ndarray | torch.Tensor:
        """
        Embeds one or many texts. A text is read as it is given; a longer one than the limit is truncated, with one
        warning that counts them.

        Args:
            texts (`str` or `Iterable[str]`):
                One text or many.
            batch_size (`int`, *optional*):
                The max number of texts of full length in a batch. Default: as many as have 2,048 tokens.
            show_progress_bar (`bool`, *optional*, defaults to `False`):
                Whether to show a progress bar on standard error.
            convert_to_tensor (`bool`, *optional*, defaults to `False`):
                Whether to return a tensor instead of an array.
            is_long (`bool`, *optional*, defaults to `False`):
                Whether the texts are embedded as long captions. It makes no difference but to a model of your own
                whose `embed_captions` embeds them in another way than short ones.

        Returns:
            `np.ndarray` or `torch.Tensor` of shape `(dim,)` for one text, `(texts, dim)` for many: float32, of
            length 1.

        Raises:
            `ValueError`: if one is no text, or has no words and the model no embedding of that, or the model compares
                tokens.
        """
        self.check_single_embeddings()
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        is_single = isinstance(texts, str)
        texts = [texts] if is_single else list_items(texts, "texts")
        for index, text in enumerate(texts):
            check_is_text(text, f"texts[{index}]")
        tokens_per_batch = TOKENS_PER_BATCH if batch_size is None else batch_size * self.max_length
        embeds = torch.empty(len(texts), self.dim, dtype=torch.float32)
        num_truncated = 0
        num_unknown = 0
        with progress_bar(
            total=len(texts), desc="Texts", unit=" texts", disable=not show_progress_bar, leave=False
        ) as progress:
            for batch in embed_rows(self, self.prepare_texts(texts, is_long), tokens_per_batch):
                if batch.entries:
                    check_finite_batch(batch, self.model, lambda item: f"`texts[{item.row_key}]`")
                    check_nonzero_batch(batch, lambda item: f"`texts[{item.row_key}]`")
                    # `Item.row_key` is the position in the list
                    embeds[[item.row_key for item in batch.entries]] = batch.embeds
                    num_truncated += sum(item.truncated for item in batch.entries)
                    num_unknown += sum(item.is_unknown for item in batch.entries)
                    progress.update(len(batch.entries))
        if num_truncated > 0:
            logger.warning(
                f"{num_truncated} of {len(texts)} texts were truncated: they have more than {self.max_length} tokens."
            )
        self.warn_of_unknown(num_unknown, len(texts))
        return to_return_value(embeds, is_single, convert_to_tensor)

    def warn_of_unknown(self, num_unknown: int, num_texts: int) -> None:
        """Warns once of texts of which the tokenizer knows no word: `num_unknown` of `num_texts`."""
        warn_of_unknown(num_unknown, num_texts, self.preprocessing.tokenizer, self.name)

    def prepare_texts(self, texts: Sequence[str], is_long: bool) -> Iterator[PreparedRows]:
        """Yields texts, or long captions, as inputs, known by their positions."""
        kind = "long" if is_long else "text"
        collate = RowCollator(self.preprocessing, lambda index, text: [Item(index, kind, text)])
        return map(collate, batched(enumerate(texts), TEXTS_PER_CHUNK))

    def encode_image(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_tensor: bool = False,
        errors: str = "raise",
    ) -> np.ndarray | torch.Tensor | tuple[np.ndarray | torch.Tensor, dict[int, str]]:
        """
        Embeds one or many images.

        Args:
            images (path, `bytes`, `Image` of Pillow, `np.ndarray`, or an iterable of these):
                One image or many: paths of files, the content of files, images, or arrays of shape
                `(height, width)`, `(height, width, channels)` of 8 bits, or `(images, height, width, channels)`.
                They are turned upright as their EXIF says; what is transparent becomes white.
            batch_size (`int`, *optional*):
                Images in a batch. Default: 32.
            show_progress_bar (`bool`, *optional*, defaults to `False`):
                Whether to show a progress bar on standard error.
            convert_to_tensor (`bool`, *optional*, defaults to `False`):
                Whether to return a tensor instead of an array.
            errors (`str`, *optional*, defaults to `"raise"`):
                `"raise"`: an image that cannot be read is an error. `"return"`: the message of each such image comes
                together with the embeddings, by its index, and its embedding is NaN.

        Returns:
            `np.ndarray` or `torch.Tensor` of shape `(dim,)` for one image, `(images, dim)` for many: float32, of
            length 1. With `errors="return"` a tuple of that and a `dict[int, str]`.

        Raises:
            `ValueError`: if an image cannot be read, or the model compares tokens.
        """
        self.check_single_embeddings()
        if errors not in ("raise", "return"):
            raise ValueError(f"`errors` must be 'raise' or 'return', got {errors!r}.")
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        is_single = is_single_image(images)
        images = [images] if is_single else list_items(images, "images")
        embeds = torch.full((len(images), self.dim), torch.nan, dtype=torch.float32)
        problems: dict[int, str] = {}
        if batch_size is None:
            batch_size = IMAGES_PER_BATCH
        prepared = self.prepare_image_batches(images, batch_size)
        with progress_bar(
            total=len(images), desc="Images", unit=" images", disable=not show_progress_bar, leave=False
        ) as progress:
            for batch in embed_rows(self, prepared):
                for row in batch.unreadable:
                    if errors == "raise":
                        name = name_image(row.key, images[row.key])
                        raise UnreadableImageError(f"{name} cannot be read as an image: {row.problem}")
                    problems[row.key] = row.problem
                if batch.entries:
                    check_finite_batch(batch, self.model, lambda item: f"`images[{item.row_key}]`")
                    embeds[[item.row_key for item in batch.entries]] = batch.embeds
                progress.update(len(batch.entries) + len(batch.unreadable))
        returned = to_return_value(embeds, is_single, convert_to_tensor)
        if errors == "return":
            return returned, problems
        return returned

    def prepare_image_batches(
        self,
        images: Sequence[ImageLike],
        batch_size: int,
    ) -> Iterator[PreparedRows]:
        """Yields images as inputs, known by their positions, which threads decode ahead."""
        resizing = self.preprocessing.resizing

        def read(index: int, image: ImageLike) -> list[Item]:
            return [Item(index, "image", open_any_image(image, resizing))]

        collate = RowCollator(self.preprocessing, read)
        with ThreadPoolExecutor(DECODING_THREADS) as executor:
            pending = []
            for rows in batched(enumerate(images), batch_size):
                pending.append(executor.submit(collate, rows))
                if len(pending) > DECODING_THREADS:
                    yield pending.pop(0).result()
            for future in pending:
                yield future.result()

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Sequence[str],
        templates: Sequence[str] | None = None,
    ) -> np.ndarray:
        """
        Classifies images by texts, without training (Radford et al., 2021, https://arxiv.org/abs/2103.00020).

        Args:
            images (path, `bytes`, `Image` of Pillow, `np.ndarray`, or an iterable of these):
                See [`DualEncoder.encode_image`].
            labels (`Sequence[str]`):
                The names of the classes.
            templates (`Sequence[str]`, *optional*):
                Prompts with `{}` for the name, whose embeddings are averaged. Default: `"a photo of a {}"`.

        Returns:
            `np.ndarray` of shape `(labels,)` for one image, `(images, labels)` for many: probabilities in float32.
            They sum to 1 for an image, but those of a model that was trained with a sigmoid (SigLIP) are independent.

        Raises:
            `ValueError`: if a template has no `{}`, there are no labels, or an image cannot be read.
        """
        is_single = is_single_image(images)
        image_embeds = self.encode_image([images] if is_single else images, convert_to_tensor=True)
        class_embeds = self.embed_classes(labels, templates)
        logits = self.scale_similarities(image_embeds @ class_embeds.T)
        probabilities = logits.sigmoid() if self.is_sigmoid else logits.softmax(dim=-1)
        return to_return_value(probabilities, is_single, convert_to_tensor=False)

    def embed_classes(
        self,
        labels: Sequence[str],
        templates: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """
        Returns class embeddings of shape `(labels, dim)`: the mean of the normalized embeddings of a name in each
        template, normalized again (Radford et al., 2021, https://arxiv.org/abs/2103.00020, section 3.1.4).

        Args:
            labels (`Sequence[str]`): The names of the classes.
            templates (`Sequence[str]`, *optional*): See [`DualEncoder.classify`].
        """
        labels = list_strings(labels, "labels")
        templates = list_strings(DEFAULT_TEMPLATES if templates is None else templates, "templates")
        for template in templates:
            if "{}" not in template:
                raise ValueError(f"`templates` has {template!r}, without {{}}: write that where the name goes.")
        # without the words of the templates, which it knows
        input_ids = self.preprocessing.tokenize(labels).inputs["input_ids"]
        self.warn_of_unknown(sum(self.preprocessing.find_unknown(input_ids)), len(labels))
        prompts = []
        for label in labels:
            prompts += [template.replace("{}", label) for template in templates]
        embeds = self.encode_text(prompts, convert_to_tensor=True)
        embeds = embeds.unflatten(0, (len(labels), len(templates))).mean(dim=1)
        return torch.nn.functional.normalize(embeds, dim=-1)

    @property
    def is_sigmoid(self) -> bool:
        """Whether the model was trained with a sigmoid for every pair, and has a bias."""
        return getattr(self.model, "logit_bias", None) is not None

    def scale_similarities(self, similarities: torch.Tensor) -> torch.Tensor:
        """
        Returns cosine similarities of any shape as the logits that the model was trained on; as they are, if it has
        neither a scale nor a temperature.
        """
        temperature = find_temperature(self.model)
        logits = similarities
        if temperature is not None:
            parameter = getattr(self.model, temperature.name)
            logits = similarities * temperature.scale(parameter.detach().float().cpu())
        if self.is_sigmoid:
            logits = logits + self.model.logit_bias.detach().float().cpu()
        return logits

    def check_single_embeddings(self) -> None:
        """Raises a `ValueError` if the model compares tokens and has no single embeddings."""
        check_single_embeddings(self.model.config)

    def check_max_length(self, max_length: int) -> None:
        """Raises a `ValueError` if the text tower has not so many positions, or reads texts of other lengths only."""
        check_integer("max_length", max_length, MIN_TOKENS)
        num_positions = count_positions(self.model, self.family)
        if num_positions is not None and max_length > num_positions:
            raise ValueError(
                f"`--max_length {max_length}` is beyond the {num_positions} tokens that the text "
                f"tower of `{self.name}` has positions for: give fewer."
            )
        lengths = text_lengths(self.model.config, self.family)
        if lengths and max_length not in lengths:
            raise ValueError(
                f"`--max_length {max_length}` does not fit `{self.name}`. Give {' or '.join(map(str, lengths))}."
            )

    def check_truncate_dim(self, dim: int) -> None:
        """Warns of embeddings cut to a length that the model was not trained for, and refuses a longer one."""
        check_integer("truncate_dim", dim, 1)
        if self.family.compares_tokens:
            raise ValueError(
                f"`--truncate_dim {dim}` is not for `{self.name}`, which compares all tokens: leave it out."
            )
        if dim > self.whole_dim:
            raise ValueError(
                f"`--truncate_dim {dim}` is more than the {self.whole_dim} dimensions of an embedding of "
                f"`{self.name}`."
            )
        if dim == self.whole_dim or dim in self.matryoshka_dims:
            return
        if self.matryoshka_dims:
            logger.warning(
                f"`{self.name}` was not trained for embeddings of {dim} dimensions "
                "(`--truncate_dim`): they may find much less. It was for "
                f"{', '.join(map(str, self.matryoshka_dims))}."
            )
        else:
            logger.warning(
                f"`{self.name}` was not trained for embeddings of {dim} dimensions "
                "(`--truncate_dim`): they may find much less. Train one with `--matryoshka_dims`."
            )


def warn_of_whole_embeddings(encoder: DualEncoder, made: str, start: str) -> None:
    """
    Warns that a model that is made of another one gives all dimensions, where that one gives fewer, as
    sentence-transformers has saved with it.

    Args:
        encoder ([`DualEncoder`]): The model that another one is made of.
        made (`str`): What is made, for the message.
        start (`str`): What it is made of, for the message.
    """
    if encoder.is_cut:
        logger.warning(
            f"{made} gives all {encoder.whole_dim} dimensions, not the first {encoder.dim} that were saved with "
            f"{start}."
        )


def check_model_and_processor(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Raises a `ValueError` if a model does not embed texts and images, or a processor does not prepare both."""
    if hasattr(model, "get_base_model"):  # of PEFT
        raise ValueError(
            f"`model` is a {type(model).__name__}, which wraps one: give `model.get_base_model()`, which has its "
            "adapters."
        )
    if not is_dual_encoder(type(model)):
        raise ValueError(
            "`model` must have `get_text_features` and `get_image_features`, and a "
            f"{type(model).__name__} has not both: give a dual encoder."
        )
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ValueError(
            "`processor` must have a `tokenizer` and an `image_processor`, and a "
            f"{type(processor).__name__} has not both: give the processor of the model."
        )


def load_encoder(
    name: str,
    arguments: LoadingArguments | None = None,
    argument: str = "model_name_or_path",
    revision: str | None = None,
    encoder_class: type[DualEncoder] = DualEncoder,
) -> DualEncoder:
    """
    Loads the dual encoder that an argument of a command names. It may compare tokens: see
    [`DualEncoder.check_single_embeddings`].

    Args:
        name (`str`):
            A Hub id or a folder.
        arguments ([`LoadingArguments`], *optional*):
            How it is loaded. Default: float32 by PyTorch, on the device of accelerate's `PartialState`.
        argument (`str`, *optional*, defaults to `"model_name_or_path"`):
            The argument that named it, for messages.
        revision (`str`, *optional*):
            A branch, tag or commit on the Hub.
        encoder_class (`type[DualEncoder]`, *optional*, defaults to [`DualEncoder`]):
            What is made: perhaps a subclass.

    Raises:
        `ValueError`: if it is no dual encoder, or cannot be run so.
        `ImportError`: if the backend is not installed.
    """
    arguments = arguments or LoadingArguments()
    check_device(arguments.device)
    if revision is not None and os.path.isdir(name):
        raise ValueError(f"`revision` {revision} is of a repository on the Hub, but {name} is a folder: leave it out.")
    device = torch.device(arguments.device or PartialState().device)
    computation = Computation(arguments.backend or "torch", arguments.dtype)
    if computation.is_open and device.type != "cpu":
        computation = choose_half_precision(computation, device)
    check_backend_is_installed(computation.backend, computation.dtype)
    truncate_dim = arguments.truncate_dim
    try:
        check_is_one_model(name, revision)
        if truncate_dim is None:
            truncate_dim = find_saved_truncate_dim(name, revision)
        load = partial(load_by_library, name, arguments, revision)
        model, processor, preprocessing = load(find_weights_dtype(computation))
    except LOADING_ERRORS as error:
        raise make_loading_error(name, argument, error) from error
    model = model.to(device).eval()
    if computation.is_open:
        computation = find_fastest(model, processor, computation, truncate_dim, preprocessing)
        # ways are measured on weights in float32: another precision is loaded as if it had been asked for
        if find_weights_dtype(computation) != torch.float32:
            model, processor, preprocessing = load(find_weights_dtype(computation))
            model.eval()
    made_backend = None
    if computation.backend == "openvino":
        from .backends.openvino import OpenvinoBackend

        made_backend = OpenvinoBackend(model, find_family(model.config, processor), computation.dtype)
    return encoder_class(
        model,
        processor,
        made_backend,
        arguments.max_length,
        truncate_dim,
        name,
        preprocessing,
        revision=find_commit(name, revision),
    )


def load_by_library(
    name: str, arguments: LoadingArguments, revision: str | None, dtype: torch.dtype
) -> tuple[PreTrainedModel | SentenceTransformerModel, ProcessorMixin | None, Preprocessing | None]:
    """
    Loads a dual encoder by the library that it is of: its model, and its processor or, of one of
    sentence-transformers, its preprocessing.

    Args:
        name (`str`): A Hub id or a folder.
        arguments ([`LoadingArguments`]): How it is loaded.
        revision (`str`, *optional*): A branch, tag or commit on the Hub.
        dtype (`torch.dtype`): The precision of its weights.
    """
    if is_sentence_transformer(name, revision, arguments.trust_remote_code):
        model, preprocessing = load_sentence_transformer(name, arguments, dtype, revision)
        return model, None, preprocessing
    model, processor = load_model(name, dtype, revision=revision, trust_remote_code=arguments.trust_remote_code)
    return model, processor, None


def find_models(names: Iterable[str], argument: str = "model_name_or_path") -> list[str]:
    """
    Returns the names of models, each once. Raises a `ValueError` if one of them is not there: before the first is run,
    which may take hours.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        try:
            check_model_is_there(name)
        except LOADING_ERRORS as error:
            raise make_loading_error(name, argument, error) from error
    return names


def make_loading_error(name: str, argument: str, error: Exception) -> ValueError:
    """Makes the error of a model that an argument names and that cannot be loaded."""
    if name.startswith((".", "/", "~")) and not os.path.exists(name):
        return ValueError(f"`--{argument} {name}` cannot be used: there is no such folder.")
    # `outputs/mine` may be meant as a folder or as a name on the Hub
    if os.path.isdir(os.path.dirname(name)) and not os.path.exists(name):
        return ValueError(f"`--{argument} {name}` cannot be used: there is no such folder. {error}")
    if os.path.isfile(name):
        return ValueError(
            f"`--{argument} {name}` is a file, and a model is a folder: name that, or make one of a checkpoint of the "
            f"original with `lotlip convert {name} DIR`."
        )
    return ValueError(f"`--{argument} {name}` cannot be used: {error}")


def find_weights_dtype(computation: Computation) -> torch.dtype:
    """Returns the precision of the weights that a model is loaded in: OpenVINO converts those in float32 itself."""
    if computation.is_open or computation.backend == "openvino":
        return torch.float32
    return getattr(torch, computation.dtype)


def check_backend_is_installed(backend: str, dtype: str) -> None:
    """Raises an `ImportError` that names the extra, if what a backend or a precision needs is not installed."""
    if (backend == "openvino" or dtype == "int8") and find_spec("openvino") is None:
        raise ImportError('This needs openvino: `pip install "lotlip[openvino]"` brings it.')
    if dtype == "int8" and find_spec("nncf") is None:
        raise ImportError('This needs nncf: `pip install "lotlip[int8]"` brings it.')


def check_single_embeddings(config: PreTrainedConfig) -> None:
    """Raises a `ValueError` if a model, by its configuration, compares tokens and has no single embeddings."""
    if find_family(config).compares_tokens:
        raise ValueError(
            "The model compares all tokens of texts and images, and has no single embedding of "
            "either: use one that was trained with another `--objective`."
        )


def is_single_image(images: object) -> bool:
    """Returns whether this is one image, and no iterable of them."""
    if isinstance(images, np.ndarray):
        return images.ndim in (2, 3)  # of one dimension it is a list, of paths say
    if hasattr(images, "read"):  # an open file
        return True
    return isinstance(images, (str, os.PathLike, bytes, bytearray, PIL.Image.Image))


def list_items(items: Iterable, argument: str) -> list:
    """
    Returns the items of a list, a tuple, an array, a column or a generator. Raises a `ValueError` for what cannot be
    iterated, has no order (a set), or iterates over names and not over what it holds (a dictionary, a table).
    """
    if not np.iterable(items):
        raise ValueError(f"`{argument}` must be a list, got {items!r}.")
    if isinstance(items, (Mapping, Set)) or hasattr(items, "columns"):
        raise ValueError(f"`{argument}` must be a list, got a {type(items).__name__}: give one of its columns, say.")
    return list(items)


def list_strings(strings: Iterable[str], argument: str) -> list[str]:
    """Returns the strings of a list, a column or a generator. Raises a `ValueError` if they are none, or no list."""
    listed = [] if isinstance(strings, str) else list_items(strings, argument)
    if not listed:
        raise ValueError(f"`{argument}` must be a list of strings, got {strings!r}: give at least one.")
    for index, string in enumerate(listed):
        check_is_text(string, f"{argument}[{index}]")
    return listed


def check_is_text(text: object, name: str) -> None:
    """Raises a `ValueError` if this is no string, or no Unicode text."""
    if not isinstance(text, str):
        raise ValueError(f"`{name}` must be a string, got {text!r}: write it as text.")
    if not is_unicode(text):
        raise ValueError(f"`{name}` is no Unicode text, got {text!r}: read it in its own encoding.")


def open_any_image(image: ImageLike, resizing: Resizing | None = None) -> PIL.Image.Image:
    """
    Returns an upright RGB image of 8 bits from a path, the content of a file, an open file, an image or an array.

    Raises:
        `UnreadableImageError`: if it is none of these, or cannot be read.
    """
    try:
        if isinstance(image, (str, os.PathLike)):
            if Path(image).is_dir():
                raise UnreadableImageError("it is a folder: give the paths of its images")
            if not Path(image).is_file():
                raise UnreadableImageError("there is no such file")
            image = Path(image).read_bytes()
        elif hasattr(image, "read") and not isinstance(image, PIL.Image.Image):
            image = image.read()
        if isinstance(image, (bytes, bytearray)):
            return read_image({"path": None, "bytes": bytes(image)}, resizing=resizing)
        if isinstance(image, np.ndarray):
            image = open_array(image)
        if not isinstance(image, PIL.Image.Image):
            raise UnreadableImageError(f"a {type(image).__name__} is none: give a path, bytes, an image or an array")
        if 0 in image.size:
            raise UnreadableImageError(f"it has {image.width} x {image.height} pixels")
        with LOADING_LOCK:
            image.load()
        return upright_rgb(image)
    except UnreadableImageError:
        raise
    except IMAGE_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def open_array(array: np.ndarray) -> PIL.Image.Image:
    """
    Returns the image of an array of shape `(height, width)` or `(height, width, channels)`, of 1, 3 or 4 channels.

    Raises:
        `UnreadableImageError`: if its pixels are not of 8 bits, or its shape is another.
    """
    has_8_bits = array.dtype == np.uint8 and array.size > 0
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not has_8_bits or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UnreadableImageError(
            f"an array of shape {array.shape} and type {array.dtype} is no image of 8 bits: give "
            "(height, width, channels) in uint8"
        )
    return PIL.Image.fromarray(array)


def name_image(index: int, image: ImageLike) -> str:
    """Returns how messages call an image."""
    if isinstance(image, (str, os.PathLike)):
        return f"`images[{index}]`, {os.fspath(image)},"
    return f"`images[{index}]`"


def to_return_value(embeds: torch.Tensor, is_single: bool, convert_to_tensor: bool) -> np.ndarray | torch.Tensor:
    """Converts rows, of shape `(rows, dim)`, to an array or a tensor: of a single item, to its row."""
    if is_single:
        embeds = embeds[0]
    return embeds if convert_to_tensor else embeds.numpy()


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Lets a model compute without dropout inside; afterward those of its modules train again that did before."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

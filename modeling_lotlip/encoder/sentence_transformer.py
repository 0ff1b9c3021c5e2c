# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Multimodal models of the sentence-transformers library as [`DualEncoder`]s: its CLIP modules, Qwen3-VL-Embedding."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from PIL import Image

from .arguments import AUTO, LoadingArguments
from .backends import Backend
from .dual_encoder import DualEncoder
from .families import UNKNOWN_FAMILY
from .fastest import Computation
from .hashes import hash_processor, hash_weights
from .preprocessing import Preprocessing, TokenizedTexts


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceTransformerPreprocessing(Preprocessing):
    """
    Makes the inputs of a model of the sentence-transformers library, by its first module.

    Args:
        model (`SentenceTransformer`):
            The model.
    """

    def __init__(self, model: "SentenceTransformer"):
        self.model = model
        self.family = UNKNOWN_FAMILY
        self.tokenizer_lock = RLock()

    @property
    def max_length(self) -> int:
        return self.model.get_max_seq_length()

    @property
    def resizing(self) -> None:
        """Not known: large JPEGs are decoded at their full size."""
        return None

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        prompt = self.model.prompts.get(self.model.default_prompt_name)
        limit = self.max_length if max_length is None else max_length
        with self.tokenizer_lock:
            inputs = self.model.preprocess(list(texts), prompt=prompt)
        whole = self.tokenize_whole(texts)
        return TokenizedTexts(only_tensors(inputs), [len(ids) > limit for ids in whole])

    def tokenize_whole(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        with self.tokenizer_lock:
            return self.model.tokenizer(
                list(texts), add_special_tokens=add_special_tokens, truncation=False, verbose=False
            )["input_ids"]

    def unpad(self, inputs: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """Yields the inputs of each text, of shape `(own_length,)`, of inputs of shape `(texts, length)`."""
        mask = inputs["attention_mask"].bool()
        for row in range(len(mask)):
            yield {name: values[row, mask[row]] for name, values in inputs.items()}

    def pad(self, texts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Returns inputs of shape `(texts, length)`, of the inputs of each text, of shape `(own_length,)`."""
        with self.tokenizer_lock:
            return dict(self.model.tokenizer.pad(list(texts), return_tensors="pt"))

    def prepare_images(self, images: Sequence[Image.Image], **options: Any) -> dict[str, torch.Tensor]:
        """Returns the inputs of upright RGB images, of any shape `(images, ...)`; `options` have no effect."""
        return only_tensors(self.model.preprocess(list(images)))


def only_tensors(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the inputs that are tensors, of any shape `(rows, ...)`: the library adds words, as the modality."""
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}


class SentenceTransformerBackend(Backend):
    """
    Computes embeddings by a model of the sentence-transformers library.

    Args:
        model (`SentenceTransformer`):
            The model.
    """

    name = "torch"

    def __init__(self, model: "SentenceTransformer"):
        self.model = model

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        return self.model.device

    def embed_texts(self, inputs: dict[str, torch.Tensor], is_long: bool = False) -> torch.Tensor:
        """Returns embeddings of shape `(texts, dim)`: see [`Backend.embed_texts`]."""
        return self.compute("text", inputs)

    def embed_images(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns embeddings of shape `(images, dim)`: see [`Backend.embed_images`]."""
        return self.compute("image", inputs)

    def compute(self, modality: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns embeddings of shape `(rows, dim)` of texts or images."""
        moved = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        return self.model({**moved, "modality": modality})["sentence_embedding"]


class SentenceTransformerEncoder(DualEncoder):
    """
    A multimodal model of the sentence-transformers library as a dual encoder.

    Args:
        model (`SentenceTransformer`):
            A model that embeds texts and images.
        truncate_dim (`int`, *optional*):
            Keep the first numbers of an embedding.
        name (`str`, *optional*):
            What messages and tables call the model.

    Raises:
        `ValueError`: if it embeds texts alone.
    """

    def __init__(self, model: "SentenceTransformer", truncate_dim: int | None = None, name: str = ""):
        if not model.supports("image") or not model.supports("text"):
            raise ValueError(
                f"it embeds {', '.join(map(str, model.modalities))}, and no images and texts. Name a model of both."
            )
        self.model = model.eval()
        self.processor = None
        self.family = UNKNOWN_FAMILY
        self.name = name
        self.backend = SentenceTransformerBackend(model)
        self.preprocessing = SentenceTransformerPreprocessing(model)
        self.lock = RLock()
        self.truncate_dim = None
        if truncate_dim is not None:
            self.check_truncate_dim(truncate_dim)
            self.truncate_dim = truncate_dim

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        return ()

    @property
    def revision(self) -> str | None:
        return None

    @property
    def scored_model(self) -> torch.nn.Module:
        return getattr(self.model[0], "model", self.model)

    @cached_property
    def hashes(self) -> dict[str, str]:
        modules = hashlib.blake2b(repr(self.model).encode(), digest_size=16).hexdigest()
        processor = getattr(self.model[0], "processor", None)
        if processor is None:
            return {"weights": hash_weights(self.model), "processor": modules}
        return {"weights": hash_weights(self.model), "processor": f"{hash_processor(processor)} {modules}"}

    def describe(self) -> dict[str, str | int | None]:
        return {
            "model": self.name,
            "revision": self.revision,
            "model_type": "sentence-transformers",
            "dtype": self.dtype,
            "truncate_dim": self.truncate_dim,
            "max_length": self.max_length,
        }

    def check_single_embeddings(self) -> None:
        """Passes: a sentence embedding is one vector."""


def load_sentence_transformer(
    name: str, arguments: LoadingArguments, computation: Computation, revision: str | None = None
) -> SentenceTransformerEncoder:
    """
    Loads a multimodal model of the sentence-transformers library.

    Args:
        name (`str`):
            A Hub id or a folder.
        arguments ([`LoadingArguments`]):
            How it is loaded.
        computation ([`Computation`]):
            How it is computed. What is open becomes float32 by PyTorch.
        revision (`str`, *optional*):
            A branch, tag or commit on the Hub.

    Raises:
        `ImportError`: if the library is not installed.
        `ValueError`: if the model embeds texts alone, or cannot be run so.
    """
    if find_spec("sentence_transformers") is None:
        raise ImportError(
            f"{name} is a model of sentence-transformers, which is not installed: `pip install "
            '"lotlip[sentence-transformers]"`.'
        )
    from sentence_transformers import SentenceTransformer

    if computation.backend == "openvino" or computation.dtype == "int8":
        raise ValueError("OpenVINO cannot compute models of sentence-transformers here: use `--backend torch`.")
    dtype = computation.dtype
    if dtype == AUTO:
        dtype = "float32"
    model = SentenceTransformer(
        name,
        device=str(arguments.device or PartialState().device),
        revision=revision,
        trust_remote_code=arguments.trust_remote_code,
        model_kwargs={"dtype": dtype},
    )
    if arguments.max_length is not None:
        model.max_seq_length = arguments.max_length
    return SentenceTransformerEncoder(model, arguments.truncate_dim, name)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Multimodal models of the sentence-transformers library, such as its CLIP and Qwen3-VL-Embedding, as the two parts of
a `DualEncoder`: a model and its preprocessing.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from PIL import Image
from torch import nn
from transformers import (
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from .arguments import LoadingArguments
from .families import UNKNOWN_FAMILY, count_positions, find_family
from .hashes import describe_config, hash_processor
from .preprocessing import Preprocessing, TokenizedTexts


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceTransformerPreprocessing(Preprocessing):
    """
    Makes the inputs of a model of the sentence-transformers library, by its first module.

    Args:
        model (`SentenceTransformer`):
            The model.
        max_length (`int`, *optional*):
            The limit of a text in tokens. Default: the model's own.
    """

    def __init__(self, model: "SentenceTransformer", max_length: int | None = None):
        # not by `super().__init__`: there is no processor, and what reads one is overridden below
        self.model = model
        self.family = UNKNOWN_FAMILY
        self.given_max_length = max_length

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["model"] = copy_without_weights(self.model)
        return state

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        return self.model.tokenizer

    @property
    def max_length(self) -> int:
        """The max length of a text in tokens."""
        if self.given_max_length is not None:
            return self.given_max_length
        if self.told_max_length is not None:
            return self.told_max_length
        # where a tokenizer was saved with a `max_length`, the library truncates there
        limit = self.model.get_max_seq_length()
        saved_limit = self.tokenizer.init_kwargs.get("max_length")
        if saved_limit is None:
            return limit
        return min(limit, saved_limit)

    @property
    def told_max_length(self) -> int | None:
        """
        The limit that the library was told to tokenize texts with, in place of that of the tokenizer: at most as many
        tokens as the model has positions for.
        """
        options = getattr(self.model[0], "processing_kwargs", {}).get("text") or {}
        limit = options.get("max_length")
        if limit is None:
            return None
        encoder = self.model[0].model
        num_positions = count_positions(encoder, find_family(encoder.config))
        return limit if num_positions is None else min(limit, num_positions)

    @property
    def prompt(self) -> str | None:
        """What the model has before each text, and that takes room, too."""
        return self.model.prompts.get(self.model.default_prompt_name)

    @property
    def resizing(self) -> None:
        """Not known: large JPEGs are decoded at their full size."""
        return None

    @property
    def padding(self) -> bool:
        """Texts are padded to the longest of a batch."""
        return True

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """Tokenizes texts with the prompt of the model: see [`Preprocessing.tokenize`]."""
        limit = self.max_length if max_length is None else max_length
        truncated = [num_tokens > limit for num_tokens in self.count_tokens(texts)]
        inputs = [as_text(text) for text in texts]
        with self.tokenizer_lock:
            # the library truncates at the limit of the model alone, or at that of its tokenizer
            own_limit = self.model.get_max_seq_length()
            saved = self.tokenizer.init_kwargs.copy()
            self.tokenizer.init_kwargs.pop("max_length", None)
            self.model.max_seq_length = limit
            options = {}
            if self.told_max_length is not None:
                options["processing_kwargs"] = {"text": {"max_length": limit}}
            try:
                inputs = self.model.preprocess(inputs, prompt=self.prompt, **options)
            finally:
                self.model.max_seq_length = own_limit
                self.tokenizer.init_kwargs = saved
        if "attention_mask" not in inputs:  # as of SigLIP
            raise ValueError(
                "The tokenizer of this model gives no attention mask, and so its embeddings depend on how "
                "texts are padded: take the default prompt, limit, lower case or `processing_kwargs` that "
                "sentence-transformers saved out of its folder."
            )
        return TokenizedTexts(only_tensors(inputs), truncated)

    def tokenize_whole(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """Tokenizes texts without truncation."""
        with self.tokenizer_lock:
            return self.model.tokenizer(
                list(texts), add_special_tokens=add_special_tokens, truncation=False, verbose=False
            )["input_ids"]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counts the tokens of whole texts as they are embedded: see [`Preprocessing.count_tokens`]."""
        return [len(ids) for ids in self.tokenize_whole([f"{self.prompt or ''}{text}" for text in texts])]

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
        with self.tokenizer_lock:  # templates of chats put text beside an image
            return only_tensors(self.model.preprocess(list(images)))

    def hash(self) -> str:
        """
        Returns a hash of the modules of the model, of its prompt, and of what its modules read texts and images by:
        a processor, or a tokenizer and an image processor.
        """
        modules = hashlib.blake2b(repr(self.model).encode(), digest_size=16)
        modules.update(repr(self.prompt).encode())
        hashes = []
        for module in self.model.modules():
            for value in vars(module).values():
                if isinstance(value, (ProcessorMixin, PreTrainedTokenizerBase, ImageProcessingMixin)):
                    with self.tokenizer_lock:
                        hashes.append(hash_processor(value))
        return " ".join([*hashes, modules.hexdigest()])


def copy_without_weights(model: nn.Module) -> nn.Module:
    """Returns a copy of a model whose parameters and buffers have shapes and no values."""
    tensors = [*model.parameters(), *model.buffers()]
    # what `deepcopy` finds in its memo it does not copy
    return copy.deepcopy(model, {id(tensor): tensor.detach().to("meta") for tensor in tensors})


def as_text(text: str) -> str | dict[str, str]:
    """Returns a text as the library reads it as one: the name or address of an image file it would open."""
    from sentence_transformers.base.modality import infer_modality

    if infer_modality(text) == "text":
        return text
    return {"text": text}


def only_tensors(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the inputs that are tensors, of any shape `(rows, ...)`: the library adds words, as the modality."""
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}


class SentenceTransformerConfig(PreTrainedConfig):
    """What a `DualEncoder` reads of the configuration of such a model: its type, `name_or_path`, and its `parts`."""

    model_type = "sentence-transformers"


class SentenceTransformerModel(nn.Module):
    """
    A multimodal model of the sentence-transformers library with the attributes that dual encoders of transformers
    have, and so for all backends: a configuration, features of texts and of images, and what scales similarities.

    Args:
        sentence_transformer (`SentenceTransformer`):
            A model that embeds texts and images.
        name (`str`):
            What it was loaded from.

    Raises:
        `ValueError`: if it embeds texts alone.
    """

    def __init__(self, sentence_transformer: "SentenceTransformer", name: str):
        super().__init__()
        if not sentence_transformer.supports("image") or not sentence_transformer.supports("text"):
            modalities = ", ".join(map(str, sentence_transformer.modalities))
            raise ValueError(f"it embeds {modalities}, and no images and texts. Name a model of both.")
        self.sentence_transformer = sentence_transformer
        # hashes know a model by its configuration: by those of the models in it, too, and by its modules
        parts = [module for module in sentence_transformer.modules() if isinstance(module, PreTrainedModel)]
        self.config = SentenceTransformerConfig(
            name_or_path=name,
            parts=[describe_config(part.config) for part in parts],
            module_names=repr(sentence_transformer),
        )
        # The parameters that were trained with the embeddings are those of the model inside, if it has them
        inside = getattr(sentence_transformer[0], "model", sentence_transformer)
        self.logit_scale = getattr(inside, "logit_scale", None)
        self.logit_bias = getattr(inside, "logit_bias", None)
        self.temperature = getattr(inside, "temperature", None)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self.sentence_transformer.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sentence_transformer.device

    def get_text_features(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Returns embeddings of shape `(texts, dim)` of what [`SentenceTransformerPreprocessing.tokenize`] gives."""
        return self.sentence_transformer({**inputs, "modality": "text"})["sentence_embedding"]

    def get_image_features(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Returns embeddings, `(images, dim)`, of what [`SentenceTransformerPreprocessing.prepare_images`] gives."""
        return self.sentence_transformer({**inputs, "modality": "image"})["sentence_embedding"]


def load_sentence_transformer(
    name: str, arguments: LoadingArguments, dtype: torch.dtype, revision: str | None = None
) -> tuple[SentenceTransformerModel, SentenceTransformerPreprocessing]:
    """
    Loads a multimodal model of the sentence-transformers library.

    Args:
        name (`str`):
            A Hub id or a folder.
        arguments ([`LoadingArguments`]):
            How it is loaded.
        dtype (`torch.dtype`):
            The precision of its weights.
        revision (`str`, *optional*):
            A branch, tag or commit on the Hub.

    Returns:
        The model and its preprocessing.

    Raises:
        `ImportError`: if the library is not installed.
        `ValueError`: if the model embeds texts alone.
    """
    if find_spec("sentence_transformers") is None:
        raise ImportError(
            f"{name} is a model of sentence-transformers, which is not installed: `pip install "
            '"lotlip[sentence-transformers]"`.'
        )
    from sentence_transformers import SentenceTransformer

    sentence_transformer = SentenceTransformer(
        name,
        device=str(arguments.device or PartialState().device),
        revision=revision,
        trust_remote_code=arguments.trust_remote_code,
        model_kwargs={"dtype": dtype},
    )
    model = SentenceTransformerModel(sentence_transformer, name)
    return model, SentenceTransformerPreprocessing(sentence_transformer, arguments.max_length)

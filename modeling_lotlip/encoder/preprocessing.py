# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How texts and images become the inputs of a dual encoder, as its family was trained on them."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from threading import RLock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin
from transformers.data.data_collator import pad_without_fast_tokenizer_warning
from transformers.tokenization_utils_base import LARGE_INTEGER, PreTrainedTokenizerBase

from ..data.images import Resizing, bound_aspect_ratio
from .families import Family, find_family, get_text_kwargs
from .hashes import hash_processor


logger = logging.getLogger(__name__)

# A fast tokenizer keeps how it truncates and pads, and so serves one thread at a time, whoever calls it
TOKENIZER_LOCKS: WeakKeyDictionary = WeakKeyDictionary()
LOCKS_LOCK = RLock()
# Those that were warned of, since an encoder may be made anew for each evaluation: see `warn_of_unknown`
WARNED_TOKENIZERS: WeakSet = WeakSet()


def find_tokenizer_lock(tokenizer: PreTrainedTokenizerBase) -> RLock:
    """Returns the lock of a tokenizer, the same for all that use it."""
    with LOCKS_LOCK:
        return TOKENIZER_LOCKS.setdefault(tokenizer, RLock())


class TokenizedTexts(NamedTuple):
    """
    Holds texts as the inputs of a text tower.

    Attributes:
        inputs (`dict[str, torch.Tensor]`): `input_ids` of shape `(texts, length)`, padded, and what else the model
            reads.
        truncated (`list[bool]`): Whether each text is longer than the limit.
    """

    inputs: dict[str, torch.Tensor]
    truncated: list[bool]


class Preprocessing:
    """
    Makes the inputs of a dual encoder from texts and images. It holds no weights: processes that read data get a copy
    of it. Several threads may use it.

    Args:
        processor (`ProcessorMixin`):
            The tokenizer and the image processor of the model.
        family ([`Family`], *optional*):
            How the model reads texts and images. Default: the one that belongs to the processor.
        max_length (`int`, *optional*):
            The limit of a text in tokens, special ones included. Default: the tokenizer's `model_max_length`.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        family: Family | None = None,
        max_length: int | None = None,
    ):
        self.processor = processor
        self.family = find_family(None, processor) if family is None else family
        self.given_max_length = max_length

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        return self.processor.tokenizer

    @property
    def tokenizer_lock(self) -> RLock:
        """The lock of the tokenizer, which other objects may use too."""
        return find_tokenizer_lock(self.tokenizer)

    @property
    def max_length(self) -> int:
        """The limit of a text in tokens, special ones included."""
        if self.given_max_length is None:
            return self.processor.tokenizer.model_max_length
        return self.given_max_length

    @property
    def padding(self) -> bool | str:
        """The `padding` that the model was trained with: to the full length (SigLIP), or to the longest text."""
        return self.family.padding or get_text_kwargs(self.processor).get("padding", True)

    @property
    def padding_side(self) -> str:
        """The side that the tokenizer was made to pad on, whatever others who use it have set on it since."""
        return self.tokenizer.init_kwargs.get("padding_side", type(self.tokenizer).padding_side)

    @property
    def pads_to_full_length(self) -> bool:
        """Whether texts are padded to the length that the model was trained with: it may read padding too."""
        return self.padding == "max_length"

    @property
    def full_length(self) -> int:
        """The length that such texts are padded to, however few of their tokens are read."""
        model_max_length = self.processor.tokenizer.model_max_length
        if model_max_length >= LARGE_INTEGER:
            return self.max_length
        return max(self.max_length, model_max_length)

    @property
    def resizing(self) -> Resizing | None:
        """How the image processor resizes: see [`read_image`], which decodes large JPEGs at a fraction."""
        return Resizing.of(self.processor.image_processor)

    def in_trained_case(self, texts: Sequence[str]) -> list[str]:
        """Returns texts in lower case where the model knows no other, else as they are."""
        if self.family.is_lower_case:
            return [text.lower() for text in texts]
        return list(texts)

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """
        Tokenizes texts as the model was trained on them. Where these had its full length, padding takes the place
        of what is cut off.

        Args:
            texts (`Sequence[str]`):
                The texts.
            max_length (`int`, *optional*):
                Truncate texts at this many tokens, special ones included. Default: the limit of the object.
        """
        tokenizer = self.processor.tokenizer
        texts = self.in_trained_case(texts)
        # a tokenizer without a limit has a huge one, which Rust cannot hold
        if max_length is None and self.max_length < LARGE_INTEGER:
            max_length = self.max_length
        # what is truncated is counted, and said by the caller
        options = {"truncation": True, "max_length": max_length, "padding_side": self.padding_side, "verbose": False}
        with self.tokenizer_lock:
            if self.pads_to_full_length and self.full_length < LARGE_INTEGER:
                # not in one call, which would truncate and pad at the same length
                encoded = tokenizer(texts, padding=False, **options)
                full_length = max(self.full_length, max_length)
                full = {"padding": "max_length", "max_length": full_length, "padding_side": self.padding_side}
                inputs = pad_without_fast_tokenizer_warning(tokenizer, dict(encoded), return_tensors="pt", **full)
            else:
                inputs = encoded = tokenizer(texts, padding=self.padding, return_tensors="pt", **options)
            if encoded.encodings is not None:
                truncated = [bool(encoding.overflowing) for encoding in encoded.encodings]
            else:
                whole = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
                limit = inputs["input_ids"].shape[1] if max_length is None else max_length
                truncated = [len(ids) > limit for ids in whole]
        return TokenizedTexts(dict(inputs), truncated)

    def find_unknown(self, input_ids: torch.Tensor) -> list[bool]:
        """
        Finds the texts of which the tokenizer knows no word: it has its token of unknown words for them, special
        tokens, punctuation and the prompt of the model alone.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts as [`tokenize`] gives them.

        Returns:
            `list[bool]`: for each text; of a tokenizer without a token of unknown words all false.
        """
        tokenizer = self.tokenizer
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is None or unknown in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            return [False] * len(input_ids)
        has_unknown = (input_ids == unknown).any(dim=1)
        found = has_unknown.tolist()
        if not any(found):
            return found
        special = {unknown, *tokenizer.all_special_ids}
        # of no text there is the prompt of the model, if it has one, whose words may be in a text too
        prompt = Counter(self.tokenize([""]).inputs["input_ids"].flatten().tolist())
        for index in has_unknown.nonzero().flatten().tolist():
            tokens_of_text = Counter(input_ids[index].tolist()) - prompt
            others = tokens_of_text.keys() - special
            # one after another: of most texts the first one is a word
            found[index] = not any(has_letters(tokenizer.convert_ids_to_tokens(token)) for token in others)
        return found

    def tokenize_whole(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """Returns the token ids of whole texts, neither truncated nor padded."""
        with self.tokenizer_lock:
            return self.processor.tokenizer(
                self.in_trained_case(texts), add_special_tokens=add_special_tokens, truncation=False, verbose=False
            )["input_ids"]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counts the tokens of whole texts as they are embedded: special ones and the prompt of the model included."""
        return [len(ids) for ids in self.tokenize_whole(texts)]

    def unpad(self, inputs: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """
        Yields the inputs of each text, of shape `(own_length,)`, without its padding, which [`pad`] adds again.

        Where the model was trained on texts padded to the full length, padding is part of a text and stays.
        """
        mask = torch.ones_like(inputs["input_ids"])
        if not self.pads_to_full_length:
            mask = inputs.get("attention_mask", mask)
        mask = mask.bool()
        for row in range(len(mask)):
            yield {name: values[row, mask[row]] for name, values in inputs.items()}

    def pad(self, texts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Returns texts that [`unpad`] has made, padded to the longest of them: inputs of shape `(texts, length)`."""
        tokenizer = self.processor.tokenizer
        with self.tokenizer_lock:
            options = {"padding_side": self.padding_side, "return_tensors": "pt"}
            return dict(pad_without_fast_tokenizer_warning(tokenizer, list(texts), **options))

    def prepare_images(self, images: Sequence[Image.Image], **options: Any) -> dict[str, torch.Tensor]:
        """
        Returns the inputs of an image tower: `pixel_values` of shape `(images, channels, height, width)`, or
        `(images, patches, values)` and further ones of a model that takes patches.

        Args:
            images (`Sequence[Image.Image]`):
                Upright RGB images, of which [`bound_aspect_ratio`] may leave the middle.
            options (`Any`):
                Options of the image processor, such as `do_resize=False`.
        """
        image_processor = self.processor.image_processor
        images = [bound_aspect_ratio(image, image_processor) for image in images]
        budgets = self.family.patch_budgets
        if not budgets:
            return dict(image_processor(images, return_tensors="pt", **options))
        # each image with as many patches as its own size calls for, whatever images are in its batch
        rows = defaultdict(list)
        for image in images:
            num_patches = (image.width // 16) * (image.height // 16)  # of 16 x 16 pixels, as FG-CLIP 2 has them
            budget = next((budget for budget in budgets if num_patches <= budget), budgets[-1])
            inputs = image_processor([image], max_num_patches=budget, return_tensors="pt")
            for name, tensor in inputs.items():
                rows[name].append(tensor[0])
        return {name: pad_sequence(tensors, batch_first=True) for name, tensors in rows.items()}

    def hash(self) -> str:
        """Returns a hash of the processor, as it is now."""
        with self.tokenizer_lock:  # to save a tokenizer changes how it pads and truncates for a moment
            return hash_processor(self.processor)


def has_letters(token: str) -> bool:
    """Returns whether a token has letters or digits."""
    return any(map(str.isalnum, token))


def warn_of_unknown(num_unknown: int, num_texts: int, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """
    Warns of texts of which a tokenizer knows no word, once for each tokenizer: see
    [`Preprocessing.find_unknown`].

    Args:
        num_unknown (`int`): How many there are.
        num_texts (`int`): Of how many.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        name (`str`): The name of its model, which may be empty.
    """
    if num_unknown == 0 or tokenizer in WARNED_TOKENIZERS:
        return
    WARNED_TOKENIZERS.add(tokenizer)
    logger.warning(
        f"{num_unknown} of {num_texts} texts hold only words that the tokenizer of "
        f"{name or 'this model'} does not know: the model cannot tell them apart. Take one that "
        "knows their language and script."
    )

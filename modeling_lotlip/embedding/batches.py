# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Texts and images to embeddings, by any dual encoder: tokenizing as in training, batches by token number."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from .families import get_padding, in_trained_case
from .features import image_features, text_features
from .lengths import group_by_length
from .models import check_single_embeddings, get_truncate_dim
from .token_wise import is_token_wise


logger = logging.getLogger(__name__)

# Batches of texts in a window, inside which they are sorted by length: the more, the less padding
BATCHES_PER_WINDOW = 64
# Batches that are made ahead of the model
PREFETCHED_BATCHES = 8
TEXTS_PER_CHUNK = 256


def tokenize(
    processor: ProcessorMixin, texts: list[str], max_length: int | None = None, verbose: bool = True
) -> dict[str, torch.Tensor]:
    """
    Tokenizes texts as the model was trained on them: padded to the longest, or to the full length (ALIGN, SigLIP), and
    in lower case where the model knows no other (SigLIP). Longer texts are truncated.

    Args:
        processor (`ProcessorMixin`):
            The model's processor.
        texts (`list[str]`):
            The texts, of any length.
        max_length (`int`, *optional*):
            Truncate at this many tokens; by default at the tokenizer's `model_max_length`.
        verbose (`bool`, *optional*, defaults to `True`):
            Whether LoTLIP's tokenizer says that it truncates.
    """
    return processor.tokenizer(
        in_trained_case(processor, texts),
        padding=get_padding(processor),
        truncation=True,
        max_length=max_length,
        verbose=verbose,
        return_tensors="pt",
    )


def normalize(features: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Features (..., dim) as embeddings: normalised, and before that cut to `truncate_dim` if the model has one."""
    features = features[..., : get_truncate_dim(model)].float()
    return torch.nn.functional.normalize(features, dim=-1).cpu()


@torch.inference_mode()
def embed_texts(model: PreTrainedModel, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """
    Normalised text embeddings (texts, dim) in float32; (texts, length, dim) those of all tokens, zero at padding, if
    the model compares tokens.
    """
    tokens = {name: tensor.to(model.device) for name, tensor in tokens.items()}
    if is_token_wise(model):
        return model.get_text_token_embeds(**tokens).cpu()
    return normalize(text_features(model, tokens), model)


@torch.inference_mode()
def embed_images(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """
    Normalised image embeddings (images, dim) in float32, from what [`prepare_images`] returns; (images, length, dim)
    those of all tokens, if the model compares tokens.
    """
    inputs = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }
    if is_token_wise(model):
        return model.get_image_token_embeds(**inputs).cpu()
    return normalize(image_features(model, inputs), model)


class Unreadable(NamedTuple):
    """A row that is left out."""

    key: Any  # what the caller knows it by
    name: str  # how messages call it
    problem: str  # what is wrong with its image


class Batch(NamedTuple):
    """What the model computes at once."""

    entries: list  # what the caller knows each image or text by
    inputs: dict[str, torch.Tensor]  # of the model
    num_tokens: int = 0  # of texts, without padding
    unreadable: Sequence[Unreadable] = ()  # rows that are left out
    embeds: torch.Tensor | None = None  # (entries, dim), normalised, in float32, once they are computed
    group: Any = None  # of rows, that all of it belongs to: see `embed_rows`


def tokenize_and_count(
    processor: ProcessorMixin, texts: list[str], max_length: int | None, verbose: bool = True
) -> tuple[dict[str, torch.Tensor], list[bool]]:
    """Tokens of texts, padded, and which texts were truncated."""
    tokens = tokenize(processor, texts, max_length, verbose)
    if tokens.encodings is not None:
        return dict(tokens), [bool(encoding.overflowing) for encoding in tokens.encodings]
    whole = processor.tokenizer(in_trained_case(processor, texts), truncation=False, verbose=False)["input_ids"]
    return dict(tokens), [len(ids) > tokens["input_ids"].shape[1] for ids in whole]


def sorted_batches(window: list[tuple], processor: ProcessorMixin, tokens_per_batch: int) -> Iterator[Batch]:
    """Batches of texts, given as pairs of entry and unpadded tokens: the longest first, of like length together."""
    lengths = [len(tokens["input_ids"]) for _, tokens in window]
    for places in group_by_length(lengths, tokens_per_batch, tokens_per_batch):  # as few batches as there can be
        entries, tokens = zip(*(window[place] for place in places))
        inputs = pad_without_fast_tokenizer_warning(processor.tokenizer, list(tokens), return_tensors="pt")
        yield Batch(list(entries), dict(inputs), sum(len(text["input_ids"]) for text in tokens))


def make_batches(batches: Iterable[Batch], processor: ProcessorMixin, tokens_per_batch: int) -> Iterator[Batch]:
    """
    Batches of images as they come, and of texts anew: sorted by length inside a window.

    Args:
        batches (`Iterable[Batch]`):
            Images and padded texts, in order.
        processor (`ProcessorMixin`):
            The model's processor.
        tokens_per_batch (`int`):
            The most tokens in a batch, padding included (a longer text is a batch of its own).
    """
    window = []
    for batch in batches:
        if "input_ids" not in batch.inputs:
            yield batch
            continue
        mask = torch.ones_like(batch.inputs["input_ids"])
        if get_padding(processor) != "max_length":  # else padding is part of the text
            mask = batch.inputs.get("attention_mask", mask)
        mask = mask.bool()
        for text, entry in enumerate(batch.entries):
            window.append((entry, {name: values[text, mask[text]] for name, values in batch.inputs.items()}))
        if sum(len(tokens["input_ids"]) for _, tokens in window) >= BATCHES_PER_WINDOW * tokens_per_batch:
            yield from sorted_batches(window, processor, tokens_per_batch)
            window = []
    yield from sorted_batches(window, processor, tokens_per_batch)


def prefetch(items: Iterator, depth: int = PREFETCHED_BATCHES) -> Iterator:
    """The items of an iterator, which a thread fetches up to `depth` ahead."""
    done = object()
    with ThreadPoolExecutor(max_workers=1) as executor:
        pending = deque(executor.submit(next, items, done) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not done:
                pending.append(executor.submit(next, items, done))
                yield item
        finally:  # whoever stops early waits for one item, not for all that are ahead
            executor.shutdown(cancel_futures=True)


def embed_batch(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The normalised embeddings of a batch in float32: see [`embed_images`] and [`embed_texts`]."""
    return (embed_images if "pixel_values" in batch.inputs else embed_texts)(model, batch.inputs)


def embed_corpus(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    tokens_per_batch: int = 2048,
    max_length: int | None = None,
) -> torch.Tensor:
    """
    Embeds texts of any lengths, with little padding, while the next ones are tokenized.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        texts (`list[str]`):
            The texts, in any order.
        tokens_per_batch (`int`, *optional*, defaults to 2048):
            The most tokens in a batch, padding included.
        max_length (`int`, *optional*):
            Truncate at this many tokens; by default at the tokenizer's `model_max_length`.

    Returns:
        `torch.Tensor` of shape `(num_texts, dim)`: normalised embeddings in float32, in the order of the texts.

    Raises:
        `ValueError`: if there are no texts, or the model compares tokens.

    Example:

    ```python
    >>> from modeling_lotlip.embedding.batches import embed_corpus
    >>> from modeling_lotlip import LotlipConfig, LotlipModel, LotlipProcessor, LotlipImageProcessor, LotlipTokenizer

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 2}, vision_config={"num_hidden_layers": 1}))
    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer())
    >>> embed_corpus(model.eval(), processor, ["a red boat", "A red boat. The sea is calm."]).shape
    torch.Size([2, 768])
    ```"""
    if not texts:
        raise ValueError("`texts` is empty: give at least one text.")
    check_single_embeddings(model)
    embeds, num_truncated = None, 0
    parts = ((start, texts[start : start + TEXTS_PER_CHUNK]) for start in range(0, len(texts), TEXTS_PER_CHUNK))
    tokenized = ((start, tokenize_and_count(processor, part, max_length)) for start, part in parts)
    # an entry is the place of a text, and whether it was truncated
    chunks = (Batch(list(enumerate(truncated, start)), tokens) for start, (tokens, truncated) in tokenized)
    for batch in prefetch(make_batches(chunks, processor, tokens_per_batch)):
        computed = embed_batch(model, batch)
        if embeds is None:
            embeds = computed.new_empty(len(texts), computed.shape[1])
        places, truncated = zip(*batch.entries)
        embeds[list(places)] = computed
        num_truncated += sum(truncated)
    if num_truncated > 0:
        logger.warning(f"{num_truncated} of {len(texts)} texts were truncated.")
    return embeds

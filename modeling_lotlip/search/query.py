# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is searched for, what of it a model reads and knows, and where in an image a sentence is found."""

import re
from bisect import bisect_left
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..encoder.batches import embed_corpus
from ..encoder.features import in_trained_case, prepare_images


class QueryError(ValueError):
    """A mistake in a query; the message says how to mend it."""


class Query(NamedTuple):
    """A text, an image or both."""

    embedding: torch.Tensor  # (dim,): normalised
    words: list[str] = []  # of the text
    num_read: int = 0  # words that are within the model's limit
    unknown_words: list[str] = []  # that the model does not know
    sentences: list[str] = []  # of the text
    sentence_embeds: torch.Tensor | None = None  # (num_sentences, dim): each alone, also beyond the limit
    is_text: bool = False  # whether there is no image: only such a query has weak results

    @property
    def is_truncated(self) -> bool:
        """Whether words are beyond the model's limit."""
        return self.num_read < len(self.words)


def find_unknown_words(processor: ProcessorMixin, text: str) -> list[str]:
    """The different words of which a model knows no part. Raises a `QueryError` if it knows none of them."""
    tokenizer, unknown = processor.tokenizer, {processor.tokenizer.unk_token_id}
    words = list(dict.fromkeys(re.findall(r"\w+", text)))
    texts = in_trained_case(processor, [text, *words])
    ids, *word_ids = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    unknown_words = [word for word, tokens in zip(words, word_ids) if set(tokens) == unknown]
    # a text without words, of signs or emoji, may be all unknown too
    if set(ids) == unknown or (words and unknown_words == words):
        raise QueryError(f"The model knows no word of {text.strip()!r}: describe the image in other words.")
    return unknown_words


def count_read_words(processor: ProcessorMixin, words: list[str], max_length: int | None = None) -> int:
    """How many words of a text are read within a limit in tokens, by default the tokenizer's."""
    limit = processor.tokenizer.model_max_length if max_length is None else max_length

    def is_beyond(num_words: int) -> bool:
        text = in_trained_case(processor, [" ".join(words[:num_words])])
        return len(processor.tokenizer(text, truncation=False, verbose=False)["input_ids"][0]) > limit

    return bisect_left(range(1, len(words) + 1), True, key=is_beyond)


def draw_heat_map(
    model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image, sentence: str, max_length: int | None = None
) -> Image.Image:
    """Where in an image a sentence is found: the part that the model sees, under the relevance of its patches."""
    from ..evaluation.relevance import denormalize, heat_map, patch_relevance  # imports Matplotlib

    inputs = prepare_images(processor, [image])
    text_embeds = embed_corpus(model, processor, [sentence], max_length=max_length)
    relevance = patch_relevance(model, inputs["pixel_values"], text_embeds[None])[0, 0]
    return heat_map(denormalize(processor, inputs["pixel_values"][0]), relevance)

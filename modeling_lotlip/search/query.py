# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is searched for, what of it a model reads and knows, and where in an image a sentence is found."""

import re
from bisect import bisect_left
from typing import NamedTuple

import torch
from PIL import Image

from ..encoder.dual_encoder import DualEncoder
from ..encoder.preprocessing import Preprocessing


class QueryError(ValueError):
    """A mistake in a query; the message says how to mend it."""


class Query(NamedTuple):
    """A text, an image or both."""

    embedding: torch.Tensor  # (dim,): normalized
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


def find_unknown_words(preprocessing: Preprocessing, text: str) -> list[str]:
    """Finds the different words of which a model knows no part. Raises a `QueryError` if it knows none of them."""
    unknown = {preprocessing.tokenizer.unk_token_id}
    words = list(dict.fromkeys(re.findall(r"\w+", text)))
    ids, *word_ids = preprocessing.tokenize_whole([text, *words], add_special_tokens=False)
    unknown_words = [word for word, tokens in zip(words, word_ids) if set(tokens) == unknown]
    # a text without words, of signs or emoji, may be all unknown too, or have no tokens at all
    if set(ids) <= unknown or (words and unknown_words == words):
        raise QueryError(f"The model knows no word of {text.strip()!r}: describe the image in other words.")
    return unknown_words


def count_read_words(preprocessing: Preprocessing, words: list[str]) -> int:
    """Returns how many words of a text are read within the limit of the model."""

    def is_beyond(num_words: int) -> bool:
        (num_tokens,) = preprocessing.count_tokens([" ".join(words[:num_words])])
        return num_tokens > preprocessing.max_length

    # more words have more tokens; the index of the first count that is beyond is the last count that is not
    return bisect_left(range(1, len(words) + 1), True, key=is_beyond)


def draw_heat_map(encoder: DualEncoder, image: Image.Image, sentence: str) -> Image.Image:
    """
    Draws where in an image a sentence is found: the part that the model sees, under the relevance of its patches.
    """
    from ..evaluation.relevance import denormalize, heat_map, patch_relevance  # imports Matplotlib

    inputs = encoder.preprocessing.prepare_images([image])
    text_embeds = encoder.encode_text([sentence], convert_to_tensor=True)
    relevance = patch_relevance(encoder.model, inputs["pixel_values"], text_embeds[None])[0, 0]
    return heat_map(denormalize(encoder.processor, inputs["pixel_values"][0]), relevance)

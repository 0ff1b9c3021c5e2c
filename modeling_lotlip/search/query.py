# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The one way of a search: a description, an image or both become a query, and a table ranks its images for it."""

import importlib.util
import re
from bisect import bisect_left
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import SAFE_FORMATS, Resizing, UnreadableImageError, read_image
from ..embedding.batches import Batch, embed_batch, embed_corpus, embed_texts, tokenize
from ..embedding.families import in_trained_case
from ..embedding.features import prepare_images
from ..embedding.table import EmbeddingTable
from ..sub_captions import join_sub_captions, split_sub_captions
from .filters import ALL_IMAGES, Filter


class QueryError(ValueError):
    """A mistake in a query; the message says how to mend it."""


class Sentence(NamedTuple):
    """A sentence of a query: the part of it that is read within the model's limit, and the part beyond."""

    read: str
    unread: str

    @property
    def text(self) -> str:
        return f"{self.read} {self.unread}".strip()


class Query(NamedTuple):
    """
    What is searched for.

    Args:
        embedding (`torch.Tensor` of shape `(dim,)`):
            Normalised.
        sentences (`list[Sentence]`):
            The sub-captions of its text.
        sentence_embeds (`torch.Tensor` of shape `(num_sentences, dim)`, *optional*):
            The normalised embedding of each sentence alone, also beyond the limit of the whole text.
        unknown_words (`list[str]`):
            The words of its text that the model does not know.
        is_text (`bool`, *optional*, defaults to `False`):
            Whether it is a text alone: only such a query has weak results.
    """

    embedding: torch.Tensor
    sentences: list[Sentence] = []
    sentence_embeds: torch.Tensor | None = None
    unknown_words: list[str] = []
    is_text: bool = False

    @property
    def is_truncated(self) -> bool:
        """Whether words of its text are beyond the model's limit."""
        return any(sentence.unread for sentence in self.sentences)


class Result(NamedTuple):
    """
    An image or caption that was found.

    Args:
        key (`str`):
            The key of the image.
        position (`int`):
            Of a caption, in its column; 0 for an image.
        similarity (`float`):
            The cosine similarity with the query.
        is_weak (`bool`):
            Whether it is no more similar than what texts find that fit no image: see [`Measurements`].
        sentence_similarities (`list[float]`):
            The cosine similarity with each sentence of the query alone.
        copies (`list[Result]`):
            Images that are nearly the same, and less similar to the query.
    """

    key: str
    position: int
    similarity: float
    is_weak: bool = False
    sentence_similarities: list[float] = []
    copies: list["Result"] = []


def choose_splitter() -> str:
    """How the sentences of a query are split by default: at their ends if sentencex is installed."""
    return "paper" if importlib.util.find_spec("sentencex") is None else "sentences"


def find_unknown_words(processor: ProcessorMixin, text: str) -> list[str]:
    """
    The different words of a text of which a model knows no part: its tokenizer has only its unknown token for them.

    Raises:
        `QueryError`: if it knows none of them.
    """
    tokenizer, unknown = processor.tokenizer, {processor.tokenizer.unk_token_id}
    words = list(dict.fromkeys(re.findall(r"\w+", text)))
    texts = in_trained_case(processor, [text, *words])
    ids, *word_ids = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    unknown_words = [word for word, tokens in zip(words, word_ids) if set(tokens) == unknown]
    # a text without words, of signs or emoji, may be all unknown too
    if set(ids) == unknown or (words and unknown_words == words):
        raise QueryError(f"The model knows no word of {text.strip()!r}: describe the image in other words.")
    return unknown_words


def mark_limit(processor: ProcessorMixin, sub_captions: list[str], max_length: int | None = None) -> list[Sentence]:
    """Which words of a text are read, and which are beyond a limit in tokens, by default the tokenizer's."""
    limit = processor.tokenizer.model_max_length if max_length is None else max_length
    words = join_sub_captions(sub_captions).split()

    def is_beyond(num_words: int) -> bool:
        text = in_trained_case(processor, [" ".join(words[:num_words])])
        return len(processor.tokenizer(text, truncation=False, verbose=False)["input_ids"][0]) > limit

    num_read = bisect_left(range(1, len(words) + 1), True, key=is_beyond)
    sentences = []
    for sub_caption in sub_captions:
        words = sub_caption.split()
        sentences.append(Sentence(" ".join(words[:num_read]), " ".join(words[num_read:])))
        num_read = max(0, num_read - len(words))
    return sentences


def read_query_image(path: str, resizing: Resizing | None = None) -> Image.Image:
    """The image in a file: see [`read_image`]. Raises a `QueryError` if there is none."""
    try:
        return read_image({"path": path, "bytes": None}, resizing=resizing, formats=SAFE_FORMATS)
    except UnreadableImageError as error:
        reason = str(error).rstrip(".")
        raise QueryError(f"This file is not an image that can be read: {reason}. Choose another one.") from error


def embed_image(model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image) -> torch.Tensor:
    """The normalised embedding (dim,) of an image."""
    return embed_batch(model, Batch([0], prepare_images(processor, [image])))[0]


def embed_query(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    text: str,
    image: Image.Image | None = None,
    max_length: int | None = None,
    splitter: str = "paper",
) -> Query:
    """
    Embeds a description, an image, or both.

    Args:
        model (`PreTrainedModel`), processor (`ProcessorMixin`):
            A dual encoder and its processor.
        text (`str`):
            The description, which may be empty if there is an image. Several sub-captions are joined, as long
            captions in evaluation.
        image (`Image.Image`, *optional*):
            The image. With a description the query is the mean of both normalised embeddings, normalised.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Raises:
        `QueryError`: if there is neither, or a text of which the model knows no word.
    """
    sub_captions = split_sub_captions(text, splitter)
    embeds, sentences, sentence_embeds, unknown_words = [], [], None, []
    if sub_captions:
        unknown_words = find_unknown_words(processor, text)
        whole = join_sub_captions(sub_captions) if len(sub_captions) > 1 else text.strip()
        embeds.append(embed_texts(model, tokenize(processor, [whole], max_length))[0])
        sentences = mark_limit(processor, sub_captions, max_length)
        sentence_embeds = embed_corpus(model, processor, sub_captions, max_length=max_length)
    if image is not None:
        embeds.append(embed_image(model, processor, image))
    if not embeds:
        raise QueryError("There is nothing to search for yet: describe an image, choose one, or both.")
    embedding = torch.nn.functional.normalize(torch.stack(embeds).mean(dim=0), dim=0)
    return Query(embedding, sentences, sentence_embeds, unknown_words, is_text=image is None)


def search_table(
    table: EmbeddingTable,
    query: Query,
    k: int,
    chosen: Filter = ALL_IMAGES,
    kind: str = "image",
    all_copies: bool = False,
) -> list[Result]:
    """
    The images or captions that are most similar to a query, and how similar each is to its sentences.

    Args:
        table (`EmbeddingTable`):
            The collection.
        query (`Query`):
            The query.
        k (`int`):
            How many results, at most.
        chosen ([`Filter`], *optional*):
            Which images are searched. Default: all.
        kind (`str`, *optional*, defaults to `"image"`):
            What is searched: `"image"`, `"short"` or `"long"`.
        all_copies (`bool`, *optional*, defaults to `False`):
            Whether images that are nearly the same are separate results, and not copies of the most similar one.
    """
    if all_copies:
        found = table.search(query.embedding, k, kind, chosen.condition)
        groups = [found.take([place]) for place in range(len(found.keys))]
    else:
        groups = table.search_groups(query.embedding, k, kind, chosen.condition)
    measured, results = table.measured(kind), []
    threshold = measured.score_threshold if query.is_text and measured is not None else -1.0
    for group in groups:
        first, *copies = map(Result, group.keys, group.positions, group.similarities.tolist())
        alone = (query.sentence_embeds @ group.embeds[0]).tolist() if query.sentences else []
        is_weak = first.similarity < threshold
        results.append(first._replace(is_weak=is_weak, sentence_similarities=alone, copies=copies))
    return results


def draw_heat_map(
    model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image, sentence: str, max_length: int | None = None
) -> Image.Image:
    """Where in an image a sentence is found: the part that the model sees, under the relevance of its patches."""
    from ..evaluation.relevance import denormalize, heat_map, patch_relevance  # imports Matplotlib

    inputs = prepare_images(processor, [image])
    text_embeds = embed_corpus(model, processor, [sentence], max_length=max_length)
    relevance = patch_relevance(model, inputs["pixel_values"], text_embeds[None])[0, 0]
    return heat_map(denormalize(processor, inputs["pixel_values"][0]), relevance)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is searched for in an index, what is found, and how well it fits each sentence of the query."""

import importlib.util
import re
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
from .filters import EVERYTHING, Filter


class QueryError(ValueError):
    """What is wrong with what was asked, in words for whoever asked."""


class Sentence(NamedTuple):
    """A sentence of a query: the part of it that is read within the model's limit, and the part beyond."""

    read: str
    unread: str

    @property
    def text(self) -> str:
        return f"{self.read} {self.unread}".strip()


def choose_splitter() -> str:
    """How the sentences of a query are split by default: at their ends if sentencex is installed."""
    return "paper" if importlib.util.find_spec("sentencex") is None else "sentences"


def find_words(text: str) -> list[str]:
    """The different words of a text, in their order."""
    return list(dict.fromkeys(re.findall(r"\w+", text)))


def find_unknown_words(processor: ProcessorMixin, text: str) -> list[str]:
    """
    The words of a text of which a model knows no part: its tokenizer has nothing but its unknown token for them.

    Example:

    ```python
    >>> from modeling_lotlip.search.query import find_unknown_words
    >>> from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer

    >>> tokenizer = LotlipTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "sea": 5})
    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)
    >>> find_unknown_words(processor, "The sea. The shore")
    ['The', 'shore']
    ```"""
    unknown = processor.tokenizer.unk_token_id
    words = find_words(text)
    if unknown is None or not words:
        return []
    tokens = processor.tokenizer(
        in_trained_case(processor, words), add_special_tokens=False, truncation=False, verbose=False
    )["input_ids"]
    return [word for word, ids in zip(words, tokens) if ids and set(ids) == {unknown}]


def check_words(processor: ProcessorMixin, text: str) -> list[str]:
    """
    The words of a text that a model does not know: see [`find_unknown_words`].

    Raises:
        `QueryError`: if it knows none of them.
    """
    unknown, tokenizer = find_unknown_words(processor, text), processor.tokenizer
    ids = tokenizer(in_trained_case(processor, [text]), add_special_tokens=False, truncation=False, verbose=False)
    # a text without words, of signs or emoji, may be all unknown too
    if set(ids["input_ids"][0]) == {tokenizer.unk_token_id} or (unknown and unknown == find_words(text)):
        raise QueryError(f"The model knows no word of {text.strip()!r}: describe the picture in other words.")
    return unknown


class Query(NamedTuple):
    """
    What is searched for.

    Args:
        embedding (`torch.Tensor` of shape `(dim,)`):
            Normalised.
        sentences (`list[Sentence]`):
            The sub-captions of its text.
        sentence_embeds (`torch.Tensor` of shape `(num_sentences, dim)`):
            Those of each of them alone, also of what is beyond the limit of the whole text, normalised.
        unknown_words (`list[str]`, *optional*):
            The words of its text that the model does not know.
        is_text (`bool`, *optional*, defaults to `False`):
            Whether it is a text alone: of pictures nothing is known that would be weak.
    """

    embedding: torch.Tensor
    sentences: list[Sentence]
    sentence_embeds: torch.Tensor
    unknown_words: list[str] = []
    is_text: bool = False


class Copy(NamedTuple):
    """
    A picture that looks like another one that was found.

    Args:
        name (`str`):
            Its name.
        similarity (`float`):
            The cosine similarity with the query.
    """

    name: str
    similarity: float


class Result(NamedTuple):
    """
    A picture that was found.

    Args:
        name (`str`):
            Its name.
        similarity (`float`):
            The cosine similarity with the query.
        sentence_similarities (`list[float]`):
            The cosine similarities with each of its sentences alone.
        is_weak (`bool`, *optional*, defaults to `False`):
            Whether it is no more similar than what texts find that fit no picture: see [`Measurements`].
        copies (`list[Copy]`, *optional*):
            Images that are less similar to the query and nearly the same.
        position (`int`, *optional*, defaults to 0):
            Of a caption, in its column.
    """

    name: str
    similarity: float
    sentence_similarities: list[float]
    is_weak: bool = False
    copies: list[Copy] = []
    position: int = 0


def mark_limit(processor: ProcessorMixin, sub_captions: list[str], max_length: int | None = None) -> list[Sentence]:
    """
    Which words of a text are read, and which are beyond the limit of the model.

    Args:
        processor (`ProcessorMixin`):
            The model's processor.
        sub_captions (`list[str]`):
            The sub-captions of the text.
        max_length (`int`, *optional*):
            The limit in tokens; by default the tokenizer's `model_max_length`.

    Example:

    ```python
    >>> from modeling_lotlip.search.query import mark_limit
    >>> from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer

    >>> tokenizer = LotlipTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "sea": 5})
    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)
    >>> mark_limit(processor, ["a calm sea", "a red boat"], max_length=7)
    [Sentence(read='a calm sea', unread=''), Sentence(read='a', unread='red boat')]
    ```"""
    limit = processor.tokenizer.model_max_length if max_length is None else max_length
    words = join_sub_captions(sub_captions).split()

    def is_read(num_words: int) -> bool:
        text = in_trained_case(processor, [" ".join(words[:num_words])])
        return len(processor.tokenizer(text, truncation=False, verbose=False)["input_ids"][0]) <= limit

    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_read(middle) else (low, middle - 1)
    sentences = []
    for sub_caption in sub_captions:
        own = sub_caption.split()
        sentences.append(Sentence(" ".join(own[: max(low, 0)]), " ".join(own[max(low, 0) :])))
        low -= len(own)
    return sentences


def read_query_image(path: str, resizing: Resizing | None = None) -> Image.Image:
    """The picture in a file, as a model needs it: see [`read_image`]. Raises a `QueryError` if there is none."""
    try:
        return read_image({"path": path, "bytes": None}, resizing=resizing, formats=SAFE_FORMATS)
    except UnreadableImageError as error:
        reason = str(error).rstrip(".")
        raise QueryError(f"This file is not a picture that can be read: {reason}. Choose another one.") from error


def embed_image(model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image) -> torch.Tensor:
    """The normalised embedding (dim,) of a picture."""
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
    Embeds a description, a picture, or both.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        text (`str`):
            The description, which may be empty if there is a picture. Several sub-captions are joined, as long
            captions in evaluation.
        image (`Image.Image`, *optional*):
            The picture. With a description the query is the mean of both normalised embeddings, normalised.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Raises:
        `QueryError`: if there is neither, or a text of which the model knows no word.
    """
    sub_captions = split_sub_captions(text, splitter)
    embeds, sentences, sentence_embeds, unknown = [], [], torch.empty(0, 0), []
    if sub_captions:
        unknown = check_words(processor, text)
        whole = join_sub_captions(sub_captions) if len(sub_captions) > 1 else text.strip()
        embeds.append(embed_texts(model, tokenize(processor, [whole], max_length))[0])
        sentences = mark_limit(processor, sub_captions, max_length)
        sentence_embeds = embed_corpus(model, processor, sub_captions, max_length=max_length)
    if image is not None:
        embeds.append(embed_image(model, processor, image))
    if not embeds:
        raise QueryError("There is nothing to search for yet: describe a picture, choose one, or both.")
    embedding = torch.nn.functional.normalize(torch.stack(embeds).mean(dim=0), dim=0)
    return Query(embedding, sentences, sentence_embeds, unknown, is_text=image is None)


def search_table(
    table: EmbeddingTable,
    query: Query,
    k: int,
    those: Filter = EVERYTHING,
    are_copies_together: bool = True,
    kind: str = "image",
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
        those ([`Filter`], *optional*):
            Which images are searched.
        are_copies_together (`bool`, *optional*, defaults to `True`):
            Whether images that are nearly the same are one result: the most similar one to the query.
        kind (`str`, *optional*, defaults to `"image"`):
            What is searched: `"image"`, `"short"` or `"long"`.
    """
    if are_copies_together:
        groups = table.search_groups(query.embedding, k, kind, those.condition)
    else:
        found = table.search(query.embedding, k, kind, those.condition)
        groups = [found.take([place]) for place in range(len(found.keys))]
    measured, results = table.measured(kind), []
    threshold = measured.score_threshold if query.is_text and measured is not None else -1.0
    for group in groups:
        of_sentences = (query.sentence_embeds @ group.embeds[0]).tolist() if len(query.sentence_embeds) else []
        hits = [Copy(*hit) for hit in zip(group.keys, group.similarities.tolist())]
        first = hits[0]
        results.append(
            Result(
                first.name, first.similarity, of_sentences, first.similarity < threshold, hits[1:], group.positions[0]
            )
        )
    return results


def draw_heat_map(
    model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image, sentence: str, max_length: int | None = None
) -> Image.Image:
    """
    Where in a picture a sentence is found: the part that the model sees, under the relevance of its patches.
    """
    from ..evaluation.relevance import denormalize, heat_map, patch_relevance  # imports Matplotlib

    inputs = prepare_images(processor, [image])
    text_embeds = embed_corpus(model, processor, [sentence], max_length=max_length)
    relevance = patch_relevance(model, inputs["pixel_values"], text_embeds[None])[0, 0]
    return heat_map(denormalize(processor, inputs["pixel_values"][0]), relevance)

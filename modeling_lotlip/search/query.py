# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What is searched for in an index, what is found, and how well it fits each sentence of the query."""

import importlib.util
import re
from importlib import resources
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import SAFE_FORMATS, Resizing, UnreadableImageError, read_image
from ..embedding.batches import Batch, embed_batch, embed_corpus, embed_images, embed_texts, tokenize
from ..embedding.families import in_trained_case
from ..embedding.features import prepare_images
from ..embedding.token_wise import is_token_wise
from ..sub_captions import join_sub_captions, split_sub_captions
from .filters import EVERYTHING, Filter
from .index import ROUNDING, Found, Index


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
            Normalised; of a model that compares tokens those of all of them, (tokens, dim).
        sentences (`list[Sentence]`):
            The sub-captions of its text.
        sentence_embeds (`torch.Tensor` of shape `(num_sentences, dim)`):
            Those of each of them alone, also of what is beyond the limit of the whole text, normalised. None of a
            model that compares tokens, (0, 0).
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
            The cosine similarity with the query; of tokens see [`Index.search`].
        sentence_similarities (`list[float]`):
            The cosine similarities with each of its sentences alone.
        is_weak (`bool`, *optional*, defaults to `False`):
            Whether it is no more similar than what texts find that fit no picture: see [`Levels`].
        copies (`list[Copy]`, *optional*):
            Pictures that are less similar to the query and nearly the same.
    """

    name: str
    similarity: float
    sentence_similarities: list[float]
    is_weak: bool = False
    copies: list[Copy] = []


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
            The picture. With a description the query is the mean of both normalised embeddings, normalised; a model
            that compares tokens takes one of the two.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Raises:
        `QueryError`: if there is neither, both for a model that compares tokens, or a text of which the model knows no
            word.
    """
    sub_captions = split_sub_captions(text, splitter)
    embeds, sentences, sentence_embeds, unknown = [], [], torch.empty(0, 0), []
    compares_tokens = is_token_wise(model)
    if compares_tokens and sub_captions and image is not None:
        raise QueryError("The model compares tokens: search by a description or by a picture, not by both at once.")
    if sub_captions:
        unknown = check_words(processor, text)
        whole = join_sub_captions(sub_captions) if len(sub_captions) > 1 else text.strip()
        embeds.append(embed_texts(model, tokenize(processor, [whole], max_length))[0])
        sentences = mark_limit(processor, sub_captions, max_length)
        if not compares_tokens:
            sentence_embeds = embed_corpus(model, processor, sub_captions, max_length=max_length)
    if image is not None:
        embeds.append(embed_images(model, prepare_images(processor, [image]))[0])
    if not embeds:
        raise QueryError("There is nothing to search for yet: describe a picture, choose one, or both.")
    if compares_tokens:
        return Query(embeds[0], sentences, sentence_embeds, unknown, is_text=image is None)
    embedding = torch.nn.functional.normalize(torch.stack(embeds).mean(dim=0), dim=0)
    return Query(embedding, sentences, sentence_embeds, unknown, is_text=image is None)


def embed_background(model: PreTrainedModel, processor: ProcessorMixin) -> torch.Tensor:
    """The normalised embeddings (num_texts, dim) of texts that fit no picture, by which a search knows its line."""
    texts = resources.files("modeling_lotlip.embedding").joinpath("background_texts.txt").read_text(encoding="utf-8")
    return embed_corpus(model, processor, texts.splitlines()).float().cpu()


def group_copies(embeds: torch.Tensor, least: float, k: int) -> list[list[int]]:
    """
    Pictures that are nearly the same, together. Each group is of those that are alike to its first picture.

    Args:
        embeds (`torch.Tensor` of shape `(num_pictures, dim)`):
            Normalised.
        least (`float`):
            The cosine similarity from which on two are alike.
        k (`int`):
            How many groups are made, at most.

    Returns:
        `list[list[int]]`: their rows, in order.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.search.query import group_copies

    >>> group_copies(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]]), least=0.9, k=2)
    [[0], [1, 2]]
    ```"""
    groups, is_free = [], torch.ones(len(embeds), dtype=torch.bool)
    while len(groups) < k and is_free.any():
        first = int(is_free.int().argmax())
        alike = is_free & (embeds @ embeds[first] >= least - ROUNDING)
        alike[first] = True
        groups.append(alike.nonzero()[:, 0].tolist())
        is_free &= ~alike
    return groups


def find_groups(
    index: Index, embedding: torch.Tensor, k: int, those: Filter, are_copies_together: bool
) -> tuple[Found, list[list[int]]]:
    """What is found, and its rows in groups: see [`search_index`]."""
    levels, limit = index.levels, k
    if levels is None or not are_copies_together:
        found = index.search(embedding, k, those)
        return found, [[row] for row in range(len(found.names))]
    while True:
        limit *= 2
        found = index.search(embedding, limit, those)
        groups = group_copies(found.embeds, levels.copy, k)
        if len(groups) == k or len(found.names) < limit:
            return found, groups


def search_index(
    index: Index, query: Query, k: int, those: Filter = EVERYTHING, are_copies_together: bool = True
) -> list[Result]:
    """
    The pictures that are most similar to a query, and how similar each is to its sentences.

    Args:
        index (`Index`):
            The collection.
        query (`Query`):
            The query.
        k (`int`):
            How many pictures, at most.
        those ([`Filter`], *optional*):
            Which pictures are searched.
        are_copies_together (`bool`, *optional*, defaults to `True`):
            Whether pictures that are nearly the same are one result: the most similar one to the query. Of those that
            are much less similar to the query not all may be counted.
    """
    found, groups = find_groups(index, query.embedding, k, those, are_copies_together)
    levels = index.levels
    line = levels.line if query.is_text and levels is not None else -1.0
    of_sentences = torch.empty(len(groups), 0)
    if len(query.sentence_embeds):
        of_sentences = found.embeds[[group[0] for group in groups]] @ query.sentence_embeds.t()
    pictures = [Copy(*picture) for picture in zip(found.names, found.similarities.tolist())]
    results = []
    for group, own in zip(groups, of_sentences.tolist()):
        (name, similarity), *copies = [pictures[place] for place in group]
        results.append(Result(name, similarity, own, similarity < line, copies))
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

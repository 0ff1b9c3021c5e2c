# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Search in a collection of pictures: an index on disk that follows the files, and how well a picture fits each sentence
of a query. `search_app.py` makes a page of it.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute
import torch
from data.loading import UnreadableImageError, fingerprint_of, load_split, read_image, undecoded
from data.storage import hash_weights, open_shards, read_embeddings, write_table
from datasets import Dataset
from datasets.fingerprint import Hasher
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from embed_dataset import Entry, write_shard
from embedding import (
    Batch,
    embed_batch,
    embed_corpus,
    embed_texts,
    in_trained_case,
    prefetch,
    tokenize,
    tokenize_and_count,
)
from evaluate_retrieval import write_json
from PIL import Image
from pyarrow import parquet
from relevance import patch_relevance, sub_caption_directions
from search_embeddings import build_faiss_index, check_model, query_faiss_index, search
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin
from visualize import heat_map, seen_picture
from zero_shot_classification import embed_classes

from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions


# Pictures in a file of an index: what a stopped run loses at most
SHARD_SIZE = 512
# Of a larger collection so many pictures, drawn at random, stand for all where a sentence is judged
NUM_REFERENCES = 20_000
# A sentence counts as satisfied if the picture fits it better than this share of the others
SATISFIED = 0.9
# How pictures are scored on a sentence, in words that go on "each bar says ..."
SENTENCE_SCORES = {
    "alone": "how well it fits one sentence alone",
    "left_out": "how much of its similarity with the whole text it owes to one sentence",
}
# Similarities that differ by less are equal: sums of the same numbers in another order
ROUNDING = 1e-6


class QueryError(ValueError):
    """What is wrong with what was asked, in words for whoever asked."""


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def stamp_of(path: str) -> str:
    """What changes when a file does."""
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


class PictureFolder:
    """
    The pictures in a folder and all folders in it, named by their paths from there. Hidden files are left out.

    Args:
        folder (`Path`):
            The folder.

    Raises:
        `ValueError`: if there is no such folder.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise ValueError(f"`--images {folder}` is no folder: name the folder of your pictures.")
        self.folder = folder
        self.others = Counter()

    def scan(self) -> dict[str, str]:
        """By name a stamp that changes when the file does. `others` then counts the other files by their endings."""
        if not self.folder.is_dir():
            raise QueryError(f"The folder {self.folder} is not there any more. What was indexed is kept.")
        stamps, self.others = {}, Counter()
        for parent, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(file for file in files if not file.startswith(".")):
                path = os.path.join(parent, file)
                ending = os.path.splitext(file)[1].lower()
                if ending not in ImageFolder.EXTENSIONS:
                    self.others[ending or "without an ending"] += 1
                    continue
                try:
                    stamps[os.path.relpath(path, self.folder)] = stamp_of(path)
                except FileNotFoundError:  # a link to nowhere, or just deleted
                    self.others["without a file behind it"] += 1
        return stamps

    def read(self, name: str) -> Image.Image:
        """The picture of a name. Raises an `UnreadableImageError` if it cannot be read."""
        return read_image({"path": str(self.folder / name), "bytes": None})


class PictureRows:
    """
    The pictures of a data set, named by the numbers of their rows or by a column.

    Args:
        dataset (`Dataset`):
            The data set.
        image_column (`str`):
            The column of the pictures.
        id_column (`str`, *optional*):
            The column of their names.

    Raises:
        `ValueError`: if the data set is streamed, so that no row can be shown.
    """

    others = Counter()

    def __init__(self, dataset: Dataset, image_column: str, id_column: str | None = None):
        if not isinstance(dataset, Dataset):
            raise ValueError("Rows of streamed data cannot be shown: leave out `--streaming`.")
        self.fingerprint = fingerprint_of(dataset)
        names = range(len(dataset)) if id_column is None else dataset[id_column]
        self.rows = {str(name): row for row, name in enumerate(names)}
        self.dataset = undecoded(dataset.select_columns(image_column), image_column)
        self.image_column = image_column

    def scan(self) -> dict[str, str]:
        """By name a stamp: that of the file, or of the whole data set if that holds the pictures itself."""
        paths = []
        for table in self.dataset.with_format("arrow").iter(batch_size=1000):
            column = table[self.image_column].combine_chunks()
            paths += pa.compute.if_else(column.field("bytes").is_null(), column.field("path"), None).to_pylist()
        return {
            name: stamp_of(paths[row]) if paths[row] and os.path.exists(paths[row]) else f"{self.fingerprint} {row}"
            for name, row in self.rows.items()
        }

    def read(self, name: str) -> Image.Image:
        """The picture of a name. Raises an `UnreadableImageError` if it cannot be read."""
        file = self.dataset[self.rows[name]][self.image_column]
        if file is None:
            raise UnreadableImageError("there is none")
        return read_image(file)


def pictures_of(args: argparse.Namespace) -> PictureFolder | PictureRows:
    """The pictures that the arguments name."""
    if args.images is not None:
        return PictureFolder(args.images)
    id_column = None
    if args.embeddings_dir is not None:
        settings = json.loads((args.embeddings_dir / "settings.json").read_text(encoding="utf-8"))
        args = argparse.Namespace(**(vars(args) | settings))
        id_column = args.id_column
    return PictureRows(load_split(args, args.eval_split, args.max_eval_samples), args.image_column, id_column)


# ---------------------------------------------------------------------------------------------------------------------
# The index


class Index(NamedTuple):
    """
    The embeddings of a collection.

    Args:
        names (`list[str]`):
            The pictures.
        embeds (`torch.Tensor` of shape `(num_pictures, dim)`):
            Their normalised embeddings.
        unreadable (`dict[str, str]`, *optional*):
            By name what is wrong with pictures that cannot be read.
        faiss (`Dataset`, *optional*):
            An approximate index of the embeddings.
    """

    names: list[str]
    embeds: torch.Tensor
    unreadable: dict[str, str] = {}
    faiss: Dataset | None = None

    def with_faiss(self, string_factory: str) -> "Index":
        """The same with an approximate index."""
        return self._replace(faiss=build_faiss_index([self.embeds], string_factory) if self.names else None)


EMPTY = Index([], torch.empty(0, 0))


class Changes(NamedTuple):
    """How many pictures an update embedded for the first time or again, and dropped."""

    new: int
    changed: int
    deleted: int


def load_embeddings(folder: Path) -> Index:
    """The images in a folder of `embed_dataset.py`."""
    shards = open_shards(folder).to_table(columns=["id"], filter=pa.compute.field("kind") == "image")
    if len(shards) == 0:
        raise ValueError(
            f"`--embeddings_dir {folder}` holds no embeddings of images: make them without `--only texts`."
        )
    return Index([str(name) for name in shards["id"].to_pylist()], torch.cat(list(read_embeddings(folder, "image"))))


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """A shard of embeddings, and the list of what it is of."""
    return folder / f"embeddings-{number:06d}.parquet", folder / f"pictures-{number:06d}.json"


def read_lists(folder: Path) -> dict[int, dict[str, list]]:
    """By the number of each shard, and by the name of each picture in it, its stamp and what is wrong with it."""
    numbers = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("embeddings-*.parquet"))
    return {number: json.loads(shard_paths(folder, number)[1].read_text(encoding="utf-8")) for number in numbers}


def drop_stale(folder: Path, stamps: dict[str, str]) -> Changes:
    """
    Drops pictures that are no longer there or have changed, from an index on disk.

    A run that is stopped in between loses nothing: the list of a shard is written first, and embeddings that it does
    not list are dropped as well.
    """
    changed, deleted = 0, 0
    for number, listed in read_lists(folder).items():
        path, list_path = shard_paths(folder, number)
        kept = {name: record for name, record in listed.items() if stamps.get(name) == record[0]}
        changed += sum(name in stamps and name not in kept for name in listed)
        deleted += sum(name not in stamps for name in listed)
        if len(kept) < len(listed):
            write_json(list_path, kept)
        is_kept = [name in kept for name in parquet.read_table(path, columns=["id"])["id"].to_pylist()]
        if not kept:
            path.unlink()
            list_path.unlink()
        elif not all(is_kept):
            write_table(path, parquet.read_table(path).filter(pa.array(is_kept)))
    return Changes(0, changed, deleted)


def read_batches(
    pictures: PictureFolder | PictureRows, names: list[str], processor: ProcessorMixin, batch_size: int
) -> Iterator[tuple[Batch | None, dict[str, str]]]:
    """Preprocessed pictures, in batches with their names for entries, and what is wrong with those left out."""
    for start in range(0, len(names), batch_size):
        good, images, wrong = [], [], {}
        for name in names[start : start + batch_size]:
            try:
                images.append(pictures.read(name))
                good.append(name)
            except UnreadableImageError as error:
                wrong[name] = str(error)
        inputs = dict(processor.image_processor(images, return_tensors="pt")) if images else None
        yield (Batch(good, inputs) if images else None), wrong


def update_index(
    folder: Path,
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch_size: int = 64,
    report: Callable[[int, int], bool | None] = lambda done, total: None,
    lock: AbstractContextManager | None = None,
) -> Changes:
    """
    Makes an index on disk that of a collection as it is now: what is new is embedded, what is gone dropped, and what
    has changed embedded again. What cannot be read is remembered, and tried again when its file changes.

    The folder is one of `embed_dataset.py`, with a list of pictures beside each file. It must be of one model.

    Args:
        folder (`Path`):
            Where the index is, or will be.
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures in a batch.
        report (`Callable[[int, int], bool | None]`, *optional*):
            Called with how many pictures are done and how many there are to do; what it returns, if true, stops the
            update with the pictures so far.
        lock (`AbstractContextManager`, *optional*):
            Entered while the model computes.

    Returns:
        `Changes`: what has changed. [`load_index`] reads the index.
    """
    lock = nullcontext() if lock is None else lock
    folder.mkdir(parents=True, exist_ok=True)
    stamps = pictures.scan()
    changes = drop_stale(folder, stamps)
    known = read_lists(folder)
    pending = sorted(stamps.keys() - {name for listed in known.values() for name in listed})
    changes = changes._replace(new=len(pending) - changes.changed)
    first, done = max(known, default=-1) + 1, 0
    with lock:
        dim = embed_texts(model, tokenize(processor, ["a"])).shape[-1]
    is_stopped = report(0, len(pending))
    for number, start in enumerate(range(0, len(pending), SHARD_SIZE), start=first):
        names, entries, embeds, wrong = pending[start : start + SHARD_SIZE], [], [torch.empty(0, dim)], {}
        for batch, wrong_in_batch in prefetch(read_batches(pictures, names, processor, batch_size), depth=2):
            if is_stopped:
                break
            if batch is not None:
                with lock:
                    embeds.append(embed_batch(model, batch))
                first_row = len(entries)
                entries += [
                    Entry(first_row + row, 0, name, "image", 0, False) for row, name in enumerate(batch.entries)
                ]
            wrong |= wrong_in_batch
            done = start + len(entries) + len(wrong)
            is_stopped = report(done, len(pending))
        path, list_path = shard_paths(folder, number)
        listed = [entry.id for entry in entries] + list(wrong)
        if listed:
            write_json(list_path, {name: [stamps[name], wrong.get(name)] for name in listed})
            write_shard(path, entries, torch.cat(embeds), pa.string(), "float32")
        if is_stopped:
            break
    return changes


def load_index(folder: Path) -> Index:
    """What [`update_index`] left in a folder."""
    lists = read_lists(folder)
    if not lists:
        return EMPTY
    unreadable = {name: error for listed in lists.values() for name, (_, error) in listed.items() if error is not None}
    names = open_shards(folder).to_table(columns=["id"])["id"].to_pylist()
    embeds = list(read_embeddings(folder, "image"))
    return Index(names, torch.cat(embeds) if embeds else torch.empty(0, 0), unreadable)


# ---------------------------------------------------------------------------------------------------------------------
# Queries


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
        sentence_embeds (`torch.Tensor` of shape `(num_sentences, dim)`):
            What a picture's embedding is multiplied with for its score on each of them; zero where there is none.
    """

    embedding: torch.Tensor
    sentences: list[Sentence]
    sentence_embeds: torch.Tensor


class Result(NamedTuple):
    """
    A picture that was found.

    Args:
        name (`str`):
            Its name.
        similarity (`float`):
            The cosine similarity with the query.
        fits (`list[float | None]`):
            For each sentence the share of the other pictures with a lower score. None if there are no others, or the
            sentence is not read and scored by leaving it out.
    """

    name: str
    similarity: float
    fits: list[float | None]


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
    >>> from image_search import mark_limit
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


def read_query_image(path: str) -> Image.Image:
    """The picture in a file. Raises a `QueryError` if there is none."""
    try:
        return read_image({"path": path, "bytes": None})
    except UnreadableImageError as error:
        raise QueryError("This file is not a picture that can be read. Choose another one.") from error


def embed_image(model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image) -> torch.Tensor:
    """The normalised embedding (dim,) of a picture."""
    return embed_batch(model, Batch([0], dict(processor.image_processor([image], return_tensors="pt"))))[0]


def embed_sentences(
    model: PreTrainedModel, processor: ProcessorMixin, sentences: list[Sentence], score: str, max_length: int | None
) -> torch.Tensor:
    """
    What the embedding of a picture is multiplied with for its score on each sentence: (num_sentences, dim)

    With `score="alone"` it is the embedding of the sentence alone, normalised. With `"left_out"` it is what the
    sentence adds to the text, as far as that is read ([`sub_caption_directions`]), so that the score is what the
    similarity loses without it; zero for a sentence that is not read. Of a single sentence nothing can be left out.
    """
    read = [sentence.read for sentence in sentences if sentence.read]
    if score == "alone" or len(read) < 2:
        return embed_corpus(model, processor, [sentence.text for sentence in sentences], max_length=max_length)
    directions = sub_caption_directions(model, processor, read, max_length)
    return torch.nn.functional.pad(directions, (0, 0, 0, len(sentences) - len(read)))


def embed_query(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    text: str,
    image: Image.Image | None = None,
    sentence_score: str = "alone",
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
        sentence_score (`str`, *optional*, defaults to `"alone"`):
            How pictures are scored on each sentence, a key of `SENTENCE_SCORES`; see [`embed_sentences`].
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Raises:
        `QueryError`: if there is neither.
    """
    sub_captions = split_sub_captions(text, splitter)
    embeds, sentences, sentence_embeds = [], [], torch.empty(0, 0)
    if sub_captions:
        whole = join_sub_captions(sub_captions) if len(sub_captions) > 1 else text.strip()
        embeds.append(embed_corpus(model, processor, [whole], max_length=max_length)[0])
        sentences = mark_limit(processor, sub_captions, max_length)
        sentence_embeds = embed_sentences(model, processor, sentences, sentence_score, max_length)
    if image is not None:
        embeds.append(embed_image(model, processor, image))
    if not embeds:
        raise QueryError("There is nothing to search for yet: describe a picture, choose one, or both.")
    embedding = torch.nn.functional.normalize(torch.stack(embeds).mean(dim=0), dim=0)
    return Query(embedding, sentences, sentence_embeds)


def percentiles(similarities: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """
    How high similarities are among those of the whole collection: the share of the others that is lower.

    Args:
        similarities (`torch.Tensor` of shape `(num_pictures, num_sentences)`):
            Those of some pictures of the collection.
        references (`torch.Tensor` of shape `(num_references, num_sentences)`):
            Those of all pictures, or of a sample.

    Returns:
        `torch.Tensor` of shape `(num_pictures, num_sentences)`: from 0 to 1; NaN if there is no other picture.

    Example:

    ```python
    >>> import torch
    >>> from image_search import percentiles

    >>> references = torch.tensor([[0.1], [0.4], [0.2], [0.2], [0.3]])
    >>> percentiles(torch.tensor([[0.4], [0.2]]), references)
    tensor([[1.0000],
            [0.2500]])
    ```"""
    if len(references) < 2:
        return torch.full_like(similarities, torch.nan)
    # (num_sentences, ...), sorted: the place of a value is how many are lower
    ordered = references.t().contiguous().sort(dim=1).values
    num_lower = torch.searchsorted(ordered, similarities.t().contiguous() - ROUNDING)
    return (num_lower.t() / (len(references) - 1)).clamp(max=1)


def draw_references(index: Index) -> torch.Tensor:
    """The embeddings of all pictures, or of `NUM_REFERENCES` that are drawn, always the same."""
    if len(index.names) <= NUM_REFERENCES:
        return index.embeds
    drawn = torch.randperm(len(index.names), generator=torch.Generator().manual_seed(0))[:NUM_REFERENCES]
    return index.embeds[drawn]


def search_index(index: Index, query: Query, k: int) -> list[Result]:
    """
    The pictures that are most similar to a query, and how well each fits its sentences.

    Args:
        index (`Index`):
            The collection. If it has an approximate index, that is used.
        query (`Query`):
            The query.
        k (`int`):
            How many pictures, if there are so many.
    """
    k = min(k, len(index.names))
    if k == 0:
        return []
    if index.faiss is None:
        similarities, positions = search(query.embedding[None], [index.embeds], k)
    else:
        similarities, positions = query_faiss_index(index.faiss, query.embedding[None], k)
    is_found = positions[0] >= 0
    similarities, positions = similarities[0, is_found], positions[0, is_found]
    fits = torch.empty(len(positions), 0)
    if query.sentences:
        own, references = index.embeds[positions], draw_references(index)
        fits = percentiles(own @ query.sentence_embeds.t(), references @ query.sentence_embeds.t())
        fits[:, ~query.sentence_embeds.any(dim=1)] = torch.nan
    return [
        Result(index.names[position], similarity, [None if fit != fit else fit for fit in row])
        for position, similarity, row in zip(positions.tolist(), similarities.tolist(), fits.tolist())
    ]


def draw_heat_map(
    model: PreTrainedModel, processor: ProcessorMixin, image: Image.Image, sentence: str, max_length: int | None = None
) -> Image.Image:
    """
    Where in a picture a sentence is found: the part that the model sees, under the relevance of its patches.
    """
    inputs = dict(processor.image_processor([image], return_tensors="pt"))
    text_embeds = embed_corpus(model, processor, [sentence], max_length=max_length)
    relevance = patch_relevance(model, inputs["pixel_values"], text_embeds[None])[0, 0]
    return heat_map(seen_picture(processor, inputs["pixel_values"][0]), relevance)


# ---------------------------------------------------------------------------------------------------------------------
# Zero-shot classification


class Label(NamedTuple):
    """A label of a picture: its probability by the model's own temperature, and the cosine similarity."""

    name: str
    probability: float
    similarity: float


def classify_image(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    image: Image.Image | None,
    labels: str,
    template: str,
    max_length: int | None = None,
) -> list[Label]:
    """
    Zero-shot classification of a picture.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        image (`Image.Image`):
            The picture.
        labels (`str`):
            The labels, one on each line, or between commas.
        template (`str`):
            A prompt with {} in the place of the label.
        max_length (`int`, *optional*):
            Truncate prompts at this many tokens.

    Returns:
        `list[Label]`: the most probable first. The probabilities of a model that was trained with a bias (SigLIP) are
        each label's own; of others they add up to 1.

    Raises:
        `QueryError`: if there is no picture, no label, one twice or too long, or no {} in the template.
    """
    names = [name.strip() for line in labels.splitlines() for name in line.split(",") if name.strip()]
    if image is None:
        raise QueryError("There is no picture yet: choose one.")
    if not names:
        raise QueryError("There are no labels yet: write one on each line.")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise QueryError(f"Each label counts once, but these are there more often: {', '.join(repeated)}.")
    if "{}" not in template:
        raise QueryError("The template needs {} where the label goes, as in: a photo of a {}")
    _, truncated = tokenize_and_count(processor, [template.replace("{}", name) for name in names], max_length)
    if any(truncated):
        too_long = [name for name, is_cut in zip(names, truncated) if is_cut]
        raise QueryError(f"Longer, in the template, than the model reads: {', '.join(too_long)}")
    class_embeds = embed_classes(model, processor, names, [template], batch_size=64, max_length=max_length)
    similarities = class_embeds @ embed_image(model, processor, image)
    logits = similarities * getattr(model, "logit_scale", torch.tensor(0.0)).detach().float().exp().cpu()
    bias = getattr(model, "logit_bias", None)
    probabilities = logits.softmax(dim=0) if bias is None else (logits + bias.detach().float().cpu()).sigmoid()
    found = map(Label, names, probabilities.tolist(), similarities.tolist())
    return sorted(found, key=lambda label: -label.similarity)


# ---------------------------------------------------------------------------------------------------------------------
# Everything of one collection


class Status(NamedTuple):
    """What a searcher does: so many of so many pictures indexed while it works, and what went wrong before."""

    is_updating: bool
    done: int
    total: int
    problem: str | None


class Searcher:
    """
    A model and a collection, for several visitors at once: updates run in a thread of their own, and searches use what
    was indexed last.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        args (`argparse.Namespace`):
            The arguments of `search_app.py`.

    Raises:
        `ValueError`: if the collection is not there, or is of another model.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, args: argparse.Namespace):
        self.model, self.processor, self.args = model, processor, args
        self.pictures = pictures_of(args)
        self.index = EMPTY
        self.changes = Changes(0, 0, 0)
        self.model_lock, self.update_lock = Lock(), Lock()
        self.status = Status(False, 0, 0, None)
        self.is_stopped = False
        self.thread = None
        self.splitter = args.sub_caption_splitter
        if args.embeddings_dir is not None:
            self.splitter = check_model(args, model).get("sub_caption_splitter", "paper")  # queries are split alike
            self.use(load_embeddings(args.embeddings_dir))
        else:
            self.folder = self.name_index()

    def use(self, index: Index) -> None:
        self.index = index.with_faiss(self.args.faiss_factory) if self.args.index == "faiss" else index

    def name_index(self) -> Path:
        """The folder of the index, one for each collection and model; it notes which."""
        if self.args.images is not None:
            name, source = self.args.images.resolve().name, str(self.args.images.resolve())
        else:
            name = Path(self.args.dataset_name or "scenes").name
            names = "dataset_name dataset_config_name data_dir data_files eval_split max_eval_samples image_column"
            source = {name: getattr(self.args, name) for name in names.split()}
        settings = {
            "source": source,
            "weights": hash_weights(self.model),
            "processor": Hasher.hash(self.processor),
            "dtype": self.args.dtype,
        }
        folder = self.args.index_dir / f"{name}-{Hasher.hash(settings)}"
        write_json(folder / "settings.json", settings)
        return folder

    def update(self) -> None:
        """Makes the index that of the collection as it is now, with a progress bar in the terminal."""
        with self.update_lock, tqdm(desc="Indexing", unit=" pictures", delay=1) as progress:

            def report(done: int, total: int) -> bool:
                self.status = Status(True, done, total, None)
                progress.total = total
                progress.update(done - progress.n)
                return self.is_stopped

            self.status, problem = Status(True, 0, 0, None), None
            try:
                self.changes = update_index(
                    self.folder,
                    self.pictures,
                    self.model,
                    self.processor,
                    self.args.batch_size,
                    report,
                    self.model_lock,
                )
                if any(self.changes) or self.index is EMPTY:
                    self.use(load_index(self.folder))
            except (OSError, RuntimeError, ValueError) as error:  # the page says it
                problem = str(error)
            finally:
                self.status = self.status._replace(is_updating=False, problem=problem)

    def start_update(self) -> None:
        """Begins an update, unless one is running or the embeddings were made elsewhere."""
        is_running = self.thread is not None and self.thread.is_alive()
        if self.args.embeddings_dir is None and not is_running:
            self.status = Status(True, 0, 0, None)
            self.thread = Thread(target=self.update, daemon=True)
            self.thread.start()

    def stop(self) -> None:
        """Ends an update that is running; what it has embedded is kept."""
        self.is_stopped = True
        if self.thread is not None:
            self.thread.join()

    def search(self, text: str, image_path: str | None, k: int) -> tuple[Query, list[Result]]:
        """Raises a `QueryError` if there is nothing to search for, or to search in."""
        image = None if image_path is None else read_query_image(image_path)
        index = self.index
        if not index.names:
            if self.status.is_updating:
                raise QueryError("The pictures are still being indexed. Try again when the bar above is full.")
            raise QueryError("Nothing is indexed yet: there is no picture to find.")
        with self.model_lock:
            query = embed_query(
                self.model,
                self.processor,
                text,
                image,
                self.args.sentence_score,
                self.args.max_length,
                self.splitter,
            )
        return query, search_index(index, query, k)

    def heat_map(self, name: str, sentence: str) -> Image.Image:
        """Where in a picture of the collection a sentence is found."""
        if name not in self.index.names:
            raise QueryError("This picture is not in the collection any more. Search again.")
        try:
            image = self.pictures.read(name)
        except UnreadableImageError as error:
            raise QueryError("This picture cannot be read any more.") from error
        with self.model_lock:
            return draw_heat_map(self.model, self.processor, image, sentence, self.args.max_length)

    def classify(self, image_path: str | None, labels: str, template: str) -> list[Label]:
        """Raises a `QueryError` if there is something missing."""
        image = None if image_path is None else read_query_image(image_path)
        with self.model_lock:
            return classify_image(self.model, self.processor, image, labels, template, self.args.max_length)

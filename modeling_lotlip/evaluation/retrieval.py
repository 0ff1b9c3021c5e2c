# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image-text retrieval of a dual encoder: recall in both directions, for short and for long captions."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch.nn.utils.rnn import pad_sequence

from ..data.arguments import CaptionArguments, CaptionFileArguments
from ..data.benchmarks import load_benchmark
from ..data.images import undecoded, unformatted
from ..data.reader import RowCounts, RowReader
from ..data.repeated_images import warn_of_repeated_images
from ..encoder.batches import (
    Item,
    RowCollator,
    batch_rows,
    collate_rows,
    embed_rows,
    gather_to_main,
    warn_of_unreadable,
)
from ..encoder.dual_encoder import DualEncoder, evaluation_mode
from ..encoder.finite import check_finite_batch
from ..metrics import RetrievalRanks, check_finite, metrics_of_ranks, retrieval_ranks
from ..modeling_variants_lotlip import late_interaction
from ..utils.integers import check_integer
from ..utils.markdown import format_markdown
from ..utils.terminal import progress_bar


logger = logging.getLogger(__name__)

# A batch of texts holds as many tokens as one text of this length for each image of a batch
TOKENS_PER_TEXT = 128
# Similarities of tokens in a block, 4 bytes each
BLOCK_SIZE = 2**26
# Texts or images whose similarities are in a block
QUERIES_PER_BLOCK = 64
# The candidates that the highest of the recalls looks at
MAX_K = 10


@dataclass
class EmbeddedCaptions:
    """
    Holds the captions of one kind in a dataset.

    Attributes:
        texts (`list[str]`): The captions.
        images (`torch.Tensor` of shape `(captions,)`): The index of the image of each.
        embeds (`torch.Tensor` of shape `(captions, dim)`): Normalized; of shape `(captions, tokens, dim)` of a model
            that compares tokens.
        num_truncated (`int`): How many are longer than the limit of the model.
        num_unknown (`int`): Of how many the tokenizer knows no word.
    """

    texts: list[str]
    images: torch.Tensor
    embeds: torch.Tensor
    num_truncated: int
    num_unknown: int = 0


@dataclass
class EmbeddedDataset:
    """
    Holds what was embedded of a dataset. Images that could not be read are left out with their captions.

    Attributes:
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Normalized; of shape `(images, tokens, dim)` of a model
            that compares tokens.
        captions (`dict[str, EmbeddedCaptions]`): `"short"` and `"long"` ones, if there are any.
        labels (`list`): That of each image, None where there is none.
        num_unreadable (`int`): How many images could not be read.
    """

    image_embeds: torch.Tensor
    captions: dict[str, EmbeddedCaptions]
    labels: list
    num_unreadable: int


@dataclass
class EmbeddedPart:
    """
    Holds what one process embedded of its part of a dataset, in any order.

    Attributes:
        items (`list[Item]`): The images and captions, of a [`RowReader`].
        embeds (`list[torch.Tensor]`): Their normalized embeddings in the same order, in batches of shape
            `(items, dim)` or `(items, tokens, dim)`.
        num_unreadable (`int`): How many images could not be read.
    """

    items: list[Item] = field(default_factory=list)
    embeds: list[torch.Tensor] = field(default_factory=list)
    num_unreadable: int = 0

    def count_images(self) -> RowCounts:
        """Counts the images that were embedded, and those without captions in caption files."""
        counts = RowCounts()
        for item in self.items:
            if item.kind == "image":
                counts.count(describe_item(item), unmatched=item.row_key.unmatched_key)
        return counts

    def select(self, indices: list[int]) -> "EmbeddedPart":
        """Returns the items of these indices alone, with their embeddings."""
        rows = list(chain.from_iterable(self.embeds))
        items = [self.items[index] for index in indices]
        embeds = stack([rows[index] for index in indices])
        return EmbeddedPart(items, [embeds], self.num_unreadable)


class ImageEmbeddingCache:
    """
    Keeps what this process embedded of the images of a dataset, for evaluations of a model whose image tower does not
    change: the first one fills it, and later ones embed captions alone. It is of one dataset and one model.
    """

    def __init__(self):
        self.images: EmbeddedPart | None = None

    @property
    def is_filled(self) -> bool:
        """Whether the images are known, and need not be read."""
        return self.images is not None

    def fill(self, embedded: EmbeddedPart) -> None:
        """Keeps the images of an evaluation, and how many could not be read."""
        indices = [index for index, item in enumerate(embedded.items) if item.kind == "image"]
        self.images = embedded.select(indices)

    def add_images(self, captions: EmbeddedPart) -> EmbeddedPart:
        """Returns the images with an evaluation's captions, less those of images that could not be read."""
        readable = {item.row_key.row_index for item in self.images.items}
        rows = [item.row_key.row_index for item in captions.items]
        indices = [index for index, row in enumerate(rows) if row in readable]
        read = captions.select(indices)
        return EmbeddedPart(
            items=self.images.items + read.items,
            embeds=self.images.embeds + read.embeds,
            num_unreadable=self.images.num_unreadable,
        )


def embed_dataset(
    encoder: DualEncoder,
    dataset: Dataset | IterableDataset,
    reader: RowReader,
    batch_size: int = 64,
    num_workers: int = 0,
    is_alone: bool = False,
    image_cache: ImageEmbeddingCache | None = None,
    must_match: bool = True,
) -> EmbeddedDataset:
    """
    Embeds the images and captions of a dataset. Every process embeds its part; the main one gets the whole, the
    others an empty one.

    Args:
        encoder ([`DualEncoder`]):
            Embeds them.
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        reader (`RowReader`):
            Reads its rows, with labels if they are wanted.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch, for each process.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode and tokenize.
        is_alone (`bool`, *optional*, defaults to `False`):
            Whether this process embeds all, and the others do not call this.
        image_cache ([`ImageEmbeddingCache`], *optional*):
            For a model whose image tower does not change: the first call fills it, later ones read no image.
        must_match (`bool`, *optional*, defaults to `True`):
            Whether it is an error, not a warning, if there are caption files and no image has captions there.

    Returns:
        [`EmbeddedDataset`]: the images and captions in the order of the dataset.

    Raises:
        `ValueError`: if no image can be read, or none has the captions that it must have, or a number is none.
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("num_workers", num_workers, 0)
    dataset = undecoded(dataset, reader.image_column)
    if image_cache is None:
        embedded = embed_part(encoder, dataset, reader, batch_size, num_workers, is_alone)
    elif image_cache.is_filled:
        reader = copy(reader)
        reader.image_column = None  # images are not read
        captions = embed_part(encoder, dataset, reader, batch_size, num_workers, is_alone)
        embedded = image_cache.add_images(captions)
    else:
        embedded = embed_part(encoder, dataset, reader, batch_size, num_workers, is_alone)
        image_cache.fill(embedded)

    counts = [embedded.count_images()]
    if not is_alone:
        counts = gather_object(counts)
    counts = sum(counts, RowCounts())
    if counts.num_rows == 0:
        raise ValueError("No image of the evaluation data can be read.")
    if must_match:
        reader.check_counts(counts, dataset)
    parts = [embedded] if is_alone else gather_to_main(embedded)
    joined = join_embedded_parts(parts)
    if is_alone or PartialState().is_main_process:
        reader.report_counts(counts, dataset)
        warn_of_missing_captions(reader, joined)
        num_unknown = sum(captions.num_unknown for captions in joined.captions.values())
        num_texts = sum(len(captions.texts) for captions in joined.captions.values())
        encoder.warn_of_unknown(num_unknown, num_texts)
    return joined


def warn_of_missing_captions(reader: RowReader, embedded: EmbeddedDataset) -> None:
    """Warns once, not at each evaluation of a run, if captions are read and no image has any to measure."""
    num_images = len(embedded.image_embeds)
    if reader.short_column is not None and "short" not in embedded.captions:
        logger.warning_once(
            f"None of {num_images} images has a short caption, though `--caption_column "
            f"{reader.short_column}` is there: they are not measured."
        )
    if reader.has_long_captions and "long" not in embedded.captions:
        logger.warning_once(
            f"None of {num_images} images has a long caption, though there is "
            "`--long_captions_column` or `--caption_files`: they are not measured."
        )


def embed_part(
    encoder: DualEncoder,
    dataset: Dataset | IterableDataset,
    reader: RowReader,
    batch_size: int,
    num_workers: int,
    is_alone: bool,
) -> EmbeddedPart:
    """
    Embeds what is this process's of a dataset: see [`embed_dataset`].

    Args:
        encoder ([`DualEncoder`]):
            Embeds images and captions.
        dataset (`Dataset` or `IterableDataset`):
            The whole dataset, its images not decoded.
        reader (`RowReader`):
            Reads its rows, without images if it has no `image_column`.
        batch_size (`int`):
            Rows in a batch.
        num_workers (`int`):
            Processes that decode and tokenize.
        is_alone (`bool`):
            Whether all of it is this process's.
    """
    state = PartialState()
    process_index = state.process_index
    num_processes = state.num_processes
    if is_alone:
        process_index = 0
        num_processes = 1
    total = None
    if isinstance(dataset, Dataset):
        total = len(dataset) // num_processes
    is_shown = state.is_main_process and reader.image_column is not None
    progress = progress_bar(desc="Embedding", total=total, unit=" images", disable=not is_shown)

    rows = batch_rows(dataset, batch_size, process_index, num_processes)
    prepared = collate_rows(RowCollator(encoder.preprocessing, reader), rows, num_workers)
    part = EmbeddedPart()
    with evaluation_mode(encoder.model), progress:
        for batch in embed_rows(encoder, prepared, TOKENS_PER_TEXT * batch_size, num_prefetched=2):
            warn_of_unreadable(batch.unreadable)
            check_finite_batch(batch, encoder.model, describe_item)
            part.num_unreadable += len(batch.unreadable)
            part.items += batch.entries
            if batch.embeds is not None:
                part.embeds.append(batch.embeds)
            progress.update(sum(item.kind == "image" for item in batch.entries))
    return part


def describe_item(item: Item) -> str:
    """Names an image or a caption in messages."""
    return f"row {item.row_key.row_index} ({item.kind})"


class EmbeddedItem(NamedTuple):
    """
    Is an image or a caption with its embedding.

    Attributes:
        process (`int`): The index of the process that embedded it.
        item (`Item`): The image or caption.
        embedding (`torch.Tensor` of shape `(dim,)` or `(tokens, dim)`): Normalized.
    """

    process: int
    item: Item
    embedding: torch.Tensor

    @property
    def row_key(self) -> tuple[int, int]:
        """What its row is known by: of a stream, each process numbers the rows of its part from 0 on."""
        return self.process, self.item.row_key.row_index

    @property
    def order(self) -> tuple[int, int, int]:
        """Where it stands among items of its kind: by process, row, and position in the row."""
        return *self.row_key, self.item.index


def join_embedded_parts(parts: list[EmbeddedPart]) -> EmbeddedDataset:
    """Joins what several processes embedded, in the order of the processes and of their rows."""
    found = defaultdict(list)
    for process, part in enumerate(parts):
        rows = chain.from_iterable(part.embeds)
        for item, row in zip(part.items, rows, strict=True):
            found[item.kind].append(EmbeddedItem(process, item, row))
    for items in found.values():
        items.sort(key=lambda embedded: embedded.order)

    images = found["image"]
    indices = {image.row_key: index for index, image in enumerate(images)}
    captions = {}
    for kind in ("short", "long"):
        if found[kind]:
            captions[kind] = join_captions(found[kind], indices)
    return EmbeddedDataset(
        image_embeds=stack([image.embedding for image in images]),
        captions=captions,
        labels=[image.item.row_key.label for image in images],
        num_unreadable=sum(part.num_unreadable for part in parts),
    )


def join_captions(captions: list[EmbeddedItem], image_indices: dict[tuple[int, int], int]) -> EmbeddedCaptions:
    """Joins captions of one kind; `image_indices` is the index of the image of each row."""
    return EmbeddedCaptions(
        texts=[caption.item.content for caption in captions],
        images=torch.tensor([image_indices[caption.row_key] for caption in captions]),
        embeds=stack([caption.embedding for caption in captions]),
        num_truncated=sum(caption.item.truncated for caption in captions),
        num_unknown=sum(caption.item.is_unknown for caption in captions),
    )


def stack(rows: list[torch.Tensor]) -> torch.Tensor:
    """
    Stacks the embeddings of several items, of shape `(dim,)` or `(tokens, dim)` each, to shape `(items, dim)` or
    `(items, tokens, dim)`, padded with zeros.
    """
    if not rows:
        return torch.empty(0)
    return pad_sequence(rows, batch_first=True)


def evaluate_retrieval(  # noqa: PLR0913, the options of the command
    encoder: DualEncoder,
    dataset: Dataset | IterableDataset,
    captions: CaptionArguments | None = None,
    caption_files: CaptionFileArguments | None = None,
    image_column: str = "image",
    distinct_short_captions: bool = False,
    group_equal_captions: bool = True,
    batch_size: int = 64,
    num_workers: int = 0,
) -> dict[str, float]:
    """
    Embeds a dataset and measures its retrieval: see [`embed_dataset`] and [`measure_retrieval`]. Every process embeds
    its part; the main one computes the metric, where the model is, and the others get an empty result.

    Args:
        encoder ([`DualEncoder`]):
            Embeds images and captions.
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        captions (`CaptionArguments`, *optional*):
            The columns of the captions.
        caption_files (`CaptionFileArguments`, *optional*):
            Files of further captions.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of the images.
        distinct_short_captions (`bool`, *optional*, defaults to `False`):
            See [`measure_retrieval`].
        group_equal_captions (`bool`, *optional*, defaults to `True`):
            See [`measure_retrieval`].
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch, for each process.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode and tokenize.

    Returns:
        `dict[str, float]`: what [`measure_retrieval`] returns.

    Raises:
        `ValueError`: if no image can be read, or none has a caption.
    """
    state = PartialState()
    dataset = unformatted(dataset)
    with state.main_process_first():  # which reads new caption files
        reader = RowReader.of(dataset, captions or CaptionArguments(), caption_files, image_column)
    if state.is_main_process:
        reader.report_keys(dataset)
        warn_of_repeated_images(dataset, image_column, "evaluation")
    embedded = embed_dataset(encoder, dataset, reader, batch_size, num_workers)
    if not state.is_main_process:
        return {}
    return measure_retrieval(embedded, distinct_short_captions, group_equal_captions, encoder.device)


def measure_retrieval(
    embedded: EmbeddedDataset,
    distinct_short_captions: bool = False,
    group_equal_captions: bool = True,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """
    Measures recall of short and of long captions, each in a gallery of the images that have such a caption.

    Captions are equal if nothing but their white space differs. Equal ones are one text, and each of its images is a
    right answer of it: a hit if any of them is found.

    Args:
        embedded ([`EmbeddedDataset`]):
            The images and captions.
        distinct_short_captions (`bool`, *optional*, defaults to `False`):
            Whether each short caption and one image of it stand for all that have it.
        group_equal_captions (`bool`, *optional*, defaults to `True`):
            Otherwise each caption is a text of its own, whose right answer is its own image alone: so the counts of
            published benchmarks are counted.
        device (`torch.device` or `str`, *optional*):
            Where similarities are computed. Default: where the embeddings are.

    Returns:
        `dict[str, float]`: the results of [`ImageTextRetrieval`] with prefixes `short_` and `long_`, the counts of
        images and captions of each, of them those that several images share (`num_shared_captions`) if they are
        grouped, and the fraction of captions that were truncated.

    Raises:
        `ValueError`: if there are no captions.
    """
    if not embedded.captions:
        raise ValueError("No image has a caption: there is nothing to retrieve.")
    results = {}
    if embedded.num_unreadable > 0:
        results["num_unreadable_images"] = embedded.num_unreadable
        logger.warning(f"{embedded.num_unreadable} images cannot be read and are left out of the evaluation.")
    for kind, captions in embedded.captions.items():
        grouping = "group" if group_equal_captions else "separate"
        if kind == "short" and distinct_short_captions:
            grouping = "distinct"
        ranks = rank_captions(embedded.image_embeds, captions, grouping, device)
        num_images = len(embedded.image_embeds)
        if ranks.num_images < num_images and grouping != "distinct":
            num_missing = num_images - ranks.num_images
            logger.warning(
                f"{num_missing} of {num_images} images have no {kind} caption and are left out of its gallery."
            )
        if ranks.num_images == 1:
            logger.warning(f"One image with {kind} captions is always found: evaluate more than one.")
        elif ranks.num_texts == 1:
            logger.warning(f"All images have the same {kind} caption: whatever is found is right.")
        elif ranks.num_images <= MAX_K:
            logger.warning(
                f"There are {ranks.num_images} images with {kind} captions, and so each is among the "
                f"first {MAX_K}, whatever the model: evaluate more than {MAX_K}."
            )
        measured = metrics_of_ranks(ranks.image_to_text, ranks.text_to_image)
        measured["num_images"] = ranks.num_images
        measured["num_captions"] = ranks.num_texts
        if grouping == "group":
            measured["num_shared_captions"] = ranks.num_shared
        measured["truncated"] = captions.num_truncated / len(captions.texts)
        for name, value in measured.items():
            results[f"{kind}_{name}"] = value
    return results


class CaptionRanks(NamedTuple):
    """
    Holds how captions of one kind and images are ranked by each other.

    Attributes:
        image_to_text (`RetrievalRanks`): The ranks of the texts of each image.
        text_to_image (`RetrievalRanks`): The ranks of the images of each text.
        num_images (`int`): The images in the gallery.
        num_texts (`int`): The texts.
        num_shared (`int`): The texts that several images have.
    """

    image_to_text: RetrievalRanks
    text_to_image: RetrievalRanks
    num_images: int
    num_texts: int
    num_shared: int


def token_similarities(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """
    Computes [`late_interaction`] in blocks, on the accelerator if there is one.

    Args:
        queries (`torch.Tensor` of shape `(queries, tokens, dim)`): Normalized, zero at padding.
        keys (`torch.Tensor` of shape `(keys, tokens, dim)`): Normalized, zero at padding.

    Returns:
        `torch.Tensor` of shape `(queries, keys)`, on the CPU.
    """
    device = PartialState().device
    similarities_per_pair = queries.shape[1] * keys.shape[1]
    keys_per_block = max(1, BLOCK_SIZE // (QUERIES_PER_BLOCK * similarities_per_pair))
    query_blocks = queries.to(device).split(QUERIES_PER_BLOCK)
    columns = []
    for key_block in keys.split(keys_per_block):
        key_block = key_block.to(device)
        blocks = [late_interaction(query_block, key_block) for query_block in query_blocks]
        columns.append(torch.cat(blocks).cpu())
    return torch.cat(columns, dim=1)


def rank_by_tokens(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    text_to_image: Sequence[int] | Sequence[list[int]],
) -> tuple[RetrievalRanks, RetrievalRanks]:
    """
    Ranks as [`retrieval_ranks`] does, by late interaction of tokens: texts are ranked for an image by the similarity
    of image to text, images for a text by that of text to image.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, tokens, dim)`): Normalized, zero at padding.
        text_embeds (`torch.Tensor` of shape `(texts, tokens, dim)`): Normalized, zero at padding.
        text_to_image (`Sequence[int]` or `Sequence[list[int]]`): The index of each text's image, or images.
    """
    # imports evaluate: only where it is used
    from ..metrics.image_text_retrieval.image_text_retrieval import list_matches, ranks_of_blocks

    check_finite(image_embeds, "image_embeds")
    check_finite(text_embeds, "text_embeds")
    matches = list_matches(text_to_image, len(text_embeds), len(image_embeds))
    all_texts = slice(0, len(text_embeds))
    all_images = slice(0, len(image_embeds))

    # both of shape (texts, images), as one block
    by_image = token_similarities(image_embeds, text_embeds).t()
    image_to_text, _ = ranks_of_blocks([(all_texts, all_images, by_image)], by_image[matches[0], matches[1]], matches)
    by_text = token_similarities(text_embeds, image_embeds)
    _, text_to_image = ranks_of_blocks([(all_texts, all_images, by_text)], by_text[matches[0], matches[1]], matches)
    return image_to_text, text_to_image


def rank_captions(
    image_embeds: torch.Tensor,
    captions: EmbeddedCaptions,
    grouping: str = "group",
    device: torch.device | str | None = None,
) -> CaptionRanks:
    """
    Ranks images by captions of one kind, and these by the images that have one.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)` or `(images, tokens, dim)`):
            Normalized.
        captions ([`EmbeddedCaptions`]):
            The captions.
        grouping (`str`, *optional*, defaults to `"group"`):
            `"group"`: equal captions are one text, with the images of all. `"distinct"`: the first of them stands for
            all, with its image alone. `"separate"`: each is a text.
        device (`torch.device` or `str`, *optional*):
            Where similarities are computed. Default: where the embeddings are.
    """
    groups = group_captions(captions, grouping)
    gallery = set()
    for group in groups:
        gallery.update(group.images)
    gallery = sorted(gallery)
    gallery_indices = {image: index for index, image in enumerate(gallery)}
    text_to_image = []
    for group in groups:
        text_to_image.append([gallery_indices[image] for image in group.images])

    rank = rank_by_tokens if image_embeds.dim() == 3 else retrieval_ranks
    gallery_embeds = image_embeds[gallery].to(device)
    text_embeds = captions.embeds[[group.caption for group in groups]].to(device)
    ranks_of_texts, ranks_of_images = rank(gallery_embeds, text_embeds, text_to_image)
    return CaptionRanks(
        image_to_text=ranks_of_texts,
        text_to_image=ranks_of_images,
        num_images=len(gallery),
        num_texts=len(groups),
        num_shared=sum(len(group.images) > 1 for group in groups),
    )


@dataclass
class CaptionGroup:
    """
    Is a text that is retrieved.

    Attributes:
        caption (`int`): The index of the caption that stands for all that are equal.
        images (`list[int]`): The indices of its images, each once, in the order of the captions.
    """

    caption: int
    images: list[int]


def group_captions(captions: EmbeddedCaptions, grouping: str) -> list[CaptionGroup]:
    """Groups captions to the texts that are retrieved: see [`rank_captions`] for `grouping`."""
    if grouping == "separate":
        return [CaptionGroup(index, [image]) for index, image in enumerate(captions.images.tolist())]
    groups = {}
    for index, (text, image) in enumerate(zip(captions.texts, captions.images.tolist())):
        words = " ".join(text.split())
        if words not in groups:
            groups[words] = CaptionGroup(index, [image])
        elif grouping == "group":
            groups[words].images.append(image)
    for group in groups.values():
        group.images = list(dict.fromkeys(group.images))
    return list(groups.values())


def load_benchmarks(
    names: list[str],
    data_dir: str | Path,
    allow_partial: bool = False,
) -> dict[str, Dataset]:
    """
    Loads benchmarks by name, as [`load_benchmark`] does. With several, each is in a folder of its name in `data_dir`.
    """
    datasets = {}
    for name in names:
        folder = Path(data_dir)
        if len(names) > 1:
            folder = folder / name
        datasets[name] = load_benchmark(name, folder, allow_partial=allow_partial)
    return datasets


RECALL_NAMES = ("i2t_recall@1", "i2t_recall@5", "i2t_recall@10", "t2i_recall@1", "t2i_recall@5", "t2i_recall@10")
RECALL_TITLES = ("I2T R@1", "I2T R@5", "I2T R@10", "T2I R@1", "T2I R@5", "T2I R@10")


def format_recalls(*rows: dict) -> str:
    """Formats the recalls of [`evaluate_retrieval`] as a Markdown table, in %; several models by their names."""
    titles = ["captions", "images", "texts", *RECALL_TITLES]
    if len(rows) > 1:
        titles.insert(0, "model")
    lines = []
    for row in rows:
        for kind in ("short", "long"):
            if f"{kind}_num_images" not in row:
                continue
            cells = [kind, str(row[f"{kind}_num_images"]), describe_texts(row, kind)]
            cells += [f"{row[f'{kind}_{name}']:.1f}" for name in RECALL_NAMES]
            if len(rows) > 1:
                cells.insert(0, row["model"])
            lines.append(cells)
    return format_markdown(titles, lines)


def describe_texts(row: dict, kind: str) -> str:
    """Says how many captions of a kind there are, and what is special about them."""
    description = str(row[f"{kind}_num_captions"])
    num_shared = row.get(f"{kind}_num_shared_captions", 0)
    if num_shared > 0:
        description += f" ({num_shared} of several images)"
    percent_truncated = 100 * row[f"{kind}_truncated"]
    if percent_truncated > 0:
        description += f" ({percent_truncated:.0f} % truncated)"
    return description


def format_benchmarks(rows: list[dict]) -> str:
    """
    Formats recall at 1 of every model on every benchmark, as in the paper, and the means. A benchmark that is not
    complete has its size after its name.
    """
    benchmarks = {row["benchmark"]: row for row in rows}
    titles = ["model"]
    for name, row in benchmarks.items():
        num_images = row[f"{find_kind(row)}_num_images"]
        num_published = row["published_num_images"]
        title = name
        if num_images != num_published:
            title = f"{name} ({num_images} of {num_published} images)"
        titles += [f"{title} I2T", f"{title} T2I"]
    titles += ["average I2T", "average T2I", "truncated"]

    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        model_rows = [row for row in rows if row["model"] == model]
        lines.append([model, *format_model(model_rows)])
    return format_markdown(titles, lines)


def format_model(rows: list[dict]) -> list[str]:
    """Formats recall at 1 of a model on each benchmark, its means in both directions, and what is truncated."""
    cells = []
    image_to_text = []
    text_to_image = []
    fractions_truncated = []
    for row in rows:
        kind = find_kind(row)
        image_to_text.append(row[f"{kind}_i2t_recall@1"])
        text_to_image.append(row[f"{kind}_t2i_recall@1"])
        fractions_truncated.append(row[f"{kind}_truncated"])
        cells += [f"{image_to_text[-1]:.2f}", f"{text_to_image[-1]:.2f}"]
    cells += [f"{fmean(image_to_text):.2f}", f"{fmean(text_to_image):.2f}"]
    cells.append(f"{100 * fmean(fractions_truncated):.0f}%")
    return cells


def find_kind(row: dict) -> str:
    """Returns the kind of captions of a benchmark, which has one only."""
    if "long_num_images" in row:
        return "long"
    return "short"

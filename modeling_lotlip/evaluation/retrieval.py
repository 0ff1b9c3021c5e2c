# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image-text retrieval of a dual encoder: recall in both directions, for short and for long captions."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch.nn.utils.rnn import pad_sequence

from ..data.arguments import CaptionArguments, CaptionFileArguments
from ..data.benchmarks import load_benchmark
from ..data.images import undecoded
from ..data.loading import get_columns
from ..data.reader import RowReader
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
from ..metrics import RetrievalRanks, check_finite, metrics_of_ranks, retrieval_ranks
from ..modeling_variants_lotlip import late_interaction
from ..utils.files import format_markdown
from ..utils.terminal import progress_bar


logger = logging.getLogger(__name__)

# A batch of texts holds as many tokens as so long texts do, in the number of the images of a batch
TOKENS_PER_TEXT = 128
# Similarities of tokens in a block, 4 bytes each
BLOCK_SIZE = 2**26


@dataclass
class EmbeddedCaptions:
    """The captions of one kind in a data set."""

    texts: list[str]
    images: torch.Tensor  # of shape (captions,): the row of the image's embedding
    embeds: torch.Tensor  # of shape (captions, dim), normalised; (captions, tokens, dim) if it compares tokens
    num_truncated: int


@dataclass
class EmbeddedDataset:
    """What was embedded of a data set. Images that could not be read are left out with their captions."""

    image_embeds: torch.Tensor  # of shape (images, dim), normalised; (images, tokens, dim) if it compares tokens
    captions: dict[str, EmbeddedCaptions]  # "short" and "long" ones, if there are any
    labels: list  # of each image, None where there is none
    num_unreadable: int


def embed_dataset(
    encoder: DualEncoder,
    dataset: Dataset | IterableDataset,
    reader: RowReader,
    batch_size: int = 64,
    num_workers: int = 0,
    is_alone: bool = False,
    known_images: dict | None = None,
) -> EmbeddedDataset:
    """
    Embeds the images and captions of a data set. Every process embeds its share; the main one gets the whole, the
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
        known_images (`dict`, *optional*):
            For a model whose image tower does not change: what the first call embeds of images, kept for later ones.

    Raises:
        `ValueError`: if no image can be read.
    """
    state = PartialState()
    dataset = undecoded(dataset, reader.image_column)
    if known_images:
        reader = copy(reader)
        reader.image_column = None  # images are not read
    share = (0, 1) if is_alone else (state.process_index, state.num_processes)
    total = len(dataset) // share[1] if isinstance(dataset, Dataset) else None
    items, embeds, num_unreadable = [], [], 0
    is_shown = state.is_main_process and not known_images
    progress = progress_bar(desc="Embedding", total=total, unit=" images", disable=not is_shown)
    rows = batch_rows(dataset, batch_size, *share)
    prepared = collate_rows(RowCollator(encoder.preprocessing, reader), rows, num_workers)
    with evaluation_mode(encoder.model), progress:
        for batch in embed_rows(encoder, prepared, TOKENS_PER_TEXT * batch_size, num_prefetched=2):
            warn_of_unreadable(batch.unreadable)
            num_unreadable += len(batch.unreadable)
            items += batch.entries
            embeds += [] if batch.embeds is None else [batch.embeds]
            progress.update(sum(item.kind == "image" for item in batch.entries))
    embedded = (items, embeds, num_unreadable)
    if known_images is not None:
        embedded = reuse_images(*embedded, known_images)
    has_images = [any(item.kind == "image" for item in embedded[0])]
    if not any(has_images if is_alone else gather_object(has_images)):
        raise ValueError("No image of the evaluation data can be read.")
    return join_shares([embedded] if is_alone else gather_to_main(embedded))


def reuse_images(
    items: list[Item], embeds: list[torch.Tensor], num_unreadable: int, known_images: dict
) -> tuple[list[Item], list[torch.Tensor], int]:
    """A share with the images of `known_images`, which gets those of the first one."""
    rows = [row for part in embeds for row in part]
    if not known_images:
        places = [place for place, item in enumerate(items) if item.kind == "image"]
        known_images["items"] = [items[place] for place in places]
        known_images["embeds"] = stack([rows[place] for place in places])
        known_images["num_unreadable"] = num_unreadable
        return items, embeds, num_unreadable
    readable = {item.row.number for item in known_images["items"]}
    places = [place for place, item in enumerate(items) if item.row.number in readable]
    items = known_images["items"] + [items[place] for place in places]
    return items, [known_images["embeds"], stack([rows[place] for place in places])], known_images["num_unreadable"]


def join_shares(shares: list[tuple[list[Item], list[torch.Tensor], int]]) -> EmbeddedDataset:
    """
    What several processes embedded, in the order of the processes and of their rows: of each the items of a
    [`RowReader`], their embeddings in parts, and how many images could not be read.
    """
    found = defaultdict(list)
    for process, (items, embeds, _) in enumerate(shares):
        rows = (row for part in embeds for row in part)
        for item, row in zip(items, rows, strict=True):
            found[item.kind].append(((process, item.row.number), item.index, item, row))
    for of_kind in found.values():
        of_kind.sort(key=lambda entry: entry[:2])
    places = {key: place for place, (key, *_) in enumerate(found["image"])}
    captions = {
        kind: EmbeddedCaptions(
            texts=[item.content for _, _, item, _ in found[kind]],
            images=torch.tensor([places[key] for key, *_ in found[kind]]),
            embeds=stack([row for *_, row in found[kind]]),
            num_truncated=sum(item.truncated for _, _, item, _ in found[kind]),
        )
        for kind in ("short", "long")
        if found[kind]
    }
    return EmbeddedDataset(
        image_embeds=stack([row for *_, row in found["image"]]),
        captions=captions,
        labels=[item.row.label for _, _, item, _ in found["image"]],
        num_unreadable=sum(num_unreadable for *_, num_unreadable in shares),
    )


def stack(rows: list[torch.Tensor]) -> torch.Tensor:
    """Embeddings (dim,), or of all tokens (length, dim), of several items as one, padded with zeros."""
    return pad_sequence(rows, batch_first=True) if rows else torch.empty(0)


def evaluate_retrieval(
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
    Embeds a data set and measures its retrieval: see [`embed_dataset`] and [`measure_retrieval`], whose arguments
    these are. Every process embeds its share; the main one computes the metric, where the model is, and the others get
    an empty result.
    """
    state = PartialState()
    with state.main_process_first():  # which reads new caption files
        reader = RowReader(get_columns(dataset), captions or CaptionArguments(), caption_files, image_column)
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
    Recall of short and of long captions, each in a gallery of the images that have such a caption.

    Captions are equal if nothing but their white space differs. Equal ones are one text, and each of its images is a
    right answer of it: a hit if any of them is found.

    Args:
        embedded ([`EmbeddedDataset`]):
            The images and captions.
        distinct_short_captions (`bool`, *optional*, defaults to `False`):
            Whether each short caption and one image of it stand for all that have it.
        group_equal_captions (`bool`, *optional*, defaults to `True`):
            Otherwise each caption is a text of its own, whose right answer is its own image alone: so the numbers of
            published benchmarks are counted.
        device (`torch.device` or `str`, *optional*):
            Where similarities are computed. Default: where the embeddings are.

    Returns:
        `dict[str, float]`: the results of [`ImageTextRetrieval`] with prefixes `short_` and `long_`, the numbers of
        images and captions of each, of them those that several images share (`num_shared_captions`) if they are
        grouped, and the share of captions that were truncated.

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
            missing = f"{num_images - ranks.num_images} of {num_images} images"
            logger.warning(f"{missing} have no {kind} caption and are left out of its gallery.")
        if ranks.num_images == 1:
            logger.warning(f"One image with {kind} captions is always found: evaluate more than one.")
        measured = metrics_of_ranks(ranks.image_to_text, ranks.text_to_image)
        measured |= {"num_images": ranks.num_images, "num_captions": ranks.num_texts}
        if grouping == "group":
            measured["num_shared_captions"] = ranks.num_shared
        measured["truncated"] = captions.num_truncated / len(captions.texts)
        results |= {f"{kind}_{name}": value for name, value in measured.items()}
    return results


class CaptionRanks(NamedTuple):
    """The ranks of both directions, the numbers of images and texts, and of texts of several images."""

    image_to_text: RetrievalRanks
    text_to_image: RetrievalRanks
    num_images: int
    num_texts: int
    num_shared: int


def token_similarities(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[`late_interaction`] in blocks, on the accelerator if there is one: (queries, keys) on the CPU."""
    device, num_queries = PartialState().device, 64
    num_keys = max(1, BLOCK_SIZE // (num_queries * queries.shape[1] * keys.shape[1]))
    queries, rows = queries.to(device).split(num_queries), []
    for part in keys.split(num_keys):
        part = part.to(device)
        rows.append(torch.cat([late_interaction(own, part) for own in queries]).cpu())
    return torch.cat(rows, dim=1)


def rank_by_tokens(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_to_image: Sequence[int] | Sequence[list[int]]
):
    """
    [`retrieval_ranks`] by late interaction of tokens, (images, length, dim) and (texts, length, dim), zero at padding:
    texts are ranked for an image by the similarity of image to text, images for a text by that of text to image.
    """
    # imports evaluate: only where it is used
    from ..metrics.image_text_retrieval.image_text_retrieval import list_matches, ranks_of_blocks

    check_finite(image_embeds, "image_embeds")
    check_finite(text_embeds, "text_embeds")
    matches = list_matches(text_to_image, len(text_embeds), len(image_embeds))
    everything = slice(0, len(text_embeds)), slice(0, len(image_embeds))
    ranks = []
    for table in (token_similarities(image_embeds, text_embeds).t(), token_similarities(text_embeds, image_embeds)):
        ranks.append(ranks_of_blocks([(*everything, table)], table[matches[0], matches[1]], matches))
    return ranks[0][0], ranks[1][1]


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
            Normalised.
        captions ([`EmbeddedCaptions`]):
            The captions.
        grouping (`str`, *optional*, defaults to `"group"`):
            `"group"`: equal captions are one text, with the images of all. `"distinct"`: the first of them stands for
            all, with its image alone. `"separate"`: each is a text.
        device (`torch.device` or `str`, *optional*):
            Where similarities are computed. Default: where the embeddings are.
    """
    rows, images_of_texts = group_captions(captions, grouping)
    gallery = sorted({image for images in images_of_texts for image in images})
    places = {image: place for place, image in enumerate(gallery)}
    text_to_image = [[places[image] for image in images] for images in images_of_texts]
    rank = rank_by_tokens if image_embeds.dim() == 3 else retrieval_ranks
    image_embeds, text_embeds = (embeds.to(device) for embeds in (image_embeds[gallery], captions.embeds[rows]))
    ranks = rank(image_embeds, text_embeds, text_to_image)
    return CaptionRanks(*ranks, len(gallery), len(rows), sum(len(images) > 1 for images in images_of_texts))


def group_captions(captions: EmbeddedCaptions, grouping: str) -> tuple[list[int], list[list[int]]]:
    """The captions that are retrieved, and the images of each: see [`rank_captions`]."""
    rows, images_of_texts = {}, {}
    for row, (text, image) in enumerate(zip(captions.texts, captions.images.tolist())):
        key = row if grouping == "separate" else " ".join(text.split())
        if key not in rows or grouping == "group":
            images_of_texts.setdefault(key, {})[image] = None
        rows.setdefault(key, row)
    return list(rows.values()), [list(images) for images in images_of_texts.values()]


def load_benchmarks(names: list[str], data_dir: str | Path, allow_partial: bool = False) -> dict[str, Dataset]:
    """Benchmarks by name. With several, each is in a folder of its name in `data_dir`: see [`load_benchmark`]."""
    folders = {name: Path(data_dir) / (name if len(names) > 1 else "") for name in names}
    return {name: load_benchmark(name, folder, allow_partial=allow_partial) for name, folder in folders.items()}


def format_table(*rows: dict) -> str:
    """The recalls of [`evaluate_retrieval`] as a Markdown table, in %; several models by their names."""
    columns = [f"{direction}_recall@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    titles = ["captions", "images", "texts", *(column.replace("_recall", " R").upper() for column in columns)]
    lines = []
    for row in rows:
        for kind in ("short", "long"):
            if f"{kind}_num_images" in row:
                shared, truncated = row.get(f"{kind}_num_shared_captions"), 100 * row[f"{kind}_truncated"]
                texts = f"{row[f'{kind}_num_captions']}" + f" ({shared} of several images)" * bool(shared)
                texts += f" ({truncated:.0f} % truncated)" * (truncated > 0)
                cells = [kind, str(row[f"{kind}_num_images"]), texts]
                cells += [f"{row[f'{kind}_{column}']:.1f}" for column in columns]
                lines.append([row["model"], *cells] if len(rows) > 1 else cells)
    return format_markdown(["model", *titles] if len(rows) > 1 else titles, lines)


def format_benchmarks(rows: list[dict]) -> str:
    """
    Recall at 1 of every model on every benchmark, as in the paper, and the means. A benchmark that is not complete has
    its size beside its name.
    """
    benchmarks = {row["benchmark"]: row for row in rows}
    titles = []
    for name, row in benchmarks.items():
        kind = find_kind(row)
        num_images, published = row[f"{kind}_num_images"], row["published_num_images"]
        titles.append(name if num_images == published else f"{name} ({num_images} of {published} images)")
    columns = [f"{title} {direction}" for title in [*titles, "average"] for direction in ("I2T", "T2I")]
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        recalls = [[row[f"{find_kind(row)}_{direction}_recall@1"] for row in own] for direction in ("i2t", "t2i")]
        values = [value for pair in zip(*recalls) for value in pair] + [sum(way) / len(way) for way in recalls]
        truncated = 100 * sum(row[f"{find_kind(row)}_truncated"] for row in own) / len(own)
        lines.append([model, *(f"{value:.2f}" for value in values), f"{truncated:.0f}%"])
    return format_markdown(["model", *columns, "truncated"], lines)


def find_kind(row: dict) -> str:
    """The kind of captions of a benchmark, which has one only."""
    return "long" if "long_num_images" in row else "short"

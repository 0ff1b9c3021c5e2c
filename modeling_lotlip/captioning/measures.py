# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How long captions are, how much captioners agree, and how similar captions are to their images."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from heapq import nsmallest
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ..data.arguments import EvaluationSplitArguments, SourceArguments
from ..data.images import read_image, undecoded
from ..data.loading import get_columns, load_split
from ..data.rows import find_column, read_captions, read_key
from ..data.side_captions import REJECTED_COLUMN, SideCaptions, hash_keys
from ..embedding.arguments import InferenceArguments
from ..embedding.batches import embed_corpus
from ..embedding.models import check_device, count_positions, load_model
from ..embedding.rows import Item, RowCollator, embed_rows, load_rows, warn_of_unreadable
from ..evaluation.statistics import TextLengths, load_tokenizer
from ..loading_lotlip import find_pretrained
from ..sub_captions import join_sub_captions, split_sub_captions
from ..terminal import progress_bar
from .arguments import FilterArguments, ReportArguments
from .files import CAPTIONER_COLUMN, get_captioner, read_rows
from .report import shorten


# Texts are sorted by length among those of so many batches of images.
BATCHES_PER_GROUP = 16


def read_kept(files: list[Path], columns: FilterArguments) -> Iterator[list[dict]]:
    """The rows of filtered files whose captions are kept, in batches."""
    names = [columns.caption_column, REJECTED_COLUMN, CAPTIONER_COLUMN, columns.side_key_column]
    for file in files:
        for rows in read_rows(file, names):
            yield [row for row in rows if not row[REJECTED_COLUMN] and row[columns.caption_column] is not None]


def measure_lengths(
    files: list[Path], columns: FilterArguments, tokenizer_path: str, splitter: str = "paper"
) -> tuple[dict[str, TextLengths], np.ndarray]:
    """
    Measures the captions that are kept.

    Args:
        files (`list[Path]`):
            Filtered files.
        columns (`FilterArguments`):
            Their columns.
        tokenizer_path (`str`):
            Counts the tokens.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Returns:
        `tuple[dict[str, TextLengths], np.ndarray]`: the lengths of the captions of each captioner, and where there are
        several of `"all"`; the hashes of the images' keys, sorted, none if there is a row without a key.
    """
    tokenizer = load_tokenizer(tokenizer_path)
    split = partial(split_sub_captions, splitter=splitter)
    lengths, hashes, has_keys = defaultdict(new_lengths), defaultdict(list), True
    for rows in read_kept(files, columns):
        keys = [row.get(columns.side_key_column) for row in rows]
        has_keys &= None not in keys
        for captioner in {get_captioner(row) for row in rows}:
            own = [place for place, row in enumerate(rows) if get_captioner(row) == captioner]
            lengths[captioner].add([rows[place][columns.caption_column] for place in own], tokenizer, split)
            hashes[captioner].append(hash_keys([keys[place] for place in own]))
    keys = {captioner: np.unique(np.concatenate(parts)) for captioner, parts in hashes.items()}
    together = new_lengths()
    for captioner, measured in lengths.items():
        # without keys each row is an image of its own
        measured.num_images = len(keys[captioner]) if has_keys else len(measured.tokens)
        together.sub_captions.extend(measured.sub_captions)
        together.tokens.extend(measured.tokens)
    all_keys = np.unique(np.concatenate(list(keys.values()))) if has_keys else np.empty(0, dtype=np.uint64)
    together.num_images = len(all_keys) if has_keys else len(together.tokens)
    lengths = dict(sorted(lengths.items()))
    return lengths if len(lengths) == 1 else lengths | {"all": together}, all_keys


def new_lengths() -> TextLengths:
    """Lengths in 4 bytes each: there may be many."""
    return TextLengths(sub_captions=array("I"), tokens=array("I"))


def prepare_text(text: str, splitter: str) -> str:
    """A caption as a dual encoder reads it in evaluations."""
    return join_sub_captions(split_sub_captions(text, splitter)) or text


@torch.inference_mode()
def embed_with_text_model(name: str, texts: list[str], inference: InferenceArguments) -> torch.Tensor:
    """
    Normalised embeddings (texts, dim) by a dual encoder, or by an encoder whose states are averaged over the tokens,
    as most of sentence-transformers do.
    """
    check_device(inference.device)
    options = {"trust_remote_code": inference.trust_remote_code}
    try:
        path = find_pretrained(name)
        has_towers = hasattr(AutoConfig.from_pretrained(path, **options), "text_config")
        if not has_towers:
            if inference.backend == "openvino" or inference.dtype == "int8":
                raise ValueError("it is no dual encoder, which `--backend openvino` and `--dtype int8` are for")
            if inference.truncate_dim is not None:
                raise ValueError("it is no dual encoder, which `--truncate_dim` is for")
            model = AutoModel.from_pretrained(path, dtype=getattr(torch, inference.dtype), **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"`--text_model {name}` cannot be used: {error}") from error
    if has_towers:
        model, processor = load_model(name, inference, argument="text_model")
        return embed_corpus(model, processor, texts, max_length=inference.max_length)
    model = model.to(inference.device or PartialState().device).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    limits = [inference.max_length, tokenizer.model_max_length, count_positions(model)]
    max_length = min(limit for limit in limits if limit is not None)
    embeds = []
    for start in range(0, len(texts), inference.batch_size):
        part = texts[start : start + inference.batch_size]
        tokens = tokenizer(part, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        tokens = tokens.to(model.device)
        states, mask = model(**tokens).last_hidden_state.float(), tokens["attention_mask"][..., None]
        embeds.append(torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=-1).cpu())
    return torch.cat(embeds)


def measure_agreement(
    files: list[Path],
    keys: np.ndarray,
    columns: FilterArguments,
    report: ReportArguments,
    inference: InferenceArguments,
    splitter: str = "paper",
) -> dict[str, dict]:
    """
    How similar the captions of two captioners are of the same images, for each two, by `report.text_model`. Images are
    drawn by the hashes of their keys, the same in every run.

    Args:
        files (`list[Path]`):
            Filtered files.
        keys (`np.ndarray`):
            The hashes of the keys of all images, sorted: see [`measure_lengths`].
        columns (`FilterArguments`):
            The columns of the files.
        report (`ReportArguments`):
            The model, and how many images are compared.
        inference (`InferenceArguments`):
            How it is run.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Returns:
        `dict[str, dict]`: for `"a / b"` the number of images, the mean, and the images with the `lowest` similarity.

    Raises:
        `ValueError`: if there are rows without a key.
    """
    if len(keys) == 0:
        raise ValueError(
            f"The captions have no column `--side_key_column {columns.side_key_column}`, which `--text_model` needs "
            "to find those of the same image: name theirs."
        )
    captions = read_comparable(files, keys[: report.max_report_images][-1], columns)
    places = [(key, captioner) for key, texts in captions.items() for captioner in texts]
    if not places:
        return {}
    texts = [prepare_text(captions[key][captioner], splitter) for key, captioner in places]
    embeds = dict(zip(places, embed_with_text_model(report.text_model, texts, inference)))
    results = {}
    for pair in combinations(sorted({captioner for _, captioner in places}), 2):
        both = [key for key, texts in captions.items() if set(pair) <= texts.keys()]
        scores = [float(embeds[key, pair[0]] @ embeds[key, pair[1]]) for key in both]
        if both:
            lowest = [
                {"similarity": score, "key": key, **{name: shorten(captions[key][name]) for name in pair}}
                for score, key in nsmallest(report.num_lowest, zip(scores, both))
            ]
            mean = sum(scores) / len(scores)
            results[" / ".join(pair)] = {"num_images": len(both), "mean": mean, "lowest": lowest}
    return results


def read_comparable(files: list[Path], last: int, columns: FilterArguments) -> dict[str, dict[str, str]]:
    """The first caption of each captioner, by image, of images with several and hashes up to the `last`."""
    captions = defaultdict(dict)
    for rows in read_kept(files, columns):
        is_drawn = hash_keys([row[columns.side_key_column] for row in rows]) <= last
        for row in (rows[place] for place in np.flatnonzero(is_drawn)):
            if row[columns.caption_column].strip():
                own = captions[str(row[columns.side_key_column])]
                own.setdefault(get_captioner(row), row[columns.caption_column])
    return {key: texts for key, texts in captions.items() if len(texts) > 1}


class Similarity(NamedTuple):
    """How similar a caption is to its image."""

    similarity: float
    key: str
    captioner: str
    caption: str


class CaptionedImages:
    """
    Reads the image of a row, and its captions: see [`RowCollator`]. A row without any is left out, and its image not
    read.

    Args:
        captions (`SideCaptions`):
            The captions.
        columns (`FilterArguments`):
            Their columns.
        image_column, key_column (`str`):
            The columns of the images and of their keys.
        splitter (`str`):
            How sub-captions are split: see [`split_sub_captions`].
    """

    def __init__(
        self, captions: SideCaptions, columns: FilterArguments, image_column: str, key_column: str, splitter: str
    ):
        self.captions = captions
        self.columns = columns
        self.image_column, self.key_column = image_column, key_column
        self.splitter = splitter
        self.num_read = 0

    def __call__(self, number: int, row: dict) -> Iterator[Item]:
        self.num_read += 1
        key = read_key(row, self.key_column)
        rows = [] if key is None else self.captions.find_rows(str(key))
        rows = [row for row in rows if read_captions(row, self.columns.caption_column)]
        if rows:
            yield Item(number, "image", read_image(row[self.image_column]))
        for index, found in enumerate(rows):
            caption = found[self.columns.caption_column]
            about = (str(key), get_captioner(found), caption)
            yield Item((number, about), "caption", prepare_text(caption, self.splitter), index)


def measure_similarities(
    files: list[Path],
    columns: FilterArguments,
    report: ReportArguments,
    source: SourceArguments,
    split: EvaluationSplitArguments,
    inference: InferenceArguments,
    splitter: str = "paper",
) -> Iterator[Similarity]:
    """
    The similarity of every caption with its image, by `report.dual_encoder`.

    Args:
        files (`list[Path]`):
            Files of captions.
        columns (`FilterArguments`):
            Their columns.
        report (`ReportArguments`):
            The model, the column of the images' keys, and how many images are compared where no caption is rejected.
        source (`SourceArguments`), split (`EvaluationSplitArguments`):
            The images.
        inference (`InferenceArguments`):
            How the model is run.
        splitter (`str`, *optional*, defaults to `"paper"`):
            How sub-captions are split: see [`split_sub_captions`].

    Raises:
        `ValueError`: if there is no such column of keys, or no image has a caption.
    """
    max_samples = split.max_eval_samples
    if report.min_image_text_similarity is None:
        max_samples = min(report.max_report_images, max_samples or report.max_report_images)
    dataset = undecoded(load_split(source, split.eval_split, max_samples), source.image_column)
    names, key_column = get_columns(dataset), report.key_column or columns.side_key_column
    if find_column(names, key_column) is None:
        raise ValueError(
            f"`--key_column {key_column}` is no column of the data set, which has {names}: name the one whose values "
            "stand in `--side_key_column` of `--captions`."
        )
    caption_columns = [columns.caption_column] + [CAPTIONER_COLUMN] * any(map(has_captioner, files))
    captions = SideCaptions(
        [str(file) for file in files], columns.side_key_column, caption_columns, str(files[0].parent)
    )
    read_row = CaptionedImages(captions, columns, source.image_column, key_column, splitter)
    model, processor = load_model(report.dual_encoder, inference, argument="dual_encoder")
    loader = load_rows(dataset, RowCollator(processor, read_row, inference.max_length), inference.batch_size)
    group_size = BATCHES_PER_GROUP * inference.batch_size
    num_found, image_embeds, group = 0, {}, None
    loader = progress_bar(loader, desc="Images", unit=" batches")
    for embedded in embed_rows(model, processor, loader, group=lambda number: number // group_size):
        warn_of_unreadable(embedded.unreadable)
        if embedded.group != group:
            group, image_embeds = embedded.group, {}
        for item, embed in zip(embedded.items, [] if embedded.embeds is None else embedded.embeds):
            if item.kind == "image":
                image_embeds[item.row] = embed
            else:
                number, about = item.row
                num_found += 1
                yield Similarity(float(image_embeds[number] @ embed), *about)
    if num_found == 0:
        raise ValueError(
            f"None of {read_row.num_read} images has a caption in `--captions`: name the right `--key_column` and "
            "`--side_key_column`."
        )


def has_captioner(file: Path) -> bool:
    """Whether a file has a column of captioners."""
    rows = next(read_rows(file, [CAPTIONER_COLUMN]), [])
    return bool(rows) and CAPTIONER_COLUMN in rows[0]


def hash_captions(captions: list[tuple[str, str]]) -> list[int]:
    """Hashes of 64 bits of captions with the keys of their images."""
    return hash_keys([f"{key}\0{caption}" for key, caption in captions]).tolist()


def summarize_similarities(similarities: Iterable[Similarity], report: ReportArguments) -> tuple[dict, set[int]]:
    """
    The mean similarity of the captions of each captioner with their images, and the lowest ones; and the hashes of the
    captions below `report.min_image_text_similarity`.
    """
    sums, counts, lowest, unlike = Counter(), Counter(), [], set()
    threshold = report.min_image_text_similarity
    for entry in similarities:
        sums[entry.captioner] += entry.similarity
        counts[entry.captioner] += 1
        lowest = nsmallest(report.num_lowest, [*lowest, entry])
        if threshold is not None and entry.similarity < threshold:
            unlike.update(hash_captions([(entry.key, entry.caption)]))
    captioners = {name: {"num_captions": count, "mean": sums[name] / count} for name, count in sorted(counts.items())}
    shown = [entry._replace(caption=shorten(entry.caption))._asdict() for entry in lowest]
    return {"model": report.dual_encoder, "captioners": captioners, "lowest": shown}, unlike

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The data table of the paper: images, texts, sub-captions and tokens per text, and the fraction of texts that are too
long for a model.

Tokens are those of the text as it is, without special tokens and without truncation; the paper counts word pieces of
BERT uncased. What a model truncates is counted apart: of the text as LoTLIP reads it, with `[CLS]`, a `[SEP]` after
each sub-caption, and the corner tokens.
"""

import os
from dataclasses import dataclass, field
from itertools import chain

from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from .. import LotlipTextConfig, LotlipTokenizer
from ..data.images import unformatted
from ..data.reader import RowCounts, RowReader
from ..data.rows import batched, name_row
from ..hub_lotlip import find_pretrained
from ..utils.markdown import format_markdown
from ..utils.sub_captions import mark_sub_captions, split_sub_captions


logger = logging.get_logger(__name__)

# Positions of models: CLIP 77, LoTLIP 128, and the longer limits of the paper.
LIMITS = (77, 128, 192, 256)
CLIP_LIMIT = 77  # without corner tokens
ROWS_PER_BATCH = 100


@dataclass
class TextLengths:
    """
    How many images have texts of one kind, and how many sub-captions and tokens each text has.

    Attributes:
        num_images (`int`): The images with a text.
        sub_captions (`list[int]`): The sub-captions of each text.
        tokens (`list[int]`): The tokens of each text as it is, without special ones.
        read_tokens (`list[int]`): The tokens of each text as a model reads it, special ones included, corners not.
        num_corner_tokens (`int`): The corner tokens of that model.
    """

    num_images: int = 0
    sub_captions: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    read_tokens: list[int] = field(default_factory=list)
    num_corner_tokens: int = 0


def load_tokenizer(tokenizer_path: str) -> PreTrainedTokenizerBase:
    """
    Loads a tokenizer that counts the pieces of a text as it is: instead of LoTLIP's, which cleans texts and marks
    sub-captions, BERT's with the same words. A folder may hold nothing but BERT's `vocab.txt`.

    Raises:
        `ValueError`: if there is no tokenizer.
    """
    try:
        path = find_pretrained(tokenizer_path)
        is_file_of_words = os.path.isdir(path) and not any(name.endswith(".json") for name in os.listdir(path))
        tokenizer = (BertTokenizer if is_file_of_words else AutoTokenizer).from_pretrained(path)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without words
            raise ValueError("there is no vocabulary. Name the folder or the Hub id of a tokenizer.")
    except (OSError, ValueError) as error:
        raise ValueError(f"`--tokenizer_path {tokenizer_path}` cannot be used: {error}") from error
    if isinstance(tokenizer, LotlipTokenizer):
        return BertTokenizer(
            vocab=tokenizer.get_vocab(),
            do_lower_case=tokenizer.do_lower_case,
            tokenize_chinese_chars=tokenizer.tokenize_chinese_chars,
            strip_accents=tokenizer.strip_accents,
        )
    return tokenizer


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    """Returns the number of tokens of each text, without special ones and without truncation."""
    tokens = tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)
    return [len(ids) for ids in tokens["input_ids"]]


def make_reading_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """LoTLIP's tokenizer with the words of BERT's; one of another kind as it is."""
    if not isinstance(tokenizer, BertTokenizer):
        return tokenizer
    return LotlipTokenizer(
        vocab=tokenizer.get_vocab(),
        do_lower_case=tokenizer.do_lower_case,
        tokenize_chinese_chars=tokenizer.tokenize_chinese_chars,
        strip_accents=tokenizer.strip_accents,
    )


def count_read_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    """Returns the number of tokens of each text as a model reads it, special ones included, without truncation."""
    tokens = tokenizer(texts, truncation=False, padding=False, verbose=False)
    return [len(ids) for ids in tokens["input_ids"]]


def measure_texts(
    dataset: Dataset | IterableDataset, reader: RowReader, tokenizer: PreTrainedTokenizerBase
) -> dict[str, TextLengths]:
    """
    Returns the lengths of `"long"` and of `"short"` captions of a dataset, of those that are there; images are not
    decoded. A warning says how many images have no captions in caption files, unless [`RowReader.report_keys`] knows
    that. Captions that are no texts are left out and named.

    Raises:
        `ValueError`: if there are none.
    """
    counts = RowCounts()
    reading_tokenizer = make_reading_tokenizer(tokenizer)
    num_corner_tokens = 0
    if isinstance(reading_tokenizer, LotlipTokenizer):
        num_corner_tokens = LotlipTextConfig().num_corner_tokens
    lengths = {kind: TextLengths(num_corner_tokens=num_corner_tokens) for kind in ("long", "short")}
    for rows in batched(unformatted(dataset).select_columns(reader.text_columns), ROWS_PER_BATCH):
        captions = {"long": [], "short": []}
        for row in rows:
            short_captions, long_captions, unmatched_key = reader.read_all_captions(counts.num_rows, row)
            # one without a sub-caption is neither trained on nor evaluated
            long_captions = [text for text in long_captions if split_sub_captions(text, reader.splitter)]
            captions["long"].append(long_captions)
            captions["short"].append(short_captions)
            counts.count(name_row(row, counts.num_rows), unmatched=unmatched_key)
        for kind, row_texts in captions.items():
            texts = list(chain.from_iterable(row_texts))
            if not texts:
                continue
            lengths[kind].num_images += sum(map(bool, row_texts))
            lengths[kind].sub_captions += [len(split_sub_captions(text, reader.splitter)) for text in texts]
            lengths[kind].tokens += count_tokens(tokenizer, texts)
            if kind == "long":
                texts = [mark_sub_captions(text, reader.splitter) for text in texts]
            lengths[kind].read_tokens += count_read_tokens(reading_tokenizer, texts)
    reader.check_counts(counts, dataset)
    reader.report_counts(counts, dataset)
    lengths = {kind: measured for kind, measured in lengths.items() if measured.tokens}
    if not lengths:
        raise ValueError("No image has a caption: there is nothing to measure.")
    return lengths


def summarize_lengths(lengths: TextLengths) -> dict:
    """
    Summarizes lengths in a row of the data table.

    Returns:
        `dict`: `num_images`, `num_texts`, `sub_captions_per_text`, `tokens_per_text`, `max_tokens`, under
        `share_beyond` the fraction of texts, between 0 and 1, that have more tokens than each limit, as in the paper,
        and under `fraction_truncated` the fraction that a model of so many positions truncates.
    """
    num_texts = len(lengths.tokens)
    beyond = {}
    truncated = {}
    for limit in LIMITS:
        beyond[str(limit)] = sum(tokens > limit for tokens in lengths.tokens) / num_texts
        max_tokens = limit
        if limit != CLIP_LIMIT:
            max_tokens -= lengths.num_corner_tokens
        truncated[str(limit)] = sum(tokens > max_tokens for tokens in lengths.read_tokens) / num_texts
    return {
        "num_images": lengths.num_images,
        "num_texts": num_texts,
        "sub_captions_per_text": sum(lengths.sub_captions) / num_texts,
        "tokens_per_text": sum(lengths.tokens) / num_texts,
        "max_tokens": max(lengths.tokens),
        "share_beyond": beyond,
        "fraction_truncated": truncated,
    }


def format_statistics(name: str, statistics: dict[str, dict]) -> str:
    """Formats the statistics of each kind of caption as a Markdown table, fractions in %."""
    titles = ["data", "captions", "images", "texts", "sub-captions per text", "tokens per text"]
    titles += [f"> {limit} tokens" for limit in LIMITS]
    titles += [f"truncated at {limit}" for limit in LIMITS]
    rows = []
    for kind, row in statistics.items():
        cells = [name, kind, str(row["num_images"]), str(row["num_texts"])]
        cells += [f"{row['sub_captions_per_text']:.2f}", f"{row['tokens_per_text']:.2f}"]
        for fractions in (row["share_beyond"], row["fraction_truncated"]):
            cells += [f"{100 * fraction:.1f} %" for fraction in fractions.values()]
        rows.append(cells)
    return format_markdown(titles, rows)

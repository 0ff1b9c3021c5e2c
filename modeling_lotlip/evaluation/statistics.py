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
The data table of the paper for any data set or benchmark: images, texts, sub-captions and tokens per text, and the
share of texts that are too long for a model.

    python examples/dataset_statistics.py --dataset_name imagefolder --data_dir FOLDER --eval_split train
    python examples/dataset_statistics.py --benchmark iiw --data_dir FOLDER --text_only --output_file iiw.json

A sub-caption ends at a line break, at "</s>" or at a full stop, or where `--sub_caption_splitter` says. Tokens are
those of the text as it is, without special tokens and without truncation; the paper counts word pieces of BERT
uncased. Beside `--output_file` a picture shows how long the texts are.
"""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from .. import LotlipTokenizer
from ..data.arguments import HelpFormatter, add_data_arguments, add_side_file_arguments
from ..data.captions import CaptionReader
from ..data.images import undecoded
from ..data.loading import get_columns, load_split
from ..data.published import BENCHMARKS, get_benchmark, load_benchmark
from ..files import write_json


# Tokens that models take: CLIP 77, LoTLIP 128, and the longer limits of the paper.
LIMITS = (77, 128, 192, 256)
TEXTS_PER_BATCH = 1000
MAX_BINS = 60


@dataclass
class TextLengths:
    """
    How long the texts of one kind are.

    Args:
        num_images (`int`, *optional*, defaults to 0):
            Images with such a text.
        sub_captions (`list[int]`, *optional*):
            The number of sub-captions of each text.
        tokens (`list[int]`, *optional*):
            The number of tokens of each text.
    """

    num_images: int = 0
    sub_captions: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add(self, texts: list[str], tokenizer: PreTrainedTokenizerBase, split: Callable[[str], list[str]]) -> None:
        """Measures texts, which `split` splits into sub-captions."""
        if texts:
            self.sub_captions.extend(len(split(text)) for text in texts)
            self.tokens.extend(count_tokens(tokenizer, texts))


def load_tokenizer(tokenizer_path: str) -> PreTrainedTokenizerBase:
    """
    A tokenizer that counts the pieces of a text as it is: in the place of LoTLIP's, which cleans texts and marks
    sub-captions, BERT's with the same words.

    Args:
        tokenizer_path (`str`):
            A Hub id, or a folder of a tokenizer or of a model, or with nothing but BERT's `vocab.txt`.
    """
    if os.path.isdir(tokenizer_path) and not any(name.endswith(".json") for name in os.listdir(tokenizer_path)):
        return BertTokenizer.from_pretrained(tokenizer_path)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    if isinstance(tokenizer, LotlipTokenizer):
        return BertTokenizer(
            vocab=tokenizer.get_vocab(),
            do_lower_case=tokenizer.do_lower_case,
            tokenize_chinese_chars=tokenizer.tokenize_chinese_chars,
            strip_accents=tokenizer.strip_accents,
        )
    return tokenizer


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    """The number of tokens of each text, without special ones and without truncation."""
    tokens = tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)
    return [len(ids) for ids in tokens["input_ids"]]


def measure_texts(
    dataset: Dataset | IterableDataset, reader: CaptionReader, tokenizer: PreTrainedTokenizerBase
) -> dict[str, TextLengths]:
    """
    Measures the captions of a data set; images are not decoded.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The data set.
        reader (`CaptionReader`):
            Reads the captions of its rows.
        tokenizer (`PreTrainedTokenizerBase`):
            Counts the tokens.

    Returns:
        `dict[str, TextLengths]`: the lengths of `"long"` and of `"short"` captions, of those that are there.

    Raises:
        `ValueError`: if there are none.
    """
    lengths = {"long": TextLengths(), "short": TextLengths()}
    pending = {kind: [] for kind in lengths}

    def count(kind: str) -> None:
        lengths[kind].add(pending[kind], tokenizer, reader.sub_captions)
        pending[kind].clear()

    for row in dataset.select_columns(reader.columns):
        for kind, texts in (("long", reader.long_captions(row)), ("short", reader.short_captions(row))):
            lengths[kind].num_images += bool(texts)
            pending[kind] += texts
            if len(pending[kind]) >= TEXTS_PER_BATCH:
                count(kind)
    for kind in lengths:
        count(kind)
    lengths = {kind: measured for kind, measured in lengths.items() if measured.tokens}
    if not lengths:
        raise ValueError("No image has a caption: there is nothing to measure.")
    return lengths


def summarize(lengths: TextLengths) -> dict:
    """
    The row of the data table.

    Args:
        lengths (`TextLengths`):
            The lengths of texts of one kind.

    Returns:
        `dict`: `num_images`, `num_texts`, `sub_captions_per_text`, `tokens_per_text`, `max_tokens`, and under
        `share_beyond` the share of texts, between 0 and 1, that have more tokens than each limit.

    Example:

    ```python
    >>> from modeling_lotlip.evaluation.statistics import TextLengths, summarize

    >>> statistics = summarize(TextLengths(num_images=2, sub_captions=[1, 4], tokens=[20, 130]))
    >>> statistics["tokens_per_text"], statistics["share_beyond"]
    (75.0, {'77': 0.5, '128': 0.5, '192': 0.0, '256': 0.0})
    ```"""
    num_texts = len(lengths.tokens)
    return {
        "num_images": lengths.num_images,
        "num_texts": num_texts,
        "sub_captions_per_text": sum(lengths.sub_captions) / num_texts,
        "tokens_per_text": sum(lengths.tokens) / num_texts,
        "max_tokens": max(lengths.tokens),
        "share_beyond": {str(limit): sum(tokens > limit for tokens in lengths.tokens) / num_texts for limit in LIMITS},
    }


def format_table(name: str, statistics: dict[str, dict]) -> str:
    """The statistics of each kind of caption as a Markdown table, shares in per cent."""
    limits = [f"> {limit} tokens" for limit in LIMITS]
    header = ["data", "captions", "images", "texts", "sub-captions per text", "tokens per text", *limits]
    lines = [f"| {' | '.join(header)} |", "| " + " | ".join(["---"] * len(header)) + " |"]
    for kind, row in statistics.items():
        averages = f"{row['sub_captions_per_text']:.2f} | {row['tokens_per_text']:.2f}"
        shares = " | ".join(f"{100 * share:.1f} %" for share in row["share_beyond"].values())
        lines.append(f"| {name} | {kind} | {row['num_images']} | {row['num_texts']} | {averages} | {shares} |")
    return "\n".join(lines)


def plot_lengths(lengths: dict[str, TextLengths], name: str, path: Path) -> None:
    """
    Draws histograms of the tokens and of the sub-captions of the texts.

    Args:
        lengths (`dict[str, TextLengths]`):
            The lengths of each kind of caption.
        name (`str`):
            The name of the data, for the title.
        path (`Path`):
            The picture to write.
    """
    # not at the top: the table does not need it
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.5 * len(lengths)), layout="constrained")
    figure.suptitle(name)
    for (kind, measured), (tokens, sub_captions) in zip(
        lengths.items(), figure.subplots(len(lengths), 2, squeeze=False)
    ):
        width = math.ceil((max(measured.tokens) + 1) / MAX_BINS)
        tokens.hist(measured.tokens, bins=range(0, max(measured.tokens) + width + 1, width))
        for limit in LIMITS:
            if limit <= max(measured.tokens):
                tokens.axvline(limit, color="black", linestyle="--", linewidth=0.8)
                tokens.annotate(str(limit), (limit, 1), xycoords=("data", "axes fraction"), va="bottom", ha="center")
        tokens.set(xlabel="tokens", ylabel=f"{kind} captions")
        edges = [count - 0.5 for count in range(max(measured.sub_captions) + 2)]
        sub_captions.hist(measured.sub_captions, bins=edges)
        sub_captions.set(xlabel="sub-captions")
        for axes in (tokens, sub_captions):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    parser.add_argument("--benchmark", help=f"A benchmark in --data_dir: {', '.join(BENCHMARKS)}.")
    parser.add_argument("--text_only", action="store_true", help="A benchmark's images need not be there.")
    parser.add_argument("--allow_partial", action="store_true", help="Take what is there of a benchmark.")
    parser.add_argument(
        "--tokenizer_path",
        default="google-bert/bert-base-uncased",
        help="A Hub id or a folder of a tokenizer; the paper counts with BERT uncased.",
    )
    parser.add_argument(
        "--output_file",
        type=Path,
        help="Write the statistics to this JSON file, and a picture of the same name (.png).",
    )
    args = parser.parse_args()
    if args.benchmark is not None and (args.data_dir is None or args.dataset_name is not None):
        parser.error("--benchmark needs --data_dir, the folder of its files, and no --dataset_name.")
    if args.benchmark is None and args.allow_partial:
        parser.error("--allow_partial is for a --benchmark.")

    results = {"tokenizer": args.tokenizer_path, "sub_caption_splitter": args.sub_caption_splitter}
    if args.benchmark is not None:
        benchmark = get_benchmark(args.benchmark)
        if benchmark.task == "classification":
            parser.error(f"--benchmark {benchmark.name} has no texts.")
        name = benchmark.name
        dataset = load_benchmark(name, args.data_dir, args.text_only, args.allow_partial)
        dataset = dataset if args.max_eval_samples is None else dataset.take(args.max_eval_samples)
        results |= {"published_num_images": benchmark.num_images, "published_num_texts": benchmark.num_texts}
    else:
        name = args.dataset_name or "scenes"
        dataset = load_split(args, args.eval_split, args.max_eval_samples, with_images=False)
    if args.image_column in get_columns(dataset):
        dataset = undecoded(dataset, args.image_column)
    reader = CaptionReader(get_columns(dataset), args, args, args.image_column)
    lengths = measure_texts(dataset, reader, load_tokenizer(args.tokenizer_path))
    statistics = {kind: summarize(measured) for kind, measured in lengths.items()}

    print(format_table(name, statistics))
    if args.output_file is not None:
        # the data table's row at the top: of long captions where there are any
        kind, *others = statistics
        results = {"dataset": name, "captions": kind, **statistics[kind], **results}
        write_json(args.output_file, results | {other: statistics[other] for other in others})
        plot_lengths(lengths, name, args.output_file.with_suffix(".png"))


if __name__ == "__main__":
    main()

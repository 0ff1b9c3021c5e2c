# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The data table of the paper for any dataset or benchmark: images, texts, sub-captions and tokens per text, and the
fraction of texts that are too long for a model.

    lotlip statistics --dataset_name my_photos --eval_split train
    lotlip statistics --benchmark iiw --data_dir iiw --text_only --output_file iiw.json

Tokens are counted without special tokens and without truncation; the paper counts word pieces of BERT uncased. How
many texts a model truncates, by `[CLS]`, `[SEP]` and the corner tokens some more, has columns of its own.
"""

from dataclasses import dataclass

from ..data.arguments import CaptionArguments, CaptionFileArguments, EvaluationSplitArguments, SourceArguments
from ..encoder.arguments import OutputArguments
from ..evaluation.arguments import check_benchmark
from ..utils.arguments import Arguments, argument


@dataclass
class StatisticsArguments(Arguments):
    """What is measured, and how tokens are counted."""

    benchmark: str | None = argument(
        None,
        "A benchmark of the paper by name, such as `iiw`, in --data_dir.",
    )
    text_only: bool = argument(
        False,
        "The images of a benchmark need not be there.",
        requires="benchmark",
    )
    allow_partial: bool = argument(
        False,
        "Accept a benchmark with missing files.",
        requires="benchmark",
    )
    tokenizer_path: str = argument(
        "google-bert/bert-base-uncased",
        "A Hub id or a folder of a tokenizer; the paper counts with BERT uncased.",
    )


ARGUMENTS = (
    StatisticsArguments,
    SourceArguments,
    EvaluationSplitArguments,
    CaptionArguments,
    CaptionFileArguments,
    OutputArguments,
)


def run(
    statistics: StatisticsArguments,
    source: SourceArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    caption_files: CaptionFileArguments,
    output: OutputArguments,
) -> None:
    """
    Counts the texts of a dataset, and prints and writes a table.

    Args:
        statistics ([`StatisticsArguments`]): What is counted.
        source ([`SourceArguments`]): The dataset.
        split ([`EvaluationSplitArguments`]): What of it is read.
        captions ([`CaptionArguments`]): The columns of the captions.
        caption_files ([`CaptionFileArguments`]): Files of further captions.
        output ([`OutputArguments`]): Where the results go.
    """
    from ..data.benchmarks import get_benchmark, load_benchmark
    from ..data.image_column import cast_images
    from ..data.images import undecoded
    from ..data.loading import load_split
    from ..data.reader import RowReader
    from ..data.repeated_images import warn_of_images_counted_again
    from ..data.rows import check_columns, get_columns
    from ..evaluation.statistics import format_statistics, load_tokenizer, measure_texts, summarize_lengths
    from ..utils.files import write_results
    from ..utils.terminal import print_tables

    conditions = {"tokenizer": statistics.tokenizer_path, "sub_caption_splitter": captions.sub_caption_splitter}
    if statistics.benchmark is None:
        name = source.dataset_title or "scenes"
        key_column = caption_files.image_key_column
        # images are read where their hashes are keys
        with_images = caption_files.caption_files is not None and key_column == source.image_column
        how = {"with_images": with_images, "key_column": key_column}
        dataset = load_split(source, split.eval_split, split.max_eval_samples, **how)
        columns = get_columns(dataset)
        if source.image_column != SourceArguments().image_column:
            check_columns(columns, image_column=source.image_column)
        # a stream of a JSON list does not say its types
        if source.image_column in columns and dataset.features is not None:
            dataset = cast_images(dataset, source.image_column)
    else:
        check_benchmark(source, split, is_whole=False)
        benchmark = get_benchmark(statistics.benchmark)
        name = statistics.benchmark
        dataset = load_benchmark(name, source.data_dir, statistics.text_only, statistics.allow_partial)
        dataset = dataset if split.max_eval_samples is None else dataset.take(split.max_eval_samples)
        conditions |= {"published_num_images": benchmark.num_images, "published_num_texts": benchmark.num_texts}

    columns = get_columns(dataset)
    if source.image_column in columns:
        dataset = undecoded(dataset, source.image_column)
        warn_of_images_counted_again(dataset, source.image_column)
    reader = RowReader.of(dataset, captions, caption_files, source.image_column)
    reader.report_keys(dataset)
    lengths = measure_texts(dataset, reader, load_tokenizer(statistics.tokenizer_path))
    measured = {kind: summarize_lengths(text_lengths) for kind, text_lengths in lengths.items()}
    table = format_statistics(name, measured)
    # the file first: whoever reads the table, such as `head`, may have seen enough
    try:
        if output.output_file is not None:
            # the data table's row at the top: of long captions where there are any
            kind, *others = measured
            results = {"dataset": name, "captions": kind, **measured[kind], **conditions}
            results |= {other: measured[other] for other in others}
            rows = [{"dataset": name, "captions": kind, **summary, **conditions} for kind, summary in measured.items()]
            write_results(output.output_file, results, table, rows)
    finally:
        print_tables(table)

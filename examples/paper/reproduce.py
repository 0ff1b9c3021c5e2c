# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
The published numbers beside those that are measured here: retrieval on every benchmark of the paper whose files are in
a folder, and how long the texts are.

    python examples/paper/reproduce.py --data_root BENCHMARKS --output_file outputs/reproduction.json
    python examples/paper/reproduce.py --data_root BENCHMARKS --text_only --tokenizer_path BERT

`BENCHMARKS` has a folder for each benchmark, of its name: dci, iiw, sharegpt4v-1k, sharegpt4v-10k, urban1k,
coco, flickr30k. `docs/reproduce.md` lists the files. The published numbers are in `published.json` beside
this file. A number is reproduced if it rounds to the published one.

Benchmarks that are not there, or whose images are not there, are named. What is measured on part of a benchmark is not
judged.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from modeling_lotlip import DualEncoder
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.benchmarks import BENCHMARKS, load_benchmark
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.encoder.arguments import InferenceArguments, OutputArguments
from modeling_lotlip.encoder.dual_encoder import find_models, load_encoder
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from modeling_lotlip.evaluation.statistics import load_tokenizer, measure_texts, summarize_lengths
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.utils.files import write_results
from modeling_lotlip.utils.markdown import format_markdown


PUBLISHED = Path(__file__).with_name("published.json")
TEXT_COLUMNS = ("num_texts", "sub_captions_per_text", "tokens_per_text")
TITLES = ["model", "benchmark", "measure", "published", "source", "measured", "difference", "verdict"]
REPRODUCED = "reproduced"
DIFFERENT = "different"
# A published number may be the nearest one to what is measured, up to the rounding of floating point
ROUNDING = 1e-9


@dataclass
class ReproductionArguments(Arguments):
    """Where the benchmarks are, and which models are evaluated."""

    data_root: Path = argument(Path("benchmarks"), "The folder with a folder for each benchmark.")
    model_name_or_path: list[str] = argument(
        [
            "weiwu-ww/LoTLIP-ViT-B-16-100M",
            "weiwu-ww/LoTLIP-ViT-B-32-100M",
            "openai/clip-vit-base-patch16",
        ],
        "The models. One in a folder of your own has no published numbers, unless --published has some.",
        aliases=("--model",),
    )
    published: Path = argument(PUBLISHED, "A JSON file of published numbers.")
    text_only: bool = argument(
        False,
        "Measure how long the texts are, and load no model: images need not be there.",
    )
    allow_partial: bool = argument(
        False,
        "Accept a benchmark with missing files. It is measured, and not judged.",
    )
    tokenizer_path: str = argument(
        "google-bert/bert-base-uncased",
        "Counts the tokens of texts; the paper uses BERT.",
    )
    dataloader_num_workers: int = argument(0, "Processes that decode and tokenize.", least=0)

    def __post_init__(self):
        super().__post_init__()
        if not self.data_root.is_dir():
            raise ValueError(f"--data_root {self.data_root} is no folder: make it, with a folder for each benchmark.")


class Comparison(NamedTuple):
    """
    A number that was measured, and the same one as published.

    Args:
        model (`str`):
            The model that it is of, empty for one of texts.
        benchmark (`str`):
            The benchmark.
        measure (`str`):
            What was measured.
        measured (`float`):
            Its value here.
        published (`float`, *optional*):
            Its value in a publication; None if none gives it.
        source (`str`, *optional*):
            The publication, one of the `sources` in `published.json`.
        is_partial (`bool`, *optional*, defaults to `False`):
            Whether part of the benchmark was measured.

    Example:

    ```python
    >>> from examples.paper.reproduce import Comparison

    >>> Comparison("", "iiw", "tokens_per_text", 239.7271, 239.73, "paper").verdict
    'reproduced'
    >>> Comparison("clip", "dci", "i2t", 45.4, 45.45, "repository").verdict
    'different'
    ```"""

    model: str
    benchmark: str
    measure: str
    measured: float
    published: float | None = None
    source: str | None = None
    is_partial: bool = False

    @property
    def decimals(self) -> int:
        """How many the publication gives: two of shares and means, none of counts."""
        if isinstance(self.published, int):
            return 0
        return 2

    @property
    def verdict(self) -> str:
        """Whether both are equal at the rounding of the publication; empty if there is nothing to judge."""
        if self.published is None or self.is_partial:
            return ""
        half = 0.5 * 10**-self.decimals
        if abs(self.measured - self.published) <= half + ROUNDING:
            return REPRODUCED
        return DIFFERENT


def find_benchmarks(data_root: Path) -> list[str]:
    """Returns the names of the benchmarks that have a folder."""
    return [name for name in BENCHMARKS if (data_root / name).is_dir()]


def measure_lengths(name: str, args: ReproductionArguments) -> tuple[dict[str, float], bool]:
    """Returns how long the texts of a benchmark are, and whether some of them are missing."""
    dataset = load_benchmark(
        name,
        args.data_root / name,
        text_only=True,
        allow_partial=args.allow_partial,
    )
    reader = RowReader(dataset.column_names, CaptionArguments())
    ((_, lengths),) = measure_texts(dataset, reader, load_tokenizer(args.tokenizer_path)).items()
    row = summarize_lengths(lengths)
    is_partial = row["num_texts"] < BENCHMARKS[name].num_texts
    return {column: row[column] for column in TEXT_COLUMNS}, is_partial


def measure_benchmark(
    name: str, dataset: Dataset, encoder: DualEncoder, batch_size: int = 64, num_workers: int = 0
) -> tuple[dict[str, float], bool]:
    """
    Measures recall at 1 in both directions on a benchmark.

    Args:
        name (`str`):
            The benchmark.
        dataset (`Dataset`):
            Its images and captions.
        encoder (`DualEncoder`):
            The model.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode and tokenize.

    Returns:
        `tuple[dict[str, float], bool]`: the recalls, `i2t` and `t2i`, and whether some of the images are missing or
        cannot be read.
    """
    results = evaluate_retrieval(
        encoder,
        dataset,
        group_equal_captions=False,  # published numbers count one image for a text
        batch_size=batch_size,
        num_workers=num_workers,
    )
    length = "short"
    if "long_i2t_recall@1" in results:
        length = "long"
    measured = {direction: results[f"{length}_{direction}_recall@1"] for direction in ("i2t", "t2i")}
    num_images = len(dataset) - results.get("num_unreadable_images", 0)
    return measured, num_images < BENCHMARKS[name].num_images


def compare_with_published(
    model: str, benchmark: str, measured: dict[str, float], published: list[dict], is_partial: bool
) -> Iterator[Comparison]:
    """
    Yields what was measured beside each publication of it, or by itself where there is none.

    Args:
        model (`str`):
            The model, empty for measures of texts.
        benchmark (`str`):
            The benchmark.
        measured (`dict[str, float]`):
            The numbers by their names.
        published (`list[dict]`):
            Rows of the file of published numbers.
        is_partial (`bool`):
            Whether part of the benchmark was measured.
    """
    rows = [row for row in published if row["benchmark"] == benchmark and row.get("model", "") == model]
    for measure, value in measured.items():
        of_measure = [row for row in rows if measure in row]
        for row in of_measure:
            yield Comparison(model, benchmark, measure, value, row[measure], row["source"], is_partial)
        if not of_measure:
            yield Comparison(model, benchmark, measure, value, is_partial=is_partial)


def format_cells(row: Comparison) -> list[str]:
    """Returns the cells of the table for a number and a publication."""
    verdict = row.verdict
    if row.is_partial:
        verdict = "part of the benchmark"
    if row.published is None:
        return [row.model, row.benchmark, row.measure, "", "", f"{row.measured:.2f}", "", verdict]
    digits = row.decimals
    return [
        row.model,
        row.benchmark,
        row.measure,
        f"{row.published:.{digits}f}",
        row.source,
        f"{row.measured:.{digits}f}",
        f"{row.measured - row.published:+.{digits}f}",
        verdict,
    ]


def measure_all_texts(
    names: list[str], args: ReproductionArguments, published: list[dict]
) -> tuple[list[Comparison], dict[str, Dataset], list[str]]:
    """
    Measures the texts of benchmarks, and loads their images unless texts are all that is measured.

    Args:
        names (`list[str]`): The benchmarks.
        args (`ReproductionArguments`): Where they are, and what is measured.
        published (`list[dict]`): The published numbers of texts.

    Returns:
        `tuple[list[Comparison], dict[str, Dataset], list[str]]`: what was measured, the benchmarks that models are
        evaluated on, and a sentence on each one that cannot be read; the others are measured all the same.
    """
    comparisons = []
    datasets = {}
    notes = []
    for name in names:
        try:
            measured, is_partial = measure_lengths(name, args)
            comparisons += compare_with_published("", name, measured, published, is_partial)
            if not args.text_only:
                datasets[name] = load_benchmark(name, args.data_root / name, allow_partial=args.allow_partial)
        except (FileNotFoundError, ValueError) as error:
            notes.append(f"{name} is not evaluated: {error}")
    return comparisons, datasets, notes


def main() -> None:
    args, inference, output = parse(
        (ReproductionArguments, InferenceArguments, OutputArguments),
        description=__doc__,
    )
    published = json.loads(args.published.read_text(encoding="utf-8"))
    names = find_benchmarks(args.data_root)
    comparisons, datasets, notes = measure_all_texts(names, args, published["texts"])
    missing = [name for name in BENCHMARKS if name not in names]
    if missing:
        notes.insert(0, f"Not in {args.data_root}: {', '.join(missing)}.")
    if datasets:
        for model_name in find_models(args.model_name_or_path):
            encoder = load_encoder(model_name, inference)
            for name, dataset in datasets.items():
                measured, is_partial = measure_benchmark(
                    name, dataset, encoder, inference.batch_size, args.dataloader_num_workers
                )
                comparisons += compare_with_published(model_name, name, measured, published["retrieval"], is_partial)
    if not comparisons:
        raise ValueError(f"--data_root {args.data_root} has no benchmark with files: {' '.join(notes)}")

    verdicts = [row.verdict for row in comparisons if row.verdict]
    paragraphs = [
        format_markdown(TITLES, [format_cells(row) for row in comparisons]),
        f"{verdicts.count(REPRODUCED)} of {len(verdicts)} published numbers reproduced.",
        *notes,
    ]
    page = "\n\n".join(paragraphs)
    print(page)
    if output.output_file is not None:
        rows = [row._asdict() | {"verdict": row.verdict} for row in comparisons]
        results = {"rows": rows, "sources": published["sources"], "notes": notes}
        write_results(output.output_file, results, page, rows)


if __name__ == "__main__":
    with exit_on_error("reproduce.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of captions through the rules: mended where they can be, else marked with the rule that rejects them."""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..data.arguments import EvaluationSplitArguments, SourceArguments
from ..data.side_captions import REJECTED_COLUMN, hash_keys
from ..embedding.arguments import InferenceArguments
from ..evaluation.statistics import plot_lengths, summarize
from ..sub_captions import split_sub_captions
from ..terminal import progress_bar
from .arguments import SIMILARITY_RULE, FilterArguments, ReportArguments, RuleArguments
from .files import CAPTIONER_COLUMN, PROMPT_COLUMN, find_files, get_captioner, rewrite
from .measures import (
    hash_captions,
    measure_agreement,
    measure_lengths,
    measure_similarities,
    summarize_similarities,
)
from .report import Outcomes, write_report
from .rules import apply_rules


class CaptionFilter:
    """
    Applies the rules to rows, in two passes: to each caption by itself, then to all together. In memory is a hash of
    64 bits of every caption that is kept.

    Args:
        columns (`FilterArguments`):
            The columns of captions and of the images' keys.
        rules (`RuleArguments`):
            The rules.
    """

    def __init__(self, columns: FilterArguments, rules: RuleArguments):
        self.column, self.key_column = columns.caption_column, columns.side_key_column
        self.columns = [self.column, CAPTIONER_COLUMN, PROMPT_COLUMN, self.key_column, "sha256"]
        self.splitter = rules.sub_caption_splitter
        self.rules = rules.read()
        self.outcomes = Outcomes()
        self.hashes = []  # of the captions that are kept, with their captioners; an array for each batch
        self.repeated = np.empty(0, dtype=np.uint64)  # sorted
        self.unlike = set()  # hashes of captions that are unlike their images: see `hash_captions`
        self.images = defaultdict(set)  # the first images that have a repeated caption, at most the rule's number

    def apply_rules(self, rows: list[dict]) -> None:
        """Applies the rules for a caption by itself. What is marked already stays as it is."""
        for row in rows:
            captioner, caption = get_captioner(row), row[self.column]
            self.outcomes.num_captions[captioner] += 1
            if row[REJECTED_COLUMN] is not None:
                self.outcomes.reject(captioner, row[REJECTED_COLUMN], caption)
            elif caption is None:
                self.outcomes.num_failed[captioner] += 1
            else:
                text, rejected_by, changed = apply_rules(caption, row.get(PROMPT_COLUMN), self.rules, self.splitter)
                row |= {self.column: text, REJECTED_COLUMN: rejected_by}
                self.outcomes.change(captioner, changed, caption, text)
                if rejected_by is not None:
                    self.outcomes.reject(captioner, rejected_by, caption)
        if "duplicate" in self.rules:
            self.hashes.append(self.hash_texts([row for row in rows if self.is_kept(row)]))

    def is_kept(self, row: dict) -> bool:
        """Whether a row has a caption that no rule rejects."""
        return row[REJECTED_COLUMN] is None and row[self.column] is not None

    def hash_texts(self, rows: list[dict]) -> np.ndarray:
        """Hashes of captions with their captioners."""
        return hash_keys([f"{get_captioner(row)}\0{row[self.column]}" for row in rows])

    def find_repeated(self) -> None:
        """Finds the captions that come more often than the rule `duplicate` allows."""
        if "duplicate" in self.rules:
            hashes = np.concatenate([np.empty(0, dtype=np.uint64), *self.hashes])
            number = self.rules["duplicate"]
            self.hashes.clear()
            hashes.sort()
            self.repeated = np.unique(hashes[number:][hashes[number:] == hashes[: len(hashes) - number]])

    def compare(self, rows: list[dict]) -> None:
        """Marks captions that are unlike their images, then those that too many images have."""
        kept = [row for row in rows if self.is_kept(row)]
        if self.unlike:
            hashes = hash_captions([(row.get(self.key_column), row[self.column]) for row in kept])
            for row in (row for row, hashed in zip(kept, hashes) if hashed in self.unlike):
                self.mark(row, SIMILARITY_RULE)
        kept = [row for row in kept if self.is_kept(row)]
        hashes = self.hash_texts(kept)
        is_repeated = np.isin(hashes, self.repeated)
        for row, hashed in ((kept[place], int(hashes[place])) for place in np.flatnonzero(is_repeated)):
            images = self.images[hashed]
            image = row.get("sha256") or row.get(self.key_column) or object()
            if image not in images and len(images) == self.rules["duplicate"]:
                self.mark(row, "duplicate")
            else:
                images.add(image)

    def mark(self, row: dict, rule: str) -> None:
        """Marks a row with the rule that rejects it."""
        row[REJECTED_COLUMN] = rule
        self.outcomes.reject(get_captioner(row), rule, row[self.column])


@contextmanager
def mend_files(files: list[Path], output_dir: Path, caption_filter: CaptionFilter) -> Iterator[list[Path]]:
    """Applies the rules for a caption by itself: gives new files, which are there as long as it is open."""
    folder = output_dir / ".mended"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        mended = [folder / file.name for file in files]
        for file, path in zip(progress_bar(files, desc="Rules", unit=" files"), mended):
            rewrite(file, path, caption_filter.columns, caption_filter.apply_rules)
        caption_filter.find_repeated()
        yield mended
    finally:
        shutil.rmtree(folder)


def mark_files(mended: list[Path], output_dir: Path, caption_filter: CaptionFilter) -> list[Path]:
    """Applies the rules that compare captions to mended files, and moves them where they belong."""
    filtered = [output_dir / path.name for path in mended]
    for path, target in zip(progress_bar(mended, desc="Writing", unit=" files"), filtered):
        if len(caption_filter.repeated) or caption_filter.unlike:
            rewrite(path, target, caption_filter.columns, caption_filter.compare)
        else:
            path.replace(target)
    return filtered


def filter_captions(
    columns: FilterArguments,
    rules: RuleArguments,
    asked: ReportArguments,
    source: SourceArguments,
    split: EvaluationSplitArguments,
    inference: InferenceArguments,
) -> dict:
    """
    Writes files of captions anew with the rules applied, and a report.

    Args:
        columns (`FilterArguments`):
            The files, their columns, and the folder of the new ones.
        rules (`RuleArguments`):
            The rules.
        asked (`ReportArguments`):
            What is measured.
        source (`SourceArguments`), split (`EvaluationSplitArguments`):
            The images that captions are compared with, if there is an `asked.dual_encoder`.
        inference (`InferenceArguments`):
            How models run.

    Returns:
        `dict`: the report, as in `report/report.json`.

    Raises:
        `ValueError`: if a file is damaged, has no rows or no column of captions; if the folder holds other captions.
    """
    split_sub_captions("", rules.sub_caption_splitter)  # says at once what is not installed
    files = find_files(columns.captions, columns.output_dir)
    caption_filter, report = CaptionFilter(columns, rules), {}
    with mend_files(files, columns.output_dir, caption_filter) as mended:
        if asked.dual_encoder is not None and caption_filter.outcomes.is_any_kept():
            similarities = measure_similarities(
                mended, columns, asked, source, split, inference, rules.sub_caption_splitter
            )
            report[SIMILARITY_RULE], caption_filter.unlike = summarize_similarities(similarities, asked)
        filtered = mark_files(mended, columns.output_dir, caption_filter)
    outcomes = caption_filter.outcomes
    if not outcomes.num_captions:
        raise ValueError(f"`--captions {' '.join(columns.captions)}` have no rows.")
    report = {"rules": caption_filter.rules, **outcomes.to_dict(), **report}
    folder = columns.output_dir / "report"
    if asked.report and outcomes.is_any_kept():
        lengths, keys = measure_lengths(filtered, columns, asked.tokenizer_path, rules.sub_caption_splitter)
        plot_lengths(lengths, "captions that are kept", folder / "lengths.png")
        report["statistics"] = {name: summarize(measured) for name, measured in lengths.items()}
        if asked.text_model is not None:
            report["text_model"] = asked.text_model
            report["agreement"] = measure_agreement(
                filtered, keys, columns, asked, inference, rules.sub_caption_splitter
            )
    write_report(report, folder)
    return report

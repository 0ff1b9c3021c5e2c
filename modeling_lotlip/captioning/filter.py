# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of captions through the rules: captions are mended, or marked with the rule that rejects them."""

import os
from collections import Counter, defaultdict

import numpy as np

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.caption_files import REJECTED_COLUMN, hash_keys
from ..embedding.arguments import InferenceArguments
from ..output_folder import OutputFolder, clear
from ..sub_captions import mark_sub_captions
from ..terminal import progress_bar
from .arguments import SIMILARITY_RULE, FilterArguments, RuleArguments, SimilarityArguments
from .files import find_files, rewrite
from .report import Outcomes, write_report
from .rules import apply_rules
from .similarity import Similarities, measure_similarities


def get_captioner(row: dict) -> str:
    """The captioner of a row; where the file does not say, all are one."""
    return row.get("captioner") or "captions"


class CaptionFilter:
    """
    Applies the rules to rows, in two passes: to each caption by itself, then to all together. In memory is a hash of
    64 bits of every caption that is kept.

    Args:
        columns (`FilterArguments`):
            The columns of captions and of the images' keys.
        rules (`dict[str, int | None]`):
            The rules with their numbers.
        similarity (`SimilarityArguments`):
            Which captions are too unlike their images.
    """

    def __init__(self, columns: FilterArguments, rules: dict[str, int | None], similarity: SimilarityArguments):
        self.column, self.key_column = columns.caption_column, columns.file_key_column
        self.columns = [self.column, "captioner", "prompt", self.key_column, "sha256"]
        self.rules, self.similarity, self.similarities = rules, similarity, None
        self.outcomes, self.sums = Outcomes(), Counter()  # of similarities, by captioner
        self.hashes = []  # of the captions that are kept, with their captioners; an array for each batch
        self.repeated = np.empty(0, dtype=np.uint64)
        self.images = defaultdict(set)  # the first images that have a repeated caption, at most the rule's number

    def apply_rules(self, rows: list[dict]) -> None:
        """Applies the rules for a caption by itself. What is marked already stays as it is."""
        for row in rows:
            captioner, caption = get_captioner(row), row[self.column]
            self.outcomes.numbers[captioner]["captions"] += 1
            if row[REJECTED_COLUMN] is not None:
                self.outcomes.reject(captioner, row[REJECTED_COLUMN], caption)
            elif caption is None:
                self.outcomes.numbers[captioner]["failed"] += 1
            else:
                text, rejected_by, changed = apply_rules(caption, row.get("prompt"), self.rules)
                row |= {self.column: text, REJECTED_COLUMN: rejected_by}
                self.outcomes.change(captioner, changed, caption, text)
                if rejected_by is not None:
                    self.outcomes.reject(captioner, rejected_by, caption)
        if "duplicate" in self.rules:
            self.hashes.append(self.hash_texts(self.list_kept(rows)))

    def list_kept(self, rows: list[dict]) -> list[dict]:
        """The rows with a caption that no rule rejects."""
        return [row for row in rows if row[REJECTED_COLUMN] is None and row[self.column] is not None]

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
        if self.similarities is not None:
            self.compare_with_images(self.list_kept(rows))
        kept = self.list_kept(rows)
        hashes = self.hash_texts(kept)
        for row, hashed in (
            (kept[place], int(hashes[place])) for place in np.flatnonzero(np.isin(hashes, self.repeated))
        ):
            images = self.images[hashed]
            image = row.get("sha256") or row.get(self.key_column) or object()
            if image not in images and len(images) == self.rules["duplicate"]:
                self.mark(row, "duplicate")
            else:
                images.add(image)

    def compare_with_images(self, rows: list[dict]) -> None:
        """Counts captions whose similarity was not measured; marks them if asked, and those below the threshold."""
        threshold = self.similarity.min_image_text_similarity
        scores = self.similarities.find([row.get(self.key_column) for row in rows], [row[self.column] for row in rows])
        for row, score in zip(rows, scores.tolist()):
            is_measured = score == score
            numbers = self.outcomes.numbers[get_captioner(row)]
            numbers["measured" if is_measured else "unmeasured"] += 1
            self.sums[get_captioner(row)] += score if is_measured else 0
            if (is_measured and threshold is not None and score < threshold) or (
                not is_measured and self.similarity.reject_unmeasured
            ):
                self.mark(row, SIMILARITY_RULE)

    def mark(self, row: dict, rule: str) -> None:
        """Marks a row with the rule that rejects it."""
        row[REJECTED_COLUMN] = rule
        self.outcomes.reject(get_captioner(row), rule, row[self.column])

    def summarize(self) -> dict:
        """The report."""
        report = {"rules": self.rules, **self.outcomes.to_dict()}
        if self.similarities is not None:
            counts = {name: numbers["measured"] for name, numbers in sorted(self.outcomes.numbers.items())}
            means = {name: self.sums[name] / number for name, number in counts.items() if number}
            report[SIMILARITY_RULE] = {"model": self.similarity.dual_encoder, "mean": means}
            report[SIMILARITY_RULE]["lowest"] = self.similarities.lowest
        return report


def filter_captions(
    columns: FilterArguments,
    rules: RuleArguments,
    similarity: SimilarityArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    inference: InferenceArguments,
) -> dict:
    """
    Writes files of captions anew with the rules applied, and a report.

    Args:
        columns (`FilterArguments`):
            The files, their columns, and the folder of the new ones.
        rules (`RuleArguments`):
            The rules.
        similarity (`SimilarityArguments`):
            How captions are compared with images.
        source (`SourceArguments`), split (`TrainSplitArguments`):
            The images, if there is a `similarity.dual_encoder`.
        inference (`InferenceArguments`):
            How the model runs.

    Returns:
        `dict`: the report, as in `report/report.json`.

    Raises:
        `ValueError`: if a file is damaged, has no rows or no column of captions; if the folder holds other captions,
            or another run writes to it.
    """
    mark_sub_captions("", similarity.sub_caption_splitter)  # says at once what is not installed
    files = find_files(columns.captions, columns.output_dir)
    caption_filter = CaptionFilter(columns, rules.read(), similarity)
    mended = columns.output_dir / f"mended.{os.getpid()}.partial"
    with OutputFolder(columns.output_dir, content="filtered captions"):
        try:
            mended.mkdir()
            for file in progress_bar(files, desc="Rules", unit=" files"):
                rewrite(file, mended / file.name, caption_filter.columns, caption_filter.apply_rules)
            if not caption_filter.outcomes.numbers:
                raise ValueError(f"`--captions {' '.join(columns.captions)}` have no rows.")
            caption_filter.find_repeated()
            if similarity.dual_encoder is not None and has_kept(caption_filter.summarize()):
                paths = [mended / file.name for file in files]
                measured = measure_similarities(paths, columns, similarity, source, split, inference)
                caption_filter.similarities = Similarities(measured)
            for file in progress_bar(files, desc="Writing", unit=" files"):
                path = mended / file.name
                rewrite(path, columns.output_dir / file.name, caption_filter.columns, caption_filter.compare)
        finally:
            clear(mended)
        report = caption_filter.summarize()
        write_report(report, columns.output_dir / "report")
    return report


def has_kept(report: dict) -> bool:
    """Whether any caption is kept."""
    return any(of["num_kept"] for of in report["captioners"].values())

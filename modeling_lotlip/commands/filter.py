# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Applies rules to captions that models have written. The rules clean captions. A caption of no use in training is
not deleted, but marked in the column `rejected_by` with the name of the rule; training and evaluation skip it.

    lotlip filter --captions "captions/*.parquet" --output_dir filtered
    lotlip filter --captions "captions/*.parquet" --output_dir filtered --min_words 12 --without_rules announcement

Files of the same names are written, and in `report.json` what each rule did to which captioner, with examples.
Marks with the names of rules are those of an earlier run, and are made anew; yours need another name.
"""

from dataclasses import fields

from ..captioning.arguments import FilterArguments, RuleArguments, SimilarityArguments
from ..data.arguments import SourceArguments, TrainSplitArguments
from ..encoder.arguments import InferenceArguments


ARGUMENTS = (
    FilterArguments,
    RuleArguments,
    SimilarityArguments,
    SourceArguments,
    TrainSplitArguments,
    InferenceArguments,
)


def run(
    columns: FilterArguments,
    rules: RuleArguments,
    similarity: SimilarityArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    inference: InferenceArguments,
) -> None:
    """
    Filters captions, and prints a report.

    Args:
        columns ([`FilterArguments`]): The files, and their columns.
        rules ([`RuleArguments`]): The rules for captions.
        similarity ([`SimilarityArguments`]): By what similarity captions are rejected.
        source ([`SourceArguments`]): The dataset.
        split ([`TrainSplitArguments`]): What of it is read.
        inference ([`InferenceArguments`]): How the dual encoder runs.
    """
    from ..captioning.filter import filter_captions, format_report, has_kept
    from ..utils.arguments import refuse_given
    from ..utils.terminal import print_tables

    if similarity.dual_encoder is None:
        for arguments in (source, split, inference):
            names = [field.name for field in fields(arguments)]
            refuse_given(arguments, names, "without --dual_encoder")
    report = filter_captions(columns, rules, similarity, source, split, inference)
    print_tables(format_report(report))
    num_unmeasured = sum(of["num_unmeasured"] for of in report.values())
    if num_unmeasured:
        outcome = "rejected" if similarity.reject_unmeasured else "kept; `--reject_unmeasured` rejects them"
        print(f"{num_unmeasured} captions were not compared with an image, and are {outcome}.")
    if not has_kept(report):
        print("No caption is kept: there is nothing to train on.")

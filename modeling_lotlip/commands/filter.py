# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Applies rules to captions that models have written. The rules clean captions. A caption of no use in training is
not deleted, but marked in the column `rejected_by` with the name of the rule; training and evaluation skip it.

    lotlip filter --captions "captions/*.parquet" --output_dir filtered
    lotlip filter --captions "captions/*.parquet" --output_dir filtered --rules all too_short=12 \\
        --without_rule announcement --report --text_model sentence-transformers/all-MiniLM-L6-v2

Files of the same names are written, and in `OUTPUT_DIR/report` what each rule did to which captioner, with examples.
"""

from ..captioning.arguments import FilterArguments, ReportArguments, RuleArguments
from ..data.arguments import EvaluationSplitArguments, SourceArguments
from ..embedding.arguments import InferenceArguments


ARGUMENTS = (
    FilterArguments,
    RuleArguments,
    ReportArguments,
    SourceArguments,
    EvaluationSplitArguments,
    InferenceArguments,
)


def run(
    columns: FilterArguments,
    rules: RuleArguments,
    asked: ReportArguments,
    source: SourceArguments,
    split: EvaluationSplitArguments,
    inference: InferenceArguments,
) -> None:
    from ..captioning.filter import filter_captions
    from ..captioning.report import format_outcomes
    from ..terminal import print_tables

    report = filter_captions(columns, rules, asked, source, split, inference)
    print_tables(format_outcomes(report))
    if not any(outcome["num_kept"] for outcome in report["captioners"].values()):
        print("No caption is kept: there is nothing to measure, nor to train on.")

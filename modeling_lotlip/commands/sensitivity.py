# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Which parts of a long text a dual encoder uses: retrieval against the number of tokens that are kept, and how much
embeddings and retrieval change when sentences are permuted, dropped or made false.

    lotlip sensitivity --model outputs/demo --output_file outputs/sensitivity.json
    lotlip sensitivity --model MODEL OTHER_MODEL --output_file outputs/sensitivity.json \\
        --dataset_name my_photos --eval_split test

Every image counts with its first long caption.
"""

from dataclasses import dataclass

from ..data.arguments import CaptionArguments, CaptionFileArguments, DatasetArguments, EvaluationSplitArguments
from ..encoder.arguments import ModelsArguments, OutputArguments
from ..utils.arguments import Arguments, argument


@dataclass
class SensitivityArguments(Arguments):
    """What is measured."""

    num_tokens: list[int] = argument(
        [8, 16, 32, 48, 64, 77, 96, 128, 192, 256],
        "Numbers of tokens to keep: 3 or more, since two are special tokens.",
        least=3,
    )
    seed: int = argument(0, "The random seed of what is changed in a text.")


ARGUMENTS = (
    SensitivityArguments,
    ModelsArguments,
    DatasetArguments,
    EvaluationSplitArguments,
    CaptionArguments,
    CaptionFileArguments,
    OutputArguments,
)


def run(
    sensitivity: SensitivityArguments,
    models: ModelsArguments,
    dataset: DatasetArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    caption_files: CaptionFileArguments,
    output: OutputArguments,
) -> None:
    """
    Measures what each model uses of long texts, and prints and writes tables.

    Args:
        sensitivity ([`SensitivityArguments`]): What is measured.
        models ([`ModelsArguments`]): The dual encoders, and how they run.
        dataset ([`DatasetArguments`]): The dataset.
        split ([`EvaluationSplitArguments`]): What of it is read.
        captions ([`CaptionArguments`]): The columns of the captions.
        caption_files ([`CaptionFileArguments`]): Files of further captions.
        output ([`OutputArguments`]): Where the results go.
    """
    from ..data.loading import load_split
    from ..data.reader import RowReader
    from ..data.repeated_images import warn_of_repeated_images
    from ..encoder.dual_encoder import find_models, load_encoder
    from ..encoder.fastest import hint_at_auto
    from ..evaluation.retrieval import embed_dataset
    from ..evaluation.sensitivity import flatten_results, format_sensitivity, measure_sensitivity
    from ..utils.files import write_results
    from ..utils.processes import check_single_process, join_processes
    from ..utils.terminal import print_tables

    state = join_processes(models.device)
    check_single_process("sensitivity", state)
    data = load_split(dataset, split.eval_split, split.max_eval_samples, key_column=caption_files.image_key_column)
    reader = RowReader.of(data, captions, caption_files, dataset.image_column)
    reader.report_keys(data)
    warn_of_repeated_images(data, dataset.image_column, "evaluation")
    results = []
    for name in find_models(models.model_name_or_path):
        encoder = load_encoder(name, models)
        encoder.check_single_embeddings()
        hint_at_auto(models, encoder.model, encoder.processor, encoder.computation)
        options = {"batch_size": models.batch_size, "num_workers": dataset.dataloader_num_workers}
        embedded = embed_dataset(encoder, data, reader, **options)
        measured = measure_sensitivity(encoder, embedded, sensitivity.num_tokens, sensitivity.seed)
        results.append({"model": name, **measured})
    tables = format_sensitivity(results)
    # the file first: whoever reads the table, such as `head`, may have seen enough
    try:
        if output.output_file is not None:
            settings = {"dataset": dataset.dataset_title or "scenes", "seed": sensitivity.seed}
            write_results(output.output_file, {**settings, "models": results}, tables, flatten_results(results))
    finally:
        print_tables(tables)

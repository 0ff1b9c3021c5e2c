# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Image-text retrieval on a dataset: recall in both directions, for short and for long captions.

    lotlip evaluate --model outputs/demo
    lotlip evaluate --model MODEL --dataset_name FOLDER --output_file results.json

Several models on several of the paper's benchmarks, in one table; each benchmark in a folder of its own name:

    lotlip evaluate --model MODEL OTHER_MODEL --benchmark dci iiw urban1k --data_dir BENCHMARKS

Long captions may be in separate files: see --caption_files.
"""

from ..data.arguments import CaptionArguments, CaptionFileArguments, DatasetArguments, EvaluationSplitArguments
from ..encoder.arguments import ModelsArguments, OutputArguments
from ..evaluation.arguments import RetrievalArguments, check_benchmark


ARGUMENTS = (
    ModelsArguments,
    DatasetArguments,
    EvaluationSplitArguments,
    CaptionArguments,
    CaptionFileArguments,
    RetrievalArguments,
    OutputArguments,
)


def run(
    models: ModelsArguments,
    data: DatasetArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    caption_files: CaptionFileArguments,
    retrieval: RetrievalArguments,
    output: OutputArguments,
) -> None:
    """
    Evaluates retrieval of each model on each dataset, and prints and writes a table.

    Args:
        models ([`ModelsArguments`]): The dual encoders, and how they run.
        data ([`DatasetArguments`]): The dataset.
        split ([`EvaluationSplitArguments`]): What of it is read.
        captions ([`CaptionArguments`]): The columns of the captions.
        caption_files ([`CaptionFileArguments`]): Files of further captions.
        retrieval ([`RetrievalArguments`]): What is retrieved.
        output ([`OutputArguments`]): Where the results go.
    """
    from ..data.loading import load_split
    from ..encoder.dual_encoder import find_models, load_encoder
    from ..encoder.fastest import hint_at_auto
    from ..evaluation.retrieval import evaluate_retrieval, format_benchmarks, format_recalls, load_benchmarks
    from ..utils.files import write_results
    from ..utils.processes import join_processes
    from ..utils.terminal import print_tables

    state = join_processes(models.device)
    if retrieval.benchmark is not None:
        check_benchmark(data, split)
        datasets = load_benchmarks(retrieval.benchmark, data.data_dir, retrieval.allow_partial)
    else:
        key_column = caption_files.image_key_column
        dataset = load_split(data, split.eval_split, split.max_eval_samples, key_column=key_column)
        datasets = {data.dataset_title or "scenes": dataset}

    rows = []
    for model_name in find_models(models.model_name_or_path):
        encoder = load_encoder(model_name, models)
        hint_at_auto(models, encoder.model, encoder.processor, encoder.computation)
        settings = encoder.describe()
        settings["sub_caption_splitter"] = captions.sub_caption_splitter
        for name, dataset in datasets.items():
            results = evaluate_retrieval(
                encoder,
                dataset,
                captions,
                caption_files,
                data.image_column,
                # a drawn scene has the short caption of others
                distinct_short_captions=data.dataset_name is None and retrieval.benchmark is None,
                # published numbers count one image for a text
                group_equal_captions=retrieval.benchmark is None,
                batch_size=models.batch_size,
                num_workers=data.dataloader_num_workers,
            )
            rows.append(name_evaluated_data(name, retrieval) | settings | results)

    if state.is_main_process:
        table = format_benchmarks(rows) if retrieval.benchmark is not None else format_recalls(*rows)
        # the file first: whoever reads the table, such as `head`, may have seen enough
        try:
            if output.output_file is not None:
                is_single = len(rows) == 1 and retrieval.benchmark is None
                write_results(output.output_file, rows[0] if is_single else {"rows": rows}, table, rows)
        finally:
            print_tables(table)
    state.wait_for_everyone()


def name_evaluated_data(name: str, retrieval: RetrievalArguments) -> dict:
    """Returns the data that a result is of, as rows of results name it."""
    from ..data.benchmarks import get_benchmark

    if retrieval.benchmark is None:
        return {"dataset": name}
    return {"benchmark": name, "published_num_images": get_benchmark(name).num_images}

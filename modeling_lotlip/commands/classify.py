# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Zero-shot classification of a dataset: every class is embedded once, from its name in one or several prompt templates.

    lotlip classify --model outputs/demo
    lotlip classify --model MODEL --dataset_name FOLDER --templates "a photo of a {}" "a {}"
    lotlip classify --model MODEL OTHER_MODEL --dataset_name imagenet/val \\
        --class_names_file names.txt
"""

from ..data.arguments import DatasetArguments, EvaluationSplitArguments
from ..encoder.arguments import ModelsArguments, OutputArguments
from ..evaluation.arguments import ClassificationArguments


ARGUMENTS = (
    ModelsArguments,
    DatasetArguments,
    EvaluationSplitArguments,
    ClassificationArguments,
    OutputArguments,
)


def run(
    models: ModelsArguments,
    data: DatasetArguments,
    split: EvaluationSplitArguments,
    classes: ClassificationArguments,
    output: OutputArguments,
) -> None:
    """
    Classifies the images of a dataset with each model, and prints and writes the accuracies.

    Args:
        models ([`ModelsArguments`]): The dual encoders, and how they run.
        data ([`DatasetArguments`]): The dataset.
        split ([`EvaluationSplitArguments`]): What of it is read.
        classes ([`ClassificationArguments`]): The classes.
        output ([`OutputArguments`]): Where the results go.
    """
    from ..data.loading import load_split
    from ..data.rows import get_columns
    from ..encoder.dual_encoder import find_models, load_encoder
    from ..encoder.fastest import hint_at_auto
    from ..evaluation.classification import evaluate_zero_shot, format_classification, read_class_names
    from ..utils.files import write_results
    from ..utils.processes import join_processes
    from ..utils.terminal import print_tables

    state = join_processes(models.device)
    dataset = load_split(data, split.eval_split, split.max_eval_samples)
    columns = get_columns(dataset)
    if classes.label_column not in columns:
        raise ValueError(
            f"`--label_column {classes.label_column}` is not a column of the dataset, which has {columns}. A folder "
            "of images has labels if each class has a folder, in which are all its images and no folder."
        )
    labels = dataset.features[classes.label_column] if dataset.features else None
    class_names = read_class_names(labels, classes.class_names, classes.class_names_file)
    rows = []
    for model_name in find_models(models.model_name_or_path):
        encoder = load_encoder(model_name, models)
        encoder.check_single_embeddings()
        hint_at_auto(models, encoder.model, encoder.processor, encoder.computation)
        results = evaluate_zero_shot(
            encoder,
            dataset,
            class_names,
            classes.templates,
            data.image_column,
            classes.label_column,
            batch_size=models.batch_size,
            num_workers=data.dataloader_num_workers,
        )
        rows.append(
            {"dataset": data.dataset_title or "scenes"}
            | encoder.describe()
            | {"templates": classes.templates}
            | results
        )

    if state.is_main_process:
        table = format_classification(*rows)
        # the file first: whoever reads the table, such as `head`, may have seen enough
        try:
            if output.output_file is not None:
                write_results(output.output_file, rows[0] if len(rows) == 1 else {"rows": rows}, table, rows)
        finally:
            print_tables(table)
    state.wait_for_everyone()

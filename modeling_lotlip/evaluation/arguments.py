# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Arguments of evaluations, as dataclasses. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from ..data.arguments import EvaluationSplitArguments, SourceArguments
from ..utils.arguments import Arguments, argument, refuse_given


@dataclass
class RetrievalArguments(Arguments):
    """What is retrieved."""

    _argument_group_name = "retrieval"

    benchmark: list[str] | None = argument(
        None,
        "Benchmarks by name, such as `dci iiw`, in --data_dir. With several, that has a folder for each.",
    )
    allow_partial: bool = argument(
        False,
        "Accept a benchmark with missing files.",
        requires="benchmark",
    )


@dataclass
class ClassificationArguments(Arguments):
    """The classes of images, and how they are described."""

    _argument_group_name = "classification"

    label_column: str = argument("label", "The column of the class labels.")
    class_names: list[str] | None = argument(
        None, "The classes, in the order of the labels.", excludes=("class_names_file",)
    )
    class_names_file: Path | None = argument(None, "A file with the name of a class on each line.")
    templates: list[str] = argument(
        ["a photo of a {}"], "Prompts with {} for the class name; their embeddings are averaged."
    )

    def __post_init__(self):
        super().__post_init__()
        check_templates(self.templates)


def check_templates(templates: list[str]) -> None:
    """
    Raises:
        `ValueError`: if a template has no place for the name of a class.
    """
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"--templates {template!r} has no {{}} for the class name: write it where the name goes.")


def check_benchmark(
    data: SourceArguments,
    split: EvaluationSplitArguments,
    is_whole: bool = True,
) -> None:
    """
    Refuses arguments of datasets with `--benchmark`, which needs `--data_dir` alone; `--max_eval_samples` too where
    it `is_whole`.

    Raises:
        `ValueError`: if there are any, or the folder of the benchmark is not named.
    """
    if data.data_dir is None or data.dataset_name is not None:
        raise ValueError("--benchmark needs --data_dir, the folder of its files, and no --dataset_name.")
    case = "on a --benchmark, which is read as it is published"
    refuse_given(data, ("dataset_config_name", "data_files", "split_seed", "streaming", "image_column"), case)
    refuse_given(split, ("eval_split",), case)
    if is_whole:
        refuse_given(split, ("max_eval_samples",), case)

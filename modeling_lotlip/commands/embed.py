# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings of the images and captions of a data set, in parquet files; a stopped run resumes where it stopped.

    lotlip embed --model outputs/demo --output_dir outputs/embeddings
    lotlip embed --model MODEL --output_dir OUT --dataset_name NAME --only texts

`lotlip search --embeddings OUT "A TEXT"` finds what is nearest to a text.
"""

import os

from ..arguments import refuse_given
from ..data.arguments import CaptionArguments, EvaluationSplitArguments
from ..embedding.arguments import EmbeddedDataArguments, ModelArguments, OutputArguments, StoreArguments


ARGUMENTS = (
    ModelArguments,
    EmbeddedDataArguments,
    EvaluationSplitArguments,
    CaptionArguments,
    StoreArguments,
    OutputArguments,
)

# What is noted of the data, beside its fingerprint
SOURCE = ("dataset_name", "dataset_config_name", "data_dir", "data_files")


def run(
    model_arguments: ModelArguments,
    data: EmbeddedDataArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    store: StoreArguments,
    output: OutputArguments,
) -> None:
    from datetime import timedelta

    from accelerate import PartialState

    from ..data.loading import load_split
    from ..embedding.models import load_model
    from ..embedding.store import embed_to_folder
    from ..files import format_markdown, write_results

    if store.only == "texts":
        why = "has no effect with --only texts: leave it out."
        refuse_given(data, ("image_column",), why)
        refuse_given(store, ("exact_decoding",), why)
    if store.only == "images":
        why = "has no effect with --only images: leave it out."
        refuse_given(captions, ("caption_column", "long_captions_column", "sub_caption_splitter"), why)
        refuse_given(model_arguments, ("max_length",), why)
    # a process that is ready early waits for the last one
    state = PartialState(cpu=model_arguments.device == "cpu", timeout=timedelta(days=7))
    dataset = load_split(data, split.eval_split, split.max_eval_samples, with_images=store.only != "texts")
    name = model_arguments.model_name_or_path
    model, processor = load_model(name, model_arguments)
    name = os.path.abspath(name) if os.path.exists(name) else name  # searches may start elsewhere
    counts = embed_to_folder(
        model,
        processor,
        dataset,
        store,
        captions,
        data.image_column,
        batch_size=model_arguments.batch_size,
        max_length=model_arguments.max_length,
        num_workers=data.dataloader_num_workers,
        source={name: getattr(data, name) for name in SOURCE} | vars(split) | {"model_name_or_path": name},
    )
    if state.is_main_process:
        print(
            "{} holds {image} images, {short} short and {long} long captions; {truncated} captions were truncated, "
            "{unreadable} images could not be read.".format(store.output_dir, **counts)
        )
        if output.output_file is not None:
            table = format_markdown(list(counts), [[str(count) for count in counts.values()]])
            write_results(output.output_file, counts, table)

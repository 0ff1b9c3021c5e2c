# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings of the images and captions of a dataset, in a table; a run that was stopped goes on where it was.

    lotlip embed --model outputs/demo --output_dir outputs/embeddings
    lotlip embed --output_dir OUT --dataset_name products.csv --eval_split train --image_column photo --key_column sku
    lotlip embed --model MODEL --output_dir OUT --dataset_name NAME --only texts --output_file vectors.parquet

`lotlip search --embeddings OUT "A TEXT"` finds what is nearest to a text; --output_file is for other tools.
"""

from ..data.arguments import CaptionArguments, EvaluationSplitArguments, SourceArguments
from ..encoder.arguments import KINDS, ModelArguments, StoreArguments
from ..utils.arguments import refuse_given


ARGUMENTS = (ModelArguments, SourceArguments, EvaluationSplitArguments, CaptionArguments, StoreArguments)


def run(
    model_arguments: ModelArguments,
    data: SourceArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    store: StoreArguments,
) -> None:
    """
    Embeds a dataset into a table, and says what the table holds.

    Args:
        model_arguments ([`ModelArguments`]): The dual encoder, and how it runs.
        data ([`SourceArguments`]): The dataset.
        split ([`EvaluationSplitArguments`]): What of it is read.
        captions ([`CaptionArguments`]): The columns of the captions.
        store ([`StoreArguments`]): What is stored, and where.
    """
    from datetime import timedelta

    from ..data.images import undecoded
    from ..data.reader import RowReader
    from ..encoder.dual_encoder import load_encoder
    from ..encoder.fastest import hint_at_auto
    from ..table.embed import embed_to_table, load_named_data, name_data, note_model
    from ..table.export import export_embeddings
    from ..utils.processes import join_processes

    has_hashes_as_keys = store.key_column == data.image_column
    if store.only == "texts" and not has_hashes_as_keys:
        refuse_given(data, ("image_column",), "with --only texts")
    if store.only == "images":
        caption_arguments = ("caption_column", "long_captions_column", "sub_caption_splitter")
        refuse_given(captions, caption_arguments, "with --only images")
        refuse_given(model_arguments, ("max_length",), "with --only images")
    # a process that is ready early waits for the last one
    state = join_processes(model_arguments.device, timeout=timedelta(days=7))
    named = name_data(data, split.eval_split, split.max_eval_samples)
    with_images = store.only != "texts" or has_hashes_as_keys
    dataset = load_named_data(named, with_images=with_images, key_column=store.key_column)
    if store.only == "texts" and has_hashes_as_keys:
        dataset = undecoded(dataset, data.image_column)
    if store.only is None:
        try:
            RowReader.of(dataset, captions, image_column=None)
        except ValueError as error:
            raise ValueError(f"{error} Name one, or embed `--only images`.") from error
    encoder = load_encoder(model_arguments.model_name_or_path, model_arguments)
    encoder.check_single_embeddings()
    hint_at_auto(model_arguments, encoder.model, encoder.processor, encoder.computation)
    table = embed_to_table(
        encoder,
        dataset,
        store,
        captions,
        data.image_column,
        batch_size=model_arguments.batch_size,
        source=named,
        notes=note_model(encoder),
    )
    if state.is_main_process:
        if table.notes.get("num_rows") and not any(table.counts[kind] for kind in KINDS):
            raise ValueError("Nothing could be embedded of any row: the warnings say why.")
        num_exported = None
        if store.output_file is not None:  # before who reads the lines, such as `head`, has seen enough
            num_exported = export_embeddings(table, store.output_file)
        print(
            "{} holds {image} images, {short} short and {long} long captions; {truncated} captions were truncated, "
            "{unreadable} images could not be read.".format(store.output_dir, **table.counts)
        )
        if num_exported is not None:
            print(f"{store.output_file} holds {num_exported:,} embeddings.")

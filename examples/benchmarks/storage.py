# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What compact storage of image embeddings costs: their retrieval by long captions, from each `--storage_dtype` of
`lotlip embed`, and from the first numbers alone of each embedding, as `--truncate_dim` keeps them. The images are
stored compactly, and the captions, which are the queries, are in float32.

    python examples/benchmarks/storage.py --model_name_or_path outputs/demo
    python examples/benchmarks/storage.py --model_name_or_path outputs/seed_* --truncate_dims 64 32 16 8
"""

import statistics
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import PartialState
from scaffold import BenchmarkArguments, measure, report, set_up, write_results
from torch.nn.functional import normalize

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.data.arguments import (
    CaptionArguments,
    CaptionFileArguments,
    DatasetArguments,
    EvaluationSplitArguments,
)
from modeling_lotlip.data.loading import get_columns, load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.embedding.arguments import LoadingArguments
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.search import recall_at_k, search
from modeling_lotlip.embedding.store import STORAGE_DTYPES, from_storage, to_storage
from modeling_lotlip.evaluation.retrieval import embed_dataset
from modeling_lotlip.losses.matryoshka_loss import check_dims
from modeling_lotlip.metrics import retrieval_metrics


NUM_TIMED = 65_536  # vectors, so that reading them takes long enough to be timed


@dataclass
class StorageArguments(BenchmarkArguments):
    """The model that embeds."""

    model_name_or_path: list[str] = argument(
        ["outputs/demo"],
        "Hub ids or folders of dual encoders. Of several, which differ in their seeds, the table has the means.",
        aliases=("--model",),
        metavar="MODEL",
    )
    truncate_dims: list[int] = argument([], "Compare the first N numbers of embeddings too, for each N.", least=1)
    batch_size: int = argument(64, "Images in a batch.", least=1)


def embed_images_and_long_captions(
    model_name_or_path: str,
    args: StorageArguments,
    dataset: DatasetArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    caption_files: CaptionFileArguments,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of the images that have long captions and of these captions, and the image of each caption."""
    PartialState(cpu=args.device == "cpu")
    data = load_split(dataset, split.eval_split, split.max_eval_samples)
    embedded = embed_dataset(
        *load_model(model_name_or_path, LoadingArguments(device=args.device)),
        data,
        RowReader(get_columns(data), captions, caption_files, dataset.image_column),
        batch_size=args.batch_size,
        num_workers=dataset.dataloader_num_workers,
    )
    if "long" not in embedded.captions:
        raise ValueError(f"No image has a caption in `--long_captions_column {captions.long_captions_column}`.")
    long = embedded.captions["long"]
    gallery, image_of_text = long.images.unique(return_inverse=True)
    return embedded.image_embeds[gallery], long.embeds, image_of_text


def compare(
    images: torch.Tensor, texts: torch.Tensor, text_to_image: torch.Tensor, truncate_dims: list[int]
) -> dict[str, dict[str, float]]:
    """
    Size and retrieval of each storage dtype, of whole embeddings and of their first numbers.

    Args:
        images (`torch.Tensor` of shape `(num_images, dim)`):
            Normalised embeddings.
        texts (`torch.Tensor` of shape `(num_texts, dim)`):
            Normalised embeddings.
        text_to_image (`torch.Tensor` of shape `(num_texts,)`):
            The image that each text belongs to.
        truncate_dims (`list[int]`):
            How many of the first numbers.

    Returns:
        `dict[str, dict[str, float]]`: for each storage dtype `bytes_per_vector`, `factor`, the recalls in per cent,
        and `overlap@10`, the share in per cent of the ten images found with whole embeddings in float32 that are among
        the ten found. Binary is for multiples of 8.

    Raises:
        `ValueError`: if the embeddings have fewer numbers than one of `truncate_dims`.
    """
    k, width = min(10, len(images)), images.shape[1]
    check_dims(truncate_dims, width, "--truncate_dims")
    exact = search(texts, [images], k)[1]
    rows = {}
    for dim in [width, *truncate_dims]:
        gallery, queries = (
            normalize(embeds[:, :dim], dim=-1) if dim < width else embeds for embeds in (images, texts)
        )
        for storage_dtype in STORAGE_DTYPES:
            if storage_dtype == "binary" and dim % 8 > 0:
                continue
            stored = to_storage(gallery, storage_dtype)
            read = from_storage(stored, storage_dtype)
            recalls = retrieval_metrics(read, queries, text_to_image, ks=(1, 10))
            rows[storage_dtype if dim == width else f"{storage_dtype}, first {dim}"] = {
                "bytes_per_vector": stored.nbytes // len(stored),
                "factor": images.numpy().nbytes / stored.nbytes,
                "t2i_recall@1": recalls["t2i_recall@1"],
                "t2i_recall@10": recalls["t2i_recall@10"],
                "overlap@10": 100 * recall_at_k(search(queries, [read], k)[1], exact),
            }
    return rows


def average(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The means of the tables of several models, and the deviation of their recall at 1 if there are several."""
    rows = {}
    for name, row in tables[0].items():
        rows[name] = {column: statistics.fmean(table[name][column] for table in tables) for column in row}
        if len(tables) > 1:
            rows[name]["deviation"] = statistics.stdev(table[name]["t2i_recall@1"] for table in tables)
    return rows


def main() -> None:
    args, *data = parse(
        (StorageArguments, DatasetArguments, EvaluationSplitArguments, CaptionArguments, CaptionFileArguments),
        description=__doc__,
    )
    set_up(args)

    tables = []
    for name in args.model_name_or_path:
        images, texts, text_to_image = embed_images_and_long_captions(name, args, *data)
        tables.append(compare(images, texts, text_to_image, args.truncate_dims))
    rows = average(tables)
    title = f"{len(texts):,} long captions (float32) to {len(images):,} stored images, width {images.shape[1]}"
    if len(tables) > 1:
        title += f", mean of {len(tables)} models"
    print(f"\n{title}\n")
    print("| stored as | bytes per vector | times smaller | T2I R@1 | T2I R@10 | top 10 shared with float32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        deviation = f" ± {row['deviation']:.1f}" if "deviation" in row else ""
        print(
            f"| {name} | {row['bytes_per_vector']:.0f} | {row['factor']:.0f} | {row['t2i_recall@1']:.1f}{deviation} | "
            f"{row['t2i_recall@10']:.1f} | {row['overlap@10']:.1f} % |"
        )

    many = images.repeat(-(-NUM_TIMED // len(images)), 1)[:NUM_TIMED]
    stored = {name: to_storage(many, name) for name in STORAGE_DTYPES}
    variants = {name: partial(from_storage, stored[name], name) for name in STORAGE_DTYPES}
    seconds = measure(variants, args.repeats, args.device)
    reading = report(f"{NUM_TIMED:,} stored vectors to float32", seconds, "float32", args)
    write_results([{"title": title, "rows": rows}, reading], args)


if __name__ == "__main__":
    with exit_on_error("storage.py"):
        main()

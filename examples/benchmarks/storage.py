# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What compact storage of image embeddings costs: their retrieval by long captions, from each `--storage_dtype` of
`lotlip embed`. The images are stored compactly, and the captions, which are the queries, are in float32.

    python examples/benchmarks/storage.py --model_name_or_path outputs/demo
"""

from dataclasses import dataclass
from functools import partial

import torch
from accelerate import PartialState

from modeling_lotlip.arguments import argument, parse
from modeling_lotlip.benchmarking.timing import BenchmarkArguments, measure, report, set_up, write_results
from modeling_lotlip.data.arguments import (
    CaptionArguments,
    DatasetArguments,
    EvaluationSplitArguments,
    SideFileArguments,
)
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.data.loading import get_columns, load_split
from modeling_lotlip.embedding.arguments import LoadingArguments
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.search import recall_at_k, search
from modeling_lotlip.embedding.store import STORAGE_DTYPES, from_storage, to_storage
from modeling_lotlip.evaluation.retrieval import embed_dataset
from modeling_lotlip.metrics import retrieval_metrics


NUM_TIMED = 65_536  # vectors, so that reading them takes long enough to be timed


@dataclass
class StorageArguments(BenchmarkArguments):
    """The model that embeds."""

    model_name_or_path: str = argument(
        "outputs/demo", "A Hub id or a folder of a dual encoder.", aliases=("--model",), metavar="MODEL"
    )
    batch_size: int = argument(64, "Images in a batch.", least=1)


def embed_images_and_long_captions(
    args: StorageArguments,
    dataset: DatasetArguments,
    split: EvaluationSplitArguments,
    captions: CaptionArguments,
    side_files: SideFileArguments,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of the images that have long captions and of these captions, and the image of each caption."""
    PartialState(cpu=args.device == "cpu")
    data = load_split(dataset, split.eval_split, split.max_eval_samples)
    embedded = embed_dataset(
        *load_model(args.model_name_or_path, LoadingArguments(device=args.device)),
        data,
        CaptionReader(get_columns(data), captions, side_files, dataset.image_column),
        dataset.image_column,
        batch_size=args.batch_size,
        num_workers=dataset.dataloader_num_workers,
    )
    if "long" not in embedded.captions:
        raise ValueError(f"No image has a caption in `--long_captions_column {captions.long_captions_column}`.")
    long = embedded.captions["long"]
    gallery, image_of_text = long.images.unique(return_inverse=True)
    return embedded.image_embeds[gallery], long.embeds, image_of_text


def compare(images: torch.Tensor, texts: torch.Tensor, text_to_image: torch.Tensor) -> dict[str, dict[str, float]]:
    """
    Size and retrieval of each storage dtype.

    Args:
        images (`torch.Tensor` of shape `(num_images, dim)`):
            Normalised embeddings.
        texts (`torch.Tensor` of shape `(num_texts, dim)`):
            Normalised embeddings.
        text_to_image (`torch.Tensor` of shape `(num_texts,)`):
            The image that each text belongs to.

    Returns:
        `dict[str, dict[str, float]]`: for each storage dtype `bytes_per_vector`, `factor`, the recalls in per cent,
        and `overlap@10`, the share in per cent of the ten images found in float32 that are among the ten found.
    """
    k = min(10, len(images))
    exact = search(texts, [images], k)[1]
    rows = {}
    for storage_dtype in STORAGE_DTYPES:
        stored = to_storage(images, storage_dtype)
        read = from_storage(stored, storage_dtype)
        recalls = retrieval_metrics(read, texts, text_to_image, ks=(1, 10))
        rows[storage_dtype] = {
            "bytes_per_vector": stored.nbytes // len(stored),
            "factor": images.numpy().nbytes / stored.nbytes,
            "t2i_recall@1": recalls["t2i_recall@1"],
            "t2i_recall@10": recalls["t2i_recall@10"],
            "overlap@10": 100 * recall_at_k(search(texts, [read], k)[1], exact),
        }
    return rows


def main() -> None:
    args, *data = parse(
        (StorageArguments, DatasetArguments, EvaluationSplitArguments, CaptionArguments, SideFileArguments),
        description=__doc__,
    )
    set_up(args)

    images, texts, text_to_image = embed_images_and_long_captions(args, *data)
    title = f"{len(texts):,} long captions (float32) to {len(images):,} stored images, width {images.shape[1]}"
    rows = compare(images, texts, text_to_image)
    print(f"\n{title}\n")
    print("| stored as | bytes per vector | times smaller | T2I R@1 | T2I R@10 | top 10 shared with float32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(
            f"| {name} | {row['bytes_per_vector']} | {row['factor']:.0f} | {row['t2i_recall@1']:.1f} | "
            f"{row['t2i_recall@10']:.1f} | {row['overlap@10']:.1f} % |"
        )

    many = images.repeat(-(-NUM_TIMED // len(images)), 1)[:NUM_TIMED]
    stored = {name: to_storage(many, name) for name in STORAGE_DTYPES}
    variants = {name: partial(from_storage, stored[name], name) for name in STORAGE_DTYPES}
    seconds = measure(variants, args.repeats, args.device)
    reading = report(f"{NUM_TIMED:,} stored vectors to float32", seconds, "float32", args)
    write_results([{"title": title, "rows": rows}, reading], args)


if __name__ == "__main__":
    main()

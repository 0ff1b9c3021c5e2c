# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
What compact storage of image embeddings costs: their retrieval by long captions, from each `--storage_dtype` of
embed_dataset.py. The images are stored compactly, and the captions, which are the queries, are in float32.

    python examples/benchmarks/storage.py --model_name_or_path outputs/demo
"""

import argparse

import torch
from accelerate import PartialState

from modeling_lotlip.benchmarking.timing import add_benchmark_arguments, measure, report, write_results
from modeling_lotlip.data.arguments import add_data_arguments, add_side_file_arguments
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.data.loading import get_columns, load_split
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.search import recall_at_k, search
from modeling_lotlip.embedding.store import STORAGE_DTYPES, from_storage, to_storage
from modeling_lotlip.evaluation.retrieval import embed_dataset
from modeling_lotlip.metrics import retrieval_metrics


NUM_TIMED = 65_536  # vectors, so that reading them takes long enough to be timed


def embed_images_and_long_captions(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of the images that have long captions and of these captions, and the image of each caption."""
    PartialState(cpu=args.device == "cpu")
    dataset = load_split(args, args.eval_split, args.max_eval_samples)
    reader = CaptionReader(get_columns(dataset), args, args, args.image_column)
    embedded = embed_dataset(
        *load_model(args.model_name_or_path, args), dataset, reader, args.image_column, batch_size=args.batch_size
    )
    if "long" not in embedded.captions:
        raise ValueError(f"No image has a caption in `--long_captions_column {args.long_captions_column}`.")
    captions = embedded.captions["long"]
    gallery, image_of_text = captions.images.unique(return_inverse=True)
    return embedded.image_embeds[gallery], captions.embeds, image_of_text


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    parser.add_argument("--model_name_or_path", default="outputs/demo", help="A Hub id or a folder of a dual encoder.")
    parser.add_argument("--batch_size", type=int, default=64, help="Images in a batch.")
    parser.set_defaults(dtype="float32", trust_remote_code=False, max_length=None)  # of `load_model`
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    images, texts, text_to_image = embed_images_and_long_captions(args)
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
    variants = {name: lambda name=name: from_storage(stored[name], name) for name in STORAGE_DTYPES}
    seconds = measure(variants, args.repeats, args.device)
    reading = report(f"{NUM_TIMED:,} stored vectors to float32", seconds, "float32", args)
    write_results([{"title": title, "rows": rows}, reading], args)


if __name__ == "__main__":
    main()

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
Ranks of images and texts in both directions, against the matrix product alone and against sorting the full matrix.

    python examples/benchmarks/rank.py --images 10000 --texts 10000
"""

import argparse

import torch

from modeling_lotlip.benchmarking.timing import (
    add_benchmark_arguments,
    matrix_product_ceiling,
    measure,
    peak_memory,
    report,
    set_up,
    write_results,
)
from modeling_lotlip.metrics import retrieval_ranks, similarity_blocks


def multiply_in_blocks(images: torch.Tensor, texts: torch.Tensor) -> None:
    """The products that the ranks are counted in, and nothing else."""
    for _ in similarity_blocks(texts, images):
        pass


def sort_full_matrix(images: torch.Tensor, texts: torch.Tensor) -> None:
    """open_clip's way: the whole matrix, sorted in both directions, and the place of the own pair looked up."""
    similarity = images @ texts.t()
    own = torch.arange(len(images), device=images.device)[:, None]
    for matrix in (similarity, similarity.t()):
        (matrix.argsort(dim=-1, descending=True) == own).nonzero()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--texts", type=int, help="Default: as many as images; a multiple of them otherwise.")
    parser.add_argument("--width", type=int, default=768, help="Dimensions of an embedding.")
    parser.add_argument(
        "--no_full_matrix", action="store_true", help="Leave out what needs the whole matrix in memory."
    )
    args = parser.parse_args()
    num_texts = args.texts or args.images
    if num_texts % args.images != 0:
        parser.error(f"--texts must be a multiple of --images ({args.images}), got {num_texts}.")
    set_up(args)

    images = torch.nn.functional.normalize(torch.randn(args.images, args.width, device=args.device), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(num_texts, args.width, device=args.device), dim=-1)
    text_to_image = torch.arange(num_texts) // (num_texts // args.images)

    before = peak_memory(args.device)
    retrieval_ranks(images, texts, text_to_image)
    memory = peak_memory(args.device) - before
    print(f"Memory beyond the inputs: {memory / 1e6:.0f} MB")

    variants = {
        "product in blocks": lambda: multiply_in_blocks(images, texts),
        "ranks": lambda: retrieval_ranks(images, texts, text_to_image),
    }
    if not args.no_full_matrix:
        variants = {"product alone": lambda: images @ texts.t(), **variants}
        if num_texts == args.images:
            variants["sorting"] = lambda: sort_full_matrix(images, texts)
    baseline = next(iter(variants))
    seconds = measure(variants, args.repeats, args.device)
    flops = dict.fromkeys(variants, 2 * args.images * num_texts * args.width)
    ceilings = dict.fromkeys(variants, matrix_product_ceiling(args.device, torch.float32))
    title = f"Ranks of {args.images:,} images and {num_texts:,} texts, width {args.width}"
    table = report(title, seconds, baseline, args, ceilings, flops)
    write_results([{**table, "memory_beyond_inputs": memory}], args)


if __name__ == "__main__":
    main()

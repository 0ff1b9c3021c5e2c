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
import resource

import torch
from benchmark import add_benchmark_arguments, measure, report, write_results

from modeling_lotlip.metrics import retrieval_ranks


def sort_full_matrix(images: torch.Tensor, texts: torch.Tensor) -> None:
    """open_clip's way: the whole matrix, sorted in both directions, and the place of the own pair looked up."""
    similarity = images @ texts.t()
    own = torch.arange(len(images), device=images.device)[:, None]
    for matrix in (similarity, similarity.t()):
        (matrix.argsort(dim=-1, descending=True) == own).nonzero()


def peak_memory() -> float:
    """The most memory that this process has had so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    images = torch.nn.functional.normalize(torch.randn(args.images, args.width, device=args.device), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(num_texts, args.width, device=args.device), dim=-1)
    text_to_image = torch.arange(num_texts) // (num_texts // args.images)

    before = peak_memory()
    retrieval_ranks(images, texts, text_to_image)
    memory = peak_memory() - before
    print(f"Memory beyond the inputs: {memory / 1e6:.0f} MB")

    variants = {"ranks": lambda: retrieval_ranks(images, texts, text_to_image)}
    if not args.no_full_matrix:
        variants["product alone"] = lambda: images @ texts.t()
        if num_texts == args.images:
            variants["sorting"] = lambda: sort_full_matrix(images, texts)
    seconds = measure(variants, args.repeats, args.device)
    flops = dict.fromkeys(variants, 2 * args.images * num_texts * args.width)
    baseline = "ranks" if args.no_full_matrix else "product alone"
    title = f"Ranks of {args.images:,} images and {num_texts:,} texts, width {args.width}"
    product = max(flops[baseline] / time for time in seconds[baseline])
    table = report(title, seconds, baseline, args, dict.fromkeys(variants, product), flops)
    write_results([{**table, "memory_beyond_inputs": memory}], args)


if __name__ == "__main__":
    main()

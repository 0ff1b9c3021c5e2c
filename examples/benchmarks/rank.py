# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
Ranks of images and texts in both directions, compared with the matrix product alone and with sorting the full matrix.

    python examples/benchmarks/rank.py --images 10000 --texts 10000
"""

from dataclasses import dataclass

import torch
from scaffold import BenchmarkArguments, measure, peak_memory, report, set_up, write_results

from modeling_lotlip.metrics import retrieval_ranks
from modeling_lotlip.metrics.image_text_retrieval.image_text_retrieval import similarity_blocks
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


@dataclass
class RankArguments(BenchmarkArguments):
    """What is measured."""

    images: int = argument(10_000, "Images.", least=1)
    texts: int | None = argument(None, "Default: as many as images; a multiple of them otherwise.", least=1)
    width: int = argument(768, "Dimensions of an embedding.", least=1)
    no_full_matrix: bool = argument(False, "Leave out what needs the whole matrix in memory.")

    def __post_init__(self):
        super().__post_init__()
        self.texts = self.texts or self.images
        if self.texts % self.images != 0:
            raise ValueError(f"--texts must be a multiple of --images ({self.images}), got {self.texts}.")


def sample_embeddings(num_rows: int, args: RankArguments) -> torch.Tensor:
    """Returns random normalized embeddings of shape `(num_rows, dim)`."""
    return torch.nn.functional.normalize(torch.randn(num_rows, args.width, device=args.device), dim=-1)


def multiply_in_blocks(images: torch.Tensor, texts: torch.Tensor) -> None:
    """Computes the products that ranks are counted in, of embeddings of shapes `(images, dim)` and `(texts, dim)`."""
    for _ in similarity_blocks(texts, images, torch.float64):
        pass


def sort_full_matrix(images: torch.Tensor, texts: torch.Tensor) -> None:
    """
    Computes ranks in open_clip's way: the whole matrix of embeddings of shape `(pairs, dim)` each, sorted in both
    directions, and the position of the own pair looked up.
    """
    similarity = images @ texts.t()
    own = torch.arange(len(images), device=images.device)[:, None]
    for matrix in (similarity, similarity.t()):
        (matrix.argsort(dim=-1, descending=True) == own).nonzero()


def main() -> None:
    (args,) = parse((RankArguments,), description=__doc__)
    set_up(args)

    images = sample_embeddings(args.images, args)
    texts = sample_embeddings(args.texts, args)
    text_to_image = torch.arange(args.texts) // (args.texts // args.images)

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
        if args.texts == args.images:
            variants["sorting"] = lambda: sort_full_matrix(images, texts)
    baseline = next(iter(variants))
    seconds = measure(variants, args.repeats, args.device, args.clock)
    title = f"Ranks of {args.images:,} images and {args.texts:,} texts, width {args.width}"
    table = report(title, seconds, baseline, args)
    write_results([{**table, "memory_beyond_inputs": memory}], args)


if __name__ == "__main__":
    with exit_on_error("rank.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A corpus of texts of mixed lengths to features: a quarter of 8 to 20 tokens, a half of 60 to 126, the rest between.
From texts, by `embed_corpus`; from tokens in sorted batches, by the model alone; and as the original computes.

    python examples/benchmarks/corpus.py --texts 512 --dtypes float32 bfloat16
"""

import random
from dataclasses import dataclass

import torch
from scaffold.original import build_lotlip, build_original, build_processor
from scaffold.timing import (
    TowerBenchmarkArguments,
    encoder_flops,
    matrix_product_ceiling,
    measure,
    report,
    set_up,
    write_results,
)

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.embedding.batches import Batch, embed_batch, embed_corpus, make_batches


@dataclass
class CorpusArguments(TowerBenchmarkArguments):
    """What is measured."""

    texts: int = argument(512, "Texts in the corpus.", least=1)
    batch_size: int = argument(32, "Texts in a batch of the original.", least=1)
    tokens_per_batch: int = argument(2048, "The most tokens in a batch of ours.", least=1)


def build_texts(num_texts: int, words: list[str], seed: int = 0) -> list[str]:
    """Random texts of the mix of lengths, in random order."""
    generator = random.Random(seed)
    texts = []
    for index in range(num_texts):
        shortest, longest = [(8, 20), (60, 126), (21, 59), (60, 126)][index % 4]
        texts.append(" ".join(generator.choices(words, k=generator.randint(shortest, longest) - 2)))
    generator.shuffle(texts)
    return texts


def original_batches(tokens: dict[str, torch.Tensor], batch_size: int, device: str) -> list[tuple]:
    """Ids and masks in the order of the texts, of which the original takes `batch_size` at a time."""
    return list(zip(*(tokens[name].to(device).split(batch_size) for name in ("input_ids", "attention_mask"))))


def main() -> None:
    (args,) = parse((CorpusArguments,), description=__doc__)
    set_up(args)

    original, _ = build_original(args.layers, args.device)
    words, processor = build_processor(original.vocab_size)
    texts = build_texts(args.texts, words)
    tokens = dict(processor.tokenizer(texts, padding=True, return_tensors="pt"))
    batches = list(make_batches([Batch(texts, tokens)], processor, args.tokens_per_batch))
    num_tokens = sum(batch.num_tokens for batch in batches)
    num_padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
    print(f"{num_tokens} tokens in {len(texts)} texts; {1 - num_tokens / num_padded:.1%} of {num_padded} are padding")

    original_inputs = original_batches(tokens, args.batch_size, args.device)
    variants = {"original": lambda: [original(*inputs) for inputs in original_inputs]}
    ceilings = {"original": matrix_product_ceiling(args.device, torch.float32)}
    flops = {"original": encoder_flops(args.texts * 128, 128, num_layers=args.layers)}
    # what the tokens cost, so that padding counts as a loss
    useful = sum(
        encoder_flops(length, length, num_layers=args.layers) for length in tokens["attention_mask"].sum(1).tolist()
    )
    for dtype in args.dtypes:
        model = build_lotlip(args.layers, args.device, getattr(torch, dtype))
        alone, pipeline = f"{dtype}, model alone", f"{dtype}, from texts"
        variants[alone] = lambda model=model: [embed_batch(model, batch) for batch in batches]
        variants[pipeline] = lambda model=model: embed_corpus(model, processor, texts, args.tokens_per_batch)
        ceilings[alone] = ceilings[pipeline] = matrix_product_ceiling(args.device, getattr(torch, dtype))
        flops[alone] = flops[pipeline] = useful

    with torch.inference_mode():
        seconds = measure(variants, args.repeats, args.device)
    write_results([report(f"{args.texts} texts of mixed lengths", seconds, "original", args, ceilings, flops)], args)


if __name__ == "__main__":
    with exit_on_error("corpus.py"):
        main()

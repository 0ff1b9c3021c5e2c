# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[openvino,sentence-transformers]", "open_clip_torch"]
# ///
"""
Texts and images to embeddings, compared with the way the original computes them and with other libraries.

    python examples/benchmarks/embed.py
    python examples/benchmarks/embed.py --variants original float32 "OpenVINO bfloat16" --workloads mixed
    python examples/benchmarks/embed.py --device cuda --size 256 --attn_implementation sdpa flash_attention_2

The original, and open_clip's text tower, get token ids; all others get texts. "mixed" are texts of 8 to 126 tokens.
Images are pixels. The last column is the min cosine to float32.
"""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from scaffold import (
    BenchmarkArguments,
    build_lotlip,
    build_original,
    build_processor,
    measure,
    report,
    set_up,
    write_results,
)
from torch.nn.functional import normalize

from modeling_lotlip import DualEncoder
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


# What embeds something: gives embeddings of shape (texts or images, dim)
Embed = Callable[[], torch.Tensor]

WORKLOADS = ("short", "long", "mixed", "images")
# The tokens of texts, special ones included: from and to, in turns
TOKENS_OF_TEXTS = {
    "short": [(15, 15)],
    "long": [(122, 122)],
    "mixed": [(8, 20), (60, 126), (21, 59), (60, 126)],
}
PRECISIONS = ("float32", "bfloat16", "float16")
OPENVINO = ("OpenVINO float32", "OpenVINO bfloat16", "OpenVINO int8")
OTHERS = ("sentence-transformers", "open_clip")
AUTO = "auto"  # the fastest of them on this machine that stays close to float32
VARIANTS = ("original", *PRECISIONS, *OPENVINO, AUTO, *OTHERS)


@dataclass
class EmbedArguments(BenchmarkArguments):
    """What is measured."""

    workloads: list[str] = argument(list(WORKLOADS), "What is embedded.", choices=WORKLOADS)
    variants: list[str] = argument(
        ["original", "float32", "bfloat16", AUTO],
        "What embeds it.",
        choices=VARIANTS,
    )
    attn_implementation: list[str] = argument(
        ["sdpa"],
        "Attention of the variants that are named by a precision.",
    )
    size: int = argument(
        32,
        "Short and long texts; a quarter as many images, 16 times as many mixed texts.",
        least=4,
    )
    batch_size: int = argument(32, "Texts in a batch of the others.", least=1)
    layers: int = argument(12, "Layers of both towers.", least=1)

    def __post_init__(self):
        super().__post_init__()
        if "float32" not in self.variants:
            raise ValueError("--variants must name float32, to which embeddings are compared.")


def sample_texts(workload: str, words: list[str], size: int) -> list[str]:
    """Returns random texts: of 15 tokens, of 122, or a quarter of 8 to 20, half of 60 to 126 and the rest between."""
    generator = random.Random(0)
    num_rounds = size
    if workload == "mixed":
        num_rounds = 4 * size
    texts = []
    for min_tokens, max_tokens in num_rounds * TOKENS_OF_TEXTS[workload]:
        num_words = generator.randint(min_tokens, max_tokens) - 2
        texts.append(" ".join(generator.choices(words, k=num_words)))
    generator.shuffle(texts)
    return texts


def load_encoders(args: EmbedArguments, folder: str) -> dict[str, DualEncoder]:
    """Returns the saved model for each precision, attention and backend that is asked for, by name."""
    encoders = {}
    for name in args.variants:
        if name in PRECISIONS:
            for attention in args.attn_implementation:
                title = name
                if len(args.attn_implementation) > 1:
                    title = f"{name}, {attention}"
                encoders[title] = DualEncoder.from_pretrained(folder, device=args.device, dtype=name)
                encoders[title].model.set_attn_implementation(attention)
        elif name in OPENVINO:
            dtype = name.split()[1]
            encoders[name] = DualEncoder.from_pretrained(folder, device="cpu", backend="openvino", dtype=dtype)
        elif name == AUTO:
            encoders[name] = DualEncoder.from_pretrained(folder, device=args.device, backend=AUTO, dtype=AUTO)
            print(f"auto: {encoders[name].computation}")
    return encoders


def make_original(args: EmbedArguments, encoder: DualEncoder, texts: list[str]) -> Embed:
    """Returns what embeds texts, given as token ids, as the original does."""
    tower, _ = build_original(args.layers, args.device)
    inputs = encoder.preprocessing.tokenize(texts).inputs
    ids = inputs["input_ids"].to(args.device).split(args.batch_size)
    masks = inputs["attention_mask"].to(args.device).split(args.batch_size)

    def embed() -> torch.Tensor:
        """Returns embeddings of shape `(texts, dim)`."""
        return torch.cat([tower(*batch)[:, 0] for batch in zip(ids, masks)])

    return embed


def make_sentence_transformers(args: EmbedArguments, folder: str, texts: list[str]) -> Embed:
    """Returns what embeds texts by the sentence-transformers library, with the saved model."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device=args.device, trust_remote_code=True)
    return partial(model.encode, texts, batch_size=args.batch_size, convert_to_tensor=True)


def make_open_clip(args: EmbedArguments, texts: list[str]) -> Embed:
    """Returns what embeds as many random token ids by the text tower of open_clip, of the same size."""
    from open_clip.transformer import TextTransformer

    tower = TextTransformer(context_length=128, width=768, heads=12, layers=args.layers, output_dim=768)
    tower = tower.to(args.device).eval()
    batches = torch.randint(1, 49_000, (len(texts), 128), device=args.device).split(args.batch_size)

    def embed() -> torch.Tensor:
        """Returns embeddings of shape `(texts, dim)`."""
        return torch.cat([tower(batch) for batch in batches])

    return embed


def list_text_variants(
    args: EmbedArguments, folder: str, encoders: dict[str, DualEncoder], texts: list[str]
) -> dict[str, Embed]:
    """
    Returns what embeds texts, by name.

    Args:
        args (`EmbedArguments`): What is asked for.
        folder (`str`): Where the model is saved.
        encoders (`dict[str, DualEncoder]`): It, as it is loaded for each of our variants.
        texts (`list[str]`): The texts.
    """
    variants = {}
    if "original" in args.variants:
        variants["original"] = make_original(args, next(iter(encoders.values())), texts)
    if "sentence-transformers" in args.variants:
        variants["sentence-transformers"] = make_sentence_transformers(args, folder, texts)
    if "open_clip" in args.variants:
        variants["open_clip"] = make_open_clip(args, texts)
    for name, encoder in encoders.items():
        variants[name] = partial(encoder.encode_text, texts, convert_to_tensor=True)
    return variants


def list_image_variants(args: EmbedArguments, encoders: dict[str, DualEncoder], num_images: int) -> dict[str, Embed]:
    """Returns what embeds random pixels, by name."""
    pixels = torch.randn(num_images, 3, 224, 224, device=args.device)
    variants = {}
    if "original" in args.variants:
        _, tower = build_original(args.layers, args.device)
        variants["original"] = partial(tower, pixels)
    for name, encoder in encoders.items():
        variants[name] = partial(encoder.embed_images, {"pixel_values": pixels})
    return variants


def measure_variants(title: str, variants: dict[str, Embed], args: EmbedArguments) -> dict:
    """Returns the table of variants, measured in turns, with how far our embeddings are from those in float32."""
    embeds = {}

    def keep(name: str, run: Embed) -> None:
        embeds[name] = run()

    kept = {name: partial(keep, name, run) for name, run in variants.items()}
    seconds = measure(kept, args.repeats, args.device, args.clock)
    ours = {}
    for name, values in embeds.items():
        if name not in ("original", *OTHERS):
            ours[name] = normalize(values.float().cpu(), dim=-1)
    exact = next(values for name, values in ours.items() if name.startswith("float32"))
    cosines = {name: f"{(values * exact).sum(dim=-1).min():.6f}" for name, values in ours.items()}
    return report(title, seconds, next(iter(variants)), args, {"min cosine": cosines})


@torch.inference_mode()
def main() -> None:
    (args,) = parse((EmbedArguments,), description=__doc__)
    set_up(args)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        words, processor = build_processor(30_522)
        build_lotlip(args.layers, "cpu").save_pretrained(folder)
        processor.save_pretrained(folder)
        encoders = load_encoders(args, folder)
        for workload in args.workloads:
            if workload == "images":
                num_images = args.size // 4
                title = f"{num_images} images"
                variants = list_image_variants(args, encoders, num_images)
            else:
                texts = sample_texts(workload, words, args.size)
                title = f"{len(texts)} {workload} texts"
                variants = list_text_variants(args, folder, encoders, texts)
            tables.append(measure_variants(title, variants, args))
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("embed.py"):
        main()

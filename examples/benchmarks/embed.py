# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Texts and images to embeddings, against the way the original computes them and against other libraries.

    python examples/benchmarks/embed.py
    python examples/benchmarks/embed.py --variants original float32 "OpenVINO bfloat16" --workloads mixed
    python examples/benchmarks/embed.py --device cuda --size 256 --attn_implementation sdpa flash_attention_2

The original, and open_clip's text tower, get token ids; all others get texts. "mixed" are texts of 8 to 126 tokens.
Images are pixels. The last column is the least cosine to float32.
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

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.batches import embed_corpus, embed_images
from modeling_lotlip.encoder.models import load_model
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


Embed = Callable[[], torch.Tensor]

PRECISIONS = ("float32", "bfloat16", "float16")
OPENVINO = ("OpenVINO float32", "OpenVINO bfloat16")
OTHERS = ("sentence-transformers", "open_clip")
VARIANTS = ("original", *PRECISIONS, *OPENVINO, *OTHERS)


@dataclass
class EmbedArguments(BenchmarkArguments):
    """What is measured."""

    workloads: list[str] = argument(
        ["short", "long", "mixed", "images"], "What is embedded.", choices=("short", "long", "mixed", "images")
    )
    variants: list[str] = argument(["original", "float32", "bfloat16"], "What embeds it.", choices=VARIANTS)
    attn_implementation: list[str] = argument(["sdpa"], "Attention of the variants that are named by a precision.")
    size: int = argument(32, "Short and long texts; a quarter as many images, 16 times as many mixed texts.", least=4)
    batch_size: int = argument(32, "Texts in a batch of the others.", least=1)
    layers: int = argument(12, "Layers of both towers.", least=1)

    def __post_init__(self):
        super().__post_init__()
        if "float32" not in self.variants:
            raise ValueError("--variants must name float32, to which embeddings are compared.")


def draw_texts(workload: str, words: list[str], size: int) -> list[str]:
    """Random texts: of 15 tokens, of 122, or a quarter of 8 to 20, a half of 60 to 126 and the rest between."""
    generator = random.Random(0)
    ranges = {"short": [(15, 15)], "long": [(122, 122)], "mixed": [(8, 20), (60, 126), (21, 59), (60, 126)]}[workload]
    ends = ranges * (4 * size if workload == "mixed" else size)
    texts = [" ".join(generator.choices(words, k=generator.randint(*pair) - 2)) for pair in ends]
    generator.shuffle(texts)
    return texts


def load_variants(args: EmbedArguments, folder: str) -> dict[str, tuple[LotlipModel, LotlipProcessor]]:
    """The saved model for each precision, attention and backend that is asked for."""
    models = {}
    for name in args.variants:
        if name in PRECISIONS:
            for attention in args.attn_implementation:
                title = name if len(args.attn_implementation) == 1 else f"{name}, {attention}"
                inference = InferenceArguments(device=args.device, backend="torch", dtype=name)
                models[title] = load_model(folder, inference)
                models[title][0].set_attn_implementation(attention)
        elif name in OPENVINO:
            inference = InferenceArguments(device="cpu", backend="openvino", dtype=name.split()[1])
            models[name] = load_model(folder, inference)
    return models


def split(inputs: list[torch.Tensor], size: int, device: str) -> list[tuple[torch.Tensor, ...]]:
    """Tensors in batches on a device."""
    return list(zip(*(tensor.to(device).split(size) for tensor in inputs)))


def list_others(args: EmbedArguments, folder: str, texts: list[str], processor: LotlipProcessor) -> dict[str, Embed]:
    """The other ways to embed texts that are asked for."""
    variants, tokens = {}, processor.tokenizer(texts, padding=True, return_tensors="pt")
    if "original" in args.variants:
        tower, _ = build_original(args.layers, args.device)
        batches = split([tokens["input_ids"], tokens["attention_mask"]], args.batch_size, args.device)
        variants["original"] = lambda: torch.cat([tower(*batch)[:, 0] for batch in batches])
    if "sentence-transformers" in args.variants:
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(folder, device=args.device, trust_remote_code=True)
        variants["sentence-transformers"] = partial(
            encoder.encode, texts, batch_size=args.batch_size, convert_to_tensor=True
        )
    if "open_clip" in args.variants:
        from open_clip.transformer import TextTransformer

        fields = {"context_length": 128, "width": 768, "heads": 12, "layers": args.layers, "output_dim": 768}
        clip = TextTransformer(**fields).to(args.device).eval()
        ids = split([torch.randint(1, 49_000, (len(texts), 128))], args.batch_size, args.device)
        variants["open_clip"] = lambda: torch.cat([clip(*batch) for batch in ids])
    return variants


def list_text_variants(
    args: EmbedArguments, folder: str, models: dict[str, tuple[LotlipModel, LotlipProcessor]], texts: list[str]
) -> dict[str, Embed]:
    """What embeds texts, by name."""
    _, processor = next(iter(models.values()))
    ours = {name: partial(embed_corpus, *model, texts) for name, model in models.items()}
    return list_others(args, folder, texts, processor) | ours


def list_image_variants(
    args: EmbedArguments, models: dict[str, tuple[LotlipModel, LotlipProcessor]], num: int
) -> dict[str, Embed]:
    """What embeds images, by name."""
    pixels = torch.randn(num, 3, 224, 224, device=args.device)
    variants = {}
    if "original" in args.variants:
        _, tower = build_original(args.layers, args.device)
        variants["original"] = lambda: tower(pixels)
    for name, (model, _) in models.items():
        variants[name] = partial(embed_images, model, {"pixel_values": pixels})
    return variants


def compare(title: str, variants: dict[str, Embed], args: EmbedArguments) -> dict:
    """Measures variants in turns, and how far the embeddings of ours are from those in float32."""
    embeds = {}

    def keep(name: str, run: Embed) -> None:
        embeds[name] = run()

    seconds = measure({name: partial(keep, name, run) for name, run in variants.items()}, args.repeats, args.device)
    ours = {
        name: normalize(embeds[name].float().cpu(), dim=-1) for name in embeds if name not in ("original", *OTHERS)
    }
    exact = next(values for name, values in ours.items() if name.startswith("float32"))
    cosines = {name: f"{(values * exact).sum(dim=-1).min():.6f}" for name, values in ours.items()}
    return report(title, seconds, next(iter(variants)), args, {"least cosine": cosines})


@torch.inference_mode()
def main() -> None:
    (args,) = parse((EmbedArguments,), description=__doc__)
    set_up(args)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        words, processor = build_processor(30_522)
        build_lotlip(args.layers, "cpu").save_pretrained(folder)
        processor.save_pretrained(folder)
        models = load_variants(args, folder)
        for workload in args.workloads:
            if workload == "images":
                num = args.size // 4
                variants, title = list_image_variants(args, models, num), f"{num} images"
            else:
                texts = draw_texts(workload, words, args.size)
                variants, title = list_text_variants(args, folder, models, texts), f"{len(texts)} {workload} texts"
            tables.append(compare(title, variants, args))
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("embed.py"):
        main()

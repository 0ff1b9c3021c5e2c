# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Texts of mixed lengths, from strings, and images to embeddings on a CPU: PyTorch, OpenVINO and ONNX Runtime on the same
weights, beside the original's computation and other libraries; and the least cosine to PyTorch's float32.

    python examples/benchmarks/backends.py
    python examples/benchmarks/backends.py --text_model_name_or_path MINILM --vision_model_name_or_path DINOV2 \\
        --texts_file captions.txt --images_dir photos

Without trained towers the weights are random. Texts of a file are cut into halves, and a half is searched for by the
other one.
"""

import importlib.util
import logging
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import PIL.Image
import torch
from scaffold.original import build_original, build_processor
from scaffold.timing import BenchmarkArguments, measure, report, set_up, write_results
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers import pipeline

from modeling_lotlip import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipModel,
    LotlipProcessor,
    LotlipTextModelWithProjection,
    LotlipTokenizer,
    LotlipVisionModelWithProjection,
)
from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.batches import embed_corpus, embed_images
from modeling_lotlip.embedding.features import prepare_images
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.onnx import export_towers
from modeling_lotlip.embedding.openvino import OpenvinoBackend, get_core


OURS = {
    "torch float32": ("torch", "float32"),
    "torch bfloat16": ("torch", "bfloat16"),
    "OpenVINO float32": ("openvino", "float32"),
    "OpenVINO bfloat16": ("openvino", "bfloat16"),
}
ONNX, ENCODE, PIPELINE = "ONNX Runtime float32", "sentence-transformers, `encode`", "transformers' pipeline, states"
OPEN_CLIP = "open_clip's text tower, random"
VARIANTS = ("original", *OURS, ONNX, ENCODE, PIPELINE, OPEN_CLIP)


@dataclass
class BackendArguments(BenchmarkArguments):
    """What is measured, on the CPU."""

    repeats: int = argument(3, "Measurements of each variant, after a warm-up.", least=1)
    text_model_name_or_path: str | None = argument(None, "A trained BERT. Default: random weights of its size.")
    vision_model_name_or_path: str | None = argument(None, "A trained ViT. Default: random weights of its size.")
    layers: int = argument(12, "Layers of towers with random weights.", least=1)
    texts_file: str | None = argument(None, "Texts, one in a line. Default: random ones.")
    texts: int = argument(96, "How many texts.", least=4)
    images_dir: str | None = argument(None, "A folder of pictures. Default: noise.")
    images: int = argument(16, "How many images.", least=1)
    batch_size: int = argument(8, "Images, and texts of the other libraries, in a batch.", least=1)
    only: list[str] = argument(["texts", "images"], "What is embedded.", choices=("texts", "images"))
    variants: list[str] = argument([], "Some of them, beside `torch float32`. Default: all.", choices=VARIANTS)

    def __post_init__(self):
        super().__post_init__()
        self.device = "cpu"

    def wants(self, name: str) -> bool:
        """Whether a variant is measured."""
        return not self.variants or name in ("torch float32", *self.variants)


def save_model(args: BackendArguments, folder: Path) -> list[str]:
    """Saves the model with its processor, and returns the words of random texts."""
    torch.manual_seed(0)
    names = {"vision": args.vision_model_name_or_path, "text": args.text_model_name_or_path}
    if any(names.values()):
        fields = {} if names["vision"] is None else {"vision_image_size": 224}
        model = LotlipModel.from_vision_text_pretrained(names["vision"], names["text"], **fields)
    else:
        layers = {"num_hidden_layers": args.layers}
        model = LotlipModel(LotlipConfig(text_config=layers, vision_config=layers))
    if names["text"] is None:
        words, processor = build_processor(model.config.text_config.vocab_size)
    else:
        tokenizer = LotlipTokenizer.from_pretrained(names["text"], model_max_length=126)
        words = [word for word in tokenizer.get_vocab() if word.isalpha()]
        processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return words


def build_texts(args: BackendArguments, words: list[str]) -> list[str]:
    """
    The first halves of the texts of the file, then their second halves; or random texts: a third of 8 to 20 tokens, a
    third to 60, a third to 126.
    """
    if args.texts_file is not None:
        lines = [
            line.split() for line in Path(args.texts_file).read_text(encoding="utf-8").splitlines()[: args.texts // 2]
        ]
        halves = [(words[: len(words) // 2], words[len(words) // 2 :]) for words in lines]
        return [" ".join(half) for side in zip(*halves) for half in side]
    generator = random.Random(0)
    ends = ((8, 20), (21, 60), (61, 126))
    return [
        " ".join(generator.choices(words, k=generator.randint(*ends[index % 3]) - 2)) for index in range(args.texts)
    ]


def build_pixels(args: BackendArguments, processor: LotlipProcessor) -> torch.Tensor:
    """Pixels of the pictures in the folder, or noise."""
    if args.images_dir is None:
        size = processor.image_processor.crop_size
        return torch.randn(args.images, 3, size.height, size.width)
    paths = [
        path for path in sorted(Path(args.images_dir).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    images = [PIL.Image.open(path).convert("RGB") for path in paths[: args.images]]
    return prepare_images(processor, images)["pixel_values"]


def load_ours(name: str, folder: Path, cache_dir: Path) -> tuple[LotlipModel, LotlipProcessor]:
    """The model on one of `OURS`; towers are converted anew."""
    backend, dtype = OURS[name]
    model, processor = load_model(str(folder), InferenceArguments(device="cpu", backend="torch", dtype=dtype))
    if backend == "openvino":
        model.embedding_backend = OpenvinoBackend(model, dtype, is_required=True, cache_dir=cache_dir)
    return model, processor


def sort_batches(tokens: dict[str, torch.Tensor], size: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """The places and tokens of texts of like length."""
    lengths = tokens["attention_mask"].sum(dim=1)
    places = lengths.argsort(descending=True).split(size)
    return [(rows, {name: tensor[rows, : lengths[rows].max()] for name, tensor in tokens.items()}) for rows in places]


def text_variants(args: BackendArguments, folder: Path, texts: list[str]) -> dict[str, Callable[[], torch.Tensor]]:
    """What gives the embeddings of the texts: ours, ONNX Runtime and other libraries."""
    variants = {}
    if args.text_model_name_or_path is None:
        original, _ = build_original(args.layers, "cpu")
        tokens = LotlipProcessor.from_pretrained(folder).tokenizer(texts, padding=True, return_tensors="pt")
        parts = [tokens[name].split(args.batch_size) for name in ("input_ids", "attention_mask")]
        variants["original"] = lambda: torch.cat([original(*part)[:, 0] for part in zip(*parts)])
    for name in filter(args.wants, OURS):
        model, processor = load_ours(name, folder, folder / "openvino")
        variants[name] = partial(embed_corpus, model, processor, texts)
    graph = open_graph(folder / "text_model.onnx", args.threads)

    def run_onnx() -> torch.Tensor:
        tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
        embeds = torch.empty(len(texts), processor_dim)
        for rows, part in sort_batches(tokens, 4 * args.batch_size):
            arrays = {key: part[key].numpy() for key in ("input_ids", "attention_mask")}
            embeds[rows] = torch.from_numpy(graph.run(["text_embeds"], arrays)[0])
        return embeds

    processor_dim = model.config.projection_dim
    variants[ONNX] = run_onnx
    encoder = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    variants[ENCODE] = lambda: encoder.encode(texts, batch_size=4 * args.batch_size, convert_to_tensor=True)
    features = pipeline("feature-extraction", model=model.text_model, tokenizer=processor.tokenizer, device="cpu")
    features_of = partial(features, texts, batch_size=args.batch_size, return_tensors=True)
    variants[PIPELINE] = lambda: torch.stack([states[0, 0] for states in features_of()])
    if importlib.util.find_spec("open_clip") is None:
        print("open_clip is left out: `pip install open_clip_torch` brings it.")
    else:
        variants[OPEN_CLIP] = build_open_clip(args, texts)
    return variants


def build_open_clip(args: BackendArguments, texts: list[str]) -> Callable[[], torch.Tensor]:
    """open_clip's own text tower at this size, which pads to 128 positions."""
    from open_clip.transformer import TextTransformer

    tower = TextTransformer(context_length=128, width=768, heads=12, layers=args.layers, output_dim=768).eval()
    batches = torch.randint(1, 49000, (len(texts), 128)).split(args.batch_size)
    return lambda: torch.cat([tower(batch) for batch in batches])


def image_variants(args: BackendArguments, folder: Path, pixels: torch.Tensor) -> dict[str, Callable]:
    """What gives the embeddings of the images, whose pixels are there."""
    batches, variants = pixels.split(args.batch_size), {}
    if args.vision_model_name_or_path is None:
        _, original = build_original(args.layers, "cpu")
        variants["original"] = lambda: torch.cat([original(batch) for batch in batches])
    for name in filter(args.wants, OURS):
        model, _ = load_ours(name, folder, folder / "openvino")
        variants[name] = lambda model=model: torch.cat(
            [embed_images(model, {"pixel_values": batch}) for batch in batches]
        )
    graph = open_graph(folder / "vision_model.onnx", args.threads)
    variants[ONNX] = lambda: torch.cat(
        [torch.from_numpy(graph.run(["image_embeds"], {"pixel_values": batch.numpy()})[0]) for batch in batches]
    )
    return variants


def open_graph(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A graph of ONNX on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export_graphs(folder: Path) -> None:
    """Writes the towers as ONNX to the folder."""
    towers = (LotlipTextModelWithProjection, LotlipVisionModelWithProjection)
    export_towers(folder, *(tower.from_pretrained(folder).eval() for tower in towers), 126, ["float32"])


def fastest_product(size: int = 2048) -> dict[str, float]:
    """Floating-point operations per second of a product of matrices in float32: by torch, by NumPy, by OpenVINO."""
    import openvino
    from openvino import opset13

    left, right = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    parameter = opset13.parameter([size, size], np.float32)
    model = openvino.Model([opset13.matmul(parameter, opset13.constant(right), False, False)], [parameter])
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = get_core().compile_model(model, "CPU", options)
    tensors = torch.from_numpy(left), torch.from_numpy(right)
    products = {"torch": lambda: tensors[0] @ tensors[1], "NumPy": lambda: left @ right}
    products["OpenVINO"] = lambda: compiled([left])
    return {name: 2 * size**3 / min(times) for name, times in measure(products, 5, "cpu").items()}


def resident_megabytes() -> float:
    """What this process has in memory now (Linux; else NaN)."""
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1e3 if status.exists() else float("nan")


def compare(
    title: str, variants: dict[str, Callable[[], torch.Tensor]], args: BackendArguments, are_halves: bool
) -> dict:
    """Measures in turns, and prints the first call, its memory, and the least cosine to PyTorch's float32."""
    first, megabytes, embeds = {}, {}, {}

    def keep(name: str, run: Callable[[], torch.Tensor]) -> None:
        embeds[name] = run()

    runs = {name: partial(keep, name, run) for name, run in variants.items() if args.wants(name)}
    for name, run in runs.items():
        before, start = resident_megabytes(), time.perf_counter()
        run()
        first[name], megabytes[name] = time.perf_counter() - start, resident_megabytes() - before
    table = report(title, measure(runs, args.repeats, "cpu"), "torch float32", args)
    embeds = {name: normalize(values.float(), dim=-1) for name, values in embeds.items()}
    expected = embeds["torch float32"]
    titles = ["variant", "first call", "memory more", "least cosine", *(["R@1"] if are_halves else [])]
    print(f"\n| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    half = len(expected) // 2
    for name, row in table["rows"].items():
        row |= {"first_call": first[name], "megabytes": megabytes[name]}
        cells = [name, f"{first[name]:.1f} s", f"{megabytes[name]:.0f} MB"]
        if name in OURS or name == ONNX:
            row["least_cosine"] = (embeds[name] * expected).sum(dim=-1).min().item()
            cells.append(f"{row['least_cosine']:.6f}")
            if are_halves:
                nearest = (embeds[name][:half] @ embeds[name][half:].t()).argmax(dim=1)
                row["recall@1"] = 100 * (nearest == torch.arange(half)).float().mean().item()
                cells.append(f"{row['recall@1']:.1f}")
        print(f"| {' | '.join(cells)} |")
    return table


def main() -> None:
    (args,) = parse((BackendArguments,), description=__doc__)
    set_up(args)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    products = fastest_product()
    print(", ".join(f"{name} {speed / 1e9:.0f} GFLOP/s" for name, speed in products.items()))
    tables = []
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        words = save_model(args, folder)
        with torch.inference_mode(False):
            export_graphs(folder)
        if "texts" in args.only:
            texts = build_texts(args, words)
            title = f"{len(texts)} texts of mixed lengths"
            tables.append(compare(title, text_variants(args, folder, texts), args, args.texts_file is not None))
        if "images" in args.only:
            pixels = build_pixels(args, LotlipProcessor.from_pretrained(folder))
            tables.append(compare(f"{len(pixels)} images", image_variants(args, folder, pixels), args, False))
    tables.append({"title": "A product of matrices, operations per second", "rows": products})
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("backends.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Images in files to embeddings, against the model alone and against sentence-transformers with the same towers.

    python examples/benchmarks/images.py
    python examples/benchmarks/images.py --images 16 --width 2016 --height 1512 --repeats 2

The files are JPEGs with soft shapes, texture and grain. "from files" is what `lotlip search` and `lotlip embed` do;
the processes that decode start before it is measured.
"""

import io
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from scaffold import BenchmarkArguments, build_lotlip, build_processor, measure, report, set_up, write_results

from modeling_lotlip.data.images import Resizing
from modeling_lotlip.data.reader import RowInfo
from modeling_lotlip.encoder.batches import (
    RowCollator,
    TableReader,
    collate_rows,
    count_workers,
    embed_images,
    embed_rows,
)
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


@dataclass
class ImagesArguments(BenchmarkArguments):
    """What is measured."""

    images: int = argument(128, "Files in the folder.", least=2)
    width: int = argument(4032, "Of an image, in pixels.", least=64)
    height: int = argument(3024, "Of an image, in pixels.", least=64)
    batch_size: int = argument(16, "Images in a batch.", least=1)
    layers: int = argument(12, "Layers of both towers.", least=1)
    dtype: str = argument("bfloat16", "What is computed in.", choices=("float32", "bfloat16", "float16"))
    dataloader_num_workers: int | None = argument(None, "Processes that decode. Default: one for each core.", least=0)


def draw_photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG of soft shapes, texture and grain, of about as many bytes as a camera's."""
    generator = np.random.default_rng(seed)

    def noise(cell: int, channels: int) -> np.ndarray:
        pixels = generator.integers(0, 256, (height // cell + 2, width // cell + 2, channels), dtype=np.uint8)
        image = PIL.Image.fromarray(pixels.squeeze()).resize((width, height), PIL.Image.Resampling.BICUBIC)
        return np.asarray(image, dtype=np.int16).reshape(height, width, channels)

    pixels = noise(60, 3) + (noise(6, 1) - 128) // 4 + generator.integers(-5, 6, (height, width, 1))
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()


def write_photographs(folder: Path, args: ImagesArguments) -> int:
    """Writes the files, four different ones, and returns their mean size in bytes."""
    drawn = [draw_photograph(args.width, args.height, seed) for seed in range(4)]
    for number in range(args.images):
        (folder / f"{number:06d}.jpg").write_bytes(drawn[number % 4])
    return sum(map(len, drawn)) // 4


def main() -> None:
    from sentence_transformers import SentenceTransformer  # not at the top, which each process that decodes runs

    (args,) = parse((ImagesArguments,), description=__doc__)
    set_up(args)
    model = build_lotlip(args.layers, args.device, getattr(torch, args.dtype))
    processor = build_processor(1000)[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photos")
        folder.mkdir()
        size = write_photographs(folder, args)
        print(f"{args.images} JPEGs of {args.width} x {args.height} pixels, {size / 1e6:.1f} MB each")
        model.save_pretrained(Path(name, "model"))
        processor.save_pretrained(Path(name, "model"))
        other = SentenceTransformer(
            str(Path(name, "model")), device=args.device, model_kwargs={"dtype": args.dtype}, trust_remote_code=True
        )

        paths = sorted(folder.iterdir())
        pixels = torch.randn(args.batch_size, 3, 224, 224)
        rows = [
            [
                (RowInfo(None, path.name), {"image": {"path": str(path), "bytes": None}})
                for path in paths[start : start + args.batch_size]
            ]
            for start in range(0, args.images, args.batch_size)
        ]
        collate = RowCollator(processor, TableReader(["image"], resizing=Resizing.of(processor.image_processor)))
        num_workers = count_workers() if args.dataloader_num_workers is None else args.dataloader_num_workers

        def run_model() -> None:
            for batch in rows:
                embed_images(model, {"pixel_values": pixels[: len(batch)]})

        def run_from_files() -> None:
            prepared = collate_rows(collate, rows, num_workers)
            assert sum(len(part.entries) for part in embed_rows(model, processor, prepared)) == len(paths)

        def run_sentence_transformers() -> None:
            images = [PIL.Image.open(path) for path in paths]
            other.encode(images, batch_size=args.batch_size, normalize_embeddings=True)

        variants = {"model alone": run_model, f"from files, {num_workers} workers": run_from_files}
        variants["sentence-transformers"] = run_sentence_transformers
        seconds = measure(variants, args.repeats, args.device)
        speeds = {name: f"{args.images / statistics.median(times):.1f}" for name, times in seconds.items()}
        title = f"{args.images} images of {args.width} x {args.height} pixels in {args.dtype}"
        table = report(title, seconds, "model alone", args, {"images a second": speeds})
        write_results([table], args)


if __name__ == "__main__":
    with exit_on_error("images.py"):
        main()

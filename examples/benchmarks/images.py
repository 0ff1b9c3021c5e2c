# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[sentence-transformers]"]
# ///
"""
Images in files to embeddings, compared with the model alone and with sentence-transformers with the same towers.

    python examples/benchmarks/images.py
    python examples/benchmarks/images.py --images 16 --width 2016 --height 1512 --repeats 2

The files are JPEGs with soft shapes, texture and grain. "from files" is what `lotlip search` and `lotlip embed` do;
the processes that decode start before it is measured. "encode_image" gets the paths in Python: two threads decode.
"""

import io
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import torch
from scaffold import (
    BenchmarkArguments,
    build_lotlip,
    build_processor,
    measure,
    report,
    set_up,
    write_results,
)

from modeling_lotlip import DualEncoder
from modeling_lotlip.data.reader import RowInfo
from modeling_lotlip.data.rows import batched
from modeling_lotlip.encoder.batches import RowCollator, TableReader, collate_rows, count_workers, embed_rows
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# So many different photographs, whose files are copied
NUM_PHOTOGRAPHS = 4


@dataclass
class ImagesArguments(BenchmarkArguments):
    """What is measured."""

    images: int = argument(128, "Files in the folder.", least=2)
    width: int = argument(4032, "Of an image, in pixels.", least=64)
    height: int = argument(3024, "Of an image, in pixels.", least=64)
    batch_size: int = argument(16, "Images in a batch.", least=1)
    layers: int = argument(12, "Layers of both towers.", least=1)
    dtype: str = argument(
        "auto",
        "What is computed in. auto: the fastest here, as in `lotlip search`; sentence-transformers then in float32.",
        choices=("float32", "bfloat16", "float16", "auto"),
    )
    dataloader_num_workers: int | None = argument(
        None,
        "Processes that decode. Default: one for each core.",
        least=0,
    )


def draw_noise(generator: np.random.Generator, shape: tuple[int, int, int], cell: int) -> np.ndarray:
    """Returns noise from 0 to 255, of shape `(height, width, channels)`, that is even over about `cell` pixels."""
    height, width, num_channels = shape
    small_shape = (height // cell + 2, width // cell + 2, num_channels)
    pixels = generator.integers(0, 256, small_shape, dtype=np.uint8)
    image = PIL.Image.fromarray(pixels.squeeze())
    image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.int16).reshape(shape)


def draw_photograph(width: int, height: int, seed: int) -> bytes:
    """Returns a JPEG of soft shapes, texture and grain, of about as many bytes as a camera's."""
    generator = np.random.default_rng(seed)
    shapes = draw_noise(generator, (height, width, 3), cell=60)
    texture = (draw_noise(generator, (height, width, 1), cell=6) - 128) // 4
    grain = generator.integers(-5, 6, (height, width, 1))
    pixels = (shapes + texture + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "jpeg", quality=90)
    return file.getvalue()


def write_photographs(folder: Path, args: ImagesArguments) -> list[Path]:
    """Writes the files and returns their paths."""
    drawn = [draw_photograph(args.width, args.height, seed) for seed in range(NUM_PHOTOGRAPHS)]
    paths = []
    for index in range(args.images):
        path = folder / f"{index:06d}.jpg"
        path.write_bytes(drawn[index % NUM_PHOTOGRAPHS])
        paths.append(path)
    return paths


def run_model(encoder: DualEncoder, pixels: torch.Tensor, num_images: int) -> None:
    """Embeds as many images as there are files, of the pixels, of shape `(batch, 3, height, width)`, of one batch."""
    for start in range(0, num_images, len(pixels)):
        encoder.embed_images({"pixel_values": pixels[: num_images - start]})


def run_from_files(encoder: DualEncoder, paths: list[Path], batch_size: int, num_workers: int) -> None:
    """
    Embeds files as commands do.

    Args:
        encoder (`DualEncoder`): Embeds them.
        paths (`list[Path]`): The files.
        batch_size (`int`): Images in a batch.
        num_workers (`int`): Processes that decode.
    """
    reader = TableReader(["image"], resizing=encoder.preprocessing.resizing)
    rows = []
    for path in paths:
        rows.append((RowInfo(None, path.name), {"image": {"path": str(path), "bytes": None}}))
    collate = RowCollator(encoder.preprocessing, reader)
    prepared = collate_rows(collate, batched(rows, batch_size), num_workers)
    num_embedded = sum(len(batch.entries) for batch in embed_rows(encoder, prepared))
    if num_embedded != len(paths):
        raise RuntimeError(f"{num_embedded} of {len(paths)} files were embedded.")


def run_sentence_transformers(model: "SentenceTransformer", paths: list[Path], batch_size: int) -> None:
    """Embeds files by the sentence-transformers library."""
    images = [PIL.Image.open(path) for path in paths]
    model.encode(images, batch_size=batch_size, normalize_embeddings=True)


def measure_images(args: ImagesArguments, folder: Path) -> dict:
    """Returns the table of what embeds the images, whose files and whose model are written to a folder."""
    # not at the top, which each process that decodes runs
    from sentence_transformers import SentenceTransformer

    photos = folder / "photos"
    photos.mkdir()
    paths = write_photographs(photos, args)
    mean_size = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"{args.images} JPEGs of {args.width} x {args.height} pixels, {mean_size / 1e6:.1f} MB each")

    name = str(folder / "model")
    build_lotlip(args.layers, "cpu").save_pretrained(name)
    build_processor(1000)[1].save_pretrained(name)
    backend = "torch"
    other_dtype = args.dtype
    if args.dtype == "auto":
        backend = "auto"
        other_dtype = "float32"
    encoder = DualEncoder.from_pretrained(name, device=args.device, backend=backend, dtype=args.dtype)
    other = SentenceTransformer(name, device=args.device, model_kwargs={"dtype": other_dtype}, trust_remote_code=True)

    pixels = torch.randn(args.batch_size, 3, 224, 224)
    num_workers = args.dataloader_num_workers
    if num_workers is None:
        num_workers = count_workers()
    variants = {
        "model alone": partial(run_model, encoder, pixels, args.images),
        f"from files, {num_workers} workers": partial(run_from_files, encoder, paths, args.batch_size, num_workers),
        "encode_image": partial(encoder.encode_image, paths, args.batch_size),
        "sentence-transformers": partial(run_sentence_transformers, other, paths, args.batch_size),
    }
    seconds = measure(variants, args.repeats, args.device, args.clock)
    speeds = {name: f"{args.images / statistics.median(times):.1f}" for name, times in seconds.items()}
    title = f"{args.images} images of {args.width} x {args.height} pixels in {encoder.computation}"
    return report(title, seconds, "model alone", args, {"images a second": speeds})


def main() -> None:
    (args,) = parse((ImagesArguments,), description=__doc__)
    set_up(args)
    with tempfile.TemporaryDirectory() as name:
        table = measure_images(args, Path(name))
    write_results([table], args)


if __name__ == "__main__":
    with exit_on_error("images.py"):
        main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a training on very many images needs: operations, storage, decoding, exchange of processes, memory, GPU hours.

    python examples/benchmarks/scale.py --num_images 100_000_000 --num_long_captions 3

Counted on the model itself, without computing it: the operations of the towers and of the loss, and the loss's memory.
Measured on this machine, in seconds of a core: decoding and preprocessing, reading a stream, shuffling an epoch.
Assumed, and arguments: the card's peak and how much of it is used, the network, the size of an image.
"""

import io
import json
import math
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from datasets import Dataset, Image, load_dataset
from scaffold.original import build_processor
from scaffold.scaling import (
    FLOAT32_BYTES,
    count_loss_memory,
    count_operations,
    count_slots,
    count_variants,
    exchanged_bytes,
    gathered_bytes,
    loss_operations,
)
from scaffold.timing import BenchmarkArguments, set_up, write_results

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipProcessor
from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.batches import BatchSampler, StreamBatchSampler
from modeling_lotlip.training.monitoring import measure_slots
from modeling_lotlip.training.samples import CaptionedImages, SampleCollator


@dataclass
class ScaleArguments(BenchmarkArguments):
    """What is planned, and what is assumed."""

    threads: int = argument(1, "Threads of the CPU: a data worker has one.", least=1)
    config_name: str | None = argument(None, "The model's configuration. Default: ViT-B/16 and BERT-base.")
    layers: int | None = argument(None, "Layers of both towers. Default: those of the configuration.", least=1)
    num_images: int = argument(100_000_000, "Images to train on.", least=1)
    num_long_captions: int = argument(3, "Long captions of an image.", least=0)
    short_length: int = argument(20, "Tokens of a short caption, padding included.", least=3)
    long_length: int = argument(126, "Tokens of a long caption, padding included.", least=3)
    num_views: int = argument(1, "Views of an image whose features are cached.", least=1)
    kilobytes_per_image: float = argument(110.0, "Default: a JPEG of ImageNet (138 GB, 1.28 million), 110.")
    bytes_per_token: float = argument(5.0, "Characters of a word piece and its space.")
    num_train_epochs: int = argument(10, "Epochs.", least=1)
    gpus: list[int] = argument([8, 64, 512], "Numbers of GPUs.", least=1)
    per_device_train_batch_size: int = argument(512, "Images in the batch of a GPU.", least=1)
    global_batch_sizes: list[int] = argument([4096, 8192, 16384, 32768], "Images in the batch of all GPUs.", least=1)
    utilization: float = argument(0.4, "Share of the peak that a step reaches.")
    peak_tflops: float = argument(989.0, "Default: H100 SXM, bfloat16, dense, 989.")
    loss_peak_tflops: float = argument(67.0, "Default: H100 SXM, float32, 67.")
    memory_gb_per_s: float = argument(3350.0, "Of a GPU. Default: H100 SXM, 3350.")
    network_gb_per_s: float = argument(50.0, "Into each GPU. Default: 400 Gbit/s, 50.")
    num_measured_images: int = argument(64, "Images decoded for the measurement.", least=1)
    logging_steps: int = argument(10, "Steps from one measurement of the training to the next.", least=1)


# ---------------------------------------------------------------------------------------------------------------------
# Measured


def core_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median of the processor's time, of all threads, that a call takes; after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def build_jpeg(width: int, height: int, seed: int = 0) -> bytes:
    """A blurred pattern under fine noise, with about as many bytes as a photograph of ImageNet at 500 x 375."""
    noise = np.random.default_rng(seed)
    pattern = PIL.Image.fromarray(noise.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(pattern.resize((width, height), PIL.Image.Resampling.BICUBIC)).astype(np.float32)
    pixels = (pixels + noise.normal(0, 18, pixels.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "jpeg", quality=90)
    return file.getvalue()


def build_rows(args: ScaleArguments, words: list[str], size: tuple[int, int]) -> list[dict]:
    """JPEGs with a short and `num_long_captions` long captions each."""
    generator = random.Random(0)
    return [
        {
            "image": {"bytes": build_jpeg(*size, seed=index), "path": None},
            "caption": " ".join(generator.choices(words, k=args.short_length - 2)),
            "long_captions": [
                " ".join(generator.choices(words, k=args.long_length - 2)) for _ in range(args.num_long_captions)
            ],
        }
        for index in range(args.num_measured_images)
    ]


def measure_loading(args: ScaleArguments, words: list[str], processor: LotlipProcessor) -> dict[str, dict[str, float]]:
    """Rates at which one core makes training batches, from JPEGs of two sizes and from cached features."""
    drawing = ObjectiveArguments(num_long_captions=args.num_long_captions)
    reader = RowReader(["image", "caption", "long_captions"], CaptionArguments())
    collator = SampleCollator(processor, args.long_length)
    keys = [(0, index, False) for index in range(args.num_measured_images)]
    measured = {}
    for size in ((500, 375), (341, 256)):
        rows = build_rows(args, words, size)
        samples = CaptionedImages(Dataset.from_list(rows).cast_column("image", Image()), reader, drawing)
        seconds = core_seconds(lambda samples=samples: collator([samples[key] for key in keys]), args.repeats)
        measured[f"JPEG of {size[0]} x {size[1]}"] = {
            "KB": statistics.mean(len(row["image"]["bytes"]) for row in rows) / 1e3,
            "images/s of a core": len(keys) / seconds,
        }
    samples.image_features = {(index, 0): torch.zeros(768) for index in range(len(keys))}
    seconds = core_seconds(lambda: collator([samples[key] for key in keys]), args.repeats)
    measured["cached features"] = {"KB": FLOAT32_BYTES * 768 / 1e3, "images/s of a core": len(keys) / seconds}
    return measured


def write_shard(path: Path, rows: list[dict]) -> None:
    """A WebDataset shard as `lotlip pack` writes it: the image, and lists of its short and long captions."""
    with tarfile.open(path, "w") as tar:
        for index, row in enumerate(rows):
            members = {"jpg": row["image"]["bytes"], "caption.json": json.dumps([row["caption"]]).encode()}
            members["long_captions.json"] = json.dumps(row["long_captions"]).encode()
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{index:08}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def measure_stream(args: ScaleArguments, words: list[str]) -> float:
    """Rows a second that the main process of `--streaming` reads from WebDataset shards, undecoded."""
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "00000.tar"
        write_shard(shard, build_rows(args, words, (500, 375)))
        stream = load_dataset("webdataset", data_files=str(shard), split="train", streaming=True)
        batches = StreamBatchSampler(stream, 8, 0, "jpg", Accelerator(cpu=True), buffer_size=16)
        return args.num_measured_images / core_seconds(lambda: list(batches), args.repeats)


def measure_order(num_images: int, num_measured: int = 1_000_000) -> tuple[float, int]:
    """Seconds and bytes of the order of an epoch, which every process makes; measured on a million, and scaled."""
    num_measured = min(num_images, num_measured)
    batches = BatchSampler(num_measured, 1, seed=0, process_index=0, num_processes=1)
    seconds = core_seconds(batches.order, repeats=1)
    order = batches.order()
    size = sys.getsizeof(order) + sum(map(sys.getsizeof, islice(order, 1000))) / min(1000, num_measured) * num_measured
    return seconds * num_images / num_measured, round(size * num_images / num_measured)


def measure_watching(args: ScaleArguments, num_slots: int, num_corner_tokens: int, dim: int) -> float:
    """Seconds of a core that the first process measures its embeddings in, every `--logging_steps` steps."""
    generator, num_images = torch.Generator().manual_seed(0), args.per_device_train_batch_size
    image_embeds, text_embeds = (
        torch.nn.functional.normalize(torch.randn(*shape, dim, generator=generator), dim=-1)
        for shape in ((num_images,), (num_images, num_slots))
    )
    slot_losses = torch.ones(num_slots)
    measure = partial(measure_slots, slot_losses, num_corner_tokens)
    return core_seconds(measure, args.repeats)


# ---------------------------------------------------------------------------------------------------------------------
# The tables


def format_value(value: float | str) -> str:
    """Whole numbers in full, others with three digits."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(title: str, corner: str, rows: dict[str, dict[str, float]]) -> dict:
    """Prints a table as Markdown, and returns it as the other benchmarks do."""
    columns = list(next(iter(rows.values())))
    print(f"\n### {title}\n\n| {' | '.join([corner, *columns])} |\n|{' --- |' * (1 + len(columns))}")
    for name, row in rows.items():
        print(f"| {' | '.join([name, *(format_value(row[column]) for column in columns)])} |", flush=True)
    return {"title": title, "rows": rows}


class Costs:
    """
    Seconds and bytes of a step, for any number of GPUs and images on each.

    Args:
        args (`ScaleArguments`):
            The arguments of this script.
    """

    def __init__(self, args: ScaleArguments):
        self.args = args
        self.config = LotlipConfig() if args.config_name is None else LotlipConfig.from_pretrained(args.config_name)
        if args.layers is not None:
            self.config.text_config.num_hidden_layers = self.config.vision_config.num_hidden_layers = args.layers
        self.num_slots = count_slots(self.config, args.num_long_captions)
        self.operations = count_operations(self.config, args.num_long_captions, args.short_length, args.long_length)
        self.variants = count_variants(self.operations)
        self.speed, self.loss_speed = (
            args.utilization * tflops * 1e12 for tflops in (args.peak_tflops, args.loss_peak_tflops)
        )
        with torch.device("meta"):
            model = LotlipModel(self.config)
        self.num_vision = sum(parameter.numel() for parameter in model.vision_model.parameters())
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.pixel_bytes = 3 * math.prod(model.vision_model.embeddings.image_size) * FLOAT32_BYTES
        self.feature_bytes = self.config.vision_config.hidden_size * FLOAT32_BYTES

    def exchange(self, batch_size: int, is_vision_trained: bool = False) -> dict[str, int]:
        """`exchanged_bytes` of a process."""
        num_gradients = self.num_parameters - (0 if is_vision_trained else self.num_vision)
        dim, short_length = self.config.projection_dim, self.args.short_length
        return exchanged_bytes(batch_size, self.num_slots, dim, short_length, num_gradients)

    def loss(self, gpus: int, batch_size: int) -> dict[str, float]:
        """What the loss costs in every process."""
        num_rows, dim = gpus * batch_size, self.config.projection_dim
        peak, moved = count_loss_memory(batch_size, gpus, self.num_slots, dim)
        operations = loss_operations(batch_size, num_rows, self.num_slots, dim)
        return {
            "TFLOP": operations / 1e12,
            "products (s)": operations / self.loss_speed,
            "the rest (s)": moved / (1e9 * self.args.memory_gb_per_s),
            "memory (GB)": peak / 1e9,
        }

    def step(self, variant: str, gpus: int, batch_size: int) -> dict[str, float]:
        """Where the seconds of a step go. Gradients are exchanged as a ring, during the backward pass."""
        network = 1e9 * self.args.network_gb_per_s
        is_vision_trained = variant.startswith("trained")
        own = self.exchange(batch_size, is_vision_trained)
        backward = self.operations["text backward"] + is_vision_trained * self.operations["image backward"]
        gradients = 2 * (gpus - 1) / gpus * own["gradients"] / network
        loss = self.loss(gpus, batch_size)
        seconds = {
            "towers (s)": batch_size * self.variants[variant] / self.speed,
            "loss (s)": loss["products (s)"] + loss["the rest (s)"],
            "gathering (s)": (gpus - 1) * gathered_bytes(own) / network,
            "gradients beyond the backward pass (s)": max(0.0, gradients - batch_size * backward / self.speed),
        }
        return {**seconds, "step (s)": sum(seconds.values())}

    def num_steps(self, global_batch_size: int) -> int:
        """Steps of the whole training."""
        return math.ceil(self.args.num_images / global_batch_size) * self.args.num_train_epochs


def tabulate_towers(costs: Costs) -> list[dict]:
    """Operations, and what they take at the speed assumed."""
    args, speed = costs.args, costs.speed
    rows = {name: {"GFLOP": count / 1e9} for name, count in costs.operations.items()}
    tables = [print_table("Operations of an image with its captions", "part", rows)]
    rows = {
        name: {
            "GFLOP an image": count / 1e9,
            "images/s a GPU": speed / count,
            "GPU hours an epoch": args.num_images * count / speed / 3600,
        }
        for name, count in costs.variants.items()
    }
    title = f"The towers at {args.utilization:.0%} of {args.peak_tflops:g} TFLOP/s"
    return [*tables, print_table(title, "way to train", rows)]


def tabulate_data(costs: Costs) -> list[dict]:
    """Storage, decoding, and what feeds a GPU."""
    args = costs.args
    num_tokens = args.short_length + args.num_long_captions * args.long_length
    sizes = {
        f"images of {args.kilobytes_per_image:g} KB": 1e3 * args.kilobytes_per_image,
        f"captions, {num_tokens} tokens of {args.bytes_per_token:g} bytes": num_tokens * args.bytes_per_token,
        f"image features, views: {args.num_views}": costs.feature_bytes * args.num_views,
    }
    rows = {
        name: {"KB an image": size / 1e3, "TB in all": size * args.num_images / 1e12} for name, size in sizes.items()
    }
    tables = [print_table(f"Storage of {args.num_images:,} images", "what", rows)]

    words, processor = build_processor(30_000)
    loading = measure_loading(args, words, processor)
    tables.append(print_table("Making batches, on one core", "from", loading))
    rows = {}
    for source, measured in loading.items():
        is_cached = source == "cached features"
        rate = costs.speed / costs.variants["cached image features" if is_cached else "frozen image tower"]
        rows[source] = {
            "images/s a GPU": rate,
            "read (MB/s a GPU)": rate * measured["KB"] / 1e3,
            "copied to it (MB/s)": rate * (costs.feature_bytes if is_cached else costs.pixel_bytes) / 1e6,
            "cores a GPU": rate / measured["images/s of a core"],
            "core hours an epoch": args.num_images / measured["images/s of a core"] / 3600,
        }
    tables.append(print_table("What feeds a GPU, towers alone", "from", rows))

    seconds, size = measure_order(args.num_images)
    rows = {
        "`--streaming`: rows/s that the main process of a GPU reads": {"value": measure_stream(args, words)},
        "without: core seconds to shuffle an epoch, in each process": {"value": seconds},
        "without: GB of that order, in each process": {"value": size / 1e9},
    }
    return [*tables, print_table("The order of the samples", "what", rows)]


def tabulate_steps(costs: Costs) -> list[dict]:
    """Exchange, loss and time as the number of GPUs grows, with as many images on each."""
    args, batch_size = costs.args, costs.args.per_device_train_batch_size
    exchange, loss, steps, runs, watching = {}, {}, {}, {}, {}
    num_corner_tokens, dim = costs.config.text_config.num_corner_tokens, costs.config.projection_dim
    measuring = measure_watching(args, costs.num_slots, num_corner_tokens, dim)
    for gpus in args.gpus:
        global_batch_size, own = gpus * batch_size, costs.exchange(batch_size)
        own_bytes = gathered_bytes(own)
        ring = 2 * (gpus - 1) / gpus
        exchange[f"{gpus:,}"] = {
            "global batch": global_batch_size,
            "own embeddings and the rest (MB)": own_bytes / 1e6,
            "beside embeddings and ids (MB)": (own_bytes - own["embeddings"] - own["ids"]) / 1e6,
            "gathered (MB)": gpus * own_bytes / 1e6,
            "gradients (MB)": own["gradients"] / 1e6,
            "sent for them as a ring (MB)": ring * own["gradients"] / 1e6,
            "the same, image tower trained (MB)": ring * costs.exchange(batch_size, True)["gradients"] / 1e6,
        }
        loss[f"{gpus:,}"] = {"global batch": global_batch_size, **costs.loss(gpus, batch_size)}
        steps[f"{gpus:,}"] = costs.step("frozen image tower", gpus, batch_size)
        share = measuring / args.logging_steps / steps[f"{gpus:,}"]["step (s)"]
        watching[f"{gpus:,}"] = {"a measurement (s)": measuring, "of a step (%)": 100 * share}
        num_steps = costs.num_steps(global_batch_size)
        runs[f"{gpus:,}"] = {"steps": num_steps}
        for variant in ("frozen image tower", "cached image features", "trained image tower"):
            seconds = num_steps * costs.step(variant, gpus, batch_size)["step (s)"]
            name = variant.split()[0]
            runs[f"{gpus:,}"] |= {f"{name} (GPU hours)": seconds * gpus / 3600, f"{name} (days)": seconds / 86400}
    speed, memory = f"{args.utilization:.0%} of {args.loss_peak_tflops:g} TFLOP/s", f"{args.memory_gb_per_s:,g} GB/s"
    return [
        print_table(f"The exchange of a step, {batch_size} images a GPU", "GPUs", exchange),
        print_table(f"The loss in every process, at {speed} and {memory}", "GPUs", loss),
        print_table(f"A step, frozen image tower, {args.network_gb_per_s:g} GB/s a GPU", "GPUs", steps),
        print_table(f"Measuring every {args.logging_steps} steps, on one core", "GPUs", watching),
        print_table(f"{args.num_train_epochs} epochs, {batch_size} images a GPU", "GPUs", runs),
    ]


def tabulate_batches(costs: Costs) -> dict:
    """Days by the global batch, shared out over more and more GPUs, and the share of them that the towers compute."""
    rows = {}
    for gpus in costs.args.gpus:
        rows[f"{gpus:,}"] = {}
        for global_batch_size in costs.args.global_batch_sizes:
            parts = costs.step("frozen image tower", gpus, global_batch_size // gpus)
            days = costs.num_steps(global_batch_size) * parts["step (s)"] / 86400
            cell = f"{format_value(days)} ({parts['towers (s)'] / parts['step (s)']:.0%})"
            rows[f"{gpus:,}"][f"{global_batch_size:,}"] = cell
    return print_table("Days, and the share of the towers, by the global batch", "GPUs", rows)


def main() -> None:
    (args,) = parse((ScaleArguments,), description=__doc__)
    set_up(args)
    costs = Costs(args)
    tables = [*tabulate_towers(costs), *tabulate_data(costs), *tabulate_steps(costs), tabulate_batches(costs)]
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("scale.py"):
        main()

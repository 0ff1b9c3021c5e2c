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
What a training on very many images needs: operations, storage, decoding, exchange of processes, memory, GPU hours.

    python examples/benchmarks/scale.py --num_images 100_000_000 --num_long_captions 3

Counted on the model itself, without computing it: the operations of the towers and of the loss, and the loss's memory.
Measured on this machine, in seconds of a core: decoding and preprocessing, reading a stream, shuffling an epoch.
Assumed, and arguments: the card's peak and how much of it is used, the network, the size of an image.
"""

import argparse
import io
import json
import math
import random
import statistics
import sys
import tarfile
import tempfile
import time
import weakref
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from datasets import Dataset, Image, load_dataset
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from modeling_lotlip import LotlipConfig, LotlipModel
from modeling_lotlip.benchmarking.flops import build_meta_model, count_flops
from modeling_lotlip.benchmarking.original import build_processor
from modeling_lotlip.benchmarking.timing import add_benchmark_arguments, set_up, write_results
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.losses import blockwise_contrastive_loss
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.batches import BatchSampler, StreamBatchSampler
from modeling_lotlip.training.samples import CaptionedImages, SampleCollator


FLOAT32_BYTES, INT64_BYTES, BOOL_BYTES = 4, 8, 1


# ---------------------------------------------------------------------------------------------------------------------
# Counted


def count_operations(
    config: LotlipConfig, num_long_captions: int, short_length: int, long_length: int
) -> dict[str, int]:
    """
    Floating-point operations of a training step for each image, by what is trained and what is computed again.

    Args:
        config (`LotlipConfig`):
            The model, which is run on the meta device: nothing is computed.
        num_long_captions (`int`):
            Long captions of an image.
        short_length (`int`):
            Tokens of a short caption, padded to the longest of its batch.
        long_length (`int`):
            Tokens of a long caption, padded likewise, without corner tokens.

    Returns:
        `dict[str, int]`: of `image forward`, `image backward`, `text forward` and `text backward`.
    """
    model = build_meta_model(config).train()
    with torch.device("meta"):
        pixel_values = torch.zeros(1, 3, *model.vision_model.embeddings.image_size)
        short_input_ids = torch.zeros(1, short_length, dtype=torch.long)
        input_ids = torch.zeros(1, num_long_captions, long_length, dtype=torch.long)
        features = torch.zeros(1, config.vision_config.hidden_size)

    def count(run: Callable[[], torch.Tensor]) -> tuple[int, int]:
        forward, embeds = count_flops(run)
        backward, _ = count_flops(embeds.sum().backward)
        return forward, backward

    # the projection of image features, where there is one, is trained with the texts
    captions = {"short_input_ids": short_input_ids, "input_ids": input_ids, "vision_pooler_output": features}
    image = count(lambda: model.vision_model(pixel_values).pooler_output)
    text = count(lambda: model(**captions).text_embeds)
    return {
        "image forward": image[0],
        "image backward": image[1],
        "text forward": text[0],
        "text backward": text[1],
    }


def count_variants(operations: dict[str, int]) -> dict[str, int]:
    """Operations of a step for each image, of each way to train and of caching, from those of `count_operations`."""
    text = operations["text forward"] + operations["text backward"]
    image = operations["image forward"] + operations["image backward"]
    return {
        "locked image tower": operations["image forward"] + text,
        "cached image features": text,
        "trained image tower": image + text,
        "locked, in chunks": operations["image forward"] + text + operations["text forward"],
        "cached, in chunks": text + operations["text forward"],
        "trained, in chunks": image + text + operations["image forward"] + operations["text forward"],
        "the pass that caches a view": operations["image forward"],
    }


def num_slots_of(config: LotlipConfig, num_long_captions: int) -> int:
    """Text embeddings of an image: of the short caption, and of each long one with its corner tokens."""
    return 1 + num_long_captions * (1 + config.text_config.num_corner_tokens)


def loss_operations(num_own_rows: int, num_rows: int, num_slots: int, dim: int) -> int:
    """
    Operations of the loss in a process that has `num_own_rows` of all `num_rows`: the similarities of its images with
    all texts and of its texts with all images, these again in the backward pass, and the gradients of its embeddings.
    """
    return 3 * 2 * 2 * num_slots * num_own_rows * num_rows * dim


def repeat_rows(num_processes: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """In place of a gather, as many rows as so many processes have: a process can then be counted alone."""
    return lambda rows: rows.detach().repeat(num_processes, *[1] * (rows.dim() - 1))


class MemoryCounter(TorchDispatchMode):
    """
    Counts the bytes of the tensors alive that were made inside it, with the most there were as `peak`, and as `moved`
    those that are read and written by operations other than matrix products.
    """

    def __init__(self):
        super().__init__()
        self.alive = set()
        self.current = self.peak = self.moved = 0

    def release(self, key: int, num_bytes: int) -> None:
        self.alive.discard(key)
        self.current -= num_bytes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        written = [tensor for tensor in tree_leaves(outputs) if isinstance(tensor, torch.Tensor)]
        read = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)]
        storages = {tensor.untyped_storage()._cdata for tensor in read}
        is_view = all(tensor.untyped_storage()._cdata in storages for tensor in written)
        if func.overloadpacket not in flop_registry and (func._schema.is_mutable or not is_view):
            self.moved += sum(tensor.nbytes for tensor in read + written)
        for tensor in written:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.alive:
                self.alive.add(storage._cdata)
                self.current += storage.nbytes()
                self.peak = max(self.peak, self.current)
                weakref.finalize(storage, self.release, storage._cdata, storage.nbytes())
        return outputs


def count_loss_memory(num_own_rows: int, num_processes: int, num_slots: int, dim: int) -> tuple[int, int]:
    """
    The most bytes that the blockwise loss holds in one of the processes, its inputs, their gradients and what is
    gathered included, and the bytes that it moves beside its matrix products. Nothing is computed.
    """
    with FakeTensorMode(), MemoryCounter() as memory:
        image_embeds = torch.zeros(num_own_rows, dim, requires_grad=True)
        text_embeds = torch.zeros(num_own_rows, num_slots, dim, requires_grad=True)
        logit_scale = torch.ones((), requires_grad=True)
        short_groups = torch.zeros(num_own_rows, dtype=torch.long)
        gather = repeat_rows(num_processes)
        blockwise_contrastive_loss(
            image_embeds, text_embeds, logit_scale, short_groups=short_groups, gather=gather
        ).backward()
    return memory.peak, memory.moved


def exchanged_bytes(
    num_images: int, num_slots: int, dim: int, short_length: int, num_gradients: int
) -> dict[str, int]:
    """
    What a process contributes to the exchange of a training step. Of the parameters' gradients every process receives
    the mean over the processes; of everything else, the contributions of all.

    Args:
        num_images (`int`):
            Images in the batch of a process.
        num_slots (`int`):
            Text embeddings of an image.
        dim (`int`):
            Width of the embeddings, which are exchanged in float32.
        short_length (`int`):
            Tokens of the short captions, padded to the longest of all processes.
        num_gradients (`int`):
            Trained parameters. Their gradients are in float32, also with `--mixed_precision bf16`.

    Returns:
        `dict[str, int]`: the bytes of `embeddings`, `ids` (and of the two lengths that padding is agreed on with),
        `groups` of equal short captions, `present` captions, `sums` (the logarithms of the sums of exponentials of an
        image's and a text's similarities, and the similarity of the pair), `scale gradient` and `gradients`.
    """
    return {
        "embeddings": FLOAT32_BYTES * num_images * (1 + num_slots) * dim,
        "ids": INT64_BYTES * (num_images * short_length + 2),
        "groups": INT64_BYTES * num_images,
        "present": BOOL_BYTES * num_images * num_slots,
        "sums": 3 * FLOAT32_BYTES * num_images * num_slots,
        "scale gradient": FLOAT32_BYTES,
        "gradients": FLOAT32_BYTES * num_gradients,
    }


def gathered_bytes(exchanged: dict[str, int]) -> int:
    """Of the `exchanged_bytes` of a process, those that every other process receives."""
    return sum(exchanged.values()) - exchanged["gradients"]


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


def build_rows(args: argparse.Namespace, words: list[str], size: tuple[int, int]) -> list[dict]:
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


def measure_loading(args: argparse.Namespace, words: list[str], processor) -> dict[str, dict[str, float]]:
    """Rates at which one core makes training batches, from JPEGs of two sizes and from cached features."""
    drawing = ObjectiveArguments(num_long_captions=args.num_long_captions)
    reader = CaptionReader(["image", "caption", "long_captions"], CaptionArguments())
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
    """A WebDataset shard as `pack_webdataset.py` writes it: the image, and lists of its short and long captions."""
    with tarfile.open(path, "w") as tar:
        for index, row in enumerate(rows):
            members = {"jpg": row["image"]["bytes"], "caption.json": json.dumps([row["caption"]]).encode()}
            members["long_captions.json"] = json.dumps(row["long_captions"]).encode()
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{index:08}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def measure_stream(args: argparse.Namespace, words: list[str]) -> float:
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
        args (`argparse.Namespace`):
            The arguments of this script.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.config = LotlipConfig() if args.config_name is None else LotlipConfig.from_pretrained(args.config_name)
        if args.layers is not None:
            self.config.text_config.num_hidden_layers = self.config.vision_config.num_hidden_layers = args.layers
        self.num_slots = num_slots_of(self.config, args.num_long_captions)
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
    bytes_of = {
        f"images of {args.kilobytes_per_image:g} KB": 1e3 * args.kilobytes_per_image,
        f"captions, {num_tokens} tokens of {args.bytes_per_token:g} bytes": num_tokens * args.bytes_per_token,
        f"image features, views: {args.num_views}": costs.feature_bytes * args.num_views,
    }
    rows = {
        name: {"KB an image": size / 1e3, "TB in all": size * args.num_images / 1e12}
        for name, size in bytes_of.items()
    }
    tables = [print_table(f"Storage of {args.num_images:,} images", "what", rows)]

    words, processor = build_processor(30_000)
    loading = measure_loading(args, words, processor)
    tables.append(print_table("Making batches, on one core", "from", loading))
    rows = {}
    for source, measured in loading.items():
        is_cached = source == "cached features"
        rate = costs.speed / costs.variants["cached image features" if is_cached else "locked image tower"]
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
    exchange, loss, steps, runs = {}, {}, {}, {}
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
        steps[f"{gpus:,}"] = costs.step("locked image tower", gpus, batch_size)
        num_steps = costs.num_steps(global_batch_size)
        runs[f"{gpus:,}"] = {"steps": num_steps}
        for variant in ("locked image tower", "cached image features", "trained image tower"):
            seconds = num_steps * costs.step(variant, gpus, batch_size)["step (s)"]
            name = variant.split()[0]
            runs[f"{gpus:,}"] |= {f"{name} (GPU hours)": seconds * gpus / 3600, f"{name} (days)": seconds / 86400}
    speed, memory = f"{args.utilization:.0%} of {args.loss_peak_tflops:g} TFLOP/s", f"{args.memory_gb_per_s:,} GB/s"
    return [
        print_table(f"The exchange of a step, {batch_size} images a GPU", "GPUs", exchange),
        print_table(f"The loss in every process, at {speed} and {memory}", "GPUs", loss),
        print_table(f"A step, locked image tower, {args.network_gb_per_s:g} GB/s a GPU", "GPUs", steps),
        print_table(f"{args.num_train_epochs} epochs, {batch_size} images a GPU", "GPUs", runs),
    ]


def tabulate_batches(costs: Costs) -> dict:
    """Days by the global batch, shared out over more and more GPUs, and the share of them that the towers compute."""
    rows = {}
    for gpus in costs.args.gpus:
        rows[f"{gpus:,}"] = {}
        for global_batch_size in costs.args.global_batch_sizes:
            parts = costs.step("locked image tower", gpus, global_batch_size // gpus)
            days = costs.num_steps(global_batch_size) * parts["step (s)"] / 86400
            cell = f"{format_value(days)} ({parts['towers (s)'] / parts['step (s)']:.0%})"
            rows[f"{gpus:,}"][f"{global_batch_size:,}"] = cell
    return print_table("Days, and the share of the towers, by the global batch", "GPUs", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_benchmark_arguments(parser)
    parser.set_defaults(threads=1)  # a data worker has one
    parser.add_argument("--config_name", help="The model's configuration. Default: ViT-B/16 and BERT-base.")
    parser.add_argument("--layers", type=int, help="Layers of both towers. Default: those of the configuration.")
    parser.add_argument("--num_images", type=int, default=100_000_000)
    parser.add_argument("--num_long_captions", type=int, default=3, help="Long captions of an image.")
    parser.add_argument("--short_length", type=int, default=20, help="Tokens of a short caption, padding included.")
    parser.add_argument("--long_length", type=int, default=126, help="Tokens of a long caption, padding included.")
    parser.add_argument("--num_views", type=int, default=1, help="Views of an image whose features are cached.")
    parser.add_argument(
        "--kilobytes_per_image", type=float, default=110, help="Default: a JPEG of ImageNet (138 GB, 1.28 million)."
    )
    parser.add_argument("--bytes_per_token", type=float, default=5, help="Characters of a word piece and its space.")
    parser.add_argument("--num_train_epochs", type=int, default=10)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--per_device_train_batch_size", type=int, default=512)
    parser.add_argument("--global_batch_sizes", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--utilization", type=float, default=0.4, help="Share of the peak that a step reaches.")
    parser.add_argument("--peak_tflops", type=float, default=989, help="Default: H100 SXM, bfloat16, dense.")
    parser.add_argument("--loss_peak_tflops", type=float, default=67, help="Default: H100 SXM, float32.")
    parser.add_argument("--memory_gb_per_s", type=float, default=3350, help="Of a GPU. Default: H100 SXM.")
    parser.add_argument("--network_gb_per_s", type=float, default=50, help="Into each GPU. Default: 400 Gbit/s.")
    parser.add_argument("--num_measured_images", type=int, default=64, help="Images decoded for the measurement.")
    args = parser.parse_args()
    set_up(args)
    costs = Costs(args)
    tables = [*tabulate_towers(costs), *tabulate_data(costs), *tabulate_steps(costs), tabulate_batches(costs)]
    write_results(tables, args)


if __name__ == "__main__":
    main()

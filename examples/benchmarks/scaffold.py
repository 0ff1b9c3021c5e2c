# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the benchmarks share: arguments, timing in turns, one table, and the model as the original code computes it.

`torch.utils.benchmark` measures one statement after the other, so that a machine whose speed drifts favors one of
them. Here variants take turns, and ratios are those of turns.
"""

import dataclasses
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from modeling_lotlip import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipModel,
    LotlipProcessor,
    LotlipTokenizer,
)
from modeling_lotlip.utils.arguments import Arguments, argument, check_output_file
from modeling_lotlip.utils.files import write_json
from modeling_lotlip.utils.markdown import format_markdown


SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass
class BenchmarkArguments(Arguments):
    """The arguments of every benchmark."""

    device: str | None = argument(None, "Such as `cpu` or `cuda`. Default: CUDA if there is one.")
    threads: int = argument(os.cpu_count(), "Threads of the CPU.", least=1)
    repeats: int = argument(5, "Measurements of each variant, after a warm-up.", least=1)
    processor_time: bool = argument(
        False, "Measure the time of the processor in this process, of all threads, where other programs run too."
    )
    output_file: Path | None = argument(None, "Write the measurements to this JSON file.")

    def __post_init__(self):
        super().__post_init__()
        check_output_file(self.output_file)
        if self.device is None:
            self.device = "cpu"
            if torch.cuda.is_available():
                self.device = "cuda"

    @property
    def clock(self) -> Callable[[], float]:
        """What tells the seconds."""
        if self.processor_time:
            return time.process_time
        return time.perf_counter


@dataclass
class TowerBenchmarkArguments(BenchmarkArguments):
    """The arguments of the benchmarks that run the towers."""

    layers: int = argument(12, "Layers of both towers.", least=1)
    dtypes: list[str] = argument(
        ["float32", "bfloat16"], "What is computed in.", choices=("float32", "bfloat16", "float16")
    )


def set_up(args: BenchmarkArguments) -> None:
    """Sets threads and seed, the same way for all benchmarks."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)


def synchronize(device: str) -> None:
    """Waits until a device has computed what it was asked for."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(
    variants: dict[str, Callable[[], object]],
    repeats: int,
    device: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """
    Measures the seconds of each variant in turns (A B C A B C ...), so that a machine whose speed drifts is fair to
    all.

    Args:
        variants (`dict[str, Callable]`):
            What to run, by name. Each is run once before, uncounted.
        repeats (`int`):
            Counted runs of each.
        device (`str`):
            The device that they compute on.
        clock (`Callable`, *optional*):
            Tells the seconds.
    """
    seconds = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            synchronize(device)
            start = clock()
            run()
            synchronize(device)
            if repeat > 0:
                seconds[name].append(clock() - start)
    return seconds


def matrix_product_ceiling(device: str, dtype: torch.dtype, size: int = 4096, repeats: int = 3) -> float:
    """
    Measures the floating-point operations per second of a large square matrix product, the most that a machine gives.

    Args:
        device (`str`): Where it is computed.
        dtype (`torch.dtype`): What it is computed in.
        size (`int`, *optional*, defaults to 4096): The number of rows.
        repeats (`int`, *optional*, defaults to 3): Counted runs.
    """
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    seconds = measure({"product": lambda: left @ right}, repeats, device)["product"]
    return 2 * size**3 / statistics.median(seconds)


def report(
    title: str,
    seconds: dict[str, list[float]],
    baseline: str,
    args: BenchmarkArguments,
    columns: dict[str, dict[str, str]] | None = None,
) -> dict:
    """
    Prints a table of measurements and returns it.

    Args:
        title (`str`):
            What was done.
        seconds (`dict[str, list[float]]`):
            The result of `measure`.
        baseline (`str`):
            The variant that the ratios are of.
        args (`BenchmarkArguments`):
            The benchmark's arguments.
        columns (`dict[str, dict[str, str]]`, *optional*):
            Further columns: the cells of the variants by title. A variant without a cell has an empty one.

    Returns:
        `dict`: the median, min and max seconds of each variant, and the `ratio` of its speed to the baseline's:
        the median over the turns, in which the two were measured one after the other.
    """
    columns = columns or {}
    titles = ["variant", "median", "min", "max", "times the baseline's speed", *columns]
    seconds_of = "of a clock"
    if args.processor_time:
        seconds_of = "of the processor"
    print(f"\n{title} ({args.device}, {args.threads} threads, seconds {seconds_of})\n")
    rows = {}
    lines = []
    for name, times in seconds.items():
        ratios = [other / time for other, time in zip(seconds[baseline], times)]
        row = {
            "median": statistics.median(times),
            "min": min(times),
            "max": max(times),
            "ratio": statistics.median(ratios),
        }
        further = {key: cell.get(name, "") for key, cell in columns.items()}
        cells = [
            name,
            f"{row['median']:.3f} s",
            f"{row['min']:.3f} s",
            f"{row['max']:.3f} s",
            f"{row['ratio']:.2f}",
            *further.values(),
        ]
        lines.append(cells)
        rows[name] = row | further
    print(format_markdown(titles, lines), flush=True)
    return {"title": title, "baseline": baseline, "rows": rows}


def processor_name() -> str:
    """Returns the processor as Linux calls it, or as Python does elsewhere."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory(device: str) -> int:
    """Returns the max memory that this process has had so far on a device, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # `ru_maxrss` counts what the process was before it ran this program
        kilobytes = status.read_text().partition("VmHWM:")[2].split()[0]
        return 1024 * int(kilobytes)
    import resource  # which Windows has not

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def find_commit() -> str | None:
    """Returns the commit of the checkout that this file lies in."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def write_results(tables: list[dict], args: BenchmarkArguments) -> None:
    """Writes tables, settings and the machine to `--output_file`, whose own path is not among the settings."""
    if args.output_file is None:
        return
    device = "cpu"
    if args.device.startswith("cuda"):
        device = torch.cuda.get_device_name()
    machine = {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "threads": args.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "commit": find_commit(),
    }
    settings = dataclasses.asdict(args)
    del settings["output_file"]
    write_json(args.output_file, {"machine": machine, "settings": settings, "tables": tables})


class OriginalTextTower(nn.Module):
    """
    Every text padded to the context length, the corner tokens inside the sequence as words of the table, and the
    attention mask spelled out for each text.
    """

    def __init__(
        self,
        config: BertConfig,
        num_corner_tokens: int,
        projection_dim: int,
        context_length: int = 128,
    ):
        super().__init__()
        self.vocab_size = config.vocab_size
        self.num_corner_tokens = num_corner_tokens
        self.context_length = context_length
        config = BertConfig(**{**config.to_dict(), "vocab_size": config.vocab_size + num_corner_tokens})
        config._attn_implementation = "eager"
        self.bert = BertModel(config)
        self.projection = nn.Linear(config.hidden_size, projection_dim, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Returns features of shape `(texts, 1 + corner tokens, dim)` of ids and mask of shape `(texts, length)`, without
        corner tokens.
        """
        num_texts = len(input_ids)
        num_corners = self.num_corner_tokens
        end = self.vocab_size + num_corners
        corner_ids = torch.arange(self.vocab_size, end, device=input_ids.device)
        corner_ids = corner_ids.expand(num_texts, -1)
        input_ids = torch.cat([input_ids[:, :1], corner_ids, input_ids[:, 1:]], dim=1)
        corner_mask = attention_mask.new_ones(num_texts, num_corners)
        attention_mask = torch.cat([corner_mask, attention_mask], dim=1)
        padding = (0, self.context_length - input_ids.shape[1])
        input_ids = nn.functional.pad(input_ids, padding)
        attention_mask = nn.functional.pad(attention_mask, padding)

        visible = attention_mask[:, None, :].bool().expand(-1, self.context_length, -1).clone()
        visible[:, :, 1 : num_corners + 1] = False
        visible[:, 1 : num_corners + 1, 0] = False
        corners = torch.arange(1, num_corners + 1)
        visible[:, corners, corners] = True
        dtype = self.projection.weight.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=input_ids.device)
        mask = mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]

        hidden_states = self.bert(input_ids, attention_mask=mask).last_hidden_state
        hidden_states = hidden_states[:, : num_corners + 1]
        pooled = self.bert.pooler.activation(self.bert.pooler.dense(hidden_states))
        return self.projection(pooled)


class OriginalImageTower(nn.Module):
    """A ViT with eager attention, read at its class token."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        config._attn_implementation = "eager"
        self.vit = ViTModel(config, add_pooling_layer=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns features of shape `(images, dim)` of images of shape `(images, 3, height, width)`."""
        return self.vit(pixel_values).last_hidden_state[:, 0]


def build_original(layers: int, device: str) -> tuple[OriginalTextTower, OriginalImageTower]:
    """Returns both towers at the size of the released ViT-B/16, with random weights and `layers` layers."""
    text_config = BertConfig(num_hidden_layers=layers)
    image_config = ViTConfig(num_hidden_layers=layers, layer_norm_eps=1e-6)
    text_tower = OriginalTextTower(text_config, num_corner_tokens=2, projection_dim=768)
    image_tower = OriginalImageTower(image_config)
    return text_tower.to(device).eval(), image_tower.to(device).eval()


def build_lotlip(layers: int, device: str, dtype: torch.dtype = torch.float32) -> LotlipModel:
    """Returns the same model as this package computes it."""
    fields = {"num_hidden_layers": layers}
    return LotlipModel(LotlipConfig(text_config=fields, vision_config=fields)).to(device, dtype).eval()


def build_processor(vocab_size: int) -> tuple[list[str], LotlipProcessor]:
    """Returns words that are one token each, and a processor whose vocabulary has them and the special tokens."""
    words = [f"word{index}" for index in range(vocab_size - len(SPECIAL_TOKENS))]
    vocab = {word: index for index, word in enumerate(SPECIAL_TOKENS + words)}
    tokenizer = LotlipTokenizer(vocab=vocab)
    return words, LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)

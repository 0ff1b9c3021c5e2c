# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
ONNX graphs of the towers, with random weights: their sizes, how far they are from the model, and their speed.

    python examples/benchmarks/onnx_graphs.py
"""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from scaffold.timing import BenchmarkArguments, measure, report, set_up, write_results

from modeling_lotlip import (
    LotlipTextConfig,
    LotlipTextModelWithProjection,
    LotlipVisionConfig,
    LotlipVisionModelWithProjection,
)
from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.embedding.onnx import SUFFIXES, export_towers, format_table, sample_images, sample_texts


@dataclass
class GraphArguments(BenchmarkArguments):
    """What is measured, on the CPU."""

    layers: int = argument(12, "Layers of both towers.", least=1)
    length: int = argument(126, "Tokens of a text.", least=2)

    def __post_init__(self):
        super().__post_init__()
        self.device = "cpu"


def open_graph(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    (args,) = parse((GraphArguments,), description=__doc__)
    set_up(args)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    fields = {"num_hidden_layers": args.layers}
    models = {
        "text_model": LotlipTextModelWithProjection(LotlipTextConfig(**fields)).eval(),
        "vision_model": LotlipVisionModelWithProjection(LotlipVisionConfig(**fields)).eval(),
    }
    inputs = {
        "text_model": sample_texts(models["text_model"], num_texts=8, length=args.length),
        "vision_model": sample_images(models["vision_model"], num_images=4),
    }
    inputs["text_model"]["attention_mask"].fill_(1)
    tables = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        print(format_table(export_towers(Path(folder), *models.values(), args.length, list(SUFFIXES))))
        for name, model in models.items():
            batch = inputs[name]
            arrays = {key: tensor.numpy() for key, tensor in batch.items()}
            variants = {"torch": lambda model=model, batch=batch: model(**batch)}
            for dtype, suffix in SUFFIXES.items():
                graph = open_graph(Path(folder) / f"{name}{suffix}.onnx", args.threads)
                variants[dtype] = lambda graph=graph, arrays=arrays: graph.run(None, arrays)
            title = f"{name}: {len(next(iter(batch.values())))} to features"
            tables.append(report(title, measure(variants, args.repeats, "cpu"), "torch", args))
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("onnx_graphs.py"):
        main()

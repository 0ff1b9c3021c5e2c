# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Exports both towers of a LoTLIP as ONNX graphs, for onnxruntime and transformers.js.

    lotlip export --model outputs/demo --output_dir outputs/onnx
    lotlip export --model outputs/demo --output_dir outputs/onnx --dtype float32 float16 q8

- onnx/text_model.onnx: input_ids and attention_mask to text_embeds (batch, dim) and last_hidden_state
- onnx/vision_model.onnx: pixel_values to image_embeds (batch, dim) and last_hidden_state

The embeddings are not normalized. Each graph is compared with the model; the table has the difference.
"""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from ..encoder.arguments import DEFAULT_MODEL
from ..utils.arguments import DTYPES, Arguments, argument


@dataclass
class ExportArguments(Arguments):
    """What is exported, and where to."""

    output_dir: Path = argument(help="The folder of the graphs.")
    model_name_or_path: str = argument(
        DEFAULT_MODEL,
        "A LoTLIP, a Hub id or a folder.",
        aliases=("--model",),
        metavar="MODEL",
    )
    dtype: list[str] = argument(
        ["float32"],
        "float32, float16, and q8: 8 bits for the weights. Each is written to separate files.",
        choices=("float32", "float16", "q8", "fp32", "fp16"),
    )

    def __post_init__(self):
        super().__post_init__()
        self.dtype = list(dict.fromkeys(DTYPES.get(dtype, dtype) for dtype in self.dtype))


ARGUMENTS = (ExportArguments,)


def run(export: ExportArguments) -> None:
    """Exports a model to ONNX, and prints how near its embeddings are."""
    import logging
    import warnings

    from ..encoder.onnx import export_model
    from ..utils.terminal import print_tables

    # the exporters report on operations that these graphs do not have, and on versions: each graph is compared
    for name in ("torch.onnx", "transformers.exporters"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # where progress is printed
        warnings.simplefilter("ignore", FutureWarning)
        table = export_model(export.model_name_or_path, export.output_dir, export.dtype)
    print_tables(table)

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
Export to ONNX: the text tower and the image tower as two graphs, for onnxruntime and for transformers.js.

    python examples/export_onnx.py --model_name_or_path outputs/demo --output_dir outputs/onnx
    python examples/export_onnx.py --model_name_or_path outputs/demo --output_dir outputs/onnx --dtype fp32 fp16 q8

transformers does the export, onnxruntime the conversion to other dtypes (`pip install onnx onnxruntime onnxscript`).
The files have the names, inputs and outputs of CLIP's, with any number of texts, of any length, and of images:

- `onnx/text_model.onnx`: `input_ids` and `attention_mask` to `text_embeds` (batch, dim) and `last_hidden_state`
- `onnx/vision_model.onnx`: `pixel_values` to `image_embeds` (batch, dim) and `last_hidden_state`

The embeddings are those of the model, not normalised. Each file is run on onnxruntime and compared with the model
before it has its name.
"""

import argparse
import json
import logging
import os
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch.export import Dim
from transformers import AutoConfig
from transformers.exporters import (
    ExportFormat,
    OnnxConfig,
    OnnxExporter,
    OnnxRuntimeDynamicConfig,
    OnnxRuntimeQuantizer,
)

from .. import (
    LotlipConfig,
    LotlipPreTrainedModel,
    LotlipProcessor,
    LotlipTextModelWithProjection,
    LotlipVisionModelWithProjection,
)
from ..data.arguments import HelpFormatter
from ..files import write_json
from .models import check_single_embeddings, hash_weights


# What transformers.js adds to the name of a graph of that dtype
SUFFIXES = {"fp32": "", "fp16": "_fp16", "q8": "_quantized"}
# The least cosine similarity of an embedding in float32 to the model's. The other dtypes are reported only.
MIN_COSINE = 1 - 1e-5


def sample_texts(model: LotlipTextModelWithProjection, num_texts: int, length: int) -> dict[str, torch.Tensor]:
    """Random texts of 2 tokens (the first one) up to `length`, padded."""
    input_ids = torch.randint(model.config.vocab_size, (num_texts, length))
    lengths = torch.linspace(2, length, num_texts).long()
    attention_mask = (torch.arange(length) < lengths[:, None]).long()
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def sample_images(model: LotlipVisionModelWithProjection, num_images: int) -> dict[str, torch.Tensor]:
    """Random images."""
    size = model.vision_model.embeddings.image_size
    return {"pixel_values": torch.randn(num_images, model.config.num_channels, *size)}


def export_tower(
    model: LotlipPreTrainedModel,
    inputs: dict[str, torch.Tensor],
    dynamic_shapes: dict[str, dict[int, Dim]],
    output_corner_tokens: bool = False,
) -> onnx_ir.Model:
    """
    Exports a tower in float32.

    Args:
        model (`LotlipPreTrainedModel`):
            A tower with projection.
        inputs (`dict[str, torch.Tensor]`):
            Inputs to trace it with.
        dynamic_shapes (`dict[str, dict[int, Dim]]`):
            The dimensions of the inputs that may be of other sizes.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether the text tower also computes the `corner_embeds`.

    Returns:
        `onnx_ir.Model`: the graph. Its inputs and outputs are named as the model's.
    """
    flags = {"output_corner_tokens": True} if output_corner_tokens else {}
    shapes = dynamic_shapes | dict.fromkeys(flags)
    return OnnxExporter().export(model, inputs | flags, OnnxConfig(dynamic=True, dynamic_shapes=shapes)).program


def convert_dtype(program: onnx_ir.Model, dtype: str) -> onnx.ModelProto:
    """
    A graph in another dtype, with inputs and outputs in float32 as before.

    Args:
        program (`onnx_ir.Model`):
            A graph in float32; it is left as it is.
        dtype (`str`):
            `"fp32"`, `"fp16"` (weights and computation), or `"q8"`: weights of matrix products and embeddings in 8
            bits, activations quantised while it runs.
    """
    if dtype == "q8":
        # convolutions have no kernel in 8 bits on CPUs; 7 of the bits, as older processors overflow with all
        config = OnnxRuntimeDynamicConfig(["MatMul", "Gemm", "Gather"], per_channel=True, reduce_range=True)
        program = OnnxRuntimeQuantizer(config).quantize(program, {}, ExportFormat.ONNX)
    proto = onnx_ir.to_proto(program)
    return convert_float_to_float16(proto, keep_io_types=True) if dtype == "fp16" else proto


@torch.no_grad()
def compare(model: LotlipPreTrainedModel, path: Path, samples: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """
    Runs a graph on onnxruntime, on the CPU, beside the model.

    Returns:
        `dict`: the `difference`, the largest one of an entry of the embeddings, and the least `cosine` similarity of
        an embedding to that of the model.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, cosines = [], []
    for inputs in samples:
        expected = model(**inputs)
        name = "text_embeds" if "text_embeds" in expected else "image_embeds"
        (embeds,) = session.run([name], {key: tensor.numpy() for key, tensor in inputs.items()})
        embeds, expected = torch.from_numpy(embeds), expected[name]
        differences.append((embeds - expected).abs().max())
        cosines.append(torch.nn.functional.cosine_similarity(embeds, expected).min())
    return {"difference": torch.stack(differences).max().item(), "cosine": torch.stack(cosines).min().item()}


def save_graphs(
    folder: Path,
    name: str,
    model: LotlipPreTrainedModel,
    program: onnx_ir.Model,
    samples: list[dict[str, torch.Tensor]],
    dtypes: list[str],
) -> None:
    """
    Writes a graph in several dtypes, each compared with the model first, and prints a row of a table for each.

    Raises:
        `RuntimeError`: if the graph in float32 gives other embeddings than the model.
    """
    for dtype in dtypes:
        path = folder / f"{name}{SUFFIXES[dtype]}.onnx"
        partial = path.with_name(path.name + ".partial")
        onnx.save(convert_dtype(program, dtype), partial)
        parity = compare(model, partial, samples)
        if dtype == "fp32" and not parity["cosine"] >= MIN_COSINE:
            raise RuntimeError(
                f"`{name}` on onnxruntime is not the model: an embedding has a cosine similarity of "
                f"{parity['cosine']:.6f} to the model's. Try other versions of torch, onnx and onnxscript. The graph "
                f"is left in `{partial}`."
            )
        os.replace(partial, path)
        size = path.stat().st_size / 1e6
        print(f"| {path.name} | {size:.1f} | {parity['difference']:.1e} | {parity['cosine']:.6f} |")


def export_towers(
    folder: Path,
    text_model: LotlipTextModelWithProjection,
    vision_model: LotlipVisionModelWithProjection,
    limit: int,
    dtypes: list[str],
    output_corner_tokens: bool = False,
) -> None:
    """
    Writes both towers as graphs in several dtypes, and prints a table of how they compare with the models.

    Args:
        folder (`Path`):
            Where the graphs go.
        text_model (`LotlipTextModelWithProjection`), vision_model (`LotlipVisionModelWithProjection`):
            The towers, in float32, in evaluation.
        limit (`int`):
            The length of the longest text they are compared on.
        dtypes (`list[str]`):
            Keys of `SUFFIXES`.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether the text graph also computes the `corner_embeds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = export_tower(
        text_model,
        sample_texts(text_model, num_texts=2, length=8),
        {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in ("input_ids", "attention_mask")},
        output_corner_tokens,
    )
    vision = export_tower(vision_model, sample_images(vision_model, num_images=2), {"pixel_values": {0: Dim.AUTO}})

    # of other sizes than those that the graphs were traced with
    texts = [sample_texts(text_model, num_texts, length) for num_texts, length in ((1, 2), (3, limit))]
    images = [sample_images(vision_model, num_images) for num_images in (1, 3)]
    print("| graph | MB | largest difference | least cosine similarity |\n| --- | ---: | ---: | ---: |")
    save_graphs(folder, "text_model", text_model, text, texts, dtypes)
    save_graphs(folder, "vision_model", vision_model, vision, images, dtypes)


def remove_graphs_of_another_model(folder: Path, weights: str, dtypes: list[str]) -> None:
    """Removes what an earlier export left of other weights and in other dtypes than those just written."""
    record = folder / "weights.json"
    if not record.exists() or json.loads(record.read_text(encoding="utf-8")) != {"weights": weights}:
        for suffix in (suffix for dtype, suffix in SUFFIXES.items() if dtype not in dtypes):
            for path in (folder / f"{name}{suffix}.onnx" for name in ("text_model", "vision_model")):
                if path.exists():
                    path.unlink()
                    print(f"Removed {path}, which is of another model.")
    write_json(record, {"weights": weights})


def save_preprocessing(folder: Path, processor: LotlipProcessor) -> None:
    """Saves the tokenizer, and the image processor by the name of CLIP's, which transformers.js knows: same steps."""
    processor.tokenizer.save_pretrained(folder)
    content = json.loads(processor.image_processor.to_json_string())
    content.pop("auto_map", None)
    write_json(folder / "preprocessor_config.json", content | {"image_processor_type": "CLIPImageProcessor"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="A LoTLIP model, a Hub id or a folder.")
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the graphs.")
    parser.add_argument(
        "--dtype",
        nargs="+",
        default=["fp32"],
        choices=list(SUFFIXES),
        help="float32, float16, and 8 bits for the weights, each in files of its own.",
    )
    parser.add_argument(
        "--output_corner_tokens",
        action="store_true",
        help="The text graph also gives `corner_embeds` (batch, corners, dim). Embedding does not need them.",
    )
    args = parser.parse_args()
    # the exporter reports on operations that these graphs do not have
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    config = AutoConfig.from_pretrained(args.model_name_or_path)
    if not isinstance(config, LotlipConfig):
        parser.error(f"--model_name_or_path {args.model_name_or_path} is a `{config.model_type}`, no LoTLIP.")
    try:
        check_single_embeddings(config)
    except ValueError as error:
        parser.error(f"--model_name_or_path {args.model_name_or_path}: {error}")
    if args.output_corner_tokens and config.text_config.num_corner_tokens == 0:
        parser.error(f"--output_corner_tokens: the model {args.model_name_or_path} has no corner tokens.")
    text_model = LotlipTextModelWithProjection.from_pretrained(args.model_name_or_path, dtype="float32").eval()
    vision_model = LotlipVisionModelWithProjection.from_pretrained(args.model_name_or_path, dtype="float32").eval()
    processor = LotlipProcessor.from_pretrained(args.model_name_or_path)
    export_towers(
        args.output_dir / "onnx",
        text_model,
        vision_model,
        processor.tokenizer.model_max_length,
        args.dtype,
        args.output_corner_tokens,
    )
    weights = f"{hash_weights(text_model)} {hash_weights(vision_model)}"
    remove_graphs_of_another_model(args.output_dir / "onnx", weights, args.dtype)
    config.save_pretrained(args.output_dir)
    save_preprocessing(args.output_dir, processor)


if __name__ == "__main__":
    main()

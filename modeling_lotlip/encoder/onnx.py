# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Both towers of a LoTLIP as graphs of ONNX with CLIP's names, for onnxruntime and for transformers.js."""

import json
from pathlib import Path

import torch
from torch.export import Dim
from transformers import AutoConfig

from .. import (
    LotlipConfig,
    LotlipPreTrainedModel,
    LotlipProcessor,
    LotlipTextModelWithProjection,
    LotlipVisionModelWithProjection,
)
from ..hub_lotlip import find_pretrained
from ..utils.files import format_markdown, write_json
from ..utils.output_folder import OutputFolder, atomic_write
from .dual_encoder import check_single_embeddings


try:
    import onnx
    import onnx_ir
    import onnxruntime
    import onnxscript  # noqa: F401, the exporter of torch needs it
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from transformers.exporters import (
        ExportFormat,
        OnnxConfig,
        OnnxExporter,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
    )
except ImportError as error:
    raise ImportError(f'The export lacks {error.name}: `pip install "lotlip[onnx]"` brings it.') from error


# What transformers.js adds to the name of a graph of that dtype
SUFFIXES = {"float32": "", "float16": "_fp16", "q8": "_quantized"}
# The least cosine similarity of an embedding in float32 to the model's; the other dtypes are reported only
MIN_COSINE = 1 - 1e-5


def sample_inputs(model: LotlipPreTrainedModel, num_rows: int, length: int) -> dict[str, torch.Tensor]:
    """Random texts of 2 tokens (the first one) up to `length`, padded, or random images, for a tower."""
    if isinstance(model, LotlipVisionModelWithProjection):
        size = model.vision_model.embeddings.image_size
        return {"pixel_values": torch.randn(num_rows, model.config.num_channels, *size)}
    input_ids = torch.randint(model.config.vocab_size, (num_rows, length))
    lengths = torch.linspace(2, length, num_rows).long()
    return {"input_ids": input_ids, "attention_mask": (torch.arange(length) < lengths[:, None]).long()}


def export_tower(model: LotlipPreTrainedModel) -> onnx_ir.Model:
    """A tower with projection as a graph in float32, for any number of images, or of texts of any length."""
    inputs = sample_inputs(model, num_rows=2, length=8)
    shapes = {name: {0: Dim.AUTO} | ({1: Dim.AUTO} if tensor.dim() == 2 else {}) for name, tensor in inputs.items()}
    return OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True, dynamic_shapes=shapes)).program


def convert_dtype(program: onnx_ir.Model, dtype: str) -> onnx.ModelProto:
    """
    A graph in another dtype, with inputs and outputs in float32 as before: `"float16"` (weights and computation), or
    `"q8"`: weights of matrix products and embeddings in 8 bits, activations quantised while it runs.
    """
    if dtype == "q8":
        # convolutions have no kernel in 8 bits on CPUs; 7 of the bits, as older processors overflow with all
        config = OnnxRuntimeDynamicConfig(["MatMul", "Gemm", "Gather"], per_channel=True, reduce_range=True)
        program = OnnxRuntimeQuantizer(config).quantize(program, {}, ExportFormat.ONNX)
    proto = onnx_ir.to_proto(program)
    return convert_float_to_float16(proto, keep_io_types=True) if dtype == "float16" else proto


@torch.no_grad()
def compare(model: LotlipPreTrainedModel, path: Path, length: int) -> tuple[float, float]:
    """
    The largest difference of an entry of the embeddings of a graph on the CPU, for other sizes than those it was
    traced with, and the least cosine similarity of an embedding to that of the model.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, cosines = [], []
    for inputs in (sample_inputs(model, 1, 2), sample_inputs(model, 3, length)):
        outputs = model(**inputs)
        name = "text_embeds" if "text_embeds" in outputs else "image_embeds"
        (embeds,) = session.run([name], {key: tensor.numpy() for key, tensor in inputs.items()})
        embeds, expected = torch.from_numpy(embeds), outputs[name]
        differences.append((embeds - expected).abs().max().item())
        cosines.append(torch.nn.functional.cosine_similarity(embeds, expected).min().item())
    return max(differences), min(cosines)


def save_graph(path: Path, model: LotlipPreTrainedModel, program: onnx_ir.Model, dtype: str, length: int) -> list[str]:
    """Writes a graph in one dtype and compares it with the model: its row of the table of [`export_model`]."""
    onnx.save(convert_dtype(program, dtype), path)
    difference, cosine = compare(model, path, length)
    if dtype == "float32" and not cosine >= MIN_COSINE:
        raise RuntimeError(
            f"`{path.stem}` on onnxruntime is not the model: an embedding has a cosine similarity of {cosine:.6f} to "
            "the model's. Try other versions of torch, onnx and onnxscript."
        )
    return [path.name, f"{path.stat().st_size / 1e6:.1f}", f"{difference:.1e}", f"{cosine:.6f}"]


def export_model(model_name_or_path: str, folder: Path, dtypes: list[str]) -> str:
    """
    Writes `onnx/text_model.onnx` (`input_ids` and `attention_mask` to `text_embeds` and `last_hidden_state`) and
    `onnx/vision_model.onnx` (`pixel_values` to `image_embeds` and `last_hidden_state`) in each of the dtypes, keys of
    `SUFFIXES`, not normalised, and what transformers.js needs. Returns how each compares with the model, in Markdown.
    Raises a `ValueError` for no LoTLIP and for other graphs there, a `RuntimeError` if a graph is not the model.
    """
    try:
        path = find_pretrained(model_name_or_path)
        config = AutoConfig.from_pretrained(path)
        if not isinstance(config, LotlipConfig):
            raise ValueError(f"it is a `{config.model_type}`, no LoTLIP.")
        check_single_embeddings(config)
    except (OSError, ValueError) as error:
        raise ValueError(f"`--model_name_or_path {model_name_or_path}` cannot be used: {error}") from error
    if any(folder.glob("*.safetensors")) and folder.resolve() != Path(path).resolve():
        raise ValueError(f"`--output_dir {folder}` holds another model: name another folder.")
    towers = {"text_model": LotlipTextModelWithProjection, "vision_model": LotlipVisionModelWithProjection}
    processor = LotlipProcessor.from_pretrained(path)
    rows, length = [], processor.tokenizer.model_max_length
    names = {f"{name}{SUFFIXES[dtype]}.onnx" for name in towers for dtype in dtypes}
    with OutputFolder(folder, content="ONNX graphs"), atomic_write(folder / "onnx") as graphs:
        if others := sorted({path.name for path in folder.glob("onnx/*")} - names):
            others = f"`--output_dir {folder}` has other files in `onnx`, {', '.join(others)}"
            raise ValueError(f"{others}, which would go: name another folder, or all `--dtype` at once.")
        graphs.mkdir()
        for name, tower in towers.items():
            model = tower.from_pretrained(path, dtype="float32").eval()
            program = export_tower(model)
            for dtype in dtypes:
                rows.append(save_graph(graphs / f"{name}{SUFFIXES[dtype]}.onnx", model, program, dtype, length))
        config.save_pretrained(folder)
        processor.tokenizer.save_pretrained(folder)
        # by the name of CLIP's, which transformers.js knows: same steps
        preprocessing = json.loads(processor.image_processor.to_json_string())
        preprocessing["image_processor_type"] = "CLIPImageProcessor"
        preprocessing.pop("auto_map", None)
        write_json(folder / "preprocessor_config.json", preprocessing)
    return format_markdown(["graph", "MB", "largest difference", "least cosine similarity"], rows)

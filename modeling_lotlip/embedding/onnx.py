# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Export to ONNX: the text tower and the image tower of a LoTLIP as two graphs, for onnxruntime and for transformers.js.

transformers does the export, onnxruntime the conversion to other dtypes. The files have the names, inputs and outputs
of CLIP's. Each graph is run on onnxruntime and compared with the model before its file has its name.
"""

import json
import logging
from pathlib import Path
from typing import NamedTuple

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
from ..files import write_json
from ..loading_lotlip import find_pretrained
from ..output_folder import atomic_write
from .models import check_single_embeddings, hash_weights


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


logger = logging.getLogger(__name__)

# What transformers.js adds to the name of a graph of that dtype
SUFFIXES = {"float32": "", "float16": "_fp16", "q8": "_quantized"}
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
            `"float32"`, `"float16"` (weights and computation), or `"q8"`: weights of matrix products and embeddings in
            8 bits, activations quantised while it runs.
    """
    if dtype == "q8":
        # convolutions have no kernel in 8 bits on CPUs; 7 of the bits, as older processors overflow with all
        config = OnnxRuntimeDynamicConfig(["MatMul", "Gemm", "Gather"], per_channel=True, reduce_range=True)
        program = OnnxRuntimeQuantizer(config).quantize(program, {}, ExportFormat.ONNX)
    proto = onnx_ir.to_proto(program)
    return convert_float_to_float16(proto, keep_io_types=True) if dtype == "float16" else proto


class Graph(NamedTuple):
    """
    A graph that was written.

    Args:
        name (`str`):
            The name of its file.
        megabytes (`float`):
            Its size.
        difference (`float`):
            The largest difference of an entry of an embedding from that of the model.
        cosine (`float`):
            The least cosine similarity of an embedding to that of the model.
    """

    name: str
    megabytes: float
    difference: float
    cosine: float


@torch.no_grad()
def compare(model: LotlipPreTrainedModel, path: Path, samples: list[dict[str, torch.Tensor]]) -> tuple[float, float]:
    """
    Runs a graph on onnxruntime, on the CPU, beside the model.

    Returns:
        `tuple[float, float]`: the largest difference of an entry of the embeddings, and the least cosine similarity of
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
    return torch.stack(differences).max().item(), torch.stack(cosines).min().item()


def save_graphs(
    folder: Path,
    name: str,
    model: LotlipPreTrainedModel,
    program: onnx_ir.Model,
    samples: list[dict[str, torch.Tensor]],
    dtypes: list[str],
) -> list[Graph]:
    """
    Writes a graph in several dtypes, each compared with the model first.

    Raises:
        `RuntimeError`: if the graph in float32 gives other embeddings than the model.
    """
    graphs = []
    for dtype in dtypes:
        path = folder / f"{name}{SUFFIXES[dtype]}.onnx"
        with atomic_write(path) as partial:
            onnx.save(convert_dtype(program, dtype), partial)
            difference, cosine = compare(model, partial, samples)
            if dtype == "float32" and not cosine >= MIN_COSINE:
                raise RuntimeError(
                    f"`{name}` on onnxruntime is not the model: an embedding has a cosine similarity of {cosine:.6f} "
                    "to the model's. Try other versions of torch, onnx and onnxscript."
                )
        graphs.append(Graph(path.name, path.stat().st_size / 1e6, difference, cosine))
    return graphs


def export_towers(
    folder: Path,
    text_model: LotlipTextModelWithProjection,
    vision_model: LotlipVisionModelWithProjection,
    limit: int,
    dtypes: list[str],
    output_corner_tokens: bool = False,
) -> list[Graph]:
    """
    Writes both towers as graphs in several dtypes.

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
    return [
        *save_graphs(folder, "text_model", text_model, text, texts, dtypes),
        *save_graphs(folder, "vision_model", vision_model, vision, images, dtypes),
    ]


def remove_graphs_of_another_model(folder: Path, weights: str, dtypes: list[str]) -> None:
    """Removes what an earlier export left of other weights and in other dtypes than those just written."""
    record = folder / "weights.json"
    if not record.exists() or json.loads(record.read_text(encoding="utf-8")) != {"weights": weights}:
        for suffix in (suffix for dtype, suffix in SUFFIXES.items() if dtype not in dtypes):
            for path in (folder / f"{name}{suffix}.onnx" for name in ("text_model", "vision_model")):
                if path.exists():
                    path.unlink()
                    logger.warning(f"Removed {path}, which is of another model.")
    write_json(record, {"weights": weights})


def save_preprocessing(folder: Path, processor: LotlipProcessor) -> None:
    """Saves the tokenizer, and the image processor by the name of CLIP's, which transformers.js knows: same steps."""
    processor.tokenizer.save_pretrained(folder)
    content = json.loads(processor.image_processor.to_json_string())
    content.pop("auto_map", None)
    write_json(folder / "preprocessor_config.json", content | {"image_processor_type": "CLIPImageProcessor"})


def export_model(
    model_name_or_path: str, folder: Path, dtypes: list[str], output_corner_tokens: bool = False
) -> list[Graph]:
    """
    Writes both towers of a model as graphs, with what transformers.js needs beside them.

    Args:
        model_name_or_path (`str`):
            A LoTLIP model, a Hub id or a folder.
        folder (`Path`):
            Gets `onnx/text_model.onnx` (`input_ids` and `attention_mask` to `text_embeds` and `last_hidden_state`),
            `onnx/vision_model.onnx` (`pixel_values` to `image_embeds` and `last_hidden_state`), both for any number
            of texts, of any length, and of images, and the files of the tokenizer and the image processor. The
            embeddings are not normalised.
        dtypes (`list[str]`):
            Keys of `SUFFIXES`, each for files of its own.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether the text graph also computes the `corner_embeds`.

    Returns:
        `list[Graph]`: how each graph compares with the model.

    Raises:
        `ValueError`: if the model is no LoTLIP, compares tokens, or lacks the corner tokens that are asked for.
        `RuntimeError`: if a graph is not the model.
    """
    named = f"`--model_name_or_path {model_name_or_path}`"
    try:
        path = find_pretrained(model_name_or_path)
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{named} cannot be used: {error}") from error
    if not isinstance(config, LotlipConfig):
        raise ValueError(f"{named} is a `{config.model_type}`, no LoTLIP.")
    try:
        check_single_embeddings(config)
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from error
    if output_corner_tokens and config.text_config.num_corner_tokens == 0:
        raise ValueError(f"`--output_corner_tokens`: {named} has no corner tokens.")
    text_model = LotlipTextModelWithProjection.from_pretrained(path, dtype="float32").eval()
    vision_model = LotlipVisionModelWithProjection.from_pretrained(path, dtype="float32").eval()
    processor = LotlipProcessor.from_pretrained(path)

    limit = processor.tokenizer.model_max_length
    graphs = export_towers(folder / "onnx", text_model, vision_model, limit, dtypes, output_corner_tokens)
    weights = f"{hash_weights(text_model)} {hash_weights(vision_model)}"
    remove_graphs_of_another_model(folder / "onnx", weights, dtypes)
    config.save_pretrained(folder)
    save_preprocessing(folder, processor)
    return graphs


def format_table(graphs: list[Graph]) -> str:
    """How graphs compare with the model, as Markdown."""
    lines = ["| graph | MB | largest difference | least cosine similarity |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {name} | {size:.1f} | {difference:.1e} | {cosine:.6f} |" for name, size, difference, cosine in graphs
    ]
    return "\n".join(lines)

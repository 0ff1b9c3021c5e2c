# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Both towers of a LoTLIP as graphs of ONNX with CLIP's names, for onnxruntime and for transformers.js.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import Dim
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from .. import (
    LotlipConfig,
    LotlipProcessor,
    LotlipTextModelWithProjection,
    LotlipVisionModelWithProjection,
)
from ..hub_lotlip import find_pretrained
from ..utils.files import write_json
from ..utils.markdown import format_markdown
from ..utils.output_folder import OutputFolder, atomic_write
from .contract import has_own_method
from .dual_encoder import check_single_embeddings
from .loading import check_is_read_alike, check_no_adapters, find_saved_truncate_dim


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
# The min cosine similarity of an embedding in float32 to the model's; the other dtypes are reported only
MIN_COSINE = 1 - 1e-5
# The max number of tokens of the texts that a graph is compared by: those of 8,192 take gigabytes
MAX_COMPARED_LENGTH = 512
TOWER_NAMES = ("text_model", "vision_model")


@dataclass
class ExportedTower:
    """
    A tower with projection or head, which becomes a graph.

    Args:
        name (`str`): The name of the graph: `"text_model"` or `"vision_model"`.
        model (`PreTrainedModel`): The tower, in float32, whose output has `text_embeds` or `image_embeds`.
        image_shape (`tuple[int, ...]`, *optional*): Channels, height and width of what it reads, if it reads images.
    """

    name: str
    model: PreTrainedModel
    image_shape: tuple[int, ...] | None = None

    @property
    def output_name(self) -> str:
        """The name of its embeddings."""
        return "text_embeds" if self.image_shape is None else "image_embeds"

    def make_inputs(self, num_rows: int, length: int) -> dict[str, torch.Tensor]:
        """
        Makes random inputs: `pixel_values` of shape `(num_rows, channels, height, width)`, or `input_ids` and
        `attention_mask` of shape `(num_rows, length)`, of texts from 2 tokens (the first one) to `length`, padded.
        """
        if self.image_shape is not None:
            return {"pixel_values": torch.randn(num_rows, *self.image_shape)}
        input_ids = torch.randint(self.model.config.get_text_config().vocab_size, (num_rows, length))
        lengths = torch.linspace(2, length, num_rows).long()
        attention_mask = (torch.arange(length) < lengths[:, None]).long()
        return {"input_ids": input_ids, "attention_mask": attention_mask}


def list_towers(path: str | Path) -> Iterator[ExportedTower]:
    """Yields both towers of the LoTLIP in a folder, one after the other."""
    yield ExportedTower("text_model", LotlipTextModelWithProjection.from_pretrained(path, dtype="float32").eval())
    model = LotlipVisionModelWithProjection.from_pretrained(path, dtype="float32").eval()
    image_size = model.vision_model.embeddings.image_size
    yield ExportedTower("vision_model", model, (model.config.num_channels, *image_size))


def export_tower(tower: ExportedTower) -> onnx_ir.Model:
    """Exports a tower as a graph in float32, for any number of images, or of texts of any length."""
    inputs = tower.make_inputs(num_rows=2, length=8)
    dynamic_shapes = {}
    for name, tensor in inputs.items():
        dynamic_shapes[name] = {0: Dim.AUTO}
        if tensor.dim() == 2:  # of texts, the length too
            dynamic_shapes[name][1] = Dim.AUTO
    config = OnnxConfig(dynamic=True, dynamic_shapes=dynamic_shapes)
    return OnnxExporter().export(tower.model, inputs, config).program


def convert_dtype(program: onnx_ir.Model, dtype: str) -> onnx.ModelProto:
    """
    Converts a graph to another dtype, with inputs and outputs in float32 as before: `"float16"` (weights and
    computation), or `"q8"`: weights of matrix products and embeddings in 8 bits, activations quantized while it runs.
    """
    if dtype == "q8":
        # convolutions are left out: they have no kernel in 8 bits on CPUs. `reduce_range` uses 7 of the bits, since
        # sums of all 8 overflow on older processors
        config = OnnxRuntimeDynamicConfig(["MatMul", "Gemm", "Gather"], per_channel=True, reduce_range=True)
        program = OnnxRuntimeQuantizer(config).quantize(program, {}, ExportFormat.ONNX)
    proto = onnx_ir.to_proto(program)
    if dtype == "float16":
        return convert_float_to_float16(proto, keep_io_types=True)
    return proto


@torch.no_grad()
def compare_with_model(tower: ExportedTower, path: Path, length: int) -> tuple[float, float]:
    """
    Compares a graph on the CPU with the model, for other sizes than those it was traced with.

    Args:
        tower ([`ExportedTower`]): The tower, in float32.
        path (`Path`): The graph.
        length (`int`): The number of tokens of the longest text.

    Returns:
        `tuple[float, float]`: the max difference of an entry of the embeddings, and the min cosine similarity of an
        embedding to that of the model.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    cosines = []
    for inputs in (tower.make_inputs(1, 2), tower.make_inputs(3, length)):
        expected = tower.model(**inputs)[tower.output_name]
        (array,) = session.run([tower.output_name], {key: tensor.numpy() for key, tensor in inputs.items()})
        embeds = torch.from_numpy(array)
        differences.append((embeds - expected).abs().max().item())
        cosines.append(torch.nn.functional.cosine_similarity(embeds, expected).min().item())
    return max(differences), min(cosines)


def save_graph(path: Path, tower: ExportedTower, program: onnx_ir.Model, dtype: str, length: int) -> list[str]:
    """
    Writes a graph in one dtype and compares it with the model.

    Args:
        path (`Path`): Where the graph goes.
        tower ([`ExportedTower`]): The tower, in float32.
        program (`onnx_ir.Model`): The tower as a graph: see [`export_tower`].
        dtype (`str`): A key of `SUFFIXES`.
        length (`int`): The number of tokens of the longest text that it is compared by.

    Returns:
        `list[str]`: its row of the table of [`export_model`].

    Raises:
        `RuntimeError`: if a graph in float32 is not the model.
    """
    onnx.save(convert_dtype(program, dtype), path)
    difference, cosine = compare_with_model(tower, path, length)
    if dtype == "float32" and not cosine >= MIN_COSINE:
        raise RuntimeError(
            f"`{path.stem}` on onnxruntime is not the model: an embedding has a cosine similarity of {cosine:.6f} to "
            "the model's. Try other versions of torch, onnx and onnxscript."
        )
    return [path.name, f"{path.stat().st_size / 1e6:.1f}", f"{difference:.1e}", f"{cosine:.6f}"]


def export_model(model_name_or_path: str, folder: Path, dtypes: list[str]) -> str:
    """
    Writes `onnx/text_model.onnx` (`input_ids` and `attention_mask` to `text_embeds` and `last_hidden_state`) and
    `onnx/vision_model.onnx` (`pixel_values` to `image_embeds` and `last_hidden_state`), not normalized, and what
    transformers.js needs.

    Args:
        model_name_or_path (`str`):
            A Hub id or a folder of a LoTLIP.
        folder (`Path`):
            Where they go. It may be the folder of the model, unless `lotlip train` or `interpolate` wrote it.
        dtypes (`list[str]`):
            The dtypes that each graph is written in, keys of `SUFFIXES`.

    Returns:
        `str`: how each graph compares with the model, in Markdown.

    Raises:
        `ValueError`: if the model is no such model, or the folder holds another model, other graphs or a training.
        `RuntimeError`: if a graph is not the model.
    """
    path, config = find_exportable(model_name_or_path)
    if any(folder.glob("*.safetensors")) and folder.resolve() != path.resolve():
        raise ValueError(f"`--output_dir {folder}` holds another model: name another folder.")
    processor = LotlipProcessor.from_pretrained(path)
    length = min(processor.tokenizer.model_max_length, MAX_COMPARED_LENGTH)
    with OutputFolder(folder, content="ONNX graphs"), atomic_write(folder / "onnx") as graphs:
        check_other_graphs(folder, dtypes)
        graphs.mkdir()
        rows = []
        for tower in list_towers(path):
            program = export_tower(tower)
            for dtype in dtypes:
                rows.append(save_graph(graphs / name_graph(tower.name, dtype), tower, program, dtype, length))
        config.save_pretrained(folder)
        processor.tokenizer.save_pretrained(folder)
        write_image_processor(processor, folder)
    return format_markdown(["graph", "MB", "max difference", "min cosine similarity"], rows)


def find_exportable(model_name_or_path: str) -> tuple[Path, PreTrainedConfig]:
    """
    Finds the folder and the configuration of a model that can be exported. Raises a `ValueError` if it is none.
    """
    try:
        check_no_adapters(model_name_or_path)
        path = find_pretrained(model_name_or_path)
        # before its configuration is made, for which one's own model would have to run its code
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
        config = None
        if model_type in CONFIG_MAPPING:
            config = AutoConfig.from_pretrained(path)
        if not isinstance(config, LotlipConfig):
            raise ValueError(f"it is a `{model_type}`, no LoTLIP.")
        check_single_embeddings(config)
        if type(config) in MODEL_MAPPING:
            check_embeds_as_lotlip(MODEL_MAPPING[type(config)])
        check_is_read_alike(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"`--model_name_or_path {model_name_or_path}` cannot be used: {error}") from error
    num_dims = find_saved_truncate_dim(path)
    if num_dims is not None:
        logger.warning(f"The graphs give all dimensions, not the first {num_dims} that were saved with the model.")
    return Path(path), config


def check_embeds_as_lotlip(model_class: type) -> None:
    """Raises a `ValueError` if a class of models embeds otherwise than the towers with projection of LoTLIP."""
    for method in ("embed_captions", "embed_images", "get_text_features", "get_image_features"):
        if has_own_method(model_class, method):
            raise ValueError(f"{model_class.__name__} has an `{method}` of its own, which graphs do not compute.")


def name_graph(tower: str, dtype: str) -> str:
    """Returns the name of the file of a tower's graph, as transformers.js has it."""
    return f"{tower}{SUFFIXES[dtype]}.onnx"


def check_other_graphs(folder: Path, dtypes: list[str]) -> None:
    """Raises a `ValueError` if there are files in `onnx` that would not be written again, and so be lost."""
    written = set()
    for tower in TOWER_NAMES:
        written.update(name_graph(tower, dtype) for dtype in dtypes)
    others = {path.name for path in folder.glob("onnx/*")} - written
    if others:
        raise ValueError(
            f"`--output_dir {folder}` has other files in `onnx`, {', '.join(sorted(others))}, which would go: name "
            "another folder, or all `--dtype` at once."
        )


def write_image_processor(processor: ProcessorMixin, folder: Path) -> None:
    """
    Writes the image processor of a LoTLIP by the name of CLIP's, which takes the same steps and which transformers.js
    knows.
    """
    settings = json.loads(processor.image_processor.to_json_string())
    settings["image_processor_type"] = "CLIPImageProcessor"
    settings.pop("auto_map", None)
    write_json(folder / "preprocessor_config.json", settings)

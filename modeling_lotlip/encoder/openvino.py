# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embedding on a CPU by OpenVINO: both towers, each converted once, and compared with PyTorch whenever it is loaded.
"""

import copy
import logging
import os
import random
import sys
import warnings
from contextlib import redirect_stdout
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from threading import Lock
from unittest.mock import patch

import numpy as np
import torch
import transformers
from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE
from huggingface_hub.utils import WeakFileLock
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from .. import __version__
from ..utils.output_folder import atomic_write
from .batches import tokenize
from .features import find_family, is_token_wise, tower_features
from .models import hash_processor, hash_weights


logger = logging.getLogger(__name__)

# The least cosine to PyTorch of a tower that is right, by the precision
LEAST_COSINES = {"float32": 1 - 1e-6, "bfloat16": 0.99, "int8": 0.9}


# It reports its import to Intel, by a fork of this process, but for a CI job
with patch.dict(os.environ, CI="true"):
    import openvino
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder


@cache
def get_core() -> openvino.Core:
    """
    OpenVINO's runtime, the same until the process ends. The first one gives signal handlers a stack, and takes it away
    when it goes: the next signal, such as that of a child process that has ended, would end this process.
    """
    return openvino.Core()


def quantize(tower: openvino.Model, processor: ProcessorMixin) -> openvino.Model:
    """
    A text tower in int8 by NNCF, calibrated on texts that are always the same, so that an embedding depends on no
    other text: sixty of one to six sentences, and as many of words of the vocabulary, for other languages.
    """
    with patch.dict(os.environ, CI="true"):
        import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # `nncf.set_log_level` sets the handlers of others, too
    file = resources.files("modeling_lotlip.table").joinpath("background_texts.txt")
    sentences = file.read_text(encoding="utf-8").splitlines()
    texts = [" ".join(sentences[place : place + 1 + place % 6]) for place in range(len(sentences))]
    words = {token.strip("\u2581\u0120").removesuffix("</w>") for token in processor.tokenizer.get_vocab()}
    words, generator = sorted(filter(str.isalpha, words)), random.Random(0)
    texts += [" ".join(generator.choices(words, k=1 + place)) for place in range(len(sentences))]
    samples = [[tensor.numpy() for tensor in in_order(dict(tokenize(processor, [text])))] for text in texts]
    with redirect_stdout(sys.stderr):
        return nncf.quantize(tower, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)


class Tower(nn.Module):
    """A tower as a module of tensors, in the order of their names, which is what OpenVINO traces."""

    def __init__(self, model: PreTrainedModel, kind: str, names: list[str]):
        super().__init__()
        self.model, self.kind, self.names = model, kind, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tower_features(self.model, self.kind, dict(zip(self.names, tensors)))


def sample_inputs(inputs: dict[str, torch.Tensor], num_rows: int) -> dict[str, torch.Tensor]:
    """Rows of a batch, the first of them padded from its middle on where it has an attention mask."""
    rows = {name: tensor[torch.arange(num_rows) % len(tensor)] for name, tensor in inputs.items()}
    if "attention_mask" in rows:
        rows["attention_mask"][0, (rows["attention_mask"].shape[1] + 1) // 2 :] = 0
    return rows


def in_order(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The inputs in the order of their names, numbers in float32."""
    return [inputs[name].float() if inputs[name].is_floating_point() else inputs[name] for name in sorted(inputs)]


def run(compiled: openvino.CompiledModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The embeddings (rows, dim) that a compiled tower computes."""
    return torch.from_numpy(compiled([np.ascontiguousarray(tensor.numpy()) for tensor in in_order(inputs)])[0])


class OpenvinoBackend:
    """
    OpenVINO in place of PyTorch for both towers of a dual encoder, on the CPU, in float32, bfloat16 or int8: texts in
    8 bits, images in bfloat16. On a processor without instructions for bfloat16, that is computed in float32. What
    cannot be computed is a `ValueError`.
    """

    def __init__(self, model: PreTrainedModel, dtype: str, processor: ProcessorMixin):
        if model.device.type != "cpu":
            raise ValueError(f"`--backend openvino` computes on the CPU, and the model is on {model.device}.")
        if is_token_wise(model) or find_family(model).has_walk_types:
            raise ValueError(f"OpenVINO cannot compute this {type(model).__name__}: use `--backend torch`.")
        self.model, self.dtype, self.processor, self.towers = model, dtype, processor, {}
        self.cache_dir = Path(HF_ASSETS_CACHE, "lotlip", "openvino")
        self.lock = Lock()  # one request at a time: it uses all cores

    def __reduce__(self) -> tuple:
        return type(None), ()  # a copy of the model computes with PyTorch

    def compute(self, kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings (rows, dim), not normalised, by the `"text"` or `"image"` tower."""
        with self.lock:
            if kind not in self.towers:
                self.towers[kind] = self.load(kind, inputs)
            return run(self.towers[kind], inputs)

    def load(self, kind: str, inputs: dict[str, torch.Tensor]) -> openvino.CompiledModel:
        """The tower compiled, from the cache or converted now, and compared with PyTorch."""
        # it takes any number of rows and, of texts, any length
        shapes = [[-1, *(inputs[name].shape[1:] if inputs[name].dim() > 2 else [-1])] for name in sorted(inputs)]
        # images stay in bfloat16: ranges of some images do not fit others
        precision = "bfloat16" if self.dtype == "int8" and kind == "image" else self.dtype
        calibration = hash_processor(self.processor) if precision == "int8" else None
        folder = self.cache_dir / Hasher.hash((self.key, kind, sorted(inputs), shapes, calibration))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
        }
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(folder.with_suffix(".lock")):
                if not folder.exists():
                    logger.warning(f"Converting the {kind} tower for OpenVINO, once, to `{folder}`.")
                    tower = self.convert(kind, inputs, shapes)
                    tower = quantize(tower, self.processor) if precision == "int8" else tower
                    with atomic_write(folder) as partial:
                        partial.mkdir()
                        openvino.save_model(tower, partial / "tower.xml", compress_to_fp16=False)
            compiled = get_core().compile_model(folder / "tower.xml", "CPU", options)
            for batch in (sample_inputs(inputs, 3), inputs):
                pairs = (run(compiled, batch).double(), tower_features(self.model, kind, batch).double())
                cosine = torch.cosine_similarity(*pairs, dim=-1).min().item()
                if not cosine >= LEAST_COSINES[precision]:
                    raise RuntimeError(f"an embedding has a cosine of {cosine:.6f} to PyTorch's")
        except (RuntimeError, openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure) as error:
            cause = (" ".join(str(error).split()) or type(error).__name__)[:500].rstrip(".")  # some go on for pages
            raise ValueError(
                f"OpenVINO cannot compute the {kind} tower of this {type(self.model).__name__}: {cause}. Use "
                "`--backend torch`."
            ) from error
        return compiled

    def convert(self, kind: str, inputs: dict[str, torch.Tensor], shapes: list[list[int]]) -> openvino.Model:
        """The tower as a model of OpenVINO in float32."""
        if kind == "image" and (set(inputs) != {"pixel_values"} or inputs["pixel_values"].dim() != 4):
            raise RuntimeError("its image processor makes patches of each image's own number")
        example = sample_inputs(inputs, 2)
        if kind == "text":  # of another length, so that the check would see a length that was fixed
            example = {name: tensor[:, : max(2, tensor.shape[1] // 2)] for name, tensor in example.items()}
        # without the rounding of bfloat16 in what is computed
        model = self.model if self.model.dtype == torch.float32 else copy.deepcopy(self.model).float()
        tower = Tower(model, kind, sorted(example)).eval()
        # `openvino.convert_model` does the same, reports it to Intel, and changes the logging of all
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        # the tracer asks all attributes of the model, of which some warn
        library, level = logging.getLogger("transformers"), logging.getLogger("transformers").level
        library.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                decoder = TorchScriptPythonDecoder(tower, example_input=tuple(in_order(example)))
                converted = frontend.convert(frontend.load(decoder))
        finally:
            library.setLevel(level)
        converted.reshape({place: openvino.PartialShape(shape) for place, shape in enumerate(shapes)})
        return converted

    @cached_property
    def key(self) -> str:
        """Of what model a converted tower is."""
        config = self.model.config.to_dict()
        config = {name: value for name, value in config.items() if name not in ("_name_or_path", "dtype")}
        versions = (__version__, transformers.__version__, openvino.__version__)
        return Hasher.hash((type(self.model).__name__, repr(config), hash_weights(self.model), versions))

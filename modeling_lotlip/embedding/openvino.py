# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embedding on a CPU by OpenVINO: both towers of a dual encoder, each converted once and kept in the Hub's cache.

A tower is compared with PyTorch whenever it is loaded. Gradients, corner tokens and attentions stay with PyTorch.
"""

import contextlib
import copy
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module, resources
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE
from huggingface_hub.utils import WeakFileLock
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from .. import __version__
from ..output_folder import atomic_write
from .batches import tokenize
from .families import find_family
from .models import hash_weights
from .token_wise import is_token_wise


logger = logging.getLogger(__name__)

# The precisions that a tower can be computed in, and the least cosine to PyTorch of a tower that is right
LEAST_COSINES = {"float32": 1 - 1e-6, "bfloat16": 0.99, "int8": 0.9}

# A tower by PyTorch: embeddings (rows, dim) of a model and its inputs
Compute = Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor]


def import_silently(name: str) -> ModuleType:
    """
    OpenVINO or NNCF. When they are imported they report that to Intel, by a fork of this process, unless they believe
    to be in a CI job.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        return import_module(name)
    finally:
        os.environ.pop("CI") if before is None else os.environ.update(CI=before)


@cache
def get_core():
    """
    OpenVINO's runtime, the same until the process ends. The first one gives signal handlers a stack, and takes it away
    when it goes: the next signal, such as that of a child process that has ended, would end this process.
    """
    return import_silently("openvino").Core()


def make_calibration(processor: ProcessorMixin, max_length: int | None = None) -> list[dict[str, torch.Tensor]]:
    """
    The tokens of the texts that calibrate int8, always the same, so that an embedding depends on no other text: sixty
    of one to six sentences, and as many of words of the vocabulary, for models of other languages.
    """
    file = resources.files(__package__).joinpath("background_texts.txt")
    sentences = file.read_text(encoding="utf-8").splitlines()
    texts = [" ".join(sentences[place : place + 1 + place % 6]) for place in range(len(sentences))]
    words = {token.strip("\u2581\u0120").removesuffix("</w>") for token in processor.tokenizer.get_vocab()}
    words, generator = sorted(filter(str.isalpha, words)), random.Random(0)
    texts += [" ".join(generator.choices(words, k=1 + place)) for place in range(len(sentences))]
    return [dict(tokenize(processor, [text], max_length)) for text in texts]


class TensorTower(nn.Module):
    """A tower as a module of tensors, which is what OpenVINO traces."""

    def __init__(self, model: PreTrainedModel, compute: Compute, names: list[str]):
        super().__init__()
        self.model, self.compute, self.names = model, compute, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.compute(self.model, dict(zip(self.names, tensors)))


def sample_inputs(inputs: dict[str, torch.Tensor], num_rows: int) -> dict[str, torch.Tensor]:
    """Rows of a batch, the first of them padded from its middle on where it has an attention mask."""
    rows = {name: tensor[torch.arange(num_rows) % len(tensor)] for name, tensor in inputs.items()}
    if "attention_mask" in rows:
        rows["attention_mask"] = rows["attention_mask"].clone()
        rows["attention_mask"][0, (rows["attention_mask"].shape[1] + 1) // 2 :] = 0
    return rows


def in_order(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The inputs in the order of their names, numbers in float32."""
    return [inputs[name].float() if inputs[name].is_floating_point() else inputs[name] for name in sorted(inputs)]


def run(compiled: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The embeddings (rows, dim) that a compiled tower computes."""
    return torch.from_numpy(compiled([np.ascontiguousarray(tensor.numpy()) for tensor in in_order(inputs)])[0])


class OpenvinoBackend:
    """
    OpenVINO in place of PyTorch for both towers of a dual encoder, on the CPU.

    Args:
        model (`PreTrainedModel`):
            The dual encoder.
        dtype (`str`):
            The precision: `"float32"`, `"bfloat16"`, or `"int8"`: texts in 8 bits, images in bfloat16. On a processor
            without instructions for bfloat16, that is computed in float32.
        calibration (`list[dict[str, torch.Tensor]]`, *optional*):
            For int8: see [`make_calibration`].

    Raises:
        `ValueError`: if the model cannot be computed.
    """

    def __init__(self, model: PreTrainedModel, dtype: str, calibration: list[dict[str, torch.Tensor]] | None = None):
        if model.device.type != "cpu":
            raise ValueError(f"`--backend openvino` computes on the CPU, and the model is on {model.device}.")
        if is_token_wise(model) or find_family(model).has_walk_types:
            raise ValueError(f"OpenVINO cannot compute this {type(model).__name__}: use `--backend torch`.")
        self.model, self.dtype, self.calibration = model, dtype, calibration
        self.cache_dir = Path(HF_ASSETS_CACHE, "lotlip", "openvino")
        self.towers = {}
        self.lock = Lock()  # one request at a time: it uses all cores

    def __reduce__(self) -> tuple:
        return type(None), ()  # a copy of the model computes with PyTorch

    def compute(self, kind: str, by_torch: Compute, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Embeddings (rows, dim), not normalised.

        Args:
            kind (`str`):
                The tower: `"text"` or `"image"`.
            by_torch (`Compute`):
                The same by PyTorch, which is used where gradients are needed.
            inputs (`dict[str, torch.Tensor]`):
                What the tokenizer or the image processor returned.

        Raises:
            `ValueError`: if OpenVINO cannot compute the tower, or computes something else.
        """
        if torch.is_grad_enabled():
            return by_torch(self.model, inputs)
        with self.lock:
            if kind not in self.towers:
                self.towers[kind] = self.load(kind, by_torch, inputs)
            return run(self.towers[kind], inputs)

    def load(self, kind: str, by_torch: Compute, inputs: dict[str, torch.Tensor]) -> Any:
        """The tower compiled, from the cache or converted now, and compared with PyTorch."""
        openvino = import_silently("openvino")
        # images stay in bfloat16: ranges of some images do not fit others
        precision = "bfloat16" if self.dtype == "int8" and kind == "image" else self.dtype
        # a tower takes any number of rows and, of texts, any length
        shapes = {name: [-1, *(tensor.shape[1:] if tensor.dim() > 2 else [-1])] for name, tensor in inputs.items()}
        folder = self.cache_dir / Hasher.hash((self.key, kind, shapes, precision == "int8"))
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
                    tower = self.convert(kind, by_torch, inputs, shapes)
                    with atomic_write(folder) as partial:
                        partial.mkdir()
                        openvino.save_model(
                            self.quantize(tower) if precision == "int8" else tower,
                            partial / "tower.xml",
                            compress_to_fp16=False,
                        )
            compiled = get_core().compile_model(folder / "tower.xml", "CPU", options)
            for batch in (sample_inputs(inputs, 3), inputs):
                pairs = (run(compiled, batch).double(), by_torch(self.model, batch).double())
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

    def convert(self, kind: str, by_torch: Compute, inputs: dict[str, torch.Tensor], shapes: dict[str, list[int]]):
        """The tower as a model of OpenVINO in float32."""
        openvino = import_silently("openvino")
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        if kind == "image" and (set(inputs) != {"pixel_values"} or inputs["pixel_values"].dim() != 4):
            raise RuntimeError("its image processor makes patches of each image's own number")
        example = sample_inputs(inputs, 2)
        if kind == "text":  # of another length, so that the check would see a length that was fixed
            example = {name: tensor[:, : max(2, tensor.shape[1] // 2)] for name, tensor in example.items()}
        names, model = sorted(example), self.model
        if model.dtype != torch.float32:  # without the rounding of bfloat16 in what is computed
            model = copy.deepcopy(model).float()
        tower = TensorTower(model, by_torch, names).eval()
        # `openvino.convert_model` does the same, and reports it to Intel
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        # the tracer asks all attributes of the model, of which some warn
        library, level = logging.getLogger("transformers"), logging.getLogger("transformers").level
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            library.setLevel(logging.ERROR)
            try:
                decoder = TorchScriptPythonDecoder(tower, example_input=tuple(in_order(example)))
                converted = frontend.convert(frontend.load(decoder))
            finally:
                library.setLevel(level)
        converted.reshape({place: openvino.PartialShape(shapes[name]) for place, name in enumerate(names)})
        return converted

    def quantize(self, converted):
        """The text tower in int8 by NNCF: ranges of activations from texts, smooth quantisation of a transformer."""
        nncf = import_silently("nncf")
        logging.getLogger("nncf").setLevel(logging.ERROR)  # `nncf.set_log_level` sets the handlers of others, too
        samples = [[tensor.numpy() for tensor in in_order(tokens)] for tokens in self.calibration]
        with contextlib.redirect_stdout(sys.stderr):
            return nncf.quantize(converted, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)

    @cached_property
    def key(self) -> str:
        """Of what model a converted tower is."""
        config = self.model.config.to_dict()
        config = {name: value for name, value in config.items() if name not in ("_name_or_path", "dtype")}
        versions = (__version__, transformers.__version__, import_silently("openvino").__version__)
        return Hasher.hash((type(self.model).__name__, repr(config), hash_weights(self.model), versions))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embedding on a CPU by OpenVINO: both towers of a dual encoder, each converted once and kept in the Hub's cache.

What is computed is checked against PyTorch whenever a tower is loaded. Gradients, corner tokens and attentions stay
with PyTorch.
"""

import contextlib
import copy
import logging
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module, resources
from pathlib import Path
from threading import Lock
from types import ModuleType

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

# The precisions that a tower can be computed in here, and the least cosine to PyTorch of a tower that is right
LEAST_COSINES = {"float32": 1 - 1e-6, "bfloat16": 0.99, "int8": 0.9}
# PyTorch computes this long before a tower is converted, which takes about as long
SECONDS_OF_TORCH = 10.0
# Characters of OpenVINO's messages, which may go on for pages
MAX_CAUSE = 500


class ConversionError(ValueError):
    """OpenVINO does not compute a tower, or not as PyTorch does."""


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


def find_obstacle(model: PreTrainedModel) -> str | None:
    """Why OpenVINO cannot compute a model, or None."""
    if model.device.type != "cpu":
        return f"it is on {model.device}, and OpenVINO computes on the CPU"
    if is_token_wise(model):
        return "it compares tokens"
    if find_family(model).has_walk_types:
        return "it reads short and long texts in two ways"
    return None


class TensorTower(nn.Module):
    """A tower as a module of tensors, which is what OpenVINO traces."""

    def __init__(self, model: PreTrainedModel, compute: Callable[[PreTrainedModel, dict], torch.Tensor], names: list):
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


class OpenvinoTower:
    """
    One tower of a dual encoder.

    Args:
        backend (`OpenvinoBackend`):
            That it is part of.
        kind (`str`):
            `"text"` or `"image"`.
        compute (`Callable`):
            The tower by PyTorch: embeddings (rows, dim) of a model and inputs.
    """

    def __init__(self, backend: "OpenvinoBackend", kind: str, compute: Callable):
        self.backend, self.kind, self.torch_compute = backend, kind, compute
        # images stay in bfloat16: ranges of some images do not fit others
        self.precision = "bfloat16" if backend.dtype == "int8" and kind == "image" else backend.dtype
        self.seconds = 0.0  # that PyTorch has computed
        self.shapes = None  # of a row of each input, without the length of texts
        self.compiled = None
        self.is_refused = False
        self.lock = Lock()  # one request at a time: it uses all cores

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings (rows, dim), not normalised, of what the tokenizer or the image processor returned."""
        if torch.is_grad_enabled():
            return self.run_torch(inputs)
        with self.lock:
            shapes = {name: tuple(tensor.shape[1:]) if tensor.dim() > 2 else () for name, tensor in inputs.items()}
            self.shapes = self.shapes or shapes
            is_due = self.backend.is_required or self.compiled or self.seconds >= SECONDS_OF_TORCH
            if self.is_refused or shapes != self.shapes or not is_due:
                start = time.perf_counter()
                features = self.run_torch(inputs)
                self.seconds += time.perf_counter() - start
                return features
            try:
                return self.run(inputs) if self.compiled else self.load(inputs)
            except ConversionError as error:
                if self.backend.is_required:
                    raise
                logger.warning(f"{error} Continuing with PyTorch.")
                self.is_refused = True
                return self.run_torch(inputs)

    def run_torch(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """By PyTorch."""
        return self.torch_compute(self.backend.model, inputs)

    def run(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """By OpenVINO."""
        return torch.from_numpy(
            self.compiled([np.ascontiguousarray(tensor.numpy()) for tensor in in_order(inputs)])[0]
        )

    def load(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Compiles the tower, from the cache or converted now, and computes the first inputs.

        Raises:
            `ConversionError`: if OpenVINO cannot, or computes something else.
        """
        openvino = import_silently("openvino")
        key = (self.backend.key, self.kind, self.shapes, self.precision == "int8")
        folder = self.backend.cache_dir / Hasher.hash(key)
        try:
            self.convert_once(folder, inputs)
            self.compiled = get_core().compile_model(
                folder / "tower.xml",
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32",
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    "PERFORMANCE_HINT": "LATENCY",
                    "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
                },
            )
            for batch in (sample_inputs(inputs, 3), inputs):
                features, expected = self.run(batch), self.run_torch(batch)
                cosine = torch.cosine_similarity(features.double(), expected.double(), dim=-1).min().item()
                if not cosine >= LEAST_COSINES[self.precision]:
                    raise RuntimeError(f"an embedding has a cosine of {cosine:.6f} to PyTorch's")
            return features
        except OSError as error:
            raise ConversionError(
                f"`{folder.parent}`, where towers converted for OpenVINO are kept, cannot be written to: {error}. Set "
                "`HF_ASSETS_CACHE` to a folder that can, or use `--backend torch`."
            ) from error
        except (RuntimeError, openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure) as error:
            self.compiled = None
            cause = (" ".join(str(error).split()) or type(error).__name__)[:MAX_CAUSE].rstrip(".")
            raise ConversionError(
                f"OpenVINO cannot compute the {self.kind} tower of this {type(self.backend.model).__name__}: {cause}. "
                "Use `--backend torch`."
            ) from error

    def convert_once(self, folder: Path, inputs: dict[str, torch.Tensor]) -> None:
        """Puts the tower into a folder, by one process of those that want it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                logger.warning(f"Converting the {self.kind} tower for OpenVINO, once, to `{folder}`.")
                with atomic_write(folder) as partial:
                    partial.mkdir()
                    import_silently("openvino").save_model(
                        self.convert(inputs), partial / "tower.xml", compress_to_fp16=False
                    )

    def convert(self, inputs: dict[str, torch.Tensor]):
        """The tower as a model of OpenVINO in float32, with any number of rows and, of texts, any length."""
        openvino = import_silently("openvino")
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        if self.kind == "image" and (set(inputs) != {"pixel_values"} or inputs["pixel_values"].dim() != 4):
            raise RuntimeError("its image processor makes patches of each image's own number")
        example = sample_inputs(inputs, 2)
        if self.kind == "text":  # of another length, so that the check would see a length that was fixed
            example = {name: tensor[:, : max(2, tensor.shape[1] // 2)] for name, tensor in example.items()}
        names, model = sorted(example), self.backend.model
        if model.dtype != torch.float32:  # without the rounding of bfloat16 in what is computed
            model = copy.deepcopy(model).float()
        tower = TensorTower(model, self.torch_compute, names).eval()
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
        shapes = [openvino.PartialShape([-1, *(self.shapes[name] or [-1])]) for name in names]
        converted.reshape(dict(enumerate(shapes)))
        return self.quantize(converted) if self.precision == "int8" else converted

    def quantize(self, converted):
        """The text tower in int8 by NNCF: ranges of activations from texts, smooth quantisation of a transformer."""
        nncf = import_silently("nncf")
        logging.getLogger("nncf").setLevel(logging.ERROR)  # `nncf.set_log_level` sets the handlers of others, too
        samples = [[tensor.numpy() for tensor in in_order(tokens)] for tokens in self.backend.calibration]
        with contextlib.redirect_stdout(sys.stderr):
            return nncf.quantize(converted, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)


class OpenvinoBackend:
    """
    OpenVINO in place of PyTorch for both towers of a dual encoder, on the CPU.

    Args:
        model (`PreTrainedModel`):
            The dual encoder.
        dtype (`str`):
            The precision: `"float32"`, `"bfloat16"` or `"int8"`. On a processor without instructions for bfloat16,
            that is computed in float32.
        is_required (`bool`):
            Whether OpenVINO computes from the first text or image on, and raises an error if it cannot. Otherwise
            PyTorch starts, and keeps what OpenVINO cannot compute.
        calibration (`list[dict[str, torch.Tensor]]`, *optional*):
            For int8: see [`make_calibration`].
        cache_dir (`Path`, *optional*):
            Where converted towers are kept. Default: `assets/lotlip/openvino` in the cache of the Hub.

    Raises:
        `ValueError`: if the model cannot be computed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dtype: str,
        is_required: bool,
        calibration: list[dict[str, torch.Tensor]] | None = None,
        cache_dir: Path | None = None,
    ):
        if (obstacle := find_obstacle(model)) is not None:
            raise ConversionError(
                f"OpenVINO cannot compute this {type(model).__name__}: {obstacle}. Use `--backend torch`."
            )
        self.model, self.dtype, self.is_required, self.calibration = model, dtype, is_required, calibration
        self.cache_dir = Path(HF_ASSETS_CACHE, "lotlip", "openvino") if cache_dir is None else cache_dir
        self.towers = {}

    def __reduce__(self) -> tuple:
        return type(None), ()  # a copy of the model computes with PyTorch

    def tower(self, kind: str, compute: Callable) -> OpenvinoTower:
        """The tower `kind`, which PyTorch computes by `compute`."""
        if kind not in self.towers:
            self.towers[kind] = OpenvinoTower(self, kind, compute)
        return self.towers[kind]

    @cached_property
    def key(self) -> str:
        """Of what model a converted tower is."""
        config = self.model.config.to_dict()
        config = {name: value for name, value in config.items() if name not in ("_name_or_path", "dtype")}
        versions = (__version__, transformers.__version__, import_silently("openvino").__version__)
        return Hasher.hash((type(self.model).__name__, repr(config), hash_weights(self.model), versions))

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
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import torch
import transformers
from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE
from huggingface_hub.utils import WeakFileLock
from torch import nn
from transformers import PreTrainedModel

from .. import __version__
from .families import find_family
from .models import hash_weights
from .token_wise import is_token_wise


logger = logging.getLogger(__name__)

# The precisions that a tower can be computed in here, and the least cosine to PyTorch of a tower that is right
LEAST_COSINES = {"float32": 1 - 1e-6, "bfloat16": 0.99, "int8": 0.9}
# How long PyTorch computes before a tower is looked for in the cache, and before it is converted: about what these
# take, so that no run lasts longer than twice its best
SECONDS_BEFORE_CACHE, SECONDS_BEFORE_CONVERSION = 1.0, 10.0
# So many texts calibrate the ranges of int8
NUM_CALIBRATION = 128
# Characters of OpenVINO's own messages, which may go on for pages
MAX_CAUSE = 500


class ConversionError(ValueError):
    """OpenVINO does not compute a tower, or not as PyTorch does."""


@cache
def get_core():
    """
    OpenVINO's runtime, the same until the process ends. The first one gives signal handlers a stack, and takes it away
    when it goes: the next signal, such as that of a child process that has ended, would end this process.
    """
    import openvino

    return openvino.Core()


def why_not(model: PreTrainedModel) -> str | None:
    """Why OpenVINO cannot compute a model, or None."""
    if model.device.type != "cpu":
        return f"it is on {model.device}, and OpenVINO computes on the CPU"
    if is_token_wise(model):
        return "it compares tokens"
    if find_family(model).has_walk_types:
        return "it reads short and long texts in two ways"
    return None


@contextlib.contextmanager
def converting() -> Iterator[None]:
    """Keeps standard output and the root logger as they are, which OpenVINO changes; no warnings of the tracer."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            root.setLevel(level)
            root.filters[:], root.handlers[:] = filters, handlers


class _Tower(nn.Module):
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


def shorten(inputs: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """
    A text, without its padding, cut to one to eight eighths of its tokens by turns; its last token stays the last one.
    A text without attention mask stays whole.
    """
    if "attention_mask" not in inputs:
        return inputs
    places = inputs["attention_mask"][0].nonzero()[:, 0]
    length = max(2, len(places) * (number % 8 + 1) // 8)
    places = torch.cat((places[: length - 1], places[-1:]))
    return {name: tensor[:, places] for name, tensor in inputs.items()}


def least_cosine(features: torch.Tensor, others: torch.Tensor) -> float:
    """The least cosine between the rows of two tensors (rows, dim), in float64; NaN if one holds NaN."""
    return torch.cosine_similarity(features.double(), others.double(), dim=-1).min().item()


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
        self.seconds = 0.0  # that PyTorch has computed
        self.signature = None
        # images stay in bfloat16: ranges of some images do not fit others
        self.precision = "bfloat16" if backend.dtype == "int8" and kind == "image" else backend.dtype
        self.compiled = {}  # by precision
        self.samples = []  # of the calibration
        self.is_refused = False
        self.lock = Lock()  # one request at a time: it uses all cores

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings (rows, dim), not normalised, of what the tokenizer or the image processor returned."""
        if torch.is_grad_enabled():
            return self.run_torch(inputs)
        with self.lock:
            if self.is_refused or not self.fits(inputs):
                return self.run_torch(inputs)
            if not self.is_due():
                start = time.perf_counter()
                features = self.run_torch(inputs)
                self.seconds += time.perf_counter() - start
                return features
            try:
                precision = "float32" if self.is_calibrating(inputs) else self.precision
                return self.run(precision, inputs) if precision in self.compiled else self.switch(precision, inputs)
            except ConversionError as error:
                if self.backend.is_required:
                    raise
                logger.warning(f"{error} Continuing with PyTorch.")
                self.is_refused = True
                return self.run_torch(inputs)

    def run_torch(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """By PyTorch."""
        return self.torch_compute(self.backend.model, inputs)

    def run(self, precision: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """By OpenVINO."""
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in self.as_traced(inputs)]
        return torch.from_numpy(self.compiled[precision](arrays)[0])

    def as_traced(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The inputs in the order of their names, numbers in float32."""
        return [inputs[name].float() if inputs[name].is_floating_point() else inputs[name] for name in sorted(inputs)]

    def fits(self, inputs: dict[str, torch.Tensor]) -> bool:
        """Whether these are inputs as the first ones were: of the same names, and images of the same size."""
        signature = {name: tuple(tensor.shape[1:]) if tensor.dim() > 2 else () for name, tensor in inputs.items()}
        if self.signature is None:
            self.signature = signature
        return signature == self.signature

    def is_due(self) -> bool:
        """Whether PyTorch has computed for so long that another way pays, or that way is required."""
        if self.backend.is_required or self.compiled or self.seconds >= SECONDS_BEFORE_CONVERSION:
            return True
        return self.seconds >= SECONDS_BEFORE_CACHE and self.path(self.precision).exists()

    def path(self, precision: str) -> Path:
        """Where the tower is kept: a name for all that it depends on."""
        key = (self.backend.key, self.kind, self.signature, self.samples if precision == "int8" else None)
        return self.backend.cache_dir / Hasher.hash(key) / "tower.xml"

    def switch(self, precision: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Compiles the tower, from the cache or converted now, and computes the first inputs.

        Raises:
            `ConversionError`: if OpenVINO cannot, or computes something else.
        """
        path = self.path(precision)
        if not path.exists():
            self.write(path, lambda: self.convert(inputs))
        try:
            self.compiled[precision] = self.backend.compile(path, precision)
            for batch in (sample_inputs(inputs, 3), inputs):
                expected = self.run_torch(batch)
                features = self.run(precision, batch)
                cosine = least_cosine(features, expected)
                if not cosine >= LEAST_COSINES[precision]:
                    raise RuntimeError(f"an embedding has a cosine of {cosine:.6f} to PyTorch's")
        except RuntimeError as error:
            self.compiled.pop(precision, None)
            raise self.refusal(error) from error
        return features

    def refusal(self, error: Exception) -> ConversionError:
        """The error for a tower that OpenVINO cannot compute."""
        cause = (" ".join(str(error).split()) or type(error).__name__)[:MAX_CAUSE].rstrip(".")
        return ConversionError(
            f"OpenVINO cannot compute the {self.kind} tower of this {type(self.backend.model).__name__}: {cause}. "
            "Use `--backend torch`."
        )

    def convert(self, inputs: dict[str, torch.Tensor]):
        """The tower as a model of OpenVINO in float32, with any number of rows and, of texts, any length."""
        import openvino

        if self.kind == "image" and (set(inputs) != {"pixel_values"} or inputs["pixel_values"].dim() != 4):
            raise RuntimeError("its image processor makes patches of each image's own number")
        example = sample_inputs(inputs, 2)
        if self.kind == "text":  # of another length, so that the check would see a length that was fixed
            example = {name: tensor[:, : max(2, tensor.shape[1] // 2)] for name, tensor in example.items()}
        names = sorted(example)
        shapes = [openvino.PartialShape([-1, *(self.signature[name] or [-1])]) for name in names]
        # a copy without the rounding of bfloat16 in what is computed
        model = self.backend.model if self.backend.model.dtype == torch.float32 else self.backend.float_copy()
        tower = _Tower(model, self.torch_compute, names).eval()
        with converting():
            return openvino.convert_model(tower, example_input=tuple(self.as_traced(example)), input=shapes)

    def write(self, path: Path, make: Callable) -> None:
        """
        Puts a model of OpenVINO into the cache, whole or not at all, made by one process of those that want it.

        Raises:
            `ConversionError`: if it cannot be made or written.
        """
        import openvino

        failures = (RuntimeError, openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure)
        folder = path.parents[1]
        incomplete = folder / "incomplete"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(folder / ".lock"):
                if path.exists():
                    return
                logger.warning(f"Converting the {self.kind} tower for OpenVINO, once, to `{path.parent}`.")
                shutil.rmtree(incomplete, ignore_errors=True)  # of a process that was killed
                incomplete.mkdir()
                try:
                    openvino.save_model(make(), incomplete / path.name, compress_to_fp16=False)
                    incomplete.rename(path.parent)
                finally:
                    shutil.rmtree(incomplete, ignore_errors=True)
        except OSError as error:
            raise ConversionError(
                f"`{folder}`, where towers converted for OpenVINO are kept, cannot be written to: {error}. Set "
                "`HF_ASSETS_CACHE` to a folder that can, or use `--backend torch`."
            ) from error
        except failures as error:
            raise self.refusal(error) from error

    def is_calibrating(self, inputs: dict[str, torch.Tensor]) -> bool:
        """
        Whether the tower is to be int8 and cannot be yet. Keeps these texts until there are enough; at the next call
        the tower is quantised, unless the same texts have calibrated it before.
        """
        if self.precision != "int8" or "int8" in self.compiled:
            return False
        if len(self.samples) < NUM_CALIBRATION:
            for row in range(min(len(next(iter(inputs.values()))), NUM_CALIBRATION - len(self.samples))):
                # the first texts of a collection are its longest: they are cut to eight lengths
                sample = shorten({name: tensor[row : row + 1] for name, tensor in inputs.items()}, len(self.samples))
                self.samples.append([tensor.numpy().copy() for tensor in self.as_traced(sample)])
            return True
        self.write(self.path("int8"), self.quantize)
        return False

    def quantize(self):
        """The tower in int8 by NNCF: ranges of activations from the samples, smooth quantisation of a transformer."""
        import nncf

        model = get_core().read_model(self.path("float32"))
        logging.getLogger("nncf").setLevel(logging.ERROR)  # `nncf.set_log_level` sets the handlers of others, too
        with converting():
            return nncf.quantize(
                model, nncf.Dataset(self.samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(self.samples)
            )


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
        cache_dir (`Path`, *optional*):
            Where converted towers are kept. Default: `assets/lotlip/openvino` in the cache of the Hub.

    Raises:
        `ValueError`: if the model cannot be computed.
    """

    def __init__(self, model: PreTrainedModel, dtype: str, is_required: bool, cache_dir: Path | None = None):
        if (why := why_not(model)) is not None:
            raise ConversionError(
                f"OpenVINO cannot compute this {type(model).__name__}: {why}. Use `--backend torch`."
            )
        self.model, self.dtype, self.is_required = model, dtype, is_required
        self.cache_dir = Path(HF_ASSETS_CACHE, "lotlip", "openvino") if cache_dir is None else cache_dir
        self.towers = {}
        self._key = None

    def __reduce__(self) -> tuple:
        return type(None), ()  # a copy of the model computes with PyTorch

    def tower(self, kind: str, compute: Callable) -> OpenvinoTower:
        """The tower `kind`, which PyTorch computes by `compute`."""
        if kind not in self.towers:
            self.towers[kind] = OpenvinoTower(self, kind, compute)
        return self.towers[kind]

    @property
    def key(self) -> str:
        """Of what model a converted tower is."""
        if self._key is None:
            import openvino

            config = self.model.config.to_dict()
            config = {name: value for name, value in config.items() if name not in ("_name_or_path", "dtype")}
            versions = (__version__, transformers.__version__, openvino.__version__)
            self._key = Hasher.hash((type(self.model).__name__, repr(config), hash_weights(self.model), versions))
        return self._key

    def float_copy(self) -> PreTrainedModel:
        """The model in float32."""
        return copy.deepcopy(self.model).float()

    def compile(self, path: Path, precision: str):
        """A tower from the cache, ready to compute."""

        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
        }
        return get_core().compile_model(path, "CPU", options)

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings on a CPU by OpenVINO: both towers, each converted once, and compared with PyTorch whenever it is loaded.
"""

import copy
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE
from torch import nn
from transformers import PreTrainedModel

from ... import __version__
from ...utils.files import write_json
from ...utils.locks import lock_file
from ...utils.output_folder import PARTIAL, atomic_write, delete
from ...utils.signals import hold_interrupts
from ...utils.terminal import without_stop
from ..contract import has_own_method
from ..families import Family
from ..hashes import hash_model
from .backend import Backend
from .pytorch import PytorchBackend


logger = logging.getLogger(__name__)

# The min cosine of an embedding to PyTorch's of a tower that is right, by the precision
MIN_COSINES = {"float32": 1 - 1e-6, "bfloat16": 0.99, "int8": 0.9}
# Activations are quantized in groups of this many, each with a scale of its own
INT8_GROUP_SIZE = 64
# Some messages of OpenVINO go on for pages
MAX_MESSAGE_LENGTH = 500
# Rows that a tower is compared with PyTorch by
NUM_CHECKED = 4
# The description of a converted tower in its folder, beside its weights
TOWER_FILE = "tower.xml"
# What is written beside a tower that computes otherwise than PyTorch although it was converted just now
FAILED_FILE = "failed.json"


# It reports its import to Intel, by a fork of this process, but for a CI job
with patch.dict(os.environ, CI="true"):
    import openvino
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder


# What says that a tower cannot be converted, read or computed
OPENVINO_ERRORS = (RuntimeError, openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure)


@cache
def get_core() -> openvino.Core:
    """
    Returns OpenVINO's runtime, the same until the process ends.

    The first one gives signal handlers a stack, and takes it away when it goes: the next signal, such as that of a
    child process that has ended, would end this process.
    """
    return openvino.Core()


def locate_towers() -> Path:
    """Locates the folder of converted towers, in the cache of the Hub: a folder in it for each [`stored_dtype`]."""
    return Path(HF_ASSETS_CACHE, "lotlip", "openvino")


def stored_dtype(dtype: str) -> str:
    """
    Returns the precision in which a tower is stored, `"float32"` or `"int8"`, that is computed in another one:
    OpenVINO itself makes bfloat16 of float32.
    """
    return "int8" if dtype == "int8" else "float32"


def compress_to_int8(tower: openvino.Model) -> openvino.Model:
    """
    Returns a tower whose weights are stored in 8 bits, with a scale for each channel. Activations are quantized while
    it runs, by the option `DYNAMIC_QUANTIZATION_GROUP_SIZE`, so that no data is needed to calibrate it.
    """
    with patch.dict(os.environ, CI="true"):
        import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # `nncf.set_log_level` sets the handlers of others, too
    with redirect_stdout(sys.stderr):
        return nncf.compress_weights(tower, mode=nncf.CompressWeightsMode.INT8_SYM)


class Tower(nn.Module):
    """
    A tower as a module of tensors, in the order of their names, which is what OpenVINO traces.

    Args:
        backend ([`PytorchBackend`]): Computes the embeddings.
        modality (`str`): `"text"` or `"image"`.
        names (`list[str]`): The names of the inputs, sorted.
    """

    def __init__(self, backend: PytorchBackend, modality: str, names: list[str]):
        super().__init__()
        self.model = backend.model
        self.backend = backend
        self.modality = modality
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Returns embeddings of shape `(rows, dim)`."""
        return embed_modality(self.backend, self.modality, dict(zip(self.names, tensors)))


def embed_modality(
    backend: PytorchBackend,
    modality: str,
    inputs: dict[str, torch.Tensor],
) -> torch.Tensor:
    """Returns embeddings of shape `(rows, dim)` of texts or images, as `modality` says."""
    if modality == "text":
        return backend.embed_texts(inputs)
    return backend.embed_images(inputs)


def sample_inputs(inputs: dict[str, torch.Tensor], num_rows: int) -> dict[str, torch.Tensor]:
    """
    Returns `num_rows` rows of inputs of any shapes `(batch, ...)`, of which the first is padded from its middle on if
    there is an attention mask.
    """
    rows = {name: tensor[torch.arange(num_rows) % len(tensor)] for name, tensor in inputs.items()}
    if "attention_mask" in rows:
        rows["attention_mask"][0, (rows["attention_mask"].shape[1] + 1) // 2 :] = 0
    return rows


def list_shapes(inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    """
    Lists the shapes that a tower takes in place of those of inputs, `(rows, ...)`, in the order of their names: with
    -1 for any number of rows and, of texts, any length.
    """
    shapes = []
    for name in sorted(inputs):
        tensor = inputs[name]
        sizes = list(tensor.shape[1:]) if tensor.dim() > 2 else [-1]
        shapes.append([-1, *sizes])
    return shapes


def sort_inputs(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Returns inputs, each of any shape `(rows, ...)`, in the order of their names, floating-point ones in float32."""
    tensors = [inputs[name] for name in sorted(inputs)]
    return [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors]


def run_tower(compiled: openvino.CompiledModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the embeddings, of shape `(rows, dim)`, that a compiled tower computes."""
    arrays = [np.ascontiguousarray(tensor.cpu().numpy()) for tensor in sort_inputs(inputs)]
    return torch.from_numpy(compiled(arrays)[0])


def identify(folder: Path) -> tuple[int, int] | None:
    """Returns what tells the folder of a tower from a later one of its name; None if there is none."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


@dataclass
class UsedTowers:
    """
    Converted towers that one is loaded from.

    Args:
        identities (`dict[Path, tuple[int, int]]`): What [`identify`] returns of their folders.
        is_new (`bool`): Whether they were converted now.
    """

    identities: dict[Path, tuple[int, int]] = field(default_factory=dict)
    is_new: bool = False

    def add(self, folder: Path) -> None:
        """Adds the tower in a folder, if there is one."""
        identity = identify(folder)
        if identity is not None:
            self.identities[folder] = identity

    def delete(self) -> None:
        """Deletes the towers, but not those that another process has converted anew meanwhile."""
        for folder, identity in self.identities.items():
            with lock_file(folder.with_suffix(".lock")):
                if identify(folder) == identity:
                    shutil.rmtree(folder, ignore_errors=True)


class OpenvinoBackend(Backend):
    """
    Computes both towers of a dual encoder by OpenVINO, on the CPU, in float32, bfloat16 or int8 (weights in 8 bits,
    activations quantized while it runs). On a processor without instructions for bfloat16, that is computed in
    float32.

    Args:
        model (`PreTrainedModel`):
            A dual encoder on the CPU, in evaluation mode.
        family ([`Family`]):
            How it reads texts and images.
        dtype (`str`):
            `"float32"`, `"bfloat16"` or `"int8"`.
        cache_dir (`Path`, *optional*):
            Where converted towers are kept. Default: see [`locate_towers`].
        is_checked (`bool`, *optional*, defaults to `True`):
            Whether a tower is compared with PyTorch when it is loaded. If not, the caller compares what it computes.

    Raises:
        `ValueError`: if the model is on another device, or cannot be computed so.
    """

    name = "openvino"

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        dtype: str,
        cache_dir: Path | None = None,
        is_checked: bool = True,
    ):
        if model.device.type != "cpu":
            raise ValueError(f"`--backend openvino` computes on the CPU, and the model is on {model.device}.")
        if family.compares_tokens or family.has_walk_types:
            raise ValueError(f"OpenVINO cannot compute this {type(model).__name__}: use `--backend torch`.")
        self.model = model
        self.dtype = dtype
        self.device = model.device
        self.reference = PytorchBackend(model, family)
        self.weights_hash = hash_model(model)
        self.towers: dict[str, openvino.CompiledModel] = {}
        self.cache_dir = cache_dir or locate_towers()
        self.is_checked = is_checked
        self.lock = Lock()  # one request at a time: it uses all cores

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process gets: it compiles the towers again, from the cache."""
        state = self.__dict__.copy()
        state["towers"] = {}
        del state["lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = Lock()

    @property
    def min_cosine(self) -> float:
        """The min cosine of an embedding to PyTorch's: see [`Backend`]."""
        return MIN_COSINES[self.dtype]

    def hash_weights(self, model: nn.Module) -> str:
        """Returns a hash of the weights that the towers are converted from: later changes have no effect on them."""
        return self.weights_hash

    def embed_texts(self, inputs: dict[str, torch.Tensor], is_long: bool = False) -> torch.Tensor:
        """Returns embeddings of shape `(texts, dim)`: see [`Backend.embed_texts`]."""
        if is_long and has_own_method(type(self.model), "embed_captions"):
            # masks of corner tokens cannot be traced
            return self.reference.embed_texts(inputs, is_long=True)
        embeds = self.compute("text", inputs)
        # a text without any token, which TIPSv2's tokenizer makes of a blank one, is NaN in OpenVINO's attention
        mask = inputs.get("attention_mask")
        if mask is not None and not mask.any(dim=1).all():
            rows = ~mask.bool().any(dim=1)
            embeds[rows] = self.reference.embed_texts({name: tensor[rows] for name, tensor in inputs.items()}).float()
        return embeds

    def embed_images(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns embeddings of shape `(images, dim)`: see [`Backend.embed_images`]."""
        return self.compute("image", inputs)

    def compute(self, modality: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns embeddings, of shape `(rows, dim)`, by the tower of a modality, which is loaded if it is not yet."""
        with self.lock:
            if modality not in self.towers:
                self.towers[modality] = self.load(modality, inputs)
            return run_tower(self.towers[modality], inputs)

    def load(self, modality: str, inputs: dict[str, torch.Tensor]) -> openvino.CompiledModel:
        """
        Returns the compiled tower of a modality, from the cache or converted now, after it was compared with PyTorch
        by inputs, each of any shape `(rows, ...)`. One from the cache that cannot be read, or computes otherwise, is
        damaged, and converted anew, unless it was like this when it was converted.
        """
        if hash_model(self.model) != self.weights_hash:
            raise ValueError("The weights of the model have changed: make another `DualEncoder` for OpenVINO.")
        folder = self.locate_tower(modality, inputs)
        used = UsedTowers()
        try:
            return self.compile_and_check(folder, modality, inputs, used)
        except OPENVINO_ERRORS as error:
            if used.is_new:
                note_failure(folder)
            if used.is_new or has_failed(folder):
                raise self.make_error(modality, error) from error
        logger.warning(f"The converted tower {folder} is damaged: it is converted anew.")
        used.delete()
        try:
            return self.compile_and_check(folder, modality, inputs, used)
        except OPENVINO_ERRORS as error:
            note_failure(folder)
            raise self.make_error(modality, error) from error

    def make_error(self, modality: str, error: Exception) -> ValueError:
        """Makes the error of a tower that cannot be converted, or computes otherwise than PyTorch."""
        message = " ".join(str(error).split()) or type(error).__name__
        return ValueError(
            f"OpenVINO cannot compute the {modality} tower of this {type(self.model).__name__}: "
            f"{without_stop(message[:MAX_MESSAGE_LENGTH])}. Use `--backend torch`."
        )

    def locate_tower(self, modality: str, inputs: dict[str, torch.Tensor]) -> Path:
        """Locates the folder of the converted tower of a modality, for inputs, each of any shape `(rows, ...)`."""
        name = Hasher.hash((self.key, modality, sorted(inputs), list_shapes(inputs)))
        return self.cache_dir / stored_dtype(self.dtype) / name

    def compile_and_check(
        self,
        folder: Path,
        modality: str,
        inputs: dict[str, torch.Tensor],
        used: UsedTowers,
    ) -> openvino.CompiledModel:
        """
        Returns the tower of a modality from its folder in the cache: see [`OpenvinoBackend.load`].

        Args:
            folder (`Path`): That of [`OpenvinoBackend.locate_tower`].
            modality (`str`): `"text"` or `"image"`.
            inputs (`dict[str, torch.Tensor]`): Inputs of any shape `(rows, ...)`.
            used ([`UsedTowers`]): Gets what is read or converted.
        """
        compiled = self.compile(folder, modality, inputs, used)
        if self.is_checked:
            self.check(compiled, modality, inputs)
        return compiled

    def compile(
        self,
        folder: Path,
        modality: str,
        inputs: dict[str, torch.Tensor],
        used: UsedTowers,
    ) -> openvino.CompiledModel:
        """
        Returns the tower of a modality, compiled from the cache, where it is converted to once.

        Args:
            folder (`Path`): That of [`OpenvinoBackend.locate_tower`].
            modality (`str`): `"text"` or `"image"`.
            inputs (`dict[str, torch.Tensor]`): Inputs such as it is for, of any shape `(rows, ...)`.
            used ([`UsedTowers`]): Gets what is read or converted.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock")
        with lock_file(lock, f"Another process converts the {modality} tower for OpenVINO: waiting for it."):
            for left in folder.parent.glob(f"{folder.name}.*{PARTIAL}"):  # of a process that was killed
                delete(left)
            # one in 8 bits was made of that in float32, or is made of it now
            in_float32 = self.cache_dir / "float32" / folder.name / TOWER_FILE
            used.add(in_float32.parent)
            if not folder.exists():
                if in_float32.is_file():
                    tower = get_core().read_model(in_float32)
                else:
                    used.is_new = True
                    logger.warning(f"Converting the {modality} tower for OpenVINO, once.")
                    # raised inside, Ctrl-C would be an operation that OpenVINO cannot convert
                    with hold_interrupts():
                        tower = self.convert(modality, inputs, list_shapes(inputs))
                if self.dtype == "int8":
                    logger.warning(f"Storing the weights of the {modality} tower in 8 bits, once.")
                    tower = compress_to_int8(tower)
                save_tower(tower, folder)
            used.add(folder)
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.dtype == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": INT8_GROUP_SIZE if self.dtype == "int8" else 0,
        }
        return get_core().compile_model(folder / TOWER_FILE, "CPU", options)

    def check(
        self,
        compiled: openvino.CompiledModel,
        modality: str,
        inputs: dict[str, torch.Tensor],
    ) -> None:
        """
        Raises a `RuntimeError` if an embedding of a compiled tower is not PyTorch's, for the first of inputs, each of
        any shape `(rows, ...)`, and for three rows of them.
        """
        first = {name: tensor[:NUM_CHECKED] for name, tensor in inputs.items()}
        for batch in (sample_inputs(inputs, 3), first):
            with torch.inference_mode():
                expected = embed_modality(self.reference, modality, batch).double()
            cosine = torch.cosine_similarity(run_tower(compiled, batch).double(), expected, dim=-1).min().item()
            if not cosine >= self.min_cosine:
                raise RuntimeError(f"an embedding has a cosine of {cosine:.6f} to PyTorch's")

    def convert(
        self,
        modality: str,
        inputs: dict[str, torch.Tensor],
        shapes: list[list[int]],
    ) -> openvino.Model:
        """
        Returns a tower as a model of OpenVINO in float32, whose inputs, each of any shape `(rows, ...)`, in the order
        of their names, may have other sizes where `shapes` have -1.
        """
        if modality == "image" and (set(inputs) != {"pixel_values"} or inputs["pixel_values"].dim() != 4):
            raise RuntimeError("its image processor makes another number of patches of each image")
        example = sample_inputs(inputs, 2)
        if modality == "text":  # of another length, so that the check would see a length that was fixed
            example = {name: tensor[:, : max(2, tensor.shape[1] // 2)] for name, tensor in example.items()}
        model = self.model
        if model.dtype != torch.float32:  # without the rounding of bfloat16 in what is computed
            model = copy.deepcopy(model).float()
        tower = Tower(PytorchBackend(model, self.reference.family), modality, sorted(example)).eval()
        # `openvino.convert_model` does the same, reports it to Intel, and changes the logging of all
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        with without_warnings(), torch.no_grad():
            decoder = TorchScriptPythonDecoder(
                tower,
                example_input=tuple(sort_inputs(example)),
                # it would trace a second time and compare: the converted tower is compared with the model instead
                trace_kwargs={"check_trace": False},
            )
            converted = frontend.convert(frontend.load(decoder))
        converted.reshape({index: openvino.PartialShape(shape) for index, shape in enumerate(shapes)})
        return converted

    @cached_property
    def key(self) -> str:
        """The model that a converted tower is of, and what converted it."""
        versions = (__version__, transformers.__version__, openvino.__version__)
        return Hasher.hash((type(self.model).__name__, self.weights_hash, versions))


def save_tower(tower: openvino.Model, folder: Path) -> None:
    """Writes a tower to a folder, which is there as a whole or not at all. Raises an `OSError` if it cannot be."""
    with atomic_write(folder) as partial:
        partial.mkdir()
        try:
            openvino.save_model(tower, partial / TOWER_FILE, compress_to_fp16=False)
        except RuntimeError as error:  # which does not say why
            raise OSError(f"`{folder}` cannot be written, is the disk full? Free some space: {error}") from error


def describe_files(folder: Path) -> dict[str, list[int]]:
    """Returns the sizes and times of the files of a tower, by their names: of a damaged one they are others."""
    files = {}
    for path in folder.glob(f"{Path(TOWER_FILE).stem}.*"):
        status = path.stat()
        files[path.name] = [status.st_size, status.st_mtime_ns]
    return files


def note_failure(folder: Path) -> None:
    """Notes beside a tower, if there is one, that it computes otherwise than PyTorch as it was converted."""
    # on a full disk, say, the tower is converted once more at the next start
    with suppress(OSError), lock_file(folder.with_suffix(".lock")):
        if folder.is_dir():
            write_json(folder / FAILED_FILE, describe_files(folder))


def has_failed(folder: Path) -> bool:
    """Returns whether [`note_failure`] has noted it of a tower, and this has the same files."""
    try:
        return json.loads((folder / FAILED_FILE).read_text(encoding="utf-8")) == describe_files(folder)
    except (OSError, ValueError):
        return False


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silences, inside, the warnings of attributes of a model that its tracer asks for."""
    libraries = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    levels = [library.level for library in libraries]
    for library in libraries:
        library.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in zip(libraries, levels):
            library.setLevel(level)

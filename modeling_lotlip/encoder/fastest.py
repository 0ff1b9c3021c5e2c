# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
`--backend auto --dtype auto`: the fastest way to compute a model on this machine that stays close to float32.

On a GPU that is its half precision. On a CPU no list of instructions tells: one that has bfloat16 may compute it more
slowly than float32. So each way is measured once, in about a minute with the conversion for OpenVINO, and the choice
is kept in the cache of the Hub, where a later start finds it. Both towers are computed in one way, the fastest for a
batch of images and one of texts together, since the vectors of a table are of one way; images, which take longer,
decide.
"""

import copy
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from datasets.fingerprint import Hasher
from huggingface_hub.constants import HF_ASSETS_CACHE
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from .. import __version__
from ..data.scenes import make_scene
from ..utils.files import write_json
from ..utils.locks import lock_file
from .arguments import AUTO, InferenceArguments
from .backends import Backend, PytorchBackend
from .families import Family, find_family, find_text_limit, with_text_limit
from .hashes import hash_model
from .preprocessing import Preprocessing


logger = logging.getLogger(__name__)

# The min cosine of an embedding to that in float32 that is promised of people's images and texts
MIN_COSINE = 0.998
# And of the generated ones that are measured, which are easier: a model that kept 0.9984 of them in int8 kept 0.989 of
# photographs
MIN_MEASURED_COSINE = 0.999
# A way is preferred to a more exact one if it is at least so many times as fast
MIN_GAIN = 1.1
# Runs of each way at most, of which the shortest counts: other programs only make them longer
NUM_RUNS = 3
# Two runs that differ by no more than this factor are enough
AGREEMENT = 1.05
# A way whose first run takes longer than this many times the shortest of another is not run again
HOPELESS = 3.0
# What `/proc/cpuinfo` says of a processor and not of its state
PROCESSOR_FIELDS = (
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "CPU implementer",
    "CPU variant",
    "CPU part",
    "Features",
)
TITLES = {"torch": "PyTorch", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Computation:
    """
    A way to compute a model.

    Args:
        backend (`str`): What `--backend` calls it: `"torch"` or `"openvino"`; `"auto"` where it is to be chosen.
        dtype (`str`): The precision, as `--dtype` names it; `"auto"` where it is to be chosen.
    """

    backend: str
    dtype: str

    @property
    def is_open(self) -> bool:
        """Whether something is to be chosen."""
        return AUTO in (self.backend, self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype} by {TITLES.get(self.backend, self.backend)}"


# What all others are compared with
EXACT = Computation("torch", "float32")
# Measured only where OpenVINO cannot compute a model: otherwise that was faster in half precision, on all processors
# that were tried
LAST_RESORT = Computation("torch", "bfloat16")
# All ways on a CPU, the more exact ones of a backend first
ON_A_CPU = (
    EXACT,
    Computation("openvino", "float32"),
    Computation("openvino", "bfloat16"),
    Computation("openvino", "int8"),
    LAST_RESORT,
)


@dataclass(frozen=True)
class Measured:
    """
    What is measured of a way to compute a model.

    Args:
        computation ([`Computation`]): The way.
        seconds (`float`, *optional*): The seconds of a batch of images and one of texts.
        cosine (`float`, *optional*): The min cosine of an embedding to that in float32.
        problem (`str`, *optional*): Why the model cannot be computed so.
    """

    computation: Computation
    seconds: float = float("inf")
    cosine: float = 0.0
    problem: str | None = None


@dataclass(frozen=True)
class TimingSample:
    """
    What ways are measured by.

    Args:
        texts (`dict[str, torch.Tensor]`): `input_ids` of shape `(texts, length)` and what else is read.
        images (`dict[str, torch.Tensor]`): Such as `pixel_values` of shape `(images, channels, height, width)`.
        truncate_dim (`int`, *optional*): How many dimensions of the embeddings are kept. Default: all.
    """

    texts: dict[str, torch.Tensor]
    images: dict[str, torch.Tensor]
    truncate_dim: int | None = None


@dataclass(frozen=True)
class Choice:
    """
    What was measured on this machine, and chosen.

    Args:
        chosen ([`Measured`]): The way that was chosen.
        most_exact ([`Measured`]): The most exact way of those that were compared.
    """

    chosen: Measured
    most_exact: Measured


def read_choice(file: Path) -> Choice | None:
    """Reads what [`find_fastest`] wrote; None if it has not yet, or the file is damaged, which is said."""
    if not file.is_file():
        return None
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        measured = []
        for one in results["measured"]:
            measured.append(Measured(**{**one, "computation": Computation(**one["computation"])}))
        chosen = Computation(**results["chosen"])
        return Choice(
            chosen=next(one for one in measured if one.computation == chosen),
            most_exact=find_most_exact(measured),
        )
    except (KeyError, StopIteration, TypeError, ValueError):
        logger.warning(f"{file} is damaged: what it holds is measured anew where it is needed.")
        return None


def find_most_exact(measured: Sequence[Measured]) -> Measured:
    """Finds the most exact of the ways in which the model can be computed, of a list that begins with these."""
    return next(one for one in measured if one.problem is None)


def choose_half_precision(asked: Computation, device: torch.device) -> Computation:
    """
    Completes what is asked for on a GPU or another accelerator: PyTorch, and bfloat16 where there is that.

    Args:
        asked ([`Computation`]): What is asked for.
        device (`torch.device`): Where it is computed.
    """
    backend = asked.backend
    if backend == AUTO:
        backend = "torch"
    dtype = asked.dtype
    if dtype == AUTO:
        has_bfloat16 = device.type != "mps"
        if device.type == "cuda":
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if has_bfloat16 else "float16"
    return Computation(backend, dtype)


def list_computations(asked: Computation) -> list[Computation]:
    """Lists the ways on a CPU that are asked for and installed, the more exact ones first."""
    found = []
    for computation in ON_A_CPU:
        is_asked = asked.backend in (AUTO, computation.backend) and asked.dtype in (AUTO, computation.dtype)
        if is_asked and is_installed(computation):
            found.append(computation)
    return found


def is_installed(computation: Computation) -> bool:
    """Returns whether the packages are there that a way needs."""
    needed = []
    if computation.backend == "openvino":
        needed.append("openvino")
    if computation.dtype == "int8":
        needed.append("nncf")
    return all(find_spec(name) is not None for name in needed)


def choose(measured: Sequence[Measured], min_cosine: float = MIN_MEASURED_COSINE) -> Measured:
    """
    Chooses the fastest of the ways whose embeddings are close enough to float32, or a more exact one that is nearly as
    fast; where none is close enough, the closest.

    Args:
        measured (`Sequence[Measured]`): What is measured of each, the more exact ones first.
        min_cosine (`float`, *optional*, defaults to 0.999): The min cosine of an embedding to that in float32.

    Raises:
        `ValueError`: if the model can be computed in none of them.
    """
    possible = [one for one in measured if one.problem is None]
    if not possible:
        raise ValueError(measured[0].problem)
    close = [one for one in possible if one.cosine >= min_cosine]
    if not close:
        return max(possible, key=lambda one: one.cosine)
    shortest = min(one.seconds for one in close)
    return next(one for one in close if one.seconds <= shortest * MIN_GAIN)


def explain_choice(
    measured: Sequence[Measured], chosen: Measured, min_cosine: float = MIN_MEASURED_COSINE
) -> list[str]:
    """
    Writes a sentence on what was chosen, and one on each faster way that was not.

    Args:
        measured (`Sequence[Measured]`): What was measured of each.
        chosen ([`Measured`]): What was chosen.
        min_cosine (`float`, *optional*, defaults to 0.999): The min cosine that was asked for.
    """
    lines = []
    for one in measured:
        if one.problem is not None:
            lines.append(f"Not computed in {one.computation}: {one.problem}")
        elif one.seconds < chosen.seconds and one.cosine < min_cosine:
            lines.append(
                f"Not computed in {one.computation}, which is faster: an embedding has a cosine of {one.cosine:.4f} "
                f"to float32, less than {min_cosine}."
            )
    most_exact = find_most_exact(measured)
    if chosen == most_exact:
        return [*lines, f"This machine computes the model fastest in {chosen.computation}."]
    lines.append(
        f"This machine computes the model fastest in {chosen.computation}: {most_exact.seconds / chosen.seconds:.1f} "
        f"times as fast as in {most_exact.computation}, with cosines of at least {chosen.cosine:.4f} to float32."
    )
    return lines


def make_sample(preprocessing: Preprocessing, truncate_dim: int | None = None) -> TimingSample:
    """
    Makes texts and images of several sorts in the model's full size: two long captions of drawn scenes, a short one
    and random letters; two scenes, a gradient and noise.

    Args:
        preprocessing ([`Preprocessing`]): Makes the inputs of the model.
        truncate_dim (`int`, *optional*): How many dimensions of the embeddings are kept. Default: all.
    """
    generator = np.random.default_rng(0)
    texts = []
    images = []
    for index in range(2):
        scene = make_scene(seed=0, index=index)
        texts.append(f"{scene.long_caption} {make_scene(seed=1, index=index).long_caption}")
        images.append(scene.draw())
    texts.append(make_scene(seed=2, index=0).caption)
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789    ")
    texts.append("".join(generator.choice(letters, size=200)))
    ramp = np.linspace(0, 255, 224, dtype=np.uint8)
    colors = np.stack([ramp, np.roll(ramp, 80), ramp[::-1]], axis=-1)
    images.append(Image.fromarray(colors[None].repeat(224, axis=0)))
    images.append(Image.fromarray(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)))
    return TimingSample(preprocessing.tokenize(texts).inputs, preprocessing.prepare_images(images), truncate_dim)


@torch.inference_mode()
def embed_sample(backend: Backend, sample: TimingSample) -> torch.Tensor:
    """Returns the embeddings of texts and then of images, of shape `(texts + images, dim)`, normalized, in float32."""
    embeds = torch.cat([backend.embed_texts(sample.texts).float(), backend.embed_images(sample.images).float()])
    return torch.nn.functional.normalize(embeds[:, : sample.truncate_dim], dim=-1)


def choose_clock() -> Callable[[], float]:
    """
    Chooses what tells seconds: a clock, but the processor time of this process where other programs want more cores
    than there are. A clock would tell how much of them each run got.
    """
    is_busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)  # not on Windows
    return time.process_time if is_busy else time.perf_counter


def measure_computation(
    computation: Computation,
    make_backend: Callable[[Computation], Backend],
    sample: TimingSample,
    exact: torch.Tensor,
    clock: Callable[[], float],
    shortest: float = float("inf"),
) -> Measured:
    """
    Measures a way to compute a model.

    Args:
        computation ([`Computation`]): The way.
        make_backend (`Callable`): Makes what computes it.
        sample ([`TimingSample`]): What is embedded.
        exact (`torch.Tensor` of shape `(texts + images, dim)`): Its normalized embeddings in float32.
        clock (`Callable`): Tells the seconds.
        shortest (`float`, *optional*): The seconds of the fastest way so far.
    """
    try:
        backend = make_backend(computation)
        embeds = exact
        if computation != EXACT:
            embeds = embed_sample(backend, sample)
        cosine = (embeds * exact).sum(dim=-1).min().item()
    except (ImportError, ValueError) as error:
        return Measured(computation, problem=str(error))
    if not cosine >= backend.min_cosine:  # also of what is not a number
        return Measured(
            computation,
            problem=f"an embedding has a cosine of {cosine:.6f} to PyTorch's in float32.",
        )
    best = float("inf")
    for _ in range(NUM_RUNS):
        start = clock()
        embed_sample(backend, sample)
        seconds = clock() - start
        is_confirmed = max(seconds, best) <= AGREEMENT * min(seconds, best)
        best = min(seconds, best)
        if is_confirmed or best > HOPELESS * shortest:
            break
    return Measured(computation, best, cosine)


def find_fastest(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    asked: Computation,
    truncate_dim: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Computation:
    """
    Finds the fastest way to compute a model on this CPU: in the cache, where it was measured before, or by measuring.

    Args:
        model (`PreTrainedModel`): A dual encoder on the CPU, in evaluation mode and float32.
        processor (`ProcessorMixin`, *optional*): Its processor. `None` only where `preprocessing` is given.
        asked ([`Computation`]): What is asked for, of which something is open.
        truncate_dim (`int`, *optional*):
            How many dimensions of the embeddings are kept, which may be less exact than all. Default: all.
        preprocessing ([`Preprocessing`], *optional*): Makes the inputs of the model. Default: by the processor.

    Raises:
        `ValueError`: if it cannot be computed in any way that is asked for.
    """
    family = find_family(model.config, processor)
    computations = list_computations(asked)
    if len(computations) == 1 or family.compares_tokens:  # such a model has no single embeddings to compare
        return computations[0]
    file = locate_choice(model, computations, truncate_dim)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_suffix(".lock")
    with lock_file(lock, "Another process measures how this machine computes the model fastest: waiting for it."):
        known = read_choice(file)
        if known is not None:
            logger.info(f"Computed in {known.chosen.computation}, as {file} says.")
            return known.chosen.computation
        logger.warning("Measuring once, in about a minute, how this machine computes the model fastest.")
        if preprocessing is None:
            limit = find_text_limit(model, processor, family)
            preprocessing = Preprocessing(with_text_limit(processor, limit), family)
        sample = make_sample(preprocessing, truncate_dim)
        towers = file.with_suffix(".towers")
        shutil.rmtree(towers, ignore_errors=True)  # of a run that was killed
        try:
            measured = measure_all(model, family, sample, computations, towers)
            chosen = choose(measured)
            keep_towers(towers, chosen.computation)
        finally:
            shutil.rmtree(towers, ignore_errors=True)
        for line in explain_choice(measured, chosen):
            logger.warning(line)
        results = {"chosen": asdict(chosen.computation), "measured": [asdict(one) for one in measured]}
        write_json(file, results)
    return chosen.computation


def measure_all(
    model: PreTrainedModel,
    family: Family,
    sample: TimingSample,
    computations: Sequence[Computation],
    towers: Path,
) -> list[Measured]:
    """
    Measures ways to compute a model, one after the other, so that one of them is in memory at a time. PyTorch computes
    in half precision only where OpenVINO cannot.

    Args:
        model (`PreTrainedModel`): A dual encoder on the CPU, in evaluation mode and float32.
        family ([`Family`]): How it reads texts and images.
        sample ([`TimingSample`]): What is embedded.
        computations (`Sequence[Computation]`): The ways.
        towers (`Path`): Where towers are converted to for OpenVINO.
    """

    def make_backend(computation: Computation) -> Backend:
        if computation.backend == "openvino":
            from .backends.openvino import OpenvinoBackend

            # what it computes is compared with PyTorch here
            return OpenvinoBackend(model, family, computation.dtype, towers, is_checked=False)
        if computation.dtype == "float32":
            return PytorchBackend(model, family)
        return PytorchBackend(copy.deepcopy(model).to(getattr(torch, computation.dtype)), family)

    exact = embed_sample(PytorchBackend(model, family), sample)
    measured = []
    shortest = float("inf")
    clock = choose_clock()
    for computation in computations:
        by_openvino = [one for one in measured if one.computation.backend == "openvino" and one.problem is None]
        if computation == LAST_RESORT and by_openvino:
            continue
        measured.append(measure_computation(computation, make_backend, sample, exact, clock, shortest))
        shortest = min(shortest, measured[-1].seconds)
    return measured


def keep_towers(towers: Path, chosen: Computation) -> None:
    """Moves the towers of the way that was chosen, if OpenVINO computes it, to where they are found; others go."""
    if chosen.backend != "openvino" or not towers.is_dir():
        return
    from .backends.openvino import locate_towers, stored_dtype

    folder = towers / stored_dtype(chosen.dtype)
    cache = locate_towers() / stored_dtype(chosen.dtype)
    cache.mkdir(parents=True, exist_ok=True)
    for tower in folder.iterdir():
        kept = cache / tower.name
        with lock_file(cache / f"{tower.stem}.lock"):
            if tower.is_dir() and not kept.exists():
                os.replace(tower, kept)


def describe_auto(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    truncate_dim: int | None = None,
) -> str | None:
    """
    Describes in a sentence what `auto` gives for a model that is computed in float32 by PyTorch: on a CPU what was
    measured, if it was. Returns `None` where it gives the same, because nothing else can be computed.

    Args:
        model (`PreTrainedModel`): A dual encoder in float32.
        processor (`ProcessorMixin`, *optional*): Its processor; none of a model of sentence-transformers.
        truncate_dim (`int`, *optional*): How many dimensions of the embeddings are kept. Default: all.
    """
    open_one = Computation(AUTO, AUTO)
    if model.device.type != "cpu":
        return (
            "Computing in float32 by PyTorch, as on every machine. `--dtype auto` would compute in "
            f"{choose_half_precision(open_one, model.device)}."
        )
    computations = list_computations(open_one)
    if len(computations) == 1 or find_family(model.config, processor).compares_tokens:
        return None
    choice = read_choice(locate_choice(model, computations, truncate_dim))
    if choice is None:
        return (
            "Computing in float32 by PyTorch, as on every machine. `--backend auto --dtype auto` is faster on most, "
            f"with cosines of at least {MIN_COSINE} to this."
        )
    if choice.chosen == choice.most_exact:
        return (
            "Computing in float32 by PyTorch, as on every machine. `--backend auto --dtype auto` would give the same "
            "here: nothing else was faster."
        )
    return (
        "Computing in float32 by PyTorch, as on every machine. `--backend auto --dtype auto` would compute in "
        f"{choice.chosen.computation} here, {choice.most_exact.seconds / choice.chosen.seconds:.1f} times as fast, "
        f"with cosines of at least {choice.chosen.cosine:.4f} to this."
    )


def hint_at_auto(
    arguments: InferenceArguments,
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    computation: Computation,
) -> None:
    """
    Says on standard error what `auto` gives: what was chosen, where a command is asked for it, or what would be,
    where a command is asked for nothing and so computes exactly. Of several processes on this machine one says it.

    Args:
        arguments ([`InferenceArguments`]): What the command is asked for.
        model (`PreTrainedModel`): The dual encoder that it has loaded.
        processor (`ProcessorMixin`, *optional*): Its processor.
        computation ([`Computation`]): How it is computed.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if AUTO in (arguments.backend, arguments.dtype):
        print(f"Computing in {computation}.", file=sys.stderr)
    elif arguments.backend is None and arguments.dtype == "float32":
        sentence = describe_auto(model, processor, arguments.truncate_dim)
        if sentence is not None:
            print(sentence, file=sys.stderr)


def locate_choice(
    model: PreTrainedModel,
    computations: Sequence[Computation],
    truncate_dim: int | None = None,
) -> Path:
    """
    Locates the file of what was measured: it depends on the weights, the versions of what computes, the processor, the
    number of threads, the ways that were compared, and how many dimensions of the embeddings are kept.
    """
    packages = ["torch", "transformers"]
    if any(computation.backend == "openvino" for computation in computations):
        packages.append("openvino")
    if any(computation.dtype == "int8" for computation in computations):
        packages.append("nncf")
    versions = {name: version(name) for name in packages}
    ways = [str(computation) for computation in computations]
    depends_on = (
        type(model).__name__,
        hash_model(model),
        __version__,
        versions,
        describe_processor(),
        torch.get_num_threads(),
        ways,
        truncate_dim,
    )
    return Path(HF_ASSETS_CACHE, "lotlip", "fastest", f"{Hasher.hash(depends_on)}.json")


def describe_processor() -> str:
    """Describes the processor and its instructions, the same at every start."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    first_core = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    lines = []
    for line in first_core.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in PROCESSOR_FIELDS:
            lines.append(f"{name.strip()}: {value.strip()}")
    return "\n".join([platform.machine(), *lines])

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Dual encoders: loading, limits of their texts, what tells them apart."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import xxhash
from accelerate import PartialState
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel, AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import find_adapter_config_file

from ..hub_lotlip import find_pretrained
from .arguments import LoadingArguments
from .families import find_family, get_padding, get_text_kwargs
from .features import text_lengths, torch_text_features
from .remote_code import load_with_code
from .token_wise import is_token_wise


logger = logging.getLogger(__name__)


def hash_weights(module: nn.Module) -> str:
    """A hash of all parameters and buffers, by which what is stored knows the model that it is of."""
    weights = xxhash.xxh3_128()
    for name, tensor in module.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def hash_processor(processor: ProcessorMixin) -> str:
    """A hash of the files that a processor is saved as, which is the same wherever it was loaded from."""
    files = xxhash.xxh3_128()
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix != ".py":
                files.update(str(path.relative_to(folder)).encode())
                files.update(path.read_bytes())
    return files.hexdigest()


def check_single_embeddings(model: PreTrainedModel | PreTrainedConfig) -> None:
    """
    Refuses a model that compares tokens, or one of such a configuration.

    Raises:
        `ValueError`: if it is one, and so has no single embedding of a text or an image.
    """
    if is_token_wise(model):
        raise ValueError(
            "The model compares all tokens of texts and images, and has no single embedding of either: use one that "
            "was trained with another `--objective`."
        )


def load_model(
    model_name_or_path: str,
    inference: LoadingArguments | None = None,
    takes_tokens: bool = False,
    argument: str = "model_name_or_path",
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    Loads a dual encoder, ready to embed, and its processor.

    Args:
        model_name_or_path (`str`):
            A Hub id or a folder.
        inference (`LoadingArguments`, *optional*):
            Precision, device and limit of texts; of `InferenceArguments` also the backend and `truncate_dim`.
            Default: float32 by PyTorch, on the device of accelerate's `PartialState`.
        takes_tokens (`bool`, *optional*, defaults to `False`):
            Whether the caller can use a model that compares tokens and has no single embedding.
        argument (`str`, *optional*, defaults to `"model_name_or_path"`):
            The argument that names the model, for messages.

    Raises:
        `ValueError`: if there is no such model or device, it is no dual encoder, compares tokens, or has fewer
            positions than `inference.max_length`; or the backend cannot compute it.
        `ImportError`: if the backend is not installed.
    """
    inference = inference or LoadingArguments()
    check_device(inference.device)
    backend, truncate_dim = getattr(inference, "backend", "torch"), getattr(inference, "truncate_dim", None)
    for package, is_needed in (("nncf", inference.dtype == "int8"), ("openvino", backend == "openvino")):
        if is_needed and find_spec(package) is None:
            extra = "int8" if package == "nncf" else package
            raise ImportError(f'This needs {package}: `pip install "lotlip[{extra}]"` brings it.')
    dtype, named = getattr(torch, inference.dtype.replace("int8", "float32")), f"`--{argument} {model_name_or_path}`"
    try:
        path = find_pretrained(model_name_or_path)
        if find_adapter_config_file(path) is not None:
            model, processor = load_with_adapters(path, dtype)
        elif inference.trust_remote_code:
            model, processor = load_with_code(path, dtype)
        else:
            model, processor = AutoModel.from_pretrained(path, dtype=dtype), None
        if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
            raise ValueError(f"it is a {type(model).__name__}, no dual encoder. Name one of images and texts.")
        processor = processor or AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{named} cannot be used: {error}") from error
    if not takes_tokens:
        check_single_embeddings(model)
    if inference.max_length is not None:
        check_max_length(model, inference.max_length, named)
    processor.tokenizer.model_max_length = text_limit(model, processor)
    model = model.to(inference.device or PartialState().device).eval()
    if backend == "openvino":
        from .openvino import OpenvinoBackend, make_calibration

        calibration = make_calibration(processor, inference.max_length) if inference.dtype == "int8" else None
        model.embedding_backend = OpenvinoBackend(model, inference.dtype, calibration)
    if truncate_dim is not None:
        check_truncate_dim(model, processor, truncate_dim, named)
        model.truncate_dim = truncate_dim
    return model, processor


def load_with_adapters(path: str | PathLike, dtype: torch.dtype) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    The model that adapters of PEFT are of, with these merged into its weights; its processor is that beside the
    adapters, or else the model's.

    Raises:
        `ImportError`: if PEFT is not installed.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise ImportError(
            f'{path} has adapters of PEFT, which is not installed: `pip install "lotlip[peft]"`.'
        ) from error
    base = find_pretrained(PeftConfig.from_pretrained(path).base_model_name_or_path)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(base, dtype=dtype), path).merge_and_unload()
    try:
        return model, AutoProcessor.from_pretrained(path)
    except (OSError, ValueError):
        return model, AutoProcessor.from_pretrained(base)


def check_max_length(model: PreTrainedModel, max_length: int, named: str) -> None:
    """Raises a `ValueError` if a text tower has not so many positions, or reads texts of other lengths only."""
    num_positions, lengths = count_positions(model), text_lengths(model)
    if num_positions is not None and max_length > num_positions:
        raise ValueError(
            f"`--max_length {max_length}` is beyond the {num_positions} tokens that the text tower of {named} has "
            "positions for: give at most so many."
        )
    if lengths and max_length not in lengths:
        raise ValueError(f"`--max_length {max_length}` does not fit {named}. Give {' or '.join(map(str, lengths))}.")


def get_truncate_dim(model: PreTrainedModel) -> int | None:
    """How many numbers of an embedding are kept, if [`load_model`] was told so."""
    return getattr(model, "truncate_dim", None)


def check_truncate_dim(model: PreTrainedModel, processor: ProcessorMixin, dim: int, named: str) -> None:
    """
    Warns of an embedding cut to a length that the model was not trained for.

    Raises:
        `ValueError`: if it has fewer numbers, or compares tokens.
    """
    if is_token_wise(model):
        raise ValueError(f"`--truncate_dim {dim}` is not for {named}, which compares all tokens: leave it out.")
    tokens = processor.tokenizer(["a"], padding=get_padding(processor), return_tensors="pt")
    with torch.inference_mode():
        num_dims = torch_text_features(model, {name: ids.to(model.device) for name, ids in tokens.items()}).shape[-1]
    trained = getattr(model.config, "matryoshka_dims", None) or ()
    if dim > num_dims:
        raise ValueError(f"`--truncate_dim {dim}` is more than the {num_dims} numbers of an embedding of {named}.")
    if dim not in (num_dims, *trained):
        known = f"It was for {', '.join(map(str, trained))}." if trained else "Train one with `--matryoshka_dims`."
        logger.warning(
            f"{named} was not trained for embeddings of {dim} numbers (`--truncate_dim`): they may find much less. "
            + known
        )


def dtype_name(model: PreTrainedModel) -> str:
    """What a model computes in, as `--dtype` names it."""
    backend = getattr(model, "embedding_backend", None)
    return str(model.dtype).removeprefix("torch.") if backend is None else backend.dtype


def check_device(device: str | None) -> None:
    """
    Refuses a device that is not there.

    Raises:
        `ValueError`: if PyTorch has none of that name.
    """
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # the former where PyTorch was built without it
        cause = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"`--device {device}` cannot be used: {cause}. Leave it out for what there is, or name `cpu`."
        ) from error


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model computes without dropout; afterwards it trains again if it did before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def describe_model(
    name: str, model: PreTrainedModel, processor: ProcessorMixin, max_length: int | None = None
) -> dict[str, str | int | None]:
    """What results of a model depend on: its name, revision, type, precision, embeddings and limit of texts."""
    return {
        "model": name,
        "revision": getattr(model.config, "_commit_hash", None),
        "model_type": model.config.model_type,
        "dtype": dtype_name(model),
        "truncate_dim": get_truncate_dim(model),
        "max_length": max_length or processor.tokenizer.model_max_length,
        "text_embedding": "tokens" if is_token_wise(model) else "cls",
    }


def count_positions(model: PreTrainedModel) -> int | None:
    """How many tokens of a text the text tower has positions for, `None` where it has no table of them."""
    config = model.config.get_text_config()
    if lengths := text_lengths(model):
        return max(lengths)
    num_positions = getattr(config, "max_position_embeddings", None)
    if num_positions is None:
        return None
    for name, module in model.named_modules():
        # RoBERTa's positions begin behind the one of padding
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            num_positions -= module.padding_idx + 1
    return num_positions - getattr(config, "num_corner_tokens", 0)


def text_limit(model: PreTrainedModel, processor: ProcessorMixin) -> int:
    """The most tokens of a text that a dual encoder was made to read."""
    limit = processor.tokenizer.model_max_length
    num_positions = count_positions(model)
    if num_positions is None:
        return limit
    if limit == find_family(model).stale_limit:
        return num_positions
    return min(limit, num_positions, get_text_kwargs(processor).get("max_length", limit))

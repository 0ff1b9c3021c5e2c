# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Dual encoders: loading, also of those whose code comes with them, and limits of their texts."""

import json
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
from huggingface_hub import load_torch_model, snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import find_adapter_config_file

from ..hub_lotlip import find_pretrained
from .arguments import LoadingArguments
from .features import find_family, get_padding, get_text_kwargs, is_token_wise, text_features, text_lengths


logger = logging.getLogger(__name__)

# What transformers saves of where a tokenizer was loaded from, whether offline, and of how it was called last
FLEETING = {"tokenizer_config.json": ("is_local", "local_files_only"), "tokenizer.json": ("padding", "truncation")}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")


def hash_weights(module: nn.Module) -> str:
    """A hash of all parameters and buffers, by which what is stored knows the model that it is of."""
    weights = xxhash.xxh3_128()
    for name, tensor in module.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def hash_processor(processor: ProcessorMixin) -> str:
    """A hash of the files that a processor is saved as, the same wherever it was loaded from and however called."""
    files = xxhash.xxh3_128()
    with TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix != ".py":
                content = path.read_bytes()
                if names := FLEETING.get(path.name):
                    fields = json.loads(content)
                    content = json.dumps({name: fields[name] for name in fields if name not in names}).encode()
                files.update(str(path.relative_to(folder)).encode())
                files.update(content)
    return files.hexdigest()


def check_single_embeddings(model: PreTrainedModel | PreTrainedConfig) -> None:
    """Raises a `ValueError` if a model, or one of a configuration, compares tokens and has no single embeddings."""
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
    Loads a dual encoder, ready to embed, and its processor. Default: float32 by PyTorch, on the device of accelerate's
    `PartialState`. `takes_tokens`: the caller can use a model that compares tokens. Raises a `ValueError` if the
    `argument` names no dual encoder or it cannot be run so, an `ImportError` if the backend is not installed.
    """
    inference = inference or LoadingArguments()
    check_device(inference.device)
    backend, truncate_dim = getattr(inference, "backend", "torch"), getattr(inference, "truncate_dim", None)
    for extra, package, is_needed in (
        ("openvino", "openvino", backend == "openvino"),
        ("int8", "nncf", inference.dtype == "int8"),
    ):
        if is_needed and find_spec(package) is None:
            raise ImportError(f'This needs {package}: `pip install "lotlip[{extra}]"` brings it.')
    dtype = torch.float32 if inference.dtype == "int8" else getattr(torch, inference.dtype)
    named = f"`--{argument} {model_name_or_path}`"
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
    if truncate_dim is not None:
        check_truncate_dim(model, processor, truncate_dim, named)
        model.truncate_dim = truncate_dim
    if backend == "openvino":
        from .openvino import OpenvinoBackend

        model.embedding_backend = OpenvinoBackend(model, inference.dtype, processor)
    return model, processor


def load_with_adapters(path: str | PathLike, dtype: torch.dtype) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model with adapters of PEFT merged into its weights; the processor beside them, or else the model's."""
    if find_spec("peft") is None:
        raise ImportError(f'{path} has adapters of PEFT, which is not installed: `pip install "lotlip[peft]"`.')
    from peft import PeftConfig, PeftModel

    base = find_pretrained(PeftConfig.from_pretrained(path).base_model_name_or_path)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(base, dtype=dtype), path).merge_and_unload()
    model.requires_grad_()  # PEFT has frozen it, and it may be trained further
    try:
        return model, AutoProcessor.from_pretrained(path)
    except (OSError, ValueError):
        return model, AutoProcessor.from_pretrained(base)


class PairProcessor(ProcessorMixin):
    """A tokenizer and an image processor of a model that comes without a processor of both."""

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)


def load_with_code(name: str | PathLike, dtype: torch.dtype) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model and its processor, by the code that comes with them (FG-CLIP 2, jina-clip-v2)."""
    options = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(name, **options)
    # FG-CLIP offers itself as a causal language model only
    auto_map = getattr(config, "auto_map", None) or {}
    is_causal_only = "AutoModelForCausalLM" in auto_map and "AutoModel" not in auto_map
    auto_class = AutoModelForCausalLM if is_causal_only else AutoModel
    folder, has_code = Path(name), type(config).__module__.startswith("transformers_modules.")
    if has_code and not folder.is_dir():
        folder = Path(snapshot_download(name, allow_patterns=WEIGHTS))
    if has_code and any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        # Not by `from_pretrained`: code from before transformers 5 draws weights anew after they were loaded, and its
        # tensors that are no parameters stay empty
        model = auto_class.from_config(config, dtype=dtype, **options)
        if missing := load_torch_model(model, folder).missing_keys:
            raise ValueError(
                f"the weights lack {len(missing)} tensors of {type(model).__name__}, `{missing[0]}` first."
            )
    else:
        model = auto_class.from_pretrained(name, dtype=dtype, **options)
    processor = AutoProcessor.from_pretrained(name, **options)
    if not isinstance(processor, ProcessorMixin):
        parts = (part.from_pretrained(name, **options) for part in (AutoImageProcessor, AutoTokenizer))
        processor = PairProcessor(*parts)
        processor.model_type = config.model_type
    return model, processor


def check_max_length(model: PreTrainedModel, max_length: int, named: str) -> None:
    """Raises a `ValueError` if a text tower has not so many positions, or reads texts of other lengths only."""
    num_positions, lengths = count_positions(model), text_lengths(model)
    if num_positions is not None and max_length > num_positions:
        raise ValueError(
            f"`--max_length {max_length}` is beyond the {num_positions} tokens that the text tower of {named} has "
            "positions for: give fewer."
        )
    if lengths and max_length not in lengths:
        raise ValueError(f"`--max_length {max_length}` does not fit {named}. Give {' or '.join(map(str, lengths))}.")


def check_truncate_dim(model: PreTrainedModel, processor: ProcessorMixin, dim: int, named: str) -> None:
    """Warns of embeddings cut to a length that a model was not trained for. Refuses one that has fewer numbers."""
    if is_token_wise(model):
        raise ValueError(f"`--truncate_dim {dim}` is not for {named}, which compares all tokens: leave it out.")
    tokens = processor.tokenizer(["a"], padding=get_padding(processor), return_tensors="pt")
    with torch.inference_mode():
        num_dims = text_features(model, {name: ids.to(model.device) for name, ids in tokens.items()}).shape[-1]
    trained = getattr(model.config, "matryoshka_dims", None) or ()
    if dim > num_dims:
        raise ValueError(f"`--truncate_dim {dim}` is more than the {num_dims} numbers of an embedding of {named}.")
    if dim not in (num_dims, *trained):
        known = f"It was for {', '.join(map(str, trained))}." if trained else "Train one with `--matryoshka_dims`."
        logger.warning(
            f"{named} was not trained for embeddings of {dim} numbers (`--truncate_dim`): they may find much less. "
            + known
        )


def check_device(device: str | None) -> None:
    """Raises a `ValueError` if PyTorch has no device of that name."""
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


def name_precision(model: PreTrainedModel) -> str:
    """What a model computes in, as `--dtype` names it."""
    backend = getattr(model, "embedding_backend", None)
    return str(model.dtype).removeprefix("torch.") if backend is None else backend.dtype


def describe_model(
    name: str, model: PreTrainedModel, processor: ProcessorMixin, max_length: int | None = None
) -> dict[str, str | int | None]:
    """What results of a model depend on: its name, revision, type, precision, embeddings and limit of texts."""
    return {
        "model": name,
        "revision": getattr(model.config, "_commit_hash", None),
        "model_type": model.config.model_type,
        "dtype": name_precision(model),
        "truncate_dim": getattr(model, "truncate_dim", None),
        "max_length": max_length or processor.tokenizer.model_max_length,
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

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The weights of two models, and what lies between them (Wortsman et al., 2022, https://arxiv.org/abs/2109.01903)."""

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from ..encoder.backends import PytorchBackend
from ..encoder.dual_encoder import DualEncoder
from ..encoder.families import count_positions
from ..training.models import stretch_positions


logger = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]

# Of the embeddings of two models with the same weights: they may round in other ways
MIN_COSINE = 0.999
# By these it is seen whether two tokenizers make the same tokens: with capitals, accents, digits and Chinese
PROBE_TEXTS = ("a red boat.", "A Boat", "café", "12 boats (red)", "舟船")


def check_models(start: DualEncoder, end: DualEncoder) -> None:
    """Raises a `ValueError` if two models are of different types, or read texts as different words."""
    for name, encoder in (("START", start), ("END", end)):
        if not isinstance(encoder.model, PreTrainedModel):
            raise ValueError(
                f"{name} {encoder.name} is a {type(encoder.model).__name__}, whose weights are not mixed: name a dual "
                "encoder of transformers."
            )
    if not is_same_class(type(start.model), type(end.model)):
        raise ValueError(
            f"START {start.name} is a {type(start.model).__name__} and END {end.name} a {type(end.model).__name__}: "
            "name a model, and what `lotlip train` made of it with the same objective."
        )
    if start.processor.tokenizer.get_vocab() != end.processor.tokenizer.get_vocab():
        raise ValueError(
            f"The tokenizers of START {start.name} and END {end.name} know different words: name a model, and what "
            "`lotlip train` made of it."
        )


def warn_of_other_tokens(start: DualEncoder, end: DualEncoder) -> None:
    """Logs a warning if the tokenizers of two models make other tokens of a text, though they know the same words."""
    for text in PROBE_TEXTS:
        if start.processor.tokenizer(text)["input_ids"] != end.processor.tokenizer(text)["input_ids"]:
            logger.warning(
                f"The tokenizers of START {start.name} and END {end.name} make other tokens of {text!r}, which each "
                "mixture reads as END does: is the tokenizer of END that of its training?"
            )
            return


def is_same_class(model_class: type, other_class: type) -> bool:
    """
    Returns whether two classes of models are the same. Those of code that comes with each are known by name:
    whether both compute the same is seen when one gets the weights of the other.
    """
    if model_class is other_class:
        return True
    for cls in (model_class, other_class):
        if not cls.__module__.startswith("transformers_modules"):
            return False
    return model_class.__name__ == other_class.__name__


def fit_start(start: DualEncoder, end: DualEncoder) -> PreTrainedModel:
    """
    Returns the first model with as many text positions as the second one has: a copy whose positions are stretched, as
    a training with a larger `--max_length` does before its first step, or the model itself if it has as many.
    """
    num_positions = count_positions(end.model, end.family)
    num_before = count_positions(start.model, start.family)
    if num_positions is None or num_before is None or num_before >= num_positions:
        return start.model
    stretched = copy.deepcopy(start.model)
    stretch_positions(stretched, num_positions)
    return stretched


def clone_weights(model: PreTrainedModel) -> Weights:
    """Clones what a model saves, tensors of any shape `(...)`, to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def check_same_shapes(start: Weights, end: Weights) -> None:
    """Raises a `ValueError` if tensors of two models, of any shape `(...)`, have other names or other shapes."""
    unmatched = sorted(start.keys() ^ end.keys())
    if unmatched:
        owner = "START" if unmatched[0] in start else "END"
        raise ValueError(f"{owner} alone has `{unmatched[0]}`: only weights of the same names can be mixed.")
    for name, tensor in start.items():
        if tensor.shape != end[name].shape:
            raise ValueError(
                f"`{name}` is of shape {tuple(tensor.shape)} in START and {tuple(end[name].shape)} in END: only "
                "weights of the same shapes can be mixed."
            )


def warn_of_same_weights(start: Weights, end: Weights) -> None:
    """Logs a warning if all tensors of two models, of any shape `(...)`, are equal: then all mixtures are, too."""
    if all(torch.equal(tensor, end[name]) for name, tensor in start.items()):
        logger.warning(
            "START and END have the same weights, and so has each mixture: name as END what a training made of START."
        )


def check_computation(start: PreTrainedModel, end: DualEncoder) -> None:
    """
    Raises a `ValueError` if two models embed a text or an image otherwise, though they have the same weights: their
    configurations differ in what no weights show, such as the number of attention heads. Then nothing that lies
    between them is a mixture of both.

    Args:
        start (`PreTrainedModel`): The first model, in evaluation mode.
        end ([`DualEncoder`]): The second one, which has been given the weights of the first.
    """
    texts = end.preprocessing.tokenize(["A red boat lies at a pier."]).inputs
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images = end.preprocessing.prepare_images([Image.fromarray(pixels)])
    backend = PytorchBackend(start, end.family)
    with torch.inference_mode():
        text_embeds = end.normalize(backend.embed_texts(texts))
        image_embeds = end.normalize(backend.embed_images(images))
    text_cosine = torch.cosine_similarity(text_embeds.flatten(), end.embed_texts(texts).flatten(), dim=0)
    image_cosine = torch.cosine_similarity(image_embeds.flatten(), end.embed_images(images).flatten(), dim=0)
    # weights that are no numbers are named by who measures them
    if text_cosine < MIN_COSINE or image_cosine < MIN_COSINE:
        raise ValueError(
            f"START and END {end.name} compute otherwise from the same weights: their `{CONFIG_NAME}` differ, in the "
            "number of attention heads, say. Name a model, and what `lotlip train` made of it."
        )


def mix_weights(start: Weights, end: Weights, alpha: float) -> Weights:
    """
    Mixes the weights of two models.

    Args:
        start (`dict[str, torch.Tensor]`): Those of the first, of any shape `(...)`.
        end (`dict[str, torch.Tensor]`): Those of the second, of the same names and shapes.
        alpha (`float`): How much there is of the second, from 0 to 1.

    Returns:
        `dict[str, torch.Tensor]`: `(1 - alpha) start + alpha end`, exactly the ends at 0 and 1. What is no
        floating-point number, such as a counter, is that of the nearer end.
    """
    mixed = {}
    for name, tensor in start.items():
        if alpha in (0, 1) or not tensor.is_floating_point():
            mixed[name] = tensor if alpha < 0.5 else end[name]
        else:
            mixed[name] = torch.lerp(tensor.double(), end[name].double(), alpha).to(tensor.dtype)
    return mixed


def mix_dims(start: Sequence[int], end: Sequence[int], alpha: float) -> list[int]:
    """
    Returns the dims that the embeddings of a mixture may be cut to: those of the model at an end of the line, and
    between both those that both were trained for.

    Args:
        start (`Sequence[int]`): Those of the first model.
        end (`Sequence[int]`): Those of the second.
        alpha (`float`): How much there is of the second, from 0 to 1.
    """
    if alpha == 0:
        return list(start)
    if alpha == 1:
        return list(end)
    return [dim for dim in end if dim in start]

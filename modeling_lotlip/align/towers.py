# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Two encoders as models of the sentence-transformers library, and the one model that joins them."""

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from ..encoder.loading import LOADING_ERRORS, find_file
from ..hub import SENTENCE_TRANSFORMERS_MODULES


# Towers compute in float32, whatever their weights were saved in: features are computed once
FLOAT32 = {"dtype": "float32"}


def load_text_model(
    name: str, max_length: int | None = None, prompt: str | None = None, device: str | None = None
) -> SentenceTransformer:
    """
    Loads a text encoder as the sentence-transformers library does: one of its own models, or an encoder of
    transformers, of which it takes the mean of the tokens.

    Args:
        name (`str`):
            A Hub id or a folder.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens. Default: the limit of the model.
        prompt (`str`, *optional*):
            What comes before each text, in training and in every use. Default: the default prompt of the model.
        device (`str`, *optional*):
            Where it computes. Default: the library's choice.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    try:
        model = SentenceTransformer(name, device=device, model_kwargs=FLOAT32)
    except LOADING_ERRORS as error:
        raise ValueError(f"`--text_model_name_or_path {name}` cannot be used: {error}") from error
    if max_length is not None:
        model.max_seq_length = max_length
    if prompt is not None:
        model.prompts = {"text": prompt}
        model.default_prompt_name = "text"
    return model


def load_vision_model(name: str, device: str | None = None) -> SentenceTransformer:
    """
    Loads an image encoder: a model of the sentence-transformers library, with its own modules, or one of transformers,
    of which an image is `[CLS]` and the mean of all states, one after another. Of a dual encoder it is what that gives
    for an image.

    Args:
        name (`str`): A Hub id or a folder.
        device (`str`, *optional*): Where it computes. Default: the library's choice.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    try:
        if find_file(name, SENTENCE_TRANSFORMERS_MODULES) is not None:
            return SentenceTransformer(name, device=device, model_kwargs=FLOAT32)
        transformer = Transformer(name, model_kwargs=FLOAT32)
    except LOADING_ERRORS as error:
        raise ValueError(f"`--vision_model_name_or_path {name}` cannot be used: {error}") from error
    modules = [transformer]
    if transformer.module_output_name == "token_embeddings":
        modules.append(Pooling(transformer.get_embedding_dimension(), pooling_mode=("cls", "mean")))
    return SentenceTransformer(modules=modules, device=device)


def list_modules(model: SentenceTransformer) -> list[nn.Module]:
    """Lists the modules of a model, without a `Normalize` at the end, which follows the heads instead."""
    modules = list(model.children())
    if isinstance(modules[-1], Normalize):
        modules.pop()
    return modules


def without_normalize(model: SentenceTransformer) -> SentenceTransformer:
    """Returns a model of the same modules and prompts that gives the features that heads are trained on."""
    return SentenceTransformer(
        modules=list_modules(model),
        device=str(model.device),
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
    ).eval()


def join_models(
    text_model: SentenceTransformer,
    vision_model: SentenceTransformer,
    text_head: list[Dense],
    image_head: list[Dense],
) -> SentenceTransformer:
    """
    Returns one model of two: a `Router` with the modules and the head of each, and `Normalize`. It shares the modules
    of both, and has the prompts of the text model.

    Args:
        text_model (`SentenceTransformer`): The text encoder.
        vision_model (`SentenceTransformer`): The image encoder.
        text_head (`list[Dense]`): What follows the text encoder; nothing where it keeps its embeddings.
        image_head (`list[Dense]`): What follows the image encoder.
    """
    router = Router(
        {
            "text": [*list_modules(text_model), *text_head],
            "image": [*list_modules(vision_model), *image_head],
        },
        route_mappings={(None, "text"): "text", (None, "image"): "image"},
        default_route="text",
    )
    return SentenceTransformer(
        modules=[router, Normalize()],
        device=str(text_model.device),
        prompts=text_model.prompts,
        default_prompt_name=text_model.default_prompt_name,
        similarity_fn_name="cosine",
    ).eval()


def make_dense(linear: nn.Linear, activation: nn.Module | None = None) -> Dense:
    """Returns a linear layer as a `Dense`, with an activation after it or none."""
    dense = Dense(
        linear.in_features,
        linear.out_features,
        activation_function=nn.Identity() if activation is None else activation,
    )
    with torch.no_grad():
        dense.linear.weight.copy_(linear.weight)
        dense.linear.bias.copy_(linear.bias)
    return dense

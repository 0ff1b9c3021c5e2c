# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
What a dual encoder attends to in a text, and what its similarities depend on in texts and images.

Gradients are taken with respect to activations only, so that the towers may be locked and no weight gets one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


# ---------------------------------------------------------------------------------------------------------------------
# Attention


def attention_rollout(attentions: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """
    How much of each input is in each output of a stack of layers, if attention and the residual connection mix them
    half and half (Abnar & Zuidema, 2020, https://arxiv.org/abs/2005.00928).

    Args:
        attentions (`tuple[torch.Tensor, ...]` of shape `(batch_size, heads, length, length)` each):
            The attention of every layer, the first one first.

    Returns:
        `torch.Tensor` of shape `(batch_size, length, length)`: for each output position the shares of the inputs,
        whose sum is 1.

    Example:

    ```python
    >>> import torch
    >>> from relevance import attention_rollout

    >>> uniform = torch.full((1, 1, 2, 2), 0.5)
    >>> attention_rollout((uniform, uniform))
    tensor([[[0.6250, 0.3750],
             [0.3750, 0.6250]]])
    ```"""
    rollout = identity_like(attentions[0])
    for attention in attentions:
        rollout = (attention.float().mean(dim=1) + identity_like(attention)) / 2 @ rollout
    return rollout


def gradient_weighted_rollout(
    attentions: tuple[torch.Tensor, ...], gradients: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """
    The relevance of each input for each output of a stack of self-attention layers: attention weighted with its
    gradient, where that is positive, added up over the layers (Chefer et al., 2021,
    https://arxiv.org/abs/2103.15679, equations 5 and 6).

    Args:
        attentions (`tuple[torch.Tensor, ...]` of shape `(batch_size, heads, length, length)` each):
            The attention of every layer, the first one first.
        gradients (`tuple[torch.Tensor, ...]` of shape `(batch_size, heads, length, length)` each):
            The gradients of what is explained with respect to them.

    Returns:
        `torch.Tensor` of shape `(batch_size, length, length)`: not negative; 0 for an input that is never attended to.
    """
    relevance = identity_like(attentions[0])
    for attention, gradient in zip(attentions, gradients):
        weighted = (attention * gradient).float().clamp(min=0).mean(dim=1)
        relevance = relevance + weighted @ relevance
    return relevance


def identity_like(attention: torch.Tensor) -> torch.Tensor:
    """(batch, heads, length, length) -> identities (batch, length, length) in float32"""
    return torch.eye(attention.shape[-1], device=attention.device).expand(attention.shape[0], -1, -1)


def check_attentions(attentions: tuple | None) -> None:
    """Raises a `ValueError` if the attention was not computed."""
    if not attentions or attentions[0] is None:
        raise ValueError("The model keeps no attention: call `model.set_attn_implementation('eager')` before.")


# ---------------------------------------------------------------------------------------------------------------------
# Towers


def input_embeddings(model: PreTrainedModel, tower: str) -> nn.Module:
    """
    The layer of the `"text"` or `"vision"` tower of a dual encoder that embeds tokens or patches.

    Raises:
        `ValueError`: if there is no such tower, or it has none.
    """
    try:
        return getattr(model, f"{tower}_model").get_input_embeddings()
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(f"{type(model).__name__} has no {tower} tower with embeddings of its inputs.") from error


@contextmanager
def gradients_from(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it gradients reach the outputs of `module`, which are put into the list, and nothing before them."""
    outputs = []

    def detach(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = module.register_forward_hook(detach)
    try:
        with torch.enable_grad():
            yield outputs
    finally:
        handle.remove()


def similarity_of_pairs(features: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of features (batch, dim) with embeddings of the other tower (batch, dim): (batch,)"""
    embeds = embeds.to(features.device, torch.float32)
    return nn.functional.cosine_similarity(features.float(), embeds, dim=-1)


# ---------------------------------------------------------------------------------------------------------------------
# Over the text


def sub_caption_numbers(input_ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int | None]:
    """
    The sub-caption that each token of a text is in, by number.

    Args:
        input_ids (`list[int]`):
            The tokens of sub-captions joined by [`join_sub_captions`]. Between them stands a full stop, or what
            LoTLIP's tokenizer makes of it, a `[SEP]`, which belongs to the one before it.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer.

    Returns:
        `list[int | None]`: None for the special tokens around the text.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTokenizer
    >>> from relevance import sub_caption_numbers

    >>> tokenizer = LotlipTokenizer()
    >>> sub_caption_numbers(tokenizer("Sea. Sky")["input_ids"], tokenizer)
    [None, 0, 0, 1, 1]
    ```"""
    around = set(tokenizer.all_special_tokens) - {tokenizer.unk_token, tokenizer.sep_token}
    numbers, number = [], 0
    for token in tokenizer.convert_ids_to_tokens(input_ids):
        numbers.append(None if token in around else number)
        number += token == tokenizer.sep_token or display_token(token) == "."
    return numbers


def display_token(token: str) -> str:
    """A token of any tokenizer without its marks of where words begin, continue or end."""
    return token.removeprefix("##").removesuffix("</w>").lstrip("\u2581\u0120")


@torch.no_grad()
def token_attention(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    What `[CLS]` and each corner token of a LoTLIP model attend to: the mean over the heads.

    Args:
        model (`PreTrainedModel`):
            A LoTLIP model with `attn_implementation="eager"`.
        inputs (`dict[str, torch.Tensor]`):
            `input_ids` and `attention_mask` (batch_size, length).

    Returns:
        `dict[str, torch.Tensor]`: `last_layer`, the attention of the last layer, and `rollout`, the
        [`attention_rollout`] of all, each of shape `(batch_size, 1 + num_corner_tokens, length)`: `[CLS]` first. What
        lacks to a sum of 1 is the share of the corner tokens; under the attention mask, of the corner token itself.

    Raises:
        `ValueError`: if the model is no LoTLIP, or keeps no attention.
    """
    if not hasattr(model.config.get_text_config(), "num_corner_tokens"):
        raise ValueError(
            f"{type(model).__name__} is no LoTLIP: it has neither `[CLS]` nor corner tokens in its texts."
        )
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    outputs = model.get_text_features(**inputs, output_corner_tokens=True, output_attentions=True)
    check_attentions(outputs.attentions)
    num_corners = 0 if outputs.corner_pooler_output is None else outputs.corner_pooler_output.shape[1]
    attentions = {
        "last_layer": outputs.attentions[-1].float().mean(dim=1),
        "rollout": attention_rollout(outputs.attentions),
    }
    queries = {name: attention[:, : num_corners + 1] for name, attention in attentions.items()}
    return {name: torch.cat([rows[..., :1], rows[..., num_corners + 1 :]], dim=-1) for name, rows in queries.items()}


def token_relevance(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], image_embeds: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Gradient times input (Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713) over the tokens: how much each word
    embedding, to first order, contributes to the similarity of a text with an image, or to the length of the
    embedding.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        inputs (`dict[str, torch.Tensor]`):
            What its tokenizer returns, `input_ids` (batch_size, length) among it.
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`, *optional*):
            The image embeddings to whose cosine similarity with the text embeddings tokens contribute. Without them it
            is the length of the text embedding before it is normalised: what it depends on, whatever the image.

    Returns:
        `torch.Tensor` of shape `(batch_size, length)`: negative where a token takes away. For a model that is linear
        in the word embeddings the sum is the whole.
    """
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    with gradients_from(input_embeddings(model, "text")) as outputs:
        features = model.get_text_features(**inputs).pooler_output
        if image_embeds is None:
            score = features.float().norm(dim=-1)
        else:
            score = similarity_of_pairs(features, image_embeds)
        (gradient,) = torch.autograd.grad(score.sum(), outputs)
    return (gradient * outputs[0]).detach().float().sum(dim=-1)


# ---------------------------------------------------------------------------------------------------------------------
# Over the image


def patch_grid(model: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[int, int]:
    """
    The rows and columns of patches of images (batch, channels, height, width).

    Raises:
        `ValueError`: if the image tower is not one of patches, or takes them one by one (NaFlex).
    """
    patch_size = getattr(model.config.vision_config, "patch_size", None)
    if patch_size is None or pixel_values.dim() != 4:
        raise ValueError(f"The image tower of {type(model).__name__} does not cut images of pixels into patches.")
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    return pixel_values.shape[2] // height, pixel_values.shape[3] // width


# How the relevance of patches is computed, in words that go on "the method is ..."
PATCH_METHODS = {
    "gradient_rollout": "attention weighted with its gradient, added up over the layers",
    "gradient_input": "gradient times input",
}


def patch_relevance(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    text_embeds: torch.Tensor,
    method: str = next(iter(PATCH_METHODS)),
) -> torch.Tensor:
    """
    How much each patch of images counts for their cosine similarity with texts, one text for each image.

    Args:
        model (`PreTrainedModel`):
            A dual encoder whose image tower cuts images into patches; for `"gradient_rollout"` with
            `attn_implementation="eager"`.
        inputs (`dict[str, torch.Tensor]`):
            What its image processor returns, `pixel_values` (batch_size, channels, height, width) among it.
        text_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            The embeddings of the texts.
        method (`str`, *optional*):
            A key of `PATCH_METHODS`: `"gradient_rollout"` is [`gradient_weighted_rollout`], of which the row of the
            class token is taken, or the mean of all rows where there is none; `"gradient_input"` gradient times input
            (Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713) over the patch embeddings.

    Returns:
        `torch.Tensor` of shape `(batch_size, rows, columns)`: in float32, not negative for `"gradient_rollout"`.

    Raises:
        `ValueError`: if there is no such method, the image tower has no patches, or the model keeps no attention.
    """
    if method not in PATCH_METHODS:
        raise ValueError(f"`method` must be one of {list(PATCH_METHODS)}, got {method!r}.")
    rows, columns = patch_grid(model, inputs["pixel_values"])
    inputs = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }
    with gradients_from(input_embeddings(model, "vision")) as outputs:
        features = model.get_image_features(**inputs, output_attentions=method == "gradient_rollout")
        score = similarity_of_pairs(features.pooler_output, text_embeds).sum()
        if method == "gradient_input":
            (gradient,) = torch.autograd.grad(score, outputs)
            product = (gradient * outputs[0]).detach().float()
            # a convolution gives (batch, dim, rows, columns), a linear layer (batch, patches, dim)
            return product.sum(dim=1) if product.dim() == 4 else product.sum(dim=-1).unflatten(1, (rows, columns))
        check_attentions(features.attentions)
        gradients = torch.autograd.grad(score, features.attentions)
    relevance = gradient_weighted_rollout(tuple(attention.detach() for attention in features.attentions), gradients)
    num_before = relevance.shape[-1] - rows * columns  # class and register tokens
    relevance = relevance[:, 0] if num_before > 0 else relevance.mean(dim=1)
    return relevance[:, num_before:].unflatten(1, (rows, columns))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Dual encoders that differ from LoTLIP in how an image and a text are compared: with a bias, for the sigmoid loss of
SigLIP, or token by token, as in FILIP. Each has a `model_type` of its own.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn.functional import normalize
from transformers import initialization as init
from transformers.utils import can_return_tuple
from transformers.utils.generic import maybe_autocast

from .configuration_lotlip import LotlipConfig
from .modeling_lotlip import LotlipModel, LotlipOutput


@strict
class LotlipSigmoidConfig(LotlipConfig):
    r"""
    Configuration of a [`LotlipSigmoidModel`], otherwise that of a [`LotlipModel`].

    Args:
        logit_scale_init_value (`float`, *optional*, defaults to 2.3026):
            Initial value of `logit_scale`: ln 10.
        logit_bias_init_value (`float`, *optional*, defaults to -10.0):
            Initial value of `logit_bias`.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipSigmoidConfig

    >>> LotlipSigmoidConfig().model_type
    'lotlip_siglip'
    ```"""

    # the zero-shot pipeline of transformers computes a sigmoid where a model type has "siglip" in it
    model_type = "lotlip_siglip"

    logit_scale_init_value: float | int = 2.302585092994046
    logit_bias_init_value: float | int = -10.0


class LotlipSigmoidModel(LotlipModel):
    """
    [`LotlipModel`] of single captions with a `logit_bias`, which is added to the logits: their sigmoid is the
    probability that image and text belong together (Zhai et al., 2023, https://arxiv.org/abs/2303.15343).
    The zero-shot pipeline truncates labels at 64 tokens, [`DualEncoder.classify`] at the limit of the model.

    Args:
        config ([`LotlipSigmoidConfig`]):
            The sizes of the model.

    Raises:
        `ValueError`: if `return_loss` is asked for: its loss is `sigmoid_loss`.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipSigmoidConfig, LotlipSigmoidModel

    >>> one_layer = {"num_hidden_layers": 1}
    >>> LotlipSigmoidModel(LotlipSigmoidConfig(text_config=one_layer, vision_config=one_layer)).logit_bias.item()
    -10.0
    ```"""

    config: LotlipSigmoidConfig

    def __init__(self, config: LotlipSigmoidConfig):
        super().__init__(config)
        self.logit_bias = nn.Parameter(torch.tensor(float(config.logit_bias_init_value)))

        # Initialize weights and apply final processing
        self.post_init()

    def _init_weights(self, module):
        """Initialize the weights"""
        super()._init_weights(module)
        # not there yet in the first pass
        if isinstance(module, LotlipSigmoidModel) and hasattr(module, "logit_bias"):
            init.constant_(module.logit_bias, self.config.logit_bias_init_value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> LotlipOutput:
        """
        Embeds texts and images and compares them: as [`LotlipModel.forward`], and adds the bias to the logits.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
                The texts, padded on the right.
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The images, as the image processor makes them.
            attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
                1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*):
                Refused if it is true.
        """
        _refuse_loss(return_loss, "sigmoid_loss")
        outputs = super().forward(input_ids, pixel_values, attention_mask, return_dict=True, **kwargs)
        outputs.logits_per_text = outputs.logits_per_text + self.logit_bias.to(outputs.logits_per_text)
        outputs.logits_per_image = outputs.logits_per_text.t()
        return outputs


@strict
class LotlipTokenWiseConfig(LotlipConfig):
    r"""
    Configuration of a [`LotlipTokenWiseModel`]: that of a [`LotlipModel`] without corner tokens.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTokenWiseConfig

    >>> LotlipTokenWiseConfig(text_config={"num_corner_tokens": 0}).model_type
    'lotlip_token_wise'
    ```"""

    model_type = "lotlip_token_wise"


def late_interaction(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """
    Compares sequences of tokens: the mean over a query's tokens of the dot product with the key's token that is most
    similar (Yao et al., 2021, https://arxiv.org/abs/2111.07783, equations 4 and 5). A token of zeros is
    padding; a sequence of nothing else is absent, and its similarities are 0.

    Args:
        queries (`torch.Tensor` of shape `(..., queries, query_length, dim)`):
            Normalized embeddings of tokens.
        keys (`torch.Tensor` of shape `(..., keys, key_length, dim)`):
            Normalized embeddings of tokens.

    Returns:
        `torch.Tensor` of shape `(..., queries, keys)`: the similarities, in float32.
    """
    is_query_token = (queries != 0).any(dim=-1)
    is_key_token = (keys != 0).any(dim=-1)
    with maybe_autocast(queries.device.type, enabled=False):
        products = torch.matmul(queries.float().flatten(-3, -2), keys.float().flatten(-3, -2).mT)
    products = products.unflatten(-1, keys.shape[-3:-1])
    if not is_key_token.all():
        products = products.masked_fill(~is_key_token[..., None, :, :], torch.finfo(products.dtype).min)
    # of each token of a query, for each key: shape (..., queries, query_length, keys)
    similarities = products.amax(dim=-1)
    similarities = similarities.masked_fill(~is_key_token.any(dim=-1)[..., None, :], 0)
    similarities = similarities.unflatten(-2, queries.shape[-3:-1])
    similarities = similarities.masked_fill(~is_query_token[..., None], 0)
    return similarities.sum(dim=-2) / is_query_token.sum(dim=-1, keepdim=True).clamp(min=1)


class LotlipTokenWiseModel(LotlipModel):
    """
    The dual encoder with late interaction (Yao et al., 2021, https://arxiv.org/abs/2111.07783): it embeds each token
    of a text and of an image, and compares them by `late_interaction`. `text_embeds` (texts, length, dim), zero at
    padding, and `image_embeds` (images, image_length, dim) are those of all tokens, `logits_per_image` are of images
    to texts. Tokens of texts go through BERT's pooler and the projection, as `[CLS]` alone in [`LotlipModel`].

    Args:
        config ([`LotlipTokenWiseConfig`]):
            The sizes of the model.

    Raises:
        `ValueError`: if the configuration has corner tokens, or `return_loss` is asked for.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip import LotlipTokenWiseConfig, LotlipTokenWiseModel

    >>> one_layer = {"num_hidden_layers": 1}
    >>> config = LotlipTokenWiseConfig(text_config=one_layer | {"num_corner_tokens": 0}, vision_config=one_layer)
    >>> model = LotlipTokenWiseModel(config).eval()
    >>> input_ids = torch.tensor([[101, 1037, 2417, 4049, 102]])
    >>> with torch.inference_mode():
    ...     outputs = model(input_ids=input_ids, pixel_values=torch.randn(2, 3, 224, 224))
    >>> outputs.logits_per_image.shape, outputs.text_embeds.shape
    (torch.Size([2, 1]), torch.Size([1, 5, 768]))
    ```"""

    config: LotlipTokenWiseConfig

    def __init__(self, config: LotlipTokenWiseConfig):
        super().__init__(config)
        num_corner_tokens = config.text_config.num_corner_tokens
        if num_corner_tokens > 0:
            raise ValueError(
                f"The model has {num_corner_tokens} corner tokens, but a model that compares all "
                "tokens of a text has no use for them: make one of two towers, with `num_corner_tokens=0` "
                "(`--text_model_name_or_path`, `--num_corner_tokens 0`)."
            )

    def get_text_features(self, *args, **kwargs):
        """Raises a `ValueError`: a token-wise model embeds tokens, not whole texts or images."""
        raise ValueError("A token-wise model has no single embedding: call `get_{text,image}_token_embeds`.")

    get_image_features = get_text_features
    embed_images = get_text_features
    embed_captions = get_text_features

    def get_text_token_embeds(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        """
        Embeds each token of texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts, padded on the right.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.

        Returns:
            `torch.Tensor` of shape `(texts, length, dim)`: normalized in float32, zero at padding.
        """
        # of the text tower, which is not called without a mask
        self.text_model.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        present = attention_mask.bool()
        # an absent text is computed as if it were there: its result is finite, and dropped below
        attention_mask = present.long().masked_fill(~present.any(dim=1, keepdim=True), 1)
        hidden_states = self.text_model(input_ids, attention_mask, **kwargs).last_hidden_state
        embeds = self.text_projection(self.text_model.pooler(hidden_states))
        return normalize(embeds.float(), dim=-1).masked_fill(~present[..., None], 0)

    def get_image_token_embeds(self, pixel_values: torch.Tensor, **kwargs) -> torch.Tensor:
        """
        Embeds `[CLS]` and each patch of images.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, num_channels, height, width)`):
                The images, as the image processor makes them.

        Returns:
            `torch.Tensor` of shape `(images, image_length, dim)`: normalized in float32.
        """
        last_hidden_state = self.vision_model(pixel_values, **kwargs).last_hidden_state
        return normalize(self.visual_projection(last_hidden_state).float(), dim=-1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs,
    ) -> LotlipOutput:
        """
        Embeds the tokens of texts and images, and compares them.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts, padded on the right.
            pixel_values (`torch.Tensor` of shape `(images, num_channels, height, width)`):
                The images, as the image processor makes them.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*):
                Refused if it is true.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
                Whether to interpolate the position embeddings, for images of another size.
        """
        _refuse_loss(return_loss, "contrastive_loss")
        image_options = {"interpolate_pos_encoding": interpolate_pos_encoding}
        image_embeds = self.get_image_token_embeds(pixel_values, **image_options)
        text_embeds = self.get_text_token_embeds(input_ids, attention_mask, **kwargs).to(image_embeds.device)
        scale = self.logit_scale.float().exp().to(image_embeds.device)
        return LotlipOutput(
            logits_per_image=scale * late_interaction(image_embeds, text_embeds),
            logits_per_text=scale * late_interaction(text_embeds, image_embeds),
            text_embeds=text_embeds,
            image_embeds=image_embeds,
        )


def _refuse_loss(return_loss: bool | None, name: str) -> None:
    if return_loss:
        raise ValueError(
            "`return_loss=True` is for `LotlipModel`: the loss of this model is "
            f"`modeling_lotlip.losses.{name}`, which `lotlip train` takes."
        )


__all__ = ["LotlipSigmoidConfig", "LotlipSigmoidModel", "LotlipTokenWiseConfig", "LotlipTokenWiseModel"]

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Dual encoders that differ from LoTLIP in how an image and a text are compared: with a bias, for the sigmoid loss of
SigLIP, or token by token, as in FILIP. Each has a `model_type` of its own.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
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
    'lotlip_sigmoid'
    ```"""

    model_type = "lotlip_sigmoid"

    logit_scale_init_value: float | int = 2.302585092994046
    logit_bias_init_value: float | int = -10.0


class LotlipSigmoidModel(LotlipModel):
    """
    [`LotlipModel`] with a `logit_bias`, trained with the sigmoid loss (Zhai et al., 2023,
    https://arxiv.org/abs/2303.15343): the sigmoid of a logit is the probability that an image and a text belong
    together.

    Args:
        config ([`LotlipSigmoidConfig`]):
            The sizes of the model.

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
        if isinstance(module, LotlipSigmoidModel) and hasattr(module, "logit_bias"):  # not yet in the first pass
            init.constant_(module.logit_bias, self.config.logit_bias_init_value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipOutput:
        """
        As [`LotlipModel`] does, with the bias added to the logits.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                The images.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*):
                Refused.

        Raises:
            `ValueError`: if `return_loss` is asked for.
        """
        _refuse_loss(return_loss, "sigmoid_loss")
        outputs = super().forward(input_ids, pixel_values, attention_mask, **kwargs)
        outputs.logits_per_text = outputs.logits_per_text + self.logit_bias.to(outputs.logits_per_text)
        outputs.logits_per_image = outputs.logits_per_text.t()
        return outputs


@strict
class LotlipTokenWiseConfig(LotlipConfig):
    r"""
    Configuration of a [`LotlipTokenWiseModel`], whose text tower has no corner tokens, otherwise that of a
    [`LotlipModel`].

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTokenWiseConfig

    >>> LotlipTokenWiseConfig(text_config={"num_corner_tokens": 0}).model_type
    'lotlip_token_wise'
    ```"""

    model_type = "lotlip_token_wise"


def token_similarities(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Similarities of images and texts by late interaction (Yao et al., 2021, https://arxiv.org/abs/2111.07783, equations
    4 and 5): the mean over an image's tokens of the similarity with the text's token that is most similar to each; and
    the mean over a text's tokens of that with the image's.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, image_length, dim)`):
            Normalised features of all tokens of images.
        text_embeds (`torch.Tensor` of shape `(texts, text_length, dim)`):
            Normalised features of all tokens of texts.
        text_mask (`torch.Tensor` of shape `(texts, text_length)`):
            False for padding.

    Returns:
        `(torch.Tensor, torch.Tensor)`, both of shape `(images, texts)`: image to text, and text to image, in float32,
        under autocast too. They are of no use where a text has no token.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.modeling_variants_lotlip import token_similarities

    >>> image, text = torch.eye(3)[None], torch.eye(3)[None, :2]
    >>> token_similarities(image, text, torch.ones(1, 2, dtype=torch.bool))  # no token of the text is like the third
    (tensor([[0.6667]]), tensor([[1.]]))
    ```"""
    with maybe_autocast(image_embeds.device.type, enabled=False):
        similarities = torch.einsum("ipd,tqd->iptq", image_embeds.float(), text_embeds.float())
    of_tokens = similarities.masked_fill(~text_mask, -2.0)  # below any cosine
    image_to_text = of_tokens.amax(dim=3).mean(dim=1)
    text_to_image = (similarities.amax(dim=1) * text_mask).sum(dim=2) / text_mask.sum(dim=1).clamp(min=1)
    return image_to_text, text_to_image


class LotlipTokenWiseModel(LotlipModel):
    """
    The dual encoder with late interaction (Yao et al., 2021, https://arxiv.org/abs/2111.07783): it embeds each token
    of a text and of an image, and compares them by `token_similarities`.

    Args:
        config ([`LotlipTokenWiseConfig`]):
            The sizes of the model.

    Raises:
        `ValueError`: if the configuration has corner tokens.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip import LotlipTokenWiseConfig, LotlipTokenWiseModel

    >>> config = LotlipTokenWiseConfig(text_config={"num_corner_tokens": 0, "num_hidden_layers": 1})
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
                f"The model has {num_corner_tokens} corner tokens, but a model that compares all tokens of a text has "
                "no use for them: make it without (`--num_corner_tokens 0`)."
            )

    def get_text_features(self, *args, **kwargs):
        """Refused: see [`~LotlipTokenWiseModel.get_text_token_embeds`]."""
        raise ValueError("A token-wise model has no single embedding of a text: call `get_text_token_embeds`.")

    def get_image_features(self, *args, **kwargs):
        """Refused: see [`~LotlipTokenWiseModel.get_image_token_embeds`]."""
        raise ValueError("A token-wise model has no single embedding of an image: call `get_image_token_embeds`.")

    def get_text_token_embeds(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        """
        Normalised embeddings of all tokens of texts, `[CLS]` and `[SEP]` too, zero at padding, (texts, length, dim),
        in float32. They go through BERT's pooler and the projection, as `[CLS]` alone does in [`LotlipModel`].

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding. A text without any token has zero embeddings.

        Returns:
            `torch.Tensor` of shape `(texts, length, dim)`
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        present = attention_mask.bool()
        # an absent text is computed as if it were there: its result is finite, and dropped below
        attention_mask = attention_mask.masked_fill(~present.any(dim=1, keepdim=True), 1)
        hidden_states = self.text_model(input_ids, attention_mask, **kwargs).last_hidden_state
        embeds = self.text_projection(self.text_model.pooler(hidden_states))
        return nn.functional.normalize(embeds.float(), dim=-1).masked_fill(~present[..., None], 0)

    def get_image_token_embeds(
        self, pixel_values: torch.Tensor | None = None, last_hidden_state: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        """
        Normalised embeddings of `[CLS]` and all patches, in float32.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`, *optional*):
                The images.
            last_hidden_state (`torch.Tensor` of shape `(images, length, hidden_size)`, *optional*):
                The output of the image tower, computed before, in place of `pixel_values`.

        Returns:
            `torch.Tensor` of shape `(images, length, dim)`
        """
        if last_hidden_state is None:
            last_hidden_state = self.vision_model(pixel_values, **kwargs).last_hidden_state
        return nn.functional.normalize(self.visual_projection(last_hidden_state.to(self.dtype)).float(), dim=-1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipOutput:
        """
        Similarities of texts (texts, length) with images as `logits_per_image` (images, texts) and `logits_per_text`,
        and the embeddings of all tokens: `text_embeds` (texts, length, dim), zero at padding, and `image_embeds`
        (images, image_length, dim).

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`):
                The texts.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
                The images.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
                1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*):
                Refused.

        Raises:
            `ValueError`: if `return_loss` is asked for.
        """
        _refuse_loss(return_loss, "token_wise_loss")
        image_embeds = self.get_image_token_embeds(pixel_values)
        text_embeds = self.get_text_token_embeds(input_ids, attention_mask, **kwargs).to(image_embeds.device)
        scale = self.logit_scale.float().exp().to(image_embeds.device)
        to_text, to_image = token_similarities(image_embeds, text_embeds, (text_embeds != 0).any(dim=-1))
        return LotlipOutput(
            logits_per_image=scale * to_text,
            logits_per_text=scale * to_image.t(),
            text_embeds=text_embeds,
            image_embeds=image_embeds,
        )


def _refuse_loss(return_loss: bool | None, name: str) -> None:
    if return_loss:
        raise ValueError(
            f"`return_loss=True` is for `LotlipModel`: the loss of this model is `modeling_lotlip.losses.{name}`, "
            "which `lotlip train` takes."
        )


__all__ = ["LotlipSigmoidConfig", "LotlipSigmoidModel", "LotlipTokenWiseConfig", "LotlipTokenWiseModel"]

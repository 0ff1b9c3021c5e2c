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
The dual encoder with late interaction: texts and images are compared token by token, as in FILIP.

Yao et al., 2021, FILIP: Fine-grained Interactive Language-Image Pre-Training, https://arxiv.org/abs/2111.07783.
"""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.generic import maybe_autocast

from .configuration_lotlip import LotlipConfig
from .modeling_lotlip import LotlipModel, LotlipOutput, _sort_captions


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
    >>> from modeling_lotlip.modeling_token_wise_lotlip import token_similarities

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


class LotlipTokenMask(nn.Module):
    """
    In a `MultiVectorEncoder` of sentence-transformers: all tokens of an image count. Of a text that is the tokenizer's
    `attention_mask`; for images nothing there makes one. It has no parameters, and nothing to save.
    """

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if "attention_mask" not in features:
            tokens = features["token_embeddings"]
            features["attention_mask"] = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return features

    def save(self, output_path: str, **kwargs):
        pass

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs) -> "LotlipTokenMask":
        return cls()


@auto_docstring(
    custom_intro="""
    The dual encoder with late interaction: it has an embedding of each token instead of one of a text or an
    image.
    """
)
class LotlipTokenWiseModel(LotlipModel):
    is_token_wise = True

    def __init__(self, config: LotlipConfig):
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
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        interpolate_pos_encoding: bool = False,
        short_input_ids: torch.LongTensor | None = None,
        short_attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        vision_pooler_output: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipOutput:
        r"""
        short_input_ids (`torch.LongTensor` of shape `(batch_size, short_sequence_length)`, *optional*):
            The short captions, padded to a length of their own.
        short_attention_mask (`torch.Tensor` of shape `(batch_size, short_sequence_length)`, *optional*):
            1 for tokens, 0 for padding.
        vision_pooler_output (`torch.Tensor` of shape `(batch_size, image_length, hidden_size)`, *optional*):
            The output of the image tower for all tokens, computed before, in place of `pixel_values`. It is also the
            `pooler_output` of the output's `vision_model_output`.

        Texts are given as in [`LotlipModel`]. `text_embeds` of the output are of shape `(batch_size, text_length,
        dim)`, or `(batch_size, captions, text_length, dim)` with several captions for each image, zero at padding, and
        `image_embeds` of shape `(batch_size, image_length, dim)`. The loss is a function of these:
        `modeling_lotlip.losses.token_wise_contrastive_loss`. In training mode there are no logits, which need the
        similarities of all tokens of the batch at once.

        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipConfig, LotlipTokenWiseModel

        >>> config = LotlipConfig(token_wise=True, text_config={"num_corner_tokens": 0, "num_hidden_layers": 1})
        >>> model = LotlipTokenWiseModel(config).eval()
        >>> input_ids = torch.tensor([[101, 1037, 2417, 4049, 102]])

        >>> with torch.inference_mode():
        ...     outputs = model(input_ids=input_ids, pixel_values=torch.randn(2, 3, 224, 224))
        >>> outputs.logits_per_image.shape, outputs.text_embeds.shape
        (torch.Size([2, 1]), torch.Size([1, 5, 768]))
        ```"""
        short_inputs, long_inputs, num_long_captions = _sort_captions(
            input_ids, attention_mask, token_type_ids, position_ids, short_input_ids, short_attention_mask
        )
        if vision_pooler_output is None:
            vision_pooler_output = self.vision_model(
                pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs
            ).last_hidden_state
        image_embeds = self.get_image_token_embeds(last_hidden_state=vision_pooler_output)

        captions = []
        if short_inputs is not None:
            captions.append(self.get_text_token_embeds(**short_inputs, **kwargs)[:, None])
        if long_inputs is not None:
            long_embeds = self.get_text_token_embeds(**long_inputs, **kwargs)
            captions.append(long_embeds.unflatten(0, (-1, num_long_captions)))
        length = max(embeds.shape[2] for embeds in captions)
        captions = [nn.functional.pad(embeds, (0, 0, 0, length - embeds.shape[2])) for embeds in captions]
        text_embeds = torch.cat(captions, dim=1)  # shape = (batch_size, captions, length, dim)

        logits_per_image, logits_per_text = None, None
        if not self.training:
            first_embeds = text_embeds[:, 0].to(image_embeds.device)
            similarities = token_similarities(image_embeds, first_embeds, (first_embeds != 0).any(dim=-1))
            scale = self.logit_scale.float().exp()
            bias = self.logit_bias.float() if self.logit_bias is not None else 0.0
            logits_per_image, logits_per_text = (scale * each + bias for each in similarities)
            logits_per_text = logits_per_text.t()

        return LotlipOutput(
            logits_per_image=logits_per_image,
            logits_per_text=logits_per_text,
            text_embeds=text_embeds if short_inputs is not None else text_embeds[:, 0],
            image_embeds=image_embeds,
            vision_model_output=BaseModelOutputWithPooling(pooler_output=vision_pooler_output),
        )


__all__ = ["LotlipTokenWiseModel"]

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
"""PyTorch LoTLIP model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple, torch_int
from transformers.utils.generic import maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .loading_lotlip import LotlipLoadingMixin
from .saving_lotlip import LotlipSavingMixin


MAX_LOGIT_SCALE = math.log(100)


def contrastive_loss(logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """
    Symmetric InfoNCE of each slot, over its pairs.

    Args:
        logits (`torch.Tensor` of shape `(slots, batch_size, batch_size)`):
            Scaled similarities; the diagonal holds the pairs that belong together.
        pairs (`torch.Tensor` of shape `(slots, batch_size)`):
            1 where the slot has this pair, 0 where its caption is absent.

    Returns:
        `torch.Tensor` of shape `(slots,)`: half the sum of the two cross entropies, averaged over the slot's pairs.
    """
    log_likelihood = logits.log_softmax(dim=-1) + logits.log_softmax(dim=-2)
    log_likelihood = log_likelihood.diagonal(dim1=-2, dim2=-1)  # shape = (slots, batch_size)
    return -0.5 * (log_likelihood * pairs).sum(dim=-1) / pairs.sum(dim=-1).clamp(min=1)


def sigmoid_loss(logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """
    Of every image and every text of a slot the answer yes or no: do they belong together? As in SigLIP (Zhai et al.,
    2023, https://arxiv.org/abs/2303.15343, equation 1).

    Args:
        logits (`torch.Tensor` of shape `(slots, batch_size, batch_size)`):
            Scaled similarities with the bias; the diagonal holds the pairs that belong together.
        pairs (`torch.Tensor` of shape `(slots, batch_size)`):
            1 where the slot has this pair, 0 where its caption is absent.

    Returns:
        `torch.Tensor` of shape `(slots,)`: the sum over all images and texts, by the number of the slot's pairs.
    """
    signs = 2 * torch.eye(logits.shape[-1], device=logits.device, dtype=logits.dtype) - 1
    losses = -nn.functional.logsigmoid(signs * logits).sum(dim=-1)
    return (losses * pairs).sum(dim=-1) / pairs.sum(dim=-1).clamp(min=1)


def image_text_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    present: torch.Tensor | None = None,
    logit_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    The loss of LoTLIP (Wu et al., 2024, https://arxiv.org/abs/2410.05249, section 3): every image is contrasted with
    each of its texts' features. A slot is one feature per image (the short caption's `[CLS]`, a long caption's `[CLS]`
    or one of its corner tokens); other slots are no negatives.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalised image features.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalised text features.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm).
        present (`torch.Tensor` of shape `(batch_size, slots)`, *optional*):
            False where an image lacks the caption of that slot: it is then neither positive nor negative there.
        logit_bias (`torch.Tensor` of shape `()`, *optional*):
            What is added to the scaled similarities. With it the loss of a slot is the sigmoid one, see
            `sigmoid_loss`.

    Returns:
        `torch.Tensor` of shape `()`: the mean over the slots that have at least two pairs; 0 if none has. It is
        computed in float32, under autocast too.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss

    >>> image_embeds = torch.eye(4)
    >>> text_embeds = image_embeds[:, None].expand(4, 3, 4)
    >>> round(image_text_contrastive_loss(image_embeds, text_embeds, torch.tensor(10.0)).item(), 6)
    0.000136
    ```"""
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)

    logits = compute_logits(text_embeds.transpose(0, 1), image_embeds, logit_scale, logit_bias)

    pairs = present.t()
    compared = pairs[:, :, None] & pairs[:, None, :]
    logits = logits.masked_fill(~compared, torch.finfo(logits.dtype).min)

    counted = (pairs.sum(dim=-1) > 1).to(logits.dtype)
    compute_losses = contrastive_loss if logit_bias is None else sigmoid_loss
    losses = compute_losses(logits, pairs.to(logits.dtype))
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def compute_logits(
    text_embeds: torch.Tensor,
    image_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Scaled similarities in float32, under autocast too.

    Args:
        text_embeds (`torch.Tensor` of shape `(..., texts, dim)`):
            Normalised text features.
        image_embeds (`torch.Tensor` of shape `(images, dim)`):
            Normalised image features.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm).
        logit_bias (`torch.Tensor` of shape `()`, *optional*):
            What is added.

    Returns:
        `torch.Tensor` of shape `(..., texts, images)`
    """
    with maybe_autocast(text_embeds.device.type, enabled=False):
        logits = torch.matmul(text_embeds.float(), image_embeds.float().t()) * logit_scale.float()
    return logits if logit_bias is None else logits + logit_bias.float()


def _normalize(tensor: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1 along the last dimension in float32, in operations that every exporter knows."""
    tensor = tensor.float()
    return tensor / tensor.pow(2).sum(dim=-1, keepdim=True).pow(0.5)


@auto_docstring(
    custom_intro="""
    Output of the text tower: that of any pooled encoder, and the corner tokens where they were computed.
    """
)
@dataclass
class LotlipBaseModelOutputWithPooling(BaseModelOutputWithPooling):
    r"""
    corner_hidden_states (`torch.Tensor` of shape `(batch_size, num_corner_tokens, hidden_size)`, *optional*):
        Hidden states of the corner tokens at the output of the last layer.
    corner_pooler_output (`torch.Tensor` of shape `(batch_size, num_corner_tokens, hidden_size)`, *optional*):
        Corner tokens after the pooler, and after the projection in the output of
        [`LotlipModel.get_text_features`].
    """

    corner_hidden_states: torch.Tensor | None = None
    corner_pooler_output: torch.Tensor | None = None


@auto_docstring(
    custom_intro="""
    Output of a text tower with a projection.
    """
)
@dataclass
class LotlipTextModelOutput(ModelOutput):
    r"""
    text_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`):
        The text embeddings: the projected pooler output of `[CLS]`, not normalised.
    corner_embeds (`torch.Tensor` of shape `(batch_size, num_corner_tokens, projection_dim)`, *optional*):
        The projected pooler output of the corner tokens, where they were computed.
    """

    text_embeds: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    corner_embeds: torch.Tensor | None = None


@auto_docstring(
    custom_intro="""
    Output of an image tower with a projection.
    """
)
@dataclass
class LotlipVisionModelOutput(ModelOutput):
    r"""
    image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`):
        The image embeddings: the final `[CLS]` state, projected where the configuration says so, not normalised.
    """

    image_embeds: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@auto_docstring
@dataclass
class LotlipOutput(ModelOutput):
    r"""
    loss (`torch.Tensor` of shape `()`, *optional*, returned when `return_loss` is `True`):
        Contrastive loss, or the sigmoid one of a model with a bias, the mean over the slots. Like the logits it is
        computed in float32, from embeddings normalised in float32, whatever the towers compute in.
    logits_per_image (`torch.Tensor` of shape `(image_batch_size, text_batch_size)`):
        Scaled cosine similarities of images and texts, and the bias of a model that has one; of the short captions
        where there are several for each image.
    logits_per_text (`torch.Tensor` of shape `(text_batch_size, image_batch_size)`):
        The transpose of `logits_per_image`.
    text_embeds (`torch.Tensor` of shape `(text_batch_size, dim)` or `(text_batch_size, slots, dim)`):
        Normalised text embeddings; with several captions for each image all slots: the short caption's `[CLS]`, then
        `[CLS]` and the corner tokens of each long caption. Zero where a caption is absent.
    image_embeds (`torch.Tensor` of shape `(image_batch_size, dim)`):
        Normalised image embeddings.
    text_model_output (`LotlipBaseModelOutputWithPooling`):
        The output of [`LotlipModel.get_text_features`]; with several captions for each image that of the long ones,
        `(batch_size * captions, ...)`.
    vision_model_output (`BaseModelOutputWithPooling`):
        The output of [`LotlipModel.get_image_features`].
    """

    loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_model_output: LotlipBaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any]:
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in self.values())


def _insert_corners(tokens: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Puts the corner tokens' values behind that of `[CLS]`: (batch, length, ...) -> (batch, length + corners, ...)"""
    return torch.cat([tokens[:, :1], corners, tokens[:, 1:]], dim=1)


def _sort_captions(
    input_ids: torch.LongTensor | None,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.LongTensor | None,
    position_ids: torch.LongTensor | None,
    short_input_ids: torch.LongTensor | None,
    short_attention_mask: torch.Tensor | None,
) -> tuple[dict[str, torch.Tensor] | None, dict[str, torch.Tensor] | None, int]:
    """
    Sorts the three forms of text that [`LotlipModel`] takes.

    Returns the text tower's inputs for the short captions (batch_size, length) and for the long ones (batch_size *
    captions, length), `None` where there are none, and the number of long captions of an image.
    """
    if input_ids is None and short_input_ids is None:
        raise ValueError("You have to specify `input_ids`, `short_input_ids`, or both.")
    short_inputs = {"input_ids": short_input_ids, "attention_mask": short_attention_mask}
    if short_input_ids is not None:
        if short_input_ids.dim() != 2:
            raise ValueError(
                "`short_input_ids` must be of shape (batch_size, sequence_length), got "
                f"{tuple(short_input_ids.shape)}."
            )
        if input_ids is None:
            return short_inputs, None, 0
        if input_ids.dim() != 3 or input_ids.shape[0] != short_input_ids.shape[0]:
            raise ValueError(
                f"Beside `short_input_ids` of shape {tuple(short_input_ids.shape)} the long captions in `input_ids` "
                f"must be of shape ({short_input_ids.shape[0]}, captions, sequence_length), got "
                f"{tuple(input_ids.shape)}."
            )

    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
        "position_ids": position_ids,
    }
    inputs = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    if input_ids.dim() != 3:
        return None, inputs, 1

    for name, tensor in inputs.items():
        if tensor.shape != input_ids.shape:
            raise ValueError(
                f"`{name}` must be of the shape of `input_ids`, {tuple(input_ids.shape)}, got {tuple(tensor.shape)}."
            )
    if short_input_ids is None:
        if input_ids.shape[1] == 0:
            raise ValueError(f"`input_ids` of shape {tuple(input_ids.shape)} hold no caption.")
        short_inputs = {name: tensor[:, 0] for name, tensor in inputs.items()}
        inputs = {name: tensor[:, 1:] for name, tensor in inputs.items()}
    num_long_captions = inputs["input_ids"].shape[1]
    if num_long_captions == 0:
        return short_inputs, None, 0
    return short_inputs, {name: tensor.flatten(0, 1) for name, tensor in inputs.items()}, num_long_captions


class LotlipTextEmbeddings(nn.Module):
    """Words, positions and token types as in BERT, and the corner tokens behind `[CLS]`."""

    def __init__(self, config: LotlipTextConfig):
        super().__init__()
        self.num_corner_tokens = config.num_corner_tokens
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.corner_tokens = (
            # CODEPATH: the released checkpoints have two, the LiT baseline (a plain BERT) has none
            nn.Parameter(torch.randn(config.num_corner_tokens, config.hidden_size))
            if config.num_corner_tokens > 0
            else None
        )

        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

        self.position_ids = nn.Buffer(
            torch.arange(config.max_position_embeddings).expand((1, -1)),
            persistent=False,
        )

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        with_corner_tokens: bool = False,
    ) -> torch.Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)

        batch_size, seq_length, _ = inputs_embeds.shape
        num_corner_tokens = self.num_corner_tokens
        max_seq_length = self.position_ids.shape[-1] - num_corner_tokens
        if position_ids is None:
            if seq_length > max_seq_length:
                raise ValueError(
                    f"The texts have {seq_length} tokens, but the position table ends at {max_seq_length}: "
                    f"`max_position_embeddings` less `num_corner_tokens` ({num_corner_tokens}). Truncate them."
                )
            position_ids = self.position_ids[:, :seq_length]
            # the positions between [CLS] and the text belong to the corner tokens, computed or not
            position_ids = torch.where(position_ids > 0, position_ids + num_corner_tokens, position_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)

        if with_corner_tokens:
            corner_tokens = self.corner_tokens.to(inputs_embeds.dtype).expand(batch_size, -1, -1)
            corner_position_ids = self.position_ids[:, 1 : num_corner_tokens + 1].expand(position_ids.shape[0], -1)
            inputs_embeds = _insert_corners(inputs_embeds, corner_tokens)
            position_ids = _insert_corners(position_ids, corner_position_ids)
            token_type_ids = _insert_corners(
                token_type_ids, token_type_ids.new_zeros(token_type_ids.shape[0], num_corner_tokens)
            )

        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings = embeddings + self.position_embeddings(position_ids)

        embeddings = self.layer_norm(embeddings)
        embeddings = self.dropout(embeddings)
        return embeddings


class LotlipVisionEmbeddings(nn.Module):
    """Patches, a class token and learned positions, as in ViT."""

    def __init__(self, config: LotlipVisionConfig):
        super().__init__()
        image_size, patch_size = config.image_size, config.patch_size
        self.image_size = tuple(image_size) if isinstance(image_size, (list, tuple)) else (image_size, image_size)
        self.patch_size = tuple(patch_size) if isinstance(patch_size, (list, tuple)) else (patch_size, patch_size)
        self.num_channels = config.num_channels
        self.grid_size = (self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1])

        self.patch_embedding = nn.Conv2d(
            in_channels=config.num_channels,
            out_channels=config.hidden_size,
            kernel_size=self.patch_size,
            stride=self.patch_size,
        )
        num_patches = self.grid_size[0] * self.grid_size[1]
        self.class_embedding = nn.Parameter(torch.randn(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.randn(1, num_patches + 1, config.hidden_size))
        self.patch_dropout = config.patch_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def interpolate_pos_encoding(self, height: int, width: int) -> torch.Tensor:
        """Positions for images of another size in pixels: the grid of patch positions, resampled bicubically."""
        class_position, patch_positions = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        patch_positions = patch_positions.unflatten(1, self.grid_size).permute(0, 3, 1, 2)
        patch_positions = nn.functional.interpolate(
            patch_positions.float(),
            size=(torch_int(height // self.patch_size[0]), torch_int(width // self.patch_size[1])),
            mode="bicubic",
            align_corners=False,
        ).to(patch_positions.dtype)
        return torch.cat([class_position, patch_positions.flatten(2).transpose(1, 2)], dim=1)

    def count_kept_patches(self, num_patches: int) -> int:
        """Of the patches of an image those that patch dropout keeps: all of them in evaluation mode."""
        return max(1, int(num_patches * (1 - self.patch_dropout))) if self.training else num_patches

    def drop_patches(self, embeddings: torch.Tensor) -> torch.Tensor:
        """
        `[CLS]` and random patches of each image (Li et al., 2023, https://arxiv.org/abs/2212.00794):
        (batch_size, num_patches + 1, width) -> (batch_size, num_kept + 1, width)
        """
        batch_size, length, width = embeddings.shape
        noise = torch.rand(batch_size, length - 1, device=embeddings.device)
        kept = noise.topk(self.count_kept_patches(length - 1), dim=1).indices
        patches = embeddings[:, 1:].gather(1, kept[..., None].expand(-1, -1, width))
        return torch.cat([embeddings[:, :1], patches], dim=1)

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        batch_size, num_channels, height, width = pixel_values.shape
        if num_channels != self.num_channels:
            raise ValueError(
                f"`pixel_values` have {num_channels} channels, but the model was configured for {self.num_channels}."
            )
        if not interpolate_pos_encoding and (height, width) != self.image_size:
            raise ValueError(
                f"`pixel_values` are of {height} x {width} pixels, but the model was configured for "
                f"{self.image_size[0]} x {self.image_size[1]}. Pass `interpolate_pos_encoding=True` for another size."
            )

        patch_embeds = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        patch_embeds = patch_embeds.flatten(2).transpose(1, 2)  # shape = (batch_size, num_patches, width)
        class_embeds = self.class_embedding.expand(batch_size, -1, -1)
        embeddings = torch.cat([class_embeds, patch_embeds], dim=1)

        if interpolate_pos_encoding:
            embeddings = embeddings + self.interpolate_pos_encoding(height, width)
        else:
            embeddings = embeddings + self.position_embeddings
        if self.training and self.patch_dropout > 0:
            embeddings = self.drop_patches(embeddings)
        return self.dropout(embeddings)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
):
    attn_weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        attn_weights = attn_weights + attention_mask

    attn_weights = nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)

    attn_output = torch.matmul(attn_weights, value).transpose(1, 2).contiguous()
    return attn_output, attn_weights


def corner_mask_function(num_corner_tokens: int) -> Callable:
    """
    Who may attend to whom (Wu et al., 2024, section 3.3): a corner token is seen by itself alone, and sees itself and
    the text, but not `[CLS]`.
    """

    def mask_function(batch_idx: int, head_idx: int, q_idx: int, kv_idx: int) -> bool:
        query_is_corner = (q_idx >= 1) & (q_idx <= num_corner_tokens)
        key_is_corner = (kv_idx >= 1) & (kv_idx <= num_corner_tokens)
        return (q_idx == kv_idx) | (~key_is_corner & ~(query_is_corner & (kv_idx == 0)))

    return mask_function


class LotlipAttention(nn.Module):
    """Multi-headed self-attention, of texts and of images."""

    def __init__(self, config: LotlipTextConfig | LotlipVisionConfig, qkv_bias: bool = True):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_probs_dropout_prob
        self.is_causal = False

        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=qkv_bias)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        hidden_shape = (*input_shape, -1, self.head_dim)

        queries = self.q_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        keys = self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        values = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            queries,
            keys,
            values,
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            **kwargs,
        )

        attn_output = attn_output.reshape(*input_shape, -1).contiguous()
        return self.out_proj(attn_output), attn_weights


class LotlipMLP(nn.Module):
    def __init__(self, config: LotlipTextConfig | LotlipVisionConfig):
        super().__init__()
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class LotlipTextLayer(GradientCheckpointingLayer):
    """Post-norm, as in BERT."""

    def __init__(self, config: LotlipTextConfig):
        super().__init__()
        self.self_attn = LotlipAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = LotlipMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, **kwargs)
        hidden_states = self.layer_norm1(residual + self.dropout(hidden_states))

        residual = hidden_states
        hidden_states = self.mlp(hidden_states)
        hidden_states = self.layer_norm2(residual + self.dropout(hidden_states))
        return hidden_states


class LotlipVisionLayer(GradientCheckpointingLayer):
    """Pre-norm, as in ViT."""

    def __init__(self, config: LotlipVisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = LotlipAttention(config, qkv_bias=config.qkv_bias)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = LotlipMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        hidden_states = self.layer_norm1(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, **kwargs)
        hidden_states = residual + self.dropout(hidden_states)

        residual = hidden_states
        hidden_states = self.layer_norm2(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = residual + self.dropout(hidden_states)
        return hidden_states


class LotlipPooler(nn.Module):
    """BERT's pooler, for any number of tokens: (..., hidden_size) -> (..., hidden_size)"""

    def __init__(self, config: LotlipTextConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden_states))


@auto_docstring
class LotlipPreTrainedModel(LotlipLoadingMixin, LotlipSavingMixin, PreTrainedModel):
    config: LotlipConfig
    # that find the class, in the code that is saved with it
    auto_classes = ("AutoModel",)
    base_model_prefix = "lotlip"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["LotlipTextEmbeddings", "LotlipVisionEmbeddings", "LotlipTextLayer", "LotlipVisionLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # context parallelism knows causal attention only
    _supports_context_parallel = False
    _can_compile_fullgraph = True

    def _init_weights(self, module):
        """Initialize the weights"""
        super()._init_weights(module)
        # leaves and owners of parameters only: out of the library's tree, modules without their own are never visited
        if isinstance(module, LotlipTextEmbeddings):
            if module.corner_tokens is not None:
                init.normal_(module.corner_tokens, mean=0.0, std=self.config.initializer_range)
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1]).expand((1, -1)))
        elif isinstance(module, LotlipVisionEmbeddings):
            init.trunc_normal_(module.class_embedding, mean=0.0, std=self.config.initializer_range)
            init.trunc_normal_(module.position_embeddings, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, LotlipModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.logit_bias is not None:
                init.constant_(module.logit_bias, self.config.logit_bias_init_value)


@auto_docstring(
    custom_intro="""
    The text tower of LoTLIP, without a projection: a BERT encoder with corner tokens behind `[CLS]`.
    """
)
class LotlipTextModel(LotlipPreTrainedModel):
    config: LotlipTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    _input_embed_layer = "word_embeddings"
    # the rest of a whole checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^(visual|text)_projection\.", r"^logit_(scale|bias)$"]
    _can_record_outputs = {"hidden_states": LotlipTextLayer, "attentions": LotlipAttention}

    def __init__(self, config: LotlipTextConfig):
        super().__init__(config)
        self.embeddings = LotlipTextEmbeddings(config)
        self.layers = nn.ModuleList([LotlipTextLayer(config) for _ in range(config.num_hidden_layers)])
        self.pooler = LotlipPooler(config)

        # Initialize weights and apply final processing
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_corner_tokens: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipBaseModelOutputWithPooling:
        r"""
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            1 for tokens, 0 for padding.
        token_type_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Taken as other BERTs take them; every token of LoTLIP has type 0, the default.
        position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Positions of the tokens, final: without them `[CLS]` has 0, and those of the text begin at
            `num_corner_tokens + 1`.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to compute the corner tokens too. Under the attention mask nothing else reads them: the other
            outputs are the same with and without. `hidden_states` and `attentions` then hold them at 1 to
            `num_corner_tokens`. Without the mask (`config.corner_attention_mask=False`) they are always computed.

        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipTextConfig, LotlipTextModel

        >>> model = LotlipTextModel(LotlipTextConfig(num_hidden_layers=2)).eval()
        >>> input_ids = torch.tensor([[101, 1037, 2417, 4049, 102]])

        >>> with torch.inference_mode():
        ...     outputs = model(input_ids, output_corner_tokens=True)
        >>> outputs.pooler_output.shape, outputs.corner_pooler_output.shape
        (torch.Size([1, 768]), torch.Size([1, 2, 768]))
        ```"""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of `input_ids` and `inputs_embeds`.")

        num_corner_tokens = self.config.num_corner_tokens
        is_masked = self.config.corner_attention_mask
        with_corner_tokens = num_corner_tokens > 0 and (output_corner_tokens or not is_masked)

        hidden_states = self.embeddings(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            with_corner_tokens=with_corner_tokens,
        )
        if with_corner_tokens and attention_mask is not None:
            if attention_mask.dim() != 2 or attention_mask.shape[1] != hidden_states.shape[1] - num_corner_tokens:
                raise ValueError(
                    "With corner tokens `attention_mask` must be of the texts' shape (batch_size, sequence_length), "
                    f"got {tuple(attention_mask.shape)}."
                )
            attention_mask = _insert_corners(
                attention_mask, attention_mask.new_ones(attention_mask.shape[0], num_corner_tokens)
            )
        hides_corners = with_corner_tokens and is_masked
        attention_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            and_mask_function=corner_mask_function(num_corner_tokens) if hides_corners else None,
        )
        # flash attention and unknown backends take a padding mask at most: the corner mask would be dropped in silence
        if hides_corners and (attention_mask is None or len(attention_mask.shape) == 2):
            raise ValueError(
                f"`attn_implementation={self.config._attn_implementation!r}` cannot hide the corner tokens from the "
                "text. Call `model.set_attn_implementation('sdpa')` (or 'eager', 'flex_attention') to compute them."
            )

        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)

        if not with_corner_tokens:
            return LotlipBaseModelOutputWithPooling(
                last_hidden_state=hidden_states,
                pooler_output=self.pooler(hidden_states[:, 0]),
            )
        corner_hidden_states = hidden_states[:, 1 : num_corner_tokens + 1]
        return LotlipBaseModelOutputWithPooling(
            last_hidden_state=torch.cat([hidden_states[:, :1], hidden_states[:, num_corner_tokens + 1 :]], dim=1),
            pooler_output=self.pooler(hidden_states[:, 0]),
            corner_hidden_states=corner_hidden_states,
            corner_pooler_output=self.pooler(corner_hidden_states),
        )


@auto_docstring(
    custom_intro="""
    The image tower of LoTLIP, without a projection: a ViT, pooled at the final `[CLS]` state.
    """
)
class LotlipVisionModel(LotlipPreTrainedModel):
    config: LotlipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embedding"
    # the rest of a whole checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^(visual|text)_projection\.", r"^logit_(scale|bias)$"]
    _can_record_outputs = {"hidden_states": LotlipVisionLayer, "attentions": LotlipAttention}

    def __init__(self, config: LotlipVisionConfig):
        super().__init__(config)
        self.embeddings = LotlipVisionEmbeddings(config)
        self.layers = nn.ModuleList([LotlipVisionLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

        # Initialize weights and apply final processing
        self.post_init()

    def _init_weights(self, module):
        """Initialize the weights"""
        super()._init_weights(module)
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.trunc_normal_(module.weight, mean=0.0, std=self.config.initializer_range)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        r"""
        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipVisionConfig, LotlipVisionModel

        >>> model = LotlipVisionModel(LotlipVisionConfig(num_hidden_layers=2)).eval()

        >>> with torch.inference_mode():
        ...     outputs = model(torch.randn(1, 3, 224, 224))
        >>> outputs.last_hidden_state.shape, outputs.pooler_output.shape
        (torch.Size([1, 197, 768]), torch.Size([1, 768]))
        ```"""
        if pixel_values is None:
            raise ValueError("You have to specify `pixel_values`.")

        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        for layer in self.layers:
            hidden_states = layer(hidden_states, None, **kwargs)

        last_hidden_state = self.post_layernorm(hidden_states)
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=last_hidden_state[:, 0],
        )


@auto_docstring(
    custom_intro="""
    The dual encoder: texts and images embedded in one space, trained on short and long captions together.
    """
)
class LotlipModel(LotlipPreTrainedModel):
    config: LotlipConfig
    auto_classes = ("AutoModel", "AutoModelForZeroShotImageClassification")
    # the loss is a mean over slots: `Trainer` has no number of items to pass
    accepts_loss_kwargs = False
    # whether it compares all tokens, see `modeling_token_wise_lotlip`, instead of one embedding of each
    is_token_wise = False

    def __init__(self, config: LotlipConfig):
        super().__init__(config)
        if config.token_wise != self.is_token_wise:
            raise ValueError(
                f"`{type(self).__name__}` does not fit a configuration with `token_wise={config.token_wise}`: its "
                f"model is `{config.default_architecture}`. `AutoModel` finds the right one."
            )
        text_config, vision_config = config.text_config, config.vision_config

        self.text_model = LotlipTextModel._from_config(text_config)
        self.vision_model = LotlipVisionModel._from_config(vision_config)

        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.visual_projection = (
            nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
            if vision_config.projection_dim is not None
            else nn.Identity()
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.logit_bias = (
            # CODEPATH: models trained with a sigmoid loss have one, the released checkpoints none
            nn.Parameter(torch.tensor(float(config.logit_bias_init_value)))
            if config.logit_bias_init_value is not None
            else None
        )

        # Initialize weights and apply final processing
        self.post_init()

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | None = None,
        text_model_name_or_path: str | None = None,
        **kwargs,
    ) -> "LotlipModel":
        r"""
        Initialises the towers from pretrained ones, as the paper does; corner tokens and projections are new. Like
        [`~PreTrainedModel.from_pretrained`] it returns the model in evaluation mode.

        Give the image tower the pixels that it was trained on: the mean and standard deviation (`image_mean`,
        `image_std` of [`LotlipImageProcessor`]) of its own image processor or timm configuration.
        [`~modeling_lotlip.training.image_processors.make_image_processor`] finds them.

        Args:
            vision_model_name_or_path (`str`, *optional*):
                Hub id or folder of a ViT or DINOv2 of transformers (its layer scale is folded into the linear layers),
                or of a ViT of timm. Without it the image tower is new.
            text_model_name_or_path (`str`, *optional*):
                Hub id or folder of a BERT of transformers. Without it the text tower is new.
            kwargs:
                Fields of the configurations: those of [`LotlipVisionConfig`] with the prefix `vision_`, those of
                [`LotlipTextConfig`] with the prefix `text_`, those of [`LotlipConfig`] as they are. Without
                `projection_dim` texts are projected to the width of the image tower.

        Raises:
            `ValueError`: if a checkpoint is of an architecture that does not fit.

        Example:

        ```python
        >>> import tempfile
        >>> from transformers import BertConfig, BertModel, ViTConfig, ViTModel
        >>> from modeling_lotlip import LotlipModel

        >>> # in place of `google-bert/bert-base-uncased` and `google/vit-base-patch16-224-in21k`
        >>> bert, vit = tempfile.mkdtemp(), tempfile.mkdtemp()
        >>> BertModel(BertConfig(num_hidden_layers=1)).save_pretrained(bert)
        >>> ViTModel(ViTConfig(num_hidden_layers=1)).save_pretrained(vit)

        >>> model = LotlipModel.from_vision_text_pretrained(vit, bert, text_num_corner_tokens=4)
        >>> model.config.projection_dim
        768
        ```"""
        from .weights_lotlip import load_text_tower, load_vision_tower

        text_fields = {name[5:]: kwargs.pop(name) for name in list(kwargs) if name.startswith("text_")}
        vision_fields = {name[7:]: kwargs.pop(name) for name in list(kwargs) if name.startswith("vision_")}
        for fields, config_class in (
            (text_fields, LotlipTextConfig),
            (vision_fields, LotlipVisionConfig),
            (kwargs, LotlipConfig),
        ):
            unknown = set(fields) - set(config_class.__dataclass_fields__)
            if unknown:
                raise ValueError(f"{sorted(unknown)} are no fields of {config_class.__name__}. Mind the prefixes.")
        vision_config, vision_weights = LotlipVisionConfig(**vision_fields), None
        if vision_model_name_or_path is not None:
            vision_config, vision_weights = load_vision_tower(vision_model_name_or_path, **vision_fields)
        text_config, text_weights = LotlipTextConfig(**text_fields), None
        if text_model_name_or_path is not None:
            text_config, text_weights = load_text_tower(text_model_name_or_path, **text_fields)

        projection_dim = kwargs.setdefault("projection_dim", vision_config.projection_dim or vision_config.hidden_size)
        if vision_config.projection_dim is None and projection_dim != vision_config.hidden_size:
            vision_config.projection_dim = projection_dim
        if "projection_dim" not in text_fields:
            text_config.projection_dim = projection_dim

        model = cls(LotlipConfig(text_config=text_config, vision_config=vision_config, **kwargs))
        if vision_weights is not None:
            model.vision_model.load_state_dict(vision_weights)
        if text_weights is not None:
            # every weight but the corner tokens, which no BERT has
            model.text_model.load_state_dict(text_weights, strict=False)
        return model.eval()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        r"""
        Brings `logit_scale` back to [0, ln 100], to be called after each step of the optimizer. A frozen one stays as
        it is, and so does that of a model with a `logit_bias`: the sigmoid loss has no bound (the published SigLIP
        models learned up to 117). `Trainer` does so with
        [`~modeling_lotlip.training.callbacks.ClampLogitScaleCallback`].
        """
        if self.logit_bias is None and self.logit_scale.requires_grad:
            self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    @auto_docstring
    def get_text_features(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_corner_tokens: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        token_type_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Taken as other BERTs take them; every token of LoTLIP has type 0, the default.
        position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Positions of the tokens, final: without them `[CLS]` has 0, and those of the text begin at
            `num_corner_tokens + 1`.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to return the projected corner tokens too, as the `corner_pooler_output` of a
            [`LotlipBaseModelOutputWithPooling`].

        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipConfig, LotlipModel

        >>> model = LotlipModel(LotlipConfig()).eval()
        >>> input_ids = torch.tensor([[101, 1037, 2417, 4049, 102]])

        >>> with torch.inference_mode():
        ...     text_features = model.get_text_features(input_ids).pooler_output
        >>> text_features.shape
        torch.Size([1, 768])
        ```"""
        text_outputs: LotlipBaseModelOutputWithPooling = self.text_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_corner_tokens=output_corner_tokens,
            return_dict=True,
            **kwargs,
        )
        text_outputs.pooler_output = self.text_projection(text_outputs.pooler_output)
        if text_outputs.corner_pooler_output is not None:
            text_outputs.corner_pooler_output = self.text_projection(text_outputs.corner_pooler_output)

        return text_outputs

    @can_return_tuple
    @auto_docstring
    def get_image_features(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipConfig, LotlipModel

        >>> model = LotlipModel(LotlipConfig()).eval()

        >>> with torch.inference_mode():
        ...     image_features = model.get_image_features(torch.randn(1, 3, 224, 224)).pooler_output
        >>> image_features.shape
        torch.Size([1, 768])
        ```"""
        vision_outputs: BaseModelOutputWithPooling = self.vision_model(
            pixel_values=pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
            **kwargs,
        )
        vision_outputs.pooler_output = self.visual_projection(vision_outputs.pooler_output)

        return vision_outputs

    def _embed_captions(
        self,
        attention_mask: torch.Tensor | None = None,
        output_corner_tokens: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor, LotlipBaseModelOutputWithPooling]:
        """
        Embeds captions and finds those that are there.

        Returns the normalised embeddings (captions, 1 + corners, dim), zero where a caption is absent, which of them
        are there (captions, 1 + corners), and the output of the tower.
        """
        present = None
        if attention_mask is not None and attention_mask.dim() == 2:
            present = attention_mask.bool().any(dim=-1)
            # an absent caption is computed as if it were there: its result is finite, and dropped below
            attention_mask = attention_mask.masked_fill(~present[:, None], 1)

        text_outputs: LotlipBaseModelOutputWithPooling = self.get_text_features(
            attention_mask=attention_mask,
            output_corner_tokens=output_corner_tokens,
            **kwargs,
        )
        text_embeds = text_outputs.pooler_output[:, None]
        if output_corner_tokens and text_outputs.corner_pooler_output is not None:
            text_embeds = torch.cat([text_embeds, text_outputs.corner_pooler_output], dim=1)
        text_embeds = _normalize(text_embeds)

        if present is None:
            present = torch.ones(text_embeds.shape[0], dtype=torch.bool, device=text_embeds.device)
        present = present[:, None].expand(-1, text_embeds.shape[1])
        return text_embeds.masked_fill(~present[:, :, None], 0), present, text_outputs

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        short_input_ids: torch.LongTensor | None = None,
        short_attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        vision_pooler_output: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipOutput:
        r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, length)` or `(batch_size, captions, length)`):
            The texts: one for each image; or the short caption of each image first and its long captions after it; or,
            with `short_input_ids`, the long captions only. A caption whose attention mask is all zero is absent.
        attention_mask (`torch.Tensor` of the shape of `input_ids`, *optional*):
            1 for tokens, 0 for padding.
        token_type_ids (`torch.LongTensor` of the shape of `input_ids`, *optional*):
            Taken as other BERTs take them; every token of LoTLIP has type 0, the default.
        position_ids (`torch.LongTensor` of the shape of `input_ids`, *optional*):
            Positions of the tokens, final: without them those of the text begin at `num_corner_tokens + 1`.
        return_loss (`bool`, *optional*):
            Whether to return the loss, see `image_text_contrastive_loss`. A single caption counts as a
            long one: `[CLS]` and every corner token are contrasted with the image.
        short_input_ids (`torch.LongTensor` of shape `(batch_size, short_sequence_length)`, *optional*):
            The short captions, padded to a length of their own.
        short_attention_mask (`torch.Tensor` of shape `(batch_size, short_sequence_length)`, *optional*):
            1 for tokens, 0 for padding.
        vision_pooler_output (`torch.Tensor` of shape `(batch_size, hidden_size)`, *optional*):
            The `pooler_output` of [`LotlipVisionModel`] for the images, computed before, in place of `pixel_values`: a
            frozen image tower need not run again.

        Without a long caption (`captions` is 1) the corner tokens get no gradient: tell DistributedDataParallel with
        `find_unused_parameters=True`.

        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipConfig, LotlipModel

        >>> model = LotlipModel(LotlipConfig()).eval()
        >>> pixel_values = torch.randn(2, 3, 224, 224)

        >>> # a short and a long caption for each image
        >>> short_input_ids = torch.tensor([[101, 4049, 102], [101, 4937, 102]])
        >>> input_ids = torch.tensor([[[101, 1037, 2417, 4049, 102]], [[101, 1037, 2304, 4937, 102]]])

        >>> with torch.inference_mode():
        ...     outputs = model(
        ...         input_ids=input_ids, short_input_ids=short_input_ids, pixel_values=pixel_values, return_loss=True
        ...     )
        >>> outputs.text_embeds.shape  # the short [CLS], the long [CLS] and two corners
        torch.Size([2, 4, 768])
        ```"""
        short_inputs, long_inputs, num_long_captions = _sort_captions(
            input_ids, attention_mask, token_type_ids, position_ids, short_input_ids, short_attention_mask
        )
        has_several_captions = short_inputs is not None

        if vision_pooler_output is None:
            vision_outputs: BaseModelOutputWithPooling = self.get_image_features(
                pixel_values=pixel_values,
                interpolate_pos_encoding=interpolate_pos_encoding,
                **kwargs,
            )
        elif pixel_values is None:
            vision_pooler_output = vision_pooler_output.to(self.dtype)
            vision_outputs = BaseModelOutputWithPooling(pooler_output=self.visual_projection(vision_pooler_output))
        else:
            raise ValueError("`vision_pooler_output` replaces `pixel_values`: specify one of the two.")
        image_embeds = _normalize(vision_outputs.pooler_output)

        text_embeds, present = [], []
        if short_inputs is not None:
            short_embeds, short_present, text_outputs = self._embed_captions(**short_inputs, **kwargs)
            text_embeds.append(short_embeds)
            present.append(short_present)
        if long_inputs is not None:
            long_embeds, long_present, text_outputs = self._embed_captions(
                **long_inputs, output_corner_tokens=bool(has_several_captions or return_loss), **kwargs
            )
            # the slots of an image side by side: [CLS] and corners of its first long caption, of its second, ...
            text_embeds.append(long_embeds.unflatten(0, (-1, num_long_captions)).flatten(1, 2))
            present.append(long_present.unflatten(0, (-1, num_long_captions)).flatten(1, 2))
        text_embeds, present = torch.cat(text_embeds, dim=1), torch.cat(present, dim=1)

        # cosine similarity as logits
        image_embeds = image_embeds.to(text_embeds.device)
        logit_scale = self.logit_scale.float().exp().to(text_embeds.device)
        logit_bias = self.logit_bias.to(text_embeds.device) if self.logit_bias is not None else None
        logits_per_text = compute_logits(text_embeds[:, 0], image_embeds, logit_scale, logit_bias)
        logits_per_image = logits_per_text.t()

        loss = None
        if return_loss:
            if text_embeds.shape[0] != image_embeds.shape[0]:
                raise ValueError(
                    "`return_loss=True` needs the captions of each image: got texts for "
                    f"{text_embeds.shape[0]} images and `pixel_values` of {image_embeds.shape[0]}."
                )
            loss = image_text_contrastive_loss(image_embeds, text_embeds, logit_scale, present, logit_bias)

        text_embeds, image_embeds = text_embeds.to(self.dtype), image_embeds.to(self.dtype)
        return LotlipOutput(
            loss=loss,
            logits_per_image=logits_per_image,
            logits_per_text=logits_per_text,
            text_embeds=text_embeds if has_several_captions else text_embeds[:, 0],
            image_embeds=image_embeds,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
        )


@auto_docstring(
    custom_intro="""
    The text tower of LoTLIP with the projection into the shared space.
    """
)
class LotlipTextModelWithProjection(LotlipPreTrainedModel):
    config: LotlipTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual_projection\.", r"^logit_(scale|bias)$"]

    def __init__(self, config: LotlipTextConfig):
        super().__init__(config)
        self.text_model = LotlipTextModel._from_config(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

        # Initialize weights and apply final processing
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_corner_tokens: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipTextModelOutput:
        r"""
        token_type_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Taken as other BERTs take them; every token of LoTLIP has type 0, the default.
        position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Positions of the tokens, final: without them `[CLS]` has 0, and those of the text begin at
            `num_corner_tokens + 1`.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to return the projected corner tokens too, as `corner_embeds`.

        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipTextConfig, LotlipTextModelWithProjection

        >>> model = LotlipTextModelWithProjection(LotlipTextConfig(num_hidden_layers=2)).eval()

        >>> with torch.inference_mode():
        ...     text_embeds = model(torch.tensor([[101, 1037, 2417, 4049, 102]])).text_embeds
        >>> text_embeds.shape
        torch.Size([1, 768])
        ```"""
        text_outputs: LotlipBaseModelOutputWithPooling = self.text_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_corner_tokens=output_corner_tokens,
            return_dict=True,
            **kwargs,
        )
        corner_embeds = text_outputs.corner_pooler_output
        return LotlipTextModelOutput(
            text_embeds=self.text_projection(text_outputs.pooler_output),
            last_hidden_state=text_outputs.last_hidden_state,
            hidden_states=text_outputs.hidden_states,
            attentions=text_outputs.attentions,
            corner_embeds=self.text_projection(corner_embeds) if corner_embeds is not None else None,
        )


@auto_docstring(
    custom_intro="""
    The image tower of LoTLIP with the projection into the shared space, if it has one.
    """
)
class LotlipVisionModelWithProjection(LotlipPreTrainedModel):
    config: LotlipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_(scale|bias)$"]

    def __init__(self, config: LotlipVisionConfig):
        super().__init__(config)
        self.vision_model = LotlipVisionModel._from_config(config)
        self.visual_projection = (
            # CODEPATH: models with another width than the image tower's have one, the released checkpoints none
            nn.Linear(config.hidden_size, config.projection_dim, bias=False)
            if config.projection_dim is not None
            else nn.Identity()
        )

        # Initialize weights and apply final processing
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.vision_model.set_input_embeddings(value)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipVisionModelOutput:
        r"""
        Examples:

        ```python
        >>> import torch
        >>> from modeling_lotlip import LotlipVisionConfig, LotlipVisionModelWithProjection

        >>> model = LotlipVisionModelWithProjection(LotlipVisionConfig(num_hidden_layers=2)).eval()

        >>> with torch.inference_mode():
        ...     image_embeds = model(torch.randn(1, 3, 224, 224)).image_embeds
        >>> image_embeds.shape
        torch.Size([1, 768])
        ```"""
        vision_outputs: BaseModelOutputWithPooling = self.vision_model(
            pixel_values=pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
            **kwargs,
        )
        return LotlipVisionModelOutput(
            image_embeds=self.visual_projection(vision_outputs.pooler_output),
            last_hidden_state=vision_outputs.last_hidden_state,
            hidden_states=vision_outputs.hidden_states,
            attentions=vision_outputs.attentions,
        )


LotlipPreTrainedModel.register_for_auto_class()  # and all that inherit from it

__all__ = [
    "LotlipModel",
    "LotlipPreTrainedModel",
    "LotlipTextModel",
    "LotlipTextModelWithProjection",
    "LotlipVisionModel",
    "LotlipVisionModelWithProjection",
]

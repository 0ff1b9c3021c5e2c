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
"""LoTLIP model configuration."""

import re

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .loading_lotlip import LotlipLoadingMixin


def _as_pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _check_dtype(dtype: object):
    """The library takes any name, and looks it up in torch."""
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and not re.fullmatch(r"float(8_\w+|16|32|64)?|bfloat16|half|double", name):
        raise ValueError(f"`dtype` ({dtype!r}) must be a floating point type of torch, such as 'float32'.")


def _check_positive(config: PreTrainedConfig, *names: str):
    for name in names:
        value = getattr(config, name)
        if value is not None and min(value if isinstance(value, (list, tuple)) else [value]) < 1:
            raise ValueError(f"`{name}` ({value}) must be positive.")


def _check_encoder(config: PreTrainedConfig):
    _check_positive(config, "hidden_size", "num_attention_heads", "intermediate_size", "projection_dim")
    if config.num_hidden_layers < 0:
        raise ValueError(f"`num_hidden_layers` ({config.num_hidden_layers}) must not be negative.")
    if config.hidden_size % config.num_attention_heads != 0:
        raise ValueError(
            f"`hidden_size` ({config.hidden_size}) must be a multiple of `num_attention_heads` "
            f"({config.num_attention_heads})."
        )


@strict
class LotlipTextConfig(LotlipLoadingMixin, PreTrainedConfig):
    r"""
    Configuration of a [`LotlipTextModel`]: a BERT encoder with corner tokens. The defaults are those of
    `bert-base-uncased` with the two corner tokens of the paper.

    Args:
        vocab_size (`int`, *optional*, defaults to 30522):
            Number of words. The corner tokens are no words: they are a parameter of their own.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of encoder layers.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads; it must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the feed-forward layers.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the feed-forward layers (`"gelu"` is the exact one).
        hidden_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout on the embeddings and on each sub-layer's output.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout on the attention weights.
        max_position_embeddings (`int`, *optional*, defaults to 512):
            Rows of the position table. A text may have this many tokens less `num_corner_tokens`.
        type_vocab_size (`int`, *optional*, defaults to 2):
            Rows of the token type table; every token of LoTLIP has type 0.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution that weights are drawn from.
        layer_norm_eps (`float`, *optional*, defaults to 1e-12):
            Epsilon of the layer normalisations.
        pad_token_id (`int`, *optional*, defaults to 0):
            Id of the padding token.
        bos_token_id (`int`, *optional*):
            Unused by the model; kept for the generic code of the library.
        eos_token_id (`int`, *optional*):
            Unused by the model; kept for the generic code of the library.
        num_corner_tokens (`int`, *optional*, defaults to 2):
            Number m of corner tokens. With 0 the tower is a plain BERT (the LiT baseline).
        corner_attention_mask (`bool`, *optional*, defaults to `True`):
            Whether corner tokens are hidden from `[CLS]`, from the text and from each other, and `[CLS]` from them.
            With `False` all tokens see each other (the paper's ablation without mask), and the corner tokens are
            always part of the sequence.
        projection_dim (`int`, *optional*, defaults to 768):
            Width of the shared embedding space, used by the classes with a projection.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTextConfig, LotlipTextModel

    >>> configuration = LotlipTextConfig(num_hidden_layers=2)
    >>> model = LotlipTextModel(configuration)
    >>> model.config.num_corner_tokens
    2
    ```"""

    model_type = "lotlip_text_model"
    base_config_key = "text_config"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    num_corner_tokens: int = 2
    corner_attention_mask: bool = True
    projection_dim: int = 768

    def __post_init__(self, **kwargs):
        _check_dtype(kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        super().__post_init__(**kwargs)
        # by which the Auto classes choose
        if self.architectures is None:
            self.architectures = ["LotlipTextModel"]
        # here too, since `@strict` wraps what its own call raises in an error that is no ValueError
        self.validate_architecture()

    def validate_architecture(self):
        """Part of `@strict`-powered validation."""
        super().validate_architecture()
        _check_positive(self, "vocab_size", "max_position_embeddings", "type_vocab_size")
        _check_encoder(self)
        if not 0 <= self.num_corner_tokens < self.max_position_embeddings:
            raise ValueError(
                f"`num_corner_tokens` ({self.num_corner_tokens}) must be at least 0 and smaller than "
                f"`max_position_embeddings` ({self.max_position_embeddings}): every corner token takes a position."
            )


@strict
class LotlipVisionConfig(LotlipLoadingMixin, PreTrainedConfig):
    r"""
    Configuration of a [`LotlipVisionModel`]: a ViT. The defaults are those of ViT-B/16 at 224 pixels.

    Args:
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of encoder layers.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads; it must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Width of the feed-forward layers.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the feed-forward layers (`"gelu"` is the exact one).
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout on the embeddings and on each sub-layer's output.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout on the attention weights.
        patch_dropout (`float`, *optional*, defaults to 0.0):
            The share of an image's patches that training leaves out, drawn anew for every image; `[CLS]` stays. The
            tower computes the others alone. It has no effect in evaluation mode.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the truncated normal distribution that weights are drawn from.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer normalisations.
        image_size (`int` or pair of `int`, *optional*, defaults to 224):
            Size (height, width) of the images in pixels.
        patch_size (`int` or pair of `int`, *optional*, defaults to 16):
            Size (height, width) of the patches in pixels.
        num_channels (`int`, *optional*, defaults to 3):
            Number of colour channels.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have a bias.
        projection_dim (`int`, *optional*):
            Width of a bias-free linear projection of the image embedding. Without it (as in the released checkpoints)
            the image embedding is the final `[CLS]` state itself, and texts are projected to its width.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipVisionConfig, LotlipVisionModel

    >>> configuration = LotlipVisionConfig(num_hidden_layers=2)
    >>> model = LotlipVisionModel(configuration)
    >>> model.config.image_size
    224
    ```"""

    model_type = "lotlip_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    patch_dropout: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int | list[int] | tuple[int, int] = 16
    num_channels: int = 3
    qkv_bias: bool = True
    projection_dim: int | None = None

    def __post_init__(self, **kwargs):
        _check_dtype(kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        super().__post_init__(**kwargs)
        # by which the Auto classes choose
        if self.architectures is None:
            self.architectures = ["LotlipVisionModel"]
        # here too, since `@strict` wraps what its own call raises in an error that is no ValueError
        self.validate_architecture()

    def validate_architecture(self):
        """Part of `@strict`-powered validation."""
        super().validate_architecture()
        image_size, patch_size = _as_pair(self.image_size), _as_pair(self.patch_size)
        if not len(image_size) == len(patch_size) == 2:
            raise ValueError(
                f"`image_size` ({self.image_size}) and `patch_size` ({self.patch_size}) must be numbers or pairs."
            )
        _check_positive(self, "image_size", "patch_size", "num_channels")
        _check_encoder(self)
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"`patch_dropout` ({self.patch_dropout}) must be at least 0 and below 1.")
        if image_size[0] < patch_size[0] or image_size[1] < patch_size[1]:
            raise ValueError(
                f"`image_size` ({self.image_size}) must not be smaller than `patch_size` ({self.patch_size})."
            )


@strict
class LotlipConfig(LotlipLoadingMixin, PreTrainedConfig):
    r"""
    Configuration of a [`LotlipModel`]: a text tower, an image tower and the space in which they meet. The defaults are
    those of the released LoTLIP-ViT-B-16.

    Args:
        text_config (`dict` or [`LotlipTextConfig`], *optional*):
            Configuration of the text tower.
        vision_config (`dict` or [`LotlipVisionConfig`], *optional*):
            Configuration of the image tower.
        projection_dim (`int`, *optional*, defaults to 768):
            Width of the shared embedding space. The `projection_dim` of the text tower must equal it, and so must that
            of the image tower, or its `hidden_size` where it has no projection.
        logit_scale_init_value (`float`, *optional*, defaults to 2.6592):
            Initial value of `logit_scale`, the logarithm of the inverse temperature: ln(1 / 0.07).
        logit_bias_init_value (`float`, *optional*):
            Initial value of `logit_bias`, which is added to the logits. With it the loss is the sigmoid one of SigLIP;
            without it the model has no bias, and the loss is the contrastive one.
        token_wise (`bool`, *optional*, defaults to `False`):
            Whether the model is a [`LotlipTokenWiseModel`], which compares all tokens of a text with all of an image.

    Raises:
        `ValueError`: if the widths cannot meet.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig

    >>> configuration = LotlipConfig(
    ...     text_config=LotlipTextConfig(projection_dim=384), vision_config=dict(hidden_size=384), projection_dim=384
    ... )
    >>> configuration.vision_config.patch_size
    16
    ```"""

    model_type = "lotlip"
    sub_configs_defaults = {"text_config": LotlipTextConfig, "vision_config": LotlipVisionConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 768
    logit_scale_init_value: float | int = 2.6592
    logit_bias_init_value: float | int | None = None
    token_wise: bool = False

    @property
    def default_architecture(self) -> str:
        """The class of the models of this configuration."""
        return "LotlipTokenWiseModel" if self.token_wise else "LotlipModel"

    def __post_init__(self, **kwargs):
        # as older folders have it, with the architecture of the plain model
        if kwargs.pop("similarity", None) == "token_wise":
            self.token_wise, self.architectures = True, None
        _check_dtype(kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        super().__post_init__(**kwargs)
        # by which the Auto classes choose
        if self.architectures is None:
            self.architectures = [self.default_architecture]
        # here too, since `@strict` wraps what its own call raises in an error that is no ValueError
        self.validate_architecture()

    def validate_architecture(self):
        """Part of `@strict`-powered validation."""
        super().validate_architecture()
        if self.text_config.projection_dim != self.projection_dim:
            raise ValueError(
                f"`text_config.projection_dim` ({self.text_config.projection_dim}) and `projection_dim` "
                f"({self.projection_dim}) must be equal: texts and images are compared in one space."
            )
        if self.vision_config.projection_dim is None:
            if self.vision_config.hidden_size != self.projection_dim:
                raise ValueError(
                    f"`vision_config.hidden_size` ({self.vision_config.hidden_size}) and `projection_dim` "
                    f"({self.projection_dim}) must be equal where the image tower has no projection. Set "
                    "`vision_config.projection_dim` to give it one."
                )
        elif self.vision_config.projection_dim != self.projection_dim:
            raise ValueError(
                f"`vision_config.projection_dim` ({self.vision_config.projection_dim}) and `projection_dim` "
                f"({self.projection_dim}) must be equal: texts and images are compared in one space."
            )


LotlipTextConfig.register_for_auto_class()
LotlipVisionConfig.register_for_auto_class()
LotlipConfig.register_for_auto_class()

__all__ = ["LotlipConfig", "LotlipTextConfig", "LotlipVisionConfig"]

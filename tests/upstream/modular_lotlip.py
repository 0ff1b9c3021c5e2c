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

import html
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from torch import nn
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling, SizeDict
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.models.clip.modeling_clip import (
    CLIPMLP,
    CLIPAttention,
    CLIPEncoderLayer,
    CLIPOutput,
    CLIPTextModelOutput,
    CLIPVisionModelOutput,
    _get_vector_norm,
)
from transformers.processing_utils import ProcessorMixin, Unpack
from transformers.tokenization_utils_base import BatchEncoding, PreTokenizedInput, TextInput
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import TransformersKwargs, auto_docstring, torch_int
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs


VOCAB_FILES_NAMES = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}

# Stands for the separator while BERT's normalizer, which would lowercase it, is at work: a rare punctuation mark that
# the normalizer leaves alone. One in the text is exchanged for its neighbour; both are unknown to BERT.
SEPARATOR_MARK = "\u2cf9"
SEPARATOR_MARK_NEIGHBOUR = "\u2cfa"


class LotlipTokenizer(TokenizersBackend):
    r"""
    Construct a LoTLIP tokenizer (backed by HuggingFace's tokenizers library): BERT's WordPiece, in which each
    sub-caption of a long caption ends in a separator of its own. Every `". "` becomes a `sep_token`, then the text is
    cleaned with ftfy and HTML unescaping, as in the original implementation.

    The corner tokens belong to the model: `model_max_length` counts `[CLS]` and `[SEP]`, not them.

    This tokenizer inherits from [`TokenizersBackend`] which contains most of the main methods. Users should refer to
    this superclass for more information regarding those methods.

    Args:
        vocab (`str` or `dict[str, int]`, *optional*):
            Custom vocabulary dictionary. If not provided, vocabulary is loaded from `vocab_file`.
        do_lower_case (`bool`, *optional*, defaults to `True`):
            Whether or not to lowercase the input when tokenizing.
        unk_token (`str`, *optional*, defaults to `"[UNK]"`):
            The token for what the vocabulary cannot spell.
        sep_token (`str`, *optional*, defaults to `"[SEP]"`):
            The token at the end of each sub-caption and of the text.
        pad_token (`str`, *optional*, defaults to `"[PAD]"`):
            The token used for padding.
        cls_token (`str`, *optional*, defaults to `"[CLS]"`):
            The first token of the sequence.
        mask_token (`str`, *optional*, defaults to `"[MASK]"`):
            The token used for masking values.
        tokenize_chinese_chars (`bool`, *optional*, defaults to `True`):
            Whether or not to tokenize Chinese characters one by one.
        strip_accents (`bool`, *optional*):
            Whether or not to strip all accents. If not given, accents are stripped when lowercasing.
        model_max_length (`int`, *optional*, defaults to 126):
            The maximum length of a text in tokens: the context of 128 less the two corner tokens.
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]
    model = WordPiece

    def __init__(
        self,
        vocab: str | dict[str, int] | None = None,
        do_lower_case: bool = True,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        model_max_length: int = 126,
        **kwargs,
    ):
        self.do_lower_case = do_lower_case
        self.tokenize_chinese_chars = tokenize_chinese_chars
        self.strip_accents = strip_accents
        if vocab is None:
            special_tokens = (pad_token, unk_token, cls_token, sep_token, mask_token)
            vocab = {str(token): index for index, token in enumerate(special_tokens)}
        self._vocab = vocab
        self._tokenizer = Tokenizer(WordPiece(self._vocab, unk_token=str(unk_token)))
        super().__init__(
            do_lower_case=do_lower_case,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            tokenize_chinese_chars=tokenize_chinese_chars,
            strip_accents=strip_accents,
            model_max_length=model_max_length,
            **kwargs,
        )

        self._tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Replace(SEPARATOR_MARK, SEPARATOR_MARK_NEIGHBOUR),
                normalizers.Replace(self.sep_token, SEPARATOR_MARK),
                normalizers.Replace(". ", SEPARATOR_MARK),
                normalizers.BertNormalizer(
                    clean_text=True,
                    handle_chinese_chars=tokenize_chinese_chars,
                    strip_accents=strip_accents,
                    lowercase=do_lower_case,
                ),
                normalizers.Replace(SEPARATOR_MARK, self.sep_token),
            ]
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = decoders.WordPiece(prefix="##")
        # `normalized`: the separators of the sub-captions are in the normalized text
        self._tokenizer.add_special_tokens([AddedToken(self.sep_token, normalized=True, special=True)])
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{self.cls_token}:0 $A:0 {self.sep_token}:0",
            pair=f"{self.cls_token}:0 $A:0 {self.sep_token}:0 $B:1 {self.sep_token}:1",
            special_tokens=[(self.cls_token, self.cls_token_id), (self.sep_token, self.sep_token_id)],
        )

    def clean_text(self, text: str) -> str:
        """Cleans what is not printable ASCII, which ftfy and HTML unescaping leave as it is."""
        if text.isascii() and text.replace("\n", "").isprintable() and "&" not in text:
            return text

        try:
            import ftfy
        except ImportError as error:
            raise ImportError(
                "`LotlipTokenizer` cleans this text with ftfy, as it was in training: `pip install ftfy`."
            ) from error

        text = ftfy.fix_text(text.replace(". ", self.sep_token))
        text = html.unescape(html.unescape(text))
        # joined by line breaks, so that a full stop that only now stands before whitespace makes no separator
        return "\n".join(text.split())

    def _clean(self, text: TextInput | PreTokenizedInput | list) -> str | list | tuple:
        if isinstance(text, str):
            return self.clean_text(text)
        return type(text)(self._clean(item) for item in text) if isinstance(text, (list, tuple)) else text

    def _encode_plus(
        self,
        text: TextInput | PreTokenizedInput | list[TextInput] | list[PreTokenizedInput],
        text_pair: TextInput | PreTokenizedInput | list[TextInput] | list[PreTokenizedInput] | None = None,
        **kwargs,
    ) -> BatchEncoding:
        return super()._encode_plus(self._clean(text), text_pair=self._clean(text_pair), **kwargs)


def get_crop_box(height: int, width: int, size: SizeDict) -> tuple[slice, slice]:
    """The box of a center crop whose offset is rounded half to even, as in the original implementation."""
    crop_height, crop_width = min(size.height, height), min(size.width, width)
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    return slice(top, top + crop_height), slice(left, left + crop_width)


@auto_docstring
class LotlipImageProcessor(TorchvisionBackend):
    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"shortest_edge": 224}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def center_crop(self, image: "torch.Tensor", size: SizeDict, **kwargs) -> "torch.Tensor":
        return super().center_crop(image[(..., *get_crop_box(*image.shape[-2:], size))], size, **kwargs)


@auto_docstring
class LotlipImageProcessorPil(PilBackend):
    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"shortest_edge": 224}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        return super().center_crop(image[(..., *get_crop_box(*image.shape[-2:], size))], size, **kwargs)


@auto_docstring
class LotlipProcessor(ProcessorMixin):
    text_kwargs = {
        "padding": True,
        "truncation": True,
    }

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)


@auto_docstring(checkpoint="weiwu-ww/LoTLIP-ViT-B-16-100M")
@strict
class LotlipTextConfig(PreTrainedConfig):
    r"""
    num_corner_tokens (`int`, *optional*, defaults to 2):
        Number of corner tokens, learned tokens between `[CLS]` and the text. With 0 the tower is a plain BERT.
    corner_attention_mask (`bool`, *optional*, defaults to `True`):
        Whether corner tokens are hidden from `[CLS]`, from the text and from each other, and `[CLS]` from them. With
        `False` the corner tokens are always part of the sequence.

    Example:

    ```python
    >>> from transformers import LotlipTextConfig, LotlipTextModel

    >>> configuration = LotlipTextConfig()
    >>> model = LotlipTextModel(configuration)
    >>> configuration = model.config
    ```"""

    model_type = "lotlip_text_model"
    base_config_key = "text_config"
    attribute_map = {"attention_dropout": "attention_probs_dropout_prob"}

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

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        super().validate_architecture()
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention "
                f"heads ({self.num_attention_heads})."
            )
        if not 0 <= self.num_corner_tokens < self.max_position_embeddings:
            raise ValueError(
                f"`num_corner_tokens` ({self.num_corner_tokens}) must be at least 0 and smaller than "
                f"`max_position_embeddings` ({self.max_position_embeddings}): every corner token takes a position."
            )


@auto_docstring(checkpoint="weiwu-ww/LoTLIP-ViT-B-16-100M")
@strict
class LotlipVisionConfig(PreTrainedConfig):
    r"""
    projection_dim (`int`, *optional*):
        Width of a bias-free linear projection of the image embedding. Without it the image embedding is the final
        `[CLS]` state itself, and texts are projected to its width.

    Example:

    ```python
    >>> from transformers import LotlipVisionConfig, LotlipVisionModel

    >>> configuration = LotlipVisionConfig()
    >>> model = LotlipVisionModel(configuration)
    >>> configuration = model.config
    ```"""

    model_type = "lotlip_vision_model"
    base_config_key = "vision_config"
    attribute_map = {"attention_dropout": "attention_probs_dropout_prob"}

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int | list[int] | tuple[int, int] = 16
    num_channels: int = 3
    projection_dim: int | None = None

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        super().validate_architecture()
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention "
                f"heads ({self.num_attention_heads})."
            )


@auto_docstring(checkpoint="weiwu-ww/LoTLIP-ViT-B-16-100M")
@strict
class LotlipConfig(PreTrainedConfig):
    r"""
    text_config (`dict`, *optional*):
        Dictionary of configuration options used to initialize [`LotlipTextConfig`].
    vision_config (`dict`, *optional*):
        Dictionary of configuration options used to initialize [`LotlipVisionConfig`].

    Example:

    ```python
    >>> from transformers import LotlipConfig, LotlipModel

    >>> configuration = LotlipConfig()
    >>> model = LotlipModel(configuration)
    >>> configuration = model.config

    >>> from transformers import LotlipTextConfig, LotlipVisionConfig

    >>> text_config = LotlipTextConfig()
    >>> vision_config = LotlipVisionConfig()
    >>> config = LotlipConfig(text_config=text_config, vision_config=vision_config)
    ```"""

    model_type = "lotlip"
    sub_configs_defaults = {"text_config": LotlipTextConfig, "vision_config": LotlipVisionConfig}

    text_config: dict | LotlipTextConfig | None = None
    vision_config: dict | LotlipVisionConfig | None = None
    projection_dim: int = 768
    logit_scale_init_value: float | int = 2.6592

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        super().validate_architecture()
        vision_dim = self.vision_config.projection_dim or self.vision_config.hidden_size
        if not self.text_config.projection_dim == self.projection_dim == vision_dim:
            raise ValueError(
                f"Texts and images are compared in one space, but `text_config.projection_dim` is "
                f"{self.text_config.projection_dim}, `projection_dim` {self.projection_dim}, and the width of the "
                f"image embeddings {vision_dim} (`vision_config.projection_dim`, or `vision_config.hidden_size`)."
            )


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
class LotlipTextModelOutput(CLIPTextModelOutput):
    r"""
    text_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`):
        The text embeddings: the projected pooler output of `[CLS]`, not normalised.
    corner_embeds (`torch.Tensor` of shape `(batch_size, num_corner_tokens, projection_dim)`, *optional*):
        The projected pooler output of the corner tokens, where they were computed.
    """

    corner_embeds: torch.Tensor | None = None


class LotlipVisionModelOutput(CLIPVisionModelOutput):
    pass


class LotlipOutput(CLIPOutput):
    r"""
    loss (`torch.Tensor` of shape `()`, *optional*, returned when `return_loss` is `True`):
        Contrastive loss, the mean over the slots.
    logits_per_image (`torch.Tensor` of shape `(image_batch_size, text_batch_size)`):
        Scaled cosine similarities of images and texts; of the short captions where there are several for each image.
    logits_per_text (`torch.Tensor` of shape `(text_batch_size, image_batch_size)`):
        The transpose of `logits_per_image`.
    text_embeds (`torch.Tensor` of shape `(text_batch_size, dim)` or `(text_batch_size, slots, dim)`):
        Normalised text embeddings; with several captions for each image all slots: the short caption's `[CLS]`, then
        `[CLS]` and the corner tokens of each long caption. Zero where a caption is absent.
    image_embeds (`torch.Tensor` of shape `(image_batch_size, dim)`):
        Normalised image embeddings.
    text_model_output (`LotlipBaseModelOutputWithPooling`):
        The output of [`LotlipModel.get_text_features`]; with several captions for each image that of the long ones.
    vision_model_output (`BaseModelOutputWithPooling`):
        The output of [`LotlipModel.get_image_features`].
    """


def contrastive_loss(logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of each slot over its pairs: (slots, batch_size, batch_size) -> (slots,)"""
    log_likelihood = logits.log_softmax(dim=-1) + logits.log_softmax(dim=-2)
    log_likelihood = log_likelihood.diagonal(dim1=-2, dim2=-1)
    return -0.5 * (log_likelihood * pairs).sum(dim=-1) / pairs.sum(dim=-1).clamp(min=1)


def image_text_contrastive_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor, present: torch.Tensor
) -> torch.Tensor:
    """
    The loss of LoTLIP: every image is contrasted with each of its texts' features. A slot is one feature per image
    (the short caption's `[CLS]`, a long caption's `[CLS]` or one of its corner tokens); other slots are no negatives.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalised image features.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalised text features.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature (no logarithm).
        present (`torch.Tensor` of shape `(batch_size, slots)`):
            False where an image lacks the caption of that slot: it is then neither positive nor negative there.
    """
    logits = compute_logits(text_embeds.transpose(0, 1), image_embeds, logit_scale)

    pairs = present.t()
    compared = pairs[:, :, None] & pairs[:, None, :]
    logits = logits.masked_fill(~compared, torch.finfo(logits.dtype).min)

    counted = (pairs.sum(dim=-1) > 1).to(logits.dtype)
    losses = contrastive_loss(logits, pairs.to(logits.dtype))
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def compute_logits(text_embeds: torch.Tensor, image_embeds: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Scaled similarities in float32, under autocast too: (..., texts, dim), (images, dim) -> (..., texts, images)"""
    with maybe_autocast(text_embeds.device.type, enabled=False):
        return torch.matmul(text_embeds.float(), image_embeds.float().t()) * logit_scale.float()


def insert_corners(tokens: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Puts the corner tokens' values behind that of `[CLS]`: (batch, length, ...) -> (batch, length + corners, ...)"""
    return torch.cat([tokens[:, :1], corners, tokens[:, 1:]], dim=1)


def corner_mask_function(num_corner_tokens: int) -> Callable:
    """
    Who may attend to whom: a corner token is seen by itself alone, and sees itself and the text, but not `[CLS]`.
    """

    def mask_function(batch_idx: int, head_idx: int, q_idx: int, kv_idx: int) -> bool:
        query_is_corner = (q_idx >= 1) & (q_idx <= num_corner_tokens)
        key_is_corner = (kv_idx >= 1) & (kv_idx <= num_corner_tokens)
        return (q_idx == kv_idx) | (~key_is_corner & ~(query_is_corner & (kv_idx == 0)))

    return mask_function


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
                    f"Sequence length must be at most `max_position_embeddings` less `num_corner_tokens` (got "
                    f"`sequence length`: {seq_length}, which may be {max_seq_length} at most)."
                )
            position_ids = self.position_ids[:, :seq_length]
            # the positions between [CLS] and the text belong to the corner tokens, computed or not
            position_ids = torch.where(position_ids > 0, position_ids + num_corner_tokens, position_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)

        if with_corner_tokens:
            corner_tokens = self.corner_tokens.to(inputs_embeds.dtype).expand(batch_size, -1, -1)
            corner_position_ids = self.position_ids[:, 1 : num_corner_tokens + 1].expand(position_ids.shape[0], -1)
            inputs_embeds = insert_corners(inputs_embeds, corner_tokens)
            position_ids = insert_corners(position_ids, corner_position_ids)
            token_type_ids = insert_corners(
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

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        batch_size, _, height, width = pixel_values.shape
        if not interpolate_pos_encoding and (height, width) != self.image_size:
            raise ValueError(
                f"Input image size ({height}*{width}) doesn't match model ({self.image_size[0]}*{self.image_size[1]})."
            )

        patch_embeds = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        patch_embeds = patch_embeds.flatten(2).transpose(1, 2)  # shape = [*, num_patches, width]
        class_embeds = self.class_embedding.expand(batch_size, -1, -1)
        embeddings = torch.cat([class_embeds, patch_embeds], dim=1)

        if interpolate_pos_encoding:
            embeddings = embeddings + self.interpolate_pos_encoding(height, width)
        else:
            embeddings = embeddings + self.position_embeddings
        return self.dropout(embeddings)


class LotlipAttention(CLIPAttention):
    pass


class LotlipMLP(CLIPMLP):
    pass


class LotlipTextLayer(CLIPEncoderLayer):
    """Post-norm, as in BERT."""

    def __init__(self, config: LotlipTextConfig):
        super().__init__(config)
        self.self_attn = LotlipAttention(config)
        self.mlp = LotlipMLP(config)
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


class LotlipVisionLayer(CLIPEncoderLayer):
    """Pre-norm, as in ViT."""

    def __init__(self, config: LotlipVisionConfig):
        super().__init__(config)
        self.self_attn = LotlipAttention(config)
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


class LotlipTextPooler(nn.Module):
    """BERT's pooler, for any number of tokens."""

    def __init__(self, config: LotlipTextConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden_states))


@auto_docstring
class LotlipPreTrainedModel(PreTrainedModel):
    config: LotlipConfig
    base_model_prefix = "lotlip"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["LotlipTextEmbeddings", "LotlipVisionEmbeddings", "LotlipTextLayer", "LotlipVisionLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _init_weights(self, module):
        """Initialize the weights"""
        super()._init_weights(module)
        if isinstance(module, LotlipTextEmbeddings):
            if module.corner_tokens is not None:
                init.normal_(module.corner_tokens, mean=0.0, std=self.config.initializer_range)
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1]).expand((1, -1)))
        elif isinstance(module, LotlipVisionEmbeddings):
            init.trunc_normal_(module.class_embedding, mean=0.0, std=self.config.initializer_range)
            init.trunc_normal_(module.position_embeddings, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, LotlipModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)


@auto_docstring(
    custom_intro="""
    The text tower of LoTLIP without a projection: a BERT encoder with corner tokens behind `[CLS]`.
    """
)
class LotlipTextModel(LotlipPreTrainedModel):
    config: LotlipTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    _input_embed_layer = "word_embeddings"
    # the rest of a whole checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual", r"^text(_projection|\.proj)\.", r"^logit_"]
    _can_record_outputs = {"hidden_states": LotlipTextLayer, "attentions": LotlipAttention}

    def __init__(self, config: LotlipTextConfig):
        super().__init__(config)
        self.embeddings = LotlipTextEmbeddings(config)
        self.layers = nn.ModuleList([LotlipTextLayer(config) for _ in range(config.num_hidden_layers)])
        self.pooler = LotlipTextPooler(config)

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
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to compute the corner tokens too. Under the attention mask nothing else reads them: the other
            outputs are the same with and without. `hidden_states` and `attentions` then hold them at 1 to
            `num_corner_tokens`. Without the mask (`config.corner_attention_mask=False`) they are always computed.

        Examples:

        ```python
        >>> import torch
        >>> from transformers import AutoTokenizer, LotlipTextModel

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = LotlipTextModel.from_pretrained(model_id, device_map="auto")
        >>> tokenizer = AutoTokenizer.from_pretrained(model_id)

        >>> inputs = tokenizer(["A red boat. The sky is grey."], return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     outputs = model(**inputs, output_corner_tokens=True)
        >>> pooled_output = outputs.pooler_output  # (batch_size, hidden_size)
        >>> corners = outputs.corner_pooler_output  # (batch_size, num_corner_tokens, hidden_size)
        ```"""
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")

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
            attention_mask = insert_corners(
                attention_mask, attention_mask.new_ones(attention_mask.shape[0], num_corner_tokens)
            )
        hides_corners = with_corner_tokens and is_masked
        attention_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            and_mask_function=corner_mask_function(num_corner_tokens) if hides_corners else None,
        )
        # flash attention takes a padding mask at most: the corner mask would be dropped in silence
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
    The vision tower of LoTLIP without a projection: a ViT, pooled at the final `[CLS]` state.
    """
)
class LotlipVisionModel(LotlipPreTrainedModel):
    config: LotlipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embedding"
    # the rest of a whole checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^text", r"^visual(_projection|\.head)\.", r"^logit_"]
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
        >>> from transformers import AutoImageProcessor, LotlipVisionModel
        >>> from transformers.image_utils import load_image

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = LotlipVisionModel.from_pretrained(model_id, device_map="auto")
        >>> image_processor = AutoImageProcessor.from_pretrained(model_id)

        >>> url = "http://images.cocodataset.org/val2017/000000039769.jpg"
        >>> inputs = image_processor(load_image(url), return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     outputs = model(**inputs)
        >>> pooled_output = outputs.pooler_output  # (batch_size, hidden_size)
        ```"""
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")

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
    # the loss is a mean over slots: `Trainer` has no number of items to pass
    accepts_loss_kwargs = False

    def __init__(self, config: LotlipConfig):
        super().__init__(config)
        text_config, vision_config = config.text_config, config.vision_config

        self.text_model = LotlipTextModel._from_config(text_config)
        self.vision_model = LotlipVisionModel._from_config(vision_config)

        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.visual_projection = (
            # CODEPATH: models with another width than the image tower's have one, the released checkpoints none
            nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
            if vision_config.projection_dim is not None
            else nn.Identity()
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))

        # Initialize weights and apply final processing
        self.post_init()

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
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to return the projected corner tokens too, as the `corner_pooler_output` of a
            [`LotlipBaseModelOutputWithPooling`].

        Examples:

        ```python
        >>> import torch
        >>> from transformers import AutoModel, AutoTokenizer

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = AutoModel.from_pretrained(model_id, device_map="auto")
        >>> tokenizer = AutoTokenizer.from_pretrained(model_id)

        >>> texts = ["a red boat", "A red boat lies on the beach. The sky is grey."]
        >>> inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     text_features = model.get_text_features(**inputs).pooler_output
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
        >>> from transformers import AutoModel, AutoImageProcessor
        >>> from transformers.image_utils import load_image

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = AutoModel.from_pretrained(model_id, device_map="auto")
        >>> image_processor = AutoImageProcessor.from_pretrained(model_id)

        >>> url = "http://images.cocodataset.org/val2017/000000039769.jpg"
        >>> inputs = image_processor(load_image(url), return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     image_features = model.get_image_features(**inputs).pooler_output
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
        self, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor, LotlipBaseModelOutputWithPooling]:
        """
        Returns the normalised embeddings (captions, 1 + corners, dim), zero where a caption is absent, which of them
        are there (captions, 1 + corners), and the output of the tower.
        """
        present = None
        if attention_mask is not None and attention_mask.dim() == 2:
            present = attention_mask.bool().any(dim=-1)
            # an absent caption is computed as if it were there: its result is finite, and dropped below
            attention_mask = attention_mask.masked_fill(~present[:, None], 1)

        text_outputs: LotlipBaseModelOutputWithPooling = self.get_text_features(
            attention_mask=attention_mask, **kwargs
        )
        text_embeds = text_outputs.pooler_output[:, None]
        if text_outputs.corner_pooler_output is not None and kwargs.get("output_corner_tokens"):
            text_embeds = torch.cat([text_embeds, text_outputs.corner_pooler_output], dim=1)
        text_embeds = text_embeds.float()
        text_embeds = text_embeds / _get_vector_norm(text_embeds)

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
        token_type_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipOutput:
        r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, length)` or `(batch_size, captions, length)`):
            The texts: one for each image, or the short caption of each image first and its long captions after it. A
            caption whose attention mask is all zero is absent.
        attention_mask (`torch.Tensor` of the shape of `input_ids`, *optional*):
            1 for tokens, 0 for padding.
        position_ids (`torch.LongTensor` of the shape of `input_ids`, *optional*):
            Positions of the tokens, final: without them those of the text begin at `num_corner_tokens + 1`.
        return_loss (`bool`, *optional*):
            Whether or not to return the contrastive loss. A single caption counts as a long one: `[CLS]` and every
            corner token are contrasted with the image.
        token_type_ids (`torch.LongTensor` of the shape of `input_ids`, *optional*):
            Taken as other BERTs take them; every token of LoTLIP has type 0, the default.

        Examples:

        ```python
        >>> import torch
        >>> from transformers import AutoModel, AutoProcessor
        >>> from transformers.image_utils import load_image

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = AutoModel.from_pretrained(model_id, device_map="auto")
        >>> processor = AutoProcessor.from_pretrained(model_id)

        >>> url = "http://images.cocodataset.org/val2017/000000039769.jpg"
        >>> texts = ["a photo of a dog", "Two cats lie on a pink blanket. A remote control is beside each of them."]
        >>> inputs = processor(text=texts, images=load_image(url), return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     outputs = model(**inputs)
        >>> probs = outputs.logits_per_image.softmax(dim=1)  # we can take the softmax to get the label probabilities
        ```"""
        if input_ids is None:
            raise ValueError("You have to specify input_ids")

        text_inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
        }
        text_inputs = {name: tensor for name, tensor in text_inputs.items() if tensor is not None}
        has_several_captions = input_ids.dim() == 3

        vision_outputs: BaseModelOutputWithPooling = self.get_image_features(
            pixel_values=pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            **kwargs,
        )
        image_embeds = vision_outputs.pooler_output.float()
        image_embeds = image_embeds / _get_vector_norm(image_embeds)

        text_embeds, present = [], []
        if has_several_captions:
            short_inputs = {name: tensor[:, 0] for name, tensor in text_inputs.items()}
            short_embeds, short_present, text_outputs = self._embed_captions(**short_inputs, **kwargs)
            text_embeds.append(short_embeds)
            present.append(short_present)
            text_inputs = {name: tensor[:, 1:].flatten(0, 1) for name, tensor in text_inputs.items()}
        if text_inputs["input_ids"].shape[0] > 0:
            long_embeds, long_present, text_outputs = self._embed_captions(
                **text_inputs, output_corner_tokens=bool(has_several_captions or return_loss), **kwargs
            )
            # the slots of an image side by side: [CLS] and corners of its first long caption, of its second, ...
            text_embeds.append(long_embeds.unflatten(0, (input_ids.shape[0], -1)).flatten(1, 2))
            present.append(long_present.unflatten(0, (input_ids.shape[0], -1)).flatten(1, 2))
        text_embeds, present = torch.cat(text_embeds, dim=1), torch.cat(present, dim=1)

        # cosine similarity as logits
        image_embeds = image_embeds.to(text_embeds.device)
        logit_scale = self.logit_scale.float().exp().to(text_embeds.device)
        logits_per_text = compute_logits(text_embeds[:, 0], image_embeds, logit_scale)
        logits_per_image = logits_per_text.t()

        loss = None
        if return_loss:
            loss = image_text_contrastive_loss(image_embeds, text_embeds, logit_scale, present)

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


@auto_docstring
class LotlipTextModelWithProjection(LotlipPreTrainedModel):
    config: LotlipTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual", r"^logit_"]

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
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to return the projected corner tokens too, as `corner_embeds`.

        Examples:

        ```python
        >>> import torch
        >>> from transformers import AutoTokenizer, LotlipTextModelWithProjection

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = LotlipTextModelWithProjection.from_pretrained(model_id, device_map="auto")
        >>> tokenizer = AutoTokenizer.from_pretrained(model_id)

        >>> inputs = tokenizer(["A red boat. The sky is grey."], return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     text_embeds = model(**inputs).text_embeds
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


@auto_docstring
class LotlipVisionModelWithProjection(LotlipPreTrainedModel):
    config: LotlipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [r"^text", r"^logit_"]

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
        >>> from transformers import AutoImageProcessor, LotlipVisionModelWithProjection
        >>> from transformers.image_utils import load_image

        >>> model_id = "weiwu-ww/LoTLIP-ViT-B-16-100M"
        >>> model = LotlipVisionModelWithProjection.from_pretrained(model_id, device_map="auto")
        >>> image_processor = AutoImageProcessor.from_pretrained(model_id)

        >>> url = "http://images.cocodataset.org/val2017/000000039769.jpg"
        >>> inputs = image_processor(load_image(url), return_tensors="pt").to(model.device)

        >>> with torch.inference_mode():
        ...     image_embeds = model(**inputs).image_embeds
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


__all__ = [
    "LotlipConfig",
    "LotlipImageProcessor",
    "LotlipImageProcessorPil",
    "LotlipModel",
    "LotlipPreTrainedModel",
    "LotlipProcessor",
    "LotlipTextConfig",
    "LotlipTextModel",
    "LotlipTextModelWithProjection",
    "LotlipTokenizer",
    "LotlipVisionConfig",
    "LotlipVisionModel",
    "LotlipVisionModelWithProjection",
]

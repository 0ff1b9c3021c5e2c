# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
LoTLIP, written once: of this file `make modular` makes the others of the model, with the library's converter.

In the files for this package, which are also the code on the Hub, these base classes are not the library's: they come
from two files that extend the library's classes of the same names. `tests/upstream/lay_out.py` swaps them, by this
list. In the library's own tree they stay the library's.

    hub_lotlip: PreTrainedConfig, PreTrainedModel, TokenizersBackend, TorchvisionBackend, PilBackend
    hub_processing_lotlip: ProcessorMixin
"""

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
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, SizeDict
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import (
    CLIPAttention,
    CLIPEncoderLayer,
    CLIPOutput,
    CLIPTextModelOutput,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    _get_vector_norm,
)
from transformers.models.vit.configuration_vit import ViTConfig
from transformers.models.vit.modeling_vit import ViTEmbeddings
from transformers.processing_utils import ImagesKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import BatchEncoding, PreTokenizedInput, TextInput
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs


VOCAB_FILES_NAMES = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}

# Stands for the separator while BERT's normalizer, which would lowercase it, is at work: a rare punctuation mark that
# the normalizer leaves alone. One in the text is exchanged for its neighbor; both are unknown to BERT.
SEPARATOR_MARK = "\u2cf9"
SEPARATOR_MARK_NEIGHBOR = "\u2cfa"


class LotlipTokenizer(TokenizersBackend):
    r"""
    Construct a LoTLIP tokenizer (backed by HuggingFace's tokenizers library): BERT's WordPiece, in which each
    sub-caption of a long caption ends in a separator. Every `". "` becomes a `sep_token`, then the text is cleaned
    with ftfy and HTML unescaping, as in the original implementation.
    The arguments are those of [`BertTokenizer`]. The corner tokens belong to the model: `model_max_length` (126, the
    context of 128 less two corner tokens) counts `[CLS]` and `[SEP]`, not them. The low-level `encodings` of an
    output, and the offsets in them, are of `tokenizer.clean_text(text)`.
    """

    class CleanedEncoding(BatchEncoding):
        """The encoding of texts that were cleaned: which characters of the texts as given its tokens are is lost."""

        def char_to_token(self, *args, **kwargs):
            raise ValueError(
                "Characters cannot be matched with tokens, because the tokenizer cleaned a text "
                "(ftfy, HTML entities). Tokenize `tokenizer.clean_text(text)`, of which "
                "characters and tokens are known."
            )

        token_to_chars = char_to_token
        char_to_word = char_to_token
        word_to_chars = char_to_token

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
            vocab = kwargs.get("vocab_file")  # as transformers 4 called it
        if vocab is None:
            special_tokens = (pad_token, unk_token, cls_token, sep_token, mask_token)
            vocab = {str(token): index for index, token in enumerate(special_tokens)}
        self._tokenizer = Tokenizer(WordPiece(vocab, unk_token=str(unk_token)))
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
        bert_normalizer = normalizers.BertNormalizer(True, tokenize_chinese_chars, strip_accents, do_lower_case)
        self._tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Replace(SEPARATOR_MARK, SEPARATOR_MARK_NEIGHBOR),
                normalizers.Replace(self.sep_token, SEPARATOR_MARK),
                normalizers.Replace(". ", SEPARATOR_MARK),
                bert_normalizer,
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
        """Cleans with ftfy and HTML unescaping. A text that these leave as it is is returned as it is."""
        # printable ASCII without entities, which is most of all texts
        if text.isascii() and text.replace("\n", "").isprintable() and "&" not in text:
            return text

        import ftfy  # not at the top: plain ASCII does without it

        separated = text.replace(". ", self.sep_token)
        cleaned = html.unescape(html.unescape(ftfy.fix_text(separated)))
        # the normalizer puts the separators in, and knows which characters of the text its tokens are; but it drops a
        # form feed, which separates words here
        if cleaned == separated and "\f" not in text:
            return text
        # joined by line breaks, so that a full stop that only now stands before whitespace makes no separator
        return "\n".join(cleaned.split())

    def _clean(self, text: TextInput | PreTokenizedInput | list | None) -> str | list | tuple | None:
        if isinstance(text, str):
            return self.clean_text(text)
        if isinstance(text, (list, tuple)):
            return type(text)(self._clean(item) for item in text)
        return text

    def _encode_plus(self, text, text_pair=None, return_offsets_mapping=False, **kwargs) -> BatchEncoding:
        cleaned_text = self._clean(text)
        cleaned_pair = self._clean(text_pair)
        is_as_given = cleaned_text == text and cleaned_pair == text_pair
        if return_offsets_mapping and not is_as_given:
            raise ValueError(
                "`return_offsets_mapping=True` needs texts that the tokenizer need not clean "
                "(ftfy, HTML entities): tokenize `tokenizer.clean_text(text)`, of which the "
                "offsets are known."
            )
        encoding = super()._encode_plus(
            cleaned_text, text_pair=cleaned_pair, return_offsets_mapping=return_offsets_mapping, **kwargs
        )
        if is_as_given:
            return encoding
        return self.CleanedEncoding(encoding.data, encoding.encodings, n_sequences=encoding.n_sequences)


def get_crop_box(height: int, width: int, size: SizeDict) -> tuple[slice, slice]:
    """Computes the box of a center crop. Its offset is rounded half to even, as in the original implementation."""
    crop_height = min(size.height, height)
    crop_width = min(size.width, width)
    top = round((height - crop_height) / 2)
    left = round((width - crop_width) / 2)
    return slice(top, top + crop_height), slice(left, left + crop_width)


@auto_docstring
class LotlipImageProcessor(CLIPImageProcessor):
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD

    def __init__(self, **kwargs: Unpack[ImagesKwargs]):
        raise AttributeError("The library's default is enough")

    def center_crop(self, image: "torch.Tensor", size: SizeDict, **kwargs) -> "torch.Tensor":
        """
        Crops images to their center, and pads those that are smaller.

        Args:
            image (`torch.Tensor` of shape `(..., height, width)`):
                The images.
            size (`SizeDict`):
                The height and the width of the crop.
        """
        rows, columns = get_crop_box(*image.shape[-2:], size)
        return TorchvisionBackend.center_crop(self, image[..., rows, columns], size, **kwargs)


@auto_docstring
class LotlipImageProcessorPil(CLIPImageProcessorPil):
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD

    def __init__(self, **kwargs: Unpack[ImagesKwargs]):
        raise AttributeError("The library's default is enough")

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """
        Crops images to their center, and pads those that are smaller.

        Args:
            image (`np.ndarray` of shape `(..., height, width)`):
                The images.
            size (`SizeDict`):
                The height and the width of the crop.
        """
        rows, columns = get_crop_box(*image.shape[-2:], size)
        return PilBackend.center_crop(self, image[..., rows, columns], size, **kwargs)


@auto_docstring
class LotlipProcessor(ProcessorMixin):
    text_kwargs = {"padding": True, "truncation": True}

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)


@auto_docstring(checkpoint="weiwu-ww/LoTLIP-ViT-B-16-100M")
@strict
class LotlipTextConfig(BertConfig):
    r"""
    num_corner_tokens (`int`, *optional*, defaults to 2):
        Number of corner tokens, learned tokens between `[CLS]` and the text. With 0 the tower is a plain BERT.
    corner_attention_mask (`bool`, *optional*, defaults to `True`):
        Whether corner tokens are hidden from `[CLS]`, from the text and from each other, and `[CLS]` from them. With
        `False` all tokens see each other, and the corner tokens are always part of the sequence.
    """

    model_type = "lotlip_text_model"
    base_config_key = "text_config"
    attribute_map = {"attention_dropout": "attention_probs_dropout_prob"}

    num_corner_tokens: int = 2
    corner_attention_mask: bool = True
    projection_dim: int = 768
    use_cache = AttributeError()
    classifier_dropout = AttributeError()
    is_decoder = AttributeError()
    add_cross_attention = AttributeError()
    tie_word_embeddings = AttributeError()

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        PreTrainedConfig.validate_architecture(self)
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention "
                f"heads ({self.num_attention_heads})."
            )
        if not 0 <= self.num_corner_tokens < self.max_position_embeddings:
            raise ValueError(
                f"`num_corner_tokens` ({self.num_corner_tokens}) must be at least 0 and smaller "
                f"than `max_position_embeddings` ({self.max_position_embeddings}): every corner "
                "token takes a position."
            )


@auto_docstring(checkpoint="weiwu-ww/LoTLIP-ViT-B-16-100M")
@strict
class LotlipVisionConfig(ViTConfig):
    r"""
    projection_dim (`int`, *optional*):
        Width of a bias-free linear projection of the image embedding. Without it (as in the released checkpoints) the
        image embedding is the final `[CLS]` state itself, and texts are projected to its width.
    """

    model_type = "lotlip_vision_model"
    base_config_key = "vision_config"
    attribute_map = {"attention_dropout": "attention_probs_dropout_prob"}

    layer_norm_eps: float = 1e-6
    projection_dim: int | None = None
    qkv_bias = AttributeError()
    encoder_stride = AttributeError()
    pooler_output_size = AttributeError()
    pooler_act = AttributeError()

    def __post_init__(self, **kwargs):
        raise AttributeError("Not needed here")

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        PreTrainedConfig.validate_architecture(self)
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"The hidden size ({self.hidden_size}) is not a multiple of the number of attention "
                f"heads ({self.num_attention_heads})."
            )


@auto_docstring(checkpoint="weiwu-ww/LoTLIP-ViT-B-16-100M")
@strict
class LotlipConfig(PreTrainedConfig):
    r"""
    projection_dim (`int`, *optional*, defaults to 768):
        Width of the shared embedding space. The `projection_dim` of the text tower must equal it, and so must that of
        the image tower, or its `hidden_size` where it has no projection.
    """

    model_type = "lotlip"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=LotlipTextConfig),
        "vision_config": SubConfigSpec(config_class=LotlipVisionConfig),
    }

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
                "Texts and images are compared in one space, but `text_config.projection_dim` is "
                f"{self.text_config.projection_dim}, `projection_dim` is {self.projection_dim}, "
                f"and the width of the image embeddings {vision_dim} "
                "(`vision_config.projection_dim`, or without it the `hidden_size`)."
            )


@auto_docstring(custom_intro="Output of the text tower: that of a pooled encoder, and the corner tokens if asked for.")
@dataclass
class LotlipBaseModelOutputWithPooling(BaseModelOutputWithPooling):
    r"""
    corner_hidden_states (`torch.Tensor` of shape `(batch_size, num_corner_tokens, hidden_size)`, *optional*):
        Hidden states of the corner tokens at the output of the last layer.
    corner_pooler_output (`torch.Tensor` of shape `(batch_size, num_corner_tokens, hidden_size)`, *optional*):
        Corner tokens after the pooler, and in the output of [`LotlipModel.get_text_features`] after the projection.
    """

    corner_hidden_states: torch.Tensor | None = None
    corner_pooler_output: torch.Tensor | None = None


@auto_docstring(custom_intro="Output of a text tower with a projection.")
@dataclass
class LotlipTextModelOutput(CLIPTextModelOutput):
    r"""
    text_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`):
        The text embeddings: the projected pooler output of `[CLS]`, not normalized.
    corner_embeds (`torch.Tensor` of shape `(batch_size, num_corner_tokens, projection_dim)`, *optional*):
        The projected pooler output of the corner tokens, where they were computed.
    """

    corner_embeds: torch.Tensor | None = None


class LotlipOutput(CLIPOutput):
    pass


@auto_docstring(custom_intro="The embeddings of captions, by name: of length 1, in float32; zero if absent.")
@dataclass
class LotlipCaptionEmbeddings(ModelOutput):
    r"""
    short (`torch.FloatTensor` of shape `(batch_size, projection_dim)`, *optional*):
        The short caption of each image: its `[CLS]`, projected and normalized.
    short_mask (`torch.BoolTensor` of shape `(batch_size,)`, *optional*):
        Whether the image has a short caption.
    long (`torch.FloatTensor` of shape `(batch_size, captions, projection_dim)`, *optional*):
        The long captions of each image: their `[CLS]`, projected and normalized.
    long_mask (`torch.BoolTensor` of shape `(batch_size, captions)`, *optional*):
        Whether the image has this long caption.
    corners (`torch.FloatTensor` of shape `(batch_size, captions, num_corner_tokens, projection_dim)`, *optional*):
        The corner tokens of the long captions, projected and normalized; `None` if the model has none.
    """

    short: torch.FloatTensor | None = None
    short_mask: torch.BoolTensor | None = None
    long: torch.FloatTensor | None = None
    long_mask: torch.BoolTensor | None = None
    corners: torch.FloatTensor | None = None


def stack_slots(captions: LotlipCaptionEmbeddings) -> tuple[torch.FloatTensor, torch.BoolTensor]:
    """
    Puts the features of each image's captions side by side: the short caption's `[CLS]`, then `[CLS]` and the corner
    tokens of the first long caption, and so on. Returns the features of shape `(batch, slots, dim)`, and which of them
    are there, of shape `(batch, slots)`.
    """
    features = []
    masks = []
    if captions.short is not None:
        features.append(captions.short[:, None])
        masks.append(captions.short_mask[:, None])
    if captions.long is not None:
        long_features = captions.long[:, :, None]
        if captions.corners is not None:
            long_features = torch.cat([long_features, captions.corners], dim=2)
        long_masks = captions.long_mask[:, :, None].expand(-1, -1, long_features.shape[2])
        features.append(long_features.flatten(1, 2))
        masks.append(long_masks.flatten(1, 2))
    return torch.cat(features, dim=1), torch.cat(masks, dim=1)


def normalize_present(embeds: torch.Tensor, mask: torch.BoolTensor) -> torch.FloatTensor:
    """
    Normalizes the embeddings of texts, of shape `(texts, dim)` or `(texts, tokens, dim)`, in float32. Those of texts
    that are absent, by a mask of shape `(texts,)`, become zero.
    """
    embeds = embeds.float()
    embeds = embeds / _get_vector_norm(embeds)
    return embeds.masked_fill(~mask.view(-1, *[1] * (embeds.dim() - 1)), 0)


def select_arguments(arguments: dict, prefix: str, other_prefix: str) -> dict:
    """Selects the arguments of one of two calls: those with its prefix, which is dropped, and those with neither."""
    selected = {}
    for name, value in arguments.items():
        if not name.startswith(other_prefix):
            selected[name.removeprefix(prefix)] = value
    return selected


def flatten_captions(text_inputs: dict) -> dict:
    """Flattens those inputs that are tensors of shape `(batch, captions, length)` to `(batch * captions, length)`."""
    flattened = dict(text_inputs)
    for name, value in text_inputs.items():
        if isinstance(value, torch.Tensor) and value.dim() == 3:
            flattened[name] = value.flatten(0, 1)
    return flattened


def name_caption_inputs(text_inputs: dict[str, torch.Tensor | None], is_long: bool) -> dict[str, torch.Tensor]:
    """
    Names the inputs of texts of [`LotlipModel.forward`] for
    [`LotlipModel.embed_captions`]. Of inputs of shape `(batch, captions, length)` the first caption of each
    image is the short one, the others are long ones. A single caption, of shape `(batch, length)`, is a long one if
    `is_long`, otherwise a short one.
    """
    input_ids = text_inputs["input_ids"]
    if input_ids is None:
        raise ValueError("You have to specify `input_ids`.")
    captions = {}
    for name, tensor in text_inputs.items():
        if tensor is None:
            continue
        if input_ids.dim() != 3:
            if is_long:
                captions[f"long_{name}"] = tensor[:, None]
            else:
                captions[f"short_{name}"] = tensor
            continue
        if tensor.shape != input_ids.shape or tensor.shape[1] == 0:
            raise ValueError(
                f"`{name}` must be of shape (batch_size, captions, length), with a caption at "
                f"least and equal for all inputs of texts, got {tuple(tensor.shape)}."
            )
        captions[f"short_{name}"] = tensor[:, 0]
        if tensor.shape[1] > 1:
            captions[f"long_{name}"] = tensor[:, 1:]
    return captions


def compute_logits(text_embeds: torch.Tensor, image_embeds: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """
    Computes scaled similarities of texts, of shape `(..., texts, dim)`, with images, of shape `(images, dim)`, in
    float32, under autocast too. Returns them with shape `(..., texts, images)`.
    """
    with maybe_autocast(text_embeds.device.type, enabled=False):
        return torch.matmul(text_embeds.float(), image_embeds.float().t()) * logit_scale.float()


def image_text_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Computes the loss of LoTLIP (Wu et al., 2024, https://arxiv.org/abs/2410.05249, section 3): every image is
    contrasted with each of its texts' features by symmetric InfoNCE. A slot is one feature per image (the short
    caption's `[CLS]`, a long caption's `[CLS]` or one of its corner tokens); other slots are no negatives.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`):
            Normalized features of the images.
        text_embeds (`torch.Tensor` of shape `(batch_size, slots, dim)`):
            Normalized features of their texts.
        logit_scale (`torch.Tensor`):
            The inverse temperature, a scalar.
        present (`torch.Tensor` of shape `(batch_size, slots)`, *optional*):
            `False` where an image lacks the caption of a slot: it is neither positive nor negative there.

    Returns:
        `torch.Tensor`: the mean over the slots that have at least two pairs, in float32; 0 if none has.
    """
    if present is None:
        present = torch.ones(text_embeds.shape[:2], dtype=torch.bool, device=text_embeds.device)
    logits = compute_logits(text_embeds.transpose(0, 1), image_embeds, logit_scale)

    pairs = present.t()
    compared = pairs[:, :, None] & pairs[:, None, :]
    logits = logits.masked_fill(~compared, torch.finfo(logits.dtype).min)

    counted = (pairs.sum(dim=-1) > 1).to(logits.dtype)
    pairs = pairs.to(logits.dtype)
    log_likelihood = logits.log_softmax(dim=-1) + logits.log_softmax(dim=-2)
    log_likelihood = log_likelihood.diagonal(dim1=-2, dim2=-1)
    losses = -0.5 * (log_likelihood * pairs).sum(dim=-1) / pairs.sum(dim=-1).clamp(min=1)
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def insert_corners(tokens: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """
    Inserts the values of the corner tokens, of shape `(batch, corners, ...)`, after that of `[CLS]`, the first of the
    tokens, of shape `(batch, length, ...)`.
    """
    return torch.cat([tokens[:, :1], corners, tokens[:, 1:]], dim=1)


def corner_mask_function(num_corner_tokens: int) -> Callable:
    """
    Makes the mask function of transformers in which a corner token is seen by itself alone, and sees itself and the
    text, not `[CLS]` (Wu et al., 2024, https://arxiv.org/abs/2410.05249, section 3.3).
    """

    def _mask_function(batch_idx: int, head_idx: int, q_idx: int, kv_idx: int) -> bool:
        query_is_corner = (q_idx >= 1) & (q_idx <= num_corner_tokens)
        key_is_corner = (kv_idx >= 1) & (kv_idx <= num_corner_tokens)
        return (q_idx == kv_idx) | (~key_is_corner & ~(query_is_corner & (kv_idx == 0)))

    return _mask_function


class LotlipTextEmbeddings(nn.Module):
    """Words, positions and token types as in BERT, and the corner tokens after `[CLS]`."""

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
        position_ids = torch.arange(config.max_position_embeddings).expand((1, -1))
        self.position_ids = nn.Buffer(position_ids, persistent=False)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        with_corner_tokens: bool = False,
    ) -> torch.Tensor:
        """
        Embeds the tokens of texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The words; or `inputs_embeds`.
            token_type_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Their types, 0 by default.
            position_ids (`torch.LongTensor` of shape `(batch, length)` or `(1, length)`, *optional*):
                Their positions. By default those of the text begin after those of the corner tokens.
            inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`, *optional*):
                Embeddings of the words.
            with_corner_tokens (`bool`, *optional*, defaults to `False`):
                Whether to insert the corner tokens after `[CLS]`.

        Returns:
            `torch.Tensor` of shape `(batch, length, hidden_size)`, or `(batch, length + corners, hidden_size)`.
        """
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        batch_size, seq_length, _ = inputs_embeds.shape
        num_corner_tokens = self.num_corner_tokens
        max_seq_length = self.position_ids.shape[-1] - num_corner_tokens
        if position_ids is None:
            if seq_length > max_seq_length:
                raise ValueError(
                    f"The texts have {seq_length} tokens, but the position table ends at "
                    f"{max_seq_length}: `max_position_embeddings` less `num_corner_tokens` "
                    f"({num_corner_tokens}). Truncate them."
                )
            position_ids = self.position_ids[:, :seq_length]
            # the positions between [CLS] and the text belong to the corner tokens, computed or not
            position_ids = torch.where(position_ids > 0, position_ids + num_corner_tokens, position_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        if with_corner_tokens:
            corner_tokens = self.corner_tokens.to(inputs_embeds.dtype).expand(batch_size, -1, -1)
            corner_position_ids = self.position_ids[:, 1 : num_corner_tokens + 1]
            corner_position_ids = corner_position_ids.expand(position_ids.shape[0], -1)
            corner_type_ids = token_type_ids.new_zeros(token_type_ids.shape[0], num_corner_tokens)
            inputs_embeds = insert_corners(inputs_embeds, corner_tokens)
            position_ids = insert_corners(position_ids, corner_position_ids)
            token_type_ids = insert_corners(token_type_ids, corner_type_ids)
        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings = embeddings + self.position_embeddings(position_ids)
        return self.dropout(self.layer_norm(embeddings))


class LotlipVisionEmbeddings(ViTEmbeddings):
    pass


class LotlipAttention(CLIPAttention):
    pass


class LotlipTextLayer(CLIPEncoderLayer):
    """Post-norm, as in BERT."""

    def __init__(self, config: LotlipTextConfig):
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Applies attention and MLP to hidden states of shape `(batch, length, hidden_size)`."""
        residual = hidden_states
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, **kwargs)
        hidden_states = self.layer_norm1(residual + self.dropout(hidden_states))

        residual = hidden_states
        hidden_states = self.mlp(hidden_states)
        return self.layer_norm2(residual + self.dropout(hidden_states))


class LotlipVisionLayer(CLIPEncoderLayer):
    """Pre-norm, as in ViT."""

    def __init__(self, config: LotlipVisionConfig):
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Applies attention and MLP to hidden states of shape `(batch, length, hidden_size)`."""
        residual = hidden_states
        hidden_states = self.layer_norm1(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, **kwargs)
        hidden_states = residual + self.dropout(hidden_states)

        residual = hidden_states
        hidden_states = self.mlp(self.layer_norm2(hidden_states))
        return residual + self.dropout(hidden_states)


class LotlipTextPooler(nn.Module):
    """BERT's pooler, for any number of tokens."""

    def __init__(self, config: LotlipTextConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Pools hidden states of shape `(..., hidden_size)`, each for itself."""
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
    # context parallelism knows causal attention only
    _supports_context_parallel = False
    _can_compile_fullgraph = True

    def _init_weights(self, module):
        """Initialize the weights"""
        super()._init_weights(module)
        if isinstance(module, LotlipTextEmbeddings):
            if module.corner_tokens is not None:
                init.normal_(module.corner_tokens, mean=0.0, std=self.config.initializer_range)
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1]).expand((1, -1)))
        elif isinstance(module, LotlipVisionEmbeddings):
            init.trunc_normal_(module.cls_token, mean=0.0, std=self.config.initializer_range)
            init.trunc_normal_(module.position_embeddings, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, LotlipModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    def post_init(self):
        """As in the library, but without the patterns of its towers: they hold for a tower loaded alone."""
        super().post_init()
        patterns = type(self)._keys_to_ignore_on_load_unexpected
        self._keys_to_ignore_on_load_unexpected = set(patterns or [])


@auto_docstring(custom_intro="The text tower of LoTLIP, not projected: a BERT with corner tokens after `[CLS]`.")
class LotlipTextModel(LotlipPreTrainedModel):
    config: LotlipTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    _input_embed_layer = "word_embeddings"
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
        Args:
            attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
                1 for tokens, 0 for padding.
            output_corner_tokens (`bool`, *optional*, defaults to `False`):
                Whether to compute the corner tokens too. Under the attention mask nothing else reads them: the other
                outputs are the same with and without. `hidden_states` and `attentions` then hold them at 1 to
                `num_corner_tokens`. Without the mask (`config.corner_attention_mask=False`) they are always computed.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of `input_ids` and `inputs_embeds`.")
        if attention_mask is not None:
            shape = inputs_embeds.shape[:2] if input_ids is None else input_ids.shape
            if attention_mask.shape != shape:
                raise ValueError(
                    "`attention_mask` must be of shape (batch_size, length), 1 for tokens and 0 for "
                    f"padding: here {tuple(shape)}, got {tuple(attention_mask.shape)}."
                )
            # 0 for tokens and -inf for padding would be read the other way round
            may_be_additive = attention_mask.is_floating_point() and not is_tracing(attention_mask)
            if may_be_additive and (attention_mask < 0).any():
                raise ValueError(
                    "`attention_mask` must be 1 for tokens and 0 for padding, got values down to "
                    f"{attention_mask.min():g}."
                )
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        num_corner_tokens = self.config.num_corner_tokens
        with_corner_tokens = output_corner_tokens or not self.config.corner_attention_mask
        with_corner_tokens = with_corner_tokens and num_corner_tokens > 0

        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, with_corner_tokens)
        attention_mask = self._create_attention_mask(hidden_states, attention_mask, with_corner_tokens)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        pooler_output = self.pooler(hidden_states[:, 0])
        if not with_corner_tokens:
            return LotlipBaseModelOutputWithPooling(
                last_hidden_state=hidden_states,
                pooler_output=pooler_output,
            )
        cls_hidden_state = hidden_states[:, :1]
        corner_hidden_states = hidden_states[:, 1 : num_corner_tokens + 1]
        text_hidden_states = hidden_states[:, num_corner_tokens + 1 :]
        return LotlipBaseModelOutputWithPooling(
            last_hidden_state=torch.cat([cls_hidden_state, text_hidden_states], dim=1),
            pooler_output=pooler_output,
            corner_hidden_states=corner_hidden_states,
            corner_pooler_output=self.pooler(corner_hidden_states),
        )

    def _create_attention_mask(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, with_corner_tokens: bool
    ):
        """The mask of all layers, made of that of padding; it hides the corner tokens if the configuration says so."""
        num_corner_tokens = self.config.num_corner_tokens
        if with_corner_tokens and attention_mask is not None:
            corner_mask = attention_mask.new_ones(attention_mask.shape[0], num_corner_tokens)
            attention_mask = insert_corners(attention_mask, corner_mask)
        implementation = self.config._attn_implementation
        if attention_mask is not None and implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
            raise ValueError(
                f"`attn_implementation={implementation!r}` has no function of masks, and would read "
                "padding as text. Call `model.set_attn_implementation('sdpa')` (or 'eager', "
                "'flex_attention')."
            )
        hides_corners = with_corner_tokens and self.config.corner_attention_mask
        mask_function = None
        if hides_corners:
            mask_function = corner_mask_function(num_corner_tokens)
        attention_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            and_mask_function=mask_function,
        )
        # flash attention and unknown backends take a padding mask at most: the corner mask would be dropped in silence
        if hides_corners and (attention_mask is None or len(attention_mask.shape) == 2):
            raise ValueError(
                f"`attn_implementation={implementation!r}` cannot hide the "
                "corner tokens from the text. Call `model.set_attn_implementation('sdpa')` (or "
                "'eager', 'flex_attention') to compute them."
            )
        return attention_mask


@auto_docstring(custom_intro="The image tower of LoTLIP, not projected: a ViT, pooled at the final `[CLS]` state.")
class LotlipVisionModel(LotlipPreTrainedModel):
    config: LotlipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embeddings"
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
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The images, as the image processor makes them.
        """
        if pixel_values is None:
            raise ValueError("You have to specify `pixel_values`.")
        pixel_values = pixel_values.to(self.embeddings.patch_embeddings.projection.weight.dtype)
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        for layer in self.layers:
            hidden_states = layer(hidden_states, None, **kwargs)
        last_hidden_state = self.post_layernorm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=last_hidden_state[:, 0])


@auto_docstring(custom_intro="The dual encoder: texts and images in one space, trained on short and long captions.")
class LotlipModel(LotlipPreTrainedModel):
    config: LotlipConfig
    # the loss is a mean over slots: `Trainer` has no number of items to pass
    accepts_loss_kwargs = False

    def __init__(self, config: LotlipConfig):
        super().__init__(config)
        text_config = config.text_config
        vision_config = config.vision_config
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
        output_corner_tokens: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            The texts, padded on the right.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to return the projected corner tokens too, as `corner_pooler_output`.
        """
        text_outputs: LotlipBaseModelOutputWithPooling = self.text_model(
            input_ids, attention_mask, output_corner_tokens=output_corner_tokens, return_dict=True, **kwargs
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
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The images, as the image processor makes them.
        """
        vision_outputs: BaseModelOutputWithPooling = self.vision_model(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )
        vision_outputs.pooler_output = self.visual_projection(vision_outputs.pooler_output)
        return vision_outputs

    @auto_docstring
    def embed_images(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        tower_outputs: dict | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.FloatTensor:
        r"""
        tower_outputs (`dict`, *optional*):
            Where to put the output of the image tower, as `vision_model_output`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`: the image embeddings, of length 1, in float32.
            `forward` and training call this method: a subclass that embeds images otherwise overrides it alone.
        """
        vision_outputs: BaseModelOutputWithPooling = self.get_image_features(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )
        if tower_outputs is not None:
            tower_outputs["vision_model_output"] = vision_outputs
        image_embeds = vision_outputs.pooler_output.float()
        return image_embeds / _get_vector_norm(image_embeds)

    @auto_docstring
    def embed_captions(
        self,
        short_input_ids: torch.LongTensor | None = None,
        short_attention_mask: torch.Tensor | None = None,
        long_input_ids: torch.LongTensor | None = None,
        long_attention_mask: torch.Tensor | None = None,
        tower_outputs: dict | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipCaptionEmbeddings:
        r"""
        Args:
            short_input_ids (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                The short caption of each image, padded on the right.
            short_attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
                1 for tokens, 0 for padding. A caption of padding alone is absent: its mask is `False`, its embedding
                zero.
            long_input_ids (`torch.LongTensor` of shape `(batch_size, captions, length)`, *optional*):
                The long captions of each image, padded to a length of their own. Their corner tokens are embedded too.
            long_attention_mask (`torch.Tensor` of shape `(batch_size, captions, length)`, *optional*):
                The same for the long captions.
            tower_outputs (`dict`, *optional*):
                Where to put the output of the text tower, as `text_model_output`: that of the short captions if there
                are any, otherwise that of the long ones.
            kwargs (`dict`, *optional*):
                Arguments of the text tower; those that begin with `short_` or `long_` are for these captions alone,
                such as `short_position_ids`.

        Returns:
            [`LotlipCaptionEmbeddings`]: the embeddings by name. `forward` and training call this method: a subclass
            that embeds captions otherwise overrides it alone.
        """
        if short_input_ids is None and long_input_ids is None:
            raise ValueError("You have to specify `short_input_ids`, `long_input_ids` or both.")

        embeddings = {}
        text_outputs = None
        if long_input_ids is not None:
            if long_input_ids.dim() != 3:
                raise ValueError(
                    "`long_input_ids` must be of shape (batch_size, captions, length), got "
                    f"{tuple(long_input_ids.shape)}."
                )
            text_inputs = {"input_ids": long_input_ids, "attention_mask": long_attention_mask}
            text_inputs |= select_arguments(kwargs, prefix="long_", other_prefix="short_")
            text_inputs = flatten_captions(text_inputs)
            text_outputs, mask = self._embed_texts(**text_inputs, output_corner_tokens=True)
            embeddings["long"] = normalize_present(text_outputs.pooler_output, mask)
            embeddings["long_mask"] = mask
            if text_outputs.corner_pooler_output is not None:
                embeddings["corners"] = normalize_present(text_outputs.corner_pooler_output, mask)
            batch_and_captions = long_input_ids.shape[:2]
            for name, value in embeddings.items():
                embeddings[name] = value.unflatten(0, batch_and_captions)
        if short_input_ids is not None:
            if short_input_ids.dim() != 2:
                raise ValueError(
                    f"`short_input_ids` must be of shape (batch_size, length), got {tuple(short_input_ids.shape)}."
                )
            text_inputs = {"input_ids": short_input_ids, "attention_mask": short_attention_mask}
            text_inputs |= select_arguments(kwargs, prefix="short_", other_prefix="long_")
            text_outputs, mask = self._embed_texts(**text_inputs)
            embeddings["short"] = normalize_present(text_outputs.pooler_output, mask)
            embeddings["short_mask"] = mask
        if tower_outputs is not None:
            tower_outputs["text_model_output"] = text_outputs
        return LotlipCaptionEmbeddings(**embeddings)

    def _embed_texts(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None, **kwargs
    ) -> tuple[LotlipBaseModelOutputWithPooling, torch.BoolTensor]:
        """The projected output of the text tower, and which texts are not padding alone."""
        if attention_mask is None:
            mask = torch.ones(input_ids.shape[:1], dtype=torch.bool, device=input_ids.device)
        elif attention_mask.shape != input_ids.shape:
            raise ValueError(
                "`attention_mask` must be of shape (batch_size, length), 1 for tokens and 0 for "
                f"padding: of texts of shape {tuple(input_ids.shape)}, got "
                f"{tuple(attention_mask.shape)}."
            )
        else:
            mask = attention_mask.bool().any(dim=-1)
            # an absent text is computed as if it were there: its result is finite, and zeroed by the caller
            attention_mask = attention_mask.masked_fill(~mask[:, None], 1)
        return self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs), mask

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
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)` or `(batch_size, captions, length)`):
                The texts: one for each image, or the short caption of each image first and its long captions after it;
                `attention_mask`, `token_type_ids` and `position_ids` have the same shape. Then `text_embeds` has a
                slot for `[CLS]` of the short caption, and for `[CLS]` and the corner tokens of each long one, and
                `text_model_output` is of the short captions. A caption whose attention mask is all zero is absent, its
                embeddings are zero.
            position_ids (`torch.LongTensor` of the shape of `input_ids`, *optional*):
                Positions of the tokens, final: without them those of the text begin at `num_corner_tokens + 1`.
            return_loss (`bool`, *optional*):
                Whether to return the contrastive loss. A single caption counts as a long one: `[CLS]` and every corner
                token are contrasted with the image. With short captions alone (`captions` is 1) the corner tokens get
                no gradient: tell DistributedDataParallel with `find_unused_parameters=True`.
        """
        caption_inputs = name_caption_inputs(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "token_type_ids": token_type_ids,
                "position_ids": position_ids,
            },
            is_long=bool(return_loss),
        )
        has_several_captions = input_ids.dim() == 3

        tower_outputs = {}
        image_embeds = self.embed_images(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            tower_outputs=tower_outputs,
            **kwargs,
        )
        captions = self.embed_captions(**caption_inputs, tower_outputs=tower_outputs, **kwargs)
        if captions.short is not None:
            compared_embeds = captions.short
        else:
            compared_embeds = captions.long[:, 0]

        # cosine similarity as logits
        image_embeds = image_embeds.to(compared_embeds.device)
        logit_scale = self.logit_scale.float().exp().to(compared_embeds.device)
        logits_per_text = compute_logits(compared_embeds, image_embeds, logit_scale)

        slots, slots_mask = stack_slots(captions)
        loss = None
        if return_loss:
            if slots.shape[0] != image_embeds.shape[0]:
                raise ValueError(
                    "`return_loss=True` needs the captions of each image: got texts for "
                    f"{slots.shape[0]} images and `pixel_values` of {image_embeds.shape[0]}."
                )
            loss = image_text_contrastive_loss(image_embeds, slots, logit_scale, slots_mask)
        text_embeds = compared_embeds
        if has_several_captions:
            text_embeds = slots
        return LotlipOutput(
            loss=loss,
            logits_per_image=logits_per_text.t(),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds.to(self.dtype),
            image_embeds=image_embeds.to(self.dtype),
            **tower_outputs,
        )


@auto_docstring(custom_intro="The text tower of LoTLIP with the projection into the shared space.")
class LotlipTextModelWithProjection(CLIPTextModelWithProjection):
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual", r"^logit_"]

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
        output_corner_tokens: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LotlipTextModelOutput:
        r"""
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            The texts, padded on the right.
        output_corner_tokens (`bool`, *optional*, defaults to `False`):
            Whether to return the projected corner tokens too, as `corner_embeds`.
        """
        text_outputs: LotlipBaseModelOutputWithPooling = self.text_model(
            input_ids, attention_mask, output_corner_tokens=output_corner_tokens, return_dict=True, **kwargs
        )
        corner_embeds = text_outputs.corner_pooler_output
        if corner_embeds is not None:
            corner_embeds = self.text_projection(corner_embeds)
        return LotlipTextModelOutput(
            text_embeds=self.text_projection(text_outputs.pooler_output),
            last_hidden_state=text_outputs.last_hidden_state,
            hidden_states=text_outputs.hidden_states,
            attentions=text_outputs.attentions,
            corner_embeds=corner_embeds,
        )


@auto_docstring(custom_intro="The image tower of LoTLIP with the projection into the shared space, if it has one.")
class LotlipVisionModelWithProjection(CLIPVisionModelWithProjection):
    _keys_to_ignore_on_load_unexpected = [r"^text", r"^logit_"]

    def __init__(self, config: LotlipVisionConfig):
        super().__init__(config)
        self.visual_projection = (
            # CODEPATH: models with another width than the image tower's have one, the released checkpoints none
            nn.Linear(config.hidden_size, config.projection_dim, bias=False)
            if config.projection_dim is not None
            else nn.Identity()
        )

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    def forward(self, **super_kwargs):
        r"""The embeddings are not normalized."""
        return super().forward(**super_kwargs)


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

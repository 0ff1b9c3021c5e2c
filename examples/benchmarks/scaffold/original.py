# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""LoTLIP as the original code computes it, on transformers' BERT and ViT: the baseline of the benchmarks; and ours."""

import torch
from torch import nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from modeling_lotlip import LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor, LotlipTokenizer


SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class OriginalTextTower(nn.Module):
    """
    Every text padded to the context length, the corner tokens inside the sequence as words of the table, and the
    attention mask spelled out for each text.
    """

    def __init__(self, config: BertConfig, num_corner_tokens: int, projection_dim: int, context_length: int = 128):
        super().__init__()
        self.vocab_size = config.vocab_size
        self.num_corner_tokens = num_corner_tokens
        self.context_length = context_length
        config = BertConfig(**{**config.to_dict(), "vocab_size": config.vocab_size + num_corner_tokens})
        config._attn_implementation = "eager"
        self.bert = BertModel(config)
        self.projection = nn.Linear(config.hidden_size, projection_dim, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Ids and mask (texts, length), without corners, to features (texts, 1 + corners, dim)."""
        num_texts, num_corners = len(input_ids), self.num_corner_tokens
        corner_ids = torch.arange(self.vocab_size, self.vocab_size + num_corners, device=input_ids.device)
        input_ids = torch.cat([input_ids[:, :1], corner_ids.expand(num_texts, -1), input_ids[:, 1:]], dim=1)
        attention_mask = torch.cat([attention_mask.new_ones(num_texts, num_corners), attention_mask], dim=1)
        padding = (0, self.context_length - input_ids.shape[1])
        input_ids, attention_mask = nn.functional.pad(input_ids, padding), nn.functional.pad(attention_mask, padding)

        visible = attention_mask[:, None, :].bool().expand(-1, self.context_length, -1).clone()
        visible[:, :, 1 : num_corners + 1] = False
        visible[:, 1 : num_corners + 1, 0] = False
        corners = torch.arange(1, num_corners + 1)
        visible[:, corners, corners] = True
        dtype = self.projection.weight.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=input_ids.device)
        mask = mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]

        hidden_states = self.bert(input_ids, attention_mask=mask).last_hidden_state[:, : num_corners + 1]
        pooled = self.bert.pooler.activation(self.bert.pooler.dense(hidden_states))
        return self.projection(pooled)


class OriginalImageTower(nn.Module):
    """A ViT with eager attention, read at its class token."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        config._attn_implementation = "eager"
        self.vit = ViTModel(config, add_pooling_layer=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (images, 3, height, width) to features (images, width)."""
        return self.vit(pixel_values).last_hidden_state[:, 0]


def build_original(layers: int, device: str) -> tuple[OriginalTextTower, OriginalImageTower]:
    """Both towers at the size of the released ViT-B/16, with random weights and `layers` layers."""
    text_tower = OriginalTextTower(BertConfig(num_hidden_layers=layers), num_corner_tokens=2, projection_dim=768)
    image_tower = OriginalImageTower(ViTConfig(num_hidden_layers=layers, layer_norm_eps=1e-6))
    return text_tower.to(device).eval(), image_tower.to(device).eval()


def build_lotlip(layers: int, device: str, dtype: torch.dtype = torch.float32) -> LotlipModel:
    """The same model as this package computes it."""
    fields = {"num_hidden_layers": layers}
    return LotlipModel(LotlipConfig(text_config=fields, vision_config=fields)).to(device, dtype).eval()


def build_processor(vocab_size: int) -> tuple[list[str], LotlipProcessor]:
    """Words that are one token each, and a processor whose vocabulary has them and the special tokens."""
    words = [f"word{index}" for index in range(vocab_size - len(SPECIAL_TOKENS))]
    tokenizer = LotlipTokenizer(vocab={word: index for index, word in enumerate(SPECIAL_TOKENS + words)})
    return words, LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)

"""Like FG-CLIP 2: two ways for texts, embeddings returned as tensors, code that was written for transformers 4."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class Fgclip2TextConfig(PretrainedConfig):
    model_type = "fgclip2_text_model"
    base_config_key = "text_config"

    vocab_size: int = 400
    hidden_size: int = 24
    max_position_embeddings: int = 64
    longtext_len: int = 196
    keep_len: int = 20


class Fgclip2Config(PretrainedConfig):
    model_type = "fgclip2"
    sub_configs_defaults = {"text_config": Fgclip2TextConfig}

    text_config: dict | PretrainedConfig | None = None
    num_values: int = 768


class Fgclip2TextEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.position_embedding_res = nn.Embedding(config.longtext_len, config.hidden_size)
        self.register_buffer("position_ids", torch.arange(config.longtext_len).expand((1, -1)), persistent=False)
        # neither parameters nor buffers
        self.mask1 = torch.zeros(config.longtext_len, 1)
        self.mask1[: config.keep_len] = 1
        self.mask2 = 1 - self.mask1

    def forward(self, input_ids, walk_type):
        embeds = self.token_embedding(input_ids)
        positions = self.position_ids[:, : input_ids.shape[1]]
        if walk_type == "short":
            return embeds + self.position_embedding(positions)
        kept = self.position_embedding(positions.clamp(max=self.position_embedding.num_embeddings - 1))
        return embeds + kept * self.mask1 + self.position_embedding_res(positions) * self.mask2


class Fgclip2Model(PreTrainedModel):
    config_class = Fgclip2Config
    _no_split_modules = []

    def __init__(self, config):
        super().__init__(config)
        width = config.text_config.hidden_size
        self.embeddings = Fgclip2TextEmbeddings(config.text_config)
        self.text_head = nn.Linear(width, width)
        self.longtext_head = nn.Linear(width, width)
        self.patch_embedding = nn.Linear(config.num_values, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, Fgclip2Model):  # as if nothing had been loaded
            module.text_head.weight.data.normal_()
            module.patch_embedding.weight.data.normal_()

    def get_text_features(self, input_ids, attention_mask=None, position_ids=None, walk_type="short"):
        states = torch.tanh(self.embeddings(input_ids, walk_type))
        pooled = self.text_head(states.mean(dim=1))
        return self.longtext_head(pooled) if walk_type == "long" else pooled

    def get_image_features(self, pixel_values=None, pixel_attention_mask=None, spatial_shapes=None):
        mask = pixel_attention_mask[..., None].to(pixel_values.dtype)
        shape = spatial_shapes.to(pixel_values.dtype).prod(dim=1)[:, None]
        states = torch.tanh(self.patch_embedding(pixel_values)) * mask
        return states.sum(dim=1) / shape

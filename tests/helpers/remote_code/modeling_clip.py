"""Like jina-clip-v2: everything but ids and pixels ignored, embeddings returned as tensors, an own processor."""

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature, PretrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor


class JinaCLIPTextConfig(PretrainedConfig):
    model_type = "jina_clip_text"
    base_config_key = "text_config"

    embed_dim: int = 24
    vocab_size: int = 400
    pad_token_id: int = 1


class JinaCLIPConfig(PretrainedConfig):
    model_type = "jina_clip"
    sub_configs_defaults = {"text_config": JinaCLIPTextConfig}

    text_config: dict | PretrainedConfig | None = None
    num_values: int = 3072


class JinaCLIPModel(PreTrainedModel):
    config_class = JinaCLIPConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.text_config.embed_dim
        self.text_model = nn.Embedding(config.text_config.vocab_size, width)
        self.vision_model = nn.Linear(config.num_values, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.post_init()

    def get_text_features(self, input_ids=None, *_, **__):
        mask = (input_ids != self.config.text_config.pad_token_id)[..., None]  # padding it knows by itself
        return (self.text_model(input_ids) * mask).sum(dim=1) / mask.sum(dim=1)

    def get_image_features(self, pixel_values=None, *_, **__):
        return self.vision_model(pixel_values.flatten(1))


class JinaCLIPImageProcessor(BaseImageProcessor):
    model_input_names = ["pixel_values"]

    def __init__(self, size=32, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def preprocess(self, images, return_tensors=None, **_):
        resized = [np.array(image.convert("RGB").resize((self.size, self.size))) / 255 for image in images]
        return BatchFeature({"pixel_values": torch.tensor(np.stack(resized), dtype=torch.float32)})


class JinaCLIPProcessor(ProcessorMixin):
    attributes = ["image_processor", "tokenizer"]

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)

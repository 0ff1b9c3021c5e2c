"""Methods of users: subclasses of LoTLIP that embed otherwise, in a file that `--plugin` names."""

import torch
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipVisionModel
from modeling_lotlip.training.objectives import OBJECTIVES, Objective


class TwoTowersConfig(LotlipConfig):
    model_type = "two_towers"


class TwoTowersModel(LotlipModel):
    """An image is embedded by two towers."""

    config: TwoTowersConfig

    def __init__(self, config):
        super().__init__(config)
        self.second_tower = LotlipVisionModel._from_config(config.vision_config)
        self.post_init()

    def embed_images(self, pixel_values, **kwargs):
        second = self.second_tower(pixel_values).pooler_output
        return normalize(super().embed_images(pixel_values, **kwargs) + normalize(second.float(), dim=-1), dim=-1)


class PooledConfig(LotlipConfig):
    model_type = "pooled_corners"


class PooledModel(LotlipModel):
    """The corner tokens of a long caption are pooled with its `[CLS]`."""

    config: PooledConfig

    def embed_captions(self, **inputs):
        captions = super().embed_captions(**inputs)
        if captions.long is not None:
            features = torch.cat([captions.long[:, :, None], captions.corners], dim=2)
            captions.long = normalize(features.mean(dim=2), dim=-1)
            captions.corners = None
        return captions


class PlainConfig(LotlipConfig):
    model_type = "no_corners"


class PlainModel(LotlipModel):
    """The corner tokens are left out, though the model has some."""

    config: PlainConfig

    def embed_captions(self, **inputs):
        captions = super().embed_captions(**inputs)
        captions.corners = None
        return captions


def make_like(model: LotlipModel, model_class: type[LotlipModel]) -> LotlipModel:
    """Makes a model of one of these classes with the sizes of a LoTLIP, and weights of its own."""
    config = model.config
    sizes = {"text_config": config.text_config, "vision_config": config.vision_config}
    return model_class(model_class.config_class(**sizes, projection_dim=config.projection_dim))


for config_class, model_class in (
    (TwoTowersConfig, TwoTowersModel),
    (PooledConfig, PooledModel),
    (PlainConfig, PlainModel),
):
    model_class.config_class = config_class
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
    if __name__ == "methods":  # the plugin; tests that import the classes alone leave the objectives as they are
        OBJECTIVES[config_class.model_type] = Objective(
            model_class.__doc__,
            "modeling_lotlip.losses:contrastive_loss",
            model_class=model_class,
            num_corner_tokens=2,
            num_long_captions=1,
        )

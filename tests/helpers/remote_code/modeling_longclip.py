"""Like the port of Long-CLIP on the Hub: a CLIP with a type of its own, and a longer table of positions."""

from transformers import CLIPConfig, CLIPModel


class LongCLIPConfig(CLIPConfig):
    model_type = "longclip"


class LongCLIPModel(CLIPModel):
    config_class = LongCLIPConfig

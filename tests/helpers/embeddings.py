"""Embeddings by the model alone, to compare with."""

import torch
from PIL import Image


def embed_images(model, processor, images: list[Image.Image]) -> torch.Tensor:
    """Normalised embeddings of images, one after another."""
    features = [model.get_image_features(**processor.image_processor(image, return_tensors="pt")) for image in images]
    return torch.nn.functional.normalize(torch.cat([each.pooler_output for each in features]), dim=-1).detach()

"""Embeddings by the model alone, to compare with."""

import json
from pathlib import Path

import torch
from PIL import Image

from modeling_lotlip.encoder.dual_encoder import DualEncoder
from modeling_lotlip.table.storage import EmbeddingTable, Measurements


def embed_images(encoder: DualEncoder, images: list[Image.Image]) -> torch.Tensor:
    """Embeds images, one after another, by a plain call of the model: normalized, of shape `(images, dim)`."""
    features = []
    for image in images:
        inputs = encoder.processor.image_processor(image, return_tensors="pt")
        with torch.no_grad():
            features.append(encoder.model.get_image_features(**inputs).pooler_output)
    return torch.nn.functional.normalize(torch.cat(features), dim=-1)


def make_table(
    folder: Path, embeds: torch.Tensor, keys: list[str] | None = None, dtype: str = "float32", **measured: float
) -> EmbeddingTable:
    """A table of images, which are called by their numbers if nothing else, as if something had been measured."""
    table = EmbeddingTable.create(folder, embeds.shape[1], {"kinds": ["image"]}, dtype=dtype)
    keys = keys or [f"{number:05}" for number in range(len(embeds))]
    table.append([{"key": key, "embedding": embedding} for key, embedding in zip(keys, embeds)])
    if measured:
        noted = {"image": Measurements(**measured, num_rows=len(table))}
        table.table.update_field_metadata({"path": "embedding", "metadata": {"measured": json.dumps(noted)}})
    return table

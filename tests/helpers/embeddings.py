"""Embeddings by the model alone, to compare with."""

from pathlib import Path

import torch
from PIL import Image

from modeling_lotlip.encoder.dual_encoder import DualEncoder
from modeling_lotlip.table.measurements import Measurements, write_measurements
from modeling_lotlip.table.schema import to_vectors
from modeling_lotlip.table.storage import EmbeddingTable


def embed_images(encoder: DualEncoder, images: list[Image.Image]) -> torch.Tensor:
    """Embeds images one by one, by a plain call of the model: normalized, of shape `(images, dim)`."""
    features = []
    for image in images:
        inputs = encoder.processor.image_processor(image, return_tensors="pt")
        with torch.no_grad():
            features.append(encoder.model.get_image_features(**inputs).pooler_output)
    return torch.nn.functional.normalize(torch.cat(features), dim=-1)


def make_table(
    folder: Path, embeds: torch.Tensor, keys: list[str] | None = None, dtype: str = "float32", **measured: float
) -> EmbeddingTable:
    """
    Makes a table of images with embeddings of shape `(images, dim)`, as if something had been measured.

    Args:
        folder (`Path`):
            The folder of the table.
        embeds (`torch.Tensor` of shape `(images, dim)`):
            The embeddings.
        keys (`list[str]`, *optional*):
            The keys of the images. Default: their indices, with five digits.
        dtype (`str`, *optional*, defaults to `"float32"`):
            In which embeddings are stored.
        measured:
            Fields of [`Measurements`].
    """
    table = EmbeddingTable.create(folder, embeds.shape[1], {"kinds": ["image"]}, dtype=dtype)
    keys = keys or [f"{number:05}" for number in range(len(embeds))]
    table.append([{"key": key, "embedding": embedding} for key, embedding in zip(keys, embeds)])
    if measured:
        write_measurements(table, "image", Measurements(**measured, num_rows=len(table)))
    return table


def draw_unit_vectors(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draws vectors of some shape at random, normalized."""
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def draw_clusters(generator: torch.Generator, count: int, dim: int, num_clusters: int = 40) -> torch.Tensor:
    """
    Draws vectors of shape `(count, dim)`, normalized, around a few centers, as an index of cells is made for. Vector
    `i` is of cluster `i % num_clusters`.
    """
    centers = torch.randn(num_clusters, dim, generator=generator)
    noise = torch.randn(count, dim, generator=generator)
    return torch.nn.functional.normalize(centers[torch.arange(count) % num_clusters] + 0.5 * noise, dim=-1)


def read_embeddings(table: EmbeddingTable) -> torch.Tensor:
    """Reads the embeddings of shape `(images, dim)` as they are stored, in the order of keys that are numbers."""
    parts = list(table.read(["key", "embedding"]))
    keys = []
    for part in parts:
        keys += [int(key) for key in part["key"].to_pylist()]
    return torch.cat([to_vectors(part["embedding"]) for part in parts])[torch.tensor(keys).argsort()]

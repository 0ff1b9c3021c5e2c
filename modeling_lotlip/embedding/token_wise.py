# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The evaluation of models that compare images and texts token by token: see [`LotlipTokenWiseModel`].

Yao et al., 2021, FILIP: Fine-grained Interactive Language-Image Pre-Training, https://arxiv.org/abs/2111.07783.
"""

from collections.abc import Iterator, Sequence

import torch
from accelerate import PartialState
from torch.nn.functional import pad
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling_variants_lotlip import token_similarities


# Similarities of tokens in a block, 4 bytes each
BLOCK_SIZE = 2**26


def is_token_wise(model: PreTrainedModel | PreTrainedConfig) -> bool:
    """Whether a model compares tokens, as its configuration says: see [`LotlipTokenWiseModel`]."""
    return getattr(model, "config", model).model_type == "lotlip_token_wise"


def pad_and_concatenate(embeds: list[torch.Tensor]) -> torch.Tensor:
    """Embeddings (texts, ..., length, dim) of texts of several lengths, padded with zeros to the longest, as one."""
    length = max(part.shape[-2] for part in embeds)
    return torch.cat([pad(part, (0, 0, 0, length - part.shape[-2])) for part in embeds])


def similarity_blocks_of_tokens(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """
    Similarities by late interaction of some texts with all images at a time, computed on the accelerator if there is
    one: see `token_similarities`.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, image_length, dim)`):
            Normalised embeddings of tokens.
        text_embeds (`torch.Tensor` of shape `(texts, text_length, dim)`):
            Normalised embeddings of tokens, zero at padding.

    Yields:
        `(rows, image_to_text, text_to_image)`: the texts, and similarities of shape `(len(rows), images)`, on the CPU.
    """
    image_embeds = image_embeds.to(PartialState().device)
    num_images, num_texts = 64, max(1, BLOCK_SIZE // (64 * image_embeds.shape[1] * text_embeds.shape[1]))
    for start in range(0, len(text_embeds), num_texts):
        rows = slice(start, min(start + num_texts, len(text_embeds)))
        texts = text_embeds[rows].to(image_embeds.device)
        mask = (texts != 0).any(dim=-1)
        parts = [token_similarities(images, texts, mask) for images in image_embeds.split(num_images)]
        yield rows, *(torch.cat(similarities).t().cpu() for similarities in zip(*parts))


def rank_by_tokens(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_to_image: Sequence[int] | Sequence[list[int]]
):
    """
    [`retrieval_ranks`] by late interaction: texts are ranked for an image by the similarity of image to text, images
    for a text by that of text to image.

    Args:
        image_embeds (`torch.Tensor` of shape `(num_images, image_length, dim)`):
            Normalised embeddings of tokens.
        text_embeds (`torch.Tensor` of shape `(num_texts, text_length, dim)`):
            Normalised embeddings of tokens, zero at padding.
        text_to_image (`Sequence[int]` or `Sequence[list[int]]`):
            The image or images of each text.
    """
    # imports evaluate: only where it is used
    from ..metrics.image_text_retrieval.image_text_retrieval import list_matches, ranks_of_blocks

    matches = list_matches(text_to_image, len(text_embeds), len(image_embeds))
    columns = slice(0, len(image_embeds))
    both = [[], []]
    for rows, *similarities in similarity_blocks_of_tokens(image_embeds, text_embeds):
        for blocks, block in zip(both, similarities):
            blocks.append((rows, columns, block.contiguous()))
    ranks = []
    for blocks in both:
        own = []
        for rows, _, block in blocks:
            texts, images = matches[:, (matches[0] >= rows.start) & (matches[0] < rows.stop)]
            own.append(block[texts - rows.start, images])
        ranks.append(ranks_of_blocks(blocks, torch.cat(own), matches))
    return ranks[0][0], ranks[1][1]

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The evaluation of models that compare images and texts token by token: see [`LotlipTokenWiseModel`]."""

from collections.abc import Sequence

import torch
from accelerate import PartialState
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling_variants_lotlip import late_interaction


# Similarities of tokens in a block, 4 bytes each
BLOCK_SIZE = 2**26


def is_token_wise(model: PreTrainedModel | PreTrainedConfig) -> bool:
    """Whether a model compares tokens, as its configuration says: see [`LotlipTokenWiseModel`]."""
    return getattr(model, "config", model).model_type == "lotlip_token_wise"


def token_similarities(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[`late_interaction`] in blocks, on the accelerator if there is one: (queries, keys) on the CPU."""
    device, num_queries = PartialState().device, 64
    num_keys = max(1, BLOCK_SIZE // (num_queries * queries.shape[1] * keys.shape[1]))
    queries, rows = queries.to(device).split(num_queries), []
    for part in keys.split(num_keys):
        part = part.to(device)
        rows.append(torch.cat([late_interaction(own, part) for own in queries]).cpu())
    return torch.cat(rows, dim=1)


def rank_by_tokens(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_to_image: Sequence[int] | Sequence[list[int]]
):
    """
    [`retrieval_ranks`] by late interaction of tokens, (images, length, dim) and (texts, length, dim), zero at padding:
    texts are ranked for an image by the similarity of image to text, images for a text by that of text to image.
    """
    # imports evaluate: only where it is used
    from ..metrics.image_text_retrieval.image_text_retrieval import list_matches, ranks_of_blocks

    matches = list_matches(text_to_image, len(text_embeds), len(image_embeds))
    everything = slice(0, len(text_embeds)), slice(0, len(image_embeds))
    ranks = []
    for table in (token_similarities(image_embeds, text_embeds).t(), token_similarities(text_embeds, image_embeds)):
        ranks.append(ranks_of_blocks([(*everything, table)], table[matches[0], matches[1]], matches))
    return ranks[0][0], ranks[1][1]

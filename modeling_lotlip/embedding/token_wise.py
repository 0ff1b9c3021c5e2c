# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Late interaction of images and texts, token by token: what FILIP's objective trains, and the evaluation of its models.

Yao et al., 2021, FILIP: Fine-grained Interactive Language-Image Pre-Training, https://arxiv.org/abs/2111.07783.
"""

from collections.abc import Iterator

import torch
from accelerate import PartialState
from torch.nn.functional import normalize, pad
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .. import LotlipModel
from ..losses.token_wise_contrastive_loss import token_similarities
from ..metrics import ranks_of_blocks
from ..modeling_lotlip import LotlipOutput


# Similarities of tokens in a block, 4 bytes each
BLOCK_SIZE = 2**26


def is_token_wise(model: PreTrainedModel | PreTrainedConfig) -> bool:
    """Whether a model was trained by late interaction, as its configuration says."""
    return getattr(getattr(model, "config", model), "similarity", None) == "token_wise"


def text_token_embeds(
    model: LotlipModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: torch.Tensor
) -> torch.Tensor:
    """
    Normalised embeddings of all tokens of texts, `[CLS]` and `[SEP]` too, zero at padding, (texts, length, dim), in
    float32. They go through BERT's pooler and the projection, as `[CLS]` alone does elsewhere.
    """
    present = attention_mask.bool()
    # an absent text is computed as if it were there: its result is finite, and dropped below
    attention_mask = attention_mask.masked_fill(~present.any(dim=1, keepdim=True), 1)
    hidden_states = model.text_model(input_ids, attention_mask, **kwargs).last_hidden_state
    embeds = normalize(model.text_projection(model.text_model.pooler(hidden_states)).float(), dim=-1)
    return embeds.masked_fill(~present[..., None], 0)


def image_token_embeds(model: LotlipModel, last_hidden_state: torch.Tensor) -> torch.Tensor:
    """Normalised embeddings (images, length, dim) of `[CLS]` and all patches, in float32, from the tower's output."""
    return normalize(model.visual_projection(last_hidden_state.to(model.dtype)).float(), dim=-1)


def pad_and_concatenate(embeds: list[torch.Tensor]) -> torch.Tensor:
    """Embeddings (texts, length, dim) of texts of several lengths, padded with zeros to the longest, as one."""
    length = max(part.shape[1] for part in embeds)
    return torch.cat([pad(part, (0, 0, 0, length - part.shape[1])) for part in embeds])


def token_wise_forward(
    model: LotlipModel,
    short_input_ids: torch.Tensor,
    short_attention_mask: torch.Tensor,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    pixel_values: torch.Tensor | None = None,
    vision_pooler_output: torch.Tensor | None = None,
) -> LotlipOutput:
    """
    In training the forward pass of a model in the place of its own, on the same inputs.

    Args:
        model ([`LotlipModel`]):
            The model.
        short_input_ids, short_attention_mask (`torch.Tensor` of shape `(batch_size, short_length)`):
            The short captions.
        input_ids, attention_mask (`torch.Tensor` of shape `(batch_size, captions, length)`, *optional*):
            The long captions.
        pixel_values (`torch.Tensor` of shape `(batch_size, 3, height, width)`, *optional*):
            The images.
        vision_pooler_output (`torch.Tensor` of shape `(batch_size, image_length, hidden_size)`, *optional*):
            The output of the image tower for all tokens, in the place of images.

    Returns:
        [`LotlipOutput`]: `image_embeds` of shape `(batch_size, image_length, dim)`, `text_embeds` of shape
        `(batch_size, slots, text_length, dim)`, and what may stand for images as the `pooler_output` of the
        `vision_model_output`.
    """
    if vision_pooler_output is None:
        vision_pooler_output = model.vision_model(pixel_values).last_hidden_state
    captions = [text_token_embeds(model, short_input_ids, short_attention_mask)]
    if input_ids is not None:
        num_captions = input_ids.shape[1]
        long_embeds = text_token_embeds(model, input_ids.flatten(0, 1), attention_mask.flatten(0, 1))
        captions += long_embeds.unflatten(0, (-1, num_captions)).unbind(dim=1)
    return LotlipOutput(
        image_embeds=image_token_embeds(model, vision_pooler_output),
        text_embeds=pad_and_concatenate(captions).unflatten(0, (len(captions), -1)).transpose(0, 1),
        vision_model_output=BaseModelOutputWithPooling(pooler_output=vision_pooler_output),
    )


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


def rank_by_tokens(image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_to_image: torch.Tensor):
    """
    [`retrieval_ranks`] by late interaction: texts are ranked for an image by the similarity of image to text, images
    for a text by that of text to image.

    Args:
        image_embeds (`torch.Tensor` of shape `(num_images, image_length, dim)`):
            Normalised embeddings of tokens.
        text_embeds (`torch.Tensor` of shape `(num_texts, text_length, dim)`):
            Normalised embeddings of tokens, zero at padding.
        text_to_image (`torch.Tensor` of shape `(num_texts,)`):
            The image of each text.
    """
    columns = slice(0, len(image_embeds))
    both = [[], []]
    for rows, *similarities in similarity_blocks_of_tokens(image_embeds, text_embeds):
        for blocks, block in zip(both, similarities):
            blocks.append((rows, columns, block.contiguous()))
    ranks = []
    for blocks in both:
        own = torch.cat([block[torch.arange(len(block)), text_to_image[rows]] for rows, _, block in blocks])
        ranks.append(ranks_of_blocks(blocks, own, text_to_image, len(image_embeds)))
    return ranks[0][0], ranks[1][1]

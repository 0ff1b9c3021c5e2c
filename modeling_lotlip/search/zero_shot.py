# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classification of one image."""

from collections import Counter
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..embedding.batches import tokenize_and_count
from ..evaluation.classification import embed_classes
from .query import QueryError, embed_image


class Label(NamedTuple):
    """A label of an image: its probability by the model's own temperature, and the cosine similarity."""

    name: str
    probability: float
    similarity: float


def classify_image(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    image: Image.Image | None,
    labels: str,
    template: str,
    max_length: int | None = None,
) -> list[Label]:
    """
    Zero-shot classification of an image.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        image (`Image.Image`):
            The image.
        labels (`str`):
            The labels, one on each line.
        template (`str`):
            A prompt with {} for the label.
        max_length (`int`, *optional*):
            Truncate prompts at this many tokens.

    Returns:
        `list[Label]`: the most probable first. The probabilities of a model that was trained with a bias (SigLIP) are
        each label's own; of others they add up to 1.

    Raises:
        `QueryError`: if there is no image, no label, one twice or too long, or no {} in the template.
    """
    names = [name.strip() for name in labels.splitlines() if name.strip()]
    if image is None:
        raise QueryError("There is no image yet: choose one.")
    if not names:
        raise QueryError("There are no labels yet: write one on each line.")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise QueryError(f"Each label counts once, but these are there more often: {', '.join(repeated)}.")
    if "{}" not in template:
        raise QueryError("The template needs {} where the label goes, as in: a photo of a {}")
    _, truncated = tokenize_and_count(processor, [template.replace("{}", name) for name in names], max_length)
    if any(truncated):
        too_long = [name for name, is_cut in zip(names, truncated) if is_cut]
        raise QueryError(f"Longer, in the template, than the model reads: {', '.join(too_long)}")
    class_embeds = embed_classes(model, processor, names, [template], batch_size=64, max_length=max_length)
    similarities = class_embeds @ embed_image(model, processor, image)
    logits = similarities * getattr(model, "logit_scale", torch.tensor(0.0)).detach().float().exp().cpu()
    bias = getattr(model, "logit_bias", None)
    probabilities = logits.softmax(dim=0) if bias is None else (logits + bias.detach().float().cpu()).sigmoid()
    found = map(Label, names, probabilities.tolist(), similarities.tolist())
    return sorted(found, key=lambda label: -label.similarity)

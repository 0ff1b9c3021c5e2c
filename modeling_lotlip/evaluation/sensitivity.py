# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What of a long text a dual encoder uses: retrieval against the number of tokens that are kept, and how much embeddings
and retrieval change when the text does.
"""

import logging
import random
from typing import NamedTuple

import torch

from ..encoder.dual_encoder import TEXTS_PER_CHUNK, DualEncoder
from ..metrics import check_finite, retrieval_metrics
from ..utils.markdown import format_markdown
from ..utils.sub_captions import join_sub_captions, split_marked
from .retrieval import EmbeddedDataset
from .text_changes import list_changes


logger = logging.getLogger(__name__)


class LongTexts(NamedTuple):
    """
    Holds long captions with their images.

    Attributes:
        sub_captions (`list[list[str]]`): The sub-captions of the caption of each image.
        image_embeds (`torch.Tensor` of shape `(images, dim)`): The normalized embeddings of the images.
    """

    sub_captions: list[list[str]]
    image_embeds: torch.Tensor

    @property
    def texts(self) -> list[str]:
        """The captions as a model reads them."""
        return [join_sub_captions(parts) for parts in self.sub_captions]


def select_first_long_captions(embedded: EmbeddedDataset) -> LongTexts:
    """
    Selects the images of an embedded dataset that have a long caption, each with its first one.

    Raises:
        `ValueError`: if there are fewer than two.
    """
    first = {}
    if "long" in embedded.captions:
        captions = embedded.captions["long"]
        for image, text in zip(captions.images.tolist(), captions.texts):
            first.setdefault(image, text)
    images = sorted(first)
    if len(images) < 2:
        raise ValueError(
            f"{len(images)} images have a long caption: retrieval takes at least two. See the data arguments."
        )
    return LongTexts(
        sub_captions=[split_marked(first[image]) for image in images],
        image_embeds=embedded.image_embeds[images],
    )


def embed_first_tokens(encoder: DualEncoder, texts: list[str], num_tokens: int) -> torch.Tensor:
    """
    Returns the normalized embeddings, of shape `(texts, dim)`, of the first `num_tokens` tokens of long captions,
    special ones included.
    """
    embeds = []
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        chunk = texts[start : start + TEXTS_PER_CHUNK]
        inputs = encoder.preprocessing.tokenize(chunk, num_tokens).inputs
        embeds.append(encoder.embed_texts(inputs, is_long=True))
    return torch.cat(embeds)


def compute_recalls(image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> dict[str, float]:
    """
    Computes recall at 1 in both directions, in %.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Normalized.
        text_embeds (`torch.Tensor` of shape `(images, dim)`): Normalized, of the text of each image.
    """
    results = retrieval_metrics(image_embeds, text_embeds, ks=[1])
    return {name: results[name] for name in ("i2t_recall@1", "t2i_recall@1")}


def measure_lengths(encoder: DualEncoder, texts: LongTexts, num_tokens: list[int]) -> list[dict]:
    """Measures recall with the first tokens of each text, for each count in `num_tokens` up to the model's limit."""
    counts = {min(count, encoder.max_length) for count in num_tokens}
    rows = []
    for count in sorted(counts):
        embeds = embed_first_tokens(encoder, texts.texts, count)
        rows.append({"num_tokens": count, **compute_recalls(texts.image_embeds, embeds)})
    return rows


def measure_changes(encoder: DualEncoder, texts: LongTexts, seed: int) -> list[dict]:
    """
    Measures what each change does to the texts that it can be made in.

    Returns:
        `list[dict]`: for every change the number of texts, the mean cosine similarity (`similarity`) of their
        embeddings before and after, the recalls at 1 in % (`before_...`, `after_...`) among the images of these
        texts, and how often, in %, their image is nearer to the text as it was (`prefers_original`; equals count
        half).
    """
    before = encoder.encode_text(texts.texts, convert_to_tensor=True, is_long=True)
    check_finite(before, "text_embeds")
    rows = []
    for name, change in list_changes(texts.sub_captions).items():
        generator = random.Random(f"{name} {seed}")
        changed = [change(sub_captions, generator) for sub_captions in texts.sub_captions]
        indices = [index for index, sub_captions in enumerate(changed) if sub_captions is not None]
        if len(indices) < 2:
            logger.warning(f"{name}: possible in {len(indices)} of {len(changed)} texts, not measured.")
            continue
        changed_texts = [join_sub_captions(changed[index]) for index in indices]
        after = encoder.encode_text(changed_texts, convert_to_tensor=True, is_long=True)
        check_finite(after, "text_embeds")
        effects = compare_embeddings(texts.image_embeds[indices], before[indices], after)
        rows.append({"change": name, "num_texts": len(indices), **effects})
    return rows


def compare_embeddings(
    images: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
) -> dict[str, float]:
    """
    Compares texts before and after a change, with the images that they describe.

    Args:
        images (`torch.Tensor` of shape `(texts, dim)`): The normalized embedding of the image of each text.
        before (`torch.Tensor` of shape `(texts, dim)`): The normalized embeddings of the texts.
        after (`torch.Tensor` of shape `(texts, dim)`): Those of the changed texts.

    Returns:
        `dict[str, float]`: `similarity`, `before_...`, `after_...` and `prefers_original` of [`measure_changes`].
    """
    effects = {"similarity": (before * after).sum(dim=-1).mean().item()}
    for name, recall in compute_recalls(images, before).items():
        effects[f"before_{name}"] = recall
    for name, recall in compute_recalls(images, after).items():
        effects[f"after_{name}"] = recall

    lost = (images * before).sum(dim=-1) - (images * after).sum(dim=-1)
    is_equal = lost.abs() < 1e-6
    prefers_original = torch.where(is_equal, 0.5, (lost > 0).float())
    effects["prefers_original"] = 100 * prefers_original.mean().item()
    return effects


def measure_sensitivity(
    encoder: DualEncoder,
    embedded: EmbeddedDataset,
    num_tokens: list[int],
    seed: int = 0,
) -> dict:
    """
    Measures what of long texts a dual encoder uses, from a dataset that it embedded: every image counts with its
    first long caption.

    Args:
        encoder ([`DualEncoder`]):
            The dual encoder that embedded the dataset.
        embedded ([`EmbeddedDataset`]):
            The images and captions.
        num_tokens (`list[int]`):
            How many tokens to keep of each text, in turn, up to the limit of the model.
        seed (`int`, *optional*, defaults to 0):
            Samples the sentences and colors that are changed.

    Returns:
        `dict`: `max_length`, `num_texts`, of which `num_truncated` are longer than it, `changes`
        ([`measure_changes`]) and `lengths` ([`measure_lengths`]).

    Raises:
        `ValueError`: if fewer than two images have a long caption.
    """
    texts = select_first_long_captions(embedded)
    return {
        "max_length": encoder.max_length,
        "num_texts": len(texts.sub_captions),
        "num_truncated": sum(encoder.preprocessing.tokenize(texts.texts).truncated),
        "changes": measure_changes(encoder, texts, seed),
        "lengths": measure_lengths(encoder, texts, num_tokens),
    }


def flatten_results(results: list[dict]) -> list[dict]:
    """Makes rows of the results of every model, with the recalls of one change or one count of tokens each."""
    rows = []
    for result in results:
        for measured in [*result["changes"], *result["lengths"]]:
            rows.append({"model": result["model"], **measured})
    return rows


CHANGE_TITLES = (
    "model",
    "change",
    "texts",
    "similarity",
    "T2I before",
    "T2I after",
    "I2T before",
    "I2T after",
    "original nearer",
)


def format_change(row: dict) -> list[str]:
    """Formats a row of the table of changes."""
    return [
        row["model"],
        row["change"],
        str(row["num_texts"]),
        f"{row['similarity']:.3f}",
        f"{row['before_t2i_recall@1']:.1f}",
        f"{row['after_t2i_recall@1']:.1f}",
        f"{row['before_i2t_recall@1']:.1f}",
        f"{row['after_i2t_recall@1']:.1f}",
        f"{row['prefers_original']:.1f}",
    ]


def format_length(row: dict) -> list[str]:
    """Formats a row of the table of tokens that are kept."""
    return [row["model"], str(row["num_tokens"]), f"{row['t2i_recall@1']:.1f}", f"{row['i2t_recall@1']:.1f}"]


def format_sensitivity(results: list[dict]) -> str:
    """Formats the results of every model as Markdown: a table of changes, and one of tokens that are kept."""
    rows = flatten_results(results)
    changes = [format_change(row) for row in rows if "change" in row]
    lengths = [format_length(row) for row in rows if "change" not in row]
    parts = [
        "Changed texts: cosine similarity of a text's embedding before and after the change, recall at 1 in per "
        "cent before and after it, and how often (chance: 50) the image is nearer to the text as it was.",
        format_markdown(list(CHANGE_TITLES), changes),
        "Tokens kept:",
        format_markdown(["model", "tokens", "T2I R@1", "I2T R@1"], lengths),
    ]
    for result in results:
        num_truncated = result["num_truncated"]
        if num_truncated > 0:
            parts.append(
                f"Longer than the limit of {result['model']}: {num_truncated} of {result['num_texts']} texts."
            )
    return "\n\n".join(parts)

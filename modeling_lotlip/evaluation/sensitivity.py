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
from ..utils.files import format_markdown
from ..utils.sub_captions import join_sub_captions, split_sub_captions
from .retrieval import EmbeddedDataset
from .text_changes import list_changes


logger = logging.getLogger(__name__)


class LongTexts(NamedTuple):
    """The sub-captions of the long caption of each image, and the images' normalised embeddings (num_texts, dim)."""

    sub_captions: list[list[str]]
    image_embeds: torch.Tensor

    @property
    def texts(self) -> list[str]:
        return [join_sub_captions(parts) for parts in self.sub_captions]


def select_first_long_captions(embedded: EmbeddedDataset, splitter: str = "paper") -> LongTexts:
    """
    The images of an embedded data set that have a long caption, each with its first one.

    Raises:
        `ValueError`: if there are fewer than two.
    """
    first = {}
    if "long" in embedded.captions:
        captions = embedded.captions["long"]
        first = dict(reversed(list(zip(captions.images.tolist(), captions.texts))))  # it comes last, and stays
    images = sorted(first)
    if len(images) < 2:
        raise ValueError(
            f"{len(images)} images have a long caption: retrieval takes at least two. See the data arguments."
        )
    return LongTexts(
        sub_captions=[split_sub_captions(first[image], splitter) for image in images],
        image_embeds=embedded.image_embeds[images],
    )


def embed_first_tokens(encoder: DualEncoder, texts: list[str], num_tokens: int) -> torch.Tensor:
    """
    Returns the normalized embeddings, of shape `(texts, dim)`, of the first `num_tokens` tokens of texts, special ones
    included.
    """
    embeds = []
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        tokens = encoder.preprocessing.tokenize_first_tokens(texts[start : start + TEXTS_PER_CHUNK], num_tokens)
        embeds.append(encoder.embed_texts(tokens))
    return torch.cat(embeds)


def compute_recalls(image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> dict[str, float]:
    """Recall at 1 in both directions, in %, where text and image of the same place belong together."""
    results = retrieval_metrics(image_embeds, text_embeds, ks=[1])
    return {name: results[name] for name in ("i2t_recall@1", "t2i_recall@1")}


def measure_lengths(encoder: DualEncoder, texts: LongTexts, num_tokens: list[int]) -> list[dict]:
    """Recall with the first tokens of each text, for the numbers of tokens up to the limit of the model and at it."""
    rows = []
    for number in sorted({min(number, encoder.max_length) for number in num_tokens}):
        embeds = embed_first_tokens(encoder, texts.texts, number)
        rows.append({"num_tokens": number, **compute_recalls(texts.image_embeds, embeds)})
    return rows


def measure_changes(encoder: DualEncoder, texts: LongTexts, seed: int) -> list[dict]:
    """
    What each change does to the texts that it can be done to.

    Returns:
        `list[dict]`: for every change the number of texts, the mean cosine similarity (`similarity`) of their
        embeddings before and after, the recalls at 1 in % (`before_...`, `after_...`) among the images of these
        texts, and how often, in %, their image is nearer to the text as it was (`prefers_original`; equals count
        half).
    """
    before = encoder.encode_text(texts.texts, convert_to_tensor=True)
    check_finite(before, "text_embeds")
    rows = []
    for name, change in list_changes(texts.sub_captions).items():
        generator = random.Random(f"{name} {seed}")
        changed = [change(parts, generator) for parts in texts.sub_captions]
        places = [place for place, parts in enumerate(changed) if parts is not None]
        if len(places) < 2:
            logger.warning(f"{name}: possible in {len(places)} of {len(changed)} texts, not measured.")
            continue
        images, own = texts.image_embeds[places], before[places]
        changed_texts = [join_sub_captions(changed[place]) for place in places]
        after = encoder.encode_text(changed_texts, convert_to_tensor=True)
        check_finite(after, "text_embeds")
        lost = (images * own).sum(dim=-1) - (images * after).sum(dim=-1)
        is_equal = lost.abs() < 1e-6
        rows.append(
            {
                "change": name,
                "num_texts": len(places),
                "similarity": (own * after).sum(dim=-1).mean().item(),
                **{f"before_{name}": value for name, value in compute_recalls(images, own).items()},
                **{f"after_{name}": value for name, value in compute_recalls(images, after).items()},
                "prefers_original": 100 * torch.where(is_equal, 0.5, (lost > 0).float()).mean().item(),
            }
        )
    return rows


def measure_sensitivity(
    encoder: DualEncoder,
    embedded: EmbeddedDataset,
    num_tokens: list[int],
    seed: int = 0,
    splitter: str = "paper",
) -> dict:
    """
    What of long texts a dual encoder uses, from a data set that it embedded: every image counts with its first long
    caption. `num_tokens` are the numbers of tokens to keep, up to the limit of the model; `seed` draws sentences and
    colors.

    Returns:
        `dict`: `max_length`, `num_texts`, of which `num_truncated` are longer than it, `changes`
        ([`measure_changes`]) and `lengths` ([`measure_lengths`]).
    """
    texts = select_first_long_captions(embedded, splitter)
    return {
        "max_length": encoder.max_length,
        "num_texts": len(texts.sub_captions),
        "num_truncated": sum(encoder.preprocessing.tokenize(texts.texts).truncated),
        "changes": measure_changes(encoder, texts, seed),
        "lengths": measure_lengths(encoder, texts, num_tokens),
    }


def flatten_results(results: list[dict]) -> list[dict]:
    """The results of every model as rows with the recalls of one change or one number of tokens each."""
    return [
        {"model": result["model"], **row} for result in results for row in (*result["changes"], *result["lengths"])
    ]


def format_tables(results: list[dict]) -> str:
    """The results of every model as Markdown: changes, and numbers of tokens."""
    changes, lengths = [], []
    for row in flatten_results(results):
        if "change" in row:
            names = [f"{time}_{way}_recall@1" for way in ("t2i", "i2t") for time in ("before", "after")]
            values = [f"{row['similarity']:.3f}", *(f"{row[name]:.1f}" for name in (*names, "prefers_original"))]
            changes.append([row["model"], row["change"], str(row["num_texts"]), *values])
        else:
            recalls = [f"{row['t2i_recall@1']:.1f}", f"{row['i2t_recall@1']:.1f}"]
            lengths.append([row["model"], str(row["num_tokens"]), *recalls])
    truncated = [
        f"Longer than the limit of {result['model']}: {result['num_truncated']} of {result['num_texts']} texts."
        for result in results
        if result["num_truncated"] > 0
    ]
    titles = "model change texts similarity".split()
    titles += ["T2I before", "T2I after", "I2T before", "I2T after", "original nearer"]
    return "\n\n".join(
        [
            "Changed texts: cosine similarity of a text's embedding before and after the change, recall at 1 in per "
            "cent before and after it, and how often (chance: 50) the image is nearer to the text as it was.",
            format_markdown(titles, changes),
            "Tokens kept:",
            format_markdown(["model", "tokens", "T2I R@1", "I2T R@1"], lengths),
            *truncated,
        ]
    )

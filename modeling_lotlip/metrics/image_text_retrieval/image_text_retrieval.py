# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Image-text retrieval: recall@k and median rank in both directions, with fair ties, as a module of `evaluate`."""

import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import datasets
import evaluate
import numpy as np
import torch


# Similarities of float32 unit vectors that differ by no more than this are equal.
TOLERANCE = 1e-6
# Rows and columns of a block of similarities
BLOCK_SIZE = 2048

Embeddings = torch.Tensor | np.ndarray | Sequence

_DESCRIPTION = """
Retrieval between images and texts by cosine similarity: recall@k and median rank, image-to-text and text-to-image,
over the whole set. Ties are fair: a query whose match shares its similarity with others counts the hit to be expected
when the equal ones are ordered at random. Several captions per image and several images per caption are supported.
"""

_CITATION = "Wu et al., LoTLIP: Improving Language-Image Pre-training for Long Text Understanding, NeurIPS 2024"


class RetrievalRanks(NamedTuple):
    """
    Where each query finds its best match, before equals are put in an order. All three are int64 on CPU.

    Attributes:
        better (`torch.Tensor` of shape `(num_queries,)`):
            g, the candidates that are strictly more similar to the query than its best match.
        equal (`torch.Tensor` of shape `(num_queries,)`):
            T, the candidates that are as similar as the best match, itself included.
        own (`torch.Tensor` of shape `(num_queries,)`):
            c, the matches of the query among those T.

    Example:

        >>> import torch
        >>> # two candidates are better, the match ties with one other
        >>> ranks = RetrievalRanks(better=torch.tensor([2]), equal=torch.tensor([2]), own=torch.tensor([1]))
        >>> [ranks.hits(k).item() for k in (2, 3, 4)], ranks.expected_rank().item()
        ([0.0, 0.5, 1.0], 3.5)
    """

    better: torch.Tensor
    equal: torch.Tensor
    own: torch.Tensor

    def hits(self, k: int) -> torch.Tensor:
        """
        Returns the probability that a match is among the first `k` when equals are ordered at random: 0 for k <= g,
        and 1 - C(T - c, k - g) / C(T, k - g) above.

        Args:
            k (`int`): The number of candidates looked at, from 1 on.

        Returns:
            `torch.Tensor` of shape `(num_queries,)`, float64, from 0 to 1.
        """
        # The ranks among the first k that are left to the equals. The quotient of binomials is symmetric in the
        # counts of these ranks and of matches, hence a product over the smaller of the two.
        free_ranks = (k - self.better).clamp(min=0).minimum(self.equal)
        few = free_ranks.minimum(self.own)
        many = free_ranks.maximum(self.own)
        miss = torch.ones(len(few), dtype=torch.float64)
        for i in range(int(few.max())):
            factor = (self.equal - many - i).clamp(min=0) / (self.equal - i).clamp(min=1).double()
            miss = torch.where(i < few, miss * factor, miss)
        return 1 - miss

    def expected_rank(self) -> torch.Tensor:
        """
        Returns the mean rank of the best match when equals are ordered at random, g + (T + 1) / (c + 1), from 1 on: a
        `torch.Tensor` of shape `(num_queries,)`, float64.
        """
        return self.better + (self.equal + 1) / (self.own + 1).double()


class ImageTextRetrieval(evaluate.Metric):
    """
    Recall and median rank as a metric of `evaluate`: arrays in one call of `compute`, or pairs through `add_batch`.

    Example:

        >>> from modeling_lotlip.metrics import ImageTextRetrieval
        >>> metric = ImageTextRetrieval()
        >>> metric.add_batch(predictions=[[1.0, 0.0], [1.0, 0.0]], references=[[1.0, 0.2], [1.0, 0.1]])
        >>> metric.add_batch(predictions=[[0.0, 1.0]], references=[[0.1, 1.0]])
        >>> metric.compute(text_to_image=[0, 0, 1], ks=[1])["mean_recall"]
        100.0
    """

    def _info(self) -> evaluate.MetricInfo:
        vector = datasets.Sequence(datasets.Value("float32"))
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=inspect.getdoc(self.compute),
            features=datasets.Features({"predictions": vector, "references": vector}),
            reference_urls=["https://arxiv.org/abs/2410.05249"],
        )
        # The constructor takes this for scalar features only; without it rows come back as lists of Python floats.
        info.format = "numpy"
        return info

    def add_batch(
        self,
        *,
        predictions: Embeddings | None = None,
        references: Embeddings | None = None,
    ) -> None:
        """
        Adds pairs: row i of `predictions` is the vector of the image that the text of row i of `references` describes.

        Args:
            predictions (`torch.Tensor`, `np.ndarray` or list of shape `(num_pairs, dim)`): Image vectors.
            references (`torch.Tensor`, `np.ndarray` or list of shape `(num_pairs, dim)`): Text vectors.

        Raises:
            `ValueError`: One of the two missing, NaN, infinity, a zero vector, no rows, unequal lengths or widths.
        """
        images, texts = _unit_pair(predictions, references, "predictions", "references")
        if len(images) != len(texts):
            raise ValueError(
                f"`predictions` has {len(images)} rows and `references` {len(texts)}, but each row "
                "is a pair of an image and a text. Repeat the image's vector for each of its texts."
            )
        super().add_batch(predictions=images.cpu().numpy(), references=texts.cpu().numpy())

    def compute(
        self,
        *,
        predictions: Embeddings | None = None,
        references: Embeddings | None = None,
        image_embeds: Embeddings | None = None,
        text_embeds: Embeddings | None = None,
        text_to_image: Embeddings | None = None,
        ks: Iterable[int] = (1, 5, 10),
    ) -> dict[str, float] | None:
        """
        Computes the metric on `image_embeds` and `text_embeds`, or on the pairs added before. In a distributed setting
        of `evaluate` all processes but the first get `None` for the latter.

        Args:
            predictions (`torch.Tensor`, `np.ndarray` or list of shape `(num_pairs, dim)`, *optional*):
                Image vectors of pairs, in place of `image_embeds`. An image with five captions gives five rows, and
                `text_to_image` says which rows share an image.
            references (`torch.Tensor`, `np.ndarray` or list of shape `(num_pairs, dim)`, *optional*):
                Text vectors of pairs, in place of `text_embeds`.
            image_embeds (`torch.Tensor`, `np.ndarray` or list of shape `(num_images, dim)`, *optional*):
                One vector per image, of any length other than zero. The similarities are computed on its device.
            text_embeds (`torch.Tensor`, `np.ndarray` or list of shape `(num_texts, dim)`, *optional*):
                One vector per caption, likewise.
            text_to_image (integers, or lists of integers, of `num_texts` entries, *optional*):
                The image or images that each caption belongs to, or the one image of each row of the pairs. By
                default caption j belongs to image j.
            ks (`Iterable[int]`, *optional*, defaults to `(1, 5, 10)`):
                The ranks at which recall is taken. Beyond the size of the gallery recall is 100.

        Returns:
            `dict[str, float]`: `i2t_recall@k` and `t2i_recall@k` in % for each k (a hit if any caption of the
            image, or any image of the caption, is among the first k), `i2t_median_rank` and `t2i_median_rank` (the
            median of the expected rank of the best match, from 1 on), and `mean_recall`, the mean over all recalls.

        Raises:
            `ValueError`: NaN, infinity or a zero vector; no rows; unequal lengths or widths; an image without caption,
            a caption of no image; rows said to share an image whose vectors differ; a k that is no positive whole
            number.

        Example:

            >>> from modeling_lotlip.metrics import ImageTextRetrieval
            >>> images, texts = [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.1], [0.3, 0.2], [0.1, 3.0]]
            >>> options = {"image_embeds": images, "text_embeds": texts, "ks": [1]}
            >>> round(ImageTextRetrieval().compute(text_to_image=[0, 1, 1], **options)["t2i_recall@1"], 2)
            66.67
            >>> # the second caption is one of both images
            >>> ImageTextRetrieval().compute(text_to_image=[0, [0, 1], 1], **options)["t2i_recall@1"]
            100.0
        """
        ks = _whole_ks(ks)
        if image_embeds is not None or text_embeds is not None:
            if predictions is not None or references is not None or len(self) > 0:
                raise ValueError(
                    "Pairs were given too (`predictions`, `references` or `add_batch`): compute on "
                    "them, or on `image_embeds` and `text_embeds`, not on both."
                )
            return retrieval_metrics(image_embeds, text_embeds, text_to_image, ks)

        if predictions is None and references is None and self.writer is None:
            raise ValueError("There are no rows: pass `image_embeds` and `text_embeds`, or call `add_batch` first.")
        num_added = len(self)
        pairs = super().compute(predictions=predictions, references=references)
        if pairs is None:
            return None
        images = _unit_rows(pairs["predictions"], "predictions")
        texts = _unit_rows(pairs["references"], "references")
        try:
            shared = images
            if text_to_image is not None:
                shared = _shared_images(images, text_to_image)
            return retrieval_metrics(shared, texts, text_to_image, ks)
        except ValueError:  # what was added before stays, for another `text_to_image`
            if num_added > 0 and self.num_process == 1:
                self.add_batch(predictions=images[:num_added], references=texts[:num_added])
            raise

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
        return {"predictions": predictions, "references": references}


def retrieval_metrics(
    image_embeds: Embeddings,
    text_embeds: Embeddings,
    text_to_image: Embeddings | None = None,
    ks: Iterable[int] = (1, 5, 10),
) -> dict[str, float]:
    """
    Returns recall in % and median rank in both directions; see [`ImageTextRetrieval.compute`] for keys and errors.

    Args:
        image_embeds (`torch.Tensor`, `np.ndarray` or list of shape `(num_images, dim)`): Need not be normalized.
        text_embeds (`torch.Tensor`, `np.ndarray` or list of shape `(num_texts, dim)`): Need not be normalized.
        text_to_image (integers, or lists of integers, of `num_texts` entries, *optional*):
            The image or images that each caption belongs to.
        ks (`Iterable[int]`, *optional*, defaults to `(1, 5, 10)`): The ranks at which recall is taken.

    Example:

        >>> import torch
        >>> collapsed = torch.ones(200, 64)
        >>> results = retrieval_metrics(collapsed, collapsed)
        >>> round(results["t2i_recall@1"], 3), round(results["t2i_recall@10"], 3), results["t2i_median_rank"]
        (0.5, 5.0, 100.5)
    """
    ks = _whole_ks(ks)
    return metrics_of_ranks(*retrieval_ranks(image_embeds, text_embeds, text_to_image), ks)


def metrics_of_ranks(
    image_to_text: RetrievalRanks, text_to_image: RetrievalRanks, ks: Iterable[int] = (1, 5, 10)
) -> dict[str, float]:
    """
    Computes what [`retrieval_metrics`] returns, from ranks.

    Args:
        image_to_text (`RetrievalRanks`): One query per image.
        text_to_image (`RetrievalRanks`): One query per caption.
        ks (`Iterable[int]`, *optional*, defaults to `(1, 5, 10)`): The ranks at which recall is taken.

    Example:

        >>> import torch
        >>> metrics_of_ranks(*retrieval_ranks(torch.eye(2), torch.eye(2)), ks=[1])["mean_recall"]
        100.0
    """
    ks = _whole_ks(ks)
    recalls = {}
    medians = {}
    for direction, ranks in {"i2t": image_to_text, "t2i": text_to_image}.items():
        for k in ks:
            recalls[f"{direction}_recall@{k}"] = 100 * ranks.hits(k).mean().item()
        medians[f"{direction}_median_rank"] = float(np.median(ranks.expected_rank().numpy()))
    return {**recalls, **medians, "mean_recall": sum(recalls.values()) / len(recalls)}


@torch.no_grad()
def retrieval_ranks(
    image_embeds: Embeddings, text_embeds: Embeddings, text_to_image: Embeddings | None = None
) -> tuple[RetrievalRanks, RetrievalRanks]:
    """
    Ranks the matches in both directions by cosine similarity, from one matrix product in blocks.

    Candidates whose similarity is within 1e-6 of the best match's are equal to it. An image's best match is the most
    similar of its captions, a caption's the most similar of its images. Products are computed in float64, whose
    rounding is far below this: no block splits equals.

    Args:
        image_embeds (`torch.Tensor`, `np.ndarray` or list of shape `(num_images, dim)`): Need not be normalized.
        text_embeds (`torch.Tensor`, `np.ndarray` or list of shape `(num_texts, dim)`):
            Need not be normalized. Moved to the device of `image_embeds`.
        text_to_image (integers, or lists of integers, of `num_texts` entries, *optional*):
            The image or images that each caption belongs to. By default caption j belongs to image j.

    Returns:
        `(RetrievalRanks, RetrievalRanks)`: image-to-text (one query per image) and text-to-image (one per caption).

    Raises:
        `ValueError`: NaN, infinity, a zero vector, no rows, unequal lengths or widths, an image without caption, a
        caption of no image.

    Example:

        >>> import torch
        >>> texts = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.1], [0.0, 0.0, 1.0]])
        >>> image_to_text, text_to_image = retrieval_ranks(torch.eye(3), texts)
        >>> text_to_image.better.tolist(), image_to_text.better.tolist()
        ([0, 2, 0], [0, 0, 0])
    """
    images, texts = _unit_pair(image_embeds, text_embeds, "image_embeds", "text_embeds")
    matches = list_matches(text_to_image, len(texts), len(images))
    parts = matches.to(images.device).split(1024, dim=1)
    own = torch.cat([(texts[text].double() * images[image].double()).sum(dim=1) for text, image in parts])
    return ranks_of_blocks(similarity_blocks(texts, images, torch.float64), own, matches)


def similarity_blocks(
    queries: torch.Tensor, candidates: torch.Tensor, dtype: torch.dtype | None = None
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """
    Computes `queries @ candidates.T` in blocks: it is never whole in memory.

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`): Embeddings.
        candidates (`torch.Tensor` of shape `(num_candidates, dim)`): Embeddings.
        dtype (`torch.dtype`, *optional*): The precision. Default: that of the queries.

    Returns:
        `Iterator[tuple[slice, slice, torch.Tensor]]`: the rows and columns of each block, and the block of shape
            `(rows, columns)`.
    """
    for top in range(0, len(queries), BLOCK_SIZE):
        rows = slice(top, min(top + BLOCK_SIZE, len(queries)))
        block_queries = queries[rows].to(dtype or queries.dtype)
        for left in range(0, len(candidates), BLOCK_SIZE):
            columns = slice(left, min(left + BLOCK_SIZE, len(candidates)))
            block_candidates = candidates[columns].to(block_queries.dtype)
            yield rows, columns, block_queries @ block_candidates.T


@torch.no_grad()
def ranks_of_blocks(
    blocks: Iterable[tuple[slice, slice, torch.Tensor]], own: torch.Tensor, matches: torch.Tensor
) -> tuple[RetrievalRanks, RetrievalRanks]:
    """
    Ranks the matches in both directions, as [`retrieval_ranks`] does, by any similarity.

    Args:
        blocks (`Iterable[tuple[slice, slice, torch.Tensor]]`):
            Blocks that make up the similarities of all captions (rows) with all images (columns), each with its rows
            and columns.
        own (`torch.Tensor` of shape `(num_matches,)`):
            The similarities of captions and images that belong together, up to a rounding far below 1e-6.
        matches (`torch.Tensor` of shape `(2, num_matches)`):
            These captions and images: see [`list_matches`].
    """
    num_texts, num_images = (matches.amax(dim=1) + 1).tolist()
    texts, images = matches.to(own.device)
    best_of_text = own.new_full((num_texts,), -torch.inf).scatter_reduce_(0, texts, own, "amax")
    best_of_image = own.new_full((num_images,), -torch.inf).scatter_reduce_(0, images, own, "amax")

    # the first row counts what is better, the second what is equal
    image_counts = texts.new_zeros(2, num_images)
    text_counts = texts.new_zeros(2, num_texts)
    for rows, columns, block in blocks:
        text_counts[:, rows] += _count(block, best_of_text[rows, None], dim=1)
        image_counts[:, columns] += _count(block, best_of_image[columns], dim=0)

    text_own = torch.bincount(texts[own >= best_of_text[texts] - TOLERANCE], minlength=num_texts)
    image_own = torch.bincount(images[own >= best_of_image[images] - TOLERANCE], minlength=num_images)
    image_to_text = RetrievalRanks(*image_counts.cpu(), image_own.cpu())
    text_to_image = RetrievalRanks(*text_counts.cpu(), text_own.cpu())
    return image_to_text, text_to_image


def _count(block: torch.Tensor, scores: torch.Tensor, dim: int) -> torch.Tensor:
    """Counts the entries along `dim` that are better than the scores and those that are equal: (2, other dim)."""
    better = (block > scores + TOLERANCE).sum(dim, dtype=torch.int32)
    not_worse = (block >= scores - TOLERANCE).sum(dim, dtype=torch.int32)
    return torch.stack((better, not_worse - better))


def list_matches(
    text_to_image: Embeddings | None,
    num_texts: int,
    num_images: int | None = None,
) -> torch.Tensor:
    """
    Lists the captions and images that belong together, and checks them.

    Args:
        text_to_image (integers, or lists of integers, of `num_texts` entries, *optional*):
            The image or images that each caption belongs to. By default caption j belongs to image j.
        num_texts (`int`): The number of captions.
        num_images (`int`, *optional*): The number of images. Default: as many as are named.

    Returns:
        `torch.Tensor` of shape `(2, num_matches)`, int64 on CPU: a caption and one of its images in each column, each
            pair once, in the order of the captions.

    Raises:
        `ValueError`: an image without caption, a caption of no image, an index that is none.
    """
    if text_to_image is None:
        if num_images != num_texts:
            raise ValueError(
                f"`image_embeds` has {num_images} rows and `text_embeds` {num_texts}. With other "
                "than one caption per image pass `text_to_image`, the image index of each caption."
            )
        return torch.arange(num_texts).expand(2, -1)

    lists = _image_lists(text_to_image, num_texts)
    images = np.concatenate(lists)
    texts = np.repeat(np.arange(num_texts), [len(entry) for entry in lists])
    named = np.unique(images)
    if num_images is None:
        num_images = max(named[-1] + 1, 1)
    for index in (named[0], named[-1]):
        if index < 0 or index >= num_images:
            text = texts[images == index][0]
            raise ValueError(
                f"`text_to_image[{text}]` is {index}, which is no image: indices go from 0 to {num_images - 1}."
            )
    without = np.setdiff1d(np.arange(num_images), named)
    if len(without) > 0:
        raise ValueError(f"Image {without[0]} has no caption: `text_to_image` never names it.")
    pairs = np.unique(texts * len(named) + images)
    return torch.from_numpy(np.stack(np.divmod(pairs, len(named))))


def _image_lists(text_to_image: Embeddings, num_texts: int) -> list[np.ndarray]:
    """The image indices of each caption."""
    if isinstance(text_to_image, (torch.Tensor, np.ndarray)):
        text_to_image = text_to_image.tolist()
    if isinstance(text_to_image, (Mapping, Set)):
        raise ValueError(
            f"`text_to_image` is a {type(text_to_image).__name__}, but must be a list, with an entry for each text in "
            "the order of the texts."
        )
    if not isinstance(text_to_image, Iterable):
        text_to_image = [text_to_image]
    entries = list(text_to_image)
    if len(entries) != num_texts:
        raise ValueError(
            f"`text_to_image` has {len(entries)} entries, but must give an image index, or a list "
            f"of them, for each of {num_texts} texts."
        )
    lists = []
    for text, entry in enumerate(entries):
        try:
            lists.append(np.array([operator.index(image) for image in np.atleast_1d(entry)], dtype=np.int64))
        except (TypeError, ValueError):  # the latter of lists of unequal lengths in it
            lists.append(np.empty(0))
        if len(lists[-1]) == 0:
            raise ValueError(
                f"`text_to_image[{text}]` is {entry!r}, but must be a whole number, the index of "
                "an image, or a list of them."
            )
    return lists


def _shared_images(units: torch.Tensor, text_to_image: Embeddings) -> torch.Tensor:
    """One vector per image out of one per pair. Rows of one image may differ by rounding, not by more."""
    num_rows = len(units)
    rows, image_of_row = list_matches(text_to_image, num_rows)
    if len(rows) != num_rows:
        raise ValueError("`text_to_image` must give one image for each pair: a row holds the vector of one.")
    num_images = int(image_of_row.max()) + 1
    first = torch.full((num_images,), num_rows).scatter_reduce_(0, image_of_row, rows, "amin")
    first_rows = first[image_of_row]
    differences = []
    for block, indices in zip(units.split(1024), first_rows.split(1024)):
        differences.append((block - units[indices]).abs().amax(dim=1))
    differs = torch.cat(differences) > 1e-4
    if differs.any():
        row = int(differs.nonzero()[0])
        raise ValueError(
            f"`text_to_image` says that rows {int(first_rows[row])} and {row} share an image, but "
            "their predictions differ."
        )
    return units[first]


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def _unit_pair(
    images: Embeddings | None, texts: Embeddings | None, images_name: str, texts_name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as float32 rows of length 1 on the device of the images, where it has float64, and of one width."""
    if images is None or texts is None:
        missing = images_name if images is None else texts_name
        raise ValueError(f"`{missing}` is missing: `{images_name}` and `{texts_name}` go together.")
    images = _unit_rows(images, images_name)
    if images.device.type == "mps":  # which has no float64
        images = images.cpu()
    texts = _unit_rows(texts, texts_name).to(images.device)
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"`{images_name}` is {images.shape[1]} wide and `{texts_name}` {texts.shape[1]}: both "
            "must come from the same embedding space."
        )
    return images, texts


def check_finite(embeds: torch.Tensor, name: str, first_row: int = 0) -> None:
    """
    Checks that embeddings are finite, before anything is ranked by them: NaN is neither more nor less similar than
    another number, and a ranking by it looks like one by chance.

    Args:
        embeds (`torch.Tensor` of shape `(rows, ...)`): Embeddings, such as `(rows, dim)` or `(rows, tokens, dim)`.
        name (`str`): What messages call them.
        first_row (`int`, *optional*, defaults to 0): The index of the first row, where they are a part of more.

    Raises:
        `ValueError`: if one holds NaN or infinity; names the first such row.

    Example:

        >>> import torch
        >>> check_finite(torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]), "image_embeds")
        Traceback (most recent call last):
        ValueError: `image_embeds[1]` holds NaN: look for NaN in the model's weights, or choose a wider `dtype`.
    """
    is_finite = embeds.isfinite().flatten(start_dim=1).all(dim=1)
    if is_finite.all():
        return
    row = int((~is_finite).nonzero()[0])
    found = "NaN" if embeds[row].isnan().any() else "infinity"
    raise ValueError(
        f"`{name}[{first_row + row}]` holds {found}: look for NaN in the model's weights, or choose a wider `dtype`."
    )


def _unit_rows(embeds: Embeddings, name: str) -> torch.Tensor:
    """A float32 copy with rows of length 1."""
    rows = _as_rows(embeds, name)
    units = torch.empty(tuple(rows.shape), dtype=torch.float32, device=getattr(rows, "device", "cpu"))
    for start in range(0, len(rows), 1024):
        block = rows[start : start + 1024]
        if isinstance(block, np.ndarray):
            block = torch.from_numpy(block.astype(np.float64))
        elif block.dtype != torch.float64:
            block = block.float()
        check_finite(block, name, start)
        # Divided by its largest entry no row overflows or vanishes when it is squared.
        largest = block.abs().amax(dim=1, keepdim=True)
        is_zero = largest[:, 0] == 0
        if is_zero.any():
            raise ValueError(f"`{name}[{start + int(is_zero.nonzero()[0])}]` is all zeros, which has no direction.")
        block = (block / largest).float()
        units[start : start + 1024] = block / torch.linalg.vector_norm(block, dim=1, keepdim=True)
    return units


def _as_rows(embeds: Embeddings, name: str) -> torch.Tensor | np.ndarray:
    """A matrix of real numbers, in the memory where it is."""
    is_array_of_rows = isinstance(embeds, np.ndarray) and embeds.dtype.kind == "O"
    try:
        if isinstance(embeds, (list, tuple)) or is_array_of_rows:
            embeds = _stack_rows(embeds)
        if isinstance(embeds, torch.Tensor):
            embeds = embeds.detach()
            is_real = not embeds.is_complex()
        else:
            embeds = np.asarray(embeds)
            is_real = embeds.dtype.kind in "fiu"
    except (TypeError, RuntimeError, OverflowError, ValueError) as error:
        raise ValueError(f"`{name}` must hold rows of real numbers: {str(error).rstrip('.')}.") from error
    if embeds.ndim > 0 and len(embeds) == 0:
        raise ValueError(f"`{name}` has no rows.")
    if not is_real:
        raise ValueError(f"`{name}` must hold real numbers, got {embeds.dtype}.")
    if embeds.ndim != 2 or embeds.shape[1] == 0:
        raise ValueError(f"`{name}` must have the shape (rows, dim), got {tuple(embeds.shape)}.")
    return embeds


def _stack_rows(rows: Sequence) -> torch.Tensor | list:
    """A tensor of rows that are tensors, a list of others. Raises a `ValueError` if they have several shapes."""
    shapes = [np.shape(row) for row in rows]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(f"unequal width, row 0 has the shape {shapes[0]}, row {index} {shape}")
    if any(isinstance(row, torch.Tensor) for row in rows):
        return torch.stack([torch.as_tensor(row) for row in rows])
    return list(rows)


def _whole_ks(ks: Iterable[int]) -> list[int]:
    """The ranks at which recall is taken. Raises a `ValueError` if one is no positive whole number."""
    try:
        ks = list(ks)
        whole = [operator.index(k) for k in ks]
    except TypeError:
        raise ValueError(f"`ks` must be a list of whole numbers such as (1, 5, 10), got {ks!r}.") from None
    if not whole or min(whole) < 1 or any(isinstance(k, bool) for k in ks):
        raise ValueError(f"`ks` must hold one positive number at least and no other, got {ks!r}.")
    return whole

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The training of the heads that join two towers, on features that are in memory: seconds to minutes on a CPU."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import torch
from sentence_transformers.base.modules import Dense
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from .features import MODALITIES, Features
from .towers import make_dense


logger = logging.getLogger(__name__)

# A training that chooses its number of epochs takes no more than these, or than these steps if that is more
MAX_EPOCHS = 30
MAX_STEPS = 100
# Below this number of images the epochs are chosen on several parts of them in turn, since one part says little
FEW_IMAGES = 2000
NUM_FOLDS = 3
# The max number of images that are held out
MAX_HELD_OUT = 2000
MAX_LOGIT_SCALE = math.log(100)  # as in CLIP
MIN_STD = 1e-6


@dataclass(frozen=True)
class HeadSettings:
    """
    How heads are made and trained.

    Args:
        head (`str`, *optional*, defaults to `"linear"`): `"linear"` or `"mlp"`.
        keep (`str`, *optional*): `"text"` or `"image"`: the side that has no head, and keeps its embeddings.
        captions (`tuple[str, ...]`, *optional*): Which texts of an image are trained on, of `MODALITIES`.
        projection_dim (`int`, *optional*, defaults to 256): The dimensions of an embedding where no side is kept.
        hidden_dim (`int`, *optional*, defaults to 512): The hidden dimensions of an `"mlp"`.
        dropout (`float`, *optional*, defaults to 0.3): The dropout of an `"mlp"`.
        batch_size (`int`, *optional*, defaults to 1024): The images in a step.
        learning_rate (`float`, *optional*, defaults to 1e-3): That of AdamW.
        weight_decay (`float`, *optional*, defaults to 0.1): That of AdamW, for matrices.
        num_epochs (`int`, *optional*): Passes over the images. Default: chosen on images that are held out.
        seed (`int`, *optional*, defaults to 0): The seed of weights, dropout and order.
    """

    head: str = "linear"
    keep: str | None = None
    captions: tuple[str, ...] = MODALITIES
    projection_dim: int = 256
    hidden_dim: int = 512
    dropout: float = 0.3
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    num_epochs: int | None = None
    seed: int = 0


class Head(nn.Module):
    """
    A head: it subtracts the mean of the features of the training data, divides by their standard deviation, and maps
    them by a linear layer, or by two with GELU and dropout between.

    Args:
        features (`torch.Tensor` of shape `(rows, in_dim)`): Those that it is trained on.
        kind (`str`): `"linear"` or `"mlp"`.
        hidden_dim (`int`): The number of hidden dimensions of an `"mlp"`.
        out_dim (`int`): The number of dimensions of an embedding.
        dropout (`float`): The dropout of an `"mlp"`.
    """

    def __init__(self, features: torch.Tensor, kind: str, hidden_dim: int, out_dim: int, dropout: float):
        super().__init__()
        in_dim = features.shape[1]
        std = features.std(dim=0, correction=0)
        std[std < MIN_STD] = 1  # what is the same in all rows may differ in others, and is not blown up there
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("std", std)
        if kind == "linear":
            self.layers = nn.Sequential(nn.Linear(in_dim, out_dim))
        else:
            hidden = nn.Linear(in_dim, hidden_dim)
            self.layers = nn.Sequential(hidden, nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, out_dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns embeddings of shape `(rows, out_dim)`, not normalized, of features of shape `(rows, in_dim)`."""
        return self.layers((features - self.mean) / self.std)

    @torch.no_grad()
    def to_dense(self) -> list[Dense]:
        """Returns the head as modules of the sentence-transformers library, the standardization in the first."""
        first = self.layers[0]
        weight = first.weight.double() / self.std.double()
        folded = nn.Linear(first.in_features, first.out_features)
        folded.weight.copy_(weight)
        folded.bias.copy_(first.bias.double() - weight @ self.mean.double())
        if len(self.layers) == 1:
            return [make_dense(folded)]
        return [make_dense(folded, nn.GELU()), make_dense(self.layers[-1])]


class Heads(nn.Module):
    """
    The heads of both sides and the temperature, before they are trained.

    Args:
        features ([`Features`]): Those that they are trained on.
        settings ([`HeadSettings`]): How they are made.
    """

    def __init__(self, features: Features, settings: HeadSettings):
        super().__init__()
        sides = {"text": features.texts[features.captions[:, 1].unique()], "image": features.images}
        out_dim = settings.projection_dim
        if settings.keep is not None:
            out_dim = sides[settings.keep].shape[1]
        self.heads = nn.ModuleDict()
        for side, side_features in sides.items():
            if side != settings.keep:
                self.heads[side] = Head(side_features, settings.head, settings.hidden_dim, out_dim, settings.dropout)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed(self, side: str, features: torch.Tensor) -> torch.Tensor:
        """Returns normalized embeddings, `(rows, projection_dim)`, of features of the side `"text"` or `"image"`."""
        if side in self.heads:
            features = self.heads[side](features)
        return normalize(features, dim=-1)

    def to_dense(self, side: str) -> list[Dense]:
        """Returns the head of a side as modules of the sentence-transformers library, none of a side that is kept."""
        return self.heads[side].to_dense() if side in self.heads else []


@dataclass
class TrainedHeads:
    """
    Heads, and how they came about.

    Args:
        heads ([`Heads`]): The heads, in evaluation mode.
        num_epochs (`int`): The passes over the images.
        held_out (`list[float]`): After each epoch of the choice, the mean reciprocal rank of images that were held
            out; empty where the number of epochs was given.
        losses (`list[float]`): The mean loss of each epoch.
    """

    heads: Heads
    num_epochs: int
    held_out: list[float]
    losses: list[float]


class CaptionSampler:
    """
    Samples a caption of one modality for each of some images.

    Args:
        features ([`Features`]): The images and captions.
        modality (`str`): One of `MODALITIES`.
    """

    def __init__(self, features: Features, modality: str):
        captions = features.captions[features.captions[:, 2] == MODALITIES.index(modality)]
        self.texts = captions[:, 1]
        self.counts = torch.bincount(captions[:, 0], minlength=len(features.images))
        self.starts = self.counts.cumsum(dim=0) - self.counts

    def sample(self, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Returns which of some images, of shape `(images,)`, have such a caption, as a mask of that shape, and the text
        of one caption of each of these.
        """
        has_caption = self.counts[images] > 0
        images = images[has_caption]
        fractions = torch.rand(len(images), generator=generator)
        offsets = (fractions * self.counts[images]).long()
        return has_caption, self.texts[self.starts[images] + offsets]


def contrast(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """
    Returns the contrastive loss of CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020, figure 3), in which
    images with the same text are no negatives of each other.

    Args:
        image_embeds (`torch.Tensor` of shape `(pairs, dim)`): Normalized embeddings of images.
        text_embeds (`torch.Tensor` of shape `(pairs, dim)`): Normalized embeddings of their texts.
        texts (`torch.Tensor` of shape `(pairs,)`): What each text is known by.
        scale (`torch.Tensor` of shape `()`): The inverse temperature.
    """
    logits = scale * image_embeds @ text_embeds.t()
    is_equal = texts[:, None] == texts
    is_equal.fill_diagonal_(False)
    logits = logits.masked_fill(is_equal.to(logits.device), -torch.inf)
    targets = torch.arange(len(logits), device=logits.device)
    return 0.5 * cross_entropy(logits, targets) + 0.5 * cross_entropy(logits.t(), targets)


def train_heads(features: Features, settings: HeadSettings, device: str | torch.device = "cpu") -> TrainedHeads:
    """
    Trains heads on features; where the number of epochs is not given, it is chosen first, on images that are held out
    of a training of its own, and the heads that are returned are trained on all images.

    Args:
        features ([`Features`]): The features of the training data.
        settings ([`HeadSettings`]): How the heads are made and trained.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where they are trained.

    Raises:
        `ValueError`: if there are fewer than two images, or no captions to train on.
    """
    check_features(features, settings)
    # dropout has no generator of its own, and the global one stays as it was
    with torch.random.fork_rng():
        held_out = []
        num_epochs = settings.num_epochs
        if num_epochs is None:
            held_out = measure_epochs(features, settings, device)
            num_epochs = 1 + max(range(len(held_out)), key=lambda epoch: held_out[epoch])
        losses = []
        heads = None
        for epoch_heads, loss in run_epochs(features, settings, num_epochs, device):
            heads = epoch_heads
            losses.append(loss)
    return TrainedHeads(heads.eval().cpu(), num_epochs, held_out, losses)


def check_features(features: Features, settings: HeadSettings) -> None:
    """Raises a `ValueError` if there is nothing to contrast."""
    present = {MODALITIES[code] for code in features.captions[:, 2].unique().tolist()}
    if not present & set(settings.captions):
        raise ValueError(
            f"The training data has no captions of {' or '.join(settings.captions)}: name others with --captions."
        )
    if not any(are_told_apart(features, modality) for modality in settings.captions):
        raise ValueError("All images of the training data have the same captions: give others.")
    if len(features.images) < 4:
        raise ValueError(
            f"The training data has {len(features.images)} images with captions that can be read: give 4 at least."
        )


def are_told_apart(features: Features, modality: str) -> bool:
    """Returns whether two images have different captions of a modality: of `MODALITIES`."""
    captions = features.captions[features.captions[:, 2] == MODALITIES.index(modality)]
    first = None
    for _, rows in groupby(captions.tolist(), key=itemgetter(0)):
        texts = {text for _, text, _ in rows}
        first = first or texts
        if texts != first:
            return True
    return False


def measure_epochs(features: Features, settings: HeadSettings, device: str | torch.device) -> list[float]:
    """Returns the mean reciprocal rank of images that are held out after each epoch, the mean over some trainings."""
    num_images = len(features.images)
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(settings.seed))
    if num_images < FEW_IMAGES:
        folds = [order[fold::NUM_FOLDS] for fold in range(NUM_FOLDS)]
    else:
        folds = [order[: min(MAX_HELD_OUT, num_images // 10)]]
    measured = []
    for fold in folds:
        is_held_out = torch.zeros(num_images, dtype=torch.bool)
        is_held_out[fold] = True
        used = features.select((~is_held_out).nonzero().flatten())
        held_out = features.select(is_held_out.nonzero().flatten())
        steps_per_epoch = math.ceil(len(used.images) / settings.batch_size)
        max_epochs = max(MAX_EPOCHS, MAX_STEPS // steps_per_epoch)
        fold_ranks = []
        for heads, _ in run_epochs(used, settings, max_epochs, device):
            fold_ranks.append(measure_rank(heads, held_out, settings.captions, device))
            if has_stopped_rising(fold_ranks):
                break
        measured.append(fold_ranks)
    num_epochs = min(len(fold_ranks) for fold_ranks in measured)
    table = torch.tensor([fold_ranks[:num_epochs] for fold_ranks in measured], dtype=torch.float64)
    return table.mean(dim=0).tolist()


def has_stopped_rising(measured: list[float]) -> bool:
    """Returns whether the best value came before two thirds of at least 30 values."""
    best = max(range(len(measured)), key=lambda epoch: measured[epoch])
    return len(measured) >= 30 and len(measured) > 3 * (best + 1)


def run_epochs(
    features: Features, settings: HeadSettings, num_epochs: int, device: str | torch.device
) -> Iterator[tuple[Heads, float]]:
    """
    Yields the heads, the same object in training, and the mean loss after each epoch. Raises a `ValueError` if it is
    not finite.

    Args:
        features ([`Features`]): What they are trained on.
        settings ([`HeadSettings`]): How they are made and trained.
        num_epochs (`int`): The passes over the images.
        device (`str` or `torch.device`): Where they are trained.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    heads = Heads(features, settings).to(device)
    matrices = [parameter for parameter in heads.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in heads.parameters() if parameter.dim() <= 1]
    decayed = {"params": matrices, "weight_decay": settings.weight_decay}
    plain = {"params": others, "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decayed, plain], lr=settings.learning_rate)
    samplers = [CaptionSampler(features, modality) for modality in settings.captions]
    for _ in range(num_epochs):
        heads.train()
        losses = []
        order = torch.randperm(len(features.images), generator=generator)
        for images in order.split(settings.batch_size):
            loss = compute_loss(heads, features, images, samplers, generator, device)
            if loss is None:
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                heads.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
            losses.append(loss.item())
        with torch.no_grad():
            size_of_weights = sum(parameter.square().sum().item() for parameter in heads.parameters())
        # the weights may have left what is finite in the last step
        if not math.isfinite(sum(losses)) or not math.isfinite(size_of_weights):
            raise ValueError(
                f"The loss is not finite: a `--learning_rate` of {settings.learning_rate:g} is too high. Give less."
            )
        yield heads, sum(losses) / max(1, len(losses))


def compute_loss(
    heads: Heads,
    features: Features,
    images: torch.Tensor,
    samplers: list[CaptionSampler],
    generator: torch.Generator,
    device: str | torch.device,
) -> torch.Tensor | None:
    """
    Returns the mean loss of the modalities of which two images at least have a caption, `None` if there is none.

    Args:
        heads ([`Heads`]): The heads in training.
        features ([`Features`]): All features.
        images (`torch.Tensor` of shape `(batch,)`): The images of the step.
        samplers (`list[CaptionSampler]`): One for each modality.
        generator (`torch.Generator`): By which captions are sampled.
        device (`str` or `torch.device`): Where the heads are.
    """
    image_embeds = heads.embed("image", features.images[images].to(device))
    losses = []
    for sampler in samplers:
        has_caption, texts = sampler.sample(images, generator)
        if len(texts) < 2:
            continue
        text_embeds = heads.embed("text", features.texts[texts].to(device))
        captioned_images = image_embeds[has_caption.to(device)]
        losses.append(contrast(captioned_images, text_embeds, texts, heads.logit_scale.exp()))
    if not losses:
        return None
    return torch.stack(losses).mean()


@torch.inference_mode()
def measure_rank(
    heads: Heads, features: Features, captions: tuple[str, ...], device: str | torch.device = "cpu"
) -> float:
    """
    Returns the mean reciprocal rank of the image of a caption, the mean over short and long captions, or over what
    there is of them.

    Args:
        heads ([`Heads`]): The heads, which are put into evaluation mode.
        features ([`Features`]): Images and captions that they were not trained on.
        captions (`tuple[str, ...]`): The modalities that count, if there is a short or a long one among them.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where the heads are.
    """
    heads.eval()
    image_embeds = heads.embed("image", features.images.to(device))
    means = []
    wanted = [modality for modality in captions if modality != "sub"] or list(captions)
    for modality in wanted:
        rows = features.captions[features.captions[:, 2] == MODALITIES.index(modality)]
        if len(rows) == 0:
            continue
        text_embeds = heads.embed("text", features.texts[rows[:, 1]].to(device))
        similarities = (text_embeds @ image_embeds.t()).cpu()
        own = similarities.gather(1, rows[:, :1])
        num_better = (similarities > own).sum(dim=1)
        num_equal = (similarities == own).sum(dim=1) - 1
        means.append((1 / (1 + num_better + num_equal / 2)).mean().item())
    return sum(means) / max(1, len(means))

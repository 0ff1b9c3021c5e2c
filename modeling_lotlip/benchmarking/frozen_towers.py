# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A dual encoder that is trained within seconds, for measurements with several seeds: two frozen towers, and a small
network that maps the features of texts to those of the images that they describe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import PIL.Image
import torch
from datasets import load_dataset
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor
from transformers import AutoModel, AutoTokenizer
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..arguments import Arguments, argument
from ..sub_captions import split_sub_captions
from ..terminal import progress_bar


Picture = PIL.Image.Image
BICUBIC = PIL.Image.Resampling.BICUBIC


@dataclass
class TowerArguments(Arguments):
    """The frozen towers, and the trainings of the network between them."""

    vision_model_name_or_path: str = argument("facebook/dinov2-small", "An image tower with interpolated positions.")
    text_model_name_or_path: str = argument("sentence-transformers/all-MiniLM-L6-v2", "A BERT for sentences.")
    image_size: int = argument(112, "The side of the crop in pixels.", least=14)
    seeds: int = argument(5, "Trainings.", least=1)
    steps: int = argument(400, "Steps of a training.", least=1)
    dtype: str = argument("bfloat16", "What the towers compute in.", choices=("float32", "bfloat16"))
    batch_size: int = argument(32, "Pictures or texts in a batch.", least=1)


class Captioned(NamedTuple):
    """A picture, its short caption, and the sentences of its long one, without their full stops."""

    picture: Picture
    short: str
    sentences: list[str]


def join_sentences(sentences: list[str]) -> str:
    """Sentences without full stops as a text."""
    return " ".join(f"{sentence}." for sentence in sentences)


def read_captioned(data_dir: str) -> tuple[list[Captioned], list[Captioned]]:
    """
    The pictures of an `imagefolder` to train on, those of the split `train`, and all others. Of several captions the
    first one counts.

    Raises:
        `ValueError`: if there are none of the one or the other.
    """
    trained, others = [], []
    for split, rows in load_dataset("imagefolder", data_dir=data_dir).items():
        for row in rows:
            texts = [row[column] for column in ("caption", "long_captions")]
            short, long = [text if isinstance(text, str) else text[0] for text in texts]
            sentences = [sentence.rstrip(".") for sentence in split_sub_captions(long, "sentences")]
            (trained if split == "train" else others).append(Captioned(row["image"].convert("RGB"), short, sentences))
    if not trained or not others:
        raise ValueError(f"{data_dir} needs a split `train`, and another one to search.")
    return trained, others


def crop(picture: Picture, side: int, place: float = 0.5) -> Picture:
    """A square of the whole height, or width, at a place from 0 (left or top) to 1."""
    short = min(picture.size)
    left, top = (round(place * (length - short)) for length in picture.size)
    return picture.crop((left, top, left + short, top + short)).resize((side, side), BICUBIC)


class ImageTower:
    """A frozen tower: pictures of several sizes to features."""

    def __init__(self, args: TowerArguments):
        self.model = AutoModel.from_pretrained(args.vision_model_name_or_path, dtype=args.dtype).eval()
        self.patch, self.batch_size = self.model.config.patch_size, args.batch_size
        self.mean, self.std = (
            torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )

    def embed(self, pictures: list[Picture]) -> torch.Tensor:
        """Features (pictures, dim): the class token and the mean of the patches."""
        return torch.stack(self.compute(pictures, lambda states: torch.cat((states[0], states[1:].mean(dim=0)))))

    @torch.inference_mode()
    def compute(self, pictures: list[Picture], keep: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        """What is kept of the last hidden states (length, dim) of each picture."""
        features = [None] * len(pictures)
        for size in {picture.size for picture in pictures}:
            places = [place for place, picture in enumerate(pictures) if picture.size == size]
            for start in progress_bar(
                range(0, len(places), self.batch_size), desc=f"{size[0]} x {size[1]}", leave=False
            ):
                of_batch = places[start : start + self.batch_size]
                pixels = torch.stack([pil_to_tensor(pictures[place]) for place in of_batch]).float() / 255
                hidden = self.model(((pixels - self.mean) / self.std).to(self.model.dtype)).last_hidden_state.float()
                for place, states in zip(of_batch, hidden):
                    features[place] = keep(states)
        return features


def embed_texts(args: TowerArguments, texts: list[str]) -> torch.Tensor:
    """Features (texts, dim): the mean of the tokens, normalised."""
    means = [tokens.mean(dim=0) for tokens in embed_text_tokens(args, texts)]
    return nn.functional.normalize(torch.stack(means), dim=-1)


@torch.inference_mode()
def embed_text_tokens(args: TowerArguments, texts: list[str]) -> list[torch.Tensor]:
    """The last hidden states (length, dim) of each text. Texts of about the same length go together."""
    tokenizer = AutoTokenizer.from_pretrained(args.text_model_name_or_path)
    model = AutoModel.from_pretrained(args.text_model_name_or_path, dtype=args.dtype).eval()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    features = [None] * len(texts)
    for start in progress_bar(range(0, len(texts), args.batch_size), desc="Texts", leave=False):
        places = order[start : start + args.batch_size]
        batch = [texts[place] for place in places]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state.float()
        for place, states, mask in zip(places, hidden, tokens["attention_mask"].bool()):
            features[place] = states[mask]
    return features


def train_head(texts: torch.Tensor, images: torch.Tensor, steps: int, seed: int) -> nn.Module:
    """
    Trains the network between the towers, by the contrastive loss.

    Args:
        texts (`torch.Tensor` of shape `(num_texts, num_images, text_dim)`):
            The features of the texts of each image, of which one is drawn in each step.
        images (`torch.Tensor` of shape `(num_images, image_dim)`):
            The normalised features of the images.
        steps (`int`):
            Steps of AdamW.
        seed (`int`):
            Of weights, dropout and order.

    Returns:
        `nn.Module`: maps `(..., text_dim)` to `(..., image_dim)`.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.benchmarking.frozen_towers import train_head

    >>> head = train_head(torch.eye(4)[None], torch.eye(4), steps=100, seed=0)
    >>> head(torch.eye(4)).argmax(dim=1)
    tensor([0, 1, 2, 3])
    ```"""
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(texts.shape[-1], 512), nn.GELU(), nn.Dropout(0.2))
    head.append(nn.Linear(512, images.shape[1]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.1)
    labels, rows = torch.arange(min(256, len(images))), torch.arange(len(images))
    for _ in range(steps):
        rows = torch.randperm(len(images))[: len(labels)]
        embeds = head(texts[torch.randint(len(texts), (len(rows),)), rows])
        logits = 20 * nn.functional.normalize(embeds, dim=-1) @ images[rows].T
        loss = nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def rank(similarities: torch.Tensor) -> torch.Tensor:
    """
    The rank from 1 of the right picture of each text, which has its number; equals share their mean rank.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.benchmarking.frozen_towers import rank

    >>> rank(torch.tensor([[0.1, 0.2], [0.3, 0.3]]))
    tensor([2.0000, 1.5000])
    ```"""
    own = similarities.diagonal(dim1=-2, dim2=-1)[..., None]
    return 1 + (similarities > own).sum(dim=-1) + ((similarities == own).sum(dim=-1) - 1) / 2


def bootstrap(gains: torch.Tensor, draws: int = 10_000) -> tuple[float, float]:
    """
    Between what the mean of the gains of texts is in 95 of 100 draws.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.benchmarking.frozen_towers import bootstrap

    >>> bootstrap(torch.ones(20))
    (1.0, 1.0)
    ```"""
    generator = torch.Generator().manual_seed(0)
    means = gains[torch.randint(len(gains), (draws, len(gains)), generator=generator)].mean(dim=1)
    return tuple(torch.quantile(means, torch.tensor([0.025, 0.975])).tolist())

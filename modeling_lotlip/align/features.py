# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What two frozen towers make of a data set: computed once, as it comes, and kept in files for all later runs.

A file holds the features of some images or texts and is named by a hash of them and of the tower: whatever data set,
split or heads ask for the same images or texts by the same tower, they find them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.constants import HF_ASSETS_CACHE

from ..data.images import UnreadableImageError, read_file, undecoded
from ..data.reader import RowReader
from ..encoder.batches import Batch, RowCollator, collate_rows, prefetch, sort_texts, warn_of_unreadable
from ..encoder.hashes import hash_model, hash_processor
from ..encoder.preprocessing import Preprocessing
from ..utils.output_folder import atomic_write
from ..utils.sub_captions import split_sub_captions
from ..utils.terminal import progress_bar
from .towers import ImageTower, TextTower, make_processor


logger = logging.getLogger(__name__)

# Images or texts in a file
SHARD_SIZE = 256
TEXTS_PER_CHUNK = 256
# What texts of an image are, in the order of their codes
MODALITIES = ("short", "long", "sub")


@dataclass
class Features:
    """
    The features of the images of a data set that can be read and have a caption, and of their texts.

    Args:
        images (`torch.Tensor` of shape `(images, image_dim)`): Features of images.
        texts (`torch.Tensor` of shape `(texts, text_dim)`): Features of different texts.
        captions (`torch.Tensor` of shape `(captions, 3)`): For each caption its image, its text, and its modality as
            an index into `MODALITIES`, sorted by the image.
        counts (`dict[str, int]`): What was left out or truncated, by its name.
    """

    images: torch.Tensor
    texts: torch.Tensor
    captions: torch.Tensor
    counts: dict[str, int] = field(default_factory=dict)

    def select(self, images: torch.Tensor) -> "Features":
        """Returns the features of some images, by their sorted positions of shape `(selected,)`."""
        new_positions = torch.full((len(self.images),), -1)
        new_positions[images] = torch.arange(len(images))
        captions = self.captions[torch.isin(self.captions[:, 0], images)].clone()
        captions[:, 0] = new_positions[captions[:, 0]]
        return Features(self.images[images], self.texts, captions, self.counts)


def find_features_dir() -> Path:
    """Returns the folder where features are kept if no other is named: in the Hub's cache."""
    return Path(HF_ASSETS_CACHE) / "lotlip" / "tower_features"


def compute_features(
    text_tower: TextTower,
    image_tower: ImageTower,
    dataset: Dataset,
    reader: RowReader,
    folder: Path,
    batch_size: int = 32,
    num_workers: int = 0,
) -> Features:
    """
    Returns the features of a data set, from files where they are there.

    Args:
        text_tower ([`TextTower`]):
            The text tower.
        image_tower ([`ImageTower`]):
            The image tower.
        dataset (`Dataset`):
            The images and captions.
        reader (`RowReader`):
            Reads its rows.
        folder (`Path`):
            Where features are kept.
        batch_size (`int`, *optional*, defaults to 32):
            Images in a batch.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode images.

    Raises:
        `ValueError`: if no image can be read, or none that can has a caption.
    """
    preprocessing = Preprocessing(make_processor(text_tower, image_tower))
    images = compute_image_features(image_tower, dataset, reader, preprocessing, folder, batch_size, num_workers)
    captions = list_captions(dataset, reader)
    texts = list(dict.fromkeys(text for _, text, _ in captions))
    text_features, truncated = compute_text_features(text_tower, texts, preprocessing, folder)

    # where no image at all can be read there are no dimensions
    is_readable = images.isfinite().all(dim=1) & (images.shape[1] > 0)
    if not is_readable.any():
        raise ValueError("No image of the training data can be read.")
    text_positions = {text: position for position, text in enumerate(texts)}
    rows = []
    for row, text, modality in captions:
        if is_readable[row]:
            rows.append([row, text_positions[text], MODALITIES.index(modality)])
    if not rows:
        raise ValueError("No image of the training data has a caption.")
    kept = torch.tensor(sorted({row for row, _, _ in rows}))
    is_long_or_short = [modality != "sub" for _, _, modality in captions]
    counts = {
        "rows": len(dataset),
        "unreadable_images": int((~is_readable).sum()),
        "images_without_caption": int(is_readable.sum()) - len(kept),
        "captions": sum(is_long_or_short),
        "truncated_captions": sum(
            truncated[text_positions[text]] for _, text, modality in captions if modality != "sub"
        ),
    }
    return Features(images, text_features, torch.tensor(rows), counts).select(kept)


def list_captions(dataset: Dataset, reader: RowReader) -> list[tuple[int, str, str]]:
    """Returns the row, the text and the modality of all captions, and of the sub-captions of long ones."""
    captions = []
    for index, row in enumerate(dataset.select_columns(reader.text_columns)):
        for text in reader.short_captions(row):
            captions.append((index, text, "short"))
        for text in reader.long_captions(row):
            sub_captions = split_sub_captions(text, reader.splitter)
            if not sub_captions:
                continue
            captions.append((index, ". ".join(sub_captions), "long"))
            if len(sub_captions) > 1:
                captions += [(index, sub_caption, "sub") for sub_caption in sub_captions]
    return captions


def compute_image_features(
    tower: ImageTower,
    dataset: Dataset,
    reader: RowReader,
    preprocessing: Preprocessing,
    folder: Path,
    batch_size: int = 32,
    num_workers: int = 0,
) -> torch.Tensor:
    """
    Returns features of shape `(rows, dim)` of the images of a data set, NaN where one cannot be read.

    Args:
        tower ([`ImageTower`]): The image tower.
        dataset (`Dataset`): The images.
        reader (`RowReader`): Reads its rows.
        preprocessing (`Preprocessing`): Makes the inputs of the tower.
        folder (`Path`): Where features are kept.
        batch_size (`int`, *optional*, defaults to 32): Images in a batch.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
    """
    column = reader.image_column
    rows = undecoded(dataset.select_columns(column), column)
    image_processor = tower.image_processor
    settings = [hash_model(tower.model), hash_model(tower.weights)]
    settings += [tower.pooling, tower.num_prefix_tokens]
    settings += [type(image_processor).__name__, image_processor.to_dict()]
    collate = RowCollator(preprocessing, RowReader([column], image_column=column))

    def read_batches(indices: Sequence[int]) -> Iterator[list[tuple[int, dict]]]:
        for start in range(0, len(indices), batch_size):
            yield [(index, rows[index]) for index in indices[start : start + batch_size]]

    def compute(indices: Sequence[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yields positions and the features of their images, of shape `(positions, dim)`."""
        for prepared in prefetch(collate_rows(collate, read_batches(indices), num_workers), depth=2):
            warn_of_unreadable(prepared.unreadable)
            entries = prepared.images.entries
            if entries:
                yield [item.row.row_index for item in entries], tower.compute(prepared.images.inputs)

    names = (identify_image(row[column]) for row in rows)
    return read_or_compute(names, settings, compute, folder / "images", "Image features", " images")


def compute_text_features(
    tower: TextTower, texts: list[str], preprocessing: Preprocessing, folder: Path
) -> tuple[torch.Tensor, list[bool]]:
    """
    Returns features of shape `(texts, dim)` of texts, and of each whether it is longer than the limit of the tower.

    Args:
        tower ([`TextTower`]): The text tower.
        texts (`list[str]`): Different texts.
        preprocessing (`Preprocessing`): Makes the inputs of the tower.
        folder (`Path`): Where features are kept.
    """
    settings = [hash_model(tower.model), hash_model(tower.weights), tower.pooling]
    settings += [preprocessing.max_length, hash_processor(tower.tokenizer)]

    def tokenize(indices: Sequence[int]) -> Iterator[Batch[int]]:
        for start in range(0, len(indices), TEXTS_PER_CHUNK):
            chunk = list(indices[start : start + TEXTS_PER_CHUNK])
            inputs = preprocessing.tokenize([texts[index] for index in chunk]).inputs
            yield Batch(chunk, inputs, "text")

    def compute(indices: Sequence[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yields positions and the features of their texts, of shape `(positions, dim)`."""
        for batch in sort_texts(tokenize(indices), preprocessing):
            yield batch.entries, tower.compute(batch.inputs)

    features = read_or_compute(texts, settings, compute, folder / "texts", "Text features", " texts")
    lengths = [len(ids) for ids in preprocessing.tokenize_whole(texts)]
    return features, [length > preprocessing.max_length for length in lengths]


def read_or_compute(
    names: Iterable[str],
    settings: list,
    compute: Callable[[Sequence[int]], Iterator[tuple[list[int], torch.Tensor]]],
    folder: Path,
    title: str,
    unit: str,
) -> torch.Tensor:
    """
    Returns features of shape `(names, dim)`, those that are not yet in files computed and written.

    Args:
        names (`Iterable[str]`):
            What each image or text is known by, in whatever data set it is.
        settings (`list`):
            What else features depend on.
        compute (`Callable`):
            Yields positions, and the features of shape `(positions, dim)` of these, of positions that it is given.
        folder (`Path`):
            The folder of the files.
        title (`str`):
            What the progress bar says.
        unit (`str`):
            What it counts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(names)
    parts = []
    with progress_bar(total=len(names), desc=title, unit=unit) as progress:
        for start in range(0, len(names), SHARD_SIZE):
            indices = range(start, min(start + SHARD_SIZE, len(names)))
            content = json.dumps([settings, [names[index] for index in indices]], default=str)
            file = folder / f"{hashlib.blake2b(content.encode(), digest_size=20).hexdigest()}.npy"
            if not file.exists():
                write_shard(file, indices, compute, progress)
            else:
                progress.update(len(indices))
            parts.append(torch.from_numpy(np.load(file)))
    num_dims = max(part.shape[1] for part in parts)
    # a file of no readable image at all does not know how many dimensions there are
    features = torch.full((len(names), num_dims), torch.nan)
    for shard_index, part in enumerate(parts):
        start = shard_index * SHARD_SIZE
        features[start : start + len(part), : part.shape[1]] = part
    return features


def write_shard(file: Path, indices: range, compute: Callable, progress: object) -> None:
    """
    Computes the features of some images or texts and writes them to a file, NaN where there are none.

    Args:
        file (`Path`): The file.
        indices (`range`): The indices of the images or texts.
        compute (`Callable`): See [`read_or_compute`].
        progress (`tqdm`): Counts them.
    """
    features = torch.full((len(indices), 0), torch.nan)
    for computed, rows in compute(indices):
        if features.shape[1] == 0:
            features = torch.full((len(indices), rows.shape[1]), torch.nan)
        features[torch.tensor(computed) - indices.start] = rows
        progress.update(len(computed))
    with atomic_write(file) as partial, open(partial, "wb") as opened:
        np.save(opened, features.numpy())


def identify_image(file: dict | None) -> str:
    """Returns what an undecoded image is known by: the path, size and time of its file, or a hash of its content."""
    path = (file or {}).get("path")
    if (file or {}).get("bytes") is None and path is not None and os.path.isfile(path):
        status = os.stat(path)
        return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
    try:
        return hashlib.blake2b(read_file(file), digest_size=16).hexdigest()
    except UnreadableImageError as error:
        return f"unreadable: {error}"

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What two frozen towers make of images and texts: computed once, as it comes, and kept in files for all later runs.

Each image or text is known by itself, and each tower by its weights and settings: whatever dataset, split or heads
ask for the same image by the same tower, they find it.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.constants import HF_ASSETS_CACHE

from ..data.images import UnreadableImageError, read_file, undecoded
from ..data.reader import UNREADABLE, RowCounts, RowInfo, RowReader
from ..data.rows import name_row
from ..encoder.batches import Batch, RowCollator, collate_rows, prefetch, sort_texts, warn_of_unreadable
from ..encoder.finite import find_nonfinite_weight
from ..encoder.hashes import hash_model, hash_processor
from ..encoder.preprocessing import Preprocessing
from ..utils.output_folder import atomic_write
from ..utils.sub_captions import is_enumeration
from ..utils.terminal import progress_bar
from .towers import FrozenTower, ImageTower, TextTower, make_processor


logger = logging.getLogger(__name__)

# Images or texts in a file, and so what a run that is killed computes again at most
SHARD_SIZE = 256
TEXTS_PER_CHUNK = 256
# What texts of an image are, in the order of their codes
MODALITIES = ("short", "long", "sub")
# Changes when files of before mean something else
FILE_VERSION = 3


@dataclass
class Features:
    """
    The features of the images of a dataset that can be read and have a caption, and of their texts.

    Args:
        images (`torch.Tensor` of shape `(images, image_dim)`): Features of images.
        texts (`torch.Tensor` of shape `(texts, text_dim)`): Features of different texts.
        captions (`torch.Tensor` of shape `(captions, 3)`): For each caption its image, its text, and its modality as
            an index into `MODALITIES`, sorted by the image.
        counts (`dict[str, int]`): What was left out or truncated, by its name.
        contents (`list[str]`): The texts themselves.
        is_truncated (`torch.Tensor` of shape `(texts,)`): Whether a text is longer than its tower reads.
        is_unknown (`torch.Tensor` of shape `(texts,)`): Whether the tokenizer knows no word of a text.
    """

    images: torch.Tensor
    texts: torch.Tensor
    captions: torch.Tensor
    counts: dict[str, int] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    is_truncated: torch.Tensor | None = None
    is_unknown: torch.Tensor | None = None

    def select(self, images: torch.Tensor) -> "Features":
        """Returns the features of some images, by their sorted positions of shape `(selected,)`."""
        new_positions = torch.full((len(self.images),), -1)
        new_positions[images] = torch.arange(len(images))
        captions = self.captions[torch.isin(self.captions[:, 0], images)].clone()
        captions[:, 0] = new_positions[captions[:, 0]]
        return replace(self, images=self.images[images], captions=captions)


class Computed(NamedTuple):
    """
    What a tower computed of some images or texts.

    Attributes:
        positions (`list[int]`): Which they are of those that were asked for.
        features (`torch.Tensor` of shape `(positions, dim)`): Their features.
        is_truncated (`list[bool]`): Whether each is a text that is longer than the tower reads.
        is_unknown (`list[bool]`): Whether each is a text of which the tokenizer knows no word.
    """

    positions: list[int]
    features: torch.Tensor
    is_truncated: list[bool]
    is_unknown: list[bool]


class TextEntry(NamedTuple):
    """
    Is a text that is to be computed.

    Attributes:
        position (`int`): Which it is of those that were asked for.
        is_truncated (`bool`): Whether it is longer than the tower reads.
        is_unknown (`bool`): Whether the tokenizer knows no word of it.
    """

    position: int
    is_truncated: bool
    is_unknown: bool


def find_features_dir() -> Path:
    """Returns the folder where features are kept if no other is named: in the Hub's cache."""
    return Path(HF_ASSETS_CACHE) / "lotlip" / "tower_features"


class FeatureComputer:
    """
    Computes the features of datasets by two towers, or finds them in files.

    Args:
        text_tower ([`TextTower`]):
            The text tower.
        image_tower ([`ImageTower`]):
            The image tower.
        folder (`Path`):
            Where features are kept.
        batch_size (`int`, *optional*, defaults to 32):
            Images in a batch.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode images.
    """

    def __init__(
        self,
        text_tower: TextTower,
        image_tower: ImageTower,
        folder: Path,
        batch_size: int = 32,
        num_workers: int = 0,
    ):
        self.text_tower = text_tower
        self.image_tower = image_tower
        self.folder = Path(folder)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.preprocessing = Preprocessing(make_processor(text_tower, image_tower))

    @cached_property
    def image_store(self) -> "FeatureStore":
        """The files of the image tower."""
        tower = self.image_tower
        image_processor = tower.image_processor
        settings = [hash_model(tower.model), hash_model(tower.weights)]
        settings += [tower.layers, tower.pooling, tower.num_prefix_tokens]
        settings += [type(image_processor).__name__, hash_processor(image_processor)]
        return FeatureStore(self.folder / "images", settings)

    @cached_property
    def text_store(self) -> "FeatureStore":
        """The files of the text tower."""
        tower = self.text_tower
        settings = [hash_model(tower.model), hash_model(tower.weights)]
        settings += [tower.layers, tower.pooling, self.preprocessing.max_length, hash_processor(tower.tokenizer)]
        return FeatureStore(self.folder / "texts", settings)

    def compute(
        self,
        dataset: Dataset,
        reader: RowReader,
        modalities: Sequence[str] = MODALITIES,
        what: str = "training",
    ) -> Features:
        """
        Returns the features of a dataset, from files where they are there.

        Args:
            dataset (`Dataset`):
                The images and captions.
            reader (`RowReader`):
                Reads its rows.
            modalities (`Sequence[str]`, *optional*):
                Which texts of an image are wanted, of `MODALITIES`.
            what (`str`, *optional*, defaults to `"training"`):
                What messages call the data.

        Raises:
            `ValueError`: if no image can be read, or none that can has a caption, or a tower gives NaN.
        """
        captions = list_texts(dataset, reader, modalities, what)
        if not captions:
            raise ValueError(
                f"No row of the {what} data has a caption of those that are asked for "
                f"({', '.join(modalities)}): name its column, or other `--captions`."
            )
        images = self.compute_images(dataset, reader)
        contents = list(dict.fromkeys(text for _, text, _ in captions))
        texts = self.compute_texts(contents)

        is_readable = images.isfinite().all(dim=1) & (images.shape[1] > 0)
        if not is_readable.any():
            raise ValueError(f"No image of the {what} data can be read.")
        text_positions = {text: position for position, text in enumerate(contents)}
        rows = []
        whole_captions = []
        for row, text, modality in captions:
            if is_readable[row]:
                rows.append([row, text_positions[text], MODALITIES.index(modality)])
                if modality != "sub":
                    whole_captions.append(text_positions[text])
        if not rows:
            raise ValueError(f"No image of the {what} data that can be read has a caption.")
        kept = torch.tensor(sorted({row for row, _, _ in rows}))
        positions = torch.tensor(whole_captions, dtype=torch.long)
        counts = {
            "rows": len(dataset),
            "unreadable_images": int((~is_readable).sum()),
            "images_without_caption": int(is_readable.sum()) - len(kept),
            "num_captions": len(whole_captions),
            "truncated_captions": int(texts.is_truncated[positions].sum()),
            "unknown_captions": int(texts.is_unknown[positions].sum()),
        }
        if "long" in modalities and reader.has_long_captions:
            with_long = {row for row, _, modality in rows if modality == MODALITIES.index("long")}
            counts["images_without_long_caption"] = len(kept) - len(with_long)
        features = Features(
            images,
            texts.features,
            torch.tensor(rows),
            counts,
            contents,
            texts.is_truncated,
            texts.is_unknown,
        )
        return features.select(kept)

    def compute_images(self, dataset: Dataset, reader: RowReader) -> torch.Tensor:
        """Returns features of shape `(rows, dim)` of the images of a dataset, NaN where one cannot be read."""
        tower = self.image_tower
        column = reader.image_column
        rows = undecoded(dataset.select_columns(column), column)
        # large JPEGs at a fraction, as search reads them
        reader = RowReader([column], image_column=column, resizing=self.preprocessing.resizing)
        collate = RowCollator(self.preprocessing, reader)

        def read_batches(positions: Sequence[int]) -> Iterator[list[tuple[int, dict]]]:
            for start in range(0, len(positions), self.batch_size):
                yield [(position, rows[position]) for position in positions[start : start + self.batch_size]]

        def compute(positions: Sequence[int]) -> Iterator[Computed]:
            for prepared in prefetch(collate_rows(collate, read_batches(positions), self.num_workers), depth=2):
                warn_of_unreadable(prepared.unreadable)
                found = [item.row_key.row_index for item in prepared.images.entries]
                if not found:
                    continue
                no_texts = [False] * len(found)
                computed = Computed(found, tower.compute(prepared.images.inputs), no_texts, no_texts)
                check_computed(computed, tower, lambda position: name_row(rows[position], position))
                yield computed

        names = (identify_image(row[column]) for row in rows)
        return self.image_store.find_or_compute(names, compute, "Image features", " images").features

    def compute_texts(self, texts: list[str]) -> "FeatureTable":
        """Returns the features of different texts, and whether each is truncated or unknown."""
        tower = self.text_tower

        def tokenize(positions: Sequence[int]) -> Iterator[Batch[TextEntry]]:
            for start in range(0, len(positions), TEXTS_PER_CHUNK):
                chunk = positions[start : start + TEXTS_PER_CHUNK]
                tokenized = self.preprocessing.tokenize([texts[position] for position in chunk])
                is_unknown = self.preprocessing.find_unknown(tokenized.inputs["input_ids"])
                entries = [TextEntry(*facts) for facts in zip(chunk, tokenized.truncated, is_unknown)]
                yield Batch(entries, tokenized.inputs, "text")

        def compute(positions: Sequence[int]) -> Iterator[Computed]:
            for batch in sort_texts(tokenize(positions), self.preprocessing):
                computed = Computed(
                    positions=[text.position for text in batch.entries],
                    features=tower.compute(batch.inputs),
                    is_truncated=[text.is_truncated for text in batch.entries],
                    is_unknown=[text.is_unknown for text in batch.entries],
                )
                check_computed(computed, tower, lambda position: repr(texts[position]))
                yield computed

        return self.text_store.find_or_compute(texts, compute, "Text features", " texts")


def check_computed(computed: Computed, tower: FrozenTower, describe: Callable[[int], str]) -> None:
    """
    Raises a `ValueError` if a feature is not finite.

    Args:
        computed ([`Computed`]): What a tower computed.
        tower ([`FrozenTower`]): The tower.
        describe (`Callable`): Names the image or text at a position.
    """
    is_finite = computed.features.isfinite().all(dim=1).tolist()
    for position, is_good in zip(computed.positions, is_finite):
        if is_good:
            continue
        weight = find_nonfinite_weight(tower.model, tower.weights)
        if weight is not None:
            raise ValueError(
                f"{tower.name} gives NaN or infinity for {describe(position)}, since its weights do, "
                f"`{weight}` first: load it anew, or name another."
            )
        raise ValueError(
            f"{tower.name} gives NaN or infinity for {describe(position)}, though its weights are "
            "finite: it is no model for such data. Name another."
        )


def list_texts(
    dataset: Dataset, reader: RowReader, modalities: Sequence[str] = MODALITIES, what: str = "training"
) -> list[tuple[int, str, str]]:
    """
    Returns the row, the text and the modality of the captions of a dataset, and of the sub-captions of long ones.

    Args:
        dataset (`Dataset`): The rows.
        reader (`RowReader`): Reads them.
        modalities (`Sequence[str]`, *optional*): Which texts are wanted, of `MODALITIES`.
        what (`str`, *optional*, defaults to `"training"`): What messages call the data.

    Raises:
        `ValueError`: if there are caption files and no image has captions there.
    """
    counts = RowCounts()
    rows = undecoded(dataset, reader.image_column).select_columns(reader.text_columns)
    captions = []
    for position, row in enumerate(rows):
        # once, since the key of an image may be the hash of its file
        captions_in_files, unmatched_key = reader.read_captions_in_files(position, row)
        if unmatched_key != UNREADABLE:  # it is counted where images are read
            counts.count(name_row(row, position), unmatched=unmatched_key)
        for item in reader.read_texts(RowInfo(position, position), row, captions_in_files):
            if item.kind in modalities:
                captions.append((position, item.content, item.kind))
            # as the reader has joined them; the numbers of a list are none
            sub_captions = [part for part in item.content.split(". ") if not is_enumeration(part)]
            if item.kind == "long" and "sub" in modalities and len(sub_captions) > 1:
                captions += [(position, sub_caption, "sub") for sub_caption in sub_captions]
    reader.check_counts(counts, dataset, f"{what} images")
    reader.report_counts(counts, dataset, f"{what} images")
    return captions


class FeatureStore:
    """
    The features of one tower in files of up to `SHARD_SIZE` images or texts, each known by a hash of its name. Several
    runs may read and write at the same time: a file is there whole or not at all, and none is ever changed.

    Args:
        folder (`Path`): The folder of features of all towers.
        settings (`list`): What features depend on beside the image or text.
    """

    def __init__(self, folder: Path, settings: list):
        content = json.dumps([FILE_VERSION, settings], default=str, sort_keys=True)
        self.folder = Path(folder) / hash_text(content)

    def find_or_compute(
        self,
        names: Iterable[str],
        compute: Callable[[Sequence[int]], Iterator[Computed]],
        title: str,
        unit: str,
    ) -> "FeatureTable":
        """
        Returns features in the order of their names, NaN where there are none. What is not in files yet is
        computed and written.

        Args:
            names (`Iterable[str]`):
                What each image or text is known by, in whatever dataset it is.
            compute (`Callable`):
                Yields what is computed of some positions in `names`. Those that it leaves out are asked for again by
                the next run.
            title (`str`):
                What the progress bar says.
            unit (`str`):
                What it counts.
        """
        hashes = [hash_text(name) for name in names]
        missing = {}
        for position, name_hash in enumerate(hashes):
            missing.setdefault(name_hash, position)
        first_positions = dict(missing)
        table = FeatureTable(len(hashes))
        for file in sorted(self.folder.glob("*.npz")):
            self.read(file, missing, table)
        num_found = len(first_positions) - len(missing)
        with progress_bar(total=len(first_positions), initial=num_found, desc=title, unit=unit) as progress:
            positions = list(missing.values())
            for start in range(0, len(positions), SHARD_SIZE):
                parts = []
                for part in compute(positions[start : start + SHARD_SIZE]):
                    parts.append(part)
                    table.set(part)
                    progress.update(len(part.positions))
                if parts:
                    self.write(parts, hashes)
        table.copy([first_positions[name_hash] for name_hash in hashes])
        return table

    def read(self, file: Path, missing: dict[str, int], table: "FeatureTable") -> None:
        """
        Reads what is missing from a file, and strikes it off.

        Args:
            file (`Path`): The file.
            missing (`dict[str, int]`): The hashes of the names that are missing, and their positions.
            table ([`FeatureTable`]): Gets their features.
        """
        try:
            with np.load(file) as arrays:
                names = [name.decode() for name in arrays["names"].tolist()]
                rows = [row for row, name in enumerate(names) if name in missing]
                if not rows:
                    return
                features = torch.from_numpy(arrays["features"][rows])
                is_truncated = arrays["is_truncated"][rows].tolist()
                is_unknown = arrays["is_unknown"][rows].tolist()
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning(f"{file} cannot be read, and its features are computed again: {error}")
            return
        positions = [missing.pop(names[row]) for row in rows]
        table.set(Computed(positions, features, is_truncated, is_unknown))

    def write(self, parts: list[Computed], hashes: list[str]) -> None:
        """Writes what was computed to a file of its own, known by the hashes of the names at its positions."""
        names = []
        is_truncated = []
        is_unknown = []
        for part in parts:
            names += [hashes[position] for position in part.positions]
            is_truncated += part.is_truncated
            is_unknown += part.is_unknown
        features = torch.cat([part.features for part in parts])
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / f"{hash_text(' '.join(names))}.npz") as partial, open(partial, "wb") as opened:
            np.savez(
                opened,
                names=np.array(names, dtype=np.bytes_),
                features=features.numpy(),
                is_truncated=np.array(is_truncated),
                is_unknown=np.array(is_unknown),
            )


class FeatureTable:
    """
    Features in the order of what was asked for, filled in any order: see [`Computed`]. `features` are of shape
    `(rows, dim)`, NaN where there are none, `is_truncated` and `is_unknown` of shape `(rows,)`.

    Args:
        num_rows (`int`): The number of rows.
    """

    def __init__(self, num_rows: int):
        self.features = torch.full((num_rows, 0), torch.nan, dtype=torch.float32)
        self.is_truncated = torch.zeros(num_rows, dtype=torch.bool)
        self.is_unknown = torch.zeros(num_rows, dtype=torch.bool)

    def set(self, part: Computed) -> None:
        """Fills in some rows."""
        if self.features.shape[1] == 0:  # the first part says how many dimensions there are
            shape = (len(self.features), part.features.shape[1])
            self.features = torch.full(shape, torch.nan, dtype=torch.float32)
        self.features[part.positions] = part.features
        self.is_truncated[part.positions] = torch.tensor(part.is_truncated)
        self.is_unknown[part.positions] = torch.tensor(part.is_unknown)

    def copy(self, sources: list[int]) -> None:
        """Gives each row what the row `sources[row]` has: the same image in several rows is computed once."""
        if sources != list(range(len(sources))):
            self.features = self.features[sources]
            self.is_truncated = self.is_truncated[sources]
            self.is_unknown = self.is_unknown[sources]


def hash_text(text: str) -> str:
    """Returns a hash of a text, of 40 characters."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=20).hexdigest()


def identify_image(file: dict | None) -> str:
    """Returns what an undecoded image is known by: the path, size and times of its file, or a hash of its content."""
    path = (file or {}).get("path")
    if (file or {}).get("bytes") is None and path is not None and os.path.isfile(path):
        status = os.stat(path)
        return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    try:
        return hashlib.blake2b(read_file(file), digest_size=16).hexdigest()
    except UnreadableImageError as error:
        return f"unreadable: {error}"

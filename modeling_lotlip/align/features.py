# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What two frozen encoders make of images and texts: computed once, as it comes, and kept in files for all later runs.

Each image or text is known by itself, and each encoder by its weights and settings: whatever dataset, split or heads
ask for the same image by the same encoder, they find it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from huggingface_hub.constants import HF_ASSETS_CACHE
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from ..data.images import UnreadableImageError, read_file, read_image, undecoded
from ..data.reader import UNREADABLE, RowCounts, RowInfo, RowReader
from ..data.rows import batched, name_row
from ..encoder.batches import collate_rows, prefetch
from ..encoder.hashes import describe_config, hash_model, hash_processor
from ..encoder.sentence_transformer import as_text
from ..utils.output_folder import atomic_write
from ..utils.sub_captions import is_enumeration
from ..utils.terminal import printable, progress_bar
from .towers import without_normalize


logger = logging.getLogger(__name__)

# Images and texts in a file, and so what a run that is killed computes again at most: some seconds of work
IMAGES_PER_FILE = 256
TEXTS_PER_FILE = 4096
# What texts of an image are, in the order of their codes
MODALITIES = ("short", "long", "sub")
# Changes when files of before mean something else
FILE_VERSION = 4


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
        is_truncated (`torch.Tensor` of shape `(texts,)`): Whether a text is longer than its encoder reads.
    """

    images: torch.Tensor
    texts: torch.Tensor
    captions: torch.Tensor
    counts: dict[str, int] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    is_truncated: torch.Tensor | None = None

    def select(self, images: torch.Tensor) -> "Features":
        """Returns the features of some images, by their sorted positions of shape `(selected,)`."""
        new_positions = torch.full((len(self.images),), -1)
        new_positions[images] = torch.arange(len(images))
        captions = self.captions[torch.isin(self.captions[:, 0], images)].clone()
        captions[:, 0] = new_positions[captions[:, 0]]
        return replace(self, images=self.images[images], captions=captions)


def find_features_dir() -> Path:
    """Returns the folder where features are kept if no other is named: in the Hub's cache."""
    return Path(HF_ASSETS_CACHE) / "lotlip" / "features"


class FeatureComputer:
    """
    Computes the features of datasets by two encoders, or finds them in files. Features are what the models of the
    sentence-transformers library give before `Normalize`.

    Args:
        text_model (`SentenceTransformer`):
            The text encoder.
        vision_model (`SentenceTransformer`):
            The image encoder.
        folder (`Path`, *optional*):
            Where features are kept. Default: in the Hub's cache.
        batch_size (`int`, *optional*, defaults to 32):
            Images or texts in a batch.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode images.
    """

    def __init__(
        self,
        text_model: SentenceTransformer,
        vision_model: SentenceTransformer,
        folder: Path | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
    ):
        self.text_model = without_normalize(text_model)
        self.vision_model = without_normalize(vision_model)
        folder = find_features_dir() if folder is None else Path(folder)
        self.text_store = FeatureStore(folder / "texts" / hash_tower(self.text_model), TEXTS_PER_FILE)
        self.image_store = FeatureStore(folder / "images" / hash_tower(self.vision_model), IMAGES_PER_FILE)
        self.batch_size = batch_size
        self.num_workers = num_workers

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
            `ValueError`: if no image that can be read has a caption, or an encoder gives NaN.
        """
        captions = list_texts(dataset, reader, modalities, what)
        if not captions:
            raise ValueError(
                f"No row of the {what} data has a caption of those that are asked for "
                f"({', '.join(modalities)}): name its column, or other `--captions`."
            )
        images = self.compute_images(dataset, reader)
        is_readable = [image is not None for image in images]
        captions = [caption for caption in captions if is_readable[caption[0]]]
        if not captions:
            raise ValueError(f"No image of the {what} data that can be read has a caption.")
        contents = list(dict.fromkeys(text for _, text, _ in captions))
        texts = torch.from_numpy(np.stack(self.compute_texts(contents)))
        text_positions = {text: position for position, text in enumerate(contents)}
        kept = {row: position for position, row in enumerate(sorted({row for row, _, _ in captions}))}
        rows = [[kept[row], text_positions[text], MODALITIES.index(kind)] for row, text, kind in captions]
        is_truncated = torch.tensor(self.find_truncated(contents))
        whole_captions = [text for _, text, kind in rows if MODALITIES[kind] != "sub"]
        counts = {
            "rows": len(dataset),
            "unreadable_images": len(dataset) - sum(is_readable),
            "images_without_caption": sum(is_readable) - len(kept),
            "num_captions": len(whole_captions),
            "truncated_captions": int(is_truncated[whole_captions].sum()),
        }
        if "long" in modalities and reader.has_long_captions:
            with_long = {row for row, _, kind in rows if MODALITIES[kind] == "long"}
            counts["images_without_long_caption"] = len(kept) - len(with_long)
        kept_images = torch.from_numpy(np.stack([images[row] for row in kept]))
        return Features(kept_images, texts, torch.tensor(rows), counts, contents, is_truncated)

    def compute_images(self, dataset: Dataset, reader: RowReader) -> list[np.ndarray | None]:
        """Returns the feature, of shape `(dim,)`, of the image of each row, `None` where it cannot be read."""
        column = reader.image_column
        rows = undecoded(dataset.select_columns(column), column)
        read = partial(read_images, image_column=column)

        def compute(positions: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
            """Yields positions of rows and features, of shape `(positions, dim)`, of their images."""
            keyed_rows = ((position, rows[position]) for position in positions)
            batches = batched(keyed_rows, self.batch_size)
            for images in prefetch(collate_rows(read, batches, self.num_workers), depth=2):
                readable = {}
                for position, image in images:
                    if isinstance(image, str):
                        name = name_row(rows[position], position)
                        logger.warning(printable(f"The image of {name} cannot be read and is left out: {image}."))
                    else:
                        readable[position] = image
                if readable:
                    yield list(readable), self.encode(self.vision_model, list(readable.values()))

        names = [identify_image(row[column]) for row in rows]
        return self.image_store.find_or_compute(names, compute, "Image features", " images")

    def compute_texts(self, texts: list[str]) -> list[np.ndarray]:
        """Returns the feature, of shape `(dim,)`, of each of different texts."""

        def compute(positions: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
            """Yields positions of texts and their features, of shape `(positions, dim)`."""
            yield list(positions), self.encode(self.text_model, [as_text(texts[position]) for position in positions])

        return self.text_store.find_or_compute(texts, compute, "Text features", " texts")

    def encode(self, model: SentenceTransformer, items: list[str] | list[PIL.Image.Image]) -> np.ndarray:
        """Returns features of shape `(items, dim)`. Raises a `ValueError` if one is NaN or infinite."""
        modality = "text" if model is self.text_model else "image"
        features = model.encode(items, batch_size=self.batch_size, show_progress_bar=False)
        if not np.isfinite(features).all():
            raise ValueError(f"The {modality} model gives NaN or infinity: load it anew, or name another.")
        return features

    def find_truncated(self, texts: list[str]) -> list[bool]:
        """Returns whether each text, with the prompt before it, has more tokens than the text model reads."""
        limit = self.text_model.max_seq_length
        if limit is None:
            return [False] * len(texts)
        prompt = self.text_model.prompts.get(self.text_model.default_prompt_name) or ""
        tokens = self.text_model.tokenizer([f"{prompt}{text}" for text in texts], truncation=False, verbose=False)
        return [len(ids) > limit for ids in tokens["input_ids"]]


def read_images(rows: list[tuple[int, dict]], image_column: str) -> list[tuple[int, PIL.Image.Image | str]]:
    """Returns the image of each row, upright in RGB, by the position of the row; why not where it cannot be read."""
    images = []
    for position, row in rows:
        try:
            images.append((position, read_image(row[image_column])))
        except UnreadableImageError as error:
            images.append((position, str(error)))
    return images


def hash_tower(model: SentenceTransformer) -> str:
    """Returns a hash of all that the features of a model depend on: weights, modules, prompt, limit and processor."""
    prompt = model.prompts.get(model.default_prompt_name)
    settings = [FILE_VERSION, hash_model(model), repr(model), prompt, model.max_seq_length]
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            settings.append(describe_config(module.config))
        processor = getattr(module, "processor", None)
        if processor is not None:
            settings.append(hash_processor(processor))
    return hash_text(json.dumps(settings, default=str, sort_keys=True))


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
    The features of one encoder in Parquet files: `name`, a hash of what an image
    or text is known by, and `features`, its vector. Several runs, and other programs, may read and write at the same
    time: a file is there whole or not at all, and none is ever changed.

    Args:
        folder (`Path`): The folder of the encoder.
        rows_per_file (`int`): The max number of images or texts in a file.
    """

    def __init__(self, folder: Path, rows_per_file: int):
        self.folder = Path(folder)
        self.rows_per_file = rows_per_file

    def find_or_compute(
        self,
        names: Sequence[str],
        compute: Callable[[Sequence[int]], Iterator[tuple[list[int], np.ndarray]]],
        title: str,
        unit: str,
    ) -> list[np.ndarray | None]:
        """
        Returns the feature, of shape `(dim,)`, of each name. What is not in files yet is computed and written.

        Args:
            names (`Sequence[str]`):
                What each image or text is known by, in whatever dataset it is.
            compute (`Callable`):
                Yields some positions in `names` and their features, of shape `(positions, dim)`. Those that it leaves
                out are `None`, and asked for again by the next run.
            title (`str`):
                What the progress bar says.
            unit (`str`):
                What it counts.
        """
        hashes = [hash_text(name) for name in names]
        wanted = {name_hash: position for position, name_hash in reversed(list(enumerate(hashes)))}
        found = self.read(wanted)
        missing = sorted(position for name_hash, position in wanted.items() if name_hash not in found)
        with progress_bar(total=len(wanted), initial=len(found), desc=title, unit=unit) as progress:
            for shard in batched(missing, self.rows_per_file):
                computed = {}
                for positions, features in compute(shard):
                    computed |= zip([hashes[position] for position in positions], features)
                    progress.update(len(positions))
                if computed:
                    self.write(computed)
                found |= computed
        return [found.get(name_hash) for name_hash in hashes]

    def read(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the features in files, each of shape `(dim,)`, of the names whose hashes are wanted."""
        found = {}
        for file in sorted(self.folder.glob("*.parquet")):
            table = pq.read_table(file, memory_map=True).combine_chunks()
            features = to_numpy(table["features"].combine_chunks())
            for name_hash, feature in zip(table["name"].to_pylist(), features):
                if name_hash in wanted:
                    found[name_hash] = feature
        return found

    def write(self, computed: dict[str, np.ndarray]) -> None:
        """Writes features, each of shape `(dim,)`, by the hashes of their names, to a file of its own."""
        values = np.stack(list(computed.values()))
        features = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        table = pa.table({"name": list(computed), "features": features})
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / f"{hash_text(' '.join(computed))}.parquet") as partial_file:
            pq.write_table(table, partial_file)


def to_numpy(features: pa.FixedSizeListArray) -> np.ndarray:
    """Returns a column of vectors as an array of shape `(rows, dim)`."""
    return features.flatten().to_numpy().reshape(len(features), -1)


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

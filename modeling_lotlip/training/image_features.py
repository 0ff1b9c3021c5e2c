# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a frozen image side gives, which never changes: computed once, and kept in memory-mapped files."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import xxhash
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedConfig, ProcessorMixin

from ..data.images import to_local_path, undecoded
from ..data.reader import RowReader
from ..encoder.batches import RowCollator, collate_rows, sign_file
from ..encoder.hashes import describe_config, hash_processor, read_code
from ..encoder.preprocessing import Preprocessing
from ..table.fingerprint import ReadArchives
from ..utils.output_folder import atomic_write
from ..utils.terminal import progress_bar
from .dual_encoder import ContrastiveModel, ImageSide
from .processes import fail_together


logger = logging.getLogger(__name__)

# Images in a file
SHARD_SIZE = 1024
# Fields of the configuration of a dual encoder that change nothing of what is kept
FIELDS_OF_OTHERS = ("matryoshka_dims", "text_config")


def compute_fingerprint(dataset: Dataset, image_column: str) -> str:
    """
    Hashes rows and the name of their column of images, and what the hash of `datasets` does not know of these: the
    sizes and times of image files, and of the files that hold contents, and in archives on this machine the checksums.
    """
    hasher = Hasher()
    hasher.update((dataset._fingerprint, image_column))
    archives = ReadArchives()
    has_contents = False
    images = undecoded(dataset.select_columns(image_column), image_column)
    for table in images.with_format("arrow").iter(batch_size=1000):
        column = table[image_column].combine_chunks()
        is_elsewhere = column.field("bytes").is_null()
        has_contents = has_contents or not all(is_elsewhere.to_pylist())
        for path in column.field("path").filter(is_elsewhere).drop_null().to_pylist():
            path = to_local_path(path)
            if os.path.exists(path):
                hasher.update((path, sign_file(os.stat(path))))
            else:
                hasher.update(archives.find_checksum(path))
    if has_contents:  # a dataset may be saved anew by the same names
        for file in sorted(file["filename"] for file in dataset.cache_files):
            hasher.update((file, sign_file(os.stat(file))))
    return hasher.hexdigest()


def read_features(folder: Path, index: int) -> torch.Tensor:
    """
    Reads what [`FeatureCache`] wrote of an image, of shape (...); not a number where the image could not be read.
    """
    shard, row = divmod(index, SHARD_SIZE)
    return torch.from_numpy(np.load(folder / f"{shard:06}.npy", mmap_mode="r")[row].copy())


@dataclass(frozen=True)
class FeatureCache:
    """
    Keeps what does not change of the image side of a model: see [`ContrastiveModel.encode_images`].

    Args:
        model (`ContrastiveModel`): The model, whose `image_side` is known.
        processor (`ProcessorMixin`): Its processor.
        accelerator (`Accelerator`): The processes, which share the work and the folder.
        folder (`Path`): The folder of all such files.
        batch_size (`int`, *optional*, defaults to 64): Images in a batch.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode images.
    """

    model: ContrastiveModel
    processor: ProcessorMixin
    accelerator: Accelerator
    folder: Path
    batch_size: int = 64
    num_workers: int = 0

    def check(self) -> None:
        """Raises a `ValueError` if something of the image side is trained that lies in front of what can be kept."""
        if self.model.image_side is ImageSide.TRAINED:
            raise ValueError(
                "`--cache_image_features` is for an image side that is frozen: of `embed_images` of "
                f"this {type(self.model.model).__name__} more is trained than a projection. Leave it "
                "out."
            )

    @torch.no_grad()
    def encode(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns what is kept of images (rows, ...), in float32 on the CPU."""
        device = self.accelerator.device
        with self.accelerator.autocast():
            images = {name: values.to(device) for name, values in inputs.items()}
            return self.model.encode_images(images).float().cpu()

    def find_folder(self, dataset: Dataset, image_column: str) -> Path:
        """Finds the folder of these images, this image side, its preprocessing and its precision."""
        model = self.model.model
        image_processor = self.processor.image_processor
        settings = (
            hash_image_side(self.model),
            type(model).__name__,
            describe_image_config(model.config),
            type(image_processor).__name__,
            hash_processor(image_processor),
            self.accelerator.mixed_precision,
            len(dataset),
            compute_fingerprint(dataset, image_column),
        )
        return self.folder / Hasher.hash(settings)

    def fill(self, dataset: Dataset, image_column: str) -> Path:
        """
        Computes what is not yet kept of the images of a dataset; what a stopped run has written stays. Returns the
        folder, from which [`read_features`] reads.
        """
        self.check()
        self.model.to(self.accelerator.device).eval()
        found = [None]
        with fail_together(self.accelerator):
            if self.accelerator.is_main_process:
                found = [self.find_folder(dataset, image_column)]
        (folder,) = broadcast_object_list(found)
        folder.mkdir(parents=True, exist_ok=True)
        images = undecoded(dataset, image_column).select_columns(image_column)
        num_shards = -(-len(images) // SHARD_SIZE)
        missing = []
        for shard in range(self.accelerator.process_index, num_shards, self.accelerator.num_processes):
            is_whole = (folder / f"{shard:06}.npy").exists() and not (folder / f"{shard:06}.again").exists()
            if not is_whole:
                missing.append(shard)
        num_images = sum(len(list_indices(shard, len(images))) for shard in missing)
        is_shown = self.accelerator.is_local_main_process
        with (
            fail_together(self.accelerator),
            progress_bar(total=num_images, desc="Image features", unit=" images", disable=not is_shown) as progress,
        ):
            self.write_shards(folder, images, missing, progress.update)
        if self.accelerator.is_main_process:
            logger.info(f"Image features from {folder}: the image tower does not run in training.")
        return folder

    def write_shards(
        self,
        folder: Path,
        images: Dataset,
        shards: list[int],
        report: Callable[[int], object],
    ) -> None:
        """
        Writes the files of some shards.

        Args:
            folder (`Path`): Their folder.
            images (`Dataset`): All images, undecoded.
            shards (`list[int]`): The shards.
            report (`Callable`): Called with the number of images that are done.
        """
        if not shards:
            return
        image_column = images.column_names[0]
        preprocessing = Preprocessing(self.processor)
        collate = RowCollator(preprocessing, RowReader(images.column_names, image_column=image_column))
        shape = self.encode(preprocessing.prepare_images([PIL.Image.new("RGB", (64, 64))])).shape[1:]
        # a batch has the index of its first image as its key
        prepared_batches = collate_rows(collate, self.list_batches(images, shards), self.num_workers)
        for shard, shard_batches in groupby(prepared_batches, key=lambda batch: batch.key // SHARD_SIZE):
            indices = list_indices(shard, len(images))
            features = torch.full((len(indices), *shape), torch.nan, dtype=torch.float32)
            is_final = True
            for prepared in shard_batches:
                is_final = is_final and all(row.is_final for row in prepared.unreadable)
                batch = prepared.images
                if batch.entries:  # where all are unreadable the training says so, and counts them
                    rows = [item.row_key.row_index - indices[0] for item in batch.entries]
                    features[rows] = self.encode(batch.inputs)
                report(len(batch.entries) + len(prepared.unreadable))
            # beside a file with images that can perhaps be read later: the next run makes it anew
            again = folder / f"{shard:06}.again"
            if not is_final:
                again.touch()
            with atomic_write(folder / f"{shard:06}.npy") as partial, open(partial, "wb") as file:
                np.save(file, features.numpy())
            if is_final:
                again.unlink(missing_ok=True)

    def list_batches(self, images: Dataset, shards: list[int]) -> Iterator[list[tuple[int, dict]]]:
        """Lists the images of shards with their indices, in batches of which none is of two shards."""
        for shard in shards:
            indices = list_indices(shard, len(images))
            for start in range(0, len(indices), self.batch_size):
                yield [(index, images[index]) for index in indices[start : start + self.batch_size]]


def hash_image_side(contrastive_model: ContrastiveModel) -> str:
    """
    Returns a hash of the weights that make what is kept: not of those of texts, nor of a projection after
    it. Code that is of no library counts too.
    """
    names = set(contrastive_model.image_parameters)
    if contrastive_model.image_side is ImageSide.PROJECTION:
        names = {name for name in names if not name.startswith("visual_projection.")}
    parameters = dict(contrastive_model.model.named_parameters())
    weights = xxhash.xxh3_128(contrastive_model.image_side.name.encode())
    for source in read_code(type(part) for part in contrastive_model.model.modules()):
        weights.update(source)
    for name, tensor in contrastive_model.model.state_dict().items():
        is_buffer = name not in parameters and not name.startswith("text_")
        if name in names or is_buffer:
            weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            weights.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def describe_image_config(config: PreTrainedConfig) -> dict:
    """Returns the fields of the configuration of a dual encoder by which it may compute images."""
    fields = describe_config(config)
    return {name: value for name, value in fields.items() if name not in FIELDS_OF_OTHERS}


def list_indices(shard: int, num_images: int) -> range:
    """Lists the indices of the images of a shard."""
    return range(shard * SHARD_SIZE, min((shard + 1) * SHARD_SIZE, num_images))

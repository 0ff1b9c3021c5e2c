# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The output of a frozen image tower, which never changes: computed once, and kept in memory-mapped files."""

import logging
from itertools import groupby
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import ProcessorMixin

from ..data.images import undecoded
from ..data.loading import compute_fingerprint
from ..data.reader import RowReader
from ..encoder.batches import RowCollator, collate_rows
from ..encoder.hashes import hash_weights
from ..encoder.preprocessing import Preprocessing
from ..utils.output_folder import atomic_write
from ..utils.terminal import progress_bar
from .dual_encoder import ContrastiveModel
from .processes import fail_together


logger = logging.getLogger(__name__)

# Images in a file
SHARD_SIZE = 1024


def read_features(folder: Path, index: int) -> torch.Tensor:
    """What [`cache_image_features`] wrote of an image; not a number where the image could not be read."""
    shard, row = divmod(index, SHARD_SIZE)
    return torch.from_numpy(np.load(folder / f"{shard:06}.npy", mmap_mode="r")[row].copy())


@torch.no_grad()
def cache_image_features(
    model: ContrastiveModel,
    processor: ProcessorMixin,
    dataset: Dataset,
    image_column: str,
    folder: Path,
    accelerator: Accelerator,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Path:
    """
    Runs a frozen image tower over every image whose output is not yet in the folder's subfolder for this tower,
    preprocessing, precision and data, which is returned. The processes share the work and the folder; what a stopped
    pass has written stays.
    """

    def encode(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with accelerator.autocast():
            return model.encode_images(send_to_device(inputs, accelerator.device)).float().cpu()

    tower, image_processor = model.model.vision_model.to(accelerator.device).eval(), processor.image_processor
    preprocessing = type(image_processor).__name__, image_processor.to_dict()
    settings = tower.config.to_dict(), preprocessing, accelerator.mixed_precision, len(dataset), model.is_token_wise
    folder = folder / Hasher.hash((hash_weights(tower), settings, compute_fingerprint(dataset, image_column)))
    folder.mkdir(parents=True, exist_ok=True)

    images = undecoded(dataset, image_column).select_columns(image_column)
    preprocessing = Preprocessing(processor)
    collate = RowCollator(preprocessing, RowReader(images.column_names, image_column=image_column))
    own = range(accelerator.process_index, -(-len(images) // SHARD_SIZE), accelerator.num_processes)
    files = {shard: folder / f"{shard:06}.npy" for shard in own}
    missing = [shard for shard, file in files.items() if not file.exists()]
    shards = {shard: range(len(images))[shard * SHARD_SIZE :][:SHARD_SIZE] for shard in missing}
    batches = (
        [(number, images[number]) for number in numbers[place:][:batch_size]]
        for numbers in shards.values()
        for place in range(0, len(numbers), batch_size)
    )
    bar = {"total": sum(map(len, shards.values())), "desc": "Image features", "unit": " images"}
    with fail_together(accelerator), progress_bar(**bar, disable=not accelerator.is_local_main_process) as progress:
        shape = encode(preprocessing.prepare_images([PIL.Image.new("RGB", (64, 64))])).shape[1:] if shards else ()
        made = collate_rows(collate, batches, num_workers)
        for shard, of_shard in groupby(made, key=lambda prepared: prepared.key // SHARD_SIZE):
            numbers = shards[shard]
            features = torch.full((len(numbers), *shape), torch.nan)
            for prepared in of_shard:
                batch = prepared.images
                if batch.entries:  # where all are unreadable the training says so, and counts them
                    features[[item.row.number - numbers[0] for item in batch.entries]] = encode(batch.inputs)
                progress.update(len(batch.entries) + len(prepared.unreadable))
            with atomic_write(files[shard]) as partial, open(partial, "wb") as file:
                np.save(file, features.numpy())
    if accelerator.is_main_process:
        logger.info(f"Image features from {folder}: the image tower does not run in training.")
    return folder

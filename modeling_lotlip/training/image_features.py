# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The output of a frozen image tower, which never changes: computed once, and kept in memory-mapped files."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader
from transformers import ProcessorMixin

from ..embedding.features import prepare_images
from ..embedding.models import hash_weights
from ..output_folder import atomic_write
from ..signals import leave_signals_to_the_main_process
from ..terminal import progress_bar
from .dual_encoder import ContrastiveModel
from .processes import fail_together


logger = logging.getLogger(__name__)

# Images in a file
SHARD_SIZE = 1024


def get_file(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06}.npy"


def read_features(folder: Path, index: int) -> torch.Tensor:
    """What [`cache_image_features`] wrote of an image; not a number where the image could not be read."""
    shard, row = divmod(index, SHARD_SIZE)
    return torch.from_numpy(np.load(get_file(folder, shard), mmap_mode="r")[row].copy())


def load_inputs(
    load_image: Callable[[int], PIL.Image.Image], processor: ProcessorMixin, numbers: list[int]
) -> tuple[list[int], dict[str, torch.Tensor], list[int]]:
    """The numbers of some images, the tower's inputs for them, and the places of those that cannot be read: black."""
    images, unreadable = [], []
    for number in numbers:
        try:
            images.append(load_image(number))
        except ValueError:  # the training says so, and counts it
            unreadable.append(len(images))
            images.append(PIL.Image.new("RGB", (64, 64)))
    return numbers, prepare_images(processor, images), unreadable


@torch.no_grad()
def cache_image_features(
    model: ContrastiveModel,
    processor: ProcessorMixin,
    load_image: Callable[[int], PIL.Image.Image],
    num_images: int,
    data_key: object,
    folder: Path,
    accelerator: Accelerator,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Path:
    """
    Runs a frozen image tower over every image whose output is not yet in the folder's subfolder for this tower,
    preprocessing, precision and data, which is returned. The processes share the work and the folder; what a stopped
    pass has written stays. `load_image` gives an image from its number, or raises a `ValueError` where it cannot be
    read; `data_key` changes when any of the images does.
    """
    tower, image_processor = model.model.vision_model.to(accelerator.device).eval(), processor.image_processor
    preprocessing = type(image_processor).__name__, image_processor.to_dict()
    settings = tower.config.to_dict(), preprocessing, accelerator.mixed_precision, num_images, model.is_token_wise
    folder = folder / Hasher.hash((hash_weights(tower), settings, data_key))
    folder.mkdir(parents=True, exist_ok=True)

    files = [get_file(folder, shard) for shard in range(-(-num_images // SHARD_SIZE))]
    own = [shard for shard in range(len(files)) if shard % accelerator.num_processes == accelerator.process_index]
    shards = [range(num_images)[shard * SHARD_SIZE :][:SHARD_SIZE] for shard in own if not files[shard].exists()]
    loader = DataLoader(
        range(num_images),
        batch_sampler=[shard[place:][:batch_size] for shard in shards for place in range(0, len(shard), batch_size)],
        collate_fn=partial(load_inputs, load_image, processor),
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),
    )
    bar = {"total": sum(map(len, shards)), "desc": "Image features", "unit": " images"}
    with fail_together(accelerator), progress_bar(**bar, disable=not accelerator.is_local_main_process) as progress:
        rows = []
        for numbers, inputs, unreadable in loader:
            with accelerator.autocast():
                outputs = model.encode_images(send_to_device(inputs, accelerator.device)).float().cpu()
            outputs[unreadable] = torch.nan
            rows.append(outputs)
            progress.update(len(numbers))
            if (numbers[-1] + 1) % SHARD_SIZE == 0 or numbers[-1] + 1 == num_images:
                with atomic_write(files[numbers[-1] // SHARD_SIZE]) as partial_file, open(partial_file, "wb") as file:
                    np.save(file, torch.cat(rows).numpy())
                rows = []
    if accelerator.is_main_process:
        logger.info(f"Image features from {folder}: the image tower does not run in training.")
    return folder

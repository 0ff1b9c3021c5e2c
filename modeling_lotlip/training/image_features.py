# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The output of a frozen image tower, which never changes: computed once, and kept in a memory-mapped file."""

import logging
import math
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import Dataset as MapDataset
from datasets.fingerprint import Hasher
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from torch.utils.data import DataLoader, Dataset
from transformers import BaseImageProcessor, PreTrainedModel

from .. import LotlipModel, LotlipProcessor
from ..data.images import bound_aspect_ratio
from ..data.loading import compute_fingerprint
from ..embedding.models import hash_weights
from ..embedding.token_wise import is_token_wise
from ..terminal import progress_bar
from .arguments import TrainArguments
from .samples import CaptionedImages, SampleCounts, describe_bad_image


logger = logging.getLogger(__name__)


class ImageFeatures:
    """
    The output of an image tower for every image, read from a memory-mapped file; not a number where the image could
    not be read.

    Args:
        path (`Path`):
            A `.npy` file of shape `(images, ...)`, as `cache_image_features` writes it.

    Example:

    ```python
    >>> import numpy as np
    >>> from modeling_lotlip.training.image_features import ImageFeatures

    >>> np.save("features.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    >>> ImageFeatures("features.npy")[2]
    tensor([4., 5.])
    ```"""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.features = np.load(path, mmap_mode="r")
        except ValueError as error:
            raise ValueError(f"The image features in {path} are damaged ({error}): delete the file.") from error

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.features[index].copy())

    def __reduce__(self):
        return ImageFeatures, (self.path,)  # a worker maps the file too: pickled, it would be read into memory


class PreprocessedImages(Dataset):
    """Preprocessed images by their number."""

    def __init__(
        self, load_image: Callable[[int], PIL.Image.Image], image_processor: BaseImageProcessor, numbers: list[int]
    ):
        self.load_image = load_image
        self.image_processor = image_processor
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor | None, tuple[str, str] | None]:
        """The number of an image, and its pixel values or why it has none."""
        number = self.numbers[position]
        try:
            image = self.load_image(number)
        except ValueError as error:
            return number, None, describe_bad_image(error)
        image = bound_aspect_ratio(image, self.image_processor)
        return number, self.image_processor(image, return_tensors="pt")["pixel_values"][0], None


def collate(images: list[tuple]) -> tuple[list[int], torch.Tensor, list[int], list[tuple[str, str] | None]]:
    """The numbers and pixel values of images, the numbers of those without any, and what is bad of each image."""
    numbers = [number for number, _, bad in images if bad is None]
    pixel_values = torch.stack([values for _, values, bad in images if bad is None]) if numbers else torch.empty(0)
    return numbers, pixel_values, [number for number, _, bad in images if bad], [bad for *_, bad in images]


def cache_samples(
    samples: CaptionedImages,
    dataset: MapDataset,
    model: LotlipModel,
    processor: LotlipProcessor,
    args: TrainArguments,
    accelerator: Accelerator,
) -> ImageFeatures:
    """
    The output of the frozen image tower of a training for the images of its samples: see the function below. Of images
    that cannot be read as many are allowed as in the training.
    """
    image_features = cache_image_features(
        model.vision_model.to(accelerator.device),
        processor.image_processor,
        samples.load_image,
        len(dataset),
        data_key=compute_fingerprint(dataset, args.image_column),
        folder=args.image_features_dir or Path(HF_HOME) / "lotlip" / "image_features",
        accelerator=accelerator,
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
        output="last_hidden_state" if is_token_wise(model) else "pooler_output",
        max_bad_fraction=args.max_bad_fraction,
        max_bad_in_a_row=args.max_bad_in_a_row,
    )
    if accelerator.is_main_process:
        logger.info(f"Image features from {image_features.path}: the image tower does not run in training.")
    return image_features


@torch.no_grad()
def cache_image_features(
    vision_model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    load_image: Callable[[int], PIL.Image.Image],
    num_images: int,
    data_key: object,
    folder: Path,
    accelerator: Accelerator,
    batch_size: int = 64,
    num_workers: int = 0,
    output: str = "pooler_output",
    max_bad_fraction: float = 0.01,
    max_bad_in_a_row: int = 100,
) -> ImageFeatures:
    """
    Runs an image tower over every image, unless a file in `folder` has its output already.

    The file is named after a hash of the tower, the preprocessing, the precision and the data. The processes share the
    work. A stopped pass resumes where it stopped.

    Args:
        vision_model (`PreTrainedModel`):
            The tower.
        image_processor (`BaseImageProcessor`):
            Its preprocessing.
        load_image (`Callable[[int], PIL.Image.Image]`):
            Gives an image from its number.
        num_images (`int`):
            The number of images.
        data_key (`object`):
            Says which images these are: it changes when any of them does.
        folder (`Path`):
            The folder of the files.
        accelerator (`Accelerator`):
            The processes, and the precision.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that load and preprocess.
        output (`str`, *optional*, defaults to `"pooler_output"`):
            What is kept of the tower's output: `"pooler_output"` or `"last_hidden_state"`, which has all tokens.
        max_bad_fraction (`float`, *optional*, defaults to 0.01):
            The largest share of images that cannot be read, for which `load_image` raises a `ValueError`. They are
            counted and logged.
        max_bad_in_a_row (`int`, *optional*, defaults to 100):
            The most that may follow one another.

    Raises:
        `ValueError`: if the disk has no room for the file, a process does not see it, or too many images cannot be
            read.
    """
    vision_model.eval()
    preprocessing = (type(image_processor).__name__, image_processor.to_dict())
    settings = (
        vision_model.config.to_dict(),
        preprocessing,
        accelerator.mixed_precision,
        num_images,
        output,
    )
    key = Hasher.hash((hash_weights(vision_model), settings, data_key))
    path = folder / f"{key}.npy"
    shape = (num_images, vision_model.config.hidden_size)
    if output == "last_hidden_state":
        shape = (num_images, vision_model.embeddings.position_embeddings.shape[1], shape[1])
    folder.mkdir(parents=True, exist_ok=True)
    # of two runs that want the same file the second waits for the first
    lock = FileLock(path.with_suffix(".lock")) if accelerator.is_main_process else nullcontext()
    with lock:
        (is_there,) = broadcast_object_list([path.exists()])
        if not is_there:
            num_samples = math.ceil(num_images / accelerator.num_processes)
            _make(
                vision_model,
                image_processor,
                load_image,
                path,
                shape,
                accelerator,
                batch_size,
                num_workers,
                output,
                SampleCounts(max_bad_fraction, max_bad_in_a_row, num_samples),
            )
    accelerator.wait_for_everyone()
    return ImageFeatures(path)


def _make(
    vision_model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    load_image: Callable[[int], PIL.Image.Image],
    path: Path,
    shape: tuple[int, ...],
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int,
    output: str,
    counts: SampleCounts,
) -> None:
    """Makes the file, or what is missing of it."""
    partial, done_path = path.with_suffix(".partial"), path.with_suffix(".done")
    if accelerator.is_main_process and not (done_path.exists() and partial.exists()):
        folder = path.parent
        needed, free = 4 * np.prod(shape, dtype=np.int64), shutil.disk_usage(folder).free
        if needed > free:
            raise ValueError(
                f"The image features need {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB left. Name "
                "another folder (`--image_features_dir`)."
            )
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        np.lib.format.open_memmap(done_path, mode="w+", dtype=bool, shape=shape[:1])
    accelerator.wait_for_everyone()
    if not done_path.exists():
        raise ValueError(
            f"The processes must share the folder of the image features, but one does not see {done_path}. Name "
            "a shared one (`--image_features_dir`)."
        )
    _compute(
        vision_model,
        image_processor,
        load_image,
        partial,
        done_path,
        accelerator,
        batch_size,
        num_workers,
        output,
        counts,
    )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if not np.load(done_path, mmap_mode="r").all():
            raise ValueError(f"{partial} has gaps: its folder is not one that all processes share.")
        partial.rename(path)
        done_path.unlink()


def _compute(
    vision_model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    load_image: Callable[[int], PIL.Image.Image],
    partial: Path,
    done_path: Path,
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int,
    output: str,
    counts: SampleCounts,
) -> None:
    """Fills in this process's part of the images that are not yet done."""
    features, done = (np.load(file, mmap_mode="r+") for file in (partial, done_path))
    missing = np.flatnonzero(~done).tolist()
    accelerator.wait_for_everyone()  # all have seen what is missing before any of it is done

    # the processes of the first node: the pages of a mapped file must not be shared among nodes
    num_sharing = min(accelerator.num_processes, int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes)))
    own = missing[accelerator.process_index :: num_sharing] if accelerator.process_index < num_sharing else []
    images = PreprocessedImages(load_image, image_processor, own)
    loader = DataLoader(images, batch_size, num_workers=num_workers, collate_fn=collate, generator=torch.Generator())
    with progress_bar(
        total=len(own), desc="Image features", unit=" images", disable=not accelerator.is_local_main_process
    ) as progress:
        for numbers, pixel_values, unreadable, bad in loader:
            if numbers:
                with accelerator.autocast():
                    outputs = vision_model(pixel_values.to(accelerator.device))
                features[numbers] = outputs[output].float().cpu().numpy()
            features[unreadable] = np.nan
            features.flush()  # what is marked as done is on the disk
            done[numbers + unreadable] = True
            for reason in bad:
                counts.count("", reason)
            progress.update(len(bad))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training reads: images with captions sampled for them, and how samples become a batch."""

import logging
import random
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

import PIL.Image
import torch
from datasets import Dataset as MapDataset
from datasets import IterableDataset
from torch.utils.data import Dataset
from torchvision.transforms.v2 import RandomResizedCrop
from transformers import ProcessorMixin

from ..data.images import UnreadableImageError, read_image, undecoded
from ..data.reader import RowCounts, RowReader
from ..data.rows import name_row
from ..encoder.families import with_text_limit
from ..encoder.preprocessing import Preprocessing, warn_of_unknown
from ..utils.sub_captions import is_enumeration, join_sub_captions, split_sub_captions
from .arguments import ObjectiveArguments
from .batch import CaptionBatch, Texts
from .image_features import read_features
from .order import SampleKey


logger = logging.getLogger(__name__)

# So many rows are awaited before a training ends because too many of a stream are bad, or none has a caption in the
# caption files
NUM_AWAITED = 1000


class Cause(Enum):
    """Why a row, or one of its captions, is left out."""

    NO_CAPTION = "no caption"
    NO_FILE_CAPTION = "no caption in the caption files"
    UNREADABLE_IMAGE = "unreadable image"
    WRONG_TYPE = "no image or wrong type"


@dataclass(frozen=True)
class Outcome:
    """
    What became of a row.

    Args:
        name (`str`): How messages call it.
        cause (`Cause`, *optional*): Why it is left out; None if it is used.
        error (`str`, *optional*): The class of the error of an image that cannot be read.
        message (`str`, *optional*): What is said of a row that is bad.
        unmatched_key (`str`, *optional*): Its key, if there are caption files without captions for it.
        has_short_caption (`bool`, *optional*): Whether it has a short caption; None where none is trained on.
        has_long_caption (`bool`, *optional*): Whether it has a long one; None where none is trained on.
    """

    name: str
    cause: Cause | None = None
    error: str | None = None
    message: str | None = None
    unmatched_key: str | None = None
    has_short_caption: bool | None = None
    has_long_caption: bool | None = None

    @property
    def reason(self) -> str | None:
        """The cause in words, by which rows are counted."""
        if self.cause is None:
            return None
        if self.error is None:
            return self.cause.value
        return f"{self.cause.value} ({self.error})"


@dataclass
class SampleCounts:
    """
    What became of the rows that a training has read, and of the captions of those that are used.

    Args:
        rows (`RowCounts`): All rows.
        short_captions (`RowCounts`): Rows that are used, by whether they have a short caption.
        long_captions (`RowCounts`): The same of long captions.
        num_padding (`int`): How many samples only filled batches up, beside those of rows.
    """

    rows: RowCounts = field(default_factory=RowCounts)
    short_captions: RowCounts = field(default_factory=RowCounts)
    long_captions: RowCounts = field(default_factory=RowCounts)
    num_padding: int = 0

    @property
    def padding_fraction(self) -> float:
        """The fraction of all samples of batches that only filled these up."""
        return self.num_padding / max(1, self.rows.num_rows + self.num_padding)

    def count_batch(self, outcomes: list[Outcome], num_samples: int) -> None:
        """Counts the rows of a batch of so many samples, of which the others are padding."""
        for outcome in outcomes:
            self.count(outcome)
        self.num_padding += num_samples - len(outcomes)

    def count(self, outcome: Outcome) -> None:
        """Counts a row."""
        self.rows.count(outcome.name, outcome.reason, outcome.unmatched_key)
        if outcome.cause is not None:
            return
        for counts, has_caption in (
            (self.short_captions, outcome.has_short_caption),
            (self.long_captions, outcome.has_long_caption),
        ):
            if has_caption is True:
                counts.count(outcome.name)
            elif has_caption is False:
                counts.count(outcome.name, Cause.NO_CAPTION.value)

    def __add__(self, other: "SampleCounts") -> "SampleCounts":
        return SampleCounts(
            self.rows + other.rows,
            self.short_captions + other.short_captions,
            self.long_captions + other.long_captions,
            self.num_padding + other.num_padding,
        )

    def check(self, max_bad_fraction: float, num_samples: int | None) -> None:
        """
        Raises a `ValueError` if too many rows are bad: all, once 100 are read, or more than the fraction of the
        `num_samples` of this process. A stream does not know these (None): there it is the fraction of the rows that
        are read, or of 1,000 while these are fewer. Rows without captions in the caption files are not bad: rules have
        rejected a caption, or a captioner failed.
        """
        num_bad = 0
        for reason, number in self.rows.left_out.items():
            if reason != Cause.NO_FILE_CAPTION.value:
                num_bad += number
        num_allowed = max_bad_fraction * max(self.rows.num_rows, num_samples or NUM_AWAITED)
        if num_bad > num_allowed or num_bad == self.rows.num_rows >= 100:
            raise ValueError(
                f"More samples are bad than `--max_bad_fraction {max_bad_fraction}` allows: "
                f"{self.rows} Mend them, or allow more, if not all are bad."
            )

    def state_dict(self) -> dict:
        """Returns the counts for JSON, by name."""
        return {
            "rows": self.rows.state_dict(),
            "short_captions": self.short_captions.state_dict(),
            "long_captions": self.long_captions.state_dict(),
            "num_padding": self.num_padding,
        }

    @classmethod
    def from_state_dict(cls, state: dict) -> "SampleCounts":
        """Returns the counts of [`SampleCounts.state_dict`]."""
        return cls(
            RowCounts(**state["rows"]),
            RowCounts(**state["short_captions"]),
            RowCounts(**state["long_captions"]),
            state.get("num_padding", 0),  # not in a checkpoint of an earlier version
        )


@dataclass(frozen=True)
class SampledCaptions:
    """
    The captions sampled for an image, empty where there is none.

    Args:
        short (`str`): The short caption.
        long (`list[str]`): The long captions.
        unmatched_key (`str`, *optional*): The key of an image without captions in the caption files.
    """

    short: str
    long: list[str]
    unmatched_key: str | None = None

    def __bool__(self) -> bool:
        return bool(self.short or any(self.long))


@dataclass(frozen=True)
class Sample:
    """
    An image with its captions, as it goes into a batch.

    Args:
        short_caption (`str`): Empty if it has none.
        long_captions (`list[str]`): As many for every image, empty where there is none.
        image (`PIL.Image.Image`, *optional*): The image, cropped.
        image_features (`torch.Tensor` of shape `(...)`, *optional*): What is known of it, in its place.
        outcome (`Outcome`, *optional*): What became of the row; None of padding, which is not counted.
    """

    short_caption: str
    long_captions: list[str]
    image: PIL.Image.Image | None = None
    image_features: torch.Tensor | None = None
    outcome: Outcome | None = None


class RowCaptionSampler:
    """
    Samples captions of rows: see `ObjectiveArguments`. Every sample comes from a generator seeded with (seed, epoch,
    index): it does not depend on workers, on processes, or on what was sampled before.
    """

    def __init__(self, reader: RowReader, arguments: ObjectiveArguments, seed: int):
        self.reader = reader
        self.arguments = arguments
        self.seed = seed
        self.has_short_captions = arguments.short_captions != "none" and reader.short_column is not None
        self.num_long_captions = 0
        if reader.has_long_captions:
            self.num_long_captions = arguments.num_long_captions

    def list_sub_captions(self, text: str) -> list[str]:
        """Lists the sub-captions of a long caption, without the numbers of a list."""
        return [part for part in split_sub_captions(text, self.reader.splitter) if not is_enumeration(part)]

    def sample_sub_captions(self, text: str, generator: random.Random) -> str:
        """Samples some consecutive sub-captions of a long caption, or all."""
        sub_captions = self.list_sub_captions(text)
        count = self.arguments.num_sub_captions
        if count is not None and len(sub_captions) > count:
            start = generator.randrange(len(sub_captions) - count + 1)
            sub_captions = sub_captions[start : start + count]
        return join_sub_captions(sub_captions)

    def sample(self, row: dict, index: int, epoch: int) -> SampledCaptions:
        """Samples a short caption of a row and `num_long_captions` long ones."""
        generator = random.Random(f"{self.seed} {epoch} {index}")
        short_captions = []
        if self.arguments.short_captions != "none":
            short_captions = self.reader.short_captions(row)
        long_captions, unmatched_key = self.reader.match_long_captions(row)
        long_captions = [text for text in long_captions if self.list_sub_captions(text)]
        if self.arguments.short_captions == "any":
            short_captions = short_captions + [self.sample_sub_captions(text, generator) for text in long_captions]
        long_captions = generator.sample(long_captions, min(len(long_captions), self.num_long_captions))
        long_captions = [self.sample_sub_captions(text, generator) for text in long_captions]
        long_captions += [""] * (self.num_long_captions - len(long_captions))
        short_caption = ""
        if short_captions:
            short_caption = generator.choice(short_captions)
        return SampledCaptions(short_caption, long_captions, unmatched_key)


class CaptionedImages(Dataset):
    """
    Images with the captions sampled for them, by their keys: see [`SampleKey`]. A sample that cannot be used is a
    black image without captions, which takes no part in the loss; its outcome says why.
    """

    def __init__(
        self,
        dataset: MapDataset | IterableDataset,
        reader: RowReader,
        arguments: ObjectiveArguments,
        seed: int = 0,
        crop: RandomResizedCrop | None = None,
        features_dir: Path | None = None,
    ):
        """
        Args:
            dataset (`Dataset` or `IterableDataset`): The rows; of a stream the keys bring them.
            reader (`RowReader`): What reads them.
            arguments (`ObjectiveArguments`): Which captions are sampled.
            seed (`int`, *optional*, defaults to 0): The seed of captions and crops.
            crop (`RandomResizedCrop`, *optional*): What cuts a part out of each image.
            features_dir (`Path`, *optional*): The folder of what is known of images: see `image_features.py`.
        """
        self.reader = reader
        self.caption_sampler = RowCaptionSampler(reader, arguments, seed)
        self.seed = seed
        self.crop = crop
        self.features_dir = features_dir
        self.images = None
        self.rows = None
        if isinstance(dataset, MapDataset):
            dataset = undecoded(dataset, reader.image_column)
            self.images = dataset.select_columns(reader.image_column)
            self.rows = dataset.select_columns(reader.text_columns)

    def load_image(self, key: SampleKey, name: str) -> PIL.Image.Image:
        """Loads an image, not cropped. Raises an `UnreadableImageError` if it cannot be read."""
        row = key.row
        if row is None:
            row = self.images[key.index]
        try:
            return read_image(row.get(self.reader.image_column))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"the image of {name} cannot be read: {error}") from error

    def sample_crop(self, image: PIL.Image.Image, key: SampleKey) -> PIL.Image.Image:
        """Samples a part of an image, if it is to be cropped."""
        if self.crop is None:
            return image
        seed = random.Random(f"{self.seed} {key.epoch} {key.index}").getrandbits(63)
        with torch.random.fork_rng(devices=[]):  # `torch.manual_seed` would seed the accelerator too, and its dropout
            torch.default_generator.manual_seed(seed)
            return self.crop(image)

    def __getitem__(self, key: tuple) -> Sample:
        key = SampleKey(*key)
        if key.is_padding:
            return self.make_empty(key, None)
        name = name_row(key.row or {}, key.index)
        try:
            row = key.row
            if row is None:
                row = self.rows[key.index]
            captions = self.caption_sampler.sample(row, key.index, key.epoch)
            if not captions:
                return self.make_empty(key, self.describe_missing(name, captions))
            image, features = self.read_image_or_features(key, name)
        except ValueError as error:
            return self.make_empty(key, describe_error(name, error))
        outcome = Outcome(
            name,
            unmatched_key=captions.unmatched_key,
            has_short_caption=bool(captions.short) if self.caption_sampler.has_short_captions else None,
            has_long_caption=any(captions.long) if self.caption_sampler.num_long_captions > 0 else None,
        )
        return Sample(captions.short, captions.long, image, features, outcome)

    def describe_missing(self, name: str, captions: SampledCaptions) -> Outcome:
        """Describes what became of a row without captions."""
        if captions.unmatched_key is not None:
            return Outcome(name, Cause.NO_FILE_CAPTION, unmatched_key=captions.unmatched_key)
        return Outcome(name, Cause.NO_CAPTION, message=f"{name} has no caption")

    def read_image_or_features(
        self,
        key: SampleKey,
        name: str,
    ) -> tuple[PIL.Image.Image | None, torch.Tensor | None]:
        """Reads the image, cropped, or what is known of it, (...); a `ValueError` if it cannot."""
        if self.features_dir is None:
            return self.sample_crop(self.load_image(key, name), key), None
        features = read_features(self.features_dir, key.index)
        if not features.isfinite().all():
            self.load_image(key, name)  # raises, and says why it has none
            raise ValueError(f"the image of {name} has no features that are numbers")
        return None, features

    def make_empty(self, key: SampleKey, outcome: Outcome | None) -> Sample:
        """Makes a black image without captions, or features that can be normalized."""
        no_captions = [""] * self.caption_sampler.num_long_captions
        if self.features_dir is not None:
            features = torch.ones_like(read_features(self.features_dir, key.index))
            return Sample("", no_captions, image_features=features, outcome=outcome)
        size = (64, 64)
        if self.crop is not None:
            height, width = self.crop.size
            size = (width, height)
        return Sample("", no_captions, image=PIL.Image.new("RGB", size), outcome=outcome)


def describe_error(name: str, error: ValueError) -> Outcome:
    """Describes what became of a row whose image or captions cannot be read."""
    # `load_image` raises its error from that of `read_image`, and this from that of Pillow, or from none if the value
    # is no image
    origin = getattr(error.__cause__, "__cause__", None)
    if origin is not None:
        return Outcome(name, Cause.UNREADABLE_IMAGE, error=type(origin).__name__, message=str(error))
    return Outcome(name, Cause.WRONG_TYPE, message=str(error))


class SampleCollator:
    """
    Batches samples: their images, which are not cut off further where they `are_cropped`, and short and long captions,
    each padded to its longest.
    """

    def __init__(self, processor: ProcessorMixin, are_cropped: bool = False):
        """
        Args:
            processor (`ProcessorMixin`): The processor.
            are_cropped (`bool`, *optional*, defaults to `False`): Whether images have their final size.
        """
        self.preprocessing = Preprocessing(processor)
        self.start_preprocessing = None
        self.image_options = {}
        if are_cropped:
            self.image_options["do_resize"] = False
            if hasattr(processor.image_processor, "do_center_crop"):
                self.image_options["do_center_crop"] = False

    def read_for_teacher(self, max_length: int) -> None:
        """Also tokenizes short captions for the start model, which reads texts of that many tokens."""
        self.start_preprocessing = Preprocessing(with_text_limit(self.preprocessing.processor, max_length))

    def tokenize(self, texts: list[str], preprocessing: Preprocessing) -> Texts:
        """
        Tokenizes captions to (texts, length). Their mask is 1 in padding too if the model reads it, and all 0 for a
        caption that is absent.
        """
        tokens, truncated = preprocessing.tokenize(texts)
        if any(truncated) and preprocessing is self.preprocessing:
            warn_of_truncation(preprocessing.max_length)
        num_unknown = sum(preprocessing.find_unknown(tokens["input_ids"]))
        num_texts = sum(bool(text) for text in texts)
        tokenizer = preprocessing.tokenizer
        warn_of_unknown(num_unknown, num_texts, tokenizer, tokenizer.name_or_path)
        is_present = torch.tensor([bool(text) for text in texts])
        mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"]))
        return Texts(tokens["input_ids"], mask * is_present[:, None], preprocessing.pads_to_full_length)

    def __call__(self, samples: list[Sample]) -> tuple[CaptionBatch, list[Outcome]]:
        """A batch (samples, ...), and what became of all rows but padding."""
        images = {}
        features = None
        if samples[0].image is not None:
            images = self.preprocessing.prepare_images([sample.image for sample in samples], **self.image_options)
        else:
            features = torch.stack([sample.image_features for sample in samples])
        short_captions = [sample.short_caption for sample in samples]
        short = self.tokenize(short_captions, self.preprocessing)
        start_short = None
        if self.start_preprocessing is not None:
            start_short = self.tokenize(short_captions, self.start_preprocessing)
        long = None
        long_captions = []
        for sample in samples:
            long_captions += sample.long_captions
        if long_captions:
            texts = self.tokenize(long_captions, self.preprocessing)
            sizes = (len(samples), -1)
            mask = texts.attention_mask.unflatten(0, sizes)
            long = Texts(texts.input_ids.unflatten(0, sizes), mask, texts.keeps_padding)
        outcomes = [sample.outcome for sample in samples if sample.outcome is not None]
        return CaptionBatch(images, short, long, features, start_short), outcomes


@cache
def warn_of_truncation(max_length: int) -> None:
    """Says so once."""
    logger.warning(f"Captions of more than {max_length} tokens are truncated: a larger `--max_length` reads more.")

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training reads: images with captions drawn for them, and how rows become a batch."""

import logging
import random
from collections import Counter

import PIL.Image
import torch
from accelerate.utils import gather_object
from datasets import Dataset as MapDataset
from datasets import IterableDataset
from torch.utils.data import Dataset
from torchvision.transforms.v2 import RandomResizedCrop

from .. import LotlipProcessor
from ..data.images import UnreadableImageError, read_image, undecoded
from ..data.reader import RowReader
from ..evaluation.text_changes import falsify
from ..sub_captions import is_enumeration, join_sub_captions
from .arguments import ObjectiveArguments


logger = logging.getLogger(__name__)

# So many hard negatives are awaited before a training without any is an error
MAX_ABSENT_AT_FIRST = 1000


class CaptionedImages(Dataset):
    """
    Images with the captions drawn for them. Every draw inside a sample comes from a generator of its own, seeded with
    (seed, epoch, index): a sample does not depend on workers, on processes, or on what was drawn before. So is the
    crop, seeded with (seed, view, index): a frozen tower sees `num_views` of an image in turns, a trained one a new
    one in each epoch.

    A sample is asked for by a key (epoch, index, is_padding), of a stream with the row itself as a fourth. One that
    cannot be used is a black image without captions, which takes no part in the loss, and says why in `bad`. One
    without captions in the side files has its key in `unmatched`, and is not bad if it has no other caption.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        reader (`RowReader`):
            Reads the captions of its rows.
        drawing (`ObjectiveArguments`):
            Which captions are drawn.
        seed (`int`, *optional*, defaults to 0):
            The seed of all draws.
        crop (`RandomResizedCrop`, *optional*):
            Cuts a part out of an image.
        num_views (`int`, *optional*):
            Crops of an image that come in turns. Default: a new one in each epoch.
    """

    def __init__(
        self,
        dataset: MapDataset | IterableDataset,
        reader: RowReader,
        drawing: ObjectiveArguments,
        seed: int = 0,
        crop: RandomResizedCrop | None = None,
        num_views: int | None = None,
    ):
        self.reader = reader
        self.image_column = reader.image_column
        self.images, self.captions = None, None
        if isinstance(dataset, MapDataset):
            dataset = undecoded(dataset, self.image_column)
            self.images = dataset.select_columns(self.image_column)
            self.captions = dataset.select_columns(reader.text_columns)
        self.kind_of_short_captions = drawing.short_captions
        self.num_long_captions = drawing.num_long_captions if reader.has_long_captions else 0
        self.num_sub_captions = drawing.num_sub_captions
        self.num_hard_negatives = drawing.hard_negatives
        self.num_views = num_views
        self.seed = seed
        self.crop = crop
        self.image_features = None  # instead of images: see `image_features.py`

    def name(self, index: int, row: dict | None) -> str:
        """What a sample is called where something is wrong with it: its number, and the key that a shard gives it."""
        return f"row {index}" + (f" ({row['__key__']!r})" if row is not None and "__key__" in row else "")

    def load_image(self, index: int, view: int, row: dict | None = None) -> PIL.Image.Image:
        """
        One view of an image.

        Raises:
            `ValueError`: if it cannot be read, or is not there.
        """
        stored = self.images[index] if row is None else row
        if stored.get(self.image_column) is None:
            raise ValueError(f"{self.name(index, row)} has no image in column {self.image_column!r}")
        try:
            image = read_image(stored[self.image_column])
        except UnreadableImageError as error:
            raise UnreadableImageError(f"the image of {self.name(index, row)} cannot be read: {error}") from error
        if self.crop is None:
            return image
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.Random(f"{self.seed} {view} {index}").getrandbits(63))
            return self.crop(image)

    def draw_sub_captions(self, text: str, generator: random.Random) -> str:
        """Some consecutive sub-captions of a long caption, or all of them."""
        sub_captions = [part for part in self.reader.sub_captions(text) if not is_enumeration(part)]
        if self.num_sub_captions is not None and len(sub_captions) > self.num_sub_captions:
            start = generator.randrange(len(sub_captions) - self.num_sub_captions + 1)
            sub_captions = sub_captions[start : start + self.num_sub_captions]
        return join_sub_captions(sub_captions)

    def draw_details(self, text: str, generator: random.Random) -> str:
        """Any number of a long caption's sub-captions but the first, in their order; the first if it has no other."""
        sub_captions = [part for part in self.reader.sub_captions(text) if not is_enumeration(part)]
        details = sub_captions[1:] or sub_captions
        if not details:
            return ""
        num_drawn = generator.randint(1, min(len(details), self.num_sub_captions or len(details)))
        drawn = generator.sample(range(len(details)), num_drawn)
        return join_sub_captions([details[place] for place in sorted(drawn)])

    def draw_hard_negatives(self, row: dict, long_captions: list[str], generator: random.Random) -> list[str]:
        """
        Each of the long captions with a false detail, `num_hard_negatives` times; empty where no rule fits, or if the
        result is another long caption of the image. A false sentence is one of another image, drawn among those of the
        data set, that this one does not have; of a stream there is none.
        """
        if self.num_hard_negatives == 0:
            return []
        true = [self.reader.sub_captions(text) for text in self.reader.long_captions(row)]
        sentences = []
        if self.captions is not None:
            other = self.captions[generator.randrange(len(self.captions))]
            sentences = [part for text in self.reader.long_captions(other) for part in self.reader.sub_captions(text)]
            known = {part for parts in true for part in parts}
            sentences = [part for part in sentences if part not in known and not is_enumeration(part)]
        drawn = []
        for text in self.num_hard_negatives * long_captions:
            false = falsify(self.reader.sub_captions(text), sentences, generator) if text else None
            drawn.append("" if false is None or false in true else join_sub_captions(false))
        return drawn

    def draw_captions(self, index: int, epoch: int, row: dict) -> tuple[str, list[str], str | None]:
        """
        A short caption and `num_long_captions` long ones, empty where there is none, with the hard negatives behind
        them; and the key of an image without captions in the side files.
        """
        generator = random.Random(f"{self.seed} {epoch} {index}")
        short_captions = self.reader.short_captions(row) if self.kind_of_short_captions != "none" else []
        long_captions, unmatched = self.reader.match_long_captions(row)
        long_captions = [text for text in long_captions if self.reader.sub_captions(text)]
        if self.kind_of_short_captions == "any":
            short_captions = short_captions + [self.draw_sub_captions(text, generator) for text in long_captions]
        if self.kind_of_short_captions == "details" and long_captions:
            short_captions = [self.draw_details(text, generator) for text in long_captions]
        long_captions = generator.sample(long_captions, min(len(long_captions), self.num_long_captions))
        long_captions = [self.draw_sub_captions(text, generator) for text in long_captions]
        long_captions += [""] * (self.num_long_captions - len(long_captions))
        short_caption = generator.choice(short_captions) if short_captions else ""
        return short_caption, long_captions + self.draw_hard_negatives(row, long_captions, generator), unmatched

    def __getitem__(self, key: tuple) -> dict:
        epoch, index, is_padding, *rows = key
        row = rows[0] if rows else None
        view = epoch if self.num_views is None else epoch % self.num_views
        absent = [""] * (self.num_long_captions * (1 + self.num_hard_negatives))
        sample = {"short_caption": "", "long_captions": absent, "name": self.name(index, row)}
        has_features = False
        if self.image_features is not None:
            features = self.image_features[index, view]
            has_features = bool(features.isfinite().all())
            # others than zero, which cannot be normalised
            sample["vision_output"] = features if has_features else torch.ones_like(features)
        else:
            sample["image"] = PIL.Image.new("RGB", (64, 64))
        if is_padding:
            return sample
        sample |= {"bad": None, "unmatched": None}
        try:
            with_captions = self.captions[index] if row is None else row
            short_caption, long_captions, sample["unmatched"] = self.draw_captions(index, epoch, with_captions)
            if not any([short_caption, *long_captions]):
                if sample["unmatched"] is not None:
                    return sample  # rules reject its captions, or a captioner failed: `UnmatchedKeys` counts it
                return {**sample, "bad": ("no caption", f"{self.name(index, row)} has no caption")}
            if not has_features:
                image = self.load_image(index, view, row)
                if self.image_features is not None:  # it can be read now, but could not when the tower ran
                    raise ValueError(f"the image of {self.name(index, row)} has no features that are numbers")
                sample["image"] = image
        except ValueError as error:
            return {**sample, "bad": describe_bad_image(error)}
        return {**sample, "short_caption": short_caption, "long_captions": long_captions}


def describe_bad_image(error: ValueError) -> tuple[str, str]:
    """The cause under which an unusable sample is counted, and the message that is logged."""
    cause = "no image or wrong type"
    if isinstance(error, UnreadableImageError):
        cause = f"unreadable image ({type(error.__cause__.__cause__).__name__})"
    return cause, str(error)


class SampleCollator:
    """
    Batches samples into the third form of text input: short and long captions, each padded to its own longest.

    Args:
        processor (`LotlipProcessor`):
            The processor of the model.
        max_length (`int`):
            Truncate captions at this many tokens.
        num_hard_negatives (`int`, *optional*, defaults to 0):
            How many hard negatives stand behind the long captions of a sample, for each of them. One whose tokens are
            those of a long caption of its image becomes absent: its false detail may lie behind `max_length`.
    """

    def __init__(self, processor: LotlipProcessor, max_length: int, num_hard_negatives: int = 0):
        self.processor = processor
        self.max_length = max_length
        self.num_hard_negatives = num_hard_negatives

    def tokenize(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask, (texts, length); the mask of an absent caption is all zero."""
        tokens = self.processor.tokenizer(texts, padding=True, max_length=self.max_length, return_tensors="pt")
        is_present = torch.tensor([bool(text) for text in texts])
        return tokens["input_ids"], tokens["attention_mask"] * is_present[:, None]

    def __call__(self, samples: list[dict]) -> tuple[dict[str, torch.Tensor], dict[str, list]]:
        """
        The model's inputs, and a report: the `name` of each sample; of those that are not padding why they are `bad`
        and the key that is `unmatched` by the side files, None where all is well; and of each hard negative of a long
        caption whether it is there, in `hard_negatives`.
        """
        if "image" in samples[0]:
            images = [sample["image"] for sample in samples]
            batch = dict(self.processor.image_processor(images, return_tensors="pt"))
        else:
            batch = {"vision_output": torch.stack([sample["vision_output"] for sample in samples])}
        short_captions = [sample["short_caption"] for sample in samples]
        batch["short_input_ids"], batch["short_attention_mask"] = self.tokenize(short_captions)
        report = {
            name: [sample[name] for sample in samples if name in sample] for name in ("name", "bad", "unmatched")
        }
        report["hard_negatives"] = []
        long_captions = [text for sample in samples for text in sample["long_captions"]]
        if long_captions:
            input_ids, attention_mask = (
                values.unflatten(0, (len(samples), -1)) for values in self.tokenize(long_captions)
            )
            if self.num_hard_negatives > 0:
                attention_mask, report["hard_negatives"] = self.leave_out_true(input_ids, attention_mask)
            batch |= {"input_ids": input_ids, "attention_mask": attention_mask}
        return batch, report

    def leave_out_true(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        """
        The attention mask (samples, captions, length), zero for hard negatives that equal a long caption; and whether
        there is a hard negative, for each that a long caption has a place for.
        """
        num_true = input_ids.shape[1] // (1 + self.num_hard_negatives)
        true, false = (input_ids * attention_mask).tensor_split([num_true], dim=1)
        is_true = (false[:, :, None] == true[:, None]).all(dim=-1).any(dim=-1)
        true_mask, false_mask = attention_mask.tensor_split([num_true], dim=1)
        false_mask = false_mask * ~is_true[..., None]
        has_true = true_mask.any(dim=-1).repeat(1, self.num_hard_negatives)
        return torch.cat([true_mask, false_mask], dim=1), false_mask.any(dim=-1)[has_true].tolist()


class HardNegatives:
    """Counts the hard negatives of a training, and those that could not be made."""

    def __init__(self):
        self.num_places, self.num_absent = 0, 0

    def count(self, are_there: list[bool]) -> None:
        """
        Counts those of a batch.

        Args:
            are_there (`list[bool]`):
                Whether there is a hard negative, for each that a long caption has a place for.

        Raises:
            `ValueError`: if there are many places, and none of them is taken.
        """
        self.num_places += len(are_there)
        self.num_absent += are_there.count(False)
        if self.num_places >= MAX_ABSENT_AT_FIRST and self.num_absent == self.num_places:
            raise ValueError(
                f"None of the first {self.num_places} `--hard_negatives` can be made: the rules change English words "
                "among the first `--max_length` tokens of a long caption. Leave it out."
            )

    @classmethod
    def sum(cls, parts: list["HardNegatives"]) -> "HardNegatives":
        """The counts of several processes as one."""
        total = cls()
        total.num_places = sum(part.num_places for part in parts)
        total.num_absent = sum(part.num_absent for part in parts)
        return total

    def __str__(self) -> str:
        return (
            f"{self.num_absent} of {self.num_places} hard negatives were left out: no rule fits the long caption, the "
            "result is true of the image, or the change lies behind `--max_length`."
        )


class BadSamples:
    """
    Counts the samples that could not be used, by cause, and ends the run when they are too many.

    Args:
        max_fraction (`float`):
            The largest share of bad samples.
        max_in_a_row (`int`):
            The most that may follow one another.
        num_samples (`int`, *optional*):
            Samples in the data. Of a stream, which does not know, the share is of what was seen, or of 1,000.
    """

    def __init__(self, max_fraction: float, max_in_a_row: int, num_samples: int | None = None):
        self.max_fraction = max_fraction
        self.max_in_a_row = max_in_a_row
        self.num_samples = num_samples or 1000
        self.num_seen = 0
        self.in_a_row = 0
        self.causes = Counter()

    def count(self, bad: list[tuple[str, str] | None]) -> None:
        """
        Counts the samples of a batch.

        Raises:
            `ValueError`: if too many are bad.
        """
        for reason in bad:
            self.num_seen += 1
            if reason is None:
                self.in_a_row = 0
                continue
            cause, detail = reason
            self.in_a_row += 1
            self.causes[cause] += 1
            logger.warning(f"Skipped: {detail}.")
            if self.in_a_row >= self.max_in_a_row:
                raise ValueError(
                    f"{self.in_a_row} samples in a row are bad (`--max_bad_in_a_row`), the last: {detail}."
                )
            num_bad = self.causes.total()
            if num_bad > self.max_fraction * max(self.num_seen, self.num_samples):
                raise ValueError(
                    f"{num_bad} of {self.num_seen} samples are bad, more than `--max_bad_fraction "
                    f"{self.max_fraction}` allows: {dict(self.causes)}. The last: {detail}."
                )

    def sum_over_processes(self, earlier: dict[str, int]) -> tuple[Counter, list[int]]:
        """By cause, with those of an earlier start of the run; and of each process, since this one."""
        parts = gather_object([self.causes])
        return sum(parts, start=Counter(earlier)), [part.total() for part in parts]

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training reads: images with captions drawn for them, and how rows become a batch."""

import logging
import random
from functools import cache

import PIL.Image
import torch
from datasets import Dataset as MapDataset
from datasets import IterableDataset
from torch.utils.data import Dataset
from torchvision.transforms.v2 import RandomResizedCrop
from transformers import ProcessorMixin

from ..data.images import UnreadableImageError, read_image, undecoded
from ..data.reader import RowCounts, RowReader
from ..embedding.batches import tokenize_and_count
from ..embedding.features import prepare_images
from ..evaluation.text_changes import perturb
from ..sub_captions import is_enumeration, join_sub_captions
from .arguments import ObjectiveArguments


logger = logging.getLogger(__name__)

# Why samples are left out; the second is not bad: rules reject a caption, or a captioner failed
NO_CAPTION, NO_FILE_CAPTION = "no caption", "no caption in the caption files"

# A training of which none of the first N hard negatives can be made, or rows has captions in caption files, ends
NUM_AWAITED = 1000


class CaptionedImages(Dataset):
    """
    Images with the captions drawn for them. Every draw inside a sample, and its crop, comes from a generator seeded
    with (seed, epoch, index): a sample does not depend on workers, on processes, or on what was drawn before.

    A sample is asked for by a key (epoch, index, is_padding), of a stream with the row itself as a fourth. One that
    cannot be used is a black image without captions, which takes no part in the loss, and says why in `bad`. One
    without captions in the caption files has its key in `unmatched`.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        reader (`RowReader`):
            Reads its rows.
        drawing (`ObjectiveArguments`):
            Which captions are drawn.
        seed (`int`, *optional*, defaults to 0):
            The seed of all draws.
        crop (`RandomResizedCrop`, *optional*):
            Cuts a part out of an image, in the size that the image tower sees.
    """

    def __init__(
        self,
        dataset: MapDataset | IterableDataset,
        reader: RowReader,
        drawing: ObjectiveArguments,
        seed: int = 0,
        crop: RandomResizedCrop | None = None,
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
        self.seed = seed
        self.crop = crop
        self.image_features = None  # instead of images: see `image_features.py`

    def name(self, index: int, row: dict | None) -> str:
        """What a sample is called where something is wrong with it: its number, and the key that a shard gives it."""
        return f"row {index}" + (f" ({row['__key__']!r})" if row is not None and "__key__" in row else "")

    def load_image(self, index: int, row: dict | None = None) -> PIL.Image.Image:
        """
        An image, not cropped.

        Raises:
            `ValueError`: if it cannot be read, or is not there.
        """
        stored = self.images[index] if row is None else row
        if stored.get(self.image_column) is None:
            raise ValueError(f"{self.name(index, row)} has no image in column {self.image_column!r}")
        try:
            return read_image(stored[self.image_column])
        except UnreadableImageError as error:
            raise UnreadableImageError(f"the image of {self.name(index, row)} cannot be read: {error}") from error

    def draw_crop(self, image: PIL.Image.Image, epoch: int, index: int) -> PIL.Image.Image:
        """A part of an image, if it is to be cropped."""
        if self.crop is None:
            return image
        with torch.random.fork_rng(devices=[]):
            # of the CPU alone: `torch.manual_seed` would seed the accelerator too, and dropout with it
            torch.default_generator.manual_seed(random.Random(f"{self.seed} {epoch} {index}").getrandbits(63))
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
            false = perturb(self.reader.sub_captions(text), sentences, generator) if text else None
            drawn.append("" if false is None or false in true else join_sub_captions(false))
        return drawn

    def draw_captions(self, index: int, epoch: int, row: dict) -> tuple[str, list[str], str | None]:
        """
        A short caption and `num_long_captions` long ones, empty where there is none, with the hard negatives behind
        them; and the key of an image without captions in the caption files.
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
        absent = [""] * (self.num_long_captions * (1 + self.num_hard_negatives))
        sample = {"short_caption": "", "long_captions": absent, "name": self.name(index, row)}
        has_features = False
        if self.image_features is not None:
            features = self.image_features[index]
            has_features = bool(features.isfinite().all())
            # others than zero, which cannot be normalised
            sample["vision_output"] = features if has_features else torch.ones_like(features)
        else:
            sample["image"] = PIL.Image.new("RGB", (64, 64) if self.crop is None else self.crop.size[::-1])
        if is_padding:
            return sample
        sample |= {"bad": None, "unmatched": None}
        try:
            with_captions = self.captions[index] if row is None else row
            short_caption, long_captions, sample["unmatched"] = self.draw_captions(index, epoch, with_captions)
            if not any([short_caption, *long_captions]):
                reason = NO_CAPTION if sample["unmatched"] is None else NO_FILE_CAPTION
                return {**sample, "bad": (reason, f"{self.name(index, row)} has {reason}")}
            if not has_features:
                image = self.load_image(index, row)
                if self.image_features is not None:  # it can be read now, but could not when the tower ran
                    raise ValueError(f"the image of {self.name(index, row)} has no features that are numbers")
                sample["image"] = self.draw_crop(image, epoch, index)
        except ValueError as error:
            return {**sample, "bad": describe_bad_image(error)}
        return {**sample, "short_caption": short_caption, "long_captions": long_captions}


def describe_bad_image(error: ValueError) -> tuple[str, str]:
    """The cause under which an unusable sample is counted, and the message that is logged."""
    cause = "no image or wrong type"
    if isinstance(error, UnreadableImageError):
        cause = f"unreadable image ({type(error.__cause__.__cause__).__name__})"
    return cause, str(error)


@cache
def warn_of_truncation(max_length: int) -> None:
    """Says so once."""
    logger.warning(f"Captions of more than {max_length} tokens are truncated: a larger `--max_length` reads more.")


class SampleCollator:
    """
    Batches samples: their images, and short and long captions, each kind padded to its own longest.

    Args:
        processor (`ProcessorMixin`):
            The processor of the model, which tokenizes and prepares images as for its evaluation.
        num_hard_negatives (`int`, *optional*, defaults to 0):
            How many hard negatives stand behind the long captions of a sample, for each of them. One whose tokens are
            those of a long caption of its image becomes absent: its false detail may have been truncated.
        are_cropped (`bool`, *optional*, defaults to `False`):
            Whether the images have the size that the image tower sees: nothing more is cut off.
    """

    def __init__(self, processor: ProcessorMixin, num_hard_negatives: int = 0, are_cropped: bool = False):
        self.processor = processor
        self.num_hard_negatives = num_hard_negatives
        self.image_options = {"do_resize": False} if are_cropped else {}
        if are_cropped and hasattr(processor.image_processor, "do_center_crop"):
            self.image_options["do_center_crop"] = False

    def tokenize(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask (texts, length): ones where padding is read too, zero for an absent caption."""
        tokens, truncated = tokenize_and_count(self.processor, texts, None)
        if any(truncated):
            warn_of_truncation(self.processor.tokenizer.model_max_length)
        is_present = torch.tensor([bool(text) for text in texts])
        mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"]))
        return tokens["input_ids"], mask * is_present[:, None]

    def __call__(self, samples: list[dict]) -> tuple[dict[str, torch.Tensor], dict[str, list]]:
        """
        The model's inputs, and a report: the `names` of the samples; of those that were `read` and are not padding the
        name, why it is bad and the key that caption files lack, None where all is well; and of each hard negative of
        a long caption the name of its sample and whether it is there, in `hard_negatives`.
        """
        if "image" in samples[0]:
            batch = prepare_images(self.processor, [sample["image"] for sample in samples], **self.image_options)
        else:
            batch = {"vision_output": torch.stack([sample["vision_output"] for sample in samples])}
        short_captions = [sample["short_caption"] for sample in samples]
        batch["short_input_ids"], batch["short_attention_mask"] = self.tokenize(short_captions)
        report = {
            "names": [sample["name"] for sample in samples],
            "read": [(sample["name"], sample["bad"], sample["unmatched"]) for sample in samples if "bad" in sample],
            "hard_negatives": [],
        }
        long_captions = [text for sample in samples for text in sample["long_captions"]]
        if long_captions:
            input_ids, attention_mask = (
                values.unflatten(0, (len(samples), -1)) for values in self.tokenize(long_captions)
            )
            if self.num_hard_negatives > 0:
                attention_mask, are_there = self.leave_out_true(input_ids, attention_mask)
                report["hard_negatives"] = [(report["names"][row], is_there) for row, is_there in are_there]
            batch |= {"input_ids": input_ids, "attention_mask": attention_mask}
        return batch, report

    def leave_out_true(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[int, bool]]]:
        """
        The attention mask (samples, captions, length), zero for hard negatives that equal a long caption; and the
        sample and whether there is a hard negative, for each that a long caption has a place for.
        """
        num_true = input_ids.shape[1] // (1 + self.num_hard_negatives)
        true, false = (input_ids * attention_mask).tensor_split([num_true], dim=1)
        is_true = (false[:, :, None] == true[:, None]).all(dim=-1).any(dim=-1)
        true_mask, false_mask = attention_mask.tensor_split([num_true], dim=1)
        false_mask = false_mask * ~is_true[..., None]
        has_true = true_mask.any(dim=-1).repeat(1, self.num_hard_negatives)
        rows, are_there = has_true.nonzero()[:, 0], false_mask.any(dim=-1)[has_true]
        return torch.cat([true_mask, false_mask], dim=1), list(zip(rows.tolist(), are_there.tolist()))


class SampleCounts:
    """
    What became of the samples that a process has read, and of the places for hard negatives.

    Args:
        max_bad_fraction (`float`):
            The largest share of bad samples.
        max_bad_in_a_row (`int`):
            The most that may follow one another.
        num_samples (`int`, *optional*):
            Samples of the process. Of a stream, which does not know, the share is of what was seen, or of 1,000.
    """

    def __init__(self, max_bad_fraction: float, max_bad_in_a_row: int, num_samples: int | None = None):
        self.max_bad_fraction = max_bad_fraction
        self.max_bad_in_a_row = max_bad_in_a_row
        self.num_samples = num_samples or 1000
        self.bad_in_a_row = 0
        self.rows, self.hard_negatives = RowCounts(), RowCounts()

    def count(self, name: str, bad: tuple[str, str] | None, unmatched: str | None = None) -> None:
        """
        Counts a sample.

        Args:
            name (`str`):
                Its name.
            bad (`tuple[str, str]`, *optional*):
                Why it cannot be used: the cause under which it is counted, and the message that is logged.
            unmatched (`str`, *optional*):
                Its key, if it has no captions in the caption files.

        Raises:
            `ValueError`: if too many are bad.
        """
        cause, detail = bad or (None, None)
        self.rows.count(name, cause, unmatched)
        if cause == NO_FILE_CAPTION:
            return
        self.bad_in_a_row = 0 if cause is None else self.bad_in_a_row + 1
        if cause is None:
            return
        logger.warning(f"Skipped: {detail}.")
        if self.bad_in_a_row >= self.max_bad_in_a_row:
            raise ValueError(
                f"{self.bad_in_a_row} samples in a row are bad (`--max_bad_in_a_row`), the last: {detail}."
            )
        causes = {reason: count for reason, count in self.rows.left_out.items() if reason != NO_FILE_CAPTION}
        num_bad, num_seen = sum(causes.values()), self.rows.num_rows
        if num_bad > self.max_bad_fraction * max(num_seen, self.num_samples):
            raise ValueError(
                f"{num_bad} of {num_seen} samples are bad, more than `--max_bad_fraction {self.max_bad_fraction}` "
                f"allows: {causes}. The last: {detail}."
            )

    def count_hard_negatives(self, hard_negatives: list[tuple[str, bool]]) -> None:
        """
        Counts the hard negatives of a batch: the name of the sample and whether there is one, for each that a long
        caption has a place for.

        Raises:
            `ValueError`: if there are many places, and none of them is taken.
        """
        for name, is_there in hard_negatives:
            self.hard_negatives.count(name, None if is_there else "no false detail that the model reads")
        if self.hard_negatives.num_rows >= NUM_AWAITED and self.hard_negatives.num_used == 0:
            raise ValueError(
                f"None of the first {self.hard_negatives.num_rows} `--hard_negatives` can be made: the rules change "
                "English words among the first `--max_length` tokens of a long caption. Leave it out."
            )

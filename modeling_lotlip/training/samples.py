# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training reads: images with captions drawn for them, in which order, and how rows become a batch."""

import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice

import PIL.Image
import torch
from accelerate import Accelerator
from datasets import Dataset as MapDataset
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Dataset
from torchvision.transforms.v2 import RandomResizedCrop
from transformers import ProcessorMixin

from ..data.images import UnreadableImageError, read_image, undecoded
from ..data.reader import RowCounts, RowReader
from ..data.rows import name_row
from ..encoder.preprocessing import Preprocessing
from ..evaluation.text_changes import perturb
from ..utils.sub_captions import is_enumeration, join_sub_captions, split_sub_captions
from .arguments import ObjectiveArguments
from .image_features import read_features
from .processes import fail_together, largest


logger = logging.getLogger(__name__)

# Why captions are left out; the second is not bad: rules reject a caption, or a captioner failed
NO_CAPTION, NO_FILE_CAPTION = "no caption", "no caption in the caption files"
NO_FALSE_DETAIL = "no false detail that the model reads"

# What is counted of a training, a caption of each kind only where the sample is used
COUNTED = ("rows", "short_captions", "long_captions", "hard_negatives")

# A training of which none of the first N hard negatives can be made, or rows has captions in caption files, ends
NUM_AWAITED = 1000

# What becomes of a row or caption: its name, the cause why it is left out, its key if the caption files have none for
# it, and the message of a bad sample; None where all is well
Found = tuple[str, str | None, str | None, str | None]


class CaptionedImages(Dataset):
    """
    Images with the captions drawn for them. Every draw inside a sample, and its crop, comes from a generator seeded
    with (seed, epoch, index): a sample does not depend on workers, on processes, or on what was drawn before.

    A sample is asked for by a key (epoch, index, is_padding), of a stream with the row itself as a fourth. One that
    cannot be used is a black image without captions, which takes no part in the loss. What is no padding says in
    `found` what became of it, and of its captions, by what is [`COUNTED`].
    """

    def __init__(
        self,
        dataset: MapDataset | IterableDataset,
        reader: RowReader,
        drawing: ObjectiveArguments,
        seed: int = 0,
        crop: RandomResizedCrop | None = None,
    ):
        self.reader, self.drawing, self.seed, self.crop = reader, drawing, seed, crop
        self.image_column, self.images, self.captions = reader.image_column, None, None
        if isinstance(dataset, MapDataset):
            dataset = undecoded(dataset, self.image_column)
            self.images = dataset.select_columns(self.image_column)
            self.captions = dataset.select_columns(reader.text_columns)
        self.has_short_captions = drawing.short_captions != "none" and reader.short_column is not None
        self.num_long_captions = drawing.num_long_captions if reader.has_long_captions else 0
        self.image_features = None  # their folder, instead of images: see `image_features.py`

    def load_image(self, index: int, row: dict | None, name: str) -> PIL.Image.Image:
        """An image, not cropped. Raises an `UnreadableImageError` if it cannot be read, or is not there."""
        try:
            return read_image((self.images[index] if row is None else row).get(self.image_column))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"the image of {name} cannot be read: {error}") from error

    def draw_crop(self, image: PIL.Image.Image, epoch: int, index: int) -> PIL.Image.Image:
        """A part of an image, if it is to be cropped."""
        if self.crop is None:
            return image
        with torch.random.fork_rng(devices=[]):  # `torch.manual_seed` would seed the accelerator too, and its dropout
            torch.default_generator.manual_seed(random.Random(f"{self.seed} {epoch} {index}").getrandbits(63))
            return self.crop(image)

    def split(self, text: str) -> list[str]:
        """The sub-captions of a long caption, without the numbers of a list."""
        return [part for part in split_sub_captions(text, self.reader.splitter) if not is_enumeration(part)]

    def draw_sub_captions(self, text: str, generator: random.Random) -> str:
        """Some consecutive sub-captions of a long caption, or all of them."""
        sub_captions = self.split(text)
        if self.drawing.num_sub_captions is not None and len(sub_captions) > self.drawing.num_sub_captions:
            start = generator.randrange(len(sub_captions) - self.drawing.num_sub_captions + 1)
            sub_captions = sub_captions[start : start + self.drawing.num_sub_captions]
        return join_sub_captions(sub_captions)

    def draw_details(self, text: str, generator: random.Random) -> str:
        """Any number of a long caption's sub-captions but the first, in their order; the first if it has no other."""
        sub_captions = self.split(text)
        details = sub_captions[1:] or sub_captions
        if not details:
            return ""
        num_drawn = generator.randint(1, min(len(details), self.drawing.num_sub_captions or len(details)))
        drawn = generator.sample(range(len(details)), num_drawn)
        return join_sub_captions([details[place] for place in sorted(drawn)])

    def draw_hard_negatives(self, row: dict, long_captions: list[str], generator: random.Random) -> list[str]:
        """
        Each of the long captions with a false detail, `num_hard_negatives` times; empty where no rule fits, or if the
        result is another long caption of the image. A false sentence is one of another image, drawn among those of the
        data set, that this one does not have; of a stream there is none.
        """
        if self.drawing.hard_negatives == 0:
            return []
        true = [split_sub_captions(text, self.reader.splitter) for text in self.reader.long_captions(row)]
        known, sentences, drawn = {part for parts in true for part in parts}, [], []
        if self.captions is not None:
            other = self.captions[generator.randrange(len(self.captions))]
            sentences = [part for text in self.reader.long_captions(other) for part in self.split(text)]
            sentences = [part for part in sentences if part not in known]
        for text in self.drawing.hard_negatives * long_captions:
            false = perturb(split_sub_captions(text, self.reader.splitter), sentences, generator) if text else None
            drawn.append("" if false is None or false in true else join_sub_captions(false))
        return drawn

    def draw_captions(self, index: int, epoch: int, row: dict) -> tuple[str, list[str], str | None]:
        """
        A short caption and `num_long_captions` long ones, empty where there is none, with the hard negatives behind
        them; and the key of an image without captions in the caption files.
        """
        generator = random.Random(f"{self.seed} {epoch} {index}")
        short_captions = self.reader.short_captions(row) if self.drawing.short_captions != "none" else []
        long_captions, unmatched = self.reader.match_long_captions(row)
        long_captions = [text for text in long_captions if split_sub_captions(text, self.reader.splitter)]
        if self.drawing.short_captions == "any":
            short_captions = short_captions + [self.draw_sub_captions(text, generator) for text in long_captions]
        if self.drawing.short_captions == "details" and long_captions:
            short_captions = [self.draw_details(text, generator) for text in long_captions]
        long_captions = generator.sample(long_captions, min(len(long_captions), self.num_long_captions))
        long_captions = [self.draw_sub_captions(text, generator) for text in long_captions]
        long_captions += [""] * (self.num_long_captions - len(long_captions))
        short_caption = generator.choice(short_captions) if short_captions else ""
        return short_caption, long_captions + self.draw_hard_negatives(row, long_captions, generator), unmatched

    def __getitem__(self, key: tuple) -> dict:
        epoch, index, is_padding, *rows = key
        row = rows[0] if rows else None
        num_captions = self.num_long_captions * (1 + self.drawing.hard_negatives)
        sample = {"short_caption": "", "long_captions": [""] * num_captions}
        if self.image_features is None:
            sample["image"] = PIL.Image.new("RGB", (64, 64) if self.crop is None else self.crop.size[::-1])
        else:  # not a number where the image could not be read: what takes its place can be normalised
            features = read_features(self.image_features, index)
            sample["vision_output"] = features.where(features.isfinite(), 1.0)
        if is_padding:
            return sample
        name, cause, unmatched, detail = name_row(row or {}, index), None, None, None
        try:
            with_captions = self.captions[index] if row is None else row
            short_caption, long_captions, unmatched = self.draw_captions(index, epoch, with_captions)
            if not any([short_caption, *long_captions]):
                cause, detail = (
                    (NO_CAPTION, f"{name} has {NO_CAPTION}") if unmatched is None else (NO_FILE_CAPTION, None)
                )
            elif self.image_features is None:
                sample["image"] = self.draw_crop(self.load_image(index, row, name), epoch, index)
            elif not features.isfinite().all():
                self.load_image(index, row, name)  # says why not
                raise ValueError(f"the image of {name} has no features that are numbers")
        except ValueError as error:
            origin, detail = getattr(error.__cause__, "__cause__", None), str(error)
            cause = f"unreadable image ({type(origin).__name__})" if origin else "no image or wrong type"
        found = {"rows": (name, cause, unmatched, detail)}
        if cause is None:
            sample |= {"short_caption": short_caption, "long_captions": long_captions}
            if self.has_short_captions:
                found["short_captions"] = (name, None if short_caption else NO_CAPTION, None, None)
            if self.num_long_captions > 0:
                found["long_captions"] = (name, None if any(long_captions) else NO_CAPTION, None, None)
        return sample | {"found": found}


@dataclass
class BatchSampler:
    """
    This process's part of every global batch of an epoch, as keys (epoch, index, is_padding), of a permutation seeded
    with (seed, epoch). Where the last batch does not divide, some processes get a row of padding.
    """

    num_samples: int
    batch_size: int
    seed: int
    process_index: int
    num_processes: int
    epoch: int = 0
    first_batch: int = 0

    def __len__(self) -> int:
        return math.ceil(self.num_samples / (self.batch_size * self.num_processes))

    def __iter__(self) -> Iterator[list[tuple]]:
        order = list(range(self.num_samples))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        size = self.batch_size * self.num_processes
        for start in range(self.first_batch * size, len(order), size):
            indices = order[start : start + size]
            num_rows = math.ceil(len(indices) / self.num_processes)
            own = indices[self.process_index :: self.num_processes]
            keys = [(self.epoch, index, False) for index in own]
            yield keys + [(self.epoch, indices[0], True)] * (num_rows - len(own))


@dataclass
class StreamBatchSampler:
    """
    The same of an epoch of a shuffled stream, as keys (epoch, index, is_padding, row with an undecoded image). The
    processes share it, by shards where their number divides, else by rows. A process at the end of its share returns
    rows of padding until the last process is there.
    """

    stream: IterableDataset
    batch_size: int
    accelerator: Accelerator
    epoch: int = 0
    first_batch: int = 0

    def __iter__(self) -> Iterator[list[tuple]]:
        # the number of a row among those of all processes
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        share = split_dataset_by_node(self.stream, first, step)
        share.set_epoch(self.epoch)
        rows = ((self.epoch, first + step * place, False, row) for place, row in enumerate(share))
        for batch in count():
            with fail_together(self.accelerator):
                own = list(islice(rows, self.batch_size))
            size = largest(len(own), self.accelerator)
            if size == 0 and batch == 0:
                raise ValueError("The stream of the training data is empty: name another split, or other files.")
            if size == 0:
                return
            if batch >= self.first_batch:  # those before are read again, for the order to be that of a whole epoch
                yield own + [(self.epoch, 0, True, None)] * (size - len(own))


class SampleCollator:
    """
    Batches samples: their images, which are not cut off further where they `are_cropped`, and short and long captions,
    each kind padded to its longest. Behind the long captions of a sample stand `num_hard_negatives` for each of them.
    One whose tokens are those of a long caption becomes absent: its false detail may have been truncated.
    """

    def __init__(self, processor: ProcessorMixin, num_hard_negatives: int = 0, are_cropped: bool = False):
        self.processor, self.num_hard_negatives = processor, num_hard_negatives
        self.image_options = {"do_resize": False} if are_cropped else {}
        if are_cropped and hasattr(processor.image_processor, "do_center_crop"):
            self.image_options["do_center_crop"] = False

    def tokenize(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask (texts, length): ones where padding is read too, zero for an absent caption."""
        tokens, truncated = Preprocessing(self.processor).tokenize(texts)
        if any(truncated):
            warn_of_truncation(self.processor.tokenizer.model_max_length)
        is_present = torch.tensor([bool(text) for text in texts])
        mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"]))
        return tokens["input_ids"], mask * is_present[:, None]

    def __call__(self, samples: list[dict]) -> tuple[dict[str, torch.Tensor], list[tuple[str, Found]]]:
        """The model's inputs, and what was found in all samples but padding, each by what is [`COUNTED`]."""
        if "image" in samples[0]:
            images = [sample["image"] for sample in samples]
            batch = Preprocessing(self.processor).prepare_images(images, **self.image_options)
        else:
            batch = {"vision_output": torch.stack([sample["vision_output"] for sample in samples])}
        short_captions = [sample["short_caption"] for sample in samples]
        batch["short_input_ids"], batch["short_attention_mask"] = self.tokenize(short_captions)
        found = [entry for sample in samples for entry in sample.get("found", {}).items()]
        long_captions = [text for sample in samples for text in sample["long_captions"]]
        if long_captions:
            ids, mask = (values.unflatten(0, (len(samples), -1)) for values in self.tokenize(long_captions))
            if self.num_hard_negatives > 0:
                mask, present = self.leave_out_true(ids, mask)
                for row, is_there in present:
                    name, cause = samples[row]["found"]["rows"][0], None if is_there else NO_FALSE_DETAIL
                    found.append(("hard_negatives", (name, cause, None, None)))
            batch |= {"input_ids": ids, "attention_mask": mask}
        return batch, found

    def leave_out_true(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, list[tuple[int, bool]]]:
        """
        The attention mask (samples, captions, length), zero for hard negatives that equal a long caption; and the
        sample and whether there is a hard negative, for each that a long caption has a place for.
        """
        num_true = ids.shape[1] // (1 + self.num_hard_negatives)
        true, false = (ids * mask).tensor_split([num_true], dim=1)
        is_true = (false[:, :, None] == true[:, None]).all(dim=-1).any(dim=-1)
        mask[:, num_true:] *= ~is_true[..., None]
        has_true = mask[:, :num_true].any(dim=-1).repeat(1, self.num_hard_negatives)
        rows, are_there = has_true.nonzero()[:, 0], mask[:, num_true:].any(dim=-1)[has_true]
        return mask, list(zip(rows.tolist(), are_there.tolist()))


@cache
def warn_of_truncation(max_length: int) -> None:
    """Says so once."""
    logger.warning(f"Captions of more than {max_length} tokens are truncated: a larger `--max_length` reads more.")


def count_found(
    counts: dict[str, RowCounts], found: list[tuple[str, Found]], max_bad_fraction: float, num_samples: int | None
) -> None:
    """
    Counts what was found in a batch. Raises a `ValueError` if more samples are bad than the fraction allows of the
    `num_samples` of this process (of a stream, None, of those seen, 1,000 at least), or all of 100, or if none of the
    first hard negatives can be made.
    """
    for kind, (name, cause, unmatched, detail) in found:
        counts[kind].count(name, cause, unmatched)
        if detail is not None:
            logger.warning(f"Skipped: {detail}.")
    rows, false = counts["rows"], counts["hard_negatives"]
    num_bad = sum(number for cause, number in rows.left_out.items() if cause != NO_FILE_CAPTION)
    num_allowed = max_bad_fraction * max(rows.num_rows, num_samples or NUM_AWAITED)
    if num_bad > num_allowed or num_bad == rows.num_rows >= 100:
        raise ValueError(f"More samples are bad than `--max_bad_fraction {max_bad_fraction}` allows: {rows}")
    if false.num_rows >= NUM_AWAITED and false.num_used == 0:
        cause = f"None of the first {false.num_rows} `--hard_negatives` can be made: rules change English words"
        raise ValueError(f"{cause} among the first `--max_length` tokens of a long caption. Leave it out.")

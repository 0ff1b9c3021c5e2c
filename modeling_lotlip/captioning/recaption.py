# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions for the images of a dataset by one or several captioners; a stopped run resumes where it stopped."""

import json
import logging
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from accelerate.utils import gather_object, set_seed
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.loading import load_split
from ..data.rows import check_columns, check_fields, get_columns
from ..utils.files import read_lines
from ..utils.output_folder import OutputFolder
from ..utils.signals import StopSignal
from ..utils.terminal import progress_bar, without_stop
from .answer import Answer
from .arguments import CaptionerArguments, RecaptionArguments, RuleArguments
from .captioner import check_captioners, load_captioner
from .image_files import ImageFile, read_image_files
from .records import Records, hash_caption, open_database, replace_surrogates, summarize
from .rules import apply_rules


logger = logging.getLogger(__name__)

PROMPTS_FILE = Path(__file__).with_name("prompts.txt")


def recaption(
    source: SourceArguments,
    split: TrainSplitArguments,
    arguments: RecaptionArguments,
    captioning: CaptionerArguments,
    rules: RuleArguments,
    state: PartialState,
    report: Callable[[str], None] = print,
) -> int:
    """
    Captions the images of a dataset that fall to this process, by every captioner, and writes the records. All
    processes of `state` call it.

    Args:
        source (`SourceArguments`):
            The dataset of the images.
        split (`TrainSplitArguments`):
            The rows of it that are read.
        arguments (`RecaptionArguments`):
            The captioners, what they are asked, and where the captions go.
        captioning (`CaptionerArguments`):
            How captioners run and generate.
        rules (`RuleArguments`):
            Which rules apply to captions.
        state (`PartialState`):
            Which process this is, of how many.
        report (`Callable[[str], None]`, *optional*, defaults to `print`):
            Is called with each line of the summary.

    Returns:
        `int`: the number of the signal that ended it, 0 if none did.

    Raises:
        `ValueError`: if the folder has captions of other data or settings, or another run writes to it; if two
            different images have the same key; if there is no such captioner, its server is gone, or it fails on
            every image.
    """
    prompts = arguments.prompt or read_prompts(arguments.prompts_file)
    dataset = load_split(source, split.train_split, split.max_train_samples, key_column=arguments.key_column)
    check_columns(get_columns(dataset), key_column=arguments.key_column)
    check_fields(dataset, key_column=arguments.key_column)
    check_captioners(arguments.captioner, captioning)
    settings = list_compared(source, split, arguments, captioning, rules) | {"prompts": prompts}
    folder = nullcontext()
    if state.is_main_process:
        parts = dict.fromkeys(arguments.captioner, split.max_train_samples)
        folder = OutputFolder(arguments.output_dir, settings, "captions", parts=parts)
    job = RecaptionJob(dataset, source, arguments, captioning, rules, prompts, count_images(dataset, split, state))
    with folder, StopSignal("The run ends; what is captioned is written.") as stop:
        state.wait_for_everyone()
        set_seed(captioning.seed + state.process_index)
        outcomes = []
        for name in arguments.captioner:
            counts = Counter()
            outcomes.append(caption_by(name, job, state, stop.is_received, counts))
            for what, count in counts.items():
                report(f"{name}: {count} {what}.")
            if stop.is_received():
                if state.is_main_process:
                    folder.is_stopped = True
                return stop.number
        state.wait_for_everyone()
        outcomes = gather_object(outcomes)
        if state.is_main_process:
            report(f"{arguments.output_dir} holds captions:")
            with open_database(arguments.output_dir) as reading:
                for line in summarize(reading):
                    report(line)
        for name in arguments.captioner:
            # what fails again may never succeed, as of a broken image: what can be captioned is
            if not (arguments.retry_failed and has_captions(arguments.output_dir, name)):
                refuse_failures([outcome for outcome in outcomes if outcome.captioner == name])
    return 0


@dataclass
class RecaptionJob:
    """
    Holds what is captioned, and how.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            The images.
        source (`SourceArguments`):
            Where the dataset comes from, and its columns.
        arguments (`RecaptionArguments`):
            The captioners, what they are asked, and where the captions go.
        captioning (`CaptionerArguments`):
            How captioners run and generate.
        rules (`RuleArguments`):
            Which rules apply to captions.
        prompts (`list[str]`):
            The prompts.
        num_images (`int`, *optional*):
            About how many images fall to a process, None if that is not known.
    """

    dataset: Dataset | IterableDataset
    source: SourceArguments
    arguments: RecaptionArguments
    captioning: CaptionerArguments
    rules: RuleArguments
    prompts: list[str]
    num_images: int | None


def count_images(
    dataset: Dataset | IterableDataset,
    split: TrainSplitArguments,
    state: PartialState,
) -> int | None:
    """
    Counts the rows that fall to a process, about: which ones do depends on their keys. A stream without a maximum has
    no known count.
    """
    num_images = split.max_train_samples
    if isinstance(dataset, Dataset):
        num_images = len(dataset)
    if num_images is None:
        return None
    return round(num_images / state.num_processes)


def caption_by(
    name: str, job: RecaptionJob, state: PartialState, is_stopped: Callable[[], bool], counts: Counter
) -> "CaptionerOutcome":
    """
    Captions the images that have no record by a captioner, and records what it answers.

    Args:
        name (`str`):
            The captioner.
        job (`RecaptionJob`):
            What is captioned, and how.
        state (`PartialState`):
            Which process this is, of how many.
        is_stopped (`Callable[[], bool]`):
            Says whether the run is to end.
        counts (`Counter`):
            Counts rows and captions by what is to be said of them, in words that follow their count.

    Returns:
        `CaptionerOutcome`: how many images there were, and on how many the captioner failed.
    """
    arguments = job.arguments
    captioner = load_captioner(name, job.captioning)
    captioner_facts = {
        "captioner": name,
        "revision": captioner.revision,
        "generation_settings": json.dumps(captioner.settings),
    }
    with (
        open_database(arguments.output_dir) as reading,
        open_database(arguments.output_dir) as writing,
        progress_bar(total=job.num_images, desc=name, unit=" images", disable=not state.is_main_process) as bar,
    ):
        query = "SELECT count(*) FROM records WHERE captioner = ?"
        if arguments.retry_failed:
            query += " AND error IS NULL"
        (num_done,) = reading.execute(query, (name,)).fetchone()
        warn_of_other_revisions(reading, name, captioner.revision)
        bar.update(num_done // state.num_processes)
        files = read_image_files(
            job.dataset, job.source, arguments.key_column, name, state, reading, counts, arguments.retry_failed
        )
        files = (
            file._replace(prompt=sample_prompt(job.prompts, job.captioning.seed, file.key, name)) for file in files
        )
        records = Records(writing, arguments.output_dir, arguments.shard_size)
        records.find_lost_files()
        batches = captioner.answer(check_edits_first(files, records), is_stopped)
        return record_answers(batches, captioner_facts, job.rules, records, bar, counts)


def check_edits_first(files: Iterable[ImageFile], records: Records) -> Iterator[ImageFile]:
    """Yields images to caption, the first one after [`Records.check_edits`]: without any, no file is written anew."""
    for index, file in enumerate(files):
        if index == 0:
            records.check_edits()
        yield file


def warn_of_other_revisions(connection: sqlite3.Connection, captioner: str, revision: str | None) -> None:
    """
    Warns of captions of a captioner whose files were others, or that has the same files by another name. A captioner
    on a server has no revision: `NULL`, which SQL's `!=` calls neither equal nor different.
    """
    query = "SELECT count(*) FROM records WHERE captioner = ? AND revision IS NOT ?"
    (num_others,) = connection.execute(query, (captioner, revision)).fetchone()
    if num_others > 0:
        logger.warning(
            f"{num_others} captions are of another revision of {captioner} than "
            f"{revision or 'the one on the server'}, and stay: name another folder to write all anew."
        )
    query = "SELECT captioner, count(*) FROM records WHERE captioner != ? AND revision = ? GROUP BY captioner"
    for other, num_captions in connection.execute(query, (captioner, revision)):
        logger.warning(
            f"{other} has the same revision as {captioner}, and {num_captions} captions here: give the "
            "captioner that name to go on with them."
        )


def read_prompts(path: Path | None = None) -> list[str]:
    """
    Reads the prompts in a file, by default those of the package, one in each line; lines that begin with `#` are none.

    Raises:
        `ValueError`: if there is no prompt, or the file cannot be read.
    """
    lines = read_lines(path or PROMPTS_FILE, "prompts_file")
    prompts = [line for line in lines if not line.startswith("#")]
    if not prompts:
        raise ValueError(f"`--prompts_file {path}` has no prompt: write one in each line.")
    return prompts


def sample_prompt(prompts: list[str], seed: int, key: str, captioner: str) -> str:
    """
    Samples the prompt for an image, anew for each captioner, the same in every run and process.

    Args:
        prompts (`list[str]`):
            The prompts.
        seed (`int`):
            The random seed.
        key (`str`):
            The key of the image.
        captioner (`str`):
            The name of the captioner.

    Returns:
        `str`: one of the prompts.
    """
    return random.Random(f"{seed} {captioner} {key}").choice(prompts)


class CaptionerOutcome(NamedTuple):
    """Holds how many images a captioner was asked about in a process, on how many it failed, and the last error."""

    captioner: str
    num_images: int
    num_failed: int
    error: str | None


def has_captions(folder: Path, captioner: str) -> bool:
    """Returns whether there is a caption of a captioner in a folder."""
    with open_database(folder) as reading:
        query = "SELECT count(*) FROM records WHERE captioner = ? AND error IS NULL"
        (num_captions,) = reading.execute(query, (captioner,)).fetchone()
    return num_captions > 0


def refuse_failures(outcomes: list[CaptionerOutcome]) -> None:
    """Raises a `ValueError` if a captioner failed on every image in all processes."""
    num_images = sum(outcome.num_images for outcome in outcomes)
    if num_images and num_images == sum(outcome.num_failed for outcome in outcomes):
        error = next(outcome.error for outcome in outcomes if outcome.error)
        raise ValueError(
            f"`--captioner {outcomes[0].captioner}` failed on each of the {num_images} images of "
            f"this run, last: {without_stop(error)}. `--retry_failed` tries them again."
        )


def list_compared(source: SourceArguments, *others: object) -> dict:
    """Lists what captions depend on, and must be the same in every run that adds some to a folder."""
    compared = {"data_dir": source.data_dir, "data_files": source.data_files}
    for arguments in (source, *others):
        for field in fields(arguments):
            if field.metadata.get("compared_on_resume"):
                compared[field.name] = getattr(arguments, field.name)
    return compared


def record_answers(
    batches: Iterable[list[tuple[ImageFile, Answer]]],
    captioner_facts: dict,
    rules: RuleArguments,
    records: Records,
    bar: tqdm,
    counts: Counter,
) -> CaptionerOutcome:
    """
    Applies the rules to answers as they come, and records them, whatever ends it: a killed run loses no batch that
    has come.

    Args:
        batches (`Iterable[list[tuple[ImageFile, Answer]]]`):
            Images with what the captioner answered.
        captioner_facts (`dict`):
            The captioner, its revision and its settings, for every record.
        rules (`RuleArguments`):
            Which rules apply.
        records (`Records`):
            Where the captions go.
        bar (`tqdm`):
            Is advanced by one for each image.
        counts (`Counter`):
            Counts the captions that each rule changed.

    Returns:
        `CaptionerOutcome`: how many images there were, and on how many the captioner failed.
    """
    num_images = 0
    num_failed = 0
    last_error = None
    try:
        for batch in batches:
            for file, answer in batch:
                outcome, changed = apply_rules_to_answer(answer, rules)
                image = {"key": file.key, "url": file.url, "sha256": file.sha256, "prompt": file.prompt}
                records.add(image | captioner_facts | outcome | {"num_tokens": answer.num_tokens}, file.signature)
                counts.update(f"captions of this run were changed by the rule {rule}" for rule in changed)
                num_images += 1
                if outcome["error"] is not None:
                    num_failed += 1
                    last_error = outcome["error"]
                bar.update()
            records.commit()
    finally:
        records.write()
    return CaptionerOutcome(captioner_facts["captioner"], num_images, num_failed, last_error)


def apply_rules_to_answer(answer: Answer, rules: RuleArguments) -> tuple[dict, list[str]]:
    """
    Applies the rules to an answer.

    Args:
        answer (`Answer`):
            What the captioner answered.
        rules (`RuleArguments`):
            Which rules apply.

    Returns:
        `tuple[dict, list[str]]`: the columns of the caption, of the caption before the rules where they changed it, of
        the rule that rejects it and of the failure; and the names of the rules that changed it.
    """
    record = {
        "caption": None,
        "caption_before_rules": None,
        "caption_hash": hash_caption(None),
        "is_cut_off": answer.is_cut_off,
        "rejected_by": None,
        "error": answer.error,
    }
    if answer.error is not None:
        return record, []
    if not answer.caption:
        return record | {"error": "the answer is empty"}, []
    original = replace_surrogates(answer.caption)
    caption, rejected_by, changed = apply_rules(
        original, rules.rules, rules.min_words, rules.max_words, answer.is_cut_off
    )
    record |= {"caption": caption, "caption_hash": hash_caption(caption), "rejected_by": rejected_by}
    if changed:
        record["caption_before_rules"] = original
    return record, changed

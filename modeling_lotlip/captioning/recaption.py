# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions for the images of a data set by one or several captioners; a stopped run resumes where it stopped."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from accelerate.utils import gather_object, set_seed
from datasets import Dataset
from tqdm.auto import tqdm

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.loading import get_columns, load_split
from ..data.rows import check_columns
from ..utils.files import read_lines
from ..utils.output_folder import OutputFolder
from ..utils.signals import StopSignal
from ..utils.terminal import progress_bar
from .arguments import CaptionerArguments, RecaptionArguments, RuleArguments
from .captioner import Answer, load_captioner
from .image_files import ImageFile, read_files
from .records import Records, open_database, summarize
from .rules import apply_rules


PROMPTS_FILE = Path(__file__).with_name("prompts.txt")


def recaption(
    source: SourceArguments,
    split: TrainSplitArguments,
    arguments: RecaptionArguments,
    captioning: CaptionerArguments,
    rules: RuleArguments,
    state: PartialState,
    tell: Callable[[str], None] = print,
) -> int:
    """
    Captions the images of a data set that fall to this process, by every captioner, and writes the records. All
    processes of `state` call it; `tell` is given what there is to say, line by line.

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
    num_images = len(dataset) if isinstance(dataset, Dataset) else split.max_train_samples
    num_images = None if num_images is None else round(num_images / state.num_processes)
    settings = list_compared(source, split, arguments, captioning, rules) | {"prompts": prompts}
    folder = OutputFolder(arguments.output_dir, settings, "captions") if state.is_main_process else nullcontext()
    with folder, StopSignal("The run ends; what is captioned is written.") as stop:
        state.wait_for_everyone()
        set_seed(captioning.seed + state.process_index)
        outcomes = []
        for name in arguments.captioner:
            captioner = load_captioner(name, captioning)
            with (
                open_database(arguments.output_dir) as reading,
                open_database(arguments.output_dir) as writing,
                progress_bar(total=num_images, desc=name, unit=" images", disable=not state.is_main_process) as bar,
            ):
                done = reading.execute("SELECT count(*) FROM records WHERE captioner = ?", (name,))
                bar.update(done.fetchone()[0] // state.num_processes)
                counts = Counter()
                options = (state, reading, counts, arguments.retry_failed)
                files = read_files(dataset, source, arguments.key_column, name, *options)
                files = (file._replace(prompt=draw_prompt(prompts, captioning.seed, file.key, name)) for file in files)
                records = Records(writing, arguments.output_dir, arguments.shard_size)
                about = {"captioner": name, "revision": captioner.revision}
                about["generation_settings"] = json.dumps(captioner.settings)
                answers = captioner.answer(files, stop.is_received)
                outcomes.append(record_answers(answers, about, rules, records, bar, counts))
            for what, number in counts.items():
                tell(f"{name}: {number} {what}.")
            if stop.is_received():
                return stop.number
        state.wait_for_everyone()
        outcomes = gather_object(outcomes)
        if state.is_main_process:
            tell(f"{arguments.output_dir} holds captions:")
            with open_database(arguments.output_dir) as reading:
                for line in summarize(reading):
                    tell(line)
        for name in arguments.captioner:
            refuse_failures([outcome for outcome in outcomes if outcome.captioner == name])
    return 0


def read_prompts(path: Path | None = None) -> list[str]:
    """
    The prompts in a file, by default those of the package, one in each line; lines that begin with `#` are none.

    Raises:
        `ValueError`: if there is no prompt, or the file cannot be read.
    """
    lines = read_lines(path or PROMPTS_FILE, "prompts_file")
    prompts = [line for line in lines if not line.startswith("#")]
    if not prompts:
        raise ValueError(f"`--prompts_file {path}` has no prompt: write one in each line.")
    return prompts


def draw_prompt(prompts: list[str], seed: int, key: str, captioner: str) -> str:
    """The prompt for an image, drawn anew for each captioner, the same in every run and process."""
    return random.Random(f"{seed} {captioner} {key}").choice(prompts)


class Outcome(NamedTuple):
    """How many images of a run a captioner was asked about in a process, on how many it failed, and why last."""

    captioner: str
    num_images: int
    num_failed: int
    error: str | None


def refuse_failures(outcomes: list[Outcome]) -> None:
    """Raises a `ValueError` if a captioner failed on every image in all processes."""
    num_images = sum(outcome.num_images for outcome in outcomes)
    if num_images and num_images == sum(outcome.num_failed for outcome in outcomes):
        error = next(outcome.error for outcome in outcomes if outcome.error)
        raise ValueError(
            f"`--captioner {outcomes[0].captioner}` failed on each of the {num_images} images of this run, last: "
            f"{error}. `--retry_failed` tries them again."
        )


def list_compared(source: SourceArguments, *others: object) -> dict:
    """What captions depend on, and must be the same in every run that adds some to a folder."""
    compared = {name: getattr(source, name) for name in ("data_dir", "data_files")}
    for arguments in (source, *others):
        names = [field.name for field in fields(arguments) if field.metadata.get("compared_on_resume")]
        compared |= {name: getattr(arguments, name) for name in names}
    return compared


def record_answers(
    answers: Iterable[tuple[ImageFile, Answer]],
    about: dict,
    rules: RuleArguments,
    records: Records,
    bar: tqdm,
    counts: Counter,
) -> Outcome:
    """
    Applies the rules to answers as they come, and records them, whatever ends it.

    Args:
        answers (`Iterable[tuple[ImageFile, Answer]]`):
            Images with what the captioner answered.
        about (`dict`):
            The captioner, its revision and its settings, for every record.
        rules (`RuleArguments`):
            Which rules apply.
        records (`Records`):
            Where the captions go.
        bar (`tqdm`):
            Is advanced by one for each image.
        counts (`Counter`):
            Is given the counts of captions that each rule changed.

    Returns:
        `Outcome`: how many images there were, and on how many the captioner failed.
    """
    num_images = 0
    num_failed = 0
    last_error = None
    try:
        for file, answer in answers:
            outcome, changed = apply_rules_to_answer(answer, rules)
            image = {"key": file.key, "url": file.url, "sha256": file.sha256, "prompt": file.prompt}
            records.add(image | about | outcome | {"num_tokens": answer.num_tokens})
            counts.update(f"captions of this run were changed by the rule {rule}" for rule in changed)
            num_images += 1
            if outcome["error"] is not None:
                num_failed += 1
                last_error = outcome["error"]
            bar.update()
    finally:
        records.write()
    return Outcome(about["captioner"], num_images, num_failed, last_error)


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
        "is_cut_off": answer.is_cut_off,
        "rejected_by": None,
        "error": answer.error,
    }
    if answer.error is not None:
        return record, []
    if not answer.caption:
        return record | {"error": "the answer is empty"}, []
    caption, rejected_by, changed = apply_rules(
        answer.caption, rules.rules, rules.min_words, rules.max_words, answer.is_cut_off
    )
    record |= {"caption": caption, "rejected_by": rejected_by}
    if changed:
        record["caption_before_rules"] = answer.caption
    return record, changed

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions for the images of a data set by one or several captioners; a stopped run resumes where it stopped."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from typing import NamedTuple

from accelerate import PartialState
from accelerate.utils import gather_object, set_seed
from datasets import Dataset
from tqdm.auto import tqdm

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.loading import get_columns, load_split
from ..data.rows import check_columns
from ..output_folder import OutputFolder
from ..signals import StopSignal
from ..terminal import progress_bar
from .arguments import CaptionerArguments, RecaptionArguments, RuleArguments
from .captioner import Answer, Captioner, load_captioner
from .image_files import ImageFile, read_files
from .prompts import draw_prompt, read_prompts
from .records import Records, SeenKeys, count_records, find_captioner, open_database, summarize
from .rules import apply_rules, keep_whole_sentences


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
    Captions the images of a data set that fall to this process, by every captioner, and writes the records.

    Args:
        source (`SourceArguments`):
            The data set.
        split (`TrainSplitArguments`):
            Its split.
        arguments (`RecaptionArguments`):
            The captioners, the prompts and the output folder.
        captioning (`CaptionerArguments`):
            How the captioners run and generate.
        rules (`RuleArguments`):
            The rules that captions go through.
        state (`PartialState`):
            The processes, all of which call this function.
        tell (`Callable[[str], None]`, *optional*, defaults to `print`):
            Is given what there is to say, line by line.

    Returns:
        `int`: the number of the signal that ended it, 0 if none did.

    Raises:
        `ValueError`: if the folder has captions of other data or settings, or another run writes to it; if two
            different images have the same key; if there is no such captioner, its server is gone, or it fails on
            every image.
    """
    prompts = arguments.prompt or read_prompts(arguments.prompts_file)
    dataset = load_split(source, split.train_split, split.max_train_samples)
    check_columns(get_columns(dataset), key_column=arguments.key_column)
    num_images = len(dataset) if isinstance(dataset, Dataset) else split.max_train_samples
    num_images = None if num_images is None else round(num_images / state.num_processes)
    settings = list_compared(source, split, arguments, captioning, rules) | {"rules": rules.read(), "prompts": prompts}
    folder = OutputFolder(arguments.output_dir, settings, "captions") if state.is_main_process else nullcontext()
    with folder, StopSignal("The run ends; what is captioned is written.") as stop:
        num_done = count_records(arguments.output_dir)  # before any process adds some
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
                about = describe_captioner(name, captioner)
                refuse_other_captioner(find_captioner(reading, name), about)
                bar.update(num_done[name] // state.num_processes)
                seen, counts = SeenKeys(reading, arguments.retry_failed), Counter()
                files = read_files(dataset, source, arguments.key_column, name, state, seen, counts)
                answers = captioner.answer(with_prompts(files, prompts, captioning.seed, name), stop.is_received)
                records = Records(writing, arguments.output_dir, arguments.shard_size)
                outcomes.append(record_answers(answers, about, rules.read(), records, bar, counts))
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


def describe_captioner(name: str, captioner: Captioner) -> dict:
    """What the records of a captioner say of it."""
    settings = json.dumps(captioner.settings)
    return {"captioner": name, "revision": captioner.revision, "generation_settings": settings}


def refuse_other_captioner(recorded: dict | None, about: dict) -> None:
    """Raises a `ValueError` if the last record of a captioner is by another revision or with other settings."""
    names = [name for name in about if recorded is not None and recorded[name] != about[name]]
    if names:
        changes = ", ".join(f"{name} = {recorded[name]}, this run has {about[name]}" for name in names)
        raise ValueError(
            f"`--output_dir` holds captions by `--captioner {about['captioner']}` with {changes}. Name the same "
            "revision (ID@REVISION) and settings (such as `--dtype`), or another folder."
        )


def with_prompts(files: Iterable[ImageFile], prompts: list[str], seed: int, captioner: str) -> Iterator[ImageFile]:
    """Images with the prompt that is drawn for each."""
    for file in files:
        yield file._replace(prompt=draw_prompt(prompts, seed, file.key, captioner))


def record_answers(
    answers: Iterable[tuple[ImageFile, Answer]],
    about: dict,
    rules: dict[str, int | None],
    records: Records,
    bar: tqdm,
    counts: Counter,
) -> Outcome:
    """Applies the rules to answers as they come, and records them, whatever ends it; counts what the rules changed."""
    num_images, num_failed, num_tokens, last_error, start = 0, 0, 0, None, time.perf_counter()
    try:
        for file, answer in answers:
            outcome, changed = apply_rules_to_answer(answer, file.prompt, rules)
            image = {"key": file.key, "url": file.url, "sha256": file.sha256, "prompt": file.prompt}
            records.add(image | about | outcome | {"num_tokens": answer.num_tokens})
            counts.update(f"captions of this run were changed by the rule {rule}" for rule in changed)
            num_images += 1
            num_failed += outcome["error"] is not None
            last_error = outcome["error"] or last_error
            num_tokens += answer.num_tokens or 0
            bar.set_postfix_str(f"{num_tokens / (time.perf_counter() - start):.0f} tokens/s", refresh=False)
            bar.update()
    finally:
        records.write()
    return Outcome(about["captioner"], num_images, num_failed, last_error)


def apply_rules_to_answer(answer: Answer, prompt: str, rules: dict[str, int | None]) -> tuple[dict, list[str]]:
    """The caption of an answer or why there is none, with the rule that rejects it; and the rules that changed it."""
    if answer.error is not None or not answer.caption:
        error = answer.error or "the answer is empty"
        return {"caption": None, "rejected_by": None, "error": error}, []
    caption, changed = answer.caption, []
    if answer.is_cut_off:
        caption = keep_whole_sentences(answer.caption)
        if not caption:
            return {"caption": answer.caption, "rejected_by": "cut_off", "error": None}, []
        changed = ["cut_off"] * (caption != answer.caption)
    caption, rejected_by, changed_by = apply_rules(caption, prompt, rules)
    changed = list(dict.fromkeys(changed + changed_by))
    return {"caption": caption, "rejected_by": rejected_by, "error": None}, changed

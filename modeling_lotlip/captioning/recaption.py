# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions for the images of a data set by one or several captioners; a stopped run resumes where it stopped."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import set_seed
from datasets import Dataset
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.loading import get_columns, load_split
from ..data.rows import check_columns
from ..files import refuse_other_settings, write_json
from ..signals import StopSignal
from ..terminal import progress_bar
from .arguments import CaptionerArguments, RecaptionArguments, RuleArguments
from .captioner import Answer, Captioner, load_captioner
from .photos import Photo, Photos
from .prompts import draw_prompt, read_prompts
from .records import Records, commit_journals, list_journals, list_shards, remove_failed
from .rules import apply_rules


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
            different images have the same key; if there is no such captioner, or its server is gone.
    """
    prompts = arguments.prompt or read_prompts(arguments.prompts_file)
    dataset = load_split(source, split.train_split, split.max_train_samples)
    check_columns(get_columns(dataset), key_column=arguments.key_column)
    num_images = len(dataset) if isinstance(dataset, Dataset) else split.max_train_samples
    num_images = None if num_images is None else round(num_images / state.num_processes)
    with lock_folder(arguments.output_dir) if state.is_main_process else nullcontext():
        if state.is_main_process:
            settings = list_compared(source, split, arguments, captioning, rules)
            settings |= {"rules": rules.read(), "prompts": prompts}
            prepare_folder(arguments.output_dir, settings)
            if arguments.retry_failed:
                num_removed = remove_failed(arguments.output_dir, arguments.captioner)
                tell(f"{num_removed} failures are tried again.")
        state.wait_for_everyone()
        set_seed(captioning.seed + state.process_index)
        records = Records(arguments.output_dir, arguments.shard_size, state)
        photos = Photos(dataset, source, arguments.key_column, state, records.known)
        with StopSignal("The run ends; what is captioned is written.") as stop:
            for name in arguments.captioner:
                captioner = load_captioner(name, captioning)
                asked = with_prompts(photos.read(name), prompts, captioning.seed, name)
                answers = captioner.answer(asked, stop.is_received)
                is_silent = not state.is_local_main_process
                with progress_bar(
                    total=num_images, initial=records.known.count(name), desc=name, unit=" images", disable=is_silent
                ) as bar:
                    num_changed = record_answers(answers, name, captioner, rules, records, bar)
                if num_changed:
                    tell(f"{name}: rules cleaned captions of this run: {dict(num_changed)}.")
                if stop.is_received():
                    return stop.number
                for line in photos.describe_keys():
                    tell(f"{name}: {line}")
        state.wait_for_everyone()
    return 0


@contextmanager
def lock_folder(output_dir: Path) -> Iterator[None]:
    """
    Keeps other runs out of a folder. A folder that is made here is removed again after an error before any caption.

    Raises:
        `ValueError`: if another run is in it.
    """
    is_new = not output_dir.exists()
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"Another run writes to `--output_dir {output_dir}`: wait for it, or end it.") from error
    try:
        yield
    except BaseException:
        if is_new and not list_shards(output_dir) and not list_journals(output_dir):
            shutil.rmtree(output_dir)
        raise
    finally:
        lock.release()


def list_compared(source: SourceArguments, *others: object) -> dict:
    """What captions depend on, and must be the same in every run that adds some to a folder."""
    compared = {name: getattr(source, name) for name in ("data_dir", "data_files")}
    for arguments in (source, *others):
        names = [field.name for field in fields(arguments) if field.metadata.get("compared_on_resume")]
        compared |= {name: getattr(arguments, name) for name in names}
    return compared


def prepare_folder(output_dir: Path, settings: dict) -> None:
    """
    Notes in a folder what its captions depend on, or compares it with what an earlier run noted; makes shards of
    what a killed run left, and removes what it left half-written.

    Raises:
        `ValueError`: if its captions are of other data, or were made with other settings.
    """
    path = output_dir / "settings.json"
    if list_shards(output_dir) or list_journals(output_dir):
        noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        refuse_other_settings(noted, settings, output_dir, "captions")
    else:
        write_json(path, settings)
    for torn in output_dir.glob("*.parquet.partial"):
        torn.unlink()
    commit_journals(output_dir)


def with_prompts(photos: Iterable[Photo], prompts: list[str], seed: int, captioner: str) -> Iterator[Photo]:
    """Images with the prompt that is drawn for each."""
    for photo in photos:
        yield photo._replace(prompt=draw_prompt(prompts, seed, photo.key, captioner))


def record_answers(
    answers: Iterable[tuple[Photo, Answer]],
    name: str,
    captioner: Captioner,
    rules: RuleArguments,
    records: Records,
    bar: tqdm,
) -> Counter:
    """Applies the rules to answers as they come, and records them, whatever ends it; counts the edits by rule."""
    num_tokens, num_changed, start = 0, Counter(), time.perf_counter()
    about = {"captioner": name, "revision": captioner.revision}
    about |= {"generation_settings": json.dumps(captioner.settings)}
    try:
        for photo, answer in answers:
            outcome, changed = apply_rules_to_answer(photo, answer, rules)
            image = {"key": photo.key, "url": photo.url, "sha256": photo.sha256, "prompt": photo.prompt}
            records.add(image | about | outcome | {"num_tokens": answer.num_tokens})
            num_changed.update(changed)
            num_tokens += answer.num_tokens or 0
            bar.set_postfix_str(f"{num_tokens / (time.perf_counter() - start):.0f} tokens/s", refresh=False)
            bar.update()
    finally:
        records.write()
    return num_changed


def apply_rules_to_answer(photo: Photo, answer: Answer, rules: RuleArguments) -> tuple[dict, list[str]]:
    """The caption of an answer or why there is none, with the rule that rejects it; and the rules that mended it."""
    if answer.error is not None or not answer.caption:
        error = answer.error or "the answer is empty"
        return {"caption": None, "rejected_by": None, "error": error}, []
    caption, rejected_by, changed = apply_rules(answer.caption, photo.prompt, rules.read(), rules.sub_caption_splitter)
    return {"caption": caption, "rejected_by": rejected_by, "error": None}, changed

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Long captions for any collection of images, by one or several captioners, in parquet files that training reads beside
the images; a stopped run goes on where it was.

    python examples/recaption.py --captioner llava --output_dir captions \
        --dataset_name imagefolder --data_dir my_photos
    accelerate launch examples/recaption.py --output_dir captions --captioner llava --captioner sharegpt4v \
        --dataset_name webdataset --data_files "shards/*.tar" --image_column jpg --streaming
    python examples/recaption.py --output_dir captions --captioner Qwen/Qwen2.5-VL-7B-Instruct \
        --endpoint http://localhost:8000/v1 --dataset_name imagefolder --data_dir my_photos
"""

import argparse
import importlib.util
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from datasets import Dataset, IterableDataset
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..captioning.local import PRESETS, Answer, LocalCaptioner
from ..captioning.photos import Photo, Photos, check_key_column
from ..captioning.prompts import PROMPTS_FILE, draw_prompt, read_prompts
from ..captioning.records import Records, list_shards, remove_failed, summarize
from ..captioning.rules import add_rule_arguments, apply_rules, read_rules
from ..data.arguments import HelpFormatter, add_data_arguments
from ..data.loading import load_split
from ..files import refuse_other_settings, write_json
from ..signals import StopSignal


def add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of captioning to `parser`."""
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the parquet files.")
    parser.add_argument(
        "--captioner",
        action="append",
        required=True,
        help=f"One of {', '.join(PRESETS)}, a Hub id (`ID@REVISION` for one of its revisions) or a folder of an "
        "image-text-to-text model, or with `--endpoint` the name of the model there. May be given several times.",
    )
    parser.add_argument(
        "--key_column",
        help="The column of the images' keys, such as `json.url` of shards. The image column itself: the SHA-256 of "
        "the image file. Default: `__key__` of shards, else the path of the image, else its SHA-256.",
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", nargs="+", help="What to ask; of several one is drawn for each image.")
    prompts.add_argument(
        "--prompts_file", type=Path, default=PROMPTS_FILE, help="A file of prompts, one in each line."
    )
    parser.add_argument("--shard_size", type=int, default=500, help="Captions in a file; a killed run loses fewer.")
    parser.add_argument("--retry_failed", action="store_true", help="Try those again that failed in earlier runs.")
    parser.add_argument("--seed", type=int, default=0, help="Of the draws of prompts, and of sampling.")

    group = parser.add_argument_group("generation", "Greedy if nothing is said.")
    group.add_argument("--max_new_tokens", type=int, default=512, help="The most tokens of a caption.")
    group.add_argument("--num_beams", type=int, default=1, help="Search with so many beams; not with --endpoint.")
    group.add_argument("--temperature", type=float, help="Sample with this temperature.")
    group.add_argument("--top_p", type=float, help="Sample among the likeliest tokens that have this probability.")
    group.add_argument("--repetition_penalty", type=float, help="Above 1 against repetition.")

    group = parser.add_argument_group("models that run here")
    group.add_argument("--batch_size", type=int, default=8, help="Images in a batch, for each process.")
    group.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="Default: bfloat16, on a CPU float32."
    )
    group.add_argument("--device", help="Such as `cpu` or `cuda:0`; by default an accelerator if there is one.")
    group.add_argument("--trust_remote_code", action="store_true", help="Run the code that comes with the model.")

    group = parser.add_argument_group("models behind a server")
    group.add_argument(
        "--endpoint",
        help="The URL of an OpenAI-compatible server, up to /v1; its key is read from OPENAI_API_KEY.",
    )
    group.add_argument("--concurrency", type=int, default=32, help="Requests at a time, for each process.")
    group.add_argument("--timeout", type=float, default=120.0, help="Seconds to wait for an answer.")
    group.add_argument("--max_retries", type=int, default=6, help="How often a failed request is sent again.")
    group.add_argument("--max_image_size", type=int, help="Send images with at most so many pixels on a side.")

    add_rule_arguments(parser)


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program, with usage, at arguments that cannot be."""
    for name in ("batch_size", "shard_size", "max_new_tokens", "num_beams", "concurrency", "max_image_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"`--{name} {value}` must be at least 1.")
    if args.temperature is not None and args.temperature <= 0:
        parser.error(f"`--temperature {args.temperature}` must be above 0: leave it out for greedy captions.")
    if args.top_p is not None and args.temperature is None:
        parser.error("`--top_p` is for sampling: give a `--temperature`, such as 1.0, too.")
    if args.endpoint is not None and args.num_beams > 1:
        parser.error("`--num_beams` is not in the servers' interface: leave it out with `--endpoint`.")
    if len(set(args.captioner)) < len(args.captioner):
        parser.error(f"`--captioner` is given twice: {' '.join(args.captioner)}.")
    try:
        args.rules = read_rules(args.rules, args.without_rule)
    except ValueError as error:
        parser.error(str(error))


def generation_settings(args: argparse.Namespace) -> dict:
    """How captions are generated, in the terms of `generate`, or of a server's requests."""
    sampling = {"temperature": args.temperature, "top_p": args.top_p}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    penalty = {} if args.repetition_penalty is None else {"repetition_penalty": args.repetition_penalty}
    if args.endpoint is not None:
        extra = {"extra_body": penalty} if penalty else {}  # vLLM and SGLang know it, OpenAI's interface does not
        return {"max_tokens": args.max_new_tokens, "temperature": 0.0, **sampling, **extra, "seed": args.seed}
    settings = {"max_new_tokens": args.max_new_tokens, "num_beams": args.num_beams}
    return {**settings, "do_sample": args.temperature is not None, **sampling, **penalty}


def check_settings(args: argparse.Namespace) -> None:
    """
    Notes in the output folder what its captions depend on, or compares with what an earlier run noted.

    Raises:
        `ValueError`: if they are of other data or were made with other settings.
    """
    names = "dataset_name dataset_config_name data_dir data_files train_split image_column key_column seed"
    names += " max_new_tokens num_beams temperature top_p repetition_penalty max_image_size rules sub_caption_splitter"
    settings = {name: getattr(args, name) for name in names.split()} | {"prompts": args.prompts}
    path = args.output_dir / "settings.json"
    if not list_shards(args.output_dir):
        return write_json(path, settings)
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    refuse_other_settings(noted, settings, args.output_dir, "captions")


def prepare_folder(args: argparse.Namespace) -> None:
    """Makes the output folder ready for all processes."""
    check_settings(args)
    for torn in args.output_dir.glob("*.parquet.partial"):  # of a run that was killed
        torn.unlink()
    if args.retry_failed:
        print(f"{remove_failed(args.output_dir, args.captioner)} failures are tried again.", flush=True)


def lock(output_dir: Path) -> AbstractContextManager:
    """
    Keeps other runs out of the folder.

    Raises:
        `ValueError`: if another one is in it.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(output_dir / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"Another run writes to `--output_dir {output_dir}`: wait for it, or end it.") from error


def load_captioner(name: str, args: argparse.Namespace, state: PartialState):
    """
    The captioner that a value of `--captioner` names: a `LocalCaptioner` or an `EndpointCaptioner`.

    Raises:
        `ImportError`: if it is behind a server and openai is not installed.
    """
    settings = generation_settings(args)
    if args.endpoint is not None:
        if importlib.util.find_spec("openai") is None:
            raise ImportError("`--endpoint` needs openai: `pip install openai`.")
        from ..captioning.endpoint import EndpointCaptioner

        return EndpointCaptioner(name, args, settings)
    model_id, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    device = torch.device(args.device or state.device)
    return LocalCaptioner(PRESETS.get(model_id, model_id), revision or None, args, settings, device)


def make_record(
    photo: Photo, answer: Answer, captioner: str, revision: str | None, settings: str, args: argparse.Namespace
) -> tuple[dict, list[str]]:
    """The row of an image and a captioner, and the rules that mended the caption."""
    caption, error, rejected_by, changed = answer.caption, answer.error, None, []
    if error is None and not caption:
        error = "the answer is empty"
    if error is None:
        caption, rejected_by, changed = apply_rules(caption, photo.prompt, args.rules, args.sub_caption_splitter)
    record = {
        "key": photo.key,
        "url": photo.url,
        "sha256": photo.sha256,
        "caption": caption if error is None else None,
        "captioner": captioner,
        "revision": revision,
        "prompt": photo.prompt,
        "generation_settings": settings,
        "num_tokens": answer.num_tokens,
        "rejected_by": rejected_by,
        "error": error,
    }
    return record, changed


def caption_photos(
    name: str,
    photos: Photos,
    total: int | None,
    records: Records,
    args: argparse.Namespace,
    state: PartialState,
    stop: StopSignal,
) -> None:
    """Captions with one captioner the images that have no record of it."""
    captioner = load_captioner(name, args, state)
    settings = json.dumps(captioner.recorded)
    done = records.done.get(name, set())

    def with_prompts() -> Iterator[Photo]:
        for photo in photos.read(done):
            yield photo._replace(prompt=draw_prompt(args.prompts, args.seed, photo.key, name))

    num_tokens, num_changed, start = 0, Counter(), time.perf_counter()
    with tqdm(
        total=total, initial=len(done), desc=name, unit=" images", disable=not state.is_local_main_process
    ) as progress:
        for photo, answer in captioner.answers(with_prompts(), lambda: stop.number != 0):
            record, changed = make_record(photo, answer, name, captioner.revision, settings, args)
            records.add(record)
            num_changed.update(changed)
            num_tokens += answer.num_tokens or 0
            progress.set_postfix_str(f"{num_tokens / (time.perf_counter() - start):.0f} tokens/s", refresh=False)
            progress.update()
    if num_changed:
        print(f"{name}: rules mended captions of this run: {dict(num_changed)}.", flush=True)
    if stop.number == 0:
        for number, what in (
            (photos.num_repeated, "rows repeat an image, which is captioned once"),
            (photos.num_unnamed, f"images have no `--key_column {args.key_column}`, and their SHA-256 as key"),
        ):
            if number:
                print(f"{name}: {number} {what}.", flush=True)


def recaption(dataset: Dataset | IterableDataset, args: argparse.Namespace, state: PartialState) -> int:
    """
    Captions the images of this process by every captioner, and writes the records.

    Returns:
        `int`: the number of the signal that ended it, 0 if none did.
    """
    records = Records(args, state.process_index)
    photos = Photos(dataset, args, state, records.digests)
    records.read(photos.falls_here)
    total = args.max_train_samples
    if isinstance(dataset, Dataset):
        total = len(dataset)
    total = None if total is None else round(total / state.num_processes)
    with StopSignal("The run ends; what is captioned is written.") as stop:
        for name in args.captioner:
            try:
                caption_photos(name, photos, total, records, args, state, stop)
            finally:
                records.write()
            if stop.number:
                break
    return stop.number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_data_arguments(parser)
    add_caption_arguments(parser)
    args = parser.parse_args()
    check_arguments(parser, args)
    args.prompts = args.prompt or read_prompts(args.prompts_file)

    # a process that is ready early waits for the last one
    state = PartialState(cpu=args.device == "cpu", timeout=timedelta(days=7))
    dataset = load_split(args, args.train_split, args.max_train_samples)
    check_key_column(dataset, args.key_column)
    with lock(args.output_dir) if state.is_main_process else nullcontext():
        if state.is_main_process:
            prepare_folder(args)
        state.wait_for_everyone()
        set_seed(args.seed + state.process_index)
        stop_number = recaption(dataset, args, state)
        if stop_number:
            print(f"Stopped by {signal.Signals(stop_number).name}. Go on with the same command.", flush=True)
            sys.exit(128 + stop_number)
        state.wait_for_everyone()
    if state.is_main_process:
        print(f"{args.output_dir} holds captions:\n{summarize(args.output_dir)}")


if __name__ == "__main__":
    main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[mteb]"]
# ///
"""
Image-text tasks of MTEB, the benchmark of embeddings, for one or several models: one table.

    python examples/evaluate_on_mteb.py --model_name_or_path outputs/demo --output_dir outputs/mteb \
        --tasks compositionality Flickr30kI2TRetrieval Flickr30kT2IRetrieval

Besides the names of tasks there are those of suites:

    long-text          DCI, IIW, Urban1k, ShareGPT4V, which MTEB does not have: their files are in --data_root
    compositionality   SugarCrepe, Winoground, ARO, ImageCoDe
    multilingual       Crossmodal-3600, Multi30k

MTEB downloads the data of its own tasks from the Hub, or reads a copy in `--data_root/ORGANIZATION/NAME`. Results are
kept in `--output_dir`; those of the same model, and of the same files in `--data_root`, are not computed again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import mteb
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.results import ModelResult
from mteb.types import PromptType
from torch.utils.data import DataLoader

from modeling_lotlip import DualEncoder
from modeling_lotlip.data.rows import batched
from modeling_lotlip.encoder.arguments import InferenceArguments, ModelsArguments, OutputArguments
from modeling_lotlip.encoder.dual_encoder import IMAGES_PER_BATCH, find_models, load_encoder
from modeling_lotlip.evaluation.mteb_tasks import TASKS
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.utils.files import write_results
from modeling_lotlip.utils.markdown import format_markdown


SUITES = {
    "long-text": list(TASKS),
    "compositionality": [
        "SugarCrepe",
        "Winoground",
        "AROVisualAttribution",
        "AROVisualRelation",
        "AROCocoOrder",
        "AROFlickrOrder",
        "ImageCoDe",
    ],
    "multilingual": ["XM3600T2IRetrieval", "XM3600I2TRetrieval", "Multi30kT2IRetrieval", "Multi30kI2TRetrieval"],
}


@dataclass
class MtebArguments(Arguments):
    """What is evaluated, and where the results are kept."""

    tasks: list[str] = argument(help=f"Names of MTEB's tasks, or of suites: {', '.join(SUITES)}.")
    output_dir: Path = argument(help="Where MTEB keeps the results.")
    data_root: Path | None = argument(
        None,
        "A folder with one for each benchmark (such as `dci`) and with copies of datasets of the Hub.",
    )
    languages: list[str] | None = argument(
        None,
        "Of multilingual tasks only these, such as `deu eng`. Default: all.",
    )


class MtebEncoder(AbsEncoder):
    """
    A dual encoder as MTEB calls one.

    Args:
        encoder ([`DualEncoder`]): Embeds texts and images.
        meta (`ModelMeta`): What MTEB notes of the model.
    """

    def __init__(self, encoder: DualEncoder, meta: ModelMeta):
        self.encoder = encoder
        self.mteb_model_meta = meta

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """
        Embeds texts or images. The model has no prompts: task, split and `prompt_type` change nothing.

        Args:
            inputs (`DataLoader`):
                Batches with a list under `text` or `image`.
            task_metadata (`TaskMetadata`):
                The task that is evaluated.
            hf_split (`str`):
                The split that is evaluated.
            hf_subset (`str`):
                The subset that is evaluated.
            prompt_type (`PromptType`, *optional*):
                Whether these are queries or documents.
            kwargs (`Any`):
                MTEB's `encode_kwargs`, of which the `batch_size` of images is used.

        Returns:
            `torch.Tensor` of shape `(rows, dim)`: normalized, in float32.

        Raises:
            `ValueError`: if a row has both, which a dual encoder does not embed as one.
        """
        names = {"text", "image"} & set(inputs.dataset.features)
        if names == {"image"}:
            # MTEB's own batches of images may have one each
            images = chain.from_iterable(batch["image"] for batch in inputs)
            embeds = []
            for batch in batched(images, kwargs.get("batch_size", IMAGES_PER_BATCH)):
                embeds.append(self.encoder.encode_image(batch, len(batch), convert_to_tensor=True))
            return torch.cat(embeds)
        if names == {"text"}:
            texts = []
            for batch in inputs:
                texts += batch["text"]
            # as `lotlip evaluate` embeds them: a model of your own may embed long captions in another way
            return self.encoder.encode_text(texts, convert_to_tensor=True, is_long=task_metadata.name in TASKS)
        raise ValueError(
            f"--tasks {task_metadata.name} has rows of {sorted(inputs.dataset.features)}, and a dual encoder embeds a "
            "text or an image alone: leave it out."
        )


def load_mteb_encoder(name: str, arguments: InferenceArguments | None = None) -> MtebEncoder:
    """
    Loads a model for `mteb.evaluate`. Its name in the results is the Hub id, or `local/FOLDER`. Its revision is that
    on the Hub, or a hash of all that embeddings depend on: of a model in a folder, since another one may have been in
    a folder of this name, and of one that is not run in float32 at its own limits.

    Args:
        name (`str`):
            A dual encoder, a Hub id or a folder.
        arguments ([`InferenceArguments`], *optional*):
            How it is run.

    Raises:
        `ValueError`: if it is no dual encoder, or compares tokens and so has no single embedding of a text.
    """
    arguments = arguments or InferenceArguments()
    encoder = load_encoder(name, arguments)
    encoder.check_single_embeddings()
    is_as_published = (
        arguments.dtype == "float32"
        and arguments.backend in (None, "torch")
        and arguments.max_length is None
        and arguments.truncate_dim is None
    )
    revision = encoder.revision
    if revision is None or not is_as_published:
        revision = hash_settings(encoder)
    meta = ModelMeta.create_empty(
        {
            "name": name_for_mteb(name),
            "revision": revision,
            "embed_dim": encoder.dim,
            "max_tokens": encoder.max_length,
            "modalities": ["image", "text"],
            "similarity_fn_name": ScoringFunction.COSINE,
        }
    )
    return MtebEncoder(encoder, meta)


def hash_settings(encoder: DualEncoder) -> str:
    """Returns a hash of what embeddings of an encoder depend on: weights, processor, precision, limits."""
    settings = encoder.settings()
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def note_data(encoder: MtebEncoder, data_hash: str | None) -> MtebEncoder:
    """Returns an encoder whose results MTEB keeps by a hash of data, too, as those of an experiment."""
    if data_hash is None:
        return encoder
    meta = encoder.mteb_model_meta.model_copy(update={"experiment_kwargs": {"data": data_hash}})
    return MtebEncoder(encoder.encoder, meta)


def hash_data(task: mteb.AbsTask) -> str | None:
    """Returns a hash of the files that a task reads from a folder, `None` if they are on the Hub."""
    if task.metadata.name in TASKS:
        return hash_files(Path(task.data_dir))
    path = Path(task.metadata.dataset["path"])
    return hash_files(path) if path.is_dir() else None


@contextmanager
def own_cache(data_hash: str | None) -> Iterator[None]:
    """Makes `datasets` keep what it reads by a hash of data: of two folders of one name it knows the first alone."""
    cache = datasets.config.HF_DATASETS_CACHE
    if data_hash is not None:
        datasets.config.HF_DATASETS_CACHE = Path(cache) / "copies" / data_hash
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = cache


def hash_files(folder: Path) -> str:
    """
    Returns a hash of the names, sizes and times of the files in a folder, also behind links. Hidden ones, in which
    downloads keep notes, do not count.
    """
    hasher = hashlib.sha256()
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        kept = [name for name in folders if not name.startswith(".")]
        # links may lead back
        folders[:] = sorted(name for name in kept if os.path.realpath(os.path.join(parent, name)) not in seen)
        for name in sorted(files):
            file = Path(parent, name)
            if name.startswith(".") or not file.is_file():
                continue
            status = file.stat()
            facts = [file.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns]
            hasher.update(json.dumps(facts).encode())
    return hasher.hexdigest()[:16]


def name_for_mteb(name: str) -> str:
    """Returns a Hub id as it is, of a folder `local/FOLDER`."""
    if Path(name).exists():
        return f"local/{Path(name).resolve().name}"
    return name


def expand_suites(names: list[str]) -> list[str]:
    """Returns names of tasks or of suites as those of tasks, each once."""
    tasks = []
    for name in names:
        tasks += SUITES.get(name, [name])
    return list(dict.fromkeys(tasks))


def load_tasks(
    names: list[str], data_root: Path | None = None, languages: list[str] | None = None
) -> list[mteb.AbsTask]:
    """
    Makes the tasks, without their data.

    Args:
        names (`list[str]`):
            Names of tasks or of suites.
        data_root (`Path`, *optional*):
            A folder with the benchmarks' folders, and with copies of datasets of the Hub by their ids.
        languages (`list[str]`, *optional*):
            Of multilingual tasks only these, such as `deu`.

    Raises:
        `ValueError`: if there is no such task, or it has none of the languages.
        `FileNotFoundError`: if the folder of a benchmark is not there.
    """
    tasks = []
    for name in expand_suites(names):
        if name in TASKS:
            task = TASKS[name](find_benchmark(data_root, TASKS[name].benchmark))
        else:
            task = find_task(name)
            if data_root is not None:
                use_copy(task, data_root)
        if task.metadata.is_multilingual and languages is not None:
            task.filter_languages(languages)
        tasks.append(task)
    return tasks


def use_copy(task: mteb.AbsTask, data_root: Path) -> None:
    """Makes a task read the copy of its dataset in a folder, if there is one."""
    path = data_root / task.metadata.dataset["path"]
    if path.is_dir():
        dataset = task.metadata.dataset | {"path": str(path)}
        task.metadata = task.metadata.model_copy(update={"dataset": dataset})


def find_benchmark(data_root: Path | None, name: str) -> Path:
    """
    Returns the folder of a benchmark.

    Raises:
        `FileNotFoundError`: if it is not there.
    """
    if data_root is None:
        raise FileNotFoundError(
            f"--data_root is not given: get the files of {name!r}, or name only tasks in --tasks whose files you have."
        )
    if not (data_root / name).is_dir():
        raise FileNotFoundError(
            f"--data_root {data_root} has no folder {name!r}: get the files of {name!r}, or name only tasks in "
            "--tasks whose files you have."
        )
    return data_root / name


def find_task(name: str) -> mteb.AbsTask:
    """
    Returns a task of MTEB.

    Raises:
        `ValueError`: if there is none.
    """
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise ValueError(f"--tasks {name}: {error.args[0]}") from error


def list_scores(tasks: list[mteb.AbsTask], results: ModelResult, model_name: str) -> list[dict]:
    """
    Returns the main score of a model, called `model_name`, on each task and language, from 0 to 1. Kept results may
    have other languages than those of the tasks, which are left out.
    """
    by_name = {task.metadata.name: task for task in tasks}
    rows = []
    for result in results:
        task = by_name[result.task_name]
        for scores_of_split in result.scores.values():
            for scores in scores_of_split:
                if scores["hf_subset"] not in task.hf_subsets:
                    continue
                rows.append(
                    {
                        "model": model_name,
                        "task": result.task_name,
                        "language": scores["hf_subset"],
                        "metric": task.metadata.main_score,
                        "score": scores["main_score"],
                    }
                )
    return rows


def format_scores(rows: list[dict]) -> str:
    """
    Returns a Markdown table with a line for each task and language and a column for each model, in %; empty where a
    model has no result.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    scores_by_line: dict[tuple, dict[str, str]] = {}
    for row in rows:
        line = (row["task"], row["language"], row["metric"])
        scores_by_line.setdefault(line, {})[row["model"]] = f"{100 * row['score']:.1f}"
    cells = []
    for line, scores in scores_by_line.items():
        cells.append([*line, *(scores.get(model, "") for model in models)])
    return format_markdown(["task", "language", "metric", *models], cells)


def main() -> None:
    models, args, output = parse((ModelsArguments, MtebArguments, OutputArguments), description=__doc__)
    tasks = load_tasks(args.tasks, args.data_root, args.languages)
    data_hashes = [hash_data(task) for task in tasks]
    rows = []
    paths = find_models(models.model_name_or_path)
    names = [name_for_mteb(path) for path in paths]
    if len(set(names)) < len(names):  # several folders of one name
        names = paths
    for path, name in zip(paths, names):
        encoder = load_mteb_encoder(path, models)
        for task, data_hash in zip(tasks, data_hashes):
            with own_cache(data_hash):
                results = mteb.evaluate(
                    note_data(encoder, data_hash),
                    task,
                    encode_kwargs={"batch_size": models.batch_size},
                    cache=mteb.ResultCache(args.output_dir),
                )
            rows += list_scores([task], results, name)
    table = format_scores(rows)
    print(table)
    if output.output_file is not None:
        write_results(output.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    with exit_on_error("evaluate_on_mteb.py"):
        main()

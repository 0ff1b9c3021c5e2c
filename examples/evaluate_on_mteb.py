# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Image-text tasks of MTEB, the benchmark of embeddings, for one or several models: one table.

    python examples/evaluate_on_mteb.py --model_name_or_path outputs/demo --output_dir outputs/mteb \
        --tasks compositionality Flickr30kI2TRetrieval Flickr30kT2IRetrieval

Besides the names of tasks there are those of suites:

    long-text          DCI, IIW, Urban1k, ShareGPT4V, which MTEB does not have: their files are in --data_root
    compositionality   SugarCrepe, Winoground, ARO, ImageCoDe
    multilingual       Crossmodal-3600, Multi30k

MTEB downloads the data of its own tasks from the Hub, or reads a copy in `--data_root/ORGANIZATION/NAME`. Results are
kept in `--output_dir`; those of the same model that are there are not computed again.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import mteb
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.results import ModelResult
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig

import modeling_lotlip  # noqa: F401 registers LoTLIP with the Auto classes
from modeling_lotlip.encoder.arguments import OutputArguments
from modeling_lotlip.encoder.models import check_single_embeddings, hash_weights
from modeling_lotlip.evaluation.mteb_tasks import TASKS
from modeling_lotlip.hub_lotlip import find_pretrained
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.utils.files import format_markdown, write_results


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
    model_name_or_path: list[str] = argument(help="Models, Hub ids or folders.", aliases=("--model",))
    tasks: list[str] = argument(help=f"Names of MTEB's tasks, or of suites: {', '.join(SUITES)}.")
    output_dir: Path = argument(help="Where MTEB keeps the results.")
    data_root: Path | None = argument(
        None, "A folder with one for each benchmark (such as `dci`) and with copies of data sets of the Hub."
    )
    languages: list[str] | None = argument(None, "Of multilingual tasks only these, such as `deu eng`. Default: all.")
    trust_remote_code: bool = argument(False, "Run the code that comes with the model.")
    device: str | None = argument(None, "Such as `cpu` or `cuda:0`. Default: an accelerator if there is one.")
    batch_size: int = argument(64, "Images or texts in a batch.", least=1)


def load_mteb_model(
    model_name_or_path: str, device: str | None = None, trust_remote_code: bool = False
) -> SentenceTransformerEncoderWrapper:
    """
    Loads a model for `mteb.evaluate`.

    Args:
        model_name_or_path (`str`):
            A LoTLIP model or another one that sentence-transformers loads, a Hub id or a folder.
        device (`str`, *optional*):
            Such as `cpu` or `cuda:0`; by default an accelerator if there is one.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether to run the code that comes with a model.

    Returns:
        `SentenceTransformerEncoderWrapper`: the model. Its name in the results is the Hub id, or `local/FOLDER`; its
        revision that on the Hub, or a hash of its weights and configurations.

    Raises:
        `ValueError`: if the model compares tokens, and so has no single embedding of a text or an image.
    """
    source = str(find_pretrained(model_name_or_path))
    check_single_embeddings(AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code))
    model = SentenceTransformer(source, device=device, trust_remote_code=trust_remote_code)
    wrapper = SentenceTransformerEncoderWrapper(model)
    changes = {"name": name_for_mteb(model_name_or_path), "modalities": model.modalities}
    if wrapper.mteb_model_meta.revision in (None, "no_revision_available") or Path(model_name_or_path).exists():
        # another model may have been in a folder of this name
        changes["revision"] = hash_model(model, Path(source))
    wrapper.mteb_model_meta = wrapper.mteb_model_meta.model_copy(update=changes)
    return wrapper


def hash_model(model: SentenceTransformer, folder: Path) -> str:
    """A hash of a model's weights and of the files beside them: configurations, vocabulary, code."""
    hashes = [hash_weights(model)]
    for path in sorted([*folder.glob("*"), *folder.glob("*/config.json")]):
        if path.suffix in (".json", ".jinja", ".model", ".py", ".txt"):
            hashes += [str(path.relative_to(folder)), path.read_bytes().hex()]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:32]


def name_for_mteb(model_name_or_path: str) -> str:
    """A Hub id, or `local/FOLDER`."""
    path = Path(model_name_or_path)
    return f"local/{path.resolve().name}" if path.exists() else model_name_or_path


def load_tasks(
    names: list[str], data_root: Path | None = None, languages: list[str] | None = None
) -> list[mteb.AbsTask]:
    """
    Makes the tasks, without their data.

    Args:
        names (`list[str]`):
            Names of tasks or of suites.
        data_root (`Path`, *optional*):
            A folder with the benchmarks' folders, and with copies of data sets of the Hub by their ids.
        languages (`list[str]`, *optional*):
            Of multilingual tasks only these, such as `deu`.

    Raises:
        `ValueError`: if there is no such task, or it has none of the languages.
        `FileNotFoundError`: if the folder of a benchmark is not there.
    """
    tasks = []
    for name in dict.fromkeys(name for suite in names for name in SUITES.get(suite, [suite])):
        if name in TASKS:
            task = TASKS[name](find_benchmark(data_root, TASKS[name].benchmark))
        else:
            task = find_task(name)
            path = data_root and data_root / task.metadata.dataset["path"]
            if path and path.is_dir():
                dataset = task.metadata.dataset | {"path": str(path)}
                task.metadata = task.metadata.model_copy(update={"dataset": dataset})
        if task.metadata.is_multilingual and languages is not None:
            task.filter_languages(languages)
        tasks.append(task)
    return tasks


def find_benchmark(data_root: Path | None, name: str) -> Path:
    """
    The folder of a benchmark.

    Raises:
        `FileNotFoundError`: if it is not there.
    """
    if data_root is None or not (data_root / name).is_dir():
        where = "is not given" if data_root is None else f"{data_root} has no folder {name!r}"
        raise FileNotFoundError(
            f"--data_root {where}: get the files of {name!r}, or name only tasks in --tasks whose files you have."
        )
    return data_root / name


def find_task(name: str) -> mteb.AbsTask:
    """
    A task of MTEB.

    Raises:
        `ValueError`: if there is none.
    """
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise ValueError(f"--tasks {name}: {error.args[0]}") from error


def list_scores(tasks: list[mteb.AbsTask], results: ModelResult, model_name: str) -> list[dict]:
    """
    The main score of a model, called `model_name`, on each task and language, from 0 to 1. Kept results may have other
    languages than those of the tasks, which are left out.
    """
    by_name = {task.metadata.name: task for task in tasks}
    return [
        {
            "model": model_name,
            "task": result.task_name,
            "language": scores["hf_subset"],
            "metric": by_name[result.task_name].metadata.main_score,
            "score": scores["main_score"],
        }
        for result in results
        for of_split in result.scores.values()
        for scores in of_split
        if scores["hf_subset"] in by_name[result.task_name].hf_subsets
    ]


def format_table(rows: list[dict]) -> str:
    """
    A Markdown table with a line for each task and language and a column for each model, in %; empty where a
    model has no result.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines: dict[tuple, dict[str, str]] = {}
    for row in rows:
        score = f"{100 * row['score']:.1f}"
        lines.setdefault((row["task"], row["language"], row["metric"]), {})[row["model"]] = score
    cells = [[*line, *(scores.get(model, "") for model in models)] for line, scores in lines.items()]
    return format_markdown(["task", "language", "metric", *models], cells)


def main() -> None:
    args, output = parse((MtebArguments, OutputArguments), description=__doc__)
    tasks = load_tasks(args.tasks, args.data_root, args.languages)
    rows = []
    paths = list(dict.fromkeys(args.model_name_or_path))
    names = [name_for_mteb(path) for path in paths]
    if len(set(names)) < len(names):  # several folders of one name
        names = paths
    for path, name in zip(paths, names):
        results = mteb.evaluate(
            load_mteb_model(path, args.device, args.trust_remote_code),
            tasks,
            encode_kwargs={"batch_size": args.batch_size},
            cache=mteb.ResultCache(args.output_dir),
        )
        rows += list_scores(tasks, results, name)
    table = format_table(rows)
    print(table)
    if output.output_file is not None:
        write_results(output.output_file, {"rows": rows}, table, rows)


if __name__ == "__main__":
    with exit_on_error("evaluate_on_mteb.py"):
        main()

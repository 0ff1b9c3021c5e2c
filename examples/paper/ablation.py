# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
The questions of the paper, answered by trainings: settings, each trained and evaluated with several seeds, on drawn
scenes or on captioned images.

    python examples/paper/ablation.py --output_dir outputs/ablation --groups corners captions --seeds 0 1 2
    python examples/paper/ablation.py --output_dir outputs/lamps --groups captions --data_dir LAMPS \
        --vision_model_name_or_path DINOV2 --text_model_name_or_path MINILM --cache_image_features --max_train_steps 30

A method of one's own against LoTLIP: a file that registers an objective, and perhaps has `GROUPS` as below.

    python examples/paper/ablation.py --output_dir outputs/mine --plugin mine.py --seeds 0 1 2

`--objective_options NAME=VALUE ...` go to the cells whose objective has the option: each value is a cell of its own.

Arguments that are not listed below go to the training, for every cell: a cell is a setting with a seed. `--data_dir`
is an `imagefolder` with the splits `train` and `test`, `caption` and `long_captions`. A cell is trained once, however
many groups it is in. Started again, the script resumes stopped cells and skips finished ones; started several times at
once, the processes share the cells. The output folder gets the tables (`results.md`, `results.json`), and in `cells`
the trained models.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import torch
from datasets import Dataset
from filelock import FileLock, Timeout

from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.evaluation.retrieval import embed_dataset, rank_captions
from modeling_lotlip.training.contents import hash_some_images, hash_texts
from modeling_lotlip.training.objectives import BUILT_IN_OBJECTIVES, OBJECTIVES
from modeling_lotlip.utils.arguments import exit_on_error
from modeling_lotlip.utils.files import hash_file, write_json, write_text
from modeling_lotlip.utils.markdown import format_markdown
from modeling_lotlip.utils.plugins import find_plugins, hash_plugin, load_plugin
from modeling_lotlip.utils.signals import StopSignal


Options = dict[str, int | float | str | bool | tuple[int | str, ...]]


@dataclass(frozen=True)
class Group:
    """
    Settings that are compared with each other.

    Args:
        question (`str`):
            The title of the table.
        settings (`dict[str, dict]`):
            By name, the arguments of the training in which they differ; True for one without a value, a tuple for one
            with several. Equal arguments are the same setting in all groups.
        gains (`list[tuple[str, str]]`):
            Pairs of names: the gain of the first one over the second is in the table.
    """

    question: str
    settings: dict[str, Options]
    gains: list[tuple[str, str]]


# ---------------------------------------------------------------------------------------------------------------------
# The settings

LOTLIP = {"num_corner_tokens": 2}  # short and long captions, all sub-captions, 126 tokens
NO_CORNERS = {"num_corner_tokens": 0}
SHORT_ONLY = NO_CORNERS | {"num_long_captions": 0}

GROUPS = {
    "corners": Group(
        "Number of corner tokens (the paper's Table 3)",
        {
            "0": NO_CORNERS,
            "1": {"num_corner_tokens": 1},
            "2": LOTLIP,
            "2, no mask": LOTLIP | {"no_corner_attention_mask": True},  # register tokens
            "3": {"num_corner_tokens": 3},
            "4": {"num_corner_tokens": 4},
        },
        [("1", "0"), ("2", "0"), ("3", "0"), ("4", "0"), ("2, no mask", "2")],
    ),
    "captions": Group(
        "Captions trained on (the paper's Table 2)",
        {
            "short": SHORT_ONLY,
            "long": NO_CORNERS | {"short_captions": "none"},
            "both": NO_CORNERS,
            "both, corners": LOTLIP,
        },
        [("both", "short"), ("both", "long"), ("both, corners", "both")],
    ),
    "sub_captions": Group(
        "Sub-captions of a long caption (the paper's Figure 2)",
        {
            "0": SHORT_ONLY,
            **{str(number): LOTLIP | {"num_sub_captions": number} for number in (1, 2, 3, 5)},
            "all": LOTLIP,
        },
        [("all", "0"), ("all", "1"), ("all", "3")],
    ),
    "max_length": Group(
        "Tokens of a text (the paper's Figure 4; `flops.py` counts their operations)",
        {
            **{str(number): LOTLIP | {"max_length": number} for number in (16, 32, 64, 96)},
            "126": LOTLIP,
        },
        [("126", "32"), ("126", "64")],
    ),
    "objectives": Group(
        "Objectives, on short captions alone and on both",
        {
            "CLIP, short": {"objective": "clip"},
            "CLIP, both": {"objective": "clip", "num_long_captions": 1},
            "LaCLIP, one of all": {"objective": "laclip"},
            "SigLIP, short": {"objective": "siglip"},
            "SigLIP, both": {"objective": "siglip", "num_long_captions": 1},
            "FILIP, short": {"objective": "filip"},
            "FILIP, both": {"objective": "filip", "num_long_captions": 1},
            "Long-CLIP": {"objective": "long_clip"},
            "LoTLIP": LOTLIP,
        },
        [(name, "CLIP, both") for name in ("SigLIP, both", "FILIP, both", "Long-CLIP", "LoTLIP")],
    ),
    "weights": Group(
        "Weights of short and long captions: what corner tokens bring beside the weight of three slots",
        {
            "0 corners, short 1/2": NO_CORNERS,
            "0 corners, short 1/4": NO_CORNERS | {"long_loss_weight": 3.0},
            "2 corners, short 1/4": LOTLIP,
            "2 corners, short 1/2": LOTLIP | {"short_loss_weight": 3.0},
        },
        [
            ("2 corners, short 1/4", "0 corners, short 1/4"),
            ("2 corners, short 1/2", "0 corners, short 1/2"),
            ("2 corners, short 1/2", "2 corners, short 1/4"),
        ],
    ),
    "matryoshka": Group(
        "Embeddings whose first numbers are trained to be embeddings too",
        {"whole": LOTLIP, "64, 32, 16, 8": LOTLIP | {"matryoshka_dims": (64, 32, 16, 8)}},
        [("64, 32, 16, 8", "whole")],
    ),
}

METRICS = {
    "long_i2t": "long I2T R@1",
    "long_t2i": "long T2I R@1",
    "short_i2t": "short I2T R@1",
    "short_t2i": "short T2I R@1",
}

TRAINING = [sys.executable, "-m", "lotlip", "train"]
QUERIES_FILE = "queries.json"
LOG_FILE = "train.log"
NUM_LOG_LINES = 15
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Cell:
    """
    A setting with a seed.

    Args:
        folder (`Path`):
            Where it is trained.
        words (`tuple[str, ...]`):
            The arguments of its training.
    """

    folder: Path
    words: tuple[str, ...]


def make_cell(output_dir: Path, options: Options, seed: int) -> Cell:
    """
    The cell of a setting and a seed.

    ```python
    >>> from pathlib import Path
    >>> from examples.paper.ablation import make_cell

    >>> cell = make_cell(Path("out"), {"num_corner_tokens": 2, "no_corner_attention_mask": True}, seed=1)
    >>> cell.folder.as_posix()
    'out/cells/no_corner_attention_mask,num_corner_tokens=2,seed=1'
    >>> " ".join(cell.words)
    '--no_corner_attention_mask --num_corner_tokens 2 --seed 1'
    ```"""
    names = []
    words = []
    for option, value in [*sorted(options.items()), ("seed", seed)]:
        if value is True:
            names.append(option)
            words.append(f"--{option}")
            continue
        values = list(map(str, value)) if isinstance(value, tuple) else [str(value)]
        names.append(f"{option}={'-'.join(values)}")
        words += [f"--{option}", *values]
    return Cell(output_dir / "cells" / ",".join(names), tuple(words))


def list_cells(output_dir: Path, groups: list[str], seeds: list[int]) -> list[Cell]:
    """All cells of some groups, each once; those of the first seed first, so that early tables are complete."""
    cells = {}
    for seed in seeds:
        for name in groups:
            for options in GROUPS[name].settings.values():
                cells[make_cell(output_dir, options, seed)] = None
    return list(cells)


# ---------------------------------------------------------------------------------------------------------------------
# Training and evaluation


def build_command(cell: Cell, train_args: list[str]) -> list[str]:
    """The command that trains a cell, or resumes it if it has a checkpoint."""
    is_resumed = any(cell.folder.glob("checkpoint-*"))
    start = ["--resume_from_checkpoint", "latest"] if is_resumed else ["--overwrite_output_dir"]
    return [*TRAINING, *train_args, *cell.words, "--output_dir", str(cell.folder), *start]


def train_cell(cell: Cell, train_args: list[str], stop: StopSignal) -> bool:
    """Trains a cell; prints the end of its log if it fails. At a signal it ends with a checkpoint."""
    command = build_command(cell, train_args)
    path = cell.folder / LOG_FILE
    with open(path, "a") as log:
        log.write(f"{shlex.join(command)}\n")
        log.flush()
        # a session of its own: Ctrl-C reaches it only from here
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        process = subprocess.Popen(command, **streams, start_new_session=True)
        is_told = False
        try:
            while process.poll() is None:
                if stop.number and not is_told:
                    process.terminate()
                    is_told = True
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
    if process.returncode != 0 and not is_told:
        lines = path.read_bytes().decode(errors="replace").rstrip().split("\n")[-NUM_LOG_LINES:]
        end = "\n".join("    " + line.rsplit("\r", 1)[-1] for line in lines)  # of a progress bar, its last state
        print(f"{cell.folder.name} ended with status {process.returncode}. The end of {path}:\n{end}", flush=True)
    return process.returncode == 0 and not is_told


def evaluate_cell(cell: Cell, dataset: Dataset) -> dict[str, list[float]]:
    """
    For each query of a kind of captions and a direction, such as `long_t2i`, the chance that its match is found first
    (`long_t2i`, 0 to 1), and the reciprocal of its rank (`long_t2i_mrr`).
    """
    encoder = load_encoder(str(cell.folder))
    reader = RowReader(dataset.column_names, CaptionArguments())
    embedded = embed_dataset(encoder, dataset, reader)
    queries = {}
    for kind, captions in embedded.captions.items():
        ranks = rank_captions(embedded.image_embeds, captions, device=encoder.device)
        for direction, of_direction in zip(("i2t", "t2i"), (ranks.image_to_text, ranks.text_to_image)):
            queries[f"{kind}_{direction}"] = of_direction.hits(1).tolist()
            queries[f"{kind}_{direction}_mrr"] = (1 / of_direction.expected_rank()).tolist()
    return queries


def read_queries(cell: Cell) -> dict[str, list[float]] | None:
    """What [`evaluate_cell`] measured; None if the cell is not done."""
    path = cell.folder / QUERIES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run_cells(cells: list[Cell], train_args: list[str], data_dir: str | None) -> tuple[list[str], int]:
    """
    Trains and evaluates the cells that are not done, one after the other. A cell that fails does not stop the others.

    Returns:
        `tuple[list[str], int]`: the names of cells that failed, and the number of the signal, 0 if there was none.
    """
    source = SourceArguments(dataset_name=None if data_dir is None else "imagefolder", data_dir=data_dir)
    dataset = load_split(source, "test")
    failed = []
    with StopSignal("The cell that is trained ends with a checkpoint.") as stop:
        for number, cell in enumerate(cells, start=1):
            if read_queries(cell) is not None or stop.number:
                continue
            cell.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(f"{cell.folder}.lock", timeout=0):
                    cell.folder.mkdir(exist_ok=True)
                    if train_cell(cell, train_args, stop):
                        queries = evaluate_cell(cell, dataset)
                        write_json(cell.folder / QUERIES_FILE, queries)
                        means = {name: 100 * statistics.fmean(queries[name]) for name in METRICS if name in queries}
                        results_line = ", ".join(f"{METRICS[name]} {mean:.1f}" for name, mean in means.items())
                        print(f"[{number}/{len(cells)}] {cell.folder.name}: {results_line}", flush=True)
                    elif not stop.number:
                        failed.append(cell.folder.name)
            except Timeout:
                print(f"{cell.folder.name} is being run by another process: left to it.", flush=True)
    return failed, stop.number


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def bootstrap(gains: torch.Tensor, draws: int = 10_000) -> tuple[float, float]:
    """
    The 95 % interval of the mean of the gains of queries (queries,), by a paired bootstrap.

    ```python
    >>> import torch
    >>> from examples.paper.ablation import bootstrap

    >>> bootstrap(torch.ones(20))
    (1.0, 1.0)
    ```"""
    generator = torch.Generator().manual_seed(0)
    means = gains[torch.randint(len(gains), (draws, len(gains)), generator=generator)].mean(dim=1)
    return tuple(torch.quantile(means, torch.tensor([0.025, 0.975])).tolist())


def summarize(runs: dict[int, dict[str, list[float]]]) -> dict[str, dict]:
    """
    Of each result in % the mean and the deviation over the seeds: the root of the unbiased variance, None for a
    single seed.

    ```python
    >>> from examples.paper.ablation import summarize

    >>> summarize({0: {"long_t2i": [1.0, 0.0]}, 1: {"long_t2i": [1.0, 1.0]}})
    {'long_t2i': {'mean': 75.0, 'deviation': 35.35533905932738}}
    ```"""
    found = {}
    for metric in next(iter(runs.values()), {}):
        values = [100 * statistics.fmean(queries[metric]) for queries in runs.values()]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        found[metric] = {"mean": statistics.fmean(values), "deviation": deviation}
    return found


def compare(one: dict[int, dict], other: dict[int, dict]) -> dict[str, dict]:
    """The gain of one setting over another, over the seeds that both have, with the interval of [`bootstrap`]."""
    seeds = sorted(set(one) & set(other))
    found = {}
    if not seeds:
        return found
    for metric in one[seeds[0]]:
        ours = torch.tensor([one[seed][metric] for seed in seeds]).float()
        theirs = torch.tensor([other[seed][metric] for seed in seeds]).float()
        of_query = 100 * (ours - theirs).mean(dim=0)
        found[metric] = {"gain": of_query.mean().item(), "interval": bootstrap(of_query)}
    return found


def collect(output_dir: Path, groups: list[str], seeds: list[int]) -> dict[str, dict]:
    """
    What is done of each group: `settings` with their `options`, the `seeds` that are done and the `results` of
    [`summarize`], and `gains` of [`compare`].
    """
    tables = {}
    for name in groups:
        runs = {}
        for setting, options in GROUPS[name].settings.items():
            done = {seed: read_queries(make_cell(output_dir, options, seed)) for seed in seeds}
            runs[setting] = {seed: queries for seed, queries in done.items() if queries is not None}
        tables[name] = {
            "settings": {
                setting: {
                    "options": GROUPS[name].settings[setting],
                    "seeds": list(of_setting),
                    "results": summarize(of_setting),
                }
                for setting, of_setting in runs.items()
            },
            "gains": [
                {"setting": one, "over": other, **compare(runs[one], runs[other])} for one, other in GROUPS[name].gains
            ],
        }
    return tables


def format_tables(name: str, table: dict) -> Iterator[str]:
    """The title of a group and its two Markdown tables, in %."""
    yield f"## {GROUPS[name].question}"
    rows = []
    for setting, row in table["settings"].items():
        means = [format_mean(row["results"].get(metric)) for metric in METRICS]
        rows.append([setting, *means, str(len(row["seeds"]))])
    yield format_markdown(["setting", *METRICS.values(), "seeds"], rows)
    shown = ("long_t2i", "short_t2i", "long_t2i_mrr", "short_t2i_mrr")
    rows = []
    for row in table["gains"]:
        if len(row) > 2:
            gains = [format_gain(row.get(metric)) for metric in shown]
            rows.append([f"{row['setting']} over {row['over']}", *gains])
    titles = ["gain (95 %)", "long T2I R@1", "short T2I R@1", "long T2I MRR", "short T2I MRR"]
    if rows:
        yield format_markdown(titles, rows)


def format_mean(result: dict | None) -> str:
    """Mean and deviation as a cell."""
    if result is None:
        return ""
    deviation = "" if result["deviation"] is None else f" ± {result['deviation']:.1f}"
    return f"{result['mean']:.1f}{deviation}"


def format_gain(result: dict | None) -> str:
    """A gain and its interval as a cell."""
    return "" if result is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(result["gain"], *result["interval"])


def write_tables(args: argparse.Namespace, train_args: list[str]) -> None:
    """Writes and prints the tables of what is done."""
    tables = collect(args.output_dir, args.groups, args.seeds)
    parts = []
    for name, table in tables.items():
        parts += format_tables(name, table)
    page = "\n\n".join(parts)
    print(f"\n{page}", flush=True)
    write_text(args.output_dir / "results.md", page + "\n")
    write_json(args.output_dir / "results.json", {"train_args": train_args, "groups": tables})


# ---------------------------------------------------------------------------------------------------------------------


def add_groups(path: Path) -> list[str]:
    """
    Adds the groups of a plugin, and gives their names: its `GROUPS`, or, where it has none, one by the name of the
    file, with each objective that it registers against LoTLIP.
    """
    plugin = load_plugin(path)
    if hasattr(plugin, "GROUPS"):
        groups = {name: Group(**fields) for name, fields in plugin.GROUPS.items()}
    else:
        new = [name for name in OBJECTIVES if name not in BUILT_IN_OBJECTIVES]
        if not new:
            raise ValueError(f"--plugin {path} registers no objective and has no `GROUPS`: add one of them.")
        settings = {"LoTLIP": LOTLIP} | {name: {"objective": name} for name in new}
        groups = {path.stem: Group(f"{', '.join(new)} against LoTLIP", settings, [(name, "LoTLIP") for name in new])}
    GROUPS.update(groups)
    return list(groups)


def find_objective(train_args: list[str]) -> str:
    """Finds the objective that the arguments of the trainings name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--objective", default="lotlip")
    return parser.parse_known_args(train_args)[0].objective


def add_objective_options(groups: list[str], words: list[str], default: str) -> None:
    """
    Adds options, such as `weight=0.5`, to the settings of some groups whose objective, by default the one of that
    name, has them, and that have no options of their own. Raises a `ValueError` for an option that no setting takes,
    or an objective that is not registered.
    """
    taken = set()
    for name in groups:
        settings = {}
        for setting, options in GROUPS[name].settings.items():
            settings[setting] = options
            name_of_objective = options.get("objective", default)
            if name_of_objective not in OBJECTIVES:
                raise ValueError(
                    f"The setting {setting!r} has the objective `{name_of_objective}`, which is not registered: name "
                    f"one of {', '.join(OBJECTIVES)}."
                )
            objective = OBJECTIVES[name_of_objective]
            known = objective.read_options([])
            chosen = [word for word in words if word.partition("=")[0] in known]
            if chosen and "objective_options" not in options:
                objective.read_options(chosen)  # says at once what is wrong
                settings[setting] = options | {"objective_options": tuple(chosen)}
                taken |= set(chosen)
        GROUPS[name] = replace(GROUPS[name], settings=settings)
    unknown = [word for word in words if word not in taken]
    if unknown:
        raise ValueError(
            f"--objective_options {' '.join(unknown)} is no option of any objective that is compared: leave it out."
        )


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """The arguments of this script, and those of the trainings."""
    default_groups = list(GROUPS)
    for path in find_plugins(sys.argv[1:]):
        default_groups = add_groups(Path(path))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="Where cells and tables go.")
    parser.add_argument("--data_dir", help="A folder of captioned images. Default: drawn scenes.")
    parser.add_argument("--plugin", type=Path, help="A file with an objective or `GROUPS` of your own.")
    parser.add_argument(
        "--objective_options",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="Of your objective.",
    )
    parser.add_argument("--groups", nargs="+", default=default_groups, choices=GROUPS, help="What to compare.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="The seeds of every setting.")
    args, train_args = parser.parse_known_args()
    args.groups = list(dict.fromkeys(args.groups))
    args.seeds = list(dict.fromkeys(args.seeds))
    add_objective_options(args.groups, args.objective_options, find_objective(train_args))
    set_here = {"seed", "overwrite_output_dir", "resume_from_checkpoint", "dataset_name"}
    for group in args.groups:
        for options in GROUPS[group].settings.values():
            set_here |= set(options)
    taken = sorted({f"--{name}" for name in set_here} & {word.split("=")[0] for word in train_args})
    if taken:
        parser.error(f"{', '.join(taken)}: this script sets it for every cell. Leave it out.")
    if args.data_dir is not None:
        train_args += ["--dataset_name", "imagefolder", "--data_dir", args.data_dir]
    if args.plugin is not None:
        train_args += ["--plugin", str(args.plugin)]
    return args, train_args


def describe_data(data_dir: str | None, train_args: list[str]) -> dict[str, list[str]]:
    """Hashes the captions and some images of both splits of a folder, and the files that arguments name."""
    described = {}
    for word in train_args:
        name = word.partition("=")[2] if word.startswith("--") else word
        names = [name] if Path(name).is_file() else sorted(glob(name, recursive=True))  # of captions, say
        described[word] = [hash_file(Path(name)) for name in names if Path(name).is_file()]
    if data_dir is None:  # drawn scenes
        return described
    for split in ("train", "test"):
        rows = load_split(SourceArguments(dataset_name="imagefolder", data_dir=data_dir), split)
        texts = [name for name in rows.column_names if name != "image"]
        described[split] = [hash_texts(rows, texts), hash_some_images(rows, ["image"])]
    return described


def check_train_args(
    output_dir: Path, train_args: list[str], plugin: Path | None = None, data_dir: str | None = None
) -> None:
    """
    Refuses to mix cells of different arguments, of another source of a plugin, or of other data, and notes those of a
    new folder.

    Args:
        output_dir (`Path`): The folder of the cells.
        train_args (`list[str]`): The arguments of the trainings.
        plugin (`Path`, *optional*): The file of an objective.
        data_dir (`str`, *optional*): The folder of captioned images. Default: drawn scenes.
    """
    path = output_dir / "train_args.json"
    plugin_hash = None if plugin is None else hash_plugin(plugin)
    told = {"train_args": train_args, "plugin": plugin_hash, "data": describe_data(data_dir, train_args)}
    if not path.exists():
        write_json(path, told)
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["train_args"] != train_args:
        raise ValueError(
            f"The cells in `--output_dir {output_dir}` were trained with `{shlex.join(earlier['train_args'])}`, not "
            f"with `{shlex.join(train_args)}`. Give the same arguments, or name another folder."
        )
    if earlier["plugin"] != told["plugin"]:
        raise ValueError(
            f"The cells in `--output_dir {output_dir}` were trained with another source of `--plugin {plugin}`. Name "
            "another folder."
        )
    if earlier != told:
        raise ValueError(
            f"The cells in `--output_dir {output_dir}` were trained on other images or captions, or with other files, "
            "than the arguments name now. Name another folder."
        )


def main() -> None:
    args, train_args = parse_args()
    cells = list_cells(args.output_dir, args.groups, args.seeds)
    check_train_args(args.output_dir, train_args, args.plugin, args.data_dir)
    failed, stop_number = run_cells(cells, train_args, args.data_dir)
    write_tables(args, train_args)
    if stop_number:
        print("Stopped. The same command resumes.", flush=True)
        sys.exit(128 + stop_number)
    if failed:
        sys.exit(f"{len(failed)} of {len(cells)} cells failed: {' '.join(failed)}. The same command tries them again.")


if __name__ == "__main__":
    with exit_on_error("ablation.py"):
        main()

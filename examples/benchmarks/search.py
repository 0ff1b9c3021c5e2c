# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[benchmarks]"]
# ///
"""
Search by texts in many images, each method in a process of its own (on Linux): the table of `lotlip embed` and
`lotlip search`; the same with its vectors in memory, as the page and the server hold a small one; exact search without
a table; and HNSW32 of faiss, of 200,000 vectors at most.

    python examples/benchmarks/search.py
    python examples/benchmarks/search.py --num_vectors 1000000 --methods table exact
    python examples/benchmarks/search.py --device cuda --methods exact
    python examples/benchmarks/search.py --filters --num_vectors 240000

The vectors have the modality gap of dual encoders: cosines of .45 between two images, .33 between a text and its
image, .23 between a text and another image. To open is what a program does once before it can search: the table is
opened, the vectors of the exact search are read, faiss builds its graph. Queries come one by one, then all at once.
Exact search runs on the CPU, and on `--device` too if that is another. Memory is what the process takes more at most
than after its imports, pages of files among it; on a GPU its own memory.

With --filters the table alone is measured, of two folders that have as many images and themes of their own: cosines of
.7 between images of one cluster, .5 of one theme, .4 of two. Queries are texts and images of each folder, under the
filter of the second one and without a filter.
"""

import importlib.util
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scaffold import BenchmarkArguments, peak_memory, set_up, write_results

from modeling_lotlip.encoder.arguments import STORAGE_DTYPES
from modeling_lotlip.table.conditions import in_folder
from modeling_lotlip.table.measurements import read_measurements
from modeling_lotlip.table.memory import MAX_BYTES, keep_in_memory
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.thresholds import maintain
from modeling_lotlip.table.vector_index import plan_search, search_many
from modeling_lotlip.table.vector_index import search as search_table
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


METHODS = ("table", "memory", "exact", "faiss")
CHUNK = 20_000
K = 10
# The folders of the measurement with filters, and the clusters of images in each
FOLDERS = ("boats", "houses")
CLUSTERS = 60
# Of how many vectors faiss builds a graph at most: that of a million takes minutes and 7 GB
MAX_GRAPH = 200_000
# Texts by which the parameters of the index are chosen
NUM_BACKGROUND = 64


@dataclass
class SearchArguments(BenchmarkArguments):
    """What is searched."""

    num_vectors: list[int] = argument([10_000, 100_000], "How many vectors.", least=50)
    width: int = argument(768, "Their dimension.", least=8)
    storage_dtype: str = argument("float16", "How the table stores a number.", choices=STORAGE_DTYPES)
    methods: list[str] = argument(list(METHODS), "What is measured.", choices=METHODS)
    queries: int = argument(200, "How many texts, or images, are searched for.", least=20)
    filters: bool = argument(False, "Measure the table with filters, in place of the methods.")


def normalize(vectors: torch.Tensor) -> torch.Tensor:
    """Normalizes vectors of shape `(..., dim)`."""
    return torch.nn.functional.normalize(vectors, dim=-1)


def draw_directions(count: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Draws normalized vectors of shape `(count, width)` at random."""
    return normalize(torch.randn(count, width, generator=generator))


def draw_pairs(num: int, width: int, seed: int, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Draws images, and a text for each.

    Args:
        num (`int`):
            How many.
        width (`int`):
            Their dimension.
        seed (`int`):
            The seed.
        centers (`torch.Tensor` of shape `(centers, width)`):
            All images are around the last one, and each around another one.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: both of shape `(num, width)`, normalized.
    """
    generator = torch.Generator().manual_seed(seed)
    near = centers[torch.randint(len(centers) - 1, (num,), generator=generator)]
    own = normalize(near + draw_directions(num, width, generator))
    images = 0.45**0.5 * centers[-1] + 0.55**0.5 * own
    texts = 0.343 * centers[-1] + 0.135 * own + 0.93 * draw_directions(num, width, generator)
    return normalize(images), normalize(texts)


@dataclass
class Theme:
    """
    What the images of a folder have in common.

    Args:
        gap (`torch.Tensor` of shape `(dim,)`):
            What all images have in common, normalized.
        direction (`torch.Tensor` of shape `(dim,)`):
            What those of the folder have in common, normalized.
        centers (`torch.Tensor` of shape `(CLUSTERS, dim)`):
            What those of a cluster have in common, normalized.
    """

    gap: torch.Tensor
    direction: torch.Tensor
    centers: torch.Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws images, and a text for each, both of shape `(count, dim)` and normalized."""
        width = len(self.gap)
        near = self.centers[torch.randint(len(self.centers), (count,), generator=generator)]
        noise = draw_directions(count, width, generator)
        own = normalize(0.2**0.5 * self.direction + 0.4**0.5 * near + 0.4**0.5 * noise)
        images = 0.4**0.5 * self.gap + 0.6**0.5 * own
        texts = 0.3 * self.gap + 0.3 * own + 0.9 * draw_directions(count, width, generator)
        return normalize(images), normalize(texts)


@dataclass
class Written:
    """
    A table that was written to be searched.

    Args:
        queries (`torch.Tensor` of shape `(queries, dim)`):
            Texts, normalized.
        seconds_to_write (`float`):
            How long the table took to write.
        seconds_to_build (`float`):
            How long it took to index and to measure.
    """

    queries: torch.Tensor
    seconds_to_write: float
    seconds_to_build: float


def write(folder: Path, num: int, args: "SearchArguments", has_table: bool) -> Written:
    """
    Writes the vectors as a file of float32 and, if asked to, as a table.

    Args:
        folder (`Path`):
            Where they are written.
        num (`int`):
            How many there are.
        args ([`SearchArguments`]):
            The arguments of the benchmark.
        has_table (`bool`):
            Whether to write a table.

    Returns:
        [`Written`]: the queries, and how long the table took.
    """
    generator = torch.Generator().manual_seed(0)
    centers = draw_directions(num // 50 + 1, args.width, generator)
    values = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (num, args.width))
    table = None
    if has_table:
        table = create_table(folder, args)
    writing = 0.0
    for start in range(0, num, CHUNK):
        embeds = draw_pairs(min(CHUNK, num - start), args.width, start + 1, centers)[0]
        values[start : start + len(embeds)] = embeds.numpy()
        if table is not None:
            begin = time.perf_counter()
            table.append([{"key": f"{start + row:09}", "embedding": vector} for row, vector in enumerate(embeds)])
            writing += time.perf_counter() - begin
    values.flush()
    # texts of other images stand for those that the parameters of the index are chosen by
    background = draw_pairs(NUM_BACKGROUND, args.width, num + 1, centers)[1]
    texts = draw_pairs(args.queries, args.width, 1, centers)[1]
    begin = time.perf_counter()
    if table is not None:
        maintain(table, lambda: background)
    return Written(texts, writing, time.perf_counter() - begin)


def create_table(folder: Path, args: "SearchArguments") -> EmbeddingTable:
    """Creates the table that is measured."""
    settings = {"kinds": ["image"]}
    return EmbeddingTable.create(folder / "table", args.width, settings, dtype=args.storage_dtype)


def search(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """
    Finds the most similar vectors exactly, by parts of them.

    Args:
        queries (`torch.Tensor` of shape `(queries, dim)`):
            What is searched for, normalized.
        vectors (`torch.Tensor` of shape `(vectors, dim)`):
            What is searched, normalized.

    Returns:
        `torch.Tensor` of shape `(queries, K)`: their indices.
    """
    similarities = queries.new_empty(len(queries), 0)
    indices = queries.new_empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK].to(queries)
        similarities = torch.cat([similarities, queries @ part.t()], dim=1)
        new_indices = torch.arange(start, start + len(part), device=queries.device)
        indices = torch.cat([indices, new_indices.expand(len(queries), -1)], dim=1)
        top = similarities.topk(min(K, similarities.shape[1]), dim=1)
        similarities = top.values
        indices = indices.gather(1, top.indices)
    return indices


def measure_recalls(found: list[list[int]], exact: torch.Tensor) -> list[float]:
    """Computes the fraction of the exact results, of shape `(queries, K)`, that was found for each query."""
    return [len({*row} & {*expected}) / len(expected) for row, expected in zip(found, exact.tolist())]


def read_vectors(folder: Path) -> torch.Tensor:
    """Reads the vectors, of shape `(vectors, dim)`."""
    return torch.from_numpy(np.load(folder / "vectors.npy"))


def open_table(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    """Opens the table. Returns what finds indices for queries of shape `(queries, dim)`."""
    table = EmbeddingTable(folder / "table")
    return lambda queries: [[int(key) for key in search_table(table, query, K).keys] for query in queries]


def open_memory(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    """
    Opens the table and reads its vectors, as the page and the server do. Returns what finds indices for queries of
    shape `(queries, dim)`.
    """
    table = EmbeddingTable(folder / "table")
    keep_in_memory(table)
    table.memory.read("image")
    return lambda queries: [list(map(int, found.keys)) for found in search_many(table, queries, K)]


def open_exact(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    """Reads the vectors into memory. Returns what finds indices for queries of shape `(queries, dim)`."""
    vectors = read_vectors(folder).to(device)
    return lambda queries: search(queries.to(device), vectors).tolist()


def open_faiss(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    """Builds the graph of faiss. Returns what finds indices for queries of shape `(queries, dim)`."""
    import faiss

    vectors = np.load(folder / "vectors.npy")
    index = faiss.index_factory(vectors.shape[1], "HNSW32", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    index.hnsw.efSearch = 128
    return lambda queries: index.search(queries.numpy(), K)[1].tolist()


OPEN = {"table": open_table, "memory": open_memory, "exact": open_exact, "faiss": open_faiss}


def measure_method(
    name: str, folder: Path, queries: torch.Tensor, threads: int, device: str
) -> tuple[dict[str, float], list[list[int]]]:
    """
    Measures what one method finds, and what it takes.

    Args:
        name (`str`):
            The method.
        folder (`Path`):
            Where the vectors are.
        queries (`torch.Tensor` of shape `(queries, dim)`):
            What is searched for.
        threads (`int`):
            The number of threads that compute.
        device (`str`):
            The device that computes.

    Returns:
        `tuple[dict[str, float], list[list[int]]]`: what it takes, and what it finds.
    """
    torch.set_num_threads(threads)
    search(queries[:1].to(device), queries)
    Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is that of now
    before = peak_memory(device)
    begin = time.perf_counter()
    find = OPEN[name](folder, device)
    opened = time.perf_counter()
    found = find(queries[:1])
    first = time.perf_counter() - opened
    seconds = []
    for query in queries[1:].split(1):
        start = time.perf_counter()
        found += find(query)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    find(queries)
    row = {
        "seconds_to_open": opened - begin,
        "seconds_to_first_answer": first,
        "median_milliseconds": 1000 * statistics.median(seconds),
        "95th_percentile_milliseconds": 1000 * statistics.quantiles(seconds, n=20)[-1],
        "queries_a_second": len(queries) / (time.perf_counter() - start),
        "megabytes_of_memory": (peak_memory(device) - before) / 2**20,
    }
    return row, found


def compare_methods(num: int, args: SearchArguments, methods: list[str]) -> dict:
    """Measures the methods with a number of vectors."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        written = write(folder, num, args, has_table=bool({"table", "memory"} & {*methods}))
        vectors = np.load(folder / "vectors.npy", mmap_mode="r+")
        exact = search(written.queries, torch.from_numpy(vectors))
        rows = {}
        devices = [(method, "cpu") for method in methods]
        too_large_to_hold = vectors.size * np.dtype(args.storage_dtype).itemsize > MAX_BYTES
        if ("memory", "cpu") in devices and too_large_to_hold:
            devices.remove(("memory", "cpu"))  # the page and the server do not hold it
        if ("faiss", "cpu") in devices and num > MAX_GRAPH:
            devices.remove(("faiss", "cpu"))
        if "exact" in methods and args.device != "cpu":
            devices.append(("exact", args.device))
        for method, device in devices:
            row, found = run_method(method, folder, written.queries, args.threads, device)
            row["recall@10"] = statistics.fmean(measure_recalls(found, exact))
            name = method
            if device != "cpu":
                name = f"{method}, {device}"
            if method == "table":
                row |= describe_table(folder / "table", written)
            elif method == "exact":
                row["megabytes_on_disk"] = vectors.nbytes / 2**20
            rows[name] = row
        del vectors
        shutil.rmtree(folder / "table", ignore_errors=True)
    return {"title": f"{num:,} vectors of {args.width}", "rows": rows}


def run_method(
    name: str, folder: Path, queries: torch.Tensor, threads: int, device: str
) -> tuple[dict[str, float], list[list[int]]]:
    """
    Measures a method in a process of its own.

    Args:
        name (`str`):
            The method.
        folder (`Path`):
            Where the vectors are.
        queries (`torch.Tensor` of shape `(queries, dim)`):
            What is searched for.
        threads (`int`):
            The number of threads that compute.
        device (`str`):
            The device that computes.

    Returns:
        `tuple[dict[str, float], list[list[int]]]`: what it takes, and what it finds.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(measure_method, name, folder, queries, threads, device).result()


def describe_table(folder: Path, written: Written) -> dict:
    """Describes what a table measured itself, its size, and how long it took."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    measured = read_measurements(EmbeddingTable(folder))
    return {
        "measured": asdict(replace(measured, sample={})),
        "megabytes_on_disk": size / 2**20,
        "seconds_to_write": written.seconds_to_write,
        "seconds_to_build": written.seconds_to_build,
    }


def write_themes(folder: Path, num: int, args: SearchArguments) -> tuple[EmbeddingTable, torch.Tensor, dict]:
    """
    Writes a table of images in two folders, each with a theme.

    Args:
        folder (`Path`):
            Where it is written.
        num (`int`):
            How many images there are.
        args ([`SearchArguments`]):
            The arguments of the benchmark.

    Returns:
        `tuple[EmbeddingTable, torch.Tensor, dict]`: the table, its embeddings of shape `(num, dim)` in float16, those
        of the first folder first, and queries by what they are, of shape `(queries, dim)`.
    """
    generator = torch.Generator().manual_seed(0)
    gap = draw_directions(1, args.width, generator)[0]
    themes = []
    for _ in FOLDERS:
        direction = draw_directions(1, args.width, generator)[0]
        themes.append(Theme(gap, direction, draw_directions(CLUSTERS, args.width, generator)))
    table = create_table(folder, args)
    parts = []
    first = 0
    for name, theme in zip(FOLDERS, themes):
        for start in range(0, num // 2, CHUNK):
            embeds = theme.draw(min(CHUNK, num // 2 - start), generator)[0]
            keys = [f"{name}/{first + row:09}" for row in range(len(embeds))]
            table.append([{"key": key, "embedding": vector} for key, vector in zip(keys, embeds)])
            parts.append(embeds.half())
            first += len(embeds)
    queries = {}
    background = []
    for name, theme in zip(FOLDERS, themes):
        queries[f"images of {name}"] = theme.draw(args.queries, generator)[0]
        queries[f"texts of {name}"] = theme.draw(args.queries, generator)[1]
        background.append(theme.draw(NUM_BACKGROUND // 2, generator)[1])
    maintain(table, lambda: torch.cat(background))
    return table, torch.cat(parts), queries


def compare_filters(num: int, args: SearchArguments) -> dict:
    """Measures the table under the filter of the second folder, and without a filter."""
    rows = {}
    with tempfile.TemporaryDirectory() as place:
        table, vectors, queries = write_themes(Path(place), num, args)
        # what is found is compared with the best of what is stored
        stored = normalize(vectors.float())
        first_of_second = len(stored) // 2
        for condition, first in ((None, 0), (in_folder(FOLDERS[1]), first_of_second)):
            shown = plan_search(table, where=condition).recall
            for name, asked in queries.items():
                found = []
                seconds = []
                for query in asked:
                    start = time.perf_counter()
                    keys = search_table(table, query, K, where=condition).keys
                    seconds.append(time.perf_counter() - start)
                    found.append([int(key.partition("/")[2]) for key in keys])
                recalls = measure_recalls(found, search(asked, stored[first:]) + first)
                title = f"{name}, all"
                if condition is not None:
                    title = f"{name}, filter {FOLDERS[1]}"
                rows[title] = {
                    "recall@10": statistics.fmean(recalls),
                    "min_recall@10": min(recalls),
                    "shown_recall": shown,
                    "median_milliseconds": 1000 * statistics.median(seconds),
                }
    return {"title": f"{num:,} vectors of {args.width} in two folders", "rows": rows}


def format_filters(table: dict) -> str:
    """Writes the table of a measurement with filters."""
    lines = [
        f"\n{table['title']}\n",
        "| queries | recall@10 | min | shown | ms, median |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in table["rows"].items():
        lines.append(
            f"| {name} | {row['recall@10']:.3f} | {row['min_recall@10']:.1f} | {row['shown_recall']:.3f} | "
            f"{row['median_milliseconds']:.1f} |"
        )
    return "\n".join(lines)


def format_table(table: dict) -> str:
    """Writes the table of a measurement of methods."""
    lines = [
        f"\n{table['title']}\n",
        "| | s to open | s to the first answer | ms, median | ms, 95 in 100 | a second, all at once | MB of memory "
        "| MB on disk | recall@10 of texts |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in table["rows"].items():
        disk = ""
        if "megabytes_on_disk" in row:
            disk = f"{row['megabytes_on_disk']:,.0f}"
        lines.append(
            f"| {name} | {row['seconds_to_open']:.2f} | {row['seconds_to_first_answer']:.3f} | "
            f"{row['median_milliseconds']:.1f} | {row['95th_percentile_milliseconds']:.1f} | "
            f"{row['queries_a_second']:,.0f} | {row['megabytes_of_memory']:,.0f} | {disk} | {row['recall@10']:.3f} |"
        )
    row = table["rows"].get("table")
    if row is not None:
        lines.append(
            f"\nThe table took {row['seconds_to_write']:.1f} s to write and {row['seconds_to_build']:.1f} s to "
            "index and measure."
        )
        plan = row["measured"]["search"]
        if plan["num_cells"] is not None:
            lines.append(
                f"It searches {plan['num_cells']} cells, compares {plan['num_candidates']} candidates for each result "
                f"exactly, and measured a recall of {plan['recall']:.3f} itself."
            )
    return "\n".join(lines)


def main() -> None:
    (args,) = parse((SearchArguments,), description=__doc__)
    set_up(args)
    methods = args.methods
    if "faiss" in methods and importlib.util.find_spec("faiss") is None:
        print('faiss is left out: `pip install "lotlip[benchmarks]"` brings it.')
        methods = [name for name in methods if name != "faiss"]
    tables = []
    for num in args.num_vectors:
        if args.filters:
            tables.append(compare_filters(num, args))
            print(format_filters(tables[-1]), flush=True)
        else:
            tables.append(compare_methods(num, args, methods))
            print(format_table(tables[-1]), flush=True)
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("search.py"):
        main()

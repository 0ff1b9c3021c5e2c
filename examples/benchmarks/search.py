# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search in many pictures: the index of `lotlip search` beside exact search in memory and HNSW32 of faiss, each in a
process of its own (on Linux).

    python examples/benchmarks/search.py
    python examples/benchmarks/search.py --num_vectors 1000000 --methods index exact
    python examples/benchmarks/search.py --device cuda --methods exact

The vectors are drawn around centres, 50 to each, and the queries around the same centres. To open is what a program
does once before it can search: the index is opened, the vectors of the exact search are read, faiss builds its graph.
Queries come one by one, then all at once. Exact search runs on the CPU, and on `--device` too if that is another.
Memory is what the process takes more at most than after its imports, pages of files among it; on a GPU its own memory.
"""

import importlib.util
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scaffold import BenchmarkArguments, peak_memory, set_up, write_results

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.embedding.search import recall_at_k, search
from modeling_lotlip.search.index import Index, make_rows


METHODS = ("index", "exact", "faiss")
CHUNK = 20_000
NUM_QUERIES, K = 200, 10


@dataclass
class SearchArguments(BenchmarkArguments):
    """What is searched."""

    num_vectors: list[int] = argument([10_000, 100_000], "How many vectors.", least=50)
    width: int = argument(768, "Their dimension.", least=8)
    methods: list[str] = argument(list(METHODS), "What is measured.", choices=METHODS)


def draw(num: int, width: int, seed: int, centres: torch.Tensor) -> torch.Tensor:
    """Normalised vectors around centres."""
    generator = torch.Generator().manual_seed(seed)
    near = centres[torch.randint(len(centres), (num,), generator=generator)]
    return torch.nn.functional.normalize(near + 0.7 * torch.randn(num, width, generator=generator), dim=-1)


def write(folder: Path, num: int, width: int, build: bool) -> tuple[torch.Tensor, float, float]:
    """
    Writes the vectors as a file of float32 and, if asked to, as an index. The queries, and how long the index took to
    write and to build.
    """
    centres = torch.randn(num // 50, width, generator=torch.Generator().manual_seed(0))
    values = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (num, width))
    index = Index.make(folder / "index", width, {})
    writing = 0.0
    for start in range(0, num, CHUNK):
        embeds = draw(min(CHUNK, num - start), width, start + 1, centres)
        values[start : start + len(embeds)] = embeds.numpy()
        if build:
            begin = time.perf_counter()
            names = [f"{start + row:09}" for row in range(len(embeds))]
            index.table.add(make_rows(names, embeds, index.table.schema))
            writing += time.perf_counter() - begin
    values.flush()
    begin = time.perf_counter()
    if build:
        index.tidy()
        if index.is_due:
            index.speed_up()
    return draw(NUM_QUERIES, width, 0, centres), writing, time.perf_counter() - begin


def read_vectors(folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(folder / "vectors.npy"))


def open_index(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    index = Index.open(folder / "index")
    return lambda queries: [[int(name) for name in index.search(query, K).names] for query in queries]


def open_exact(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    vectors = read_vectors(folder).to(device)
    return lambda queries: search(queries.to(device), [vectors], K)[1].tolist()


def open_faiss(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    import faiss

    vectors = np.load(folder / "vectors.npy")
    index = faiss.index_factory(vectors.shape[1], "HNSW32", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    index.hnsw.efSearch = 128
    return lambda queries: index.search(queries.numpy(), K)[1].tolist()


OPEN = {"index": open_index, "exact": open_exact, "faiss": open_faiss}


def measure_method(
    name: str, folder: Path, queries: torch.Tensor, threads: int, device: str, results: multiprocessing.Queue
) -> None:
    """What one method finds, and what it takes."""
    torch.set_num_threads(threads)
    search(queries[:1].to(device), [queries], 1)
    Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is that of now
    before, begin = peak_memory(device), time.perf_counter()
    find = OPEN[name](folder, device)
    opened = time.perf_counter()
    found, seconds = find(queries[:1]), []
    first = time.perf_counter() - opened
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
    results.put((row, found))


def compare(num: int, args: SearchArguments, methods: list[str]) -> dict:
    """The table of one number of vectors."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        queries, writing, building = write(folder, num, args.width, "index" in methods)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        parts = (torch.from_numpy(vectors[start : start + CHUNK].copy()) for start in range(0, num, CHUNK))
        exact = search(queries, parts, K)[1]
        rows = {}
        context = multiprocessing.get_context("spawn")
        devices = [(method, "cpu") for method in methods]
        if "exact" in methods and args.device != "cpu":
            devices.append(("exact", args.device))
        for method, device in devices:
            results = context.Queue()
            options = (method, folder, queries, args.threads, device, results)
            process = context.Process(target=measure_method, args=options)
            process.start()
            row, found = results.get()
            process.join()
            name = method if device == "cpu" else f"{method}, {device}"
            rows[name] = row | {"recall@10": recall_at_k(torch.tensor(found), exact)}
            if method == "index":
                effort = Index.open(folder / "index").effort
                rows[method] |= {"effort": None if effort is None else effort._asdict()}
                size = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file())
                rows[method] |= {"megabytes_on_disk": size / 2**20}
                rows[method] |= {"seconds_to_write": writing, "seconds_to_build": building}
            elif method == "exact":
                rows[name] |= {"megabytes_on_disk": vectors.nbytes / 2**20}
        del vectors
        shutil.rmtree(folder / "index")
    return {"title": f"{num:,} vectors of {args.width}", "rows": rows}


def format_table(table: dict) -> str:
    lines = [
        f"\n{table['title']}\n",
        "| | s to open | s to the first answer | ms, median | ms, 95 in 100 | a second, all at once | MB of memory "
        "| MB on disk | recall@10 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in table["rows"].items():
        disk = f"{row['megabytes_on_disk']:,.0f}" if "megabytes_on_disk" in row else ""
        lines.append(
            f"| {name} | {row['seconds_to_open']:.2f} | {row['seconds_to_first_answer']:.3f} | "
            f"{row['median_milliseconds']:.1f} | {row['95th_percentile_milliseconds']:.1f} | "
            f"{row['queries_a_second']:,.0f} | {row['megabytes_of_memory']:,.0f} | {disk} | {row['recall@10']:.3f} |"
        )
    index = table["rows"].get("index")
    if index is not None:
        seconds = "The index took {seconds_to_write:.1f} s to write and {seconds_to_build:.1f} s to build."
        lines.append("\n" + seconds.format(**index))
        if index["effort"] is not None:
            effort = "It searches {num_cells} cells, compares {num_candidates} candidates for each result exactly, and"
            lines.append((effort + " measured a recall of {recall:.3f} itself.").format(**index["effort"]))
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
        tables.append(compare(num, args, methods))
        print(format_table(tables[-1]), flush=True)
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("search.py"):
        main()

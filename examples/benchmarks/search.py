# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search by texts in many images: the table of `lotlip embed` and `lotlip search` beside exact search in memory and
HNSW32 of faiss, each in a process of its own (on Linux).

    python examples/benchmarks/search.py
    python examples/benchmarks/search.py --num_vectors 1000000 --methods table exact
    python examples/benchmarks/search.py --device cuda --methods exact

The vectors have the modality gap of dual encoders: cosines of .45 between two images, .33 between a text and its
image, .23 between a text and another image. To open is what a program does once before it can search: the table is
opened, the vectors of the exact search are read, faiss builds its graph. Queries come one by one, then all at once.
Exact search runs on the CPU, and on `--device` too if that is another. Memory is what the process takes more at most
than after its imports, pages of files among it; on a GPU its own memory.
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

from modeling_lotlip.encoder.arguments import STORAGE_DTYPES
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


METHODS = ("table", "exact", "faiss")
CHUNK = 20_000
NUM_QUERIES, K = 200, 10


@dataclass
class SearchArguments(BenchmarkArguments):
    """What is searched."""

    num_vectors: list[int] = argument([10_000, 100_000], "How many vectors.", least=50)
    width: int = argument(768, "Their dimension.", least=8)
    storage_dtype: str = argument("float16", "How the table stores a number.", choices=STORAGE_DTYPES)
    methods: list[str] = argument(list(METHODS), "What is measured.", choices=METHODS)


def draw(num: int, width: int, seed: int, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised vectors of images, around the last of the centres and each around another one, and of their texts."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(num, width, generator=generator), dim=-1)

    near = centres[torch.randint(len(centres) - 1, (num,), generator=generator)]
    own = torch.nn.functional.normalize(near + noise(), dim=-1)
    images, texts = 0.45**0.5 * centres[-1] + 0.55**0.5 * own, 0.343 * centres[-1] + 0.135 * own + 0.93 * noise()
    return torch.nn.functional.normalize(images, dim=-1), torch.nn.functional.normalize(texts, dim=-1)


def write(folder: Path, num: int, args: "SearchArguments", has_table: bool) -> tuple[torch.Tensor, float, float]:
    """
    Writes the vectors as a file of float32 and, if asked to, as a table. The queries, and how long the table took to
    write and to index.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(num // 50 + 1, args.width, generator=generator), dim=-1)
    values = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (num, args.width))
    options = (folder / "table", args.width, {"kinds": ["image"]}, {}, args.storage_dtype)
    table = EmbeddingTable.create(*options) if has_table else None
    writing = 0.0
    for start in range(0, num, CHUNK):
        embeds = draw(min(CHUNK, num - start), args.width, start + 1, centres)[0]
        values[start : start + len(embeds)] = embeds.numpy()
        if table is not None:
            begin = time.perf_counter()
            table.append([{"key": f"{start + row:09}", "embedding": vector} for row, vector in enumerate(embeds)])
            writing += time.perf_counter() - begin
    values.flush()
    # texts of other images stand for those that the parameters of the index are chosen by
    background, texts = draw(64, args.width, num + 1, centres)[1], draw(NUM_QUERIES, args.width, 1, centres)[1]
    begin = time.perf_counter()
    if table is not None:
        table.maintain(lambda: background)
    return texts, writing, time.perf_counter() - begin


def search(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The positions (queries, K) of the most similar vectors, by parts of them."""
    tops, places = queries.new_empty(len(queries), 0), queries.new_empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK].to(queries.device)
        tops = torch.cat([tops, queries @ part.t()], dim=1)
        numbers = torch.arange(start, start + len(part), device=queries.device)
        places = torch.cat([places, numbers.expand(len(queries), -1)], dim=1)
        tops, columns = tops.topk(min(K, tops.shape[1]), dim=1)
        places = places.gather(1, columns)
    return places


def recall(found: list[list[int]], exact: torch.Tensor) -> float:
    """The share of the exact results that was found."""
    shares = [len({*row} & {*others}) / len(others) for row, others in zip(found, exact.tolist())]
    return statistics.fmean(shares)


def read_vectors(folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(folder / "vectors.npy"))


def open_table(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    table = EmbeddingTable(folder / "table")
    return lambda queries: [[int(key) for key in table.search(query, K).keys] for query in queries]


def open_exact(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    vectors = read_vectors(folder).to(device)
    return lambda queries: search(queries.to(device), vectors).tolist()


def open_faiss(folder: Path, device: str) -> Callable[[torch.Tensor], list[list[int]]]:
    import faiss

    vectors = np.load(folder / "vectors.npy")
    index = faiss.index_factory(vectors.shape[1], "HNSW32", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    index.hnsw.efSearch = 128
    return lambda queries: index.search(queries.numpy(), K)[1].tolist()


OPEN = {"table": open_table, "exact": open_exact, "faiss": open_faiss}


def measure_method(
    name: str, folder: Path, queries: torch.Tensor, threads: int, device: str, results: multiprocessing.Queue
) -> None:
    """What one method finds, and what it takes."""
    torch.set_num_threads(threads)
    search(queries[:1].to(device), queries)
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
        queries, writing, building = write(folder, num, args, "table" in methods)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r+")
        exact = search(queries, torch.from_numpy(vectors))
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
            rows[name] = row | {"recall@10": recall(found, exact)}
            if method == "table":
                rows[method] |= {"measured": EmbeddingTable(folder / "table").measured()._asdict()}
                size = sum(path.stat().st_size for path in (folder / "table").rglob("*") if path.is_file())
                rows[method] |= {"megabytes_on_disk": size / 2**20}
                rows[method] |= {"seconds_to_write": writing, "seconds_to_build": building}
            elif method == "exact":
                rows[name] |= {"megabytes_on_disk": vectors.nbytes / 2**20}
        del vectors
        shutil.rmtree(folder / "table", ignore_errors=True)
    return {"title": f"{num:,} vectors of {args.width}", "rows": rows}


def format_table(table: dict) -> str:
    lines = [
        f"\n{table['title']}\n",
        "| | s to open | s to the first answer | ms, median | ms, 95 in 100 | a second, all at once | MB of memory "
        "| MB on disk | recall@10 of texts |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in table["rows"].items():
        disk = f"{row['megabytes_on_disk']:,.0f}" if "megabytes_on_disk" in row else ""
        lines.append(
            f"| {name} | {row['seconds_to_open']:.2f} | {row['seconds_to_first_answer']:.3f} | "
            f"{row['median_milliseconds']:.1f} | {row['95th_percentile_milliseconds']:.1f} | "
            f"{row['queries_a_second']:,.0f} | {row['megabytes_of_memory']:,.0f} | {disk} | {row['recall@10']:.3f} |"
        )
    row = table["rows"].get("table")
    if row is not None:
        seconds = "The table took {seconds_to_write:.1f} s to write and {seconds_to_build:.1f} s to index and measure."
        lines.append("\n" + seconds.format(**row))
        if row["measured"]["nprobes"] is not None:
            sentence = "It searches {nprobes} cells, compares {refine_factor} candidates for each result exactly, and"
            lines.append((sentence + " measured a recall of {recall:.3f} itself.").format(**row["measured"]))
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

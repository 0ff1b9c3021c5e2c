# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[benchmarks]"]
# ///
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
# Vectors that are made, or compared, at once
CHUNK = 20_000
NUM_QUERIES = 200
# Results of a query
K = 10
# The parameter of faiss's search in its graph
EF_SEARCH = 128
VECTORS_FILE = "vectors.npy"
TABLE_FOLDER = "table"

# Gives the indices of the K most similar vectors of queries of shape `(queries, dim)`
Find = Callable[[torch.Tensor], list[list[int]]]


@dataclass
class SearchArguments(BenchmarkArguments):
    """What is searched."""

    num_vectors: list[int] = argument([10_000, 100_000], "How many vectors.", least=50)
    width: int = argument(768, "Their dimension.", least=8)
    storage_dtype: str = argument("float16", "How the table stores a number.", choices=STORAGE_DTYPES)
    methods: list[str] = argument(list(METHODS), "What is measured.", choices=METHODS)


@dataclass
class WrittenVectors:
    """
    What was written for a measurement.

    Args:
        queries (`torch.Tensor`): Texts to search by, of shape `(queries, dim)`.
        seconds_to_write (`float`): How long the table took to write.
        seconds_to_build (`float`): How long it took to index and measure.
    """

    queries: torch.Tensor
    seconds_to_write: float
    seconds_to_build: float


@dataclass
class Method:
    """
    A way to search, which a process of its own measures.

    Args:
        name (`str`): One of `METHODS`.
        folder (`Path`): Where the vectors are.
        device (`str`): Where it computes.
        threads (`int`): Threads of the CPU.
    """

    name: str
    folder: Path
    device: str
    threads: int


def sample_unit_vectors(num_vectors: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Returns random normalized vectors of shape `(num_vectors, width)`, in all directions alike."""
    return torch.nn.functional.normalize(torch.randn(num_vectors, width, generator=generator), dim=-1)


def sample_pairs(num_pairs: int, seed: int, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Returns normalized vectors of images, around the last of the centers and each around another one, and of their
    texts, both of shape `(num_pairs, width)`.

    Args:
        num_pairs (`int`):
            How many.
        seed (`int`):
            The same one gives the same vectors.
        centers (`torch.Tensor` of shape `(centers, width)`):
            Normalized.
    """
    width = centers.shape[1]
    generator = torch.Generator().manual_seed(seed)
    near = centers[torch.randint(len(centers) - 1, (num_pairs,), generator=generator)]
    own = near + sample_unit_vectors(num_pairs, width, generator)
    own = torch.nn.functional.normalize(own, dim=-1)
    noise = sample_unit_vectors(num_pairs, width, generator)
    # the modality gap: see the top of this file
    images = 0.45**0.5 * centers[-1] + 0.55**0.5 * own
    texts = 0.343 * centers[-1] + 0.135 * own + 0.93 * noise
    return torch.nn.functional.normalize(images, dim=-1), torch.nn.functional.normalize(texts, dim=-1)


def write_vectors(folder: Path, num_vectors: int, args: SearchArguments, has_table: bool) -> WrittenVectors:
    """
    Writes vectors of images as a file of float32 and, if asked to, as a table.

    Args:
        folder (`Path`): Where they go.
        num_vectors (`int`): How many.
        args (`SearchArguments`): Their dimension, and how the table stores a number.
        has_table (`bool`): Whether there is a table.
    """
    generator = torch.Generator().manual_seed(0)
    centers = sample_unit_vectors(num_vectors // 50 + 1, args.width, generator)
    shape = (num_vectors, args.width)
    values = np.lib.format.open_memmap(folder / VECTORS_FILE, "w+", np.float32, shape)
    table = None
    if has_table:
        settings = {"kinds": ["image"]}
        table = EmbeddingTable.create(folder / TABLE_FOLDER, args.width, settings, {}, args.storage_dtype)
    seconds_to_write = 0.0
    for start in range(0, num_vectors, CHUNK):
        images, _ = sample_pairs(min(CHUNK, num_vectors - start), start + 1, centers)
        values[start : start + len(images)] = images.numpy()
        if table is not None:
            begin = time.perf_counter()
            table.append([{"key": f"{index:09}", "embedding": vector} for index, vector in enumerate(images, start)])
            seconds_to_write += time.perf_counter() - begin
    values.flush()
    # texts of other images stand for those that the parameters of the index are chosen by
    _, background = sample_pairs(64, num_vectors + 1, centers)
    _, queries = sample_pairs(NUM_QUERIES, 1, centers)
    begin = time.perf_counter()
    if table is not None:
        table.maintain(lambda: background)
    return WrittenVectors(queries, seconds_to_write, time.perf_counter() - begin)


def search_exactly(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """
    Returns the indices, of shape `(queries, K)`, of the most similar of `vectors`, of shape `(vectors, width)`, to
    `queries`, of shape `(queries, width)`, by parts of the vectors.
    """
    similarities = queries.new_empty(len(queries), 0)
    indices = queries.new_empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK].to(queries.device)
        similarities = torch.cat([similarities, queries @ part.t()], dim=1)
        new_indices = torch.arange(start, start + len(part), device=queries.device)
        indices = torch.cat([indices, new_indices.expand(len(queries), -1)], dim=1)
        similarities, columns = similarities.topk(min(K, similarities.shape[1]), dim=1)
        indices = indices.gather(1, columns)
    return indices


def compute_recall(found: list[list[int]], exact: torch.Tensor) -> float:
    """Returns the fraction of the exact results, of shape `(queries, K)`, that was found."""
    fractions = []
    for indices, exact_indices in zip(found, exact.tolist()):
        fractions.append(len(set(indices) & set(exact_indices)) / len(exact_indices))
    return statistics.fmean(fractions)


def open_table(folder: Path) -> Find:
    """Returns the search in the table."""
    table = EmbeddingTable(folder / TABLE_FOLDER)

    def find(queries: torch.Tensor) -> list[list[int]]:
        found = []
        for query in queries:
            found.append(list(map(int, table.search(query, K).keys)))
        return found

    return find


def open_exact(folder: Path, device: str) -> Find:
    """Returns the exact search on a device, which holds all vectors."""
    vectors = torch.from_numpy(np.load(folder / VECTORS_FILE)).to(device)
    return lambda queries: search_exactly(queries.to(device), vectors).tolist()


def open_faiss(folder: Path) -> Find:
    """Returns the search in a graph of faiss."""
    import faiss

    vectors = np.load(folder / VECTORS_FILE)
    index = faiss.index_factory(vectors.shape[1], "HNSW32", faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    index.hnsw.efSearch = EF_SEARCH
    return lambda queries: index.search(queries.numpy(), K)[1].tolist()


def open_method(method: Method) -> Find:
    """Does what a program does once before it can search, and returns the search."""
    if method.name == "table":
        return open_table(method.folder)
    if method.name == "faiss":
        return open_faiss(method.folder)
    return open_exact(method.folder, method.device)


def measure_method(method: Method, queries: torch.Tensor, results: multiprocessing.Queue) -> None:
    """
    Puts into a queue what one method takes, and what it finds.

    Args:
        method (`Method`):
            How it is searched.
        queries (`torch.Tensor` of shape `(queries, width)`):
            Normalized.
        results (`multiprocessing.Queue`):
            Gets a row of the table, and the indices that were found.
    """
    torch.set_num_threads(method.threads)
    search_exactly(queries[:1].to(method.device), queries)
    Path("/proc/self/clear_refs").write_text("5")  # the max size so far is that of now
    memory_before = peak_memory(method.device)
    begin = time.perf_counter()
    find = open_method(method)
    opened = time.perf_counter()
    found = find(queries[:1])
    first = time.perf_counter() - opened
    milliseconds = []
    for query in queries[1:].split(1):
        start = time.perf_counter()
        found += find(query)
        milliseconds.append(1000 * (time.perf_counter() - start))
    start = time.perf_counter()
    find(queries)
    seconds_at_once = time.perf_counter() - start
    row = {
        "seconds_to_open": opened - begin,
        "seconds_to_first_answer": first,
        "median_milliseconds": statistics.median(milliseconds),
        "95th_percentile_milliseconds": statistics.quantiles(milliseconds, n=20)[-1],
        "queries_a_second": len(queries) / seconds_at_once,
        "megabytes_of_memory": (peak_memory(method.device) - memory_before) / 2**20,
    }
    results.put((row, found))


def run_in_process(method: Method, queries: torch.Tensor) -> tuple[dict, list[list[int]]]:
    """
    Returns what [`measure_method`] gives in a process of its own, for queries of shape `(queries, width)`: a row of
    the table, and the indices that were found.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure_method, args=(method, queries, results))
    process.start()
    row, found = results.get()
    process.join()
    return row, found


def describe_table(folder: Path, written: WrittenVectors) -> dict:
    """Returns what else is measured of the table."""
    files = [path for path in (folder / TABLE_FOLDER).rglob("*") if path.is_file()]
    return {
        "measured": EmbeddingTable(folder / TABLE_FOLDER).measured()._asdict(),
        "megabytes_on_disk": sum(path.stat().st_size for path in files) / 2**20,
        "seconds_to_write": written.seconds_to_write,
        "seconds_to_build": written.seconds_to_build,
    }


def measure_methods(num_vectors: int, args: SearchArguments, methods: list[str]) -> dict:
    """Returns the table of one number of vectors."""
    compared = [(name, "cpu") for name in methods]
    if "exact" in methods and args.device != "cpu":
        compared.append(("exact", args.device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_vectors(folder, num_vectors, args, has_table="table" in methods)
        vectors = torch.from_numpy(np.load(folder / VECTORS_FILE, mmap_mode="r+"))
        exact = search_exactly(written.queries, vectors)
        rows = {}
        for method_name, device in compared:
            method = Method(method_name, folder, device, args.threads)
            row, found = run_in_process(method, written.queries)
            row["recall@10"] = compute_recall(found, exact)
            if method_name == "table":
                row |= describe_table(folder, written)
            elif method_name == "exact":
                row["megabytes_on_disk"] = vectors.numpy().nbytes / 2**20
            title = method_name
            if device != "cpu":
                title = f"{method_name}, {device}"
            rows[title] = row
        del vectors
        shutil.rmtree(folder / TABLE_FOLDER, ignore_errors=True)
    return {"title": f"{num_vectors:,} vectors of {args.width}", "rows": rows}


def format_row(name: str, row: dict) -> str:
    """Returns the line of a method in the Markdown table."""
    disk = ""
    if "megabytes_on_disk" in row:
        disk = f"{row['megabytes_on_disk']:,.0f}"
    cells = [
        name,
        f"{row['seconds_to_open']:.2f}",
        f"{row['seconds_to_first_answer']:.3f}",
        f"{row['median_milliseconds']:.1f}",
        f"{row['95th_percentile_milliseconds']:.1f}",
        f"{row['queries_a_second']:,.0f}",
        f"{row['megabytes_of_memory']:,.0f}",
        disk,
        f"{row['recall@10']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def format_methods(table: dict) -> str:
    """Returns a table of [`measure_methods`] in Markdown, and sentences on the table of embeddings."""
    lines = [
        f"\n{table['title']}\n",
        "| | s to open | s to the first answer | ms, median | ms, 95 in 100 "
        "| a second, all at once | MB of memory | MB on disk | recall@10 of texts |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [format_row(name, row) for name, row in table["rows"].items()]
    row = table["rows"].get("table")
    if row is None:
        return "\n".join(lines)
    lines.append(
        f"\nThe table took {row['seconds_to_write']:.1f} s to write and {row['seconds_to_build']:.1f} s to index and "
        "measure."
    )
    measured = row["measured"]
    if measured["nprobes"] is not None:
        lines.append(
            f"It searches {measured['nprobes']} cells, compares {measured['refine_factor']} candidates for each "
            f"result exactly, and measured a recall of {measured['recall']:.3f} itself."
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
    for num_vectors in args.num_vectors:
        tables.append(measure_methods(num_vectors, args, methods))
        print(format_methods(tables[-1]), flush=True)
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("search.py"):
        main()

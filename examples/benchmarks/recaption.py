# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What going on with the captions of a large collection costs: the memory and the time for the keys that have a record.

    python examples/benchmarks/recaption.py --keys 10000000
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
from accelerate import PartialState
from pyarrow import parquet
from scaffold.timing import BenchmarkArguments, peak_memory, set_up, write_results

from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.captioning.records import SCHEMA, Records


CAPTIONER = "llava"


@dataclass
class RecaptionBenchmarkArguments(BenchmarkArguments):
    """What is measured."""

    keys: int = argument(10_000_000, "Images with a caption.", least=1)
    shard_size: int = argument(200_000, "Captions in a file.", least=1)


def make_key(number: int) -> str:
    """As those of webdataset shards with the shard's name."""
    return f"{number // 10_000:05}/{number:09}"


def write_shards(folder: Path, args: RecaptionBenchmarkArguments) -> None:
    """Files of captions of which nothing but the keys and the hashes is there."""
    rng = np.random.default_rng(0)
    for shard, start in enumerate(range(0, args.keys, args.shard_size)):
        num_rows = min(args.shard_size, args.keys - start)
        columns = {field.name: pa.nulls(num_rows, field.type) for field in SCHEMA}
        columns["key"] = [make_key(number) for number in range(start, start + num_rows)]
        columns["captioner"] = [CAPTIONER] * num_rows
        columns["sha256"] = [rng.bytes(32).hex() for _ in range(num_rows)]
        parquet.write_table(pa.table(columns, SCHEMA), folder / f"captions-{shard:06d}-000.parquet")


def measure_seconds(run: Callable[[], object]) -> float:
    """Seconds of a core, whatever else the machine does."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    (args,) = parse((RecaptionBenchmarkArguments,), description=__doc__)
    set_up(args)
    with TemporaryDirectory() as name:
        write_shards(Path(name), args)
        state, process, made = PartialState(cpu=True), psutil.Process(), []
        before, peak_before = process.memory_info().rss, peak_memory("cpu")
        reading = measure_seconds(lambda: made.append(Records(Path(name), args.shard_size, state)))
        known = made[0].known
        memory = process.memory_info().rss - before
        peak = max(memory, peak_memory("cpu") - max(before, peak_before))
    meeting = measure_seconds(lambda: deque((known.meet(make_key(number), 1) for number in range(args.keys)), 0))
    assert known.count(CAPTIONER) == len(known) == args.keys
    rows = {
        "bytes of memory a key": memory / args.keys,
        "the same at the peak": peak / args.keys,
        "microseconds of a core to read the record of a key": 1e6 * reading / args.keys,
        "microseconds of a core to find a key that is done": 1e6 * meeting / args.keys,
    }
    title = f"{args.keys:,} keys that are done"
    print(f"\n{title}\n\n| what | number |\n| --- | --- |")
    for what, number in rows.items():
        print(f"| {what} | {number:.1f} |")
    write_results([{"title": title, "rows": rows}], args)


if __name__ == "__main__":
    with exit_on_error("recaption.py"):
        main()

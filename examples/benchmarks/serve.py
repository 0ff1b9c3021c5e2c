# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
`lotlip serve` under several clients at once: requests a second, with the texts of several requests computed together
and with one after the other.

    python examples/benchmarks/serve.py
    python examples/benchmarks/serve.py --clients 32 --requests 20 --dtype bfloat16

Both servers run in processes of their own and are measured in turns. Each client is OpenAI's, sends one text at a
time, and the next one when the answer is there. The machine computes servers and clients.
"""

import asyncio
import itertools
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import AsyncOpenAI
from scaffold import BenchmarkArguments, build_lotlip, build_processor, set_up, write_results

from modeling_lotlip.utils.arguments import argument, exit_on_error, parse


VARIANTS = {"together": 64, "one after the other": 1}


@dataclass
class ServeArguments(BenchmarkArguments):
    """Who asks what."""

    clients: list[int] = argument([1, 8, 32], "Clients at once.", least=1)
    words: list[int] = argument([10, 100], "Words of a text.", least=1)
    requests: int = argument(10, "Requests of each client in a turn.", least=1)
    layers: int = argument(12, "Layers of both towers.", least=1)
    dtype: str = argument("float32", "What is computed in.", choices=("float32", "bfloat16", "float16"))


@contextmanager
def serve(folder: Path, batch_size: int, args: ServeArguments) -> Iterator[str]:
    """The address of a server of the model in a folder."""
    options = {"model": folder, "served_model_name": "lotlip", "port": 0, "device": args.device, "dtype": args.dtype}
    options["batch_size"] = batch_size
    command = [sys.executable, "-m", "lotlip", "serve"]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            said = process.stdout.readline()
            if "is served at" not in said:
                raise RuntimeError("The server has not started: `lotlip serve` says why.")
            yield re.search(r"http://\S+/v1", said)[0]
        finally:
            process.send_signal(signal.SIGINT)


async def ask(address: str, num_clients: int, texts: list[str], num_requests: int) -> tuple[float, list[float]]:
    """How long all requests took together, and each of them."""
    seconds = []

    async def visit(number: int) -> None:
        chance = random.Random(number)
        for _ in range(num_requests):
            text = chance.choice(texts)
            start = time.perf_counter()
            answer = await client.embeddings.create(model="lotlip", input=text)
            assert len(answer.data) == 1
            seconds.append(time.perf_counter() - start)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    http_client = httpx.AsyncClient(trust_env=False, timeout=600, limits=limits)
    async with AsyncOpenAI(base_url=address, api_key="none", http_client=http_client) as client:
        await client.embeddings.create(model="lotlip", input=texts[0])
        start = time.perf_counter()
        await asyncio.gather(*map(visit, range(num_clients)))
        return time.perf_counter() - start, seconds


def compare(
    num_clients: int, num_words: int, addresses: dict[str, str], words: list[str], args: ServeArguments
) -> dict:
    """The table of one number of clients and one length of texts."""
    chance = random.Random(0)
    texts = [" ".join(chance.choices(words, k=num_words)) for _ in range(100)]
    took, seconds = {name: [] for name in addresses}, {name: [] for name in addresses}
    for _ in range(args.repeats):
        for name, address in addresses.items():
            whole, each = asyncio.run(ask(address, num_clients, texts, args.requests))
            took[name].append(whole)
            seconds[name] += each
    rows = {}
    for name in addresses:
        ratios = [other / own for own, other in zip(took[name], took["one after the other"])]
        rows[name] = {
            "requests_per_second": num_clients * args.requests / statistics.median(took[name]),
            "median_seconds": statistics.median(seconds[name]),
            "95th_percentile_seconds": statistics.quantiles(seconds[name], n=20)[-1],
            "ratio": statistics.median(ratios),
        }
    return {"title": f"{num_clients} clients, {num_words} words", "rows": rows}


def main() -> None:
    (args,) = parse((ServeArguments,), description=__doc__)
    set_up(args)
    words, processor = build_processor(1000)
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        build_lotlip(args.layers, "cpu").save_pretrained(name)
        processor.save_pretrained(name)
        addresses = {
            variant: servers.enter_context(serve(Path(name), batch_size, args))
            for variant, batch_size in VARIANTS.items()
        }
        print("| words | clients | computed | requests/s | s, median | s, 95 in 100 | times the requests/s |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        tables = []
        for num_words, num_clients in itertools.product(args.words, args.clients):
            tables.append(compare(num_clients, num_words, addresses, words, args))
            for variant, row in tables[-1]["rows"].items():
                print(
                    f"| {num_words} | {num_clients} | {variant} | {row['requests_per_second']:.1f} | "
                    f"{row['median_seconds']:.3f} | {row['95th_percentile_seconds']:.3f} | {row['ratio']:.2f} |",
                    flush=True,
                )
    write_results(tables, args)


if __name__ == "__main__":
    with exit_on_error("serve.py"):
        main()

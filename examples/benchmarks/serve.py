# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[endpoint,serve]", "httpx"]
# ///
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


# The texts that are computed together at most
VARIANTS = {"together": 64, "one after the other": 1}
# So many different texts are asked for
NUM_TEXTS = 100


@dataclass
class ServeArguments(BenchmarkArguments):
    """Who asks what."""

    clients: list[int] = argument([1, 8, 32], "Clients at once.", least=1)
    words: list[int] = argument([10, 100], "Words of a text.", least=1)
    requests: int = argument(10, "Requests of each client in a turn.", least=1)
    layers: int = argument(12, "Layers of both towers.", least=1)
    dtype: str = argument(
        "float32",
        "What is computed in. auto: the fastest here.",
        choices=("float32", "bfloat16", "float16", "auto"),
    )


@contextmanager
def serve(folder: Path, batch_size: int, args: ServeArguments) -> Iterator[str]:
    """Inside, a server of the model in a folder runs, and its address is given."""
    command = [
        *(sys.executable, "-m", "lotlip", "serve"),
        *("--model", str(folder)),
        *("--served_model_name", "lotlip"),
        *("--port", "0"),
        *("--device", args.device),
        *("--dtype", args.dtype),
        *("--batch_size", str(batch_size)),
    ]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **streams) as process:
        try:
            line = process.stdout.readline()
            if "is served at" not in line:
                raise RuntimeError("The server has not started: `lotlip serve` says why.")
            yield re.search(r"http://\S+/v1", line)[0]
        finally:
            process.send_signal(signal.SIGINT)


async def ask_one_by_one(client: AsyncOpenAI, seed: int, texts: list[str], num_requests: int) -> list[float]:
    """
    Sends requests, each with a random text, one after the other, and returns the seconds that each took.

    Args:
        client (`AsyncOpenAI`): Sends them.
        seed (`int`): That of the choice of texts.
        texts (`list[str]`): What is asked.
        num_requests (`int`): How often.
    """
    generator = random.Random(seed)
    seconds = []
    for _ in range(num_requests):
        text = generator.choice(texts)
        start = time.perf_counter()
        answer = await client.embeddings.create(model="lotlip", input=text)
        seconds.append(time.perf_counter() - start)
        if len(answer.data) != 1:
            raise RuntimeError(f"A text got {len(answer.data)} embeddings.")
    return seconds


async def ask_at_once(
    address: str, num_clients: int, texts: list[str], num_requests: int
) -> tuple[float, list[float]]:
    """
    Asks a server by several clients at once.

    Args:
        address (`str`): That of the server.
        num_clients (`int`): How many clients.
        texts (`list[str]`): What they ask.
        num_requests (`int`): How often each of them asks.

    Returns:
        `tuple[float, list[float]]`: the seconds of all requests together, and of each.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    http_client = httpx.AsyncClient(trust_env=False, timeout=600, limits=limits)
    async with AsyncOpenAI(base_url=address, api_key="none", http_client=http_client) as client:
        await client.embeddings.create(model="lotlip", input=texts[0])
        start = time.perf_counter()
        visits = [ask_one_by_one(client, seed, texts, num_requests) for seed in range(num_clients)]
        seconds = await asyncio.gather(*visits)
        return time.perf_counter() - start, list(itertools.chain.from_iterable(seconds))


def measure_servers(
    num_clients: int, num_words: int, addresses: dict[str, str], words: list[str], args: ServeArguments
) -> dict:
    """
    Returns the table of one number of clients and one length of texts.

    Args:
        num_clients (`int`): The number of clients.
        num_words (`int`): The words of a text.
        addresses (`dict[str, str]`): Those of the servers, by name.
        words (`list[str]`): What texts are made of.
        args (`ServeArguments`): How often it is measured.
    """
    generator = random.Random(0)
    texts = [" ".join(generator.choices(words, k=num_words)) for _ in range(NUM_TEXTS)]
    took = {name: [] for name in addresses}
    seconds = {name: [] for name in addresses}
    for _ in range(args.repeats):
        for name, address in addresses.items():
            whole, each = asyncio.run(ask_at_once(address, num_clients, texts, args.requests))
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
            tables.append(measure_servers(num_clients, num_words, addresses, words, args))
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

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The search page under many visitors at once: how long each waits for an answer, and whether one is lost.

    python examples/benchmarks/visitors.py
    python examples/benchmarks/visitors.py --model_name_or_path outputs/demo --visitors 30 --questions 20

`lotlip app` serves drawn scenes in a process of its own. Each visitor is a client of Gradio in this one, asks with a
long caption, every third time with a picture too, and asks again as soon as the answer is there. The machine computes
both the page and its visitors.
"""

import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from gradio_client import Client, handle_file
from scaffold.original import SPECIAL_TOKENS, build_lotlip
from scaffold.timing import BenchmarkArguments, set_up, write_results

from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
from modeling_lotlip.arguments import argument, exit_on_error, parse
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.network import listen


NUM_TEXTS = 1000
# In which the pictures are indexed
MOST_SECONDS = 600


@dataclass
class VisitorArguments(BenchmarkArguments):
    """Who visits what."""

    visitors: list[int] = argument([1, 8, 30], "Visitors at once.", least=1)
    questions: int = argument(10, "Questions of each visitor.", least=2)
    pictures: int = argument(512, "Pictures of the collection.", least=12)
    model_name_or_path: str | None = argument(None, "A dual encoder. Default: a random LoTLIP ViT-B/16.")
    layers: int = argument(12, "Layers of both towers of the random model.", least=1)


def ask(client: Client, text: str, picture: Path | None = None) -> str:
    """What the page finds, without filters."""
    file = None if picture is None else handle_file(picture)
    return client.predict(text, file, "", "", "", api_name="/search")


@contextmanager
def serve(folder: Path, model: str, text: str, args: VisitorArguments) -> Iterator[str]:
    """The address of the page of a folder, whose pictures are indexed."""
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    options = {"model": model, "device": args.device, "port": port, "index_dir": folder / "indices"}
    command = [sys.executable, "-m", "lotlip", "app", str(folder / "photos"), "--no_browser"]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not re.search("Search your images at", (folder / "output.txt").read_text()):
            if process.poll() is not None:
                raise RuntimeError(f"The page has not started: {(folder / 'output.txt').read_text()}")
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port}"
        client = Client(address, verbose=False)
        deadline = time.monotonic() + MOST_SECONDS
        while f"{args.pictures:,} pictures" not in (
            found := client.predict(text, None, "", "", "", api_name="/search")
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(f"The pictures are not indexed in {MOST_SECONDS} seconds: {found[:1000]}")
            time.sleep(0.5)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def visit(address: str, number: int, texts: list[str], photos: list[Path], num_questions: int) -> list[float | None]:
    """The seconds that each answer took; None for one that did not come."""
    client, chance, seconds = Client(address, verbose=False), random.Random(number), []
    for question in range(num_questions):
        text = chance.choice(texts)
        picture = chance.choice(photos) if question % 3 == 2 else None
        start = time.perf_counter()
        try:
            found = ask(client, text, picture)
        except (ValueError, OSError, httpx.HTTPError) as error:  # what Gradio's client raises is a ValueError
            print(f"Visitor {number} lost an answer: {error}")
            seconds.append(None)
            continue
        # near copies are one card
        seconds.append(time.perf_counter() - start if 'class="card"' in found else None)
    return seconds


def measure_visitors(address: str, num: int, texts: list[str], photos: list[Path], args: VisitorArguments) -> dict:
    """What so many visitors at once waited."""
    start = time.perf_counter()
    with ThreadPoolExecutor(num) as executor:
        visits = [executor.submit(visit, address, i, texts, photos, args.questions) for i in range(num)]
        seconds = [second for each in visits for second in each.result()]
    took = time.perf_counter() - start
    answered = [second for second in seconds if second is not None]
    return {
        "answers": len(answered),
        "lost": len(seconds) - len(answered),
        "median_seconds": statistics.median(answered),
        "95th_percentile_seconds": statistics.quantiles(answered, n=20)[-1],
        "answers_per_second": len(answered) / took,
    }


def main() -> None:
    (args,) = parse((VisitorArguments,), description=__doc__)
    set_up(args)
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), args.model_name_or_path
        texts = [make_scene(1, index).long_caption for index in range(NUM_TEXTS)]
        if model is None:
            model = str(folder / "model")
            build_lotlip(args.layers, args.device).save_pretrained(model)
            words = sorted(set(re.findall(r"\w+|[.,]", " ".join(texts).lower())))
            tokenizer = LotlipTokenizer(vocab={word: number for number, word in enumerate(SPECIAL_TOKENS + words)})
            LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer).save_pretrained(model)
        (folder / "photos").mkdir()
        for index in range(args.pictures):
            make_scene(0, index).draw().save(folder / "photos" / f"{index:05}.png")
        photos = sorted((folder / "photos").iterdir())
        print("| visitors at once | answers | lost | s, median | s, 95 in 100 | answers/s |")
        print("| --- | --- | --- | --- | --- | --- |")
        rows = {}
        with serve(folder, model, texts[0], args) as address:
            for num in args.visitors:
                row = rows[str(num)] = measure_visitors(address, num, texts, photos, args)
                print(
                    f"| {num} | {row['answers']} | {row['lost']} | {row['median_seconds']:.2f} | "
                    f"{row['95th_percentile_seconds']:.2f} | {row['answers_per_second']:.1f} |",
                    flush=True,
                )
    write_results([{"title": "Visitors of the page", "rows": rows}], args)


if __name__ == "__main__":
    with exit_on_error("visitors.py"):
        main()

"""
Kills trainings, captionings, searches and embeddings with SIGKILL, and starts each again: in the end there must be
what an undisturbed run leaves, and at no moment may something that was finished be gone.

    python -m tests.reliability.kills --training 40 --captioning 30 --indexing 50 --embedding 50 --seed 0

Every third kill comes in the middle of a write: the process is frozen (SIGSTOP) as soon as it has a file of its output
folder open for writing, and killed if it still has it then. The others come at random moments. A job that ends before
its kill is compared, and the next round begins in another folder. Linux only, which tells the open files of a process.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import torch

from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.table.storage import EmbeddingTable, is_table
from modeling_lotlip.training.outputs import list_checkpoints
from tests.conftest import SERVER, assert_same_weights, save_small_model, training_argv
from tests.helpers.captioners import of_folder, read_records
from tests.helpers.chat_server import serve
from tests.helpers.commands import to_argv
from tests.reliability.commands import run_quietly


EVERY = 3  # of so many kills one comes in the middle of a write
OPEN_ALWAYS = (".lock", ".sqlite")  # as long as a process runs
TIME_LIMIT = 300  # seconds, as long as no machine takes for a job


class Training:
    """A training, which must end with the same weights bit by bit."""

    name = "training"

    def __init__(self, folder: Path, num_steps: int):
        self.folder = folder
        self.num_steps = num_steps

    def command(self, output: Path) -> list[str]:
        options = {"max_train_steps": self.num_steps, "checkpointing_steps": 1, "eval_steps": 100}
        argv = training_argv(self.folder, output.name, **options, resume_from_checkpoint="latest")
        return argv[2:]

    def list_finished(self, output: Path) -> list:
        return [path.name for path in list_checkpoints(output)]

    def check(self, output: Path, undisturbed: Path) -> None:
        assert_same_weights(output, undisturbed)
        results = [(folder / "eval_results.json").read_text() for folder in (output, undisturbed)]
        assert results[0] == results[1]
        assert self.list_finished(output) == self.list_finished(undisturbed)
        assert not list(output.rglob("*-partial"))


class Captioning:
    """Captions of pictures from a server, every one of which must be there once."""

    name = "captioning"

    def __init__(self, photos: Path, url: str):
        self.photos = photos
        self.url = url

    def command(self, output: Path) -> list[str]:
        options = {"captioner": "model", "endpoint": self.url, "output_dir": output, "concurrency": 8}
        options |= {"shard_size": 50, "without_rules": "all", "device": "cpu", **of_folder(self.photos)}
        return to_argv("recaption", **options)

    def list_finished(self, output: Path) -> list:
        with suppress(sqlite3.OperationalError):  # not there yet, or without a table
            with closing(sqlite3.connect(output / "captions.sqlite")) as connection:
                return connection.execute("SELECT key, caption FROM records ORDER BY key").fetchall()
        return []

    def check(self, output: Path, undisturbed: Path) -> None:
        rows = self.list_finished(output)
        assert rows == self.list_finished(undisturbed)
        assert len(rows) == len(list(self.photos.iterdir()))
        assert rows == sorted((row["key"], row["caption"]) for row in read_records(output))
        assert not list(output.rglob("*-partial"))


class Indexing:
    """A table of embeddings, which must end with the same rows."""

    name = "indexing"

    def __init__(self, photos: Path, model: Path):
        self.photos = photos
        self.model = model

    def command(self, output: Path) -> list[str]:
        options = {"index_dir": output, "model": self.model, "device": "cpu", "backend": "torch", "dtype": "float32"}
        return to_argv("search", self.photos, "a red boat", **options)

    def read(self, output: Path) -> list[dict]:
        folders = [path.parent for path in output.rglob("embeddings.lance")]
        columns = ["key", "kind", "position", "row", "hash", "problem", "embedding"]
        tables = [EmbeddingTable(folder) for folder in folders if is_table(folder)]
        rows = []
        for table in tables:
            for part in table.read(columns, None):
                rows += part.to_pylist()
        return sorted(rows, key=lambda row: (row["key"], row["kind"], row["position"]))

    def list_finished(self, output: Path) -> list:
        columns = ["key", "kind", "position", "hash", "problem"]
        return [tuple(row[column] for column in columns) for row in self.read(output)]

    def check(self, output: Path, undisturbed: Path) -> None:
        rows = self.read(output)
        expected = self.read(undisturbed)
        assert self.list_finished(output) == self.list_finished(undisturbed)
        assert rows
        embeds = torch.tensor([row.pop("embedding") for row in rows])
        expected_embeds = torch.tensor([row.pop("embedding") for row in expected])
        # batches are cut elsewhere, and what is stored is float16
        torch.testing.assert_close(embeds, expected_embeds, rtol=0, atol=1e-3)
        assert rows == expected
        assert not list(output.rglob("*-partial"))


class Embedding(Indexing):
    """The same of `lotlip embed`."""

    name = "embedding"

    def command(self, output: Path) -> list[str]:
        options = {"output_dir": output, "model": self.model, "device": "cpu", "batch_size": 64}
        return to_argv("embed", dataset_name=self.photos, only="images", **options)


def find_file_in_work(pid: int, folder: Path) -> str | None:
    """A file in a folder that a process has open for writing, those apart that are open as long as it runs."""
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # the process has ended
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                target = os.readlink(f"/proc/{pid}/fd/{number}")
                if target.startswith(f"{folder}/") and not target.endswith(OPEN_ALWAYS):
                    facts = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
                    flags = int(facts.partition("flags:")[2].split()[0], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        return str(Path(target).relative_to(folder))
    return None


def is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def freeze_in_a_write(process: multiprocessing.Process, folder: Path) -> str | None:
    """Freezes a process while it writes a file, and tells which; None if it ends before."""
    deadline = time.monotonic() + TIME_LIMIT
    while process.is_alive():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {TIME_LIMIT} s")
        if find_file_in_work(process.pid, folder) is None:
            continue
        os.kill(process.pid, signal.SIGSTOP)
        while process.is_alive() and not is_frozen(process.pid):
            time.sleep(0.0001)
        file = find_file_in_work(process.pid, folder)
        if file is not None:
            return file
        os.kill(process.pid, signal.SIGCONT)
    return None


class Run:
    """One job after the other, and their folders."""

    def __init__(self, job: Training | Captioning | Indexing, folder: Path, seed: int, has_workers: bool = True):
        self.job = job
        self.folder = folder
        self.has_workers = has_workers
        self.random = random.Random(f"{seed} {job.name}")
        self.num_rounds = 0
        self.kills = Counter()
        self.seconds = 0.0

    def start(self, output: Path) -> multiprocessing.Process:
        log = self.folder / f"{output.name}.log"
        argv = self.job.command(output)
        process = SERVER.Process(target=run_quietly, args=(log, argv, self.has_workers))
        process.start()
        return process

    def finish(self, process: multiprocessing.Process, output: Path) -> None:
        process.join(timeout=TIME_LIMIT)
        log = (self.folder / f"{output.name}.log").read_text()
        assert process.exitcode == 0, f"it ended with {process.exitcode}:\n{log[-3000:]}"

    def kill(self, process: multiprocessing.Process, output: Path, is_in_a_write: bool) -> str | None:
        """Kills a process, and tells when; None if it ended before."""
        start = time.monotonic()
        process.join(timeout=self.random.uniform(0, 0.6 * self.seconds))
        file = None
        if is_in_a_write:
            file = freeze_in_a_write(process, output)
            if file is None:
                return None
        if not process.is_alive():
            return None
        process.kill()
        process.join(timeout=TIME_LIMIT)
        if process.exitcode == 0:  # a moment ago
            return None
        assert process.exitcode == -signal.SIGKILL
        seconds = time.monotonic() - start
        if file is None:
            return f"after {seconds:.2f} s"
        return f"after {seconds:.2f} s, while it wrote {file}"

    def run(self, num_kills: int, tell: Callable[[str], None] = print) -> str:
        """Kills the job so often; tells what came of it."""
        undisturbed = self.folder / f"{self.job.name}-undisturbed"
        # is ready when the server has imported all
        first = SERVER.Process(target=time.sleep, args=(0,))
        first.start()
        first.join()
        start = time.monotonic()
        self.finish(self.start(undisturbed), undisturbed)
        self.seconds = time.monotonic() - start
        self.job.check(undisturbed, undisturbed)
        while self.kills.total() < num_kills:
            self.num_rounds += 1
            output = self.folder / f"{self.job.name}-{self.num_rounds}"
            self.run_round(output, undisturbed, num_kills, tell)
        return (
            f"{self.job.name}: {self.kills.total()} kills, {self.kills[True]} of them while a file was written, in "
            f"{self.num_rounds} jobs of {self.seconds:.1f} s; every one ended as the undisturbed one."
        )

    def run_round(self, output: Path, undisturbed: Path, num_kills: int, tell: Callable[[str], None]) -> None:
        """Starts a job again and again until it ends by itself, and compares."""
        while True:
            finished = self.job.list_finished(output)
            process = self.start(output)
            if self.kills.total() < num_kills:
                is_in_a_write = self.kills.total() % EVERY == 0
                when = self.kill(process, output, is_in_a_write)
                if when is not None:
                    self.kills[is_in_a_write] += 1
                    tell(f"{output.name}: kill {self.kills.total()} {when}")
                    left = self.job.list_finished(output)
                    assert set(finished) <= set(left), "what was finished is gone"
                    assert len(set(left)) == len(left), "something is there twice"
                    continue
            self.finish(process, output)
            self.job.check(output, undisturbed)
            shutil.rmtree(output)
            return


@contextmanager
def make_jobs(folder: Path, num_steps: int, num_pictures: int, num_copies: int) -> Iterator[list]:
    """The jobs on drawn scenes, with the server that writes the captions."""
    photos = folder / "photos"
    many = folder / "many_photos"
    photos.mkdir()
    many.mkdir()
    save_small_model(folder / "model")
    for index, scene in enumerate(load_scenes(num_pictures)):
        scene["image"].save(photos / f"{index}.png")
        for copy in range(num_copies):
            os.link(photos / f"{index}.png", many / f"{index}-{copy}.png")
    with serve({}) as server:
        tables = [table(many, folder / "model") for table in (Indexing, Embedding)]
        yield [Training(folder, num_steps), Captioning(photos, server.url), *tables]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("training", 40), ("captioning", 30), ("indexing", 50), ("embedding", 50)):
        description = f"How often it is killed. Default: {number}."
        parser.add_argument(f"--{name}", type=int, default=number, help=description)
    parser.add_argument("--seed", type=int, default=0, help="Of the moments. Default: 0.")
    description = "Jobs of an eighth, without processes that decode."
    parser.add_argument("--small", action="store_true", help=description)
    args = parser.parse_args()
    # as large as they have to be for kills to hit all parts
    sizes = {"num_steps": 20, "num_pictures": 240, "num_copies": 10}
    if args.small:
        sizes = {"num_steps": 6, "num_pictures": 60, "num_copies": 5}
    with tempfile.TemporaryDirectory() as folder, make_jobs(Path(folder), **sizes) as jobs:
        results = []
        for job in jobs:
            num_kills = getattr(args, job.name)
            if num_kills:
                run = Run(job, Path(folder), args.seed, has_workers=not args.small)
                results.append(run.run(num_kills))
        print("\n".join(results))


if __name__ == "__main__":
    main()

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions on disk: a row for each image and captioner in parquet shards, which training reads as side files."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

import pyarrow as pa
from accelerate import PartialState
from pyarrow import parquet

from ..data.rows import batched
from ..output_folder import atomic_write
from .files import ROWS_PER_BATCH, open_parquet, read_rows
from .known_keys import KnownKeys
from .photos import falls_to


NUM_CAUSES = 3  # of failures, in messages

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "sha256": pa.string(),  # of the image file, in hexadecimal digits
        "caption": pa.string(),
        "captioner": pa.string(),
        "revision": pa.string(),
        "prompt": pa.string(),
        "generation_settings": pa.string(),  # JSON
        "num_tokens": pa.int32(),
        "rejected_by": pa.string(),  # the rule that rejected the caption
        "error": pa.string(),  # why there is no caption
    }
)


def list_shards(folder: Path) -> list[Path]:
    """The shards of a folder, in the order of their names."""
    return sorted(folder.glob("captions-*.parquet"))


def read_shard(path: Path, columns: list[str]) -> Iterator[dict]:
    """
    Some columns of a shard.

    Raises:
        `ValueError`: if it is damaged.
    """
    for rows in read_rows(path, columns):
        yield from rows


def list_journals(folder: Path) -> list[Path]:
    """What runs have written that is in no shard yet."""
    return sorted(folder.glob("captions-*.journal"))


def count_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return file.metadata.num_rows


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """Writes a shard, whole or not at all."""
    with atomic_write(path) as partial, parquet.ParquetWriter(partial, SCHEMA) as writer:
        for batch in batched(rows, ROWS_PER_BATCH):
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))


def read_journal(path: Path) -> Iterator[dict]:
    """The rows of a journal; the last one may have been torn off."""
    with open(path, encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.endswith("\n"))


def commit_journal(journal: Path) -> None:
    """
    Writes the rows of a journal to the shard of its name, after those that it has, and deletes the journal. What is
    killed in between is done again at the next start, and no row is lost, nor there twice.
    """
    shard = journal.with_suffix(".parquet")
    first = next(read_journal(journal), None)
    written = read_shard(shard, ["key", "captioner"]) if shard.exists() else []
    if first is not None and {"key": first["key"], "captioner": first["captioner"]} not in written:
        earlier = read_shard(shard, SCHEMA.names) if shard.exists() else []
        write_rows(shard, chain(earlier, read_journal(journal)))
    journal.unlink()


def commit_journals(folder: Path) -> None:
    """Commits what runs that were killed have left in a folder."""
    for journal in list_journals(folder):
        commit_journal(journal)


def remove_failed(folder: Path, captioners: list[str]) -> int:
    """Removes the rows of failures of some captioners, which are then captioned as new ones; returns their number."""
    num_removed = 0
    for path in list_shards(folder):
        rows = list(read_shard(path, SCHEMA.names))
        kept = [row for row in rows if row["error"] is None or row["captioner"] not in captioners]
        num_removed += len(rows) - len(kept)
        if not kept:
            path.unlink()
        elif len(kept) < len(rows):
            write_rows(path, kept)
    return num_removed


class Records:
    """
    The records of a folder: those of earlier runs, and those that this process adds, in files of its own. A record is
    on the disk as soon as it is added, as a line of a journal; full journals become parquet files. Of the earlier
    records only those are kept in mind, as `known`, whose images fall to this process.

    Args:
        output_dir (`Path`):
            The folder.
        shard_size (`int`):
            The rows of a file. The last one of this process is filled up first.
        state (`PartialState`):
            The processes. The number of this one is in the names of its files.

    Raises:
        `ValueError`: if a file is damaged.
    """

    def __init__(self, output_dir: Path, shard_size: int, state: PartialState):
        self.output_dir = output_dir
        self.shard_size = shard_size
        self.process_index = state.process_index
        self.journal: TextIO | None = None
        self.known = KnownKeys()
        self.highest, last, num_rows = -1, -1, shard_size
        for path in list_shards(output_dir):
            number, process_index = map(int, path.stem.split("-")[1:])
            self.highest = max(self.highest, number)
            if process_index == self.process_index:
                last, num_rows = number, count_rows(path)
            for row in read_shard(path, ["key", "captioner", "sha256"]):
                if falls_to(state, row["key"]):
                    self.known.add_record(row["captioner"], row["key"], row["sha256"])
        if num_rows < shard_size:
            self.number, self.num_rows = last, num_rows
        else:
            self.begin_shard()

    def begin_shard(self) -> None:
        self.highest += 1
        self.number, self.num_rows = self.highest, 0

    def add(self, record: dict) -> None:
        """Writes a record, and begins another file if this one is full."""
        if self.journal is None:
            path = self.output_dir / f"captions-{self.number:06d}-{self.process_index:03d}.journal"
            self.journal = open(path, "w", encoding="utf-8")
        # a server may send half of a pair of surrogates, which is in no file of texts
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace").decode()
        self.journal.write(line + "\n")
        self.journal.flush()
        self.num_rows += 1
        if self.num_rows >= self.shard_size:
            self.write()
            self.begin_shard()

    def write(self) -> None:
        """Makes a parquet file of the journal, if there is one."""
        if self.journal is not None:
            self.journal.close()
            path, self.journal = Path(self.journal.name), None
            commit_journal(path)


def summarize(folder: Path) -> str:
    """A line for each captioner: its captions, those that rules rejected, and its failures with the first causes."""
    numbers, rejected, causes = Counter(), defaultdict(Counter), defaultdict(Counter)
    for path in list_shards(folder):
        for row in read_shard(path, ["captioner", "rejected_by", "error"]):
            numbers[row["captioner"]] += row["error"] is None
            if row["rejected_by"] is not None:
                rejected[row["captioner"]][row["rejected_by"]] += 1
            if row["error"] is not None:
                causes[row["captioner"]][row["error"]] += 1
    lines = []
    for captioner, number in numbers.items():
        rules, failures = rejected[captioner], causes[captioner]
        line = f"{captioner}: {number} captions, {rules.total()} of them rejected by rules"
        line += f" {dict(rules.most_common())}" if rules else ""
        line += f", {failures.total()} failures"
        if failures:
            examples = ", ".join(f"{cause!r}" for cause, _ in failures.most_common(NUM_CAUSES))
            line += f" (such as {examples}); `--retry_failed` tries them again"
        lines.append(f"{line}.")
    return "\n".join(lines)

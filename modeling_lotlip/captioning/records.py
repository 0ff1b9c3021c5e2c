# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Captions on disk: a row for each image and captioner in parquet shards, which training reads as side files."""

from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
from accelerate import PartialState

from ..files import write_table
from .files import open_parquet
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


def read_shard(path: Path, columns: list[str]) -> list[dict]:
    """
    Some columns of a shard.

    Raises:
        `ValueError`: if it is damaged.
    """
    with open_parquet(path) as file:
        return file.read(columns).to_pylist()


def remove_failed(folder: Path, captioners: list[str]) -> int:
    """Removes the rows of failures of some captioners, which are then captioned as new ones; returns their number."""
    num_removed = 0
    for path in list_shards(folder):
        rows = read_shard(path, SCHEMA.names)
        kept = [row for row in rows if row["error"] is None or row["captioner"] not in captioners]
        num_removed += len(rows) - len(kept)
        if not kept:
            path.unlink()
        elif len(kept) < len(rows):
            write_table(path, pa.Table.from_pylist(kept, SCHEMA))
    return num_removed


class Records:
    """
    The records of a folder: those of earlier runs, and those that this process adds, in files of its own. Of the
    earlier ones only those are kept in memory whose images fall to this process: which have a record, by captioner, in
    `done`, and the hashes of their files in `digests`.

    Args:
        output_dir (`Path`):
            The folder.
        shard_size (`int`):
            The rows of a file.
        state (`PartialState`):
            The processes. The number of this one is in the names of its files.

    Raises:
        `ValueError`: if a file is damaged.
    """

    def __init__(self, output_dir: Path, shard_size: int, state: PartialState):
        self.output_dir = output_dir
        self.shard_size = shard_size
        self.process_index = state.process_index
        self.waiting: list[dict] = []
        shards = list_shards(output_dir)
        self.next_number = max((int(path.stem.split("-")[1]) for path in shards), default=-1) + 1
        self.done: dict[str, set[str]] = {}
        self.digests: dict[str, str | None] = {}
        for path in shards:
            for row in read_shard(path, ["key", "captioner", "sha256"]):
                if falls_to(state, row["key"]):
                    self.done.setdefault(row["captioner"], set()).add(row["key"])
                    self.digests[row["key"]] = row["sha256"]

    def add(self, record: dict) -> None:
        """Takes a record, and writes those that wait if they fill a file."""
        self.waiting.append(record)
        if len(self.waiting) >= self.shard_size:
            self.write()

    def write(self) -> None:
        """Writes the records that wait, if there are any."""
        if self.waiting:
            name = f"captions-{self.next_number:06d}-{self.process_index:03d}.parquet"
            write_table(self.output_dir / name, pa.Table.from_pylist(self.waiting, SCHEMA))
            self.next_number += 1
            self.waiting = []


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

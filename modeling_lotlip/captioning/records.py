# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Captions on disk: a row for each image and captioner in the table of `captions.sqlite`, which a resumed run continues,
and parquet files of these rows, which training reads as caption files.
"""

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ..utils.output_folder import atomic_write


DATABASE = "captions.sqlite"
ROWS_PER_BATCH = 10_000
SECONDS_PER_COMMIT = 1
SECONDS_TO_WAIT = 3600  # for another process that writes
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
COLUMNS = ", ".join(SCHEMA.names)
UPSERT = f"""
INSERT INTO records ({COLUMNS}) VALUES ({", ".join(f":{name}" for name in SCHEMA.names)})
ON CONFLICT (key, captioner)
DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in SCHEMA.names)}, is_written = 0
"""


@contextmanager
def open_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """
    A connection to the table of a folder, which one thread at a time uses.

    Raises:
        `ValueError`: if there are files of captions, but not their table.
        `OSError`: if the table is damaged, or the disk full.
    """
    if not (folder / DATABASE).exists() and (shards := sorted(folder.glob("captions-*.parquet"))):
        raise ValueError(f"{folder} holds {shards[0].name}, but not {DATABASE}, its table: name another folder.")
    connection = sqlite3.connect(
        folder / DATABASE, timeout=SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False
    )
    try:
        types = {name: "INTEGER" if name == "num_tokens" else "TEXT" for name in SCHEMA.names}
        columns = ", ".join(f"{name} {sql_type}" for name, sql_type in types.items())
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, {columns}, "
            "is_written INTEGER NOT NULL DEFAULT 0, UNIQUE (key, captioner))"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS unwritten ON records (id) WHERE NOT is_written")
        yield connection
    except sqlite3.Error as error:
        raise OSError(f"{folder / DATABASE}: {error}.") from error
    finally:
        connection.close()


class Records:
    """
    Adds records to the table of a folder, by a connection of [`open_database`], in a commit a second: a killed run
    loses those of the last one. Each `shard_size` rows, the same in every run, become a parquet file, in the order in
    which they were added.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path, shard_size: int):
        self.connection, self.folder, self.shard_size = connection, folder, shard_size
        self.added, self.num_added, self.committed_at = [], 0, 0.0

    def add(self, record: dict) -> None:
        """Adds a record, in place of an earlier one of the same key and captioner."""
        # a server may send half of a pair of surrogates, which no file of texts can hold
        self.added.append(
            {
                name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
                for name, value in record.items()
            }
        )
        if time.monotonic() - self.committed_at >= SECONDS_PER_COMMIT:
            self.commit()
        self.num_added += 1
        if self.num_added % self.shard_size == 0:
            self.write()

    def commit(self) -> None:
        """Writes to the table what was added."""
        if self.added:
            with self.transaction():
                self.connection.executemany(UPSERT, self.added)
            self.added = []
        self.committed_at = time.monotonic()

    def write(self) -> None:
        """Writes anew every parquet file that lacks rows of the table, also those that other processes added."""
        self.commit()
        while True:
            with self.transaction():  # keeps other processes from writing the same file
                first = self.connection.execute("SELECT id FROM records WHERE NOT is_written ORDER BY id LIMIT 1")
                if (row := first.fetchone()) is None:
                    return
                shard = (row[0] - 1) // self.shard_size
                ids = "id BETWEEN ? AND ?", (shard * self.shard_size + 1, (shard + 1) * self.shard_size)
                rows = self.connection.execute(f"SELECT {COLUMNS} FROM records WHERE {ids[0]} ORDER BY id", ids[1])
                path = self.folder / f"captions-{shard:06d}.parquet"
                with atomic_write(path) as partial, parquet.ParquetWriter(partial, SCHEMA) as writer:
                    while batch := rows.fetchmany(ROWS_PER_BATCH):
                        columns = [pa.array(column, field.type) for column, field in zip(zip(*batch), SCHEMA)]
                        writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
                self.connection.execute(f"UPDATE records SET is_written = 1 WHERE {ids[0]}", ids[1])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is inside or nothing, while no other process writes."""
        self.connection.execute("BEGIN IMMEDIATE")
        with self.connection:
            yield


def summarize(connection: sqlite3.Connection) -> list[str]:
    """For each captioner a line: its captions, those that rules rejected, and its failures with the first causes."""
    counts = connection.execute(
        "SELECT captioner, rejected_by, error, count(*) FROM records GROUP BY captioner, rejected_by, error "
        "ORDER BY count(*) DESC"
    )
    numbers, rejected, causes = Counter(), defaultdict(dict), defaultdict(Counter)
    for captioner, rule, error, number in counts:
        numbers[captioner] += 0 if error else number
        if rule:
            rejected[captioner][rule] = number
        if error:
            causes[captioner][error] = number
    lines = []
    for captioner, number in numbers.items():
        rules, failures = rejected[captioner], causes[captioner]
        line = f"{captioner}: {number} captions, {sum(rules.values())} of them rejected by rules"
        line += f" {rules}" * bool(rules) + f", {failures.total()} failures"
        if failures:
            examples = ", ".join(map(repr, [*failures][:NUM_CAUSES]))
            line += f" (such as {examples}); `--retry_failed` tries them again"
        lines.append(f"{line}.")
    return lines

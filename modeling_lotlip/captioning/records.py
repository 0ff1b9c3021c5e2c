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

from ..output_folder import atomic_write


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
    Adds records to the table of a folder, in a commit a second: a killed run loses those of the last one. Each
    `shard_size` rows, in the order in which they were added, become a parquet file.

    Args:
        connection (`sqlite3.Connection`):
            Of [`open_database`].
        folder (`Path`):
            The folder.
        shard_size (`int`):
            The rows of a file, the same in every run.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path, shard_size: int):
        self.connection, self.folder, self.shard_size = connection, folder, shard_size
        self.added, self.num_added, self.committed_at = [], 0, 0.0
        (last,) = connection.execute("SELECT max(id) FROM records").fetchone()
        for shard in range(-(-(last or 0) // shard_size)):
            if not self.path(shard).exists():  # it was deleted
                self.mark(shard, is_written=False)

    def path(self, shard: int) -> Path:
        return self.folder / f"captions-{shard:06d}.parquet"

    def span(self, shard: int) -> tuple[int, int]:
        """The first and the last id of a shard."""
        return shard * self.shard_size + 1, (shard + 1) * self.shard_size

    def mark(self, shard: int, is_written: bool) -> None:
        self.connection.execute(
            "UPDATE records SET is_written = ? WHERE id BETWEEN ? AND ?", (is_written, *self.span(shard))
        )

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
                rows = self.connection.execute(
                    f"SELECT {COLUMNS} FROM records WHERE id BETWEEN ? AND ? ORDER BY id", self.span(shard)
                )
                with atomic_write(self.path(shard)) as partial, parquet.ParquetWriter(partial, SCHEMA) as writer:
                    while batch := rows.fetchmany(ROWS_PER_BATCH):
                        columns = [pa.array(column, field.type) for column, field in zip(zip(*batch), SCHEMA)]
                        writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
                self.mark(shard, is_written=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is inside or nothing, while no other process writes."""
        self.connection.execute("BEGIN IMMEDIATE")
        with self.connection:
            yield


class SeenKeys:
    """
    The keys of the images that one pass over a data set has met, each once, in a temporary database.

    Args:
        connection (`sqlite3.Connection`):
            Of [`open_database`], beside that of [`Records`]: it reads in another thread what has a record.
        retry_failed (`bool`, *optional*, defaults to `False`):
            Whether a record without a caption counts as none.
    """

    def __init__(self, connection: sqlite3.Connection, retry_failed: bool = False):
        self.records, self.condition = connection, " AND error IS NULL" if retry_failed else ""
        self.seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.seen.execute("CREATE TABLE seen (key TEXT PRIMARY KEY, sha256 TEXT) WITHOUT ROWID")
        self.seen.execute("BEGIN")

    def add(self, key: str) -> bool:
        """Notes a key; whether it was not there."""
        return self.seen.execute("INSERT INTO seen VALUES (?, NULL) ON CONFLICT DO NOTHING", (key,)).rowcount == 1

    def set_sha256(self, key: str, sha256: str | None) -> None:
        """Notes the hash of the image of a key."""
        self.seen.execute("UPDATE seen SET sha256 = ? WHERE key = ?", (sha256, key))

    def find_sha256(self, key: str) -> str | None:
        """The hash of the image of a key, as it was noted or recorded."""
        (sha256,) = self.seen.execute("SELECT sha256 FROM seen WHERE key = ?", (key,)).fetchone()
        recorded = self.records.execute("SELECT sha256 FROM records WHERE key = ? LIMIT 1", (key,)).fetchone()
        return sha256 or (recorded and recorded[0])

    def has_record(self, key: str, captioner: str) -> bool:
        """Whether a key has a record by a captioner."""
        query = f"SELECT 1 FROM records WHERE key = ? AND captioner = ?{self.condition}"
        return self.records.execute(query, (key, captioner)).fetchone() is not None


def count_records(folder: Path) -> Counter:
    """How many records each captioner has."""
    if not (folder / DATABASE).exists():
        return Counter()
    with open_database(folder) as connection:
        return Counter(dict(connection.execute("SELECT captioner, count(*) FROM records GROUP BY captioner")))


def find_captioner(connection: sqlite3.Connection, captioner: str) -> dict | None:
    """What the last record of a captioner says of it; None if it has none."""
    names = ("captioner", "revision", "generation_settings")
    query = f"SELECT {', '.join(names)} FROM records WHERE captioner = ? ORDER BY id DESC LIMIT 1"
    row = connection.execute(query, (captioner,)).fetchone()
    return row and dict(zip(names, row))


def summarize(connection: sqlite3.Connection) -> list[str]:
    """For each captioner a line: its captions, those that rules rejected, and its failures with the first causes."""
    counts = connection.execute(
        "SELECT captioner, rejected_by, error, count(*) FROM records GROUP BY captioner, rejected_by, error"
    )
    numbers, rejected, causes = Counter(), defaultdict(Counter), defaultdict(Counter)
    for captioner, rule, error, number in counts:
        numbers[captioner] += 0 if error else number
        if rule:
            rejected[captioner][rule] += number
        if error:
            causes[captioner][error] += number
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
    return lines

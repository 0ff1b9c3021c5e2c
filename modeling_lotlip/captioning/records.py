# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Captions on disk: a row for each image and captioner in the table of `captions.sqlite`, which a
resumed run continues, and parquet files of these rows, which training reads as caption files.
"""

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ..utils.output_folder import atomic_write, read_folder_id
from ..utils.terminal import without_stop


DATABASE = "captions.sqlite"
ROWS_PER_BATCH = 10_000
ROWS_PER_HASH = 1_000
EDITED = "edited "
ROWS_HASH = b"lotlip_rows_hash"  # in the metadata of a parquet file: see `RowsHash`
SECONDS_TO_WAIT = 3600  # for another process that writes
NUM_CAUSES = 3  # of failures, in messages

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "sha256": pa.string(),  # of the image file, in hexadecimal digits
        "caption": pa.string(),
        "caption_before_rules": pa.string(),  # where rules have changed it
        "caption_hash": pa.string(),  # by which an edited caption is known: see `hash_caption`
        "captioner": pa.string(),
        "revision": pa.string(),
        "prompt": pa.string(),
        "generation_settings": pa.string(),  # JSON
        "num_tokens": pa.int32(),
        "is_cut_off": pa.bool_(),  # the captioner was stopped at the maximum of tokens
        "rejected_by": pa.string(),  # the rule that rejected the caption, or `OTHER_IMAGE`
        "error": pa.string(),  # why there is no caption
    }
)
SQL_TYPES = {pa.string(): "TEXT", pa.int32(): "INTEGER", pa.bool_(): "INTEGER"}
COLUMNS = ", ".join(SCHEMA.names)
UPSERT = f"""
INSERT INTO records ({COLUMNS}) VALUES ({", ".join(f":{name}" for name in SCHEMA.names)})
ON CONFLICT (key, captioner)
DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in SCHEMA.names)}, is_written = 0
"""
# What other captioners wrote of an image that was replaced
OTHER_IMAGE = "other_image"
MARK_OTHERS = f"""
UPDATE records SET rejected_by = '{OTHER_IMAGE}', is_written = 0
WHERE key = :key AND sha256 != :sha256 AND error IS NULL AND rejected_by IS NOT '{OTHER_IMAGE}'
"""
NOTE_FILE = "INSERT OR REPLACE INTO image_files VALUES (:key, :sha256, :path, :size, :modified, :changed)"


def hash_caption(caption: str | None, is_edited: bool = False) -> str:
    """
    Hashes a caption as it is written, to 16 hexadecimal digits. A caption that has another hash than
    the one beside it has been edited since; before that of one that was edited earlier stands `edited`.
    """
    digits = hashlib.sha256((caption or "").encode()).hexdigest()[:16]
    if is_edited:
        return f"{EDITED}{digits}"
    return digits


def holds_content(column_type: pa.DataType) -> bool:
    """Says whether a column holds the content of files, or has it in its values, as one of images."""
    if pa.types.is_struct(column_type):
        return any(holds_content(field.type) for field in column_type)
    if pa.types.is_list(column_type) or pa.types.is_large_list(column_type):
        return holds_content(column_type.value_type)
    return pa.types.is_binary(column_type) or pa.types.is_large_binary(column_type)


class RowsHash:
    """
    Hashes the rows of a parquet file, which is noted in its metadata: a file with other rows, or
    without the note, has been changed by somebody since it was written, or was written to another
    folder. The content of images in it is not looked at: nobody edits it.

    Args:
        folder (`Path`):
            The folder of the file: see [`read_folder_id`].
    """

    def __init__(self, folder: Path):
        self.hasher = hashlib.sha256(read_folder_id(folder).encode())

    def update(self, table: pa.Table) -> None:
        """Adds rows. All parts but the last have a multiple of `ROWS_PER_HASH` of them."""
        names = [field.name for field in table.schema if not holds_content(field.type)]
        for start in range(0, table.num_rows, ROWS_PER_HASH):
            rows = table.slice(start, ROWS_PER_HASH).select(names).to_pydict()
            self.hasher.update(json.dumps(rows, default=repr).encode())

    def to_metadata(self) -> dict[bytes, bytes]:
        """Returns what is noted in the file."""
        return {ROWS_HASH: self.hasher.hexdigest().encode()}


def is_as_written(path: Path) -> bool:
    """Says whether a file has the rows with which it was written: see [`RowsHash`]."""
    noted = (parquet.read_metadata(path).metadata or {}).get(ROWS_HASH)
    if noted is None:
        return False
    rows_hash = RowsHash(path.parent)
    rows_hash.update(parquet.read_table(path, partitioning=None))
    return rows_hash.to_metadata()[ROWS_HASH] == noted


def check_as_written(path: Path) -> None:
    """Raises a `ValueError` if somebody has changed a file of captions that is to be written anew."""
    try:
        is_changed = not is_as_written(path)
    except (pa.ArrowException, OSError):  # not there, or damaged
        return
    if is_changed:
        raise ValueError(
            f"{path} has been changed since it was written, and writing it anew would undo that: "
            "move it to another folder."
        )


@contextmanager
def open_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """
    Opens a connection to the table of a folder, which one thread at a time uses.

    Raises:
        `ValueError`: if there are files of captions, but not their table.
        `OSError`: if the table is damaged, or the disk full.
    """
    shards = sorted(folder.glob("captions-*.parquet"))
    if shards and not (folder / DATABASE).exists():
        raise ValueError(f"{folder} holds {shards[0].name}, but not {DATABASE}, its table: name another folder.")
    connection = sqlite3.connect(
        folder / DATABASE, timeout=SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False
    )
    try:
        columns = [f"{field.name} {SQL_TYPES[field.type]}" for field in SCHEMA]
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, {', '.join(columns)}, "
            "is_written INTEGER NOT NULL DEFAULT 0, UNIQUE (key, captioner))"
        )
        check_version(connection, folder)
        # the local files that were captioned last, by which a later run knows them without reading them
        connection.execute(
            "CREATE TABLE IF NOT EXISTS image_files (key TEXT PRIMARY KEY, sha256 TEXT, path TEXT, size INTEGER, "
            "modified INTEGER, changed INTEGER)"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS unwritten ON records (id) WHERE NOT is_written")
        yield connection
    except sqlite3.Error as error:
        raise OSError(f"{folder / DATABASE}: {without_stop(error)}.") from error
    finally:
        connection.close()


def check_version(connection: sqlite3.Connection, folder: Path) -> None:
    """Raises a `ValueError` if the table has other columns than records have."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(records)")}
    if not columns.issuperset(SCHEMA.names):
        raise ValueError(f"{folder / DATABASE} is of another version of this package: name another folder.")


class Records:
    """
    Adds records to the table of a folder: a killed run loses those since the last [`commit`]. Each
    `shard_size` rows, the same in every run, become a parquet file, in the order in which they were
    added.

    Args:
        connection (`sqlite3.Connection`):
            One of [`open_database`].
        folder (`Path`):
            Where the table and the files are.
        shard_size (`int`):
            The rows of a file.
    """

    def __init__(self, connection: sqlite3.Connection, folder: Path, shard_size: int):
        self.connection = connection
        self.folder = folder
        self.shard_size = shard_size
        self.added = []
        self.files = []
        self.num_added = 0

    def add(self, record: dict, signature: dict[str, int] | None = None) -> None:
        """
        Adds a record, in place of an earlier one of the same key and captioner, and notes the
        signature of the local file of the image: see [`sign_file`].
        """
        self.added.append({name: replace_surrogates(value) for name, value in record.items()})
        if signature is not None:
            self.files.append({"key": self.added[-1]["key"], "sha256": record["sha256"], **signature})
        self.num_added += 1
        if self.num_added % self.shard_size == 0:
            self.write()

    def find_lost_files(self) -> None:
        """
        Notes the rows of parquet files that were deleted or damaged since, to be written anew. Out
        of which somebody has taken rows stay so.
        """
        (last,) = self.connection.execute("SELECT max(id) FROM records").fetchone()
        for shard in range(-(-(last or 0) // self.shard_size)):
            with self.transaction():  # no other process is about to write the file
                query = "SELECT count(*) FROM records WHERE is_written AND id BETWEEN ? AND ?"
                (num_written,) = self.connection.execute(query, self.list_ids(shard)).fetchone()
                if lacks_rows(self.name_file(shard), num_written):
                    query = "UPDATE records SET is_written = 0 WHERE id BETWEEN ? AND ?"
                    self.connection.execute(query, self.list_ids(shard))

    def check_edits(self) -> None:
        """
        Raises a `ValueError` if somebody has edited a file that is to be written anew: the last one if
        it is not full, and those of which rows are not written.
        """
        query = "SELECT DISTINCT (id - 1) / :size FROM records WHERE NOT is_written"
        with self.transaction():  # no other process is about to write a file
            shards = {shard for (shard,) in self.connection.execute(query, {"size": self.shard_size})}
            (last,) = self.connection.execute("SELECT max(id) FROM records").fetchone()
            if (last or 0) % self.shard_size > 0:
                shards.add(last // self.shard_size)
            for shard in sorted(shards):
                check_as_written(self.name_file(shard))

    def list_ids(self, shard: int) -> tuple[int, int]:
        """Returns the first and the last id of the rows of a parquet file."""
        return shard * self.shard_size + 1, (shard + 1) * self.shard_size

    def name_file(self, shard: int) -> Path:
        """Returns the path of a parquet file."""
        return self.folder / f"captions-{shard:06d}.parquet"

    def commit(self) -> None:
        """Writes to the table what was added."""
        if self.added:
            with self.transaction():
                self.connection.executemany(UPSERT, self.added)
                self.connection.executemany(MARK_OTHERS, self.added)
                self.connection.executemany(NOTE_FILE, self.files)
            self.added = []
            self.files = []

    def write(self) -> None:
        """Writes anew every parquet file that lacks rows of the table, also those that other processes added."""
        self.commit()
        is_left = True
        while is_left:
            with self.transaction():  # keeps other processes from writing the same file
                is_left = self.write_first_shard()

    def write_first_shard(self) -> bool:
        """Writes the first parquet file that lacks rows of the table; says whether there was one."""
        first = self.connection.execute("SELECT min(id) FROM records WHERE NOT is_written").fetchone()[0]
        if first is None:
            return False
        shard = (first - 1) // self.shard_size
        ids = self.list_ids(shard)
        rows = self.connection.execute(f"SELECT {COLUMNS} FROM records WHERE id BETWEEN ? AND ? ORDER BY id", ids)
        check_as_written(self.name_file(shard))
        rows_hash = RowsHash(self.folder)
        with atomic_write(self.name_file(shard)) as partial, parquet.ParquetWriter(partial, SCHEMA) as writer:
            batch = rows.fetchmany(ROWS_PER_BATCH)
            while batch:
                table = to_table(batch)
                writer.write_table(table)
                rows_hash.update(table)
                batch = rows.fetchmany(ROWS_PER_BATCH)
            writer.add_key_value_metadata(rows_hash.to_metadata())
        self.connection.execute("UPDATE records SET is_written = 1 WHERE id BETWEEN ? AND ?", ids)
        return True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes all that is inside happen or nothing, while no other process writes."""
        self.connection.execute("BEGIN IMMEDIATE")
        with self.connection:
            yield


def lacks_rows(path: Path, num_rows: int) -> bool:
    """Says whether a parquet file is damaged or not there, or an earlier one, which has fewer rows."""
    try:
        return parquet.read_metadata(path).num_rows < num_rows and is_as_written(path)
    except (pa.ArrowException, OSError):
        return True


def replace_surrogates(value: object) -> object:
    """Replaces half of a pair of surrogates, which a server may send, and which no file of texts can hold."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode()


def to_table(rows: list[tuple]) -> pa.Table:
    """Makes an Arrow table of rows of the database, which has integers for booleans."""
    columns = []
    for values, field in zip(zip(*rows), SCHEMA):
        if pa.types.is_boolean(field.type):
            columns.append(pa.array(values, pa.int8()).cast(field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def summarize(connection: sqlite3.Connection) -> list[str]:
    """Makes a line for each captioner: its captions, those that rules rejected, and its failures with first causes."""
    rows = connection.execute(
        "SELECT captioner, rejected_by, error, count(*) FROM records GROUP BY captioner, "
        "rejected_by, error ORDER BY count(*) DESC"
    )
    num_captions = Counter()
    num_rejected = defaultdict(dict)
    num_failed = defaultdict(Counter)
    for captioner, rule, error, count in rows:
        if error:
            num_captions[captioner] += 0
            num_failed[captioner][error] = count
        else:
            num_captions[captioner] += count
        if rule:
            num_rejected[captioner][rule] = count
    lines = []
    for captioner in num_captions:
        line = describe_captioner(
            captioner,
            num_captions[captioner],
            num_rejected[captioner],
            num_failed[captioner],
        )
        lines.append(line)
    return lines


def describe_captioner(
    captioner: str,
    num_captions: int,
    num_rejected: dict[str, int],
    num_failed: Counter,
) -> str:
    """
    Describes what a captioner has done.

    Args:
        captioner (`str`):
            Its name.
        num_captions (`int`):
            How many captions it wrote.
        num_rejected (`dict[str, int]`):
            How many of them are rejected, by rule.
        num_failed (`Counter`):
            On how many images it failed, by the message.

    Returns:
        `str`: a line.
    """
    line = f"{captioner}: {num_captions} captions, {sum(num_rejected.values())} of them rejected by rules"
    if num_rejected:
        line += f" {num_rejected}"
    line += f", {num_failed.total()} failures"
    if num_failed:
        examples = [repr(error) for error in list(num_failed)[:NUM_CAUSES]]
        line += f" (such as {', '.join(examples)}); `--retry_failed` tries them again"
    return f"{line}."

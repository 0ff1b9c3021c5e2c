# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Embeddings on disk: a table of LanceDB in a folder, with what its embeddings depend on."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import lancedb
import pyarrow as pa
import torch

from ..data.images import name_readers
from ..encoder.arguments import KINDS
from ..encoder.dual_encoder import DualEncoder
from ..encoder.fastest import Computation
from ..utils.output_folder import OutputFolder
from ..utils.terminal import without_stop
from .schema import COLUMNS, NEW_COLUMNS, SIGNATURE, make_schema, to_column, to_vectors


TABLE = "embeddings"
# What LanceDB puts before an error, of the parts of it that it passed
LAYERS = re.compile(r"(?:lance error|LanceError\([\w ]+\)|Generic [\w/]+ error|Wrapped error): ")
# What it says of a condition of the caller's that is wrong
WRONG_CONDITION = re.compile(r"sql parser error|Schema error: No field named")
# Rows that are read at once, and keys in a condition
NUM_AT_ONCE = 1_000


@dataclass(frozen=True)
class KeptSchema:
    """
    The schema of a table, as it was read last.

    Args:
        written (`tuple[int, frozenset[str]]`, *optional*):
            What was on disk then: see [`list_versions`].
        schema (`pa.Schema`):
            The schema.
    """

    written: tuple[int, frozenset[str]] | None
    schema: pa.Schema


class EmbeddingTable:
    """
    Embeddings in a folder. Every question is answered from what is on disk then, written by any program.

    Args:
        folder (`Path`):
            The folder, in which [`EmbeddingTable.create`] has made a table.

    Raises:
        `ValueError`: if there is no table.
    """

    def __init__(self, folder: Path):
        if not is_table(folder):
            raise ValueError(f"{folder} holds no embeddings: make them with `lotlip embed --output_dir {folder}`.")
        self.folder = folder
        with self.as_os_error():
            # the table of LanceDB; other files call an `EmbeddingTable` `table`, and so this one `table.table`
            self.table = connect(folder).open_table(TABLE)
        self.kept_schema: KeptSchema | None = None
        metadata = self.schema.metadata or {}
        if b"settings" not in metadata:
            raise OSError(
                f"The embeddings in {folder} cannot be read: what they depend on is not noted. It is damaged, or of "
                "another program: delete the folder to make it anew, or name another one."
            )
        self.settings = json.loads(metadata[b"settings"])
        self.notes = json.loads(metadata[b"notes"])
        self.dim = self.schema.field("embedding").type.list_size
        self.memory = None  # a `VectorMemory`, if its vectors are held: see `keep_in_memory`
        # of long texts, also as queries
        self.splitter = self.settings.get("sub_caption_splitter") or "sentences"

    @classmethod
    def create(
        cls, folder: Path, dim: int, settings: dict, notes: dict | None = None, dtype: str = "float32", **options: Any
    ) -> "EmbeddingTable":
        """
        Creates the table of a folder, or opens that with the same settings.

        Args:
            folder (`Path`):
                The folder.
            dim (`int`):
                The dimension of the embeddings.
            settings (`dict`):
                What the embeddings depend on: see [`DualEncoder.settings`]. The `kinds` among them are the only ones
                that are stored.
            notes (`dict`, *optional*):
                What else is known of them, which is not compared.
            dtype (`str`, *optional*, defaults to `"float32"`):
                In which they are stored, `"float16"` or `"float32"`.
            options:
                Arguments of [`OutputFolder`].

        Returns:
            [`EmbeddingTable`]: the table.

        Raises:
            `ValueError`: if the settings are others, the folder holds something else, or another run writes to it.
        """
        settings = settings | {"storage_dtype": dtype}
        if not is_table(folder):
            # LanceDB leaves a moment in which two processes can create it
            with OutputFolder(folder, content="embeddings", **options):
                if not is_table(folder):
                    schema = make_schema(dim, dtype, settings, notes or {})
                    with as_os_error(folder):
                        connect(folder).create_table(TABLE, schema=schema)
        table = cls(folder)
        table.check_settings(settings)
        return table

    @property
    def version(self) -> tuple[int, int]:
        """
        The version that is on disk now, and the time in nanoseconds when it was written: a table that was deleted and
        made anew counts its versions from 1 again.
        """
        written_at = (self.folder / f"{TABLE}.lance" / "_versions").stat().st_mtime_ns
        with self.as_os_error():
            return self.table.version, written_at

    @property
    def schema(self) -> pa.Schema:
        """The schema that is on disk now. It is read once for each version, since a search needs it twice."""
        written = list_versions(self.folder)
        kept = self.kept_schema
        if kept is None or kept.written != written:
            with self.as_os_error():
                kept = KeptSchema(written, self.table.schema)
            self.kept_schema = kept
        return kept.schema

    def check_is_same(self) -> None:
        """
        Raises an `OSError` if the table was deleted since it was opened, and made anew otherwise: by another model,
        say, with whose embeddings no query of this one can be compared.
        """
        metadata = self.schema.metadata or {}
        if json.loads(metadata.get(b"settings", b"null")) != self.settings:
            raise OSError(
                f"The embeddings in {self.folder} were made anew by another model, or otherwise than those that were "
                "opened: start this program again."
            )

    def freeze(self) -> "EmbeddingTable":
        """Opens the table once more, as it is now: what is written later is not seen."""
        frozen = EmbeddingTable(self.folder)
        with self.as_os_error():
            frozen.table.checkout(frozen.table.version)
        return frozen

    def add_missing_columns(self) -> None:
        """Adds the columns that the table of an earlier version lacks, with nulls."""
        names = [name for name in NEW_COLUMNS if name not in self.schema.names]
        if names:
            with self.as_os_error():
                self.table.add_columns([pa.field(name, COLUMNS[name]) for name in names])

    def check_settings(
        self,
        settings: dict,
        remedy: str = "use the same settings, or name another folder",
    ) -> None:
        """Raises a `ValueError` with both values if settings are not those of the table."""
        stored = flatten(self.settings)
        settings = flatten(json.loads(json.dumps(settings)))
        changed = [name for name in settings if settings[name] != stored.get(name)]
        if changed in (["data"], ["files"]):
            raise ValueError(
                f"The data have changed since {self.folder} was made: name another folder, or delete it. So have "
                "files that another version of this package or of `datasets` reads otherwise."
            )
        if changed:
            # a hash is no evidence where something else is
            hashes = ("data", "files", "weights", "processor")
            changed = [name for name in changed if name not in hashes] or changed
            changes = [f"{name} = {stored.get(name)!r}, this run has {settings[name]!r}" for name in changed]
            raise ValueError(f"{self.folder} holds embeddings with {', '.join(changes)}: {remedy}.")

    @property
    def computation(self) -> Computation:
        """How the embeddings were computed."""
        return Computation(self.settings.get("backend", "torch"), self.settings.get("dtype", "float32"))

    def check_model(self, encoder: DualEncoder) -> None:
        """Raises a `ValueError` if the embeddings are of another model, or were computed otherwise."""
        name = self.notes.get("model_name_or_path", "the same model")
        options = f"--backend {self.computation.backend} --dtype {self.computation.dtype}"
        truncate_dim = self.settings.get("truncate_dim")
        if truncate_dim is not None:
            options += f" --truncate_dim {truncate_dim}"
        settings = encoder.settings()
        del settings["max_length"]  # of captions: a query may be read up to another limit
        self.check_settings(settings, f"search with {name} as it was used, by `{options}`")

    def writing(self, wait: bool = False, argument: str = "output_dir") -> OutputFolder:
        """Makes a context in which this program alone writes, with all of its processes: see [`OutputFolder`]."""
        return OutputFolder(self.folder, content="embeddings", argument=argument, wait=wait)

    def condition(self, kind: str | None = "image", where: str | None = None) -> str:
        """Writes the SQL condition of the embeddings of a kind, or of all (None), for which `where` holds too."""
        parts = ["problem IS NULL"]
        if kind is not None and self.settings.get("kinds") != [kind]:
            parts.append(f"kind = '{kind}'")
        if where is not None:
            parts.append(f"({where})")  # it may have an OR
        return " AND ".join(parts)

    def count(self, kind: str | None = "image", where: str | None = None) -> int:
        """Counts the embeddings of a kind, or of all."""
        with self.as_os_error():
            return self.table.count_rows(self.condition(kind, where))

    def __len__(self) -> int:
        """Counts the images that can be searched."""
        return self.count()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing, not even an image that cannot be read."""
        with self.as_os_error():
            return self.table.count_rows() == 0

    @property
    def unreadable(self) -> dict[str, str]:
        """By key what is wrong with images that cannot be read."""
        problems = {}
        for batch in self.read(["key", "problem"], "problem IS NOT NULL"):
            problems.update(zip(batch["key"].to_pylist(), batch["problem"].to_pylist()))
        return problems

    @property
    def is_to_be_tried_again(self) -> str:
        """The SQL condition of images that cannot be read, but perhaps now: their content is not why, or not alone."""
        if "tried_with" not in self.schema.names:
            return "problem IS NOT NULL"
        return f"problem IS NOT NULL AND (tried_with IS NULL OR tried_with != {to_sql(name_readers())})"

    @property
    def counts(self) -> dict[str, int]:
        """The counts of embeddings of each kind, of truncated captions and of unreadable images."""
        conditions = {kind: f"problem IS NULL AND kind = '{kind}'" for kind in KINDS}
        conditions |= {"truncated": "truncated", "unreadable": "problem IS NOT NULL"}
        with self.as_os_error():
            return {name: self.table.count_rows(condition) for name, condition in conditions.items()}

    @property
    def folders(self) -> list[str]:
        """All folders with images, and their parents, sorted."""
        return sorted(self.count_folders())

    def count_folders(self) -> dict[str, int]:
        """Counts the images in each folder and all folders in it."""
        direct = {}
        for batch in self.read(["key"], self.condition()):
            for key in batch["key"].to_pylist():
                folder = key.rpartition("/")[0]
                direct[folder] = direct.get(folder, 0) + 1
        counts = {}
        for folder, count in direct.items():
            for parent in PurePosixPath(folder, "x").parents:
                counts[str(parent)] = counts.get(str(parent), 0) + count
        counts.pop(".", None)
        return counts

    def embedding(self, key: str) -> torch.Tensor | None:
        """Reads the embedding of an image, of shape `(dim,)`, normalized; None if there is none of the key."""
        where = self.condition("image", f"key = {to_sql(key)}")
        with self.as_os_error():
            rows = self.table.search().where(where).select(["embedding"]).limit(1).to_arrow()
        if len(rows) == 0:
            return None
        return to_vectors(rows["embedding"])[0]

    def row(self, key: str) -> int:
        """Finds the row of a dataset that an image is from."""
        where = self.condition("image", f"key = {to_sql(key)}")
        return next(self.read(["row"], where))["row"][0].as_py()

    def rows_done(self) -> set[int]:
        """Collects the rows of a dataset that have been embedded."""
        rows = set()
        for batch in self.read(["row"], None):
            rows.update(batch["row"].unique().to_pylist())
        return rows

    def read(
        self,
        columns: list[str],
        where: str | None = "problem IS NULL",
    ) -> Iterator[pa.RecordBatch]:
        """Reads columns of the rows for which a condition holds, in parts and in the order they were written."""
        with self.as_os_error():
            yield from self.table.search().where(where or "true").select(columns).to_batches(NUM_AT_ONCE)

    def read_signatures(self, where: str | None = None, by: str = "key") -> Iterator[tuple[str | int, dict[str, int]]]:
        """
        Reads keys, or another column that rows are known `by`, and the signatures of their files when these were
        read: see [`sign_file`].
        """
        names = [name for name in SIGNATURE if name in self.schema.names]
        for batch in self.read([by, *names], where):
            values = {name: batch[name].cast(pa.int64()).to_pylist() for name in names}
            for index, key in enumerate(batch[by].to_pylist()):
                signature = {name: values[name][index] for name in names}
                if signature["size"] is None:  # of an image that is no file
                    signature = {}
                yield key, signature

    def read_hashes(self, row_indices: list[int]) -> dict[int, str]:
        """Reads the hashes of the files of images, by the indices of their rows."""
        hashes = {}
        for batch in self.read(["row", "hash"], f"hash IS NOT NULL AND {one_of('row', row_indices)}"):
            hashes.update(zip(batch["row"].to_pylist(), batch["hash"].to_pylist()))
        return hashes

    def read_hash(self, key: str) -> str | None:
        """Reads the hash of the file of an image; None if there is none."""
        where = f"hash IS NOT NULL AND key = {to_sql(key)}"
        with self.as_os_error():
            rows = self.table.search().where(where).select(["hash"]).limit(1).to_arrow()
        if len(rows) == 0:
            return None
        return rows["hash"][0].as_py()

    def append(self, rows: list[dict]) -> None:
        """
        Adds rows, which become visible at once: all or, after an error, none of them. A row has columns as far as
        there is something in them; its embedding is a tensor of shape `(dim,)`, `kind` is `"image"` and `position` 0
        by default. Raises an `OSError` if they cannot be written: the disk is full, say, and a `ValueError` for rows
        that no table has.
        """
        for row in rows:
            self.check_row(row)
        schema = self.schema
        defaults = {"kind": "image", "position": 0}
        arrays = []
        for field in schema:
            values = [row.get(field.name, defaults.get(field.name)) for row in rows]
            if field.name == "embedding":
                arrays.append(to_column(values, field.type))
            else:
                arrays.append(pa.array(values, field.type))
        with self.as_os_error():
            self.table.add(pa.table(arrays, schema=schema))

    def check_row(self, row: dict) -> None:
        """Raises a `ValueError` if something of a row would be lost, or found as something else."""
        others = row.keys() - {*COLUMNS, "embedding"}
        if others:
            raise ValueError(f"{self.folder} has no columns {sorted(others)}: leave them out.")
        key = row.get("key")
        if not isinstance(key, str):
            raise ValueError(f"The key of a row of {self.folder} must be a string, got {key!r}: write it as one.")
        embedding = row.get("embedding")
        if embedding is None:
            if row.get("problem") is None:
                raise ValueError(f"The row of {key!r} has neither an embedding nor a problem: give it one of them.")
            return
        kinds = self.settings.get("kinds") or KINDS
        kind = row.get("kind", "image")
        if kind not in kinds:
            raise ValueError(f"{self.folder} holds {', '.join(kinds)}, got the kind {kind!r}.")
        self.check_embedding(key, embedding)

    def check_embedding(self, key: str, embedding: torch.Tensor) -> None:
        """Raises a `ValueError` if an embedding, as it would be stored, has another shape or no direction."""
        if not isinstance(embedding, torch.Tensor):
            raise ValueError(f"The embedding of {key!r} must be a tensor, got a {type(embedding).__name__}.")
        dtype = self.settings.get("storage_dtype", "float32")
        stored = embedding.to(getattr(torch, dtype))
        if tuple(stored.shape) != (self.dim,) or not stored.isfinite().all():
            raise ValueError(
                f"The embedding of {key!r} must be of shape ({self.dim},) and hold no NaN or infinity in {dtype}, got "
                f"{tuple(stored.shape)}: normalize it."
            )
        if not stored.any():
            raise ValueError(f"The embedding of {key!r} is all zeros in {dtype}, which nothing is similar to.")

    def replace(self, rows: pa.Table) -> None:
        """Writes rows with all columns in place of those with their keys, at once, where each key is of one row."""
        with self.as_os_error():
            writer = self.table.merge_insert("key")
            writer.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def as_os_error(self) -> AbstractContextManager[None]:
        """Makes errors of LanceDB an `OSError`: see [`as_os_error`]."""
        return as_os_error(self.folder)

    def delete(self, keys: list[str]) -> None:
        """Deletes images."""
        for part in split_list(keys):
            with self.as_os_error():
                self.table.delete(one_of("key", part))

    def delete_rows_to_try_again(self, replaced: Iterable[int] = ()) -> int:
        """
        Deletes the rows of a dataset whose image could not be read, but perhaps can now, with their captions, and
        those whose file was `replaced` meanwhile. Returns how many rows these are.
        """
        rows = set(replaced)
        for batch in self.read(["row"], self.is_to_be_tried_again):
            rows.update(batch["row"].to_pylist())
        for part in split_list(sorted(rows)):
            with self.as_os_error():
                self.table.delete(one_of("row", part))
        return len(rows)


def shorten_problem(error: Exception) -> str:
    """Describes an error of LanceDB without the lines of its sources that it passed, and the names of its layers."""
    problem = str(error).partition("\n")[0]
    problem = re.sub(r", \S+\.rs:\d+:\d+", "", problem)
    problem = LAYERS.sub("", problem)
    problem = problem.replace("Not found: Not found: ", "Not found: ")
    return without_stop(problem)


@contextmanager
def as_os_error(folder: Path) -> Iterator[None]:
    """
    Makes errors of LanceDB, which name all lines of its sources that they passed, an `OSError` of one line; of a
    condition that is wrong a `ValueError`.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # the latter where a file is none of LanceDB any more
        if WRONG_CONDITION.search(str(error)):
            raise ValueError(
                f"The condition is no SQL of the columns in {folder}: {shorten_problem(error)}."
            ) from error
        raise OSError(
            f"The embeddings in {folder} cannot be read or written, and are as they were: "
            f"{shorten_problem(error)}. Make room on the disk; if a file is missing or damaged, "
            "delete the folder to make it anew."
        ) from error


def split_list(values: list) -> list[list]:
    """Splits a list into parts of `NUM_AT_ONCE`."""
    return [values[start : start + NUM_AT_ONCE] for start in range(0, len(values), NUM_AT_ONCE)]


def one_of(column: str, values: list) -> str:
    """Writes the SQL condition that a column has one of some values."""
    return f"{column} IN ({', '.join(map(to_sql, values))})"


def to_sql(value: str | int) -> str:
    """Writes a text or a number as a literal of SQL."""
    if isinstance(value, str):
        doubled = value.replace("'", "''")
        return f"'{doubled}'"
    return str(value)


def flatten(settings: dict) -> dict:
    """Adds the arguments that name a dataset to the other settings."""
    source = settings.get("source")
    if not isinstance(source, dict):
        return settings
    return {**settings, **source, "source": None}


def connect(folder: Path) -> lancedb.DBConnection:
    """Opens the tables of a folder, each of which is looked at anew for every question."""
    # LanceDB takes a `~` at the start of a path for the user's own folder
    return lancedb.connect(folder.absolute(), read_consistency_interval=timedelta(0))


def list_versions(folder: Path) -> tuple[int, frozenset[str]] | None:
    """
    Lists the files of the versions of a table, with the time in nanoseconds when one of them came or went last: a
    table that was made anew may have the same ones. None if there is no table any more.
    """
    versions = folder / f"{TABLE}.lance" / "_versions"
    try:
        return versions.stat().st_mtime_ns, frozenset(os.listdir(versions))
    except FileNotFoundError:
        return None


def is_table(folder: Path) -> bool:
    """Returns whether there is a table of embeddings in a folder."""
    return any((folder / f"{TABLE}.lance" / "_versions").glob("*.manifest"))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of captions that models have written, read and converted in batches of rows."""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from glob import glob
from pathlib import Path

import pyarrow as pa
from fsspec import open as open_file
from pyarrow import parquet

from ..data.rows import batched
from ..data.side_captions import REJECTED_COLUMN
from ..output_folder import atomic_write, warn_of_unfinished


CAPTIONER_COLUMN, PROMPT_COLUMN = "captioner", "prompt"
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
ROWS_PER_BATCH = 10_000


def get_captioner(row: dict) -> str:
    """The captioner of a row; where the file does not say, all are one."""
    return row.get(CAPTIONER_COLUMN) or "captions"


def find_files(patterns: list[str], output_dir: Path) -> list[Path]:
    """
    The files of captions that patterns name, each once, in the order of their names.

    Raises:
        `ValueError`: if there are none, of another kind, or of the same name, or the output folder is theirs or has
            other captions.
    """
    files = sorted({Path(name) for pattern in patterns for name in glob(pattern)})
    if not files:
        raise ValueError(f"`--captions {' '.join(patterns)}` names no file.")
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise ValueError(f"`--captions` must be files of the kinds {list(SUFFIXES)}, got {file}.")
        if file.parent.resolve() == output_dir.resolve():
            raise ValueError(f"`--output_dir {output_dir}` is the folder of {file}: name another one.")
    names = Counter(file.name for file in files)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"Several of `--captions` are named {twice[0]}: filter their folders one by one.")
    warn_of_unfinished(files)
    others = [path.name for path in output_dir.glob("*") if path.name.endswith(SUFFIXES) and path.name not in names]
    if others:
        raise ValueError(
            f"`--output_dir {output_dir}` holds other captions, such as {others[0]}: name another folder."
        )
    return files


def open_parquet(path: Path) -> parquet.ParquetFile:
    """
    Opens a parquet file.

    Raises:
        `ValueError`: if it is damaged.
    """
    try:
        file = parquet.ParquetFile(path)
        file.schema_arrow.names  # noqa: B018 (decoded only now)
        return file
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no parquet file: delete it, it is damaged or cut off. {error}") from error


def read_batches(path: Path, columns: Iterable[str | None] | None = None) -> Iterator[pa.RecordBatch]:
    """
    A parquet file in batches of rows, with those of some columns that it has.

    Raises:
        `ValueError`: if it is damaged.
    """
    with open_parquet(path) as file:
        names = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        try:
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=names):
                batch.validate(full=True)  # texts too are what they should be
                yield batch
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is damaged: delete it, or write it anew. {error}") from error


def read_rows(path: Path, columns: Iterable[str | None] | None = None) -> Iterator[list[dict]]:
    """
    The rows of a file in batches, of a parquet file those of some columns.

    Raises:
        `ValueError`: if the file cannot be read.
    """
    if path.name.endswith(".parquet"):
        for batch in read_batches(path, columns):
            yield batch.to_pylist()
        return
    try:
        with open_file(path, "rt", compression="infer", encoding="utf-8-sig") as file:
            rows = (read_line(line, number, path) for number, line in enumerate(file, start=1) if line.strip())
            yield from batched(rows, ROWS_PER_BATCH)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, it is damaged or cut off: {error}.") from error


def read_line(line: str, number: int, path: Path) -> dict:
    """A row of a file of JSON lines. Raises a `ValueError` if it is none."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Line {number} of {path} is no JSON, it is damaged or cut off: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"Line {number} of {path} must be a JSON object, got {type(row).__name__}.")
    return row


def check_column(source: Path, name: str, names: Iterable[str]) -> None:
    """Raises a `ValueError` if a file lacks the column of captions."""
    if name not in names:
        raise ValueError(f"`--caption_column {name}` is no column of {source}, which has {list(names)}.")


def prepare_rows(rows: list[dict], source: Path, caption_column: str) -> None:
    """Sees to it that rows have a caption, if none, and a mark."""
    for row in rows:
        check_column(source, caption_column, row)
        if not isinstance(row[caption_column], (str, type(None))):
            raise ValueError(
                f"`--caption_column {caption_column}` of {source} must hold strings, got {row[caption_column]!r}."
            )
        row[REJECTED_COLUMN] = row.get(REJECTED_COLUMN) or None


def rewrite_parquet(source: Path, partial: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """[`rewrite`] of a parquet file, of which the other columns are not looked into."""
    needed = {*columns, REJECTED_COLUMN}
    with open_parquet(source) as file:
        schema = file.schema_arrow
        check_column(source, columns[0], schema.names)
        marks = pa.field(REJECTED_COLUMN, pa.string())
        if REJECTED_COLUMN in schema.names:
            schema = schema.set(schema.get_field_index(REJECTED_COLUMN), marks)
        else:  # what `datasets` notes of the columns would lack this one
            noted = {name: value for name, value in (schema.metadata or {}).items() if name != b"huggingface"}
            schema = schema.append(marks).with_metadata(noted)
        with parquet.ParquetWriter(partial, schema) as writer:
            for batch in read_batches(source):
                rows = batch.select([name for name in needed if name in batch.schema.names]).to_pylist()
                prepare_rows(rows, source, columns[0])
                edit(rows)
                values = dict(zip(batch.schema.names, batch.columns))
                for name in (columns[0], REJECTED_COLUMN):
                    values[name] = pa.array([row[name] for row in rows], schema.field(name).type)
                writer.write_batch(pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema))


def rewrite(source: Path, target: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """
    Writes a file anew, whole or not at all, with the captions and marks that `edit` sets in batches of its rows.

    Args:
        source (`Path`):
            A parquet file, or one of JSON lines.
        target (`Path`):
            The file to write, of the same kind.
        columns (`list[str]`):
            The columns that `edit` reads, those that are there; the first is that of the captions.
        edit (`Callable`):
            Changes the caption and `rejected_by` of rows, which have both.

    Raises:
        `ValueError`: if there is no such column, or it holds something else than strings.
    """
    with atomic_write(target) as partial:
        if source.name.endswith(".parquet"):
            rewrite_parquet(source, partial, columns, edit)
            return
        compression = "gzip" if source.name.endswith(".gz") else None
        with open_file(partial, "wt", compression=compression, encoding="utf-8") as file:
            for rows in read_rows(source):
                prepare_rows(rows, source, columns[0])
                edit(rows)
                # an empty string, for readers that would take the type of the column from its first values
                rows = ({**row, REJECTED_COLUMN: row[REJECTED_COLUMN] or ""} for row in rows)
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

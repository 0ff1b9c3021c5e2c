# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of captions that models have written, read and converted in batches of rows."""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import pyarrow as pa
from fsspec import open as open_file
from pyarrow import parquet

from ..data.caption_files import REJECTED_COLUMN
from ..data.rows import batched
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


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Raises a `ValueError` that names a file which is damaged."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, it is damaged or cut off: {error}.") from error


def read_rows(path: Path) -> Iterator[list[dict]]:
    """
    The rows of a file in batches.

    Raises:
        `ValueError`: if the file cannot be read.
    """
    with named_errors(path):
        if path.name.endswith(".parquet"):
            for batch in read_batches(path):
                yield batch.to_pylist()
            return
        with open_file(path, "rt", compression="infer", encoding="utf-8-sig") as file:
            rows = (read_line(line, number, path) for number, line in enumerate(file, start=1) if line.strip())
            yield from batched(rows, ROWS_PER_BATCH)


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """A parquet file in batches of rows."""
    with named_errors(path), parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_PER_BATCH):
            batch.validate(full=True)  # texts too are what they should be
            yield batch


def read_line(line: str, number: int, path: Path) -> dict:
    """A row of a file of JSON lines. Raises a `ValueError` if it is none."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Line {number} of {path} is no JSON, it is damaged or cut off: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"Line {number} of {path} must be a JSON object, got {type(row).__name__}.")
    return row


def prepare_rows(rows: list[dict], source: Path, caption_column: str) -> None:
    """Sees to it that rows have a caption, if none, and a mark."""
    for row in rows:
        if caption_column not in row:
            raise ValueError(f"`--caption_column {caption_column}` is no column of {source}, which has {list(row)}.")
        if not isinstance(row[caption_column], (str, type(None))):
            raise ValueError(
                f"`--caption_column {caption_column}` of {source} must hold strings, got {row[caption_column]!r}."
            )
        row[REJECTED_COLUMN] = row.get(REJECTED_COLUMN) or None


def rewrite_parquet(source: Path, target: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """[`rewrite`] of a parquet file, of which the other columns are not looked into."""
    with named_errors(source):
        schema = parquet.read_schema(source)
        names = schema.names
    if columns[0] not in names:
        raise ValueError(f"`--caption_column {columns[0]}` is no column of {source}, which has {names}.")
    marks = pa.field(REJECTED_COLUMN, pa.string())
    if REJECTED_COLUMN in names:
        schema = schema.set(schema.get_field_index(REJECTED_COLUMN), marks)
    else:  # what `datasets` notes of the columns would lack this one
        noted = {name: value for name, value in (schema.metadata or {}).items() if name != b"huggingface"}
        schema = schema.append(marks).with_metadata(noted)
    needed = [name for name in names if name in (*columns, REJECTED_COLUMN)]
    with parquet.ParquetWriter(target, schema) as writer:
        for batch in read_batches(source):
            rows = batch.select(needed).to_pylist()
            prepare_rows(rows, source, columns[0])
            edit(rows)
            values = dict(zip(names, batch.columns))
            for name in (columns[0], REJECTED_COLUMN):
                values[name] = pa.array([row[name] for row in rows], schema.field(name).type)
            writer.write_batch(pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema))


def rewrite(source: Path, target: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """
    Writes a file anew, with the captions and marks that `edit` sets in batches of its rows.

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

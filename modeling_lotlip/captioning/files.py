# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Parquet files of captions that models have written, rewritten in batches of rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ..data.caption_files import REJECTED_COLUMN
from ..output_folder import atomic_write, warn_of_unfinished


ROWS_PER_BATCH = 10_000


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
        if file.suffix != ".parquet":
            raise ValueError(f"`--captions` must be parquet files, got {file}.")
        if file.parent.resolve() == output_dir.resolve():
            raise ValueError(f"`--output_dir {output_dir}` is the folder of {file}: name another one.")
    names = Counter(file.name for file in files)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"Several of `--captions` are named {twice[0]}: filter their folders one by one.")
    others = [path.name for path in output_dir.glob("*.parquet") if path.name not in names]
    if others:
        raise ValueError(
            f"`--output_dir {output_dir}` holds other captions, such as {others[0]}: name another folder."
        )
    warn_of_unfinished(files)
    return files


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Raises a `ValueError` that names a file which is damaged."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, it is damaged or cut off: {error}.") from error


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """A file in batches of rows. Raises a `ValueError` if it is damaged."""
    with named_errors(path), parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_PER_BATCH):
            batch.validate(full=True)  # texts too are what they should be
            yield batch


def rewrite(source: Path, target: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """
    Writes a file anew, with the captions and marks that `edit` sets in batches of its rows. The other columns are not
    looked into.

    Args:
        source (`Path`), target (`Path`):
            The file, and the new one.
        columns (`list[str]`):
            The columns that `edit` reads, those that are there; the first is that of the captions.
        edit (`Callable`):
            Changes the caption and `rejected_by` of rows, which have both.

    Raises:
        `ValueError`: if there is no such column, or it holds something else than strings.
    """
    with named_errors(source):
        schema = parquet.read_schema(source)
        names = schema.names
    if columns[0] not in names:
        raise ValueError(f"`--caption_column {columns[0]}` is no column of {source}, which has {names}.")
    if not pa.types.is_large_string(kind := schema.field(columns[0]).type) and kind not in (pa.string(), pa.null()):
        raise ValueError(f"`--caption_column {columns[0]}` of {source} must hold strings, not {kind}.")
    marks = pa.field(REJECTED_COLUMN, pa.string())
    if REJECTED_COLUMN in names:
        schema = schema.set(schema.get_field_index(REJECTED_COLUMN), marks)
    else:  # what `datasets` notes of the columns would lack this one
        noted = {name: value for name, value in (schema.metadata or {}).items() if name != b"huggingface"}
        schema = schema.append(marks).with_metadata(noted)
    needed = [name for name in names if name in (*columns, REJECTED_COLUMN)]
    with atomic_write(target) as partial, parquet.ParquetWriter(partial, schema) as writer:
        for batch in read_batches(source):
            rows = batch.select(needed).to_pylist()
            for row in rows:
                row[REJECTED_COLUMN] = row.get(REJECTED_COLUMN) or None
            edit(rows)
            values = dict(zip(names, batch.columns))
            for name in (columns[0], REJECTED_COLUMN):
                values[name] = pa.array([row[name] for row in rows], schema.field(name).type)
            writer.write_batch(pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema))

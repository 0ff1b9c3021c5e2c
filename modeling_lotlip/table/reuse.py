# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings that were computed before: of files that have another name now, lie in another folder, or are copies. A file
is known by the hash of its content.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..utils.files import hash_file, is_gone
from ..utils.terminal import printable
from .schema import SIGNATURE
from .storage import EmbeddingTable, is_table, one_of, split_list


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where an embedding is."""

    table: EmbeddingTable
    key: str


def list_tables(folder: Path) -> list[EmbeddingTable]:
    """Opens the tables in the folders of a folder. Those that are damaged are left out, with a warning."""
    tables = []
    if not folder.is_dir():
        return tables
    for path in sorted(folder.iterdir()):
        if is_table(path):
            try:
                tables.append(EmbeddingTable(path))
            except OSError as error:
                logger.warning(printable(str(error)))
    return tables


def list_tables_of_same_model(table: EmbeddingTable) -> list[EmbeddingTable]:
    """
    Opens the tables in the folder of a table whose embeddings were computed in the same way, of other images. They are
    frozen: another program may give a key to another image between the search for its hash and the copy.
    """
    settings = table.settings | {"source": None}
    others = [other for other in list_tables(table.folder.parent) if other.folder != table.folder]
    return [other.freeze() for other in others if other.settings | {"source": None} == settings]


def find_sources(
    tables: list[EmbeddingTable], folder: Path, sizes: dict[str, int], report: Callable[[], object]
) -> dict[str, Source]:
    """
    Finds the embeddings of files in tables. Only files with the size of one in the tables are read.

    Args:
        tables (`list[EmbeddingTable]`):
            The tables. A file of the same name in the first one is preferred, then one that is not there any more,
            for each file another one: it was moved.
        folder (`Path`):
            The folder of the files.
        sizes (`dict[str, int]`):
            The sizes in bytes of the files by their names, which are paths relative to the folder.
        report (`Callable[[], object]`):
            Is called after each file that is read.

    Returns:
        `dict[str, Source]`: where the embedding is, by the names of the files whose content is known.
    """
    wanted = set(sizes.values())
    known_sizes = set()
    by_hash = {}
    own_hashes = {}
    gone = defaultdict(list)
    for table in tables:
        for key, size, content_hash in read_known_files(table, is_own=table is tables[0]):
            if size in wanted:
                known_sizes.add(size)
                by_hash.setdefault(content_hash, Source(table, key))
                if table is tables[0]:
                    own_hashes[key] = content_hash
                    if is_gone(folder / key):
                        gone[content_hash].append(key)
    sources = {}
    for name in (name for name, size in sizes.items() if size in known_sizes):
        try:
            content_hash = hash_file(folder / name)
        except OSError:  # what reads the image names the problem
            content_hash = None
        if content_hash is not None and own_hashes.get(name) == content_hash:
            sources[name] = Source(tables[0], name)
        elif content_hash in gone:
            keys = gone[content_hash]
            sources[name] = Source(tables[0], keys[0])
            if len(keys) > 1:  # of more copies than were there the others are copies of the last
                keys.pop(0)
        elif content_hash in by_hash:
            sources[name] = by_hash[content_hash]
        report()
    return sources


def read_known_files(table: EmbeddingTable, is_own: bool) -> Iterator[tuple[str, int, str]]:
    """
    Reads keys, sizes and hashes of the files in a table. If it is damaged and not the one that is updated, it ends
    there, with a warning.
    """
    try:
        for batch in table.read(["key", "size", "hash"], table.condition("image", "hash IS NOT NULL")):
            yield from zip(batch["key"].to_pylist(), batch["size"].to_pylist(), batch["hash"].to_pylist())
    except OSError as error:
        if is_own:
            raise
        logger.warning(printable(str(error)))


def copy_rows(
    table: EmbeddingTable,
    sources: dict[str, Source],
    signatures: dict[str, dict[str, int]],
) -> set[str]:
    """
    Copies rows into a table of images, in place of the rows with the same keys.

    Args:
        table ([`EmbeddingTable`]):
            The table that is written to.
        sources (`dict[str, Source]`):
            What is copied, by the new keys.
        signatures (`dict[str, dict[str, int]]`):
            The signatures of the files, by the new keys: see [`sign_file`].

    Returns:
        `set[str]`: the keys that were written. A source may be gone.
    """
    written = set()
    # as it is before the first part is written: that may replace the sources of the next one
    before = table.freeze()
    for part in split_list(list(sources)):
        for source_table in unique(sources[key].table for key in part):
            copied = {key: sources[key].key for key in part if sources[key].table is source_table}
            if source_table is table:
                written |= copy_part(table, before, copied, signatures)
            else:
                written |= copy_part(table, source_table, copied, signatures)
    return written


def unique(tables: Iterable[EmbeddingTable]) -> list[EmbeddingTable]:
    """Lists different tables once."""
    return list({id(table): table for table in tables}.values())


def copy_part(
    table: EmbeddingTable,
    source_table: EmbeddingTable,
    copied: dict[str, str],
    signatures: dict[str, dict[str, int]],
) -> set[str]:
    """
    Copies rows from one table: see [`copy_rows`].

    Args:
        table ([`EmbeddingTable`]):
            The table that is written to.
        source_table ([`EmbeddingTable`]):
            The table that is read.
        copied (`dict[str, str]`):
            The keys in the table that is read, by the new ones.
        signatures (`dict[str, dict[str, int]]`):
            The signatures of the files, by the new keys.

    Returns:
        `set[str]`: the new keys that were written.
    """
    where = f"problem IS NULL AND {one_of('key', sorted(set(copied.values())))}"
    try:
        with source_table.as_os_error():
            rows = source_table.table.search().where(where).to_arrow()
    except OSError as error:
        if source_table.folder == table.folder:
            raise
        logger.warning(printable(str(error)))
        return set()
    indices = {key: index for index, key in enumerate(rows["key"].to_pylist())}
    new_keys = [key for key, source_key in copied.items() if source_key in indices]
    if not new_keys:
        return set()
    rows = rows.take([indices[copied[key]] for key in new_keys])
    arrays = []
    for field in table.table.schema:
        if field.name == "key":
            arrays.append(pa.array(new_keys, field.type))
        elif field.name in SIGNATURE:
            arrays.append(pa.array([signatures[key][field.name] for key in new_keys], field.type))
        elif field.name in rows.schema.names:
            arrays.append(rows[field.name].combine_chunks())
        else:
            arrays.append(pa.nulls(len(new_keys), field.type))
    table.replace(pa.table(arrays, schema=table.table.schema))
    return set(new_keys)

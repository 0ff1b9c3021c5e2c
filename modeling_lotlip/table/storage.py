# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings on disk: a table of LanceDB. From `NUM_EXACT` rows on an index selects candidates, which are compared
exactly; its parameters are the smallest that reach `MIN_RECALL`, with images and with texts as queries.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from lancedb.index import Bitmap, BTree, IvfRq
from lancedb.util import value_to_sql
from pyarrow import parquet

from ..encoder.arguments import KINDS
from ..encoder.dual_encoder import DualEncoder
from ..utils.output_folder import OutputFolder, atomic_write


TABLE = "embeddings"
# From this number of embeddings on the search is approximate
NUM_EXACT = 50_000
# The share of the exact first `RECALL_K` that the approximate search has to find
MIN_RECALL, RECALL_K = 0.98, 10
# Images that thresholds, and those that the recall is measured with
NUM_SAMPLED, NUM_MEASURED = 500, 200
# Cells that are searched, and candidates for each result that are compared exactly, in the order they are tried
INDEX_PARAMETERS = ((20, 2), (40, 2), (80, 2), (160, 2), (320, 2), (640, 4), (10_000, 8))
# The score threshold is the median of the best similarities of background texts, plus this times their lower spread
SPREADS = 1.5
# Copies are nearer than this share of the distance to the nearest other image, at this quantile of images
COPY_DISTANCE, COPY_QUANTILE = 0.15, 0.75
# The share of new embeddings after which thresholds and recall are measured again
MUCH_NEW = 0.1
# Older versions of the table are dropped; a younger one may still be read by another program
KEPT_VERSIONS = timedelta(minutes=10)
# Similarities that differ by less may be of equal vectors, computed in another order
ROUNDING = 1e-6
NUM_AT_ONCE = 1_000


class Measurements(NamedTuple):
    """What is measured of the embeddings of one kind: see [`EmbeddingTable.measure`]."""

    score_threshold: float  # results of a text that are less similar are weak: texts that fit no image come as near
    copy_threshold: float  # images that are at least as similar to each other are copies, or of one burst
    num_rows: int  # embeddings there were
    recall: float = 1.0  # the share of the exact `RECALL_K` best that a search finds, 1 if the search is exact
    nprobes: int | None = None  # of the index: cells that are searched
    refine_factor: int | None = None  # of the index: candidates for each result that are compared exactly


class Found(NamedTuple):
    """What a search has found, the most similar first."""

    keys: list[str]  # of images
    positions: list[int]  # of captions in their column
    similarities: torch.Tensor  # (found,): cosine similarities with the query, in float32
    embeds: torch.Tensor  # (found, dim): normalised embeddings in float32

    def take(self, places: list[int]) -> "Found":
        """Some of them, in this order."""
        keys, positions = ([part[place] for place in places] for part in self[:2])
        return Found(keys, positions, self.similarities[places], self.embeds[places])


def make_schema(dim: int, dtype: str, settings: dict, notes: dict) -> pa.Schema:
    """The columns of a table, with what its embeddings depend on as metadata."""
    columns = {
        "key": pa.string(),  # of the image: the path of a file, a column of a data set, or the number of the row
        "kind": pa.string(),
        "position": pa.int32(),  # of a caption in its column
        "row": pa.int64(),  # of a data set
        "truncated": pa.bool_(),  # whether a caption is longer than the limit
        "size": pa.int64(),  # of the file, in bytes
        "modified": pa.timestamp("ns"),  # UTC
        "hash": pa.string(),  # of the file's bytes, BLAKE2b with 16 bytes
        "width": pa.int32(),
        "height": pa.int32(),
        "taken": pa.timestamp("s"),  # as the camera's clock said
        "problem": pa.string(),  # why the image cannot be read; then there is no embedding
        "embedding": pa.list_({"float16": pa.float16(), "float32": pa.float32()}[dtype], dim),
    }
    return pa.schema(columns, metadata={"settings": json.dumps(settings), "notes": json.dumps(notes)})


def to_vectors(column: pa.Array | pa.ChunkedArray) -> torch.Tensor:
    """A column of embeddings without nulls as a matrix (rows, dim) of vectors of length 1, in float32."""
    vectors = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return torch.nn.functional.normalize(torch.from_numpy(values).reshape(-1, column.type.list_size), dim=-1)


class EmbeddingTable:
    """
    Embeddings in a folder. Every question is answered from what is on disk then, written by any program. Raises a
    `ValueError` if there is no table.
    """

    def __init__(self, folder: Path):
        if not is_table(folder):
            raise ValueError(f"{folder} holds no embeddings: make them with `lotlip embed --output_dir {folder}`.")
        self.folder = folder
        with self.as_os_error():
            self.table = connect(folder).open_table(TABLE)
        metadata = self.table.schema.metadata
        self.settings, self.notes = (json.loads(metadata[name]) for name in (b"settings", b"notes"))
        self.dim = self.table.schema.field("embedding").type.list_size
        self.splitter = self.settings.get("sub_caption_splitter") or "sentences"  # of long texts, also as queries

    @classmethod
    def create(
        cls, folder: Path, dim: int, settings: dict, notes: dict | None = None, dtype: str = "float32", **options: Any
    ) -> "EmbeddingTable":
        """
        Creates the table of a folder, with `options` of [`OutputFolder`], or opens that with the same settings: see
        [`DualEncoder.settings`]; `kinds` among them are the only ones that are stored. Notes are not compared. Raises
        a `ValueError` if the settings are others, the folder holds something else, or another run writes to it.
        """
        settings = settings | {"storage_dtype": dtype}
        if not is_table(folder):  # LanceDB leaves a moment in which two processes can create it
            with OutputFolder(folder, content="embeddings", **options):
                if not is_table(folder):
                    connect(folder).create_table(TABLE, schema=make_schema(dim, dtype, settings, notes or {}))
        table = cls(folder)
        table.check_settings(settings)
        return table

    def check_settings(self, settings: dict, remedy: str = "use the same settings, or name another folder") -> None:
        """Raises a `ValueError` with both values if settings are not those of the table."""
        stored, settings = flatten(self.settings), flatten(json.loads(json.dumps(settings)))
        changed = [name for name in settings if settings[name] != stored.get(name)]
        if changed in (["data"], ["files"]):
            raise ValueError(f"The data have changed since {self.folder} was made: name another folder, or delete it.")
        if changed:
            # a hash tells nothing where something else does
            changed = [name for name in changed if name not in ("data", "files", "weights", "processor")] or changed
            changes = ", ".join(f"{name} = {stored.get(name)!r}, this run has {settings[name]!r}" for name in changed)
            raise ValueError(f"{self.folder} holds embeddings with {changes}: {remedy}.")

    def check_model(self, encoder: DualEncoder) -> None:
        """Raises a `ValueError` if the embeddings are of another model, or were computed otherwise."""
        remedy = f"search with {self.notes.get('model_name_or_path', 'the same model')} as it was used"
        self.check_settings(encoder.settings(), remedy)

    def writing(self, wait: bool = False, argument: str = "output_dir") -> OutputFolder:
        """A context in which this program alone writes, all of its processes: see [`OutputFolder`]."""
        return OutputFolder(self.folder, content="embeddings", argument=argument, wait=wait)

    def condition(self, kind: str | None = "image", where: str | None = None) -> str:
        """What LanceDB is asked for: embeddings of a kind for which an SQL condition holds."""
        parts = ["problem IS NULL"]
        if kind is not None and self.settings.get("kinds") != [kind]:
            parts.append(f"kind = '{kind}'")
        return " AND ".join([*parts, *([] if where is None else [where])])

    def count(self, kind: str | None = "image", where: str | None = None) -> int:
        """How many embeddings of a kind there are."""
        with self.as_os_error():
            return self.table.count_rows(self.condition(kind, where))

    def __len__(self) -> int:
        """How many images can be searched."""
        return self.count()

    @property
    def unreadable(self) -> dict[str, str]:
        """By key what is wrong with images that cannot be read."""
        rows = self.table.search().where("problem IS NOT NULL").select(["key", "problem"]).to_arrow()
        return dict(zip(rows["key"].to_pylist(), rows["problem"].to_pylist()))

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of embeddings of each kind, of truncated captions and of unreadable images."""
        conditions = {kind: f"problem IS NULL AND kind = '{kind}'" for kind in KINDS}
        conditions |= {"truncated": "truncated", "unreadable": "problem IS NOT NULL"}
        return {name: self.table.count_rows(condition) for name, condition in conditions.items()}

    @property
    def folders(self) -> list[str]:
        """All folders with images, and their parents, sorted."""
        folders = {key.rpartition("/")[0] for batch in self.read(["key"]) for key in batch["key"].to_pylist()}
        return sorted({str(path) for name in folders for path in (PurePosixPath(name, "x")).parents} - {"."})

    def embedding(self, key: str) -> torch.Tensor | None:
        """That of an image (dim,); None if there is none of the key."""
        where = self.condition("image", f"key = {value_to_sql(key)}")
        rows = self.table.search().where(where).select(["embedding"]).limit(1).to_arrow()
        return to_vectors(rows["embedding"])[0] if len(rows) else None

    def row(self, key: str) -> int:
        """The row of a data set that an image is from."""
        return next(self.read(["row"], self.condition("image", f"key = {value_to_sql(key)}")))["row"][0].as_py()

    def rows_done(self) -> set[int]:
        """The rows of a data set that have been embedded."""
        return {row for batch in self.read(["row"], None) for row in batch["row"].unique().to_pylist()}

    def read(self, columns: list[str], where: str | None = "problem IS NULL") -> Iterator[pa.RecordBatch]:
        """Columns of the rows for which a condition holds, in parts and in the order they were written."""
        with self.as_os_error():
            yield from self.table.search().where(where or "true").select(columns).to_batches(NUM_AT_ONCE)

    def read_signatures(self, key: str | None = None) -> Iterator[tuple[str, dict]]:
        """All images, or that of a key, with the signatures of their files, as they were when they were read."""
        for batch in self.read(["key", "size", "modified"], None if key is None else f"key = {value_to_sql(key)}"):
            modified = batch["modified"].cast(pa.int64()).to_pylist()
            for key, size, time in zip(batch["key"].to_pylist(), batch["size"].to_pylist(), modified):
                yield key, {} if size is None else {"size": size, "modified": time}

    def append(self, rows: list[dict]) -> None:
        """
        Adds rows, which become visible at once: all or, after an error, none of them. A row has columns as far as
        there is something in them; its embedding is a tensor (dim,), `kind` is `"image"` and `position` 0 by default.
        Raises an `OSError` if they cannot be written: the disk is full, say.
        """
        schema = self.table.schema
        defaults = {"kind": "image", "position": 0}
        columns = {name: [row.get(name, defaults.get(name)) for row in rows] for name in schema.names}
        is_null = [embedding is None for embedding in columns["embedding"]]
        vectors = torch.stack([torch.zeros(self.dim) if row is None else row.float() for row in columns["embedding"]])
        dtype = schema.field("embedding").type.value_type
        values = pa.array(vectors.numpy().astype(dtype.to_pandas_dtype()).ravel())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(values, self.dim, mask=pa.array(is_null))
        with self.as_os_error():
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            self.table.add(pa.table(arrays, schema=schema))

    @contextmanager
    def as_os_error(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of LanceDB, with all the places in its sources where it passed by
            cause = re.sub(r", \S+\.rs:\d+:\d+", "", str(error).splitlines()[0])
            raise OSError(
                f"The embeddings in {self.folder} cannot be read or written, and are as they were: {cause}. Make room "
                "on the disk; if a file is missing or damaged, delete the folder to make it anew."
            ) from error

    def delete(self, keys: list[str]) -> None:
        """Drops images."""
        for start in range(0, len(keys), NUM_AT_ONCE):
            named = ", ".join(value_to_sql(key) for key in keys[start : start + NUM_AT_ONCE])
            with self.as_os_error():
                self.table.delete(f"key IN ({named})")

    def search(self, query: torch.Tensor, k: int, kind: str = "image", where: str | None = None) -> Found:
        """
        The at most `k` embeddings of a kind that are most similar to a query, a normalised embedding (dim,). Fewer
        than `NUM_EXACT` for which `where`, an SQL condition, holds are searched exactly. Raises an `OSError` if a part
        of the table cannot be read.
        """
        is_exact = where is not None and self.count(kind, where) < NUM_EXACT
        nearest = self.ask(query, k, kind, where, None if is_exact else self.parameters(kind))
        with self.as_os_error():
            rows = nearest.select(["key", "position", "embedding", "_distance"]).to_arrow()
        keys, positions, embeds = rows["key"].to_pylist(), rows["position"].to_pylist(), to_vectors(rows["embedding"])
        # in float64 those of equal vectors are equal, whatever stands beside them
        similarities = (embeds.double() @ query.double().cpu()).float()
        order = sorted(range(len(keys)), key=lambda row: (-similarities[row].item(), keys[row], positions[row]))
        return Found(keys, positions, similarities, embeds).take(order[:k])

    def ask(self, query: torch.Tensor, k: int, kind: str, where: str | None, parameters: tuple | None):
        """The query of LanceDB, for more than `k`; embeddings that are null are never found."""
        nearest = self.table.search(query.float().cpu().numpy()).distance_type("cosine").limit(2 * k + 10)
        if where is not None or self.settings.get("kinds") != [kind]:
            nearest = nearest.where(self.condition(kind, where), prefilter=True)
        if parameters is None:
            return nearest.bypass_vector_index()
        return nearest.nprobes(parameters[0]).refine_factor(parameters[1])

    def parameters(self, kind: str) -> tuple[int, int] | None:
        """The parameters of the index; None if the search is exact, as it is until they are measured."""
        measured = self.measured(kind)
        return None if measured is None or measured.nprobes is None else measured[-2:]

    def search_groups(self, query: torch.Tensor, k: int, kind: str = "image", where: str | None = None) -> list[Found]:
        """
        As [`EmbeddingTable.search`], but embeddings that are nearly the same are one result: at most `k`, each with
        its copies behind it. All identical copies are found, and where there is one other copy among the first
        `2 * k`, all others.
        """
        measured, limit = self.measured(kind), 2 * k
        threshold = 1.0 if measured is None else measured.copy_threshold
        while True:
            found = self.search(query, limit, kind, where)
            groups, has_all = group_copies(found.embeds, threshold, k), len(found.keys) < limit
            if len(groups) == k or has_all:
                break
            limit *= 2
        results, seen = [], set()
        for group in map(found.take, groups):
            is_cut = group.similarities[0] - found.similarities[-1] <= ROUNDING
            if not has_all and (is_cut or len(group.keys) > 1):
                near = self.search_copies(group.embeds[0], threshold, kind, where)
                similarities = near.embeds @ query.float().cpu()
                group = near._replace(similarities=similarities).take(similarities.argsort(descending=True).tolist())
            # what is a copy of two results belongs to the first
            rows = list(zip(group.keys, group.positions))
            results.append(group.take([place for place, row in enumerate(rows) if row not in seen]))
            seen.update(rows)
        return results

    def search_copies(self, embedding: torch.Tensor, threshold: float, kind: str, where: str | None) -> Found:
        """Everything that is as similar to an embedding as a threshold."""
        limit = 50
        while True:
            near = self.search(embedding, limit, kind, where)
            is_copy = near.similarities >= threshold - ROUNDING
            if len(near.keys) < limit or not is_copy[-1]:
                return near.take(is_copy.nonzero()[:, 0].tolist())
            limit *= 4

    def measured(self, kind: str = "image") -> Measurements | None:
        """What is measured of a kind; None before that."""
        values = self.noted().get(kind)
        return None if values is None else Measurements(*values)

    def noted(self) -> dict[str, list]:
        return json.loads((self.table.schema.field("embedding").metadata or {}).get(b"measured", b"{}"))

    def describe_search(self, kind: str = "image") -> str:
        """How the search is, in words that go on "1 image in a place"; nothing if it is exact."""
        if self.parameters(kind) is None:
            return ""
        return (
            f", searched approximately: {self.measured(kind).recall:.1%} of the first {RECALL_K} are those of exact "
            "search, for texts and images as queries"
        )

    @property
    def has_index(self) -> bool:
        return any(index.columns == ["embedding"] for index in self.table.list_indices())

    def due_kinds(self) -> list[str]:
        """The kinds of which thresholds and recall are to be measured."""
        is_large, due = self.count(None) >= NUM_EXACT, []
        for kind in self.settings.get("kinds", KINDS):
            num_rows, measured = self.count(kind), self.measured(kind)
            is_new = measured is None or abs(num_rows - measured.num_rows) > MUCH_NEW * measured.num_rows
            if num_rows and (is_new or (measured.nprobes is None and is_large)):
                due.append(kind)
        return due

    def maintain(self, embed_background: Callable[[], torch.Tensor]) -> None:
        """
        What is due after writing: small files are merged; after many new rows thresholds and recall are measured with
        texts that fit no image; many rows get an index, which is made anew if it does not find enough any more.
        """
        with self.as_os_error():
            self.table.optimize(cleanup_older_than=KEPT_VERSIONS)
        due = self.due_kinds()
        if not due:
            return
        is_new = self.count(None) >= NUM_EXACT and not self.has_index
        if is_new:
            self.build_index()
        background = embed_background().float().cpu()
        least = min(self.measure(kind, background).recall for kind in due)
        if least < MIN_RECALL and not is_new:
            self.build_index()
            for kind in due:
                self.measure(kind, background)

    def build_index(self) -> None:
        """Makes the indices of embeddings, keys and kinds. With fewer than 4 bits texts find too few images."""
        self.table.create_index("embedding", config=IvfRq(distance_type="cosine", num_bits=4), replace=True)
        self.table.create_index("key", config=BTree(), replace=True)
        if self.settings.get("kinds") != ["image"]:
            self.table.create_index("kind", config=Bitmap(), replace=True)

    def sample(self, kind: str, num: int) -> torch.Tensor:
        """Embeddings of a kind, at most `num`, drawn at random and always the same."""
        rows = self.table.search().where(self.condition(kind)).select(["row"]).with_row_id(True).to_arrow()["_rowid"]
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:num].sort().values
        ids = rows.take(pa.array(drawn.numpy())).to_pylist()
        return to_vectors(self.table.take_row_ids(ids).select(["embedding"]).to_arrow()["embedding"])

    def measure(self, kind: str, background: torch.Tensor) -> Measurements:
        """
        Measures thresholds and recall by background texts (num_texts, dim), and keeps them with the table. The score
        threshold is the median of the best similarities of the texts plus `SPREADS` times its distance to their weaker
        sixth; copies are by the distance of images to the nearest other one; the recall is the lower one of those of
        images, which do not count themselves, and of texts as queries.
        """
        images, num_texts = self.sample(kind, NUM_SAMPLED), len(background)
        queries, num_rows = torch.cat([background, images]), 0
        tops, ids = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        rows = self.table.search().where(self.condition(kind)).select(["embedding"]).with_row_id(True)
        for batch in rows.to_batches(10 * NUM_AT_ONCE):
            vectors, new_ids = to_vectors(batch["embedding"]), torch.from_numpy(batch["_rowid"].to_numpy().astype(int))
            tops = torch.cat([tops, queries @ vectors.t()], dim=1)
            ids = torch.cat([ids, new_ids.expand(len(queries), -1)], dim=1)
            tops, places = tops.topk(min(RECALL_K + 1, tops.shape[1]), dim=1)
            ids, num_rows = ids.gather(1, places), num_rows + len(vectors)
        sixth, median = torch.quantile(tops[:num_texts, 0], torch.tensor([1 / 6, 1 / 2])).tolist()
        # the most similar to an image is itself
        distance = torch.quantile(1 - tops[num_texts:, :2][:, -1], COPY_QUANTILE).clamp(min=0).item()
        measured = Measurements(median + SPREADS * (median - sixth), 1 - COPY_DISTANCE * distance, num_rows)
        if self.has_index:
            step = max(1, len(images) // NUM_MEASURED)
            asked = [(query, exact[:RECALL_K], 0) for query, exact in zip(background, ids)]
            asked += [(query, exact[1:], 1) for query, exact in zip(images[::step], ids[num_texts::step])]
            measured = self.choose_parameters(kind, asked, num_texts, measured)
        metadata = {"measured": json.dumps(self.noted() | {kind: measured})}
        self.table.update_field_metadata({"path": "embedding", "metadata": metadata})
        return measured

    def choose_parameters(self, kind: str, asked: list[tuple], num_texts: int, measured: Measurements) -> Measurements:
        """The smallest parameters of the index that find enough, or else the largest, and the share that they find."""
        for parameters in INDEX_PARAMETERS:
            shares = []
            for query, exact, num_self in asked:
                rows = self.ask(query, RECALL_K, kind, None, parameters).select(["_distance"])
                found = rows.with_row_id(True).to_arrow()["_rowid"].to_pylist()[: len(exact) + num_self]
                shares.append(len(set(exact.tolist()) & set(found)) / max(1, len(exact)))
            texts, images = shares[:num_texts], shares[num_texts:]
            recall = min(sum(texts) / len(texts), sum(images) / len(images))
            if recall >= MIN_RECALL:
                break
        return measured._replace(recall=recall, nprobes=parameters[0], refine_factor=parameters[1])

    def export(self, path: Path) -> int:
        """
        Writes all embeddings, which are in memory at once, as `.parquet` (columns `key`, `kind`, `position`,
        `embedding`) or `.npz` (arrays of these names), in the order of the data set. Returns how many there are.
        """
        names = ["key", "kind", "position"]
        rows = self.table.search().where(self.condition(None)).select(["row", *names, "embedding"]).to_arrow()
        rows = rows.append_column("order", pc.index_in(rows["kind"], pa.array(KINDS)))
        rows = rows.sort_by([(name, "ascending") for name in ("row", "key", "order", "position")])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            if path.suffix == ".npz":
                arrays = {name: np.array(rows[name].to_pylist()) for name in names}
                values = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                with open(partial, "wb") as file:
                    np.savez(file, embedding=values.reshape(len(rows), self.dim), **arrays)
            else:
                parquet.write_table(rows.select([*names, "embedding"]).replace_schema_metadata(), partial)
        return len(rows)


def group_copies(embeds: torch.Tensor, threshold: float, k: int) -> list[list[int]]:
    """The rows of at most `k` groups of embeddings (rows, dim), as similar to the first of them as a threshold."""
    groups, is_free = [], torch.ones(len(embeds), dtype=torch.bool)
    while len(groups) < k and is_free.any():
        first = int(is_free.int().argmax())
        is_copy = is_free & (embeds @ embeds[first] >= threshold - ROUNDING)
        is_copy[first] = True
        groups.append(is_copy.nonzero()[:, 0].tolist())
        is_free &= ~is_copy
    return groups


def flatten(settings: dict) -> dict:
    """Settings with the arguments that name a data set beside the others."""
    source = settings.get("source")
    return {**settings, **source, "source": None} if isinstance(source, dict) else settings


def connect(folder: Path) -> lancedb.DBConnection:
    """The tables of a folder, each of which is looked at anew for every question."""
    return lancedb.connect(folder, read_consistency_interval=timedelta(0))


def is_table(folder: Path) -> bool:
    """Whether there is a table of embeddings in a folder."""
    return any((folder / f"{TABLE}.lance" / "_versions").glob("*.manifest"))

# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The index of a collection: a table of LanceDB on disk, and the search in it.

Of a collection below `NUM_EXACT` pictures every similarity is computed. Above, an index of vectors (IVF_RQ: cells, and
in them codes of a bit for each dimension) leaves most of them out, and the best that it finds are compared exactly. As
many cells and candidates are taken as it needs to find `LEAST_RECALL` of what exact search does.

Of a model that compares tokens the embeddings of all tokens of a picture are in its row, a multivector of LanceDB.
They are always compared exactly, with some pictures in memory at a time.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from datasets.fingerprint import Hasher
from filelock import FileLock
from huggingface_hub import cached_assets_path
from lancedb.expr import col, lit
from lancedb.index import BTree, IvfRq
from lancedb.query import LanceVectorQueryBuilder
from lancedb.table import Table
from transformers import PreTrainedModel, ProcessorMixin

from ..embedding.batches import embed_texts, tokenize
from ..embedding.models import dtype_name, get_truncate_dim, hash_weights
from ..embedding.search import recall_at_k, search
from ..embedding.store import open_shards, read_embeddings
from ..embedding.token_wise import is_token_wise
from ..files import write_json
from ..modeling_variants_lotlip import token_similarities
from .filters import EVERYTHING, Filter
from .pictures import PictureFolder, PictureRows, Stamp


# In the folder of an index: its table, and what is locked by whoever writes
TABLE, LOCK = "pictures", ".lock"
# Of a larger collection so many pictures, drawn at random, stand for all where something is measured
NUM_REFERENCES = 20_000
# From so many pictures on the search is approximate
NUM_EXACT = 50_000
# Of the exact first `RECALL_K` the approximate search finds at least this share, as measured with so many pictures
LEAST_RECALL, RECALL_K, NUM_MEASURED = 0.98, 10, 200
# How many cells are looked into, and for each result how many candidates are compared exactly: the first that do
EFFORTS = ((20, 10), (30, 20), (40, 20), (60, 20), (80, 20), (120, 40), (160, 40))
# A text is as far above those that fit no picture as the median of these is above their weaker sixth, times this
LINE = 1.5
# Copies are nearer to each other than this share of the distance to another picture that this many pictures fall
# below; it is measured with so many of them
COPY_DISTANCE, COPY_QUANTILE, NUM_SAMPLED = 0.15, 0.75, 500
# The share of new pictures after which the recall and the levels are measured again
MUCH_NEW = 0.1
# Versions of the table that are older are dropped; a younger one may still be read by another program
KEPT_VERSIONS = timedelta(minutes=10)
# Similarities that differ by less may be of equal vectors, computed in another order
ROUNDING = 1e-6
# Pictures that are deleted, or read, at once; and those whose tokens are compared at once
NUM_AT_ONCE, NUM_COMPARED = 1_000, 64


class Found(NamedTuple):
    """
    What a search has found, the most similar first.

    Args:
        names (`list[str]`):
            The pictures.
        similarities (`torch.Tensor` of shape `(num_found,)`):
            Their cosine similarities with the query, in float32; of tokens see [`Index.search`].
        embeds (`torch.Tensor` of shape `(num_found, dim)`, *optional*):
            Their embeddings, in float32; None where these are of tokens.
    """

    names: list[str]
    similarities: torch.Tensor
    embeds: torch.Tensor | None


class Effort(NamedTuple):
    """
    How the approximate search goes about it, and what it finds.

    Args:
        num_cells (`int`):
            How many cells are looked into.
        num_candidates (`int`):
            For each result so many are compared exactly.
        recall (`float`, *optional*):
            The share that it finds of the `RECALL_K` other pictures that are the most similar to a picture: as if
            that were a query, and not in the collection. None while that is not measured.
        num_pictures (`int`, *optional*, defaults to 0):
            How many there were when it was measured.
    """

    num_cells: int
    num_candidates: int
    recall: float | None = None
    num_pictures: int = 0


class Levels(NamedTuple):
    """
    What is much for a similarity, in a collection by a model.

    Args:
        line (`float`):
            Results of a text that are less similar to it are weak: texts that fit no picture come as near.
        copy (`float`):
            Pictures that are as similar to each other are copies, or of one burst.
        num_pictures (`int`):
            How many pictures there were when this was measured.
    """

    line: float
    copy: float
    num_pictures: int


def make_schema(dim: int, dtype: pa.DataType | None = None, of_tokens: bool = False) -> pa.Schema:
    """
    The columns of an index.

    Args:
        dim (`int`):
            Of the embeddings.
        dtype (`pa.DataType`, *optional*):
            Of the embeddings. Default: float16, which takes half the time and space of float32.
        of_tokens (`bool`, *optional*, defaults to `False`):
            Whether a picture has an embedding of each token, not one.
    """
    embedding = pa.list_(dtype or pa.float16(), dim)
    columns = {
        "name": pa.string(),
        "size": pa.int64(),  # of the file, in bytes
        "modified": pa.timestamp("ns"),  # UTC
        "row": pa.string(),  # of a data set, where there is no file
        "hash": pa.string(),  # of the file's bytes, BLAKE2b with 16 bytes
        "width": pa.int32(),
        "height": pa.int32(),
        "taken": pa.timestamp("s"),  # as the camera's clock said
        "embedding": pa.list_(embedding) if of_tokens else embedding,
        "problem": pa.string(),  # why it cannot be read
    }
    return pa.schema(columns)


def make_rows(names: list[str], embeds: torch.Tensor, schema: pa.Schema) -> pa.Table:
    """The rows of an index of which no more is known than names and normalised embeddings (pictures, dim)."""
    vectors = schema.field("embedding").type
    values = embeds.numpy().astype(vectors.value_type.to_pandas_dtype())
    columns = {
        "name": pa.array(names, pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), vectors.list_size),
    }
    return pa.table([columns.get(field.name, pa.nulls(len(names), field.type)) for field in schema], schema=schema)


def to_vectors(column: pa.ChunkedArray) -> torch.Tensor:
    """
    A column of embeddings without nulls as a matrix (rows, dim), of length 1, in float32 in any storage; or as (rows,
    tokens, dim), of as many tokens in each row.
    """
    vectors, of_tokens = column.combine_chunks(), has_tokens(column.type)
    num_rows, dim = len(vectors), column.type.value_type.list_size if of_tokens else column.type.list_size
    values = (vectors.flatten() if of_tokens else vectors).flatten().to_numpy(zero_copy_only=False)
    shape = (num_rows, len(values) // (dim * max(1, num_rows)), dim) if of_tokens else (num_rows, dim)
    return torch.nn.functional.normalize(torch.from_numpy(values.astype(np.float32)).reshape(shape), dim=-1)


def has_tokens(column: pa.DataType) -> bool:
    """Whether a column of embeddings has one of each token of a picture."""
    return pa.types.is_list(column)


def measure_tops(tops: torch.Tensor) -> tuple[float, float]:
    """
    Where the similarities of texts with their most similar pictures lie, though some of the texts may fit.

    Args:
        tops (`torch.Tensor` of shape `(num_texts,)`):
            The similarities.

    Returns:
        `(float, float)`: their median, and how much it is above the weaker sixth, for a normal distribution about the
        standard deviation.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.search.index import measure_tops

    >>> measure_tops(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0]))
    (3.0, 2.0)
    ```"""
    sixth, median = torch.quantile(tops, torch.tensor([1 / 6, 1 / 2])).tolist()
    return median, median - sixth


class Index:
    """
    The index of a collection, on disk: every question is answered from what is there then, whoever has written it.

    Args:
        table (`lancedb.table.Table`):
            With the columns of [`make_schema`].
        folder (`Path`, *optional*):
            Where it is.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip.search.index import Index

    >>> index = Index.of_embeddings(["sea", "wood", "town"], torch.eye(3))
    >>> len(index), "wood" in index, "moon" in index
    (3, True, False)
    >>> index.search(torch.tensor([0.6, 0.8, 0.0]), k=2).names
    ['wood', 'sea']
    ```"""

    def __init__(self, table: Table, folder: Path | None = None):
        self.table, self.folder = table, folder
        self.drawn_references = self.listed_folders = None, None

    @classmethod
    def of_embeddings(cls, names: list[str], embeds: torch.Tensor) -> "Index":
        """One in memory, of normalised embeddings (pictures, dim), which are kept in float32."""
        schema = make_schema(embeds.shape[1], dtype=pa.float32())
        return cls(lancedb.connect("memory://").create_table(TABLE, make_rows(names, embeds, schema)))

    @classmethod
    def make(cls, folder: Path, dim: int, settings: dict[str, Any], of_tokens: bool = False) -> "Index":
        """That in a folder, or a new one; `settings.json` says beside it what the embeddings are of."""
        folder.mkdir(parents=True, exist_ok=True)
        if not is_index(folder):
            with FileLock(folder / LOCK):
                write_json(folder / "settings.json", settings)
                connect(folder).create_table(TABLE, schema=make_schema(dim, of_tokens=of_tokens), exist_ok=True)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "Index":
        """That in a folder where [`is_index`]."""
        return cls(connect(folder).open_table(TABLE), folder)

    @cached_property
    def of_tokens(self) -> bool:
        """Whether a picture has an embedding of each token, not one."""
        return has_tokens(self.table.schema.field("embedding").type)

    @cached_property
    def dim(self) -> int:
        column = self.table.schema.field("embedding").type
        return column.value_type.list_size if self.of_tokens else column.list_size

    def __len__(self) -> int:
        """How many pictures can be searched."""
        return self.count()

    def count(self, those: Filter = EVERYTHING) -> int:
        """How many pictures can be searched that a filter lets through."""
        return self.table.count_rows(those.condition)

    @property
    def folders(self) -> list[str]:
        """All folders with pictures that can be searched, and those that these are in, sorted."""
        version = self.table.version
        listed_at, listed = self.listed_folders
        if listed_at != version:
            parents = set()
            for batch in self.table.search().where(EVERYTHING.condition).select(["name"]).to_batches(NUM_AT_ONCE):
                parents |= {os.path.dirname(name) for name in batch["name"].to_pylist()}
            paths = map(PurePath, parents)
            listed = sorted({str(folder) for path in paths for folder in (path, *path.parents)} - {"."})
            self.listed_folders = version, listed
        return listed

    def __contains__(self, name: str) -> bool:
        return self.embedding(name) is not None

    @property
    def unreadable(self) -> dict[str, str]:
        """By name what is wrong with pictures that cannot be read."""
        rows = self.table.search().where("problem IS NOT NULL").select(["name", "problem"]).to_arrow()
        return dict(zip(rows["name"].to_pylist(), rows["problem"].to_pylist()))

    @property
    def references(self) -> torch.Tensor:
        """The embeddings (pictures, dim) of all pictures, or of `NUM_REFERENCES` that are drawn."""
        version = self.table.version
        drawn_at, drawn = self.drawn_references
        if drawn_at != version:
            num_rows = self.table.count_rows()
            if num_rows <= NUM_REFERENCES:
                query = self.table.search()
            else:
                order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[:NUM_REFERENCES]
                query = self.table.take_offsets(order.sort().values.tolist())
            drawn = to_vectors(query.select(["embedding"]).to_arrow()["embedding"].drop_null())
            self.drawn_references = version, drawn
        return drawn

    def draw_references(self, num: int) -> torch.Tensor:
        """At most so many of [`Index.references`], from all parts of the table."""
        return self.references[:: -(-len(self.references) // num)]

    def embedding(self, name: str) -> torch.Tensor | None:
        """That of a picture (dim,), or of its tokens (tokens, dim); None if there is none of the name."""
        rows = self.table.search().where(col("name") == lit(name)).select(["embedding"]).limit(1).to_arrow()
        found = to_vectors(rows["embedding"].drop_null())
        return found[0] if len(found) else None

    def search(self, query: torch.Tensor, k: int, those: Filter = EVERYTHING) -> Found:
        """
        The pictures that are most similar to a query. Of equal ones that with the first name comes first.

        Args:
            query (`torch.Tensor` of shape `(dim,)`, or `(num_tokens, dim)` in an index of tokens):
                A normalised embedding. Of tokens the similarity is the mean over those of the query of the cosine
                similarity with the most similar token of the picture: see `token_similarities`.
            k (`int`):
                How many pictures, at most.
            those ([`Filter`], *optional*):
                Which pictures are searched. Fewer than `NUM_EXACT` are searched exactly.
        """
        if self.of_tokens:
            return self.search_tokens(query, k, those)
        limit = 2 * k + 10
        is_exact = those != EVERYTHING and self.count(those) < NUM_EXACT
        while True:
            nearest = self.nearest(query, limit)
            if those != EVERYTHING:
                nearest = nearest.where(those.condition, prefilter=True)
            if is_exact:
                nearest = nearest.bypass_vector_index()
            rows = nearest.select(["name", "embedding", "_distance"]).to_arrow()
            names, embeds = rows["name"].to_pylist(), to_vectors(rows["embedding"])
            # in float64 those of equal vectors are equal, whatever stands beside them
            similarities = (embeds.double() @ query.double().cpu()).float()
            order = sorted(range(len(names)), key=lambda row: (-similarities[row].item(), names[row]))
            is_cut = len(names) == limit and similarities[order[k - 1]] - similarities[order[-1]] <= ROUNDING
            if not is_cut:
                order = order[:k]
                return Found([names[row] for row in order], similarities[order], embeds[order])
            limit *= 4  # among so many that are alike others may come before

    def search_tokens(self, query: torch.Tensor, k: int, those: Filter) -> Found:
        """[`Index.search`] in an index of tokens: several times as fast as LanceDB's own search in float16."""
        rows, names, similarities = self.table.search().where(those.condition), [], [torch.empty(0)]
        query = query.float().cpu()[None]
        is_token = torch.ones(query.shape[:2], dtype=torch.bool)
        for batch in rows.select(["name", "embedding"]).to_batches(NUM_COMPARED):
            images = to_vectors(pa.chunked_array([batch["embedding"]]))
            names += batch["name"].to_pylist()
            similarities.append(token_similarities(images, query, is_token)[1][:, 0])
        similarities = torch.cat(similarities)
        order = sorted(range(len(names)), key=lambda row: (-similarities[row].item(), names[row]))[:k]
        return Found([names[row] for row in order], similarities[order], None)

    def nearest(self, query: torch.Tensor, limit: int, effort: Effort | None = None) -> LanceVectorQueryBuilder:
        """LanceDB's own search for so many rows."""
        nearest = self.table.search(query.float().cpu().numpy()).distance_type("cosine").limit(limit)
        effort = effort or self.effort
        if effort is not None:
            nearest = nearest.nprobes(effort.num_cells).refine_factor(effort.num_candidates)
        return nearest

    @property
    def effort(self) -> Effort | None:
        """How the approximate search goes about it; None if the search is exact."""
        if not any(index.columns == ["embedding"] for index in self.table.list_indices()):
            return None
        noted = (self.table.schema.field("embedding").metadata or {}).get(b"effort")
        return Effort(*EFFORTS[-1]) if noted is None else Effort(*json.loads(noted))

    def read_stamps(self) -> Iterator[tuple[str, Stamp]]:
        """All pictures, and what their files were when they were read."""
        rows = self.table.search().select(["name", "size", "modified", "row"])
        for batch in rows.to_batches(NUM_AT_ONCE):
            modified = batch["modified"].cast(pa.int64())
            columns = [column.to_pylist() for column in (batch["name"], batch["size"], modified, batch["row"])]
            for name, *stamp in zip(*columns):
                yield name, Stamp(*stamp)

    def write(self, rows: list[dict]) -> None:
        """
        Adds pictures, or puts them instead of those of the same names: all or, after an error, none of them.

        Args:
            rows (`list[dict]`):
                The columns of each picture, as far as there is something in them; the embedding is a tensor (dim,), or
                (tokens, dim).

        Raises:
            `OSError`: if they cannot be written: the disk is full, say.
        """
        schema = self.table.schema
        columns = {name: [row.get(name) for row in rows] for name in schema.names}
        columns["embedding"] = self.to_column(columns["embedding"])
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
            for name, column in columns.items()
        ]
        upsert = self.table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all()
        try:
            upsert.execute(pa.table(arrays, schema=schema), on_bad_vectors="null")
        except RuntimeError as error:  # of LanceDB, with all the places in its sources where it passed by
            cause = str(error).splitlines()[0]
            raise OSError(f"The index in {self.folder} cannot be written, and is as it was: {cause}") from error

    def to_column(self, embeds: list[torch.Tensor | None]) -> pa.FixedSizeListArray | pa.ListArray:
        """Embeddings as a column of the table."""
        column = self.table.schema.field("embedding").type
        is_null = pa.array([embedding is None for embedding in embeds])
        if self.of_tokens:
            present = [torch.empty(0, self.dim) if tokens is None else tokens for tokens in embeds]
            ends = torch.tensor([0, *map(len, present)], dtype=torch.int32).cumsum(dim=0, dtype=torch.int32)
            dtype = column.value_type.value_type.to_pandas_dtype()
            values = pa.array(torch.cat(present).numpy().astype(dtype).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(values, self.dim)
            return pa.ListArray.from_arrays(pa.array(ends.numpy()), vectors, mask=is_null)
        dtype = column.value_type.to_pandas_dtype()
        stacked = torch.stack([torch.zeros(self.dim) if embedding is None else embedding for embedding in embeds])
        return pa.FixedSizeListArray.from_arrays(
            pa.array(stacked.numpy().astype(dtype).ravel()), self.dim, mask=is_null
        )

    def delete(self, names: list[str]) -> None:
        """Drops pictures."""
        for start in range(0, len(names), NUM_AT_ONCE):
            self.table.delete(col("name").isin(names[start : start + NUM_AT_ONCE]))

    def tidy(self) -> None:
        """Brings the many small files of an update together, and what is new into the indices."""
        self.table.optimize(cleanup_older_than=KEPT_VERSIONS)

    @property
    def is_due(self) -> bool:
        """Whether [`Index.speed_up`] has something to do."""
        effort, num_pictures = self.effort, len(self)
        if self.of_tokens or num_pictures < NUM_EXACT:
            return False
        return effort is None or abs(num_pictures - effort.num_pictures) > MUCH_NEW * effort.num_pictures

    def speed_up(self) -> None:
        """
        Makes the search approximate, or measures how well it is after many new pictures, and makes its index anew
        where that is no longer good enough.
        """
        is_new = self.effort is None
        if is_new:
            self.build()
        if self.measure().recall < LEAST_RECALL and not is_new:
            self.build()
            self.measure()

    def build(self) -> None:
        """Makes the indices of vectors and of names."""
        self.table.create_index("embedding", config=IvfRq(distance_type="cosine"), replace=True)
        self.table.create_index("name", config=BTree(), replace=True)

    def read_vectors(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """LanceDB's numbers (rows,) and the embeddings (rows, dim) of all pictures that can be searched, in parts."""
        rows = self.table.search().where(EVERYTHING.condition).select(["embedding"]).with_row_id(True)
        for batch in rows.to_batches(NUM_AT_ONCE):
            ids = torch.from_numpy(batch["_rowid"].to_numpy().astype(np.int64))
            yield ids, to_vectors(pa.chunked_array([batch["embedding"]]))

    @property
    def levels(self) -> Levels | None:
        """What is much for a similarity here; None while that is not measured."""
        noted = (self.table.schema.field("embedding").metadata or {}).get(b"levels")
        return None if noted is None else Levels(*json.loads(noted))

    @property
    def are_levels_due(self) -> bool:
        """Whether [`Index.measure_levels`] has something to do."""
        if self.of_tokens:  # they are of similarities of single embeddings
            return False
        levels, num_pictures = self.levels, len(self)
        if num_pictures == 0 or levels is None:
            return num_pictures > 0
        return abs(num_pictures - levels.num_pictures) > MUCH_NEW * levels.num_pictures

    def measure_levels(self, background: torch.Tensor) -> Levels:
        """
        Notes what is much for a similarity.

        The line is by texts that fit no picture, or few of them: each has a most similar picture all the same. It is
        the median of these similarities, and `LINE` times as much above it as it is above the weaker sixth, so that it
        does not matter if some of the texts fit after all.

        Copies are by the distance (1 less the cosine similarity) of pictures of the collection to the nearest other
        one: of one model 0.95 is that of copies, of another one that of any two pictures.

        Args:
            background (`torch.Tensor` of shape `(num_texts, dim)`):
                Normalised embeddings of texts: see [`embed_background`].
        """
        sample = self.draw_references(NUM_SAMPLED)
        queries, num_pictures = torch.cat([background, sample]), 0
        tops = queries.new_empty(len(queries), 0)
        for _, vectors in self.read_vectors():
            tops = torch.cat([tops, queries @ vectors.t()], dim=1)
            tops = tops.topk(min(2, tops.shape[1]), dim=1).values
            num_pictures += len(vectors)
        median, spread = measure_tops(tops[: len(background), 0])
        # the most similar to a picture is itself
        distance = torch.quantile(1 - tops[len(background) :, -1], COPY_QUANTILE).clamp(min=0).item()
        levels = Levels(median + LINE * spread, 1 - COPY_DISTANCE * distance, num_pictures)
        self.table.update_field_metadata({"path": "embedding", "metadata": {"levels": json.dumps(levels)}})
        return levels

    def measure(self) -> Effort:
        """Notes the least effort with which the approximate search is good enough, or else the largest."""
        # each finds itself first, and that does not count: it would be found with any effort
        queries, k, ids = self.draw_references(NUM_MEASURED), min(RECALL_K + 1, len(self)), []

        def read_corpus() -> Iterator[torch.Tensor]:
            for row_ids, vectors in self.read_vectors():
                ids.append(row_ids)
                yield vectors

        positions = search(queries, read_corpus(), k)[1]
        exact = torch.cat(ids)[positions[:, 1:]]
        for num_cells, num_candidates in EFFORTS:
            effort = Effort(num_cells, num_candidates, num_pictures=len(self))
            found = torch.stack([self.nearest_ids(query, k, effort) for query in queries])
            effort = effort._replace(recall=recall_at_k(found, exact))
            if effort.recall >= LEAST_RECALL:
                break
        self.table.update_field_metadata({"path": "embedding", "metadata": {"effort": json.dumps(effort)}})
        return effort

    def nearest_ids(self, query: torch.Tensor, k: int, effort: Effort) -> torch.Tensor:
        """LanceDB's numbers of the rows that it finds (k,); -1 where it finds fewer."""
        rows = self.nearest(query, k, effort).select(["_distance"]).with_row_id(True).to_arrow()
        ids = torch.from_numpy(rows["_rowid"].to_numpy().astype(np.int64))
        return torch.nn.functional.pad(ids, (0, k - len(ids)), value=-1)


def describe_effort(index: Index) -> str:
    """How the search in an index is, in words that go on "1 picture in a place"; nothing if it is the usual one."""
    if index.of_tokens:
        return ", compared token by token: no result is marked as weak, or shown as a copy of another"
    effort = index.effort
    if effort is None:
        return ""
    if effort.recall is None:
        return ", searched approximately"
    return f", searched approximately: {effort.recall:.1%} of the first {RECALL_K} are those of exact search"


def connect(folder: Path) -> lancedb.DBConnection:
    """A folder of tables, each of which is looked at anew for every question."""
    return lancedb.connect(folder, read_consistency_interval=timedelta(0))


def is_index(folder: Path) -> bool:
    """Whether there is an index in a folder."""
    return any((folder / f"{TABLE}.lance" / "_versions").glob("*.manifest"))


def find_index(
    pictures: PictureFolder | PictureRows,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    index_dir: Path | None = None,
) -> Index:
    """
    The index of a collection by a model, which is made if there is none.

    Args:
        pictures (`PictureFolder` or `PictureRows`):
            The collection.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        index_dir (`Path`, *optional*):
            The folder of all indices. Default: `assets/lotlip/search` in the cache of the Hub.
    """
    settings = {
        "source": pictures.source,
        "weights": hash_weights(model),
        "image_processor": Hasher.hash(processor.image_processor),
        "dtype": dtype_name(model),
        "exact_decoding": pictures.exact_decoding,
    }
    if (truncate_dim := get_truncate_dim(model)) is not None:
        settings["truncate_dim"] = truncate_dim
    name = f"{Path(pictures.place).resolve().name}-{Hasher.hash(settings)}"
    settings["model_name_or_path"] = model.config.name_or_path  # of which there may be several for the same weights
    folder = cached_assets_path("lotlip", "search", name) if index_dir is None else index_dir / name
    return Index.make(folder, embed_texts(model, tokenize(processor, ["a"])).shape[-1], settings, is_token_wise(model))


def load_embeddings(folder: Path) -> Index:
    """
    The images in a folder of `lotlip embed`, in memory.

    Raises:
        `ValueError`: if there are none.
    """
    shards = open_shards(folder).to_table(columns=["id"], filter=pa.compute.field("kind") == "image")
    if len(shards) == 0:
        raise ValueError(f"--embeddings_dir {folder} holds no embeddings of images: make them without `--only texts`.")
    names = [str(name) for name in shards["id"].to_pylist()]
    return Index.of_embeddings(names, torch.cat(list(read_embeddings(folder, "image"))))

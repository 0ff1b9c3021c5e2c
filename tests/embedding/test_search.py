import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import lotlip
from modeling_lotlip import LotlipModel
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.batches import embed_corpus
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.search import format_hits, search, search_folder
from modeling_lotlip.embedding.store import (
    STORAGE_DTYPES,
    from_storage,
    read_embeddings,
    read_storage_dtype,
    to_storage,
)
from modeling_lotlip.metrics import retrieval_metrics
from tests.conftest import WORDS


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def split(corpus: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    return list(corpus.split([*sizes, len(corpus) - sum(sizes)]))


# neither number is a multiple of a block's 256 queries or 4096 rows
@pytest.mark.parametrize("num_rows, sizes", [(9001, []), (9001, [1, 0, 4097, 1]), (300, [1] * 299), (7, [3])])
def test_equals_brute_force_in_float64(num_rows, sizes):
    generator = torch.manual_seed(num_rows)
    queries, corpus = unit(generator, 259, 24), unit(generator, num_rows, 24)
    similarities, positions = search(queries, iter(split(corpus, sizes)), 7)
    assert similarities.dtype == torch.float32
    expected = queries.double() @ corpus.double().t()
    in_order = expected.sort(dim=1, descending=True).values[:, :7]
    torch.testing.assert_close(similarities.double(), in_order, rtol=0, atol=1e-6)
    torch.testing.assert_close(expected.gather(1, positions), in_order, rtol=0, atol=1e-6)
    assert all(len(set(row)) == 7 for row in positions.tolist())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_of_equals_the_first(data):
    # products of small whole numbers are exact, and few, so that most rows share their similarity
    generator = torch.manual_seed(data.draw(st.integers(0, 1000)))
    num_rows = data.draw(st.sampled_from([1, 9, 40, 4100]))
    queries = torch.randint(-1, 2, (3, 4), generator=generator).float()
    corpus = torch.randint(-1, 2, (num_rows, 4), generator=generator).float()
    cuts = sorted(data.draw(st.lists(st.integers(0, num_rows), max_size=4)))
    parts = split(corpus, [stop - start for start, stop in zip([0, *cuts], cuts)])
    k = data.draw(st.integers(1, min(num_rows, 50)))
    expected = (queries @ corpus.t()).sort(dim=1, descending=True, stable=True)
    similarities, positions = search(queries, parts, k)
    assert torch.equal(positions, expected.indices[:, :k])
    assert torch.equal(similarities, expected.values[:, :k])


def test_refuses_what_it_cannot_search():
    corpus = torch.eye(4)
    with pytest.raises(ValueError, match="`k` is 5, but `corpus` has 4"):
        search(corpus, [corpus], 5)
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        search(corpus, [corpus], 0)
    with pytest.raises(ValueError, match="4 wide, but a part of `corpus` has the shape \\(4, 3\\)"):
        search(corpus, [corpus, corpus[:, :3]], 1)
    broken = corpus.clone()
    broken[2, 1] = math.nan
    with pytest.raises(ValueError, match="NaN, in the latter at a position from 4 to 7"):
        search(corpus, [corpus, broken], 1)


def test_storage_round_trips():
    embeds = unit(torch.manual_seed(0), 500, 768)
    stored = {name: to_storage(embeds, name) for name in STORAGE_DTYPES}
    assert {name: values[0].nbytes for name, values in stored.items()} == {
        "float32": 3072,
        "float16": 1536,
        "int8": 768,
        "binary": 96,
    }
    read = {name: from_storage(values, name) for name, values in stored.items()}
    for values in read.values():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.norm(dim=1), torch.ones(500), rtol=0, atol=1e-6)
    assert torch.equal(read["float32"], embeds)
    assert (read["int8"] * embeds).sum(dim=1).min() >= 0.9999
    assert torch.equal(read["binary"], embeds.sign() / math.sqrt(768))
    # the scale is each vector's own, and both are fixed points: what was read is stored as it was
    assert np.array_equal(to_storage(2**-10 * embeds, "int8"), stored["int8"])
    for name in ("int8", "binary"):
        assert np.array_equal(to_storage(read[name], name), stored[name])
    assert torch.equal(from_storage(to_storage(torch.zeros(1, 8), "int8"), "int8"), torch.zeros(1, 8))

    # captions near their images find them whatever the storage
    texts = torch.nn.functional.normalize(embeds + 0.5 * unit(torch.manual_seed(1), 500, 768), dim=-1)
    recalls = [retrieval_metrics(read[name], texts)["t2i_recall@1"] for name in STORAGE_DTYPES]
    assert recalls == [100.0] * 4


def test_storage_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="must be a multiple of 8; this model's is 12"):
        to_storage(torch.ones(2, 12), "binary")
    with pytest.raises(ValueError, match="one of .*, got 'int4'"):
        to_storage(torch.ones(2, 8), "int4")
    embeds = torch.ones(3, 8)
    embeds[1, 5] = math.nan
    for storage_dtype in ("int8", "binary"):
        with pytest.raises(ValueError, match=r"`embeds\[1\]` holds NaN"):
            to_storage(embeds, storage_dtype)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Rows with names; random captions, since all drawn ones are the same to the small vocabulary."""
    generator = random.Random(3)
    folder = tmp_path_factory.mktemp("data")

    def text(scene: dict) -> dict:
        return {
            "caption": " ".join(generator.choices(WORDS, k=5)),
            "long_captions": [". ".join(" ".join(generator.choices(WORDS, k=9)) for _ in range(3)) for _ in range(2)],
        }

    scenes = load_scenes(40, seed=5).map(text)
    scenes.add_column("name", [f"picture {7 * number % 40}" for number in range(40)]).save_to_disk(folder)
    return folder


@pytest.fixture
def embeddings_dir(model_dir, data_dir, tmp_path):
    """Embeds the data set in shards of 16 rows, in a storage dtype."""

    def embed(storage_dtype: str, **arguments) -> Path:
        arguments = {"model": model_dir, "dataset_name": data_dir, "id_column": "name", "device": "cpu", **arguments}
        arguments |= {"shard_size": 16, "storage_dtype": storage_dtype, "output_dir": tmp_path / storage_dtype}
        options = [str(part) for name, value in arguments.items() for part in (f"--{name}", value)]
        assert lotlip.main(["embed", *options]) == 0
        return tmp_path / storage_dtype

    return embed


def rows_of(folder: Path, kind: str) -> list[dict]:
    paths = sorted(folder.glob("*.parquet"))
    return [row for path in paths for row in parquet.read_table(path).to_pylist() if row["kind"] == kind]


@pytest.mark.parametrize("storage_dtype", STORAGE_DTYPES)
def test_shards_are_read_as_they_were_stored(embeddings_dir, storage_dtype):
    folder = embeddings_dir(storage_dtype)
    for kind, num_rows in (("image", 40), ("long", 80)):
        rows = rows_of(folder, kind)
        stored = np.array([row["embedding"] for row in rows])
        stored = stored.astype({"binary": "uint8"}.get(storage_dtype, storage_dtype))
        parts = list(read_embeddings(folder, kind, batch_size=30))
        assert len(parts) > 1 and sum(map(len, parts)) == num_rows
        assert torch.equal(torch.cat(parts), from_storage(stored, storage_dtype))
    assert list(read_embeddings(folder, "none")) == []
    # shards from before they told their storage
    assert read_storage_dtype(pa.schema({"embedding": pa.list_(pa.float16(), 8)})) == "float16"


@pytest.mark.parametrize("storage_dtype, kind", [("float32", "long"), ("binary", "image")])
def test_search_in_a_folder(embeddings_dir, storage_dtype, kind, model_dir):
    folder = embeddings_dir(storage_dtype)
    queries = ["a red boat", "a car. the sea is blue. " * 30, "tree"]
    model, processor = load_model(model_dir, InferenceArguments(device="cpu"))
    results = search_folder(folder, model, processor, queries, kind, k=4)
    printed, found = format_hits(results), results["queries"]
    assert [query["query"] for query in found] == queries
    assert [query["truncated"] for query in found] == [False, True, False] and printed.count("(truncated)") == 1

    texts = [queries[0], queries[1].strip().removesuffix("."), queries[2]]
    embeds = embed_corpus(model, processor, texts)
    rows = rows_of(folder, kind)
    similarities, positions = search(embeds, read_embeddings(folder, kind), 4)
    for query, scores, places in zip(found, similarities.tolist(), positions.tolist()):
        assert [result["rank"] for result in query["results"]] == [1, 2, 3, 4]
        assert [result["similarity"] for result in query["results"]] == pytest.approx(scores, abs=1e-5)
        expected = [(rows[place]["id"], rows[place]["index"]) for place in places]
        assert [(result["id"], result["index"]) for result in query["results"]] == expected
        assert all(f"id {identifier}   index {index}" in printed for identifier, index in expected)


def test_refuses_other_models_and_missing_kinds(embeddings_dir, model_dir, tmp_path):
    folder = embeddings_dir("int8", only="images")
    model, processor = load_model(model_dir, InferenceArguments(device="cpu"))

    def refuse(message: str, folder: Path = folder, model: LotlipModel = model, queries=("a",), **arguments) -> None:
        with pytest.raises(ValueError, match=message):
            search_folder(folder, model, processor, list(queries), **arguments)

    refuse("holds no embeddings of `--kind long`", kind="long")
    refuse("`--k 41` must be from 1 to 40, the embeddings of `--kind image`", k=41)
    refuse("no query, or a blank one", queries=["a", " "])
    refuse("holds no embeddings", folder=tmp_path)
    halved, _ = load_model(model_dir, InferenceArguments(device="cpu", dtype="bf16"))
    refuse("of other weights than .* has in bfloat16: .* `--dtype float32`", model=halved)
    with torch.no_grad():
        model.text_projection.weight[0, 0] += 1e-3
    refuse("of other weights than")

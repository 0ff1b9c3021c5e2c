"""The table of embeddings: what it finds, what it measures, what it refuses."""

import resource
import signal
from datetime import date, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from modeling_lotlip.encoder.arguments import KINDS
from modeling_lotlip.search.arguments import ALL_IMAGES, Filter
from modeling_lotlip.table import storage as module
from modeling_lotlip.table.storage import EmbeddingTable, Measurements, to_vectors
from modeling_lotlip.utils.output_folder import OutputFolder
from tests.conftest import SERVER
from tests.helpers.embeddings import make_table


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def stored(table: EmbeddingTable) -> torch.Tensor:
    """The embeddings as they are stored, in the order of the keys."""
    parts = list(table.read(["key", "embedding"]))
    keys = [int(key) for part in parts for key in part["key"].to_pylist()]
    return torch.cat([to_vectors(part["embedding"]) for part in parts])[torch.tensor(keys).argsort()]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_equals_exact_search_in_the_same_vectors(tmp_path, dtype):
    generator = torch.manual_seed(0)
    table = make_table(tmp_path, unit(generator, 400, 16), dtype=dtype)
    vectors = stored(table)
    for k, query in zip((1, 7, 1000), unit(generator, 3, 16)):
        expected, found = (vectors @ query).sort(descending=True), table.search(query, k)
        assert [int(key) for key in found.keys] == expected.indices[:k].tolist()
        torch.testing.assert_close(found.similarities, expected.values[:k], rtol=0, atol=1e-6)
        assert torch.equal(found.embeds, vectors[expected.indices[:k]])


@pytest.fixture
def captioned(tmp_path) -> tuple[EmbeddingTable, torch.Tensor]:
    """A hundred images with two captions each, written in another order, and their embeddings."""
    embeds = unit(torch.manual_seed(0), 300, 16)
    table = EmbeddingTable.create(tmp_path / "table", 16, {"kinds": list(KINDS)})
    rows = [
        {"key": f"key {number // 3:02}", "row": number // 3, "kind": KINDS[number % 3], "embedding": embedding}
        for number, embedding in enumerate(embeds)
    ]
    order = torch.randperm(300).tolist()
    table.append([rows[place] for place in order[:100]])
    table.append([rows[place] for place in order[100:]] + [{"key": "bad's", "row": 100, "problem": "cut off"}])
    return table, embeds


def test_kinds_are_searched_apart(captioned):
    table, embeds = captioned
    query = unit(torch.manual_seed(1), 1, 16)[0]
    for number, kind in enumerate(KINDS):
        expected = (embeds[number::3] @ query).topk(5)
        found = table.search(query, 5, kind)
        assert [int(key[4:]) for key in found.keys] == expected.indices.tolist()
        torch.testing.assert_close(found.similarities, expected.values, rtol=0, atol=1e-6)
    assert table.counts == {"image": 100, "short": 100, "long": 100, "truncated": 0, "unreadable": 1}
    assert table.rows_done() == set(range(101))


def test_export_is_in_the_order_of_the_data(captioned, tmp_path, monkeypatch):
    table, embeds = captioned
    monkeypatch.chdir(tmp_path)
    assert table.export(Path("vec:tors.parquet")) == table.export(tmp_path / "vectors.npz") == 300
    rows, arrays = parquet.read_table(tmp_path / "vec:tors.parquet"), np.load(tmp_path / "vectors.npz")
    for values in (rows.to_pydict(), {name: arrays[name].tolist() for name in arrays}):
        assert values["key"] == [f"key {number // 3:02}" for number in range(300)]
        assert values["kind"] == [*KINDS] * 100 and values["position"] == [0] * 300
        assert torch.tensor(values["embedding"]).equal(embeds)


def test_what_cannot_be_read_is_not_found(tmp_path):
    embeds = unit(torch.manual_seed(0), 3, 8)
    table = make_table(tmp_path, embeds)
    table.delete(["00001"])
    table.append([{"key": "it's broken", "problem": "cut off"}, {"key": "00001", "problem": "cut off too"}])
    assert table.unreadable == {"it's broken": "cut off", "00001": "cut off too"} and len(table) == 2
    assert table.embedding("it's broken") is None and table.embedding("00002") @ embeds[2] > 0.9999
    assert sorted(table.search(embeds[1], 10).keys) == ["00000", "00002"]
    table.delete(["it's broken", "nothing"])
    assert table.unreadable == {"00001": "cut off too"} and len(table) == 2


def test_a_table_sees_what_another_one_writes(tmp_path):
    embeds = unit(torch.manual_seed(0), 20, 8)
    reader = make_table(tmp_path, embeds[:10])
    writer = EmbeddingTable(tmp_path)
    writer.append([{"key": "new", "embedding": embeds[15]}])
    writer.table.optimize()
    assert reader.search(embeds[15], 1).keys == ["new"] and len(reader) == 11


def test_other_settings_are_one_line_with_both_values(tmp_path):
    source = {"dataset_name": "a", "split_seed": None}
    EmbeddingTable.create(tmp_path, 8, {"dtype": "float32", "data": "1", "source": source})
    EmbeddingTable.create(tmp_path, 8, {"dtype": "float32", "data": "1", "source": source})
    for other, told in (
        ({"dtype": "bfloat16"}, "dtype = 'float32', this run has 'bfloat16': "),
        ({"source": source | {"split_seed": 0}, "data": "2"}, "split_seed = None, this run has 0: "),
    ):
        with pytest.raises(ValueError, match=f"holds embeddings with {told}use the same settings, or name another"):
            EmbeddingTable.create(tmp_path, 8, {"dtype": "float32", "data": "1", "source": source} | other)
    with pytest.raises(ValueError, match="The data have changed since .* was made: name another folder"):
        EmbeddingTable.create(tmp_path, 8, {"dtype": "float32", "data": "2", "source": source})
    with pytest.raises(ValueError, match="storage_dtype = 'float32', this run has 'float16'"):
        EmbeddingTable.create(tmp_path, 8, {"dtype": "float32"}, dtype="float16")
    with pytest.raises(ValueError, match="holds no embeddings: make them"):
        EmbeddingTable(tmp_path / "nothing")


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path):
    with OutputFolder(tmp_path, content="captions"):
        (tmp_path / "captions.jsonl").write_text("")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="holds captions, not embeddings: name another folder"):
        EmbeddingTable.create(tmp_path, 8, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def create_and_append(folder: Path, barrier: Barrier, model: str) -> None:
    barrier.wait()
    table = EmbeddingTable.create(folder, 4, {"model": model, "kinds": ["image"]})
    for number in range(5):
        table.append([{"key": f"{model} {number}", "embedding": torch.ones(4)}])


def test_processes_that_create_a_table_at_once_share_it_or_are_refused(tmp_path):
    models, barrier = ("a", "b"), SERVER.Barrier(2)
    processes = [SERVER.Process(target=create_and_append, args=(tmp_path, barrier, model)) for model in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    table = EmbeddingTable(tmp_path)
    first = table.settings["model"]
    assert {key.split()[0] for key in table.search(torch.ones(4) / 2, 100).keys} == {first}
    assert len(table) == 5 * models.count(first)
    assert [process.exitcode == 0 for process in processes] == [model == first for model in models]


@pytest.mark.parametrize("ask", [len, lambda table: table.search(torch.ones(8), 3), lambda table: table.rows_done()])
def test_a_table_with_a_missing_file_is_an_error(tmp_path, ask):
    """Not an answer from what is left."""
    table = make_table(tmp_path, unit(torch.manual_seed(0), 20, 8))
    table.append([{"key": "more", "embedding": torch.ones(8)}])
    next(tmp_path.rglob("data/*.lance")).unlink()
    with pytest.raises(OSError, match=f"embeddings in {tmp_path} cannot be read or written.*lance. Make room"):
        ask(EmbeddingTable(tmp_path))


def append_to_a_full_disk(folder: Path) -> None:
    table = EmbeddingTable(folder)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="^[^\n]*cannot be read or written, and are as they[^\n]*$"):
        table.append([{"key": f"more {row}", "embedding": torch.ones(64)} for row in range(5000)])
    assert len(table) == 20 and len(table.search(torch.ones(64), 3).keys) == 3


def test_a_full_disk_is_one_line_and_leaves_the_table_as_it_was(tmp_path):
    """A limit on the size of files stands for it: LanceDB gets the same kind of error from the system."""
    make_table(tmp_path, unit(torch.manual_seed(0), 20, 64))
    process = SERVER.Process(target=append_to_a_full_disk, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    table = EmbeddingTable(tmp_path)
    assert len(table) == 20 and table.append([{"key": "more", "embedding": torch.ones(64)}]) is None
    assert len(table) == 21


def clustered(generator: torch.Generator, num: int, dim: int, num_centres: int = 40) -> torch.Tensor:
    """Vectors around a few, which is what an index of cells is made for."""
    centres = torch.randn(num_centres, dim, generator=generator)
    noise = torch.randn(num, dim, generator=generator)
    return torch.nn.functional.normalize(centres[torch.arange(num) % num_centres] + 0.5 * noise, dim=-1)


def test_many_images_are_searched_approximately_as_well_as_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NUM_EXACT", 3000)
    generator = torch.manual_seed(0)
    embeds, texts = clustered(generator, 4000, 32), unit(generator, 64, 32)
    table = make_table(tmp_path, embeds[:2900])
    table.maintain(lambda: texts)
    assert not table.has_index and table.describe_search() == "" and table.measured().recall == 1
    add = [{"key": f"{row:05}", "embedding": embeds[row]} for row in range(2900, 4000)]
    table.append(add[:100])
    table.maintain(lambda: texts)
    measured = table.measured()
    assert measured.recall >= 0.98 and measured.num_rows == 3000
    assert f"{measured.recall:.1%} of the first 10" in table.describe_search()
    vectors = stored(table)
    queries = torch.nn.functional.normalize(vectors[::30] + 0.05 * torch.randn(100, 32, generator=generator), dim=-1)
    assert min(recall(table, vectors, asked) for asked in (queries, unit(generator, 100, 32))) > 0.95
    # similarities are the exact ones
    result = table.search(queries[0], 5)
    torch.testing.assert_close(result.similarities, result.embeds @ queries[0], rtol=0, atol=1e-6)

    # what is new is found at once, and after many new ones it is measured again
    table.append(add[100:300])
    table.maintain(lambda: texts)
    assert table.measured() == measured and table.search(embeds[3100], 1).keys == ["03100"]
    table.append(add[300:])
    table.maintain(lambda: texts)
    assert table.measured().num_rows == 4000 and table.measured().recall >= 0.98


def recall(table: EmbeddingTable, vectors: torch.Tensor, queries: torch.Tensor) -> float:
    """The share of the ten exact results of queries that are found."""
    exact = (queries @ vectors.t()).topk(10, dim=1).indices.tolist()
    found = [{int(key) for key in table.search(query, 10).keys} for query in queries]
    return sum(len(keys & {*places}) for keys, places in zip(found, exact)) / (10 * len(queries))


def test_the_recall_that_is_said_is_the_lower_one_of_texts_and_images(tmp_path, monkeypatch):
    """Texts lie apart from images: they find less with parameters that do for images."""
    monkeypatch.setattr(module, "NUM_EXACT", 4000)
    generator = torch.manual_seed(0)
    gap = unit(generator, 1, 64)
    # cosines: image and image .45, text and image .23
    images = torch.nn.functional.normalize(0.45**0.5 * gap + 0.55**0.5 * unit(generator, 20_000, 64), dim=-1)
    texts = torch.nn.functional.normalize(0.34 * gap + 0.94 * unit(generator, 64, 64), dim=-1)
    table = make_table(tmp_path, images)
    table.build_index()
    for parameters in ((1, 2), (200, 2)):
        monkeypatch.setattr(module, "INDEX_PARAMETERS", (parameters,))
        measured = table.measure("image", texts)
        assert (measured.nprobes, measured.refine_factor) == parameters
        assert measured.recall == pytest.approx(
            min(recall(table, images, asked) for asked in (images[:100], texts)), abs=0.1
        )
    assert measured.recall >= 0.98
    monkeypatch.setattr(module, "INDEX_PARAMETERS", ((1, 2), (200, 2)))
    assert table.measure("image", texts).nprobes == 200


def test_a_filter_is_exact_however_the_search_is(tmp_path, monkeypatch):
    """Above `NUM_EXACT` too, where the few images of a folder lie in cells that are not searched."""
    monkeypatch.setattr(module, "NUM_EXACT", 1000)
    monkeypatch.setattr(module, "INDEX_PARAMETERS", ((1, 1),))
    generator = torch.manual_seed(0)
    embeds, query = clustered(generator, 2000, 32), unit(generator, 1, 32)[0]
    keys = [f"{'some' if number % 10 == 0 else 'others'}/{number:05}" for number in range(2000)]
    table = make_table(tmp_path, embeds, keys)
    table.maintain(lambda: unit(generator, 64, 32))
    assert table.has_index and table.measured().nprobes == 1
    some = Filter(folder="some").condition
    assert table.count(where=some) == 200
    found = table.search(query, 50, where=some)
    expected = (embeds[::10] @ query).sort(descending=True)
    assert found.keys == [keys[10 * place] for place in expected.indices[:50].tolist()]
    # of more the approximate search finds enough, and of those that are let through only
    many = table.search(query, 10, where=Filter(folder="others").condition)
    assert len(many.keys) == 10 and all(key.startswith("others/") for key in many.keys)


def test_folders_and_days_of_a_filter(tmp_path):
    days = {
        "it's 100%_/a.png": datetime(2024, 5, 1),
        "it's 100%_/more/b.png": datetime(2024, 5, 31, 23, 59, 59),
        "it's 100%_ too/c.png": datetime(2024, 6, 1),
        "d.png": None,
    }
    embeds = unit(torch.manual_seed(0), len(days), 8)
    table = EmbeddingTable.create(tmp_path, 8, {})
    table.append([{"key": key, "embedding": row, "taken": day} for (key, day), row in zip(days.items(), embeds)])
    table.append([{"key": "it's 100%_/broken.png", "problem": "cut off"}])
    a, b, c, d = days

    def keys(*values) -> set[str]:
        condition = Filter(*values).condition
        assert table.count(where=condition) == len(table.search(embeds[0], 10, where=condition).keys)
        return set(table.search(embeds[0], 10, where=condition).keys)

    assert keys() == {a, b, c, d} and keys("it's 100%_") == {a, b} and keys("it's 100%_/more") == {b}
    assert keys("it's") == keys("a.png") == set()
    assert keys(None, date(2024, 5, 1), date(2024, 5, 31)) == {a, b} and keys(None, date(2024, 5, 2)) == {b, c}
    assert keys(None, None, date(2024, 5, 30)) == {a} and keys("it's 100%_", date(2024, 5, 2)) == {b}
    assert table.folders == ["it's 100%_", "it's 100%_ too", "it's 100%_/more"]


def test_what_is_written_of_a_filter():
    for written in (("", "", ""), (None, None, None), (" ", " ", ""), (".", "", ""), ("./", "", "")):
        assert Filter.parse(*written) == ALL_IMAGES and ALL_IMAGES.condition is None
    assert Filter.parse(" a ").folder == " a "  # a name may begin and end with blanks
    with pytest.raises(ValueError, match="`taken_from` 31.5.2024 is no date: write year, month and day, as in 2024-0"):
        Filter.parse(None, "31.5.2024")
    with pytest.raises(ValueError, match="`taken_from` 2024-06-01 is after `taken_to` 2024-05-31: exchange them."):
        Filter.parse(None, "2024-06-01", "2024-05-31")


def test_thresholds_by_hand(tmp_path):
    """Also from parts of a table, and whatever a third of the texts fits."""
    generator = torch.manual_seed(0)
    embeds, texts = unit(generator, 2500, 16), unit(generator, 60, 16)
    table = make_table(tmp_path, embeds)
    assert table.measured() is None and table.due_kinds() == ["image"]
    measured = table.measure("image", texts)
    assert measured == table.measured() and measured.num_rows == 2500 and table.due_kinds() == []
    tops = (texts @ embeds.t()).amax(dim=1)
    sixth, median = torch.quantile(tops, 1 / 6), tops.sort().values[29:31].mean()
    assert measured.score_threshold == pytest.approx((median + module.SPREADS * (median - sixth)).item(), abs=1e-5)
    sample = table.sample("image", module.NUM_SAMPLED)
    assert len(sample.unique(dim=0)) == 500 and (sample @ embeds.t()).amax(dim=1).min() > 0.9999
    others = (sample @ embeds.t()).topk(2, dim=1).values[:, 1]
    distance = torch.quantile(1 - others, module.COPY_QUANTILE)
    assert measured.copy_threshold == pytest.approx((1 - module.COPY_DISTANCE * distance).item(), abs=1e-5)

    fitting = torch.cat([texts[:40], embeds[:20]])
    threshold = measured.score_threshold
    assert abs(table.measure("image", fitting).score_threshold - threshold) < 0.4 * (1 - threshold)
    table.append([{"key": f"more {row}", "embedding": embedding} for row, embedding in enumerate(embeds[:300])])
    assert table.due_kinds() == ["image"]
    table.delete([f"{row:05}" for row in range(100)])
    assert table.due_kinds() == []


def test_thresholds_of_few_images(tmp_path):
    for num in (1, 2):
        table = make_table(tmp_path / str(num), torch.ones(num, 4) / 2)
        measured = table.measure("image", torch.nn.functional.normalize(torch.ones(3, 4), dim=-1))
        assert measured == Measurements(pytest.approx(1, abs=1e-3), pytest.approx(1, abs=1e-3), num)
    assert EmbeddingTable.create(tmp_path / "none", 4, {}).due_kinds() == []


@pytest.mark.parametrize("k", [1, 3])
def test_all_copies_of_a_result_are_counted(tmp_path, k):
    """Seventy-five copies of each image, far more than are looked at to find the results."""
    generator = torch.manual_seed(0)
    images = unit(generator, 20, 32)
    embeds = torch.nn.functional.normalize(images.repeat(75, 1) + 0.002 * torch.randn(1500, 32), dim=-1)
    table = make_table(tmp_path, embeds, score_threshold=0.0, copy_threshold=0.98)
    query = unit(generator, 1, 32)[0]
    results = table.search_groups(query, k)
    expected = (images @ query).topk(k).indices.tolist()
    assert [{int(key) % 20 for key in group.keys} for group in results] == [{number} for number in expected]
    assert [len(set(group.keys)) for group in results] == [75] * k
    for group in results:
        assert group.similarities.sort(descending=True).values.equal(group.similarities)
        torch.testing.assert_close(group.similarities, group.embeds @ query, rtol=0, atol=1e-6)
    assert results[0].keys[0] == table.search(query, 1).keys[0]


def test_identical_copies_of_the_last_result_are_counted(tmp_path):
    """Also where of these the first one alone is among what is looked at."""
    for num_first in (3, 7):
        embeds = torch.eye(3)[[0] * num_first + [1] * 5 + [2] * 40]
        table = make_table(tmp_path / str(num_first), embeds, score_threshold=0.0, copy_threshold=0.98)
        results = table.search_groups(torch.tensor([0.8, 0.6, 0.0]), k=2)
        assert [len(group.keys) for group in results] == [num_first, 5]

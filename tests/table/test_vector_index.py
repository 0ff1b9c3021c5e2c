"""What a search finds, exactly and by the vector index, with and without filters, and which recall is shown."""

import shutil
from datetime import date, datetime

import pytest
import torch

from modeling_lotlip.encoder.arguments import KINDS
from modeling_lotlip.search.arguments import ALL_IMAGES, Filter
from modeling_lotlip.table import thresholds
from modeling_lotlip.table import vector_index as module
from modeling_lotlip.table.conditions import in_folder
from modeling_lotlip.table.measurements import (
    EXACT_SEARCH,
    ApproximateSearch,
    Measurements,
    read_measurements,
    write_measurements,
)
from modeling_lotlip.table.memory import Candidates, keep_in_memory
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.thresholds import maintain, measure
from modeling_lotlip.table.vector_index import (
    build_index,
    describe_recall,
    has_index,
    list_large_folders,
    needs_index,
    plan_search,
    rank,
    search,
)
from tests.helpers.embeddings import draw_clusters, draw_unit_vectors, make_table, read_embeddings


def mean_recall(
    table: EmbeddingTable, vectors: torch.Tensor, queries: torch.Tensor, where: str | None = None, first: int = 0
) -> float:
    """
    Computes the fraction of the ten exact results that are found.

    Args:
        table ([`EmbeddingTable`]):
            The table, whose keys end with the numbers of the vectors.
        vectors (`torch.Tensor` of shape `(images, dim)`):
            What is to be found.
        queries (`torch.Tensor` of shape `(queries, dim)`):
            What is searched for.
        where (`str`, *optional*):
            A filter.
        first (`int`, *optional*, defaults to 0):
            The number of the first of the vectors.

    Returns:
        `float`: the mean of all queries.
    """
    exact = (queries @ vectors.t()).topk(10, dim=1).indices + first
    num_found = 0
    for query, expected in zip(queries, exact.tolist()):
        found = {int(key.rpartition("/")[2]) for key in search(table, query, 10, where=where).keys}
        num_found += len(found & {*expected})
    return num_found / exact.numel()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_equals_exact_search_in_the_same_vectors(tmp_path, dtype, k):
    generator = torch.manual_seed(0)
    table = make_table(tmp_path, draw_unit_vectors(generator, 400, 16), dtype=dtype)
    vectors = read_embeddings(table)
    query = draw_unit_vectors(generator, 16)
    expected = (vectors @ query).sort(descending=True)
    found = search(table, query, k)
    assert [int(key) for key in found.keys] == expected.indices[:k].tolist()
    torch.testing.assert_close(found.similarities, expected.values[:k], rtol=0, atol=1e-6)
    assert torch.equal(found.embeds, vectors[expected.indices[:k]])


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_searched_apart(tmp_path, kind):
    embeds = draw_unit_vectors(torch.manual_seed(0), 300, 16)
    table = EmbeddingTable.create(tmp_path, 16, {"kinds": list(KINDS)})
    table.append(
        [
            {"key": f"{number // 3}", "kind": KINDS[number % 3], "embedding": embedding}
            for number, embedding in enumerate(embeds)
        ]
    )
    query = draw_unit_vectors(torch.manual_seed(1), 16)
    expected = (embeds[KINDS.index(kind) :: 3] @ query).topk(5)
    found = search(table, query, 5, kind)
    assert [int(key) for key in found.keys] == expected.indices.tolist()
    torch.testing.assert_close(found.similarities, expected.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("held", [False, True], ids=["on disk", "in memory"])
@pytest.mark.parametrize(
    ("query", "k", "kind", "message"),
    [
        (torch.ones(16), 0, "image", "`k` must be an integer of at least 1, got 0"),
        (torch.ones(16), -1, "image", "`k` must be an integer of at least 1, got -1"),
        (torch.ones(16), True, "image", "`k` must be an integer of at least 1, got True"),
        (torch.ones(16), 2.5, "image", "`k` must be an integer of at least 1, got 2.5"),
        (torch.ones(16), 3, "caption", "`kind` must be one of image, short, long, got 'caption'"),
        (torch.ones(8), 3, "image", r"must be of shape \(16,\), .* got \(8,\)"),
        (torch.ones(1, 16), 3, "image", r"must be of shape \(16,\), .* got \(1, 16\)"),
        (torch.full((16,), torch.nan), 3, "image", "Query 0 holds NaN or infinity"),
        (torch.full((16,), torch.inf), 3, "image", "Query 0 holds NaN or infinity"),
        (torch.zeros(16), 3, "image", "or is all zeros"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(tmp_path, query, k, kind, message, held):
    table = make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 20, 16))
    if held:
        keep_in_memory(table)
        table.memory.read("image")
    with pytest.raises(ValueError, match=message):
        search(table, query, k, kind)


def test_a_filter_of_alternatives_leaves_other_kinds_out(tmp_path):
    embeds = draw_unit_vectors(torch.manual_seed(0), 4, 16)
    table = EmbeddingTable.create(tmp_path, 16, {"kinds": ["image", "short"]})
    rows = []
    for key in ("a", "b"):
        for kind in ("image", "short"):
            index = len(rows)
            rows.append({"key": key, "kind": kind, "position": index, "embedding": embeds[index]})
    table.append(rows)
    where = "key = 'a' OR key = 'b'"
    assert sorted(search(table, embeds[1], 4, where=where).positions) == [0, 2]
    assert table.count("image", where) == 2


def test_few_images_are_searched_exactly_and_many_by_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NUM_EXACT", 3000)
    generator = torch.manual_seed(0)
    embeds = draw_clusters(generator, 3000, 32)
    texts = draw_unit_vectors(generator, 64, 32)
    table = make_table(tmp_path, embeds[:2900])
    maintain(table, lambda: texts)
    assert not has_index(table)
    assert describe_recall(table) == ""
    assert plan_search(table) == EXACT_SEARCH
    table.append([{"key": f"{row:05}", "embedding": embeds[row]} for row in range(2900, 3000)])
    maintain(table, lambda: texts)
    assert has_index(table)
    assert plan_search(table).recall >= 0.98
    assert f"{plan_search(table).recall:.1%} of the first 10" in describe_recall(table)


@pytest.fixture(scope="module")
def all_indexed(tmp_path_factory) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """A table of 3,000 images with an index, their embeddings, and those of texts that it was measured with."""
    generator = torch.manual_seed(0)
    embeds = draw_clusters(generator, 3000, 32)
    texts = draw_unit_vectors(generator, 64, 32)
    table = make_table(tmp_path_factory.mktemp("indexed"), embeds)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "NUM_EXACT", 3000)
        maintain(table, lambda: texts)
    return table, embeds, texts


@pytest.fixture
def indexed(all_indexed, tmp_path, monkeypatch) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """The same, with a table of one test, which is searched as it was measured."""
    monkeypatch.setattr(module, "NUM_EXACT", 3000)
    table, embeds, texts = all_indexed
    return EmbeddingTable(shutil.copytree(table.folder, tmp_path / "table")), embeds, texts


def test_the_index_finds_as_much_as_is_said_with_exact_similarities(indexed):
    table, embeds, _ = indexed
    generator = torch.manual_seed(1)
    near_images = torch.nn.functional.normalize(
        embeds[::30] + 0.05 * torch.randn(100, 32, generator=generator), dim=-1
    )
    assert mean_recall(table, embeds, near_images) > 0.95
    assert mean_recall(table, embeds, draw_unit_vectors(generator, 100, 32)) > 0.95
    result = search(table, near_images[0], 5)
    torch.testing.assert_close(result.similarities, result.embeds @ near_images[0], rtol=0, atol=1e-6)


def test_what_is_new_is_found_at_once_and_much_of_it_is_measured_again(indexed):
    table, _, texts = indexed
    measured = read_measurements(table)
    new = draw_clusters(torch.manual_seed(2), 1100, 32)
    rows = [{"key": f"{3000 + row:05}", "embedding": embedding} for row, embedding in enumerate(new)]
    table.append(rows[:30])
    maintain(table, lambda: texts)
    assert read_measurements(table) == measured
    assert search(table, new[10], 1).keys == ["03010"]
    table.append(rows[30:60])
    maintain(table, lambda: texts)
    assert read_measurements(table).num_rows == 3060
    table.append(rows[60:])
    maintain(table, lambda: texts)
    assert read_measurements(table).num_rows == 4100
    assert plan_search(table).recall >= 0.98


@pytest.fixture(scope="module")
def all_apart(tmp_path_factory) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """A table of 20,000 images with an index, their embeddings, and those of texts, which lie apart from images."""
    generator = torch.manual_seed(0)
    gap = draw_unit_vectors(generator, 1, 64)
    # cosines: image and image .45, text and image .23
    images = 0.45**0.5 * gap + 0.55**0.5 * draw_unit_vectors(generator, 20_000, 64)
    texts = 0.34 * gap + 0.94 * draw_unit_vectors(generator, 64, 64)
    images = torch.nn.functional.normalize(images, dim=-1)
    table = make_table(tmp_path_factory.mktemp("apart"), images)
    build_index(table)
    return table, images, torch.nn.functional.normalize(texts, dim=-1)


@pytest.fixture
def apart(all_apart, monkeypatch) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """The same, which is measured with 50 images."""
    monkeypatch.setattr(thresholds, "NUM_MEASURED", 50)
    return all_apart


def test_as_many_are_found_as_are_asked_for_if_the_cells_have_fewer(apart, monkeypatch):
    table, images, texts = apart
    monkeypatch.setattr(module, "INDEX_PARAMETERS", ((1, 2),))
    measure(table, "image", texts)
    found = search(table, images[0], 19_000)
    assert len(set(found.keys)) == 19_000
    torch.testing.assert_close(found.similarities, (images @ images[0]).topk(19_000).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("parameters", [(1, 2), (200, 2)])
def test_the_recall_that_is_said_is_the_lower_one_of_texts_and_images(apart, monkeypatch, parameters):
    """Texts find less with parameters that do for images."""
    table, images, texts = apart
    monkeypatch.setattr(module, "INDEX_PARAMETERS", (parameters,))
    plan = measure(table, "image", texts).search
    assert (plan.num_cells, plan.num_candidates) == parameters
    expected = min(mean_recall(table, images, images[:50]), mean_recall(table, images, texts))
    assert plan.recall == pytest.approx(expected, abs=0.1)


def test_the_smallest_parameters_that_find_enough_are_chosen(apart, monkeypatch):
    table, _, texts = apart
    monkeypatch.setattr(module, "INDEX_PARAMETERS", ((1, 2), (200, 2)))
    plan = measure(table, "image", texts).search
    assert plan.num_cells == 200
    assert plan.recall >= 0.98


def search_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a filter one cell of an index is searched, and filters that leave 1,000 images are many."""
    monkeypatch.setattr(module, "NUM_EXACT", 1000)
    monkeypatch.setattr(module, "INDEX_PARAMETERS", ((1, 2),))


@pytest.fixture(scope="module")
def measured_themes(tmp_path_factory) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """
    A table of two folders whose images have nothing in common, with an index of several cells, measured; their
    embeddings, the first half of which is of the first folder, and those of texts.
    """
    generator = torch.manual_seed(0)
    directions = draw_unit_vectors(generator, 2, 32).repeat_interleave(10_000, dim=0)
    embeds = torch.nn.functional.normalize(directions + draw_unit_vectors(generator, 20_000, 32), dim=-1)
    keys = [f"{'boats' if number < 10_000 else 'houses'}/{number:05}" for number in range(20_000)]
    table = make_table(tmp_path_factory.mktemp("themes"), embeds, keys)
    build_index(table)
    texts = draw_unit_vectors(generator, 64, 32)
    with pytest.MonkeyPatch.context() as monkeypatch:
        search_one_cell(monkeypatch)
        measure(table, "image", texts)
    return table, embeds, texts


@pytest.fixture
def themes(measured_themes, monkeypatch) -> tuple[EmbeddingTable, torch.Tensor, torch.Tensor]:
    """The same, which is searched as it was measured."""
    search_one_cell(monkeypatch)
    return measured_themes


@pytest.mark.parametrize("queries", ["images of the other folder", "images of the folder", "texts"])
def test_a_filter_finds_what_is_far_from_the_query(themes, queries):
    """The images of a folder lie in cells that are not searched without a filter."""
    table, embeds, texts = themes
    asked = {"images of the other folder": embeds[:60], "images of the folder": embeds[10_000:10_060], "texts": texts}
    houses = Filter(folder="houses").condition
    assert table.count(where=houses) == 10_000
    assert mean_recall(table, embeds[10_000:], asked[queries], houses, first=10_000) >= 0.98


def test_the_recall_that_is_shown_is_that_of_what_was_asked(themes):
    table, _, _ = themes
    houses = in_folder("houses")
    assert plan_search(table).recall < 0.9
    assert plan_search(table, where=houses).recall >= 0.98
    assert f"{plan_search(table).recall:.1%} of the first 10" in describe_recall(table)
    assert f"{plan_search(table, where=houses).recall:.1%} of the first 10" in describe_recall(table, where=houses)


def test_a_filter_that_leaves_few_images_is_exact(themes):
    table, embeds, texts = themes
    few = in_folder("houses") + " AND key < 'houses/10100'"
    assert table.count(where=few) == 100
    assert plan_search(table, where=few) == EXACT_SEARCH
    assert mean_recall(table, embeds[10_000:10_100], texts, few, first=10_000) == 1.0


def test_filters_are_exact_where_no_parameters_find_enough(themes, monkeypatch, tmp_path):
    measured, embeds, texts = themes
    table = EmbeddingTable(shutil.copytree(measured.folder, tmp_path / "table"))
    monkeypatch.setattr(module, "FILTER_PARAMETERS", ((1, 1),))
    measure(table, "image", texts)
    assert plan_search(table, where=in_folder("houses")) == EXACT_SEARCH
    assert mean_recall(table, embeds[10_000:], embeds[:20], in_folder("houses"), first=10_000) == 1.0


DAYS = {
    "it's 100%_/a.png": datetime(2024, 5, 1),
    "it's 100%_/more/b.png": datetime(2024, 5, 31, 23, 59, 59),
    "it's 100%_ too/c.png": datetime(2024, 6, 1),
    "d.png": None,
}
A, B, C, D = DAYS


@pytest.fixture(scope="module")
def dated(tmp_path_factory) -> EmbeddingTable:
    """Images in folders, with days, and one that cannot be read."""
    embeds = draw_unit_vectors(torch.manual_seed(0), len(DAYS), 8)
    table = EmbeddingTable.create(tmp_path_factory.mktemp("dated"), 8, {})
    table.append([{"key": key, "embedding": row, "taken": day} for (key, day), row in zip(DAYS.items(), embeds)])
    table.append([{"key": "it's 100%_/broken.png", "problem": "cut off"}])
    return table


@pytest.mark.parametrize(
    "chosen, expected",
    [
        (ALL_IMAGES, [A, B, C, D]),
        (Filter("it's 100%_"), [A, B]),
        (Filter("it's 100%_/more"), [B]),
        (Filter("it's"), []),
        (Filter("a.png"), []),
        (Filter(None, date(2024, 5, 1), date(2024, 5, 31)), [A, B]),
        (Filter(None, date(2024, 5, 2)), [B, C]),
        (Filter(None, None, date(2024, 5, 30)), [A]),
        (Filter("it's 100%_", date(2024, 5, 2)), [B]),
    ],
    ids=str,
)
def test_folders_and_days_of_a_filter(dated, chosen, expected):
    found = search(dated, torch.ones(8), 10, where=chosen.condition).keys
    assert sorted(found) == sorted(expected)
    assert dated.count(where=chosen.condition) == len(expected)


def test_folders_have_the_images_of_all_folders_in_them(dated):
    assert dated.count_folders() == {"it's 100%_": 2, "it's 100%_ too": 1, "it's 100%_/more": 1}
    assert dated.folders == ["it's 100%_", "it's 100%_ too", "it's 100%_/more"]


def test_equal_results_are_in_the_order_of_their_keys_and_positions():
    rows = Candidates(["b", "a", "a", "c"], [0, 1, 0, 0], torch.tensor([[1.0, 0], [1.0, 0], [1.0, 0], [0, 1.0]]))
    found = rank(rows, torch.tensor([1.0, 0.0]), 3)
    assert list(zip(found.keys, found.positions)) == [("a", 0), ("a", 1), ("b", 0)]
    assert found.similarities.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("num_exact", "is_due"), [(5, True), (6, False)])
def test_an_index_is_made_of_as_many_rows_as_are_too_many(tmp_path, monkeypatch, num_exact, is_due):
    monkeypatch.setattr(module, "NUM_EXACT", num_exact)
    assert needs_index(make_table(tmp_path, torch.eye(5))) == is_due


@pytest.mark.parametrize(("num_exact", "folders"), [(2, ["a", "b"]), (3, ["a"]), (5, [])])
def test_large_folders_have_too_many_images_but_not_all(tmp_path, monkeypatch, num_exact, folders):
    monkeypatch.setattr(module, "NUM_EXACT", num_exact)
    table = make_table(tmp_path, torch.eye(6), keys=["b/1", "b/2", "a/1", "a/2", "a/3", "c.jpg"])
    assert list_large_folders(table) == [in_folder(folder) for folder in folders]


@pytest.mark.parametrize(("num_exact", "is_exact"), [(3, False), (4, True)])
def test_a_filter_of_few_images_is_searched_exactly(tmp_path, monkeypatch, num_exact, is_exact):
    monkeypatch.setattr(module, "NUM_EXACT", num_exact)
    table = make_table(tmp_path, torch.eye(4), keys=["a/1", "a/2", "a/3", "b/1"])
    assert plan_search(table) == EXACT_SEARCH
    measured = Measurements(0.1, 0.9, 4, ApproximateSearch(20, 2, 0.99), ApproximateSearch(40, 8, 0.98))
    write_measurements(table, "image", measured)
    assert plan_search(table) == measured.search
    assert plan_search(table, where=in_folder("b")) == EXACT_SEARCH
    assert plan_search(table, where=in_folder("a")).is_exact == is_exact
    assert describe_recall(table).startswith(", searched approximately: 99.0% of the first 10 are")


@pytest.mark.parametrize("name", ["it's", "a/b"])
def test_a_folder_is_named_in_a_condition_whatever_its_letters(tmp_path, name):
    table = make_table(tmp_path, torch.eye(3), keys=[f"{name}/1", f"{name}2/1", "other/1"])
    assert table.count(where=in_folder(name)) == 1

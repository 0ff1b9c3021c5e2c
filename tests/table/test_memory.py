"""Searches that are answered from memory: what the table itself answers, also after it has changed."""

import shutil
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch

from modeling_lotlip.encoder.arguments import KINDS
from modeling_lotlip.table import vector_index
from modeling_lotlip.table.conditions import in_folder
from modeling_lotlip.table.copies import search_groups
from modeling_lotlip.table.measurements import ApproximateSearch, Measurements, write_measurements
from modeling_lotlip.table.memory import keep_in_memory
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.vector_index import search, search_many
from tests.helpers.embeddings import draw_unit_vectors, make_table


@pytest.fixture
def table(tmp_path) -> EmbeddingTable:
    """A table of 300 images, some of them equal, that is kept in memory and has been read."""
    embeds = draw_unit_vectors(torch.manual_seed(0), 300, 16)
    embeds[100:110] = embeds[0]
    table = make_table(tmp_path, embeds, dtype="float16")
    keep_in_memory(table)
    table.memory.read("image")
    return table


def assert_same_answers(table: EmbeddingTable, queries: torch.Tensor, k: int) -> None:
    """Compares with another handle of the table, which is not held in memory."""
    plain = EmbeddingTable(table.folder)
    for query, found in zip(queries, search_many(table, queries, k)):
        expected = search(plain, query, k)
        assert found.keys == expected.keys
        assert torch.equal(found.similarities, expected.similarities)
        assert torch.equal(found.embeds, expected.embeds)


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_memory_answers_as_the_table(table, k, monkeypatch):
    queries = torch.cat([draw_unit_vectors(torch.manual_seed(1), 70, 16), search(table, torch.eye(16)[0], 1).embeds])
    assert_same_answers(table, queries, k)
    monkeypatch.delattr(vector_index, "make_query")  # LanceDB is not asked
    assert len(search_many(table, queries, k)) == 71


def test_what_is_added_and_deleted_is_known_at_once(table):
    """The table answers until its vectors are read again."""
    queries = draw_unit_vectors(torch.manual_seed(1), 5, 16)
    other = EmbeddingTable(table.folder)
    other.append([{"key": "new", "embedding": queries[0]}])
    assert search(table, queries[0], 1).keys == ["new"]
    table.memory.read("image")
    assert search(table, queries[0], 1).keys == ["new"]
    assert_same_answers(table, queries, 20)
    other.delete(["new", "00000"])
    assert "new" not in search(table, queries[0], 400).keys
    table.memory.read("image")
    assert len(search(table, queries[0], 400).keys) == 299
    assert_same_answers(table, queries, 20)


def test_a_search_after_a_change_lets_a_thread_read_the_vectors(table):
    table.append([{"key": "new", "embedding": torch.eye(16)[0]}])
    assert table.memory.get("image") is None
    table.memory.reading["image"].result(60)
    assert "new" in table.memory.get("image").rows.keys


def test_vectors_that_cannot_be_read_are_warned_of_once_and_read_again_when_they_have_changed(
    table, caplog, monkeypatch
):
    def fail(kind: str) -> None:
        raise OSError("a file is damaged.")

    table.append([{"key": "new", "embedding": torch.eye(16)[0]}])
    with monkeypatch.context() as patch:
        patch.setattr(table.memory, "read_rows", fail)
        for _ in range(3):
            assert table.memory.get("image") is None
            wait(table.memory.reading.values())
    problems = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert problems == ["a file is damaged."]
    assert search(table, torch.eye(16)[0], 1).keys == ["new"]
    table.append([{"key": "newer", "embedding": torch.eye(16)[1]}])
    assert table.memory.get("image") is None
    table.memory.reading["image"].result(60)
    assert "newer" in table.memory.get("image").rows.keys


def test_a_table_that_was_made_anew_is_not_answered_from_memory(table):
    """As many writes make as many versions."""
    version, _ = table.version
    shutil.rmtree(table.folder)
    anew = make_table(table.folder, draw_unit_vectors(torch.manual_seed(2), 300, 16), dtype="float16")
    assert anew.version[0] == version
    assert table.memory.get("image") is None


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("dim", [16, 8])
def test_a_table_that_another_model_made_anew_is_not_searched(table, dim, is_held):
    """No query of the model that opened it can be compared with what is there."""
    if not is_held:
        table.memory = None
    shutil.rmtree(table.folder)
    embeds = draw_unit_vectors(torch.manual_seed(2), 300, dim)
    anew = EmbeddingTable.create(table.folder, dim, table.settings | {"weights": "of another model"}, dtype="float16")
    anew.append([{"key": str(number), "embedding": embedding} for number, embedding in enumerate(embeds)])
    with pytest.raises(OSError, match="were made anew by another model"):
        search(table, torch.eye(16)[0], 5)
    if is_held:
        with pytest.raises(OSError, match="were made anew by another model"):
            table.memory.read("image")


def test_a_table_that_was_deleted_is_an_error_of_one_line(table):
    shutil.rmtree(table.folder)
    table.memory = None
    with pytest.raises(OSError, match="cannot be read or written.*delete the folder to make it anew"):
        search(table, torch.eye(16)[0], 5)


def test_conditions_and_kinds_are_respected(tmp_path):
    embeds = draw_unit_vectors(torch.manual_seed(0), 90, 16)
    table = EmbeddingTable.create(tmp_path, 16, {"kinds": list(KINDS)})
    rows = []
    for number, embedding in enumerate(embeds):
        folder = "sea" if number < 30 else "land"
        rows.append({"key": f"{folder}/{number}", "kind": KINDS[number % 3], "embedding": embedding})
    table.append(rows)
    keep_in_memory(table)
    for kind in KINDS:
        table.memory.read(kind)
        found = search(table, embeds[1], 100, kind)
        assert {int(key.rpartition("/")[2]) % 3 for key in found.keys} == {KINDS.index(kind)}
        assert len(found.keys) == 30
    found = search(table, embeds[1], 100, "image", in_folder("sea"))
    assert sorted(found.keys) == sorted(f"sea/{number}" for number in range(0, 30, 3))


def test_a_large_table_is_not_held(table):
    keep_in_memory(table, max_bytes=300 * 16 * 2 - 1)
    table.memory.read("image")
    assert table.memory.get("image") is None
    assert table.memory.reading == {}
    assert len(search(table, torch.eye(16)[0], 5).keys) == 5
    keep_in_memory(table, max_bytes=300 * 16 * 2)
    table.memory.read("image")
    assert len(table.memory.get("image").rows.keys) == 300


def test_images_without_an_embedding_are_not_found(table):
    table.append([{"key": "broken.png", "problem": "cut off"}])
    table.memory.read("image")
    assert "broken.png" not in search(table, torch.eye(16)[0], 400).keys


@pytest.mark.parametrize(("num_queries", "num_asked"), [(1, 1), (3, 3), (4, 0), (10, 0)])
def test_a_few_queries_of_a_table_with_an_index_ask_that(table, num_queries, num_asked, monkeypatch):
    write_measurements(table, "image", Measurements(0, 1, 300, search=ApproximateSearch(20, 2, 0.99)))
    table.memory.read("image")
    asked = []
    read_candidates = vector_index.read_candidates

    def note(*arguments):
        asked.append(arguments)
        return read_candidates(*arguments)

    monkeypatch.setattr(vector_index, "read_candidates", note)
    queries = draw_unit_vectors(torch.manual_seed(1), num_queries, 16)
    assert len(search_many(table, queries, 5)) == num_queries
    assert len(asked) == num_asked


def test_copies_are_one_result_from_memory_too(table):
    query = draw_unit_vectors(torch.manual_seed(1), 16)
    expected = search_groups(EmbeddingTable(table.folder), query, 12)
    groups = search_groups(table, query, 12)
    assert [group.keys for group in groups] == [group.keys for group in expected]


def test_threads_search_while_the_table_changes(table):
    query = torch.eye(16)[0]

    def ask(_: int) -> int:
        return len(search(table, query, 1000).keys)

    with ThreadPoolExecutor(4) as executor:
        counts = executor.map(ask, range(40))
        for number in range(5):
            table.append([{"key": f"new {number}", "embedding": query}])
        assert {*counts} <= set(range(300, 306))
    assert ask(0) == 305

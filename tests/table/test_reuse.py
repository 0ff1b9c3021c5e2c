"""Embeddings of files that were embedded before, under another name or in another folder."""

from pathlib import Path

import pytest
import torch

from modeling_lotlip.table import storage
from modeling_lotlip.table.reuse import Source, copy_rows, find_sources, list_tables, list_tables_of_same_model
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.utils.files import hash_bytes


CONTENTS = {"a.jpg": b"first", "b.jpg": b"other", "c.jpg": b"the third"}
EMBEDS = dict(zip(CONTENTS, torch.eye(3)))


def make_index(folder: Path, source: str = "/photos", weights: str = "1") -> EmbeddingTable:
    """Makes a table of the files in `CONTENTS`."""
    settings = {"kinds": ["image"], "source": source, "weights": weights}
    table = EmbeddingTable.create(folder, 3, settings, dtype="float16")
    rows = []
    for name, content in CONTENTS.items():
        row = {
            "key": name,
            "embedding": EMBEDS[name],
            "size": len(content),
            "modified": 1,
            "changed": 1,
            "hash": hash_bytes(content),
            "width": 64,
        }
        rows.append(row)
    table.append(rows)
    return table


def write_files(folder: Path, contents: dict[str, bytes]) -> dict[str, int]:
    """Writes files, and returns their sizes."""
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: len(content) for name, content in contents.items()}


def sign(sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    return {name: {"size": size, "modified": 7, "changed": 8} for name, size in sizes.items()}


def read_keys(table: EmbeddingTable) -> list[str]:
    return sorted(key for key, _ in table.read_signatures())


def test_files_are_known_by_their_content(tmp_path):
    table = make_index(tmp_path / "index")
    contents = {"new name.jpg": b"first", "other.jpg": b"third", "c.jpg": b"the third"}
    sizes = write_files(tmp_path / "photos", contents)
    sources = find_sources([table], tmp_path / "photos", sizes, lambda: None)
    assert sources == {"new name.jpg": Source(table, "a.jpg"), "c.jpg": Source(table, "c.jpg")}


def test_only_files_of_a_known_size_are_read(tmp_path, monkeypatch):
    table = make_index(tmp_path / "index")
    sizes = write_files(tmp_path / "photos", {"x.jpg": b"of another size", "y.jpg": b"fifth"})
    read = []
    monkeypatch.setattr("modeling_lotlip.table.reuse.hash_file", lambda path: read.append(path.name))
    find_sources([table], tmp_path / "photos", sizes, lambda: None)
    assert read == ["y.jpg"]


def test_a_file_that_cannot_be_read_is_unknown(tmp_path):
    table = make_index(tmp_path / "index")
    assert find_sources([table], tmp_path, {"gone.jpg": 5}, lambda: None) == {}


def test_copied_rows_have_the_new_name_and_signature_and_all_else_of_before(tmp_path):
    table = make_index(tmp_path / "index")
    written = copy_rows(table, {"new.jpg": Source(table, "b.jpg")}, sign({"new.jpg": 5}))
    assert written == {"new.jpg"}
    assert read_keys(table) == ["a.jpg", "b.jpg", "c.jpg", "new.jpg"]
    assert table.embedding("new.jpg").equal(EMBEDS["b.jpg"])
    signatures = dict(table.read_signatures("key = 'new.jpg'"))
    assert signatures == {"new.jpg": {"size": 5, "modified": 7, "changed": 8}}
    assert table.read_hash("new.jpg") == hash_bytes(b"other")
    assert [batch["width"].to_pylist() for batch in table.read(["width"])][-1] == [64]


def test_files_that_exchange_names_exchange_embeddings(tmp_path):
    table = make_index(tmp_path / "index")
    sources = {"a.jpg": Source(table, "b.jpg"), "b.jpg": Source(table, "a.jpg")}
    written = copy_rows(table, sources, sign({"a.jpg": 5, "b.jpg": 5}))
    assert written == {"a.jpg", "b.jpg"}
    assert table.embedding("a.jpg").equal(EMBEDS["b.jpg"])
    assert table.embedding("b.jpg").equal(EMBEDS["a.jpg"])
    assert read_keys(table) == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "renamed",
    [
        {"b.jpg": "a.jpg", "z.jpg": "b.jpg"},
        {"b.jpg": "a.jpg", "c.jpg": "b.jpg", "z.jpg": "c.jpg"},  # an image was put before the others
        {"a.jpg": "b.jpg", "b.jpg": "c.jpg", "c.jpg": "a.jpg"},
    ],
)
def test_new_names_are_followed_also_where_they_are_written_in_parts(tmp_path, monkeypatch, renamed):
    monkeypatch.setattr(storage, "NUM_AT_ONCE", 1)
    table = make_index(tmp_path / "index")
    sources = {name: Source(table, before) for name, before in renamed.items()}
    written = copy_rows(table, sources, sign(dict.fromkeys(renamed, 5)))
    assert written == set(renamed)
    for name, before in renamed.items():
        assert table.embedding(name).equal(EMBEDS[before])


def test_a_key_that_another_program_gives_to_another_image_meanwhile_is_copied_as_it_was(tmp_path):
    other = make_index(tmp_path / "other", "/moved")
    table = make_index(tmp_path / "index")
    (found,) = list_tables_of_same_model(table)
    other.delete(["a.jpg"])
    other.append([{"key": "a.jpg", "embedding": EMBEDS["c.jpg"], "size": 5, "hash": hash_bytes(b"later")}])
    copy_rows(table, {"new.jpg": Source(found, "a.jpg")}, sign({"new.jpg": 5}))
    assert table.embedding("new.jpg").equal(EMBEDS["a.jpg"])


def test_a_source_that_is_gone_is_not_written(tmp_path):
    table = make_index(tmp_path / "index")
    written = copy_rows(table, {"new.jpg": Source(table, "gone.jpg")}, sign({"new.jpg": 5}))
    assert written == set()
    assert read_keys(table) == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("source, weights, is_found", [("/moved", "1", True), ("/moved", "2", False)])
def test_tables_of_other_folders_count_if_the_model_is_the_same(tmp_path, source, weights, is_found):
    other = make_index(tmp_path / "other")
    table = make_index(tmp_path / "index", source, weights)
    found = list_tables_of_same_model(table)
    if is_found:
        assert [found_table.folder for found_table in found] == [other.folder]
    else:
        assert found == []


def test_a_damaged_table_leaves_the_others_as_they_are(tmp_path, caplog):
    """A file of another index is missing: images of it are embedded anew."""
    other = make_index(tmp_path / "other")
    table = make_index(tmp_path / "index", "/moved")
    sizes = write_files(tmp_path / "photos", {"new.jpg": b"first", "newer.jpg": b"the fourth"})
    fourth = {"size": 10, "hash": hash_bytes(b"the fourth")}
    other.append([{"key": "d.jpg", "embedding": torch.ones(3), **fourth}])
    for path in (tmp_path / "other").rglob("data/*.lance"):
        path.unlink()
    damaged = EmbeddingTable(other.folder)
    sources = find_sources([table, damaged], tmp_path / "photos", sizes, lambda: None)
    assert sources == {"new.jpg": Source(table, "a.jpg")}
    assert f"The embeddings in {other.folder} cannot be read" in caplog.text
    caplog.clear()
    damaged = EmbeddingTable(other.folder)
    written = copy_rows(table, {"new.jpg": Source(damaged, "a.jpg")}, sign({"new.jpg": 5}))
    assert written == set()
    assert f"The embeddings in {other.folder} cannot be read" in caplog.text


def test_a_table_that_cannot_be_opened_is_left_out(tmp_path, caplog):
    other = make_index(tmp_path / "other")
    table = make_index(tmp_path / "index", "/moved")
    for path in (tmp_path / "other").rglob("*.manifest"):
        path.write_bytes(b"damaged")
    assert [found.folder for found in list_tables(tmp_path)] == [table.folder]
    assert str(other.folder) in caplog.text

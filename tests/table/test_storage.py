"""The table of embeddings: what it keeps, what it refuses, and what it does when the disk fails."""

import re
import resource
import signal
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from modeling_lotlip.encoder.arguments import KINDS
from modeling_lotlip.table import storage as module
from modeling_lotlip.table.export import export_embeddings
from modeling_lotlip.table.schema import make_schema
from modeling_lotlip.table.storage import TABLE, EmbeddingTable, connect
from modeling_lotlip.table.vector_index import search
from modeling_lotlip.utils.output_folder import OutputFolder
from tests.conftest import SERVER
from tests.helpers.embeddings import draw_unit_vectors, make_table


def test_counts_of_kinds_and_rows(tmp_path):
    table = EmbeddingTable.create(tmp_path, 4, {"kinds": list(KINDS)})
    rows = []
    for row in range(3):
        for kind in KINDS:
            rows.append({"key": str(row), "row": row, "kind": kind, "embedding": torch.ones(4)})
    table.append([*rows, {"key": "3", "row": 3, "problem": "cut off"}])
    assert table.counts == {"image": 3, "short": 3, "long": 3, "truncated": 0, "unreadable": 1}
    assert table.rows_done() == {0, 1, 2, 3}


def test_a_folder_whose_name_begins_with_a_tilde_is_one_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    EmbeddingTable.create(Path("~", "embeddings"), 4, {})
    assert EmbeddingTable(tmp_path / "~" / "embeddings").is_empty
    assert not (tmp_path / "home").exists()


def test_what_cannot_be_read_has_no_embedding(tmp_path):
    embeds = draw_unit_vectors(torch.manual_seed(0), 3, 8)
    table = make_table(tmp_path, embeds)
    table.delete(["00001"])
    table.append([{"key": "it's broken", "problem": "cut off"}, {"key": "00001", "problem": "cut off too"}])
    assert table.unreadable == {"it's broken": "cut off", "00001": "cut off too"}
    assert len(table) == 2
    assert table.embedding("it's broken") is None
    assert table.embedding("00002") @ embeds[2] > 0.9999
    assert sorted(search(table, embeds[1], 10).keys) == ["00000", "00002"]
    table.delete(["it's broken", "nothing"])
    assert table.unreadable == {"00001": "cut off too"}


@pytest.fixture
def unreadable(tmp_path, monkeypatch) -> EmbeddingTable:
    """Rows of a dataset whose images cannot be read, for three reasons, and one that can."""
    monkeypatch.setattr(module, "name_readers", lambda: "Pillow 2")
    table = EmbeddingTable.create(tmp_path, 4, {})
    table.append(
        [
            {"key": "passing", "row": 0, "problem": "permission denied"},
            {"key": "passing", "row": 0, "kind": "short", "embedding": torch.ones(4)},
            {"key": "earlier", "row": 1, "problem": "unknown", "tried_with": "Pillow 1"},
            {"key": "final", "row": 2, "problem": "cut off", "tried_with": "Pillow 2"},
            {"key": "good", "row": 3, "embedding": torch.ones(4)},
        ]
    )
    return table


def test_problems_that_may_have_gone_are_to_be_tried_again(unreadable):
    """Those that the content is not the cause of, and those that another version of what reads images had."""
    keys = [key for key, _ in unreadable.read_signatures(unreadable.is_to_be_tried_again)]
    assert sorted(keys) == ["earlier", "passing"]


def test_rows_to_try_again_are_deleted_with_their_captions(unreadable):
    num_deleted = unreadable.delete_rows_to_try_again()
    assert num_deleted == 2
    assert unreadable.rows_done() == {2, 3}


COLUMNS_OF_THE_FIRST_VERSION = (
    "key",
    "kind",
    "position",
    "row",
    "truncated",
    "size",
    "modified",
    "hash",
    "width",
    "height",
    "taken",
    "problem",
    "embedding",
)


def test_a_table_of_an_earlier_version_gets_the_columns_it_lacks(tmp_path):
    schema = make_schema(4, "float32", {"storage_dtype": "float32"}, {})
    first_columns = [schema.field(name) for name in COLUMNS_OF_THE_FIRST_VERSION]
    first_schema = pa.schema(first_columns, schema.metadata)
    connect(tmp_path).create_table(TABLE, schema=first_schema)
    table = EmbeddingTable(tmp_path)
    table.append([{"key": "a", "size": 1, "modified": 2, "problem": "cut off"}])
    assert list(table.read_signatures(table.is_to_be_tried_again)) == [("a", {"size": 1, "modified": 2})]
    table.add_missing_columns()
    signature = {"size": 1, "modified": 2, "changed": None}
    assert list(table.read_signatures(table.is_to_be_tried_again)) == [("a", signature)]
    assert set(table.table.schema.names) == set(schema.names), "is a new one in `NEW_COLUMNS`?"


def test_a_table_sees_what_another_one_writes(tmp_path):
    embeds = draw_unit_vectors(torch.manual_seed(0), 20, 8)
    reader = make_table(tmp_path, embeds[:10])
    writer = EmbeddingTable(tmp_path)
    writer.append([{"key": "new", "embedding": embeds[15]}])
    writer.table.optimize()
    assert search(reader, embeds[15], 1).keys == ["new"]
    assert len(reader) == 11


def test_the_schema_is_read_once_for_each_version(tmp_path):
    reader = make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 10, 8))
    first = reader.schema
    assert reader.schema is first
    EmbeddingTable(tmp_path).table.add_columns([pa.field("of_a_test", pa.int64())])
    assert "of_a_test" in reader.schema.names


class Encoder:
    """An encoder with all dimensions."""

    def settings(self):
        return {"dtype": "int8", "backend": "openvino", "max_length": 126, "truncate_dim": None}


def test_how_a_table_was_computed_is_said_with_its_dimensions(tmp_path):
    settings = Encoder().settings() | {"truncate_dim": 4}
    table = EmbeddingTable.create(tmp_path, 4, settings)
    with pytest.raises(ValueError, match="this run has None: .* `--backend openvino --dtype int8 --truncate_dim 4`"):
        table.check_model(Encoder())


SETTINGS = {"dtype": "float32", "data": "1", "source": {"dataset_name": "a", "split_seed": None}}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dtype": "bfloat16"}, "holds embeddings with dtype = 'float32', this run has 'bfloat16': use the same"),
        (
            {"source": {"dataset_name": "a", "split_seed": 0}, "data": "2"},
            "holds embeddings with split_seed = None, this run has 0: use the same settings, or name another",
        ),
        ({"data": "2"}, "The data have changed since .* was made: name another folder"),
    ],
)
def test_other_settings_are_one_line_with_both_values(tmp_path, changes, message):
    EmbeddingTable.create(tmp_path, 8, SETTINGS)
    with pytest.raises(ValueError, match=message):
        EmbeddingTable.create(tmp_path, 8, SETTINGS | changes)


def test_another_precision_of_storage_is_refused(tmp_path):
    EmbeddingTable.create(tmp_path, 8, SETTINGS)
    with pytest.raises(ValueError, match="storage_dtype = 'float32', this run has 'float16'"):
        EmbeddingTable.create(tmp_path, 8, SETTINGS, dtype="float16")


def test_a_folder_without_a_table_is_refused(tmp_path):
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


@pytest.mark.processes
def test_processes_that_create_a_table_at_once_share_it_or_are_refused(tmp_path):
    models = ("a", "b")
    barrier = SERVER.Barrier(2)
    processes = [SERVER.Process(target=create_and_append, args=(tmp_path, barrier, model)) for model in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    table = EmbeddingTable(tmp_path)
    first = table.settings["model"]
    assert {key.split()[0] for key in search(table, torch.ones(4) / 2, 100).keys} == {first}
    assert len(table) == 5 * models.count(first)
    assert [process.exitcode == 0 for process in processes] == [model == first for model in models]


@pytest.mark.parametrize("ask", [len, lambda table: search(table, torch.ones(8), 3), lambda table: table.rows_done()])
def test_a_table_with_a_missing_file_is_an_error(tmp_path, ask):
    """Not an answer from what is left."""
    table = make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 20, 8))
    table.append([{"key": "more", "embedding": torch.ones(8)}])
    next(tmp_path.rglob("data/*.lance")).unlink()
    with pytest.raises(OSError, match=f"embeddings in {tmp_path} cannot be read or written.*lance. Make room"):
        ask(EmbeddingTable(tmp_path))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


ASKS = [
    len,
    lambda table: table.counts,
    lambda table: table.unreadable,
    lambda table: table.embedding("00001"),
    lambda table: table.read_hash("00001"),
    lambda table: search(table, torch.ones(8), 3),
    lambda table: export_embeddings(table, table.folder / "vectors.npz"),
    lambda table: table.delete(["00001"]),
]


@pytest.mark.parametrize("damage", [Path.unlink, cut, overwrite])
def test_a_damaged_file_of_data_is_one_line_with_the_folder_and_the_remedy(tmp_path, damage):
    table = make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 20, 8))
    for path in tmp_path.rglob("data/*.lance"):
        damage(path)
    for ask in ASKS:
        with pytest.raises(
            OSError, match=rf"^The embeddings in {tmp_path} [^\n]*delete the folder to make it"
        ) as error:
            ask(table)
        assert not re.search(r"LanceError|\.rs:|lance error|Wrapped", str(error.value))


@pytest.mark.parametrize("damage", [cut, overwrite])
def test_a_damaged_manifest_is_one_line_with_the_folder_and_the_remedy(tmp_path, damage):
    make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 20, 8))
    for path in tmp_path.rglob("_versions/*.manifest"):
        damage(path)
    with pytest.raises(OSError, match=rf"^The embeddings in {tmp_path} cannot be read[^\n]*delete the folder to make"):
        EmbeddingTable(tmp_path)


def test_a_table_of_another_program_is_refused(tmp_path):
    connect(tmp_path).create_table(TABLE, [{"key": "a", "embedding": [1.0, 0.0]}])
    with pytest.raises(
        OSError, match=f"The embeddings in {tmp_path} cannot be read: .* or of another program: delete"
    ):
        EmbeddingTable(tmp_path)


def append_to_a_full_disk(folder: Path) -> None:
    table = EmbeddingTable(folder)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="^[^\n]*cannot be read or written, and are as they[^\n]*$"):
        table.append([{"key": f"more {row}", "embedding": torch.ones(64)} for row in range(5000)])
    assert len(table) == 20
    assert len(search(table, torch.ones(64), 3).keys) == 3


@pytest.mark.processes
def test_a_full_disk_is_one_line_and_leaves_the_table_as_it_was(tmp_path):
    """A limit on the size of files stands for it: LanceDB gets the same kind of error from the system."""
    make_table(tmp_path, draw_unit_vectors(torch.manual_seed(0), 20, 64))
    process = SERVER.Process(target=append_to_a_full_disk, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    table = EmbeddingTable(tmp_path)
    assert len(table) == 20
    table.append([{"key": "more", "embedding": torch.ones(64)}])
    assert len(table) == 21


def create_on_a_full_disk(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="^[^\n]*cannot be read or written, and are as they[^\n]*$"):
        EmbeddingTable.create(folder, 4, {"model": "a"}, notes={"much": "a" * 50_000})


@pytest.mark.processes
def test_a_table_that_cannot_be_created_is_one_line_and_made_later(tmp_path):
    process = SERVER.Process(target=create_on_a_full_disk, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(EmbeddingTable.create(tmp_path, 4, {"model": "a"})) == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"embedding": torch.ones(4)}, r"must be of shape \(8,\).* got \(4,\)"),
        ({"embedding": torch.ones(1, 8)}, r"must be of shape \(8,\).* got \(1, 8\)"),
        ({"embedding": torch.full((8,), torch.nan)}, "hold no NaN or infinity"),
        ({"embedding": torch.zeros(8)}, "is all zeros in float16"),
        ({"embedding": torch.full((8,), 1e-9)}, "is all zeros in float16"),
        ({"embedding": torch.full((8,), 1e6)}, "hold no NaN or infinity in float16"),
        ({"embedding": [1.0] * 8}, "must be a tensor, got a list"),
        ({}, "'b' has neither an embedding nor a problem"),
        ({"embedding": torch.ones(8), "key": None}, "must be a string, got None"),
        ({"embedding": torch.ones(8), "key": 7}, "must be a string, got 7"),
        ({"embedding": torch.ones(8), "kind": "short"}, "holds image, got the kind 'short'"),
        ({"embedding": torch.ones(8), "label": 3}, r"has no columns \['label'\]"),
    ],
)
def test_rows_that_would_be_lost_or_found_as_others_are_refused(tmp_path, row, message):
    table = EmbeddingTable.create(tmp_path, 8, {"kinds": ["image"]}, dtype="float16")
    with pytest.raises(ValueError, match=message):
        table.append([{"key": "a", "embedding": torch.ones(8)}, {"key": "b", **row}])
    assert len(table) == 0


@pytest.mark.parametrize("where", ["tint = 'red'", "key = ", "key == == 'a'"])
def test_a_wrong_condition_is_no_fault_of_the_disk(tmp_path, where):
    table = EmbeddingTable.create(tmp_path, 8, {"kinds": ["image"]})
    table.append([{"key": "a", "embedding": torch.ones(8)}])
    with pytest.raises(ValueError, match="The condition is no SQL of the columns in"):
        table.count("image", where)
    with pytest.raises(ValueError, match="The condition is no SQL of the columns in"):
        search(table, torch.ones(8), 1, where=where)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        ("lance error: Not found: Not found: a/b.lance, /rust/src/io.rs:12:34\nmore", "Not found: a/b.lance"),
        ("Wrapped error: LanceError(IO): Generic LocalFileSystem error: No space left.", "No space left"),
        ("plain", "plain"),
    ],
)
def test_a_problem_is_said_without_the_layers_it_came_through(error, problem):
    assert module.shorten_problem(RuntimeError(error)) == problem


@pytest.mark.parametrize(("num_values", "sizes"), [(0, []), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_a_long_list_is_asked_for_in_parts(monkeypatch, num_values, sizes):
    monkeypatch.setattr(module, "NUM_AT_ONCE", 3)
    parts = module.split_list(list(range(num_values)))
    assert [len(part) for part in parts] == sizes
    assert sum(parts, []) == list(range(num_values))


def test_settings_of_the_source_are_compared_one_by_one():
    assert module.flatten({"seed": 0, "source": {"split": "a"}}) == {"seed": 0, "split": "a", "source": None}
    assert module.flatten({"seed": 0, "source": "photos"}) == {"seed": 0, "source": "photos"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "b"}, "The data have changed since .* was made: name another folder, or delete it"),
        ({"files": "b"}, "The data have changed since"),
        ({"weights": "b"}, "holds embeddings with weights = 'a', this run has 'b': use the same settings"),
        ({"weights": "b", "dtype": "int8"}, "holds embeddings with dtype = None, this run has 'int8': use"),
        ({"data": "b", "dtype": "int8"}, "holds embeddings with dtype = None, this run has 'int8': use"),
    ],
)
def test_what_has_changed_is_said_by_what_a_user_knows(tmp_path, changes, message):
    stored = {"data": "a", "files": "a", "weights": "a"}
    table = EmbeddingTable.create(tmp_path, 4, stored)
    table.check_settings(stored)
    with pytest.raises(ValueError, match=message):
        table.check_settings(stored | changes)


@pytest.mark.parametrize(
    ("kinds", "kind", "where", "expected"),
    [
        (["image"], "image", None, "problem IS NULL"),
        (["image", "short"], "image", None, "problem IS NULL AND kind = 'image'"),
        (["image"], "short", None, "problem IS NULL AND kind = 'short'"),
        (["image"], None, "a = 1 OR b = 2", "problem IS NULL AND (a = 1 OR b = 2)"),
    ],
)
def test_a_condition_names_the_kind_where_there_are_several(tmp_path, kinds, kind, where, expected):
    assert EmbeddingTable.create(tmp_path, 4, {"kinds": kinds}).condition(kind, where) == expected

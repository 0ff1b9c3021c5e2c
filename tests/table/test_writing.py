"""What is embedded is written in parts."""

from types import SimpleNamespace

import pytest
import torch

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.reader import Item, RowInfo
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.batches import EmbeddedBatch, Unreadable
from modeling_lotlip.table import embed
from modeling_lotlip.table.storage import EmbeddingTable
from tests.helpers.data_files import write_images


def make_batch(row_index: int, kind: str, value: float) -> EmbeddedBatch:
    item = Item(RowInfo(row_index, f"row {row_index}", file_facts={}), kind)
    return EmbeddedBatch([item], torch.tensor([[value, 0.0]]), [])


def test_a_batch_without_rows_is_not_written_however_late_it_is(monkeypatch):
    monkeypatch.setattr(embed, "WRITE_SECONDS", 0)
    written = []
    embed.write_batches([[EmbeddedBatch([], None, [])]], written.append, torch.nn.Identity())
    assert written == []


def test_of_a_group_that_ends_in_an_error_nothing_is_written():
    groups = [
        [make_batch(0, "image", 1.0), make_batch(0, "short", 1.0)],
        [make_batch(1, "image", 1.0), make_batch(1, "short", torch.nan)],
    ]
    written = []
    with pytest.raises(ValueError, match="row 1 holds NaN or infinity, though its weights are finite"):
        embed.write_batches(groups, written.extend, torch.nn.Identity())
    assert [(row["row"], row["kind"]) for row in written] == [(0, "image"), (0, "short")]


@pytest.mark.parametrize(("write_size", "sizes"), [(2, [2, 2, 1]), (3, [3, 2])])
def test_rows_are_written_when_there_are_enough(monkeypatch, write_size, sizes):
    monkeypatch.setattr(embed, "WRITE_SIZE", write_size)
    written = []
    groups = [[make_batch(row, "image", 1.0)] for row in range(5)]
    embed.write_batches(groups, lambda rows: written.append(len(rows)), torch.nn.Identity())
    assert written == sizes


def test_rows_are_written_when_half_a_minute_is_over(monkeypatch):
    now = iter([0.0, 29.0, 30.0, 31.0, 32.0])
    monkeypatch.setattr(embed.time, "monotonic", lambda: next(now))
    written = []
    groups = [[make_batch(row, "image", 1.0)] for row in range(3)]
    embed.write_batches(groups, lambda rows: written.append(len(rows)), torch.nn.Identity())
    assert written == [2, 1]


def test_what_is_stored_of_an_image_and_of_one_that_cannot_be_read():
    item = Item(RowInfo(3, "a.png", file_facts={"size": 9}), "short", index=2, truncated=True)
    unreadable = []
    for row_index, is_final in enumerate([True, False]):
        info = RowInfo(row_index, f"{row_index}.png", file_facts={"size": 7})
        unreadable.append(Unreadable(info, f"{row_index}.png", "torn", is_final))
    good, torn, closed = embed.to_rows(
        EmbeddedBatch([item], torch.tensor([[1.0, 0.0]]), unreadable), torch.nn.Identity()
    )
    assert good.pop("embedding").tolist() == [1, 0]
    assert good == {"key": "a.png", "row": 3, "size": 9, "kind": "short", "position": 2, "truncated": True}
    assert torn.pop("tried_with").startswith("Pillow")
    assert torn == {"key": "0.png", "row": 0, "size": 7, "problem": "torn"}
    assert closed == {"key": "1.png", "row": 1, "size": 7, "problem": "torn"}


@pytest.mark.parametrize(("num_done", "num_rows", "is_said"), [(2, 3, True), (3, 3, False), (3, None, True)])
def test_a_table_says_what_is_missing(monkeypatch, num_done, num_rows, is_said):
    monkeypatch.setattr(embed, "describe_unfinished", lambda folder: "It is not complete.")
    rows = {None, *range(num_done)}
    table = SimpleNamespace(folder="folder", notes={"num_rows": num_rows}, rows_done=lambda: rows)
    sentence = "Not all rows are embedded." if num_rows is None else "2 of 3 rows are embedded."
    assert embed.describe_missing(table) == [f"It is not complete. {sentence}"] * is_said


@pytest.mark.parametrize(("num_rows", "is_said"), [(3, True), (None, False), (0, False)])
def test_a_table_says_that_its_run_ended_before_it_wrote_anything(tmp_path, num_rows, is_said):
    table = EmbeddingTable.create(tmp_path, 4, {}, {"num_rows": num_rows})
    with pytest.raises(KeyboardInterrupt), table.writing():
        raise KeyboardInterrupt
    sentence = f"{tmp_path} is not complete: no row is embedded. The same command completes it."
    assert embed.describe_missing(table) == [sentence] * is_said


def test_a_complete_table_that_a_run_has_changed_before_it_ended_early_is_not_complete(tmp_path):
    table = EmbeddingTable.create(tmp_path, 4, {}, {"num_rows": 3})
    table.append([{"key": str(row), "row": row, "problem": "permission denied"} for row in range(3)])
    table.delete(["0"])
    table.append([{"key": "0", "row": 0, "embedding": torch.ones(4)}])
    with pytest.raises(KeyboardInterrupt), table.writing():
        table.delete_rows_to_try_again()
        raise KeyboardInterrupt
    (sentence,) = embed.describe_missing(table)
    assert sentence.endswith("The same command completes it. 1 of 3 rows are embedded.")


@pytest.mark.parametrize(("made", "backend"), [(("openvino", "int8"), "torch"), (("torch", "float16"), "openvino")])
def test_a_backend_that_does_not_go_with_the_precision_of_a_table_is_refused(encoder, tmp_path, made, backend):
    settings = encoder.settings() | {"backend": made[0], "dtype": made[1]}
    table = EmbeddingTable.create(tmp_path, encoder.dim, settings)
    arguments = InferenceArguments(backend=backend, dtype="auto")
    with pytest.raises(ValueError, match=f"was computed in .*--dtype {made[1]} is not for --backend {backend}: leave"):
        embed.load_encoder_of_table(table, encoder.name, arguments)


@pytest.mark.parametrize("given", [{}, {"max_length": 9, "truncate_dim": 8}])
def test_a_model_reads_and_cuts_as_its_table_says(encoder, tmp_path, given):
    table = EmbeddingTable.create(tmp_path, 8, encoder.settings() | {"max_length": 12, "truncate_dim": 8})
    loaded = embed.load_encoder_of_table(table, encoder.name, InferenceArguments(device="cpu", **given))
    assert (loaded.max_length, loaded.truncate_dim) == (given.get("max_length", 12), 8)


@pytest.mark.parametrize("path", [None, "", "s3://bucket/photos", "org/photos"])
def test_a_name_that_is_no_file_here_stays_as_it_is(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert embed.make_absolute(path) == path
    assert embed.make_absolute("photos") == str(tmp_path / "photos")
    assert embed.make_absolute("pho*") == str(tmp_path / "pho*")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"dataset_name": "photos", "data_dir": "train"}, {"dataset_name": "{}/photos", "data_dir": "train"}),
        (
            {"dataset_name": "photos", "data_files": ["train/*.png"]},
            {"dataset_name": "{}/photos", "data_files": ["train/*.png"]},
        ),
        ({"dataset_name": "imagefolder", "data_dir": "photos"}, {"data_dir": "{}/photos"}),
        (
            {"dataset_name": "imagefolder", "data_dir": "photos", "data_files": ["train/*.png"]},
            {"dataset_name": "imagefolder", "data_dir": "{}/photos", "data_files": ["train/*.png"]},
        ),
        ({"dataset_name": "imagefolder", "data_files": ["train/*.png"]}, {"data_files": ["{}/train/*.png"]}),
        ({"dataset_name": "org/photos", "data_dir": "train"}, {"dataset_name": "org/photos", "data_dir": "train"}),
    ],
)
def test_what_is_in_the_folder_of_the_data_is_not_looked_for_in_another_one(tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, ["photos/train/mine.png", "train/other.png", "imagefolder/other.png"])
    named = embed.name_data(SourceArguments(**source), "train", None)
    for name, value in expected.items():
        if isinstance(value, list):
            value = [pattern.format(tmp_path) for pattern in value]
        else:
            value = value.format(tmp_path)
        assert named[name] == value


def test_a_folder_with_the_name_of_a_pattern_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos [2024]").mkdir()
    assert embed.make_absolute("photos [2024]") == str(tmp_path / "photos [2024]")

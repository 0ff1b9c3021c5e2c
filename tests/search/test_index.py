"""An index follows the files of its folder, whatever happens on the way."""

import copy
import json
import os

import pytest
import torch
from PIL import Image

import lotlip
from modeling_lotlip.data.images import read_image
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.search import searcher as searcher_module
from modeling_lotlip.search.index import find_table, open_images
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.table.storage import EmbeddingTable
from tests.helpers.embeddings import embed_images
from tests.helpers.images import save_images


@pytest.fixture
def searcher(folder, encoder, tmp_path) -> Searcher:
    """The folder with its index, still empty."""
    table = find_table(folder, encoder, tmp_path / "indices")
    return Searcher(encoder, table, folder, batch_size=3)


def names_of(table: EmbeddingTable) -> list[str]:
    """All names in an index, those that stand there twice too."""
    return [name for name, _ in table.read_signatures()]


def test_index_follows_the_files(folder, searcher, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.table.embed.WRITE_SIZE", 4)
    table, embedded, row_info = searcher.table, [], searcher_module.RowInfo

    def update() -> tuple[int, int, int]:
        embedded.clear()
        changes = searcher.update()
        files = [path for path in folder.rglob("*.*g") if path.exists() and not path.name.startswith(".")]
        names = names_of(table)
        assert sorted(names) == sorted(str(path.relative_to(folder)) for path in files)
        assert len(table) == len(names) - len(table.unreadable)
        for name in set(names) - table.unreadable.keys():
            (expected,) = embed_images(encoder, [Image.open(folder / name)])
            torch.testing.assert_close(table.embedding(name), expected, rtol=0, atol=2e-4)
        return changes[:3]

    def note(number: None, key: str, **about: object) -> object:
        embedded.append(key)
        return row_info(number, key, **about)

    monkeypatch.setattr(searcher_module, "RowInfo", note)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "cut.jpg").write_bytes((folder / "more" / "3.jpg").read_bytes()[:400])
    (folder / "film.mov").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"")
    assert update() == (12, 0, 0)
    assert searcher.changes.left_out == ["Other files, left out: 1 hidden, 1 .mov."]
    assert update() == (0, 0, 0) and embedded == []
    assert set(table.unreadable) == {"broken.png", "cut.jpg"} and len(table) == 10

    # one is gone, one is another image under the same name, one is repaired, one is new, one has become unreadable
    (folder / "0.png").unlink()
    make_scene(5, 77).draw().save(folder / "1.png")
    make_scene(5, 78).draw().save(folder / "broken.png")
    make_scene(5, 79).draw().save(folder / "new.png")
    (folder / "2.png").write_bytes(b"no image")
    assert update() == (1, 3, 1) and sorted(embedded) == ["1.png", "2.png", "broken.png", "new.png"]
    assert set(table.unreadable) == {"2.png", "cut.jpg"} and table.embedding("2.png") is None

    # a disk that is not mounted is an empty folder: nothing is forgotten
    os.rename(folder, tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        searcher.update()
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="The 12 that were indexed are kept"):
        searcher.update()
    folder.rmdir()
    os.rename(tmp_path / "moved", folder)
    assert update() == (0, 0, 0) and embedded == []


def test_a_folder_that_has_become_empty_is_out_of_reach(folder, searcher):
    """As that of a disk that is not mounted; one in which nothing was indexed is not named."""
    (folder / "nothing").mkdir()
    assert searcher.update() == (10, 0, 0, [])
    (folder / "more" / "3.jpg").unlink()
    expected = (0, 0, 0, ["Empty folders, whose indexed images are kept: more."])
    assert searcher.update() == expected and "more/3.jpg" in names_of(searcher.table)
    (folder / "more").rmdir()
    assert searcher.update() == (0, 0, 1, []) and "more/3.jpg" not in names_of(searcher.table)


def test_what_is_no_image_stops_nothing(folder, searcher, monkeypatch):
    """Pipes, folders that may not be read, images that the processor cannot bear."""
    processor, table, scandir = searcher.encoder.processor, searcher.table, os.scandir
    searcher.update()
    os.mkfifo(folder / "pipe.png")
    make_scene(5, 20).draw().resize((300, 1)).save(folder / "thin.png")
    make_scene(5, 21).draw().save(folder / "zlast.png")

    def closed(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "closed", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    preprocess = type(processor.image_processor).__call__

    def refuse_thin(self, images, **kwargs):
        if any(image.height == 1 for image in images):
            raise RuntimeError("can't allocate memory")
        return preprocess(self, images, **kwargs)

    monkeypatch.setattr(type(processor.image_processor), "__call__", refuse_thin)
    left_out = ["Other files, left out: 1 that is a pipe or device.", "Folders that may not be read: more."]
    assert searcher.update() == (2, 0, 0, left_out) and table.unreadable == {"thin.png": "can't allocate memory"}
    assert {"more/3.jpg", "zlast.png"} < set(names_of(table)) and len(table) == 11


def test_an_image_of_the_same_size_that_was_written_later_is_embedded_again(folder, searcher):
    path, other = folder / "0.png", (folder / "1.png").read_bytes()
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    searcher.update()
    # and one of another size that has the time of before
    for new_size in (size, size + 100):
        path.write_bytes(other[:new_size].ljust(new_size, b"\0"))
        os.utime(path, ns=(time, time + 1))
        assert path.stat().st_size == new_size and searcher.update()[:3] == (0, 1, 0)


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_ends_an_update_keeps_what_is_embedded(searcher, error):
    reports = []

    def stop_after_six(done: int, total: int) -> None:
        reports.append((done, total))
        if done >= 6:
            raise error

    with pytest.raises(type(error)):
        searcher.update(stop_after_six)
    assert len(searcher.table) == 6 and reports == [(0, 10), (3, 10), (6, 10)]
    assert searcher.update().new == 4
    assert len(searcher.table) == len(set(names_of(searcher.table))) == len(names_of(searcher.table)) == 10


def test_embeddings_that_are_not_finite_are_refused(searcher):
    searcher.encoder = copy.deepcopy(searcher.encoder)
    with torch.no_grad():
        for parameter in searcher.encoder.model.vision_model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="embedding of 0.png holds NaN or infinity: choose a wider --dtype"):
        searcher.update()
    assert names_of(searcher.table) == []


def test_an_index_is_measured_after_an_update_and_after_many_new_images(folder, searcher, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.table.storage.NUM_EXACT", 12)
    embedded, embed, table = [], searcher_module.embed_background, searcher.table

    def note(*arguments):
        embedded.append(embed(*arguments))
        return embedded[-1]

    monkeypatch.setattr(searcher_module, "embed_background", note)
    searcher.update()
    assert table.measured().num_rows == 10 and len(embedded) == 1 and not table.has_index
    assert len(embedded[0]) == 64 and len(embedded[0].unique(dim=0)) > 1
    for number, (num_measured, times) in enumerate(((10, 1), (12, 2))):
        make_scene(5, 50 + number).draw().save(folder / f"new {number}.png")
        searcher.update()
        assert (table.measured().num_rows, len(embedded)) == (num_measured, times)
    assert table.has_index and table.measured().recall == 1


def test_each_model_has_an_index(folder, searcher, encoder, tmp_path):
    model, processor = encoder.model, encoder.processor
    searcher.update()
    other = find_table(folder, DualEncoder(copy.deepcopy(model).bfloat16(), processor), tmp_path / "indices")
    assert other.folder != searcher.table.folder and len(other) == 0

    # but one and the same model has one, wherever it lies
    model.save_pretrained(tmp_path / "moved")
    processor.save_pretrained(tmp_path / "moved")
    moved = load_encoder(str(tmp_path / "moved"), InferenceArguments(device="cpu"))
    assert find_table(folder, moved, tmp_path / "indices").folder == searcher.table.folder
    moved.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    moved = DualEncoder(moved.model, moved.processor)
    assert len(find_table(folder, moved, tmp_path / "indices")) == 0
    assert len(find_table(folder / ("é" * 127), moved, tmp_path / "indices")) == 0  # the longest name there is


def test_embeddings_are_shown_with_the_images_they_are_of(model_dir, encoder, tmp_path):
    """Also of shuffled rows; where the data has changed since it is refused."""
    photos = save_images(tmp_path / "photos", [make_scene(5, number).draw() for number in range(6)])
    rows = [{"image": str(photos / f"{number}.png"), "name": f"scene {number}"} for number in range(6)]
    lines = list(map(json.dumps, rows))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = ["--dataset_name", "json", "--data_files", str(tmp_path / "rows.jsonl"), "--eval_split", "train"]
    options += ["--model", str(model_dir), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    assert lotlip.main(["embed", *options, "--split_seed", "3", "--key_column", "name", "--only", "images"]) == 0
    table = EmbeddingTable(tmp_path / "out")
    late = table.table.search().where("row = 2").to_arrow()
    table.table.delete("row = 2")
    read = open_images(table)
    table.table.add(late)  # of a run that goes on
    for key in (f"scene {number}" for number in range(6)):
        (embedding,) = embed_images(encoder, [read_image(read(key))])
        torch.testing.assert_close(table.embedding(key), embedding, rtol=0, atol=1e-5)
    os.utime(photos / "0.png", (0, 0))
    with pytest.raises(ValueError, match="The file has changed since it was embedded"):
        read("scene 0")
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[1:] + lines[:1]))  # a line that has moved
    with pytest.raises(ValueError, match="The data have changed since .*: name another folder, or delete it"):
        open_images(table)

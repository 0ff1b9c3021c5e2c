"""An table on disk follows its files, whatever happens on the way."""

import copy
import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.table import EmbeddingTable
from modeling_lotlip.search import update
from modeling_lotlip.search.pictures import PictureFolder, describe_others
from modeling_lotlip.search.update import find_table, update_table
from tests.helpers.embeddings import embed_images


@pytest.fixture
def table(folder, model_and_processor, tmp_path) -> EmbeddingTable:
    """That of the folder, still empty."""
    return find_table(PictureFolder(folder), *model_and_processor, tmp_path / "indices")


def names_of(table: EmbeddingTable) -> list[str]:
    """All names in an table, in whatever order, those that stand there twice too."""
    return [name for name, _ in table.read_signatures()]


def test_index_follows_the_files(folder, table, model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.embedding.store.WRITE_SIZE", 4)
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    embedded = []

    def update() -> tuple[EmbeddingTable, tuple]:
        embedded.clear()
        changes = update_table(table, pictures, model, processor, batch_size=3)
        files = [path for path in folder.rglob("*.*g") if path.exists() and not path.name.startswith(".")]
        names = names_of(table)
        assert sorted(names) == sorted(str(path.relative_to(folder)) for path in files)
        assert len(table) == len(names) - len(table.unreadable)
        for name in set(names) - table.unreadable.keys():
            (expected,) = embed_images(model, processor, [Image.open(folder / name)])
            torch.testing.assert_close(table.embedding(name), expected, rtol=0, atol=2e-4)
        return table, tuple(changes)

    row = pictures.row
    monkeypatch.setattr(pictures, "row", lambda name: (embedded.append(name), row(name))[1])
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes((folder / "more" / "3.jpg").read_bytes()[:400])
    (folder / "film.mov").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "nowhere.png").symlink_to("gone.png")
    assert update()[1] == (12, 0, 0)
    assert pictures.others == {".mov": 1, "without a file behind it": 1}
    (folder / "nowhere.png").unlink()
    assert update()[1] == (0, 0, 0) and embedded == []
    assert set(table.unreadable) == {"broken.png", "cut.jpg"} and len(table) == 10

    # one is gone, one is another picture under the same name, one is repaired, one is new
    (folder / "0.png").unlink()
    make_scene(5, 77).draw().save(folder / "1.png")
    make_scene(5, 78).draw().save(folder / "broken.png")
    make_scene(5, 79).draw().save(folder / "new.png")
    assert update()[1] == (1, 2, 1) and sorted(embedded) == ["1.png", "broken.png", "new.png"]
    assert set(table.unreadable) == {"cut.jpg"}
    assert update()[1] == (0, 0, 0) and embedded == []

    # a disk that is not mounted is an empty folder: nothing is forgotten
    for path in folder.rglob("*.*g"):
        if path.name != "new.png":
            path.unlink()
    (folder / "more").rmdir()
    assert update()[1] == (0, 0, 11)
    (folder / "new.png").rename(tmp_path / "new.png")
    with pytest.raises(FileNotFoundError, match="The 1 that were indexed are kept"):
        update_table(table, pictures, model, processor)
    (tmp_path / "new.png").rename(folder / "new.png")
    assert update()[1] == (0, 0, 0) and embedded == []
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        os.rename(folder, tmp_path / "moved")
        update()


def test_a_folder_that_has_become_empty_is_out_of_reach(folder, table, model_and_processor):
    """As that of a disk that is not mounted."""
    pictures = PictureFolder(folder)
    update_table(table, pictures, *model_and_processor)
    (folder / "more" / "3.jpg").unlink()
    assert update_table(table, pictures, *model_and_processor) == (0, 0, 0) and "more/3.jpg" in table
    assert describe_others(pictures) == ["Empty folders, of which images of before are kept: more."]
    (folder / "more").rmdir()
    assert update_table(table, pictures, *model_and_processor) == (0, 0, 1) and "more/3.jpg" not in table


def test_stopped_update_goes_on(folder, table, model_and_processor):
    model, processor = model_and_processor
    reports = []

    def stop_after_six(done: int, total: int) -> bool:
        reports.append((done, total))
        return done >= 6

    pictures = PictureFolder(folder)
    update_table(table, pictures, model, processor, 3, stop_after_six)
    assert len(table) == 6 and reports == [(0, 10), (3, 10), (6, 10)]
    changes = update_table(table, pictures, model, processor, 3)
    assert len(table) == len(set(names_of(table))) == 10 and changes.new == 4


def test_what_is_no_picture_stops_nothing(folder, table, model_and_processor, monkeypatch):
    """Names that are no text, pipes, folders that may not be read, pictures that the processor cannot bear."""
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    update_table(table, pictures, model, processor)
    with open(os.fsencode(folder) + b"/bad\xff.png", "wb"):
        os.mkfifo(folder / "pipe.png")
    (folder / "linked").symlink_to("more")
    make_scene(5, 20).draw().resize((300, 1)).save(folder / "thin.png")
    make_scene(5, 21).draw().save(folder / "zlast.png")
    scandir = os.scandir

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
    changes = update_table(table, pictures, model, processor)
    assert changes == (2, 0, 0) and table.unreadable == {"thin.png": "can't allocate memory"}
    assert "more/3.jpg" in table and "zlast.png" in table and "thin.png" not in table and len(table) == 11
    assert pictures.closed_folders == {"more"} and pictures.others == {
        "with a name that is not UTF-8": 1,
        "that is a pipe or device": 1,
        "in a linked folder": 1,
    }


def test_a_picture_of_the_same_size_that_was_written_later_is_embedded_again(folder, table, model_and_processor):
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    path = folder / "0.png"
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    update_table(table, pictures, model, processor)
    other = (folder / "1.png").read_bytes()
    path.write_bytes(other[:size].ljust(size, b"\0"))
    os.utime(path, ns=(time, time + 1))
    assert path.stat().st_size == size
    assert update_table(table, pictures, model, processor) == (0, 1, 0)
    # and one of another size that has the time of before
    path.write_bytes(other.ljust(size + 100, b"\0"))
    os.utime(path, ns=(time, time + 1))
    assert update_table(table, pictures, model, processor) == (0, 1, 0)


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_ends_an_update_keeps_what_is_embedded(folder, table, model_and_processor, monkeypatch, error):
    model, processor = model_and_processor
    pictures, row = PictureFolder(folder), PictureFolder.row

    def fail(self, name):
        if name == "7.png":
            raise error
        return row(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(PictureFolder, "row", fail)
        with pytest.raises(type(error)):
            update_table(table, pictures, model, processor, batch_size=2)
    names = names_of(table)
    assert 2 <= len(names) < 8 and "7.png" not in names
    assert update_table(table, pictures, model, processor).new == 10 - len(names)
    assert len(names_of(table)) == len(set(names_of(table))) == 10


def test_a_killed_update_goes_on(folder, table, model_dir, model_and_processor, tmp_path):
    """Killed between two batches, of which the first is written: what is on disk is whole, and the rest follows."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from modeling_lotlip.embedding.arguments import InferenceArguments\n"
        "from modeling_lotlip.embedding.models import load_model\n"
        "from modeling_lotlip.embedding import store\n"
        "from modeling_lotlip.embedding.table import EmbeddingTable\n"
        "from modeling_lotlip.search import update\n"
        "from modeling_lotlip.search.pictures import PictureFolder\n"
        "store.WRITE_SIZE = 4\n"
        "model, processor = load_model(sys.argv[1], InferenceArguments(device='cpu'))\n"
        "report = lambda done, total: done >= 8 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "table, pictures = EmbeddingTable(Path(sys.argv[2])), PictureFolder(Path(sys.argv[3]))\n"
        "update.update_table(table, pictures, model, processor, 2, report)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(model_dir), str(table.folder), str(folder)])
    assert killed.returncode == -signal.SIGKILL and len(table) == 8
    assert update_table(table, PictureFolder(folder), *model_and_processor) == (2, 0, 0)
    assert len(names_of(table)) == len(set(names_of(table))) == len(table) == 10


def test_a_disk_that_is_full_stops_an_update_in_a_line(folder, table, model_and_processor, monkeypatch):
    pictures, append, written = PictureFolder(folder), EmbeddingTable.append, []

    def fail(self, rows):
        if written:
            raise OSError("The embeddings cannot be written: no space left on device")
        written.append(rows)
        append(self, rows)

    monkeypatch.setattr("modeling_lotlip.embedding.store.WRITE_SIZE", 4)
    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingTable, "append", fail)
        with pytest.raises(OSError, match="no space left"):
            update_table(table, pictures, *model_and_processor, batch_size=2)
    assert len(table) == 4
    assert update_table(table, pictures, *model_and_processor) == (6, 0, 0)


def test_a_picture_that_cannot_be_read_any_more_is_no_longer_found(folder, table, model_and_processor):
    update_table(table, PictureFolder(folder), *model_and_processor)
    (folder / "2.png").write_bytes(b"no picture")
    assert update_table(table, PictureFolder(folder), *model_and_processor) == (0, 1, 0)
    assert "2.png" in table.unreadable and "2.png" not in table and len(table) == 9


def test_embeddings_that_are_not_finite_are_refused(folder, table, model_and_processor):
    model, processor = copy.deepcopy(model_and_processor[0]), model_and_processor[1]
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="embedding of 0.png holds NaN or infinity: choose a wider --dtype"):
        update_table(table, PictureFolder(folder), model, processor)
    assert names_of(table) == []


def test_the_search_in_many_pictures_is_made_fast_after_an_update(folder, table, model_and_processor, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.embedding.table.NUM_EXACT", 10)
    announced = []

    def announce() -> None:
        announced.append((len(table), table.has_index))

    pictures = PictureFolder(folder)
    update_table(table, pictures, *model_and_processor, 3, lambda done, total: done >= 6, announce)
    assert announced == [] and not table.has_index
    update_table(table, pictures, *model_and_processor, announce=announce)
    assert announced == [(10, False)] and table.has_index and table.measured().recall == 1
    update_table(table, pictures, *model_and_processor, announce=announce)
    assert len(announced) == 1


def test_thresholds_are_measured_after_an_update_and_after_many_new_pictures(folder, open_folder, monkeypatch):
    embedded, embed = [], update.embed_background

    def note(*arguments):
        embedded.append(embed(*arguments))
        return embedded[-1]

    monkeypatch.setattr(update, "embed_background", note)
    searcher = open_folder()
    searcher.update()
    assert searcher.table.measured().num_rows == 10 and len(embedded) == 1
    assert len(embedded[0]) == 64 and len(embedded[0].unique(dim=0)) > 1
    searcher.update()
    make_scene(5, 50).draw().save(folder / "new.png")
    searcher.update()
    assert len(embedded) == 1 and searcher.table.measured().num_rows == 10
    make_scene(5, 51).draw().save(folder / "newer.png")
    searcher.update()
    assert len(embedded) == 2 and searcher.table.measured().num_rows == 12

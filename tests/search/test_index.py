"""An index on disk follows its files."""

import json
import os

import pytest
import torch
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.search.index import Index, load_index, update_index
from modeling_lotlip.search.pictures import PictureFolder
from tests.helpers.embeddings import embed_images


def test_index_follows_the_files(folder, model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.search.index.SHARD_SIZE", 4)
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    embedded = []

    def update() -> tuple[Index, tuple]:
        embedded.clear()
        changes = update_index(tmp_path / "index", pictures, model, processor, batch_size=3)
        index = load_index(tmp_path / "index")
        files = [path for path in folder.rglob("*.*g") if path.exists() and not path.name.startswith(".")]
        assert sorted([*index.names, *index.unreadable]) == sorted(str(path.relative_to(folder)) for path in files)
        for name, embedding in zip(index.names, index.embeds):
            (expected,) = embed_images(model, processor, [Image.open(folder / name)])
            torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)
        return index, tuple(changes)

    read = pictures.read
    monkeypatch.setattr(pictures, "read", lambda name, **_: (embedded.append(name), read(name))[1])
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes((folder / "more" / "3.jpg").read_bytes()[:400])
    (folder / "film.mov").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "nowhere.png").symlink_to("gone.png")
    assert update()[1] == (12, 0, 0)
    assert pictures.others == {".mov": 1, "without a file behind it": 1}
    (folder / "nowhere.png").unlink()
    index, changes = update()
    assert changes == (0, 0, 0) and embedded == []
    assert set(index.unreadable) == {"broken.png", "cut.jpg"} and len(index.names) == 10

    # one is gone, one is another picture under the same name, one is repaired, one is new
    (folder / "0.png").unlink()
    make_scene(5, 77).draw().save(folder / "1.png")
    make_scene(5, 78).draw().save(folder / "broken.png")
    make_scene(5, 79).draw().save(folder / "new.png")
    index, changes = update()
    assert changes == (1, 2, 1) and sorted(embedded) == ["1.png", "broken.png", "new.png"]
    assert set(index.unreadable) == {"cut.jpg"}
    assert update()[1] == (0, 0, 0) and embedded == []

    # a stop between the two files of a shard: what the list does not know is embedded anew, and stands there once
    list_path = next(path for path in (tmp_path / "index").glob("pictures-*.json") if "2.png" in path.read_text())
    listed = json.loads(list_path.read_text())
    del listed["2.png"]
    list_path.write_text(json.dumps(listed))
    assert update()[1] == (1, 0, 0) and embedded == ["2.png"]

    # a disk that is not mounted is an empty folder: nothing is forgotten
    for path in folder.rglob("*.*g"):
        if path.name != "new.png":
            path.unlink()
    assert update()[1] == (0, 0, 11)
    (folder / "new.png").rename(tmp_path / "new.png")
    with pytest.raises(FileNotFoundError, match="The 1 that were indexed are kept"):
        update_index(tmp_path / "index", pictures, model, processor)
    (tmp_path / "new.png").rename(folder / "new.png")
    assert update()[1] == (0, 0, 0) and embedded == []
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        os.rename(folder, tmp_path / "moved")
        update()


def test_stopped_update_goes_on(folder, model_and_processor, tmp_path):
    model, processor = model_and_processor
    reports = []

    def stop_after_six(done: int, total: int) -> bool:
        reports.append((done, total))
        return done >= 6

    pictures = PictureFolder(folder)
    update_index(tmp_path / "index", pictures, model, processor, 3, stop_after_six)
    assert len(load_index(tmp_path / "index").names) == 6 and reports == [(0, 10), (3, 10), (6, 10)]
    changes = update_index(tmp_path / "index", pictures, model, processor, 3)
    names = load_index(tmp_path / "index").names
    assert len(names) == len(set(names)) == 10 and changes.new == 4


def test_what_is_no_picture_stops_nothing(folder, model_and_processor, tmp_path, monkeypatch):
    """Names that are no text, pipes, folders that may not be read, pictures that the processor cannot bear."""
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    update_index(tmp_path / "index", pictures, model, processor)
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
    changes = update_index(tmp_path / "index", pictures, model, processor)
    index = load_index(tmp_path / "index")
    assert changes == (2, 0, 0) and index.unreadable == {"thin.png": "can't allocate memory"}
    assert "more/3.jpg" in index.names and "zlast.png" in index.names and len(index.names) == 11
    assert pictures.closed_folders == {"more"} and pictures.others == {
        "with a name that is not UTF-8": 1,
        "that is a pipe or device": 1,
        "linked folder": 1,
    }


def test_a_picture_of_the_same_size_that_was_written_later_is_embedded_again(folder, model_and_processor, tmp_path):
    model, processor = model_and_processor
    pictures = PictureFolder(folder)
    path = folder / "0.png"
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    update_index(tmp_path / "index", pictures, model, processor)
    other = (folder / "1.png").read_bytes()
    path.write_bytes(other[:size].ljust(size, b"\0"))
    os.utime(path, ns=(time, time + 1))
    assert path.stat().st_size == size
    assert update_index(tmp_path / "index", pictures, model, processor) == (0, 1, 0)
    # and one of another size that has the time of before
    path.write_bytes(other.ljust(size + 100, b"\0"))
    os.utime(path, ns=(time, time + 1))
    assert update_index(tmp_path / "index", pictures, model, processor) == (0, 1, 0)


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_ends_an_update_keeps_what_is_embedded(folder, model_and_processor, tmp_path, monkeypatch, error):
    model, processor = model_and_processor
    pictures, read = PictureFolder(folder), PictureFolder.read

    def fail(self, name, **options):
        if name == "7.png":
            raise error
        return read(self, name, **options)

    with monkeypatch.context() as patched:
        patched.setattr(PictureFolder, "read", fail)
        with pytest.raises(type(error)):
            update_index(tmp_path / "index", pictures, model, processor, batch_size=2)
    names = load_index(tmp_path / "index").names
    assert 2 <= len(names) < 8 and "7.png" not in names
    assert update_index(tmp_path / "index", pictures, model, processor).new == 10 - len(names)
    assert len(set(load_index(tmp_path / "index").names)) == 10

"""An index follows the files of its folder, whatever happens on the way."""

import copy
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

import lotlip
from modeling_lotlip.data.images import read_image
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.table import EmbeddingTable
from modeling_lotlip.search import index
from modeling_lotlip.search.index import find_table, open_images, update_table
from tests.helpers.embeddings import embed_images


@pytest.fixture
def table(folder, model_and_processor, tmp_path) -> EmbeddingTable:
    """The index of the folder, still empty."""
    return find_table(folder, *model_and_processor, tmp_path / "indices")


def names_of(table: EmbeddingTable) -> list[str]:
    """All names in an index, those that stand there twice too."""
    return [name for name, _ in table.read_signatures()]


def test_index_follows_the_files(folder, table, model_and_processor, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.embedding.store.WRITE_SIZE", 4)
    model, processor = model_and_processor
    embedded = []

    def update() -> tuple[int, int, int]:
        embedded.clear()
        changes = update_table(table, folder, model, processor, 3)
        files = [path for path in folder.rglob("*.*g") if path.exists() and not path.name.startswith(".")]
        names = names_of(table)
        assert sorted(names) == sorted(str(path.relative_to(folder)) for path in files)
        assert len(table) == len(names) - len(table.unreadable)
        for name in set(names) - table.unreadable.keys():
            (expected,) = embed_images(model, processor, [Image.open(folder / name)])
            torch.testing.assert_close(table.embedding(name), expected, rtol=0, atol=2e-4)
        left_out[:] = changes.left_out
        return changes[:3]

    left_out, row_info = [], index.RowInfo

    def note(number: None, key: str, **about: object) -> index.RowInfo:
        embedded.append(key)
        return row_info(number, key, **about)

    monkeypatch.setattr(index, "RowInfo", note)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "cut.jpg").write_bytes((folder / "more" / "3.jpg").read_bytes()[:400])
    (folder / "film.mov").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "nowhere.png").symlink_to("gone.png")
    assert update() == (12, 0, 0)
    assert left_out == ["Other files, left out: 1 without a file behind it, 1 .mov."]
    (folder / "nowhere.png").unlink()
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
    assert update() == (0, 0, 0) and embedded == []

    # a disk that is not mounted is an empty folder: nothing is forgotten
    for path in folder.rglob("*.*g"):
        if path.name != "new.png":
            path.unlink()
    (folder / "more").rmdir()
    assert update() == (0, 0, 11)
    (folder / "new.png").rename(tmp_path / "new.png")
    with pytest.raises(FileNotFoundError, match="The 1 that were indexed are kept"):
        update_table(table, folder, model, processor)
    (tmp_path / "new.png").rename(folder / "new.png")
    assert update() == (0, 0, 0) and embedded == []
    os.rename(folder, tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        update_table(table, folder, model, processor)


def test_a_folder_that_has_become_empty_is_out_of_reach(folder, table, model_and_processor):
    """As that of a disk that is not mounted."""
    update_table(table, folder, *model_and_processor)
    (folder / "more" / "3.jpg").unlink()
    expected = (0, 0, 0, ["Empty folders, whose indexed images are kept: more."])
    assert update_table(table, folder, *model_and_processor) == expected and "more/3.jpg" in names_of(table)
    (folder / "more").rmdir()
    assert update_table(table, folder, *model_and_processor) == (0, 0, 1, []) and "more/3.jpg" not in names_of(table)


def test_what_is_no_image_stops_nothing(folder, table, model_and_processor, monkeypatch):
    """Names that are no text, pipes, folders that may not be read, images that the processor cannot bear."""
    model, processor = model_and_processor
    update_table(table, folder, model, processor)
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
    changes = update_table(table, folder, model, processor)
    assert changes[:3] == (2, 0, 0) and table.unreadable == {"thin.png": "can't allocate memory"}
    assert {"more/3.jpg", "zlast.png"} < set(names_of(table)) and len(table) == 11
    reasons = "1 in a linked folder, 1 with a name that is not UTF-8, 1 that is a pipe or device"
    assert set(changes.left_out[0].removeprefix("Other files, left out: ").rstrip(".").split(", ")) == set(
        reasons.split(", ")
    )
    assert changes.left_out[1:] == ["Folders that may not be read: more."]


def test_an_image_of_the_same_size_that_was_written_later_is_embedded_again(folder, table, model_and_processor):
    path = folder / "0.png"
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    update_table(table, folder, *model_and_processor)
    other = (folder / "1.png").read_bytes()
    path.write_bytes(other[:size].ljust(size, b"\0"))
    os.utime(path, ns=(time, time + 1))
    assert path.stat().st_size == size
    assert update_table(table, folder, *model_and_processor)[:3] == (0, 1, 0)
    # and one of another size that has the time of before
    path.write_bytes(other.ljust(size + 100, b"\0"))
    os.utime(path, ns=(time, time + 1))
    assert update_table(table, folder, *model_and_processor)[:3] == (0, 1, 0)


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_ends_an_update_keeps_what_is_embedded(folder, table, model_and_processor, error):
    reports = []

    def stop_after_six(done: int, total: int) -> None:
        reports.append((done, total))
        if done >= 6:
            raise error

    with pytest.raises(type(error)):
        update_table(table, folder, *model_and_processor, 3, stop_after_six)
    assert len(table) == 6 and reports == [(0, 10), (3, 10), (6, 10)]
    assert update_table(table, folder, *model_and_processor).new == 4
    assert len(table) == len(set(names_of(table))) == len(names_of(table)) == 10


def test_a_killed_update_goes_on(folder, table, model_dir, model_and_processor, tmp_path):
    """Killed between two batches, of which the first is written: what is on disk is whole, and the rest follows."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from modeling_lotlip.embedding.arguments import InferenceArguments\n"
        "from modeling_lotlip.embedding.models import load_model\n"
        "from modeling_lotlip.embedding import store\n"
        "from modeling_lotlip.embedding.table import EmbeddingTable\n"
        "from modeling_lotlip.search.index import update_table\n"
        "store.WRITE_SIZE = 4\n"
        "model, processor = load_model(sys.argv[1], InferenceArguments(device='cpu'))\n"
        "report = lambda done, total: done >= 8 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "update_table(EmbeddingTable(Path(sys.argv[2])), Path(sys.argv[3]), model, processor, 2, report)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(model_dir), str(table.folder), str(folder)])
    assert killed.returncode == -signal.SIGKILL and len(table) == 8
    assert update_table(table, folder, *model_and_processor)[:3] == (2, 0, 0)
    assert len(names_of(table)) == len(set(names_of(table))) == len(table) == 10


def test_a_disk_that_is_full_stops_an_update_in_a_line(folder, table, model_and_processor, monkeypatch):
    append, written = EmbeddingTable.append, []

    def fail(self, rows):
        if written:
            raise OSError("The embeddings cannot be written: no space left on device")
        written.append(rows)
        append(self, rows)

    monkeypatch.setattr("modeling_lotlip.embedding.store.WRITE_SIZE", 4)
    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingTable, "append", fail)
        with pytest.raises(OSError, match="no space left"):
            update_table(table, folder, *model_and_processor, batch_size=2)
    assert len(table) == 4
    assert update_table(table, folder, *model_and_processor)[:3] == (6, 0, 0)


def test_embeddings_that_are_not_finite_are_refused(folder, table, model_and_processor):
    model, processor = copy.deepcopy(model_and_processor[0]), model_and_processor[1]
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="embedding of 0.png holds NaN or infinity: choose a wider --dtype"):
        update_table(table, folder, model, processor)
    assert names_of(table) == []


def test_an_index_is_measured_after_an_update_and_after_many_new_images(
    folder, table, model_and_processor, monkeypatch
):
    monkeypatch.setattr("modeling_lotlip.embedding.table.NUM_EXACT", 12)
    embedded, embed = [], index.embed_background

    def note(*arguments):
        embedded.append(embed(*arguments))
        return embedded[-1]

    monkeypatch.setattr(index, "embed_background", note)
    update_table(table, folder, *model_and_processor)
    assert table.measured().num_rows == 10 and len(embedded) == 1 and not table.has_index
    assert len(embedded[0]) == 64 and len(embedded[0].unique(dim=0)) > 1
    make_scene(5, 50).draw().save(folder / "new.png")
    update_table(table, folder, *model_and_processor)
    assert len(embedded) == 1 and table.measured().num_rows == 10
    make_scene(5, 51).draw().save(folder / "newer.png")
    update_table(table, folder, *model_and_processor)
    assert len(embedded) == 2 and table.measured().num_rows == 12 and table.has_index
    assert table.measured().recall == 1


def test_each_model_has_an_index(folder, table, model_and_processor, tmp_path):
    model, processor = model_and_processor
    update_table(table, folder, model, processor)
    in_bfloat16 = copy.deepcopy(model).bfloat16()
    other = find_table(folder, in_bfloat16, processor, tmp_path / "indices")
    assert other.folder != table.folder and len(other) == 0

    # but one and the same model has one, wherever it lies
    model.save_pretrained(tmp_path / "moved")
    processor.save_pretrained(tmp_path / "moved")
    moved = load_model(str(tmp_path / "moved"), InferenceArguments(device="cpu"))
    assert find_table(folder, *moved, tmp_path / "indices").folder == table.folder
    moved[1].image_processor.image_mean = [0.1, 0.2, 0.3]
    assert len(find_table(folder, *moved, tmp_path / "indices")) == 0


def test_embeddings_are_shown_with_the_images_they_are_of(model_dir, model_and_processor, tmp_path):
    """Also of shuffled rows; where the data has changed since it is refused."""
    (tmp_path / "photos").mkdir()
    lines = []
    for number in range(6):
        make_scene(5, number).draw().save(tmp_path / "photos" / f"{number}.png")
        row = {"image": str(tmp_path / "photos" / f"{number}.png"), "caption": "a boat", "name": f"scene {number}"}
        lines.append(json.dumps(row))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = ["--dataset_name", "json", "--data_files", str(tmp_path / "rows.jsonl"), "--eval_split", "train"]
    options += ["--model", str(model_dir), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    assert lotlip.main(["embed", *options, "--split_seed", "3", "--key_column", "name"]) == 0
    table = EmbeddingTable(tmp_path / "out")
    read = open_images(table)
    for key in (f"scene {number}" for number in range(6)):
        (embedding,) = embed_images(*model_and_processor, [read_image(read(key))])
        torch.testing.assert_close(table.embedding(key), embedding, rtol=0, atol=1e-5)
    # a line that has moved
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[1:] + lines[:1]))
    with pytest.raises(ValueError, match="The data have changed since .*: name another folder, or delete it"):
        open_images(table)

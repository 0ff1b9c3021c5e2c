"""An index follows the files of its folder, whatever happens on the way."""

import copy
import json
import os
import random
import shutil
import struct
import sys

import pytest
import torch
from PIL import Image

import lotlip
from modeling_lotlip.data.images import read_image
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.search import searcher as searcher_module
from modeling_lotlip.search.arguments import Filter, SearchModelArguments
from modeling_lotlip.search.index import (
    Changes,
    compare,
    describe_orphans,
    find_table,
    forget_folder,
    list_indices_of_model,
    open_images,
)
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.table.measurements import read_measurements
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.thresholds import maintain
from modeling_lotlip.table.vector_index import has_index, plan_search
from modeling_lotlip.utils.output_folder import FolderInUseError
from tests.helpers import photographs
from tests.helpers.embeddings import embed_images
from tests.helpers.images import refuse_to_open, save_images


@pytest.fixture
def searcher(folder, encoder, tmp_path) -> Searcher:
    """The folder with its index, still empty."""
    table = find_table(folder, encoder, tmp_path / "indices")
    return Searcher(encoder, table, folder, batch_size=3)


def names_of(table: EmbeddingTable) -> list[str]:
    """Lists all names in an index, those that are there twice too."""
    return sorted(name for name, _ in table.read_signatures())


@pytest.fixture
def embedded(monkeypatch) -> list[str]:
    """The names of the files that are read to be embedded, as they come."""
    names = []
    row_info = searcher_module.RowInfo

    def note(number: None, key: str, **about: object) -> object:
        names.append(key)
        return row_info(number, key, **about)

    monkeypatch.setattr(searcher_module, "RowInfo", note)
    return names


def check_embeddings(searcher: Searcher) -> None:
    """Asserts that the index has all images of the folder, once, with the embeddings of what they are now."""
    table = searcher.table
    files = [path for path in searcher.folder.rglob("*.*g") if path.exists() and not path.name.startswith(".")]
    assert names_of(table) == sorted(str(path.relative_to(searcher.folder)) for path in files)
    assert len(table) == len(files) - len(table.unreadable)
    for name in set(names_of(table)) - table.unreadable.keys():
        (expected,) = embed_images(searcher.encoder, [Image.open(searcher.folder / name)])
        torch.testing.assert_close(table.embedding(name), expected, rtol=0, atol=2e-4)


def test_an_index_has_what_can_be_read_and_names_the_rest(folder, searcher, embedded, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.table.embed.WRITE_SIZE", 4)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "cut.jpg").write_bytes((folder / "more" / "3.jpg").read_bytes()[:400])
    (folder / "film.mov").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"")
    changes = searcher.update()
    left_out = ["Other files, left out: 1 hidden, 1 .mov."]
    assert changes == Changes(new=10, unreadable=2, left_out=left_out)
    assert set(searcher.table.unreadable) == {"broken.png", "cut.jpg"}
    check_embeddings(searcher)
    embedded.clear()
    searcher.update()
    assert embedded == []


def test_an_index_follows_the_files(folder, searcher, embedded):
    """One is gone, one is another image, one is repaired, one is new, one has become unreadable, and one was so."""
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "broken too.png").write_bytes(b"no image")
    searcher.update()
    embedded.clear()
    (folder / "0.png").unlink()
    (folder / "broken too.png").unlink()
    make_scene(5, 77).draw().save(folder / "1.png")
    make_scene(5, 78).draw().save(folder / "broken.png")
    make_scene(5, 79).draw().save(folder / "new.png")
    (folder / "2.png").write_bytes(b"no image")
    changes = searcher.update()
    assert changes == Changes(new=1, changed=2, unreadable=1, deleted=1)
    assert embedded == ["1.png", "2.png", "broken.png", "new.png"]
    assert set(searcher.table.unreadable) == {"2.png"}
    check_embeddings(searcher)


def test_a_folder_that_is_gone_or_has_become_empty_is_kept(folder, searcher, embedded, tmp_path):
    """As one of a disk that is not mounted."""
    searcher.update()
    embedded.clear()
    os.rename(folder, tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        searcher.update()
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="The 10 that were indexed are kept; .* lotlip search --forget"):
        searcher.update()
    folder.rmdir()
    os.rename(tmp_path / "moved", folder)
    changes = searcher.update()
    assert changes == Changes()
    assert embedded == []


def test_a_folder_that_goes_while_it_is_indexed_is_an_error_and_indexed_later(folder, searcher, tmp_path):
    def take_away(done: int, total: int) -> None:
        if total > 0 and folder.exists():
            folder.rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError, match=f"The folder {folder} is not there any more"):
        searcher.update(take_away)
    (tmp_path / "elsewhere").rename(folder)
    searcher.update()
    assert len(searcher.table) == 10
    assert searcher.table.unreadable == {}


def test_renamed_images_keep_their_embeddings(folder, searcher, embedded):
    searcher.update()
    embedded.clear()
    os.rename(folder / "0.png", folder / "renamed.png")
    os.rename(folder / "more", folder / "other")
    changes = searcher.update()
    assert changes == Changes(moved=2)
    assert embedded == []
    check_embeddings(searcher)


def test_a_copy_of_an_image_has_its_embedding(folder, searcher, embedded):
    searcher.update()
    embedded.clear()
    shutil.copy(folder / "0.png", folder / "copy.png")
    changes = searcher.update()
    assert changes == Changes(moved=1)
    assert embedded == []
    check_embeddings(searcher)


def test_files_that_exchange_names_exchange_embeddings(folder, searcher, embedded):
    """Also if both have one size and one time: the entries were changed."""
    size = max((folder / name).stat().st_size for name in ("0.png", "1.png"))
    for name in ("0.png", "1.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b"\0" * (size - len(content)))
        os.utime(folder / name, (1, 1))
    searcher.update()
    embedded.clear()
    os.rename(folder / "0.png", folder / "third.png")
    os.rename(folder / "1.png", folder / "0.png")
    os.rename(folder / "third.png", folder / "1.png")
    reported = []
    changes = searcher.update(lambda num_done, num_total: reported.append((num_done, num_total)))
    assert embedded == []
    check_embeddings(searcher)
    assert changes == Changes(moved=2)
    assert set(reported) == {(0, 0)}  # nothing is to be embedded


def test_images_without_a_date_that_is_known_are_counted_where_days_are_asked_for(folder, searcher):
    for name, written in (("0.png", "2024:06:05 10:00:00"), ("1.png", "5/6/24")):
        exif = Image.Exif()
        exif[0x0132] = written
        Image.open(folder / name).save(folder / name, exif=exif)
    searcher.update()
    chosen = Filter.parse(taken_from="2024-01-01")
    lines = searcher.describe(chosen)
    assert searcher.count(chosen) == 1
    assert f"Left out, {len(searcher.table) - 1} images without a date that is known." in lines
    in_folder = Filter.parse(folder="more", taken_from="2024-01-01")
    assert "Left out, 1 image without a date that is known." in searcher.describe(in_folder)
    assert not any("a date" in line for line in searcher.describe())


def test_a_file_whose_times_alone_are_others_is_not_embedded_again(folder, searcher, embedded):
    searcher.update()
    embedded.clear()
    os.utime(folder / "0.png", (5, 5))
    (folder / "1.png").chmod(0o600)
    changes = searcher.update()
    assert changes == Changes()
    assert embedded == []
    hashed = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("modeling_lotlip.table.reuse.hash_file", hashed.append)
        searcher.update()
    assert hashed == []  # the new times are known now


def test_a_moved_folder_finds_its_embeddings_again(folder, searcher, embedded, encoder, tmp_path):
    searcher.update()
    embedded.clear()
    os.rename(folder, tmp_path / "moved")
    table = find_table(tmp_path / "moved", encoder, tmp_path / "indices")
    moved = Searcher(encoder, table, tmp_path / "moved", batch_size=3)
    changes = moved.update()
    assert changes == Changes(moved=10)
    assert embedded == []
    check_embeddings(moved)


def test_an_index_whose_folder_is_gone_is_named_with_what_deletes_it(folder, searcher, tmp_path):
    searcher.update()
    assert describe_orphans(tmp_path / "indices") == []
    os.rename(folder, tmp_path / "moved")
    (line,) = describe_orphans(tmp_path / "indices")
    assert f"The folder {folder} is not there" in line
    assert line.endswith(f"lotlip search --forget {folder}")
    assert list(forget_folder(str(folder), tmp_path / "indices")) == [searcher.table.folder]
    assert describe_orphans(tmp_path / "indices") == []
    assert list((tmp_path / "indices").iterdir()) == []


def test_many_indices_whose_folders_are_gone_are_one_sentence(folder, encoder, tmp_path):
    for name in ("a", "b", "c", "d"):
        shutil.copytree(folder, tmp_path / name)
        Searcher(encoder, find_table(tmp_path / name, encoder, tmp_path / "indices"), tmp_path / name).update()
    find_table(tmp_path / "without_images", encoder, tmp_path / "indices")
    for name in ("a", "b", "c", "d"):
        shutil.rmtree(tmp_path / name)
    (line,) = describe_orphans(tmp_path / "indices")
    assert line.startswith(f"4 folders that were indexed are not there, {tmp_path / 'a'}, ")


@pytest.fixture
def damaged(folder, searcher) -> EmbeddingTable:
    """The index of the folder, a file of which is missing."""
    searcher.update()
    for path in searcher.table.folder.rglob("data/*.lance"):
        path.unlink()
    return EmbeddingTable(searcher.table.folder)


def test_a_damaged_index_of_a_folder_that_is_gone_is_warned_of_and_can_be_forgotten(folder, damaged, tmp_path, caplog):
    shutil.rmtree(folder)
    assert describe_orphans(tmp_path / "indices") == []
    assert f"The embeddings in {damaged.folder} cannot be read" in caplog.text
    assert list(forget_folder(str(folder), tmp_path / "indices")) == [damaged.folder]


def test_a_damaged_index_is_the_last_one_that_a_model_is_computed_as(folder, damaged, tmp_path):
    settings = damaged.settings | {"dtype": "bfloat16"}
    other = EmbeddingTable.create(tmp_path / "indices" / "other", damaged.dim, settings, damaged.notes)
    other.append([{"key": "0.png", "embedding": torch.ones(damaged.dim)}])
    arguments = SearchModelArguments(model_name_or_path=damaged.notes["model_name_or_path"])
    found = list_indices_of_model(folder, arguments, tmp_path / "indices")
    assert [table.folder for table in found] == [other.folder, damaged.folder]


def test_an_index_of_dimensions_that_a_model_saves_is_found_again(folder, model_dir, tmp_path):
    cut = shutil.copytree(model_dir, tmp_path / "cut")
    (cut / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 8}))
    indices = tmp_path / "indices"
    table = find_table(folder, DualEncoder.from_pretrained(cut, device="cpu"), indices)
    found = list_indices_of_model(folder, SearchModelArguments(model_name_or_path=str(cut)), indices)
    assert [one.folder for one in found] == [table.folder]


def test_a_folder_without_an_index_cannot_be_forgotten(folder, searcher, tmp_path):
    with pytest.raises(ValueError, match=f"there is no index of it in .*, but of .*{folder}.*Name one of these"):
        forget_folder(str(tmp_path / "other"), tmp_path / "indices")
    assert len(list((tmp_path / "indices").iterdir())) == 1


def test_the_index_of_one_model_is_forgotten(folder, searcher, tmp_path, monkeypatch):
    indices = tmp_path / "indices"
    table = searcher.table
    for name in ("org/other", str(tmp_path / "gone")):
        settings = table.settings | {"truncate_dim": len(name)}
        path = indices / name.rpartition("/")[2]
        EmbeddingTable.create(path, table.dim, settings, {"model_name_or_path": name})
    with pytest.raises(ValueError, match="--model other has no index of .*, but .*gone', 'org/other'].* Name"):
        forget_folder(str(folder), indices, "other")
    assert len(list(indices.iterdir())) == 3
    assert forget_folder(str(folder), indices, "org/other") == {indices / "other": "org/other"}
    monkeypatch.chdir(tmp_path)
    assert forget_folder(str(folder), indices, "./gone/") == {indices / "gone": str(tmp_path / "gone")}
    model = table.notes["model_name_or_path"]
    assert forget_folder(str(folder), indices) == {table.folder: model}


def test_the_index_of_a_folder_that_was_moved_and_linked_is_forgotten_too(folder, searcher, tmp_path):
    indices = tmp_path / "indices"
    link = tmp_path / "moved"
    settings = searcher.table.settings | {"source": str(link)}
    EmbeddingTable.create(indices / "moved", searcher.table.dim, settings)
    link.symlink_to(folder)
    assert set(forget_folder(str(link), indices)) == {indices / "moved", searcher.table.folder}


def test_the_folder_above_a_link_is_that_of_its_target(folder, searcher, tmp_path):
    indices = tmp_path / "indices"
    (tmp_path / "elsewhere" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inside")
    settings = searcher.table.settings | {"source": str(tmp_path / "elsewhere" / folder.name)}
    EmbeddingTable.create(indices / "other", searcher.table.dim, settings)
    name = os.path.join(tmp_path, "link", "..", folder.name)
    assert list(forget_folder(name, indices)) == [indices / "other"]


def test_an_index_that_is_written_is_not_forgotten(folder, searcher, tmp_path):
    searcher.update()
    with searcher.table.writing(), pytest.raises(FolderInUseError):
        forget_folder(str(folder), tmp_path / "indices")
    assert len(searcher.table) == 10


def test_a_file_that_could_not_be_opened_is_tried_again(folder, searcher, embedded):
    """Though nothing of it has changed: neither size nor times."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        refuse_to_open(monkeypatch, "0.png")
        changes = searcher.update()
        assert changes == Changes(new=9, unreadable=1)
        assert "Permission denied" in searcher.table.unreadable["0.png"]
        changes = searcher.update()
        assert changes == Changes()  # it is tried again, and is no news
    embedded.clear()
    changes = searcher.update()
    assert changes == Changes(changed=1)
    assert embedded == ["0.png"]
    check_embeddings(searcher)


def test_heic_is_read_once_what_reads_it_is_installed(folder, searcher):
    """As the message says."""
    (folder / "photo.heic").write_bytes(photographs.encode(photographs.make_picture(), "heic"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        searcher.update()
        assert "pip install" in searcher.table.unreadable["photo.heic"]
    changes = searcher.update()
    assert changes == Changes(changed=1)
    assert searcher.table.unreadable == {}


def test_a_damaged_file_is_read_once_for_each_version_of_what_reads_images(folder, searcher, embedded, monkeypatch):
    (folder / "broken.png").write_bytes(b"no image")
    searcher.update()
    embedded.clear()
    searcher.update()
    assert embedded == []
    for module in ("modeling_lotlip.table.embed", "modeling_lotlip.table.storage"):
        monkeypatch.setattr(f"{module}.name_readers", lambda: "Pillow of tomorrow")
    searcher.update()
    searcher.update()
    assert embedded == ["broken.png"]


def test_one_file_never_stops_the_others(folder, searcher, monkeypatch):
    """Times that no table can store, formats that start other programs, films among images, numbers beyond all."""
    os.utime(folder / "0.png", (2**34, 2**34))  # the year 2514
    os.utime(folder / "1.png", (-(2**33), -(2**33)))  # the year 1697
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nnonsense\n"
    (folder / "drawing.eps").write_bytes(postscript)
    (folder / "drawing.png").write_bytes(postscript)
    (folder / "film.mpg").write_bytes(b"\0\0\1\xb3" + bytes(1000))
    (folder / "film.jpg").write_bytes(b"\0\0\1\xb3" + bytes(1000))
    monkeypatch.setattr("modeling_lotlip.data.images.MAX_FILE_BYTES", 100_000)
    (folder / "large.png").write_bytes((folder / "2.png").read_bytes() + bytes(100_000))
    wide = struct.pack("<2sHIHHHIIHHII", b"II", 42, 8, 2, 256, 4, 1, 2**32 - 1, 257, 4, 1, 2**32 - 1)
    (folder / "wide.tif").write_bytes(wide + bytes(4))
    monkeypatch.setattr("subprocess.Popen", None)
    changes = searcher.update()
    assert changes.left_out == ["Other files, left out: 1 .eps, 1 .mpg."]
    unreadable = searcher.table.unreadable
    assert unreadable.keys() == {"drawing.png", "film.jpg", "large.png", "wide.tif"}
    assert "it is none of JPEG" in unreadable["drawing.png"]
    assert "it is none of JPEG" in unreadable["film.jpg"]
    assert "more than 100000 bytes: make it smaller" in unreadable["large.png"]
    assert len(searcher.table) == 10
    again = searcher.update()
    assert again == Changes(left_out=changes.left_out)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_in_a_file_the_others_are_embedded(folder, searcher, seed):
    """Bytes of every format that are changed at random."""
    generator = random.Random(seed)
    image = make_scene(5, 1).draw()
    for ending in ("jpeg", "png", "webp", "avif", "gif", "bmp", "tiff"):
        content = bytearray(photographs.encode(image, ending))
        for _ in range(generator.randint(1, 30)):
            content[generator.randrange(min(len(content), 400))] = generator.randrange(256)
        (folder / f"random.{ending}").write_bytes(content)
    searcher.update()
    table = searcher.table
    assert {f"{number}.png" for number in range(10) if number != 3} <= set(names_of(table))
    assert len(names_of(table)) == 17
    assert all(name.startswith("random") for name in table.unreadable)


def test_a_folder_that_has_become_empty_is_out_of_reach(folder, searcher):
    """As that of a disk that is not mounted; one in which nothing was indexed is not named."""
    (folder / "nothing").mkdir()
    changes = searcher.update()
    assert changes == Changes(new=10)
    (folder / "more" / "3.jpg").unlink()
    changes = searcher.update()
    assert changes == Changes(left_out=["Empty folders, whose indexed images are kept unless moved: more."])
    assert "more/3.jpg" in names_of(searcher.table)
    (folder / "more").rmdir()
    changes = searcher.update()
    assert changes == Changes(deleted=1)
    assert "more/3.jpg" not in names_of(searcher.table)


def test_folders_are_compared_once_however_many_files_are_gone(folder, searcher, monkeypatch):
    """Each name again for each file takes minutes, where thousands of folders have become empty."""
    searcher.update()
    for index in range(4, 10):
        (folder / f"{index}.png").unlink()
    for index in range(20):
        (folder / f"empty{index}").mkdir()
    compared = []

    def note(names: set[str]) -> set[str]:
        compared.extend(names)
        return set(names)

    monkeypatch.setattr("modeling_lotlip.search.index.as_keys", note)
    comparison = compare(searcher.table, folder)
    assert len(comparison.gone) == 6
    assert len(compared) <= 2 * 20


def test_a_pipe_and_a_closed_folder_stop_nothing(folder, searcher, monkeypatch):
    searcher.update()
    scandir = os.scandir
    os.mkfifo(folder / "pipe.png")
    make_scene(5, 21).draw().save(folder / "zlast.png")

    def closed(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "closed", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    left_out = ["Other files, left out: 1 that is a pipe or device.", "Folders that may not be read: more."]
    changes = searcher.update()
    assert changes == Changes(new=1, left_out=left_out)
    assert {"more/3.jpg", "zlast.png"} < set(names_of(searcher.table))


def test_a_copy_of_an_image_in_a_closed_folder_is_not_its_new_place(folder, searcher, monkeypatch):
    """Where no file can be looked for, it may still be there."""
    searcher.update()
    shutil.copy(folder / "more" / "3.jpg", folder / "copy.jpg")
    scandir = os.scandir
    lstat = os.lstat

    def closed(call):
        def refuse(path, *arguments, **options):
            if "more" in os.fspath(path).split(os.sep):
                raise PermissionError(13, "closed", str(path))
            return call(path, *arguments, **options)

        return refuse

    monkeypatch.setattr(os, "scandir", closed(scandir))
    monkeypatch.setattr(os, "lstat", closed(lstat))
    assert searcher.update() == Changes(moved=1, left_out=["Folders that may not be read: more."])
    assert {"more/3.jpg", "copy.jpg"} < set(names_of(searcher.table))


def test_an_image_that_the_processor_has_no_memory_for_is_tried_again(folder, searcher):
    make_scene(5, 20).draw().resize((300, 1)).save(folder / "thin.png")
    image_processor = type(searcher.encoder.processor.image_processor)
    preprocess = image_processor.__call__

    def refuse_thin(self, images, **kwargs):
        if any(image.height == 1 for image in images):
            raise RuntimeError("can't allocate memory")
        return preprocess(self, images, **kwargs)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(image_processor, "__call__", refuse_thin)
        searcher.update()
    assert searcher.table.unreadable == {"thin.png": "can't allocate memory"}
    assert len(searcher.table) == 10
    changes = searcher.update()
    assert changes == Changes(changed=1)
    assert searcher.table.unreadable == {}


@pytest.mark.parametrize("more", [0, 100])
def test_an_image_that_was_written_later_is_embedded_again(folder, searcher, embedded, more):
    """Of the same size, and of another one."""
    path = folder / "0.png"
    size = path.stat().st_size
    searcher.update()
    embedded.clear()
    path.write_bytes((folder / "1.png").read_bytes()[: size + more].ljust(size + more, b"\0"))
    assert path.stat().st_size == size + more
    changes = searcher.update()
    assert changes == Changes(changed=1)
    assert embedded == ["0.png"]


@pytest.mark.parametrize("number", [0, True, "5"])
def test_a_number_of_results_or_images_that_is_none_is_refused(folder, searcher, number):
    with pytest.raises(ValueError, match=f"`batch_size` must be an integer .*, got {number!r}"):
        Searcher(searcher.encoder, searcher.table, folder, batch_size=number)
    with pytest.raises(ValueError, match=f"`k` must be an integer of at least 1, got {number!r}"):
        searcher.search(searcher.embed("a boat"), k=number)


def test_files_that_are_only_compared_are_not_reported_as_embedded(folder, searcher):
    searcher.update()
    for file in folder.iterdir():
        os.utime(file, (5, 5))
    reports = []
    searcher.update(lambda done, total: reports.append((done, total)))
    assert set(reports) == {(0, 0)}


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_ends_an_update_keeps_what_is_embedded(searcher, error):
    reports = []

    def stop_after_six(done: int, total: int) -> None:
        reports.append((done, total))
        if done >= 6:
            raise error

    with pytest.raises(type(error)):
        searcher.update(stop_after_six)
    assert len(searcher.table) == 6
    assert reports[-3:] == [(0, 10), (3, 10), (6, 10)]
    changes = searcher.update()
    assert changes.new == 4
    assert len(names_of(searcher.table)) == 10
    assert len(searcher.table) == 10


def test_embeddings_that_are_not_finite_are_refused(searcher):
    searcher.encoder = copy.deepcopy(searcher.encoder)
    with torch.no_grad():
        for parameter in searcher.encoder.model.vision_model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="of 0.png holds NaN or infinity, since its weights do"):
        searcher.update()
    assert names_of(searcher.table) == []


def test_an_index_is_measured_after_an_update_and_after_many_new_images(folder, searcher, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.table.vector_index.NUM_EXACT", 12)
    backgrounds = []
    embed = searcher_module.embed_background
    table = searcher.table

    def note(*arguments):
        backgrounds.append(embed(*arguments))
        return backgrounds[-1]

    monkeypatch.setattr(searcher_module, "embed_background", note)
    searcher.update()
    assert read_measurements(table).num_rows == 10
    assert len(backgrounds) == 1
    assert len(backgrounds[0]) == 64
    assert len(backgrounds[0].unique(dim=0)) > 1
    assert not has_index(table)
    for number, num_rows, num_measured in ((0, 10, 1), (1, 12, 2)):
        make_scene(5, 50 + number).draw().save(folder / f"new {number}.png")
        searcher.update()
        assert read_measurements(table).num_rows == num_rows
        assert len(backgrounds) == num_measured
    assert has_index(table)
    assert plan_search(table).recall == 1


def test_weak_results_and_copies_are_known_while_another_program_still_indexes(folder, searcher):
    def stop_after_six(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    shutil.copy(folder / "0.png", folder / "00.png")
    with pytest.raises(KeyboardInterrupt):
        searcher.update(stop_after_six)
    assert read_measurements(searcher.table) is None
    query = searcher.embed("a boat")
    meanwhile = searcher.search(query, k=6)
    assert read_measurements(searcher.table) is None
    maintain(searcher.table, searcher.embed_background)
    assert read_measurements(searcher.table) is not None
    assert meanwhile == searcher.search(query, k=6)
    assert any(result.is_below_threshold for result in meanwhile)
    assert [copy.key for result in meanwhile for copy in result.copies] == ["00.png"]


def test_each_model_has_an_index(folder, searcher, encoder, tmp_path):
    model = encoder.model
    processor = encoder.processor
    searcher.update()
    other = find_table(folder, DualEncoder(copy.deepcopy(model).bfloat16(), processor), tmp_path / "indices")
    assert other.folder != searcher.table.folder
    assert len(other) == 0

    # but one and the same model has one, wherever it lies
    model.save_pretrained(tmp_path / "moved")
    processor.save_pretrained(tmp_path / "moved")
    moved = load_encoder(str(tmp_path / "moved"), InferenceArguments(device="cpu"))
    assert find_table(folder, moved, tmp_path / "indices").folder == searcher.table.folder
    moved.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    moved = DualEncoder(moved.model, moved.processor)
    assert len(find_table(folder, moved, tmp_path / "indices")) == 0
    other = copy.deepcopy(model)
    other.config.vision_config.num_attention_heads *= 2  # of the same weights
    assert len(find_table(folder, DualEncoder(other, processor), tmp_path / "indices")) == 0
    assert len(find_table(folder / ("é" * 127), moved, tmp_path / "indices")) == 0  # the longest name there is


def test_embeddings_are_shown_with_the_images_they_are_of(model_dir, encoder, tmp_path):
    """Also of shuffled rows; where the data has changed since it is refused."""
    photos = save_images(tmp_path / "photos", [make_scene(5, number).draw() for number in range(6)])
    rows = [{"image": str(photos / f"{number}.png"), "name": f"scene {number}"} for number in range(6)]
    lines = list(map(json.dumps, rows))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = ["--dataset_name", "json", "--data_files", str(tmp_path / "rows.jsonl"), "--eval_split", "train"]
    options += ["--model", str(model_dir), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    status = lotlip.main(["embed", *options, "--split_seed", "3", "--key_column", "name", "--only", "images"])
    assert status == 0
    table = EmbeddingTable(tmp_path / "out")
    late = table.table.search().where("row = 2").to_arrow()
    table.table.delete("row = 2")
    read = open_images(table)
    table.table.add(late)  # of a run that goes on
    for key in (f"scene {number}" for number in range(6)):
        (embedding,) = embed_images(encoder, [read_image(read(key))])
        torch.testing.assert_close(table.embedding(key), embedding, rtol=0, atol=1e-5)
    os.utime(photos / "0.png", (0, 0))  # its content is that of before
    assert read("scene 0")["path"] == str(photos / "0.png")
    shutil.copy(photos / "1.png", photos / "0.png")
    with pytest.raises(ValueError, match="The file has changed since it was embedded"):
        read("scene 0")
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[1:] + lines[:1]))  # a line that has moved
    with pytest.raises(ValueError, match="The data have changed since .*: name another folder, or delete it"):
        open_images(table)


def test_copies_that_were_moved_out_of_a_folder_leave_nothing_behind(searcher, folder):
    """Also where an image of the same content stays, whose name comes first."""
    shutil.copy(folder / "more" / "3.jpg", folder / "0 copy.jpg")
    shutil.copy(folder / "more" / "3.jpg", folder / "more" / "3 copy.jpg")
    searcher.update()
    for name in ("3.jpg", "3 copy.jpg"):
        os.rename(folder / "more" / name, folder / f"moved {name}")
    changes = searcher.update()
    assert (changes.new, changes.moved, changes.deleted) == (0, 2, 0)
    assert sorted(names_of(searcher.table)) == sorted(path.name for path in folder.glob("*.*g"))


def test_images_that_were_moved_out_of_a_folder_are_there_once(searcher, folder):
    """The empty folder that they leave is not one whose images are out of reach."""
    searcher.update()
    count = len(searcher.table)
    (folder / "sorted").mkdir()
    for path in (folder / "more").iterdir():
        path.rename(folder / "sorted" / path.name)
    searcher.update()
    names = names_of(searcher.table)
    assert len(searcher.table) == count
    assert not any(name.startswith("more/") for name in names)


@pytest.mark.parametrize(
    ("source", "kinds", "message"),
    [
        ("s3://bucket/photos", ["image"], "is of images in s3://bucket/photos, which the page cannot show"),
        ({"streaming": True}, ["image"], "holds embeddings of streamed data, which the page cannot show"),
        ({"streaming": False}, ["short"], "holds no embeddings of images, which the page shows"),
        (None, ["image"], "does not say where its images are"),
    ],
    ids=["object store", "stream", "captions", "made in Python"],
)
def test_images_that_the_page_cannot_show_are_refused(tmp_path, source, kinds, message):
    table = EmbeddingTable.create(tmp_path, 4, {"kinds": kinds, "source": source})
    with pytest.raises(ValueError, match=message):
        open_images(table)

"""A model and a collection, for several visitors at once."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import lotlip
from modeling_lotlip.data.scenes import load_scenes, make_scene
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.embedding.table import EmbeddingTable
from modeling_lotlip.search.arguments import PageArguments
from modeling_lotlip.search.filters import Filter
from modeling_lotlip.search.pictures import PictureFolder, open_pictures
from modeling_lotlip.search.query import QueryError
from modeling_lotlip.search.rendering import format_results, format_status
from modeling_lotlip.search.searcher import Searcher, Status
from modeling_lotlip.search.update import find_table
from tests.helpers.embeddings import embed_images


def test_two_programs_share_an_index(folder, open_folder):
    one, other = open_folder(), open_folder()
    one.update()
    other.update()
    make_scene(5, 30).draw().save(folder / "new.png")
    one.update()
    other.update()  # for which nothing is left to do
    assert other.changes == (0, 0, 0) and len(other.table) == 11
    with one.table.writing():
        one.update()
    assert "is written by process" in format_status(one) and "11 images of before" in format_status(one)

    # an update that fails has dropped what is gone, and the page knows
    (folder / "0.png").unlink()
    make_scene(5, 31).draw().save(folder / "newer.png")
    with pytest.MonkeyPatch.context() as monkeypatch:

        def fail(*_):
            raise OSError("the disk is gone")

        monkeypatch.setattr("modeling_lotlip.embedding.rows.embed_images", fail)
        one.update()
        assert "the disk is gone" in format_status(one) and "0.png" not in one.table
    one.update()
    assert one.changes == (1, 0, 0) and len(one.table) == 11 and "11 images in" in format_status(one)


def test_what_is_indexed_can_be_searched_meanwhile(folder, open_folder, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.embedding.store.WRITE_SIZE", 3)
    searcher = open_folder()
    seen, write = [], Status.__new__

    def note(cls, *values):
        seen.append((len(searcher.table), *values[1:3]))
        return write(cls, *values)

    monkeypatch.setattr(Status, "__new__", note)
    searcher.update()
    searchable = [number for number, *_ in seen]
    assert searchable[0] == 0 and sorted(searchable) == searchable and len(set(searchable)) >= 3
    assert all(number <= done for number, done, total in seen if total == 10)

    # a later update too, and whatever happens in it, it comes to its end
    for number in range(24):
        make_scene(7, number).draw().save(folder / f"later {number:02}.png")
    seen.clear()
    searcher.update()
    assert len({number for number, *_ in seen}) >= 3 and len(searcher.table) == 34
    make_scene(7, 30).draw().save(folder / "last.png")
    with pytest.MonkeyPatch.context() as broken:

        def fail(*_):
            raise MemoryError

        broken.setattr("modeling_lotlip.embedding.rows.embed_images", fail)
        searcher.update()
    assert not searcher.status.is_updating and searcher.status.problem == "MemoryError"
    searcher.start_update(min_seconds_ago=60)
    assert searcher.thread is None
    searcher.start_update()
    searcher.thread.join()


def test_searcher_of_a_folder(folder, open_folder):
    searcher = open_folder()
    with pytest.raises(QueryError, match="Nothing is indexed yet"):
        searcher.search("a boat", None, 3)
    assert "No images in" in format_status(searcher)
    searcher.status = Status(True, 3, 10, None)
    assert "Indexing: 3 of 10 images" in format_status(searcher)
    (folder / "<b>.png").write_bytes(b"no picture")
    searcher.start_update()
    searcher.thread.join()
    status = format_status(searcher)
    assert "10 images in" in status and "1 file that cannot be read" in status and "&lt;b&gt;.png" in status

    results = searcher.search("", str(folder / "more" / "3.jpg"), 4).results
    text = "A boat. It is 3.5 m long."
    assert [sentence.text for sentence in searcher.search(text, None, 1).query.sentences] == [
        "A boat",
        "It is 3",
        "5 m long",
    ]
    searcher.splitter = "sentences"
    assert [sentence.text for sentence in searcher.search(text, None, 1).query.sentences] == [
        "A boat",
        "It is 3.5 m long",
    ]
    alike = searcher.similar("more/3.jpg", 3)
    assert alike.results[0].name == "more/3.jpg" and len(alike.results) == 3 and alike.query.sentences == []
    assert results[0].name == "more/3.jpg" and results[0].similarity == pytest.approx(1, abs=1e-5)
    assert len(results) == 4 and results[0].sentence_similarities == []
    picture = searcher.heat_map("more/3.jpg", "a red boat")
    assert picture.size == (224, 224)
    with pytest.raises(QueryError, match="not in the collection"):
        searcher.heat_map("../secret.png", "a red boat")
    (folder / "2.png").unlink()
    with pytest.raises(QueryError, match="cannot be read any more"):
        searcher.heat_map("2.png", "a red boat")

    found = searcher.search("<script>a</script>. " + "the ground is sand. " * 100, None, 10)
    page = format_results(found, searcher)
    num_cards = len(found.results)
    assert num_cards + sum(len(result.copies) for result in found.results) == 10
    assert "<script>" not in page and page.count('class="card"') == num_cards
    assert page.count('aria-pressed="false"') == num_cards * 60
    assert page.count("93 more sentences, the first 52 of them") == num_cards
    assert "of 401 words" in page


def test_more_results_without_a_new_embedding(folder, open_folder, monkeypatch):
    monkeypatch.setattr("modeling_lotlip.search.searcher.NUM_QUERIES", 2)
    shutil.copy(folder / "1.png", folder / "copy.png")
    searcher = open_folder()
    searcher.update()
    num = len(searcher.search("a boat", None, 50).results)
    first = searcher.search("a boat", None, 4)
    whole = searcher.search("a boat", None, 50)
    assert len(first.results) == 4 and first.has_more and not whole.has_more
    assert {"1.png", "copy.png"} in [{hit.name, *(copy.name for copy in hit.copies)} for hit in whole.results]
    with monkeypatch.context() as patched:
        patched.setattr("modeling_lotlip.search.searcher.embed_query", None)
        found = first.results + searcher.more(first.key, 4, 3).results + searcher.more(first.key, 7, 50).results
        last = searcher.more(first.key, num, 3)
        alike = searcher.similar("2.png", 1)
        assert searcher.more(alike.key, 1, 1).results == searcher.similar("2.png", 2).results[1:]
    assert [result.name for result in found] == [result.name for result in whole.results]
    assert last.results == [] and not last.has_more
    for key, start in ((whole.key, 4), ("nothing", 0), (alike.key, -1), (alike.key, 10**9)):
        with pytest.raises(QueryError, match="too long ago|no more results"):
            searcher.more(key, start, 3)


def test_a_searcher_with_a_filter(folder, open_folder):
    searcher = open_folder()
    searcher.update()
    found = searcher.search("a boat", None, 5, Filter(folder="more"))
    assert [result.name for result in found.results] == ["more/3.jpg"] and not found.has_more
    assert "The 1 most similar of 1 image in the folder more." in format_results(found, searcher)
    with pytest.raises(QueryError, match="There are no pictures in the folder less."):
        searcher.search("a boat", None, 5, Filter(folder="less"))


def test_each_model_has_an_index_of_its_own(folder, open_folder, model_and_processor, tmp_path):
    searcher = open_folder()
    searcher.update()
    (folder / "2.png").unlink()
    again = open_folder()
    again.update()
    assert again.changes == (0, 0, 1) and again.table.folder == searcher.table.folder
    model, processor = model_and_processor
    in_bfloat16 = copy.deepcopy(model).bfloat16()
    other = find_table(PictureFolder(folder), in_bfloat16, processor, tmp_path / "indices")
    assert other.folder != searcher.table.folder and len(other) == 0

    # but one and the same model has one, wherever it lies
    model.save_pretrained(tmp_path / "moved")
    processor.save_pretrained(tmp_path / "moved")
    moved = load_model(str(tmp_path / "moved"), InferenceArguments(device="cpu"))
    assert find_table(PictureFolder(folder), *moved, tmp_path / "indices").folder == searcher.table.folder
    moved[1].image_processor.image_mean = [0.1, 0.2, 0.3]
    assert len(find_table(PictureFolder(folder), *moved, tmp_path / "indices")) == 0
    with pytest.raises(ValueError, match="is no folder"):
        PictureFolder(tmp_path / "nothing")


def test_searcher_of_a_data_set(model_and_processor, tmp_path):
    scenes = load_scenes(20, seed=5)
    scenes.save_to_disk(tmp_path / "data")
    scenes[11]["image"].save(tmp_path / "query.png")
    pictures = open_pictures(PageArguments(dataset_name=str(tmp_path / "data")))
    table = find_table(pictures, *model_and_processor, tmp_path / "indices")
    of_rows = Searcher(*model_and_processor, pictures, table)
    of_rows.update()
    assert of_rows.search("", str(tmp_path / "query.png"), 1).results[0].name == "11"
    of_rows.update()
    assert of_rows.changes == (0, 0, 0) and len(of_rows.table) == 20
    (tmp_path / "files").mkdir()
    for number in range(3):
        scenes[number]["image"].save(tmp_path / "files" / f"{number}.png")
    pictures = open_pictures(PageArguments(dataset_name="imagefolder", data_dir=str(tmp_path / "files")))
    table = find_table(pictures, *model_and_processor, tmp_path / "indices")
    scenes[9]["image"].resize((70, 70)).save(tmp_path / "files" / "1.png")
    pictures = open_pictures(PageArguments(dataset_name="imagefolder", data_dir=str(tmp_path / "files")))
    assert find_table(pictures, *model_and_processor, tmp_path / "indices").folder != table.folder
    assert pictures.place == "imagefolder" and pictures.settings["source"]["data_dir"] == str(tmp_path / "files")


def test_searcher_of_saved_embeddings(model_dir, model_and_processor, tmp_path):
    scenes = load_scenes(20, seed=5)
    scenes.add_column("name", [f"scene {7 * number % 20}" for number in range(20)]).save_to_disk(tmp_path / "data")
    scenes[11]["image"].save(tmp_path / "query.png")
    named = {"model_name_or_path": model_dir, "dataset_name": tmp_path / "data", "output_dir": tmp_path / "embeddings"}
    named |= {"device": "cpu", "key_column": "name"}
    argv = [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    assert lotlip.main(["embed", *argv]) == 0
    pictures = open_pictures(PageArguments(embeddings_dir=tmp_path / "embeddings"))
    table = EmbeddingTable(tmp_path / "embeddings")
    saved = Searcher(*model_and_processor, pictures, table, is_kept=False)
    (result,) = saved.search("", str(tmp_path / "query.png"), 1).results
    assert result.name == f"scene {7 * 11 % 20}"
    assert saved.pictures.read(result.name).tobytes() == scenes[11]["image"].tobytes()
    saved.start_update()
    assert saved.thread is None


def test_embeddings_are_shown_with_their_own_images(model_dir, model_and_processor, tmp_path):
    """Also of shuffled rows; where the data has changed since it is refused."""
    (tmp_path / "photos").mkdir()
    lines = []
    for number in range(6):
        make_scene(5, number).draw().save(tmp_path / "photos" / f"{number}.png")
        lines.append(json.dumps({"image": str(tmp_path / "photos" / f"{number}.png"), "caption": "a boat"}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = ["--dataset_name", "json", "--data_files", str(tmp_path / "rows.jsonl"), "--eval_split", "train"]
    options += ["--model", str(model_dir), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    assert lotlip.main(["embed", *options, "--split_seed", "3"]) == 0
    table = EmbeddingTable(tmp_path / "out")
    pictures = open_pictures(PageArguments(embeddings_dir=table.folder))
    for key in map(str, range(6)):
        (embedding,) = embed_images(*model_and_processor, [pictures.read(key)])
        torch.testing.assert_close(table.embedding(key), embedding, rtol=0, atol=1e-5)
    assert len(pictures.scan()) == 6
    # a line that has moved
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[1:] + lines[:1]))
    with pytest.raises(ValueError, match="holds embeddings with data = .*: the data has changed, so embed it again"):
        open_pictures(PageArguments(embeddings_dir=table.folder))


def test_pictures_of_the_page_are_made_once(folder, open_folder):
    large = make_scene(5, 40).draw().resize((3000, 2000))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    large.save(folder / "large.jpg", exif=exif)
    small = PictureFolder(folder).read("large.jpg", 480)
    expected = PictureFolder(folder).read("large.jpg")
    expected.thumbnail((480, 480))
    assert small.size == expected.size == (320, 480)
    difference = np.abs(np.asarray(small, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.mean() < 2

    searcher = open_folder()
    searcher.update()
    first = searcher.thumbnail("1.png")
    assert searcher.thumbnail("1.png") is first and first.startswith("data:image/png")
    assert searcher.enlarge("large.jpg").startswith("data:image/jpeg")
    make_scene(5, 41).draw().save(folder / "1.png")
    assert searcher.thumbnail("1.png") != first
    (folder / "1.png").unlink()
    assert searcher.thumbnail("1.png") is None
    with pytest.raises(QueryError, match="not in the collection"):
        searcher.enlarge("../photos/2.png")


def test_searcher_of_a_stored_index(folder, open_folder, model_and_processor):
    made = open_folder()
    made.update()
    pictures = open_pictures(PageArguments(embeddings_dir=made.table.folder))
    stored = Searcher(*model_and_processor, pictures, EmbeddingTable(made.table.folder), is_kept=False)
    assert stored.search("a boat", None, 3).results == made.search("a boat", None, 3).results
    assert stored.enlarge("more/3.jpg") == made.enlarge("more/3.jpg") and stored.thumbnail("1.png") is not None
    scenes = load_scenes(5, seed=5)
    scenes.save_to_disk(folder.parent / "data")
    source = PageArguments(dataset_name=str(folder.parent / "data"))
    table = find_table(open_pictures(source), *model_and_processor, folder.parent / "indices")
    of_rows = Searcher(*model_and_processor, open_pictures(source), table)
    of_rows.update()
    pictures = open_pictures(PageArguments(embeddings_dir=table.folder))
    assert pictures.read("3").tobytes() == scenes[3]["image"].tobytes() and "3" in EmbeddingTable(table.folder)
